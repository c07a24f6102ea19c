"""Mutual exclusion without waiting."""

from __future__ import annotations

import os
from _thread import allocate_lock  # what threading.Lock is, and imported sooner
from typing import Any

#: Why a stream refuses a second thread.
BUSY = "stream: two threads use it at once; give each a stream of its own"

#: Why it refuses to go on after a fork.
FORKED = (
    "stream: another thread was using it when this process was forked, so its state may be that of "
    "half a step; reset() it, or assign its state"
)


class Exclusive:
    """A non-reentrant lock that raises instead of waiting.

    Copies and pickles are unlocked.

    Parameters
    ----------
    message : str
        Message of the RuntimeError.
    forked : str, optional
        Message of the RuntimeError in the child of a fork during which another thread, which the
        child lacks, held the lock. Default: none, the lock is free there.
    """

    __slots__ = ("_forked", "_held", "_locks", "_message")

    def __init__(self, message: str, forked: str | None = None) -> None:
        self._message, self._forked = message, forked
        #: By process: a child that was forked has a new one beside those of its ancestors.
        self._locks = {os.getpid(): allocate_lock()}
        self._held: Any = None

    def _own(self) -> Any:
        """Return this process's lock."""
        process = os.getpid()
        return self._locks.get(process) or self._locks.setdefault(process, allocate_lock())

    def _inherited(self) -> bool:
        """Return whether a thread of an ancestor held the lock when the process was forked."""
        process = os.getpid()
        return any(lock.locked() for of, lock in [*self._locks.items()] if of != process)

    def refuse_if_taken(self) -> None:
        """Raise if the lock is held."""
        if self._own().locked():
            raise RuntimeError(self._message)

    def begin_anew(self) -> bool:
        """Make it usable, if another thread used it when this process was forked.

        Returns
        -------
        bool
            Whether one did: it held the lock, which is free now.
        """
        if not self._inherited():
            return False
        self._locks = {os.getpid(): self._own()}
        return True

    def __enter__(self) -> None:
        lock = self._own()
        if self._forked is not None and len(self._locks) > 1 and self._inherited():
            raise RuntimeError(self._forked)
        if not lock.acquire(blocking=False):
            raise RuntimeError(self._message)
        self._held = lock

    def __exit__(self, *_: object) -> None:
        # The one that was taken: the body may have been forked.
        held, self._held = self._held, None
        held.release()

    def __reduce__(self) -> Any:
        return type(self), (self._message, self._forked)
