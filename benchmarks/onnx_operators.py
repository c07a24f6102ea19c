"""Random calls of ONNX's operators, by fastrnn.onnx and by ONNX Runtime, in float32.

python benchmarks/onnx_operators.py [--count 1000] [--seed 0]      (pip install onnx onnxruntime)

Six in ten calls are of RNN, GRU and LSTM, the others of the operators around them. Everything is
drawn: sizes, opset, attributes, which inputs there are, and which of them are constants of the
model. The table shows how often each attribute was drawn, and the largest error: the largest
difference, relative to the largest number of ONNX Runtime's output where that is above 1. A
mismatch ends the run with its number; ``--only NUMBER`` runs that one again. The backend is
that of FASTRNN_BACKEND, or the best.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import fastrnn.onnx

TOLERANCE = 1e-5

#: The opsets of which a call is: all with their own versions of these operators.
OPSETS = tuple(range(7, 24))

Rng = np.random.Generator


@dataclass
class Call:
    """One call of an operator.

    Attributes
    ----------
    inputs : list
        Arrays; None where there is none.
    outputs : int or list of bool
        How many, or which.
    theirs : Call or None
        What ONNX Runtime runs instead, as it lacks an option.
    turned : callable, optional
        Turns its outputs into those of this call.
    """

    operator: str
    opset: int
    attributes: dict[str, Any]
    inputs: list[Any]
    outputs: int | list[bool] = 1
    theirs: Call | None = None
    turned: Callable[[list[Any]], list[Any]] | None = None
    constant: list[bool] = field(default_factory=list)

    def model(self) -> onnx.ModelProto:
        """Return a model that is this call."""
        names = ["" if a is None else f"x{k}" for k, a in enumerate(self.inputs)]
        wanted = [True] * self.outputs if isinstance(self.outputs, int) else self.outputs
        outs = [f"y{k}" if there else "" for k, there in enumerate(wanted)]
        while outs and not outs[-1]:
            outs.pop()
        node = helper.make_node(self.operator, names, outs, **self.attributes)
        info = [
            (name, a, constant)
            for name, a, constant in zip(names, self.inputs, self.constant, strict=True)
            if name
        ]
        graph = helper.make_graph(
            [node],
            "call",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a, constant in info
                if not constant
            ],
            [helper.make_empty_tensor_value_info(n) for n in outs if n],
            [numpy_helper.from_array(a, n) for n, a, constant in info if constant],
        )
        # Of the time of the opset, so that ONNX Runtime reads it.
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )

    @property
    def feed(self) -> dict[str, Any]:
        """The inputs that are not constant, by name."""
        return {
            f"x{k}": a
            for k, (a, constant) in enumerate(zip(self.inputs, self.constant, strict=True))
            if a is not None and not constant
        }


def floats(rng: Rng, *shape: int) -> Any:
    return rng.normal(size=shape).astype(np.float32)


def shape_of(rng: Rng, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, 6, rng.integers(least, most + 1)))


def maybe(rng: Rng, p: float = 0.5) -> bool:
    return bool(rng.random() < p)


def opset_of(rng: Rng, least: int = 7, most: int = OPSETS[-1]) -> int:
    return int(rng.choice([n for n in OPSETS if least <= n <= most]))


# Recurrent operators.

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}

#: Activations with the number of parameters, and whether these have defaults in ONNX Runtime.
ACTIVATIONS = {
    "Relu": (0, True), "Tanh": (0, True), "Sigmoid": (0, True), "Softsign": (0, True),
    "Softplus": (0, True), "LeakyRelu": (1, True), "Elu": (1, True), "HardSigmoid": (2, True),
    "ThresholdedRelu": (1, False), "Affine": (2, False), "ScaledTanh": (2, False),
}  # fmt: skip

BOUNDED = {"Tanh", "Sigmoid", "Softsign", "HardSigmoid", "ScaledTanh"}


def drawn_activations(rng: Rng, kind: str, D: int) -> dict[str, Any]:
    """Draw activations, with alpha and beta of all that have them, or of none."""
    n = FUNCTIONS[kind] * D
    given = maybe(rng, 0.7)
    among = [name for name, (_, defaults) in ACTIVATIONS.items() if given or defaults]
    if kind == "RNN":
        # ONNX Runtime's RNN takes the first alpha for the first direction, whether or not that has
        # one, and does not fill in defaults.
        arity = int(rng.integers(3)) if given else 0
        among = [name for name, (count, _) in ACTIVATIONS.items() if count == arity]
    names = [str(name) for name in rng.choice(among, n)]
    chosen: dict[str, Any] = {"activations": names}
    if given:
        for k, which in enumerate(("activation_alpha", "activation_beta")):
            count = sum(ACTIVATIONS[name][0] > k for name in names)
            if count:
                chosen[which] = [float(v) for v in rng.uniform(0.2, 0.7, count).astype(np.float32)]
    return chosen


def recurrent(rng: Rng, kind: str) -> Call:
    """Draw a call of RNN, GRU or LSTM."""
    G, direction = GATES[kind], str(rng.choice(["forward", "reverse", "bidirectional"]))
    D = 2 if direction == "bidirectional" else 1
    T, B, I, H = (int(n) for n in rng.integers(1, (13, 6, 9, 17)))
    opset = opset_of(rng, most=22)
    chosen = drawn_activations(rng, kind, D) if maybe(rng, 0.6) else {}
    # Gates without bounds let states grow until they overflow, here and there at other steps.
    tame = {*chosen.get("activations", ())} <= BOUNDED
    T = T if tame else min(T, 4)
    small = np.float32(1 if tame else 0.5)
    inputs = [
        floats(rng, T, B, I) * small,
        floats(rng, D, G * H, I) * np.float32(0.5 / np.sqrt(I)),
        floats(rng, D, G * H, H) * np.float32(0.8 / np.sqrt(H)) * small,
        floats(rng, D, 2 * G * H) * np.float32(0.3) if maybe(rng, 0.7) else None,
        rng.integers(0, T + 1, B).astype(np.int32) if maybe(rng) else None,
        floats(rng, D, B, H) if maybe(rng) else None,
    ]
    attributes: dict[str, Any] = {"hidden_size": H}
    if kind == "LSTM":
        inputs.append(floats(rng, D, B, H) if maybe(rng) else None)
        inputs.append(floats(rng, D, 3 * H) * small**4 if maybe(rng) else None)
        if maybe(rng, 0.4):
            attributes["input_forget"] = int(maybe(rng))
    if kind == "GRU" and maybe(rng, 0.7):
        attributes["linear_before_reset"] = int(maybe(rng))
    if direction != "forward" or maybe(rng):
        attributes["direction"] = direction
    if maybe(rng, 0.3):
        attributes["clip"] = float(np.float32(rng.uniform(0.3, 2)))
    attributes |= chosen
    outputs = [maybe(rng, 0.7) for _ in range(3 if kind == "LSTM" else 2)]
    outputs[0] |= not any(outputs)
    weights = maybe(rng, 0.7)
    constant = [False, weights, weights, weights, False, False, False, weights][: len(inputs)]
    call = Call(kind, opset, attributes, inputs, outputs, constant=constant)
    return with_layout(rng, call) if opset >= 14 and maybe(rng, 0.3) else call


def with_layout(rng: Rng, theirs: Call) -> Call:
    """Return a call with `layout`: batches first, which ONNX Runtime does not have."""
    layout = int(maybe(rng, 0.8))
    if not layout:
        theirs.attributes["layout"] = 0
        return theirs
    inputs = [
        a if a is None or k not in (0, 5, 6) else np.ascontiguousarray(a.swapaxes(0, 1))
        for k, a in enumerate(theirs.inputs)
    ]

    def turned(outputs: list[Any]) -> list[Any]:
        return [a.transpose(2, 0, 1, 3) if a.ndim == 4 else a.swapaxes(0, 1) for a in outputs]

    return Call(
        theirs.operator, theirs.opset, theirs.attributes | {"layout": layout}, inputs,
        theirs.outputs, theirs, turned, theirs.constant,
    )  # fmt: skip


# The operators around them: each draws a call.

SMALL: dict[str, Callable[[Rng], Call]] = {}


def small(name: str) -> Callable[[Any], Any]:
    def add(draw: Callable[[Rng], Call]) -> Callable[[Rng], Call]:
        SMALL[name] = draw
        return draw

    return add


def axes_call(
    rng: Rng, name: str, since: int, x: Any, axes: list[int], attributes: dict[str, Any],
    least: int = 7, most: int = 23,
) -> Call:  # fmt: skip
    """Return a call whose axes are an attribute before opset `since`, and an input from then on."""
    opset = opset_of(rng, least, most)
    if opset < since:
        return Call(name, opset, attributes | {"axes": axes}, [x])
    return Call(name, opset, attributes, [x, np.array(axes, np.int64)])


def signed(rng: Rng, axis: int, rank: int) -> int:
    return int(axis - rank if maybe(rng) else axis)


def unary(name: str, least: int = 7, positive: bool = False) -> None:
    def draw(rng: Rng) -> Call:
        x = floats(rng, *shape_of(rng))
        return Call(name, opset_of(rng, least), {}, [np.abs(x) + 0.1 if positive else x])

    SMALL[name] = draw


for _name in ("Relu", "Tanh", "Sigmoid", "Identity", "Softplus", "Softsign", "Exp", "Neg", "Abs"):
    unary(_name)
unary("Erf", 9)
unary("Sqrt", positive=True)
unary("Log", positive=True)


def binary(name: str, result: str = "float") -> None:
    def draw(rng: Rng) -> Call:
        shape = shape_of(rng)
        other = tuple(n if maybe(rng, 0.7) else 1 for n in shape)[int(rng.integers(len(shape))) :]
        a, b = floats(rng, *shape), floats(rng, *other)
        if name == "Pow":
            a, b = np.abs(a) + np.float32(0.1), b
        if name == "Equal":
            a, b = np.sign(a).astype(np.int64), np.sign(b).astype(np.int64)
        return Call(name, opset_of(rng, 9), {}, [a, b] if maybe(rng) else [b, a])

    SMALL[name] = draw


for _name in ("Add", "Sub", "Mul", "Div", "Pow", "Equal", "Less", "Greater"):
    binary(_name)


@small("LeakyRelu")
def leaky_relu(rng: Rng) -> Call:
    alpha = {"alpha": float(rng.uniform(0, 1))} if maybe(rng, 0.8) else {}
    return Call("LeakyRelu", opset_of(rng), alpha, [floats(rng, *shape_of(rng))])


@small("Elu")
def elu(rng: Rng) -> Call:
    alpha = {"alpha": float(rng.uniform(0, 2))} if maybe(rng, 0.8) else {}
    return Call("Elu", opset_of(rng), alpha, [floats(rng, *shape_of(rng))])


@small("HardSigmoid")
def hard_sigmoid(rng: Rng) -> Call:
    given = {k: float(rng.uniform(0, 1)) for k in ("alpha", "beta") if maybe(rng, 0.8)}
    return Call("HardSigmoid", opset_of(rng), given, [floats(rng, *shape_of(rng))])


@small("Softmax")
def softmax(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng, 2))
    opset = opset_of(rng)
    axis = int(rng.integers(x.ndim))
    axis = axis if opset < 11 else signed(rng, axis, x.ndim)
    return Call("Softmax", opset, {"axis": axis} if maybe(rng, 0.8) else {}, [x])


@small("LogSoftmax")
def log_softmax(rng: Rng) -> Call:
    call = softmax(rng)
    call.operator = "LogSoftmax"
    return call


@small("MatMul")
def matmul(rng: Rng) -> Call:
    I, O = (int(n) for n in rng.integers(1, 9, 2))
    lead = shape_of(rng, 1, 3)
    b = floats(rng, I, O) if maybe(rng, 0.7) else floats(rng, *lead[:-1], I, O)
    return Call("MatMul", opset_of(rng), {}, [floats(rng, *lead, I), b])


@small("Gemm")
def gemm(rng: Rng) -> Call:
    M, K, N = (int(n) for n in rng.integers(1, 9, 3))
    given: dict[str, Any] = {k: int(maybe(rng)) for k in ("transA", "transB") if maybe(rng, 0.7)}
    given |= {k: float(rng.uniform(0.2, 2)) for k in ("alpha", "beta") if maybe(rng)}
    a = floats(rng, *((K, M) if given.get("transA") else (M, K)))
    b = floats(rng, *((N, K) if given.get("transB") else (K, N)))
    shapes = [(N,), (1, N), (M, 1), (M, N), (1,)]
    opset = opset_of(rng)
    c = floats(rng, *shapes[rng.integers(5)])
    return Call("Gemm", opset, given, [a, b] if opset >= 11 and maybe(rng, 0.2) else [a, b, c])


@small("Gather")
def gather(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng, 1, 3)), opset_of(rng)
    axis = int(rng.integers(x.ndim))
    n = x.shape[axis]
    low = -n if opset >= 11 else 0
    at = rng.integers(low, n, shape_of(rng, 0, 2)).astype(rng.choice([np.int32, np.int64]))
    axis = signed(rng, axis, x.ndim)
    return Call("Gather", opset, {"axis": axis} if axis or maybe(rng) else {}, [x, np.array(at)])


@small("Squeeze")
def squeeze(rng: Rng) -> Call:
    shape = shape_of(rng, 2)
    axes = sorted({int(a) for a in rng.integers(len(shape), size=2)})
    x = floats(rng, *(1 if k in axes else n for k, n in enumerate(shape)))
    if maybe(rng, 0.2):
        return Call("Squeeze", opset_of(rng), {}, [x])
    return axes_call(rng, "Squeeze", 13, x, axes, {}, most=12 if maybe(rng) else 23)


@small("Unsqueeze")
def unsqueeze(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng, 1, 3))
    axes = sorted({int(a) for a in rng.integers(x.ndim + 1, size=2)})
    return axes_call(rng, "Unsqueeze", 13, x, axes, {}, most=12 if maybe(rng) else 23)


@small("Transpose")
def transpose(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng))
    perm = {"perm": [int(k) for k in rng.permutation(x.ndim)]} if maybe(rng, 0.8) else {}
    return Call("Transpose", opset_of(rng), perm, [x])


@small("Reshape")
def reshape(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng, 2)), opset_of(rng)
    allow = {"allowzero": int(maybe(rng))} if opset >= 14 and maybe(rng) else {}
    shape = [x.shape[0] if allow.get("allowzero") else 0, -1]
    return Call("Reshape", opset, allow, [x, np.array(shape if maybe(rng) else [-1], np.int64)])


@small("Flatten")
def flatten(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng, 2))
    axis = {"axis": int(rng.integers(x.ndim + 1))} if maybe(rng, 0.9) else {}
    return Call("Flatten", opset_of(rng), axis, [x])


@small("Concat")
def concat(rng: Rng) -> Call:
    shape, opset = list(shape_of(rng)), opset_of(rng)
    axis = int(rng.integers(len(shape)))
    parts = []
    for _ in range(rng.integers(1, 4)):
        shape[axis] = int(rng.integers(1, 5))
        parts.append(floats(rng, *shape))
    axis = signed(rng, axis, len(shape)) if opset >= 11 else axis
    return Call("Concat", opset, {"axis": axis}, parts)


@small("Slice")
def slice_(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng, 1, 3)), opset_of(rng, most=9 if maybe(rng, 0.3) else 23)
    axes = sorted({int(a) for a in rng.integers(x.ndim, size=2)})
    starts = [int(rng.integers(-x.shape[a], x.shape[a])) for a in axes]
    ends = [int(rng.integers(-x.shape[a], x.shape[a] + 3)) for a in axes]
    if opset < 10:
        given = {"starts": starts, "ends": ends}
        if axes != list(range(len(axes))) or maybe(rng):
            given["axes"] = axes
        return Call("Slice", opset, given, [x])
    arrays = [np.array(v, np.int64) for v in (starts, ends, axes)]
    if maybe(rng):
        arrays.append(np.array([rng.choice([-2, -1, 1, 2]) for _ in axes], np.int64))
    return Call("Slice", opset, {}, [x, *arrays])


@small("Split")
def split(rng: Rng) -> Call:
    shape = list(shape_of(rng, 1, 3))
    axis, count = int(rng.integers(len(shape))), int(rng.integers(1, 4))
    opset = opset_of(rng, *[(7, 12), (13, 17), (18, 23)][rng.integers(3)])
    sizes = [int(n) for n in rng.integers(1, 4, count)]
    equal = maybe(rng)
    sizes = [sizes[0]] * count if equal else sizes
    shape[axis] = sum(sizes)
    x = floats(rng, *shape)
    given: dict[str, Any] = {"axis": axis} if axis or maybe(rng) else {}
    if opset >= 18 and equal and maybe(rng, 0.7):
        return Call("Split", opset, given | {"num_outputs": count}, [x], count)
    if opset >= 13:
        return Call("Split", opset, given, [x, np.array(sizes, np.int64)], count)
    return Call("Split", opset, given | ({} if equal else {"split": sizes}), [x], count)


@small("LayerNormalization")
def layer_normalization(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng, 1, 3), 6)
    axis = int(rng.integers(x.ndim)) if maybe(rng) else x.ndim - 1
    given: dict[str, Any] = {}
    if axis != x.ndim - 1 or maybe(rng):
        given["axis"] = signed(rng, axis, x.ndim)
    if maybe(rng):
        given["epsilon"] = float(np.float32(rng.uniform(1e-5, 1e-2)))
    if maybe(rng):
        given["stash_type"] = 1
    weights = [floats(rng, *x.shape[axis:]) for _ in range(rng.integers(1, 3))]
    return Call("LayerNormalization", opset_of(rng, 17), given, [x, *weights])


@small("Dropout")
def dropout(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng)), opset_of(rng, 10, 11 if maybe(rng, 0.6) else 23)
    if opset < 12:
        return Call("Dropout", opset, {"ratio": 0.3} if maybe(rng, 0.8) else {}, [x])
    seed = {"seed": int(rng.integers(9))} if maybe(rng, 0.8) else {}
    return Call("Dropout", opset, seed, [x, np.float32(0.3)[...]] if maybe(rng) else [x])


@small("Cast")
def cast(rng: Rng) -> Call:
    numbers = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64,
               TensorProto.BOOL, TensorProto.FLOAT16)  # fmt: skip
    x, opset = floats(rng, *shape_of(rng)) * 5, opset_of(rng, 9)
    given = {"to": int(rng.choice(numbers))}
    if opset >= 19:
        given["saturate"] = 1
    return Call("Cast", opset, given, [x.astype(rng.choice([np.float32, np.int64]))])


@small("Constant")
def constant(rng: Rng) -> Call:
    opset = opset_of(rng, 12)
    values: dict[str, Any] = {
        "value": numpy_helper.from_array(floats(rng, *shape_of(rng))),
        "value_float": 0.5, "value_floats": [0.5, 1.5], "value_int": 3, "value_ints": [3, 4, 5],
        "value_string": "ab", "value_strings": ["ab", "c"],
    }  # fmt: skip
    name = str(rng.choice([*values]))
    opset = opset_of(rng) if name == "value" else opset
    return Call("Constant", opset, {name: values[name]}, [])


@small("ConstantOfShape")
def constant_of_shape(rng: Rng) -> Call:
    value = (
        {"value": numpy_helper.from_array(np.array([2.5], np.float32))} if maybe(rng, 0.8) else {}
    )
    shape = np.array(shape_of(rng), np.int64)
    return Call("ConstantOfShape", opset_of(rng, 9), value, [shape])


@small("Shape")
def shape(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng)), opset_of(rng, 15 if maybe(rng, 0.8) else 7)
    given = {k: int(rng.integers(-x.ndim, x.ndim + 1)) for k in ("start", "end") if maybe(rng)}
    return Call("Shape", opset, given if opset >= 15 else {}, [x])


@small("Expand")
def expand(rng: Rng) -> Call:
    wanted = shape_of(rng)
    x = floats(rng, *(n if maybe(rng) else 1 for n in wanted))
    return Call("Expand", opset_of(rng, 8), {}, [x, np.array(wanted, np.int64)])


def reduction(name: str, since: int) -> None:
    def draw(rng: Rng) -> Call:
        x, opset = floats(rng, *shape_of(rng, 2)), opset_of(rng)
        axes = sorted({int(a) for a in rng.integers(x.ndim, size=2)})
        given: dict[str, Any] = {"keepdims": int(maybe(rng))} if maybe(rng, 0.7) else {}
        if opset >= since and maybe(rng, 0.8):
            given["noop_with_empty_axes"] = int(maybe(rng))
        if maybe(rng, 0.2):
            return Call(name, opset, given, [x])
        if opset < since:
            return Call(name, opset, given | {"axes": axes}, [x])
        return Call(name, opset, given, [x, np.array(axes, np.int64)])

    SMALL[name] = draw


reduction("ReduceSum", 13)
for _name in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2"):
    reduction(_name, 18)


@small("ArgMax")
def arg_max(rng: Rng) -> Call:
    x, opset = np.rint(floats(rng, *shape_of(rng, 2))), opset_of(rng)
    axis = int(rng.integers(x.ndim))
    given: dict[str, Any] = {"axis": axis} if axis or maybe(rng) else {}
    if maybe(rng):
        given["keepdims"] = int(maybe(rng))
    if opset >= 12 and maybe(rng):
        given["select_last_index"] = int(maybe(rng))
    return Call("ArgMax", opset, given, [x])


@small("Where")
def where(rng: Rng) -> Call:
    wanted = shape_of(rng)
    a, b = floats(rng, *wanted), floats(rng, *(n if maybe(rng) else 1 for n in wanted))
    return Call("Where", opset_of(rng, 9), {}, [rng.random(wanted) < 0.5, a, b])


@small("Range")
def range_(rng: Rng) -> Call:
    step = int(rng.choice([-2, -1, 1, 2, 3]))
    numbers = (2, 2 + step * int(rng.integers(0, 5)) + 1, step)
    return Call("Range", opset_of(rng, 11), {}, [np.array(n, np.int64) for n in numbers])


@small("Clip")
def clip(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng)), opset_of(rng, most=10 if maybe(rng, 0.7) else 23)
    if opset < 11:
        bounds = {"min": -0.5, "max": 0.7}
        return Call("Clip", opset, {k: v for k, v in bounds.items() if maybe(rng, 0.8)}, [x])
    return Call("Clip", opset, {}, [x, np.array(-0.5, "f"), np.array(0.7, "f")])


@small("ReverseSequence")
def reverse_sequence(rng: Rng) -> Call:
    x = floats(rng, *(int(n) for n in rng.integers(2, 6, 3)))
    given = {}
    if maybe(rng, 0.7):
        given = (
            {"time_axis": 1, "batch_axis": 0} if maybe(rng) else {"time_axis": 0, "batch_axis": 1}
        )
    time, batch = given.get("time_axis", 0), given.get("batch_axis", 1)
    lengths = rng.integers(1, x.shape[time] + 1, x.shape[batch]).astype(np.int64)
    return Call("ReverseSequence", opset_of(rng, 10), given, [x, lengths])


@small("CumSum")
def cum_sum(rng: Rng) -> Call:
    x = floats(rng, *shape_of(rng, 2))
    given = {k: int(maybe(rng)) for k in ("exclusive", "reverse") if maybe(rng)}
    axis = np.array(signed(rng, int(rng.integers(x.ndim)), x.ndim), np.int64)
    return Call("CumSum", opset_of(rng, 11), given, [x, axis])


@small("TopK")
def top_k(rng: Rng) -> Call:
    x, opset = floats(rng, *shape_of(rng, 2)), opset_of(rng, most=9 if maybe(rng, 0.3) else 23)
    axis = int(rng.integers(x.ndim))
    given: dict[str, Any] = {"axis": axis} if axis != x.ndim - 1 or maybe(rng) else {}
    if opset < 10:
        return Call("TopK", opset, given | {"k": int(rng.integers(1, x.shape[axis] + 1))}, [x], 2)
    if opset == 10:
        return Call("TopK", opset, given, [x, np.array([1], np.int64)], 2)
    if maybe(rng):
        given["largest"] = int(maybe(rng))
    if maybe(rng):
        given["sorted"] = 1
    k = np.array([rng.integers(1, x.shape[axis] + 1)], np.int64)
    return Call("TopK", opset, given, [x, k], 2)


@small("OneHot")
def one_hot(rng: Rng) -> Call:
    at = rng.integers(-5, 5, shape_of(rng, 1, 2)).astype(np.int64)
    axis = {"axis": int(rng.integers(-1, at.ndim))} if maybe(rng, 0.7) else {}
    values = floats(rng, 2)
    return Call("OneHot", opset_of(rng, 9), axis, [at, np.array(5, np.int64), values])


#: Attributes that are never drawn, as fastrnn.onnx does not read them.
NOT_READ = {"Constant": {"sparse_value"}}


@cache
def attributes_of(name: str) -> list[str]:
    """Return all attributes that an operator has in the opsets that are drawn."""
    found: dict[str, None] = {}
    for opset in OPSETS:
        if opset <= 22:
            try:
                schema = onnx.defs.get_schema(name, opset)
            except onnx.defs.SchemaError:
                continue
            found |= dict.fromkeys(schema.attributes)
    return [a for a in found if a not in NOT_READ.get(name, ())]


def drawn(number: int, seed: int) -> Call:
    """Draw the call of this number."""
    rng = np.random.default_rng([seed, number])
    if number % 10 < 6:
        return recurrent(rng, str(rng.choice([*GATES])))
    # Each in turn, those with attributes more often, so that none is left out.
    names = [name for name in SMALL for _ in range(1 + 3 * len(attributes_of(name)))]
    call = SMALL[names[(number // 10 * 4 + number % 10 - 6) % len(names)]](rng)
    call.constant = [maybe(rng, 0.4) and k > 0 for k in range(len(call.inputs))]
    return call


def theirs_of(call: Call) -> list[Any]:
    """Return what ONNX Runtime computes."""
    run = call.theirs or call
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # As written: so that an error is not one of its optimizer.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        run.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Any] = session.run(None, run.feed)
    return call.turned(outputs) if call.turned else outputs


def error_of(call: Call) -> float:
    """Return the largest difference between both."""
    ours = fastrnn.onnx.load(call.model().SerializeToString(), as_graph=True).run(None, call.feed)
    largest = 0.0
    for mine, other in zip(ours, theirs_of(call), strict=True):
        other = np.asarray(other)
        if mine.shape != other.shape or mine.dtype != other.dtype:
            raise ValueError(f"{mine.dtype} {mine.shape} for {other.dtype} {other.shape}")
        if other.dtype.kind != "f":
            if not np.array_equal(mine, other):
                return float("inf")
        elif other.size:
            if not np.array_equal(np.isfinite(mine), np.isfinite(other)):
                return float("inf")
            mine, other = mine.astype(np.float64), other.astype(np.float64)
            scale = max(1.0, float(np.abs(other).max()))
            largest = max(largest, float(np.abs(mine - other).max()) / scale)
    return largest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of a single call")
    parser.add_argument("--some", action="store_true", help="attributes may be left out")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.only is None else [options.only]
    calls: Counter[str] = Counter()
    attributes: Counter[tuple[str, str]] = Counter()
    largest: dict[str, float] = {}
    for number in numbers:
        call = drawn(number, options.seed)
        calls[call.operator] += 1
        attributes.update((call.operator, name) for name in call.attributes)
        error = error_of(call)
        largest[call.operator] = max(largest.get(call.operator, 0.0), error)
        if not error <= TOLERANCE:
            print(f"number {number}, {call.operator}, opset {call.opset}, {call.attributes}: "
                  f"error {error:.1e}", file=sys.stderr)  # fmt: skip
            return 1
    missing = []
    for name in sorted(calls, key=lambda n: (n not in GATES, n)):
        drawn_here = [(a, attributes[name, a]) for a in attributes_of(name)]
        missing += [f"{name}.{a}" for a, n in drawn_here if not n]
        shown = ", ".join(f"{a} {n}" for a, n in drawn_here)
        print(f"{name:20} {calls[name]:4} calls, error {largest[name]:.1e}  {shown}")
    if options.only is None and not options.some and missing:
        print(f"never drawn: {', '.join(missing)}", file=sys.stderr)
        return 1
    print(
        f"{fastrnn.backend()}: {sum(calls.values())} calls, none skipped, "
        f"error {max(largest.values()):.1e}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
