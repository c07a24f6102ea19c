"""The operators that graphs can have, and the nodes that are calls of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fastrnn._types import Array

#: The oldest opset whose operators are read.
OLDEST_OPSET = 7

#: How large the outputs of an operator can be: no larger than its inputs together; as those
#: broadcast; as their product; or as the numbers in them say.
Growth = Literal["kept", "broadcast", "product", "data"]


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator: what computes it, and how it is described.

    Attributes
    ----------
    domain, name : str
    newest : int
        The newest version of the operator that is known. All since opset 7 are.
    run : callable
        ``run(node, *inputs)`` returns an output, or a tuple of them; a missing input is None.
    growth : str
        Whether a call with constant inputs may be replaced by its result.
    bind : callable, optional
        ``bind(node, constants)``, given its constant inputs, None for others, returns what
        computes the outputs from all inputs, and the indices of inputs it then does without; or
        None, to use `run`.
    scoped : bool
        Whether `run` takes the values of the graph as a last argument, for the graphs inside.
    attributes : mapping, optional
        Attributes and their defaults, of operators that the onnx package does not know.
    """

    domain: str
    name: str
    newest: int
    run: Callable[..., Any]
    growth: Growth = "data"
    bind: Callable[..., Any] | None = None
    scoped: bool = False
    attributes: Mapping[str, Any] | None = None

    def __reduce__(self) -> Any:
        """Pickle the name: what computes it may be local to a function."""
        if OPERATORS.get((self.domain, self.name)) is self:
            return _registered, (self.domain, self.name)
        return Operator, (self.domain, self.name, self.newest, self.run)


def _registered(domain: str, name: str) -> Operator:
    return OPERATORS[domain, name]


OPERATORS: dict[tuple[str, str], Operator] = {}


def register(name: str, newest: int, run: Callable[..., Any], **more: Any) -> None:
    """Add an operator."""
    domain = more.pop("domain", "")
    OPERATORS[domain, name] = Operator(domain, name, newest, run, **more)


def operator(name: str, newest: int, **more: Any) -> Callable[[Any], Any]:
    """Add an operator that the decorated function computes."""

    def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
        register(name, newest, run, **more)
        return run

    return decorate


@dataclass(frozen=True, slots=True)
class Node:
    """A call of an operator in a graph.

    Attributes
    ----------
    operator : Operator
    version : int
        Of the operator: the opset that introduced it.
    inputs, outputs : tuple of str
        Names of values; empty for those that are missing.
    attributes : dict
        All that have a value or a default: numbers, str, lists, arrays or graphs.
    where : str
        Names the node in errors.
    """

    operator: Operator
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default if it has no value."""
        value = self.attributes.get(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        """Return an attribute, which has a value."""
        value = self.attributes.get(name)
        if value is None:
            raise ValueError(f"expected an attribute {name}")
        return value


def supported(domain: str) -> str:
    """Return the names of the operators of a domain, for messages."""
    return ", ".join(sorted(name for of, name in OPERATORS if of == domain))


def integers(values: Array | Sequence[int], name: str) -> list[int]:
    """Return whole numbers from an input or an attribute."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected whole numbers, got {array.dtype}")
    return [int(v) for v in array.reshape(-1)]
