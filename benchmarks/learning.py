"""What the estimators learn with their defaults, three seeds each, and how long it takes.

python benchmarks/learning.py reviews|digits|series [--data FOLDER]

Reviews: rt-polarity (Pang and Lee 2005), a tenth held out; Kim (2014) has 76.1 % with CNN-rand.
Digits: scikit-learn's 8x8, read row by row, a quarter held out.
Series: mean absolute errors on the last fifth, each month or day forecast 12 steps ahead.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from fastrnn.forecast import Forecaster
from fastrnn.text import TextClassifier

SEEDS = (0, 1, 2)
SERIES = {"airline-passengers": 12, "monthly-sunspots": 132, "daily-min-temperatures": 365}


def reviews(data: Path) -> None:
    """Accuracy for another tenth with each seed."""
    lines = [(data / f"rt-polarity.{kind}").read_text().splitlines() for kind in ("neg", "pos")]
    texts, labels = [*lines[0], *lines[1]], np.repeat([0, 1], [len(of) for of in lines])
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(texts))
        held, rest = np.split(order, [len(order) // 10])
        start = time.perf_counter()
        model = TextClassifier(seed=seed).fit([texts[i] for i in rest], labels[rest], verbose=0)
        seconds = time.perf_counter() - start
        accuracy = model.score([texts[i] for i in held], labels[held])
        print(f"reviews, seed {seed}: accuracy {accuracy:.1%}, {seconds:.0f} s", flush=True)


def digits(data: Path) -> None:
    """Accuracy for another quarter with each seed; both directions, dropout 0.2."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from fastrnn.sklearn import SequenceClassifier

    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8)
    for seed in SEEDS:
        train, test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        start = time.perf_counter()
        model = SequenceClassifier(bidirectional=True, dropout=0.2, random_state=seed)
        model.fit(train, y_train)
        seconds = time.perf_counter() - start
        accuracy = model.score(test, y_test)
        print(f"digits, seed {seed}: accuracy {accuracy:.1%}, {seconds:.0f} s", flush=True)


def series(data: Path) -> None:
    """Errors beside those of the naive and the seasonal naive forecast."""
    for name, season in SERIES.items():
        with open(data / f"{name}.csv") as lines:
            values = [float(row[1]) for row in [*csv.reader(lines)][1:]]
        for seed in SEEDS:
            start = time.perf_counter()
            errors = Forecaster(season=season, seed=seed).backtest(values, 12).mae()
            seconds = time.perf_counter() - start
            said = ", ".join(f"{which} {error:.2f}" for which, error in errors.items())
            print(f"{name}, seed {seed}: {said}; {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = {task.__name__: task for task in (reviews, digits, series)}
    parser.add_argument("task", choices=tasks, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    options = parser.parse_args()
    for task in options.task:
        tasks[task](options.data)


if __name__ == "__main__":
    main()
