"""The base of both estimators: settings, inputs, weights, and the training of a network."""

from __future__ import annotations

import copy
import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from fastrnn import _checks, _frames
from fastrnn._core import generators
from fastrnn._types import Array
from fastrnn.models import estimators, sequences
from fastrnn.models.callback import Callback, Logs
from fastrnn.models.chain import expect_sequence
from fastrnn.models.fitted import FittedModel
from fastrnn.models.sequences import Inputs
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam

_PER_STEP = "; set return_sequences=True for targets of each step"


class BestEpoch(Callback):
    """Stops when a score has stopped improving, and restores the weights of its best epoch.

    It counts epochs as scikit-learn's MLPClassifier does.

    Parameters
    ----------
    score : callable
        Without arguments.
    tol : float
    patience : int
    """

    def __init__(self, score: Callable[[], float], tol: float, patience: int) -> None:
        self.score, self.tol, self.patience = score, tol, patience
        self.scores: list[float] = []
        self.best, self._waited = -math.inf, 0
        self._weights: dict[str, Array] = {}

    def begin_with(self, net: Sequential) -> None:
        """Count the weights of a trained network as the first to beat."""
        self.best, self._weights = self.score(), net.state_dict()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Keep the weights of an epoch that improved, or stop training if due."""
        score = self.score()
        self.scores.append(score)
        logs["validation_score"] = score
        self._waited = self._waited + 1 if score < self.best + self.tol else 0
        if score > self.best:
            self.best, self._weights = score, self.model.state_dict()
        if self._waited > self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Logs) -> None:
        """Restore the best weights."""
        if self._weights:
            self.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, and the best weights."""
        return {
            "scores": self.scores, "best": self.best, "waited": self._waited,
            "weights": self._weights,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        self.scores = [*map(float, state["scores"])]
        self.best, self._waited = float(state["best"]), int(state["waited"])
        self._weights = dict(state["weights"])


class SequenceEstimator(BaseEstimator, FittedModel):  # type: ignore[misc]
    """The base of both estimators: the training of what a :class:`FittedModel` uses."""

    def __init__(
        self,
        cell: str = "gru",
        *,
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        return_sequences: bool = False,
        max_epochs: int = 50,
        batch_size: int = 32,
        lr: float = 5e-3,
        clip_norm: float = 1.0,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        matmul_precision: str = "float32",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.return_sequences = return_sequences
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.clip_norm = clip_norm
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.matmul_precision = matmul_precision
        self.random_state = random_state
        self.verbose = verbose

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; parameters that it does not know get their defaults."""
        known = inspect.signature(type(self)).parameters.values()
        new = {p.name: p.default for p in known if p.name not in state and p.default is not p.empty}
        super().__setstate__(new | state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @property
    @abstractmethod
    def _loss(self) -> str:
        """The loss, for :meth:`fastrnn.Sequential.compile`."""

    @abstractmethod
    def _target(self, y: Any, X: Any) -> Array:
        """Return targets as an array (n, ...), or (sum T_i, ...) per step."""

    @abstractmethod
    def _encoded(
        self, y: Array, weight: Array | None, fresh: bool, **options: Any
    ) -> tuple[Array, int, Array | None]:
        """Return the network's targets, the number of its outputs, and weights in the loss.

        Without `fresh`, targets are encoded as in the fit before.
        """

    @abstractmethod
    def _score_of(self, outputs: Array, target: Array, weight: Array | None) -> float:
        """Return the score of the network's outputs (n, outputs)."""

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, partly: bool, callbacks: Any = None,
        **options: Any,
    ) -> Self:  # fmt: skip
        """Train; `partly` for one epoch more."""
        if hasattr(self, "net_"):
            self.net_.expect_trainable()
        with self._as_before_if_it_fails():
            fresh = not hasattr(self, "net_") or not (partly or self._flag("warm_start"))
            if y is None:
                raise ValueError(
                    f"y: expected one for each sequence; {type(self).__name__} "
                    "requires y to be passed, but the target y is None"
                )
            per_step = self._flag("return_sequences")
            if not fresh and per_step != self._per_step:
                raise ValueError("return_sequences: expected as in the fit before")
            self._per_step = per_step
            as_table = not fresh and self._inputs.table
            x, table = sequences.checked(X, self, reset=fresh, as_table=as_table)
            y = self._target(y, x)
            _pins = _checks.pinned(x, y)  # `sample_weight` and `classes` may run code of the caller
            weight = self._weights(sample_weight, len(x))
            of_sequence = weight
            if weight is not None and per_step:
                weight = weight.repeat(sequences.steps(x))
            if of_sequence is not None and not of_sequence.all():
                x, y, weight = self._part(np.flatnonzero(of_sequence), x, y, weight)
                of_sequence = of_sequence[of_sequence > 0]
            if fresh:
                self._inputs = Inputs.of(x, table, self._flag("standardize"), of_sequence)
            x = self._inputs.scaled(x)
            target, outputs, weight = self._encoded(y, weight, fresh, **options)
            self._train(x, target, outputs, weight, partly, fresh, callbacks)
        return self

    @contextmanager
    def _as_before_if_it_fails(self) -> Iterator[None]:
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _flag(self, name: str) -> bool:
        return _checks.flag(getattr(self, name), name)

    def _weights(self, sample_weight: Any, n: int) -> Array | None:
        if sample_weight is None:
            return None
        w = _checks.numeric(sample_weight, "sample_weight")
        w = np.full(n, w) if w.ndim == 0 else w
        w = _checks.shaped(w, "sample_weight", np.dtype(np.float64), (n,))
        if not (np.isfinite(w).all() and (w >= 0).all() and w.any()):
            raise ValueError("sample_weight: expected finite numbers >= 0, and not all zero")
        return w

    def _train(
        self, x: Any, target: Array, outputs: int, weight: Array | None, partly: bool, fresh: bool,
        callbacks: Any,
    ) -> None:  # fmt: skip
        """Train a new network, or, without `fresh`, that of the fit before.

        `target` and `weight` are of sequences, or of all steps, one after the other.
        """
        batch_size = _checks.size(self.batch_size, "batch_size")
        epochs = 1 if partly else _checks.size(self.max_epochs, "max_epochs")
        own = expect_sequence([] if callbacks is None else callbacks, "callbacks")
        constant = Adam(self.lr, clip_norm=self.clip_norm)  # for partial_fit
        if self._flag("early_stopping") and partly:
            raise ValueError("early_stopping: partial_fit does not support early_stopping=True")
        if fresh:
            net = self._network(x, outputs)
        else:
            net = self.net_ if partly else self._continued(x, outputs)
        if not fresh and partly:
            # Continue with the state of its Adam, and the current settings.
            if net.optimizer is None:  # it comes from a file
                net.compile(constant, self._loss)
            adam: Any = net.optimizer
            adam.lr, adam.clip_norm = constant.lr, constant.clip_norm
        stop = None
        if self.early_stopping:
            (x, target, weight), stop = self._held_out(net, x, target, weight)
            if not fresh:
                stop.begin_with(net)
        if not partly:
            adam = estimators.adam(self.lr, self.clip_norm, len(x), batch_size, epochs)
            net.compile(adam, self._loss)
        elif fresh:
            net.compile(constant, self._loss)
        history = net.fit(
            x, self._apart(target, x), epochs=epochs, batch_size=batch_size, verbose=self.verbose,
            sample_weight=None if weight is None else self._apart(weight, x),
            callbacks=[*([stop] if stop else []), *own],
        )  # fmt: skip
        losses = estimators.to_the_end(history).history["loss"]
        if not partly:
            # Its optimizer's state is twice the size of the weights, and no longer needed.
            net.compile(constant, self._loss)
        self.loss_curve_ = [*([] if fresh else self.loss_curve_), *losses]
        self.n_iter_ = len(losses)
        self.validation_scores_ = stop.scores if stop else None
        self.best_validation_score_ = stop.best if stop else None
        self.net_ = net

    def _network(self, x: Any, outputs: int) -> Sequential:
        """Return a new network."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        return estimators.last_step_net(
            (), self.cell, x[0].shape[1], self.hidden_size, outputs, num_layers=self.num_layers,
            bidirectional=self.bidirectional, dropout=self.dropout, dtype=x[0].dtype, seed=seed,
            return_sequences=self._per_step, matmul_precision=self.matmul_precision,
        )  # fmt: skip

    def _continued(self, x: Any, outputs: int) -> Sequential:
        """Return a copy of the network of the fit before, if the settings are still its."""
        net, like = copy.deepcopy(self.net_), self._network(x, outputs)
        if repr(net) != repr(like):
            raise ValueError(f"warm_start: expected the settings of the fit before, {net}")
        return net

    def _held_out(
        self, net: Sequential, x: Any, target: Array, weight: Array | None
    ) -> tuple[tuple[Any, Array, Array | None], BestEpoch]:
        """Return what is left of the data, and what stops the training by the rest of them."""
        fraction = _checks.real(
            self.validation_fraction, "validation_fraction", "a number above 0 and under 1",
            lambda v: 0 < v < 1,
        )  # fmt: skip
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        rng = generators.random().default_rng(seed)
        classes = np.zeros(len(x)) if self._per_step else target
        kept, held = estimators.holdout(classes, fraction, rng)
        if len(held) < 2:
            raise ValueError(
                f"validation_fraction: expected to hold out 2 sequences or more, got {fraction:g} "
                f"of {len(x)}"
            )
        rest, x_held = self._part(kept, x, target, weight), sequences.taken(x, held)
        _, target_held, weight_held = self._part(held, x, target, weight)

        def score() -> float:
            return self._score_of(self._outputs_of(net, x_held), target_held, weight_held)

        tol = _checks.not_negative(self.tol, "tol")
        return rest, BestEpoch(score, tol, _checks.size(self.n_iter_no_change, "n_iter_no_change"))

    def _part(
        self, rows: Array, x: Any, target: Array, weight: Array | None
    ) -> tuple[Any, Array, Array | None]:
        """Return some of the sequences, with their targets and weights, which may be of steps."""
        of_target = rows
        if self._per_step:
            of_target = np.flatnonzero(np.isin(np.arange(len(x)), rows).repeat(sequences.steps(x)))
        weight = None if weight is None else weight[of_target]
        return sequences.taken(x, rows), target[of_target], weight

    def _of_steps(self, X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        """Return targets, predictions and weights of all steps, as scikit-learn's metrics do."""
        outputs, x = self._outputs(X)
        weight = self._weights(sample_weight, len(x))
        return {
            "y_true": self._target(y, x),
            "y_pred": self._decoded(outputs),
            "sample_weight": None if weight is None else weight.repeat(sequences.steps(x)),
        }

    def _expect_fitted(self) -> None:
        check_is_fitted(self, "net_")

    @staticmethod
    def _one_each(y: Any, x: Any) -> Array:
        """Return targets of the sequences `x` as an array."""
        try:
            targets = _frames.values(y.toarray() if hasattr(y, "toarray") else y, "y")
        except ValueError as error:
            raise ValueError(f"{error}{_PER_STEP if 'ragged' in str(error) else ''}") from None
        if targets.ndim > 2:
            raise ValueError(
                f"y: expected shape (n,) or (n, K), got {_checks.shape_text(targets.shape)}"
                f"{_PER_STEP}"
            )
        check_consistent_length(x, targets)  # before all of them are read
        return targets

    def _each_step(self, y: Any, x: Any) -> Array:
        """Return targets of each step of the sequences `x`, one after the other."""
        y = y if isinstance(y, list | tuple) else _frames.values(y, "y")
        check_consistent_length(x, y)
        targets = [_frames.values(of, f"y[{i}]") for i, of in enumerate(y)]
        for i, (of, n) in enumerate(zip(targets, sequences.steps(x), strict=True)):
            got = len(of) if of.ndim else "one"
            if got != n:
                swapped = isinstance(x, np.ndarray) and got == x.shape[2]
                hint = ": X seems to be (n, F, T), pass X.swapaxes(1, 2)" if swapped else ""
                raise ValueError(
                    f"y[{i}]: expected {n} targets, one for each step, as return_sequences=True, "
                    f"got {got}{hint}"
                )
        return np.concatenate(targets)
