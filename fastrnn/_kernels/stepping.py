"""Conversion of a caller's arrays for a step of the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.interface import Convert
from fastrnn._types import Array


def converter(batch_size: int, input_size: int, output_size: int, dtype: np.dtype[Any]) -> Convert:
    """Return a function that checks and converts the arrays of a step from (B, I) to (B, P).

    (I,) and (P,) are accepted too if B is 1.
    """
    B, I, P = batch_size, input_size, output_size

    def convert(x: Any, out: Any) -> tuple[Array, Array, Array, Any]:
        """Return (B, I) to read, (B, P) to write, the latter in the shape to return, and pins."""
        x = _checks.array(x, "x_t", dtype)
        rows = () if B == 1 and x.ndim == 1 else (B,)
        pins = None if rows and x.flags.c_contiguous else _checks.pinned(x, out)
        x = np.ascontiguousarray(_checks.expect_shape(x, "x_t", (*rows, I)))
        shape = (*rows, P)
        y = np.empty(shape, dtype) if out is None else _checks.writable(out, "out", dtype, shape)
        return (x, y, y, pins) if rows else (x[None], y[None], y, pins)

    return convert
