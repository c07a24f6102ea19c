"""Nothing that can be called, set or changed crashes: a short run of `fuzz_walls.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

WALK, ENTRIES = (Path(__file__).with_name(f"fuzz_{name}.py") for name in ("walls", "entries"))
#: Of the first; and calls of the second: the right ones of each entry, and more.
ACTIONS, CALLS = 1000, 1500
#: Makes glibc overwrite freed memory, which reveals later reads.
PERTURBED = {"MALLOC_PERTURB_": "165", "OPENBLAS_NUM_THREADS": "1"}


def run(fuzzer: Path, tmp_path: Path, *options: str) -> str:
    """Run a fuzzer in a process of its own, whose crash is reported with what came before it."""
    log = tmp_path / "log"
    command = [sys.executable, str(fuzzer), "--seed=1", f"--log={log}", *options]
    # Import the same packages as here, whatever the working directory.
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        command, env=os.environ | PERTURBED | {"PYTHONPATH": paths},
        capture_output=True, text=True, errors="replace", timeout=600, check=False,
    )  # fmt: skip
    last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    assert done.returncode == 0, (
        f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n"
        f"{done.stderr[-3000:]}\nlast:\n{last}"
    )
    return done.stdout


def test_a_walk_ends_well(backend: str, tmp_path: Path) -> None:
    assert f"{backend}:" in run(WALK, tmp_path, f"--actions={ACTIONS}", f"--backend={backend}")


def test_every_public_entry_point(tmp_path: Path) -> None:
    assert "went through" in run(ENTRIES, tmp_path, f"--calls={CALLS}")


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_every_public_entry_point_of(package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    options = (f"--only=fastrnn.{package}.", "--calls=100")
    assert "went through" in run(ENTRIES, tmp_path, *options)


def test_what_a_class_says_of_its_cells_is_fixed(recurrent: Any) -> None:
    layer = recurrent(2, 3)
    with pytest.raises(AttributeError, match=r"\.cells: is fixed when the"):
        layer.cells = {}


@pytest.mark.parametrize("change", ["resize", "reshape"])
def test_data_that_lose_their_shape_in_mid_training(backend: str, change: str) -> None:
    X, y = np.ones((8, 3, 2), np.float32), np.ones(8, np.float32)

    class Change(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if change == "resize":
                X.resize((1, 3, 2), refcheck=False)
            else:
                with warnings.catch_warnings(action="ignore"):
                    X.shape = (48,)

    layers = [fastrnn.GRU(2, 3, return_sequences=False), fastrnn.Linear(3, 1)]
    model = fastrnn.Sequential(layers, seed=0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"shape|resize"):
        model.fit(X, y, batch_size=2, callbacks=[Change()], verbose=0)
