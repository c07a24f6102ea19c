"""``fastrnn.keras.load`` without Keras: files written here, whole, hostile and damaged.

tests/test_keras.py reads what Keras writes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import reading
from fastrnn.keras import hdf5, load, to_weights

h5py = pytest.importorskip("h5py")

I, H, T, B = 3, 5, 7, 2
LAYERS = {
    "lstm": fastrnn.LSTM(I, H, seed=0),
    "bidirectional": fastrnn.GRU(H, 4, bidirectional=True, return_sequences=False, seed=1),
    "dense": fastrnn.Linear(8, 2, seed=2),
}
#: Where a `.keras` file has the weights of a layer.
GROUPS = {
    "LSTM": ["cell"], "GRU": ["cell"], "Dense": [""],
    "Bidirectional": ["forward_layer/cell", "backward_layer/cell"],
}  # fmt: skip


def specs(**changes: Any) -> list[dict[str, Any]]:
    """Return the layers of a model as Keras describes them; `changes` are of the LSTM's options."""
    shape = {"batch_shape": [None, T, I], "name": "in"}
    given: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": shape}]
    for name, layer in LAYERS.items():
        class_name, _, config = to_weights(layer)
        given.append({"class_name": class_name, "config": config | {"name": name}})
    given[1]["config"] |= changes
    return given


def model(layers: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "class_name": "Sequential",
        "config": {"name": "m", "layers": layers or specs(**changes)},
    }


def weights(h5: Any) -> None:
    """Write all weights as a `.keras` file has them."""
    for name, layer in LAYERS.items():
        class_name, arrays, _ = to_weights(layer)
        groups = GROUPS[class_name]
        for k, group in enumerate(groups):
            mine = arrays[k * len(arrays) // len(groups) : (k + 1) * len(arrays) // len(groups)]
            for i, array in enumerate(mine):
                h5[f"layers/{name}/{group}/vars/{i}".replace("//", "/")] = array


def h5(write: Callable[[Any], Any] = weights) -> bytes:
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        write(file)
    return made.getvalue()


def zipped(
    config: Any = None, held: bytes | None = None, version: Any = "3.9.0", **more: bytes
) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": version}))
        file.writestr("config.json", json.dumps(config or model()))
        file.writestr("model.weights.h5", h5() if held is None else held)
        for name, data in more.items():
            file.writestr(name, data)
    return made.getvalue()


def legacy(h5: Any) -> None:
    """Write a model as a `.h5` file has it."""
    h5.attrs["model_config"], h5.attrs["keras_version"] = json.dumps(model()), b"2.15.0"
    for name, layer in LAYERS.items():
        _, arrays, _ = to_weights(layer)
        group = h5.create_group(f"model_weights/{name}")
        names = [f"{name}/w/{i}:0" for i in range(len(arrays))]
        # As where they are too long for one attribute.
        group.attrs["weight_names0"] = [n.encode() for n in names[:2]]
        group.attrs["weight_names1"] = [n.encode() for n in names[2:]]
        for key, array in zip(names, arrays, strict=True):
            group[key] = array


@pytest.fixture
def read_apart(tmp_path: Path) -> Callable[[bytes], fastrnn.Sequential]:
    """``read_apart(data)``: what `load` makes of a file of these bytes."""

    def read(data: bytes) -> fastrnn.Sequential:
        (tmp_path / "m").write_bytes(data)
        return load(tmp_path / "m")

    return read


@pytest.fixture
def read(read_apart: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Any]:
    """Likewise, quickly: without a process for HDF5."""
    monkeypatch.setattr(hdf5, "read", hdf5.contents)
    return read_apart


@pytest.mark.parametrize("data", [zipped, lambda: h5(legacy)], ids=["keras", "h5"])
def test_whole(data: Callable[[], bytes], read: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(B, T, I))
    wanted = fastrnn.Sequential([*LAYERS.values()])
    found = read(data())
    np.testing.assert_allclose(found.predict(x), wanted.predict(x), atol=1e-6)  # sums of biases
    assert [type(layer) for layer in found.layers] == [fastrnn.LSTM, fastrnn.GRU, fastrnn.Linear]


def chained(order: list[int], nodes: Any = None) -> dict[str, Any]:
    """Return a Functional model: each layer takes the outputs of the one before."""
    layers = specs()
    names = [spec["config"]["name"] for spec in layers]
    for i, spec in enumerate(layers):
        tensor = {
            "class_name": "__keras_tensor__",
            "config": {"keras_history": [names[i - 1], 0, 0]},
        }
        spec["name"] = names[i]
        spec["inbound_nodes"] = [{"args": [tensor], "kwargs": {"training": False}}] if i else []
    for i, given in (nodes or {}).items():
        layers[i]["inbound_nodes"] = given
    config = {"layers": [layers[i] for i in order], "input_layers": [["in", 0, 0]]}
    return {"class_name": "Functional", "config": config | {"output_layers": ["dense", 0, 0]}}


def test_functional(read: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=(B, T, I))
    wanted = read(zipped()).predict(x)
    older = {i + 1: [[[name, 0, 0, {}]]] for i, name in enumerate(["in", "lstm", "bidirectional"])}
    for config in (chained([0, 1, 2, 3]), chained([3, 0, 2, 1]), chained([0, 1, 2, 3], older)):
        np.testing.assert_array_equal(read(zipped(config)).predict(x), wanted)


TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["in", 0, 0]}}
SECOND = {"class_name": "__keras_tensor__", "config": {"keras_history": ["lstm", 0, 1]}}
LAMBDA = {
    "class_name": "Lambda",
    "config": {"name": "double", "function": ["4wEAAAAA", None, None]},
}
DENSE = specs()[3]
BESIDE = {"class_name": "LSTM", "config": {"name": "b"}, "name": "b", "inbound_nodes": []}


def functional(**nodes: Any) -> dict[str, Any]:
    return chained([0, 1, 2, 3], {int(k[1:]): v for k, v in nodes.items()})


def beside() -> dict[str, Any]:
    made = chained([0, 1, 2, 3])
    made["config"]["layers"].append(BESIDE)
    return made


def masked(value: float) -> dict[str, Any]:
    """Return a model with a mask that no layer made."""
    made = chained([0, 1, 2, 3])
    call = [{"args": [TENSOR, value], "kwargs": {}}]
    spec = {"class_name": "NotEqual", "config": {"name": "mask"}, "name": "mask"}
    made["config"]["layers"].append(spec | {"inbound_nodes": call})
    return made


def of_class(**changes: Any) -> dict[str, Any]:
    layers = specs()
    layers[1] |= changes
    return model(layers)


REFUSED = {
    "lambda": (model([*specs(), LAMBDA]), r"layer 'double' \(Lambda\): is Python code"),
    "unknown": (of_class(class_name="Conv1D"), r"layer 'lstm' \(Conv1D\): is not supp"),
    "own": (of_class(registered_name="Mine>LSTM"), r"layer 'lstm' \(Mine>LSTM\): is of a class "
            "that is not Keras's own, and so is code, which is never run"),
    "own module": (of_class(module="my.layers"), r"layer 'lstm' \(LSTM\): is of a class that i"),
    "option": (model(activation="mine"), r"layer 'lstm' \(LSTM\): activation: expected one of"),
    "units": (model(units=6), r"layer 'lstm' \(LSTM\): units: expected 5, the size of the w"),
    "time major": (model(time_major=True), r"layer 'lstm' \(LSTM\): time_major: expected False"),
    "shape": (model([{"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 3]}}]),
              r"\(InputLayer\): expected sequences, \(N, T, F\) or tokens \(N, T\), got the shape"),
    "vectors": (model([{"class_name": "InputLayer", "config": {"batch_shape": [9, 8]}}, DENSE]),
                r"expected sequences, .* or tokens \(N, T\) for an Embedding, got inputs \[9, 8\]"),
    "flatten": (model([*specs()[:2], {"class_name": "Flatten", "config": {"name": "f"}}]),
                r"layer 'f' \(Flatten\): expected one vector per sequence before it"),
    "order": (model([specs()[3], specs()[1]]), r"layers\[1\]: expected an input size of 2, got"),
    "kind": ({"class_name": "Mine", "config": {"layers": []}}, "expected a Sequential or F"),
    "empty": (model([specs()[0]]), r"layers: expected one or more with weights, got \[\]"),
    "two inputs": (functional(_2=[{"args": [[TENSOR, TENSOR]]}]),
                   "layer 'bidirectional': expected one input, from before it.*got in, in"),
    "state": (functional(_2=[{"args": [TENSOR], "kwargs": {"initial_state": [TENSOR]}}]),
              "layer 'bidirectional': expected one input, from before it.*got in, in"),
    "states of Keras 2": (functional(_2=[[["lstm", 0, 0, {"initial_state": ["lstm", 0, 1]}]]]),
                          "layer 'bidirectional': expected one input and no more"),
    "shared": (functional(_2=[{"args": [TENSOR]}] * 2), "layer 'bidirectional': expected one ca"),
    "second output": (functional(_2=[{"args": [SECOND]}]), r"is damaged: expected 'lstm\[1\]'"),
    "circle": (functional(_1=[[["dense", 0, 0, {}]]]), "expected one input, from before it in"),
    "a mask": (masked(0), "expected a chain of layers, got others beside it: mask"),
    "beside": (beside(), "expected a chain of layers, got others beside it: b"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, read: Any) -> None:
    config, message = REFUSED[name]
    with pytest.raises(ValueError, match="/m: .*" + message):
        read(zipped(config))


def linked(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    h5["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/x")


def soft(h5: Any) -> None:
    weights(h5)
    del h5["layers/lstm"]
    h5["layers/lstm"] = h5py.SoftLink("/layers/bidirectional/forward_layer")


def external(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    group = h5["layers/dense/vars"]
    group.create_dataset("0", (8, 2), "<f4", external=[("/etc/passwd", 0, 64)])


def virtual(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    layout = h5py.VirtualLayout((8, 2), "<f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (8, 2))
    h5["layers/dense/vars"].create_virtual_dataset("0", layout)


def claiming(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    h5["layers/dense/vars"].create_dataset("0", (10**7, 10**6), "<f4", chunks=(1, 10**6))


def of_text(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    h5["layers/dense/vars/0"] = [["a"] * 2] * 8


def without(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense"]


def a_group(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    h5.create_group("layers/dense/vars/0")


def in_a_circle(h5: Any) -> None:
    weights(h5)
    h5["layers/lstm/again"] = h5["layers"]


def on_many_paths(h5: Any) -> None:
    """Two ways down at each of 14 levels."""
    weights(h5)
    for level in range(14):
        h5[f"{level + 1}/a"] = h5[f"{level + 1}/b"] = h5.require_group(str(level))


def packed(h5: Any) -> None:
    weights(h5)
    del h5["layers/dense/vars/0"]
    zeros = np.zeros((1 << 12, 1 << 13), np.float32)
    h5.create_dataset("layers/dense/vars/0", data=zeros, compression="gzip")


HOSTILE = {
    linked: "is damaged: expected layers/dense/vars/0 itself, got a link",
    soft: "is damaged: expected layers/lstm itself, got a link",
    external: "is damaged: expected the numbers of layers/dense/vars/0, got where others have them",
    virtual: "is damaged: expected the numbers of layers/dense/vars/0, got where others have them",
    claiming: "is damaged: layers/dense/vars/0 claims 40000000000000 bytes, the file has 0",
    of_text: "is damaged: expected real numbers at layers/dense/vars/0, got object",
    without: r"layer 'dense' \(Dense\): weights: expected 2, kernel, bias, got 0",
    a_group: r"layer 'dense' \(Dense\): weights: expected 2, kernel, bias, got 0",
    in_a_circle: "is damaged: expected groups in groups to end",
    on_many_paths: "is damaged: expected 8192 groups and arrays or less",
    packed: "is damaged: layers/dense/vars/0 claims 134217728 bytes, the file has",
}


@pytest.mark.parametrize("write", HOSTILE, ids=lambda write: write.__name__)
def test_weights_that_are_not_there(write: Any, read: Any) -> None:
    """Nothing outside the file is read, and nothing is allocated that it does not hold."""
    with pytest.raises(ValueError, match=HOSTILE[write]):
        read(zipped(held=h5(write)))


def test_bfloat16(read: Any) -> None:
    """Keras stores it as two bytes that HDF5 knows nothing of."""

    def write(h5: Any) -> None:
        weights(h5)
        kernel = h5["layers/dense/vars/0"][()]
        del h5["layers/dense/vars/0"]
        h5["layers/dense/vars/0"] = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")

    found = read(zipped(held=h5(write))).state_dict()["2.weight"]
    np.testing.assert_allclose(found, LAYERS["dense"].state_dict()["weight"], rtol=2**-7)


def test_compressed_weights(read: Any) -> None:
    def write(h5: Any) -> None:
        weights(h5)
        for path in ("layers/lstm/cell/vars/1", "layers/dense/vars/0"):
            array = h5[path][()]
            del h5[path]
            h5.create_dataset(path, data=array, compression="gzip")

    x = np.ones((B, T, I))
    np.testing.assert_array_equal(
        read(zipped(held=h5(write))).predict(x), read(zipped()).predict(x)
    )


def test_groups_of_keras_2_12(read: Any) -> None:
    """Named after an attribute, and with backslashes where Windows wrote them."""

    arrays, wanted = hdf5.contents(h5()), read(zipped()).state_dict()
    for separator in "/\\":

        def write(file: Any, by: str = separator) -> None:
            for path, array in arrays.items():
                older = path.replace("layers/", "_layer_checkpoint_dependencies/", 1)
                file[older.replace("/", by)] = array

        found = read(zipped(held=h5(write), version="2.12.0")).state_dict()
        assert all(map(np.array_equal, found.values(), wanted.values()))


def test_files_that_are_no_models(read: Any, tmp_path: Path) -> None:
    fastrnn.Sequential([fastrnn.Linear(2, 3)]).save(tmp_path / "own")
    for data, message in [
        (b"", "is not a file of Keras, or damaged"),
        (b"PK\3\4" + bytes(50), "is not a file of Keras, or damaged"),
        (
            (tmp_path / "own").read_bytes(),
            r"is a model of fastrnn, which fastrnn.load\(path\) reads",
        ),
        (h5(), "holds weights without the layers that they are for; save the whole model with"),
        (h5(legacy)[:700], "is damaged"),
        (zipped()[:-100], "is not a file of Keras, or damaged"),
        (zipped(held=b"nothing"), "is damaged"),
        (zipped(version="4.0"), "keras_version: expected 2 or 3, or such as"),
        (zipped([1]), "is damaged: expected the description of a model"),
        (zipped({"class_name": "Sequential", "config": {}}), "is damaged: expected 'layers'"),
        (zipped(model([{"config": {}}])), "is damaged: expected 'class_name'"),
        (zipped(model([3])), "is damaged"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(data)
    with pytest.raises(OSError, match="no such"):
        load(tmp_path / "no such")
    with zipfile.ZipFile(bomb := io.BytesIO(zipped()), "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(1 << 27))
    with pytest.raises(ValueError, match="is damaged: zeros claims 134217728 bytes, in a file of"):
        read(bomb.getvalue())
    for text, message in ((b"[" * 200_000, "nested less"), (b'{"a":1,"a":2}', "got 'a' again")):
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(zipped())) as given, zipfile.ZipFile(made, "w") as file:
            for name in given.namelist():
                file.writestr(name, text if name == "config.json" else given.read(name))
        with pytest.raises(ValueError, match=f"is damaged: .*{message}"):
            read(made.getvalue())


def test_zips_that_are_something_else_too(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip may begin anywhere in a file, and zipfile reads a table of contents of any size."""
    with pytest.raises(ValueError, match="is not a file of Keras, or damaged"):
        read(b"#!/bin/sh" + zipped())
    monkeypatch.setattr(reading, "_MOST_CONTENTS", 40)
    with pytest.raises(ValueError, match="is not a file of Keras, or damaged"):
        read(zipped())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such pipes here")
def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 2**36)  # of which the disk holds nothing
    with pytest.raises(ValueError, match="holes: is not a file of Keras, or damaged"):
        load(tmp_path / "holes")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe' is not a regular file"):
        load(tmp_path / "pipe")


def test_a_process_that_does_not_end(
    read_apart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wait.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(hdf5, "__file__", str(tmp_path / "wait.py"))
    monkeypatch.setattr(hdf5, "_SECONDS", 0.3)
    with pytest.raises(ValueError, match="m: is damaged: reading its HDF5 does not end"):
        read_apart(zipped())


def test_a_file_that_hdf5_reads_for_ever() -> None:
    """One that tests/fuzz_files.py found."""
    with pytest.raises(ValueError, match=r"endless\.h5: is damaged"):
        load(Path(__file__).parent / "data" / "endless.h5")


@pytest.mark.parametrize("whole", [zipped, lambda: h5(legacy)], ids=["keras", "h5"])
def test_damaged_files(whole: Any, read_apart: Any, rng: np.random.Generator) -> None:
    """Errors name the file, also where HDF5 crashes, which it does in a process of its own."""
    data, refused = whole(), 0
    for k in range(6):
        changed = bytearray(data if k % 3 else data[: rng.integers(9, len(data))])
        for _ in range(3):
            changed[rng.integers(len(changed) // 2)] = rng.integers(256)
        try:
            read_apart(bytes(changed))
        except ValueError as error:
            refused += "/m: " in str(error)
    assert refused > 1


def test_a_crash_ends_that_process_alone(
    read_apart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "crash.py").write_text("import os; os.abort()")
    monkeypatch.setattr(hdf5, "__file__", str(tmp_path / "crash.py"))
    with pytest.raises(ValueError, match=r"m: is damaged: reading its HDF5 ended with status -?\d"):
        read_apart(zipped())


def test_the_process_says_what_is_wrong(read_apart: Any) -> None:
    with pytest.raises(ValueError, match="m: is damaged: expected layers/lstm itself, got a link"):
        read_apart(zipped(held=h5(soft)))
    with pytest.raises(ValueError, match="m: is damaged"):
        read_apart(zipped(held=b"nothing"))


def test_embedded_in_another_program(read_apart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which can't run Python's files."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/server")
    assert len(read_apart(zipped()).layers) == 3


def test_h5py_is_needed_for_files_alone(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["h5py"] = None
import fastrnn
fastrnn.keras.from_weights("Dense", [[[1.0]]])
try:
    fastrnn.keras.load(sys.argv[1])
except ImportError as error:
    print(error)
assert not {"keras", "tensorflow", "tf_keras", "torch"} & {*sys.modules}
"""
    for data in (zipped(), h5(legacy)):
        (tmp_path / "m").write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(tmp_path / "m")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "fastrnn.keras.load needs h5py: pip install 'fastrnn[keras]'\n"
