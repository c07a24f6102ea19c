"""Functions of each number, or of each row, in ONNX's operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._kernels.activations import Activation, activation
from fastrnn._kernels.functions import Function
from fastrnn.onnx.writing.graph import Graph

#: Operators without parameters, which ONNX Runtime has for float32 and float64.
_PLAIN = {"relu": "Relu", "sigmoid": "Sigmoid"}
_OF_ROWS = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
#: Operators that ONNX Runtime has for float32 alone, and the names of their parameters.
_OF_FLOAT32: dict[str, tuple[str, tuple[str, ...]]] = {
    "leaky_relu": ("LeakyRelu", ("alpha",)),
    "thresholded_relu": ("ThresholdedRelu", ("alpha",)),
    "hard_sigmoid": ("HardSigmoid", ("alpha", "beta")),
    "softplus": ("Softplus", ()),
    "softsign": ("Softsign", ()),
}


def activations_of(layer: Any) -> list[list[Activation]]:
    """Return the activations of the cell of each direction of a recurrent layer."""
    D = 1 + getattr(layer, "bidirectional", False)
    own = layer.cell.activations
    found = [activation(one) for one in layer.activations or own]
    found *= D * len(own) // len(found)
    return [found[k : k + len(own)] for k in range(0, len(found), len(own))]


def _of_cell(one: Activation) -> Function:
    """Return the activation of a cell as a function."""
    name, alpha, beta = one
    if name == "scaled_tanh":
        return Function("tanh", alpha, beta)
    if name == "tanh":
        return Function("tanh", 1.0, 1.0)
    return Function(name, alpha, 1.0 if name == "elu" else beta)


def applied(graph: Graph, function: Function | Activation, x: str, dtype: Any) -> str:
    """Add a function that needs no table, of an array of this dtype."""
    (name, a, b), op = function if isinstance(function, Function) else _of_cell(function), graph.op

    def number(value: float) -> str:
        return graph.weight(np.array(value, dtype), "number")

    def line(factor: float, shift: float) -> str:
        y = x if factor == 1 else op("Mul", x, number(factor))
        return y if shift == 0 else op("Add", y, number(shift))

    if name in _PLAIN:
        return op(_PLAIN[name], x)
    if name in _OF_ROWS:
        return op(_OF_ROWS[name], x, axis=-1)
    if name in _OF_FLOAT32 and dtype == np.float32:
        kind, parameters = _OF_FLOAT32[name]
        return op(kind, x, **dict(zip(parameters, (a, b), strict=False)))
    match name:
        case "affine":
            return line(a, b)
        case "clip":
            return op("Clip", x, number(a), number(b))
        case "hard_sigmoid":
            return op("Clip", line(a, b), number(0), number(1))
        case "leaky_relu":
            return op("Where", op("Less", x, number(0)), line(a, 0), x)
        case "thresholded_relu":
            return op("Where", op("LessOrEqual", x, number(a)), number(0), x)
        case "elu":
            below = op("Sub", op("Exp", op("Min", x, number(0))), number(1))
            below = op("Mul", below, number(a * b))
            return op("Where", op("Greater", x, number(0)), line(b, 0), below)
        case "tanh":
            y = op("Tanh", line(b, 0))
            return y if a == 1 else op("Mul", y, number(a))
        case "softplus":
            rest = op("Log", op("Add", op("Exp", op("Neg", op("Abs", x))), number(1)))
            return op("Add", op("Max", x, number(0)), rest)
        case "softsign":
            return op("Div", x, op("Add", op("Abs", x), number(1)))
        case "silu":
            return op("Mul", x, op("Sigmoid", x))
        case "gelu_tanh":
            cubed = op("Mul", op("Mul", op("Mul", x, x), x), number(0.044715))
            angle = op("Mul", op("Add", x, cubed), number((2 / np.pi) ** 0.5))
            half = op("Mul", x, number(0.5))
            return op("Mul", half, op("Add", op("Tanh", angle), number(1)))
    raise ValueError(f"function: expected one without a table, got {name}")
