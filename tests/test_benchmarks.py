"""Commands in ``benchmarks/``: they run, and all peers do the same work."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    ("command", "rows"), [("grid.py", "rnn-step,gru-training"), ("parts.py", "*")]
)
def test_rows_beside_peers(command: str, rows: str, tmp_path: Path, dtype: object) -> None:
    path = tmp_path / "b.json"
    options = [f"--rows={rows}", f"--dtype={dtype}", f"--json={path}"]
    out = run(command, "--peers=numpy", "--threads=1", *options)
    assert "refused" not in out
    assert "failed" not in out
    lines = json.loads(path.read_text())["lines"]
    assert all(line["ours"] > 0 and line["notes"] == {} for line in lines)
    assert any("numpy" in line["peers"] for line in lines)


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
