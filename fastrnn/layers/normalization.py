"""Normalization: features of mean 0 and variance 1, by the statistics of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._core.scaling import mean_and_deviation
from fastrnn._kernels.functions import Function
from fastrnn._types import Array, ArrayLike, DTypeLike
from fastrnn.layers.base import dtype_shown
from fastrnn.layers.embedding import Table
from fastrnn.layers.row_map import RowMap

#: What a deviation is at least where `variance` is given: ``keras.backend.epsilon()``.
_LEAST = 1e-7
_FLOAT64 = np.dtype(np.float64)
_STANDARDISE, _RESTORE = Function("standardise"), Function("restore")


class Normalization(RowMap):
    """(x - mean) / deviation of each feature, as ``keras.layers.Normalization``.

    :meth:`adapt` takes mean and deviation from data, once, before a training, which leaves them as
    they are. A feature that is constant in the data is only centred, as scikit-learn's
    ``StandardScaler`` does; in the data NaN and infinity are refused, and afterwards they stay what
    they are. The statistics, and the computation, are in float64; results have the layer's dtype.

    Parameters
    ----------
    features : int, optional
        F, the size of the last axis; the layer then returns its input until it is adapted. Default:
        that of the data.
    mean, variance : (F,) array-like, optional
        In place of :meth:`adapt`. The deviation is then max(sqrt(variance), 1e-7), as in Keras.
    invert : bool
        Whether to compute x * deviation + mean instead: the last layer of a model whose targets
        are values of these features. Default: False.
    dtype : float32 or float64

    Raises
    ------
    ValueError, TypeError
        If the statistics are not finite, or only one of them is given.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(20, 3, size=(100, 8, 2))
    >>> norm = fastrnn.Normalization().adapt(X)
    >>> norm
    Normalization(2)
    >>> bool(np.allclose(norm(X).mean(axis=(0, 1)), 0, atol=1e-5))
    True
    >>> bool(np.allclose(norm.inverse(norm(X)), X))
    True
    >>> model = fastrnn.Sequential([norm, fastrnn.GRU(2, 5), fastrnn.Linear(5, 1)])
    """

    _wide = True

    def __init__(
        self,
        features: int | None = None,
        *,
        mean: ArrayLike | None = None,
        variance: ArrayLike | None = None,
        invert: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self._dtype: np.dtype[Any] = _checks.dtype(dtype)
        self._invert = _checks.flag(invert, "invert")
        if (mean is None) != (variance is None):
            raise ValueError("mean, variance: expected both or neither")
        if mean is not None:
            self._set_statistics(features, mean, variance)
        elif features is not None:
            F = _checks.size(features, "features")
            _checks.memory(2 * F, _FLOAT64, features=F)
            self._set(np.zeros(F), np.ones(F))

    def _set_statistics(self, features: Any, mean: Any, variance: Any) -> None:
        mean = _checks.array(mean, "mean", _FLOAT64).reshape(-1)
        if features is not None:
            _checks.expect_shape(mean, "mean", (_checks.size(features, "features"),))
        variance = _checks.array(variance, "variance", _FLOAT64).reshape(-1)
        _checks.expect_shape(variance, "variance", mean.shape)
        if not mean.size or not (np.isfinite(mean) & np.isfinite(variance) & (variance >= 0)).all():
            raise ValueError("mean, variance: expected finite numbers, and variances >= 0")
        self._set(mean, np.maximum(np.sqrt(variance), _LEAST))

    def _set(self, mean: Array, deviation: Array) -> None:
        if self._table is None:
            self._table = Table(np.empty((2, len(mean))))
        self._table.array[...] = mean, deviation

    def adapt(
        self,
        X: ArrayLike | Sequence[ArrayLike],
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Take mean and deviation of each feature from data.

        Parameters
        ----------
        X : (..., F) array-like, or list of (T_i, F)
            Such as (N, T, F). The statistics before are forgotten.
        lengths : (N,) array-like of int, optional
            Of an array (N, T, F), the number of steps of each sequence; what follows is ignored.
        sample_weight : (N,) array-like, optional
            Weights of the rows, or of all steps of the sequences, >= 0. Default: equal.

        Returns
        -------
        Normalization
            Itself.

        Raises
        ------
        ValueError
            If data are not finite, or have another number of features than before.
        """
        rows, weight = _rows(X, lengths, sample_weight)
        if self._table is not None:
            _checks.expect_shape(rows, "X", (len(rows), self._table.shape[1]))
        if not rows.size:
            raise ValueError(f"X: expected one row or more, got shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("X: expected finite numbers, got NaN or infinity")
        self._set(*mean_and_deviation(rows, weight))
        return self

    @property
    def _function(self) -> Function:
        return _RESTORE if self._invert else _STANDARDISE

    def _expect_adapted(self) -> Table:
        if self._table is None:
            raise ValueError("Normalization: expected adapt(X), mean and variance, or features")
        return self._table

    @property
    def features(self) -> int | None:
        """F, the size of the last axis; None before the first :meth:`adapt`."""
        return None if self._table is None else self._table.shape[1]

    @property
    def mean(self) -> Array:
        """A copy of the means, (F,) in float64."""
        mean: Array = self._expect_adapted().array[0].copy()
        return mean

    @property
    def deviation(self) -> Array:
        """A copy of the standard deviations, (F,) in float64; 1 where data were constant."""
        deviation: Array = self._expect_adapted().array[1].copy()
        return deviation

    @property
    def variance(self) -> Array:
        """The squares of :attr:`deviation`."""
        return np.square(self.deviation)

    @property
    def invert(self) -> bool:
        """Whether the layer computes x * deviation + mean."""
        return self._invert

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of results."""
        return self._dtype

    @property
    def features_in(self) -> int | None:
        """F."""
        return self.features

    @property
    def features_out(self) -> int | None:
        """F."""
        return self.features

    def inverse(self, y: ArrayLike) -> Array:
        """Return x for a result of the layer: y * deviation + mean; with `invert`, the opposite.

        Parameters
        ----------
        y : (..., F) array-like

        Returns
        -------
        x : array
        """
        return self._mapped(self._checked(y), _STANDARDISE if self._invert else _RESTORE)

    def buffers(self) -> dict[str, Array]:
        """Return `mean` and `deviation` themselves, in float64; empty before :meth:`adapt`."""
        if self._table is None:
            return {}
        return dict(zip(("mean", "deviation"), self._table.share(), strict=True))

    def _run(self, x: Array) -> Array:
        return self._mapped(x, self._function)

    def _mapped(self, x: Array, function: Function) -> Array:
        """Return a function of a checked array, in the layer's dtype."""
        if x.dtype == self._dtype:
            return self._evaluated(x, function)
        with np.errstate(all="ignore"):  # x is not rounded before, but the results are
            return self._evaluated(x.astype(_FLOAT64), function).astype(self._dtype, copy=False)

    def _checked(self, x: Any) -> Array:
        F = self._expect_adapted().shape[1]
        rows = _checks.floats(x, "x")
        if rows.ndim == 0 or rows.shape[-1] != F:
            got = _checks.shape_text(rows.shape)
            raise ValueError(f"x: expected shape (..., {F}), got {got}")
        return rows

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> Any:
        """Return the layer's stage in a stream, on the current backend."""
        self._expect_adapted()
        return super().stage(batch_size, features, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        return {"features": self.features, "invert": self._invert, "dtype": self._dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the number of weights in a file with a layer of this configuration."""
        F = config["features"]
        return 0 if F is None else 2 * _checks.size(F, "features")

    def __repr__(self) -> str:
        shown = "" if self.features is None else f"{self.features}"
        shown += ", invert=True" if self._invert else ""
        return f"Normalization({(shown + dtype_shown(self._dtype)).removeprefix(', ')})"


def _rows(X: Any, lengths: Any, sample_weight: Any) -> tuple[Array, Array | None]:
    """Return data as rows (n, F) without padding, and their weights, > 0."""
    X = _frames.listed(X)
    counts: Any
    if isinstance(X, list | tuple) and lengths is None and len({np.shape(x) for x in X}) > 1:
        _frames.expect_alike(X, "X")
        items = [_checks.floats(x, f"X[{i}]") for i, x in enumerate(X)]
        for i, item in enumerate(items):
            _checks.expect_shape(item, f"X[{i}]", ("T", items[0].shape[-1] if i else "F"))
        counts, rows = np.array([len(item) for item in items]), np.concatenate(items)
    else:
        array = _checks.floats(X, "X")
        if array.ndim < 2:
            got = _checks.shape_text(array.shape)
            raise ValueError(f"X: expected shape (..., F) of two axes or more, got {got}")
        if lengths is not None:
            _checks.expect_shape(array, "X", ("N", "T", "F"))
            counts = _checks.lengths(lengths, array.shape[1], array.shape[:1])
            rows = array[np.arange(array.shape[1]) < counts[:, None]]
        else:
            rows = array.reshape(-1, array.shape[-1])
            counts = np.full(len(array), len(rows) // max(len(array), 1))
    if sample_weight is None:
        return rows, None
    weight = _checks.shaped(sample_weight, "sample_weight", _FLOAT64, counts.shape)
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise ValueError("sample_weight: expected finite numbers >= 0, and not all zero")
    weight = weight.repeat(counts)
    return rows[weight > 0], weight[weight > 0]
