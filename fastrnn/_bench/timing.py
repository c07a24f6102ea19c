"""Interleaved timings, so that a machine's drift affects all contenders alike."""

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
    """A way to do a piece of work.

    Attributes
    ----------
    call : callable
        Does the work once.
    arrays : callable
        Converts the result of `call` to NumPy arrays by name.
    scope : callable
        Makes the context of the calls (threads, backend, gradient mode); it is not timed.
    error : float
        Largest difference of its results from the truth; NaN until they are compared.
    """

    call: Callable[[], Any]
    arrays: Callable[[Any], Mapping[str, Array]] = lambda _: {}
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext
    error: float = float("nan")

    def results(self, calls: int) -> dict[str, Array]:
        """Return copies of the arrays after `calls` calls."""
        with self.scope():
            for _ in range(calls):
                returned = self.call()
            return {name: np.array(array) for name, array in self.arrays(returned).items()}

    def seconds(self, calls: int) -> float:
        """Return the seconds per call, over `calls` consecutive calls."""
        with self.scope():
            start = time.perf_counter()
            for _ in repeat(None, calls):
                self.call()
            return (time.perf_counter() - start) / calls

    def calls_for(self, seconds: float) -> int:
        """Return the number of calls that take about `seconds`, after a warm-up."""
        self.seconds(1)  # a first call may import, compile or pack
        calls = 1
        while True:
            took = self.seconds(calls) * calls
            if took > seconds / 4:
                return max(1, round(calls * seconds / took))
            calls *= 4


def paired(contenders: Sequence[Contender], rounds: int, seconds: float) -> list[float]:
    """Return the median seconds per call of each contender, timed in turn.

    Parameters
    ----------
    contenders : sequence of Contender
    rounds : int
        Number of timings of each.
    seconds : float
        Approximate duration of one timing.
    """
    counts = [contender.calls_for(seconds) for contender in contenders]
    times = [
        [contender.seconds(calls) for contender, calls in zip(contenders, counts, strict=True)]
        for _ in range(rounds)
    ]
    return [statistics.median(mine) for mine in zip(*times, strict=True)]
