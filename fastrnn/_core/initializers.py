"""Initial weights of one layer in one direction.

They are the same on every CPU: drawn and computed by single operations of IEEE 754. (Those of BLAS,
LAPACK and ``Generator.uniform`` differ.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastrnn._core import generators
from fastrnn._kernels.cells import GAINS, Cell, CellConfig
from fastrnn._types import Array

#: Gains start at 1 and the bias at 0, whatever `init` is, as in Ba et al. 2016.
NEUTRAL = dict.fromkeys(GAINS, 1.0) | {"gain_c": 1.0, "bias_c": 0.0}

INITS = ("uniform", "orthogonal", "identity")


def weights(
    rng: np.random.Generator,
    cell: Cell,
    config: CellConfig,
    init: str,
    dtype: Any,
) -> list[Array | None]:
    """Draw weights in the order of `cell.weights`; None for those that `config` leaves out.

    Parameters
    ----------
    init : {"uniform", "orthogonal", "identity"}
        As in ``fastrnn.RNN``.
    """
    shapes = cell.weight_shapes(config)
    I, H = config.input_size, config.hidden_size
    if generators.is_undrawn():
        return [np.zeros(shapes[name], dtype) if name in shapes else None for name in cell.weights]

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name in NEUTRAL:
            return np.full(shape, NEUTRAL[name])
        if name == "weight_hh" and cell.recurrence == "elementwise" and init != "identity":
            # From no memory to all of it (Li et al. 2018, section 3.3, with T unknown).
            return rng.random(shape)
        if init == "uniform":
            return uniform(rng, 1 / math.sqrt(H), shape)
        if name.startswith("bias"):
            return np.zeros(shape)
        if init == "identity":
            return _identity(shape) if name == "weight_hh" else rng.normal(0, 1e-3, shape)
        if name == "weight_hh" and shape[1:] == (H,):
            return np.concatenate([_orthogonal(rng, H) for _ in cell.gates])
        return uniform(rng, math.sqrt(6 / (I + H)), shape)

    return [
        draw(name, shapes[name]).astype(dtype) if name in shapes else None for name in cell.weights
    ]


def uniform(rng: np.random.Generator, bound: float, shape: tuple[int, ...]) -> Array:
    """Draw numbers that are uniformly distributed in +-bound."""
    numbers: Array = -bound + 2 * bound * rng.random(shape)
    return numbers


def _identity(shape: tuple[int, ...]) -> Array:
    """Return the identity: a matrix, or a vector for an elementwise recurrence."""
    return np.ones(shape) if len(shape) == 1 else np.eye(shape[0])


def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    """Draw a uniformly distributed orthogonal matrix (Mezzadri 2007).

    By modified Gram-Schmidt, twice for orthogonality to the last digits (Giraud et al. 2005).
    """
    columns = np.ascontiguousarray(rng.standard_normal((n, n)).T)
    products = np.empty_like(columns)
    for _ in range(2):
        for k, column in enumerate(columns):
            column /= math.sqrt(np.square(column).sum())
            rest, product = columns[k + 1 :], products[k + 1 :]
            along = np.multiply(rest, column, out=product).sum(axis=1, keepdims=True)
            rest -= np.multiply(along, column, out=product)
    matrix: Array = columns.T
    return matrix
