"""Metrics: quantities reported beside the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.losses import NAMES, BinaryCrossEntropy, CrossEntropy, Elementwise, Loss

Metric = Callable[[Array, Array, Array | None], float]


def get_metric(metric: Any, loss: Loss) -> tuple[str, Metric]:
    """Return the metric's name, and a function that returns its mean over a batch.

    Parameters
    ----------
    metric : str or callable
        ``"accuracy"``, the name of a loss, a loss, or ``f(output, target) -> float``.
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
            raise ValueError(
                f"metrics: expected 'accuracy', {', '.join(map(repr, NAMES))} or a function, "
                f"got {metric!r}"
            )
        name, metric = metric, NAMES[metric]
    else:
        name = getattr(metric, "__name__", type(metric).__name__.lower())
    if isinstance(metric, Loss):
        if isinstance(metric, Elementwise) != isinstance(loss, Elementwise):
            raise ValueError(f"metrics: {name} takes other targets than {type(loss).__name__}")
        return name, partial(_of_loss, metric)
    if not callable(metric):
        raise TypeError(f"metrics: expected names or functions, got {type(metric).__name__}")
    return name, partial(_of_valid, metric)


def _of_loss(loss: Loss, z: Array, t: Array, w: Array | None) -> float:
    return loss.compute(z, t, w)[0]


def _of_valid(function: Any, z: Array, t: Array, w: Array | None) -> float:
    if z.ndim == 3:  # per step, where the user has the batch first
        z, t = z.swapaxes(0, 1), t.swapaxes(0, 1)
        w = None if w is None else w.swapaxes(0, 1)
    if w is not None:
        z, t = z[w > 0], t[w > 0]
    return float(function(z, t))


def _classes(z: Array, t: Array, w: Array | None) -> float:
    return _mean(z.argmax(axis=-1) == t, w)


def _signs(z: Array, t: Array, w: Array | None) -> float:
    return _mean((z > 0) == (t > 0.5), w)


def _mean(hits: Array, w: Array | None) -> float:
    if w is None:
        return float(hits.mean())
    total = w.sum(dtype=np.float64)
    per_weight = hits.reshape(w.size, -1).mean(axis=-1)
    return float(np.dot(per_weight, w.reshape(-1)) / total) if total else 0.0
