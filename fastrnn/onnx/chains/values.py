"""What values of a graph are in a walk: outputs of layers, states, zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from fastrnn._types import Array
from fastrnn.onnx.links import Link, Recurrent, Stateless

#: Axes of the first input whose size differs from call to call.
LEAD = ("x0", "x1")
LEAD_AXES = tuple((label,) for label in LEAD)

Axes = tuple[tuple[str, ...], ...]


class NoChain(Exception):  # noqa: N818 (it is no error: the graph is evaluated instead)
    """Ends the walk."""


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """The output of layers.

    Attributes
    ----------
    links : tuple of Link
        The layers.
    axes : tuple of tuple of str
        What each axis is: labels of which it is the product; of none, where its size is 1.
    sizes : mapping
        The size of each label.
    """

    links: tuple[Link, ...]
    axes: Axes
    sizes: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return tuple(math.prod(self.sizes[label] for label in axis) for axis in self.axes)

    @property
    def features(self) -> int:
        """The size of the last axis, if it holds all features."""
        last = self.axes[-1] if self.axes else ()
        others = {label for axis in self.axes[:-1] for label in axis}
        if not last or not others <= {*LEAD} or {*last} & {*LEAD}:
            raise NoChain
        return self.shape[-1]

    def followed(self, link: Link, features: int | None = None) -> Signal:
        """Return the output of one more layer."""
        links = (*self.links, link)
        if features is None:
            return replace(self, links=links)
        lead = {label: n for label, n in self.sizes.items() if label in LEAD}
        return Signal(links, (*self.axes[:-1], ("F",)), lead | {"F": features})

    def with_weight(self, name: str, vector: Array) -> Signal:
        """Return a signal whose last layer has one more weight."""
        link = self.links[-1] if self.links else None
        more = link.with_vector(name, vector) if isinstance(link, Stateless) else None
        if more is None:
            raise NoChain
        return replace(self, links=(*self.links[:-1], more))


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros of any shape: initial states."""


@dataclass(frozen=True, slots=True)
class Initial:
    """Rows `first` to `last` of an input that is an initial state, (L*D, B, H)."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """An initial state that is the same for all rows of a batch: (L*D, H)."""

    rows: Array


@dataclass(frozen=True, slots=True, eq=False)
class Finals:
    """Final states, one after another along the first axis: of each, layer, name and direction.

    A `single` one is without that axis.
    """

    links: tuple[Link, ...]
    slots: tuple[tuple[int, str, int], ...]
    batch: str
    sizes: Mapping[str, int]
    single: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A part of a layer normalisation that is written as many nodes."""

    of: Signal
    stage: str
    eps: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Widened:
    """A signal in float64, to be standardised or restored: `of` before, and `now` after that."""

    of: Signal
    now: Signal


def signal_of(value: Any) -> Signal:
    """Return a value as a signal: final states as the last layer's output, if they are that."""
    if isinstance(value, Signal):
        return value
    if not isinstance(value, Finals):
        raise NoChain
    index = value.slots[0][0]
    links = value.links
    last = max(i for i, link in enumerate(links) if isinstance(link, Recurrent))
    link = links[index]
    assert isinstance(link, Recurrent)
    D = len(link.reverse)
    if index != last or value.slots != tuple((index, "h", d) for d in range(D)):
        raise NoChain
    links = (*links[:index], replace(link, sequences=False), *links[index + 1 :])
    sizes = {**value.sizes, "D": D}
    axes: Axes = ((value.batch,), ("H",))
    if not value.single:
        axes = (("D",) if D > 1 else (), *axes)
    return Signal(links, axes, sizes)


def axis_of(node: Any, name: str, rank: int, default: int | None = None) -> int:
    """Return an attribute that is an axis, from 0 to `rank` - 1."""
    axis = node.get(name, default)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise NoChain
    return axis % rank


def integers(value: Any) -> list[int]:
    """Return whole numbers from a constant or an attribute."""
    if not isinstance(value, list):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
            raise NoChain
        value = value.reshape(-1).tolist()
    return [int(n) for n in value]


def vector_of(a: Any, n: int) -> Array:
    """Return a constant that is added to, or multiplied by, the last axis of size n."""
    if not isinstance(a, np.ndarray) or a.size != n or (a.ndim and a.shape[-1] != n):
        raise NoChain
    return a.reshape(n)


def no_chain() -> NoReturn:
    """End the walk, as an expression."""
    raise NoChain
