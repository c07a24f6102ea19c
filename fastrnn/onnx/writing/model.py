"""Whole models and single layers as ONNX files."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn.layers import RECURRENT, SINGLE_STEPS, Dropout, Layer, Masking
from fastrnn.layers.quantized import Quantized, QuantizedRecurrent
from fastrnn.models.architecture import describe
from fastrnn.models.sequential import Sequential
from fastrnn.onnx.writing.graph import Graph, Shape
from fastrnn.onnx.writing.layers import WRITERS
from fastrnn.onnx.writing.lengths import Lengths
from fastrnn.onnx.writing.recurrent import recurrent, single_step

#: The key of the description of the layers, among a file's properties.
LAYERS = "fastrnn.layers"
#: The names of axes whose size differs from call to call.
BATCH, TIME = "batch", "time"


def save(
    model: Sequential | Layer,
    path: str | os.PathLike[str],
    *,
    states: bool = False,
    lengths: bool = False,
) -> None:
    """Write a model or a layer as an ONNX file.

    Its input is ``x`` and its output ``y``, in the shapes of a call, with any batch size and any
    number of steps; tokens are int64. A recurrent layer or cell gives its final state too: ``h_n``
    and, of LSTM, ``c_n``. Operators are those of opset 17, which ONNX 1.12 and ONNX Runtime 1.12
    (2022) and later ones know.

    Recurrent layers become RNN, LSTM and GRU, an IndRNN an RNN with a diagonal matrix. Projections
    and layer normalisation, which ONNX's operators lack, and float64, for which ONNX Runtime lacks
    kernels, become loops (Scan), which are slower there.
    Dropout is left out; products are of the layer's dtype, whatever its `matmul_precision`. ONNX
    Runtime's results differ by rounding alone.

    Of quantized models, the file holds the int8 weights. An LSTM becomes ONNX Runtime's
    DynamicQuantizeLSTM, which rounds the rows that it multiplies as well, but with one scale for
    all of them: its results differ from those here about as much as quantizing changed them. Linear
    and Embedding compute as here. The weights of others are widened to float32, and rows are not
    rounded: results are those of a float layer with these weights.

    Parameters
    ----------
    model : Sequential or layer
        Any layer but those of your own classes, any cell, or a Sequential; they may be quantized.
        Of a ``CharLM``, a ``TextClassifier`` or a scikit-learn estimator, its ``net_``.
    path : str or path-like
        The file is replaced atomically.
    states : bool
        Whether the initial states are inputs, and the final ones outputs, so that ONNX Runtime can
        advance one step at a time: of a recurrent layer or cell ``h_0`` and ``c_0`` to ``h_n`` and
        ``c_n``; of a Sequential, whose layer ``i`` is recurrent, ``layer{i}_h_0`` to
        ``layer{i}_h_n`` and so on. Each is (L*D, B, H) as in a call, of a cell (B, H). Default:
        zeros.
    lengths : bool
        Whether there is an input ``lengths`` (B,) of int64, the number of steps of each row.
        Default: all rows have T steps.

    Raises
    ------
    TypeError
        If it is not a model or layer that ONNX can express; the error names the layer.
    ValueError
        If an option does not fit the model, or the model is too large for the format, 2 GiB.
    OSError
        If the file can't be written.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 5, seed=0)
    >>> fastrnn.onnx.save(lstm, "lstm.onnx", states=True)
    >>> fastrnn.onnx.load("lstm.onnx")
    LSTM(3, 5)
    >>> import onnxruntime  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("lstm.onnx")  # doctest: +SKIP
    >>> y, h, c = session.run(None, {"x": x_t, "h_0": h, "c_0": c})  # doctest: +SKIP
    """
    states = _checks.flag(states, "states")
    lengths = _checks.flag(lengths, "lengths")
    where = _checks.path(path)
    atomic.write(where, proto_of(model, states=states, lengths=lengths).SerializeToString())


def proto_of(model: Sequential | Layer, *, states: bool, lengths: bool) -> Any:
    """Return the ModelProto that :func:`save` writes.

    It says by which layers it was made, so that :func:`load` need not guess them, where their calls
    take what the graph takes; the graph itself does not depend on that.
    """
    graph, described = Graph(), None
    if isinstance(model, Sequential):
        _sequential(graph, model, states, lengths)
        described = describe(model.layers)
    elif isinstance(model, Layer):
        _layer(graph, model, states, lengths)
        described = describe([model]) | {"alone": True} if model.stackable else None
    else:
        raise TypeError(
            f"model: expected a Sequential or a layer, got {_checks.kind_of(model)}"
            + ("; its net_ is one" if "net_" in dir(model) else "")
        )
    if described is None or lengths or model.quantized:
        return graph.model(type(model).__name__)
    described["states"] = states
    return graph.model(type(model).__name__, {LAYERS: json.dumps(described)})


def _sequential(graph: Graph, model: Sequential, states: bool, lengths: bool) -> None:
    """Add a Sequential, batch-first."""
    _expect_states(model, states, lengths)
    if model.layers[0].mask_value is not None and not lengths:
        raise ValueError(
            f"lengths: expected True for a model that leaves out steps, as {model.layers[0]!r} "
            "does: an ONNX model takes them from the lengths of rows"
        )
    x = y = _input(graph, model)
    steps = Lengths(graph, BATCH, lengths)
    finals: list[tuple[str, str, Any, Shape]] = []
    time_first = False
    for i, layer in enumerate(model.layers):
        if not layer.has_state:
            y = _stateless(graph, layer, y, f"{i}.", f"layers[{i}]", model.dtype)
            continue
        _expect_known(layer, f"layers[{i}]")
        if not time_first:
            y, time_first = graph.op("Transpose", y, perm=[1, 0, 2]), True
        y, final = _recurrent(graph, layer, y, f"{i}.", f"layer{i}_", states, steps)
        finals += final
    if not model.per_sequence:
        if time_first:
            y = graph.op("Transpose", y, perm=[1, 0, 2])
        if lengths and not _zero_past_end(model):
            zero = graph.weight(np.zeros((), model.dtype), "zero")
            y = graph.op("Where", steps.valid(x, batch_first=True), y, zero)
    lead = (BATCH,) if model.per_sequence else (BATCH, TIME)
    graph.output(y, "y", model.dtype, (*lead, model.features_out))
    if states:
        for out in finals:
            graph.output(*out)


def _input(graph: Graph, model: Layer) -> str:
    """Add the input of a model or of a layer without a state, (B, T, F) or tokens (B, T)."""
    if model.vocabulary is not None:
        return graph.input("x", np.int64, (BATCH, TIME))
    return graph.input("x", model.dtype or np.float32, (BATCH, TIME, _features(model)[0]))


def _features(model: Layer) -> tuple[int | str, int | str]:
    """Return the sizes of the last axes of x and y: a name for any, as of Dropout."""
    size = model.features_in or "features"
    return size, model.features_out or size


def _layer(graph: Graph, layer: Layer, states: bool, lengths: bool) -> None:
    """Add a layer alone, in the shapes of its own call."""
    kind: Any = type(layer)
    if kind in (*RECURRENT.values(), QuantizedRecurrent):
        _recurrent_alone(graph, layer, states, lengths)
    elif kind in SINGLE_STEPS.values():
        _single_step(graph, layer, states, lengths)
    else:
        _expect_states(layer, states, lengths)
        x, dtype = _input(graph, layer), layer.dtype or np.dtype(np.float32)
        y = _stateless(graph, layer, x, "", "model", dtype)
        graph.output(y, "y", dtype, (BATCH, TIME, _features(layer)[1]))


def _recurrent_alone(graph: Graph, layer: Any, states: bool, lengths: bool) -> None:
    """Add a recurrent layer, whose call gives its final state too."""
    lead: tuple[str, ...] = (BATCH, TIME) if layer.batch_first else (TIME, BATCH)
    y = graph.input("x", layer.dtype, (*lead, layer.input_size))
    steps = Lengths(graph, BATCH, lengths)
    if layer.batch_first:
        y = graph.op("Transpose", y, perm=[1, 0, 2])
    y, finals = _recurrent(graph, layer, y, "", "", states, steps)
    if layer.batch_first and layer.return_sequences:
        y = graph.op("Transpose", y, perm=[1, 0, 2])
    lead = lead if layer.return_sequences else (BATCH,)
    graph.output(y, "y", layer.dtype, (*lead, layer.features_out))
    for final in finals:
        graph.output(*final)


def _single_step(graph: Graph, cell: Any, states: bool, lengths: bool) -> None:
    if lengths:
        raise ValueError(f"lengths: expected False for one step, {cell!r}, got True")
    x = graph.input("x", cell.dtype, (BATCH, cell.input_size))
    shape = (BATCH, cell.hidden_size)
    start = [graph.input(f"{s}_0", cell.dtype, shape) for s in cell.cell.states if states]
    for name, final in zip(cell.cell.states, single_step(graph, cell, x, start), strict=True):
        graph.output(final, f"{name}_n", cell.dtype, shape)


def _recurrent(
    graph: Graph, layer: Any, x: str, prefix: str, of_layer: str, states: bool, lengths: Lengths
) -> tuple[str, list[tuple[str, str, Any, Shape]]]:
    """Add a recurrent layer; return y and, ready to be given out, the final states.

    Names of weights begin with `prefix`, those of states with `of_layer`.
    """
    scans = layer.num_layers * (1 + layer.bidirectional)
    P = layer.features_out // (1 + layer.bidirectional)
    shapes = [(scans, BATCH, P if name == "h" else layer.hidden_size) for name in layer.cell.states]
    named = list(zip((of_layer + s for s in layer.cell.states), shapes, strict=True))
    start = [graph.input(f"{name}_0", layer.dtype, shape) for name, shape in named if states]
    if layer.learn_initial_state and not states:
        start = _learned(graph, layer, x, prefix)
    x = lengths.reversed(x) if layer.go_backwards else x
    y, ends = recurrent(graph, layer, x, prefix=prefix, lengths=lengths, state=start)
    return y, [
        (end, f"{name}_n", layer.dtype, shape)
        for end, (name, shape) in zip(ends, named, strict=True)
    ]


def _learned(graph: Graph, layer: Any, x: str, prefix: str) -> list[str]:
    """Add the learned initial states (L*D, n), for each row of x (T, B, I)."""
    weights, one = layer.parameters(), graph.integers(1)
    shape = graph.op("Concat", one, graph.op("Shape", x, start=1, end=2), one, axis=0)
    return [
        graph.op("Expand", graph.weight(weights[name][:, None], prefix + name), shape)
        for name in (f"{state}_0" for state in layer.cell.states)
    ]


def _stateless(graph: Graph, layer: Layer, x: str, prefix: str, name: str, dtype: Any) -> str:
    """Add a layer without a state."""
    _expect_known(layer, name)
    return WRITERS[type(layer)](graph, layer, x, prefix, dtype)


def _expect_known(layer: Layer, name: str) -> None:
    """Raise if ONNX can't express a layer; those of derived classes may do anything."""
    known = (*RECURRENT.values(), *WRITERS)
    if type(layer) not in (*known, QuantizedRecurrent):
        names = ", ".join(kind.__name__ for kind in known if not issubclass(kind, Quantized))
        raise TypeError(
            f"{name}: expected one of {names}, which ONNX can express, got {_checks.kind_of(layer)}"
        )


def _zero_past_end(model: Sequential) -> bool:
    """Return whether outputs past a row's length are 0 already, as recurrent layers leave them."""
    return next(a.has_state for a in reversed(model.layers) if not isinstance(a, Dropout | Masking))


def _expect_states(model: Any, states: bool, lengths: bool) -> None:
    """Raise if there is an input that a model without a recurrent layer would not read."""
    if states and not model.has_state:
        raise ValueError(f"states: expected False for a model without a state, got {model!r}")
    if lengths and not isinstance(model, Sequential):
        raise ValueError(f"lengths: expected False for a layer without a state, got {model!r}")
