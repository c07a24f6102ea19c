"""Base class of layers that map each row alone: activations and normalisation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.functions import Function
from fastrnn._kernels.interface import Kernels
from fastrnn._types import Array, ArrayLike
from fastrnn.layers.base import Layer, Parts, Stateless
from fastrnn.layers.embedding import Table


class RowTape(NamedTuple):
    """What a layer's ``backward`` needs: the function, and copies of its table and of x."""

    function: Function
    table: Array | None
    x: Array


class RowStage(Stateless):
    """The stage of a :class:`RowMap`."""

    __slots__ = ("_function", "_kernels", "_table", "parts")

    def __init__(self, kernels: Kernels, function: Function, table: Table | None, x: Array) -> None:
        self._kernels, self._function, self._table = kernels, function, table
        self.parts = Parts(kernels, (kernels.RowStepper(table, x, **function.arguments),))

    def step(self, x: Array, out: Array) -> None:
        """Write the function of `x` (B, F) to `out`."""
        table = None if self._table is None else self._table.array
        self._kernels.transform(x, table, out, **self._function.arguments)


class RowMap(Layer):
    """A layer that applies a function to each row (..., F), or to each number."""

    #: What the function reads beside x, (2, F).
    _table: Table | None = None
    #: Whether that is in float64, whatever the dtype of x.
    _wide: ClassVar[bool] = False
    #: Initial weights are not random.
    _drawn_by = 0

    @property
    @abstractmethod
    def _function(self) -> Function:
        """The function, and its parameters."""

    def __call__(self, x: ArrayLike) -> Array:
        """Map each row. A row gives the same bits alone as in a batch.

        Parameters
        ----------
        x : (..., F) array-like
            Without a dtype of the layer's own, float64 stays, everything else becomes float32.

        Returns
        -------
        y : array
            In the shape of x.
        """
        return self._run(self._checked(x))

    def _run(self, x: Array) -> Array:
        """Return the function of a checked array."""
        return self._evaluated(x, self._function)

    def _evaluated(self, x: Array, function: Function) -> Array:
        """Return a function of an array, in its dtype."""
        y = np.empty(x.shape, x.dtype)
        if x.size:
            # The kernels pin x itself.
            _pins = None if _are_rows(x) else _checks.pinned(x)
            table = None if self._table is None else self._table.array
            self._kernels(x.dtype).transform(_rows(x), table, _rows(y), **function.arguments)
        return y

    def forward(self, x: ArrayLike) -> tuple[Array, RowTape]:
        """Map as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        y : array
            In the shape of x.
        tape : RowTape
        """
        x = _checks.copied(self._checked(x))
        table = None if self._table is None else self._table.array.copy()
        return self._run(x), RowTape(self._function, table, x)

    def backward(self, tape: RowTape, dy: ArrayLike) -> tuple[Array, dict[str, Array]]:
        """Return the gradients of the input and of the weights.

        Parameters
        ----------
        tape : RowTape
            From :meth:`forward` of this layer.
        dy : array-like
            In the shape of x.

        Returns
        -------
        dx : array
        grads : dict of str to array
            By the names of :meth:`parameters`.
        """
        function, table, x = self._own(tape)
        _pins = _checks.pinned(dy)
        dy = np.ascontiguousarray(_checks.shaped(dy, "dy", x.dtype, x.shape))
        dx = np.empty(x.shape, x.dtype)
        trained = table is not None and not self._wide
        dtable = np.zeros((2, x.shape[-1]), x.dtype) if trained else None
        if x.size:
            self._kernels(x.dtype).transform_back(
                _rows(x), table, _rows(dy), _rows(dx), dtable, **function.arguments
            )
        return dx, {} if dtable is None else self._gradients(dtable)

    def _gradients(self, dtable: Array) -> dict[str, Array]:
        """Return the gradients of the weights, from those of the table."""
        return {}

    def _own(self, tape: RowTape) -> RowTape:
        if not isinstance(tape, RowTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        own = None if self._table is None else self._table.shape
        shape = None if tape.table is None else tape.table.shape
        if tape.function != self._function or shape != own:
            raise ValueError("tape: is from the forward of another layer")
        return tape

    def _checked(self, x: Any) -> Array:
        return _checks.floats(x, "x")

    def _kernels(self, dtype: np.dtype[Any]) -> Kernels:
        return dispatch.kernels(dtype)

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> RowStage:
        """Return the layer's stage in a stream, on the current backend."""
        x = np.empty((batch_size, features), dtype)
        return RowStage(self._kernels(dtype), self._function, self._table, x)


def _are_rows(a: Array) -> bool:
    return a.ndim == 2 and a.flags.c_contiguous


def _rows(a: Array) -> Array:
    """Return an array as rows (n, F)."""
    if _are_rows(a):
        return a
    return np.ascontiguousarray(a).reshape(-1, a.shape[-1] if a.ndim else 1)
