"""Display of progress on stderr."""

from __future__ import annotations

import io
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn.models.callback import Callback, Logs, Options

#: A bar is redrawn this often, as in tqdm.
_SECONDS_PER_DRAWING = 0.1

#: In a pipe, work without a title prints a line this often, and less often the longer it takes:
#: after this fraction of the time taken so far.
_SECONDS_PER_LINE, _FRACTION_PER_LINE = 5.0, 0.1

#: A terminal that does not tell its size is taken to have that of the VT100.
_TERMINAL = os.terminal_size((80, 24))

#: Shapes of a bar, from the widest to the narrowest, and of one whose end is unknown.
_BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_NO_BAR = "{desc}{percentage:3.0f}%{postfix}"
_NO_TITLE = "{percentage:3.0f}%{postfix}"
_NO_END = "{desc}{elapsed}{postfix}"

#: Cells of a bar in tqdm where the width is unlimited, and the fewest that are worth their place.
_CELLS, _FEWEST_CELLS = 10, 5


class Display:
    """Progress on stderr: bars in a terminal or a notebook, else lines.

    Progress that can't be written, for want of a stderr or of somebody who reads it, is left out:
    it never ends the work.

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
        self._stream = _stream()
        self._bar: _Bar | None = None
        self._title = ""
        self._start, self._begun_at, self._done_before = 0.0, 0, 0.0
        self._next = math.inf  #: When to show the progress again.

    def begin(self, title: str, count: int = 0, done: float = 0.0) -> None:
        """Start a bar, or the time of a line.

        Parameters
        ----------
        title : str
            Such as ``"epoch 1/10"``, which is one line in a pipe. Work without a title also prints
            lines in between.
        count : int
            Items already done.
        done : float
            The same as a fraction of the whole, 0 to 1.
        """
        self._start = time.perf_counter()
        self._title, self._begun_at, self._done_before = title, count, done
        self._next = math.inf
        if self._within and _redraws(self._stream):
            self._next = self._start
            self._write(self._begin_bar, done)
        elif self._within and not title:
            self._next = self._start + _SECONDS_PER_LINE

    def update(self, count: int, done: float, numbers: Mapping[str, Any]) -> None:
        """Show the progress, unless it was shown just now.

        Parameters
        ----------
        count : int
            Items done.
        done : float
            The same as a fraction of the whole, 0 to 1; 0 if the whole is unknown.
        numbers : mapping of str to float
            Quantities such as losses, by name.
        """
        now = time.perf_counter()
        if now < self._next:
            return
        said, speed = self._said(numbers), self._speed(count, now)
        endless = count > 0 and not done
        if endless:
            said.insert(0, f"{count:,} {self._item}")
        if self._bar is not None:
            self._next = now + _SECONDS_PER_DRAWING
            self._write(self._bar.draw, done, endless, said, speed)
            return
        taken = now - self._start
        self._next = now + max(_SECONDS_PER_LINE, _FRACTION_PER_LINE * taken)
        if endless:
            self._write_line(f"{taken:.0f} s", [*said, *speed])
        else:
            left = taken * (1 - done) / max(done - self._done_before, 1e-9)
            self._write_line(f"{done:4.0%}", [*said, *speed, f"{left:.0f} s left"])

    def end(self, count: int, numbers: Mapping[str, Any]) -> None:
        """Show the whole as done."""
        now = time.perf_counter()
        said, speed = self._said(numbers), self._speed(count, now)
        title = f"{self._title or '100%'}  {now - self._start:.1f} s"
        self._next = math.inf
        bar, self._bar = self._bar, None
        if bar is not None:
            self._write(bar.finish, title, said, speed)
        else:
            self._write_line(title, [*said, *speed])

    def close(self) -> None:
        """Close an unfinished bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            self._write(bar.close)

    def _begin_bar(self, done: float) -> None:
        self._bar = _Bar(self._stream, f"{self._title} " if self._title else "", done)

    def _said(self, numbers: Mapping[str, Any]) -> list[str]:
        return [
            f"{name} {_number(value)} {self._units.get(name, '')}".rstrip()
            for name, value in numbers.items()
        ]

    def _speed(self, count: int, now: float) -> list[str]:
        done = count - self._begun_at
        return [f"{done / max(now - self._start, 1e-9):,.0f} {self._item}/s"] if done else []

    def _write_line(self, title: str, said: Sequence[str]) -> None:
        columns = _size(self._stream).columns if _is_terminal(self._stream) else math.inf
        self._write(_write_line, self._stream, _wrapped(title, said, columns))

    def _write(self, write: Callable[..., None], *arguments: Any) -> None:
        """Write to stderr; be silent from now on if it is closed or nobody reads it."""
        if self._stream is None:
            return
        try:
            write(*arguments)
        except (OSError, ValueError):
            self._stream, self._next = None, math.inf
            bar, self._bar = self._bar, None
            with suppress(OSError, ValueError):
                if bar is not None:
                    bar.close()


def tell(line: str) -> None:
    """Write a line to stderr as a display does: between bars, and nothing without a stderr."""
    with suppress(AttributeError, OSError, ValueError):
        _write_line(_stream(), line)


class _Bar:
    """A bar of tqdm in which the numbers have the first place."""

    def __init__(self, stream: Any, title: str, done: float) -> None:
        self._stream = stream
        kind, size, notebook = _tqdm(), _size(stream), _is_notebook(stream)
        self._widget = any(base.__module__ == "tqdm.notebook" for base in kind.__mro__)
        place = {"ncols": size.columns, "nrows": size.lines}
        colour = {"colour": None} if os.environ.get("NO_COLOR") else {}
        # Locked, as other threads don't clear a bar that tqdm is about to open or to close.
        with kind.get_lock():
            self._bar = kind(
                total=1.0,
                initial=done,
                desc=_encodable(title, stream),
                bar_format=_BAR,
                file=io.StringIO() if notebook else stream,
                **({"display": False} if self._widget else place),
                **colour,
            )
        self._shown: Any = None  #: What a notebook shows.
        if notebook and not self._bar.disable:
            from IPython.display import display

            first = self._bar.container if self._widget else {"text/plain": str(self._bar)}
            self._shown = display(first, raw=not self._widget, display_id=True)

    def draw(self, done: float, endless: bool, said: list[str], speed: list[str]) -> None:
        if endless:
            narrow, shapes = _NO_END, [(_NO_END, [*said, *speed])]
        else:
            narrow, shapes = _NO_TITLE, [*_with_bar(said, speed), (_NO_BAR, said)]
        self._fit(done, [*shapes, *((narrow, said[:n]) for n in range(len(said), -1, -1))])
        if self._shown is None or self._widget:
            # tqdm's own locking would leave all bars locked if Ctrl-C came while it draws.
            with self._bar.get_lock():
                self._bar.refresh(nolock=True)
        else:
            self._show(str(self._bar))

    def finish(self, title: str, said: list[str], speed: list[str]) -> None:
        """Close the bar; if the numbers need more than its line, lines take its place."""
        with self._bar.get_lock():
            self._bar.leave = self._fit(1.0, _with_bar(said, speed))
            self._bar.close()
        if self._shown is not None:
            self._show(_wrapped(title, [*said, *speed], math.inf))
        elif not self._bar.leave:
            _write_line(self._stream, _wrapped(title, said, _size(self._stream).columns))

    def close(self) -> None:
        with self._bar.get_lock():
            self._bar.close()
        if self._shown is not None:
            self._show(str(self._bar))

    def _show(self, text: str) -> None:
        """Show a text in a notebook; a widget would be gone from it once its kernel is."""
        self._shown.update({"text/plain": text}, raw=True)

    def _fit(self, done: float, shapes: Iterable[tuple[str, list[str]]]) -> bool:
        """Take the first shape that is narrow enough; return whether there is one."""
        bar, columns = self._bar, _size(self._stream).columns
        if bar.disable:  # by TQDM_DISABLE
            return True
        bar.n = done
        for bar.bar_format, said in shapes:
            bar.postfix, bar.ncols = _encodable(", ".join(said), self._stream), None
            if self._widget:  # has room
                return True
            spare = _CELLS - _FEWEST_CELLS if bar.bar_format == _BAR else 0
            fits = _width(str(bar)) - spare <= columns
            bar.ncols = columns
            if fits:
                return True
        return False


def _with_bar(said: list[str], speed: list[str]) -> list[tuple[str, list[str]]]:
    return [(_BAR, [*said, *speed]), (_BAR, said)]


@cache
def _tqdm() -> Any:
    with warnings.catch_warnings():
        # In a notebook without ipywidgets, where tqdm's bar is one of text.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        # tqdm's thread redraws bars that are seldom updated. It would stay for ever, and
        # warn where a process with threads forks.
        monitor_interval = 0

    return Bar


def _stream() -> Any:
    """Return stderr, or None if there is none; in a notebook stdout, as stderr is red there."""
    stream = sys.stdout if _is_notebook(sys.stderr) and _is_notebook(sys.stdout) else sys.stderr
    return stream if hasattr(stream, "write") else None


def _redraws(stream: Any) -> bool:
    """Return whether a line can be drawn again."""
    return _is_notebook(stream) or (_is_terminal(stream) and os.environ.get("TERM") != "dumb")


def _is_notebook(stream: Any) -> bool:
    return type(stream).__module__.partition(".")[0] == "ipykernel"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def _size(stream: Any) -> os.terminal_size:
    """Return columns and lines for bars: all but those of a new line and of an echoed ``^C``."""
    size = _TERMINAL
    with suppress(AttributeError, OSError, ValueError):
        told = os.get_terminal_size(stream.fileno())
        size = told if min(told) > 0 and _is_terminal(stream) else size
    return os.terminal_size((size.columns - 2, size.lines - 1))


def _write_line(stream: Any, line: str) -> None:
    """Write a line between the bars that there may be, at once: other threads write, too."""
    line, bars = _encodable(line, stream), sys.modules.get("tqdm.std")
    if bars is not None:
        bars.tqdm.write(line, file=stream)
    else:
        stream.write(line + "\n")
    with suppress(AttributeError):
        stream.flush()


def _wrapped(title: str, said: Sequence[str], columns: float) -> str:
    """Join by commas, in lines of at most this width if what is said allows it."""
    if columns == math.inf:
        return "  ".join([title, *filter(None, [", ".join(said)])])
    lines, space = [title], "  "
    for text in said:
        if _width(lines[-1] + space + text) < columns:  # and a comma
            lines[-1] += space + text
        else:
            lines[-1] += space.rstrip()
            lines.append(f"  {text}")
        space = ", "
    return "\n".join(lines)


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    from tqdm.utils import disp_len  # type: ignore[import-untyped]

    return int(disp_len(text))


def _number(value: Any) -> str:
    try:
        return f"{value:.4g}"
    except (TypeError, ValueError):  # of a callback's own
        return str(value)


def _encodable(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class ProgressBar(Callback):
    """Progress on stderr: for each epoch a bar in a terminal or a notebook, else a line.

    ``fit(verbose=1)`` is the same as having one among the callbacks. The bars are tqdm's, which
    heeds ``NO_COLOR`` and variables of its own such as ``TQDM_DISABLE``.

    Parameters
    ----------
    batches : bool
        Whether to show progress within an epoch. Otherwise a line is printed after each epoch,
        in a terminal and a notebook as well.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> bar = fastrnn.callbacks.ProgressBar(batches=False)
    >>> history = model.fit(X, y, epochs=2, callbacks=[bar], verbose=0)  # 2 lines on stderr
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
            title = f"epoch {epoch + 1}/{self.progress.epochs}"
            self._display.begin(title, self.progress.sequences, self.progress.done)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Update the display."""
        if self._display is not None:
            self._display.update(self.progress.sequences, self.progress.done, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Show the results of the epoch and its validation."""
        if self._display is not None:
            self._display.end(self.progress.sequences, logs)

    def on_train_end(self, logs: Logs) -> None:
        """Close the bar of an unfinished epoch."""
        if self._display is not None:
            self._display.close()
        self._display = None


def with_bar(callbacks: Sequence[Callback], verbose: int) -> list[Callback]:
    """Return callbacks with a progress bar as `verbose` asks for, unless one is among them."""
    has_one = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return [*([ProgressBar(verbose == 1)] if verbose and not has_one else []), *callbacks]


class TrainingBar(Callback):
    """Progress on stderr: one bar for the whole training in a terminal or a notebook, else a line.

    For trainings of many short epochs.

    Parameters
    ----------
    title : str
        Of the bar.
    """

    title: str

    def __init__(self, title: str) -> None:
        self.title = title
        self._display: Display | None = None

    def on_train_begin(self, logs: Logs) -> None:
        """Start the bar."""
        self._display = Display("epochs")
        self._display.begin(self.title)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Update the display; end it after the last epoch."""
        if self._display is None:
            return
        done, epochs = epoch + 1, self.progress.epochs
        if done == epochs:
            self._display.end(done, logs)
        else:
            self._display.update(done, done / epochs, logs)

    def on_train_end(self, logs: Logs) -> None:
        """Close the bar of an unfinished training."""
        if self._display is not None:
            self._display.close()
        self._display = None
