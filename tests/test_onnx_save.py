"""Models and layers written as ONNX files: ONNX Runtime gives the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.cells import CELLS
from fastrnn.layers import RECURRENT
from fastrnn.layers.activation import ACTIVATIONS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from fastrnn.onnx.writing.graph import Graph  # noqa: E402 (needs onnx)

B, T, I, H = 2, 7, 3, 5
#: Rounding in float32, over T steps.
CLOSE = 2e-6

#: The same, after divisions by the standard deviation of a few numbers.
NORMED = 1e-5

PLAIN = [
    (name, RECURRENT[CELLS[name].family], chosen)
    for family in RECURRENT.values()
    for name, chosen in family.cells.items()
]
LAYERS = [
    *PLAIN,
    ("peephole", fastrnn.LSTM, {"peephole": True}),
    ("projection", fastrnn.LSTM, {"proj_size": 2, "peephole": True}),
    *((f"float64 {name}", kind, chosen | {"dtype": np.float64}) for name, kind, chosen in PLAIN),
]
#: In float64, whose numbers tell more; LayerNormalization's epsilon has 24 bits there too.
NORMS = [
    (name, kind, chosen | {"layer_norm": True, "dtype": np.float64})
    for name, kind, chosen in (
        ("LSTM norm", fastrnn.LSTM, {}),
        ("LSTM norm, all", fastrnn.LSTM, {"peephole": True, "proj_size": 2}),
        ("GRU norm", fastrnn.GRU, {}),
        ("GRU norm before", fastrnn.GRU, {"reset_after": False}),
    )
]

#: Layers with int8 weights: LSTM has an operator, all others are products with floats.
QUANTIZED = [row for row in LAYERS if "float64" not in row[0]] + [
    ("norm", fastrnn.GRU, {"layer_norm": True, "reset_after": False})
]


class Session:
    """A saved model in ONNX Runtime."""

    def __init__(self, path: Path, model: Any, **options: Any) -> None:
        fastrnn.onnx.save(model, path, **options)
        onnx.checker.check_model(str(path), full_check=True)
        one = onnxruntime.SessionOptions()
        one.intra_op_num_threads = 1
        self.runtime = onnxruntime.InferenceSession(path, one, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Any) -> list[Any]:
        outputs: list[Any] = self.runtime.run(None, inputs)
        return outputs

    @property
    def names(self) -> tuple[list[str], list[str]]:
        runtime = self.runtime
        return [i.name for i in runtime.get_inputs()], [o.name for o in runtime.get_outputs()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def as_list(state: Any) -> list[Any]:
    return [*state] if isinstance(state, list | tuple) else [state]


def changed(layer: Any) -> None:
    """Change weights that are all 0 or all 1."""
    for name, array in layer.parameters().items():
        if np.ptp(array) == 0:
            array += drawn(*array.shape, seed=len(name)) / 4


def flat(results: Any) -> list[Any]:
    """Return what a layer gives: y, and its states."""
    if not isinstance(results, tuple):
        return [results]
    return [results[0], *as_list(results[1])]


def expect_close(found: Any, expected: Any, by: float = CLOSE) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=by)


@pytest.mark.parametrize(
    ("cell", "kind", "chosen"), [*LAYERS, *NORMS], ids=[name for name, *_ in [*LAYERS, *NORMS]]
)
@pytest.mark.parametrize("lengths", [None, [4, 7]])
@pytest.mark.parametrize("states", [False, True])
def test_recurrent_layers(
    path: Path, cell: str, kind: Any, chosen: Any, lengths: Any, states: bool
) -> None:
    for L, bidirectional, batch_first, return_sequences in (
        (1, False, False, True),
        (3, True, True, True),
        (3, True, False, False),
        (2, False, True, False),
    ):
        layer = kind(
            I, H, num_layers=L, bidirectional=bidirectional, batch_first=batch_first,
            return_sequences=return_sequences, bias=not batch_first, seed=0, **chosen,
        )  # fmt: skip
        changed(layer)
        session = Session(path, layer, states=states, lengths=lengths is not None)
        x = drawn(*(B, T) if batch_first else (T, B), I).astype(layer.dtype)
        start = [drawn(*s.shape).astype(layer.dtype) for s in as_list(layer(x)[1])]
        inputs = {"x": x} | ({} if lengths is None else {"lengths": np.array(lengths)})
        if states:
            inputs |= {f"{s}_0": a for s, a in zip(layer.cell.states, start, strict=True)}
        state = None if not states else start[0] if len(start) == 1 else tuple(start)
        y, end = layer(x, state, lengths=lengths)
        close = CLOSE if layer.dtype == np.float32 else 1e-6 if "norm" in cell else 1e-13
        expect_close(session(**inputs), [y, *as_list(end)], close)
        assert session.names == ([*inputs], ["y", *(f"{s}_n" for s in layer.cell.states)])


@pytest.mark.parametrize(
    "cell",
    [
        fastrnn.RNNCell(I, H, nonlinearity="relu", seed=0),
        fastrnn.LSTMCell(I, H, bias=False, seed=0),
        fastrnn.GRUCell(I, H, seed=0),
        fastrnn.GRUCell(I, H, reset_after=False, seed=0),
        fastrnn.LSTMCell(I, H, dtype=np.float64, seed=0),
    ],
    ids=repr,
)
def test_cells(path: Path, cell: Any) -> None:
    x = drawn(B, I).astype(cell.dtype)
    state = [drawn(B, H, seed=k).astype(cell.dtype) for k in range(len(cell.cell.states))]
    inputs = {f"{s}_0": a for s, a in zip(cell.cell.states, state, strict=True)}
    expected = cell(x, state[0] if len(state) == 1 else tuple(state))
    expect_close(Session(path, cell, states=True)(x=x, **inputs), as_list(expected))
    expect_close(Session(path, cell)(x=x), as_list(cell(x)))
    with pytest.raises(ValueError, match=r"^lengths: expected False for one step"):
        fastrnn.onnx.save(cell, path, lengths=True)


@pytest.mark.parametrize(
    ("cell", "kind", "chosen"), [*LAYERS, *NORMS], ids=[name for name, *_ in [*LAYERS, *NORMS]]
)
def test_layers_are_read_again(path: Path, cell: str, kind: Any, chosen: Any) -> None:
    """As the same layers; with lengths, and where that is asked for, as graphs."""
    layer = kind(I, H, 2, bidirectional=True, dropout=0.1, seed=0, **chosen)
    x, lengths = drawn(T, B, I).astype(layer.dtype), np.array([4, 7])
    loop = cell == "projection" or layer.dtype == np.float64
    close = 1e-6 if "norm" in cell else 2e-7 if loop else 0
    y, end = layer(x, lengths=lengths)
    fastrnn.onnx.save(layer, path, lengths=True)
    expect_close(fastrnn.onnx.load(path)(x, lengths), [y, *as_list(end)], close)

    for states in (False, True):
        fastrnn.onnx.save(layer, path, states=states)
        again = fastrnn.onnx.load(path)
        assert repr(again) == repr(layer)
        for name, array in layer.parameters().items():
            np.testing.assert_array_equal(again.parameters()[name], array)
    y, end = layer(x)
    zeros = [np.zeros_like(s) for s in as_list(end)]
    graph = fastrnn.onnx.load(path, as_graph=True)
    expect_close(graph(x, *zeros), [y, *as_list(end)], close)


def test_models_are_read_again(path: Path) -> None:
    x = drawn(B, T, I)
    layers = [
        fastrnn.Normalization().adapt(x), fastrnn.Linear(I, 6), fastrnn.LayerNorm(6, bias=False),
        fastrnn.LayerNorm(6, elementwise_affine=False), fastrnn.Activation("elu", 0.3),
        fastrnn.IndRNN(6, 5), fastrnn.LSTM(5, 6, proj_size=2), fastrnn.GRU(2, 4, go_backwards=True),
        fastrnn.Dropout(0.3), fastrnn.Linear(4, 3, bias=False), fastrnn.Softmax(),
    ]  # fmt: skip
    for model in (fastrnn.Sequential(layers, seed=0), words()):
        fastrnn.onnx.save(model, path)
        again = fastrnn.onnx.load(path)
        assert repr(again) == repr(model)
        given = x if model.vocabulary is None else np.array([[1, 2, 10]])
        np.testing.assert_array_equal(again(given), model(given))


def test_a_description_of_other_layers_does_not_count(path: Path) -> None:
    fastrnn.onnx.save(fastrnn.LSTM(I, H, peephole=True, seed=0), path)
    proto = onnx.load(path)
    entry = proto.metadata_props[0]
    described = entry.value
    x = drawn(T, B, I)
    expected = fastrnn.onnx.load(path, as_graph=True)(x)
    for old, new in (
        ('"LSTM"', '"GRU"'), ('"num_layers": 1', '"num_layers": 1000000000000'),
        ('"peephole": true', '"peephole": false'), (f'"hidden_size": {H}', '"hidden_size": 6'),
        ('"alone": true', '"alone": false'), ('"layers": [', '"layers": [3, '), ("{", "["),
        ('"states": false', '"states": true'), ('"batch_first": false', '"batch_first": true'),
        ('"go_backwards": false', '"go_backwards": true'),
    ):  # fmt: skip
        assert old in described
        entry.value = described.replace(old, new)
        again = fastrnn.onnx.load(proto.SerializeToString())  # as a chain of nodes, or as a graph
        y, (h, c) = again(x)
        expect_close([y, h, c], expected)


@pytest.mark.parametrize("kind", [fastrnn.LSTM, fastrnn.GRU])
def test_layer_norm_in_float32(path: Path, kind: Any) -> None:
    layer, x = kind(I, 16, layer_norm=True, seed=0), drawn(T, B, I)
    y, end = layer(x)
    expect_close(Session(path, layer)(x=x), [y, *as_list(end)], NORMED)


GENERAL: list[tuple[Any, dict[str, Any]]] = [
    (fastrnn.RNN, {"activations": ("scaled_tanh", 0.7, 1.2)}),
    (fastrnn.RNN, {"nonlinearity": "relu", "clip": 0.5}),
    (fastrnn.IndRNN, {"activations": ("thresholded_relu", 0.3)}),
    (fastrnn.GRU, {"activations": ["hard_sigmoid", "softsign"], "clip": 0.5}),
    (fastrnn.GRU, {"activations": [("affine", 0.4, 0.1), "softplus"], "reset_after": False}),
    (fastrnn.LSTM, {"input_forget": True, "peephole": True, "clip": 0.3}),
    (
        fastrnn.LSTM,
        {
            "activations": [
                *(("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), ("elu", 0.6)),
                *("sigmoid", ("scaled_tanh", 0.7, 1.2), "relu"),
            ]
        },
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "chosen"), GENERAL, ids=[str(row[1]) for row in GENERAL])
def test_activations_of_cells(path: Path, kind: Any, chosen: Any, dtype: Any) -> None:
    """In float32 as attributes of operators, in float64 as loops."""
    layer = kind(I, H, 2, bidirectional=True, seed=0, dtype=dtype, **chosen)
    x, lengths = drawn(T, B, I).astype(dtype), np.array([4, 7])
    with fastrnn.use_backend("reference"):
        y, end = layer(x, lengths=lengths)
    # Parameters of operators have 24 bits.
    close = CLOSE if dtype == np.float32 else 1e-13
    session = Session(path, layer, lengths=True)
    expect_close(session(x=x, lengths=lengths), [y, *as_list(end)], close)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(path: Path, name: str, dtype: Any) -> None:
    named = ACTIVATIONS[name]
    given = {"alpha": 0.3} | ({"beta": 0.6} if named.beta else {}) if named.alpha else {}
    x = 3 * drawn(B, T, I).astype(dtype)
    x[0, 0] = 0, np.inf, -np.inf
    for activation in (fastrnn.Activation(name), fastrnn.Activation(name, **given)):
        model = fastrnn.Sequential([fastrnn.Linear(I, I, dtype=dtype, seed=0), activation])
        model.load_state_dict({"0.weight": np.eye(I), "0.bias": np.zeros(I)})
        y = model(x[1:])
        expect_close(Session(path, model)(x=x[1:]), [y], CLOSE if dtype == np.float32 else 1e-14)
    alone = fastrnn.Activation(name)
    np.testing.assert_allclose(
        Session(path, alone)(x=x.astype(np.float32))[0], alone(x.astype(np.float32)), atol=CLOSE
    )


def test_layer_norm(path: Path) -> None:
    for dtype, close in ((np.float32, CLOSE), (np.float64, 1e-7)):
        for options in ({}, {"bias": False, "eps": 1e-3}, {"elementwise_affine": False}):
            norm = fastrnn.LayerNorm(I, dtype=dtype, **options)
            changed(norm)
            x = drawn(B, T, I).astype(dtype)
            expect_close(Session(path, norm)(x=x), [norm(x)], close)


@pytest.mark.parametrize("invert", [False, True])
def test_normalization(path: Path, invert: bool) -> None:
    x = (1e4 + drawn(B, T, I)).astype(np.float32)
    for dtype, close in ((np.float32, 1e-3 if invert else CLOSE), (np.float64, 1e-11)):
        norm = fastrnn.Normalization(invert=invert, dtype=dtype).adapt(x)
        for given in (norm, fastrnn.Sequential([norm])):
            expect_close(Session(path, given)(x=x.astype(dtype)), [given(x)], close)
    with pytest.raises(ValueError, match=r"^Normalization: expected adapt\(X\)"):
        fastrnn.onnx.save(fastrnn.Normalization(), path)
    norm = fastrnn.Normalization().adapt(x)
    small = fastrnn.quantize(fastrnn.Sequential([norm, fastrnn.Linear(I, 4)], seed=0))
    expect_close(Session(path, small)(x=x), [small(x)], 1e-3)


def test_quantized_functions_of_rows(path: Path) -> None:
    layers = [fastrnn.Linear(I, 8), fastrnn.LayerNorm(8), fastrnn.Tanh(), fastrnn.Linear(8, 2)]
    model = fastrnn.Sequential([*layers, fastrnn.Softmax()], seed=0)
    small, x = fastrnn.quantize(model), drawn(B, T, I)
    # A number that lies between two of int8 may be rounded up or down.
    expect_close(Session(path, small)(x=x), [small(x)], 1e-3)


def words() -> fastrnn.Sequential:
    return fastrnn.Sequential(
        [
            fastrnn.Embedding(11, 4),
            fastrnn.LSTM(4, H, num_layers=2, batch_first=True),
            fastrnn.Dropout(0.3),
            fastrnn.GRU(H, 6),
            fastrnn.Linear(6, 9, bias=False),
        ],
        seed=0,
    )


def test_sequential_of_tokens_step_by_step(path: Path) -> None:
    model = words()
    x = np.random.default_rng(1).integers(0, 11, (B, T))
    expect_close(Session(path, model)(x=x), [model(x)])

    session = Session(path, model, states=True)
    inputs, outputs = session.names
    assert inputs == ["x", "layer1_h_0", "layer1_c_0", "layer3_h_0"]
    assert outputs == ["y", "layer1_h_n", "layer1_c_n", "layer3_h_n"]
    state = [np.zeros((n, B, h), np.float32) for n, h in ((2, H), (2, H), (1, 6))]
    stream = model.stream(B)
    for t in range(T):
        y, *state = session(x=x[:, t : t + 1], **dict(zip(inputs[1:], state, strict=True)))
        expect_close([y[:, 0]], [stream.step(x[:, t])])
    expect_close(state, [*stream.state[0], stream.state[1]])


def test_sequential_with_lengths(path: Path) -> None:
    lengths = np.array([4, 7, 1])
    tokens = np.random.default_rng(1).integers(0, 11, (3, T))
    floats = drawn(3, T, I)
    plain = fastrnn.Sequential([fastrnn.Linear(I, 4), fastrnn.Linear(4, 2)], seed=0)
    both_ways = fastrnn.GRU(I, H, bidirectional=True, return_sequences=False)
    last = fastrnn.Sequential([both_ways, fastrnn.Linear(2 * H, 2)], seed=0)
    steps = fastrnn.Sequential([fastrnn.RNN(I, H, bidirectional=True), fastrnn.Dropout()], seed=0)
    for model, x in ((words(), tokens), (plain, floats), (last, floats), (steps, floats)):
        y = model(x, lengths=lengths)
        session = Session(path, model, lengths=True)
        expect_close(session(x=x, lengths=lengths), [y])
        assert session.names == (["x", "lengths"], ["y"])


def test_masks_are_lengths(path: Path) -> None:
    embedding = fastrnn.Embedding(11, 4, mask_zero=True)
    gru = fastrnn.GRU(4, H, return_sequences=False)
    of_tokens = fastrnn.Sequential([embedding, gru], seed=0)
    of_floats = fastrnn.Sequential([fastrnn.Masking(), fastrnn.RNN(I, H)], seed=0)
    tokens, floats, lengths = np.tile(np.arange(1, T + 1), (2, 1)), drawn(2, T, I), np.array([3, 7])
    tokens[0, 3:], floats[0, 3:] = 0, 0
    for model, x in ((of_tokens, tokens), (of_floats, floats)):
        expect_close(Session(path, model, lengths=True)(x=x, lengths=lengths), [model(x)])
        with pytest.raises(ValueError, match="lengths: expected True for a model that leaves out"):
            fastrnn.onnx.save(model, path)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_backwards(path: Path, bidirectional: bool) -> None:
    kind = {"go_backwards": True, "bidirectional": bidirectional, "seed": 0}
    x, lengths = drawn(T, 3, I), np.array([4, 7, 1])
    gru = fastrnn.GRU(I, H, **kind)
    expect_close(Session(path, gru)(x=x), [*gru(x)])
    expect_close(Session(path, gru, lengths=True)(x=x, lengths=lengths), [*gru(x, lengths=lengths)])
    model = fastrnn.Sequential([gru, fastrnn.LSTM(gru.features_out, 6, **kind)])
    expect_close(Session(path, model)(x=x), [model(x)])


@pytest.mark.parametrize("chosen", [{}, {"proj_size": 2, "dtype": np.float64}])
def test_learned_initial_states(path: Path, chosen: Any) -> None:
    kind = {"num_layers": 2, "bidirectional": True, "learn_initial_state": True, **chosen}
    layer = fastrnn.LSTM(I, H, **kind, seed=0)
    changed(layer)
    x, lengths = drawn(T, B, I).astype(layer.dtype), np.array([4, 7])
    y, (h, c) = layer(x, lengths=lengths)
    close = CLOSE if layer.dtype == np.float32 else 1e-13
    expect_close(Session(path, layer, lengths=True)(x=x, lengths=lengths), [y, h, c], close)
    expect_close(
        Session(path, layer, states=True)(x=x, h_0=h, c_0=c), flat(layer(x, (h, c))), close
    )
    for model in (layer, fastrnn.Sequential([layer])):
        fastrnn.onnx.save(model, path)
        again = fastrnn.onnx.load(path)
        assert repr(again) == repr(model)
        np.testing.assert_array_equal(flat(again(x))[0], flat(model(x))[0])
    if not chosen:
        small = fastrnn.quantize(layer)
        expect_close(Session(path, small)(x=x), flat(small(x)), 0.02)


def test_layers_without_a_state(path: Path) -> None:
    x = drawn(B, T, I)
    for layer in (fastrnn.Linear(I, 4, seed=0), fastrnn.Dropout()):
        expect_close(Session(path, layer)(x=x), [layer(x)])
    embedding = fastrnn.Embedding(11, 4, seed=0)
    tokens = np.random.default_rng(1).integers(0, 11, (B, T))
    np.testing.assert_array_equal(Session(path, embedding)(x=tokens)[0], embedding(tokens))
    double = fastrnn.Linear(I, 4, dtype=np.float64, seed=0)
    expect_close(Session(path, double)(x=x.astype(float)), [double(x)], 1e-15)


def widened(layer: Any, small: Any) -> Any:
    """Return the layer with the weights that the int8 numbers of a quantized one stand for."""
    weights = small.parameters()
    for name, array in layer.parameters().items():
        scale = weights.get(name.replace("_l", "_scale_l"))
        array[...] = weights[name] if scale is None else weights[name] * scale[:, None]
    return layer


@pytest.mark.parametrize(
    ("cell", "kind", "chosen"), QUANTIZED, ids=[name for name, *_ in QUANTIZED]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_quantized_layers(
    path: Path, cell: str, kind: Any, chosen: Any, bidirectional: bool
) -> None:
    layer = kind(I, 16, num_layers=2, bidirectional=bidirectional, seed=0, **chosen)
    small = fastrnn.quantize(layer)
    x, lengths = drawn(T, B, I), np.array([4, 7])
    session = Session(path, small, lengths=True)
    operator = cell in ("lstm", "peephole")
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert ("DynamicQuantizeLSTM" in kinds) == operator
    # That operator rounds rows otherwise than these kernels; all others multiply floats.
    expected = small if operator else widened(layer, small)
    y, end = expected(x, lengths=lengths)
    close = 0.02 if operator else NORMED if cell == "norm" else CLOSE
    expect_close(session(x=x, lengths=lengths), [y, *as_list(end)], close)
    held = [a for a in onnx.load(path).graph.initializer if a.data_type == onnx.TensorProto.INT8]
    matrices = [a for a in small.parameters().values() if a.dtype == np.int8]
    assert sum(len(a.raw_data) for a in held) >= sum(a.nbytes for a in matrices)


def test_quantized_models(path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 11, (B, T))
    model = fastrnn.quantize(words())
    expect_close(Session(path, model)(x=x), [model(x)], 0.05)
    # Without a recurrent layer, rows are rounded as they are here.
    for calibration in (None, x):
        model = fastrnn.Sequential(
            [fastrnn.Embedding(11, 4), fastrnn.Linear(4, 9), fastrnn.Linear(9, 3)], seed=0
        )
        model = fastrnn.quantize(model, calibration)
        expect_close(Session(path, model)(x=x), [model(x)])
    linear = fastrnn.quantize(fastrnn.Linear(I, 4, bias=False, seed=0))
    rows = drawn(4, T, I)
    rows[0, :3] = 0, 1e-38, 1e30
    rows[1, 0, 0], rows[1, 1, 1] = np.nan, np.inf
    (y,) = Session(path, linear)(x=rows)
    assert np.isfinite(y).all(axis=2).tolist() == np.isfinite(rows).all(axis=2).tolist()
    bad = ~np.isfinite(rows).all(axis=2)
    y[bad] = linear(rows)[bad]
    np.testing.assert_allclose(y, linear(rows), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"peephole": True, "bidirectional": True, "bias": False}])
def test_quantized_lstm_is_read_with_the_same_bits(path: Path, options: Any) -> None:
    small = fastrnn.quantize(fastrnn.LSTM(I, 16, num_layers=2, seed=0, **options))
    x, lengths = drawn(T, B, I), np.array([4, 7])
    y, (h, c) = small(x, lengths=lengths)
    fastrnn.onnx.save(small, path, lengths=True)
    for a, b in zip(fastrnn.onnx.load(path)(x, lengths), (y, h, c), strict=True):
        np.testing.assert_array_equal(a, b)
    # Other zero points than 0 are subtracted, and products are of floats.
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("zero_point"):
            ones = np.ones(tensor.dims, np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(ones, tensor.name))
    shifted = fastrnn.onnx.load(proto.SerializeToString())(x, lengths)[0]
    assert not np.allclose(shifted, y, atol=1e-3)


class Own(fastrnn.Linear):
    """May do anything."""


class OwnGRU(fastrnn.GRU):
    """May do anything."""


def test_networks_of_text_models(path: Path) -> None:
    lm = fastrnn.text.CharLM(hidden_size=8, num_layers=1, epochs=1, seed=0)
    classifier = fastrnn.text.TextClassifier(hidden_size=8, epochs=1, seed=0)
    assert not hasattr(lm, "net_")
    assert not hasattr(classifier, "net_")
    lm.fit("abracadabra " * 30, verbose=0)
    classifier.fit(["good", "bad bad", "good good"], [1, 0, 1], verbose=0)
    x = np.array([[1, 2, 1], [2, 0, 2]])
    for model in (lm, classifier):
        expect_close(Session(path, model.net_)(x=x), [model.net_(x)])
        with pytest.raises(TypeError, match=r"got (CharLM|TextClassifier); its net_ is one$"):
            fastrnn.onnx.save(model, path)


def test_refusals(path: Path) -> None:
    lstm, linear = fastrnn.LSTM(I, H), fastrnn.Linear(H, 2)
    for model, options, error, says in (
        (lstm, {"states": "yes"}, TypeError, "states: expected True or False"),
        (linear, {"states": True}, ValueError, "states: expected False for a model without"),
        (linear, {"lengths": True}, ValueError, "lengths: expected False for a layer without"),
        (fastrnn.LSTM, {}, TypeError, r"model: expected a Sequential or a layer, got the class"),
        (Own(I, 2), {}, TypeError, r"model: expected one of GRU, .* got Own"),
        (fastrnn.Sequential([lstm, Own(H, 2)]), {}, TypeError, r"layers\[1\]: expected one of"),
        (fastrnn.Sequential([OwnGRU(I, H)]), {}, TypeError, r"layers\[0\]: .* got OwnGRU"),
    ):
        with pytest.raises(error, match="^" + says):
            fastrnn.onnx.save(model, path, **options)
    with pytest.raises(TypeError, match=r"^path: expected a str or a path"):
        fastrnn.onnx.save(lstm, 3)
    with pytest.raises(OSError, match="no/such"):
        fastrnn.onnx.save(lstm, "no/such/folder.onnx")
    assert not path.exists()
    fastrnn.onnx.save(lstm, path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="got Own"):
        fastrnn.onnx.save(Own(I, 2), path)
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_more_weights_than_a_file_can_hold() -> None:
    graph = Graph()
    graph.weight(np.broadcast_to(np.float32(0), (2**29,)), "weight")
    with pytest.raises(ValueError, match=r"^model: expected weights of at most 2146435072 bytes"):
        graph.model("model")


def test_rounded_products_are_written_as_they_are_without_rounding(path: Path) -> None:
    layer = fastrnn.GRU(I, H, matmul_precision="bfloat16", seed=0)
    x = drawn(T, B, I)
    (y, _) = Session(path, layer)(x=x)
    layer.matmul_precision = "float32"
    expect_close([y], [layer(x)[0]])
