"""The gradient of a table of which a few rows are used, as data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastrnn._types import Array


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RowGradient:
    """A gradient that is 0 but in some rows.

    Attributes
    ----------
    rows : (k,) array of intp
        Which, in ascending order.
    values : (k, D) array
        C-contiguous.
    shape : tuple of int
        (V, D), of all of it.
    """

    rows: Array
    values: Array
    shape: tuple[int, int]

    def dense(self) -> Array:
        """The whole gradient, (V, D)."""
        found = np.zeros(self.shape, self.values.dtype)
        found[self.rows] = self.values
        return found
