"""Callbacks, and their interface to the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike
from fastrnn.layers.base import Layer
from fastrnn.models.history import History
from fastrnn.optim import Optimizer

Logs = dict[str, float]

T_value = TypeVar("T_value")

#: Options by name, each with the check that runs whenever it is set.
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

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> object:
        """Copy weights in."""
        ...


@dataclass(slots=True)
class Progress:
    """The progress of a training, for callbacks; the training itself never reads it.

    Attributes
    ----------
    epochs : int
        Epochs requested.
    samples : int or None
        Sequences per epoch; None with an iterable of batches.
    steps : int or None
        Optimizer steps per epoch; None if that varies.
    epoch, batch : int
        Epochs done, and optimizer steps done in the current one.
    sequences : int
        Sequences done in the current epoch.
    """

    epochs: int
    samples: int | None
    steps: int | None
    epoch: int = 0
    batch: int = 0
    sequences: int = 0

    @property
    def done(self) -> float:
        """The fraction of the epoch that is done; 0 if its size is unknown."""
        if self.samples is not None:
            return self.sequences / self.samples
        return self.batch / self.steps if self.steps else 0.0


class Callback:
    """Hooks that ``fit`` calls, with Keras's names; override those of interest.

    `logs` holds loss and metrics: in ``on_train_batch_end`` those of the epoch so far, without
    metrics that are functions of all outputs; in ``on_epoch_end`` those of the epoch and of the
    validation; entries added there are recorded in the history.

    Pickles and copies leave out `model` and `progress`, which the next ``fit`` sets.

    Attributes
    ----------
    model : Sequential
        The model being trained. Set ``model.stop_training = True`` to stop training.
    params : dict
        ``epochs``, ``steps`` (per epoch; None if that varies) and ``samples`` (None with an
        iterable of batches).
    progress : Progress
        Progress of the training.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> class Stop(fastrnn.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         logs["epochs"] = epoch + 1  # recorded in the history
    ...         self.model.stop_training = epoch == 2
    >>> model.fit(X, y, epochs=10, callbacks=[Stop()], verbose=0).history["epochs"]
    [1, 2, 3]
    """

    _options: ClassVar[Options] = {}

    model: Model
    params: dict[str, Any]
    progress: Progress

    def __setattr__(self, name: str, value: Any) -> None:
        """Check options, and refuse unknown attributes of the library's own classes."""
        kind = type(self)
        # Other classes, such as a user's, may have any attributes.
        if kind.__module__.startswith("fastrnn.models.") and name[0] != "_":
            known = {
                n for k in kind.__mro__ for n in (*vars(k), *vars(k).get("__annotations__", ()))
            }
            if name not in known:
                raise AttributeError(
                    f"{kind.__name__}.{name}: there is no such attribute, setting it would have no "
                    f"effect{_checks.near(name, known)}"
                )
        check = self._options.get(name)
        super().__setattr__(name, value if check is None else check(value, name))

    def on_train_begin(self, logs: Logs) -> None:
        """Called before the first epoch."""

    def on_train_end(self, logs: Logs) -> None:
        """Called after the last epoch, and when the training ends by an error or Ctrl-C."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Called before an epoch; the first is 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Called before optimizer step `batch`; the first of an epoch is 0."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Called after optimizer step `batch`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to resume from: numbers, strings, arrays, and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in vars(self).items() if name not in ("model", "progress")}

    def __repr__(self) -> str:
        own = vars(self)
        options = (f"{name}={own[name]!r}" for name in self._options if name in own)
        return f"{type(self).__name__}({', '.join(options)})"


class Resumable(Protocol):
    """A training whose state can be saved and restored."""

    @property
    def data_known(self) -> bool:
        """Whether the data are at hand, rather than given by an iterable as training goes on."""
        ...

    @property
    def resumed_at(self) -> tuple[int, int] | None:
        """Epochs and optimizer steps of the state that was restored; None if none was."""
        ...

    @property
    def writes(self) -> bool:
        """Whether this process writes files: one of those that train together does."""
        ...

    def share(self, make: Callable[[], T_value]) -> T_value:
        """Return on all processes what `make` returns on the one that writes files."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all state that the rest of the training depends on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, or raise and change nothing."""
        ...


class Keeper(Callback):
    """A callback that saves the state of the whole training, and so runs after the others.

    Attributes
    ----------
    training : Resumable or None
        The running training; None outside ``fit``.
    """

    training: Resumable | None = None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"training": None}
