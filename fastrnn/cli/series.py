"""Series of ``fastrnn forecast``: read from a table, sorted by time, without gaps."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.cli import steps, tables, times
from fastrnn.cli.parser import number

#: What stands beside the sums in the last row of many tables.
_TOTAL = re.compile(r"(grand )?total|sum|average|mean|summe|gesamt|totale?", re.IGNORECASE)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options that say which series a table has."""
    parser.add_argument(
        "--columns",
        type=lambda names: names.split(","),
        action="extend",
        metavar="NAME,...",
        help="columns to forecast (default: all columns of numbers, except those that count rows "
        "or time)",
    )
    parser.add_argument(
        "--column",
        action="append",
        dest="columns",
        metavar="NAME",
        help="one such column; may be repeated",
    )
    parser.add_argument(
        "--time",
        metavar="NAME",
        help="column of dates, or of numbers that count; rows are sorted by it; none for rows in "
        "order (default: the only column of dates, or else of years or the like)",
    )
    parser.add_argument(
        "--dayfirst",
        action=argparse.BooleanOptionalAction,
        help="whether 03/04/2024 is in April; needed where the dates do not show it",
    )
    parser.add_argument(
        "--time-format", metavar="FORMAT", help="format of the dates, such as %%d/%%m/%%y"
    )
    parser.add_argument(
        "--id", metavar="NAME", help="column that tells apart series that stand below each other"
    )
    parser.add_argument(
        "--fill",
        type=_fill,
        metavar="HOW",
        help="what to do about missing values and gaps in time: linear, previous, mean or a number "
        "to put there, skip to take rows as equally spaced (default: an error); rows of the same "
        "time are averaged",
    )
    parser.add_argument("--decimal", metavar="CHAR", help="decimal mark (default: found by itself)")
    tables.add_options(parser)


def _fill(value: str) -> str | float:
    if value in ("linear", "previous", "mean", "skip"):
        return value
    return number(value, "linear, previous, mean, skip or a number")


@dataclasses.dataclass(frozen=True)
class Series:
    """Series read from a table.

    Attributes
    ----------
    frames : dict of str to pandas.DataFrame
        The series of each id, in order of time; of a table without ids, the only one.
    when : Times or None
    step : Step or None
    ends : dict of str to a time
        The last time of each.
    by : str or None
        The column of ids.
    said : str
        What was read, in one line.
    """

    frames: dict[str, Any]
    when: times.Times | None
    step: steps.Step | None
    ends: dict[str, Any]
    by: str | None
    said: str

    @property
    def frame(self) -> Any:
        """The longest."""
        return max(self.frames.values(), key=len)

    @property
    def given(self) -> Any:
        """What is fitted."""
        single = self.frame.shape[1] == 1
        given = {name: f.iloc[:, 0] if single else f for name, f in self.frames.items()}
        return given if self.by is not None else given[""]

    def rows(self, horizon: int, results: Sequence[Any]) -> list[list[str | float]]:
        """Return a table of the results: forecasts and, perhaps, lower and upper bounds."""
        columns = list(self.frame.columns)
        sides = ("", " lower", " upper")[: len(results)]
        by = [] if self.by is None else [self.by]
        first = [*by, self.when.column if self.when else "step"]
        rows: list[list[str | float]] = [
            [*first, *(f"{column}{side}" for column in columns for side in sides)]
        ]
        for name in self.frames:
            each = [result if self.by is None else result[name] for result in results]
            values = np.stack([np.asarray(r).reshape(horizon, -1) for r in each], axis=2)
            for when, row in zip(self._after(name, horizon), values, strict=True):
                rows.append([*([name] if by else []), when, *row.ravel().tolist()])
        return rows

    def _after(self, name: str, horizon: int) -> list[str]:
        """Return the times of the forecasts, as text."""
        if self.when is None or self.step is None:
            return [str(k + 1) for k in range(horizon)]
        return [self.when.show(time) for time in self.step.after(self.ends[name], horizon)]


def read(args: argparse.Namespace) -> Series:
    """Return the series of a table."""
    pd = tables.pandas()
    table = tables.read(args.file, args)
    if args.id is not None:
        table.column(args.id, "--id says which column tells series apart")
    when = times.find(table, args.time, args.dayfirst, args.time_format)
    chosen = [*dict.fromkeys(args.columns or _numeric(table, when, args.id))]
    for name in chosen:
        table.column(name, "--columns says what to forecast")
    decimal = tables.decimal_of(table, chosen, args.decimal)
    values = np.column_stack([tables.numbers(table, name, decimal) for name in chosen])
    if args.fill in (None, "skip"):
        for i, k in np.argwhere(np.isnan(values))[:1]:
            table.refuse(int(i), chosen[k], "a number (--fill says how to fill gaps)")
    _check_total(table, chosen)
    order = {"": np.arange(len(table))} if args.id is None else _groups(table, args.id)
    span, step, ends = "in order, without times", None, {}
    if when is None:
        frames = {name: pd.DataFrame(values[rows], columns=chosen) for name, rows in order.items()}
    else:
        reader = _Reader(table, when, args.fill)
        order = {name: reader.order(rows) for name, rows in order.items()}
        step = reader.step([*order.values()])
        span = reader.span([*order.values()], step)
        frames = {
            name: pd.DataFrame(*reader.regular(rows, values[rows], step), chosen)
            for name, rows in order.items()
        }
        ends = {name: when.values[rows[-1]] for name, rows in order.items()}
    of = f"{len(order)} series by {args.id}, " if args.id else ""
    said = f"{table.name}: {of}{_names(chosen)}, {len(table):,} row{'s' * (len(table) > 1)}, {span}"
    gaps = sum(int(frame.isna().to_numpy().sum()) for frame in frames.values())
    notes = {
        "decimal comma": decimal == ",",
        "sorted by time": any((np.diff(rows) < 0).any() for rows in order.values()),
        f"values to fill in: {gaps}": gaps,
    }
    said = ", ".join([said, *(note for note, true in notes.items() if true)])
    return Series(frames, when, step, ends, args.id, said)


def _names(columns: Sequence[str]) -> str:
    shown = [*columns[:5], *(["..."] if len(columns) > 5 else [])]
    return f"{len(columns)} column{'s' * (len(columns) > 1)} ({', '.join(shown)})"


def _numeric(table: tables.Table, when: times.Times | None, by: str | None) -> list[str]:
    """Return the columns that contain numbers, but for those that tell times or ids."""
    known = {by, *(when.columns if when else ())}
    others = {name: cells for name, cells in table.columns.items() if name not in known}
    chosen = [name for name, cells in others.items() if any(map(tables.is_number, cells))]
    if len(chosen) > 1 or when is not None:
        chosen = [name for name in chosen if not times.is_counter(table, name)] or chosen
    if not chosen:
        besides = ", ".join(repr(name) for name in table.columns if name in known)
        expected = "a column of numbers" + f" besides {besides}" * bool(besides)
        raise ValueError(
            f"{table.name}: expected {expected}, got {', '.join(map(repr, others)) or 'none'}"
            + " in one column (--sep names a separator)" * (len(table.columns) == 1)
        )
    return chosen


def _check_total(table: tables.Table, chosen: Sequence[str]) -> None:
    """Raise if the last row looks like sums of the others."""
    for name, cells in table.columns.items():
        if name not in chosen:
            totals = [_TOTAL.fullmatch(cell.strip().rstrip(":")) is not None for cell in cells]
            if totals[-1] and not any(totals[:-1]):
                table.refuse(len(cells) - 1, name, "a row like the others at the end")


def _groups(table: tables.Table, by: str) -> dict[str, Array]:
    """Return the rows of each id."""
    groups: dict[str, list[int]] = {}
    for i, cell in enumerate(table.column(by, "--id says which column tells series apart")):
        if not cell.strip():
            table.refuse(i, by, "the id of a series")
        groups.setdefault(cell.strip(), []).append(i)
    return {name: np.array(rows) for name, rows in groups.items()}


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Orders the rows of a table by time.

    Attributes
    ----------
    table : Table
    when : Times
    fill : str or float, optional
        The option.
    """

    table: tables.Table
    when: times.Times
    fill: str | float | None

    def order(self, rows: Array) -> Array:
        """Return rows in order of time."""
        stamps = steps.stamps(self.when.values)[rows]
        rows = rows[np.argsort(stamps, kind="stable")]
        same = np.flatnonzero(np.diff(np.sort(stamps)) == 0)
        if len(same) and self.fill is None:
            one, two = rows[same[0]], rows[same[0] + 1]
            raise ValueError(
                f"{self.table.name}: rows {self._row(one)} and {self._row(two)} are both of "
                f"{self._show(two)}; --id names a column that tells series apart, --fill averages"
            )
        return rows

    def step(self, groups: Sequence[Array]) -> steps.Step | None:
        """Return the distance between times: that of the longest series."""
        values = [self.when.values[rows] for rows in groups]
        longest = max(values, key=len)
        stamps = steps.stamps(longest)
        step = steps.step_of(longest[np.append(True, np.diff(stamps) > 0)])
        if step is None and len(longest) > 1:
            if self.fill == "skip":
                return steps.usual_step(longest)
            rows = groups[[v is longest for v in values].index(True)]
            self._refuse_uneven(rows)
        return step

    def regular(self, rows: Array, cells: Array, step: steps.Step | None) -> tuple[Array, Any]:
        """Return the cells of all times from the first to the last of `rows`, and the times.

        The cells of times without a row are NaN, those of times with several are averaged.
        """
        pd = tables.pandas()
        if step is None or self.fill == "skip":
            return cells, pd.RangeIndex(len(rows))
        values = self.when.values[rows]
        expected = step.between(values[0], values[-1])
        at = step.positions(values, expected)
        if (at < 0).any():
            self._refuse_uneven(rows)
        missing = np.setdiff1d(np.arange(len(expected)), at)
        if len(missing):
            if self.fill is None:
                self._refuse_gap(rows, expected, at, int(missing[0]), step)
            cells = pd.DataFrame(cells).groupby(at).mean().reindex(range(len(expected))).to_numpy()
        elif len(expected) < len(at):
            cells = pd.DataFrame(cells).groupby(at).mean().to_numpy()
        return cells, step.index(expected, self.when.column)

    def _row(self, i: Any) -> int:
        return int(self.table.first + i)

    def _show(self, i: Any) -> str:
        return self.when.show(self.when.values[i])

    def _refuse_uneven(self, rows: Array) -> None:
        distances = np.diff(steps.stamps(self.when.values)[rows])
        if not distances.any():
            raise ValueError(f"{self.table.name}: expected rows of several times")
        at = int((distances != np.median(distances)).argmax())
        one, two = rows[at], rows[at + 1]
        raise ValueError(
            f"{self.table.name}: expected equally spaced times, got {self._show(one)} and then "
            f"{self._show(two)} (rows {self._row(one)} and {self._row(two)}); --fill skip takes "
            "rows as equally spaced"
        )

    def _refuse_gap(
        self, rows: Array, expected: Any, at: Array, missing: int, step: steps.Step
    ) -> None:
        before = rows[np.flatnonzero(at < missing)[-1]]
        raise ValueError(
            f"{self.table.name}: nothing for {self.when.show(expected[missing])}, after row "
            f"{self._row(before)} ({self._show(before)}), though times are {step.said}; --fill "
            "says how to fill gaps"
        )

    def span(self, groups: Sequence[Array], step: steps.Step | None) -> str:
        """Return the first and last time, and the distance between times, as text."""
        when = self.when.values
        first = min((rows[0] for rows in groups), key=lambda i: when[i])
        last = max((rows[-1] for rows in groups), key=lambda i: when[i])
        every = "" if step is None else f", {step.said}"
        return f"{self._show(first)} to {self._show(last)}{every}"
