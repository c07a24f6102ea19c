"""Model files: safetensors with metadata that describe the model; no code.

The metadata hold ``format``, ``version``, ``kind`` (a class), ``model`` (a description, as
JSON) and ``crc32``, a checksum over kind, model, and names, dtypes, shapes and bytes of tensors.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn._types import Array

FORMAT, VERSION = "fastrnn", "1"


def write(
    path: str | os.PathLike[str], kind: str, model: Mapping[str, Any], tensors: Mapping[str, Array]
) -> None:
    """Write a model file, atomically."""
    import json

    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in tensors.items()}
    text = json.dumps(model, default=_plain)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "model": text,
        "crc32": checksum(kind, text, contiguous),
    }
    atomic.write(path, save(contiguous, metadata))


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
    import json

    from safetensors import SafetensorError
    from safetensors.numpy import load

    where = _checks.path(path)
    with open(where, "rb") as file:
        data = file.read()
    try:
        tensors = load(data)
        # safetensors has validated the header, but returns only the tensors.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: {_what_else(data, error)}") from None
    metadata = header.get("__metadata__", {})
    if metadata.get("format") != FORMAT:
        from fastrnn._files import others

        raise ValueError(f"{where}: {others.weights('safetensors.numpy.load_file(path)')}")
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{where}: expected format version {VERSION}, got {metadata.get('version')!r}"
        )
    kind, text = metadata.get("kind", ""), metadata.get("model", "")
    if metadata.get("crc32") != checksum(kind, text, tensors):
        raise ValueError(f"{where}: is damaged: the checksum differs")
    try:
        return kind, json.loads(text), tensors
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: is damaged: {error}") from None


def _what_else(data: bytes, error: Exception) -> str:
    """Return what a file is that safetensors can't read as arrays, and what reads it."""
    # Imported when it is needed: import fastrnn is to stay light.
    from fastrnn._files import others

    if isinstance(error, KeyError) and error.args[0] in ("BF16", "F8_E4M3", "F8_E5M2"):
        return others.weights("safetensors.torch.load_file(path)")
    own = data[8:9] == b"{"  # a header of safetensors
    found = None if own else others.described(data)
    return found or f"is not a safetensors file, or damaged: {error}"


def build(path: str | os.PathLike[str], cls: Any, model: Any, tensors: dict[str, Array]) -> Any:
    """Return what ``cls._from_file`` returns; errors name the file."""
    try:
        return cls._from_file(model, tensors)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
