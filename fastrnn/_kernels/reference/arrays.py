"""Checks of the arrays that kernels read and write, as the compiled twin makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array

#: Dtypes that kernels are built for.
REALS = (np.dtype(np.float32), np.dtype(np.float64))

T_in = ParamSpec("T_in")
T_out = TypeVar("T_out")
T_own = TypeVar("T_own")


def own(value: object, kind: type[T_own], name: str) -> T_own:
    """Return `value`, if it is of this twin's class `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def pinning(kernel: Callable[T_in, T_out]) -> Callable[T_in, T_out]:
    """Make a kernel pin its arrays, so that no other thread resizes them meanwhile."""

    @wraps(kernel)
    def pinned(*args: T_in.args, **options: T_in.kwargs) -> T_out:
        _pins = _checks.pinned(*map(_arrays_of, (*args, *options.values())))
        return kernel(*args, **options)

    return pinned


def _arrays_of(value: Any) -> Any:
    """Return the arrays of a gradient of rows, also of those in a sequence; others as they are."""
    if isinstance(value, RowGradient):
        return value.rows, value.values
    return [*map(_arrays_of, value)] if isinstance(value, list | tuple) else value


def refuse(array: Any, name: str, expected: str) -> None:
    """Raise an error that names the array, what was expected and what came."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    flags = array.flags
    flaws = "" if flags.aligned else ", not aligned"
    flaws += "" if flags.writeable else ", read-only"
    flaws += "" if flags.c_contiguous else f", with strides {array.strides}"
    raise ValueError(f"{name}: expected {expected}, got {array.dtype} {array.shape}{flaws}")


def is_plain(array: Any, dtype: np.dtype[Any], *, out: bool = False) -> bool:
    """Return whether it is an aligned array of `dtype`, writeable if `out`."""
    return (
        isinstance(array, np.ndarray)
        and array.dtype == dtype
        and array.flags.aligned
        and (array.flags.writeable or not out)
    )


def same_bits(copies: Sequence[Array | None], arrays: Sequence[Array | None]) -> bool:
    """Return whether each array has the bits and shape of its copy, or both are None."""
    return all(
        a is b is None
        or (
            a is not None
            and is_plain(b, a.dtype)
            and b is not None
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
        for a, b in zip(copies, arrays, strict=True)
    )


def real_type(array: Any, name: str, *, out: bool = False) -> np.dtype[Any]:
    """Return the dtype of a C-contiguous array, float32 or float64, writeable if `out`."""
    if (
        not isinstance(array, np.ndarray)
        or array.dtype not in REALS
        or not array.flags.aligned
        or not array.flags.c_contiguous
        or (out and not array.flags.writeable)
    ):
        refuse(array, name, "a C-contiguous float32 or float64 array")
    dtype: np.dtype[Any] = array.dtype
    return dtype


def like(
    array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, out: bool = False
) -> None:
    """Raise unless it is a C-contiguous array of this shape and dtype."""
    if not (is_plain(array, dtype, out=out) and array.flags.c_contiguous and array.shape == shape):
        refuse(array, name, f"a C-contiguous {dtype} array {shape}")


def copied(array: Any, name: str) -> Array:
    """Return a C-contiguous copy."""
    if not isinstance(array, np.ndarray):
        refuse(array, name, "")
    return np.array(array, order="C")


def rows_of(array: Any, name: str, columns: int, dtype: np.dtype[Any]) -> int:
    """Return n of an array (n, columns) whose last axis is contiguous; raise if it is not one."""
    size = dtype.itemsize
    if not (
        is_plain(array, dtype)
        and array.ndim == 2
        and array.shape[1] == columns
        and (columns == 1 or array.strides[1] == size or array.size == 0)
        and array.strides[0] % size == 0
    ):
        refuse(array, name, f"a {dtype} array (n, {columns}) whose last axis is contiguous")
    return len(array)


def integers(array: Any, name: str, shape: Sequence[int] | None = None) -> None:
    """Raise unless it is a C-contiguous array of intp of this shape; None stands for (n,)."""
    fits = is_plain(array, np.dtype(np.intp)) and array.flags.c_contiguous
    if not fits or (array.ndim != 1 if shape is None else array.shape != shape):
        where = "(n,)" if shape is None else shape
        refuse(array, name, f"a C-contiguous intp array {where}")


def refuse_strays(strays: Array, indices: Array, name: str, expected: str) -> None:
    """Raise if an index is out of range, naming the first one."""
    if strays.any():
        stray = indices.reshape(-1)[strays.reshape(-1).argmax()]
        raise ValueError(f"{name}: expected {expected}, got {stray}")
