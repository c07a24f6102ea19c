"""`matmul_precision`: as an option, and what it computes, on every backend."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn._bench import bits
from fastrnn._kernels.reference.product import operand

T, B, I, H, P = 7, 5, 4, 19, 3
PRECISIONS = ("float32", "bfloat16")
WRONG = r"^matmul_precision: expected one of 'float32', 'bfloat16'"


@pytest.fixture(params=["layer", "single", "linear"])
def make(request, cell, make_layer, make_single):
    """``make(**options)``: a layer, a single step, or an affine map."""
    if request.param == "linear":
        if cell.name != "lstm":
            pytest.skip("the same for each cell")
        return lambda **options: fastrnn.Linear(I, H, **{"seed": 0, **options})
    chosen = make_layer if request.param == "layer" else make_single
    return lambda **options: chosen(cell, I, H, **options)


# -- rounding ------------------------------------------------------------------------------------


def rounded(value):
    """Return a number rounded to the nearest of 8 significant bits, by division."""
    mantissa, exponent = np.frexp(np.float64(value))
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)  # rint: ties to even


def test_operands_are_rounded_to_nearest_even(rng):
    a = (rng.normal(size=10000) * 2.0 ** rng.integers(-90, 90, 10000)).astype(np.float32)
    ties = ((rng.integers(128, 256, 200) * 2 + 1) * 2.0 ** rng.integers(-90, 90, 200)).astype("f4")
    for values in (a, ties, -ties):
        got = operand(values, "bfloat16")
        assert got.dtype == np.float32
        assert np.array_equal(got, rounded(values))
        assert not (got.view(np.uint32) & 0xFFFF).any()
    assert operand(a, "float32") is a


def test_special_operands():
    a = np.float32([np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-40, -1e-40, 2.0**-126])
    want = np.float32([np.inf, -np.inf, 0.0, -0.0, np.inf, -np.inf, 0.0, -0.0, 2.0**-126])
    got = operand(a, "bfloat16")
    assert np.array_equal(got, want)
    assert np.array_equal(np.signbit(got), np.signbit(want))
    nans = np.uint32([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF])
    assert np.isnan(operand(nans.view(np.float32), "bfloat16")).all()


def test_operands_of_any_strides(rng):
    a = rng.normal(size=(6, 7, 8)).astype(np.float32)
    for view in (a[::2], a[:, ::-3], a.T, a[1, 2], a[:0]):
        got = operand(view, "bfloat16")
        assert got.shape == view.shape
        assert np.array_equal(got, operand(view.copy(), "bfloat16"))


# -- products ------------------------------------------------------------------------------------


def exact(layer, precision="bfloat16"):
    """Return a float64 twin with the weights of matrix products rounded."""
    options = layer.get_config() | {"dtype": "float64", "matmul_precision": "float32"}
    twin = type(layer)(**options)
    twin.load_state_dict(
        {
            name: operand(w, precision) if w.ndim == 2 else w
            for name, w in layer.state_dict().items()
        }
    )
    return twin


def test_linear_multiplies_rounded_operands(backend, rng):
    linear = fastrnn.Linear(I, H, matmul_precision="bfloat16", seed=0)
    weight = operand(linear.state_dict()["weight"], "bfloat16")
    x, dy = (rng.normal(size=(T, n)).astype(np.float32) for n in (I, H))
    y, tape = linear.forward(x)
    dx, grads = linear.backward(tape, dy)
    x, dz = (operand(a, "bfloat16").astype(np.float64) for a in (x, dy))
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(y, x @ weight.T + linear.state_dict()["bias"], **close)
    np.testing.assert_allclose(dx, dz @ weight, **close)
    np.testing.assert_allclose(grads["weight"], dz.T @ x, **close)
    np.testing.assert_allclose(grads["bias"], dy.sum(axis=0, dtype=float), **close)


def test_what_is_not_in_a_matrix_product_is_not_rounded(backend, cell, make_layer, rng):
    if cell.recurrence != "elementwise":
        pytest.skip("its recurrence is a matrix product")
    layer = make_layer(cell, I, H, matmul_precision="bfloat16")
    x = operand(rng.normal(size=(1, B, I)).astype(np.float32), "bfloat16")
    state = rng.normal(size=(1, B, H)).astype(np.float32)
    y, _ = layer(x, state)
    np.testing.assert_allclose(y, exact(layer)(x, state)[0], rtol=1e-5, atol=1e-6)


def gradients(layer, x, **more):
    """Return y, dx and the gradients of the weights, for a fixed dy."""
    y, state, tape = layer.forward(x, **more)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dx, _, grads = layer.backward(tape, dy, state)
    return {"y": y, "dx": dx, **grads}


# Odd sizes, one, and more than a few vectors; several chunks of BPTT, of odd numbers of rows.
@pytest.mark.parametrize(("I", "H", "T", "B"), [(1, 1, 1, 1), (5, 19, 4, 3), (67, 45, 3, 103)])
def test_twins_agree(compiled, cell, make_layer, options_of, rng, I, H, T, B):
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    given = {"lengths": rng.integers(1, T + 1, B), "reset": rng.random((T, B)) < 0.2}
    for options in options_of(cell, max(1, H // 2)):
        if (options.get("proj_size") or 1) >= H > 1 or (H == 1 and options):
            continue
        layer = make_layer(cell, I, H, matmul_precision="bfloat16", **options)
        for more in ({}, given):
            got = gradients(layer, x, **more)
            with fastrnn.use_backend("reference"):
                want = gradients(layer, x, **more)
            for name, value in want.items():
                # A number that differs by a rounding may be rounded to the next bfloat16.
                scale = abs(value).max()
                np.testing.assert_allclose(
                    got[name], value, rtol=0, atol=0.02 * scale + 1e-6, err_msg=f"{options} {name}"
                )


def test_outputs_are_near_those_of_float32(compiled, cell, make_layer, rng):
    for I, H, T, B in ((64, 128, 20, 3), (32, 32, 50, 9)):
        x = rng.normal(size=(T, B, I)).astype(np.float32)
        layer = make_layer(cell, I, H)
        want, _ = layer(x)
        layer.matmul_precision = "bfloat16"
        got, _ = layer(x)
        most = 0.005 if len(cell.gates) > 1 else 0.01  # gates forget errors
        assert 0 < abs(got - want).max() < most * max(1, abs(want).max())


def test_a_row_of_nan_or_infinity_stays_alone(backend, cell, make_layer, rng):
    layer = make_layer(cell, I, H, matmul_precision="bfloat16")
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    want, _ = layer(x)
    for value in (np.nan, np.inf, 3e38):
        bad = x.copy()
        bad[2, 1] = value
        y, _, tape = layer.forward(bad)
        others = [0, 2, 3, 4]
        np.testing.assert_allclose(y[:, others], want[:, others], rtol=1e-5, atol=1e-6)
        if np.isnan(value):
            assert np.isnan(y[2:, 1]).all()
            dx, _, grads = layer.backward(tape, np.ones_like(y))
            assert np.isnan(grads["weight_ih_l0"]).any()
            assert np.isfinite(dx[:, others]).all()


PAIRS = """
import numpy as np, fastrnn
from fastrnn._bench import bits
rng = np.random.default_rng(0)
def numbers(shape, least, most):
    exponent = rng.integers(least, most, shape, dtype=np.uint32) << 23
    return (rng.integers(0, 2**32, shape, dtype=np.uint32) & 0x807FFFFF | exponent).view("f4")
# Any numbers; sums that cancel; products near the smallest normal number, and near the largest.
for of_bias, of_x in (((0, 256), (0, 256)), ((118, 136), (118, 132)), ((0, 12), (58, 72)),
                      ((240, 255), (180, 194))):
    linear = fastrnn.Linear(2, 1024, matmul_precision="bfloat16")
    linear.parameters()["weight"][...] = numbers((1024, 2), *of_x)
    linear.parameters()["bias"][...] = numbers(1024, *of_bias)
    print(bits.digest(linear(numbers((1024, 2), *of_x))))
"""


def test_millions_of_pairs():
    """One pair of products per output: the instruction rounds twice, the higher number first."""
    found = {}
    for name, environment in bits.PRECISIONS["bfloat16"].runs().items():
        done = subprocess.run(
            [sys.executable, "-P", "-c", PAIRS], env={**os.environ, **environment}, check=True,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        found[name] = done.stdout
    assert len(set(found.values())) <= 1, found


# -- the option ----------------------------------------------------------------------------------


def test_default_and_choices(make):
    assert make().matmul_precision == "float32"
    assert "matmul_precision" not in repr(make())
    for precision in PRECISIONS:
        layer = make(matmul_precision=precision)
        assert layer.matmul_precision == precision
        assert layer.get_config()["matmul_precision"] == precision
        assert ("matmul_precision='bfloat16'" in repr(layer)) == (precision == "bfloat16")
        twin = type(layer)(**layer.get_config())
        assert repr(twin) == repr(layer)
    for wrong in ("float16", "bf16", None, 16, ["bfloat16"]):
        with pytest.raises(ValueError, match=WRONG):
            make(matmul_precision=wrong)
        with pytest.raises(ValueError, match=WRONG):
            layer.matmul_precision = wrong
    assert layer.matmul_precision == "bfloat16"


def test_float32_layers_only(make):
    layer = make(dtype="float64", matmul_precision="float32")
    message = "^matmul_precision: expected 'float32' for arrays of float64, got 'bfloat16'"
    with pytest.raises(ValueError, match=message):
        make(dtype="float64", matmul_precision="bfloat16")
    with pytest.raises(ValueError, match=message):
        layer.matmul_precision = "bfloat16"
    assert layer.matmul_precision == "float32"
    layer.matmul_precision = "float32"


def test_copies_and_pickles(make):
    layer = make(matmul_precision="bfloat16")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.matmul_precision == "bfloat16"
        twin.matmul_precision = "float32"
    assert layer.matmul_precision == "bfloat16"
    layer.reset_parameters(1)
    layer.load_state_dict(make().state_dict())
    assert layer.matmul_precision == "bfloat16"


def test_set_between_calls(backend, cell, make_layer, rng, same_bits):
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    layer = make_layer(cell, I, H, num_layers=2)
    want = {p: make_layer(cell, I, H, num_layers=2, matmul_precision=p)(x) for p in PRECISIONS}
    stream = layer.stream(B)
    for precision in (*PRECISIONS, *PRECISIONS):
        layer.matmul_precision = precision
        assert same_bits(layer(x), want[precision])
        stream.reset()
        layer.matmul_precision = precision
        np.testing.assert_allclose(
            [stream.step(x_t) for x_t in x], want[precision][0], rtol=1e-5, atol=1e-6
        )
    assert not np.array_equal(*(y for y, _ in want.values()))


def test_a_tape_keeps_its_precision(backend, make, rng, same_bits):
    layer = make(matmul_precision="bfloat16")
    recurrent = isinstance(layer, tuple(fastrnn.layers.RECURRENT.values()))
    x = rng.normal(size=(T, B, I) if recurrent else (B, I)).astype(np.float32)
    *_, tape = layer.forward(x)
    dy = rng.normal(size=(T, B, H) if recurrent else (B, H)).astype(np.float32)
    if layer.has_state and not recurrent and len(layer.cell.states) == 2:
        dy = dy, dy
    want = layer.backward(tape, dy)
    layer.matmul_precision = "float32"
    assert same_bits(layer.backward(tape, dy), want)
    *_, tape = layer.forward(x)
    assert not same_bits(layer.backward(tape, dy), want)
    layer.matmul_precision = "bfloat16"
    assert same_bits(layer.backward(layer.forward(x)[-1], dy), want)


# -- models --------------------------------------------------------------------------------------


def model_of(**options):
    return fastrnn.Sequential(
        [
            fastrnn.Embedding(11, I, seed=0),
            fastrnn.LSTM(I, H, seed=1, **options),
            fastrnn.Dropout(0.1, seed=2),
            fastrnn.Linear(H, P, seed=3, **options),
        ]
    )


def test_of_a_model(backend, rng):
    tokens = rng.integers(0, 11, (B, T))
    model, plain = model_of(), model_of()
    assert model.matmul_precision == "float32"
    model.layers[1].matmul_precision = "bfloat16"
    assert model.matmul_precision is None
    for precision in ("bfloat16", "float32", "bfloat16"):
        model.matmul_precision = precision
        assert model.matmul_precision == precision
        assert model.layers[1].matmul_precision == model.layers[3].matmul_precision == precision
    assert np.array_equal(model(tokens), model_of(matmul_precision="bfloat16")(tokens))
    np.testing.assert_allclose(model(tokens), plain(tokens), atol=0.01)
    assert not np.array_equal(model(tokens), plain(tokens))
    with pytest.raises(ValueError, match=WRONG):
        model.matmul_precision = "float16"
    assert model.matmul_precision == "bfloat16"


def test_of_a_float64_model():
    model = fastrnn.Sequential([fastrnn.GRU(I, H, dtype="float64")])
    with pytest.raises(ValueError, match=r"^matmul_precision: expected 'float32' for arrays of"):
        model.matmul_precision = "bfloat16"
    assert model.matmul_precision == "float32"


def test_in_files(tmp_path):
    for precision in PRECISIONS:
        model = model_of(matmul_precision=precision)
        model.save(tmp_path / "m")
        assert fastrnn.load(tmp_path / "m").matmul_precision == precision
    model.layers[1].matmul_precision = "float32"
    model.save(tmp_path / "m")
    loaded = [getattr(a, "matmul_precision", None) for a in fastrnn.load(tmp_path / "m").layers]
    assert loaded == [None, "float32", None, "bfloat16"]


def test_files_of_before(tmp_path, monkeypatch):
    for kind in (fastrnn.LSTM, fastrnn.Linear):
        now = kind.get_config

        def before(layer, now=now):
            return {n: v for n, v in now(layer).items() if n != "matmul_precision"}

        monkeypatch.setattr(kind, "get_config", before)
    model_of().save(tmp_path / "m")
    monkeypatch.undo()
    assert fastrnn.load(tmp_path / "m").matmul_precision == "float32"


def test_pickles_of_before():
    config = fastrnn.LSTM(I, H)._config
    state = {n: v for n, v in vars(config).items() if n != "matmul_precision"}
    old = object.__new__(type(config))
    vars(old).update(state)
    assert old.matmul_precision == "float32"
    assert old == config


def test_of_the_text_models(tmp_path, backend):
    char_lm = fastrnn.text.CharLM(
        embedding_dim=4, hidden_size=8, seq_len=5, batch_size=2, epochs=1, seed=0
    )
    classifier = fastrnn.text.TextClassifier(embedding_dim=4, hidden_size=8, epochs=1, seed=0)
    for model, data in (
        (char_lm, ["the quick brown fox. " * 10]),
        (classifier, [["so good", "so bad"] * 4, ["+", "-"] * 4]),
    ):
        assert model.get_params()["matmul_precision"] == "float32"
        model.set_params(matmul_precision="bfloat16").fit(*data, verbose=0)
        assert model._fit.net.matmul_precision == "bfloat16"
        model.save(tmp_path / "m")
        loaded = fastrnn.load(tmp_path / "m")
        assert loaded.matmul_precision == loaded._fit.net.matmul_precision == "bfloat16"
        with pytest.raises(ValueError, match=WRONG):
            model.matmul_precision = "float16"


def test_of_the_estimators(backend, rng):
    sklearn = pytest.importorskip("sklearn.base")
    from fastrnn.sklearn import SequenceClassifier, SequenceRegressor

    X, y = rng.normal(size=(12, T, I)).astype(np.float32), np.arange(12) % 2
    for kind in (SequenceClassifier, SequenceRegressor):
        model = kind(hidden_size=8, max_epochs=1, random_state=0, matmul_precision="bfloat16")
        model = sklearn.clone(model).fit(X, y)
        assert model.get_params()["matmul_precision"] == "bfloat16"
        assert model.net_.matmul_precision == "bfloat16"
        with pytest.raises(ValueError, match=WRONG):
            kind(matmul_precision="half").fit(X, y)
        with pytest.raises(ValueError, match=r"^matmul_precision: expected 'float32' for arrays"):
            model.fit(X.astype(np.float64), y)
