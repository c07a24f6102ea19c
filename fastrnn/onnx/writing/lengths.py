"""The number of steps of each row, as an input of a graph."""

from __future__ import annotations

import numpy as np
import onnx

from fastrnn.onnx.writing.graph import Graph


class Lengths:
    """The number of steps of each row.

    Parameters
    ----------
    graph : Graph
        Gets an input ``lengths`` (B,) of int64.
    batch : str
        The name of its axis.
    wanted : bool
        Whether there is one. Otherwise, all rows have T steps.
    """

    def __init__(self, graph: Graph, batch: str, wanted: bool) -> None:
        self._graph, self._valid = graph, ["", ""]
        self._int64 = graph.input("lengths", np.int64, (batch,)) if wanted else ""
        #: As ONNX's operators take them; "" for T.
        self.int32 = graph.op("Cast", self._int64, to=onnx.TensorProto.INT32) if wanted else ""

    def valid(self, x: str, *, batch_first: bool) -> str:
        """Return which steps are not padding, (T, B, 1) or (B, T, 1) as `x`; "" if all are."""
        if self._int64 and not self._valid[batch_first]:
            op, graph = self._graph.op, self._graph
            T = op("Gather", op("Shape", x), graph.integer(int(batch_first)))
            t = op("Range", graph.integer(0), T, graph.integer(1))
            t, lengths = (
                op("Unsqueeze", vector, graph.integers(axis))
                for vector, axis in ((t, 1 - batch_first), (self._int64, int(batch_first)))
            )
            less = op("Less", t, lengths)
            self._valid[batch_first] = op("Unsqueeze", less, graph.integers(2))
        return self._valid[batch_first]

    def reversed(self, x: str) -> str:
        """Return `x` (T, B, I) with the steps of each row in reverse, padding in its place."""
        op, graph = self._graph.op, self._graph
        lengths = self._int64
        if not lengths:
            T, B = (op("Gather", op("Shape", x), graph.integers(axis)) for axis in (0, 1))
            lengths = op("Expand", T, B)
        return op("ReverseSequence", x, lengths, time_axis=0, batch_axis=1)
