"""Blends and intervals: never worse than naive forecasts, and as wide as errors are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn.forecast import Forecaster, baselines, blend, intervals

stats = pytest.importorskip("scipy.stats")

SMALL: dict[str, Any] = {"window": 12, "steps": 4, "hidden_size": 8, "epochs": 3, "seed": 0}


def walk(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=n).cumsum()


def waves(n: int, seed: int = 0) -> Any:
    t = np.arange(n)
    return 10 + np.sin(np.pi * t / 6) + 0.02 * t + np.random.default_rng(seed).normal(size=n) / 2


# Blends.


@pytest.mark.parametrize("seed", range(3))
def test_what_wanders_is_forecast_by_its_last_value(seed: int) -> None:
    errors = Forecaster(seed=seed).backtest(walk(300, seed), 12, stride=3).mae()
    assert errors["forecaster"] <= 1.02 * errors["naive"]


def test_weights_add_up_and_favour_the_better() -> None:
    model = Forecaster(**SMALL, season=12).fit(waves(150))
    weights = model.weights(20)
    assert list(weights) == ["network", "mean", "naive", "seasonal naive", "seasonal change"]
    np.testing.assert_allclose(sum(weights.values()), 1)
    assert weights["seasonal naive"][5] > weights["naive"][5]
    for name, weight in model.weights(7).items():
        np.testing.assert_array_equal(weight, weights[name][:7])


def test_further_ahead_than_is_held_out() -> None:
    model = Forecaster(**SMALL, season=12).fit(waves(60))
    assert model.predict(500).shape == (500,)
    for weight in model.weights(500).values():
        assert (weight[20:] == weight[20]).all()
    with pytest.raises(ValueError, match=r"at most 16 steps .* got 500 steps, with 0 residuals"):
        model.predict_interval(500)


def test_the_network_alone() -> None:
    model = Forecaster(**SMALL, season=12, calibration_fraction=0).fit(waves(60))
    assert model.weights(2)["network"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="series: expected a longer one, or more to calibrate"):
        model.predict_interval(1)


@pytest.mark.parametrize(("season", "expected"), [(None, "naive"), (5, "seasonal naive")])
def test_too_short_for_weights(season: int | None, expected: str) -> None:
    model = Forecaster(**SMALL, season=season).fit(waves(16))
    assert model.weights(3)[expected].tolist() == [1, 1, 1]
    lag = 1 if season is None else season
    np.testing.assert_allclose(model.predict(1), waves(16)[-lag], rtol=1e-12)
    with pytest.raises(ValueError, match="series: expected a longer one, or more to calibrate"):
        model.predict_interval(1)


@pytest.mark.parametrize("mean", [1.0, 2.0])
def test_weights_by_hand(mean: float) -> None:
    rng = np.random.default_rng(0)
    deviations = np.array([1, mean, 1.05, 4])[:, None, None, None]
    errors = rng.normal(size=(4, 200, 1, 1)) * deviations
    mse = np.square(errors).mean(axis=(1, 2, 3))
    sure = []
    for one in errors[:2]:
        gain = np.square(errors[2]) - np.square(one)
        u = (gain - gain.mean()).ravel()
        lags = np.arange(1, 12)
        overlap = sum((1 - lag / 12) * (u[lag:] @ u[:-lag]) for lag in lags)
        t = gain.sum() / np.sqrt(u @ u + 2 * overlap)
        sure.append((max(t, 0) / stats.t.ppf(0.995, 199)) ** 2)
    assert 0.1 < max(sure) < 0.9
    assert (sure[1] > 0) == (mean == 1)
    doubted, naive = np.array(sure) * mse[:2] ** -3.0, mse[2:] ** -3.0
    expected = [
        *(max(sure) * doubted / doubted.sum()),
        *((1 - max(sure)) * naive / naive.sum()),
    ]
    np.testing.assert_allclose(blend.weights([errors], [1])[:, 0, 0], expected, rtol=1e-3)
    # In two parts, as errors of two series.
    halves = blend.weights([errors[:, :100], errors[:, 100:]], [1, 1])[:, 0, 0]
    np.testing.assert_allclose(halves, expected, atol=0.2)


def test_weights_where_errors_are_unknown_or_zero() -> None:
    errors = np.array([1.0, 3.0, 2.0])[:, None, None, None] * np.ones((3, 20, 4, 1))
    assert blend.weights([errors], [1])[0].ravel().tolist() == [1] * 4
    assert blend.weights([errors[[2, 1, 0]]], [1])[2].ravel().tolist() == [1] * 4
    assert blend.weights([errors[[1, 0, 2]]], [1])[1].ravel().tolist() == [1] * 4
    assert blend.weights([errors[:, :5]], [1])[2].ravel().tolist() == [1] * 4  # too few
    errors[:, :, 2:] = np.nan
    assert blend.weights([errors], [1])[0].ravel().tolist() == [1] * 4
    errors[0] = 0
    assert blend.weights([errors], [1])[0].ravel().tolist() == [1] * 4
    assert blend.weights([np.zeros((4, 20, 1, 1))], [1]).ravel().tolist() == [0, 0, 0.5, 0.5]
    errors = np.ones((4, 20, 1, 1))
    errors[3] = np.nan  # a season that is longer than what is known
    assert blend.weights([errors], [1]).ravel().tolist() == [0, 0, 1, 0]
    assert blend.blended(np.array([[[[2.0]]], [[[np.nan]]]]), np.full((2, 1, 1), 0.5)) == 2


def test_the_mean_counts_further_ahead() -> None:
    """Where errors that do not overlap are too few for a test, as long as it is better."""
    rng = np.random.default_rng(0)
    scale = np.array([2, 1, 1.5])[:, None, None, None] * np.ones((1, 1, 12, 1))
    scale[1, :, 9:] = 3
    mean = blend.weights([scale * rng.normal(size=(3, 40, 12, 1))], [1])[1].ravel()
    assert mean[0] > 0.5
    assert (np.diff(mean[:8]) >= 0).all()
    assert mean[11] == 0


@pytest.mark.parametrize("seed", range(3))
def test_independent_noise_is_forecast_by_its_mean(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=100)
    model = Forecaster(seed=seed).fit(values)
    last, ahead = values[-1], model.predict(12)
    assert np.abs(ahead - values[-20:].mean()).max() < 0.5 * abs(last - values[-20:].mean())


@pytest.mark.parametrize("season", [1, 5, 7.5, 365.25])
def test_naive_forecasts_of_any_season(season: float) -> None:
    values = walk(900)[:, None]
    origins = np.array([800, 850, 900])
    _, said = baselines.forecasts(values, origins, 20, (season,))
    (changed,) = baselines.changes(values, origins, 20, (season,))
    for b, origin in enumerate(origins):
        for h in range(20):
            k = 1
            while origin + h - round(k * season) >= origin:
                k += 1
            then = values[origin + h - round(k * season), 0]
            assert said[b, h, 0] == then
            change = then - values[origin - 1 - round(k * season), 0]
            np.testing.assert_allclose(changed[b, h, 0], values[origin - 1, 0] + change, rtol=1e-12)


def test_changes_keep_level_and_trend() -> None:
    t = np.arange(60)
    values = (5 + 2 * t + 10 * np.sin(np.pi * t / 6))[:, None]
    (said,) = baselines.changes(values, np.array([13, 36, 48]), 12, (12,))
    np.testing.assert_allclose(said[1:, :, 0], [values[36:48, 0], values[48:, 0]], rtol=1e-12)
    assert np.isnan(baselines.changes(values, np.array([12]), 12, (12,))).all()  # no value before


# Intervals.


def test_ranks_of_one_more() -> None:
    """The largest of 9 residuals exceeds a tenth with probability 0.9."""
    residuals = np.array([3.0, -9, 1, 4, -5, 7, 8, -2, 6])
    assert intervals.needed(0.9) == 9
    assert intervals.half_width(residuals, 9, 0.9) == 9
    assert intervals.half_width(residuals, 9, 0.5) == 5
    assert intervals.half_width(residuals, 9, 0.75) == 7.5
    assert [intervals.needed(level) for level in (0.5, 0.8, 0.95, 0.99)] == [1, 4, 19, 99]


def test_fewer_independent_residuals_are_wider() -> None:
    residuals = np.linspace(0, 1, 40)
    one, other = (intervals.half_width(residuals, nu, 0.9) for nu in (40, 4))
    assert other / one == pytest.approx(stats.t.ppf(0.95, 4) / stats.t.ppf(0.95, 40), rel=0.01)


@pytest.mark.parametrize("nu", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_quantiles_of_student(nu: float, level: float) -> None:
    expected = stats.t.ppf((1 + level) / 2, nu)
    assert intervals.student(nu, level) == pytest.approx(expected, rel=0.05 if nu == 2 else 0.02)


def test_independent_residuals() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 1, 1))
    assert intervals.effective(noise, 1)[0, 0] > 120
    # Sums of h successive ones: correlations 1 - l / h, by hand.
    h = 10
    sums = np.convolve(rng.normal(size=2009), np.ones(h), "valid")[:, None, None]
    wide = np.tile(sums, (1, h, 1))
    rho = 1 - np.arange(1, h) / h
    expected = 2000 / (1 + 2 * np.square(rho).sum())
    assert intervals.effective(wide, 1)[-1, 0] == pytest.approx(expected, rel=0.2)
    assert intervals.effective(np.zeros((5, 1, 1)), 1)[0, 0] == 5
    unknown = np.full((5, 2, 1), 1.0)
    unknown[3:, 1] = np.nan
    assert intervals.effective(unknown, 1)[:, 0] == pytest.approx([5 / (1 + 8 / 5 * 2 * 0.8), 3], 1)


def test_coverage() -> None:
    """Nine in ten, of short series too. `benchmarks/forecasts.py coverage` has more of them."""
    inside, last = [], []
    for seed in range(25):
        values = waves(112, seed)
        model = Forecaster(season=12, seed=seed, hidden_size=8, epochs=10).fit(values[:100])
        lower, upper = model.predict_interval(12)
        inside.append((lower <= values[100:]) & (values[100:] <= upper))
        last.append(inside[-1][-1])
    assert 0.85 <= np.mean(inside) <= 0.96
    assert np.mean(last) >= 0.75


def test_wider_further_ahead_and_at_higher_levels() -> None:
    model = Forecaster(**SMALL).fit(walk(400))
    widths = [np.subtract(*model.predict_interval(24, level=level)[::-1]) for level in (0.5, 0.95)]
    assert (widths[0] < widths[1]).all()
    assert 2.5 < widths[1][-1] / widths[1][0] < 8  # the root of 24


@pytest.mark.parametrize(
    ("horizon", "level", "said"),
    [
        (24, 0.9, "horizon: expected at most 16 steps .* 9 held-out residuals; got 24 steps, with"),
        (7, 0.95, "horizon: expected at most 6 steps .* 19 held-out .* 18 residuals at the last"),
        (1, 0.99, "series: expected a longer one, .* takes 99 held-out residuals"),
    ],
)
def test_too_few_residuals(horizon: int, level: float, said: str) -> None:
    model = Forecaster(**SMALL).fit(waves(60))
    with pytest.raises(ValueError, match=said):
        model.predict_interval(horizon, level=level)


def test_long_series_have_one_more_network() -> None:
    model = Forecaster(**SMALL | {"epochs": None, "batch_size": 1}).fit(waves(1000))
    fit: Any = model._fit
    assert [member.stops for member in fit.calibration.members] == [[600]]


@pytest.mark.parametrize("log", [False, True])
def test_floor(log: bool) -> None:
    values = np.random.default_rng(0).poisson(0.5, 80) + (0.01 if log else 0)
    model = Forecaster(**SMALL, floor=0.005, log=log).fit(values + 0.005)
    lower, upper = model.predict_interval(6)
    assert (lower >= 0.005).all()
    assert (model.predict(6) >= 0.005).all()
    assert (upper > 1).all()
    if not log:
        assert lower.min() == 0.005
    backtest = Forecaster(**SMALL, floor=2).backtest(np.full(60, 2.0) + values.max() % 1, 3)
    assert backtest.forecasts["forecaster"].min() >= 2
    with pytest.raises(ValueError, match="series: expected numbers of at least 1, the floor, got"):
        Forecaster(**SMALL, floor=1).fit(values)
