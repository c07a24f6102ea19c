"""Files that are either there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastrnn import _checks


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file: to a temporary name beside it, then moved over what was there."""
    with _temporary(path) as (target, temporary):
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that :func:`write` would raise."""
    with _temporary(path) as (_, temporary), open(temporary, "wb"):
        pass


def remove_left_over(path: str | os.PathLike[str]) -> None:
    """Remove what processes that were killed while they wrote this file have left beside it."""
    folder, name = os.path.split(os.path.realpath(path))
    for entry in os.listdir(folder):
        if entry.startswith(f".{name}.") and entry.endswith(".tmp"):
            with suppress(OSError):
                os.unlink(os.path.join(folder, entry))


@contextmanager
def _temporary(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """The real path, and a temporary one beside it; errors are about the path that was given."""
    given = _checks.path(path)
    target = os.path.realpath(given)
    if not given or (os.path.exists(target) and not os.path.isfile(target)):
        raise OSError(f"{given!r} is not a regular file")
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        yield target, temporary
    except OSError as error:
        raise type(error)(error.errno, error.strerror, given) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
