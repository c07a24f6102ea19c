"""The weights of a layer, and a packed copy of them that never goes stale."""

from __future__ import annotations

import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.interface import Kernels, PackedAffine, PackedWeights
from fastrnn._types import Array

P = TypeVar("P", PackedWeights, PackedAffine)

#: What must be the same for a tape and its weights.
Kind = tuple[Cell, CellConfig, np.dtype[Any]]


class ScanWeights(Protocol):
    """What a scan needs of its weights: their kind, and the kernels' copy of them."""

    @property
    def kind(self) -> Kind:
        """Cell, configuration and dtype."""

    def packed(self, kernels: Kernels) -> PackedWeights:
        """Return the kernels' copy of the current weights."""


def _references(arrays: Sequence[Array | None]) -> int:
    return max(sys.getrefcount(a) for a in arrays if a is not None)


#: What `_references` returns for arrays that only one tuple refers to.
_SOLE = _references((np.empty(0),))


def _owned(array: Array) -> Array:
    """Return the array itself if it owns its memory and is writeable, else a copy.

    Arrays from a file, a memory map or another process may be neither; and a view of such an array
    refers to the owner of the memory instead, which would not be counted.
    """
    flags = array.flags
    plain = type(array) is np.ndarray and flags.c_contiguous and array.dtype.isnative
    if plain and flags.owndata and flags.writeable and flags.aligned:
        return array
    return np.array(array, array.dtype.newbyteorder("="), order="C")


class Copy(Generic[P]):
    """A packed copy of weights, its kernels and precision, and whether it is `exclusive`.

    It is if no one else can change the weights.
    """

    __slots__ = ("exclusive", "kernels", "packed", "precision")

    def __init__(
        self, precision: str, kernels: Kernels | None = None, packed: P | None = None
    ) -> None:
        self.precision, self.kernels, self.packed = precision, kernels, packed
        self.exclusive = False


class Watched(ABC, Generic[P]):
    """Arrays that callers may change, and the packed copy that the kernels read.

    Callers get views, which refer to the arrays, never the arrays themselves. While no view exists,
    no one can change the arrays, and the packed copy is used as it is. As long as one exists, the
    copy is compared with the arrays before each use, and replaced if they differ.

    Parameters
    ----------
    names : sequence of str
    arrays : sequence of array or None
        Of one dtype. Kept if they own their memory, are writeable and C-contiguous; else copied.
    precision : {"float32", "bfloat16"}
        Of the operands of matrix products; see `use_precision`.

    Attributes
    ----------
    dtype : dtype
    precision : str
    copy : Copy
        The latest. If it is `exclusive`, the arrays have not changed since.
    """

    __slots__ = ("_arrays", "_names", "_pins", "_shapes", "copy", "dtype", "precision")

    def __init__(
        self, names: Sequence[str], arrays: Sequence[Array | None], precision: str
    ) -> None:
        self._arrays = tuple(None if a is None else _owned(a) for a in arrays)
        self._names = tuple(names)
        self._shapes = tuple(None if a is None else a.shape for a in arrays)
        # NumPy does not resize an array that has a weak reference.
        self._pins = [weakref.ref(a) for a in self._arrays if a is not None]
        self.dtype: np.dtype[Any] = next(a.dtype for a in self._arrays if a is not None)
        self.precision: Any = _checks.matmul_precision(precision, self.dtype)
        self.copy: Copy[P] = Copy(precision)

    @property
    def real(self) -> np.dtype[Any]:
        """Dtype of inputs, states and outputs."""
        return self.dtype

    @abstractmethod
    def _pack(self, kernels: Kernels) -> P:
        """Return a packed copy."""

    def use_precision(self, precision: str) -> None:
        """Round operands of matrix products to this precision from the next call on."""
        self.precision = _checks.matmul_precision(precision, self.dtype)
        self.copy = Copy(precision)

    @property
    def names(self) -> list[str]:
        """Names of the arrays that are present, in order."""
        return [n for n, shape in zip(self._names, self._shapes, strict=True) if shape is not None]

    def share(self) -> list[Array | None]:
        """Return views of the arrays, to read or to change in place."""
        self._expect_whole()
        views = [None if a is None else a.view() for a in self._arrays]
        # A new object, made after the views: a thread that is about to mark the old one exclusive
        # counted references too early; one that gets the new one will count the views.
        old = self.copy
        self.copy = Copy(old.precision, old.kernels, old.packed)
        return views

    def packed(self, kernels: Kernels) -> P:
        """Return the kernels' copy of the current arrays."""
        copy, precision = self.copy, self.precision
        fits = copy.kernels is kernels and copy.precision == precision
        packed = copy.packed if fits else None
        if packed is not None and copy.exclusive:
            return packed
        if packed is not None and packed.matches(self._arrays):
            if _references(self._arrays) != _SOLE:
                return packed
            # Compared again: a view that was released since could have changed them before.
            if packed.matches(self._arrays):
                copy.exclusive = True
                return packed
        self._expect_whole()
        # Free the old copy first, so that the new one can reuse its memory.
        self.copy = Copy(precision)
        del copy, packed
        packed = self._pack(kernels)
        # Not exclusive before the next use, as another thread may call `share` meanwhile.
        self.copy = Copy(precision, kernels, packed)
        return packed

    def _expect_whole(self) -> None:
        """Raise if an array was reshaped or retyped through the base of a view."""
        for name, array, shape in zip(self._names, self._arrays, self._shapes, strict=True):
            if array is None or (
                # The usual case, quickly: as it was made, and writeable.
                array.shape == shape and array.dtype is self.dtype and array.flags.carray
            ):
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
        `config` leaves out; any bias may be left out too.

    Attributes
    ----------
    kind : tuple
        Cell, configuration and dtype, which must be the same for a tape and its layer. The
        precision may differ: BPTT has that of the forward.
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
        super().__init__(cell.weights, arrays, config.matmul_precision)
        self.cell, self.config = cell, config
        self.kind: Kind = (cell, replace(config, matmul_precision="float32"), self.dtype)

    def multiplied(self, name: str, factors: Array) -> Weights:
        """Return the same weights, except that one is multiplied elementwise."""
        arrays = list(self._arrays)
        k = self._names.index(name)
        arrays[k] = arrays[k] * factors
        return Weights(self.cell, self.config, arrays)

    def use_precision(self, precision: str) -> None:
        """Round operands of matrix products to this precision from the next call on."""
        # The configuration first: a copy that another thread makes meanwhile counts as old.
        checked = _checks.matmul_precision(precision, self.dtype)
        self.config = replace(self.config, matmul_precision=checked)
        super().use_precision(precision)

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (self.cell, self.config, self.share())

    def _pack(self, kernels: Kernels) -> PackedWeights:
        return kernels.Packed(self.cell, self.config, self._arrays)


#: The latest copies of borrowed weights, by the index of the scan, with their kernels and kind.
Copies = dict[int, tuple[Kernels, Kind, PackedWeights]]


class BorrowedWeights:
    """Weights of one layer in one direction for one call, in arrays that belong to the caller.

    Anyone may have changed them since the call before, so they are compared with the latest copy.

    Parameters
    ----------
    kind : tuple
        Cell, configuration and dtype.
    arrays : sequence of array or None
        As in :class:`Weights`; C-contiguous.
    copies : dict
        Where the copy is kept from call to call; threads may share it.
    index : int
        Its key there.
    """

    __slots__ = ("_arrays", "_copies", "_index", "kind")

    def __init__(
        self, kind: Kind, arrays: Sequence[Array | None], copies: Copies, index: int
    ) -> None:
        self.kind, self._arrays, self._copies, self._index = kind, arrays, copies, index

    def packed(self, kernels: Kernels) -> PackedWeights:
        """Return the kernels' copy of the arrays."""
        of, kind, packed = self._copies.get(self._index, (None, None, None))
        if of is kernels and kind == self.kind and packed is not None:
            if packed.matches(self._arrays):
                return packed
            # Free the old copy first, so that the new one can reuse its memory.
            self._copies.pop(self._index, None)
            del packed
        cell, config, _ = self.kind
        packed = kernels.Packed(cell, config, self._arrays)
        self._copies[self._index] = (kernels, self.kind, packed)
        return packed


class LinearWeights(Watched[PackedAffine]):
    """Weight (O, I) and bias (O,) or None, of an affine map."""

    __slots__ = ()

    def __init__(self, arrays: Sequence[Array | None], precision: str = "float32") -> None:
        super().__init__(("weight", "bias"), arrays, precision)

    def __reduce__(self) -> tuple[Any, ...]:
        return LinearWeights, (self.share(), self.precision)

    def _pack(self, kernels: Kernels) -> PackedAffine:
        return kernels.PackedLinear(self._arrays, self.precision)
