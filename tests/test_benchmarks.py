"""Commands in ``benchmarks/``: they run, and all peers do the same work."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fastrnn._bench.peers import accepted
from fastrnn._bench.rows import Problem, Row
from fastrnn._core.config import available_cpus

FOLDER = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no benchmarks beside these tests")


def run(command: str, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / command), "--quick", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


@pytest.mark.parametrize(
    ("command", "rows"),
    [("grid.py", ["--rows=rnn-step,gru-training"]), ("parts.py", [])],
)
def test_rows_beside_peers(command: str, rows: list[str], tmp_path: Path, dtype: object) -> None:
    path = tmp_path / "b.json"
    options = [*rows, f"--dtype={dtype}", f"--json={path}"]
    out = run(command, "--peers=numpy", "--threads=1", *options)
    assert "refused" not in out
    assert "failed" not in out
    lines = json.loads(path.read_text())["lines"]
    assert all(line["ours"] > 0 and line["notes"] == {} for line in lines)
    assert any("numpy" in line["peers"] for line in lines)


def test_steps() -> None:
    table = run("steps.py")
    assert "LSTM(8,16) + Linear(16,1): own" in table
    assert "CharLM.generate" in table


def test_a_service() -> None:
    pytest.importorskip("sklearn")
    table = run("service.py").splitlines()
    assert [line.split()[0] for line in table[2:]] == ["fastrnn", "fastrnn_int8", "numpy"]


def test_searches() -> None:
    pytest.importorskip("sklearn")
    table = run("searches.py", "--engines=loky").splitlines()[-3:]
    assert all("True" in line for line in table), table
    assert table[2].split()[:3] == ["loky", "2", str(max(1, available_cpus() // 2))]


def test_many_models_on_dask() -> None:
    pytest.importorskip("distributed")
    table = run("many_models.py", "--torch=0")
    assert "22 steps" in table
    assert table.count("same bits True") == 3


def test_bulk_predictions_on_dask() -> None:
    pytest.importorskip("distributed")
    table = run("bulk.py").splitlines()[-2:]
    assert [line.split()[0] for line in table] == ["array", "ragged"]
    assert all(line.endswith("True") for line in table)


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "name",
    [
        "fastrnn-bfloat16", "fastrnn-int8", "torch-bfloat16", "torch-int8", "onnxruntime-int8",
        "openvino", "openvino-bfloat16", "openvino-default", "numba",
    ],
)  # fmt: skip
def test_fewer_bits_do_the_same_work(name: str, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    peer = importlib.import_module("peers").ALL[name]
    for module in peer.modules:
        pytest.importorskip(module)
    for mode, T in (("step", 1), ("forward", 7), ("training", 7)):
        problem = Problem.of(Row(cell, mode, 5, 9, T, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # theirs
            contenders, note = accepted(peer, problem, 1, problem.truth())
        assert note == ""
        assert all(contender.error < 0.03 for contender in contenders)
        can_train = name in ("fastrnn-bfloat16", "torch-bfloat16")
        if cell == "LSTM":
            assert bool(contenders) == (mode != "training" or can_train)


def test_times_and_errors_of_each_precision(tmp_path: Path) -> None:
    path, table = tmp_path / "b.json", tmp_path / "b.md"
    run(
        "grid.py", "--rows=gru-training", "--peers=numpy", "--threads=1", f"--json={path}",
        f"--markdown={table}",
    )  # fmt: skip
    lines = json.loads(path.read_text())["lines"]
    assert [line["details"]["precision"] for line in lines] == ["float32", "bfloat16", "any"]
    assert lines[0]["errors"].keys() == {"fastrnn", "numpy"}
    assert lines[0]["errors"]["fastrnn"] < 1e-5 < lines[1]["errors"]["fastrnn-bfloat16"] < 0.03
    assert all("numpy" in line["peers"] for line in lines)  # nobody else has bfloat16
    assert "| float32 | best peer | bfloat16 | best peer | any |" in table.read_text()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures by /proc")
def test_nothing_leaks() -> None:
    table = run("leaks.py").splitlines()
    assert len(table) > 10
    assert table[1].split()[-2:] == ["+0", "+0"]


def test_overheads() -> None:
    *_, last = run("overheads.py").split("\n\n")
    table = {line[:70].strip(): line.split()[-1] for line in last.splitlines()[1:]}
    assert "LSTM: stream.step(x, out=y)" in table
    if shutil.which("cc") is not None and available_cpus() > 1:
        assert "two threads wait at a barrier" in table
    # A difference of two timings may have any sign and size.
    assert all(ns.replace(",", "").lstrip("-").isdigit() for ns in table.values())


def test_torch_modules() -> None:
    pytest.importorskip("torch")
    rows = run("torch_modules.py", "--threads=1").splitlines()[2:]
    assert len(rows) == 6
    assert all(float(row.split()[-1]) < 1e-5 for row in rows)


def test_forecasts() -> None:
    pytest.importorskip("pandas")
    out = run("forecasts.py")
    assert "refused" in out  # 24 steps after 60 values
    assert "walk, seed 0" in out


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_c_code_that_does_not_compile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    limits = importlib.import_module("limits")
    with pytest.raises(subprocess.CalledProcessError):
        limits.compiled("limits.c")  # without the macros WIDTH and REAL


def test_published_tasks_say_what_they_miss_and_run_on_files(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(FOLDER / "learning.py"), "--data", str(tmp_path)]
    tasks = ["chorales", "words", "--seeds", "0"]
    missing = subprocess.run([*command, *tasks], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert "jsb-chorales-quarter.json is not in" in missing.stderr
    assert "https://github.com/czhuang/JSB-Chorales-dataset" in missing.stderr
    piece = [[60, 64], [], [62]] * 2
    parts = {"train": [piece, piece[1:]], "valid": [piece], "test": [piece[2:]]}
    (tmp_path / "jsb-chorales-quarter.json").write_text(json.dumps(parts))
    for name in ("train", "valid", "test"):
        (tmp_path / f"ptb.{name}.txt").write_text("the cat <unk> \n" * 2000)
    out = subprocess.run([*command, *tasks], capture_output=True, text=True, check=True).stdout
    chorales, words = (line for line in out.splitlines() if "seed 0" in line)
    # Both are learnt by heart: three chords, of 88 keys, and four words in a row.
    assert float(chorales.split()[3]) < 3
    assert float(words.split()[4]) < 1.5


def test_the_readme_has_four_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    doors = importlib.import_module("doors")
    found = list(doors.DOOR.finditer((FOLDER.parent / "README.md").read_text()))
    assert [door[2] for door in found] == [None, "torch", "sklearn", None]
