"""Lines and branches of fastrnn/ and of src_pyx/ that the tests run.

python tests/measure_coverage.py [--python] [--left] [--keep FOLDER] [TESTS ...]

Copies this checkout to a temporary folder, builds it there for one instruction set without
optimisation and with GCC's counters, runs the tests, or those that are given, and prints what share
of lines and branches they ran, of each part and in total; with --left each line that they did not
run, and each that went only one way. Kernels are some 40 times as slow with counters; with --python
they are built as usual, and only Python is counted. Needs GCC, coverage>=7.10, and what
CONTRIBUTING.md installs; what needs an optional package counts, whether it is installed or not.

Counted are

- of Python: what coverage.py counts, without `if TYPE_CHECKING:` and bodies that are `...`;
- of Cython and C: lines of which a module is made for this instruction set, of any dtype, and both
  outcomes of each condition in the source: of if, for, while, min, max, and each side of and, or.
  Not those that Cython adds (is there an error, is it a tuple, is a list at its end), and not those
  of a tile's numbers of rows and vectors, which are constants.

What threads and children ran counts; a process that is killed does not report.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BACKEND = "avx2"
#: Counters of threads must not lose counts; what is always inlined must be counted once.
COUNTED = "--coverage -O0 -g -fprofile-update=atomic -Dalways_inline=unused -w"
CONFIG = """
[run]
branch = true
parallel = true
source_pkgs = fastrnn
data_file = {folder}/.coverage
patch = subprocess, fork, _exit
[report]
exclude_also =
    if (_typing\\.)?TYPE_CHECKING:
    ^\\s*\\.\\.\\.$
"""
#: "file":line of the source, before the C of each statement.
_MARKER = re.compile(r'\s*/\* "([^"]+)":(\d+)$')
#: The source's line in the comment that follows.
_POINTED = "# <<<<<<<<<<<<<<"
_NO_STATEMENT = re.compile(r' \*\s*((def|cdef|cpdef|class)\b|@|""")')
#: Added to the line's number, in C of Cython's own: its branches are not the source's.
OWN = 100_000
#: Errors, reference counts, arguments, loops over objects, calls of methods. A condition before a
#: `raise` is unlikely, too, and the source's.
_OWN = re.compile(
    r"likely\((?!__pyx_t_\d+\)\) \{)|__Pyx|__PYX|__pyx_temp|CYTHON|Py_X?(IN|DE)CREF|exc_type"
    r"|for \((;;|Py_ssize_t i)|values\[|PyTypeNum_"
)
#: What makes a condition, in the source.
_CONDITION = re.compile(
    r"\b(if|elif|while|for|and|or|not|in|is|min|max|all|any)\b| [<>] |[=!<>]=|&&|\|\||\?"
)
#: Lines of tile_body.h whose conditions are of constants, wherever a tile is inlined.
_TILE = re.compile(r"^ *(TILE|ROW|TAIL)_(ROWS|VECS)\(|STEPS\(|END_(TILE|ROW)")


@dataclass
class File:
    """Counts of a file's lines, and of the outcomes of conditions in each line."""

    lines: dict[int, int] = field(default_factory=dict)
    branches: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def add(self, line: int, count: int, outcomes: Sequence[int]) -> None:
        """Add counts of one function: the same line of others has the same conditions."""
        self.lines[line] = self.lines.get(line, 0) + count
        if outcomes:
            before = self.branches.setdefault((line, len(outcomes)), [0] * len(outcomes))
            self.branches[line, len(outcomes)] = [
                a + b for a, b in zip(before, outcomes, strict=True)
            ]

    def left(self) -> tuple[list[int], list[int]]:
        """Return the lines that did not run, and those of which an outcome did not occur."""
        lines = sorted(line for line, count in self.lines.items() if not count)
        some = {line for (line, _), outcomes in self.branches.items() if 0 in outcomes}
        return lines, sorted(some - set(lines))

    def shares(self) -> tuple[int, int, int, int]:
        """Return lines that ran, all lines, outcomes that occurred, all outcomes."""
        outcomes = [count for counts in self.branches.values() for count in counts]
        ran = sum(count > 0 for count in self.lines.values())
        return ran, len(self.lines), sum(count > 0 for count in outcomes), len(outcomes)


def run(command: Sequence[str], folder: Path, **more: str) -> int:
    """Run a command in the folder; return its exit code."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
    fixed = {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    environment = inherited | fixed | more
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def attributed(code: str) -> Iterator[str]:
    """Yield the lines of Cython's C, each said to come from the source's line it is made of."""
    name, number, pointed = "cython", 1, False
    for text in code.splitlines():
        stops = "/* function exit code */" in text or text == "}"
        if marker := _MARKER.match(text):
            name, number = marker[1], int(marker[2])
        elif stops or (_POINTED in text and _NO_STATEMENT.match(text)):
            name, number = "cython", 1
        if text.strip() and not text.startswith((" *", "*/")) and not pointed:
            yield f'#line {number + OWN * bool(_OWN.search(text))} "{name}"'
        pointed = text.endswith("\\")
        yield text


def compile_counted(command: list[str]) -> int:
    """Run the C compiler; rewrite a module's C before."""
    for name in command:
        if name.endswith(".c"):
            path = Path(name)
            path.write_text("\n".join(attributed(path.read_text())) + "\n")
    return subprocess.run(["cc", *command, *COUNTED.split()], check=False).returncode


def build(folder: Path, counted: bool) -> None:
    """Copy the checkout, and build it, with counters or as usual."""
    ignored = shutil.ignore_patterns(".git", "build", "*.so", "__pycache__", "shared")
    shutil.copytree(ROOT, folder, ignore=ignored)
    compiler = folder / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} --cc "$@"\n')
    compiler.chmod(0o755)
    command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    wanted = {"FASTRNN_BUILD_EXT": "yes", "FASTRNN_VARIANTS": BACKEND}
    if run(command, folder, **wanted, **({"CC": str(compiler)} if counted else {})):
        sys.exit("measure_coverage: does not build")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Keep one in `--sample` cases of each test, but at least two."""
    cases: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    pick, sample = random.Random(0), int(os.environ["COVERAGE_SAMPLE"])
    kept = [
        item
        for some in cases.values()
        for item in pick.sample(some, min(len(some), max(2, len(some) // sample)))
    ]
    items[:] = kept


def test(folder: Path, tests: Sequence[str], sample: int) -> None:
    """Run the tests, and add what they ran to what others did."""
    config = folder / "coverage.cfg"
    config.write_text(CONFIG.format(folder=folder))
    command = (
        sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest", "-q",
        "--tb=short", "-p", "no:cacheprovider", "-p", "measure_coverage", *(tests or ["tests"]),
    )  # fmt: skip
    path = os.pathsep.join([str(folder), str(folder / "tests")])
    if run(command, folder, PYTHONPATH=path, COVERAGE_SAMPLE=str(sample)):
        print("measure_coverage: tests failed: what they would have run is missing below")
    measure = (sys.executable, "-m", "coverage")
    run((*measure, "combine", "--append", "-q", f"--rcfile={config}"), folder)
    run((*measure, "json", "-q", f"--rcfile={config}", "-o", "python.json"), folder)


def python_files(folder: Path) -> dict[str, File]:
    """Return what coverage.py counted."""
    found = json.loads((folder / "python.json").read_text())["files"]
    files = {}
    for name, counted in found.items():
        file = files[name] = File()
        for count, key in enumerate(("missing_lines", "executed_lines")):
            for line in counted[key]:
                file.add(line, count, ())
        for count, key in enumerate(("missing_branches", "executed_branches")):
            for line, to in counted[key]:
                file.branches[line, to] = [count]
    return files


def compiled_files(folder: Path) -> dict[str, File]:
    """Return what GCC counted, under the sources' names."""
    sources = {
        path.name: str(path.relative_to(folder))
        for path in (folder / "src_pyx").rglob("*.*")
        if path.suffix in (".pyx", ".pxd", ".pxi", ".h")
    }
    files: dict[str, File] = defaultdict(File)
    for notes in sorted((folder / "build").rglob("*.gcno")):
        printed = subprocess.run(
            ["gcov", "--json-format", "--stdout", "--branch-probabilities", str(notes)],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for counted in json.loads(printed)["files"]:
            source = sources.get(Path(counted["file"]).name)
            if source is None or "numpy" in counted["file"]:
                continue
            text = (folder / source).read_text().splitlines()
            for line in counted["lines"]:
                own, number = divmod(line["line_number"], OWN)
                code = text[number - 1]
                ignored = own or _TILE.search(code) or not _CONDITION.search(code)
                outcomes = [] if ignored else [branch["count"] for branch in line["branches"]]
                files[source].add(number, line["count"], outcomes)
    return dict(sorted(files.items()))


def ranges(numbers: Sequence[int]) -> str:
    """Return "3, 5-7" for 3, 5, 6, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def report(title: str, files: dict[str, File], left: bool) -> None:
    """Print the shares of each folder and of all; and what is left."""
    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for name, file in files.items():
        for group in (str(Path(name).parent), title):
            groups[group] = [a + b for a, b in zip(groups[group], file.shares(), strict=True)]
    print(f"\n{'':32}{'lines':>8}{'run':>9}{'branches':>10}{'taken':>9}")
    for group in [*sorted(set(groups) - {title}), title]:
        lines, of_lines, taken, of_taken = groups[group]
        shares = 100 * lines / max(of_lines, 1), 100 * taken / max(of_taken, 1)
        print(f"{group:32}{of_lines:>8}{shares[0]:>8.2f}%{of_taken:>10}{shares[1]:>8.2f}%")
    for name, file in files.items() if left else ():
        lines, some = file.left()
        if lines or some:
            print(f"{name}: not run: {ranges(lines) or '-'}; one way only: {ranges(some) or '-'}")


def main() -> None:
    """Measure, and print."""
    if sys.argv[1:2] == ["--cc"]:
        sys.exit(compile_counted(sys.argv[2:]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", nargs="*", help="files of tests; default: all")
    parser.add_argument(
        "--sample", type=int, default=1, metavar="N", help="run one in N cases of each test"
    )
    parser.add_argument("--python", action="store_true", help="count Python alone, in less time")
    parser.add_argument("--left", action="store_true", help="list what the tests did not run")
    parser.add_argument("--keep", help="the copy's folder, whose counts grow if it exists")
    parser.add_argument("--no-tests", action="store_true", help="print the counts of that folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coverage") as temporary:
        folder = Path(args.keep or temporary).resolve() / "fastrnn"
        if not folder.exists():
            build(folder, not args.python)
        if not args.no_tests:
            test(folder, args.tests, args.sample)
        report("Python", python_files(folder), args.left)
        if not args.python:
            report("Cython and C", compiled_files(folder), args.left)


if __name__ == "__main__":
    main()
