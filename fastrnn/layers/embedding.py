"""Rows of a table, chosen by whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn.layers.base import Array, Layer, dtype_shown


@dataclass(slots=True, repr=False)
class EmbeddingTape:
    """What ``Embedding.backward`` needs: a copy of the indices."""

    x: Array


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
        self.dtype = _checks.dtype(dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        rng = np.random.default_rng(_checks.seed(seed))
        self._weight = rng.standard_normal(shape).astype(self.dtype)

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
        tape = EmbeddingTape(_checks.indices(x, "x", self.num_embeddings).astype(np.intp))
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
        if not isinstance(tape, EmbeddingTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dy = _checks.shaped(dy, "dy", self.dtype, (*tape.x.shape, self.embedding_dim))
        weight = np.zeros_like(self._weight)
        x = tape.x.ravel()
        if x.size:
            # Sorted, then summed run by run: in a fixed order, and faster than np.add.at.
            order = np.argsort(x, kind="stable")
            rows, starts = np.unique(x[order], return_index=True)
            sorted_dy = dy.reshape(-1, self.embedding_dim).take(order, axis=0)
            weight[rows] = np.add.reduceat(sorted_dy, starts, axis=0)
        return None, {"weight": weight}

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{dtype_shown(self.dtype)})"
