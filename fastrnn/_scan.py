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
    weights: tuple[tuple[int, ...] | None, ...]
    dtype: np.dtype[Any]
    reverse: bool

    @property
    def hidden_size(self) -> int:
        """H."""
        weight_hh = self.weights[1]
        assert weight_hh is not None
        return weight_hh[1]


def forward(
    weights: Weights,
    x: Array,
    state: Sequence[Array],
    y: Array,
    keep: bool,
    *,
    reverse: bool = False,
) -> tuple[tuple[Array, ...], ScanTape | None]:
    """Run the current kernels over `x` (T, B, I) from `state` (B, H) each, into `y` (T, B, H).

    Parameters
    ----------
    reverse : bool
        Whether to run from the last time step to the first.

    Returns
    -------
    state_n : tuple of (B, H)
    tape : ScanTape or None
        None unless `keep`.
    """
    kernels = _dispatch.kernels(weights.dtype)
    if reverse:
        x, y = x[::-1], y[::-1]
    state_n = tuple(np.empty_like(s, order="C") for s in state)
    kept = kernels.forward(weights.packed(kernels), x, state, y, state_n, keep)
    if not keep:
        return state_n, None
    tape = ScanTape(weights.cell, kernels, kept, x.shape, weights.shapes, weights.dtype, reverse)
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
        Gradients of the weights, in the order of ``_cells.WEIGHTS``.
    """
    if tape.reverse:
        dy, dx = None if dy is None else dy[::-1], dx[::-1]
    shape = (tape.shape[1], tape.hidden_size)
    dstate = tuple(np.empty(shape, tape.dtype) for _ in dstate_n)
    grads = tuple(None if s is None else np.empty(s, tape.dtype) for s in tape.weights)
    tape.kernels.backward(tape.kept, dy, dstate_n, dx, dstate, grads)
    return dstate, grads
