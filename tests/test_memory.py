"""Too little memory: a MemoryError, after which the same call works."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import _checks
from fastrnn._files import tensor_file


def _none_left(*_, **__):
    raise MemoryError("none left")


def test_sizes_that_fit_are_not_refused_for_want_of_memory(monkeypatch):
    monkeypatch.setattr(np, "empty", _none_left)
    for make in (
        lambda: fastrnn.LSTM(3, 5), lambda: fastrnn.Linear(3, 5), lambda: fastrnn.Embedding(3, 5),
    ):  # fmt: skip
        with pytest.raises(MemoryError, match="none left"):
            make()
    with pytest.raises(ValueError, match="expected sizes that fit into memory"):
        fastrnn.Linear(2**40, 2**16)


@pytest.mark.parametrize("name", ["fastrnn._kernels.any", "numpy.random"])
def test_a_module_that_finds_no_memory(monkeypatch, name):
    def fail(name):
        raise ImportError("any.so: failed to map segment from shared object")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MemoryError, match=rf"{name}: any.so: failed to map"):
        _checks.imported(name)
    monkeypatch.undo()
    with pytest.raises(ImportError, match="no_such"):
        _checks.imported("no_such")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits address space by /proc")
@pytest.mark.skipif(
    fastrnn.backend() == "reference",
    reason="NumPy raises the MemoryError of a buffered ufunc without the GIL, which ends Python",
)
def test_any_limit_of_address_space():
    """A larger part: ``python benchmarks/out_of_memory.py``."""
    code = """
import os, resource, tempfile
import numpy as np, fastrnn
x = np.ones((37, 36, 133), np.float32)
layer = fastrnn.LSTM(133, 70, seed=0)
path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
def use():
    made = fastrnn.LSTM(133, 70, seed=0)
    y, _, tape = made.forward(x)
    grads = made.backward(tape, y)[2]
    fastrnn.optim.SGD(lr=1.0).step(made.parameters(), grads)
    made.save(path) if hasattr(made, "save") else fastrnn.Sequential([made]).save(path)
    return {**fastrnn.load(path).state_dict(), "y": y}
_, most = resource.getrlimit(resource.RLIMIT_AS)
failed = 0
want = None
for room in range(0, 6_000_000, 500_000):
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, most))
    try:
        use()
    except MemoryError:
        failed += 1
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    found = use()
    want = want or found
    assert all(np.array_equal(found[k], want[k]) for k in want)
assert failed, "there was always enough"
"""
    environment = {**os.environ, "FASTRNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=environment, timeout=100)


def test_files_are_what_safetensors_reads():
    load = pytest.importorskip("safetensors.numpy").load

    rng = np.random.default_rng(0)
    dtypes = ("<f8", ">f4", "f2", "i1", "u1", "i8", ">i2", "?")
    tensors = {f"t{d}": (9 * rng.standard_normal((3, 5))).astype(d) for d in dtypes}
    tensors |= {"none": np.zeros((0, 2), np.float32), "one": np.array(3.0), "ü": np.ones(1)}
    data = tensor_file.written(tensors, {"a": '"\\é'})
    found = load(data)
    native = {k: a.astype(a.dtype.newbyteorder("=")) for k, a in tensors.items()}
    assert {k: (a.tolist(), a.dtype) for k, a in found.items()} == {
        k: (a.tolist(), a.dtype) for k, a in native.items()
    }
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    assert size % 8 == 0
    assert head.pop("__metadata__") == {"a": '"\\é'}
    assert all(head[k]["data_offsets"][0] % a.itemsize == 0 for k, a in tensors.items()), "aligned"
    with pytest.raises(TypeError, match=r"c: expected a dtype of F64, .*, got complex128"):
        tensor_file.written({"c": np.ones(1, complex)}, {})
