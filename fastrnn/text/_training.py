"""Callbacks of ``CharLM.fit``: budget, validation and progress."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.models.callback import Callback, Logs
from fastrnn.models.progress import Display
from fastrnn.models.sequential import Sequential
from fastrnn.schedules import CosineDecay
from fastrnn.text._evaluation import mean_bits


class Record(NamedTuple):
    """An entry of :attr:`CharLM.history`.

    Examples
    --------
    >>> model = fastrnn.text.CharLM(hidden_size=8, epochs=1, seed=0)
    >>> record = model.fit("to be or not to be, " * 50, verbose=0).history[-1]
    >>> record.characters
    948
    """

    seconds: float  #: Since the start of `fit`.
    characters: int  #: Trained on so far.
    loss: float  #: Training loss since the previous entry, nats per character.
    validation_bits: float  #: Bits per character of the validation part; NaN without one.


class Budget(Callback):
    """A callback that stops the training when its steps or its time are used up.

    Parameters
    ----------
    lr : float
        Initial learning rate, which decays to 0 along a half cosine.
    steps : float
        Optimizer steps; may be infinite.
    seconds : float
        May be infinite.
    """

    def __init__(self, lr: float, steps: float, seconds: float) -> None:
        self._rate = CosineDecay(lr, 1)
        self._steps, self._seconds = steps, seconds
        self._start, self._taken = time.perf_counter(), 0

    @property
    def seconds(self) -> float:
        """Seconds since the start of the training."""
        return time.perf_counter() - self._start

    @property
    def used(self) -> float:
        """The fraction of the budget that is used up."""
        time_used = 0.0 if math.isinf(self._seconds) else self.seconds / self._seconds
        return min(1.0, max(self._taken / self._steps, time_used))

    def lr(self, step: int) -> float:
        """Return the current learning rate, as the optimizer's schedule."""
        return self._rate(self.used)

    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken and the seconds."""
        return {"taken": self._taken, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self._taken = _checks.size(state["taken"], "taken", 0)
        self._start = time.perf_counter() - float(state["seconds"])

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Stop the training if the budget is used up."""
        self._taken += 1
        if self.used >= 1:
            self.model.stop_training = True


class Validation(Callback):
    """A callback that validates at regular intervals, and keeps the best weights.

    Parameters
    ----------
    net : Sequential
        The network being trained.
    budget : Budget
        Has to run before this callback.
    ids : (n,) array
        The validation part; may be empty.
    every : int
        Characters of training between two validations.
    shape : (B, L, T)
        Of the training part: B streams of L characters, read in chunks of T.
    log : bool
        Whether to validate at the end of each epoch too, and to add ``val_loss`` (nats per
        character) to the logs, for other callbacks.

    Attributes
    ----------
    records : list of Record
    characters : int
        Trained on so far.
    """

    def __init__(
        self,
        net: Sequential,
        budget: Budget,
        ids: Array,
        every: int,
        shape: tuple[int, int, int],
        log: bool,
    ) -> None:
        self._net, self._budget, self._ids = net, budget, ids
        self._every = self._next = every
        self._shape, self._log = shape, log
        self.records: list[Record] = []
        self._best: tuple[float, dict[str, Array]] | None = None
        # Characters and the sum of their losses: in earlier epochs, now, and at the last record.
        self._epochs = self._now = self._recorded = 0, 0.0

    @property
    def characters(self) -> int:
        """Characters trained on so far."""
        return self._now[0]

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Count characters, and validate if due."""
        B, L, T = self._shape
        count = B * min((batch + 1) * T, L)
        self._now = self._epochs[0] + count, self._epochs[1] + logs["loss"] * count
        if self.model.stop_training or self.characters >= self._next:
            self._next = self.characters + self._every
            self._measure()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Keep the counts of the epoch; validate if other callbacks may ask for it."""
        self._epochs = self._now
        if self._log and self._ids.size:
            self.measure_rest()
            logs["val_loss"] = self.records[-1].validation_bits * math.log(2)

    def state_dict(self) -> dict[str, Any]:
        """Return the records, the best weights and the counts."""
        bits, weights = self._best or (math.inf, {})
        return {
            "records": [list(record) for record in self.records],
            "bits": bits,
            "weights": weights,
            "next": self._next,
            "counts": [list(count) for count in (self._epochs, self._now, self._recorded)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self.records = [Record(*record) for record in state["records"]]
        weights = dict(state["weights"])
        self._best = (float(state["bits"]), weights) if weights else None
        self._next = _checks.size(state["next"], "next")
        self._epochs, self._now, self._recorded = (
            (int(count), float(total)) for count, total in state["counts"]
        )

    def _measure(self) -> None:
        bits = mean_bits(self._net, self._ids) if self._ids.size else math.nan
        if self._ids.size and (self._best is None or bits < self._best[0]):
            self._best = bits, self._net.state_dict()
        count, total = (now - then for now, then in zip(self._now, self._recorded, strict=True))
        self._recorded = self._now
        record = Record(self._budget.seconds, self.characters, total / count, bits)
        self.records.append(record)

    def measure_rest(self) -> None:
        """Validate once more if there was training since the last record."""
        if self._now != self._recorded:
            self._measure()

    def restore_best(self) -> None:
        """Restore the best weights, if there is a validation part."""
        if self._best is not None:
            self._net.load_state_dict(self._best[1])


class Progress(Callback):
    """A callback that shows how much of the budget is used, and the losses."""

    def __init__(self, budget: Budget, validation: Validation) -> None:
        self._budget, self._validation = budget, validation
        self._display = Display("char", units={"validation": "bits/char"})

    def on_train_begin(self, logs: Logs) -> None:
        """Start the display."""
        self._display.begin("")

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Update the display."""
        numbers = dict(logs)
        records = self._validation.records
        if records and not math.isnan(records[-1].validation_bits):
            numbers["validation"] = records[-1].validation_bits
        characters = self._validation.characters
        if self.model.stop_training:
            self._display.end(characters, numbers)
        else:
            self._display.update(characters, self._budget.used, numbers)

    def on_train_end(self, logs: Logs) -> None:
        """Close the display."""
        self._display.close()
