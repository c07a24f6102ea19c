"""Quantized models and layers: accuracy, streams, files, refusals."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.reference import int8
from fastrnn.text import CharLM, TextClassifier

T, B, I, H, L = 11, 3, 5, 19, 2

#: Options of the recurrent layers.
KINDS = {
    "lstm": (fastrnn.LSTM, {}),
    "lstm_peephole": (fastrnn.LSTM, {"peephole": True}),
    "lstm_projected": (fastrnn.LSTM, {"proj_size": 7}),
    "gru": (fastrnn.GRU, {}),
    "gru_before": (fastrnn.GRU, {"reset_after": False}),
    "rnn": (fastrnn.RNN, {}),
    "rnn_relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "indrnn": (fastrnn.IndRNN, {}),
    "lstm_norm": (fastrnn.LSTM, {"layer_norm": True}),
    "gru_norm": (fastrnn.GRU, {"layer_norm": True}),
    "gru_before_norm": (fastrnn.GRU, {"layer_norm": True, "reset_after": False}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """``kind(**options)``: a float layer."""
    layer, options = KINDS[request.param]

    def make(**more):
        return layer(I, H, **{"seed": 0, "num_layers": L, **options, **more})

    make.exact = "norm" not in request.param
    return make


@pytest.fixture
def x(rng):
    return rng.normal(size=(T, B, I)).astype(np.float32)


def states(state):
    return state if type(state) is tuple else (state,)


def scale(y):
    return np.abs(y).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_near_floats(kind, x, backend, dtype):
    layer = kind(bidirectional=True, dtype=dtype)
    y, _ = layer(x, lengths=[T, 4, 7])
    for calibration in (None, x):
        q = fastrnn.quantize(layer, calibration)
        z, state = q(x, lengths=[T, 4, 7])
        assert z.dtype == np.float32
        assert all(s.dtype == np.float32 for s in states(state))
        # Layer normalisation divides errors by the standard deviation, which is small here.
        assert scale(z - y) < (0.05 if kind.exact else 0.3) * scale(y)
        assert (z[4:, 1] == 0).all()


def test_promise(kind, x, backend, same_bits):
    """Alone or in a batch, step by step or in chunks: the same bits."""
    q = fastrnn.quantize(kind())
    y, state = q(x)
    assert same_bits(q(x[:, 1:2])[0], y[:, 1:2])
    first, middle = q(x[:4])
    second, end = q(x[4:], middle)
    assert same_bits(np.concatenate([first, second]), y)
    assert all(map(same_bits, states(end), states(state)))
    stream = q.stream(B)
    assert same_bits(np.stack([stream.step(x_t) for x_t in x]), y)
    alone = q.stream()
    assert same_bits(np.stack([alone.step(x_t) for x_t in x[:, 2]]), y[:, 2])
    reset = np.zeros((T, B), bool)
    reset[5, 1] = True
    assert same_bits(q(x, reset=reset)[0][5:, 1:2], q(x[5:, 1:2])[0])
    assert same_bits(q(x, reset=reset)[0][:, ::2], y[:, ::2])


def test_backends_agree(kind, x, same_bits):
    """Every backend gives the bits of the reference."""
    state_shape = (2 * L, B)
    rng = np.random.default_rng(1)
    for calibration in (None, x[:, :2] / 2):
        q = fastrnn.quantize(kind(bidirectional=True), calibration)
        with fastrnn.use_backend("reference"):
            y, state = q(x)
            lengthy, _ = q(x, lengths=[4, T, 7])
            given = [rng.normal(size=(*state_shape, s.shape[-1])) * 2 for s in states(state)]
            given = tuple(given) if len(given) > 1 else given[0]
            continued, _ = q(x * 3, given)
        for name in fastrnn.backends():
            with fastrnn.use_backend(name):
                made = fastrnn.quantize(kind(bidirectional=True), calibration)
                for array, wanted in zip(
                    made.state_dict().values(), q.state_dict().values(), strict=True
                ):
                    assert same_bits(array, wanted)
                assert same_bits(q(x)[0], y)
                assert same_bits(q(x, lengths=[4, T, 7])[0], lengthy)
                assert same_bits(q(x * 3, given)[0], continued)


HASH = """
import hashlib, numpy as np, fastrnn
rng = np.random.default_rng(0)
found = hashlib.sha256()
for I, H, B in [(5, 19, 3), (33, 64, 9), (130, 50, 1)]:
    x = rng.normal(size=(7, B, I)).astype(np.float32)
    for kind in (fastrnn.LSTM, fastrnn.GRU, fastrnn.RNN):
        found.update(fastrnn.quantize(kind(I, H, seed=0))(x)[0].tobytes())
    found.update(fastrnn.quantize(fastrnn.Linear(I, H, seed=0))(x).tobytes())
print(found.hexdigest())
"""


def test_instructions_agree():
    """Each backend, with and without the instructions that only some CPUs have."""
    found = set()
    for name in fastrnn.backends():
        for without in ("", "avx512vnni,avxvnni"):
            environment = os.environ | {"FASTRNN_BACKEND": name, "FASTRNN_WITHOUT": without}
            found.add(subprocess.check_output([sys.executable, "-P", "-c", HASH], env=environment))
    assert len(found) == 1


def test_not_finite(kind, x, backend, same_bits):
    """NaN and infinity stay in their rows, and never become finite."""
    q = fastrnn.quantize(kind(num_layers=1), x)
    y, _ = q(x)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = x.copy()
        spoilt[3, 1, 2] = bad
        z, _ = q(spoilt)
        assert same_bits(z[:, ::2], y[:, ::2])
        assert same_bits(z[:3], y[:3])
        assert np.isnan(z[3:, 1]).all()


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-37, 1e-30, 1e30, 3e38])
def test_extreme_inputs(kind, x, backend, value):
    """Rows of tiny and of huge numbers."""
    q = fastrnn.quantize(kind(num_layers=1))
    rows = np.full_like(x, value)
    with fastrnn.use_backend("reference"):
        expected, _ = q(rows)
    y, _ = q(rows)
    assert np.array_equal(y, expected, equal_nan=True)
    assert np.isfinite(y).all() or value > 1


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 63, 64, 65, 130])
@pytest.mark.parametrize("O", [1, 7, 16, 33, 100])
def test_linear(K, O, rng, backend, same_bits):
    layer = fastrnn.Linear(K, O, seed=0)
    rows = rng.normal(size=(14, 2, K)).astype(np.float32)
    for calibration in (None, rows):
        q = fastrnn.quantize(layer, calibration)
        y = q(rows)
        assert scale(y - layer(rows)) < 0.03 * scale(layer(rows))
        with fastrnn.use_backend("reference"):
            assert same_bits(q(rows), y)
        assert same_bits(np.stack([q(row) for row in rows[:, 1]]), y[:, 1])
        clipped = fastrnn.quantize(layer, rows / 100)(rows)
        assert scale(clipped) < scale(y)


def test_embedding(backend, rng, same_bits):
    layer = fastrnn.Embedding(23, 7, seed=0)
    q = fastrnn.quantize(layer)
    tokens = rng.integers(0, 23, (4, 6))
    y = q(tokens)
    assert scale(y - layer(tokens)) < 0.01 * scale(y)
    with fastrnn.use_backend("reference"):
        assert same_bits(q(tokens), y)
    with pytest.raises(ValueError, match=r"0\.\.22, got 23"):
        q([3, 23])
    with pytest.raises(ValueError, match="calibration"):
        fastrnn.quantize(layer, tokens)


def test_weights_are_rounded():
    layer = fastrnn.Linear(3, 2, seed=0)
    layer.load_state_dict({"weight": [[1, -2, 0.5], [0, 0, 0]], "bias": [3, 4]})
    weights = fastrnn.quantize(layer).state_dict()
    assert {n: a.dtype.name for n, a in weights.items()} == {
        "weight": "int8", "weight_scale": "float32", "bias": "float32", "limit": "float32",
    }  # fmt: skip
    # 63.5 and 31.75, to the nearest even.
    assert weights["weight"].tolist() == [[64, -127, 32], [0, 0, 0]]
    assert weights["weight_scale"].tolist() == [np.float32(2 / 127), 0]
    assert weights["limit"].tolist() == [np.inf]


def test_fixed_scale_of_a_bounded_state(rng):
    """A hidden state above 1, which only a caller can give, is not clipped."""
    layer = fastrnn.GRU(I, H, seed=0)
    x = rng.normal(size=(1, B, I)).astype(np.float32)
    h = rng.normal(size=(1, B, H)).astype(np.float32) * 3
    y = layer(x, h)[0]
    assert scale(fastrnn.quantize(layer)(x, h)[0] - y) < 0.02 * scale(y)


def test_a_new_layer(kind, x):
    """The float layer is unchanged, and later changes of it have no effect."""
    layer = kind()
    y, _ = layer(x)
    q = fastrnn.quantize(layer)
    z, _ = q(x)
    for array in layer.parameters().values():
        array *= 0.5
    assert np.array_equal(q(x)[0], z)
    assert not np.array_equal(layer(x)[0], y)
    for array in q.parameters().values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)


def test_copies(kind, x, same_bits):
    q = fastrnn.quantize(kind(batch_first=True), x)
    y, _ = q(x)
    for twin in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert same_bits(twin(x)[0], y)
        assert repr(twin) == repr(q)
    q.batch_first = False
    assert "batch_first" not in repr(q)
    assert q(x)[0].shape == y.shape


def test_layers_refuse_training(kind, x):
    q = fastrnn.quantize(kind())
    for call in (
        lambda: q.forward(x),
        lambda: q.backward(None),
        q.train,
        lambda: setattr(q, "training", True),
        lambda: setattr(q, "trainable", True),
        lambda: q.load_state_dict({}),
        q.reset_parameters,
    ):
        with pytest.raises(ValueError, match="inference only; train or change the float"):
            call()
    assert q.eval() is q
    assert not q.training
    assert not q.trainable
    assert q.quantized
    with pytest.raises(AttributeError):
        q.dropout = 0.5


def test_refusals(x):
    q = fastrnn.quantize(fastrnn.Linear(3, 2))
    with pytest.raises(ValueError, match="quantized already"):
        fastrnn.quantize(q)
    with pytest.raises(ValueError, match="quantized already"):
        fastrnn.quantize(fastrnn.Sequential([q]))
    with pytest.raises(TypeError, match="got Dropout"):
        fastrnn.quantize(fastrnn.Dropout(0.5))
    with pytest.raises(TypeError, match="got LSTMCell"):
        fastrnn.quantize(fastrnn.LSTMCell(3, 2))
    with pytest.raises(TypeError, match="model: expected a model or a layer, got int"):
        fastrnn.quantize(3)
    with pytest.raises(ValueError, match="CharLM: expected a fitted"):
        fastrnn.quantize(CharLM())
    layer = fastrnn.LSTM(I, H, seed=0)
    with pytest.raises(ValueError, match="calibration: expected finite"):
        fastrnn.quantize(layer, x * np.inf)
    with pytest.raises(ValueError, match="calibration: expected shape"):
        fastrnn.quantize(layer, x[..., :-1])
    layer.parameters()["weight_hh_l0"][3, 4] = np.nan
    with pytest.raises(ValueError, match="weight_hh: expected finite"):
        fastrnn.quantize(layer)
    wide = fastrnn.Linear(1, 1)
    with pytest.raises(ValueError, match="int32"):
        fastrnn._kernels.quantized.rounded(np.zeros((1, 133_145)), "weight")
    assert wide.quantized is False


@pytest.fixture
def model():
    layers = [
        fastrnn.Embedding(13, 6), fastrnn.Dropout(0.5), fastrnn.GRU(6, 9, 2, bidirectional=True),
        fastrnn.RNN(18, 8, nonlinearity="relu", return_sequences=False), fastrnn.Linear(8, 4),
    ]  # fmt: skip
    return fastrnn.Sequential(layers, seed=0)


def test_sequential(model, rng, tmp_path, backend, same_bits):
    tokens = [rng.integers(0, 13, n) for n in (5, 9, 3, 14)]
    labels = np.array([0, 2, 3, 1])
    model.compile("adam", "cross_entropy", metrics=["accuracy"])
    y = model.predict(tokens)
    for calibration in (None, tokens):
        q = fastrnn.quantize(model, calibration)
        z = q.predict(tokens)
        assert scale(z - y) < 0.05 * scale(y)
        assert q.evaluate(tokens, labels)["loss"] == pytest.approx(
            model.evaluate(tokens, labels)["loss"], rel=0.05
        )
        for call in (
            lambda q=q: q.fit(tokens, labels),
            lambda q=q: q.forward(tokens[0][None]),
            lambda q=q: q.backward(None, y),
            q.train,
        ):
            with pytest.raises(ValueError, match="quantized, and so for inference only"):
                call()
        path = tmp_path / "q.safetensors"
        q.save(path)
        again = fastrnn.load(path)
        assert again.quantized
        assert repr(again) == repr(q)
        assert same_bits(again.predict(tokens), z)
        assert same_bits(pickle.loads(pickle.dumps(q)).predict(tokens), z)


def test_calibration_ignores_padding(rng):
    """What a layer gives for padding is not seen in a fixed scale."""
    first = fastrnn.Linear(3, 3)
    first.load_state_dict({"weight": np.eye(3), "bias": [0, 0, -50]})
    model = fastrnn.Sequential([first, fastrnn.RNN(3, 4, seed=0, return_sequences=False)])
    x = [rng.uniform(-1, 1, (n, 3)) + np.array([0, 0, 50]) for n in (3, 8)]
    q = fastrnn.quantize(model, x)
    assert q.state_dict()["1.limits_l0"][0] <= 1.01


def test_calibration_by_any_backend(rng, same_bits):
    """The limits of unbounded states, and of layers above them, are the same."""
    layers = [
        fastrnn.IndRNN(5, 19, 2),
        fastrnn.RNN(19, 7, nonlinearity="relu"),
        fastrnn.Linear(7, 3),
    ]
    model = fastrnn.Sequential(layers, seed=0)
    x = rng.normal(size=(6, 40, 5))
    found = []
    for name in fastrnn.backends():
        with fastrnn.use_backend(name):
            found.append(fastrnn.quantize(model, x).state_dict())
    for others in found[1:]:
        for name, array in found[0].items():
            assert same_bits(array, others[name])


def test_stream(model, rng, backend):
    del model
    layers = [fastrnn.Embedding(13, 6), fastrnn.LSTM(6, 9, 2), fastrnn.Linear(9, 4)]
    q = fastrnn.quantize(fastrnn.Sequential(layers, seed=0))
    tokens = rng.integers(0, 13, (2, 7))
    y = q(tokens)
    stream = q.stream(2)
    assert np.array_equal(np.stack([stream.step(t) for t in tokens.T], axis=1), y)


@pytest.mark.parametrize(
    "layer",
    [fastrnn.LSTM(131, 333, seed=1), fastrnn.GRU(150, 390, seed=2), fastrnn.RNN(517, 1033, seed=3)],
    ids=repr,
)
def test_stream_of_a_large_layer_in_parts(layer, rng, backend):
    q = fastrnn.quantize(layer)
    x = rng.normal(size=(5, 1, layer.input_size)).astype(np.float32)
    y, state = q(x)
    stream = q.stream()
    assert np.array_equal(np.stack([stream.step(row) for row in x]), y)
    for mine, whole in zip(states(stream.state), states(state), strict=True):
        assert np.array_equal(mine, whole)


def test_call_on_other_arrays(rng, backend):
    q = fastrnn.quantize(fastrnn.LSTM(3, 5, seed=0))
    x, h, c = (rng.normal(size=(1, 4, n)).astype(np.float32) for n in (3, 5, 5))
    y, state_n = q(x, (h, c))
    for same in (x.tolist(), x.astype(np.float64), np.asfortranarray(x)):
        y_too, state_too = q(same, (h.tolist(), c))
        assert np.array_equal(y_too, y)
        assert all(map(np.array_equal, state_too, state_n))


def test_activations_are_exact_to_1_in_100000():
    x = np.linspace(-14, 14, 1_000_001, dtype=np.float32)
    exact = np.tanh(x.astype(np.float64))
    assert np.abs(int8.tanh(x) - exact).max() < 1.2e-5
    assert np.abs(int8.sigmoid(2 * x) - (1 + exact) / 2).max() < 6e-6
    far = np.array([-np.inf, -1e30, 1e30, np.inf], np.float32)
    for y in (int8.tanh(x), int8.tanh(far)):
        assert np.abs(y).max() < 1
    for y in (int8.sigmoid(x), int8.sigmoid(far)):
        assert y.min() > 0
        assert y.max() < 1
    assert np.isnan(int8.tanh(np.float32("nan")))
    assert np.isnan(int8.sigmoid(np.float32("nan")))


def test_files_are_small(tmp_path):
    model = fastrnn.Sequential([fastrnn.LSTM(64, 128), fastrnn.Linear(128, 64)], seed=0)
    model.save(tmp_path / "f.safetensors")
    fastrnn.quantize(model).save(tmp_path / "q.safetensors")
    sizes = [(tmp_path / name).stat().st_size for name in ("q.safetensors", "f.safetensors")]
    assert sizes[0] < 0.28 * sizes[1]


def test_damaged_files(tmp_path):
    from fastrnn._files import model_file

    path = tmp_path / "q.safetensors"
    q = fastrnn.quantize(fastrnn.Sequential([fastrnn.LSTM(4, 3), fastrnn.Linear(3, 2)], seed=0))
    q.save(path)
    kind, described, tensors = model_file.read(path)

    def changed(**new):
        model_file.write(path, kind, described, {**tensors, **new})
        return pytest.raises(ValueError, match="is damaged")

    with changed(**{"0.weight_ih_l0": tensors["0.weight_ih_l0"].astype(np.float32)}):
        fastrnn.load(path)
    with changed(**{"0.weight_ih_scale_l0": tensors["0.weight_ih_scale_l0"][:-1]}):
        fastrnn.load(path)
    with changed(**{"0.more": np.zeros(3)}):
        fastrnn.load(path)
    model_file.write(path, kind, described, {n: a for n, a in tensors.items() if "limit" not in n})
    with pytest.raises(ValueError, match="missing"):
        fastrnn.load(path)


def test_char_lm(tmp_path, backend):
    text = "the cat sat on the mat; the dog sat on the log. " * 40
    lm = CharLM(hidden_size=24, embedding_dim=8, epochs=2, seed=0).fit(text, verbose=0)
    q = fastrnn.quantize(lm)
    bits = lm.bits_per_char(text)
    assert q.bits_per_char(text) == pytest.approx(bits, rel=0.02)
    assert fastrnn.quantize(lm, text).bits_per_char(text) == pytest.approx(bits, rel=0.02)
    written = q.generate("the ", 30, seed=0)
    assert len(written) == 30
    for call in (
        lambda: q.fit(text, verbose=0),
        lambda: q.fit(text, resume=True, verbose=0),
        lambda: q.bits_per_char(text, adapt_lr=1e-3),
    ):
        with pytest.raises(ValueError, match="quantized"):
            call()
    path = tmp_path / "q.safetensors"
    q.save(path)
    for again in (fastrnn.load(path), CharLM.load(path)):
        assert again.generate("the ", 30, seed=0) == written
    with fastrnn.use_backend("reference"):
        assert q.generate("the ", 30, seed=0) == written


def test_text_classifier(tmp_path, backend):
    texts = ["A fine film", "Dull, and too long", "Good fun", "A dull story"] * 5
    labels = ["praise", "blame", "praise", "blame"] * 5
    fitted = TextClassifier(epochs=20, seed=0).fit(texts, labels, verbose=0)
    for calibration in (None, texts):
        q = fastrnn.quantize(fitted, calibration)
        p = q.predict_proba(texts)
        assert scale(p - fitted.predict_proba(texts)) < 0.05
        with pytest.raises(ValueError, match="quantized"):
            q.fit(texts, labels, verbose=0)
        q.save(tmp_path / "q.safetensors")
        assert np.array_equal(fastrnn.load(tmp_path / "q.safetensors").predict_proba(texts), p)


def test_estimators(rng):
    sklearn = pytest.importorskip("fastrnn.sklearn")
    from sklearn.base import clone

    X = rng.normal(size=(30, 6, 3))
    y = (X[:, :, 0].sum(axis=1) > 0).astype(int)
    fitted = sklearn.SequenceClassifier(hidden_size=8, max_epochs=3, random_state=0).fit(X, y)
    for calibration in (None, X):
        q = fastrnn.quantize(fitted, calibration)
        assert scale(q.predict_proba(X) - fitted.predict_proba(X)) < 0.05
        with pytest.raises(ValueError, match="quantized"):
            q.fit(X, y)
    clone(q).fit(X, y)
    regressor = sklearn.SequenceRegressor(hidden_size=8, max_epochs=3, random_state=0)
    regressor.fit(X, X.sum(axis=(1, 2)))
    assert np.allclose(fastrnn.quantize(regressor).predict(X), regressor.predict(X), atol=0.2)


def test_forecaster(tmp_path):
    series = np.sin(np.arange(90) * 0.5) * 3 + np.arange(90) * 0.1
    fitted = fastrnn.forecast.Forecaster(window=12, steps=2, epochs=1, seed=0).fit(series)
    q = fastrnn.quantize(fitted)
    forecast = q.predict(6)
    assert scale(forecast - fitted.predict(6)) < 0.05 * scale(forecast)
    with pytest.raises(ValueError, match="quantized"):
        q.fit(series)
    with pytest.raises(ValueError, match="calibration: expected None"):
        fastrnn.quantize(fitted, series)
    q.save(tmp_path / "q.safetensors")
    assert np.array_equal(fastrnn.load(tmp_path / "q.safetensors").predict(6), forecast)


def test_warnings_are_not_raised(kind, x, backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q = fastrnn.quantize(kind())
        q(x * 1e30)
        q(x * 0)


def test_command(tmp_path, capsys):
    from fastrnn.cli import main

    text = "the cat sat on the mat; the dog sat on the log. " * 40
    paths = {name: str(tmp_path / name) for name in ("lm", "small", "text")}
    (tmp_path / "text").write_text(text)
    lm = CharLM(hidden_size=48, embedding_dim=8, epochs=2, seed=0).fit(text, verbose=0)
    lm.save(paths["lm"])
    command = ["lm", "quantize", paths["lm"], "-o", paths["small"]]
    assert main([*command, "--text", paths["text"]]) == 0
    compared, wrote = capsys.readouterr().out.splitlines()
    assert compared.startswith(f"{lm.bits_per_char(text):.4f} bits per character before, ")
    small = fastrnn.load(paths["small"])
    assert f"{small.bits_per_char(text):.4f} after" in compared
    sizes = [(tmp_path / name).stat().st_size for name in ("small", "lm")]
    assert wrote == f"wrote {paths['small']}: {sizes[0]:,} bytes, {sizes[1]:,} before"
    assert sizes[0] < 0.4 * sizes[1]
    assert main([*command[:2], paths["small"], "-o", paths["text"]]) == 2
    assert "quantized already" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().out.count("\n") == 1
