"""Training in shards: the same bits for any number of ranks, here threads of one process."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

import fastrnn
from fastrnn.models.ranks import RankError, Ranks
from fastrnn.models.shards import Total, bounds, owned

T, F, H, N, O = 7, 3, 5, 45, 2
LENGTHS = np.random.default_rng(3).integers(1, T + 1, N)


class ThreadRanks(Ranks):
    """A rank that is a thread of this process."""

    def __init__(self, rank, boxes, failed):
        self.rank, self.size = rank, len(boxes)
        self.boxes, self.failed = boxes, failed

    def transfer(self, sends, receives):
        for to, data in sends:
            self.boxes[to][self.rank].put(data.tobytes())
        for of, into in receives:
            while True:
                try:
                    into[...] = np.frombuffer(self.boxes[self.rank][of].get(timeout=0.01), np.uint8)
                    break
                except queue.Empty:
                    if self.failed:
                        raise RankError.of(*self.failed[0]) from None

    def fail(self, message):
        self.failed.append((self.rank, self.size, message))


def on_ranks(size, function):
    """Return the result or the error of `function(ranks)` on each rank."""
    boxes = [[queue.Queue() for _ in range(size)] for _ in range(size)]
    failed, results = [], [None] * size

    def run(rank):
        try:
            results[rank] = function(ThreadRanks(rank, boxes, failed))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def vectors(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, T, F)).astype(np.float32), rng.normal(size=(N, T, O))


def sequences():
    return [x[:n] for x, n in zip(vectors()[0], LENGTHS, strict=True)], vectors()[1][:, 0]


def tokens():
    x = np.random.default_rng(1).integers(0, 9, (N, T))
    return x, (x + 1) % 9


def network(kind, optimizer=None, **options):
    if kind is tokens:
        layers = [
            fastrnn.Embedding(9, F), fastrnn.LSTM(F, H), fastrnn.Dropout(0.3), fastrnn.Linear(H, 9)
        ]  # fmt: skip
    else:
        per_step = kind is vectors
        layers = [
            fastrnn.GRU(F, H, num_layers=2, dropout=0.4, return_sequences=per_step),
            fastrnn.Linear(H, O),
        ]
    model = fastrnn.Sequential(layers, seed=2)
    loss = "cross_entropy" if kind is tokens else "mse"
    model.compile(optimizer or fastrnn.optim.Adam(0.01, clip_norm=1.0), loss, **options)
    return model


def bits(model):
    return {name: array.tobytes() for name, array in model.parameters().items()}


TRAININGS = {
    "vectors": (vectors, {}),
    "validation": (vectors, {"validation_split": 0.3}),
    "pieces": (vectors, {"bptt": 3}),
    "ragged": (sequences, {}),
    "padded pieces": (vectors, {"lengths": LENGTHS, "bptt": 3}),
    "weights": (vectors, {"sample_weight": np.linspace(0, 1, N)}),
    "tokens": (tokens, {}),
    "streams": (tokens, {"stateful": True, "bptt": 2, "batch_size": 9}),
}


def train(name, ranks, shards, optimizer=None, **more):
    kind, options = TRAININGS[name]
    model = network(kind, optimizer)
    x, y = kind()
    arguments = {"epochs": 2, "batch_size": 13, "verbose": 0} | options | more
    history = model.fit(x, y, comm=ranks, shards=shards, **arguments)
    return bits(model), history.history


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("shards", [5, 8])
def test_same_bits(name, shards):
    alone = train(name, None, shards)
    for size in (2, 3, 4, 5):
        results = on_ranks(size, lambda ranks: train(name, ranks, shards))
        assert results == [alone] * size, (size, results[0])


@pytest.mark.parametrize("name", TRAININGS)
def test_near_a_training_without_shards(name, monkeypatch):
    monkeypatch.setattr("fastrnn.layers.dropout.drawn_factors", lambda *_: np.float32(1))
    monkeypatch.setattr("fastrnn.layers.recurrent.drawn_factors", lambda *_: None)
    # SGD, as Adam would hide a gradient of another scale.
    plain, cut = (
        train(name, None, shards, fastrnn.optim.SGD(0.5), shuffle=False) for shards in (None, 4)
    )
    assert plain[1].keys() == cut[1].keys()
    for key, values in plain[1].items():
        np.testing.assert_allclose(cut[1][key], values, rtol=1e-5)
    for key, array in plain[0].items():
        a, b = (np.frombuffer(x, np.float32) for x in (array, cut[0][key]))
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_metrics_see_all_outputs_in_order():
    def first_row(y_true, y_pred):
        return float(y_true[0, 0, 0] + np.square(y_pred - y_true).mean())

    def fit(ranks):
        model = network(vectors, metrics=["mae", first_row])
        x, y = vectors()
        options = {"epochs": 2, "batch_size": 13, "validation_data": (x[:20], y[:20])}
        return model.fit(x, y, **options, verbose=0, comm=ranks, shards=4).history

    alone = fit(None)
    assert {"mae", "first_row", "val_mae", "val_first_row"} < alone.keys()
    assert on_ranks(3, fit) == [alone] * 3


@pytest.mark.parametrize(("name", "every"), [("vectors", None), ("streams", 3), ("pieces", 2)])
@pytest.mark.parametrize(("before", "after"), [(4, 2), (1, 3), (3, 1)])
def test_resumes_on_another_number_of_ranks(tmp_path, name, every, before, after):
    class Killed(BaseException):
        pass

    class Kill(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 5 and getattr(self, "armed", False):
                raise Killed

    def start(ranks, armed):
        kill = Kill()
        kill.armed = armed
        keep = fastrnn.callbacks.Checkpoint(tmp_path / "training", every)
        return train(name, ranks, 5, callbacks=[keep, kill], epochs=3)

    whole = train(name, None, 5, epochs=3)
    ended = on_ranks(before, lambda ranks: start(ranks, True))
    assert all(isinstance(e, Killed | RankError) for e in ended)
    assert on_ranks(after, lambda ranks: start(ranks, False)) == [whole] * after


def test_a_failure_ends_all_ranks():
    class Fail(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            if self.rank == 1 and batch == 2:
                raise OSError("no more disk")

    def fit(ranks):
        fail = Fail()
        fail.rank = ranks.rank
        return train("vectors", ranks, 4, callbacks=[fail])

    errors = on_ranks(3, fit)
    assert isinstance(errors[1], OSError)
    for error in errors[::2]:
        assert isinstance(error, RankError)
        assert "rank 1 of 3 failed with OSError: no more disk" in str(error)


def test_nan_is_told_on_all_ranks():
    def fit(ranks):
        x, y = vectors()
        x[N - 1] = np.nan
        network(vectors).fit(x, y, batch_size=N, verbose=0, comm=ranks, shards=4)

    for error in on_ranks(4, fit):
        assert isinstance(error, ValueError)
        assert "the loss became nan in epoch 1, batch 1" in str(error)


def test_one_rank_stops_all():
    class Stop(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.stop_training = self.rank == 2 and batch == 1

    def fit(ranks, rank=None):
        stop = Stop()
        stop.rank = ranks.rank if rank is None else rank
        return train("vectors", ranks, 4, callbacks=[stop])

    assert on_ranks(3, fit) == [fit(None, 2)] * 3


def test_arguments_have_to_be_equal():
    errors = on_ranks(2, lambda ranks: train("vectors", ranks, 4, batch_size=9 + ranks.rank))
    assert {type(error) for error in errors} == {ValueError}
    assert "expected the same arguments on all ranks, got batch_size 9 on rank 0" in str(errors[0])


def test_weights_are_those_of_rank_0():
    def fit(ranks):
        model = fastrnn.Sequential([fastrnn.RNN(F, H), fastrnn.Linear(H, O)], seed=None)
        model.compile("sgd", "mse")
        first = bits(model)
        model.fit(*vectors(), verbose=0, comm=ranks)
        return first, bits(model)

    first, last = zip(*on_ranks(4, fit), strict=True)
    assert len({str(weights) for weights in first}) == 4
    assert len({str(weights) for weights in last}) == 1


def test_arguments_are_checked():
    x, y = vectors()
    for wrong, kind, message in [
        ({"shards": 0}, ValueError, "shards: expected"),
        ({"shards": 2**32}, ValueError, "shards: expected at most 65536, got 4294967296"),
        ({"comm": 3}, TypeError, "comm: expected a communicator of mpi4py"),
    ]:
        with pytest.raises(kind, match=message):
            network(vectors).fit(x, y, verbose=0, **wrong)
    for error in on_ranks(3, lambda ranks: train("vectors", ranks, 2)):
        assert "shards: expected at least one for each of 3 ranks, got 2" in str(error)


def test_frozen_layers_and_empty_shards():
    def fit(ranks):
        model = network(vectors)
        model.layers[0].trainable = False
        x, y = vectors()
        model.fit(x[:5], y[:5], epochs=2, batch_size=3, verbose=0, comm=ranks, shards=8)
        return bits(model)

    assert on_ranks(8, fit) == [fit(None)] * 8


def test_trees():
    for shards in range(1, 18):
        for ranks in range(1, shards + 1):
            parts = [owned(rank, ranks, shards) for rank in range(ranks)]
            assert [i for part in parts for i in part] == list(range(shards))
        rows = [np.arange(7)[part] for part in bounds(7, shards)]
        assert np.concatenate(rows).tolist() == list(range(7))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 16])
def test_sums_are_those_of_the_tree(size):
    terms = np.random.default_rng(0).normal(size=(16, 21)).astype(np.float32)

    def tree(first, end):
        half = (first + end) // 2
        return terms[first] if end - first == 1 else tree(first, half) + tree(half, end)

    def add(ranks):
        def write(shard, part):
            part.sums[...], part.numbers[...] = terms[shard], shard

        total = Total(ranks, 16, 21, 1, np.dtype(np.float32)).sum(write)
        return total.sums.tobytes(), total.numbers.item()

    assert on_ranks(size, add) == [(tree(0, 16).tobytes(), 120.0)] * size


def test_char_lm():
    text = "to be or not to be, that is the question; " * 20

    def fit(ranks):
        model = fastrnn.text.CharLM(hidden_size=7, embedding_dim=3, epochs=2, seed=4)
        model.fit(text, verbose=0, comm=ranks, shards=4)
        return model.bits_per_char(text), model.history[-1].characters

    assert on_ranks(2, fit) == [fit(None)] * 2
    model = fastrnn.text.CharLM(max_seconds=3)
    with pytest.raises(ValueError, match="max_seconds: expected None with comm"):
        model.fit(text, verbose=0, comm=Ranks())
