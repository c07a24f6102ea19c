"""Memory of layers, of the copies of their weights that kernels read, of tapes and of streams.

python benchmarks/layer_memory.py      the table of docs/guide/memory.md
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench.report import Table

I = H = 1024
MIB = 2**20
#: Steps and rows of the tape: its memory is more than what is kept for reuse.
T, B = 1700, 5


def size(start: int) -> str:
    """Return the MiB that were allocated since, as text."""
    return f"{(tracemalloc.get_traced_memory()[0] - start) / MIB:.1f}"


def stages(name: str, **options: Any) -> list[str]:
    """Return MiB of a layer as made, after a call and after a step of training."""
    start = tracemalloc.get_traced_memory()[0]
    layer = getattr(fastrnn, name)(I, H, seed=0, **options)
    made = size(start)
    x = np.zeros((1, 1, I), np.float32)
    layer(x)
    called = size(start)
    layer.backward(layer.forward(x)[2], np.ones((1, 1, H), np.float32))
    return [made, called, size(start)]


def of_int8(name: str) -> list[str]:
    """Return MiB of a layer with int8 weights as made and after a call."""
    layer = getattr(fastrnn, name)(I, H, seed=0)
    start = tracemalloc.get_traced_memory()[0]
    quantized = fastrnn.quantize(layer)
    made = size(start)
    quantized(np.zeros((1, 1, I), np.float32))
    return [made, size(start), ""]


def tape_and_stream(name: str) -> tuple[float, str]:
    """Return the numbers that a tape has for a step of a row, and KiB of a stream of one row."""
    layer = getattr(fastrnn, name)(I, H, seed=0)
    x = np.zeros((T, B, I), np.float32)
    layer(x[:1, :1])
    start = tracemalloc.get_traced_memory()[0]
    y, state, tape = layer.forward(x)
    del y, state
    numbers = (tracemalloc.get_traced_memory()[0] - start) / 4 / (T * B)
    start = tracemalloc.get_traced_memory()[0]
    stream = layer.stream()
    used = (tracemalloc.get_traced_memory()[0] - start) / 1024
    del tape, stream
    return numbers, f"{used:.0f}"


def main() -> None:
    fastrnn.set_num_threads(1)
    fastrnn.LSTM(3, 5).backward(fastrnn.LSTM(3, 5).forward(np.ones((1, 1, 3)))[2])
    fastrnn.quantize(fastrnn.LSTM(3, 5))(np.ones((1, 1, 3)))
    tracemalloc.start()
    print(f"MiB of a layer, I = H = {I}, float32")
    table = Table(["", "made", "called", "trained"], (24, 7, 7, 7))
    for name in ("RNN", "GRU", "LSTM"):
        table.print([name, *stages(name)])
        table.print([f"{name}, bfloat16", *stages(name, matmul_precision="bfloat16")])
        table.print([f"{name}, int8", *of_int8(name)])
    print()
    table = Table(["", "tape / step / row", "stream, KiB"], (24, 17, 11))
    for name in ("RNN", "GRU", "LSTM"):
        numbers, used = tape_and_stream(name)
        table.print([name, f"I + {(numbers - I) / H:.2f} H", used])


if __name__ == "__main__":
    main()
