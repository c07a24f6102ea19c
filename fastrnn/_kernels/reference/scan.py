"""A scan of any cell over time, forward and back: one layer, one direction."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._kernels.interface import (
    Convert,
    Kernels,
    KernelTape,
    PackedWeights,
    WeightCache,
    WeightGradients,
)
from fastrnn._kernels.reference.gru import GRU, GRU_RESET_BEFORE
from fastrnn._kernels.reference.lstm import LSTM
from fastrnn._kernels.reference.product import Product, product, product_back
from fastrnn._kernels.reference.rnn import RNN_RELU, RNN_TANH
from fastrnn._kernels.reference.step import StepPair
from fastrnn._types import Array

STEPS: dict[str, StepPair] = {
    "rnn_tanh": RNN_TANH,
    "rnn_relu": RNN_RELU,
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": GRU_RESET_BEFORE,
}


T_own = TypeVar("T_own")


def _own(value: object, kind: type[T_own], name: str) -> T_own:
    """`value`, if it is of this twin."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class Packed:
    """An immutable copy of a layer's weights, as the kernels like them.

    Parameters
    ----------
    cell : Cell
    config : CellConfig
    weights : sequence of array or None
        In the order of `cell.weights` and in torch's layouts. None, or missing at the end, for
        those that `config` leaves out; so may each bias be.
    """

    def __init__(self, cell: Cell, config: CellConfig, weights: Sequence[Array | None]) -> None:
        self.cell, self.config = CELLS[cell.name], config
        self.copies = tuple(None if w is None else w.copy() for w in weights)
        named = {n: w for n, w in zip(cell.weights, self.copies, strict=False) if w is not None}
        zero = np.zeros(len(named["weight_ih"]), named["weight_ih"].dtype)
        self.w: dict[str, Array] = {"bias_ih": zero, "bias_hh": zero} | named

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Whether these are still the same bits as `weights`."""
        return all(
            a is b is None or (a is not None and b is not None and _same_bits(a, b))
            for a, b in zip(self.copies, weights, strict=True)
        )


class Gradients:
    """Sums of weight gradients, to which each :func:`backward` adds."""

    def __init__(self, packed: PackedWeights) -> None:
        self.packed = packed = _own(packed, Packed, "packed")
        self.sums = {name: np.zeros_like(w) for name, w in packed.w.items()}

    def add(self, grads: Mapping[str, Array | None]) -> None:
        """Add gradients by the names of their weights."""
        for name, grad in grads.items():
            if grad is not None and name in self.sums:
                self.sums[name] += grad

    def arrays(self) -> list[Array | None]:
        """The sums in new arrays, in the weights' order, shapes and layouts."""
        return [
            None if weight is None else self.sums[name].copy()
            for name, weight in zip(self.packed.cell.weights, self.packed.copies, strict=False)
        ]


def segment_steps(B: int, least: int) -> int:
    """At least how many steps, and `least`, to go back through at once with B rows.

    Gradients of segments of so many steps (the last one may be shorter) add up to those of the
    whole sequence; in the compiled twin, to the same bits.
    """
    return least


class Tape:
    """What a training forward keeps for :func:`backward`: its inputs, and each step's values."""

    def __init__(
        self, packed: Packed, shape: tuple[int, ...], zx: Product, running: Array | None,
        reset: Array | None,
    ) -> None:  # fmt: skip
        self.packed, self.shape, self.zx = packed, shape, zx
        self.running, self.reset = running, None if reset is None else reset.copy()
        self.steps: list[tuple[Any, ...]] = []


def _running(T: int, spans: Array | None) -> Array | None:
    """(T, B) booleans: which rows run at which step; None for all."""
    if spans is None:
        return None
    t = np.arange(T)[:, None]
    running: Array = (spans[0] <= t) & (t < spans[1])
    return running


def _put(array: Array, rows: Array | slice, values: Array) -> Array:
    """A copy of an array with other values in some rows."""
    if isinstance(rows, slice):
        return values
    array = array.copy()
    array[rows] = values
    return array


def _zero(arrays: Sequence[Array], rows: Array | None) -> tuple[Array, ...]:
    """Arrays (B, H) with zeros in some rows."""
    return tuple(a if rows is None else np.where(rows[:, None], 0, a) for a in arrays)


# As from the compiled twin, infinity and NaN come without a warning.
@np.errstate(over="ignore", invalid="ignore")
def forward(
    packed: PackedWeights,
    x: Array,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
    *,
    keep: bool = False,
    spans: Array | None = None,
    reset: Array | None = None,
) -> Tape | None:
    """Run a layer over a sequence.

    Parameters
    ----------
    packed : Packed
    x : (T, B, I)
    state : sequence of (B, H) or None
        One for each of the cell's states; None stands for zeros.
    y : (T, B, P), out, or None for none
        0 where a row does not run. P is H, or the size of a projection.
    state_n : sequence of (B, H), out
        Each row's after its last step.
    keep : bool
        Whether to return what `backward` needs.
    spans : (2, B) array of int64, optional
        Row b runs from step spans[0, b] to before spans[1, b]. All start at one step, 0 or earlier,
        or all end at one, T or later. Default: all rows run at all steps.
    reset : (T, B) array of bool, optional
        Where the state is zeroed before a step. Default: nowhere.
    """
    packed = _own(packed, Packed, "packed")
    T = len(x)
    running, w, cell = _running(T, spans), packed.w, packed.cell
    if running is not None:
        reset = None if reset is None else reset & running
        # What stands where a row does not run may be anything, and is not to count.
        x = np.where(running[:, :, None], x, 0)
    widths = [len(group) * packed.config.hidden_size for group in cell.norm_groups]
    projected = product(np.array(x), w["weight_ih"], w.get("gain_ih"), widths)
    zx = projected.value + w["bias_ih"]
    tape = Tape(packed, x.shape, projected, running, reset) if keep else None
    step = STEPS[cell.name].forward
    now = tuple(
        np.zeros_like(n) if s is None else s.copy() for s, n in zip(state, state_n, strict=True)
    )
    for t in range(T):
        rows = slice(None) if running is None else np.flatnonzero(running[t])
        now = _zero(now, None if reset is None else reset[t])
        new, saved = step(zx[t, rows], tuple(s[rows] for s in now), w)
        if y is not None:
            y[t] = _put(np.zeros_like(y[t]), rows, new[0])
        now = tuple(_put(s, rows, n) for s, n in zip(now, new, strict=True))
        if tape is not None:
            tape.steps.append(saved)
    for out, s in zip(state_n, now, strict=True):
        out[...] = s
    return tape


@np.errstate(over="ignore", invalid="ignore")
def backward(
    tape: KernelTape,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    gradients: WeightGradients,
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
    dx : (T, B, I), out, or None where it is not wanted
    dstate : sequence of (B, H), out
        Gradients of the initial states.
    gradients : Gradients
        To which those of the weights are added.
    """
    tape = _own(tape, Tape, "tape")
    gradients = _own(gradients, Gradients, "gradients")
    packed, running, reset = tape.packed, tape.running, tape.reset
    T, B, _ = tape.shape
    step, w = STEPS[packed.cell.name].backward, packed.w
    now = tuple(np.zeros_like(s) if d is None else d for s, d in zip(dstate, dstate_n, strict=True))
    dzx = np.zeros((T, B, len(w["weight_ih"])), w["weight_ih"].dtype)
    for t in reversed(range(T)):
        rows = slice(None) if running is None else np.flatnonzero(running[t])
        dstep = tuple(d[rows] for d in now)
        if dy is not None:
            dstep = (dstep[0] + dy[t, rows], *dstep[1:])
        back = step(tape.steps[t], dstep, w)
        dzx[t, rows] = back.dzx
        now = tuple(_put(d, rows, n) for d, n in zip(now, back.dstate, strict=True))
        now = _zero(now, None if reset is None else reset[t])
        gradients.add(back.grads)
    found, dweight, dgain = product_back(tape.zx, dzx, w["weight_ih"], w.get("gain_ih"))
    if dx is not None:
        dx[...] = found
    gradients.add({"weight_ih": dweight, "bias_ih": dzx.sum(axis=(0, 1)), "gain_ih": dgain})
    for out, d in zip(dstate, now, strict=True):
        out[...] = d


class Stepper:
    """Steps a layer, one time step at a time, over states of its own.

    Parameters
    ----------
    weights : WeightCache
        The layer's weights; a change to them is seen by the next step.
    kernels : Kernels
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
        self, weights: WeightCache, kernels: Kernels, batch_size: int, convert: Convert
    ) -> None:
        packed = _own(weights.packed(kernels), Packed, "weights")
        dtype = packed.w["weight_ih"].dtype
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self._turn = threading.Lock()
        self.state = tuple(
            np.zeros((batch_size, n), dtype) for n in packed.cell.state_sizes(packed.config)
        )

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one step, `x_t` (B, I) or (I,); returns the output, in `out` if given."""
        if not self._turn.acquire(blocking=False):
            raise RuntimeError("stream: two threads step it at once; give each a stream of its own")
        try:
            return self._step(x_t, out)
        finally:
            self._turn.release()

    def _step(self, x_t: Any, out: Array | None) -> Array:
        x, y, result = self.convert(x_t, out)
        packed = self.weights.packed(self.kernels)
        forward(packed, x[None], self.state, y[None], self.state)
        return result
