"""N-gram models: the baseline for a character model."""

from __future__ import annotations

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array


def ngram_bits_per_char(train: str, text: str, order: int) -> float:
    """Return bits per character of `text` under an n-gram model of `train`.

    Interpolated Witten-Bell (Chen and Goodman 1998, section 2.5), in the counts of PPM's escape
    method C: p(c | h) = (count(hc) + D(h) p(c | h')) / (count(h) + D(h)), where D(h) is the number
    of distinct characters seen after the context h, and h' is h without its oldest character. The
    empty context backs off to the uniform distribution over the characters of both texts.

    Parameters
    ----------
    train : str
        Text to fit the model on.
    text : str
        Text to evaluate, which follows `train`. Its first character serves as context only, as in
        :meth:`fastrnn.text.CharLM.bits_per_char`.
    order : int
        Number of characters of context; 0 uses the frequencies of single characters.
    """
    for name, value in (("train", train), ("text", text)):
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    order = _checks.size(order, "order", 0)
    if len(train) <= order or len(text) < 2:
        raise ValueError(
            f"train, text: expected more than {order} and more than 1 characters, "
            f"got {len(train)} and {len(text)}"
        )
    codes = np.frombuffer((train + text).encode("utf-32-le", "surrogatepass"), np.uint32)
    alphabet, ids = np.unique(codes, return_inverse=True)
    V, n = len(alphabet), len(train)
    if V ** (order + 1) > np.iinfo(np.int64).max:
        raise ValueError(f"order: {order} is too large for {V} distinct characters")
    p = np.full(len(text) - 1, 1 / V)
    context = np.zeros(len(ids), np.int64)
    for length in range(order + 1):
        # grams[i] is the context of `length` characters before character `length + i`, and itself.
        grams = context[: len(ids) - length] * V + ids[length:]
        seen, asked = grams[: n - length], grams[n + 1 - length :]
        distinct = _count(np.unique(seen) // V, asked // V)
        in_context = _count(seen // V, asked // V)
        counts = _count(seen, asked)
        new = in_context == 0
        p = np.where(new, p, (counts + distinct * p) / np.where(new, 1, in_context + distinct))
        context = grams
    return float(-np.log2(p).mean())


def _count(among: Array, asked: Array) -> Array:
    """Return how often each of `asked` occurs in `among`."""
    keys, counts = np.unique(among, return_counts=True)
    at = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    return np.where(keys[at] == asked, counts[at], 0)
