"""Inputs of the estimators: checked, and scaled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from fastrnn import _checks, _frames
from fastrnn._types import Array
from fastrnn.models.scaling import mean_and_deviation

#: float32 is kept, everything else becomes float64, as elsewhere in scikit-learn.
_DTYPES = [np.float64, np.float32]

_SWAPPED = "these may be features by steps: pass {}"

_FROM_FRAME = "fastrnn.sklearn.from_frame(df, group=..., features=[...], target=...)"


@dataclass(frozen=True)
class Inputs:
    """Properties of the inputs to `fit`.

    Attributes
    ----------
    features : int
        F, over time.
    dtype : dtype
    table : bool
        Whether they were given as a table (n, T).
    mean, deviation : (F,) array
    """

    features: int
    dtype: np.dtype[Any]
    table: bool
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, sequences: Any, table: bool, standardize: bool, weight: Array | None) -> Self:
        """Return those of sequences; each of their steps has its sequence's weight, > 0."""
        F = sequences[0].shape[1]
        scale = np.zeros(F), np.ones(F)
        if standardize:
            weight = None if weight is None else weight.repeat(steps(sequences))
            scale = mean_and_deviation(joined(sequences), weight)
        return cls(F, sequences[0].dtype, table, *scale)

    def scaled(self, sequences: Any) -> Any:
        """Return sequences as the network takes them."""
        F = sequences[0].shape[1]
        if self.features != F:
            hint = ""
            if all(len(x) == self.features for x in sequences):
                swapped = "[x.T for x in X]" if isinstance(sequences, list) else "X.swapaxes(1, 2)"
                hint = f"; {_SWAPPED.format(swapped)}"
            raise ValueError(
                f"X: expected {self.features} feature{'s' * (self.features > 1)} over time, as in "
                f"fit, got {F}{hint}"
            )
        if isinstance(sequences, list):
            return [((x - self.mean) / self.deviation).astype(self.dtype) for x in sequences]
        return ((sequences - self.mean) / self.deviation).astype(self.dtype)


def steps(sequences: Any) -> Array:
    """Return the number of steps of each sequence."""
    if isinstance(sequences, np.ndarray):
        return np.full(len(sequences), sequences.shape[1])
    return np.array([len(x) for x in sequences])


def joined(sequences: Any) -> Array:
    """Return the steps of all sequences, one after the other."""
    if isinstance(sequences, np.ndarray):
        return sequences.reshape(-1, *sequences.shape[2:])
    return np.concatenate(sequences)


def taken(sequences: Any, rows: Array) -> Any:
    """Return some of the sequences, or of their targets."""
    if isinstance(sequences, np.ndarray):
        return sequences[rows]
    return [sequences[i] for i in rows]


def checked(X: Any, estimator: Any, *, reset: bool, as_table: bool) -> tuple[Any, bool]:
    """Return `X` as (n, T, F) or a list of (T_i, F), and whether it is a table (n, T).

    Parameters
    ----------
    X : array-like
    estimator : BaseEstimator
        scikit-learn keeps number and names of columns in it, or compares them.
    reset : bool
        Whether they are kept rather than compared.
    as_table : bool
        Whether it was fitted to a table.
    """
    if not hasattr(X, "toarray"):  # sparse ones are refused by scikit-learn
        _expect_sequences(X)
    X = _frames.listed(X)
    sequences: Any = _listed(X, estimator)
    if sequences is None and getattr(X, "ndim", 2) >= 3:
        sequences = _array(X, estimator, allow_nd=True)
        _checks.expect_shape(sequences, "X", ("n", "T", "F"))
    if sequences is not None:
        if reset or not as_table:
            _compare_columns(X, sequences, estimator, reset)
        return sequences, False
    table = _array(X, estimator)
    if reset or as_table:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    return table[:, :, None], True


def _expect_sequences(X: Any) -> None:
    """Raise if `X` holds anything but sequences of numbers, in the order of time."""
    found = None
    if _frames.is_frame(X):
        _expect_steps(X)
        found = _frames.not_numbers(X)
    else:
        _frames.refuse_keyed(X, "X")
        if isinstance(X, Iterable) and not (isinstance(X, Sequence) or _is_array(X)):
            kind = type(X).__name__  # such as a generator, or the groups of a frame
            raise TypeError(f"X: expected an array, or a list of sequences, got {kind}")
        if isinstance(X, np.ndarray) and X.dtype.kind in "Mm":
            found = f"dtype {X.dtype}"
    if found is not None:
        raise TypeError(f"X: expected real numbers, got {found}")
    if np.ma.is_masked(X):
        _checks.asarray(X, "X")  # raises
    if isinstance(X, list | tuple) and len(X):
        if _frames.is_frame(X[0]):
            _expect_features(X[0], "X[0]")
        _frames.expect_alike(X, "X")


def _is_array(X: Any) -> bool:
    return any(hasattr(X, n) for n in ("__array__", "__array_interface__", "__dlpack__", "dtype"))


def _array(X: Any, estimator: Any, **options: Any) -> Array:
    """Return `X` as scikit-learn checks it, with a hint where it is padded with NaN."""
    try:
        array: Array = check_array(X, dtype=_DTYPES, input_name="X", estimator=estimator, **options)
    except ValueError as error:
        padded = "NaN" in str(error) and _ends_in_nan(_frames.values(X, "X", missing="nan"))
        raise ValueError(f"{error}{_PADDED if padded else ''}") from None
    return array


_PADDED = (
    "\nSequences end in NaN: if they are padded with it, pass a list of sequences of their own "
    "lengths, [x[:n] for x, n in zip(X, lengths)]."
)


def _ends_in_nan(array: Array) -> bool:
    """Return whether NaN is found in the last steps of sequences and nowhere else."""
    if array.dtype.kind != "f":
        return False
    nan = np.isnan(array.reshape(*array.shape[:2], -1))
    ended = np.logical_and.accumulate(np.all(nan, axis=-1)[:, ::-1], axis=1)[:, ::-1]
    return bool(ended.any() and not nan[~ended].any())


def _expect_steps(frame: Any) -> None:
    """Raise if the columns of a frame are features rather than steps of one."""
    if _name_features(frame.columns):
        raise ValueError(
            f"X: expected sequences, got a frame with the columns {list(frame.columns)[:5]}. If "
            f"its rows are steps, make sequences of it: X, y = {_FROM_FRAME}. If each row is a "
            "sequence of one feature, pass its to_numpy(), or name columns by numbers or dates"
        )
    _frames.expect_order(frame.columns, "X")


def _expect_features(frame: Any, name: str) -> None:
    """Raise if the rows of a frame are features rather than steps."""
    rows = getattr(frame, "index", ())[:1000]  # enough to see
    if _name_features(rows) and not _name_features(frame.columns):
        raise ValueError(
            f"{name}: expected steps by features, got a frame with the rows {list(rows)[:5]}; pass "
            f"{name}.T, or reset_index(drop=True) where rows are steps"
        )


def _name_features(names: Any) -> bool:
    """Return whether these name features: they are str that differ in more than a number."""
    names = [str(name) for name in names if isinstance(name, str | tuple)]
    alike = {re.sub(r"\d+", "0", name) for name in names}
    return len(alike) > 1 or not all("0" in name for name in alike)


def _listed(X: Any, estimator: Any) -> list[Array] | None:
    """Return sequences (T_i, F) of one dtype if X is a list of such or of (T_i,), else None."""
    if not isinstance(X, list | tuple):
        return None
    if not len(X):
        raise ValueError(
            "Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by "
            f"{type(estimator).__name__}."
        )
    dimensions = {len(x.shape) if _frames.is_frame(x) else np.ndim(x) for x in X}
    if dimensions == {1} and len({len(x) for x in X}) == 1:
        if any(map(np.ma.is_masked, X)):
            _checks.asarray(X, "X")  # raises
        return None  # a table (n, T) in rows
    if not dimensions <= {1, 2}:
        return None
    arrays = [_checks.numeric(x, f"X[{i}]") for i, x in enumerate(X)]
    _pins = _checks.pinned(arrays)
    all_float32 = all(a.dtype == np.float32 for a in arrays)
    arrays = [a[:, None] if a.ndim == 1 else a for a in arrays]
    lengths, widths = ({a.shape[axis] for a in arrays} for axis in (0, 1))
    hint = f"; {_SWAPPED.format('[x.T for x in X]')}" if len(lengths) == 1 < len(widths) else ""
    sequences: list[Array] = []
    for i, a in enumerate(arrays):
        F = arrays[0].shape[1] if i else "F"
        _checks.expect_shape(a, f"X[{i}]", ("T", F), hint)
        a = a.astype(np.float32 if all_float32 else np.float64, order="C")
        if not np.isfinite(a).all():
            hint = _PADDED if _ends_in_nan(a[None]) else ""
            raise ValueError(f"X[{i}]: expected finite numbers, got NaN or infinity{hint}")
        sequences.append(a)
    return sequences


def _compare_columns(X: Any, sequences: Sequence[Array], estimator: Any, reset: bool) -> None:
    """Keep number and names of features, or compare them with those kept."""
    first = X[0] if isinstance(X, list | tuple) else sequences[0]
    names = _frames.column_names(first)
    if reset or sequences[0].shape[1] == estimator.n_features_in_:
        validate_data(
            estimator,
            first if names is not None else sequences[0],
            reset=reset,
            skip_check_array=True,
        )
