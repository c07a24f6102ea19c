"""Checkpoint files, trees of numbers, strings and arrays, and the callback that writes them."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic, model_file
from fastrnn._types import Array
from fastrnn.models import architecture
from fastrnn.models.callback import Keeper, Logs, Options, Resumable
from fastrnn.models.monitor import MONITORED, improvement, worst

if TYPE_CHECKING:
    from fastrnn.models.sequential import Sequential

_KIND = "Checkpoint"


def write(path: str | os.PathLike[str], tree: dict[str, Any]) -> None:
    """Write a tree of dicts, lists, tuples, numbers, strings, None and arrays."""
    tensors: dict[str, Array] = {}
    model_file.write(path, _KIND, _packed(tree, tensors), tensors)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what :func:`write` wrote; raise as ``model_file.read`` does."""
    kind, tree, tensors = model_file.read(path)
    if kind != _KIND:
        raise ValueError(f"{os.fspath(path)}: is not a checkpoint but a {kind}")
    try:
        unpacked: dict[str, Any] = _unpacked(tree, tensors)
    except model_file.MISFITS as error:
        raise ValueError(f"{os.fspath(path)}: is damaged: {error}") from None
    return unpacked


def _packed(value: Any, tensors: dict[str, Array]) -> Any:
    """Return `value` as JSON types, with its arrays moved to `tensors`."""
    if isinstance(value, np.ndarray):
        name = str(len(tensors))
        tensors[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": {k: _packed(v, tensors) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_packed(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_packed(v, tensors) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(value: Any, tensors: dict[str, Array]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((what, inner),) = value.items()
    if what == "array":
        return tensors[inner].copy()  # not a view of the file's buffer
    if what == "tuple":
        return tuple(_unpacked(v, tensors) for v in inner)
    return {k: _unpacked(v, tensors) for k, v in inner.items()}


def _identity(path: str) -> tuple[int, ...] | None:
    """Return what tells a file from another that replaces it; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Checkpoint(Keeper):
    """Save the state of the training to a file, and resume from the file if it exists.

    The file holds weights, optimizer, random states, position in the data, history and the other
    callbacks' states. A training that was killed at any moment and is started again in the same way
    ends with the same bits as an uninterrupted one. The file is replaced atomically: a process
    killed while writing leaves the previous file. A training that has ended is not repeated; remove
    the file to start over.

    With `save_best_only`, the file holds the best epoch so far, and training resumes after that: it
    repeats the epochs since then, with the same bits, also of a training that has ended. Beside a
    checkpoint without it, in a file of its own, nothing is repeated: the later of both counts.

    ``fastrnn.load(path)`` returns the model as it was then. Where data come in batches from an
    iterable, a training resumes after an epoch, with the batches that the iterable then gives.

    A file that can't be written before the training is an error. If that happens later (the disk is
    full, the folder is gone), the training goes on: a warning says once where the state is kept
    instead, and every later write tries `path` again. Two trainings must not share a file: the last
    write stays, whole, and a warning says so.

    Parameters
    ----------
    path : str or path-like
    every : int, optional
        Also write after every `every` optimizer steps. Default: after each epoch only.
    save_best_only : bool
        Whether to write only after epochs in which the quantity was better than ever before.
    monitor : str
        The quantity, such as ``"val_loss"``.
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" is "max" for accuracies, precision, recall, F1,
        AUC, IoU, correlations and scikit-learn's scores, going by their names.

    Attributes
    ----------
    best : float
        The best value so far; infinite without `save_best_only`.

    Raises
    ------
    ValueError
        In ``fit``, if the file is damaged, or from a training with another model, loss, optimizer,
        data, batch size or the like. The learning rate is taken from the file, the number of epochs
        is not.

    Examples
    --------
    >>> import os, tempfile
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keep = fastrnn.callbacks.Checkpoint(os.path.join(folder, "training"))
    ...     history = model.fit(X, y, epochs=2, callbacks=[keep], verbose=0)
    ...     history = model.fit(X, y, epochs=5, callbacks=[keep], verbose=0)  # goes on after the 2
    >>> len(history.epoch)
    5
    """

    _options: ClassVar[Options] = {
        "path": _checks.path,
        "every": lambda value, name: None if value is None else _checks.size(value, name),
        "save_best_only": _checks.flag,
        **MONITORED,
    }

    path: str
    every: int | None
    save_best_only: bool
    monitor: str
    mode: str
    best: float

    #: Which file was there when this training last looked; and whether it has told of another.
    _seen: tuple[int, ...] | None = None
    _told: bool = False

    #: Where the state is kept after a write that failed: "" before that, None if nowhere.
    _kept: str | None = ""

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int | None = None,
        *,
        save_best_only: bool = False,
        monitor: str = "val_loss",
        mode: str = "auto",
    ) -> None:
        self.path, self.every = path, every  # type: ignore[assignment]
        self.save_best_only, self.monitor, self.mode = save_best_only, monitor, mode
        self.best = worst(monitor, mode)

    def on_train_begin(self, logs: Logs) -> None:
        """Resume from the file if it exists."""
        training = self._of_now()
        if self.every is not None and (self.save_best_only or not training.data_known):
            where = "with save_best_only" if self.save_best_only else "where X gives batches"
            raise ValueError(f"every: expected None {where}, got {self.every}")
        self.best = worst(self.monitor, self.mode)
        self._seen, self._told = _identity(self.path), False
        found = training.share(self._found)
        if found is not None:
            self._resume(found)
        # A crash may have come between the last epoch and the write of its state.
        history = self.model.history
        if self.save_best_only and history is not None and history.last:
            self.on_epoch_end(history.epoch[-1], history.last)

    def _found(self) -> dict[str, Any] | None:
        """Return the state in the file, if there is one; raise if none could be written."""
        atomic.check_writable(self.path)
        atomic.remove_left_over(self.path)
        with suppress(FileNotFoundError):
            return read(self.path)
        return None

    def _resume(self, state: dict[str, Any]) -> None:
        training = self._of_now()
        try:
            at = state["epoch"], state["batch"]
            # Another checkpoint may have been later.
            if training.resumed_at is None or at > training.resumed_at:
                training.load_state_dict(state)
            if self.save_best_only and "best" in state:
                self.best = _checks.real(state["best"], "best", "a number", lambda v: True)
        except model_file.MISFITS as error:
            raise ValueError(f"{self.path}: does not fit this training: {error}") from None

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write the file if due."""
        if self.every is not None and (batch + 1) % self.every == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the file; with `save_best_only`, only if the quantity was better than ever."""
        if self.save_best_only:
            if not improvement(logs, self.monitor, self.mode, self.best) > 0:  # nor NaN
                return
            self.best = logs[self.monitor]
        self._write()

    def _write(self) -> None:
        training = self._of_now()
        state = training.state_dict()
        if not training.writes:
            return
        if self.save_best_only:
            state["best"] = self.best
        if not self._told and _identity(self.path) not in (None, self._seen):
            self._told = True
            said = "was written by another training meanwhile; the last write stays"
            warnings.warn(f"{self.path}: {said}", RuntimeWarning, stacklevel=2)
        try:
            write(self.path, state)
            self._seen = _identity(self.path)
        except OSError as error:
            kept = atomic.kept(self.path, lambda path: write(path, state), self._kept)
            if kept != self._kept:
                self._kept = kept
                where = f"is kept in {kept}" if kept else "can't be kept elsewhere either"
                said = f"{self.path}: {error.strerror or error}; the training goes on, its state"
                warnings.warn(f"{said} {where}", RuntimeWarning, stacklevel=2)

    @classmethod
    def _from_file(cls, model: Any, tensors: dict[str, Array]) -> Sequential:
        """Return the model whose training was saved."""
        from fastrnn.models.sequential import Sequential

        state = _unpacked(model, tensors)
        if state.get("architecture") is None:
            raise ValueError("it does not say what its layers are")
        return Sequential(architecture.restore(state["architecture"], state["weights"]))

    def _of_now(self) -> Resumable:
        if self.training is None:
            raise RuntimeError("Checkpoint: expected to be among the callbacks of a fit")
        return self.training
