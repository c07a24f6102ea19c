"""Half-widths of intervals from held-out errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from fastrnn._types import Array

#: Fewer than this many independent residuals are taken for as many: an estimate of how few there
#: are rests on them too.
LEAST = 2.0


def needed(level: float) -> int:
    """Return the number of residuals without which there is no interval of this level.

    The largest of k exceeds another one with probability k / (k + 1).
    """
    return math.ceil(round(level / (1 - level), 9))


def half_width(residuals: Sequence[Array], level: float, reach: Sequence[int]) -> float:
    """Return the half-width of an interval.

    It is the conformal quantile: of k + 1 exchangeable absolute residuals, the new one is at most
    the one of rank ``level * (k + 1)`` with probability `level` (Vovk et al. 2005; Lei et al.
    2018). Ranks that are not whole are interpolated.

    Residuals of overlapping forecasts are not exchangeable: they resemble their neighbours, so that
    k of them tell as much about their size as nu independent ones do,
    ``nu = k / (1 + 2 sum_l rho_l^2)`` with autocorrelations rho_l about 0 (Bayley and Hammersley
    1946, for the variance of normal variates). The quantile is widened by the ratio of those of
    Student's t with nu and with k degrees of freedom.

    Parameters
    ----------
    residuals : sequence of (k,) arrays
        Of each series, in order of time.
    level : float
    reach : sequence of int
        The lags up to which those of each series may be correlated: forecasts of h steps overlap
        up to lag h - 1.
    """
    ordered = np.sort(np.abs(np.concatenate(residuals)))
    k = len(ordered)
    nu = max(sum(effective(r, lags) for r, lags in zip(residuals, reach, strict=True)), LEAST)
    quantile = np.interp(level * (k + 1), np.arange(1, k + 1), ordered)
    return float(quantile * student(nu, level) / student(k, level))


def effective(residuals: Array, reach: int) -> float:
    """Return the number of independent residuals that tell as much about their variance."""
    k = len(residuals)
    power = float(residuals @ residuals)
    if power == 0:
        return float(k)
    total = 1.0
    for lag in range(1, min(reach, k)):
        rho = float(residuals[lag:] @ residuals[:-lag]) / power * k / (k - lag)
        # The square of a correlation of k independent ones is 1 / k on average.
        total += 2 * max(rho * rho - 1 / k, 0.0) * (1 - lag / k)
    return k / total


def student(nu: float, level: float) -> float:
    """Return the bound that Student's t exceeds in size with probability 1 - level.

    Wallace's (1959) approximation: 2 % from the truth at nu = 2, and nearer above.
    """
    z = NormalDist().inv_cdf((1 + level) / 2) * (8 * nu + 3) / (8 * nu + 1)
    return math.sqrt(nu * math.expm1(min(z * z / nu, 700.0)))
