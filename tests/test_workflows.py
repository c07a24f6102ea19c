"""What CI elsewhere runs: actions are pinned by commits, with their versions beside them."""

import re
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
