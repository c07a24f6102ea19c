"""Safetensors: nothing is allocated that a file to be read does not hold.

The format: github.com/huggingface/safetensors#format. Eight bytes, the size of the header; the
header, JSON with dtype, shape and place of each tensor; then the tensors, one right after another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastrnn._files import reading
from fastrnn._types import Array

#: The names of dtypes that NumPy has, too; in a file, all are little-endian.
DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?"},
    **{f"{kind}{8 * n}": f"<{kind.lower()}{n}" for kind in "IU" for n in (1, 2, 4, 8)},
}

#: Bytes of a header: as in ``safetensors::tensor::MAX_HEADER_SIZE``.
MOST_HEADER = 100_000_000
#: Tensors in a file: far more than a model or its training has.
MOST_TENSORS = 1 << 17
#: Axes that an array can have in any version of NumPy that is supported.
_MOST_AXES = 32


class Header(NamedTuple):
    """What a file says about its tensors.

    Attributes
    ----------
    metadata : dict of str to str
    tensors : dict of str to a description
        As they stand in the file, not checked.
    start : int
        Where the tensors begin.
    """

    metadata: dict[str, str]
    tensors: dict[str, Any]
    start: int


def written(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return a file with these tensors.

    Unlike that of safetensors, which aborts the process, it raises a MemoryError if there is too
    little memory.
    """
    import json

    codes = {np.dtype(of): code for code, of in DTYPES.items()}
    # As in others' files: the widest numbers first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    head: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[Any] = []
    place = 0
    for name in order:
        array = tensors[name]
        dtype = array.dtype.newbyteorder("<")
        if dtype not in codes:
            raise TypeError(f"{name}: expected a dtype of {', '.join(DTYPES)}, got {dtype}")
        part = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
        spec = {"dtype": codes[dtype], "shape": [*array.shape]}
        head[name] = spec | {"data_offsets": [place, place + part.size]}
        place += part.size
        parts.append(part.data)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def header(file: BinaryIO) -> Header:
    """Return the header of a file.

    Raises
    ------
    ValueError
        If there is none, or if it is damaged.
    """
    size = reading.size(file)
    n = int.from_bytes(file.read(8), "little")
    if n > size - 8:
        raise ValueError(f"its header claims {n} bytes, the file has {size}")
    if n > MOST_HEADER:
        raise ValueError(f"its header has {n} bytes, expected {MOST_HEADER} or less")
    text = file.read(n).decode()
    if not text.startswith("{"):
        raise ValueError("expected a header that starts with {")
    found = reading.from_json(text)
    metadata = found.pop("__metadata__", {})
    if len(found) > MOST_TENSORS:
        raise ValueError(f"expected {MOST_TENSORS} tensors or less, got {len(found)}")
    if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
        raise ValueError("__metadata__: expected an object of strings")
    return Header(metadata, found, 8 + n)


def read(file: BinaryIO, head: Header) -> dict[str, Array]:
    """Return the tensors of a file; raise ValueError if it is damaged."""
    specs = {name: _spec(name, given) for name, given in head.tensors.items()}
    specs = dict(sorted(specs.items(), key=lambda item: item[1].place))
    place = 0
    for name, spec in specs.items():
        if spec.place != (place, place + spec.size):
            raise ValueError(
                f"{name}: expected the {spec.size} bytes at {place}, right "
                f"after those of the tensor before, got {list(spec.place)}"
            )
        place += spec.size
    held = reading.size(file) - head.start
    if place != held:
        raise ValueError(f"its tensors have {place} bytes, the file has {held} for them")
    file.seek(head.start)
    return {name: _array(file, name, spec) for name, spec in specs.items()}


class _Spec(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    place: tuple[int, int]
    size: int


def _spec(name: str, given: Any) -> _Spec:
    """Return a tensor's dtype, shape, place after the header, and size in bytes."""
    if not isinstance(given, Mapping) or given.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: expected its dtype, shape and data_offsets")
    dtype, shape, place = given["dtype"], given["shape"], given["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name}: expected a dtype of {', '.join(DTYPES)}, got {dtype!r}")
    kind = np.dtype(DTYPES[dtype])
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"{name}: expected a shape of sizes, got {shape!r}")
    # NumPy multiplies the sizes of empty arrays, too.
    if math.prod(max(n, 1) for n in shape) * kind.itemsize > sys.maxsize:
        raise ValueError(f"{name}: expected a shape that fits into memory, got {shape!r}")
    if not _are_sizes(place) or len(place) != 2:
        raise ValueError(f"{name}: expected data_offsets [begin, end], got {place!r}")
    return _Spec(kind, tuple(shape), tuple(place), math.prod(shape) * kind.itemsize)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _array(file: BinaryIO, name: str, spec: _Spec) -> Array:
    array = np.empty(spec.shape, spec.dtype)
    data = array.reshape(-1).view(np.uint8)
    if file.readinto(data.data) != data.size:  # type: ignore[attr-defined]
        raise ValueError(f"{name}: the file ended while it was read")
    if spec.dtype == bool and data.max(initial=0) > 1:
        raise ValueError(f"{name}: expected booleans of 0 and 1")
    return array
