"""HDF5 files, read in a process of its own: the library may crash on damaged ones.

This file is what that process runs, and so it imports nothing of the package.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np

#: Keras packs nothing; others may, and what is packed is at most this many times as large, plus
#: a few bytes to spare.
PACKED, SPARE = 64, 1 << 26
#: Groups and arrays, as often as they are found: links of a group to itself make endless paths.
_MOST = 1 << 13
#: Seconds that reading may take, and bytes for each of which there is one more.
_SECONDS, _BYTES_PER_SECOND = 60, 1 << 22
#: Seconds of CPU time, likewise, where that can be limited.
_CPU_SECONDS = 2
#: The attributes that are read; weight_names is split where it is too long for one.
_ATTRIBUTES = ("model_config", "keras_version", "weight_names")
#: What is left out: states of optimizers.
_LEFT_OUT = ("optimizer", "optimizer_weights")
#: Groups in groups, at most: far more than models in models make.
_DEPTH = 40
#: The exit status of a process that refuses a file, and says why.
_REFUSED = 3


def read(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return what :func:`contents` does, from another process.

    Raises
    ------
    ValueError
        If the file is damaged, or refers to others.
    ImportError
        If h5py is not installed.
    """
    if find_spec("h5py") is None:
        raise ImportError("fastrnn.keras.load needs h5py: pip install 'fastrnn[keras]'")
    if "python" not in os.path.basename(sys.executable or "").lower():
        return contents(data)  # embedded in a program that can't run this file
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__],
            input=data,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
            timeout=_SECONDS + len(data) / _BYTES_PER_SECOND,
        )
    except subprocess.TimeoutExpired:
        raise ValueError("is damaged: reading its HDF5 does not end") from None
    if done.returncode == _REFUSED:
        raise ValueError(done.stderr.decode())
    if done.returncode:
        raise ValueError(f"is damaged: reading its HDF5 ended with status {done.returncode}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as arrays:
        return dict(arrays)


def contents(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Return all arrays of an HDF5 file by their paths, and texts in attributes by path@name."""
    import h5py

    with h5py.File(io.BytesIO(data), "r") as file:
        return dict(_Walk(SPARE + PACKED * len(data)).of(file, "", _DEPTH))


class _Walk:
    """Goes through the groups of a file, up to bounds for all that is found."""

    def __init__(self, most_bytes: int) -> None:
        self._members, self._bytes = _MOST, most_bytes

    def of(self, group: Any, path: str, depth: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield what :func:`contents` returns, of a group."""
        import h5py

        if not depth:
            raise ValueError("is damaged: expected groups in groups to end")
        for name in group.attrs:
            if name.rstrip("0123456789") in _ATTRIBUTES:
                texts = np.ravel(np.asarray(group.attrs[name], object)).tolist()
                given = [t.decode() if isinstance(t, bytes) else str(t) for t in texts]
                yield f"{path}@{name}", np.array(given, np.str_)
        for name in group:
            if not path and name in _LEFT_OUT:
                continue
            inner = f"{path}/{name}".removeprefix("/").replace("\\", "/")  # Keras 2.12 on Windows
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"is damaged: expected {inner} itself, got a link")
            self._members -= 1
            if self._members < 0:
                raise ValueError(f"is damaged: expected {_MOST} groups and arrays or less")
            member = group[name]
            if isinstance(member, h5py.Group):
                yield from self.of(member, inner, depth - 1)
            elif isinstance(member, h5py.Dataset):
                yield inner, self._array(member, inner)

    def _array(self, dataset: Any, path: str) -> np.ndarray[Any, Any]:
        """Return the numbers of a dataset, if the file itself holds them."""
        if dataset.is_virtual or dataset.external:
            raise ValueError(
                f"is damaged: expected the numbers of {path}, got where others have them"
            )
        claimed, stored = dataset.nbytes, dataset.id.get_storage_size()
        self._bytes -= claimed
        if self._bytes < 0 or (claimed > stored and dataset.chunks is None):
            raise ValueError(f"is damaged: {path} claims {claimed} bytes, the file has {stored}")
        values: np.ndarray[Any, Any] = np.asarray(dataset[()])
        if values.dtype.kind == "V" and values.dtype.itemsize == 2:  # bfloat16, half of a float32
            return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"is damaged: expected real numbers at {path}, got {values.dtype}")
        return values


def _main() -> None:
    data = sys.stdin.buffer.read()
    with suppress(ImportError):  # elsewhere, there is the other limit
        import resource

        seconds = _CPU_SECONDS + len(data) // _BYTES_PER_SECOND
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        arrays = contents(data)
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else f"is damaged: {error}"
        sys.stderr.write(said)
        sys.exit(_REFUSED)
    np.savez(sys.stdout.buffer, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    _main()
