"""The command line, end to end: what it prints, what it writes, how it fails."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastrnn
from fastrnn.cli import files, main, prose
from fastrnn.models.estimators import CELLS
from fastrnn.models.sequential import Sequential
from fastrnn.text import CharLM, TextClassifier
from fastrnn.text._training import Validation

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 50
SMALL = ["--hidden-size=16", "--embedding-dim=8", "--seq-len=20", "--batch-size=4", "--seed=0"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def model_file(tmp_path: Path, text_file: Path) -> Path:
    path = tmp_path / "model.safetensors"
    assert main(["lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=3", "-q"]) == 0
    return path


def run(*args: str, **options: Any) -> subprocess.Popen[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-P", "-m", "fastrnn", *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


# What it does.


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for said in (fastrnn.__version__, fastrnn.backend(), "threads"):
        assert said in out


@pytest.mark.parametrize(
    "args", [["--version"], ["--help"], ["demo", "--help"], ["bench", "--help"], ["lm", "-h"]]
)
def test_help_and_version(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(args)
    assert exit_.value.code == 0
    assert "fastrnn" in capsys.readouterr().out


def test_train_and_generate(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    args = [*SMALL, "--cell=gru", "--epochs=20", "--lr=0.02", "--dropout=0.1"]
    assert main(["lm", "train", str(text_file), "-o", str(path), *args]) == 0
    out, err = capsys.readouterr()
    assert "bits per character" in out
    assert f"wrote {path}" in out
    assert "char/s" in err
    model = CharLM.load(path)
    assert (model.cell, model.hidden_size, model.dropout, model.lr) == ("gru", 16, 0.1, 0.02)

    args = ["--prompt", "the quick", "--length", "30", "--temperature", "0.5", "--top-k", "3"]
    written = []
    for _ in range(2):
        assert main(["lm", "generate", str(path), *args, "--seed", "1"]) == 0
        written.append(capsys.readouterr())
    assert written[0] == written[1]
    expected = model.generate("the quick", 30, temperature=0.5, top_k=3, seed=1)
    assert written[0] == ("the quick" + expected + "\n", "")


def test_train_further(model_file: Path, text_file: Path, capsys: Any) -> None:
    before = CharLM.load(model_file)
    more = model_file.with_name("more")
    args = ["lm", "train", str(text_file), "-o", str(more), "-q", f"--resume={model_file}"]
    assert main([*args, "--epochs=2", "--seed=1", "--lr=1e-9"]) == 0
    after = CharLM.load(more)
    assert (after.hidden_size, after.epochs, after.lr) == (before.hidden_size, 2, 1e-9)
    assert after.bits_per_char(TEXT) == pytest.approx(before.bits_per_char(TEXT), abs=1e-3)
    capsys.readouterr()
    assert main([*args, "--hidden-size=17"]) == 2
    assert "hidden_size: expected 16" in capsys.readouterr().err
    assert main(["lm", "generate", str(more), "--prompt=ßfox", "--unknown=skip"]) == 0
    assert main(["lm", "generate", str(more), "--prompt=ßfox", "--unknown=no"]) == 2
    assert "unknown: expected one of" in capsys.readouterr().err
    args = ["lm", "train", str(text_file), "-o", str(more), "-q", *SMALL, "--epochs=1"]
    assert main([*args, "--unknown=replace", "--normalization=NFC"]) == 0
    assert (CharLM.load(more).unknown, CharLM.load(more).normalization) == ("replace", "NFC")


@pytest.mark.parametrize("cell", list(CELLS))
def test_every_recurrent_layer_is_a_cell(
    cell: str, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["lm", "train"], ["classify", "train"], ["forecast"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert cell in capsys.readouterr().out
    pytest.importorskip("pandas")
    table, path = tmp_path / "t.csv", str(tmp_path / "m")
    table.write_text("text,label,y\n" + "".join(f"{i % 3} b,{i % 2},{i}\n" for i in range(40)))
    options = [f"--cell={cell}", "--hidden-size=4", "--epochs=1"]
    assert main(["lm", "train", str(text_file), "-o", path, "-q", *options]) == 0
    assert CharLM.load(path).cell == cell
    assert main(["classify", "train", str(table), "-o", path, "-q", *options]) == 0
    assert TextClassifier.load(path).cell == cell
    assert (
        main(
            [
                "forecast",
                str(table),
                "--column=y",
                "--window=5",
                "--steps=2",
                "--horizon=2",
                *options,
            ]
        )
        == 0
    )


def test_defaults_are_those_of_charlm(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CharLM, "fit", lambda self, text, verbose: self)
    monkeypatch.setattr(CharLM, "save", lambda self, path: made.append(self))
    made: list[CharLM] = []
    assert main(["lm", "train", str(text_file), "-o", str(tmp_path / "m")]) == 0
    assert repr(made) == repr([CharLM()])


@pytest.mark.parametrize("matplotlib", [True, False])
def test_demo(
    text_file: Path,
    tmp_path: Path,
    matplotlib: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if matplotlib:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out_dir = tmp_path / "new" / "demo"
    args = ["demo", "--seconds=1", f"--text={text_file}", "--encoding=ascii", f"--out={out_dir}"]
    assert main(args) == 0
    out = capsys.readouterr().out
    for said in ("order-0", "order-2", "this model", "sample", "reference", fastrnn.backend()):
        assert said in out
    assert CharLM.load(out_dir / "charlm.safetensors").history == []
    files = {"charlm.safetensors", "learning_curve.png"} if matplotlib else {"charlm.safetensors"}
    assert set(os.listdir(out_dir)) == files
    if matplotlib:
        assert (out_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "matplotlib is not installed" in out


def test_demo_text_is_prose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []

    def fit(self: CharLM, text: str) -> CharLM:
        texts.append(text)
        raise ValueError("enough")

    monkeypatch.setattr(CharLM, "fit", fit)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    (text,) = texts
    paragraphs = text.split("\n")
    assert len(text) > 200_000
    assert len(set(text)) < 80
    assert not set(text) & set("`*_<>{}=[]@#|\\/~^&%$\t")
    assert len(paragraphs) == len(set(paragraphs))
    assert all(p[0].isupper() and p[-1] in ".!?" for p in paragraphs)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    capsys.readouterr()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "--text FILE" in capsys.readouterr().err


def test_prose() -> None:
    source = '''
def f(x):
    r"""f(x) -> the first line.

    Return the *largest* of the ``numbers'' given, or
    None if there are none.

    >>> f([1, 2])
    2

    Raises:
      - ValueError: for any other kind of argument.

    Call f(x) to get the value of a thing.
    Return the *largest* of `other` things than these.
    """
"""Not
a whole sentence of the English language"""
'''
    assert list(prose._prose(source)) == [
        "Return the largest of the numbers given, or None if there are none."
    ]


# How it fails.


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["lm"], "the following arguments are required: command"),
        (["info", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["lm", "train", "text.txt"], "required: -o/--output"),
        (["lm", "train", "text.txt", "-o", "m", "--lr", "much"], "--lr: invalid float value"),
        (["lm", "train", "text.txt", "-o", "m", "--lr", "-1"], "lr: expected"),
        (["lm", "train", "text.txt", "-o", "m", "--cell", "gpt"], "cell: expected one of"),
        (["lm", "train", "text.txt", "-o", "m", "--hidden-size", "0"], "hidden_size: expected"),
        (["lm", "train", "text.txt", "-o", "m", "--hidden-size", "9" * 30], "hidden_size: exp"),
        (["lm", "train", "text.txt", "-o", "m", "--num-layers", "9" * 15], "num_layers=9999999"),
        (["lm", "train", "nowhere.txt", "-o", "m"], "nowhere.txt: No such file"),
        (["lm", "train", ".", "-o", "m"], ".: Is a directory"),
        (["lm", "train", "latin1.txt", "-o", "m"], "latin1.txt: is not UTF-8 text"),
        (["lm", "train", "binary", "-o", "m"], "binary: is not text"),
        (["lm", "train", "empty.txt", "-o", "m"], "empty.txt: is empty"),
        (["lm", "train", "short.txt", "-o", "m"], "text: expected 2 characters or more"),
        (["lm", "train", "latin1.txt", "--encoding=utf-16", "-o", "m"], "is not UTF-16 text"),
        (["lm", "train", "text.txt", "--encoding=x", "-o", "m"], "--encoding: expected one that"),
        (["lm", "train", "text.txt", "-o", "text.txt"], "text.txt: is read, so expected another"),
        (["lm", "train", "text.txt", "-o", "new/"], "'new/' is not a regular file"),
        (["lm", "train", "text.txt", "-o", "."], "'.' is not a regular file"),
        (["lm", "generate", "m", "--seed", "0", "n"], "unrecognized arguments: n (see"),
        (["lm", "train", "text.txt", "-o", "no/m"], "no/m: No such file"),
        (["lm", "train", "text.txt", "-o", "text.txt/m"], "text.txt/m: Not a directory"),
        (["lm", "generate", "nowhere"], "nowhere: No such file"),
        (["lm", "generate", "text.txt"], "text.txt: is not a safetensors file"),
        (["lm", "generate", "broken"], "broken: is damaged: its tensors have"),
        (["lm", "generate", "model.safetensors", "--prompt", "ß"], "got 'ß' at position 0"),
        (["lm", "generate", "model.safetensors", "--length", "0"], "length: expected"),
        (["lm", "generate", "model.safetensors", "--temperature", "-1"], "temperature: expected"),
        (["lm", "generate", "model.safetensors", "--top-k", "0"], "top_k: expected"),
        (["lm", "generate", "model.safetensors", "--seed", "-1"], "seed: expected"),
        (["bench", "--peers", "numpy,mkl"], "peers: expected some of reference, numpy, torch"),
        (["bench", "--threads", "0"], "threads: expected a whole number of at least 1"),
        (["bench", "--threads", "many"], "--threads: invalid int value"),
        (["bench", "--json", "no/b.json"], "no/b.json: No such file"),
        (["bench", "--bits", "0"], "--bits: expected a whole number of at least 1, got 0"),
        (["bench", "--bits", "1", "--json", "b.json"], "--json: expected without --bits"),
        (["bench", "--save", "b.json"], "--save: expected with --bits"),
        (["bench", "--check", "text.txt"], "text.txt: expected a file of `fastrnn bench --bits"),
        (["bench", "--check", "hashes.json"], "hashes.json: expected a file of `fastrnn bench"),
        (["demo", "--text", "nowhere.txt"], "nowhere.txt: No such file"),
        (["demo", "--text", "short.txt"], "text: expected 2 characters or more"),
        (["demo", "--text", "text.txt", "--seconds", "0"], "max_seconds: expected"),
        (["demo", "--text", "text.txt", "--out", "text.txt"], "text.txt: File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_clear_line(
    args: list[str],
    said: str,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = model_file.parent
    (folder / "latin1.txt").write_bytes("groß".encode("latin-1") * 100)
    (folder / "binary").write_bytes(bytes(1000))
    (folder / "empty.txt").touch()
    (folder / "short.txt").write_text("ab")
    (folder / "hashes.json").write_text("{}")
    (folder / "broken").write_bytes(model_file.read_bytes()[:-10])
    monkeypatch.chdir(folder)
    capsys.readouterr()
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert "wrote" not in out
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (folder / "m").exists()


def test_files_stand_anywhere_among_options() -> None:
    parse = fastrnn.cli._parser().parse_args
    for args in (["m", "--text", "review", "in.csv"], ["--text", "review", "m", "in.csv"]):
        found = parse(["classify", "predict", *args])
        assert (found.model, found.text, found.file) == ("m", "review", "in.csv")
    assert parse(["classify", "predict", "--text", "review", "m"]).file is None
    found = parse(["classify", "train", "a=1", "-o", "m", "b=2", "--epochs", "2", "c=3"])
    assert (found.files, found.output, found.epochs) == (["a=1", "b=2", "c=3"], "m", 2)
    assert parse(["lm", "train", "-o", "m", "--", "-odd"]).text == "-odd"


@pytest.mark.skipif(os.name == "nt", reason="it has no /dev/stdout")
def test_standard_output_is_no_file_to_replace() -> None:
    code = "import sys; from fastrnn.cli import files; files.check_outputs(sys.argv[1:], [])"
    for path in ("/dev/stdout", "/dev/fd/1"):
        done = subprocess.run([sys.executable, "-P", "-c", code, path], capture_output=True)
        assert f"'{path}' is not a regular file".encode() in done.stderr


def test_output_is_checked_before_training(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(CharLM, "fit", fit)
    assert main(["lm", "train", str(text_file), "-o", "nowhere/m"]) == 2
    assert main(["demo", f"--text={text_file}", f"--out={text_file}"]) == 2


def test_text_from_anywhere(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    monkeypatch.setattr(CharLM, "fit", lambda self, text, verbose: texts.append(text) or self)
    monkeypatch.setattr(CharLM, "save", lambda self, path: None)
    expected = "groß\nklein\u2028\x0c\n"
    for data, options in (
        (expected.encode(), []),
        (expected.encode("utf-16"), []),
        (expected.replace("\n", "\r\n").encode("utf-8-sig"), []),
        (gzip.compress(expected.encode()), []),
        (expected.encode("utf-16-le"), ["--encoding=utf-16-le"]),
    ):
        text_file.write_bytes(data)
        output = ["-o", str(tmp_path / "m")]
        assert main(["lm", "train", str(text_file), *output, *options]) == 0
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(["lm", "train", "-", *output, *options]) == 0
    assert texts == [expected] * 10


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use can't be removed")
def test_the_model_is_kept(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The folder is gone when the training ends."""
    folder = tmp_path / "folder"
    folder.mkdir()
    usual = CharLM.fit

    def fit(self: CharLM, *args: Any, **options: Any) -> CharLM:
        folder.rmdir()
        return usual(self, *args, **options)

    monkeypatch.setattr(CharLM, "fit", fit)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = folder / "m.safetensors"
    assert main(["lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=1", "-q"]) == 2
    error = capsys.readouterr().err
    said = f"fastrnn: error: {path}: No such file or directory; the model is kept in "
    assert error.startswith(said)
    assert error.count("\n") == 1
    assert len(CharLM.load(error.removeprefix(said).strip()).generate("", 5)) == 5


def test_bare_install(text_file: Path, tmp_path: Path) -> None:
    """No pandas, no matplotlib: all but tables and pictures works."""
    (tmp_path / "lines").write_text("a\nb\n")
    commands = [
        ["info"],
        ["demo", "--seconds=0.1", f"--text={text_file}", f"--out={tmp_path}"],
        ["lm", "train", str(text_file), "-o", "m", *SMALL, "--epochs=1"],
        ["lm", "generate", "m", "--length=3"],
        ["classify", "train", "a=lines", "b=lines", "-o", "c", "--epochs=1", "--holdout=0"],
        ["classify", "predict", "c", "lines"],
    ]
    code = f"""if True:
        import sys
        for name in "pandas", "polars", "matplotlib", "sklearn", "scipy", "torch", "joblib":
            sys.modules[name] = None
        from fastrnn.cli import main
        for args in {commands}:
            assert main(args) == 0, args
        sys.exit(main(["forecast", "lines"]))"""
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("reading tables needs pandas: pip install 'fastrnn[data]'\n")


def test_a_failure_is_a_process_that_ends_with_2() -> None:
    process = run("lm", "generate", "nowhere")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "fastrnn: error: nowhere: No such file or directory\n"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_the_model_so_far(text_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    process = run("lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=1e9")
    try:
        assert process.stderr is not None
        process.stderr.readline()  # a line of progress: it is training
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "interrupted; this is the model so far" in out
    assert "Traceback" not in err
    assert len(CharLM.load(path).generate("", 10)) == 10


SIGNALS = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]


@pytest.fixture
def heeded() -> Iterator[None]:
    """Heed the signals that end a process, also where the tests run under nohup."""
    before = {number: signal.getsignal(number) for number in SIGNALS[1:]}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", SIGNALS[1:])
def test_other_signals_keep_it_too(
    number: signal.Signals, text_file: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Several may come at once, as from a terminal that is closed and its shell."""

    class Kill(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if batch == 3:
                os.kill(os.getpid(), number)

        def on_train_end(self, logs: Any) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

    usual = CharLM.fit
    monkeypatch.setattr(
        CharLM, "fit", lambda *args, **options: usual(*args, callbacks=[Kill()], **options)
    )
    path = tmp_path / "charlm.safetensors"
    command = ["lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=1e9", "-q"]
    assert main(command) == 0
    assert "interrupted; this is the model so far" in capsys.readouterr().out
    assert len(CharLM.load(path).generate("", 10)) == 10
    # What follows a training is not begun; after Ctrl-C, it is.
    path.unlink()
    command = ["demo", f"--text={text_file}", "--seconds=60", f"--out={tmp_path}"]
    assert main(command) == 128 + number
    assert "bits per character" not in capsys.readouterr().out
    assert len(CharLM.load(path).generate("", 10)) == 10


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", SIGNALS)
def test_signals_wait_for_a_save(
    number: signal.Signals, text_file: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    usual, handlers = os.replace, [signal.getsignal(n) for n in SIGNALS]

    def replace(*paths: Any) -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        usual(*paths)

    monkeypatch.setattr(os, "replace", replace)
    path = tmp_path / "m"
    command = ["lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=1", "-q"]
    assert main(command) == 128 + number
    assert capsys.readouterr().err == "fastrnn: interrupted\n"
    assert len(CharLM.load(path).generate("", 10)) == 10
    assert [signal.getsignal(n) for n in SIGNALS] == handlers


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("owner", "name"), [(Sequential, "fit"), (Validation, "restore_best"), (CharLM, "fit")]
)
def test_signals_after_a_training_wait_for_its_model(
    owner: type, name: str, number: signal.Signals, text_file: Path, tmp_path: Path,
    monkeypatch: Any, capsys: Any,
) -> None:  # fmt: skip
    """They come while the weights are restored, and while the model is completed."""
    usual = getattr(owner, name)

    def and_a_signal(*args: Any, **options: Any) -> Any:
        result = usual(*args, **options)
        os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(owner, name, and_a_signal)
    path, handlers = tmp_path / "m", [signal.getsignal(n) for n in SIGNALS]
    command = ["lm", "train", str(text_file), "-o", str(path), *SMALL, "--epochs=1", "-q"]
    # The first of them ends the last validation, and no more.
    assert main(command) == (0 if owner is Sequential else 128 + number)
    assert len(CharLM.load(path).generate("", 10)) == 10
    assert [signal.getsignal(n) for n in SIGNALS] == handlers
    said = "" if owner is Sequential else "fastrnn: interrupted\n"
    assert capsys.readouterr().err == said


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_signal_that_is_ignored_stays_so(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As nohup does it; one that the program around handles is its own."""
    came: list[int] = []

    def generate(*_: Any) -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        return "text"

    monkeypatch.setattr(CharLM, "generate", generate)
    before = [signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
        assert main(["lm", "generate", str(model_file)]) == 0
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert came == [signal.SIGTERM]
    assert capsys.readouterr().out.endswith("text\n")


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", SIGNALS[1:])
def test_fit_leaves_signals_alone(number: signal.Signals, tmp_path: Path) -> None:
    """A script that handles none is ended by them; its checkpoint is whole."""
    script = """if True:
        import os, signal, sys
        import numpy as np, fastrnn
        class Kill(fastrnn.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs):
                if epoch == 2:
                    os.kill(os.getpid(), int(sys.argv[1]))
        model = fastrnn.Sequential([fastrnn.GRU(1, 2), fastrnn.Linear(2, 1)], seed=0)
        model.compile("adam", "mse")
        X = np.ones((4, 3, 1))
        keep = fastrnn.callbacks.Checkpoint(sys.argv[2])
        model.fit(X, X, epochs=5, callbacks=[keep, Kill()], verbose=0)"""
    command = [sys.executable, "-P", "-c", script, str(int(number)), str(tmp_path / "t")]
    assert subprocess.run(command).returncode == -number
    assert type(fastrnn.load(tmp_path / "t")) is fastrnn.Sequential
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.usefixtures("heeded")
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_closed_terminal_does_not_stop_a_save(text_file: Path, tmp_path: Path) -> None:
    """A terminal that is gone takes nothing that is written: neither progress nor what was done."""
    import pty

    ours, theirs = pty.openpty()
    command = ["lm", "train", str(text_file), "-o", str(tmp_path / "m"), *SMALL, "--epochs=1e9"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fastrnn", *command],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its terminal
    )  # fmt: skip
    os.close(theirs)
    try:
        os.read(ours, 1000)
        time.sleep(0.5)
        os.close(ours)  # sends SIGHUP
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert len(CharLM.load(tmp_path / "m").generate("", 10)) == 10


def test_ctrl_c_elsewhere(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(CharLM, "generate", generate)
    assert main(["lm", "generate", str(model_file)]) == 130
    assert capsys.readouterr().err == "fastrnn: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_nobody_reads_on(model_file: Path) -> None:
    process = run("lm", "generate", str(model_file), "--length=9000")  # more than a buffer
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=60), err) == (141, "")
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize("command", [["info"], ["lm", "generate", "m"]])
def test_output_to_a_full_disk(
    command: list[str], model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, and no second error at the interpreter's end."""
    command = [str(model_file) if word == "m" else word for word in command]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "fastrnn", *command],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "fastrnn: error: No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_text_from_a_pipe(text_file: Path, tmp_path: Path, capsys: Any) -> None:
    """One that is open, as the shell gives it for <(command), and none that has to be opened."""
    read, write = os.pipe()
    os.write(write, TEXT.encode())
    os.close(write)
    options = ["-o", str(tmp_path / "m"), *SMALL, "--epochs=1", "-q"]
    try:
        assert main(["lm", "train", f"/dev/fd/{read}", *options]) == 0
    finally:
        os.close(read)
    os.mkfifo(tmp_path / "pipe")
    capsys.readouterr()
    for no_file in (str(tmp_path / "pipe"), "/dev/zero"):
        assert main(["lm", "train", no_file, *options]) == 2
        said = capsys.readouterr().err
        assert said == f"fastrnn: error: '{no_file}' is not a regular file\n"
        assert main(["lm", "generate", no_file]) == 2
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("kind", ["gzip", "bz2", "lzma", "zip"])
def test_what_is_small_only_when_packed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Zeros that are a thousand times as large and more."""
    monkeypatch.setattr(files, "_SPARE", 1000)
    zeros = bytes(10_000_000)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "t", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t", zeros)
    else:
        packed: bytes = {"gzip": gzip, "bz2": bz2, "lzma": lzma}[kind].compress(zeros)  # type: ignore[attr-defined]
        (tmp_path / "t").write_bytes(packed)
    assert main(["lm", "train", str(tmp_path / "t"), "-o", str(tmp_path / "m")]) == 2
    assert "t: can't be decompressed: expected " in capsys.readouterr().err


def test_a_stderr_that_only_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Writer:
        said = ""

        def write(self, text: str) -> None:
            self.said += text

    writer = Writer()
    monkeypatch.setattr(sys, "stderr", writer)
    assert main(["info"]) == 0
    assert main(["lm", "generate", "no such file"]) == 2
    assert "no such file" in writer.said
    assert "fastrnn" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_errors(unbuffered: str, tmp_path: Path) -> None:
    """A training goes on, and what was found is on standard output."""
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "a b,x\nc d,y\n" * 20)
    read, write = os.pipe()
    os.close(read)
    command = ["classify", "train", str(table), "-o", str(tmp_path / "m"), "--epochs=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastrnn", *command],
        stdout=subprocess.PIPE,
        stderr=write,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "wrote" in out
    assert (tmp_path / "m").exists()


@pytest.mark.skipif(os.name == "nt", reason="descriptors")
@pytest.mark.parametrize(
    ("closed", "args", "code", "said"),
    [
        (0, ["classify", "predict", "m"], 2, "fastrnn: error: standard input: is closed\n"),
        (1, ["info"], 0, ""),
        (2, ["info"], 0, ""),
        (2, ["nonsense"], 2, ""),
    ],
)
def test_closed_from_the_start(
    closed: int, args: list[str], code: int, said: str, tmp_path: Path
) -> None:
    TextClassifier(epochs=1, hidden_size=2).fit(["a", "b"], [0, 1], verbose=0).save(tmp_path / "m")
    process = run(*args, cwd=tmp_path, preexec_fn=lambda: os.close(closed))
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, said)


def test_a_poor_terminal_is_no_reason_to_fail(tmp_path: Path) -> None:
    text, path = tmp_path / "t", tmp_path / "m"
    text.write_text("Straße " * 100, encoding="utf-8")
    assert main(["lm", "train", str(text), "-o", str(path), *SMALL, "--epochs=1", "-q"]) == 0
    process = run(
        "lm", "generate", str(path), "--prompt=ß", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("\\xdf")


def test_import_is_light() -> None:
    """Other than those that ``import numpy`` loads."""
    code = "import sys, numpy; old = {*sys.modules}; import fastrnn; print(*{*sys.modules} - old)"
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    names = {*process.stdout.split()}
    assert "fastrnn" in names
    assert "numpy.ma" not in names
    names = {name.partition(".")[0] for name in names}
    assert not names & {"tqdm", "safetensors", "matplotlib", "argparse", "torch", "scipy", "json"}


def test_text_is_there_when_asked_for() -> None:
    code = "import fastrnn; print(fastrnn.text.CharLM.__name__, fastrnn.functional.rnn.__name__)"
    code += "; assert {'text', 'LSTM'} <= {*dir(fastrnn)}; fastrnn.nonsense"
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert process.stdout == "CharLM rnn\n"
    assert "AttributeError: module 'fastrnn' has no attribute 'nonsense'" in process.stderr
