"""Batches of iterables, in training, validation, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn import GRU, Dropout, Embedding, Linear, Sequential, optim
from fastrnn.callbacks import Callback, Checkpoint, EarlyStopping

V, F = 6, 3
F64: dict[str, Any] = {"dtype": np.float64}


def net(steps: bool = False, outputs: int = 1, loss: str = "mse", **options: Any) -> Sequential:
    layers = [GRU(F, 4, return_sequences=steps, **F64), Linear(4, outputs, **F64)]
    model = Sequential(layers, seed=0)
    model.compile(optim.Adam(0.01), loss, **options)
    return model


def weights(model: Sequential) -> np.ndarray:
    return np.concatenate([p.ravel() for p in model.parameters().values()])


class Loader:
    """Restarts with each pass, as torch's ``DataLoader``, whose batches are lists."""

    def __init__(self, *arrays: Any, size: int = 4) -> None:
        self.arrays, self.size, self.passes = arrays, size, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        for i in range(0, len(self.arrays[0]), self.size):
            yield [a[i : i + self.size] for a in self.arrays]


class PyDataset:
    """As Keras's: has no ``__iter__``, and its ``__getitem__`` never ends."""

    def __init__(self, *arrays: Any, size: int = 4) -> None:
        self.arrays, self.size, self.ended = arrays, size, 0

    def __len__(self) -> int:
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, i: int) -> Any:
        return tuple(a[i * self.size : (i + 1) * self.size] for a in self.arrays)

    def on_epoch_end(self) -> None:
        self.ended += 1


class Tensor:
    """As torch's, for NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.array


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.standard_normal((11, 5, F)), rng.standard_normal(11), rng.uniform(0.5, 2, 11)


def test_the_same_bits_as_from_arrays(data: Any) -> None:
    X, y, w = data
    whole = net(metrics=["mae"])
    options = {"epochs": 3, "verbose": 0}
    expected = whole.fit(
        X, y, batch_size=4, shuffle=False, sample_weight=w, validation_data=data, **options
    )

    def generator() -> Iterator[Any]:
        for i in range(0, 11, 4):
            part = slice(i, i + 4)
            yield {"X": Tensor(X[part]), "y": y[part], "sample_weight": w[part]}

    def endless() -> Iterator[Any]:
        while True:
            yield from generator()

    listed = [tuple(a[i : i + 4] for a in data) for i in range(0, 11, 4)]
    for given, more in (
        (Loader(*data), {"steps_per_epoch": 3}),
        (Loader(*data), {}),
        (PyDataset(*data), {}),
        (generator, {}),
        (listed, {}),
        (endless(), {"steps_per_epoch": 3}),
    ):
        model = net(metrics=["mae"])
        for held, steps in ((given, None), (endless(), 3)):
            if more and held is given:
                held, steps = Loader(*data), None
            model = net(metrics=["mae"])
            start = endless() if isinstance(given, Iterator) else given
            history = model.fit(
                start, **more, validation_data=held if not isinstance(held, list) else data,
                validation_steps=steps, validation_batch_size=4, **options,
            ).history  # fmt: skip
            assert list(history) == list(expected.history)
            for name, values in expected.history.items():
                np.testing.assert_allclose(history[name], values, rtol=1e-13)
            np.testing.assert_array_equal(weights(model), weights(whole))
    of_arrays = whole.evaluate(X, y, sample_weight=w)
    for given in (Loader(*data), PyDataset(*data), generator, generator(), listed):
        assert whole.evaluate(given) == pytest.approx(of_arrays, rel=1e-13)
    assert whole.evaluate(endless(), steps=3) == pytest.approx(of_arrays, rel=1e-13)


def test_epochs_of_some_steps_go_on(data: Any) -> None:
    X, y, _ = data
    loader, dataset = Loader(X, y), PyDataset(X, y)
    one, two = net(), net()
    one.fit(loader, epochs=4, steps_per_epoch=2, verbose=0)  # 8 batches of passes of 3
    assert loader.passes == 3
    rows = [slice(0, 4), slice(4, 8), slice(8, 12)]
    for r in [*rows, *rows, *rows[:2]]:
        two.fit(X[r], y[r], shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(one), weights(two))
    net().fit(dataset, epochs=3, verbose=0)
    assert dataset.ended == 3


def test_progress_is_known_as_far_as_it_can_be(data: Any) -> None:
    seen: list[Any] = []

    class Told(Callback):
        def on_train_begin(self, logs: Any) -> None:
            seen.append(self.params)

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            seen.append((self.progress.batch, self.progress.sequences, self.progress.done))

    for given, steps in ((PyDataset(*data), 3), (Loader(*data), None)):
        seen.clear()
        net().fit(given, epochs=2, callbacks=[Told()], verbose=0)
        assert seen == [{"epochs": 2, "samples": None, "steps": steps}, *[(3, 11, 1.0)] * 2]


def test_ragged_batches_and_pieces(rng: np.random.Generator, expect_equal: Any) -> None:
    X = [rng.integers(0, V, n) for n in (4, 2, 6, 3, 3)]

    def tokens() -> Sequential:
        made = Sequential([Embedding(V, 3), Dropout(0.2), GRU(3, 4), Linear(4, V)], seed=0)
        made.compile("adam", "cross_entropy", ["accuracy"])
        return made

    batches = [(X[:2], X[:2]), (X[2:], X[2:])]
    one, two = tokens(), tokens()
    options = {"epochs": 2, "bptt": 2, "verbose": 0}
    a = one.fit(batches, class_weight={0: 3}, **options)
    weighed = [[np.where(x == 0, 3, 1) for x in of] for of, _ in batches]
    b = two.fit([(*pair, w) for pair, w in zip(batches, weighed, strict=True)], **options)
    np.testing.assert_array_equal(weights(one), weights(two))
    assert a.history["loss"] == b.history["loss"]
    outputs = one.predict(iter([X[:2], (X[2:], X[2:])]))
    for y, expected in zip(outputs, one.predict(X), strict=True):
        expect_equal(y, expected)


@pytest.mark.parametrize("steps", [False, True])
def test_prediction(steps: bool, data: Any) -> None:
    X, y, w = data
    model = net(steps)
    expected = model.predict(X)
    for given in (Loader(X), Loader(X, y), PyDataset(X, y, w), iter([X[:5], X[5:]]), lambda: [X]):
        np.testing.assert_array_equal(model.predict(given), expected)
    np.testing.assert_array_equal(model.predict(Loader(X), steps=2), expected[:8])
    pairs = Loader([X[0], X[1, :3]], size=2)  # a batch that is a list of two sequences
    for got, want in zip(model.predict(pairs), model.predict(pairs.arrays[0]), strict=True):
        np.testing.assert_array_equal(got, want)


def test_an_iterator_that_ends_too_early(data: Any) -> None:
    X, y, _ = data
    model = net()
    with pytest.warns(RuntimeWarning, match="X: ended after 1 of 2 batches"):
        history = model.fit(iter(Loader(X, y)), epochs=5, steps_per_epoch=2, verbose=0)
    assert history.epoch == [0, 1]  # the second of one batch
    with pytest.warns(RuntimeWarning, match="X: ended after 0 of 1 batches"):
        history = model.fit(iter(Loader(X, y)), epochs=5, steps_per_epoch=1, verbose=0)
    assert history.epoch == [0, 1, 2]
    with pytest.warns(RuntimeWarning, match="X: ended after 3 of 4 batches"):
        model.evaluate(Loader(X, y), steps=4)
    assert not history.interrupted
    with pytest.warns(RuntimeWarning, match="validation_data: ended after 0 of 3 batches"):
        history = model.fit(
            X, y, epochs=2, validation_data=iter(Loader(X, y)), validation_steps=3, verbose=0
        )
    of_all, of_nothing = history.history["val_loss"]  # not 0, which would be the best ever
    assert of_all > 0
    assert np.isnan(of_nothing)


def test_an_iterator_that_a_function_returns_again(data: Any) -> None:
    X, y, _ = data
    once = iter(Loader(X, y))
    with pytest.raises(ValueError, match=r"X: .* in a later one; a function has to return a new"):
        net().fit(lambda: once, epochs=2, verbose=0)


def test_a_list_of_batches(data: Any) -> None:
    X, y, w = data
    options = {"batch_size": 6, "shuffle": False, "verbose": 0}
    expected = net().fit(X, y, sample_weight=w, validation_data=(X, y), **options).history
    pairs = [(X[:6], y[:6]), (X[6:], y[6:])]
    keyed = [
        {"X": a, "y": b, "sample_weight": c}
        for (a, b), c in zip(pairs, (w[:6], w[6:]), strict=True)
    ]
    got = net().fit(keyed, validation_data=pairs, verbose=0).history
    assert {name: pytest.approx(values) for name, values in expected.items()} == got


def test_checkpoints_at_the_end_of_epochs(data: Any, tmp_path: Any) -> None:
    X, y, _ = data
    whole, stop = net(), EarlyStopping("loss", patience=9)
    expected = whole.fit(Loader(X, y), epochs=4, callbacks=[stop], verbose=0)
    path = tmp_path / "c"
    for epochs in (2, 4):
        model = net()
        history = model.fit(
            Loader(X, y), epochs=epochs, callbacks=[Checkpoint(path), stop], verbose=0
        )
    assert history.history == expected.history
    np.testing.assert_array_equal(weights(model), weights(whole))
    with pytest.raises(ValueError, match="every: expected None where X gives batches"):
        net().fit(Loader(X, y), callbacks=[Checkpoint(path, every=2)], verbose=0)


def test_stateful_batches(data: Any) -> None:
    X, y = data[0][:10], data[0][:10, :, :1]
    one, two = net(steps=True), net(steps=True)
    one.fit(Loader(X, y, size=2), stateful=True, verbose=0)
    two.fit(X, y, batch_size=2, stateful=True, verbose=0)
    np.testing.assert_array_equal(weights(one), weights(two))
    with pytest.raises(ValueError, match="stateful: expected batches of one size"):
        one.fit(Loader(X, y, size=4), stateful=True, verbose=0)


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (iter, {}, ValueError, "steps_per_epoch: expected the number of batches, as X is an iter"),
        (iter, {"steps_per_epoch": 0}, ValueError, "steps_per_epoch: expected a whole number of"),
        (Loader, {"y": np.zeros(11)}, ValueError, "y: expected None where X gives batches"),
        (Loader, {"lengths": [1]}, ValueError, "lengths: expected None where X gives batches"),
        (Loader, {"sample_weight": [1]}, ValueError, "sample_weight: expected None where X gives"),
        (Loader, {"class_weight": "balanced"}, ValueError, "class_weight: expected None where X"),
        (Loader, {"validation_split": 0.5}, ValueError, "validation_split: expected 0 where X giv"),
        (Loader, {"validation_steps": 2}, ValueError, "validation_steps: expected None where val"),
        (Loader, {"validation_data": iter([()])}, ValueError, "validation_steps: expected the num"),
        (lambda *a: [], {}, ValueError, "X: expected one sequence or more, got none"),
        (lambda *a: iter([]), {"steps_per_epoch": 1}, ValueError, "X: expected one batch or more"),
        (lambda *a: lambda: iter([]), {}, ValueError, "X: expected one batch or more, got none"),
        (lambda *a: lambda: 3, {}, TypeError, "X: expected a function that returns an iterable of"),
        (lambda *a: lambda: [3], {}, ValueError, r"X, batch 1: expected \(X, y\), .*, got int"),
        (lambda X, y: [(X, y), (X, y[1:])], {}, ValueError, "X, batch 2: y: expected shape"),
    ],
)
def test_what_is_refused(
    make: Any, options: Any, error: type[Exception], message: str, data: Any
) -> None:
    X, y, _ = data
    given = make(Loader(X, y)) if make is iter else make(X, y)
    with pytest.raises(error, match=message):
        net().fit(given, epochs=2, verbose=0, **options)


def test_steps_are_for_batches(data: Any) -> None:
    X, y, _ = data
    for options in ({"steps_per_epoch": 2}, {"validation_steps": 2, "validation_split": 0.5}):
        with pytest.raises(ValueError, match=r"_(steps|epoch): expected None where .* not give"):
            net().fit(X, y, verbose=0, **options)
    with pytest.raises(ValueError, match="steps: expected None where X does not give batches"):
        net().evaluate(X, y, steps=2)
    with pytest.raises(ValueError, match="steps: expected None where X does not give batches"):
        net().predict(X, steps=2)
    with pytest.raises(ValueError, match="lengths: expected None where X gives batches"):
        net().predict(Loader(X), lengths=[2])
    with pytest.raises(ValueError, match=r"validation_data: expected .*, or what gives batches"):
        net().fit(X, y, validation_data=X, verbose=0)


def test_a_data_loader_of_torch(data: Any) -> None:
    torch = pytest.importorskip("torch")
    X, y, _ = data
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    loader = torch.utils.data.DataLoader(tensors, batch_size=4)
    one, two = net(), net()
    one.fit(loader, epochs=2, verbose=0)
    two.fit(X, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_array_equal(weights(one), weights(two))
    np.testing.assert_array_equal(one.predict(loader), two.predict(X))


def test_the_mean_of_nothing_is_no_best_loss() -> None:
    model = Sequential([GRU(2, 3, return_sequences=False), Linear(3, 1)])
    model.compile("adam", "mse", metrics=["mae"])
    X, y = np.ones((4, 3, 2)), np.ones(4)
    assert np.isnan(list(model.evaluate(X, y, sample_weight=np.zeros(4)).values())).all()
