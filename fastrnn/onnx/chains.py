"""Graphs that are chains of layers: recognised by walking them once, with shapes in place of data.

Each value of a graph becomes a `Signal` (the output of the layers so far, and what its axes are),
initial or final states, zeros, or an array, where it is known. Sizes that differ from call to call
stand as large primes in the arithmetic of shapes that exporters write. What fits nothing of this
ends the walk: the graph is no chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx.graph import Graph, Step
from fastrnn.onnx.links import Link, Recurrent, Stateless

#: Axes of the first input whose size differs from call to call: names, and sizes that nothing else
#: has.
_LEAD = ("x0", "x1")
_PROBES = (1000003, 1000033)

#: Arrays larger than this are not computed.
_LARGEST = 1 << 16

Axes = tuple[tuple[str, ...], ...]


class NoChain(Exception):  # noqa: N818 (it is no error: the graph is evaluated instead)
    """Ends the walk."""


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """The output of layers.

    Attributes
    ----------
    links : tuple of Link
        The layers.
    axes : tuple of tuple of str
        What each axis is: labels of which it is the product; of none, where its size is 1.
    sizes : mapping
        The size of each label.
    """

    links: tuple[Link, ...]
    axes: Axes
    sizes: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return tuple(math.prod(self.sizes[label] for label in axis) for axis in self.axes)

    @property
    def features(self) -> int:
        """The size of the last axis, if it holds all features."""
        last = self.axes[-1] if self.axes else ()
        others = {label for axis in self.axes[:-1] for label in axis}
        if not last or not others <= {*_LEAD} or {*last} & {*_LEAD}:
            raise NoChain
        return self.shape[-1]

    def followed(self, link: Link, features: int | None = None) -> Signal:
        """Return the output of one more layer."""
        links = (*self.links, link)
        if features is None:
            return replace(self, links=links)
        lead = {label: n for label, n in self.sizes.items() if label in _LEAD}
        return Signal(links, (*self.axes[:-1], ("F",)), lead | {"F": features})


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros of any shape: initial states."""


@dataclass(frozen=True, slots=True)
class Initial:
    """Rows `first` to `last` of an input that is an initial state, (L*D, B, H)."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """An initial state that is the same for all rows of a batch: (L*D, H)."""

    rows: Array


@dataclass(frozen=True, slots=True, eq=False)
class Finals:
    """Final states, one after another along the first axis: of each, layer, name and direction.

    A `single` one is without that axis.
    """

    links: tuple[Link, ...]
    slots: tuple[tuple[int, str, int], ...]
    batch: str
    sizes: Mapping[str, int]
    single: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A part of a layer normalisation that is written as many nodes."""

    of: Signal
    stage: str
    eps: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Widened:
    """A signal in float64, to be standardised or restored: `of` before, and `now` after that."""

    of: Signal
    now: Signal


class Walk:
    """Walks a graph.

    Attributes
    ----------
    values : dict
        Each value so far.
    """

    def __init__(self, graph: Graph) -> None:
        self.values: dict[str, Any] = dict(graph.constants)
        #: Names of values that are computed from sizes, and so are no weights.
        self._sizes: set[str] = set()
        if not graph.inputs:
            raise NoChain
        first, *others = graph.inputs
        for value in others:
            if not value.shape or not isinstance(value.shape[0], int):
                raise NoChain
            self.values[value.name] = Initial(value.name, 0, value.shape[0])
        self.values[first.name] = self._input(first)
        for step in graph.steps:
            self._take(step)
        self.inputs = [value.name for value in others]
        self.outputs = [self.values[value.name] for value in graph.outputs]

    def _input(self, value: Any) -> Signal:
        shape, dtype = value.shape, value.dtype
        tokens = dtype is not None and dtype.kind in "iu"
        if shape is None or len(shape) != (2 if tokens else 3):
            raise NoChain
        if not tokens and (dtype not in _checks.DTYPES or not isinstance(shape[2], int)):
            raise NoChain
        sizes = {
            label: probe if isinstance(n, str) else n
            for label, n, probe in zip(_LEAD, shape[:2], _PROBES, strict=True)
        }
        axes: Axes = (("x0",), ("x1",))
        if tokens:
            return Signal((), axes, sizes)
        return Signal((), (*axes, ("F",)), sizes | {"F": shape[2]})

    def _take(self, step: Step) -> None:
        name = step.node.operator.name
        inputs = [self.values[n] if n else None for n in step.inputs]
        given = [a for a in inputs if a is not None]
        of_sizes = self._sizes.intersection(step.inputs)
        if all(isinstance(a, np.ndarray) for a in given):
            results: Any = self._known(step, given)
        else:
            if of_sizes and (name not in _TAKES_SIZES or step.inputs[0] in of_sizes):
                raise NoChain
            if step.node.operator.domain or name not in _HANDLERS:
                raise NoChain
            results = _HANDLERS[name](step, *inputs)
        if name == "Shape" or (of_sizes and results is _KNOWN):
            self._sizes.update(step.node.outputs)
        if results is _KNOWN:
            return
        results = results if isinstance(results, tuple) else (results,)
        for output, result in zip(step.node.outputs, results, strict=False):
            if output:
                self.values[output] = result

    def _known(self, step: Step, given: Sequence[Array]) -> Any:
        """Compute a step of arrays, or see that it makes zeros."""
        name = step.node.operator.name
        if name == "ConstantOfShape":
            value = step.node.get("value")
            if value is not None and value.any():
                raise NoChain
            return Zeros()
        if name in ("Expand", "Tile"):
            return _same_for_all(given[0])
        if step.node.operator.growth == "data" or sum(a.size for a in given) > _LARGEST:
            raise NoChain
        done_with, step.done_with = step.done_with, ()
        try:
            step(self.values)
        finally:
            step.done_with = done_with
        return _KNOWN


#: Operators of which inputs after the first may be computed from sizes.
_TAKES_SIZES = ("Gather", "Reshape", "Slice", "Split")


def _same_for_all(a: Array) -> Zeros | Learned:
    """Return what an array (L*D, 1, H) is that is repeated along the batch, an initial state."""
    if not a.any():
        return Zeros()
    if a.ndim != 3 or a.shape[1] != 1:
        raise NoChain
    return Learned(a[:, 0])


#: What stands for outputs that are among the values already.
_KNOWN = object()

Handler = Callable[..., Any]
_HANDLERS: dict[str, Handler] = {}


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return add


def _signal(value: Any) -> Signal:
    """Return a value as a signal: final states as the last layer's output, if they are that."""
    if isinstance(value, Signal):
        return value
    if not isinstance(value, Finals):
        raise NoChain
    index = value.slots[0][0]
    links = value.links
    last = max(i for i, link in enumerate(links) if isinstance(link, Recurrent))
    link = links[index]
    assert isinstance(link, Recurrent)
    D = len(link.reverse)
    if index != last or value.slots != tuple((index, "h", d) for d in range(D)):
        raise NoChain
    links = (*links[:index], replace(link, sequences=False), *links[index + 1 :])
    sizes = {**value.sizes, "D": D}
    axes: Axes = ((value.batch,), ("H",))
    if not value.single:
        axes = (("D",) if D > 1 else (), *axes)
    return Signal(links, axes, sizes)


def _axis(node: Any, name: str, rank: int, default: int | None = None) -> int:
    axis = node.get(name, default)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise NoChain
    return axis % rank


def _integers(value: Any) -> list[int]:
    if not isinstance(value, list):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            raise NoChain
        value = value.reshape(-1).tolist()
    return [int(n) for n in value]


# Shapes.


@_handles("Identity")
def _same(step: Step, x: Any) -> Any:
    return x


@_handles("Cast")
def _cast(step: Step, x: Any) -> Any:
    if isinstance(x, Signal) and x.axes[-1] in _LEAD_AXES and step.node["to"] in (6, 7):
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


_LEAD_AXES = tuple((label,) for label in _LEAD)


@_handles("Shape")
def _shape(step: Step, x: Any) -> Any:
    node = step.node
    shape = _signal(x).shape
    return np.array(shape[node.get("start", 0) : node.get("end")], np.int64)


@_handles("Transpose")
def _transpose(step: Step, x: Any) -> Any:
    if isinstance(x, Zeros):
        return x
    x = _signal(x)
    perm = step.node.get("perm", [*range(len(x.axes))][::-1])
    return replace(x, axes=tuple(x.axes[k] for k in perm))


@_handles("Squeeze")
def _squeeze(step: Step, x: Any, axes: Any = None) -> Any:
    if isinstance(x, Zeros):
        return x
    given = _integers(step.node.get("axes") if axes is None else axes)
    if isinstance(x, Finals) and given == [0] and len(x.slots) == 1 and not x.single:
        return replace(x, single=True)
    x = _signal(x)
    gone = {k % len(x.axes) for k in given}
    if any(x.shape[k] != 1 or x.axes[k] for k in gone):
        raise NoChain
    return replace(x, axes=tuple(axis for k, axis in enumerate(x.axes) if k not in gone))


@_handles("Unsqueeze")
def _unsqueeze(step: Step, x: Any, axes: Any = None) -> Any:
    if isinstance(x, Zeros):
        return x
    given = _integers(step.node.get("axes") if axes is None else axes)
    if isinstance(x, Finals) and given == [0] and x.single:
        return replace(x, single=False)
    x = _signal(x)
    rank = len(x.axes) + len(given)
    new, old = {k % rank for k in given}, iter(x.axes)
    return replace(x, axes=tuple(() if k in new else next(old) for k in range(rank)))


@_handles("Reshape")
def _reshape(step: Step, x: Any, shape: Any) -> Any:
    if isinstance(x, Zeros):
        return x
    x = _signal(x)
    wanted = _integers(shape)
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


@_handles("Concat")
def _concat(step: Step, *parts: Any) -> Any:
    if all(isinstance(part, Zeros) for part in parts):
        return parts[0]
    if not all(isinstance(part, Finals) for part in parts):
        raise NoChain
    links = max((part.links for part in parts), key=len)
    slots = sum((part.slots for part in parts), ())
    joined = replace(parts[0], links=links, slots=slots)
    if not any(part.single for part in parts):
        if _axis(step.node, "axis", 3) != 0:
            raise NoChain
        return joined
    if not all(part.single for part in parts) or _axis(step.node, "axis", 2) != 1:
        raise NoChain
    # Both directions side by side.
    both = _signal(joined)
    return replace(both, axes=(both.axes[0], ("D", "H")))


@_handles("Split")
def _split(step: Step, x: Any, sizes: Any = None) -> Any:
    count = len(step.node.outputs)
    if isinstance(x, Zeros):
        return (x,) * count
    if not isinstance(x, Initial | Learned | Finals) or _axis(step.node, "axis", 3, 0) != 0:
        raise NoChain
    given = step.node.get("split") if sizes is None else sizes
    total = _count(x)
    each = [total // count] * count if given is None else _integers(given)
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


@_handles("Slice")
def _slice(
    step: Step, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    node = step.node
    if isinstance(x, Zeros):
        return x
    if starts is None:
        starts, ends, axes = node["starts"], node["ends"], node.get("axes")
    first, last = _integers(starts), _integers(ends)
    along = [*range(len(first))] if axes is None else _integers(axes)
    if len(first) != 1 or (steps is not None and _integers(steps) != [1]):
        raise NoChain
    if isinstance(x, Initial | Learned | Finals):
        a, b, _ = slice(first[0], last[0]).indices(_count(x))
        if along[0] != 0 or b <= a or (isinstance(x, Finals) and x.single):
            raise NoChain
        return _rows(x, a, b)
    x = _signal(x)
    axis = along[0] % len(x.axes)
    n = x.shape[axis]
    a, b, _ = slice(first[0], last[0]).indices(n)
    if (a, b) == (0, n):
        return x
    return _last(x, axis, keep=True) if (a, b) == (n - 1, n) else _no_chain()


def _no_chain() -> Any:
    raise NoChain


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


@_handles("Gather")
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
        if _axis(step.node, "axis", 3, 0) != 0 or x.single:
            raise NoChain
        return replace(x, slots=(x.slots[index],), single=True)
    x = _signal(x)
    axis = _axis(step.node, "axis", len(x.axes), 0)
    if not x.axes[axis] and index in (0, -1):
        return replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :]))
    return _last(x, axis) if index in (-1, x.shape[axis] - 1) else _no_chain()


# Layers without a state.

#: Constructor's arguments from a node's attributes.
_ACTIVATIONS: dict[str, Callable[[Any], tuple[str, tuple[Any, ...]]]] = {
    "Relu": lambda node: ("ReLU", ()),
    "Tanh": lambda node: ("Tanh", ()),
    "Sigmoid": lambda node: ("Sigmoid", ()),
    "LeakyRelu": lambda node: ("Activation", ("leaky_relu", node["alpha"])),
    "Elu": lambda node: ("Activation", ("elu", node["alpha"])),
    "HardSigmoid": lambda node: ("Activation", ("hard_sigmoid", node["alpha"], node["beta"])),
    "Softplus": lambda node: ("Activation", ("softplus",)),
    "Softsign": lambda node: ("Activation", ("softsign",)),
    "ThresholdedRelu": lambda node: ("Activation", ("thresholded_relu", node["alpha"])),
}


@_handles(*_ACTIVATIONS)
def _activation(step: Step, x: Any) -> Any:
    name, arguments = _ACTIVATIONS[step.node.operator.name](step.node)
    return _signal(x).followed(Stateless(name, arguments))


@_handles("Softmax", "LogSoftmax")
def _softmax(step: Step, x: Any) -> Any:
    x = _signal(x)
    if x.features and _axis(step.node, "axis", len(x.axes)) != len(x.axes) - 1:
        raise NoChain
    if step.node.operator.name == "Softmax":
        return x.followed(Stateless("Softmax", ()))
    return x.followed(Stateless("Activation", ("log_softmax",)))


@_handles("Dropout")
def _dropout(step: Step, x: Any, ratio: Any = None, training: Any = None) -> Any:
    if training is not None and np.any(training):
        raise NoChain
    p = step.node.get("ratio", 0.5) if ratio is None else float(ratio)
    return _signal(x).followed(Stateless("Dropout", (p,)))


@_handles("MatMul")
def _matmul(step: Step, x: Any, b: Any) -> Any:
    return _affine(_signal(x), b, None)


@_handles("Gemm")
def _gemm(step: Step, x: Any, b: Any, c: Any = None) -> Any:
    node, x = step.node, _signal(x)
    if node["transA"] or not isinstance(b, np.ndarray):
        raise NoChain
    weight = node["alpha"] * (b.T if node["transB"] else b)
    bias = None if c is None else _vector(c, weight.shape[1]) * node["beta"]
    return _affine(x, weight.astype(b.dtype), None if bias is None else bias.astype(b.dtype))


def _affine(x: Signal, b: Any, bias: Array | None) -> Signal:
    if not isinstance(b, np.ndarray) or b.ndim != 2 or b.dtype not in _checks.DTYPES:
        raise NoChain
    I, O = b.shape
    if x.features != I:
        raise NoChain
    weights = {"weight": b.T} | ({} if bias is None else {"bias": bias})
    return x.followed(Stateless("Linear", (I, O, bias is not None), {}, weights), O)


def _vector(a: Any, n: int) -> Array:
    """Return a constant that is added to, or multiplied by, the last axis of size n."""
    if not isinstance(a, np.ndarray) or a.size != n or (a.ndim and a.shape[-1] != n):
        raise NoChain
    return a.reshape(n)


@_handles("Add", "Mul")
def _scaled(step: Step, a: Any, b: Any) -> Any:
    """Add a bias to the layer before, or weights to a normalisation; or scale by a number."""
    name = step.node.operator.name
    a, b = (b, a) if isinstance(a, np.ndarray) else (a, b)
    if isinstance(a, Moment):
        return _moment(name, a, b)
    if isinstance(a, Widened):
        return replace(a, now=_restored(name, a.now, b))
    x = _signal(a)
    if not isinstance(b, np.ndarray):
        raise NoChain
    if b.size == 1 and x.features != 1:
        alpha, beta = (1.0, float(b.item())) if name == "Add" else (float(b.item()), 0.0)
        return x.followed(Stateless("Activation", ("affine", alpha, beta)))
    return _with_vector(x, "bias" if name == "Add" else "weight", _vector(b, x.features))


def _with_vector(x: Signal, name: str, vector: Array) -> Signal:
    """Return a signal whose last layer has one more weight."""
    link = x.links[-1] if x.links else None
    more = link.with_vector(name, vector) if isinstance(link, Stateless) else None
    if more is None:
        raise NoChain
    return replace(x, links=(*x.links[:-1], more))


# Layer normalisation, as one node and as nine.


@_handles("LayerNormalization")
def _layer_normalization(step: Step, x: Any, scale: Any, bias: Any = None) -> Any:
    node, x = step.node, _signal(x)
    if _axis(node, "axis", len(x.axes)) != len(x.axes) - 1 or len(step.node.outputs) > 1:
        raise NoChain
    link = _norm(x, node["epsilon"]).with_vector("weight", _vector(scale, x.features))
    if link is not None and bias is not None:
        link = link.with_vector("bias", _vector(bias, x.features))
    return x.followed(link) if link is not None else _no_chain()


def _norm(x: Signal, eps: float) -> Stateless:
    return Stateless("LayerNorm", (x.features,), {"eps": eps, "elementwise_affine": False})


@_handles("ReduceMean")
def _mean(step: Step, x: Any, axes: Any = None) -> Any:
    given = _integers(step.node.get("axes") if axes is None else axes)
    of = x.of if isinstance(x, Moment) else _signal(x)
    if len(given) != 1 or given[0] % len(of.axes) != len(of.axes) - 1 or not step.node["keepdims"]:
        raise NoChain
    if isinstance(x, Moment):
        return replace(x, stage="variance") if x.stage == "square" else _no_chain()
    return Moment(of, "mean") if of.features else _no_chain()


def _moment(name: str, a: Moment, b: Any) -> Any:
    if name == "Mul" and a.stage == "centered" and b is a:
        return replace(a, stage="square")
    if name == "Add" and a.stage == "variance" and isinstance(b, np.ndarray) and b.size == 1:
        return replace(a, stage="shifted", eps=float(b.item()))
    raise NoChain


@_handles("Sub", "Pow", "Div", "Sqrt")
def _normalising(step: Step, a: Any, b: Any = None) -> Any:
    name = step.node.operator.name
    if name == "Sub" and isinstance(b, Moment) and b.stage == "mean" and a is b.of:
        return replace(b, stage="centered")
    if isinstance(a, Widened):
        return replace(a, now=_standardised(name, a.now, b))
    if not isinstance(a, Moment):
        return _standardised(name, _signal(a), b)
    if name == "Pow" and a.stage == "centered" and isinstance(b, np.ndarray) and np.all(b == 2):
        return replace(a, stage="square")
    if name == "Sqrt" and a.stage == "shifted":
        return replace(a, stage="deviation")
    centered = isinstance(b, Moment) and a.of is b.of and a.stage == "centered"
    if name == "Div" and centered and b.stage == "deviation":
        return a.of.followed(_norm(a.of, b.eps))
    raise NoChain


def _standardised(name: str, x: Signal, b: Any) -> Signal:
    """Subtract the mean of each feature, or divide by its deviation."""
    vector = _vector(b, x.features)
    if name == "Sub":
        given = {"mean": vector, "variance": np.ones(x.features), "dtype": vector.dtype}
        return x.followed(Stateless("Normalization", (), given))
    if name != "Div":
        raise NoChain
    return _with_vector(x, "deviation", vector)


def _restored(name: str, x: Signal, b: Any) -> Signal:
    """Multiply by the deviation of each feature, then add its mean."""
    vector = _vector(b, x.features)
    if name == "Mul":
        given = {"mean": np.zeros(x.features), "variance": np.square(vector)}
        return x.followed(Stateless("Normalization", (), {**given, "invert": True}))
    link = x.links[-1] if x.links else None
    if not isinstance(link, Stateless) or not link.options.get("invert"):
        raise NoChain
    if link.options["mean"].any():
        raise NoChain
    last = replace(link, options={**link.options, "mean": vector})
    return replace(x, links=(*x.links[:-1], last))


# Recurrent layers.


@_handles("RNN", "GRU", "LSTM")
def _recurrent(
    step: Step, x: Any, W: Any, R: Any, B: Any = None, lengths: Any = None, h: Any = None,
    c: Any = None, P: Any = None,
) -> Any:  # fmt: skip
    x = _signal(x)
    weights = (W, R, B, P)
    if lengths is not None or any(not isinstance(a, np.ndarray | None) for a in weights):
        raise NoChain
    states = ("h", "c") if step.node.operator.name == "LSTM" else ("h",)
    initial = {name: _initial(s) for name, s in zip(states, (h, c), strict=False)}
    batch_first = bool(step.node.get("layout", 0))
    lead = x.axes[:2][::-1] if batch_first else x.axes[:2]
    if len(x.axes) != 3 or {*lead} != {*_LEAD_AXES}:
        raise NoChain
    (time,), (batch,) = lead
    link = Recurrent.of_node(step.node, weights, x.features, time, initial)
    D, H = len(link.reverse), link.hidden_size
    links, index = (*x.links, link), len(x.links)
    sizes = {label: n for label, n in x.sizes.items() if label in _LEAD} | {"H": H, "D": D}
    direction = ("D",) if D > 1 else ()
    axes: Axes = ((time,), direction, (batch,), ("H",))
    axes = tuple(axes[k] for k in (2, 0, 1, 3)) if batch_first else axes
    ends = [
        Finals(links, tuple((index, name, d) for d in range(D)), batch, sizes) for name in states
    ]
    if batch_first and any(step.node.outputs[1:]):
        raise NoChain
    return (Signal(links, axes, sizes), *ends)


def _initial(value: Any) -> Initial | Learned | None:
    """Return which input an initial state is, or which it always is; None for zeros."""
    if value is None or isinstance(value, Zeros):
        return None
    if isinstance(value, np.ndarray) and not value.any():
        return None
    return value if isinstance(value, Initial | Learned) else _no_chain()


@dataclass(slots=True)
class Chain:
    """A graph as layers.

    Attributes
    ----------
    links : tuple of Link
    time_first : bool
        Whether the first axis of input and output is that of time.
    inputs : list
        The names of initial states.
    finals : list of Finals
        Of outputs after the first.
    """

    links: tuple[Link, ...]
    time_first: bool
    inputs: list[str]
    finals: list[Finals] = field(default_factory=list)


def chain_of(graph: Graph) -> Chain | None:
    """Return what layers a graph is a chain of; None if it is none."""
    try:
        walk = Walk(graph)
        first, *finals = walk.outputs
        y = _signal(first)
        if not y.features or not y.links or any(not isinstance(f, Finals) for f in finals):
            return None
        recurrent = [link for link in y.links if isinstance(link, Recurrent)]
        times = {link.time for link in recurrent} or {"x1"}
        if len(times) > 1:
            return None
        time_first = times == {"x0"}
        lead = [axis[0] if len(axis) == 1 else "" for axis in y.axes[:-1]]
        last = any(not link.sequences for link in recurrent)
        if lead != ([_LEAD[time_first]] if last else [*_LEAD]):
            return None
        return Chain(y.links, time_first, walk.inputs, finals)
    except (NoChain, ValueError, TypeError, IndexError, KeyError, RuntimeError, StopIteration):
        return None
