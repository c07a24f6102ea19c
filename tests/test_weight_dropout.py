"""`weight_dropout`: recurrent weights are dropped in training, and the same ones in BPTT."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

T, B, I, H, P_DROP = 5, 3, 4, 6, 0.375
STACKS = ({}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True, "dropout": 0.25})


@pytest.fixture(params=STACKS, ids=str)
def layer(request, cell, backend, make_layer):
    if cell.recurrence == "none":
        pytest.skip("has no recurrent weights")
    return make_layer(cell, I, H, dtype="float64", weight_dropout=P_DROP, **request.param)


@pytest.fixture
def x(rng):
    return rng.normal(size=(T, B, I))


def seeded(layer):
    """Return the layer, its generator set to drop the same entries each time."""
    layer._rng = np.random.default_rng(3)
    return layer


def recurrent(weights):
    return {name: array for name, array in weights.items() if name.startswith("weight_hh")}


def test_drops_entries_of_the_recurrent_weights(layer, x, remade, same_bits):
    """The same numbers as from a layer with these weights set to 0, forward and backward."""
    y, state, tape = seeded(layer).forward(x)
    factors = tape.weight_factors
    names = list(recurrent(layer.parameters()))
    assert len(names) == len(factors)
    for f in factors:
        assert set(np.unique(f)) <= {0, 1 / (1 - P_DROP)}
    assert 0.2 < np.mean([f.mean() * (1 - P_DROP) for f in factors]) < 0.9
    plain = remade(layer, weight_dropout=0)
    for name, f in zip(names, factors, strict=True):
        plain.parameters()[name][...] *= f
    rng = np.random.default_rng(3)
    for f in factors:
        rng.random(f.shape, np.float32)
    plain._rng = rng  # for dropout between layers, which is drawn next
    y_plain, state_plain, tape_plain = plain.forward(x)
    assert same_bits((y, state), (y_plain, state_plain))
    dx, dstate, grads = layer.backward(tape, y)
    want_dx, want_dstate, want = plain.backward(tape_plain, y)
    assert same_bits((dx, dstate), (want_dx, want_dstate))
    for name, f in zip(names, factors, strict=True):
        want[name] = want[name] * f
    assert same_bits(grads, want)
    assert same_bits(layer.backward(tape, y)[2], want)  # again


def test_gradients(layer, x):
    """Against central differences, with the same entries dropped each time."""
    dy = np.random.default_rng(5).normal(size=layer(x)[0].shape)

    def loss():
        return float((seeded(layer).forward(x)[0] * dy).sum())

    _, _, grads = layer.backward(seeded(layer).forward(x)[2], dy)
    for name, array in layer.parameters().items():
        where = np.unravel_index(np.abs(grads[name]).argmax(), array.shape)
        for at in (where, (0,) * array.ndim, (-1,) * array.ndim):
            kept, step = array[at], 1e-6
            array[at] = kept + step
            above = loss()
            array[at] = kept - step
            below = loss()
            array[at] = kept
            assert abs((above - below) / (2 * step) - grads[name][at]) < 1e-6, (name, at)


def test_weights_stay_and_inference_drops_nothing(layer, x, remade, same_bits):
    before, plain = layer.state_dict(), remade(layer, weight_dropout=0, dropout=0)
    y, state = layer(x)
    layer.forward(x)
    assert same_bits(layer.state_dict(), before)
    assert same_bits(layer(x), plain(x))
    assert same_bits((y, state), plain(x))
    assert not same_bits(layer.forward(x)[0], y)
    assert same_bits(layer.eval().forward(x)[:2], (y, state))
    assert not any(f is not None for f in layer.forward(x)[2].weight_factors)


def test_drawn_anew_and_by_the_seed(layer, x, remade, same_bits):
    assert not same_bits(layer.forward(x)[0], layer.forward(x)[0])
    layer.reset_parameters(7)
    twin = remade(layer, seed=7)
    for _ in range(3):
        assert same_bits(layer.forward(x)[0], twin.forward(x)[0])


def test_checkpoints_and_lengths(layer, backend, x, same_bits):
    for lengths in (None, [5, 1, 3]):
        y, state, tape = seeded(layer).forward(x, lengths=lengths)
        want = y, state, layer.backward(tape, y, state)
        y, state, tape = seeded(layer).forward(x, lengths=lengths, checkpoint_every=2)
        assert same_bits((y, state), want[:2])
        dx, dstate, grads = layer.backward(tape, y, state)
        assert same_bits((dx, dstate), want[2][:2])
        for name, grad in grads.items():  # the reference sums them segment by segment
            np.testing.assert_allclose(grad, want[2][2][name], rtol=1e-12, atol=1e-13)
            assert backend == "reference" or same_bits(grad, want[2][2][name])


def test_all_dropped(cell, backend, make_layer, x, remade, same_bits):
    if cell.recurrence == "none":
        pytest.skip("has no recurrent weights")
    layer = make_layer(cell, I, H, weight_dropout=1)
    plain = remade(layer, weight_dropout=0)
    plain.parameters()["weight_hh_l0"][...] = 0
    y, _, tape = layer.forward(x)
    assert same_bits(y, plain(x)[0])
    assert not layer.backward(tape, y)[2]["weight_hh_l0"].any()


def test_with_a_projection_and_other_options(cell, backend, make_layer, x, options_of):
    for options in options_of(cell, 3):
        layer = make_layer(cell, I, H, dtype="float64", weight_dropout=0.5, **options)
        y, _, tape = layer.forward(x)
        factors = tape.weight_factors[0]
        if factors is not None:
            assert factors.shape == layer.parameters()["weight_hh_l0"].shape
            grad = layer.backward(tape, np.ones_like(y))[2]["weight_hh_l0"]
            assert not grad[factors == 0].any()
            assert grad[factors != 0].any()


def test_as_an_option(recurrent_layers):
    for make in recurrent_layers:
        layer = make(I, H, weight_dropout=0.25)
        assert repr(layer) == f"{make.__name__}(4, 6, weight_dropout=0.25)"
        assert layer.get_config()["weight_dropout"] == 0.25
        layer.weight_dropout = 0.5
        for wrong, error in ((-0.5, ValueError), (2, ValueError), (None, TypeError)):
            with pytest.raises(error, match=r"^weight_dropout: expected a number in \[0, 1\]"):
                layer.weight_dropout = wrong
            with pytest.raises(error, match=r"^weight_dropout: expected a number in \[0, 1\]"):
                make(I, H, weight_dropout=wrong)
        assert layer.weight_dropout == 0.5


def test_in_a_file(tmp_path, recurrent_layers):
    for make in recurrent_layers:
        model = fastrnn.Sequential([make(I, H, weight_dropout=0.25)])
        model.save(tmp_path / "m")
        assert fastrnn.load(tmp_path / "m").layers[0].weight_dropout == 0.25
