"""Learned initial states: where sequences start, and where they start again after resets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn._types import Array


class Segments(NamedTuple):
    """The parts of the sequences of a batch between resets, which run side by side.

    Attributes
    ----------
    row, start, steps : (S,) arrays of int
        The row of the batch, the first step and the number of steps of each.
    goes_on : (S,) array of bool
        Whether it starts from the state before the first step, and not from a reset.
    last : (B,) array of int
        The last segment of each row.
    """

    row: Array
    start: Array
    steps: Array
    goes_on: Array
    last: Array

    @classmethod
    def of(cls, reset: Array, lengths: Array | None) -> Segments:
        """Return those of resets (T, B)."""
        T, B = reset.shape
        ends = np.full(B, T) if lengths is None else lengths
        starts = reset & (np.arange(T)[:, None] < ends)
        starts[0] = True
        row, start = np.nonzero(starts.T)
        last = np.searchsorted(row, np.arange(B), side="right") - 1
        end = np.append(start[1:], 0)
        end[last] = ends
        goes_on = (start == 0) & ~reset[0, row]
        return cls(row, start, end - start, goes_on, last)

    @property
    def places(self) -> tuple[Array, Array, Array]:
        """Step and row, (M, S), of each step of the segments, and whether there is one."""
        step = np.arange(self.steps.max())[:, None]
        valid = step < self.steps
        return np.where(valid, self.start + step, 0), np.broadcast_to(self.row, valid.shape), valid

    def taken(self, a: Array) -> Array:
        """Return the steps of `a` (T, B, n) as (M, S, n); padding is 0."""
        step, row, valid = self.places
        taken = a[step, row]
        taken[~valid] = 0
        return taken

    def put(self, of_segments: Array, T: int) -> Array:
        """Return what :meth:`taken` takes from; 0 where there are no segments."""
        step, row, valid = self.places
        a = np.zeros((T, len(self.last), of_segments.shape[-1]), of_segments.dtype)
        a[step[valid], row[valid]] = of_segments[valid]
        return a

    def starting(self, given: Sequence[Array], learned: Sequence[Array]) -> list[Array]:
        """Return initial states (L, S, n) of states (L, B, n) and learned ones (L, n)."""
        return [
            np.where(self.goes_on[:, None], s[:, self.row], first[:, None])
            for s, first in zip(given, learned, strict=True)
        ]

    def ending(self, of_rows: Sequence[Array | None]) -> list[Array | None]:
        """Return gradients of the final states of segments, from those of rows (L, B, n)."""
        found: list[Array | None] = []
        for d in of_rows:
            of_segments = None
            if d is not None:
                of_segments = np.zeros((len(d), len(self.row), d.shape[-1]), d.dtype)
                of_segments[:, self.last] = d
            found.append(of_segments)
        return found

    def began(self, of_segments: Sequence[Array]) -> list[Array]:
        """Return gradients of the states of rows before the first step, (L, B, n)."""
        found = []
        for d in of_segments:
            of_rows = np.zeros((len(d), len(self.last), d.shape[-1]), d.dtype)
            of_rows[:, self.row[self.goes_on]] = d[:, self.goes_on]
            found.append(of_rows)
        return found


class StartedTape(NamedTuple):
    """What ``backward`` of a layer with a learned initial state needs from its ``forward``.

    `given` is whether the caller gave the state; `segments` are those between resets, if any.
    """

    tape: Any
    given: bool
    segments: Segments | None
    x_shape: tuple[int, ...]
    batch_first: bool
