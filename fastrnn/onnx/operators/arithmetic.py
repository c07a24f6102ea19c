"""Operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.onnx import reading
from fastrnn.onnx.registry import Node, operator, register

#: The functions of one argument that need no attribute, and the newest version of each.
_UNARY: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "Abs": (13, np.abs),
    "Ceil": (13, np.ceil),
    "Cos": (22, np.cos),
    "Erf": (13, lambda x: np.frompyfunc(math.erf, 1, 1)(x)),
    "Exp": (13, np.exp),
    "Floor": (13, np.floor),
    "HardSwish": (22, lambda x: x * _between(x / 6 + 0.5, 0, 1)),
    "Log": (13, np.log),
    "Mish": (22, lambda x: x * np.tanh(np.logaddexp(x, 0))),
    "Neg": (13, np.negative),
    "Reciprocal": (13, lambda x: 1 / x),
    "Relu": (14, lambda x: np.where(x < 0, 0, x)),
    "Round": (22, np.rint),
    "Sigmoid": (13, lambda x: sigmoid(x)),
    "Sign": (13, np.sign),
    "Sin": (22, np.sin),
    "Softplus": (22, lambda x: np.logaddexp(x, 0)),
    "Softsign": (22, lambda x: x / (1 + np.abs(x))),
    "Sqrt": (13, np.sqrt),
    "Tan": (22, np.tan),
    "Tanh": (13, np.tanh),
}

#: Likewise with attributes.
_SHAPED: dict[str, tuple[int, Callable[..., Any]]] = {
    "Celu": (28, lambda node, x: _elu(x, node["alpha"], 1 / node["alpha"])),
    "Elu": (22, lambda node, x: _elu(x, node["alpha"])),
    "HardSigmoid": (22, lambda node, x: _between(node["alpha"] * x + node["beta"], 0, 1)),
    "LeakyRelu": (16, lambda node, x: np.where(x < 0, node["alpha"] * x, x)),
    "Selu": (22, lambda node, x: node["gamma"] * _elu(x, node["alpha"])),
    "Swish": (24, lambda node, x: x * sigmoid(node["alpha"] * x)),
    "ThresholdedRelu": (22, lambda node, x: np.where(x <= node["alpha"], 0, x)),
}

_BINARY: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "Add": (14, np.add),
    "And": (7, np.logical_and),
    "Div": (14, lambda a, b: _quotient(a, b)),
    "Equal": (19, np.equal),
    "Greater": (13, np.greater),
    "GreaterOrEqual": (16, np.greater_equal),
    "Less": (13, np.less),
    "LessOrEqual": (16, np.less_equal),
    "Mul": (14, np.multiply),
    "Or": (7, np.logical_or),
    "Pow": (15, lambda a, b: np.power(a, b).astype(a.dtype, copy=False)),
    "PRelu": (16, lambda x, slope: np.where(x < 0, slope * x, x)),
    "Sub": (14, np.subtract),
    "Xor": (7, np.logical_xor),
}

_MANY: dict[str, tuple[int, Callable[..., Any]]] = {
    "Max": (13, np.maximum),
    "Min": (13, np.minimum),
    "Sum": (13, np.add),
}


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e)) / (1 + e)


def _between(x: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _elu(x: Any, alpha: float, scale: float = 1.0) -> Any:
    return np.where(x < 0, alpha * np.expm1(scale * np.minimum(x, 0)), x)


def _quotient(a: Array, b: Array) -> Any:
    """Return a / b; of integers, rounded towards 0."""
    if a.dtype.kind not in "iu":
        return a / b
    quotient = np.floor_divide(a, b)
    if a.dtype.kind == "u":
        return quotient
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0)))


def _of_one(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, x: Array) -> Any:
        return np.asarray(function(x)).astype(x.dtype, copy=False)

    return run


def _of_one_shaped(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, x: Array) -> Any:
        return np.asarray(function(node, x)).astype(x.dtype, copy=False)

    return run


def _of_two(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, a: Array, b: Array) -> Any:
        result = np.asarray(function(a, b))
        return result if result.dtype == bool else result.astype(a.dtype, copy=False)

    return run


def _of_many(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *arrays: reduce(function, arrays)


def _register(
    functions: dict[str, tuple[int, Any]], wrap: Callable[..., Callable[..., Any]], growth: str
) -> None:
    for name, (newest, function) in functions.items():
        register(name, newest, wrap(function), growth=growth)


_register(_UNARY, _of_one, "kept")
_register(_SHAPED, _of_one_shaped, "kept")
_register(_BINARY, _of_two, "broadcast")
_register(_MANY, _of_many, "broadcast")


@operator("Mean", 13, growth="broadcast")
def _mean(node: Node, *arrays: Array) -> Any:
    total = reduce(np.add, arrays)
    return (total / len(arrays)).astype(arrays[0].dtype, copy=False)


@operator("Mod", 28, growth="broadcast")
def _mod(node: Node, a: Array, b: Array) -> Any:
    return np.fmod(a, b) if node["fmod"] else np.mod(a, b)


@operator("Not", 1, growth="kept")
def _not(node: Node, x: Array) -> Any:
    return np.logical_not(x)


@operator("IsNaN", 20, growth="kept")
def _is_nan(node: Node, x: Array) -> Any:
    return np.isnan(x)


@operator("IsInf", 20, growth="kept")
def _is_inf(node: Node, x: Array) -> Any:
    wanted = (x > 0) * bool(node["detect_positive"]) + (x < 0) * bool(node["detect_negative"])
    return np.isinf(x) & wanted


@operator("Where", 16, growth="broadcast")
def _where(node: Node, condition: Array, a: Array, b: Array) -> Any:
    return np.where(condition, a, b)


@operator("Clip", 13, growth="kept")
def _clip(node: Node, x: Array, low: Any = None, high: Any = None) -> Any:
    if node.version < 11:
        low, high = node.get("min"), node.get("max")
    x = x if low is None else np.maximum(x, np.asarray(low).reshape(()).astype(x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high).reshape(()).astype(x.dtype))


@operator("Gelu", 20, growth="kept")
def _gelu(node: Node, x: Array) -> Any:
    inner: Any
    if node.get("approximate") == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = np.asarray(np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2))).astype(x.dtype)
    return (0.5 * x * (1 + inner)).astype(x.dtype, copy=False)


@operator("Cast", 28, growth="kept")
def _cast(node: Node, x: Array) -> Any:
    return _converted(x, reading.dtype_of(node["to"], "to"))


@operator("CastLike", 25, growth="kept")
def _cast_like(node: Node, x: Array, like: Array) -> Any:
    return _converted(x, like.dtype)


def _converted(x: Array, dtype: np.dtype[Any]) -> Array:
    if object in (x.dtype, dtype) and x.dtype != dtype:
        raise ValueError(f"expected numbers cast to numbers, got {x.dtype} to {dtype}: strings")
    return x.astype(dtype, copy=False)


@operator("Identity", 25, growth="kept")
def _identity(node: Node, x: Any) -> Any:
    return x


@operator("Dropout", 22, growth="kept")
def _dropout(node: Node, x: Array, ratio: Any = None, training: Any = None) -> Any:
    """Return x and a mask of ones: inference drops nothing."""
    if training is not None and np.asarray(training).any():
        raise ValueError("training_mode: expected false, as models are evaluated for inference")
    return x, np.ones(x.shape, bool if node.version >= 10 else x.dtype)
