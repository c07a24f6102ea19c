"""What a network trained on less says about the rest: the errors behind weights and intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.forecast import baselines, blend, intervals, seasons
from fastrnn.forecast.network import UPDATES, Design
from fastrnn.forecast.scale import Scale
from fastrnn.forecast.series import Track
from fastrnn.models.sequential import Sequential

#: Networks that are trained without the end of the series, each forecasting the part before the
#: next one's. As many take about as long as the final one, and three give residuals of three
#: trainings; where a training takes more than UPDATES steps, there is one.
_FOLDS = 3

#: At most so many origins per series, evenly spaced.
_ORIGINS = 500


@dataclasses.dataclass(frozen=True)
class Member:
    """A network, and the first values of each series that it was trained on: so many, or none."""

    net: Sequential
    stops: list[int]
    scales: list[Scale | None]

    @classmethod
    def trained(
        cls, design: Design, tracks: Sequence[Track], stops: list[int], log: bool, verbose: int
    ) -> Member:
        """Return a member trained on so many values of each series, 0 leaving it out."""
        scales = scales_of(design, tracks, stops, log)
        z = [
            scale.to(track.values[:stop], track.exog[:stop])
            for track, stop, scale in zip(tracks, stops, scales, strict=True)
            if scale is not None
        ]
        phases = [track.phase for track, stop in zip(tracks, stops, strict=True) if stop]
        return cls(design.train(z, phases, verbose), stops, scales)

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


def candidates(
    design: Design, net: Sequential, z: Array, origins: Array, phase: float, horizon: int
) -> Array:
    """Return forecasts (J, B, horizon, K): the network's, then the naive ones."""
    said = design.forecast(net, z, origins, phase, horizon)
    return np.stack([said, *baselines.forecasts(z, origins, horizon, design.seasons)])


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
    return [
        [
            first + (len(t) - first) * fold // folds if first < len(t) else 0
            for first, t in zip(firsts, tracks, strict=True)
        ]
        for fold in range(folds)
    ]


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
        self._errors: list[Array] = []
        self._member_of: list[Array] = []
        self._strides = [1] * len(tracks)
        self._horizon = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_errors": [], "_member_of": [], "_horizon": 0}

    @property
    def members(self) -> list[Member]:
        """The networks, trained now if they are not yet."""
        return self.train(0) if self._members is None else self._members

    def train(self, verbose: int) -> list[Member]:
        """Train the members, and return them."""
        self._members = [
            Member.trained(self._design, self._tracks, stops, self._log, verbose)
            for stops in held_out(self._design, self._tracks, self._fraction)
        ]
        return self._members

    def weights(self, horizon: int) -> Array:
        """Return weights (J, horizon, K) of the network and the naive forecasts.

        Without held-out values the network gives way: all weight is on the last season, or, without
        one, on the last value.
        """
        lengths = self._design.seasons
        weights = np.zeros((2 + len(lengths), horizon, self._tracks[0].values.shape[1]))
        if not self.blended:
            weights[0] = 1
            return weights
        known = self._weights(self.errors(horizon + blend.SMOOTHING))
        if known is not None:
            return known[:, :horizon]
        shortest = min(map(len, self._tracks))
        whole = [2 + j for j, s in enumerate(lengths) if s <= shortest]
        weights[whole[0] if whole else 1] = 1
        return weights

    def errors(self, horizon: int) -> list[Array]:
        """Return errors (J, B, horizon, K) of each series, in units of its scale.

        They are NaN where values are not known yet.
        """
        if horizon > self._horizon:
            steps = self._design.steps
            self._horizon = -(-horizon // steps) * steps
            of_each = [self._of(i) for i in range(len(self._tracks))]
            self._errors = [errors for errors, _ in of_each]
            self._member_of = [members for _, members in of_each]
        return [e[:, :, :horizon] for e in self._errors]

    def _of(self, i: int) -> tuple[Array, Array]:
        """Return the errors of one series, and which member each is of."""
        track, horizon = self._tracks[i], self._horizon
        n, K = track.values.shape
        J = 2 + len(self._design.seasons)
        stops = [member.stops[i] for member in self.members]
        if not stops or not stops[0]:
            return np.empty((J, 0, horizon, K)), np.empty(0, int)
        stride = self._strides[i] = -(-(n - stops[0]) // _ORIGINS)
        errors = []
        for member, stop, end in zip(self.members, stops, [*stops[1:], n], strict=True):
            origins = np.arange(stop + (stops[0] - stop) % stride, end, stride)
            scale = member.scales[i]
            if scale is None:
                continue
            z = scale.to(track.values, track.exog)
            said = candidates(self._design, member.net, z, origins, track.phase, horizon)
            at = origins[:, None] + np.arange(horizon)
            actual = np.where((at < n)[..., None], z[np.minimum(at, n - 1)], np.nan)
            errors.append((actual - said) * (scale.deviation / self._scales[i].deviation))
        members = np.repeat(np.arange(len(errors)), [e.shape[1] for e in errors])
        return np.concatenate(errors, axis=1), members

    def half_widths(self, i: int | None, horizon: int, level: float) -> Array:
        """Return half-widths (horizon, K) of intervals, in units of the scale.

        They are of series `i`; where that has too few residuals, or is None, of all series.

        Raises
        ------
        ValueError
            If there are too few residuals.
        """
        every = self._residuals(horizon)
        widths = np.empty(every[0].shape[1:])
        needed = intervals.needed(level)
        counts = np.array([np.isfinite(e[:, :, 0]).sum(axis=0) for e in every])
        total = counts.sum(axis=0)
        if total[-1] < needed:
            raise _too_few(total, needed, level)
        nu = np.array(
            [intervals.effective(e, s) for e, s in zip(every, self._strides, strict=True)]
        )
        for h, k in np.ndindex(widths.shape):
            own = i is not None and counts[i, h] >= needed
            chosen = [i] if own and i is not None else [*range(len(every))]
            residuals = np.concatenate([every[j][:, h, k] for j in chosen])
            known = residuals[np.isfinite(residuals)]
            widths[h, k] = intervals.half_width(known, float(nu[chosen, h, k].sum()), level)
        return widths

    def _weights(self, errors: list[Array]) -> Array | None:
        """Return weights by errors of each series; None without any."""
        known = [(e, s) for e, s in zip(errors, self._strides, strict=True) if e.shape[1]]
        return blend.weights(*map(list, zip(*known, strict=True))) if known else None

    def _residuals(self, horizon: int) -> list[Array]:
        """Return residuals (B, horizon, K) of forecasts of each series, NaN where unknown.

        Those of one member are blended by the errors of the others. By its own they would be
        smaller than those of new values.
        """
        weights = self.weights(horizon)
        wide = self.errors(horizon + blend.SMOOTHING)
        by_member = []
        for m in range(len(self.members)):
            rest = [e[:, of != m] for e, of in zip(wide, self._member_of, strict=True)]
            others = self._weights(rest) if self.blended else None
            by_member.append(weights if others is None else others[:, :horizon])
        return [
            np.concatenate(
                [blend.blended(e[:, of == m, :horizon], w) for m, w in enumerate(by_member)]
                or [np.empty((0, *weights.shape[1:]))]
            )
            for e, of in zip(wide, self._member_of, strict=True)
        ]


def _too_few(counts: Array, needed: int, level: float) -> ValueError:
    most = int((counts >= needed).sum())
    return ValueError(
        f"horizon: expected at most {most} steps at level {level:g}, which takes {needed} held-out "
        f"residuals at each; got {len(counts)} steps, with {counts[-1]} residuals at the last"
    )
