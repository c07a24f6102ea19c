"""Fitted forecasters as what a model file holds: a header of plain data, and tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.forecast import calibration, series
from fastrnn.forecast.calibration import Calibration, Member
from fastrnn.forecast.fitted import Fitted
from fastrnn.forecast.network import Design
from fastrnn.forecast.series import Layout, Rules, Track
from fastrnn.forecast.time_index import TimeIndex
from fastrnn.models import architecture
from fastrnn.models.sequential import Sequential


def described(fit: Fitted) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and tensors of a fit."""
    tensors: dict[str, Array] = {}
    tracks = []
    for i, track in enumerate(fit.tracks):
        tensors[f"series.{i}"] = track.values
        tensors[f"exog.{i}"] = track.exog
        layout = dataclasses.asdict(track.layout)
        layout["columns"] = layout["columns"] and [*map(_plain, layout["columns"])]
        tracks.append({"phase": track.phase, "layout": layout})
    members = [fit.member, *fit.calibration.members]
    for m, member in enumerate(members):
        tensors |= {f"net.{m}.{name}": a for name, a in member.net.parameters().items()}
    header = {
        "settings": fit.settings,
        "tracks": tracks,
        "keys": fit.keys and [_plain(key) for key in fit.keys],
        "mapped": fit.mapped,
        "exog_names": fit.exog_names and [*map(_plain, fit.exog_names)],
        "nets": [architecture.describe(member.net.layers) for member in members],
        "stops": [member.stops for member in members],
        "blended": fit.calibration.blended,
        "levels": fit.design.levels,
    }
    return header, tensors


def restored(
    header: dict[str, Any], tensors: dict[str, Array], design_of: Any, rules: Rules, fraction: float
) -> Fitted:
    """Return the fit that :func:`described` described, or that of a file of version 0.1.0.

    `design_of` returns the design, given the length of the shortest series.
    """
    if "net" in header:
        header, tensors = _of_0_1_0(header, tensors)
    tracks = [
        _track(tensors.pop(f"series.{i}"), tensors.pop(f"exog.{i}"), saved)
        for i, saved in enumerate(header["tracks"])
    ]
    design: Design = dataclasses.replace(design_of(min(map(len, tracks))), levels=header["levels"])
    least = design.window + design.steps
    for track in tracks:
        series.expect(track.values, "series", rules, track.layout)
        if len(track) < least:
            raise ValueError(f"series: expected at least {least} values, got {len(track)}")
        _checks.expect_shape(track.exog, "exog", (len(track), tracks[0].exog.shape[1]))
        _checks.expect_shape(track.values, "series", (len(track), tracks[0].values.shape[1]))
    members = []
    for m, (described_net, stops) in enumerate(zip(header["nets"], header["stops"], strict=True)):
        prefix = f"net.{m}."
        own = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
        net = _expected(Sequential(architecture.restore(described_net, own)), design, tracks)
        if len(stops) != len(tracks) or any(
            stop and not least <= stop <= len(t) for stop, t in zip(stops, tracks, strict=True)
        ):
            raise ValueError(
                f"stops: expected numbers of values of {len(tracks)} series, got {stops}"
            )
        members.append(Member(net, stops, calibration.scales_of(design, tracks, stops, rules.log)))
    calibrated = Calibration(
        design,
        tracks,
        members[0].known_scales(),
        log=rules.log,
        fraction=fraction,
        blended=header["blended"],
        members=members[1:] if header["blended"] else None,
    )
    keys = header["keys"] and [*map(_label, header["keys"])]
    exog_names = header["exog_names"] and [*map(_label, header["exog_names"])]
    names = keys, header["mapped"], exog_names
    return Fitted(header["settings"], design, rules, tracks, *names, members[0], calibrated)


def _plain(label: Any) -> Any:
    """Return a name or key as JSON can hold it."""
    if isinstance(label, tuple):
        return [*map(_plain, label)]
    return label if isinstance(label, str | int | float | np.generic | None) else str(label)


def _label(plain: Any) -> Any:
    """Return a name or key from what :func:`_plain` made of it."""
    return tuple(map(_label, plain)) if isinstance(plain, list) else plain


def _track(values: Array, exog: Array, saved: dict[str, Any]) -> Track:
    layout = dict(saved["layout"])
    layout["columns"] = layout["columns"] and [*map(_label, layout["columns"])]
    if layout["index"] is not None:
        layout["index"] = TimeIndex(**layout["index"])
    if values.ndim != 2 or values.dtype != np.float64:
        raise ValueError("series: expected float64 numbers of shape (n, K)")
    return Track(values, exog, _checks.finite(saved["phase"], "phase"), Layout(**layout))


def _expected(net: Sequential, design: Design, tracks: list[Track]) -> Sequential:
    """Return the network, if it reads and predicts what the design says."""
    K = tracks[0].values.shape[1]
    features = design.features(K)
    try:
        outputs = net.predict(np.zeros((1, 1, features), np.float32))
    except (ValueError, TypeError) as error:
        raise ValueError(f"net: expected one that takes {features} features: {error}") from None
    if outputs.shape != (1, design.steps * K) or outputs.dtype != np.float32:
        raise ValueError(
            f"net: expected {design.steps * K} float32 outputs of the last step, "
            f"got {outputs.dtype} of shape {outputs.shape}"
        )
    return net


def _of_0_1_0(
    header: dict[str, Any], tensors: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and tensors in today's form: one array, and a network that is not blended."""
    given = tensors.pop("series")
    values = given.astype(np.float64).reshape(len(given), -1)
    layout = {"single": given.ndim == 1, "library": None, "columns": None, "index": None}
    tensors = {f"net.0.{name}": array for name, array in tensors.items()}
    tensors |= {"series.0": values, "exog.0": np.empty((len(values), 0))}
    return {
        "settings": header["settings"],
        "tracks": [{"phase": 0, "layout": layout}],
        "keys": None,
        "mapped": False,
        "exog_names": None,
        "nets": [header["net"]],
        "stops": [[len(values)]],
        "blended": False,
        "levels": True,
    }, tensors
