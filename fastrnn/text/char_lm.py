"""A character language model."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from contextlib import suppress
from typing import Any, ClassVar, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._types import Array
from fastrnn.layers import Dropout, Embedding, Linear
from fastrnn.losses import cross_entropy
from fastrnn.models import estimators
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam
from fastrnn.text._evaluation import adaptive_bits, mean_bits, sample
from fastrnn.text._training import Budget, Progress, Record, Validation

#: The default budget: characters after which the learning curve of a megabyte of text flattens
#: (about 6 epochs), and a limit of the epochs over a small text.
_CHARACTERS = 6_000_000
_MAX_EPOCHS = 50

#: The number of epochs of a training that only time limits.
_MOST_EPOCHS = 2.0**53

#: Between two validations, training reads this many times as many characters as the validation part
#: has; validation, which is forward only, then takes a small part of the time.
_VALIDATE_EVERY = 5

#: A small text gets fewer streams, so that the state is carried over at least this many chunks.
_CHUNKS_PER_STREAM = 8

#: Names of the layers with weights in a file, by their position in the network.
_FILE_NAMES = {"0": "embedding", "2": "recurrent", "4": "linear"}


def split(text: str, validation_fraction: float) -> tuple[str, str]:
    """Return the training part of a text and the validation part, its last fraction."""
    n = round(len(text) * validation_fraction)
    return text[: len(text) - n], text[len(text) - n :]


def training_speed(model: CharLM, text: str) -> float:
    """Return characters per second of forward and backward on one chunk, the best of three.

    Parameters
    ----------
    model : CharLM
        Fitted or loaded; its weights are not changed.
    text : str
        Characters of the vocabulary; repeated if it is short.
    """
    fit = model._fitted()
    T, B = fit.by.seq_len, fit.by.batch_size
    ids = np.resize(fit.ids(text), (B, T + 1))
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        y, tape = fit.net.forward(ids[:, :-1])
        fit.net.backward(tape, cross_entropy.value_and_grad(y, ids[:, 1:])[1])
        best = min(best, time.perf_counter() - start)
    return T * B / best


@dataclasses.dataclass(frozen=True)
class _Fit:
    """The result of `fit`: its settings, the vocabulary, and the network."""

    by: CharLM
    vocabulary: str
    net: Sequential

    def ids(self, text: str, name: str = "text") -> Array:
        """Return characters as indices into the vocabulary."""
        codes, known = _codes(text), _codes(self.vocabulary)
        ids = np.searchsorted(known, codes).clip(max=len(known) - 1)
        unknown = np.flatnonzero(known[ids] != codes)
        if unknown.size:
            character = text[unknown[0]]
            raise ValueError(
                f"{name}: expected characters of the text fitted, got {character!r} "
                f"at position {unknown[0]}"
            )
        return ids


@dataclasses.dataclass(eq=False)
class CharLM(estimators.Settings):
    """A character language model: embedding, recurrent layers, linear, softmax, with dropout.

    Trained by truncated backpropagation through time (Williams and Peng 1990) on parallel streams:
    the text is cut into `batch_size` contiguous pieces, which are read side by side in chunks of
    `seq_len`, and the state is carried from chunk to chunk. The optimizer is Adam, with its
    learning rate decaying to 0 along a half cosine (Loshchilov and Hutter 2017) over the budget of
    time and epochs.

    The last `validation_fraction` of a text is held out, and the weights that perform best on it
    are kept. The vocabulary is that of the whole text.

    Parameters
    ----------
    cell : {"lstm", ...}
        The recurrent layer, in lower case.
    embedding_dim, hidden_size, num_layers : int
    dropout : float
        Dropout probability between recurrent layers and before the linear layer.
    input_dropout : float
        Dropout probability of the embedding's outputs.
    weight_dropout : float
        Probability of zeroing a recurrent weight during a chunk (DropConnect, as in Merity et al.
        2018), which regularises large models.
    seq_len : int
        Characters per chunk, the length of truncated backpropagation.
    batch_size : int
        Number of parallel streams; a small text gets fewer.
    lr : float
        Initial learning rate.
    clip_norm : float
        Maximum global norm of the gradients.
    epochs : float, optional
        Number of passes through the training part. Default: with `max_seconds` as many as time
        allows, otherwise as many as read 6 million characters, but at most 50.
    max_seconds : float, optional
        Time limit of the training. With it, results depend on the speed of the machine.
    validation_fraction : float
        If 0, there is no validation, and the last weights are kept.
    seed : int, optional
        For the initial weights and dropout. Default: fresh each time.

    Attributes
    ----------
    vocabulary : str
        The characters of the text fitted, sorted.
    history : list of Record
        ``(seconds, characters, loss, validation_bits)`` at each validation.
    interrupted : bool
        Whether KeyboardInterrupt ended the last `fit` early.
    """

    cell: str = "lstm"
    _: dataclasses.KW_ONLY
    embedding_dim: int = 64
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.2
    input_dropout: float = 0.0
    weight_dropout: float = 0.0
    seq_len: int = 50
    batch_size: int = 32
    lr: float = 8e-3
    clip_norm: float = 1.0
    epochs: float | None = None
    max_seconds: float | None = None
    validation_fraction: float = 0.05
    seed: int | None = None
    _history: list[Record] = dataclasses.field(default_factory=list, init=False, repr=False)
    _interrupted: bool = dataclasses.field(default=False, init=False, repr=False)
    _fit: _Fit | None = dataclasses.field(default=None, init=False, repr=False)

    _CHECKS: ClassVar = {
        "cell": estimators.cell,
        **dict.fromkeys(("embedding_dim", "hidden_size", "num_layers"), _checks.size),
        **dict.fromkeys(("dropout", "input_dropout", "weight_dropout"), _checks.fraction),
        **dict.fromkeys(("seq_len", "batch_size"), _checks.size),
        **dict.fromkeys(("lr", "clip_norm"), _checks.positive),
        **dict.fromkeys(("epochs", "max_seconds"), estimators.or_none(_checks.positive)),
        "validation_fraction": _checks.fraction,
        "seed": estimators.seed_setting,
    }

    @property
    def vocabulary(self) -> str:
        """The characters of the text fitted, sorted."""
        return "" if self._fit is None else self._fit.vocabulary

    @property
    def history(self) -> list[Record]:
        """``(seconds, characters, loss, validation_bits)`` at each validation of the last `fit`."""
        return self._history

    @property
    def interrupted(self) -> bool:
        """Whether KeyboardInterrupt ended the last `fit` early."""
        return self._interrupted

    # Training.

    def fit(self, text: str, *, verbose: int = 1) -> Self:
        """Train from scratch.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model so far is kept.

        Parameters
        ----------
        text : str
        verbose : int
            0 is silent. Otherwise progress goes to stderr: a bar on a terminal, else lines.

        Returns
        -------
        CharLM
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two characters to train on or to validate on; or if the loss
            becomes NaN or infinite.
        """
        _text(text, "text")
        verbose = _checks.verbosity(verbose)
        train, validation = split(text, self.validation_fraction)
        if len(train) < 2 or len(validation) == 1 or (self.validation_fraction and not validation):
            raise ValueError(
                f"text: expected 2 characters or more to train on and as many for validation, "
                f"got {len(train)} and {len(validation)}"
            )
        by = self._unfitted()
        alphabet = "".join(sorted(set(text)))
        fit = _Fit(by, alphabet, by._new_net(len(alphabet)))
        ids = fit.ids(train), fit.ids(validation)
        self._history, self._interrupted = by._train(fit.net, *ids, verbose)
        self._fit = fit
        return self

    def _train(
        self, net: Sequential, train: Array, validation: Array, verbose: int
    ) -> tuple[list[Record], bool]:
        """Train until the budget is used up; return the history and whether it was interrupted."""
        n = len(train) - 1
        T = min(self.seq_len, n)
        B = max(1, min(self.batch_size, n // (T * _CHUNKS_PER_STREAM)))
        L = n // B
        x, y = (ids[: B * L].reshape(B, L) for ids in (train[:-1], train[1:]))
        epochs = self.epochs
        if epochs is None:
            epochs = math.inf if self.max_seconds else min(_MAX_EPOCHS, _CHARACTERS / n)
        chunks = -(-L // T)
        steps = max(1, epochs * chunks)
        budget = Budget(self.lr, steps, self.max_seconds or math.inf)
        every = _VALIDATE_EVERY * len(validation) or x.size
        watch = Validation(net, budget, validation, every, (B, L, T))
        try:
            history = estimators.fit(
                net, Adam(budget.lr, clip_norm=self.clip_norm), "cross_entropy", x, y,
                epochs=math.ceil(min(steps / chunks, _MOST_EPOCHS)),
                batch_size=B, bptt=T, stateful=True, verbose=0,
                callbacks=[budget, watch, *([Progress(budget, watch)] if verbose else [])],
            )  # fmt: skip
        except ValueError as error:
            expected = "lr: expected a smaller value, training diverged at"
            raise ValueError(f"{expected} {self.lr}") from error
        with suppress(KeyboardInterrupt):
            watch.measure_rest()
        watch.restore_best()
        return watch.records, history.interrupted

    def _new_net(self, characters: int) -> Sequential:
        V, D, H = characters, self.embedding_dim, self.hidden_size
        seeds = estimators.seeds(self.seed, 5)
        recurrent = estimators.cell(self.cell)(
            D, H, self.num_layers, dropout=self.dropout if self.num_layers > 1 else 0.0,
            weight_dropout=self.weight_dropout, seed=seeds[1],
        )  # fmt: skip
        return Sequential(
            [
                Embedding(V, D, seed=seeds[0]),
                Dropout(self.input_dropout, seed=seeds[4]),
                recurrent,
                Dropout(self.dropout, seed=seeds[2]),
                Linear(H, V, seed=seeds[3]),
            ]
        )

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise ValueError("CharLM: expected a fitted or loaded model; call fit first")
        return self._fit

    # Use.

    def bits_per_char(self, text: str, *, adapt_lr: float | None = None) -> float:
        """Return the mean of -log2 p(character | the characters before it), from the second on.

        A text of 4000 characters or more is read in parallel pieces of 2000 or more; the context of
        each piece starts 200 characters before it.

        Parameters
        ----------
        text : str
            Two characters or more, all of them in the vocabulary.
        adapt_lr : float, optional
            Learning rate of dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018): a copy of
            the model is trained on what has been scored, here with Adam every 16 characters. The
            text is then read as one piece, which takes much longer. Try 3e-4. Default: no
            adaptation.
        """
        fit = self._fitted()
        if len(_text(text, "text")) < 2:
            raise ValueError(f"text: expected 2 characters or more, got {len(text)}")
        if adapt_lr is None:
            return mean_bits(fit.net, fit.ids(text))
        lr = _checks.positive(adapt_lr, "adapt_lr")
        return adaptive_bits(fit.net, fit.ids(text), lr, fit.by.clip_norm)

    def generate(
        self,
        prompt: str,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> str:
        """Continue a prompt, character by character.

        Parameters
        ----------
        prompt : str
            Characters of the vocabulary. If empty, generation starts as after a line break, or,
            where the vocabulary has none, as after its first character.
        length : int
            Number of characters to generate.
        temperature : float
            Divides the logits: below 1 favours likely characters, 0 always takes the most likely
            one.
        top_k : int, optional
            Sample from the `top_k` most likely characters only.
        seed : int, optional
            Default: fresh each time.

        Returns
        -------
        str
            The `length` characters that follow the prompt, without it.
        """
        fit = self._fitted()
        length = _checks.size(length, "length")
        temperature = _checks.real(
            temperature, "temperature", "a finite number >= 0", lambda v: 0 <= v < math.inf
        )
        alphabet = fit.vocabulary
        k = len(alphabet) if top_k is None else _checks.size(top_k, "top_k")
        first = "\n" if "\n" in alphabet else alphabet[0]
        prompted = fit.ids(_text(prompt, "prompt") or first, "prompt")
        rng = np.random.default_rng(_checks.seed(seed))
        stream = fit.net.stream()
        y = np.empty(len(alphabet), np.float32)
        for i in prompted:
            stream.step(i, out=y)
        written = [sample(y, temperature, k, rng)]
        while len(written) < length:
            stream.step(written[-1], out=y)
            written.append(sample(y, temperature, k, rng))
        return "".join(alphabet[i] for i in written)

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, atomically.

        The metadata hold format, version, and, as JSON, the vocabulary and the constructor's
        arguments. The file holds no code.
        """
        fit = self._fitted()
        tensors = {}
        for name, array in fit.net.parameters().items():
            layer, _, weight = name.partition(".")
            tensors[f"{_FILE_NAMES[layer]}.{weight}"] = array
        # As a list: JSON would merge two adjacent surrogates into one character.
        header = fit.by._settings() | {"vocabulary": list(fit.vocabulary)}
        model_file.write(path, "CharLM", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        characters = header.pop("vocabulary")
        vocabulary = _text(
            "".join(characters) if isinstance(characters, list) else characters, "vocabulary"
        )
        self = cls(**header)
        if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
            raise ValueError("vocabulary: expected sorted, distinct characters")
        V = len(vocabulary)
        names = ("embedding", "recurrent", "linear")
        estimators.expect_token_net(
            tensors, names, self.cell, tokens=V, embedding_dim=self.embedding_dim,
            hidden_size=self.hidden_size, num_layers=self.num_layers, outputs=V,
        )  # fmt: skip
        net = self._new_net(V)
        places = {name: place for place, name in _FILE_NAMES.items()}
        for name, array in tensors.items():
            layer, _, weight = name.partition(".")
            net.parameters()[f"{places[layer]}.{weight}"][...] = array
        self._fit = _Fit(self._unfitted(), vocabulary, net)
        return self


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    return value


def _codes(text: str) -> Array:
    """Return the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
