"""The net of a character model, and what it is asked."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.layers import GRU, LSTM, RNN, Dropout, Embedding, Linear
from fastrnn.layers.dropout import DropoutTape
from fastrnn.losses import cross_entropy
from fastrnn.optim import Adam

#: Evaluation cuts a text into pieces of at least so many characters, run side by side, each after
#: a warm-up on the characters before it.
_PIECE, _WARM_UP, _MAX_PIECES = 2000, 200, 64

#: Characters scored between two updates of a model that adapts.
_ADAPT_EVERY = 16


@dataclasses.dataclass(frozen=True)
class Net:
    """Embedding, recurrent layers, linear; time-major: (T, B) indices to (T, B, V) logits.

    Training drops inputs, outputs and, anew for each chunk, recurrent weights (DropConnect: Merity
    et al. 2018).
    """

    embedding: Embedding
    input_dropout: Dropout
    recurrent: RNN | LSTM | GRU
    dropout: Dropout
    linear: Linear
    weight_dropout: Dropout

    def parameters(self) -> dict[str, Array]:
        return {
            f"{field.name}.{name}": array
            for field in dataclasses.fields(self)
            for name, array in getattr(self, field.name).parameters().items()
        }

    def logits(self, x: Array, state: Any) -> tuple[Array, Any]:
        y, state = self.recurrent(self.embedding(x), state)
        return self.linear(y), state

    def loss_and_grads(
        self, x: Array, target: Array, state: Any
    ) -> tuple[float, dict[str, Array], Any]:
        """Loss in nats, gradients by the names of `parameters`, and the state to go on from."""
        y, tape_e = self.embedding.forward(x)
        y, tape_i = self.input_dropout.forward(y)
        with self._weights_dropped() as tapes_w:
            y, state, tape_r = self.recurrent.forward(y, state)
        y, tape_d = self.dropout.forward(y)
        y, tape_l = self.linear.forward(y)
        loss, d = cross_entropy.value_and_grad(y, target)
        d, grads_l = self.linear.backward(tape_l, d)
        d, _ = self.dropout.backward(tape_d, d)
        d, _, grads_r = self.recurrent.backward(tape_r, d)
        for name, tape_w in tapes_w.items():
            grads_r[name], _ = self.weight_dropout.backward(tape_w, grads_r[name])
        d, _ = self.input_dropout.backward(tape_i, d)
        _, grads_e = self.embedding.backward(tape_e, d)
        grads = {"embedding": grads_e, "recurrent": grads_r, "linear": grads_l}
        return loss, {f"{p}.{n}": g for p, of in grads.items() for n, g in of.items()}, state

    @contextmanager
    def _weights_dropped(self) -> Iterator[dict[str, DropoutTape]]:
        """Meanwhile the recurrent weights lack some; yields which, by name."""
        if not self.weight_dropout.p:
            yield {}
            return
        weights = {n: w for n, w in self.recurrent.parameters().items() if "weight_hh" in n}
        whole = {name: w.copy() for name, w in weights.items()}
        tapes = {}
        try:
            for name, w in weights.items():
                w[...], tapes[name] = self.weight_dropout.forward(w)
            yield tapes
        finally:  # Ctrl-C keeps the model.
            for name, w in whole.items():
                weights[name][...] = w


def mean_bits(net: Net, ids: Array) -> float:
    """Bits per character of all but the first of `ids`."""
    n = len(ids) - 1
    pieces = max(1, min(n // _PIECE, _MAX_PIECES))
    L = n // pieces
    starts = np.arange(pieces) * L
    nats = 0.0
    state: Any = None
    if pieces > 1:
        # The first piece has nothing before it: it warms up on something, and is reset.
        _, state = net.logits(ids[starts + np.arange(-_WARM_UP, 0)[:, None]], None)
        for s in state if isinstance(state, tuple) else (state,):
            s[:, 0] = 0
    for t in range(0, L, _WARM_UP):
        at = starts + np.arange(t, min(t + _WARM_UP, L))[:, None]
        logits, state = net.logits(ids[at], state)
        nats += cross_entropy(logits, ids[at + 1]) * at.size
    rest = ids[pieces * L :]
    if len(rest) > 1:
        # What the division left over goes on from the last piece.
        last = tuple(s[:, -1:] for s in state) if isinstance(state, tuple) else state[:, -1:]
        logits, _ = net.logits(rest[:-1, None], last)
        nats += cross_entropy(logits, rest[1:, None]) * (len(rest) - 1)
    return nats / n / math.log(2)


def adaptive_bits(net: Net, ids: Array, lr: float, clip_norm: float) -> float:
    """Bits per character of all but the first of `ids`, each chunk learned from once it is scored.

    The net itself stays as it is.
    """
    net = copy.deepcopy(net)
    for field in dataclasses.fields(net):
        getattr(net, field.name).eval()
    parameters = net.parameters()
    adam = Adam(lr, clip_norm=clip_norm)
    nats = 0.0
    state: Any = None
    for t in range(0, len(ids) - 1, _ADAPT_EVERY):
        chunk = ids[t : t + _ADAPT_EVERY + 1, None]
        loss, grads, state = net.loss_and_grads(chunk[:-1], chunk[1:], state)
        nats += loss * (len(chunk) - 1)
        adam.step(parameters, grads)
    return nats / (len(ids) - 1) / math.log(2)


def sample(logits: Array, temperature: float, k: int, rng: np.random.Generator) -> int:
    """One of the `k` likeliest, drawn from softmax(logits / temperature)."""
    likeliest = np.argsort(-logits, kind="stable")[:k]
    if temperature == 0:
        return int(likeliest[0])
    z = logits[likeliest].astype(np.float64) / temperature
    p = np.exp(z - z[0])
    return int(likeliest[np.searchsorted(p.cumsum(), rng.random() * p.sum(), side="right")])
