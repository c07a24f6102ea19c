"""Files of other libraries, recognised by what is in them, and what reads each."""

from __future__ import annotations

import sys
import zipfile
from typing import BinaryIO

from fastrnn._files import reading, tensor_file

#: Begins a file of torch.save before torch 1.6: a pickle of a number, 0x1950a86a20f9469cfc6c.
_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Begins an HDF5 file.
HDF5 = b"\x89HDF\r\n\x1a\n"
#: Begins a zip with files in it.
ZIP = b"PK\x03\x04"

#: Fields of ONNX's ModelProto (onnx.proto, IR version 13), by their wire types, varint and bytes.
_ONNX_VARINTS, _ONNX_BYTES, _ONNX_GRAPH = {1, 5}, {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}, 7
#: Fields that are looked at, more than models have.
_MOST_FIELDS = 1 << 16


def described(file: BinaryIO, *, but: str = "") -> str | None:
    """Return what a file is and what reads it, after the name of the file.

    None if that is unknown, or is `but`, the function that can't read it.
    """
    found = _described(file)
    return None if found is None or (but and but in found) else found


def _described(file: BinaryIO) -> str | None:
    file.seek(0)
    head = file.read(300)
    if head.startswith(b"PK"):
        return _described_zip(file, head)
    if head.startswith(_TORCH_PICKLE):
        return weights("torch.load(path, weights_only=True)")
    if head.startswith(HDF5):
        return "is an HDF5 file; models of Keras are read by fastrnn.keras.load(path)"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle, which can hold any code, and is never read"
    if _is_onnx(file):
        return "is an ONNX model, which fastrnn.onnx.load(path) reads"
    if head[8:9] != b"{":
        return None
    try:
        return safetensors(tensor_file.header(file))
    except ValueError:
        return None


def safetensors(head: tensor_file.Header) -> str:
    """Return what the header of a safetensors file says that it is."""
    if head.metadata.get("format") == "fastrnn":
        return "is a model of fastrnn, which fastrnn.load(path) reads"
    dtypes = [str(t.get("dtype")) for t in head.tensors.values() if isinstance(t, dict)]
    numpy = all(dtype in tensor_file.DTYPES for dtype in dtypes)
    return weights(f"safetensors.{'numpy' if numpy else 'torch'}.load_file(path)")


def weights(reader: str) -> str:
    """Return how weights are read that `reader` returns."""
    return (
        "is not a model of fastrnn; weights of other libraries are read into a model or layer by "
        f"load_state_dict({reader})"
    )


def _described_zip(file: BinaryIO, head: bytes) -> str | None:
    try:
        with reading.zipped(file) as archive:
            names = {*archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        names = set()
    if {"config.json", "metadata.json"} <= names:
        return "is a model of Keras, which fastrnn.keras.load(path) reads"
    if any(name.endswith("/constants.pkl") for name in names):
        return weights("torch.jit.load(path).state_dict()")
    if b"/data.pkl" in head:  # the first of torch's files, whether or not the last is there
        return weights("torch.load(path, weights_only=True)")
    if names and all(name.endswith(".npy") for name in names):
        return weights("numpy.load(path)")
    return None


def _is_onnx(file: BinaryIO) -> bool:
    """Return whether it is a protobuf with the fields of an ONNX model, a graph among them."""
    fields: set[int] = set()
    size, place = reading.size(file), 0
    for _ in range(_MOST_FIELDS):
        if place >= size:
            break
        tag, place = _varint(file, place)
        field, wire = tag >> 3, tag & 7
        value, place = _varint(file, min(place, size))
        if wire == 2 and field in _ONNX_BYTES:
            place += value
        elif wire != 0 or field not in _ONNX_VARINTS:
            return False
        fields.add(field)
    return place == size and _ONNX_GRAPH in fields


def _varint(file: BinaryIO, place: int) -> tuple[int, int]:
    """Return a number in protobuf's form, seven bits a byte, and the place after it."""
    number = 0
    file.seek(place)
    data = file.read(10)
    for i, byte in enumerate(data):
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            return number, place + i + 1
    return number, sys.maxsize  # beyond the end, or no number
