"""Checkpoints: trees of numbers, strings and arrays in a file, and the callback that keeps them."""

from __future__ import annotations

import os
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
    """Return what :func:`write` wrote; errors as from ``model_file.read``."""
    kind, tree, tensors = model_file.read(path)
    if kind != _KIND:
        raise ValueError(f"{os.fspath(path)}: is not a checkpoint but a {kind}")
    try:
        unpacked: dict[str, Any] = _unpacked(tree, tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: is damaged: {error}") from None
    return unpacked


def _packed(value: Any, tensors: dict[str, Array]) -> Any:
    """Return what JSON can say; arrays go into `tensors`."""
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
        return tensors[inner].copy()  # out of the file's own memory
    if what == "tuple":
        return tuple(_unpacked(v, tensors) for v in inner)
    return {k: _unpacked(v, tensors) for k, v in inner.items()}


class Checkpoint(Keeper):
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

    _options: ClassVar[Options] = {
        "path": _checks.path,
        "every": lambda value, name: None if value is None else _checks.size(value, name),
    }

    path: str
    every: int | None

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        self.path, self.every = path, every  # type: ignore[assignment]

    def on_train_begin(self, logs: Logs) -> None:
        """Go on from the file."""
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
        """Write."""
        if self.every is not None and (batch + 1) % self.every == 0:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write."""
        self._write()

    def _write(self) -> None:
        write(self.path, self._of_now().state_dict())

    def _of_now(self) -> Resumable:
        if self.training is None:
            raise RuntimeError("Checkpoint: expected to be among the callbacks of a fit")
        return self.training
