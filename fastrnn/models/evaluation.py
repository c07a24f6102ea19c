"""Loss, metrics and predictions over data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from fastrnn._types import Array
from fastrnn.losses import Loss
from fastrnn.models.data import Batch, Data, Signature
from fastrnn.models.inputs import Parts, Source
from fastrnn.models.metrics import Metric, OfAll, Outputs
from fastrnn.models.network import Network


@dataclass(frozen=True)
class Objective:
    """The loss, and metrics by name."""

    loss: Loss
    metrics: Mapping[str, Metric]

    @cached_property
    def of_all(self) -> Mapping[str, OfAll]:
        """The metrics that are functions of all outputs."""
        return {n: metric for n, metric in self.metrics.items() if isinstance(metric, OfAll)}


class Means:
    """Weighted means over batches: of the loss, and of metrics; others are of all outputs.

    Parameters
    ----------
    objective : Objective
    whole : bool
        Whether batches hold sequences rather than pieces of them.
    """

    def __init__(self, objective: Objective, *, whole: bool = True) -> None:
        self.objective, self.whole = objective, whole
        #: Sums of the loss and of each metric, and those of their weights.
        self.sums = [0.0] * (1 + len(objective.metrics))
        self.total = self.metric_total = 0.0
        self.outputs: list[Outputs] = []  #: Kept for metrics that are of all.

    def add(self, y: Array, batch: Batch) -> tuple[float, Array]:
        """Add a batch with outputs `y`; return its loss and the gradient of the loss."""
        value, dy = self.objective.loss.compute(y, batch.target, batch.weight)
        total = _sum(batch.weight, y)
        self.total += total
        self.sums[0] += value * total
        if self.objective.metrics:
            self._add_metrics(y, batch)
        return value, dy

    def _add_metrics(self, y: Array, batch: Batch) -> None:
        weight, target = batch.metric_weight, batch.target
        total = _sum(weight, y)
        self.metric_total += total
        if total:
            for i, metric in enumerate(self.objective.metrics.values(), 1):
                if not isinstance(metric, OfAll):
                    self.sums[i] += metric(y, target, weight) * total
            if self.objective.of_all:
                self.outputs.append(Outputs.of(y, target, weight, self.whole))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "objective": None}  # which may hold functions, and so no pickle can

    def __iadd__(self, other: Means) -> Self:
        """Add what another has added."""
        self.total += other.total
        self.metric_total += other.metric_total
        self.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        self.outputs += other.outputs
        return self

    def so_far(self) -> dict[str, float]:
        """Return the means, by name, without metrics that are of all outputs; NaN of nothing."""
        loss, *metrics = self.sums
        logs = {"loss": loss / (self.total or math.nan)}
        for name, value in zip(self.objective.metrics, metrics, strict=True):
            if name not in self.objective.of_all:
                logs[name] = value / (self.metric_total or math.nan)
        return logs

    def logs(self, prefix: str = "") -> dict[str, float]:
        """Return loss and metrics, by name."""
        logs = self.so_far()
        for name, metric in self.objective.of_all.items():
            logs[name] = metric(self.outputs)
        return {prefix + name: logs[name] for name in ("loss", *self.objective.metrics)}


def _sum(weight: Array | None, y: Array) -> float:
    """Return the sum of the weights of a batch with outputs `y`; None stands for ones."""
    if weight is None:
        return float(y.size // y.shape[-1])
    return float(weight.sum(dtype=np.float64))


class Watch:
    """Progress of an evaluation or prediction on stderr; none for a verbosity of 0."""

    def __init__(self, title: str, samples: int | None, verbose: int) -> None:
        self._display: Any = None
        self._samples, self._count = samples, 0
        if verbose:
            from fastrnn.models.progress import Display

            self._display = Display("seq", within=verbose == 1)
            self._display.begin(title)

    def done(self, sequences: int) -> None:
        """Count sequences that are done."""
        if self._display is not None:
            self._count += sequences
            self._display.update(self._count, self._count / (self._samples or math.inf), {})

    def end(self, numbers: Mapping[str, float]) -> None:
        """Show these at the end."""
        if self._display is not None:
            self._display.end(self._count, numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.close()


def measure(
    network: Network,
    objective: Objective,
    data: Source,
    batch_size: int,
    prefix: str = "",
    verbose: int = 0,
) -> dict[str, float]:
    """Return loss and metrics over all data, without dropout."""
    means = Means(objective)
    # A function of all outputs sees them in the order of the data.
    batches = data.batches(batch_size, None, by_length=not objective.of_all)
    any_given = False
    with Watch("evaluation", data.samples, verbose) as watch:
        for batch in batches:
            any_given = True
            means += batch_means(network, objective, batch)
            watch.done(batch.x.shape[1])
        logs = means.logs(prefix)
        if not any_given:  # by an iterator that ended before its time
            logs = dict.fromkeys(logs, math.nan)
        watch.end(logs)
    return logs


def batch_means(network: Network, objective: Objective, batch: Batch) -> Means:
    """Return loss and metrics of a batch, without dropout."""
    means = Means(objective)
    with np.errstate(all="ignore"):
        y, _ = network.apply(batch.x, lengths=batch.lengths)
        means.add(y, batch)
    return means


def predict(
    network: Network, data: Source | Parts, batch_size: int, verbose: int
) -> Array | list[Array]:
    """Return the outputs for all data: an array, or, per step and for a list, a list of arrays."""
    with Watch("prediction", data.samples, verbose) as watch:
        if isinstance(data, Data):
            outputs: Array | list[Array] = _predict(network, data, batch_size, watch)
        elif isinstance(data, Parts):
            outputs = out = _predictions(data.signature, data.X.shape)
            for rows, part in data:
                _predict(network, part, batch_size, watch, out[rows])
        else:
            parts = [_predict(network, part, batch_size, watch) for part in data.data()]
            shapes = {part.shape[1:] if isinstance(part, np.ndarray) else None for part in parts}
            even = len(shapes) == 1 and None not in shapes
            outputs = np.concatenate(parts) if even else [y for part in parts for y in part]
        watch.end({})
    return outputs


def _predictions(s: Signature, shape: tuple[int, ...]) -> Array:
    """Return zeros in the shape of the outputs for inputs of `shape`."""
    return np.zeros((*shape[: 1 + s.per_step], s.outputs), s.dtype)


def _predict(
    network: Network, data: Data, batch_size: int, watch: Watch, out: Array | None = None
) -> Any:
    """Return the outputs, which are written to `out` if it is given: zeros at first."""
    s = data.signature
    if s.per_step and data.starts is not None:
        return _predict_list(network, data, batch_size, watch)
    predictions = _predictions(s, (len(data), *data.x.shape[1:])) if out is None else out
    for rows in data.by_length(batch_size):
        x, lengths, valid = data.inputs(rows)
        y, _ = network.apply(x, lengths=lengths)
        if not s.per_step:
            predictions[rows] = y
        else:
            if valid is not None:
                y[~valid] = 0
            predictions[rows, : len(y)] = y.swapaxes(0, 1)
        watch.done(len(rows))
    return list(predictions) if s.per_step and data.was_list else predictions


def _predict_list(network: Network, data: Data, batch_size: int, watch: Watch) -> list[Array]:
    """Return the outputs per step of sequences of differing lengths."""
    outputs: list[Any] = [None] * len(data)
    assert data.lengths is not None
    for rows in data.by_length(batch_size):
        x, lengths, _ = data.inputs(rows)
        y, _ = network.apply(x, lengths=lengths)
        for b, row in enumerate(rows):
            outputs[row] = y[: data.lengths[row], b].copy()
        watch.done(len(rows))
    return outputs
