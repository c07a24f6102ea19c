"""Paired timings: two callables in turn, so that a machine's drift hits both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def _calls_for(call: Callable[[], object], seconds: float) -> int:
    """How many calls take about so long."""
    calls = 1
    while True:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        took = time.perf_counter() - start
        if took > seconds / 4:
            return max(1, round(calls * seconds / took))
        calls *= 4


def paired(calls: Sequence[Callable[[], object]], rounds: int, seconds: float) -> list[float]:
    """Median seconds per call of each of `calls`, run in turn.

    Parameters
    ----------
    calls : sequence of callable
    rounds : int
        How often each is timed.
    seconds : float
        How long one timing takes, about.
    """
    counts = [_calls_for(call, seconds) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, count, mine in zip(calls, counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            mine.append((time.perf_counter() - start) / count)
    return [statistics.median(mine) for mine in times]
