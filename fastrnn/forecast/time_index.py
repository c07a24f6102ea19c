"""The times of a series' values: checked for order, gaps and duplicates, and continued.

pandas and polars are imported only where a caller's object came from them. What is kept of an index
is plain data, so that it pickles and goes into files.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from typing import Any, Self

import numpy as np

from fastrnn._types import Array

#: Microseconds in the units of steps between times, largest first.
_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "us": 1}

#: Times in a stretch on which pandas infers a frequency, where it finds none for all: enough to
#: tell business days from days, and for many stretches without a gap.
_STRETCH = 10


def library(value: Any) -> str | None:
    """Return "pandas" or "polars" where a frame, series or index is theirs, else None."""
    for cls in type(value).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("pandas", "polars"):
            return root
    return None


def text(time: Any) -> str:
    """Return a time as it is written, without a time of day that is midnight."""
    said = str(time).replace("T", " ")
    return re.sub(r" 00:00:00(\.0+)?$", "", said)


@dataclasses.dataclass(frozen=True)
class TimeIndex:
    """Equally spaced times, one for each value of a series.

    Attributes
    ----------
    library : {"pandas", "polars"}
    kind : {"dates", "periods", "numbers"}
    first : str or int
        The first time; of dates with a time zone, in UTC.
    freq : str or int
        The distance from one to the next: a frequency of pandas; of dates of polars, as in "3mo" or
        "15m", "me" being ends of months; of numbers, a number.
    size : int
        How many times there are.
    name : str or None
        Of the index or column.
    unit : str
        Resolution of dates, or the type of a polars column.
    tz : str or None
    """

    library: str
    kind: str
    first: Any
    freq: Any
    size: int
    name: Any = None
    unit: str = "ns"
    tz: str | None = None

    @classmethod
    def of(
        cls, value: Any, name: str, *, like: TimeIndex | None = None, gaps: bool = False
    ) -> tuple[Self | None, Array | None]:
        """Return the times of a frame or series, and which of them its rows have.

        Parameters
        ----------
        value : pandas or polars frame or series
            Anything else has no times.
        name : str
            What errors call it.
        like : TimeIndex, optional
            Times with the same distance: those of the series fitted, for a short history.
        gaps : bool
            Whether gaps are accepted.

        Returns
        -------
        index : TimeIndex or None
        rows : (n,) array of int, or None
            Positions among the times, if there are gaps.

        Raises
        ------
        ValueError
            If times are not in order, double, missing or not equally spaced.
        TypeError
            If an index holds something else than dates, periods or whole numbers.
        """
        origin = library(value)
        if origin == "pandas" and hasattr(value, "index") and not callable(value.index):
            index, rows = _of_pandas(value.index, name, like)
        elif origin == "polars" and (column := date_column(value, name)) is not None:
            index, rows = _of_dates(value[column], name, like)
        else:
            return None, None
        complete = len(rows) == index["size"]
        if not (complete or gaps):
            known = np.append(rows, -1)
            at = int(np.flatnonzero(known[:-1] != np.arange(len(rows)))[0])
            where = cls(**index).times(at, at + 1)[0]
            raise ValueError(
                f"{name}: expected a value at every time (freq {index['freq']}), got none for "
                f"{text(where)}, at position {at}; insert what is missing, or pass fill="
            )
        return cls(**index), None if complete else rows

    def times(self, start: int, stop: int) -> Any:
        """Return the times from position `start` to `stop`: an index of pandas, or a column."""
        module = import_module(self.library)
        if self.kind == "numbers":
            numbers = range(
                self.first + start * self.freq, self.first + stop * self.freq, self.freq
            )
            return module.RangeIndex(numbers, name=self.name)
        if self.library == "polars":
            column = module.Series(self.name, _dates(self, start, stop))
            if self.unit == "Date":
                return column.cast(module.Date)
            column = column.cast(module.Datetime(self.unit))
            if self.tz is None:
                return column
            return column.dt.replace_time_zone("UTC").dt.convert_time_zone(self.tz)
        if self.kind == "periods":
            every = module.period_range(self.first, periods=stop, freq=self.freq, name=self.name)
            return every[start:]
        first = module.Timestamp(self.first)
        if self.tz is not None:
            first = first.tz_convert(self.tz)
        every = module.date_range(
            first, periods=stop, freq=_offset(self.freq), unit=self.unit, name=self.name
        )
        return every[start:]

    def array(self, start: int, stop: int, *, plain: bool = False) -> Array:
        """Return the times from position `start` to `stop` as an array.

        With `plain`, periods are the dates that they begin with, and dates have no time zone.
        """
        times = self.times(start, stop)
        if plain and self.kind == "periods":
            times = times.to_timestamp()
        elif plain and self.tz is not None:
            times = (
                times.tz_localize(None)
                if self.library == "pandas"
                else times.dt.replace_time_zone(None)
            )
        return np.asarray(times)

    def position(self, other: TimeIndex, name: str) -> int:
        """Return the position of the first of other times, which may be before this first one."""
        if (self.library, self.kind) != (other.library, other.kind):
            raise ValueError(
                f"{name}: expected {self.kind} of {self.library} as times, as in fit, "
                f"got {other.kind} of {other.library}"
            )
        if self.kind == "numbers":
            steps, rest = divmod(other.first - self.first, self.freq)
            if rest or self.freq != other.freq:
                raise _elsewhere(name, self, other)
            return int(steps)
        one, two = self.times(0, 1)[0], other.times(0, 1)[0]
        earlier, later = (self, two) if two >= one else (dataclasses.replace(other), one)
        at = _steps_to(dataclasses.replace(earlier, freq=self.freq), later)
        if at is None:
            raise _elsewhere(name, self, other)
        return at if two >= one else -at


def _elsewhere(name: str, self: TimeIndex, other: TimeIndex) -> ValueError:
    return ValueError(
        f"{name}: expected times {self.freq} apart that continue or precede those fitted, "
        f"from {text(self.first)} on, got {text(other.first)}, {other.freq} apart"
    )


def _steps_to(index: TimeIndex, time: Any) -> int | None:
    """Return the position of a time after the first, or None where it is between two."""
    low, high = 0, 1
    while index.times(high, high + 1)[0] < time:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if index.times(middle, middle + 1)[0] >= time else (middle + 1, high)
        )
    return low if index.times(low, low + 1)[0] == time else None


def _in_order(stamps: Array, shown: Callable[[int], Any], name: str, sort: str) -> None:
    """Raise unless times ascend; `shown` returns one by its position."""
    distance = np.diff(stamps)
    if len(distance) and (distance < 0).all():
        raise ValueError(
            f"{name}: expected the oldest value first, got the newest, {text(shown(0))}, first; "
            f"sort it: {sort}"
        )
    for wrong in np.flatnonzero(distance <= 0)[:1]:
        one, two = text(shown(int(wrong))), text(shown(int(wrong) + 1))
        if distance[wrong] == 0:
            raise ValueError(
                f"{name}: expected one value for each time, got two for {two}, at positions "
                f"{wrong} and {wrong + 1}; aggregate or drop them"
            )
        raise ValueError(
            f"{name}: expected times in order, got {two} after {one} at position {wrong + 1}; "
            f"sort it: {sort}"
        )


def _uneven(name: str, freq: Any, time: Any, position: int) -> ValueError:
    apart = "" if freq is None else f" (freq {freq})"
    return ValueError(
        f"{name}: expected equally spaced times{apart}, got {text(time)} at position {position}; "
        "resample it, or pass an array if times do not matter"
    )


# pandas.


def _of_pandas(index: Any, name: str, like: TimeIndex | None) -> tuple[dict[str, Any], Array]:
    kind = index.dtype.kind
    if kind == "M":
        return _of_timestamps(index, name, like)
    sort = f"{name}.sort_index()"
    if str(index.dtype).startswith("period["):
        _no_missing(index, name)
        ordinals = np.asarray(index.astype("int64"))
        _in_order(ordinals, lambda i: index[i], name, sort)
        rows, rest = np.divmod(ordinals - ordinals[0], index.freq.n)
        for wrong in np.flatnonzero(rest)[:1]:
            raise _uneven(name, index.freqstr, index[int(wrong)], int(wrong))
        found = {"kind": "periods", "first": str(index[0]), "freq": index.freqstr}
    elif kind in "iu" and len(index):
        numbers = np.asarray(index, dtype=np.int64)
        _in_order(numbers, lambda i: index[i], name, sort)
        distance = np.diff(numbers)
        step = int(distance.min()) if len(distance) else 1
        if like is not None and like.kind == "numbers":
            step = like.freq
        rows, rest = np.divmod(numbers - numbers[0], step)
        for wrong in np.flatnonzero(rest)[:1]:
            raise _uneven(name, step, index[int(wrong)], int(wrong))
        found = {"kind": "numbers", "first": int(numbers[0]), "freq": step}
    else:
        what = index.dtype if getattr(index, "nlevels", 1) == 1 else "several levels"
        raise TypeError(
            f"{name}: expected an index of dates, periods or whole numbers, got {what}; for dates "
            f"as text, {name}.index = pd.to_datetime({name}.index)"
        )
    size = int(rows[-1]) + 1
    return found | {"library": "pandas", "size": size, "name": index.name}, rows


def _no_missing(index: Any, name: str) -> None:
    for missing in np.flatnonzero(index.isna())[:1]:
        raise ValueError(f"{name}: expected a time for each value, got NaT at position {missing}")


def _of_timestamps(index: Any, name: str, like: TimeIndex | None) -> tuple[dict[str, Any], Array]:
    _no_missing(index, name)
    stamps = np.asarray(index.tz_convert(None) if index.tz is not None else index).astype(np.int64)
    _in_order(stamps, lambda i: index[i], name, f"{name}.sort_index()")
    if like is not None and like.kind == "dates" and like.library == "pandas":
        freq = like.freq
    else:
        freq = _frequency(index)
    if freq is None:
        distance = np.diff(stamps)
        wrong = int(np.flatnonzero(distance != np.median(distance))[:1].sum()) + 1
        raise _uneven(name, None, index[wrong] if len(index) > 1 else index[0], wrong)
    every = import_module("pandas").date_range(index[0], index[-1], freq=_offset(freq))
    rows = every.get_indexer(index)
    for wrong in np.flatnonzero(rows < 0)[:1]:
        raise _uneven(name, freq, index[int(wrong)], int(wrong))
    first = index[0] if index.tz is None else index[0].tz_convert("UTC")
    return {
        "library": "pandas",
        "kind": "dates",
        "first": first.isoformat(),
        "freq": freq,
        "size": len(every),
        "name": index.name,
        "unit": index.unit,
        "tz": None if index.tz is None else str(index.tz),
    }, rows


def _frequency(index: Any) -> str | None:
    """Return the frequency that an index has, or that most stretches of it have."""
    if index.freq is not None:
        return _named(index.freq)
    whole = _inferred(index)
    if whole is not None:
        return whole
    starts = np.unique(np.linspace(0, max(len(index) - _STRETCH, 0), 50).astype(int))
    found = Counter(_inferred(index[start : start + _STRETCH]) for start in starts.tolist())
    del found[None]
    if found:
        return found.most_common(1)[0][0]
    months = np.diff(np.asarray(index.year * 12 + index.month))
    same = all(len(set(part)) == 1 for part in (index.day, index.time))
    return f"{months.min()}mo" if same and len(months) and months.min() > 0 else None


def _inferred(index: Any) -> str | None:
    if len(index) < 3:  # pandas's least
        return None
    freq = type(index)(index, freq="infer").freq
    return None if freq is None else _named(freq)


def _named(freq: Any) -> str:
    """Return the name of an offset of pandas; months on any day have none there."""
    months = getattr(freq, "kwds", {}).get("months")
    return f"{months * freq.n}mo" if months else str(freq.freqstr)


def _offset(freq: str) -> Any:
    months = re.fullmatch(r"(\d+)mo", freq)
    return freq if months is None else import_module("pandas").DateOffset(months=int(months[1]))


# polars.


def date_column(frame: Any, name: str) -> str | None:
    """Return the name of the column of dates of a polars frame."""
    if not hasattr(frame, "iter_columns"):  # a series, or a frame that is not collected
        return None
    columns = [c for c, t in frame.schema.items() if str(t).startswith("Date")]
    if len(columns) > 1:
        raise ValueError(f"{name}: expected one column of dates, got {', '.join(columns)}")
    return columns[0] if columns else None


def _of_dates(column: Any, name: str, like: TimeIndex | None) -> tuple[dict[str, Any], Array]:
    dates = column.to_numpy().astype("datetime64[us]")
    for missing in np.flatnonzero(np.isnat(dates))[:1]:
        raise ValueError(f"{name}: expected a time for each value, got none at position {missing}")
    stamps = dates.astype(np.int64)
    _in_order(stamps, lambda i: column[i], name, f"{name}.sort({column.name!r})")
    freq = like.freq if like is not None and like.kind == "dates" else _step(dates)
    index = {
        "library": "polars",
        "kind": "dates",
        "first": str(dates[0]),
        "freq": freq,
        "size": len(dates),
        "name": column.name,
        "unit": getattr(column.dtype, "time_unit", None) or "Date",
        "tz": getattr(column.dtype, "time_zone", None),
    }
    count, unit = _parsed(freq)
    if unit in _UNITS:
        rows = (stamps - stamps[0]) // (count * _UNITS[unit])
    else:
        month = dates.astype("datetime64[M]").astype(np.int64)
        rows = (month - month[0]) // count
    index["size"] = int(rows[-1]) + 1
    expected = _dates(TimeIndex(**index), 0, index["size"])[rows]
    for wrong in np.flatnonzero(expected != dates)[:1]:
        raise _uneven(name, freq, column[int(wrong)], int(wrong))
    return index, rows


def _step(dates: Array) -> str:
    """Return the usual distance between dates."""
    month = dates.astype("datetime64[M]")
    of_month = dates - month
    day = dates.astype("datetime64[D]")
    ends = (day + np.timedelta64(1, "D")).astype("datetime64[M]") > month
    months = np.diff(month.astype(np.int64))
    if len(months) and months.min() > 0 and (ends.all() or (of_month == of_month[0]).all()):
        return f"{months.min()}{'me' if ends.all() else 'mo'}"
    distances = np.diff(dates.astype(np.int64))
    usual = Counter(distances.tolist()).most_common(1)[0][0] if len(distances) else _UNITS["d"]
    unit = next(unit for unit, size in _UNITS.items() if usual % size == 0)
    return f"{usual // _UNITS[unit]}{unit}"


def _parsed(freq: str) -> tuple[int, str]:
    count, unit = re.fullmatch(r"(\d+)([a-z]+)", freq).groups()  # type: ignore[union-attr]
    return int(count), unit


def _dates(index: TimeIndex, start: int, stop: int) -> Array:
    """Return dates of polars as an array."""
    first = np.datetime64(index.first, "us")
    count, unit = _parsed(index.freq)
    steps = count * np.arange(start, stop)
    if unit in _UNITS:
        return np.asarray(first + (steps * _UNITS[unit]).astype("timedelta64[us]"))
    month = first.astype("datetime64[M]") + steps.astype("timedelta64[M]")
    last = (month + np.timedelta64(1, "M")).astype("datetime64[D]") - np.timedelta64(1, "D")
    within = first - first.astype("datetime64[D]").astype("datetime64[us]")
    if unit == "me":
        return np.asarray(last + within)
    of_month = first.astype("datetime64[D]") - first.astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray(np.minimum(month.astype("datetime64[D]") + of_month, last) + within)
