"""TextClassifier at its defaults beside tf-idf with logistic regression, on few texts.

python benchmarks/texts.py [--sizes 50,100,200,500,2000] [--draws 5]

Reviews: rt-polarity (Pang and Lee 2005), of which each draw takes texts to train on, and 2,000
others to test on. Toy texts: 8 words, one of which gives the class away, and 40 words that do not;
1,000 to test on. Both models have their defaults, and the same texts. Printed are the mean and the
standard deviation of the accuracies of all draws, and mean seconds of fitting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import fastrnn
from fastrnn.text import TextClassifier

#: Training texts, their labels, test texts and their labels, all as arrays.
Draw = tuple[Any, Any, Any, Any]


def reviews(data: Path) -> Callable[[int, int], Draw]:
    """Return a function of the number of texts and a seed."""
    of_kind = [
        (data / f"rt-polarity.{kind}").read_text(encoding="utf-8").splitlines()
        for kind in ("neg", "pos")
    ]
    texts = np.array([*of_kind[0], *of_kind[1]])
    labels = np.repeat([0, 1], [len(of) for of in of_kind])

    def draw(n: int, seed: int) -> Draw:
        order = np.random.default_rng(seed).permutation(len(texts))
        train, test = order[:n], order[-2000:]
        return texts[train], labels[train], texts[test], labels[test]

    return draw


def toy(n: int, seed: int) -> Draw:
    """Return separable texts."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n + 1000) % 2
    words = np.array([f"w{i}" for i in range(40)])[rng.integers(40, size=(len(labels), 8))]
    words[np.arange(len(labels)), rng.integers(8, size=len(labels))] = np.where(labels, "up", "dn")
    texts = np.array([" ".join(row) for row in words])
    return texts[:n], labels[:n], texts[n:], labels[n:]


def measured(fit: Callable[[Any, Any], Any], draws: list[Draw]) -> str:
    """Return accuracies and seconds of a model, as a cell of the table."""
    accuracies, seconds = [], []
    for texts, labels, test, truth in draws:
        start = time.perf_counter()
        model = fit(texts, labels)
        seconds.append(time.perf_counter() - start)
        accuracies.append(np.mean(model.predict(test) == truth))
    spread = f"{np.mean(accuracies):.3f} ± {np.std(accuracies):.3f}"
    return f"{spread}  {np.mean(seconds):6.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="50,100,200,500,2000")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--unit", default="words")
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    args = parser.parse_args()
    fastrnn.set_num_threads(1)

    def ours(texts: Any, labels: Any) -> Any:
        return TextClassifier(args.unit, cell=args.cell, seed=0).fit(texts, labels, verbose=0)

    def theirs(texts: Any, labels: Any) -> Any:
        return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)

    print(f"{'texts':16}{'fastrnn':>24}{'tf-idf, logistic regression':>32}")
    for name, source in (("reviews", reviews(args.data)), ("toy", toy)):
        for n in map(int, args.sizes.split(",")):
            draws = [source(n, seed) for seed in range(args.draws)]
            print(
                f"{name:8}{n:6}  {measured(ours, draws):>24}{measured(theirs, draws):>32}",
                flush=True,
            )


if __name__ == "__main__":
    main()
