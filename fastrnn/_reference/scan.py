"""A scan of any cell over time, forward and back: one layer, one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from fastrnn._cells import CELLS, Cell
from fastrnn._reference.activations import Array
from fastrnn._reference.gru import GRU, GRU_RESET_BEFORE
from fastrnn._reference.lstm import LSTM
from fastrnn._reference.rnn import RNN_RELU, RNN_TANH
from fastrnn._reference.step import StepPair

STEPS: dict[str, StepPair] = {
    "rnn_tanh": RNN_TANH,
    "rnn_relu": RNN_RELU,
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": GRU_RESET_BEFORE,
}


Convert = Callable[[Any, Any], tuple[Array, Array, Array]]


class PackedWeights(Protocol):
    """Who gives a `Stepper` its weights."""

    def packed(self, kernels: ModuleType) -> Packed: ...


class Packed:
    """An immutable copy of a layer's weights, as the kernels like them (here: as they came).

    Parameters
    ----------
    cell : Cell
    weights : sequence of array or None
        In the order of ``_cells.WEIGHTS``: (G*H, I), (G*H, H), (G*H,) or None, (G*H,) or None.
    """

    def __init__(self, cell: Cell, weights: Sequence[Array | None]) -> None:
        w_ih, w_hh, b_ih, b_hh = weights
        assert w_ih is not None
        assert w_hh is not None
        zero = np.zeros(len(w_ih), w_ih.dtype)
        self.cell = CELLS[cell.name]
        self.w_ih, self.w_hh = w_ih.copy(), w_hh.copy()
        self.b_ih = zero if b_ih is None else b_ih.copy()
        self.b_hh = zero if b_hh is None else b_hh.copy()

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Whether these are still the same bits as `weights`."""
        mine = (self.w_ih, self.w_hh, self.b_ih, self.b_hh)
        return all(
            b is None or np.array_equal(a.view(np.uint8), b.view(np.uint8))
            for a, b in zip(mine, weights, strict=True)
        )


class Tape:
    """What a training forward keeps for :func:`backward`: a copy of x, and every step's values."""

    def __init__(self, packed: Packed, x: Array) -> None:
        self.packed = packed
        self.x = np.array(x, order="C")
        self.steps: list[tuple[Array, ...]] = []


# As from the compiled twin, infinity and NaN come without a warning.
@np.errstate(over="ignore", invalid="ignore")
def forward(
    packed: Packed,
    x: Array,
    state: Sequence[Array],
    y: Array,
    state_n: Sequence[Array],
    keep: bool = False,
) -> Tape | None:
    """Run a layer over a sequence.

    Parameters
    ----------
    packed : Packed
    x : (T, B, I)
    state : sequence of (B, H)
        One for each of the cell's states.
    y : (T, B, H), out
    state_n : sequence of (B, H), out
    keep : bool
        Whether to return what `backward` needs.
    """
    tape = Tape(packed, x) if keep else None
    step = STEPS[packed.cell.name].forward
    zx = x @ packed.w_ih.T + packed.b_ih
    now = tuple(s.copy() for s in state)
    for t in range(len(x)):
        now, saved = step(zx[t], now, packed.w_hh, packed.b_hh)
        y[t] = now[0]
        if tape is not None:
            tape.steps.append(saved)
    for out, s in zip(state_n, now, strict=True):
        out[...] = s
    return tape


@np.errstate(over="ignore", invalid="ignore")
def backward(
    tape: Tape,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array,
    dstate: Sequence[Array],
    grads: Sequence[Array | None],
) -> None:
    """Backpropagation through time (Werbos 1990).

    Parameters
    ----------
    tape : Tape
        From `forward` with ``keep=True``; not changed.
    dy : (T, B, H) or None
        Gradient of the outputs; None stands for zeros.
    dstate_n : sequence of (B, H) or None
        Gradients of the final states.
    dx : (T, B, I), out
    dstate : sequence of (B, H), out
        Gradients of the initial states.
    grads : sequence of array or None, out
        Gradients of the weights, in their order and shapes.
    """
    packed = tape.packed
    T, B, I = tape.x.shape
    step = STEPS[packed.cell.name].backward
    dtype, H = tape.x.dtype, packed.w_hh.shape[1]
    now = tuple(np.zeros((B, H), dtype) if d is None else d for d in dstate_n)
    dzx = np.empty((T, B, len(packed.w_ih)), dtype)
    dw_hh, db_hh = np.zeros_like(packed.w_hh), np.zeros_like(packed.b_hh)
    for t in reversed(range(T)):
        if dy is not None:
            now = (now[0] + dy[t], *now[1:])
        back = step(tape.steps[t], now, packed.w_hh)
        now, dzx[t] = back.dstate, back.dzx
        dw_hh += back.dw_hh
        db_hh += back.db_hh
    np.matmul(dzx, packed.w_ih, out=dx)
    flat = dzx.reshape(T * B, -1)
    dw_ih, db_ih = flat.T @ tape.x.reshape(T * B, I), flat.sum(axis=0)
    for out, grad in zip((*grads, *dstate), (dw_ih, dw_hh, db_ih, db_hh, *now), strict=True):
        if out is not None:
            out[...] = grad


class Stepper:
    """Steps a layer, one time step at a time, over states of its own.

    Parameters
    ----------
    weights : PackedWeights
        The layer's weights; a change to them is seen by the next step.
    kernels : module
        The twin that this class stands in.
    batch_size : int
        B.
    convert : callable
        ``convert(x, out) -> (x, y, result)`` checks the caller's arrays: `x` becomes (B, I), `y` is
        the (B, H) to write to, and `result` the same memory in the shape to return.

    Attributes
    ----------
    state : tuple of (B, H)
        Zeros at first; may be written to.
    """

    def __init__(
        self, weights: PackedWeights, kernels: ModuleType, batch_size: int, convert: Convert
    ) -> None:
        packed = weights.packed(kernels)
        shape = (batch_size, packed.w_hh.shape[1])
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self.state = tuple(np.zeros(shape, packed.w_hh.dtype) for _ in packed.cell.states)

    def step(self, x: Any, out: Array | None = None) -> Array:
        """Advance by one step, `x` (B, I) or (I,); returns the output, in `out` if given."""
        x, y, result = self.convert(x, out)
        packed = self.weights.packed(self.kernels)
        forward(packed, x[None], self.state, y[None], self.state)
        return result
