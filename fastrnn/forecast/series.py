"""What callers pass as series: arrays, frames, or several of them, and the same for forecasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._types import Array
from fastrnn.forecast import missing, time_index
from fastrnn.forecast.time_index import TimeIndex


@dataclasses.dataclass(frozen=True)
class Layout:
    """The form in which a series was given, which its forecasts have too.

    Attributes
    ----------
    single : bool
        Whether it was given as (n,) rather than (n, K).
    library : {"pandas", "polars"} or None
    columns : list or None
        Names: of a frame's columns, or the one name of a series.
    index : TimeIndex or None
    """

    single: bool
    library: str | None = None
    columns: list[Any] | None = None
    index: TimeIndex | None = None

    def shown(self, values: Array, start: int) -> Any:
        """Return (h, K) values, the first of which is at position `start`, in this form."""
        values = values[:, 0] if self.single else values
        if self.library is None:
            return values
        try:
            module = import_module(self.library)
        except ImportError:  # a file, read where it is not installed
            return values
        times = None if self.index is None else self.index.times(start, start + len(values))
        names = self.columns
        if self.library == "pandas":
            if self.single:
                return module.Series(values, times, name=names[0] if names else None)
            return module.DataFrame(values, times, columns=names)
        if times is None and self.single:
            return module.Series(names[0] if names else None, values)
        columns = [] if times is None else [times]
        labels = names or []
        columns += [
            module.Series(label, column)
            for label, column in zip(labels, values.reshape(len(values), -1).T, strict=True)
        ]
        return module.DataFrame(columns)

    def labels(self, K: int) -> list[str]:
        """Return what the columns are called in tables and pictures."""
        if self.columns is None or self.columns == [None]:
            return [f"series {k}" for k in range(K)] if K > 1 else ["series"]
        return [str(name) for name in self.columns]


@dataclasses.dataclass(frozen=True)
class Track:
    """One series: values (n, K) without gaps, exog (n, E), and where in the season it begins."""

    values: Array
    exog: Array
    phase: float
    layout: Layout

    def __len__(self) -> int:
        return len(self.values)

    def until(self, stop: int) -> Track:
        """Return the series up to a position."""
        index = self.layout.index
        if index is not None:
            index = dataclasses.replace(index, size=stop)
        layout = dataclasses.replace(self.layout, index=index)
        return Track(self.values[:stop], self.exog[:stop], self.phase, layout)


def several(value: Any) -> list[Any] | None:
    """Return the keys, where `value` is several series: a mapping's, or positions in a list.

    A list holds several series where its items are arrays, series or frames; of lists of numbers,
    where their lengths differ, since those of equal length are the rows of one series.
    """
    if isinstance(value, Mapping):
        return list(value)
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(hasattr(item, "__array__") and np.ndim(item) for item in value):
        return list(range(len(value)))
    if all(isinstance(item, list | tuple) for item in value) and len(set(map(len, value))) > 1:
        return list(range(len(value)))
    return None


def item_name(name: str, key: Any) -> str:
    """Return what errors call one of several series."""
    return f"{name}[{key!r}]"


def matching(value: Any, keys: list[Any], name: str) -> list[Any]:
    """Return what belongs to each of several series: of a mapping, or a list in their order."""
    if value is None:
        return [None] * len(keys)
    if isinstance(value, Mapping):
        if set(value) != set(keys):
            raise ValueError(f"{name}: expected keys {keys}, got {list(value)}")
        return [value[key] for key in keys]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(keys):
        got = f"{len(value)}" if isinstance(value, Sequence) else type(value).__name__
        raise ValueError(f"{name}: expected one for each of {len(keys)} series, got {got}")
    return list(value)


@dataclasses.dataclass(frozen=True)
class Rules:
    """What values must be: settings of a forecaster."""

    log: bool = False
    floor: float | None = None
    fill: Any = None


def read(
    value: Any, name: str, rules: Rules, *, least: int = 1, like: Layout | None = None
) -> tuple[Array, Layout]:
    """Return one series as (n, K) float64, without gaps, and its form.

    Raises
    ------
    ValueError
        If it has another shape, fewer than `least` values, some that are missing or do not fit the
        rules, or its times are not in order, with gaps or double.
    TypeError
        If it does not hold real numbers.
    """
    known = like.index if like is not None else None
    index, rows = TimeIndex.of(value, name, like=known, gaps=rules.fill is not None)
    library = time_index.library(value)
    columns = None
    if library is not None and len(getattr(value, "shape", ())) == 2:
        if index is not None and library == "polars":
            value = value.drop(index.name)
        columns = list(value.columns)
    elif library is not None:
        columns = [getattr(value, "name", None)]
    values = _numbers(value, name, library)
    if values.ndim not in (1, 2) or (values.ndim == 2 and not values.shape[1]):
        shape = _checks.shape_text(values.shape)
        raise ValueError(f"{name}: expected shape (n,) or (n, K), got {shape}")
    if not len(values):
        raise ValueError(f"{name}: expected one value or more, got none")
    single = values.ndim == 1
    values = _checks.copied(values).astype(np.float64, copy=False).reshape(len(values), -1)
    if rows is not None and index is not None:
        values, given = np.full((index.size, values.shape[1]), np.nan), values
        values[rows] = given
    layout = Layout(single, library, columns, index)
    if len(values) < least:
        raise ValueError(f"{name}: expected at least {least} values, got {len(values)}")
    if rules.fill is not None:
        values = missing.filled(values, rules.fill, name)
    expect(values, name, rules, layout)
    return values, layout


def _numbers(value: Any, name: str, library: str | None) -> Array:
    """Return an array of real numbers, with NaN for what is missing."""
    if library is not None and (kind := _frames.not_numbers(value)) is not None:
        hint = ""
        if "date" in kind and library == "pandas":
            hint = f"; make it the index: {name}.set_index(column)"
        elif "String" in kind:
            hint = "; dates as text are read by pl.col(column).str.to_date()"
        raise TypeError(f"{name}: expected real numbers, got {kind}{hint}")
    values = _frames.values(value, name, missing="nan")
    if values.dtype.kind not in "fiub":
        found = _frames.kind_of(value, values)
        raise TypeError(f"{name}: expected an array of real numbers, got {found}")
    return values


def expect(values: Array, name: str, rules: Rules, layout: Layout) -> None:
    """Raise if a value is missing or does not fit the rules."""
    with np.errstate(invalid="ignore"):
        low = values <= 0 if rules.log else np.zeros(values.shape, bool)
        under = values < rules.floor if rules.floor is not None else np.zeros(values.shape, bool)
    wrong = ~np.isfinite(values) | low | under
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0].tolist()
    value = values[row, column]
    expected = "finite numbers"
    if np.isfinite(value):
        expected = (
            "numbers above 0, for log"
            if low[row, column]
            else f"numbers of at least {rules.floor:g}, the floor"
        )
    where = f"position {row}"
    if layout.index is not None and layout.index.kind != "numbers":
        where += f", {time_index.text(layout.index.times(row, row + 1)[0])}"
    if values.shape[1] > 1:
        where += (
            f", in column {layout.columns[column]!r}" if layout.columns else f", column {column}"
        )
    hint = "; fill= says how to replace what is missing" if np.isnan(value) else ""
    raise ValueError(f"{name}: expected {expected}, got {value} at {where}{hint}")
