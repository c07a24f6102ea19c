"""LayerNorm: rows of mean 0 and variance 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.functions import Function
from fastrnn._types import Array, DTypeLike
from fastrnn.layers.base import dtype_shown
from fastrnn.layers.embedding import Table
from fastrnn.layers.row_map import RowMap


class LayerNorm(RowMap):
    """Layer normalisation over the last axis (Ba et al. 2016, eq. 4), as ``torch.nn.LayerNorm``.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, with the (biased) variance.

    Parameters
    ----------
    normalized_shape : int, or a sequence of one
        F, the size of the last axis.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there are `weight` and `bias`.
    bias : bool
        Whether there is a `bias`, if there is a `weight`.
    dtype : float32 or float64

    Raises
    ------
    ValueError, TypeError
        If a size is not a whole number above 0, or `eps` is negative.

    Examples
    --------
    >>> norm = fastrnn.LayerNorm(4)
    >>> norm([[1, 1, 3, 3]])
    array([[-0.999995, -0.999995,  0.999995,  0.999995]], dtype=float32)
    >>> {name: array.shape for name, array in norm.parameters().items()}
    {'weight': (4,), 'bias': (4,)}
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        sizes = [*normalized_shape] if isinstance(normalized_shape, list | tuple) else None
        if sizes is not None and len(sizes) != 1:
            raise ValueError(
                f"normalized_shape: expected the size of the last axis, got {normalized_shape}"
            )
        F = _checks.size(normalized_shape if sizes is None else sizes[0], "normalized_shape")
        self._eps = _checks.not_negative(eps, "eps")
        self._dtype: np.dtype[Any] = _checks.dtype(dtype)
        _checks.memory(2 * F, self._dtype, normalized_shape=F)
        self._features, affine = F, _checks.flag(elementwise_affine, "elementwise_affine")
        self._names = ("weight", "bias")[: affine + (affine and _checks.flag(bias, "bias"))]
        if affine:
            table = np.zeros((2, F), self._dtype)
            table[0] = 1
            self._table = Table(table)

    @property
    def _function(self) -> Function:
        return Function("layer_norm", self._eps)

    @property
    def normalized_shape(self) -> tuple[int, ...]:
        """(F,), the size of the last axis."""
        return (self._features,)

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return self._eps

    @property
    def elementwise_affine(self) -> bool:
        """Whether there is a `weight`."""
        return self._table is not None

    @property
    def bias(self) -> bool:
        """Whether there is a `bias`."""
        return "bias" in self._names

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of weights and results."""
        return self._dtype

    @property
    def features_in(self) -> int:
        """F."""
        return self._features

    @property
    def features_out(self) -> int:
        """F."""
        return self._features

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        first = {"weight": np.ones, "bias": np.zeros}
        return {name: first[name](self._features, self._dtype) for name in self._names}

    def parameters(self) -> dict[str, Array]:
        """Return `weight` and `bias` themselves. Changes in place take effect at the next call."""
        if self._table is None:
            return {}
        return dict(zip(self._names, self._table.share(), strict=False))

    def _gradients(self, dtable: Array) -> dict[str, Array]:
        return dict(zip(self._names, dtable, strict=False))

    def _checked(self, x: Any) -> Array:
        rows = _checks.array(x, "x", self._dtype)
        if rows.ndim == 0 or rows.shape[-1] != self._features:
            shape = _checks.shape_text(rows.shape)
            raise ValueError(f"x: expected shape (..., {self._features}), got {shape}")
        return rows

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        config = {"normalized_shape": self._features, "eps": self._eps, "bias": self.bias}
        affine = self.elementwise_affine
        return {**config, "elementwise_affine": affine, "dtype": self._dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the least number of weights in a file with a layer of this configuration."""
        F = _checks.size(config["normalized_shape"], "normalized_shape")
        return F if config.get("elementwise_affine", True) else 0

    def __repr__(self) -> str:
        options = f"({self._features},), eps={self._eps}"
        options += f", elementwise_affine={self.elementwise_affine}, bias={self.bias}"
        return f"LayerNorm({options}{dtype_shown(self._dtype)})"
