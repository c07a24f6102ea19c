"""Activations of cells as data: the list of ONNX's operators RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastrnn import _checks
from fastrnn._kernels.functions import Function

#: The defaults of alpha and beta, of each that has them: those of ONNX's operators of these names.
#: Its ScaledTanh has none, as it is no operator by itself.
ACTIVATIONS: dict[str, tuple[float | None, ...]] = {
    "relu": (),
    "tanh": (),
    "sigmoid": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (None, None),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

#: An activation as users read it: a name, or a tuple of it, alpha and beta where it has them.
Shown = str | tuple[str | float, ...]
#: The activations of a cell as users give them.
ActivationsLike = str | Sequence[str | float | Sequence[str | float | None] | None]


class Activation(NamedTuple):
    """An activation; alpha and beta are 0 where it has none."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def shown(self) -> Shown:
        """The name, or a tuple of it, alpha and beta."""
        count = len(ACTIVATIONS[self.name])
        return self[: 1 + count] if count else self.name

    @property
    def function(self) -> Function:
        """The function of the kernels that it is."""
        if self.name == "tanh":
            return Function("tanh", 1.0, 1.0)
        if self.name == "scaled_tanh":
            return Function("tanh", self.alpha, self.beta)
        return Function(self.name, self.alpha, 1.0 if self.name == "elu" else self.beta)


def activation(value: Any, name: str = "activations") -> Activation:
    """Return an activation: a name, or a sequence of it, alpha and beta; None for a default."""
    if isinstance(value, Activation):  # checked below, as anyone can make one
        value = value.shown if value.name in ACTIVATIONS else value.name
    kind, *given = (value or [None]) if _is_sequence(value) else [value]
    defaults = ACTIVATIONS[_checks.choice(kind, name, ACTIVATIONS)]
    numbers = [0.0, 0.0]
    for i, parameter in enumerate(("alpha", "beta")):
        number = given[i] if i < len(given) else None
        if i >= len(defaults):
            if number is not None:
                raise ValueError(f"{name}: {kind!r} has no {parameter}, got {number!r}")
            continue
        number = defaults[i] if number is None else number
        if number is None:
            raise ValueError(
                f"{name}: expected ({kind!r}, alpha, beta), which have no defaults, got {value!r}"
            )
        numbers[i] = _checks.finite(number, f"{name}, {parameter} of {kind!r}")
    if len(given) > 2:
        raise ValueError(f"{name}: expected (name, alpha, beta), got {value!r}")
    return Activation(kind, *numbers)


def activations(
    value: Any, usual: Sequence[str], directions: int = 1
) -> list[tuple[Activation, ...] | None]:
    """Return those of each direction; None for the usual ones.

    Parameters
    ----------
    value : sequence or None
        One for each of `usual`, which all directions share, or those of the forward direction and
        then those of the backward one, as in ONNX. A single one need not be in a sequence.
    usual : sequence of str
        The names of those that the cell has by itself.
    directions : int
        D.
    """
    count = len(usual)
    if value is None:
        return [None] * directions
    if count == 1 and _is_single(value):
        value = [value]
    if not _is_sequence(value) or len(value) not in {count, count * directions}:
        both = f" or {count * directions}" if directions > 1 else ""
        got = repr(value) if isinstance(value, str) or not _is_sequence(value) else len(value)
        raise ValueError(f"activations: expected {count}{both}, got {got}")
    found = [activation(one) for one in value] * (directions * count // len(value))
    own = tuple(Activation(name) for name in usual)
    split = [tuple(found[k : k + count]) for k in range(0, len(found), count)]
    return [None if one == own else one for one in split]


def _is_single(value: Any) -> bool:
    """Return whether it is one activation rather than a sequence of them."""
    return isinstance(value, str) or (
        _is_sequence(value)
        and len(value) > 1
        and isinstance(value[0], str)
        and not isinstance(value[1], str)
        and not _is_sequence(value[1])
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
