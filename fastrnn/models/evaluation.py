"""Loss, metrics and predictions over data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.losses import Loss
from fastrnn.models.data import Batch, Data
from fastrnn.models.metrics import Metric
from fastrnn.models.network import Network


@dataclass(frozen=True)
class Objective:
    """The loss, and metrics by name."""

    loss: Loss
    metrics: Mapping[str, Metric]


class Means:
    """Weighted means over batches: of the loss, and of each metric."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.total, self.sums = 0.0, [0.0] * (1 + len(objective.metrics))

    def add(self, y: Array, batch: Batch) -> tuple[float, Array]:
        """Add a batch with outputs `y`; return its loss and the gradient of the loss."""
        value, dy = self.objective.loss.compute(y, batch.target, batch.weight)
        if batch.weight is not None:
            total = float(batch.weight.sum(dtype=np.float64))
        else:
            total = float(y.size // y.shape[-1])
        self.total += total
        self.sums[0] += value * total
        for i, metric in enumerate(self.objective.metrics.values(), 1):
            if total:
                self.sums[i] += metric(y, batch.target, batch.weight) * total
        return value, dy

    def logs(self, prefix: str = "") -> dict[str, float]:
        """Return the means, by name."""
        names = ("loss", *self.objective.metrics)
        of = self.total or 1.0
        return {prefix + name: s / of for name, s in zip(names, self.sums, strict=True)}


def measure(
    network: Network, objective: Objective, data: Data, batch_size: int, prefix: str = ""
) -> dict[str, float]:
    """Return loss and metrics over all data, without dropout."""
    means = Means(objective)
    for rows in data.by_length(batch_size):
        batch = data.batch(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            y, _ = network.apply(batch.x, lengths=batch.lengths)
            means.add(y, batch)
    return means.logs(prefix)


def predict(network: Network, data: Data, batch_size: int) -> Any:
    """Return the outputs for all data: an array, or, per step and for a list, a list of arrays."""
    s = data.signature
    if not s.per_step:
        predictions = np.empty((len(data), s.outputs), s.dtype)
        for rows in data.by_length(batch_size):
            x, lengths, _ = data.inputs(rows)
            predictions[rows] = network.apply(x, lengths=lengths)[0]
        return predictions
    if data.starts is None:
        predictions = np.zeros((*data.x.shape[:2], s.outputs), s.dtype)
        for rows in data.by_length(batch_size):
            x, lengths, valid = data.inputs(rows)
            y, _ = network.apply(x, lengths=lengths)
            if valid is not None:
                y[~valid] = 0
            predictions[rows, : len(y)] = y.swapaxes(0, 1)
        return list(predictions) if data.was_list else predictions
    outputs: list[Any] = [None] * len(data)
    assert data.lengths is not None
    for rows in data.by_length(batch_size):
        x, lengths, _ = data.inputs(rows)
        y, _ = network.apply(x, lengths=lengths)
        for b, row in enumerate(rows):
            outputs[row] = y[: data.lengths[row], b].copy()
    return outputs
