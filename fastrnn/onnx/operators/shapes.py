"""Operators that move, choose or make elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx import reading
from fastrnn.onnx.registry import Node, integers, operator


def _room(shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
    """Return the shape, if an array of it fits into memory."""
    if any(n < 0 for n in shape):
        raise ValueError(f"expected a shape of sizes of at least 0, got {shape}")
    _checks.memory(math.prod(shape), np.dtype(dtype), size=math.prod(shape))
    return shape


def _axes(node: Node, given: Any, rank: int) -> list[int] | None:
    """Return axes, from an input or, before opset 13, an attribute."""
    values = node.get("axes") if given is None else given
    if values is None:
        return None
    axes = integers(values, "axes")
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(f"axes: expected axes in {-rank}..{rank - 1}, got {axes}")
    return [axis % rank for axis in axes]


@operator("Reshape", 25, growth="kept")
def _reshape(node: Node, x: Array, shape: Array) -> Any:
    wanted = integers(shape, "shape")
    if not node.get("allowzero", 0):
        if any(n == 0 and k >= x.ndim for k, n in enumerate(wanted)):
            raise ValueError(f"shape: expected no 0 past the axes of the input, got {wanted}")
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    if any(n < -1 for n in wanted):
        raise ValueError(f"shape: expected sizes of at least 0, or -1, got {wanted}")
    return x.reshape(wanted)


@operator("Flatten", 25, growth="kept")
def _flatten(node: Node, x: Array) -> Any:
    axis = node["axis"]
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1) if x.size else x.reshape(
        math.prod(x.shape[:axis]), math.prod(x.shape[axis:])
    )  # fmt: skip


@operator("Transpose", 25, growth="kept")
def _transpose(node: Node, x: Array) -> Any:
    return x.transpose(node.get("perm"))


@operator("Squeeze", 25, growth="kept")
def _squeeze(node: Node, x: Array, axes: Any = None) -> Any:
    chosen = _axes(node, axes, x.ndim)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@operator("Unsqueeze", 25, growth="kept")
def _unsqueeze(node: Node, x: Array, axes: Any = None) -> Any:
    given = integers(node["axes"] if axes is None else axes, "axes")
    return np.expand_dims(x, tuple(given))


@operator("Concat", 13, growth="kept")
def _concat(node: Node, *arrays: Array) -> Any:
    return np.concatenate(arrays, node["axis"])


@operator("Slice", 13, growth="kept")
def _slice(
    node: Node, x: Array, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    if node.version < 10:
        starts, ends = node["starts"], node["ends"]
    first, last = integers(starts, "starts"), integers(ends, "ends")
    along = _axes(node, axes, x.ndim)
    along = list(range(len(first))) if along is None else along
    strides = [1] * len(first) if steps is None else integers(steps, "steps")
    if not len(first) == len(last) == len(along) == len(strides) <= x.ndim:
        raise ValueError(
            f"expected starts, ends, axes and steps of one length of at most {x.ndim}, got "
            f"{first}, {last}, {along} and {strides}"
        )
    chosen = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        chosen[axis] = slice(start, end, step)
    return x[tuple(chosen)]


@operator("Split", 18, growth="kept")
def _split(node: Node, x: Array, split: Any = None) -> Any:
    axis = node["axis"]
    given = node.get("split") if split is None else split
    size, count = x.shape[axis], len(node.outputs)
    if given is not None:
        sizes = integers(given, "split")
        if len(sizes) != count or sum(sizes) != size or min(sizes, default=0) < 0:
            raise ValueError(f"split: expected {count} sizes that add up to {size}, got {sizes}")
    else:
        wanted = node.get("num_outputs", count)
        if wanted != count or (node.version < 18 and size % count):
            raise ValueError(f"expected {wanted} equal parts of {size} for {count} outputs")
        part = -(-size // count)
        sizes = [min(part, max(size - k * part, 0)) for k in range(count)]
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@operator("Expand", 13)
def _expand(node: Node, x: Array, shape: Array) -> Any:
    wanted = np.broadcast_shapes(x.shape, tuple(integers(shape, "shape")))
    return np.broadcast_to(x, _room(wanted, x.dtype))


@operator("Tile", 13)
def _tile(node: Node, x: Array, repeats: Array) -> Any:
    times = integers(repeats, "repeats")
    if len(times) != x.ndim or min(times, default=0) < 0:
        raise ValueError(f"repeats: expected {x.ndim} numbers of at least 0, got {times}")
    _room(tuple(n * k for n, k in zip(x.shape, times, strict=True)), x.dtype)
    return np.tile(x, times)


@operator("Gather", 13, growth="product")
def _gather(node: Node, x: Array, indices: Array) -> Any:
    return np.take(x, indices, node["axis"])


@operator("GatherElements", 13, growth="kept")
def _gather_elements(node: Node, x: Array, indices: Array) -> Any:
    return np.take_along_axis(x, indices, node["axis"])


@operator("GatherND", 13, growth="product")
def _gather_nd(node: Node, x: Array, indices: Array) -> Any:
    b = node.get("batch_dims", 0)
    if x.shape[:b] != indices.shape[:b]:
        raise ValueError(f"expected the first {b} sizes to be the same")
    n = math.prod(x.shape[:b])
    rows = x.reshape(n, *x.shape[b:])
    places = indices.reshape(n, -1, indices.shape[-1])
    picked = [row[tuple(np.moveaxis(at, -1, 0))] for row, at in zip(rows, places, strict=True)]
    return np.reshape(picked, (*indices.shape[:-1], *x.shape[b + indices.shape[-1] :]))


_REDUCE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@operator("ScatterElements", 18, growth="kept")
def _scatter_elements(node: Node, x: Array, indices: Array, updates: Array) -> Any:
    axis = node["axis"] % x.ndim
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    return _scattered(node, x, tuple(places), updates)


@operator("ScatterND", 18, growth="kept")
def _scatter_nd(node: Node, x: Array, indices: Array, updates: Array) -> Any:
    return _scattered(node, x, tuple(np.moveaxis(indices, -1, 0)), updates)


def _scattered(node: Node, x: Array, places: tuple[Any, ...], updates: Array) -> Array:
    y = np.array(x)
    how = node.get("reduction", "none")
    if how == "none":
        y[places] = updates
    else:
        _REDUCE[_checks.choice(how, "reduction", _REDUCE)].at(y, places, updates)
    return y


@operator("Shape", 25, growth="kept")
def _shape(node: Node, x: Array) -> Any:
    return np.array(x.shape[node.get("start", 0) : node.get("end")], np.int64)


@operator("Size", 25, growth="kept")
def _size(node: Node, x: Array) -> Any:
    return np.array(x.size, np.int64)


@operator("Constant", 25, growth="kept")
def _constant(node: Node) -> Any:
    given = {name: value for name, value in node.attributes.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"expected one attribute, got {', '.join(given) or 'none'}")
    ((name, value),) = given.items()
    kind = name.removeprefix("value_").rstrip("s")
    if name == "value":
        return value
    dtypes = {"float": np.float32, "int": np.int64, "string": object}
    return np.array(value, dtypes[kind])


@operator("ConstantOfShape", 25)
def _constant_of_shape(node: Node, shape: Array) -> Any:
    value = node.get("value", np.zeros(1, np.float32))
    return np.full(_room(tuple(integers(shape, "shape")), value.dtype), value.reshape(()))


@operator("Range", 27)
def _range(node: Node, start: Array, limit: Array, delta: Array) -> Any:
    first, last, step = (a.reshape(()).item() for a in (start, limit, delta))
    count = max(math.ceil((last - first) / step), 0)
    _room((count,), np.int64)
    return (first + np.arange(count) * step).astype(start.dtype)


@operator("EyeLike", 22, growth="kept")
def _eye_like(node: Node, x: Array) -> Any:
    to = node.get("dtype")
    dtype = x.dtype if to is None else reading.dtype_of(to, "dtype")
    rows, columns = x.shape
    return np.eye(rows, columns, node["k"], dtype)


@operator("Trilu", 14, growth="kept")
def _trilu(node: Node, x: Array, k: Any = None) -> Any:
    by = 0 if k is None else int(k.reshape(()))
    return (np.triu if node["upper"] else np.tril)(x, by)


@operator("Pad", 25)
def _pad(node: Node, x: Array, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    if node.version < 11:
        pads, value = node["pads"], node["value"]
    along = range(x.ndim) if axes is None else _axes(node, axes, x.ndim) or []
    counts = integers(pads, "pads")
    if len(counts) != 2 * len(along):
        raise ValueError(f"pads: expected {2 * len(along)} numbers, got {counts}")
    each = [(0, 0)] * x.ndim
    for axis, before, after in zip(along, counts, counts[len(along) :], strict=False):
        each[axis] = (max(before, 0), max(after, 0))
    _room(tuple(n + sum(p) for n, p in zip(x.shape, each, strict=True)), x.dtype)
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    mode: Any = modes[_checks.choice(node["mode"], "mode", modes)]
    constant = 0 if value is None else np.asarray(value).reshape(()).astype(x.dtype)
    y = np.pad(x, each, mode, **({"constant_values": constant} if mode == "constant" else {}))
    for axis, before, after in zip(along, counts, counts[len(along) :], strict=False):
        cut = [slice(None)] * x.ndim
        cut[axis] = slice(max(-before, 0), y.shape[axis] - max(-after, 0))
        y = y[tuple(cut)]
    return y


@operator("ReverseSequence", 28, growth="kept")
def _reverse_sequence(node: Node, x: Array, lengths: Array) -> Any:
    time, batch = node["time_axis"], node["batch_axis"]
    if {time, batch} != {0, 1}:
        raise ValueError(f"expected the axes 0 and 1 for time and batch, got {time} and {batch}")
    rows = x if batch == 0 else x.swapaxes(0, 1)
    steps = _checks.expect_shape(lengths, "sequence_lens", (len(rows),))
    if steps.size and not 0 <= steps.min() <= steps.max() <= rows.shape[1]:
        raise ValueError(f"sequence_lens: expected 0 to {rows.shape[1]}, got {steps.tolist()}")
    t = np.arange(rows.shape[1])
    places = np.where(t < steps[:, None], steps[:, None] - 1 - t, t)
    turned = rows[np.arange(len(rows))[:, None], places]
    return turned if batch == 0 else turned.swapaxes(0, 1)


@operator("OneHot", 28)
def _one_hot(node: Node, indices: Array, depth: Array, values: Array) -> Any:
    n = int(depth.reshape(-1)[0])
    shape = _room((*indices.shape, max(n, 0)), values.dtype)
    at = indices.astype(np.int64)
    hit = np.where(at < 0, at + n, at)[..., None] == np.arange(shape[-1])
    return np.moveaxis(np.where(hit, values[1], values[0]), -1, node["axis"])


@operator("NonZero", 13, growth="product")
def _non_zero(node: Node, x: Array) -> Any:
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)


@operator("Compress", 28, growth="kept")
def _compress(node: Node, x: Array, condition: Array) -> Any:
    return np.compress(condition, x, node.get("axis"))


@operator("TopK", 24, growth="kept")
def _top_k(node: Node, x: Array, k: Any = None) -> Any:
    axis = node["axis"]
    count = int(node["k"] if k is None else k.reshape(-1)[0])
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"K: expected 0 to {x.shape[axis]}, got {count}")
    keys = -x if node.get("largest", 1) and x.dtype.kind == "f" else x
    order = np.argsort(keys, axis, kind="stable")
    if node.get("largest", 1) and x.dtype.kind != "f":
        # Equal elements in their own order, although the largest come first.
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    order = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)
