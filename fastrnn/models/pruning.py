"""A callback that prunes trials of Optuna."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from fastrnn import _checks, losses
from fastrnn.models.callback import Callback, Logs, Options
from fastrnn.models.monitor import MONITORED, value_of, worst


def _trial(value: Any, name: str) -> Any:
    if not (hasattr(value, "report") and hasattr(value, "should_prune")):
        raise TypeError(f"{name}: expected a trial of Optuna, got {_checks.kind_of(value)}")
    return value


class OptunaPruning(Callback):
    """Report a quantity to a trial of Optuna after each epoch, and end the trial if it is pruned.

    To prune is to raise ``optuna.TrialPruned``, which ends ``fit`` and which the study expects. For
    ``fit`` of a ``Sequential``, of the estimators of :mod:`fastrnn.sklearn`, of ``CharLM`` and of
    ``TextClassifier``. Ctrl-C, which otherwise ends the training alone, ends the study: half a
    training is no result.

    Parameters
    ----------
    trial : optuna.trial.Trial
        Of a study with one objective.
    monitor : str
        Quantity to report, such as ``"val_loss"``, or ``"validation_score"`` of an estimator with
        `early_stopping`. The study has to be minimized or maximized as is good for it.
    interval : int
        Report after every `interval` epochs.

    Raises
    ------
    TypeError
        If `trial` is something else.
    ValueError
        In ``fit``, if the quantity is not in the logs, or if it is known to be worse the way that
        the study goes, such as an accuracy that is minimized.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> def objective(trial):
    ...     units = trial.suggest_int("units", 2, 8)
    ...     layers = [fastrnn.GRU(2, units, return_sequences=False), fastrnn.Linear(units, 1)]
    ...     model = fastrnn.Sequential(layers, seed=0)
    ...     model.compile("adam", "mse")
    ...     prune = fastrnn.callbacks.OptunaPruning(trial, "val_loss")
    ...     options = {"validation_split": 0.2, "callbacks": [prune], "verbose": 0}
    ...     return model.fit(X, y, epochs=6, **options).history["val_loss"][-1]
    >>> import optuna  # doctest: +SKIP
    >>> study = optuna.create_study(pruner=optuna.pruners.MedianPruner())  # doctest: +SKIP
    >>> study.optimize(objective, n_trials=10)  # doctest: +SKIP
    >>> list(study.best_params)  # doctest: +SKIP
    ['units']
    """

    _options: ClassVar[Options] = {
        "trial": _trial,
        "monitor": MONITORED["monitor"],
        "interval": _checks.size,
    }

    trial: Any
    monitor: str
    interval: int

    def __init__(self, trial: Any, monitor: str = "val_loss", interval: int = 1) -> None:
        self.trial, self.monitor, self.interval = trial, monitor, interval

    def on_train_begin(self, logs: Logs) -> None:
        """Raise if the study goes the wrong way."""
        study = getattr(self.trial, "study", None)
        directions = [direction.name.lower() for direction in getattr(study, "directions", ())]
        name = self.monitor.removeprefix("val_")
        expected = None
        if worst(self.monitor, "auto") < 0:
            expected = "maximize"
        elif name == "loss" or name in losses.NAMES:
            expected = "minimize"
        if expected is not None and directions not in ([], [expected]):
            raise ValueError(
                f"monitor: expected a study with direction {expected!r} for {self.monitor!r}, got "
                f"{' and '.join(map(repr, directions))}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the quantity, and raise ``optuna.TrialPruned`` if the trial is pruned."""
        if (epoch + 1) % self.interval:
            return
        value = value_of(logs, self.monitor)
        self.trial.report(float(value), step=epoch)
        if self.trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"{self.monitor} was {value:.4g} in epoch {epoch + 1}")

    def on_train_end(self, logs: Logs) -> None:
        """Raise KeyboardInterrupt again if it ended the training."""
        history = self.model.history
        if history is not None and history.interrupted and sys.exception() is None:
            raise KeyboardInterrupt
