"""Ragged batches, resets and all options of the reference, by central differences."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn._kernels import dispatch, reference
from fastrnn._kernels.cells import CellConfig

T, B, I, H, P = 5, 4, 2, 3, 2
# Second order: the error is STEP**2 = 1e-10, and that of rounding 1e-16 / STEP = 1e-11.
STEP = 1e-5
STENCIL = ((-1, -1 / 2), (1, 1 / 2))
LENGTHS = np.array([3, 5, 1, 4])
SPANS = {
    "all": None,
    "from the start": np.stack([0 * LENGTHS, LENGTHS]),
    "to the end": np.stack([T - LENGTHS, 0 * LENGTHS + T]),
}
RESET = np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]], bool)


@pytest.mark.parametrize("rows", SPANS)
@pytest.mark.parametrize("reset", [None, RESET], ids=["kept", "reset"])
def test_central_differences(cell, options_of, rows, reset):
    for options in options_of(cell, P):
        config = CellConfig(input_size=I, hidden_size=H, **options)
        expect_central_differences(cell, config, SPANS[rows], reset)


#: Other activations of gates, of a candidate, and of a cell state.
OTHERS = {
    "smooth": {"activations": ("softplus", ("scaled_tanh", 1.3, 0.7), "softsign")},
    "clipped": {
        "activations": (("hard_sigmoid", 0.3, 0.6), ("leaky_relu", 0.2), ("elu", 0.7)),
        "clip": 0.6,
    },
    "others": {"activations": (("affine", 0.4, 0.5), ("thresholded_relu", -0.3), "sigmoid")},
}


@pytest.mark.parametrize("others", OTHERS)
def test_central_differences_of_other_activations(cell, options_of, others):
    every = options_of(cell, P)
    for options in every[:: max(1, len(every) - 1)]:  # none, and all
        more = {**OTHERS[others], "input_forget": others != "smooth" and "f" in cell.gates}
        more["activations"] = more["activations"][: len(cell.activations)]
        config = CellConfig(input_size=I, hidden_size=H, **options, **more)
        expect_central_differences(cell, config, SPANS["from the start"], RESET)


def expect_central_differences(cell, config, spans, reset):
    # Normalising two or three units can be steep: with this seed it is not too steep for STEP.
    rng = np.random.default_rng(7)
    shapes = cell.weight_shapes(config)
    weights = [rng.uniform(-1, 1, shapes[n]) if n in shapes else None for n in cell.weights]
    x = rng.normal(size=(T, B, I))
    state = [rng.uniform(-1, 1, (B, n)) for n in cell.state_sizes(config)]
    d_outputs = [
        rng.normal(size=(T, B, config.output_size)),
        *(rng.normal(size=s.shape) for s in state),
    ]

    def run(keep=False):
        y, state_n = np.full_like(d_outputs[0], np.nan), [np.full_like(s, np.nan) for s in state]
        packed = reference.Packed(cell, config, weights)
        tape = reference.forward(packed, x, state, y, state_n, keep=keep, spans=spans, reset=reset)
        return (y, *state_n), tape

    def loss():
        return sum(np.vdot(d, o) for d, o in zip(d_outputs, run()[0], strict=True))

    outputs, tape = run(keep=True)
    dx, dstate = np.full_like(x, np.nan), [np.full_like(s, np.nan) for s in state]
    gradients = reference.Gradients(tape.packed)
    reference.backward(tape, d_outputs[0], d_outputs[1:], dx, dstate, gradients)
    grads = gradients.arrays()
    for array, got in zip((x, *state, *weights), (dx, *dstate, *grads), strict=True):
        if array is None:
            continue
        want = np.zeros_like(array)
        for k, value in enumerate(array.flat):
            for offset, factor in STENCIL:
                array.flat[k] = value + offset * STEP
                want.flat[k] += factor / STEP * loss()
            array.flat[k] = value
        assert abs(got - want).max() <= 1e-7 * abs(want).max()

    if spans is not None:
        idle = ~((spans[0] <= np.arange(T)[:, None]) & (np.arange(T)[:, None] < spans[1]))
        assert not outputs[0][idle].any()
        assert not dx[idle].any()


@pytest.mark.parametrize("rows", ["from the start", "to the end"])
def test_what_stands_in_the_padding_does_not_count(cell, backend, dtype, make_weights, rows, rng):
    kernels, spans = dispatch.kernels(dtype), SPANS[rows]
    weights, config = make_weights(cell, I, H, dtype), CellConfig(input_size=I, hidden_size=H)
    idle = ~((spans[0] <= np.arange(T)[:, None]) & (np.arange(T)[:, None] < spans[1]))
    x = rng.normal(size=(T, B, I)).astype(dtype)
    dy = rng.normal(size=(T, B, H)).astype(dtype)
    results = []
    for filling in (0, np.nan):
        x[idle] = dy[idle] = filling
        state = [np.ones((B, H), dtype) for _ in cell.states]
        y, state_n = np.full((T, B, H), np.nan, dtype), [np.empty_like(s) for s in state]
        packed = kernels.Packed(cell, config, weights)
        tape = kernels.forward(packed, x, state, y, state_n, keep=True, spans=spans, reset=RESET)
        dx, dstate = np.full_like(x, np.nan), [np.empty_like(s) for s in state]
        gradients = kernels.Gradients(packed)
        kernels.backward(tape, dy, state_n, dx, dstate, gradients)
        results.append((y, *state_n, dx, *dstate, *gradients.arrays()))
    for a, b in zip(*results, strict=True):
        assert np.isfinite(a).all()
        assert a.tobytes() == b.tobytes()
