"""The links of a chain: layers as they are found in a graph, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastrnn import _checks, layers
from fastrnn._core import generators
from fastrnn._types import Array
from fastrnn.onnx.operators.recurrent import cell_of, options, weights_of
from fastrnn.onnx.registry import Node

#: Options of layers with an own default for each, by the argument of the constructor.
Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Stateless:
    """A layer without a state.

    Attributes
    ----------
    kind : str
        The class.
    arguments, options
        Of its constructor.
    weights : mapping
        By the names of its parameters.
    """

    kind: str
    arguments: tuple[Any, ...]
    options: Options = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)

    def with_vector(self, name: str, vector: Array) -> Stateless | None:
        """Return the layer with one more weight; None if it has that, or can't have it."""
        if self.kind == "Normalization":
            return self._scaled(name, vector)
        if name in self.weights:
            return None
        weights = {**self.weights, name: vector}
        if self.kind == "Linear" and name == "bias":
            return replace(self, arguments=(*self.arguments[:2], True), weights=weights)
        if self.kind == "LayerNorm" and (name == "weight" or "weight" in self.weights):
            more = {**self.options, "elementwise_affine": True, "bias": name == "bias"}
            return replace(self, options=more, weights=weights)
        return None

    def _scaled(self, name: str, vector: Array) -> Stateless | None:
        """Return a normalisation that divides by a deviation, or multiplies by its inverse."""
        if name == "bias" or np.any(self.options["variance"] != 1):
            return None
        squares = np.square(vector.astype(np.float64))
        variance = squares if name == "deviation" else 1 / squares
        return replace(self, options={**self.options, "variance": variance})

    def layer(self) -> layers.Layer:
        """Return the layer."""
        dtypes = {a.dtype for a in self.weights.values()}
        more = {"dtype": dtypes.pop()} if dtypes else {}
        with generators.undrawn():
            made: layers.Layer = getattr(layers, self.kind)(*self.arguments, **self.options, **more)
        if self.weights:
            made.load_state_dict(self.weights)
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Recurrent:
    """One layer of a recurrent layer, in one or both directions.

    Attributes
    ----------
    kind : {"RNN", "GRU", "LSTM"}
    input_size, hidden_size : int
    reverse : tuple of bool
        Whether each direction runs from the end.
    options : mapping
        Of the constructor.
    scans : tuple of mapping
        The weights of each direction.
    time : str
        The axis of the graph's input that is time.
    initial : mapping
        Of each state, the input that it is, or the rows (D, H) that it always is; None for zeros.
    sequences : bool
        Whether every step's output is used.
    """

    kind: str
    input_size: int
    hidden_size: int
    reverse: tuple[bool, ...]
    options: Options
    scans: tuple[Mapping[str, Array], ...]
    time: str
    initial: Mapping[str, Any]
    sequences: bool = True

    @classmethod
    def of_node(
        cls, node: Node, weights: Sequence[Any], features: int, time: str, initial: Options
    ) -> Recurrent:
        """Return the layer that a node is.

        Parameters
        ----------
        node : Node
        weights : sequence
            W, R, B and P.
        features, time, initial
            The size of the input, and as above.
        """
        kind = node.operator.name
        given = options(node, kind)
        W, R, B, P = weights
        scans = weights_of(node, given, W, R, B, P)
        if scans[0]["weight_ih"].dtype != W.dtype or W.shape[-1] != features:
            raise ValueError("expected weights of float32 or float64 that fit the input")
        cells = [cell_of(given, d) for d in range(len(scans))]
        more = {k: v for k, v in cells[0][1].items() if k != "activations"}
        names = {cell.name for cell, _ in cells}
        if kind == "RNN" and names == {"rnn_relu"}:
            more["nonlinearity"] = "relu"
        elif len(names) > 1 or any("activations" in own for _, own in cells):
            flat = [a for of_direction in given.activations for a in of_direction]
            more["activations"] = [a if len(a) > 1 else a[0] for a in flat]
        if kind == "GRU":
            more["reset_after"] = given.reset_after
        if P is not None:
            more["peephole"] = True
        return cls(
            kind, features, R.shape[-1], given.reverse, more | {"bias": B is not None},
            tuple(scans), time, initial,
        )  # fmt: skip

    @property
    def states(self) -> tuple[str, ...]:
        """The names of its states."""
        return tuple(self.initial)

    def goes_on(self, above: Recurrent) -> bool:
        """Return whether another layer can be the next one of the same stack."""
        D = len(self.reverse)
        alike = (self.kind, self.hidden_size, self.reverse, self.options)
        return (
            self.sequences
            and alike == (above.kind, above.hidden_size, above.reverse, above.options)
            and above.input_size == D * self.hidden_size
            and self.scans[0]["weight_ih"].dtype == above.scans[0]["weight_ih"].dtype
        )


#: A layer of a chain.
Link = Stateless | Recurrent


def stacked(links: Sequence[Recurrent], *, batch_first: bool) -> layers.Layer:
    """Return a recurrent layer of these.

    Raises
    ------
    ValueError
        If a layer runs from the end and gives all its outputs.
    """
    first, last = links[0], links[-1]
    backwards = first.reverse == (True,)
    if backwards and (last.sequences or len(links) > 1):
        raise ValueError("expected the last output alone of a layer that runs from the end")
    more: dict[str, Any] = {"go_backwards": True} if backwards else {}
    dtype: np.dtype[Any] = first.scans[0]["weight_ih"].dtype
    if dtype not in _checks.DTYPES:
        raise ValueError(f"expected float32 or float64, got {dtype}")
    more |= {"bidirectional": len(first.reverse) > 1, "return_sequences": last.sequences}
    more |= {"num_layers": len(links), "batch_first": batch_first, "dtype": dtype}
    learned = _learned(links)
    if learned:
        more["learn_initial_state"] = True
    make = getattr(layers, first.kind)
    with generators.undrawn():
        made: layers.Layer = make(first.input_size, first.hidden_size, **first.options, **more)
    made.load_state_dict(
        learned
        | {
            f"{name}_l{k}{'_reverse' if d else ''}": array
            for k, link in enumerate(links)
            for d, scan in enumerate(link.scans)
            for name, array in scan.items()
        }
    )
    return made


def _learned(links: Sequence[Recurrent]) -> dict[str, Array]:
    """Return the initial states that are part of a layer, by the names of its parameters."""
    found = {}
    for state in links[0].states:
        rows = [getattr(link.initial[state], "rows", None) for link in links]
        none = [np.zeros((len(link.reverse), link.hidden_size)) for link in links]
        found[f"{state}_0"] = np.concatenate(
            [zeros if given is None else given for given, zeros in zip(rows, none, strict=True)]
        )
    return found if any(a.any() for a in found.values()) else {}
