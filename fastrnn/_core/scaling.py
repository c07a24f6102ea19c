"""Mean and deviation of data, by which models scale them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastrnn._types import Array

#: Squares and sums of numbers of up to two to this power neither overflow nor vanish.
_SAFE = 256

#: Numbers that are centred at a time: 8 MB of them.
_PART = 1 << 20


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
    # Not np.abs(rows): a copy of data that memory may not hold twice.
    most = np.maximum(rows.max(axis=0), -rows.min(axis=0))
    _, exponent = np.frexp(most.astype(np.float64))
    exponent[np.abs(exponent) < _SAFE] = 0
    if exponent.any():
        rows = np.ldexp(rows.astype(np.float64), -exponent)
    share = None if weight is None else weight / weight.max()

    def average(of: Callable[[Array], Array]) -> Array:
        """Return the mean of a function of the rows, of which some are in memory at a time."""
        total = np.zeros(rows.shape[1])
        step = max(1, _PART // rows.shape[1])
        for part in (slice(start, start + step) for start in range(0, n, step)):
            # Not share @ values: the order of BLAS depends on the CPU.
            values = of(rows[part]) if share is None else share[part, None] * of(rows[part])
            total += values.sum(axis=0, dtype=np.float64)
        return total / (n if share is None else share.sum())

    first = average(lambda rows: rows)
    shift = average(lambda rows: rows - first)
    variance = average(lambda rows: (rows - first) ** 2) - shift**2
    mean = first + shift
    constant = variance <= n * eps * variance + (n * eps * mean) ** 2
    deviation = np.where(constant, 1.0, np.ldexp(np.sqrt(variance.clip(0)), exponent))
    return np.ldexp(mean, exponent), deviation
