"""The same bits: by the step, in chunks, whole, alone, in any batch, and repeatedly."""

from __future__ import annotations

import numpy as np
import pytest

# Around multiples of vectors and tiles, and one whose input is processed in several chunks.
SHAPES = ((3, 5, 23), (1, 1, 9), (8, 16, 17), (7, 33, 19), (20, 67, 11), (65, 130, 29))
BATCHES = (1, 2, 3, 5, 6, 7, 13, 36)


@pytest.fixture(params=SHAPES, ids=str)
def layer_and_data(request, cell, precision, compiled, make_layer, make_state, rng):
    """Return a layer, x (T, B, I), a state, and the result of a whole sequence."""
    I, H, T = request.param
    layer, dtype = make_layer(cell, I, H, **precision), precision["dtype"]
    x = rng.normal(size=(T, max(BATCHES), I)).astype(dtype)
    state = make_state(cell, (1, max(BATCHES), H), dtype)
    return layer, x, state, layer(x, state)


def rows(state, chosen):
    """Return some rows of a batch of states."""
    if isinstance(state, tuple):
        return tuple(rows(s, chosen) for s in state)
    return np.ascontiguousarray(state[:, chosen])


def test_alone_and_in_any_batch(layer_and_data, same_bits):
    layer, x, state, (y, state_n) = layer_and_data
    for B in BATCHES:
        for chosen in (slice(0, B), slice(max(BATCHES) - B, None)):
            got = layer(x[:, chosen], rows(state, chosen))
            assert same_bits(got, (y[:, chosen].copy(), rows(state_n, chosen))), B
    for b in range(max(BATCHES)):
        got = layer(x[:, b], tuple(s[:, b] for s in state) if len(state) == 2 else state[:, b])
        want = tuple(s[:, b] for s in state_n) if len(state_n) == 2 else state_n[:, b]
        assert same_bits(got, (y[:, b], want)), b


def test_in_chunks_and_step_by_step(layer_and_data, same_bits):
    layer, x, state, (y, state_n) = layer_and_data
    for B in (1, 7, 36):
        chosen = slice(0, B)
        want = y[:, chosen].copy(), rows(state_n, chosen)
        for size in (1, 2, 5, 16):
            now, parts = rows(state, chosen), []
            for start in range(0, len(x), size):
                part, now = layer(x[start : start + size, chosen], now)
                parts.append(part)
            assert same_bits((np.concatenate(parts), now), want), (B, size)
        stream = layer.stream(B)
        stream.state = rows(state, chosen)
        steps = np.array([stream.step(x_t[chosen]) for x_t in x])
        assert same_bits((steps, stream.state), want), B
        stream.state = rows(state, chosen)
        outs = np.full_like(steps, np.nan)
        for x_t, out in zip(x, outs, strict=True):
            assert stream.step(x_t[chosen], out=out) is out
        assert same_bits((outs, stream.state), want), B


def test_any_memory_layout(layer_and_data, same_bits):
    layer, x, state, want = layer_and_data
    layer.batch_first = True
    y, state_n = layer(np.ascontiguousarray(x.swapaxes(0, 1)), state)
    assert same_bits((y.swapaxes(0, 1), state_n), want)
    layer.batch_first = False
    assert same_bits(layer(np.repeat(x, 2, axis=1)[::-1, ::2][::-1], state), want)


def test_training_and_inference(layer_and_data, same_bits):
    layer, x, state, want = layer_and_data
    for B in BATCHES:
        chosen = slice(0, B)
        y, state_n, _ = layer.forward(x[:, chosen], rows(state, chosen))
        assert same_bits((y, state_n), (want[0][:, chosen].copy(), rows(want[1], chosen))), B


def test_gradients_twice(layer_and_data, same_bits, rng):
    layer, x, state, (y, _) = layer_and_data
    dy = rng.normal(size=y.shape)
    _, _, tape = layer.forward(x, state)
    once = layer.backward(tape, dy, state)
    assert same_bits(layer.backward(tape, dy, state), once)
    _, _, again = layer.forward(x.copy(), state)
    assert same_bits(layer.backward(again, dy, state), once)
    alone, *_ = layer.backward(layer.forward(x[:, 3:4], rows(state, slice(3, 4)))[2], dy[:, 3:4])
    together, *_ = layer.backward(tape, dy)
    assert same_bits(alone, np.ascontiguousarray(together[:, 3:4]))


@pytest.mark.parametrize("sizes", [(1, 3), (3, 19), (8, 16), (33, 67)], ids=str)
def test_gradients_of_one_row(
    cell, precision, compiled, make_layer, make_state, rng, same_bits, options_of, sizes
):
    """They are written to the results; those of more rows, and of checkpoints, are summed."""
    (I, H), dtype = sizes, precision["dtype"]
    for options in options_of(cell, max(1, H - 2)):
        layer = make_layer(cell, I, H, **precision, **options)
        x, state = rng.normal(size=(1, 1, I)).astype(dtype), make_state(cell, (1, 1, H), dtype)
        state = None if options.get("proj_size") else state
        y, _, tape = layer.forward(x, state)
        dy = rng.normal(size=y.shape).astype(dtype)
        _, _, summed = layer.forward(x, state, checkpoint_every=1)
        assert same_bits(layer.backward(tape, dy, state), layer.backward(summed, dy, state))


@pytest.mark.parametrize("num_layers", [2, 3])
def test_stream_of_a_stack(
    cell, dtype, compiled, make_layer, make_state, rng, same_bits, num_layers
):
    I, H, T = 8, 19, 23
    layer = make_layer(cell, I, H, num_layers=num_layers, dtype=dtype)
    for B in (1, 7):
        x = rng.normal(size=(T, B, I)).astype(dtype)
        state = make_state(cell, (num_layers, B, H), dtype)
        want = layer(x, state)
        stream = layer.stream(B)
        stream.state = state
        assert same_bits((np.array([stream.step(x_t) for x_t in x]), stream.state), want)
        stream.state = state
        y = np.full((T, B, H), np.nan, dtype)
        for x_t, out in zip(x, y, strict=True):
            assert stream.step(x_t, out=out) is out
        assert same_bits((y, stream.state), want)
    stream = layer.stream()
    y, _ = layer(x[:, 0])
    assert same_bits(np.array([stream.step(x_t) for x_t in x[:, 0]]), y)


def test_stacks_in_any_batch(cell, dtype, compiled, make_layer, make_state, rng, same_bits):
    I, H, T = 5, 19, 11
    layer = make_layer(cell, I, H, num_layers=2, bidirectional=True, dtype=dtype)
    x = rng.normal(size=(T, max(BATCHES), I)).astype(dtype)
    state = make_state(cell, (4, max(BATCHES), H), dtype)
    dy = rng.normal(size=(T, max(BATCHES), 2 * H)).astype(dtype)
    y, state_n, tape = layer.forward(x, state)
    dx, dstate, _ = layer.backward(tape, dy, state)
    assert same_bits(layer(x, state), (y, state_n))
    for B in BATCHES:
        chosen = slice(0, B)
        got_y, got_state, tape = layer.forward(x[:, chosen], rows(state, chosen))
        assert same_bits((got_y, got_state), (y[:, chosen].copy(), rows(state_n, chosen))), B
        got_dx, got_dstate, _ = layer.backward(tape, dy[:, chosen], rows(state, chosen))
        assert same_bits((got_dx, got_dstate), (dx[:, chosen].copy(), rows(dstate, chosen))), B
