"""Weights of classes in ``Sequential.fit``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import GRU, Linear, Sequential, optim
from fastrnn.models.weighting import class_weights

F64: dict[str, Any] = {"dtype": np.float64}
History = dict[str, list[float]]


def fitted(
    X: Any, y: Any, loss: str = "cross_entropy", steps: bool = False, **more: Any
) -> History:
    outputs = 1 if loss != "cross_entropy" else 3
    layers = [GRU(2, 4, return_sequences=steps, **F64), Linear(4, outputs, **F64)]
    model = Sequential(layers, seed=0)
    model.compile("adam", loss)
    return model.fit(X, y, epochs=2, batch_size=5, verbose=0, **more).history


@pytest.mark.parametrize("own", [False, True])
def test_of_sequences(own: bool, rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((12, 4, 2)), np.array([0, 2, 2, 2] * 3)
    w = rng.uniform(0.5, 2, 12) if own else np.ones(12)
    given = w if own else None
    for weight, each in (
        ("balanced", np.where(y, 12 / (2 * 9), 12 / (2 * 3))),
        ({0: 5, 1: 0}, np.where(y, 1, 5)),
    ):
        mine = fitted(X, y, class_weight=weight, sample_weight=given)
        theirs = fitted(X, y, sample_weight=each * w)
        np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-13)
    mine = fitted(X, y > 0, "binary_cross_entropy", class_weight={1: 3}, sample_weight=given)
    theirs = fitted(X, y > 0, "binary_cross_entropy", sample_weight=np.where(y, 3, 1) * w)
    np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-13)


@pytest.mark.parametrize("form", ["even", "lengths", "list"])
def test_of_steps_but_not_in_validation(form: str, rng: np.random.Generator) -> None:
    lengths = np.full(10, 6) if form == "even" else rng.integers(1, 7, 10)
    X, y = rng.standard_normal((10, 6, 2)), rng.choice([0, 1, 1, 1], (10, 6))
    rows = rng.uniform(0.5, 2, 10)
    rows[2] = 0  # where the targets may be anything
    y[2] = 7
    within = np.arange(6) < lengths[:, None]
    counted = within[:7] & (rows[:7, None] > 0)
    counts = np.bincount(y[:7][counted])
    each = counted.sum() / (2 * counts)[y[:7].clip(max=1)]
    options: dict[str, Any] = {}
    if form == "list":
        cut = [[a[:n] for a, n in zip(array, lengths, strict=True)] for array in (X, y)]
        weights = [e[:n] for e, n in zip(each * rows[:7, None], lengths, strict=False)]
    else:
        cut, weights = [X, y], each * rows[:7, None]
        options = {"lengths": lengths} if form == "lengths" else {}
    mine = fitted(
        *cut, steps=True, class_weight="balanced", sample_weight=rows, validation_split=0.3,
        **options,
    )  # fmt: skip
    train, held = ([a[part] for a in cut] for part in (slice(7), slice(7, None)))
    validation = dict(zip(("X", "y", "sample_weight"), (*held, rows[7:]), strict=True))
    if options:
        validation["lengths"], options = lengths[7:], {"lengths": lengths[:7]}
    theirs = fitted(
        *train, steps=True, sample_weight=weights, validation_data=validation, **options
    )
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-12)


@pytest.mark.parametrize("steps", [False, True])
def test_metrics_are_not_weighted_by_class(steps: bool, rng: np.random.Generator) -> None:
    X = [rng.standard_normal((n, 2)) for n in (3, 5, 4, 1, 2)]
    y = [rng.integers(0, 3, len(x)) for x in X] if steps else rng.integers(0, 3, 5)
    own = rng.uniform(0.5, 2, 5)

    def hits(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        return float((y_true == y_pred.argmax(-1)).mean())

    layers = [GRU(2, 4, return_sequences=steps, **F64), Linear(4, 3, **F64)]
    model = Sequential(layers, seed=0)
    model.compile(optim.SGD(0.0), "cross_entropy", ["accuracy", hits])
    options = {"batch_size": 2, "bptt": 2 if steps else None, "verbose": 0}
    for given in (None, own):
        expected = model.evaluate(X, y, sample_weight=given)
        for weight in ("balanced", {0: 9, 1: 0}):
            logs = model.fit(X, y, class_weight=weight, sample_weight=given, **options).last
            for name in ("accuracy", "hits"):
                assert logs[name] == pytest.approx(expected[name], rel=1e-12)
            assert logs["loss"] != expected["loss"]


def test_balanced_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    y = rng.choice([0, 2, 3], 50, p=[0.1, 0.7, 0.2])
    weights = class_weights("balanced", y, 5)
    np.testing.assert_allclose(weights, sklearn.compute_sample_weight("balanced", y))
    np.testing.assert_array_equal(class_weights({2: 5}, y, 5), np.where(y == 2, 5, 1))
    assert class_weights(None, y, 5) is None
    assert class_weights("balanced", y[:0], 5).shape == (0,)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (
            "balance",
            ValueError,
            "class_weight: expected 'balanced', got 'balance'.*did you mean 'balanced'",
        ),
        (
            [1, 2],
            TypeError,
            "class_weight: expected 'balanced' or a dict of class to weight, got l",
        ),
        ({3: 1}, ValueError, "class_weight 3: expected at most 2, got 3"),
        ({"a": 1}, TypeError, "class_weight 'a': expected a whole number, got str"),
        ({0: -1}, ValueError, r"class_weight\[0\]: expected a finite number >= 0, got -1"),
        ({0: "1"}, TypeError, r"class_weight\[0\]: expected a finite number >= 0, got str"),
    ],
)
def test_what_is_refused(weight: Any, error: type[Exception], message: str) -> None:
    X, y = np.zeros((2, 3, 2)), [0, 1]
    with pytest.raises(error, match=message):
        fitted(X, y, class_weight=weight)
    with pytest.raises(ValueError, match=r"expected cross_entropy, or .* as the loss, got MSE\(\)"):
        fitted(X, y, "mse", class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight: expected targets that are 0 or 1"):
        fitted(X, [0.3, 1], "binary_cross_entropy", class_weight="balanced")
