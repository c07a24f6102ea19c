"""Instructions that a call takes, counted by valgrind: regressions show on noisy machines too.

python benchmarks/instructions.py                                counts of this checkout
python benchmarks/instructions.py --against ../fastrnn-before    beside those of another

Counts differ by under half a percent from run to run, but more between compilers and versions of
Python: so two checkouts, each with its kernels built, are compared on one machine. Ends with 1 if a
row takes more than 2 % more. One thread, and the avx2 backend: valgrind knows no AVX-512.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: Cell, mode, I, H, T, B.
ROWS = [
    ("LSTM", "step", 32, 32, 1, 1),
    ("LSTM", "step", 64, 128, 1, 1),
    ("LSTM", "forward", 64, 128, 20, 1),
    ("LSTM", "forward", 64, 128, 10, 33),
    ("LSTM", "training", 32, 32, 20, 1),
    ("LSTM", "training", 64, 128, 10, 33),
    ("GRU", "training", 32, 32, 10, 7),
    ("RNN", "training", 32, 32, 10, 7),
]
#: Calls of a row that are counted.
CALLS = 5
#: By how much a row may be worse.
TOLERANCE = 0.02


def run(cell: str, mode: str, I: int, H: int, T: int, B: int) -> None:
    """What is counted; by the public contract only, so that any checkout can do it."""
    import numpy as np

    import fastrnn

    fastrnn.set_num_threads(1)
    rng = np.random.default_rng(0)
    layer = getattr(fastrnn, cell)(I, H, seed=0)
    x, dy = (rng.normal(size=(T, B, size)).astype(np.float32) for size in (I, H))
    stream = layer.stream(B)

    def call() -> None:
        if mode == "step":
            stream.step(x[0], out=dy[0])
        elif mode == "forward":
            layer(x)
        else:
            layer.backward(layer.forward(x)[2], dy)

    call()
    os.getppid()  # what callgrind dumps at: what was counted so far, and what since then
    for _ in range(CALLS):
        call()
    os.getppid()


def counted(checkout: Path) -> list[int]:
    """Instructions per call of each row with the package of a checkout."""
    env = os.environ | {
        "PYTHONPATH": str(checkout.resolve()),
        "PYTHONHASHSEED": "0",
        "FASTRNN_BACKEND": "avx2",
        "OPENBLAS_NUM_THREADS": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--tool=callgrind", "--dump-before=getppid", "--dump-line=no"]
        valgrind.append(f"--callgrind-out-file={folder}/counts")
        command = [*valgrind, sys.executable, __file__, "--run"]
        done = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
        # Dumps 1, 3, 5, ... are what was before each row, 2, 4, 6, ... the rows.
        dumps = [Path(folder, f"counts.{2 * n + 2}").read_text() for n in range(len(ROWS))]
    found = [re.search(r"^totals: (\d+)", dump, re.MULTILINE) for dump in dumps]
    return [round(int(match[1]) / CALLS) for match in found if match]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        for row in ROWS:
            run(*row)
        return
    checkouts = [Path(__file__).parent.parent, *([args.against] if args.against else [])]
    with ThreadPoolExecutor() as pool:
        here, *others = pool.map(counted, checkouts)
    there = others[0] if others else here
    print(f"{'instructions per call':34} {'here':>12} {'there':>12}  here / there")
    for row, mine, theirs in zip(ROWS, here, there, strict=True):
        name = f"{row[0]} {row[1]} {','.join(map(str, row[2:]))}"
        print(f"{name:34} {mine:12,} {theirs:12,} {mine / theirs:13.3f}")
    sys.exit(any(m > t * (1 + TOLERANCE) for m, t in zip(here, there, strict=True)))


if __name__ == "__main__":
    main()
