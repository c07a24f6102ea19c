"""The forecaster: settings, training and use."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._types import Array, PhaseLike, SeriesLike
from fastrnn.forecast import calibration, files, fitted, missing, plot, seasons
from fastrnn.forecast.calibration import Calibration, Member, held_out
from fastrnn.forecast.fitted import Fitted
from fastrnn.forecast.network import Design
from fastrnn.forecast.series import Rules, Track, item_name
from fastrnn.models import estimators

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastrnn.forecast.backtest import Backtest

    #: Weights of forecasts, by name.
    Blend = dict[str, Array]


#: The default of `window` is this, or a fifth of the shortest series where that is less: networks
#: are trained on the first half of it too, of which the windows must leave enough.
_WINDOW = 36


@dataclasses.dataclass(eq=False)
class Forecaster(estimators.Settings):
    """A recurrent network, blended with naive forecasts, that forecasts one or several time series.

    The network reads the last `window` values as differences from the last one, scaled by the
    standard deviation of the series, and, weakly, their mean; it predicts the next `steps`
    differences at once. Longer forecasts continue from their own values. It is trained on every
    window of the series; the loss is the mean squared error, the optimizer is Adam, with its
    learning rate decaying to 0 along a half cosine.

    **Blending.** A network can be worse than repeating the last value (of a series that wanders) or
    the last season. So three more networks are trained without the last `calibration_fraction` of
    the series, without the last two thirds of that part and without the last third of it; where a
    training takes more than 800 optimizer steps, only the first of them. Each forecasts the values
    up to where the next one's training ends, beside forecasts without a model: the mean of the last
    `window` values, and naive ones: the last value, and, with a `season`, the value a season (or as
    many seasons as it takes) before, and the last value plus the change that came over as many
    steps then. The forecast is a weighted mean of all, at each step and for each series
    (:meth:`weights`). The share of network and mean grows with how surely the surer of them is
    better than the best naive forecast: it is the square of the statistic of Diebold and Mariano
    (1995), which counts standard errors of the difference of squared errors, as a part of those
    that a confidence of 99 % takes. So they give way where they are not better, and have all the
    weight where one is so beyond doubt; what tells for the mean at one step counts further ahead
    too, as long as it is better there. The naive forecasts share the rest in proportion to the
    inverse cubes of their mean squared errors; network and mean share theirs in proportion to
    these and to how sure each is. A series too short for such a test is forecast by its last
    season or value alone.

    **Intervals** are quantiles of the same errors of the blend (:meth:`predict_interval`).

    Parameters
    ----------
    cell : {"gru", ...}
        The recurrent layer, in lower case.
    window : int, optional
        Values that the network reads. Default: 36, or a fifth of the shortest series if that is
        less.
    steps : int
        Values that it predicts at once; best close to the length of the forecasts.
    season : float or sequence of float, optional
        Values per season: 12 for months of a year, 365.25 for days of a year, ``(7, 365.25)`` for
        weeks and years of days. Default: none, whatever the dates of a series are. The network then
        also reads the phase of each value in each season, as sine and cosine, and seasonal naive
        forecasts are blended in.
    log : bool
        Whether to model logarithms, for positive series that grow exponentially.
    floor : float, optional
        The least value that is possible, 0 for counts and amounts: forecasts and bounds below are
        raised to it, and a series with less is refused.
    fill : {"linear", "previous", "mean"} or float, optional
        How to replace missing values (NaN, None, NA, masked, and times that an index leaves out):
        linearly between those around them, by the one before, by the mean, or by a number. Default:
        they are an error that says where the first is.
    hidden_size, num_layers : int
    dropout : float
        Dropout probability between layers and before the linear layer.
    lr, clip_norm : float
        Initial learning rate, and maximum global norm of the gradients.
    batch_size : int
    epochs : int, optional
        Number of passes through the windows. Default: as many as take 400 optimizer steps.
    calibration_fraction : float
        Fraction of each series, at its end, on which errors are measured for weights and intervals.
        0: the network forecasts alone, and there are no intervals.
    seed : int, optional
        For the initial weights, dropout and the order of windows. Default: fresh each time.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecast import Forecaster
    >>> months = np.arange(120)
    >>> series = 20 + 0.1 * months + 5 * np.sin(months * np.pi / 6)
    >>> model = Forecaster(season=12, seed=0).fit(series)
    >>> forecast = model.predict(6)
    >>> lower, upper = model.predict_interval(6, level=0.8)
    >>> bool(np.all((lower <= forecast) & (forecast <= upper)))
    True
    """

    cell: str = "gru"
    _: dataclasses.KW_ONLY
    window: int | None = None
    steps: int = 12
    season: float | Sequence[float] | None = None
    log: bool = False
    floor: float | None = None
    fill: str | float | None = None
    hidden_size: int = 32
    num_layers: int = 1
    dropout: float = 0.0
    lr: float = 5e-3
    clip_norm: float = 1.0
    batch_size: int = 32
    epochs: int | None = None
    calibration_fraction: float = 0.4
    seed: int | None = None
    _fit: Fitted | None = dataclasses.field(default=None, init=False, repr=False)

    _CHECKS: ClassVar = {
        "cell": estimators.cell,
        "window": estimators.or_none(_checks.size),
        "steps": _checks.size,
        "season": seasons.check,
        "log": _checks.flag,
        "floor": estimators.or_none(_checks.finite),
        "fill": missing.check,
        **dict.fromkeys(("hidden_size", "num_layers"), _checks.size),
        "dropout": _checks.fraction,
        **dict.fromkeys(("lr", "clip_norm"), _checks.positive),
        "batch_size": _checks.size,
        "epochs": estimators.or_none(_checks.size),
        "calibration_fraction": _checks.fraction,
        "seed": estimators.seed_setting,
    }

    # Training.

    def fit(
        self,
        series: SeriesLike,
        *,
        exog: SeriesLike | None = None,
        phase: PhaseLike | None = None,
        verbose: int = 0,
    ) -> Self:
        """Train from scratch.

        Parameters
        ----------
        series : (n,) or (n, K) array-like, or a dict or list of such
            One series, or K in columns, oldest value first, equally spaced in time. pandas series
            and frames with an index of dates, periods or whole numbers, and polars frames with a
            column of dates, have forecasts with the times that follow, and the same names. Several
            series of any lengths, in a dict or a list, are forecast by one network, each with its
            own mean and standard deviation, and blended alike.
        exog : (n, E) array-like, or a dict or list of such, optional
            Other quantities at the same times that are known in advance: prices, holidays as 0 and
            1. Their effect is taken to be linear: it is estimated by regression with autocorrelated
            errors (Cochrane and Orcutt 1949), subtracted, and added to the forecasts, and what
            remains is forecast as without them. :meth:`predict` needs their values to come.
        phase : float, or a dict or list of such, optional
            The position in the season of the first value of each of several series. Default: told
            by their dates, counted from the first date of the first series; without dates, 0.
        verbose : int
            0 is silent: most series take a second or two. 1: a bar on stderr for each network that
            is trained, or a line where there is no terminal. 2: a line for each epoch.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than ``window + steps`` values, or they are not finite, or, with
            `log`, not above 0, or, with `floor`, below it; if times are not in order, double, or
            missing; if `exog` has other rows.
        TypeError
            If they are not real numbers.
        """
        if self._fit is not None:
            self._fit.member.net.expect_trainable()
        by = self._unfitted()
        tracks, keys, names = fitted.read_tracks(series, exog, phase, by._rules())
        mapped = isinstance(series, Mapping)
        self._fit = by._learn(tracks, keys, mapped, names, verbose)
        return self

    def _learn(
        self, tracks: list[Track], keys: list[Any] | None, mapped: bool,
        exog_names: list[Any] | None, verbose: int,
    ) -> Fitted:  # fmt: skip
        """Return the fit to series, by these settings."""
        design = self._design(min(map(len, tracks)))
        least = design.window + design.steps
        for i, track in enumerate(tracks):
            if len(track) < least:
                name = "series" if keys is None else item_name("series", keys[i])
                raise ValueError(
                    f"{name}: expected at least {least} values (window + steps), got {len(track)}"
                )
        fraction = self.calibration_fraction
        title = f"network 1/{1 + len(held_out(design, tracks, fraction))}"
        member = Member.trained(design, tracks, [*map(len, tracks)], self.log, verbose, title)
        calibration = Calibration(
            design, tracks, member.known_scales(), log=self.log, fraction=fraction,
            blended=fraction > 0, members=None,
        )  # fmt: skip
        calibration.train(verbose)
        return Fitted(
            self._settings(), design, self._rules(), tracks, keys, mapped, exog_names, member,
            calibration,
        )  # fmt: skip

    def _rules(self) -> Rules:
        return Rules(self.log, self.floor, self.fill)

    def _design(self, shortest: int) -> Design:
        """Return the design of a network for series of which the shortest has `shortest` values."""
        window = self.window or max(1, min(_WINDOW, shortest // 5))
        names = {field.name for field in dataclasses.fields(Design)} - {
            "window",
            "seasons",
            "levels",
        }
        settings = {name: getattr(self, name) for name in names}
        return Design(window=window, seasons=seasons.lengths(self.season), **settings)

    # Use.

    def predict(
        self,
        horizon: int,
        *,
        history: SeriesLike | None = None,
        exog: SeriesLike | None = None,
        phase: PhaseLike | None = None,
    ) -> Any:
        """Return forecasts of the values that follow.

        Parameters
        ----------
        horizon : int
            Number of values.
        history : (m,) or (m, K) array-like, or a dict or list of such, optional
            Other values to forecast from, in the form of the series fitted. Default: the series
            fitted. After a fit to several series, a single one is another of their kind.
        exog : (horizon, E) array-like, or a dict or list of such, optional
            Values to come of what `fit` was given as `exog`; with `history`, (m + horizon, E), its
            own values first.
        phase : float, or a dict or list of such, optional
            With a season, the position in it of the first value of `history`; 0 is that of the
            first value fitted. Default: what its dates say, or where its values occur in the series
            fitted; if neither tells, it is an error.

        Returns
        -------
        (horizon,) or (horizon, K) array, or a dict or list of such
            In the form of the series: with an index, a pandas series or frame, or a polars frame.

        Raises
        ------
        ValueError
            If nothing was fitted; if `history` has another form, fewer than `window` values, or an
            unknown phase; if `exog` has other rows or columns.
        """
        fit = self._fitted()
        horizon = _checks.size(horizon, "horizon")
        targets = fit.targets(horizon, history, exog, phase)
        return fit.shown(targets, [fit.values(t, fit.scaled(t, horizon)) for t in targets])

    def predict_interval(
        self,
        horizon: int,
        *,
        level: float = 0.9,
        history: SeriesLike | None = None,
        exog: SeriesLike | None = None,
        phase: PhaseLike | None = None,
    ) -> tuple[Any, Any]:
        """Return bounds that contain each value that follows with probability `level`.

        They are as far from the forecast, to either side and at each step, as the quantile of
        residuals of split conformal prediction (Vovk et al. 2005; Lei et al. 2018): of k absolute
        residuals that of rank ``level * (k + 1)``. The residuals are those of the last
        `calibration_fraction` of the series, forecast by networks that were trained without it, and
        blended by cross-validation with ten folds (Breiman and Spector 1992): by weights that rest
        on the errors in the other nine tenths of it. By all errors, residuals would be smaller than
        the errors of new values; by far fewer, larger, as weights would be less sure.
        Successive residuals resemble each other, which conformal prediction does not provide for:
        the quantile is widened by as much as Student's t of as many degrees of freedom as there are
        independent ones (Bayley and Hammersley 1946) is wider than that of k.

        Of several series, one with too few residuals of its own has the quantile of all.

        Parameters
        ----------
        horizon : int
        level : float
            Above 0 and below 1.
        history, exog, phase : optional
            As in :meth:`predict`.

        Returns
        -------
        lower, upper : arrays as those of :meth:`predict`

        Raises
        ------
        ValueError
            If there are fewer residuals at the last step than the level takes: 9 for 0.9, 19 for
            0.95. Otherwise as in :meth:`predict`.
        """
        level = _level(level)
        horizon = _checks.size(horizon, "horizon")
        fit = self._fitted()
        targets = fit.targets(horizon, history, exog, phase)
        bounds = [fit.bounds(t, horizon, level) for t in targets]
        lower, upper = (fit.shown(targets, list(side)) for side in zip(*bounds, strict=True))
        return lower, upper

    def weights(self, horizon: int) -> Blend | list[Blend] | dict[Any, Blend]:
        """Return the weight of each forecast in the blend, which sum to 1.

        Parameters
        ----------
        horizon : int

        Returns
        -------
        dict of str to (horizon,) or (horizon, K) array, or a dict or list of such
            ``"network"``, ``"mean"``, ``"naive"`` and, with a season, ``"seasonal naive"`` and
            ``"seasonal change"``.
        """
        fit = self._fitted()
        horizon = _checks.size(horizon, "horizon")
        names = calibration.names(fit.design)
        single = fit.tracks[0].layout.single
        found = [
            {name: w[:, 0] if single else w for name, w in zip(names, weights, strict=True)}
            for weights in (fit.calibration.weights(i, horizon) for i in range(len(fit.tracks)))
        ]
        return fit.keyed(found)

    def backtest(
        self,
        series: SeriesLike | None = None,
        horizon: int | None = None,
        *,
        exog: SeriesLike | None = None,
        test_fraction: float = 0.2,
        stride: int = 1,
        verbose: int = 0,
    ) -> Backtest | list[Backtest] | dict[Any, Backtest]:
        """Return forecasts of the end of a series, to compare with the values that followed.

        A new forecaster with the same settings is fitted on all but the last `test_fraction`, and
        forecasts from successive origins in the rest, each time given all values before. It is
        compared with the naive forecast, the last value, and, with a `season`, with the seasonal
        naive forecast, the value a season (or as many seasons as it takes) before.

        Parameters
        ----------
        series : (n,) or (n, K) array-like, or a dict or list of such, optional
            Default: the series fitted, with its `exog`.
        horizon : int, optional
            Default: `steps`.
        exog : (n, E) array-like, or a dict or list of such, optional
            As in :meth:`fit`; the values of the test part are known to the forecasts of it.
        test_fraction : float
        stride : int
            Distance between successive origins.
        verbose : int
            As in :meth:`fit`.

        Returns
        -------
        Backtest, or a dict or list of such

        Raises
        ------
        ValueError, TypeError
            As in :meth:`fit`, for the part before the test part.
        """
        horizon = self.steps if horizon is None else _checks.size(horizon, "horizon")
        stride = _checks.size(stride, "stride")
        _checks.fraction(test_fraction, "test_fraction")
        if series is None:
            fit = self._fitted()
            tracks, keys, mapped = fit.tracks, fit.keys, fit.mapped
        else:
            tracks, keys, _ = fitted.read_tracks(series, exog, None, self._rules())
            mapped = isinstance(series, Mapping)
        cuts = [len(t) - max(int(len(t) * test_fraction), horizon) for t in tracks]
        before = [t.until(max(cut, 0)) for t, cut in zip(tracks, cuts, strict=True)]
        for s in seasons.lengths(self.season):
            needed = s * math.ceil(horizon / s)
            if min(cuts) < needed:
                raise ValueError(
                    f"series: expected a season or more, {seasons.label(needed)} values, before "
                    f"the test part, got {max(min(cuts), 0)}"
                )
        model = self._unfitted()._learn(before, keys, mapped, None, verbose)
        found = [
            model.tested(track, i, np.arange(cut, len(track) - horizon + 1, stride), horizon)
            for i, (track, cut) in enumerate(zip(tracks, cuts, strict=True))
        ]
        return model.keyed(found)

    def plot(
        self,
        horizon: int,
        *,
        level: float | None = 0.9,
        shown: int | None = None,
        exog: SeriesLike | None = None,
    ) -> Figure:
        """Plot the end of each series fitted, the forecast and its interval, with matplotlib.

        Parameters
        ----------
        horizon : int
        level : float, optional
            Level of the interval, as in :meth:`predict_interval`. None: no interval.
        shown : int, optional
            Number of values of the series to show. Default: five times the horizon.
        exog : optional
            As in :meth:`predict`.

        Returns
        -------
        matplotlib.figure.Figure
            With a panel for each series. A notebook shows it, ``matplotlib.pyplot.show()`` does so
            in a script, and ``figure.savefig(path)`` writes it.
        """
        fit = self._fitted()
        horizon = _checks.size(horizon, "horizon")
        shown = 5 * horizon if shown is None else _checks.size(shown, "shown")
        level = None if level is None else _level(level)
        targets = fit.targets(horizon, None, exog, None)
        panels = [p for t in targets for p in fit.panels(t, horizon, level, shown)]
        figure: Figure = plot.figure(panels, level)
        return figure

    def _quantized(self, calibration: Any) -> Forecaster:
        """Return the forecaster with int8 weights."""
        if calibration is not None:
            raise ValueError("calibration: expected None, a Forecaster keeps its series")
        fit, other = self._fitted(), copy.copy(self)
        other._fit = dataclasses.replace(
            fit, member=fit.member.quantized(), calibration=fit.calibration.quantized()
        )
        return other

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write settings, series, names, times and networks to a file, for ``fastrnn.load``.

        At `path` is a safetensors file then, replaced atomically; it holds no code.
        """
        header, tensors = files.described(self._fitted())
        model_file.write(path, "Forecaster", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        self = cls(**header["settings"])
        if isinstance(self.season, list):  # JSON has no tuples
            self.season = tuple(self.season)
        by = self._unfitted()
        self._fit = files.restored(
            header, tensors, by._design, by._rules(), by.calibration_fraction
        )
        return self

    def _fitted(self) -> Fitted:
        if self._fit is None:
            raise ValueError("Forecaster: expected a fitted one; call fit first")
        return self._fit


def _level(value: Any) -> float:
    """Return the level of an interval."""
    return _checks.real(value, "level", "a number above 0 and below 1", lambda v: 0 < v < 1)
