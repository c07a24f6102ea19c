"""The two products of a step, W x and U h, with or without layer normalisation.

U is a matrix (G*H, P), or a vector (G*H,) where the recurrence is elementwise: each unit
of a gate sees only its own state. Layer normalisation (Ba et al. 2016, eq. 4): LN(a) =
gain (a - mean(a)) / sqrt(var(a) + eps), with mean and variance over the units of one row.
Its bias is that of the product. Rows are (..., K).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn._kernels.cells import NORM_EPS
from fastrnn._types import Array


class Normed(NamedTuple):
    """Rows of mean 0 and variance 1, and the reciprocal standard deviations, (..., 1)."""

    hat: Array
    rstd: Array


def normalise(a: Array) -> Normed:
    """Return (a - mean) / sqrt(var + eps) of each row."""
    d = a - a.mean(axis=-1, keepdims=True)
    rstd = (np.mean(d * d, axis=-1, keepdims=True) + a.dtype.type(NORM_EPS)) ** -0.5
    return Normed(d * rstd, rstd)


def normalise_back(normed: Normed, d: Array) -> Array:
    """Return the gradient of the input of `normalise`, from that of `hat`."""
    hat, rstd = normed
    mean, along = d.mean(axis=-1, keepdims=True), np.mean(d * hat, axis=-1, keepdims=True)
    back: Array = rstd * (d - mean - hat * along)
    return back


class Product(NamedTuple):
    """W a, (..., N), and what its gradients need: `a`, and each group that was normalised."""

    value: Array
    a: Array
    groups: tuple[Normed, ...]


def product(
    a: Array, weight: Array, gain: Array | None = None, widths: Sequence[int] = ()
) -> Product:
    """Return `weight` times `a` (..., K), normalised in groups of `widths` if there is a `gain`.

    Parameters
    ----------
    weight : (N, K) array, or (N,) for an elementwise product, with N a multiple of K
    """
    z = a @ weight.T if weight.ndim == 2 else _repeated(a, weight) * weight
    if gain is None:
        return Product(z, a, ())
    groups = tuple(map(normalise, np.split(z, np.cumsum(widths)[:-1], axis=-1)))
    return Product(_joined(g.hat for g in groups) * gain, a, groups)


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
    rows_dz, rows_a = (m.reshape(-1, m.shape[-1]) for m in (dz, made.a))
    return dz @ weight, rows_dz.T @ rows_a, dgain


def _repeated(a: Array, weight: Array) -> Array:
    """Return `a` repeated for each gate."""
    gates = len(weight) // a.shape[-1]
    return a if gates == 1 else np.concatenate([a] * gates, axis=-1)


def _joined(parts: Iterable[Array]) -> Array:
    return np.concatenate(list(parts), axis=-1)
