"""Time series: forecasts, backtests and prediction intervals."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._types import Array
from fastrnn.models import architecture, estimators
from fastrnn.models.sequential import Sequential

#: The default of `epochs` is this many optimizer steps' worth. With four times as many, the errors
#: on the last fifth of sunspots and of temperatures are larger again.
_UPDATES = 400


@dataclasses.dataclass(frozen=True)
class _Scale:
    """The map from a series (..., K) to what the network reads: mean 0, standard deviation 1."""

    log: bool
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, values: Array, log: bool) -> Self:
        z = np.log(values) if log else values
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = z.std(axis=0)
        if not np.isfinite(deviation).all():
            raise ValueError(
                "series: expected numbers with a finite standard deviation, "
                f"got some as large as {np.abs(values).max():.3g}"
            )
        return cls(log, z.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def to(self, values: Array) -> Array:
        z: Array = ((np.log(values) if self.log else values) - self.mean) / self.deviation
        return z

    def back(self, z: Array) -> Array:
        values: Array = z * self.deviation + self.mean
        return np.exp(values) if self.log else values


@dataclasses.dataclass
class _Fit:
    """The result of `fit`: settings, series (n, K), whether it was given as (n,), network."""

    by: Forecaster
    values: Array
    single: bool
    scale: _Scale
    net: Sequential
    calibration_net: Sequential | None = None

    def shown(self, values: Array) -> Array:
        """Return (..., K) values in the layout of the series."""
        return values[..., 0] if self.single else values


@dataclasses.dataclass(frozen=True)
class Backtest:
    """N forecasts of `horizon` steps each, beside the values that followed.

    Attributes
    ----------
    origins : (N,) array
        Number of values known to each forecast.
    actual : (N, horizon) or (N, horizon, K) array
    forecasts : dict of str to array
        In the shape of `actual`: ``"forecaster"``, ``"naive"`` and, with a season,
        ``"seasonal naive"``.
    """

    origins: Array
    actual: Array
    forecasts: dict[str, Array]

    def mae(self) -> dict[str, Any]:
        """Return the mean absolute error of each: a float, or (K,) for several series."""
        return {n: np.abs(f - self.actual).mean(axis=(0, 1)) for n, f in self.forecasts.items()}

    def rmse(self) -> dict[str, Any]:
        """Return the root mean squared error of each: a float, or (K,) for several series."""
        return {
            n: np.sqrt(np.square(f - self.actual).mean(axis=(0, 1)))
            for n, f in self.forecasts.items()
        }

    def __str__(self) -> str:
        N, horizon = self.actual.shape[:2]
        lines = [f"{N} forecasts, {horizon} steps each" + f"{'MAE':>12}{'RMSE':>12}"]
        mae, rmse = self.mae(), self.rmse()
        for name in self.forecasts:
            for k in range(np.size(mae[name])):
                label = name if mae[name].ndim == 0 else f"{name}, series {k}"
                errors = (np.ravel(of[name])[k] for of in (mae, rmse))
                lines.append(
                    f"{label:{len(lines[0]) - 24}}" + "".join(f"{e:12.4g}" for e in errors)
                )
        return "\n".join(lines)


@dataclasses.dataclass(eq=False)
class Forecaster(estimators.Settings):
    """A recurrent network that forecasts one or several time series.

    The network reads the last `window` values, scaled to mean 0 and standard deviation 1 and also
    as differences from the last one, and predicts the next `steps` differences at once. Longer
    forecasts continue from their own values. It is trained on every window of the series; the loss
    is the mean squared error, the optimizer is Adam, with its learning rate decaying to 0 along a
    half cosine.

    Parameters
    ----------
    cell : {"gru", ...}
        The recurrent layer, in lower case.
    window : int
        Values that the network reads.
    steps : int
        Values that it predicts at once; best close to the length of the forecasts.
    season : int, optional
        Values per season (12 for months of a year). The network then also reads the phase of each
        value in the season, as sine and cosine, and :meth:`backtest` adds a seasonal naive
        forecast.
    log : bool
        Whether to model logarithms, for positive series that grow exponentially.
    hidden_size, num_layers : int
    dropout : float
        Dropout probability between layers and before the linear layer.
    lr, clip_norm : float
        Initial learning rate, and maximum global norm of the gradients.
    batch_size : int
    epochs : int, optional
        Number of passes through the windows. Default: as many as take 400 optimizer steps.
    calibration_fraction : float
        Fraction of the series, at its end, on which :meth:`predict_interval` measures residuals.
    seed : int, optional
        For the initial weights, dropout and the order of windows. Default: fresh each time.
    """

    cell: str = "gru"
    _: dataclasses.KW_ONLY
    window: int = 36
    steps: int = 12
    season: int | None = None
    log: bool = False
    hidden_size: int = 32
    num_layers: int = 1
    dropout: float = 0.0
    lr: float = 5e-3
    clip_norm: float = 1.0
    batch_size: int = 32
    epochs: int | None = None
    calibration_fraction: float = 0.2
    seed: int | None = None
    _fit: _Fit | None = dataclasses.field(default=None, init=False, repr=False)

    _CHECKS: ClassVar = {
        "cell": estimators.cell,
        **dict.fromkeys(("window", "steps"), _checks.size),
        "season": estimators.or_none(_checks.size),
        "log": _checks.flag,
        **dict.fromkeys(("hidden_size", "num_layers"), _checks.size),
        "dropout": _checks.fraction,
        **dict.fromkeys(("lr", "clip_norm"), _checks.positive),
        "batch_size": _checks.size,
        "epochs": estimators.or_none(_checks.size),
        "calibration_fraction": _checks.fraction,
        "seed": estimators.seed_setting,
    }

    # Training.

    def fit(self, series: Any, *, verbose: int = 0) -> Self:
        """Train from scratch.

        Parameters
        ----------
        series : (n,) or (n, K) array-like
            One series, or K in columns, oldest value first, equally spaced in time.
        verbose : int
            As in :meth:`fastrnn.Sequential.fit`. 0 is silent: most series take about a second.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than ``window + steps`` values, or they are not finite, or, with
            `log`, not above 0.
        TypeError
            If they are not real numbers.
        """
        by = self._unfitted()
        values = by._series(series, "series", by.window + by.steps)
        scale = _Scale.of(values, by.log)
        net = by._train(scale.to(values), verbose)
        self._fit = _Fit(by, values, np.ndim(series) == 1, scale, net)
        return self

    def _train(self, z: Array, verbose: int) -> Sequential:
        """Return a network trained on the windows of scaled values `z` (n, K)."""
        n, K = z.shape
        origins = np.arange(self.window, n - self.steps + 1)
        x = self._inputs(z[origins[:, None] + np.arange(-self.window, 0)], origins)
        ahead = z[origins[:, None] + np.arange(self.steps)] - z[origins - 1, None]
        y = ahead.reshape(len(origins), -1).astype(np.float32)
        net = estimators.last_step_net(
            (), self.cell, x.shape[2], self.hidden_size, self.steps * K,
            num_layers=self.num_layers, dropout=self.dropout, seed=self.seed,
        )  # fmt: skip
        batches = -(-len(x) // self.batch_size)
        epochs = self.epochs or -(-_UPDATES // batches)
        adam = estimators.adam(self.lr, self.clip_norm, len(x), self.batch_size, epochs)
        options: Any = {"epochs": epochs, "batch_size": self.batch_size, "verbose": verbose}
        estimators.to_the_end(estimators.fit(net, adam, "mse", x, y, **options))
        return net

    def _inputs(self, windows: Array, origins: Array) -> Array:
        """Return what the network reads, (B, window, 2 K), with a season 2 K + 2.

        Windows (B, window, K) are of scaled values and end before the origins (B,).
        """
        parts = [windows, windows - windows[:, -1:]]
        if self.season is not None:
            times = origins[:, None] + np.arange(-self.window, 0)
            angle = 2 * np.pi / self.season * (times % self.season)[:, :, None]
            parts += [np.sin(angle), np.cos(angle)]
        return np.concatenate(parts, axis=2).astype(np.float32)

    # Use.

    def predict(self, horizon: int, *, history: Any = None) -> Array:
        """Return forecasts of the values that follow.

        Parameters
        ----------
        horizon : int
            Number of values.
        history : (m,) or (m, K) array-like, optional
            The series so far, starting with the same first value as the one fitted. Default: the
            series fitted.

        Returns
        -------
        (horizon,) or (horizon, K) array
        """
        fit, values = self._fitted(history)
        horizon = _checks.size(horizon, "horizon")
        z = fit.by._roll(fit.net, fit.scale.to(values), np.array([len(values)]), horizon)
        return fit.shown(fit.scale.back(z)[0])

    def predict_interval(
        self, horizon: int, *, level: float = 0.9, history: Any = None
    ) -> tuple[Array, Array]:
        """Return bounds that contain each value that follows with probability `level`.

        The bounds are quantiles of residuals, as in split conformal prediction (Lei et al. 2018),
        which however assumes that residuals are exchangeable: a second network, trained without the
        last `calibration_fraction` of the series, forecasts that part from every origin in it. The
        first call trains that network.

        Parameters
        ----------
        horizon : int
        level : float
            Above 0 and below 1.
        history : (m,) or (m, K) array-like, optional
            As in :meth:`predict`.

        Returns
        -------
        lower, upper : (horizon,) or (horizon, K) array

        Raises
        ------
        ValueError
            If the series fitted is too short to measure residuals at this horizon.
        """
        expected = "a number above 0 and below 1"
        level = _checks.real(level, "level", expected, lambda v: 0 < v < 1)
        horizon = _checks.size(horizon, "horizon")
        fit, values = self._fitted(history)
        by = fit.by
        known = fit.scale.to(fit.values)
        n = len(known)
        cut = n - int(n * by.calibration_fraction)
        if n - cut < horizon or cut < by.window + by.steps:
            raise ValueError(
                f"horizon: expected at most {n - cut} steps, the calibration part of the series, "
                f"and {by.window + by.steps} values before that; got {horizon} and {cut}"
            )
        if fit.calibration_net is None:
            fit.calibration_net = by._train(known[:cut], verbose=0)
        origins = np.arange(cut, n)
        past = by._roll(fit.calibration_net, known, origins, horizon)
        z = by._roll(fit.net, fit.scale.to(values), np.array([len(values)]), horizon)[0]
        bounds = np.empty((2, *z.shape))
        for h in range(horizon):
            # The h-th value after the last origins is not known yet.
            residuals = known[cut + h :] - past[: n - cut - h, h]
            bounds[:, h] = z[h] + np.quantile(residuals, [(1 - level) / 2, (1 + level) / 2], axis=0)
        lower, upper = fit.shown(fit.scale.back(bounds))
        return lower, upper

    def backtest(
        self,
        series: Any = None,
        horizon: int | None = None,
        *,
        test_fraction: float = 0.2,
        stride: int = 1,
        verbose: int = 0,
    ) -> Backtest:
        """Return forecasts of the end of a series, to compare with the values that followed.

        A new forecaster with the same settings is fitted on all but the last `test_fraction`, and
        forecasts from successive origins in the rest, each time given all values before. It is
        compared with the naive forecast, the last value, and, with a `season`, with the seasonal
        naive forecast, the value a season (or as many seasons as it takes) before.

        Parameters
        ----------
        series : (n,) or (n, K) array-like, optional
            Default: the series fitted.
        horizon : int, optional
            Default: `steps`.
        test_fraction : float
        stride : int
            Distance between successive origins.
        verbose : int
            As in :meth:`fit`.

        Returns
        -------
        Backtest

        Raises
        ------
        ValueError, TypeError
            As in :meth:`fit`, for the part before the test part.
        """
        horizon = self.steps if horizon is None else _checks.size(horizon, "horizon")
        stride = _checks.size(stride, "stride")
        _checks.fraction(test_fraction, "test_fraction")
        if series is None:
            fit, known = self._fitted(None)
            series = fit.shown(known)
        values = self._series(series, "series", horizon)
        n = len(values)
        cut = n - max(int(n * test_fraction), horizon)
        if self.season is not None and cut < self.season:
            raise ValueError(
                f"series: expected a season, {self.season} values, before the test part, got {cut}"
            )
        model = self._unfitted()
        model.fit(values[:cut], verbose=verbose)
        fit, _ = model._fitted(None)
        origins = np.arange(cut, n - horizon + 1, stride)
        ahead = np.arange(horizon)
        z = model._roll(fit.net, fit.scale.to(values), origins, horizon)
        forecasts = {
            "forecaster": fit.scale.back(z),
            "naive": np.repeat(values[origins - 1, None], horizon, axis=1),
        }
        if self.season is not None:
            back = self.season * (1 + ahead // self.season)
            forecasts["seasonal naive"] = values[origins[:, None] + ahead - back]
        actual = values[origins[:, None] + ahead]
        if np.ndim(series) == 1:
            actual = actual[..., 0]
            forecasts = {name: f[..., 0] for name, f in forecasts.items()}
        return Backtest(origins, actual, forecasts)

    def plot(self, horizon: int, *, level: float = 0.9, shown: int | None = None) -> Any:
        """Plot the end of the series fitted, the forecast and its interval, with matplotlib.

        Parameters
        ----------
        horizon : int
        level : float
            Level of the interval, as in :meth:`predict_interval`.
        shown : int, optional
            Number of values of the series to show. Default: five times the horizon.

        Returns
        -------
        matplotlib.figure.Figure
            For ``figure.savefig(path)``; a notebook shows it.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plot needs matplotlib: pip install 'fastrnn[plot]'") from None
        lower, upper = self.predict_interval(horizon, level=level)
        forecast = self.predict(horizon)
        _fit, values = self._fitted(None)
        n = len(values)
        first = max(0, n - (5 * horizon if shown is None else _checks.size(shown, "shown")))
        ahead = np.arange(n, n + horizon)
        K = values.shape[1]
        figure = Figure(figsize=(8, 2 + 3 * K), layout="constrained")
        columns = (a.reshape(horizon, K) for a in (forecast, lower, upper))
        for k, (f, lo, hi) in enumerate(zip(*(c.T for c in columns), strict=True)):
            axes = figure.add_subplot(K, 1, k + 1)
            axes.plot(np.arange(first, n), values[first:, k], label="series")
            axes.plot(ahead, f, label="forecast")
            axes.fill_between(ahead, lo, hi, alpha=0.25, label=f"{level:.0%} interval")
            axes.legend()
        return figure

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, series and weights to a safetensors file, for ``fastrnn.load``.

        The file is replaced atomically; it holds no code. The second network of
        :meth:`predict_interval` is not saved, and is trained again when it is needed.
        """
        fit, values = self._fitted(None)
        header = {"settings": fit.by._settings(), "net": architecture.describe(fit.net.layers)}
        tensors = {"series": fit.shown(values)} | fit.net.parameters()
        model_file.write(path, "Forecaster", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        self = cls(**header["settings"])
        series = tensors.pop("series")
        values = self._series(series, "series", self.window + self.steps)
        net = Sequential(architecture.restore(header["net"], tensors))
        K = values.shape[1]
        step = np.zeros((1, 1, 2 * K + 2 * (self.season is not None)), np.float32)
        try:
            outputs = net.predict(step)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"net: expected one that takes {step.shape[2]} features: {error}"
            ) from None
        if outputs.shape != (1, self.steps * K) or outputs.dtype != np.float32:
            raise ValueError(
                f"net: expected {self.steps * K} float32 outputs of the last step, "
                f"got {outputs.dtype} of shape {outputs.shape}"
            )
        scale = _Scale.of(values, self.log)
        self._fit = _Fit(self._unfitted(), values, series.ndim == 1, scale, net)
        return self

    def _roll(self, net: Sequential, z: Array, origins: Array, horizon: int) -> Array:
        """Return forecasts (B, horizon, K) of scaled values from origins (B,)."""
        windows = z[origins[:, None] + np.arange(-self.window, 0)]
        forecasts = np.empty((len(origins), horizon, z.shape[1]))
        for start in range(0, horizon, self.steps):
            said = net.predict(self._inputs(windows, origins + start))
            block = windows[:, -1:] + said.reshape(len(origins), self.steps, -1)
            forecasts[:, start : start + self.steps] = block[:, : horizon - start]
            windows = np.concatenate([windows, block], axis=1)[:, -self.window :]
        return forecasts

    def _series(self, value: Any, name: str, least: int) -> Array:
        """Return `value` as (n, K) float64, with `least` values or more."""
        series = _checks.numeric(value, name)
        shape = _checks.shape_text(series.shape)
        if series.ndim not in (1, 2) or (series.ndim == 2 and not series.shape[1]):
            raise ValueError(f"{name}: expected shape (n,) or (n, K), got {shape}")
        if len(series) < least:
            said = f"{least} values" + " (window + steps)" * (least == self.window + self.steps)
            raise ValueError(f"{name}: expected at least {said}, got {len(series)}")
        series = _checks.copied(series).astype(np.float64, copy=False).reshape(len(series), -1)
        wrong = ~np.isfinite(series) | (series <= 0 if self.log else False)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            expected = "numbers above 0, for log" if self.log else "finite numbers"
            raise ValueError(
                f"{name}: expected {expected}, got {series[row, column]} at position {row}"
            )
        return series

    def _fitted(self, history: Any) -> tuple[_Fit, Array]:
        """Return the result of `fit`, and the history (m, K) to forecast from."""
        fit = self._fit
        if fit is None:
            raise ValueError("Forecaster: expected a fitted one; call fit first")
        if history is None:
            return fit, fit.values
        values = fit.by._series(history, "history", fit.by.window)
        if (np.ndim(history) == 1) != fit.single or values.shape[1] != fit.values.shape[1]:
            wanted = "(m,)" if fit.single else f"(m, {fit.values.shape[1]})"
            raise ValueError(
                f"history: expected shape {wanted}, got {_checks.shape_text(np.shape(history))}"
            )
        return fit, values
