"""Do the tests notice a wrong sign, index or bound in the kernels? Change one at a time, and see.

python tests/mutants.py --count 200 [--seed N] [--jobs 2] [--file 'scan/*'] [--json FILE]
python tests/mutants.py --only scan/forward.pxd:141:3     one of them again, with the tests' output

A mutant is a copy of this checkout in which one token of src_pyx/ is another: + for -, < for <=,
min for max, a number plus one. It is built for one instruction set without optimisation, as a debug
build, which guards its workspaces, and TESTS run until one of them fails. Those that survive are
listed: a test is missing, or the change only matters for speed, or not at all. Needs what
CONTRIBUTING.md installs.
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
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
BACKEND = "avx2"
#: Quick ones first, so that most mutants die early.
TESTS = [
    "backends", "cells", "kernel_arguments", "gradients", "ragged", "single_steps", "direct_calls",
    "embedding_linear_dropout", "losses", "optim", "activations", "normalization", "row_layers",
    "kernel_walls", "streams", "stacks", "matmul_precision", "quantize", "equal_bits", "threads",
    "cell_activations", "initial_states", "masks", "weight_dropout", "function_losses", "options",
    "arguments", "walls", "layers", "sequential",
]  # fmt: skip
#: Seconds after which a mutant counts as hanging, and so as noticed.
HANGS = 900
#: What a token may become.
CHANGES = {
    "+": "-", "-": "+", "*": "+", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=",
    "!=": "==", "and": "or", "or": "and", "&&": "||", "||": "&&", "min": "max", "max": "min",
    "+=": "-=", "-=": "+=", "vadd": "vsub", "vsub": "vadd", "vmul": "vadd", "vmin": "vmax",
    "vmax": "vmin", "True": "False", "False": "True", "break": "continue",
}  # fmt: skip
#: Tokens with blanks around them, as ruff and clang-format write them: neither signs nor pointers.
_OPERATOR = re.compile(r"(?<= )(\+=|-=|<=|>=|==|!=|&&|\|\||[-+*<>])(?= )")
_WORD = re.compile(r"\b(and|or|min|max|vadd|vsub|vmul|vmin|vmax|True|False|break)\b")
_NUMBER = re.compile(r"(?<![\w.])(\d+)(?![\w.])")
#: Lines that declare or describe.
_NO_CODE = re.compile(
    r"\s*(#|//|/?\*|from |cimport |import |include |ctypedef |@|cdef (extern|struct|enum)|raise "
    r"|refuse\(|f?\")"
)


@dataclass(frozen=True)
class Mutant:
    """One change: the file, its line and the column of the token, counted from 1."""

    file: str
    line: int
    column: int
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        change = f"{self.before} -> {self.after}"
        return f"{self.file}:{self.line}:{self.column} {change:12} {self.text.strip()}"

    def apply(self, source: Path) -> None:
        """Change the token in a checkout's file."""
        lines = source.read_text().splitlines(keepends=True)
        text, at = lines[self.line - 1], self.column - 1
        assert text[at:].startswith(self.before)
        lines[self.line - 1] = text[:at] + self.after + text[at + len(self.before) :]
        source.write_text("".join(lines))


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbers of lines with code in a function, and these without comments."""
    quoted = False
    for number, line in enumerate(text.splitlines(), 1):
        quotes = line.count('"""')
        if quoted or quotes:
            quoted ^= quotes % 2 == 1
            continue
        if line.startswith((" ", "\t")) and not _NO_CODE.match(line):
            yield number, re.split(r"  #|//|/\*", line)[0]


def mutants(pattern: str) -> list[Mutant]:
    """Return all mutants of the files that match."""
    found = []
    for path in sorted((ROOT / "src_pyx").rglob("*.*")):
        file = str(path.relative_to(ROOT / "src_pyx"))
        if path.suffix not in (".pyx", ".pxd", ".pxi", ".h") or not fnmatchcase(file, pattern):
            continue
        for number, line in code_lines(path.read_text()):
            for kind in (_OPERATOR, _WORD, _NUMBER):
                for match in kind.finditer(line):
                    old = match[1]
                    new = str(int(old) + 1) if kind is _NUMBER else CHANGES[old]
                    found.append(Mutant(file, number, match.start(1) + 1, old, new, line))
    return found


class Checkout:
    """A copy of the tree in which mutants are built and tested, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".git", "build", "*.so", "shared")
        )
        compiler = folder / "cc"
        compiler.write_text('#!/bin/sh\nexec cc "$@" -O0 -g0\n')
        compiler.chmod(0o755)
        self._environment = os.environ | {
            "CC": str(compiler), "FASTRNN_DEBUG": "1", "FASTRNN_BUILD_EXT": "yes",
            "FASTRNN_VARIANTS": BACKEND, "FASTRNN_BACKEND": BACKEND, "PYTHONPATH": str(folder),
            "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip

    def build(self) -> bool:
        """Build the kernels; return whether they compile."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        return self._run(command, 600, quiet=True) == 0

    def test(self, quiet: bool = True) -> str:
        """Run the tests; return how the first one failed, or "survived"."""
        tests = [f"tests/test_{name}.py" for name in TESTS]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"]
        code = self._run([sys.executable, "-m", "pytest", *options, *tests], HANGS, quiet)
        outcomes = {None: "hang", 0: "survived", 1: "test failed"}
        return outcomes.get(code, "error" if code and code > 0 else "crash")

    def outcome(self, mutant: Mutant, quiet: bool = True) -> str:
        """Return what happens to a mutant."""
        source = self.folder / "src_pyx" / mutant.file
        original = source.read_text()
        mutant.apply(source)
        try:
            return self.test(quiet) if self.build() else "does not compile"
        finally:
            source.write_text(original)

    def _run(self, command: list[str], seconds: float, quiet: bool) -> int | None:
        sink = subprocess.DEVNULL if quiet else None
        try:
            return subprocess.run(
                command, cwd=self.folder, env=self._environment, timeout=seconds, check=False,
                stdout=sink, stderr=sink,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return None


def run(chosen: list[Mutant], count: int, jobs: int) -> list[tuple[Mutant, str]]:
    """Return the outcomes of the first `count` mutants that compile, and print them."""
    results: list[tuple[Mutant, str]] = []
    queue: SimpleQueue[Mutant] = SimpleQueue()
    for mutant in chosen:
        queue.put(mutant)

    def work(folder: Path) -> None:
        checkout = Checkout(folder)
        if not checkout.build() or checkout.test() != "survived":
            raise SystemExit("mutants: the tests fail without any change")
        while len(results) < count and not queue.empty():
            mutant = queue.get()
            outcome = checkout.outcome(mutant)
            if outcome != "does not compile":
                results.append((mutant, outcome))
                print(f"{len(results):>4} {outcome:12} {mutant}", flush=True)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, [Path(folder) / str(i) for i in range(jobs)]))
    return results


def main() -> None:
    """Print the outcome of each mutant, and those that survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--file", default="*", help="pattern of files in src_pyx/")
    parser.add_argument("--only", help="FILE:LINE:COLUMN of one")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    given = parser.parse_args()
    chosen = mutants(given.file)
    if given.only:
        (one,) = (m for m in chosen if f"{m.file}:{m.line}:{m.column}" == given.only)
        with tempfile.TemporaryDirectory() as folder:
            print(one, Checkout(Path(folder) / "0").outcome(one, quiet=False))
        return
    random.Random(given.seed).shuffle(chosen)
    results = run(chosen, given.count, given.jobs)
    for outcome, count in Counter(outcome for _, outcome in results).most_common():
        print(f"{outcome:16} {count}")
    for mutant, outcome in sorted(results, key=lambda r: (r[0].file, r[0].line)):
        if outcome == "survived":
            print(mutant)
    if given.json:
        told = [asdict(mutant) | {"outcome": outcome} for mutant, outcome in results]
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
