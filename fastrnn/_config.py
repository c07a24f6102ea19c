"""Version, backend, CPU and threads: what runs here."""

from __future__ import annotations

import os

import numpy as np

from fastrnn import _checks, _dispatch
from fastrnn._version import __version__


def _initial_threads() -> int:
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return available_cpus()
    try:
        return _checks.size(int(text), "FASTRNN_NUM_THREADS")
    except ValueError:
        raise ValueError(
            f"FASTRNN_NUM_THREADS: expected a whole number of at least 1, got {text!r}"
        ) from None


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_num_threads = _initial_threads()


def get_num_threads() -> int:
    """How many threads a call may use at most. The kernels of this version use one."""
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use at most.

    Parameters
    ----------
    n : int
        At least 1.
    """
    global _num_threads
    _num_threads = _checks.size(n, "n")


def config() -> dict[str, str]:
    """What :func:`show_config` prints, as names and values."""
    return {
        "fastrnn": __version__,
        "numpy": np.__version__,
        "backend": _dispatch.backend(),
        "backends": ", ".join(_dispatch.backends()),
        "CPU features": ", ".join(_dispatch.cpu_features()) or "unknown (no compiled kernels)",
        "threads": str(get_num_threads()),
    }


def show_config() -> None:
    """Print version, backend, CPU features and threads."""
    for name, value in config().items():
        print(f"{name + ':':14}{value}")
