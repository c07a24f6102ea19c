"""The compiled twin of ``fastrnn._kernels.reference``: one module per instruction set and dtype."""
