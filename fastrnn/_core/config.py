"""Version, backend, CPU features and number of threads."""

from __future__ import annotations

import math
import os

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch, extensions
from fastrnn._version import __version__

#: The kernels count threads in a C int.
_MOST_THREADS = 2**31 - 1

#: Where Linux publishes the limits of control groups.
_CONTROL_GROUP = "/sys/fs/cgroup"

#: Where it says to which of them the process belongs.
_OWN_GROUPS = "/proc/self/cgroup"

#: Set by launchers of MPI: MPICH and Intel MPI, Open MPI, MVAPICH.
_LOCAL_RANKS = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")


def _initial_threads() -> int:
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return _threads_of_openmp() or max(1, available_cpus() // _ranks_here())
    try:
        return _checks.size(int(text), "FASTRNN_NUM_THREADS", most=_MOST_THREADS)
    except ValueError:
        raise ValueError(
            f"FASTRNN_NUM_THREADS: expected a whole number in 1..{_MOST_THREADS}, got {text!r}"
        ) from None


def _threads_of_openmp() -> int | None:
    """Return OMP_NUM_THREADS, by which joblib and Dask limit their workers too; None without."""
    # "4,2" has the numbers of nested levels (OpenMP 5.2, 21.1.2); other values are for OpenMP.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not (first.isascii() and first.isdecimal()):
        return None
    number = int(first)
    return number if 1 <= number <= _MOST_THREADS else None


def _ranks_here() -> int:
    """Return the number of MPI processes on this machine that share its CPUs."""
    has_affinity = hasattr(os, "sched_getaffinity")
    if has_affinity and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        return 1  # the launcher has given each its own
    counts = (os.environ.get(name, "") for name in _LOCAL_RANKS)
    return next((int(n) for n in counts if n.isascii() and n.isdecimal() and int(n)), 1)


def available_cpus() -> int:
    """Return the number of CPUs this process may use, by affinity and control group quota."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, int(min([cpus, *map(_quota, _control_groups())])))


def _control_groups() -> list[list[str]]:
    """Return the files with the quota of each control group that holds this process."""
    try:
        lines = _read(_OWN_GROUPS).splitlines()
    except OSError:
        lines = []
    found: list[list[str]] = []
    for line in ["0::/", ":cpu:/", *lines]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = f"{_CONTROL_GROUP}/cpu" if controllers else _CONTROL_GROUP
        names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
        parts = path.strip("/").split("/")
        groups = [os.path.join(root, *parts[:n]) for n in range(len(parts) + 1)]
        found += [[os.path.join(group, name) for name in names] for group in groups]
    return found


def _quota(files: list[str]) -> float:
    """Return a quota in whole CPUs (cgroup v2: cpu.max; v1: cpu.cfs_*); infinity without one."""
    try:
        quota, period = " ".join(map(_read, files)).split()
        return int(quota) // int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf  # no such file, or "max", which means no quota


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


_num_threads = _initial_threads()
dispatch.set_num_threads(_num_threads)


def get_num_threads() -> int:
    """Return the maximum number of threads that a call uses.

    Returns
    -------
    int
        As :func:`set_num_threads` set it. Before that, FASTRNN_NUM_THREADS, else OMP_NUM_THREADS,
        else the number of CPUs that this process may use.

    Examples
    --------
    >>> fastrnn.get_num_threads() >= 1
    True
    """
    return _num_threads


def set_num_threads(n: int) -> None:
    """Set the maximum number of threads that a call uses.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError, TypeError
        If it is not a whole number of at least 1.

    Examples
    --------
    >>> before = fastrnn.get_num_threads()
    >>> fastrnn.set_num_threads(1)
    >>> fastrnn.get_num_threads()
    1
    >>> fastrnn.set_num_threads(before)
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
    """Print version, backend, CPU features and threads.

    Examples
    --------
    >>> fastrnn.show_config()
    fastrnn:...
    numpy:...
    backend:...
    threads:...
    """
    for name, value in config().items():
        print(f"{name + ':':14}{value}")
