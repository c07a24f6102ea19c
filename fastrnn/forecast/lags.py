"""Autocovariances of errors, and the lags at which they matter."""

from __future__ import annotations

import numpy as np

from fastrnn._types import Array

#: Errors may be correlated up to this lag even where forecasts do not overlap, as all are those of
#: one network.
_REACH = 12


def products(x: Array) -> Array:
    """Return sum_t x_t x_{t+l} of x (B, ...) for each lag l in 0..B-1."""
    B = len(x)
    spectrum = np.fft.rfft(x, 2 * B, axis=0)
    sums: Array = np.fft.irfft(np.square(np.abs(spectrum)), 2 * B, axis=0)[:B]
    return sums


def reach(horizon: int, stride: int) -> Array:
    """Return the lag from which errors are not correlated, for each step: (horizon, 1).

    Forecasts of h steps overlap up to lag h - 1; `stride` is the time between successive ones.
    """
    return -(-np.maximum(np.arange(horizon) + 1, _REACH) // stride)[:, None]
