"""A classifier of texts."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._kernels.cells import CellConfig
from fastrnn._types import Array
from fastrnn.layers import Dropout, Embedding
from fastrnn.models import estimators
from fastrnn.models.history import History
from fastrnn.models.sequential import Sequential

_UNITS = {
    #: A word with its inner apostrophes, or any other single sign.
    "words": re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]"),
    "characters": re.compile(r"(?s)."),
}

#: Vectors start this much smaller than an Embedding's N(0, 1): next to those, which say nothing
#: yet, what training adds would not be seen.
_EMBEDDING_SCALE = 0.1


@dataclasses.dataclass(eq=False)
class TextClassifier(model_file.Model):
    """Classes of texts: embedding, dropout, recurrent layer, dropout, linear, softmax.

    Reads each text, of any length, as lower-case words or as characters; those seen less than
    `min_count` times in training share one vector. Cross-entropy, Adam, with the learning rate
    falling to 0 along half a cosine.

    Parameters
    ----------
    unit : {"words", "characters"}
    cell : {"gru", "lstm", "rnn"}
    embedding_dim, hidden_size, num_layers : int
    bidirectional : bool
        Whether texts are also read from their end.
    dropout : float
        Probability, of the vectors, between layers and before the output.
    min_count : int
    max_length : int, optional
        Words or characters of a text that are read, from its start. Default: all.
    lr, clip_norm : float
        Learning rate at the start, and the largest joint norm of the gradients.
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
    classes: Array = dataclasses.field(default_factory=lambda: np.empty(0), init=False, repr=False)
    vocabulary: list[str] = dataclasses.field(default_factory=list, init=False, repr=False)
    history: History | None = dataclasses.field(default=None, init=False, repr=False)
    _net: Sequential | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _checks.choice(self.unit, "unit", _UNITS)
        _checks.flag(self.bidirectional, "bidirectional")
        estimators.cell(self.cell)
        for name in ("embedding_dim", "hidden_size", "num_layers", "min_count"):
            _checks.size(getattr(self, name), name)
        for name in ("batch_size", "epochs"):
            _checks.size(getattr(self, name), name)
        if self.max_length is not None:
            _checks.size(self.max_length, "max_length")
        for name in ("lr", "clip_norm"):
            _checks.positive(getattr(self, name), name)
        _checks.fraction(self.dropout, "dropout")
        _checks.seed(self.seed)

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
            The loss on these is measured after each epoch; they are not trained on.
        verbose : int
            As in :meth:`fastrnn.Sequential.fit`; 0 is silent.

        Returns
        -------
        TextClassifier
            Itself.

        Raises
        ------
        ValueError
            If there are not two classes or more; or if the loss becomes NaN or infinite.
        TypeError
            If texts or labels are of another type.
        """
        found = _texts(texts, "texts")
        given = _labels(labels, "labels", len(found))
        classes, target = np.unique(given, return_inverse=True)
        if len(classes) == 1:
            raise ValueError(f"labels: expected two classes or more, got {classes.tolist()}")
        counts = Counter(token for text in found for token in self._tokens(text))
        vocabulary = sorted(token for token, n in counts.items() if n >= self.min_count)
        net = self._new_net(len(vocabulary), len(classes))
        ids = self._ids(found, vocabulary)
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
                raise ValueError("validation_data: expected a pair (texts, labels)")
            more, more_labels = validation_data
            more = _texts(more, "validation_data")
            more_labels = _labels(more_labels, "validation_data", len(more))
            validation = self._ids(more, vocabulary), _known(more_labels, classes)
        adam = estimators.adam(self.lr, self.clip_norm, len(ids), self.batch_size, self.epochs)
        net.compile(adam, "cross_entropy", ("accuracy",))
        self.history = net.fit(
            ids, target, epochs=self.epochs, batch_size=self.batch_size,
            validation_data=validation, verbose=verbose,
        )  # fmt: skip
        self.classes, self.vocabulary, self._net = classes, vocabulary, net
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
        found = _UNITS[self.unit].findall(text.lower() if self.unit == "words" else text)
        return found[: self.max_length]

    def _ids(self, texts: Sequence[str], vocabulary: Sequence[str]) -> list[Array]:
        """Tokens as indices: 0 for all unknown ones, and for an empty text."""
        index = {token: i for i, token in enumerate(vocabulary, 1)}
        tokens = (self._tokens(text) or [""] for text in texts)
        return [np.array([index.get(token, 0) for token in of_text]) for of_text in tokens]

    def _fitted(self) -> Sequential:
        if self._net is None:
            raise ValueError("TextClassifier: expected a fitted or loaded one; call fit first")
        return self._net

    # Use.

    def predict_proba(self, texts: Sequence[str]) -> Array:
        """The probability of each class.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        (n, C) array
            In the order of `classes`.
        """
        net = self._fitted()
        ids = self._ids(_texts(texts, "texts"), self.vocabulary)
        return estimators.softmax(net.predict(ids))

    def predict(self, texts: Sequence[str]) -> Array:
        """The likeliest class of each text.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        (n,) array
            Of the labels fitted.
        """
        found: Array = self.classes[self.predict_proba(texts).argmax(axis=1)]
        return found

    def score(self, texts: Sequence[str], labels: Any) -> float:
        """The part of texts whose predicted class is their label.

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
        found = _labels(labels, "labels", len(predicted))
        if (found.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            raise TypeError(f"labels: expected {predicted.dtype} as in fit, got {found.dtype}")
        return float(np.mean(predicted == found))

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, which is replaced as a whole or left alone.

        The file's metadata holds as JSON the vocabulary, the classes and what was passed to the
        constructor; there is no code in it.
        """
        tensors = self._fitted().parameters()
        found = {"vocabulary": self.vocabulary, "classes": self.classes.tolist()}
        header = self._settings() | found
        model_file.write(path, "TextClassifier", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        vocabulary, classes = header.pop("vocabulary"), header.pop("classes")
        self = cls(**header)
        for name, found in (("vocabulary", vocabulary), ("classes", classes)):
            if not isinstance(found, list) or found != sorted(set(found)):
                raise ValueError(f"{name}: expected a list of sorted, distinct items")
        self.classes = _labels(classes, "classes", max(len(classes), 1))
        self.vocabulary = _texts(vocabulary, "vocabulary") if vocabulary else []
        # Before anything of a size that the header claims is made.
        _expect_sizes(self, tensors)
        self._net = self._new_net(len(vocabulary), len(classes))
        self._net.load_state_dict(tensors)
        return self


def _expect_sizes(model: TextClassifier, tensors: dict[str, Array]) -> None:
    """Refuse tensors that are not as many and as large as the model's."""
    E, H, D = model.embedding_dim, model.hidden_size, 1 + bool(model.bidirectional)
    cell = estimators.cell(model.cell)(1, 1)._cell
    shapes: dict[str, tuple[int, ...]] = {
        "0.weight": (1 + len(model.vocabulary), E),
        "4.weight": (len(model.classes), D * H),
        "4.bias": (len(model.classes),),
    }
    for layer in range(min(model.num_layers, len(tensors))):
        config = CellConfig(input_size=D * H if layer else E, hidden_size=H)
        for name, shape in cell.weight_shapes(config).items():
            for direction in ("", "_reverse")[:D]:
                shapes[f"2.{name}_l{layer}{direction}"] = shape
    if shapes.keys() != tensors.keys():
        raise ValueError(f"tensors: expected {sorted(shapes)}, got {sorted(tensors)}")
    for name, shape in shapes.items():
        _checks.shaped(tensors[name], name, np.dtype(np.float32), shape)


def _texts(value: Any, name: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence of str, got {type(value).__name__}")
    found = list(value)
    if not found:
        raise ValueError(f"{name}: expected one text or more, got none")
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}]: expected a str, got {type(text).__name__}")
    return found


def _labels(value: Any, name: str, n: int) -> Array:
    found = _checks.asarray(value, name)
    if found.dtype == object and all(isinstance(label, str) for label in found.flat):
        found = found.astype(str)
    if found.dtype.kind == "U" and not all(isinstance(label, str) for label in value):
        raise TypeError(f"{name}: expected labels of one type, got str and others")
    if found.dtype.kind not in "biuU":
        raise TypeError(f"{name}: expected str, int or bool, got dtype {found.dtype}")
    return _checks.expect_shape(found, name, (n,))


def _known(labels: Array, classes: Array) -> Array:
    """Labels as indices into the classes."""
    at = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    unknown = labels[classes[at] != labels]
    if unknown.size:
        first = unknown.tolist()[0]
        raise ValueError(f"validation_data: expected labels among {classes}, got {first!r}")
    return at
