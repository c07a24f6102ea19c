"""Initial weights from counts: a network that starts as a naive Bayes classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastrnn._kernels.cells import WEIGHTS
from fastrnn._types import Array
from fastrnn.models import estimators
from fastrnn.models.sequential import Sequential

#: Texts that the scale of the evidence is chosen on, and the scales tried.
_TEXTS = 1000
_SCALES = np.geomspace(0.05, 2, 20)

#: The input weight of a unit that adds up evidence: small enough that tanh hardly bends it.
_GAIN = 0.5

#: Units of a second layer pass on the sums of the first: they take on this share of a new value.
_PASSED = 0.95

#: The span of a leaky sum, in mean lengths of a text; and 3 (1 - exp(-1/3)), the mean weight of the
#: words of a text of this length in it.
_SPAN, _REACHED = 3, 0.850

#: Cells with units that can keep leaky sums, h' = (1 - e) h + e tanh(x): the block of the
#: candidate, and those of gates with the bias that makes them constant. "keep" and "add" are the
#: logits of 1 - e and e. Without gates, the recurrent weight is 1 - e. An IndRNN (ReLU) learns
#: sums by itself.
_CELLS: dict[str, tuple[int, dict[int, Any]]] = {
    "lstm": (2, {0: "add", 1: "keep", 3: 4.0}),
    "gru": (2, {1: "keep"}),
    "rnn": (0, {}),
}


@dataclass(frozen=True)
class Evidence:
    """What each word says about the class of a text.

    Attributes
    ----------
    words : (V, C) array
        log((count + 1) / (expected + 1)) of the texts of a class that hold the word, where the
        expected count is that of a word that says nothing; the mean over the classes is 0. For two
        classes of equal size these are the log-count ratios of Wang and Manning (2012).
    prior : (C,) array
        The logarithm of the classes' frequencies.
    counts : (V,) array
        Texts that hold the word.
    scale : float
        What the sum of prior and words is multiplied by: a text is not a number of independent
        draws. Chosen by the likelihood of the texts, each left out of the counts (Guo et al. 2017
        scale logits likewise).
    length : float
        Mean number of words of a text.
    """

    words: Array
    prior: Array
    counts: Array
    scale: float
    length: float

    @classmethod
    def of(
        cls,
        ids: Sequence[Array],
        target: Array,
        words: int,
        classes: int,
        *,
        count: Array | None = None,
        weight: Array | None = None,
    ) -> Self:
        """Count words.

        Parameters
        ----------
        ids : sequence of (T_i,) array
            The words of each text; 0 says nothing.
        target : (n,) array
            Classes.
        words, classes : int
            V and C.
        count : (n,) array, optional
            How often each text counts. Default: once.
        weight : (n,) array, optional
            Of each text in `prior` and `scale`; that of a class says nothing about its words.
            Default: 1.
        """
        n = len(ids)
        count = np.ones(n) if count is None else count * (n / count.sum())
        weight = np.ones(n) if weight is None else weight * (n / weight.sum())
        lengths = np.array([len(of_text) for of_text in ids])
        text, word = np.divmod(
            np.unique(np.repeat(np.arange(n), lengths) * words + np.concatenate(ids)), words
        )
        text, word = text[word > 0], word[word > 0]
        counts = np.bincount(word * classes + target[text], count[text], words * classes).reshape(
            words, classes
        )
        # A class may have weight 0.
        prior = np.log(np.bincount(target, weight, classes).clip(min=0.5) / n)
        ratios = _ratios(counts, counts.sum(axis=0))
        every = -(-n // _TEXTS)
        at, some = text % every == 0, slice(None, None, every)
        sums = _left_out(counts, text[at] // every, word[at], target[some], count[some])
        losses = [loss(scale * (prior + sums), target[some], weight[some]) for scale in _SCALES]
        scale = float(_SCALES[np.argmin(losses)])
        return cls(ratios, prior, counts.sum(axis=1), scale, float(lengths.mean()))


def _ratios(counts: Array, totals: Array) -> Array:
    """Return the evidence of words, given their counts by class and the sums of all words'."""
    shares = totals / np.maximum(totals.sum(axis=-1, keepdims=True), 1e-9)
    expected = counts.sum(axis=1, keepdims=True) * shares
    ratios = np.log((counts + 1) / (expected + 1))
    centred: Array = ratios - ratios.mean(axis=1, keepdims=True)
    return centred


def _left_out(counts: Array, text: Array, word: Array, target: Array, count: Array) -> Array:
    """Return the evidence of each text's words, had the text not been counted."""
    C = counts.shape[1]
    own = count[text, None] * (target[text, None] == np.arange(C))
    n = len(target)
    held = np.stack([np.bincount(text, own[:, c], n) for c in range(C)], axis=1)
    ratios = _ratios(np.maximum(counts[word] - own, 0), (counts.sum(axis=0) - held)[text])
    return np.stack([np.bincount(text, ratios[:, c], n) for c in range(C)], axis=1)


def loss(logits: Array, target: Array, weight: Array | None) -> float:
    """Return the cross-entropy, summed over texts."""
    p = estimators.softmax(logits)[np.arange(len(target)), target]
    nats = -np.log(np.maximum(p, 1e-300))
    return float(nats.sum() if weight is None else weight @ nats)


def install(net: Sequential, cell: str, evidence: Evidence) -> None:
    """Set weights of a network such that its logits start as the sums of the words' evidence.

    A few hidden units keep leaky sums of the evidence, which a few features of the embedding hold;
    the other units start at random, and the linear layer does not read them yet. Networks with
    fewer than four units or features, and those of other cells, are left as they are.

    Parameters
    ----------
    net : Sequential
        Embedding, dropout, recurrent layer, dropout, linear layer.
    cell : str
        The name of the recurrent layer.
    evidence : Evidence
    """
    layers: Any = net.layers
    table, linear = layers[0].parameters()["weight"], layers[4].parameters()
    recurrent = layers[2]
    H, D = recurrent.hidden_size, 1 + recurrent.bidirectional
    k = min(len(evidence.prior) - 1, table.shape[1] // 4, H // 4)
    if not k or cell not in _CELLS:
        return
    # The directions in the space of classes along which words differ most.
    words = evidence.words
    # einsum gives the same bits with any number of threads.
    spread = np.einsum("v,vc,vd->cd", evidence.counts, words, words)
    axes = np.linalg.eigh(spread)[1][:, -k:]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(k)])
    table[:, :k] = np.einsum("vc,ck->vk", words, axes)
    share = 1 / max(_SPAN * evidence.length, 2.0)
    weights = recurrent.parameters()
    for layer in range(recurrent.num_layers):
        for d in range(D):
            suffix = f"_l{layer}" + "_reverse" * d
            sources = np.arange(k) + (d * H if layer else 0)
            add = share if layer == 0 else _PASSED
            _keep_sums(cell, weights, suffix, sources, add)
    linear["weight"][...] = 0
    total = share * _GAIN * _REACHED * (_PASSED * _GAIN) ** (recurrent.num_layers - 1)
    for d in range(D):
        linear["weight"][:, d * H : d * H + k] = axes * (evidence.scale / (D * total))
    linear["bias"][...] = evidence.scale * (evidence.prior - evidence.prior.mean())


def _keep_sums(
    cell: str, weights: dict[str, Array], suffix: str, sources: Array, add: float
) -> None:
    """Let the first units of a layer compute h' = (1 - add) h + add tanh(gain x)."""
    candidate, gates = _CELLS[cell]
    ih, hh, b_ih, b_hh = (weights[name + suffix] for name in WEIGHTS)
    k, H = len(sources), hh.shape[1]
    bias = {"keep": np.log((1 - add) / add), "add": np.log(add / (1 - add))}
    for gate in range(len(ih) // H):
        rows = slice(gate * H, gate * H + k)
        for array in (ih, hh, b_ih, b_hh):
            array[rows] = 0
        if gate in gates:
            b_ih[rows] = bias.get(gates[gate], gates[gate])
    units = np.arange(k)
    ih[candidate * H + units, sources] = _GAIN
    if not gates:
        ih[units, sources] *= add
        hh[units, units] = 1 - add
