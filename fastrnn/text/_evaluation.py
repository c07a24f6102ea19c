"""Evaluation of a network that predicts the next token, and sampling from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.layers import Dropout
from fastrnn.losses import cross_entropy
from fastrnn.models import estimators
from fastrnn.models.network import Network
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam

#: Evaluation cuts a text into pieces of at least `_PIECE` characters, run as one batch, each after
#: a warm-up on the characters before it.
_PIECE, _WARM_UP, _MAX_PIECES = 2000, 200, 64

#: Characters scored between two updates of an adapting model.
_ADAPT_EVERY = 16


def mean_bits(net: Sequential, ids: Array) -> float:
    """Return bits per token of all but the first of `ids`."""
    network = Network(net.layers)
    n = len(ids) - 1
    pieces = max(1, min(n // _PIECE, _MAX_PIECES))
    L = n // pieces
    starts = np.arange(pieces) * L
    nats = 0.0
    states: list[Any] | None = None
    if pieces > 1:
        _, states = network.apply(ids[starts + np.arange(-_WARM_UP, 0)[:, None]])
        # No characters precede the first piece: its warm-up read others.
        states = [_each(_first_zeroed, state) for state in states]
    for t in range(0, L, _WARM_UP):
        at = starts + np.arange(t, min(t + _WARM_UP, L))[:, None]
        y, states = network.apply(ids[at], states)
        nats += cross_entropy(y, ids[at + 1]) * at.size
    rest = ids[pieces * L :]
    if len(rest) > 1:
        # The remainder of the division continues the last piece.
        last = [_each(lambda s: s[:, -1:], state) for state in states or ()]
        y, _ = network.apply(rest[:-1, None], last)
        nats += cross_entropy(y, rest[1:, None]) * (len(rest) - 1)
    return nats / n / math.log(2)


def _each(function: Callable[[Array], Array], state: Any) -> Any:
    """Return a recurrent layer's state with a function applied to each of its arrays."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


def _first_zeroed(s: Array) -> Array:
    return np.concatenate([np.zeros_like(s[:, :1]), s[:, 1:]], axis=1)


def adaptive_bits(net: Sequential, ids: Array, lr: float, clip_norm: float) -> float:
    """Return bits per token of all but the first of `ids`, training on each chunk once scored.

    The network itself is not changed.
    """
    net = copy.deepcopy(net)
    recurrent: Any
    for layer in net.layers:
        if isinstance(layer, Dropout):
            layer.p = 0
        elif layer.has_state:
            recurrent = layer
            recurrent.dropout = recurrent.weight_dropout = 0
    # `fit` measures the loss of each chunk before its optimizer step.
    history = estimators.fit(
        net, Adam(lr, clip_norm=clip_norm), "cross_entropy", ids[None, :-1], ids[None, 1:],
        batch_size=1, bptt=_ADAPT_EVERY, shuffle=False, verbose=0,
    )  # fmt: skip
    return float(estimators.to_the_end(history).history["loss"][0] / math.log(2))
