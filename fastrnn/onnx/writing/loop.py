"""Recurrent layers that no operator of ONNX computes, as its Scan: a loop over time.

These are layers with a projection or layer normalisation, and those in float64, for which ONNX
Runtime has no kernels of RNN, LSTM and GRU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn._kernels.cells import NORM_EPS
from fastrnn._types import Array
from fastrnn.onnx.writing.functions import activations_of, applied
from fastrnn.onnx.writing.graph import Graph
from fastrnn.onnx.writing.lengths import Lengths


def loop(
    graph: Graph, layer: Any, scans: Sequence[Mapping[str, Array]], x: str, name: str,
    lengths: Lengths, state: Sequence[str],
) -> list[str]:  # fmt: skip
    """Add one layer, in each direction, from x (T, B, I) and the state, (D, B, P or H) each.

    Returns
    -------
    list of str
        y (T, B, D*P), and the final state.
    """
    valid = lengths.valid(x, batch_first=False)
    outputs = [
        _direction(
            graph, Step(graph, layer, scan, name, d), x, d, valid,
            [s and graph.op("Gather", s, graph.integer(d)) for s in state],
        )
        for d, scan in enumerate(scans)
    ]  # fmt: skip
    y, *ends = zip(*outputs, strict=True)
    stacked = [
        graph.op("Concat", *(graph.op("Unsqueeze", s, graph.integers(0)) for s in end), axis=0)
        for end in ends
    ]
    return [graph.op("Concat", *y, axis=2), *stacked]


def _direction(
    graph: Graph, step: Step, x: str, reverse: int, valid: str, state: Sequence[str]
) -> list[str]:
    """Add a loop; return y (T, B, P) and the final state, (B, P or H) each."""
    B = graph.op("Shape", x, start=1, end=2)
    start = [
        s or graph.op("Expand", graph.weight(np.zeros((1, n), step.dtype), "zeros"),
                      graph.op("Concat", B, graph.integers(n), axis=0))
        for s, n in zip(state, step.sizes, strict=True)
    ]  # fmt: skip
    given = [step.of_input(graph, x), *([valid] if valid else [])]
    body = graph.inner()
    old = [body.input(body.new_name("state"), step.dtype, ("batch", n)) for n in step.sizes]
    zx = body.input(body.new_name("step"), step.dtype, ("batch", step.rows))
    new = step(body, zx, old)
    y = new[0]
    if valid:
        runs = body.input(body.new_name("runs"), bool, ("batch", 1))
        new = [body.op("Where", runs, n, o) for n, o in zip(new, old, strict=True)]
        y = body.op("Where", runs, y, body.weight(np.zeros((), step.dtype), "zero"))
    for value, n in zip((*new, y), (*step.sizes, step.sizes[0]), strict=True):
        body.output(value, body.new_name("next"), step.dtype, ("batch", n))
    *ends, y = graph.ops(
        "Scan",
        len(new) + 1,
        *start,
        *given,
        body=body.proto("step"),
        num_scan_inputs=len(given),
        scan_input_directions=[reverse] * len(given),
        scan_output_directions=[reverse],
    )
    return [y, *ends]


class Step:
    """One step of a cell, in small operators.

    Parameters
    ----------
    graph : Graph
        Gets the weights, also those of a step inside a loop.
    layer : Recurrent or SingleStep
    weights : mapping of str to array
        Of one direction, without a suffix.
    name : str
        What their names begin with.
    d : {0, 1}
        The direction.

    Attributes
    ----------
    sizes : tuple of int
        Of the states.
    rows : int
        G*H.
    """

    def __init__(
        self, graph: Graph, layer: Any, weights: Mapping[str, Array], name: str, d: int
    ) -> None:
        self.dtype, self._weights, self._around = layer.dtype, weights, graph
        self._name = name + "reverse_" * d
        self._activations, self._clip = activations_of(layer)[d], layer.clip
        self._cell, self._H = layer.cell.name, layer.hidden_size
        self.rows = len(weights["weight_ih"])
        self._input_forget = getattr(layer, "input_forget", False)
        P = len(weights.get("weight_hr", ())) or self._H
        self.sizes = (P, *[self._H] * (len(layer.cell.states) - 1))
        #: The rows of gates that are normalised together.
        ends = np.cumsum([0, *map(len, layer.cell.norm_groups or (layer.cell.gates,))]) * self._H
        self._groups = list(map(slice, ends.tolist()[:-1], ends.tolist()[1:]))

    def of_input(self, graph: Graph, x: str) -> str:
        """Return W_ih x + b_ih, of all steps at once."""
        return self._affine(graph, x, "ih", *self._groups)

    def __call__(self, graph: Graph, zx: str, state: Sequence[str]) -> list[str]:
        """Return the new state."""
        step: Any = {"lstm": self._lstm, "gru": self._gru, "gru_reset_before": self._gru_before}
        new: list[str] = step.get(self._cell, self._rnn)(graph, zx, *state)
        return new

    def _rnn(self, graph: Graph, zx: str, h: str) -> list[str]:
        z = graph.op("Add", zx, self._affine(graph, h, "hh", *self._groups))
        return [self._activated(graph, 0, z)]

    def _gru(self, graph: Graph, zx: str, h: str) -> list[str]:
        op = graph.op
        of_x = graph.ops("Split", 3, zx, graph.integers(*[self._H] * 3), axis=-1)
        zh = self._affine(graph, h, "hh", *self._groups)
        of_h = graph.ops("Split", 3, zh, graph.integers(*[self._H] * 3), axis=-1)
        r, z = (
            self._activated(graph, 0, op("Add", *both))
            for both in zip(of_x[:2], of_h[:2], strict=True)
        )
        n = op("Add", of_x[2], op("Mul", r, of_h[2]))
        return [self._mixed(graph, z, self._activated(graph, 1, n), h)]

    def _gru_before(self, graph: Graph, zx: str, h: str) -> list[str]:
        op, H = graph.op, self._H
        rz, n = graph.ops("Split", 2, zx, graph.integers(2 * H, H), axis=-1)
        rz = op("Add", rz, self._affine(graph, h, "hh", self._groups[0]))
        rz = self._activated(graph, 0, rz)
        r, z = graph.ops("Split", 2, rz, graph.integers(H, H), axis=-1)
        n = op("Add", n, self._affine(graph, op("Mul", r, h), "hh", self._groups[1]))
        return [self._mixed(graph, z, self._activated(graph, 1, n), h)]

    def _mixed(self, graph: Graph, z: str, n: str, h: str) -> str:
        """Return (1 - z) n + z h."""
        return graph.op("Add", graph.op("Mul", self._rest(graph, z), n), graph.op("Mul", z, h))

    def _rest(self, graph: Graph, gate: str) -> str:
        """Return 1 less a gate."""
        return graph.op("Sub", self._weight(np.ones((), self.dtype), "one"), gate)

    def _activated(self, graph: Graph, which: int, z: str) -> str:
        """Return an activation of the cell; arguments of gates and candidates are clipped."""
        if self._clip is not None and which < 2:
            bounds = (np.array(bound, self.dtype) for bound in (-self._clip, self._clip))
            z = graph.op("Clip", z, *(self._weight(bound, "clip") for bound in bounds))
        return applied(graph, self._activations[which], z, self.dtype)

    def _lstm(self, graph: Graph, zx: str, h: str, c: str) -> list[str]:
        op = graph.op
        z = op("Add", zx, self._affine(graph, h, "hh", *self._groups))
        i, f, g, o = graph.ops("Split", 4, z, graph.integers(*[self._H] * 4), axis=-1)
        i = self._activated(graph, 0, self._seen(graph, (i, "i"), c))
        if self._input_forget:
            f = self._rest(graph, i)
        else:
            f = self._activated(graph, 0, self._seen(graph, (f, "f"), c))
        c = op("Add", op("Mul", f, c), op("Mul", i, self._activated(graph, 1, g)))
        o = self._activated(graph, 0, self._seen(graph, (o, "o"), c))
        shown = c
        if "gain_c" in self._weights:
            shown = self._normalised(graph, c, "c", slice(None))
        h = op("Mul", o, self._activated(graph, 2, shown))
        if "weight_hr" in self._weights:
            h = op("MatMul", h, self._matrix("weight_hr"))
        return [h, c]

    def _seen(self, graph: Graph, gate: tuple[str, str], c: str) -> str:
        """Return the sum of a gate, given by that and its name, with its peephole."""
        z, name = gate[0], f"weight_c{gate[1]}"
        if name not in self._weights:
            return z
        return graph.op("Add", z, graph.op("Mul", c, self._weight(self._weights[name], name)))

    def _affine(self, graph: Graph, a: str, of: str, *groups: slice) -> str:
        """Return W a + b, or of a normalised layer gain LN(W a) + b, of groups of gates."""
        rows = slice(groups[0].start, groups[-1].stop)
        name = f"weight_{of}"
        if self._weights[name].ndim == 2:
            z = graph.op("MatMul", a, self._matrix(name, rows))
        else:
            z = graph.op("Mul", a, self._weight(self._weights[name], name))
        if f"gain_{of}" in self._weights:
            sizes = [group.stop - group.start for group in groups]
            parts = graph.ops("Split", len(groups), z, graph.integers(*sizes), axis=-1)
            normed = [
                self._normalised(graph, part, of, group)
                for part, group in zip(parts, groups, strict=True)
            ]
            return graph.op("Concat", *normed, axis=-1)
        bias = self._weights.get(f"bias_{of}")
        return z if bias is None else graph.op("Add", z, self._weight(bias[rows], f"bias_{of}"))

    def _normalised(self, graph: Graph, a: str, of: str, rows: slice) -> str:
        """Return gain LN(a) + b, with these rows of gain and b."""
        gain = self._weight(self._weights[f"gain_{of}"][rows], f"gain_{of}")
        bias = self._weights.get(f"bias_{of}")
        b = "" if bias is None else self._weight(bias[rows], f"bias_{of}")
        return graph.op("LayerNormalization", a, gain, b, axis=-1, epsilon=NORM_EPS)

    def _matrix(self, name: str, rows: slice = slice(None)) -> str:
        """Return rows of a matrix, as columns, which int8 is widened to."""
        values = self._weight(self._weights[name][rows].T, f"{name}_T")
        scale = self._weights.get(f"{name}_scale")
        if scale is None:
            return values
        return self._around.widened(values, self._weight(scale[rows], f"{name}_scale"))

    def _weight(self, array: Array, name: str) -> str:
        return self._around.weight(np.ascontiguousarray(array), self._name + name)
