"""Signals whose handlers raise, such as Ctrl-C: where they act, and where they have to wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class _Hold:
    """The handler of signals that may have to wait.

    Attributes
    ----------
    acts : bool
        Whether the next signal is handled at once, by the handler before. Later ones wait.
    """

    def __init__(self, acts: bool) -> None:
        self.acts = acts
        self.before: dict[int, Any] = {}
        self._came: list[tuple[int, Any]] = []

    def handle(self, number: int, frame: Any) -> None:
        """Handle a signal, or keep it."""
        if self.acts:
            self.acts = False
            self.before[number](number, frame)
        else:
            self._came.append((number, frame))

    def replay(self) -> None:
        """Handle the first of the signals that wait; drop the others."""
        came, self._came = self._came, []
        for number, frame in came[:1]:
            self.before[number](number, frame)


_holds: list[_Hold] = []


@contextmanager
def held(numbers: Iterable[int], *, at_first: bool) -> Iterator[None]:
    """Hold back signals until the end of the block, where the first of them is handled.

    Only those that have a handler in Python, and only in the main thread.

    Parameters
    ----------
    numbers : iterable of int
    at_first : bool
        Whether they wait from the beginning; else from the end of the first block that is
        :func:`interruptible`, or from the first signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hold = _Hold(acts=not at_first)
    _holds.append(hold)
    try:
        for number in numbers:
            handler = signal.getsignal(number)
            if callable(handler):
                hold.before[number] = handler
                signal.signal(number, hold.handle)
        yield
    finally:
        for number, handler in hold.before.items():
            if signal.getsignal(number) == hold.handle:  # else somebody wants another one now
                signal.signal(number, handler)
        _holds.remove(hold)
    hold.replay()


@contextmanager
def interruptible() -> Iterator[None]:
    """Handle signals at once in this block, even within :func:`held`: first one that waited."""
    if not _holds or threading.current_thread() is not threading.main_thread():
        yield
        return
    hold = _holds[-1]
    try:
        hold.acts = True
        hold.replay()
        yield
    finally:
        hold.acts = False
