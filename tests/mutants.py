"""Do the tests notice a wrong sign, index or bound in the kernels? Change one at a time, and see.

python tests/mutants.py --count 200 [--seed N] [--file 'scan/*'] [--json FILE] [--quick]
python tests/mutants.py --only scan/forward.pxd:141:3,... [--tests stacks,streams]   with output

A mutant is a copy of this checkout in which one token of src_pyx/ is another: + for -, < for <=,
min for max, a number plus one. It is built for one instruction set without optimisation, as a debug
build, which guards its workspaces: at first one module, for the tests nearest to the file (some
ten seconds); what survives gets all modules and all of TESTS (some minutes), unless --quick leaves
it open. What still survives is listed: a test is missing, or the change only matters for speed, or
not at all. At last, the tests that failed must pass without any change. With --json, outcomes are
kept, and known ones not tried again. Needs what CONTRIBUTING.md installs, and Linux.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

# Imported here, so that the children that build and test find them loaded.
import Cython.Build
import hypothesis
import pytest
import setuptools

ROOT = Path(__file__).resolve().parents[1]
TESTS = [
    "cells", "zeros", "backends", "kernel_arguments", "gradients", "ragged", "single_steps",
    "direct_calls", "embedding_linear_dropout", "losses", "optim", "activations", "normalization",
    "row_layers", "kernel_walls", "streams", "stacks", "matmul_precision", "quantize", "equal_bits",
    "threads", "cell_activations", "initial_states", "masks", "weight_dropout", "function_losses",
    "numerics", "options", "arguments", "walls", "layers", "sequential",
]  # fmt: skip
#: The first tests of files, by pattern; and those of all others, quick ones first.
NEAREST = {
    "quantized.pyx": "quantize", "affine.pxi": "quantize", "lib/int8.h": "quantize",
    "cpu.pyx": "dispatch", "lib/cpu.h": "dispatch", "threads.pyx": "threads streams",
    "lib/pool.h": "threads streams cells", "losses.pxi": "losses numerics kernel_walls",
    "optim.pxi": "optim kernel_arguments",
    "linear.pxi": "embedding_linear_dropout zeros kernel_arguments matmul_precision",
    "embedding.pxi": "embedding_linear_dropout kernel_arguments kernel_walls streams",
    "rows*.pxi": "row_layers normalization zeros kernel_arguments",
    "lib/arrays.pxi": "kernel_arguments kernel_walls",
    "lib/bfloat16.h": "matmul_precision", "lib/norm.pxd": "backends cell_activations",
    "lib/maths.h": "row_layers losses quantize", "lib/functions.h": "row_layers zeros",
    "chain.pxi": "streams stacks single_steps direct_calls", "scan/direct*": "direct_calls",
    "scan/stepper.pxi": "single_steps streams direct_calls kernel_arguments",
    "*": "cells single_steps cell_activations ragged activations streams zeros direct_calls"
         " matmul_precision",
}  # fmt: skip
#: The modules that are built first, by file.
MODULES = {
    "quantized.pyx": "int8", "affine.pxi": "int8", "lib/int8.h": "int8", "cpu.pyx": "_cpu",
    "lib/cpu.h": "_cpu", "threads.pyx": "_threads",
    "lib/pool.h": "_threads float32", "lib/maths.h": "float32 int8", "*": "float32",
}  # fmt: skip
SOURCES = {
    "_cpu": "cpu", "_threads": "threads", "float32": "kernels", "float64": "kernels",
    "int8": "quantized",
}  # fmt: skip
OPEN = "survived so far"
#: Seconds of processors, and on the clock, after which a test counts as hanging.
HANGS = (60, 400)
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


def of_file(table: dict[str, str], file: str) -> str:
    """Return the first entry of a table whose pattern matches."""
    return next(value for pattern, value in table.items() if fnmatchcase(file, pattern))


def forked(action: Callable[[], int], folder: Path, quiet: bool) -> int:
    """Return the exit code of a child process that does `action` in a folder; -n for a signal n."""

    def child() -> None:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        if quiet:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
        try:
            code = action()
        except BaseException:
            traceback.print_exc()
            code = 3
        sys.stdout.flush()
        os._exit(code)  # not through the exits of a parent's modules

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


class Watch:
    """A plugin of pytest: ends tests that hang, and notes the first that fails."""

    def __init__(self, note: Path, only: set[str] | None) -> None:
        self._note = note
        self._only = only

    def pytest_collection(self) -> None:
        """Let hypothesis neither vary its examples nor look for smaller ones."""
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        base = hypothesis.settings.get_profile("fastrnn")
        hypothesis.settings.register_profile("mutants", base, derandomize=True, phases=phases)
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that are asked for."""
        if self._only is not None:
            items[:] = [item for item in items if item.nodeid.startswith(tuple(self._only))]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Start the clocks, whose signals kill."""
        self._note.write_text(nodeid)
        signal.setitimer(signal.ITIMER_PROF, HANGS[0])
        signal.alarm(HANGS[1])


class Checkout:
    """A copy of the tree in which mutants are built and tested, one after the other."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".git", "build", "*.so", "shared")
        )
        compiler = folder / "cc"
        fastest = "clang" if shutil.which("clang") else "cc"
        compiler.write_text(f'#!/bin/sh\nexec {fastest} "$@" -O0 -g0 -w\n')
        compiler.chmod(0o755)
        os.environ |= {
            "CC": str(compiler), "FASTRNN_DEBUG": "1", "FASTRNN_BUILD_EXT": "yes",
            "FASTRNN_VARIANTS": backend, "FASTRNN_BACKEND": backend, "PYTHONPATH": str(folder),
            "OPENBLAS_NUM_THREADS": "1", "CI": "1",
        }  # fmt: skip
        self.by = ""  # the test that failed
        self._changed = set(SOURCES)  # modules that don't hold the original code
        self._translated: set[str] = set()  # sources whose C is that of the original Cython

    def build(self, modules: set[str], quiet: bool = True) -> bool:
        """Build modules from today's sources; return whether they compile."""
        for module in modules:
            for path in self.folder.rglob(f"*{module}.*.so"):
                path.unlink()
        sources = {SOURCES[module] for module in modules}
        code = forked(lambda: build(modules, sources - self._translated), self.folder, quiet)
        self._translated |= sources
        return code == 0

    def test(
        self, tests: list[str], options: list[str], quiet: bool = True, only: set[str] | None = None
    ) -> str:
        """Run tests until one fails; return how it did, and which, or "survived"."""
        note = self.folder / "note"
        note.write_text("tests/test_cells.py")  # if it fails before its first test
        # Rewritten assertions would only explain more, and slower.
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain"]
        parts = [name.partition("::") for name in tests]
        arguments += [*options, *(f"tests/test_{file}.py{sep}{one}" for file, sep, one in parts)]
        code = forked(lambda: pytest.main(arguments, [Watch(note, only)]), self.folder, quiet)
        self.by = "" if code == 0 else note.read_text()
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return "hang"
        return {0: "survived", 1: "test failed"}.get(code, "error" if code > 0 else "crash")

    def outcome(
        self, mutant: Mutant, quick: bool, tests: list[str] | None = None, quiet: bool = True
    ) -> str:
        """Return what happens to a mutant in `tests`, by default all or, at first, the nearest."""
        modules = set(of_file(MODULES, mutant.file).split()) if quick else set(SOURCES)
        self._restore(except_for=modules)
        self.by = ""
        source = self.folder / "src_pyx" / mutant.file
        original = source.read_text()
        mutant.apply(source)
        if source.suffix != ".h":
            self._translated -= {SOURCES[module] for module in modules}
        try:
            self._changed = modules
            if not self.build(modules, quiet):
                return "does not compile"
            nearest = of_file(NEAREST, mutant.file).split()
            if not quick:
                others = [name for name in TESTS if name not in nearest]
                return self.test(tests or nearest + others, [], quiet)
            options = ["-k", "not float64"] if "float32" in modules else []
            return self.test(tests or nearest, options, quiet)
        finally:
            source.write_text(original)
            if source.suffix != ".h":
                self._translated -= {SOURCES[module] for module in modules}

    def passes_unchanged(self, nodes: set[str]) -> bool:
        """Return whether tests that failed do so because of the mutants alone."""
        self._restore(except_for=set())
        paths = sorted({node.partition("::")[0] for node in nodes})
        names = [path.removeprefix("tests/test_").removesuffix(".py") for path in paths]
        return self.test(names, [], only=nodes) == "survived"

    def _restore(self, except_for: set[str]) -> None:
        """Build the original modules in place of changed ones."""
        if self._changed - except_for and not self.build(self._changed - except_for):
            raise SystemExit("mutants: the unchanged kernels don't compile")
        self._changed = self._changed & except_for


def build(modules: set[str], changed: set[str]) -> int:
    """Build modules of the checkout that is the current directory; translate changed sources."""
    cythonize, setup = Cython.Build.cythonize, setuptools.setup

    def translate(extensions: list[Any], build_dir: str, **options: Any) -> list[Any]:
        (extension,) = extensions
        source = Path(extension.sources[0])
        made = Path(build_dir) / source.with_suffix(".c")
        if source.stem in changed or not made.exists():
            return list(cythonize(extensions, build_dir=build_dir, **options))
        return [setuptools.Extension(extension.name, [str(made)])]

    def only_wanted(ext_modules: list[Any], **options: Any) -> None:
        kept = [e for e in ext_modules if e.name.endswith(tuple(modules))]
        setup(ext_modules=kept, **options)

    Cython.Build.cythonize, setuptools.setup = translate, only_wanted
    sys.argv = ["setup.py", "-q", "build_ext", "--inplace", "--parallel", "1"]
    runpy.run_path("setup.py")
    return 0


def run(chosen: list[Mutant], given: argparse.Namespace) -> list[tuple[Mutant, str]]:
    """Return the outcomes of the first mutants that compile, and print them."""
    known: dict[Mutant, list[str]] = {}
    if given.json and given.json.exists():
        for told in json.loads(given.json.read_text()):
            end = [told.pop("outcome"), told.pop("by")]
            known[Mutant(**told)] = end

    def keep(mutant: Mutant, checkout: Checkout, quick: bool) -> None:
        outcome = checkout.outcome(mutant, quick)
        known[mutant] = [OPEN if quick and outcome == "survived" else outcome, checkout.by]
        print(f"{len(known):>4} {known[mutant][0]:16} {mutant}", flush=True)
        if given.json:
            told = [asdict(m) | {"outcome": o, "by": by} for m, (o, by) in known.items()]
            given.json.write_text(json.dumps(told, indent=1))

    def of_chosen() -> list[tuple[Mutant, str]]:
        ends = [(m, known[m][0]) for m in chosen if m in known]
        return [end for end in ends if end[1] != "does not compile"][: given.count]

    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder) / "0", given.backend)
        for mutant in chosen:
            if len(of_chosen()) == given.count:
                break
            if mutant not in known:
                keep(mutant, checkout, quick=True)
        for mutant, outcome in of_chosen():
            if outcome == OPEN and not given.quick:
                keep(mutant, checkout, quick=False)
        if not checkout.passes_unchanged({known[m][1] for m, _ in of_chosen()} - {""}):
            raise SystemExit(f"mutants: {checkout.by} fails without any change")
    return of_chosen()


def main() -> None:
    """Print the outcome of each mutant, and those that survive."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", default="*", help="pattern of files in src_pyx/")
    parser.add_argument("--backend", default="avx2", help="avx512 for code that only it has")
    parser.add_argument("--quick", action="store_true", help="no second look at survivors")
    parser.add_argument("--only", help="FILE:LINE:COLUMN,... of some")
    parser.add_argument("--tests", help="with --only: NAME,NAME::TEST of tests/test_NAME.py")
    parser.add_argument("--json", type=Path, help="keep the outcomes in this file")
    given = parser.parse_args()
    chosen = mutants(given.file)
    if given.only:
        tests = given.tests.split(",") if given.tests else None
        places = {f"{m.file}:{m.line}:{m.column}": m for m in chosen}
        with tempfile.TemporaryDirectory() as folder:
            checkout = Checkout(Path(folder) / "0", given.backend)
            for place in given.only.split(","):
                outcome = checkout.outcome(places[place], given.quick, tests, quiet=False)
                print(outcome, checkout.by, places[place], flush=True)
        return
    random.Random(given.seed).shuffle(chosen)
    results = run(chosen, given)
    for outcome, count in Counter(outcome for _, outcome in results).most_common():
        print(f"{outcome:16} {count}")
    for mutant, outcome in sorted(results, key=lambda r: (r[0].file, r[0].line)):
        if outcome in ("survived", OPEN):
            print(mutant)


if __name__ == "__main__":
    main()
