"""A text classifier."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._core import generators
from fastrnn._files import model_file
from fastrnn._types import Array, ArrayLike, ClassWeight
from fastrnn.layers import Dropout, Embedding
from fastrnn.losses import checked_weight
from fastrnn.models import class_labels, estimators, quantization, weighting
from fastrnn.models.callback import Callback
from fastrnn.models.history import History
from fastrnn.models.monitor import EarlyStopping
from fastrnn.models.progress import tell
from fastrnn.models.sequential import Sequential
from fastrnn.text import _evidence, _examples, _tokens

#: The default of `epochs`: as many as take this number of optimizer steps, and this many at least.
#: `benchmarks/texts.py` prints what they reach.
_UPDATES, _LEAST_EPOCHS = 250, 3

#: By default, the fraction of the way from the initial to the trained weights is chosen among these
#: by a trial with this part of the texts held out; with more texts than the maximum, it is 1.
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_HELD_OUT, _MOST_ON_TRIAL = 0.2, 5000

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
    reading: int = _tokens.CURRENT

    def ids(self, texts: Sequence[str]) -> list[Array]:
        """Return tokens as indices: 0 for unknown tokens, and for an empty text."""
        return self.of_tokens([self.by._tokens(text, self.reading) for text in texts])

    def of_tokens(self, texts: Sequence[list[str]]) -> list[Array]:
        """Return texts, as lists of tokens, as :meth:`ids` does."""
        index = {token: i for i, token in enumerate(self.vocabulary, 1)}
        return [np.array([index.get(token, 0) for token in text or [""]]) for text in texts]

    def validation(self, data: Any) -> tuple[list[Array], Array]:
        """Return texts and labels as the network takes them."""
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError("validation_data: expected a pair (texts, labels)")
        texts = _examples.texts(data[0], "validation_data")
        _examples.expect_some(texts, "validation_data")
        labels = _examples.labels(data[1], "validation_data", len(texts))
        return self.ids(texts), _examples.known(labels, self.classes, "validation_data")


@dataclasses.dataclass(eq=False)
class TextClassifier(estimators.Settings):
    """A text classifier: embedding, dropout, recurrent layers, dropout, linear, softmax.

    Each text, of any length, is read as lower-case words, which are letters and digits with their
    combining marks and inner apostrophes, and as single other symbols; or as characters. Texts that
    are canonically equivalent in Unicode are read alike (NFC). Scripts without spaces between
    words, such as Chinese and Thai, are read by characters; see `by_characters`.

    Training starts from a linear model of the words, so that few texts suffice: in an LSTM, GRU or
    RNN a few hidden units are set to add up what each word says about the class, the smoothed
    log-count ratios of naive Bayes (Wang and Manning 2012), scaled to be likely for texts left out
    of the counts. All weights are then trained further: the loss is cross-entropy; the optimizer is
    Adam, with its learning rate decaying to 0 along a half cosine. By default, up to 5,000 texts
    are trained on twice. The first time, a fifth is held out, to choose how far the weights go from
    the initial to the trained ones, in quarters of the way (Wortsman et al. 2022). That takes
    seconds for sentences (``benchmarks/texts.py``).

    It is also a scikit-learn estimator: it can be cloned, cross-validated and searched.

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
        Words or characters seen fewer times in training share one vector.
    max_length : int, optional
        Number of words or characters to read, from the start of each text. Default: all.
    lr, clip_norm : float
        Initial learning rate, and maximum global norm of the gradients.
    batch_size : int
    epochs : int, optional
        Number of passes through the texts, whose result is kept as it is. Default: as many as take
        250 optimizer steps, at least 3 (with 32 texts per batch, 125 for 50 texts, 4 for 2,000, and
        3 for 2,700 or more), and the trial described above.
    class_weight : "balanced" or dict of label to weight, optional
        Weights of classes in the loss: "balanced" gives all classes the same sum, as in
        scikit-learn; a class that a dict does not name has weight 1.
    early_stopping : bool
        Whether to hold out a part of the texts, and to stop once the loss on it has not improved in
        `n_iter_no_change` epochs. The weights of the best epoch are kept.
    validation_fraction : float
        The part held out: at least one text, by class in proportion, and never the only one of a
        class.
    n_iter_no_change : int
    matmul_precision : {"float32", "bfloat16"}
        As in :class:`fastrnn.RNN`, of all layers.
    seed : int, optional
        For the initial weights, dropout, the order of texts and those held out. Default: fresh each
        time.

    Attributes
    ----------
    classes, classes_ : (C,) array
        The labels fitted, sorted. Before `fit`, `classes` is empty and `classes_` is missing, as in
        scikit-learn.
    vocabulary : list of str
        The words or characters that have a vector of their own, sorted.
    by_characters : list of str
        Scripts without spaces, whose characters were read as words.
    history : History
        Of the last `fit`.

    Examples
    --------
    >>> from fastrnn.text import TextClassifier
    >>> texts = ["A fine film", "Dull, and too long", "Good fun", "A dull story"] * 5
    >>> labels = ["praise", "blame", "praise", "blame"] * 5
    >>> model = TextClassifier(epochs=20, seed=0).fit(texts, labels, verbose=0)
    >>> model.predict(["Fine and good", "So dull"]).tolist()
    ['praise', 'blame']
    >>> model.predict_proba(["Fine and good"]).shape
    (1, 2)
    """

    unit: str = "words"
    _: dataclasses.KW_ONLY
    cell: str = "gru"
    embedding_dim: int = 64
    hidden_size: int = 64
    num_layers: int = 1
    bidirectional: bool = True
    dropout: float = 0.5
    min_count: int = 1
    max_length: int | None = None
    lr: float = 4e-3
    clip_norm: float = 1.0
    batch_size: int = 32
    epochs: int | None = None
    class_weight: ClassWeight | None = None
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 10
    matmul_precision: str = "float32"
    seed: int | None = None
    _history: History | None = dataclasses.field(default=None, init=False, repr=False)
    _fit: _Fit | None = dataclasses.field(default=None, init=False, repr=False)

    _estimator_type: ClassVar = "classifier"

    _CHECKS: ClassVar = {
        "unit": lambda value, name: _checks.choice(value, name, _tokens.UNITS),
        "cell": estimators.cell,
        **dict.fromkeys(("embedding_dim", "hidden_size", "num_layers"), _checks.size),
        "bidirectional": _checks.flag,
        "dropout": _checks.fraction,
        "min_count": _checks.size,
        "max_length": estimators.or_none(_checks.size),
        **dict.fromkeys(("lr", "clip_norm"), _checks.positive),
        **dict.fromkeys(("batch_size", "n_iter_no_change"), _checks.size),
        "epochs": estimators.or_none(_checks.size),
        "class_weight": estimators.or_none(_examples.class_weight),
        "early_stopping": _checks.flag,
        "matmul_precision": estimators.precision_setting,
        "validation_fraction": lambda value, name: _checks.real(
            value, name, "a number above 0 and under 1", lambda v: 0 < v < 1
        ),
        "seed": estimators.seed_setting,
    }

    @property
    def classes(self) -> Array:
        """The labels fitted, sorted."""
        return np.empty(0) if self._fit is None else self._fit.classes.copy()

    @property
    def classes_(self) -> Array:
        """The labels fitted, sorted."""
        if self._fit is None:
            raise AttributeError("TextClassifier.classes_: is set by fit")
        return self.classes

    @property
    def vocabulary(self) -> list[str]:
        """The words or characters that have a vector of their own, sorted."""
        return [] if self._fit is None else self._fit.vocabulary.copy()

    @property
    def by_characters(self) -> list[str]:
        """Scripts without spaces, whose characters were read as words."""
        fit = self._fit
        if fit is None or fit.by.unit != "words" or fit.reading == _tokens.FIRST:
            return []
        return _tokens.unspaced(fit.vocabulary)

    @property
    def net_(self) -> Sequential:
        """The network: from tokens to a logit for each class.

        Tokens are 1 and their place in :attr:`vocabulary`, 0 for unknown ones.
        """
        if self._fit is None:
            raise AttributeError("TextClassifier.net_: is set by fit")
        return self._fit.net

    @property
    def history(self) -> History | None:
        """Losses of the last `fit`."""
        return self._history

    def fit(
        self,
        texts: Sequence[str],
        labels: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: tuple[Sequence[str], Any] | None = None,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
    ) -> Self:
        """Train from scratch.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model so far is kept.

        Parameters
        ----------
        texts : sequence of str
            A list, an array, or a column of pandas or polars.
        labels : (n,) array-like
            Of str, int or bool, or of floats that are whole numbers; two classes or more.
        sample_weight : (n,) array-like, optional
            Weights of the texts in counts and loss. Those of weight 0 are left out.
        validation_data : (texts, labels), optional
            Data to evaluate after each epoch; they are not trained on. `early_stopping` then
            watches these, and holds out nothing.
        callbacks : sequence of Callback, optional
            As in :meth:`fastrnn.Sequential.fit`.
        verbose : int
            As in :meth:`fastrnn.Sequential.fit`; 0 is silent. Otherwise, a line on stderr also
            names scripts without spaces that are read by characters.

        Returns
        -------
        TextClassifier
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two classes, or no words that are seen `min_count` times; if
            texts or labels are missing; or if the loss becomes NaN or infinite.
        TypeError
            If texts or labels have another type.
        """
        if self._fit is not None:
            self._fit.net.expect_trainable()
        by = self._unfitted()
        verbose = _checks.verbosity(verbose)
        classes, examples = by._checked(texts, labels, sample_weight)
        held = None
        if by.early_stopping and validation_data is None:
            if len(classes) == len(examples.texts):
                raise ValueError("early_stopping: expected a class with several texts")
            examples, held = by._parted(examples, by.validation_fraction)
        fit = by._untrained(classes, examples)
        by._expect_words(fit.vocabulary, len(examples.texts), verbose)
        validation: Any = None
        if held is not None:
            validation = fit.of_tokens(held.texts), held.target, held.weight
        elif validation_data is not None:
            validation = fit.validation(validation_data)
        step = 1.0
        on_trial = by.epochs is None and not by.early_stopping
        if on_trial and len(classes) < len(examples.texts) <= _MOST_ON_TRIAL:
            trial, history, step = by._trial(classes, examples, verbose)
            if history.interrupted:
                self._fit, self._history = trial, history
                return self
        start = fit.net.state_dict() if step < 1 else {}
        self._history = by._train(fit, examples, validation, callbacks, verbose)
        if step < 1:
            _go(fit.net, start, fit.net.state_dict(), step)
        self._fit = fit
        return self

    def _expect_words(self, vocabulary: list[str], texts: int, verbose: int) -> None:
        """Raise if there are none; tell if they are characters."""
        if not vocabulary:
            seen = f" seen {self.min_count} times or more; pass a lower min_count"
            hint = seen if self.min_count > 1 else ""
            raise ValueError(f"texts: expected {self.unit}{hint}, got none in {texts} texts")
        if verbose and self.unit == "words" and (scripts := _tokens.unspaced(vocabulary)):
            tell(f"texts have no spaces between words ({', '.join(scripts)}): read by characters")

    def _parted(
        self, examples: _examples.Examples, fraction: float
    ) -> tuple[_examples.Examples, _examples.Examples]:
        """Return the examples to train on, and those held out."""
        rng = generators.random().default_rng(estimators.seeds(self.seed, 4)[3])
        train, held = estimators.holdout(examples.target, fraction, rng)
        return examples[train], examples[held]

    def _trial(
        self, classes: Array, examples: _examples.Examples, verbose: int
    ) -> tuple[_Fit, History, float]:
        """Train with a part of the texts held out; return how far to go from the initial weights.

        Trained weights fit few texts too well, while the initial ones are too simple; Wortsman et
        al. (2022) go a part of the way likewise. What is best is what makes the texts held out
        likely.
        """
        examples, held = self._parted(examples, _HELD_OUT)
        fit = self._untrained(classes, examples)
        start = fit.net.state_dict()
        if verbose:
            tell(f"trial, with {len(held.texts):,} texts held out")
        history = self._train(fit, examples, None, None, verbose)
        trained = fit.net.state_dict()
        ids, losses = fit.of_tokens(held.texts), []
        for step in _STEPS:
            _go(fit.net, start, trained, step)
            losses.append(
                _evidence.loss(np.asarray(fit.net.predict(ids)), held.target, held.weight)
            )
        return fit, history, _STEPS[int(np.argmin(losses))]

    def _checked(
        self, texts: Any, labels: Any, sample_weight: Any
    ) -> tuple[Array, _examples.Examples]:
        """Return the classes, and the texts that count."""
        checked = _examples.texts(texts, "texts")
        _examples.expect_some(checked, "texts")
        n = len(checked)
        given = _examples.labels(labels, "labels", n)
        count = None
        if sample_weight is not None:
            count = checked_weight(sample_weight, (n,), np.dtype(np.float64), "sample_weight")
            _checks.expect_shape(count, "sample_weight", (n,))
            rows = np.flatnonzero(count)
            if not rows.size:
                raise ValueError("sample_weight: expected a weight above 0")
            checked, given, count = [checked[i] for i in rows], given[rows], count[rows]
        classes, target = np.unique(given, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"labels: expected two classes or more, got {classes.tolist()}")
        weight = weighting.class_weights(self._by_index(classes), target, len(classes))
        if weight is None:
            weight = count
        elif not weight.any():
            raise ValueError("class_weight: expected a weight above 0")
        elif count is not None:
            weight = weight * count
        tokens = [self._tokens(text, _tokens.CURRENT) for text in checked]
        return classes, _examples.Examples(tokens, target, count, weight)

    def _by_index(self, classes: Array) -> Any:
        """Return `class_weight` with the indices of classes as keys."""
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        index = {label: i for i, label in enumerate(classes.tolist())}
        weights = {}
        for label, weight in self.class_weight.items():
            if label not in index:
                raise ValueError(
                    f"class_weight: expected labels among {list(index)}, got {label!r}"
                )
            weights[index[label]] = weight
        return weights

    def _untrained(self, classes: Array, examples: _examples.Examples) -> _Fit:
        """Return the vocabulary, and the network that training starts from."""
        counts = Counter(token for text in examples.texts for token in text)
        vocabulary = sorted(token for token, n in counts.items() if n >= self.min_count)
        V, C = 1 + len(vocabulary), len(classes)
        fit = _Fit(self, classes, vocabulary, self._new_net(V - 1, C))
        evidence = _evidence.Evidence.of(
            fit.of_tokens(examples.texts), examples.target, V, C,
            count=examples.count, weight=examples.weight,
        )  # fmt: skip
        _evidence.install(fit.net, self.cell, evidence)
        return fit

    def _train(
        self, fit: _Fit, examples: _examples.Examples, validation: Any, callbacks: Any, verbose: int
    ) -> History:
        """Train the network."""
        ids, target, weight = fit.of_tokens(examples.texts), examples.target, examples.weight
        batches = -(-len(ids) // self.batch_size)
        epochs = self.epochs or max(_LEAST_EPOCHS, -(-_UPDATES // batches))
        adam = estimators.adam(self.lr, self.clip_norm, len(ids), self.batch_size, epochs)
        watch = [] if callbacks is None else callbacks
        if self.early_stopping:
            stop = EarlyStopping(patience=self.n_iter_no_change, restore_best_weights=True)
            watch = [*watch, stop]
        return estimators.fit(
            fit.net, adam, "cross_entropy", ids, target, metrics=("accuracy",), epochs=epochs,
            batch_size=self.batch_size, sample_weight=weight, validation_data=validation,
            callbacks=watch, verbose=verbose,
        )  # fmt: skip

    def _new_net(self, words: int, classes: int) -> Sequential:
        for_embedding, for_dropout, rest, _ = estimators.seeds(self.seed, 4)
        embedding = Embedding(1 + words, self.embedding_dim, seed=for_embedding)
        table = embedding.parameters()["weight"]
        table *= _EMBEDDING_SCALE
        table[0] = 0
        return estimators.last_step_net(
            (embedding, Dropout(self.dropout, seed=for_dropout)),
            self.cell, self.embedding_dim, self.hidden_size, classes, num_layers=self.num_layers,
            bidirectional=self.bidirectional, dropout=self.dropout,
            matmul_precision=self.matmul_precision, seed=rest,
        )  # fmt: skip

    def _tokens(self, text: str, reading: int) -> list[str]:
        return _tokens.tokens(text, self.unit, reading)[: self.max_length]

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
        checked = _examples.texts(texts, "texts")
        if not checked:
            return np.empty((0, len(fit.classes)))
        return estimators.softmax(np.asarray(fit.net.predict(fit.ids(checked))))

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

    def score(
        self, texts: Sequence[str], labels: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy: the fraction of texts whose predicted class is their label.

        Parameters
        ----------
        texts : sequence of str
        labels : (n,) array-like
            Of the type fitted.
        sample_weight : (n,) array-like, optional

        Returns
        -------
        float
            0 to 1.
        """
        predicted = self.predict(texts)
        n = len(predicted)
        actual = _examples.labels(labels, "labels", n)
        if not n:
            raise ValueError("texts: expected one text or more to score, got none")
        if (actual.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            raise TypeError(f"labels: expected {predicted.dtype} as in fit, got {actual.dtype}")
        if sample_weight is None:
            return float(np.mean(predicted == actual))
        weight = checked_weight(sample_weight, (n,), np.dtype(np.float64), "sample_weight")
        if not weight.any():
            raise ValueError("sample_weight: expected a weight above 0")
        return float(np.average(predicted == actual, weights=weight))

    def _quantized(self, calibration: Any) -> TextClassifier:
        """Return the classifier with int8 weights; `calibration` is a list of texts."""
        fit = self._fitted()
        given = None
        if calibration is not None:
            texts = _examples.texts(calibration, "calibration")
            _examples.expect_some(texts, "calibration")
            given = fit.ids(texts)
        other = copy.copy(self)
        net = quantization.quantize_sequential(fit.net, given)
        other._fit = dataclasses.replace(fit, net=net)
        return other

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, a safetensors file, atomically.

        The metadata hold, as JSON, the vocabulary, the classes and the constructor's arguments. The
        file holds no code.
        """
        fit = self._fitted()
        header = fit.by._settings() | {
            "vocabulary": fit.vocabulary, "reading": fit.reading,
            **class_labels.described(fit.classes, "classes_"),
        }  # fmt: skip
        if fit.net.quantized:
            header["quantized"] = True
        if isinstance(header["class_weight"], Mapping):
            # As pairs: JSON would turn labels that are numbers into str.
            header["class_weight"] = list(header["class_weight"].items())
        model_file.write(path, "TextClassifier", header, fit.net.parameters())

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        vocabulary, classes = header.pop("vocabulary"), header.pop("classes")
        reading, dtype = header.pop("reading", _tokens.FIRST), header.pop("dtype", None)
        small = header.pop("quantized", False) is True
        if reading not in (_tokens.FIRST, _tokens.CURRENT):
            raise ValueError(f"reading: expected one that is known, got {reading!r}")
        if isinstance(header.get("class_weight"), list):
            header["class_weight"] = dict(header["class_weight"])
        self = cls(**header)
        for name, items in (("vocabulary", vocabulary), ("classes", classes)):
            if not isinstance(items, list) or items != sorted(set(items)):
                raise ValueError(f"{name}: expected a list of sorted, distinct items")
        labels = _examples.labels(classes, "classes", max(len(classes), 1))
        if dtype is not None:  # which the first files do not have
            given = {"classes": classes, "dtype": dtype}
            labels = class_labels.restored(given, "classes", len(labels))
        vocabulary = _examples.texts(vocabulary, "vocabulary") if vocabulary else []
        estimators.expect_token_net(
            tensors, ("0", "2", "4"), self.cell, tokens=1 + len(vocabulary),
            embedding_dim=self.embedding_dim, hidden_size=self.hidden_size,
            num_layers=self.num_layers, outputs=len(labels), bidirectional=self.bidirectional,
            quantized=small,
        )  # fmt: skip
        net = self._new_net(len(vocabulary), len(labels))
        if small:
            net = quantization.restored(net, tensors)
        else:
            net.load_state_dict(tensors)
        self._fit = _Fit(self._unfitted(), labels, vocabulary, net, reading)
        return self


def _go(net: Sequential, start: Mapping[str, Array], end: Mapping[str, Array], step: float) -> None:
    """Set weights a part of the way from the start to the end."""
    for name, weight in net.parameters().items():
        weight[...] = start[name] + step * (end[name] - start[name])
