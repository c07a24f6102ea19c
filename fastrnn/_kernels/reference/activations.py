"""Activations of the reference, and their derivatives, by the names of ``_kernels.activations``.

Where a function has a kink, its derivative is that of torch's function of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn._kernels.activations import Activation
from fastrnn._types import Array


class Activated(NamedTuple):
    """The values of an activation, and its derivatives there."""

    value: Array
    slope: Array


Function = Callable[[Array], Activated]


def sigmoid(a: Array) -> Array:
    """Return the logistic function 1 / (1 + exp(-a)), without overflow."""
    e = np.exp(-np.abs(a))
    s: Array = np.where(a < 0, e, 1) / (1 + e)
    return s


def relu(a: Array) -> Array:
    """Return the rectifier max(a, 0); NaN stays NaN."""
    return np.where(a < 0, 0, a).astype(a.dtype, copy=False)


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


def _affine(x: Array, alpha: Array, beta: Array) -> Activated:
    return Activated(alpha * x + beta, np.full_like(x, alpha))


def _leaky_relu(x: Array, alpha: Array, _beta: Array) -> Activated:
    positive = x > 0
    return Activated(np.where(positive, x, alpha * x), np.where(positive, x.dtype.type(1), alpha))


def _thresholded_relu(x: Array, alpha: Array, _beta: Array) -> Activated:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    below = x <= alpha
    return Activated(np.where(below, zero, x), np.where(below, zero, one))


def _scaled_tanh(x: Array, alpha: Array, beta: Array) -> Activated:
    t = np.tanh(beta * x)
    return Activated(alpha * t, alpha * beta * d_tanh(t))


def _hard_sigmoid(x: Array, alpha: Array, beta: Array) -> Activated:
    line = alpha * x + beta
    inside = (line > 0) & (line < 1)
    return Activated(np.clip(line, 0, 1), np.where(inside, alpha, x.dtype.type(0)))


def _elu(x: Array, alpha: Array, _beta: Array) -> Activated:
    below = np.minimum(x, 0)
    positive = x > 0
    return Activated(
        np.where(positive, x, alpha * np.expm1(below)),
        np.where(positive, x.dtype.type(1), alpha * np.exp(below)),
    )


def _softsign(x: Array, _alpha: Array, _beta: Array) -> Activated:
    size = 1 + np.abs(x)
    return Activated(x / size, 1 / (size * size))


def _softplus(x: Array, _alpha: Array, _beta: Array) -> Activated:
    return Activated(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), sigmoid(x))


#: Those with parameters, or whose derivatives are not in terms of their values: of x, alpha, beta.
_OTHERS: dict[str, Callable[[Array, Array, Array], Activated]] = {
    "affine": _affine,
    "leaky_relu": _leaky_relu,
    "thresholded_relu": _thresholded_relu,
    "scaled_tanh": _scaled_tanh,
    "hard_sigmoid": _hard_sigmoid,
    "elu": _elu,
    "softsign": _softsign,
    "softplus": _softplus,
}

#: Of the others, the derivatives in terms of their values.
_SLOPES = {"sigmoid": d_sigmoid, "tanh": d_tanh, "relu": d_relu}


def function(
    activation: Activation, simple: dict[str, Callable[[Array], Array]], clip: float | None = None
) -> Function:
    """Return the function that an activation is, of arguments clipped to +-`clip`.

    Parameters
    ----------
    simple : dict of str to callable
        ``"sigmoid"``, ``"tanh"`` and ``"relu"``.
    """
    name, alpha, beta = activation

    def apply(x: Array) -> Activated:
        if name in simple:
            value = simple[name](x)
            return Activated(value, _SLOPES[name](value))
        return _OTHERS[name](x, x.dtype.type(alpha), x.dtype.type(beta))

    if clip is None:
        return apply
    bound = clip

    def apply_clipped(x: Array) -> Activated:
        # As torch.clamp: the derivative is 1 at the bounds themselves. NaN stays NaN.
        value, slope = apply(np.clip(x, -bound, bound))
        return Activated(value, np.where(np.abs(x) > bound, x.dtype.type(0), slope))

    return apply_clipped
