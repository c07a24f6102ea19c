"""What a network trained on less says about the rest: the errors behind weights and intervals."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast import baselines, blend, intervals, seasons
from fastrnn.forecast.network import UPDATES, Design
from fastrnn.forecast.scale import Scale
from fastrnn.forecast.series import Track
from fastrnn.models import quantization
from fastrnn.models.sequential import Sequential

#: Networks that are trained without the end of the series, each forecasting the part before the
#: next one's. As many take about as long as the final one, and three give residuals of three
#: trainings; where a training takes more than UPDATES steps, there is one.
_FOLDS = 3

#: Minimum number of errors for weights of a series' own; with fewer, they are those of all series.
_OWN = 30

#: Errors are blended by weights that rest on those in the other parts of as many: by
#: cross-validation. With fewer parts, weights would be less sure, and so worse, than those by all
#: errors; ten leave little of that (Breiman and Spector 1992).
_PARTS = 10

#: Maximum number of origins per series, evenly spaced.
_ORIGINS = 500


@dataclasses.dataclass(frozen=True)
class Member:
    """A network, and how many of the first values of each series it was trained on."""

    net: Sequential
    stops: list[int]
    scales: list[Scale | None]

    @classmethod
    def trained(
        cls, design: Design, tracks: Sequence[Track], stops: list[int], log: bool, verbose: int,
        title: str,
    ) -> Member:  # fmt: skip
        """Return a member trained on the first `stops` values of each series; 0 omits a series."""
        scales = scales_of(design, tracks, stops, log)
        z = [
            scale.to(track.values[:stop], track.exog[:stop])
            for track, stop, scale in zip(tracks, stops, scales, strict=True)
            if scale is not None
        ]
        phases = [track.phase for track, stop in zip(tracks, stops, strict=True) if stop]
        return cls(design.train(z, phases, verbose, title), stops, scales)

    def quantized(self) -> Member:
        """Return a member with int8 weights."""
        return dataclasses.replace(self, net=quantization.quantize_sequential(self.net, None))

    def known_scales(self) -> list[Scale]:
        """Return the scales of the series that it was trained on."""
        return [scale for scale in self.scales if scale is not None]


def scales_of(
    design: Design, tracks: Sequence[Track], stops: Sequence[int], log: bool
) -> list[Scale | None]:
    """Return the scale of the first values of each series."""
    return [
        scale_of(design, track, stop, log) if stop else None
        for track, stop in zip(tracks, stops, strict=True)
    ]


def scale_of(design: Design, track: Track, stop: int, log: bool) -> Scale:
    """Return the scale of the first `stop` values."""
    waves = seasons.waves(design.seasons, track.phase + np.arange(stop))
    return Scale.of(track.values[:stop], track.exog[:stop], log, waves)


def names(design: Design) -> list[str]:
    """Return what the J forecasts are called that are blended."""
    of = design.seasons
    return ["network", "mean", *baselines.names(of), *baselines.change_names(of)]


def candidates(
    design: Design, net: Sequential, z: Array, origins: Array, phase: float, horizon: int
) -> Array:
    """Return forecasts (J, B, horizon, K) in the order of :func:`names`."""
    said = [
        design.forecast(net, z, origins, phase, horizon),
        baselines.means(z, origins, horizon, design.window),
    ]
    for without_model in (baselines.forecasts, baselines.changes):
        said += without_model(z, origins, horizon, design.seasons)
    return np.stack(said)


def held_out(design: Design, tracks: Sequence[Track], fraction: float) -> list[list[int]]:
    """Return how many values of each series the networks are trained on, one list per network.

    Of series too short for that, none are; without any longer one, there are no lists.
    """
    least = design.window + design.steps
    firsts = [max(len(t) - int(len(t) * fraction), least) for t in tracks]
    windows = sum(max(len(t) - least + 1, 0) for t in tracks)
    folds = _FOLDS if design.epochs or design.updates(windows) <= 2 * UPDATES else 1
    if fraction == 0 or not any(first < len(t) for first, t in zip(firsts, tracks, strict=True)):
        return []
    stops = [
        [
            first + (len(t) - first) * fold // folds if first < len(t) else 0
            for first, t in zip(firsts, tracks, strict=True)
        ]
        for fold in range(folds)
    ]
    return [of for fold, of in enumerate(stops) if of not in stops[:fold]]


@dataclasses.dataclass(frozen=True)
class _Errors:
    """Errors (J, B, horizon, K) of one series, and the time between successive ones of the B."""

    errors: Array
    stride: int

    def __len__(self) -> int:
        return len(self.errors[0])

    def parts(self) -> Array:
        """Return which part each error is of, (B,)."""
        return np.arange(len(self)) * _PARTS // max(len(self), 1)


class Calibration:
    """Held-out errors of the members, which are computed when they are first needed.

    `blended` is whether forecasts are blends, or the network's alone: with a `fraction` of 0, and
    in files of version 0.1.0, which have no members either: those are trained when needed.
    """

    def __init__(
        self,
        design: Design,
        tracks: Sequence[Track],
        scales: Sequence[Scale],
        *,
        log: bool,
        fraction: float,
        blended: bool,
        members: list[Member] | None,
    ) -> None:
        self.blended = blended
        self._design, self._tracks, self._scales = design, tracks, scales
        self._log, self._fraction, self._members = log, fraction, members
        self._known: list[_Errors] = []
        self._cache: dict[Any, Array | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_known": [], "_cache": {}}

    @property
    def members(self) -> list[Member]:
        """The networks, trained now if they are not yet."""
        return self.train(0) if self._members is None else self._members

    def quantized(self) -> Calibration:
        """Return the calibration of members with int8 weights."""
        other = copy.copy(self)  # without what it has computed
        other._members = [member.quantized() for member in self.members]
        return other

    def train(self, verbose: int) -> list[Member]:
        """Train the members, and return them."""
        parts = held_out(self._design, self._tracks, self._fraction)
        self._members = [
            Member.trained(
                self._design, self._tracks, stops, self._log, verbose,
                f"network {2 + i}/{1 + len(parts)}",
            )
            for i, stops in enumerate(parts)
        ]  # fmt: skip
        return self._members

    def weights(self, i: int | None, horizon: int) -> Array:
        """Return weights (J, horizon, K) of the network and the naive forecasts of series `i`.

        They are those of all series where `i` is None, or has few errors of its own. Without any,
        the network gives way: all weight is on the last season, or, without one, on the last value.
        """
        lengths = self._design.seasons
        J, K = len(names(self._design)), self._tracks[0].values.shape[1]
        weights = np.zeros((J, horizon, K))
        if not self.blended:
            weights[0] = 1
            return weights
        known = self._weights(i, min(horizon, self._furthest()), None)
        if known is not None:
            # Further ahead than what is held out, those of the last step.
            more = horizon - known.shape[1]
            return np.pad(known, ((0, 0), (0, more), (0, 0)), mode="edge")
        shortest = min(map(len, self._tracks))
        whole = [j for j, s in enumerate(lengths) if s <= shortest]
        weights[blend.DOUBTED + (1 + whole[0] if whole else 0)] = 1
        return weights

    def _furthest(self) -> int:
        """Return the last step of which there are errors, or 1."""
        lengths = [
            len(track) - stop
            for member in self.members[:1]
            for track, stop in zip(self._tracks, member.stops, strict=True)
            if stop
        ]
        return max(lengths, default=1)

    def _weights(self, i: int | None, horizon: int, without: int | None) -> Array | None:
        """Return weights by errors, if there are any; those of one part may be left out."""
        wide = horizon + blend.SMOOTHING
        known = self._errors(wide)
        if i is not None and len(known[i]) < _OWN:
            i = None
        key = (i, horizon, without)
        if key in self._cache:
            return self._cache[key]
        every = known if i is None else [known[i]]
        parts = [(e.errors[:, e.parts() != without, :wide], e.stride) for e in every]
        left = [(errors, stride) for errors, stride in parts if errors.shape[1]]
        weights = None
        if left:
            part = sum(e.shape[1] for e, _ in left) / sum(map(len, every))
            weights = blend.weights([e for e, _ in left], [s for _, s in left], part)[:, :horizon]
        self._cache[key] = weights
        return weights

    def _errors(self, horizon: int) -> list[_Errors]:
        """Return errors of each series, NaN where values are not known yet, in units of its scale.

        They are those of at least `horizon` steps.
        """
        known = self._known
        if not known or known[0].errors.shape[2] < horizon:
            steps = self._design.steps
            every = range(len(self._tracks))
            known = self._known = [self._of(i, -(-horizon // steps) * steps) for i in every]
        return known

    def _of(self, i: int, horizon: int) -> _Errors:
        track, scales = self._tracks[i], self._scales
        n, K = track.values.shape
        errors = [np.empty((len(names(self._design)), 0, horizon, K))]
        stops = [member.stops[i] for member in self.members]
        if not any(stops):
            return _Errors(errors[0], 1)
        stride = -(-(n - stops[0]) // _ORIGINS)
        ends = [*stops[1:], n]
        for member, stop, end in zip(self.members, stops, ends, strict=True):
            origins = np.arange(stop + (stops[0] - stop) % stride, end, stride)
            scale = member.scales[i]
            if scale is None or not len(origins):
                continue
            z = scale.to(track.values, track.exog)
            said = candidates(self._design, member.net, z, origins, track.phase, horizon)
            at = origins[:, None] + np.arange(horizon)
            actual = np.where((at < n)[..., None], z[np.minimum(at, n - 1)], np.nan)
            errors.append((actual - said) * (scale.deviation / scales[i].deviation))
        return _Errors(np.concatenate(errors, axis=1), stride)

    def half_widths(self, i: int | None, horizon: int, level: float) -> Array:
        """Return half-widths (horizon, K) of intervals, in units of the scale.

        They are by residuals of series `i`; where it has too few, or is None, by those of all.

        Raises
        ------
        ValueError
            If there are too few residuals.
        """
        needed = intervals.needed(level)
        counts = np.zeros(horizon, int)
        horizon = min(horizon, self._furthest())
        chosen = [] if i is None else [i]
        if i is None or np.isfinite(self._residuals(i, horizon)[:, -1, 0]).sum() < needed:
            chosen = [*range(len(self._tracks))]
        known = self._errors(horizon)
        every = [(self._residuals(j, horizon), known[j].stride) for j in chosen]
        every = [(residuals, stride) for residuals, stride in every if len(residuals)]
        for residuals, _ in every:
            counts[:horizon] += np.isfinite(residuals[:, :, 0]).sum(axis=0)
        if counts[-1] < needed:
            raise _too_few(counts, needed, level)
        nu: Array = np.sum([intervals.effective(r, stride) for r, stride in every], axis=0)
        widths = np.empty(nu.shape)
        together = np.concatenate([r for r, _ in every])
        for h, k in np.ndindex(widths.shape):
            of_step = together[np.isfinite(together[:, h, k]), h, k]
            widths[h, k] = intervals.half_width(of_step, float(nu[h, k]), level)
        return widths

    def _residuals(self, i: int, horizon: int) -> Array:
        """Return residuals (B, horizon, K) of forecasts of series `i`, NaN where unknown.

        Those of one part are blended by the errors of the others. By its own they would be smaller
        than those of new values.
        """
        known = self._errors(horizon)[i]
        of_all = self.weights(i, horizon)
        residuals = [np.empty((0, *of_all.shape[1:]))]
        parts = known.parts()
        for part in np.unique(parts).tolist():
            weights = self._weights(i, horizon, part) if self.blended else None
            errors = known.errors[:, parts == part, :horizon]
            residuals.append(blend.blended(errors, of_all if weights is None else weights))
        return np.concatenate(residuals)


def _too_few(counts: Array, needed: int, level: float) -> ValueError:
    most = int((counts >= needed).sum())
    expected = (
        f"horizon: expected at most {most} steps"
        if most
        else "series: expected a longer one, or more to calibrate"
    )
    return ValueError(
        f"{expected} for an interval at level {level:g}, which takes {needed} held-out residuals; "
        f"got {len(counts)} steps, with {counts[-1]} residuals at the last"
    )
