"""Gradients of the rows of a table."""

from __future__ import annotations

import numpy as np

from fastrnn._types import Array


# As from the compiled twin, infinity and NaN come without a warning.
@np.errstate(over="ignore", invalid="ignore")
def add_rows(x: Array, dy: Array, rows: Array | None, sums: Array) -> None:
    """Add each row of `dy` (n, D) to the row of `sums` that stands for its index in `x`.

    Parameters
    ----------
    x : (n,) array of intp
    dy : (n, D)
    rows : (k,) array of intp or None
        Ascending: what the rows of `sums` (k, D) stand for. None: they are all there.
    sums : (k, D), out
        All are C-contiguous.
    """
    if not x.size:
        return
    place = x if rows is None else np.searchsorted(rows, x)
    # Sorted, then summed run by run: in a fixed order, and faster than np.add.at.
    order = np.argsort(place, kind="stable")
    used, starts = np.unique(place[order], return_index=True)
    sums[used] += np.add.reduceat(dy.take(order, axis=0), starts, axis=0)
