"""The weights of a layer, and their packed copy, which never goes stale."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.interface import Kernels, PackedAffine, PackedWeights
from fastrnn._types import Array


def _references(arrays: Sequence[Array | None]) -> int:
    return max(sys.getrefcount(a) for a in arrays if a is not None)


#: What `_references` says of arrays that nobody but one tuple refers to.
_SOLE = _references((np.empty(0),))


P = TypeVar("P", PackedWeights, PackedAffine)


class Copy(Generic[P]):
    """A packed copy of weights: whose kernels', and whether no one can change the weights now."""

    __slots__ = ("kernels", "packed", "settled")

    def __init__(self, kernels: Kernels | None = None, packed: P | None = None) -> None:
        self.kernels, self.packed, self.settled = kernels, packed, False


class Watched(ABC, Generic[P]):
    """Arrays that anyone may change, and the copy of them that the kernels read.

    While nobody outside holds one of the arrays (or a view of one), no one can change them, and the
    packed copy is taken as it is. From the moment one is handed out, the copy is compared with the
    arrays before each use, and packed anew where they differ.

    Parameters
    ----------
    arrays : sequence of array or None
        C-contiguous, of one dtype.

    Attributes
    ----------
    dtype : dtype
    copy : Copy
        The latest. A `settled` one is still the arrays as they are.
    """

    __slots__ = ("_arrays", "copy", "dtype")

    def __init__(self, arrays: Sequence[Array | None]) -> None:
        # A view of an array that does not own its memory (unpickling makes such) refers to the
        # owner and not to the array, and would not be counted.
        self._arrays = tuple(a if a is None or a.flags.owndata else a.copy() for a in arrays)
        self.dtype: np.dtype[Any] = next(a.dtype for a in arrays if a is not None)
        self.copy: Copy[P] = Copy()

    @abstractmethod
    def _pack(self, kernels: Kernels) -> P:
        """A packed copy."""

    def share(self) -> list[Array | None]:
        """The arrays themselves, to read or to change in place."""
        arrays = list(self._arrays)
        # A new object, after the references are taken: a thread that is about to settle the old
        # one counted too early, and one that finds the new one counts them.
        old = self.copy
        self.copy = Copy(old.kernels, old.packed)
        return arrays

    def packed(self, kernels: Kernels | None = None) -> P:
        """The kernels' copy of the arrays as they are now.

        Parameters
        ----------
        kernels : Kernels, optional
            Default: those of the current backend.
        """
        kernels = kernels or dispatch.kernels(self.dtype)
        copy = self.copy
        packed = copy.packed if copy.kernels is kernels else None
        if packed is not None and copy.settled:
            return packed
        # Asked before comparing: who lets go later could still change them first.
        sole = _references(self._arrays) == _SOLE
        if packed is not None and packed.matches(self._arrays):
            copy.settled = sole
            return packed
        # Let go of the old one first: the new one is then packed where that one was.
        self.copy = Copy()
        del copy, packed
        packed = self._pack(kernels)
        # Not settled before the next use, for another thread may share between these lines.
        self.copy = Copy(kernels, packed)
        return packed


class Weights(Watched[PackedWeights]):
    """Weights of one layer in one direction.

    Parameters
    ----------
    cell : Cell
    config : CellConfig
    arrays : sequence of array or None
        In the order of `cell.weights`; C-contiguous, of one dtype. None, or missing at the end,
        for those that `config` leaves out; so may each bias be.

    Attributes
    ----------
    kind : tuple
        Cell, configuration and dtype: what a tape and its layer must have in common.
    """

    __slots__ = ("cell", "config", "kind")

    def __init__(self, cell: Cell, config: CellConfig, arrays: Sequence[Array | None]) -> None:
        shapes = cell.weight_shapes(config)
        arrays = (*arrays, *[None] * (len(cell.weights) - len(arrays)))
        for name, array in zip(cell.weights, arrays, strict=True):
            if array is not None:
                _checks.expect_shape(array, name, shapes.get(name, ()))
            elif name in shapes and not name.startswith("bias"):
                raise ValueError(f"{name}: expected shape {shapes[name]}, got None")
        super().__init__(arrays)
        self.cell, self.config = cell, config
        self.kind = (cell, config, self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (self.cell, self.config, self._arrays)

    def _pack(self, kernels: Kernels) -> PackedWeights:
        return kernels.Packed(self.cell, self.config, self._arrays)

    @property
    def names(self) -> list[str]:
        """Of the weights that are there, in order."""
        there = zip(self.cell.weights, self._arrays, strict=True)
        return [name for name, array in there if array is not None]


class LinearWeights(Watched[PackedAffine]):
    """Weight (O, I) and bias (O,), or None for none, of an affine map."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return LinearWeights, (self._arrays,)

    def _pack(self, kernels: Kernels) -> PackedAffine:
        return kernels.PackedLinear(self._arrays)
