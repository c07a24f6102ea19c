"""Recurrent cells as data: gates, states, recurrence and weights.

All other modules iterate over :data:`CELLS`. A new cell is an entry here and one file in each twin:
``reference/<family>.py`` and ``src_pyx/cells/<family>.pxd``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from fastrnn import _checks

#: The weights of a cell without options, in the order in which the twins take them.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
#: Projection of the output (Sak et al. 2014), and peepholes (Gers et al. 2002).
PROJECTION = ("weight_hr",)
PEEPHOLES = ("weight_ci", "weight_cf", "weight_co")
#: Layer normalisation (Ba et al. 2016): gains of the two products, whose biases are `bias_ih` and
#: `bias_hh`; gain and bias of the cell state, in cells that have one.
GAINS = ("gain_ih", "gain_hh")
STATE_NORM = ("gain_c", "bias_c")
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
        for name in ("bias", "peephole", "layer_norm"):
            object.__setattr__(self, name, _checks.flag(getattr(self, name), name))
        _checks.choice(self.matmul_precision, "matmul_precision", _checks.PRECISIONS)

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
    states : tuple of str
        The states carried from step to step; ``"h"`` comes first and is the output.
    recurrence : {"dense", "elementwise", "none"}
        Whether `weight_hh` is a matrix (G*H, P), a vector (G*H,), or absent along with `bias_hh`.
    options : tuple of str
        Those of ``"projection"``, ``"peephole"`` and ``"layer_norm"`` that this cell supports.
    norm_groups : tuple of tuple of str
        The gates that layer normalisation normalises together, in the order of `gates`.
    bounded : bool
        Whether each step's output, before a projection, is in -1..1.
    """

    name: str
    family: str
    gates: tuple[str, ...]
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
    ):
        if asked and option not in cell.options:
            raise ValueError(f"config: {cell.name} cells have no {option}, got {config}")
        absent += names if not asked else ()
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
        Cell("rnn_tanh", "rnn", ("h",)),
        Cell("rnn_relu", "rnn", ("h",), bounded=False),
        Cell(
            "lstm",
            "lstm",
            ("i", "f", "g", "o"),
            ("h", "c"),
            options=("projection", "peephole", "layer_norm"),
            norm_groups=(("i", "f", "g", "o"),),
        ),
        *(
            Cell(
                name,
                "gru",
                ("r", "z", "n"),
                options=("layer_norm",),
                norm_groups=(("r", "z"), ("n",)),
            )
            for name in ("gru", "gru_reset_before")
        ),
        Cell("indrnn_tanh", "indrnn", ("h",), recurrence="elementwise"),
        Cell("indrnn_relu", "indrnn", ("h",), recurrence="elementwise", bounded=False),
    )
}
