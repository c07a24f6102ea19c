"""Files of other libraries, recognised by what is in them, and what reads each."""

from __future__ import annotations

import io
import json
import zipfile

#: Begins a file of torch.save before torch 1.6: a pickle of a number, 0x1950a86a20f9469cfc6c.
_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: Begins an HDF5 file.
_HDF5 = b"\x89HDF\r\n\x1a\n"

#: Fields of ONNX's ModelProto (onnx.proto, IR version 13), by their wire types, varint and bytes.
_ONNX_VARINTS, _ONNX_BYTES, _ONNX_GRAPH = {1, 5}, {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}, 7


def described(data: bytes, *, but: str = "") -> str | None:
    """Return what a file is and what reads it, after the name of the file.

    None if that is unknown, or is `but`, the function that can't read it.
    """
    found = _described(data)
    return None if found is None or (but and but in found) else found


def _described(data: bytes) -> str | None:
    if data.startswith(b"PK"):
        return _described_zip(data)
    if data.startswith(_TORCH_PICKLE):
        return weights("torch.load(path, weights_only=True)")
    if data.startswith(_HDF5):
        return "is an HDF5 file; models of Keras are read by fastrnn.keras.load(path)"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "is a pickle, which can hold any code, and is never read"
    if _is_onnx(data):
        return "is an ONNX model, which fastrnn.onnx.load(path) reads"
    return _described_safetensors(data) if data[8:9] == b"{" else None


def weights(reader: str) -> str:
    """Return how weights are read that `reader` returns."""
    return (
        "is not a model of fastrnn; weights of other libraries are read into a model or layer by "
        f"load_state_dict({reader})"
    )


def _described_zip(data: bytes) -> str | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = {*file.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        names = set()
    if {"config.json", "metadata.json"} <= names:
        return "is a model of Keras, which fastrnn.keras.load(path) reads"
    if any(name.endswith("/constants.pkl") for name in names):
        return weights("torch.jit.load(path).state_dict()")
    if b"/data.pkl" in data[:300]:  # the first of torch's files, whether or not the last is there
        return weights("torch.load(path, weights_only=True)")
    if names and all(name.endswith(".npy") for name in names):
        return weights("numpy.load(path)")
    return None


def _described_safetensors(data: bytes) -> str | None:
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    try:
        own = json.loads(header)["__metadata__"]["format"] == "fastrnn"
    except (KeyError, TypeError):
        own = False
    except (ValueError, RecursionError):
        return None
    if own:
        return "is a model of fastrnn, which fastrnn.load(path) reads"
    return weights("safetensors.numpy.load_file(path)")


def _is_onnx(data: bytes) -> bool:
    """Return whether it is a protobuf with the fields of an ONNX model, a graph among them."""
    fields: set[int] = set()
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        field, wire = tag >> 3, tag & 7
        value, place = _varint(data, place)
        if wire == 2 and field in _ONNX_BYTES:
            place += value
        elif wire != 0 or field not in _ONNX_VARINTS:
            return False
        fields.add(field)
    return place == len(data) and _ONNX_GRAPH in fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number in protobuf's form, seven bits a byte, and the place after it."""
    number = 0
    for i, byte in enumerate(data[place : place + 10]):
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            return number, place + i + 1
    return number, len(data) + 1
