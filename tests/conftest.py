"""What tests share: every backend, cell and dtype as fixtures; makers of layers and states."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import fastrnn
from fastrnn import functional
from fastrnn._kernels.cells import CELLS, WEIGHTS, Cell, CellConfig

# The fixtures used under @given don't change between examples.
settings.register_profile(
    "fastrnn",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fastrnn")

#: How users come by each cell: layer, forward, backward, and their options.
USES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "rnn_tanh": (fastrnn.RNN, functional.rnn, functional.rnn_backward, {}),
    "rnn_relu": (fastrnn.RNN, functional.rnn, functional.rnn_backward, {"nonlinearity": "relu"}),
    "lstm": (fastrnn.LSTM, functional.lstm, functional.lstm_backward, {}),
    "gru": (fastrnn.GRU, functional.gru, functional.gru_backward, {}),
    "gru_reset_before": (
        fastrnn.GRU,
        functional.gru,
        functional.gru_backward,
        {"reset_after": False},
    ),
}


# A shell starts what runs in the background with Ctrl-C ignored, which children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: FASTRNN_BACKEND=name is for that one alone: who runs the suite once for each runs nothing twice.
BACKENDS = (fastrnn.backend(),) if os.environ.get("FASTRNN_BACKEND") else fastrnn.backends()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend of this machine; the test runs on it."""
    with fastrnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def compiled(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every compiled backend of this machine; the test runs on it."""
    with fastrnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=CELLS.values(), ids=list(CELLS))
def cell(request: pytest.FixtureRequest) -> Cell:
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture
def make_layer() -> Callable[..., Any]:
    """``make_layer(cell, I, H, **options)``: the layer that runs a cell."""

    def make(cell: Cell, I: int, H: int, **options: Any) -> Any:
        layer, _, _, usual = USES[cell.name]
        return layer(I, H, **{"seed": 0, **usual, **options})

    return make


@pytest.fixture
def functions() -> Callable[[Cell], tuple[Callable[..., Any], Callable[..., Any]]]:
    """``functions(cell)``: its forward and backward of ``fastrnn.functional``."""

    def find(cell: Cell) -> tuple[Callable[..., Any], Callable[..., Any]]:
        _, forward, backward, options = USES[cell.name]
        return lambda *args, **kwargs: forward(*args, **options, **kwargs), backward

    return find


@pytest.fixture
def make_state(rng: np.random.Generator) -> Callable[..., Any]:
    """``make_state(cell, shape, dtype)``: a random state as a layer takes and gives it."""

    def make(cell: Cell, shape: tuple[int, ...], dtype: Any) -> Any:
        found = tuple(rng.uniform(-1, 1, shape).astype(dtype) for _ in cell.states)
        return found if len(found) > 1 else found[0]

    return make


@pytest.fixture
def make_weights(rng: np.random.Generator) -> Callable[..., Any]:
    """``make_weights(cell, I, H, dtype, bias_ih=True, bias_hh=True)``: in the order of WEIGHTS."""

    def make(cell: Cell, I: int, H: int, dtype: Any, **given: bool) -> list[Any]:
        shapes = cell.weight_shapes(CellConfig(input_size=I, hidden_size=H))
        return [
            rng.uniform(-1, 1, shapes[n]).astype(dtype) / shapes[n][-1] ** 0.5
            if given.get(n, True)
            else None
            for n in WEIGHTS
        ]

    return make


@pytest.fixture
def same_bits() -> Callable[[Any, Any], bool]:
    """``same_bits(a, b)``: whether two nests of arrays hold the same bits, in the same shapes."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    return same
