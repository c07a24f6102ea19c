"""Graphs that are chains of layers, and others that nearly are: the same numbers as the graph's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastrnn

onnx = pytest.importorskip("onnx")

B, T, I, H, O = 3, 6, 4, 5, 2


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def constants(D: int = 1) -> dict[str, Any]:
    """Return what bodies name: weights of a GRU, of a map, of a normalisation; axes and sizes."""
    numbers = {f"i{n}".replace("-", "m"): np.array(n) for n in (-2, -1, 0, 1, 2)}
    axes = {f"a{n}".replace("-", "m"): np.array([n]) for n in (-1, 0, 1, 2)}
    return numbers | axes | {
        "W": drawn(D, 3 * H, I), "R": drawn(D, 3 * H, H), "V": drawn(H, O), "b": drawn(O),
        "gain": drawn(I), "shift": drawn(I, seed=1), "spread": np.abs(drawn(I, seed=2)) + 1,
        "two": np.float32(2), "three": np.float32(3), "eps": np.float32(1e-3),
        "learned": drawn(1, 1, H, seed=3), "ones": np.ones((1, B, H), np.float32),
        "table": drawn(7, I), "far": np.array([2**31 - 1]), "merged": np.array([0, -1]),
        "flat": np.array([B, -1]), "each": np.array([1, 1]),
        "no": np.array(False), "W5": drawn(D, 3 * H, H), "unequal": np.array([2, 3]),
        "wide": drawn(I).astype(np.float64), "double": np.abs(drawn(I, seed=2)).astype(np.float64),
        "half": np.float32(0.5), "column": drawn(T, 1),
    }  # fmt: skip


def model_of(body: str, inputs: str, opset: int, D: int) -> bytes:
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => (float y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    named = {n for node in model.graph.node for n in node.input}
    for name, array in constants(D).items():
        if name in named:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    data: bytes = model.SerializeToString()
    return data


def check(
    body: str, layers: Sequence[str] | None, *, tokens: bool = False, opset: int = 17, D: int = 1,
    fixed: bool = False,
) -> None:  # fmt: skip
    """Compare what is loaded, which has these layers or is a graph, with the graph's evaluation."""
    inputs = "int64[b, t] x" if tokens else f"float[b, t, {I}] x"
    inputs = f"float[{B}, {T}, {I}] x" if fixed else inputs
    data = model_of(body, inputs, opset, D)
    model, graph = fastrnn.onnx.load(data), fastrnn.onnx.load(data, as_graph=True)
    found = [type(a).__name__ for a in getattr(model, "layers", [])] or None
    assert found == (layers if layers is None else [*layers])
    x = np.arange(B * T).reshape(B, T) % 7 if tokens else drawn(B, T, I)
    np.testing.assert_allclose(model(x), graph(x), rtol=1e-5, atol=1e-6)


#: A GRU whose output of all steps is y, from s.
GRU = f"r = Transpose<perm = [1, 0, 2]>(s) y4, h = GRU<hidden_size = {H}>(r, W, R) "
ALL = "q = Squeeze(y4, a1) y = Transpose<perm = [1, 0, 2]>(q)"
FROM_X = GRU.replace("(s)", "(x)")
BOTH = FROM_X.replace("<hidden", '<direction = "bidirectional", hidden')

MEAN = "m = ReduceMean<axes = [-1]>(x) c = Sub(x, m) "
DIVIDED = "v = ReduceMean<axes = [-1]>(p) e = Add(v, eps) d = Sqrt(e) n = Div(c, d) "
SCALED = "w = Mul(n, gain) s = Add(w, shift) "

CHAINS: dict[str, tuple[str, list[str]]] = {
    "a normalisation in nine nodes": (
        MEAN + "p = Pow(c, two) " + DIVIDED + SCALED + GRU + ALL, ["LayerNorm", "GRU"]
    ),
    "whose square is a product": (
        MEAN + "p = Mul(c, c) " + DIVIDED + "s = Identity(n) " + GRU + ALL, ["LayerNorm", "GRU"]
    ),
    "without a bias": (
        "s = LayerNormalization<epsilon = 0.01>(x, gain) " + GRU + ALL, ["LayerNorm", "GRU"]
    ),
    "a mean and a deviation": (
        "c = Sub(x, shift) s = Div(c, spread) " + GRU + ALL, ["Normalization", "GRU"]
    ),
    "a number that is added": ("s = Add(x, two) " + GRU + ALL, ["Activation", "GRU"]),
    "a number that is multiplied": ("s = Mul(three, x) " + GRU + ALL, ["Activation", "GRU"]),
    "an axis more, and less": (
        "u = Unsqueeze(x, a1) s = Squeeze(u, a1) " + GRU + ALL, ["GRU"]
    ),
    "a shape again": (
        FROM_X + "q = Squeeze(y4, a1) z = Reshape(q, merged) "
        "k = Constant<value_ints = [6, 3, 5]>() o = Reshape(z, k) "
        "y = Transpose<perm = [1, 0, 2]>(o)", ["GRU"],
    ),
    "a dropout": (FROM_X + ALL.replace("y =", "o =") + " y = Dropout(o)", ["GRU", "Dropout"]),
    "a dropout of half": (
        FROM_X + ALL.replace("y =", "o =") + " y, mask = Dropout(o, half, no)", ["GRU", "Dropout"]
    ),
    "the final state": (FROM_X + "y = Squeeze(h, a0)", ["GRU"]),
    "the final state by its number": (FROM_X + "y = Gather<axis = 0>(h, i0)", ["GRU"]),
    "and back": (
        FROM_X + "f = Squeeze(h, a0) g = Unsqueeze(f, a0) y = Squeeze(g, a0)", ["GRU"]
    ),
    "the last step": (FROM_X + "q = Squeeze(y4, a1) y = Gather(q, im1)", ["GRU"]),
    "a slice of the last step": (
        FROM_X + "q = Squeeze(y4, a1) l = Slice(q, am1, far, a0) y = Squeeze(l, a0)", ["GRU"]
    ),
    "a slice of all": (FROM_X + "q = Squeeze(y4, a1) z = Slice(q, a0, far, a0) "
                       "y = Transpose<perm = [1, 0, 2]>(z)", ["GRU"]),
    "a map of the final state": (
        FROM_X + "f = Squeeze(h, a0) y = Gemm(f, V, b)", ["GRU", "Linear"]
    ),
    "without one": (FROM_X + "f = Squeeze(h, a0) y = Gemm<alpha = 0.5>(f, V)", ["GRU", "Linear"]),
    "an initial state of zeros": (
        "r = Transpose<perm = [1, 0, 2]>(x) k = Constant<value_ints = [1, 3, 5]>() "
        "z = ConstantOfShape(k) z2 = Identity(z) z3 = Cast<to = 1>(z2) "
        f"y4, h = GRU<hidden_size = {H}>(r, W, R, , , z3) " + ALL, ["GRU"],
    ),
    "an axis that is taken away by its number": (
        "u = Unsqueeze(x, a1) s = Gather<axis = 1>(u, i0) " + GRU + ALL, ["GRU"]
    ),
    "a layer that is batch-first": (
        f"y4 = GRU<layout = 1, hidden_size = {H}>(x, W, R) y = Squeeze(y4, a2)", ["GRU"]
    ),
    "zeros that are taken apart": (
        "r = Transpose<perm = [1, 0, 2]>(x) k = Constant<value_ints = [2, 3, 5]>() "
        "one = Constant<value_ints = [1, 3, 5]>() z = ConstantOfShape(k) n, o = Split(z, each) "
        "z1 = Reshape(n, one) z2 = Transpose<perm = [0, 1, 2]>(z1) z3 = Unsqueeze(z2, a0) "
        "z4 = Squeeze(z3, a0) z5 = Gather(z4, i0) z6 = Unsqueeze(z5, a0) "
        f"y4, h = GRU<hidden_size = {H}>(r, W, R, , , z6) " + ALL, ["GRU"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain(name: str) -> None:
    check(*CHAINS[name], fixed="again" in name)


@pytest.mark.parametrize(
    ("body", "layers"),
    [
        # As torch writes the final states of both directions.
        ("f = Gather<axis = 0>(h, i0) g = Gather<axis = 0>(h, i1) y = Concat<axis = 1>(f, g)",
         ["GRU"]),
        ("f = Gather<axis = 0>(h, im2) g = Gather<axis = 0>(h, im1) y = Concat<axis = -1>(f, g)",
         ["GRU"]),
        ("f, g = Split<axis = 0>(h) p = Squeeze(f, a0) q = Squeeze(g, a0) y = Concat<axis = 1>(p, "
         "q)", ["GRU"]),
        ("f, g = Split<axis = 0>(h, each) k = Concat<axis = 0>(f, g) t = Transpose<perm = [1, 0, "
         "2]>(k) y = Reshape(t, merged)", ["GRU"]),
        # In another order, or one of them alone.
        ("f = Gather<axis = 0>(h, i0) g = Gather<axis = 0>(h, i1) y = Concat<axis = 1>(g, f)",
         None),
        ("f = Gather<axis = 0>(h, i0) g = Gather<axis = 0>(h, i1) y = Concat<axis = 0>(f, g)",
         None),
        ("y = Gather<axis = 0>(h, i0)", None),
        ("f = Slice(h, a1, far, a0) y = Squeeze(f, a0)", None),
        ("f = Gather<axis = 0>(h, i0) y = Slice(f, a1, far, a0)", None),
        ("f, g = Split<axis = 0>(h) y = Concat<axis = 1>(f, g)", None),
        ("f = Gather<axis = 1>(h, i0) y = Identity(f)", None),
    ],
)  # fmt: skip
def test_final_states_of_both_directions(body: str, layers: list[str] | None) -> None:
    check(BOTH + body, layers, D=2)


#: Each lacks something of a chain.
GRAPHS = {
    "a cube": MEAN + "p = Pow(c, three) a = Abs(p) " + DIVIDED.replace("(p)", "(a)") + SCALED,
    "the mean of another axis": MEAN.replace("-1", "1") + "p = Mul(c, c) " + DIVIDED + SCALED,
    "no root": MEAN + "p = Mul(c, c) v = ReduceMean<axes = [-1]>(p) e = Add(v, eps) s = Div(c, e) ",
    "two means": MEAN + "k = ReduceMean<axes = [-1]>(c) s = Sub(c, k) ",
    "a normalisation along time": (
        "a = Transpose<perm = [0, 2, 1]>(x) k = Constant<value = float[6] {1, 2, 3, 4, 5, 6}>() "
        "n = LayerNormalization(a, k) s = Transpose<perm = [0, 2, 1]>(n) "
    ),
    "a softmax along time": "s = Softmax<axis = 1>(x) ",
    "a power": "s = Pow(x, two) ",
    "a number for each step": "s = Add(x, column) ",
    "itself": "s = Add(x, x) ",
    "a weight for each step": "s = Mul(x, column) ",
    "a deviation of inputs": "s = Div(x, x) ",
    "features and steps exchanged": (
        "a = Reshape(x, flat) k = Constant<value_ints = [3, 6, 4]>() "
        "z = Transpose<perm = [1, 0]>(a) e = Transpose<perm = [1, 0]>(z) o = Reshape(e, k) "
        "u = Neg(o) s = Abs(u) "
    ),
    "the steps from the second on": "s = Slice(x, a1, far, a1) ",
    "a normalisation of steps and features": "s = LayerNormalization<axis = 1>(x, gain) ",
    "a mean that is shifted": MEAN + "k = Add(m, eps) s = Sub(x, k) ",
    "powers": "a = Abs(x) s = Pow(a, spread) ",
    "half precision": "k = Cast<to = 10>(x) s = Cast<to = 1>(k) ",
    "a mean in float64": "k = Cast<to = 11>(x) z = Add(k, wide) s = Cast<to = 1>(z) ",
    "two means in float64": (
        "k = Cast<to = 11>(x) l = Mul(k, double) o = Add(l, wide) z = Add(o, wide) "
        "s = Cast<to = 1>(z) "
    ),
    "a weight after a rectifier": "k = Relu(x) s = Mul(k, gain) ",
    "every second step": "s = Slice(x, a0, far, a1, a2) ",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_before_a_layer(name: str) -> None:
    check(GRAPHS[name] + GRU + ALL, None)


@pytest.mark.parametrize(
    "body",
    [
        "q = Squeeze(y4, a1) y = Gather(q, i0)",  # the first step
        "q = Squeeze(y4, a1) l = Slice(q, a0, a1, a0) y = Squeeze(l, a0)",
        "f = Squeeze(h, a0) y = Gemm<transA = 1>(f, f)",
        "f = Squeeze(h, a0) g = Transpose<perm = [1, 0]>(f) y = MatMul(f, g)",
        "k = Constant<value = float[3, 2] {1, 2, 3, 4, 5, 6}>() f = Squeeze(h, a0) "
        "y = Gemm(f, V, k)",
        "y = Squeeze(y4, a1)",  # time-first, of a batch-first input
        "y = ReduceMean<axes = [0]>(y4)",
        "q = Squeeze(y4, a1) y = Concat<axis = 2>(q, q)",
        "q = Squeeze(y4, a1) y, z = Split<axis = 2>(q, unequal)",
        "q = Squeeze(y4, a1) y = Gather(q, each)",
        # A second layer over the final state, and one across the batch.
        "f = Squeeze(h, a0) u = Unsqueeze(f, a0) z, k = GRU<hidden_size = 5>(u, W5, R) "
        "y = Squeeze(k, a0)",
        "q = Squeeze(y4, a1) t = Transpose<perm = [1, 0, 2]>(q) "
        "z = GRU<hidden_size = 5>(t, W5, R) y = Squeeze(z, a1)",
    ],
)
def test_a_graph_after_a_layer(body: str) -> None:
    check(FROM_X + body, None)


@pytest.mark.parametrize(
    "body",
    [
        "y = Transpose<perm = [1, 0, 2]>(x)",
        f"y4, h = GRU<layout = 1, hidden_size = {H}>(x, W, R) y = Squeeze(h, a1)",
        "r = Transpose<perm = [1, 0, 2]>(x) k = Constant<value_ints = [1, 3, 5]>() "
        "z = ConstantOfShape<value = float[1] {1}>(k) "
        f"y4, h = GRU<hidden_size = {H}>(r, W, R, , , z) y = Squeeze(h, a0)",
    ],
)
def test_other_graphs(body: str) -> None:
    check(body, None)


def test_initial_states_in_another_order() -> None:
    """Two layers, the first of which begins with what is second in the input."""
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[t, b, {I}] x, float[2, b, {H}] h0) => (float[t, b, {H}] y) {{
        first, second = Split<axis = 0>(h0)
        z4 = GRU<hidden_size = {H}>(x, W, R, , , FIRST) z = Squeeze(z4, a1)
        y4 = GRU<hidden_size = {H}>(z, W5, R, , , SECOND) y = Squeeze(y4, a1)
    }}"""
    named = {n: a for n, a in constants().items() if n in ("W", "R", "W5", "a1")}
    x, h = drawn(T, B, I), drawn(2, B, H)
    for order in (("first", "second"), ("second", "first")):
        model = onnx.parser.parse_model(text.replace("FIRST", order[0]).replace("SECOND", order[1]))
        model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in named.items())
        graph = fastrnn.onnx.load(model.SerializeToString(), as_graph=True)
        loaded = fastrnn.onnx.load(model.SerializeToString())
        assert isinstance(loaded, fastrnn.GRU) == (order[0] == "first")
        y = loaded(x, h)
        y = y[0] if isinstance(loaded, fastrnn.GRU) else y
        np.testing.assert_allclose(y, graph(x, h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["Expand", "Tile", "ones", "tiled ones", "slice"])
def test_initial_states_that_are_weights(how: str) -> None:
    state = {
        "Expand": "k = Constant<value_ints = [1, 3, 5]>() z = Expand(learned, k) ",
        "Tile": "k = Constant<value_ints = [1, 3, 1]>() z = Tile(learned, k) ",
        "ones": "z = Identity(ones) ",
        "tiled ones": "k = Constant<value_ints = [1, 1, 1]>() z = Tile(ones, k) ",
        "slice": "k = Constant<value_ints = [1, 3, 5]>() e = Expand(learned, k) "
        "z = Slice(e, a0, far, a0) ",
    }[how]
    body = f"r = Transpose<perm = [1, 0, 2]>(x) {state}"
    body += f"y4, h = GRU<hidden_size = {H}>(r, W, R, , , z) "
    check(body + ALL, None if "ones" in how else ["GRU"])


TOKENS = {
    "a table": ("s = Gather(table, x) ", ["Embedding", "GRU"]),
    "of another type": ("k = Cast<to = 6>(x) s = Gather(table, k) ", ["Embedding", "GRU"]),
    "by columns": (
        "w = Transpose<perm = [1, 0]>(table) g = Gather<axis = 1>(w, x) "
        "s = Transpose<perm = [1, 2, 0]>(g) ", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name: str) -> None:
    body, layers = TOKENS[name]
    check(body + GRU + ALL, layers, tokens=True)


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_attributes_of_older_opsets(opset: int) -> None:
    """Axes, starts and ends that were attributes."""
    old = opset < 13
    squeezed = "q = Squeeze<axes = [1]>(y4) " if old else "q = Squeeze(y4, a1) "
    last = (
        "l = Slice<axes = [0], starts = [-1], ends = [2147483647]>(q) "
        if opset < 10
        else "l = Slice(q, am1, far, a0) "
    )
    end = "y = Squeeze<axes = [0]>(l)" if old else "y = Squeeze(l, a0)"
    check(FROM_X + squeezed + last + end, ["GRU"], opset=opset)
    parts = "f, g = Split<axis = 0, split = [1, 1]>(h) " if old else "f, g = Split<axis = 0>(h) "
    both = "p = Squeeze<axes = [0]>(f) o = Squeeze<axes = [0]>(g) y = Concat<axis = 1>(p, o)"
    both = both if old else both.replace("<axes = [0]>(f)", "(f, a0)").replace(
        "<axes = [0]>(g)", "(g, a0)"
    )  # fmt: skip
    check(BOTH + parts + both, ["GRU"], opset=opset, D=2)
