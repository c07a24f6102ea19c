"""Training withstands arbitrary callbacks, and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Dropout, Embedding, Linear, Sequential, optim
from fastrnn.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    ProgressBar,
    ReduceLROnPlateau,
)

V = 6


def weights(model: Sequential) -> bytes:
    return b"".join(p.tobytes() for p in model.parameters().values())


def tokens_model() -> Sequential:
    model = Sequential([Embedding(V, 4), LSTM(4, 8), Dropout(0.1), Linear(8, 5)], seed=0)
    model.compile("adam", "cross_entropy", ["accuracy"])
    return model


def numbers_model(optimizer: Any = "adam") -> Sequential:
    model = Sequential([GRU(2, 4), Linear(4, 1)], seed=0)
    model.compile(optimizer, "mse")
    return model


@pytest.fixture
def tokens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, V, (24, 7)), rng.integers(0, 5, (24, 7))


@pytest.fixture
def numbers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((24, 7, 2)).astype(np.float32), rng.standard_normal((24, 7, 1))


class Act(Callback):
    """Does something once, in the middle of the first epoch."""

    def __init__(self, act: Callable[[Any], Any], at: int = 1) -> None:
        self.act, self.at = act, at

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if self.at == batch and self.progress.epoch == 0:
            self.act(self.model)


# Nothing stays behind.


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_a_training_stays_behind(
    terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    X = np.ones((64, 20, 16), np.float32)
    y = np.zeros((64, 1), np.float32)
    model = Sequential([LSTM(16, 64, return_sequences=False), Linear(64, 1)], seed=0)
    model.compile("adam", "mse")
    callbacks: list[Callback] = [
        EarlyStopping("val_loss", restore_best_weights=True),
        ReduceLROnPlateau("val_loss"),
        Checkpoint(tmp_path / "c"),
        ProgressBar(),
        Callback(),
    ]
    options = {"validation_split": 0.25, "callbacks": callbacks}
    model.fit(X, y, verbose=0, **options)  # imports, and what tqdm keeps
    gc.collect()
    gc.disable()
    try:
        (tmp_path / "c").unlink()
        model.fit(X, y, **options)
        data = [weakref.ref(a) for a in (X, y)]
        del X, y
        assert [ref() for ref in data] == [None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()
    for callback in callbacks:
        (tmp_path / "c").unlink(missing_ok=True)
        assert callback.model is model
        assert len(pickle.dumps(callback)) < 1000
        twin = copy.deepcopy(callback)
        assert not hasattr(twin, "model")
        model.fit(np.ones((8, 3, 16)), np.ones(8), verbose=0, validation_split=0.5,
                  callbacks=[twin])  # fmt: skip


def test_nothing_of_a_failed_training_stays_behind(numbers: Any, tmp_path: Path) -> None:
    keep = Checkpoint(tmp_path / "c")

    def fail(model: Any) -> None:
        raise RuntimeError("mine")

    X, y = (a.copy() for a in numbers)
    ref = weakref.ref(X)
    with pytest.raises(RuntimeError, match="mine"):
        numbers_model().fit(X, y, batch_size=8, callbacks=[keep, Act(fail)], verbose=0)
    assert keep.training is None
    del X, y
    assert ref() is None
    with pytest.raises(RuntimeError, match="Checkpoint: expected to be among the callbacks"):
        keep.on_epoch_end(0, {})


def test_progress_is_told(tokens: Any) -> None:
    told: list[tuple[int, ...]] = []

    class Tell(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            p = self.progress
            told.append((p.epoch, p.batch, p.sequences))
            p.epoch, p.batch, p.epochs = 99, -5, 10**9  # which has no effect on training

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            told.append((self.progress.epochs, self.progress.samples, self.progress.steps or 0))

    tokens_model().fit(*tokens, epochs=2, batch_size=10, callbacks=[Tell()], verbose=0)
    assert told[:3] == [(0, 1, 0), (0, 2, 10), (0, 3, 20)]
    assert told[4:7] == [(1, 1, 0), (1, 2, 10), (1, 3, 20)]
    assert len(told) == 8


# Arbitrary callbacks.


def test_one_fit_at_a_time(numbers: Any) -> None:
    """A second one is an error from a callback and another thread, but not afterwards."""
    model = numbers_model()
    errors: list[Any] = []

    def meddle(m: Any) -> None:
        for act in (
            lambda: m.fit(*numbers, verbose=0),
            lambda: m.compile("sgd", "mae"),
        ):
            thread = threading.Thread(target=lambda act=act: errors.append(caught(act)))
            thread.start()
            thread.join()
            errors.append(caught(act))

    def caught(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except RuntimeError as error:
            return str(error)

    expected = numbers_model().fit(*numbers, epochs=2, verbose=0)
    history = model.fit(*numbers, epochs=2, callbacks=[Act(meddle, 0)], verbose=0)
    assert len(errors) == 4
    assert all(str(f).startswith("Sequential: a fit of this model is running") for f in errors)
    assert history.history == expected.history
    assert model.history is history
    model.compile("sgd", "mse")
    model.fit(*numbers, verbose=0)


def test_other_things_in_the_middle(numbers: Any) -> None:
    """Evaluating, predicting, copying and training other models do not affect training."""

    def act(m: Any) -> None:
        m.evaluate(*numbers)
        m.predict(numbers[0])
        m.stream().step(numbers[0][0, 0])
        m.forward(numbers[0])
        m.summary()
        twin = copy.deepcopy(m)
        assert pickle.loads(pickle.dumps(m)).predict(numbers[0]).shape == (24, 7, 1)
        twin.fit(*numbers, verbose=0)
        other = numbers_model()
        other.fit(*numbers, verbose=0)

    def trained(callbacks: Any) -> bytes:
        model = numbers_model()
        model.fit(*numbers, epochs=2, batch_size=8, callbacks=callbacks, verbose=0)
        return weights(model)

    assert trained([Act(act)]) == trained([])


@pytest.mark.parametrize(
    "name", ["layers", "optimizer", "loss", "metrics", "features_in", "dtype", "vocabulary"]
)
def test_what_a_model_goes_by_is_read_only(name: str, numbers: Any) -> None:
    model = numbers_model()
    with pytest.raises(AttributeError):
        setattr(model, name, getattr(model, name))
    with pytest.raises(AttributeError):
        model.fit(
            *numbers, batch_size=8, verbose=0, callbacks=[Act(lambda m: setattr(m, name, None))]
        )
    model.fit(*numbers, verbose=0)


def test_labels_changed_in_the_middle(tokens: Any, backend: str) -> None:
    for value in (10**9, 5, -1):
        X, y = (a.copy() for a in tokens)

        def change(model: Any, y: Any = y, value: int = value) -> None:
            y[:] = value

        with pytest.raises(ValueError, match="target"):
            tokens_model().fit(X, y, batch_size=8, callbacks=[Act(change)], verbose=0)


def test_tokens_changed_in_the_middle(tokens: Any, backend: str) -> None:
    for value in (10**9, V, -1):
        X, y = (a.copy() for a in tokens)

        def change(model: Any, X: Any = X, value: int = value) -> None:
            X[:] = value

        with pytest.raises(ValueError, match="x: "):
            tokens_model().fit(X, y, batch_size=8, callbacks=[Act(change)], verbose=0)


def test_lengths_and_weights_changed_in_the_middle(tokens: Any) -> None:
    """Training uses them as they were when checked."""
    X, y = tokens

    def trained(*changes: Any) -> Any:
        lengths = np.full(24, 5)
        weight = np.ones(24, np.float32)

        def change(model: Any) -> None:
            lengths[:] = 10**9
            weight[:] = changes

        model = tokens_model()
        callbacks = [Act(change)] if changes else []
        history = model.fit(
            X, y, lengths=lengths, sample_weight=weight, batch_size=8, epochs=2, verbose=0,
            callbacks=callbacks,
        )  # fmt: skip
        return history.history, weights(model)

    expected = trained()
    for value in (np.nan, np.inf, -1.0):
        assert trained(value) == expected


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
@pytest.mark.parametrize("what", ["X", "y"])
def test_arrays_of_another_shape_in_the_middle(what: str, numbers: Any, backend: str) -> None:
    """They are referenced, so NumPy refuses to resize them; a new shape is an error."""
    X, y = numbers[0].copy(), numbers[1].astype(np.float32)
    array = X if what == "X" else y

    def resize(model: Any) -> None:
        with pytest.raises(ValueError, match="resize"):
            array.resize((1, 1), refcheck=False)
        array.shape = (12, 14, array.shape[-1])

    with pytest.raises((ValueError, IndexError)):
        numbers_model().fit(X, y, batch_size=8, callbacks=[Act(resize)], verbose=0)


@pytest.mark.parametrize("use", ["fit", "evaluate", "predict", "forward", "failed fit"])
def test_arrays_may_be_resized_afterwards(use: str, numbers: Any, backend: str) -> None:
    X, y = numbers[0].copy(), numbers[1].astype(np.float32)
    model = numbers_model()
    kept: Any = None
    if use == "forward":
        kept = model.forward(X)
        model.backward(kept[1], y)
    elif use == "predict":
        kept = model.predict(X)
    elif use == "evaluate":
        model.evaluate(X, y)
    elif use == "fit":
        kept = model.fit(X, y, batch_size=8, verbose=0)
    else:
        with pytest.raises(ValueError, match="lr: expected"):
            model.fit(X, y, callbacks=[Act(lambda m: setattr(m.optimizer, "lr", -1.0), 0)])
    for array in (X, y):
        array.resize(1, refcheck=False)
        assert array.shape == (1,)


@pytest.mark.parametrize("what", ["tokens", "numbers"])
def test_data_pin_their_arrays(what: str, request: Any) -> None:
    """They hold views of what the caller gave, in parts of the data too."""
    X, y = (a.copy() for a in request.getfixturevalue(what))
    y = y.astype(np.float32) if what == "numbers" else y
    model = tokens_model() if what == "tokens" else numbers_model()
    part = model._inputs().whole(X, y).part(slice(0, 3))
    for array in (X, y):
        with pytest.raises(ValueError, match="resize"):
            array.resize(1, refcheck=False)
    del part
    for array in (X, y):
        array.resize(1, refcheck=False)


@pytest.mark.parametrize("value", ["fast", None, -1.0, float("nan"), float("inf"), 1j])
def test_nonsense_as_a_learning_rate(value: Any, numbers: Any) -> None:
    def change(model: Any) -> None:
        model.optimizer.lr = value

    model = numbers_model()
    with pytest.raises((ValueError, TypeError), match="lr: expected"):
        model.fit(*numbers, batch_size=8, callbacks=[Act(change)], verbose=0)


def test_other_states_loaded_in_the_middle(numbers: Any, backend: str) -> None:
    other = Sequential([GRU(2, 40), Linear(40, 1)], seed=0)
    other.compile("adam", "mse")
    other.fit(*numbers, verbose=0)
    assert other.optimizer is not None
    state = other.optimizer.state_dict()
    model = numbers_model()
    with pytest.raises(ValueError, match="expected shape"):
        model.fit(*numbers, batch_size=8, verbose=0,
                  callbacks=[Act(lambda m: m.load_state_dict(other.state_dict()))])  # fmt: skip
    with pytest.raises(ValueError, match="expected shape"):
        model.fit(*numbers, batch_size=8, verbose=0,
                  callbacks=[Act(lambda m: m.optimizer.load_state_dict(state))])  # fmt: skip


def test_a_callback_whose_state_dict_was_overwritten() -> None:
    callback = EarlyStopping("loss")
    vars(callback)["state_dict"] = ReduceLROnPlateau("loss").state_dict
    with pytest.raises(ValueError, match=r"state: missing \['stopped', 'weights'\]"):
        callback.load_state_dict({"best": 1.0, "wait": 0})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "state: expected a mapping"),
        ({"wait": 0}, "state: missing"),
        ({"best": "x", "wait": 0}, "best: expected"),
        ({"best": 1.0, "wait": -1}, "wait: expected"),
        ({"best": 1.0, "wait": 0, "stopped": -2, "weights": {}}, "stopped: expected"),
        ({"best": 1.0, "wait": 0, "stopped": None, "weights": 3}, "weights: expected"),
        (
            {"best": 1.0, "wait": 0, "stopped": None, "weights": {"0.w": np.ones(3)}},
            "weights: expected",
        ),
    ],
)
def test_states_of_callbacks_are_checked(state: Any, message: str, numbers: Any) -> None:
    for callback in (EarlyStopping("loss", restore_best_weights=True), ReduceLROnPlateau("loss")):
        if isinstance(state, dict):
            if "stopped" in state and isinstance(callback, ReduceLROnPlateau):
                continue
            state = {"stopped": None, "weights": {}} | state
        model = numbers_model()

        def load(m: Any, callback: Any = callback, state: Any = state) -> None:
            before = callback.state_dict()
            try:
                callback.load_state_dict(state)
            finally:
                assert callback.state_dict() == before

        with pytest.raises((ValueError, TypeError), match=message):
            model.fit(*numbers, batch_size=8, callbacks=[callback, Act(load)], verbose=0)


def test_weights_of_another_shape_in_a_callbacks_state(numbers: Any) -> None:
    stop = EarlyStopping("loss", restore_best_weights=True)
    other = Sequential([GRU(2, 3), Linear(3, 1)]).state_dict()
    state = {"best": 1.0, "wait": 0, "stopped": None, "weights": other}
    load = Act(lambda m: stop.load_state_dict(state))
    with pytest.raises(ValueError, match=r"weights 0\.weight_ih_l0: expected shape"):
        numbers_model().fit(*numbers, batch_size=8, callbacks=[stop, load], verbose=0)


def test_a_checkpoint_that_does_not_fit_changes_nothing(numbers: Any, tmp_path: Path) -> None:
    """Not even the parts before the one that does not fit."""
    path = tmp_path / "c"
    numbers_model().fit(*numbers, callbacks=[Checkpoint(path), EarlyStopping("loss")], verbose=0)
    whole = fastrnn.models.checkpoint.read(path)
    changes: list[dict[str, Any]] = [
        {"epoch": -1},
        {"batch": "x"},
        {"order": {}},
        {"sums": [1.0, 2.0, 3.0]},
        {"history": {"loss": [1.0, 2.0]}},
        {"optimizer": {"steps": np.array(3), "exp_avg.w": np.ones(3)}},
        {"layers": []},
        {"lr": "fast"},
        {"weights": {}},
    ]
    for change in changes:
        fastrnn.models.checkpoint.write(path, whole | change)
        model, stop = numbers_model(), EarlyStopping("loss")
        before = weights(model), repr(model.optimizer), stop.state_dict()
        with pytest.raises(ValueError, match="c: does not fit this training"):
            model.fit(*numbers, callbacks=[Checkpoint(path), stop], verbose=0)
        assert (weights(model), repr(model.optimizer), stop.state_dict()) == before
        assert model.optimizer is not None
        assert model.optimizer.steps == 0


def test_huge_sizes(tokens: Any) -> None:
    X, y = tokens
    model = tokens_model()
    most = sys.maxsize
    stop = Act(lambda m: setattr(m, "stop_training", True), 0)
    for options in ({}, {"lengths": np.full(24, 5)}, {"stateful": False, "shuffle": False}):
        model.fit(
            X, y, epochs=most, batch_size=most, bptt=most, callbacks=[stop], verbose=0, **options
        )
    assert model.predict(X, batch_size=most).shape == (24, 7, 5)
    model.evaluate(X, y, batch_size=most)
    with pytest.raises(ValueError, match="stateful: expected sequences"):
        model.fit(X, y, batch_size=most, stateful=True, verbose=0)
    with pytest.raises(ValueError, match=r"batch_size=.*: expected sizes that fit into memory"):
        model.stream(most)
    for name in ("epochs", "batch_size", "bptt"):
        with pytest.raises(ValueError, match=f"{name}: expected at most"):
            model.fit(X, y, **{name: most + 1}, verbose=0)


# Tapes and streams.


def test_tapes_of_other_models(rng: np.random.Generator, backend: str) -> None:
    def made(*layers: Any) -> tuple[Sequential, Any, np.ndarray]:
        model = Sequential(layers, seed=0)
        size = model.features_in or 2
        y, tape = model.forward(rng.standard_normal((3, 4, size)))
        return model, tape, np.ones_like(y)

    model, tape, dy = made(GRU(2, 3), Linear(3, 3), Linear(3, 2))
    twin, of_twin, _ = made(GRU(2, 3), Linear(3, 3), Linear(3, 2))
    _, want = model.backward(tape, dy)
    _, grads = model.backward(of_twin, dy)  # of the same structure
    assert want.keys() == grads.keys()
    others = [
        made(GRU(2, 4), Linear(4, 3), Linear(3, 2)),
        made(GRU(2, 3), Linear(3, 2)),
        made(GRU(2, 3), Linear(3, 3), Linear(3, 3), Linear(3, 2)),
        made(GRU(2, 3), Linear(3, 3), Dropout(0.1), Linear(3, 2)),
        made(LSTM(2, 3), Linear(3, 3), Linear(3, 2)),
        made(GRU(2, 3, return_sequences=False), Linear(3, 3), Linear(3, 2)),
        made(GRU(2, 3, dtype="f8"), Linear(3, 3, dtype="f8"), Linear(3, 2, dtype="f8")),
    ]
    for other, of_other, of_dy in others:
        for a, b, d in ((model, of_other, dy), (other, tape, of_dy)):
            with pytest.raises(ValueError, match="tape: is from the forward of another model"):
                a.backward(b, d)
    changed = copy.copy(tape)
    for tapes in (tape.tapes[:2], (*tape.tapes, tape.tapes[-1]), tape.tapes[::-1]):
        changed.tapes = tapes
        with pytest.raises((ValueError, TypeError), match="tape: "):
            model.backward(changed, dy)
    for wrong in (None, tape.tapes, tape.tapes[0], 3):
        with pytest.raises(TypeError, match="tape: expected what forward returned"):
            model.backward(wrong, dy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dy: expected shape"):
        model.backward(tape, dy[:, :2])
    np.testing.assert_array_equal(twin.backward(tape, dy)[1]["2.bias"], want["2.bias"])


def test_state_and_reset(rng: np.random.Generator, backend: str) -> None:
    """A plain call and forward give the same as separate pieces."""
    layers = [GRU(2, 3, batch_first=True), Dropout(0.0), LSTM(3, 4), Linear(4, 1)]
    model = Sequential(layers, seed=0)
    x = rng.standard_normal((3, 6, 2))
    whole = model(x)
    first, state = model(x[:, :2], state=[None, None])
    second, end = model(x[:, 2:], state)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    reset = np.zeros((3, 6), bool)
    reset[1, 2] = reset[2, 4] = True
    y, of_reset = model(x, state, reset=reset)
    np.testing.assert_array_equal(y[1, 2:], model(x[1:2, 2:])[0])
    np.testing.assert_array_equal(y[2, 4:], model(x[2:3, 4:])[0])
    z, tape = model.forward(x, state, reset=reset)
    np.testing.assert_array_equal(z, y)
    np.testing.assert_array_equal(tape.state[0], of_reset[0])
    dx, _ = model.backward(
        tape, np.where(np.arange(6) >= 4, 1.0, 0.0)[None, :, None] * np.ones_like(y)
    )
    assert dx is not None
    assert not dx[2, :4].any()  # nothing passes a reset
    assert dx[0, :4].any()
    assert len(end) == 2
    for wrong, error in (
        (reset.T, ValueError), (reset.astype(int), TypeError), (reset[0], ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match="reset: expected"):
            model(x, reset=wrong)
    with pytest.raises(ValueError, match="state: expected 2 states"):
        model(x, state[:1])
    with pytest.raises(TypeError, match="state: expected a list"):
        model(x, 3)  # type: ignore[arg-type]


def test_a_stream_in_two_threads(backend: str) -> None:
    """The second thread gets an error before anything is read; the first is not affected."""
    model = Sequential([LSTM(2, 3), Linear(3, 1)], seed=0)
    stream, alone = model.stream(), model.stream()
    errors: list[str] = []

    class Slow:
        """An array-like whose conversion lets another thread run."""

        def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
            def meddle() -> None:
                acts: list[Callable[[], Any]] = [
                    lambda: stream.step([9.0, 9.0]),
                    lambda: stream.state,
                    lambda: setattr(stream, "state", state),
                    stream.reset,
                ]
                for act in acts:
                    try:
                        act()
                    except RuntimeError as error:
                        errors.append(str(error))

            thread = threading.Thread(target=meddle)
            thread.start()
            thread.join()
            return np.ones(2, np.float32)

    state = stream.state
    np.testing.assert_array_equal(stream.step(Slow()), alone.step(np.ones(2)))
    assert errors == ["stream: two threads use it at once; give each a stream of its own"] * 4
    np.testing.assert_array_equal(stream.step([3, 4]), alone.step([3, 4]))
    with pytest.raises(AttributeError):
        stream.states = state  # type: ignore[attr-defined]


# Frozen layers.


KINDS: dict[str, Callable[[], list[Any]]] = {
    "embedding": lambda: [Embedding(V, 4), GRU(4, 4), Linear(4, 5)],
    "linear": lambda: [Embedding(V, 4), Linear(4, 4), Linear(4, 5)],
    "dropout": lambda: [Embedding(V, 4), Dropout(0.0), Linear(4, 5)],
}


def frozen_models(cell: Any, make_layer: Any) -> list[list[Any]]:
    return [
        *(make() for make in KINDS.values()),
        [Embedding(V, 4), make_layer(cell, 4, 4, seed=1), Linear(4, 5)],
        [Embedding(V, 4), make_layer(cell, 4, 4, seed=1, bidirectional=True), Linear(8, 5)],
    ]


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_frozen_layers(name: str, cell: Any, make_layer: Any, tokens: Any) -> None:
    """They do not change; the others train as with an optimizer of their own."""
    X, y = tokens
    makers: dict[str, Callable[[], optim.Optimizer]] = {
        "adamw": lambda: optim.AdamW(0.01, weight_decay=0.1, clip_norm=0.1),
        "sgd": lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.1),
        "rmsprop": lambda: optim.RMSprop(0.01),
    }
    for n in range(len(frozen_models(cell, make_layer))):
        for frozen in [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)]:
            model = Sequential(frozen_models(cell, make_layer)[n], seed=0)
            by_hand = Sequential(frozen_models(cell, make_layer)[n], seed=0)
            for i in frozen:
                model.layers[i].trainable = False
            before = {k: p.copy() for k, p in model.parameters().items()}
            model.compile(makers[name](), "cross_entropy")
            model.fit(X, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
            optimizer = makers[name]()
            loss = fastrnn.losses.cross_entropy
            learn = {k: p for k, p in by_hand.parameters().items() if int(k[0]) not in frozen}
            for _ in range(2):
                for rows in range(0, 24, 8):
                    out, tape = by_hand.forward(X[rows : rows + 8])
                    # Time first, as in fit: the same sums in the same order.
                    _, dy = loss.value_and_grad(
                        out.swapaxes(0, 1), y[rows : rows + 8].swapaxes(0, 1)
                    )
                    _, grads = by_hand.backward(tape, dy.swapaxes(0, 1))
                    if learn:
                        optimizer.step(learn, {k: grads[k] for k in learn})
            for k, p in model.parameters().items():
                np.testing.assert_array_equal(
                    p, by_hand.parameters()[k], err_msg=f"{n} {frozen} {k}"
                )
                if int(k[0]) in frozen:
                    np.testing.assert_array_equal(p, before[k])
                else:
                    assert (p != before[k]).any(), (n, frozen, k)


def test_freezing_and_thawing_between_fits_and_within(tokens: Any) -> None:
    model = tokens_model()
    model.compile(optim.AdamW(0.01, weight_decay=0.1), "cross_entropy")

    def changed(callbacks: Any = ()) -> set[int]:
        before = model.state_dict()
        model.fit(*tokens, batch_size=8, callbacks=callbacks, verbose=0)
        return {int(k[0]) for k, p in model.parameters().items() if (p != before[k]).any()}

    model.layers[1].trainable = False
    assert changed() == {0, 3}
    model.layers[1].trainable = True
    model.layers[3].trainable = False
    assert changed() == {0, 1}
    model.trainable = False
    assert (changed(), model.trainable) == (set(), False)
    model.trainable = True
    assert (changed(), model.trainable) == ({0, 1, 3}, True)

    def freeze(m: Any) -> None:
        m.layers[0].trainable = False
        seen.append(m.state_dict())

    seen: list[Any] = []
    assert changed([Act(freeze, 0)]) == {0, 1, 3}
    np.testing.assert_array_equal(model.parameters()["0.weight"], seen[0]["0.weight"])
    assert (model.parameters()["1.weight_ih_l0"] != seen[0]["1.weight_ih_l0"]).any()


def test_resumed_with_frozen_layers(tokens: Any, tmp_path: Path) -> None:
    def made() -> Sequential:
        model = tokens_model()
        model.layers[1].trainable = False
        return model

    whole, path = made(), tmp_path / "c"
    expected = whole.fit(*tokens, epochs=4, batch_size=8, verbose=0)
    made().fit(*tokens, epochs=2, batch_size=8, callbacks=[Checkpoint(path)], verbose=0)
    model = made()
    history = model.fit(*tokens, epochs=4, batch_size=8, callbacks=[Checkpoint(path)], verbose=0)
    assert history.history == expected.history
    assert weights(model) == weights(whole)
    with pytest.raises(ValueError, match=r"trainable: expected \[True, False, True, True\] as in"):
        tokens_model().fit(*tokens, epochs=5, batch_size=8, callbacks=[Checkpoint(path)], verbose=0)


def test_reset_parameters_of_a_model(tokens: Any) -> None:
    """With a seed, weights and training are those of a new model."""
    model, fresh = tokens_model(), tokens_model()
    for _ in range(2):
        model.fit(*tokens, verbose=0)
        model.reset_parameters(0)
        assert weights(model) == weights(fresh)
    model.compile("adam", "cross_entropy", ["accuracy"])
    a, b = (m.fit(*tokens, epochs=2, batch_size=8, verbose=0) for m in (model, fresh))
    assert a.history == b.history
    assert weights(model) == weights(fresh)
    model.reset_parameters()
    assert weights(model) != weights(fresh)


@pytest.mark.parametrize("shards", [None, 3])
def test_no_target_counts(shards: int | None) -> None:
    """All weights are 0, of sequences or of classes: there is nothing to learn."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5, 7, 2)), rng.integers(0, 3, (5, 7))
    model = fastrnn.Sequential([fastrnn.GRU(2, 4), fastrnn.Linear(4, 3)], seed=0)
    model.compile("adam", "cross_entropy")
    before = {name: value.copy() for name, value in model.parameters().items()}
    for weights in ({"sample_weight": np.zeros(5)}, {"class_weight": dict.fromkeys(range(3), 0)}):
        with pytest.raises(ValueError, match=r"fit: .* not all 0, got none in epoch 1"):
            model.fit(X, y, epochs=2, verbose=0, shards=shards, **weights)
        assert model.history is not None
        assert model.history.epoch == []
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])
    weight = np.array([0, 0, 0, 0, 1.0])
    model.fit(X, y, sample_weight=weight, batch_size=2, shuffle=False, verbose=0, shards=shards)
