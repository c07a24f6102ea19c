"""Metrics: quantities reported beside the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.losses import NAMES, BinaryCrossEntropy, CrossEntropy, Elementwise, FunctionLoss, Loss

#: The mean over a batch of outputs, given targets and weights.
Mean = Callable[[Array, Array, Array | None], float]

#: First arguments of functions that take the outputs before the targets.
_OUTPUTS = {"y_pred", "pred", "preds", "predictions", "output", "outputs", "input", "logits"}
_TARGETS = {"y_true", "true", "target", "targets", "label", "labels"}


class OfAll:
    """A function of all targets and all outputs: ``f(y_true, y_pred)``, as in scikit-learn.

    Parameters
    ----------
    name : str
    function : callable
    """

    def __init__(self, name: str, function: Callable[[Array, Array], Any]) -> None:
        self.name, self._function = name, function

    def __call__(self, batches: Sequence[Outputs]) -> float:
        """Return the metric over these batches; NaN if there is nothing in them."""
        if not batches:
            return float("nan")
        if len({b.y_pred.shape[1:-1] for b in batches}) > 1 or not all(b.whole for b in batches):
            batches = [b.flat() for b in batches]
        y_true = np.concatenate([b.y_true for b in batches])
        y_pred = np.concatenate([b.y_pred for b in batches])
        if y_pred.shape[-1] == 1:
            y_true, y_pred = y_true.reshape(y_pred.shape[:-1]), y_pred[..., 0]
        value = self._function(y_true, y_pred)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"metrics: expected {self.name}(y_true, y_pred) to return a number, got {value!r}"
            ) from None


class Outputs(NamedTuple):
    """Targets and outputs of a batch, with the sequences first.

    `whole` means that all sequences are there with all steps; else steps, (n, ...), without those
    that are padding or have weight 0.
    """

    y_true: Array
    y_pred: Array
    whole: bool

    @classmethod
    def of(cls, z: Array, t: Array, w: Array | None, whole: bool) -> Self:
        """Return those of a batch, time first, with these weights."""
        per_step = z.ndim == 3
        if per_step:
            z, t = z.swapaxes(0, 1), t.swapaxes(0, 1)
            w = w if w is None or w.ndim == 1 else w.swapaxes(0, 1)
        counted = None if w is None else w > 0
        if counted is not None and not counted.all():
            z, t, whole = z[counted], t[counted], whole and not per_step
        return cls(t, z, whole)

    def flat(self) -> Self:
        """Return the same with steps side by side."""
        if self.y_pred.ndim < 3:
            return self
        y_true, y_pred = (a.reshape(-1, *a.shape[2:]) for a in self[:2])
        return self._replace(y_true=y_true, y_pred=y_pred)


Metric = Mean | OfAll


def get_metric(metric: Any, loss: Loss) -> tuple[str, Metric]:
    """Return the metric's name, and what computes it.

    Parameters
    ----------
    metric : str or callable
        ``"accuracy"``, the name of a loss, a loss, or ``f(y_true, y_pred) -> float``.
    loss : Loss
        The training loss, which determines what outputs and targets are.
    """
    if metric == "accuracy":
        if not isinstance(loss, CrossEntropy | BinaryCrossEntropy):
            raise ValueError(
                f"metrics: expected a classification loss for 'accuracy', got {type(loss).__name__}"
            )
        return "accuracy", _classes if isinstance(loss, CrossEntropy) else _signs
    if isinstance(metric, str):
        if metric not in NAMES:
            hint = _checks.near(metric, ["accuracy", *NAMES])
            raise ValueError(
                f"metrics: expected 'accuracy', {', '.join(map(repr, NAMES))} or a function, "
                f"got {metric!r}{hint}"
            )
        name, metric = metric, NAMES[metric]
    else:
        name = getattr(metric, "__name__", type(metric).__name__.lower())
    if isinstance(metric, Loss):
        if isinstance(loss, FunctionLoss):
            return name, partial(_of_any_targets, metric)
        if isinstance(metric, Elementwise) != isinstance(loss, Elementwise):
            raise ValueError(f"metrics: {name} takes other targets than {type(loss).__name__}")
        return name, partial(_of_loss, metric)
    if not callable(metric):
        raise TypeError(f"metrics: expected names or functions, got {type(metric).__name__}")
    _expect_targets_first(metric, name)
    return name, OfAll(name, metric)


def _expect_targets_first(function: Any, name: str) -> None:
    """Raise if the names of the arguments tell that outputs come before targets."""
    code = getattr(function, "__code__", None)
    arguments = [] if code is None else [*code.co_varnames[: code.co_argcount][:2]]
    if len(arguments) == 2 and arguments[0] in _OUTPUTS and arguments[1] in _TARGETS:
        raise ValueError(
            f"metrics: expected {name}(y_true, y_pred), as in Keras and scikit-learn, got "
            f"{name}({', '.join(arguments)})"
        )


def _of_loss(loss: Loss, z: Array, t: Array, w: Array | None) -> float:
    return loss.compute(z, t, w)[0]


def _of_any_targets(loss: Loss, z: Array, t: Array, w: Array | None) -> float:
    return _of_loss(loss, z, loss.checked_target(t, z.shape, z.dtype, "y", w), w)


def _classes(z: Array, t: Array, w: Array | None) -> float:
    return _mean(z.argmax(axis=-1) == t, w)


def _signs(z: Array, t: Array, w: Array | None) -> float:
    return _mean((z > 0) == (t > 0.5), w)


def _mean(hits: Array, w: Array | None) -> float:
    if w is None:
        return float(hits.mean())
    total = w.sum(dtype=np.float64)
    per_weight = hits.reshape(w.size, -1).mean(axis=-1)
    return float((per_weight * w.reshape(-1)).sum() / total) if total else 0.0
