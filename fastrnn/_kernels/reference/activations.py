"""Activations of the reference, and their derivatives in terms of their outputs."""

from __future__ import annotations

import numpy as np

from fastrnn._types import Array


def sigmoid(a: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-a)), without overflow."""
    e = np.exp(-np.abs(a))
    s: Array = np.where(a < 0, e, 1) / (1 + e)
    return s


def silu(a: Array) -> Array:
    """Return a sigmoid(a), rounded once: the sigmoid's error may be twice as many units of it."""
    wide = np.promote_types(a.dtype, np.float64)
    return np.asarray(a * sigmoid(a.astype(wide)), a.dtype)


def d_sigmoid(s: Array) -> Array:
    """Return the derivative of the logistic function where its value is `s`."""
    d: Array = s * (1 - s)
    return d


def d_tanh(t: Array) -> Array:
    """Return the derivative of tanh where its value is `t`."""
    d: Array = 1 - t * t
    return d


def d_relu(r: Array) -> Array:
    """Return the derivative of the rectifier where its value is `r`: 0 at 0, as in torch."""
    return np.where(r <= 0, 0, 1).astype(r.dtype, copy=False)
