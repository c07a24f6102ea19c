"""Streams: a time step through a chain of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fastrnn._kernels.exclusive import BUSY, FORKED, Exclusive
from fastrnn._kernels.interface import (
    AffineCache,
    Convert,
    Kernels,
    StreamStage,
    TableCache,
    WeightCache,
)
from fastrnn._kernels.reference.arrays import like, own
from fastrnn._kernels.reference.embedding import take_rows
from fastrnn._kernels.reference.functions import checked, transform
from fastrnn._kernels.reference.linear import PackedLinear, linear
from fastrnn._kernels.reference.scan import Packed, forward
from fastrnn._kernels.stepping import Sampling
from fastrnn._types import Array


class Stage:
    """A layer in a :class:`Chain`: advances B rows by one time step."""

    def __init__(self, batch_size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        #: Shapes and dtype of the rows that it reads and writes.
        self.reads, self.writes = (batch_size, *shape[:-1]), (batch_size, shape[-1])
        self.dtype = dtype

    def run(self, x: Array, y: Array) -> None:
        """Advance from x (B, I), or tokens (B,), to y (B, P)."""
        raise NotImplementedError


class Stepper(Stage):
    """A layer's state, advanced one time step at a time."""

    _kind: ClassVar[type[Any]] = Packed
    _forward: ClassVar[Callable[..., Any]] = staticmethod(forward)

    def __init__(self, weights: WeightCache, kernels: Kernels, batch_size: int) -> None:
        packed = own(weights.packed(kernels), self._kind, "weights")
        config = packed.config
        super().__init__(batch_size, (config.input_size, config.output_size), packed.dtype)
        self._weights, self._kernels = weights, kernels
        self._state = tuple(np.zeros(s, packed.dtype) for s in packed.state_shapes(batch_size))

    @property
    def state(self) -> tuple[Array, ...]:
        """(B, P) for h, (B, H) for others: zeros at first; writeable."""
        return self._state

    def run(self, x: Array, y: Array) -> None:
        """Advance from x (B, I) to y (B, P)."""
        packed = self._weights.packed(self._kernels)
        self._forward(packed, x[None], self._state, y[None], self._state)


class LinearStepper(Stage):
    """An affine map of one time step, with the parameters of `Stepper`."""

    _kind: ClassVar[type[Any]] = PackedLinear
    _linear: ClassVar[Callable[..., Any]] = staticmethod(linear)

    def __init__(self, weights: AffineCache, kernels: Kernels, batch_size: int) -> None:
        packed = own(weights.packed(kernels), self._kind, "weights")
        super().__init__(batch_size, packed.weight.shape[::-1], packed.dtype)
        self._weights, self._kernels = weights, kernels

    def run(self, x: Array, y: Array) -> None:
        """Map x (B, I) to y (B, O)."""
        self._linear(self._weights.packed(self._kernels), x, y)


class TableStepper(Stage):
    """A lookup of one time step: the rows (B, D) of a table for tokens (B,)."""

    def __init__(self, table: TableCache, batch_size: int) -> None:
        array = table.array
        super().__init__(batch_size, array.shape[1:], array.dtype)
        self._table = table

    def run(self, x: Array, y: Array) -> None:
        """Look up the rows of x (B,)."""
        take_rows(self._table.array, x, y)


class RowStepper(Stage):
    """A function of each row of one time step."""

    _transform: ClassVar[Callable[..., Any]] = staticmethod(transform)

    def __init__(
        self, table: TableCache | None, x: Array, *, function: int, a: float, b: float
    ) -> None:
        checked(x, None if table is None else table.array, function)
        self._table, self._how = table, {"function": function, "a": a, "b": b}
        super().__init__(len(x), (x.shape[1], x.shape[1]), x.dtype)

    def run(self, x: Array, y: Array) -> None:
        """Map x (B, F) to y."""
        table = None if self._table is None else self._table.array
        self._transform(x, table, y, **self._how)


class Chain(Sampling, Exclusive):
    """Layers that advance together, each of which reads what the one before it wrote."""

    def __init__(self, stages: Sequence[StreamStage], convert: Convert) -> None:
        super().__init__(BUSY, FORKED)
        self._stages = [own(stage, Stage, "stages") for stage in stages]
        if not self._stages:
            raise ValueError("stages: expected at least one")
        for i, (one, other) in enumerate(zip(self._stages, self._stages[1:], strict=False), 1):
            if one.writes != other.reads:
                raise ValueError(f"stages[{i}]: expected one that reads (B, P) = {one.writes}")
        self._buffers = [np.empty(stage.writes, stage.dtype) for stage in self._stages]
        self._convert = convert

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one step, from `x_t`; return the output, in `out` if given."""
        with self:
            x, y, result, _pins = self._convert(x_t, out)
            like(y, "out", self._buffers[-1].shape, self._buffers[-1].dtype, out=True)
            for stage, target in zip(self._stages, self._buffers, strict=True):
                stage.run(x, target)
                x = target
            # Written last, as it may overlap the input.
            y[...] = x
        return result
