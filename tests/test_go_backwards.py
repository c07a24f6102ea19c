"""``go_backwards``: a layer that reads sequences from their ends, as the same on turned ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn

T, B, I, H = 7, 3, 5, 4
LENGTHS = np.array([4, 7, 1])

STACKS = {
    "plain": {},
    "last": {"return_sequences": False},
    "both": {"bidirectional": True},
    "stack": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}


def turned(a: Any, lengths: Any = None) -> np.ndarray:
    """Return (T, B, ...) with each row's steps in the other order, padding after them."""
    a = np.array(a)
    for b, n in enumerate([len(a)] * a.shape[1] if lengths is None else lengths):
        a[:n, b] = a[:n, b][::-1]
    return a


@pytest.fixture(params=STACKS)
def pair(request, cell, backend, make_layer, remade) -> Any:
    """A layer, and the same with ``go_backwards``."""
    layer = make_layer(cell, I, H, **STACKS[request.param])
    return layer, remade(layer, go_backwards=True)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("resets", [False, True])
def test_as_on_turned_sequences(pair, lengths, resets, rng, make_state, same_bits):
    layer, turning = pair
    rows = layer.num_layers * (1 + layer.bidirectional)
    x = rng.normal(size=(T, B, I)).astype("f")
    state = make_state(layer.cell, (rows, B, H), "f")
    calls: dict[str, Any] = {"lengths": lengths}
    if resets:
        calls["reset"] = rng.random((T, B)) < 0.3

    def swapped(a):
        return a.swapaxes(0, 1) if layer.batch_first and a.ndim == 3 else a

    of_turned = calls | {"reset": turned(calls["reset"], lengths)} if resets else calls
    wanted = layer.forward(swapped(turned(x, lengths)), state, **of_turned)
    found = turning.forward(swapped(x), state, **calls)
    assert same_bits(found[:2], wanted[:2])
    assert same_bits(turning(swapped(x), state, **calls), wanted[:2])
    dy = rng.normal(size=found[0].shape).astype("f")
    dx, *rest = layer.backward(wanted[2], dy, state)
    mine, *others = turning.backward(found[2], dy, state)
    assert same_bits(np.array(swapped(mine)), turned(swapped(dx), lengths))
    assert same_bits(tuple(others), tuple(rest))
    assert turning.backward(found[2], dy, input_gradient=False)[0] is None


def test_unbatched(pair, rng, same_bits):
    layer, turning = pair
    x = rng.normal(size=(T, I)).astype("f")
    wanted, found = layer.forward(x[::-1]), turning.forward(x)
    assert same_bits(found[:2], wanted[:2])
    dy = rng.normal(size=found[0].shape).astype("f")
    mine, wanted_dx = turning.backward(found[2], dy)[0], layer.backward(wanted[2], dy)[0]
    np.testing.assert_array_equal(mine, wanted_dx[::-1])


def test_as_an_option(pair):
    layer, turning = pair
    assert turning.go_backwards
    assert "go_backwards=True" in repr(turning)
    assert not layer.go_backwards
    if not layer.bidirectional:
        with pytest.raises(ValueError, match="stream: expected go_backwards=False, got True"):
            turning.stream(B)
    x = np.ones((T, B, I), np.float32)
    x = x.swapaxes(0, 1) if layer.batch_first else x
    with pytest.raises(ValueError, match="another layer, with go_backwards=True"):
        layer.backward(turning.forward(x)[2])
    with pytest.raises(ValueError, match="another layer, with go_backwards=False"):
        turning.backward(layer.forward(x)[2])
    with pytest.raises(AttributeError, match="go_backwards: is fixed"):
        turning.go_backwards = False


def test_in_models(rng, tmp_path, recurrent):
    """In files and quantized too, and with sequences of differing lengths."""
    first = recurrent(I, H, go_backwards=True, seed=1)
    last = recurrent(H, 6, return_sequences=False, go_backwards=True, seed=2)
    model = fastrnn.Sequential([first, last])
    rows = [rng.normal(size=(n, I)).astype("f") for n in LENGTHS]
    y = model.predict(rows)
    for row, alone in zip(rows, y, strict=True):
        np.testing.assert_allclose(model.predict(row[None])[0], alone, atol=1e-6)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "m").predict(rows), y)
    small = fastrnn.quantize(model, calibration=rows)
    np.testing.assert_allclose(small.predict(rows), y, atol=0.1)
    small.save(tmp_path / "q")
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "q").predict(rows), small.predict(rows))
    with pytest.raises(ValueError, match="go_backwards"):
        model.stream()
