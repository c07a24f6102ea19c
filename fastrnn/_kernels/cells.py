"""What a recurrent cell is, as data: its gates, its states and where its weights stand.

Every other floor of the package iterates over :data:`CELLS`. A new cell is an entry here and one
file in each twin (``_reference/<family>.py`` and ``src_pyx/<family>.pxd``).
"""

from __future__ import annotations

from dataclasses import dataclass

#: The weights that every cell has, in the order in which they travel through the twins.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Cell:
    """One recurrence.

    Attributes
    ----------
    name : str
        The key in :data:`CELLS`.
    gates : tuple of str
        Gates in the order of the rows of ``weight_ih`` and ``weight_hh``, torch's order.
    states : tuple of str
        The states carried from step to step; ``"h"`` comes first and is the output.
    more_weights : tuple of str
        Optional ones, which come after :data:`WEIGHTS`.
    norm_groups : tuple of int
        How many gates in a row are normalised together by layer normalisation; empty where a cell
        has none.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...] = ("h",)
    more_weights: tuple[str, ...] = ()
    norm_groups: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of all weights, in order."""
        return WEIGHTS + self.more_weights

    def weight_shapes(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int = 0,
        peephole: bool = False,
        layer_norm: bool = False,
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights of one layer, by name."""
        I, H, P = input_size, hidden_size, proj_size or hidden_size
        rows = len(self.gates) * H
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, I),
            "weight_hh": (rows, P),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        if proj_size:
            shapes |= dict.fromkeys(PROJECTION, (P, H))
        if peephole:
            shapes |= dict.fromkeys(PEEPHOLES, (H,))
        if layer_norm:
            shapes |= dict.fromkeys(GAINS, (rows,))
            shapes |= dict.fromkeys([n for n in STATE_NORM if n in self.more_weights], (H,))
        return shapes


#: Optional weights of an LSTM: the projection (Sak et al. 2014), peepholes (Gers et al. 2002).
PROJECTION = ("weight_hr",)
PEEPHOLES = ("weight_ci", "weight_cf", "weight_co")
#: Of layer normalisation (Ba et al. 2016): gains of the two projections; gain and bias of the cell
#: state. The projections' own biases are `bias_ih` and `bias_hh`.
GAINS = ("gain_ih", "gain_hh")
STATE_NORM = ("gain_c", "bias_c")
#: What is added to a variance, as in torch.nn.LayerNorm.
NORM_EPS = 1e-5

CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("rnn_tanh", ("h",)),
        Cell("rnn_relu", ("h",)),
        Cell(
            "lstm",
            ("i", "f", "g", "o"),
            ("h", "c"),
            PROJECTION + PEEPHOLES + GAINS + STATE_NORM,
            norm_groups=(4,),
        ),
        Cell("gru", ("r", "z", "n"), more_weights=GAINS, norm_groups=(2, 1)),
        Cell("gru_reset_before", ("r", "z", "n"), more_weights=GAINS, norm_groups=(2, 1)),
    )
}
