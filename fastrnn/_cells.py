"""What a recurrent cell is, as data: its gates, its states and where its weights stand.

Every other floor of the package iterates over :data:`CELLS`. A new cell is an entry here and one
file in each twin (``_reference/<family>.py`` and ``src_pyx/<family>.pxd``).
"""

from __future__ import annotations

from dataclasses import dataclass

#: The order in which a cell's weights travel through the twins.
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
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...] = ("h",)

    def weight_shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights of one layer, by the names of :data:`WEIGHTS`."""
        rows = len(self.gates) * hidden_size
        return {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, hidden_size),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }


CELLS: dict[str, Cell] = {
    cell.name: cell
    for cell in (
        Cell("rnn_tanh", ("h",)),
        Cell("rnn_relu", ("h",)),
        Cell("lstm", ("i", "f", "g", "o"), ("h", "c")),
        Cell("gru", ("r", "z", "n")),
        Cell("gru_reset_before", ("r", "z", "n")),
    )
}
