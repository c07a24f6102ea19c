"""Callbacks: when they act, and killed training that resumes with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, Dropout, Embedding, Linear, Sequential, optim
from fastrnn._files import model_file
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


def small(optimizer: Any = "adam") -> Sequential:
    layers = [GRU(2, 4, num_layers=2, dropout=0.3), Dropout(0.2), LSTM(4, 3), Linear(3, 1)]
    model = Sequential(layers, seed=0)
    model.compile(optimizer, "mse", ["mae"])
    return model


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((22, 5, 2)), rng.standard_normal((22, 5))


class Script(Callback):
    """Puts numbers into the logs, as if they had been measured."""

    def __init__(self, values: list[float], name: str = "scripted") -> None:
        self.values, self.name = values, name

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        logs[self.name] = self.values[epoch]


def test_hooks_come_in_order(data: Any) -> None:
    said: list[Any] = []

    class Loud(Callback):
        def on_train_begin(self, logs: Any) -> None:
            said.append("begin")
            assert self.params == {"epochs": 2, "samples": 22, "steps": 2}

        def on_train_end(self, logs: Any) -> None:
            said.append(("end", *logs))

        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            said.append(("epoch", epoch))

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            said.append(("epoch end", epoch, *logs))

        def on_train_batch_begin(self, batch: int, logs: Any) -> None:
            said.append(("batch", batch))

        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            said.append(("batch end", batch, *logs))

    small().fit(*data, epochs=2, batch_size=16, callbacks=[Loud()], verbose=0)
    names = ("loss", "mae")
    batches = [s for b in (0, 1) for s in (("batch", b), ("batch end", b, *names))]
    epochs = [s for e in (0, 1) for s in (("epoch", e), *batches, ("epoch end", e, *names))]
    assert said == ["begin", *epochs, ("end", *names)]


def test_steps_are_told(rng: np.random.Generator) -> None:
    X = rng.integers(0, V, (7, 5))
    told: list[Any] = []

    class Told(Callback):
        def on_train_begin(self, logs: Any) -> None:
            told.append(self.params["steps"])
            self.seen = 0

        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            self.seen += 1

        def on_train_end(self, logs: Any) -> None:
            assert told[-1] in (None, self.seen)

    for lengths, bptt in ((None, None), (None, 2), ([5, 1, 3, 4, 5, 5, 2], 2)):
        options = {"batch_size": 3, "bptt": bptt, "lengths": lengths, "verbose": 0}
        ragged_model().fit(X, X, callbacks=[Told()], **options)
    assert told == [3, 9, None]


@pytest.mark.parametrize("restore", [False, True])
def test_early_stopping(restore: bool, data: Any) -> None:
    values = [5.0, 4.0, 3.95, 4.2, 3.95, 1.0, 0.0]
    kept: list[bytes] = []

    class Keep(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            kept.append(weights(self.model))

    stop = EarlyStopping("scripted", patience=3, min_delta=0.1, restore_best_weights=restore)
    model = small()
    history = model.fit(*data, epochs=7, callbacks=[Script(values), Keep(), stop], verbose=0)
    assert stop.stopped_epoch == 4
    assert history.history["scripted"] == values[:5]
    assert weights(model) == kept[1 if restore else 4]
    history = model.fit(*data, epochs=4, callbacks=[Script(values), stop], verbose=0)
    assert (len(history.epoch), stop.stopped_epoch) == (4, None)  # it forgets


def test_a_failing_callback(data: Any) -> None:
    """It restores the layers' modes, and keeps the weights if training has begun."""

    class Fails(Callback):
        def on_train_begin(self, logs: Any) -> None:
            if self.model.training is begin:
                raise RuntimeError("begin")

        def on_train_end(self, logs: Any) -> None:
            raise RuntimeError("end")

    stop = EarlyStopping("loss", restore_best_weights=True)
    model = small()
    model.fit(*data, callbacks=[stop], verbose=0)
    model.fit(*data, verbose=0)
    before = weights(model)
    for begin in (True, False):
        model.eval()
        with pytest.raises(RuntimeError, match="begin" if begin else "end"):
            model.fit(*data, callbacks=[Fails(), stop], verbose=0)
        assert not model.training
        assert not any(layer.training for layer in model.layers)
        assert (weights(model) == before) is begin
        assert stop._weights == {}  # its end was called, although the one before failed


@pytest.mark.parametrize(
    ("name", "mode", "epochs", "best"),
    [
        ("scripted", "max", 3, 2),
        ("scripted", "auto", 2, 1),
        ("val_mean_squared_error", "auto", 2, 1),
        ("accuracy", "auto", 3, 2),
        ("val_r2_score", "auto", 3, 2),
        ("roc_auc", "auto", 3, 2),
        ("val_f1", "auto", 3, 2),
        ("matthews_corrcoef", "auto", 3, 2),
        ("val_neg_mean_squared_error", "auto", 3, 2),
        ("recall", "min", 2, 1),
    ],
)
def test_early_stopping_where_more_is_better(
    name: str, mode: str, epochs: int, best: float, data: Any
) -> None:
    stop = EarlyStopping(name, mode=mode)
    script = Script([1, 2, 2, 3, 4], name)
    history = small().fit(*data, epochs=5, callbacks=[script, stop], verbose=0)
    assert len(history.epoch) == epochs
    assert stop.best == best
    with pytest.raises(
        ValueError, match=r"monitor: expected one of \['loss', 'mae'\], got 'val_lo"
    ):
        small().fit(*data, callbacks=[EarlyStopping()], verbose=0)


def test_reduce_lr_against_torch(data: Any) -> None:
    torch = pytest.importorskip("torch")
    values = [3.0, 2.0, 2.1, 2.2, 1.99995, 2.0, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, factor=0.5, patience=1, threshold=1e-4, threshold_mode="abs", min_lr=0.02
    )
    rates: list[float] = []

    class Rates(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            rates.append(self.model.optimizer.lr)

    model = small(optim.SGD(0.1))
    # torch counts from 0: its patience of 1 is 2 in Keras.
    plateau = ReduceLROnPlateau("scripted", factor=0.5, patience=2, min_lr=0.02)
    callbacks = [Script(values), plateau, Rates()]
    model.fit(*data, epochs=len(values), callbacks=callbacks, verbose=0)
    expected = []
    for value in values:
        theirs.step()
        schedule.step(value)
        expected.append(theirs.param_groups[0]["lr"])
    assert rates == pytest.approx(expected)
    with pytest.raises(ValueError, match="ReduceLROnPlateau: expected an optimizer whose lr is"):
        small(optim.SGD(optim.CosineDecay(0.1, 9))).fit(
            *data, callbacks=[ReduceLROnPlateau("loss")], verbose=0
        )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(patience=-1), ValueError, "patience: expected"),
        (lambda: EarlyStopping(min_delta=-1), ValueError, "min_delta: expected"),
        (
            lambda: EarlyStopping(mode="best"),
            ValueError,
            "mode: expected one of 'auto', 'min', 'max'",
        ),
        (lambda: EarlyStopping(3), TypeError, "monitor: expected a str"),  # type: ignore[arg-type]
        (lambda: ReduceLROnPlateau(factor=1), ValueError, "factor: expected"),
        (lambda: ReduceLROnPlateau(min_lr=-1), ValueError, "min_lr: expected"),
        (lambda: Checkpoint("x", every=0), ValueError, "every: expected"),
    ],
)
def test_options_are_checked(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_options_are_checked_when_set(tmp_path: Path) -> None:
    stop, plateau = EarlyStopping(), ReduceLROnPlateau()
    keep, bar = Checkpoint(tmp_path / "c"), ProgressBar()
    for callback, name, value in (
        (stop, "monitor", 3),
        (stop, "patience", -1),
        (stop, "patience", "long"),
        (stop, "min_delta", float("nan")),
        (stop, "mode", "best"),
        (stop, "restore_best_weights", "yes"),
        (plateau, "patience", None),
        (plateau, "factor", 1),
        (plateau, "min_lr", -1),
        (keep, "every", 0),
        (keep, "path", 3.5),
        (bar, "batches", "all"),
    ):
        before = getattr(callback, name)
        with pytest.raises((ValueError, TypeError), match=f"{name}: expected"):
            setattr(callback, name, value)
        assert getattr(callback, name) == before
    stop.patience, keep.every = 7, 3
    assert (stop.patience, keep.every) == (7, 3)
    for callback in (stop, plateau, keep, bar, Callback()):
        with pytest.raises(AttributeError, match=r"\.patiance: there is no such attribute"):
            callback.patiance = 3  # type: ignore[attr-defined]

    class Mine(EarlyStopping):
        pass

    mine = Mine()
    mine.anything = 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="patience: expected"):
        mine.patience = -1


# Checkpoints.


class Crash(Callback):
    """Ends training after a number of batches, like a power cut."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_train_batch_begin(self, batch: int, logs: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("crash")


def callbacks() -> list[Callback]:
    return [
        EarlyStopping("val_loss", patience=4, restore_best_weights=True),
        ReduceLROnPlateau("val_loss", 0.5, patience=1),
    ]


def ragged_data(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, V, rng.integers(1, 12)) for _ in range(23)]


def ragged_model(lr: Any = 0.02) -> Sequential:
    layers = [
        Embedding(V, 3), LSTM(3, 4, 2, dropout=0.2), Dropout(0.3), GRU(4, 4), Linear(4, V),
    ]  # fmt: skip
    model = Sequential(layers, seed=1)
    model.compile(optim.Adam(lr, clip_norm=1.0), "cross_entropy", ["accuracy"])
    return model


@pytest.mark.parametrize(
    "options", [{}, {"bptt": 3}, {"shuffle": False}], ids=["whole", "bptt", "in-order"]
)
@pytest.mark.parametrize("every", [None, 1, 3])
def test_resumed_to_the_same_bits(
    options: dict[str, Any], every: int | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    X = ragged_data(rng)
    options |= {"epochs": 6, "batch_size": 4, "validation_split": 0.2, "verbose": 0}
    whole = ragged_model()
    expected = whole.fit(X, X, callbacks=callbacks(), **options)
    path = tmp_path / "c"
    crashes = 0
    for after in (*rng.integers(1, 15, 20), 10**9):
        model = ragged_model()
        keep = Checkpoint(path, every=every)
        try:
            # Loaded first: resumed training must not depend on the order of callbacks.
            history = model.fit(X, X, callbacks=[keep, *callbacks(), Crash(after)], **options)
        except RuntimeError:
            crashes += 1
            continue
        break
    assert crashes
    assert history.history == expected.history
    assert weights(model) == weights(whole)
    assert os.listdir(tmp_path) == ["c"]
    again = ragged_model()  # training has ended: only loads the weights
    assert (
        again.fit(X, X, callbacks=[keep, *callbacks(), Crash(0)], **options).history
        == expected.history
    )
    assert weights(again) == weights(whole)


def test_a_metric_of_all_outputs_is_resumed(tmp_path: Path, data: Any) -> None:
    def worst(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_true.shape == y_pred.shape == (22, 5)
        return float(abs(y_true - y_pred).max())

    def model() -> Sequential:
        made = small()
        made.compile("adam", "mse", [worst])
        return made

    options = {"epochs": 2, "batch_size": 4, "verbose": 0}
    expected = model().fit(*data, **options)
    path = tmp_path / "c"
    with pytest.raises(RuntimeError, match="crash"):
        model().fit(*data, callbacks=[Checkpoint(path, every=1), Crash(3)], **options)
    resumed = model().fit(*data, callbacks=[Checkpoint(path), Crash(99)], **options)
    assert resumed.history == expected.history


def test_resumed_streams(tmp_path: Path, rng: np.random.Generator) -> None:
    X = rng.integers(0, V, (12, 5))
    options = {"epochs": 3, "batch_size": 2, "stateful": True, "verbose": 0}
    schedule = optim.CosineDecay(0.05, 18)
    whole, model = ragged_model(schedule), ragged_model(schedule)
    expected = whole.fit(X, X, **options)
    path = tmp_path / "c"
    with pytest.raises(RuntimeError, match="crash"):
        model.fit(X, X, callbacks=[Checkpoint(path, every=1), Crash(10)], **options)
    resumed = ragged_model(schedule)
    actual = resumed.fit(X, X, callbacks=[Checkpoint(path), Crash(100)], **options)
    assert actual.history == expected.history
    assert weights(resumed) == weights(whole)


def test_more_epochs_later(tmp_path: Path, data: Any) -> None:
    whole = small()
    expected = whole.fit(*data, epochs=5, verbose=0)
    path = tmp_path / "c"
    small().fit(*data, epochs=2, callbacks=[Checkpoint(path)], verbose=0)
    model = small()
    assert model.fit(*data, epochs=5, callbacks=[Checkpoint(path)], verbose=0).history == (
        expected.history
    )
    assert weights(model) == weights(whole)


def test_checkpoints_of_other_trainings_are_refused(tmp_path: Path, data: Any) -> None:
    X, y = data
    path = tmp_path / "c"
    small().fit(X, y, callbacks=[Checkpoint(path)], verbose=0)

    def refused(message: str, model: Sequential, y: Any = y, **options: Any) -> None:
        before = weights(model)
        others = options.pop("others", [])
        with pytest.raises(ValueError, match=f"c: does not fit this training: {message}"):
            model.fit(X, y, callbacks=[Checkpoint(path), *others], verbose=0, **options)
        assert weights(model) == before

    refused("batch_size: expected 32 as in the file, got 4", small(), batch_size=4)
    refused(r"optimizer: expected 'Adam\(clip_norm=None", small("sgd"))
    refused("optimizer: expected 'Adam", small(optim.Adam(clip_norm=1)))
    refused("shuffle", small(), shuffle=False)
    refused("samples", small(), validation_split=0.2)
    refused("data", small(), y=y + 1)
    refused("callbacks", small(), others=[EarlyStopping("loss")])
    other = Sequential([GRU(2, 4), Linear(4, 1)])
    other.compile("adam", "mse", ["mae"])
    refused("model", other)
    small().save(path)
    with pytest.raises(ValueError, match="c: is not a checkpoint but a Sequential"):
        small().fit(X, y, callbacks=[Checkpoint(path)], verbose=0)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="c: is not a safetensors file"):
        small().fit(X, y, callbacks=[Checkpoint(path)], verbose=0)
    with pytest.raises(FileNotFoundError):
        small().fit(X, y, callbacks=[Checkpoint(tmp_path / "no" / "c")], verbose=0)


# The best epoch.


def content(path: Path) -> Any:
    _, tree, tensors = model_file.read(path)
    return tree, {name: a.tobytes() for name, a in tensors.items()}


class Logged(Callback):
    """Puts numbers into the logs, and may end the training like a power cut."""

    def __init__(self, values: list[float], until: int = 99) -> None:
        self.values, self.until = values, until

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        if epoch == self.until:
            raise RuntimeError("crash")
        logs["scripted"] = self.values[epoch]


@pytest.mark.parametrize(
    ("mode", "best"), [("min", [0, 2, 5]), ("auto", [0, 2, 5]), ("max", [0, 1])]
)
def test_the_best_epoch_is_saved(mode: str, best: list[int], tmp_path: Path, data: Any) -> None:
    values = [3.0, 3.5, 2.0, 2.0, float("nan"), 1.0]
    path, written, kept = tmp_path / "c", [], []

    class Watched(Checkpoint):
        def _write(self) -> None:
            written.append(len(kept))
            super()._write()

    class Weights(Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            kept.append(weights(self.model))

    keep = Watched(path, save_best_only=True, monitor="scripted", mode=mode)
    model = small()
    model.fit(*data, epochs=6, callbacks=[keep, Logged(values), Weights()], verbose=0)
    assert [w - 1 for w in written] == best
    assert keep.best == values[best[-1]]
    loaded = fastrnn.load(path)
    assert repr(loaded) == repr(model)
    assert weights(loaded) == kept[best[-1]]


@pytest.mark.parametrize("beside", ["", "before", "after"])
def test_the_best_epoch_is_resumed_from(beside: str, tmp_path: Path, data: Any) -> None:
    """And repeats the others with the same bits, or resumes from a later checkpoint."""
    values = [3.0, 2.0, 2.5, 2.2, 1.0, 1.5]
    epochs: list[int] = []

    class Epochs(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            epochs.append(epoch)

    def trained(folder: Path, until: int = 99) -> tuple[Sequential, Any, float]:
        model = small()
        best = Checkpoint(folder / "best", save_best_only=True, monitor="scripted")
        last = [Checkpoint(folder / "last")] if beside else []
        keep = [*last, best] if beside == "before" else [best, *last]
        history = model.fit(
            *data, epochs=6, callbacks=[*keep, Logged(values, until), Epochs()], verbose=0
        )
        return model, history.history, best.best

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    model, history, best = trained(whole)
    for until in (3, 5):
        with pytest.raises(RuntimeError, match="crash"):
            trained(cut, until)
    epochs.clear()
    again, history_again, best_again = trained(cut)
    assert epochs == [5]  # after the best, which is also the last but one
    assert (weights(again), history_again, best_again) == (weights(model), history, best)
    assert content(cut / "best") == content(whole / "best")
    epochs.clear()
    assert weights(trained(cut)[0]) == weights(model)
    assert epochs == ([] if beside else [5])


def test_a_crash_before_the_best_epoch_was_written(tmp_path: Path, data: Any) -> None:
    """Another checkpoint was written, whose last epoch is the best."""
    path, values = tmp_path / "best", [3.0, 2.0, 2.5]

    def callbacks_of(until: int) -> list[Callback]:
        best = Checkpoint(path, save_best_only=True, monitor="scripted")
        return [Checkpoint(tmp_path / "last"), best, Logged(values, until)]

    with pytest.raises(RuntimeError, match="crash"):
        small().fit(*data, epochs=3, callbacks=callbacks_of(2), verbose=0)
    expected = content(path)
    path.unlink()
    small().fit(*data, epochs=3, callbacks=callbacks_of(99), verbose=0)
    assert content(path) == expected


def test_what_the_best_epoch_needs(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "c"
    with pytest.raises(ValueError, match=r"monitor: expected one of .*, got 'los'; did you mean"):
        small().fit(*data, callbacks=[Checkpoint(path, save_best_only=True, monitor="los")])
    with pytest.raises(ValueError, match="every: expected None with save_best_only, got 2"):
        small().fit(*data, callbacks=[Checkpoint(path, 2, save_best_only=True)], verbose=0)
    with pytest.raises(ValueError, match="mode: expected one of 'auto', 'min', 'max'"):
        Checkpoint(path, mode="best")

    class Mine(GRU):
        pass

    model = Sequential([Mine(2, 4), Linear(4, 1)])
    model.compile("adam", "mse")
    model.fit(*data, callbacks=[Checkpoint(path)], verbose=0)
    with pytest.raises(ValueError, match="c: is damaged: it does not say what its layers are"):
        fastrnn.load(path)


#: Trains with a checkpoint after every second batch, and prints the result.
SCRIPT = """
import hashlib, sys, numpy as np, fastrnn
from fastrnn import Dropout, GRU, Linear, Sequential
rng = np.random.default_rng(0)
X, y = rng.standard_normal((64, 8, 3)), rng.standard_normal(64)
model = Sequential([GRU(3, 16, 2, dropout=0.2, return_sequences=False), Linear(16, 1)], seed=0)
model.compile("adam", "mse")
keep = [fastrnn.callbacks.Checkpoint(sys.argv[1], every=2)] if sys.argv[1:] else []
print("ready", flush=True)
history = model.fit(X, y, epochs=12, batch_size=4, callbacks=keep, verbose=0)
print(hashlib.sha256(b"".join(p.tobytes() for p in model.parameters().values())).hexdigest(),
      history.history["loss"])
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """FASTRNN_KILLS=100 runs more of them."""
    kills = int(os.environ.get("FASTRNN_KILLS", "6"))
    rng = np.random.default_rng(kills)
    expected, _ = start().communicate(timeout=60)
    path = tmp_path / "c"
    killed = finished = 0
    while killed < kills:
        process = start(str(path))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        process.stdout.close()
        killed += 1
        if path.exists():
            state = fastrnn.models.checkpoint.read(path)  # loadable, always
            if state["epoch"] == 12:
                finished += 1
                assert start(str(path)).communicate(timeout=60)[0] == expected
                path.unlink()
    assert start(str(path)).communicate(timeout=60)[0] == expected
    assert os.listdir(tmp_path) == ["c"]
