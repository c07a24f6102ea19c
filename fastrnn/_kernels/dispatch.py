"""Choice of a kernel set: compiled for the best instruction set of this machine, or NumPy.

``FASTRNN_BACKEND`` selects one, which must be available; otherwise the best available is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, cast

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.interface import Kernels

#: Compiled kernel sets, best first; each is one extension module per dtype in ``fastrnn._kernels``.
#: That of int8 is for quantized weights.
COMPILED = ("avx512", "avx2", "neon", "baseline")
#: Those with fused multiply-add, which give the same bits.
FUSED = ("avx512", "avx2", "neon")
REFERENCE = "reference"
DTYPES = ("float32", "float64", "int8")


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def cpu_features() -> tuple[str, ...]:
    """Return the known instruction sets that this CPU and operating system can run."""
    if not _exists("fastrnn._kernels._cpu"):
        return ()
    return tuple(importlib.import_module("fastrnn._kernels._cpu").features())


@cache
def backends() -> tuple[str, ...]:
    """Return the names of the kernel sets that this machine can run, best first.

    Returns
    -------
    tuple of str
        Some of ``"avx512"``, ``"avx2"``, ``"neon"``, ``"baseline"``, and always ``"reference"``.

    Examples
    --------
    >>> fastrnn.backends()[-1]
    'reference'
    """
    features = cpu_features()
    built = (n for n in COMPILED if all(_exists(f"fastrnn._kernels.{n}_{d}") for d in DTYPES))
    return (*(name for name in built if name in features), REFERENCE)


def _checked(name: str, origin: str) -> str:
    if name not in backends():
        known = name in (*COMPILED, REFERENCE)
        reason = "can't run on this machine or was not built" if known else "is not a backend"
        hint = "" if known else _checks.near(name, backends())
        raise ValueError(
            f"{origin}: {name!r} {reason}; expected one of {', '.join(map(repr, backends()))}{hint}"
        )
    return name


def _default() -> str:
    name = os.environ.get("FASTRNN_BACKEND")
    return _checked(name, "FASTRNN_BACKEND") if name else backends()[0]


_current: ContextVar[str] = ContextVar("fastrnn_backend", default=_default())  # noqa: B039 (a str)


def backend() -> str:
    """Return the name of the current kernel set.

    Returns
    -------
    str
        One of :func:`backends`.

    Examples
    --------
    >>> fastrnn.backend() in fastrnn.backends()
    True
    """
    return _current.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the body of a ``with`` on another kernel set.

    The choice is per thread: threads started by the body do not inherit it.

    Parameters
    ----------
    name : str
        One of :func:`backends`.

    Raises
    ------
    ValueError
        If there is no such backend, or this machine can't run it.

    Examples
    --------
    >>> with fastrnn.use_backend("reference"):
    ...     fastrnn.backend()
    'reference'
    """
    token = _current.set(_checked(name, "use_backend"))
    try:
        yield
    finally:
        _current.reset(token)


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads that compiled kernels use."""
    if _exists("fastrnn._kernels._threads"):
        importlib.import_module("fastrnn._kernels._threads").set_num_threads(n)


@cache
def _kernels(name: str, dtype: np.dtype[Any]) -> Kernels:
    if name == REFERENCE:
        # Imported when it is first used, as the compiled ones are.
        of = "reference.int8" if dtype == np.int8 else "reference"
        return cast(Kernels, _checks.imported(f"fastrnn._kernels.{of}"))
    if dtype.name not in DTYPES:  # of an array that was retyped after it was checked
        raise ValueError(f"dtype: expected float32 or float64, got {dtype}")
    return cast(Kernels, _checks.imported(f"fastrnn._kernels.{name}_{dtype.name}"))


def kernels(dtype: np.dtype[Any]) -> Kernels:
    """Return the current kernel set for `dtype`: float32, float64, or int8 for quantized weights.

    The last is a `QuantizedKernels`.
    """
    return _kernels(_current.get(), dtype)
