"""Weights in the layouts of tutorials: against loops by hand, round trips, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import functional as F
from fastrnn import layouts

T, B, I, H = 7, 3, 4, 5
LAYOUTS = ["columns", "rows"]


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


@pytest.fixture
def draw(rng: np.random.Generator) -> Any:
    """``draw(layout, out, in_)``: a random matrix in the layout."""
    return lambda layout, *shape: rng.normal(size=shape if layout == "columns" else shape[::-1])


@pytest.fixture
def loss_is_a_sum(rng: np.random.Generator) -> tuple[Any, ...]:
    x, h0, c0, dy = (rng.normal(size=s) for s in ((T, B, I), (B, H), (B, H), (T, B, H)))
    return x, h0, c0, dy


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keepdims", [False, True])
def test_rnn_against_a_loop(layout, keepdims, draw, loss_is_a_sum):
    """With the layout's vectors, forward and backward, and gradients in its shapes."""
    x, h0, _, dy = loss_is_a_sum
    W_xh, W_hh, b_h = draw(layout, H, I), draw(layout, H, H), draw(layout, H, 1)
    if not keepdims:
        b_h = b_h.ravel()
    columns = layout == "columns"

    def row(b: Any) -> Any:
        return b.reshape(1, H)

    hs = [h0]
    for x_t in x:
        a = (W_xh @ x_t.T + W_hh @ hs[-1].T).T if columns else x_t @ W_xh + hs[-1] @ W_hh
        hs.append(np.tanh(a + row(b_h)))
    dW_xh, dW_hh, db_h = (np.zeros_like(a) for a in (W_xh, W_hh, b_h))
    dh = np.zeros((B, H))
    for t in reversed(range(T)):
        da = (dy[t] + dh) * (1 - hs[t + 1] ** 2)
        dW_xh += da.T @ x[t] if columns else x[t].T @ da
        dW_hh += da.T @ hs[t] if columns else hs[t].T @ da
        db_h += da.sum(axis=0).reshape(db_h.shape)
        dh = da @ W_hh if columns else da @ W_hh.T

    y, _, tape = F.rnn(x, h0, **F.pack_rnn(W_xh, W_hh, b_h, layout=layout))
    _, dh0, grads = F.rnn_backward(tape, dy)
    np.testing.assert_allclose(y, hs[1:], rtol=0, atol=1e-13)
    np.testing.assert_allclose(dh0, dh, rtol=1e-12, atol=1e-12)
    unpacked = F.unpack_rnn(grads, layout=layout, keepdims=keepdims)
    for ours, theirs in zip(unpacked, (dW_xh, dW_hh, db_h), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keepdims", [False, True])
def test_lstm_against_a_loop(layout, keepdims, draw, loss_is_a_sum):
    x, h0, c0, dy = loss_is_a_sum
    W = {g: draw(layout, H, H + I) for g in "fiCo"}
    b = {g: draw(layout, H, 1) if keepdims else draw(layout, H, 1).ravel() for g in "fiCo"}
    left = W if layout == "columns" else {g: w.T for g, w in W.items()}

    h, c, kept = h0, c0, []
    for x_t in x:
        z = np.hstack([h, x_t])
        a = {g: z @ left[g].T + b[g].reshape(1, H) for g in "fiCo"}
        f, i, o, C = sigmoid(a["f"]), sigmoid(a["i"]), sigmoid(a["o"]), np.tanh(a["C"])
        kept.append((z, f, i, o, C, c, h))
        c = f * c + i * C
        h = o * np.tanh(c)
    states = [k[-1] for k in kept[1:]] + [h]
    dW = {g: np.zeros((H, H + I)) for g in "fiCo"}
    db = {g: np.zeros(H) for g in "fiCo"}
    dh, dc = np.zeros((B, H)), np.zeros((B, H))
    for t in reversed(range(T)):
        z, f, i, o, C, c_prev, _ = kept[t]
        dh = dh + dy[t]
        tanh_c = np.tanh(f * c_prev + i * C)
        dc = dc + dh * o * (1 - tanh_c**2)
        da = {
            "f": dc * c_prev * f * (1 - f),
            "i": dc * C * i * (1 - i),
            "C": dc * i * (1 - C**2),
            "o": dh * tanh_c * o * (1 - o),
        }
        dz = sum(da[g] @ left[g] for g in da)
        for g in da:
            dW[g] += da[g].T @ z
            db[g] += da[g].sum(axis=0)
        dh, dc = dz[:, :H], dc * f

    weights = F.pack_lstm(*W.values(), *b.values(), layout=layout)
    y, _, tape = F.lstm(x, (h0, c0), **weights)
    dx, (dh0, dc0), grads = F.lstm_backward(tape, dy)
    np.testing.assert_allclose(y, states, rtol=0, atol=1e-13)
    np.testing.assert_allclose(dh0, dh, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dc0, dc, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx[0], dz[:, H:], rtol=1e-12, atol=1e-12)
    unpacked = F.unpack_lstm(grads, layout=layout, keepdims=keepdims)
    turned = dW if layout == "columns" else {g: d.T for g, d in dW.items()}
    theirs = [*turned.values(), *(db[g].reshape(b[g].shape) for g in db)]
    for ours, expected in zip(unpacked, theirs, strict=True):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_in_the_same_bits(layout, bias, dtype, draw, same_bits):
    rnn = [draw(layout, H, I), draw(layout, H, H), draw(layout, H, 1).ravel()][: 3 if bias else 2]
    lstm = [draw(layout, H, H + I) for _ in range(4)]
    lstm += [draw(layout, H, 1).ravel() for _ in range(4)] if bias else []
    for pack, unpack, given in (
        (F.pack_rnn, F.unpack_rnn, rnn),
        (F.pack_lstm, F.unpack_lstm, lstm),
    ):
        given = tuple(np.ascontiguousarray(a, dtype) for a in given)
        packed = pack(*given, layout=layout)
        back = unpack(packed, layout=layout)
        assert same_bits(back, given)
        for a in back:
            a += 1  # copies: nothing else changes
        assert same_bits(pack(*given, layout=layout), packed)


def zeros(*shape: int) -> Any:
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: F.pack_rnn(zeros(5, 4), zeros(5, 4)), r"W_hh: expected shape \(5, 5\), got"),
        (lambda: F.pack_rnn(zeros(4, 5), zeros(5, 5)), r"W_xh: expected shape \(5, I\)"),
        (
            lambda: F.pack_rnn(zeros(5, 4), zeros(5, 5), layout="rows"),
            r"W_xh: expected shape \(I, 5\)",
        ),
        (lambda: F.pack_rnn(zeros(5), zeros(5, 5)), r"W_xh: expected shape \(H, I\)"),
        (lambda: F.pack_rnn(zeros(5, 4), zeros(5, 5), zeros(4)), r"b_h: expected shape \(5,\)"),
        (
            lambda: F.pack_rnn(zeros(5, 4), zeros(5, 5), layout="C"),
            "layout: expected one of 'columns'",
        ),
        (lambda: F.pack_lstm(*[zeros(5, 5)] * 4), r"W_f: expected shape \(H, H\+I\)"),
        (lambda: F.pack_lstm(*[zeros(5, 9)] * 3, zeros(5, 8)), r"W_o: expected shape \(5, 9\)"),
        (lambda: F.pack_lstm(*[zeros(5, 9)] * 4, zeros(5)), "b_i, b_C, b_o: expected all four"),
        (lambda: F.unpack_rnn({"weight_ih": zeros(5, 4)}), "grads: expected weight_ih, weight_hh"),
        (
            lambda: F.unpack_rnn({"weight_ih": zeros(5, 4), "weight_hh": zeros(20, 5)}),
            r"grads weight_hh: expected shape \(5, 5\)",
        ),
        (
            lambda: F.unpack_lstm({"weight_ih": zeros(5, 4), "weight_hh": zeros(20, 5)}),
            r"grads weight_ih: expected shape \(20, I\)",
        ),
    ],
)
def test_refused(call, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        call()


def test_refused_types():
    with pytest.raises(TypeError, match=r"^W_xh: expected an array of real numbers"):
        F.pack_rnn([["a"]], zeros(1, 1))
    with pytest.raises(TypeError, match=r"^grads: expected a mapping, got list"):
        F.unpack_rnn([])


@pytest.mark.parametrize(
    ("operator", "order"), [("RNN", "i"), ("GRU", "zrn"), ("LSTM", "iofg")], ids=lambda v: v[:4]
)
def test_onnx_weights(operator: str, order: str, rng: np.random.Generator) -> None:
    """Gate by gate, and back."""
    gates = {"RNN": "i", "GRU": "rzn", "LSTM": "ifgo"}[operator]
    W, R = ({g: rng.normal(size=(H, n)) for g in order} for n in (I, H))
    Wb, Rb = ({g: rng.normal(size=H) for g in order} for _ in range(2))
    P = {name: rng.normal(size=H) for name in "iof"} if operator == "LSTM" else {}
    given = [np.concatenate([a[g] for g in order]) for a in (W, R)]
    given.append(np.concatenate([*(Wb[g] for g in order), *(Rb[g] for g in order)]))
    peepholes = np.concatenate([*P.values()]) if P else None
    weights = layouts.pack_onnx(operator, *given, peepholes)
    for name, parts in zip(F.rnn.__code__.co_varnames[2:6], (W, R, Wb, Rb), strict=True):
        np.testing.assert_array_equal(weights[name], np.concatenate([parts[g] for g in gates]))
    for name, p in P.items():
        np.testing.assert_array_equal(weights[f"weight_c{name}"], p)
    back = layouts.unpack_onnx(operator, weights)
    for a, b in zip(back, (*given, peepholes), strict=True):
        assert (a is b is None) or np.array_equal(a, b)
    del weights["bias_hh"]
    expected = np.concatenate([given[2][: len(gates) * H], np.zeros(len(gates) * H)])
    np.testing.assert_array_equal(layouts.unpack_onnx(operator, weights)[2], expected)


def test_onnx_weights_that_do_not_fit() -> None:
    W, R = np.ones((8, 3)), np.ones((8, 2))
    for args, message in [
        (("Gru", W, R), "operator: expected one of 'RNN', 'LSTM', 'GRU', got 'Gru'"),
        (("GRU", W, R), r"R: expected shape \(6, 2\), got \(8, 2\)"),
        (("LSTM", W[:7], R), r"W: expected shape \(8, I\) with I >= 1, got \(7, 3\)"),
        (("LSTM", W, R, np.ones(8)), r"B: expected shape \(16,\), got \(8,\)"),
        (("LSTM", W, R, None, np.ones(8)), r"P: expected shape \(6,\), got \(8,\)"),
        (("RNN", W[:2], R[:2], None, np.ones(6)), "P: expected None for RNN"),
    ]:
        with pytest.raises(ValueError, match=message):
            layouts.pack_onnx(*args)


def keras_loop(layer: str, x: Any, weights: list[Any], reset_after: bool) -> Any:
    """Run a layer of Keras by hand, x (B, T, I), as its documentation writes it."""
    kernel, recurrent, bias = weights
    h = c = np.zeros((len(x), len(recurrent)))
    for t in range(x.shape[1]):
        a = x[:, t] @ kernel + (bias[0] if bias.ndim == 2 else bias)
        if layer == "SimpleRNN":
            h = np.tanh(a + h @ recurrent)
        elif layer == "LSTM":
            i, f, g, o = np.split(a + h @ recurrent, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            of_z, of_r, of_h = np.split(recurrent, 3, axis=1)
            b_z, b_r, b_h = np.split(bias[1] if reset_after else np.zeros(a.shape[1]), 3)
            a_z, a_r, a_h = np.split(a, 3, axis=1)
            z, r = sigmoid(a_z + h @ of_z + b_z), sigmoid(a_r + h @ of_r + b_r)
            inner = r * (h @ of_h + b_h) if reset_after else (r * h) @ of_h
            h = z * h + (1 - z) * np.tanh(a_h + inner)
    return h


KERAS = [("SimpleRNN", 1, True), ("LSTM", 4, True), ("GRU", 3, True), ("GRU", 3, False)]


@pytest.mark.parametrize(("layer", "gates", "reset_after"), KERAS)
def test_keras_against_a_loop(
    layer: str, gates: int, reset_after: bool, rng: np.random.Generator
) -> None:
    both = layer == "GRU" and reset_after
    shapes = [(I, gates * H), (H, gates * H), (2, gates * H) if both else (gates * H,)]
    weights = [rng.normal(size=shape) for shape in shapes]
    x = rng.normal(size=(B, T, I))
    packed = layouts.pack_keras(layer, weights)
    run: Any = {"SimpleRNN": F.rnn, "LSTM": F.lstm, "GRU": F.gru}[layer]
    more = {"reset_after": reset_after} if layer == "GRU" else {}
    y, *_ = run(x.swapaxes(0, 1), None, **packed, **more)
    np.testing.assert_allclose(y[-1], keras_loop(layer, x, weights, reset_after), atol=1e-12)
    back = layouts.unpack_keras(layer, packed, reset_after=reset_after)
    for a, b in zip(back, weights, strict=True):
        np.testing.assert_array_equal(a, b)
    without = layouts.pack_keras(layer, weights[:2])
    assert [*without] == ["weight_ih", "weight_hh"]
    assert len(layouts.unpack_keras(layer, without)) == 2
    # Layers with one bias get the sum of ours.
    of_torch = packed | {"bias_hh": rng.normal(size=gates * H)}
    bias = layouts.unpack_keras(layer, of_torch, reset_after=reset_after)[2]
    order = np.concatenate([np.arange(H) + H * g for g in ((1, 0, 2) if gates == 3 else range(4))])
    second = of_torch["bias_hh"][order[: gates * H]]
    expected = [weights[2][0], second] if both else weights[2] + second
    np.testing.assert_array_equal(bias, expected)


def test_keras_weights_that_do_not_fit() -> None:
    kernel, recurrent = np.ones((3, 6)), np.ones((2, 6))
    for args, message in [
        (("Gru", [kernel, recurrent]), "layer: expected one of 'SimpleRNN', 'LSTM', 'GRU'"),
        (("GRU", [kernel]), "weights: expected a list of kernel, recurrent kernel and perhaps"),
        (("GRU", kernel), "weights: expected a list of kernel.*got ndarray"),
        (("LSTM", [kernel, recurrent]), r"weights\[1\]: expected shape \(2, 8\), got \(2, 6\)"),
        (("GRU", [kernel.T, recurrent]), r"weights\[0\]: expected shape \(I, 6\) with I >= 1, got"),
        (("GRU", [kernel, recurrent, np.ones((3, 6))]), r"weights\[2\]: expected shape \(2, 6\)"),
        (("GRU", [kernel, recurrent, np.ones(5)]), r"weights\[2\]: expected shape \(6,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            layouts.pack_keras(*args)
    with pytest.raises(ValueError, match=r"bias_hh: expected shape \(6,\), got \(5,\)"):
        layouts.unpack_keras(
            "GRU", {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_hh": np.ones(5)}
        )


@pytest.mark.parametrize("missing", ["weight_ih", "weight_hh"])
@pytest.mark.parametrize(
    "unpack", [layouts.unpack_onnx, layouts.unpack_keras], ids=["ONNX", "Keras"]
)
def test_weights_without_a_name(unpack, missing):
    weights = {"weight_ih": np.ones((12, 2)), "weight_hh": np.ones((12, 3))}
    del weights[missing]
    with pytest.raises(ValueError, match=f"^weights: expected .* got none of the name {missing}$"):
        unpack("LSTM", weights)
    with pytest.raises(TypeError, match=r"^weights: expected a mapping, got list"):
        unpack("LSTM", [*weights.values()])


def test_some_peepholes_only():
    weights = {"weight_ih": np.ones((12, 2)), "weight_hh": np.ones((12, 3))}
    weights["weight_cf"] = np.ones(3)
    with pytest.raises(ValueError, match=r"got none of the name weight_ci, weight_co$"):
        layouts.unpack_onnx("LSTM", weights)
