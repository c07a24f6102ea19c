"""What may come in: arguments are checked once, here, and the floors below trust them."""

from __future__ import annotations

import math
import numbers
import operator
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from fastrnn._types import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_INTP = np.dtype(np.intp)


def dtype(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """`value` as one of the dtypes that the kernels are built for."""
    if isinstance(value, np.dtype) and value in DTYPES:
        return value
    expected = f"{name}: expected float32 or float64, got {value!r}"
    try:
        found: np.dtype[Any] = np.dtype(value)
    except (TypeError, ValueError):
        raise TypeError(expected) from None
    if value is None or found not in DTYPES:  # np.dtype(None) is float64
        raise ValueError(expected)
    return found


def size(value: Any, name: str, least: int = 1, most: int = sys.maxsize) -> int:
    """A whole number of at least 1, or of at least `least`, and at most `most`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}") from None
    if isinstance(value, bool) or number < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    if number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}")
    return number


def memory(count: int, dtype: np.dtype[Any], **sizes: int) -> None:
    """Refuse sizes of which so many numbers can't be held."""
    try:
        np.empty(count, dtype)  # costs nothing: the system gives pages when they are written to
    except (MemoryError, ValueError, OverflowError):
        named = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{named}: expected sizes that fit into memory") from None


def flag(value: Any, name: str) -> bool:
    """True or False; 1 and 0 will do."""
    if value is True or value is False:  # asked first, for speed
        return value
    if not isinstance(value, int | np.bool_ | np.integer) or value not in (0, 1):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def choice(value: Any, name: str, among: Iterable[str]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in among:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, among))}, got {value!r}")
    return value


def real(value: Any, name: str, expected: str, fits: Callable[[float], bool]) -> float:
    """A real number that `fits`, which `expected` says in words."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return float(value)


def positive(value: Any, name: str) -> float:
    """A finite number above 0."""
    return real(value, name, "a finite number above 0", lambda v: 0 < v < float("inf"))


def not_negative(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    return real(value, name, "a finite number >= 0", lambda v: 0 <= v < float("inf"))


def finite(value: Any, name: str) -> float:
    """A finite number."""
    return real(value, name, "a finite number", math.isfinite)


def fraction(value: Any, name: str) -> float:
    """A number in 0 <= value < 1."""
    return real(value, name, "a number in [0, 1)", lambda v: 0 <= v < 1)


def probability(value: Any, name: str) -> float:
    """A number in 0 <= value <= 1."""
    return real(value, name, "a number in [0, 1]", lambda v: 0 <= v <= 1)


def seed(value: Any) -> int | None:
    """None, or a whole number of at least 0."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"seed: expected a whole number, got {type(value).__name__}") from None
    if number < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {value!r}")
    return number


def path(value: Any, name: str = "path") -> str:
    """The path of a file."""
    try:
        return os.fsdecode(value)
    except TypeError:
        expected = f"{name}: expected a str or a path"
        raise TypeError(f"{expected}, got {type(value).__name__}") from None


def verbosity(value: Any) -> int:
    """How much a training tells: 0, 1 or 2, or a bool."""
    if not isinstance(value, int) or not 0 <= value <= 2:
        raise ValueError(f"verbose: expected 0, 1 or 2, got {value!r}")
    return int(value)


def shape_text(shape: Sequence[int | str]) -> str:
    """A shape as people write it: ``(T, 3, 8)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def asarray(value: Any, name: str) -> Array:
    """`value` as an array of whatever it holds; an error if it is ragged."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array, got a ragged sequence") from None
    except (TypeError, RuntimeError) as error:  # a tensor that does not give its numbers away
        kind = type(value).__name__
        raise TypeError(f"{name}: expected an array, got {kind}: {error}") from None


def numeric(value: Any, name: str) -> Array:
    """`value` as an array of real numbers.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it is ragged.
    """
    found = asarray(value, name)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers, got dtype {found.dtype}")
    return found


def _plain(value: Any, dtype: np.dtype[Any]) -> TypeGuard[Array]:
    """Whether kernels can read it as it is. It mostly is so: asked first, for speed."""
    if type(value) is not np.ndarray or value.dtype != dtype:
        return False
    flags = value.flags
    return flags.c_contiguous and flags.aligned


def array(value: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """`value` as an array of `dtype` that a kernel can read: aligned, last axis contiguous."""
    if _plain(value, dtype):
        return value
    found = numeric(value, name)
    if found.dtype != dtype:
        return np.ascontiguousarray(found, dtype=dtype).reshape(found.shape)
    readable = found.flags.aligned and all(s % found.itemsize == 0 for s in found.strides)
    rows = found.ndim == 0 or found.shape[-1] <= 1 or found.strides[-1] == found.itemsize
    return found if readable and rows else np.array(found, order="C")


def floats(value: Any, name: str) -> Array:
    """`value` as a readable array: float64 if it is that, else float32."""
    found = asarray(value, name)
    native = found.dtype.newbyteorder("=")
    return array(found, name, native if native in DTYPES else DTYPES[0])


def whole_numbers(value: Any, name: str) -> Array:
    """`value` as a C-contiguous array of intp; kernels check their range where they use them.

    Raises
    ------
    TypeError
        If it does not hold whole numbers.
    ValueError
        If it is ragged.
    """
    if _plain(value, _INTP):
        return value
    found = asarray(value, name)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an array of whole numbers, got dtype {found.dtype}")
    if not np.can_cast(found.dtype, np.intp):
        # What is larger stays out of every range.
        found = found.clip(max=np.iinfo(np.intp).max)
    return np.require(found, np.intp, ["C", "A"])


def indices(value: Any, name: str, below: int, least: int = 0) -> Array:
    """`value` as an array of whole numbers in 0..below-1, or in least..below-1.

    Raises
    ------
    TypeError
        If it does not hold whole numbers.
    ValueError
        If it is ragged, or one is out of range.
    """
    found = asarray(value, name)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected an array of whole numbers, got dtype {found.dtype}")
    if found.size and (found.min() < least or found.max() >= below):
        wrong = found.min() if found.min() < least else found.max()
        raise ValueError(f"{name}: expected whole numbers in {least}..{below - 1}, got {wrong}")
    return found


def rows(value: Any, B: int) -> Array | slice:
    """`value`, which rows of a batch of `B` are meant, as an index; None means all.

    Raises
    ------
    ValueError, TypeError
        If it is neither a row number, nor row numbers, nor `B` booleans. Integers that are all 0 or
        1, and as many as the batch has rows, are refused: they may be flags.
    """
    if value is None:
        return slice(None)
    expected = f"rows: expected row numbers under {B}, or {B} booleans, got {value!r}"
    try:
        found = np.array(value)  # what is checked is what is used
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(expected) from None
    if found.size == 0 and found.ndim == 1:
        return np.zeros(0, np.intp)
    if found.dtype == np.bool_:
        if found.shape != (B,) and not (found.ndim == 0 and B == 1):
            raise ValueError(expected)
        return np.flatnonzero(found)
    if found.dtype.kind not in "iu" or found.ndim > 1:
        raise TypeError(expected)
    if found.ndim == 1 and len(found) == B > 1 and ((found == 0) | (found == 1)).all():
        raise ValueError(
            f"{expected}: these may be row numbers or flags; pass booleans as flags, None for all "
            "rows"
        )
    if (found < -B).any() or (found >= B).any():
        raise ValueError(expected)
    return found.reshape(-1).astype(np.intp)


def expect_shape(found: Array, name: str, shape: Sequence[int | str]) -> Array:
    """`found`, if it has `shape`; a letter in `shape` stands for any size of at least 1."""
    if found.shape == shape:
        return found
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


def expect_dtype(found: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """`found`, if it is of `dtype`."""
    if found.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {dtype}, got {found.dtype}")
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


def states(
    value: Any,
    name: str,
    names: Sequence[str],
    dtype: np.dtype[Any],
    shapes: Sequence[Sequence[int]],
) -> list[Array | None]:
    """`value`, a bare array for one state or a pair for two, as a list of C-contiguous arrays.

    None stands for None in place of each. `shapes` has one for each of `names`.
    """
    items = (value,) if len(names) == 1 else value
    if type(items) is tuple and len(items) == len(names):
        for item, shape in zip(items, shapes, strict=True):
            if not _plain(item, dtype) or item.shape != shape:
                break
        else:
            return list(items)
    if len(names) == 1:
        given = {name: value}
    else:
        expected = f"{name}: expected a tuple ({', '.join(names)})"
        items = (None,) * len(names) if value is None else value
        if not isinstance(items, tuple | list):
            raise TypeError(f"{expected}, got {type(value).__name__}")
        if len(items) != len(names):
            raise ValueError(f"{expected}, got {len(items)} items")
        given = {f"{name} {n}": item for n, item in zip(names, items, strict=True)}
    return [
        None if item is None else np.ascontiguousarray(shaped(item, n, dtype, shape))
        for (n, item), shape in zip(given.items(), shapes, strict=True)
    ]


def nonlinearity(value: Any) -> str:
    """One of the activations of an Elman network."""
    return choice(value, "nonlinearity", ("tanh", "relu"))


def lengths(value: Any, T: int, shape: tuple[int, ...]) -> Array | None:
    """None, or how many of T steps each row has: (B,) int64, from `shape` (B,), or () for one."""
    if value is None:
        return None
    found = indices(value, "lengths", T + 1, 1)
    return expect_shape(found, "lengths", shape).reshape(-1).astype(np.int64)


def reset(value: Any, T: int, shape: tuple[int, ...]) -> Array | None:
    """None, or where states are zeroed: (T, B) booleans, from `shape` (B,), or () for one row."""
    if value is None:
        return None
    found = asarray(value, "reset")
    if found.dtype != np.bool_:
        raise TypeError(f"reset: expected an array of booleans, got dtype {found.dtype}")
    return expect_shape(found, "reset", (T, *shape)).reshape(T, -1)
