"""A single layer's call, from the caller's arrays into new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn._kernels.interface import KernelTape, PackedWeights
from fastrnn._kernels.reference.arrays import is_plain, own
from fastrnn._kernels.reference.scan import Gradients, Packed, Tape, backward, forward
from fastrnn._types import Array


def _is_sequence(array: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> bool:
    """Return whether it is an array whose last axis is contiguous."""
    size = dtype.itemsize
    return (
        type(array) is np.ndarray
        and is_plain(array, dtype)
        and array.shape == tuple(shape)
        and (shape[-1] == 1 or array.strides[-1] == size)
        and all(stride % size == 0 for stride in array.strides)
    )


def _stacked(packed: Any, state: Any, B: int) -> tuple[Array | None, ...] | None:
    """Return the caller's states, without their first axis; None if they need to be converted."""
    count = len(packed.cell.states)
    if state is None:
        return (None,) * count
    given = (state,) if count == 1 else state
    if type(given) is not tuple or len(given) != count:
        return None
    for s, shape in zip(given, packed.state_shapes(B), strict=True):
        if s is None:
            continue
        if not (_is_sequence(s, (1, *shape), packed.dtype) and s.flags.c_contiguous):
            return None
    return tuple(None if s is None else s[0] for s in given)


def _shown(packed: Any, states: list[Array]) -> Any:
    stacked = tuple(s[None] for s in states)
    return stacked if len(stacked) > 1 else stacked[0]


def run(
    packed: PackedWeights, x: Any, state: Any, *, keep: bool = False, outputs: bool = True
) -> tuple[Array | None, Any, Tape | None] | None:
    """Run a layer over a sequence, into new arrays; None if an array needs to be converted."""
    return run_by(forward, own(packed, Packed, "packed"), x, state, keep, outputs)


def run_by(
    forward: Callable[..., Any], packed: Any, x: Any, state: Any, keep: bool, outputs: bool
) -> tuple[Array | None, Any, Any] | None:
    """Run a layer by one of the scans."""
    if not isinstance(x, np.ndarray) or x.ndim != 3 or not x.size:
        return None
    T, B, _ = x.shape
    given = _stacked(packed, state, B)
    if given is None or not _is_sequence(x, (T, B, packed.config.input_size), packed.dtype):
        return None
    y = np.empty((T, B, packed.config.output_size), packed.dtype) if outputs else None
    ends = [np.empty(shape, packed.dtype) for shape in packed.state_shapes(B)]
    tape = forward(packed, x, given, y, ends, keep=keep)
    return y, _shown(packed, ends), tape


def run_back(
    tape: KernelTape, dy: Any, dstate_n: Any, *, input_gradient: bool = True
) -> tuple[Array | None, Any, list[Array | None]] | None:
    """Backpropagate, into new arrays; None if an array needs to be converted."""
    tape = own(tape, Tape, "tape")
    packed, (T, B, I) = tape.packed, tape.x.a.shape
    given = _stacked(packed, dstate_n, B)
    shape = (T, B, packed.config.output_size)
    if given is None or not (dy is None or _is_sequence(dy, shape, packed.dtype)):
        return None
    dx = np.empty((T, B, I), packed.dtype) if input_gradient else None
    dstate = [np.empty(shape, packed.dtype) for shape in packed.state_shapes(B)]
    gradients = Gradients(packed)
    backward(tape, dy, given, dx, dstate, gradients)
    return dx, _shown(packed, dstate), gradients.arrays()
