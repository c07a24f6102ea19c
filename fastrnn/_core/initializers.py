"""Initial weights of one layer in one direction."""

from __future__ import annotations

from typing import Any

import numpy as np

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

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name in NEUTRAL:
            return np.full(shape, NEUTRAL[name])
        if name == "weight_hh" and cell.recurrence == "elementwise" and init != "identity":
            # From no memory to all of it (Li et al. 2018, section 3.3, with T unknown).
            return rng.uniform(0, 1, shape)
        if init == "uniform":
            return rng.uniform(-(H**-0.5), H**-0.5, shape)
        if name.startswith("bias"):
            return np.zeros(shape)
        if init == "identity":
            return _identity(shape) if name == "weight_hh" else rng.normal(0, 1e-3, shape)
        if name == "weight_hh" and shape[1:] == (H,):
            return np.concatenate([_orthogonal(rng, H) for _ in cell.gates])
        bound = (6 / (I + H)) ** 0.5
        return rng.uniform(-bound, bound, shape)

    return [
        draw(name, shapes[name]).astype(dtype) if name in shapes else None for name in cell.weights
    ]


def _identity(shape: tuple[int, ...]) -> Array:
    """Return the identity: a matrix, or a vector for an elementwise recurrence."""
    return np.ones(shape) if len(shape) == 1 else np.eye(shape[0])


def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    """Draw a uniformly distributed orthogonal matrix (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    matrix: Array = q * np.sign(r.diagonal())
    return matrix
