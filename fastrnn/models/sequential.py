"""Sequential models: training, evaluation, prediction and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from fastrnn import _checks, losses, optim
from fastrnn._files import model_file
from fastrnn._kernels.exclusive import Exclusive
from fastrnn._types import (
    Array,
    ArrayLike,
    Batch,
    BatchesLike,
    Communicator,
    HasArray,
    SequencesLike,
)
from fastrnn.layers.base import Layer
from fastrnn.models import architecture
from fastrnn.models.chain import Chain, expect_sequence

if TYPE_CHECKING:
    from fastrnn.models.callback import Callback
    from fastrnn.models.evaluation import Objective
    from fastrnn.models.history import History
    from fastrnn.models.inputs import Inputs


class Sequential(Chain):
    """A stack of layers with Keras's methods: compile, fit, predict, evaluate.

    Data are batch-first: (N, T, F) floats, (N, T) tokens where the first layer is an
    :class:`Embedding`, or a list of arrays (T_i, F) or (T_i,) of differing lengths. The layers' own
    `batch_first` has no effect on that.

    Parameters
    ----------
    layers : sequence of Layer
        Such as Embedding, RNN, LSTM, GRU, Linear, Dropout, LayerNorm, Activation, Masking.
        Each takes the outputs of the one before; all have one dtype. After a recurrent layer with
        ``return_sequences=False`` there is one output per sequence, otherwise one per step.
    seed : int, optional
        For the initial weights and the dropout of layers constructed without a seed, which are
        drawn again here unless the weights were trained, loaded or set since; and for the order of
        the data in :meth:`fit`. Default: layers are left unchanged, and the order is fresh each
        time.

    Attributes
    ----------
    layers : tuple
    history : History or None
        Of the last :meth:`fit`.
    optimizer, loss, metrics
        As given to :meth:`compile`.
    stop_training : bool
        Set by a callback to stop training.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(100, 8, 3))  # (N, T, F)
    >>> y = X.sum(axis=(1, 2))  # (N,) or (N, 1)
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.LSTM(3, 16, return_sequences=False), fastrnn.Linear(16, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse", metrics=["mae"])
    >>> history = model.fit(X, y, epochs=3, validation_split=0.2, verbose=0)
    >>> list(history.history)
    ['loss', 'mae', 'val_loss', 'val_mae']
    >>> model.predict(X).shape
    (100, 1)
    """

    history: History | None = None
    stop_training: bool = False

    def __init__(self, layers: Iterable[Layer], *, seed: int | None = None) -> None:
        super().__init__(layers, seed)
        self._optimizer: optim.Optimizer | None = None
        self._objective: Objective | None = None
        self._metrics: tuple[Any, ...] = ()
        self._fitting = Exclusive(
            "Sequential: a fit of this model is running; compile it or fit it again after that"
        )

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

    def compile(
        self,
        optimizer: str | optim.Optimizer = "adam",
        loss: str | losses.Loss | losses.LossFunction = "cross_entropy",
        metrics: Sequence[str | Callable[[Array, Array], Any]] | None = (),
    ) -> None:
        """Configure the model for training.

        Parameters
        ----------
        optimizer : {"sgd", "adam", "adamw", "rmsprop", "adagrad"} or Optimizer
            A name stands for a new optimizer with default options.
        loss : {"mse", "mae", "huber", "cross_entropy", "binary_cross_entropy"}, Loss or callable
            The last two names take logits: the model needs no softmax or sigmoid. A function
            ``f(y_true, y_pred) -> (value, dy)`` is described in
            :class:`fastrnn.losses.FunctionLoss`.
        metrics : sequence of str or callable
            ``"accuracy"``, names of losses, which weigh as the loss does, or functions
            ``f(y_true, y_pred) -> float``, as in Keras and scikit-learn, which get no weights.

            A function is called with all targets and all outputs, not batch by batch: of an
            epoch's training, as they came, once at its end; of validation and :meth:`evaluate`, in
            the order of the data. They are (N, ...), or per step (N, T, ...); without sequences of
            weight 0; and, where steps are padding or have weight 0, where lengths differ between
            batches, and in training with `bptt`, (n, ...), all other steps side by side. An O of 1
            is left out. Outputs are those of the model: logits for the cross-entropies.
        """
        from fastrnn.models.evaluation import Objective
        from fastrnn.models.metrics import get_metric

        chosen = losses.get(loss)
        named = [get_metric(m, chosen) for m in expect_sequence(metrics or (), "metrics")]
        names = [name for name, _ in named]
        if len({"loss", *names}) <= len(names):
            raise ValueError(f"metrics: expected distinct names other than 'loss', got {names}")
        self._fitting.refuse_if_taken()
        self._optimizer = optim.get(optimizer)
        self._objective, self._metrics = Objective(chosen, dict(named)), tuple(metrics or ())

    def fit(
        self,
        X: SequencesLike | BatchesLike,
        y: SequencesLike | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: BatchesLike | Batch | None = None,
        validation_split: float = 0.0,
        lengths: ArrayLike | None = None,
        shuffle: bool = True,
        callbacks: Sequence[Callback] | None = (),
        verbose: int = 1,
        *,
        sample_weight: SequencesLike | None = None,
        class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        bptt: int | None = None,
        stateful: bool = False,
        comm: Communicator | None = None,
        shards: int | None = None,
    ) -> History:
        """Train the model.

        KeyboardInterrupt (Ctrl-C) ends the training, and the model and history so far are kept.

        Parameters
        ----------
        X : (N, T, F) array-like, (N, T) of int, or list of N arrays (T_i, F) or (T_i,)
            Or, without `y`, what gives batches (X, y), (X, y, sample_weight) or dicts of X, y,
            lengths, sample_weight, all at once as they are trained on: an iterable, such as a
            generator or torch's ``DataLoader``; a function that returns one, called for each epoch;
            or an object with ``__getitem__`` and ``__len__``, such as Keras's ``PyDataset``, whose
            ``on_epoch_end`` is called if it has one. An epoch is one pass, or `steps_per_epoch`
            batches. `batch_size` and `shuffle` have no effect then.
        y : array-like, or list of N arrays
            With outputs per step, targets per step: (N, T, ...) or N arrays (T_i, ...); otherwise
            (N, ...). The loss determines the last axis: none for cross_entropy, else O; an O of 1
            may be left out.
        epochs : int
            Number of passes through the data. The third argument; in Keras that is `batch_size`.
        initial_epoch : int
            Epoch to begin with, to continue an earlier training: `epochs` less this many are
            trained. Schedules of the learning rate count the optimizer's own steps, which go on
            from one `fit` to the next.
        steps_per_epoch : int, optional
            Batches of an epoch, where `X` gives batches; the next epoch goes on with those that
            follow, and from the start where they end. An iterator, which can't start again,
            requires it; if it ends too early, a warning says so and the training ends. Default: all
            batches.
        batch_size : int
            Sequences per optimizer step.
        validation_data : tuple (X, y) or (X, y, sample_weight), or dict, optional
            Data to evaluate after each epoch; a dict holds arguments of :meth:`evaluate`. Or what
            gives batches, as `X`.
        validation_steps : int, optional
            Batches of a validation, where `validation_data` gives batches; an iterator requires it.
            Default: all.
        validation_batch_size : int, optional
            Sequences at a time in the validation. Default: `batch_size`.
        validation_split : float
            Fraction of X and y, at their end, to validate on instead; 0 to 1.
        lengths : (N,) array-like of int, optional
            Number of valid steps in each sequence of an array X; what follows is ignored.
        shuffle : bool
            Whether to shuffle the data in each epoch. Sequences of differing lengths are then
            batched with those of similar length, to reduce padding.
        callbacks : sequence of Callback
        verbose : int
            0: silent. 1: progress on stderr, for each epoch a bar in a terminal or a notebook, else
            a line. 2: a line for each epoch. A ProgressBar among `callbacks` takes its place.
        sample_weight : (N,) array-like, or as `y` per step, optional
            Weights of sequences or steps in the loss, as in :mod:`fastrnn.losses`: the loss of a
            batch is sum(w l) / sum(w).
        class_weight : "balanced" or dict of int to float, optional
            Weights of the classes, which multiply `sample_weight`: a dict has those of some
            classes, the others have 1; "balanced" weighs a class by n / (classes that occur * its
            number of targets), as scikit-learn does. For cross_entropy, and for
            binary_cross_entropy of one output. Metrics and validation data are not weighted by
            class.
        bptt : int, optional
            Truncated backpropagation through time (Williams and Peng 1990): sequences are trained
            on in pieces of at most this many steps, one optimizer step each, with the state carried
            from piece to piece. Requires outputs per step. Default: whole sequences.
        stateful : bool
            Whether the state is also carried from batch to batch: row i of a batch continues row i
            of the one before. For long streams cut into sequences: nothing is shuffled, N has to
            be a multiple of `batch_size`, and all sequences have the same length. The state is
            zeroed at the start of each epoch, and for each batch of validation and prediction.
        comm : mpi4py.MPI.Comm, optional
            Train in several processes (extra ``mpi``), of which each calls ``fit`` with the same
            arguments; `X` may be memory-mapped. They start from the weights of rank 0, and end
            with the same weights. Callbacks run on all ranks, but only rank 0 shows progress and
            writes checkpoints. If one fails, all raise an error.
        shards : int, optional
            Number of parts, up to 65536, into which each batch is cut, whose gradients are added
            along a balanced binary tree: the same bits come out for any number of processes up to
            `shards`, one included. Each takes whole subtrees: fastest are powers of two. Dropout is
            drawn by seed, step and part. Default: 16 with `comm`; without, batches are not cut.

        Returns
        -------
        History
            ``history.history["loss"]``, one number per epoch: the weighted mean over all its
            targets, each batch measured before its optimizer step; ``["val_loss"]`` with
            validation; and likewise each metric. Outputs that a metric of all outputs needs are
            kept in memory for an epoch.

        Raises
        ------
        ValueError
            If arguments don't fit the model or each other; or if the loss becomes NaN or infinite,
            or no target of an epoch counts. The message then names epoch and batch, and
            ``model.history`` holds the epochs before.
        RuntimeError
            If another process of `comm` failed; the message says which, and why.
        """
        # Imported when it is first needed: inference starts faster without.
        from fastrnn.models.callback import Callback
        from fastrnn.models.progress import with_bar
        from fastrnn.models.trainer import Plan, Trainer

        self._network.expect_trainable()
        trainers: Any = nullcontext(Trainer)
        if comm is not None or shards is not None:
            from fastrnn.models.sharded import sharded

            trainers = sharded(comm, shards)
        with trainers as trainer_of, self._fitting:
            for i, callback in enumerate(expect_sequence(callbacks or (), "callbacks")):
                if not isinstance(callback, Callback):
                    raise TypeError(
                        f"callbacks[{i}]: expected a Callback, got {_checks.kind_of(callback)}"
                    )
            objective, optimizer = self._compiled()
            checked = self._inputs()
            data, held = checked.parts(
                checked.training(X, y, lengths, sample_weight, class_weight, steps_per_epoch),
                class_weight, validation_split, validation_data, validation_steps,
            )  # fmt: skip
            plan = Plan.of(
                epochs, initial_epoch, batch_size, validation_batch_size, shuffle, bptt, stateful
            )
            verbose = _checks.verbosity(verbose)
            trainer = trainer_of(
                self, self._network, objective, optimizer, self._rng, data, held, plan
            )
            self.history = trainer.history
            trainer.run(with_bar(callbacks or (), verbose))
            return self.history

    def evaluate(
        self,
        X: SequencesLike | BatchesLike,
        y: SequencesLike | None = None,
        batch_size: int = 256,
        lengths: ArrayLike | None = None,
        sample_weight: SequencesLike | None = None,
        *,
        verbose: int = 0,
        steps: int | None = None,
    ) -> dict[str, float]:
        """Return loss and metrics, computed as for validation data in :meth:`fit`.

        Parameters
        ----------
        X, y, lengths, sample_weight
            As in :meth:`fit`; `X` may give batches.
        batch_size : int
            Sequences at a time.
        verbose : int
            0, the default: silent. 1: progress on stderr. 2: a line at the end.
        steps : int, optional
            Batches, where `X` gives batches. Default: all.

        Returns
        -------
        dict of str to float
            ``"loss"``, and each metric by its name.
        """
        objective, _ = self._compiled()
        data = self._inputs().evaluation(X, y, lengths, sample_weight, steps)
        batch_size = _checks.size(batch_size, "batch_size")
        verbose = _checks.verbosity(verbose)
        from fastrnn.models import evaluation

        return evaluation.measure(self._network, objective, data, batch_size, verbose=verbose)

    @overload
    def predict(
        self,
        X: HasArray,
        batch_size: int = ...,
        lengths: ArrayLike | None = ...,
        *,
        verbose: int = ...,
        steps: int | None = ...,
    ) -> Array: ...

    @overload
    def predict(
        self,
        X: SequencesLike | BatchesLike,
        batch_size: int = ...,
        lengths: ArrayLike | None = ...,
        *,
        verbose: int = ...,
        steps: int | None = ...,
    ) -> Array | list[Array]: ...

    def predict(
        self,
        X: HasArray | SequencesLike | BatchesLike,
        batch_size: int = 256,
        lengths: ArrayLike | None = None,
        *,
        verbose: int = 0,
        steps: int | None = None,
    ) -> Array | list[Array]:
        """Return the outputs of all sequences.

        Parameters
        ----------
        X, lengths
            As in :meth:`fit`; `X` may give batches, of which each is inputs alone or, in a tuple,
            followed by targets, which are left out. An array may be mapped from a file, of any
            dtype of numbers: beside the outputs, memory holds a few batches of it.
        batch_size : int
            Sequences at a time.
        verbose, steps
            As in :meth:`evaluate`.

        Returns
        -------
        y : (N, O) array; or, per step, (N, T, O), or for a list X a list of (T_i, O)
            0 past a sequence's length. Of batches per step whose lengths differ, a list.
        """
        batch_size, verbose = _checks.size(batch_size, "batch_size"), _checks.verbosity(verbose)
        from fastrnn.models import evaluation
        from fastrnn.models.inputs import Parts, inputs

        signature = self._network.signature
        parts = Parts.of(signature, X, lengths, batch_size) if steps is None else None
        data = inputs(signature, X, lengths, steps) if parts is None else parts
        return evaluation.predict(self._network, data, batch_size, verbose)

    def with_layers(self, layers: Iterable[Layer]) -> Sequential:
        """Return a model of other layers, which is compiled as this one is."""
        other = Sequential(layers)
        other._optimizer, other._objective = self._optimizer, self._objective
        other._metrics = self._metrics
        return other

    def _compiled(self) -> tuple[Objective, optim.Optimizer]:
        if self._objective is None or self._optimizer is None:
            raise ValueError("Sequential: expected compile(optimizer, loss) first")
        return self._objective, self._optimizer

    def _inputs(self) -> Inputs:
        """Return what checks the data of a training or an evaluation."""
        from fastrnn.models.inputs import Inputs

        return Inputs(self._network.signature, self._compiled()[0].loss)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture and weights to a safetensors file, for ``fastrnn.load``.

        The file at `path` is replaced atomically. It holds no code, and nothing of :meth:`compile`;
        ``fastrnn.callbacks.Checkpoint`` saves the state of a training.
        """
        described = architecture.describe(self.layers)
        model_file.write(path, "Sequential", described, self.arrays())

    @classmethod
    def _from_file(cls, model: dict[str, Any], tensors: dict[str, Array]) -> Self:
        return cls(architecture.restore(model, tensors))

    def __repr__(self) -> str:
        inner = "".join(f"\n  ({i}): {layer!r}" for i, layer in enumerate(self.layers))
        return f"Sequential({inner}\n)"
