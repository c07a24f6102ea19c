"""The distance between the times of a table's rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.cli.tables import pandas

#: Numbers that may be years.
YEARS = 1000, 3000

#: Times such as 1949.083 are this part of a step off at most.
ROUNDED = 0.05

#: Maximum ratio of regular times to those in the table, which bounds the memory.
_SPARSEST = 10_000

_SAID = {
    "D": "daily", "7D": "weekly", "h": "hourly", "min": "every minute", "s": "every second",
    1: "monthly", 3: "quarterly", 12: "yearly",
}  # fmt: skip


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
            near = np.abs(at - np.rint(at)) < ROUNDED
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
    if np.abs(steps - np.rint(steps)).max() > (0 if isinstance(usual, int) else ROUNDED):
        return None
    if steps.sum() > _SPARSEST * len(values):
        return None
    if isinstance(usual, float):
        usual = float(distances.sum() / np.rint(steps).sum())  # the mean, as all are rounded
    years = usual == 1 and YEARS[0] <= values[0] and values[-1] < YEARS[1]
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
