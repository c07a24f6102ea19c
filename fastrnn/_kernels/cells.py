"""Recurrent cells as data: gates, states, recurrence and weights.

All other modules iterate over :data:`CELLS`. A new cell is an entry here and one file in each twin:
``reference/<family>.py`` and ``src_pyx/cells/<family>.pxd``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.activations import Activation, activation
from fastrnn._types import Array

#: The weights of a cell without options, in the order in which the twins take them.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
#: Projection of the output (Sak et al. 2014), and peepholes (Gers et al. 2002).
PROJECTION = ("weight_hr",)
PEEPHOLES = ("weight_ci", "weight_cf", "weight_co")
#: Layer normalisation (Ba et al. 2016): gains of the two products, whose biases are `bias_ih` and
#: `bias_hh`; gain and bias of the cell state, in cells that have one.
GAINS = ("gain_ih", "gain_hh")
STATE_NORM = ("gain_c", "bias_c")
#: Most activations of a cell.
MAX_ACTIVATIONS = 3
#: Added to the variance, as in torch.nn.LayerNorm.
NORM_EPS = 1e-5

Recurrence = Literal["dense", "elementwise", "none"]
MatmulPrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class CellConfig:
    """Sizes and options of one layer in one direction.

    Attributes
    ----------
    input_size, hidden_size : int
        I and H.
    proj_size : int
        P, the size of the projected output; 0 for no projection.
    bias : bool
        Whether there are biases.
    peephole, layer_norm : bool
        As in ``fastrnn.LSTM``.
    matmul_precision : {"float32", "bfloat16"}
        As in ``fastrnn.RNN``.
    activations : tuple of Activation, optional
        In the order of the cell's own, which are the default.
    clip : float, optional
        Bound of the arguments of the activations of gates. Default: none.
    input_forget : bool
        As in ``fastrnn.LSTM``.

    Raises
    ------
    ValueError
        If a size is out of its range, or there is no such precision.
    TypeError
        If a size is not an integer or an option not a bool.
    """

    input_size: int
    hidden_size: int
    proj_size: int = 0
    bias: bool = True
    peephole: bool = False
    layer_norm: bool = False
    matmul_precision: MatmulPrecision = "float32"
    activations: tuple[Activation, ...] | None = None
    clip: float | None = None
    input_forget: bool = False
    #: The latest answer of `Cell.weight_shapes`: hashing both would take longer than all else.
    _shapes: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check sizes and options."""
        for name, least in (("input_size", 1), ("hidden_size", 1), ("proj_size", 0)):
            object.__setattr__(self, name, _checks.size(getattr(self, name), name, least))
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size: expected 0 or a size below hidden_size={self.hidden_size}, "
                f"got {self.proj_size}"
            )
        for name in ("bias", "peephole", "layer_norm", "input_forget"):
            object.__setattr__(self, name, _checks.flag(getattr(self, name), name))
        _checks.choice(self.matmul_precision, "matmul_precision", _checks.PRECISIONS)
        if self.activations is not None:
            object.__setattr__(self, "activations", tuple(map(activation, self.activations)))
        if self.clip is not None:
            object.__setattr__(self, "clip", _checks.positive(self.clip, "clip"))

    @property
    def general(self) -> bool:
        """Whether gates are computed in another way than the cell's own."""
        return self.activations is not None or self.clip is not None or self.input_forget

    def applied(self, cell: Cell) -> list[tuple[Activation, float]]:
        """Return the activations of a cell, and the bound of what each is applied to."""
        chosen = self.activations or tuple(map(Activation, cell.activations))
        bounds = [math.inf if self.clip is None else self.clip] * len(chosen)
        if "c" in cell.states:
            # As in ONNX Runtime: the last one is applied to the cell state, which is not clipped.
            bounds[-1] = math.inf
        return list(zip(chosen, bounds, strict=True))

    def gating(self, cell: Cell, itemsize: int) -> Array:
        """Return the same as floats of this size: of each the function, bound, and parameters."""
        numbers = np.zeros((MAX_ACTIVATIONS, 4), f"f{itemsize}")
        with np.errstate(over="ignore"):  # too large for float32: infinite
            for row, (one, bound) in zip(numbers, self.applied(cell), strict=False):
                how = one.function.arguments
                row[:] = how["function"], bound, how["a"], how["b"]
        return numbers

    @property
    def output_size(self) -> int:
        """P with a projection, else H."""
        return self.proj_size or self.hidden_size


@dataclass(frozen=True)
class Cell:
    """One kind of recurrence.

    Attributes
    ----------
    name : str
        Key in :data:`CELLS`.
    family : str
        The name of its file in every folder.
    gates : tuple of str
        Gates in the order of the rows of the weights, torch's order.
    activations : tuple of str
        Names of its own activations: of gates, then of a candidate, then of a cell state.
    states : tuple of str
        The states carried from step to step; ``"h"`` comes first and is the output.
    recurrence : {"dense", "elementwise", "none"}
        Whether `weight_hh` is a matrix (G*H, P), a vector (G*H,), or absent along with `bias_hh`.
    options : tuple of str
        Those of ``"projection"``, ``"peephole"``, ``"layer_norm"`` and ``"input_forget"`` that
        this cell supports.
    norm_groups : tuple of tuple of str
        The gates that layer normalisation normalises together, in the order of `gates`.
    bounded : bool
        Whether each step's output, before a projection, is in -1..1.
    """

    name: str
    family: str
    gates: tuple[str, ...]
    activations: tuple[str, ...]
    states: tuple[str, ...] = ("h",)
    recurrence: Recurrence = "dense"
    options: tuple[str, ...] = ()
    norm_groups: tuple[tuple[str, ...], ...] = ()
    bounded: bool = True

    @cached_property
    def weights(self) -> tuple[str, ...]:
        """Names of all weights that this cell can have, in order."""
        of_options = {
            "projection": PROJECTION,
            "peephole": PEEPHOLES,
            "layer_norm": GAINS + (STATE_NORM if "c" in self.states else ()),
        }
        names = WEIGHTS if self.recurrence != "none" else ("weight_ih", "bias_ih")
        return names + sum((w for o, w in of_options.items() if o in self.options), ())

    def weight_shapes(self, config: CellConfig) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights that a layer has, by name, in order.

        Raises
        ------
        ValueError
            If `config` has an option that this cell does not support.
        """
        latest = config._shapes
        if latest is None or latest[0] is not self:
            latest = self, _weight_shapes(self, config)
            object.__setattr__(config, "_shapes", latest)
        shapes: dict[str, tuple[int, ...]] = latest[1].copy()
        return shapes

    def state_sizes(self, config: CellConfig) -> tuple[int, ...]:
        """Return the size of each state: P for h, H for others."""
        return (config.output_size, *[config.hidden_size] * (len(self.states) - 1))


def _weight_shapes(cell: Cell, config: CellConfig) -> dict[str, tuple[int, ...]]:
    absent: tuple[str, ...] = () if config.bias else ("bias_ih", "bias_hh", "bias_c")
    for option, names, asked in (
        ("projection", PROJECTION, config.proj_size),
        ("peephole", PEEPHOLES, config.peephole),
        ("layer_norm", GAINS + STATE_NORM, config.layer_norm),
        ("input_forget", (), config.input_forget),
    ):
        if asked and option not in cell.options:
            raise ValueError(f"config: {cell.name} cells have no {option}, got {config}")
        absent += names if not asked else ()
    if config.activations is not None and len(config.activations) != len(cell.activations):
        raise ValueError(
            f"config: {cell.name} cells have {len(cell.activations)} activations, got {config}"
        )
    I, H, P = config.input_size, config.hidden_size, config.output_size
    rows = len(cell.gates) * H
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(WEIGHTS + GAINS, (rows,))
    shapes["weight_ih"] = (rows, I)
    if cell.recurrence == "dense":
        shapes["weight_hh"] = (rows, P)
    shapes |= dict.fromkeys(PROJECTION, (P, H)) | dict.fromkeys(PEEPHOLES + STATE_NORM, (H,))
    return {name: shapes[name] for name in cell.weights if name not in absent}


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("rnn_tanh", "rnn", ("h",), ("tanh",)),
        Cell("rnn_relu", "rnn", ("h",), ("relu",), bounded=False),
        Cell(
            "lstm",
            "lstm",
            ("i", "f", "g", "o"),
            ("sigmoid", "tanh", "tanh"),
            ("h", "c"),
            options=("projection", "peephole", "layer_norm", "input_forget"),
            norm_groups=(("i", "f", "g", "o"),),
        ),
        *(
            Cell(
                name,
                "gru",
                ("r", "z", "n"),
                ("sigmoid", "tanh"),
                options=("layer_norm",),
                norm_groups=(("r", "z"), ("n",)),
            )
            for name in ("gru", "gru_reset_before")
        ),
        Cell("indrnn_tanh", "indrnn", ("h",), ("tanh",), recurrence="elementwise"),
        Cell("indrnn_relu", "indrnn", ("h",), ("relu",), recurrence="elementwise", bounded=False),
    )
}
