"""Layers one after the other, and how they are trained, used and kept."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastrnn import _checks, losses, optim
from fastrnn._files import model_file
from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.linear import Linear
from fastrnn.layers.recurrent import GRU, LSTM, RNN, Recurrent
from fastrnn.models.data import Data, Signature
from fastrnn.models.metrics import Metric, get_metric

if TYPE_CHECKING:
    from fastrnn.callbacks import Callback
    from fastrnn.models.history import History
    from fastrnn.models.stream import ModelStream

KINDS: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Embedding, RNN, LSTM, GRU, Dropout, Linear)
}


@dataclass(slots=True, repr=False)
class SequentialTape:
    """What ``Sequential.backward`` needs of a ``forward``; `state` is where that ended.

    Attributes
    ----------
    state : list
        The final state of each recurrent layer; the next ``forward`` may go on from it.
    """

    state: list[Any]
    tapes: tuple[Any, ...]


class Sequential(Layer):
    """Layers one after the other, with Keras's habits: compile, fit, predict, evaluate.

    Data are batch-first: (N, T, F) floats, (N, T) tokens where the first layer is an
    :class:`Embedding`, or a list of arrays (T_i, F) or (T_i,) of differing lengths. The layers' own
    `batch_first` has no effect on that: the model hands each the layout that it expects.

    Parameters
    ----------
    layers : sequence of Embedding, RNN, LSTM, GRU, Dropout, Linear
        Each takes what the one before gives; all of one dtype. After a recurrent layer with
        ``return_sequences=False`` there is one output for each sequence, otherwise one for each
        step.
    seed : int, optional
        For the initial weights and the dropout of layers that were made without a seed of their
        own, which are drawn anew here, unless the weights were trained, loaded or set since; and
        for the order of the data in :meth:`fit`. Default: layers stay as they are, the order is
        fresh each time.

    Attributes
    ----------
    layers : tuple
    history : History or None
        Of the last :meth:`fit`.
    optimizer, loss, metrics
        Of :meth:`compile`; None before.
    stop_training : bool
        A callback sets it to end the training.

    Examples
    --------
    >>> model = fastrnn.Sequential([fastrnn.LSTM(3, 16, return_sequences=False),
    ...                             fastrnn.Linear(16, 1)], seed=0)
    >>> model.compile("adam", "mse")
    >>> history = model.fit(X, y, epochs=10)  # X (N, T, 3), y (N,) or (N, 1)
    """

    def __init__(self, layers: Iterable[Layer], *, seed: int | None = None) -> None:
        self.layers = _checked_layers(layers)
        self._signature = _signature(self.layers)
        self.optimizer: optim.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self.metrics: tuple[Any, ...] = ()
        self.history: History | None = None
        self.stop_training = False
        self._metrics: dict[str, Metric] = {}
        seeds: list[Any] = [None] * (len(self.layers) + 1)
        seed = _checks.seed(seed)
        if seed is not None:
            sequence = np.random.SeedSequence(seed)
            seeds = sequence.generate_state(len(seeds), np.uint64).tolist()
            for layer, own in zip(self.layers, seeds, strict=False):
                if not layer.seeded and not layer.touched:
                    layer.reset_parameters(own)
        self._rng = np.random.default_rng(seeds[-1])

    # A layer made of layers.

    def parameters(self) -> dict[str, Array]:
        """The weights themselves, as ``torch.nn.Sequential`` names them: ``1.weight_ih_l0``."""
        return {
            f"{i}.{name}": array
            for i, layer in enumerate(self.layers)
            for name, array in layer.parameters().items()
        }

    def train(self, mode: bool = True) -> Self:
        """Switch all layers to training mode (or, with False, to evaluation); returns itself."""
        for layer in self.layers:
            layer.train(mode)
        return super().train(mode)

    def __call__(self, x: Any, *, lengths: Any = None) -> Array:
        """Inference. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (B, T, F) array-like, or (B, T) of int
        lengths : (B,) array-like of int, optional
            How many of its steps each row has; outputs of later ones are 0.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        """
        data = self._one_batch(x, lengths)
        y, _ = self.run(data.x.swapaxes(0, 1), data.lengths, None, keep=False)
        if not self._signature.per_step:
            return y
        y = y.swapaxes(0, 1)
        if data.lengths is not None:
            y[np.arange(y.shape[1]) >= data.lengths[:, None]] = 0
        return y

    def forward(
        self, x: Any, state: Sequence[Any] | None = None, *, lengths: Any = None
    ) -> tuple[Array, SequentialTape]:
        """Run for training, and keep what :meth:`backward` needs.

        Parameters
        ----------
        x : (B, T, F) array-like, or (B, T) of int
        state : sequence, optional
            The state of each recurrent layer to start from, such as ``tape.state`` of the forward
            before: truncated backpropagation through time. Default: zeros.
        lengths : (B,) array-like of int, optional
            How many of its steps each row has. Outputs of later ones mean nothing; a loss with
            weight 0 there leaves them out.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        tape : SequentialTape
        """
        data = self._one_batch(x, lengths)
        if state is not None and len(_sequence(state, "state")) != len(self._recurrent):
            raise ValueError(
                f"state: expected {len(self._recurrent)} of them, one for each recurrent layer, "
                f"got {len(state)}"
            )
        y, tape = self.run(data.x.swapaxes(0, 1), data.lengths, state, keep=True)
        assert tape is not None
        return y.swapaxes(0, 1) if self._signature.per_step else y, tape

    def backward(self, tape: SequentialTape, dy: Any) -> tuple[Array | None, dict[str, Array]]:
        """Gradients of input and weights: backpropagation, through time where there are steps.

        Parameters
        ----------
        tape : SequentialTape
            From :meth:`forward` of this model.
        dy : array-like
            In the shape of y.

        Returns
        -------
        dx : (B, T, F) array, or None for tokens
        grads : dict of str to array
            By the names of :meth:`parameters`, as ``optimizer.step`` takes them.
        """
        if not isinstance(tape, SequentialTape) or len(tape.tapes) != len(self.layers):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dy = _checks.array(dy, "dy", self._signature.dtype)
        per_step = self._signature.per_step and dy.ndim == 3
        dx, grads = self.run_back(tape, dy.swapaxes(0, 1) if per_step else dy)
        return None if dx is None else dx.swapaxes(0, 1), grads

    @property
    def _recurrent(self) -> list[Recurrent]:
        return [layer for layer in self.layers if isinstance(layer, Recurrent)]

    def _one_batch(self, x: Any, lengths: Any) -> Data:
        if isinstance(x, list | tuple):
            x = np.asarray(x) if lengths is not None or _even(x) else x
        return Data(self._signature, *self._signature.padded(x, "x", ("B", "T"), lengths))

    def run(
        self, x: Array, lengths: Array | None, state: Sequence[Any] | None, keep: bool
    ) -> tuple[Array, SequentialTape | None]:
        """All layers over checked, time-first arrays; not for direct use."""
        tapes: list[Any] = []
        ends: list[Any] = []
        for layer in self.layers:
            if isinstance(layer, Recurrent):
                start = None if state is None else state[len(ends)]
                x = x.swapaxes(0, 1) if layer.batch_first else x
                if keep:
                    x, end, tape = layer.forward(x, start, lengths=lengths)
                    tapes.append(tape)
                else:
                    x, end = layer(x, start, lengths=lengths)
                ends.append(end)
                x = x.swapaxes(0, 1) if layer.batch_first and layer.return_sequences else x
            elif keep:
                x, tape = layer.forward(x)  # type: ignore[attr-defined]
                tapes.append(tape)
            else:
                x = layer(x)  # type: ignore[operator]
        return x, SequentialTape(ends, tuple(tapes)) if keep else None

    def run_back(
        self, tape: SequentialTape, dy: Array, for_update: bool = False
    ) -> tuple[Array | None, dict[str, Any]]:
        """Back through :meth:`run`; not for direct use.

        `for_update`, by an optimizer's ``apply``: a table's gradient is a RowGradient, and that of
        x, which nobody asks for then, may be None.
        """
        found: list[dict[str, Any]] = []
        d: Any = dy
        for i, (layer, kept) in reversed([*enumerate(zip(self.layers, tape.tapes, strict=True))]):
            if isinstance(layer, Recurrent):
                d = d.swapaxes(0, 1) if layer.batch_first and layer.return_sequences else d
                d, _, grads = layer.backward(kept, d, input_gradient=i > 0 or not for_update)
                d = d.swapaxes(0, 1) if layer.batch_first and d is not None else d
            elif for_update and isinstance(layer, Embedding):
                d, grads = layer.backward_by_rows(kept, d)  # type: ignore[assignment]
            else:
                d, grads = layer.backward(kept, d)
            found.append(grads)
        found.reverse()
        return d, {f"{i}.{name}": g for i, grads in enumerate(found) for name, g in grads.items()}

    def stream(self, batch_size: int = 1) -> ModelStream:
        """The whole model one time step at a time; many streams can share it.

        Parameters
        ----------
        batch_size : int
            Rows stepped together.

        Raises
        ------
        ValueError
            If a layer is bidirectional.
        """
        from fastrnn.models.stream import ModelStream

        return ModelStream(self.layers, self._signature, _checks.size(batch_size, "batch_size"))

    # Training and use.

    def compile(
        self,
        optimizer: str | optim.Optimizer = "adam",
        loss: str | losses.Loss = "cross_entropy",
        metrics: Sequence[Any] = (),
    ) -> None:
        """Say how :meth:`fit` trains.

        Parameters
        ----------
        optimizer : {"sgd", "adam", "adamw", "rmsprop", "adagrad"} or Optimizer
            A name stands for a fresh one with its defaults.
        loss : {"mse", "mae", "huber", "cross_entropy", "binary_cross_entropy"} or Loss
            The last two take logits: the model needs no softmax or sigmoid.
        metrics : sequence of str or callable
            ``"accuracy"``, names of losses, or functions ``f(output, target) -> float`` of the
            outputs and targets of a batch: (B, ...), (B, T, ...) per step, or, where some are
            padding or have weight 0, (n, ...) of the others. Each is averaged over batches.
        """
        chosen = losses.get(loss)
        found = [get_metric(m, chosen) for m in _sequence(metrics, "metrics")]
        names = [name for name, _ in found]
        if len({"loss", *names}) <= len(names):
            raise ValueError(f"metrics: expected names that differ, also from 'loss', got {names}")
        self.optimizer, self.loss = optim.get(optimizer), chosen
        self.metrics = tuple(metrics)
        self._metrics = dict(found)

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Any = None,
        validation_split: float = 0.0,
        lengths: Any = None,
        shuffle: bool = True,
        callbacks: Sequence[Callback] = (),
        verbose: int = 1,
        *,
        sample_weight: Any = None,
        bptt: int | None = None,
        stateful: bool = False,
    ) -> History:
        """Train.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model and history so far are kept.

        Parameters
        ----------
        X : (N, T, F) array-like, (N, T) of int, or list of N arrays (T_i, F) or (T_i,)
        y : array-like, or list of N arrays
            With outputs per step, targets per step: (N, T, ...) or N arrays (T_i, ...); otherwise
            (N, ...). The loss says what comes after: nothing for cross_entropy, else O; an O of 1
            may be left out.
        epochs : int
            How often to go through the data.
        batch_size : int
            Sequences per step of the optimizer.
        validation_data : tuple (X, y) or (X, y, sample_weight), or dict, optional
            What to evaluate after each epoch; a dict has the arguments of :meth:`evaluate`.
        validation_split : float
            Take this last part of X and y for validation instead, 0 to 1.
        lengths : (N,) array-like of int, optional
            How many of its steps each sequence of an array X has; what follows counts for nothing.
        shuffle : bool
            Whether each epoch has an order of its own. Sequences of differing lengths then meet
            those of like length, which saves padding.
        callbacks : sequence of Callback
        verbose : int
            0 is silent. 1 shows progress on stderr: a bar on a terminal, else a line every few
            seconds; 2 a line for each epoch.
        sample_weight : (N,) array-like, or as `y` per step, optional
            Weights of sequences or steps in the loss, as in :mod:`fastrnn.losses`: of each batch
            the loss is sum(w l) / sum(w).
        bptt : int, optional
            Truncated backpropagation through time (Williams and Peng 1990): sequences longer than
            so many steps are trained on in pieces of it, each a step of the optimizer, and the
            state is carried from piece to piece. Needs outputs per step. Default: whole sequences.
        stateful : bool
            Whether the state is carried from batch to batch too: row i of a batch goes on where
            row i of the one before ended. For streams that were cut: nothing is shuffled, N has to
            be a multiple of `batch_size`, and all sequences have the same length. The state is
            zeroed at the start of each epoch, and for each batch of validation and prediction.

        Returns
        -------
        History
            ``history.history["loss"]``, one number per epoch: the mean over its batches, each
            taken before its step; ``["val_loss"]`` with validation; and so for each metric.

        Raises
        ------
        ValueError
            If arguments don't fit the model or each other; or if the loss becomes NaN or infinite,
            which names epoch and batch. ``model.history`` then has the epochs before.
        """
        from fastrnn.callbacks import Callback
        from fastrnn.models.trainer import Run

        for i, callback in enumerate(_sequence(callbacks, "callbacks")):
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks[{i}]: expected a Callback, got {type(callback).__name__}"
                )
        loss = self._compiled()
        data = Data.of(self._signature, X, lengths).with_targets(loss, y, sample_weight)
        split = _checks.fraction(validation_split, "validation_split")
        validation = None
        if split:
            if validation_data is not None:
                raise ValueError("validation_split: expected 0 with validation_data")
            n = len(data) - round(len(data) * split)
            if not 0 < n < len(data):
                raise ValueError(
                    f"validation_split: expected some of {len(data)} sequences on both sides, "
                    f"got {split}"
                )
            data, validation = data.part(slice(0, n)), data.part(slice(n, None))
        elif validation_data is not None:
            arguments = _validation_arguments(validation_data)
            try:
                validation = self._data(**arguments)
            except (ValueError, TypeError) as error:
                raise type(error)(f"validation_data {error}") from None
        stateful = _checks.flag(stateful, "stateful")
        run = Run(
            self,
            data,
            validation,
            epochs=_checks.size(epochs, "epochs"),
            batch_size=_checks.size(batch_size, "batch_size"),
            shuffle=_checks.flag(shuffle, "shuffle") and not stateful,
            bptt=None if bptt is None else _checks.size(bptt, "bptt"),
            stateful=stateful,
        )
        return run.run(callbacks, _checks.verbosity(verbose))

    def evaluate(
        self,
        X: Any,
        y: Any,
        batch_size: int = 256,
        lengths: Any = None,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Loss and metrics, as :meth:`fit` measures validation data.

        Parameters
        ----------
        X, y, lengths, sample_weight
            As in :meth:`fit`.
        batch_size : int
            Sequences at a time.

        Returns
        -------
        dict of str to float
            ``"loss"``, and each metric by its name.
        """
        from fastrnn.models.trainer import measure

        data = self._data(X, y, lengths, sample_weight)
        return measure(self, data, _checks.size(batch_size, "batch_size"))

    def predict(self, X: Any, batch_size: int = 256, lengths: Any = None) -> Any:
        """Outputs of all sequences.

        Parameters
        ----------
        X, lengths
            As in :meth:`fit`.
        batch_size : int
            Sequences at a time.

        Returns
        -------
        y : (N, O) array; or, per step, (N, T, O), or for a list X a list of (T_i, O)
            Past a sequence's length, 0.
        """
        from fastrnn.models.trainer import predict

        data = Data.of(self._signature, X, lengths)
        return predict(self, data, _checks.size(batch_size, "batch_size"))

    def _compiled(self) -> losses.Loss:
        if self.loss is None:
            raise ValueError("Sequential: expected compile(optimizer, loss) first")
        return self.loss

    def _data(self, X: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> Data:
        loss = self._compiled()
        return Data.of(self._signature, X, lengths).with_targets(loss, y, sample_weight)

    # Telling and keeping.

    def summary(self) -> None:
        """Print a table of layers, shapes of their outputs, and numbers of parameters."""
        lead = "(B, T, "
        rows = [("Layer", "Output", "Parameters")]
        size = self._signature.features
        for i, layer in enumerate(self.layers):
            size = _sizes(layer)[1] or size
            if isinstance(layer, Recurrent) and not layer.return_sequences:
                lead = "(B, "
            count = sum(p.size for p in layer.parameters().values())
            rows.append((f"{i}  {layer!r}", f"{lead}{size})", f"{count:,}"))
        total = sum(p.size for p in self.parameters().values())
        rows.append(("", "", f"{total:,}"))
        first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
        for a, b, c in rows:
            print(f"{a:<{first}}  {b:<{second}}  {c:>{third}}".rstrip())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights to a safetensors file, for ``fastrnn.load``.

        The file is replaced as a whole or left alone. There is no code in it, and nothing of
        :meth:`compile`; ``fastrnn.callbacks.Checkpoint`` keeps a training.
        """
        model_file.write(path, "Sequential", self._architecture(), self.parameters())

    def _architecture(self) -> dict[str, Any]:
        """What :meth:`_from_file` makes the layers of, as JSON has it."""
        layers = []
        for i, layer in enumerate(self.layers):
            name = type(layer).__name__
            if type(layer) is not KINDS.get(name):
                raise TypeError(
                    f"layers[{i}]: expected one of {', '.join(KINDS)}, got {name}, a class derived "
                    "from one, which no file can hold"
                )
            layers.append({"class": name, "config": _config(layer)})
        return {"layers": layers}

    @classmethod
    def _from_file(cls, model: dict[str, Any], tensors: dict[str, Array]) -> Self:
        layers = [
            _layer_from_file(i, spec["class"], spec["config"], tensors)
            for i, spec in enumerate(model["layers"])
        ]
        self = cls(layers)
        for name, array in self.parameters().items():
            if name in tensors:
                _checks.expect_dtype(tensors[name], name, array.dtype)
        self.load_state_dict(tensors)
        return self

    def __repr__(self) -> str:
        inner = "".join(f"\n  ({i}): {layer!r}" for i, layer in enumerate(self.layers))
        return f"Sequential({inner}\n)"


def _checked_layers(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers that fit each other."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: expected a list, got {type(layers).__name__}")
    found = tuple(layers)
    size: int | None = None
    per_step = True
    for i, layer in enumerate(found):
        if not isinstance(layer, tuple(KINDS.values())):
            raise TypeError(
                f"layers[{i}]: expected one of {', '.join(KINDS)}, got {type(layer).__name__}"
            )
        if any(layer is other for other in found[:i]):
            raise ValueError(f"layers[{i}]: expected a layer of its own, got one a second time")
        if isinstance(layer, Embedding) and i:
            raise ValueError(f"layers[{i}]: expected Embedding to be the first layer")
        takes, gives = _sizes(layer)
        if size is not None and takes is not None and takes != size:
            raise ValueError(f"layers[{i}]: expected an input size of {size}, got {layer!r}")
        if isinstance(layer, Recurrent):
            if not per_step:
                raise ValueError(
                    f"layers[{i}]: expected return_sequences=True in the recurrent layer before it"
                )
            per_step = layer.return_sequences
        size = gives or size
    if size is None:
        raise ValueError(f"layers: expected one or more with weights, got {list(found)}")
    dtypes = {str(layer.dtype) for layer in found if layer.dtype is not None}
    if len(dtypes) > 1:
        raise ValueError(f"layers: expected one dtype, got {' and '.join(sorted(dtypes))}")
    return found


def _sizes(layer: Layer) -> tuple[int | None, int | None]:
    """What a layer takes and gives on the last axis; None for anything."""
    if isinstance(layer, Embedding):
        return None, layer.embedding_dim
    if isinstance(layer, Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Recurrent):
        P = getattr(layer, "proj_size", 0) or layer.hidden_size
        return layer.input_size, P * (1 + layer.bidirectional)
    return None, None


def _signature(layers: Sequence[Layer]) -> Signature:
    sized = [layer for layer in layers if _sizes(layer)[1]]
    first: Any = sized[0]
    outputs = _sizes(sized[-1])[1]
    per_step = all(layer.return_sequences for layer in layers if isinstance(layer, Recurrent))
    vocabulary = first.num_embeddings if isinstance(first, Embedding) else None
    return Signature(vocabulary, _sizes(first)[0] or 0, outputs or 0, per_step, first.dtype)


#: What only the initial weights depend on.
_INITIAL = frozenset({"seed", "init", "forget_bias"})


def _config(layer: Layer) -> dict[str, Any]:
    """What to call the constructor with for such a layer, as JSON has it."""
    names = [n for n in inspect.signature(type(layer)).parameters if n not in _INITIAL]
    found = {name: getattr(layer, name) for name in names}
    return found | {n: v.name for n, v in found.items() if isinstance(v, np.dtype)}


def _layer_from_file(i: int, name: str, config: dict[str, Any], tensors: dict[str, Array]) -> Layer:
    """A layer that takes no more memory than a small multiple of its tensors."""
    if name not in KINDS or _INITIAL & config.keys():
        raise ValueError(f"layers[{i}]: expected one of {', '.join(KINDS)}, got {name!r}")
    needed = {
        "Embedding": ("num_embeddings", "embedding_dim"),
        "Linear": ("in_features", "out_features"),
        "Dropout": (),
    }.get(name, ("input_size", "hidden_size", "num_layers"))
    sizes = [_checks.size(config[n], n) for n in needed]
    if len(sizes) == 3:
        I, H, L = sizes
        P = config.get("proj_size", 0) or H
        claimed = H * (I + P) + (L - 1) * 2 * H * P
    else:
        claimed = math.prod(sizes) if sizes else 0
    held = sum(a.size for n, a in tensors.items() if n.startswith(f"{i}."))
    if claimed > held:
        raise ValueError(f"layers[{i}]: claims {claimed} weights or more, the file has {held}")
    make: Any = KINDS[name]
    layer: Layer = make(**config)
    return layer


def _even(x: Sequence[Any]) -> bool:
    return len({np.shape(item) for item in x}) == 1


def _sequence(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a list, got {type(value).__name__}")
    return value


def _validation_arguments(value: Any) -> dict[str, Any]:
    names = ("X", "y", "sample_weight")
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return dict(zip(names, value, strict=False))
    if isinstance(value, Mapping):
        allowed = {*names, "lengths"}
        if {"X", "y"} <= value.keys() <= allowed:
            return dict(value)
    raise ValueError(
        "validation_data: expected (X, y), (X, y, sample_weight) or a dict of X, y, lengths, "
        "sample_weight"
    )
