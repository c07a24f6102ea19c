"""Steps that a model leaves out: ``Masking`` and ``Embedding(mask_zero=True)``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Embedding, Linear, Masking, Sequential

N, T, F, H, V = 5, 7, 3, 4, 11
KEPT = np.array(
    [[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 1, 1, 0],
     [0, 0, 0, 0, 0, 0, 1]], bool,
)  # fmt: skip
#: Padding at the end alone.
ENDING = np.sort(KEPT, axis=1)[:, ::-1]


def model(kind: str, *, per_step: bool, dtype: str = "float32") -> Sequential:
    first: list[Any] = [Masking(-2)]
    if kind == "tokens":
        first = [Embedding(V, F, mask_zero=True, dtype=dtype)]
    last = LSTM(2 * H, H, return_sequences=per_step, dtype=dtype)
    layers = [*first, GRU(F, H, bidirectional=True, dtype=dtype), last]
    return Sequential([*layers, Linear(H, 2, dtype=dtype)], seed=0)


def data(kind: str, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "tokens":
        return np.where(kept, rng.integers(1, V, (N, T)), 0)
    X = rng.normal(size=(N, T, F)).astype(np.float32)
    X[:, :, 0] = -2  # one feature alone masks nothing
    X[~kept] = -2
    return X


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_anywhere_with_an_output_per_sequence(
    kind: str, backend: str, rng: np.random.Generator, expect_equal: Any
) -> None:
    made, X = model(kind, per_step=False), data(kind, KEPT, rng)
    rows = [x[k] for x, k in zip(X, KEPT, strict=True)]
    before = X.copy()
    expect_equal(made.predict(X), made.predict(rows))
    expect_equal(made(X), made.predict(rows))
    np.testing.assert_array_equal(X, before)
    ragged = [*X[:-1], X[-1, 2:]]
    expect_equal(made.predict(ragged), made.predict(rows))
    # `lengths` are in place of the mask.
    first = made.layers[0]
    bare = [Embedding(V, F)] if kind == "tokens" else []
    whole = Sequential([*bare, *made.layers[1:]])
    for layer in bare:
        layer.load_state_dict(first.state_dict())
    expect_equal(made.predict(X, lengths=[T] * N), whole.predict(X))


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_at_the_end_with_an_output_per_step(kind: str, rng: np.random.Generator) -> None:
    made, X = model(kind, per_step=True), data(kind, ENDING, rng)
    y = made.predict(X)
    np.testing.assert_array_equal(y, made.predict(X, lengths=ENDING.sum(1)))
    assert (y[~ENDING] == 0).all()
    with pytest.raises(ValueError, match=r"X\[1\]: expected masked steps after all others, as th"):
        made.predict(data(kind, KEPT, rng))
    with pytest.raises(ValueError, match=r"X\[1\]: expected no masked steps in a list, got the ma"):
        made.predict([*X])
    np.testing.assert_array_equal(made([*X]), y)


@pytest.mark.parametrize("per_step", [False, True])
def test_trained_as_with_lengths(per_step: bool, rng: np.random.Generator) -> None:
    X = data("tokens", ENDING, rng)
    y = rng.integers(0, 2, (N, T) if per_step else N)
    results = []
    for lengths in (None, ENDING.sum(1)):
        made = model("tokens", per_step=per_step)
        made.compile("sgd", "cross_entropy", ["accuracy"])
        history = made.fit(X, y, epochs=2, batch_size=3, lengths=lengths, verbose=0)
        results.append((history.history, made.evaluate(X, y, lengths=lengths)))
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_a_sequence_of_nothing(kind: str, rng: np.random.Generator) -> None:
    kept = KEPT.copy()
    kept[3] = False
    with pytest.raises(ValueError, match=r"X\[3\]: expected a step that is not masked, got the m"):
        model(kind, per_step=False).predict(X := data(kind, kept, rng))
    with pytest.raises(ValueError, match=r"X\[3\]: expected a step that is not masked, got the m"):
        model(kind, per_step=False).predict([*X])


def test_nothing_is_masked(rng: np.random.Generator) -> None:
    made = model("tokens", per_step=True)
    X = rng.integers(1, V, (N, T))
    np.testing.assert_array_equal(made.predict(X), made.predict(X, lengths=[T] * N))
    assert made.predict(np.zeros((0, T), int)).shape == (0, T, 2)


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_files_and_streams(kind: str, tmp_path: Any, rng: np.random.Generator) -> None:
    layers = model(kind, per_step=True).layers
    made = Sequential([layers[0], LSTM(F, H, seed=1)])
    made.save(tmp_path / "m")
    again, X = fastrnn.load(tmp_path / "m"), data(kind, ENDING, rng)
    np.testing.assert_array_equal(again.predict(X), made.predict(X))
    assert repr(again.layers) == repr(made.layers)
    # A stream takes every step.
    stream, wanted = made.stream(N), made.predict(X, lengths=[T] * N)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(X[:, t]), wanted[:, t])


def test_the_layer_by_itself(dtype: np.dtype) -> None:
    masking = Masking(0.5)
    x = np.ones((T, N, F), dtype)
    y, tape = masking.forward(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x)
    dx, grads = masking.backward(tape, x)
    assert dx is x
    assert grads == {}
    assert repr(masking) == "Masking(0.5)"
    with pytest.raises(ValueError, match=r"dy: expected shape \(7, 5, 3\), got \(7, 5\)"):
        masking.backward(tape, x[:, :, 0])
    with pytest.raises(TypeError, match="tape: expected what forward returned"):
        masking.backward(None, x)
    with pytest.raises(ValueError, match="mask_value: expected a finite number"):
        Masking(np.inf)
    with pytest.raises(ValueError, match=r"layers\[1\]: expected Masking to be the first layer"):
        Sequential([Linear(F, H), masking])
