"""Embedding: a table of vectors, looked up by index."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array, ArrayLike, DTypeLike
from fastrnn.layers.base import Layer, Parts, Stateless, dtype_shown


class EmbeddingTape(NamedTuple):
    """What ``Embedding.backward`` needs: a copy of the indices, shape and dtype of the table."""

    x: Array
    shape: tuple[int, int]
    dtype: np.dtype[Any]


class Table:
    """The weight of an :class:`Embedding`: an array of which callers get views.

    Parameters
    ----------
    array : (V, D) array
        Copied unless it owns its memory and is writeable; unpickled or memory-mapped arrays may not
        be.
    """

    __slots__ = ("_array", "_pin", "dtype", "shape")

    def __init__(self, array: Array) -> None:
        flags = array.flags
        plain = flags.owndata and flags.writeable and flags.aligned and flags.c_contiguous
        self._array = array if plain and array.dtype.isnative else array.astype(array.dtype.type)
        self.shape: tuple[int, int] = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype
        # NumPy does not resize an array that has a weak reference.
        self._pin = weakref.ref(self._array)

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.array,)

    def share(self) -> Array:
        """Return a view, so that reshaping it does not reshape the table."""
        return self.array.view()

    @property
    def array(self) -> Array:
        """The array; raise if it was reshaped through the base of a view."""
        array = self._array
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"weight: expected the base of the layer's parameter as the layer made it, "
                f"{self.dtype} {self.shape}, got {array.dtype} {array.shape}"
            )
        return array


class TableStage(Stateless):
    """The stage of an :class:`Embedding`: looks up one row of the table per row of the batch."""

    __slots__ = ("_kernels", "_table", "parts")

    def __init__(self, table: Table, batch_size: int) -> None:
        self._kernels, self._table = dispatch.kernels(table.dtype), table
        self.parts = Parts(self._kernels, (self._kernels.TableStepper(table, batch_size),))

    def step(self, x: Array, out: Array) -> None:
        """Write the rows of `x` (B,) to `out`."""
        self._kernels.take_rows(self._table.array, _checks.whole_numbers(x, "x"), out)


class Embedding(Layer):
    """A table of vectors, looked up by index, as ``torch.nn.Embedding``.

    Parameters
    ----------
    num_embeddings : int
        V, the number of rows of the table.
    embedding_dim : int
        The length of a row.
    mask_zero : bool
        Whether token 0 is padding, as in Keras: a ``Sequential`` leaves it out, as
        :class:`fastrnn.Masking` tells. The layer itself looks it up like any other.
    dtype : float32 or float64
    seed : int, optional
        For the initial `weight` (num_embeddings, embedding_dim), which is N(0, 1). Default: a fresh
        seed.

    Raises
    ------
    ValueError, TypeError
        If a size is not a whole number above 0.

    Examples
    --------
    >>> embedding = fastrnn.Embedding(10, 3, seed=0)
    >>> y = embedding([[1, 2, 1], [4, 9, 0]])
    >>> y.shape
    (2, 3, 3)
    >>> np.array_equal(y[0, 0], y[0, 2])
    True
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mask_zero: bool = False,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        self._mask_zero = _checks.flag(mask_zero, "mask_zero")
        V = _checks.size(num_embeddings, "num_embeddings")
        D = _checks.size(embedding_dim, "embedding_dim")
        dtype = _checks.dtype(dtype)
        _checks.memory(V * D, dtype, num_embeddings=V, embedding_dim=D)
        rng = self._first_generator(seed)
        self._table = Table(rng.standard_normal((V, D)).astype(dtype))

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        return {"weight": rng.standard_normal(self._table.shape).astype(self.dtype)}

    @property
    def num_embeddings(self) -> int:
        """V, the number of rows of the table."""
        return self._table.shape[0]

    @property
    def embedding_dim(self) -> int:
        """D, the length of a row."""
        return self._table.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the table."""
        return self._table.dtype

    @property
    def features_out(self) -> int:
        """`embedding_dim`."""
        return self.embedding_dim

    @property
    def mask_zero(self) -> bool:
        """Whether token 0 is padding."""
        return self._mask_zero

    @property
    def mask_value(self) -> int | None:
        """0 with `mask_zero`, else None."""
        return 0 if self._mask_zero else None

    @property
    def vocabulary(self) -> int:
        """`num_embeddings`."""
        return self.num_embeddings

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        V, E = self.num_embeddings, self.embedding_dim
        config = {"num_embeddings": V, "embedding_dim": E, "mask_zero": self.mask_zero}
        return {**config, "dtype": self.dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the number of weights in a file with a layer of this configuration."""
        V, E = (_checks.size(config[n], n) for n in ("num_embeddings", "embedding_dim"))
        return V * E

    def parameters(self) -> dict[str, Array]:
        """Return the table itself, ``weight``. Changes in place take effect at the next call."""
        return {"weight": self._table.share()}

    def __call__(self, x: ArrayLike) -> Array:
        """Look up rows.

        Parameters
        ----------
        x : array-like of int, any shape
            Each in 0..num_embeddings-1.

        Returns
        -------
        y : (..., embedding_dim) array
        """
        return self._rows(_checks.whole_numbers(x, "x"))

    def forward(self, x: ArrayLike) -> tuple[Array, EmbeddingTape]:
        """Look up rows as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        y : (..., embedding_dim) array
        tape : EmbeddingTape
        """
        x = _checks.copied(_checks.whole_numbers(x, "x"))
        return self._rows(x), EmbeddingTape(x, self._table.shape, self.dtype)

    def _rows(self, x: Array) -> Array:
        """Return the rows with these indices, whose range the kernel checks."""
        _pins = _checks.pinned(x)
        y = np.empty((*x.shape, self.embedding_dim), self.dtype)
        rows = y.reshape(-1, self.embedding_dim)
        dispatch.kernels(self.dtype).take_rows(self._table.array, x.reshape(-1), rows)
        return y

    def backward(self, tape: EmbeddingTape, dy: ArrayLike) -> tuple[None, dict[str, Array]]:
        """Sum the gradients of each row.

        Parameters
        ----------
        tape : EmbeddingTape
            From :meth:`forward` of this layer.
        dy : (..., embedding_dim) array-like

        Returns
        -------
        dx : None
            Indices have no gradient.
        grads : dict of str to array
            ``weight``; zero in rows that were not looked up.
        """
        _pins = _checks.pinned(dy)
        x, dy = self._checked(tape, dy)
        # np.zeros is lazy: only pages that are written to cost time.
        weight = np.zeros(self._table.shape, self.dtype)
        dispatch.kernels(self.dtype).add_rows(x, dy, None, weight)
        return None, {"weight": weight}

    def apply_backward(
        self, tape: Any, dy: Array, *, for_update: bool = False, input_gradient: bool = True
    ) -> tuple[None, dict[str, Any]]:
        """Sum the gradients of each row; for an update, only of rows that were looked up."""
        if not for_update:
            return self.backward(tape, dy)
        _pins = _checks.pinned(dy)
        x, dy = self._checked(tape, dy)
        tokens = np.sort(x)
        # As np.unique, without its overhead.
        rows = tokens[np.diff(tokens, prepend=-1) > 0]
        values = np.zeros((len(rows), self.embedding_dim), self.dtype)
        dispatch.kernels(self.dtype).add_rows(x, dy, rows, values)
        return None, {"weight": RowGradient(rows, values, self._table.shape)}

    def _checked(self, tape: EmbeddingTape, dy: Any) -> tuple[Array, Array]:
        """Return indices (n,), and their gradients (n, embedding_dim)."""
        if not isinstance(tape, EmbeddingTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.shape != self._table.shape or tape.dtype != self.dtype:
            raise ValueError(
                f"tape: is from the forward of another layer, of a table {tape.dtype} {tape.shape}"
            )
        D = self.embedding_dim
        dy = _checks.shaped(dy, "dy", self.dtype, (*tape.x.shape, D))
        return tape.x.reshape(-1), np.ascontiguousarray(dy.reshape(-1, D))

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> TableStage:
        """Return the layer's stage in a stream, on the current backend."""
        return TableStage(self._table, batch_size)

    def __repr__(self) -> str:
        options = ", mask_zero=True" if self.mask_zero else ""
        options += dtype_shown(self.dtype)
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{options})"
