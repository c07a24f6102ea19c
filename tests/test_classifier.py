"""The text classifier: learning, files, and errors."""

from __future__ import annotations

import gzip
import io
import itertools
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import model_file
from fastrnn.cli import main
from fastrnn.models.estimators import CELLS
from fastrnn.optim import Adam
from fastrnn.text import TextClassifier, _evidence, _examples, _tokens
from fastrnn.text._evidence import Evidence

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
OLD = Path(__file__).parent / "data"
SMALL: dict[str, Any] = {
    "embedding_dim": 8, "hidden_size": 8, "dropout": 0.1, "lr": 2e-2, "batch_size": 16, "seed": 0
}  # fmt: skip


def corpus(n: int = 240, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts whose class depends on one word, and is reversed by a "not" before it."""
    rng = np.random.default_rng(seed)
    filler = ["the", "a", "film", "story", "was", "it", "and", "then", "so", "very"]
    texts, labels = [], []
    for _ in range(n):
        words = list(rng.choice(filler, rng.integers(2, 9)))
        good, negated = rng.integers(0, 2, 2)
        said = ["not"] * negated + [["bad", "dull"], ["good", "fine"]][good][rng.integers(2) :][:1]
        at = rng.integers(len(words) + 1)
        texts.append(" ".join(words[:at] + said + words[at:]).capitalize() + "!")
        labels.append("praise" if good != negated else "blame")
    return texts, labels


@pytest.fixture(scope="module")
def model() -> TextClassifier:
    return TextClassifier(**SMALL, epochs=20).fit(*corpus(), verbose=0)


def test_learns_and_predicts(model: TextClassifier) -> None:
    texts, labels = corpus(100, seed=1)
    assert model.classes.tolist() == ["blame", "praise"]
    p = model.predict_proba(texts)
    assert p.shape == (100, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    predicted = model.predict(texts)
    assert predicted.tolist() == [["blame", "praise"][int(row[1] > row[0])] for row in p]
    assert model.score(texts, labels) == np.mean(predicted == labels) > 0.95
    assert model.history is not None
    assert model.history.history["loss"][-1] < model.history.history["loss"][0] / 2


def test_rt_polarity() -> None:
    """Movie reviews (Pang and Lee 2005), a tenth held out."""
    files = [DATA / f"rt-polarity.{kind}" for kind in ("neg", "pos")]
    if not all(file.exists() for file in files):
        pytest.skip(f"no {files[0]}")
    lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
    texts, labels = [*lines[0], *lines[1]], np.repeat([0, 1], [len(of) for of in lines])
    order = np.random.default_rng(0).permutation(len(texts))
    held, rest = np.split(order, [len(order) // 10])
    model = TextClassifier(hidden_size=16, lr=4e-3, epochs=3, seed=0)
    model.fit([texts[i] for i in rest], labels[rest], verbose=0)
    assert model.score([texts[i] for i in held], labels[held]) > 0.75


def test_rows_do_not_depend_on_each_other(model: TextClassifier) -> None:
    texts, _ = corpus(30, seed=2)
    together = model.predict_proba(texts)
    alone = np.concatenate([model.predict_proba([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "c"] * 20, ["a", "b", "c"]),
        ([7, -1, 3] * 20, [-1, 3, 7]),
        ([True, False, True] * 20, [False, True]),
        (np.array(["x", "y", "x"] * 20, dtype=object), ["x", "y"]),
        (np.array([7, 200, 9] * 20, dtype="uint8"), [7, 9, 200]),
        (np.array([1, 0, 5] * 20, dtype="float32"), [0.0, 1.0, 5.0]),
    ],
)
def test_labels_of_any_kind(labels: Any, classes: list[Any], tmp_path: Path) -> None:
    texts = ["one", "two words", "Three, of them"] * 20
    model = TextClassifier(**SMALL, epochs=20).fit(texts, labels, verbose=0)
    assert model.classes.tolist() == classes
    assert model.score(texts, labels) == 1
    model.save(tmp_path / "m")
    again = TextClassifier.load(tmp_path / "m")
    assert again.classes_.dtype == model.classes_.dtype == again.predict(texts).dtype
    assert again.predict(texts).tolist() == list(labels)
    assert again.classes.dtype.kind == model.classes.dtype.kind


def test_words() -> None:
    model = TextClassifier(**SMALL, epochs=1, min_count=2)
    model.fit(["It's GOOD, it's good.", "Once; ça va? ça va", ""], [0, 1, 1], verbose=0)
    assert model.vocabulary == ["good", "it's", "va", "ça"]
    unknown = model.predict_proba(["zebra", "", "ONCE"])
    np.testing.assert_array_equal(unknown[0], unknown[1])
    np.testing.assert_array_equal(unknown[0], unknown[2])


def test_max_length() -> None:
    texts, labels = ["a b", "b a"] * 20, [0, 1] * 20
    model = TextClassifier(**SMALL, epochs=20, max_length=1).fit(iter(texts), labels, verbose=0)
    assert model.score(["a b b", "b a a"], [0, 1]) == 1
    np.testing.assert_array_equal(model.predict_proba(["a b"]), model.predict_proba(["a"]))


def test_characters() -> None:
    model = TextClassifier("characters", **SMALL, epochs=20, min_count=1)
    texts = ["aab", "aba", "Baa", "b\na"] * 20
    model.fit(texts, list("wxyz") * 20, verbose=0)
    assert model.vocabulary == ["\n", "B", "a", "b"]
    assert model.predict(texts[:4]).tolist() == list("wxyz")


@pytest.mark.parametrize(
    "options",
    [{}, *({"cell": cell, "num_layers": 2, "bidirectional": False} for cell in CELLS)],
)
def test_comes_back_from_its_file(options: dict[str, Any], tmp_path: Path) -> None:
    texts, labels = corpus(40)
    model = TextClassifier(**SMALL, **options, epochs=2).fit(texts, labels, verbose=0)
    expected = model.predict_proba(texts)
    model.save(tmp_path / "m.safetensors")
    for again in (
        TextClassifier.load(tmp_path / "m.safetensors"),
        fastrnn.load(tmp_path / "m.safetensors"),
        pickle.loads(pickle.dumps(model)),
        TextClassifier(**SMALL, **options, epochs=2).fit(texts, labels, verbose=0),
    ):
        np.testing.assert_array_equal(again.predict_proba(texts), expected)
        assert repr(again) == repr(model)


def test_settings_are_checked_when_set_and_count_from_the_next_fit(tmp_path: Path) -> None:
    texts, labels = corpus(40)
    model = TextClassifier(**SMALL, epochs=1).fit(texts, labels, verbose=0)
    expected = model.predict_proba(texts)
    for name, value, said in (
        ("unit", "letters", "unit: expected one of"),
        ("max_length", 0, "max_length: expected"),
        ("hidden_size", -1, "hidden_size: expected"),
        ("cell", "gpt", "cell: expected one of"),
    ):
        with pytest.raises(ValueError, match=said):
            setattr(model, name, value)
    for name, value in (("classes", ["a", "b"]), ("vocabulary", []), ("units", "words")):
        with pytest.raises(AttributeError, match=f"TextClassifier.{name}: is "):
            setattr(model, name, value)
    model.classes[:] = model.classes[::-1]
    model.vocabulary.clear()
    model.unit, model.max_length, model.hidden_size, model.cell = "characters", 1, 5, "lstm"
    np.testing.assert_array_equal(model.predict_proba(texts), expected)
    model.save(tmp_path / "m")
    again = TextClassifier.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(texts), expected)
    assert max(map(len, model.fit(texts, labels, verbose=0).vocabulary)) == 1


def test_nothing_of_a_fit_stays_behind() -> None:
    model = TextClassifier(**SMALL, epochs=1).fit(*corpus(400), verbose=0)
    # 4 kB of weights, without texts and the optimizer's state.
    assert len(pickle.dumps(model)) < 4000 + 6000


def test_from_buffers_that_can_not_be_written(model: TextClassifier) -> None:
    """As Ray and Dask return them."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    texts, _ = corpus(30)
    np.testing.assert_array_equal(again.predict_proba(texts), model.predict_proba(texts))


OLD_TEXTS = ["good film", "bad film", "a good story", "a bad story, so bad", "It's fine", "dull"]


@pytest.mark.parametrize(
    ("name", "praise"),
    [
        ("gru", [0.4806337, 0.4449428, 0.4676778, 0.4235082, 0.4953233, 0.448024]),
        ("lstm", [0.5072264, 0.5071717, 0.5076882, 0.506177, 0.5088793, 0.5070505]),
    ],
)
def test_files_of_0_1_0(name: str, praise: list[float]) -> None:
    model = TextClassifier.load(OLD / f"text_classifier_{name}-0.1.0.safetensors")
    assert model.classes.tolist() == ["b", "p"]
    np.testing.assert_allclose(model.predict_proba(OLD_TEXTS)[:, 1], praise, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 10**9}, "expected shape"),
        ({"num_layers": 10**9}, "tensors: expected"),
        ({"embedding_dim": 9}, "0.weight: expected shape"),
        ({"cell": "gpt"}, "cell: expected"),
        ({"cell": "lstm"}, "expected shape"),
        ({"bidirectional": False}, "tensors: expected"),
        ({"vocabulary": ["a"]}, "0.weight: expected shape"),
        ({"vocabulary": "abc"}, "vocabulary: expected a list"),
        ({"vocabulary": [1]}, r"vocabulary\[0\]: expected a str"),
        ({"classes": ["praise", "blame"]}, "classes: expected a list of sorted"),
        ({"classes": [["a"], ["b"]]}, "unhashable"),
        ({"classes": []}, "classes: expected"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_lying_file(change: dict[str, Any], said: str, model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    kind, header, tensors = model_file.read(tmp_path / "m")
    model_file.write(tmp_path / "m", kind, header | change, tensors)
    with pytest.raises(ValueError, match=f"is damaged: .*{said}"):
        TextClassifier.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda m: TextClassifier("letters"), ValueError, "unit: expected one of 'words', 'char"),
        (lambda m: TextClassifier(cell="gpt"), ValueError, "cell: expected one of"),
        (lambda m: TextClassifier(dropout=1), ValueError, "dropout: expected"),
        (lambda m: TextClassifier(epochs=0), ValueError, "epochs: expected"),
        (lambda m: TextClassifier().fit("text", ["a"]), TypeError, "texts: expected a sequence"),
        (lambda m: TextClassifier().fit(None, []), TypeError, "texts: expected a sequence of str"),
        (
            lambda m: m.fit(["a", "b"], [0, 1], validation_data=["a"], verbose=0),
            ValueError,
            "validation_data: expected a pair",
        ),
        (
            lambda m: m.fit({"text": ["a"]}, [0]),
            TypeError,
            "texts: expected a sequence of str, such",
        ),
        (lambda m: m.fit(["a", None], [0, 1]), ValueError, r"texts\[1\]: is missing, it is None"),
        (lambda m: m.fit(["a", np.nan], [0, 1]), ValueError, r"texts\[1\]: is missing, it is nan"),
        (
            lambda m: m.fit(np.ma.array(["a", "b"], mask=[0, 1]), [0, 1]),
            ValueError,
            r"texts\[1\]: is missing, it is masked",
        ),
        (lambda m: m.fit(["a", "b"], ["x", None]), ValueError, r"labels\[1\]: is missing"),
        (lambda m: m.fit(["a", "b"], ["x", np.nan]), ValueError, r"labels\[1\]: is missing"),
        (lambda m: m.fit(["a", "b"], [0, np.nan]), ValueError, r"labels\[1\]: is missing"),
        (
            lambda m: m.set_params(min_count=2).fit(["a", "b"], [0, 1]),
            ValueError,
            "texts: expected words seen 2 times or more; pass a lower min_count",
        ),
        (lambda m: m.fit(["", " "], [0, 1]), ValueError, "texts: expected words, got none in 2"),
        (lambda m: TextClassifier(early_stopping=2), TypeError, "early_stopping: expected True"),
        (
            lambda m: TextClassifier(validation_fraction=0),
            ValueError,
            "validation_fraction: expected",
        ),
        (lambda m: TextClassifier(n_iter_no_change=0), ValueError, "n_iter_no_change: expected"),
        (lambda m: TextClassifier().fit([], []), ValueError, "texts: expected one text or more"),
        (
            lambda m: TextClassifier().fit(["a", 1], [0, 1]),
            TypeError,
            r"texts\[1\]: expected a str",
        ),
        (
            lambda m: TextClassifier().fit(["a"], [0, 1]),
            ValueError,
            r"labels: expected shape \(1,\)",
        ),
        (lambda m: TextClassifier().fit(["a"], [0.5]), TypeError, "labels: expected str, int or b"),
        (lambda m: m.fit(["a", "b"], ["x", 1]), TypeError, "labels: expected labels of one type"),
        (
            lambda m: m.fit(["a", "b"], ["x", "y"], verbose=0).score(["a"], [0]),
            TypeError,
            "labels: expected <U1 as in fit, got int64",
        ),
        (lambda m: TextClassifier().predict(["a"]), ValueError, "call fit first"),
        (lambda m: TextClassifier().save("m"), ValueError, "call fit first"),
        (
            lambda m: m.fit(["a", "b"], [0, 1], verbose=0).score(["a"], [0, 1]),
            ValueError,
            "labels: expected",
        ),
        (
            lambda m: m.fit(["a", "b"], [0, 1], validation_data=(["a"], [2]), verbose=0),
            ValueError,
            r"validation_data: expected labels among \[0 1\], got 2",
        ),
        (
            lambda m: m.fit(["a", "b"], ["x", "x"], verbose=0),
            ValueError,
            r"labels: expected two classes or more, got \['x'\]",
        ),
        (lambda m: TextClassifier(bidirectional="no"), TypeError, "bidirectional: expected True"),
    ],
)
def test_refused(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call(TextClassifier(**SMALL))


def test_words_in_many_scripts() -> None:
    """Letters keep their combining marks; where there are no spaces, characters are words."""
    for text, expected in (
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("don\u2019t o'clock ''x''", ["don\u2019t", "o'clock", "'", "'", "x", "'", "'"]),
        ("这部 3D电影!", ["这", "部", "3d", "电", "影", "!"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("한국어 좋아요", ["한국어", "좋아요"]),
        ("נר\u200dה", ["נר\u200dה"]),
        ("\u2764\ufe0f :)", ["\u2764\ufe0f", ":", ")"]),
        ("", []),
    ):
        assert _tokens.tokens(text, "words") == expected
        assert "".join(_tokens.tokens(text, "characters")) == text
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, "Thật TỐT quá, İ Å")
        for unit in _tokens.UNITS:
            usual = _tokens.tokens("Thật TỐT quá, İ Å", unit)
            assert _tokens.tokens(text, unit) == usual
    assert len(_tokens.tokens("ậ", "characters")) == 1
    assert _tokens.tokens("हिन्दी", "words", _tokens.FIRST) == ["ह", "ि", "न", "्", "द", "ी"]


def test_scripts_without_spaces_are_told(capsys: Any, tmp_path: Path) -> None:
    texts, labels = ["这部电影很好看", "映画はひどい"] * 10, [1, 0] * 10
    model = TextClassifier(**SMALL, epochs=2)
    assert model.by_characters == []
    model.fit(texts, labels, verbose=0)
    assert capsys.readouterr() == ("", "")
    assert model.by_characters == ["Han", "Kana"]
    assert "电" in model.vocabulary
    model.fit(texts, labels, verbose=2)
    assert "no spaces between words (Han, Kana): read by characters\n" in capsys.readouterr().err
    model.save(tmp_path / "m")
    assert TextClassifier.load(tmp_path / "m").by_characters == ["Han", "Kana"]
    assert TextClassifier("characters", **SMALL, epochs=1).fit(
        texts, labels, verbose=0
    ).by_characters == []  # fmt: skip


def toy(n: int, seed: int, classes: int = 2) -> tuple[list[str], list[int]]:
    """Return texts of 8 words, one of which is that of the class."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(n):
        words = [f"w{k}" for k in rng.integers(40, size=8)]
        words[rng.integers(8)] = f"class{i % classes}"
        texts.append(" ".join(words))
        labels.append(i % classes)
    return texts, labels


@pytest.mark.parametrize(
    "options",
    [
        *({"cell": cell} for cell in CELLS),
        {"num_layers": 2},
        {"bidirectional": False},
        {"hidden_size": 16, "embedding_dim": 8},
        {"class_weight": "balanced"},
    ],
)
def test_few_texts_suffice(options: dict[str, Any]) -> None:
    model = TextClassifier(**{"hidden_size": 32, "embedding_dim": 32, "seed": 0} | options)
    model.fit(*toy(60, 0), verbose=0)
    assert model.score(*toy(200, 1)) > 0.95
    assert model.history is not None
    assert len(model.history.history["loss"]) == 125


def test_many_classes() -> None:
    model = TextClassifier(hidden_size=32, embedding_dim=32, seed=0)
    model.fit(*toy(240, 0, 12), verbose=0)
    assert model.score(*toy(200, 1, 12)) > 0.9


def test_fewer_epochs_of_more_texts() -> None:
    model = TextClassifier(embedding_dim=1, hidden_size=1, bidirectional=False, seed=0)
    for n, epochs in ((2, 250), (64, 125), (2700, 3)):
        model.fit(["a", "b"] * (n // 2), [0, 1] * (n // 2), verbose=0)
        assert model.history is not None
        assert len(model.history.history["loss"]) == epochs


def naive_bayes(
    texts: list[str], labels: Any, words: list[str], weight: Any = None
) -> dict[str, Any]:
    """Return log((count + 1) / (expected + 1)) of words by class, about its mean, the slow way."""
    weight = np.ones(len(texts)) if weight is None else np.array(weight)
    weight = weight * len(texts) / weight.sum()
    seen: dict[str, Any] = {word: np.zeros(2) for word in words}
    for text, label, w in zip(texts, labels, weight, strict=True):
        for word in set(text.split()):
            seen[word][label] += w
    total = sum(seen.values())
    ratios = {
        word: np.log((n + 1) / (n.sum() * total / total.sum() + 1)) for word, n in seen.items()
    }
    return {word: r - r.mean() for word, r in ratios.items()}


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5, 3.0]])
def test_evidence(weight: Any) -> None:
    """By hand, and the leave-one-out sums as if each text had not been there."""
    texts, target = ["a b a", "b c", "a c d", "d"], np.array([0, 1, 0, 1])
    words = ["a", "b", "c", "d"]
    ids = [np.array([1 + words.index(w) for w in text.split()]) for text in texts]
    count = None if weight is None else np.array(weight)
    found = Evidence.of(ids, target, 5, 2, count=count)
    expected = naive_bayes(texts, target, words, weight)
    np.testing.assert_allclose(found.words[1:], [expected[w] for w in words], atol=1e-12)
    np.testing.assert_array_equal(found.words[0], 0)
    assert found.length == 9 / 4
    assert 0 <= found.scale <= 2
    np.testing.assert_allclose(found.prior, np.log([0.5, 0.5]))
    by_class = Evidence.of(ids, target, 5, 2, count=count, weight=np.array([3.0, 1, 3, 1]))
    np.testing.assert_array_equal(by_class.words, found.words)
    np.testing.assert_allclose(by_class.prior, np.log([0.75, 0.25]))
    if weight is None:
        text, word = (np.array(a) for a in ([0, 0, 1, 1, 2, 2, 2, 3], [1, 2, 2, 3, 1, 3, 4, 4]))
        counts = np.array([[0, 0], [2, 0], [1, 1], [1, 1], [1, 1]], float)
        sums = _evidence._left_out(counts, text, word, target, np.ones(4))
        for i in range(4):
            others = [k for k in range(4) if k != i]
            without = naive_bayes([texts[k] for k in others], target[others], words)
            np.testing.assert_allclose(
                sums[i], sum(without[w] for w in set(texts[i].split())), atol=1e-12
            )


@pytest.mark.parametrize("options", [{"cell": "lstm"}, {}, {"cell": "rnn"}, {"num_layers": 2}])
def test_a_network_starts_as_naive_bayes(options: dict[str, Any]) -> None:
    """Its logits, before training, are close to the sums of the words' evidence."""
    texts, labels = toy(300, 0)
    model = TextClassifier(**options, seed=0)
    target = np.array(labels)
    examples = _examples.Examples([text.split() for text in texts], target, None, None)
    fit = model._untrained(np.arange(2), examples)
    ids = fit.of_tokens(examples.texts)
    found = Evidence.of(ids, target, 1 + len(fit.vocabulary), 2)
    logits = fit.net.predict(ids)
    expected = found.scale * np.array([found.words[of_text].sum(axis=0) for of_text in ids])
    correlation = np.corrcoef(logits[:, 0] - logits[:, 1], expected[:, 0] - expected[:, 1])[0, 1]
    assert correlation > 0.97
    assert 0.5 < logits.std() / expected.std() < 1.5


def test_chance_is_not_believed() -> None:
    """Texts held out say how far to go from the initial weights, unless epochs are given."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in row) for row in rng.integers(60, size=(400, 8))]
    labels = rng.integers(2, size=400)
    losses = []
    for epochs in (None, 80):
        model = TextClassifier(hidden_size=16, embedding_dim=16, epochs=epochs, seed=0)
        model.fit(texts[:100], labels[:100], verbose=0)
        losses.append(
            -np.log(model.predict_proba(texts[100:])[np.arange(300), labels[100:]]).mean()
        )
    assert losses[0] < 0.8
    assert losses[1] > 1.2


def test_ctrl_c_during_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, steps = Adam.apply, []

    def apply(self: Any, *args: Any) -> None:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        usual(self, *args)

    monkeypatch.setattr(Adam, "apply", apply)
    model = TextClassifier(**SMALL).fit(*corpus(60), verbose=0)
    assert len(steps) == 5
    assert model.history is not None
    assert model.history.interrupted
    assert model.predict(["good"]).size == 1


def test_class_weight() -> None:
    texts = ["a b", "a c"] * 3 + ["a b"] * 24
    labels = ["x", "y"] * 3 + ["y"] * 24
    options: dict[str, Any] = {**SMALL, "epochs": 10}
    usual, balanced, named = (
        TextClassifier(**options, class_weight=w).fit(texts, labels, verbose=0)
        for w in (None, "balanced", {"x": 9.0})
    )
    p = [model.predict_proba(["a b"])[0, 0] for model in (usual, balanced, named)]
    assert p[0] < p[1]
    assert p[0] < p[2]
    with pytest.raises(ValueError, match=r"class_weight: expected labels among \['x', 'y'\], got"):
        TextClassifier(class_weight={"z": 1}).fit(texts, labels, verbose=0)
    for wrong, error in (("even", ValueError), ({"x": -1}, ValueError), ({"x": "1"}, TypeError)):
        with pytest.raises(error, match="class_weight"):
            TextClassifier(class_weight=wrong)


def test_class_weight_in_files(tmp_path: Path) -> None:
    weights = {0: 1.0, np.int64(1): np.float32(2)}
    model = TextClassifier(**SMALL, epochs=1, class_weight=weights)
    model.fit(["a", "b"], [0, 1], verbose=0)
    model.save(tmp_path / "m")
    assert TextClassifier.load(tmp_path / "m").class_weight == weights


def test_sample_weight() -> None:
    """A text of weight 0 is as if left out, and a heavier one counts for more."""
    texts, labels = corpus(60)
    weight = np.ones(60)
    weight[[0, 7, 59]] = 0
    kept = np.flatnonzero(weight)
    models = [TextClassifier(**SMALL, epochs=2) for _ in range(3)]
    models[0].fit(texts, labels, sample_weight=weight, verbose=0)
    models[1].fit([texts[i] for i in kept], [labels[i] for i in kept], verbose=0)
    assert models[0].vocabulary == models[1].vocabulary
    p = [model.predict_proba(texts) for model in models[:2]]
    np.testing.assert_allclose(p[0], p[1], atol=1e-6)
    models[2].fit(
        texts, labels, sample_weight=np.where(np.array(labels) == "praise", 9, 1), verbose=0
    )
    assert models[2].predict_proba(texts)[:, 1].mean() > p[0][:, 1].mean() + 0.1
    score = models[0].score(texts[:2], [labels[0], "?"], sample_weight=[1, 0])
    assert score == (models[0].predict(texts[:1])[0] == labels[0])
    for wrong in ([1.0], np.full(60, -1.0), np.full(60, np.nan)):
        with pytest.raises(ValueError, match="sample_weight: expected"):
            models[0].fit(texts, labels, sample_weight=wrong, verbose=0)
    with pytest.raises(ValueError, match="sample_weight: expected a weight above 0"):
        models[0].fit(texts, labels, sample_weight=np.zeros(60), verbose=0)


def test_early_stopping() -> None:
    """The best weights on a part held out by class, which is not trained on."""
    texts, labels = corpus(60)
    texts, labels = [*texts, "odd one"], [*labels, "rare"]
    model = TextClassifier(
        **SMALL | {"lr": 0.2}, epochs=30, early_stopping=True, validation_fraction=0.2,
        n_iter_no_change=2,
    )  # fmt: skip
    model.fit(texts, labels, verbose=0)
    assert model.history is not None
    losses = model.history.history["val_loss"]
    assert len(losses) == 1 + 2 + int(np.argmin(losses)) - 0 < 30
    assert "rare" in model.classes
    assert "odd" in model.vocabulary
    held = texts[:20], labels[:20]
    model.fit(texts[20:], labels[20:], validation_data=held, verbose=0)
    best = min(model.history.history["val_loss"])
    p = model.predict_proba(held[0])[np.arange(20), np.searchsorted(model.classes, held[1])]
    assert -np.log(p).mean() == pytest.approx(best, rel=1e-5)
    with pytest.raises(ValueError, match="early_stopping: expected a class with several texts"):
        model.fit(["a", "b"], [0, 1], verbose=0)


def test_callbacks() -> None:
    class Stop(fastrnn.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.model.stop_training = epoch == 1

    model = TextClassifier(**SMALL, epochs=5).fit(*corpus(20), callbacks=[Stop()], verbose=0)
    assert model.history is not None
    assert model.history.epoch == [0, 1]


def test_empty_input_gives_empty_output(model: TextClassifier) -> None:
    for empty in ([], np.empty(0, str)):
        assert model.predict(empty).shape == (0,)
        assert model.predict(empty).dtype == model.classes.dtype
        assert model.predict_proba(empty).shape == (0, 2)
    with pytest.raises(ValueError, match="texts: expected one text or more to score"):
        model.score([], [])


def test_classes_as_in_scikit_learn(model: TextClassifier) -> None:
    assert model.classes_.tolist() == ["blame", "praise"]
    assert not hasattr(TextClassifier(), "classes_")
    assert TextClassifier().classes.size == 0


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns(library: str, model: TextClassifier) -> None:
    frames = pytest.importorskip(library)
    texts, labels = corpus(40)
    df = frames.DataFrame({"text": texts, "label": labels, "stars": [1, 2] * 20})
    usual = TextClassifier(**SMALL, epochs=1).fit(texts, labels, verbose=0)
    again = TextClassifier(**SMALL, epochs=1).fit(df["text"], df["label"], verbose=0)
    expected = usual.predict_proba(texts)
    np.testing.assert_array_equal(again.predict_proba(df["text"]), expected)
    np.testing.assert_array_equal(again.predict_proba(df[["text"]]), expected)
    assert again.score(df["text"], df["label"]) == usual.score(texts, labels)
    numbers = TextClassifier(**SMALL, epochs=1).fit(df["text"], df["stars"], verbose=0)
    assert numbers.classes_.tolist() == [1, 2]
    for use in (model.predict, lambda texts: model.fit(texts, labels)):
        with pytest.raises(
            TypeError, match=r'texts: expected a sequence of str, such as df\["text'
        ):
            use(df)
    np.testing.assert_array_equal(again.predict_proba(df[["text"]].to_numpy()), expected)
    gap = frames.Series(["a", "b", None, "c"])
    with pytest.raises(ValueError, match=r"texts\[2\]: is missing"):
        model.predict(gap)
    with pytest.raises(ValueError, match=r"labels.*missing"):
        model.fit(["a"] * 4, gap)


def test_labels_of_pandas() -> None:
    pd = pytest.importorskip("pandas")
    texts = ["one", "two words"] * 10
    for series, classes in (
        (pd.Series([1, 0] * 10, dtype="Int64"), [0, 1]),
        (pd.Series([True, False] * 10, dtype="boolean"), [False, True]),
        (pd.Series(["x", "y"] * 10, dtype="category"), ["x", "y"]),
        (pd.Series(["x", "y"] * 10, dtype="string"), ["x", "y"]),
        (pd.Series([1.0, 3.0] * 10), [1.0, 3.0]),
        (pd.DataFrame({"label": ["x", "y"] * 10}), ["x", "y"]),
    ):
        model = TextClassifier(**SMALL, epochs=1).fit(texts, series, verbose=0)
        assert model.classes_.tolist() == classes
        assert type(model.predict(["one"]).tolist()[0]) is type(classes[0])


def test_scikit_learn_tools() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    texts, labels = (np.array(a) for a in corpus(60))
    model = TextClassifier(**SMALL, epochs=2)
    quiet: dict[str, Any] = {"params": {"verbose": 0}}
    assert selection.cross_val_score(model, texts, labels, cv=3, **quiet).shape == (3,)
    assert selection.cross_val_score(
        model, list(texts), labels, cv=2, scoring="neg_log_loss", **quiet
    ).max() < 0  # fmt: skip
    search = selection.GridSearchCV(model, {"hidden_size": [4, 8]}, cv=2)
    search.fit(texts, labels, verbose=0)
    assert search.best_estimator_.predict(texts).shape == (60,)


def test_validation() -> None:
    model = TextClassifier(**SMALL, epochs=3)
    model.fit(*corpus(60), validation_data=corpus(20, seed=1), verbose=0)
    assert model.history is not None
    assert {"val_loss", "val_accuracy"} < model.history.history.keys()


# The commands.


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the corpus as a file for each class, and as tables, in the working directory."""
    monkeypatch.chdir(tmp_path)
    pairs = list(zip(*corpus(), strict=True))
    for label in ("praise", "blame"):
        Path(label).write_text("\n".join(text for text, of in pairs if of == label))
    Path("all.csv").write_text("label,text\n" + "\n".join(f'{of},"{t}"' for t, of in pairs))
    Path("all.tsv").write_text("kind\tsaid\n" + "\n".join(f"{of}\t{t}" for t, of in pairs))
    gaps = itertools.cycle(" \t")
    lines = (f"__label__{of}{gap}{t}" for (t, of), gap in zip(pairs, gaps, strict=False))
    Path("fasttext.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


QUICK = ["-o", "m", "-q"] + [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.mark.parametrize(
    "source",
    [
        ["praise=praise", "blame=blame"],
        ["all.csv", "--max-length=50"],
        ["all.tsv", "--text-column=said", "--label-column=kind"],
        ["all.tsv", "--text=said", "--label=kind"],
        ["fasttext.txt"],
    ],
)
def test_commands(
    source: list[str], files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main(["classify", "train", *source, *QUICK, "--epochs=20"]) == 0
    assert "accuracy on 24 texts held out" in capsys.readouterr().out
    assert TextClassifier.load("m").classes.tolist() == ["blame", "praise"]
    monkeypatch.setattr("sys.stdin", io.StringIO("the film was good\n\nit was not good\n"))
    assert main(["classify", "predict", "m"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(row[0], row[2]) for row in (rows[0], rows[2])] == [
        ("praise", "the film was good"),
        ("blame", "it was not good"),
    ]
    assert rows[1][2] == ""  # a line for each line
    assert main(["classify", "predict", "m", "praise"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(Path("praise").read_text().splitlines())
    for encoding, code, said in (
        ("latin-1", 0, "groß"),
        ("utf-8", 2, "standard input: is not UTF"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("groß".encode("latin-1"))))
        assert main(["classify", "predict", "m", "--encoding", encoding]) == code
        assert said in "".join(capsys.readouterr())


def trained_on(monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[list[str], list[str]]:
    """Return the texts and labels that ``classify train`` trains on."""
    seen: list[tuple[list[str], list[str]]] = []

    def fit(self: Any, texts: list[str], labels: Any, verbose: int) -> None:
        seen.append((texts, labels.tolist()))
        raise ValueError("enough")

    monkeypatch.setattr(TextClassifier, "fit", fit)
    assert main(["classify", "train", *args, "-o", "m", "-q", "--holdout=0"]) == 2
    return seen[0]


def test_rows_of_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is a row whatever its text contains; the order is that of a permutation."""

    def rows(*args: str) -> list[tuple[str, str]]:
        return sorted(zip(*trained_on(monkeypatch, *args), strict=True))

    def put(name: str, data: str | bytes) -> str:
        Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
        return name

    expected = [('"one', "n"), ("two\u2028\x0cx", "p")]
    text = 'a\tlabel\ttext\n1\tn\t"one\n2\tp\ttwo\u2028\x0cx\n'
    assert rows(put("t.tsv", text)) == expected
    assert rows(put("t.csv", text)) == expected
    assert rows(put("t.tsv.gz", gzip.compress(text.encode("utf-16")))) == expected
    assert rows(put("t.csv", 'Text;LABEL\n"""one";n\n"two\u2028\x0cx"; p\n')) == expected
    assert rows(put("t.csv", "text,label\nNA,None\nnull,nan\n")) == [
        ("NA", "None"),
        ("null", "nan"),
    ]
    lines = put("n", '"one\r\n\n'), put("p", "two\u2028\x0cx\n  \n")
    assert rows(*(f"{name}={name}" for name in lines)) == expected
    put("x=y.csv", "text,label\na,b\nc,d\n")
    assert rows("x=y.csv") == [("a", "b"), ("c", "d")]
    put("x=y", "a\n")
    put("z", "one\n")
    assert rows("k=x=y", "l=m=z") == [("a", "k"), ("one", "l=m")]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"label,text\nb,a\nd,c\n")))
    assert rows("-") == [("a", "b"), ("c", "d")]


def test_what_is_held_out_has_all_classes_and_leaves_all(files: Path, capsys: Any) -> None:
    lines = [f"a,good {k}" for k in range(40)] + ["b,bad"] * 3 + ["c,one"]
    Path("t.csv").write_text("label,text\n" + "\n".join(lines))
    assert main(["classify", "train", "t.csv", *QUICK, "--holdout=0.5"]) == 0
    assert "accuracy on 22 texts held out" in capsys.readouterr().out
    assert TextClassifier.load("m").classes.tolist() == ["a", "b", "c"]
    Path("t.csv").write_text("label,text\na,good\nb,bad\n")
    assert main(["classify", "train", "t.csv", *QUICK, "--holdout=0.5"]) == 0
    assert "held out" not in capsys.readouterr().out
    args = ["--class-weight=balanced", "--early-stopping"]
    assert main(["classify", "train", "all.csv", *QUICK, *args]) == 0
    model = TextClassifier.load("m")
    assert (model.class_weight, model.early_stopping) == ("balanced", True)


def test_what_was_read_is_said(files: Path, capsys: Any) -> None:
    rows = [f"{'pn'[k % 2]}\t{'good' if k % 2 else 'bad'} thing {k % 7}" for k in range(1000)]
    rows[200], rows[600] = 'p\t"good thing', 'n\t"bad thing'
    Path("q.tsv").write_text("label\ttext\n" + "\n".join(rows) + "\n")
    args = [option for option in QUICK if option != "-q"]
    assert main(["classify", "train", "q.tsv", *args]) == 0
    assert capsys.readouterr().err.startswith("q.tsv: 1,000 texts, 2 labels: n 501, p 499\n")


def test_predict_reads_tables(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert main(["classify", "train", "all.csv", *QUICK]) == 0
    capsys.readouterr()
    text = 'text,n\n"good\r\nfilm, really",1\n,2\n"""x""",3\n'
    Path("t.csv").write_text(text)
    assert main(["classify", "predict", "m", "t.csv"]) == 0
    lines = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["good film, really", "", '"x"']
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["classify", "predict", "m", "--text=n"]) == 0
    lines = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["1", "2", "3"]
    monkeypatch.setattr("sys.stdin", io.StringIO("__label__a __label__b good\n x __label__c\n"))
    assert main(["classify", "predict", "m"]) == 0
    lines = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["good", " x __label__c"]


def test_the_model_is_kept(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    usual = TextClassifier.fit

    def fit(self: TextClassifier, *args: Any, **options: Any) -> TextClassifier:
        Path("m").mkdir()
        return usual(self, *args, **options)

    monkeypatch.setattr(TextClassifier, "fit", fit)
    assert main(["classify", "train", "all.csv", *QUICK]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastrnn: error: m: ")
    kept = error.partition("; the model is kept in ")[2].strip()
    assert Path(kept).parent == files
    assert TextClassifier.load(kept).predict(["good"]).size == 1


def test_ctrl_c_keeps_the_model_so_far(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    usual = Adam.apply

    def apply(self: Any, *args: Any) -> None:
        if self.steps == 5:
            raise KeyboardInterrupt
        usual(self, *args)

    monkeypatch.setattr(Adam, "apply", apply)
    assert main(["classify", "train", "all.csv", *QUICK]) == 0
    assert "interrupted; this is the model so far" in capsys.readouterr().out
    assert TextClassifier.load("m").predict(["good"]).size == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", "praise", "blame"], "FILE: expected one CSV file, or LABEL=FILE for each"),
        (["train", "all.tsv"], "all.tsv: expected a column 'text', got kind, said"),
        (["train", "a=nowhere"], "nowhere: No such file"),
        (["train", "a=latin1"], "latin1: is not UTF-8 text"),
        (["train", "a=praise", "--encoding=martian"], "--encoding: expected one that Python knows"),
        (["train", "all.csv", "--encoding=utf-16"], "all.csv: is not UTF-16 text"),
        (["train", "a=blank", "b=praise"], "blank: expected a line of text or more"),
        (["train", "all.csv", "--holdout=0.9999"], "--holdout: expected to leave one of"),
        (["train", "all.csv", "--holdout=1"], "--holdout: expected a number in [0, 1)"),
        (["train", "all.csv", "--unit=letters"], "unit: expected one of"),
        (["train", "all.csv", "--label=of"], "expected a column 'of', got label, text (--label"),
        (["train", "all.csv", "--text=texd"], "did you mean 'text'?"),
        (["train", "unlabelled.csv"], "unlabelled.csv: row 3, column 'label': expected a label"),
        (["train", "labels.txt"], "labels.txt: row 3: expected one __label__LABEL and a text"),
        (["train", "a=praise", "a=praise", "-o", "praise"], "praise: is read, so expected another"),
        (["predict", "nowhere"], "nowhere: No such file"),
        (["predict", "all.csv"], "all.csv: is not a safetensors file"),
    ],
)
def test_commands_refuse(args: list[str], said: str, files: Path, capsys: Any) -> None:
    Path("latin1").write_bytes("groß".encode("latin-1") * 10)
    Path("blank").write_text("\n\n")
    Path("unlabelled.csv").write_text("label,text\na,b\n,c\n")
    Path("labels.txt").write_text("__label__a b\n\n__label__a __label__b c\n")
    assert main(["classify", args[0], *(QUICK if args[0] == "train" else []), *args[1:]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert said in err
