"""Losses of outputs `z` and targets `t`: (weighted) means and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastrnn._kernels.reference import arrays
from fastrnn._types import Array

#: Values that are not finite give NaN or infinity without a warning, as in torch.
quiet = np.errstate(all="ignore")


@arrays.pinning
@quiet
def mse(z: Array, t: Array, w: Array | None, grad: Array) -> float:
    """(z - t)^2."""
    _expect(z, t, w, grad)
    return _mean(_mse, z, t, w, grad)


def _mse(z: Array, t: Array, grad: Array) -> Array:
    d = z - t
    np.add(d, d, out=grad)
    return np.asarray(d * d)


@arrays.pinning
@quiet
def mae(z: Array, t: Array, w: Array | None, grad: Array) -> float:
    """|z - t|, whose derivative is 0 where both are equal."""
    _expect(z, t, w, grad)
    return _mean(_mae, z, t, w, grad)


def _mae(z: Array, t: Array, grad: Array) -> Array:
    d = z - t
    np.sign(d, out=grad)
    return np.asarray(np.abs(d))


@arrays.pinning
@quiet
def huber(z: Array, t: Array, w: Array | None, grad: Array, *, delta: float) -> float:
    """(z - t)^2 / 2 up to delta, delta (|z - t| - delta / 2) beyond."""
    _expect(z, t, w, grad)
    return _mean(partial(_huber, delta=delta), z, t, w, grad)


def _huber(z: Array, t: Array, grad: Array, delta: float) -> Array:
    d = z - t
    np.clip(d, -delta, delta, out=grad)
    # d^2/2 where grad is d, and delta |d| - delta^2/2 where it is +-delta.
    return np.asarray((d - grad * grad.dtype.type(0.5)) * grad)


@arrays.pinning
@quiet
def binary_cross_entropy(z: Array, t: Array, w: Array | None, grad: Array) -> float:
    """log(1 + exp z) - t z; the exponent is never above 0, so nothing overflows."""
    _expect(z, t, w, grad)
    return _mean(_binary_cross_entropy, z, t, w, grad)


def _binary_cross_entropy(z: Array, t: Array, grad: Array) -> Array:
    e = np.exp(-np.abs(z))
    np.divide(np.where(z < 0, e, np.ones_like(e)), e + 1, out=grad)  # sigmoid(z)
    grad -= t
    return np.asarray(np.log1p(e) + np.maximum(z, 0) - z * t)


@arrays.pinning
@quiet
def cross_entropy(z: Array, t: Array, w: Array | None, grad: Array) -> float:
    """log(sum_v exp z_v) - z_t of each row z (..., V), with t (...) of intp.

    The largest logit is subtracted first, so no exp overflows.
    """
    dtype = arrays.real_type(z, "z")
    if z.ndim == 0 or z.size == 0:
        arrays.refuse(z, "z", "an array (..., V) of one number or more")
    V = z.shape[-1]
    arrays.integers(t, "t", z.shape[:-1])
    arrays.like(grad, "grad", z.shape, dtype, out=True)
    _expect_weights(w, t, dtype)
    strays = np.asarray((t < 0) | (t >= V))
    if w is not None:
        strays &= np.reshape(w != 0, (*w.shape, *[1] * (t.ndim - w.ndim)))
    arrays.refuse_strays(strays, t, "target", f"whole numbers in 0..{V - 1}")
    return _mean(_cross_entropy, z, t, w, grad)


def _cross_entropy(z: Array, t: Array, grad: Array) -> Array:
    V = z.shape[-1]
    rows, probs = z.reshape(-1, V), grad.reshape(-1, V)
    np.subtract(rows, rows.max(axis=-1, keepdims=True), out=probs)
    # One index into the flat array for each row: faster than a pair of them.
    chosen = np.arange(0, probs.size, V)
    chosen += t.reshape(-1).clip(0, V - 1)
    flat = probs.reshape(-1)
    terms = -flat[chosen]
    np.exp(probs, out=probs)
    total = probs.sum(axis=-1, keepdims=True)
    terms += np.log(total[:, 0])
    probs /= total
    flat[chosen] -= 1
    return np.asarray(terms)


def _expect(z: Array, t: Array, w: Array | None, grad: Array) -> None:
    """Check the arrays of an elementwise loss."""
    dtype = arrays.real_type(z, "z")
    if z.size == 0:
        arrays.refuse(z, "z", "one number or more")
    arrays.like(t, "t", z.shape, dtype)
    arrays.like(grad, "grad", z.shape, dtype, out=True)
    _expect_weights(w, t, dtype)


def _expect_weights(w: Array | None, t: Array, dtype: np.dtype[np.floating]) -> None:
    """Check weights in the shape of leading axes of `t`."""
    if w is None:
        return
    if not (arrays.is_plain(w, dtype) and w.flags.c_contiguous):
        arrays.refuse(w, "w", f"a C-contiguous {dtype} array")
    if w.shape != t.shape[: w.ndim]:
        arrays.refuse(w, "w", f"the first axes of {t.shape}")


def _mean(
    terms_of: Callable[[Array, Array, Array], Array], z: Array, t: Array, w: Array | None,
    grad: Array,
) -> float:  # fmt: skip
    """Return the (weighted) mean of a loss, and write its gradient."""
    found = _scaled(terms_of(z, t, grad), w, grad)
    if not np.isfinite(found):
        # In wider numbers, in which what overflowed on the way does not.
        z, wide = z.astype(np.longdouble), grad.astype(np.longdouble)
        t = t if t.dtype.kind == "i" else t.astype(np.longdouble)
        w = None if w is None else w.astype(np.longdouble)
        found = _scaled(terms_of(z, t, wide), w, wide)
        # Others keep their bits, whatever is beside them.
        np.copyto(grad, wide.astype(grad.dtype), where=~np.isfinite(grad))
    return found


def _scaled(terms: Array, w: Array | None, grad: Array) -> float:
    """Return the (weighted) mean of `terms`; scale `grad`, with one or more entries for each."""
    if w is None:
        grad *= 1 / terms.size
        return float(np.add.reduce(terms, axis=None, dtype=_sum_type(terms)) / terms.size)
    total = np.add.reduce(w, axis=None, dtype=_sum_type(w)).item()
    if not total:
        grad[...] = 0
        return 0.0
    per_weight = terms.reshape(w.size, -1)
    share = (w / (total * per_weight.shape[1])).astype(w.dtype).reshape(-1, 1)
    rows = grad.reshape(w.size, -1)
    none = w.reshape(-1) == 0
    rows *= share
    rows[none] = 0
    weighted = per_weight * share
    weighted[none] = 0
    return float(np.add.reduce(weighted, axis=None, dtype=_sum_type(w)))


def _sum_type(a: Array) -> np.dtype[Any]:
    return max(a.dtype, np.dtype(np.float64))
