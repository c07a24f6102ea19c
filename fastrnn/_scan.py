"""Forward and BPTT of one layer in one direction: allocate once, hand to the current kernels.

Arrays come in checked. Layers and ``fastrnn.functional`` both stand on this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import _dispatch
from fastrnn._cells import Cell
from fastrnn._weights import Weights

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class Checkpoints:
    """Where a scan can be taken up again: its inputs, and the states every `steps` steps.

    All in the scan's own order of steps.
    """

    x: Array
    spans: Array | None
    reset: Array | None
    steps: int
    states: list[tuple[Array, ...]]


@dataclass(frozen=True, slots=True, repr=False)
class ScanTape:
    """What `backward` needs of a `forward`: the kernels that ran, and what was kept.

    `kept` is the kernels' own tape, or checkpoints.
    """

    cell: Cell
    kernels: ModuleType
    packed: Any
    kept: Any
    shape: tuple[int, int, int]
    states: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[int, ...] | None, ...]
    dtype: np.dtype[Any]
    reverse: bool


def forward(
    weights: Weights,
    x: Array,
    state: Sequence[Array],
    y: Array | None,
    keep: bool,
    *,
    reverse: bool = False,
    lengths: Array | None = None,
    reset: Array | None = None,
    checkpoint_every: int | None = None,
    owned: bool = False,
) -> tuple[tuple[Array, ...], ScanTape | None]:
    """Run the current kernels over `x` (T, B, I) from `state` (B, H) each, into `y` (T, B, H).

    Parameters
    ----------
    y : array or None
        None where only the final state is wanted.
    reverse : bool
        Whether to run from the last time step to the first.
    lengths : (B,) array of int64, optional
        Where each row ends, and where it starts in reverse.
    reset : (T, B) array of bool, optional
        Where the state is zeroed before a step.
    checkpoint_every : int, optional
        Keep states only every so many steps, or a few more.
    owned : bool
        Whether `x` is nobody else's, so that a tape can hold it as it is.

    Returns
    -------
    state_n : tuple of (B, H)
    tape : ScanTape or None
        None unless `keep`.
    """
    kernels = _dispatch.kernels(weights.dtype)
    packed = weights.packed(kernels)
    spans = None
    if lengths is not None:
        T, zeros = len(x), np.zeros_like(lengths)
        spans = np.stack([T - lengths, zeros + T] if reverse else [zeros, lengths])
    if reverse:
        x, reset = x[::-1], None if reset is None else reset[::-1]
        y = None if y is None else y[::-1]
    if keep and checkpoint_every is not None:
        steps = kernels.segment_steps(x.shape[1], checkpoint_every)
        x, reset = x if owned else x.copy(), None if reset is None else reset.copy()
        kept = Checkpoints(x, spans, reset, steps, [])
        state_n = _forward_checkpointed(kernels, packed, kept, state, y)
    else:
        state_n = tuple(np.empty_like(s, order="C") for s in state)
        kept = kernels.forward(packed, x, state, y, state_n, keep, spans, reset)
    if not keep:
        return state_n, None
    tape = ScanTape(
        weights.cell, kernels, packed, kept, x.shape, tuple(s.shape for s in state_n),
        weights.shapes, weights.dtype, reverse,
    )  # fmt: skip
    return state_n, tape


def backward(
    tape: ScanTape, dy: Array | None, dstate_n: Sequence[Array | None], dx: Array
) -> tuple[tuple[Array, ...], tuple[Array | None, ...]]:
    """Backpropagate through a `forward`, into `dx` (T, B, I).

    Returns
    -------
    dstate : tuple of (B, H)
        Gradients of the initial states.
    grads : tuple of array or None
        Gradients of the weights, in the order of `cell.weights`.
    """
    if tape.reverse:
        dy, dx = None if dy is None else dy[::-1], dx[::-1]
    gradients = tape.kernels.Gradients(tape.packed)
    if isinstance(tape.kept, Checkpoints):
        dstate = _backward_checkpointed(tape, dy, dstate_n, dx, gradients)
    else:
        dstate = tuple(np.empty(shape, tape.dtype) for shape in tape.states)
        tape.kernels.backward(tape.kept, dy, dstate_n, dx, dstate, gradients)
    grads = tuple(None if s is None else np.empty(s, tape.dtype) for s in tape.weights)
    gradients.write(grads)
    return dstate, grads


def _segments(kept: Checkpoints) -> Iterator[tuple[slice, Array | None, Array | None]]:
    """Steps of each segment, and its own spans and resets."""
    for t in range(0, len(kept.x), kept.steps):
        steps = slice(t, t + kept.steps)
        spans = None if kept.spans is None else kept.spans - t
        yield steps, spans, None if kept.reset is None else kept.reset[steps]


def _forward_checkpointed(
    kernels: ModuleType, packed: Any, kept: Checkpoints, state: Sequence[Array], y: Array | None
) -> tuple[Array, ...]:
    """Run segment by segment, and keep the states between them."""
    now = tuple(s.copy() for s in state)
    for steps, spans, reset in _segments(kept):
        kept.states.append(now)
        now = tuple(np.empty_like(s) for s in now)
        y_part = None if y is None else y[steps]
        kernels.forward(packed, kept.x[steps], kept.states[-1], y_part, now, False, spans, reset)
    return now


def _backward_checkpointed(
    tape: ScanTape,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array,
    gradients: Any,
) -> tuple[Array, ...]:
    """Run each segment again, the last one first, and go back through it."""
    kernels, kept = tape.kernels, tape.kept
    for (steps, spans, reset), state in zip(
        reversed(list(_segments(kept))), reversed(kept.states), strict=True
    ):
        x, scratch = kept.x[steps], tuple(np.empty_like(s) for s in state)
        segment = kernels.forward(tape.packed, x, state, None, scratch, True, spans, reset)
        dy_part = None if dy is None else dy[steps]
        dstate = tuple(np.empty(shape, tape.dtype) for shape in tape.states)
        kernels.backward(segment, dy_part, dstate_n, dx[steps], dstate, gradients)
        dstate_n = dstate
    return dstate
