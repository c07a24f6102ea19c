"""The processes that train one model together, and the messages between them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array

#: A message: the other rank, and the bytes to send or to overwrite.
Message = tuple[int, Array]

T_value = TypeVar("T_value")

_DATA, _FAILED = 1, 2


class Ranks:
    """One process alone; a subclass is one of several.

    As a context, it tells the other ranks if this one fails, so that none waits for it.

    Attributes
    ----------
    rank : int
        0 to `size` - 1.
    size : int
        The number of processes.
    """

    rank, size = 0, 1

    def transfer(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        """Send and receive arrays of bytes at once; raise RuntimeError if another rank failed."""
        raise NotImplementedError

    def fail(self, message: str) -> None:
        """Tell the other ranks that this one has failed."""

    def close(self) -> None:
        """Free resources, when all ranks have ended well."""

    def share(self, make: Callable[[], T_value]) -> T_value:
        """Return on all ranks what `make` returns on rank 0, which alone calls it."""
        made = [make()] if self.rank == 0 else []
        shared: T_value = self.gather(made)[0][0]
        return shared

    def gather(self, value: T_value) -> list[T_value]:
        """Return the values of all ranks, on all ranks. They are pickled."""
        if self.size == 1:
            return [value]
        others = range(1, self.size)
        if self.rank:
            self._send([0], value)
            (gathered,) = self._receive([0])
            return list(gathered)
        gathered = [value, *self._receive(others)]
        self._send(others, gathered)
        return gathered

    def _send(self, to: Sequence[int], value: Any) -> None:
        data = np.frombuffer(pickle.dumps(value, protocol=5), np.uint8)
        size = np.array([data.size]).view(np.uint8)
        self.transfer([(rank, size) for rank in to], [])
        self.transfer([(rank, data) for rank in to], [])

    def _receive(self, ranks: Sequence[int]) -> list[Any]:
        sizes = np.empty(len(ranks), np.int64)
        self.transfer([], [(r, sizes[i : i + 1].view(np.uint8)) for i, r in enumerate(ranks)])
        parts = [np.empty(size, np.uint8) for size in sizes]
        self.transfer([], list(zip(ranks, parts, strict=True)))
        return [pickle.loads(part.data) for part in parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif not isinstance(error, RankError):
            self.fail(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


class RankError(RuntimeError):
    """Another process of the training has failed."""

    @classmethod
    def of(cls, rank: int, size: int, message: str) -> Self:
        """Return the error that names the rank and what it said."""
        return cls(f"fit: ended, as rank {rank} of {size} failed with {message}")


class MPIRanks(Ranks):
    """One of the processes of an MPI communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        Is duplicated, so that other messages of the program do not interfere.
    """

    #: Buffers of messages that were under way when a rank failed: MPI may still write to them.
    _abandoned: list[Any] = []  # noqa: RUF012 (of the process)

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._comm = comm.Dup()
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()

    def transfer(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        """Send and receive arrays of bytes at once; raise RankError if another rank failed."""
        comm, byte = self._comm, self._mpi.BYTE
        requests = [comm.Irecv([a, byte], rank, _DATA) for rank, a in receives]
        requests += [comm.Isend([a, byte], rank, _DATA) for rank, a in sends]
        try:
            while not self._mpi.Request.Testall(requests):
                if comm.Iprobe(self._mpi.ANY_SOURCE, _FAILED):
                    self._raise_failure()
                os.sched_yield()
        except BaseException:
            self._abandoned.append((requests, sends, receives))
            raise

    def _raise_failure(self) -> None:
        status = self._mpi.Status()
        message = self._comm.recv(None, self._mpi.ANY_SOURCE, _FAILED, status)
        raise RankError.of(status.Get_source(), self.size, message)

    def fail(self, message: str) -> None:
        """Tell the other ranks that this one has failed."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._abandoned.append([self._comm.isend(message, rank, _FAILED) for rank in others])

    def close(self) -> None:
        """Free the communicator."""
        self._comm.Free()


def ranks_of(comm: Any) -> Ranks:
    """Return the ranks of a communicator; None stands for this process alone."""
    if comm is None:
        return Ranks()
    if isinstance(comm, Ranks):
        return comm
    if not all(hasattr(comm, name) for name in ("Dup", "Get_rank", "Isend", "Irecv", "Iprobe")):
        raise TypeError(
            f"comm: expected a communicator of mpi4py, such as MPI.COMM_WORLD, got "
            f"{_checks.kind_of(comm)}"
        )
    return MPIRanks(comm)
