"""Ragged batches and resets in layers: as if each row, or each piece, ran alone."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

T, B, I, H = 9, 5, 4, 7
LENGTHS = [4, 9, 1, 6, 9]
# layer_norm only if the cell has it.
STACKS = [
    {},
    {"layer_norm": True, "num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "return_sequences": False},
]


def tuples(nest):
    return nest if isinstance(nest, tuple) else (nest,)


def close(got, want):
    return abs(got - want).max() <= 1e-13 * max(abs(want).max(), 1e-3)


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_as_each_row_alone(cell, backend, make_layer, make_state, same_bits, rng, stack):
    stack = {n: v for n, v in stack.items() if n != "layer_norm" or cell.norm_groups}
    layer = make_layer(cell, I, H, dtype=np.float64, **stack)
    L, D = layer.num_layers, 1 + layer.bidirectional
    x = rng.normal(size=(T, B, I))
    state, dstate = (make_state(cell, (L * D, B, H), float) for _ in range(2))
    x_in = x.swapaxes(0, 1) if layer.batch_first else x
    y, state_n, tape = layer.forward(x_in, state, lengths=LENGTHS)
    dy = rng.normal(size=y.shape)
    dx, dstate_0, grads = layer.backward(tape, dy, dstate)
    plain = layer(x_in, state, lengths=LENGTHS)
    assert same_bits(plain, (y, state_n))

    if layer.batch_first:
        y, dy, dx = y.swapaxes(0, 1), dy.swapaxes(0, 1), dx.swapaxes(0, 1)
    sums = {name: np.zeros_like(g) for name, g in grads.items()}
    for b, n in enumerate(LENGTHS):

        def row(nest, b=b):
            states = tuple(np.ascontiguousarray(s[:, b]) for s in tuples(nest))
            return states if len(states) > 1 else states[0]

        alone, state_alone, tape = layer.forward(x[:n, b], row(state))
        dy_alone = dy[:n, b] if layer.return_sequences else dy[b]
        dx_alone, dstate_alone, grads_alone = layer.backward(tape, dy_alone, row(dstate))
        mine = y[:n, b] if layer.return_sequences else y[b]
        assert close(mine, alone)
        if backend != "reference":
            assert same_bits(np.ascontiguousarray(mine), alone)
            assert same_bits(row(state_n), state_alone)
        for got, want in zip(tuples(row(dstate_0)), tuples(dstate_alone), strict=True):
            assert close(got, want)
        for got, want in zip(tuples(row(state_n)), tuples(state_alone), strict=True):
            assert close(got, want)
        assert close(dx[:n, b], dx_alone)
        assert not dx[n:, b].any()
        assert not layer.return_sequences or not y[n:, b].any()
        for name, g in grads_alone.items():
            sums[name] += g
    for name, want in sums.items():
        assert close(grads[name], want), name


@pytest.mark.parametrize("stack", [{}, {"num_layers": 2}], ids=str)
def test_reset_starts_anew(cell, backend, make_layer, make_state, same_bits, rng, stack):
    """As if the pieces between resets were sequences of their own."""
    layer = make_layer(cell, I, H, dtype=np.float64, **stack)
    L = layer.num_layers
    x, dy = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, H))
    state, dstate = (make_state(cell, (L, B, H), float) for _ in range(2))
    reset = np.zeros((T, B), bool)
    # Never, at the first step, at the last step, at consecutive steps, at separate steps.
    reset[0, 1] = reset[-1, 2] = reset[3:5, 3] = reset[[2, 6], 4] = True
    y, state_n, tape = layer.forward(x, state, reset=reset)
    dx, dstate_0, grads = layer.backward(tape, dy, dstate)
    assert same_bits(layer(x, state, reset=reset), (y, state_n))
    sums = {name: np.zeros_like(g) for name, g in grads.items()}
    for b in range(B):
        starts = sorted({0, *np.flatnonzero(reset[:, b])})
        for start, end in zip(starts, [*starts[1:], T], strict=True):

            def row(nest, zero, b=b):
                states = tuple(np.ascontiguousarray(s[:, b]) * (not zero) for s in tuples(nest))
                return states if len(states) > 1 else states[0]

            piece = slice(start, end)
            alone, _, tape = layer.forward(x[piece, b], row(state, reset[start, b]))
            assert close(y[piece, b], alone)
            dx_alone, dstate_alone, grads_alone = layer.backward(
                tape, dy[piece, b], row(dstate, end < T)
            )
            assert close(dx[piece, b], dx_alone)
            if start == 0:
                want = tuples(dstate_alone)
                for got, d in zip(tuples(row(dstate_0, False)), want, strict=True):
                    assert close(got, 0 * d if reset[0, b] else d)
            for name, g in grads_alone.items():
                sums[name] += g
    for name, want in sums.items():
        assert close(grads[name], want), name


def test_reset_and_lengths_in_functions_and_unbatched(
    cell, backend, make_layer, functions, same_bits, rng
):
    layer = make_layer(cell, I, H, dtype=np.float64)
    weights = [layer.parameters()[f"{n}_l0"] for n in cell.weights[:4]]
    forward, _ = functions(cell)
    x, reset = rng.normal(size=(T, B, I)), rng.random((T, B)) < 0.3
    y, state_n = layer(x, lengths=LENGTHS, reset=reset)
    y_f, state_f, _ = forward(x, None, *weights, lengths=LENGTHS, reset=reset)
    assert same_bits(y_f, y)
    assert same_bits(tuples(state_f), tuple(s[0] for s in tuples(state_n)))
    y_0, _ = layer(x[:, 0], lengths=LENGTHS[0], reset=reset[:, 0])
    assert close(y_0, y[:, 0])


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"lengths": [0, 1, 2, 3, 4]}, ValueError, r"lengths: expected whole numbers in 1\.\.9"),
        ({"lengths": [1, 2, 3, 4, 10]}, ValueError, "lengths: expected whole numbers"),
        ({"lengths": [1.0] * B}, TypeError, "lengths: expected an array of whole numbers"),
        ({"lengths": [1, 2]}, ValueError, r"lengths: expected shape \(5,\), got \(2,\)"),
        ({"lengths": 3}, ValueError, r"lengths: expected shape \(5,\), got \(\)"),
        ({"reset": np.zeros((T, B))}, TypeError, "reset: expected an array of booleans"),
        ({"reset": np.zeros((B, T), bool)}, ValueError, r"reset: expected shape \(9, 5\)"),
    ],
)
def test_wrong_lengths_and_resets(make_layer, cell, backend, wrong, error, says):
    layer = make_layer(cell, I, H)
    with pytest.raises(error, match=says):
        layer(np.ones((T, B, I)), **wrong)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (fastrnn.LSTM, {"proj_size": 3}),
        (fastrnn.LSTM, {"peephole": True}),
        (fastrnn.LSTM, {"layer_norm": True}),
        (fastrnn.LSTM, {"layer_norm": True, "peephole": True, "proj_size": 3, "bias": False}),
        (fastrnn.GRU, {"layer_norm": True}),
        (fastrnn.GRU, {"layer_norm": True, "reset_after": False}),
    ],
    ids=str,
)
def test_streams_of_options(backend, dtype, same_bits, rng, layer, options):
    layer = layer(I, H, num_layers=2, seed=0, dtype=dtype, **options)
    x = rng.normal(size=(T, B, I)).astype(dtype)
    y, state_n = layer(x)
    stream = layer.stream(B)
    for t in range(T):
        assert (
            close(stream.step(x[t]), y[t])
            if backend == "reference"
            else same_bits(stream.step(x[t]), y[t].copy())
        )
    assert [s.shape for s in tuples(stream.state)] == [s.shape for s in tuples(state_n)]


@pytest.mark.parametrize("proj_size", [-1, H, H + 1])
def test_wrong_proj_size(proj_size):
    with pytest.raises(ValueError, match="proj_size: expected"):
        fastrnn.LSTM(I, H, proj_size=proj_size)
