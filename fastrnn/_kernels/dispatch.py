"""Choose a kernel set, once: compiled for the best instruction set this machine runs, or NumPy.

``FASTRNN_BACKEND`` names one strictly; otherwise the best available is taken.
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

from fastrnn._kernels import reference
from fastrnn._kernels.interface import Kernels

#: Compiled kernel sets, best first; each is one extension module per dtype in ``fastrnn._kernels``.
COMPILED = ("avx512", "avx2", "baseline")
REFERENCE = "reference"
DTYPES = ("float32", "float64")


def _exists(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def cpu_features() -> tuple[str, ...]:
    """Instruction sets among those we know that this CPU and operating system can run."""
    if not _exists("fastrnn._kernels._cpu"):
        return ()
    return tuple(importlib.import_module("fastrnn._kernels._cpu").features())


@cache
def backends() -> tuple[str, ...]:
    """Names of the kernel sets this machine can run, best first.

    Returns
    -------
    tuple of str
        Some of ``"avx512"``, ``"avx2"``, ``"baseline"``, and always ``"reference"``.
    """
    features = cpu_features()
    built = (n for n in COMPILED if all(_exists(f"fastrnn._kernels.{n}_{d}") for d in DTYPES))
    return (*(name for name in built if name in features), REFERENCE)


def _checked(name: str, origin: str) -> str:
    if name not in backends():
        known = name in (*COMPILED, REFERENCE)
        reason = "can't run on this machine or was not built" if known else "is not a backend"
        raise ValueError(
            f"{origin}: {name!r} {reason}; expected one of {', '.join(map(repr, backends()))}"
        )
    return name


def _default() -> str:
    name = os.environ.get("FASTRNN_BACKEND")
    return _checked(name, "FASTRNN_BACKEND") if name else backends()[0]


_current: ContextVar[str] = ContextVar("fastrnn_backend", default=_default())  # noqa: B039 (a str)


def backend() -> str:
    """Name of the kernel set that runs now."""
    return _current.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the body of a ``with`` on another kernel set.

    Threads that the body starts don't follow: each thread has a choice of its own.

    Parameters
    ----------
    name : str
        One of :func:`backends`.

    Raises
    ------
    ValueError
        If there is no such backend, or this machine can't run it.
    """
    token = _current.set(_checked(name, "use_backend"))
    try:
        yield
    finally:
        _current.reset(token)


def set_num_threads(n: int) -> None:
    """How many threads compiled kernels may use at most."""
    if _exists("fastrnn._kernels._threads"):
        importlib.import_module("fastrnn._kernels._threads").set_num_threads(n)


@cache
def _kernels(name: str, dtype: np.dtype[Any]) -> Kernels:
    if name == REFERENCE:
        return reference
    return cast(Kernels, importlib.import_module(f"fastrnn._kernels.{name}_{dtype.name}"))


def kernels(dtype: np.dtype[Any]) -> Kernels:
    """The current kernel set for `dtype` (float32 or float64)."""
    return _kernels(_current.get(), dtype)
