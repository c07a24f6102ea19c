"""Weights of the network, the mean and the naive forecasts, by their errors on held-out values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast import lags
from fastrnn.forecast.intervals import student

#: The network and the mean of the last values come first, and give way to the others.
DOUBTED = 2

#: They have all the weight where one is better than the best of the others at this confidence. 0.95
#: is not enough for random walks: over a short past, one that happened to return to its mean looks
#: like a series that reverts to it.
CONFIDENCE = 0.99

#: With fewer held-out errors it has none.
_LEAST = 10

#: Weights are proportional to the inverse of mean squared errors (Bates and Granger 1969) to this
#: power, which leaves less to what is worse.
_POWER = 3

#: Errors at one horizon are few and noisy: statistics are averaged over this many horizons to
#: either side.
SMOOTHING = 2

#: The approximation of Student's t is not good for fewer degrees of freedom.
_LEAST_FREEDOM = 1.5

#: Long-run variances of errors are estimated as at least this part of their variance, as sums of
#: sample autocovariances may be negative.
_LEAST_VARIANCE = 0.2


def weights(errors: Sequence[Array], strides: Sequence[int], part: float = 1.0) -> Array:
    """Return weights (J, horizon, K) of J forecasts, which sum to 1 over J.

    The confidence in the network, and in the mean, is the square of the standard errors by which it
    is better than the best naive forecast, as a part of those that :data:`CONFIDENCE` takes. The
    greater is the weight of both, of which each has a part in proportion to its confidence and to
    the inverse cube of its mean squared error; those of naive forecasts are in proportion to the
    latter alone.

    What the last value tells gets less with each step, and so do the errors that show it: the
    confidence in the mean at one step is kept further ahead, as long as it is better.

    Parameters
    ----------
    errors : sequence of (J, B, horizon, K) arrays
        Held-out errors of each series, the first :data:`DOUBTED` of the network and the mean, the
        others of naive forecasts; NaN where they are unknown. At horizons with too few, the
        weights are those of the last with enough; a forecast without any has weight 0.
    strides : sequence of int
        Time between successive errors of each series.
    part : float
        The part that these are of all errors, by which weights are to be told: as many would be
        surer.
    """
    squares = [np.square(e) for e in errors]
    sums = _neighbours(np.sum([np.nansum(s, axis=1) for s in squares], axis=0))
    counts = _neighbours(np.sum([np.isfinite(s).sum(axis=1) for s in squares], axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(counts > 0, sums / counts, np.inf)
    naive = means[DOUBTED:]
    best = DOUBTED + naive.argmin(axis=0)
    tests = [significance(squares, strides, one, best, part) for one in range(DOUBTED)]
    sure = np.square(np.clip([better for better, _ in tests], 0, 1))
    sure[1] = np.where(means[1] < naive.min(axis=0), np.maximum.accumulate(sure[1]), 0)
    shares = _shares(means[:DOUBTED], sure) * sure.max(axis=0)
    parts = np.concatenate([shares, _shares(naive) * (1 - shares.sum(axis=0))])
    enough = tests[0][1]
    known = enough if enough.any() else counts[0].min(axis=-1) > 0
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))
    filled: Array = parts[:, last]
    return filled


def _shares(means: Array, sure: float | Array = 1.0) -> Array:
    """Return shares by mean squared errors (J, ...), which sum to 1, and by how sure each is."""
    best = means.min(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where the best is without error, whatever has none shares the weight.
        worse = np.where(best > 0, means / best, np.where(means > 0, np.inf, 1.0))
    parts = sure * worse**-_POWER
    total = parts.sum(axis=0)
    shares: Array = parts / np.where(total > 0, total, 1)
    return shares


def significance(
    squares: Sequence[Array], strides: Sequence[int], one: int, other: Array, part: float
) -> tuple[Array, Array]:
    """Return how surely one is better than another, 1 being enough, and where that is known.

    It is the statistic of Diebold and Mariano (1995), the mean difference of squared errors divided
    by its standard error, which allows for their autocorrelation (Newey and West 1987); as a part
    of Student's t, with as many degrees of freedom as forecasts that do not overlap leave.

    Parameters
    ----------
    squares : sequence of (J, B, horizon, K) arrays
        Squared errors of each series.
    strides : sequence of int
    one : int
    other : (horizon, K) array
        Which of the J to compare with.
    part : float
        As in :func:`weights`.

    Returns
    -------
    better : (horizon, K) array
    enough : (horizon,) array of bool
        Where there are enough errors; `better` is 0 elsewhere.
    """
    total, variance, count, apart = np.zeros((4, *other.shape))
    overlap = np.arange(1, len(other) + 1)[:, None]
    for s, stride in zip(squares, strides, strict=True):
        difference = np.take_along_axis(s, other[None, None], axis=0)[0] - s[one]
        k = np.isfinite(difference).sum(axis=0)
        mean = np.nansum(difference, axis=0) / np.maximum(k, 1)
        products = lags.products(np.nan_to_num(difference - mean))
        at = np.arange(len(products))[:, None, None]
        bartlett = np.clip(1 - at / lags.reach(len(other), stride), 0, None)
        long_run = 2 * (bartlett * products).sum(axis=0) - products[0]
        total += k * mean
        variance += np.maximum(long_run, _LEAST_VARIANCE * products[0])
        count += k
        apart += k * stride / overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(total == 0, 0.0, np.clip(total / np.sqrt(variance * part), -99, 99))
    enough = count.min(axis=-1) >= _LEAST
    t /= _students(apart / part - 1)
    sums = _neighbours(np.where(enough[:, None], t, 0.0)[None])[0]
    around = np.maximum(_neighbours(1.0 * enough[None, :, None])[0], 1)
    return np.where(enough[:, None], sums / around, 0.0), enough


def _students(freedom: Array) -> Array:
    """Return the bounds of Student's t at the level of confidence."""
    bounds = [student(max(nu, _LEAST_FREEDOM), CONFIDENCE) for nu in freedom.ravel().tolist()]
    return np.reshape(bounds, freedom.shape)


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
