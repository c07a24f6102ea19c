"""Batches of no rows: outputs are empty, gradients of weights are zeros, as in torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import Dropout, Embedding, Linear, Sequential, losses

T, I, H = 5, 3, 4


def zeros_of(grads: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> bool:
    """Return whether there is a gradient of zeros for each weight."""
    return grads.keys() == weights.keys() and all(
        g.shape == weights[n].shape and not g.any() for n, g in grads.items()
    )


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("return_sequences", [True, False])
def test_layers(
    cell: Any, dtype: np.dtype, backend: str, options: dict[str, Any], return_sequences: bool,
    make_layer: Any, make_state: Any, options_of: Any,
) -> None:  # fmt: skip
    for more in options_of(cell, 2):
        layer = make_layer(
            cell, I, H, dtype=dtype, return_sequences=return_sequences, **options, **more
        )
        y, state = layer(np.ones((T, 1, I)))
        x, lead = np.empty((T, 0, I)), (T, 0) if return_sequences else (0,)
        for given in ({}, {"lengths": [], "reset": np.empty((T, 0), bool)}):
            got, end = layer(x, **given)
            assert (got.shape, got.dtype) == ((*lead, y.shape[-1]), dtype)
            for checkpoint_every in (None, 2):
                got, end, tape = layer.forward(x, end, **given, checkpoint_every=checkpoint_every)
                ends, ones = (s if isinstance(s, tuple) else (s,) for s in (end, state))
                assert [s.shape for s in ends] == [(len(s), 0, s.shape[-1]) for s in ones]
                dx, _, grads = layer.backward(tape, got, end)
                assert dx.shape == x.shape
                assert zeros_of(grads, layer.parameters())
        with pytest.raises(ValueError, match=r"x: expected shape .* with T >= 1"):
            layer(np.empty((0, 2, I)))
        with pytest.raises(ValueError, match=r"dy: expected shape"):
            layer.backward(tape, np.empty((1, *lead, y.shape[-1])))


def test_batch_first(cell: Any, backend: str, make_layer: Any) -> None:
    layer = make_layer(cell, I, H, batch_first=True)
    y, _, tape = layer.forward(np.empty((0, T, I)))
    assert y.shape == (0, T, H)
    assert layer.backward(tape, y)[0].shape == (0, T, I)


def test_single_steps(cell: Any, dtype: np.dtype, backend: str, make_single: Any) -> None:
    single = make_single(cell, I, H, dtype=dtype)
    state, tape = single.forward(np.empty((0, I)))
    dx, _, grads = single.backward(tape, state)
    assert dx.shape == (0, I)
    assert zeros_of(grads, single.parameters())


def test_functions(
    cell: Any, dtype: np.dtype, backend: str, functions: Any, make_weights: Any
) -> None:
    forward, backward = functions(cell)
    weights = make_weights(cell, I, H, dtype)
    y, _, tape = forward(np.empty((T, 0, I), dtype), None, *weights)
    assert y.shape == (T, 0, H)
    dx, _, grads = backward(tape, y)
    assert dx.shape == (T, 0, I)
    assert zeros_of(grads, dict(zip(grads, weights, strict=True)))


@pytest.mark.parametrize("shape", [(0,), (T, 0), (0, T)])
def test_other_layers(shape: tuple[int, ...], dtype: np.dtype, backend: str) -> None:
    table, linear = Embedding(I, H, dtype=dtype), Linear(I, H, dtype=dtype)
    y, tape = table.forward(np.empty(shape, int))
    assert y.shape == table(np.empty(shape, int)).shape == (*shape, H)
    assert zeros_of(table.backward(tape, y)[1], table.parameters())
    x = np.empty((*shape, I), dtype)
    y, tape = linear.forward(x)
    dx, grads = linear.backward(tape, y)
    assert y.shape == linear(x).shape == (*shape, H)
    assert dx.shape == x.shape
    assert zeros_of(grads, linear.parameters())
    dropout = Dropout(0.5)
    y, dropped = dropout.forward(x)
    assert dropout.backward(dropped, y)[0].shape == x.shape


@pytest.mark.parametrize("loss", losses.NAMES.values(), ids=list(losses.NAMES))
def test_losses(loss: Any, dtype: np.dtype, backend: str) -> None:
    z = np.empty((0, T, 3), dtype)
    target = np.empty((0, T), int) if loss is losses.cross_entropy else np.empty((0, T, 3))
    for weight in (None, np.empty((0, T)), []):
        value, grad = loss.value_and_grad(z, target, weight)
        assert math.isnan(value)
        assert (grad.shape, grad.dtype) == (z.shape, dtype)
    with pytest.raises(ValueError, match="target: expected shape"):
        loss(z, np.empty((1, T, 3), target.dtype))


def model(per_step: bool) -> Sequential:
    recurrent = fastrnn.LSTM(H, H, num_layers=2, dropout=0.5, return_sequences=per_step)
    made = Sequential([Embedding(9, H), recurrent, Dropout(0.5), Linear(H, 2)], seed=0)
    made.compile("adam", "cross_entropy")
    return made


@pytest.mark.parametrize("per_step", [True, False])
def test_models(per_step: bool, backend: str) -> None:
    net, x, shape = model(per_step), np.empty((0, T), int), (0, T, 2) if per_step else (0, 2)
    assert net(x).shape == net(x, lengths=[], reset=np.empty((0, T), bool)).shape == shape
    y, tape = net.forward(x)
    assert y.shape == shape
    dx, grads = net.backward(tape, y)
    assert dx is None
    assert zeros_of(grads, net.parameters())
    assert net.predict(x).shape == net.predict(x, lengths=[]).shape == shape
    nothing = net.predict([])
    assert nothing == [] if per_step else nothing.shape == (0, 2)
    for X, lengths in ((x, None), ([], None), (x, [])):
        for call in (net.fit, net.evaluate):
            with pytest.raises(ValueError, match=r"^X: expected one sequence or more, got none"):
                call(X, np.empty(0, int), lengths=lengths)
        one = np.zeros((1, T), int), np.zeros((1, T) if per_step else 1, int)
        with pytest.raises(ValueError, match=r"^validation_data X: expected one seq"):
            net.fit(*one, validation_data={"X": X, "y": [], "lengths": lengths})
    for made in (net, net.layers[1]):
        with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1"):
            made.stream(0)


def test_torch_does_the_same() -> None:
    torch = pytest.importorskip("torch")
    for name in ("RNN", "LSTM", "GRU"):
        theirs, ours = getattr(torch.nn, name)(I, H, 2), getattr(fastrnn, name)(I, H, 2)
        x = torch.zeros(T, 0, I, requires_grad=True)
        y, _ = theirs(x)
        y.sum().backward()
        mine, _, tape = ours.forward(x.detach())
        dx, _, grads = ours.backward(tape, np.ones_like(mine))
        assert mine.shape == tuple(y.shape)
        assert dx.shape == tuple(x.grad.shape)
        for parameter, p in theirs.named_parameters():
            np.testing.assert_array_equal(p.grad, grads[parameter])
        with pytest.raises(RuntimeError):
            theirs(torch.zeros(0, 2, I))
    functional = torch.nn.functional
    assert math.isnan(functional.mse_loss(torch.zeros(0, 3), torch.zeros(0, 3)))
    assert math.isnan(functional.cross_entropy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)))
