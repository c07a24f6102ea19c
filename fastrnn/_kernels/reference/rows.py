"""Row masks of a batch, and checks of the sequences and states of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._kernels.reference.arrays import is_plain, like, refuse
from fastrnn._types import Array


def check_sequence(
    array: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, out: bool = False
) -> None:
    """Raise unless it is an array (T, B, n) whose last axis is contiguous."""
    size = dtype.itemsize
    if not (
        is_plain(array, dtype, out=out)
        and array.shape == shape
        and (shape[2] == 1 or array.strides[2] == size or not array.size)
        and all(stride % size == 0 for stride in array.strides)
    ):
        refuse(array, name, f"a {dtype} array {shape} whose last axis is contiguous")


def checked_states(
    states: Sequence[Any],
    name: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype[Any],
    *,
    out: bool = False,
) -> tuple[Any, ...]:
    """Return the states, C-contiguous arrays of these shapes, or None unless `out`."""
    given = tuple(states)
    if len(given) != len(shapes):
        raise ValueError(f"{name}: expected {len(shapes)} arrays, got {len(given)}")
    for array, shape in zip(given, shapes, strict=True):
        if array is not None or out:
            like(array, name, shape, dtype, out=out)
    return given


def checked_reset(reset: Any, T: int, B: int) -> Array | None:
    """Return a copy of `reset`, (T, B) booleans or None."""
    if reset is None:
        return None
    if not (is_plain(reset, np.dtype(bool)) and reset.shape == (T, B)):
        refuse(reset, "reset", f"a bool array ({T}, {B})")
    copy: Array = reset.copy()
    return copy


def running_rows(spans: Any, T: int, B: int) -> Array | None:
    """Return which rows run at which step, (T, B) booleans; None for all."""
    if spans is None:
        return None
    if not (
        is_plain(spans, np.dtype(np.int64)) and spans.flags.c_contiguous and spans.shape == (2, B)
    ):
        refuse(spans, "spans", f"a C-contiguous int64 array (2, {B})")
    begin, end = spans.copy()
    if not (
        ((begin == begin[0]).all() and begin[0] <= 0) or ((end == end[0]).all() and end[0] >= T)
    ):
        raise ValueError(f"spans: expected that all start at 0 or all end at {T}, got {spans}")
    t = np.arange(T)[:, None]
    running: Array = (begin <= t) & (t < end)
    return running


def checked_scan(
    packed: Any,
    x: Any,
    state: Sequence[Any],
    y: Any,
    state_n: Sequence[Any],
    spans: Any,
    reset: Any,
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...], Array | None, Array | None]:
    """Return x with zeros as padding, the first states, `state_n`, running rows and resets."""
    config, dtype = packed.config, packed.dtype
    I, P = config.input_size, config.output_size
    if not is_plain(x, dtype) or x.ndim != 3 or not x.shape[1]:
        refuse(x, "x", f"a {dtype} array (T, B, {I}), B at least 1,")
    T, B, _ = x.shape
    check_sequence(x, "x", (T, B, I), dtype)
    if y is not None:
        check_sequence(y, "y", (T, B, P), dtype, out=True)
    shapes = packed.state_shapes(B)
    state = checked_states(state, "state", shapes, dtype)
    ends = checked_states(state_n, "state_n", shapes, dtype, out=True)
    reset, running = checked_reset(reset, T, B), running_rows(spans, T, B)
    if running is not None:
        reset = None if reset is None else reset & running
        # Padding may hold anything, even NaN, and must not count.
        x = np.where(running[:, :, None], x, 0)
    first = tuple(
        np.zeros_like(n) if s is None else s.copy() for s, n in zip(state, ends, strict=True)
    )
    return x, first, ends, running, reset


def put(array: Array, rows: Array | slice, values: Array) -> Array:
    """Return a copy of an array with other values in some rows."""
    if isinstance(rows, slice):
        return values
    array = array.copy()
    array[rows] = values
    return array


def zeroed(arrays: Sequence[Array], rows: Array | None) -> tuple[Array, ...]:
    """Return arrays (B, H) with zeros in some rows."""
    return tuple(a if rows is None else np.where(rows[:, None], 0, a) for a in arrays)
