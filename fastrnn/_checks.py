"""Argument checks: each returns the checked value, or raises an error that names the argument."""

from __future__ import annotations

import importlib
import math
import numbers
import operator
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from fastrnn import _frames
from fastrnn._types import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
_INTP = np.dtype(np.intp)
_MAY_BE_0 = frozenset({"B", "N"})


def dtype(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """Return `value` as one of the dtypes that the kernels are built for."""
    if isinstance(value, np.dtype) and value in DTYPES:
        return value
    expected = f"{name}: expected float32 or float64, got {value!r}"
    try:
        converted: np.dtype[Any] = np.dtype(value)
    except (TypeError, ValueError):
        raise TypeError(expected) from None
    if value is None or converted not in DTYPES:  # np.dtype(None) is float64
        raise ValueError(expected)
    return converted


def size(value: Any, name: str, least: int = 1, most: int = sys.maxsize) -> int:
    """Return `value` as an int in `least`..`most`."""
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
    """Raise if an array of `count` elements does not fit into memory.

    Raises
    ------
    ValueError
        If it is larger than the machine's memory.
    MemoryError
        If it is not, but there is too little left.
    """
    try:
        np.empty(count, dtype)  # costs nothing: pages are allocated when written to
    except (MemoryError, ValueError, OverflowError) as error:
        if isinstance(error, MemoryError) and count * dtype.itemsize <= _machine_memory():
            raise
        named = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{named}: expected sizes that fit into memory") from None


def imported(name: str) -> Any:
    """Import a module; raise a MemoryError if there is too little memory for its code."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        # What the loader of Linux says.
        told = str(error).lower()
        if "failed to map segment" in told or "cannot allocate memory" in told:
            raise MemoryError(f"{name}: {error}") from error
        raise


def _machine_memory() -> int:
    """Return the bytes of memory that the machine has; where it does not tell, an exbibyte."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**60


def flag(value: Any, name: str) -> bool:
    """Return `value` as a bool; 0 and 1 are accepted."""
    if value is True or value is False:  # fast path
        return value
    if not isinstance(value, int | np.bool_ | np.integer) or value not in (0, 1):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def choice(value: Any, name: str, among: Iterable[str]) -> str:
    """Return `value`, if it is one of `among`."""
    if not isinstance(value, str) or value not in among:
        hint = near(value, among)
        names = [*map(repr, among)]
        expected = f"{name}: expected {'one of ' * (len(names) > 1)}{', '.join(names)}"
        raise ValueError(f"{expected}, got {value!r}{hint}")
    return value


#: Precisions of the operands of matrix products: that of the arrays, which may be float64 too, or
#: less.
PRECISIONS = ("float32", "bfloat16")


def matmul_precision(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return `value`, if it is a precision of products of arrays of `dtype`."""
    if choice(value, "matmul_precision", PRECISIONS) != "float32" and dtype != np.float32:
        raise ValueError(
            f"matmul_precision: expected 'float32' for arrays of {dtype}, got {value!r}, which "
            "rounds float32"
        )
    return value


def kind_of(value: Any) -> str:
    """Return what `value` is, for messages where an object is expected."""
    if isinstance(value, type):
        return f"the class itself: pass {value.__name__}(...)"
    return type(value).__name__


def near(value: Any, among: Iterable[str]) -> str:
    """Return ``"; did you mean 'adam'?"`` for the name that `value` resembles; else nothing.

    Spelling counts, and so do names in other libraries: ``CrossEntropyLoss``,
    ``sparse_categorical_crossentropy``, ``mean_squared_error``, ``bce``.
    """
    import difflib  # only an error needs it, and import fastrnn is to stay light

    if not isinstance(value, str):
        return ""
    letters = {"".join(filter(str.isalnum, name.lower())): name for name in among}
    own = "".join(filter(str.isalnum, value.lower()))
    initials = _initials(value.lower())
    inside = [n for n in letters if min(len(n), len(own)) > 2 and (n in own or n.startswith(own))]
    found = [
        *(n for n in (own, initials) if n in letters),
        *(n for n, name in letters.items() if "_" in name and _initials(name) == own),
        *sorted(inside, key=len, reverse=True),
        *difflib.get_close_matches(own, letters, 1),
    ]
    return f"; did you mean {letters[found[0]]!r}?" if found else ""


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_") if word)


def real(value: Any, name: str, expected: str, fits: Callable[[float], bool]) -> float:
    """Return `value` as a float, if it `fits`; `expected` describes what does."""
    # A float is the usual case, and the check of an abstract class is slow.
    if type(value) is not float and (
        isinstance(value, bool) or not isinstance(value, numbers.Real)
    ):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not fits(float(value)):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return float(value)


def positive(value: Any, name: str) -> float:
    """Return `value` as a finite float above 0."""
    return real(value, name, "a finite number above 0", lambda v: 0 < v < float("inf"))


def not_negative(value: Any, name: str) -> float:
    """Return `value` as a finite float of at least 0."""
    return real(value, name, "a finite number >= 0", lambda v: 0 <= v < float("inf"))


def finite(value: Any, name: str) -> float:
    """Return `value` as a finite float."""
    return real(value, name, "a finite number", math.isfinite)


def fraction(value: Any, name: str) -> float:
    """Return `value` as a float in [0, 1)."""
    return real(value, name, "a number in [0, 1)", lambda v: 0 <= v < 1)


def probability(value: Any, name: str) -> float:
    """Return `value` as a float in [0, 1]."""
    return real(value, name, "a number in [0, 1]", lambda v: 0 <= v <= 1)


def seed(value: Any) -> int | None:
    """Return `value` as None or an int of at least 0."""
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
    """Return the path of a file as a str."""
    try:
        return os.fsdecode(value)
    except TypeError:
        expected = f"{name}: expected a str or a path"
        raise TypeError(f"{expected}, got {type(value).__name__}") from None


def verbosity(value: Any) -> int:
    """Return how much training prints: 0, 1 or 2, from an int or a bool."""
    if not isinstance(value, int) or not 0 <= value <= 2:
        raise ValueError(f"verbose: expected 0, 1 or 2, got {value!r}")
    return int(value)


def shape_text(shape: Sequence[int | str]) -> str:
    """Return a shape as it is written: ``(T, 3, 8)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def pinned(*values: Any) -> list[weakref.ref[Array]]:
    """Return weak references to the owners of the memory of all arrays among `values`.

    NumPy does not resize an array that has a weak reference, not even with ``refcheck=False``. So
    as long as these are held, no other thread can free the memory that a view refers to, or that
    NumPy reads without the GIL.
    """
    pins = []
    for value in values:
        if isinstance(value, np.ndarray):
            owner: Any = value
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            pins.append(weakref.ref(owner))
        elif isinstance(value, list | tuple):
            pins += pinned(*value)
    return pins


def copied(array: Array) -> Array:
    """Return a C-contiguous copy of a caller's array, which no other thread resizes meanwhile."""
    _pins = pinned(array)
    return np.array(array, order="C")


def asarray(value: Any, name: str) -> Array:
    """Return `value` as an array of any dtype; raise if it is ragged, or values are missing."""
    subclass = type(value) is not np.ndarray
    if not subclass or (isinstance(value, np.ndarray) and not _frames.is_masked_array(value)):
        array = copied(value) if subclass and value.flags.owndata else np.asarray(value)
        if array.dtype != object:
            return array
    return _frames.values(value, name)


def numeric(value: Any, name: str) -> Array:
    """Return `value` as an array of real numbers.

    Raises
    ------
    TypeError
        If it does not hold real numbers.
    ValueError
        If it is ragged, or values are missing.
    """
    return _of_kind(value, name, "fiub", "real numbers")


def _of_kind(value: Any, name: str, kinds: str, expected: str) -> Array:
    """Return `value` as an array of a dtype of one of these kinds."""
    values = asarray(value, name)
    if isinstance(value, list | tuple) and not values.size and "f" not in kinds:
        values = values.astype(np.intp)  # an empty list, of which NumPy makes floats
    found = None if type(value) is np.ndarray else _frames.not_numbers(value)
    if found is not None or values.dtype.kind not in kinds:
        found = found or _frames.kind_of(value, values)
        raise TypeError(f"{name}: expected an array of {expected}, got {found}")
    return values


def _plain(value: Any, dtype: np.dtype[Any]) -> TypeGuard[Array]:
    """Return whether kernels can read it as it is: the fast path, taken by most calls."""
    if type(value) is not np.ndarray or value.dtype != dtype:
        return False
    flags = value.flags
    return flags.c_contiguous and flags.aligned


@np.errstate(all="ignore")  # of which a call costs less than a block
def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return a C-contiguous array of fewer bits, in which what is too large is infinite."""
    return np.ascontiguousarray(values, dtype=dtype)


def array(value: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an array of `dtype` for kernels: aligned, its last axis contiguous."""
    if _plain(value, dtype):
        return value
    values = numeric(value, name)
    _pins = pinned(values)
    if values.dtype != dtype:
        narrower = values.dtype.kind == "f" and values.dtype.itemsize > dtype.itemsize
        convert = _rounded if narrower else np.ascontiguousarray
        return convert(values, dtype=dtype).reshape(values.shape)
    readable = values.flags.aligned and all(s % values.itemsize == 0 for s in values.strides)
    rows = values.ndim == 0 or values.shape[-1] <= 1 or values.strides[-1] == values.itemsize
    return values if readable and rows else np.array(values, order="C")


def floats(value: Any, name: str) -> Array:
    """Return `value` as an array for kernels: float64 stays, everything else becomes float32."""
    for dtype in DTYPES:
        if _plain(value, dtype):
            return value
    values = asarray(value, name)
    native = values.dtype.newbyteorder("=")
    return array(values, name, native if native in DTYPES else DTYPES[0])


def whole_numbers(value: Any, name: str) -> Array:
    """Return `value` as a C-contiguous array of intp; the kernels check the range.

    Raises
    ------
    TypeError
        If it does not hold whole numbers.
    ValueError
        If it is ragged.
    """
    if _plain(value, _INTP):
        return value
    integers = _of_kind(value, name, "iu", "whole numbers")
    _pins = pinned(integers)
    if not np.can_cast(integers.dtype, np.intp):
        # A clipped value is still out of every range.
        integers = integers.clip(max=np.iinfo(np.intp).max)
    return np.require(integers, np.intp, ["C", "A"])


def indices(value: Any, name: str, below: int, least: int = 0) -> Array:
    """Return `value` as an array of whole numbers in `least`..`below`-1.

    Raises
    ------
    TypeError
        If it does not hold whole numbers.
    ValueError
        If it is ragged, or one is out of range.
    """
    integers = _of_kind(value, name, "iu", "whole numbers")
    _pins = pinned(integers)
    if integers.size and (integers.min() < least or integers.max() >= below):
        wrong = integers.min() if integers.min() < least else integers.max()
        raise ValueError(f"{name}: expected whole numbers in {least}..{below - 1}, got {wrong}")
    return integers


def rows(value: Any, B: int) -> Array | slice:
    """Return `value`, a selection of rows of a batch of `B`, as an index; None selects all.

    Raises
    ------
    ValueError, TypeError
        If it is neither a row number, nor row numbers, nor `B` booleans. `B` integers that are all
        0 or 1 are ambiguous, as they may be flags, and are refused too.
    """
    if value is None:
        return slice(None)
    expected = f"rows: expected row numbers under {B}, or {B} booleans"
    try:
        chosen = copied(asarray(value, "rows"))  # what is checked, and shown, is what is used
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{expected}, got {type(value).__name__}") from None
    if chosen.size == 0 and chosen.ndim == 1:
        return np.zeros(0, np.intp)
    if chosen.dtype == np.bool_:
        if chosen.shape != (B,) and not (chosen.ndim == 0 and B == 1):
            raise ValueError(f"{expected}, got {chosen!r}")
        return np.flatnonzero(chosen)
    if chosen.dtype.kind not in "iu" or chosen.ndim > 1:
        raise TypeError(f"{expected}, got {chosen!r}")
    if chosen.ndim == 1 and len(chosen) == B and ((chosen == 0) | (chosen == 1)).all():
        raise ValueError(
            f"{expected}, got {chosen!r}: these may be row numbers or flags; pass booleans as "
            "flags, None for all rows"
        )
    if (chosen < -B).any() or (chosen >= B).any():
        raise ValueError(f"{expected}, got {chosen!r}")
    return chosen.reshape(-1).astype(np.intp)


def expect_shape(given: Array, name: str, shape: Sequence[int | str], hint: str = "") -> Array:
    """Return `given`, if it has `shape`; a letter in `shape` stands for any size of at least 1.

    N and B, sizes of data and of batches, may be 0. `hint` is added to the error.
    """
    if given.shape == shape:
        return given
    fits = len(given.shape) == len(shape) and all(
        have >= (want not in _MAY_BE_0) if isinstance(want, str) else have == want
        for have, want in zip(given.shape, shape, strict=True)
    )
    if not fits:
        free = sorted({want for want in shape if isinstance(want, str)} - _MAY_BE_0)
        where = f" with {', '.join(free)} >= 1" if free else ""
        raise ValueError(
            f"{name}: expected shape {shape_text(shape)}{where}, got "
            f"{shape_text(given.shape)}{hint}"
        )
    return given


def expect_dtype(given: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """Return `given`, if it is of `dtype`."""
    if given.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {dtype}, got {given.dtype}")
    return given


def shaped(value: Any, name: str, dtype: np.dtype[Any], shape: Sequence[int | str]) -> Array:
    """Return `value` as an array for kernels, of `dtype` and `shape`."""
    return expect_shape(array(value, name, dtype), name, shape)


def writable(value: Any, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """Return `value` itself, if kernels can write to it."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(value).__name__}")
    if _frames.is_masked_array(value):
        asarray(value, name)  # raises
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
    """Return `value`, an array for one state or a pair for two, as a list of C-contiguous arrays.

    A `value` of None stands for None in each place. `shapes` has one shape for each of `names`.
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
    """Return `value`, if it is an activation of an Elman network."""
    return choice(value, "nonlinearity", ("tanh", "relu"))


def lengths(value: Any, T: int, shape: tuple[int, ...]) -> Array | None:
    """Return the number of steps of each row, (B,) int64; `shape` is (B,), or () unbatched."""
    if value is None:
        return None
    given = copied(asarray(value, "lengths"))
    if given.size == 0 == math.prod(shape):  # NumPy takes [] for real numbers
        given = given.astype(np.int64)
    steps = indices(given, "lengths", T + 1, 1)
    return expect_shape(steps, "lengths", shape).reshape(-1).astype(np.int64, copy=False)


def reset(value: Any, T: int, shape: tuple[int, ...], *, batch_first: bool = False) -> Array | None:
    """Return where states are zeroed, (T, B) booleans; `shape` is (B,), or () unbatched.

    It is a copy. `batch_first` takes (B, T), as models do; layers never do.
    """
    if value is None:
        return None
    wanted = (*shape, T) if batch_first else (T, *shape)
    names = "(T,)" if not shape else "(B, T)" if batch_first else "(T, B)"
    flags = copied(asarray(value, "reset"))
    if flags.dtype != np.bool_:
        raise TypeError(
            f"reset: expected an array of booleans {names} = {shape_text(wanted)}, True where the "
            f"state is zeroed, got dtype {flags.dtype}"
        )
    hint = ""
    if flags.shape == wanted[::-1] and shape:
        always = "batch first" if batch_first else "time first, with batch_first too"
        hint = f"; it looks transposed: a reset is {names} here, {always}"
    expect_shape(flags, "reset", wanted, hint)
    return flags.T if batch_first else flags.reshape(T, -1)
