"""Trees of numbers, strings and arrays in a file; and what of a training is kept in one."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn._files import model_file
from fastrnn._types import Array

if TYPE_CHECKING:
    from fastrnn.callbacks import Callback
    from fastrnn.models.trainer import Run


_KIND = "Checkpoint"


def write(path: str | os.PathLike[str], tree: dict[str, Any]) -> None:
    """Write a tree of dicts, lists, tuples, numbers, strings, None and arrays."""
    tensors: dict[str, Array] = {}
    model_file.write(path, _KIND, _packed(tree, tensors), tensors)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`write` wrote; errors as from ``model_file.read``."""
    kind, tree, tensors = model_file.read(path)
    if kind != _KIND:
        raise ValueError(f"{os.fspath(path)}: is not a checkpoint but a {kind}")
    try:
        found: dict[str, Any] = _unpacked(tree, tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)}: is damaged: {error}") from None
    return found


def _packed(value: Any, tensors: dict[str, Array]) -> Any:
    """What JSON can say, with arrays put into `tensors`."""
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
        return tensors[inner]
    if what == "tuple":
        return tuple(_unpacked(v, tensors) for v in inner)
    return {k: _unpacked(v, tensors) for k, v in inner.items()}


def state_of(run: Run, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """All that the rest of a training depends on."""
    model, optimizer = run.model, run.optimizer
    return {
        "about": about(run),
        "epoch": run.epoch,
        "batch": run.batch,
        "order": run.order,
        "total": run.means.total,
        "sums": run.means.sums,
        "state": run.state,
        "history": run.history.history,
        "epochs": run.history.epoch,
        "stop": model.stop_training,
        "weights": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr": None if callable(optimizer.lr) else optimizer.lr,
        "layers": [rng.bit_generator.state for rng in _generators(run)],
        "callbacks": [[type(c).__name__, c.state_dict()] for c in callbacks],
    }


def restore(run: Run, callbacks: Sequence[Callback], state: dict[str, Any]) -> None:
    """Put a training where another one was; an error changes nothing but the callbacks."""
    mine = about(run)
    for name, theirs in state["about"].items():
        if mine[name] != theirs:
            raise ValueError(f"{name}: expected {theirs!r} as in the file, got {mine[name]!r}")
    kinds, given = [kind for kind, _ in state["callbacks"]], [type(c).__name__ for c in callbacks]
    if kinds != given:
        raise ValueError(f"callbacks: expected {kinds} as in the file, got {given}")
    for callback, (_, of_callback) in zip(callbacks, state["callbacks"], strict=True):
        callback.load_state_dict(of_callback)
    model, optimizer = run.model, run.optimizer
    model.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    if not callable(optimizer.lr):
        optimizer.lr = state["lr"]
    for rng, of_rng in zip(_generators(run), state["layers"], strict=True):
        rng.bit_generator.state = of_rng
    run.epoch, run.batch, run.order, run.state = (
        state[name] for name in ("epoch", "batch", "order", "state")
    )
    run.means.total, run.means.sums = state["total"], list(state["sums"])
    run.history.history, run.history.epoch = state["history"], state["epochs"]
    model.stop_training = state["stop"]


def about(run: Run) -> dict[str, Any]:
    """What has to be the same for a training to go on to the same bits."""
    data, optimizer = run.data, run.optimizer
    options = [
        f"{n}={v!r}" for n, v in vars(optimizer).items() if n[0] != "_" and n not in ("lr", "steps")
    ]
    arrays = (data.x, data.lengths, data.starts, data.y, data.weight)
    checksum = 0
    for a in arrays:
        if a is not None:
            checksum = zlib.crc32(np.ascontiguousarray(a).data, checksum)
    return {
        "model": repr(run.model),
        "loss": repr(run.means.loss),
        "metrics": list(run.means.metrics),
        "optimizer": f"{type(optimizer).__name__}({', '.join(options)})",
        "batch_size": run.batch_size,
        "shuffle": run.shuffle,
        "bptt": run.bptt,
        "stateful": run.stateful,
        "samples": len(data),
        "data": f"{checksum:08x}",
    }


def _generators(run: Run) -> list[np.random.Generator]:
    """The random states of the layers."""
    return [layer._rng for layer in run.model.layers if hasattr(layer, "_rng")]
