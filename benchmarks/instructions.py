"""Instructions per call, counted by valgrind, which shows regressions even on noisy machines.

python benchmarks/instructions.py                                counts of this checkout
python benchmarks/instructions.py --against ../fastrnn-before    against those of another

Every cell of this checkout, plain and with all its options; rows that the other checkout can't run
are marked. Counts differ by less than half a percent between runs, but more between compilers and
Python versions, so compare two checkouts, each with its kernels built, on one machine. Exits with 1
if a row takes over 1 % more. One thread, and the avx2 backend, as valgrind has no AVX-512.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

#: The rows of each cell: name, mode, I, H, T, B.
SIZES = [
    ("step", "step", 32, 32, 1, 1),
    ("step", "step", 64, 128, 1, 1),
    ("call", "forward", 32, 32, 1, 1),
    ("sequence", "forward", 64, 128, 20, 1),
    ("batch", "forward", 64, 128, 10, 33),
    ("small training", "training", 32, 32, 1, 1),
    ("training", "training", 32, 32, 20, 1),
    ("training", "training", 64, 128, 10, 33),
]
#: Calls before those counted: by then CPython has specialised the bytecode (PEP 659).
WARM_UP = 12
#: Number of calls counted for a row.
CALLS = 5
#: The relative increase allowed.
TOLERANCE = 0.01


def layers() -> list[tuple[str, dict[str, Any]]]:
    """Return names and options of layers: every cell, plain and with all its options."""
    from fastrnn._kernels.cells import CELLS
    from fastrnn.layers import RECURRENT

    named = []
    for cell in CELLS.values():
        layer = RECURRENT[cell.family]
        chosen = dict(layer.cells[cell.name])
        named.append((layer.__name__, chosen))
        values = {"projection": ("proj_size", 16)}
        if cell.options:
            more = dict(values.get(name, (name, True)) for name in cell.options)
            named.append((layer.__name__, chosen | more))
    return named


def run(layer: str, options: dict[str, Any], mode: str, I: int, H: int, T: int, B: int) -> bool:
    """Do the work, using public names only; return whether this checkout can."""
    import numpy as np

    import fastrnn

    fastrnn.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    try:
        made = getattr(fastrnn, layer)(I, H, seed=0, **options)
    except (AttributeError, TypeError):
        os.getppid()
        os.getppid()
        return False
    dy, stream = np.ones_like(made(x)[0]), made.stream(B)

    def call() -> None:
        if mode == "step":
            stream.step(x[0], out=dy[0])
        elif mode == "forward":
            made(x)
        else:
            made.backward(made.forward(x)[2], dy)

    gc.disable()  # a collection in one of the few calls would count as theirs
    for _ in range(WARM_UP):
        call()
    os.getppid()  # callgrind dumps its counts at each call of this function
    for _ in range(CALLS):
        call()
    os.getppid()
    return True


def started(checkout: Path, *arguments: str, before: tuple[str, ...] = ()) -> Any:
    """Run this file with the package of a checkout, and return the JSON that it prints."""
    env = os.environ | {
        "PYTHONPATH": str(checkout.resolve()),
        "PYTHONHASHSEED": "0",
        "FASTRNN_BACKEND": "avx2",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [*before, sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def counted(checkout: Path, rows: list[Any]) -> list[int | None]:
    """Return instructions per call of each row in a checkout; None if it can't run the row."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ("valgrind", "--tool=callgrind", "--dump-before=getppid", "--dump-line=no")
        valgrind += (f"--callgrind-out-file={folder}/counts",)
        can = started(checkout, "--run", json.dumps(rows), before=valgrind)
        # Dumps 1, 3, 5, ... count what precedes each row, 2, 4, 6, ... the rows.
        dumps = [Path(folder, f"counts.{2 * n + 2}").read_text() for n in range(len(rows))]
    totals = [re.search(r"^totals: (\d+)", dump, re.MULTILINE) for dump in dumps]
    return [
        round(int(total[1]) / CALLS) if done and total else None
        for done, total in zip(can, totals, strict=True)
    ]


def shown(row: list[Any]) -> str:
    """Return a description of a row: layer, options, name and sizes."""
    layer, options, name, _, *size = row
    listed = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{layer}({listed}) {name} {','.join(map(str, size))}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rows", default="*", help="pattern of rows, such as 'LSTM* step *'")
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print(json.dumps(layers()))
        return
    if args.run:
        print(json.dumps([run(layer, options, *size) for layer, options, _, *size in args.run]))
        return
    own = Path(__file__).parent.parent
    every = [[*layer, *size] for layer in started(own, "--list") for size in SIZES]
    rows = [row for row in every if fnmatchcase(shown(row), args.rows)]
    checkouts = [own, *([args.against] if args.against else [])]
    with ThreadPoolExecutor() as pool:
        here, *others = pool.map(lambda checkout: counted(checkout, rows), checkouts)
    there = others[0] if others else here
    print(f"{'instructions per call':76} {'here':>12} {'there':>12}  here / there")
    worse = False
    for row, mine, theirs in zip(rows, here, there, strict=True):
        if mine is None or theirs is None:
            print(f"{shown(row):76} {mine or '-':>12} {theirs or '-':>12}  not in both")
            worse |= mine is None
            continue
        print(f"{shown(row):76} {mine:12,} {theirs:12,} {mine / theirs:13.3f}")
        worse |= mine > theirs * (1 + TOLERANCE)
    sys.exit(worse)


if __name__ == "__main__":
    main()
