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
from fastrnn._kernels.weights import Kind, ScanWeights
from fastrnn._types import Array

#: Bytes of a lower layer's output that inference holds at a time: few enough for the L2 cache.
_SEGMENT_BYTES = 262144


@dataclass(slots=True, repr=False)
class StackTape:
    """What `backward` needs from a `forward`: scans, and the factors between layers.

    The first `skipped` of the L*D scans were not kept.
    """

    scans: Sequence[ScanTape]
    factors: Sequence[Array | None]
    skipped: int = 0


def forward(
    weights: Sequence[ScanWeights],
    x: Array,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
    *,
    factors: Sequence[Array | None],
    keep: bool = False,
    keep_from: int = 0,
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
    keep_from : int
        The lowest layer to which `backward` will go.
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
                factors=[None if f is None else f[part] for f in factors],
                lengths=None if lengths is None else lengths - t,
                reset=None if reset is None else reset[part],
            )
            state = state_n
        return None
    scans: list[ScanTape | None] = []
    for layer in range(L):
        top = layer == L - 1
        out = y if top else np.empty((*x.shape[:2], D * weights[0].kind[1].output_size), x.dtype)
        for d in range(D):
            k = layer * D + d
            tape = scan.forward(
                weights[k],
                x,
                _of_scan(state, k),
                _part(out, d, D),
                [s[k] for s in state_n],
                keep=keep and layer >= keep_from,
                reverse=d == 1,
                lengths=lengths,
                reset=reset,
                checkpoint_every=checkpoint_every,
                owned=layer > 0,
            )
            scans.append(tape)
        if not top and out is not None:
            x = _times(out, factors[layer])
    if not keep:
        return None
    return StackTape([tape for tape in scans if tape is not None], factors, keep_from * D)


def backward(
    tape: StackTape,
    kinds: Sequence[Kind],
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    *,
    num_layers: int,
    wanted: Sequence[bool] | None = None,
) -> list[list[Array | None]]:
    """Backpropagate through a `forward`, into `dx` (T, B, I) and `dstate` (L*D, B, H) each.

    Parameters
    ----------
    kinds : sequence of tuple
        Of the L*D weights.
    dx : array or None, out
        None where it is not wanted.
    dstate : sequence of array, out
        Left as they are for layers that were not kept.
    num_layers : int
        L.
    wanted : sequence of bool, optional
        Of which scans the gradients of the weights are wanted. Default: all.

    Returns
    -------
    grads : list of list of array or None
        Gradients of each of the L*D weights; empty where they are not wanted.

    Raises
    ------
    ValueError
        If the tape is from other weights, or is of another shape.
    """
    scans, factors, L, skipped = tape.scans, tape.factors, num_layers, tape.skipped
    if skipped + len(scans) != len(kinds) or len(factors) != L - 1:
        raise ValueError("tape: is from the forward of another layer")
    D = len(kinds) // L
    lowest = skipped // D
    grads: list[list[Array | None]] = [[]] * len(kinds)
    for layer in reversed(range(lowest, L)):
        top = scans[layer * D - skipped]
        into = np.empty(top.shape, top.dtype) if layer > lowest else dx
        for d in range(D):
            k = layer * D + d
            mine = into if d == 0 or into is None else np.empty_like(into)
            grads[k] = scan.backward(
                scans[k - skipped],
                kinds[k],
                _part(dy, d, D),
                _of_scan(dstate_n, k),
                mine,
                [s[k] for s in dstate],
                reverse=d == 1,
                weight_gradients=wanted is None or wanted[k],
            )
            if d and into is not None and mine is not None:
                _add(into, mine)
        if layer > lowest and into is not None:
            # The input was the output of the layer below, times a factor.
            dy = _times(into, factors[layer - 1])
    return grads


def _segment_steps(weights: ScanWeights, x: Array) -> int:
    """Return how many steps inference takes at a time."""
    step_bytes: int = x.shape[1] * weights.kind[1].output_size * x.itemsize
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
@np.errstate(all="ignore")
def _times(a: Array, factor: Array | None) -> Array:
    """Multiply `a` in place, and return it."""
    if factor is not None:
        a *= factor
    return a


@np.errstate(all="ignore")
def _add(a: Array, b: Array) -> None:
    a += b
