"""The affine map of rows, from I features to O, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.cells import MatmulPrecision
from fastrnn._kernels.interface import PackedAffine
from fastrnn._kernels.reference import arrays
from fastrnn._kernels.reference.product import operand
from fastrnn._types import Array


class PackedLinear:
    """An immutable copy of the weights of an affine map, in the layout of the kernels."""

    def __init__(
        self, weights: Sequence[Array | None], matmul_precision: MatmulPrecision = "float32"
    ) -> None:
        weight, bias = weights
        # The copies are checked, since no one else can change them.
        self.weight, self.bias = arrays.copied(weight, "weight"), None
        self.dtype = dtype = arrays.real_type(self.weight, "weight")
        if self.weight.ndim != 2 or self.weight.size == 0:
            arrays.refuse(self.weight, "weight", f"a C-contiguous {dtype} array (O, I)")
        if bias is not None:
            self.bias = arrays.copied(bias, "bias")
            arrays.like(self.bias, "bias", self.weight.shape[:1], dtype)
        self.precision = _checks.matmul_precision(matmul_precision, dtype)

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Return whether the copy has the same bits as `weights`."""
        return arrays.same_bits((self.weight, self.bias), weights)


def _unpacked(packed: PackedAffine) -> tuple[Array, Array | None, MatmulPrecision]:
    """Return weight, bias and the precision of products."""
    if not isinstance(packed, PackedLinear):
        raise TypeError(f"packed: expected a PackedLinear, got {type(packed).__name__}")
    return packed.weight, packed.bias, packed.precision


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(all="ignore")
def linear(packed: PackedAffine, x: Array, y: Array) -> None:
    """Write x W^T + b to y, each row by a product of its own."""
    weight, bias, precision = _unpacked(packed)
    (O, I), dtype = weight.shape, weight.dtype
    n = arrays.rows_of(x, "x", I, dtype)
    arrays.like(y, "y", (n, O), dtype, out=True)
    np.matmul(operand(x, precision)[:, None], operand(weight, precision).T, out=y[:, None])
    if bias is not None:
        y += bias


@arrays.pinning
@np.errstate(all="ignore")
def linear_backward(
    packed: PackedAffine,
    x: Array,
    dy: Array,
    dx: Array | None,
    dweight: Array,
    dbias: Array | None,
) -> None:
    """Write the gradients of a :func:`linear`."""
    weight, _, precision = _unpacked(packed)
    (O, I), dtype = weight.shape, weight.dtype
    n = arrays.rows_of(x, "x", I, dtype)
    arrays.like(x, "x", (n, I), dtype)
    arrays.like(dy, "dy", (n, O), dtype)
    if dx is not None:
        arrays.like(dx, "dx", (n, I), dtype, out=True)
    arrays.like(dweight, "dweight", (O, I), dtype, out=True)
    if dbias is not None:
        arrays.like(dbias, "dbias", (O,), dtype, out=True)
    if dbias is not None:
        np.add.reduce(dy, axis=0, out=dbias)
    dy = operand(dy, precision)
    if dx is not None:
        np.matmul(dy, operand(weight, precision), out=dx)
    np.matmul(dy.T, operand(x, precision), out=dweight)
