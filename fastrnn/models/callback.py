"""What a training and its callbacks know of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.models.history import History
from fastrnn.optim import Optimizer

Logs = dict[str, float]

#: Options by name, and what checks each of them whenever it is set.
Options = Mapping[str, Callable[[Any, str], Any]]


class Model(Protocol):
    """The model being trained, as callbacks see it: a ``Sequential``."""

    history: History | None
    stop_training: bool
    training: bool

    def train(self, mode: bool = True) -> Any:
        """Switch to training mode, or, with False, to evaluation."""
        ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        ...

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer given to ``compile``."""
        ...

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, by name."""
        ...

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of the weights, by name."""
        ...

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Copy weights in."""
        ...


@dataclass(slots=True)
class Progress:
    """Where a training is. Written for callbacks, never read by the training itself.

    Attributes
    ----------
    epochs : int
        How many were asked for.
    samples : int
        Sequences in an epoch.
    steps : int or None
        Steps of the optimizer in an epoch; None where that varies.
    epoch, batch : int
        Epochs done, and steps of the optimizer done in the current one.
    sequences : int
        Sequences done in the current epoch.
    """

    epochs: int
    samples: int
    steps: int | None
    epoch: int = 0
    batch: int = 0
    sequences: int = 0


class Callback:
    """Hooks that ``fit`` calls, with Keras's names; override those of interest.

    `logs` has the losses and metrics so far: of the epoch in ``on_train_batch_end``, and with
    those of the validation in ``on_epoch_end``; what is added to it there goes into the history.

    Pickles and copies are without `model` and `progress`, which the next ``fit`` sets.

    Attributes
    ----------
    model : Sequential
        Being trained. Set ``model.stop_training = True`` to end the training.
    params : dict
        ``epochs``, ``steps`` (an epoch's, None where it varies) and ``samples``.
    progress : Progress
        Where the training is.
    """

    _options: ClassVar[Options] = {}

    model: Model
    params: dict[str, Any]
    progress: Progress

    def __setattr__(self, name: str, value: Any) -> None:
        """Check options, and refuse on the library's own classes what would have no effect."""
        kind = type(self)
        # Others, in the library or a user's, may have what they like.
        if kind.__module__.startswith("fastrnn.models.") and name[0] != "_":
            known = {
                n for k in kind.__mro__ for n in (*vars(k), *vars(k).get("__annotations__", ()))
            }
            if name not in known:
                raise AttributeError(
                    f"{kind.__name__}.{name}: there is no such attribute, setting it would have no "
                    "effect"
                )
        check = self._options.get(name)
        super().__setattr__(name, value if check is None else check(value, name))

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
        """Return what a resumed training needs to know: numbers, strings, arrays, dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in vars(self).items() if name not in ("model", "progress")}


class Resumable(Protocol):
    """A training that can be put where another one was."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, or raise and leave everything as it was."""
        ...


class Keeper(Callback):
    """A callback that keeps the whole training, and so comes after the others.

    Attributes
    ----------
    training : Resumable or None
        None when there is no ``fit``.
    """

    training: Resumable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"training": None}
