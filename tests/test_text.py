"""The character model: learning, sampling, files, and damaged files."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import model_file
from fastrnn._kernels import stepping
from fastrnn.losses import CrossEntropy, cross_entropy
from fastrnn.models.estimators import CELLS
from fastrnn.models.network import Network
from fastrnn.optim import Adam
from fastrnn.schedules import CosineDecay
from fastrnn.text import CharLM, _evaluation, _training, split, training_speed
from fastrnn.text.ngram import ngram_bits_per_char

safetensors = pytest.importorskip("safetensors.numpy")  # not on every free-threaded CPython
load, save = safetensors.load, safetensors.save

PATTERN = "the quick brown fox jumps over the lazy dog.\n" * 40
SMALL: dict[str, Any] = {"embedding_dim": 8, "hidden_size": 24, "seq_len": 20, "batch_size": 4}


@pytest.fixture(scope="module")
def model() -> CharLM:
    return CharLM(**SMALL, lr=2e-2, epochs=12, seed=0).fit(PATTERN, verbose=0)


@pytest.fixture
def file(model: CharLM, tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    model.save(path)
    return path


# Learning.


@pytest.mark.parametrize("cell", list(CELLS))
def test_learns_a_pattern(cell: str) -> None:
    model = CharLM(cell, **SMALL, lr=1e-2, epochs=12, seed=0).fit(PATTERN, verbose=0)
    assert model.bits_per_char(PATTERN[:200]) < 1
    first, last = model.history[0], model.history[-1]
    assert last.seconds > first.seconds
    assert last.characters > first.characters
    assert last.loss < first.loss
    assert last.validation_bits < first.validation_bits
    assert not model.interrupted


def test_writes_the_pattern(model: CharLM) -> None:
    assert model.generate("the quick ", 20, temperature=0) == "brown fox jumps over"


def test_the_best_weights_are_kept(model: CharLM) -> None:
    _, validation = split(PATTERN, model.validation_fraction)
    best = min(record.validation_bits for record in model.history)
    assert model.bits_per_char(validation) == best


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3, "num_layers": 2},
        {"input_dropout": 0.2},
        {"weight_dropout": 0.5},
        {"validation_fraction": 0.0},
    ],
)
def test_the_seed_decides(options: dict[str, Any]) -> None:
    def bits(seed: int) -> float:
        model = CharLM(**SMALL, **options, epochs=1, seed=seed).fit(PATTERN, verbose=0)
        return model.bits_per_char(PATTERN)

    assert bits(1) == bits(1) != bits(2)


def test_without_validation_the_last_weights_are_kept() -> None:
    model = CharLM(**SMALL, epochs=2, validation_fraction=0, seed=0).fit(PATTERN, verbose=0)
    assert all(math.isnan(record.validation_bits) for record in model.history)
    assert model.history[-1].loss > 0


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize(("num_layers", "p"), [(1, 0.0), (2, 0.0), (2, 0.4)])
def test_whole_model_gradient(cell: str, num_layers: int, p: float) -> None:
    """Central differences through embedding, recurrent layers, linear and loss at once.

    Networks with the same seeds drop the same: each loss is that of the first chunk of a new one.
    """
    rng = np.random.default_rng(0)

    def net() -> fastrnn.Sequential:
        kind: Any = CELLS[cell]
        options = {"dropout": p, "weight_dropout": p, "dtype": "float64", "seed": 2}
        return fastrnn.Sequential(
            [
                fastrnn.Embedding(5, 3, dtype="float64", seed=1),
                fastrnn.Dropout(p, seed=6),
                kind(3, 4, num_layers, **options),
                fastrnn.Dropout(p, seed=3),
                fastrnn.Linear(4, 5, dtype="float64", seed=4),
            ]
        )

    x, target = rng.integers(0, 5, (2, 2, 6))
    # The state of a network after other tokens.
    state = net().eval().forward(rng.integers(0, 5, (2, 9)))[1].state
    first = net()
    y, tape = first.forward(x, state)
    _, grads = first.backward(tape, cross_entropy.value_and_grad(y, target)[1])
    assert grads.keys() == first.parameters().keys()
    for name, whole in first.parameters().items():
        np.testing.assert_array_equal(whole, net().parameters()[name])
        for i in np.ndindex(whole.shape):
            losses = []
            for change in (1e-5, -1e-5):
                changed = net()
                changed.parameters()[name][i] += change
                losses.append(cross_entropy(changed.forward(x, state)[0], target))
            numeric = (losses[0] - losses[1]) / 2e-5
            assert abs(grads[name][i] - numeric) < 1e-7 * np.abs(grads[name]).max() + 1e-11


def test_the_state_is_carried_from_chunk_to_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are consecutive in each stream, and each continues from the previous state."""
    seen: list[list[Any]] = []
    forward, compute = Network.apply_forward, CrossEntropy.compute

    def spy(net: Any, x: Any, state: Any = None, **options: Any) -> Any:
        y, tape = forward(net, x, state, **options)
        seen.append([x, None, state, tape.state])
        return y, tape

    def spy_targets(loss: Any, z: Any, target: Any, *more: Any) -> Any:
        if seen[-1][1] is None:
            seen[-1][1] = target
        return compute(loss, z, target, *more)

    monkeypatch.setattr(Network, "apply_forward", spy)
    monkeypatch.setattr(CrossEntropy, "compute", spy_targets)
    text = "".join(chr(0x4E00 + i) for i in range(900))  # every character once
    CharLM(**SMALL, epochs=2, seed=0).fit(text, verbose=0)
    # 854 characters that have a successor, in 4 streams: only the last two are left out.
    for epoch in (seen[:11], seen[11:]):
        assert [x.shape for x, *_ in epoch] == [(20, 4)] * 10 + [(13, 4)]
        for x, target, *_ in epoch:
            np.testing.assert_array_equal(target, x + 1)
        for (_, target, _, after), (x, _, before, _) in pairwise(epoch):
            np.testing.assert_array_equal(x[0], target[-1])
            assert before is after
        assert epoch[0][2] is None


def test_ctrl_c_keeps_the_model_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Adam.apply
    calls = []

    def apply(self: Any, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        usual(self, *args)

    monkeypatch.setattr(Adam, "apply", apply)
    model = CharLM(**SMALL, lr=2e-2, seed=0).fit(PATTERN, verbose=0)
    assert model.interrupted
    # 29 steps: an epoch of 21 chunks of 20 characters and one of 7, and 7 chunks more.
    assert model.history[-1].characters == (28 * 20 + 7) * 4
    assert model.bits_per_char(PATTERN) < math.log2(len(model.vocabulary))


def test_dropped_weights_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if Ctrl-C arrives while they are dropped."""
    usual = Network.gradients
    untouched = CharLM(**SMALL, weight_dropout=0.5, seed=0)._new_net(len(set(PATTERN)))

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        grads = usual(self, *args, **options)
        assert (grads["2.weight_hh_l0"] == 0).mean() > 0.4
        raise KeyboardInterrupt

    monkeypatch.setattr(Network, "gradients", interrupted)
    model = CharLM(**SMALL, weight_dropout=0.5, epochs=1, seed=0).fit(PATTERN, verbose=0)
    params = model._fitted().net.parameters()
    for name, p in untouched.parameters().items():
        np.testing.assert_array_equal(params[name], p)


def test_records_say_what_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loss is the mean over the characters since the previous record, across epochs."""
    compute = CrossEntropy.compute
    chunks: list[tuple[int, float]] = []

    def spy(loss: Any, z: Any, target: Any, *more: Any) -> Any:
        result = compute(loss, z, target, *more)
        chunks.append((target.size, result[0]))
        return result

    def bits(net: Any, ids: Any) -> float:
        return 8 - len(chunks) / 100

    monkeypatch.setattr(CrossEntropy, "compute", spy)
    monkeypatch.setattr(_training, "mean_bits", bits)
    model = CharLM(**SMALL, epochs=2.5, seed=0).fit(PATTERN, verbose=0)
    assert sum(size for size, _ in chunks) == model.history[-1].characters == 4 * (2 * 427 + 220)
    assert len(model.history) > 5
    before = 0
    for record in model.history:
        sizes, losses = [], []
        while sum(sizes) < record.characters - before:
            size, loss = chunks.pop(0)
            sizes.append(size)
            losses.append(loss)
        assert sum(sizes) == record.characters - before
        assert record.loss == pytest.approx(np.average(losses, weights=sizes), rel=1e-9)
        before = record.characters
    assert not chunks


def test_the_learning_rate_falls_over_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Adam.apply
    rates: list[float] = []

    def apply(self: Any, *args: Any) -> None:
        rates.append(self.lr(self.steps))
        usual(self, *args)

    monkeypatch.setattr(Adam, "apply", apply)
    CharLM(**SMALL, epochs=1.5, lr=0.01, seed=0).fit(PATTERN, verbose=0)
    assert rates == [CosineDecay(0.01, 33)(step) for step in range(33)]
    rates.clear()
    CharLM(**SMALL, epochs=1e300, max_seconds=0.5, lr=0.01, seed=0).fit(PATTERN, verbose=0)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.0099
    assert rates[-1] < 0.005


def test_time_is_a_budget() -> None:
    model = CharLM(**SMALL, max_seconds=0.3, seed=0).fit(PATTERN, verbose=0)
    assert 0.3 <= model.history[-1].seconds < 3


def test_divergence_is_an_error_and_leaves_no_model() -> None:
    model = CharLM("rnn", **SMALL, lr=1e38, clip_norm=1e30, epochs=5, seed=0)
    with pytest.raises(ValueError, match="lr: expected a smaller value, training diverged"):
        model.fit(PATTERN, verbose=0)
    with pytest.raises(ValueError, match="call fit first"):
        model.generate("", 1)


def test_progress_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    model = CharLM(**SMALL, epochs=1, seed=0)
    model.fit(PATTERN, verbose=0)
    assert capsys.readouterr() == ("", "")
    model.fit(PATTERN)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"100% .* s  loss \d\.\d+, validation \d\.\d+ bits/char, [\d,]+ char/s", last
    )


def test_progress_as_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    CharLM(**SMALL, epochs=1, seed=0).fit(PATTERN)
    err = capsys.readouterr().err
    assert "100%|" in err
    assert "bits/char" in err


def test_resume_trains_further(model: CharLM, file: Path) -> None:
    """From the weights as they are, of this model or of a file, and only as far as they go."""
    before = model.bits_per_char(PATTERN)
    other = "lazy dogs jump over the quick brown fox.\n" * 40
    for start in (CharLM.load(file), pickle.loads(pickle.dumps(model))):
        start.set_params(lr=1e-12, epochs=1)
        start.fit(other, resume=True, verbose=0)
        assert start.vocabulary == model.vocabulary
        assert start.bits_per_char(PATTERN) == pytest.approx(before, rel=1e-5)
        start.set_params(lr=1e-2, dropout=0.0, epochs=6)
        before_other = start.bits_per_char(other)
        start.fit(other, resume=True, verbose=0)
        assert start.bits_per_char(other) < before_other / 2
        assert start.history[-1].characters < 6 * len(other)
    assert model.bits_per_char(PATTERN) == before


def test_resume_refuses(file: Path) -> None:
    model = CharLM.load(file)
    before = model.bits_per_char(PATTERN)
    with pytest.raises(ValueError, match="CharLM: expected a fitted or loaded model"):
        CharLM().fit(PATTERN, resume=True)
    for name, value in (("hidden_size", 7), ("cell", "gru"), ("normalization", "NFC")):
        usual = getattr(model, name)
        setattr(model, name, value)
        with pytest.raises(ValueError, match=f"{name}: expected {usual!r} as in the model to res"):
            model.fit(PATTERN, resume=True)
        setattr(model, name, usual)
    for text, name in (("ß" + PATTERN, "text"), (PATTERN + "ß", "validation part of text")):
        with pytest.raises(ValueError, match=f"^{name}: expected characters of the text fitted, g"):
            model.fit(text, resume=True)
    with pytest.raises(ValueError, match="unknown: expected a model fitted with unknown='repla"):
        model.set_params(unknown="replace").fit(PATTERN, resume=True)
    with pytest.raises(ValueError, match="text: expected 2 characters or more to train on"):
        model.set_params(unknown="skip").fit("ß" * 100 + "the", resume=True)
    with pytest.raises(TypeError, match="resume: expected True or False"):
        model.fit(PATTERN, resume="yes")  # type: ignore[arg-type]
    assert model.bits_per_char(PATTERN) == before


def test_unknown_characters_are_skipped(model: CharLM) -> None:
    bits = model.bits_per_char("the quick brown")
    assert model.bits_per_char("ßthe quic漢k brown", unknown="skip") == bits
    assert model.generate("ßthe", 9, seed=0, unknown="skip") == model.generate("the", 9, seed=0)
    assert model.generate("ß", 9, seed=0, unknown="skip") == model.generate("", 9, seed=0)
    with pytest.raises(ValueError, match=r"at position 4; unknown='skip' leaves such characters"):
        model.bits_per_char("the ß")
    with pytest.raises(ValueError, match="unknown: expected a model fitted with unknown='replace'"):
        model.bits_per_char("the ß", unknown="replace")
    with pytest.raises(ValueError, match="unknown: expected one of 'error', 'skip', 'rep"):
        model.generate("a", 3, unknown="drop")
    with pytest.raises(ValueError, match="text: expected 2 characters or more, got 1"):
        model.bits_per_char("tß", unknown="skip")


def test_unknown_characters_are_replaced(tmp_path: Path) -> None:
    """By one that training reads where a character occurs once, and that is never written."""
    text = PATTERN.replace("q", "�", 1) + "ßäöü" + PATTERN
    model = CharLM(**SMALL, epochs=1, unknown="replace", validation_fraction=0.5, seed=0)
    model.fit("é" + text, verbose=0)
    assert model.vocabulary == "".join(sorted({*PATTERN, "�"}))
    model.save(tmp_path / "m")
    again = CharLM.load(tmp_path / "m")
    assert (
        again.bits_per_char("the ß")
        == again.bits_per_char("the 漢")
        == model.bits_per_char("the �")
    )
    assert again.generate("ß", 200, temperature=100, seed=0).count("�") == 0
    again.fit(text + "漢字", resume=True, verbose=0)
    with pytest.raises(ValueError, match="text: expected characters of the text fitted, got 'ß'"):
        again.bits_per_char("the ß", unknown="error")


def test_a_file_without_the_replacement(file: Path) -> None:
    kind, header, tensors = model_file.read(file)
    model_file.write(file, kind, header | {"unknown": "replace"}, tensors)
    with pytest.raises(ValueError, match=r"vocabulary: expected U\+FFFD"):
        CharLM.load(file)


def test_normal_forms() -> None:
    composed = "thật tốt quá\n" * 60
    text = composed.replace("á", "a\u0301").replace("ậ", "a\u0302\u0323")
    model = CharLM(**SMALL, epochs=1, seed=0).fit(text, verbose=0)
    assert "\u0302" in model.vocabulary  # what is read is what was written
    model = CharLM(**SMALL, epochs=1, normalization="NFC", seed=0).fit(text, verbose=0)
    assert model.vocabulary == "".join(sorted(set(composed)))
    assert model.bits_per_char(text) == model.bits_per_char(composed)
    assert model.generate("qua\u0301", 5, seed=0) == model.generate("quá", 5, seed=0)
    with pytest.raises(ValueError, match="normalization: expected one of 'NFC', 'NFD', 'NFKC', 'N"):
        CharLM(normalization="nfc")


class Watch(fastrnn.callbacks.Callback):
    """Keeps the logs of each epoch, and stops after the second."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.seen.append(dict(logs))
        self.model.stop_training = epoch == 1


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.5])
def test_callbacks(fraction: float) -> None:
    watch = Watch()
    model = CharLM(**SMALL, epochs=5, validation_fraction=fraction, seed=0)
    model.fit(PATTERN, callbacks=[watch], verbose=0)
    assert len(watch.seen) == 2
    for logs in watch.seen:
        assert logs["loss"] > 0
        assert ("val_loss" in logs) == (fraction > 0)
    if fraction:
        last = watch.seen[-1]["val_loss"] / math.log(2)
        assert last == pytest.approx(model.history[-1].validation_bits)
    with pytest.raises(TypeError, match="callbacks: expected a list"):
        model.fit(PATTERN, callbacks=watch)  # type: ignore[arg-type]


def test_early_stopping() -> None:
    stop = fastrnn.callbacks.EarlyStopping(patience=1, min_delta=100.0)
    model = CharLM(**SMALL, epochs=9, seed=0).fit(PATTERN, callbacks=[stop], verbose=0)
    assert stop.stopped_epoch == 1
    assert model.history[-1].characters < 3 * len(PATTERN)


def test_a_checkpoint_resumes_with_the_same_bits(tmp_path: Path) -> None:
    def trained(*callbacks: fastrnn.callbacks.Callback) -> CharLM:
        model = CharLM(**SMALL, epochs=4, seed=0)
        return model.fit(PATTERN, callbacks=callbacks, verbose=0)

    class Killed(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
            if self.progress.epoch == 2 and batch == 3:
                raise RuntimeError

    keep = fastrnn.callbacks.Checkpoint(tmp_path / "c", every=2)
    usual = trained(fastrnn.callbacks.Callback())
    with pytest.raises(RuntimeError):
        trained(Killed(), keep)
    Killed.on_train_batch_end = lambda self, batch, logs: None  # type: ignore[method-assign]
    again = trained(Killed(), keep)
    assert again.bits_per_char(PATTERN) == usual.bits_per_char(PATTERN)
    assert [r[1:] for r in again.history] == [r[1:] for r in usual.history]


def test_several_texts_are_to_be_joined(model: CharLM) -> None:
    for use in (model.fit, model.bits_per_char):
        with pytest.raises(TypeError, match="text: expected a str, got list; join several"):
            use(["the", "fox"])  # type: ignore[arg-type]


def test_split() -> None:
    assert split("abcd", 0.25) == ("abc", "d")
    assert split("", 0) == ("", "")
    with pytest.raises(TypeError, match=r"text: expected a str, got bytes$"):
        split(b"ab", 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"validation_fraction: expected a number in \[0, 1\)"):
        split("ab", 1.5)
    with pytest.raises(ValueError, match="text: expected one character or more"):
        training_speed(CharLM(**SMALL, epochs=1).fit(PATTERN, verbose=0), "")


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "a" * 20])
def test_a_text_may_be_too_short(text: str) -> None:
    with pytest.raises(ValueError, match="text: expected 2 characters or more to train on"):
        CharLM().fit(text, verbose=0)


def test_the_shortest_text() -> None:
    model = CharLM(**SMALL, validation_fraction=0.5, epochs=1).fit("abab", verbose=0)
    assert len(model.generate("", 5)) == 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"cell": "gpt"},
            ValueError,
            "cell: expected one of 'rnn', 'lstm', 'gru', 'indrnn', got 'gpt'",
        ),
        ({"hidden_size": 0}, ValueError, "hidden_size: expected"),
        ({"embedding_dim": 1.5}, TypeError, "embedding_dim: expected"),
        ({"seq_len": -1}, ValueError, "seq_len: expected"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
        ({"lr": 0}, ValueError, "lr: expected"),
        ({"clip_norm": math.nan}, ValueError, "clip_norm: expected"),
        ({"epochs": 0}, ValueError, "epochs: expected"),
        ({"max_seconds": math.inf}, ValueError, "max_seconds: expected"),
        ({"num_layers": 0}, ValueError, "num_layers: expected"),
        ({"dropout": 1}, ValueError, "dropout: expected"),
        ({"input_dropout": 1}, ValueError, "input_dropout: expected"),
        ({"weight_dropout": 1}, ValueError, "weight_dropout: expected"),
        ({"validation_fraction": "half"}, TypeError, "validation_fraction: expected"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CharLM(**options)


def test_text_must_be_text() -> None:
    with pytest.raises(TypeError, match="text: expected a str, got bytes"):
        CharLM().fit(b"abc" * 100)  # type: ignore[arg-type]


# Bits per character.


def test_bits_per_char_by_the_definition(model: CharLM) -> None:
    text = PATTERN[100:180]
    ids = [model.vocabulary.index(c) for c in text]
    logits = model._fitted().net([ids[:-1]])
    p = np.exp(logits[0].astype(float))
    p /= p.sum(-1, keepdims=True)
    expected = -np.log2(p[np.arange(len(ids) - 1), ids[1:]]).mean()
    assert model.bits_per_char(text) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [4001, 6007, 9999])
def test_bits_per_char_in_pieces(
    model: CharLM, length: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    text = "".join(rng.choice(list(model.vocabulary), length))
    bits = model.bits_per_char(text)
    monkeypatch.setattr(_evaluation, "_MAX_PIECES", 1)
    assert bits == pytest.approx(model.bits_per_char(text), rel=1e-3)


def test_bits_per_char_refuses(model: CharLM) -> None:
    with pytest.raises(
        ValueError, match="text: expected characters of the text fitted, got 'ß' at"
    ):
        model.bits_per_char("the groß")
    with pytest.raises(ValueError, match="text: expected 2 characters or more, got 1"):
        model.bits_per_char("a")
    with pytest.raises(ValueError, match="call fit first"):
        CharLM().bits_per_char("abc")


@pytest.mark.parametrize("length", [2, 10, 17])
def test_adaptation_learns_what_was_scored_only(model: CharLM, length: int) -> None:
    text = PATTERN[5:][:length]
    assert model.bits_per_char(text, adapt_lr=0.1) == pytest.approx(model.bits_per_char(text))


def test_adaptation_to_another_text(rng: np.random.Generator) -> None:
    options = {"num_layers": 2, "dropout": 0.5, "input_dropout": 0.2, "weight_dropout": 0.5}
    model = CharLM(**SMALL | options, epochs=5, seed=0).fit(PATTERN, verbose=0)
    word = "".join(rng.permutation(list(model.vocabulary)))
    static = model.bits_per_char(word * 40)
    adapted = model.bits_per_char(word * 40, adapt_lr=1e-2)
    assert adapted < static - 1
    # Nothing is dropped, and the model itself is unchanged.
    assert adapted == model.bits_per_char(word * 40, adapt_lr=1e-2)
    assert static == model.bits_per_char(word * 40)
    # A tiny rate hardly changes it.
    assert model.bits_per_char(word * 40, adapt_lr=1e-12) == pytest.approx(static, rel=1e-5)


@pytest.mark.parametrize("lr", [0, -1.0, math.inf])
def test_adaptation_refuses(model: CharLM, lr: float) -> None:
    with pytest.raises(ValueError, match="adapt_lr: expected a finite number above 0, got"):
        model.bits_per_char("the quick", adapt_lr=lr)


# Writing.


def test_generate(model: CharLM) -> None:
    text = model.generate("the ", 50, seed=1)
    assert len(text) == 50
    assert text == model.generate("the ", 50, seed=1)
    assert text != model.generate("the ", 50, temperature=5.0, seed=1)
    assert model.generate("the ", 50, top_k=1, seed=1) == model.generate("the ", 50, temperature=0)
    assert model.generate("", 10, top_k=10**6, seed=2) == model.generate("\n", 10, seed=2)


def test_generate_is_the_model_step_by_step(model: CharLM) -> None:
    written = "the"
    for _ in range(15):
        ids = np.array([model.vocabulary.index(c) for c in written])
        logits = model._fitted().net(ids[None])
        written += model.vocabulary[int(logits[0, -1].argmax())]
    assert model.generate("the", 15, temperature=0) == written[3:]


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0, "top_k": 4}, {"temperature": 0}])
def test_generate_draws_one_by_one(model: CharLM, backend: str, options: dict[str, Any]) -> None:
    """More characters than are drawn in one call, by the numbers of one generator."""
    temperature, k = options.get("temperature", 1.0), options.get("top_k", len(model.vocabulary))
    stream, rng, written = model._fitted().net.stream(), np.random.default_rng(3), ""
    y = stream.step(model.vocabulary.index("t"))
    while len(written) < 300:
        token = stepping.drawn(y, temperature, k, rng.random())
        written += model.vocabulary[token]
        y = stream.step(token)
    assert model.generate("t", 300, seed=3, **options) == written


def test_samples_follow_the_probabilities(rng: np.random.Generator) -> None:
    logits = np.log(np.array([0.1, 0.6, 0.3], np.float32))
    for k, temperature, expected in (
        (3, 1.0, [0.1, 0.6, 0.3]),
        (2, 1.0, [0, 2 / 3, 1 / 3]),
        (3, 0.5, [0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46]),
    ):
        drawn = [stepping.drawn(logits, temperature, k, u) for u in rng.random(4000)]
        np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4000, expected, atol=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": "ß"}, ValueError, "prompt: expected characters of the text fitted, got 'ß'"),
        ({"prompt": None}, TypeError, "prompt: expected a str"),
        ({"length": 0}, ValueError, "length: expected"),
        ({"temperature": -1}, ValueError, "temperature: expected"),
        ({"temperature": math.nan}, ValueError, "temperature: expected"),
        ({"top_k": 0}, ValueError, "top_k: expected"),
        ({"seed": -1}, ValueError, "seed: expected"),
    ],
)
def test_generate_checks(
    model: CharLM, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.generate(**{"prompt": "", "length": 3, **arguments})


# Files.


def same(a: CharLM, b: CharLM) -> bool:
    return a.bits_per_char(PATTERN) == b.bits_per_char(PATTERN) and a.generate(
        "a", 40, seed=3
    ) == b.generate("a", 40, seed=3)


def test_comes_back_from_its_file(model: CharLM, file: Path) -> None:
    loaded = CharLM.load(file)
    assert repr(loaded) == repr(model)
    assert same(loaded, model)
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("cell", list(CELLS))
def test_layers_come_back(cell: str, tmp_path: Path) -> None:
    options = SMALL | {"num_layers": 3, "input_dropout": 0.1, "weight_dropout": 0.2, "seed": 0}
    model = CharLM(cell, **options, epochs=1).fit(PATTERN, verbose=0)
    model.save(tmp_path / "m")
    loaded = CharLM.load(tmp_path / "m")
    assert repr(loaded) == repr(model)
    assert same(loaded, model)


def test_pickles(model: CharLM) -> None:
    assert same(pickle.loads(pickle.dumps(model)), model)


@pytest.mark.parametrize(
    ("name", "bits", "written"),
    [
        ("lstm", 2.0645666, "d the d the d the d the d the "),
        ("gru", 0.6957474, "lazy dog.\nthe lazy dog.\nthe la"),
        ("rnn", 0.7099230, "quick brown fox brown fox brow"),
    ],
)
def test_files_of_0_1_0(name: str, bits: float, written: str) -> None:
    model = CharLM.load(Path(__file__).parent / f"data/char_lm_{name}-0.1.0.safetensors")
    assert model.bits_per_char(PATTERN[:300]) == pytest.approx(bits, rel=1e-5)
    assert model.generate("the ", 30, temperature=0) == written


def test_settings_are_checked_when_set_and_count_from_the_next_fit(tmp_path: Path) -> None:
    model = CharLM(**SMALL, epochs=1, seed=0).fit(PATTERN, verbose=0)
    expected = model.bits_per_char(PATTERN), model.generate("the", 20, seed=0)
    for name, value in (("hidden_size", 0), ("cell", "gpt"), ("dropout", 1.0), ("epochs", -1)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            setattr(model, name, value)
    for name in ("vocabulary", "history", "interrupted", "hiden_size"):
        with pytest.raises(AttributeError, match=f"CharLM.{name}: is "):
            setattr(model, name, "abc")
    model.hidden_size, model.cell, model.embedding_dim, model.num_layers = 7, "gru", 3, 2
    assert (model.bits_per_char(PATTERN), model.generate("the", 20, seed=0)) == expected
    model.save(tmp_path / "m")
    assert CharLM.load(tmp_path / "m").bits_per_char(PATTERN) == expected[0]
    assert model.fit(PATTERN, verbose=0).bits_per_char(PATTERN) != expected[0]


def test_a_fit_that_fails_changes_nothing() -> None:
    model = CharLM(**SMALL, epochs=1, seed=0).fit(PATTERN, verbose=0)
    expected, history = model.bits_per_char(PATTERN), model.history
    model.lr, model.clip_norm, model.cell = 1e38, 1e30, "rnn"
    with pytest.raises(ValueError, match="training diverged"):
        model.fit(PATTERN.upper(), verbose=0)
    assert model.bits_per_char(PATTERN) == expected
    assert model.history is history


def test_nothing_of_a_fit_stays_behind() -> None:
    """Without the text, the state of the optimizer and the best weights."""
    model = CharLM(**SMALL, epochs=1, seed=0).fit(PATTERN * 20, verbose=0)
    weights = sum(w.nbytes for w in model._fitted().net.parameters().values())
    assert len(pickle.dumps(model)) < weights + 5000


def test_from_buffers_that_can_not_be_written(model: CharLM) -> None:
    """As Ray and Dask return them."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    assert same(again, model)
    expected = model.bits_per_char(PATTERN[:100], adapt_lr=1e-3)
    assert again.bits_per_char(PATTERN[:100], adapt_lr=1e-3) == expected
    again.epochs = 1
    assert again.fit(PATTERN, verbose=0).history


def test_any_character_may_be_in_a_model(tmp_path: Path) -> None:
    text = 'a"\\\n\t\x01é漢\U0001f600\ud800\udc00' * 30
    model = CharLM(**SMALL, epochs=1, seed=0).fit(text, verbose=0)
    model.save(tmp_path / "m")
    assert CharLM.load(tmp_path / "m").vocabulary == "".join(sorted(set(text)))


def test_a_failed_save_leaves_what_was_there(
    model: CharLM, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=r"No space left on device: .*m\.safetensors'"):
            model.save(file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_saves_only_to_regular_files(model: CharLM, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="is not a regular file"):
        model.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No such file.*/nowhere/m'"):
        model.save(tmp_path / "nowhere/m")
    with pytest.raises(ValueError, match="call fit first"):
        CharLM().save(tmp_path / "m")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CharLM.load(tmp_path / "m")
    with pytest.raises(IsADirectoryError):
        CharLM.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: b"\x80\x04" + data[2:],
        lambda data: bytes(len(data)),
        lambda data: b"PK\x03\x04 a zip file",
        lambda data: save({"a": np.zeros(3)}),
        lambda data: save({"a": np.zeros(3)}, {"format": "pt"}),
    ],
)
def test_damaged_and_foreign_files(file: Path, damage: Callable[[bytes], bytes]) -> None:
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"^[^\n]*m\.safetensors: is [^\n]+$"):
        CharLM.load(file)


def test_no_flipped_bit_goes_unseen(file: Path) -> None:
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    places = [*range(start), *range(start, len(data), 997)]
    for n, i in enumerate(places):
        data[i] ^= 1 << n % 8
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.safetensors: "):
            CharLM.load(file)
        data[i] ^= 1 << n % 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**12}, "linear.weight: expected shape"),
        ({"num_layers": 10**12}, "tensors: expected"),
        ({"embedding_dim": 4}, "embedding.weight: expected shape"),
        ({"cell": "gru"}, "recurrent.weight_ih_l0: expected shape"),
        ({"cell": "__import__"}, "cell: expected one of"),
        ({"vocabulary": "abc"}, "embedding.weight: expected shape"),
        ({"vocabulary": "zyxwvutsrqponmlkjihgfedcba \n."}, "sorted, distinct"),
        ({"vocabulary": 3}, "vocabulary: expected a str"),
        ({"novelty": 1}, "novelty"),
        (None, "is damaged"),
        ([], "is damaged"),
        ("[" * 200_000, "is damaged"),
    ],
)
def test_headers_that_do_not_fit(file: Path, change: Any, message: str) -> None:
    """A malicious file can have a valid checksum."""
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = load(data)
    if isinstance(change, dict):
        change = json.loads(header["model"]) | change
    header["model"] = change if isinstance(change, str) else json.dumps(change)
    header["crc32"] = model_file.checksum(header["kind"], header["model"], tensors)
    file.write_bytes(save(tensors, header))
    with pytest.raises(ValueError, match=message):
        CharLM.load(file)


def test_no_header_makes_more_than_the_file_holds(tmp_path: Path) -> None:
    """One character, and a hidden size whose recurrent weights would take a terabyte."""
    H = 500_000
    options = {"cell": "lstm", "embedding_dim": 1, "hidden_size": H, "vocabulary": "a"}
    tensors = {
        name: np.zeros(shape, np.float32)
        for name, shape in {
            "embedding.weight": (1, 1),
            "linear.weight": (1, H),
            "linear.bias": (1,),
            "recurrent.weight_ih_l0": (4 * H, 1),
            "recurrent.weight_hh_l0": (1, H),
            "recurrent.bias_ih_l0": (4 * H,),
            "recurrent.bias_hh_l0": (4 * H,),
        }.items()
    }
    header = {"format": "fastrnn", "kind": "CharLM", "version": "1"}
    header["model"] = json.dumps(options)
    header["crc32"] = model_file.checksum(header["kind"], header["model"], tensors)
    (tmp_path / "m").write_bytes(save(tensors, header))
    with pytest.raises(ValueError, match=r"recurrent\.weight_hh_l0: expected shape"):
        CharLM.load(tmp_path / "m")


def test_a_version_to_come(file: Path) -> None:
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    file.write_bytes(save(load(data), header | {"version": "99"}))
    with pytest.raises(ValueError, match="expected format version 1, got '99'"):
        CharLM.load(file)


# Counting.


def slow_witten_bell(train: str, text: str, order: int) -> float:
    """Compute it by the definition, character by character."""
    V = len(set(train + text))

    def p(context: str, c: str) -> float:
        lower = p(context[1:], c) if context else 1 / V
        n = len(context)
        follow = [train[i + n] for i in range(len(train) - n) if train[i : i + n] == context]
        distinct = len(set(follow))
        return (follow.count(c) + distinct * lower) / (len(follow) + distinct) if follow else lower

    whole = train + text
    bits = [
        -math.log2(p(whole[i - order : i], whole[i])) for i in range(len(train) + 1, len(whole))
    ]
    return sum(bits) / len(bits)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_ngram_by_the_definition(order: int, rng: np.random.Generator) -> None:
    train, text = ("".join(rng.choice(list("abcde"), n)) for n in (150, 40))
    text += "zaz"
    bits = ngram_bits_per_char(train, text, order)
    assert bits == pytest.approx(slow_witten_bell(train, text, order), rel=1e-12)


def test_ngram_refuses() -> None:
    with pytest.raises(ValueError, match="train, text: expected more than 2"):
        ngram_bits_per_char("ab", "cd", 2)
    with pytest.raises(ValueError, match="order: 70 is too large"):
        ngram_bits_per_char("ab" * 100, "cd", 70)
    with pytest.raises(ValueError, match="order: expected"):
        ngram_bits_per_char("ab", "cd", -1)
    with pytest.raises(TypeError, match="train: expected a str, got list"):
        ngram_bits_per_char(["ab"], "cd", 0)  # type: ignore[arg-type]
