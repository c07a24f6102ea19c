"""Predictions of an estimator, one time step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._core.scan import Bound
from fastrnn._kernels.stepping import converter
from fastrnn._types import Array, RowsLike, States, StatesLike
from fastrnn.layers import Normalization
from fastrnn.layers.row_map import RowMap
from fastrnn.models.sequences import Inputs, expect_names
from fastrnn.models.sequential import Sequential

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def _stepped(layer: RowMap, batch_size: int, features: int) -> Callable[[Array], Array]:
    """Return a function of the rows of a step, in float64."""
    kernels, stages = layer.stage(batch_size, features, _FLOAT64).parts
    return kernels.Chain(stages, converter(batch_size, features, features, _FLOAT64)).step


class PredictionStream(Bound):
    """An estimator that reads one time step at a time, and predicts after each.

    Made by ``estimator.stream()``. Use one stream from one thread at a time.
    """

    __slots__ = (
        "_batch_size", "_dtype", "_features", "_head", "_names", "_scaled", "_single", "_stream"
    )  # fmt: skip

    def __init__(
        self, net: Sequential, inputs: Inputs, batch_size: int, *, names: list[str] | None,
        head: RowMap, single: bool,
    ) -> None:  # fmt: skip
        self._stream, self._dtype, self._single = net.stream(batch_size), net.dtype, single
        self._features, self._names, self._batch_size = inputs.features, names, batch_size
        # Inputs of either dtype are scaled in float64.
        wide = Normalization(inputs.features, dtype=np.float64)
        wide.load_state_dict(inputs.norm.state_dict())
        self._scaled = _stepped(wide, batch_size, inputs.features)
        self._head = _stepped(head, batch_size, net.features_out)

    def step(self, x_t: Any) -> Array:
        """Advance by one time step, and predict.

        Parameters
        ----------
        x_t : (B, F) array-like, frame, or mapping of str to (B,) array-like
            Features as in ``fit``, unscaled: in its order; a mapping, and a row of pandas, by the
            names of its columns, where there were some. (F,), or a mapping to numbers, is accepted
            too if B is 1; and (B,), or a number, if F is 1.

        Returns
        -------
        (B, C) or (B, K) array of float64
            Of a classifier the probability of each class, of a regressor the prediction, (B,) if it
            has one target; for the sequence so far. Without B, if `x_t` is.

        Raises
        ------
        ValueError, TypeError
            If features are missing, unknown or not finite. The state is as before then.
        RuntimeError
            If another thread is using the stream.
        """
        x = self._checked(x_t)
        _pins = _checks.pinned(x)
        if not np.logical_and.reduce(np.isfinite(x), axis=None):
            raise ValueError("x_t: expected finite numbers, got NaN or infinity")
        y = self._stream.step(self._scaled(x).astype(self._dtype, copy=False))
        result = self._head(y.astype(_FLOAT64, copy=False))
        return result[..., 0] if self._single else result

    def _checked(self, x_t: Any) -> Array:
        """Return features in their order as float64, (B, F) or (F,)."""
        B, F = self._batch_size, self._features
        if type(x_t) is not np.ndarray:
            x_t = self._ordered(x_t)
        elif x_t.dtype == _FLOAT32:  # the usual case, and quick
            _pins = _checks.pinned(x_t)
            x_t = x_t.astype(_FLOAT64, "C")
        x = _checks.array(x_t, "x_t", _FLOAT64)
        if x.shape != (B, F):
            if F == 1 and x.shape == ((B,) if B > 1 else ()):
                x = x[..., None]
            _checks.expect_shape(x, "x_t", (F,) if B == 1 and x.ndim == 1 else (B, F))
        return x

    def _ordered(self, x_t: Any) -> Any:
        """Return the values of what has names, in the order of the features."""
        if _frames.is_frame(x_t):
            found = _frames.column_names(x_t)
            if found is not None and self._names is not None:
                expect_names(found, self._names)
            return x_t
        if _frames.is_series(x_t) and self._names is not None:
            index = [*getattr(x_t, "index", ())]
            if index and all(isinstance(name, str) for name in index):
                x_t = dict(zip(index, x_t.tolist(), strict=True))
        if not isinstance(x_t, Mapping):
            return x_t
        if self._names is None:
            raise TypeError(
                f"x_t: expected an array, as fit had no names, got {type(x_t).__name__}"
            )
        if x_t.keys() != {*self._names}:
            missing, unknown = {*self._names} - x_t.keys(), x_t.keys() - {*self._names}
            raise ValueError(
                f"x_t: expected {self._names}, missing {sorted(missing)}, unknown "
                f"{sorted(unknown, key=str)}"
            )
        values = [x_t[name] for name in self._names]
        if {*map(type, values)} <= {float, int}:  # the usual case, and quick
            with suppress(OverflowError):
                return np.array(values, _FLOAT64)
        named = zip(values, self._names, strict=True)
        return np.stack([_checks.numeric(v, f"x_t[{name!r}]") for v, name in named], axis=-1)

    @property
    def state(self) -> States:
        """Copies of the recurrent layers' states. Assign to it to continue from other states."""
        return self._stream.state

    @state.setter
    def state(self, value: StatesLike) -> None:
        self._stream.state = value

    def reset(self, rows: RowsLike | None = None) -> None:
        """Begin new sequences.

        Parameters
        ----------
        rows : int, sequence of int or sequence of bool, optional
            Rows of the batch, as in :meth:`fastrnn.models.stream.ModelStream.reset`. Default: all.
        """
        self._stream.reset(rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={self._batch_size})"
