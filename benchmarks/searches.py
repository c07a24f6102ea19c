"""GridSearchCV with 16 candidates by one worker and by several, of joblib and of Dask.

python benchmarks/searches.py                   all, Dask if it is installed
python benchmarks/searches.py --engines=loky,dask --workers=2 --repeats=5

The candidates are SequenceClassifiers, each fitted to 3 folds. Workers are started, and have
imported all, before the time is taken. Engines run in turn, Dask at the end, and the least time of
each counts.

"oversubscribed" is loky with as many threads in each worker as there are CPUs, which is what
happens where limits of threads are not obeyed.

Threads are counted 50 times a second, in this process and all below it: those that run, or would if
a CPU were free, on average and at most. The one that counts is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

import fastrnn
from fastrnn._bench import report
from fastrnn._core.config import available_cpus
from fastrnn.sklearn import SequenceClassifier

ENGINES = ["loky", "oversubscribed", "threading", "dask"]
GRID = {"cell": ["gru", "lstm"], "hidden_size": [16, 48], "lr": [2e-3, 5e-3, 1e-2, 2e-2]}

#: Seconds between two counts of threads.
_EVERY = 0.02


@dataclass
class Engine:
    """A way to run the search.

    Parameters
    ----------
    name : str
    jobs : int
    config : dict
        Of ``joblib.parallel_config``.
    threads : int
        That kernels may use in this process.
    """

    name: str
    jobs: int
    config: dict[str, Any]
    threads: int
    seconds: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def run(self, X: Any, y: Any, grid: dict[str, Any], epochs: int) -> None:
        """Search once; add what it took."""
        fastrnn.set_num_threads(self.threads)
        model = SequenceClassifier(max_epochs=epochs, random_state=0)
        search = GridSearchCV(model, grid, cv=3, n_jobs=self.jobs, refit=False)
        with joblib.parallel_config(**self.config):
            # Wakes all workers: each has to be busy for a while to get one of these.
            asked = [joblib.delayed(_threads)() for _ in range(4 * self.jobs)]
            self.limits = joblib.Parallel(self.jobs)(asked)
            with _counted(self.running):
                start = time.perf_counter()
                search.fit(X, y)
                self.seconds.append(time.perf_counter() - start)
        self.scores = search.cv_results_["mean_test_score"].tolist()


def _threads() -> int:
    """Return the limit of threads in a worker, which imports scikit-learn first."""
    time.sleep(0.1)
    assert SequenceClassifier is not None
    return fastrnn.get_num_threads()


@contextmanager
def _counted(running: list[int]) -> Iterator[None]:
    """Add to `running`, again and again, the number of threads that run in all processes."""
    if not os.path.exists("/proc/self/task"):
        yield
        return
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(_EVERY):
            running.append(_running(threading.get_native_id()))

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield
    finally:
        ended.set()
        counter.join()


def _running(without: int) -> int:
    """Return the number of threads that run in this process and those below, without one."""
    children = defaultdict(list)
    for name in filter(str.isdecimal, os.listdir("/proc")):
        children[_stat(f"/proc/{name}/stat")[1]].append(name)
    count, processes = 0, [str(os.getpid())]
    while processes:
        process = processes.pop()
        processes += children[process]
        try:
            tasks = os.listdir(f"/proc/{process}/task")
        except OSError:  # it has ended
            continue
        states = [_stat(f"/proc/{process}/task/{t}/stat")[0] for t in tasks if int(t) != without]
        count += states.count("R")
    return count


def _stat(path: str) -> tuple[str, str]:
    """Return the state of a process or thread, and the parent's number; empty if it has ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return "", ""
    return state, parent


def engines(names: list[str], workers: int) -> list[Engine]:
    """Return the engines of these names, after the search in this process."""
    cpus = available_cpus()
    found = [
        Engine("one job, 1 thread", 1, {"backend": "threading"}, 1),
        Engine(f"one job, {cpus} threads", 1, {"backend": "threading"}, cpus),
    ]
    if "loky" in names:
        found.append(Engine("loky", workers, {"backend": "loky"}, cpus))
    if "oversubscribed" in names:
        too_many = {"backend": "loky", "inner_max_num_threads": cpus}
        found.append(Engine("oversubscribed", workers, too_many, cpus))
    if "threading" in names:
        found.append(Engine("threading", workers, {"backend": "threading"}, 1))
    if "dask" in names:
        found.append(Engine("Dask LocalCluster", workers, {"backend": "dask"}, cpus))
    return found


@contextmanager
def cluster(workers: int, wanted: bool) -> Iterator[None]:
    """Start a cluster of Dask, which is the one that joblib then uses."""
    if not wanted:
        yield
        return
    from distributed import Client, LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as local, Client(local):
        yield


def problem(n: int) -> tuple[Any, Any]:
    """Return sequences, and whether the sum of a feature exceeds that of another."""
    X = np.random.default_rng(0).normal(size=(n, 50, 8)).astype(np.float32)
    return X, (X[..., 0] > X[..., 1]).sum(axis=1) > 25


def main() -> None:
    """Print a line for each engine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"some of {ENGINES}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="4 candidates, once, of less data")
    args = parser.parse_args()
    names = [n for n in args.engines.split(",") if n != "dask" or find_spec("distributed")]
    grid = GRID
    if args.quick:
        args.repeats, args.sequences, args.epochs = 1, 60, 1
        grid = GRID | {"lr": [1e-2]}
    # Workers follow the limits of joblib and Dask, rather than one of the environment's.
    for name in ("FASTRNN_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)
    about = report.machine()
    for name, value in about.items():
        print(f"{name + ':':20}{value}")
    print()
    X, y = problem(args.sequences)
    chosen = engines(names, args.workers)
    for dask in (False, True):  # whose cluster takes some time even when it is idle
        group = [e for e in chosen if (e.config["backend"] == "dask") is dask]
        with cluster(args.workers, dask and bool(group)):
            for _ in range(args.repeats):
                for engine in group:
                    engine.run(X, y, grid, args.epochs)
    show(chosen)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            rows = [{k: v for k, v in vars(e).items() if k != "config"} for e in chosen]
            json.dump({"machine": about, "engines": rows}, file, indent=1)


def show(chosen: list[Engine]) -> None:
    """Print the table."""
    heading = [
        "", "jobs", "threads each", "least", "median", "speedup", "same scores", "threads running",
        "at most",
    ]  # fmt: skip
    table = report.Table(heading, (18, 4))
    first = chosen[0]
    for engine in chosen:
        running = engine.running or [0]
        table.print(
            [
                engine.name, str(engine.jobs), "/".join(map(str, sorted({*engine.limits}))),
                f"{min(engine.seconds):.2f} s", f"{statistics.median(engine.seconds):.2f} s",
                f"{min(first.seconds) / min(engine.seconds):.2f}",
                str(engine.scores == first.scores), f"{statistics.mean(running):.1f}",
                str(max(running)),
            ]
        )  # fmt: skip


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
    main()
