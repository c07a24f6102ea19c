"""Files that lie, what is no file, and processes that are killed while they write."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import GRU, Embedding, Linear, Sequential
from fastrnn._files import atomic, model_file, others, reading
from fastrnn.callbacks import Callback, Checkpoint
from fastrnn.text import CharLM

safetensors = pytest.importorskip("safetensors.numpy")  # not on every free-threaded CPython
resource = pytest.importorskip("resource", reason="Windows has no pipes, devices and limits so")

_FOUND = importlib.util.spec_from_file_location(
    "fuzz_files", Path(__file__).with_name("fuzz_files.py")
)
assert _FOUND is not None
assert _FOUND.loader is not None
fuzz_files: Any = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(fuzz_files)

TOKENS = np.array([[0, 1, 3], [2, 2, 1]])


def model(seed: int = 0) -> Sequential:
    return Sequential([Embedding(4, 3), GRU(3, 5), Linear(5, 4)], seed=seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a model."""
    made = tmp_path / "m"
    model().save(made)
    return made


# What is no file.


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def bound(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    return path


NO_FILES: dict[str, Callable[[Path], Path]] = {
    "pipe": fifo,
    "socket": bound,
    "device": lambda _: Path("/dev/zero"),
    "link to a device": lambda path: path.symlink_to("/dev/zero") or path,  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_not_opened(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe waits, and so may a device; a device has no end."""
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket has to be short
        path = NO_FILES[kind](Path(folder) / "m")
        for load in (fastrnn.load, CharLM.load, reading.whole):
            with monkeypatch.context() as patch:
                patch.setattr(os, "open", lambda *_: pytest.fail("was opened"))
                with pytest.raises(OSError, match=f"'{path}' is not a regular file"):
                    load(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as info:
        fastrnn.load(tmp_path)
    assert info.value.filename == str(tmp_path)


def test_what_takes_a_files_place_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.stat
    of_file = usual(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_: of_file)
    with pytest.raises(OSError, match="is not a regular file"):
        reading.whole(path)


# Files that lie: attacks on safetensors that were published, and their kin. Sizes are those of the
# audit by Trail of Bits (2023) and of the format's own tests.

LARGE = 2**62


def raw(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """Return a file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def spec(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


#: What makes the header of our files.
OURS = {"__metadata__": {"format": "fastrnn", "version": "1", "kind": "Sequential", "model": "{}"}}
META = json.dumps(OURS)[1:-1].encode()
ATTACKS: dict[str, tuple[bytes, str]] = {
    "no size": (b"\0\0\0", "claims 0 bytes, the file has 3"),
    "no header": (raw(b""), "expected a header that starts"),
    "the largest size": (raw(OURS, size=2**64 - 1), "claims 18446744073709551615 bytes"),
    "a size beyond the end": (raw(OURS, size=1000), "claims 1000 bytes, the file has"),
    "a header of spaces": (raw(b" " + json.dumps(OURS).encode()), "starts with {"),
    "invalid UTF-8": (raw(b'{"\xff": 1}'), "utf-8"),
    "UTF-16": (raw('{"a": 1}'.encode("utf-16-le")), "Expecting property name"),
    "a surrogate": (raw(b'{"__metadata__":{"format":"\\ud800"}}'), "not a model of fastrnn"),
    "a tensor named so": (raw(OURS | {"\udc80": spec([1], 0, 4)}, bytes(4)), "surrogates"),
    "deep": (raw(b'{"a":' * 100_000), "nested less deeply"),
    "deep lists": (raw(b'{"a":' + b"[" * 100_000), "nested less deeply"),
    "more after it": (raw(b"{" + META + b"}{}"), "Extra data"),
    "NUL after it": (raw(b"{" + META + b"}\0"), "Extra data"),
    "metadata twice": (raw(b"{" + META + b"," + META + b"}"), "got '__metadata__' again"),
    "a tensor twice": (raw(b'{"a":1,"a":2}'), "every key of JSON once, got 'a' again"),
    "a key twice": (raw(b'{"a":{"dtype":"F32","dtype":"F64"}}'), "got 'dtype' again"),
    "metadata null": (raw({"__metadata__": None}), "__metadata__: expected an object of strings"),
    "metadata of numbers": (raw({"__metadata__": {"a": 1}}), "expected an object of strings"),
    "many items": (raw(b'{"a":[' + b"0," * reading.MOST_ITEMS + b"0]}"), "at most 4194304 items"),
    "overlap": (
        raw(OURS | {"a": spec([2], 0, 8), "b": spec([2], 4, 12)}, bytes(12)),
        r"b: expected the 8 bytes at 8, right after .* got \[4, 12\]",
    ),
    "the same place": (
        raw(OURS | {"a": spec([2], 0, 8), "b": spec([2], 0, 8)}, bytes(8)),
        r"b: expected the 8 bytes at 8, .* got \[0, 8\]",
    ),
    "a hole at the start": (
        raw(OURS | {"a": spec([1], 4, 8)}, bytes(8)),
        "a: expected the 4 bytes",
    ),
    "a hole between": (
        raw(OURS | {"a": spec([1], 0, 4), "b": spec([1], 8, 12)}, bytes(12)),
        r"b: expected the 4 bytes at 4, .* got \[8, 12\]",
    ),
    "a file after it": (raw(OURS | {"a": spec([1], 0, 4)}, b"PK.." + bytes(9)), "the file has 13"),
    "data without tensors": (raw(OURS, b"PK\3\4"), "have 0 bytes, the file has 4"),
    "beyond the end": (
        raw(OURS | {"a": spec([9], 0, 36)}, bytes(8)),
        "have 36 bytes, the file has 8",
    ),
    "far beyond the end": (raw(OURS | {"a": spec([2**40], 0, 2**42)}), "have 4398046511104 bytes"),
    "backwards": (raw(OURS | {"a": spec([1], 4, 0)}, bytes(4)), "a: expected the 4 bytes at 0"),
    "another size": (raw(OURS | {"a": spec([2], 0, 4)}, bytes(4)), "a: expected the 8 bytes at 0"),
    "overflow": (raw(OURS | {"a": spec([LARGE, LARGE], 0, 4)}, bytes(4)), "that fits into memory"),
    "overflow to 0": (raw(OURS | {"a": spec([2**32, 2**32], 0, 0)}), "that fits into memory"),
    "overflow beside 0": (raw(OURS | {"a": spec([0, LARGE, 8], 0, 0)}), "that fits into memory"),
    "a size of 10^30": (raw(OURS | {"a": spec([10**30, 0], 0, 0)}), "that fits into memory"),
    "a negative size": (raw(OURS | {"a": spec([-1, -4], 0, 16)}, bytes(16)), "a shape of sizes"),
    "a size of 1.0": (raw(OURS | {"a": spec([1.0], 0, 4)}, bytes(4)), "a shape of sizes"),
    "a size of true": (raw(OURS | {"a": spec([True], 0, 4)}, bytes(4)), "a shape of sizes"),
    "33 axes": (raw(OURS | {"a": spec([1] * 33, 0, 4)}, bytes(4)), "a shape of sizes"),
    "places of true": (raw(OURS | {"a": spec([1], False, 4)}, bytes(4)), r"\[begin, end\]"),
    "a place of 2^64": (raw(OURS | {"a": spec([1], 2**64, 2**64 + 4)}, bytes(4)), "at 0"),
    "a dtype of ours": (raw(OURS | {"a": spec([1], 0, 8, "<f8")}, bytes(8)), "expected a dtype of"),
    "objects": (raw(OURS | {"a": spec([1], 0, 8, "O")}, bytes(8)), "expected a dtype of"),
    "no dtype": (raw(OURS | {"a": spec([1], 0, 4, None)}, bytes(4)), "expected a dtype of"),
    "more about it": (raw(OURS | {"a": spec([0], 0, 0) | {"x": 1}}), "its dtype, shape and data_o"),
    "no description": (raw(OURS | {"a": 4}), "its dtype, shape and data_offsets"),
    "a boolean of 2": (raw(OURS | {"a": spec([2], 0, 2, "BOOL")}, b"\1\2"), "booleans of 0 and 1"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_header_that_lies(attack: str, tmp_path: Path) -> None:
    data, message = ATTACKS[attack]
    assert others.described(io.BytesIO()) is None  # imported, before memory is counted
    (tmp_path / "m").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"m: is .*{message}"):
        fastrnn.load(tmp_path / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000 + 5 * len(data)


def test_safetensors_refuses_no_less() -> None:
    """What its own reader takes of them, ours refuses for what it says, not for its form."""
    taken = set()
    for name, (data, _) in ATTACKS.items():
        try:
            safetensors.load(data)
            taken.add(name)
        except Exception:
            continue
    ours = {
        "a header of spaces",
        "metadata null",
        "more about it",
        "a boolean of 2",
        "a dtype of ours",
        "33 axes",
    }
    assert taken <= ours | {"a tensor twice", "metadata twice", "a key twice", "a surrogate"}


def test_what_safetensors_writes_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    """Each dtype, and sizes of 0, 1 and 3 axes."""
    held = {
        f"{kind} {len(shape)}": np.asarray(rng.integers(0, 2, shape)).astype(kind)
        for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8")
        for shape in ((), (0,), (3, 1, 5))
    }
    model_file.write(tmp_path / "m", "Sequential", {"a": "\ud800"}, held)
    kind, described, found = model_file.read(tmp_path / "m")
    assert (kind, described) == ("Sequential", {"a": "\ud800"})
    assert found.keys() == held.keys()
    for name, array in held.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert found[name].flags.aligned
        assert found[name].flags.owndata


def test_a_file_of_holes_is_not_read(tmp_path: Path, path: Path) -> None:
    """A disk gives a gigabyte of zeros for nothing."""
    beyond = path.read_bytes()
    for data in (b"", raw(b"{" + b" " * 99), beyond):
        (tmp_path / "n").write_bytes(data)
        os.truncate(tmp_path / "n", 2**30)
        tracemalloc.start()
        with pytest.raises(ValueError, match="damaged"):
            fastrnn.load(tmp_path / "n")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


def test_a_million_empty_tensors_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, that took 45 s."""
    one = json.dumps({"a": spec([0], 0, 0)})[1:-1].encode()
    (tmp_path / "m").write_bytes(raw(b"{" + b",".join([one] * 1_000_000) + b"}"))
    with pytest.raises(ValueError, match="expected JSON of at most 4194304 items"):
        fastrnn.load(tmp_path / "m")
    monkeypatch.setattr(model_file.tensor_file, "MOST_TENSORS", 2)
    (tmp_path / "m").write_bytes(raw(OURS | {name: spec([0], 0, 0) for name in "abc"}))
    with pytest.raises(ValueError, match="expected 2 tensors or less, got 3"):
        fastrnn.load(tmp_path / "m")


def test_what_could_not_be_read_is_not_written(path: Path, monkeypatch: Any) -> None:
    before = path.read_bytes()
    for limit, value in (("MOST_TENSORS", 1), ("MOST_HEADER", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(model_file.tensor_file, limit, value)
            with pytest.raises(ValueError, match="more parts than a file may have"):
                model().save(path)
    monkeypatch.setattr(reading, "MOST_ITEMS", 1)
    with pytest.raises(ValueError, match="more parts than a file may have"):
        model().save(path)
    assert path.read_bytes() == before


def test_a_file_that_is_cut_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = model_file.tensor_file.header

    def header(file: Any) -> Any:
        found = usual(file)
        size = reading.size(file)
        monkeypatch.setattr(reading, "size", lambda _: size)
        os.truncate(path, size - 4)
        return found

    monkeypatch.setattr(model_file.tensor_file, "header", header)
    with pytest.raises(ValueError, match="the file ended while it was read"):
        fastrnn.load(path)


def test_weights_that_are_not_finite_write_no_text(tmp_path: Path) -> None:
    """Once an AttributeError or IndexError, then a text as if there was nothing."""
    language = CharLM(embedding_dim=2, hidden_size=3, epochs=1).fit("abcd " * 30, verbose=0)
    language.save(tmp_path / "m")
    kind, about, tensors = model_file.read(tmp_path / "m")
    for value in (np.nan, np.inf):
        changed = {name: np.full_like(a, value) for name, a in tensors.items()}
        model_file.write(tmp_path / "m", kind, about, changed)
        loaded = CharLM.load(tmp_path / "m")
        for options in ({}, {"temperature": 0}, {"top_k": 2}):
            with pytest.raises(ValueError, match="CharLM: expected finite weights, got"):
                loaded.generate("ab", 9, **options)  # type: ignore[arg-type]


# Files that are written.


@pytest.fixture(params=["unnamed", "named", "unlinked"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write with files that have no name until they are whole, without, and where none is given."""
    if request.param == "named":
        monkeypatch.setattr(atomic, "_UNNAMED", 0)
    if request.param == "unlinked":

        def link(*_: Any, **options: Any) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", link)


def test_modes_owners_and_links(tmp_path: Path, ways: None) -> None:
    target, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(target)  # of no file yet
    before = os.umask(0o027)
    try:
        atomic.write(link, b"one")
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o640
    target.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(target, 12, 34)
    owner = target.stat().st_uid, target.stat().st_gid
    atomic.write(link, b"two")
    status = target.stat()
    assert link.is_symlink()
    assert target.read_bytes() == b"two"
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*owner, 0o604)
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_link_that_was_planted_is_not_followed(
    path: Path, ways: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even by somebody who can guess."""
    before = path.read_bytes()
    monkeypatch.setattr(os, "urandom", bytes)
    victim = path.with_name("victim")
    victim.write_bytes(b"mine")
    path.with_name(f".m.{os.getpid()}.{bytes(8).hex()}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError):
        atomic.write(path, b"data")
    assert victim.read_bytes() == b"mine"
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_old_file(path: Path, ways: None) -> None:
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as info:
            model(1).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert info.value.filename == str(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["m"]


@pytest.mark.skipif(not atomic._UNNAMED, reason="only Linux has files without a name")
def test_nothing_is_left_of_a_process_that_is_killed_in_writing(path: Path) -> None:
    script = """if True:
        import os, signal, sys
        from fastrnn._files import atomic
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        atomic.write(sys.argv[1], bytes(100_000))"""
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-P", "-c", script, str(path)])
    assert done.returncode == -9
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["m"]


def test_threads_and_processes_save_to_one_file(path: Path, ways: None) -> None:
    """The last one stays, and each is whole."""
    models = [model(seed) for seed in range(4)]
    wrong: list[Exception] = []

    def work(own: Sequential) -> None:
        for _ in range(15):
            try:
                own.save(path)
                found = fastrnn.load(path).parameters()
                assert any(fuzz_files.same(found, m.parameters()) for m in models)
            except Exception as error:
                wrong.append(error)

    child = os.fork()
    if not child:
        try:
            work(models[0])
        finally:
            os._exit(len(wrong))
    threads = [threading.Thread(target=work, args=[own]) for own in models[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert wrong == []
    assert os.listdir(path.parent) == ["m"]


def test_two_trainings_of_one_checkpoint(tmp_path: Path) -> None:
    """Both go on; the file is that of the last one, and the other says so, once."""
    path = tmp_path / "training"

    class Other(Callback):
        def __init__(self, writes: bool) -> None:
            self.writes = writes

        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            if self.writes and epoch:
                model(7).save(path)

    def train(writes: bool) -> Sequential:
        trained = model()
        trained.compile("adam", "cross_entropy")
        both = [Checkpoint(path), Other(writes)]
        trained.fit(TOKENS, TOKENS, epochs=4, callbacks=both, verbose=0)
        return trained

    with pytest.warns(RuntimeWarning, match="training: was written by another training") as told:
        whole = train(writes=True).parameters()
    assert len(told) == 1
    assert fuzz_files.same(fastrnn.load(path).parameters(), whole)
    assert fuzz_files.same(train(writes=False).parameters(), whole)  # resumed, without a warning


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("order", {"has_uint32": 1, "uinteger": -1}),  # once an OverflowError
        ("order", {"state": None}),
        ("order", {"bit_generator": "MT19937"}),
        ("history", {"loss": {"dict": {"a": 1}}}),  # once a KeyError at the end of the training
    ],
    ids=str,
)
def test_a_state_that_is_none(part: str, change: Any, tmp_path: Path) -> None:
    path = tmp_path / "training"
    fuzz_files.training(path)
    kind, tree, tensors = model_file.read(path)
    tree["dict"][part]["dict"] |= change
    model_file.write(path, kind, tree, tensors)
    with pytest.raises(ValueError, match=r"training: (does not fit this training|is damaged)"):
        fuzz_files.training(path, 2)


# At random.


def test_damaged_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_files.fuzz(250, seed=17) == 0, capsys.readouterr().out


def test_killed_saves_and_trainings() -> None:
    assert fuzz_files.kill(6, seed=0) == 0
