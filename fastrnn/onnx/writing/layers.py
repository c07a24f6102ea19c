"""Layers other than recurrent ones: over the last axis of any array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from fastrnn._kernels.functions import Function
from fastrnn._kernels.quantized import MOST, TINY
from fastrnn.layers import (
    Activation,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Masking,
    Normalization,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from fastrnn.layers.activation import ACTIVATIONS
from fastrnn.layers.quantized import QuantizedEmbedding, QuantizedLinear, QuantizedRowMap
from fastrnn.onnx.writing.functions import applied
from fastrnn.onnx.writing.graph import Graph


def embedding(graph: Graph, layer: Embedding, x: str, prefix: str, dtype: Any) -> str:
    """Add the lookup of tokens, int64."""
    return graph.op("Gather", graph.weight(layer.parameters()["weight"], f"{prefix}weight"), x)


def quantized_embedding(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add the lookup of tokens in a table of int8, and of their scales."""
    table = layer.parameters()
    values = graph.op("Gather", graph.weight(table["weight"], f"{prefix}weight"), x)
    scales = graph.weight(table["weight_scale"][:, None], f"{prefix}weight_scale")
    return graph.widened(values, graph.op("Gather", scales, x))


def linear(graph: Graph, layer: Linear, x: str, prefix: str, dtype: Any) -> str:
    """Add an affine map."""
    weights = layer.parameters()
    transposed = weights["weight"].T.copy()
    y = graph.op("MatMul", x, graph.weight(transposed, f"{prefix}weight_T"))
    if not layer.bias:
        return y
    return graph.op("Add", y, graph.weight(weights["bias"], f"{prefix}bias"))


def quantized_linear(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add an affine map of int8: rows of x are rounded as they are here, with the same numbers."""
    op, weights = graph.op, layer.parameters()
    tiny, one, of_int8, least = (
        graph.weight(np.array(value, np.float32), f"{prefix}{name}")
        for name, value in {"tiny": TINY, "one": 1, "most": MOST, "least": -MOST}.items()
    )
    if np.isinf(weights["limit"][0]):
        most = op("ReduceMax", op("Abs", x), axes=[-1])
    else:
        most = graph.weight(weights["limit"], f"{prefix}limit")
    # Only rows of zeros are divided by 1; NaN and infinity stay in their rows.
    inverse = op("Div", of_int8, op("Where", op("Less", most, tiny), one, most))
    q = op("Round", op("Clip", op("Mul", x, inverse), least, of_int8))
    transposed = graph.weight(weights["weight"].T.copy(), f"{prefix}weight_T")
    sums = op("MatMulInteger", op("Cast", q, to=onnx.TensorProto.INT8), transposed)
    scale = graph.weight(weights["weight_scale"], f"{prefix}weight_scale")
    # Not by the product of both scales: ONNX Runtime takes that for one scale of all rows.
    y = op("Mul", graph.widened(sums, scale), op("Div", most, of_int8))
    return op("Add", y, graph.weight(weights["bias"], f"{prefix}bias")) if layer.bias else y


def unchanged(graph: Graph, layer: Dropout | Masking, x: str, prefix: str, dtype: Any) -> str:
    """Return the input: inference drops nothing, and lengths are in place of masks."""
    return x


def activation(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add a function of each number, or a softmax."""
    like = _like(layer)
    usual = ACTIVATIONS[like.function].function
    a, b = (usual.a if like.alpha is None else like.alpha), like.beta
    return applied(graph, Function(usual.name, a, usual.b if b is None else b), x, dtype)


def layer_norm(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add a layer normalisation."""
    like = _like(layer)
    weights = {"weight": np.ones(like.normalized_shape, dtype), **layer.parameters()}
    scale, *bias = (graph.weight(array, prefix + name) for name, array in weights.items())
    return graph.op("LayerNormalization", x, scale, *bias, axis=-1, epsilon=like.eps)


def normalization(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add the scaling of features, which is computed in float64."""
    like, op = _like(layer), graph.op
    mean = graph.weight(like.mean, f"{prefix}mean")
    deviation = graph.weight(like.deviation, f"{prefix}deviation")
    wide = op("Cast", x, to=onnx.TensorProto.DOUBLE)
    if like.invert:
        y = op("Add", op("Mul", wide, deviation), mean)
    else:
        y = op("Div", op("Sub", wide, mean), deviation)
    return op("Cast", y, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def quantized_row_map(graph: Graph, layer: Any, x: str, prefix: str, dtype: Any) -> str:
    """Add a function of each row, in float32 as it is in a float model."""
    return WRITERS[type(layer.like)](graph, layer, x, prefix, dtype)


def _like(layer: Any) -> Any:
    """Return what has a layer's options: the float layer that it was quantized from, or itself."""
    return layer.like if layer.quantized else layer


#: By the layer's class: of a class derived from one, it may do anything.
WRITERS: dict[type, Callable[[Graph, Any, str, str, Any], str]] = {
    Embedding: embedding,
    LayerNorm: layer_norm,
    Normalization: normalization,
    **dict.fromkeys((Activation, ReLU, Tanh, Sigmoid, Softmax), activation),
    Linear: linear,
    Dropout: unchanged,
    Masking: unchanged,
    QuantizedEmbedding: quantized_embedding,
    QuantizedLinear: quantized_linear,
    QuantizedRowMap: quantized_row_map,
}
