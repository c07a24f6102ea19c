"""Helpers of the examples: compare and time a hand-written loop and fastrnn."""

from __future__ import annotations

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
