"""Layer normalisation, as one node and as nine, and features that are standardised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastrnn.onnx.chains.handlers import handles
from fastrnn.onnx.chains.values import (
    Moment,
    NoChain,
    Signal,
    Widened,
    axis_of,
    integers,
    no_chain,
    signal_of,
    vector_of,
)
from fastrnn.onnx.graph import Step
from fastrnn.onnx.links import Stateless


@handles("LayerNormalization")
def _layer_normalization(step: Step, x: Any, scale: Any, bias: Any = None) -> Any:
    node, x = step.node, signal_of(x)
    if axis_of(node, "axis", len(x.axes)) != len(x.axes) - 1 or len(step.node.outputs) > 1:
        raise NoChain
    link = _norm(x, node["epsilon"]).with_vector("weight", vector_of(scale, x.features))
    if link is not None and bias is not None:
        link = link.with_vector("bias", vector_of(bias, x.features))
    return x.followed(link) if link is not None else no_chain()


def _norm(x: Signal, eps: float) -> Stateless:
    return Stateless("LayerNorm", (x.features,), {"eps": eps, "elementwise_affine": False})


@handles("ReduceMean")
def _mean(step: Step, x: Any, axes: Any = None) -> Any:
    given = integers(step.node.get("axes") if axes is None else axes)
    of = x.of if isinstance(x, Moment) else signal_of(x)
    if len(given) != 1 or given[0] % len(of.axes) != len(of.axes) - 1 or not step.node["keepdims"]:
        raise NoChain
    if isinstance(x, Moment):
        return replace(x, stage="variance") if x.stage == "square" else no_chain()
    return Moment(of, "mean") if of.features else no_chain()


def moment(name: str, a: Moment, b: Any) -> Any:
    """Return the next part of a layer normalisation: a product or a sum."""
    if name == "Mul" and a.stage == "centered" and b is a:
        return replace(a, stage="square")
    if name == "Add" and a.stage == "variance" and isinstance(b, np.ndarray) and b.size == 1:
        return replace(a, stage="shifted", eps=float(b.item()))
    raise NoChain


@handles("Sub", "Pow", "Div", "Sqrt")
def _normalising(step: Step, a: Any, b: Any = None) -> Any:
    name = step.node.operator.name
    if name == "Sub" and isinstance(b, Moment) and b.stage == "mean" and a is b.of:
        return replace(b, stage="centered")
    if isinstance(a, Widened):
        return replace(a, now=_standardised(name, a.now, b))
    if not isinstance(a, Moment):
        return _standardised(name, signal_of(a), b)
    if name == "Pow" and a.stage == "centered" and isinstance(b, np.ndarray) and np.all(b == 2):
        return replace(a, stage="square")
    if name == "Sqrt" and a.stage == "shifted":
        return replace(a, stage="deviation")
    centered = isinstance(b, Moment) and a.of is b.of and a.stage == "centered"
    if name == "Div" and centered and b.stage == "deviation":
        return a.of.followed(_norm(a.of, b.eps))
    raise NoChain


def _standardised(name: str, x: Signal, b: Any) -> Signal:
    """Subtract the mean of each feature, or divide by its deviation."""
    vector = vector_of(b, x.features)
    if name == "Sub":
        given = {"mean": vector, "variance": np.ones(x.features), "dtype": vector.dtype}
        return x.followed(Stateless("Normalization", (), given))
    if name != "Div":
        raise NoChain
    return x.with_weight("deviation", vector)


def restored(name: str, x: Signal, b: Any) -> Signal:
    """Multiply by the deviation of each feature, then add its mean."""
    vector = vector_of(b, x.features)
    if name == "Mul":
        given = {"mean": np.zeros(x.features), "variance": np.square(vector)}
        return x.followed(Stateless("Normalization", (), {**given, "invert": True}))
    link = x.links[-1] if x.links else None
    if not isinstance(link, Stateless) or not link.options.get("invert"):
        raise NoChain
    if link.options["mean"].any():
        raise NoChain
    last = replace(link, options={**link.options, "mean": vector})
    return replace(x, links=(*x.links[:-1], last))
