"""`fastrnn.dask.predict` of a million sequences in bounded memory, against `predict` in one piece.

python benchmarks/bulk.py [--sequences 1000000] [--steps 20] [--features 4] [--chunk 10000]

The sequences, an array (N, T, F) and then ragged ones in a bag, are made where they are predicted,
chunk by chunk from seeds, on a LocalCluster of processes with one thread each. Only a hash of each
chunk's predictions is returned; the table says whether the hashes are those of `model.predict` of
all sequences at once, in a process of its own with as many threads as workers. Memory is the peak
of resident memory (VmHWM of Linux): of the largest worker, of the client, and of that process;
"idle" is what a worker and the process had before the sequences.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
import fastrnn.dask

H, O = 32, 2


def network(features: int) -> fastrnn.Sequential:
    """Return the model."""
    gru = fastrnn.GRU(features, H, return_sequences=False)
    return fastrnn.Sequential([gru, fastrnn.Linear(H, O)], seed=0)


def chunk(start: int, args: argparse.Namespace) -> np.ndarray:
    """Return the sequences of the chunk that begins with sequence `start`."""
    size = min(args.chunk, args.sequences - start)
    rng = np.random.default_rng(start)
    return rng.random((size, args.steps, args.features), np.float32) - np.float32(0.5)


def ragged(start: int, args: argparse.Namespace) -> list[np.ndarray]:
    """Return those sequences with lengths from 1 to all steps."""
    lengths = np.random.default_rng([start, 1]).integers(1, args.steps + 1, args.chunk)
    return [x[:n] for x, n in zip(chunk(start, args), lengths, strict=False)]


def digest(outputs: Any) -> str:
    """Return a hash of the predictions of a chunk."""
    return hashlib.sha256(np.ascontiguousarray(outputs).tobytes()).hexdigest()


def peak() -> float:
    """Return the peak of this process's resident memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def lazily(kind: str, args: argparse.Namespace) -> list[Any]:
    """Return a lazy hash of the predictions of each chunk."""
    import dask
    import dask.array as da
    import dask.bag as db

    model, starts = network(args.features), range(0, args.sequences, args.chunk)
    if kind == "ragged":
        parts = db.from_delayed([dask.delayed(ragged)(start, args) for start in starts])
        predicted = fastrnn.dask.predict(model, parts).to_delayed()
    else:
        shape = (args.chunk, args.steps, args.features)
        blocks = [
            da.from_delayed(
                dask.delayed(chunk)(start, args),
                (min(args.chunk, args.sequences - start), *shape[1:]), np.float32,
            )
            for start in starts
        ]  # fmt: skip
        predicted = fastrnn.dask.predict(model, da.concatenate(blocks)).to_delayed().ravel()
    return [dask.delayed(digest)(block) for block in predicted]


def whole(kind: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return hashes, seconds and memory of a prediction of all sequences at once."""
    fastrnn.set_num_threads(args.workers)
    model, idle, starts = network(args.features), peak(), range(0, args.sequences, args.chunk)
    x: Any
    if kind == "ragged":
        x = [sequence for start in starts for sequence in ragged(start, args)]
    else:
        x = np.empty((args.sequences, args.steps, args.features), np.float32)
        for start in starts:
            x[start : start + args.chunk] = chunk(start, args)
    begin = time.perf_counter()
    y = model.predict(x)
    seconds = time.perf_counter() - begin
    hashes = [digest(y[start : start + args.chunk]) for start in starts]
    return {"hashes": hashes, "seconds": seconds, "idle": idle, "peak": peak()}


def compare(kind: str, args: argparse.Namespace) -> bool:
    """Print a row of the table; return whether the bits are the same."""
    import dask
    import distributed

    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
    options |= {"n_workers": args.workers, "silence_logs": logging.ERROR}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        idle = max(client.run(peak).values())
        begin = time.perf_counter()
        hashes = list(dask.compute(*lazily(kind, args)))
        seconds = time.perf_counter() - begin
        workers = max(client.run(peak).values())
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--whole", kind],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    one = json.loads(done.stdout)
    equal = hashes == one["hashes"]
    print(
        f"{kind:8}{args.sequences:11,}{seconds:9.1f}{idle:8.0f}{workers:9.0f}{peak():9.0f}"
        f"{one['seconds']:12.1f}{one['idle']:8.0f}{one['peak']:9.0f}  {equal}"
    )
    return equal


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--features", type=int, default=4)
    parser.add_argument("--chunk", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few thousand sequences")
    parser.add_argument("--whole", choices=["array", "ragged"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.sequences, args.chunk = 2500, 400
    if args.whole:
        print(json.dumps(whole(args.whole, args)))
        return
    print(f"T={args.steps}, F={args.features}, H={H}, chunks of {args.chunk:,}; memory in MB")
    print(
        f"{'':8}{'sequences':>11}{'seconds':>9}{'idle':>8}{'worker':>9}{'client':>9}"
        f"{'in one: s':>12}{'idle':>8}{'peak':>9}  same bits"
    )
    same = [compare(kind, args) for kind in ("array", "ragged")]
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
