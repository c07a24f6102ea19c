"""Zeros stay zeros, exactly: sums begin at 0, a reset state is 0, and so is what pads a vector.

A smallest normal number in their place would vanish beside any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn

T, B, I, H, P = 7, 5, 3, 19, 6
LENGTHS = np.array([T, 2, 5, 6, T])


def flat(states: Any) -> list[np.ndarray]:
    return list(states) if isinstance(states, tuple) else [states]


@pytest.fixture(params=["none", "all", "general"])
def layers(request, cell, make_layer, options_of, general, precision) -> list[Any]:
    """Return layers of a cell, which have no bias: of one row of units, and of several."""
    options: dict[str, Any] = {"none": {}, "all": options_of(cell, P)[-1], "general": {}}[
        request.param
    ]
    if request.param == "general":
        options = general(cell, "smooth")
    return [
        make_layer(cell, I, H, bias=False, bidirectional=True, **options, **precision),
        make_layer(cell, I, H, bias=False, num_layers=2, **options, **precision),
    ]


def test_gradients_of_no_gradient(backend, layers, rng):
    for layer in layers:
        x, reset = rng.normal(size=(T, B, I)), rng.random((T, B)) < 0.2
        y, state, tape = layer.forward(x, lengths=LENGTHS, reset=reset)
        dstate = tuple(np.zeros_like(s) for s in flat(state))
        dx, dstate_0, grads = layer.backward(
            tape, np.zeros_like(y), dstate if len(dstate) > 1 else dstate[0]
        )
        for array in (dx, *flat(dstate_0), *grads.values()):
            assert not array.any()


def test_outputs_and_gradients_of_zeros(backend, layers, rng):
    """From a state that is reset."""
    for layer in layers:
        x, reset = np.zeros((T, B, I), layer.dtype), np.zeros((T, B), bool)
        _, state = layer(x)
        given = tuple(rng.uniform(0.1, 1, s.shape).astype(s.dtype) for s in flat(state))
        reset[2] = True
        for rows in ({}, {"lengths": LENGTHS}):
            y, state, tape = layer.forward(
                x, given if len(given) > 1 else given[0], reset=reset, **rows
            )
            directions = np.split(y, 2, axis=-1) if layer.bidirectional else [y]
            assert directions[0][:2].any()
            assert not directions[0][2:].any()
            _, _, grads = layer.backward(tape, rng.normal(size=y.shape))
            assert not grads["weight_ih_l0"].any()


@pytest.mark.parametrize("rows", [1, 9, 40])
def test_rows(backend, dtype, rng, rows):
    made = [fastrnn.Linear(I, H, seed=0, dtype=dtype), fastrnn.LayerNorm(I, dtype=dtype)]
    for layer in (*made, fastrnn.Softmax(), fastrnn.Activation("gelu_tanh")):
        x = rng.normal(size=(rows, I)).astype(dtype)
        y, tape = layer.forward(x)
        dx, grads = layer.backward(tape, np.zeros_like(y))
        assert not any(array.any() for array in (dx, *grads.values()))
        y, tape = layer.forward(np.zeros_like(x))
        _, grads = layer.backward(tape, rng.normal(size=y.shape))
        assert not grads.get("weight", np.zeros(1)).any()


def test_streams(backend, layers):
    for layer in layers[1:]:
        stream = layer.stream(B)
        assert not any(s.any() for s in flat(stream.state))
        stream.step(np.ones((B, I), layer.dtype))
        assert all(s.any() for s in flat(stream.state))
        stream.reset()
        assert not stream.step(np.zeros((B, I), layer.dtype)).any()
        assert not any(s.any() for s in flat(stream.state))


def test_quantized(backend, cell, make_layer, rng):
    layer = fastrnn.quantize(make_layer(cell, I, H, bias=False, num_layers=2))
    x, reset = np.zeros((T, B, I), np.float32), np.zeros((T, B), bool)
    _, state = layer(rng.normal(size=x.shape))
    reset[2] = True
    y, state = layer(x, state, reset=reset)
    assert y[:2].any()
    assert not y[2:].any()
    assert not any(s.any() for s in flat(state))
