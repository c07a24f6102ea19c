"""Masking: steps that a model leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike
from fastrnn.layers.base import Layer


class Masking(Layer):
    """The first layer of a model that leaves out padding, as ``keras.layers.Masking``.

    A ``Sequential`` that begins with it leaves out the steps of which all features are
    `mask_value`, where X is given without `lengths`. With one output per sequence they may be
    anywhere. With outputs per step they have to follow the others, outputs there are 0, and
    sequences in a list have none. The layer itself returns its input; a stream takes every step.

    Parameters
    ----------
    mask_value : float

    Raises
    ------
    ValueError, TypeError
        If `mask_value` is not a finite number.

    Examples
    --------
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.Masking(-1), fastrnn.GRU(3, 5, return_sequences=False)], seed=0
    ... )
    >>> X = np.random.default_rng(0).normal(size=(2, 7, 3)).astype("float32")
    >>> padded = X.copy()
    >>> padded[0, 4:] = -1
    >>> np.allclose(model.predict(padded)[0], model.predict(X[:1, :4]), atol=1e-6)
    True
    """

    def __init__(self, mask_value: float = 0.0) -> None:
        self._mask_value = _checks.finite(mask_value, "mask_value")

    @property
    def mask_value(self) -> float:
        """The value of all features of steps that a model leaves out."""
        return self._mask_value

    def __call__(self, x: ArrayLike) -> Array:
        """Return x unchanged.

        Parameters
        ----------
        x : array-like, any shape
            Float64 stays, everything else becomes float32.

        Returns
        -------
        y : array
        """
        return _checks.floats(x, "x")

    def forward(self, x: ArrayLike) -> tuple[Array, tuple[int, ...]]:
        """Return x unchanged, and its shape for :meth:`backward`."""
        x = self(x)
        return x, x.shape

    def backward(self, tape: tuple[int, ...], dy: ArrayLike) -> tuple[Array, dict[str, Array]]:
        """Return dy unchanged, and no gradients of weights.

        Parameters
        ----------
        tape
            From :meth:`forward` of this layer.
        dy : array-like
            In the shape of x.
        """
        if not isinstance(tape, tuple):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        return _checks.expect_shape(_checks.floats(dy, "dy"), "dy", tape), {}

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> None:
        """Return None: a stream takes every step."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        return {"mask_value": self.mask_value}

    def __repr__(self) -> str:
        return f"Masking({self.mask_value})"
