"""Overhead of calls in nanoseconds, without their arithmetic: float32, medians, calls in turn.

python benchmarks/overheads.py

Layers have one input and one unit, so that a call is nothing but overhead. Differences are between
calls timed in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import limits
import numpy as np

import fastrnn
from fastrnn._bench import report
from fastrnn._bench.timing import Contender, paired
from fastrnn._core.config import available_cpus

Calls = Mapping[str, Callable[[], Any]]
#: Bytes of a piece of memory that displaces all others which the kernels keep: a little less than
#: SPARE_BYTES of memory.pxi.
_LARGE = 28 * 2**20
#: More bytes than any cache holds.
_COLD = 64 * 2**20


class Clock:
    """Medians over rounds of a given duration."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds

    def nanoseconds(self, calls: Calls) -> list[float]:
        """Return nanoseconds per call of each, timed in turn."""
        contenders = [Contender(call) for call in calls.values()]
        return [s * 1e9 for s in paired(contenders, self.rounds, self.seconds)]

    def alone(self, call: Callable[[], float], before: Callable[[], Any]) -> float:
        """Return the median of the times that `call` returns, with `before` called before each."""
        times = []
        for _ in range(self.rounds):
            before()
            times.append(call())
        return statistics.median(times)


def tiny() -> Calls:
    """Return calls on a single number."""
    lstm = fastrnn.LSTM(1, 1, seed=0)
    x, x_t, y = (np.ones(shape, np.float32) for shape in ((1, 1, 1), (1, 1), (1, 1)))
    stream, (_, state, tape) = lstm.stream(), lstm.forward(x)
    layers = [fastrnn.LSTM(1, 1, return_sequences=False), fastrnn.Linear(1, 1)]
    model = fastrnn.Sequential(layers, seed=0)
    model_stream = fastrnn.Sequential([fastrnn.LSTM(1, 1), fastrnn.Linear(1, 1)], seed=0).stream()
    params = {name: np.ones(1, np.float32) for name in ("weight", "bias")}
    grads = {name: np.ones(1, np.float32) for name in params}
    adam = fastrnn.optim.Adam()
    return {
        "LSTM: stream.step(x, out=y)": partial(stream.step, x_t, y),
        "LSTM: layer(x) of a step": partial(lstm, x),
        "LSTM: layer(x, state) of a step": partial(lstm, x, state),
        "LSTM: layer.forward(x) of a step": partial(lstm.forward, x),
        "LSTM: layer.backward(tape, dy) of a step": partial(lstm.backward, tape, x),
        "LSTM and Linear: stream.step(x)": partial(model_stream.step, x_t),
        "LSTM and Linear: predict(x)": partial(model.predict, x),
        "Adam: step of two arrays": partial(adam.step, params, grads),
        "mse.value_and_grad(y, target)": partial(fastrnn.losses.mse.value_and_grad, y, x_t),
    }


def weights(I: int, H: int, clock: Clock) -> Iterator[tuple[str, float]]:
    """Yield what weights that changed, or may have changed, cost the next call."""
    x = np.ones((1, 1, I), np.float32)
    settled, held, changed = (fastrnn.LSTM(I, H, seed=0) for _ in range(3))
    others, weight = held.parameters(), changed.parameters()["weight_ih_l0"]

    def training(layer: fastrnn.LSTM) -> Any:
        y, _, tape = layer.forward(x)
        return layer.backward(tape, y)

    def change() -> fastrnn.LSTM:
        weight[0, 0] = -weight[0, 0]
        return changed

    for what, run in (("call", lambda layer: layer(x)), ("forward and backward", training)):
        plain, compared, packed = clock.nanoseconds(
            {
                "plain": lambda run=run: run(settled),
                "compared": lambda run=run: run(held),
                "packed": lambda run=run: run(change()),
            }
        )
        if what == "call":
            yield f"LSTM({I}, {H}): {what}, weights held elsewhere are compared", compared - plain
        yield f"LSTM({I}, {H}): {what}, changed weights are packed", packed - compared
    del others


def pages(clock: Clock, B: int) -> Iterator[tuple[str, float]]:
    """Yield training times with memory that the kernels kept, and with fresh memory."""
    layer, x = fastrnn.LSTM(32, 32, seed=0), np.ones((100, B, 32), np.float32)
    large, trim = fastrnn.LSTM(1, 64, seed=0), getattr(ctypes.CDLL(None), "malloc_trim", None)
    gates = 4 * 64 * x.itemsize
    steps, cold = np.ones((_LARGE // gates // 64, 64, 1), np.float32), np.ones(_COLD // 8)

    def training() -> None:
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)

    def timed() -> float:
        return Contender(training).seconds(1) * 1e9

    def crowded_out() -> None:
        large.forward(steps)
        if trim is not None:  # of glibc: else free() may keep pages too
            trim(0)
        cold.sum()

    def kept() -> None:
        crowded_out()
        training()
        cold.sum()

    times = {"kept": clock.alone(timed, kept), "fresh": clock.alone(timed, crowded_out)}
    for name, ns in times.items():
        yield f"LSTM(32, 32), 100 steps of {B}: training, memory {name}", ns


def threads(clock: Clock) -> Iterator[tuple[str, float]]:
    """Yield what a second thread costs; nothing without a compiler or a second CPU."""
    library = limits.compiled("overheads.c", "-D_GNU_SOURCE", "-pthread")
    if library is None or available_cpus() < 2:
        return
    library.call.restype = ctypes.c_double
    library.begin()
    often = 1000
    asleep = clock.alone(lambda: library.call(0), lambda: time.sleep(0.005))
    awake = clock.alone(lambda: library.call(0), lambda: library.call(0))
    waiting = clock.alone(lambda: library.call(often), lambda: library.call(0))
    yield "a second thread that sleeps", asleep
    yield "a second thread that is awake", awake
    yield "two threads wait at a barrier", (waiting - awake) / often


def measured(clock: Clock) -> Iterator[tuple[str, float]]:
    """Yield all lines of the table."""
    calls = tiny()
    yield from zip(calls, clock.nanoseconds(calls), strict=True)
    for I, H in ((64, 128), (512, 512)):
        yield from weights(I, H, clock)
    for B in (1, 32):
        yield from pages(clock, B)
    yield from threads(clock)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short timings, as a smoke test")
    clock = Clock(1, 1e-3) if parser.parse_args().quick else Clock(15, 0.01)
    for name, value in report.machine().items():
        print(f"{name + ':':14}{value}")
    print()
    table = report.Table(["", "ns"], (70, 12))
    fastrnn.set_num_threads(1)
    for what, ns in measured(clock):
        table.print([what, f"{ns:,.0f}"])


if __name__ == "__main__":
    main()
