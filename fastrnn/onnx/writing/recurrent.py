"""Recurrent layers as ONNX's operators RNN, LSTM and GRU, one node for each of a layer's L."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn._kernels.activations import ACTIVATIONS
from fastrnn._types import Array
from fastrnn.layouts import unpack_onnx
from fastrnn.onnx.writing.functions import activations_of
from fastrnn.onnx.writing.graph import MICROSOFT, Graph
from fastrnn.onnx.writing.lengths import Lengths
from fastrnn.onnx.writing.loop import loop

#: ONNX's operator for each cell. IndRNN is an RNN with a diagonal matrix.
OPERATORS = {
    "rnn_tanh": "RNN",
    "rnn_relu": "RNN",
    "indrnn_tanh": "RNN",
    "indrnn_relu": "RNN",
    "lstm": "LSTM",
    "gru": "GRU",
    "gru_reset_before": "GRU",
}
#: The activations that these operators have by themselves.
USUAL = {"RNN": ("tanh",), "LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}


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
    add = _writer(layer)
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


def _writer(layer: Any) -> Callable[..., list[str]]:
    """Return what adds such a layer: as an operator of which ONNX Runtime has a kernel, or a loop.

    It takes graph, layer, weights of each direction, x (T, B, I), a prefix of names, lengths and
    the state, (D, B, P or H) each, and returns y (T, B, D*P) and the final state.
    """
    like = layer.like if layer.quantized else layer
    special = getattr(like, "proj_size", 0) or getattr(like, "layer_norm", False)
    if special or layer.dtype != np.float32:
        return loop
    return quantized_node if layer.quantized and layer.cell.name == "lstm" else node


def single_step(graph: Graph, cell: Any, x: str, state: Sequence[str]) -> list[str]:
    """Add a cell, from x (B, I) and the old state, (B, H) each, to the new one."""
    first = graph.integers(0)
    steps = graph.op("Unsqueeze", x, first)
    start = [graph.op("Unsqueeze", s, first) for s in state] or [""] * len(cell.cell.states)
    _, *final = _writer(cell)(
        graph, cell, [cell.parameters()], steps, "", Lengths(graph, "", False), start
    )
    return [graph.op("Squeeze", s, first) for s in final]


def _split(graph: Graph, state: str, L: int, D: int) -> list[str]:
    """Return the parts (D, B, H) of a state (L*D, B, H)."""
    return [state] if L == 1 else graph.ops("Split", L, state, graph.integers(*[D] * L), axis=0)


def node(
    graph: Graph, layer: Any, scans: Sequence[Mapping[str, Array]], x: str, name: str,
    lengths: Lengths, state: Sequence[str],
) -> list[str]:  # fmt: skip
    """Add one layer, in each direction, as one node. Weights in int8 become floats there."""
    kind = OPERATORS[layer.cell.name]
    W, R, B, P = (
        "" if array is None else graph.weight(array, name + n)
        for n, array in zip("WRBP", _stacked(kind, scans), strict=True)
    )
    if layer.quantized:
        W, R = (
            graph.widened(values, graph.weight(scale[..., None], f"{name}{n}_scale"))
            for values, n, scale in zip((W, R), "WR", _scales(kind, scans), strict=True)
        )
    return _merged(graph, len(scans), graph.ops(
        kind,
        1 + len(state),
        *(x, W, R, B, lengths.int32, *state, P),
        **_attributes(layer, kind),
        linear_before_reset=int(layer.cell.name == "gru") if kind == "GRU" else None,
    ))  # fmt: skip


def quantized_node(
    graph: Graph, layer: Any, scans: Sequence[Mapping[str, Array]], x: str, name: str,
    lengths: Lengths, state: Sequence[str],
) -> list[str]:  # fmt: skip
    """Add one LSTM layer, in each direction, as ONNX Runtime's DynamicQuantizeLSTM."""
    W, R, B, P = _stacked("LSTM", scans)
    assert W is not None
    assert R is not None
    scales = _scales("LSTM", scans)
    zero = graph.weight(np.zeros(scales[0].shape, np.int8), f"{name}zero_point")
    weights = {"W": W.swapaxes(1, 2), "R": R.swapaxes(1, 2), "B": B, "P": P}
    weights |= {"W_scale": scales[0], "R_scale": scales[1]}
    at = {
        n: "" if a is None else graph.weight(np.ascontiguousarray(a), name + n)
        for n, a in weights.items()
    }
    return _merged(graph, len(scans), graph.ops(
        "DynamicQuantizeLSTM",
        1 + len(state),
        *(x, at["W"], at["R"], at["B"], lengths.int32, *state, at["P"]),
        *(at["W_scale"], zero, at["R_scale"], zero),
        domain=MICROSOFT,
        **_attributes(layer, "LSTM"),
    ))  # fmt: skip


def _attributes(layer: Any, kind: str) -> dict[str, Any]:
    """Return the attributes that all operators have; None for those with their default."""
    of_directions = activations_of(layer)
    found, D = [one for each in of_directions for one in each], len(of_directions)
    usual = [one.name for one in found] == [*USUAL[kind]] * D
    # Each takes its alpha and beta, if it has any, from the front of the lists.
    alphas = [one.alpha for one in found if ACTIVATIONS[one.name][:1]]
    betas = [one.beta for one in found if ACTIVATIONS[one.name][1:]]
    return {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if D == 2 else None,
        "activations": None if usual else [_onnx_name(one.name) for one in found],
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
        "clip": layer.clip,
        "input_forget": 1 if getattr(layer, "input_forget", False) else None,
    }


def _onnx_name(name: str) -> str:
    """Return ONNX's name of an activation: HardSigmoid for hard_sigmoid."""
    return name.title().replace("_", "")


def _merged(graph: Graph, D: int, outputs: Sequence[str]) -> list[str]:
    """Return the outputs of a node with y (T, B, D*H) for Y (T, D, B, H)."""
    y, *final = outputs
    if D == 1:
        return [graph.op("Squeeze", y, graph.integers(1)), *final]
    y = graph.op("Transpose", y, perm=[0, 2, 1, 3])
    return [graph.op("Reshape", y, graph.integers(0, 0, -1)), *final]


def _stacked(kind: str, scans: Sequence[Mapping[str, Array]]) -> list[Array | None]:
    """Return W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) and P (D, 3*H), None if it is absent."""
    packed = zip(*(unpack_onnx(kind, _dense(scan)) for scan in scans), strict=True)
    return [None if arrays[0] is None else np.stack(arrays) for arrays in packed]


def _scales(kind: str, scans: Sequence[Mapping[str, Array]]) -> list[Array]:
    """Return the scales of the rows of W and R, (D, G*H) each."""
    ones = [np.ones_like(scan["weight_ih_scale"]) for scan in scans]  # of an IndRNN's floats
    both = [
        # Ordered as biases are.
        {**_dense(scan), "bias_ih": scan["weight_ih_scale"],
         "bias_hh": scan.get("weight_hh_scale", one)}
        for scan, one in zip(scans, ones, strict=True)
    ]  # fmt: skip
    of_both = _stacked(kind, both)[2]
    assert of_both is not None
    return np.split(of_both, 2, axis=1)


def _dense(weights: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return weights whose `weight_hh` is a matrix."""
    R = weights["weight_hh"]
    return weights if R.ndim == 2 else {**weights, "weight_hh": np.diag(R)}
