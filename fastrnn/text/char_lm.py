"""A character language model."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import suppress
from typing import Any, ClassVar, Self
from unicodedata import normalize

import numpy as np

from fastrnn import _checks
from fastrnn._core import generators
from fastrnn._files import model_file
from fastrnn._types import Array, Communicator
from fastrnn.layers import Dropout, Embedding, Linear
from fastrnn.losses import cross_entropy
from fastrnn.models import estimators, quantization
from fastrnn.models.callback import Callback
from fastrnn.models.chain import expect_sequence
from fastrnn.models.interrupts import interruptible
from fastrnn.models.sequential import Sequential
from fastrnn.optim import Adam
from fastrnn.text._evaluation import adaptive_bits, mean_bits
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

#: Characters that are written in one call: other threads run after each.
_DRAWN_AT_ONCE = 256

#: A small text gets fewer streams, so that the state is carried over at least this many chunks.
_CHUNKS_PER_STREAM = 8

#: Names of the layers with weights in a file, by their position in the network.
_FILE_NAMES = {"0": "embedding", "2": "recurrent", "4": "linear"}


#: Stands for unknown characters: U+FFFD, Unicode's replacement character.
_REPLACEMENT = "\ufffd"

_RULES = ("error", "skip", "replace")

#: Settings that a network's weights depend on.
_STRUCTURE = ("cell", "embedding_dim", "hidden_size", "num_layers")


def split(text: str, validation_fraction: float) -> tuple[str, str]:
    """Return the training part of a text and the validation part, its last fraction.

    Parameters
    ----------
    text : str
    validation_fraction : float
        0 to 1, without 1.

    Examples
    --------
    >>> from fastrnn.text import split
    >>> split("0123456789", 0.2)
    ('01234567', '89')
    """
    _text(text, "text")
    n = round(len(text) * _checks.fraction(validation_fraction, "validation_fraction"))
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
    if not _text(text, "text"):
        raise ValueError("text: expected one character or more, got none")
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

    def ids(self, text: str, name: str = "text", unknown: str | None = None) -> Array:
        """Return characters as indices into the vocabulary; `unknown` overrides the setting."""
        rule = self.by.unknown if unknown is None else _checks.choice(unknown, "unknown", _RULES)
        codes, known = _codes(self.by._normal(text)), _codes(self.vocabulary)
        ids: Array = np.searchsorted(known, codes).clip(max=len(known) - 1)
        strange = known[ids] != codes
        if not strange.any():
            return ids
        if rule == "skip":
            kept: Array = ids[~strange]
            return kept
        if rule == self.by.unknown == "replace":
            ids[strange] = self.vocabulary.index(_REPLACEMENT)
            return ids
        at = int(strange.argmax())
        got = f"got {chr(codes[at])!r} at position {at}"
        if rule == "replace":
            raise ValueError(f"unknown: expected a model fitted with unknown='replace', {got}")
        raise ValueError(
            f"{name}: expected characters of the text fitted, {got}; unknown='skip' leaves such "
            "characters out"
        )


@dataclasses.dataclass(eq=False)
class CharLM(estimators.Settings):
    r"""A character language model: embedding, recurrent layers, linear, softmax, with dropout.

    Trained by truncated backpropagation through time (Williams and Peng 1990) on parallel streams:
    the text is cut into `batch_size` contiguous pieces, which are read side by side in chunks of
    `seq_len`, and the state is carried from chunk to chunk. The optimizer is Adam, with its
    learning rate decaying to 0 along a half cosine (Loshchilov and Hutter 2017) over the budget of
    time and epochs.

    The last `validation_fraction` of a text is held out, and the weights that perform best on it
    are kept. The vocabulary is that of the whole text, character by character: any text of its
    characters is read, and written, as it is.

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
    normalization : {"NFC", "NFD", "NFKC", "NFKD"}, optional
        Unicode's normal form that texts and prompts are brought into, so that those that look the
        same are the same. Default: none, and what was written in another form stays in it.
    unknown : {"error", "skip", "replace"}
        What to do with characters that are not in the vocabulary, in :meth:`bits_per_char`,
        :meth:`generate` and :meth:`fit` with `resume`. "skip" leaves them out. "replace" reads them
        as U+FFFD, which the vocabulary then has: that is how training reads characters that the
        training part has only once, and those that only the validation part has. It is never
        generated.
    matmul_precision : {"float32", "bfloat16"}
        As in :class:`fastrnn.RNN`, of all layers.
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

    Examples
    --------
    >>> from fastrnn.text import CharLM
    >>> text = "the quick brown fox jumps over the lazy dog.\n" * 40
    >>> model = CharLM(embedding_dim=8, hidden_size=32, seq_len=20, batch_size=4, lr=0.02, seed=0)
    >>> model.epochs = 10
    >>> model.fit(text, verbose=0).generate("the quick ", 9, temperature=0)
    'brown fox'
    >>> model.bits_per_char("the lazy dog") < 1
    True
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
    normalization: str | None = None
    unknown: str = "error"
    matmul_precision: str = "float32"
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
        "matmul_precision": estimators.precision_setting,
        "normalization": estimators.or_none(
            lambda value, name: _checks.choice(value, name, ("NFC", "NFD", "NFKC", "NFKD"))
        ),
        "unknown": lambda value, name: _checks.choice(value, name, _RULES),
        "seed": estimators.seed_setting,
    }

    @property
    def vocabulary(self) -> str:
        """The characters of the text fitted, sorted."""
        return "" if self._fit is None else self._fit.vocabulary

    @property
    def net_(self) -> Sequential:
        """The network: from places of characters in :attr:`vocabulary` to a logit for each."""
        if self._fit is None:
            raise AttributeError("CharLM.net_: is set by fit")
        return self._fit.net

    @property
    def history(self) -> list[Record]:
        """``(seconds, characters, loss, validation_bits)`` at each validation of the last `fit`."""
        return self._history

    @property
    def interrupted(self) -> bool:
        """Whether KeyboardInterrupt ended the last `fit` early."""
        return self._interrupted

    # Training.

    def fit(
        self,
        text: str,
        *,
        resume: bool = False,
        callbacks: Sequence[Callback] | None = None,
        verbose: int = 1,
        comm: Communicator | None = None,
        shards: int | None = None,
    ) -> Self:
        """Train from scratch, or train further.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model so far is kept.

        Parameters
        ----------
        text : str
        resume : bool
            Whether to continue from the weights of the last `fit`, or of the file that was loaded,
            on this text, which may be another one: with their vocabulary and `normalization`, and
            otherwise the settings of now, for a new budget of time and epochs. The learning rate
            starts at `lr` again, which is best set lower. Default: from scratch.
        callbacks : sequence of Callback, optional
            As in :meth:`fastrnn.Sequential.fit`; epochs are passes through the training part. With
            callbacks, the validation part is also evaluated after each of them: ``val_loss``, in
            nats per character.
        verbose : int
            0 is silent. Otherwise progress goes to stderr: a bar on a terminal, else lines.
        comm : mpi4py.MPI.Comm, optional
        shards : int, optional
            As in :meth:`fastrnn.Sequential.fit`: processes that train together. As their clocks
            differ, `max_seconds` has to be None.

        Returns
        -------
        CharLM
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two characters to train on or to validate on; if there is
            nothing to resume, or settings have changed that the weights depend on; if
            `max_seconds` is given with `comm`; or if the loss becomes NaN or infinite.
        """
        if self._fit is not None:
            self._fit.net.expect_trainable()
        verbose = _checks.verbosity(verbose)
        resume = _checks.flag(resume, "resume")
        if comm is not None and self.max_seconds is not None:
            raise ValueError(
                "max_seconds: expected None with comm, as the clocks of processes differ, got "
                f"{self.max_seconds}"
            )
        if getattr(comm, "rank", 0):
            verbose = 0
        together = {"comm": comm, "shards": shards}
        by = self._unfitted()
        train, validation = parts = split(by._normal(_text(text, "text")), by.validation_fraction)
        by._expect_enough(*parts)
        fit = by._resumed(self._fitted()) if resume else by._new(train, validation)
        ids = fit.ids(train), fit.ids(validation, "validation part of text")
        by._expect_enough(*ids)
        self._history, self._interrupted = by._train(fit.net, *ids, callbacks, verbose, together)
        self._fit = fit
        return self

    def _expect_enough(self, train: Sized, validation: Sized) -> None:
        if len(train) < 2 or len(validation) < 2 * (self.validation_fraction > 0):
            raise ValueError(
                f"text: expected 2 characters or more to train on and as many for validation, "
                f"got {len(train)} and {len(validation)} with "
                f"validation_fraction={self.validation_fraction}"
            )

    def _new(self, train: str, validation: str) -> _Fit:
        """Return an untrained network, with the vocabulary of a text."""
        alphabet = {*train, *validation}
        if self.unknown == "replace":
            alphabet = {c for c, n in Counter(train).items() if n > 1} | {_REPLACEMENT}
        return _Fit(self, "".join(sorted(alphabet)), self._new_net(len(alphabet)))

    def _resumed(self, fit: _Fit) -> _Fit:
        """Return a copy of a fitted network, with the settings of now."""
        for name in (*_STRUCTURE, "normalization"):
            before, now = getattr(fit.by, name), getattr(self, name)
            if before != now:
                raise ValueError(
                    f"{name}: expected {before!r} as in the model to resume, got {now!r}"
                )
        if self.unknown == "replace" != fit.by.unknown:
            raise ValueError("unknown: expected a model fitted with unknown='replace' to resume")
        net = self._new_net(len(fit.vocabulary))
        net.load_state_dict(fit.net.parameters())
        return _Fit(self, fit.vocabulary, net)

    def _normal(self, text: str) -> str:
        """Return a text in the normal form of the settings."""
        form: Any = self.normalization
        return text if form is None else normalize(form, text)

    def _train(
        self,
        net: Sequential,
        train: Array,
        validation: Array,
        callbacks: Any,
        verbose: int,
        together: Mapping[str, Any],
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
        own = expect_sequence([] if callbacks is None else callbacks, "callbacks")
        watch = Validation(net, budget, validation, every, (B, L, T), log=bool(own))
        try:
            history = estimators.fit(
                net, Adam(budget.lr, clip_norm=self.clip_norm), "cross_entropy", x, y,
                epochs=math.ceil(min(steps / chunks, _MOST_EPOCHS)),
                batch_size=B, bptt=T, stateful=True, verbose=0, **together,
                callbacks=[budget, watch, *own, *([Progress(budget, watch)] if verbose else [])],
            )  # fmt: skip
        except ValueError as error:
            expected = "lr: expected a smaller value, training diverged at"
            raise ValueError(f"{expected} {self.lr}") from error
        with suppress(KeyboardInterrupt), interruptible():
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
        net = Sequential(
            [
                Embedding(V, D, seed=seeds[0]),
                Dropout(self.input_dropout, seed=seeds[4]),
                recurrent,
                Dropout(self.dropout, seed=seeds[2]),
                Linear(H, V, seed=seeds[3]),
            ]
        )
        net.matmul_precision = self.matmul_precision
        return net

    def _fitted(self) -> _Fit:
        if self._fit is None:
            raise ValueError("CharLM: expected a fitted or loaded model; call fit first")
        return self._fit

    # Use.

    def bits_per_char(
        self, text: str, *, adapt_lr: float | None = None, unknown: str | None = None
    ) -> float:
        """Return the mean of -log2 p(character | the characters before it), from the second on.

        A text of 4000 characters or more is read in parallel pieces of 2000 or more; the context of
        each piece starts 200 characters before it.

        Parameters
        ----------
        text : str
            Two characters or more of the vocabulary.
        adapt_lr : float, optional
            Learning rate of dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018): a copy of
            the model is trained on what has been scored, here with Adam every 16 characters. The
            text is then read as one piece, which takes much longer. Try 3e-4. Default: no
            adaptation.
        unknown : {"error", "skip", "replace"}, optional
            What to do with other characters. Those left out are not counted; of those replaced,
            the bits do not say which they are. Default: as fitted.
        """
        fit = self._fitted()
        ids = fit.ids(_text(text, "text"), unknown=unknown)
        if len(ids) < 2:
            raise ValueError(f"text: expected 2 characters or more, got {len(ids)}")
        if adapt_lr is None:
            return mean_bits(fit.net, ids)
        fit.net.expect_trainable()
        lr = _checks.positive(adapt_lr, "adapt_lr")
        return adaptive_bits(fit.net, ids, lr, fit.by.clip_norm)

    def generate(
        self,
        prompt: str,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
        *,
        unknown: str | None = None,
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
        unknown : {"error", "skip", "replace"}, optional
            What to do with other characters of the prompt. Default: as fitted.

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
        prompted = fit.ids(_text(prompt, "prompt"), "prompt", unknown)
        if not prompted.size:
            prompted = fit.ids("\n" if "\n" in alphabet else alphabet[0])
        rng = generators.random().default_rng(_checks.seed(seed))
        stream = fit.net.stream()
        y = np.empty(len(alphabet), np.float32)
        never = alphabet.index(_REPLACEMENT) if fit.by.unknown == "replace" else None
        written: list[int] = []
        for i in prompted:
            stream.step(i, out=y)
        while len(written) < length:
            draws = rng.random(min(_DRAWN_AT_ONCE, length - len(written)))
            written += stream.sample(
                y, draws, temperature=temperature, top_k=k, never=never
            ).tolist()
            if np.isnan(y).any():  # and so is the state, from the first such step on
                raise ValueError(
                    "CharLM: expected finite weights, got a model whose logits are NaN"
                )
        return "".join(alphabet[i] for i in written)

    def _quantized(self, calibration: Any) -> CharLM:
        """Return the model with int8 weights; `calibration` is a text."""
        fit = self._fitted()
        given = None
        if calibration is not None:
            ids = fit.ids(_text(calibration, "calibration"), "calibration")
            T = max(1, min(fit.by.seq_len, len(ids)))
            given = ids[: len(ids) // T * T].reshape(-1, T)
        other = copy.copy(self)
        net = quantization.quantize_sequential(fit.net, given)
        other._fit = dataclasses.replace(fit, net=net)
        return other

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, a safetensors file, atomically.

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
        if fit.net.quantized:
            header["quantized"] = True
        model_file.write(path, "CharLM", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        characters, small = header.pop("vocabulary"), header.pop("quantized", False) is True
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
            hidden_size=self.hidden_size, num_layers=self.num_layers, outputs=V, quantized=small,
        )  # fmt: skip
        net = self._new_net(V)
        places = {name: place for place, name in _FILE_NAMES.items()}
        placed = {}
        for name, array in tensors.items():
            layer, _, weight = name.partition(".")
            placed[f"{places[layer]}.{weight}"] = array
        if small:
            net = quantization.restored(net, placed)
        else:
            net.load_state_dict(placed)
        if self.unknown == "replace" and _REPLACEMENT not in vocabulary:
            raise ValueError("vocabulary: expected U+FFFD with unknown='replace'")
        self._fit = _Fit(self._unfitted(), vocabulary, net)
        return self


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        join = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
        hint = "; join several texts, as with '\\n'.join(texts)" if join else ""
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}{hint}")
    return value


def _codes(text: str) -> Array:
    """Return the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
