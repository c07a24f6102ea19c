"""A process per peer and number of threads, which is asked to time rows when it is its turn.

The libraries keep their threads for themselves, and a number of threads holds for a whole process.
Run as a programme this module is such a process.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from peers import ALL, environment

from fastrnn._bench.peers import accepted
from fastrnn._bench.rows import Problem, Row
from fastrnn._bench.timing import Array, Contender, paired

#: Seconds to wait before a turn: the threads of the process before may spin so long.
_QUIET = 0.03
#: One call in so many goes untimed before a timing: it wakes threads and fills caches.
_WARM_UP = 4


class Worker:
    """Our end of such a process.

    Parameters
    ----------
    peer : str
        Name in `peers.ALL`.
    threads : int
    python : str
        The interpreter; fastrnn must be importable there too.
    backend : str, optional
        ``FASTRNN_BACKEND``; by default its own.
    """

    def __init__(self, peer: str, threads: int, python: str, backend: str | None) -> None:
        self.peer, self.threads = peer, threads
        self._pipe, theirs = Pipe()
        env = os.environ | environment(peer, threads, backend)
        command = [python, __file__, str(theirs.fileno()), peer, str(threads)]
        self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()

    def about(self) -> str | None:
        """Version, or None if the peer can't be imported; a dict of ours."""
        return self._ask("about")

    def prepare(self, row: Row, truth: dict[str, Array], seconds: float) -> tuple[bool, str]:
        """Whether it can do the row, and what is wrong."""
        return self._ask("prepare", row, truth, seconds)

    def seconds(self) -> float:
        """Seconds per call, timed once."""
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


class _Served:
    """Their end: what is done on each question."""

    def __init__(self, peer: str, threads: int) -> None:
        self.peer, self.threads = ALL[peer], threads
        self.contender: Contender | None = None
        self.calls = 0

    def about(self) -> str | None:
        return None if self.peer.missing() else self.peer.version()

    def prepare(self, row: Row, truth: dict[str, Array], seconds: float) -> tuple[bool, str]:
        self.contender = None
        gc.collect()
        found, note = accepted(self.peer, Problem.of(row), self.threads, truth)
        if not found:
            return False, note
        times = paired(found, 3, seconds) if len(found) > 1 else [0.0]
        self.contender = found[times.index(min(times))]
        self.calls = self.contender.calls_for(seconds)
        return True, note

    def seconds(self) -> float:
        assert self.contender is not None
        self.contender.seconds(max(1, self.calls // _WARM_UP))
        return self.contender.seconds(self.calls)


def main() -> None:
    descriptor, peer, threads = sys.argv[1:]
    served, pipe = _Served(peer, int(threads)), Connection(int(descriptor))
    try:
        while True:
            name, *arguments = pipe.recv()
            pipe.send(getattr(served, name)(*arguments))
    except (EOFError, KeyboardInterrupt):
        pass  # the other end is gone


if __name__ == "__main__":
    main()
