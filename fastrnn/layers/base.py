"""What all layers have in common: named weights and a training mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array


class Layer:
    """A layer: it holds weights and a mode, and nothing of any call."""

    training: bool = True
    #: What the constructor was given. A model draws weights anew by it.
    _given: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
    #: The seed, given or fresh, that the initial weights were drawn by.
    _drawn_by: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments."""
        self = super().__new__(cls)
        self._given = args, kwargs
        return self

    def _generator(self, seed: int | None) -> np.random.Generator:
        """What draws the initial weights."""
        self._drawn_by = np.random.SeedSequence(_checks.seed(seed)).entropy
        return np.random.default_rng(self._drawn_by)

    def parameters(self) -> dict[str, Array]:
        """The weights themselves, by name. Change them in place; the next call sees it."""
        return {}

    def state_dict(self) -> dict[str, Array]:
        """A copy of the weights, by name."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Copy weights in: all of them, or, if anything is wrong, none.

        Parameters
        ----------
        mapping : mapping of str to array-like
            Names and shapes as in :meth:`parameters`; a torch ``state_dict()`` will do.

        Raises
        ------
        ValueError
            If a name is missing or unexpected, or a shape differs.
        TypeError
            If a value does not hold real numbers.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(mapping).__name__}")
        own = self.parameters()
        missing, unexpected = sorted(own.keys() - mapping.keys()), sorted(mapping.keys() - own)
        if missing or unexpected:
            raise ValueError(f"state_dict: missing {missing}, unexpected {unexpected}")
        # torch gives up its data only when detached from the graph.
        values = {n: v.detach() if hasattr(v, "detach") else v for n, v in mapping.items()}
        # Copied before any is written: the values may be this layer's own arrays.
        checked = {n: _checks.shaped(values[n], n, a.dtype, a.shape).copy() for n, a in own.items()}
        for name, array in own.items():
            array[...] = checked[name]

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation); returns the layer."""
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; returns the layer."""
        return self.train(False)


def dtype_shown(dtype: np.dtype[Any]) -> str:
    """A layer's dtype as its ``repr`` shows it: only where it is not the default."""
    return "" if dtype == np.float32 else f", dtype={dtype}"
