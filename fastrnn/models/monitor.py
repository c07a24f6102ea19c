"""Callbacks that monitor one quantity of the logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.models.callback import Callback, Logs, Options


def _name(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    return value


#: Checks of what is monitored and whether more of it is better.
MONITORED: Options = {
    "monitor": _name,
    "mode": lambda value, name: _checks.choice(value, name, ("auto", "min", "max")),
}


#: Ends of names of quantities of which more is better: Keras's, and scikit-learn's scores.
_GAINS = (
    "accuracy", "acc", "_score", "auc", "precision", "recall", "f1", "r2", "iou", "corrcoef", "mcc"
)  # fmt: skip


def worst(monitor: str, mode: str) -> float:
    """Return what any value of the quantity is better than; "auto" goes by its name."""
    name = monitor.lower().removeprefix("val_")
    by_name = name.endswith(_GAINS) or name.startswith("neg_")  # as scikit-learn's scorers
    more = by_name if mode == "auto" else mode == "max"
    return -math.inf if more else math.inf


def value_of(logs: Logs, monitor: str) -> float:
    """Return the quantity; raise if it is not in the logs."""
    if monitor not in logs:
        hint = _checks.near(monitor, logs)
        raise ValueError(f"monitor: expected one of {sorted(logs)}, got {monitor!r}{hint}")
    return logs[monitor]


def improvement(logs: Logs, monitor: str, mode: str, best: float) -> float:
    """Return by how much the quantity is better than `best`."""
    gained = value_of(logs, monitor) - best
    return gained if worst(monitor, mode) < 0 else -gained


class Monitor(Callback):
    """A callback that monitors one quantity of the logs.

    Parameters
    ----------
    monitor, patience, min_delta, mode
        As in :class:`EarlyStopping`.
    """

    _options: ClassVar[Options] = {
        **MONITORED,
        "patience": lambda value, name: _checks.size(value, name, 0),
        "min_delta": _checks.not_negative,
    }

    monitor: str
    patience: int
    min_delta: float
    mode: str
    best: float
    wait: int

    def __init__(self, monitor: str, patience: int, min_delta: float, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.patience, self.min_delta = patience, min_delta
        self.on_train_begin({})

    def on_train_begin(self, logs: Logs) -> None:
        """Reset the state left by an earlier training."""
        self.best = worst(self.monitor, self.mode)
        self.wait = 0

    def _better(self, logs: Logs) -> bool:
        """Return whether the quantity has improved; count the epochs since it last did."""
        better = improvement(logs, self.monitor, self.mode, self.best) > self.min_delta
        if better:
            self.best = logs[self.monitor]
        self.wait = 0 if better else self.wait + 1
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and the epochs since then."""
        return {"best": self.best, "wait": self.wait}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        given = self._given(state)
        best = _checks.real(given["best"], "best", "a number", lambda v: True)
        self.best, self.wait = best, _checks.size(given["wait"], "wait", 0)

    def _given(self, state: Any) -> Mapping[str, Any]:
        """Return the state; raise if an entry of :meth:`state_dict` is missing."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, got {type(state).__name__}")
        missing = sorted(type(self).state_dict(self).keys() - state.keys())
        if missing:
            raise ValueError(f"state: missing {missing}")
        return state


class EarlyStopping(Monitor):
    """Stop training when a monitored quantity has stopped improving.

    Parameters
    ----------
    monitor : str
        Quantity to monitor, such as ``"val_loss"``.
    patience : int
        Number of epochs without improvement after which training stops; 0 acts as 1.
    min_delta : float
        An improvement must exceed this.
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" is "max" for accuracies, precision, recall, F1,
        AUC, IoU, correlations and scikit-learn's scores, going by their names.
    restore_best_weights : bool
        Whether to restore the weights of the best epoch, however the training ends.

    Attributes
    ----------
    best : float
        The best value so far.
    stopped_epoch : int or None
        The epoch after which training was stopped.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> stop = fastrnn.callbacks.EarlyStopping("loss", min_delta=10, restore_best_weights=True)
    >>> history = model.fit(X, y, epochs=10, callbacks=[stop], verbose=0)
    >>> len(history.epoch), stop.stopped_epoch
    (2, 1)
    """

    _options: ClassVar[Options] = {**Monitor._options, "restore_best_weights": _checks.flag}

    restore_best_weights: bool
    stopped_epoch: int | None

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        self.restore_best_weights = restore_best_weights
        super().__init__(monitor, patience, min_delta, mode)

    def on_train_begin(self, logs: Logs) -> None:
        """Reset the state left by an earlier training."""
        super().on_train_begin(logs)
        self.stopped_epoch = None
        self._weights: dict[str, Array] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Keep the weights of an epoch that improved, or stop training if due."""
        if self._better(logs):
            if self.restore_best_weights:
                self._weights = self.model.state_dict()
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        """Restore the best weights, and drop the copy."""
        if self._weights:
            self.model.load_state_dict(self._weights)
        self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state and the best weights."""
        return super().state_dict() | {"stopped": self.stopped_epoch, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        given = self._given(state)
        stopped, weights = given["stopped"], self._checked_weights(given["weights"])
        stopped = None if stopped is None else _checks.size(stopped, "stopped", 0)
        super().load_state_dict(state)
        self.stopped_epoch, self._weights = stopped, weights

    def _checked_weights(self, weights: Any) -> dict[str, Array]:
        """Return copies of the weights; raise if they do not fit the model, if there is one."""
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights: expected a mapping, got {type(weights).__name__}")
        copies = {n: _checks.numeric(a, f"weights {n}").copy() for n, a in weights.items()}
        model = getattr(self, "model", None)
        if copies and model is not None:
            own = model.arrays()
            if copies.keys() != own.keys():
                raise ValueError(f"weights: expected {sorted(own)}, got {sorted(copies)}")
            for name, a in own.items():
                _checks.expect_shape(copies[name], f"weights {name}", a.shape)
        return copies


class ReduceLROnPlateau(Monitor):
    """Reduce the learning rate when a monitored quantity has stopped improving.

    As in Keras; torch's waits one epoch more. The optimizer's `lr` has to be a number, not a
    schedule. The learning rate of each epoch is recorded in the history as ``"lr"``.

    Parameters
    ----------
    monitor : str
        Quantity to monitor, such as ``"val_loss"``.
    factor : float
        The rate is multiplied by this, above 0 and below 1.
    patience : int
        Number of epochs without improvement after which the rate is reduced; 0 acts as 1.
    min_delta : float
        An improvement must exceed this.
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" is "max" for accuracies, precision, recall, F1,
        AUC, IoU, correlations and scikit-learn's scores, going by their names.
    min_lr : float
        Lower bound of the rate.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> plateau = fastrnn.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
    >>> model.fit(X, y, epochs=3, callbacks=[plateau], verbose=0).history["lr"]
    [0.001, 0.001, 0.0005]
    """

    _options: ClassVar[Options] = {
        **Monitor._options,
        "factor": lambda value, name: _checks.real(
            value, name, "a number in (0, 1)", lambda v: 0 < v < 1
        ),
        "min_lr": _checks.not_negative,
    }

    factor: float
    min_lr: float

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        mode: str = "auto",
        min_lr: float = 0.0,
    ) -> None:
        self.factor, self.min_lr = factor, min_lr
        super().__init__(monitor, patience, min_delta, mode)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Reduce the rate if due."""
        optimizer = self.model.optimizer
        if optimizer is None or callable(optimizer.lr):
            raise ValueError("ReduceLROnPlateau: expected an optimizer whose lr is a number")
        logs["lr"] = optimizer.lr
        if not self._better(logs) and self.wait >= self.patience:
            optimizer.lr = max(optimizer.lr * self.factor, self.min_lr)
            self.wait = 0
