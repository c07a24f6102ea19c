"""Losses: values, gradients, weights, and extreme numbers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import losses
from fastrnn.losses import cross_entropy

#: Our loss, torch.nn's by name and options, and a target for outputs z.
PAIRS = {
    "mse": (losses.mse, "MSELoss", {}),
    "mae": (losses.mae, "L1Loss", {}),
    "huber": (losses.huber, "HuberLoss", {}),
    "huber-delta": (losses.Huber(2.5), "HuberLoss", {"delta": 2.5}),
    "cross_entropy": (losses.cross_entropy, "CrossEntropyLoss", {}),
    "binary_cross_entropy": (losses.binary_cross_entropy, "BCEWithLogitsLoss", {}),
}


def drawn(
    loss: losses.Loss, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs of `shape`, and matching targets."""
    z = (rng.standard_normal(shape) * 3).astype(dtype)
    if isinstance(loss, losses.CrossEntropy):
        return z, rng.integers(0, shape[-1], shape[:-1])
    if isinstance(loss, losses.BinaryCrossEntropy):
        return z, rng.uniform(0, 1, shape).astype(dtype)
    return z, (rng.standard_normal(shape) * 3).astype(dtype)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 2, 5), (2, 3, 2, 5)])
@pytest.mark.parametrize("weighted", [0, 1, 2])
def test_gradient_by_central_differences(
    name: str, shape: tuple[int, ...], weighted: int, rng: np.random.Generator, backend: str
) -> None:
    loss = PAIRS[name][0]
    z, target = drawn(loss, shape, rng)
    weight = rng.uniform(0.5, 2, target.shape[: weighted - 1]) if weighted else None
    value, grad = loss.value_and_grad(z, target, weight)
    assert value == loss(z, target, weight)
    assert grad.shape == z.shape
    for i in np.ndindex(z.shape):
        d = np.zeros_like(z)
        d[i] = 1e-5
        numeric = (loss(z + d, target, weight) - loss(z - d, target, weight)) / 2e-5
        assert abs(grad[i] - numeric) < 1e-9


@pytest.mark.parametrize("name", PAIRS)
def test_weights_are_repetitions(name: str, rng: np.random.Generator, backend: str) -> None:
    loss = PAIRS[name][0]
    z, target = drawn(loss, (4, 3, 2), rng)
    times = np.array([2, 0, 1, 3])
    value, grad = loss.value_and_grad(z, target, times)
    repeated, of_each = loss.value_and_grad(z.repeat(times, 0), target.repeat(times, 0))
    assert value == pytest.approx(repeated, rel=1e-14)
    np.testing.assert_allclose(grad[2], of_each[2], rtol=1e-13)
    np.testing.assert_allclose(grad[3] / 3, of_each[3], rtol=1e-13)
    assert not grad[1].any()
    per_step = np.broadcast_to(times[:, None], (4, 3))
    assert loss(z, target, per_step) == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("name", PAIRS)
def test_what_has_weight_0_counts_for_nothing(
    name: str, rng: np.random.Generator, backend: str
) -> None:
    loss = PAIRS[name][0]
    z, target = drawn(loss, (3, 2), rng)
    weight = np.array([1.0, 0.0, 2.0])[: len(target)]
    expected = loss(z[::2], target[::2], weight[::2])
    z[1] = np.nan
    value, grad = loss.value_and_grad(z, target, weight)
    assert value == pytest.approx(expected, rel=1e-14)
    assert not grad[1].any()
    value, grad = loss.value_and_grad(z, target, np.zeros(3))
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_of_weight_0_may_be_anything(dtype: Any, backend: str) -> None:
    z = np.array([[0.3], [1.0], [np.nan]], dtype)
    expected = np.log1p(np.exp(-1.0))
    for wrong in (np.nan, -1.0, 1e9, np.inf):
        target = np.array([[wrong], [1.0], [wrong]], dtype)
        value, grad = losses.binary_cross_entropy.value_and_grad(z, target, [0, 1, 0])
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_array_equal(grad[[0, 2]], 0)
    z = np.array([[0.3, 1], [1, 2], [np.nan, 0]], dtype)
    for wrong_class in (-100, 2, 10**15, -(2**62)):
        target = np.array([wrong_class, 1, wrong_class])
        value, grad = cross_entropy.value_and_grad(z, target, [0, 1, 0])
        assert value == pytest.approx(expected, rel=1e-6)
        assert cross_entropy(z, target, [0, 1, 0]) == value
        np.testing.assert_array_equal(grad[[0, 2]], 0)
        assert cross_entropy(z, target, [0, 0, 0]) == 0
        with pytest.raises(ValueError, match=f"target: expected .* got {wrong_class}"):
            cross_entropy(z, target, [0, 1, 1])
    with pytest.raises(ValueError, match=r"target: expected numbers in \[0, 1\], got 7"):
        losses.binary_cross_entropy(z, np.full((3, 2), 7.0), [0, 0, 2])


def test_targets_of_weight_0_in_a_sequence(backend: str) -> None:
    """Weights of one or more leading axes."""
    z, target = np.zeros((2, 3, 4)), np.array([[0, 9, 1], [9, 9, 9]])
    weight = np.array([[1, 0, 1], [0, 0, 0]])
    assert cross_entropy(z, target, weight) == pytest.approx(np.log(4))
    target[0, 1] = 3
    assert cross_entropy(z, target, [1, 0]) == pytest.approx(np.log(4))
    with pytest.raises(ValueError, match=r"target: expected .* got 9"):
        cross_entropy(z, target, [0, 1])


@pytest.mark.parametrize(
    "kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", "q"]
)
def test_targets_of_any_kind_of_whole_number(kind: str, backend: str) -> None:
    z = np.log(np.arange(1, 6.0)) * np.ones((4, 1))
    target = np.array([4, 0, 2, 1], kind)
    expected = np.mean(-np.log(np.array([5, 1, 3, 2]) / 15))
    assert cross_entropy(z, target) == pytest.approx(expected)
    assert cross_entropy(z, np.repeat(target, 2)[::2]) == pytest.approx(expected)
    target[1] = np.iinfo(target.dtype).max
    with pytest.raises(ValueError, match=r"target: expected whole numbers in 0\.\.4, got \d+"):
        cross_entropy(z, target)
    # Would be 0 in a narrower type.
    with pytest.raises(ValueError, match=r"target: expected whole numbers in 0\.\.4, got \d+"):
        cross_entropy(z, np.array([4, 0, 2, 2**63 + 1], np.uint64))


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_are_checked(weight: float) -> None:
    with pytest.raises(ValueError, match="weight: expected finite numbers >= 0"):
        losses.mse(np.zeros(2), np.zeros(2), [1.0, weight])
    with pytest.raises(ValueError, match=r"weight: expected shape \(2,\), got \(3,\)"):
        losses.mse(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3))


def test_value_of_the_definition(rng: np.random.Generator) -> None:
    z = rng.standard_normal((6, 4))
    target = rng.integers(0, 4, 6)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected = -np.log(p[np.arange(6), target]).mean()
    assert cross_entropy(z, target) == pytest.approx(expected, rel=1e-14)
    assert cross_entropy(z.astype(np.float32), target) == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(z.tolist(), target.tolist()) == pytest.approx(expected, rel=1e-14)
    assert cross_entropy(np.zeros((3, 8)), [0, 1, 2]) == pytest.approx(np.log(8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_logits_are_no_trouble(dtype: Any, backend: str) -> None:
    big = np.finfo(dtype).max / 4
    z = np.array([[big, 0, -big], [-1e4, -1e4, -1e4], [-np.inf, 0, 0]], dtype)
    value, grad = cross_entropy.value_and_grad(z, [0, 1, 2])
    assert value == pytest.approx((np.log(3) + np.log(2)) / 3)
    assert grad.dtype == dtype
    np.testing.assert_allclose(
        grad * 3, [[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [0, 0.5, -0.5]], rtol=1e-6
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(wrong: float, backend: str) -> None:
    z = np.zeros((3, 4))
    z[1, 2] = wrong
    value, grad = cross_entropy.value_and_grad(z, [0, 1, 2])
    assert np.isnan(value)
    np.testing.assert_array_equal(np.isnan(grad).any(-1), [False, True, False])


def test_arguments_stay_as_they_are(rng: np.random.Generator) -> None:
    z, target = rng.standard_normal((3, 4)), np.array([1, 2, 3])
    before = z.copy()
    cross_entropy.value_and_grad(z, target)
    np.testing.assert_array_equal(z, before)


@pytest.mark.parametrize(
    ("output", "target", "error", "message"),
    [
        (np.zeros((2, 3)), [0, 3], ValueError, r"target: expected whole numbers in 0\.\.2, got 3"),
        (np.zeros((2, 3)), [-1, 0], ValueError, r"target: expected .* got -1"),
        (np.zeros((2, 3)), [0, 1, 2], ValueError, r"target: expected shape \(2,\), got \(3,\)"),
        (np.zeros((2, 3)), [0.0, 1.0], TypeError, "target: expected an array of whole numbers"),
        (np.zeros((3, 0)), np.zeros(3, int), ValueError, "output: expected shape"),
        (
            np.zeros((2, 3)),
            np.eye(3)[:2],
            ValueError,
            r"one-hot rows, .*: pass target.argmax\(-1\)",
        ),
        (np.zeros((2, 3)), np.eye(3, dtype=int)[:2], ValueError, "got one-hot rows"),
        (np.zeros((2, 3)), np.full((2, 3), 0.5), ValueError, "soft labels are not supported"),
        (1.0, 0, ValueError, "output: expected shape"),
        (np.zeros((2, 3), complex), [0, 1], TypeError, "output: expected an array of real"),
    ],
)
def test_arguments_are_checked(
    output: Any, target: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(output, target)


@pytest.mark.parametrize("loss", losses.NAMES.values(), ids=list(losses.NAMES))
def test_a_loss_stays_as_it_was_made(loss: losses.Loss) -> None:
    before = repr(loss)
    for name in ("delta", "weight", "reduction", "_kernel"):
        with pytest.raises(AttributeError, match=name):
            setattr(loss, name, -1.0)
    assert repr(loss) == before
    again = pickle.loads(pickle.dumps(loss))
    assert type(again) is type(loss)
    assert repr(again) == repr(copy.deepcopy(loss)) == before


def test_a_loss_of_ones_own() -> None:
    class Half(losses.MSE):
        def __init__(self, note: str) -> None:
            self.note = note

        def compute(self, z: Any, t: Any, w: Any) -> tuple[float, Any]:
            value, grad = super().compute(z, t, w)
            return value / 2, grad / 2

    loss = Half("a")
    loss.note = "b"
    value, grad = loss.value_and_grad([1.0, 3.0], [0.0, 0.0], [1, 0])
    assert (value, grad.tolist()) == (0.5, [1, 0])
    assert repr(loss) == "Half(note='b')"


def test_repr() -> None:
    assert repr(losses.CrossEntropy()) == "CrossEntropy()"
    assert repr(losses.Huber(2)) == "Huber(delta=2.0)"


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_against_torch(
    name: str, dtype: str, scale: float, rng: np.random.Generator, backend: str
) -> None:
    torch = pytest.importorskip("torch")
    loss, theirs_name, options = PAIRS[name]
    z, target = drawn(loss, (20, 7), rng, dtype)
    z *= z.dtype.type(scale)
    theirs = torch.from_numpy(z).requires_grad_()
    expected = getattr(torch.nn, theirs_name)(**options)(theirs, torch.from_numpy(target))
    expected.backward()
    value, grad = loss.value_and_grad(z, target)
    tight = {"rtol": 20 * np.finfo(dtype).eps, "atol": 2 * np.finfo(dtype).eps}
    np.testing.assert_allclose(value, expected.item(), **tight)
    np.testing.assert_allclose(grad, theirs.grad.numpy(), **tight)
    assert grad.dtype == dtype


#: Rows below, at and above a vector, and longer than a chain of terms.
@pytest.mark.parametrize("V", [1, 2, 15, 16, 65, 1000])
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("weighted", [None, (30,), (30, 3)])
def test_kernels_against_the_reference(
    name: str, V: int, weighted: Any, dtype: Any, compiled: str, rng: np.random.Generator
) -> None:
    loss = PAIRS[name][0]
    z, target = drawn(loss, (30, 3, V), rng, dtype)
    weight = None if weighted is None else rng.integers(0, 3, weighted)
    value, grad = loss.value_and_grad(z, target, weight)
    with fastrnn.use_backend("reference"):
        expected, grad_ref = loss.value_and_grad(z, target, weight)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value, expected, rtol=10 * eps)
    np.testing.assert_allclose(grad, grad_ref, rtol=20 * eps, atol=eps / 10)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_as_in_the_reference(
    name: str, wrong: float, compiled: str, rng: np.random.Generator
) -> None:
    loss = PAIRS[name][0]
    z, target = drawn(loss, (40, 35), rng)
    z[3, 0] = z[5, 20] = z[39, 34] = wrong
    value, grad = loss.value_and_grad(z, target)
    with fastrnn.use_backend("reference"):
        expected, grad_ref = loss.value_and_grad(z, target)
    np.testing.assert_allclose(value, expected)
    np.testing.assert_allclose(grad, grad_ref, rtol=1e-13, atol=1e-17)


def test_binary_cross_entropy_of_large_logits() -> None:
    value, grad = losses.binary_cross_entropy.value_and_grad([1e4, -1e4, 1e4], [1, 0, 0])
    assert value == pytest.approx(1e4 / 3)
    np.testing.assert_allclose(grad * 3, [0, 0, 1])
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"target: expected numbers in \[0, 1\], got "):
            losses.binary_cross_entropy([0.0], [wrong])


def test_get() -> None:
    assert losses.get("huber") is losses.huber
    assert losses.get(losses.mae) is losses.mae
    with pytest.raises(ValueError, match=r"loss: expected one of 'mse', .* got 'hinge'"):
        losses.get("hinge")
    with pytest.raises(TypeError, match="loss: expected a name, a Loss or a function, got int"):
        losses.get(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy", "cross_entropy"])
def test_sequences_of_weight_0_in_fit(
    name: str, ragged: bool, per_step: bool, backend: str, rng: np.random.Generator
) -> None:
    weight = np.array([1.0, 0, 1, 1, 0, 2])
    X: Any = rng.standard_normal((6, 5, 3))
    y = rng.integers(0, 2, (6, 5) if per_step else 6)
    wrong = y.copy() if name == "cross_entropy" else y[..., None].astype(float)
    wrong[weight == 0] = -100 if name == "cross_entropy" else np.nan
    runs, outputs = [], 2 if name == "cross_entropy" else 1
    for target in (y if name == "cross_entropy" else y[..., None].astype(float), wrong):
        given: Any = target
        if ragged:
            X = [x[: 3 + i % 3] for i, x in enumerate(X)]
            given = [t[: 3 + i % 3] for i, t in enumerate(target)] if per_step else target
        model = fastrnn.Sequential(
            [fastrnn.GRU(3, 4, return_sequences=per_step), fastrnn.Linear(4, outputs)],
            seed=0,
        )
        model.compile("adam", name)
        runs.append(model.fit(X, given, sample_weight=weight, shuffle=False, verbose=0).history)
    assert runs[0] == runs[1]
    assert np.isfinite(runs[0]["loss"]).all()
    if name != "mse":
        with pytest.raises(ValueError, match=r"^y: expected"):
            model.fit(X, given, shuffle=False, verbose=0)


def test_targets_may_have_an_axis_of_one(rng: np.random.Generator) -> None:
    z, target = rng.standard_normal((3, 4, 5)), rng.integers(0, 5, (3, 4))
    value, grad = cross_entropy.value_and_grad(z, target)
    again, same = cross_entropy.value_and_grad(z, target[..., None])
    assert value == again
    np.testing.assert_array_equal(grad, same)
