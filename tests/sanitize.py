"""Tests of the kernels and fuzzers under AddressSanitizer and UndefinedBehaviorSanitizer.

python tests/sanitize.py [--quick] [--variants avx2,...] [--actions N] [--keep FOLDER]
python tests/sanitize.py --threads [--seconds N] ...

Builds the extensions in a temporary folder, with the checks of FASTRNN_DEBUG and both sanitizers,
and runs there

- the kernels' tests and the fuzzers, with arrays from malloc, where AddressSanitizer sees every
  byte out of bounds and every use after free;
- the kernels' tests once more with every array of NumPy before, then after, an unreadable page,
  which vector instructions cannot pass over either.

Anything found ends the run with its report. Needs GCC, and the packages of the tests. --quick: the
part of it that CI runs, on one instruction set.

--threads: ThreadSanitizer instead, under which threads share everything (stress_threads.py). Python
and NumPy are not built with it, but it sees their locks, the GIL among them, so that nothing needs
to be suppressed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZE = ("-fsanitize=address,undefined", "-fsanitize=float-cast-overflow",
            "-fno-sanitize-recover=all")  # fmt: skip
RACES = ("-fsanitize=thread",)
#: Python and NumPy keep memory to the end; huge allocations must fail as they do elsewhere.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONMALLOC": "malloc",
    "OPENBLAS_NUM_THREADS": "1",
}
QUICK = ("kernel_arguments", "kernel_walls")
TESTS = (*QUICK, "arguments", "backends", "batches", "cell_activations", "cells", "direct_calls",
         "embedding_linear_dropout", "empty", "equal_bits", "gradients", "initial_states",
         "layer_walls", "losses", "matmul_precision", "normalization", "numerics", "one_answer",
         "optim", "quantize", "row_layers", "single_steps", "stacks", "streams", "threads",
         "twins")  # fmt: skip


def run(command: Sequence[str], folder: Path, **environment: str) -> None:
    """Run a command in the folder; end if it fails."""
    began = time.monotonic()
    shown = " ".join(f"{name}={value}" for name, value in environment.items() if name[0] == "F")
    print(f"== {shown} {' '.join(command)}", flush=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FASTRNN_")}
    done = subprocess.run(command, cwd=folder, env=inherited | environment, check=False)
    print(f"== {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        sys.exit(f"sanitize: failed with {done.returncode}: {shown} {' '.join(command)}")


def build(folder: Path, variants: str, sanitizers: Sequence[str]) -> None:
    """Copy the sources, and build them with sanitizers."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ours = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    for name in ("src_pyx", "fastrnn", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ours)
    flags = " ".join(sanitizers)
    more = {"FASTRNN_VARIANTS": variants} if variants else {}
    run(
        (sys.executable, "setup.py", "-q", "build_ext", "--inplace"), folder,
        FASTRNN_DEBUG="1", FASTRNN_BUILD_EXT="yes", CFLAGS=flags, LDFLAGS=flags, **more,
    )  # fmt: skip


def sanitized() -> dict[str, str]:
    """Return the environment in which sanitized modules can be loaded."""
    libraries = [
        subprocess.run(["gcc", f"-print-file-name={n}"], capture_output=True, text=True, check=True)
        for n in ("libasan.so", "libubsan.so")
    ]
    return OPTIONS | {"LD_PRELOAD": ":".join(done.stdout.strip() for done in libraries)}


def find_races(folder: Path, seconds: float, backends: Sequence[str]) -> None:
    """Let threads share everything under ThreadSanitizer."""
    library = subprocess.run(
        ["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        "LD_PRELOAD": library, "TSAN_OPTIONS": "halt_on_error=1:history_size=4:exitcode=66",
        "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(folder),
    }  # fmt: skip
    for backend in backends:
        # Without random addresses, which collide with those that ThreadSanitizer reserves.
        python = ("setarch", "-R", sys.executable, "tests/stress_threads.py")
        options = (f"--seconds={seconds}", f"--backend={backend}")
        run((*python, *options), folder, **environment)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the part that CI runs")
    parser.add_argument("--variants", default="", help="instruction sets, by commas; default: all")
    parser.add_argument("--actions", type=int, default=50_000, help="of each fuzzer and backend")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzers")
    parser.add_argument("--threads", action="store_true", help="ThreadSanitizer")
    parser.add_argument("--seconds", type=float, default=60, help="of threads on each backend")
    parser.add_argument("--keep", help="the folder of the build, used again if it exists")
    args = parser.parse_args()
    variants = args.variants or ("avx2" if args.quick else "")
    actions = min(args.actions, 500) if args.quick else args.actions
    with tempfile.TemporaryDirectory(prefix="sanitize") as temporary:
        folder = Path(args.keep or temporary).resolve()
        if not (folder / "setup.py").exists():
            folder.mkdir(exist_ok=True)
            build(folder, variants, RACES if args.threads else SANITIZE)
        if args.threads:
            find_races(folder, args.seconds, (variants or "baseline,avx2,avx512").split(","))
            print("sanitize: no races")
            return
        tests = [f"tests/test_{name}.py" for name in (QUICK if args.quick else TESTS)]
        # A report goes to the file stderr, and ends the process: pytest must not capture it.
        pytest = (sys.executable, "-m", "pytest", "-qx", "--capture=sys", "-p", "no:cacheprovider")
        environment = sanitized() | {"PYTHONPATH": os.pathsep.join([str(folder), "tests"])}
        listed = "import fastrnn; print(*fastrnn.backends()[:-1])"
        backends = subprocess.run(
            [sys.executable, "-c", listed], cwd=folder, env=os.environ | environment, check=True,
            capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        for place in ("malloc",) if args.quick else ("malloc", "end", "start"):
            run((*pytest, "-p", "guards", *tests), folder, **environment, FASTRNN_GUARDS=place)
        for backend in backends:
            options = (f"--seed={args.seed}", f"--backend={backend}")
            for fuzzer, count in (("fuzz_walls", "actions"), ("fuzz_entries", "calls")):
                command = (sys.executable, f"tests/{fuzzer}.py", f"--{count}={actions}", *options)
                run(command, folder, **environment)
    print("sanitize: nothing found")


if __name__ == "__main__":
    main()
