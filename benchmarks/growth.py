"""Whether cost is proportional to time steps and batch size, and the same for decayed states.

python benchmarks/growth.py      float32, inference; least times of several rounds
"""

from __future__ import annotations

import time

import numpy as np

import fastrnn
from fastrnn.layers import RECURRENT

I, H = 16, 64


def seconds(call, rounds):
    """Return the least of several timings, which is free of interruptions."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def per_step(layer):
    """Return nanoseconds per step, for sequences of several lengths."""
    times = {}
    for T in (100, 10_000, 1_000_000):
        x = np.random.default_rng(0).standard_normal((T, 1, I), np.float32)
        # For a long sequence this includes clearing new memory for the output.
        times[T] = seconds(lambda x=x: layer(x), max(3, 300_000 // T)) / T * 1e9
    return times


def batch_over_single(layer, B, T=200):
    """Return a batch's time over that of its rows one by one."""
    x = np.random.default_rng(0).standard_normal((T, B, I), np.float32)
    rows = [np.ascontiguousarray(x[:, b : b + 1]) for b in range(B)]
    return seconds(lambda: layer(x), 50) / seconds(lambda: [layer(row) for row in rows], 20)


def decaying_over_lively(layer, T=100_000):
    """Return the time of a step with zero inputs, whose state decays, over that with inputs."""
    for array in layer.parameters().values():
        array *= 0.5  # contracts
    for name, array in layer.parameters().items():
        if name.startswith("bias"):
            array[...] = 0
    lively = np.random.default_rng(0).standard_normal((T, 1, I), np.float32)
    decaying = np.zeros((T, 1, I), np.float32)
    decaying[0] = 1
    return seconds(lambda: layer(decaying), 5) / seconds(lambda: layer(lively), 5)


def main() -> None:
    fastrnn.show_config()
    print(f"\nI={I} H={H}")
    for cell in RECURRENT.values():
        name = cell.__name__
        steps = ", ".join(
            f"{ns:.0f} ns at T={T:,}" for T, ns in per_step(cell(I, H, seed=0)).items()
        )
        print(f"{name:5} a step: {steps}", flush=True)
        ratios = ", ".join(
            f"{batch_over_single(cell(I, H, seed=0), B):.2f} for B={B}" for B in (2, 5, 64)
        )
        print(f"{name:5} a batch over its rows one by one: {ratios}", flush=True)
        print(
            f"{name:5} decaying state: {decaying_over_lively(cell(I, H, seed=0)):.2f}", flush=True
        )


if __name__ == "__main__":
    main()
