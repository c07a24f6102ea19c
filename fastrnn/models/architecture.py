"""The architecture of a model as a JSON description, and layers rebuilt from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastrnn import _checks
from fastrnn._core import generators
from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.models.network import KINDS, Network


def describe(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return a JSON description of the layers, from which :func:`restore` rebuilds them."""
    specs = []
    for i, layer in enumerate(layers):
        like: Any = layer.like if layer.quantized else layer  # type: ignore[attr-defined]
        name = type(like).__name__
        if type(like) is not KINDS.get(name):
            raise TypeError(
                f"layers[{i}]: expected one of {', '.join(KINDS)}, got {name}, a class of your "
                "own, which no file can hold; pickle the model, or keep its state_dict()"
            )
        more = {"quantized": True} if layer.quantized else {}
        specs.append({"class": name, "config": like.get_config(), **more})
    return {"layers": specs}


def restore(model: Mapping[str, Any], tensors: Mapping[str, Array]) -> list[Layer]:
    """Return layers rebuilt from their description, with their weights.

    Memory use is bounded by a small multiple of the tensors' size, whatever `model` claims.

    Parameters
    ----------
    model : mapping
        From :func:`describe`.
    tensors : mapping of str to array
        All weights, by the names of ``Sequential.parameters``.

    Raises
    ------
    ValueError, TypeError, KeyError
        If the description is invalid, or the tensors do not fit it.
    """
    layers = []
    for i, spec in enumerate(model["layers"]):
        prefix = f"{i}."
        held = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
        sizes = sum(a.size for a in held.values())
        layer = _layer_from_file(i, spec["class"], spec["config"], sizes)
        if spec.get("quantized"):
            from fastrnn.layers import quantized

            layer = quantized.restored(layer, held)
        layers.append(layer)
    own = Network(layers).arrays()
    missing, unexpected = sorted(own.keys() - tensors), sorted(tensors.keys() - own)
    if missing or unexpected:
        raise ValueError(f"tensors: missing {missing}, unexpected {unexpected}")
    for name, array in own.items():
        _checks.expect_dtype(tensors[name], name, array.dtype)
        _checks.expect_shape(tensors[name], name, array.shape)
    for name, array in own.items():
        if array.flags.writeable:  # others have been taken over
            array[...] = tensors[name]
    return layers


def _layer_from_file(i: int, name: str, config: dict[str, Any], held: int) -> Layer:
    """Return a layer, its weights unset; raise if it claims more weights than the file has."""
    if name not in KINDS:
        raise ValueError(f"layers[{i}]: expected one of {', '.join(KINDS)}, got {name!r}")
    claimed = KINDS[name].least_weights(config)
    if claimed > held:
        raise ValueError(f"layers[{i}]: claims {claimed} weights or more, the file has {held}")
    make: Any = KINDS[name]
    with generators.undrawn():
        layer: Layer = make(**config)
    known = layer.get_config().keys()
    if not config.keys() <= known:
        raise ValueError(f"layers[{i}]: expected one of {sorted(known)}, got {sorted(config)}")
    return layer
