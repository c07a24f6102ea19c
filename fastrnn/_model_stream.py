"""A whole model one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._batches import Signature
from fastrnn.layers.base import Array, Layer
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.recurrent import Recurrent


class ModelStream:
    """The states of a model's recurrent layers, and the means to step them.

    Made by ``Sequential.stream()``. Use one stream from one thread at a time.
    """

    def __init__(self, layers: Sequence[Layer], signature: Signature, batch_size: int) -> None:
        self._signature, self._batch_size = signature, batch_size
        self._streams = [
            layer.stream(batch_size) for layer in layers if isinstance(layer, Recurrent)
        ]
        streams = iter(self._streams)
        self._steps: list[Callable[[Any], Array]] = [
            next(streams).step if isinstance(layer, Recurrent) else layer  # type: ignore[misc]
            for layer in layers
            if not isinstance(layer, Dropout)
        ]

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : (B, F) array-like, or (B,) of int where the first layer is an Embedding
            (F,), or a single token, is taken too where B is 1.
        out : (B, O) array, optional
            Where to write the output; (O,) for an `x_t` of (F,).

        Returns
        -------
        y_t : array
            `out`, or a new array of its shape.
        """
        s, B = self._signature, self._batch_size
        x = np.asarray(x_t)
        rows = () if B == 1 and x.ndim == (s.vocabulary is None) else (B,)
        x = s.array(x, "x_t", rows)
        if out is not None:
            _checks.writable(out, "out", s.dtype, (*rows, s.outputs))
        for step in self._steps:
            x = step(x)
        if out is None:
            return x
        out[...] = x
        return out

    @property
    def state(self) -> list[Any]:
        """The state of each recurrent layer: copies. Assign to it to go on from elsewhere."""
        return [stream.state for stream in self._streams]

    @state.setter
    def state(self, value: Sequence[Any]) -> None:
        if not isinstance(value, list | tuple) or len(value) != len(self._streams):
            raise ValueError(
                f"state: expected a list of {len(self._streams)}, one for each recurrent layer"
            )
        before = self.state
        try:
            for stream, s in zip(self._streams, value, strict=True):
                stream.state = s
        except (ValueError, TypeError):
            for stream, s in zip(self._streams, before, strict=True):
                stream.state = s
            raise

    def reset(self, rows: Any = None) -> None:
        """Zero the states.

        Parameters
        ----------
        rows : int, sequence of int or boolean array, optional
            Only these rows of the batch. Default: all.
        """
        for stream in self._streams:
            stream.reset(rows)
