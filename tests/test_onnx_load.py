"""ONNX models read: as layers where they are chains of them, else evaluated; and their walls."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
load = fastrnn.onnx.load

B, T, I, H, O = 3, 6, 4, 5, 2
#: Rounding in float32, over T steps.
CLOSE = 1e-6


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def model_of(text: str, **tensors: Any) -> bytes:
    """Return a model in ONNX's textual syntax, and its initializers."""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in tensors.items())
    data: bytes = model.SerializeToString()
    return data


def opset(number: int) -> str:
    return f'<ir_version: 8, opset_import: ["": {number}, "com.microsoft": 1, "ai.onnx.ml": 3]>'


ADD = model_of(opset(17) + "g (float[n, 2] x, int64 k) => (float[n, 2] y, int64 z)"
               "{ y = Add(x, x) z = Add(k, k) }")  # fmt: skip


# Layers.


def saved(model: Any, path: Path, **options: Any) -> Any:
    """Return the model that is read from what is written, without what it says of its layers."""
    fastrnn.onnx.save(model, path / "m.onnx", **options)
    proto = onnx.load(path / "m.onnx")
    del proto.metadata_props[:]
    return load(proto.SerializeToString())


RECURRENT = [
    fastrnn.RNN(I, H),
    fastrnn.RNN(I, H, nonlinearity="relu", bidirectional=True, batch_first=True),
    fastrnn.LSTM(I, H, num_layers=2, bias=False),
    fastrnn.LSTM(I, H, num_layers=2, bidirectional=True, peephole=True, batch_first=True),
    fastrnn.GRU(I, H, return_sequences=False),
    fastrnn.GRU(I, H, reset_after=False, bidirectional=True, return_sequences=False),
]


@pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
@pytest.mark.parametrize("layer", RECURRENT, ids=repr)
def test_a_recurrent_layer_again(layer: Any, states: bool, tmp_path: Path, same_bits: Any) -> None:
    again = saved(layer, tmp_path, states=states)
    assert repr(again) == repr(layer)
    x = drawn(B, T, I)
    assert same_bits(again(x), layer(x))
    assert same_bits(again.state_dict(), layer.state_dict())


MODELS = [
    [fastrnn.Embedding(7, I), fastrnn.LSTM(I, H, bidirectional=True), fastrnn.Linear(2 * H, O)],
    [fastrnn.LayerNorm(I), fastrnn.GRU(I, H, return_sequences=False), fastrnn.Linear(H, O)],
    [fastrnn.Linear(I, H, bias=False), fastrnn.Tanh(), fastrnn.RNN(H, H, 2), fastrnn.ReLU(),
     fastrnn.Linear(H, O), fastrnn.Softmax()],
]  # fmt: skip


@pytest.mark.parametrize("layers", MODELS, ids=str)
def test_a_model_again(layers: Any, tmp_path: Path, same_bits: Any) -> None:
    model = fastrnn.Sequential(copy.deepcopy(layers), seed=0)
    again = saved(model, tmp_path)
    assert isinstance(again, fastrnn.Sequential)
    assert [type(a) for a in again.layers] == [type(a) for a in model.layers]
    x = np.arange(B * T).reshape(B, T) % 7 if model.vocabulary else drawn(B, T, I)
    assert same_bits(again.predict(x), model.predict(x))
    again.compile("adam", "mse")
    again.fit(x, np.zeros_like(model.predict(x)), verbose=0)


def test_a_model_with_states_again(tmp_path: Path) -> None:
    model = fastrnn.Sequential([fastrnn.LSTM(I, H), fastrnn.GRU(H, H), fastrnn.Linear(H, O)])
    again = saved(model, tmp_path, states=True)
    assert [type(a).__name__ for a in again.layers] == ["LSTM", "GRU", "Linear"]
    x, state = drawn(B, T, I), [(drawn(1, B, H), drawn(1, B, H, seed=1)), drawn(1, B, H, seed=2)]
    for mine, other in zip(again(x, state)[1], model(x, state)[1], strict=True):
        np.testing.assert_array_equal(mine, other)


def test_layers_that_are_time_first() -> None:
    W, R, w, b = drawn(1, H, I), drawn(1, H, H), drawn(H, O), drawn(O)
    text = (
        opset(13)
        + """g (float[t, b, 4] x) => (float[t, b, 2] y) {
        all = RNN<hidden_size = 5>(x, W, R) one = Constant<value_ints = [1]>()
        h = Squeeze(all, one) z = MatMul(h, w) y = Add(z, c) }"""
    )
    data, x = model_of(text, W=W, R=R, w=w, c=b), drawn(T, B, I)
    model, graph = load(data, batch_first=True), load(data)
    assert [type(a).__name__ for a in model.layers] == ["RNN", "Linear"]
    assert isinstance(graph, fastrnn.onnx.Model)
    np.testing.assert_allclose(model(x.swapaxes(0, 1)).swapaxes(0, 1), graph(x), atol=CLOSE)


@pytest.mark.parametrize("repeat", ["Expand(h, size)", "Tile(h, size)"])
def test_initial_states_that_are_weights(repeat: str) -> None:
    W, R, h = drawn(1, 3 * H, I), drawn(1, 3 * H, H), drawn(1, 1, H)
    text = (
        opset(17)
        + f"""g (float[t, b, 4] x) => (float[t, b, 5] y) {{
        n = Shape<start = 1, end = 2>(x)
        one = Constant<value_ints = [1]>() size = Concat<axis = 0>(one, n, one)
        start = {repeat}
        all = GRU<hidden_size = 5, linear_before_reset = 1>(x, W, R, "", "", start)
        y = Squeeze(all, one) }}"""
    )
    data, x = model_of(text, W=W, R=R, h=h), drawn(T, B, I)
    layer = load(data)
    assert layer.learn_initial_state
    np.testing.assert_array_equal(layer.parameters()["h_0"], h[0])
    np.testing.assert_allclose(layer(x)[0], load(data, as_graph=True)(x), atol=CLOSE)


@pytest.mark.parametrize("scaling", ["Div(c, s)", "Mul(c, r)"])
def test_a_model_of_standardised_features(scaling: str) -> None:
    m, s, w = np.arange(I, dtype="f"), np.arange(1, I + 1, dtype="f"), drawn(I, O)
    text = (
        opset(13)
        + f"""g (float[b, t, 4] x) => (float[b, t, 2] y) {{
        c = Sub(x, m) n = {scaling} y = MatMul(n, w) }}"""
    )
    model = load(model_of(text, m=m, s=s, r=1 / s, w=w))
    assert [type(a).__name__ for a in model.layers] == ["Normalization", "Linear"]
    x = drawn(B, T, I)
    np.testing.assert_allclose(model(x), (x - m) / s @ w, atol=CLOSE)


def test_a_model_that_scales_in_float64_again(tmp_path: Path) -> None:
    x = 100 + drawn(B, T, I)
    scaling = fastrnn.Normalization().adapt(x)
    back = fastrnn.Normalization(mean=np.arange(1, O + 1), variance=[0.25] * O, invert=True)
    model = fastrnn.Sequential([scaling, fastrnn.GRU(I, H), fastrnn.Linear(H, O), back], seed=0)
    again = saved(model, tmp_path)
    assert [type(a).__name__ for a in again.layers] == [type(a).__name__ for a in model.layers]
    assert again.layers[-1].invert
    np.testing.assert_array_equal(again(x), model(x))
    alone = fastrnn.Normalization(mean=np.ones(I), variance=np.ones(I))
    np.testing.assert_array_equal(saved(alone, tmp_path)(x), alone(x))


def test_a_reversed_layer_whose_last_output_is_used() -> None:
    W, R = drawn(1, 3 * H, I), drawn(1, 3 * H, H)
    text = (
        opset(14)
        + """g (float[b, t, 4] x) => (float[b, 5] y) {
        s = Transpose<perm = [1, 0, 2]>(x)
        no, h = GRU<hidden_size = 5, direction = "reverse">(s, W, R)
        axis = Constant<value_ints = [0]>()
        y = Squeeze(h, axis)
    }"""
    )
    data, x = model_of(text, W=W, R=R), drawn(B, T, I)
    layer = load(data)
    assert repr(layer.layers[0]).endswith("return_sequences=False, go_backwards=True)") or (
        layer.layers[0].go_backwards
    )
    np.testing.assert_allclose(layer(x), load(data, as_graph=True)(x), atol=CLOSE)


# Layers exported by others.


def exported(module: Any, inputs: Any, dynamo: bool, path: Path) -> Any:
    import torch

    names = ["x", "h", "c"][: len(inputs)]
    options: dict[str, Any] = {"input_names": names, "dynamo": dynamo}
    if dynamo:
        options |= {"verbose": False, "external_data": False}
    else:
        options["dynamic_axes"] = {"x": {0: "a", 1: "b"}}
    torch.onnx.export(module.eval(), inputs, str(path), **options)
    return load(path)


@pytest.mark.filterwarnings("ignore")  # both exporters warn
@pytest.mark.parametrize(
    ("kind", "dynamo"), [("LSTM", False), ("GRU", False), ("GRU", True)], ids=str
)
def test_exported_by_torch(kind: str, dynamo: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    nn = torch.nn

    class Tagger(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm = nn.Embedding(7, I), nn.LayerNorm(I)
            self.rnn = getattr(nn, kind)(I, H, 2, batch_first=True, bidirectional=kind == "LSTM")
            self.head = nn.Sequential(nn.LeakyReLU(0.1), nn.LazyLinear(O), nn.Sigmoid())

        def forward(self, x: Any) -> Any:
            y, _ = self.rnn(self.norm(self.embedding(x)))
            return self.head(y if kind == "LSTM" else y[:, -1])

    torch.manual_seed(0)
    tokens = torch.arange(B * T).reshape(B, T) % 7
    module = Tagger()
    wanted = module.eval()(tokens).detach().numpy()
    model = exported(module, (tokens,), dynamo, tmp_path / "m.onnx")
    assert [type(a).__name__ for a in model.layers] == [
        "Embedding", "LayerNorm", kind, "Activation", "Linear", "Sigmoid",
    ]  # fmt: skip
    np.testing.assert_allclose(model(tokens.numpy()), wanted, atol=CLOSE)
    graph = load(tmp_path / "m.onnx", as_graph=True)
    np.testing.assert_allclose(graph(tokens.numpy()), wanted, atol=CLOSE)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_exported_by_torch_with_its_states(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    inputs = torch.randn(T, B, I), (torch.randn(2, B, H), torch.randn(2, B, H))
    module = torch.nn.LSTM(I, H, 2)
    y, (h, c) = module(*inputs)
    layer = exported(module, inputs, False, tmp_path / "m.onnx")
    assert isinstance(layer, fastrnn.LSTM)
    mine, states = layer(inputs[0], inputs[1])
    for a, b in zip((mine, *states), (y, h, c), strict=True):
        np.testing.assert_allclose(a, b.detach(), atol=CLOSE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor", "LogisticRegression", "Ridge"])
def test_exported_by_skl2onnx(kind: str) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn import linear_model, neural_network, pipeline, preprocessing

    X, labels = drawn(60, I), np.arange(60) % 3
    estimator = getattr(neural_network, kind, None) or getattr(linear_model, kind)
    net = pipeline.make_pipeline(preprocessing.StandardScaler(), estimator()).fit(X, labels)
    outputs = load(skl2onnx.to_onnx(net, X[:1]).SerializeToString())(X)
    if hasattr(net, "predict_proba"):
        predicted, rows = outputs
        np.testing.assert_array_equal(predicted, net.predict(X))
        probabilities = [list(row.values()) for row in rows]
        np.testing.assert_allclose(probabilities, net.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(outputs.ravel(), net.predict(X), atol=1e-4)


# Graphs.


def test_a_graph_is_called_by_name_and_in_order() -> None:
    model = load(ADD)
    x, k = drawn(4, 2), 3
    for outputs in (model(x, k), model(k=k, x=x), model.run(None, {"k": k, "x": x})):
        np.testing.assert_array_equal(outputs[0], 2 * x)
        assert outputs[1] == 6
    assert model.run(["z"], {"k": k, "x": x}) == [6]
    assert repr(model) == (
        "Model(inputs: x float32 (n, 2), k int64 (); "
        "outputs: y float32 (n, 2), z int64 (); opset 17: Add)"
    )
    same = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(same(x, k)[0], 2 * x)


@pytest.mark.parametrize(
    ("inputs", "named", "message"),
    [
        ((), {}, "x: is missing; expected x float32 \\(n, 2\\)"),
        ((drawn(4, 3), 1), {}, "x: expected shape \\(n, 2\\), got \\(4, 3\\)"),
        ((drawn(4, 2), [1]), {}, "k: expected shape \\(\\), got \\(1,\\)"),
        ((drawn(4, 2), 0.5), {}, "k: expected an array of whole numbers, got dtype float64"),
        ((drawn(4, 2), 1, 2), {}, "expected at most 2 inputs, x, k, got 3"),
        ((drawn(4, 2), 1), {"x": 1}, "x: expected one value, got two"),
        ((drawn(4, 2), 1), {"X": 1}, "X: expected one of the inputs x, k; did you mean 'x'?"),
        (("a", 1), {}, "x: expected an array of real numbers"),
    ],
)
def test_an_input_that_does_not_fit(inputs: Any, named: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load(ADD)(*inputs, **named)


def test_results_are_the_callers_own() -> None:
    text = "g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x) z = Identity(w) }"
    model = load(model_of(opset(17) + text, w=np.ones(2, np.float32)))
    x = np.zeros(2, np.float32)
    y, z = model(x)
    y[:], z[:] = 7, 7
    assert x.tolist() == [0, 0]
    assert model(x)[1].tolist() == [1, 1]


def test_loops_branches_and_functions() -> None:
    text = (
        opset(17).replace("]>", ', "own": 1]>')
        + """
        g (float[2] x, int64 n, bool up) => (float[2] y, float[k, 2] all) {
            on = Constant<value = bool {1}>()
            s, all = Loop(n, on, x) <body = body (int64 i, bool c, float[2] a)
                => (bool c2, float[2] b, float[2] out) {
                    c2 = Identity(c) b = own.twice<by = 3.0>(a) out = Add(b, x) }>
            y = If(up) <then_branch = yes () => (float[2] t) { t = Identity(s) },
                else_branch = no () => (float[2] f) { f = Neg(s) }>
        }
        <domain: "own", opset_import: ["": 17]>
        twice <by> (a) => (b) { f = Constant<value_float: float = @by>() b = Mul(a, f) }"""
    )
    model = load(model_of(text))
    x = np.array([1, 2], np.float32)
    y, each = model(x, 3, False)
    np.testing.assert_array_equal(y, -27 * x)
    np.testing.assert_array_equal(each, [4 * x, 10 * x, 28 * x])
    y, each = model(x, 0, True)
    np.testing.assert_array_equal(y, x)
    assert each.shape == (0, 2)


# What is refused, and how.

BAD = {
    "operator": ("y = Conv(x, x)", "Conv: operator Conv is not supported; supported are Abs, "),
    "domain": ("y = other.Thing(x)", "Thing of domain 'other' is not supported; supported are "),
    "attribute": ("y = Softmax<axes = 1>(x)", "expected one of the attributes axis, got 'axes'"),
    "type": ('y = Softmax<axis = "a">(x)', "expected axis of type INT, got STRING"),
    "inputs": ("y = Softmax(x, x)", "expected 1 to 1 inputs, got"),
    "name": ("y = Add(x, nothing)", "expected the name of a value before it, got 'nothing'"),
    "twice": ("y = Neg(x) y = Abs(x)", "expected a new name, 'y' is taken"),
    "activation": (
        'y = RNN<hidden_size = 1, activations = ["Cos"]>(x, x, x)',
        "RNN: activations: expected some of Affine, Elu, .*, got 'Cos'",
    ),
    "direction": (
        'y = LSTM<hidden_size = 1, direction = "both">(x, x, x)',
        "direction: expected one of 'forward', 'reverse', 'bidirectional', got 'both'",
    ),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_what_is_not_supported_is_named(body: str, message: str) -> None:
    text = opset(17) + f"g (float[1, 1, 1] x) => (float y) {{ {body} }}"
    with pytest.raises(ValueError, match=message):
        load(model_of(text))


def test_opsets_that_are_too_old_or_too_new() -> None:
    newest = onnx.defs.onnx_opset_version()
    for number, more in ((6, ""), (newest + 1, "; a newer onnx package may know it")):
        text = opset(number) + "g (float x) => (float y) { y = Neg(x) }"
        with pytest.raises(ValueError, match=f"opset of 7 to {newest}, got {number}{more}$"):
            load(model_of(text))


def test_an_error_in_a_node_names_it_and_its_inputs() -> None:
    W, R = drawn(1, 4 * H, I), drawn(1, 4 * H, H)
    text = opset(17) + "g (float[t, b, f] x) => (float[t, 1, b, 5] y) { y = LSTM(x, W, R) }"
    model = load(model_of(text, W=W, R=R), as_graph=True)
    message = r"^LSTM: X: expected shape \(steps, batch, 4\), got \(6, 3, 2\); its inputs are float"
    with pytest.raises(ValueError, match=message):
        model(drawn(T, B, 2))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    fastrnn.Sequential([fastrnn.Linear(I, O)]).save(path)
    with pytest.raises(
        ValueError, match=r"m.onnx: is a model of fastrnn, which fastrnn.load\(path"
    ):
        load(path)
    for source in (b"", b"\x00\x01", b"PK\x03\x04", ADD[: len(ADD) // 2]):
        with pytest.raises(ValueError, match="is not an ONNX model, or damaged"):
            load(source)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.onnx")
    with pytest.raises(TypeError, match="path_or_bytes: expected a str or a path, got int"):
        load(3)


def external(path: Path, **entries: Any) -> Path:
    """Write a model whose initializer is in a file."""
    model = onnx.parser.parse_model(opset(17) + "g () => (float[4] y) { y = Identity(w) }")
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    return path


def test_data_in_a_file_of_their_own(tmp_path: Path) -> None:
    w = np.arange(4, dtype=np.float32)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"1234" + w.tobytes() + b"5")
    path = external(tmp_path / "m.onnx", location="data/w.bin", offset=4, length=16)
    np.testing.assert_array_equal(load(path)(), w)
    with pytest.raises(ValueError, match="load the model by its path rather than from bytes"):
        load(path.read_bytes())


def test_data_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    path = folder / "m.onnx"
    for location in (
        "../secret",
        str(tmp_path / "secret"),
        "link",
        "up/secret",
        "",
        ".",
        "x/../..",
    ):
        with pytest.raises(ValueError, match="expected its data in a file in the model's folder"):
            load(external(path, location=location))
    (folder / "w").write_bytes(bytes(8))
    for entries, message in (
        ({"location": "w"}, "expected 16 bytes at 0 of 'w', which has 8"),
        ({"location": "w", "length": 8}, "is damaged: it has 16 bytes, its file 8 at 0"),
        ({"location": "w", "offset": -1}, "is damaged"),
        ({"location": "w", "offset": "x"}, "offset or length is not a number"),
        ({"location": "w", "length": 10**30}, "is damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            load(external(path, **entries))
    with pytest.raises(FileNotFoundError):
        load(external(path, location="none"))
    (folder / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        load(external(path, location="folder"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such pipes here")
def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 2**36)  # of which the disk holds nothing
    with pytest.raises(ValueError, match="holes: is not an ONNX model, or damaged"):
        load(tmp_path / "holes")
    os.mkfifo(tmp_path / "pipe")
    for no_file in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="is not a regular file"):
            load(no_file)
    with pytest.raises(OSError, match="pipe' is not a regular file"):
        load(external(tmp_path / "m.onnx", location="pipe"))


def test_damaged_files_raise_value_errors(tmp_path: Path) -> None:
    model = fastrnn.Sequential(
        [fastrnn.Embedding(3, 2), fastrnn.LSTM(2, 2, bidirectional=True), fastrnn.Linear(4, 1)]
    )
    fastrnn.onnx.save(model, tmp_path / "m.onnx")
    data, rng = (tmp_path / "m.onnx").read_bytes(), np.random.default_rng(0)
    x, read = np.zeros((1, 2), np.int64), 0
    for k in range(400):
        damaged = bytearray(data[: rng.integers(len(data))] if k % 8 == 0 else data)
        for at in rng.integers(0, max(len(damaged), 1), rng.integers(1, 4)):
            damaged[at : at + 1] = bytes([rng.integers(256)])
        for as_graph in (False, True):
            try:
                again = load(bytes(damaged), as_graph=as_graph)
                read += 1
                again(x) if not isinstance(again, fastrnn.GRU) else None
            except (ValueError, TypeError):
                pass
    assert 0 < read < 800


def test_claims_cost_no_memory() -> None:
    """What a small file computes when it is read is small, whatever it says."""
    doubling = "".join(f"x{k + 1} = Concat<axis = 0>(x{k}, x{k}) " for k in range(40))
    text = opset(17) + f"g (float[1] x) => (float[n] y) {{ {doubling} y = Add(x40, x) }}"
    assert repr(load(model_of(text, x0=np.ones(1, np.float32)))).startswith("Model(")
    huge = opset(17) + "g () => (float[n] y) { y = ConstantOfShape(n) }"
    model = load(model_of(huge, n=np.array([1 << 40, 1 << 10])))
    with pytest.raises(ValueError, match=r"ConstantOfShape: size=.* expected sizes that fit"):
        model()


def test_functions_that_call_others_twice() -> None:
    """2^40 nodes, as entities in XML once had laughs."""
    head = opset(17).replace("]", ', "l": 1]')
    text = head + "g (float[1] x) => (float[1] y) { y = l.f0(x) }\n"
    for i in range(40):
        text += f'<domain: "l", opset_import: ["": 17, "l": 1]> f{i} (x) => (y) '
        text += f"{{ a = l.f{i + 1}(x) y = l.f{i + 1}(a) }}\n"
    text += '<domain: "l", opset_import: ["": 17]> f40 (x) => (y) { y = Identity(x) }'
    data = onnx.parser.parse_model(text).SerializeToString()
    with pytest.raises(ValueError, match="expected functions that make at most 32768 nodes"):
        load(data)


def test_functions_that_call_themselves() -> None:
    text = (
        opset(17).replace("]>", ', "own": 1]>')
        + """g (float x) => (float y) { y = own.f(x) }
        <domain: "own", opset_import: ["": 17, "own": 1]> f (a) => (b) { b = own.f(a) }"""
    )
    with pytest.raises(ValueError, match="expected functions nested at most 50 deep"):
        load(model_of(text))


# The backend.


def test_backend() -> None:
    Backend = fastrnn.onnx.Backend
    assert issubclass(Backend, onnx.backend.base.Backend)
    assert Backend.supports_device("CPU")
    assert not Backend.supports_device("CUDA:0")
    proto = onnx.ModelProto.FromString(ADD)
    assert Backend.is_compatible(proto)
    x = drawn(4, 2)
    for inputs in ([x, np.int64(1)], {"x": x, "k": 1}):
        outputs = Backend.run_model(proto, inputs)
        np.testing.assert_array_equal(outputs["y"], 2 * x)
        assert outputs.z == outputs[1] == 2
    with pytest.raises(ValueError, match="device: expected 'CPU', got 'CUDA'"):
        Backend.prepare(proto, "CUDA")
    node = helper.make_node("Sub", ["a", "a"], ["b"])
    assert not Backend.run_node(node, [x], opset_version=14)["b"].any()
    conv = helper.make_model(helper.make_graph([helper.make_node("Conv", ["x", "x"], ["y"])], "g",
                             [helper.make_empty_tensor_value_info("x")], []))  # fmt: skip
    assert not Backend.is_compatible(conv)


def test_sizes_that_are_data_are_no_weights() -> None:
    """A graph that adds its number of steps to its outputs is no chain of layers."""
    text = (
        opset(17)
        + """g (float[b, t, 4] x) => (float[b, t, 4] y) {
        z = MatMul(x, w) s = Shape<start = 1, end = 2>(x) n = Cast<to = 1>(s) y = Add(z, n) }"""
    )
    model = load(model_of(text, w=drawn(I, I)))
    assert isinstance(model, fastrnn.onnx.Model)
    np.testing.assert_allclose(model(drawn(B, T, I)), drawn(B, T, I) @ drawn(I, I) + T, atol=CLOSE)
