"""Activations of Keras, as ours: by name, with alpha and beta where they have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastrnn import _checks

#: Our name, and alpha and beta if there are any.
Ours = tuple[Any, ...]

#: By the names of Keras, where Keras 2 and 3 agree. An exact "gelu" is not among ours.
_SAME: dict[str, Ours] = {
    "elu": ("elu", 1.0),
    "hard_tanh": ("hard_tanh", -1.0, 1.0),
    "leaky_relu": ("leaky_relu", 0.2),
    "linear": ("affine", 1.0, 0.0),
    "log_softmax": ("log_softmax",),
    "relu": ("relu",),
    "relu6": ("relu6",),
    "selu": ("selu",),
    "sigmoid": ("sigmoid",),
    "silu": ("silu",),
    "softmax": ("softmax",),
    "softplus": ("softplus",),
    "softsign": ("softsign",),
    "swish": ("silu",),
    "tanh": ("tanh",),
}
#: clip(0.2 x + 0.5, 0, 1), and clip(x / 6 + 0.5, 0, 1).
_HARD_SIGMOID: dict[int, Ours] = {2: ("hard_sigmoid", 0.2, 0.5), 3: ("hard_sigmoid", 1 / 6, 0.5)}

LINEAR = _SAME["linear"]


def read(value: Any, name: str, version: int) -> Ours:
    """Return the activation that an option of a layer names; None is linear.

    Raises
    ------
    ValueError
        If it is not supported, such as any function or layer.
    """
    if value is None:
        return LINEAR
    if isinstance(value, Mapping):  # of Keras 3, for what is not known by a name alone
        value = value.get("config") if value.get("class_name") == "function" else str(value)
    known = _SAME | {"hard_sigmoid": _HARD_SIGMOID[version]}
    return known[_checks.choice(value, name, known)]


def written(ours: Any, version: int) -> str:
    """Return the name in Keras of an activation; raise if there is none with these numbers."""
    given = (ours,) if isinstance(ours, str) else tuple(ours)
    for name, same in (*_SAME.items(), ("hard_sigmoid", _HARD_SIGMOID[version])):
        if same == given:
            return name
    raise ValueError(f"activations: expected those of Keras {version}, got {ours!r}")
