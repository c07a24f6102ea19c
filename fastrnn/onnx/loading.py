"""Loading ONNX models."""

from __future__ import annotations

import os
from typing import Any

from fastrnn import _checks
from fastrnn.onnx import reading
from fastrnn.onnx.assembly import layers_of
from fastrnn.onnx.graph import Graph, Reader, checked_opsets, prepared
from fastrnn.onnx.model import Model
from fastrnn.onnx.own import own_layers


def load(
    path_or_bytes: str | os.PathLike[str] | bytes,
    *,
    as_graph: bool = False,
    batch_first: bool = False,
) -> Any:
    """Read an ONNX model: as layers, if it is a chain of them.

    What :func:`save` wrote becomes the same layers again, unless it is quantized or has `lengths`.

    Another chain of layers that we have becomes a ``Sequential`` or, where it is a recurrent layer
    alone that is time-first or gives its final state, that layer; it can be trained, streamed,
    saved and quantized. It takes the graph's inputs and returns its outputs, initial states in a
    list, as a Sequential always does, and those of an LSTM in a pair. Recurrent nodes that follow
    each other become one layer with a `num_layers`. All else becomes a :class:`Model`, which
    evaluates the graph.

    Nothing in the file is code that is run, and it can name no file outside its own folder.

    Parameters
    ----------
    path_or_bytes : str, path-like or bytes
        A file, or its contents. Tensors that are kept in files of their own are read too, from
        files in the folder of the model; they need its path.
    as_graph : bool
        Whether to return a :class:`Model` whatever the graph is. Default: False.
    batch_first : bool
        Whether several layers that are time-first in the graph become a Sequential too, whose
        inputs and outputs are batch-first. Default: False, a Model, which is as the graph.

    Returns
    -------
    Sequential, layer or Model

    Raises
    ------
    ValueError
        If it is no ONNX model, or damaged; or if it has an operator, an attribute or an opset that
        is not supported: the message names it, and what is.
    OSError
        If a file does not exist or can't be read.

    Examples
    --------
    >>> model = fastrnn.Sequential([fastrnn.LSTM(3, 5), fastrnn.Linear(5, 2)], seed=0)
    >>> fastrnn.onnx.save(model, "model.onnx")
    >>> again = fastrnn.onnx.load("model.onnx")
    >>> again
    Sequential(
      (0): LSTM(3, 5)
      (1): Linear(5, 2)
    )
    >>> x = np.ones((4, 7, 3))
    >>> np.array_equal(again(x), model(x))
    True
    """
    as_graph = _checks.flag(as_graph, "as_graph")
    batch_first = _checks.flag(batch_first, "batch_first")
    proto, folder, where = reading.read(path_or_bytes)
    try:
        layers = None if as_graph else own_layers(proto)
        if layers is not None:
            return layers
        reader, graph, defaults = _read(proto, folder)
        layers = None if as_graph or defaults else layers_of(graph, batch_first=batch_first)
        return layers if layers is not None else _model(reader, graph, defaults)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{where}: is damaged: {error}") from None


def model_of(proto: Any) -> Model:
    """Return the model that evaluates a ModelProto."""
    return _model(*_read(proto, None))


def _read(proto: Any, folder: str | None) -> tuple[Reader, Graph, dict[str, Any]]:
    opsets = checked_opsets(proto.opset_import)
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in proto.functions}
    reader = Reader(folder, opsets, functions)
    graph, defaults = reader.graph(proto.graph, {}, overridable=proto.ir_version >= 4)
    return reader, graph, defaults


def _model(reader: Reader, graph: Graph, defaults: dict[str, Any]) -> Model:
    return Model(prepared(graph), defaults, reader.opsets.get("", 0))
