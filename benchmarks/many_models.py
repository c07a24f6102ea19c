"""A `Forecaster` for each of many series on a Dask cluster, a worker killed, and the loop in torch.

python benchmarks/many_models.py [--series 500] [--length 700] [--workers 2] [--torch 10]

Prints
- one fit: its optimizer steps, seconds, and the part of them in compiled kernels;
- `fastrnn.dask.forecast` on a LocalCluster of processes with one thread each: seconds, and models a
  second;
- the same for a fifth of the series with a folder, where a worker is killed by SIGKILL halfway:
  seconds, which files were there when it died, and whether the forecasts have the same bits; and
  again with that folder, from which all are read;
- the trainings alone in torch, in this process, in turn with `fit` and `predict` of the first
  --torch series: the four networks that a Forecaster trains, with its windows, sizes, batches,
  number of steps, Adam, clipping and learning rates; only the initial weights and the order of
  windows are others. Forecasts by the networks, and their weights, are not in torch's time.

Series are a trend, a season of 12 and an AR(1) process, from a seed. Distributed is needed, torch
for its part. Kernels and torch use one thread per process.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
import fastrnn.dask
from fastrnn._kernels import dispatch
from fastrnn.forecast import Forecaster

HORIZON = 12
#: Defaults of a Forecaster, for torch.
WINDOW, STEPS, HIDDEN, BATCH, LR, CLIP, UPDATES = 36, 12, 32, 32, 5e-3, 1.0, 400


def made(i: int, length: int) -> np.ndarray:
    """Return series `i`."""
    rng, t = np.random.default_rng(i), np.arange(length)
    noise = rng.normal(size=length)
    for k in range(1, length):
        noise[k] += 0.7 * noise[k - 1]
    season = rng.uniform(0, 3) * np.sin(2 * np.pi * t / 12 + rng.uniform(0, 6))
    return 20 + rng.uniform(-0.02, 0.02) * t + season + noise


def forecaster(args: argparse.Namespace) -> Forecaster:
    """Return an unfitted forecaster: by default, with default settings."""
    return Forecaster(seed=0, epochs=args.epochs)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


@contextlib.contextmanager
def clocked(spent: list[float]) -> Any:
    """Add the seconds in compiled kernels to `spent`."""
    kernels: Any = dispatch.kernels(np.dtype(np.float32))
    names = "run", "run_back", "linear", "linear_backward", "mse", "squares", "adam"
    own = {name: getattr(kernels, name) for name in (*names, "Packed", "PackedLinear")}

    def within(kernel: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            seconds, result = timed(lambda: kernel(*args, **options))
            spent[0] += seconds
            return result

        return call

    for name, kernel in own.items():
        setattr(kernels, name, within(kernel))
    try:
        yield
    finally:
        for name, kernel in own.items():
            setattr(kernels, name, kernel)


def one_fit(args: argparse.Namespace) -> None:
    """Print where the time of a fit goes."""
    values, best, part = made(0, args.length), math.inf, 0.0
    steps = sum(epochs * -(-n // BATCH) for n, epochs in trainings(args))
    for _ in range(args.repeats):
        plain = timed(lambda: forecaster(args).fit(values))[0]
        spent = [0.0]
        with clocked(spent):
            forecaster(args).fit(values)
        best, part = min((best, part), (plain, spent[0]))
    rest = 1e6 * (best - part) / steps
    print(
        f"one fit: {steps} steps, {best:.3f} s, of which {part / best:.0%} in kernels; "
        f"the rest is {rest:.0f} us a step"
    )


def trainings(args: argparse.Namespace) -> list[tuple[int, int]]:
    """Return windows and epochs of each of the networks that a Forecaster trains on a series."""
    n, first = args.length, args.length - int(args.length * 0.4)
    stops = [n, *(first + (n - first) * fold // 3 for fold in range(3))]
    windows = [stop - WINDOW - STEPS + 1 for stop in stops]
    return [(w, args.epochs or -(-UPDATES // -(-w // BATCH))) for w in windows]


# On a cluster.


def on_a_cluster(args: argparse.Namespace) -> None:
    """Print times of all series, and of some with a worker that is killed."""
    import distributed

    many = {f"series {i}": made(i, args.length) for i in range(args.series)}
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": ":0"}
    options |= {"n_workers": args.workers, "silence_logs": logging.ERROR}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run(lambda: Forecaster(seed=0, epochs=1).fit(np.arange(60.0)))  # imports
        lazy = fastrnn.dask.forecast(forecaster(args), many, HORIZON)
        seconds, found = timed(lazy.compute)
        assert not any(f.error for f in found), found
        print(
            f"{len(many)} series on {args.workers} workers: {seconds:.1f} s, "
            f"{len(many) / seconds:.2f} models/s"
        )
        alone = forecaster(args).fit(many["series 0"]).predict(HORIZON)
        print(f"first series fitted here: same bits {same(found[0].values, alone)}")
        few = dict(list(many.items())[: max(4, len(many) // 5)])
        with tempfile.TemporaryDirectory() as folder:
            lazy = fastrnn.dask.forecast(forecaster(args), few, HORIZON, folder=folder)
            killer = Killer(client, folder, len(few) // 2)
            killer.start()
            seconds, again = timed(lazy.compute)
            killer.join()
            print(
                f"{len(few)} series, worker {killer.pid} killed by SIGKILL after "
                f"{killer.written}: {seconds:.1f} s, same bits {equal(found, again)}"
            )
            seconds, again = timed(lazy.compute)
            print(f"again, from the folder: {seconds:.2f} s, same bits {equal(found, again)}")


class Killer(threading.Thread):
    """Kills a worker when a folder has some files."""

    def __init__(self, client: Any, folder: str, files: int) -> None:
        super().__init__()
        self.pid = next(iter(client.run(os.getpid).values()))
        self.folder, self.files, self.written = folder, files, 0

    def run(self) -> None:
        """Wait for the files, and kill."""
        while self.written < self.files:
            time.sleep(0.01)
            self.written = len(list(Path(self.folder).glob("*.json")))
        os.kill(self.pid, signal.SIGKILL)


def same(one: Any, other: Any) -> bool:
    """Return whether arrays have the same bits."""
    return bool(one.tobytes() == other.tobytes())


def equal(found: list[Any], again: list[Any]) -> bool:
    """Return whether forecasts of the first series are the same."""
    return all(
        f.name == g.name and same(f.values, g.values) for f, g in zip(found, again, strict=False)
    )


# In torch.


def in_torch(values: np.ndarray, trained: list[tuple[int, int]]) -> None:
    """Train the networks that a Forecaster trains on a series."""
    import torch

    scaled = (values - values.mean()) / values.std()
    windows = np.lib.stride_tricks.sliding_window_view(scaled, WINDOW + STEPS)
    reads, last = windows[:, :WINDOW], windows[:, WINDOW - 1 : WINDOW]
    level = np.broadcast_to(0.15 * np.tanh(reads.mean(axis=1, keepdims=True)), reads.shape)
    x = torch.from_numpy(np.stack([reads - last, level], axis=2).astype(np.float32))
    y = torch.from_numpy((windows[:, WINDOW:] - last).astype(np.float32))
    for n, epochs in trained:
        gru, linear = torch.nn.GRU(2, HIDDEN, batch_first=True), torch.nn.Linear(HIDDEN, STEPS)
        weights = [*gru.parameters(), *linear.parameters()]
        adam = torch.optim.Adam(weights, LR)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * -(-n // BATCH))
        for _ in range(epochs):
            for rows in torch.randperm(n).split(BATCH):
                loss = torch.nn.functional.mse_loss(linear(gru(x[rows])[0][:, -1]), y[rows])
                adam.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, CLIP)
                adam.step()
                schedule.step()


def beside_torch(args: argparse.Namespace) -> None:
    """Print seconds per series here and in torch."""
    import torch

    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    in_torch(made(0, 100), [(40, 1)])
    ours, theirs = [], []
    for i in range(args.torch):
        values = made(i, args.length)
        ours.append(timed(lambda v=values: forecaster(args).fit(v).predict(HORIZON))[0])
        theirs.append(timed(lambda v=values: in_torch(v, trainings(args)))[0])
    ratio = statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
    print(
        f"{args.torch} series in turn, medians: fastrnn {statistics.median(ours):.3f} s, "
        f"torch {torch.__version__} {statistics.median(theirs):.3f} s: {ratio:.2f} times as long"
    )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--length", type=int, default=700)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--torch", type=int, default=10, help="series in torch, 0 for none")
    parser.add_argument("--epochs", type=int, help="of each network; default: the Forecaster's")
    parser.add_argument("--repeats", type=int, default=5, help="of one fit")
    parser.add_argument("--quick", action="store_true", help="a few series and epochs")
    args = parser.parse_args()
    if args.quick:
        args.series, args.length, args.epochs, args.repeats = 6, 250, 1, 1
        args.torch = min(args.torch, 1)
    fastrnn.set_num_threads(1)
    one_fit(args)
    on_a_cluster(args)
    if args.torch and find_spec("torch") is not None:
        beside_torch(args)


if __name__ == "__main__":
    main()
