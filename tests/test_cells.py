"""Every cell of CELLS is complete: both twins, its layer and its functions."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import layers
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CELLS, CellConfig
from fastrnn._kernels.reference.product import product, product_back
from fastrnn._kernels.reference.scan import STEPS


def test_every_twin_has_the_cell(cell, backend, dtype, make_weights):
    if backend == "reference":
        assert cell.name in STEPS, f"{cell.name}: no steps in fastrnn/_kernels/reference/scan.py"
    T, B, I, H = 2, 3, 4, 5
    kernels = dispatch.kernels(dtype)
    weights, config = make_weights(cell, I, H, dtype), CellConfig(input_size=I, hidden_size=H)
    try:
        packed = kernels.Packed(cell, config, weights)
    except KeyError:
        raise AssertionError(f"{cell.name}: missing in the kernels of {backend}") from None
    state = tuple(np.ones((B, H), dtype) for _ in cell.states)
    state_n = tuple(np.full((B, H), np.nan, dtype) for _ in cell.states)
    x, y = np.ones((T, B, I), dtype), np.full((T, B, H), np.nan, dtype)
    tape = kernels.forward(packed, x, state, y, state_n, keep=True)
    assert np.isfinite([y[-1], *state_n]).all(), f"{cell.name}: no forward in {backend}"
    dx, dstate = np.full_like(x, np.nan), state_n
    gradients = kernels.Gradients(packed)
    kernels.backward(tape, y, state, dx, dstate, gradients)
    for array in (dx, *dstate, *gradients.arrays()):
        assert np.isfinite(array).all(), f"{cell.name}: no backward in {backend}"


def test_every_layer_and_every_cell_is_there():
    made = [name for layer in layers.RECURRENT.values() for name in layer.cells]
    assert sorted(made) == sorted(CELLS)
    for layer in (*layers.RECURRENT.values(), *layers.SINGLE_STEPS.values()):
        assert getattr(fastrnn, layer.__name__) is layer


def test_a_layer_runs_the_cell(cell, make_layer):
    assert make_layer(cell, 2, 3)._cell is cell, f"{cell.name}: no layer makes it"


def test_functions_run_the_cell(cell, functions, make_weights):
    forward, backward = functions(cell)
    _, _, tape = forward(np.ones((4, 5, 2)), None, *make_weights(cell, 2, 3, float))
    assert tape.cell is cell, f"{cell.name}: no function runs it"
    backward(tape)


@pytest.mark.parametrize("B", [2, 0])  # 0: a step at which no row runs
@pytest.mark.parametrize("G", [1, 3])
def test_an_elementwise_product_is_one_with_diagonals(G, B, rng):
    T, H = 3, 4
    u, a, dz = rng.normal(size=G * H), rng.normal(size=(T, B, H)), rng.normal(size=(T, B, G * H))
    diagonals = np.concatenate([np.diag(part) for part in np.split(u, G)])
    one, other = product(a, u), product(a, diagonals)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-12)
    da, du, _ = product_back(one, dz, u)
    want, dweight, _ = product_back(other, dz, diagonals)
    np.testing.assert_allclose(da, want, rtol=1e-12)
    parts = [part.diagonal() for part in np.split(dweight, G)]
    np.testing.assert_allclose(du, np.concatenate(parts), rtol=1e-12)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_indrnn_is_an_rnn_with_diagonal_weights(backend, dtype, nonlinearity, options, rng):
    T, B, I, H = 9, 3, 4, 11
    ind, rnn = (
        layer(I, H, nonlinearity=nonlinearity, dtype=dtype, seed=0, **options)
        for layer in (fastrnn.IndRNN, fastrnn.RNN)
    )
    weights = {name: rng.uniform(-1, 1, a.shape) for name, a in ind.parameters().items()}
    ind.load_state_dict(weights)
    dense = {n: np.diag(w) if n.startswith("weight_hh") else w for n, w in weights.items()}
    rnn.load_state_dict(dense)
    D, scans = 1 + ind.bidirectional, len(weights) // 4
    x, dy = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, D * H))
    state, dstate = rng.uniform(-1, 1, (2, scans, B, H))
    rows = {"lengths": np.array([9, 2, 5]), "reset": rng.random((T, B)) < 0.3}
    got, want = [], []
    for layer, out in ((ind, got), (rnn, want)):
        y, state_n, tape = layer.forward(x, state, **rows)
        dx, dstate_0, grads = layer.backward(tape, dy, dstate)
        out += [y, state_n, dx, dstate_0]
        of_h = {n for n, g in grads.items() if n.startswith("weight_hh") and g.ndim == 2}
        out += [g.diagonal() if n in of_h else g for n, g in grads.items()]
    for a, b in zip(got, want, strict=True):
        # A sum of H products, of which all but one are 0, and the same sums over T and B.
        np.testing.assert_allclose(a, b, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(b).max())
