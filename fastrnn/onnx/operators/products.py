"""Matrix products: by our kernels where the weights are constant, which then are packed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.weights import LinearWeights
from fastrnn._types import Array
from fastrnn.onnx.registry import Node, operator


class Affine:
    """x W^T + b over the last axis of x, with packed weights.

    Parameters
    ----------
    weight : (O, I) array
    bias : (O,) array or None
    """

    def __init__(self, weight: Array, bias: Array | None) -> None:
        arrays = [np.array(a, order="C") if a is not None else None for a in (weight, bias)]
        self._weights = LinearWeights(arrays)
        self._sizes = weight.shape

    def __call__(self, x: Array, *rest: Any) -> Array:
        """Return the product."""
        O, I = self._sizes
        if x.ndim < 1 or x.shape[-1] != I or x.dtype != self._weights.dtype:
            dtype = self._weights.dtype
            raise ValueError(f"expected {dtype} of shape (..., {I}) to multiply by ({I}, {O})")
        kernels = dispatch.kernels(self._weights.dtype)
        y = np.empty((*x.shape[:-1], O), x.dtype)
        rows = _checks.array(x.reshape(-1, I), "x", x.dtype)
        kernels.linear(self._weights.packed(kernels), rows, y.reshape(-1, O))
        return y


class Turned:
    """The same, of the transpose of a matrix."""

    def __init__(self, affine: Affine) -> None:
        self._affine = affine

    def __call__(self, x: Array, *rest: Any) -> Array:
        """Return the product."""
        return self._affine(x.T)


def _packable(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.ndim == 2 and a.dtype in _checks.DTYPES and a.size > 0


def _bind_matmul(node: Node, constants: Sequence[Any]) -> Any:
    _, b = constants
    return (Affine(b.T, None), (1,)) if _packable(b) else None


@operator("MatMul", 13, growth="product", bind=_bind_matmul)
def _matmul(node: Node, a: Array, b: Array) -> Any:
    return _product(a, b)


def _product(a: Array, b: Array) -> Array:
    """Return the product of matrices; of float16 and bfloat16, as computed in float32."""
    if a.dtype.kind in "iub" or a.dtype in _checks.DTYPES:
        return np.asarray(np.matmul(a, b))
    wide = np.matmul(a.astype(np.float32), b.astype(np.float32))
    return np.asarray(wide).astype(a.dtype)


def _bind_gemm(node: Node, constants: Sequence[Any]) -> Any:
    """Return the affine map, if the weights and what is added are constant."""
    _, b, c = (*constants, None)[:3]
    if not _packable(b) or (c is None and len(node.inputs) > 2 and node.inputs[2]):
        return None
    weight = node["alpha"] * (b if node["transB"] else b.T)
    bias = None
    if c is not None:
        if c.ndim > 2 or (c.ndim == 2 and c.shape[0] != 1):
            return None
        bias = np.broadcast_to(node["beta"] * c.reshape(-1), (len(weight),)).astype(b.dtype)
    affine = Affine(weight.astype(b.dtype), bias)
    return (Turned(affine) if node["transA"] else affine), (1, 2)


@operator("Gemm", 13, growth="product", bind=_bind_gemm)
def _gemm(node: Node, a: Array, b: Array, c: Any = None) -> Any:
    a, b = a.T if node["transA"] else a, b.T if node["transB"] else b
    product = node["alpha"] * _product(a, b)
    product = product if c is None else product + node["beta"] * c
    return product.astype(a.dtype, copy=False)


@operator("Einsum", 28, growth="data")
def _einsum(node: Node, *arrays: Array) -> Any:
    equation = node["equation"].replace(" ", "")
    letters = equation.split("->")[0].split(",")
    if len(letters) != len(arrays):
        raise ValueError(f"equation: expected {len(arrays)} terms, got {equation!r}")
    if arrays[0].dtype.kind in "iuf":
        return np.einsum(equation, *arrays)
    wide = np.einsum(equation, *(a.astype(np.float32) for a in arrays))  # bfloat16
    return np.asarray(wide).astype(arrays[0].dtype)


# Quantized.


def _per_axis(a: Any, x: Array, axis: int) -> Any:
    """Return scales or zero points in a shape that broadcasts along `axis`."""
    if a is None or a.ndim == 0 or a.size == 1:
        return 0 if a is None else a.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return a.reshape(shape)


@operator("DequantizeLinear", 28, growth="kept")
def _dequantize_linear(node: Node, x: Array, scale: Array, zero: Any = None) -> Any:
    if node.get("block_size", 0):
        raise ValueError("block_size: expected 0, one scale per tensor or per index of an axis")
    axis = node.get("axis", 1)
    wide = x.astype(scale.dtype) - np.asarray(_per_axis(zero, x, axis)).astype(scale.dtype)
    return wide * _per_axis(scale, x, axis)


@operator("QuantizeLinear", 28, growth="kept")
def _quantize_linear(node: Node, x: Array, scale: Array, zero: Any = None) -> Any:
    if node.get("block_size", 0) or node.get("output_dtype", 0):
        raise ValueError("expected no block_size or output_dtype")
    axis = node.get("axis", 1)
    dtype = np.dtype(np.uint8) if zero is None else zero.dtype
    steps = np.rint(x / _per_axis(scale, x, axis)) + _per_axis(zero, x, axis)
    bounds = np.iinfo(dtype)
    return np.clip(steps, bounds.min, bounds.max).astype(dtype)


@operator("DynamicQuantizeLinear", 11, growth="broadcast")
def _dynamic_quantize_linear(node: Node, x: Array) -> Any:
    low, high = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    y = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    return y, np.asarray(scale, np.float32), np.asarray(zero)


@operator("MatMulInteger", 10, growth="product")
def _matmul_integer(node: Node, a: Array, b: Array, za: Any = None, zb: Any = None) -> Any:
    left, right = a.astype(np.int32), b.astype(np.int32)
    if za is not None:
        left = left - (za.astype(np.int32)[..., None] if za.ndim else za.astype(np.int32))
    right = right if zb is None else right - zb.astype(np.int32)
    # Exact in 53 bits, and faster than products of integers.
    return np.matmul(left.astype(np.float64), right.astype(np.float64)).astype(np.int32)
