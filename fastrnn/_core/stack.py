"""Bidirectional and stacked layers, built from the scans of ``scan``.

A stack is L layers of D directions. Its L*D weights and states are ordered layer by layer, the
forward direction first, as in torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastrnn._core import scan
from fastrnn._core.scan import ScanTape
from fastrnn._kernels.weights import Weights
from fastrnn._types import Array

#: Bytes of a lower layer's output that inference holds at a time: few enough for the L2 cache.
_SEGMENT_BYTES = 262144


@dataclass(slots=True, repr=False)
class StackTape:
    """What `backward` needs from a `forward`: L*D scans, and the factors between layers."""

    scans: Sequence[ScanTape]
    factors: Sequence[Array | None]


def forward(
    weights: Sequence[Weights],
    x: Array,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
    *,
    factors: Sequence[Array | None],
    keep: bool = False,
    lengths: Array | None = None,
    reset: Array | None = None,
    checkpoint_every: int | None = None,
) -> StackTape | None:
    """Run L layers over `x` (T, B, I) from `state` (L*D, B, H) each, into `y` (T, B, D*H).

    Parameters
    ----------
    state : sequence of array or None
        None stands for zeros.
    y : array or None, out
        None where only the final state is wanted.
    state_n : sequence of (L*D, B, H), out
    factors : sequence of (T, B, D*H) or None
        Factors for the outputs of the L-1 lower layers; None stands for ones.
    keep : bool
        Whether to return a tape.
    lengths, reset, checkpoint_every
        As in ``scan.forward``.
    """
    L = len(factors) + 1
    D = len(weights) // L
    if L > 1 and D == 1 and not keep and (steps := _segment_steps(weights[0], x)) < len(x):
        # All layers advance by a few steps at a time, so memory does not grow with T.
        for t in range(0, len(x), steps):
            part = slice(t, t + steps)
            forward(
                weights,
                x[part],
                state,
                None if y is None else y[part],
                state_n,
                factors=factors,
                lengths=None if lengths is None else lengths - t,
                reset=None if reset is None else reset[part],
            )
            state = state_n
        return None
    scans: list[ScanTape | None] = []
    for layer in range(L):
        top = layer == L - 1
        out = y if top else np.empty((*x.shape[:2], D * weights[0].config.output_size), x.dtype)
        for d in range(D):
            k = layer * D + d
            tape = scan.forward(
                weights[k],
                x,
                _of_scan(state, k),
                _part(out, d, D),
                [s[k] for s in state_n],
                keep=keep,
                reverse=d == 1,
                lengths=lengths,
                reset=reset,
                checkpoint_every=checkpoint_every,
                owned=layer > 0,
            )
            scans.append(tape)
        if not top and out is not None:
            x = _times(out, factors[layer])
    return StackTape([tape for tape in scans if tape is not None], factors) if keep else None


def backward(
    tape: StackTape,
    weights: Sequence[Weights],
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    *,
    num_layers: int,
) -> list[list[Array | None]]:
    """Backpropagate through a `forward`, into `dx` (T, B, I) and `dstate` (L*D, B, H) each.

    Parameters
    ----------
    weights : sequence of Weights
        Those whose gradients are wanted.
    dx : array or None, out
        None where it is not wanted.
    num_layers : int
        L.

    Returns
    -------
    grads : list of list of array or None
        Gradients of each of the L*D weights.

    Raises
    ------
    ValueError
        If the tape is from other weights, or is of another shape.
    """
    scans, factors, L = tape.scans, tape.factors, num_layers
    if len(scans) != len(weights) or len(factors) != L - 1:
        raise ValueError("tape: is from the forward of another layer")
    D = len(scans) // L
    grads: list[list[Array | None]] = [[]] * len(scans)
    for layer in reversed(range(L)):
        top = scans[layer * D]
        into = np.empty(top.shape, top.dtype) if layer else dx
        for d in range(D):
            k = layer * D + d
            mine = into if d == 0 or into is None else np.empty_like(into)
            grads[k] = scan.backward(
                scans[k],
                weights[k].kind,
                _part(dy, d, D),
                _of_scan(dstate_n, k),
                mine,
                [s[k] for s in dstate],
                reverse=d == 1,
            )
            if d and into is not None and mine is not None:
                _add(into, mine)
        if layer and into is not None:
            # The input was the output of the layer below, times a factor.
            dy = _times(into, factors[layer - 1])
    return grads


def _segment_steps(weights: Weights, x: Array) -> int:
    """Return how many steps inference takes at a time."""
    step_bytes: int = x.shape[1] * weights.config.output_size * x.itemsize
    return max(1, _SEGMENT_BYTES // max(1, step_bytes))


def _of_scan(states: Sequence[Array | None], k: int) -> list[Array | None]:
    """Return the states of scan k."""
    return [None if s is None else s[k] for s in states]


def _part(a: Array | None, d: int, D: int) -> Array | None:
    """Return direction d's part of the last axis."""
    if a is None or D == 1:
        return a
    H = a.shape[-1] // D
    return a[..., d * H : (d + 1) * H]


# Infinity and NaN propagate without a warning, as in the kernels.
@np.errstate(over="ignore", invalid="ignore")
def _times(a: Array, factor: Array | None) -> Array:
    """Multiply `a` in place, and return it."""
    if factor is not None:
        a *= factor
    return a


@np.errstate(over="ignore", invalid="ignore")
def _add(a: Array, b: Array) -> None:
    a += b
