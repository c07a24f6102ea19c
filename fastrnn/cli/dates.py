"""How dates are written, as tables have them, and how they are read and written again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fastrnn.cli.tables import pandas

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

#: The offset from UTC, after the time of day.
_OFFSET = re.compile(r":\d\d(\.\d+)? ?(Z|UTC|[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)

_QUARTER = re.compile(r"(\d{4})([- ]?)Q([1-4])|Q([1-4])([- /]?)(\d{4})", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})(-?)W(\d\d)(-?[1-7])?", re.IGNORECASE)


class UnclearError(ValueError):
    """Cells that are dates, but may be read in several ways."""


class Form(NamedTuple):
    """How dates are read and written, and one that is right."""

    parse: Callable[[Iterable[str]], Any]
    show: Callable[[Any], str]
    example: str


def is_date(cell: str) -> bool:
    """Return whether a cell is written as dates are."""
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


def reading(cells: Sequence[str], dayfirst: bool | None, form: str | None) -> Form | None:
    """Return the form of cells, some of which may be wrong."""
    pd = pandas()
    if form is not None:
        return by_format(form, cells[0])
    first = next((cell for cell in cells if is_date(cell)), None)
    if first is None:
        return None
    if _QUARTER.fullmatch(first):
        return _quarters(first)
    if _WEEK.fullmatch(first):
        return _weeks(first)
    day, clock = _split(first)
    if re.fullmatch(_SHORT_YEAR, day, re.IGNORECASE):
        raise UnclearError(
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
            raise UnclearError(
                f"{cells[at]!r} may be {one} or {two}; --dayfirst or --no-dayfirst says which"
            )
        best = best if dayfirst else best[1:]
    elif not valid[best[0]]:
        return None
    return by_format(best[0], first)


def by_format(form: str, example: str) -> Form:
    """Return how dates in a format of `strftime` are read and written."""
    pd = pandas()

    def parse(cells: Iterable[str]) -> Any:
        texts = [*cells]
        try:
            # Offsets may change between winter and summer.
            utc = "%z" in form and len({text[-6:] for text in texts}) > 1
            return pd.DatetimeIndex(pd.to_datetime(texts, format=form, errors="coerce", utc=utc))
        except ValueError as error:
            raise ValueError(f"--time-format: {error}") from None

    return Form(parse, lambda time: str(time.strftime(form)), example)


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


def _iso(example: str, clock: re.Match[str]) -> Form:
    """Read dates and times of ISO 8601, with seconds or without, and offsets that may change."""
    pd = pandas()

    def parse(cells: Iterable[str]) -> Any:
        texts = [*cells]
        if (
            0
            < sum(map(bool, map(_OFFSET.search, texts)))
            < sum(text[:4].isdigit() for text in texts)
        ):
            raise UnclearError("some times have an offset from UTC, others have none")
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

    return Form(parse, show, example)


def _quarters(example: str) -> Form:
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

    return Form(parse, show, example)


def _weeks(example: str) -> Form:
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

    return Form(parse, show, example)
