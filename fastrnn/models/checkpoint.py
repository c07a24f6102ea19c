"""Checkpoint files, trees of numbers, strings and arrays, and the callback that writes them."""

from __future__ import annotations

import os
import warnings
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic, model_file
from fastrnn._types import Array
from fastrnn.models.callback import Keeper, Logs, Options, Resumable

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
    except (KeyError, TypeError, ValueError, RecursionError) as error:
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


class Checkpoint(Keeper):
    """Save the state of the training to a file, and resume from the file if it exists.

    The file holds weights, optimizer, random states, position in the data, history and the other
    callbacks' states. A training that was killed at any moment and is started again in the same way
    ends with the same bits as an uninterrupted one. The file is replaced atomically: a process
    killed while writing leaves the previous file. A training that has ended is not repeated; remove
    the file to start over.

    A file that can't be written before the training is an error. If that happens later (the disk is
    full, the folder is gone), the training goes on: a warning says once where the state is kept
    instead, and every later write tries `path` again.

    Parameters
    ----------
    path : str or path-like
    every : int, optional
        Also write after every `every` optimizer steps. Default: after each epoch only.

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
    }

    path: str
    every: int | None

    #: Where the state is kept after a write that failed: "" before that, None if nowhere.
    _kept: str | None = ""

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        self.path, self.every = path, every  # type: ignore[assignment]

    def on_train_begin(self, logs: Logs) -> None:
        """Resume from the file if it exists."""
        if self.every is not None and not self._of_now().data_known:
            raise ValueError(
                "every: expected None where X gives batches, as they begin again with an epoch"
            )
        atomic.check_writable(self.path)
        atomic.remove_left_over(self.path)
        try:
            state = read(self.path)
        except FileNotFoundError:
            return
        try:
            self._of_now().load_state_dict(state)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{self.path}: does not fit this training: {error}") from None

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write the file if due."""
        if self.every is not None and (batch + 1) % self.every == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the file."""
        self._write()

    def _write(self) -> None:
        state = self._of_now().state_dict()
        try:
            write(self.path, state)
        except OSError as error:
            kept = atomic.kept(self.path, lambda path: write(path, state), self._kept)
            if kept != self._kept:
                self._kept = kept
                where = f"is kept in {kept}" if kept else "can't be kept elsewhere either"
                said = f"{self.path}: {error.strerror or error}; the training goes on, its state"
                warnings.warn(f"{said} {where}", RuntimeWarning, stacklevel=2)

    def _of_now(self) -> Resumable:
        if self.training is None:
            raise RuntimeError("Checkpoint: expected to be among the callbacks of a fit")
        return self.training
