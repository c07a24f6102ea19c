"""The loop over epochs and batches that trains a model."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.models import architecture
from fastrnn.models.batches import Batches
from fastrnn.models.callback import Callback, Keeper, Logs, Model, Progress
from fastrnn.models.data import Data, pieces
from fastrnn.models.evaluation import Means, Objective, measure
from fastrnn.models.history import History
from fastrnn.models.inputs import Source
from fastrnn.models.interrupts import interruptible
from fastrnn.models.metrics import Outputs
from fastrnn.models.network import Network
from fastrnn.models.progress import ProgressBar
from fastrnn.optim import Optimizer

T_value = TypeVar("T_value")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The checked options of ``Sequential.fit`` for iterating over the data."""

    epochs: int
    initial_epoch: int = 0
    batch_size: int
    validation_batch_size: int
    shuffle: bool
    bptt: int | None
    stateful: bool

    @classmethod
    def of(
        cls,
        epochs: Any,
        initial_epoch: Any,
        batch_size: Any,
        validation_batch_size: Any,
        shuffle: Any,
        bptt: Any,
        stateful: Any,
    ) -> Self:
        """Check the arguments of ``fit``."""
        stateful = _checks.flag(stateful, "stateful")
        batch_size = _checks.size(batch_size, "batch_size")
        return cls(
            epochs=_checks.size(epochs, "epochs"),
            initial_epoch=_checks.size(initial_epoch, "initial_epoch", 0),
            batch_size=batch_size,
            validation_batch_size=batch_size
            if validation_batch_size is None
            else _checks.size(validation_batch_size, "validation_batch_size"),
            shuffle=_checks.flag(shuffle, "shuffle") and not stateful,
            bptt=None if bptt is None else _checks.size(bptt, "bptt"),
            stateful=stateful,
        )

    def check(self, data: Source) -> None:
        """Raise if the options do not fit the data."""
        if self.initial_epoch > self.epochs:
            raise ValueError(
                f"initial_epoch: expected at most epochs={self.epochs}, got {self.initial_epoch}"
            )
        if self.bptt is not None and not data.signature.per_step:
            raise ValueError("bptt: expected None where there is one output for the sequence")
        if not isinstance(data, Data):
            return
        if self.stateful and (len(data) % self.batch_size or data.lengths is not None):
            raise ValueError(
                f"stateful: expected sequences of one length, and a multiple of "
                f"batch_size={self.batch_size}, got {len(data)}"
                + (" of differing lengths" if data.lengths is not None else "")
            )

    def steps(self, data: Source) -> int | None:
        """Return the optimizer steps per epoch, or None if that varies."""
        if not isinstance(data, Data):
            return None if self.bptt is not None else data.steps
        batches = -(-len(data) // self.batch_size)
        if self.bptt is None:
            return batches
        return None if data.lengths is not None else batches * -(-data.steps // self.bptt)


class Trainer:
    """One training: its inputs, options and current position.

    Parameters
    ----------
    model : Model
        Given to callbacks.
    network : Network
        Of the model.
    objective : Objective
    optimizer : Optimizer
    rng : Generator
        For the order of the data.
    data : Data or Batches
    validation : Data, Batches or None
    plan : Plan
    """

    def __init__(
        self,
        model: Model,
        network: Network,
        objective: Objective,
        optimizer: Optimizer,
        rng: np.random.Generator,
        data: Source,
        validation: Source | None,
        plan: Plan,
    ) -> None:
        plan.check(data)
        self.model, self.network = model, network
        self.objective, self.optimizer, self.rng = objective, optimizer, rng
        self.data, self.validation, self.plan = data, validation, plan
        self.means = self._no_means()
        self.history = History()
        self.callbacks: list[Callback] = []
        self.progress = Progress(plan.epochs, data.samples, plan.steps(data))
        self.epoch = plan.initial_epoch  #: Epochs done.
        self.batch = 0  #: Optimizer steps done in this epoch.
        self.sequences = 0  #: Sequences done in this epoch.
        self.order = rng.bit_generator.state  #: State of `rng` at the start of the epoch.
        self.state: Any = None  #: Carried to the next batch.
        self.trainable: list[bool] | None = None  #: At the last step.
        self.parameters: dict[str, Array] = {}
        self.resumed_at: tuple[int, int] | None = None

    def run(self, callbacks: Sequence[Callback]) -> None:
        """Train to the end."""
        # A Keeper saves the state of the others, and so runs after them.
        self.callbacks = sorted(callbacks, key=lambda c: isinstance(c, Keeper))
        for callback in self.callbacks:
            callback.model, callback.progress = self.model, self.progress
            callback.params = {
                "epochs": self.plan.epochs,
                "samples": self.data.samples,
                "steps": self.progress.steps,
            }
            if isinstance(callback, Keeper):
                callback.training = self
        trained: list[Model | Layer] = [self.model, *self.network.layers]
        modes = [layer.training for layer in trained]
        self.model.train()
        self.model.stop_training = False
        self.history.interrupted = True
        begun: list[Callback] = []
        try:
            with suppress(KeyboardInterrupt), interruptible():
                for callback in self.callbacks:
                    callback.on_train_begin({})
                    begun.append(callback)
                self._publish()
                # A resumed training that was stopped within an epoch still has to end that epoch.
                while (self.batch or not self._stopped()) and self.epoch < self.plan.epochs:
                    self._train_epoch()
                self.history.interrupted = False
        finally:
            for layer, mode in zip(trained, modes, strict=True):
                layer.training = mode
            self._end(begun)

    def _no_means(self) -> Means:
        """Return the means of an epoch that begins."""
        return Means(self.objective, whole=self.plan.bptt is None)

    def _end(self, begun: Sequence[Callback]) -> None:
        """Call ``on_train_end``, and drop the callbacks' references to the training."""
        with ExitStack() as ends:  # calls all, in reverse, even if one raises
            for callback in self.callbacks:
                if isinstance(callback, Keeper):
                    ends.callback(setattr, callback, "training", None)
            for callback in reversed(begun):
                ends.callback(callback.on_train_end, self.history.last)

    def _publish(self) -> None:
        """Update the progress that callbacks see."""
        p = self.progress
        p.epoch, p.batch, p.sequences = self.epoch, self.batch, self.sequences

    def _train_epoch(self) -> None:
        model, epoch = self.model, self.epoch
        self.rng.bit_generator.state = self.order
        steps = self._steps()
        self._publish()
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, {})
        begin, end = self._hooks("on_train_batch_begin"), self._hooks("on_train_batch_end")
        for step in steps:
            if self._stopped(step):
                break
            for hook in begin:
                hook(self.batch, {})
            if not self._train_step(step):
                break
            self.batch += 1
            if end:
                self._publish()
                logs = self.means.so_far()
                for hook in end:
                    hook(self.batch - 1, logs)
        if isinstance(self.data, Batches) and self.data.exhausted:
            model.stop_training = True
            if not self.batch:
                return
        self._publish()
        if isinstance(self.data, Batches) and self.plan.bptt is None:
            self.progress.steps = self.batch  # of the next epoch, too
        measured = self._measured()
        if self.batch and math.isnan(measured["loss"]):  # the losses of its steps are finite
            raise ValueError(
                f"fit: expected targets whose weights are not all 0, got none in epoch {epoch + 1}"
            )
        self._end_epoch(epoch, measured | self._validated())

    def _stopped(self, step: Any = None) -> bool:
        """Return whether to stop, before an epoch or before a step."""
        return self.model.stop_training

    def _measured(self) -> Logs:
        """Return loss and metrics of the epoch's training."""
        return self.means.logs()

    def _validated(self) -> Logs:
        """Return loss and metrics of the validation."""
        if self.validation is None:
            return {}
        of = self.plan.validation_batch_size
        return measure(self.network, self.objective, self.validation, of, "val_")

    def _end_epoch(self, epoch: int, logs: Logs) -> None:
        # Callbacks may add to the logs, and so to the history, which a Keeper then saves.
        for callback in self.callbacks:
            if not isinstance(callback, Keeper):
                callback.on_epoch_end(epoch, logs)
        self.history.add(epoch, logs)
        self.epoch, self.batch = epoch + 1, 0
        self.order = self.rng.bit_generator.state
        self.means = self._no_means()
        self.state = None
        self._publish()
        for callback in self.callbacks:
            if isinstance(callback, Keeper):
                callback.on_epoch_end(epoch, logs)

    def _steps(self) -> Iterator[Any]:
        """Return the epoch's remaining steps."""
        steps = self._all_steps(self.rng if self.plan.shuffle else None)
        carried = self.state
        self.sequences = 0
        for _ in range(self.batch):
            next(steps, None)
        self.state = carried
        return steps

    def _all_steps(self, rng: np.random.Generator | None) -> Iterator[Any]:
        """Yield batches or pieces of them, each with the rows of the state that continue."""
        size = None
        for batch in self.data.batches(self.plan.batch_size, rng):
            B = batch.x.shape[1]
            self._begin_batch(B, size, batch.lengths is not None)
            size = B
            yield from pieces(batch, self.plan.bptt)
            self.sequences += B

    def _begin_batch(self, size: int, before: int | None, ragged: bool) -> None:
        """Zero the state unless it is carried; raise if it can't be."""
        if not self.plan.stateful:
            self.state = None
        elif ragged or before not in (None, size):
            raise ValueError("stateful: expected batches of one size, of sequences of one length")

    def _train_step(self, step: Any) -> bool:
        """Take one optimizer step; return whether it was taken."""
        batch, on = step
        state = self.state
        if state is not None and on is not None:
            state = [rows_of(s, on) for s in state]
        # A loss that is not finite raises an error; warnings would only be noise.
        with np.errstate(all="ignore"):
            y, tape = self.network.apply_forward(batch.x, state, lengths=batch.lengths)
            loss, dy = self.means.add(y, batch)
            self._expect_finite(loss)
            trainable = self._trainable()
            grads = self.network.gradients(tape, dy, trainable)
            if grads:
                self.optimizer.apply(self.parameters, grads)
        self.state = tape.state
        return True

    def _expect_finite(self, loss: float) -> None:
        """Raise if the loss of a step is not finite."""
        if not math.isfinite(loss):
            raise ValueError(
                f"fit: the loss became {loss} in epoch {self.epoch + 1}, batch "
                f"{self.batch + 1}; look for NaN or infinity in X and y, or try a smaller lr "
                "or clip_norm"
            )

    def _trainable(self) -> list[bool]:
        """Return which layers are trained now; update :attr:`parameters` if that has changed."""
        trainable = self.network.trainable
        if trainable != self.trainable:
            self.trainable = trainable
            self.parameters = self.network.parameters(trainable=True)
        return trainable

    def _hooks(self, name: str) -> list[Callable[[int, Logs], None]]:
        """Return the hooks of this name that callbacks override."""
        return [
            getattr(c, name)
            for c in self.callbacks
            if getattr(type(c), name) is not getattr(Callback, name)
        ]

    # State for checkpoints.

    @property
    def data_known(self) -> bool:
        """Whether the data are at hand, rather than given by an iterable as training goes on."""
        return isinstance(self.data, Data)

    def state_dict(self) -> dict[str, Any]:
        """Return all state that the rest of the training depends on."""
        optimizer = self.optimizer
        return {
            "about": self.about(),
            "architecture": self._architecture(),
            "epoch": self.epoch,
            "batch": self.batch,
            "order": self.order,
            "total": self.means.total,
            "metric_total": self.means.metric_total,
            "sums": self.means.sums,
            "outputs": [tuple(outputs) for outputs in self._outputs()],
            "state": self._carried(),
            "history": self.history.history,
            "epochs": self.history.epoch,
            "stop": self.model.stop_training,
            "weights": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr": None if callable(optimizer.lr) else optimizer.lr,
            "layers": [rng.bit_generator.state for rng in self._generators()],
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self._kept_callbacks()],
        }

    def _outputs(self) -> list[Outputs]:
        """Return the outputs kept for metrics of all outputs."""
        return self.means.outputs

    def _carried(self) -> Any:
        """Return the state that is carried to the next step."""
        return self.state

    def _carry(self, state: Any, outputs: list[Outputs]) -> None:
        """Restore what :meth:`_carried` and :meth:`_outputs` returned."""
        self.state, self.means.outputs = state, outputs

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return True

    def share(self, make: Callable[[], T_value]) -> T_value:
        """Return what `make` returns, which is called in the process that writes files."""
        return make()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned.

        Raises
        ------
        ValueError, TypeError, KeyError, AttributeError
            If it is from another training; nothing is changed then.
        """
        mine = self.about()
        for name, theirs in state["about"].items():
            if mine[name] != theirs:
                raise ValueError(f"{name}: expected {theirs!r} as in the file, got {mine[name]!r}")
        kinds = [kind for kind, _ in state["callbacks"]]
        given = [type(c).__name__ for c in self._kept_callbacks()]
        if kinds != given:
            raise ValueError(f"callbacks: expected {kinds} as in the file, got {given}")
        before = self.state_dict()
        try:
            self._restore(state)
        except Exception:
            self._restore(before)
            raise
        self.resumed_at = self.epoch, self.batch

    def _restore(self, state: Mapping[str, Any]) -> None:
        optimizer = self.optimizer
        epoch, batch = (_checks.size(state[name], name, 0) for name in ("epoch", "batch"))
        sums = [float(value) for value in state["sums"]]
        history, epochs = dict(state["history"]), list(state["epochs"])
        lists = all(isinstance(v, list) and len(v) <= len(epochs) for v in history.values())
        if len(sums) != len(self.means.sums) or not lists:
            raise ValueError("history: expected as many numbers as metrics and epochs")
        np.random.default_rng(0).bit_generator.state = state["order"]
        for callback, (_, of_callback) in zip(
            self._kept_callbacks(), state["callbacks"], strict=True
        ):
            callback.load_state_dict(of_callback)
        self.model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        if not callable(optimizer.lr):
            optimizer.lr = state["lr"]
        for rng, of_rng in zip(self._generators(), state["layers"], strict=True):
            rng.bit_generator.state = of_rng
        self.epoch, self.batch, self.order = epoch, batch, state["order"]
        self._carry(state["state"], [Outputs(*of_batch) for of_batch in state.get("outputs", ())])
        self.means.total, self.means.sums = float(state["total"]), sums
        self.means.metric_total = float(state.get("metric_total", state["total"]))
        self.history.history, self.history.epoch = history, epochs
        self.model.stop_training = bool(state["stop"])

    def about(self) -> dict[str, Any]:
        """Return what has to be equal for a resumed training to end with the same bits."""
        optimizer, plan = self.optimizer, self.plan
        options = [f"{n}={v!r}" for n, v in optimizer.options.items() if n != "lr"]
        return {
            "model": repr(self.model),
            "trainable": self.network.trainable,
            "loss": repr(self.objective.loss),
            "metrics": list(self.objective.metrics),
            "optimizer": f"{type(optimizer).__name__}({', '.join(options)})",
            "batch_size": plan.batch_size,
            "shuffle": plan.shuffle,
            "bptt": plan.bptt,
            "stateful": plan.stateful,
            "samples": self.data.samples,
            "data": self._checksum(),
        }

    def _architecture(self) -> dict[str, Any] | None:
        """Return a description of the layers; None if no file can hold one of them."""
        with suppress(TypeError):
            return architecture.describe(self.network.layers)
        return None

    def _checksum(self) -> str:
        """Return a checksum of the data."""
        data, checksum = self.data, 0
        if not isinstance(data, Data):
            return "batches"
        for a in (data.x, data.lengths, data.starts, data.y, data.weight):
            if a is not None:
                checksum = zlib.crc32(np.ascontiguousarray(a).data, checksum)
        return f"{checksum:08x}"

    def _kept_callbacks(self) -> list[Callback]:
        """Return the callbacks whose state is part of the training's."""
        return [c for c in self.callbacks if not isinstance(c, Keeper | ProgressBar)]

    def _generators(self) -> list[np.random.Generator]:
        """Return the random generators of the layers."""
        generators = [layer.generator for layer in self.network.layers]
        return [rng for rng in generators if rng is not None]


def rows_of(state: Any, rows: Array) -> Any:
    """Return some rows of a recurrent layer's state."""
    if isinstance(state, tuple):
        return tuple(s[:, rows] for s in state)
    return state[:, rows]
