"""Operators that reduce axes, and those that normalise along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.onnx.registry import Node, integers, operator, register

Reduce = Callable[..., Any]

#: ``f(x, axis=, keepdims=)``, and the newest version.
_REDUCTIONS: dict[str, tuple[int, Reduce]] = {
    "ReduceL1": (18, lambda x, **how: np.sum(np.abs(x), **how)),
    "ReduceL2": (18, lambda x, **how: np.sqrt(np.sum(np.square(x), **how))),
    "ReduceLogSum": (28, lambda x, **how: np.log(np.sum(x, **how))),
    "ReduceLogSumExp": (28, lambda x, **how: np.logaddexp.reduce(x, **how)),
    "ReduceMax": (20, lambda x, **how: np.max(x, initial=_extremes(x)[0], **how)),
    "ReduceMean": (18, lambda x, **how: np.mean(x, **how)),
    "ReduceMin": (20, lambda x, **how: np.min(x, initial=_extremes(x)[1], **how)),
    "ReduceProd": (18, np.prod),
    "ReduceSum": (13, np.sum),
    "ReduceSumSquare": (18, lambda x, **how: np.sum(np.square(x), **how)),
}


def _extremes(x: Array) -> tuple[Any, Any]:
    """Return the least and the greatest number of a dtype."""
    if x.dtype.kind in "iu":
        return np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    return (False, True) if x.dtype == bool else (-np.inf, np.inf)


def _reduction(function: Reduce) -> Callable[..., Any]:
    def run(node: Node, x: Array, axes: Any = None) -> Any:
        given = node.get("axes") if axes is None else axes
        chosen = None if given is None else tuple(integers(given, "axes"))
        if not chosen:
            chosen = () if node.get("noop_with_empty_axes", 0) else tuple(range(x.ndim))
        result = function(x, axis=chosen, keepdims=bool(node["keepdims"]))
        return np.asarray(result).astype(x.dtype, copy=False)

    return run


for _name, (_newest, _function) in _REDUCTIONS.items():
    register(_name, _newest, _reduction(_function), growth="kept")


def _extreme(find: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, x: Array) -> Any:
        axis, last = node["axis"], node.get("select_last_index", 0)
        at = find(np.flip(x, axis) if last else x, axis)
        at = np.expand_dims(x.shape[axis] - 1 - at if last else at, axis)
        return (at if node["keepdims"] else at.squeeze(axis)).astype(np.int64)

    return run


register("ArgMax", 13, _extreme(np.argmax), growth="kept")
register("ArgMin", 13, _extreme(np.argmin), growth="kept")


@operator("CumSum", 14, growth="kept")
def _cum_sum(node: Node, x: Array, axis: Array) -> Any:
    along = int(axis.reshape(()))
    turned = np.flip(x, along) if node["reverse"] else x
    sums = np.cumsum(turned, along, dtype=x.dtype)
    if node["exclusive"]:
        sums = np.roll(sums, 1, along)
        np.moveaxis(sums, along, 0)[:1] = 0
    return np.flip(sums, along) if node["reverse"] else sums


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    result: Array = e / e.sum(-1, keepdims=True)
    return result


def _hardmax(x: Array) -> Array:
    return np.asarray(np.arange(x.shape[-1]) == x.argmax(-1)[..., None])


def _along_axis(function: Callable[[Array], Array]) -> Callable[..., Any]:
    """Return it along `axis`; before opset 13, over all axes from `axis` on."""

    def run(node: Node, x: Array) -> Any:
        axis = node["axis"]
        if not x.size:
            return x
        if node.version < 13:
            axis += x.ndim if axis < 0 else 0
            lead = x.shape[:axis]
            return function(x.reshape(*lead, -1)).reshape(x.shape).astype(x.dtype, copy=False)
        y = function(np.moveaxis(x, axis, -1)).astype(x.dtype, copy=False)
        return np.moveaxis(y, -1, axis)

    return run


for _name, _along in (("Softmax", _softmax), ("LogSoftmax", _log_softmax), ("Hardmax", _hardmax)):
    register(_name, 13, _along_axis(_along), growth="kept")


@operator("LayerNormalization", 17, growth="broadcast")
def _layer_normalization(node: Node, x: Array, scale: Array, bias: Any = None) -> Any:
    axes = tuple(range(node["axis"] % x.ndim, x.ndim))
    # In float32 at least (stash_type 1), whatever the input's precision.
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    mean = wide.mean(axes, keepdims=True)
    deviation = wide - mean
    inverse = 1 / np.sqrt(np.square(deviation).mean(axes, keepdims=True) + node["epsilon"])
    y = (deviation * inverse).astype(x.dtype, copy=False) * scale
    y = y if bias is None else y + bias
    return y.astype(x.dtype, copy=False), mean, inverse.astype(mean.dtype, copy=False)


@operator("RMSNormalization", 23, growth="broadcast")
def _rms_normalization(node: Node, x: Array, scale: Array) -> Any:
    axes = tuple(range(node["axis"] % x.ndim, x.ndim))
    wide = x.astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
    rms = np.sqrt(np.square(wide).mean(axes, keepdims=True) + node["epsilon"])
    return ((wide / rms).astype(x.dtype, copy=False) * scale).astype(x.dtype, copy=False)


@operator("BatchNormalization", 15, growth="kept")
def _batch_normalization(
    node: Node, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Any:
    if node.get("training_mode", 0):
        raise ValueError("training_mode: expected 0, as models are evaluated for inference")
    if not node.get("spatial", 1):
        raise ValueError("spatial: expected 1, got 0")
    each = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    factor = scale / np.sqrt(variance + node["epsilon"])
    y = (x - mean.reshape(each)) * factor.reshape(each) + bias.reshape(each)
    return y.astype(x.dtype, copy=False)
