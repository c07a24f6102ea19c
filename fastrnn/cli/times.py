"""The column of a table that says when: which it is, how it is written, what its steps are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn._types import Array
from fastrnn.cli.tables import Table, is_missing, is_number, pandas

#: How dates may be written; {0} is the separator. Of two formats, the first one has the day
#: first.
_DATES = {
    r"\d{4}([-/.])\d{1,2}\1\d{1,2}": ("%Y{0}%m{0}%d",),
    r"\d{1,2}([-/])\d{1,2}\1\d{4}": ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y"),
    r"\d{1,2}(\.)\d{1,2}\.\d{4}": ("%d{0}%m{0}%Y",),
    r"\d{4}([-/])\d{1,2}": ("%Y{0}%m",),
    r"\d{1,2}([-/])\d{4}": ("%m{0}%Y",),
    r"(?:0[1-9]|1[0-2])(\.)(?:19|20)\d\d": ("%m{0}%Y",),  # not 1.2345, a number
    r"\d{1,2}([- /])[a-z]{3}\1\d{4}": ("%d{0}%b{0}%Y",),
    r"\d{1,2}([- /])[a-z]{3,}\1\d{4}": ("%d{0}%B{0}%Y",),
    r"[a-z]{3} \d{1,2}(,?) \d{4}": ("%b %d{0} %Y",),
    r"[a-z]{3,} \d{1,2}(,?) \d{4}": ("%B %d{0} %Y",),
    r"[a-z]{3}([- /])\d{4}": ("%b{0}%Y",),
    r"[a-z]{3,}([- /])\d{4}": ("%B{0}%Y",),
    r"\d{4}([- /])[a-z]{3}": ("%Y{0}%b",),
    r"\d{4}([- /])[a-z]{3,}": ("%Y{0}%B",),
    r"\d{4}([- /])[a-z]{3}\1\d{1,2}": ("%Y{0}%b{0}%d",),
    r"\d{8}": ("%Y%m%d",),
}

#: Dates whose year has two digits, so that the century is a guess, and the order of parts too.
_SHORT_YEAR = (
    r"\d{1,2}([-/.])\d{1,2}\1\d{2}|(\d{1,2}[- /])?"
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-' /]+\d{2}"
)

#: The time of day, after the date.
_CLOCK = re.compile(
    r"(?P<gap>[ T]|, )(?P<minutes>\d{1,2}:\d\d)(?P<seconds>:\d\d)?(?P<fraction>[.,]\d+)?"
    r"(?P<half> ?[ap]m)?(?P<zone> ?(?:Z|UTC|[+-]\d\d(?::?\d\d)?))?",
    re.IGNORECASE,
)

#: The time of day in a column of its own.
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d)?( ?[ap]m)?", re.IGNORECASE)
_CLOCK_NAME = re.compile(r"time|zeit|uhrzeit|hora|heure|hour|clock", re.IGNORECASE)

#: The offset from UTC, after the time of day.
_OFFSET = re.compile(r":\d\d(\.\d+)? ?(Z|UTC|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)

_QUARTER = re.compile(r"(\d{4})([- ]?)Q([1-4])|Q([1-4])([- /]?)(\d{4})", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})(-?)W(\d\d)(-?[1-7])?", re.IGNORECASE)

#: Names of columns that count, and of those that hold years or seconds since 1970.
_COUNTER = re.compile(
    r"|#|index|unnamed: ?\d+|t|time|times|step|period|date|day|month|week|hour|minute|second"
    r"|obs|row|no|nr|n|id|x",
    re.IGNORECASE,
)
_YEAR = re.compile(r"year|years|yr|jahr|année|annee|año|ano|anno|fiscal.?year|date", re.IGNORECASE)
_TELLING = re.compile(
    r"date|datum|fecha|time|zeit|year|jahr|month|monat|mois|week|woche|quarter|quartal|period",
    re.IGNORECASE,
)
_TIME = re.compile(r"date|datum|time|timestamp|date.?time", re.IGNORECASE)
_HAS_YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")
_EPOCH = re.compile(r".*(time|epoch|unix|date|^ts$).*", re.IGNORECASE)

#: Numbers that may be years, or years and months.
_YEARS = 1000, 3000
_YEAR_AND_MONTH = re.compile(r"(1[6-9]|2[01])\d\d(0[1-9]|1[0-2])")

#: Seconds since 1970, of the years 2001 to 2128, and the units that they may be counted in.
_EPOCH_SECONDS = 1e9, 5e9
_EPOCH_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

#: Number of cells read to decide whether a column holds dates.
_SAMPLE = 1000

#: Times such as 1949.083 are this part of a step off at most.
_ROUNDED = 0.05

#: Maximum ratio of regular times to those in the table, which bounds the memory.
_SPARSEST = 10_000

#: Parts of a date that tables have in columns of their own, and how a date is made of them.
_PARTS = {
    ("year", "month", "day"): "{}-{}-{}",
    ("year", "month"): "{}-{}",
    ("year", "quarter"): "{}-Q{}",
    ("year", "week"): "{}-W{:0>2}",
}
_CALENDAR = re.compile(
    r"year|quarter|month|week|day|hour|minute|weekday|day_?of_?(week|year)", re.IGNORECASE
)

_SAID = {
    "D": "daily", "7D": "weekly", "h": "hourly", "min": "every minute", "s": "every second",
    1: "monthly", 3: "quarterly", 12: "yearly",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Times:
    """The times of the rows of a table.

    Attributes
    ----------
    column : str
        What they are called.
    columns : tuple of str
        The columns that they come from.
    values : pandas.DatetimeIndex or (n,) array of numbers
    show : callable
        Writes a time as the table does.
    """

    column: str
    columns: tuple[str, ...]
    values: Any
    show: Callable[[Any], str]


class _UnclearError(ValueError):
    """Cells that are dates, but may be read in several ways."""


class _Form(NamedTuple):
    """How dates are read and written, and one that is right."""

    parse: Callable[[Iterable[str]], Any]
    show: Callable[[Any], str]
    example: str


def find(table: Table, option: str | None, dayfirst: bool | None, form: str | None) -> Times | None:
    """Return the times of the rows, or None if no column holds any.

    Parameters
    ----------
    table : Table
    option : str, optional
        The column's name, or ``"none"``. Default: the only one that holds dates, or else counts.
    dayfirst : bool, optional
        Whether the day comes before the month where both could.
    form : str, optional
        The format of dates, as in ``strptime``.
    """
    if option == "none" and option not in table.columns:
        return None
    if option is not None:
        table.column(option, "--time says which column holds dates")
        times = _dates(table, option, dayfirst, form) or _counted(table, option, named=True)
        if times is None:
            cells = table.columns[option]
            wrong = (i for i, cell in enumerate(cells) if is_missing(cell) or not is_number(cell))
            expected = "a date or a whole number (--time-format says how to read it)"
            table.refuse(next(wrong, 0), option, expected)
        return times
    dates = [_dates(table, name, dayfirst, form, least=0.5) for name in table.columns]
    known = [times for times in dates if times is not None]
    if len(known) > 1:
        names = " and ".join(repr(times.column) for times in known)
        raise ValueError(f"{table.name}: columns {names} hold dates; --time says which to use")
    if known:
        return _with_clock(table, known[0], dayfirst)
    if form is not None:
        raise ValueError(f"{table.name}: expected a column of dates written as --time-format says")
    parts = _from_parts(table, dayfirst)
    if parts is not None:
        return parts
    if sum(any(map(is_number, column)) for column in table.columns.values()) < 2:
        _refuse_unknown_dates(table)
        return None  # the only numbers are the series
    counted = [_counted(table, name, named=False) for name in table.columns]
    # Rows may be numbered in any order of the years.
    times = min(filter(None, counted), key=_only_counts, default=None)
    if times is None:
        _refuse_wrong_years(table)
        _refuse_unknown_dates(table)
    return times


def _refuse_wrong_years(table: Table) -> None:
    """Raise if a column named after years has a few cells that are none."""
    for name, column in table.columns.items():
        wrong = [i for i, cell in enumerate(column) if not re.fullmatch(r"[12]\d{3}", cell.strip())]
        if _YEAR.fullmatch(name) and 0 < 2 * len(wrong) < len(column):
            table.refuse(wrong[0], name, "a year (--time none takes rows in order)")


def _refuse_unknown_dates(table: Table) -> None:
    """Raise if a column seems to tell times, but in another way than those known."""
    for name, column in table.columns.items():
        cells = [cell.strip() for cell in column]
        if any(map(is_number, cells)):
            telling = _TIME.fullmatch(name) is not None
        else:
            telling = bool(_TELLING.search(name)) or all(map(_HAS_YEAR.search, cells))
        if telling and len({*cells}) == len(cells) > 1:
            raise ValueError(
                f"{table.name}: column {name!r} may hold times, such as {cells[0]!r}; "
                "--time-format says how to read them, --time none takes rows in order"
            )


# Dates.


def _dates(
    table: Table, name: str, dayfirst: bool | None, form: str | None, least: float = 0.0
) -> Times | None:
    """Return the times of a column of dates; None if fewer than this part of it are dates."""
    cells = [cell.strip() for cell in table.columns[name]]
    known = [cell for cell in cells if not is_missing(cell)]
    sample = known[:: 1 + len(known) // _SAMPLE]
    dates = len(sample) if form is not None else sum(map(_is_date, sample))
    if not known or (least and dates < max(least * len(sample), 1)):
        return None
    try:
        read = _reading(known, dayfirst, form)
        if read is None:
            return None
        values = read.parse(cells)
    except _UnclearError as error:
        raise ValueError(f"{table.name}: column {name!r}: {error}") from None
    wrong = np.flatnonzero(values.isna())
    if len(wrong) > (1 - least) * len(cells) or len(wrong) == len(cells):
        return None
    if len(wrong):
        table.refuse(int(wrong[0]), name, f"a date such as {read.example!r}")
    return Times(name, (name,), values, read.show)


def _is_date(cell: str) -> bool:
    patterns = (*_DATES, _SHORT_YEAR)
    day = _split(cell)[0]
    return bool(_QUARTER.fullmatch(cell) or _WEEK.fullmatch(cell)) or any(
        re.fullmatch(pattern, day, re.IGNORECASE) for pattern in patterns
    )


def _split(cell: str) -> tuple[str, re.Match[str] | None]:
    """Return the date of a cell, and its time of day."""
    at = re.search(r"[ T,]+\d{1,2}:", cell)
    clock = _CLOCK.fullmatch(cell[at.start() :]) if at else None
    return (cell[: at.start()], clock) if at and clock else (cell, None)


def _reading(cells: Sequence[str], dayfirst: bool | None, form: str | None) -> _Form | None:
    """Return the form of cells, some of which may be wrong."""
    pd = pandas()
    if form is not None:
        return _by_format(form, cells[0])
    first = next((cell for cell in cells if _is_date(cell)), None)
    if first is None:
        return None
    if _QUARTER.fullmatch(first):
        return _quarters(first)
    if _WEEK.fullmatch(first):
        return _weeks(first)
    day, clock = _split(first)
    if re.fullmatch(_SHORT_YEAR, day, re.IGNORECASE):
        raise _UnclearError(
            f"{first!r} has a year of two digits; --time-format says how to read it, such as "
            "%d/%m/%y, or --time none that these are not dates"
        )
    if clock and re.fullmatch(r"\d{4}-\d{2}-\d{2}", day) and not clock["half"]:
        return _iso(first, clock)
    formats = [
        form.format(*match.groups()) + _clock_format(clock)
        for pattern, forms in _DATES.items()
        if (match := re.fullmatch(pattern, day, re.IGNORECASE))
        for form in forms
    ]
    values = {f: pd.to_datetime(pd.Series(cells), format=f, errors="coerce") for f in formats}
    valid = {f: int(v.notna().sum()) for f, v in values.items()}
    best = [f for f in formats if valid[f] == max(valid.values())]
    if len(best) > 1 and not values[best[0]].equals(values[best[1]]) and "%B" not in best[1]:
        if dayfirst is None:
            at = int((values[best[0]] != values[best[1]]).to_numpy().argmax())
            one, two = (values[f].iloc[at].date() for f in best)
            raise _UnclearError(
                f"{cells[at]!r} may be {one} or {two}; --dayfirst or --no-dayfirst says which"
            )
        best = best if dayfirst else best[1:]
    elif not valid[best[0]]:
        return None
    return _by_format(best[0], first)


def _by_format(form: str, example: str) -> _Form:
    pd = pandas()

    def parse(cells: Iterable[str]) -> Any:
        texts = [*cells]
        try:
            # Offsets may change between winter and summer.
            utc = "%z" in form and len({text[-6:] for text in texts}) > 1
            return pd.DatetimeIndex(pd.to_datetime(texts, format=form, errors="coerce", utc=utc))
        except ValueError as error:
            raise ValueError(f"--time-format: {error}") from None

    return _Form(parse, lambda time: str(time.strftime(form)), example)


def _clock_format(clock: re.Match[str] | None) -> str:
    """Return the format of a time of day."""
    if clock is None:
        return ""
    half = clock["half"]
    form = clock["gap"] + ("%I" if half else "%H") + ":%M" + (":%S" if clock["seconds"] else "")
    if clock["fraction"]:
        form += clock["fraction"][0] + "%f"
    form += (" " * half.startswith(" ") + "%p") if half else ""
    return form + (clock["zone"].replace(clock["zone"].strip(), "%z") if clock["zone"] else "")


def _iso(example: str, clock: re.Match[str]) -> _Form:
    """Read dates and times of ISO 8601, with seconds or without, and offsets that may change."""
    pd = pandas()

    def parse(cells: Iterable[str]) -> Any:
        texts = [*cells]
        if (
            0
            < sum(map(bool, map(_OFFSET.search, texts)))
            < sum(text[:4].isdigit() for text in texts)
        ):
            raise _UnclearError("some times have an offset from UTC, others have none")
        clocks = [clock for _, clock in map(_split, texts if clock["zone"] else []) if clock]
        several = len({clock["zone"] for clock in clocks}) > 1
        if several and len({clock["minutes"] for clock in clocks}) == 1:
            # The same time of day, in winter and in summer: the days are what counts.
            texts = [text.removesuffix((_split(text)[1] or {"zone": ""})["zone"]) for text in texts]
            several = False
        dates = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=several)
        return pd.DatetimeIndex(dates)

    def show(time: Any) -> str:
        long = clock["seconds"] or time.second or time.microsecond
        text = time.isoformat(clock["gap"], "auto" if long else "minutes")
        return str(text.replace("+00:00", "Z") if (clock["zone"] or "").strip() == "Z" else text)

    return _Form(parse, show, example)


def _quarters(example: str) -> _Form:
    pd = pandas()
    match = _QUARTER.fullmatch(example)
    year_first = match is not None and match[1] is not None
    between = "" if match is None else match[2] if year_first else match[5]

    def parse(cells: Iterable[str]) -> Any:
        matches = [_QUARTER.fullmatch(cell) for cell in cells]
        texts = [m and f"{m[1] or m[6]}-{int(m[3] or m[4]) * 3 - 2}" for m in matches]
        return pd.DatetimeIndex(pd.to_datetime(texts, format="%Y-%m", errors="coerce"))

    def show(time: Any) -> str:
        year, quarter = str(time.year), f"Q{time.quarter}"
        return between.join((year, quarter) if year_first else (quarter, year))

    return _Form(parse, show, example)


def _weeks(example: str) -> _Form:
    pd = pandas()
    match = _WEEK.fullmatch(example)
    between, day = ("", "") if match is None else (match[2], match[4] or "")

    def parse(cells: Iterable[str]) -> Any:
        matches = [_WEEK.fullmatch(cell) for cell in cells]
        texts = [m and f"{m[1]} {m[3]} {(m[4] or '1')[-1]}" for m in matches]
        return pd.DatetimeIndex(pd.to_datetime(texts, format="%G %V %u", errors="coerce"))

    def show(time: Any) -> str:
        weekday = day[:-1] + str(time.isoweekday()) if day else ""
        return str(time.strftime(f"%G{between}W%V")) + weekday

    return _Form(parse, show, example)


def _from_parts(table: Table, dayfirst: bool | None) -> Times | None:
    """Return the dates of columns named year and month (and day), quarter or week."""
    names = {name.casefold(): name for name in table.columns}
    found = next((parts for parts in _PARTS if names.keys() >= {*parts}), None)
    if found is None:
        return None
    parts = [names[part] for part in found]
    cells = [
        _PARTS[found].format(*(cell.strip().lstrip("QqWw") for cell in row))
        for row in zip(*(table.columns[p] for p in parts), strict=True)
    ]
    joined = dataclasses.replace(table, columns={"date": cells})
    times = _dates(joined, "date", dayfirst, None, least=0.5)
    return None if times is None else dataclasses.replace(times, columns=tuple(parts))


def _with_clock(table: Table, dates: Times, dayfirst: bool | None) -> Times:
    """Return dates with the times of day that are in another column, if there is one."""
    for name, clock in table.columns.items():
        if _CLOCK_NAME.fullmatch(name) and all(_TIME_OF_DAY.fullmatch(c.strip()) for c in clock):
            days = table.columns[dates.column]
            cells = [f"{d.strip()} {c.strip()}" for d, c in zip(days, clock, strict=True)]
            joined = dataclasses.replace(table, columns={dates.column: cells})
            times = _dates(joined, dates.column, dayfirst, None)
            if times is not None:
                return dataclasses.replace(times, columns=(dates.column, name))
    return dates


# Numbers.


def _counted(table: Table, name: str, named: bool) -> Times | None:
    """Return the times of a column of years, of seconds since 1970, or that counts.

    Unless it was named, its own name or place has to speak for it.
    """
    cells = [cell.strip() for cell in table.columns[name]]
    comma = table.separator != "," and any("," in cell for cell in cells)
    if comma:
        cells = [cell.replace(",", ".") for cell in cells]
    if not all(re.fullmatch(r"-?\d+(\.\d*)?", cell) for cell in cells):
        return None
    values = np.array(cells, np.float64)
    whole = bool((values == np.rint(values)).all())
    if not (np.abs(values) < 2**53).all():
        return None  # no longer exact
    if all(map(_YEAR_AND_MONTH.fullmatch, cells)) and (named or _TELLING.search(name)):
        form = _by_format("%Y%m", cells[0])
        return Times(name, (name,), form.parse(cells), form.show)
    for unit, scale in _EPOCH_UNITS.items():
        low, high = (bound * scale for bound in _EPOCH_SECONDS)
        if ((values >= low) & (values < high)).all() and (named or _EPOCH.fullmatch(name)):
            if whole:
                return _epoch(name, cells, unit)
            named = True  # with fractions they are numbers, which have to be equally spaced
    if whole:
        values = values.astype(np.int64)
    if named or (whole and _are_years(values, name)) or (_is_even(values) and _counts(table, name)):
        decimals = max(len(cell.partition(".")[2]) for cell in cells)
        mark = "," if comma else "."
        return Times(
            name, (name,), values,
            str if whole else lambda number: f"{number:.{decimals}f}".replace(".", mark),
        )  # fmt: skip
    return None


def _are_years(values: Array, name: str) -> bool:
    """Return whether whole numbers are years: by the column's name, and, unless it is usual, order.

    ``TIME_PERIOD`` may hold years, but also other numbers from 1000 to 3000.
    """
    if not ((values >= _YEARS[0]) & (values < _YEARS[1])).all():
        return False
    steps = np.diff(values)
    ordered = (steps > 0).all() or (steps < 0).all() or _is_even(np.unique(values))
    return bool(_YEAR.fullmatch(name) or (_TELLING.search(name) and ordered))


def _only_counts(times: Times) -> bool:
    return isinstance(times.values, np.ndarray) and not _are_years(times.values, times.column)


def _counts(table: Table, name: str) -> bool:
    return name == next(iter(table.columns)) or _COUNTER.fullmatch(name) is not None


def _is_even(values: Array) -> bool:
    """Return whether numbers, once sorted, are equally spaced, up to their rounding."""
    distances = np.diff(np.sort(values))
    if len(distances) < 2 or distances.min() <= 0:  # two numbers are always evenly spaced
        return False
    rounded = 0.0 if values.dtype.kind == "i" else _ROUNDED
    return bool(np.ptp(distances) <= rounded * distances.mean())


def _epoch(name: str, cells: Sequence[str], unit: str) -> Times:
    pd = pandas()
    values = pd.to_datetime(np.array(cells, np.float64).astype(np.int64), unit=unit)
    one = pd.Timedelta(1, unit=unit)
    start = pd.Timestamp(0)
    return Times(name, (name,), pd.DatetimeIndex(values), lambda time: str((time - start) // one))


def is_counter(table: Table, name: str) -> bool:
    """Return whether a column of numbers is a calendar's, or counts, and so is no series."""
    return _CALENDAR.fullmatch(name) is not None or _counted(table, name, named=False) is not None


# Steps.


@dataclasses.dataclass(frozen=True)
class Step:
    """The distance between times.

    Attributes
    ----------
    offset : a pandas offset, or a number
    said : str
        Such as "daily".
    """

    offset: Any
    said: str

    def between(self, first: Any, last: Any) -> Any:
        """Return all times from the first to the last."""
        if isinstance(self.offset, int | float):
            return first + self.offset * np.arange(round((last - first) / self.offset) + 1)
        return pandas().date_range(first, last, freq=self.offset)

    def positions(self, values: Any, expected: Any) -> Array:
        """Return where times are among those expected; -1 for others."""
        if isinstance(self.offset, int | float):
            at = (values - expected[0]) / self.offset
            near = np.abs(at - np.rint(at)) < _ROUNDED
            return np.where(near, np.rint(at), -1).astype(np.int64)
        return np.asarray(expected.get_indexer(values))

    def index(self, expected: Any, name: str) -> Any:
        """Return times as an index of a frame: dates, or whole numbers."""
        if isinstance(self.offset, int):
            first, last = int(expected[0]), int(expected[-1])
            return pandas().RangeIndex(first, last + self.offset, self.offset, name=name)
        if isinstance(self.offset, float):
            return pandas().RangeIndex(len(expected), name=name)
        return expected.rename(name)

    def after(self, last: Any, horizon: int) -> Any:
        """Return the times that follow the last one."""
        if isinstance(self.offset, int | float):
            return last + self.offset * np.arange(1, horizon + 1)
        return pandas().date_range(last, periods=horizon + 1, freq=self.offset)[1:]


def step_of(values: Any) -> Step | None:
    """Return the distance between sorted, distinct times that leaves the fewest gaps, if any."""
    if len(values) < 2:
        return None
    if isinstance(values, np.ndarray):
        return _step_of_numbers(values)
    best, step = 0.0, None
    for candidate in _candidates(values):
        expected = candidate.between(values[0], values[-1])
        complete = len(values) / max(len(expected), 1)
        if complete > best and values.isin(expected).all():
            best, step = complete, candidate
    return step


def stamps(values: Any) -> Array:
    """Return times as numbers in the same order."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.asi8)


def usual_step(values: Any) -> Step:
    """Return the most usual distance between sorted times."""
    if isinstance(values, np.ndarray):
        return Step(float(np.median(np.diff(values))), "unequally spaced")
    usual = pandas().Series(values[1:] - values[:-1]).mode()[0]
    return Step(_offset(usual), "unequally spaced")


def _offset(distance: Any) -> Any:
    """Return a distance of time as an offset of pandas."""
    pd = pandas()
    days, rest = divmod(distance, pd.Timedelta(days=1))
    return pd.tseries.frequencies.to_offset(distance) if rest else pd.offsets.Day(days)


def _step_of_numbers(values: Array) -> Step | None:
    distances = np.diff(values)
    usual = float(np.median(distances))
    if values.dtype.kind == "i":
        sizes, counts = np.unique(distances, return_counts=True)
        usual = int(sizes[counts.argmax()])
    steps = distances / usual
    if np.abs(steps - np.rint(steps)).max() > (0 if isinstance(usual, int) else _ROUNDED):
        return None
    if steps.sum() > _SPARSEST * len(values):
        return None
    if isinstance(usual, float):
        usual = float(distances.sum() / np.rint(steps).sum())  # the mean, as all are rounded
    years = usual == 1 and _YEARS[0] <= values[0] and values[-1] < _YEARS[1]
    return Step(usual, "yearly" if years else f"{usual:.6g} apart")


def _candidates(values: Any) -> list[Step]:
    """Return the distances that there may be between dates; of those alike, months first."""
    pd = pandas()
    steps = []
    months = int(np.diff(np.asarray(values.year * 12 + values.month)).min())
    same_time = (values.time == values[0].time()).all()
    if months > 0 and same_time:
        for fits, offset in (
            (values.is_month_end, pd.offsets.MonthEnd(months)),
            (values.day == values[0].day, pd.DateOffset(months=months)),
            (values.day >= 26, pd.offsets.BMonthEnd(months)),
            (values.day <= 3, pd.offsets.BMonthBegin(months)),
        ):
            if np.all(fits):
                steps.append(Step(offset, _SAID.get(months, f"every {months} months")))
    usual = pd.Series(values[1:] - values[:-1]).mode()[0]
    if (values[-1] - values[0]) / usual < _SPARSEST * len(values):
        offset = _offset(usual)
        steps.append(Step(offset, _SAID.get(offset.freqstr, f"every {offset.freqstr}")))
    if same_time and (values.day_of_week < 5).all():
        steps.append(Step(pd.offsets.BDay(), "on business days"))
    return steps
