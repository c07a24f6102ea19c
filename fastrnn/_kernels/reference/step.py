"""Arguments and results of one step of a cell, forward and backward.

B rows of a batch, H hidden units, G gates. `zx` is W_ih x + b_ih, (B, G*H), or LN(W_ih x) + b_ih,
which the scan computes for all steps at once; the scan also projects the new h, if the layer has a
projection. Everything else is done by the cell. Weights are passed by name. A family's file defines
``STEPS``: a :class:`StepPair` for each of its cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fastrnn._kernels.cells import MatmulPrecision
from fastrnn._kernels.reference.arithmetic import FLOAT, Activated, Arithmetic
from fastrnn._types import Array


class CellWeights(dict[str, Array]):
    """The weights of a cell by name, and how a step computes with them.

    Attributes
    ----------
    matmul_precision : {"float32", "bfloat16"}
        Of products with them.
    functions : tuple of callable
        The activations of the cell, in its order.
    input_forget : bool
        As in ``fastrnn.LSTM``.
    """

    matmul_precision: MatmulPrecision = "float32"
    functions: tuple[Callable[[Array], Activated], ...] = ()
    input_forget: bool = False


class Forward(NamedTuple):
    """Result of a step: the new states, each (B, H), and what its backward needs."""

    state: tuple[Array, ...]
    saved: tuple[Any, ...]


class Backward(NamedTuple):
    """Result of a step back: gradients of `zx`, of the old states and of the weights by name.

    A weight that a layer does not have may have a gradient of None.
    """

    dzx: Array
    dstate: tuple[Array, ...]
    grads: Mapping[str, Array | None]


class ForwardStep(Protocol):
    """One step of a cell."""

    def __call__(
        self, zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT
    ) -> Forward:
        """Compute the new states from the old ones, each (B, H)."""


class BackwardStep(Protocol):
    """One step back through a cell."""

    def __call__(
        self, saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights
    ) -> Backward:
        """Compute all other gradients from those of the new states, each (B, H)."""


class StepPair(NamedTuple):
    """A cell: one step forward, and one step back through it.

    `apart` names gates that need the products with the input and with the state each by itself.
    """

    forward: ForwardStep
    backward: BackwardStep
    apart: tuple[str, ...] = ()
