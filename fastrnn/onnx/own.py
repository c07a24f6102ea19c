"""Files that :func:`fastrnn.onnx.save` wrote: the layers by which they were made.

A file describes them. They are made again, with the weights of the graph, and written again: if the
same comes out, they compute what the graph does, whatever the description says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn import layouts
from fastrnn._files.reading import from_json
from fastrnn._kernels.cells import CELLS
from fastrnn._types import Array
from fastrnn.layers import RECURRENT, Layer
from fastrnn.models import architecture
from fastrnn.models.network import KINDS
from fastrnn.models.sequential import Sequential
from fastrnn.onnx import reading
from fastrnn.onnx.writing.model import LAYERS, proto_of
from fastrnn.onnx.writing.recurrent import OPERATORS

#: What descriptions and weights that do not fit raise.
_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def own_layers(proto: Any) -> Layer | None:
    """Return the layer or Sequential that was saved as a ModelProto; None if it is no such file."""
    properties = {p.key: p.value for p in proto.metadata_props}
    if LAYERS not in properties:
        return None
    try:
        described = from_json(properties[LAYERS])
        arrays = {t.name: reading.array(t, None, t.name) for t in proto.graph.initializer}
        alone = bool(described.get("alone"))
        tensors: dict[str, Array] = {}
        for i, spec in enumerate(described["layers"]):
            prefix = "" if alone else f"{i}."
            held = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            tensors |= {f"{i}.{name}": a for name, a in _weights(spec, held).items()}
        layers = architecture.restore(described, tensors)
        model = layers[0] if alone else Sequential(layers)
        same = proto_of(model, states=bool(described["states"]), lengths=False) == proto
    except _ERRORS:
        return None
    return model if same else None


def _weights(spec: Mapping[str, Any], held: Mapping[str, Array]) -> dict[str, Array]:
    """Return a layer's weights by its own names, given those of the graph."""
    kind, config = KINDS[spec["class"]], spec["config"]
    if kind not in RECURRENT.values():
        unscaled = config.get("elementwise_affine") is False
        names = () if unscaled else ("weight", "bias", "mean", "deviation")
        return {name: a for name in names if (a := _part(held, name)) is not None}
    cells: Any = kind.cells  # type: ignore[attr-defined]
    cell = next(iter(cells))
    found = {f"{s}_0": a[:, 0] for s in CELLS[cell].states if (a := held.get(f"{s}_0")) is not None}
    for k in range(config["num_layers"]):
        for d, suffix in enumerate(("", "_reverse")[: 1 + config["bidirectional"]]):
            scan = _of_node(cell, held, k, d) if f"l{k}_W" in held else _of_loop(cell, held, k, d)
            if not scan:
                raise ValueError(f"num_layers: expected {k}, got {config['num_layers']}")
            found |= {f"{name}_l{k}{suffix}": array for name, array in scan.items()}
    return found


def _of_node(cell: str, held: Mapping[str, Array], k: int, d: int) -> dict[str, Array]:
    """Return the weights of one direction of an operator."""
    given: list[Any] = [held[name][d] if (name := f"l{k}_{n}") in held else None for n in "WRBP"]
    weights = layouts.pack_onnx(OPERATORS[cell], *given)
    if CELLS[cell].recurrence == "elementwise":
        weights["weight_hh"] = np.diagonal(weights["weight_hh"]).copy()
    return weights


def _of_loop(cell: str, held: Mapping[str, Array], k: int, d: int) -> dict[str, Array]:
    """Return the weights of one direction that is a loop."""
    prefix = f"l{k}_" + "reverse_" * d
    names = CELLS[cell].weights
    return {name: a for name in names if (a := _part(held, prefix + name)) is not None}


def _part(held: Mapping[str, Array], name: str) -> Array | None:
    """Return an array that is there as it is, or transposed, or in two parts; or None."""
    stem = name if name in held else f"{name}_T"
    if stem not in held:
        return None
    parts = [held[n] for n in (stem, f"{stem}_1") if n in held]
    return np.concatenate([part if stem == name else part.T for part in parts])
