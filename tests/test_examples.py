"""Every example runs, agrees with the hand-written loop to 1e-10, and prints both times."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]*.py"))

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="no examples beside these tests")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_agrees_with_the_hand_written_loop(example: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    differences = re.findall(r"^(.+): differ by at most (\S+)$", process.stdout, re.MULTILINE)
    assert {"outputs", "gradients"} <= {what for what, _ in differences}
    assert all(float(difference) <= 1e-10 for _, difference in differences)
    assert re.search(r"^time: by hand \S+ ms, fastrnn \S+ ms", process.stdout, re.MULTILINE)


def test_without_matplotlib_the_picture_is_text(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['matplotlib.figure'] = None; "
        f"sys.path.insert(0, {str(FOLDER)!r}); "
        f"runpy.run_path({str(FOLDER / '7_vanishing_gradients.py')!r})"
    )
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.count("####") > 20
    assert not list(tmp_path.iterdir())
