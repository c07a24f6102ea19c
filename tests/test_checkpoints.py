"""Checkpointed backpropagation: the same bits as with a full tape, in less memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastrnn

# Long enough for several chunks of 256 // B steps, in which weight gradients are summed.
T, B, I, H = 201, 3, 4, 7
STACKS = [
    {},
    {"bidirectional": True, "batch_first": True},
    {"num_layers": 3, "dropout": 0.3, "return_sequences": False},
    {"num_layers": 2, "bidirectional": True, "return_sequences": False},
]


def train(cell, layer, ragged, **options):
    """Return all results of a forward and backward, always the same for the same arguments."""
    rng = layer._rng = np.random.default_rng(5)
    L, D = layer.num_layers, 1 + layer.bidirectional
    x = rng.normal(size=(B, T, I) if layer.batch_first else (T, B, I)).astype(np.float32)
    state, dstate = (
        tuple(rng.uniform(-1, 1, (L * D, B, H)) for _ in cell.states) for _ in range(2)
    )
    if len(cell.states) == 1:
        (state,), (dstate,) = state, dstate
    rows = {"lengths": [150, T, 1], "reset": rng.random((T, B)) < 0.05} if ragged else {}
    y, state_n, tape = layer.forward(x, state, **rows, **options)
    x[...] = np.nan  # a tape holds copies
    dy = rng.normal(size=y.shape)
    return y, state_n, *layer.backward(tape, dy, dstate), *layer.backward(tape, dy, dstate)


@pytest.mark.parametrize("every", [1, 100, T + 1])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_same_bits(cell, compiled, make_layer, same_bits, stack, ragged, every):
    norm = {"layer_norm": True} if cell.norm_groups else {}
    layer = make_layer(cell, I, H, **stack, **norm)
    plain = train(cell, layer, ragged)
    assert same_bits(plain, train(cell, layer, ragged, checkpoint_every=every))


def leaves(nest):
    if isinstance(nest, np.ndarray):
        return [nest]
    nest = nest.values() if isinstance(nest, dict) else nest
    return [a for item in nest for a in leaves(item)]


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_reference(cell, make_layer, stack):
    layer = make_layer(cell, I, H, dtype=np.float64, **stack)
    with fastrnn.use_backend("reference"):
        plain, checkpointed = (
            train(cell, layer, True, **options) for options in ({}, {"checkpoint_every": 30})
        )
    for a, b in zip(leaves(plain), leaves(checkpointed), strict=True):
        assert abs(a - b).max() <= 1e-12 * max(abs(a).max(), 1)


def test_kernels_are_those_of_the_forward(make_layer, cell, same_bits, rng):
    layer, x = make_layer(cell, I, H), rng.normal(size=(T, B, I)).astype(np.float32)
    _, _, tape = layer.forward(x, checkpoint_every=10)
    want = layer.backward(tape, np.ones((T, B, H)))
    for array in layer.parameters().values():
        array += 1  # the tape has the old weights
    with fastrnn.use_backend("reference"):
        assert same_bits(want, layer.backward(tape, np.ones((T, B, H))))


def test_memory_falls(compiled, rng):
    """The tape of 100,000 steps; tracemalloc sees the memory of both NumPy and the kernels."""
    layer = fastrnn.LSTM(2, 32, return_sequences=False, seed=0)
    x = rng.normal(size=(100_000, 1, 2)).astype(np.float32)

    def peak(**options):
        tracemalloc.start()
        _, _, tape = layer.forward(x, **options)
        layer.backward(tape, np.ones((1, 32)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # 4 H numbers per step for the gates, too many for a workspace kept from earlier calls; and x
    # and its gradient in any case.
    assert peak() > 100_000 * 4 * 32 * 4
    assert peak(checkpoint_every=256) < 4_000_000


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True, "all"])
def test_wrong_checkpoint_every(wrong):
    layer = fastrnn.LSTM(I, H)
    with pytest.raises((TypeError, ValueError), match="checkpoint_every: expected"):
        layer.forward(np.ones((T, B, I)), checkpoint_every=wrong)
