"""Dropout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike
from fastrnn.layers.base import Layer


def drawn_factors(
    rng: np.random.Generator, p: float, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Draw factors: 0 with probability p, else 1/(1-p)."""
    factors = (rng.random(shape, np.float32) >= np.float32(p)).astype(dtype)
    factors *= 1 / (1 - p) if p < 1 else 0
    return factors


class DropoutTape(NamedTuple):
    """What ``Dropout.backward`` needs: the factor of each element; None if all are 1."""

    factors: Array | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Dropout(Layer):
    """Zero elements with probability p, and scale the rest by 1/(1-p), as ``torch.nn.Dropout``.

    Srivastava et al. 2014, in the inverted form: only :meth:`forward` in training mode drops
    elements; a plain call, and a layer in evaluation mode, return x itself.

    Parameters
    ----------
    p : float
        Probability that an element is zeroed, 0 to 1.
    seed : int, optional
        For the choice of elements. Default: a fresh seed.

    Examples
    --------
    >>> dropout = fastrnn.Dropout(0.5, seed=0)
    >>> y, tape = dropout.forward(np.ones((1, 1000)))
    >>> np.unique(y)
    array([0., 2.])
    >>> bool((dropout(np.ones(3)) == 1).all())  # inference drops nothing
    True
    """

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        self.p = p
        self._rng = self._first_generator(seed)

    @property
    def p(self) -> float:
        """Probability that an element is zeroed."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = _checks.probability(value, "p")

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

    def forward(self, x: ArrayLike) -> tuple[Array, DropoutTape]:
        """Drop elements in training mode, and keep which for :meth:`backward`.

        Returns
        -------
        y : array
            In the shape of x.
        tape : DropoutTape
        """
        x = self(x)
        factors = None
        if self.training and self.p > 0:
            factors = drawn_factors(self._rng, self.p, x.shape, x.dtype)
        _pins = None if factors is None else _checks.pinned(x)
        return x if factors is None else x * factors, DropoutTape(factors, x.shape, x.dtype)

    def backward(self, tape: DropoutTape, dy: ArrayLike) -> tuple[Array, dict[str, Array]]:
        """Drop the same elements from the gradient.

        Parameters
        ----------
        tape : DropoutTape
            From :meth:`forward` of this layer.
        dy : array-like
            In the shape of x.

        Returns
        -------
        dx : array
        grads : dict
            Empty.
        """
        if not isinstance(tape, DropoutTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dy = _checks.shaped(dy, "dy", tape.dtype, tape.shape)
        _pins = None if tape.factors is None else _checks.pinned(dy)
        return dy if tape.factors is None else dy * tape.factors, {}

    def _start(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> None:
        """Return None: inference drops nothing."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        return {"p": self.p}

    def __repr__(self) -> str:
        return f"Dropout(p={self.p})"
