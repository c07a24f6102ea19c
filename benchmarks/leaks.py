"""Whether memory, threads and files grow over a million steps and thousands of objects.

python benchmarks/leaks.py [--scale 1.0]      Linux; exits with 1 if something grows

Each row repeats one thing; memory is compared after the first tenth and at the end. A leak of one
small object each time, 16 bytes, would show as 16 MB for a million steps.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

import fastrnn
from fastrnn._bench.report import Table

#: KiB by which memory may differ, as the allocator's pages are not always the same ones.
NOISE = 2048


def usage() -> tuple[int, int, int]:
    """Return KiB of memory, threads and open files."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    kib = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return kib, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@contextmanager
def refused() -> Iterator[None]:
    """Expect an error."""
    try:
        yield
    except (ValueError, TypeError):
        return
    raise AssertionError("not refused")


def repeated(folder: str) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return how often to call what."""
    rng = np.random.default_rng(0)
    x, X, y = rng.normal(size=(5, 2, 3)), rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 7))
    lstm, gru = fastrnn.LSTM(3, 7, seed=0), fastrnn.GRU(3, 7, bidirectional=True, seed=0)
    model = fastrnn.Sequential([fastrnn.GRU(3, 7), fastrnn.Linear(7, 7)], seed=0)
    model.compile("adam", "mse")
    stream, x_t, out = model.stream(), np.ones(3, np.float32), np.empty(7, np.float32)
    path = os.path.join(folder, "model.safetensors")
    small = fastrnn.quantize(lstm)

    def fit() -> None:
        model.fit(X, y, epochs=1, verbose=0)

    def train() -> None:
        _, _, tape = gru.forward(x)
        gru.backward(tape, np.ones((5, 2, 14)))

    def changed() -> None:
        lstm.parameters()["weight_hh_l0"][...] *= 1.0
        lstm(x)

    def errors() -> None:
        with refused():
            lstm(x[..., :2])
        with refused():
            fastrnn.GRU(3, -7)
        with refused():
            model.fit(X, y[:2], verbose=0)
        with refused():
            stream.step(x[0])

    def files() -> None:
        model.save(path)
        fastrnn.load(path)

    def forks() -> None:
        child = os.fork()
        if child == 0:
            lstm(x)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    return {
        "steps": (1_000_000, lambda: stream.step(x_t, out)),
        "steps into new arrays": (100_000, lambda: stream.step(x_t)),
        "calls": (100_000, lambda: lstm(x)),
        "calls of int8 weights": (100_000, lambda: small(x)),
        "changed weights": (20_000, changed),
        "forward and backward": (20_000, train),
        "fits": (10_000, fit),
        "layers": (10_000, lambda: fastrnn.LSTM(3, 7, num_layers=2)(x)),
        "models and their streams": (10_000, lambda: fastrnn.Sequential([lstm]).stream(2).reset()),
        "four errors each": (10_000, errors),
        "files": (2_000, files),
        "forks": (300, forks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="times these numbers")
    parser.add_argument("--quick", action="store_true", help="a thousandth, for tests")
    options = parser.parse_args()
    scale = 0.001 if options.quick else options.scale
    table = Table(["", "times", "memory, KiB", "grown", "threads", "files"], (25, 9, 11, 6, 8, 6))
    grown = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (count, call) in repeated(folder).items():
            count = max(10, int(count * scale))
            for _ in range(count // 10):
                call()
            before = usage()
            for _ in range(count - count // 10):
                call()
            after = usage()
            more = [b - a for a, b in zip(before, after, strict=True)]
            table.print([name, f"{count:,}", f"{after[0]:,}", *[f"{n:+}" for n in more]])
            grown += [name] if more[0] > NOISE or max(more[1:]) > 0 else []
    sys.exit(f"grows: {', '.join(grown)}" if grown else 0)


if __name__ == "__main__":
    main()
