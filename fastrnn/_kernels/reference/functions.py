"""Functions of each row alone, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastrnn._kernels.functions import FUNCTIONS
from fastrnn._kernels.reference import activations, arrays
from fastrnn._kernels.reference.product import Normed, normalise, normalise_back, wide_enough
from fastrnn._types import Array

#: sqrt(2 / pi), and the cubic term: Hendrycks and Gimpel 2016, section 2.
GELU_SCALE, GELU_CUBE = 0.7978845608028654, 0.044715


class Operations(NamedTuple):
    """What functions are made of: exp and exp - 1 for x <= 0, the others, sums of rows."""

    exp: Callable[[Array], Array]
    expm1: Callable[[Array], Array]
    log1p: Callable[[Array], Array]
    log: Callable[[Array], Array]
    tanh: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    silu: Callable[[Array], Array]
    sum: Callable[[Array], Array]
    normalise: Callable[[Array, float], Normed]


FLOAT = Operations(
    np.exp, np.expm1, np.log1p, np.log, np.tanh, activations.sigmoid, activations.silu,
    lambda x: np.asarray(x.sum(axis=-1, keepdims=True)), normalise,
)  # fmt: skip


def value(o: Operations, name: str, x: Array, table: Array | None, a: Any, b: Any) -> Array:
    """Return the function of x (n, F), with parameters of its dtype."""
    one, half = x.dtype.type(1), x.dtype.type(0.5)
    formulas: dict[str, Callable[[], Any]] = {
        "affine": lambda: a * x + b,
        "relu": lambda: np.where(x < 0, 0, x),
        "clip": lambda: _at_most(_at_least(x, a), b),
        "leaky_relu": lambda: np.where(x < 0, x * a, x),
        "thresholded_relu": lambda: np.where(x <= a, 0, x),
        "elu": lambda: np.where(x > 0, x * b, o.expm1(np.minimum(x, 0)) * (a * b)),
        "tanh": lambda: o.tanh(x * b) * a,
        "sigmoid": lambda: o.sigmoid(x),
        "hard_sigmoid": lambda: _at_most(_at_least(a * x + b, 0), 1),
        "softplus": lambda: _at_least(x, 0) + o.log1p(o.exp(-np.abs(x))),
        "softsign": lambda: x / (np.abs(x) + one),
        "silu": lambda: o.silu(x),
        "gelu_tanh": lambda: x * half * (o.tanh(_angle(x)) + one),
        "softmax": lambda: _exponentials(o, x)[1] / _exponentials(o, x)[2],
        "log_softmax": lambda: _log_softmax(o, x),
        "layer_norm": lambda: _scaled(o.normalise(x, a).hat, table),
        "standardise": lambda: (x - _rows(table)[0]) / _rows(table)[1],
        "restore": lambda: x * _rows(table)[1] + _rows(table)[0],
    }
    return np.asarray(formulas[name](), x.dtype)


def gradient(
    name: str, x: Array, table: Array | None, d: Array, a: Any, b: Any
) -> tuple[Array, Array | None]:
    """Return the gradient of x, and of the table of a layer normalisation, from that of y."""
    if name == "layer_norm":
        normed = normalise(x, a)
        of_table = np.stack([(d * normed.hat).sum(axis=0), d.sum(axis=0)])
        return normalise_back(normed, d if table is None else d * table[0]), of_table
    (of_x,) = wide_enough(lambda x, d: (_gradient(name, x, table, d, a, b),), x, d)
    return of_x, None


def _gradient(name: str, x: Array, table: Array | None, d: Array, a: Any, b: Any) -> Array:
    o = FLOAT
    y = value(o, name, x, table, a, b)
    formulas: dict[str, Callable[[], Any]] = {
        "affine": lambda: d * a,
        "relu": lambda: np.where(x <= 0, 0, d),
        "clip": lambda: np.where((x <= a) | (x >= b), 0, d),
        "leaky_relu": lambda: np.where(x <= 0, d * a, d),
        "thresholded_relu": lambda: np.where(x <= a, 0, d),
        "elu": lambda: d * np.where(x > 0, b, o.exp(np.minimum(x, 0)) * (a * b)),
        "tanh": lambda: d * activations.d_tanh(o.tanh(x * b)) * (a * b),
        "sigmoid": lambda: d * activations.d_sigmoid(y),
        "hard_sigmoid": lambda: np.where((a * x + b <= 0) | (a * x + b >= 1), 0, d * a),
        "softplus": lambda: d * o.sigmoid(x),
        "softsign": lambda: d / np.square(np.abs(x) + 1),
        "silu": lambda: d * o.sigmoid(x) * (1 + x * (1 - o.sigmoid(x))),
        "gelu_tanh": lambda: d / 2 * _gelu_slope(o.tanh(_angle(x)), x),
        "softmax": lambda: y * (d - o.sum(d * y)),
        "log_softmax": lambda: d - np.exp(y) * o.sum(d),
        "standardise": lambda: d * (1 / _rows(table)[1]).astype(x.dtype),
        "restore": lambda: d * _rows(table)[1].astype(x.dtype),
    }
    return np.asarray(formulas[name](), x.dtype)


# NaN stays NaN, and of equal numbers x is taken, as in vec.h.
def _at_least(x: Array, limit: Any) -> Array:
    return np.where(x < limit, limit, x).astype(x.dtype, copy=False)


def _at_most(x: Array, limit: Any) -> Array:
    return np.where(x > limit, limit, x).astype(x.dtype, copy=False)


def _angle(x: Array) -> Array:
    return np.asarray((x * x * x.dtype.type(GELU_CUBE) * x + x) * x.dtype.type(GELU_SCALE))


def _gelu_slope(t: Array, x: Array) -> Array:
    """Return twice the derivative of gelu_tanh, where the hyperbolic tangent is t."""
    slope = x.dtype.type(GELU_SCALE) * (1 + 3 * x.dtype.type(GELU_CUBE) * x * x)
    return np.asarray(1 + t + x * activations.d_tanh(t) * slope)


def _exponentials(o: Operations, x: Array) -> tuple[Array, Array, Array]:
    """Return the largest number of each row, exp(x - largest), and the sum of that."""
    largest = x.max(axis=-1, keepdims=True)
    e = o.exp(x - largest)
    return largest, e, o.sum(e)


def _log_softmax(o: Operations, x: Array) -> Array:
    largest, _, total = _exponentials(o, x)
    return np.asarray(x - largest - o.log(total))


def _scaled(hat: Array, table: Array | None) -> Array:
    return hat if table is None else hat * table[0] + table[1]


def _rows(table: Array | None) -> Array:
    assert table is not None
    return table


def checked(x: Any, table: Array | None, function: int) -> str:
    """Return the name of the function; raise unless x (n, F) and the table are what it reads."""
    dtype = arrays.real_type(x, "x")
    if x.ndim != 2:
        arrays.refuse(x, "x", f"a C-contiguous {dtype} array (n, F)")
    F = x.shape[1]
    if not 0 <= function < len(FUNCTIONS):
        raise ValueError(f"function: expected 0..{len(FUNCTIONS) - 1}, got {function}")
    name = FUNCTIONS[function]
    scales = name in ("standardise", "restore")
    wants = (True,) if scales else (False, True) if name == "layer_norm" else (False,)
    if F < 1 or (table is not None) not in wants:
        raise ValueError(f"function, table, F: expected others, got {function}, {table}, {F}")
    if table is not None:
        arrays.like(table, "table", (2, F), np.dtype(np.float64) if scales else dtype)
    return name


def run(
    o: Operations, x: Array, table: Array | None, y: Array, function: int, a: float, b: float
) -> None:
    """Write a function of each row of x (n, F) to y, made of these operations."""
    name = checked(x, table, function)
    arrays.like(y, "y", x.shape, x.dtype, out=True)
    y[...] = value(o, name, x, table, x.dtype.type(a), x.dtype.type(b))


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(all="ignore")
def transform(
    x: Array, table: Array | None, y: Array, *, function: int, a: float, b: float
) -> None:
    """Write a function of each row of x (n, F) to y."""
    run(FLOAT, x, table, y, function, a, b)


@arrays.pinning
@np.errstate(all="ignore")
def transform_back(
    x: Array,
    table: Array | None,
    dy: Array,
    dx: Array,
    dtable: Array | None,
    *,
    function: int,
    a: float,
    b: float,
) -> None:
    """Write the gradients of a :func:`transform`."""
    name = checked(x, table, function)
    arrays.like(dy, "dy", x.shape, x.dtype)
    arrays.like(dx, "dx", x.shape, x.dtype, out=True)
    if dtable is not None:
        arrays.like(dtable, "dtable", (2, x.shape[1]), x.dtype, out=True)
    of_x, of_table = gradient(name, x, table, dy, x.dtype.type(a), x.dtype.type(b))
    dx[...] = of_x
    if dtable is not None:
        dtable[...] = 0 if of_table is None else of_table
