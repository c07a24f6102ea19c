"""Classes as a model file holds them: their values as JSON, and their dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array

#: Dates and differences of them, which are counted.
_TIMES = "Mm"


def described(classes: Array, name: str) -> dict[str, Any]:
    """Return sorted classes as JSON types; their dtype comes back exactly.

    Raises
    ------
    TypeError
        If no file can hold them: they are other objects than str, or longer than float64.
    """
    dtype, kind = classes.dtype, classes.dtype.kind
    of_str = kind == "O" and all(isinstance(label, str) for label in classes)
    if (not of_str and kind not in f"biufU{_TIMES}") or (kind == "f" and dtype.itemsize > 8):
        raise TypeError(f"{name}: expected str or numbers, which a file can hold, got {dtype}")
    values = classes.view(np.int64) if kind in _TIMES else classes
    return {"classes": values.tolist(), "dtype": dtype.str}


def restored(model: dict[str, Any], name: str, n: int) -> Array:
    """Return the `n` classes that :func:`described` described."""
    dtype: np.dtype[Any] = np.dtype(model["dtype"])
    if dtype.kind in _TIMES:
        classes = np.array(model["classes"], np.int64).view(dtype)
    else:
        classes = np.array(model["classes"], dtype)
    _checks.expect_shape(classes, name, (n,))
    again = described(classes, name)
    exact = all(again[key] == model[key] for key in again)
    # Not np.unique, with which numpy.ma is imported: a service is to start at once.
    if not exact or not (classes[1:] > classes[:-1]).all():
        raise ValueError(f"{name}: expected {n} of {dtype}, sorted, got {model['classes']}")
    return classes
