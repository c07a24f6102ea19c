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
    other = fastrnn.dask.forecast(forecaster(), many, 5, folder=tmp_path / "new")
    assert {f.values.shape for f in other.compute(scheduler="sync")} == {(5,)}


CLUSTER = """
import numpy as np, dask.array as da, distributed
import fastrnn, fastrnn.dask
from fastrnn.forecast import Forecaster

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 7, 3)).astype(np.float32)
    many = {i: 10 + rng.normal(size=60).cumsum() for i in range(3)}
    net = fastrnn.Sequential([fastrnn.GRU(3, 5), fastrnn.Linear(5, 2)], seed=0)
    model = Forecaster(window=5, hidden_size=3, epochs=2, seed=0)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        assert set(client.run(fastrnn.get_num_threads).values()) == {1}
        y = fastrnn.dask.predict(net, da.from_array(x, (5, 7, 3))).compute()
        found = fastrnn.dask.forecast(model, many, 4).compute()
    assert np.allclose(y, net.predict(x), atol=1e-6)
    for f in found:
        fitted = Forecaster(window=5, hidden_size=3, epochs=2, seed=0).fit(many[f.name])
        assert np.allclose(f.values, fitted.predict(4), rtol=1e-6), f
"""


def test_workers_that_are_processes(tmp_path):
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"  # workers import it again
    script.write_text(CLUSTER)
    environment = {n: v for n, v in os.environ.items() if n != "FASTRNN_NUM_THREADS"}
    subprocess.run(
        [sys.executable, "-P", script], env=environment, cwd=tmp_path, check=True, timeout=120
    )
