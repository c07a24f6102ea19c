"""The loops over batches: training, measuring, predicting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn._types import Array
from fastrnn.callbacks import Callback, ProgressBar
from fastrnn.models.data import Batch, Data, pieces
from fastrnn.models.history import History

if TYPE_CHECKING:
    from fastrnn.models.sequential import Sequential


class Means:
    """Weighted means over batches: the loss, and each metric."""

    def __init__(self, model: Sequential) -> None:
        self.loss, self.metrics = model._compiled(), model._metrics
        self.per_step = model._signature.per_step
        self.clear()

    def clear(self) -> None:
        """Start over."""
        self.total, self.sums = 0.0, [0.0] * (1 + len(self.metrics))

    def add(self, y: Array, batch: Batch) -> tuple[float, Array]:
        """One more batch, with outputs `y`; its loss, and the gradient of that."""
        value, dy = self.loss.compute(y, batch.target, batch.weight)
        if batch.weight is not None:
            total = float(batch.weight.sum(dtype=np.float64))
        else:
            total = float(y.size // y.shape[-1])
        self.total += total
        self.sums[0] += value * total
        for i, metric in enumerate(self.metrics.values(), 1):
            if total:
                self.sums[i] += metric(y, batch.target, batch.weight) * total
        return value, dy

    def logs(self, prefix: str = "") -> dict[str, float]:
        """The means, by name."""
        names = ("loss", *self.metrics)
        of = self.total or 1.0
        return {prefix + name: s / of for name, s in zip(names, self.sums, strict=True)}


def measure(model: Sequential, data: Data, batch_size: int, prefix: str = "") -> dict[str, float]:
    """Loss and metrics of all data, without dropout."""
    means = Means(model)
    for rows in _by_length(data, batch_size):
        batch = data.batch(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            y, _ = model.run(batch.x, batch.lengths, None, keep=False)
            means.add(y, batch)
    return means.logs(prefix)


def predict(model: Sequential, data: Data, batch_size: int) -> Any:
    """Outputs of all data: an array, or, per step and for a list, a list of arrays."""
    s = data.signature
    if not s.per_step:
        found = np.empty((len(data), s.outputs), s.dtype)
        for rows in _by_length(data, batch_size):
            x, lengths, _ = data.inputs(rows)
            found[rows] = model.run(x, lengths, None, keep=False)[0]
        return found
    if data.starts is None:
        found = np.zeros((*data.x.shape[:2], s.outputs), s.dtype)
        for rows in _by_length(data, batch_size):
            x, lengths, valid = data.inputs(rows)
            y, _ = model.run(x, lengths, None, keep=False)
            if valid is not None:
                y[~valid] = 0
            found[rows, : len(y)] = y.swapaxes(0, 1)
        return list(found) if data.was_list else found
    outputs: list[Any] = [None] * len(data)
    assert data.lengths is not None
    for rows in _by_length(data, batch_size):
        x, lengths, _ = data.inputs(rows)
        y, _ = model.run(x, lengths, None, keep=False)
        for b, row in enumerate(rows):
            outputs[row] = y[: data.lengths[row], b].copy()
    return outputs


def _by_length(data: Data, batch_size: int) -> list[Array]:
    """Rows in batches of like length."""
    N = len(data)
    order = np.arange(N) if data.lengths is None else np.argsort(data.lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, N, batch_size)]


class Run:
    """One `fit`: what it goes by, and where it is."""

    def __init__(
        self,
        model: Sequential,
        data: Data,
        validation: Data | None,
        *,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        bptt: int | None,
        stateful: bool,
    ) -> None:
        if bptt is not None and not data.signature.per_step:
            raise ValueError("bptt: expected None where there is one output for the sequence")
        if stateful and (len(data) % batch_size or data.lengths is not None):
            raise ValueError(
                f"stateful: expected sequences of one length, and a multiple of "
                f"batch_size={batch_size}, got {len(data)}"
                + (" of differing lengths" if data.lengths is not None else "")
            )
        self.model, self.data, self.validation = model, data, validation
        self.epochs, self.batch_size, self.shuffle = epochs, batch_size, shuffle
        self.bptt, self.stateful = bptt, stateful
        self.means = Means(model)
        assert model.optimizer is not None
        self.optimizer = model.optimizer
        self.history = model.history = History()
        self.callbacks: list[Callback] = []
        self.epoch = 0  #: Epochs done.
        self.batch = 0  #: Steps of the optimizer done in this epoch.
        self.order = model._rng.bit_generator.state  #: At the start of the epoch.
        self.state: list[Any] | None = None  #: To go on from in the next batch.
        self.sequences_done = 0  #: In this epoch.
        self.parameters: dict[str, Array] | None = None

    def logs(self) -> dict[str, float]:
        """Means of the epoch so far."""
        return self.means.logs()

    def run(self, callbacks: Sequence[Callback], verbose: int) -> History:
        """Train."""
        model = self.model
        everyone = [*([ProgressBar(verbose == 1)] if verbose else []), *callbacks]
        # Who keeps the state of the others comes after them.
        everyone.sort(key=lambda c: c._keeps_others)
        self.callbacks = everyone
        for callback in everyone:
            callback.model, callback._run = model, self
            callback.params = {
                "epochs": self.epochs,
                "samples": len(self.data),
                "steps": self._steps_per_epoch(),
            }
        modes = [(layer, layer.training) for layer in (model, *model.layers)]
        model.train()
        model.stop_training = False
        self.history.interrupted = True
        begun: list[Callback] = []
        try:
            with suppress(KeyboardInterrupt):
                for callback in everyone:
                    callback.on_train_begin({})
                    begun.append(callback)
                # One that was stopped in the middle of an epoch still has to be brought to its end.
                while self.epoch < self.epochs and (self.batch or not model.stop_training):
                    self._one_epoch()
                self.history.interrupted = False
        finally:
            for layer, mode in modes:
                layer.training = mode
            for callback in begun:
                callback.on_train_end(self._last)
        return self.history

    @property
    def _last(self) -> dict[str, float]:
        return {name: values[-1] for name, values in self.history.history.items()}

    def _one_epoch(self) -> None:
        model, epoch = self.model, self.epoch
        model._rng.bit_generator.state = self.order
        steps = self._steps()
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, {})
        begin, end = self._hooks("on_train_batch_begin"), self._hooks("on_train_batch_end")
        for batch, on in steps:
            if model.stop_training:
                break
            for hook in begin:
                hook(self.batch, {})
            self._learn(batch, on)
            self.batch += 1
            if end:
                logs = self.logs()
                for hook in end:
                    hook(self.batch - 1, logs)
        logs = self.logs()
        if self.validation is not None:
            logs |= measure(model, self.validation, self.batch_size, "val_")
        # They may add to the logs, and so to the history; whoever keeps all that comes after.
        for callback in self.callbacks:
            if not callback._keeps_others:
                callback.on_epoch_end(epoch, logs)
        self.history.add(epoch, logs)
        self.epoch, self.batch = epoch + 1, 0
        self.order = model._rng.bit_generator.state
        self.means.clear()
        self.state = None
        for callback in self.callbacks:
            if callback._keeps_others:
                callback.on_epoch_end(epoch, logs)

    def _steps_per_epoch(self) -> int | None:
        batches = -(-len(self.data) // self.batch_size)
        if self.bptt is None:
            return batches
        return None if self.data.lengths is not None else batches * -(-self.data.steps // self.bptt)

    def _steps(self) -> Iterator[tuple[Batch, Array | None]]:
        """The epoch's batches from here on, each with the rows of the state that go on."""
        steps = self._all_steps(
            self.data.rows(self.batch_size, self.model._rng if self.shuffle else None)
        )
        carried = self.state
        self.sequences_done = 0
        for _ in range(self.batch):
            next(steps)
        self.state = carried
        return steps

    def _all_steps(self, batches: Sequence[Array]) -> Iterator[tuple[Batch, Array | None]]:
        for rows in batches:
            if not self.stateful:
                self.state = None
            yield from pieces(self.data.batch(rows), self.bptt)
            self.sequences_done += len(rows)

    def _learn(self, batch: Batch, on: Array | None) -> None:
        """One step of the optimizer."""
        model = self.model
        state = self.state
        if state is not None and on is not None:
            state = [_rows(s, on) for s in state]
        # What is not finite is an error here, and warnings of it only noise.
        with np.errstate(over="ignore", invalid="ignore"):
            y, tape = model.run(batch.x, batch.lengths, state, keep=True)
            assert tape is not None
            loss, dy = self.means.add(y, batch)
            if not math.isfinite(loss):
                raise ValueError(
                    f"fit: the loss became {loss} in epoch {self.epoch + 1}, batch "
                    f"{self.batch + 1}; look for NaN or infinity in X and y, or try a smaller lr "
                    "or clip_norm"
                )
            if self.parameters is None:
                self.parameters = model.parameters()
                self.optimizer.step(self.parameters, model.run_back(tape, dy)[1])
            else:
                _, grads = model.run_back(tape, dy, for_update=True)
                self.optimizer.apply(self.parameters, grads)
        self.state = tape.state

    def _hooks(self, name: str) -> list[Callable[[int, dict[str, float]], None]]:
        """The callbacks' own hooks of this name."""
        return [
            getattr(c, name)
            for c in self.callbacks
            if getattr(type(c), name) is not getattr(Callback, name)
        ]


def _rows(state: Any, rows: Array) -> Any:
    """Some rows of a recurrent layer's state."""
    if isinstance(state, tuple):
        return tuple(s[:, rows] for s in state)
    return state[:, rows]
