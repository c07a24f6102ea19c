"""The interface of layers for models: sizes, runs, stages, initial weights."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn

B, T, I, H, V = 3, 7, 4, 19, 11


@pytest.fixture(
    params=[
        "recurrent",
        "two directions",
        "last step",
        "linear",
        "embedding",
        "drop",
        "activation",
        "layer norm",
    ]
)
def layer(request, cell, dtype, backend, make_layer) -> Any:
    def recurrent(**options):
        return make_layer(cell, I, H, dtype=dtype, batch_first=True, **options)

    return {
        "recurrent": lambda: recurrent(num_layers=2, dropout=0.5),
        "two directions": lambda: recurrent(num_layers=2, bidirectional=True),
        "last step": lambda: recurrent(return_sequences=False),
        "linear": lambda: fastrnn.Linear(I, H, dtype=dtype),
        "embedding": lambda: fastrnn.Embedding(V, H, dtype=dtype),
        "drop": lambda: fastrnn.Dropout(0.25),
        "activation": lambda: fastrnn.Activation("elu"),
        "layer norm": lambda: fastrnn.LayerNorm(I, dtype=dtype),
    }[request.param]()


@pytest.fixture
def x(layer, dtype, rng) -> np.ndarray:
    """Return a checked, time-first input."""
    if layer.vocabulary is None:
        return rng.normal(size=(T, B, layer.features_in or I)).astype(dtype)
    return rng.integers(0, layer.vocabulary, (T, B))


def called(layer, x, lengths=None):
    """Return the result of a plain call, time-first."""
    if not layer.has_state:
        return layer(x)
    y, _ = layer(x.swapaxes(0, 1), lengths=lengths)
    return y if layer.per_sequence else y.swapaxes(0, 1)


def test_sizes(layer, x, dtype):
    y, state = layer.apply(x)
    assert y.shape[-1] == (layer.features_out or x.shape[-1])
    assert y.ndim == (2 if layer.per_sequence else 3)
    assert (state is not None) == layer.has_state
    assert layer.dtype == (
        None if isinstance(layer, fastrnn.Dropout | fastrnn.Activation) else dtype
    )


def test_applied_as_called(layer, x, same_bits, rng):
    """Time-first, whatever `batch_first` is."""
    assert same_bits(layer.apply(x)[0], called(layer, x))
    layer.eval()
    y, state, tape = layer.apply_forward(x)
    assert same_bits(y, called(layer, x))
    assert same_bits(layer.apply(x), (y, state)) if layer.has_state else state is None
    dy = rng.normal(size=y.shape).astype(y.dtype)
    dx, grads = layer.apply_backward(tape, dy)
    if layer.has_state:
        tape = layer.forward(x.swapaxes(0, 1))[2]
        want, _, of_weights = layer.backward(tape, dy if layer.per_sequence else dy.swapaxes(0, 1))
        assert same_bits(dx, want.swapaxes(0, 1))
    else:
        want, of_weights = layer.backward(layer.forward(x)[1], dy)
        assert dx is want is None or same_bits(dx, want)
    assert same_bits(grads, of_weights)
    _, quick = layer.apply_backward(tape_of(layer, x), dy, for_update=True, input_gradient=False)
    dense = {n: g.dense() if hasattr(g, "dense") else g for n, g in quick.items()}
    for name, grad in grads.items():
        np.testing.assert_allclose(dense[name], grad, rtol=1e-5, atol=1e-6)


def tape_of(layer, x):
    return layer.apply_forward(x)[2]


def test_state_and_lengths(layer, x, same_bits):
    if not layer.has_state:
        return
    lengths = np.array([T, 2, 5])
    y, state = layer.apply(x, lengths=lengths)
    assert same_bits(y, called(layer, x, lengths))
    for _ in range(2):
        assert same_bits(layer.apply(x, state), layer.eval().apply_forward(x, state)[:2])
    with pytest.raises((ValueError, TypeError), match=r"^state"):
        layer.apply(x, np.zeros((1, 2, 3, 4)))


def test_stage(layer, x, same_bits, dtype):
    if layer.has_state and layer.bidirectional:
        with pytest.raises(ValueError, match="expected a unidirectional layer"):
            layer.stage(B, I, dtype)
        return
    stage = layer.stage(B, I, dtype)
    if stage is None:
        assert isinstance(layer, fastrnn.Dropout)
        return
    out = np.empty((B, layer.features_out or I), dtype)
    y, _ = layer.apply(x)
    for t, x_t in enumerate(x):
        stage.step(x_t, out)
        if not layer.per_sequence:
            np.testing.assert_allclose(out, y[t], rtol=1e-5, atol=1e-6)
    state = stage.state
    assert (state is None) == (not layer.has_state)
    stage.reset()
    stage.state = state
    if layer.has_state:
        assert same_bits(stage.state, state)


def test_config_makes_the_same_layer(layer):
    twin = type(layer)(**layer.get_config())
    assert repr(twin) == repr(layer)
    assert twin.get_config() == layer.get_config()
    count = sum(a.size for a in layer.parameters().values())
    assert 0 <= layer.least_weights(layer.get_config()) <= count


# -- initial weights -----------------------------------------------------------------------------


def test_reset_parameters(layer, same_bits):
    """In place; a seed gives the weights and dropout of a layer constructed with it."""
    own = layer.parameters()
    before = layer.state_dict()
    layer.reset_parameters()
    if not takes_seed(layer):
        assert same_bits(layer.state_dict(), before)
        return
    assert not own or not same_bits(layer.state_dict(), before)
    made = type(layer)(**layer.get_config(), seed=5)
    layer.reset_parameters(5)
    assert same_bits(layer.state_dict(), made.state_dict())
    assert same_bits(own, layer.state_dict())
    if layer.vocabulary is None:
        x = np.ones((T, B, layer.features_in or I), layer.dtype or np.float64)
        assert same_bits(layer.apply_forward(x)[0], made.apply_forward(x)[0])


def takes_seed(layer):
    return "seed" in inspect.signature(type(layer)).parameters


def test_touched(layer):
    assert not layer.touched
    for clone in (copy.deepcopy, lambda l: pickle.loads(pickle.dumps(l))):
        assert not clone(layer).touched
    own = layer.parameters()
    assert not layer.touched
    for name, array in own.items():
        layer.reset_parameters(1)
        assert not layer.touched
        array.flat[-1] += 1
        assert layer.touched, name
    layer.reset_parameters()
    layer.load_state_dict(layer.state_dict())
    assert not layer.touched


def test_seeded(layer):
    config = layer.get_config()
    assert not type(layer)(**config).seeded
    if takes_seed(layer):
        assert type(layer)(**config, seed=0).seeded


def test_init_is_kept_by_reset_parameters(cell, make_layer):
    if "f" in cell.gates:
        layer = make_layer(cell, I, H, forget_bias=1.5)
        for seed in (None, 3):
            layer.reset_parameters(seed)
            assert (layer.parameters()["bias_ih_l0"][H : 2 * H] == 1.5).all()
            assert not layer.parameters()["bias_hh_l0"][H : 2 * H].any()
    layer = make_layer(cell, I, H, init="orthogonal")
    layer.reset_parameters()
    if cell.recurrence == "dense":
        w = layer.parameters()["weight_hh_l0"][:H].astype(np.float64)
        np.testing.assert_allclose(w @ w.T, np.eye(H), atol=1e-5)
    assert not layer.parameters()["bias_ih_l0"].any()


def test_subclasses_are_seeded_like_their_parents(cell, make_layer, same_bits):
    """Whatever the signature of the constructor is."""
    make = type(make_layer(cell, 1, 1))

    class Mine(make):
        def __init__(self, i, h, **more):
            super().__init__(i, h, return_sequences=False, **more)

    class Fixed(make):
        def __init__(self):
            super().__init__(I, H, return_sequences=False)

    def weights(layer):
        return fastrnn.Sequential([layer, fastrnn.Linear(H, 1)], seed=0).state_dict()

    want = weights(make(I, H, return_sequences=False))
    assert same_bits(weights(Mine(I, H)), want)
    assert same_bits(weights(Fixed()), want)
    assert not same_bits(weights(Mine(I, H, seed=1)), want)


# -- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["training", "trainable"])
def test_modes_are_checked(layer, name):
    assert getattr(layer, name) is True
    setattr(layer, name, np.bool_(False))
    assert getattr(layer, name) is False
    for wrong in ("no", None, 2, [True]):
        with pytest.raises(TypeError, match=rf"^{name}: expected True or False, got"):
            setattr(layer, name, wrong)
    assert getattr(layer, name) is False


def test_probabilities_are_checked(layer):
    for name in {"dropout", "p"} & set(dir(layer)):
        setattr(layer, name, 0.75)
        assert getattr(layer, name) == 0.75
        for wrong, error in ((-0.1, ValueError), (1.5, ValueError), ("much", TypeError)):
            with pytest.raises(error, match=rf"^{name}: expected a number in \[0, 1\], got"):
                setattr(layer, name, wrong)
        assert getattr(layer, name) == 0.75
