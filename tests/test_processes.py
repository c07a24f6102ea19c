"""Forks while threads work, other start methods, interpreters, and threads that share all."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

I, H, V = 3, 5, 7

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
warned = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Doubled(fastrnn.layers.Layer):
    """A layer of one's own, which no compiled chain has."""

    def forward(self, x):
        return 2 * x, None

    def backward(self, tape, dy):
        return 2 * dy, {}


def recurrent():
    return fastrnn.LSTM(I, H, num_layers=2, seed=0)


def stacked():
    return fastrnn.Sequential([fastrnn.GRU(I, H), fastrnn.Linear(H, 2)], seed=0)


def with_own():
    return fastrnn.Sequential([fastrnn.GRU(I, H), Doubled(), fastrnn.Linear(H, 2)], seed=0)


def in_child(check) -> None:
    """Call `check` in a forked child, and expect that it returns."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


class Slow:
    """An input that keeps its stream in a step until it is told to go on."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __array__(self, dtype=None, copy=None):
        self.begun.set()
        assert self.go_on.wait(60)
        return np.ones(I)


def while_stepping(stream, work) -> None:
    """Do `work` while another thread is in a step of the stream."""
    x_t = Slow()
    other = threading.Thread(target=stream.step, args=(x_t,))
    other.start()
    try:
        assert x_t.begun.wait(60)
        work()
    finally:
        x_t.go_on.set()
        other.join()


@forks
@warned
@pytest.mark.parametrize("make", [recurrent, stacked, with_own])
@pytest.mark.parametrize("how", ["reset", "state"])
def test_stream_that_was_stepped_at_a_fork(make, how, backend, same_bits):
    """The child says why it can't go on, and can begin anew; the parent goes on."""
    model = make()
    x = np.random.default_rng(0).standard_normal((4, I))
    stream, fresh, other = model.stream(), model.stream(), model.stream()
    stream.step(x[0]), other.step(x[1])
    new = (lambda s: s.reset()) if how == "reset" else (lambda s: setattr(s, "state", other.state))
    new(fresh)
    want = fresh.step(x[2])

    def child() -> None:
        for use in (
            lambda: stream.step(x[0]), lambda: stream.state, lambda: stream.reset(rows=[True]),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match=r"when this process was forked.*; reset\(\) it"):
                use()
        new(stream)
        assert same_bits(stream.step(x[2]), want)
        assert same_bits(tuple(other.state), tuple(idle)), "a stream that was idle"

    idle = other.state
    while_stepping(stream, lambda: in_child(child))
    stream.reset()
    assert same_bits(stream.step(x[2]), want if how == "reset" else stream_from_zero(model, x[2]))


def stream_from_zero(model: Any, x_t: Any) -> Any:
    return model.stream().step(x_t)


@forks
@warned
def test_stream_without_state_that_was_stepped_at_a_fork(backend, same_bits):
    model = fastrnn.Sequential([fastrnn.Linear(I, 2)], seed=0)
    stream, x_t = model.stream(), np.arange(I, dtype=np.float32)
    want = stream.step(x_t)
    if fastrnn.backend() == "reference":
        pytest.skip("the reference asks for a reset")

    def child() -> None:
        assert same_bits(stream.step(x_t), want)

    while_stepping(stream, lambda: in_child(child))


@forks
@warned
def test_a_fit_at_a_fork():
    """The thread that fits is not in the child, which may fit the model itself."""
    model = stacked()
    model.compile("sgd", "mse")
    X, y = np.ones((4, 6, I)), np.ones((4, 6, 2))
    begun, go_on = threading.Event(), threading.Event()

    class Wait(fastrnn.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            begun.set()
            assert go_on.wait(60)

    other = threading.Thread(
        target=model.fit, args=(X, y), kwargs={"verbose": 0, "callbacks": [Wait()]}
    )
    other.start()
    try:
        assert begun.wait(60)
        with pytest.raises(RuntimeError, match="a fit of this model is running"):
            model.fit(X, y, verbose=0)
        in_child(lambda: model.fit(X, y, verbose=0))
    finally:
        go_on.set()
        other.join()
    model.fit(X, y, verbose=0)


@forks
@warned
@pytest.mark.parametrize("after", ["import", "call", "set_num_threads"])
def test_workers_of_a_preloaded_service(after):
    """As gunicorn's with --preload: forked by a process that has done this much."""
    code = f"""
import os, threading
import numpy as np, fastrnn
layer, x = fastrnn.LSTM(9, 131, seed=0), np.ones((40, 6, 9), np.float32)
if "{after}" != "import":
    fastrnn.set_num_threads(3)
want = layer(x)[0] if "{after}" == "call" else None
def worker():
    results = []
    threads = [threading.Thread(target=lambda: results.append(layer(x)[0])) for _ in range(3)]
    [t.start() for t in threads], [t.join() for t in threads]
    fastrnn.set_num_threads(2)
    stream = layer.stream(6)
    results.append(np.stack([stream.step(x_t) for x_t in x]))
    fastrnn.set_num_threads(1)
    results.append(layer(x)[0] if want is None else want)
    return len(results) == 5 and all(np.array_equal(r, results[-1]) for r in results)
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0 if worker() else 1)
    children.append(child)
assert [os.waitpid(c, 0)[1] for c in children] == [0, 0]
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120)


STARTED = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np, fastrnn

def called(layer, x):
    return layer(x)[0]

if __name__ == "__main__":
    layer, x = fastrnn.LSTM(9, 131, seed=0), np.ones((4, 2, 9), np.float32)
    want = called(layer, x)
    context = multiprocessing.get_context(sys.argv[1])
    if sys.argv[1] == "forkserver":
        context.set_forkserver_preload(["fastrnn"])
    with ProcessPoolExecutor(1, context) as pool:
        assert np.array_equal(pool.submit(called, layer, x).result(), want)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method, tmp_path):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    script = tmp_path / "script.py"
    script.write_text(STARTED)
    subprocess.run([sys.executable, "-P", str(script), method], check=True, timeout=120)


@pytest.mark.filterwarnings("ignore")
def test_another_interpreter_says_why_it_cannot():
    """NumPy can be loaded by one interpreter of a process; the first one stays as it is."""
    names = ("_xxsubinterpreters", "_interpreters")
    found = [name for name in names if importlib.util.find_spec(name)]
    if not found:
        pytest.skip("no module for interpreters")
    inner = """
try:
    import fastrnn
except ImportError as error:
    assert "one interpreter of a process" in str(error) and "mod_wsgi" in str(error), error
else:
    raise AssertionError("imported")
"""
    code = f"""
import sys, {found[0]} as interpreters, fastrnn
before = fastrnn.GRU(3, 5, seed=0)([[1, 2, 3]])[0]
other = interpreters.create()
failed = interpreters.run_string(other, "import sys; sys.path[:] = " + repr(sys.path) + {inner!r})
assert not failed, failed
assert (fastrnn.GRU(3, 5, seed=0)([[1, 2, 3]])[0] == before).all()
"""
    subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", code], check=True, timeout=60)


def test_threads_that_share_all(compiled, same_bits):
    """A part of ``python tests/stress_threads.py``."""
    path = Path(__file__).with_name("stress_threads.py")
    spec = importlib.util.spec_from_file_location("stress_threads", path)
    assert spec is not None
    assert spec.loader is not None
    stress = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stress)
    before = fastrnn.get_num_threads()
    try:
        calls, shared = stress.run(0.5, 4, compiled, (np.float32,))
    finally:
        fastrnn.set_num_threads(before)
    assert calls > 4
    # Weights that threads changed meanwhile are those of the next call.
    copy = fastrnn.GRU(stress.I, stress.H)
    copy.load_state_dict(shared.changed.state_dict())
    assert same_bits(shared.changed(shared.x), copy(shared.x))
