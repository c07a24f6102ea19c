"""The reference against central differences in float64: every input and weight of every cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels.cells import WEIGHTS

T, B, I, H = 4, 3, 2, 5
STEP = 1e-3
# Fourth order (Fornberg 1988, table 1): the error is of order STEP**4 = 1e-12.
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


def kinks(x, h0, y, w_ih, w_hh, b_ih, b_hh):
    """Return the arguments of the rectifier."""
    before = np.concatenate([h0[None], y[:-1]])
    bias = sum(b for b in (b_ih, b_hh) if b is not None)
    return x @ w_ih.T + before @ w_hh.T + bias


@pytest.mark.parametrize("bias_hh", [True, False])
@pytest.mark.parametrize("bias_ih", [True, False])
def test_central_differences(cell, functions, make_weights, rng, bias_ih, bias_hh):
    forward, backward = functions(cell)
    single = len(cell.states) == 1

    def draw():
        weights = make_weights(cell, I, H, float, bias_ih=bias_ih, bias_hh=bias_hh)
        inputs = {"x": rng.normal(size=(T, B, I))}
        inputs |= {f"{s}0": rng.uniform(-1, 1, (B, H)) for s in cell.states}
        return inputs | {n: w for n, w in zip(WEIGHTS, weights, strict=True) if w is not None}

    def run(inputs):
        state = tuple(inputs[f"{s}0"] for s in cell.states)
        weights = [inputs.get(n) for n in WEIGHTS]
        y, state_n, tape = forward(inputs["x"], state[0] if single else state, *weights)
        return (y, state_n) if single else (y, *state_n), tape

    with fastrnn.use_backend("reference"):
        inputs = draw()
        outputs, tape = run(inputs)
        if cell.name.endswith("_relu"):
            # Central differences are meaningless across the kink.
            while True:
                into = kinks(
                    inputs["x"], inputs["h0"], outputs[0], *(inputs.get(n) for n in WEIGHTS)
                )
                if abs(into).min() > 10 * STEP:
                    break
                inputs = draw()
                outputs, tape = run(inputs)
            assert 0.2 < (into > 0).mean() < 0.8

        d_outputs = [rng.normal(size=o.shape) for o in outputs]
        # <d output, d output / d entry> for every output and every entry of every input.
        slopes = {n: np.zeros((len(outputs), a.size)) for n, a in inputs.items()}
        for name, array in inputs.items():
            for k, value in enumerate(array.flat):
                for offset, factor in STENCIL:
                    array.flat[k] = value + offset * STEP
                    moved, _ = run(inputs)
                    for j, (d, o) in enumerate(zip(d_outputs, moved, strict=True)):
                        slopes[name][j, k] += factor / STEP * np.vdot(d, o)
                array.flat[k] = value

        for used in itertools.product([False, True], repeat=len(outputs)):
            dy, *dstate = (d if u else None for d, u in zip(d_outputs, used, strict=True))
            dx, d0, grads = backward(tape, dy, dstate[0] if single else tuple(dstate))
            got = {"x": dx, **grads}
            got |= {f"{s}0": d for s, d in zip(cell.states, (d0,) if single else d0, strict=True)}
            assert got.keys() == inputs.keys()
            for name, array in got.items():
                want = (np.array(used) @ slopes[name]).reshape(inputs[name].shape)
                error = abs(array - want).max()
                assert error <= 1e-7 * abs(want).max(), (name, used, error, abs(want).max())
