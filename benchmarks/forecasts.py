"""What forecasts promise: the coverage of intervals, and errors beside those of naive forecasts.

python benchmarks/forecasts.py [coverage] [backtests] [--series 500] [--rounds 3] [--kinds season]

Coverage: how many of the values that follow are within intervals of 90 %, at the last step of
forecasts of 1, 12 and 24 steps, and at all of their steps, over `--series` simulated series; one
forecast each. "refused" where the series is too short for such an interval.
Backtests: the mean absolute error over that of the better naive forecast (the last value; with a
season, the last season), on the last fifth, each value forecast 12 steps ahead; with `--rounds`
seeds, which for simulated series are new series too.

Simulated: `season` is a trend, a season of 12 and independent noise; `walk` a random walk; `level`
a wandering level, a season of 12 and noise; `trend` a wandering trend and noise; `ar` an
autoregression with coefficient 0.8.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fastrnn.forecast import Forecaster

LEVEL = 0.9
SIZES = (60, 100, 144, 300, 1000)
HORIZONS = (1, 12, 24)
REAL = {"airline-passengers": 12, "monthly-sunspots": 132, "daily-min-temperatures": 365.25}
#: Values of each series simulated for a backtest.
BACKTESTED = 400


def season(n: int, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(n)
    return 10 + np.sin(2 * np.pi * t / 12) + 0.02 * t + 0.5 * rng.normal(size=n)


def walk(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=n).cumsum()


def level(n: int, rng: np.random.Generator) -> np.ndarray:
    wave = 2 * np.sin(2 * np.pi * np.arange(n) / 12)
    return 0.3 * rng.normal(size=n).cumsum() + wave + 0.5 * rng.normal(size=n)


def trend(n: int, rng: np.random.Generator) -> np.ndarray:
    return (0.05 * rng.normal(size=n)).cumsum().cumsum() + 0.5 * rng.normal(size=n)


def ar(n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=n)
    x[0] /= 0.6  # its stationary deviation is 1 / sqrt(1 - 0.8^2)
    for t in range(1, n):
        x[t] += 0.8 * x[t - 1]
    return x


#: Simulated series, and their seasons.
SIMULATED: dict[str, tuple[Callable[..., np.ndarray], int | None]] = {
    "season": (season, 12),
    "walk": (walk, None),
    "level": (level, 12),
    "trend": (trend, None),
    "ar": (ar, None),
}


def coverage(kinds: list[str], sizes: list[int], first: int, series: int) -> None:
    """Print a line for each kind and size."""
    print(f"coverage of {LEVEL:.0%} intervals, of {series} series: last step (all steps)")
    columns = "".join(f"{f'{h} steps':>16}" for h in HORIZONS)
    print(f"{'series':10}{'values':>8}{columns}{'seconds each':>14}", flush=True)
    for kind in kinds:
        simulate, length = SIMULATED[kind]
        for n in sizes:
            start = time.perf_counter()
            inside: dict[int, list[np.ndarray]] = {h: [] for h in HORIZONS}
            for seed in range(first, first + series):
                x = simulate(n + max(HORIZONS), np.random.default_rng([seed, n]))
                model = Forecaster(season=length, seed=seed).fit(x[:n])
                for h in HORIZONS:
                    try:
                        low, high = model.predict_interval(h, level=LEVEL)
                    except ValueError:
                        continue
                    inside[h].append((low <= x[n : n + h]) & (x[n : n + h] <= high))
            seconds = (time.perf_counter() - start) / series
            cells = [covered(inside[h]) for h in HORIZONS]
            line = "".join(f"{cell:>16}" for cell in cells)
            print(f"{kind:10}{n:8}{line}{seconds:14.2f}", flush=True)


def covered(inside: list[np.ndarray]) -> str:
    if not inside:
        return "refused"
    return f"{np.mean([i[-1] for i in inside]):.1%} ({np.mean(inside):.1%})"


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
                values = simulate(BACKTESTED, np.random.default_rng([seed, BACKTESTED]))
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
    wandering = ["walk", "level", "trend"]
    if options.quick:
        options.series, options.rounds, options.sizes, wandering = 1, 1, [60], ["walk"]
        options.kinds, options.data = ["season"], Path("none")
    if "coverage" in tables:
        coverage(options.kinds, options.sizes, options.first, options.series)
    if "backtests" in tables:
        backtests(options.data, wandering, options.first, options.rounds)


if __name__ == "__main__":
    main()
