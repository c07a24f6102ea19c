"""Models and estimators in Dask's workers, as joblib's backend and by themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn

pytest.importorskip("distributed")
pytest.importorskip("joblib")
pytest.importorskip("sklearn")
da = pytest.importorskip("dask.array")
db = pytest.importorskip("dask.bag")

CLUSTER = """
import hashlib, json, os, signal, sys, threading, time
import dask.array as da
import distributed
import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV
import fastrnn
from fastrnn.sklearn import SequenceRegressor
from fastrnn.text import CharLM

N, T, F, H = 29, 6, 3, 5
rng = np.random.default_rng(0)
x = rng.normal(size=(N, T, F)).astype(np.float32)
y = x[:, -1, 0]

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

def sequential(units=H):
    recurrent = fastrnn.LSTM(F, units, 2, dropout=0.2, return_sequences=False)
    model = fastrnn.Sequential([recurrent, fastrnn.Linear(units, 1)], seed=0)
    model.compile("adam", "mse")
    return model

def trained(kind, path=None):
    if path is not None and not os.path.exists(path):  # a worker dies, once
        open(path, "a").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "Sequential":
        model = sequential()
        model.fit(x, y, 3, 8, validation_split=0.2, verbose=0)
        return digest(*model.parameters().values(), model.predict(x))
    if kind == "SequenceRegressor":
        model = SequenceRegressor(hidden_size=H, max_epochs=2, random_state=0).fit(x, y)
        return digest(*model.net_.parameters().values(), model.predict(x))
    model = CharLM(embedding_dim=4, hidden_size=H, seq_len=9, batch_size=3, epochs=1, seed=0)
    model.fit("to be or not to be, that is the question. " * 9, verbose=0)
    return digest(*model.net_.parameters().values())

KINDS = ["Sequential", "SequenceRegressor", "CharLM"]

def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0

def threads():
    \"\"\"Return how many threads kernels may use, and how many a training adds.\"\"\"
    before, most = tasks(), []
    class Count(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            most.append(tasks())
    big = np.zeros((400, 50, F), np.float32)
    sequential(64).fit(big, big[:, -1, 0], batch_size=200, callbacks=[Count()], verbose=0)
    return fastrnn.get_num_threads(), max(most) - before

def endless(path):
    class Tell(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            open(path, "a").close()
            self.model.stop_training = os.path.exists(path + " and ended")
    sequential().fit(x, y, epochs=10**7, callbacks=[Tell()], verbose=0)

def interrupt(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = sys.argv[1]
    model = sequential()
    said = {"alone": [trained(kind) for kind in KINDS], "predicted alone": digest(model.predict(x))}
    grid = {"hidden_size": [2, 3], "lr": [0.001, 0.01]}
    search = GridSearchCV(SequenceRegressor(max_epochs=2, random_state=0), grid, cv=2)
    said["search alone"] = search.fit(x, y).cv_results_["mean_test_score"].tolist()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        with joblib.parallel_config(backend="dask"):
            said["joblib"] = joblib.Parallel()(joblib.delayed(trained)(kind) for kind in KINDS)
            said["search"] = search.fit(x, y).cv_results_["mean_test_score"].tolist()
        said["threads"] = list(client.run(threads).values())
        lazy = da.from_array(x, (7, T, F)).map_blocks(
            model.predict, drop_axis=[1, 2], new_axis=1, chunks=((7, 7, 7, 7, 1), (1,)),
            meta=np.empty((0, 1), np.float32),
        )
        said["predicted"] = digest(lazy.compute())
        futures = client.map(trained, KINDS, path=os.path.join(folder, "killed"), pure=False)
        said["killed"] = client.gather(futures)
        assert os.path.exists(os.path.join(folder, "killed"))
        begun = os.path.join(folder, "begun")
        threading.Thread(target=interrupt, args=[begun], daemon=True).start()
        try:
            client.submit(endless, begun).result()
        except KeyboardInterrupt:
            said["interrupted"] = True
        open(begun + " and ended", "a").close()
    print(json.dumps(said))
"""


def test_same_bits_and_clear_ends_in_a_cluster(tmp_path):
    script = tmp_path / "cluster.py"  # workers import it again
    script.write_text(CLUSTER)
    environment = {n: v for n, v in os.environ.items() if n != "FASTRNN_NUM_THREADS"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    ended = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", script, tmp_path], env=environment, cwd=tmp_path,
        check=True, timeout=180, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = json.loads(ended.stdout)
    assert said["joblib"] == said["killed"] == said["alone"]
    assert said["predicted"] == said["predicted alone"]
    assert said["search"] == said["search alone"]
    assert said["threads"] == [[1, 0], [1, 0]]
    assert said["interrupted"]


def test_map_blocks_and_map_partitions(rng, expect_equal):
    """``predict`` itself is the function that Dask maps."""
    N, T, F, H = 23, 7, 3, 5
    x = rng.normal(size=(N, T, F)).astype(np.float32)
    layers = [fastrnn.GRU(F, H), fastrnn.Linear(H, 2)]
    model = fastrnn.Sequential(layers, seed=0)
    lazy = da.from_array(x, (5, T, F))
    outputs = lazy.map_blocks(model.predict, chunks=(lazy.chunks[0], T, 2), meta=lazy._meta)
    assert outputs.shape == (N, T, 2)
    expect_equal(outputs.compute(scheduler="threads"), model.predict(x))
    ragged = [row[: 1 + i % T] for i, row in enumerate(x)]
    bag = db.from_sequence(ragged, npartitions=4).map_partitions(lambda s: model.predict(list(s)))
    for y, want in zip(bag.compute(scheduler="threads"), model.predict(ragged), strict=True):
        expect_equal(y, want)
