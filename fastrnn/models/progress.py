"""Display of a training's progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn.models.callback import Callback, Logs, Options

#: Where stderr is not a terminal, a line of progress is printed this often.
_SECONDS_PER_LINE = 5.0

#: A bar is redrawn this often, as in tqdm.
_SECONDS_PER_DRAWING = 0.1


class Display:
    """Progress on stderr: bars on a terminal, else lines.

    Parameters
    ----------
    item : str
        What is counted, such as ``"seq"``; the speed is shown in items per second.
    units : mapping of str to str, optional
        Units of the quantities, by name: ``{"validation": "bits/char"}``.
    within : bool
        Whether to show progress between :meth:`begin` and :meth:`end`.
    """

    def __init__(
        self, item: str, *, units: Mapping[str, str] | None = None, within: bool = True
    ) -> None:
        self._item, self._units, self._within = item, dict(units or {}), within
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._title = self._line = ""
        self._start, self._begun_at, self._done_before = 0.0, 0, 0.0
        self._next = time.perf_counter() + _SECONDS_PER_LINE

    def begin(self, title: str, count: int = 0, done: float = 0.0) -> None:
        """Start a bar.

        Parameters
        ----------
        title : str
        count : int
            Items already done.
        done : float
            The same as a fraction of the whole, 0 to 1.
        """
        self._start = time.perf_counter()
        self._title, self._begun_at, self._done_before = title, count, done
        if self._within and self._terminal:
            shape = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            self._bar = bar(shape, total=1.0, initial=done, desc=f"{title} " if title else "")
            self._next = self._start

    def update(self, count: int, done: float, numbers: Mapping[str, float]) -> None:
        """Show the progress, unless it was shown just now.

        Parameters
        ----------
        count : int
            Items done.
        done : float
            The same as a fraction of the whole, 0 to 1.
        numbers : mapping of str to float
            Quantities such as losses, by name.
        """
        now = time.perf_counter()
        if not self._within or now < self._next:
            return
        said = self._said(numbers, count, now)
        if self._bar is not None:
            self._next = now + _SECONDS_PER_DRAWING
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(done - self._bar.n)
        else:
            since = max(done - self._done_before, 1e-9)
            left = (now - self._start) * (1 - done) / since
            self._say(f"{done:4.0%}  {said}, {left:.0f} s left", now)

    def end(self, count: int, numbers: Mapping[str, float]) -> None:
        """Show the whole as done."""
        now = time.perf_counter()
        said = self._said(numbers, count, now)
        if self._bar is not None:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(1 - self._bar.n)
            self._close_bar()
        else:
            whole = "" if self._title else "100%  "
            self._say(f"{whole}{now - self._start:.1f} s  {said}", now)

    def close(self) -> None:
        """Close an unfinished bar, and print a pending line."""
        self._close_bar()
        self._print_line()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _said(self, numbers: Mapping[str, float], count: int, now: float) -> str:
        speed = (count - self._begun_at) / max(now - self._start, 1e-9)
        said = [
            f"{name} {value:.4g} {self._units.get(name, '')}".rstrip()
            for name, value in numbers.items()
        ]
        return ", ".join([*said, f"{speed:,.0f} {self._item}/s"])

    def _say(self, said: str, now: float) -> None:
        """Print a line, or, if one was printed just now, hold it back until :meth:`close`."""
        self._line = f"{self._title}  {said}".lstrip()
        if now >= self._next or not self._within:
            self._next = now + _SECONDS_PER_LINE
            self._print_line()

    def _print_line(self) -> None:
        if self._line:
            print(self._line, file=sys.stderr, flush=True)
        self._line = ""


def bar(shape: str, **options: Any) -> Any:
    """Return a tqdm bar of this format on stderr, as wide as the terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm_bar = tqdm(bar_format=shape, dynamic_ncols=True, file=sys.stderr, **options)
    if (tqdm_bar.ncols or 80) < 1:  # The terminal's size is unknown: tqdm would cut all off.
        tqdm_bar.ncols, tqdm_bar.nrows, tqdm_bar.dynamic_ncols = 80, 24, None
    return tqdm_bar


class ProgressBar(Callback):
    """Progress on stderr: a bar for each epoch on a terminal, else lines.

    ``fit(verbose=1)`` is the same as having one among the callbacks.

    Parameters
    ----------
    batches : bool
        Whether to show progress within an epoch; lines are then printed every few seconds and at
        the end of the training. Otherwise a line is printed after each epoch.
    """

    _options: ClassVar[Options] = {"batches": _checks.flag}

    batches: bool

    def __init__(self, batches: bool = True) -> None:
        self.batches = batches
        self._display: Display | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Create the display."""
        self._display = Display("seq", within=self.batches)

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Start a bar."""
        if self._display is not None:
            count, samples = self.progress.sequences, self.progress.samples
            title = f"epoch {epoch + 1}/{self.progress.epochs}"
            self._display.begin(title, count, count / samples)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Update the display."""
        if self._display is not None:
            count = self.progress.sequences
            self._display.update(count, count / self.progress.samples, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Show the results of the epoch and its validation."""
        if self._display is not None:
            self._display.end(self.progress.samples, logs)

    def on_train_end(self, logs: Logs) -> None:
        """Close the bar of an unfinished epoch, and print a pending line."""
        if self._display is not None:
            self._display.close()
        self._display = None
