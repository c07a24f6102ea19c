"""Steps of the optimizers, which update parameters and their states in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastrnn._kernels.interface import Gradient
from fastrnn._kernels.reference import arrays
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array

#: Elements updated at a time: few enough for them and their temporaries to stay in the L2 cache, so
#: that a step reads and writes memory once.
BLOCK = 16384

#: Infinity and NaN raise no warning, as in torch and the compiled twin.
quiet = np.errstate(all="ignore")


@arrays.pinning
@quiet
def squares(grads: Sequence[Gradient], *, limit: float) -> list[float]:
    """Return the sum of squares of each gradient, its entries clipped to +-`limit`."""
    for grad in grads:
        _expect_gradient(grad)
    return [
        sum((float(np.vdot(g, g)) for g in _blocks(_clipped(_dense(grad), limit))), 0.0)
        for grad in grads
    ]


@arrays.pinning
@quiet
def sgd(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    *,
    limit: float,
    factor: float,
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """Take a step of gradient descent; with momentum, `states` are (b,)."""
    _expect(params, grads, states, 1 if momentum else 0)
    for p, g, state in _pieces(params, grads, states, limit=limit, factor=factor):
        d = g + weight_decay * p if weight_decay else g
        if momentum:
            (b,) = state
            b *= momentum
            b += d
            d = d + momentum * b if nesterov else b
        p -= lr * d


@arrays.pinning
@quiet
def adam(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    *,
    limit: float,
    factor: float,
    lr: float,
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    decoupled: bool,
    t: int,
) -> None:
    """Take step t, counted from 1, of Adam, or of AdamW if `decoupled`; `states` are (m, v)."""
    _expect(params, grads, states, 2)
    # In the order of the end of section 2 of the paper, which saves one pass.
    unbias = (1 - b2**t) ** 0.5
    rate = lr * unbias / (1 - b1**t)
    for p, g, (m, v) in _pieces(params, grads, states, limit=limit, factor=factor):
        if decoupled:
            p *= 1 - lr * weight_decay
        d = g + weight_decay * p if weight_decay and not decoupled else g
        m *= b1
        m += (1 - b1) * d
        v *= b2
        v += (1 - b2) * (d * d)
        p -= rate * (m / (np.sqrt(v) + eps * unbias))


@arrays.pinning
@quiet
def rmsprop(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    *,
    limit: float,
    factor: float,
    lr: float,
    weight_decay: float,
    alpha: float,
    eps: float,
    momentum: float,
    centered: bool,
) -> None:
    """Take a step of RMSprop; `states` are (v,), then a if `centered`, then b with momentum."""
    _expect(params, grads, states, 1 + bool(centered) + bool(momentum))
    for p, g, (v, *more) in _pieces(params, grads, states, limit=limit, factor=factor):
        d = g + weight_decay * p if weight_decay else g
        v *= alpha
        v += (1 - alpha) * (d * d)
        spread = v
        if centered:
            a = more[0]
            a *= alpha
            a += (1 - alpha) * d
            # Rounding may take it below 0, and a square overflow only if v did.
            spread = np.where(v < np.inf, np.maximum(v - a * a, 0), v)
        d = d / (np.sqrt(spread) + eps)
        if momentum:
            b = more[-1]
            b *= momentum
            b += d
            d = b
        p -= lr * d


@arrays.pinning
@quiet
def adagrad(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    *,
    limit: float,
    factor: float,
    lr: float,
    weight_decay: float,
    eps: float,
) -> None:
    """Take a step of Adagrad; `states` are (s,)."""
    _expect(params, grads, states, 1)
    for p, g, (s,) in _pieces(params, grads, states, limit=limit, factor=factor):
        d = g + weight_decay * p if weight_decay else g
        s += d * d
        p -= lr * (d / (np.sqrt(s) + eps))


def _expect(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    count: int,
) -> None:
    """Check the arrays of a step, with `count` state arrays for each parameter."""
    n = len(params)
    if not len(grads) == len(states) == n:
        raise ValueError(
            f"grads, states: expected {n} of each as of params, got {len(grads)} and {len(states)}"
        )
    for p, grad, state in zip(params, grads, states, strict=True):
        dtype = arrays.real_type(p, "params", out=True)
        if isinstance(grad, RowGradient):
            _expect_gradient(grad)
            if grad.values.dtype != dtype:
                arrays.refuse(grad.values, "grads.values", f"a C-contiguous {dtype} array")
            if p.shape != grad.shape:
                raise ValueError(f"grads: expected shape {p.shape}, got {grad.shape}")
        else:
            arrays.like(grad, "grads", p.shape, dtype)
        if not isinstance(state, tuple) or len(state) != count:
            raise ValueError(f"states: expected a tuple of {count} arrays")
        for s in state:
            arrays.like(s, "states", p.shape, dtype, out=True)


def _expect_gradient(grad: Gradient) -> None:
    """Check a gradient."""
    if not isinstance(grad, RowGradient):
        arrays.real_type(grad, "grads")
        return
    shape = grad.shape
    if type(shape) is not tuple or [type(n) for n in shape] != [int, int]:
        raise ValueError(f"grads.shape: expected two of int, got {shape!r}")
    V, D = shape
    arrays.integers(grad.rows, "grads.rows")
    dtype = arrays.real_type(grad.values, "grads.values")
    arrays.like(grad.values, "grads.values", (len(grad.rows), D), dtype)
    strays = (np.diff(grad.rows, prepend=-1) <= 0) | (grad.rows >= V)
    arrays.refuse_strays(strays, grad.rows, "grads.rows", f"ascending whole numbers in 0..{V - 1}")


def _blocks(a: Array) -> Iterator[Array]:
    flat = a.reshape(-1)
    return (flat[start : start + BLOCK] for start in range(0, len(flat), BLOCK))


def _dense(g: Gradient) -> Array:
    return g.dense() if isinstance(g, RowGradient) else g


def _clipped(g: Array, limit: float) -> Array:
    return g if limit == np.inf else np.clip(g, -limit, limit)


def _pieces(
    params: Sequence[Array],
    grads: Sequence[Gradient],
    states: Sequence[tuple[Array, ...]],
    *,
    limit: float,
    factor: float,
) -> Iterator[tuple[Array, Array, tuple[Array, ...]]]:
    """Yield flat pieces of each parameter, its gradient, clipped and scaled, and its state."""
    for p, g, state in zip(params, grads, states, strict=True):
        for p_piece, g_piece, *of_state in zip(*map(_blocks, (p, _dense(g), *state)), strict=True):
            clipped = _clipped(g_piece, limit)
            if factor != 1:
                clipped = clipped * clipped.dtype.type(factor)
            yield p_piece, clipped, tuple(of_state)
