"""The scripts of the guide to engines run, each where its engine is installed.

They are ``py`` blocks: each is a script of its own, which test_docs_pages.py leaves to these tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "engines.md"

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="no documentation beside these tests")


def scripts(heading: str) -> list[str]:
    """Return the Python code of a section."""
    (section,) = re.findall(
        rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE.read_text("utf-8"), re.M | re.S
    )
    return re.findall(r"^```py\n(.*?)^```$", section, re.M | re.S)


def run(tmp_path: Path, script: str, *launcher: str) -> str:
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    environment = {n: v for n, v in os.environ.items() if n != "FASTRNN_NUM_THREADS"}
    environment["PYSPARK_PYTHON"] = sys.executable
    ended = subprocess.run(
        [*launcher, sys.executable, "-P", path], env=environment, cwd=tmp_path, timeout=240,
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert not ended.returncode, ended.stdout
    return ended.stdout


def test_joblib_example(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (script,) = scripts("joblib and scikit-learn")
    assert run(tmp_path, script).endswith("(200, 1)\n")


def test_dask_example(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pytest.importorskip("sklearn")
    said = run(tmp_path, scripts("Dask")[0])
    assert "closed ValueError: series: expected at least" in said


def test_frames_example(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pytest.importorskip("dask.dataframe")
    run(tmp_path, scripts("Dask")[1])


def test_optuna_example(tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    pytest.importorskip("optuna")
    (script,) = scripts("Optuna")
    assert "'units'" in run(tmp_path, script)


def test_mpi_example(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    found = shutil.which("mpiexec", path=sysconfig.get_path("scripts")) or shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    (script,) = scripts("MPI")
    of_two, alone = (run(tmp_path, script, found, "-n", n).splitlines()[-1] for n in "21")
    assert of_two == alone


def test_spark_example(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    pytest.importorskip("pyarrow")
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    (script,) = scripts("Spark")
    run(tmp_path, script)


def test_ray_example(tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    (script,) = scripts("Ray")
    run(tmp_path, script)


def test_every_script_is_run() -> None:
    headings = ["joblib and scikit-learn", "Dask", "Optuna", "MPI", "Spark", "Ray"]
    run_here = sum(len(scripts(heading)) for heading in headings)
    assert GUIDE.read_text("utf-8").count("```py\n") == run_here
