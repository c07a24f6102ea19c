"""The comparison of forecasts with the values that followed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fastrnn._types import Array


@dataclasses.dataclass(frozen=True)
class Backtest:
    """N forecasts of `horizon` steps each, beside the values that followed.

    Attributes
    ----------
    origins : (N,) array
        Number of values known to each forecast.
    actual : (N, horizon) or (N, horizon, K) array
    forecasts : dict of str to array
        In the shape of `actual`: ``"forecaster"``, ``"naive"`` and, with a season,
        ``"seasonal naive"``; with several seasons, ``"seasonal naive 7"`` and so on.
    dates : (N, horizon) array, optional
        The times of `actual`, where the series had an index: dates as ``datetime64``, periods as
        objects, or numbers.
    columns : list, optional
        Names of the K series.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecast import Forecaster
    >>> series = np.sin(np.arange(120) * np.pi / 6)
    >>> backtest = Forecaster(season=12, seed=0).backtest(series, horizon=3)
    >>> backtest.actual.shape
    (22, 3)
    >>> sorted(backtest.mae())
    ['forecaster', 'naive', 'seasonal naive']
    """

    origins: Array
    actual: Array
    forecasts: dict[str, Array]
    dates: Array | None = None
    columns: list[Any] | None = None

    def mae(self) -> dict[str, Any]:
        """Return the mean absolute error of each: a float, or (K,) for several series."""
        return {n: np.abs(f - self.actual).mean(axis=(0, 1)) for n, f in self.forecasts.items()}

    def rmse(self) -> dict[str, Any]:
        """Return the root mean squared error of each: a float, or (K,) for several series."""
        return {
            n: np.sqrt(np.square(f - self.actual).mean(axis=(0, 1)))
            for n, f in self.forecasts.items()
        }

    def __str__(self) -> str:
        N, horizon = self.actual.shape[:2]
        mae, rmse = self.mae(), self.rmse()
        rows: list[tuple[str, float, float]] = []
        for name in self.forecasts:
            for k in range(np.size(mae[name])):
                series = f"series {k}" if self.columns is None else self.columns[k]
                label = name if mae[name].ndim == 0 else f"{name}, {series}"
                a, r = (float(np.ravel(of[name])[k]) for of in (mae, rmse))
                rows.append((label, a, r))
        title = f"{N} forecasts, {horizon} steps each"
        width = max(map(len, (title, *(label for label, _, _ in rows))))
        lines = [f"{title:{width}}{'MAE':>12}{'RMSE':>12}"]
        lines += [f"{label:{width}}{a:12.4g}{r:12.4g}" for label, a, r in rows]
        return "\n".join(lines)
