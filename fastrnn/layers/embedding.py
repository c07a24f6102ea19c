"""Rows of a table, chosen by whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array
from fastrnn.layers.base import Layer, Stateless, dtype_shown


@dataclass(slots=True, repr=False)
class EmbeddingTape:
    """What ``Embedding.backward`` needs: a copy of the indices."""

    x: Array


class TableStage(Stateless):
    """Looks rows up, one for each row of the batch."""

    __slots__ = ("_table",)

    def __init__(self, table: Array) -> None:
        self._table = table

    def step(self, x: Array, out: Array) -> None:
        """Write the rows of `x` (B,) to `out`."""
        # Tokens are checked; with another mode, take makes a copy of what it writes.
        self._table.take(x, axis=0, out=out, mode="clip")


class Embedding(Layer):
    """A table of vectors, looked up by index, as ``torch.nn.Embedding``.

    Parameters
    ----------
    num_embeddings : int
        V, the rows of the table.
    embedding_dim : int
        The length of a row.
    dtype : float32 or float64
    seed : int, optional
        For the initial `weight` (num_embeddings, embedding_dim), which is N(0, 1). Default: fresh
        each time.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        self.num_embeddings = _checks.size(num_embeddings, "num_embeddings")
        self.embedding_dim = _checks.size(embedding_dim, "embedding_dim")
        self._dtype = _checks.dtype(dtype)
        V, E = self.num_embeddings, self.embedding_dim
        _checks.memory(V * E, self.dtype, num_embeddings=V, embedding_dim=E)
        self._weight = self._draw(self._first_generator(seed))["weight"]

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        shape = self.num_embeddings, self.embedding_dim
        return {"weight": rng.standard_normal(shape).astype(self.dtype)}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the table."""
        return self._dtype

    @property
    def features_out(self) -> int:
        """`embedding_dim`."""
        return self.embedding_dim

    @property
    def vocabulary(self) -> int:
        """`num_embeddings`."""
        return self.num_embeddings

    def get_config(self) -> dict[str, Any]:
        """What to call the constructor with for such a layer, as JSON has it."""
        V, E = self.num_embeddings, self.embedding_dim
        return {"num_embeddings": V, "embedding_dim": E, "dtype": self.dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """How many weights a file with a layer of this configuration holds."""
        V, E = (_checks.size(config[n], n) for n in ("num_embeddings", "embedding_dim"))
        return V * E

    def parameters(self) -> dict[str, Array]:
        """The table itself, ``weight``. Change it in place; the next call sees it."""
        return {"weight": self._weight}

    def __call__(self, x: Any) -> Array:
        """Look rows up.

        Parameters
        ----------
        x : array-like of int, any shape
            Each in 0..num_embeddings-1.

        Returns
        -------
        y : (*x.shape, embedding_dim) array
        """
        return self._weight.take(_checks.indices(x, "x", self.num_embeddings), axis=0)

    def forward(self, x: Any) -> tuple[Array, EmbeddingTape]:
        """Look rows up as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        y : (*x.shape, embedding_dim) array
        tape : EmbeddingTape
        """
        tape = EmbeddingTape(
            _checks.indices(x, "x", self.num_embeddings).astype(np.intp, order="C")
        )
        return self._weight.take(tape.x, axis=0), tape

    def backward(self, tape: EmbeddingTape, dy: Any) -> tuple[None, dict[str, Array]]:
        """Add up the gradients of each row.

        Parameters
        ----------
        tape : EmbeddingTape
            From :meth:`forward` of this layer.
        dy : (*x.shape, embedding_dim) array-like

        Returns
        -------
        dx : None
            There is none with respect to indices.
        grads : dict of str to array
            ``weight``; zero in rows that were not looked up.
        """
        x, dy = self._checked(tape, dy)
        # Of zeros that the system has, only the pages that are written to take time.
        weight = np.zeros(self._weight.shape, self.dtype)
        dispatch.kernels(self.dtype).add_rows(x, dy, None, weight)
        return None, {"weight": weight}

    def backward_by_rows(self, tape: EmbeddingTape, dy: Any) -> tuple[None, dict[str, RowGradient]]:
        """Do what :meth:`backward` does, of the rows that were looked up; not for direct use."""
        x, dy = self._checked(tape, dy)
        tokens = np.sort(x)
        # What np.unique gives, without its overhead.
        rows = tokens[np.diff(tokens, prepend=-1) > 0]
        values = np.zeros((len(rows), self.embedding_dim), self.dtype)
        dispatch.kernels(self.dtype).add_rows(x, dy, rows, values)
        shape = (self.num_embeddings, self.embedding_dim)
        return None, {"weight": RowGradient(rows, values, shape)}

    def _checked(self, tape: EmbeddingTape, dy: Any) -> tuple[Array, Array]:
        """Indices (n,), and their gradients (n, embedding_dim)."""
        if not isinstance(tape, EmbeddingTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        D = self.embedding_dim
        dy = _checks.shaped(dy, "dy", self.dtype, (*tape.x.shape, D))
        return tape.x.reshape(-1), np.ascontiguousarray(dy.reshape(-1, D))

    def apply_backward(
        self, tape: Any, dy: Array, *, for_update: bool = False, input_gradient: bool = True
    ) -> tuple[None, dict[str, Any]]:
        """Add up the gradients of each row; for an update, of the rows that were looked up."""
        return self.backward_by_rows(tape, dy) if for_update else self.backward(tape, dy)

    def stage(self, batch_size: int) -> TableStage:
        """How the layer stands in a stream."""
        return TableStage(self._weight)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{dtype_shown(self.dtype)})"
