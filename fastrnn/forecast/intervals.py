"""Half-widths of intervals from held-out errors."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast import lags

#: Fewer than this many independent residuals are taken for as many: an estimate of how few there
#: are rests on them too.
LEAST = 2.0


def needed(level: float) -> int:
    """Return the number of residuals without which there is no interval of this level.

    The largest of k exceeds another one with probability k / (k + 1).
    """
    return math.ceil(round(level / (1 - level), 9))


def half_width(residuals: Array, independent: float, level: float) -> float:
    """Return the half-width of an interval.

    It is the conformal quantile: of k + 1 exchangeable absolute residuals, the new one is at most
    the one of rank ``level * (k + 1)`` with probability `level` (Vovk et al. 2005; Lei et al.
    2018). Ranks that are not whole are interpolated.

    Residuals of overlapping forecasts are not exchangeable: they resemble their neighbours, so that
    k of them tell as much about their size as fewer independent ones do (:func:`effective`). The
    quantile is widened by the ratio of those of Student's t with as many degrees of freedom and
    with k.

    Parameters
    ----------
    residuals : (k,) array
    independent : float
        How many independent residuals they are worth.
    level : float
    """
    k = len(residuals)
    quantile = np.interp(level * (k + 1), np.arange(1, k + 1), np.sort(np.abs(residuals)))
    wider = student(max(independent, LEAST), level) / student(k, level)
    return float(quantile * max(wider, 1.0))


def effective(residuals: Array, stride: int) -> Array:
    """Return how many independent residuals tell as much about their variance.

    It is ``nu = k / (1 + 2 sum_l (1 - l / k) rho_l^2)`` with autocorrelations rho_l about 0 (Bayley
    and Hammersley 1946, for normal variates), over the lags at which
    they may be correlated.

    Parameters
    ----------
    residuals : (B, horizon, K) array
        In order of time. The last of each horizon may be NaN: they are not known yet.
    stride : int
        Time between successive ones.

    Returns
    -------
    (horizon, K) array
    """
    k = np.isfinite(residuals).sum(axis=0).astype(np.float64)
    products = lags.products(np.nan_to_num(residuals))
    at = np.arange(len(residuals))[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = products / products[0] * k / (k - at)
        # Up to the first that is not more than chance: two standard errors of no correlation.
        alike = np.logical_and.accumulate((at == 0) | (rho > 2 / np.sqrt(k)))
        more = np.square(rho) * (1 - at / k)
    reach = lags.reach(residuals.shape[1], stride)
    counted = alike & (at > 0) & (at < reach) & (at < k)
    nu: Array = k / (1 + 2 * np.where(counted, more, 0.0).sum(axis=0))
    return nu


def student(nu: float, level: float) -> float:
    """Return the bound that Student's t exceeds in size with probability 1 - level.

    Wallace's (1959) approximation: within 5 % at nu = 2, and nearer above.
    """
    z = NormalDist().inv_cdf((1 + level) / 2) * (8 * nu + 3) / (8 * nu + 1)
    return math.sqrt(nu * math.expm1(min(z * z / nu, 700.0)))
