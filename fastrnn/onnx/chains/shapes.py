"""Axes that are moved, split and joined, and steps that are picked."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto

from fastrnn import _checks
from fastrnn.onnx.chains.handlers import handles
from fastrnn.onnx.chains.values import (
    LEAD_AXES,
    Finals,
    Initial,
    Learned,
    NoChain,
    Signal,
    Widened,
    Zeros,
    axis_of,
    integers,
    no_chain,
    signal_of,
)
from fastrnn.onnx.graph import Step
from fastrnn.onnx.links import Recurrent, Stateless


@handles("Identity")
def _same(step: Step, x: Any) -> Any:
    return x


@handles("Cast")
def _cast(step: Step, x: Any) -> Any:
    if isinstance(x, Signal) and x.axes[-1] in LEAD_AXES and step.node["to"] in (6, 7):
        return x  # tokens, as another type of integers
    if isinstance(x, Zeros):
        return x
    if isinstance(x, Signal) and step.node["to"] == TensorProto.DOUBLE and x.features:
        return Widened(x, x)
    if isinstance(x, Widened) and step.node["to"] == TensorProto.FLOAT and x.now is not x.of:
        *links, link = x.now.links
        assert isinstance(link, Stateless)
        link = replace(link, options={**link.options, "dtype": np.dtype(np.float32)})
        return replace(x.now, links=(*links, link))
    raise NoChain


@handles("Shape")
def _shape(step: Step, x: Any) -> Any:
    node = step.node
    shape = signal_of(x).shape
    return np.array(shape[node.get("start", 0) : node.get("end")], np.int64)


@handles("Transpose")
def _transpose(step: Step, x: Any) -> Any:
    if isinstance(x, Zeros):
        return x
    x = signal_of(x)
    perm = step.node.get("perm", [*range(len(x.axes))][::-1])
    return replace(x, axes=tuple(x.axes[k] for k in perm))


@handles("Squeeze")
def _squeeze(step: Step, x: Any, axes: Any = None) -> Any:
    if isinstance(x, Zeros):
        return x
    given = integers(step.node.get("axes") if axes is None else axes)
    if isinstance(x, Finals) and given == [0] and len(x.slots) == 1 and not x.single:
        return replace(x, single=True)
    x = signal_of(x)
    gone = {k % len(x.axes) for k in given}
    if any(x.shape[k] != 1 or x.axes[k] for k in gone):
        raise NoChain
    return replace(x, axes=tuple(axis for k, axis in enumerate(x.axes) if k not in gone))


@handles("Unsqueeze")
def _unsqueeze(step: Step, x: Any, axes: Any = None) -> Any:
    if isinstance(x, Zeros):
        return x
    given = integers(step.node.get("axes") if axes is None else axes)
    if isinstance(x, Finals) and given == [0] and x.single:
        return replace(x, single=False)
    x = signal_of(x)
    rank = len(x.axes) + len(given)
    new, old = {k % rank for k in given}, iter(x.axes)
    return replace(x, axes=tuple(() if k in new else next(old) for k in range(rank)))


@handles("Reshape")
def _reshape(step: Step, x: Any, shape: Any) -> Any:
    if isinstance(x, Zeros):
        return x
    x = signal_of(x)
    wanted = integers(shape)
    if step.node.get("allowzero", 0) and 0 in wanted:
        raise NoChain
    wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    if -1 in wanted:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(x.shape) // rest
    labels = [label for axis in x.axes for label in axis]
    axes = []
    for n in wanted:
        axis: tuple[str, ...] = ()
        while labels and n > 1 and math.prod(x.sizes[a] for a in axis) < n:
            axis = (*axis, labels.pop(0))
        if n == 1 and labels and x.sizes[labels[0]] == 1:
            axis = (labels.pop(0),)
        if math.prod(x.sizes[label] for label in axis) != n:
            raise NoChain
        axes.append(axis)
    if labels:
        raise NoChain
    return replace(x, axes=tuple(axes))


@handles("Concat")
def _concat(step: Step, *parts: Any) -> Any:
    if all(isinstance(part, Zeros) for part in parts):
        return parts[0]
    if not all(isinstance(part, Finals) for part in parts):
        raise NoChain
    links = max((part.links for part in parts), key=len)
    slots = sum((part.slots for part in parts), ())
    joined = replace(parts[0], links=links, slots=slots)
    if not any(part.single for part in parts):
        if axis_of(step.node, "axis", 3) != 0:
            raise NoChain
        return joined
    if not all(part.single for part in parts) or axis_of(step.node, "axis", 2) != 1:
        raise NoChain
    # Both directions side by side.
    both = signal_of(joined)
    return replace(both, axes=(both.axes[0], ("D", "H")))


@handles("Split")
def _split(step: Step, x: Any, sizes: Any = None) -> Any:
    count = len(step.node.outputs)
    if isinstance(x, Zeros):
        return (x,) * count
    if not isinstance(x, Initial | Learned | Finals) or axis_of(step.node, "axis", 3, 0) != 0:
        raise NoChain
    given = step.node.get("split") if sizes is None else sizes
    total = _count(x)
    each = [total // count] * count if given is None else integers(given)
    if sum(each) != total:
        raise NoChain
    ends = np.cumsum([0, *each]).tolist()
    return tuple(_rows(x, a, b) for a, b in pairwise(ends))


def _count(x: Initial | Learned | Finals) -> int:
    """Return the size of the first axis."""
    if isinstance(x, Initial):
        return x.last - x.first
    return len(x.rows if isinstance(x, Learned) else x.slots)


def _rows(x: Initial | Learned | Finals, first: int, last: int) -> Any:
    if isinstance(x, Learned):
        return Learned(x.rows[first:last])
    if isinstance(x, Initial):
        return replace(x, first=x.first + first, last=x.first + last)
    return replace(x, slots=x.slots[first:last])


@handles("Slice")
def _slice(
    step: Step, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    node = step.node
    if isinstance(x, Zeros):
        return x
    if starts is None:
        starts, ends, axes = node["starts"], node["ends"], node.get("axes")
    first, last = integers(starts), integers(ends)
    along = [*range(len(first))] if axes is None else integers(axes)
    if len(first) != 1 or (steps is not None and integers(steps) != [1]):
        raise NoChain
    if isinstance(x, Initial | Learned | Finals):
        a, b, _ = slice(first[0], last[0]).indices(_count(x))
        if along[0] != 0 or b <= a or (isinstance(x, Finals) and x.single):
            raise NoChain
        return _rows(x, a, b)
    x = signal_of(x)
    axis = along[0] % len(x.axes)
    n = x.shape[axis]
    a, b, _ = slice(first[0], last[0]).indices(n)
    if (a, b) == (0, n):
        return x
    return _last(x, axis, keep=True) if (a, b) == (n - 1, n) else no_chain()


def _last(x: Signal, axis: int, *, keep: bool = False) -> Signal:
    """Return the last step of a signal."""
    recurrent = [i for i, link in enumerate(x.links) if isinstance(link, Recurrent)]
    index = recurrent[-1] if recurrent else -1
    link = x.links[index] if recurrent else None
    if not isinstance(link, Recurrent) or x.axes[axis] != (link.time,) or link.reverse != (False,):
        raise NoChain
    links = (*x.links[:index], replace(link, sequences=False), *x.links[index + 1 :])
    axes = (*x.axes[:axis], *([()] if keep else []), *x.axes[axis + 1 :])
    return Signal(links, axes, x.sizes)


@handles("Gather")
def _gather(step: Step, x: Any, at: Any) -> Any:
    if isinstance(x, Zeros):
        return x
    if isinstance(x, np.ndarray) and isinstance(at, Signal):
        fits = x.ndim == 2 and x.dtype in _checks.DTYPES and not at.links
        if not fits or step.node.get("axis", 0) != 0:
            raise NoChain
        link = Stateless("Embedding", (len(x), x.shape[1]), {}, {"weight": x})
        return Signal((link,), (*at.axes, ("F",)), {**at.sizes, "F": x.shape[1]})
    if not isinstance(at, np.ndarray) or at.ndim:
        raise NoChain
    index = int(at)
    if isinstance(x, Finals):
        if axis_of(step.node, "axis", 3, 0) != 0 or x.single:
            raise NoChain
        return replace(x, slots=(x.slots[index],), single=True)
    x = signal_of(x)
    axis = axis_of(step.node, "axis", len(x.axes), 0)
    if not x.axes[axis] and index in (0, -1):
        return replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :]))
    return _last(x, axis) if index in (-1, x.shape[axis] - 1) else no_chain()
