"""Atomic writing of files: the new file appears in full or not at all."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterator
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

#: Create a file that has no name.
_UNNAMED = os.O_WRONLY | os.O_CLOEXEC | os.O_TMPFILE if hasattr(os, "O_TMPFILE") else 0

#: Temporary names show at most this many bytes of the file's own: they have to fit wherever it does
#: (names may have 255 bytes, on encrypted file systems 143).
_SHOWN = 100

#: A block that :func:`check_writable` writes, so that it finds a full disk.
_BLOCK = bytes(4096)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, which then replaces it.

    Any number of threads and processes may write one path: each file is whole, and the last one
    stays. A file that is replaced keeps its mode and, where that is allowed, its owner and group; a
    link stays a link.
    """
    with _temporary(path) as (target, temporary):
        _write_new(temporary, data, like=target)
        os.replace(temporary, target)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that :func:`write` would raise, as far as that can be known before."""
    with _temporary(path) as (target, temporary):
        _write_new(temporary, _BLOCK, like=target)
        with suppress(FileNotFoundError):
            file, folder = os.stat(target), os.stat(os.path.dirname(target))
            # In a folder such as /tmp, nobody can replace another user's file.
            if folder.st_mode & stat.S_ISVTX and hasattr(os, "geteuid"):
                user = os.geteuid()
                if user not in (0, file.st_uid, folder.st_uid):
                    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), target)


def save(path: str, write: Callable[[str], object], what: str) -> None:
    """Call ``write(path)`` at the end of long work; what can't be written there is kept elsewhere.

    Raises
    ------
    OSError
        If the file can't be written; it says where `what` is kept instead.
    """
    try:
        write(path)
    except OSError as error:
        other = kept(path, write)
        if other is None:
            raise
        raise OSError(f"{path}: {error.strerror or error}; {what} is kept in {other}") from None


def kept(
    path: str | os.PathLike[str], write: Callable[[str], object], already: str | None = None
) -> str | None:
    """Keep what could not be written to `path`: write it to another file, and return its path.

    Parameters
    ----------
    path : str or path-like
        The file that could not be written.
    write : callable
        Writes to a path.
    already : str, optional
        A path that this function returned before, to be tried first.

    Returns
    -------
    str or None
        The path of a file beside `path`, or else in a new folder of the directory for temporary
        files; None if neither can be written.
    """
    import tempfile

    if already:
        with suppress(OSError):
            write(already)
            return already
    name = os.path.basename(path) or "kept"
    with suppress(OSError):
        target = os.path.realpath(path)  # fails where the working directory is gone
        stem, suffix = os.path.splitext(name)
        shown = stem if name == _short(name) else _short(name)
        other = f"{shown}.{os.urandom(4).hex()}{suffix[:_SHOWN]}"
        return _written(os.path.join(os.path.dirname(target), other), write, like=target)
    with suppress(OSError):
        folder = tempfile.mkdtemp(prefix="fastrnn-")
        try:
            return _written(os.path.join(folder, name), write)
        except OSError:
            os.rmdir(folder)
    return None


def _written(path: str, write: Callable[[str], object], like: str | None = None) -> str:
    """Write a file and return its path; if that fails, remove what there is of it."""
    try:
        if like is not None:
            _write_new(path, b"", like)  # the file that replaces it keeps its mode
        write(path)
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise
    return path


def _write_new(path: str, data: bytes, like: str) -> None:
    """Write a new file, with owner, group and mode of the file `like`, if that exists.

    On Linux it has no name before it is whole, so that nothing is left if the process is killed.
    """
    if _UNNAMED:
        # Not every kernel, file system and sandbox has such files.
        with suppress(OSError), _filled(os.path.dirname(path), _UNNAMED, data, like) as file:
            # An absolute path makes nothing of src_dir_fd; but without, Python calls link(2).
            own = f"/proc/self/fd/{file}"
            os.link(own, path, src_dir_fd=file, follow_symlinks=True)
            return
    with _filled(path, _NEW, data, like):
        pass


@contextmanager
def _filled(path: str, flags: int, data: bytes, like: str) -> Iterator[int]:
    """Open a new file, fill it, and yield its descriptor."""
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        opened = file.fileno() if os.chmod in os.supports_fd else path
        with suppress(FileNotFoundError):
            of = os.stat(like)
            if hasattr(os, "chown"):
                with suppress(OSError):
                    os.chown(opened, of.st_uid, of.st_gid)
            os.chmod(opened, stat.S_IMODE(of.st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        yield file.fileno()


def remove_left_over(path: str | os.PathLike[str]) -> None:
    """Remove temporary files of processes that were killed while writing this file."""
    folder, name = os.path.split(os.path.realpath(path))
    start = f".{_short(name)}."
    for entry in os.listdir(folder):
        if entry.startswith(start) and entry.endswith(".tmp"):
            process = entry.removeprefix(start).split(".")[0]
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


def _short(name: str) -> str:
    """Return the name, or of a long one a checksum, which stands for it in names of other files."""
    data = os.fsencode(name)
    return name if len(data) <= _SHOWN else f"{zlib.crc32(data):08x}"


@contextmanager
def _temporary(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield the real path and a temporary one beside it; errors name the path that was given."""
    given = _checks.path(path)
    target = os.path.realpath(given)
    # The real path of an open pipe, such as /dev/stdout, does not exist.
    exists = os.path.exists(given) or os.path.exists(target)
    if not os.path.basename(given) or (exists and not os.path.isfile(target)):
        raise OSError(f"{given!r} is not a regular file")
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{_short(name)}.{os.getpid()}.{os.urandom(8).hex()}.tmp")
    try:
        yield target, temporary
    except OSError as error:
        raise type(error)(error.errno, error.strerror, given) from None
    finally:
        with suppress(OSError):
            os.unlink(temporary)
