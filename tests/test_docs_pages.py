"""The code on every page of the site, and in the README, runs and prints what the page says.

The blocks of a page run in order, in one namespace and one folder. ``python`` blocks with prompts
are doctests; others are executed, and a ``text`` block right after one holds what it prints. Of
``sh`` blocks, commands that install or download are left out. A page that needs an optional package
says so at its top, and a block in a comment before it: ``requires: torch``.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

HERE = Path(__file__).parent.parent
DOCS = HERE / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
README = [HERE / "README.md"] if (HERE / "README.md").exists() else []

#: What numbers and paths that differ from machine to machine are written as.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
#: What `sh` blocks show but tests do not do.
NOT_RUN = re.compile(r"\s*(pip|python3? -m (venv|pip)|git|curl|mpiexec|conda|source|\.) ")

os.environ.setdefault("KERAS_BACKEND", "torch")  # as in test_keras.py

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="no docs beside these tests"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    line: int
    text: str
    #: What it prints, if the page says it.
    output: str | None
    #: Packages without which it is not run.
    requires: list[str]


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of code of a page."""
    fence = r"(?:^<!-- requires: ([\w ]*) -->\n)?^```(\w+)\n(.*?)^```$"
    found = list(re.finditer(fence, page, flags=re.MULTILINE | re.DOTALL))
    for i, match in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        follows = after and after[2] == "text" and not page[match.end() : after.start()].strip()
        line = page[: match.start(2)].count("\n") + 2
        output = after[3] if after and follows else None
        yield Block(match[2], line, match[3], output, (match[1] or "").split())


def run_doctest(block: Block, names: dict[str, object], where: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, names, where, where, block.line - 1)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, "".join(said)


def run_python(block: Block, names: dict[str, object], where: str) -> str:
    code = compile("\n" * (block.line - 1) + block.text, where, "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def run_shell(block: Block) -> str:
    lines = [line for line in block.text.splitlines() if not NOT_RUN.match(line)]
    script = f'fastrnn() {{ "{sys.executable}" -P -m fastrnn "$@"; }}\n' + "\n".join(lines)
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def expect(block: Block, printed: str) -> None:
    if block.output is not None and not doctest.OutputChecker().check_output(
        block.output, printed, FLAGS
    ):
        raise AssertionError(f"expected:\n{block.output}\nprinted:\n{printed}")


def required(page: str) -> list[str]:
    """Return the packages without which a page is skipped."""
    front = re.match(r"---\n.*?^requires: (.*?)$.*?^---$", page, flags=re.MULTILINE | re.DOTALL)
    return front[1].split() if front else []


def test_guarantees_name_tests_that_exist() -> None:
    page = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py|benchmarks/\w+\.(?:py|sh))`", page)
    assert len(named) > 20
    missing = [n for n in named if not ((HERE / "tests" / n).exists() or (HERE / n).exists())]
    assert not missing


def page_id(path: Path) -> str:
    # The README needs torch for one block.
    return str(path.relative_to(DOCS)) if path.is_relative_to(DOCS) else "README.md, with torch"


@pytest.mark.parametrize("path", [*README, *PAGES], ids=page_id)
def test_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = path.read_text(encoding="utf-8")
    for package in required(page):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    left_out: list[str] = []
    with np.printoptions():
        for block in blocks(page):
            missing = [name for name in block.requires if find_spec(name) is None]
            left_out += missing
            if missing:
                continue
            where = f"{path.relative_to(HERE)}:{block.line}"
            if block.language == "python" and ">>> " in block.text:
                run_doctest(block, names, where)
            elif block.language == "python":
                expect(block, run_python(block, names, where))
            elif block.language == "sh":
                expect(block, run_shell(block))
    if left_out:
        pytest.skip(f"all but the blocks that need {', '.join(left_out)}")
