"""Signals reach their handlers within a call, and what a handler raises ends the call."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fastrnn

pytestmark = pytest.mark.skipif(not hasattr(signal, "ITIMER_PROF"), reason="needs interval timers")

#: Seconds of CPU time between signals: other programs may use the CPUs.
EVERY = 0.01


needs_compiled = pytest.mark.skipif(
    fastrnn.backends() == ("reference",), reason="one long call of NumPy ends before signals"
)


class Stopped(BaseException):
    """What a handler raises, as Ctrl-C's raises KeyboardInterrupt."""


@contextmanager
def signals(handle: Callable[[], Any]) -> Iterator[None]:
    """Call `handle` for a signal, again and again."""
    before = signal.signal(signal.SIGPROF, lambda *_: handle())
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def answers(call: Callable[[], Any]) -> None:
    """Expect that a call of more than a tenth of a second runs the handler twice before its end.

    Were it to run them at its end, as calls into C do, only the first would come before `done`.
    """
    came, done = [], []

    def handle() -> None:
        came.append(time.process_time())
        if len(came) == 2:
            raise Stopped

    def whole() -> None:
        call()
        done.append(time.process_time())

    begun = time.process_time()
    with pytest.raises(Stopped), signals(handle):
        whole()
    assert not done
    assert came[-1] - begun < 1


def steps(few: int) -> int:
    """Return how many steps take two tenths of a second: twice `few` on the slowest backend."""
    return few * 2 * {"avx512": 6, "avx2": 4, "neon": 3}.get(fastrnn.backend(), 1)


OPTIONS: list[dict[str, Any]] = [
    {}, {"num_layers": 2}, {"bidirectional": True}, {"matmul_precision": "bfloat16"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward(compiled: str, options: dict[str, Any]) -> None:
    layer = fastrnn.LSTM(160, 256, seed=0, **options)
    x = np.ones((steps(150), 48, 160), np.float32)
    few = layer(x[:3])[0]
    answers(lambda: layer(x))
    # The layer is as before.
    assert layer(x[:3])[0].tobytes() == few.tobytes()


def test_forward_on_threads(compiled: str) -> None:
    layer, before = fastrnn.LSTM(160, 256, seed=0), fastrnn.get_num_threads()
    x = np.ones((steps(200), 48, 160), np.float32)
    fastrnn.set_num_threads(2)
    try:
        answers(lambda: layer(x))
        answers(lambda: layer(x, lengths=np.full(48, len(x)) - np.arange(48)))
    finally:
        fastrnn.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_backward(compiled: str, precision: str) -> None:
    layer = fastrnn.GRU(64, 256, seed=0, matmul_precision=precision)
    y, _, tape = layer.forward(np.ones((steps(40), 48, 64), np.float32))
    answers(lambda: layer.backward(tape, y))
    # The tape can be used again.
    assert all(np.isfinite(g).all() for g in layer.backward(tape, y)[2].values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_step_of_many_rows(precision: str) -> None:
    layer = fastrnn.LSTM(64, 768, seed=0, matmul_precision=precision)
    x = np.ones((1, steps(500), 64), np.float32)
    answers(lambda: layer(x))
    y, _, tape = layer.forward(x)
    answers(lambda: layer.backward(tape, y))


def test_many_small_steps() -> None:
    layer, x = fastrnn.RNN(1, 1, seed=0), np.ones((6_000_000, 1, 1), np.float32)
    answers(lambda: layer(x))


def test_int8() -> None:
    layer = fastrnn.quantize(fastrnn.LSTM(160, 256, seed=0))
    x = np.ones((steps(300), 48, 160), np.float32)
    answers(lambda: layer(x))


@needs_compiled
def test_linear() -> None:
    layer, x = fastrnn.Linear(768, 1024, seed=0), np.ones((steps(3000), 768), np.float32)
    y, tape = layer.forward(x)
    answers(lambda: layer(x))
    answers(lambda: layer.backward(tape, y))


@needs_compiled
def test_losses_and_activations() -> None:
    z, layer = np.ones((6000, 8000), np.float32), fastrnn.Activation("gelu_tanh")
    with fastrnn.use_backend(fastrnn.backends()[-2]):  # the slowest of those compiled
        answers(lambda: fastrnn.losses.cross_entropy(z, np.zeros(len(z), int)))
        answers(lambda: layer(z))


def test_handlers_that_return(compiled: str) -> None:
    """They leave no trace in the results, even if they call the same layer, or change it."""
    layer, called = fastrnn.GRU(64, 192, seed=0), []
    x = np.ones((steps(150), 48, 64), np.float32)
    wanted = layer(x)[0]

    def handle() -> None:
        called.append(layer(x[:2])[0])
        if len(called) == 2:
            layer.parameters()["bias_ih_l0"] += 1

    with signals(handle):
        y = layer(x)[0]
    assert y.tobytes() == wanted.tobytes()
    assert len(called) > 1
    assert called[0].tobytes() == wanted[:2].tobytes()


def test_another_thread(compiled: str) -> None:
    """Handlers are run by the main thread; calls of others end as ever."""
    layer, found = fastrnn.GRU(64, 192, seed=0), []
    x = np.ones((steps(150), 48, 64), np.float32)
    wanted = layer(x)[0]
    came: list[int] = []

    def run() -> None:
        with fastrnn.use_backend(compiled):  # which threads do not inherit
            found.append(layer(x)[0])

    thread = threading.Thread(target=run)
    with signals(lambda: came.append(1)):
        thread.start()
        thread.join()
    assert found[0].tobytes() == wanted.tobytes()


def test_training_keeps_the_model() -> None:
    model = fastrnn.Sequential([fastrnn.LSTM(32, 96), fastrnn.Linear(96, 3)], seed=0)
    model.compile("adam", "mse")
    X, y = np.ones((32, 200, 32), np.float32), np.ones((32, 200, 3), np.float32)

    came: list[int] = []

    def interrupt() -> None:
        came.append(1)
        if len(came) == 1:
            raise KeyboardInterrupt

    with signals(interrupt):
        history = model.fit(X, y, epochs=1000, verbose=0)
    assert history.interrupted
    assert all(np.isfinite(p).all() for p in model.parameters().values())
