"""Nothing that can be called, set or changed crashes: a short walk of `fuzz_walls.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastrnn

WALK = Path(__file__).with_name("fuzz_walls.py")
ACTIONS = 1000
#: glibc fills what is freed: who reads it shows.
PERTURBED = {"MALLOC_PERTURB_": "165", "OPENBLAS_NUM_THREADS": "1"}


# A process of its own: a crash ends that one, and is told with what led to it.
def test_a_walk_ends_well(backend: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, str(WALK), f"--actions={ACTIONS}", "--seed=1", f"--log={log}"]
    # Packages are found as they are here, whatever the working directory.
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [*command, f"--backend={backend}"],
        env=os.environ | PERTURBED | {"PYTHONPATH": paths},
        capture_output=True, text=True, errors="replace", timeout=600, check=False,
    )  # fmt: skip
    last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    assert done.returncode == 0, (
        f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n"
        f"{done.stderr[-3000:]}\nlast:\n{last}"
    )
    assert f"{fastrnn.backend()}:" in done.stdout
