"""Calls whose arrays the kernels take as they are give the bits of those that are converted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch

T, B, I, H, P = 5, 3, 4, 19, 6  # units of more than a vector


def listed(value: Any) -> Any:
    """Return states as nested lists, which have to be converted."""
    if isinstance(value, tuple):
        return tuple(None if v is None else v.tolist() for v in value)
    return value.tolist()


CASES = [(T, B), (1, 1), (300, 1), (2, 70), (T, B, "last"), (1, 1, "last"), (1, 1, "all options")]


@pytest.fixture(params=CASES, ids=str)
def case(request, cell, dtype, make_layer, options_of, rng) -> tuple[Any, np.ndarray, Any]:
    """A layer, an input and a state."""
    steps, rows, *more = request.param
    options = options_of(cell, P)[-1] if "all options" in more else {}
    layer = make_layer(cell, I, H, dtype=dtype, return_sequences="last" not in more, **options)
    x = rng.normal(size=(steps, rows, I)).astype(dtype)
    return layer, x, layer(x[:1])[1]


def test_calls(backend, case, same_bits):
    layer, x, state = case
    assert same_bits(layer(x), layer(x.tolist()))
    assert same_bits(layer(x, state), layer(x.tolist(), listed(state)))
    turned = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)  # as in a batch-first model
    assert same_bits(layer(turned, state), layer(x, state))
    assert same_bits(layer(x[::2, :, ::-1]), layer(x[::2, :, ::-1].copy()))


@pytest.mark.parametrize("input_gradient", [True, False])
def test_gradients(backend, case, rng, same_bits, input_gradient):
    layer, x, state = case
    y, end, tape = layer.forward(x, state)
    other = layer.forward(x.tolist(), listed(state))
    assert same_bits((y, end), other[:2])
    dy = rng.normal(size=y.shape).astype(y.dtype)
    ends = end if isinstance(end, tuple) else (end,)
    partly = (None, *ends[1:]) if len(ends) > 1 else None
    for d, dend in ((dy, None), (dy, end), (None, end), (dy[..., ::-1], partly), (None, None)):
        got = layer.backward(tape, d, dend, input_gradient=input_gradient)
        to_convert = None if d is None else d.tolist()
        want = layer.backward(
            other[2], to_convert, None if dend is None else listed(dend),
            input_gradient=input_gradient,
        )  # fmt: skip
        if not input_gradient:
            assert got[0] is None
            got, want = got[1:], want[1:]
        assert same_bits(tuple(got), tuple(want))


def test_results_are_new_arrays(backend, case):
    layer, x, state = case
    y, end = layer(x, state)
    arrays = [x, y, *(end if isinstance(end, tuple) else (end,))]
    arrays += state if isinstance(state, tuple) else (state,)
    for i, a in enumerate(arrays):
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in arrays[:i])


def test_what_needs_converting(backend, cell, dtype, make_layer):
    """The kernels leave it to the layer."""
    layer = make_layer(cell, I, H, dtype=dtype)
    kernels = dispatch.kernels(dtype)
    packed = layer._scan_weights[0].packed(kernels)
    x = np.zeros((T, B, I), dtype)
    y, state, tape = kernels.run(packed, x, None, keep=True)
    assert kernels.run(packed, x, state) is not None
    assert kernels.run_back(tape, y, state) is not None
    other = np.float32 if dtype == np.float64 else np.float64
    wrong: list[Any] = [
        x[0], x[..., 1:], x[:0], x[:, :0], x.astype(other), x.tolist(), None,
        x.astype(x.dtype.newbyteorder()), np.ma.array(x), np.zeros((T, B, 2 * I), dtype)[..., ::2],
    ]  # fmt: skip
    for value in wrong:
        assert kernels.run(packed, value, None) is None
    states = state if isinstance(state, tuple) else (state,)
    for s in (states[0][0], states[0][:, 1:], states[0][..., 1:], states[0].astype(other), [1]):
        given = s if len(states) == 1 else (s, *states[1:])
        assert kernels.run(packed, x, given) is None
        assert kernels.run_back(tape, y, given) is None
    assert kernels.run(packed, x, (*states, states[0])) is None
    for value in (y[0], y[1:], y[..., 1:], y.tolist(), y.astype(other)):
        assert kernels.run_back(tape, value, None) is None


def test_other_objects(backend, dtype):
    kernels = dispatch.kernels(dtype)
    with pytest.raises(TypeError):
        kernels.run(None, np.zeros((T, B, I), dtype), None)
    with pytest.raises(TypeError):
        kernels.run_back(None, None, None)


def test_errors_are_those_of_conversion(backend, cell, make_layer):
    layer = make_layer(cell, I, H)
    x = np.zeros((T, B, I), np.float32)
    y, _, tape = layer.forward(x)
    for call, text in (
        (lambda: layer(x[..., 1:]), r"^x: expected shape \(T, B, 4\)"),
        (lambda: layer(x[:0]), r"^x: expected shape \(T, B, 4\)"),
        (lambda: layer(x.astype(complex)), r"^x: expected an array of real numbers"),
        (lambda: layer(x, np.zeros((1, B, H + 1))), r"^state"),
        (lambda: layer.backward(tape, y[1:]), r"^dy: expected shape \(5, 3, 19\)"),
        (lambda: layer.backward(tape, y, 3), r"^dstate"),
        (lambda: layer.backward(tape, y, input_gradient="no"), r"^input_gradient: expected"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            call()
    assert layer(x[:, :0])[0].shape == (T, 0, H)
    last = make_layer(cell, I, H, return_sequences=False)
    _, _, tape = last.forward(x)
    for wrong in (y, y[0, 1:]):
        with pytest.raises(ValueError, match=r"^dy: expected shape \(3, 19\)"):
            last.backward(tape, wrong)


def test_a_precision(backend, rng, same_bits):
    layer = fastrnn.GRU(I, H, matmul_precision="bfloat16", seed=0)
    x = rng.normal(size=(T, B, I)).astype(np.float32)
    assert same_bits(layer(x), layer(x.tolist()))
