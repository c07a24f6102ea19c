"""Cross-entropy: its value, its gradient, and numbers that are hard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import losses
from fastrnn.losses import cross_entropy


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (2, 3, 2)])
def test_gradient_by_central_differences(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    z = rng.standard_normal((*shape, 5)) * 3
    target = rng.integers(0, 5, shape)
    value, grad = cross_entropy.value_and_grad(z, target)
    assert value == cross_entropy(z, target)
    assert grad.shape == z.shape
    for i in np.ndindex(z.shape):
        d = np.zeros_like(z)
        d[i] = 1e-5
        numeric = (cross_entropy(z + d, target) - cross_entropy(z - d, target)) / 2e-5
        assert abs(grad[i] - numeric) < 1e-9


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
def test_large_logits_are_no_trouble(dtype: Any) -> None:
    big = np.finfo(dtype).max / 4
    z = np.array([[big, 0, -big], [-1e4, -1e4, -1e4], [-np.inf, 0, 0]], dtype)
    value, grad = cross_entropy.value_and_grad(z, [0, 1, 2])
    assert value == pytest.approx((np.log(3) + np.log(2)) / 3)
    assert grad.dtype == dtype
    np.testing.assert_allclose(
        grad * 3, [[0, 0, 0], [1 / 3, -2 / 3, 1 / 3], [0, 0.5, -0.5]], rtol=1e-6
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(wrong: float) -> None:
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
        (np.zeros((0, 3)), np.zeros(0, int), ValueError, "output: expected shape"),
        (1.0, 0, ValueError, "output: expected shape"),
        (np.zeros((2, 3), complex), [0, 1], TypeError, "output: expected an array of real"),
    ],
)
def test_arguments_are_checked(
    output: Any, target: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cross_entropy(output, target)


def test_repr() -> None:
    assert repr(losses.CrossEntropy()) == "CrossEntropy()"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_torch(dtype: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    z = (rng.standard_normal((20, 7)) * 5).astype(dtype)
    target = rng.integers(0, 7, 20)
    theirs = torch.from_numpy(z).requires_grad_()
    expected = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(target))
    expected.backward()
    value, grad = cross_entropy.value_and_grad(z, target)
    tight = {"rtol": 20 * np.finfo(dtype).eps, "atol": 2 * np.finfo(dtype).eps}
    np.testing.assert_allclose(value, expected.item(), **tight)
    np.testing.assert_allclose(grad, theirs.grad.numpy(), **tight)
