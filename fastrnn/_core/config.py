"""Version, backend, CPU features and number of threads."""

from __future__ import annotations

import os

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch, extensions
from fastrnn._version import __version__

#: The kernels count threads in a C int.
_MOST_THREADS = 2**31 - 1

#: Where Linux publishes the limits of control groups.
_CONTROL_GROUP = "/sys/fs/cgroup"


def _initial_threads() -> int:
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return available_cpus()
    try:
        return _checks.size(int(text), "FASTRNN_NUM_THREADS", most=_MOST_THREADS)
    except ValueError:
        raise ValueError(
            f"FASTRNN_NUM_THREADS: expected a whole number in 1..{_MOST_THREADS}, got {text!r}"
        ) from None


def available_cpus() -> int:
    """Return the number of CPUs this process may use, by affinity and control group quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min(cpus, _quota(cpus)))


def _quota(default: int) -> int:
    """Return the control group's quota in whole CPUs (cgroup v2: cpu.max; v1: cpu.cfs_*)."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join(map(_read, names)).split()
            return int(quota) // int(period) if int(quota) > 0 else default
        except (OSError, ValueError):
            continue  # no such file, or "max", which means no quota
    return default


def _read(name: str) -> str:
    """Return the text of a control group's file."""
    with open(os.path.join(_CONTROL_GROUP, name), encoding="utf-8") as file:
        return file.read()


_num_threads = _initial_threads()
dispatch.set_num_threads(_num_threads)


def get_num_threads() -> int:
    """Return the maximum number of threads that a call uses."""
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads that a call uses.

    Parameters
    ----------
    n : int
        At least 1.
    """
    global _num_threads
    _num_threads = _checks.size(n, "n", most=_MOST_THREADS)
    dispatch.set_num_threads(_num_threads)


def config() -> dict[str, str]:
    """Return the names and values that :func:`show_config` prints."""
    return {
        "fastrnn": __version__,
        "numpy": np.__version__,
        "backend": dispatch.backend(),
        "backends": ", ".join(dispatch.backends()),
        "CPU features": ", ".join(dispatch.cpu_features()) or "unknown (no compiled kernels)",
        "extensions": ", ".join(extensions.USED) or "none",
        "threads": str(get_num_threads()),
    }


def show_config() -> None:
    """Print version, backend, CPU features and threads."""
    for name, value in config().items():
        print(f"{name + ':':14}{value}")
