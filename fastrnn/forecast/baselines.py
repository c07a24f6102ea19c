"""Naive forecasts: the last value, or that of the same time in the last season."""

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
    h = np.arange(horizon)
    said = [np.repeat(values[origins - 1, None], horizon, axis=1)]
    for season in seasons:
        # As many seasons back as it takes to be known at the origin.
        back = np.ceil((h + 1) / season)
        fewer = np.rint(season * (back - 1))
        lag = np.where(fewer > h, fewer, np.rint(season * back)).astype(np.intp)
        at = origins[:, None] + h - lag
        before = values[np.maximum(at, 0)]
        said.append(np.where((at >= 0)[..., None], before, np.nan))
    return said
