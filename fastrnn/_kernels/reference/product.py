"""The two products of a step, W x and U h, with or without layer normalisation.

U is a matrix (G*H, P), or a vector (G*H,) where the recurrence is elementwise: each unit
of a gate sees only its own state. Layer normalisation (Ba et al. 2016, eq. 4): LN(a) =
gain (a - mean(a)) / sqrt(var(a) + eps), with mean and variance over the units of one row.
Its bias is that of the product. Rows are (..., K).

With the precision "bfloat16" the operands of all matrix products are rounded to bfloat16 first: of
z = round(a) round(W)^T, and of its gradients da = round(dz) round(W) and dW = round(dz)^T round(a),
in which rounding counts as the identity (straight-through: Bengio et al. 2013). All else has the
dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn._kernels.cells import NORM_EPS, MatmulPrecision
from fastrnn._types import Array


class Normed(NamedTuple):
    """Rows of mean 0 and variance 1, and the reciprocal standard deviations, (..., 1)."""

    hat: Array
    rstd: Array


def wide_enough(compute: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """Return what `compute` does, in wider numbers for rows that are not finite in these."""
    found = compute(*arrays)
    if all(np.isfinite(a).all() for a in found):
        return found
    rows = np.logical_or.reduce([~np.isfinite(a).all(axis=-1, keepdims=True) for a in found])
    wide = compute(*(a.astype(np.longdouble) for a in arrays))
    return tuple(np.where(rows, w.astype(a.dtype), a) for w, a in zip(wide, found, strict=True))


def normalise(a: Array, eps: float = NORM_EPS) -> Normed:
    """Return (a - mean) / sqrt(var + eps) of each row."""
    hat, rstd, _variance = wide_enough(lambda a: _normalised(a, eps), a)
    return Normed(hat, rstd)


def _normalised(a: Array, eps: float) -> tuple[Array, ...]:
    d = a - a.mean(axis=-1, keepdims=True)
    variance = np.mean(d * d, axis=-1, keepdims=True)
    rstd = (variance + a.dtype.type(eps)) ** -0.5
    return d * rstd, rstd, variance


def normalise_back(normed: Normed, d: Array) -> Array:
    """Return the gradient of the input of `normalise`, from that of `hat`."""
    return wide_enough(_normalised_back, *normed, d)[0]


def _normalised_back(hat: Array, rstd: Array, d: Array) -> tuple[Array]:
    mean, along = d.mean(axis=-1, keepdims=True), np.mean(d * hat, axis=-1, keepdims=True)
    return (np.asarray(rstd * (d - mean - hat * along)),)


def operand(a: Array, precision: MatmulPrecision) -> Array:
    """Return the operand of a matrix product: `a`, or float32 `a` rounded to bfloat16.

    Rounding is to nearest, ties to even; subnormal numbers become 0, as in the compiled twin.
    """
    if precision == "float32":
        return a
    bits = np.ascontiguousarray(a).view(np.uint32)
    size = bits & 0x7FFFFFFF
    rounded = bits + (0x7FFF + (bits >> 16 & 1))
    # NaN, which must stay one, is cut instead, and made quiet.
    rounded = np.where(size > 0x7F800000, bits | 0x400000, rounded)
    rounded = np.where(size < 0x800000, bits & 0x80000000, rounded)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


class Product(NamedTuple):
    """W a, (..., N), and what its gradients need: `a`, and each group that was normalised."""

    value: Array
    a: Array
    groups: tuple[Normed, ...]
    precision: MatmulPrecision


def product(
    a: Array,
    weight: Array,
    gain: Array | None = None,
    widths: Sequence[int] = (),
    precision: MatmulPrecision = "float32",
) -> Product:
    """Return `weight` times `a` (..., K), normalised in groups of `widths` if there is a `gain`.

    Parameters
    ----------
    weight : (N, K) array, or (N,) for an elementwise product, with N a multiple of K
    precision : {"float32", "bfloat16"}
        Of the operands; an elementwise product has that of the arrays.
    """
    if weight.ndim == 2:
        z = operand(a, precision) @ operand(weight, precision).T
    else:
        z = _repeated(a, weight) * weight
    if gain is None:
        return Product(z, a, (), precision)
    groups = tuple(map(normalise, np.split(z, np.cumsum(widths)[:-1], axis=-1)))
    return Product(_joined(g.hat for g in groups) * gain, a, groups, precision)


def product_back(
    made: Product, dz: Array, weight: Array, gain: Array | None = None
) -> tuple[Array, Array, Array | None]:
    """Return the gradients of `a`, `weight` and `gain`."""
    dgain = None
    if gain is not None:
        hat = _joined(g.hat for g in made.groups)
        dgain = (dz * hat).reshape(-1, len(gain)).sum(axis=0)
        cuts = np.cumsum([g.hat.shape[-1] for g in made.groups])[:-1]
        parts = np.split(dz * gain, cuts, axis=-1)
        dz = _joined(normalise_back(g, d) for g, d in zip(made.groups, parts, strict=True))
    if weight.ndim == 1:
        N, K = len(weight), made.a.shape[-1]
        da = (dz * weight).reshape(*dz.shape[:-1], N // K, K).sum(axis=-2)
        return da, (dz * _repeated(made.a, weight)).reshape(-1, N).sum(axis=0), dgain
    dz, a, weight = (operand(m, made.precision) for m in (dz, made.a, weight))
    rows_dz, rows_a = (m.reshape(-1, m.shape[-1]) for m in (dz, a))
    return dz @ weight, rows_dz.T @ rows_a, dgain


def _repeated(a: Array, weight: Array) -> Array:
    """Return `a` repeated for each gate."""
    gates = len(weight) // a.shape[-1]
    return a if gates == 1 else np.concatenate([a] * gates, axis=-1)


def _joined(parts: Iterable[Array]) -> Array:
    return np.concatenate(list(parts), axis=-1)
