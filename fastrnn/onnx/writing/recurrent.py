"""Recurrent layers as ONNX's operators RNN, LSTM and GRU, one node for each of a layer's L."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn._types import Array
from fastrnn.layouts import unpack_onnx
from fastrnn.onnx.writing.graph import Graph
from fastrnn.onnx.writing.lengths import Lengths
from fastrnn.onnx.writing.loop import loop


class Operator(NamedTuple):
    """ONNX's operator for a cell, and its attributes."""

    kind: str
    activation: str | None = None
    linear_before_reset: int | None = None


#: By the name of the cell. IndRNN is an RNN with a diagonal matrix.
OPERATORS = {
    "rnn_tanh": Operator("RNN"),
    "rnn_relu": Operator("RNN", "Relu"),
    "indrnn_tanh": Operator("RNN"),
    "indrnn_relu": Operator("RNN", "Relu"),
    "lstm": Operator("LSTM"),
    "gru": Operator("GRU", linear_before_reset=1),
    "gru_reset_before": Operator("GRU", linear_before_reset=0),
}


def recurrent(
    graph: Graph, layer: Any, x: str, *, prefix: str, lengths: Lengths, state: Sequence[str]
) -> tuple[str, list[str]]:
    """Add a recurrent layer.

    Parameters
    ----------
    graph : Graph
    layer : Recurrent
    x : str
        (T, B, I).
    prefix : str
        Of the names of its weights.
    lengths : Lengths
    state : sequence of str
        (L*D, B, H) each; none for zeros.

    Returns
    -------
    y : str
        (T, B, D*H); of a layer without `return_sequences`, (B, D*H).
    state : list of str
        As `state`.
    """
    L, D = layer.num_layers, 1 + layer.bidirectional
    starts = [_split(graph, s, L, D) for s in state] or [[""] * L] * len(layer.cell.states)
    ends: list[Sequence[str]] = []
    weights = layer.parameters()
    add = node if has_operator(layer) else loop
    for k in range(L):
        suffixes = [f"_l{k}{direction}" for direction in ("", "_reverse")[:D]]
        scans = [
            {n.removesuffix(s): a for n, a in weights.items() if n.endswith(s)} for s in suffixes
        ]
        x, *final = add(
            graph, layer, scans, x, f"{prefix}l{k}_", lengths, [start[k] for start in starts]
        )
        ends.append(final)
    y = x
    if not layer.return_sequences:
        y = graph.op("Transpose", ends[-1][0], perm=[1, 0, 2])
        y = graph.op("Reshape", y, graph.integers(0, -1))
    final = [s[0] if L == 1 else graph.op("Concat", *s, axis=0) for s in zip(*ends, strict=True)]
    return y, final


def has_operator(layer: Any) -> bool:
    """Return whether ONNX has an operator for a layer, of which ONNX Runtime has a kernel."""
    special = getattr(layer, "proj_size", 0) or getattr(layer, "layer_norm", False)
    return layer.dtype == np.float32 and not special


def single_step(graph: Graph, cell: Any, x: str, state: Sequence[str]) -> list[str]:
    """Add a cell, from x (B, I) and the old state, (B, H) each, to the new one."""
    first = graph.integers(0)
    steps = graph.op("Unsqueeze", x, first)
    start = [graph.op("Unsqueeze", s, first) for s in state] or [""] * len(cell.cell.states)
    add = node if has_operator(cell) else loop
    _, *final = add(graph, cell, [cell.parameters()], steps, "", Lengths(graph, "", False), start)
    return [graph.op("Squeeze", s, first) for s in final]


def _split(graph: Graph, state: str, L: int, D: int) -> list[str]:
    """Return the parts (D, B, H) of a state (L*D, B, H)."""
    return [state] if L == 1 else graph.ops("Split", L, state, graph.integers(*[D] * L), axis=0)


def node(
    graph: Graph, layer: Any, scans: Sequence[Mapping[str, Array]], x: str, name: str,
    lengths: Lengths, state: Sequence[str],
) -> list[str]:  # fmt: skip
    """Add one layer, in each direction, as :func:`loop` does."""
    operator, D = OPERATORS[layer.cell.name], len(scans)
    packed = zip(*(unpack_onnx(operator.kind, _dense(scan)) for scan in scans), strict=True)
    W, R, B, P = (
        "" if arrays[0] is None else graph.weight(np.stack(arrays), name + n)
        for n, arrays in zip("WRBP", packed, strict=True)
    )
    y, *final = graph.ops(
        operator.kind,
        1 + len(state),
        *(x, W, R, B, lengths.int32, *state, P),
        hidden_size=layer.hidden_size,
        direction="bidirectional" if D == 2 else None,
        activations=operator.activation and [operator.activation] * D,
        linear_before_reset=operator.linear_before_reset,
    )
    if D == 1:
        return [graph.op("Squeeze", y, graph.integers(1)), *final]
    y = graph.op("Transpose", y, perm=[0, 2, 1, 3])
    return [graph.op("Reshape", y, graph.integers(0, 0, -1)), *final]


def _dense(weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return weights whose `weight_hh` is a matrix."""
    R = weights["weight_hh"]
    return weights if R.ndim == 2 else {**weights, "weight_hh": np.diag(R)}
