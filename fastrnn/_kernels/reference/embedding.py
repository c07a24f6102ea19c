"""Lookup of the rows of a table, and its gradient."""

from __future__ import annotations

import numpy as np

from fastrnn._kernels.reference import arrays
from fastrnn._types import Array


@arrays.pinning
def take_rows(table: Array, x: Array, y: Array) -> None:
    """Write the rows of `table` with the indices `x` to `y`."""
    dtype = arrays.real_type(table, "table")
    if table.ndim != 2:
        arrays.refuse(table, "table", f"a C-contiguous {dtype} array (V, D)")
    arrays.integers(x, "x")
    arrays.like(y, "y", (x.size, table.shape[1]), dtype, out=True)
    V = len(table)
    x = x.copy()  # checked and used: no one else can change it
    arrays.refuse_strays((x < 0) | (x >= V), x, "x", f"whole numbers in 0..{V - 1}")
    y[...] = table[x]


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(all="ignore")
def add_rows(x: Array, dy: Array, rows: Array | None, sums: Array) -> None:
    """Add each row of `dy` (n, D) to the row of `sums` for its index in `x`."""
    dtype = arrays.real_type(sums, "sums", out=True)
    if sums.ndim != 2:
        arrays.refuse(sums, "sums", f"a C-contiguous {dtype} array (k, D)")
    k, D = sums.shape
    arrays.integers(x, "x")
    arrays.like(dy, "dy", (x.size, D), dtype)
    if rows is not None:
        arrays.integers(rows, "rows")
        arrays.integers(rows, "rows", (k,))
    if not x.size:
        return
    x = x.copy()  # checked and used: no one else can change it
    if rows is None:
        place, expected = x, f"whole numbers in 0..{k - 1}"
        strays = (x < 0) | (x >= k)
    else:
        place, expected = np.searchsorted(rows, x), "whole numbers in rows"
        strays = place >= k
        strays |= rows.take(place, mode="clip") != x if k else True
    arrays.refuse_strays(strays, x, "x", expected)
    # Sorted, then summed run by run: in a fixed order, and faster than np.add.at.
    order = np.argsort(place, kind="stable")
    used, starts = np.unique(place[order], return_index=True)
    sums[used] += np.add.reduceat(dy.take(order, axis=0), starts, axis=0)
