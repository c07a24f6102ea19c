"""Text: a character language model."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Self

import numpy as np

from fastrnn import _checks, _modelfile
from fastrnn.layers import GRU, LSTM, RNN, Dropout, Embedding, Linear
from fastrnn.losses import cross_entropy
from fastrnn.optim import Adam

Array = np.ndarray[Any, np.dtype[Any]]

_CELLS: dict[str, type[RNN | LSTM | GRU]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}

#: The default budget: what takes a text of a megabyte to where its curve flattens (about 6 epochs),
#: and no more epochs than this over a small one.
_CHARACTERS = 6_000_000
_MAX_EPOCHS = 50

#: Rounds of training between two validations take as many characters as this many validation parts;
#: a validation, forward only, then costs a small part of the time.
_VALIDATE_EVERY = 5

#: A small text gets fewer streams, so that the state is carried over this many chunks or more.
_CHUNKS_PER_STREAM = 8

#: Where stderr is no terminal, a line of progress is printed this often.
_SECONDS_PER_LINE = 5.0

#: Evaluation cuts a text into pieces of at least so many characters, run side by side, each after
#: a warm-up on the characters before it.
_PIECE, _WARM_UP, _MAX_PIECES = 2000, 200, 64

_DTYPE = np.dtype(np.float32)


class Record(NamedTuple):
    """A line of :attr:`CharLM.history`."""

    seconds: float  #: Since the start of `fit`.
    characters: int  #: Trained on so far.
    loss: float  #: Training loss since the line before, nats per character.
    validation_bits: float  #: Bits per character of the validation part; NaN without one.


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


@dataclasses.dataclass(frozen=True)
class _Net:
    """Embedding, recurrent, dropout, linear; time-major: (T, B) indices to (T, B, V) logits."""

    embedding: Embedding
    recurrent: RNN | LSTM | GRU
    dropout: Dropout
    linear: Linear

    def parameters(self) -> dict[str, Array]:
        return {
            f"{field.name}.{name}": array
            for field in dataclasses.fields(self)
            for name, array in getattr(self, field.name).parameters().items()
        }

    def logits(self, x: Array, state: Any) -> tuple[Array, Any]:
        y, state = self.recurrent(self.embedding(x), state)
        return self.linear(y), state

    def loss_and_grads(
        self, x: Array, target: Array, state: Any
    ) -> tuple[float, dict[str, Array], Any]:
        """Loss in nats, gradients by the names of `parameters`, and the state to go on from."""
        y, tape_e = self.embedding.forward(x)
        y, state, tape_r = self.recurrent.forward(y, state)
        y, tape_d = self.dropout.forward(y)
        y, tape_l = self.linear.forward(y)
        loss, d = cross_entropy.value_and_grad(y, target)
        d, grads_l = self.linear.backward(tape_l, d)
        d, _ = self.dropout.backward(tape_d, d)
        d, _, grads_r = self.recurrent.backward(tape_r, d)
        _, grads_e = self.embedding.backward(tape_e, d)
        grads = {"embedding": grads_e, "recurrent": grads_r, "linear": grads_l}
        return loss, {f"{p}.{n}": g for p, of in grads.items() for n, g in of.items()}, state


@dataclasses.dataclass(eq=False)
class CharLM:
    """A character language model: embedding, recurrent layer, dropout, linear, softmax.

    Trained by truncated backpropagation through time (Williams and Peng 1990) on parallel streams:
    the text is cut into `batch_size` contiguous pieces, which are read side by side in chunks of
    `seq_len`, and the state is carried from chunk to chunk. Adam, with the learning rate falling
    to zero along a half cosine (Loshchilov and Hutter 2017) over the budget of time and epochs.

    The last `validation_fraction` of a text is not trained on, and the weights that did best on it
    are kept. The alphabet is that of the whole text.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
    embedding_dim, hidden_size : int
    dropout : float
        Probability, between the recurrent layer and the linear one.
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
    dropout: float = 0.2
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
    _net: _Net | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cell not in _CELLS:
            expected = ", ".join(map(repr, _CELLS))
            raise ValueError(f"cell: expected one of {expected}, got {self.cell!r}")
        for name in ("embedding_dim", "hidden_size", "seq_len", "batch_size"):
            _checks.size(getattr(self, name), name)
        for name in ("lr", "clip_norm"):
            _checks.positive(getattr(self, name), name)
        for name in ("epochs", "max_seconds"):
            if getattr(self, name) is not None:
                _checks.positive(getattr(self, name), name)
        for name in ("dropout", "validation_fraction"):
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
        training = _Training(self, net, self._ids(train), self._ids(validation))
        with _Progress(verbose) as progress, suppress(KeyboardInterrupt):
            for record in training.run(progress):
                self.history.append(record)
            self.interrupted = False
        with suppress(KeyboardInterrupt):
            if self.interrupted and training.characters:
                self.history.append(training.validate())
        training.restore_best()
        self._net = net
        return self

    def _new_net(self) -> _Net:
        V, D, H = len(self.vocabulary), self.embedding_dim, self.hidden_size
        seeds = np.random.SeedSequence(self.seed).generate_state(4, np.uint64).tolist()
        return _Net(
            Embedding(V, D, seed=seeds[0]),
            _CELLS[self.cell](D, H, seed=seeds[1]),
            Dropout(self.dropout, seed=seeds[2]),
            Linear(H, V, seed=seeds[3]),
        )

    def _fitted(self) -> _Net:
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

    def bits_per_char(self, text: str) -> float:
        """Mean of -log2 p(character | the characters before it), from the second one on.

        A text of 4000 characters or more is read as parallel pieces of 2000 or more, each with only
        the 200 characters before it, and all since then, as its past.

        Parameters
        ----------
        text : str
            Two characters or more, all of them in the vocabulary.
        """
        net = self._fitted()
        if len(_text(text, "text")) < 2:
            raise ValueError(f"text: expected 2 characters or more, got {len(text)}")
        return _bits(net, self._ids(text))

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
            written.append(_sample(net.linear(y), temperature, k, rng))
        return "".join(self.vocabulary[i] for i in written[start:])

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, which is replaced as a whole or left alone.

        The file's metadata holds format, version, and as JSON the vocabulary and what was passed to
        the constructor; there is no code in it.
        """
        tensors = self._fitted().parameters()
        names = [field.name for field in dataclasses.fields(self) if field.init]
        header = {name: getattr(self, name) for name in names} | {"vocabulary": self.vocabulary}
        _modelfile.write(path, "CharLM", header, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the file is damaged, something else, or of an unknown version.
        OSError
            If there is no such file, or it can't be read.
        """
        found: Self = _modelfile.load(path, cls)
        return found

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Array]) -> Self:
        vocabulary = _text(header.pop("vocabulary"), "vocabulary")
        self = cls(**header)
        if not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
            raise ValueError("vocabulary: expected sorted, distinct characters")
        V, D, H = len(vocabulary), self.embedding_dim, self.hidden_size
        recurrent = _CELLS[self.cell](1, 1)._cell.weight_shapes(D, H)
        shapes = {"embedding.weight": (V, D), "linear.weight": (V, H), "linear.bias": (V,)}
        shapes |= {f"recurrent.{name}_l0": shape for name, shape in recurrent.items()}
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


class _Training:
    """One run of `CharLM.fit`: the data as streams, the budget, and the best weights."""

    def __init__(self, model: CharLM, net: _Net, train: Array, validation: Array) -> None:
        n = len(train) - 1
        self.net, self.validation = net, validation
        self.T = min(model.seq_len, n)
        self.B = max(1, min(model.batch_size, n // (self.T * _CHUNKS_PER_STREAM)))
        self.L = n // self.B
        self.x, self.target = (
            np.ascontiguousarray(ids[: self.B * self.L].reshape(self.B, self.L).T)
            for ids in (train[:-1], train[1:])
        )
        self.max_seconds = model.max_seconds or math.inf
        epochs = model.epochs
        if epochs is None:
            default = min(_MAX_EPOCHS, _CHARACTERS / n)
            epochs = math.inf if model.max_seconds else default
        self.steps = max(1, epochs * (self.L // self.T))
        self.lr = model.lr
        self.adam = Adam(lambda _: self.lr_now(), clip_norm=model.clip_norm)
        self.rng = np.random.default_rng(model.seed)
        self.parameters = net.parameters()
        self.best: tuple[float, dict[str, Array]] | None = None
        self.losses: list[float] = []
        self.characters = 0
        self.start = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def done(self) -> float:
        """How much of the budget is used up, 0 to 1."""
        time_used = 0.0 if self.max_seconds == math.inf else self.seconds() / self.max_seconds
        return min(1.0, max(self.adam.steps / self.steps, time_used))

    def lr_now(self) -> float:
        return self.lr * (1 + math.cos(math.pi * self.done())) / 2

    def chunks(self) -> Iterator[tuple[Array, Array, bool]]:
        """Inputs, targets, and whether the state starts anew; for ever."""
        while True:
            # Chunks begin elsewhere in each epoch, so that other characters are left over.
            offset = int(self.rng.integers(self.L % self.T + 1))
            for t in range(offset, self.L - self.T + 1, self.T):
                yield self.x[t : t + self.T], self.target[t : t + self.T], t == offset

    def run(self, progress: _Progress) -> Iterator[Record]:
        """Train until the budget is used up; yields at each validation."""
        state = None
        every = _VALIDATE_EVERY * len(self.validation) or self.x.size
        next_validation = every
        for x, target, anew in self.chunks():
            # What is not finite is an error here, and warnings of it only noise.
            with np.errstate(over="ignore", invalid="ignore"):
                loss, grads, state = self.net.loss_and_grads(x, target, None if anew else state)
            if not math.isfinite(loss):
                raise ValueError(f"lr: expected a smaller value, training diverged at {self.lr}")
            self.adam.step(self.parameters, grads)
            self.losses.append(loss)
            self.characters += x.size
            done = self.done()
            if done >= 1 or self.characters >= next_validation:
                next_validation = self.characters + every
                record = self.validate()
                progress.record(record)
                yield record
            progress.show(done, self.seconds(), self.characters, loss)
            if done >= 1:
                return

    def validate(self) -> Record:
        """Measure, and remember the weights if they are the best so far."""
        bits = _bits(self.net, self.validation) if self.validation.size else math.nan
        if self.validation.size and (self.best is None or bits < self.best[0]):
            self.best = bits, {name: array.copy() for name, array in self.parameters.items()}
        loss = float(np.mean(self.losses)) if self.losses else math.nan
        self.losses.clear()
        return Record(self.seconds(), self.characters, loss, bits)

    def restore_best(self) -> None:
        if self.best is not None:
            for name, array in self.best[1].items():
                self.parameters[name][...] = array


class _Progress:
    """Progress on stderr: a bar on a terminal, else lines."""

    def __init__(self, verbose: int) -> None:
        self.bar: Any = None
        self.lines = bool(verbose) and not sys.stderr.isatty()
        self.next_line = 0.0
        self.bits = ""
        self.line = ""
        if verbose and not self.lines:
            from tqdm import tqdm  # type: ignore[import-untyped]

            shape = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {desc}"
            self.bar = tqdm(total=1.0, bar_format=shape, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self.print_line()

    def show(self, done: float, seconds: float, characters: int, loss: float) -> None:
        said = f"loss {loss:.3f}{self.bits}, {characters / seconds:,.0f} char/s"
        if self.bar is not None:
            self.bar.set_description_str(said, refresh=False)
            self.bar.update(done - self.bar.n)
        if self.lines:
            self.line = f"{done:4.0%} {seconds:6.1f} s  {said}"
            if seconds >= self.next_line:
                self.next_line = seconds + _SECONDS_PER_LINE
                self.print_line()

    def print_line(self) -> None:
        if self.line:
            print(self.line, file=sys.stderr, flush=True)
        self.line = ""

    def record(self, record: Record) -> None:
        if not math.isnan(record.validation_bits):
            self.bits = f", validation {record.validation_bits:.3f} bits/char"


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {type(value).__name__}")
    return value


def _codes(text: str) -> Array:
    """Code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _bits(net: _Net, ids: Array) -> float:
    """Bits per character of all but the first of `ids`."""
    n = len(ids) - 1
    pieces = max(1, min(n // _PIECE, _MAX_PIECES))
    L = n // pieces
    starts = np.arange(pieces) * L
    nats = 0.0
    state: Any = None
    if pieces > 1:
        # The first piece has nothing before it: it warms up on something, and is reset.
        _, state = net.logits(ids[starts + np.arange(-_WARM_UP, 0)[:, None]], None)
        for s in state if isinstance(state, tuple) else (state,):
            s[:, 0] = 0
    for t in range(0, L, _WARM_UP):
        at = starts + np.arange(t, min(t + _WARM_UP, L))[:, None]
        logits, state = net.logits(ids[at], state)
        nats += cross_entropy(logits, ids[at + 1]) * at.size
    rest = ids[pieces * L :]
    if len(rest) > 1:
        # What the division left over goes on from the last piece.
        last = tuple(s[:, -1:] for s in state) if isinstance(state, tuple) else state[:, -1:]
        logits, _ = net.logits(rest[:-1, None], last)
        nats += cross_entropy(logits, rest[1:, None]) * (len(rest) - 1)
    return nats / n / math.log(2)


def _sample(logits: Array, temperature: float, k: int, rng: np.random.Generator) -> int:
    """One of the `k` likeliest, drawn from softmax(logits / temperature)."""
    likeliest = np.argsort(-logits, kind="stable")[:k]
    if temperature == 0:
        return int(likeliest[0])
    z = logits[likeliest].astype(np.float64) / temperature
    p = np.exp(z - z[0])
    return int(likeliest[np.searchsorted(p.cumsum(), rng.random() * p.sum(), side="right")])
