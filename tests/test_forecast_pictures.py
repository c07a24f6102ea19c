"""Pictures of forecasts: dates, names, one legend, and no gap between history and forecast."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn.forecast import Forecaster

SMALL: dict[str, Any] = {"window": 12, "steps": 4, "hidden_size": 8, "epochs": 1, "seed": 0}


def waves(n: int = 60) -> Any:
    t = np.arange(n)
    return np.stack([np.sin(np.pi * t / 6), 100 + t + 5 * np.cos(np.pi * t / 6)], 1)


@pytest.fixture(autouse=True)
def _no_screen() -> Iterator[None]:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    yield
    sys.modules["matplotlib.pyplot"].close("all")


def test_panels() -> None:
    model = Forecaster(**SMALL).fit(waves())
    figure = model.plot(6, shown=20)
    assert [axes.get_ylabel() for axes in figure.axes] == ["series 0", "series 1"]
    known, forecast = figure.axes[1].lines
    assert known.get_xdata().tolist() == list(range(40, 60))
    # The forecast begins where the history ends.
    assert forecast.get_xdata().tolist() == list(range(59, 66))
    np.testing.assert_array_equal(forecast.get_ydata(), [waves()[-1, 1], *model.predict(6)[:, 1]])
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    assert (band[:, 0].min(), band[:, 0].max()) == (59, 65)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.texts] == ["history", "90 % interval", "forecast"]
    assert not any(axes.get_legend() for axes in figure.axes)


@pytest.mark.parametrize("periods", [False, True])
def test_dates_and_names(periods: bool) -> None:
    pd = pytest.importorskip("pandas")
    dates = pytest.importorskip("matplotlib.dates")
    index = pd.date_range("2020-01-31", periods=60, freq="ME")
    given = pd.Series(waves()[:, 0], index.to_period() if periods else index, name="sales")
    figure = Forecaster(**SMALL).fit(given).plot(3, level=None)
    known, forecast = figure.axes[0].lines
    expected = index.to_period().to_timestamp() if periods else index
    np.testing.assert_array_equal(known.get_xdata(), expected[-15:].to_numpy())
    assert forecast.get_xdata()[1] - known.get_xdata()[-1] > np.timedelta64(27, "D")
    assert isinstance(figure.axes[0].xaxis.get_major_formatter(), dates.ConciseDateFormatter)
    assert figure.axes[0].get_ylabel() == "sales"
    assert [t.get_text() for t in figure.legends[0].texts] == ["history", "forecast"]


def test_several_series() -> None:
    figure = Forecaster(**SMALL).fit({"north": waves()[:, 0], "south": waves(50)[:, 0]}).plot(3)
    assert [axes.get_ylabel() for axes in figure.axes] == ["north", "south"]
    assert figure.axes[1].lines[0].get_xdata()[-1] == 49


def test_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Forecaster(**SMALL).fit(waves())
    with monkeypatch.context() as patch:
        for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
            patch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r"pip install 'fastrnn\[plot\]'"):
            model.plot(3)
