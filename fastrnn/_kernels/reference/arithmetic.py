"""The operations of which steps are made: those of floats, or those of quantized inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

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
