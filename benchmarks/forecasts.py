"""What forecasts promise: the coverage of intervals, and errors beside those of naive forecasts.

python benchmarks/forecasts.py [coverage] [backtests] [--series 500] [--rounds 3] [--kinds season]

Coverage: the probability, in percent, with which values that follow are within intervals of 90 %,
over `--series` simulated series and one forecast of each, for forecasts of 1, 12 and 24 steps: at
the last step, and at all of them. It is known from how the series are simulated; and, third, how
many of the values simulated are within the last interval, which chance moves by 1.3 points (one
standard error) with 500 series. "refused" where the series is too short for such an interval.
Backtests: the mean absolute error over that of the better naive forecast (the last value; with a
season, the last season), on the last fifth, each value forecast 12 steps ahead; with `--rounds`
seeds, which for simulated series are new series too.

Simulated: `season` is a trend, a season of 12 and independent noise; `walk` a random walk; `level`
a wandering level, a season of 12 and noise; `trend` a wandering trend and noise; `ar` an
autoregression with coefficient 0.8; `noise` independent noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from fastrnn.forecast import Forecaster

LEVEL = 0.9
SIZES = (60, 100, 144, 300, 1000)
HORIZONS = (1, 12, 24)
REAL = {"airline-passengers": 12, "monthly-sunspots": 132, "daily-min-temperatures": 365.25}
#: Values of each series simulated for a backtest.
BACKTESTED = 400


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Values, and the means and standard deviations of those that follow, given these (normal)."""

    values: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    follow: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, mean: np.ndarray, variance: np.ndarray | float) -> Simulated:
        """Return the last of values as those that follow, with their means and variances."""
        n = len(values) - len(mean)
        deviation = np.sqrt(np.broadcast_to(variance, mean.shape))
        return cls(values[:n], mean, deviation, values[n:])

    def covered(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Return the probability with which each of the values that follow is between bounds."""
        z = (np.stack([low, high]) - self.mean[: len(low)]) / self.deviation[: len(low)]
        below = np.vectorize(NormalDist().cdf)(z)
        return below[1] - below[0]


def season(n: int, more: int, rng: np.random.Generator) -> Simulated:
    t = np.arange(n + more)
    mean = 10 + np.sin(2 * np.pi * t / 12) + 0.02 * t
    return Simulated.of(mean + 0.5 * rng.normal(size=n + more), mean[n:], 0.5**2)


def walk(n: int, more: int, rng: np.random.Generator) -> Simulated:
    x = rng.normal(size=n + more).cumsum()
    return Simulated.of(x, np.full(more, x[n - 1]), np.arange(1, more + 1))


def level(n: int, more: int, rng: np.random.Generator) -> Simulated:
    wave = 2 * np.sin(2 * np.pi * np.arange(n + more) / 12)
    wandering = 0.3 * rng.normal(size=n + more).cumsum()
    x = wandering + wave + 0.5 * rng.normal(size=n + more)
    variance = 0.3**2 * np.arange(1, more + 1) + 0.5**2
    return Simulated.of(x, wandering[n - 1] + wave[n:], variance)


def trend(n: int, more: int, rng: np.random.Generator) -> Simulated:
    slope = (0.05 * rng.normal(size=n + more)).cumsum()
    wandering, h = slope.cumsum(), np.arange(1, more + 1)
    x = wandering + 0.5 * rng.normal(size=n + more)
    variance = 0.05**2 * np.square(h).cumsum() + 0.5**2
    return Simulated.of(x, wandering[n - 1] + h * slope[n - 1], variance)


def ar(n: int, more: int, rng: np.random.Generator) -> Simulated:
    x = rng.normal(size=n + more)
    x[0] /= 0.6  # its stationary deviation is 1 / sqrt(1 - 0.8^2)
    for t in range(1, n + more):
        x[t] += 0.8 * x[t - 1]
    left = 0.8 ** np.arange(1, more + 1)
    return Simulated.of(x, left * x[n - 1], (1 - np.square(left)) / 0.36)


def noise(n: int, more: int, rng: np.random.Generator) -> Simulated:
    return Simulated.of(rng.normal(size=n + more), np.zeros(more), 1.0)


#: Simulated series, and their seasons.
SIMULATED: dict[str, tuple[Callable[..., Simulated], int | None]] = {
    "season": (season, 12),
    "walk": (walk, None),
    "level": (level, 12),
    "trend": (trend, None),
    "ar": (ar, None),
    "noise": (noise, None),
}


def coverage(kinds: list[str], sizes: list[int], first: int, series: int) -> None:
    """Print a line for each kind and size."""
    print(f"coverage of {LEVEL:.0%} intervals, {series} series: last step, all steps, last counted")
    columns = "".join(f"{f'{h} steps':>20}" for h in HORIZONS)
    print(f"{'series':10}{'values':>8}{columns}{'seconds each':>14}", flush=True)
    for kind in kinds:
        simulate, length = SIMULATED[kind]
        for n in sizes:
            start = time.perf_counter()
            found: dict[int, list[tuple[float, float, bool]]] = {h: [] for h in HORIZONS}
            for seed in range(first, first + series):
                x = simulate(n, max(HORIZONS), np.random.default_rng([seed, n]))
                model = Forecaster(season=length, seed=seed).fit(x.values)
                for h in HORIZONS:
                    try:
                        low, high = model.predict_interval(h, level=LEVEL)
                    except ValueError:
                        continue
                    p = x.covered(low, high)
                    counted = low[-1] <= x.follow[h - 1] <= high[-1]
                    found[h].append((p[-1], p.mean(), counted))
            seconds = (time.perf_counter() - start) / series
            cells = [shown(found[h]) for h in HORIZONS]
            line = "".join(f"{cell:>20}" for cell in cells)
            print(f"{kind:10}{n:8}{line}{seconds:14.2f}", flush=True)


def shown(found: list[tuple[float, float, bool]]) -> str:
    if not found:
        return "refused"
    return " ".join(f"{100 * p:.1f}" for p in np.mean(found, axis=0))


def backtests(data: Path, kinds: list[str], first: int, rounds: int) -> None:
    """Print a line for each series."""
    print(f"\n{'series':26}" + "".join(f"{name:>12}" for name in ("forecaster", "naive", "ratio")))
    for name in [*(name for name in REAL if (data / f"{name}.csv").exists()), *kinds]:
        for seed in range(first, first + rounds):
            if name in REAL:
                values = pd.read_csv(data / f"{name}.csv").iloc[:, 1].to_numpy(float)
                length: float | None = REAL[name]
            else:
                simulate, length = SIMULATED[name]
                values = simulate(BACKTESTED, 0, np.random.default_rng([seed, BACKTESTED])).values
            start = time.perf_counter()
            errors = Forecaster(season=length, seed=seed).backtest(values, 12).mae()
            seconds = time.perf_counter() - start
            ours = errors.pop("forecaster")
            naive = min(errors.values())
            print(
                f"{f'{name}, seed {seed}':26}{ours:12.4g}{naive:12.4g}{ours / naive:12.3f}"
                f"  {seconds:.1f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help="coverage, backtests (default: both)")
    parser.add_argument("--series", type=int, default=500, help="simulated for each coverage")
    parser.add_argument("--rounds", type=int, default=3, help="seeds of each backtest")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--kinds", nargs="+", choices=SIMULATED, default=["season", "walk", "level"]
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[*SIZES])
    parser.add_argument("--quick", action="store_true", help="one short series of each")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    options = parser.parse_args()
    tables = options.tables or ["coverage", "backtests"]
    if not {*tables} <= {"coverage", "backtests"}:
        parser.error(f"expected coverage, backtests, got {' '.join(tables)}")
    backtested = ["walk", "level", "trend", "noise"]
    if options.quick:
        options.series, options.rounds, options.sizes, backtested = 1, 1, [60], ["walk"]
        options.kinds, options.data = ["season"], Path("none")
    if "coverage" in tables:
        coverage(options.kinds, options.sizes, options.first, options.series)
    if "backtests" in tables:
        backtests(options.data, backtested, options.first, options.rounds)


if __name__ == "__main__":
    main()
