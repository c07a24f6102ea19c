"""Atomic writing of files: the new file appears in full or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastrnn import _checks

#: Create a new file, and never follow a link.
_NEW = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, which then replaces it.

    Any number of threads and processes may write one path: each file is whole, and the last one
    stays. A file that is replaced keeps its mode, and a link stays a link.
    """
    with _temporary(path) as (target, temporary):
        with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
            with suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that :func:`write` would raise."""
    with _temporary(path) as (_, temporary):
        os.close(os.open(temporary, _NEW, 0o666))


def remove_left_over(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of processes that were killed while writing this file."""
    folder, name = os.path.split(os.path.realpath(path))
    for entry in os.listdir(folder):
        if entry.startswith(f".{name}.") and entry.endswith(".tmp"):
            process = entry.removeprefix(f".{name}.").split(".")[0]
            if process.isdigit() and not _alive(int(process)):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, entry))


def _alive(process: int) -> bool:
    """Return whether a process has this number, possibly another one than the writer."""
    if os.name == "nt":
        return False  # where a file that is being written can't be removed
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


@contextmanager
def _temporary(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield the real path and a temporary one beside it; errors name the path that was given."""
    given = _checks.path(path)
    target = os.path.realpath(given)
    if not given or (os.path.exists(target) and not os.path.isfile(target)):
        raise OSError(f"{given!r} is not a regular file")
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(8).hex()}.tmp")
    try:
        yield target, temporary
    except OSError as error:
        raise type(error)(error.errno, error.strerror, given) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
