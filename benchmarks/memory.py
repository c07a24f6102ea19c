"""Memory that forward keeps for BPTT, against torch, and workspace of inference.

python benchmarks/memory.py                                   needs torch

For fastrnn, what the tape adds to the memory of a new process (its copy of x, states, gates); for
torch, the tensors that autograd saves, including x, each counted once, without the parameters and
without y, which the caller holds anyway.
"""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

import fastrnn
from fastrnn._bench.report import Table
from fastrnn._bench.rows import DEFAULTS

#: I, H, T, B.
SIZES = [
    (8, 16, 100, 1), (32, 32, 100, 32), (64, 128, 100, 32), (256, 256, 50, 64), (50, 100, 50, 13),
]  # fmt: skip
CELLS = [name for name in DEFAULTS if hasattr(torch.nn, name)]


def our_tape(name: str, I: int, H: int, T: int, B: int) -> int:
    """Return the bytes of a tape, in a process without workspaces from other calls."""
    layer, x = getattr(fastrnn, name)(I, H, seed=0), np.ones((T, B, I), np.float32)
    layer(x[:1, :1])  # packs the weights, which are kept
    tracemalloc.start()
    y, state, tape = layer.forward(x)
    states = state if isinstance(state, tuple) else (state,)
    size = tracemalloc.get_traced_memory()[0] - y.nbytes - sum(s.nbytes for s in states)
    tracemalloc.stop()
    assert tape is not None
    return size


def torch_saved(module: torch.nn.Module, x: torch.Tensor) -> int:
    """Return the bytes that autograd saves."""
    saved = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y, _ = module(x)
    for tensor in (y, *module.parameters()):
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(saved.values())


def workspace(layer: fastrnn.LSTM, x: np.ndarray) -> int:
    """Return the peak memory of inference, without its output, in bytes."""
    layer(x[:2])
    tracemalloc.start()
    y, _ = layer(x)
    size = tracemalloc.get_traced_memory()[1] - y.nbytes
    tracemalloc.stop()
    return size


def main() -> None:
    head = ["", "I,H,T,B", "tape, KiB", "torch saves, KiB", "ours / torch's"]
    table = Table(head, (6, 14, 10, 17, 15))
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        for name in CELLS:
            for I, H, T, B in SIZES:
                ours = alone.submit(our_tape, name, I, H, T, B).result()
                theirs = torch_saved(getattr(torch.nn, name)(I, H), torch.ones(T, B, I))
                kib = [f"{size / 1024:.0f}" for size in (ours, theirs)]
                table.print([name, f"{I},{H},{T},{B}", *kib, f"{ours / theirs:.2f}"])
    print()
    table = Table(["inference, workspace in KiB", "T=1,000", "T=100,000"], (28, 9, 9))
    for layers in (1, 2):
        layer = fastrnn.LSTM(16, 64, num_layers=layers, seed=0)
        sizes = [workspace(layer, np.zeros((T, 4, 16), np.float32)) for T in (1_000, 100_000)]
        kib = [f"{size / 1024:.0f}" for size in sizes]
        table.print([f"LSTM 16, 64, {layers} layers, B=4", *kib])


if __name__ == "__main__":
    main()
