"""Learned initial states: gradients, resets, streams, files, int8 models and training."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn

T, B, I, H = 7, 3, 4, 5
LENGTHS = np.array([7, 3, 5])
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"return_sequences": False, "batch_first": True},
    {"go_backwards": True, "batch_first": True},
]


def made(kind: Any, **options: Any) -> Any:
    """Return a layer with a random learned state."""
    layer = kind(I, H, learn_initial_state=True, seed=0, **options)
    rng = np.random.default_rng(1)
    for name, array in layer.parameters().items():
        if name in ("h_0", "c_0"):
            assert not array.any()
            array[...] = 0.5 * rng.normal(size=array.shape)
    return layer


def each(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def data(rng: Any, batch_first: bool = False, dtype: Any = np.float64) -> Any:
    x, reset = rng.normal(size=(T, B, I)).astype(dtype), rng.random((T, B)) < 0.3
    return (x.swapaxes(0, 1).copy() if batch_first else x), reset


def given(layer: Any, rng: Any) -> Any:
    first = [a for n, a in layer.parameters().items() if n in ("h_0", "c_0")]
    states = [rng.normal(size=(len(a), B, a.shape[1])).astype(layer.dtype) for a in first]
    return tuple(states) if len(states) > 1 else states[0]


def turned_back(options: dict[str, Any]) -> bool:
    return "bidirectional" in options or "go_backwards" in options


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_gradients(recurrent, options, rng):
    layer = made(recurrent, dtype=np.float64, **options)
    x, reset = data(rng, "batch_first" in options)
    for call in ({}, {"lengths": LENGTHS}, {"reset": reset}, {"reset": reset, "lengths": LENGTHS}):
        if "reset" in call and turned_back(options):
            continue
        for state in (None, given(layer, rng)):
            y, _, tape = layer.forward(x, state, **call)
            along = rng.normal(size=y.shape)
            ends = given(layer, rng)
            dx, dstate, grads = layer.backward(tape, along, ends)
            own = layer.parameters()
            assert grads.keys() == own.keys()

            def value(state: Any = state, call: Any = call, along: Any = along, ends: Any = ends):
                y, state_n = layer(x, state, **call)
                return (y * along).sum() + sum(
                    (s * d).sum() for s, d in zip(each(state_n), each(ends), strict=True)
                )

            arrays = [(x, dx), *((w, grads[n]) for n, w in own.items() if "l0" not in n)]
            arrays += [] if state is None else list(zip(each(state), each(dstate), strict=True))
            for array, grad in arrays:
                for _ in range(4):
                    i = tuple(rng.integers(0, n) for n in array.shape)
                    before, sides = array[i], []
                    for step in (1e-6, -1e-6):
                        array[i] = before + step
                        sides.append(value())
                    array[i] = before
                    expected = (sides[0] - sides[1]) / 2e-6
                    np.testing.assert_allclose(grad[i], expected, rtol=1e-6, atol=1e-7)


def test_as_an_explicit_state(recurrent, backend, rng, same_bits):
    """The learned state stands for the same state, given for each row; gradients are its sums."""
    layer = made(recurrent, num_layers=2)
    plain = recurrent(I, H, num_layers=2)
    plain.load_state_dict(layer.state_dict(), strict=False)
    x, _ = data(rng, dtype=np.float32)
    first = [a[:, None].repeat(B, 1) for n, a in layer.parameters().items() if n[1:] == "_0"]
    state = tuple(first) if len(first) > 1 else first[0]
    y, state_n, tape = layer.forward(x)
    expected = plain.forward(x, state)
    assert same_bits((y, state_n), expected[:2])
    dx, dstate, grads = layer.backward(tape, y)
    of_plain = plain.backward(expected[2], y)
    assert same_bits((dx, dstate), of_plain[:2])
    for name, d in zip(("h_0", "c_0"), each(of_plain[1]), strict=False):
        np.testing.assert_allclose(grads[name], d.sum(axis=1), rtol=1e-6)
    other = layer.forward(x, state)
    assert same_bits(other[0], y)
    assert not layer.backward(other[2], y)[2]["h_0"].any()


def stepped(stream: Any, x: Any, reset: Any) -> np.ndarray:
    out = []
    for x_t, rows in zip(x, reset, strict=True):
        stream.reset(rows.tolist() if not rows.all() else None)
        out.append(stream.step(x_t))
    return np.stack(out)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_resets_and_streams(recurrent, num_layers, backend, rng, expect_equal):
    layer = made(recurrent, num_layers=num_layers)
    x, reset = data(rng, dtype=np.float32)
    y, state = layer(x, reset=reset)
    stream = layer.stream(B)
    expect_equal(stepped(stream, x, reset), y)
    for ours, theirs in zip(each(stream.state), each(state), strict=True):
        expect_equal(ours, theirs)
    y_0, _ = layer(x)
    expect_equal(layer(x, reset=np.zeros((T, B), bool))[0], y_0)
    padded, ends = layer(x, reset=reset, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        expect_equal(padded[:n, b], y[:n, b])
        assert not padded[n:, b].any()
    alone, end = layer(x[:, 1], reset=reset[:, 1])
    expect_equal(alone, y[:, 1])
    expect_equal(each(end)[0], each(state)[0][:, 1])
    for a, c in zip(each(ends), each(state), strict=True):
        expect_equal(a[:, 0], c[:, 0])  # of the longest


def test_in_a_model(backend, rng, tmp_path, same_bits):
    net = fastrnn.Sequential([made(fastrnn.LSTM), fastrnn.GRU(H, H), fastrnn.Linear(H, 2)], seed=0)
    assert net.layers[0].parameters()["h_0"].any()  # the seed leaves what was set
    x, reset = data(rng, batch_first=True, dtype=np.float32)
    y = net(x, reset=reset.T)
    for twin in (net, fastrnn.quantize(net)):
        y = twin(x, reset=reset.T)
        twin.save(tmp_path / "m.safetensors")
        for other in (fastrnn.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(twin))):
            assert same_bits(other(x, reset=reset.T), y)
            assert repr(other) == repr(twin)
        found = stepped(twin.stream(B), x.swapaxes(0, 1), reset).swapaxes(0, 1)
        np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)
    with fastrnn.use_backend("reference"):
        assert same_bits(twin(x), fastrnn.load(tmp_path / "m.safetensors")(x))


def test_training_learns_it(backend):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3, I)) * 0.01
    net = fastrnn.Sequential([fastrnn.GRU(I, H, learn_initial_state=True), fastrnn.Linear(H, 1)])
    net.reset_parameters(0)
    net.compile(fastrnn.optim.Adam(0.02), "mse")
    y = np.broadcast_to([[[3.0], [-1.0], [0.5]]], (40, 3, 1))
    first = net.evaluate(X, y)["loss"]
    net.fit(X, y, epochs=30, verbose=0)
    assert net.evaluate(X, y)["loss"] < first / 3
    assert net.layers[0].parameters()["h_0"].any()
    net.fit(X, y, epochs=1, bptt=2, verbose=0)
    net.reset_parameters(0)
    assert not net.layers[0].parameters()["h_0"].any()


def test_options_and_errors(recurrent, rng):
    layer = made(recurrent, bidirectional=True)
    assert layer.learn_initial_state
    assert "learn_initial_state=True" in repr(layer)
    assert type(layer)(**layer.get_config()).parameters().keys() == layer.parameters().keys()
    x, reset = data(rng, dtype=np.float32)
    with pytest.raises(ValueError, match=r"^reset: expected None, as a layer with learn_initial"):
        layer(x, reset=reset)
    plain = recurrent(I, H)
    assert not plain.learn_initial_state
    _, _, tape = made(recurrent).forward(x)
    with pytest.raises(ValueError, match=r"^tape: is from the forward of another layer"):
        plain.backward(tape)
    with pytest.raises(TypeError, match="learn_initial_state: expected True or False"):
        recurrent(I, H, learn_initial_state="yes")
