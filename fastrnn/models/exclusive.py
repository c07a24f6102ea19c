"""Mutual exclusion without waiting."""

from __future__ import annotations

from _thread import allocate_lock  # what threading.Lock is, and imported sooner
from typing import Any


class Exclusive:
    """A non-reentrant lock that raises instead of waiting.

    Copies and pickles are unlocked.

    Parameters
    ----------
    message : str
        Message of the RuntimeError.
    """

    __slots__ = ("_lock", "_message")

    def __init__(self, message: str) -> None:
        self._lock, self._message = allocate_lock(), message

    def refuse_if_taken(self) -> None:
        """Raise if the lock is held."""
        if self._lock.locked():
            raise RuntimeError(self._message)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(self._message)

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        return type(self), (self._message,)
