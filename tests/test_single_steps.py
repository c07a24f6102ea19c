"""RNNCell, LSTMCell and GRUCell: a layer's single step, in the same bits."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastrnn

B, I, H = 5, 4, 19


@pytest.fixture(params=[True, False], ids=["bias", "no_bias"])
def single(request, cell, dtype, backend, make_single):
    return make_single(cell, I, H, request.param, dtype=dtype)


@pytest.fixture
def x(dtype, rng):
    return rng.normal(size=(B, I)).astype(dtype)


@pytest.fixture
def state(cell, dtype, make_state):
    return make_state(cell, (B, H), dtype)


def pairwise(function, state):
    """Apply a function to every array of a state."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


def test_is_one_step_of_the_layer(single, cell, make_layer, x, state, same_bits):
    layer = make_layer(cell, I, H, bias=single.bias, dtype=single.dtype)
    assert same_bits(  # the same seed, the same weights
        {f"{n}_l0": a for n, a in single.parameters().items()}, layer.parameters()
    )
    lead = pairwise(lambda s: s[None], state)
    _, want, layer_tape = layer.forward(x[None], lead)
    state_n, tape = single.forward(x, state)
    assert same_bits(pairwise(lambda s: s[None], state_n), want)
    assert same_bits(single(x, state), state_n)
    dx, dstate, grads = layer.backward(layer_tape, None, lead)
    got = single.backward(tape, state)
    assert same_bits(got[0], dx[0])
    assert same_bits(pairwise(lambda s: s[None], got[1]), dstate)
    assert same_bits({f"{n}_l0": g for n, g in got[2].items()}, grads)


def test_unbatched_and_default_state(single, x, state, same_bits):
    first = pairwise(lambda s: s[0], state)
    state_n, tape = single.forward(x[0], first)
    want, batch_tape = single.forward(x[:1], pairwise(lambda s: s[:1], state))
    assert same_bits(state_n, pairwise(lambda s: s[0], want))
    dx, dstate, grads = single.backward(batch_tape, pairwise(lambda s: s[:1], state))
    assert same_bits(single.backward(tape, first), (dx[0], pairwise(lambda s: s[0], dstate), grads))
    zeros = pairwise(np.zeros_like, state)
    assert same_bits(single(x), single(x, zeros))
    assert same_bits(single(x[0]), single(x[0], pairwise(lambda s: s[0], zeros)))
    _, tape = single.forward(x)
    assert not any(g.any() for g in single.backward(tape)[2].values())


def test_as_an_object(single, x, same_bits):
    state_n, tape = single.forward(x)
    want = single.backward(tape, state_n)
    for twin in (copy.deepcopy(single), pickle.loads(pickle.dumps(single))):
        assert repr(twin) == repr(single)
        assert same_bits(twin(x), state_n)
        assert same_bits(twin.backward(tape, state_n), want)
    single.parameters()["weight_ih"][...] *= -1
    assert not same_bits(single(x), state_n)
    assert same_bits(single.backward(tape, state_n), want)
    single.load_state_dict(twin.state_dict())
    assert same_bits(single(x), state_n)


def test_repr():
    assert repr(fastrnn.LSTMCell(3, 5)) == "LSTMCell(3, 5)"
    assert repr(fastrnn.RNNCell(3, 5, False, "relu")) == (
        "RNNCell(3, 5, bias=False, nonlinearity='relu')"
    )
    assert repr(fastrnn.GRUCell(3, 5, reset_after=False, dtype=float)) == (
        "GRUCell(3, 5, reset_after=False, dtype=float64)"
    )


def test_config_makes_the_same_step(single, x, same_bits):
    twin = type(single)(**single.get_config())
    assert repr(twin) == repr(single)
    twin.load_state_dict(single.state_dict())
    assert same_bits(twin(x), single(x))
    single.reset_parameters(3)
    assert same_bits(type(single)(**single.get_config(), seed=3).state_dict(), single.state_dict())


def test_arguments(single, cell, x):
    _, tape = single.forward(x)
    for shape in ((), (I + 1,), (B, I + 1), (B, 0), (1, B, I)):
        with pytest.raises(ValueError, match=rf"^x: expected shape \((B, )?{I},?\).*, got"):
            single(np.ones(shape))
    bad = np.ones((B, H + 1)) if len(cell.states) == 1 else (np.ones((B, H + 1)), None)
    with pytest.raises(ValueError, match=rf"^state.*: expected shape \({B}, {H}\), got"):
        single(x, bad)
    with pytest.raises(ValueError, match=rf"^dstate.*: expected shape \({B}, {H}\), got"):
        single.backward(tape, bad)
    other = type(single)(I, H + 1, dtype=single.dtype)
    with pytest.raises(ValueError, match="tape: is from the forward of another layer"):
        other.backward(tape)
    with pytest.raises(TypeError, match="tape: expected what forward returned, got NoneType"):
        single.backward(None)
    with pytest.raises(ValueError, match="input_size: expected a whole number of at least 1"):
        type(single)(0, H)
