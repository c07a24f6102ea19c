"""What CI and developers elsewhere run: pinned actions, complete extras."""

import re
import tomllib
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parents[1] / ".github" / "workflows"


@pytest.mark.skipif(not WORKFLOWS.exists(), reason="no workflows here: tests alone")
def test_actions_are_pinned_by_commit() -> None:
    used = [
        line.strip()
        for path in WORKFLOWS.glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert used
    pinned = re.compile(r"- uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []


def test_developers_have_what_builds_the_kernels() -> None:
    project = tomllib.loads((WORKFLOWS.parents[1] / "pyproject.toml").read_text())
    builds, installs = project["build-system"]["requires"], project["project"]["dependencies"]
    given = project["project"]["optional-dependencies"]["dev"]
    names = {re.match(r"[\w-]+", package)[0].lower() for package in installs}
    asked = [package for package in builds if package.partition(">")[0] not in names]
    assert [package for package in asked if package not in given] == []
