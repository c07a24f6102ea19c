"""A whole model, one time step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._core.scan import Bound
from fastrnn._types import Array
from fastrnn.layers.base import Stage
from fastrnn.models.exclusive import Exclusive
from fastrnn.models.network import Network


class ModelStream(Bound):
    """A model that runs one time step at a time, with the states of its recurrent layers.

    Made by ``Sequential.stream()``. Use one stream from one thread at a time.
    """

    __slots__ = ("_batch_size", "_buffers", "_busy", "_signature", "_stages", "_stateful")

    def __init__(self, network: Network, batch_size: int) -> None:
        signature = network.signature
        self._signature, self._batch_size = signature, batch_size
        self._busy = Exclusive("stream: expected no other thread to be using it")
        _checks.memory(batch_size * signature.outputs, signature.dtype, batch_size=batch_size)
        self._stages: list[Stage] = []
        self._stateful: list[Stage] = []
        self._buffers: list[Array] = []
        size = signature.features
        for layer in network.layers:
            stage = layer.stage(batch_size)
            size = layer.features_out or size
            if stage is not None:
                self._stages.append(stage)
                self._stateful += [stage] if layer.has_state else []
                self._buffers.append(np.empty((batch_size, size), signature.dtype))
        self._buffers.pop()

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x_t : (B, F) array-like, or (B,) of int where the first layer is an Embedding
            (F,), or a single token, is accepted too if B is 1.
        out : (B, O) array, optional
            Where to write the output: writeable, C-contiguous and of the model's dtype; (O,) for an
            `x_t` of (F,). With it, no arrays are allocated.

        Returns
        -------
        y_t : array
            `out`, or a new array of its shape.

        Raises
        ------
        RuntimeError
            If another thread is using the stream; nothing was read or written then.
        """
        with self._busy:
            return self._step(x_t, out)

    def _step(self, x_t: Any, out: Array | None) -> Array:
        s, B = self._signature, self._batch_size
        x = _checks.asarray(x_t, "x_t")
        lead = () if B == 1 and x.ndim == (s.vocabulary is None) else (B,)
        # Checked before any layer advances, so that a refused step changes no state.
        x = s.array(x, "x_t", lead)
        shape = (*lead, s.outputs)
        y = (
            np.empty(shape, s.dtype)
            if out is None
            else _checks.writable(out, "out", s.dtype, shape)
        )
        # Stages read and write the caller's arrays themselves; a single row, by views of them.
        _pins = None if lead else _checks.pinned(x, y)
        x = x if lead else x[None]
        targets = (*self._buffers, y if lead else y[None])
        for stage, target in zip(self._stages, targets, strict=True):
            stage.step(x, target)
            x = target
        return y

    @property
    def state(self) -> list[Any]:
        """Copies of the recurrent layers' states. Assign to it to continue from other states."""
        with self._busy:
            return self._states()

    @state.setter
    def state(self, value: Sequence[Any]) -> None:
        if not isinstance(value, list | tuple) or len(value) != len(self._stateful):
            raise ValueError(
                f"state: expected a list of {len(self._stateful)}, one for each recurrent layer"
            )
        with self._busy:
            before = self._states()
            try:
                for stage, s in zip(self._stateful, value, strict=True):
                    stage.state = s
            except (ValueError, TypeError):
                for stage, s in zip(self._stateful, before, strict=True):
                    stage.state = s
                raise

    def reset(self, rows: Any = None) -> None:
        """Zero the states.

        Parameters
        ----------
        rows : int, sequence of int or sequence of bool, optional
            Rows of the batch: their numbers, or one boolean for each row. B integers that are all
            0 or 1 may be flags as well, and are refused. Default: all.
        """
        with self._busy:
            _checks.rows(rows, self._batch_size)  # a model without a state checks them too
            for stage in self._stateful:
                stage.reset(rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={self._batch_size})"

    def _states(self) -> list[Any]:
        return [stage.state for stage in self._stateful]
