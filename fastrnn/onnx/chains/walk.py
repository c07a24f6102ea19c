"""Graphs that are chains of layers: recognised by walking them once, with shapes in place of data.

Each value of a graph becomes a `Signal` (the output of the layers so far, and what its axes are),
initial or final states, zeros, or an array, where it is known. Sizes that differ from call to call
stand as large primes in the arithmetic of shapes that exporters write. What fits nothing of this
ends the walk: the graph is no chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx.chains.handlers import HANDLERS
from fastrnn.onnx.chains.values import (
    LEAD,
    Axes,
    Finals,
    Initial,
    Learned,
    NoChain,
    Signal,
    Zeros,
    signal_of,
)
from fastrnn.onnx.graph import Graph, Step
from fastrnn.onnx.links import Link, Recurrent

#: Sizes of the axes that differ from call to call: nothing else has them.
_PROBES = (1000003, 1000033)

#: Arrays larger than this are not computed.
_LARGEST = 1 << 16

#: Operators of which inputs after the first may be computed from sizes.
_TAKES_SIZES = ("Gather", "Reshape", "Slice", "Split")

#: What stands for outputs that are among the values already.
_KNOWN = object()


class Walk:
    """Walks a graph.

    Attributes
    ----------
    values : dict
        Each value so far.
    """

    def __init__(self, graph: Graph) -> None:
        self.values: dict[str, Any] = dict(graph.constants)
        #: Names of values that are computed from sizes, and so are no weights.
        self._sizes: set[str] = set()
        if not graph.inputs:
            raise NoChain
        first, *others = graph.inputs
        for value in others:
            if not value.shape or not isinstance(value.shape[0], int):
                raise NoChain
            self.values[value.name] = Initial(value.name, 0, value.shape[0])
        self.values[first.name] = self._input(first)
        for step in graph.steps:
            self._take(step)
        self.inputs = [value.name for value in others]
        self.outputs = [self.values[value.name] for value in graph.outputs]

    def _input(self, value: Any) -> Signal:
        shape, dtype = value.shape, value.dtype
        tokens = dtype is not None and dtype.kind in "iu"
        if shape is None or len(shape) != (2 if tokens else 3):
            raise NoChain
        if not tokens and (dtype not in _checks.DTYPES or not isinstance(shape[2], int)):
            raise NoChain
        sizes = {
            label: probe if isinstance(n, str) else n
            for label, n, probe in zip(LEAD, shape[:2], _PROBES, strict=True)
        }
        axes: Axes = (("x0",), ("x1",))
        if tokens:
            return Signal((), axes, sizes)
        return Signal((), (*axes, ("F",)), sizes | {"F": shape[2]})

    def _take(self, step: Step) -> None:
        name = step.node.operator.name
        inputs = [self.values[n] if n else None for n in step.inputs]
        given = [a for a in inputs if a is not None]
        of_sizes = self._sizes.intersection(step.inputs)
        if all(isinstance(a, np.ndarray) for a in given):
            results: Any = self._known(step, given)
        else:
            if of_sizes and (name not in _TAKES_SIZES or step.inputs[0] in of_sizes):
                raise NoChain
            if step.node.operator.domain or name not in HANDLERS:
                raise NoChain
            results = HANDLERS[name](step, *inputs)
        if name == "Shape" or (of_sizes and results is _KNOWN):
            self._sizes.update(step.node.outputs)
        if results is _KNOWN:
            return
        results = results if isinstance(results, tuple) else (results,)
        for output, result in zip(step.node.outputs, results, strict=False):
            if output:
                self.values[output] = result

    def _known(self, step: Step, given: Sequence[Array]) -> Any:
        """Compute a step of arrays, or see that it makes zeros."""
        name = step.node.operator.name
        if name == "ConstantOfShape":
            value = step.node.get("value")
            if value is not None and value.any():
                raise NoChain
            return Zeros()
        if name in ("Expand", "Tile"):
            return _same_for_all(given[0])
        if step.node.operator.growth == "data" or sum(a.size for a in given) > _LARGEST:
            raise NoChain
        done_with, step.done_with = step.done_with, ()
        try:
            step(self.values)
        finally:
            step.done_with = done_with
        return _KNOWN


def _same_for_all(a: Array) -> Zeros | Learned:
    """Return what an array (L*D, 1, H) is that is repeated along the batch, an initial state."""
    if not a.any():
        return Zeros()
    if a.ndim != 3 or a.shape[1] != 1:
        raise NoChain
    return Learned(a[:, 0])


@dataclass(slots=True)
class Chain:
    """A graph as layers.

    Attributes
    ----------
    links : tuple of Link
    time_first : bool
        Whether the first axis of input and output is that of time.
    inputs : list
        The names of initial states.
    finals : list of Finals
        Of outputs after the first.
    """

    links: tuple[Link, ...]
    time_first: bool
    inputs: list[str]
    finals: list[Finals] = field(default_factory=list)


def chain_of(graph: Graph) -> Chain | None:
    """Return what layers a graph is a chain of; None if it is none."""
    try:
        walk = Walk(graph)
        first, *finals = walk.outputs
        y = signal_of(first)
        if not y.features or not y.links or any(not isinstance(f, Finals) for f in finals):
            return None
        recurrent = [link for link in y.links if isinstance(link, Recurrent)]
        times = {link.time for link in recurrent} or {"x1"}
        if len(times) > 1:
            return None
        time_first = times == {"x0"}
        lead = [axis[0] if len(axis) == 1 else "" for axis in y.axes[:-1]]
        last = any(not link.sequences for link in recurrent)
        if lead != ([LEAD[time_first]] if last else [*LEAD]):
            return None
        return Chain(y.links, time_first, walk.inputs, finals)
    except (NoChain, ValueError, TypeError, IndexError, KeyError, RuntimeError, StopIteration):
        return None
