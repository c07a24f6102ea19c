"""Layers other than recurrent ones: values, gradients, arguments."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import Dropout, Embedding, Linear

LAYERS = {
    "embedding": Embedding(7, 4, seed=0),
    "linear": Linear(3, 5, seed=0),
    "dropout": Dropout(0.3, seed=0),
}


def numeric(f: Callable[[], float], a: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Return central differences of f with respect to every entry of a."""
    grad = np.empty_like(a)
    for i in np.ndindex(a.shape):
        usual = a[i]
        a[i] = usual + eps
        above = f()
        a[i] = usual - eps
        grad[i] = (above - f()) / (2 * eps)
        a[i] = usual
    return grad


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(actual - expected).max() <= 1e-7 * np.abs(expected).max())


# Embedding.


@pytest.mark.parametrize("shape", [(), (6,), (4, 3), (2, 3, 2), (0, 3)])
def test_embedding_looks_up_rows(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    layer = Embedding(7, 4, seed=0)
    x = rng.integers(0, 7, shape)
    y, _ = layer.forward(x)
    np.testing.assert_array_equal(y, layer.parameters()["weight"][x])
    np.testing.assert_array_equal(layer(x.tolist() if x.size else x), y)
    assert y.dtype == np.float32


@pytest.mark.parametrize("shape", [(6,), (50, 3), ()])
def test_embedding_gradient(shape: tuple[int, ...], backend: str, rng: np.random.Generator) -> None:
    layer = Embedding(7, 4, dtype=np.float64, seed=0)
    x = rng.integers(0, 6, shape)  # row 6 is never looked up
    dy = rng.standard_normal((*shape, 4))
    _, tape = layer.forward(x)
    dx, grads = layer.backward(tape, dy)
    assert dx is None
    weight = layer.parameters()["weight"]
    assert close(grads["weight"], numeric(lambda: float((layer(x) * dy).sum()), weight))
    assert not grads["weight"][6].any()


@pytest.mark.parametrize("D", [1, 16, 35])
def test_embedding_kernels(D: int, dtype: Any, compiled: str, rng: np.random.Generator) -> None:
    layer = Embedding(50, D, dtype=dtype, seed=0)
    _, tape = layer.forward(rng.integers(0, 40, (30, 4)).T)
    dy = rng.standard_normal((4, 30, D)).astype(dtype)
    summed = layer.backward(tape, dy)[1]["weight"]
    by_rows = layer.apply_backward(tape, dy, for_update=True)[1]["weight"]
    np.testing.assert_array_equal(by_rows.dense(), summed)
    assert len(by_rows.rows) <= 40
    with fastrnn.use_backend("reference"):
        expected = layer.backward(tape, dy)[1]["weight"]
        np.testing.assert_array_equal(
            layer.apply_backward(tape, dy, for_update=True)[1]["weight"].dense(), expected
        )
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(summed, expected, rtol=20 * eps, atol=20 * eps)


def test_an_empty_list_is_no_list_of_floats() -> None:
    layer = Embedding(5, 3, seed=0)
    assert layer([]).shape == (0, 3)
    model = fastrnn.Sequential([layer, fastrnn.GRU(3, 2)])
    with pytest.raises(ValueError, match=r"X\[1\]: expected shape \(T,\) with T >= 1, got \(0,\)"):
        model.predict([[1, 2], []])


def test_embedding_of_nothing(backend: str) -> None:
    layer = Embedding(3, 2)
    y, tape = layer.forward(np.empty((0, 5), int))
    assert y.shape == (0, 5, 2)
    assert not layer.backward(tape, y)[1]["weight"].any()
    assert not layer.apply_backward(tape, y, for_update=True)[1]["weight"].dense().any()


@pytest.mark.parametrize("x", [7, -1, [0, 7], [[-1, 3]]])
def test_embedding_refuses_an_index_out_of_range(x: Any) -> None:
    with pytest.raises(ValueError, match=r"x: expected whole numbers in 0\.\.6, got (7|-1)"):
        LAYERS["embedding"](x)


@pytest.mark.parametrize("x", [1.0, [True], "a", [None]])
def test_embedding_refuses_what_is_not_whole(x: Any) -> None:
    with pytest.raises(TypeError, match="x: expected an array of whole numbers, got dtype"):
        LAYERS["embedding"].forward(x)


def test_embedding_starts_normal() -> None:
    weight = Embedding(200, 100, seed=0).parameters()["weight"]
    assert abs(weight.mean()) < 0.03
    assert abs(weight.std() - 1) < 0.03


# Linear.


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool, backend: str, rng: np.random.Generator) -> None:
    layer = Linear(3, 5, bias, dtype=np.float64, seed=0)
    own = layer.parameters()
    assert list(own) == (["weight", "bias"] if bias else ["weight"])
    x, dy = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 5))
    y, tape = layer.forward(x)
    expected = x @ own["weight"].T + own.get("bias", 0)
    np.testing.assert_allclose(y, expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(layer(x), y)
    for i in np.ndindex(shape[:-1]):  # a row gives the same bits alone
        np.testing.assert_array_equal(layer(x[i]), layer(x)[i])
    dx, grads = layer.backward(tape, dy)
    assert grads.keys() == own.keys()
    if not x.size:
        assert dx.shape == x.shape
        assert not any(g.any() for g in grads.values())
        return
    assert close(dx, numeric(lambda: float((layer(x) * dy).sum()), x))
    for name, grad in grads.items():
        assert close(grad, numeric(lambda: float((layer(x) * dy).sum()), own[name]))


#: Widths below, at and above a vector and a group of four, on any machine.
@pytest.mark.parametrize("I", [1, 5, 32, 70])
@pytest.mark.parametrize("O", [1, 3, 16, 65, 130])
def test_linear_kernels(
    I: int, O: int, dtype: Any, compiled: str, rng: np.random.Generator
) -> None:
    n = 261  # more than two lots of rows
    layer = Linear(I, O, dtype=dtype, seed=0)
    x, dy = (rng.standard_normal((n, size)).astype(dtype) for size in (I, O))
    y, tape = layer.forward(x)
    dx, grads = layer.backward(tape, dy)
    with fastrnn.use_backend("reference"):
        y_ref, tape_ref = layer.forward(x)
        dx_ref, grads_ref = layer.backward(tape_ref, dy)
    eps = np.finfo(dtype).eps
    pairs = {"y": (y, y_ref), "dx": (dx, dx_ref)} | {k: (grads[k], grads_ref[k]) for k in grads}
    for name, (actual, expected) in pairs.items():
        scale = np.abs(expected).max() + 1
        assert np.abs(actual - expected).max() <= 30 * eps * scale, name
    for rows in (slice(3, 4), slice(0, 2), slice(100, 123), slice(1, None)):
        np.testing.assert_array_equal(layer(x[rows]), y[rows])
        np.testing.assert_array_equal(
            layer.backward(layer.forward(x[rows])[1], dy[rows])[0], dx[rows]
        )
    wide = np.full((n, I + 2), np.nan, dtype)  # reads nothing beyond its rows
    wide[:, 1:-1] = x
    np.testing.assert_array_equal(layer(wide[:, 1:-1]), y)


def test_linear_keeps_what_is_not_finite_in_its_row(backend: str) -> None:
    layer = Linear(3, 18, seed=0)
    x = np.ones((5, 3))
    x[1, 2], x[3, 0] = np.nan, np.inf
    y, tape = layer.forward(x)
    np.testing.assert_array_equal(np.isfinite(y).all(axis=1), [True, False, True, False, True])
    dx, _ = layer.backward(tape, np.where(np.arange(5) == 2, np.nan, 1)[:, None].repeat(18, 1))
    np.testing.assert_array_equal(np.isfinite(dx).all(axis=1), [True, True, False, True, True])


def test_linear_sees_every_change(backend: str) -> None:
    layer = Linear(2, 3, seed=0)
    before = layer([1.0, 1.0])
    layer.parameters()["weight"][1, 0] += 1
    np.testing.assert_allclose(layer([1.0, 1.0]) - before, [0, 1, 0], atol=1e-6)
    layer.parameters()["bias"][2] -= 2
    np.testing.assert_allclose(layer([1.0, 1.0]) - before, [0, 1, -2], atol=1e-6)


def test_linear_starts_uniform() -> None:
    own = Linear(100, 300, seed=0).parameters()
    for array in own.values():
        assert 0.09 < np.abs(array).max() <= 0.1
        assert abs(array.std() - 0.1 / 3**0.5) < 0.005


def test_linear_sees_strided_and_foreign_input(rng: np.random.Generator) -> None:
    layer = Linear(3, 5, seed=0)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    expected = layer(x[:, ::2].copy())
    for same in (x[:, ::2], x[:, ::2].astype(">f8"), x[:, ::2].tolist()):
        np.testing.assert_array_equal(layer(same), expected)


@pytest.mark.parametrize("x", [np.zeros(4), np.zeros((3, 2)), 1.0])
def test_linear_refuses_other_sizes(x: Any) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(\.\.\., 3\), got \("):
        LAYERS["linear"](x)


# Dropout.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_in_training(dtype: Any) -> None:
    layer = Dropout(0.25, seed=1)
    x = np.full((200, 50), 3, dtype)
    y, tape = layer.forward(x)
    assert y.dtype == dtype
    kept = y != 0
    assert abs(kept.mean() - 0.75) < 0.02
    np.testing.assert_allclose(y[kept], 4, rtol=1e-6)
    dx, grads = layer.backward(tape, np.ones_like(x))
    np.testing.assert_allclose(dx, y / 3, rtol=1e-6)
    assert grads == {}
    assert (layer.forward(x)[0] != y).any()


def test_dropout_is_identity_otherwise(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 3))
    layer = Dropout(0.9)
    np.testing.assert_array_equal(layer(x), x)
    for same in (layer.eval(), Dropout(0)):
        y, tape = same.forward(x)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(same.backward(tape, x)[0], x)


def test_dropout_of_everything() -> None:
    y, tape = Dropout(1).forward([1.0, np.nan])
    np.testing.assert_array_equal(y, [0, np.nan])
    np.testing.assert_array_equal(Dropout(1).backward(tape, [1, 1])[0], [0, 0])


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
def test_dropout_refuses_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match=r"p: expected a number in \[0, 1\], got"):
        Dropout(p)


# All of them.


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (Embedding(7, 4), "Embedding(7, 4)"),
        (Embedding(7, 4, dtype="float64"), "Embedding(7, 4, dtype=float64)"),
        (Linear(3, 5), "Linear(3, 5)"),
        (Linear(3, 5, False, dtype=np.float64), "Linear(3, 5, bias=False, dtype=float64)"),
        (Dropout(), "Dropout(p=0.5)"),
    ],
)
def test_repr(layer: Any, shown: str) -> None:
    assert repr(layer) == shown


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@pytest.mark.parametrize("name", LAYERS)
def test_copies_are_equal_and_independent(
    name: str, clone: Callable[[Any], Any], rng: np.random.Generator
) -> None:
    layer = copy.deepcopy(LAYERS[name])
    x = rng.integers(0, 7, (4, 3)) if name == "embedding" else rng.standard_normal((4, 3))
    other = clone(layer)
    y = layer.forward(x)[0]
    for array in layer.parameters().values():
        array += 1
    np.testing.assert_array_equal(other.forward(x)[0], y)


@pytest.mark.parametrize("name", ["embedding", "linear"])
def test_the_seed_decides(name: str) -> None:
    make = {"embedding": Embedding, "linear": Linear}[name]
    a, b, c = (make(3, 4, seed=s).state_dict()["weight"] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()
    for bad in (lambda: make(3, 4, seed=-1), lambda: Dropout(seed=-1)):
        with pytest.raises(ValueError, match="seed: expected a whole number of at least 0, got -1"):
            bad()


@pytest.mark.parametrize("name", LAYERS)
def test_the_tape_owns_what_it_needs(name: str, rng: np.random.Generator) -> None:
    layer = copy.deepcopy(LAYERS[name])
    x = rng.integers(0, 6, (4, 3)) if name == "embedding" else rng.standard_normal((4, 3))
    y, tape = layer.forward(x)
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(tape, dy)
    x[...] = 6
    for array in layer.parameters().values():
        array[...] = 0
    for _ in range(2):
        dx_again, grads_again = layer.backward(tape, dy)
        np.testing.assert_equal((dx_again, grads_again), (dx, grads))


@pytest.mark.parametrize("name", LAYERS)
def test_backward_refuses_a_wrong_tape_and_dy(name: str) -> None:
    layer = LAYERS[name]
    with pytest.raises(TypeError, match="tape: expected what forward returned, got str"):
        layer.backward("tape", 0)
    y, tape = layer.forward(np.zeros((4, 3), int))
    with pytest.raises(ValueError, match="dy: expected shape"):
        layer.backward(tape, y[:3])


def test_linear_refuses_the_tape_of_another() -> None:
    _, tape = LAYERS["linear"].forward(np.zeros(3))
    with pytest.raises(ValueError, match="another layer"):
        Linear(3, 6).backward(tape, np.zeros(6))


@pytest.mark.parametrize("make", [Embedding, Linear])
@pytest.mark.parametrize(("sizes", "error"), [((0, 3), ValueError), ((3, 2.5), TypeError)])
def test_sizes_are_checked(make: Any, sizes: tuple[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"(num_embeddings|embedding_dim|\w+_features): expected"):
        make(*sizes)


def test_against_torch(backend: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = rng.integers(0, 7, (5, 3))
    theirs = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 5)).double()
    embedding, linear = Embedding(7, 4, dtype="float64"), Linear(4, 5, dtype="float64")
    embedding.load_state_dict(theirs[0].state_dict())
    linear.load_state_dict(theirs[1].state_dict())
    h, tape_e = embedding.forward(x)
    y, tape_l = linear.forward(h)
    dy = rng.standard_normal(y.shape)
    dh, grads_l = linear.backward(tape_l, dy)
    _, grads_e = embedding.backward(tape_e, dh)
    expected = theirs(torch.from_numpy(x))
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    for grads, layer in ((grads_e, theirs[0]), (grads_l, theirs[1])):
        for name, p in layer.named_parameters():
            np.testing.assert_allclose(grads[name], p.grad.numpy(), rtol=1e-12, atol=1e-14)
