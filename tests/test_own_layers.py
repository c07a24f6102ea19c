"""Layers of one's own: subclasses of fastrnn.Layer in models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn

B, T, I, H, O = 3, 7, 4, 5, 2


class Scale(fastrnn.Layer):
    """Each feature times a weight."""

    def __init__(self, features: int, dtype: Any = np.float32) -> None:
        self.weight = np.ones(features, dtype)

    def forward(self, x: Any) -> Any:
        return x * self.weight, x

    def backward(self, tape: Any, dy: Any) -> Any:
        return dy * self.weight, {"weight": (dy * tape).reshape(-1, len(self.weight)).sum(axis=0)}

    def parameters(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight}


class Mean(fastrnn.Layer):
    """The mean over the steps of each sequence."""

    per_sequence = True

    def forward(self, x: Any, *, lengths: Any = None) -> Any:
        n = np.full(x.shape[1], len(x)) if lengths is None else lengths
        weight = ((np.arange(len(x))[:, None] < n) / n)[..., None].astype(x.dtype)
        return (x * weight).sum(axis=0), weight

    def backward(self, tape: Any, dy: Any) -> Any:
        return tape * dy, {}


class Smooth(fastrnn.Layer):
    """An exponential moving average: a state of its own."""

    has_state = True

    def __init__(self, rate: float = 0.25) -> None:
        self.rate = rate

    def forward(self, x: Any, state: Any = None, *, reset: Any = None) -> Any:
        s = np.zeros(x.shape[1:], x.dtype) if state is None else state
        y = np.empty_like(x)
        for t in range(len(x)):
            s = s if reset is None else np.where(reset[t][:, None], 0, s).astype(x.dtype)
            s = y[t] = s + np.float32(self.rate) * (x[t] - s)
        return y, s, reset

    def backward(self, tape: Any, dy: Any) -> Any:
        dx, d = np.empty_like(dy), np.zeros_like(dy[0])
        for t in reversed(range(len(dy))):
            d = d + dy[t]
            dx[t] = d * np.float32(self.rate)
            d = d - dx[t]
            d = d if tape is None else np.where(tape[t][:, None], 0, d).astype(dy.dtype)
        return dx, d, {}


def model(*own: fastrnn.Layer, outputs: int = O) -> fastrnn.Sequential:
    return fastrnn.Sequential([fastrnn.GRU(I, H), *own, fastrnn.Linear(H, outputs)], seed=0)


@pytest.fixture(name="X")
def inputs(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(B, T, I)).astype(np.float32)


def stepped(net: fastrnn.Sequential, X: np.ndarray) -> np.ndarray:
    stream = net.stream(len(X))
    return np.stack([stream.step(x_t) for x_t in X.swapaxes(0, 1)], axis=1)


def test_in_a_model(X, backend):
    net = model(Scale(H), Smooth(), Scale(H))
    y = net(X)
    np.testing.assert_allclose(stepped(net, X), y, rtol=1e-5, atol=1e-6)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_array_equal(twin(X), y)
    net.compile("adam", "mse")
    first = net.evaluate(X, X[..., :2])["loss"]
    net.fit(X, X[..., :2], epochs=30, verbose=0)
    assert net.evaluate(X, X[..., :2])["loss"] < first
    assert (net.layers[1].weight != 1).all()
    net.layers[1].trainable = False
    before = net.layers[1].weight.copy()
    net.fit(X, X[..., :2], verbose=0)
    np.testing.assert_array_equal(net.layers[1].weight, before)
    assert "1.weight" in net.state_dict()
    twin = model(Scale(H), Smooth(), Scale(H))
    twin.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(twin(X), net(X))
    net.summary()


def test_gradients(rng):
    net = fastrnn.Sequential(
        [fastrnn.GRU(I, H, dtype=np.float64), Scale(H, np.float64), Smooth(0.5), Mean()], seed=0
    )
    X = rng.normal(size=(B, T, I))
    lengths, reset = [T, 3, 5], rng.random((B, T)) < 0.3
    y, tape = net.forward(X, lengths=lengths, reset=reset)
    assert y.shape == (B, H)
    along = rng.normal(size=y.shape)
    dx, grads = net.backward(tape, along)
    for array, grad in [(X, dx), *((w, grads[n]) for n, w in net.parameters().items())]:
        for _ in range(5):
            i = tuple(rng.integers(0, n) for n in array.shape)
            value, sides = array[i], []
            for step in (1e-6, -1e-6):
                array[i] = value + step
                sides.append((net(X, lengths=lengths, reset=reset) * along).sum())
            array[i] = value
            np.testing.assert_allclose(grad[i], (sides[0] - sides[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_states(X, backend):
    net = model(Smooth())
    whole, end = net(X, [None, None])
    _, state = net(X[:, :3], [None, None])
    rest, last = net(X[:, 3:], state)
    np.testing.assert_allclose(rest, whole[:, 3:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last[1], end[1], rtol=1e-5, atol=1e-6)
    stream = net.stream(B)
    first = stream.step(X[:, 0])
    state = stream.state
    second = stream.step(X[:, 1])
    stream.state = state
    np.testing.assert_array_equal(stream.step(X[:, 1]), second)
    stream.reset([0])
    np.testing.assert_allclose(stream.step(X[:, 0])[0], first[0], rtol=1e-6)
    stream.reset()
    np.testing.assert_array_equal(stream.step(X[:, 0]), first)


def test_lengths(X, backend):
    net = model(Mean())
    ragged = [X[0], X[1, :2], X[2, :4]]
    y = net.predict(ragged)
    for i, x in enumerate(ragged):
        np.testing.assert_allclose(y[i], net(x[None])[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="needs whole sequences"):
        net.stream()


def test_files_hold_none(X, tmp_path):
    net = model(Scale(H))
    with pytest.raises(TypeError, match=r"layers\[1\]: expected one of .*, got Scale, a class of"):
        net.save(tmp_path / "m.safetensors")
    small = fastrnn.quantize(net)
    np.testing.assert_allclose(small(X), net(X), atol=0.05)


def wrong(kind: str) -> fastrnn.Layer:
    class Wrong(Scale):
        def forward(self, x: Any) -> Any:
            return (x[..., 1:] if kind == "y" else x), x

        def backward(self, tape: Any, dy: Any) -> Any:
            grad = tape.sum(axis=(0, 1))
            return dy, {"names": {"other": grad}, "shape": {"weight": grad[1:]}}.get(kind, {})

    return Wrong(H)


def test_errors(X):
    for kind, said in {
        "y": r"output of Wrong: expected shape \(7, 3, 5\), got \(7, 3, 4\)",
        "names": r"gradients of Wrong: expected those of \['weight'\], got \['other'\]",
        "none": r"gradients of Wrong: expected those of \['weight'\], got \[\]",
        "shape": r"gradient of Wrong.weight: expected shape \(5,\), got \(4,\)",
    }.items():
        net = model(wrong(kind))
        net.compile("sgd", "mse")
        with pytest.raises(ValueError, match=said):
            net.fit(X, X[..., :2], verbose=0)
