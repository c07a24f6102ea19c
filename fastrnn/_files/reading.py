"""Reading of files: regular ones only, and what they claim is checked before it is believed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any, BinaryIO

from fastrnn import _checks

#: A device that took the file's place is neither waited for nor made the terminal.
_READ = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

#: Items that JSON may hold: it takes up to some 100 bytes of memory for each.
MOST_ITEMS = 1 << 22

#: Bytes of a zip's table of contents, which has 46 or more for each file.
_MOST_CONTENTS = 1 << 22


def opened(path: str | os.PathLike[str], name: str = "path", *, links: bool = True) -> BinaryIO:
    """Open a regular file.

    Parameters
    ----------
    path : str or path-like
    name : str
        Of the argument, for errors.
    links : bool
        Whether the file itself may be a link.

    Raises
    ------
    OSError
        If the file does not exist, can't be read, or is a folder, pipe, socket or device, which are
        not opened: there, that alone may have effects, or wait.
    """
    where = _checks.path(path, name)
    _expect_regular(os.stat(where), where)
    file = os.fdopen(os.open(where, _READ | (0 if links else _NO_LINK)), "rb")
    try:
        _expect_regular(os.fstat(file.fileno()), where)
    except OSError:
        file.close()
        raise
    return file


def _expect_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path!r} is not a regular file")


def size(file: BinaryIO) -> int:
    """Return the size of a file in bytes, and go to its start."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    return end


def whole(path: str | os.PathLike[str], name: str = "path") -> bytes:
    """Return the bytes of a regular file; errors are those of :func:`opened`."""
    with opened(path, name) as file:
        return file.read(size(file))


def items(text: str) -> int:
    """Return a bound of the number of items in JSON: each has a mark that starts or parts it."""
    return sum(map(text.count, "[{,"))


def from_json(text: str | bytes) -> Any:
    """Return what JSON in UTF-8 says.

    Raises
    ------
    ValueError
        If it is none, repeats a key, is nested too deeply, or has very many items.
    """
    import json  # import fastrnn is to stay light

    text = text if isinstance(text, str) else text.decode()
    if items(text) > MOST_ITEMS:
        raise ValueError(f"expected JSON of at most {MOST_ITEMS} items")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("expected JSON that is nested less deeply") from None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"expected every key of JSON once, got {twice!r} again")
    return found


def zipped(file: BinaryIO) -> Any:
    """Return the ``zipfile.ZipFile`` of a file whose table of contents is not too large.

    Raises
    ------
    ValueError, zipfile.BadZipFile, NotImplementedError
        If it is no zip, or damaged.
    """
    import zipfile

    bounded = _Bounded(file)
    archive = zipfile.ZipFile(bounded)
    bounded.most = None
    return archive


class _Bounded:
    """A file that gives no more than so many bytes at once: zipfile asks for the whole table."""

    def __init__(self, file: BinaryIO) -> None:
        self.most: int | None = _MOST_CONTENTS
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if self.most is None:
            return self._file.read(size)
        data = self._file.read(size if 0 <= size <= self.most else self.most + 1)
        if len(data) > self.most:
            raise ValueError(
                f"expected a zip with a table of contents of {self.most} bytes or less"
            )
        return data
