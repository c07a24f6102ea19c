"""Layers one after the other, and how they are trained, used and kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastrnn import _checks, losses, optim
from fastrnn._files import model_file
from fastrnn._types import Array
from fastrnn.layers.base import Layer
from fastrnn.models import architecture, evaluation
from fastrnn.models.callback import Callback
from fastrnn.models.data import Data
from fastrnn.models.evaluation import Objective
from fastrnn.models.exclusive import Exclusive
from fastrnn.models.history import History
from fastrnn.models.metrics import get_metric
from fastrnn.models.network import Network, SequentialTape
from fastrnn.models.progress import ProgressBar
from fastrnn.models.stream import ModelStream
from fastrnn.models.trainer import Plan, Trainer


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

    stackable = False
    history: History | None = None
    stop_training: bool = False

    def __init__(self, layers: Iterable[Layer], *, seed: int | None = None) -> None:
        self._network = Network(layers)
        self._optimizer: optim.Optimizer | None = None
        self._objective: Objective | None = None
        self._metrics: tuple[Any, ...] = ()
        self._fitting = Exclusive(
            "Sequential: a fit of this model is running; compile it or fit it again after that"
        )
        self._reset(seed, only_initial=True)

    def _reset(self, seed: int | None, *, only_initial: bool) -> None:
        """Draw weights and the generator of :meth:`fit` by a seed.

        `only_initial` leaves layers alone that have a seed of their own or were touched since.
        """
        seeds: list[Any] = [None] * (len(self.layers) + 1)
        seed = _checks.seed(seed)
        if seed is not None:
            sequence = np.random.SeedSequence(seed)
            seeds = sequence.generate_state(len(seeds), np.uint64).tolist()
        for layer, own in zip(self.layers, seeds, strict=False):
            if not only_initial or (seed is not None and not layer.seeded and not layer.touched):
                layer.reset_parameters(own)
        self._rng = np.random.default_rng(seeds[-1])

    # Read-only, for the model goes by them.

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        return self._network.layers

    @property
    def optimizer(self) -> optim.Optimizer | None:
        """The optimizer given to :meth:`compile`; None before."""
        return self._optimizer

    @property
    def loss(self) -> losses.Loss | None:
        """The loss given to :meth:`compile`; None before."""
        return None if self._objective is None else self._objective.loss

    @property
    def metrics(self) -> tuple[Any, ...]:
        """The metrics given to :meth:`compile`."""
        return self._metrics

    # A layer made of layers.

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, as ``torch.nn.Sequential`` names them: ``1.weight_ih_l0``.

        Change them in place; the next call sees it.
        """
        return self._network.parameters()

    def train(self, mode: bool = True) -> Self:
        """Switch all layers to training mode (or, with False, to evaluation); return itself."""
        for layer in self.layers:
            layer.train(mode)
        return super().train(mode)

    @property
    def trainable(self) -> bool:
        """Whether :meth:`fit` changes the weights of any layer. Set it for all of them."""
        return any(self._network.trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = _checks.flag(value, "trainable")
        for layer in self.layers:
            layer.trainable = value

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the initial weights of all layers again, and the generators of dropout and `fit`.

        Parameters
        ----------
        seed : int, optional
            As for a model made with this seed of layers without seeds of their own. Default: fresh.
        """
        self._reset(seed, only_initial=False)

    @property
    def features_in(self) -> int | None:
        """F; None where the first layer takes tokens."""
        return self._network.signature.features or None

    @property
    def features_out(self) -> int:
        """O."""
        return self._network.signature.outputs

    @property
    def vocabulary(self) -> int | None:
        """How many tokens there are where the first layer takes tokens."""
        return self._network.signature.vocabulary

    @property
    def per_sequence(self) -> bool:
        """Whether there is one output for each sequence rather than for each step."""
        return not self._network.signature.per_step

    @property
    def has_state(self) -> bool:
        """Whether a layer is recurrent."""
        return self._network.states > 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the weights, and of all that is computed."""
        return self._network.signature.dtype

    def __call__(
        self, x: Any, state: Sequence[Any] | None = None, lengths: Any = None, reset: Any = None
    ) -> Any:
        """Run for inference. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (B, T, F) array-like, or (B, T) of int
        state : sequence, optional
            The state of each recurrent layer to start from, None for zeros. Default: zeros.
        lengths : (B,) array-like of int, optional
            How many of its steps each row has; outputs of later ones are 0.
        reset : (B, T) array-like of bool, optional
            Where the states are zeroed before a step.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        state : list
            The final state of each recurrent layer; only where `state` was given.
        """
        data, states, resets = self._one_batch(x, state, lengths, reset)
        y, ends = self._network.apply(
            data.x.swapaxes(0, 1), states, lengths=data.lengths, reset=resets
        )
        if self._network.signature.per_step:
            y = y.swapaxes(0, 1)
            if data.lengths is not None:
                y[np.arange(y.shape[1]) >= data.lengths[:, None]] = 0
        return y if state is None else (y, ends)

    def forward(
        self, x: Any, state: Sequence[Any] | None = None, lengths: Any = None, reset: Any = None
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
        reset : (B, T) array-like of bool, optional
            Where the states are zeroed before a step, here and in :meth:`backward`.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        tape : SequentialTape
        """
        data, states, resets = self._one_batch(x, state, lengths, reset)
        y, tape = self._network.apply_forward(
            data.x.swapaxes(0, 1), states, lengths=data.lengths, reset=resets
        )
        return y.swapaxes(0, 1) if self._network.signature.per_step else y, tape

    def backward(self, tape: SequentialTape, dy: Any) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of input and weights: backpropagation, through time.

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

        Raises
        ------
        ValueError
            If the tape is of a model of another structure, or `dy` of another shape.
        """
        signature = self._network.signature
        dy = _checks.array(dy, "dy", signature.dtype)
        per_step = signature.per_step and dy.ndim == 3
        dx, grads = self._network.apply_backward(tape, dy.swapaxes(0, 1) if per_step else dy)
        return None if dx is None else dx.swapaxes(0, 1), grads

    def _one_batch(
        self, x: Any, state: Any, lengths: Any, reset: Any
    ) -> tuple[Data, Sequence[Any] | None, Array | None]:
        """Return the arguments of a call, checked; `reset` time first."""
        signature, states = self._network.signature, self._network.states
        if isinstance(x, list | tuple):
            x = np.asarray(x) if lengths is not None or _even(x) else x
        data = Data(signature, *signature.padded(x, "x", ("B", "T"), lengths))
        if state is not None and len(_sequence(state, "state")) != states:
            raise ValueError(
                f"state: expected {states} of them, one for each recurrent layer, got {len(state)}"
            )
        B, T = data.x.shape[:2]
        if reset is not None:
            reset = _checks.asarray(reset, "reset")
            if reset.dtype != np.bool_:
                raise TypeError(f"reset: expected an array of booleans, got dtype {reset.dtype}")
            reset = _checks.expect_shape(reset, "reset", (B, T)).swapaxes(0, 1)
        return data, state, reset

    def stream(self, batch_size: int = 1) -> ModelStream:
        """Return a stream that steps the whole model; many streams can share it.

        Parameters
        ----------
        batch_size : int
            Rows stepped together.

        Raises
        ------
        ValueError
            If a layer is bidirectional.
        """
        return ModelStream(self._network, _checks.size(batch_size, "batch_size"))

    # Training and use.

    def compile(
        self,
        optimizer: str | optim.Optimizer = "adam",
        loss: str | losses.Loss = "cross_entropy",
        metrics: Sequence[Any] = (),
    ) -> None:
        """Set how :meth:`fit` trains.

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
        self._fitting.refuse_if_taken()
        self._optimizer = optim.get(optimizer)
        self._objective, self._metrics = Objective(chosen, dict(found)), tuple(metrics)

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
        """Train the model.

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
        with self._fitting:
            for i, callback in enumerate(_sequence(callbacks, "callbacks")):
                if not isinstance(callback, Callback):
                    raise TypeError(
                        f"callbacks[{i}]: expected a Callback, got {type(callback).__name__}"
                    )
            objective, optimizer = self._compiled()
            stateful = _checks.flag(stateful, "stateful")
            data = self._data(X, y, lengths, sample_weight)
            data, validation = self._split(data, validation_data, validation_split)
            plan = Plan(
                epochs=_checks.size(epochs, "epochs"),
                batch_size=_checks.size(batch_size, "batch_size"),
                shuffle=_checks.flag(shuffle, "shuffle") and not stateful,
                bptt=None if bptt is None else _checks.size(bptt, "bptt"),
                stateful=stateful,
            )
            verbose = _checks.verbosity(verbose)
            trainer = Trainer(
                self, self._network, objective, optimizer, self._rng, data, validation, plan
            )
            self.history = trainer.history
            trainer.run([*([ProgressBar(verbose == 1)] if verbose else []), *callbacks])
            return trainer.history

    def _split(self, data: Data, validation_data: Any, split: Any) -> tuple[Data, Data | None]:
        """Return the data to train on, and those for validation."""
        split = _checks.fraction(split, "validation_split")
        if split:
            if validation_data is not None:
                raise ValueError("validation_split: expected 0 with validation_data")
            n = len(data) - round(len(data) * split)
            if not 0 < n < len(data):
                raise ValueError(
                    f"validation_split: expected some of {len(data)} sequences on both sides, "
                    f"got {split}"
                )
            return data.part(slice(0, n)), data.part(slice(n, None))
        if validation_data is None:
            return data, None
        arguments = _validation_arguments(validation_data)
        try:
            return data, self._data(**arguments)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation_data {error}") from None

    def evaluate(
        self,
        X: Any,
        y: Any,
        batch_size: int = 256,
        lengths: Any = None,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Return loss and metrics, as :meth:`fit` measures validation data.

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
        objective, _ = self._compiled()
        data = self._data(X, y, lengths, sample_weight)
        batch_size = _checks.size(batch_size, "batch_size")
        return evaluation.measure(self._network, objective, data, batch_size)

    def predict(self, X: Any, batch_size: int = 256, lengths: Any = None) -> Any:
        """Return the outputs of all sequences.

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
        data = Data.of(self._network.signature, X, lengths)
        return evaluation.predict(self._network, data, _checks.size(batch_size, "batch_size"))

    def _compiled(self) -> tuple[Objective, optim.Optimizer]:
        if self._objective is None or self._optimizer is None:
            raise ValueError("Sequential: expected compile(optimizer, loss) first")
        return self._objective, self._optimizer

    def _data(self, X: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> Data:
        data = Data.of(self._network.signature, X, lengths)
        return data.with_targets(self._compiled()[0].loss, y, sample_weight)

    # Telling and keeping.

    def summary(self) -> None:
        """Print a table of layers, shapes of their outputs, and numbers of parameters."""
        lead = "(B, T, "
        rows = [("Layer", "Output", "Parameters")]
        size = self._network.signature.features
        for i, layer in enumerate(self.layers):
            size = layer.features_out or size
            if layer.per_sequence:
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
        described = architecture.describe(self.layers)
        model_file.write(path, "Sequential", described, self.parameters())

    @classmethod
    def _from_file(cls, model: dict[str, Any], tensors: dict[str, Array]) -> Self:
        return cls(architecture.restore(model, tensors))

    def __repr__(self) -> str:
        inner = "".join(f"\n  ({i}): {layer!r}" for i, layer in enumerate(self.layers))
        return f"Sequential({inner}\n)"


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
