"""Reading of the commands' input: texts and tables."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

_STANDARD_INPUT = "standard input"


def read_text(path: str | None, encoding: str = "utf-8") -> str:
    """Return the text of a file, or, with None, of standard input."""
    name = path or _STANDARD_INPUT
    try:
        text = _standard_input(encoding) if path is None else Path(path).read_text(encoding)
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"{name}: is not {encoding.upper()} text: {reason}") from None
    except LookupError:
        raise ValueError(f"--encoding: expected one that Python knows, got {encoding!r}") from None
    text = text.removeprefix("\ufeff")  # a byte-order mark is not text
    if "\0" in text:
        raise ValueError(f"{name}: is not text: it contains NUL characters")
    if not text:
        raise ValueError(f"{name}: is empty")
    return text


def _standard_input(encoding: str) -> str:
    if sys.stdin is None:
        raise ValueError(f"{_STANDARD_INPUT}: is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=encoding, errors="strict")
    return sys.stdin.read()


def read_lines(path: str | None, encoding: str) -> list[str]:
    """Return the lines of a file, or of standard input, that are not blank."""
    lines = [line for line in read_text(path, encoding).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path or _STANDARD_INPUT}: expected a line of text or more")
    return lines


def read_table(path: str, encoding: str) -> dict[str, list[str]]:
    """Return the columns of a CSV file, or, if its name ends in ``.tsv``, a TSV file."""
    lines = io.StringIO(read_text(path, encoding).rstrip("\r\n"), newline="")
    dialect = "excel-tab" if path.endswith(".tsv") else "excel"
    try:
        header, *rows = list(csv.reader(lines, dialect)) or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from None
    if not rows or len(set(header)) < len(header) or all(map(is_number, header)):
        raise ValueError(f"{path}: expected a header of distinct names, and a row or more")
    for i, row in enumerate(rows, 2):
        # A blank line is a missing value; skipping it would shift all later rows.
        if len(row) != len(header):
            raise ValueError(f"{path}: row {i}: expected {len(header)} columns, got {len(row)}")
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def is_number(text: str) -> bool:
    """Return whether a cell of a table is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
