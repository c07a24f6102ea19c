"""A whole model one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._core.scan import Bound
from fastrnn._kernels import dispatch
from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.linear import Linear
from fastrnn.layers.recurrent import Recurrent
from fastrnn.layers.stream import Stream
from fastrnn.models.data import Signature


class ModelStream(Bound):
    """The states of a model's recurrent layers, and the means to step them.

    Made by ``Sequential.stream()``. Use one stream from one thread at a time.
    """

    def __init__(self, layers: Sequence[Layer], signature: Signature, batch_size: int) -> None:
        self._signature, self._batch_size = signature, batch_size
        _checks.memory(batch_size * signature.outputs, signature.dtype, batch_size=batch_size)
        self._streams: list[Stream] = []
        self._stages: list[Callable[[Array, Array], Any]] = []
        self._buffers: list[Array] = []
        for layer in layers:
            if isinstance(layer, Recurrent):
                self._streams.append(layer.stream(batch_size))
                self._stages.append(self._streams[-1].step)
                size = getattr(layer, "proj_size", 0) or layer.hidden_size
            elif isinstance(layer, Linear):
                kernels = dispatch.kernels(signature.dtype)
                self._stages.append(partial(layer.map_rows, kernels))
                size = layer.out_features
            elif isinstance(layer, Embedding):
                self._stages.append(partial(_look_up, layer.parameters()["weight"]))
                size = layer.embedding_dim
            else:  # dropout, which inference has none of
                continue
            self._buffers.append(np.empty((batch_size, size), signature.dtype))
        self._buffers.pop()

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : (B, F) array-like, or (B,) of int where the first layer is an Embedding
            (F,), or a single token, is taken too where B is 1.
        out : (B, O) array, optional
            Where to write the output: writeable, C-contiguous and of the model's dtype; (O,) for an
            `x_t` of (F,). With it, no arrays are made.

        Returns
        -------
        y_t : array
            `out`, or a new array of its shape.
        """
        s, B = self._signature, self._batch_size
        x = _checks.asarray(x_t, "x_t")
        lead = () if B == 1 and x.ndim == (s.vocabulary is None) else (B,)
        # Checked before any layer moves: a refused step is no step.
        x = s.array(x, "x_t", lead)
        shape = (*lead, s.outputs)
        y = (
            np.empty(shape, s.dtype)
            if out is None
            else _checks.writable(out, "out", s.dtype, shape)
        )
        x = x.reshape(B, *x.shape[len(lead) :])
        targets = (*self._buffers, y.reshape(B, s.outputs))
        for stage, target in zip(self._stages, targets, strict=True):
            stage(x, target)
            x = target
        return y

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


def _look_up(table: Array, tokens: Array, out: Array) -> None:
    # Tokens are checked; with another mode, take makes a copy of what it writes.
    table.take(tokens, axis=0, out=out, mode="clip")
