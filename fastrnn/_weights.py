"""The weights of one layer in one direction, and their packed copy, which never goes stale."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fastrnn import _dispatch
from fastrnn._cells import Cell

Array = np.ndarray[Any, np.dtype[Any]]


def _references(arrays: Sequence[Array | None]) -> int:
    return max(sys.getrefcount(a) for a in arrays if a is not None)


#: What `_references` says of arrays that nobody but one tuple refers to.
_SOLE = _references((np.empty(0),))


class Weights:
    """Weights of one layer, and the copy of them that the kernels read.

    While nobody outside holds one of the arrays (or a view of one), no one can change them, and the
    packed copy is taken as it is. From the moment one is handed out, the copy is compared with the
    arrays before each use, and packed anew where they differ.

    Parameters
    ----------
    cell : Cell
    arrays : sequence of array or None
        In the order of ``_cells.WEIGHTS``; C-contiguous, of one dtype. A bias may be None.
    """

    __slots__ = ("_arrays", "_packed", "cell", "shared")

    def __init__(self, cell: Cell, arrays: Sequence[Array | None]) -> None:
        self.cell = cell
        self._arrays = tuple(arrays)
        self._packed: tuple[ModuleType, Any] | None = None
        self.shared = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Weights, (self.cell, self._arrays)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays."""
        array = self._arrays[0]
        assert array is not None
        return array.dtype

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Shapes of the arrays."""
        return tuple(None if a is None else a.shape for a in self._arrays)

    def share(self) -> tuple[Array | None, ...]:
        """The arrays themselves, to read or to change in place."""
        self.shared = True
        return self._arrays

    def packed(self, kernels: ModuleType | None = None) -> Any:
        """The kernels' copy of the weights as they are now.

        Parameters
        ----------
        kernels : module, optional
            Default: those of the current backend.
        """
        kernels = kernels or _dispatch.kernels(self.dtype)
        cached = self._packed
        known = cached is not None and cached[0] is kernels
        if self.shared or not known:
            # Asked before comparing: who lets go later could still change them first.
            shared = _references(self._arrays) > _SOLE
            if not (known and cached is not None and cached[1].matches(self._arrays)):
                cached = (kernels, kernels.Packed(self.cell, self._arrays))
                self._packed = cached
            self.shared = shared
        assert cached is not None
        return cached[1]
