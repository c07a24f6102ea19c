"""Models with int8 weights, for inference."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.layers import RECURRENT, Embedding, quantized
from fastrnn.layers.base import Layer
from fastrnn.layers.row_map import RowMap
from fastrnn.models.data import Data
from fastrnn.models.inputs import inputs
from fastrnn.models.network import Network
from fastrnn.models.sequential import Sequential

#: Sequences of calibration data that run side by side.
_BATCH = 256


def quantize_layer(layer: Layer, calibration: Any) -> Layer:
    """Return a layer with int8 weights; `calibration` is what the layer takes."""
    expect_float(layer)
    small = quantized.quantize(layer)
    if small is None or isinstance(layer, RowMap):
        raise TypeError(f"model: expected a layer that multiplies with weights, got {layer!r}")
    if calibration is None:
        return small
    if type(layer) is Embedding:
        raise ValueError("calibration: expected None, an Embedding multiplies nothing")
    x = _checks.array(calibration, "calibration", np.dtype(np.float32))
    if type(layer) in RECURRENT.values():
        recurrent: Any = layer
        _checks.expect_shape(x, "calibration", ("T", "B", recurrent.input_size)[3 - x.ndim :])
        x = x[:, None] if x.ndim == 2 else x.swapaxes(0, 1) if recurrent.batch_first else x
    calibrated = quantized.quantize(layer, quantized.largest_of(small, x))
    assert calibrated is not None
    return calibrated


def quantize_sequential(model: Sequential, calibration: Any) -> Sequential:
    """Return a model with int8 weights; `calibration` is what ``model.predict`` takes."""
    expect_float(model)
    layers = [quantized.quantize(layer) or copy.deepcopy(layer).eval() for layer in model.layers]
    if not any(layer.quantized and not isinstance(layer, RowMap) for layer in layers):
        raise TypeError("model: expected a layer that multiplies with weights")
    if calibration is not None:
        found = _largest(layers, calibration)
        calibrated = map(quantized.quantize, model.layers, found)
        layers = [a or b for a, b in zip(calibrated, layers, strict=True)]
    return model.with_layers(layers)


def restored(model: Sequential, tensors: Mapping[str, Array]) -> Sequential:
    """Return the quantized model of a file, given the float model that it was made from."""
    layers = []
    for i, layer in enumerate(model.layers):
        prefix = f"{i}."
        held = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
        made = held or isinstance(layer, RowMap)
        layers.append(quantized.restored(layer, held) if made else layer)
    return model.with_layers(layers)


def expect_float(model: Any) -> None:
    """Raise if a model is quantized already."""
    if model.quantized:
        raise ValueError("model: expected one in floats, this one is quantized already")


def _largest(layers: Sequence[Layer], calibration: Any) -> list[Any]:
    """Return the largest numbers that each layer multiplies, over calibration data.

    The layers have int8 weights: every backend finds the same.
    """
    network = Network(layers)
    given = inputs(network.signature, calibration, None, None)
    found: list[Any] = [None] * len(layers)
    for data in [given] if isinstance(given, Data) else given.data():
        for rows in data.by_length(_BATCH):
            x, lengths, valid = data.inputs(rows)
            for i, of_batch in enumerate(_of_batch(network, x, lengths, valid)):
                found[i] = of_batch if found[i] is None else np.maximum(found[i], of_batch)
    if all(of_layer is None for of_layer in found):
        raise ValueError("calibration: expected one sequence or more, got none")
    return found


@np.errstate(all="ignore")
def _of_batch(
    network: Network, x: Array, lengths: Array | None, valid: Array | None
) -> list[Array]:
    """Return the largest numbers that each layer multiplies, over one batch, time first."""
    found, steps = [], True
    for layer in network.layers:
        if valid is not None and steps:
            # Padding does not count.
            x = x.copy()
            x[~valid] = 0
        found.append(quantized.largest_of(layer, x, lengths))
        x, _ = layer.apply(x, lengths=lengths)
        steps = steps and not layer.per_sequence
    return found
