"""The four doors of README.md, each from a new environment to its result, in seconds.

python benchmarks/doors.py [WHEEL]        Default: this checkout, whose kernels are then built.

For each door: the environment, the installation of fastrnn and of what the block of code requires,
with pip's cache as it is, and the run of the block, in an empty folder, by nothing but Python. What
it prints has to be what the README says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The title of a door, what its code requires, its code, and what that prints.
DOOR = re.compile(
    r"^\*\*(You have [^*]*?)\.?\*\*.*?(?:^<!-- requires: (\w+) -->\n)?^```python\n(.*?)^```\n"
    r"\n```text\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
#: How pip is asked for what a block requires: as an extra of fastrnn, or by name.
EXTRAS, NAMES = {"sklearn": "[sklearn]"}, {"torch": ["torch"]}
#: Nothing of the environment that runs this.
ENVIRONMENT = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}


def through(door: re.Match[str], package: str, folder: Path) -> list[float]:
    """Return the seconds of environment, installation and code."""
    _, requires, code, expected = door.groups()
    python = folder / "environment" / "bin" / "python"
    desk = folder / "desk"
    desk.mkdir()
    wanted = [package + EXTRAS.get(requires, ""), *NAMES.get(requires, [])]
    seconds = []
    for command in (
        [sys.executable, "-m", "venv", str(folder / "environment")],
        [str(python), "-m", "pip", "install", "--quiet", *wanted],
        [str(python), "-c", code],
    ):
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=desk, env=ENVIRONMENT, text=True, capture_output=True, check=False
        )
        seconds.append(time.perf_counter() - start)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[:4])}: {done.stderr}")
    if done.stdout != expected:
        raise SystemExit(f"expected {expected!r}, got {done.stdout!r}")
    return seconds


def main() -> None:
    package = str(Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else str(ROOT)
    doors = list(DOOR.finditer((ROOT / "README.md").read_text()))
    print(f"{'door':44}{'environment':>12}{'install':>9}{'run':>7}{'all, s':>8}")
    for door in doors:
        with tempfile.TemporaryDirectory() as folder:
            seconds = through(door, package, Path(folder))
        venv, install, run = seconds
        print(f"{door[1]:44}{venv:12.1f}{install:9.1f}{run:7.1f}{sum(seconds):8.1f}", flush=True)
    if len(doors) != 4:
        raise SystemExit(f"expected four doors in README.md, got {len(doors)}")


if __name__ == "__main__":
    main()
