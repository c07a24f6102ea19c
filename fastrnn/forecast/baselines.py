"""Forecasts without a model: by the last value or season, the changes in it, or the mean."""

from __future__ import annotations

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast.seasons import label


def names(seasons: tuple[float, ...]) -> list[str]:
    """Return what they are called, in the order of :func:`forecasts`."""
    if len(seasons) == 1:
        return ["naive", "seasonal naive"]
    return ["naive", *(f"seasonal naive {label(season)}" for season in seasons)]


def forecasts(
    values: Array, origins: Array, horizon: int, seasons: tuple[float, ...]
) -> list[Array]:
    """Return naive forecasts (B, horizon, K) of values (n, K) from origins (B,).

    Where there is no value a season before, they are NaN.
    """
    at = origins[:, None] + np.arange(horizon)
    last = np.repeat(values[origins - 1, None], horizon, axis=1)
    return [last, *(_before(values, at - _lags(horizon, season)) for season in seasons)]


def means(values: Array, origins: Array, horizon: int, window: int) -> Array:
    """Return forecasts (B, horizon, K) by the mean of the last `window` values before origins."""
    mean = values[origins[:, None] + np.arange(-window, 0)].mean(axis=1, keepdims=True)
    return np.repeat(mean, horizon, axis=1)


def change_names(seasons: tuple[float, ...]) -> list[str]:
    """Return what they are called, in the order of :func:`changes`."""
    return [name.replace("naive", "change") for name in names(seasons)[1:]]


def changes(values: Array, origins: Array, horizon: int, seasons: tuple[float, ...]) -> list[Array]:
    """Return forecasts (B, horizon, K) by the change over as many steps a season before.

    They start from the last value, and so keep a level or a trend that the last season did not
    have: the forecasts of an ARIMA(0, 1, 0)(0, 1, 0) model for up to a season ahead.
    """
    last, said = values[origins - 1, None], []
    for season in seasons:
        lags = _lags(horizon, season)
        then = _before(values, origins[:, None] + np.arange(horizon) - lags)
        said.append(last + then - _before(values, origins[:, None] - 1 - lags))
    return said


def _lags(horizon: int, season: float) -> Array:
    """Return as many seasons as it takes to be known at the origin, in whole steps (horizon,)."""
    h = np.arange(horizon)
    back = np.ceil((h + 1) / season)
    fewer = np.rint(season * (back - 1))
    lags: Array = np.where(fewer > h, fewer, np.rint(season * back)).astype(np.intp)
    return lags


def _before(values: Array, at: Array) -> Array:
    """Return values (n, K) at some times, NaN before the first."""
    before: Array = np.where((at >= 0)[..., None], values[np.maximum(at, 0)], np.nan)
    return before
