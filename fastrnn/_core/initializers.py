"""Initial weights of one layer in one direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._kernels.cells import GAINS, Cell
from fastrnn._types import Array

#: Layer normalisation starts as nothing but that, whatever `init`; so in Ba et al. 2016.
NEUTRAL = dict.fromkeys(GAINS, 1.0) | {"gain_c": 1.0, "bias_c": 0.0}

INITS = ("uniform", "orthogonal", "identity")


def weights(
    rng: np.random.Generator,
    cell: Cell,
    shapes: dict[str, tuple[int, ...]],
    init: str,
    dtype: Any,
) -> list[Array | None]:
    """Fresh weights in the order of `cell.weights`; None for what `shapes` does not have.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        As from ``cell.weight_shapes``.
    init : {"uniform", "orthogonal", "identity"}
        As in ``fastrnn.RNN``.
    """
    rows, I = shapes["weight_ih"]
    H = rows // len(cell.gates)

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        if name in NEUTRAL:
            return np.full(shape, NEUTRAL[name])
        if init == "uniform":
            return rng.uniform(-(H**-0.5), H**-0.5, shape)
        if name.startswith("bias"):
            return np.zeros(shape)
        if init == "identity":
            return np.eye(H) if name == "weight_hh" else rng.normal(0, 1e-3, shape)
        if name == "weight_hh" and shape[1] == H:
            return np.concatenate([_orthogonal(rng, H) for _ in cell.gates])
        bound = (6 / (I + H)) ** 0.5
        return rng.uniform(-bound, bound, shape)

    return [
        draw(name, shapes[name]).astype(dtype) if name in shapes else None for name in cell.weights
    ]


def _orthogonal(rng: np.random.Generator, n: int) -> Array:
    """An orthogonal matrix, all being equally likely (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    found: Array = q * np.sign(r.diagonal())
    return found
