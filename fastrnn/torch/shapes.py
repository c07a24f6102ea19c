"""How the caller's tensors lie as sequences (T, B, n): dense, one step, or packed."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fastrnn._types import Array


class Shapes(Protocol):
    """The shapes of one call's tensors."""

    @property
    def T(self) -> int:  # noqa: N802 (as everywhere)
        """Number of steps."""

    @property
    def batch(self) -> tuple[int, ...]:
        """(B,), or () for a sequence without a batch."""

    @property
    def rows(self) -> tuple[int, ...]:
        """(T, B), or the number of rows of all steps."""

    @property
    def lengths(self) -> Array | None:
        """Number of steps of each row, (B,) int64; None for all."""

    def steps(self, a: Array) -> Array:
        """Return the caller's array as (T, B, n): a view if possible."""

    def new(self, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return a new array, and it as (T, B, n) to write to."""

    def given(self, a: Array) -> Array:
        """Return what :meth:`new` returned in the form of the caller's."""

    def state(self, scans: int, n: int) -> tuple[int, ...]:
        """Return the shape of the caller's states with n units."""


class Dense:
    """All rows have all steps: (T, B, n), (B, T, n) or (T, n)."""

    __slots__ = ("T", "_batch_first", "_lead", "batch", "rows")

    lengths = None

    def __init__(self, lead: tuple[int, ...], batch_first: bool) -> None:
        self._lead, self._batch_first = lead, batch_first and len(lead) == 2
        self.T = lead[int(self._batch_first)]
        self.batch = lead[:1] if self._batch_first else lead[1:]
        self.rows = (self.T, *(self.batch or (1,)))

    def steps(self, a: Array) -> Array:
        """Return a view."""
        if not self.batch:
            return a[:, None]
        return a.swapaxes(0, 1) if self._batch_first else a

    def new(self, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return a new array and a view of it."""
        a = np.empty((*self._lead, n), dtype)
        return a, self.steps(a)

    def given(self, a: Array) -> Array:
        """Return the array itself."""
        return a

    def state(self, scans: int, n: int) -> tuple[int, ...]:
        """Return (L*D, B, n), or (L*D, n) without a batch."""
        return (scans, *self.batch, n)


class OneStep(Dense):
    """A single step, (B, n) or (n,)."""

    __slots__ = ()

    def __init__(self, batch: tuple[int, ...]) -> None:
        self._lead = self.batch = batch
        self.T, self.rows = 1, (1, *(batch or (1,)))

    def steps(self, a: Array) -> Array:
        """Return a view."""
        return a.reshape(1, -1, a.shape[-1])

    def state(self, scans: int, n: int) -> tuple[int, ...]:
        """Return (B, n) or (n,)."""
        return (*self.batch, n)


class Packed:
    """The data of a ``PackedSequence``, (N, n): the rows that run, step by step.

    Parameters
    ----------
    batch_sizes : (T,) array of int64
        How many rows run at each step: at least 1, and never more than at the step before.
    """

    __slots__ = ("T", "_at", "_size", "batch", "lengths", "rows")

    def __init__(self, batch_sizes: Array) -> None:
        self._size = self.T, B = len(batch_sizes), int(batch_sizes[0])
        self.batch, self.rows = (B,), (int(batch_sizes.sum()),)
        running = batch_sizes[:, None] > np.arange(B)
        ragged = batch_sizes[-1] < B
        #: Where the rows are among all (T*B) of padded sequences; None if there is no padding.
        self._at = np.flatnonzero(running) if ragged else None
        self.lengths = running.sum(0) if ragged else None

    def steps(self, a: Array) -> Array:
        """Return a padded copy, or a view where nothing is ragged."""
        T, B = self._size
        if self._at is None:
            return a.reshape(T, B, -1)
        padded = np.zeros((T * B, a.shape[-1]), a.dtype)
        padded[self._at] = a
        return padded.reshape(T, B, -1)

    def new(self, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Return a padded array twice."""
        a = np.empty((*self._size, n), dtype)
        return a, a

    def given(self, a: Array) -> Array:
        """Return the rows that run."""
        rows = a.reshape(-1, a.shape[-1])
        return rows if self._at is None else rows[self._at]

    def state(self, scans: int, n: int) -> tuple[int, ...]:
        """Return (L*D, B, n)."""
        return (scans, *self.batch, n)
