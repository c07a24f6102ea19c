"""Helpers of the examples: compare and time a hand-written loop and fastrnn, and draw."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

TOLERANCE = 1e-10


def agree(name: str, hand: Iterable[Any], ours: Iterable[Any]) -> None:
    """Print how much arrays differ, relative to the largest entry; exit if it is too much."""
    worst = 0.0
    for a, b in zip(hand, ours, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape:
            raise SystemExit(f"{name}: shapes differ, {a.shape} and {b.shape}")
        worst = max(worst, float(np.abs(a - b).max() / (np.abs(a).max() or 1)))
    print(f"{name}: differ by at most {worst:.1e}")
    if not worst <= TOLERANCE:
        raise SystemExit(f"{name}: expected at most {TOLERANCE:.0e}")


def times(by_hand: Callable[[], Any], ours: Callable[[], Any], repeats: int = 5) -> None:
    """Print the best of several times of both, run in turn."""
    best = [float("inf")] * 2
    for _ in range(repeats):
        for i, call in enumerate((by_hand, ours)):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    hand, fast = best
    print(
        f"time: by hand {hand * 1e3:.2f} ms, fastrnn {fast * 1e3:.2f} ms, ratio {hand / fast:.1f}"
    )


def draw(name: str, plot: Callable[[Any], Any], **options: Any) -> bool:
    """Draw a picture and write it to `name`.png; without matplotlib, return False.

    `plot` takes matplotlib's axes, `options` are theirs. The site shows pictures where they are
    drawn, and no files are written then.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained", subplot_kw=options)
    plot(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    if "sphinx_gallery" not in sys.modules:
        figure.savefig(f"{name}.png")
        print(f"wrote {name}.png")
    return True
