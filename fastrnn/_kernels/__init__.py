"""The compiled twin of ``fastrnn._reference``: one module per instruction set and dtype."""
