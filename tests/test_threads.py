"""Threads of the kernels: the same bits for any number, after a fork, and with Python threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn

pytest.importorskip("fastrnn._kernels._threads")
from fastrnn._kernels import _threads, dispatch
from fastrnn.losses import cross_entropy
from fastrnn.optim import SGD, Adagrad, Adam, RMSprop

COUNTS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def _shared_whatever_the_size():
    """Split small sizes too, so that every path is tested."""
    threads, least = fastrnn.get_num_threads(), _threads.set_least_work(0, 0, 0)
    yield
    fastrnn.set_num_threads(threads)
    _threads.set_least_work(*least)


def everything(layer, x, state, **options):
    """Return the results of inference, forward and backward."""
    y, state_n = layer(x, state, **options)
    y_2, state_2, tape = layer.forward(x, state, **options)
    dy = np.cos(np.arange(y.size)).reshape(y.shape)
    return y, state_n, y_2, state_2, *layer.backward(tape, dy, state_n)


# H of one block, and of several groups of blocks, which split the work if there are few rows.
@pytest.mark.parametrize(("H", "B"), [(7, 3), (35, 37), (131, 1), (99, 2), (67, 11)])
def test_same_bits(
    cell, compiled, precision, options_of, general, make_layer, same_bits, rng, H, B
):
    for options in [*options_of(cell, 5), general(cell, "kinked")]:
        T, I, dtype = 40, 9, precision["dtype"]
        layer = make_layer(cell, I, H, **precision, **options)
        P = getattr(layer, "proj_size", 0) or H
        x = rng.normal(size=(T, B, I)).astype(dtype)
        h, c = (rng.uniform(-1, 1, (1, B, n)).astype(dtype) for n in (P, H))
        state = (h, c) if len(cell.states) > 1 else h
        lengths = rng.integers(1, T + 1, B)
        for rows in ({}, {"lengths": lengths}, {"reset": rng.random((T, B)) < 0.1}):
            results = []
            for count in COUNTS:
                fastrnn.set_num_threads(count)
                results.append(everything(layer, x, state, **rows))
            for count, result in zip(COUNTS, results, strict=True):
                assert same_bits(result, results[0]), (count, options, list(rows))


def test_large_steps_in_parts(compiled, same_bits, rng):
    """Rows of a large step run in two parts, though threads would split its units."""
    layer = fastrnn.LSTM(1009, 1021, seed=0)
    wide, few = (rng.normal(size=(2, B, 1009)).astype(np.float32) for B in (17, 6))
    results = []
    for count in (1, 2):
        fastrnn.set_num_threads(count)
        # First, as after a late barrier units are not split for some calls.
        y_wide = layer(wide)
        y, _, tape = layer.forward(few)
        results.append((y_wide, y, *layer.backward(tape, y)))
    assert same_bits(*results)


def test_same_bits_of_linear_and_losses(compiled, precision, same_bits, rng):
    layer = fastrnn.Linear(150, 37, **precision, seed=0)
    x = rng.standard_normal((300, 150)).astype(layer.dtype)
    target = rng.integers(0, 37, 300)
    results = []
    for count in COUNTS:
        fastrnn.set_num_threads(count)
        y, tape = layer.forward(x)
        value, dy = cross_entropy.value_and_grad(y, target)
        results.append((y, np.array(value), dy, *layer.backward(tape, dy)))
    assert all(same_bits(f, results[0]) for f in results)


@pytest.mark.parametrize("n", [1, 31, 97])
def test_same_bits_of_rows(compiled, dtype, same_bits, rng, n):
    """Lookups and functions of rows, alone, their gradients, and as steps of a stream."""
    chain = [
        fastrnn.Embedding(50, 13, seed=0, dtype=dtype), fastrnn.LayerNorm(13, dtype=dtype),
        fastrnn.Linear(13, 19, seed=1, dtype=dtype), fastrnn.ReLU(), fastrnn.Softmax(),
    ]  # fmt: skip
    tokens, results = rng.integers(0, 50, n), []
    d = rng.normal(size=(n, 19)).astype(dtype)
    for count in COUNTS:
        fastrnn.set_num_threads(count)
        found, tapes, x, dx = [], [], tokens, d
        for layer in chain:
            x, tape = layer.forward(x)
            tapes.append(tape)
            found.append(x)
        for layer, tape in zip(chain[:0:-1], tapes[:0:-1], strict=True):
            dx, grads = layer.backward(tape, dx)
            found += [dx, *grads.values()]
        results.append((found, fastrnn.Sequential(chain).stream(n).step(tokens)))
        assert same_bits(results[-1][1], x)
        assert same_bits(tuple(results[-1][0]), tuple(results[0][0])), count


@pytest.mark.parametrize("wrong", [[2], [2999], [1, 2998], [1700, 2500, 2990]])
def test_the_first_wrong_index_whoever_finds_it(compiled, dtype, wrong):
    kernels, n, V = dispatch.kernels(dtype), 3000, 16
    x = np.zeros(n, np.intp)
    x[wrong] = V + np.array(wrong)
    of_each, table, sums = (np.zeros((rows, V), dtype) for rows in (n, V, V))
    for count in COUNTS:
        fastrnn.set_num_threads(count)
        for name, call in (
            ("target", lambda: kernels.cross_entropy(of_each, x, None, of_each.copy())),
            ("x", lambda: kernels.take_rows(table, x, of_each.copy())),
            ("x", lambda: kernels.add_rows(x, of_each, None, sums)),
        ):
            with pytest.raises(ValueError, match=f"^{name}: .*, got {V + wrong[0]}$"):
                call()


@pytest.mark.parametrize("make", [SGD, Adam, RMSprop, Adagrad])
def test_same_bits_of_an_optimizer(make, compiled, dtype, same_bits, rng):
    n = 3 * 4096 + 5  # several blocks of a sum of squares
    start = rng.standard_normal(n).astype(dtype)
    grads = [{"w": rng.standard_normal(n).astype(dtype)} for _ in range(3)]
    results = []
    for count in COUNTS:
        fastrnn.set_num_threads(count)
        params, optimizer = {"w": start.copy()}, make(clip_norm=1.0)
        for grad in grads:
            optimizer.step(params, grad)
        results.append(params | optimizer.state_dict())
    assert all(same_bits(f, results[0]) for f in results)


@pytest.mark.parametrize("options", ["none", "peephole", "general"])
@pytest.mark.parametrize("B", [1, 3])
def test_steps_of_streams(
    cell, compiled, precision, general, make_layer, same_bits, rng, B, options
):
    if options == "peephole" and options not in cell.options:
        pytest.skip("has no peepholes")
    chosen: dict = {"none": {}, "peephole": {"peephole": True}, "general": general(cell, "kinked")}
    layer = make_layer(cell, 9, 131, **precision, **chosen[options])
    x = rng.normal(size=(6, B, 9)).astype(layer.dtype)
    fastrnn.set_num_threads(1)
    y, state_n = layer(x)
    for count in COUNTS:
        fastrnn.set_num_threads(count)
        stream = layer.stream(B)
        assert same_bits(np.stack([stream.step(x_t) for x_t in x]), y)
        assert same_bits(stream.state, state_n)


def test_python_threads_at_the_same_time(compiled, same_bits, rng):
    """One thread has the pool, the others work alone: the same bits."""
    fastrnn.set_num_threads(3)
    layer = fastrnn.LSTM(5, 130, seed=0)
    x = rng.normal(size=(40, 6, 5)).astype(np.float32)
    want = everything(layer, x, None)

    def one(_):
        with fastrnn.use_backend(compiled):
            return everything(layer, x, None)

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(one, range(64)):
            assert same_bits(result, want)


def _child(connection, layer, x):
    connection.send(everything(layer, x, None))
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_after_fork(compiled, same_bits, rng):
    """Even if it forks while another Python thread is in a kernel."""
    fastrnn.set_num_threads(2)
    layer = fastrnn.GRU(5, 70, seed=0)
    x = rng.normal(size=(50, 8, 5)).astype(np.float32)
    want, stop = everything(layer, x, None), threading.Event()

    def busy():
        while not stop.is_set():
            layer(x)

    others = threading.Thread(target=busy)
    others.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(5):
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(theirs, layer, x))
            process.start()
            assert mine.poll(60), "the child hangs"
            assert same_bits(mine.recv(), want)
            process.join()
    finally:
        stop.set()
        others.join()


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads by /proc")
def test_started_when_needed_and_asleep_when_idle():
    code = """
import os, time, numpy as np, fastrnn
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
layer, x = fastrnn.LSTM(64, 128, seed=0), np.ones((100, 32, 64), np.float32)
fastrnn.set_num_threads(1)
layer(x)
assert tasks() == before, "threads that nobody asked for"
fastrnn.set_num_threads(3)
layer(x)
assert tasks() == before + 2, tasks()
fastrnn.LSTM(4, 8)(np.ones((5, 2, 4)))
time.sleep(0.1)
start = time.process_time()
time.sleep(0.5)
assert time.process_time() - start < 0.05, "idle threads use the CPU"
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    environment.pop("FASTRNN_BACKEND", None)
    # -P: use the package under test rather than the one beside the tests.
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=environment, timeout=60)


def test_signals_reach_the_interpreter(rng):
    """Ctrl-C is handled by Python's main thread, whatever the pool does."""
    import signal

    fastrnn.set_num_threads(3)
    layer, x = fastrnn.LSTM(5, 70, seed=0), rng.normal(size=(20, 8, 5))
    layer(x)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    def work():
        for _ in range(1000):
            layer(x)
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        work()


@pytest.mark.parametrize("first", ["fastrnn", "threadpoolctl"])
def test_threadpoolctl_sees_and_limits_the_threads(first):
    pytest.importorskip("threadpoolctl")
    second = {"fastrnn": "threadpoolctl", "threadpoolctl": "fastrnn"}[first]
    code = f"""
import {first}, {second}, fastrnn.layers
found = lambda: [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastrnn"]
(info,) = found()
assert info["num_threads"] == fastrnn.get_num_threads() == 3, info
assert info["version"] == fastrnn.__version__
with threadpoolctl.threadpool_limits(1):
    assert fastrnn.get_num_threads() == 1
with threadpoolctl.threadpool_limits(2, user_api="fastrnn"):
    assert found()[0]["num_threads"] == 2
assert fastrnn.get_num_threads() == 3
"""
    environment = {**os.environ, "FASTRNN_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-P", "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "5,2"}, 5),
        ({"OMP_NUM_THREADS": "3", "FASTRNN_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "0"}, 8),
        ({"OMP_NUM_THREADS": "many"}, 8),
        ({"MPI_LOCALNRANKS": "4"}, 2),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "16"}, 1),
        ({"MPI_LOCALNRANKS": "4", "OMP_NUM_THREADS": "3"}, 3),
    ],
)
def test_threads_of_the_environment(environment, threads, monkeypatch):
    from fastrnn._core import config

    for name in ("FASTRNN_NUM_THREADS", "OMP_NUM_THREADS", *config._LOCAL_RANKS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(config, "_control_groups", list)
    assert config._initial_threads() == threads
