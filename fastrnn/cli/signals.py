"""Signals of the commands: what asks a process to end acts like Ctrl-C, and waits for a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fastrnn.models.interrupts import held

#: What ends a process by default: a service's manager, a closed terminal. Windows lacks the second.
_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


#: The signal that came.
_came: list[int] = []


class Ended(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes
    ----------
    number : int
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Let the first of the other signals act like Ctrl-C; those after it do nothing.

    Managers and terminals may send several, and what follows the first may be the saving of a
    model. A signal that is ignored, as by nohup, or handled by the program around, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_IGN)
        _came.append(number)
        raise Ended(number)

    _came.clear()
    handled = [number for number in _ENDS if signal.getsignal(number) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def end_if_asked() -> None:
    """Raise if one of the other signals came, and ended only a training: no more is wanted."""
    if _came:
        raise Ended(_came[0])


def later() -> AbstractContextManager[None]:
    """Hold back Ctrl-C and its kin until the end, where the first of them then acts."""
    return held((signal.SIGINT, *_ENDS), at_first=True)


def after_training() -> AbstractContextManager[None]:
    """Hold back Ctrl-C and its kin from a training's end until its model is saved."""
    return held((signal.SIGINT, *_ENDS), at_first=False)
