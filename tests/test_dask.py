"""Prediction and forecasts of data in Dask: the same bits, lazily, and no series lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.forecast import Forecaster

pytest.importorskip("dask.array")
import dask
import dask.array as da
import dask.bag as db

import fastrnn.dask
from fastrnn.dask import tasks

N, T, F, H, O = 23, 7, 3, 5, 2


@pytest.fixture
def x(rng):
    return rng.normal(size=(N, T, F)).astype(np.float32)


@pytest.fixture
def agree(same_bits):
    """Return a function that tells whether results agree: on compiled kernels bit by bit."""

    def near(a, b):
        return all(np.allclose(*pair, atol=1e-6) for pair in zip(a, b, strict=True))

    return near if fastrnn.backend() == "reference" else same_bits


def model(*, per_step):
    layers = [fastrnn.GRU(F, H, return_sequences=per_step), fastrnn.Linear(H, O)]
    return fastrnn.Sequential(layers, seed=0)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("chunks", [(5, T, F), (N, 3, 2), ((1, 22), T, F)])
def test_arrays(x, per_step, chunks, agree):
    net = model(per_step=per_step)
    lazy = fastrnn.dask.predict(net, da.from_array(x, chunks))
    want = net.predict(x)
    assert (lazy.shape, lazy.dtype) == (want.shape, want.dtype)
    assert agree(lazy.compute(scheduler="threads"), want)


def test_lengths_and_tokens(x, rng, agree):
    net, lengths = model(per_step=True), rng.integers(1, T + 1, N)
    lazy = fastrnn.dask.predict(net, da.from_array(x, (6, T, F)), lengths=lengths)
    assert agree(lazy.compute(), net.predict(x, lengths=lengths))
    net = fastrnn.Sequential([fastrnn.Embedding(9, F), fastrnn.RNN(F, H)], seed=0)
    tokens = rng.integers(0, 9, (N, T))
    lazy = fastrnn.dask.predict(net, da.from_array(tokens, (4, 2)), batch_size=3)
    assert agree(lazy.compute(), net.predict(tokens))


def test_chunks_of_unknown_size_or_none(x, agree):
    kept = x[:, 0, 0] > 0
    kept[5:10] = False  # a chunk that becomes empty
    lazy = da.from_array(x, (5, T, F))
    some = lazy[da.from_array(kept, 5)]
    assert np.isnan(some.shape[0])
    net, lengths = model(per_step=True), np.arange(N) % T + 1
    assert agree(fastrnn.dask.predict(net, some).compute(), net.predict(x[kept]))
    of_some = da.from_array(lengths, 5)[da.from_array(kept, 5)]
    got = fastrnn.dask.predict(net, some, lengths=of_some).compute()
    assert agree(got, net.predict(x[kept], lengths=lengths[kept]))


def test_masked_steps(x, agree):
    x[:, 3:] = 0
    layers = [fastrnn.Masking(), fastrnn.GRU(F, H, return_sequences=False)]
    net = fastrnn.Sequential(layers, seed=0)
    lazy = fastrnn.dask.predict(net, da.from_array(x, (5, T, F)))
    assert agree(lazy.compute(), net.predict(x))


def test_the_data_are_read_when_they_are_needed(x):
    read = []

    def chunk(block_info=None):
        ((start, stop), *_) = block_info[None]["array-location"]
        read.append(start)
        return x[start:stop]

    blocks = ((5, 5, 5, 8), (T,), (F,))
    X = da.map_blocks(chunk, chunks=blocks, dtype=x.dtype, meta=x[:0])
    lazy = fastrnn.dask.predict(model(per_step=False), X)
    assert read == []
    lazy[7].compute()
    assert read == [5]
    items = (read.append("item") or row for row in x)
    bag = db.from_delayed([dask.delayed(iter)(items)])
    lazy = fastrnn.dask.predict(model(per_step=False), bag)
    assert read == [5]
    assert len(lazy.compute(scheduler="sync")) == N


def test_bags(x, rng, agree):
    sequences = [row[:n] for row, n in zip(x, rng.integers(1, T + 1, N), strict=True)]
    for per_step in (False, True):
        net = model(per_step=per_step)
        lazy = fastrnn.dask.predict(net, db.from_sequence(sequences, npartitions=4), batch_size=3)
        got = lazy.compute(scheduler="threads")
        assert agree(tuple(got), tuple(net.predict(sequences)))


def test_estimators(x):
    sklearn = pytest.importorskip("fastrnn.sklearn")
    y = np.where(x[:, -1, 0] > 0, "up", "down")
    fitted = sklearn.SequenceClassifier(hidden_size=4, max_epochs=2, random_state=0).fit(x, y)
    lazy = fastrnn.dask.predict(fitted, da.from_array(x, (5, T, F)))
    assert lazy.compute(scheduler="threads").tolist() == fitted.predict(x).tolist()
    some = fastrnn.dask.predict(fitted, da.from_array(x, (5, T, F))[da.zeros(N, chunks=5) > 0])
    assert some.compute().dtype == fitted.predict(x).dtype
    with pytest.raises(ValueError, match="lengths: expected None with an estimator"):
        fastrnn.dask.predict(fitted, da.from_array(x), lengths=np.ones(N, int))


def test_tasks_use_one_thread():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(3)
    try:
        with tasks.one_thread():
            with tasks.one_thread():
                assert fastrnn.get_num_threads() == 1
            assert fastrnn.get_num_threads() == 1
        assert fastrnn.get_num_threads() == 3
    finally:
        fastrnn.set_num_threads(before)


def test_errors(x):
    net, lazy = model(per_step=True), da.from_array(x)
    for arguments, kind, message in [
        ((None, lazy), TypeError, "model: expected a method predict, got None"),
        ((net, x), TypeError, "X: expected an array or a bag of Dask, got ndarray"),
        ((net, lazy[0, 0]), ValueError, r"X: expected shape \(N, T, F\), or .* got \(3,\)"),
        ((net, lazy, 0), ValueError, "batch_size"),
        ((net, db.from_sequence([x[0]]), 9, [3]), ValueError, "lengths: expected None with a bag"),
        ((net, lazy, 9, [3]), ValueError, r"lengths: expected shape \(23,\), got \(1,\)"),
        ((net, lazy[..., :2]), ValueError, r"X: expected shape \(N, T, 3\)"),
        ((net, lazy[:, lazy[0, :, 0] > 0]), ValueError, r"X: expected shape .* got \(23, nan, 3\)"),
    ]:
        with pytest.raises(kind, match=message):
            fastrnn.dask.predict(*arguments)
    for arguments, kind, message in [
        ((net, {}, 3), TypeError, "forecaster: expected a Forecaster"),
        ((Forecaster(), [], 3), TypeError, "series: expected a dict of name to values, or a dask"),
        ((Forecaster(), {}, 0), ValueError, "horizon"),
    ]:
        with pytest.raises(kind, match=message):
            fastrnn.dask.forecast(*arguments)


@pytest.fixture
def many(rng):
    return {f"shop {i}": 10 + rng.normal(size=60).cumsum() for i in range(3)}


def forecaster():
    return Forecaster(window=5, hidden_size=3, epochs=2, seed=0)


def test_forecasts(many, agree):
    many["short"], many[7] = np.ones(3), ["no", "numbers"]
    found = fastrnn.dask.forecast(forecaster(), many, 4).compute(scheduler="threads")
    assert [f.name for f in found] == list(many)
    for f in found[:3]:
        assert f.error is None
        assert agree(f.values, forecaster().fit(many[f.name], verbose=0).predict(4))
    assert "ValueError: series: expected at least" in found[3].error
    assert "TypeError: series: " in found[4].error
    bag = db.from_sequence(many.items(), npartitions=2)
    of_bag = fastrnn.dask.forecast(forecaster(), bag, 4).compute(scheduler="threads")
    assert repr(of_bag) == repr(found)
    assert fastrnn.dask.forecast(forecaster(), {}, 4).compute(scheduler="sync") == []


def test_series_in_dask(many, agree):
    want = fastrnn.dask.forecast(forecaster(), many, 4).compute(scheduler="sync")
    lazy = {name: da.from_array(values, 7) for name, values in many.items()}
    lazy["shop 1"] = many["shop 1"]
    found = fastrnn.dask.forecast(forecaster(), lazy, 4).compute(scheduler="threads")
    assert [f.name for f in found] == list(many)
    assert agree(*[tuple(f.values for f in of) for of in (want, found)])


@pytest.mark.parametrize("with_folder", [False, True])
def test_no_series_is_lost_by_another(many, tmp_path, monkeypatch, with_folder):
    class Odd:
        def __array__(self, *_, **__):
            raise MemoryError("no room")

        def __reduce__(self):
            raise RuntimeError("no pickle")

    one = many.pop("shop 0")
    bad = {"two": {"a": one, "b": one}, "list": [one, one], "odd": Odd(), "none": None}
    folder = tmp_path / "new" if with_folder else None
    found = fastrnn.dask.forecast(forecaster(), many | bad, 4, folder=folder)
    found = {f.name: f for f in found.compute(scheduler="sync")}
    assert all(found[name].error is None for name in many)
    assert found["two"].error == "TypeError: series: expected one for each name, got 2 in a dict"
    assert found["list"].error == "TypeError: series: expected one for each name, got 2 in a list"
    assert all(found[name].error for name in ("odd", "none"))
    assert [name for name in found if found[name].values is None] == list(bad)
    for item in (3, (1, 2, 3)):
        broken = fastrnn.dask.forecast(forecaster(), db.from_sequence([item]), 4)
        with pytest.raises(TypeError, match="series: expected pairs of name and values, got"):
            broken.compute(scheduler="sync")


def test_a_folder_that_is_gone(many, tmp_path):
    lazy = fastrnn.dask.forecast(forecaster(), many, 4, folder=tmp_path / "new")
    (tmp_path / "new").rmdir()
    found = lazy.compute(scheduler="sync")
    assert [f.name for f in found] == list(many)
    assert all("FileNotFoundError" in f.error for f in found)


def test_forecasts_go_on_from_what_was_written(many, tmp_path, monkeypatch):
    lazy = fastrnn.dask.forecast(forecaster(), many, 4, folder=tmp_path / "new")
    first = lazy.compute(scheduler="sync")
    files = sorted((tmp_path / "new").iterdir())
    assert len(files) == 3
    files[0].write_text("{")  # cut short by another program
    asked = []
    fit = Forecaster.fit
    monkeypatch.setattr(
        Forecaster, "fit", lambda self, x, **more: (asked.append(1), fit(self, x, **more))[1]
    )
    assert repr(lazy.compute(scheduler="sync")) == repr(first)
    assert len(asked) == 1
    assert {json.loads(f.read_text())["name"] for f in files} == set(many)
    # Workers are elsewhere, and are sent arrays that can't be written to.
    monkeypatch.chdir(tmp_path)
    again = fastrnn.dask.forecast(forecaster(), many, 4, folder="new")
    monkeypatch.chdir("/")
    for values in many.values():
        values.setflags(write=False)
    assert repr(again.compute(scheduler="sync")) == repr(first)
    assert len(asked) == 1
    for text in ("[1]", '{"values": [1, 2]}', '{"values": 3}'):
        files[0].write_text(text)
        assert repr(lazy.compute(scheduler="sync")) == repr(first)
    assert len(asked) == 4
    other = fastrnn.dask.forecast(forecaster(), many, 5, folder=tmp_path / "new")
    assert {f.values.shape for f in other.compute(scheduler="sync")} == {(5,)}


CLUSTER = """
import os, signal
import numpy as np, dask.array as da, dask.bag as db, distributed
import fastrnn, fastrnn.dask
from fastrnn.forecast import Forecaster

class Counted(fastrnn.Sequential):
    def __setstate__(self, state):
        with open("sent", "a") as file:
            file.write(f"{os.getpid()}\\n")
        vars(self).update(state)

def forecaster():
    return Forecaster(window=5, hidden_size=3, epochs=2, seed=0)

def fatal(pair):
    if pair[0] == 5 and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return pair

def same(values, want):
    near = fastrnn.backend() == "reference"
    return np.allclose(values, want, rtol=1e-6) if near else values.tobytes() == want.tobytes()

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 7, 3)).astype(np.float32)
    many = {i: 10 + rng.normal(size=60).cumsum() for i in range(8)}
    net = Counted([fastrnn.GRU(3, 5), fastrnn.Linear(5, 2)], seed=0)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        assert set(client.run(fastrnn.get_num_threads).values()) == {1}
        y = fastrnn.dask.predict(net, da.from_array(x, (1, 7, 3))).compute()
        workers = set(client.run(os.getpid).values())
        bag = db.from_sequence(many.items(), npartitions=8).map(fatal)
        found = fastrnn.dask.forecast(forecaster(), bag, 4, folder="kept").compute()
    assert same(y, net.predict(x))
    with open("sent") as file:
        sent = [int(line) for line in file]
    assert all(sent.count(worker) == 1 for worker in workers), (sent, workers)
    assert os.path.exists("died")
    assert [f.name for f in found] == list(many)
    for f in found:
        assert same(f.values, forecaster().fit(many[f.name]).predict(4)), f
    assert len(os.listdir("kept")) == len(many)
"""


def test_workers_that_are_processes(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"  # workers import it again
    script.write_text(CLUSTER)
    environment = {n: v for n, v in os.environ.items() if n != "FASTRNN_NUM_THREADS"}
    subprocess.run(
        [sys.executable, "-P", script], env=environment, cwd=tmp_path, check=True, timeout=120
    )
