"""Loading ONNX models."""

from __future__ import annotations

import os
from typing import Any

from fastrnn.onnx import reading
from fastrnn.onnx.graph import Reader, checked_opsets
from fastrnn.onnx.model import Model


def load(path_or_bytes: str | os.PathLike[str] | bytes, *, as_graph: bool = False) -> Any:
    """Read an ONNX model.

    Nothing in the file is code that is run, and it can name no file outside its own folder.

    Parameters
    ----------
    path_or_bytes : str, path-like or bytes
        A file, or its contents. Tensors that are kept in files of their own are read too, from
        files in the folder of the model; they need its path.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If it is no ONNX model, or damaged; or if it has an operator, an attribute or an opset that
        is not supported: the message names it, and what is.
    OSError
        If a file does not exist or can't be read.
    """
    proto, folder, where = reading.read(path_or_bytes)
    try:
        return model_of(proto, folder)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def model_of(proto: Any, folder: str | None = None) -> Model:
    """Return the model that evaluates a ModelProto.

    Parameters
    ----------
    proto : ModelProto
    folder : str or None
        Where tensors in files of their own may be.
    """
    opsets = checked_opsets(proto.opset_import, "model")
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in proto.functions}
    reader = Reader(folder, opsets, functions)
    graph, defaults = reader.graph(proto.graph, {}, overridable=proto.ir_version >= 4)
    return Model(graph, defaults, opsets.get("", 0))
