"""Layers other than recurrent ones: over the last axis of any array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastrnn.layers import Dropout, Embedding, Linear, Masking
from fastrnn.onnx.writing.graph import Graph


def embedding(graph: Graph, layer: Embedding, x: str, prefix: str) -> str:
    """Add the lookup of tokens, int64."""
    return graph.op("Gather", graph.weight(layer.parameters()["weight"], f"{prefix}weight"), x)


def linear(graph: Graph, layer: Linear, x: str, prefix: str) -> str:
    """Add an affine map."""
    weights = layer.parameters()
    transposed = weights["weight"].T.copy()
    y = graph.op("MatMul", x, graph.weight(transposed, f"{prefix}weight_T"))
    if not layer.bias:
        return y
    return graph.op("Add", y, graph.weight(weights["bias"], f"{prefix}bias"))


def unchanged(graph: Graph, layer: Dropout | Masking, x: str, prefix: str) -> str:
    """Return the input: inference drops nothing, and lengths are in place of masks."""
    return x


#: By the layer's class; a layer of a class derived from one may do anything.
WRITERS: dict[type, Callable[[Graph, Any, str, str], str]] = {
    Embedding: embedding,
    Linear: linear,
    Dropout: unchanged,
    Masking: unchanged,
}
