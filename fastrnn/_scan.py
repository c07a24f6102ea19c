"""Forward and BPTT of one layer in one direction: allocate once, hand to the current kernels.

Arrays come in checked. Layers and ``fastrnn.functional`` both stand on this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import _dispatch
from fastrnn._cells import Cell
from fastrnn._weights import Weights

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class ScanTape:
    """What `backward` needs of a `forward`: the kernels that ran, and what they kept."""

    cell: Cell
    kernels: ModuleType
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
    y: Array,
    keep: bool,
    *,
    reverse: bool = False,
    lengths: Array | None = None,
    reset: Array | None = None,
) -> tuple[tuple[Array, ...], ScanTape | None]:
    """Run the current kernels over `x` (T, B, I) from `state` (B, H) each, into `y` (T, B, H).

    Parameters
    ----------
    reverse : bool
        Whether to run from the last time step to the first.
    lengths : (B,) array of int64, optional
        Where each row ends, and where it starts in reverse.
    reset : (T, B) array of bool, optional
        Where the state is zeroed before a step.

    Returns
    -------
    state_n : tuple of (B, H)
    tape : ScanTape or None
        None unless `keep`.
    """
    kernels = _dispatch.kernels(weights.dtype)
    spans = None
    if lengths is not None:
        T, zeros = len(x), np.zeros_like(lengths)
        spans = np.stack([T - lengths, zeros + T] if reverse else [zeros, lengths])
    if reverse:
        x, y, reset = x[::-1], y[::-1], None if reset is None else reset[::-1]
    state_n = tuple(np.empty_like(s, order="C") for s in state)
    kept = kernels.forward(weights.packed(kernels), x, state, y, state_n, keep, spans, reset)
    if not keep:
        return state_n, None
    states = tuple(s.shape for s in state_n)
    tape = ScanTape(
        weights.cell, kernels, kept, x.shape, states, weights.shapes, weights.dtype, reverse
    )
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
    dstate = tuple(np.empty(shape, tape.dtype) for shape in tape.states)
    grads = tuple(None if s is None else np.empty(s, tape.dtype) for s in tape.weights)
    tape.kernels.backward(tape.kept, dy, dstate_n, dx, dstate, grads)
    return dstate, grads
