"""Forecasts of frames, of many series, with exog, gaps and other histories; and their files."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._files import model_file
from fastrnn.forecast import Forecaster

pd: Any = pytest.importorskip("pandas")

SMALL: dict[str, Any] = {"window": 12, "steps": 4, "hidden_size": 8, "epochs": 2, "seed": 0}
MONTHS = pd.date_range("2015-01-01", periods=144, freq="MS")


def waves(n: int = 120, seed: int = 0) -> Any:
    t = np.arange(n)
    return 20 + 5 * np.sin(np.pi * t / 6) + np.random.default_rng(seed).normal(size=n)


def monthly(n: int = 120, seed: int = 0) -> Any:
    return pd.Series(waves(n, seed), MONTHS[:n], name="sales")


@pytest.fixture(scope="module")
def fitted() -> Any:
    return Forecaster(**SMALL, season=12).fit(monthly())


# pandas and polars.


def test_a_series(fitted: Any) -> None:
    forecast = fitted.predict(3)
    lower, upper = fitted.predict_interval(3)
    array = Forecaster(**SMALL, season=12).fit(waves())
    for given, expected in ((forecast, array.predict(3)), (lower, array.predict_interval(3)[0])):
        np.testing.assert_array_equal(given.to_numpy(), expected)
        assert (given.index == MONTHS[120:123]).all()
        assert (given.name, given.index.freqstr) == ("sales", "MS")
    assert (lower < upper).all()


def test_a_frame() -> None:
    frame = pd.DataFrame({"a": waves(), "b": waves(seed=1)}, MONTHS[:120].to_period())
    model = Forecaster(**SMALL).fit(frame)
    forecast = model.predict(2)
    assert list(forecast.columns) == ["a", "b"]
    assert [str(p) for p in forecast.index] == ["2025-01", "2025-02"]
    backtest = model.backtest(frame, 3)
    assert str(backtest.dates[0, 0]) == "2023-01"
    assert "forecaster, b" in str(backtest)
    with pytest.raises(ValueError, match=r"history: expected columns \['a', 'b'\], as in fit, got"):
        model.predict(1, history=frame[["b", "a"]])
    (one,) = Forecaster(**SMALL).fit(frame[["a"]]).predict(1).columns
    assert one == "a"


def test_dates_of_a_backtest(fitted: Any) -> None:
    backtest = fitted.backtest(horizon=2)
    assert backtest.dates.shape == backtest.actual.shape
    at = monthly().index.get_indexer(backtest.dates.ravel())
    np.testing.assert_array_equal(monthly().to_numpy()[at], backtest.actual.ravel())
    assert Forecaster(**SMALL).backtest(waves(), 2).dates is None


def test_polars() -> None:
    polars = pytest.importorskip("polars")
    first = polars.date(2020, 1, 1)
    days = polars.date_range(first, polars.date(2020, 4, 29), "1d", eager=True)
    frame = polars.DataFrame({"when": days, "y": waves(), "z": waves(seed=1)})
    model = Forecaster(**SMALL).fit(frame)
    forecast = model.predict(2)
    assert forecast.columns == ["when", "y", "z"]
    assert [str(d) for d in forecast["when"]] == ["2020-04-30", "2020-05-01"]
    array = Forecaster(**SMALL).fit(frame.select("y", "z").to_numpy())
    np.testing.assert_array_equal(forecast.select("y", "z").to_numpy(), array.predict(2))
    assert str(model.predict(1, history=frame[:50])["when"][0]) == "2020-02-20"
    with pytest.raises(ValueError, match="got the newest, 2020-04-29, first"):
        Forecaster(**SMALL).fit(frame.reverse())
    column = Forecaster(**SMALL).fit(frame["y"]).predict(2)
    assert (column.name, column.to_list()) == (
        "y",
        Forecaster(**SMALL).fit(waves()).predict(2).tolist(),
    )
    assert Forecaster(**SMALL).fit(frame.select("y")).predict(2).columns == ["y"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s[::-1], "series: expected the oldest value first, got the newest"),
        (lambda s: s.drop(s.index[60:70]), "series: .* got none for 2020-01-01, at position 60"),
        (lambda s: pd.concat([s[:60], s[59:]]), "series: .* got two for 2019-12-01, at pos"),
        (lambda s: s.where(s.index != s.index[7]), "got nan at position 7, 2015-08-01; fill= says"),
        (lambda s: s.where(s < 24).astype("Float64"), "got nan at position 2, 2015-03-01; fill="),
        (lambda s: np.ma.masked_greater(s.to_numpy(), 24), "expected finite numbers, got nan"),
        (lambda s: [*s[:20], None, *s[20:]], "got nan at position 20"),
        (lambda s: s.to_frame().assign(b=np.inf), "got inf at position 0, 2015-01-01, in column"),
        (lambda s: s.to_frame().assign(d=s.index), r"in column 'd'; make it the index: series"),
        (lambda s: s.astype(str), "series: expected real numbers, got dtype (str|object)"),
    ],
)  # fmt: skip
def test_refused(change: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Forecaster(**SMALL).fit(change(monthly()))


def test_dates_as_text_in_polars() -> None:
    pl = pytest.importorskip("polars")
    days = pl.DataFrame({"day": ["2020-01-01", "2020-01-02"] * 9, "v": range(18)})
    with pytest.raises(TypeError, match=r"String in column 'day'; .*pl.col\(column\)"):
        Forecaster(**SMALL).fit(days)
    with pytest.raises(TypeError, match=r"series: expected .* real numbers, got LazyFrame"):
        Forecaster(**SMALL).fit(days.lazy())


# Missing values.


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("linear", [20, 20, 30, 40, 40, 50, 50]),
        ("previous", [20, 20, 20, 40, 40, 50, 50]),
        ("mean", [110 / 3, 20, 110 / 3, 40, 110 / 3, 50, 110 / 3]),
        (0, [0, 20, 0, 40, 0, 50, 0]),
    ],
)
def test_fill(fill: Any, expected: list[float]) -> None:
    values = [None, 20, None, 40, None, 50, None]
    if fill == "linear":
        expected = [20, 20, 30, 40, 45, 50, 50]
    if fill == "previous":
        expected = [20, 20, 20, 40, 40, 50, 50]
    for given in (values, np.ma.masked_invalid(np.array(values, float)), pd.Series(values)):
        model = Forecaster(window=2, steps=1, epochs=1, fill=fill).fit(given)
        fit: Any = model._fit
        np.testing.assert_allclose(fit.tracks[0].values[:, 0], expected)


def test_fill_of_times_that_are_missing() -> None:
    given = monthly().drop(MONTHS[[50, 60, 61]])
    model = Forecaster(**SMALL, fill="linear").fit(given)
    whole = monthly()
    whole.iloc[[50, 60, 61]] = np.nan
    assert model.predict(2).equals(Forecaster(**SMALL).fit(whole.interpolate()).predict(2))
    history = model.predict(1, history=given[:70])
    assert history.index[0] == MONTHS[73]
    with pytest.raises(ValueError, match="series: expected some values, got a column of missing"):
        Forecaster(**SMALL, fill="mean").fit(np.full(60, np.nan))
    with pytest.raises(ValueError, match=r"fill: expected one of 'linear', .* got 'cubic'"):
        Forecaster(fill="cubic")


# Histories.


def test_a_history_whose_phase_is_known(fitted: Any) -> None:
    whole = fitted.predict(2, history=monthly()[:100])
    assert (whole.index == MONTHS[100:102]).all()
    array = monthly().to_numpy()[:100]
    for history, phase in (
        (monthly()[40:100], None),
        (array, None),
        (array[40:], None),
        (array[40:], 40),
        (array[40:], 16),
    ):
        forecast = fitted.predict(2, history=history, phase=phase)
        np.testing.assert_allclose(forecast, whole, rtol=1e-5)
    network = Forecaster(**SMALL, season=12, calibration_fraction=0).fit(waves())
    forecasts = [network.predict(2, history=array[40:], phase=phase) for phase in (40, 43, 52)]
    assert (forecasts[0] != forecasts[1]).all()
    np.testing.assert_array_equal(forecasts[0], forecasts[2])
    later = pd.Series(waves(20), pd.date_range("2026-02-01", periods=20, freq="MS"))
    np.testing.assert_allclose(
        fitted.predict(2, history=later), fitted.predict(2, history=waves(20), phase=133), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (waves(60, seed=5), "history: expected one that overlaps .* or has dates .* or phase="),
        (monthly()[:40:2], r"history: .*\(freq MS\), got none for 2015-02-01"),
        (pd.Series(waves(20)), "history: expected one that overlaps"),
        (
            monthly()[:60].to_period(),
            "history: expected dates of pandas as times, as in fit, got p",
        ),
        (monthly()[:5], "history: expected at least 12 values, got 5"),
    ],
)
def test_a_history_of_unknown_phase(fitted: Any, history: Any, said: str) -> None:
    if said.startswith("history: expected one that") and hasattr(history, "index"):
        history = history + 0.5
    with pytest.raises(ValueError, match=said):
        fitted.predict(2, history=history)


def test_phases_matter_only_with_a_season() -> None:
    model = Forecaster(**SMALL).fit(waves())
    assert model.predict(2, history=waves(60, seed=5)).shape == (2,)
    with pytest.raises(ValueError, match="phase: expected None without history"):
        model.predict(2, phase=3)


# What is known in advance.


def test_exog() -> None:
    promotion = (np.random.default_rng(0).random(144) < 0.2).astype(float)
    known = pd.DataFrame({"promotion": promotion}, MONTHS)
    values = monthly() + 8 * promotion[:120]
    model = Forecaster(**SMALL, season=12).fit(values, exog=known[:120])
    forecast = model.predict(24, exog=known[120:])
    without = model.predict(24, exog=0 * known[120:])
    difference = (forecast - without).to_numpy()
    np.testing.assert_allclose(difference, 8 * promotion[120:], atol=0.8)
    lower, upper = model.predict_interval(3, exog=known[120:123])
    assert ((lower < forecast[:3]) & (forecast[:3] < upper)).all()
    again = model.predict(2, history=values[:100], exog=known[:102])
    assert (again.index == MONTHS[100:102]).all()
    errors = model.backtest(horizon=2).mae()
    plain = Forecaster(**SMALL, season=12).backtest(values, 2).mae()
    assert errors["forecaster"] < 0.8 * plain["forecaster"]
    assert errors["naive"] == plain["naive"]
    for exog, said in (
        (None, "exog: expected 2 rows of 1 columns, as in fit, got None"),
        (known[120:123], "exog: expected 2 rows, got 3"),
        (known[:2], "exog: expected times from 2025-01-01 on, got 2015-01-01"),
        (known[120:122].rename(columns={"promotion": "x"}), "exog: expected columns .'promo"),
        (np.zeros((2, 3)), "exog: expected 1 columns, as in fit, got 3"),
        (np.full(2, np.nan), "exog: expected finite numbers, got nan"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            model.predict(2, exog=exog)
    with pytest.raises(ValueError, match="exog: expected 120 rows, got 144"):
        Forecaster(**SMALL).fit(waves(), exog=promotion)
    with pytest.raises(ValueError, match="exog: expected None, as in fit"):
        Forecaster(**SMALL).fit(waves()).predict(2, exog=[1, 2])


def test_effects_of_exog_on_what_wanders() -> None:
    rng = np.random.default_rng(0)
    exog = np.stack([rng.normal(size=300), np.ones(300), rng.normal(size=300).cumsum()], axis=1)
    values = rng.normal(size=300).cumsum() + exog @ [3.0, 5.0, -2.0]
    fit: Any = Forecaster(**SMALL).fit(values, exog=exog)._fit
    np.testing.assert_allclose(fit.scales[0].coefficients[:, 0], [3, 0, -2], atol=0.25)


# Many series.


def test_many_series_as_one_model() -> None:
    arrays = [waves(), waves(70, seed=1), 2 * waves(60, seed=2)]
    model = Forecaster(**SMALL, season=12).fit(arrays)
    forecasts = model.predict(3)
    assert [f.shape for f in forecasts] == [(3,)] * 3
    assert abs(forecasts[2].mean() / forecasts[0].mean() - 2) < 0.6
    lower, upper = model.predict_interval(3)
    assert all(
        (lo < f).all() and (f < hi).all() for lo, f, hi in zip(lower, forecasts, upper, strict=True)
    )
    assert [b.actual.shape for b in model.backtest(horizon=3)] == [(22, 3), (12, 3), (10, 3)]
    assert [len(w["network"]) for w in model.weights(2)] == [2, 2, 2]
    again = model.predict(3, history=arrays)
    np.testing.assert_allclose(again, forecasts, rtol=1e-5)
    new = model.predict(3, history=3 * waves(40, seed=5), phase=0)
    assert abs(new.mean() / forecasts[0].mean() - 3) < 0.9
    named = Forecaster(**SMALL, season=12).fit(dict(zip("abc", arrays, strict=True)))
    for key, expected in zip("abc", forecasts, strict=True):
        np.testing.assert_array_equal(named.predict(3)[key], expected)


def test_a_series_too_short_for_errors_of_its_own() -> None:
    """It has weights and intervals by those of the others."""
    model = Forecaster(**SMALL, season=12).fit([waves(), waves(16, seed=1)])
    weights = model.weights(2)
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    (low, short_low), (high, short_high) = model.predict_interval(3)
    scale = waves().std() / waves(16, seed=1).std()
    np.testing.assert_allclose((high - low) / (short_high - short_low), scale, rtol=1e-6)
    shortest = Forecaster(**SMALL).fit([waves(16), waves(16, seed=1)])
    with pytest.raises(ValueError, match="series: expected a longer one, or more to calibrate"):
        shortest.predict_interval(1)


def test_series_of_other_dates() -> None:
    """Dates tell where in the season each begins."""
    given = {"a": monthly(), "b": monthly()[10:70]}
    model = Forecaster(**SMALL, season=12).fit(given)
    fit: Any = model._fit
    assert [track.phase for track in fit.tracks] == [0, 10]
    forecast = model.predict(2)
    assert (forecast["b"].index == MONTHS[70:72]).all()
    reordered = {"b": given["b"][5:], "a": given["a"]}
    assert list(model.predict(2, history=reordered)) == ["a", "b"]
    arrays = [v.to_numpy() for v in given.values()]
    same = Forecaster(**SMALL, season=12).fit(arrays, phase=[0, 10])
    np.testing.assert_array_equal(same.predict(2)[1], forecast["b"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([waves(), waves(5)], r"series\[1\]: expected at least 16 values \(window"),
        ({"a": waves(), "b": waves()[:, None]}, r"series\['b'\]: expected shape \(m,\), got"),
        ({"a": waves(), "b": monthly()[::-1]}, r"series\['b'\]: expected the oldest value first"),
        ({}, "series: expected one or more, got none"),
        ([], "series: expected one value or more, got none"),
        ([[1.0, 2, 3], [4, 5]], r"series\[0\]: expected at least 16 values"),
        ("abc", "series: expected an array of real numbers"),
    ],
)  # fmt: skip
def test_many_series_refused(given: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Forecaster(**SMALL).fit(given)


def test_a_history_must_have_all_series() -> None:
    model = Forecaster(**SMALL).fit({"a": waves(), "b": waves()})
    with pytest.raises(ValueError, match=r"history: expected keys \['a', 'b'\], got \['a'\]"):
        model.predict(2, history={"a": waves()})
    with pytest.raises(ValueError, match=r"exog\['a'\]: expected None, as in fit"):
        model.predict(2, exog={"a": [1, 2], "b": [1, 2]})


# Files.


@pytest.mark.parametrize(
    ("options", "given", "exog"),
    [
        ({"season": 12}, monthly(), None),
        ({"season": (7, 365.25), "floor": 0}, monthly().to_period(), None),
        ({"fill": "linear"}, {"a": monthly(), "b": monthly(70)}, None),
        ({}, [waves(), waves(60)], None),
        ({}, {("south", 1): monthly(), ("north", 2): monthly(70)}, None),
        ({}, pd.DataFrame({"a": waves(), "b": 1.0}, MONTHS[:120].tz_localize("Asia/Tokyo")), None),
        ({}, monthly(), pd.DataFrame({"x": waves(seed=3)}, MONTHS[:120])),
    ],
)
def test_comes_back_from_its_file(options: Any, given: Any, exog: Any, tmp_path: Path) -> None:
    model = Forecaster(**SMALL | {"seed": None}, **options).fit(given, exog=exog)
    model.save(tmp_path / "m")
    ahead = {} if exog is None else {"exog": np.ones((3, 1))}
    for again in (fastrnn.load(tmp_path / "m"), pickle.loads(pickle.dumps(model))):
        assert repr(again) == repr(model)
        for name in ("predict", "predict_interval"):
            one, other = (getattr(m, name)(3, **ahead) for m in (model, again))
            # Values, and names and dates.
            assert repr(one) == repr(other)
        again.save(tmp_path / "n")
        one, other = (model_file.read(tmp_path / file) for file in "mn")
        assert one[:2] == other[:2]
        assert one[2].keys() == other[2].keys()


def test_without_pandas_forecasts_are_arrays(tmp_path: Path, monkeypatch: Any) -> None:
    model = Forecaster(**SMALL).fit(monthly())
    model.save(tmp_path / "m")
    expected = model.predict(3).to_numpy()
    monkeypatch.setitem(sys.modules, "pandas", None)
    forecast = fastrnn.load(tmp_path / "m").predict(3)
    assert type(forecast) is np.ndarray
    np.testing.assert_array_equal(forecast, expected)


def test_old_files_are_written_as_they_are_read(tmp_path: Path) -> None:
    model = Forecaster.load(Path(__file__).parent / "data" / "forecaster_gru-0.1.0.safetensors")
    assert model.weights(1)["network"].min() == 1
    model.save(tmp_path / "m")
    again = Forecaster.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict(6), model.predict(6))
    np.testing.assert_array_equal(again.predict_interval(2), model.predict_interval(2))


def test_many_threads() -> None:
    model = Forecaster(**SMALL, season=12).fit([waves(), waves(80)])
    again = pickle.loads(pickle.dumps(model))
    expected = [model.predict_interval(h)[0][1] for h in range(1, 13)]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda h: again.predict_interval(h)[0][1], range(1, 13))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
