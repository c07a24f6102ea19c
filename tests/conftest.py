"""Shared fixtures: every backend, cell and dtype, and factories of layers and states."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import fastrnn
from fastrnn import functional, layers
from fastrnn._kernels.cells import CELLS, Cell, CellConfig

# The fixtures used under @given don't change between examples.
settings.register_profile(
    "fastrnn",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fastrnn")

#: Every recurrent layer of the package.
RECURRENT = tuple(layers.RECURRENT.values())
#: How users get each cell: its layer, and the arguments that select it.
USES = {name: (layer, options) for layer in RECURRENT for name, options in layer.cells.items()}


# A shell starts background jobs with SIGINT ignored, which child processes would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: FASTRNN_BACKEND=name selects one backend, so that one run for each tests nothing twice.
BACKENDS = (fastrnn.backend(),) if os.environ.get("FASTRNN_BACKEND") else fastrnn.backends()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on every backend of this machine."""
    with fastrnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[name for name in BACKENDS if name != "reference"])
def compiled(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on every compiled backend of this machine."""
    with fastrnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=CELLS.values(), ids=list(CELLS))
def cell(request: pytest.FixtureRequest) -> Cell:
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture(params=["float32", "float64", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of layers of each dtype, and of each precision of matrix products."""
    if request.param in ("float32", "float64"):
        return {"dtype": request.param}
    return {"dtype": "float32", "matmul_precision": request.param}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture(params=["start", "end"])
def guarded(request: pytest.FixtureRequest) -> Callable[[np.ndarray], np.ndarray]:
    """``guarded(array)``: a copy next to memory whose access is a crash, before or after it."""
    if not hasattr(os, "fork"):
        pytest.skip("needs mprotect")
    path = Path(__file__).with_name("guards.py")
    spec = importlib.util.spec_from_file_location("tests_guards", path)
    assert spec is not None
    assert spec.loader is not None
    guards = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guards)
    return partial(guards.guarded, place=request.param)


@pytest.fixture
def make_layer() -> Callable[..., Any]:
    """``make_layer(cell, I, H, **options)``: the layer that runs a cell."""

    def make(cell: Cell, I: int, H: int, **options: Any) -> Any:
        layer, usual = USES[cell.name]
        return layer(I, H, **{"seed": 0, **usual, **options})

    return make


@pytest.fixture
def remade() -> Callable[..., Any]:
    """``remade(layer, **options)``: the same layer with other options, and its own weights."""

    def make(layer: Any, **options: Any) -> Any:
        twin = type(layer)(**layer.get_config() | options)
        twin.load_state_dict(layer.state_dict())
        return twin

    return make


@pytest.fixture
def recurrent_layers() -> tuple[Any, ...]:
    """Every recurrent layer of the package."""
    return RECURRENT


@pytest.fixture(params=RECURRENT, ids=lambda kind: kind.__name__)
def recurrent(request: pytest.FixtureRequest) -> Any:
    """Every recurrent layer of the package."""
    return request.param


@pytest.fixture
def make_single() -> Callable[..., Any]:
    """``make_single(cell, I, H, **options)``: the single-step layer that runs a cell."""

    def make(cell: Cell, I: int, H: int, *args: Any, **options: Any) -> Any:
        layer, usual = USES[cell.name]
        if cell.family not in layers.SINGLE_STEPS:
            pytest.skip(f"there is no {layer.__name__}Cell")
        single = layers.SINGLE_STEPS[cell.family]
        return single(I, H, *args, **{"seed": 0, **usual, **options})

    return make


@pytest.fixture
def functions() -> Callable[[Cell], tuple[Callable[..., Any], Callable[..., Any]]]:
    """``functions(cell)``: its forward and backward of ``fastrnn.functional``."""

    def find(cell: Cell) -> tuple[Callable[..., Any], Callable[..., Any]]:
        if not hasattr(functional, cell.family):
            pytest.skip(f"fastrnn.functional has no {cell.family}")
        forward = partial(getattr(functional, cell.family), **USES[cell.name][1])
        return forward, getattr(functional, f"{cell.family}_backward")

    return find


@pytest.fixture
def options_of() -> Callable[..., list[dict[str, Any]]]:
    """``options_of(cell, P)``: every combination of its options, as a layer takes them."""

    def combinations(cell: Cell, P: int) -> list[dict[str, Any]]:
        values = {"projection": ("proj_size", P)}
        # Coupled gates are among those of `general`.
        each = [
            dict([values.get(name, (name, True))])
            for name in cell.options
            if name != "input_forget"
        ]
        chosen = itertools.product(*([{}, option] for option in each))
        return [{k: v for option in some for k, v in option.items()} for some in chosen]

    return combinations


#: Activations of gates, of a candidate, and of a cell state: one set without, one with kinks.
ACTIVATIONS: dict[str, list[Any]] = {
    "smooth": ["softsign", ("scaled_tanh", 0.9, 0.7), "sigmoid"],
    "kinked": [("hard_sigmoid", 0.2, 0.5), ("leaky_relu", 0.2), ("elu", 0.6)],
}


@pytest.fixture
def general() -> Callable[..., dict[str, Any]]:
    """``general(cell, kind)``: options for other gates than the cell's own, "smooth" or "kinked".

    The latter are clipped too, and coupled.
    """
    usual = {"rnn": {"nonlinearity": "tanh"}, "indrnn": {"nonlinearity": "relu"}}

    def options(cell: Cell, kind: str) -> dict[str, Any]:
        more: dict[str, Any] = {"activations": ACTIVATIONS[kind][: len(cell.activations)]}
        if kind == "kinked":
            more["clip"] = 1.25
            if "input_forget" in cell.options:
                more["input_forget"] = True
        return usual.get(cell.family, {}) | more

    return options


@pytest.fixture
def make_state(rng: np.random.Generator) -> Callable[..., Any]:
    """``make_state(cell, shape, dtype)``: a random state as a layer takes and returns it."""

    def make(cell: Cell, shape: tuple[int, ...], dtype: Any) -> Any:
        states = tuple(rng.uniform(-1, 1, shape).astype(dtype) for _ in cell.states)
        return states if len(states) > 1 else states[0]

    return make


@pytest.fixture
def make_weights(rng: np.random.Generator) -> Callable[..., Any]:
    """``make_weights(cell, I, H, dtype, bias_ih=True, bias_hh=True)``: without those of options."""

    def make(cell: Cell, I: int, H: int, dtype: Any, **given: bool) -> list[Any]:
        shapes = cell.weight_shapes(CellConfig(input_size=I, hidden_size=H))
        return [
            rng.uniform(-1, 1, shapes[n]).astype(dtype) / shapes[n][-1] ** 0.5
            if given.get(n, True)
            else None
            for n in shapes
        ]

    return make


@pytest.fixture
def same_bits() -> Callable[[Any, Any], bool]:
    """``same_bits(a, b)``: whether nested arrays have the same bits and shapes."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        if isinstance(a, tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    return same


@pytest.fixture
def expect_equal() -> Callable[[Any, Any], None]:
    """``expect_equal(a, b)``: rows of different batches have the same bits.

    Those of the reference agree to rounding: its products depend on the size of the batch.
    """

    def check(a: np.ndarray, b: np.ndarray) -> None:
        if fastrnn.backend() == "reference":
            eps = float(np.finfo(a.dtype).eps)
            np.testing.assert_allclose(a, b, rtol=8 * eps, atol=8 * eps)
        else:
            np.testing.assert_array_equal(a, b)

    return check
