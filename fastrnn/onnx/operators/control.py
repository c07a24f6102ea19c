"""Operators that evaluate graphs of their own, and sequences of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.onnx.registry import Node, integers, operator


@operator("If", 25, scoped=True)
def _if(node: Node, condition: Array, values: Mapping[str, Any]) -> Any:
    branch = node["then_branch" if condition.reshape(()) else "else_branch"]
    return tuple(branch.run((), values))


@operator("Loop", 25, scoped=True)
def _loop(node: Node, most: Any, go_on: Any, *rest: Any) -> Any:
    """Run the body: (iteration, condition, states) to (condition, states, outputs to stack)."""
    *initial, values = rest
    body, states = node["body"], list(initial)
    count = None if most is None else int(most.reshape(()))
    running = True if go_on is None else bool(go_on.reshape(()))
    stacked: list[list[Any]] = [[] for _ in body.outputs[1 + len(states) :]]
    k = 0
    while running and (count is None or k < count):
        ended, *outputs = body.run([np.array(k, np.int64), np.array(running), *states], values)
        running = bool(np.asarray(ended).reshape(()))
        states = outputs[: len(states)]
        for collected, output in zip(stacked, outputs[len(states) :], strict=True):
            collected.append(output)
        k += 1
    described = body.outputs[1 + len(states) :]
    return (*states, *map(_stacked, stacked, described))


def _stacked(parts: list[Any], described: Any, axis: int = 0) -> Array:
    """Return the outputs of all iterations as one array."""
    if parts:
        return np.stack(parts, axis)
    shape = [n if isinstance(n, int) else 0 for n in described.shape or ()]
    return np.zeros((0, *shape), described.dtype or np.float32)


@operator("Scan", 25, scoped=True)
def _scan(node: Node, *rest: Any) -> Any:
    """Run the body over slices of some inputs: (states, slices) to (states, slices)."""
    *inputs, values = rest
    if node.version < 9:
        raise ValueError("expected Scan of opset 9 or newer")
    body, M = node["body"], node["num_scan_inputs"]
    n = len(inputs) - M
    if not 0 < M <= len(inputs):
        raise ValueError(f"num_scan_inputs: expected 1 to {len(inputs)}, got {M}")
    states, K = inputs[:n], len(body.outputs) - n
    axes, backward = (node.get(f"scan_input_{name}", [0] * M) for name in ("axes", "directions"))
    sliced = [np.moveaxis(a, axis, 0) for a, axis in zip(inputs[n:], axes, strict=True)]
    sliced = [a[::-1] if back else a for a, back in zip(sliced, backward, strict=True)]
    if len({len(a) for a in sliced}) > 1:
        raise ValueError(f"expected slices of equal number, got {[len(a) for a in sliced]}")
    stacked: list[list[Any]] = [[] for _ in range(K)]
    for slices in zip(*sliced, strict=True):
        outputs = body.run([*states, *slices], values)
        states = outputs[:n]
        for collected, output in zip(stacked, outputs[n:], strict=True):
            collected.append(output)
    axes, backward = (node.get(f"scan_output_{name}", [0] * K) for name in ("axes", "directions"))
    ends = [
        _stacked(parts[::-1] if back else parts, described, axis)
        for parts, described, axis, back in zip(
            stacked, body.outputs[n:], axes, backward, strict=True
        )
    ]
    return (*states, *ends)


@operator("SequenceEmpty", 11)
def _sequence_empty(node: Node) -> Any:
    return []


@operator("SequenceConstruct", 11)
def _sequence_construct(node: Node, *arrays: Array) -> Any:
    return [*arrays]


@operator("SequenceInsert", 11)
def _sequence_insert(node: Node, items: list[Array], item: Array, position: Any = None) -> Any:
    at = len(items) if position is None else _place(position, len(items) + 1)
    return [*items[:at], item, *items[at:]]


@operator("SequenceAt", 11)
def _sequence_at(node: Node, items: list[Array], position: Array) -> Any:
    return items[_place(position, len(items))]


@operator("SequenceLength", 11)
def _sequence_length(node: Node, items: list[Array]) -> Any:
    return np.array(len(items), np.int64)


def _place(position: Array, count: int) -> int:
    (at,) = integers(position, "position")
    if not -count <= at < count:
        raise ValueError(f"position: expected one in {-count}..{count - 1}, got {at}")
    return at % count


@operator("ConcatFromSequence", 11)
def _concat_from_sequence(node: Node, items: list[Array]) -> Any:
    join = np.stack if node["new_axis"] else np.concatenate
    return join(items, node["axis"])


@operator("SplitToSequence", 24)
def _split_to_sequence(node: Node, x: Array, split: Any = None) -> Any:
    axis = node["axis"]
    n = x.shape[axis]
    if split is None:
        parts = np.split(x, n, axis) if n else []
        return [*parts] if node["keepdims"] else [part.squeeze(axis) for part in parts]
    sizes = integers(split, "split")
    if split.ndim == 0:
        sizes = [min(sizes[0], n - k) for k in range(0, n, max(sizes[0], 1))]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ValueError(f"split: expected sizes that add up to {n}, got {sizes}")
    return list(np.split(x, np.cumsum(sizes)[:-1], axis))
