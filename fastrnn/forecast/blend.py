"""Weights of the network and of the naive forecasts, by their errors on held-out values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast.intervals import effective

#: Weights are proportional to the held-out mean squared errors to the power of minus this. 1 is
#: Bates and Granger's (1969); 2 leaves less weight to what is worse.
POWER = 2

#: Mean squared errors are means over this many horizons to either side, as those of one horizon are
#: few and noisy.
SMOOTHING = 2


#: The network's mean squared errors are raised by this many standard errors, as it is to be used
#: only where it is better beyond doubt (the rule of Breiman et al. 1984 has one).
STANDARD_ERRORS = 2.0


def weights(errors: Sequence[Array], strides: Sequence[int]) -> Array:
    """Return weights (J, horizon, K) of J forecasts, the first a network's, which sum to 1 over J.

    Parameters
    ----------
    errors : sequence of (J, B, horizon, K) arrays
        Held-out errors of each series, NaN where they are unknown. At horizons without any, the
        weights are those of the last with some; a forecast without any has weight 0.
    strides : sequence of int
        Time between successive errors of each series.
    """
    squares = _neighbours(np.sum([np.nansum(np.square(e), axis=1) for e in errors], axis=0))
    counts = _neighbours(np.sum([np.isfinite(e).sum(axis=1) for e in errors], axis=0))
    # The variance of a mean of nu squares of normal variates is 2 / nu of its square.
    each = [effective(e[0], stride) for e, stride in zip(errors, strides, strict=True)]
    nu: Array = np.sum(each, axis=0)
    known = counts[0].min(axis=-1) > 0
    last = np.maximum.accumulate(np.where(known & (nu.min(axis=-1) > 0), np.arange(len(known)), 0))
    squares, counts, nu = squares[:, last], counts[:, last], nu[last]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(counts > 0, squares / counts, np.inf)
        means[0] *= 1 + STANDARD_ERRORS * np.sqrt(2 / np.maximum(nu, 1))
        best = means.min(axis=0)
        # Where the best is without error, whatever has none shares the weight.
        worse = np.where(best > 0, means / best, np.where(means > 0, np.inf, 1.0))
        parts = worse**-POWER
    normalised: Array = parts / parts.sum(axis=0)
    return normalised


def _neighbours(sums: Array) -> Array:
    """Return sums (J, horizon, K) over neighbouring horizons."""
    total = np.cumsum(np.pad(sums, ((0, 0), (1, 0), (0, 0))), axis=1)
    h = np.arange(sums.shape[1])
    stop = np.minimum(h + SMOOTHING + 1, len(h))
    result: Array = total[:, stop] - total[:, np.maximum(h - SMOOTHING, 0)]
    return result


def blended(forecasts: Array, weights: Array) -> Array:
    """Return the mean (B, horizon, K) of forecasts (J, B, horizon, K), without those unknown."""
    w = np.where(np.isfinite(forecasts), weights[:, None], 0.0)
    total = w.sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean: Array = (w * np.nan_to_num(forecasts)).sum(axis=0) / total
    return mean
