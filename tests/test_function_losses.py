"""Losses as functions: f(y_true, y_pred) -> (value, dy)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.losses import FunctionLoss

I, H, O = 3, 5, 2


def mean_squares(y_true: Any, y_pred: Any) -> Any:
    d = y_pred - y_true
    return (d * d).mean(), 2 * d / d.size


def squares(y_true: Any, y_pred: Any) -> Any:
    d = y_pred - y_true
    return (d * d).mean(axis=-1), 2 * d / d.shape[-1]


def cross_entropies(y_true: Any, logits: Any) -> Any:
    assert y_true.dtype.kind == "i"
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs = e / e.sum(axis=-1, keepdims=True)
    chosen = np.take_along_axis(probs, y_true[..., None], axis=-1)
    np.put_along_axis(probs, y_true[..., None], chosen - 1, axis=-1)
    return -np.log(chosen[..., 0]), probs


TWINS = {mean_squares: "mse", squares: "mse", cross_entropies: "cross_entropy"}


@pytest.fixture
def data(rng: np.random.Generator) -> dict[str, Any]:
    X = [rng.normal(size=(n, I)) for n in (5, 7, 2, 4, 4, 4)]
    return {
        "X": X,
        "mse": [rng.normal(size=(len(x), O)) for x in X],
        "cross_entropy": [rng.integers(0, O, len(x)) for x in X],
        "steps": [rng.random(len(x)) for x in X],
        "sequences": rng.integers(0, 3, len(X)),
    }


def net(loss: Any, *, last: bool = False) -> fastrnn.Sequential:
    made = fastrnn.Sequential(
        [fastrnn.GRU(I, H, return_sequences=not last), fastrnn.Linear(H, O)], seed=0
    )
    made.compile(fastrnn.optim.Adam(0.01), loss)
    return made


@pytest.mark.parametrize("weights", [None, "steps", "sequences"])
@pytest.mark.parametrize("function", TWINS)
def test_trains_as_the_loss_of_the_library(function, weights, data):
    """Ragged, so that batches have padding, and weighted."""
    if function is mean_squares and weights is not None:
        return
    name = TWINS[function]
    given = {"X": data["X"], "y": data[name], "sample_weight": data.get(weights)}
    ours, theirs = net(function), net(name)
    for options in ({}, {"bptt": 3}):
        a = ours.fit(**given, epochs=3, batch_size=2, shuffle=False, verbose=0, **options)
        b = theirs.fit(**given, epochs=3, batch_size=2, shuffle=False, verbose=0, **options)
        np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)
    found, expected = ours.evaluate(**given)["loss"], theirs.evaluate(**given)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_output_per_sequence(rng):
    X, y = rng.normal(size=(8, 5, I)), rng.normal(size=(8, O))
    ours, theirs = net(squares, last=True), net("mse", last=True)
    weight = rng.random(8)
    a, b = (m.fit(X, y, epochs=2, verbose=0, sample_weight=weight) for m in (ours, theirs))
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)


def test_what_a_function_gets(rng):
    seen = []

    def loss(y_true: Any, y_pred: Any) -> Any:
        seen.append((y_true.shape, y_pred.shape, y_pred.dtype))
        return 0.0, np.zeros_like(y_pred)

    made = fastrnn.Sequential([fastrnn.GRU(I, H), fastrnn.Linear(H, 1)], seed=0)
    made.compile("sgd", loss)
    X = rng.normal(size=(4, 7, I))
    made.fit(X, X[..., 0], verbose=0)  # batch-first, and O = 1 is there
    assert seen.pop() == ((4, 7, 1), (4, 7, 1), np.float32)
    made.fit(X, X[..., 0], lengths=[7, 2, 3, 1], verbose=0)  # without padding
    assert seen.pop() == ((13, 1), (13, 1), np.float32)
    made.fit(X, X, verbose=0)  # whatever the function takes
    assert seen.pop() == ((4, 7, I), (4, 7, 1), np.float32)


def test_values_and_gradients(dtype, rng):
    z, t = rng.normal(size=(2, 4, 7, O)).astype(dtype)
    w = rng.random((4, 7)).astype(dtype)
    w[1, 2:] = 0
    z[1, 3] = np.nan
    for weight in (None, w, w[:, 0]):
        found = FunctionLoss(squares).value_and_grad(z, t, weight)
        expected = fastrnn.losses.mse.value_and_grad(z, t, weight)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-7)
        assert found[1].dtype == dtype
    value, grad = FunctionLoss(squares).value_and_grad(z, t, np.zeros(4))
    assert value == 0
    assert not grad.any()


def test_metrics_beside_it(data):
    made = net(squares)
    made.compile("sgd", squares, metrics=["mse", "mae"])
    found = made.evaluate(data["X"], data["mse"])
    np.testing.assert_allclose(found["mse"], found["loss"], rtol=1e-6)


WRONG = {
    r"loss: expected a function .* got float": lambda t, z: 0.5,
    r"value of the loss: expected shape \(\) or \(4, 7\), got \(4,\)": lambda t, z: (
        np.zeros(4),
        z,
    ),
    r"dy of the loss: expected shape \(4, 7, 2\), got \(4, 7\)": lambda t, z: (0, z[..., 0]),
    "dy of the loss: expected an array of real numbers": lambda t, z: (0, None),
}


@pytest.mark.parametrize("said", WRONG)
def test_errors(said, rng):
    X = rng.normal(size=(4, 7, I))
    with pytest.raises((ValueError, TypeError), match=said):
        net(WRONG[said]).fit(X, X[..., :2], verbose=0)


def test_other_errors(rng):
    X = rng.normal(size=(4, 7, I))
    weighted = net(mean_squares)
    with pytest.raises(ValueError, match=r"expected a value for each row or step, shape \(4, 7\)"):
        weighted.fit(X, X[..., :2], sample_weight=[1, 2, 3, 4], verbose=0)
    with pytest.raises(ValueError, match=r"^y: expected shape \(4, 7, 2\)"):
        net(squares).fit(X, X[:, :6, :2], verbose=0)
    with pytest.raises(TypeError, match="expected a name, a Loss or a function, got int"):
        net(3)
    with pytest.raises(TypeError, match="the class itself"):
        net(fastrnn.losses.MSE)
    with pytest.raises(ValueError, match="class_weight: expected cross_entropy"):
        net(squares).fit(X, X[..., :2], class_weight={0: 2.0}, verbose=0)
    assert repr(net(squares).loss) == "FunctionLoss(squares)"
    with pytest.raises(ValueError, match="the loss became nan"):
        net(lambda t, z: (np.nan, z)).fit(X, X[..., :2], verbose=0)
