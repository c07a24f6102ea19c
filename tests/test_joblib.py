"""Models and estimators in joblib's workers: the same bits, small pickles, and clear ends."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback
from fastrnn.forecast import Forecaster
from fastrnn.text import CharLM, TextClassifier

pytest.importorskip("joblib")
pytest.importorskip("sklearn")
from sklearn.model_selection import GridSearchCV

from fastrnn.sklearn import SequenceClassifier, SequenceRegressor

#: A model and data, for scripts.
MODEL = """
import hashlib, json, os, signal, sys, threading, time
import joblib
import numpy as np
import fastrnn

N, T, F, H = 29, 6, 3, 5
rng = np.random.default_rng(0)
x = rng.normal(size=(N, T, F)).astype(np.float32)
y = x[:, -1, 0]

def sequential(units=H):
    recurrent = fastrnn.LSTM(F, units, 2, dropout=0.2, return_sequences=False)
    model = fastrnn.Sequential([recurrent, fastrnn.Linear(units, 1)], seed=0)
    model.compile("adam", "mse")
    return model
"""

#: What workers do: they train each kind of model, and hash its weights and predictions.
TASKS = '''
from sklearn.model_selection import GridSearchCV
from fastrnn.forecast import Forecaster
from fastrnn.sklearn import SequenceClassifier, SequenceRegressor
from fastrnn.text import CharLM, TextClassifier

#: More than joblib sends to workers: it maps them from a file.
big = rng.normal(size=(1000, 101, F)).astype(np.float32)

def trained(kind):
    if kind == "Sequential":
        model = sequential()
        model.fit(x, y, 3, 8, validation_split=0.2, verbose=0)
        return model, model.predict(x)
    if kind == "SequenceClassifier":
        model = SequenceClassifier(hidden_size=H, max_epochs=2, early_stopping=True, random_state=0)
        return model.fit(x, y > 0).net_, model.predict_proba(x)
    if kind == "SequenceRegressor":
        ragged = [row[: 1 + i % T] for i, row in enumerate(x)]
        model = SequenceRegressor("lstm", hidden_size=H, max_epochs=2, random_state=0)
        return model.fit(ragged, y).net_, model.predict(ragged)
    if kind == "CharLM":
        model = CharLM(embedding_dim=4, hidden_size=H, seq_len=9, batch_size=3, epochs=1, seed=0)
        model.fit("to be or not to be, that is the question. " * 9, verbose=0)
        return model.net_, np.array(model.bits_per_char("to be"))
    if kind == "TextClassifier":
        model = TextClassifier(embedding_dim=3, hidden_size=H, epochs=1, seed=0)
        model.fit(["a b c", "a"] * 9, ["long", "short"] * 9, verbose=0)
        return None, model.predict_proba(["a b"])
    model = Forecaster(window=5, hidden_size=H, epochs=2, seed=0).fit(y.cumsum())
    return None, model.predict(3)

KINDS = ["Sequential", "SequenceClassifier", "SequenceRegressor", "CharLM", "TextClassifier", ""]

def digest(kind):
    net, predicted = trained(kind)
    arrays = [] if net is None else list(net.parameters().values())
    return hashlib.sha256(b"".join(a.tobytes() for a in [*arrays, predicted])).hexdigest()

def mapped(model, X):
    """Predict for, and train on, an array that joblib has mapped."""
    before = hashlib.sha256(X).hexdigest()
    predicted = model.predict(X)
    net = sequential()
    net.fit(X, X[:, -1, 0], batch_size=100, verbose=0)
    assert hashlib.sha256(X).hexdigest() == before
    sums = hashlib.sha256(b"".join(a.tobytes() for a in net.parameters().values())).hexdigest()
    return type(X).__name__, X.flags.writeable, hashlib.sha256(predicted).hexdigest(), sums

def tasks():
    """Return the number of this process's threads, where the system tells it."""
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0

def threads(X):
    """Return how many threads kernels may use, and how many a training adds."""
    before, most = tasks(), []
    class Count(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            most.append(tasks())
    net = sequential(64)
    net.fit(X, X[:, -1, 0], batch_size=200, callbacks=[Count()], verbose=0)
    return fastrnn.get_num_threads(), max(most) - before

def limit(estimator, X, y):
    """Return, as a score, how many threads kernels may use."""
    return fastrnn.get_num_threads()
'''

SAME = f"""{MODEL}{TASKS}
if __name__ == "__main__":
    model = SequenceRegressor(hidden_size=H, max_epochs=1, random_state=0).fit(x, y)
    grid = {{"hidden_size": [2, 3], "lr": [0.001, 0.01]}}
    said = {{"alone": [digest(kind) for kind in KINDS], "mapped alone": mapped(model, big)}}
    search = GridSearchCV(SequenceRegressor(max_epochs=2, random_state=0), grid, cv=2)
    said["search alone"] = search.fit(x, y).cv_results_["mean_test_score"].tolist()
    for backend in ("loky", "threading", "multiprocessing"):
        with joblib.parallel_config(backend=backend, n_jobs=2), joblib.Parallel() as parallel:
            said[backend] = parallel(joblib.delayed(digest)(kind) for kind in KINDS)
            said["mapped " + backend] = parallel([joblib.delayed(mapped)(model, big)])[0]
            if backend == "loky":
                said["threads"] = parallel(joblib.delayed(threads)(big) for _ in range(2))
        if backend != "multiprocessing":
            search.set_params(n_jobs=-1)
            with joblib.parallel_config(backend=backend):
                scores = search.fit(x, y).cv_results_["mean_test_score"]
            said["search " + backend] = scores.tolist()
        if backend == "loky":
            limits = GridSearchCV(search.estimator, grid, cv=2, n_jobs=-1, scoring=limit)
            said["limits"] = limits.fit(x, y).cv_results_["mean_test_score"].tolist()
    said["CPUs"] = joblib.cpu_count()
    print(json.dumps(said))
"""

ENDS = f"""{MODEL}
def endless(seed, fault, path):
    class Tell(fastrnn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            open(path, "a").close()
            if fault == "SIGKILL" and seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    sequential().fit(x, y, epochs=10**7, callbacks=[Tell()], verbose=0)

def interrupt(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    fault, path = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fault == "SIGINT":
        threading.Thread(target=interrupt, args=[path], daemon=True).start()
    try:
        joblib.Parallel(2)(joblib.delayed(endless)(seed, fault, path) for seed in range(3))
    except BaseException as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""


def run(tmp_path, code, *arguments):
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {n: v for n, v in os.environ.items() if n != "FASTRNN_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "JOBLIB_TEMP_FOLDER": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-P", "-W", "ignore", script, *map(str, arguments)],
        env=environment, cwd=tmp_path, check=True, timeout=120, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip


def test_same_bits_in_workers(tmp_path):
    said = json.loads(run(tmp_path, SAME))
    for backend in ("loky", "threading", "multiprocessing"):
        assert said[backend] == said["alone"], backend
        kind, writeable, *sums = said[f"mapped {backend}"]
        assert sums == said["mapped alone"][2:]
        if backend != "threading":
            assert (kind, writeable) == ("memmap", False)
    assert said["search loky"] == said["search threading"] == said["search alone"]
    assert said["limits"] == [1.0] * 4  # of as many workers as CPUs
    each = max(1, said["CPUs"] // 2)
    assert all(n == each and added < each for n, added in said["threads"]), said


@pytest.mark.parametrize(
    ("fault", "told"),
    [("SIGKILL", "TerminatedWorkerError A worker process"), ("SIGINT", "KeyboardInterrupt")],
)
def test_a_killed_worker_and_ctrl_c_end_all(tmp_path, fault, told):
    if not hasattr(signal, fault):
        pytest.skip("there is no such signal")
    assert run(tmp_path, ENDS, fault, tmp_path / "begun").startswith(told)


@pytest.fixture
def data(rng):
    x = rng.normal(size=(40, 6, 3)).astype(np.float32)
    return x, (x[:, -1, 0] > 0).astype(int)


def test_ctrl_c_ends_a_search_in_this_process(data):
    class Interrupts(Callback):
        def on_epoch_end(self, epoch, logs):
            raise KeyboardInterrupt

    class Raises(Callback):
        def on_train_end(self, logs):
            if self.model.history.interrupted:
                raise KeyboardInterrupt

    texts = ["a b c", "a"] * 9, ["long", "short"] * 9
    for model, given, callbacks in (
        (SequenceClassifier(max_epochs=2), data, [Interrupts()]),
        (TextClassifier(epochs=2), texts, [Interrupts(), Raises()]),
    ):
        search = GridSearchCV(model, {"hidden_size": [2, 3]}, cv=2)
        with pytest.raises(KeyboardInterrupt):
            search.fit(*given, callbacks=callbacks, **{"verbose": 0} if given is texts else {})


#: Bytes of a pickle beside the weights: settings, names of weights and generators.
BESIDE = 5_000


def weights(net):
    return sum(a.nbytes for a in net.parameters().values())


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_fitted_estimators_pickle_small(data, kind):
    x, y = data
    fitted = kind(hidden_size=33, max_epochs=3, early_stopping=True, random_state=0).fit(x, y)
    size = len(pickle.dumps(fitted, protocol=5))
    assert size < weights(fitted.net_) + BESIDE
    fitted.predict(x)
    fitted.stream().step(x[0, 0])
    fitted.net_.forward(x)
    assert len(pickle.dumps(fitted, protocol=5)) == size
    assert len(pickle.dumps(kind())) < 500


def test_fitted_models_pickle_small(data):
    x, y = data
    layers = [fastrnn.GRU(3, 33, return_sequences=False), fastrnn.Linear(33, 2)]
    model = fastrnn.Sequential(layers, seed=0)
    model.compile("adam", "cross_entropy")
    assert len(pickle.dumps(model, protocol=5)) < weights(model) + BESIDE
    model.fit(x, y, epochs=2, verbose=0)
    # With the state of Adam, from which training goes on; compiled again, without.
    assert len(pickle.dumps(model, protocol=5)) < 3 * weights(model) + 1.5 * BESIDE
    model.compile("adam", "cross_entropy")
    assert len(pickle.dumps(model, protocol=5)) < weights(model) + BESIDE
    lm = CharLM(hidden_size=33, epochs=1, seed=0).fit("to be or not to be " * 60, verbose=0)
    assert len(pickle.dumps(lm, protocol=5)) < weights(lm.net_) + BESIDE
    texts = TextClassifier(hidden_size=33, epochs=1, seed=0)
    texts.fit(["good one", "bad one"] * 20, ["good", "bad"] * 20, verbose=0)
    assert len(pickle.dumps(texts, protocol=5)) < weights(texts._fit.net) + BESIDE
    forecaster = Forecaster(window=5, hidden_size=33, epochs=1, seed=0)
    assert len(pickle.dumps(forecaster)) < 1000


@pytest.fixture
def mapped(tmp_path, rng):
    """Return 20 MB of sequences, mapped from a file as joblib maps them."""
    np.save(tmp_path / "x.npy", rng.normal(size=(8_001, 20, 32)).astype(np.float32))
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def peak(function, *arguments, **options):
    """Return the most bytes that a call holds at a time."""
    tracemalloc.start()
    try:
        function(*arguments, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(fastrnn.backend() == "reference", reason="NumPy's own temporary arrays count")
def test_mapped_arrays_are_not_copied(mapped):
    y = (np.asarray(mapped[:, -1, 0]) > 0).astype(int)
    layers = [fastrnn.GRU(32, 2, return_sequences=False), fastrnn.Linear(2, 2)]
    model = fastrnn.Sequential(layers, seed=0)
    model.compile("adam", "cross_entropy")
    least = mapped.nbytes / 2
    assert peak(model.predict, mapped) < least
    assert peak(model.evaluate, mapped, y) < least
    assert peak(model.fit, mapped, y, batch_size=300, validation_split=0.1, verbose=0) < least
    options = {"hidden_size": 2, "max_epochs": 1, "batch_size": 300, "random_state": 0}
    unscaled = SequenceClassifier(standardize=False, **options)
    assert peak(unscaled.fit, mapped, y) < least
    scaled = SequenceClassifier(**options)
    assert peak(scaled.fit, mapped, y) < 3 * least  # the scaled copy, and a part at a time
    for fitted in (unscaled, scaled):
        assert peak(fitted.predict_proba, mapped) < least


def test_predictions_by_parts_have_the_same_bits(mapped):
    y = np.asarray(mapped[:, -1, 0])
    fitted = SequenceRegressor(hidden_size=3, max_epochs=1, random_state=0).fit(mapped[:99], y[:99])
    whole = fitted.net_.predict(fitted._inputs.norm(mapped))
    predicted = fitted._decoded(whole.astype(np.float64))
    assert fitted.predict(mapped).tobytes() == predicted.tobytes()
