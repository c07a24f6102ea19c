"""What may come in: arguments are checked once, here, and the floors below trust them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def dtype(value: Any) -> np.dtype[Any]:
    """`value` as one of the dtypes that the kernels are built for."""
    found = np.dtype(value)
    if found not in DTYPES:
        raise ValueError(f"dtype: expected float32 or float64, got {found}")
    return found.newbyteorder("=")


def size(value: Any, name: str) -> int:
    """A whole number of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}") from None
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return number


def shape_text(shape: Sequence[int | str]) -> str:
    """A shape as people write it: ``(T, 3, 8)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def array(value: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """`value` as an array of `dtype` that a kernel can read: aligned, last axis contiguous.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it is ragged.
    """
    try:
        found = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array, got a ragged sequence") from None
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {found.dtype}")
    if found.dtype != dtype:
        return np.ascontiguousarray(found, dtype=dtype).reshape(found.shape)
    readable = found.flags.aligned and all(s % found.itemsize == 0 for s in found.strides)
    rows = found.ndim == 0 or found.shape[-1] <= 1 or found.strides[-1] == found.itemsize
    return found if readable and rows else np.array(found, order="C")


def expect_shape(found: Array, name: str, shape: Sequence[int | str]) -> Array:
    """`found`, if it has `shape`; a letter in `shape` stands for any size of at least 1."""
    fits = len(found.shape) == len(shape) and all(
        have >= 1 if isinstance(want, str) else have == want
        for have, want in zip(found.shape, shape, strict=True)
    )
    if not fits:
        free = sorted({want for want in shape if isinstance(want, str)})
        where = f" with {', '.join(free)} >= 1" if free else ""
        raise ValueError(
            f"{name}: expected shape {shape_text(shape)}{where}, got {shape_text(found.shape)}"
        )
    return found


def shaped(value: Any, name: str, dtype: np.dtype[Any], shape: Sequence[int | str]) -> Array:
    """`value` as a readable array of `dtype` and `shape`."""
    return expect_shape(array(value, name, dtype), name, shape)


def writable(value: Any, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """`value` itself, if results can be written to it as it is."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {value.dtype}")
    if not (value.flags.writeable and value.flags.aligned and value.flags.c_contiguous):
        raise ValueError(f"{name}: expected a writeable, aligned, C-contiguous array")
    return expect_shape(value, name, shape)


def states(value: Any, name: str, names: Sequence[str]) -> tuple[Any, ...]:
    """`value` as one item for each of `names`: a bare array for one, a pair for two."""
    if value is None:
        return (None,) * len(names)
    if len(names) == 1:
        return (value,)
    expected = f"{name}: expected a tuple ({', '.join(names)})"
    if not isinstance(value, tuple | list):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    if len(value) != len(names):
        raise ValueError(f"{expected}, got {len(value)} items")
    return tuple(value)
