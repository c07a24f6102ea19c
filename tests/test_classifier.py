"""The text classifier: learning, files, and errors."""

from __future__ import annotations

import gzip
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import model_file
from fastrnn.cli import main
from fastrnn.models.estimators import CELLS
from fastrnn.optim import Adam
from fastrnn.text import TextClassifier

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
    ],
)
def test_labels_of_any_kind(labels: Any, classes: list[Any], tmp_path: Path) -> None:
    texts = ["one", "two words", "Three, of them"] * 20
    model = TextClassifier(**SMALL, epochs=20).fit(texts, labels, verbose=0)
    assert model.classes.tolist() == classes
    assert model.score(texts, labels) == 1
    model.save(tmp_path / "m")
    again = TextClassifier.load(tmp_path / "m")
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
    Path("fasttext.txt").write_text("\n".join(f"__label__{of} {t}" for t, of in pairs) + "\n\n")
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
