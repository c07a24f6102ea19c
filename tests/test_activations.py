"""tanh and sigmoid, as every cell computes them, within 4 ulp of the true value for all arguments.

Each probe is a cell in which all activations but one are saturated at 0 or 1, so that a state is
exactly the value of that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from fastrnn._kernels.cells import CELLS, CellConfig

ONE, ZERO = 100.0, -1000.0  # sigmoid is 1, and 0, there; tanh(ONE) is 1


@dataclass(frozen=True)
class Probe:
    """The gate or state that gets the argument, the values of the others, and the state to read."""

    function: str
    cell: str
    argument: str
    look: str = "h"
    gates: dict[str, float] = field(default_factory=dict)
    states: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.cell}-{self.argument}"


PROBES = (
    Probe("tanh", "rnn_tanh", "h"),
    Probe("sigmoid", "lstm", "i", "c", gates={"g": ONE}),
    Probe("sigmoid", "lstm", "f", "c", states={"c": 1}),
    Probe("tanh", "lstm", "g", "c", gates={"i": ONE}),
    Probe("sigmoid", "lstm", "o", gates={"f": ONE}, states={"c": ONE}),
    Probe("tanh", "lstm", "c", gates={"f": ONE, "o": ONE}),
    Probe("sigmoid", "gru", "z", states={"h": 1}),
    Probe("tanh", "gru", "n", gates={"z": ZERO}),
    Probe("sigmoid", "gru_reset_before", "z", states={"h": 1}),
    Probe("tanh", "gru_reset_before", "n", gates={"z": ZERO}),
)


@pytest.fixture(params=PROBES, ids=str)
def probe(request):
    return request.param


@pytest.fixture
def evaluate(functions, probe, dtype):
    """``evaluate(points)``: the values of the function, (points.size, H), on this backend."""
    cell = CELLS[probe.cell]
    forward, _ = functions(cell)

    def values(points, H=3):
        B = points.size // H
        points = points.reshape(B, H)
        config = CellConfig(input_size=H, hidden_size=H)
        weights = {n: np.zeros(s, dtype) for n, s in cell.weight_shapes(config).items()}
        for gate, value in probe.gates.items():
            weights["bias_ih"].reshape(-1, H)[cell.gates.index(gate)] = value
        states = {s: np.full((B, H), probe.states.get(s, 0), dtype) for s in cell.states}
        x = np.zeros((1, B, H), dtype)
        if probe.argument in cell.gates:
            if np.isfinite(points).all():
                x[0] = points
                gate = weights["weight_ih"].reshape(-1, H, H)[cell.gates.index(probe.argument)]
                gate[...] = np.eye(H)
            else:  # 0 times infinity would reach the other gates
                assert B == 1
                weights["bias_ih"].reshape(-1, H)[cell.gates.index(probe.argument)] = points
        else:
            states[probe.argument] = points
        given = tuple(states.values())
        _, state_n, _ = forward(x, given if len(given) > 1 else given[0], *weights.values())
        state_n = dict(zip(cell.states, state_n if len(given) > 1 else (state_n,), strict=True))
        return state_n[probe.look].ravel()

    return values


def true(function, x):
    x = x.astype(np.longdouble)
    with np.errstate(over="ignore", under="ignore"):
        return np.tanh(x) if function == "tanh" else 1 / (1 + np.exp(-x))


def test_within_4_ulp(backend, dtype, probe, evaluate, rng):
    if np.finfo(np.longdouble).nmant < np.finfo(dtype).nmant + 8:
        pytest.skip("no wider float to compare with")
    info = np.finfo(dtype)
    wide = np.concatenate(
        [
            np.linspace(-120, 120, 24001),
            np.linspace(-800, 800, 8001),
            np.linspace(-1, 1, 8001),
            np.geomspace(info.smallest_subnormal, info.tiny, 100),
            10 ** rng.uniform(np.log10(info.tiny), np.log10(info.max), 10000),
            np.arange(-200, 200) * np.log(2) / 2,
            [0, info.tiny, info.eps, info.max],
        ]
    ).astype(dtype)
    points = np.concatenate([wide, -wide])
    points = np.resize(points, points.size // 3 * 3)
    want = true(probe.function, points)
    error = abs(evaluate(points).astype(np.longdouble) - want)
    # A result below the normal numbers may be flushed to 0.
    allowed = np.where(abs(want) < info.tiny, info.tiny, 4 * np.spacing(abs(want).astype(dtype)))
    worst = np.argmax(error / allowed)
    assert error[worst] <= allowed[worst], (points[worst], error[worst] / allowed[worst] * 4)


def test_limits(backend, dtype, probe, evaluate):
    inf, nan = np.inf, np.nan
    points = np.array([inf, -inf, nan, 0.0, -0.0, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
    low, middle = (-1, 0) if probe.function == "tanh" else (0, 0.5)
    want = np.array([1, low, nan, middle, middle, 1, low])
    np.testing.assert_array_equal(evaluate(points, H=points.size), want)
