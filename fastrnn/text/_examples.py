"""Texts and labels as users give them, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._types import Array

_EXPECTED = 'expected a sequence of str, such as df["text"]'


@dataclass(frozen=True)
class Examples:
    """Texts as tokens, and their classes.

    Attributes
    ----------
    texts : list of list of str
    target : (n,) array
    count : (n,) array or None
        `sample_weight`.
    weight : (n,) array or None
        Of the texts in the loss: `count` times the weights of the classes.
    """

    texts: list[list[str]]
    target: Array
    count: Array | None
    weight: Array | None

    def __getitem__(self, rows: Array) -> Self:
        texts = [self.texts[i] for i in rows]
        count, weight = (None if a is None else a[rows] for a in (self.count, self.weight))
        return type(self)(texts, self.target[rows], count, weight)


def texts(value: Any, name: str) -> list[str]:
    """Return a list of texts."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    try:
        texts = _frames.items(value, name)
    except TypeError as error:
        said = str(error).replace("expected a sequence", _EXPECTED)
        raise TypeError(said) from None
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            if _frames.is_missing(text):
                raise ValueError(
                    f"{name}[{i}]: is missing, it is {text!r}; leave such rows out, or pass ''"
                )
            raise TypeError(f"{name}[{i}]: expected a str, got {type(text).__name__}")
    return texts


def expect_some(texts: Sequence[str], name: str) -> None:
    if not texts:
        raise ValueError(f"{name}: expected one text or more, got none")


def _expect_present(labels: Iterable[Any], name: str) -> None:
    for i, label in enumerate(labels):
        if _frames.is_missing(label):
            raise ValueError(f"{name}[{i}]: is missing, it is {label!r}; leave such rows out")


def labels(value: Any, name: str, n: int) -> Array:
    """Return labels as an array (n,) of str, int, bool, or floats that are whole numbers."""
    try:
        labels = _frames.values(value, name)
    except ValueError:
        _expect_present(_frames.items(value, name), name)
        raise
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "OTfU":
        objects = labels.ravel().tolist() if labels.dtype.kind != "U" else value
        _expect_present(objects, name)
        texts = {isinstance(label, str) for label in objects}
        if texts == {True, False}:
            raise TypeError(f"{name}: expected labels of one type, got str and others")
        if texts == {True}:
            labels = labels.astype(str)
    whole = labels.dtype.kind == "f" and bool((labels == np.trunc(labels)).all())
    if labels.dtype.kind not in "biuU" and not whole:
        raise TypeError(f"{name}: expected str, int or bool, got dtype {labels.dtype}")
    return _checks.expect_shape(labels, name, (n,))


def known(labels: Array, classes: Array, name: str) -> Array:
    """Return labels as indices into the classes."""
    at = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = labels[classes[at] != labels]
    if unknown.size:
        first = unknown.tolist()[0]
        raise ValueError(f"{name}: expected labels among {classes}, got {first!r}")
    return at


def class_weight(value: Any, name: str) -> None:
    """Check the kind of a setting `class_weight`, whose labels only `fit` knows."""
    if not isinstance(value, Mapping):
        _checks.choice(value, name, ("balanced",))
        return
    for label, weight in value.items():
        _checks.not_negative(weight, f"{name}[{label!r}]")
