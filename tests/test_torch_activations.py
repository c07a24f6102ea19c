"""Activations and LayerNorm against torch: outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn

torch = pytest.importorskip("torch")
nn = torch.nn

T, B, F = 5, 3, 19
THEIRS = {
    "linear": nn.Identity(),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softmax": nn.Softmax(-1),
    "log_softmax": nn.LogSoftmax(-1),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "softplus": nn.Softplus(threshold=1000),
    "softsign": nn.Softsign(),
    "hard_sigmoid": nn.Hardsigmoid(),
    "hard_tanh": nn.Hardtanh(),
    "thresholded_relu": nn.Threshold(1.0, 0.0),
}


def ours_is_hard(layer):
    return getattr(layer, "function", None) == "hard_sigmoid"


def expect_same(theirs, ours, dtype, rng):
    x = (3 * rng.normal(size=(T, B, F))).astype(dtype)
    x[0, 0, :6] = [0, 1, -1, 6, -6, 30]  # where some have corners
    dy = rng.normal(size=x.shape).astype(dtype)
    given = torch.tensor(x, requires_grad=True)
    expected = theirs(given)
    expected.backward(torch.tensor(dy))
    y, tape = ours.forward(x)
    dx, grads = ours.backward(tape, dy)
    # torch's Hardsigmoid has 1 / 6 in float32.
    eps = max(float(np.finfo(dtype).eps), 2e-9 if ours_is_hard(ours) else 0)
    np.testing.assert_allclose(y, expected.detach(), rtol=8 * eps, atol=16 * eps)
    np.testing.assert_allclose(dx, given.grad, rtol=32 * eps, atol=64 * eps)
    for name, grad in grads.items():
        expected = dict(theirs.named_parameters())[name].grad
        np.testing.assert_allclose(grad, expected, rtol=32 * eps, atol=64 * eps)


@pytest.mark.parametrize("name", THEIRS)
def test_activations(name, backend, dtype, rng):
    expect_same(THEIRS[name], fastrnn.Activation(name), dtype, rng)


@pytest.mark.parametrize(
    "options", [{}, {"bias": False, "eps": 0.1}, {"elementwise_affine": False}]
)
def test_layer_norm(options, backend, dtype, rng):
    theirs = nn.LayerNorm(F, **options, dtype=getattr(torch, dtype.name))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = fastrnn.LayerNorm(F, **options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    expect_same(theirs, ours, dtype, rng)
    assert repr(fastrnn.LayerNorm(F, **options)) == repr(nn.LayerNorm(F, **options))
