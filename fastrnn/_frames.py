"""Frames, series and masked arrays, known by what they have: nothing is imported for them.

pandas, polars and pyarrow objects are meant, and whatever else has the same methods.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from numbers import Real
from typing import Any

import numpy as np

from fastrnn._types import Array

#: The types of a value that is missing in pandas, besides None, and in a masked array.
_MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")

#: The dtypes of labels, in pandas and polars.
_CATEGORICAL = ("CategoricalDtype", "Categorical", "Enum")


def is_frame(value: Any) -> bool:
    """Return whether `value` is a table with named columns, of pandas or polars."""
    kind = type(value)
    return hasattr(kind, "to_numpy") and hasattr(kind, "dtypes") and len(value.shape) == 2


def is_series(value: Any) -> bool:
    """Return whether `value` is a column of pandas, polars or pyarrow, or an index of pandas."""
    kind = type(value)
    return hasattr(kind, "to_numpy") and (hasattr(kind, "dtype") or hasattr(kind, "type"))


def is_masked_array(value: Any) -> bool:
    """Return whether `value` is a masked array, without ``numpy.ma``, which NumPy loads late."""
    return _is_masked_type(type(value))


def column_names(value: Any) -> list[str] | None:
    """Return the names of a frame's columns; None for anything else, and if none is a str.

    Raises
    ------
    TypeError
        If only some are.
    """
    if not is_frame(value):
        return None
    names = list(value.columns)
    others = sorted({type(name).__name__ for name in names if not isinstance(name, str)})
    if not others:
        return names
    if any(isinstance(name, str) for name in names):
        raise TypeError(
            f"columns: expected names that are all str, or none of them, got {others[0]} beside str"
        )
    return None


def expect_alike(sequences: Sequence[Any], name: str) -> None:
    """Raise if frames of steps in a list differ in their columns, or have steps out of order.

    Raises
    ------
    ValueError
        If the columns are not those of the first, in their order, or times of pandas go back.
    """
    if not any(hasattr(kind, "to_numpy") for kind in set(map(type, sequences))):
        return
    for i, sequence in enumerate(sequences):
        expect_order(getattr(sequence, "index", None), f"{name}[{i}]")
    _expect_columns(sequences, name)


def _expect_columns(frames: Sequence[Any], name: str) -> None:
    """Raise ValueError if frames in a list differ in their columns, or in the order of these."""
    names = column_names(frames[0])
    for i, frame in enumerate(frames):
        if column_names(frame) != names:
            raise ValueError(
                f"{name}[{i}]: expected the columns of {name}[0], in their order, {names}, "
                f"got {column_names(frame)}"
            )


def expect_order(labels: Any, name: str) -> None:
    """Raise ValueError if the labels of steps are times of pandas that are not in order."""
    if hasattr(type(labels), "freq") and not labels.is_monotonic_increasing:
        i = next((i for i in range(1, len(labels)) if labels[i] < labels[i - 1]), 0)
        raise ValueError(
            f"{name}: expected steps in order of time, got {labels[i]} after {labels[i - 1]}; use "
            "sort_index()"
        )


def refuse_keyed(value: Any, name: str) -> None:
    """Raise TypeError if `value` would yield its keys, names or letters where items are wanted."""
    if is_frame(value):
        if value.shape[1] != 1:
            columns = ", ".join(map(repr, list(value.columns)[:5]))
            raise TypeError(
                f"{name}: expected a sequence, got a frame of {value.shape[1]} columns: pass one "
                f"of {columns}"
            )
    elif isinstance(value, str | bytes | Mapping | Set):
        raise TypeError(f"{name}: expected a sequence, got a {type(value).__name__}")


def items(value: Any, name: str) -> list[Any]:
    """Return the items of an iterable, a series, or a frame of one column, as a list.

    Raises
    ------
    TypeError
        If it is not iterable, or as :func:`refuse_keyed` does.
    """
    refuse_keyed(value, name)
    if is_frame(value):
        return list(next(_columns(value)))
    if not isinstance(value, Iterable) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise TypeError(f"{name}: expected a sequence, got {type(value).__name__}")
    return list(value)


def listed(value: Any) -> Any:
    """Return a column or an array of objects as a list, if it holds sequences; else `value`."""
    of_objects = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == object
    if of_objects or is_series(value):
        return list(value) if np.ndim(next(iter(value), ())) else value
    return value


def values(value: Any, name: str, *, missing: str = "raise") -> Array:
    """Return `value` as an array of any dtype; objects that are all numbers become numbers.

    Parameters
    ----------
    value : array-like
        Frames and series, masked arrays, and lists of them too.
    name : str
        For messages.
    missing : {"raise", "nan"}
        What is done with masked values, None and NA among numbers: "nan" returns NaN there, and
        float64.

    Raises
    ------
    ValueError
        If values are missing, or it is ragged.
    TypeError
        If it refuses to be converted.
    """
    value = _unwrapped(value, name, missing)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected an array, got a ragged sequence") from None
    except (TypeError, RuntimeError) as error:  # a tensor that refuses to be converted
        kind = type(value).__name__
        raise TypeError(f"{name}: expected an array, got {kind}: {error}") from None
    if array.dtype.kind == "U" and isinstance(value, list | tuple) and any(map(_is_nan, value)):
        array = np.array(value, object)  # else NumPy makes a label of it, "nan"
    return _numbers(array, name, missing) if array.dtype == object else array


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, pandas's NA or NaT, or masked."""
    return type(value).__name__ in _MISSING or (isinstance(value, Real) and value != value)


def not_numbers(value: Any) -> str | None:
    """Return what a frame or series holds besides numbers; None if nothing, and for all else."""
    if is_frame(value):
        if all(map(_is_number, value.dtypes)):
            return None  # the usual case, and quick
        for label, column in zip(value.columns, _columns(value), strict=True):
            kind = not_numbers(column)
            if kind is not None:
                return f"{kind} in column {label!r}"
    elif is_series(value):
        dtype = _dtype(value)
        if type(dtype).__name__ in _CATEGORICAL or not (
            _is_number(dtype)
            or not len(value)
            or values(value, "", missing="nan").dtype.kind in "fiub"
        ):
            return f"dtype {dtype}"
    elif hasattr(value, "toarray"):  # SciPy's
        return f"a sparse {type(value).__name__}: pass its toarray()"
    return None


def kind_of(value: Any, array: Array) -> str:
    """Return what came, for messages: the dtype of an array, the type of what made no array."""
    single = array.ndim == 0 and array.dtype == object and value is not array
    return type(value).__name__ if single else f"dtype {array.dtype}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _is_number(dtype: Any) -> bool:
    if isinstance(dtype, np.dtype):
        return dtype.kind in "fiub"
    return hasattr(dtype, "is_numeric") and bool(dtype.is_numeric())  # polars


def _lacks(series: Any) -> bool:
    """Return whether values may be missing; NaN in an array of NumPy's is a number."""
    if hasattr(series, "null_count"):  # polars and pyarrow
        return bool(series.null_count() if callable(series.null_count) else series.null_count)
    return not isinstance(_dtype(series), np.dtype)


def _unwrapped(value: Any, name: str, missing: str) -> Any:
    """Return a masked array, frame or series, and those in a list, as arrays, else `value`."""
    if is_masked_array(value):
        mask = np.ma.getmaskarray(value)
        return _filled(np.array(np.ma.getdata(value)), mask, name, missing, "masked")
    if is_frame(value):
        return _of_frame(value, name, missing)
    if is_series(value):
        return _of_series(value, name, missing)
    if isinstance(value, list | tuple):
        special = {kind for kind in set(map(type, value)) if _may_be_wrapped(kind)}
        if special:
            _expect_columns(value, name)
            return [
                _unwrapped(v, f"{name}[{i}]", missing) if type(v) in special else v
                for i, v in enumerate(value)
            ]
    return value


def _dtype(series: Any) -> Any:
    return getattr(series, "dtype", getattr(series, "type", None))


def _may_be_wrapped(kind: type) -> bool:
    return issubclass(kind, list | tuple) or _is_masked_type(kind) or hasattr(kind, "to_numpy")


def _is_masked_type(kind: type) -> bool:
    ma = sys.modules.get("numpy.ma")
    return ma is not None and issubclass(kind, ma.MaskedArray)


def _columns(frame: Any) -> Iterator[Any]:
    if hasattr(frame, "iter_columns"):  # polars
        yield from frame.iter_columns()
    else:
        yield from (frame.iloc[:, i] for i in range(frame.shape[1]))


def _of_frame(frame: Any, name: str, missing: str) -> Array:
    dtypes = list(frame.dtypes)
    if all(map(_is_number, dtypes)):  # the usual case, and quick
        numpys = all(isinstance(dtype, np.dtype) for dtype in dtypes)
        array = np.asarray(frame)
        if array.dtype.kind in "fiub" and (numpys or not any(map(_lacks, _columns(frame)))):
            return array
    columns = [
        _of_series(column, f"{name} column {label!r}", missing)
        for label, column in zip(frame.columns, _columns(frame), strict=True)
    ]
    if not columns:
        return np.empty(frame.shape)
    if len({column.dtype.kind in "fiub" for column in columns}) > 1:
        columns = [column.astype(object) for column in columns]
    return np.stack(columns, axis=1)


def _of_series(series: Any, name: str, missing: str) -> Array:
    array = np.asarray(series)
    if array.dtype == object:
        array = _numbers(array, name, missing)
    if not _lacks(series):
        return array
    gone = series.isna() if hasattr(series, "isna") else series.is_null()
    return _filled(array, np.asarray(gone), name, missing, "missing")


def _filled(array: Array, gone: Array, name: str, missing: str, how: str) -> Array:
    """Return an array with NaN where values are gone."""
    if not gone.any():
        return array
    if missing == "raise" or array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected no {how} values, got {np.count_nonzero(gone)}")
    return np.where(gone, np.nan, array.astype(np.float64))


def _numbers(array: Array, name: str, missing: str) -> Array:
    """Return an array of objects as one of numbers, if all that are not missing are numbers."""
    objects = array.ravel().tolist() if array.ndim else []
    kinds = set(map(type, objects))
    missed = {kind for kind in kinds if kind.__name__ in _MISSING}
    gone = np.array([type(value) in missed for value in objects], bool)
    if any(not issubclass(k, Real | np.bool_) and k.__name__ != "Decimal" for k in kinds - missed):
        # Among labels, NaN is what pandas has for one that is missing.
        gone |= np.array([*map(_is_nan, objects)], bool)
        return _filled(array, gone, name, missing, "missing")
    if gone.all():
        return array  # nothing tells of numbers; and where it is empty
    numbers = np.array([0 if g else v for g, v in zip(gone.tolist(), objects, strict=True)])
    if numbers.dtype == object:
        try:
            numbers = numbers.astype(np.float64)
        except OverflowError:
            return array
    return _filled(numbers, gone, name, missing, "missing").reshape(array.shape)
