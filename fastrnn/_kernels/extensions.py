"""Instructions that only some CPUs of a variant have, which its kernels use where they can.

``FASTRNN_WITHOUT`` names those that a process does without, separated by commas: it is slower then,
with the same results, bit for bit. It is read once, at import.
"""

from __future__ import annotations

import importlib.util
import os

#: All that any kernels use.
KNOWN = ("avx512bf16", "avx512vnni", "avxvnni")


def _found() -> tuple[str, ...]:
    """Return those that this CPU has."""
    if importlib.util.find_spec("fastrnn._kernels._cpu") is None:
        return ()
    from fastrnn._kernels import _cpu

    return _cpu.extensions()


def _without() -> tuple[str, ...]:
    """Return those that ``FASTRNN_WITHOUT`` names."""
    text = os.environ.get("FASTRNN_WITHOUT", "")
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    for name in names:
        if name not in KNOWN:
            raise ValueError(f"FASTRNN_WITHOUT: expected some of {', '.join(KNOWN)}, got {name!r}")
    return names


#: Those that are there but not to be used, and those that are used.
WITHOUT = _without()
USED = tuple(name for name in _found() if name not in WITHOUT)
