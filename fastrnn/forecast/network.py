"""The network: what it reads and predicts, its training, and forecasts of any length with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast import seasons
from fastrnn.models import estimators
from fastrnn.models.progress import TrainingBar
from fastrnn.models.sequential import Sequential

#: The default of `epochs` is this many optimizer steps' worth. With four times as many, the errors
#: on the last fifth of sunspots and of temperatures are larger again.
UPDATES = 400

#: The level of a window is told this weakly, and bounded, as series wander to where they never
#: were: a network that reads the values themselves has learnt nothing of what follows there.
_LEVEL = 0.15


@dataclasses.dataclass(frozen=True)
class Design:
    """What network is trained, and how: settings of a forecaster.

    `levels` is whether it reads values rather than the level of all: in files of version 0.1.0.
    """

    cell: str
    window: int
    steps: int
    seasons: tuple[float, ...]
    hidden_size: int
    num_layers: int
    dropout: float
    lr: float
    clip_norm: float
    batch_size: int
    epochs: int | None
    seed: int | None
    levels: bool = False

    def inputs(self, windows: Array, times: Array) -> Array:
        """Return what the network reads, (B, window, 2 K + 2 S).

        Windows (B, window, K) are of scaled values; `times` (B,) are those of the first step after
        them, from the start of the seasons.
        """
        if self.levels:
            level = windows
        else:
            mean = windows.mean(axis=1, keepdims=True)
            level = np.broadcast_to(_LEVEL * np.tanh(mean), windows.shape)
        parts = [windows - windows[:, -1:], level]
        if self.levels:
            parts.reverse()
        if self.seasons:
            parts.append(seasons.waves(self.seasons, times[:, None] + np.arange(-self.window, 0)))
        return np.concatenate(parts, axis=2).astype(np.float32)

    def features(self, K: int) -> int:
        """Return how many numbers the network reads at each step."""
        return 2 * K + 2 * len(self.seasons)

    def updates(self, windows: int) -> int:
        """Return the number of optimizer steps of a training on `windows` windows."""
        batches = -(-windows // self.batch_size)
        return batches * (self.epochs or -(-UPDATES // batches))

    def train(
        self, series: Sequence[Array], phases: Sequence[float], verbose: int, title: str
    ) -> Sequential:
        """Return a network trained on all windows of scaled series (n, K) from phases on."""
        x, y = (
            np.concatenate(part) for part in zip(*map(self._windows, series, phases), strict=True)
        )
        outputs = y.shape[1]
        net = estimators.last_step_net(
            (), self.cell, x.shape[2], self.hidden_size, outputs,
            num_layers=self.num_layers, dropout=self.dropout, seed=self.seed,
        )  # fmt: skip
        epochs = self.updates(len(x)) // -(-len(x) // self.batch_size)
        adam = estimators.adam(self.lr, self.clip_norm, len(x), self.batch_size, epochs)
        options: Any = {"epochs": epochs, "batch_size": self.batch_size, "verbose": 0}
        if verbose == 1:
            options["callbacks"] = [TrainingBar(title)]
        elif verbose:
            options["verbose"] = verbose
        estimators.to_the_end(estimators.fit(net, adam, "mse", x, y, **options))
        return net

    def _windows(self, z: Array, phase: float) -> tuple[Array, Array]:
        """Return inputs (B, window, features) and targets (B, steps * K)."""
        origins = np.arange(self.window, len(z) - self.steps + 1)
        x = self.inputs(z[origins[:, None] + np.arange(-self.window, 0)], phase + origins)
        ahead = z[origins[:, None] + np.arange(self.steps)] - z[origins - 1, None]
        return x, ahead.reshape(len(origins), -1).astype(np.float32)

    def forecast(
        self, net: Sequential, z: Array, origins: Array, phase: float, horizon: int
    ) -> Array:
        """Return forecasts (B, horizon, K) of a scaled series (n, K) from origins (B,)."""
        windows = z[origins[:, None] + np.arange(-self.window, 0)]
        forecasts = np.empty((len(origins), horizon, z.shape[1]))
        for start in range(0, horizon, self.steps):
            said = net.predict(self.inputs(windows, phase + origins + start))
            block = windows[:, -1:] + said.reshape(len(origins), self.steps, -1)
            forecasts[:, start : start + self.steps] = block[:, : horizon - start]
            windows = np.concatenate([windows, block], axis=1)[:, -self.window :]
        return forecasts
