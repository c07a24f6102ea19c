"""The training of a character model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn._types import Array
from fastrnn.optim import Adam
from fastrnn.text._net import Net, mean_bits

if TYPE_CHECKING:
    from fastrnn.text._progress import Progress
    from fastrnn.text.char_lm import CharLM


#: The default budget: what takes a text of a megabyte to where its curve flattens (about 6 epochs),
#: and no more epochs than this over a small one.
_CHARACTERS = 6_000_000
_MAX_EPOCHS = 50

#: Rounds of training between two validations take as many characters as this many validation parts;
#: a validation, forward only, then costs a small part of the time.
_VALIDATE_EVERY = 5

#: A small text gets fewer streams, so that the state is carried over this many chunks or more.
_CHUNKS_PER_STREAM = 8


class Record(NamedTuple):
    """A line of :attr:`CharLM.history`."""

    seconds: float  #: Since the start of `fit`.
    characters: int  #: Trained on so far.
    loss: float  #: Training loss since the line before, nats per character.
    validation_bits: float  #: Bits per character of the validation part; NaN without one.


class Training:
    """One run of `CharLM.fit`: the data as streams, the budget, and the best weights."""

    def __init__(self, model: CharLM, net: Net, train: Array, validation: Array) -> None:
        n = len(train) - 1
        self.net, self.validation = net, validation
        self.T = min(model.seq_len, n)
        self.B = max(1, min(model.batch_size, n // (self.T * _CHUNKS_PER_STREAM)))
        self.L = n // self.B
        self.x, self.target = (
            np.ascontiguousarray(ids[: self.B * self.L].reshape(self.B, self.L).T)
            for ids in (train[:-1], train[1:])
        )
        self.max_seconds = model.max_seconds or math.inf
        epochs = model.epochs
        if epochs is None:
            default = min(_MAX_EPOCHS, _CHARACTERS / n)
            epochs = math.inf if model.max_seconds else default
        self.steps = max(1, epochs * (self.L // self.T))
        self.lr = model.lr
        self.adam = Adam(lambda _: self.lr_now(), clip_norm=model.clip_norm)
        self.rng = np.random.default_rng(model.seed)
        self.parameters = net.parameters()
        self.best: tuple[float, dict[str, Array]] | None = None
        self.losses: list[float] = []
        self.characters = 0
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def done(self) -> float:
        """How much of the budget is used up, 0 to 1."""
        time_used = 0.0 if self.max_seconds == math.inf else self.seconds() / self.max_seconds
        return min(1.0, max(self.adam.steps / self.steps, time_used))

    def lr_now(self) -> float:
        return self.lr * (1 + math.cos(math.pi * self.done())) / 2

    def chunks(self) -> Iterator[tuple[Array, Array, bool]]:
        """Inputs, targets, and whether the state starts anew; for ever."""
        while True:
            # Chunks begin elsewhere in each epoch, so that other characters are left over.
            offset = int(self.rng.integers(self.L % self.T + 1))
            for t in range(offset, self.L - self.T + 1, self.T):
                yield self.x[t : t + self.T], self.target[t : t + self.T], t == offset

    def run(self, progress: Progress) -> Iterator[Record]:
        """Train until the budget is used up; yields at each validation."""
        state = None
        every = _VALIDATE_EVERY * len(self.validation) or self.x.size
        next_validation = every
        for x, target, anew in self.chunks():
            # What is not finite is an error here, and warnings of it only noise.
            with np.errstate(over="ignore", invalid="ignore"):
                loss, grads, state = self.net.loss_and_grads(x, target, None if anew else state)
            if not math.isfinite(loss):
                raise ValueError(f"lr: expected a smaller value, training diverged at {self.lr}")
            self.adam.step(self.parameters, grads)
            self.losses.append(loss)
            self.characters += x.size
            done = self.done()
            if done >= 1 or self.characters >= next_validation:
                next_validation = self.characters + every
                record = self.validate()
                progress.record(record)
                yield record
            progress.show(done, self.seconds(), self.characters, loss)
            if done >= 1:
                return

    def validate(self) -> Record:
        """Measure, and remember the weights if they are the best so far."""
        bits = mean_bits(self.net, self.validation) if self.validation.size else math.nan
        if self.validation.size and (self.best is None or bits < self.best[0]):
            self.best = bits, {name: array.copy() for name, array in self.parameters.items()}
        loss = float(np.mean(self.losses)) if self.losses else math.nan
        self.losses.clear()
        return Record(self.seconds(), self.characters, loss, bits)

    def restore_best(self) -> None:
        if self.best is not None:
            for name, array in self.best[1].items():
                self.parameters[name][...] = array
