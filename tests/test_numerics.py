"""NaN and infinity stay in their rows; nothing finite overflows; warnings change nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAN_AND_INFINITY = (np.nan, np.inf, -np.inf)
T, B, I, H = 7, 6, 5, 19
WRONG = 2  # the row with NaN or infinity
REST = [b for b in range(B) if b != WRONG]

GATED: dict[str, Any] = {"activations": ["softsign", "elu", "softplus"], "clip": 1.25}
#: Layers with the options that change what is computed, every one at least once.
LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "dropout": 0.4}),
    ("RNN", {"matmul_precision": "bfloat16", "num_layers": 2, "dropout": 0.4}),
    ("RNN", {"activations": ["leaky_relu"], "clip": 0.5, "bidirectional": True}),
    ("IndRNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("IndRNN", {"nonlinearity": "tanh", "bidirectional": True, "dtype": "float64"}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.4, "proj_size": 3}),
    ("LSTM", {"peephole": True, "go_backwards": True, "weight_dropout": 0.3}),
    ("LSTM", {"layer_norm": True, "learn_initial_state": True, "peephole": True}),
    ("LSTM", {**GATED, "input_forget": True, "proj_size": 4, "dtype": "float64"}),
    ("LSTM", {"matmul_precision": "bfloat16", "bidirectional": True, "proj_size": 3}),
    ("GRU", {"matmul_precision": "bfloat16", "num_layers": 2}),
    ("GRU", {"layer_norm": True, "bidirectional": True}),
    ("GRU", {"reset_after": False, "layer_norm": True, "learn_initial_state": True}),
    ("GRU", {"reset_after": False, "dtype": "float64", "go_backwards": True}),
    ("GRU", {"activations": ["hard_sigmoid", "scaled_tanh"], "clip": 2.0}),
]  # fmt: skip
LAYERS[-1][1]["activations"] = ["hard_sigmoid", ("scaled_tanh", 1.5, 0.5)]


def flat(nest: Any) -> Iterator[np.ndarray]:
    for a in nest if isinstance(nest, tuple | list) else [nest]:
        if isinstance(a, tuple | list):
            yield from flat(a)
        elif a is not None:
            yield a


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize(("name", "options"), LAYERS, ids=str)
def test_rows_with_every_option(
    backend: str, name: str, options: dict[str, Any], ragged: bool, rng: np.random.Generator
) -> None:
    """Forward and BPTT, from x, the state, dy and the gradient of the final state."""
    if ragged and options.get("go_backwards"):
        pytest.skip("resets need a direction")
    make = lambda: getattr(fastrnn, name)(I, H, seed=1, **options)  # noqa: E731
    x = rng.normal(size=(T, B, I)).astype(make().dtype)
    lengths = np.array([3, 7, 6, 1, 7, 5]) if ragged else None
    reset = rng.random((T, B)) < 0.2 if ragged else None
    if reset is not None:
        reset[:, WRONG] = False
        reset &= "learn_initial_state" not in options
    # A padded batch as from Masking, with NaN where there is nothing.
    if lengths is not None:
        x[np.arange(T)[:, None] >= lengths] = np.nan
    y, state, _ = make().forward(x, lengths=lengths)
    given = [rng.normal(size=a.shape).astype(a.dtype) for a in (y, *flat(state), *flat(state))]
    n = len(given) // 2

    def results(place: int, value: float) -> list[np.ndarray]:
        arrays = [a.copy() for a in (x, *given)]
        if place >= 0:
            a = arrays[place]
            a[(1, WRONG) if a is arrays[0] or a is arrays[1] else (0, WRONG)] = value
        packed = lambda states: states[0] if len(states) == 1 else tuple(states)  # noqa: E731
        first, last = packed(arrays[2 : 2 + n]), packed(arrays[2 + n :])
        layer = make()  # a new one draws the same dropout
        y, end, tape = layer.forward(arrays[0], first, lengths=lengths, reset=reset)
        dx, dstate, _ = layer.backward(tape, arrays[1], last)
        return [y, dx, *flat(end), *flat(dstate)]

    clean = results(-1, 0.0)
    assert all(np.isfinite(a).all() for a in clean)
    for place in range(2 + 2 * n):
        for value in NAN_AND_INFINITY:
            for got, wanted in zip(results(place, value), clean, strict=True):
                assert got[:, REST].tobytes() == wanted[:, REST].tobytes()


@pytest.mark.parametrize(("name", "options"), LAYERS, ids=str)
def test_rows_of_quantized_layers(
    backend: str, name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    if options.get("dtype") == "float64":
        pytest.skip("int8 layers are of float32")
    options = {k: v for k, v in options.items() if k != "matmul_precision"}
    layer = fastrnn.quantize(getattr(fastrnn, name)(I, H, seed=1, **options))
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    lengths = np.array([3, 7, 6, 1, 7, 5])
    clean = list(flat(layer(x, lengths=lengths)))
    for value in NAN_AND_INFINITY:
        wrong = x.copy()
        wrong[1, WRONG, 3] = value
        for got, wanted in zip(flat(layer(wrong, lengths=lengths)), clean, strict=True):
            assert got[:, REST].tobytes() == wanted[:, REST].tobytes()


LOSSES = ("mse", "mae", "huber", "binary_cross_entropy", "cross_entropy")


def targets(loss: str, z: np.ndarray) -> np.ndarray:
    if loss == "cross_entropy":
        return np.arange(len(z)) % z.shape[-1]
    return (np.arange(z.size).reshape(z.shape) % 2).astype(z.dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_losses(
    backend: str, loss: str, weighted: bool, dtype: np.dtype, rng: np.random.Generator
) -> None:
    z = rng.normal(size=(B, 37)).astype(dtype)
    weight = rng.random(B) if weighted else None
    of = getattr(fastrnn.losses, loss).value_and_grad
    clean = of(z, targets(loss, z), weight)[1]
    for value in NAN_AND_INFINITY:
        wrong = z.copy()
        wrong[WRONG, 5] = value
        found, grad = of(wrong, targets(loss, z), weight)
        assert not np.isfinite(found) or loss == "binary_cross_entropy" or "cross" in loss
        assert grad[REST].tobytes() == clean[REST].tobytes()


# -- nothing finite overflows on the way ----------------------------------------------------------


def largest(dtype: Any) -> float:
    return float(np.finfo(dtype).max)


def exact_norm(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    d = x.astype(np.longdouble)
    d -= d.mean(axis=-1, keepdims=True)
    return np.asarray(d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + np.longdouble(eps)))


def extremes(dtype: Any) -> np.ndarray:
    """Return rows of numbers whose squares or sums overflow or vanish, longer than a vector."""
    big, rng = largest(dtype), np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (9, 21))
    scales = [0.9 * big, 0.9 * big, big**0.5, big**0.6, 1e3, 1e-3, big**-0.5, 1 / big, 1.0]
    rows = (rows * np.array(scales)[:, None]).astype(dtype)
    rows[0] = np.sign(rows[0]) * dtype.type(0.9 * big)
    rows[1] = np.abs(rows[1])
    return rows


def test_layer_norm(backend: str, dtype: np.dtype) -> None:
    layer, x = fastrnn.LayerNorm(21, dtype=dtype), extremes(dtype)
    eps = float(np.finfo(dtype).eps)
    y, tape = layer.forward(x)
    np.testing.assert_allclose(y, exact_norm(x).astype(dtype), rtol=64 * eps, atol=64 * eps)
    # Alone and in a batch, the same.
    assert layer(x[:1]).tobytes() == y[:1].tobytes()
    dx, _ = layer.backward(tape, np.ones_like(x) * np.linspace(-1, 1, 21, dtype=dtype))
    assert np.isfinite(dx).all()
    rows = np.tile(np.linspace(-3, 4, 21, dtype=dtype), (3, 1))
    _, tape = layer.forward(rows)
    small, _ = layer.backward(tape, extremes(dtype)[:3] / dtype.type(largest(dtype) / 16))
    large, _ = layer.backward(tape, extremes(dtype)[:3] / dtype.type(16))
    scale = np.longdouble(largest(dtype)) / 256
    np.testing.assert_allclose(
        large, (small * scale).astype(dtype), rtol=1e4 * eps, atol=float(scale) * 1e2 * eps
    )


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_layer_norm_in_layers(backend: str, name: str, dtype: np.dtype) -> None:
    layer = getattr(fastrnn, name)(I, H, seed=0, layer_norm=True, dtype=dtype)
    x = np.ones((T, B, I), dtype)
    x *= np.linspace(-1, 1, I, dtype=dtype)
    for scale in (largest(dtype) / 9, largest(dtype) ** 0.55):
        y, _, tape = layer.forward(x * dtype.type(scale))
        assert np.isfinite(y).all()
        dx, _, grads = layer.backward(tape, y)
        assert np.isfinite(dx).all()
        assert all(np.isfinite(g).all() for n, g in grads.items() if "weight_ih" not in n)
        # Normalised, all scales are alike.
        usual = layer(x * dtype.type(largest(dtype) ** 0.25))[0]
        np.testing.assert_allclose(y, usual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"), [("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False})], ids=str
)
def test_large_gradients_of_layer_norm_in_layers(
    backend: str, name: str, options: dict[str, Any], dtype: np.dtype, rng: np.random.Generator
) -> None:
    """Beyond some size they are scaled by a power of 2: BPTT is linear in them."""
    layer = getattr(fastrnn, name)(I, H, seed=0, layer_norm=True, dtype=dtype, **options)
    y, _, tape = layer.forward(rng.normal(size=(T, B, I)))
    dy = rng.normal(size=y.shape).astype(dtype)
    scale = dtype.type(largest(dtype) ** 0.6)
    results = [layer.backward(tape, dy * s) for s in (dtype.type(1), scale)]
    usual, large = ([dx, *flat(state), *grads.values()] for dx, state, grads in results)
    for a, b in zip(usual, large, strict=True):
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(b / scale, a, rtol=0, atol=64 * eps * np.abs(a).max())


@pytest.mark.parametrize("function", ["softmax", "log_softmax"])
def test_softmax(backend: str, function: str, dtype: np.dtype) -> None:
    big = largest(dtype)
    x = np.array([[0.4 * big, -0.4 * big, 0, 1], [-big, -big, -big, -big], [1, 2, 3, 4]], dtype)
    y, tape = fastrnn.Activation(function).forward(x)
    shifted = x.astype(np.longdouble) - x.max(axis=-1, keepdims=True)
    exact = np.exp(shifted) / np.exp(shifted).sum(axis=-1, keepdims=True)
    wanted = exact if function == "softmax" else shifted - np.log(np.exp(shifted).sum(-1))[:, None]
    np.testing.assert_allclose(y, wanted.astype(dtype), rtol=1e-5, atol=1e-37)
    dy = np.array([[0.9, -0.9, 0.9, 0.9], [0.9, 0.9, -0.9, 0.5], [0.6, -0.9, 0.9, 0.01]]) * big
    dx, _ = fastrnn.Activation(function).backward(tape, dy.astype(dtype))
    d = dy.astype(dtype).astype(np.longdouble)
    if function == "softmax":
        wanted = exact * (d - (d * exact).sum(-1, keepdims=True))
    else:
        wanted = d - exact * d.sum(-1, keepdims=True)
    with np.errstate(over="ignore"):
        narrow = wanted.astype(dtype)
    np.testing.assert_allclose(dx, narrow, rtol=1e-4, atol=1e-5 * big)


ACTIVATIONS = [
    name for name in fastrnn.layers.activation.ACTIVATIONS if "softmax" not in name
]  # fmt: skip


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(backend: str, function: str, dtype: np.dtype) -> None:
    big = largest(dtype)
    x = np.array([0.9 * big, big**0.6, big**0.4, 1e4, 89, 20, 1, big**-0.4, 1 / big, 0], dtype)
    layer, x = fastrnn.Activation(function), np.concatenate([x, -x])[None]
    y, tape = layer.forward(x)
    dx, _ = layer.backward(tape, np.full_like(x, big / 4))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert (np.abs(dx) <= big / 2).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(backend: str, loss: str, weighted: bool) -> None:
    """In float32, in which squares and sums overflow, while the mean is a float of 64 bits."""
    rng, big = np.random.default_rng(0), largest(np.float32)
    z = (rng.uniform(-1, 1, (40, 31)) * big).astype(np.float32)
    t = targets(loss, z) if "cross" in loss else -z
    weight = rng.random(40).astype(np.float32) if weighted else None
    value, grad = getattr(fastrnn.losses, loss).value_and_grad(z, t, weight)
    wide, of_wide = getattr(fastrnn.losses, loss).value_and_grad(
        z.astype(float), t if "s_e" in loss and loss[0] == "c" else t.astype(float), weight
    )
    np.testing.assert_allclose(value, wide, rtol=1e-5)
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad, of_wide, rtol=2e-5, atol=1e-9)


def test_huber_with_a_huge_delta(backend: str) -> None:
    """Both of its branches count where sums overflow."""
    big = largest(np.float32)
    z = (np.random.default_rng(0).uniform(-1, 1, (7, 31)) * big).astype(np.float32)
    huber = fastrnn.losses.Huber(float(np.float32(big / 2)))
    value, grad = huber.value_and_grad(z, -z)
    wide, of_wide = huber.value_and_grad(z.astype(float), -z.astype(float))
    np.testing.assert_allclose(value, wide, rtol=1e-6)
    np.testing.assert_allclose(grad, of_wide, rtol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary_cross_entropy"])
def test_losses_of_doubles(backend: str, loss: str) -> None:
    """Where only the sum, or the difference, overflows."""
    big = 1e154 if loss == "mse" else 1.5e308
    z = np.full((7, 11), big)
    t = np.ones_like(z) if loss[0] == "b" else -z if loss in ("mae", "huber") else z * 0
    value, grad = getattr(fastrnn.losses, loss).value_and_grad(
        z / 4, t / 4 if loss[0] != "b" else t
    )
    expected = {"mse": big / 16 * min(big, 1e154), "mae": big / 2, "huber": big / 2}.get(loss, 0.0)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert np.isfinite(grad).all()


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {}), ("AdamW", {}),
    ("RMSprop", {}), ("RMSprop", {"centered": True, "momentum": 0.5}), ("Adagrad", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_huge_gradients(
    backend: str, name: str, options: dict[str, Any], clip_norm: float | None, dtype: np.dtype
) -> None:
    optimizer = getattr(fastrnn.optim, name)(lr=1e-3, clip_norm=clip_norm, **options)
    params = {"a": np.ones(37, dtype)}
    for scale in (0.2 * largest(dtype), largest(dtype) ** 0.6, 1.0, 0.0, 1 / largest(dtype)):
        optimizer.step(params, {"a": np.linspace(-1, 1, 37).astype(dtype) * dtype.type(scale)})
        assert np.isfinite(params["a"]).all()


def test_clipping_by_huge_norms(backend: str, dtype: np.dtype) -> None:
    grads = {"a": np.full(9, 0.1 * largest(dtype), dtype), "b": np.zeros((2, 3), dtype)}
    params = {name: np.zeros_like(g) for name, g in grads.items()}
    fastrnn.optim.SGD(lr=1.0, clip_norm=3.0).step(params, grads)
    np.testing.assert_allclose(params["a"], -1, rtol=1e-5)
    norm = fastrnn.optim.clip_norm(grads, 3.0)
    np.testing.assert_allclose(norm, 0.3 * largest(dtype), rtol=1e-6)
    np.testing.assert_allclose(grads["a"], 1, rtol=1e-5)


def test_centered_rmsprop_of_constant_gradients(backend: str, dtype: np.dtype) -> None:
    """Their variance, 0 up to rounding, never becomes negative."""
    optimizer = fastrnn.optim.RMSprop(lr=1e-3, centered=True)
    params, grads = {"a": np.zeros(40, dtype)}, {"a": np.linspace(0.1, 10, 40).astype(dtype)}
    for _ in range(2000):
        optimizer.step(params, grads)
    assert np.isfinite(params["a"]).all()


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["softplus", "softmax", "elu"])
def test_small_exponentials(backend: str, function: str, dtype: np.dtype) -> None:
    """To the last digits, down to the smallest normal numbers; of elu, the derivative."""
    x = np.linspace(-86.9 if dtype == np.float32 else -707.9, -30, 5001, dtype=dtype)
    exact = np.exp(x.astype(np.longdouble))
    layer = fastrnn.Activation(function)
    if function == "softmax":
        y = layer(np.stack([x, np.zeros_like(x)], axis=1))[:, 0]
        exact /= 1 + exact
    elif function == "elu":
        y, _ = layer.backward(layer.forward(x[None])[1], np.ones_like(x)[None])
    else:
        y, exact = layer(x[None])[0], np.log1p(exact)
    errors = np.abs(y.reshape(-1) - exact) / np.spacing(exact.astype(dtype))
    assert errors.max() < 4, (x[errors.argmax()], errors.max())


def test_silu_where_a_sigmoid_is_least_exact(backend: str) -> None:
    x = np.array([-7.58337402, -16.684082, -16.7275639], np.float32)
    x = (x.view(np.int32)[:, None] + np.arange(-500, 500, dtype=np.int32)).view(np.float32)
    exact = x / (1 + np.exp(-x.astype(np.float64)))
    errors = np.abs(fastrnn.Activation("silu")(x) - exact) / np.spacing(np.abs(exact), dtype="f4")
    assert errors.max() < 4


# -- warnings -------------------------------------------------------------------------------------


def awkward(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Return numbers whose products and squares overflow and underflow, NaN and infinity."""
    a = np.random.default_rng(0).normal(size=shape).astype(dtype)
    places, values = a.reshape(-1), (1e-30, 1e-42, 1e30, 3e38, np.nan, np.inf, -np.inf)
    for i, value in enumerate(values):
        places[(3 + 11 * i) % a.size] = value
    return a


def layer_results() -> Iterator[np.ndarray]:
    for name, options in LAYERS:
        options = {k: v for k, v in options.items() if k != "dtype"}
        layer = getattr(fastrnn, name)(I, H, seed=0, **options)
        y, state, tape = layer.forward(awkward((T, B, I)))
        yield from flat([y, state])
        yield from flat(layer.backward(tape, awkward(y.shape), state)[:2])
        last = getattr(fastrnn, name)(I, H, seed=0, return_sequences=False, **options)
        y, state, tape = last.forward(awkward((T, B, I)))
        yield from flat(last.backward(tape, np.full_like(y, np.inf), _negative(state))[:2])
        yield from flat(layer(awkward((T, B, I)), lengths=[1, 2, 3, 4, 5, 6]))
        if not layer.bidirectional and not layer.go_backwards:
            stream = layer.stream(B)
            yield from [stream.step(x) for x in awkward((T, B, I))]
        if options.get("matmul_precision") != "bfloat16":
            yield from flat(fastrnn.quantize(layer)(awkward((T, B, I))))


def _negative(state: Any) -> Any:
    infinite = [np.full_like(s, -np.inf) for s in flat(state)]
    return tuple(infinite) if isinstance(state, tuple) else infinite[0]


def other_results() -> Iterator[np.ndarray]:
    x = awkward((B, 9))
    for loss in LOSSES:
        t = np.arange(B) if loss == "cross_entropy" else np.full(x.shape, 0.25, np.float32)
        value, grad = getattr(fastrnn.losses, loss).value_and_grad(x, t)
        yield from (np.array(value), grad)
    for layer in [
        fastrnn.LayerNorm(9),
        fastrnn.Linear(9, 4, seed=0),
        *map(fastrnn.Activation, ACTIVATIONS),
    ]:
        y, tape = layer.forward(x)
        yield from flat([y, layer.backward(tape, awkward(y.shape))[0]])
    for name, options in OPTIMIZERS:
        for clip in ({}, {"clip_norm": 1.0}, {"clip_value": 1.0}):
            optimizer = getattr(fastrnn.optim, name)(lr=1e-3, **options, **clip)
            params = {"a": awkward((40,))}
            for grad in (awkward((40,)), np.full(40, 1e-30, np.float32)):
                optimizer.step(params, {"a": grad})
            yield params["a"]
    grads = {"a": awkward((40,))}
    fastrnn.optim.clip_norm(grads, 1.0)
    yield grads["a"]


def model_results() -> Iterator[np.ndarray]:
    X = 1e-20 * np.random.default_rng(1).normal(size=(24, 5, 3)).astype(np.float32)
    tokens = np.arange(24 * 5).reshape(24, 5) % 11
    heads = {"mse": 2, "mae": 2, "huber": 2, "binary_cross_entropy": 2, "cross_entropy": 4}
    for loss, optimizer in zip(heads, ("sgd", "adam", "adamw", "rmsprop", "adagrad"), strict=True):
        model = fastrnn.Sequential(
            [fastrnn.GRU(3, 8, return_sequences=False), fastrnn.LayerNorm(8), fastrnn.Dropout(0.2),
             fastrnn.Linear(8, heads[loss])], seed=0,
        )  # fmt: skip
        model.compile(optimizer, loss, metrics=["accuracy"] if loss == "cross_entropy" else ())
        y = np.arange(24) % 4 if loss == "cross_entropy" else np.full((24, 2), 0.5, np.float32)
        history = model.fit(X, y, epochs=2, validation_split=0.25, verbose=0)
        yield np.array(history.history["loss"])
        yield model.predict(X)
        yield np.array(list(model.evaluate(X, y).values()))
        yield fastrnn.quantize(model).predict(X)
        yield model.predict(awkward((24, 5, 3)))
    model = fastrnn.Sequential(
        [fastrnn.Embedding(11, 4), fastrnn.LSTM(4, 8, bidirectional=True), fastrnn.Linear(16, 11)],
        seed=0,
    )
    model.compile("adam", "cross_entropy")
    model.fit(tokens, tokens, epochs=2, lengths=np.arange(24) % 5 + 1, verbose=0)
    yield model.predict(tokens)
    series = np.sin(np.arange(60) / 3)
    forecaster = fastrnn.forecast.Forecaster(hidden_size=4, epochs=2, seed=0)
    yield np.asarray(forecaster.fit(series).predict(6))
    text = fastrnn.text.CharLM(hidden_size=8, epochs=1, seed=0)
    text.fit("the quick brown fox jumps over the lazy dog. " * 20)
    yield np.array(text.bits_per_char("the lazy fox"))
    yield np.array([ord(c) for c in text.generate("the", 20, seed=0)])


def converted_results() -> Iterator[np.ndarray]:
    """Of float64 that becomes float32: infinite, or 0."""
    for size in (1e300, 1e-300, 1e-42):
        x = np.full((T, B, I), size)
        for name in ("RNN", "LSTM", "GRU", "IndRNN"):
            layer = getattr(fastrnn, name)(I, H, seed=0)
            h = np.full((1, B, H), size)
            y, state, tape = layer.forward(x, (h, h) if name == "LSTM" else h)
            yield from flat([y, layer.stream(B).step(x[0])])
            yield from flat(layer.backward(tape, np.full(y.shape, size), state)[:2])
            weights = {k: np.full(v.shape, size) for k, v in layer.state_dict().items()}
            layer.load_state_dict(weights)
        params = {"a": np.ones(3, np.float32)}
        fastrnn.optim.SGD(clip_value=1.0).step(params, {"a": np.full(3, size)})
        yield params["a"]
        norm = fastrnn.Normalization(I)
        norm.adapt(np.random.default_rng(0).normal(size=(4, T, I)) / 1e9)
        masked = fastrnn.Sequential([fastrnn.Masking(1e300), fastrnn.GRU(I, H, seed=0)])
        yield from (norm(x), masked.predict(np.ones((B, T, I))), fastrnn.Linear(I, 2, seed=0)(x))
        yield fastrnn.losses.mse.value_and_grad(np.ones(3, np.float32), np.full(3, size))[1]


@pytest.mark.parametrize(
    "results", [layer_results, other_results, model_results, converted_results]
)
def test_errors_of_numpy_and_warnings_change_nothing(
    backend: str, results: Callable[[], Iterator[np.ndarray]]
) -> None:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = list(results())
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = list(results())
    assert [a.tobytes() for a in strict] == [a.tobytes() for a in usual]


# -- commands -------------------------------------------------------------------------------------


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="no benchmarks beside these tests")
@pytest.mark.parametrize(
    "command", [["activation_errors.py", "--stride", "400093"], ["drift.py", "--steps", "20000"]]
)
def test_commands(command: list[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-P", "-W", "error", str(BENCHMARKS / command[0]), *command[1:]],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
