"""SciPy as a witness: its functions, its filters, its check of gradients and its L-BFGS."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import layers, losses

optimize, signal, special = map(
    pytest.importorskip, ("scipy.optimize", "scipy.signal", "scipy.special")
)

EXAMPLE = Path(__file__).parent.parent / "examples" / "lbfgs.py"

#: Of float64: about 8 units in the last place.
ULPS = 2e-15


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("sigmoid", special.expit),
        ("softmax", lambda x: special.softmax(x, axis=-1)),
        ("softplus", lambda x: -special.log_expit(-x)),
        ("elu", lambda x: np.where(x > 0, x, special.expm1(x))),
        ("softsign", lambda x: x / (1 + np.abs(x))),
        ("tanh", lambda x: special.expm1(2 * x) / (special.expm1(2 * x) + 2)),
    ],
)
def test_activations(backend, name, function) -> None:
    x = np.random.default_rng(0).normal(0, 3, (11, 7, 5))
    mapped = fastrnn.Activation(name)(x)
    np.testing.assert_allclose(mapped, function(x), rtol=4 * ULPS, atol=4 * ULPS)


def test_losses(backend) -> None:
    rng = np.random.default_rng(0)
    z, classes, t = rng.normal(0, 3, (11, 5)), rng.integers(5, size=11), rng.normal(size=(11, 5))
    picked = special.log_softmax(z, axis=1)[np.arange(11), classes]
    assert losses.cross_entropy(z, classes) == pytest.approx(-picked.mean(), rel=4 * ULPS)
    bits = t > 0
    expected = -np.where(bits, special.log_expit(z), special.log_expit(-z)).mean()
    assert losses.binary_cross_entropy(z, bits) == pytest.approx(expected, rel=4 * ULPS)
    loss = losses.Huber(delta=0.7)(z, t)
    assert loss == pytest.approx(special.huber(0.7, z - t).mean(), rel=4 * ULPS)


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.IndRNN])
def test_a_filter_of_order_one_is_a_linear_network(backend, kind) -> None:
    """Exactly: all products and sums of these numbers are numbers of float64."""
    x = np.random.default_rng(0).integers(-9, 10, (20, 3, 1)).astype(np.float64)
    net = kind(1, 1, activations="affine", bias=False, dtype=np.float64)
    weight_hh = [-0.25] if kind is fastrnn.IndRNN else [[-0.25]]
    net.load_state_dict({"weight_ih_l0": [[3.0]], "weight_hh_l0": weight_hh})
    y, h = net(x)
    expected = signal.lfilter([3.0], [1.0, 0.25], x, axis=0)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(h[0], expected[-1])
    stream = net.stream(3)
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), expected)


def test_a_filter_of_order_two_is_a_linear_network(backend) -> None:
    """With its companion matrix, exactly; and with its initial conditions."""
    x = np.random.default_rng(0).integers(-9, 10, (18, 5, 1)).astype(np.float64)
    net = fastrnn.RNN(1, 2, activations="affine", bias=False, dtype=np.float64)
    net.load_state_dict(
        {"weight_ih_l0": [[2.0], [0.0]], "weight_hh_l0": [[0.5, -0.25], [1.0, 0.0]]}
    )
    b, a = [2.0], [1.0, -0.5, 0.25]
    np.testing.assert_array_equal(net(x)[0][..., :1], signal.lfilter(b, a, x, axis=0))
    before = np.array([4.0, -8.0])  # y[-1], y[-2]
    start = np.tile(signal.lfiltic(b, a, before)[:, None, None], (1, 5, 1))
    expected, _ = signal.lfilter(b, a, x, axis=0, zi=start)
    state = np.tile(before, (1, 5, 1))
    np.testing.assert_array_equal(net(x, state)[0][..., :1], expected)


@pytest.mark.parametrize("family", layers.RECURRENT)
def test_check_grad(backend, family) -> None:
    """Of all weights of a model at once."""
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(3, 7, 2)), rng.normal(size=(3, 7, 1))
    recurrent = layers.RECURRENT[family](2, 4, num_layers=2, dtype=np.float64)
    model = fastrnn.Sequential([recurrent, fastrnn.Linear(4, 1, dtype=np.float64)], seed=0)
    names = {n: w.shape for n, w in model.parameters().items()}
    ends = np.cumsum([np.prod(shape) for shape in names.values()])

    def gradients(vector: np.ndarray) -> tuple[float, np.ndarray]:
        parts = np.split(vector, ends[:-1])
        model.load_state_dict(
            {n: p.reshape(s) for (n, s), p in zip(names.items(), parts, strict=True)}
        )
        y, tape = model.forward(x)
        loss, dy = losses.mse.value_and_grad(y, target)
        _, grads = model.backward(tape, dy)
        return loss, np.concatenate([grads[n].ravel() for n in names])

    start = rng.normal(0, 0.5, ends[-1])
    error = optimize.check_grad(
        lambda v: gradients(v)[0], lambda v: gradients(v)[1], start, epsilon=1e-7
    )
    assert error < 2e-6  # of forward differences


@pytest.mark.skipif(not EXAMPLE.exists(), reason="no examples beside these tests")
def test_training_with_lbfgs(tmp_path: Path) -> None:
    """It ends below what Adam reaches by as many gradients."""
    process = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    loss = {n: float(v) for n, v in re.findall(r"^(\S+): loss (\S+)", process.stdout, re.MULTILINE)}
    assert loss["L-BFGS"] < loss["Adam"] / 5
