"""Model files: everything is restored, and damage is detected."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, LSTM, RNN, Dropout, Embedding, Linear, Sequential
from fastrnn._files import atomic, model_file, others
from fastrnn.callbacks import Callback, Checkpoint, EarlyStopping

safetensors = pytest.importorskip("safetensors.numpy")  # not on every free-threaded CPython
load, save = safetensors.load, safetensors.save

STACKS: dict[str, Callable[[], list[Any]]] = {
    "tokens": lambda: [Embedding(9, 4), LSTM(4, 6, proj_size=3, peephole=True), Linear(3, 2)],
    "stack": lambda: [
        GRU(3, 4, 2, bidirectional=True, dropout=0.25, reset_after=False, batch_first=True),
        Dropout(0.5),
        RNN(8, 5, nonlinearity="relu", bias=False, return_sequences=False),
        Linear(5, 1, bias=False),
    ],
    "float64": lambda: [
        Linear(3, 4, dtype="float64"),
        LSTM(4, 2, forget_bias=1.0, dtype="float64"),
    ],
    "identity": lambda: [RNN(3, 4, init="identity")],
}


@pytest.fixture(params=STACKS)
def model(request: pytest.FixtureRequest) -> Sequential:
    return Sequential(STACKS[request.param](), seed=0)


def inputs(model: Sequential, rng: np.random.Generator) -> np.ndarray:
    if isinstance(model.layers[0], Embedding):
        return rng.integers(0, 9, (4, 5))
    return rng.standard_normal((4, 5, 3))


def test_comes_back_from_its_file(
    model: Sequential, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "m.safetensors"
    model.save(path)
    loaded = fastrnn.load(str(path))
    assert repr(loaded) == repr(model)
    assert [f.name for f in tmp_path.iterdir()] == [path.name]
    x = inputs(model, rng)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    model.save(path)  # over itself
    loaded.save(tmp_path / "again")
    np.testing.assert_equal(model_file.read(tmp_path / "again"), model_file.read(path))


def test_load_knows_every_kind(tmp_path: Path) -> None:
    text = fastrnn.text.CharLM(embedding_dim=2, hidden_size=3, epochs=1).fit("abc" * 50, verbose=0)
    text.save(tmp_path / "m")
    assert type(fastrnn.load(tmp_path / "m")) is fastrnn.text.CharLM
    Sequential([Linear(2, 2)]).save(tmp_path / "m")
    with pytest.raises(ValueError, match="m: is not a CharLM but a Sequential"):
        fastrnn.text.CharLM.load(tmp_path / "m")
    model_file.write(tmp_path / "m", "Orchestra", {}, {"w": np.zeros(1)})
    with pytest.raises(ValueError, match=r"m: expected one of Sequential, .* got a 'Orchestra'"):
        fastrnn.load(tmp_path / "m")
    with pytest.raises(TypeError, match="path: expected a str or a path, got NoneType"):
        fastrnn.load(None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "nowhere")


def test_no_file_can_hold_a_class_of_ones_own(tmp_path: Path) -> None:
    class Special(Linear):
        pass

    with pytest.raises(
        TypeError, match=r"layers\[0\]: expected one of .*, got Special, a class of your own"
    ):
        Sequential([Special(2, 2)]).save(tmp_path / "m")


def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    """Truncated, bits flipped, parts swapped or numbers changed: an error, or the same model."""
    rng = np.random.default_rng(1000)
    model = Sequential(STACKS["tokens"](), seed=0)
    path = tmp_path / "m.safetensors"
    model.save(path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    expected = {name: p.tobytes() for name, p in model.parameters().items()}

    def cut(data: bytearray) -> bytearray:
        return data[: rng.integers(len(data))]

    def flip(data: bytearray) -> bytearray:
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        return data

    def flip_header(data: bytearray) -> bytearray:
        data[rng.integers(start)] ^= 1 << rng.integers(8)
        return data

    def lie(data: bytearray) -> bytearray:
        digits = [i for i in range(start) if chr(data[i]).isdigit()]
        data[rng.choice(digits)] = ord(str(rng.integers(10)))
        return data

    def other_length(data: bytearray) -> bytearray:
        data[:8] = int(rng.integers(2 ** rng.integers(1, 63))).to_bytes(8, "little")
        return data

    def swap(data: bytearray) -> bytearray:
        a, b = rng.integers(len(data), size=2)
        data[a : a + 8], data[b : b + 8] = data[b : b + 8], data[a : a + 8]
        return data

    def garbage(data: bytearray) -> bytearray:
        at = rng.integers(len(data))
        data[at : at + 16] = rng.bytes(16)
        return data

    refused = 0
    for n in range(1000):
        damage = (cut, flip, flip_header, lie, other_length, swap, garbage)[n % 7]
        data = damage(bytearray(whole))
        path.write_bytes(data)
        try:
            loaded = fastrnn.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            refused += 1
        else:
            assert {n: p.tobytes() for n, p in loaded.parameters().items()} == expected
    assert refused > 950


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**9}, "claims 7000000000 weights or more, the file has"),
        ({"hidden_size": 10**9, "proj_size": 0}, "claims 1000000004000000000 weights or more"),
        ({"num_layers": 10**9}, "claims .* weights or more"),
        ({"proj_size": 10**9}, "claims .* weights or more"),
        ({"proj_size": -5}, "proj_size: expected"),
        ({"hidden_size": 5}, "expected an input size of 3|expected shape|proj_size"),
        ({"hidden_size": 6.0}, "hidden_size: expected a whole number"),
        ({"hidden_size": "6"}, "hidden_size: expected a whole number"),
        ({"hidden_size": None}, "hidden_size: expected a whole number"),
        ({"input_size": 3}, "expected an input size of 4"),
        ({"dtype": "float64"}, "one dtype"),
        ({"dtype": "object"}, "dtype: expected"),
        ({"peephole": False}, "unexpected"),
        ({"seed": 0}, "expected one of"),
        ({"novelty": 1}, "novelty"),
    ],
)
def test_configurations_that_lie(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A malicious file can have a valid checksum."""
    path = tmp_path / "m"
    Sequential(STACKS["tokens"](), seed=0).save(path)
    _, model, tensors = model_file.read(path)
    model["layers"][1]["config"] |= change
    model_file.write(path, "Sequential", model, tensors)
    with pytest.raises(ValueError, match=f"m: is damaged: .*{message}"):
        fastrnn.load(path)


@pytest.mark.parametrize(
    "model",
    [
        None,
        [],
        {},
        {"layers": None},
        {"layers": []},
        {"layers": [1]},
        {"layers": [{"class": "Linear"}]},
        {"layers": [{"class": "Linear", "config": None}]},
        {"layers": [{"class": "Linear", "config": []}]},
        {"layers": [{"class": "__import__", "config": {"name": "os"}}]},
        {"layers": [{"class": ["Linear"], "config": {}}]},
        {"layers": [{"class": "Dropout", "config": {"p": 3}}]},
        {"layers": [{"class": "Linear", "config": {"in_features": 2, "out_features": 3}}]},
    ],
)
def test_models_that_are_none(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m"
    model_file.write(path, "Sequential", model, {"0.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match="m: is damaged: "):
        fastrnn.load(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"0.weight": np.zeros((2, 2)), "0.bias": np.zeros(2)},
        {"0.weight": np.zeros((2, 2), np.int32), "0.bias": np.zeros(2, np.float32)},
        {"0.weight": np.zeros((2, 2), np.float32), "1.bias": np.zeros(2, np.float32)},
        {"0.weight": np.zeros((4, 1), np.float32), "0.bias": np.zeros(2, np.float32)},
    ],
)
def test_tensors_that_do_not_fit(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "m"
    Sequential([Linear(2, 2)]).save(path)
    _, model, _ = model_file.read(path)
    model_file.write(path, "Sequential", model, tensors)
    with pytest.raises(ValueError, match="m: is damaged: "):
        fastrnn.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "expected format version 1, got '2'"),
        ({"format": "pt"}, "is not a model of fastrnn"),
        ({"crc32": "0"}, "is damaged: the checksum differs"),
        ({"kind": "CharLM"}, "is damaged: the checksum differs"),
        ({"model": "[" * 200_000, "crc32": None}, "is damaged"),
        ({"model": "{", "crc32": None}, "is damaged"),
    ],
)
def test_metadata_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    Sequential([Linear(2, 2)]).save(path)
    data = path.read_bytes()
    tensors = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"] | change
    if header["crc32"] is None:
        header["crc32"] = model_file.checksum(header["kind"], header["model"], tensors)
    path.write_bytes(save(tensors, header))
    with pytest.raises(ValueError, match=message):
        fastrnn.load(path)


# Files of others. tests/test_torch.py has those that torch writes.


def zipped(*names: str) -> bytes:
    """Return a zip of files with these names."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, b"{}")
    return made.getvalue()


def npz() -> bytes:
    made = io.BytesIO()
    np.savez(made, weight=np.zeros(2))
    return made.getvalue()


#: An ONNX model: versions of IR and opset, a producer of 200 bytes and a graph.
ONNX = b"\x08\x0a\x12\xc8\x01" + bytes(200) + b"\x3a\x03\x12\x01g\x42\x02\x10\x11"

OTHERS = {
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "fastrnn.keras.load(p"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "fastrnn.keras.load(path)"),
    "onnx": (ONNX, "fastrnn.onnx.load(path)"),
    "torch": (zipped("m/data.pkl", "m/data/0"), "load_state_dict(torch.load(path, weights_only"),
    "torchscript": (zipped("m/data.pkl", "m/constants.pkl"), "torch.jit.load(path).state_dict()"),
    "npz": (npz(), "load_state_dict(numpy.load(path))"),
    "pickle": (pickle.dumps([1]), "a pickle, which can hold any code, and is never read"),
    "safetensors": (save({"a": np.zeros(2)}), "load_state_dict(safetensors.numpy.load_file(path"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_others_say_what_reads_them(kind: str, tmp_path: Path) -> None:
    """By what is in them: their names are those of models of fastrnn."""
    data, message = OTHERS[kind]
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"m.safetensors: is .*{re.escape(message)}"):
        fastrnn.load(path)


def test_what_is_unknown_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "m"
    Sequential([Linear(2, 2)]).save(path)
    whole = path.read_bytes()
    long = b"\x08" + b"\xff" * 20
    for data in (b"", b"\x08", long, ONNX[:-1], ONNX[:5], zipped("a.txt"), zipped("a")[:9],
                 whole[:-1], whole[:100], whole[:8] + b"{" * 5000):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m: is (not a safetensors file, or )?damaged: "):
            fastrnn.load(path)


def test_others_of_models_of_fastrnn(tmp_path: Path) -> None:
    path = tmp_path / "m"
    Sequential([Linear(2, 2)]).save(path)
    assert others.described(io.BytesIO(path.read_bytes())) == (
        "is a model of fastrnn, which fastrnn.load(path) reads"
    )
    assert others.described(io.BytesIO(ONNX), but="fastrnn.onnx.load") is None
    onnx = others.described(io.BytesIO(ONNX))
    assert onnx is not None
    assert others.described(io.BytesIO(ONNX), but="fastrnn.keras.load") == onnx


# Files of version 0.1.0, and its predictions.

OLD = Path(__file__).parent / "data"
EXPECTED: dict[str, Any] = {
    "rnn": [[0.02198818], [0.001389957]],
    "lstm": [
        [
            [0.2511642, -0.4664792, -0.199905, -0.402843],
            [0.3852866, -0.4745162, -0.1549778, -0.4996002],
            [0.3480922, -0.5153256, -0.1850676, -0.4491822],
        ],
        [
            [0.250785, -0.439073, -0.1888143, -0.417576],
            [0.3399603, -0.666027, -0.2497266, -0.3604621],
            [0.249539, -0.5485664, -0.2341167, -0.3566321],
        ],
    ],
    "gru": [
        [[0.105051, 0.5058613], [0.004396473, 0.1058093], [-0.2820635, 0.3012341]],
        [[0.7111476, 0.4199624], [0.7320236, 0.3133169], [0.4673102, 0.163555]],
    ],
}
TOKENS = np.array([[0, 1, 3], [2, 2, 1]])


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_0_1_0(name: str, tmp_path: Path) -> None:
    loaded = fastrnn.load(OLD / f"sequential_{name}-0.1.0.safetensors")
    x = TOKENS if name == "lstm" else np.arange(12).reshape(2, 3, 2) / 10 - 0.5
    np.testing.assert_allclose(loaded.predict(x), EXPECTED[name], rtol=1e-5)
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "again").predict(x), loaded.predict(x))


def test_a_training_of_0_1_0_goes_on(tmp_path: Path) -> None:
    class Stop(Callback):
        """Ended training in its third epoch when the file was written."""

    path = tmp_path / "c"
    shutil.copy(OLD / "checkpoint-0.1.0.safetensors", path)
    lstm = LSTM(2, 3, num_layers=2, dropout=0.25, proj_size=2, peephole=True, layer_norm=True)
    model = Sequential([Embedding(4, 2), lstm, Dropout(0.5), Linear(2, 4)], seed=1)
    model.compile("adam", "cross_entropy")
    stop = EarlyStopping("loss", patience=5, restore_best_weights=True)
    history = model.fit(
        TOKENS, TOKENS, epochs=4, callbacks=[Checkpoint(path), stop, Stop()], verbose=0
    )
    expected = [1.501621, 1.427565, 1.476787, 1.503422]
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-5)


# One path, many writers.


def test_many_threads_save_to_one_path(tmp_path: Path) -> None:
    path = tmp_path / "m"
    model = Sequential([LSTM(8, 16), Linear(16, 8)])
    model.save(path)
    wrong: list[BaseException] = []

    def work() -> None:
        for _ in range(20):
            try:
                model.save(path)
                fastrnn.load(path)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.skipif(os.name == "nt", reason="modes and links")
def test_a_file_keeps_its_mode_and_a_link_its_place(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    model = Sequential([Linear(2, 2)])
    model.save(real)
    real.chmod(0o600)
    link.symlink_to(real)
    model.save(link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    np.testing.assert_equal(model_file.read(link), model_file.read(real))


@pytest.mark.skipif(os.name == "nt", reason="knows no other way to tell who is alive")
def test_only_what_dead_processes_left_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (f".m.{process.pid}.tmp", f".m.{process.pid}.abc.tmp"):
        (tmp_path / name).touch()
    kept = {f".m.{os.getpid()}.abc.tmp", ".m.mine.tmp", ".other.1.tmp", f"m.{process.pid}.tmp"}
    for name in kept:
        (tmp_path / name).touch()
    atomic.remove_left_over(tmp_path / "m")
    assert set(os.listdir(tmp_path)) == kept


# What can't be written.


#: Not zero, so that no other flags have it, where there is none.
_O_TMPFILE = getattr(os, "O_TMPFILE", 1 << 40)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return a set of folders; those added have no space left."""
    folders: set[str] = set()
    usual = os.open

    def open_(path: Any, flags: int, *args: Any, **options: Any) -> int:
        unnamed = flags & _O_TMPFILE == _O_TMPFILE
        folder = path if unnamed else os.path.dirname(os.fsdecode(path))
        if (unnamed or flags & os.O_CREAT) and folder in folders:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return usual(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_)
    return folders


def test_a_full_disk_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as info:
        atomic.check_writable(tmp_path / "m")
    assert info.value.filename == str(tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="owners")
def test_another_users_file_in_a_shared_folder_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    atomic.check_writable(tmp_path / "m")
    tmp_path.chmod(0o1777)
    with pytest.raises(PermissionError):
        atomic.check_writable(tmp_path / "m")
    atomic.check_writable(tmp_path / "new")


@pytest.mark.parametrize("path", ["", ".", "folder/"])
def test_no_file(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="is not a regular file"):
        atomic.check_writable(path)


@pytest.mark.parametrize("length", [255, 143, 101])
def test_long_names(length: int, tmp_path: Path) -> None:
    names = ["m" * length, "m" * (length - 1) + "n"]
    names.append("é" * (length // 2))
    for name in names:
        atomic.check_writable(tmp_path / name)
        atomic.write(tmp_path / name, b"data")
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    kept = atomic.kept(tmp_path / names[0], lambda path: atomic.write(path, b"other"))
    assert kept is not None
    assert Path(kept).read_bytes() == b"other"
    assert Path(kept).parent == tmp_path


@pytest.mark.skipif(os.name == "nt", reason="knows no other way to tell who is alive")
def test_what_is_left_of_a_long_name_is_removed(tmp_path: Path) -> None:
    script = """if True:
        import os, sys
        from fastrnn._files import atomic
        os.replace = lambda *_: os._exit(1)
        atomic.write(sys.argv[1], b"data")"""
    path = str(tmp_path / ("m" * 255))
    subprocess.run([sys.executable, "-P", "-c", script, path])
    assert len(os.listdir(tmp_path)) == 1
    atomic.remove_left_over(tmp_path / "other")
    assert len(os.listdir(tmp_path)) == 1
    atomic.remove_left_over(path)
    assert os.listdir(tmp_path) == []


def test_what_could_not_be_written_is_kept(
    tmp_path: Path, full: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    path = folder / "m.safetensors"
    path.write_bytes(b"before")
    path.chmod(0o600)

    def write(path: str) -> None:
        atomic.write(path, b"data")

    beside = atomic.kept(path, write)
    assert beside is not None
    assert Path(beside).parent == folder
    assert Path(beside).name.startswith("m.")
    assert beside.endswith(".safetensors")
    assert os.name == "nt" or os.stat(beside).st_mode & 0o777 == 0o600
    assert atomic.kept(path, write, beside) == beside
    full.add(str(folder))
    away = atomic.kept(path, write, beside)
    assert away is not None
    assert Path(away).name == path.name
    assert Path(away).parent.parent == other
    assert Path(away).read_bytes() == Path(beside).read_bytes() == b"data"
    full.add(str(other))
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(other))
    assert atomic.kept(path, write, beside) is None
    assert path.read_bytes() == b"before"
    assert {*os.listdir(folder)} == {path.name, Path(beside).name}


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use can't be removed")
def test_kept_where_the_working_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    with pytest.raises(OSError, match=r"^m: No such file or directory; it is kept in /") as info:
        atomic.save("m", lambda path: atomic.write(path, b"data"), "it")
    assert Path(str(info.value).partition(" in ")[2]).read_bytes() == b"data"


def test_a_checkpoint_that_fails_does_not_end_the_training(
    tmp_path: Path, full: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))

    class Fill(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            full.clear()
            if epoch in (1, 2):
                full.add(str(folder))

    def train(path: Path, epochs: int) -> dict[str, list[float]]:
        model = Sequential([Embedding(4, 2), LSTM(2, 3), Linear(3, 4)], seed=1)
        model.compile("adam", "cross_entropy")
        callbacks = [Checkpoint(path), Fill()]
        return model.fit(TOKENS, TOKENS, epochs=epochs, callbacks=callbacks, verbose=0).history

    said = r"m: No space left on device; the training goes on, its state is kept in .*other"
    with pytest.warns(RuntimeWarning, match=said) as told:
        train(folder / "m", 3)
    assert len(told) == 1
    (kept,) = other.glob("*/m")
    assert train(kept, 4) == train(tmp_path / "whole", 4)
    full.clear()
    with pytest.warns(RuntimeWarning):
        train(folder / "n", 4)
    assert train(folder / "n", 4) == train(tmp_path / "whole", 4)
