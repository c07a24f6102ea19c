"""The affine map of rows, and its gradients: I numbers to O."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrnn._kernels.interface import PackedAffine
from fastrnn._types import Array


class PackedLinear:
    """An immutable copy of the weights of an affine map, as the kernels like them.

    Parameters
    ----------
    weights : pair of array
        (O, I) and, or None for no bias, (O,).
    """

    def __init__(self, weights: Sequence[Array | None]) -> None:
        weight, bias = weights
        assert weight is not None
        self.weight, self.bias = weight.copy(), None if bias is None else bias.copy()

    def matches(self, weights: Sequence[Array | None]) -> bool:
        """Whether these are still the same bits as `weights`."""
        return all(
            a is None or b is None or (a.dtype == b.dtype and a.tobytes() == b.tobytes())
            for a, b in zip((self.weight, self.bias), weights, strict=True)
        )


# As from the compiled twin, infinity and NaN come without a warning.
@np.errstate(over="ignore", invalid="ignore")
def linear(packed: PackedAffine, x: Array, y: Array) -> None:
    """Write x W^T + b to y, each row by a product of its own.

    Parameters
    ----------
    packed : PackedLinear
    x : (n, I)
    y : (n, O), out
        C-contiguous.
    """
    assert isinstance(packed, PackedLinear)
    np.matmul(x[:, None], packed.weight.T, out=y[:, None])
    if packed.bias is not None:
        y += packed.bias


@np.errstate(over="ignore", invalid="ignore")
def linear_backward(
    packed: PackedAffine, x: Array, dy: Array, dx: Array, dweight: Array, dbias: Array | None
) -> None:
    """Gradients of a :func:`linear`.

    Parameters
    ----------
    packed : PackedLinear
    x : (n, I)
    dy : (n, O)
        Gradient of y.
    dx : (n, I), out
    dweight : (O, I), out
    dbias : (O,), out, or None
        All are C-contiguous.
    """
    assert isinstance(packed, PackedLinear)
    np.matmul(dy, packed.weight, out=dx)
    np.matmul(dy.T, x, out=dweight)
    if dbias is not None:
        np.add.reduce(dy, axis=0, out=dbias)
