"""The affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn.layers.base import Array, Layer, dtype_shown


@dataclass(slots=True, repr=False)
class LinearTape:
    """What ``Linear.backward`` needs: copies of the input and of the weight."""

    x: Array
    weight: Array


class Linear(Layer):
    """y = x W^T + b over the last axis, as ``torch.nn.Linear``.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
        Whether there is a `bias`.
    dtype : float32 or float64
    seed : int, optional
        For the initial `weight` (out_features, in_features) and `bias` (out_features,), which are
        uniform in +-1/sqrt(in_features). Default: fresh each time.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        self.in_features = _checks.size(in_features, "in_features")
        self.out_features = _checks.size(out_features, "out_features")
        self.bias = bool(bias)
        self.dtype = _checks.dtype(dtype)
        rng = np.random.default_rng(_checks.seed(seed))
        bound = self.in_features**-0.5
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        self._parameters = {
            name: rng.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in shapes.items()
            if self.bias or name != "bias"
        }

    def parameters(self) -> dict[str, Array]:
        """``weight`` and ``bias`` themselves. Change them in place; the next call sees it."""
        return dict(self._parameters)

    def __call__(self, x: Any) -> Array:
        """Map the last axis: each row by a product of its own.

        That gives a row the same bits alone and among others.

        Parameters
        ----------
        x : (..., in_features) array-like

        Returns
        -------
        y : (..., out_features) array
        """
        x = self._checked(x)
        y = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        self.map_rows(x.reshape(-1, self.in_features), y.reshape(-1, self.out_features))
        return y

    def map_rows(self, rows: Array, out: Array) -> None:
        """Do what a plain call does, from (n, in_features) into (n, out_features).

        Nothing is checked; not for direct use.
        """
        np.matmul(rows[:, None], self._parameters["weight"].T, out=out[:, None])
        if self.bias:
            out += self._parameters["bias"]

    def forward(self, x: Any) -> tuple[Array, LinearTape]:
        """Map, and keep what :meth:`backward` needs.

        All rows are mapped by one product, which is faster for many of them, and may differ from a
        plain call in the last bits.

        Returns
        -------
        y : (..., out_features) array
        tape : LinearTape
        """
        x = self._checked(x)
        weight = self._parameters["weight"]
        rows = x.reshape(-1, self.in_features) @ weight.T
        if self.bias:
            rows += self._parameters["bias"]
        y = rows.reshape((*x.shape[:-1], self.out_features))
        return y, LinearTape(x.copy(), weight.copy())

    def backward(self, tape: LinearTape, dy: Any) -> tuple[Array, dict[str, Array]]:
        """Gradients of the input and of the weights.

        Parameters
        ----------
        tape : LinearTape
            From :meth:`forward` of this layer.
        dy : (..., out_features) array-like

        Returns
        -------
        dx : (..., in_features) array
        grads : dict of str to array
            By the names of :meth:`parameters`.
        """
        if not isinstance(tape, LinearTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.weight.shape != self._parameters["weight"].shape or tape.x.dtype != self.dtype:
            raise ValueError("tape: is from the forward of another layer")
        dy = _checks.shaped(dy, "dy", self.dtype, (*tape.x.shape[:-1], self.out_features))
        rows, drows = tape.x.reshape(-1, self.in_features), dy.reshape(-1, self.out_features)
        grads = {"weight": drows.T @ rows}
        if self.bias:
            grads["bias"] = np.add.reduce(drows, axis=0)
        return (drows @ tape.weight).reshape(tape.x.shape), grads

    def _checked(self, x: Any) -> Array:
        found = _checks.array(x, "x", self.dtype)
        if found.ndim == 0 or found.shape[-1] != self.in_features:
            shape = _checks.shape_text(found.shape)
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {shape}")
        return found

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias}{dtype_shown(self.dtype)})"
