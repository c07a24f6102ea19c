"""Times of series: continued in their own kind, and wrong ones named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from fastrnn.forecast.time_index import TimeIndex

pd: Any = pytest.importorskip("pandas")

#: Indexes of pandas by what they are.
INDEXES = {
    "days": pd.date_range("2024-01-01", periods=40, name="day"),
    "month ends": pd.date_range("2024-01-31", periods=40, freq="ME", tz="Europe/Berlin"),
    "months from the 15th": pd.date_range("2024-01-15", periods=40, freq=pd.DateOffset(months=1)),
    "business days": pd.bdate_range("2024-01-01", periods=40),
    "business months": pd.date_range("2000", periods=20, freq="BME"),
    "years": pd.date_range("1960", periods=20, freq="YS"),
    "days across a change of clocks": pd.date_range("2024-03-01", periods=60, tz="Europe/Berlin"),
    "hours across a change of clocks": pd.date_range(
        "2024-03-30", periods=60, freq="h", tz="Europe/Berlin"
    ),
    "quarters": pd.period_range("2024Q1", periods=20, freq="Q"),
    "periods of three months": pd.period_range("2024-01", periods=20, freq="3M"),
    "rows": pd.RangeIndex(30),
    "odd numbers": pd.RangeIndex(3, 50, 2),
    "numbers of years": pd.Index(range(1949, 1990)),
}


def series(index: Any) -> Any:
    return pd.Series(np.arange(len(index), dtype=float), index)


@pytest.mark.parametrize("known", [True, False], ids=["with freq", "without"])
@pytest.mark.parametrize("kind", INDEXES)
def test_continues(kind: str, known: bool) -> None:
    every = INDEXES[kind]
    if not known and not isinstance(every, pd.RangeIndex):
        every = type(every)(list(every), name=every.name)
    index, rows = TimeIndex.of(series(every[:-5]), "series")
    assert index is not None
    assert rows is None
    after = index.times(index.size, index.size + 5)
    assert (after == every[-5:]).all()
    assert (after.dtype, after.name) == (every.dtype, every.name)
    assert (index.times(0, index.size) == every[:-5]).all()


@pytest.mark.parametrize("kind", INDEXES)
def test_tells_the_position_of_another(kind: str) -> None:
    every = INDEXES[kind]
    index, _ = TimeIndex.of(series(every[:10]), "series")
    assert index is not None
    for start in (0, 3, 9, 12):
        other, _ = TimeIndex.of(series(every[start : start + 2]), "history", like=index)
        assert other is not None
        assert index.position(other, "history") == start
        assert other.position(index, "series") == -start


def months(**changes: Any) -> Any:
    return pd.date_range("2024-01-01", periods=50, freq="MS").delete(**changes)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (INDEXES["days"][::-1], "expected the oldest value first, got the newest, 2024-02-09"),
        (INDEXES["quarters"][::-1], "the newest, 2028Q4, first; sort it: series.sort_index()"),
        (INDEXES["rows"][::-1], "expected the oldest value first, got the newest, 29, first"),
        (INDEXES["days"].delete(slice(7, 12)), r"\(freq D\), got none for 2024-01-08, at pos"),
        (months(loc=7), r"\(freq MS\), got none for 2024-08-01, at position 7"),
        (INDEXES["business days"].delete(12), r"\(freq B\), got none for 2024-01-17, at"),
        (INDEXES["quarters"].delete(3), r"\(freq Q-DEC\), got none for 2024Q4, at position 3"),
        (INDEXES["numbers of years"].delete(3), r"\(freq 1\), got none for 1952, at position 3"),
        (INDEXES["days"].insert(4, INDEXES["days"][4]), "got two for 2024-01-05, at positions 4"),
        (INDEXES["days"][[0, 1, 2, 9, 5, 6]], "got 2024-01-06 after 2024-01-10 at position 4"),
        (INDEXES["days"][[0, 4, 5, 10, 17]], "expected equally spaced times, got 2024-01-05"),
        (
            months(loc=[]).insert(20, pd.Timestamp("2025-08-09")),
            r"equally spaced times \(freq MS\), got 2025-08-09 at position 20",
        ),
        (pd.DatetimeIndex(["2024-01-01", None, "2024-01-03"]), "got NaT at position 1"),
        (pd.Index([1, 2, 4, 8.5]), "expected an index of dates, periods or whole numbers, got fl"),
        (pd.Index(["a", "b"]), r"series.index = pd.to_datetime\(series.index\)"),
        (pd.MultiIndex.from_product([[1], [2, 3]]), "whole numbers, got several levels"),
    ],
)  # fmt: skip
def test_refused(index: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^series: .*{said}"):
        TimeIndex.of(series(index), "series")


def test_gaps() -> None:
    index, rows = TimeIndex.of(series(INDEXES["days"].delete([3, 4])), "series", gaps=True)
    assert index is not None
    assert rows is not None
    assert index.size == 40
    assert rows[:5].tolist() == [0, 1, 2, 5, 6]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("days", "hours across a change of clocks", "expected equally spaced times"),
        ("days", "quarters", "expected dates of pandas as times, as in fit, got periods"),
        ("odd numbers", "rows", "equally spaced times"),
    ],
)
def test_times_of_another_kind(first: str, second: str, said: str) -> None:
    index, _ = TimeIndex.of(series(INDEXES[first]), "series")
    assert index is not None
    known = index

    def compare() -> None:
        other, _ = TimeIndex.of(series(INDEXES[second]), "history", like=known)
        assert other is not None
        known.position(other, "history")

    with pytest.raises(ValueError, match=f"history: .*{said}"):
        compare()


# polars.

COLUMNS = {
    "1me": [dt.date(2024, 1, 31), dt.date(2024, 2, 29), dt.date(2024, 3, 31), dt.date(2024, 4, 30)],
    "1d": [dt.date(2024, 1, 30) + dt.timedelta(days=i) for i in range(6)],
    "3mo": [dt.datetime(2024, m, 15, 3) for m in (1, 4, 7, 10)],
    "15m": [dt.datetime(2024, 1, 1) + i * dt.timedelta(minutes=15) for i in range(6)],
}


def frame(dates: Any) -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame({"when": dates, "y": np.arange(len(dates), dtype=float)})


@pytest.mark.parametrize("freq", COLUMNS)
def test_columns_of_dates(freq: str) -> None:
    given = frame(COLUMNS[freq])
    index, rows = TimeIndex.of(given[:-1], "series")
    assert index is not None
    assert rows is None
    assert index.freq == freq
    times = index.times(0, index.size + 1)
    assert (times.name, times.dtype) == ("when", given["when"].dtype)
    assert times.to_list() == COLUMNS[freq]
    other, _ = TimeIndex.of(given[2:3], "history", like=index)
    assert other is not None
    assert index.position(other, "history") == 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([5, 4, 3, 2, 1, 0], r"got the newest, 2024-02-04, first; sort it: series.sort\('when'\)"),
        ([0, 1, 1, 2], "got two for 2024-01-31, at positions 1 and 2"),
        ([0, 1, 2, 5], r"\(freq 1d\), got none for 2024-02-02, at position 3"),
        ([0, 1, 3, 2], "got 2024-02-01 after 2024-02-02 at position 3"),
    ],
)
def test_columns_refused(rows: list[int], said: str) -> None:
    given = frame([COLUMNS["1d"][i] for i in rows])
    with pytest.raises(ValueError, match=f"^series: .*{said}"):
        TimeIndex.of(given, "series")


def test_two_columns_of_dates() -> None:
    given = frame(COLUMNS["1d"])
    with pytest.raises(ValueError, match="expected one column of dates, got when, then"):
        TimeIndex.of(given.with_columns(given["when"].alias("then")), "series")


def test_time_zones_of_polars() -> None:
    given = frame(COLUMNS["15m"])
    column = given["when"].dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    index, _ = TimeIndex.of(given.with_columns(column), "series")
    assert index is not None
    assert index.times(0, 6).to_list() == column.to_list()


def test_arrays_have_no_times() -> None:
    assert TimeIndex.of(np.arange(5), "series") == (None, None)
