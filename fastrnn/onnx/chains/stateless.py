"""Layers without a state: activations, dropout, products, biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx.chains.handlers import handles
from fastrnn.onnx.chains.normalization import moment, restored
from fastrnn.onnx.chains.values import (
    Moment,
    NoChain,
    Signal,
    Widened,
    axis_of,
    signal_of,
    vector_of,
)
from fastrnn.onnx.graph import Step
from fastrnn.onnx.links import Stateless

#: Constructor's arguments from a node's attributes.
_ACTIVATIONS: dict[str, Callable[[Any], tuple[str, tuple[Any, ...]]]] = {
    "Relu": lambda node: ("ReLU", ()),
    "Tanh": lambda node: ("Tanh", ()),
    "Sigmoid": lambda node: ("Sigmoid", ()),
    "LeakyRelu": lambda node: ("Activation", ("leaky_relu", node["alpha"])),
    "Elu": lambda node: ("Activation", ("elu", node["alpha"])),
    "HardSigmoid": lambda node: ("Activation", ("hard_sigmoid", node["alpha"], node["beta"])),
    "Softplus": lambda node: ("Activation", ("softplus",)),
    "Softsign": lambda node: ("Activation", ("softsign",)),
    "ThresholdedRelu": lambda node: ("Activation", ("thresholded_relu", node["alpha"])),
}


@handles(*_ACTIVATIONS)
def _activation(step: Step, x: Any) -> Any:
    name, arguments = _ACTIVATIONS[step.node.operator.name](step.node)
    return signal_of(x).followed(Stateless(name, arguments))


@handles("Softmax", "LogSoftmax")
def _softmax(step: Step, x: Any) -> Any:
    x = signal_of(x)
    if x.features and axis_of(step.node, "axis", len(x.axes)) != len(x.axes) - 1:
        raise NoChain
    if step.node.operator.name == "Softmax":
        return x.followed(Stateless("Softmax", ()))
    return x.followed(Stateless("Activation", ("log_softmax",)))


@handles("Dropout")
def _dropout(step: Step, x: Any, ratio: Any = None, training: Any = None) -> Any:
    if training is not None and np.any(training):
        raise NoChain
    p = step.node.get("ratio", 0.5) if ratio is None else float(ratio)
    return signal_of(x).followed(Stateless("Dropout", (p,)))


@handles("MatMul")
def _matmul(step: Step, x: Any, b: Any) -> Any:
    return _affine(signal_of(x), b, None)


@handles("Gemm")
def _gemm(step: Step, x: Any, b: Any, c: Any = None) -> Any:
    node, x = step.node, signal_of(x)
    if node["transA"] or not isinstance(b, np.ndarray):
        raise NoChain
    weight = node["alpha"] * (b.T if node["transB"] else b)
    bias = None if c is None else vector_of(c, weight.shape[1]) * node["beta"]
    return _affine(x, weight.astype(b.dtype), None if bias is None else bias.astype(b.dtype))


def _affine(x: Signal, b: Any, bias: Array | None) -> Signal:
    if not isinstance(b, np.ndarray) or b.ndim != 2 or b.dtype not in _checks.DTYPES:
        raise NoChain
    I, O = b.shape
    if x.features != I:
        raise NoChain
    weights = {"weight": b.T} | ({} if bias is None else {"bias": bias})
    return x.followed(Stateless("Linear", (I, O, bias is not None), {}, weights), O)


@handles("Add", "Mul")
def _scaled(step: Step, a: Any, b: Any) -> Any:
    """Add a bias to the layer before, or weights to a normalisation; or scale by a number."""
    name = step.node.operator.name
    a, b = (b, a) if isinstance(a, np.ndarray) else (a, b)
    if isinstance(a, Moment):
        return moment(name, a, b)
    if isinstance(a, Widened):
        return replace(a, now=restored(name, a.now, b))
    x = signal_of(a)
    if not isinstance(b, np.ndarray):
        raise NoChain
    if b.size == 1 and x.features != 1:
        alpha, beta = (1.0, float(b.item())) if name == "Add" else (float(b.item()), 0.0)
        return x.followed(Stateless("Activation", ("affine", alpha, beta)))
    return x.with_weight("bias" if name == "Add" else "weight", vector_of(b, x.features))
