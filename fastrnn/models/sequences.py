"""Sequences as users of estimators give them: checked, and scaled. Without scikit-learn."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._types import Array
from fastrnn.layers.normalization import Normalization

_SWAPPED = "these may be features by steps: pass {}"

_FROM_FRAME = "fastrnn.sklearn.from_frame(df, group=..., features=[...], target=...)"


#: Sequences of an array that are scaled at a time: a multiple of the batches of ``predict``.
_PART = 512


@dataclass(frozen=True)
class Inputs:
    """Properties of the inputs to `fit`.

    Attributes
    ----------
    table : bool
        Whether they were given as a table (n, T).
    norm : Normalization
        How features are scaled, in float64, to the dtype of the inputs.
    """

    table: bool
    norm: Normalization

    @classmethod
    def of(cls, sequences: Any, table: bool, standardize: bool, weight: Array | None) -> Self:
        """Return those of sequences; each of their steps has its sequence's weight, > 0."""
        norm = Normalization(sequences[0].shape[1], dtype=sequences[0].dtype)
        return cls(table, norm.adapt(sequences, sample_weight=weight) if standardize else norm)

    @property
    def features(self) -> int:
        """F, the number of features over time."""
        return self.norm.features or 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the inputs to `fit`, and of the network."""
        return self.norm.dtype

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
            return [*map(self.norm, sequences)]
        # As it is, an array may be mapped from a file that memory would not hold.
        changed = self.norm.mean.any() or (self.norm.deviation != 1).any()
        return self.norm(sequences) if changed or sequences.dtype != self.dtype else sequences


def steps(sequences: Any) -> Array:
    """Return the number of steps of each sequence."""
    if isinstance(sequences, np.ndarray):
        return np.full(len(sequences), sequences.shape[1])
    return np.array([len(x) for x in sequences])


def parts(sequences: Any) -> list[Any]:
    """Return the sequences in parts, of which each is a view; a list as one part."""
    if isinstance(sequences, list) or len(sequences) <= _PART:
        return [sequences]
    return [sequences[i : i + _PART] for i in range(0, len(sequences), _PART)]


def taken(sequences: Any, rows: Array) -> Any:
    """Return some of the sequences, or of their targets."""
    if isinstance(sequences, np.ndarray):
        return sequences[rows]
    return [sequences[i] for i in rows]


def checked(X: Any, model: Any, *, reset: bool, as_table: bool) -> tuple[Any, bool]:
    """Return `X` as (n, T, F) or a list of (T_i, F), and whether it is a table (n, T).

    float32 is kept, everything else becomes float64. Errors say what scikit-learn's say.

    Parameters
    ----------
    X : array-like
    model : object
        Number and names of columns are kept in it, or compared: ``n_features_in_`` and
        ``feature_names_in_``.
    reset : bool
        Whether they are kept rather than compared.
    as_table : bool
        Whether the model was fitted to a table.
    """
    _expect_sequences(X)
    X = _frames.listed(X)
    of = type(model).__name__
    sequences: Any = _listed(X, of)
    if sequences is None:
        array = _array(X, of)
        if array.ndim == 2:
            # Arrays in a list may have other lengths, also if those of `fit` were alike by chance.
            by_one = isinstance(X, list | tuple) and _is_array(X[0])
            if reset or (as_table and not by_one):
                _keep_or_compare(X, array.shape[1], model, reset)
            return array[:, :, None], True
        sequences = _checks.expect_shape(array, "X", ("n", "T", "F"))
    F = sequences[0].shape[1]
    # Otherwise what is wrong is the number of features, of which `Inputs.scaled` tells more.
    if reset or (not as_table and model.n_features_in_ == F):
        _keep_or_compare(X[0] if isinstance(X, list | tuple) else X, F, model, reset)
    return sequences, False


def _expect_sequences(X: Any) -> None:
    """Raise if `X` holds anything but sequences of numbers, in the order of time."""
    found = None
    if _frames.is_frame(X):
        _expect_steps(X)
        found = _frames.not_numbers(X)
    elif hasattr(X, "toarray"):  # SciPy's, of which one is a dict too
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
    if _frames.is_masked_array(X):
        _checks.asarray(X, "X")  # raises if values are masked
    if isinstance(X, list | tuple) and len(X):
        if _frames.is_frame(X[0]):
            _expect_features(X[0], "X[0]")
        _frames.expect_alike(X, "X")


def _is_array(X: Any) -> bool:
    return any(hasattr(X, n) for n in ("__array__", "__array_interface__", "__dlpack__", "dtype"))


def _array(X: Any, of: str) -> Array:
    """Return `X`, of two axes or more, as an array of finite floats, for a model of this name."""
    array = _floats(_frames.values(X, "X", missing="nan"))
    shape = _checks.shape_text(array.shape)
    if array.ndim < 2:
        raise ValueError(
            f"X: expected shape (n, T) or (n, T, F), got {shape}. Reshape your data: to (1, -1) "
            "if it is one sequence, to (-1, 1) if each number is one"
        )
    for axis, what in enumerate(("sample", "feature")[: 4 - array.ndim]):
        if not array.shape[axis]:
            least = f"while a minimum of 1 is required by {of}."
            raise ValueError(f"Found array with 0 {what}(s) (shape={shape}) {least}")
    if not np.isfinite(array).all():
        nan = bool(np.isnan(array).any())
        found = "NaN" if nan else f"infinity or a value too large for {array.dtype!r}"
        padded = nan and _ends_in_nan(array)
        raise ValueError(f"Input X contains {found}.{_PADDED if padded else ''}")
    return array


def _floats(values: Array) -> Array:
    """Return values as float32, if they are, or else as float64."""
    if values.dtype == np.float32:
        return values
    if values.dtype.kind == "c":
        raise ValueError("Complex data not supported: X: expected real numbers")
    if values.dtype.kind in "Mm":
        raise TypeError(f"X: expected real numbers, got dtype {values.dtype}")
    try:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            return values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"X: expected real numbers: {error}") from None


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


def _listed(X: Any, of: str) -> list[Array] | None:
    """Return sequences (T_i, F) of one dtype if X is a list of such or of (T_i,), else None."""
    if not isinstance(X, list | tuple):
        return None
    if not len(X):
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required by {of}."
        )
    dimensions = {len(x.shape) if _frames.is_frame(x) else np.ndim(x) for x in X}
    if dimensions == {1} and len({len(x) for x in X}) == 1:
        if any(map(_frames.is_masked_array, X)):
            _checks.asarray(X, "X")  # raises if values are masked
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


def _keep_or_compare(X: Any, n: int, model: Any, reset: bool) -> None:
    """Keep number and names of the columns of `X` in a model, or compare them with those kept."""
    names = _frames.column_names(X)
    known = getattr(model, "feature_names_in_", None)
    if reset:
        model.n_features_in_ = n
        if names is not None:
            model.feature_names_in_ = np.array(names, object)
        elif known is not None:
            del model.feature_names_in_
        return
    of = type(model).__name__
    if (names is None) != (known is None):
        said = (
            f"X does not have valid feature names, but {of} was fitted with feature names"
            if names is None
            else f"X has feature names, but {of} was fitted without feature names"
        )
        warnings.warn(said, UserWarning, stacklevel=2)
    elif names is not None and known is not None:
        expect_names(names, known.tolist())
    if n != model.n_features_in_:
        raise ValueError(
            f"X has {n} features, but {of} is expecting {model.n_features_in_} features as input"
        )


def expect_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError if columns don't have the names known from `fit`, in their order."""
    if list(names) == list(known):
        return
    parts = ["The feature names should match those that were passed during fit.\n"]
    for what, some, others in (
        ("Feature names unseen at fit time", names, known),
        ("Feature names seen at fit time, yet now missing", known, names),
    ):
        more = sorted({*some} - {*others})
        shown = [f"- {name}\n" for name in more[:5]] + ["- ...\n"] * (len(more) > 5)
        parts += [f"{what}:\n", *shown] if more else []
    if len(parts) == 1:
        parts.append("Feature names must be in the same order as they were in fit.\n")
    raise ValueError("".join(parts))
