"""A fuzzer of files, and of processes that are killed while they write: clear errors, whole files.

python tests/fuzz_files.py --files 20000 [--seed N]
python tests/fuzz_files.py --files 1 --seed N --first K        repeat the one that failed
python tests/fuzz_files.py --kills 200                         SIGKILL in saves and in checkpoints

Model files, checkpoints and, where onnx, h5py and pandas are installed, files of ONNX and Keras
and the commands' tables are damaged: bytes are changed, cut, put in and exchanged, and what files
say about themselves is changed in their own terms, with checksums that are right again. What is
loaded nevertheless is used. Only a ValueError, TypeError or OSError may come out, within SECONDS
and SPACE.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gzip
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn._files import model_file
from fastrnn.callbacks import Checkpoint
from fastrnn.forecast import Forecaster
from fastrnn.text import CharLM, TextClassifier

try:
    import onnx

    import fastrnn.onnx
except ImportError:
    onnx = None
try:
    import h5py

    import fastrnn.keras
except ImportError:
    h5py = None
try:
    import pandas as pd

    from fastrnn.cli import _parser, series
except ImportError:
    pd = None
try:
    from fastrnn import sklearn
except ImportError:
    sklearn = None

#: What may come out.
CLEAR = (ValueError, TypeError, OSError)
#: The most CPU time of a file, child processes included, and of address space.
SECONDS, SPACE = 3.0, 3 * 2**30
#: One file of Keras in so many: each takes a process.
KERAS = 50
DATA = Path(__file__).parent / "data"

ODD = (
    None, True, False, "", "lstm", "float64", "\udc80", -1, 0, 1, 2, 3, 7, 255, 10**9, 2**31, 2**32,
    2**62, 2**63, 2**64, 10**30, -(2**63), 0.0, -0.5, 0.5, 1.5, 1e308, 1e-320, float("nan"),
    float("inf"), [], {}, [[]], [0], [1, 2], [None], {"": None}, {"array": "0"}, {"tuple": []},
    {"dict": {}}, [2**40] * 3, "a" * 300, [[[[[[[[0]]]]]]]],
)  # fmt: skip
CELLS = (
    b"", b"nan", b"inf", b"-", b"1e999", b"1" * 400, b"1.000.000", b"1,5", b"2024-02-30", b"0x1",
    b'"', b"9999-12-31", b"0001-01-01", b"24:00", b"\xff", b"\0", b"\xd9\xa1", b"1_0", b"-0",
    b"1 0", b"2024-01-01T00:00:00+99:00", b"99999999999999999999", b"a" * 300, b"\r", b"x\x0cy",
    b"$5", b"12/13/24", b"7",
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I8", "U64", "U8", "BOOL", "C64", "F8_E4M3")
NUMBERS = (np.nan, np.inf, -np.inf, 0, 1, -1, 1e-320, 3e38, 255)


# The files.


def tokens(n: int = 4) -> np.ndarray:
    return np.arange(n * 5).reshape(n, 5) % 4


def text_models(folder: Path) -> None:
    language = CharLM(embedding_dim=2, hidden_size=3, epochs=1, seed=0)
    language.fit("abcd efgh\n" * 30, verbose=0)
    language.save(folder / "language")
    fastrnn.quantize(language).save(folder / "language-int8")
    labelled = TextClassifier(epochs=1, hidden_size=2, seed=0)
    labelled.fit(["a b", "c d", "e"], ["x", "y", "x"], verbose=0).save(folder / "classifier")


def estimators(folder: Path) -> None:
    many = Forecaster(epochs=1, hidden_size=2, seed=0)
    many.fit(np.sin(np.arange(80.0)), verbose=0).save(folder / "forecaster")
    if sklearn is not None:
        X, y = np.random.default_rng(0).normal(size=(12, 5, 2)), np.arange(12) % 3
        options: Any = {"hidden_size": 2, "max_epochs": 1, "random_state": 0}
        sklearn.SequenceClassifier(**options).fit(X, y).save(folder / "estimator")
        sklearn.SequenceRegressor(**options).fit(X, y).save(folder / "regressor")


def chains() -> dict[str, fastrnn.Sequential]:
    f = fastrnn
    stack = [
        f.Normalization(2), f.LSTM(2, 3, 2, bidirectional=True, proj_size=2), f.Dropout(0.5),
        f.LayerNorm(4), f.GRU(4, 2, learn_initial_state=True), f.Linear(2, 4), f.Activation("elu"),
    ]  # fmt: skip
    return {
        "tokens": f.Sequential([f.Embedding(4, 2), f.GRU(2, 3), f.Linear(3, 4)], seed=0),
        "stack": f.Sequential(stack, seed=0),
        "plain": f.Sequential([f.RNN(2, 3, return_sequences=False), f.Linear(3, 1)], seed=0),
    }


def training(path: Path, epochs: int = 1, every: int | None = None) -> fastrnn.Sequential:
    """Train, with a checkpoint, from which it resumes."""
    model = fastrnn.Sequential(
        [fastrnn.Embedding(4, 2), fastrnn.GRU(2, 3), fastrnn.Linear(3, 4)], seed=0
    )
    model.compile(fastrnn.optim.Adam(0.01), "cross_entropy")
    model.fit(
        tokens(8), tokens(8), epochs=epochs, batch_size=3, callbacks=[Checkpoint(path, every)],
        verbose=0,
    )  # fmt: skip
    return model


def seeds(folder: Path) -> dict[str, list[Path]]:
    """Write whole files of each kind."""
    for kind in ("fastrnn", "checkpoint", "onnx", "keras", "table"):
        (folder / kind).mkdir()
    own = folder / "fastrnn"
    text_models(own)
    estimators(own)
    for name, model in chains().items():
        model.save(own / name)
        fastrnn.quantize(model).save(own / f"{name}-int8")
        if onnx is not None:
            fastrnn.onnx.save(model, folder / "onnx" / name)
    training(folder / "checkpoint" / "checkpoint")
    for path in DATA.glob("*.safetensors"):
        shutil.copy(path, folder / ("checkpoint" if "checkpoint" in path.name else "fastrnn"))
    if onnx is not None:
        for path in DATA.glob("*.onnx"):
            if path.stat().st_size < 100_000:
                shutil.copy(path, folder / "onnx")
        external(folder / "onnx")
    if h5py is not None:
        keras_files(folder / "keras")
    if pd is not None:
        tables(folder / "table")
    return {kind.name: sorted(kind.iterdir()) for kind in folder.iterdir()}


def external(folder: Path) -> None:
    """Write a model whose tensors are in a file of their own."""
    model = onnx.load(folder / "plain")
    for tensor in model.graph.initializer:
        tensor.raw_data = tensor.raw_data or onnx.numpy_helper.to_array(tensor).tobytes()
    options: Any = {"save_as_external_data": True, "location": "data", "size_threshold": 0}
    onnx.save_model(model, folder / "external", **options)
    (folder / "data").rename(folder.parent.parent / "data")


def keras_files(folder: Path) -> None:
    dense = {"class_name": "Dense", "config": {"name": "dense", "units": 3, "activation": "tanh"}}
    lstm = {"class_name": "LSTM", "config": {"name": "lstm", "units": 2, "return_sequences": True}}
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [lstm, dense]}}
    arrays = {
        "lstm/cell": [(4, 8), (2, 8), (8,)],
        "dense": [(2, 3), (3,)],
    }
    with h5py.File(held := io.BytesIO(), "w") as file:
        for place, shapes in arrays.items():
            for i, shape in enumerate(shapes):
                file[f"layers/{place}/vars/{i}"] = np.full(shape, 0.1, np.float32)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", held.getvalue())
    with h5py.File(folder / "model.h5", "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(model), "2.15.0"
        for place, shapes in arrays.items():
            name = place.partition("/")[0]
            names = [f"{name}/{i}:0" for i in range(len(shapes))]
            group = file.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [n.encode() for n in names]
            for key, shape in zip(names, shapes, strict=True):
                group[key] = np.full(shape, 0.1, np.float32)


def tables(folder: Path) -> None:
    days = np.datetime64("2024-01-01") + np.arange(50)
    rows = [f"{day},{k},{k * 0.5},a" for k, day in enumerate(days)]
    text = "\n".join(["date,n,x,id", *rows, ""])
    (folder / "comma").write_text(text)
    (folder / "semicolon").write_text(text.replace(".", ";;").replace(",", ";").replace(";;", ","))
    (folder / "utf-16").write_text(text, encoding="utf-16")
    (folder / "packed").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        archive.writestr("table.csv", text)


#: Options of the command that reads tables.
OPTIONS = (
    [], [], [], [], ["--time=date"], ["--id=id"], ["--fill=linear"], ["--fill=skip"],
    ["--columns=n,x"], ["--decimal=,"], ["--sep=,"], ["--encoding=latin-1"], ["--dayfirst"],
    ["--time-format=%d/%m/%y"], ["--time=n"],
)  # fmt: skip


# Damage.


def damaged_bytes(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Return bytes that are changed, cut, repeated, or exchanged with those of other files."""
    made = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, n = int(rng.integers(len(made) + 1)), int(2 ** rng.uniform(0, 9))
        other = others[rng.integers(len(others))]
        start = int(rng.integers(len(other)))
        match rng.integers(9):
            case 0:
                del made[at:]
            case 1:
                del made[at : at + n]
            case 2:
                made[at : at + n] = rng.bytes(n)
            case 3:
                made[at:at] = rng.bytes(n)
            case 4:
                made[at : at + n] = bytes([rng.choice([0, 255, 32, 128])]) * n
            case 5:
                made[at : at + n] = other[start : start + n]
            case 6:
                made[at:at] = made[at : at + n]
            case 7:
                made[at:] = other[start:]
            case _ if made:
                made[min(at, len(made) - 1)] ^= 1 << rng.integers(8)
    return bytes(made)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container and key in a tree."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(inner):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def damaged_tree(tree: Any, rng: np.random.Generator) -> Any:
    """Return a tree of JSON in which a few parts are others, gone, renamed, or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.integers(1, 4)):
        found = list(places(tree)) if isinstance(tree, dict | list) else []
        if not found:
            return ODD[rng.integers(len(ODD))]
        inside, key = found[rng.integers(len(found))]
        other, other_key = found[rng.integers(len(found))]
        odd = copy.deepcopy(ODD[rng.integers(len(ODD))])
        match rng.integers(8):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[str(odd)] = inside.pop(key)
            case 2:
                inside[key] = copy.deepcopy(other[other_key])
            case 3 if isinstance(inside, list):
                inside.extend(copy.deepcopy(inside))
            case 4 if isinstance(inside[key], int | float):
                inside[key] = inside[key] * int(rng.integers(-2, 4)) + int(rng.integers(-2, 3))
            case 5:
                inside[key] = [inside[key]]
            case _:
                inside[key] = odd
    return tree


def damaged_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a safetensors file whose header says something else."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    specs = [name for name in header if name != "__metadata__"]
    name = specs[rng.integers(len(specs))] if specs else ""
    match rng.integers(5):
        case 0 if specs:
            header[name]["dtype"] = str(rng.choice(DTYPES))
        case 1 if specs:
            spec = header[name]
            part = "shape" if rng.integers(2) else "data_offsets"
            spec[part] = damaged_tree(spec[part], rng)
        case 2 if specs:
            header[name + "x"] = header.pop(name)
        case _:
            header = damaged_tree(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if not rng.integers(8):  # a key twice
        text = text.replace(b"{", b'{"__metadata__": {}, ', 1)
    size = len(text) if rng.integers(8) else int(2 ** rng.uniform(0, 64)) % 2**64
    return size.to_bytes(8, "little") + text + data[start:]


def damaged_model(path: Path, out: str, rng: np.random.Generator) -> None:
    """Write a file that is whole, its checksum right, but no model, or another one."""
    kind, model, tensors = model_file.read(path)
    if rng.integers(3):
        model = damaged_tree(model, rng)
    names = sorted(tensors)
    for _ in range(rng.integers(3) if names else 0):
        name = names[rng.integers(len(names))]
        a = tensors.get(name, np.zeros(3, np.float32))
        match rng.integers(7):
            case 0:
                tensors.pop(name, None)
            case 1:
                tensors[str(rng.choice(["x", "0.weight", "", name + "_"]))] = a
            case 2:
                to = str(rng.choice(["f8", "f4", "f2", "i8", "i1", "?", "u1"]))
                with np.errstate(all="ignore"):
                    tensors[name] = np.nan_to_num(a).astype(to)
            case 3:
                shape = rng.integers(0, 4, rng.integers(0, 4))
                tensors[name] = np.resize(a, tuple(shape)).astype(a.dtype)
            case 4:
                tensors[name] = a.reshape(-1)
            case _ if a.size:
                changed = a.copy()
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if a.dtype.kind == "f":
                        changed.flat[rng.integers(a.size)] = NUMBERS[rng.integers(len(NUMBERS))]
                    else:
                        changed.flat[rng.integers(a.size)] = rng.integers(0, 2)
                tensors[name] = changed
    if not rng.integers(20):
        kind = str(rng.choice(["Sequential", "CharLM", "Checkpoint", "Forecaster", "x"]))
    try:
        model_file.write(out, kind, model, tensors)
    except (ValueError, TypeError):  # not JSON
        Path(out).write_bytes(damaged_header(path.read_bytes(), rng))


def damaged_proto(message: Any, rng: np.random.Generator, depth: int = 0) -> None:
    """Change a field somewhere in a message."""
    fields = message.ListFields()
    if not fields or (depth and not rng.integers(6)):
        fields = [(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields]
    field, value = fields[rng.integers(len(fields))]
    kinds = {"int": field.cpp_type in (1, 2, 3, 4, 8), "float": field.cpp_type in (5, 6, 7)}
    repeated = isinstance(value, list) or hasattr(value, "extend")
    try:
        if repeated and len(value) and rng.integers(3):
            at = int(rng.integers(len(value)))
            if field.cpp_type == 10 and rng.integers(8):
                damaged_proto(value[at], rng, depth + 1)
            elif rng.integers(2):
                del value[at]
            else:
                value.append(value[int(rng.integers(len(value)))])
        elif field.cpp_type == 10 and not repeated:
            damaged_proto(value, rng, depth + 1)
        elif repeated and field.cpp_type == 10:
            damaged_proto(value.add(), rng, depth + 1)
        else:
            numbers = [v for v in ODD if isinstance(v, int) and not isinstance(v, bool)]
            odd: Any = (
                b"" if field.type == 12 else str(rng.choice(["", "x", "/etc/passwd", "../x"]))
            )
            if kinds["int"]:
                odd = numbers[rng.integers(len(numbers))]
                odd = odd if rng.integers(2) else int(rng.integers(-2, 30))
            elif kinds["float"]:
                odd = float(NUMBERS[rng.integers(len(NUMBERS))])
            if repeated:
                value.append(odd)
            else:
                setattr(message, field.name, odd)
    except (TypeError, ValueError):  # a number too large for the field
        message.Clear()


def damaged_table(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a table in which a few cells or rows are others."""
    rows = [line.split(b",") for line in data.split(b"\n")]
    for _ in range(rng.integers(1, 4)):
        row, other = (rows[k] for k in rng.integers(len(rows), size=2))
        match rng.integers(6):
            case 0:
                row[:] = other
            case 1:
                row.append(b"1")
            case 2:
                rows.insert(int(rng.integers(len(rows))), list(other))
            case _:
                row[rng.integers(len(row))] = CELLS[rng.integers(len(CELLS))]
    return b"\n".join(b",".join(row) for row in rows)


def damaged_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file of Keras with another description."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        held = {name: file.read(name) for name in file.namelist()}
    if rng.integers(4):
        tree = damaged_tree(json.loads(held["config.json"]), rng)
        held["config.json"] = json.dumps(tree).encode("utf-8", "surrogatepass")
    else:
        held["model.weights.h5"] = damaged_bytes(held["model.weights.h5"], [data], rng)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content in held.items():
            file.writestr(name, content)
    return made.getvalue()


# Use.


def use(model: Any) -> None:
    """Call what was loaded: a file may say what only a call shows to be wrong."""
    if isinstance(model, CharLM):
        model.generate("a", 4, seed=0)
        model.bits_per_char("abcd")
    elif isinstance(model, TextClassifier):
        model.predict_proba(["a b", "zz"])
    elif isinstance(model, Forecaster):
        model.predict(3)
    elif isinstance(model, fastrnn.Sequential):
        F = model.features_in
        model(tokens() if F is None else np.ones((2, 5, F), np.float32))
        model.predict(tokens() if F is None else np.ones((2, 5, F), np.float32))
    elif hasattr(model, "n_features_in_"):
        model.predict(np.ones((2, 5, model.n_features_in_)))
    elif hasattr(model, "run"):  # a graph of ONNX
        feeds = {
            v.name: np.ones(
                [n if isinstance(n, int) and 0 <= n < 99 else 2 for n in v.shape or ()], v.dtype
            )
            for v in model.inputs
        }
        model.run(None, feeds)
    elif isinstance(model, fastrnn.Layer):
        model(np.ones((3, 2, model.input_size), np.float32))
    repr(model)
    if isinstance(model, fastrnn.Sequential | CharLM | TextClassifier):
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "again")
            fastrnn.load(Path(folder) / "again")
        with suppress(*CLEAR):  # of weights that are not finite, or are int8 already
            fastrnn.quantize(model)
    if hasattr(model, "stream"):
        model.stream()


class Files:
    """Damages a file, loads it, and counts what comes out."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.whole = seeds(folder)
        self.others = [p for kind, paths in self.whole.items() for p in paths if kind != "keras"]
        self.data = {p: p.read_bytes() for paths in self.whole.values() for p in paths}
        self.out = str(folder.parent / "damaged")
        self.counts: Counter[str] = Counter()
        self.slowest = (0.0, -1)

    def run(self, number: int) -> None:
        """Damage and load the file of this number."""
        rng = np.random.default_rng([self.seed, number])
        keras = bool(self.whole["keras"]) and number % KERAS == 0
        of = self.whole["keras"] if keras else self.others
        path = of[rng.integers(len(of))]
        kind = path.parent.name
        self._damage(kind, path, rng)
        self.options = OPTIONS[rng.integers(len(OPTIONS))]
        load = {"onnx": self._onnx, "keras": self._keras, "table": self._table}.get(kind, self._own)
        start = cpu_seconds()
        try:
            load(self.out)
            if kind == "checkpoint":
                training(Path(self.out))
            self.counts[f"{kind}: loaded and used"] += 1
        except CLEAR as error:
            self.counts[f"{kind}: {type(error).__name__}"] += 1
        taken = cpu_seconds() - start
        self.slowest = max(self.slowest, (taken, number))
        if taken > SECONDS:
            raise AssertionError(f"took {taken:.1f} s: {path.name}")

    def _damage(self, kind: str, path: Path, rng: np.random.Generator) -> None:
        data, way = self.data[path], rng.integers(3)
        others = [self.data[p] for p in self.whole[kind]]
        if kind == "table" and (way and path.name == "comma"):
            made = damaged_table(data, rng)
        elif way == 0 or kind == "table":
            made = damaged_bytes(data, others, rng)
        elif kind == "onnx":
            proto = onnx.ModelProto.FromString(data)
            for _ in range(rng.integers(1, 4)):
                damaged_proto(proto, rng)
            made = proto.SerializeToString()
        elif kind == "keras":
            made = damaged_zip(data, rng) if data[:2] == b"PK" else damaged_bytes(data, others, rng)
        elif way == 1:
            made = damaged_header(data, rng)
        else:
            damaged_model(path, self.out, rng)
            return
        Path(self.out).write_bytes(made)

    def _own(self, path: str) -> None:
        use(fastrnn.load(path))

    def _onnx(self, path: str) -> None:
        model = fastrnn.onnx.load(path)
        use(model)
        if isinstance(model, fastrnn.Layer):
            use(fastrnn.onnx.load(path, as_graph=True))

    def _table(self, path: str) -> None:
        series.read(_parser().parse_args(["forecast", path, *self.options]))

    def _keras(self, path: str) -> None:
        use(fastrnn.keras.load(path))


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def fuzz(count: int, seed: int, first: int = 0) -> int:
    """Damage and load so many files; return how many did what they may not do."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (Path(folder) / "whole").mkdir()
        files = Files(Path(folder) / "whole", seed)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (SPACE, limits[1]))
        try:
            for number in range(first, first + count):
                try:
                    with np.errstate(all="ignore"):
                        files.run(number)
                except Exception:
                    failed += 1
                    print(f"--seed {seed} --first {number}", flush=True)
                    traceback.print_exc()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    for what, n in sorted(files.counts.items()):
        print(f"{n:8,}  {what}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count:,} files, {failed} failed; slowest {files.slowest[0]:.2f} s of CPU time "
          f"(--first {files.slowest[1]}); peak {peak} MiB")  # fmt: skip
    return failed


# Kills.


def killed(work: Callable[[], object], seconds: float) -> None:
    """Do work in a process of its own, and kill that after some time."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def kill(count: int, seed: int) -> int:
    """Kill saves and trainings, and load what they leave; return how many files were not whole."""
    rng = np.random.default_rng(seed)
    wrong, left, resumed = 0, 0, 0
    models = [fastrnn.Sequential([fastrnn.LSTM(60, 100, seed=i)]) for i in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        models[0].save(path)

        def save() -> None:
            while True:
                for model in models:
                    model.save(path)

        for _ in range(count):
            killed(save, rng.uniform(0, 0.05))
            found = fastrnn.load(path).parameters()
            wrong += not any(same(found, model.parameters()) for model in models)
        left += len(os.listdir(folder)) - 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "training"
        whole = training(Path(folder) / "whole", 40, 1).parameters()
        os.unlink(Path(folder) / "whole")
        for _ in range(count):
            killed(lambda: training(path, 40, 1), rng.uniform(0, 0.1))
            if path.exists():
                fastrnn.load(path)
        left += len([name for name in os.listdir(folder) if name.startswith(".")])
        resumed = path.exists()
        wrong += not same(training(path, 40, 1).parameters(), whole)
    print(f"{count} saves and {count} trainings killed: {wrong} files or trainings wrong, {left} "
          f"temporary files left, {'resumed' if resumed else 'never begun'}")  # fmt: skip
    return wrong


def same(found: Any, expected: Any) -> bool:
    return all(np.array_equal(found[name], expected[name]) for name in expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=0, help="files to damage")
    parser.add_argument("--kills", type=int, default=0, help="processes to kill, of each sort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    args = parser.parse_args()
    faulthandler.enable()
    failed = kill(args.kills, args.seed) if args.kills else 0
    failed += fuzz(args.files, args.seed, args.first) if args.files else 0
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
