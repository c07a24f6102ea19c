"""The result of a fit: series, networks, and the forecasts made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.forecast import baselines, blend, calibration, series
from fastrnn.forecast.backtest import Backtest
from fastrnn.forecast.calibration import Calibration, Member
from fastrnn.forecast.network import Design
from fastrnn.forecast.plot import Panel
from fastrnn.forecast.scale import Scale
from fastrnn.forecast.series import Layout, Rules, Track
from fastrnn.forecast.time_index import text

#: What belongs to one series.
OneT = TypeVar("OneT")


@dataclasses.dataclass(frozen=True)
class Target:
    """What is forecast: a series and its scale, exog (horizon, E), and its place in the fit."""

    track: Track
    scale: Scale
    ahead: Array
    place: int | None


@dataclasses.dataclass
class Fitted:
    """The result of a fit.

    Attributes
    ----------
    settings, design, rules
        The settings then, and what follows from them.
    tracks : list of Track
    keys : list or None
        Of several series, those of the mapping, or positions in the list. None for one series.
    mapped : bool
        Whether several series were given in a mapping.
    exog_names : list or None
    member : Member
        The network, trained on all values.
    calibration : Calibration
    """

    settings: dict[str, Any]
    design: Design
    rules: Rules
    tracks: list[Track]
    keys: list[Any] | None
    mapped: bool
    exog_names: list[Any] | None
    member: Member
    calibration: Calibration

    @property
    def scales(self) -> list[Scale]:
        """The scale of each series."""
        return self.member.known_scales()

    # Forecasts.

    def candidates(self, track: Track, scale: Scale, origins: Array, horizon: int) -> Array:
        """Return forecasts (J, B, horizon, K) in scaled values from origins in a series."""
        z = scale.to(track.values, track.exog)
        return calibration.candidates(
            self.design, self.member.net, z, origins, track.phase, horizon
        )

    def scaled(self, target: Target, horizon: int) -> Array:
        """Return a forecast (horizon, K) in scaled values."""
        origins = np.array([len(target.track)])
        said = self.candidates(target.track, target.scale, origins, horizon)
        weights = self.calibration.weights(target.place, horizon)
        mixed: Array = blend.blended(said, weights)[0]
        return mixed

    def values(self, target: Target, z: Array) -> Array:
        """Return scaled values (horizon, K) as values."""
        return self.raised(target.scale.back(z, target.ahead))

    def raised(self, values: Array) -> Array:
        """Return values, those below the floor raised to it."""
        if self.rules.floor is None:
            return values
        raised: Array = np.maximum(values, self.rules.floor)
        return raised

    def bounds(self, target: Target, horizon: int, level: float) -> tuple[Array, Array]:
        """Return lower and upper bounds (horizon, K)."""
        half = self.calibration.half_widths(target.place, horizon, level)
        z = self.scaled(target, horizon)
        return self.values(target, z - half), self.values(target, z + half)

    def tested(self, track: Track, i: int, origins: Array, horizon: int) -> Backtest:
        """Return forecasts from origins in series `i` with its end, beside what followed."""
        scale, seasons = self.scales[i], self.design.seasons
        said = self.candidates(track, scale, origins, horizon)
        at = origins[:, None] + np.arange(horizon)
        mixed = blend.blended(said, self.calibration.weights(i, horizon))
        naive = baselines.forecasts(track.values, origins, horizon, seasons)
        forecasts = {"forecaster": self.raised(scale.back(mixed, track.exog[at]))}
        forecasts |= dict(zip(baselines.names(seasons), naive, strict=True))
        actual = track.values[at]
        layout = track.layout
        if layout.single:
            actual, forecasts = actual[..., 0], {n: f[..., 0] for n, f in forecasts.items()}
        dates = None
        if layout.index is not None:
            dates = layout.index.array(0, len(track))[at]
        columns = None if layout.single else layout.columns
        return Backtest(origins, actual, forecasts, dates, columns)

    def panels(
        self, target: Target, horizon: int, level: float | None, shown: int
    ) -> Iterator[Panel]:
        """Yield what a picture of each column shows."""
        track, n = target.track, len(target.track)
        first = max(0, n - shown)
        index = track.layout.index
        times = np.arange(first, n + horizon)
        if index is not None:
            times = index.array(first, n + horizon, plain=True)
        lines = [self.values(target, self.scaled(target, horizon))]
        if level is not None:
            lines += self.bounds(target, horizon, level)
        of_series = [] if self.keys is None or target.place is None else [self.keys[target.place]]
        for k in range(track.values.shape[1]):
            name = track.layout.columns[k] if track.layout.columns else None
            if name is None and (track.values.shape[1] > 1 or not of_series):
                name = f"series {k}" if track.values.shape[1] > 1 else "series"
            yield (
                [*of_series, *([] if name is None else [name])],
                (times[: n - first], track.values[first:, k]),
                (times[n - first :], [line[:, k] for line in lines]),
            )

    # What is forecast.

    def targets(self, horizon: int, history: Any, exog: Any, phase: Any) -> list[Target]:
        """Return what the arguments of `predict` say."""
        if history is None:
            if phase is not None:
                raise ValueError("phase: expected None without history")
            ahead = [exog] if self.keys is None else series.matching(exog, self.keys, "exog")
            return [
                Target(track, scale, self._ahead(x, track, horizon, name), i)
                for i, (track, scale, x, name) in enumerate(
                    zip(self.tracks, self.scales, ahead, self._names("exog"), strict=True)
                )
            ]
        if self.keys is None or series.several(history) is None:
            return [self._target(history, exog, phase, horizon, "history", "exog", None)]
        rows = zip(
            series.matching(history, self.keys, "history"),
            series.matching(exog, self.keys, "exog"),
            phases(phase, self.keys),
            self._names("history"),
            self._names("exog"),
            strict=True,
        )
        return [
            self._target(h, x, p, horizon, name, exog_name, i)
            for i, (h, x, p, name, exog_name) in enumerate(rows)
        ]

    def shown(self, targets: list[Target], forecasts: list[Array]) -> Any:
        """Return forecasts in the form of the series: of several, as a dict or list."""
        shown = [
            t.track.layout.shown(f, len(t.track)) for t, f in zip(targets, forecasts, strict=True)
        ]
        return shown[0] if targets[0].place is None else self.keyed(shown)

    def keyed(self, of_each: list[OneT]) -> OneT | list[OneT] | dict[Any, OneT]:
        """Return what belongs to each series: the one, or a dict or list of them."""
        if self.keys is None:
            return of_each[0]
        return dict(zip(self.keys, of_each, strict=True)) if self.mapped else of_each

    def _names(self, name: str) -> list[str]:
        if self.keys is None:
            return [name]
        return [series.item_name(name, key) for key in self.keys]

    def _target(
        self, history: Any, exog: Any, phase: Any, horizon: int, name: str, exog_name: str,
        i: int | None,
    ) -> Target:  # fmt: skip
        place = 0 if self.keys is None else i
        like = self.tracks[place or 0]
        known = self.design.window
        values, layout = series.read(history, name, self.rules, least=known, like=like.layout)
        _expect_form(values, layout, like, name)
        E = like.exog.shape[1]
        rows = self._exog(exog, len(values) + horizon, exog_name, layout, 0)
        at = self._phase(values, layout, phase, name, place)
        track = Track(values, rows[: len(values)], at, layout)
        if place is not None:
            scale = self.scales[place]
        else:
            scale = calibration.scale_of(self.design, track, len(track), self.rules.log)
        return Target(track, scale, rows[len(values) :].reshape(horizon, E), place)

    def _ahead(self, exog: Any, track: Track, horizon: int, name: str) -> Array:
        return self._exog(exog, horizon, name, track.layout, len(track))

    def _exog(self, exog: Any, rows: int, name: str, layout: Layout, start: int) -> Array:
        """Return exog (rows, E) of times from position `start` on."""
        E = self.tracks[0].exog.shape[1]
        if (exog is None) != (E == 0):
            raise ValueError(
                f"{name}: expected {rows} rows of {E} columns, as in fit, got None"
                if exog is None
                else f"{name}: expected None, as in fit"
            )
        values, names = read_exog(exog, rows, name, self.rules.fill, layout, start)
        if values.shape[1] != E:
            raise ValueError(f"{name}: expected {E} columns, as in fit, got {values.shape[1]}")
        expect_names(names, self.exog_names, name)
        return values

    def _phase(
        self, values: Array, layout: Layout, phase: Any, name: str, place: int | None
    ) -> float:
        """Return where in the seasons a history begins: said, known from its index, or found."""
        if phase is not None:
            return _checks.finite(phase, "phase")
        if not self.design.seasons:
            return 0
        reference = self.tracks[place or 0]
        index, known = layout.index, reference.layout.index
        if index is not None and known is not None and not counts_rows(index):
            return reference.phase + known.position(index, name)
        found = None if place is None else _found(values, reference.values, self.design.window)
        if found is None:
            raise ValueError(
                f"{name}: expected one that overlaps the series fitted, or has dates as that does, "
                "or phase=, the position of its first value in the season counted from the first "
                "value fitted"
            )
        return reference.phase + found


def counts_rows(index: Any) -> bool:
    """Return whether an index only counts the rows, and says nothing about times."""
    return index.kind == "numbers" and (index.first, index.freq) == (0, 1)


def _found(values: Array, known: Array, least: int) -> int | None:
    """Return the one position in the series `known` from which a history repeats its values."""
    starts: list[int] = np.flatnonzero((known == values[0]).all(axis=1)).tolist()
    found = [
        at
        for at in starts
        if np.array_equal(values[: len(known) - at], known[at : at + len(values)])
        and min(len(known) - at, len(values)) >= least
    ]
    if found and found[0] == 0:
        return 0
    return found[0] if len(found) == 1 else None


def _expect_form(values: Array, layout: Layout, like: Track, name: str) -> None:
    K = like.values.shape[1]
    if layout.single != like.layout.single or values.shape[1] != K:
        wanted = "(m,)" if like.layout.single else f"(m, {K})"
        got = _checks.shape_text(values.shape[:1] if layout.single else values.shape)
        raise ValueError(f"{name}: expected shape {wanted}, got {got}")
    if not layout.single:
        expect_names(layout.columns, like.layout.columns, name)


def expect_names(names: list[Any] | None, fitted: list[Any] | None, name: str) -> None:
    """Raise unless columns have the names that they had in fit, where both have some."""
    if names is not None and fitted is not None and names != fitted:
        raise ValueError(f"{name}: expected columns {fitted}, as in fit, got {names}")


def read_exog(
    exog: Any, rows: int, name: str, fill: Any, layout: Layout, start: int
) -> tuple[Array, list[Any] | None]:
    """Return exog as (rows, E), and the names of its columns.

    Its index, if it has one, must be that of the series from position `start` on.
    """
    if exog is None:
        return np.empty((rows, 0)), None
    values, form = series.read(exog, name, Rules(fill=fill), like=layout)
    if len(values) != rows:
        raise ValueError(f"{name}: expected {rows} rows, got {len(values)}")
    index, of_series = form.index, layout.index
    if index is not None and of_series is not None and not counts_rows(index):
        at = of_series.position(index, name)
        if at != start:
            raise ValueError(
                f"{name}: expected times from {text(of_series.times(start, start + 1)[0])} on, got "
                f"{text(index.times(0, 1)[0])}"
            )
    return values, form.columns


def read_tracks(
    values: Any, exog: Any, phase: Any, rules: Rules
) -> tuple[list[Track], list[Any] | None, list[Any] | None]:
    """Return what `fit` is given: each series, their keys if there are several, names of exog."""
    keys = series.several(values)
    if keys is None:
        items: list[tuple[Any, Any, Any, str, str]] = [(values, exog, phase, "series", "exog")]
    else:
        if not keys:
            raise ValueError("series: expected one or more, got none")
        named = [(series.item_name("series", k), series.item_name("exog", k)) for k in keys]
        exogs = series.matching(exog, keys, "exog")
        given = series.matching(values, keys, "series")
        items = [
            (*row, *names)
            for *row, names in zip(given, exogs, phases(phase, keys), named, strict=True)
        ]
    tracks: list[Track] = []
    names: list[Any] | None = None
    for value, x, said, name, exog_name in items:
        numbers, layout = series.read(value, name, rules)
        rows, columns = read_exog(x, len(numbers), exog_name, rules.fill, layout, 0)
        at = _start(layout, said, tracks)
        tracks.append(Track(numbers, rows, at, layout))
        first = tracks[0]
        if len(tracks) > 1:
            _expect_form(numbers, layout, first, name)
            if rows.shape[1] != first.exog.shape[1]:
                E = first.exog.shape[1]
                raise ValueError(f"{exog_name}: expected {E} columns, got {rows.shape[1]}")
            expect_names(columns, names, exog_name)
        else:
            names = columns
    return tracks, keys, names


def phases(phase: Any, keys: list[Any]) -> list[Any]:
    """Return the phase of each of several series: their own, or the same for all."""
    if isinstance(phase, Mapping | list | tuple):
        return series.matching(phase, keys, "phase")
    return [phase] * len(keys)


def _start(layout: Layout, said: Any, tracks: list[Track]) -> float:
    """Return the phase of a series: said, or 0 for the first, from which dates tell the others."""
    if said is not None:
        return _checks.finite(said, "phase")
    index = layout.index
    if not tracks or index is None or index.kind == "numbers":
        return 0
    first = tracks[0]
    known = first.layout.index
    if known is None or (known.library, known.kind, known.freq) != (
        index.library,
        index.kind,
        index.freq,
    ):
        return 0
    return first.phase + known.position(index, "series")
