"""The operations of which steps are made: those of floats, or those of quantized inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn._kernels.activations import Activation
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.reference import functions
from fastrnn._kernels.reference.activations import d_relu, d_sigmoid, d_tanh
from fastrnn._kernels.reference.functions import Operations
from fastrnn._kernels.reference.product import Normed, Product, normalise, product
from fastrnn._types import Array


class Arithmetic(NamedTuple):
    """Of activations, of the product with a state, of layer normalisation, and of a new state."""

    operations: Operations
    product: Callable[..., Product]
    normalise: Callable[[Array], Normed]
    settled: Callable[[Array], Array]


FLOAT = Arithmetic(functions.FLOAT, product, normalise, lambda state: state)


class Activated(NamedTuple):
    """The values of an activation, and its derivatives there."""

    value: Array
    slope: Array


#: Of the usual activations, the derivatives in terms of their values.
_SLOPES = {"sigmoid": d_sigmoid, "tanh": d_tanh, "relu": d_relu}


def activated(
    one: Activation, z: Array, bound: float = np.inf, by: Arithmetic = FLOAT
) -> Activated:
    """Return an activation of z, which is clipped to +-`bound` first."""
    name, a, b = one.function
    a, b = z.dtype.type(a), z.dtype.type(b)
    x = z if bound == np.inf else np.clip(z, -bound, bound)
    value = functions.value(by.operations, name, x, None, a, b)
    if one.name in _SLOPES:
        slope = _SLOPES[one.name](value)
    else:
        slope, _ = functions.gradient(name, x, None, np.ones_like(x), a, b)
    # As torch.clamp: the derivative is 1 at the bounds themselves.
    return Activated(value, slope if x is z else np.where(np.abs(z) > bound, 0, slope))


def activations(
    cell: Cell, config: CellConfig, by: Arithmetic = FLOAT
) -> tuple[Callable[[Array], Activated], ...]:
    """Return the activations of a cell, in its order."""
    return tuple(
        lambda z, one=one, bound=bound: activated(one, z, bound, by)
        for one, bound in config.applied(cell)
    )
