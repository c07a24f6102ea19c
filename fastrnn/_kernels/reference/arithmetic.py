"""The operations of which steps are made: those of floats, or those of quantized inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn._kernels.activations import Activation
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.reference import activations
from fastrnn._kernels.reference.product import Normed, Product, normalise, product
from fastrnn._types import Array


class Arithmetic(NamedTuple):
    """Activations, the product with a state, layer normalisation, and what a new state becomes."""

    sigmoid: Callable[[Array], Array]
    tanh: Callable[[Array], Array]
    product: Callable[..., Product]
    normalise: Callable[[Array], Normed]
    settled: Callable[[Array], Array]


FLOAT = Arithmetic(activations.sigmoid, np.tanh, product, normalise, lambda state: state)


def functions(
    cell: Cell, config: CellConfig, by: Arithmetic = FLOAT
) -> tuple[activations.Function, ...]:
    """Return the activations of a cell, in its order; those of gates clip their arguments."""
    simple = {"sigmoid": by.sigmoid, "tanh": by.tanh, "relu": activations.relu}
    chosen = config.activations or [Activation(name) for name in cell.activations]
    clips = [config.clip] * len(chosen)
    if "c" in cell.states:
        # As in ONNX Runtime: the argument of the last one is the cell state, which is not clipped.
        clips[-1] = None
    return tuple(
        activations.function(one, simple, clip) for one, clip in zip(chosen, clips, strict=True)
    )
