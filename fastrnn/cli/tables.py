"""Tables: CSV, TSV and their kin, read with pandas, and checked for what pandas forgives."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.cli.files import add_encoding, read_text, shown

#: Separators that are found without ``--sep``, and the one of a table with a single column.
_SEPARATORS = ("\t", ";", ",", "|")
_NO_SEPARATOR = "\x1f"

#: Number of rows read to find the separator.
_SAMPLE = 200

#: Suffixes of files whose cells are separated by tabs, whatever they contain.
_TSV = re.compile(r"\.(tsv|tab)(\.\w+)?$", re.IGNORECASE)

#: The cells that pandas takes for missing ones.
MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
     "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)  # fmt: skip


def pandas() -> Any:
    """Return the module pandas."""
    try:
        import pandas
    except ImportError:
        raise ImportError("reading tables needs pandas: pip install 'fastrnn[data]'") from None
    return pandas


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options that say how a table is written."""
    parser.add_argument(
        "--sep", metavar="CHAR", help="separator of columns, or tab (default: found by itself)"
    )
    parser.add_argument(
        "--quote",
        metavar="CHAR",
        help='character around quoted cells, or none (default: ", and none where tabs separate)',
    )
    add_encoding(parser)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    name : str
        The file's, for messages.
    separator : str
    columns : mapping of str to list of str
        The cells below each name of the header.
    first : int
        The row of the first cell, as a spreadsheet would number it.
    """

    name: str
    separator: str
    columns: Mapping[str, list[str]]
    first: int

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, option: str) -> list[str]:
        """Return the cells of a column; `option` is a hint for the error if there is none."""
        if name not in self.columns:
            hint = _checks.near(name, self.columns) or f" ({option})"
            names = ", ".join(map(str, self.columns))
            raise ValueError(f"{self.name}: expected a column {name!r}, got {names}{hint}")
        return self.columns[name]

    def refuse(self, i: int, column: str, expected: str) -> NoReturn:
        """Raise because of the cell in the i-th row."""
        cell = self.columns[column][i]
        got = f"{cell[:40]!r}{'...' * (len(cell) > 40)}" if cell.strip() else "an empty cell"
        where = f"{self.name}: row {self.first + i}, column {column!r}"
        raise ValueError(f"{where}: expected {expected}, got {got}")


def read(path: str, args: argparse.Namespace) -> Table:
    """Read a table from a file; `args` are those of :func:`add_options`."""
    pandas()  # where it is missing, say so before reading
    return parse(read_text(path, args.encoding), path, args)


def parse(text: str, path: str, args: argparse.Namespace) -> Table:
    """Read a table from the text of a file."""
    pd = pandas()
    name = shown(path)
    lead, given = _lead(text)
    body = "".join(itertools.islice(io.StringIO(text), lead, None)).rstrip("\n")
    if not body.strip():
        raise ValueError(f"{name}: expected a header of distinct names, and a row or more")
    separator = _separator_option(args.sep) or given or ("\t" if _TSV.search(path) else None)
    separator = separator or _likely_separator(body, name, _quoting(args.quote, ""))
    quoting = _quoting(args.quote, separator)
    if lead and (header := _commented_header(text.split("\n", lead)[lead - 1], body, separator)):
        lead, body = lead - 1, f"{header}\n{body}"
    _check_shape(body, name, separator, quoting, lead)
    frame = pd.read_csv(
        io.StringIO(body), sep=separator, header=None, dtype=str, na_filter=False,
        skip_blank_lines=False, lineterminator="\n", skipinitialspace=separator != "\t", **quoting,
    )  # fmt: skip
    cells = [frame[k].tolist() for k in frame]
    while len(cells[0]) > 1 and not any(column[-1].strip() for column in cells):
        for column in cells:
            column.pop()
    columns = [(header.strip(), column) for header, *column in cells]
    # An empty column, such as one after a separator at the end of each line, is none.
    columns = [(header, column) for header, column in columns if header or any(column)]
    _check_header([header for header, _ in columns], name, rows=len(cells[0]) - 1)
    return Table(name, separator, dict(columns), lead + 2)


def _lead(text: str) -> tuple[int, str | None]:
    """Return how many lines come before the header, and the separator that Excel's name there."""
    separator = None
    for i, line in enumerate(io.StringIO(text)):
        excel = re.fullmatch(r'"?sep=(.)"?', line.strip("\n"), re.IGNORECASE)
        if excel:
            separator = excel[1]
        elif line.strip() and not line.startswith("#"):
            return i, separator
    return i + 1, separator


def _commented_header(line: str, body: str, separator: str) -> str | None:
    """Return the header in the line before the first row, which is one of data, as after ``#``."""
    header = line.lstrip("# ")
    first = body.partition("\n")[0].split(separator)
    is_data = any(map(is_number, first))
    same = line.startswith("#") and len(header.split(separator)) == len(first)
    return header if is_data and same else None


def _separator_option(value: str | None) -> str | None:
    separator = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if separator is not None and (len(separator) != 1 or separator in '\n\r"'):
        raise ValueError(f"--sep: expected one character, or tab, got {value!r}")
    return separator


def _quoting(option: str | None, separator: str) -> dict[str, Any]:
    """Return the options for quotes, which csv and pandas share."""
    quote = option or ("none" if separator == "\t" else '"')
    if quote == "none":
        return {"quoting": csv.QUOTE_NONE}
    if len(quote) != 1:
        raise ValueError(f"--quote: expected one character, or none, got {option!r}")
    return {"quotechar": quote}


def _likely_separator(body: str, name: str, quoting: Mapping[str, Any]) -> str:
    """Return the separator that is in the header, and cuts most rows into as many cells."""
    scores = {}
    for separator in _SEPARATORS:
        options = {"quoting": csv.QUOTE_NONE} if separator == "\t" else quoting
        rows = itertools.islice(_rows(body, separator, options), _SAMPLE)
        widths = [len(row) for row in rows if row]
        if widths[0] > 1:
            share = sum(width == widths[0] for width in widths) / len(widths)
            scores[separator] = share, widths[0]
    best = [separator for separator in scores if scores[separator] == max(scores.values())]
    if len(best) > 1:
        either = " or ".join(map(repr, best))
        raise ValueError(f"{name}: cells may be separated by {either}; --sep says by which")
    return best[0] if best else _NO_SEPARATOR


def _rows(body: str, separator: str, options: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows as the standard library reads them, with cells of any length."""
    # Lines end at newlines only.
    lines = (line.replace("\r", " ") + "\n" for line in body.split("\n"))
    before = csv.field_size_limit(2**31 - 1)
    try:
        spaces = separator != "\t"
        yield from csv.reader(lines, delimiter=separator, skipinitialspace=spaces, **options)
    finally:
        csv.field_size_limit(before)


def _check_shape(
    body: str, name: str, separator: str, quoting: Mapping[str, Any], lead: int
) -> None:
    """Raise for rows that are too short, and for quotes that don't end where a cell ends.

    pandas would fill such rows up, and read on to the next quote, some rows later.
    """
    row, width = lead, 0
    try:
        for row, cells in enumerate(_rows(body, separator, {**quoting, "strict": True}), lead + 1):
            width = width or len(cells)
            if len(cells) != width and not (width == 1 and not cells):
                raise ValueError(
                    f"{name}: row {row}: expected {width} column{'s' * (width > 1)}, "
                    f"got {len(cells)}"
                    + f" (separated by {separator!r}; --sep names another one)"
                    * (row == lead + 2)
                )
    except csv.Error as error:
        raise ValueError(
            f"{name}: row {row + 1}: a quoted cell does not end as it should ({error}); "
            "--quote none takes quotes as they are"
        ) from None


def _check_header(names: Sequence[str], name: str, rows: int) -> None:
    expected = f"{name}: expected a header of distinct names, and a row or more"
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise ValueError(f"{expected}, got {twice!r} twice")
    if not rows:
        raise ValueError(expected)
    if not any(n and not is_number(n) and not re.match(r"\d+[-/.:]\d+", n) for n in names):
        raise ValueError(f"{expected}, got {', '.join(names)}")


# Numbers.

#: Currencies and per cent, which may stand before or after all numbers of a column.
_UNITS = re.compile(r"([+-]?)\s*([$€£¥]?)\s*([+-]?)(.*?)\s*([%$€£¥]?)", re.DOTALL)

#: Groups of three digits are separated by a space, an apostrophe, or the one of point and comma
#: that does not separate decimals.
_GROUPS = r" \u00a0\u2009\u202f'\u2019"


def _pattern(decimal: str) -> re.Pattern[str]:
    groups = _GROUPS + (",." if decimal not in ".," else "," if decimal == "." else ".")
    point, exponent = re.escape(decimal), r"(?:[eE][+-]?\d+)?"
    whole = rf"(?:\d+|[1-9]\d{{0,2}}([{groups}])\d{{3}}(?:\1\d{{3}})*)"
    return re.compile(rf"(?:{whole}(?:{point}\d*)?|{point}\d+){exponent}")


_POINT, _COMMA = _pattern("."), _pattern(",")

#: Most tables have numbers like these, which need no further look.
_PLAIN = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def _parts(cell: str) -> tuple[str, str, str]:
    """Return unit, sign and digits of a cell."""
    match = _UNITS.fullmatch(cell.strip().replace("\u2212", "-"))
    before, unit, after, digits, suffix = match.groups() if match else ("",) * 5
    return unit + suffix, before or after, digits if not (before and after) else ""


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, written with a decimal point or comma."""
    digits = _parts(cell)[2]
    return bool(_POINT.fullmatch(digits) or _COMMA.fullmatch(digits))


def is_missing(cell: str) -> bool:
    """Return whether a cell stands for a missing value."""
    return cell.strip() in MISSING


def decimal_of(table: Table, columns: Iterable[str], option: str | None) -> str:
    """Return the character before decimals in these columns."""
    if option is not None:
        if len(option) != 1 or option.isalnum() or option == table.separator:
            raise ValueError(
                f"--decimal: expected a character such as . or , other than the separator, "
                f"got {option!r}"
            )
        return option
    columns = list(columns)
    if table.separator != ";" and all(_are_plain(table.columns[name]) for name in columns):
        return "."
    proofs: dict[str, str] = {}
    doubts: dict[str, str] = {}
    for name in columns:
        for i, cell in enumerate(table.columns[name]):
            digits = _parts(cell)[2]
            mark = next((c for c in digits if c in ".,"), None)
            marks = [m for m, of in ((".", _POINT), (",", _COMMA)) if mark and of.fullmatch(digits)]
            if mark and marks:
                where = f"row {table.first + i}, column {name!r}: {cell.strip()!r}"
                (proofs if len(marks) == 1 else doubts).setdefault(
                    marks[0] if len(marks) == 1 else mark, where
                )
    if len(proofs) == 2:
        raise ValueError(
            f"{table.name}: {proofs['.']} has a decimal point, but {proofs[',']} a decimal comma; "
            "--decimal says which it is"
        )
    if proofs:
        return next(iter(proofs))
    # Programs separate cells by semicolons because commas separate decimals.
    for mark in {",": "", ";": ".,"}.get(table.separator, ","):
        if mark in doubts:
            raise ValueError(
                f"{table.name}: {doubts[mark]}: thousands or decimals? --decimal . or "
                "--decimal , says so"
            )
    return "."


def _are_plain(cells: Iterable[str]) -> bool:
    return all(map(_PLAIN.fullmatch, cells))


def numbers(table: Table, name: str, decimal: str) -> Array:
    """Return a column as float64, with NaN where cells are missing."""
    pattern = {".": _POINT, ",": _COMMA}.get(decimal) or _pattern(decimal)
    cells = table.columns[name]
    if decimal == "." and _are_plain(cells):
        values = np.array(cells, np.float64)
        if np.isinf(values).any():
            table.refuse(int(np.isinf(values).argmax()), name, "a finite number")
        return values
    values = np.empty(len(table))
    first: tuple[str, int] | None = None
    for i, cell in enumerate(cells):
        if is_missing(cell):
            values[i] = math.nan
            continue
        unit, sign, digits = _parts(cell)
        match = pattern.fullmatch(digits)
        if match is None:
            how = f" with the decimal mark {decimal!r} (--decimal)" * is_number(cell)
            how += " (--quote reads quoted cells)" * cell.startswith('"')
            table.refuse(i, name, f"a number{how}")
        if match[1]:
            digits = digits.replace(match[1], "")
        values[i] = float(sign + digits.replace(decimal, "."))
        if math.isinf(values[i]):
            table.refuse(i, name, "a finite number")
        first = first or (unit, i)
        if unit != first[0]:
            as_in = f"{first[0]!r} as in row {table.first + first[1]}"
            table.refuse(i, name, f"a number with {as_in}" if first[0] else "a number alone")
    return values
