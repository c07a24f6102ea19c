"""Conversion of a caller's arrays for a step of the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.interface import Convert
from fastrnn._types import Array


def converter(
    batch_size: int,
    input_size: int,
    output_size: int,
    dtype: np.dtype[Any],
    *,
    vocabulary: int | None = None,
) -> Convert:
    """Return a function that checks and converts the arrays of a step from (B, I) to (B, P).

    (I,) and (P,) are accepted too if B is 1. With a `vocabulary` V, the input is (B,) tokens below
    it, or a single one.
    """
    B, I, P = batch_size, input_size, output_size

    def convert(x: Any, out: Any) -> tuple[Array, Array, Array, Any]:
        """Return (B, I) or (B,) to read, (B, P) to write, that as to be returned, and pins."""
        if vocabulary is None:
            x = _checks.array(x, "x_t", dtype)
        else:
            x = _checks.whole_numbers(_checks.indices(x, "x_t", vocabulary), "x_t")
        single = B == 1 and x.ndim == (vocabulary is None)
        rows = () if single else (B,)
        pins = None if rows and x.flags.c_contiguous else _checks.pinned(x, out)
        features = (I,) if vocabulary is None else ()
        x = np.ascontiguousarray(_checks.expect_shape(x, "x_t", (*rows, *features)))
        shape = (*rows, P)
        y = np.empty(shape, dtype) if out is None else _checks.writable(out, "out", dtype, shape)
        return (x.reshape(B, *features), y.reshape(B, P), y, pins) if single else (x, y, y, pins)

    return convert
