"""Timings in turn, so that a machine's drift hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from fastrnn._types import Array


@dataclass(frozen=True)
class Contender:
    """Somebody's way to do one piece of work.

    Attributes
    ----------
    call : callable
        Does it once.
    arrays : callable
        What `call` returned, as NumPy arrays by name.
    scope : callable
        Makes the context in which calls run (threads, backend, gradient mode); it is not timed.
    """

    call: Callable[[], Any]
    arrays: Callable[[Any], Mapping[str, Array]] = lambda _: {}
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext

    def results(self, calls: int) -> dict[str, Array]:
        """The arrays, copied, after so many calls."""
        with self.scope():
            for _ in range(calls):
                returned = self.call()
            return {name: np.array(array) for name, array in self.arrays(returned).items()}

    def seconds(self, calls: int) -> float:
        """Seconds per call, over so many calls in a row."""
        with self.scope():
            start = time.perf_counter()
            for _ in repeat(None, calls):
                self.call()
            return (time.perf_counter() - start) / calls

    def calls_for(self, seconds: float) -> int:
        """How many calls take about so long, found after a warm-up."""
        self.seconds(1)  # which may import, compile or pack
        calls = 1
        while True:
            took = self.seconds(calls) * calls
            if took > seconds / 4:
                return max(1, round(calls * seconds / took))
            calls *= 4


def paired(contenders: Sequence[Contender], rounds: int, seconds: float) -> list[float]:
    """Median seconds per call of each contender, run in turn.

    Parameters
    ----------
    contenders : sequence of Contender
    rounds : int
        How often each is timed.
    seconds : float
        How long one timing takes, about.
    """
    counts = [contender.calls_for(seconds) for contender in contenders]
    times = [
        [contender.seconds(calls) for contender, calls in zip(contenders, counts, strict=True)]
        for _ in range(rounds)
    ]
    return [statistics.median(mine) for mine in zip(*times, strict=True)]
