"""A text classifier."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._types import Array
from fastrnn.layers import Dropout, Embedding
from fastrnn.models import estimators
from fastrnn.models.history import History
from fastrnn.models.sequential import Sequential

_UNITS = {
    #: A word with its inner apostrophes, or any other single symbol.
    "words": re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]"),
    "characters": re.compile(r"(?s)."),
}

#: Initial vectors are an Embedding's N(0, 1) scaled by this; otherwise their noise would outweigh
#: what training adds.
_EMBEDDING_SCALE = 0.1


@dataclasses.dataclass(frozen=True)
class _Fit:
    """The result of `fit`: its settings, classes, vocabulary, and the network."""

    by: TextClassifier
    classes: Array
    vocabulary: list[str]
    net: Sequential

    def ids(self, texts: Sequence[str]) -> list[Array]:
        """Return tokens as indices: 0 for unknown tokens, and for an empty text."""
        index = {token: i for i, token in enumerate(self.vocabulary, 1)}
        tokens = (self.by._tokens(text) or [""] for text in texts)
        return [np.array([index.get(token, 0) for token in of_text]) for of_text in tokens]

    def validation(self, data: Any) -> tuple[list[Array], Array]:
        """Return texts and labels as the network takes them."""
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError("validation_data: expected a pair (texts, labels)")
        texts = _texts(data[0], "validation_data")
        labels = _labels(data[1], "validation_data", len(texts))
        return self.ids(texts), _known(labels, self.classes)


@dataclasses.dataclass(eq=False)
class TextClassifier(estimators.Settings):
    """A text classifier: embedding, dropout, recurrent layers, dropout, linear, softmax.

    Each text, of any length, is read as lower-case words or as characters; those seen fewer than
    `min_count` times in training share one vector. The loss is cross-entropy; the optimizer is
    Adam, with its learning rate decaying to 0 along a half cosine.

    Parameters
    ----------
    unit : {"words", "characters"}
    cell : {"gru", ...}
        The recurrent layer, in lower case.
    embedding_dim, hidden_size, num_layers : int
    bidirectional : bool
        Whether texts are also read backwards.
    dropout : float
        Dropout probability of the embedding's outputs, between layers and before the linear layer.
    min_count : int
    max_length : int, optional
        Number of words or characters to read, from the start of each text. Default: all.
    lr, clip_norm : float
        Initial learning rate, and maximum global norm of the gradients.
    batch_size, epochs : int
    seed : int, optional
        For the initial weights, dropout and the order of texts. Default: fresh each time.

    Attributes
    ----------
    classes : (C,) array
        The labels fitted, sorted.
    vocabulary : list of str
        The words or characters that have a vector of their own, sorted.
    history : History
        Of the last `fit`.
    """

    unit: str = "words"
    _: dataclasses.KW_ONLY
    cell: str = "gru"
    embedding_dim: int = 64
    hidden_size: int = 64
    num_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.5
    min_count: int = 2
    max_length: int | None = None
    lr: float = 2e-3
    clip_norm: float = 1.0
    batch_size: int = 64
    epochs: int = 6
    seed: int | None = None
    _history: History | None = dataclasses.field(default=None, init=False, repr=False)
    _fit: _Fit | None = dataclasses.field(default=None, init=False, repr=False)

    _estimator_type: ClassVar = "classifier"

    _CHECKS: ClassVar = {
        "unit": lambda value, name: _checks.choice(value, name, _UNITS),
        "cell": estimators.cell,
        **dict.fromkeys(("embedding_dim", "hidden_size", "num_layers"), _checks.size),
        "bidirectional": _checks.flag,
        "dropout": _checks.fraction,
        "min_count": _checks.size,
        "max_length": estimators.or_none(_checks.size),
        **dict.fromkeys(("lr", "clip_norm"), _checks.positive),
        **dict.fromkeys(("batch_size", "epochs"), _checks.size),
        "seed": estimators.seed_setting,
    }

    @property
    def classes(self) -> Array:
        """The labels fitted, sorted."""
        return np.empty(0) if self._fit is None else self._fit.classes.copy()

    @property
    def vocabulary(self) -> list[str]:
        """The words or characters that have a vector of their own, sorted."""
        return [] if self._fit is None else self._fit.vocabulary.copy()

    @property
    def history(self) -> History | None:
        """Losses of the last `fit`."""
        return self._history

    def fit(
        self,
        texts: Sequence[str],
        labels: Any,
        *,
        validation_data: tuple[Sequence[str], Any] | None = None,
        verbose: int = 1,
    ) -> Self:
        """Train from scratch.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model so far is kept.

        Parameters
        ----------
        texts : sequence of str
        labels : (n,) array-like of str, int or bool
        validation_data : (texts, labels), optional
            Data to evaluate after each epoch; they are not trained on.
        verbose : int
            As in :meth:`fastrnn.Sequential.fit`; 0 is silent.

        Returns
        -------
        TextClassifier
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two classes; or if the loss becomes NaN or infinite.
        TypeError
            If texts or labels have another type.
        """
        checked = _texts(texts, "texts")
        given = _labels(labels, "labels", len(checked))
        classes, target = np.unique(given, return_inverse=True)
        if len(classes) == 1:
            raise ValueError(f"labels: expected two classes or more, got {classes.tolist()}")
        by = self._unfitted()
        counts = Counter(token for text in checked for token in by._tokens(text))
        vocabulary = sorted(token for token, n in counts.items() if n >= by.min_count)
        net = by._new_net(len(vocabulary), len(classes))
        fit = _Fit(by, classes, vocabulary, net)
        ids = fit.ids(checked)
        adam = estimators.adam(by.lr, by.clip_norm, len(ids), by.batch_size, by.epochs)
        validation = None if validation_data is None else fit.validation(validation_data)
        self._history = estimators.fit(
            net, adam, "cross_entropy", ids, target, metrics=("accuracy",), epochs=by.epochs,
            batch_size=by.batch_size, validation_data=validation, verbose=verbose,
        )  # fmt: skip
        self._fit = fit
        return self

    def _new_net(self, words: int, classes: int) -> Sequential:
        for_embedding, for_dropout, rest = estimators.seeds(self.seed, 3)
        embedding = Embedding(1 + words, self.embedding_dim, seed=for_embedding)
        embedding.parameters()["weight"][...] *= _EMBEDDING_SCALE
        return estimators.last_step_net(
            (embedding, Dropout(self.dropout, seed=for_dropout)),
            self.cell, self.embedding_dim, self.hidden_size, classes, num_layers=self.num_layers,
            bidirectional=self.bidirectional, dropout=self.dropout, seed=rest,
        )  # fmt: skip

    def _tokens(self, text: str) -> list[str]:
        tokens = _UNITS[self.unit].findall(text.lower() if self.unit == "words" else text)
        return tokens[: self.max_length]

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise ValueError("TextClassifier: expected a fitted or loaded one; call fit first")
        return self._fit

    # Use.

    def predict_proba(self, texts: Sequence[str]) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        (n, C) array
            In the order of `classes`.
        """
        fit = self._fitted()
        return estimators.softmax(fit.net.predict(fit.ids(_texts(texts, "texts"))))

    def predict(self, texts: Sequence[str]) -> Array:
        """Return the most likely class of each text.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        (n,) array
            Of the labels fitted.
        """
        predicted: Array = self._fitted().classes[self.predict_proba(texts).argmax(axis=1)]
        return predicted

    def score(self, texts: Sequence[str], labels: Any) -> float:
        """Return the accuracy: the fraction of texts whose predicted class is their label.

        Parameters
        ----------
        texts : sequence of str
        labels : (n,) array-like of str, int or bool

        Returns
        -------
        float
            0 to 1.
        """
        predicted = self.predict(texts)
        actual = _labels(labels, "labels", len(predicted))
        if (actual.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            raise TypeError(f"labels: expected {predicted.dtype} as in fit, got {actual.dtype}")
        return float(np.mean(predicted == actual))

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, atomically.

        The metadata hold, as JSON, the vocabulary, the classes and the constructor's arguments. The
        file holds no code.
        """
        fit = self._fitted()
        fitted = {"vocabulary": fit.vocabulary, "classes": fit.classes.tolist()}
        header = fit.by._settings() | fitted
        model_file.write(path, "TextClassifier", header, fit.net.parameters())

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        vocabulary, classes = header.pop("vocabulary"), header.pop("classes")
        self = cls(**header)
        for name, items in (("vocabulary", vocabulary), ("classes", classes)):
            if not isinstance(items, list) or items != sorted(set(items)):
                raise ValueError(f"{name}: expected a list of sorted, distinct items")
        labels = _labels(classes, "classes", max(len(classes), 1))
        vocabulary = _texts(vocabulary, "vocabulary") if vocabulary else []
        estimators.expect_token_net(
            tensors, ("0", "2", "4"), self.cell, tokens=1 + len(vocabulary),
            embedding_dim=self.embedding_dim, hidden_size=self.hidden_size,
            num_layers=self.num_layers, outputs=len(labels), bidirectional=self.bidirectional,
        )  # fmt: skip
        net = self._new_net(len(vocabulary), len(labels))
        net.load_state_dict(tensors)
        self._fit = _Fit(self._unfitted(), labels, vocabulary, net)
        return self


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence of str, got {type(value).__name__}")
    texts = list(value)
    if not texts:
        raise ValueError(f"{name}: expected one text or more, got none")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}]: expected a str, got {type(text).__name__}")
    return texts


def _labels(value: Any, name: str, n: int) -> Array:
    labels = _checks.asarray(value, name)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind == "U" and not all(isinstance(label, str) for label in value):
        raise TypeError(f"{name}: expected labels of one type, got str and others")
    if labels.dtype.kind not in "biuU":
        raise TypeError(f"{name}: expected str, int or bool, got dtype {labels.dtype}")
    return _checks.expect_shape(labels, name, (n,))


def _known(labels: Array, classes: Array) -> Array:
    """Return labels as indices into the classes."""
    at = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = labels[classes[at] != labels]
    if unknown.size:
        first = unknown.tolist()[0]
        raise ValueError(f"validation_data: expected labels among {classes}, got {first!r}")
    return at
