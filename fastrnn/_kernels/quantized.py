"""Weights as int8: a matrix is ``scale[:, None] * values``, with one scale for each row.

Rows that are multiplied with one are rounded to int8 as well, with a scale of their own. Sums of
products of int8 are exact, and all else is the same IEEE operations everywhere, in a fixed order:
every backend gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.interface import Kernels, PackedAffine, PackedWeights
from fastrnn._kernels.weights import Copy
from fastrnn._types import Array

#: The key of the kernel sets for such weights, in place of a dtype.
INT8 = np.dtype(np.int8)

#: The dtype of everything else: inputs, states, outputs, biases and scales.
REAL = np.dtype(np.float32)

#: The largest value: -128 is not used, so that rounding is symmetric.
MOST = 127

#: Most products of int8 whose sum is sure to fit into int32.
LONGEST = (2**31 - 1) // MOST**2

#: The ending of the name of a matrix's scales.
SCALE = "_scale"

#: A row whose entries are all smaller counts as zeros: 127 / max|x| could overflow.
TINY = 2.0**-100

#: No limit: each row is scaled by its own largest entry.
BY_ROW = math.inf

P = TypeVar("P", PackedWeights, PackedAffine)


class Limits(NamedTuple):
    """The largest inputs and hidden states, which int8 can represent; `BY_ROW` for each row's own.

    A hidden state of at most 1 by its definition needs no limit: see `least`.
    """

    x: float = BY_ROW
    h: float = BY_ROW


def matrices(cell: Cell) -> tuple[str, ...]:
    """Return the names of the weights of a cell that are matrices, and so become int8."""
    names = ("weight_ih", "weight_hh", "weight_hr")
    return tuple(
        n for n in names if n in cell.weights and (cell.recurrence == "dense" or n != "weight_hh")
    )


def least(cell: Cell, config: CellConfig) -> float:
    """Return the least that a hidden state's largest entry counts for when it is rounded.

    A state that is 1 at most by its definition always has the same scale, unless the caller's
    initial state is larger; others have 0.
    """
    return 1.0 if cell.bounded and not config.proj_size and not config.general else 0.0


def rounded(matrix: Array, name: str) -> tuple[Array, Array]:
    """Return the int8 values of a matrix (N, K), and the scales of its rows, float32.

    Raises
    ------
    ValueError
        If an entry is NaN or infinite, or rows are too long.
    """
    if matrix.shape[1] > LONGEST:
        raise ValueError(
            f"{name}: expected rows of at most {LONGEST}, whose sums of products fit into int32, "
            f"got {matrix.shape[1]}"
        )
    largest = np.abs(matrix).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError(f"{name}: expected finite numbers")
    used = np.where(largest < TINY, 0, largest)
    scale = (used / MOST).astype(REAL)
    # By the scale as it is stored. In float64, so that the quotient is rounded only once.
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.rint(matrix.astype(np.float64) / scale[:, None].astype(np.float64))
    values = np.where(scale[:, None] > 0, values, 0).clip(-MOST, MOST)
    return values.astype(INT8), scale


def read_only(array: Array) -> Array:
    """Return an array of its own memory, C-contiguous, that can't be written to."""
    array = np.array(array, array.dtype.newbyteorder("="), order="C")
    array.setflags(write=False)
    return array


class Frozen:
    """Named arrays that no one can change, and the packed copy that the kernels read.

    Parameters
    ----------
    names : sequence of str
    arrays : mapping of str to array
        Those that are present: int8 matrices, their scales, float32 vectors.
    """

    __slots__ = ("arrays", "copy", "names")

    #: The key of the kernel sets.
    dtype: ClassVar[np.dtype[Any]] = INT8
    #: The dtype of inputs, states and outputs.
    real: ClassVar[np.dtype[Any]] = REAL
    #: That of all but matrix products.
    precision = "float32"

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = {name: read_only(array) for name, array in arrays.items()}
        self.names = list(self.arrays)
        self.copy: Copy[Any] = Copy(self.precision)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.arrays,)

    def packed(self, kernels: Kernels) -> Any:
        """Return the kernels' copy."""
        copy = self.copy
        if copy.kernels is not kernels:
            copy = Copy(self.precision, kernels, self._pack(kernels))
            copy.exclusive = True
            self.copy = copy
        return copy.packed

    def _pack(self, kernels: Any) -> Any:
        """Return a packed copy."""
        raise NotImplementedError


class QuantizedWeights(Frozen):
    """Weights of one layer in one direction; each matrix is followed by its scales.

    Parameters
    ----------
    cell : Cell
    config : CellConfig
    arrays : mapping of str to array
        By the names of `cell.weights`, ``"weight_ih_scale"`` and the like, and ``"limits"`` (2,).
    """

    __slots__ = ("cell", "config", "kind")

    def __init__(self, cell: Cell, config: CellConfig, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self.cell, self.config = cell, config = cell, replace(config, matmul_precision="float32")
        self.kind = (cell, config, self.dtype)

    @classmethod
    def of(
        cls, cell: Cell, config: CellConfig, arrays: Sequence[Array | None], limits: Limits
    ) -> QuantizedWeights:
        """Quantize weights, which are in the order of `cell.weights`."""
        there = [(n, a) for n, a in zip(cell.weights, arrays, strict=False) if a is not None]
        quantized: dict[str, Array] = {}
        for name, array in there:
            if name in matrices(cell):
                quantized[name], quantized[name + SCALE] = rounded(array, name)
            else:
                quantized[name] = array.astype(REAL)
        return cls(cell, config, quantized | {"limits": np.array(limits, REAL)})

    @staticmethod
    def shapes(cell: Cell, config: CellConfig) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Return shapes and dtypes of the arrays, by name, in order."""
        found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        for name, shape in cell.weight_shapes(config).items():
            whole = name in matrices(cell)
            found[name] = shape, INT8 if whole else REAL
            if whole:
                found[name + SCALE] = shape[:1], REAL
        return found | {"limits": ((2,), REAL)}

    def __reduce__(self) -> tuple[Any, ...]:
        return QuantizedWeights, (self.cell, self.config, self.arrays)

    def _pack(self, kernels: Any) -> Any:
        arrays = self.arrays
        return kernels.Packed(
            self.cell,
            self.config,
            [arrays.get(name) for name in self.cell.weights],
            [arrays.get(name + SCALE) for name in self.cell.weights],
            Limits(*map(float, arrays["limits"])),
        )


class QuantizedAffine(Frozen):
    """`weight` (O, I), ``weight_scale`` (O,), `bias` (O,) if there is one, and `limit` (1,)."""

    __slots__ = ()

    @classmethod
    def of(cls, weight: Array, bias: Array | None, limit: float) -> QuantizedAffine:
        """Quantize an affine map."""
        values, scale = rounded(weight, "weight")
        arrays = {"weight": values, "weight" + SCALE: scale}
        if bias is not None:
            arrays["bias"] = bias.astype(REAL)
        return cls(arrays | {"limit": np.array([limit], REAL)})

    def _pack(self, kernels: Any) -> Any:
        a = self.arrays
        limit = float(a["limit"][0])
        return kernels.PackedLinear((a["weight"], a.get("bias")), a["weight" + SCALE], limit)


class FrozenRows(Frozen):
    """Rows of F numbers, in float32, as a table that the kernels read."""

    __slots__ = ("array",)

    def __init__(self, arrays: Mapping[str, Array], table: Array) -> None:
        super().__init__(arrays)
        #: (2, F).
        self.array = read_only(table)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenRows, (self.arrays, self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """(2, F)."""
        shape: tuple[int, ...] = self.array.shape
        return shape


class QuantizedTable(Frozen):
    """A table `weight` (V, D), and ``weight_scale`` (V,)."""

    __slots__ = ()

    dtype = REAL

    @property
    def shape(self) -> tuple[int, int]:
        """(V, D)."""
        V, D = self.arrays["weight"].shape
        return V, D

    @classmethod
    def of(cls, table: Array) -> QuantizedTable:
        """Quantize a table."""
        values, scale = rounded(table, "weight")
        return cls({"weight": values, "weight" + SCALE: scale})
