"""The peak speed of this machine's cores, measured by a few lines of C."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from fastrnn._bench.timing import Contender

#: Bytes of the widest vectors of each backend.
WIDTHS = {"avx512": 64, "avx2": 32}
_REALS = {"float32": "float", "float64": "double"}


def compiled(source: str, *flags: str) -> ctypes.CDLL | None:
    """Compile and load a C file of this folder; return None without a compiler.

    Raise a CalledProcessError if the file does not compile.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "compiled.so"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", *flags]
        path = Path(__file__).with_name(source)
        subprocess.run([*command, str(path), "-o", str(target)], check=True)
        return ctypes.CDLL(str(target))


@cache
def _library(width: int, dtype: str) -> ctypes.CDLL | None:
    """Compile and load limits.c."""
    macros = [f"-DWIDTH={width}", f"-DREAL={_REALS[dtype]}"]
    library = compiled("limits.c", "-ffp-contract=fast", *macros)
    if library is not None:
        library.multiply_adds.restype = ctypes.c_double
        library.multiply_adds.argtypes = [ctypes.c_size_t, ctypes.c_double, ctypes.c_double]
        library.loads.restype = ctypes.c_longlong
        library.loads.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    return library


def multiply_adds(width: int, dtype: str) -> tuple[Contender, int] | None:
    """Return a call of multiply-adds in registers, and its number of operations."""
    library = _library(width, dtype)
    if library is None:
        return None
    times = 100_000
    lanes = width // np.dtype(dtype).itemsize
    return Contender(lambda: library.multiply_adds(times, 0.5, 1.0)), 2 * 12 * lanes * times


def loads(width: int, size: int) -> tuple[Contender, int] | None:
    """Return a call that loads a buffer of about `size` bytes repeatedly, and its total bytes."""
    library = _library(width, "float32")
    if library is None:
        return None
    piece = 8 * width
    size = max(piece, size // piece * piece)
    buffer = np.ones(size + width, np.uint8)
    start = buffer.ctypes.data + -buffer.ctypes.data % width
    times = max(1, 20_000_000 // size)

    def call(buffer: np.ndarray = buffer) -> int:
        return library.loads(start, size, times)

    return Contender(call), size * times


def rate(contender: Contender, amount: int, calls: int, threads: int) -> float:
    """Return what a core does per second while `threads` work at once, each for `calls` calls.

    This may be less than one core does alone: cores share power, caches and, on virtual machines,
    more than that.
    """
    begin = threading.Barrier(threads)

    def one(_: int) -> float:
        begin.wait()
        contender.seconds(max(1, calls // 4))
        return amount / contender.seconds(calls)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads))) / threads
