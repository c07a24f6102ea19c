"""Checkpointed backpropagation: memory for a million steps, and time against keeping everything.

python benchmarks/checkpoints.py      LSTM float32, B=1, forward and backward, all gradients
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import numpy as np

import fastrnn
from fastrnn._bench.timing import Contender, paired

I, H = 16, 64
LONG, BOTH_FIT = 1_000_000, 100_000


def training(T, checkpoint_every):
    """Run forward and backward for the loss sum(y^2) / 2, whose gradient is y."""
    layer = fastrnn.LSTM(I, H, seed=0)
    x = np.random.default_rng(0).standard_normal((T, 1, I), np.float32)

    def run():
        y, _, tape = layer.forward(x, checkpoint_every=checkpoint_every)
        return layer.backward(tape, y)

    return run


def peak_mib(T, checkpoint_every):
    """Return the peak memory of a process that does nothing else, interpreter included."""
    command = [sys.executable, __file__, "--child", str(T), str(checkpoint_every)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    child = parser.parse_args().child
    if child:
        T, every = child
        training(T, every or None)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    fastrnn.show_config()
    print(f"\nI={I} H={H} B=1; peak memory of the whole process")
    every = round(LONG**0.5)
    for T, checkpoint_every in ((LONG, every), (BOTH_FIT, every), (BOTH_FIT, 0)):
        how = f"a checkpoint every {checkpoint_every}" if checkpoint_every else "all kept"
        print(f"T={T:9,}  {how:24} {peak_mib(T, checkpoint_every):6} MiB", flush=True)
    ways = [Contender(training(BOTH_FIT, how)) for how in (None, every)]
    kept, again = paired(ways, 5, 0.1)
    print(f"T={BOTH_FIT:9,}  {again:.3f} s checkpointed, {kept:.3f} s plain: {again / kept:.2f}")


if __name__ == "__main__":
    main()
