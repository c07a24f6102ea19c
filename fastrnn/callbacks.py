"""What happens while ``Sequential.fit`` trains: watching, stopping, keeping."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn.models import checkpoint
from fastrnn.models.history import History as History

if TYPE_CHECKING:
    from fastrnn.models.sequential import Sequential
    from fastrnn.models.trainer import Run

Logs = dict[str, float]

#: Where stderr is no terminal, a line of progress is printed this often.
_SECONDS_PER_LINE = 5.0

#: A bar is drawn anew this often, as tqdm does it.
_SECONDS_PER_DRAWING = 0.1


class Callback:
    """Hooks that ``fit`` calls, with Keras's names; override those of interest.

    `logs` has the losses and metrics so far: of the epoch in ``on_train_batch_end``, and with
    those of the validation in ``on_epoch_end``; what is added to it there goes into the history.

    Attributes
    ----------
    model : Sequential
        Being trained. Set ``model.stop_training = True`` to end the training.
    params : dict
        ``epochs``, ``steps`` (an epoch's, None where it varies) and ``samples``.
    """

    model: Sequential
    params: dict[str, Any]
    _run: Run
    #: Whether it keeps the state of the other callbacks, and so comes after them.
    _keeps_others = False

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch, and when the training ends by an error or Ctrl-C."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before an epoch, the first being 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a step of the optimizer, the first of an epoch being 0."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step of the optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know: numbers, strings, arrays, and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""


class _Monitor(Callback):
    """What follows one number."""

    def __init__(self, monitor: str, patience: int, min_delta: float, mode: str) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected a str, got {type(monitor).__name__}")
        self.monitor, self.mode = monitor, _checks.choice(mode, "mode", ("auto", "min", "max"))
        self.patience = _checks.size(patience, "patience", 0)
        self.min_delta = _checks.not_negative(min_delta, "min_delta")
        self.on_train_begin({})

    def on_train_begin(self, logs: Logs) -> None:
        """Forget the training before."""
        self.best = -math.inf if self._more_is_better else math.inf
        self.wait = 0

    @property
    def _more_is_better(self) -> bool:
        return self.monitor.endswith("accuracy") if self.mode == "auto" else self.mode == "max"

    def _better(self, logs: Logs) -> bool:
        """Whether the number is the best so far; counts the epochs since one was."""
        if self.monitor not in logs:
            raise ValueError(f"monitor: expected one of {sorted(logs)}, got {self.monitor!r}")
        gained = logs[self.monitor] - self.best
        better = (gained if self._more_is_better else -gained) > self.min_delta
        if better:
            self.best = logs[self.monitor]
        self.wait = 0 if better else self.wait + 1
        return better

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and how long ago it was."""
        return {"best": self.best, "wait": self.wait}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.best, self.wait = state["best"], state["wait"]


class EarlyStopping(_Monitor):
    """End the training when a number has not become better for a while.

    Parameters
    ----------
    monitor : str
        Which of the logs, such as ``"val_loss"``.
    patience : int
        The training ends after so many epochs without a better number; 0 is as good as 1.
    min_delta : float
        What is less than this better is not better.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" is "max" for accuracies only.
    restore_best_weights : bool
        Whether the training, however it ends, leaves the model with the weights of the best epoch.

    Attributes
    ----------
    best : float
        The best number so far.
    stopped_epoch : int or None
        The epoch after which it ended the training.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        self.restore_best_weights = _checks.flag(restore_best_weights, "restore_best_weights")
        super().__init__(monitor, patience, min_delta, mode)

    def on_train_begin(self, logs: Logs) -> None:
        """Forget the training before."""
        super().on_train_begin(logs)
        self.stopped_epoch: int | None = None
        self._weights: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the number."""
        if self._better(logs):
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        """Restore the best weights."""
        if self._weights:
            self.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """What it goes by, and the best weights."""
        return super().state_dict() | {"stopped": self.stopped_epoch, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.stopped_epoch, self._weights = state["stopped"], dict(state["weights"])


class ReduceLROnPlateau(_Monitor):
    """Lower the learning rate when a number has not become better for a while.

    As Keras's; torch's waits one epoch more. The optimizer's `lr` has to be a number, not a
    schedule. The rate of each epoch goes into the history as ``"lr"``.

    Parameters
    ----------
    monitor : str
        Which of the logs, such as ``"val_loss"``.
    factor : float
        What the rate is multiplied with, 0 to 1.
    patience : int
        Epochs without a better number after which it is; 0 is as good as 1.
    min_delta : float
        What is less than this better is not better.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" is "max" for accuracies only.
    min_lr : float
        The rate goes no lower.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        mode: str = "auto",
        min_lr: float = 0.0,
    ) -> None:
        self.factor = _checks.real(factor, "factor", "a number in (0, 1)", lambda v: 0 < v < 1)
        self.min_lr = _checks.not_negative(min_lr, "min_lr")
        super().__init__(monitor, patience, min_delta, mode)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the number."""
        optimizer = self.model.optimizer
        assert optimizer is not None
        if callable(optimizer.lr):
            raise ValueError("ReduceLROnPlateau: expected an optimizer whose lr is a number")
        logs["lr"] = optimizer.lr
        if not self._better(logs) and self.wait >= self.patience:
            optimizer.lr = max(optimizer.lr * self.factor, self.min_lr)
            self.wait = 0


class Checkpoint(Callback):
    """Keep the whole training in a file, and go on from it if it is there.

    The file has weights, optimizer, random states, position in the data, history and the other
    callbacks' states; a training that was killed at any moment, and is started again in the same
    way, ends in the same bits as one that was not. It is replaced as a whole: killed while writing,
    the file before is still there. A training that has ended is not begun again; remove the file
    for that.

    Parameters
    ----------
    path : str or path-like
    every : int, optional
        Write after so many steps of the optimizer too. Default: after each epoch only.

    Raises
    ------
    ValueError
        In ``fit``: if the file is damaged, or of a training with another model, loss, optimizer,
        data, batch size and so on. The learning rate is taken from the file, the number of epochs
        is not.
    """

    _keeps_others = True

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        self.path = _checks.path(path)
        self.every = None if every is None else _checks.size(every, "every")

    def on_train_begin(self, logs: Logs) -> None:
        """Go on from the file."""
        atomic.check_writable(self.path)
        atomic.remove_left_over(self.path)
        try:
            state = checkpoint.read(self.path)
        except FileNotFoundError:
            return
        try:
            checkpoint.restore(self._run, self._others(), state)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.path}: does not fit this training: {error}") from None

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write."""
        if self.every is not None and (batch + 1) % self.every == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write."""
        self._write()

    def _write(self) -> None:
        checkpoint.write(self.path, checkpoint.state_of(self._run, self._others()))

    def _others(self) -> list[Callback]:
        """Who has something to keep."""
        return [c for c in self._run.callbacks if not isinstance(c, Checkpoint | ProgressBar)]


def bar(shape: str, **options: Any) -> Any:
    """A tqdm bar of this shape on stderr, as wide as the terminal is at the time."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    found = tqdm(bar_format=shape, dynamic_ncols=True, file=sys.stderr, **options)
    if (found.ncols or 80) < 1:  # A terminal that does not know its size: all would be cut off.
        found.ncols, found.nrows, found.dynamic_ncols = 80, 24, None
    return found


class ProgressBar(Callback):
    """Progress on stderr: a bar for each epoch on a terminal, else lines.

    ``fit(verbose=1)`` is the same as having one among the callbacks.

    Parameters
    ----------
    batches : bool
        Whether to show something while an epoch lasts; lines then come every few seconds and at
        the end of the training. Otherwise there is a line after each epoch.
    """

    def __init__(self, batches: bool = True) -> None:
        self.batches = _checks.flag(batches, "batches")
        self._bar: Any = None
        self._line = ""

    def on_train_begin(self, logs: Logs) -> None:
        """Look whether there is a terminal."""
        self._terminal = sys.stderr.isatty()
        self._next = time.perf_counter() + _SECONDS_PER_LINE

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Start a bar."""
        self._start = time.perf_counter()
        self._title = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._from = self._run.sequences_done
        if self.batches and self._terminal:
            self._bar = bar(
                "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
                total=self.params["samples"],
                initial=self._from,
                desc=self._title,
            )
            self._next = self._start

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Move on."""
        now = time.perf_counter()
        if not self.batches or now < self._next:
            return
        done, samples = self._run.sequences_done, self.params["samples"]
        said = self._said(logs, done, now)
        if self._bar is not None:
            self._next = now + _SECONDS_PER_DRAWING
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(done - self._bar.n)
        else:
            left = (now - self._start) * (samples - done) / max(done - self._from, 1)
            self._say(f"{done / samples:4.0%}  {said}, {left:.0f} s left", now)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Show the epoch with its validation."""
        now = time.perf_counter()
        said = self._said(logs, self.params["samples"], now)
        if self._bar is not None:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(self.params["samples"] - self._bar.n)
            self._bar.close()
            self._bar = None
        else:
            self._say(f"{now - self._start:.1f} s  {said}", now)

    def on_train_end(self, logs: Logs) -> None:
        """Leave the bar of an epoch that was not finished, and say the last line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._print_line()

    def _said(self, logs: Logs, done: int, now: float) -> str:
        speed = (done - self._from) / max(now - self._start, 1e-9)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in logs.items())
        return f"{numbers}, {speed:,.0f} seq/s"

    def _say(self, said: str, now: float) -> None:
        """Print a line, or, if there was one just now, keep it for the end."""
        self._line = f"{self._title}  {said}"
        if now >= self._next or not self.batches:
            self._next = now + _SECONDS_PER_LINE
            self._print_line()

    def _print_line(self) -> None:
        if self._line:
            print(self._line, file=sys.stderr, flush=True)
        self._line = ""
