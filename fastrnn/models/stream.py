"""A whole model, one time step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._core.scan import Bound
from fastrnn._kernels.exclusive import BUSY, FORKED, Exclusive
from fastrnn._kernels.interface import Convert, StreamChain
from fastrnn._kernels.stepping import Sampling, converter
from fastrnn._types import Array, ArrayLike, RowsLike, States, StatesLike
from fastrnn.layers.base import Stage
from fastrnn.models.network import Network


class ModelStream(Bound):
    """A model that runs one time step at a time, with the states of its recurrent layers.

    Made by ``Sequential.stream()``. Use one stream from one thread at a time.
    """

    __slots__ = {
        "_batch_size": "",
        "_busy": "",
        "_dtype": "",
        "_outputs": "",
        "_stateful": "",
        "_vocabulary": "",
        "step": """step(x_t, out=None) -> y_t

Advance by one time step.

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
    If another thread is using the stream, or was when this process was forked; nothing was read or
    written then. A reset, or a state that is assigned, makes it usable again after a fork.
""",
    }

    def __init__(self, network: Network, batch_size: int) -> None:
        signature = network.signature
        _checks.memory(batch_size * signature.outputs, signature.dtype, batch_size=batch_size)
        self._batch_size, self._dtype = batch_size, signature.dtype
        self._vocabulary, self._outputs = signature.vocabulary, signature.outputs
        stages: list[Stage] = []
        buffers: list[Array] = []
        self._stateful: list[Stage] = []
        size = signature.features
        for layer in network.layers:
            stage = layer.stage(batch_size, size, signature.dtype)
            size = layer.features_out or size
            if stage is not None:
                stages.append(stage)
                buffers.append(np.empty((batch_size, size), signature.dtype))
                self._stateful += [stage] if layer.has_state else []
        convert = converter(
            batch_size, signature.features, signature.outputs, signature.dtype,
            vocabulary=signature.vocabulary,
        )  # fmt: skip
        self._busy = _chained(stages, buffers[:-1], convert)
        self.step = self._busy.step

    def sample(
        self,
        logits: Array,
        draws: ArrayLike,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        never: int | None = None,
    ) -> Array:
        """Write tokens, each drawn from the output of the step that read the one before.

        For a model from V tokens to V logits, and a stream of one row. A compiled loop, which gives
        the tokens that steps one by one would give.

        Parameters
        ----------
        logits : (V,) array
            The output of the latest step, from which the first token is drawn. Writeable,
            C-contiguous and of the model's dtype: afterwards, the output for the last token.
        draws : (n,) array-like
            A number for each token, uniform in [0, 1): ``rng.random(n)``.
        temperature : float
            Divides the logits: below 1 favours likely tokens, 0 always takes the likeliest one.
        top_k : int, optional
            Draw only from the `top_k` likeliest tokens. Default: from all.
        never : int, optional
            A token that is never drawn.

        Returns
        -------
        tokens : (n,) array of int

        Examples
        --------
        >>> model = fastrnn.Sequential(
        ...     [fastrnn.Embedding(7, 3), fastrnn.GRU(3, 5), fastrnn.Linear(5, 7)], seed=0
        ... )
        >>> stream = model.stream()
        >>> logits = stream.step(2)
        >>> stream.sample(logits, np.random.default_rng(0).random(8), temperature=0.5).shape
        (8,)
        """
        if self._batch_size != 1 or self._vocabulary is None or self._vocabulary != self._outputs:
            raise ValueError(
                "sample: expected a stream of one row, of a model from tokens to a logit for each"
            )
        V = self._vocabulary
        logits = _checks.writable(logits, "logits", self._dtype, (V,))
        numbers = _checks.shaped(draws, "draws", np.dtype(np.float64), ("N",))
        temperature = _checks.not_negative(temperature, "temperature")
        k = V if top_k is None else min(V, _checks.size(top_k, "top_k"))
        left_out = -1 if never is None else _checks.size(never, "never", 0, V - 1)
        return self._busy.sample(logits, numbers, temperature=temperature, top_k=k, never=left_out)

    @property
    def state(self) -> States:
        """Copies of the recurrent layers' states. Assign to it to continue from other states."""
        with self._busy:
            return self._states()

    @state.setter
    def state(self, value: StatesLike) -> None:
        if not isinstance(value, list | tuple) or len(value) != len(self._stateful):
            raise ValueError(
                f"state: expected a list of {len(self._stateful)}, one for each recurrent layer"
            )
        self._begin_anew()
        with self._busy:
            before = self._states()
            try:
                for stage, s in zip(self._stateful, value, strict=True):
                    stage.state = s
            except (ValueError, TypeError):
                for stage, s in zip(self._stateful, before, strict=True):
                    stage.state = s
                raise

    def reset(self, rows: RowsLike | None = None) -> None:
        """Zero the states.

        Parameters
        ----------
        rows : int, sequence of int or sequence of bool, optional
            Rows of the batch: their numbers, or one boolean for each row. B integers that are all
            0 or 1 may be flags as well, and are refused. Default: all.
        """
        if rows is None:
            self._begin_anew()
        with self._busy:
            _checks.rows(rows, self._batch_size)  # a model without a state checks them too
            for stage in self._stateful:
                stage.reset(rows)

    def _begin_anew(self) -> None:
        """Begin with zeros if the process was forked in a step."""
        if self._busy.begin_anew():
            for stage in self._stateful:
                stage.reset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={self._batch_size})"

    def _states(self) -> list[Any]:
        return [stage.state for stage in self._stateful]


def _chained(stages: Sequence[Stage], buffers: Sequence[Array], convert: Convert) -> StreamChain:
    """Return a chain of stages; `buffers` are for all outputs but the last."""
    parts = [stage.parts for stage in stages if stage.parts is not None]
    if len(parts) == len(stages) and len({id(part.kernels) for part in parts}) == 1:
        return parts[0].kernels.Chain([stage for part in parts for stage in part.stages], convert)
    return _Walk(stages, buffers, convert)


class _Walk(Sampling, Exclusive):
    """A step through stages of which some are not the kernels' own."""

    __slots__ = ("_buffers", "_convert", "_stages")

    def __init__(self, stages: Sequence[Stage], buffers: Sequence[Array], convert: Convert) -> None:
        super().__init__(BUSY, FORKED)
        self._stages, self._buffers, self._convert = stages, buffers, convert

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        with self:
            # Checked before any layer advances, so that a refused step changes no state.
            x, y, result, _pins = self._convert(x_t, out)
            for stage, target in zip(self._stages, (*self._buffers, y), strict=True):
                stage.step(x, target)
                x = target
            return result
