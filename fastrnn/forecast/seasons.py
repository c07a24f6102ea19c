"""Seasons: as numbers of values, which need not be whole."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array


def check(value: Any, name: str = "season") -> None:
    """Raise unless it is None, a number of at least 1, or several of them."""
    if value is None:
        return
    expected = "a number of values per season of at least 1, or several"
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if not several:
        raise ValueError(f"{name}: expected {expected}, got none")
    for one in several:
        _checks.real(one, name, expected, lambda v: 1 <= v < math.inf)


def lengths(value: Any) -> tuple[float, ...]:
    """Return a checked setting as a tuple."""
    if value is None:
        return ()
    return (float(value),) if isinstance(value, numbers.Real) else tuple(map(float, value))


def waves(seasons: tuple[float, ...], times: Array) -> Array:
    """Return sine and cosine of the phase in each season, (..., 2 S), for times (...)."""
    if not seasons:
        return np.empty((*times.shape, 0))
    angles = [2 * np.pi / season * (times % season) for season in seasons]
    return np.stack([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1)


def label(season: float) -> str:
    """Return a season as it is written."""
    return f"{season:g}"
