"""Mean and deviation of data, by which models scale them."""

from __future__ import annotations

import numpy as np

from fastrnn._types import Array

#: Squares and sums of numbers of up to two to this power neither overflow nor vanish.
_SAFE = 256


def mean_and_deviation(rows: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column; 1 where a column is constant.

    A column is constant if its variance may be a rounding error of the corrected two-pass
    algorithm: if it is at most n eps var + (n eps mean)^2 (Chan, Golub and LeVeque 1983, and
    ``sklearn.preprocessing.StandardScaler``).

    Parameters
    ----------
    rows : (n, F) array
        Finite.
    weight : (n,) array, optional
        Of each row, > 0.

    Returns
    -------
    mean, deviation : (F,) arrays of float64
    """
    n, eps = len(rows), np.finfo(np.float64).eps
    _, exponent = np.frexp(np.abs(rows).max(axis=0).astype(np.float64))
    exponent[np.abs(exponent) < _SAFE] = 0
    if exponent.any():
        rows = np.ldexp(rows.astype(np.float64), -exponent)
    share = None if weight is None else weight / weight.max()

    def average(values: Array) -> Array:
        if share is None:
            return np.asarray(values.mean(axis=0, dtype=np.float64))
        # Not share @ values: the order of BLAS depends on the CPU.
        return np.asarray((share[:, None] * values).sum(axis=0) / share.sum())

    mean = average(rows)
    centred = rows - mean
    shift = average(centred)
    mean = mean + shift
    variance = average(np.square(centred, out=centred)) - shift**2
    constant = variance <= n * eps * variance + (n * eps * mean) ** 2
    deviation = np.where(constant, 1.0, np.ldexp(np.sqrt(variance.clip(0)), exponent))
    return np.ldexp(mean, exponent), deviation
