"""Forecasts: better than naive ones on real series, without lookahead, and their intervals."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import model_file
from fastrnn.forecast import Backtest, Forecaster
from fastrnn.models.estimators import CELLS
from fastrnn.optim import Adam

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
OLD = Path(__file__).parent / "data"
SMALL: dict[str, Any] = {"window": 12, "steps": 4, "hidden_size": 8, "epochs": 3, "seed": 0}


def series(n: int = 120, seed: int = 0) -> Any:
    """Return two series with a trend, a season of 12 and noise."""
    t = np.arange(n)
    noise = np.random.default_rng(seed).normal(0, 0.1, (n, 2))
    return np.stack([10 + np.sin(np.pi * t / 6), 100 + t + 5 * np.cos(np.pi * t / 6)], 1) + noise


def test_progress_is_a_line_for_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    Forecaster(**SMALL).fit(series()[:, 0], verbose=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line[:11] for line in lines] == [f"network {i}/4" for i in range(1, 5)]
    assert all("loss" in line for line in lines)
    Forecaster(**SMALL).fit(series()[:, 0], verbose=2)
    assert [line[:9] for line in capsys.readouterr().err.splitlines()] == [
        f"epoch {i}/3" for i in (1, 2, 3)
    ] * 4


@pytest.mark.parametrize(
    ("file", "season"),
    [("airline-passengers", 12), ("monthly-sunspots", 132), ("daily-min-temperatures", 365)],
)
def test_better_than_naive(file: str, season: int) -> None:
    """One step ahead, and over twelve."""
    path = DATA / f"{file}.csv"
    if not path.exists():
        pytest.skip(f"no {path}")
    with path.open() as lines:
        values = [float(row[1]) for row in [*csv.reader(lines)][1:]]
    # The reference gives the same numbers, but takes ten times as long.
    for seed in range(1 if fastrnn.backend() == "reference" else 3):
        backtest = Forecaster(season=season, seed=seed).backtest(values, 12)
        assert backtest.forecasts.keys() == {"forecaster", "naive", "seasonal naive"}
        first = {name: forecasts[:, :1] for name, forecasts in backtest.forecasts.items()}
        for of in (backtest, Backtest(backtest.origins, backtest.actual[:, :1], first)):
            for errors in (of.mae(), of.rmse()):
                assert errors["forecaster"] < min(errors["naive"], errors["seasonal naive"])


def test_several_series_at_once() -> None:
    values = series()
    backtest = Forecaster(window=24, season=12, seed=0).backtest(values)
    for errors in (backtest.mae(), backtest.rmse()):
        assert errors["forecaster"].shape == (2,)
        assert (errors["forecaster"] < errors["naive"] / 2).all()
    assert backtest.actual.shape == (24 - 12 + 1, 12, 2)
    assert str(backtest).count("\n") == 6
    assert Forecaster(**SMALL).fit(values).predict(7).shape == (7, 2)


def test_naive_forecasts_against_a_loop() -> None:
    y = series()[:, 0]
    backtest = Forecaster(**SMALL, season=5).backtest(y, 7, test_fraction=0.3, stride=3)
    assert backtest.origins.tolist() == list(range(120 - 36, 120 - 7 + 1, 3))
    for i, origin in enumerate(backtest.origins):
        for h in range(7):
            before = origin + h - 5
            while before >= origin:
                before -= 5
            assert backtest.actual[i, h] == y[origin + h]
            assert backtest.forecasts["naive"][i, h] == y[origin - 1]
            assert backtest.forecasts["seasonal naive"][i, h] == y[before]
    errors = backtest.forecasts["forecaster"] - backtest.actual
    assert backtest.mae()["forecaster"] == pytest.approx(np.mean(np.abs(errors)))
    assert backtest.rmse()["forecaster"] == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_backtest_does_not_look_ahead() -> None:
    """Values after an origin change neither its forecast nor the training."""
    y = series()[:, 0]
    changed = y.copy()
    changed[110:] += 50
    first, second = (Forecaster(**SMALL, season=12).backtest(s, 4) for s in (y, changed))
    known = first.origins <= 110
    for name, forecast in first.forecasts.items():
        np.testing.assert_array_equal(forecast[known], second.forecasts[name][known])
        if name != "seasonal naive":
            assert (forecast[~known] != second.forecasts[name][~known]).any()


def test_backtest_is_what_predict_says() -> None:
    y = series()
    model = Forecaster(**SMALL, season=12)
    backtest = model.backtest(y, 6)
    fitted = Forecaster(**SMALL, season=12).fit(y[: backtest.origins[0]])
    for i, origin in enumerate(backtest.origins):
        expected = fitted.predict(6, history=y[:origin])
        np.testing.assert_allclose(backtest.forecasts["forecaster"][i], expected, rtol=1e-5)
    again = model.fit(y).backtest(horizon=6)
    np.testing.assert_array_equal(again.forecasts["forecaster"], backtest.forecasts["forecaster"])


def test_backtest_leaves_the_forecaster_as_it_was() -> None:
    model = Forecaster(**SMALL)
    model.backtest(series())
    with pytest.raises(ValueError, match="call fit first"):
        model.predict(1)


def test_longer_forecasts_go_on_from_their_own() -> None:
    y = series()[:, 0]
    model = Forecaster(**SMALL, season=12, calibration_fraction=0).fit(y)
    long = model.predict(11)
    np.testing.assert_array_equal(long[:4], model.predict(4))
    np.testing.assert_array_equal(long[:3], model.predict(3))
    expected = model.predict(4, history=[*y, *long[:4]])
    np.testing.assert_allclose(long[4:8], expected, rtol=1e-5)


@pytest.mark.parametrize("log", [False, True])
def test_units_do_not_matter(log: bool) -> None:
    y = series()[:, 1]
    small, large = (
        Forecaster(**SMALL, log=log).fit(values).predict_interval(5) for values in (y, 1000 * y)
    )
    np.testing.assert_allclose(np.multiply(small, 1000), large, rtol=1e-4)


def test_the_same_seed_the_same_bits() -> None:
    y = series()
    first, second = (Forecaster(**SMALL).fit(y) for _ in range(2))
    again = pickle.loads(pickle.dumps(first))
    for model in (second, again):
        np.testing.assert_array_equal(first.predict(9), model.predict(9))
        np.testing.assert_array_equal(first.predict_interval(9), model.predict_interval(9))


def test_intervals_hold_what_they_promise() -> None:
    """About nine in ten of 400 later values are within the interval."""
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(1000) / 3) + rng.normal(0, 0.3, 1000)
    model = Forecaster(window=20, steps=2, hidden_size=8, seed=0).fit(y[:600])
    inside, widths = [], []
    for origin in range(600, 1000, 2):
        lower, upper = model.predict_interval(2, level=0.9, history=y[:origin])
        inside.append((lower < y[origin : origin + 2]) & (y[origin : origin + 2] < upper))
        widths.append(upper - lower)
    assert 0.85 < np.mean(inside) < 0.95
    assert 0.9 < np.mean(widths) < 1.3  # 2 * 1.645 * 0.3 for the noise alone
    narrow = np.subtract(*model.predict_interval(2, level=0.5)[::-1])
    assert (narrow < np.mean(widths, axis=0) / 2).all()


def test_a_constant_series_stays_what_it_is() -> None:
    model = Forecaster(**SMALL).fit(np.full(60, 7.0))
    np.testing.assert_allclose(model.predict(5), 7, atol=2)


def test_ctrl_c_leaves_no_half_trained_net(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Adam.apply

    def apply(self: Any, *args: Any) -> None:
        if self.steps == 5:
            raise KeyboardInterrupt
        usual(self, *args)

    monkeypatch.setattr(Adam, "apply", apply)
    model = Forecaster(**SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.fit(series())
    with pytest.raises(ValueError, match="call fit first"):
        model.predict(1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Forecaster("transformer"), "cell: expected one of"),
        (lambda: Forecaster(window=0), "window: expected a whole number of at least 1"),
        (lambda: Forecaster(season=-1), "season: expected"),
        (lambda: Forecaster(dropout=1), "dropout: expected"),
        (lambda: Forecaster(seed=-1), "seed: expected"),
        (
            lambda: Forecaster(**SMALL).fit(np.ones(15)),
            r"series: expected at least 16 values \(window \+ steps\), got 15",
        ),
        (lambda: Forecaster(**SMALL).fit(np.ones((9, 9, 9))), r"series: expected shape \(n,\) or"),
        (lambda: Forecaster(**SMALL).fit([1.0] * 20 + [np.nan]), "finite numbers, got nan at pos"),
        (lambda: Forecaster(**SMALL, log=True).fit(np.arange(30)), "above 0, for log, got 0.0"),
        (
            lambda: Forecaster(**SMALL).fit(np.arange(30) * 1e300),
            "with a finite standard deviation",
        ),
        (lambda: Forecaster(**SMALL).predict(1), "Forecaster: expected a fitted one; call fit"),
        (lambda: Forecaster(**SMALL).fit(series()).predict(0), "horizon: expected"),
        (lambda: Forecaster(**SMALL).fit(series()).predict(1, history=np.ones(20)), "history: exp"),
        (
            lambda: Forecaster(**SMALL).fit(series()).predict_interval(41),
            "horizon: expected at most 40",
        ),
        (lambda: Forecaster(**SMALL).fit(series()).predict_interval(1, level=1), "level: expected"),
        (lambda: Forecaster(**SMALL, season=99).backtest(series()), "series: expected a season"),
        (lambda: Forecaster(**SMALL).backtest(series(), stride=0), "stride: expected"),
        (lambda: Forecaster(**SMALL).backtest(series()[:5], 4), "series: expected at least 16"),
    ],
)
def test_refused(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


# Files.


@pytest.mark.parametrize(
    "options", [{"cell": cell} for cell in CELLS] + [{"season": 5, "log": True, "num_layers": 2}]
)
@pytest.mark.parametrize("columns", [0, slice(None)])
def test_comes_back_from_its_file(options: dict[str, Any], columns: Any, tmp_path: Path) -> None:
    model = Forecaster(**SMALL | {"hidden_size": np.int64(8)}, **options).fit(series()[:, columns])
    model.save(tmp_path / "m")
    for again in (fastrnn.load(tmp_path / "m"), Forecaster.load(tmp_path / "m")):
        assert repr(again) == repr(model).replace("np.int64(8)", "8")
        np.testing.assert_array_equal(again.predict(9), model.predict(9))
        np.testing.assert_array_equal(again.predict_interval(5), model.predict_interval(5))


def test_settings_are_checked_when_set_and_count_from_the_next_fit(tmp_path: Path) -> None:
    model = Forecaster(**SMALL, season=12).fit(series())
    expected = model.predict(9), *model.predict_interval(5)
    model = Forecaster(**SMALL, season=12).fit(series())
    for name, value, said in (
        ("window", 0, "window: expected"),
        ("season", -1, "season: expected"),
        ("lr", np.inf, "lr: expected"),
        ("cell", "gpt", "cell: expected one of"),
    ):
        with pytest.raises(ValueError, match=said):
            setattr(model, name, value)
    with pytest.raises(
        AttributeError, match=r"Forecaster\.widow: is not a setting, expected one of cell, window"
    ):
        model.widow = 3
    changed: dict[str, Any] = {
        "window": 3, "steps": 7, "season": 5, "log": True, "hidden_size": 3, "num_layers": 2,
        "calibration_fraction": 0.5,
    }  # fmt: skip
    for name, value in changed.items():
        setattr(model, name, value)
    np.testing.assert_array_equal((model.predict(9)), expected[0])
    np.testing.assert_array_equal(model.predict(9, history=series()[:100]).shape, (9, 2))
    np.testing.assert_array_equal(model.predict_interval(5), expected[1:])
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "m").predict(9), expected[0])
    again = Forecaster(**SMALL | changed).fit(series())
    np.testing.assert_array_equal(model.fit(series()).predict(9), again.predict(9))


def test_from_buffers_that_can_not_be_written() -> None:
    """As Ray and Dask return them."""
    model = Forecaster(**SMALL).fit(series())
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    np.testing.assert_array_equal(again.predict(9), model.predict(9))
    np.testing.assert_array_equal(again.predict_interval(5), model.predict_interval(5))


def test_a_subclass_may_have_its_own_constructor_and_attributes() -> None:
    class Mine(Forecaster):
        def __init__(self, note: str) -> None:
            super().__init__(**SMALL)
            self.note = note

    y = series()
    model = Mine("of a user").fit(y)
    usual = Forecaster(**SMALL).fit(y)
    np.testing.assert_array_equal(model.predict(9), usual.predict(9))
    np.testing.assert_array_equal(model.predict_interval(5), usual.predict_interval(5))
    for name, forecast in model.backtest().forecasts.items():
        np.testing.assert_array_equal(forecast, usual.backtest().forecasts[name])
    assert (model.note, pickle.loads(pickle.dumps(usual)).window) == ("of a user", 12)
    with pytest.raises(ValueError, match="window: expected"):
        model.window = 0


def test_nothing_but_the_series_stays_behind() -> None:
    model = Forecaster(**SMALL | {"window": 50}).fit(np.sin(np.arange(1000)))
    # The series, and four networks of 2 kB each, without windows and the optimizer's state.
    assert len(pickle.dumps(model)) < 8000 + 4 * 4000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "gru",
            [
                [9.9972237, 166.51953],
                [9.5887639, 151.50689],
                [9.6554872, 180.8241],
                [9.9463494, 173.7076],
                [10.421959, 174.15477],
                [10.096907, 163.98284],
            ],
        ),
        ("rnn", [9.3840775, 9.8069428, 9.5271124, 9.5453943, 9.4412156, 9.8472085]),
    ],
)
def test_files_of_0_1_0(name: str, expected: Any) -> None:
    model = Forecaster.load(OLD / f"forecaster_{name}-0.1.0.safetensors")
    np.testing.assert_allclose(model.predict(6), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 5}, "net: expected"),
        ({"season": 7}, "net: expected"),
        ({"window": 1000}, "series: expected at least 1004 values"),
        ({"cell": "no"}, "cell: expected one of"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_lying_file(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    Forecaster(**SMALL).fit(series()).save(tmp_path / "m")
    kind, header, tensors = model_file.read(tmp_path / "m")
    header["settings"] |= change
    model_file.write(tmp_path / "m", kind, header, tensors)
    with pytest.raises(ValueError, match=f"m: is damaged: .*{said}"):
        fastrnn.load(tmp_path / "m")
