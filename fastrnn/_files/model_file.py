"""Model files: safetensors with metadata that describe the model; no code.

The metadata hold ``format``, ``version``, ``kind`` (a class), ``model`` (a description, as
JSON) and ``crc32``, a checksum over kind, model, and names, dtypes, shapes and bytes of tensors.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic, reading, tensor_file
from fastrnn._types import Array

FORMAT, VERSION = "fastrnn", "1"

#: What descriptions raise that are not those of a model, though their checksum is right.
MISFITS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def write(
    path: str | os.PathLike[str], kind: str, model: Mapping[str, Any], tensors: Mapping[str, Array]
) -> None:
    """Write a model file, atomically."""
    import json

    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors.items()}
    text = json.dumps(model, default=_plain)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "model": text,
        "crc32": checksum(kind, text, contiguous),
    }
    data = tensor_file.written(contiguous, metadata)
    if (
        len(tensors) > tensor_file.MOST_TENSORS
        or reading.items(text) > reading.MOST_ITEMS
        or int.from_bytes(data[:8], "little") > tensor_file.MOST_HEADER
    ):
        raise ValueError(f"{os.fspath(path)}: the model has more parts than a file may have")
    atomic.write(path, data)


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number."""
    if not isinstance(value, np.generic):
        raise TypeError(f"expected a JSON type, got {type(value).__name__}")
    return value.item()


def read(path: str | os.PathLike[str]) -> tuple[str, Any, dict[str, Array]]:
    """Return kind, model and tensors of a file that :func:`write` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, is not a model, or has an unknown version.
    OSError
        If the file does not exist or can't be read.
    """
    where = _checks.path(path)
    with reading.opened(path) as file:
        try:
            head = tensor_file.header(file)
        except ValueError as error:
            raise ValueError(f"{where}: {_what_else(file, error)}") from None
        if head.metadata.get("format") != FORMAT:
            from fastrnn._files import others

            raise ValueError(f"{where}: {others.safetensors(head)}")
        version, kind, text = map(head.metadata.get, ("version", "kind", "model"))
        if version != VERSION:
            raise ValueError(f"{where}: expected format version {VERSION}, got {version!r}")
        try:
            tensors = tensor_file.read(file, head)
            if head.metadata.get("crc32") != checksum(kind or "", text or "", tensors):
                raise ValueError("the checksum differs")
            return kind or "", reading.from_json(text or ""), tensors
        except ValueError as error:
            raise ValueError(f"{where}: is damaged: {error}") from None


def _what_else(file: BinaryIO, error: Exception) -> str:
    """Return what a file is that is none of safetensors, and what reads it."""
    # Imported when it is needed: import fastrnn is to stay light.
    from fastrnn._files import others

    file.seek(8)
    own = file.read(1) == b"{"  # a header of safetensors
    found = None if own else others.described(file)
    return found or f"is not a safetensors file, or damaged: {error}"


def build(path: str | os.PathLike[str], cls: Any, model: Any, tensors: dict[str, Array]) -> Any:
    """Return what ``cls._from_file`` returns; errors name the file."""
    try:
        return cls._from_file(model, tensors)
    except MISFITS as error:
        raise ValueError(f"{os.fspath(path)}: is damaged: {error}") from None


def checksum(kind: str, model: str, tensors: Mapping[str, Array]) -> str:
    """Return a checksum that detects damage, not tampering."""
    crc = zlib.crc32(f"{kind}\n{model}".encode())
    for name in sorted(tensors):
        a = tensors[name]
        crc = zlib.crc32(f"\n{name} {a.dtype.str} {a.shape}".encode(), crc)
        crc = zlib.crc32(a.data, crc)
    return f"{crc:08x}"


class Model:
    """A model that can be saved to a file.

    Subclasses define ``save``, and ``_from_file``, its inverse.
    """

    #: What files call it. Default: the name of its class.
    _KIND: ClassVar[str] = ""

    @classmethod
    def _from_file(cls, model: Any, tensors: dict[str, Array]) -> Self:
        """Return the model, given what ``save`` passed to :func:`write`."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the model that :meth:`save` wrote to `path`.

        Raises
        ------
        ValueError
            If the file is damaged, is not a model, or has an unknown version.
        OSError
            If the file does not exist or can't be read.
        """
        kind, model, tensors = read(path)
        own = cls._KIND or cls.__name__
        if kind != own:
            raise ValueError(f"{os.fspath(path)}: is not a {own} but a {kind}")
        loaded: Self = build(path, cls, model, tensors)
        return loaded
