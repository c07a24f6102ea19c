"""Files of the commands: texts that they read, results that they write."""

from __future__ import annotations

import argparse
import codecs
import importlib
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastrnn._files import atomic, reading
from fastrnn.cli import signals

#: The path that means standard input.
STANDARD_INPUT = "-"

#: Names of files that a process has open.
_OPEN = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")

#: Byte-order marks, the longer before those that they begin with.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--encoding``."""
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="encoding of the input (default: utf-8, or what a byte-order mark says)",
    )


def shown(path: str | None) -> str:
    """Return the name of an input in messages."""
    return "standard input" if path in (None, STANDARD_INPUT) else str(path)


def read_text(path: str | None, encoding: str | None = None) -> str:
    """Return the text of a file, or, with None or ``-``, of standard input.

    Compressed files are recognised by their content. Lines end with a newline.
    """
    name = shown(path)
    data = _standard_input() if name != path else _bytes_of(path)
    text = data if isinstance(data, str) else _decoded(_decompressed(data, name), name, encoding)
    if "\0" in text:
        raise ValueError(
            f"{name}: is not text: it contains NUL characters; --encoding utf-16-le may read it"
        )
    if not text:
        raise ValueError(f"{name}: is empty")
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def _bytes_of(path: str) -> bytes:
    """Return the bytes of a file, or of a pipe that this process holds open, as in <(command)."""
    if _OPEN.fullmatch(path) and stat.S_ISFIFO(os.stat(path).st_mode):
        return Path(path).read_bytes()
    return reading.whole(path)


def save(path: str, write: Callable[[str], object], what: str) -> None:
    """Write a file as ``atomic.save`` does; Ctrl-C and its kin wait for that."""
    with signals.later():
        atomic.save(path, write, what)


def _standard_input() -> bytes | str:
    if sys.stdin is None:
        raise ValueError("standard input: is closed")
    # Something that has no bytes may stand in for it, in a notebook for instance.
    data: bytes | str = getattr(sys.stdin, "buffer", sys.stdin).read()
    return data


def _decoded(data: bytes, name: str, encoding: str | None) -> str:
    marked = next((codec for mark, codec in _MARKS if data.startswith(mark)), None)
    tried = encoding or marked or "utf-8"
    try:
        text = data.decode(tried)
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        at = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(
            f"{name}: is not {tried.upper()} text: {reason}{at}; --encoding names another "
            "encoding, such as cp1252"
        ) from None
    except LookupError:
        raise ValueError(f"--encoding: expected one that Python knows, got {tried!r}") from None
    return text.removeprefix("\ufeff")  # a byte-order mark is not text


#: How compressed files begin, and the module that reads them.
_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "lzma",
    b"\x28\xb5\x2f\xfd": "compression.zstd",
}
_ZIP = b"PK\x03\x04"
#: What is compressed is at most this many times as large, plus bytes to spare: tables of zeros are
#: some hundred times as large, and files made to fill a memory a thousand times and more.
_PACKED, _SPARE = 256, 1 << 26


def _decompressed(data: bytes, name: str) -> bytes:
    module = next((module for start, module in _FORMATS.items() if data.startswith(start)), None)
    try:
        if data.startswith(_ZIP):
            return _unzipped(data)
        if module is None:
            return data
        with _module(module).open(io.BytesIO(data)) as file:
            return _unpacked(file, data)
    except Exception as error:  # each module has its own
        raise ValueError(f"{name}: can't be decompressed: {error}") from None


def _unpacked(file: Any, data: bytes) -> bytes:
    """Return what a file holds, `data` when packed."""
    most = _SPARE + _PACKED * len(data)
    unpacked: bytes = file.read(most + 1)
    if len(unpacked) > most:
        raise ValueError(f"expected {most} bytes or less in {len(data)} that are compressed")
    return unpacked


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        if name != "compression.zstd":
            raise
    try:
        return importlib.import_module("backports.zstd")
    except ImportError:
        raise ValueError("Zstandard needs Python 3.14, or: pip install backports.zstd") from None


def _unzipped(data: bytes) -> bytes:
    with reading.zipped(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if len(names) == 1:
            with archive.open(names[0]) as file:
                return _unpacked(file, data)
    said = "an Excel workbook: save it as CSV" if "xl/workbook.xml" in names else f"{len(names)}"
    raise ValueError(f"expected a ZIP archive of one file, got {said}")


def read_lines(path: str | None, encoding: str | None) -> list[str]:
    """Return the lines of a file, or of standard input, as :func:`lines_of` does."""
    return lines_of(read_text(path, encoding))


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; those that are blank too.

    A line ends at a newline, not at a form feed or another character that ends lines for Unicode.
    """
    return text.removesuffix("\n").split("\n")


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str | None]) -> None:
    """Raise if a file can't be written, or is one of those that are read."""
    read = [path for path in inputs if path is not None and os.path.exists(path)]
    for output in filter(None, outputs):
        if output == STANDARD_INPUT:
            raise ValueError("-: expected a file to write; - is standard input")
        if os.path.exists(output) and any(os.path.samefile(output, path) for path in read):
            raise ValueError(f"{output}: is read, so expected another file to write")
        atomic.check_writable(output)
        atomic.remove_left_over(output)
