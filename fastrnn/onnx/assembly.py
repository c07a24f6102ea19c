"""Layers and models from graphs that are chains of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastrnn.layers import Layer
from fastrnn.models.sequential import Sequential
from fastrnn.onnx.chains.values import Finals, Initial
from fastrnn.onnx.chains.walk import Chain, chain_of
from fastrnn.onnx.graph import Graph
from fastrnn.onnx.links import Link, Recurrent, stacked

#: The links of a layer, with their places in the chain.
Group = list[tuple[int, Link]]


def layers_of(graph: Graph, *, batch_first: bool = False) -> Layer | None:
    """Return the layer or Sequential that computes what a graph does; None if there is none.

    Its call has the graph's inputs, in their order and layout, and its outputs: a Sequential is
    batch-first, and gives states only where it is given some. With `batch_first` it may also be the
    Sequential of a graph that is time-first.
    """
    chain = chain_of(graph)
    if chain is None:
        return None
    for merged in (True, False):
        groups = _grouped(chain.links, merged)
        if _inputs_fit(chain, groups) and _finals_fit(chain, groups):
            try:
                return _made(chain, groups, batch_first)
            except (ValueError, TypeError):
                return None  # layers of other options or dtypes than we have
    return None


def _made(chain: Chain, groups: Sequence[Group], batch_first: bool) -> Layer | None:
    states = bool(chain.inputs or chain.finals)
    alone = len(groups) == 1 and isinstance(chain.links[0], Recurrent)
    if alone and (states or chain.time_first):
        return _layer(groups[0], batch_first=not chain.time_first)
    if (chain.time_first and not batch_first) or (states and not (chain.inputs and chain.finals)):
        return None
    return Sequential([_layer(group, batch_first=True) for group in groups])


def _layer(group: Group, *, batch_first: bool) -> Layer:
    links = [link for _, link in group]
    first = links[0]
    if isinstance(first, Recurrent):
        recurrent = [link for link in links if isinstance(link, Recurrent)]
        return stacked(recurrent, batch_first=batch_first)
    return first.layer()


def _grouped(links: Sequence[Link], merged: bool) -> list[Group]:
    """Return the links of each layer; if `merged`, those that can be one stack are."""
    groups: list[Group] = []
    for index, link in enumerate(links):
        below = groups[-1][-1][1] if groups else None
        stack = isinstance(link, Recurrent) and isinstance(below, Recurrent)
        if merged and stack and below.goes_on(link):  # type: ignore[union-attr, arg-type]
            groups[-1].append((index, link))
        else:
            groups.append([(index, link)])
    return groups


def _states(groups: Sequence[Group]) -> list[tuple[str, list[tuple[int, Recurrent]]]]:
    """Return each state of each recurrent layer, in order: its name, and the layer's links."""
    found = []
    for group in groups:
        links = [(index, link) for index, link in group if isinstance(link, Recurrent)]
        if links:
            found += [(name, links) for name in links[0][1].states]
    return found


def _inputs_fit(chain: Chain, groups: Sequence[Group]) -> bool:
    """Return whether the initial states are inputs in the order of the layers, or none is."""
    names = iter(chain.inputs)
    for state, links in _states(groups):
        name = next(names, None)
        for k, (_, link) in enumerate(links):
            D = len(link.reverse)
            given = link.initial[state]
            if name is None and isinstance(given, Initial):
                return False
            if name is not None and given != Initial(name, k * D, (k + 1) * D):
                return False
    return next(names, None) is None


def _finals_fit(chain: Chain, groups: Sequence[Group]) -> bool:
    """Return whether the final states are outputs in the order of the layers, or none are."""
    expected = [
        [(index, name, d) for index, link in links for d in range(len(link.reverse))]
        for name, links in _states(groups)
    ]
    few = len(groups) == 1 and len(chain.finals) < len(expected)
    expected = expected[: len(chain.finals)] if few or not chain.finals else expected
    return len(expected) == len(chain.finals) and all(
        _is_final(final, slots, chain.links)
        for final, slots in zip(chain.finals, expected, strict=True)
    )


def _is_final(final: Finals, slots: Sequence[Any], links: Sequence[Link]) -> bool:
    """Return whether these are the final states in `slots`, of the chain's own layers."""

    def weights(of: Sequence[Link], index: int) -> Any:
        link = of[index]
        return link.scans if isinstance(link, Recurrent) else None

    return (
        not final.single
        and list(final.slots) == list(slots)
        and all(weights(final.links, k) is weights(links, k) for k, _, _ in slots)
    )
