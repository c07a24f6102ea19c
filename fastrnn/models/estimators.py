"""What the estimators have in common: a net that answers from the last step, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.layers import GRU, LSTM, RNN, Dropout, Linear
from fastrnn.layers.base import Layer
from fastrnn.models.history import History
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam
from fastrnn.schedules import CosineDecay

CELLS: dict[str, type[RNN | LSTM | GRU]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def cell(value: Any) -> type[RNN | LSTM | GRU]:
    """The layer of this name."""
    return CELLS[_checks.choice(value, "cell", CELLS)]


def seeds(seed: int | None, n: int) -> list[int]:
    """`n` independent seeds out of one."""
    return [int(s) for s in np.random.SeedSequence(_checks.seed(seed)).generate_state(n, np.uint64)]


def last_step_net(
    first: Sequence[Layer],
    kind: str,
    input_size: int,
    hidden_size: int,
    outputs: int,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.0,
    dtype: Any = np.float32,
    seed: int | None = None,
) -> Sequential:
    """`first`, then recurrent layers of this kind, dropout, and a linear map of the last step."""
    _checks.fraction(dropout, "dropout")
    num_layers = _checks.size(num_layers, "num_layers")
    for_recurrent, for_dropout, for_linear, for_training = seeds(seed, 4)
    recurrent = cell(kind)(
        input_size,
        hidden_size,
        num_layers,
        dropout=dropout if num_layers > 1 else 0.0,
        bidirectional=bidirectional,
        return_sequences=False,
        dtype=dtype,
        seed=for_recurrent,
    )
    features = hidden_size * (2 if bidirectional else 1)
    head = [
        Dropout(dropout, seed=for_dropout),
        Linear(features, outputs, dtype=dtype, seed=for_linear),
    ]
    return Sequential([*first, recurrent, *head], seed=for_training)


def fit(net: Sequential, x: Any, y: Array, **options: Any) -> History:
    """Train to the end: a half-trained net that looks like a trained one is no use to anyone.

    Raises
    ------
    KeyboardInterrupt
        Where ``net.fit`` would end early.
    """
    history = net.fit(x, y, **options)
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def softmax(logits: Array) -> Array:
    """exp(z) / sum exp(z) over the last axis, in float64."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    found: Array = p / p.sum(axis=-1, keepdims=True)
    return found


def adam(lr: float, clip_norm: float, examples: int, batch_size: int, epochs: int) -> Adam:
    """Adam with the learning rate falling to 0 along half a cosine over all epochs."""
    steps = epochs * -(-examples // batch_size)
    return Adam(CosineDecay(_checks.positive(lr, "lr"), steps), clip_norm=clip_norm)
