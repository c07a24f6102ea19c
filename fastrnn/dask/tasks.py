"""What the tasks of a Dask worker share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastrnn._core import config


def dask_module(name: str) -> Any:
    """Return a module of Dask; raise if it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"fastrnn.dask needs the package dask: pip install 'fastrnn[dask]' ({error})"
        ) from error


_lock = threading.Lock()
_running, _before = 0, 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Let kernels use one thread while any task runs: a worker has as many tasks as CPUs."""
    global _running, _before
    with _lock:
        if not _running:
            _before = config.get_num_threads()
            config.set_num_threads(1)
        _running += 1
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                config.set_num_threads(_before)
