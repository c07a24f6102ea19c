"""A character language model."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from contextlib import suppress
from typing import Any, Self

import numpy as np

from fastrnn import _checks
from fastrnn._files import model_file
from fastrnn._kernels.cells import CellConfig
from fastrnn._types import Array
from fastrnn.layers import Dropout, Embedding, Linear
from fastrnn.models import estimators
from fastrnn.text._net import Net, adaptive_bits, mean_bits, sample
from fastrnn.text._progress import Progress
from fastrnn.text._training import Record, Training

_DTYPE = np.dtype(np.float32)


def split(text: str, validation_fraction: float) -> tuple[str, str]:
    """The training part of a text, and its last fraction, the validation part."""
    n = round(len(text) * validation_fraction)
    return text[: len(text) - n], text[len(text) - n :]


def training_speed(model: CharLM, text: str) -> float:
    """Characters per second of forward and backward on one chunk of a text, the best of three.

    Parameters
    ----------
    model : CharLM
        Fitted or loaded; its weights stay as they are.
    text : str
        Characters that the model knows; repeated if it is short.
    """
    net = model._fitted()
    shape = (model.seq_len + 1, model.batch_size)
    ids = np.resize(model._ids(text), shape[::-1]).T.copy()
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        net.loss_and_grads(ids[:-1], ids[1:], None)
        best = min(best, time.perf_counter() - start)
    return model.seq_len * model.batch_size / best


@dataclasses.dataclass(eq=False)
class CharLM(model_file.Model):
    """A character language model: embedding, recurrent layers, linear, softmax, with dropout.

    Trained by truncated backpropagation through time (Williams and Peng 1990) on parallel streams:
    the text is cut into `batch_size` contiguous pieces, which are read side by side in chunks of
    `seq_len`, and the state is carried from chunk to chunk. Adam, with the learning rate falling
    to zero along a half cosine (Loshchilov and Hutter 2017) over the budget of time and epochs.

    The last `validation_fraction` of a text is not trained on, and the weights that did best on it
    are kept. The alphabet is that of the whole text.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
    embedding_dim, hidden_size, num_layers : int
    dropout : float
        Probability, between recurrent layers and before the linear one.
    input_dropout : float
        Probability, of the embedding's outputs.
    weight_dropout : float
        Probability of a recurrent weight to be left out of a chunk (DropConnect, as in Merity et
        al. 2018), against overfitting of large models.
    seq_len : int
        Characters per chunk, through which gradients go back.
    batch_size : int
        Streams side by side; a small text gets fewer.
    lr : float
        Learning rate at the start.
    clip_norm : float
        Gradients are scaled to at most this joint norm.
    epochs : float, optional
        How often to go through the training part. Default: with `max_seconds` as often as time
        allows, otherwise 6 million characters' worth, but at most 50.
    max_seconds : float, optional
        End training after so many seconds. With it, results depend on the speed of the machine.
    validation_fraction : float
        0 for none: then the last weights are kept.
    seed : int, optional
        For the initial weights, dropout and the order of chunks. Default: fresh each time.

    Attributes
    ----------
    vocabulary : str
        The characters of the text fitted, sorted.
    history : list of Record
        ``(seconds, characters, loss, validation_bits)`` at each validation.
    interrupted : bool
        Whether the last `fit` was ended early by KeyboardInterrupt.
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
    vocabulary: str = dataclasses.field(default="", init=False, repr=False)
    history: list[Record] = dataclasses.field(default_factory=list, init=False, repr=False)
    interrupted: bool = dataclasses.field(default=False, init=False, repr=False)
    _net: Net | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        estimators.cell(self.cell)
        for name in ("embedding_dim", "hidden_size", "num_layers", "seq_len", "batch_size"):
            _checks.size(getattr(self, name), name)
        for name in ("lr", "clip_norm"):
            _checks.positive(getattr(self, name), name)
        for name in ("epochs", "max_seconds"):
            if getattr(self, name) is not None:
                _checks.positive(getattr(self, name), name)
        for name in ("dropout", "input_dropout", "weight_dropout", "validation_fraction"):
            _checks.fraction(getattr(self, name), name)
        _checks.seed(self.seed)

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
            If there are not two characters or more to train on, and as many for validation; or
            if the loss becomes NaN or infinite.
        """
        _text(text, "text")
        verbose = _checks.verbosity(verbose)
        train, validation = split(text, self.validation_fraction)
        if len(train) < 2 or len(validation) == 1 or (self.validation_fraction and not validation):
            raise ValueError(
                f"text: expected 2 characters or more to train on and as many for validation, "
                f"got {len(train)} and {len(validation)}"
            )
        self.vocabulary = "".join(sorted(set(text)))
        self._net = None
        self.history = []
        self.interrupted = True
        net = self._new_net()
        training = Training(self, net, self._ids(train), self._ids(validation))
        with Progress(verbose) as progress, suppress(KeyboardInterrupt):
            for record in training.run(progress):
                self.history.append(record)
            self.interrupted = False
        with suppress(KeyboardInterrupt):
            if self.interrupted and training.characters:
                self.history.append(training.validate())
        training.restore_best()
        self._net = net
        return self

    def _new_net(self) -> Net:
        V, D, H = len(self.vocabulary), self.embedding_dim, self.hidden_size
        seeds = estimators.seeds(self.seed, 6)
        between = self.dropout if self.num_layers > 1 else 0.0
        return Net(
            Embedding(V, D, seed=seeds[0]),
            Dropout(self.input_dropout, seed=seeds[5]),
            estimators.cell(self.cell)(D, H, self.num_layers, dropout=between, seed=seeds[1]),
            Dropout(self.dropout, seed=seeds[2]),
            Linear(H, V, seed=seeds[3]),
            Dropout(self.weight_dropout, seed=seeds[4]),
        )

    def _fitted(self) -> Net:
        if self._net is None:
            raise ValueError("CharLM: expected a fitted or loaded model; call fit first")
        return self._net

    def _ids(self, text: str, name: str = "text") -> Array:
        """Characters as indices into the vocabulary."""
        codes, known = _codes(text), _codes(self.vocabulary)
        ids = np.searchsorted(known, codes).clip(max=len(known) - 1)
        unknown = np.flatnonzero(known[ids] != codes)
        if unknown.size:
            found = text[unknown[0]]
            raise ValueError(
                f"{name}: expected characters of the text fitted, got {found!r} "
                f"at position {unknown[0]}"
            )
        return ids

    # Use.

    def bits_per_char(self, text: str, *, adapt_lr: float | None = None) -> float:
        """Mean of -log2 p(character | the characters before it), from the second one on.

        A text of 4000 characters or more is read as parallel pieces of 2000 or more, each with only
        the 200 characters before it, and all since then, as its past.

        Parameters
        ----------
        text : str
            Two characters or more, all of them in the vocabulary.
        adapt_lr : float, optional
            Learning rate at which a copy of the model goes on learning from what has been scored,
            as in dynamic evaluation (Mikolov et al. 2010; Krause et al. 2018), here by Adam, 16
            characters at a time. The text is then one piece, and takes much longer. Try 3e-4.
            Default: the weights stay as they are.
        """
        net = self._fitted()
        if len(_text(text, "text")) < 2:
            raise ValueError(f"text: expected 2 characters or more, got {len(text)}")
        if adapt_lr is None:
            return mean_bits(net, self._ids(text))
        lr = _checks.positive(adapt_lr, "adapt_lr")
        return adaptive_bits(net, self._ids(text), lr, self.clip_norm)

    def generate(
        self,
        prompt: str,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> str:
        """Write on from a prompt, character by character.

        Parameters
        ----------
        prompt : str
            Characters of the vocabulary. Empty: as after a line break, or, where the vocabulary has
            none, after its first character.
        length : int
            How many characters to write.
        temperature : float
            Divides the logits: below 1 is more cautious, 0 always takes the likeliest character.
        top_k : int, optional
            Choose among the likeliest `top_k` characters only.
        seed : int, optional
            Default: fresh each time.

        Returns
        -------
        str
            The `length` characters that follow the prompt, without it.
        """
        net = self._fitted()
        length = _checks.size(length, "length")
        temperature = _checks.real(
            temperature, "temperature", "a finite number >= 0", lambda v: 0 <= v < math.inf
        )
        k = len(self.vocabulary) if top_k is None else _checks.size(top_k, "top_k")
        first = "\n" if "\n" in self.vocabulary else self.vocabulary[0]
        written = self._ids(_text(prompt, "prompt") or first, "prompt").tolist()
        rng = np.random.default_rng(_checks.seed(seed))
        stream = net.recurrent.stream()
        table = net.embedding(np.arange(len(self.vocabulary)))
        y = np.empty(self.hidden_size, table.dtype)
        for i in written[:-1]:
            stream.step(table[i], out=y)
        start = len(written)
        for _ in range(length):
            stream.step(table[written[-1]], out=y)
            written.append(sample(net.linear(y), temperature, k, rng))
        return "".join(self.vocabulary[i] for i in written[start:])

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, which is replaced as a whole or left alone.

        The file's metadata holds format, version, and as JSON the vocabulary and what was passed to
        the constructor; there is no code in it.
        """
        tensors = self._fitted().parameters()
        # One by one: JSON makes one character of two surrogates side by side.
        header = self._settings() | {"vocabulary": list(self.vocabulary)}
        model_file.write(path, "CharLM", header, tensors)

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        found = header.pop("vocabulary")
        vocabulary = _text("".join(found) if isinstance(found, list) else found, "vocabulary")
        self = cls(**header)
        if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
            raise ValueError("vocabulary: expected sorted, distinct characters")
        V, D, H = len(vocabulary), self.embedding_dim, self.hidden_size
        cell = estimators.cell(self.cell)(1, 1)._cell
        shapes = {"embedding.weight": (V, D), "linear.weight": (V, H), "linear.bias": (V,)}
        # Layers that the file has no tensors for are too many anyway.
        for layer in range(min(self.num_layers, len(tensors))):
            recurrent = cell.weight_shapes(CellConfig(input_size=H if layer else D, hidden_size=H))
            shapes |= {f"recurrent.{name}_l{layer}": shape for name, shape in recurrent.items()}
        if shapes.keys() != tensors.keys():
            raise ValueError(f"tensors: expected {sorted(shapes)}, got {sorted(tensors)}")
        # All this before anything of a size that the header claims is made.
        for name, shape in shapes.items():
            _checks.expect_dtype(tensors[name], name, _DTYPE)
            _checks.expect_shape(tensors[name], name, shape)
        self.vocabulary = vocabulary
        self._net = self._new_net()
        for name, array in self._net.parameters().items():
            array[...] = tensors[name]
        return self


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    return value


def _codes(text: str) -> Array:
    """Code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
