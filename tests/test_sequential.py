"""Sequential: against torch and hand-written loops, with every kind of data."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Dropout, Embedding, Linear, Sequential, losses, optim
from fastrnn.callbacks import Callback

V, F = 7, 3
F64: dict[str, Any] = {"dtype": np.float64}


def tokens_model(seed: int | None = 0, **options: Any) -> Sequential:
    """Return a model from tokens to logits (V,) per step."""
    layers = [
        Embedding(V, 4, **F64),
        LSTM(4, 5, num_layers=2, batch_first=True, **options, **F64),
        GRU(5 * (1 + bool(options.get("bidirectional"))), 6, **F64),
        Linear(6, V, **F64),
    ]
    return Sequential(layers, seed=seed)


def sums_model(seed: int | None = 0, cell: Any = RNN, **options: Any) -> Sequential:
    """Return a model from vectors to one number per sequence."""
    last = cell(F, 8, return_sequences=False, **options, **F64)
    return Sequential([last, Linear(8 * (1 + last.bidirectional), 1, **F64)], seed=seed)


def ragged(rng: np.random.Generator, n: int, most: int = 9) -> list[np.ndarray]:
    return [rng.integers(0, V, rng.integers(1, most + 1)) for _ in range(n)]


def padded(arrays: list[np.ndarray], fill: Any) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(a) for a in arrays])
    padded = np.full((len(arrays), lengths.max(), *arrays[0].shape[1:]), fill)
    for row, a in zip(padded, arrays, strict=True):
        row[: len(a)] = a
    return padded, lengths


def weights(model: Sequential) -> np.ndarray:
    return np.concatenate([p.ravel() for p in model.parameters().values()])


# Layers made of layers.


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradient_by_central_differences(bidirectional: bool, rng: np.random.Generator) -> None:
    model = tokens_model(bidirectional=bidirectional)
    x, lengths = rng.integers(0, V, (3, 5)), np.array([5, 2, 4])
    target, weight = rng.integers(0, V, (3, 5)), np.arange(5) < lengths[:, None]

    def loss() -> float:
        return losses.cross_entropy(model(x, lengths=lengths), target, weight)

    y, tape = model.forward(x, lengths=lengths)
    value, dy = losses.cross_entropy.value_and_grad(y, target, weight)
    assert value == pytest.approx(loss(), rel=1e-14)
    dx, grads = model.backward(tape, dy)
    assert dx is None
    assert grads.keys() == model.parameters().keys()
    for name, p in model.parameters().items():
        assert grads[name].shape == p.shape
        for i in [tuple(rng.integers(0, p.shape)) for _ in range(5)]:
            old = p[i]
            p[i] = old + 1e-5
            up = loss()
            p[i] = old - 1e-5
            numeric = (up - loss()) / 2e-5
            p[i] = old
            assert abs(grads[name][i] - numeric) < 1e-9


def test_input_gradient(rng: np.random.Generator) -> None:
    model = sums_model(cell=GRU, batch_first=True)
    x = rng.standard_normal((2, 4, F))
    y, tape = model.forward(x)
    dx, _ = model.backward(tape, np.ones_like(y))
    assert dx is not None
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = 1e-5
        assert abs(dx[i] - (model(x + d) - model(x - d)).sum() / 2e-5) < 1e-9


def test_names_are_those_of_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    model = Sequential([Linear(F, 4, **F64), Dropout(0.3), Linear(4, 2, **F64)])
    theirs = torch.nn.Sequential(
        torch.nn.Linear(F, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 2)
    ).double()
    model.load_state_dict(theirs.state_dict())
    x = rng.standard_normal((2, 3, F))
    expected = theirs.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-14, atol=1e-15)


def test_a_whole_training_against_torch(rng: np.random.Generator, remade: Any) -> None:
    torch = pytest.importorskip("torch")
    X, y = rng.standard_normal((20, 6, F)), rng.integers(0, 4, 20)
    lstm, linear = LSTM(F, 5, seed=0, **F64), Linear(5, 4, seed=1, **F64)
    first, last = torch.nn.LSTM(F, 5, batch_first=True).double(), torch.nn.Linear(5, 4).double()
    first.load_state_dict({n: torch.from_numpy(a) for n, a in lstm.state_dict().items()})
    last.load_state_dict({n: torch.from_numpy(a) for n, a in linear.state_dict().items()})
    theirs = torch.optim.AdamW([*first.parameters(), *last.parameters()], lr=0.01)
    means = []
    for _ in range(10):
        values = []
        for i in range(0, 20, 5):
            theirs.zero_grad()
            out = last(first(torch.from_numpy(X[i : i + 5]))[0][:, -1])
            loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(y[i : i + 5]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*first.parameters(), *last.parameters()], 0.5)
            theirs.step()
            values.append(loss.item())
        means.append(np.mean(values))
    lstm = remade(lstm, return_sequences=False)
    model = Sequential([lstm, linear])
    model.compile(optim.AdamW(0.01, clip_norm=0.5), "cross_entropy")
    history = model.fit(X, y, epochs=10, batch_size=5, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], means, rtol=1e-10)
    np.testing.assert_allclose(
        linear.parameters()["weight"], last.weight.detach().numpy(), rtol=1e-9, atol=1e-12
    )


def test_mixed_use_with_ones_own_loop(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((12, 5, F)), rng.standard_normal((12, 1))
    model, own = sums_model(), sums_model()
    model.compile(optim.Adam(0.01), "huber")
    history = model.fit(X, y, epochs=4, batch_size=5, shuffle=False, verbose=0)
    adam, means = optim.Adam(0.01), []
    for _ in range(4):
        mean = 0.0
        for i in range(0, 12, 5):
            out, tape = own.forward(X[i : i + 5])
            value, dy = losses.huber.value_and_grad(out, y[i : i + 5])
            _, grads = own.backward(tape, dy)
            adam.step(own.parameters(), grads)
            mean += value * len(out) / 12
        means.append(mean)
    np.testing.assert_allclose(history.history["loss"], means, rtol=1e-14)
    np.testing.assert_array_equal(weights(model), weights(own))


# Data.


@pytest.mark.parametrize(
    "make", [lambda: optim.SGD(0.1), lambda: optim.Adagrad(clip_norm=0.1), optim.Adam]
)
def test_a_fit_is_ones_own_loop_to_the_bit(
    make: Any, backend: str, rng: np.random.Generator
) -> None:
    """Including row gradients of a table."""
    x, y = rng.integers(0, V, (6, 4)), rng.integers(0, V, (6, 4))
    one, two = tokens_model(), tokens_model()
    one.compile(make(), "cross_entropy")
    one.fit(x, y, epochs=3, batch_size=2, shuffle=False, verbose=0)
    optimizer = make()
    for _ in range(3):
        for start in range(0, 6, 2):
            z, tape = two.forward(x[start : start + 2])
            _, dz = losses.cross_entropy.value_and_grad(z, y[start : start + 2])
            optimizer.step(two.parameters(), two.backward(tape, dz)[1])
    np.testing.assert_array_equal(weights(one), weights(two))


def test_lists_and_lengths_are_the_same_training(rng: np.random.Generator) -> None:
    X = ragged(rng, 23)
    Y = [rng.integers(0, V, len(x)) for x in X]
    x, lengths = padded(X, V - 1)
    y, _ = padded(Y, -100)  # the contents of the padding do not matter
    runs = []
    for data, options in (((X, Y), {}), ((x, y), {"lengths": lengths}), ((X, y), {})):
        model = tokens_model()
        model.compile("adam", "cross_entropy", ["accuracy"])
        history = model.fit(
            *data, **options, epochs=3, batch_size=4, validation_split=0.25, verbose=0
        )
        runs.append((history.history, weights(model)))
    for history, w in runs[1:]:
        assert history == runs[0][0]
        np.testing.assert_array_equal(w, runs[0][1])
    assert set(runs[0][0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_a_ragged_batch_is_its_sequences(rng: np.random.Generator) -> None:
    model = tokens_model()
    model.compile("sgd", "cross_entropy")
    X = ragged(rng, 11)
    Y = [rng.integers(0, V, len(x)) for x in X]
    sums = sum(
        len(x) * losses.cross_entropy(model(x[None]), y[None]) for x, y in zip(X, Y, strict=True)
    )
    expected = sums / sum(map(len, X))
    for batch_size in (1, 3, 256):
        value = model.evaluate(X, Y, batch_size=batch_size)
        assert value["loss"] == pytest.approx(expected, rel=1e-13)
    outputs = model.predict(X, batch_size=4)
    assert isinstance(outputs, list)
    for x, y in zip(X, outputs, strict=True):
        np.testing.assert_allclose(y, model(x[None])[0], rtol=1e-13)
    x, lengths = padded(X, 0)
    as_array = model.predict(x, lengths=lengths)
    assert as_array.shape == (*x.shape, V)
    for row, n, y in zip(as_array, lengths, outputs, strict=True):
        np.testing.assert_array_equal(row[:n], y)
        assert not row[n:].any()
    np.testing.assert_allclose(model(x, lengths=lengths), as_array, rtol=1e-13)


def test_one_output_for_a_sequence(recurrent: Any, rng: np.random.Generator) -> None:
    model = sums_model(cell=recurrent, bidirectional=True)
    X = [rng.standard_normal((n, F)) for n in (4, 1, 6, 4)]
    outputs = model.predict(X)
    assert outputs.shape == (4, 1)
    for x, y in zip(X, outputs, strict=True):
        np.testing.assert_allclose(y, model(x[None])[0], rtol=1e-12)
    even = model.predict(np.stack([X[0], X[3]]))
    np.testing.assert_allclose(even, outputs[[0, 3]], rtol=1e-12)


def test_weights_of_sequences_are_repetitions(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((5, 4, F)), rng.standard_normal(5)
    times = np.array([1, 0, 3, 2, 1])
    one, two = sums_model(), sums_model()
    for model in (one, two):
        model.compile(optim.SGD(0.1), "mse", ["mae"])
    a = one.fit(X, y, epochs=3, sample_weight=times, verbose=0)
    b = two.fit(X.repeat(times, 0), y.repeat(times), epochs=3, shuffle=False, verbose=0)
    for name in ("loss", "mae"):
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=1e-12)
    np.testing.assert_allclose(weights(one), weights(two), rtol=1e-12)


def test_weights_of_steps(rng: np.random.Generator) -> None:
    X = ragged(rng, 6)
    W = [rng.integers(0, 3, len(x)).astype(float) for x in X]
    model = tokens_model()
    model.compile("sgd", "cross_entropy", ["accuracy"])
    each = [
        (w.sum(), losses.cross_entropy(model(x[None]), x[None], w[None]), (
            (model(x[None])[0].argmax(-1) == x) * w).sum())
        for x, w in zip(X, W, strict=True)
    ]  # fmt: skip
    total = sum(n for n, *_ in each)
    measured = model.evaluate(X, X, batch_size=4, sample_weight=W)
    assert measured["loss"] == pytest.approx(sum(n * v for n, v, _ in each) / total, rel=1e-12)
    assert measured["accuracy"] == pytest.approx(sum(hits for *_, hits in each) / total)
    x, lengths = padded(X, -1)
    w, _ = padded(W, np.nan)
    np.testing.assert_array_equal(model(x, lengths=lengths), model.predict(x, lengths=lengths))
    again = model.evaluate(x, x, batch_size=4, lengths=lengths, sample_weight=w)
    assert again == pytest.approx(measured, rel=1e-13)
    rows = rng.uniform(0.5, 2, 6)
    of_rows = model.evaluate(X, X, sample_weight=rows)
    of_steps = model.evaluate(
        X, X, sample_weight=[np.full(len(a), r) for a, r in zip(X, rows, strict=True)]
    )
    assert of_rows == pytest.approx(of_steps, rel=1e-13)

    class Column:  # as from pandas, whose rows are labelled: 0 need not be a label
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array(rows, dtype)

    assert model.evaluate(X, X, sample_weight=Column()) == of_rows


@pytest.mark.parametrize("even", [True, False])
def test_truncated_backpropagation(even: bool, rng: np.random.Generator) -> None:
    """Against a loop by hand, which omits rows that have ended."""
    lengths = np.array([9, 9, 9]) if even else np.array([9, 3, 7])
    X = [rng.integers(0, V, n) for n in lengths]
    model, own = tokens_model(), tokens_model()
    model.compile(optim.SGD(0.5), "cross_entropy")
    model.fit(X, X, epochs=2, batch_size=3, bptt=4, shuffle=False, verbose=0)
    sgd = optim.SGD(0.5)
    for _ in range(2):
        state, rows = None, np.arange(3)
        for t in range(0, 9, 4):
            if state is not None:
                on = np.flatnonzero(lengths[rows] > t)
                rows = rows[on]
                state = [
                    tuple(s[:, on] for s in of) if isinstance(of, tuple) else of[:, on]
                    for of in state
                ]
            x, n = padded([X[r][t : t + 4] for r in rows], 0)
            y, tape = own.forward(x, state, lengths=n)
            state = tape.state
            _, dy = losses.cross_entropy.value_and_grad(y, x, np.arange(x.shape[1]) < n[:, None])
            sgd.step(own.parameters(), own.backward(tape, dy)[1])
    np.testing.assert_allclose(weights(model), weights(own), rtol=1e-11, atol=1e-13)


def test_stateful_goes_on_where_it_was(rng: np.random.Generator) -> None:
    """Two streams cut into three pieces and stacked: the same as the streams with bptt."""
    streams = rng.integers(0, V, (2, 12))
    X = np.concatenate(np.split(streams, 3, axis=1))
    one, two = tokens_model(), tokens_model()
    for model in (one, two):
        model.compile("adam", "cross_entropy")
    a = one.fit(X, X, epochs=3, batch_size=2, stateful=True, verbose=0)
    b = two.fit(streams, streams, epochs=3, batch_size=2, bptt=4, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(one), weights(two))
    assert a.history == b.history


def test_shuffling_is_fair_and_seeded(rng: np.random.Generator) -> None:
    from fastrnn.models.data import Data
    from fastrnn.models.network import Network

    model = tokens_model()
    data = Data.of(Network(model.layers).signature, ragged(rng, 100))
    seen = []
    for _ in range(200):
        batches = data.rows(8, rng)
        assert sorted(np.concatenate(batches)) == list(range(100))
        assert sorted(map(len, batches)) == [4] + [8] * 12
        seen.append(next(i for i, batch in enumerate(batches) if 0 in batch))
    # The place of a sequence in an epoch is random: 13 places, the mean within 5 sigma.
    assert abs(np.mean(seen) - 6) < 5 * (13**2 / 12 / 200) ** 0.5
    lengths = data.lengths
    padding = sum(len(b) * lengths[b].max() for b in batches) / lengths.sum()
    assert padding < 1.15


def test_seeds() -> None:
    assert (weights(tokens_model(3)) == weights(tokens_model(3))).all()
    assert (weights(tokens_model(3)) != weights(tokens_model(4))).all()
    assert (weights(tokens_model(None)) != weights(tokens_model(None))).all()
    own, loaded = Linear(F, 2, seed=5), Linear(2, 2)
    loaded.load_state_dict({"weight": np.eye(2), "bias": np.ones(2)})
    initial = RNN(2, 4, init="identity")
    model = Sequential([own, loaded, initial], seed=0)
    assert (own.parameters()["weight"] == Linear(F, 2, seed=5).parameters()["weight"]).all()
    assert (loaded.parameters()["weight"] == np.eye(2)).all()
    assert (model.parameters()["2.weight_hh_l0"] == np.eye(4)).all()
    assert abs(model.parameters()["2.weight_ih_l0"]).max() < 0.01
    # Layers used in another model: weights are drawn again unless they were trained.
    drawn = Sequential([fresh := Linear(2, 3)], seed=1).state_dict()["0.weight"]
    assert (Sequential([fresh], seed=2).state_dict()["0.weight"] != drawn).any()
    assert (Sequential([fresh], seed=1).state_dict()["0.weight"] == drawn).all()
    fresh.parameters()["weight"][1] = 7
    kept = fresh.state_dict()["weight"]
    assert (Sequential([fresh], seed=2).state_dict()["0.weight"] == kept).all()

    class Seedless(RNN):
        def __init__(self) -> None:
            super().__init__(2, 3)

    Sequential([Seedless()], seed=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_dropout_and_order_follow_the_seed(seed: int, rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((20, 4, F)), rng.standard_normal(20)

    def trained(seed: int) -> np.ndarray:
        layers = [
            GRU(F, 4, num_layers=2, dropout=0.2), Dropout(0.5), LSTM(4, 4, return_sequences=False),
            Linear(4, 1),
        ]  # fmt: skip
        model = Sequential(layers, seed=seed)
        model.compile("adam", "mse")
        model.fit(X, y, batch_size=4, verbose=0)
        return weights(model)

    assert (trained(seed) == trained(seed)).all()
    assert (trained(seed) != trained(seed + 1)).any()


# Validation, metrics, the end of a training.


def test_validation(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((10, 4, F)), rng.standard_normal(10)
    w = rng.uniform(1, 2, 10)
    histories = []
    for options in (
        {"validation_split": 0.3},
        {"validation_data": (X[7:], y[7:], w[7:])},
        {"validation_data": {"X": X[7:], "y": y[7:], "sample_weight": w[7:]}},
    ):
        n = 10 if "validation_split" in options else 7
        model = sums_model()
        model.compile("adam", "mae")
        history = model.fit(X[:n], y[:n], epochs=2, sample_weight=w[:n], verbose=0, **options)
        histories.append(history.history)
        expected = model.evaluate(X[7:], y[7:], sample_weight=w[7:])["loss"]
        assert history.history["val_loss"][-1] == expected
    assert histories[0] == histories[1] == histories[2]


def test_metrics(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((9, 4, F)), rng.standard_normal((9, 1))
    model = sums_model()

    def worst(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_true.shape == y_pred.shape == (9,)
        return float(abs(y_pred - y_true).max())

    model.compile("sgd", "huber", ["mse", losses.mae, worst])
    measured = model.evaluate(X, y, batch_size=4)
    d = model.predict(X) - y
    assert measured["mse"] == pytest.approx((d**2).mean())
    assert measured["mae"] == pytest.approx(abs(d).mean())
    assert measured["worst"] == pytest.approx(abs(d).max())
    model.compile("sgd", "binary_cross_entropy", ["accuracy"])
    right = (model.predict(X) > 0) == (y > 0)
    assert model.evaluate(X, y > 0)["accuracy"] == pytest.approx(right.mean())
    model = tokens_model()
    tokens = ragged(rng, 5)

    def size(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_pred.shape == (len(y_true), V)
        return len(y_true)

    def whole(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        """Count sequences without any error; depends on the order (N, T)."""
        return float((y_pred.argmax(-1) == y_true).all(axis=1).sum())

    even = rng.integers(0, V, (3, 7))
    targets = model.predict(even).argmax(-1)
    targets[[0, 2], [3, 5]] += 1
    targets %= V
    model.compile("sgd", "cross_entropy", [whole])
    assert model.evaluate(even, targets)["whole"] == 1

    model.compile("sgd", "cross_entropy", ["accuracy", size])
    measured = model.evaluate(tokens, tokens)
    hits = np.concatenate([model.predict([x])[0].argmax(-1) == x for x in tokens])
    assert measured["accuracy"] == pytest.approx(hits.mean())
    assert measured["size"] == len(hits)


def test_metrics_are_of_all_the_data(rng: np.random.Generator, expect_equal: Any) -> None:
    """Not means of batches: in evaluation, validation and training, in the order of the data."""
    X, y = rng.standard_normal((11, 4, F)), rng.standard_normal(11)
    seen: list[Any] = []

    def r2(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        seen.append((y_true, y_pred))
        return float(1 - ((y_true - y_pred) ** 2).sum() / ((y_true - y_true.mean()) ** 2).sum())

    model = sums_model()
    model.compile(optim.SGD(0.0), "mse", [r2, "mae"])  # the weights stay as they are
    expected = r2(y, model.predict(X)[:, 0])
    weight = np.array([1, 1, 0, 2, 1, 1, 1, 1, 0, 1, 1.0])
    history = model.fit(
        X, y, epochs=2, batch_size=4, validation_data=(X, y), shuffle=False, verbose=0
    )
    assert list(history.history) == ["loss", "r2", "mae", "val_loss", "val_r2", "val_mae"]
    for name in ("r2", "val_r2"):
        assert history.history[name] == pytest.approx([expected] * 2, rel=1e-12)
    some = model.evaluate(X, y, batch_size=3, sample_weight=weight)["r2"]
    assert some == pytest.approx(r2(y[weight > 0], model.predict(X)[weight > 0, 0]), rel=1e-12)
    ragged = [x[: 1 + i % 4] for i, x in enumerate(X)]
    seen.clear()
    model.evaluate(ragged, y, batch_size=3)
    np.testing.assert_array_equal(seen[0][0], y)
    expect_equal(seen[0][1], model.predict(ragged)[:, 0])


@pytest.mark.parametrize("bptt", [None, 3])
def test_metrics_per_step(bptt: int | None, rng: np.random.Generator) -> None:
    shapes: list[Any] = []

    def hits(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        shapes.append((y_true.shape, y_pred.shape))
        return float((y_pred.argmax(-1) == y_true).mean())

    model = tokens_model()
    model.compile(optim.SGD(0.0), "cross_entropy", [hits, "accuracy"])
    even, uneven = rng.integers(0, V, (5, 6)), ragged(rng, 5)
    total = sum(map(len, uneven))
    for data, shape in ((even, (30,) if bptt else (5, 6)), (uneven, (total,))):
        shapes.clear()
        logs = model.fit(data, data, batch_size=2, bptt=bptt, verbose=0).last
        assert shapes == [(shape, (*shape, V))]
        assert logs["hits"] == pytest.approx(logs["accuracy"], rel=1e-12)
        assert model.evaluate(data, data)["hits"] == pytest.approx(logs["hits"], rel=1e-12)


def test_metrics_that_are_no_metrics(rng: np.random.Generator) -> None:
    model = sums_model()

    def backwards(output: Any, target: Any) -> float:
        return 0.0

    def pairs(y_true: Any, y_pred: Any) -> Any:
        return y_true, y_pred

    told = (
        r"metrics: expected backwards\(y_true, y_pred\), as in .*, got backwards\(output, target\)"
    )
    with pytest.raises(ValueError, match=told):
        model.compile("sgd", "mse", [backwards])
    model.compile("sgd", "mse", [pairs])
    with pytest.raises(
        TypeError, match=r"expected pairs\(y_true, y_pred\) to return a number, got"
    ):
        model.evaluate(np.zeros((2, 3, F)), np.zeros(2))
    model.compile("sgd", "mse", None)
    assert model.metrics == ()


def test_nan_is_an_error_that_says_where(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((10, 4, F)), rng.standard_normal(10)
    y[7] = np.nan
    model = sums_model()
    model.compile("sgd", "mse")
    before = weights(model)
    with pytest.raises(ValueError, match="loss became nan in epoch 1, batch 1; look for NaN"):
        model.fit(X, y, verbose=0)
    assert (weights(model) == before).all()
    model.compile(optim.SGD(1e300), "mse")
    with pytest.raises(ValueError, match=r"fit: the loss became (inf|nan) in epoch \d, batch 1"):
        model.fit(X[:7], y[:7], epochs=9, verbose=0)
    assert model.history is not None
    assert 1 <= len(model.history.history["loss"]) < 9


def test_ctrl_c_keeps_what_there_is(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((10, 4, F)), rng.standard_normal(10)
    model = sums_model()
    model.compile("sgd", "mse")

    class Impatient(fastrnn.callbacks.Callback):
        ended = False

        def on_train_batch_begin(self, batch: int, logs: Any) -> None:
            if len(self.model.history.epoch) == 2 and batch == 1:
                raise KeyboardInterrupt

        def on_train_end(self, logs: Any) -> None:
            self.ended = True

    impatient = Impatient()
    history = model.fit(X, y, epochs=5, batch_size=4, callbacks=[impatient], verbose=0)
    assert history.interrupted
    assert impatient.ended
    assert len(history.history["loss"]) == 2
    assert not model.fit(X, y, verbose=0).interrupted


def test_modes_are_as_they_were(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((4, 4, F)), rng.standard_normal(4)
    model = Sequential([Dropout(0.5), *sums_model().layers]).eval()
    assert not any(layer.training for layer in model.layers)
    model.compile("sgd", "mse")
    model.fit(X, y, verbose=0)
    assert not any(layer.training for layer in (model, *model.layers))
    model.layers[1].train()
    model.fit(X, y, verbose=0)
    assert [layer.training for layer in model.layers] == [False, True, False]
    np.testing.assert_array_equal(model.predict(X), model.predict(X))


# Streams.


@pytest.mark.parametrize("batch_size", [1, 3])
def test_stream_is_the_model_step_by_step(
    batch_size: int, compiled: str, dtype: np.dtype, rng: np.random.Generator
) -> None:
    """Bit for bit; so is a row alone as in a batch, whatever the lengths."""
    kind = {"dtype": dtype}
    layers = [
        Embedding(V, 37, **kind), Linear(37, 11, **kind), GRU(11, 35, num_layers=2, **kind),
        Dropout(0.5), LSTM(35, 33, proj_size=19, **kind), Linear(19, 45, **kind),
    ]  # fmt: skip
    model = Sequential(layers, seed=0)
    x = rng.integers(0, V, (batch_size, 7))
    y = model.predict(x)
    np.testing.assert_array_equal(model(x), y)
    for n in range(batch_size):
        np.testing.assert_array_equal(model.predict(x[n : n + 1]), y[n : n + 1])
    cut = model.predict([row[: 7 - n] for n, row in enumerate(x)])
    for n, of_row in enumerate(cut):
        np.testing.assert_array_equal(of_row, y[n, : 7 - n])
    stream = model.stream(batch_size)
    for t in range(4):
        np.testing.assert_array_equal(stream.step(x[:, t]), y[:, t])
    kept = stream.state
    out = np.empty((batch_size, 45), dtype)
    assert stream.step(x[:, 4], out=out) is out
    np.testing.assert_array_equal(out, y[:, 4])
    stream.state = kept
    np.testing.assert_array_equal(stream.step(x[:, 4]), y[:, 4])
    stream.reset(0)
    np.testing.assert_array_equal(stream.step(x[:, 0])[0], y[0, 0])
    stream.reset()
    model.parameters()["5.bias"][...] += 1  # a changed weight takes effect
    np.testing.assert_allclose(stream.step(x[:, 0]), y[:, 0] + 1, rtol=1e-5)


def test_stream_of_one_row_and_what_it_refuses(rng: np.random.Generator) -> None:
    model = sums_model(cell=LSTM)
    x = rng.standard_normal((1, 3, F))
    stream = model.stream()
    for t in range(3):
        y = stream.step(x[0, t])
    assert y.shape == (1,)
    np.testing.assert_allclose(y, model(x)[0], rtol=1e-13)
    assert tokens_model().stream().step(3).shape == (V,)
    with pytest.raises(ValueError, match=r"x_t: expected shape \(3,\), got \(2,\)"):
        stream.step(np.zeros(2))
    with pytest.raises(ValueError, match=r"x_t: expected whole numbers in 0\.\.6, got 7"):
        tokens_model().stream().step(7)
    with pytest.raises(ValueError, match=r"out: expected shape \(1,\), got \(2,\)"):
        stream.step(x[0, 0], out=np.empty(2))
    with pytest.raises(ValueError, match="state: expected a list of 1"):
        stream.state = []
    before = stream.state
    with pytest.raises(ValueError, match="state"):
        stream.state = [(np.zeros(3), np.zeros(3))]
    np.testing.assert_equal(stream.state, before)
    with pytest.raises(ValueError, match="stream: expected a unidirectional layer"):
        sums_model(bidirectional=True).stream()


# Summaries, copies.


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    layers = [Embedding(V, 4), LSTM(4, 5, bidirectional=True), GRU(10, 6, return_sequences=False)]
    Sequential([*layers, Dropout(0.5), Linear(6, 2)]).summary()
    assert capsys.readouterr().out.splitlines() == [
        "Layer                                  Output      Parameters",
        "0  Embedding(7, 4)                     (B, T, 4)           28",
        "1  LSTM(4, 5, bidirectional=True)      (B, T, 10)         440",
        "2  GRU(10, 6, return_sequences=False)  (B, 6)             324",
        "3  Dropout(p=0.5)                      (B, 6)               0",
        "4  Linear(6, 2)                        (B, 2)              14",
        "                                                          806",
    ]


def test_repr_and_copies(rng: np.random.Generator) -> None:
    model = sums_model()
    assert repr(model) == (
        "Sequential(\n"
        "  (0): RNN(3, 8, return_sequences=False, dtype=float64)\n"
        "  (1): Linear(8, 1, dtype=float64)\n"
        ")"
    )
    X, y = rng.standard_normal((10, 4, F)), rng.standard_normal(10)
    model.compile("adam", "mse", ["mae"])
    model.fit(X, y, epochs=2, batch_size=4, verbose=0)
    twins = [pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    history = model.fit(X, y, epochs=2, batch_size=4, verbose=0)
    for twin in twins:
        assert twin.fit(X, y, epochs=2, batch_size=4, verbose=0).history == history.history
        np.testing.assert_array_equal(weights(twin), weights(model))


# Errors.


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (lambda: [], ValueError, "layers: expected one or more with weights"),
        (lambda: Linear(2, 3), TypeError, "layers: expected a list, got Linear"),
        (lambda: ["lstm"], TypeError, r"layers\[0\]: expected one of .*, got str"),
        (lambda: [Dropout(0.5)], ValueError, "layers: expected one or more with weights"),
        (
            lambda: [Linear(2, 3), RNN(4, 2)],
            ValueError,
            r"layers\[1\]: expected an input size of 3",
        ),
        (
            lambda: [Linear(2, 3), Embedding(3, 3)],
            ValueError,
            r"layers\[1\]: .* Embedding .* first",
        ),
        (lambda: [Linear(2, 3), 3], TypeError, r"layers\[1\]: expected one of .*, got int"),
        (lambda: [Linear(2, 3), fastrnn.LSTMCell(3, 3)], TypeError, "got LSTMCell"),
        (
            lambda: [Linear(2, 2)] * 2,
            ValueError,
            r"layers\[1\]: expected distinct layers, got one twice",
        ),
        (
            lambda: [Linear(2, 2), RNN(2, 2, **F64)],
            ValueError,
            "one dtype, got float32 and float64",
        ),
        (
            lambda: [RNN(2, 2, return_sequences=False), RNN(2, 2)],
            ValueError,
            r"layers\[1\]: expected return_sequences=True",
        ),
    ],
)
def test_layers_are_checked(layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Sequential(layers())


X34, Y3 = np.zeros((3, 4, F)), np.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": np.zeros((3, 4))}, ValueError, r"X: expected shape \(N, T, 3\)"),
        ({"X": np.zeros((0, 4, F))}, ValueError, "X: expected one sequence or more, got none"),
        ({"X": np.zeros((3, 0, F))}, ValueError, r"X: expected shape \(N, T, 3\) .*T >= 1"),
        ({"X": []}, ValueError, "X: expected one sequence or more"),
        ({"X": [np.zeros((2, F)), np.zeros((0, F)), Y3]}, ValueError, r"X\[1\]: expected shape"),
        ({"X": [X34[0]] * 3, "lengths": [1, 2, 3]}, ValueError, "lengths: expected None with a li"),
        ({"lengths": [1, 2, 5]}, ValueError, r"lengths: expected whole numbers in 1\.\.4, got 5"),
        ({"y": np.zeros(4)}, ValueError, r"y: expected shape \(3, 1\), got \(4,\)"),
        ({"y": None}, TypeError, "y: expected an array of real numbers"),
        ({"epochs": 0}, ValueError, "epochs: expected"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected a whole number"),
        ({"validation_split": 1.0}, ValueError, "validation_split: expected a number in"),
        ({"validation_split": 0.01}, ValueError, "validation_split: expected some of 3 seq"),
        ({"validation_split": 0.5, "validation_data": (X34, Y3)}, ValueError, "validation_split"),
        ({"validation_data": X34}, ValueError, "validation_data: expected"),
        ({"validation_data": {"X": X34}}, ValueError, "validation_data: expected"),
        ({"validation_data": (X34[..., 1:], Y3)}, ValueError, "validation_data X: expected shape"),
        ({"verbose": 3}, ValueError, "verbose: expected 0, 1 or 2, got 3"),
        ({"sample_weight": [1, 1]}, ValueError, r"sample_weight: expected shape \(3,\)"),
        ({"sample_weight": [1, 1, -1]}, ValueError, "sample_weight: expected finite numbers >= 0"),
        ({"sample_weight": 3.0}, TypeError, "sample_weight: expected an array or a list, got 3.0"),
        ({"bptt": 2}, ValueError, "bptt: expected None"),
        ({"stateful": True, "batch_size": 2}, ValueError, "stateful: expected .* batch_size=2"),
        ({"stateful": True, "lengths": [1, 2, 3]}, ValueError, "stateful: .* differing lengths"),
        ({"callbacks": "x"}, TypeError, "callbacks: expected a list"),
        ({"callbacks": [print]}, TypeError, r"callbacks\[0\]: expected a Callback, got builtin"),
        (
            {"callbacks": [Callback]},
            TypeError,
            r"got the class itself: pass Callback\(",
        ),
    ],
)
def test_fit_checks(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = sums_model()
    with pytest.raises(ValueError, match="compile"):
        model.fit(X34, Y3)
    model.compile("sgd", "mse")
    with pytest.raises(error, match=message):
        model.fit(**{"X": X34, "y": Y3, "verbose": 0, **arguments})


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        ([[1, 2], [3]], [[1, 2]], ValueError, "y: expected 2 sequences as in X, got 1"),
        ([[1, 2], [3]], [[1, 2], [3, 4]], ValueError, r"y\[1\]: expected shape \(1,\), got \(2,\)"),
        ([[1, 2], [7]], [[1, 2], [3]], ValueError, r"X\[1\]: expected whole numbers in 0\.\.6"),
        ([[1, 2], [3]], [[1, 2], [9]], ValueError, r"y: expected whole numbers in 0\.\.6"),
        ([[1, 2], [3]], [[1, 2], [0.5]], TypeError, "y: expected an array of whole numbers"),
        ([[1.0, 2.0]], [[1, 2]], TypeError, r"X\[0\]: expected an array of whole numbers"),
        ([[1, 2], [3, 4]], [[1, 2], [3]], ValueError, "y: expected an array, got a ragged"),
    ],
)
def test_targets_per_step_are_checked(X: Any, y: Any, error: type[Exception], message: str) -> None:
    model = tokens_model()
    model.compile("sgd", "cross_entropy")
    with pytest.raises(error, match=message):
        model.evaluate(X, y)


@pytest.mark.parametrize("form", ["array", "list"])
def test_targets_with_and_without_steps(form: str, rng: np.random.Generator) -> None:
    """Where they differ from the outputs by the axis of time, the error says so."""
    X: Any = [rng.standard_normal((n, F)) for n in (4, 2, 3)]
    per_step: Any = [np.zeros(len(x)) for x in X]
    if form == "array":
        X, per_step = np.zeros((3, 4, F)), np.zeros((3, 4))
    one = sums_model()
    each = Sequential([RNN(F, 8, **F64), Linear(8, 1, **F64)], seed=0)
    for model in (one, each):
        model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"y: .*; for targets of each .* return_sequences=True"):
        one.fit(X, per_step, verbose=0)
    for y in (np.zeros(3), [0.0, 1.0, 2.0], np.zeros((3, 1))):
        with pytest.raises(ValueError, match=r"y.*; for one target .* return_sequences=False"):
            each.fit(X, y, verbose=0)
    with pytest.raises(ValueError, match=r"y: expected shape \(3, 1\), got \(3, 7\)$"):
        one.fit(X, np.zeros((3, 7)), verbose=0)


def test_targets_of_classes(rng: np.random.Generator) -> None:
    model = tokens_model()
    model.compile("sgd", "cross_entropy")
    x = rng.integers(0, V, (3, 5))
    assert model.evaluate(x, x[..., None]) == model.evaluate(x, x)
    uneven = ragged(rng, 3)
    assert model.evaluate(uneven, [t[:, None] for t in uneven]) == model.evaluate(uneven, uneven)
    for X, one_hot in ((x, np.eye(V)[x]), (uneven, [np.eye(V)[t] for t in uneven])):
        with pytest.raises(ValueError, match=r"one-hot rows, shape .*: pass y\.argmax\(-1\)"):
            model.evaluate(X, one_hot)
    with pytest.raises(ValueError, match="soft labels are not supported"):
        model.evaluate(x, np.full((3, 5, V), 1 / V))


def test_compile_checks() -> None:
    model = sums_model()
    for arguments, error, message in [
        (("adem",), ValueError, "optimizer: expected one of"),
        (("sgd", "msa"), ValueError, "loss: expected one of"),
        (("sgd", "mse", "mae"), TypeError, "metrics: expected a list"),
        (("sgd", "mse", ["accuracy"]), ValueError, "metrics: expected a classification loss"),
        (
            ("sgd", "mse", ["cross_entropy"]),
            ValueError,
            "metrics: cross_entropy takes other targets",
        ),
        (("sgd", "mse", ["nonsense"]), ValueError, "metrics: expected 'accuracy'"),
        (("sgd", "mse", ["mae", losses.mae]), ValueError, "metrics: expected distinct names"),
        (("sgd", "mse", [3]), TypeError, "metrics: expected names or functions, got int"),
    ]:
        with pytest.raises(error, match=message):
            model.compile(*arguments)
        assert model.loss is None


# Habits from Keras.


def test_epochs_from_another_than_the_first(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((6, 4, F)), rng.standard_normal(6)
    whole, parts = sums_model(), sums_model()
    for model in (whole, parts):
        model.compile(optim.Adam(optim.CosineDecay(0.1, 10)), "mse")
    options = {"batch_size": 3, "shuffle": False, "verbose": 0}
    expected = whole.fit(X, y, epochs=5, callbacks=None, **options)
    assert parts.fit(X, y, epochs=2, **options).epoch == [0, 1]
    history = parts.fit(X, y, epochs=5, initial_epoch=2, **options)
    assert history.epoch == [2, 3, 4]
    assert history.history["loss"] == expected.history["loss"][2:]
    np.testing.assert_array_equal(weights(parts), weights(whole))
    assert parts.fit(X, y, epochs=5, initial_epoch=5, **options).epoch == []
    with pytest.raises(ValueError, match="initial_epoch: expected at most epochs=5, got 6"):
        parts.fit(X, y, epochs=5, initial_epoch=6, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'workers'"):
        parts.fit(X, y, workers=2)  # type: ignore[call-arg]


def test_validation_in_batches_of_its_own(rng: np.random.Generator) -> None:
    X, y = rng.standard_normal((9, 4, F)), rng.standard_normal(9)
    sizes: list[int] = []

    def size(z: np.ndarray, t: np.ndarray, w: Any) -> float:
        sizes.append(len(z))
        return 0.0

    model = sums_model()
    model.compile("sgd", "mse", ["mae"])
    assert model._objective is not None
    model._objective.metrics["mae"] = size  # type: ignore[index]
    options = {"validation_split": 5 / 9, "batch_size": 4, "verbose": 0}
    model.fit(X, y, **options, validation_batch_size=2)
    model.fit(X, y, **options)
    assert sizes == [4, 2, 2, 1, 4, 4, 1]


def test_resets_of_a_stream_are_checked(rng: np.random.Generator) -> None:
    for layers in ([GRU(F, 4)], [Linear(F, 4)]):
        stream = Sequential(layers).stream(3)
        stream.step(rng.standard_normal((3, F)))
        for rows in (None, 2, [0, 2], [True, False, True], np.zeros(3, bool)):
            stream.reset(rows)
        for wrong in ([1, 0, 0], 3, [True, False], "0", 0.5):
            with pytest.raises((ValueError, TypeError), match=r"rows: .* row numbers .* booleans"):
                stream.reset(wrong)


def test_evaluation_and_prediction_show_progress(
    rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = rng.standard_normal((6, 4, F)), rng.standard_normal(6)
    model = sums_model()
    model.compile("sgd", "mse", ["mae"])
    batches = [(X[:3], y[:3]), (X[3:], y[3:])]
    silent = model.evaluate(X, y), model.predict(X)
    assert capsys.readouterr() == ("", "")
    for verbose in (1, 2):
        assert model.evaluate(X, y, verbose=verbose) == silent[0]
        np.testing.assert_array_equal(model.predict(X, verbose=verbose), silent[1])
        model.evaluate(batches, verbose=verbose)
        model.predict(iter(batches), verbose=verbose)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split()[0] for line in lines] == ["evaluation", "prediction"] * 2
        assert "loss " in lines[0]
        assert "mae " in lines[0]
        assert all(line.endswith(" seq/s") for line in lines)
    with pytest.raises(ValueError, match="verbose: expected 0, 1 or 2, got 3"):
        model.predict(X, verbose=3)
