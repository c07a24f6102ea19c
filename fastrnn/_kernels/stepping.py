"""Steps: conversion of a caller's arrays for the kernels, and sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.interface import Convert
from fastrnn._types import Array


def converter(
    batch_size: int,
    input_size: int,
    output_size: int,
    dtype: np.dtype[Any],
    *,
    vocabulary: int | None = None,
) -> Convert:
    """Return a function that checks and converts the arrays of a step from (B, I) to (B, P).

    (I,) and (P,) are accepted too if B is 1. With a `vocabulary` V, the input is (B,) tokens below
    it, or a single one.
    """
    B, I, P = batch_size, input_size, output_size

    def convert(x: Any, out: Any) -> tuple[Array, Array, Array, Any]:
        """Return (B, I) or (B,) to read, (B, P) to write, that as to be returned, and pins."""
        if vocabulary is None:
            x = _checks.array(x, "x_t", dtype)
        else:
            x = _checks.whole_numbers(_checks.indices(x, "x_t", vocabulary), "x_t")
        single = B == 1 and x.ndim == (vocabulary is None)
        rows = () if single else (B,)
        pins = None if rows and x.flags.c_contiguous else _checks.pinned(x, out)
        features = (I,) if vocabulary is None else ()
        x = np.ascontiguousarray(_checks.expect_shape(x, "x_t", (*rows, *features)))
        shape = (*rows, P)
        y = np.empty(shape, dtype) if out is None else _checks.writable(out, "out", dtype, shape)
        return (x.reshape(B, *features), y.reshape(B, P), y, pins) if single else (x, y, y, pins)

    return convert


class Sampling(ABC):
    """Sampling, for whatever advances by one step."""

    __slots__ = ()

    @abstractmethod
    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """Advance by one step, from `x_t`; return the output, in `out` if given."""

    def sample(
        self, logits: Array, draws: Array, *, temperature: float, top_k: int, never: int = -1
    ) -> Array:
        """Draw a token for each of `draws`, which the next step reads; return all."""
        tokens = np.zeros(len(draws), np.intp)
        for i, u in enumerate(np.array(draws, np.float64)):
            if never >= 0:
                logits[never] = -np.inf
            tokens[i] = drawn(logits, temperature, top_k, u)
            self.step(tokens[i], logits)
        return tokens


@np.errstate(all="ignore")
def drawn(logits: Array, temperature: float, k: int, u: float) -> int:
    """Return the token at `u`, 0 to 1, of softmax(logits / temperature), of the k likeliest.

    They are in the order of their probabilities.
    """
    likeliest = np.argsort(-logits, kind="stable")[:k]
    if temperature == 0:
        return int(likeliest[0])
    z = logits[likeliest].astype(np.float64)
    sums = np.exp((z - z[0]) / temperature).cumsum()
    at = int(np.searchsorted(sums, u * sums[-1], side="right"))
    return int(likeliest[at if at < k else 0])  # none is, if a number is NaN
