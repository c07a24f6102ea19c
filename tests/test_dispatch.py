"""Which kernels run, and what an import costs, in new interpreters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn._core import config
from fastrnn._kernels import dispatch

#: Hides modules, as if they had not been built.
HIDE = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if {part!r} in name else find(name, *rest)
"""


def python(code, **env):
    """Run `code` in a new interpreter; return its exit code, output and last line of errors."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code], env=inherited | env, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", fastrnn.backends())
def test_environment_chooses(name):
    code = "import fastrnn; print(fastrnn.backend()); fastrnn.LSTM(2, 3)([[1.0, 2.0]])"
    assert python(code, FASTRNN_BACKEND=name) == (0, name, "")


def test_default_is_the_best():
    code = "import fastrnn; print(fastrnn.backend())"
    assert python(code) == (0, fastrnn.backends()[0], "")
    assert python(code, FASTRNN_BACKEND="") == (0, fastrnn.backends()[0], "")


@pytest.mark.parametrize("name", ["fastest", "AVX2", "reference ", "avx512,avx2"])
def test_unknown_in_environment(name):
    code, _, error = python("import fastrnn", FASTRNN_BACKEND=name)
    assert code != 0
    assert error.startswith(f"ValueError: FASTRNN_BACKEND: {name!r} is not a backend; expected one")
    assert all(repr(choice) in error for choice in fastrnn.backends())


@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
def test_unavailable_in_environment(name):
    hide = HIDE.format(part=f"_kernels.{name}_")
    code, _, error = python(hide + "import fastrnn", FASTRNN_BACKEND=name)
    assert code != 0
    assert f"FASTRNN_BACKEND: {name!r} can't run on this machine or was not built" in error
    assert "'reference'" in error
    code, out, _ = python(hide + "import fastrnn; print(*fastrnn.backends())")
    assert code == 0
    assert out.split() == [other for other in fastrnn.backends() if other != name]


def test_a_later_change_of_the_environment():
    """It is read at import: afterwards, what runs stays, and a child refuses."""
    code = "import fastrnn, os, subprocess, sys; before = fastrnn.backend()\n"
    code += "os.environ['FASTRNN_BACKEND'] = 'avx1024'; fastrnn.LSTM(2, 3)([[1.0, 2.0]])\n"
    code += "assert fastrnn.backend() == before\n"
    code += "child = [sys.executable, '-P', '-c', 'import fastrnn']\n"
    code += "done = subprocess.run(child, capture_output=True, text=True)\n"
    code += "print(done.returncode, done.stderr.strip().rpartition('\\n')[2])"
    code, out, error = python(code)
    assert (code, error) == (0, "")
    assert out.startswith("1 ValueError: FASTRNN_BACKEND: 'avx1024' is not a backend; expected one")


@pytest.mark.skipif(
    "avx2" not in fastrnn.backends() or not shutil.which("qemu-x86_64-static"), reason="needs qemu"
)
@pytest.mark.parametrize(
    ("cpu", "name", "backends"),
    [
        ("Nehalem", "avx512", "'baseline', 'reference'"),
        ("Nehalem", "avx2", "'baseline', 'reference'"),
        ("Haswell", "avx512", "'avx2', 'baseline', 'reference'"),
    ],
)
def test_a_backend_that_an_emulated_cpu_lacks(cpu, name, backends):
    """An error, not an illegal instruction."""
    command = ["qemu-x86_64-static", "-cpu", cpu, sys.executable, "-P", "-c", "import fastrnn"]
    done = subprocess.run(
        command, env=os.environ | {"FASTRNN_BACKEND": name, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"FASTRNN_BACKEND: {name!r} can't run on this machine" in done.stderr
    assert done.stderr.strip().endswith(f"expected one of {backends}")


def test_a_missing_instruction_set():
    code = "import sys, types; cpu = 'fastrnn._kernels._cpu'\n"
    code += "m = sys.modules[cpu] = types.ModuleType(cpu)\n"
    code += "import importlib.machinery as i; m.__spec__ = i.ModuleSpec(cpu, None)\n"
    code += "m.features = m.extensions = lambda: ()\n"
    code += "import fastrnn; print(*fastrnn.backends(), fastrnn.backend())"
    assert python(code) == (0, "reference reference", "")
    code, _, error = python(code, FASTRNN_BACKEND="avx2")
    assert code != 0
    assert "can't run on this machine" in error


def test_without_instructions():
    code = "from fastrnn._kernels import extensions as e; print(*e.USED, *e.WITHOUT)"
    without = " avx512bf16, avx512vnni,avxvnni ,"
    assert python(code, FASTRNN_WITHOUT=without) == (0, "avx512bf16 avx512vnni avxvnni", "")
    shown = python("import fastrnn; fastrnn.show_config()", FASTRNN_WITHOUT=without)[1]
    assert "extensions:   none" in shown
    code, _, error = python("import fastrnn", FASTRNN_WITHOUT="avx512bf16,avx3")
    assert code != 0
    assert error.startswith("ValueError: FASTRNN_WITHOUT: expected some of avx512bf16")
    assert "got 'avx3'" in error


def test_without_extensions():
    code = HIDE.format(part="fastrnn._kernels._cpu") + "import fastrnn; fastrnn.show_config()"
    code, out, _ = python(code)
    assert code == 0
    assert "reference" in out
    assert "unknown" in out


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": ""}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"own": "0::/a/b\n", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ({"own": "0::/a/b\n", "a/cpu.max": "max 100000", "a/b/cpu.max": "400000 100000"}, 4),
        (
            {
                "own": "3:cpu,cpuacct:/a\n0::/\n",
                "cpu/a/cpu.cfs_quota_us": "500000",
                "cpu/a/cpu.cfs_period_us": "100000",
            },
            5,
        ),
        ({"own": "nonsense", "cpu.max": "0 0"}, 8),
    ],
)
def test_cpus_of_a_control_group(files, cpus, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(config, "_CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(config, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert config.available_cpus() == cpus


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1,2", " ", str(2**40)])
def test_bad_number_of_threads(text):
    code, _, error = python("import fastrnn", FASTRNN_NUM_THREADS=text)
    assert code != 0
    assert error == (
        f"ValueError: FASTRNN_NUM_THREADS: expected a whole number in 1..{2**31 - 1}, got {text!r}"
    )


def test_number_of_threads():
    code = "import fastrnn; print(fastrnn.get_num_threads())"
    assert python(code, FASTRNN_NUM_THREADS="3") == (0, "3", "")
    _, default, _ = python(code)
    assert default == python(code, FASTRNN_NUM_THREADS="")[1]
    assert int(default) >= 1
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(2)
        assert fastrnn.get_num_threads() == 2
        for bad in (0, -1, True):
            with pytest.raises(ValueError, match="n: expected a whole number of at least 1"):
                fastrnn.set_num_threads(bad)
        with pytest.raises(ValueError, match=f"n: expected at most {2**31 - 1}, got"):
            fastrnn.set_num_threads(2**31)
        for bad in ("2", 2.0, None):
            with pytest.raises(TypeError, match="n: expected a whole number"):
                fastrnn.set_num_threads(bad)
        assert fastrnn.get_num_threads() == 2
    finally:
        fastrnn.set_num_threads(before)


def test_import_is_light():
    code = """
import os, sys, threading
import numpy
def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0
modules, before = set(sys.modules), tasks()
import fastrnn
new = {name.partition(".")[0] for name in set(sys.modules) - modules}
runtime = {name for name in new if name.lstrip("_").startswith("cython_")}  # Cython's own, empty
print(*sorted(new - runtime - set(sys.stdlib_module_names)))
print(*sorted(new & {"multiprocessing", "concurrent", "asyncio", "subprocess", "ctypes", "ssl"}))
print(tasks() - before, threading.active_count())
"""
    code, out, error = python(code)
    assert (code, out.split("\n")) == (0, ["fastrnn", "", "0 1"]), error


def test_show_config(capsys, backend):
    fastrnn.show_config()
    shown = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["fastrnn"] == fastrnn.__version__
    assert shown["backend"] == backend
    assert tuple(shown["backends"].split(", ")) == fastrnn.backends()
    assert shown["threads"] == str(fastrnn.get_num_threads())
    assert shown["CPU features"]


def test_use_backend_nests():
    outer = fastrnn.backend()
    for name in fastrnn.backends():
        with fastrnn.use_backend(name):
            assert fastrnn.backend() == name
            with fastrnn.use_backend("reference"):
                assert fastrnn.backend() == "reference"
            with pytest.raises(KeyError), fastrnn.use_backend("reference"):
                raise KeyError
            assert fastrnn.backend() == name
        assert fastrnn.backend() == outer


@pytest.mark.parametrize("name", ["fastest", "", None, 3])
def test_use_backend_refuses(name):
    before = fastrnn.backend()
    with (
        pytest.raises(ValueError, match=r"use_backend: .* is not a backend; expected one of"),
        fastrnn.use_backend(name),
    ):
        pass
    assert fastrnn.backend() == before


def test_use_backend_is_each_threads_own():
    before, seen = fastrnn.backend(), []
    entered, leave = threading.Event(), threading.Event()

    def other():
        with fastrnn.use_backend("reference"):
            seen.append(fastrnn.backend())
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    assert fastrnn.backend() == before
    leave.set()
    thread.join()
    assert seen == ["reference"]


def test_backend_runs_what_it_says(backend):
    """A call runs the kernels of the current backend, and no others."""
    layer = fastrnn.LSTM(2, 3)
    _, _, tape = layer.forward([[1.0, 2.0]])
    name = tape.stack.scans[0].kernels.__name__
    if backend == "reference":
        assert name == "fastrnn._kernels.reference"
    else:
        assert name == f"fastrnn._kernels.{backend}_float32"


@pytest.mark.parametrize("name", [n for n in fastrnn.backends() if n != "reference"])
def test_other_dtypes_have_no_kernels(name):
    with (
        fastrnn.use_backend(name),
        pytest.raises(ValueError, match="dtype: expected float32 or float64, got int32"),
    ):
        dispatch.kernels(np.dtype(np.int32))
