"""Two directions side by side, and layers on top of each other: combinators over ``_scan``.

A stack is L layers of D directions. Its weights and states stand in one row of L*D, layer by layer
and the forward direction first, as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _scan
from fastrnn._scan import ScanTape
from fastrnn._weights import Weights

Array = np.ndarray[Any, np.dtype[Any]]
States = tuple[Array, ...]


@dataclass(frozen=True, slots=True, repr=False)
class StackTape:
    """What `backward` needs of a `forward`: L*D scans, and what was multiplied in between."""

    scans: tuple[ScanTape, ...]
    factors: Sequence[Array | None]


# What is infinite or NaN goes on as in the kernels, without a warning.
@np.errstate(over="ignore", invalid="ignore")
def forward(
    weights: Sequence[Weights],
    x: Array,
    state: Sequence[Array],
    y: Array | None,
    factors: Sequence[Array | None],
    keep: bool,
    lengths: Array | None = None,
    reset: Array | None = None,
    checkpoint_every: int | None = None,
) -> tuple[States, StackTape | None]:
    """Run L layers over `x` (T, B, I) from `state` (L*D, B, H) each, into `y` (T, B, D*H).

    Parameters
    ----------
    y : array or None
        None where only the final state is wanted.
    factors : sequence of (T, B, D*H) or None
        What to multiply the output of each of the L-1 lower layers with; None stands for ones.
    lengths, reset, checkpoint_every
        As in ``_scan.forward``.

    Returns
    -------
    state_n : tuple of (L*D, B, H)
    tape : StackTape or None
        None unless `keep`.
    """
    D = len(weights) // (len(factors) + 1)
    width = D * weights[0].output_size
    rows = list(zip(*state, strict=True))
    ends: list[States] = []
    scans: list[ScanTape | None] = []
    for layer, factor in enumerate((*factors, None)):
        mine = slice(layer * D, (layer + 1) * D)
        out = y if layer == len(factors) else np.empty((*x.shape[:2], width), x.dtype)
        parts = _parts(out, D)
        for d, (w, s, part) in enumerate(zip(weights[mine], rows[mine], parts, strict=True)):
            end, scan = _scan.forward(
                w, x, s, part, keep, reverse=d == 1, lengths=lengths, reset=reset,
                checkpoint_every=checkpoint_every, owned=layer > 0,
            )  # fmt: skip
            ends.append(end)
            scans.append(scan)
        if out is not None:
            if factor is not None:
                out *= factor
            x = out
    kept = tuple(scan for scan in scans if scan is not None)
    return _stacked(ends), StackTape(kept, factors) if keep else None


@np.errstate(over="ignore", invalid="ignore")
def backward(
    tape: StackTape, dy: Array | None, dstate_n: Sequence[Array | None], dx: Array
) -> tuple[States, list[tuple[Array | None, ...]]]:
    """Backpropagate through a `forward`, into `dx` (T, B, I).

    Returns
    -------
    dstate : tuple of (L*D, B, H)
        Gradients of the initial states.
    grads : list of tuple of array or None
        Gradients of each of the L*D weights.
    """
    D = len(tape.scans) // (len(tape.factors) + 1)
    none = [None] * len(tape.scans)
    rows = list(zip(*(none if s is None else s for s in dstate_n), strict=True))
    found: list[tuple[States, tuple[Array | None, ...]]] = []
    # A layer's input is the output of the layer below, times a factor.
    for layer, factor in reversed(list(enumerate((None, *tape.factors)))):
        mine = slice(layer * D, (layer + 1) * D)
        scans = tape.scans[mine]
        into = np.empty(scans[0].shape, dx.dtype) if layer else dx
        found[:0] = _backward(scans, dy, rows[mine], into)
        if factor is not None:
            into *= factor
        dy = into
    return _stacked([dstate for dstate, _ in found]), [grads for _, grads in found]


def _backward(
    scans: Sequence[ScanTape],
    dy: Array | None,
    dstate_n: Sequence[Sequence[Array | None]],
    dx: Array,
) -> list[tuple[States, tuple[Array | None, ...]]]:
    """One layer: `dx` is the sum over its directions."""
    dxs = [dx, *(np.empty_like(dx) for _ in scans[1:])]
    found = [
        _scan.backward(scan, part, dstate, into)
        for scan, part, dstate, into in zip(
            scans, _parts(dy, len(scans)), dstate_n, dxs, strict=True
        )
    ]
    for other in dxs[1:]:
        dx += other
    return found


def _parts(a: Array | None, D: int) -> list[Array | None]:
    """Each direction's part of the last axis; None of None."""
    if a is None:
        return [None] * D
    H = a.shape[-1] // D
    return [a[..., d * H : (d + 1) * H] for d in range(D)]


def _stacked(states: Sequence[States]) -> States:
    """L*D tuples of (B, H) as one tuple of (L*D, B, H)."""
    return tuple(map(np.array, zip(*states, strict=True)))  # faster than np.stack
