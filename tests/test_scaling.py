"""Mean and deviation of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn._core import scaling
from fastrnn._core.scaling import mean_and_deviation
from fastrnn.forecast.scale import Scale


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_of_weighted_rows_is_that_of_repeated_ones(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(3, 2, (50, 4)).astype(dtype)
    times = rng.integers(1, 5, 50)
    mean, deviation = mean_and_deviation(rows)
    np.testing.assert_allclose(mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(deviation, rows.std(axis=0, dtype=np.float64), rtol=1e-12)
    repeated = mean_and_deviation(rows.repeat(times, axis=0))
    for scale in (1.0, 1e-300, 1e300):
        np.testing.assert_allclose(mean_and_deviation(rows, times * scale), repeated, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [1, 2, 10, 10_000])
@pytest.mark.parametrize("value", [0.0, 14.62, 0.1, -1e30, 1e-30])
def test_a_constant_column_has_deviation_1(value: float, n: int, dtype: Any) -> None:
    rows = np.full((n, 2), value, dtype)
    for weight in (None, np.full(n, 0.3), np.linspace(0.1, 1, n)):
        mean, deviation = mean_and_deviation(rows, weight)
        assert deviation.tolist() == [1, 1]
        np.testing.assert_allclose(mean, rows[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_are_read_part_by_part(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows, weight = rng.normal(3, 2, (50, 4)).astype(dtype), rng.uniform(0.1, 2, 50)
    whole = [mean_and_deviation(rows), mean_and_deviation(rows, weight)]
    for part in (1, 28, 199):
        monkeypatch.setattr(scaling, "_PART", part)
        parts = [mean_and_deviation(rows), mean_and_deviation(rows, weight)]
        np.testing.assert_allclose(parts, whole, rtol=1e-14)


def test_the_bound_is_scikit_learns() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    for n in (10, 100, 1000):
        for noise in 10.0 ** np.arange(-18, -5):
            rows = 14.62 + rng.normal(size=(n, 1)) * noise
            theirs = preprocessing.StandardScaler().fit(rows).scale_
            np.testing.assert_allclose(mean_and_deviation(rows)[1], theirs, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-310, 1e-200, 1e200, 1.7e308])
def test_sizes_whose_squares_are_no_numbers(size: float) -> None:
    rows = np.array([[1.0, 5], [-1, 5], [0.5, 5]])
    mean, deviation = mean_and_deviation(rows * [size, 1])
    expected = mean_and_deviation(rows)
    np.testing.assert_allclose(mean / [size, 1], expected[0], rtol=1e-9)
    np.testing.assert_allclose(deviation / [size, 1], expected[1], rtol=1e-9)


def test_series_are_scaled_by_it() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=50), np.full(50, 14.62)], axis=1)
    exog = np.stack([rng.normal(size=50), np.full(50, 14.62)], axis=1)
    for log in (False, True):
        scale = Scale.of(np.abs(values), exog, log)
        assert scale.deviation[1] == 1
        np.testing.assert_allclose(scale.coefficients[1], 0, atol=1e-12)
        there = scale.to(np.abs(values), exog)
        np.testing.assert_allclose(scale.back(there, exog), np.abs(values))
