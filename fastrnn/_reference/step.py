"""What one step of a cell takes and gives, forward and backward.

B rows of a batch, H hidden units, G gates. `zx` is the input projection W_ih x + b_ih, (B, G*H),
which the scan computes for all steps at once; the recurrent product is the cell's own.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fastrnn._reference.activations import Array


class Forward(NamedTuple):
    """Result of a step: the new states, each (B, H), and what its backward needs."""

    state: tuple[Array, ...]
    saved: tuple[Array, ...]


class Backward(NamedTuple):
    """Result of a step back: gradients of `zx`, of the old states and of the recurrent weights."""

    dzx: Array
    dstate: tuple[Array, ...]
    dw_hh: Array
    db_hh: Array


class ForwardStep(Protocol):
    def __call__(
        self, zx: Array, state: tuple[Array, ...], w_hh: Array, b_hh: Array
    ) -> Forward: ...


class BackwardStep(Protocol):
    def __call__(
        self, saved: tuple[Array, ...], dstate: tuple[Array, ...], w_hh: Array
    ) -> Backward: ...


class StepPair(NamedTuple):
    """A cell: one step forward, and one step back through it."""

    forward: ForwardStep
    backward: BackwardStep
