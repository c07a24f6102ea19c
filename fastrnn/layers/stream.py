"""One step at a time, for real-time use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

import numpy as np

from fastrnn import _checks
from fastrnn._core.scan import Bound
from fastrnn._kernels import dispatch
from fastrnn._kernels.stepping import converter
from fastrnn._kernels.weights import Weights
from fastrnn._types import RowsLike, StateLikeT, StateT
from fastrnn.layers.base import Parts
from fastrnn.layers.embedding import Table


class Stream(Bound, Generic[StateT, StateLikeT]):
    """A state advanced one time step at a time, made by a layer's ``stream()``.

    A stream stays on the backend on which it was made, and uses the layer's current weights. Use a
    stream from one thread at a time.

    Examples
    --------
    >>> gru = fastrnn.GRU(3, 5, seed=0)
    >>> stream = gru.stream(batch_size=2)
    >>> x = np.random.default_rng(0).normal(size=(7, 2, 3))
    >>> y = np.stack([stream.step(x_t) for x_t in x])
    >>> np.array_equal(y, gru(x)[0])
    True
    >>> stream.reset(rows=0)  # a new sequence in row 0
    >>> np.array_equal(stream.step(x[0])[0], y[0, 0])
    True
    """

    __slots__ = {
        "_chain": "",
        "_learned": "",
        "_names": "",
        "_states": "",
        "parts": "The stages of a step.",
        "step": """step(x_t, out=None) -> y_t

Advance by one time step.

Parameters
----------
x_t : (B, I) array-like
    (I,) is accepted too if B is 1.
out : (B, H) array, optional
    Where to write the output: writeable, C-contiguous and of the layer's dtype; (H,) for an `x_t`
    of (I,). If `x_t` is such an array too, nothing is allocated.

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

    def __init__(
        self, stack: Sequence[Weights], batch_size: int, learned: Sequence[Table] = ()
    ) -> None:
        kernels = dispatch.kernels(stack[0].dtype)
        first, last = stack[0].config, stack[-1].config
        convert = converter(batch_size, first.input_size, last.output_size, stack[0].real)
        self._names = stack[0].cell.states
        steppers = tuple(kernels.Stepper(weights, kernels, batch_size) for weights in stack)
        self._states = tuple(zip(*(stepper.state for stepper in steppers), strict=True))
        self.parts = Parts(kernels, steppers)
        self._chain = kernels.Chain(steppers, convert)
        self.step = self._chain.step
        self._learned = learned
        if learned:
            self.reset()

    @property
    def state(self) -> StateT:
        """The state: a copy, (L, B, H), or for LSTM a pair ``(h, c)`` of such.

        Assign to it to continue from another state.
        """
        with self._chain:
            state: Any = tuple(map(np.stack, self._states))
        only: StateT = state[0] if len(state) == 1 else state
        return only

    @state.setter
    def state(self, value: StateLikeT | None) -> None:
        shapes = [(len(layers), *layers[0].shape) for layers in self._states]
        dtype = self._states[0][0].dtype
        given = _checks.states(value, "state", self._names, dtype, shapes)
        _pins = _checks.pinned(given)
        self._chain.begin_anew()
        with self._chain:
            for layers, values in zip(self._states, given, strict=True):
                for layer, mine in enumerate(layers):
                    mine[...] = 0 if values is None else values[layer]

    def reset(self, rows: RowsLike | None = None) -> None:
        """Zero the state; that of a layer with a learned initial state becomes that.

        Parameters
        ----------
        rows : int, sequence of int or sequence of bool, optional
            Rows of the batch: their numbers, or one boolean for each row. B integers that are all
            0 or 1 may be flags as well, and are refused. Default: all.
        """
        chosen = _checks.rows(rows, len(self._states[0][0]))
        if rows is None:
            self._chain.begin_anew()
        with self._chain:
            for k, layers in enumerate(self._states):
                for layer, s in enumerate(layers):
                    s[chosen] = self._learned[k].array[layer] if self._learned else 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_size={len(self._states[0][0])})"
