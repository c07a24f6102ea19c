"""Normalization: statistics of data, in models, streams, files, int8 models and estimators."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch

N, T, F, H, O = 10, 7, 3, 5, 2


@pytest.fixture(name="X")
def inputs(dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Return data far from 0, beside their deviation."""
    return rng.normal([1e4, -20, 0.5], [3, 0.1, 20], (N, T, F)).astype(dtype)


def test_the_formula_in_float64(X, dtype, backend, same_bits):
    norm = fastrnn.Normalization(dtype=dtype).adapt(X)
    np.testing.assert_allclose(norm.mean, X.mean(axis=(0, 1), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(norm.variance, X.var(axis=(0, 1), dtype=np.float64), rtol=1e-9)
    wide = X.astype(np.float64)
    expected = ((wide - norm.mean) / norm.deviation).astype(dtype)
    for given in (X, wide):  # which is not rounded before
        assert same_bits(norm(given), expected)
    back = (expected.astype(np.float64) * norm.deviation + norm.mean).astype(dtype)
    assert same_bits(norm.inverse(expected), back)
    inverted = fastrnn.Normalization(F, invert=True, dtype=dtype)
    inverted.load_state_dict(norm.state_dict())
    assert same_bits(inverted(expected), back)
    assert same_bits(inverted.inverse(X), expected)


@pytest.mark.parametrize("invert", [False, True])
def test_gradients(invert, backend, dtype, X, rng):
    norm = fastrnn.Normalization(F, invert=invert, dtype=dtype).adapt(X)
    y, tape = norm.forward(X)
    dy = rng.normal(size=y.shape).astype(dtype)
    dx, grads = norm.backward(tape, dy)
    assert grads == {}
    slope = norm.deviation if invert else 1 / norm.deviation
    np.testing.assert_allclose(dx, dy * slope, rtol=1e-6)


def test_padding_and_weights(X, dtype):
    lengths = np.array([T, 2, 5, 1, T, 3, 3, 4, 6, 2])
    ragged = [x[:n] for x, n in zip(X, lengths, strict=True)]
    padded = X.copy()
    padded[np.arange(T) >= lengths[:, None]] = np.nan
    of_list = fastrnn.Normalization().adapt(ragged)
    rows = np.concatenate(ragged)
    np.testing.assert_allclose(of_list.mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-12)
    of_padded = fastrnn.Normalization().adapt(padded, lengths=lengths)
    np.testing.assert_array_equal(of_padded.mean, of_list.mean)
    np.testing.assert_array_equal(of_padded.deviation, of_list.deviation)
    weight = np.arange(N) % 3
    weighted = fastrnn.Normalization().adapt(ragged, sample_weight=weight)
    repeated = fastrnn.Normalization().adapt(
        [x for x, w in zip(ragged, weight, strict=True) for _ in range(w)]
    )
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.deviation, repeated.deviation, rtol=1e-9)


def test_constant_features_are_centred(dtype):
    X = np.full((4, T, F), 14.62, dtype)
    norm = fastrnn.Normalization(dtype=dtype).adapt(X)
    assert norm.deviation.tolist() == [1, 1, 1]
    np.testing.assert_allclose(norm(X), 0, atol=1e-6)
    keras = fastrnn.Normalization(mean=[1, 2], variance=[4, 0], dtype=np.float64)
    np.testing.assert_allclose(keras([[5, 2], [3, 2 + 1e-7]]), [[2, 0], [1, 1]])


def model(dtype: Any, X: np.ndarray) -> fastrnn.Sequential:
    layers = [
        fastrnn.Normalization(dtype=dtype).adapt(X),
        fastrnn.GRU(F, H, dtype=dtype),
        fastrnn.Linear(H, O, dtype=dtype),
        fastrnn.Normalization(mean=[5, 6], variance=[4, 9], invert=True, dtype=dtype),
    ]
    return fastrnn.Sequential(layers, seed=0)


def stepped(net: fastrnn.Sequential, X: np.ndarray) -> np.ndarray:
    stream = net.stream(len(X))
    return np.stack([stream.step(x_t) for x_t in X.swapaxes(0, 1)], axis=1)


def test_in_a_model(backend, dtype, X, same_bits, expect_equal, tmp_path, capsys):
    net = model(dtype, X)
    y = net(X)
    assert abs(y.mean(axis=(0, 1)) - [5, 6]).max() < 3
    expect_equal(stepped(net, X), y)
    assert type(net.stream()._busy) is dispatch.kernels(dtype).Chain
    net.save(tmp_path / "m.safetensors")
    twins = fastrnn.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(net))
    for twin in (*twins, copy.deepcopy(net)):
        assert same_bits(twin(X), y)
        assert repr(twin) == repr(net)
    net.summary()
    assert "Normalization(2, invert=True" in capsys.readouterr().out
    assert {"0.mean", "0.deviation", "3.mean"} <= net.state_dict().keys()
    assert net.parameters().keys() == net.backward(net.forward(X)[1], y)[1].keys()


def test_training_leaves_it(backend, X, tmp_path):
    net = model(X.dtype, X)
    before = net.layers[0].state_dict()
    net.compile(fastrnn.optim.Adam(0.01, weight_decay=0.1), "mse")
    stop = fastrnn.callbacks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True)
    history = net.fit(X, X[..., :2] * 0 + 7, epochs=5, verbose=0, callbacks=[stop])
    assert history.history["loss"][-1] < history.history["loss"][0]
    for name, array in net.layers[0].state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_changes_are_seen(backend, X):
    net = model(X.dtype, X)
    stream = net.stream(N)
    first = stream.step(X[:, 0])
    net.layers[3].buffers()["mean"][...] += 1
    stream.reset()
    np.testing.assert_allclose(stream.step(X[:, 0]), first + 1, rtol=1e-5)
    net.layers[3].adapt(np.zeros((2, O)))
    stream.reset()
    assert abs(stream.step(X[:, 0])).max() < 3


def test_quantized(backend, X, same_bits, tmp_path):
    X = X.astype(np.float32)
    net = model("float32", X)
    small = fastrnn.quantize(net)
    y = small(X)
    np.testing.assert_allclose(y, net(X), atol=0.1)
    with fastrnn.use_backend("reference"):
        assert same_bits(small(X), y)
    assert same_bits(stepped(small, X), y)
    small.save(tmp_path / "q.safetensors")
    assert same_bits(fastrnn.load(tmp_path / "q.safetensors")(X), y)
    assert same_bits(pickle.loads(pickle.dumps(small))(X), y)


def test_options(X):
    norm = fastrnn.Normalization(invert=True, dtype=np.float64)
    assert repr(norm) == "Normalization(invert=True, dtype=float64)"
    assert norm.features is None
    assert norm.buffers() == {}
    norm.adapt(X)
    assert repr(fastrnn.Normalization(**norm.get_config())) == repr(norm)
    assert fastrnn.Normalization(F)(X[0]).tolist() == X[0].astype("float32").tolist()
    norm.reset_parameters()  # of which it has none
    assert norm.mean.any()
    empty = fastrnn.Sequential([fastrnn.Normalization(), fastrnn.GRU(F, H)])
    with pytest.raises(ValueError, match=r"expected adapt\(X\)"):
        empty(X)
    with pytest.raises(ValueError, match=r"expected adapt\(X\)"):
        empty.stream()
    empty.layers[0].adapt(X)
    assert empty(X).shape == (N, T, H)


WRONG = {
    "mean, variance: expected both": lambda: fastrnn.Normalization(mean=[1]),
    "variance: expected shape": lambda: fastrnn.Normalization(mean=[1], variance=[1, 2]),
    "mean, variance: expected finite": lambda: fastrnn.Normalization(mean=[1], variance=[-1]),
    "mean: expected shape": lambda: fastrnn.Normalization(2, mean=[1], variance=[1]),
    "features: expected": lambda: fastrnn.Normalization(0),
    "X: expected finite numbers, got NaN": lambda: fastrnn.Normalization().adapt([[1, np.nan]]),
    "X: expected one row or more": lambda: fastrnn.Normalization().adapt(np.empty((0, 3))),
    r"X: expected shape \(\.\.\., F\)": lambda: fastrnn.Normalization().adapt([1, 2]),
    r"X: expected shape \(2, 3\)": lambda: fastrnn.Normalization(3).adapt(np.ones((2, 4))),
    r"X\[1\]: expected shape \(T, 3\)": lambda: fastrnn.Normalization().adapt(
        [np.ones((2, 3)), np.ones((3, 4))]
    ),
    "lengths: expected whole numbers": lambda: fastrnn.Normalization().adapt(
        np.ones((2, 3, 4)), lengths=[3, 4]
    ),
    "sample_weight: expected finite": lambda: fastrnn.Normalization().adapt(
        np.ones((2, 3)), sample_weight=[0, 0]
    ),
    r"x: expected shape \(\.\.\., 3\), got": lambda: fastrnn.Normalization(3)(np.ones((2, 4))),
    "is fixed": lambda: setattr(fastrnn.Normalization(3), "mean", 3),
}


@pytest.mark.parametrize("said", WRONG)
def test_errors(said):
    with pytest.raises((ValueError, TypeError, AttributeError), match=said):
        WRONG[said]()


def test_nan_stays_where_it_is(backend, X, dtype):
    norm = fastrnn.Normalization(dtype=dtype).adapt(X)
    y = norm(X)
    X[1, 2, 0] = np.nan
    X[1, 2, 1] = np.inf
    found = norm(X)
    assert np.isnan(found[1, 2, 0])
    assert found[1, 2, 1] == np.inf
    found[1, 2, :2] = y[1, 2, :2]
    np.testing.assert_array_equal(found, y)
