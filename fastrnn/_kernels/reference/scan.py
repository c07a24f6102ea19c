"""A scan of any cell over time, forward and back: one layer, one direction."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._kernels.interface import KernelTape, PackedWeights, WeightGradients
from fastrnn._kernels.reference.arithmetic import activations
from fastrnn._kernels.reference.arrays import REALS, is_plain, own, pinning, refuse, same_bits
from fastrnn._kernels.reference.product import Product, product, product_back
from fastrnn._kernels.reference.rows import (
    check_sequence,
    checked_scan,
    checked_states,
    put,
    zeroed,
)
from fastrnn._kernels.reference.step import CellWeights, StepPair
from fastrnn._types import Array


def _steps_of(cell: Cell) -> StepPair:
    """Return the cell's steps, from the file of its family."""
    module = importlib.import_module(f"fastrnn._kernels.reference.{cell.family}")
    try:
        steps: StepPair = module.STEPS[cell.name]
    except KeyError:
        raise ImportError(f"{module.__name__}: expected steps of {cell.name}") from None
    return steps


STEPS: dict[str, StepPair] = {name: _steps_of(cell) for name, cell in CELLS.items()}


class Packed:
    """An immutable copy of a layer's weights, in the layout of the kernels."""

    def __init__(self, cell: Cell, config: CellConfig, weights: Sequence[Array | None]) -> None:
        self.config = own(config, CellConfig, "config")
        self.cell = cell = CELLS[cell.name]
        given = tuple(weights)
        if len(given) > len(cell.weights):
            raise ValueError(
                f"weights: expected at most {len(cell.weights)} arrays, got {len(given)}"
            )
        dtype = next((a.dtype for a in given if isinstance(a, np.ndarray)), REALS[0])
        for name, array in zip(cell.weights, given, strict=False):
            if array is not None and not (is_plain(array, dtype) and dtype in REALS):
                refuse(array, name, f"a {dtype if dtype in REALS else 'float32 or float64'} array")
        self.dtype: np.dtype[Any] = dtype
        self.copies = tuple(None if a is None else np.array(a, order="C") for a in given)
        named = {n: w for n, w in zip(cell.weights, self.copies, strict=False) if w is not None}
        shapes = cell.weight_shapes(config)
        for name in cell.weights:
            shape = shapes.get(name)
            if name not in named:
                if shape is not None and not name.startswith("bias"):
                    raise ValueError(f"{name}: expected shape {shape}, got None")
            elif named[name].shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {named[name].shape}")
        zero = np.zeros(len(named["weight_ih"]), dtype)
        _checks.matmul_precision(config.matmul_precision, dtype)
        self.w = CellWeights({"bias_ih": zero, "bias_hh": zero} | named)
        self.w.matmul_precision = config.matmul_precision
        self.w.functions = activations(cell, config)
        self.w.input_forget = config.input_forget

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Return whether the copy has the same bits as `weights`."""
        return same_bits(self.copies, weights)

    def state_shapes(self, B: int) -> list[tuple[int, int]]:
        """Return the shape of each state."""
        return [(B, n) for n in self.cell.state_sizes(self.config)]


class Gradients:
    """Sums of weight gradients, to which each :func:`backward` adds."""

    def __init__(self, packed: PackedWeights) -> None:
        self.packed = packed = own(packed, Packed, "packed")
        self.sums = {name: np.zeros_like(w) for name, w in packed.w.items()}

    def add(self, grads: Mapping[str, Array | None]) -> None:
        """Add gradients by the names of their weights."""
        for name, grad in grads.items():
            if grad is not None and name in self.sums:
                self.sums[name] += grad

    def arrays(self) -> list[Array | None]:
        """Return the sums in new arrays, in the weights' order, shapes and layouts."""
        return [
            None if weight is None else self.sums[name].copy()
            for name, weight in zip(self.packed.cell.weights, self.packed.copies, strict=False)
        ]


def segment_steps(B: int, least: int) -> int:
    """Return a segment length of at least `least` steps for B rows."""
    for value, name in ((B, "B"), (least, "least")):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
    return least


class Tape:
    """The tape of a :func:`forward` for :func:`backward`: inputs, and each step's values."""

    def __init__(
        self, packed: Packed, x: Product, running: Array | None, reset: Array | None
    ) -> None:
        self.packed, self.x, self.running, self.reset = packed, x, running, reset
        #: For each step, what the cell saved, and the projection of its output.
        self.steps: list[tuple[tuple[Any, ...], Product | None]] = []


# Infinity and NaN raise no warning, as in the compiled twin.
@pinning
@np.errstate(all="ignore")
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
    """Run a layer over a sequence."""
    packed = own(packed, Packed, "packed")
    cell, config, w = packed.cell, packed.config, packed.w
    x, now, state_n, running, reset = checked_scan(packed, x, state, y, state_n, spans, reset)
    widths = [len(group) * config.hidden_size for group in cell.norm_groups]
    precision = config.matmul_precision
    projected = product(np.array(x, order="C"), w["weight_ih"], w.get("gain_ih"), widths, precision)
    zx = projected.value + w["bias_ih"]
    tape = Tape(packed, projected, running, reset) if keep else None
    step = STEPS[cell.name].forward
    for t in range(len(x)):
        rows = slice(None) if running is None else np.flatnonzero(running[t])
        now = zeroed(now, None if reset is None else reset[t])
        new, saved = step(zx[t, rows], tuple(s[rows] for s in now), w)
        output = None
        if "weight_hr" in w:
            output = product(new[0], w["weight_hr"], precision=precision)
            new = (output.value, *new[1:])
        if y is not None:
            y[t] = put(np.zeros_like(y[t]), rows, new[0])
        now = tuple(put(s, rows, n) for s, n in zip(now, new, strict=True))
        if tape is not None:
            tape.steps.append((saved, output))
    for out, s in zip(state_n, now, strict=True):
        out[...] = s
    return tape


@pinning
@np.errstate(all="ignore")
def backward(
    tape: KernelTape,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    gradients: WeightGradients | None,
) -> None:
    """Backpropagate through time (Werbos 1990)."""
    tape = own(tape, Tape, "tape")
    packed, running, reset = tape.packed, tape.running, tape.reset
    sums = Gradients(packed) if gradients is None else own(gradients, Gradients, "gradients")
    if sums.packed is not packed:
        raise ValueError("gradients: expected those of the weights with which the tape was made")
    w, dtype, (T, B, I) = packed.w, packed.dtype, tape.x.a.shape
    shapes = packed.state_shapes(B)
    dstate_n = checked_states(dstate_n, "dstate_n", shapes, dtype)
    dstate = checked_states(dstate, "dstate", shapes, dtype, out=True)
    if dy is not None:
        check_sequence(dy, "dy", (T, B, packed.config.output_size), dtype)
    if dx is not None:
        check_sequence(dx, "dx", (T, B, I), dtype, out=True)
    step = STEPS[packed.cell.name].backward
    now = tuple(np.zeros_like(s) if d is None else d for s, d in zip(dstate, dstate_n, strict=True))
    dzx = np.zeros((T, B, len(w["weight_ih"])), dtype)
    for t in reversed(range(T)):
        rows = slice(None) if running is None else np.flatnonzero(running[t])
        dstep = tuple(d[rows] for d in now)
        if dy is not None:
            dstep = (dstep[0] + dy[t, rows], *dstep[1:])
        saved, output = tape.steps[t]
        if output is not None:
            dh, dweight, _ = product_back(output, dstep[0], w["weight_hr"])
            sums.add({"weight_hr": dweight})
            dstep = (dh, *dstep[1:])
        back = step(saved, dstep, w)
        dzx[t, rows] = back.dzx
        now = tuple(put(d, rows, n) for d, n in zip(now, back.dstate, strict=True))
        now = zeroed(now, None if reset is None else reset[t])
        sums.add(back.grads)
    dinput, dweight, dgain = product_back(tape.x, dzx, w["weight_ih"], w.get("gain_ih"))
    if dx is not None:
        dx[...] = dinput
    sums.add({"weight_ih": dweight, "bias_ih": dzx.sum(axis=(0, 1)), "gain_ih": dgain})
    for out, d in zip(dstate, now, strict=True):
        out[...] = d
