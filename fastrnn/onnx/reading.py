"""Files of ONNX: parsed, and their tensors as arrays. Nothing outside a model's folder is read."""

from __future__ import annotations

import io
import math
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from fastrnn import _checks
from fastrnn._files import others
from fastrnn._files import reading as regular
from fastrnn._types import Array

TensorProto = onnx.TensorProto

#: The numbers of ONNX's element types that arrays can have here, and their dtypes.
DTYPES: dict[int, np.dtype[Any]] = {
    int(number): onnx.helper.tensor_dtype_to_np_dtype(number)
    for number in (
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16),
        *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
        *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
        *(TensorProto.BOOL, TensorProto.STRING),
    )
}


def read(source: Any) -> tuple[Any, str | None, str]:
    """Return the ModelProto, its folder (None if unknown), and its name for errors.

    Parameters
    ----------
    source : str, path-like, bytes or ModelProto

    Raises
    ------
    ValueError
        If these are not the bytes of a model.
    OSError
        If the file does not exist or can't be read.
    """
    if isinstance(source, onnx.ModelProto):
        return source, None, "model"
    if isinstance(source, bytes | bytearray | memoryview):
        folder, where = None, "model"
        model = _parsed(io.BytesIO(source), where)
    else:
        where = _checks.path(source, "path_or_bytes")
        folder = os.path.dirname(os.path.realpath(where))
        with regular.opened(where) as file:
            model = _parsed(file, where)
    # Other files can have the form of a message, without any field of a model's.
    if not model.HasField("graph") or not model.opset_import:
        raise ValueError(f"{where}: is not an ONNX model, or damaged: it has no graph or no opset")
    return model, folder, where


def _parsed(file: BinaryIO, where: str) -> Any:
    """Return the ModelProto in a file, which is not read if its start shows that there is none."""
    other = others.described(file, but="fastrnn.onnx.load")
    file.seek(0)
    if other is None and file.read(1) != b"\0":  # nor does any message begin so
        file.seek(0)
        with suppress(DecodeError):
            return onnx.ModelProto.FromString(file.read())
    raise ValueError(f"{where}: {other or 'is not an ONNX model, or damaged'}")


def dtype_of(number: int, what: str) -> np.dtype[Any]:
    """Return the dtype of an element type; `what` has it."""
    if number not in DTYPES:
        known = ", ".join(TensorProto.DataType.Name(n) for n in DTYPES)
        try:
            name = TensorProto.DataType.Name(number)
        except ValueError:
            name = str(number)
        raise ValueError(f"{what}: expected elements of one of {known}, got {name}")
    return DTYPES[number]


def array(tensor: Any, folder: str | None, what: str) -> Array:
    """Return a tensor as an array.

    Parameters
    ----------
    tensor : TensorProto
    folder : str or None
        That of the model, which may have data in files of their own.
    what : str
        Names it in errors.
    """
    dtype = dtype_of(tensor.data_type, what)
    if any(n < 0 for n in tensor.dims):
        shape = _checks.shape_text(tuple(tensor.dims))
        raise ValueError(f"{what}: expected a shape of sizes of at least 0, got {shape}")
    if tensor.data_location == TensorProto.EXTERNAL:
        if dtype.kind == "O":
            raise ValueError(f"{what}: expected no strings in a file of their own")
        count = math.prod(tensor.dims)
        data = _external(tensor, folder, what, count * dtype.itemsize)
        stored = np.frombuffer(data, dtype).reshape(tuple(tensor.dims))
        return stored if sys.byteorder == "little" else stored.byteswap()
    try:
        values: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{what}: is damaged: {error}") from None
    return values


def _external(tensor: Any, folder: str | None, what: str, size: int) -> bytes:
    """Return a tensor's data from the file that holds them, in the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ValueError(
            f"{what}: its data are in the file {location!r} beside the model; load the model by "
            "its path rather than from bytes"
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ValueError(f"{what}: is damaged: offset or length is not a number") from None
    if offset < 0 or length != size:
        raise ValueError(f"{what}: is damaged: it has {size} bytes, its file {length} at {offset}")
    path = os.path.join(folder, os.path.normpath(location))
    outside = os.path.isabs(location) or "\0" in location or not os.path.basename(location)
    if outside or os.path.realpath(path) != path:
        raise ValueError(
            f"{what}: expected its data in a file in the model's folder, not behind a link, got "
            f"{location!r}"
        )
    with regular.opened(path, links=False) as file:
        held = regular.size(file)
        if offset + length > held:
            raise ValueError(
                f"{what}: expected {length} bytes at {offset} of {location!r}, which has {held}"
            )
        file.seek(offset)
        return file.read(length)
