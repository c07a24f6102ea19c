"""A process per peer and number of threads, which times rows on request, in turn.

Each library has threads of its own, whose number is set for a whole process. Run as a script, this
module is such a process. Another module defines the peers: its `ALL` has their names, those of
fastrnn's own contenders begin with "fastrnn", and its `Problem` the arrays of a row.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from peers import environment

import fastrnn
from fastrnn._bench.peers import accepted
from fastrnn._bench.report import Line
from fastrnn._bench.rows import Work
from fastrnn._bench.timing import Array, Contender, paired
from fastrnn._core.config import available_cpus

#: Seconds to wait before a turn, as the threads of the previous process may still spin.
_QUIET = 0.03
#: A timing of n calls is preceded by n / _WARM_UP untimed ones, to wake threads and fill caches.
_WARM_UP = 4


class Worker:
    """The parent's end of such a process.

    Parameters
    ----------
    peers : str
        Module that defines the peers.
    peer : str
        Name of the peer.
    threads : int
    python : str
        The interpreter; fastrnn must be importable there too.
    backend : str, optional
        ``FASTRNN_BACKEND``. Default: the process's own choice.
    """

    def __init__(
        self, peers: str, peer: str, threads: int, python: str, backend: str | None
    ) -> None:
        self.peer, self.threads = peer, threads
        self._pipe, theirs = Pipe()
        env = os.environ | environment(peer, threads, backend)
        command = [python, __file__, str(theirs.fileno()), peers, peer, str(threads)]
        self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()

    def about(self) -> str | None:
        """Return the version, or None if the peer can't be imported; a dict for fastrnn."""
        return self._ask("about")

    def prepare(
        self, row: Work, truth: dict[str, Array], seconds: float
    ) -> tuple[float | None, str]:
        """Return its error, None if it can't do the row, and what is wrong."""
        return self._ask("prepare", row, truth, seconds)

    def seconds(self) -> float:
        """Return the seconds per call, timed once."""
        time.sleep(_QUIET)
        return self._ask("seconds")

    def _ask(self, *question: Any) -> Any:
        try:
            self._pipe.send(question)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(
                f"{self.peer} on {self.threads} threads ended unexpectedly"
            ) from None

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def options(parser: argparse.ArgumentParser, names: Collection[str]) -> argparse.Namespace:
    """Parse the command line, with the options of all commands that use workers."""
    ours = [name for name in names if name.startswith("fastrnn")]
    peers = [name for name in names if name not in ours]

    def some(text: str) -> list[str]:
        for name in text.split(","):
            if name not in peers:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(peers)}")
        return text.split(",")

    parser.add_argument("--peers", type=some, help=f"some of {', '.join(peers)}")
    parser.add_argument(
        "--peer-python",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="interpreter of a peer that can't be installed with the others",
    )
    parser.add_argument("--backend", choices=fastrnn.backends(), default=fastrnn.backend())
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--threads",
        type=_numbers,
        default=sorted({1, min(2, available_cpus())}),
        help="numbers of threads to try (default: 1,2)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.05, help="duration of one timing")
    parser.add_argument("--quick", action="store_true", help="a row of each class, as a smoke test")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.peers is None:
        args.peers = [n for n in peers if n != "torch-avx2" or args.backend == "avx2"]
    if args.quick:
        args.rounds, args.seconds = 1, 1e-3
    args.names = [*ours, *args.peers]
    return args


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, value


def _numbers(text: str) -> list[int]:
    return sorted({int(number) for number in text.split(",")})


@contextmanager
def started(peers: str, args: argparse.Namespace) -> Iterator[tuple[list[Worker], dict[str, str]]]:
    """Start the workers asked for; return them, and each one's version or that it is missing."""
    pythons, workers, versions = dict(args.peer_python), [], {}
    with ExitStack() as stack:
        stack.enter_context(fastrnn.use_backend(args.backend))
        for name in args.names:
            for n in args.threads:
                worker = Worker(peers, name, n, pythons.get(name, sys.executable), args.backend)
                stack.callback(worker.close)
                version = worker.about()
                versions[name] = version or "not installed"
                if version is None:
                    break
                workers.append(worker)
        yield workers, versions


@dataclass(frozen=True)
class Times:
    """What was measured of a row, by the names of libraries.

    Attributes
    ----------
    row : Work
    medians : dict of str to dict of int to float
        Seconds per call, by the number of threads.
    errors : dict of str to float
    notes : dict of str to str
    """

    row: Work
    medians: dict[str, dict[int, float]]
    errors: dict[str, float]
    notes: dict[str, str]

    def best(self, name: str) -> float:
        """Return the seconds per call at the better number of threads."""
        return min(self.medians[name].values())

    def line(self, ours: str, peers: Collection[str]) -> Line:
        """Return the line of a table: ours beside those of the peers that were timed."""
        notes = {name: note for name, note in self.notes.items() if name in (ours, *peers)}
        if ours not in self.medians:
            raise RuntimeError(f"{self.row}: our own result is refused: {notes.get(ours)}")
        timed = [name for name in peers if name in self.medians]
        of = {name: self.medians[name] for name in (ours, *timed)}
        threads = min(of[ours], key=of[ours].__getitem__)
        errors = {name: self.errors[name] for name in of}
        best = {name: self.best(name) for name in timed}
        details = {"threads": threads, "medians": of}
        return Line(self.row, self.best(ours), best, notes, errors, details, ours)


def compared(
    problem: Any,
    workers: list[Worker],
    args: argparse.Namespace,
    each_round: Callable[[], None] = lambda: None,
) -> Times:
    """Time a row in all workers in turn; those that die on it are removed."""
    row, truth = problem.row, problem.truth()
    notes, ready, errors = {}, [], {}
    for worker in list(workers):
        try:
            error, note = worker.prepare(row, truth, args.seconds)
        except RuntimeError as ended:
            error, note = None, f"ended: {ended}"
            workers.remove(worker)
        if error is not None:
            ready.append(worker)
            errors[worker.peer] = max(error, errors.get(worker.peer, 0.0))
        if note:
            notes[worker.peer] = note
    times: dict[Worker, list[float]] = {worker: [] for worker in ready}
    for _ in range(args.rounds):
        each_round()
        for worker in ready:
            times[worker].append(worker.seconds())
    medians: dict[str, dict[int, float]] = {}
    for worker, mine in times.items():
        medians.setdefault(worker.peer, {})[worker.threads] = statistics.median(mine)
    return Times(row, medians, errors, notes)


class _Served:
    """The worker's end: the answer to each request."""

    def __init__(self, peers: str, peer: str, threads: int) -> None:
        module = importlib.import_module(peers)
        self.peer, self.problem, self.threads = module.ALL[peer], module.Problem, threads
        self.contender: Contender | None = None
        self.calls = 0

    def about(self) -> str | None:
        return None if self.peer.missing() else self.peer.version()

    def prepare(
        self, row: Work, truth: dict[str, Array], seconds: float
    ) -> tuple[float | None, str]:
        self.contender = None
        gc.collect()
        contenders, note = accepted(self.peer, self.problem.of(row), self.threads, truth)
        if not contenders:
            return None, note
        times = paired(contenders, 3, seconds) if len(contenders) > 1 else [0.0]
        self.contender = contenders[times.index(min(times))]
        self.calls = self.contender.calls_for(seconds)
        return self.contender.error, note

    def seconds(self) -> float:
        assert self.contender is not None
        self.contender.seconds(max(1, self.calls // _WARM_UP))
        return self.contender.seconds(self.calls)


def main() -> None:
    descriptor, peers, peer, threads = sys.argv[1:]
    served, pipe = _Served(peers, peer, int(threads)), Connection(int(descriptor))
    try:
        while True:
            name, *arguments = pipe.recv()
            pipe.send(getattr(served, name)(*arguments))
    except (EOFError, KeyboardInterrupt):
        pass  # the other end is gone


if __name__ == "__main__":
    main()
