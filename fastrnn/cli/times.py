"""The column of a table that says when: dates, years, seconds since 1970, or numbers that count."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.cli.dates import UnclearError, by_format, is_date, reading
from fastrnn.cli.steps import ROUNDED, YEARS
from fastrnn.cli.tables import Table, is_missing, is_number, pandas

#: The time of day in a column of its own.
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d)?( ?[ap]m)?", re.IGNORECASE)
_CLOCK_NAME = re.compile(r"time|zeit|uhrzeit|hora|heure|hour|clock", re.IGNORECASE)

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

#: Numbers that may be years and months.
_YEAR_AND_MONTH = re.compile(r"(1[6-9]|2[01])\d\d(0[1-9]|1[0-2])")

#: Seconds since 1970, of the years 2001 to 2128, and the units that they may be counted in.
_EPOCH_SECONDS = 1e9, 5e9
_EPOCH_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

#: Number of cells read to decide whether a column holds dates.
_SAMPLE = 1000

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
    dates = len(sample) if form is not None else sum(map(is_date, sample))
    if not known or (least and dates < max(least * len(sample), 1)):
        return None
    try:
        read = reading(known, dayfirst, form)
        if read is None:
            return None
        values = read.parse(cells)
    except UnclearError as error:
        raise ValueError(f"{table.name}: column {name!r}: {error}") from None
    wrong = np.flatnonzero(values.isna())
    if len(wrong) > (1 - least) * len(cells) or len(wrong) == len(cells):
        return None
    if len(wrong):
        table.refuse(int(wrong[0]), name, f"a date such as {read.example!r}")
    return Times(name, (name,), values, read.show)


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
        form = by_format("%Y%m", cells[0])
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
    if not ((values >= YEARS[0]) & (values < YEARS[1])).all():
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
    rounded = 0.0 if values.dtype.kind == "i" else ROUNDED
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
