"""The gradient of a table of which only a few rows are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrnn._types import Array


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RowGradient:
    """A gradient that is 0 except in some rows.

    Attributes
    ----------
    rows : (k,) array of intp
        Indices of these rows, in ascending order.
    values : (k, D) array
        C-contiguous.
    shape : tuple of int
        (V, D), of the whole gradient.
    """

    rows: Array
    values: Array
    shape: tuple[int, int]

    def dense(self) -> Array:
        """Return the whole gradient, (V, D)."""
        whole = np.zeros(self.shape, self.values.dtype)
        whole[self.rows] = self.values
        return whole
