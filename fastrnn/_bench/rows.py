"""Rows of a table of timings: the work, its sizes, and the expected results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

import fastrnn
from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._types import Array
from fastrnn.layers import RECURRENT

#: Steps after which the outputs of a stream are compared.
STEPS = 3

#: Tolerances, relative to the array's largest entry. The error of a sum of n products is at most
#: sqrt(n) u, with high probability (Higham and Mary 2019); 1e-4 is that for the longest
#: sums here (T*B = 5000, u = 6e-8), times 20 for the activations' errors, carried over the steps.
#: Products of fewer bits are off by 0.001 to 0.03; what is off by more is wrong.
BOUNDS = {"float32": 1e-4, "float64": 1e-12, "bfloat16": 0.1, "int8": 0.1}


#: The default cell of each recurrent layer, by the layer's name.
DEFAULTS: dict[str, Cell] = {
    layer.__name__: CELLS[next(iter(layer.cells))] for layer in RECURRENT.values()
}


class Work(Protocol):
    """The interface of a row, which is a dataclass."""

    @property
    def name(self) -> str:
        """The kind of work."""

    @property
    def shape(self) -> str:
        """The sizes."""


@dataclass(frozen=True)
class Row:
    """A piece of work.

    Attributes
    ----------
    cell : str
        Name of a recurrent layer; its default cell does the work.
    mode : {"step", "forward", "training"}
        One step of a stream; inference of a sequence; forward and BPTT with all gradients.
    I, H, T, B : int
    dtype : {"float32", "float64"}
    """

    cell: str
    mode: str
    I: int
    H: int
    T: int
    B: int
    dtype: str = "float32"

    @property
    def of(self) -> Cell:
        """The cell as data."""
        return DEFAULTS[self.cell]

    @property
    def name(self) -> str:
        """Cell and mode."""
        return f"{self.cell} {self.mode}"

    @property
    def shape(self) -> str:
        """``I,H,T,B``."""
        return f"{self.I},{self.H},{self.T},{self.B}"

    @property
    def calls(self) -> int:
        """Number of calls after which outputs are compared."""
        return STEPS if self.mode == "step" else 1

    @property
    def flops(self) -> int:
        """Additions and multiplications of the matrix products.

        Training takes three times as many as forward: its products, those for dx and dh, and those
        for the gradients of the weights.
        """
        rows = len(self.of.gates) * self.H
        forward = 2 * self.T * self.B * rows * (self.I + self._recurrent_columns)
        return 3 * forward if self.mode == "training" else forward

    @property
    def _recurrent_columns(self) -> int:
        """Number of state elements that each gate of a unit reads."""
        return {"dense": self.H, "elementwise": 1, "none": 0}[self.of.recurrence]

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a time step of one sequence must read.

        For a whole sequence only the recurrent ones: its input is projected many steps at a time.
        """
        rows = len(self.of.gates) * self.H
        columns = self._recurrent_columns + (self.I if self.mode == "step" else 0)
        return np.dtype(self.dtype).itemsize * rows * columns

    def __str__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"


@dataclass(frozen=True)
class Problem:
    """The arrays of a row, always the same for a row.

    Attributes
    ----------
    row : Row
    x : (T, B, I) array
    dy : (T, B, H) array
        Gradient with respect to y.
    state : tuple of (B, H) array
        One for each state of the cell.
    weights : dict of str to array
        torch's layouts, without a layer's suffix.
    """

    row: Row
    x: Array
    dy: Array
    state: tuple[Array, ...]
    weights: Mapping[str, Array]

    @classmethod
    def of(cls, row: Row) -> Problem:
        """Make the arrays; weights are uniform in +-1/sqrt(H), as torch initializes them."""
        rng = np.random.default_rng(0)
        T, B, I, H = row.T, row.B, row.I, row.H
        config = CellConfig(input_size=I, hidden_size=H)

        def uniform(bound: float, shape: tuple[int, ...]) -> Array:
            return rng.uniform(-bound, bound, shape).astype(row.dtype)

        return cls(
            row,
            uniform(1, (T, B, I)),
            uniform(1, (T, B, H)),
            tuple(uniform(1, (B, H)) for _ in row.of.states),
            {name: uniform(H**-0.5, s) for name, s in row.of.weight_shapes(config).items()},
        )

    def layer(self, **options: Any) -> Any:
        """Return a fastrnn layer with these weights."""
        options = {"dtype": self.row.dtype, "seed": 0} | options
        layer = getattr(fastrnn, self.row.cell)(self.row.I, self.row.H, **options)
        layer.load_state_dict({f"{name}_l0": w for name, w in self.weights.items()})
        return layer

    def layer_state(self) -> Any:
        """Return the state for layers of fastrnn and torch, (1, B, H) each."""
        state = tuple(s[None] for s in self.state)
        return state if len(state) > 1 else state[0]

    def truth(self) -> dict[str, Array]:
        """Return the expected results, from the NumPy reference in float64."""
        if self.row.mode == "step":
            steps = replace(self, x=np.repeat(self.x, STEPS, axis=0))
            y, _ = steps._in_float64(training=False)
            return {"y": y[-1]}
        y, gradients = self._in_float64(self.row.mode == "training")
        return {"y": y} | gradients

    def _in_float64(self, training: bool) -> tuple[Array, dict[str, Array]]:
        layer = self.layer(dtype=np.float64)
        with fastrnn.use_backend("reference"):
            if not training:
                return layer(self.x, self.layer_state())[0], {}
            y, _, tape = layer.forward(self.x, self.layer_state())
            return y, gradients(self.row.of, layer.backward(tape, self.dy))


def gradients(of: Cell, returned: tuple[Array, Any, Mapping[str, Array]]) -> dict[str, Array]:
    """Return the results of a layer's ``backward`` as arrays by name."""
    dx, dstate, grads = returned
    states = dstate if isinstance(dstate, tuple) else (dstate,)
    named = {f"d{name}": s[0] for name, s in zip(of.states, states, strict=True)}
    return {"dx": dx} | named | {n.removesuffix("_l0"): g for n, g in grads.items()}


def difference(results: Mapping[str, Array], truth: Mapping[str, Array]) -> float:
    """Return the largest difference of any array, relative to that array's largest entry.

    Infinity if an array is missing or has another shape.
    """
    if results.keys() != truth.keys():
        return np.inf
    worst = 0.0
    for name, expected in truth.items():
        if results[name].shape != expected.shape:
            return np.inf
        off = float(np.abs(results[name] - expected).max() / np.abs(expected).max())
        worst = max(worst, off if off == off else np.inf)
    return worst
