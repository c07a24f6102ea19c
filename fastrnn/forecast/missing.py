"""Missing values: refused, or filled."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array

WAYS = ("linear", "previous", "mean")


def check(value: Any, name: str = "fill") -> None:
    """Raise unless it is None, a way to fill or a finite number."""
    if value is None or (isinstance(value, str) and value in WAYS):
        return
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        _checks.finite(value, name)
        return
    expected = f"one of {', '.join(map(repr, WAYS))}, a number or None"
    raise ValueError(f"{name}: expected {expected}, got {value!r}")


def filled(values: Array, how: Any, name: str) -> Array:
    """Return (n, K) values with NaN replaced, column by column."""
    gaps = np.isnan(values)
    if not gaps.any():
        return values
    values = values.copy()
    at = np.arange(len(values))
    for k in np.flatnonzero(gaps.any(axis=0)):
        gap, column = gaps[:, k], values[:, k]
        known = at[~gap]
        if not len(known):
            raise ValueError(f"{name}: expected some values, got a column of missing ones")
        if how == "linear":
            column[gap] = np.interp(at[gap], known, column[known])
        elif how == "previous":
            before = np.searchsorted(known, at[gap]) - 1
            column[gap] = column[known[np.maximum(before, 0)]]
        else:
            column[gap] = column[known].mean() if how == "mean" else float(how)
    return values
