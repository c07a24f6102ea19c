"""Training in fixed parts of each batch, by one process or by several, with the same bits."""

from __future__ import annotations

import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array
from fastrnn.models.callback import Callback, Logs
from fastrnn.models.data import Batch, Data, pieces
from fastrnn.models.evaluation import Means, batch_means
from fastrnn.models.metrics import Outputs
from fastrnn.models.progress import ProgressBar
from fastrnn.models.ranks import Ranks, ranks_of
from fastrnn.models.shards import Part, Total, bounds, owned
from fastrnn.models.trainer import Trainer, rows_of

#: Shards of a batch where only a communicator is given: the same bits for up to 16 ranks.
SHARDS = 16
#: At most: each is a Python object per step.
MOST_SHARDS = 65536

#: One optimizer step: for each shard of this rank a piece of its sequences, and the rows of the
#: state that continue; None for a shard that has ended or has no rows.
Step = dict[int, tuple[Batch, Array | None] | None]

#: Numbers beside the gradients: those of the loss, of metrics, and of ranks that want to stop.
_WEIGHT, _LOSS, _METRIC_WEIGHT, _STOP, _INTERRUPT, _METRICS = range(6)

T_value = TypeVar("T_value")


class ShardedTrainer(Trainer):
    """A training in which each batch is cut into shards, whose gradients are added along a tree.

    Parameters
    ----------
    ranks : Ranks
        All of which run this training.
    shards : int
        Of each batch.
    *arguments
        Of :class:`Trainer`.
    """

    def __init__(self, ranks: Ranks, shards: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        if shards < ranks.size:
            raise ValueError(
                f"shards: expected at least one for each of {ranks.size} ranks, got {shards}"
            )
        self._ranks, self._shards = ranks, shards
        self._mine = owned(ranks.rank, ranks.size, shards)
        self._outputs_of: list[tuple[tuple[int, int, int], Outputs]] = []
        self._total: Total | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, slice] = {}
        self._interrupted = False
        self._stopped_together = False
        self._entropy = [int(rng.integers(2**63)) for rng in self._generators()]
        self._data_checksum = self._checksum_together()
        self._begin()

    def _begin(self) -> None:
        """Compare the arguments of all ranks, and start from the weights of rank 0."""
        mine = self.about()
        for rank, theirs in enumerate(self._ranks.gather(mine)):
            for name, value in theirs.items():
                if value != mine[name]:
                    raise ValueError(
                        f"fit: expected the same arguments on all ranks, got {name} {mine[name]!r} "
                        f"on rank {self._ranks.rank}, {value!r} on rank {rank}"
                    )
        if self._ranks.size > 1:
            state = self.state_dict()
            self._restore(self.share(lambda: state))

    def run(self, callbacks: Sequence[Callback]) -> None:
        """Train to the end."""
        if self._ranks.size == 1:
            super().run(callbacks)
            return
        shown = [c for c in callbacks if self.writes or not isinstance(c, ProgressBar)]
        with self._deferred_interrupts():
            super().run(shown)
        if self.history.interrupted and not self._stopped_together:
            raise KeyboardInterrupt

    @contextmanager
    def _deferred_interrupts(self) -> Iterator[None]:
        """Let the first Ctrl-C end the training on all ranks after the same step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # Steps.

    def _all_steps(self, rng: np.random.Generator | None) -> Iterator[Step]:
        """Yield the steps of an epoch, each with the pieces of this rank's shards."""
        size = None
        for data, rows in self._batches(rng):
            B = len(rows)
            lengths = None if data.lengths is None else data.lengths[rows]
            self._begin_batch(B, size, lengths is not None and lengths.min() < lengths.max())
            size = B
            T = data.steps if lengths is None else int(lengths.max())
            parts = bounds(B, self._shards)
            own = {
                i: pieces(data.batch(rows[parts[i]]), self.plan.bptt)
                for i in self._mine
                if parts[i].start < parts[i].stop
            }
            for _ in range(-(-T // (self.plan.bptt or T))):
                yield {i: next(own[i], None) if i in own else None for i in self._mine}
            self.sequences += B

    def _batches(self, rng: np.random.Generator | None) -> Iterator[tuple[Data, Array]]:
        """Yield the batches of an epoch as data, and the rows of these."""
        if isinstance(self.data, Data):
            for rows in self.data.rows(self.plan.batch_size, rng):
                yield self.data, rows
        else:
            for data in self.data.data():
                yield data, np.arange(len(data))

    def _train_step(self, step: Step) -> bool:
        """Take one optimizer step with the other ranks; return whether none wanted to stop."""
        trainable = self._trainable()
        states: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            total = self._sums().sum(lambda i, part: self._add(i, step[i], part, trainable, states))
            weight, loss, metric_weight, stop, interrupt, *metrics = total.numbers.tolist()
            if stop or interrupt:
                self._stop_together(bool(interrupt))
                return False
            self._expect_finite(loss / (weight or 1))
            means = self.means
            means.total += weight
            means.metric_total += metric_weight
            means.sums = [a + b for a, b in zip(means.sums, (loss, *metrics), strict=True)]
            if self.parameters:
                total.sums /= weight or 1
                grads = {
                    name: total.sums[self._places[name]].reshape(array.shape)
                    for name, array in self.parameters.items()
                }
                self.optimizer.apply(self.parameters, grads)
        self.state = states
        return True

    def _add(
        self,
        shard: int,
        piece: tuple[Batch, Array | None] | None,
        part: Part,
        trainable: list[bool],
        states: dict[int, Any],
    ) -> None:
        """Write the sums over a shard to `part`, and its final state to `states`."""
        part.numbers[...] = 0
        part.numbers[_STOP] = self.model.stop_training
        part.numbers[_INTERRUPT] = self._interrupted
        if piece is None:
            part.sums[...] = 0
            return
        batch, on = piece
        state = (self.state or {}).get(shard)
        if state is not None and on is not None:
            state = [rows_of(s, on) for s in state]
        self._seed_layers(shard)
        y, tape = self.network.apply_forward(batch.x, state, lengths=batch.lengths)
        means = self._no_means()
        _, dy = means.add(y, batch)
        part.numbers[[_WEIGHT, _METRIC_WEIGHT]] = means.total, means.metric_total
        part.numbers[_LOSS], part.numbers[_METRICS:] = means.sums[0], means.sums[1:]
        at = self.epoch, self.batch, shard
        self._outputs_of += [(at, outputs) for outputs in means.outputs]
        # Of the sum rather than the mean: shards differ in size.
        grads = self.network.gradients(tape, dy * dy.dtype.type(means.total), trainable)
        for name, place in self._places.items():
            _write(part.sums[place], grads[name])
        states[shard] = tape.state

    def _seed_layers(self, shard: int) -> None:
        """Let dropout depend on the seed, the step and the shard alone."""
        for entropy, rng in zip(self._entropy, self._generators(), strict=True):
            at = np.random.SeedSequence([entropy, self.epoch, self.batch, shard])
            rng.bit_generator.state = np.random.PCG64(at).state

    def _sums(self) -> Total:
        """Return the buffers of the sums of the present parameters."""
        shapes = {name: array.shape for name, array in self.parameters.items()}
        if self._total is None or shapes != self._shapes:
            self._shapes, self._places, end = shapes, {}, 0
            for name, array in self.parameters.items():
                self._places[name] = slice(end, end + array.size)
                end += array.size
            numbers = _METRICS + len(self.objective.metrics)
            dtype = self.network.signature.dtype
            self._total = Total(self._ranks, self._shards, end, numbers, dtype)
        return self._total

    # What the ranks agree on.

    def _stopped(self, step: Any = None) -> bool:
        """Return whether to stop: within an epoch, once all ranks know, in the step after."""
        if step is not None and self._ranks.size > 1:
            return self._stopped_together
        wishes = self._ranks.gather((self.model.stop_training, self._interrupted))
        if any(stop or interrupt for stop, interrupt in wishes):
            self._stop_together(any(interrupt for _, interrupt in wishes))
        return self.model.stop_training

    def _stop_together(self, interrupted: bool) -> None:
        """Stop on all ranks."""
        self._stopped_together = self.model.stop_training = True
        if interrupted:
            raise KeyboardInterrupt

    def _measured(self) -> Logs:
        """Return loss and metrics of the epoch's training."""
        self.means.outputs = self._outputs()
        self._outputs_of = []
        return self.means.logs()

    def _validated(self) -> Logs:
        """Return loss and metrics of the validation, of which each rank has done a part."""
        validation, objective = self.validation, self.objective
        if validation is None:
            return {}
        of, (rank, size) = self.plan.validation_batch_size, (self._ranks.rank, self._ranks.size)
        batches = validation.batches(of, None, by_length=not objective.of_all)
        means = Means(objective)
        own = {}
        for i, batch in enumerate(batches):
            if i % size == rank:
                own[i] = batch_means(self.network, objective, batch)
        together = {i: m for part in self._ranks.gather(own) for i, m in part.items()}
        for _, of_batch in sorted(together.items()):
            means += of_batch
        return means.logs("val_")

    def _outputs(self) -> list[Outputs]:
        """Return the outputs of all shards so far, in their order."""
        gathered = [entry for part in self._ranks.gather(self._outputs_of) for entry in part]
        return [outputs for _, outputs in sorted(gathered, key=lambda entry: entry[0])]

    def _carried(self) -> Any:
        """Return the state of each shard; None for one without."""
        states = {i: s for part in self._ranks.gather(self.state or {}) for i, s in part.items()}
        return [states.get(i) for i in range(self._shards)] if states else None

    def _carry(self, state: Any, outputs: list[Outputs]) -> None:
        """Restore what :meth:`_carried` and :meth:`_outputs` returned."""
        own = {i: s for i, s in enumerate(state or ()) if s is not None and i in self._mine}
        self.state = own or None
        kept = outputs if self.writes else []
        self._outputs_of = [((-1, i, 0), of_batch) for i, of_batch in enumerate(kept)]

    @property
    def writes(self) -> bool:
        """Whether this process writes files."""
        return self._ranks.rank == 0

    def share(self, make: Callable[[], T_value]) -> T_value:
        """Return what `make` returns on rank 0."""
        return self._ranks.share(make)

    def about(self) -> dict[str, Any]:
        """Return what has to be equal for a resumed training to end with the same bits."""
        return super().about() | {"shards": self._shards}

    def state_dict(self) -> dict[str, Any]:
        """Return all state that the rest of the training depends on. All ranks have to call it."""
        return super().state_dict() | {"entropy": self._entropy}

    def _restore(self, state: Any) -> None:
        super()._restore(state)
        self._entropy = [int(entropy) for entropy in state["entropy"]]

    def _checksum(self) -> str:
        return self._data_checksum

    def _checksum_together(self) -> str:
        """Return a checksum of the data, of which each rank reads a part."""
        data = self.data
        if not isinstance(data, Data):
            return "batches"
        sums = []
        for i in self._mine:
            checksum = 0
            for a in (data.x, data.lengths, data.starts, data.y, data.weight):
                if a is not None:
                    part = a[bounds(len(a), self._shards)[i]]
                    checksum = zlib.crc32(np.ascontiguousarray(part).data, checksum)
            sums.append(checksum)
        return " ".join(f"{checksum:08x}" for part in self._ranks.gather(sums) for checksum in part)


@contextmanager
def sharded(comm: Any, shards: Any) -> Iterator[Callable[..., Trainer]]:
    """Yield what makes the training of these arguments of ``fit``, of which one may be None."""
    shards = SHARDS if shards is None else _checks.size(shards, "shards", most=MOST_SHARDS)
    with ranks_of(comm) as ranks:
        yield partial(ShardedTrainer, ranks, shards)


def _write(place: Array, gradient: Array | RowGradient) -> None:
    """Write a gradient to a place of its size."""
    if isinstance(gradient, RowGradient):
        whole = place.reshape(gradient.shape)
        whole[...] = 0
        whole[gradient.rows] = gradient.values
    else:
        place[...] = gradient.reshape(-1)
