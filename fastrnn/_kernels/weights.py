"""The weights of a layer, and their packed copy, which never goes stale."""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.interface import Kernels, PackedAffine, PackedWeights
from fastrnn._types import Array

P = TypeVar("P", PackedWeights, PackedAffine)


def _references(arrays: Sequence[Array | None]) -> int:
    return max(sys.getrefcount(a) for a in arrays if a is not None)


#: What `_references` says of arrays that nobody but one tuple refers to.
_SOLE = _references((np.empty(0),))


def _owned(array: Array) -> Array:
    """The array itself if it owns its memory and can be changed, else a copy.

    What comes from a file, a memory map or another process is neither; and a view of it refers to
    whoever owns the memory, and would not be counted.
    """
    flags = array.flags
    plain = type(array) is np.ndarray and flags.c_contiguous and array.dtype.isnative
    if plain and flags.owndata and flags.writeable and flags.aligned:
        return array
    return np.array(array, array.dtype.newbyteorder("="), order="C")


class Copy(Generic[P]):
    """A packed copy of weights: whose kernels', and whether no one can change the weights now."""

    __slots__ = ("exclusive", "kernels", "packed")

    def __init__(self, kernels: Kernels | None = None, packed: P | None = None) -> None:
        self.kernels, self.packed, self.exclusive = kernels, packed, False


class Watched(ABC, Generic[P]):
    """Arrays that anyone may change, and the copy of them that the kernels read.

    The arrays are never handed out, but views of them, which refer to them. While there is no view,
    no one can change the arrays, and the packed copy is taken as it is. As long as there is one,
    the copy is compared with the arrays before each use, and packed anew where they differ.

    Parameters
    ----------
    names : sequence of str
    arrays : sequence of array or None
        Of one dtype. Kept as they are if they own their memory, can be changed and are
        C-contiguous; else copied.

    Attributes
    ----------
    dtype : dtype
    copy : Copy
        The latest. An `exclusive` one is still the arrays as they are.
    """

    __slots__ = ("_arrays", "_names", "_pins", "_shapes", "copy", "dtype")

    def __init__(self, names: Sequence[str], arrays: Sequence[Array | None]) -> None:
        self._arrays = tuple(None if a is None else _owned(a) for a in arrays)
        self._names = tuple(names)
        self._shapes = tuple(None if a is None else a.shape for a in arrays)
        # NumPy does not resize an array that has a weak reference.
        self._pins = [weakref.ref(a) for a in self._arrays if a is not None]
        self.dtype: np.dtype[Any] = next(a.dtype for a in self._arrays if a is not None)
        self.copy: Copy[P] = Copy()

    @abstractmethod
    def _pack(self, kernels: Kernels) -> P:
        """A packed copy."""

    @property
    def names(self) -> list[str]:
        """Of the arrays that are there, in order."""
        return [n for n, shape in zip(self._names, self._shapes, strict=True) if shape is not None]

    def share(self) -> list[Array | None]:
        """Views of the arrays, to read or to change in place."""
        self._expect_whole()
        views = [None if a is None else a.view() for a in self._arrays]
        # A new object, after the references are taken: a thread that is about to call the old one
        # exclusive counted too early, and one that finds the new one counts them.
        old = self.copy
        self.copy = Copy(old.kernels, old.packed)
        return views

    def packed(self, kernels: Kernels) -> P:
        """The kernels' copy of the arrays as they are now."""
        copy = self.copy
        packed = copy.packed if copy.kernels is kernels else None
        if packed is not None and copy.exclusive:
            return packed
        # Asked before comparing: who lets go later could still change them first.
        sole = _references(self._arrays) == _SOLE
        if packed is not None and packed.matches(self._arrays):
            copy.exclusive = sole
            return packed
        self._expect_whole()
        # Let go of the old one first: the new one is then packed where that one was.
        self.copy = Copy()
        del copy, packed
        packed = self._pack(kernels)
        # Not exclusive before the next use, for another thread may share between these lines.
        self.copy = Copy(kernels, packed)
        return packed

    def _expect_whole(self) -> None:
        """Raise if somebody has reached through a view for its base and made it another array."""
        for name, array, shape in zip(self._names, self._arrays, self._shapes, strict=True):
            if array is None:
                continue
            if array.shape != shape or array.dtype != self.dtype or not array.flags.c_contiguous:
                raise ValueError(
                    f"{name}: expected the base of the layer's parameter as the layer made it, "
                    f"{self.dtype} {shape}, got {array.dtype} {array.shape}"
                )
            if not array.flags.writeable:
                array.setflags(write=True)


class Weights(Watched[PackedWeights]):
    """Weights of one layer in one direction.

    Parameters
    ----------
    cell : Cell
    config : CellConfig
    arrays : sequence of array or None
        In the order of `cell.weights`, of one dtype. None, or missing at the end, for those that
        `config` leaves out; so may each bias be.

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
        super().__init__(cell.weights, arrays)
        self.cell, self.config = cell, config
        self.kind = (cell, config, self.dtype)

    def multiplied(self, name: str, factors: Array) -> Weights:
        """The same weights but for one, which is multiplied elementwise."""
        arrays = list(self._arrays)
        k = self._names.index(name)
        arrays[k] = arrays[k] * factors
        return Weights(self.cell, self.config, arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (self.cell, self.config, self.share())

    def _pack(self, kernels: Kernels) -> PackedWeights:
        return kernels.Packed(self.cell, self.config, self._arrays)


class LinearWeights(Watched[PackedAffine]):
    """Weight (O, I) and bias (O,), or None for none, of an affine map."""

    __slots__ = ()

    def __init__(self, arrays: Sequence[Array | None]) -> None:
        super().__init__(("weight", "bias"), arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return LinearWeights, (self.share(),)

    def _pack(self, kernels: Kernels) -> PackedAffine:
        return kernels.PackedLinear(self._arrays)
