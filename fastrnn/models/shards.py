"""Batches in fixed parts, and sums over the parts that do not depend on who computes them.

The shards of a batch are the leaves of a balanced binary tree. Every sum over them is that of the
tree, whatever the number of processes, each of which owns whole subtrees. Addition of two numbers
commutes, but a sum of more does not associate: the tree says in which order they are added.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self

import numpy as np

from fastrnn.models.ranks import Message, Ranks


def middle(first: int, end: int) -> int:
    """Return where the second half of a range of leaves, or of ranks, begins."""
    return first + (end - first) // 2


def owned(rank: int, ranks: int, shards: int) -> range:
    """Return the shards of a rank: the leaves of a subtree."""
    low, high, first, end = 0, shards, 0, ranks
    while end - first > 1:
        half, split = middle(first, end), middle(low, high)
        if rank < half:
            end, high = half, split
        else:
            first, low = half, split
    return range(low, high)


def bounds(rows: int, shards: int) -> list[slice]:
    """Return the rows of each shard of a batch, which are as many up to one."""
    ends = [rows * i // shards for i in range(shards + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


class Part:
    """A sum over some shards: of gradients in the model's dtype, and of numbers in float64."""

    def __init__(self, size: int, numbers: int, dtype: np.dtype[Any]) -> None:
        self.sums = np.zeros(size, dtype)
        self.numbers = np.zeros(numbers)

    def __iadd__(self, other: Part) -> Self:
        self.sums += other.sums
        self.numbers += other.numbers
        return self

    def messages(self, rank: int, part: slice = slice(None)) -> list[Message]:
        """Return the messages to or from a rank: a part of the gradients, and the numbers."""
        return [(rank, self.sums[part].view(np.uint8)), (rank, self.numbers.view(np.uint8))]


class Total:
    """Sums over all shards.

    Parameters
    ----------
    ranks : Ranks
    shards : int
    size : int
        Number of elements of all gradients.
    numbers : int
        How many numbers there are beside them.
    dtype : dtype
        Of the gradients.
    """

    def __init__(
        self, ranks: Ranks, shards: int, size: int, numbers: int, dtype: np.dtype[Any]
    ) -> None:
        self._ranks, self._mine = ranks, owned(ranks.rank, ranks.size, shards)
        depth = (len(self._mine) - 1).bit_length()
        self._parts = [Part(size, numbers, dtype) for _ in range(depth + 1)]
        self._received = Part(size, numbers, dtype) if ranks.size > 1 else self._parts[0]

    def sum(self, shard: Callable[[int, Part], None]) -> Part:
        """Return the sum over all shards, each of which `shard` writes to the part it is given."""
        total = self._of_subtree(shard, self._mine.start, self._mine.stop, 0)
        size = self._ranks.size
        if size & (size - 1):
            self._by_tree(total)
        elif size > 1:
            self._by_halves(total)
        return total

    def _of_subtree(
        self, shard: Callable[[int, Part], None], first: int, end: int, depth: int
    ) -> Part:
        """Return the sum over the leaves of a subtree, in the part of this depth."""
        if end - first == 1:
            shard(first, self._parts[depth])
            return self._parts[depth]
        half = middle(first, end)
        total = self._of_subtree(shard, first, half, depth)
        total += self._of_subtree(shard, half, end, depth + 1)
        return total

    def _by_tree(self, total: Part) -> None:
        """Add up the sums of the ranks at rank 0, along the tree, and send the total back."""
        transfer, received = self._ranks.transfer, self._received
        path = _path(self._ranks.rank, self._ranks.size)
        for other, sends in reversed(path):
            if sends:
                transfer(total.messages(other), [])
            else:
                transfer([], received.messages(other))
                total += received
        for other, receives in path:
            if receives:
                transfer([], total.messages(other))
            else:
                transfer(total.messages(other), [])

    def _by_halves(self, total: Part) -> None:
        """Exchange halves, quarters, ... of the gradients with ranks at distances 1, 2, 4, ...

        Each rank then has the total of one part, and the parts are exchanged in reverse order
        (Rabenseifner 2004, with the nearest rank first, which is the order of the tree).
        """
        rank, transfer, received = self._ranks.rank, self._ranks.transfer, self._received
        low, high, distance = 0, total.sums.size, 1
        exchanged: list[tuple[int, slice, slice]] = []
        while distance < self._ranks.size:
            other, split = rank ^ distance, middle(low, high)
            mine, theirs = slice(low, split), slice(split, high)
            if rank & distance:
                mine, theirs = theirs, mine
            transfer(total.messages(other, theirs), received.messages(other, mine))
            total.sums[mine] += received.sums[mine]
            total.numbers += received.numbers
            exchanged.append((other, mine, theirs))
            low, high, distance = mine.start, mine.stop, 2 * distance
        for other, mine, theirs in reversed(exchanged):
            transfer(total.messages(other, mine)[:1], total.messages(other, theirs)[:1])


def _path(rank: int, size: int) -> list[tuple[int, bool]]:
    """Return the other ranks that this one meets from the root of the tree to its leaf.

    Each is paired with whether this rank is the later of the two, which sends its sum.
    """
    met: list[tuple[int, bool]] = []
    first, end = 0, size
    while end - first > 1:
        half = middle(first, end)
        if rank < half:
            met += [(half, False)] if rank == first else []
            end = half
        else:
            met += [(first, True)] if rank == half else []
            first = half
    return met
