"""Many threads share layers, models and the pool; for a ThreadSanitizer build and without a GIL.

python tests/stress_threads.py [--seconds 20] [--threads 6] [--backend avx2]

Every thread calls shared layers, with streams and optimizers of its own, while others change
weights that no one checks, the number of threads and the backend's thresholds. What is called with
weights that stay has to give the same bits, always. A stream that two threads step refuses one of
them, or steps for both in turn.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn
from fastrnn._kernels import _threads
from fastrnn.losses import cross_entropy

T, B, I, H, V = 13, 6, 9, 67, 11


def same(a: Any, b: Any) -> bool:
    """Return whether nested results have the same bits."""
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a is b or np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


class Shared:
    """What all threads use, and the results that they have to get."""

    def __init__(self, dtypes: tuple[type, ...]) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((T, B, I))
        self.tokens = rng.integers(0, V, (B, T))
        self.layers = [
            getattr(fastrnn, name)(I, H, seed=0, dtype=dtype)
            for name in ("RNN", "LSTM", "GRU", "IndRNN")
            for dtype in dtypes
        ]
        self.layers.append(fastrnn.LSTM(I, H, seed=0, matmul_precision="bfloat16"))
        self.model = fastrnn.Sequential(
            [
                fastrnn.Embedding(V, I),
                fastrnn.GRU(I, H),
                fastrnn.LayerNorm(H),
                fastrnn.Linear(H, V),
            ],
            seed=0,
        )
        # With all dtypes, that of int8 weights too.
        self.quantized = fastrnn.quantize(self.layers[0]) if len(dtypes) > 1 else self.layers[0]
        self.changed = fastrnn.GRU(I, H, seed=0)
        self.stepped = self.changed.stream(B)

    def calls(self) -> list[Callable[[], Any]]:
        """Return calls whose results never change."""
        steps = [self.stepping(layer) for layer in self.layers[:4]]
        passes = [self.passing(layer) for layer in self.layers]
        return [*passes, *steps, self.model_call, self.model_steps, self.training, self.small]

    def passing(self, layer: Any) -> Callable[[], Any]:
        """Return forward and backward of a layer."""

        def call() -> Any:
            y, state, tape = layer.forward(self.x)
            return y, state, layer.backward(tape, np.cos(y))

        return call

    def stepping(self, layer: Any) -> Callable[[], Any]:
        """Return steps of a new stream of a layer."""

        def call() -> Any:
            stream = layer.stream(B)
            return [stream.step(x_t) for x_t in self.x], stream.state

        return call

    def model_call(self) -> Any:
        """Return predictions."""
        return self.model.predict(self.tokens, batch_size=4)

    def model_steps(self) -> Any:
        """Return steps of a new stream of the model."""
        stream = self.model.stream(B)
        return [stream.step(t) for t in self.tokens.T], stream.state

    def training(self) -> Any:
        """Return weights after steps of an optimizer."""
        layer = fastrnn.Linear(I, V, seed=0)
        optimizer = fastrnn.optim.Adam(clip_norm=1.0)
        for _ in range(2):
            y, tape = layer.forward(self.x)
            _, dy = cross_entropy.value_and_grad(y, self.tokens.T)
            optimizer.step(layer.parameters(), layer.backward(tape, dy)[1])
        return layer.state_dict()

    def small(self) -> Any:
        """Return outputs of int8 weights."""
        return self.quantized(self.x)

    def disturb(self, rng: random.Random) -> None:
        """Change what no one checks: weights, precision, threads; and step a shared stream."""
        weights = self.changed.parameters()
        weights["weight_hh_l0"] *= np.float32(rng.choice([0.5, 2.0]))
        self.changed(self.x)
        _, _, tape = self.changed.forward(self.x)
        del weights
        self.changed.backward(tape, np.ones((T, B, H)))
        fastrnn.set_num_threads(rng.choice([1, 2, 3]))
        _threads.set_least_work(*rng.choice([(0, 0, 0), (1000000, 15000, 60000)]))
        for _ in range(5):
            try:
                self.stepped.step(self.x[0])
                self.stepped.reset(rng.choice([None, [0]]))
                _ = self.stepped.state
            except RuntimeError as error:
                if "two threads" not in str(error):
                    raise


def work(shared: Shared, wanted: list[Any], until: float, seed: int, backend: str) -> int:
    """Call at random; return the number of calls."""
    rng, count, calls = random.Random(seed), 0, shared.calls()
    with fastrnn.use_backend(backend):
        while time.monotonic() < until:
            k = rng.randrange(len(calls) + 2)
            if k >= len(calls):
                shared.disturb(rng)
            else:
                assert same(calls[k](), wanted[k]), f"call {k}: other bits"
            count += 1
    return count


def run(seconds: float, threads: int, backend: str, dtypes: tuple[type, ...]) -> tuple[int, Shared]:
    """Run all threads; return the number of calls, or raise what a thread raised."""
    least = _threads.set_least_work(0, 0, 0)
    with fastrnn.use_backend(backend):
        shared = Shared(dtypes)
        fastrnn.set_num_threads(1)
        wanted = [call() for call in shared.calls()]
    counts: list[int] = []
    errors: list[BaseException] = []
    until = time.monotonic() + seconds

    def one(seed: int) -> None:
        try:
            counts.append(work(shared, wanted, until, seed, backend))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=one, args=(seed,)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    _threads.set_least_work(*least)
    return sum(counts), shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--backend", default=fastrnn.backend())
    parser.add_argument("--float32", action="store_true", help="no other dtypes")
    options = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    dtypes = (np.float32,) if options.float32 else (np.float32, np.float64)
    calls, _ = run(options.seconds, options.threads, options.backend, dtypes)
    how = "with" if gil else "without"
    print(f"{calls:,} calls of {options.threads} threads, {how} a GIL: the same bits")


if __name__ == "__main__":
    main()
