"""One step at a time, for real-time use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks, _dispatch
from fastrnn._weights import Weights

Array = np.ndarray[Any, np.dtype[Any]]


class Stream:
    """A state, and the means to step it; made by a layer's ``stream()``.

    A stream stays with the backend on which it was made, and sees every change of the layer's
    weights. Use one stream from one thread at a time.
    """

    __slots__ = {
        "_names": "",
        "_sizes": "",
        "_states": "",
        "step": """step(x_t, out=None) -> y_t

Advance by one time step.

Parameters
----------
x_t : (B, I) array-like
    (I,) is taken too where B is 1.
out : (B, H) array, optional
    Where to write the output: writeable, C-contiguous and of the layer's dtype; (H,) for an `x_t`
    of (I,). With it, and `x_t` an array of such a kind, nothing is allocated.

Returns
-------
y_t : array
    `out`, or a new array of its shape.
""",
    }

    def __init__(
        self, weights: Weights, input_size: int, hidden_size: int, batch_size: int
    ) -> None:
        self._names = weights.cell.states
        self._sizes = (batch_size, input_size, hidden_size)
        kernels = _dispatch.kernels(weights.dtype)
        stepper = kernels.Stepper(weights, kernels, batch_size, self._convert)
        self._states, self.step = stepper.state, stepper.step

    def _convert(self, x: Any, out: Any) -> tuple[Array, Array, Array]:
        """(B, I) to read, (B, H) to write, and the latter in the shape to return."""
        B, I, H = self._sizes
        dtype = self._states[0].dtype
        x = _checks.array(x, "x_t", dtype)
        rows = () if B == 1 and x.ndim == 1 else (B,)
        x = np.ascontiguousarray(_checks.expect_shape(x, "x_t", (*rows, I)))
        shape = (*rows, H)
        y = np.empty(shape, dtype) if out is None else _checks.writable(out, "out", dtype, shape)
        return x.reshape(B, I), y.reshape(B, H), y

    @property
    def state(self) -> Any:
        """The state: a copy, (1, B, H), or for LSTM a pair ``(h, c)`` of such.

        Assign to it to go on from elsewhere.
        """
        found = tuple(s[None].copy() for s in self._states)
        return found[0] if len(found) == 1 else found

    @state.setter
    def state(self, value: Any) -> None:
        B, _, H = self._sizes
        given = _checks.states(value, "state", self._names, self._states[0].dtype, (1, B, H))
        for mine, s in zip(self._states, given, strict=True):
            mine[...] = 0 if s is None else s[0]

    def reset(self, rows: int | Sequence[int] | Array | None = None) -> None:
        """Zero the state.

        Parameters
        ----------
        rows : int, sequence of int or boolean array, optional
            Only these rows of the batch. Default: all.
        """
        B = self._sizes[0]
        try:
            chosen = np.arange(B)[slice(None) if rows is None else rows]
        except IndexError:
            raise ValueError(
                f"rows: expected row numbers under {B}, or {B} booleans, got {rows!r}"
            ) from None
        for s in self._states:
            s[chosen] = 0
