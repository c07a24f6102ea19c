"""Arrays next to memory that cannot be accessed, so that a kernel that strays by a byte crashes.

``guarded(array)`` returns one such copy, without a compiler. As a plugin of pytest, and where
FASTRNN_GUARDS is set, this module gives every array that NumPy allocates such a place::

    FASTRNN_GUARDS=end PYTHONPATH=tests pytest -p guards tests/test_backends.py

"end": the last byte of each array is followed by an unreadable page. "start": the first byte comes
after one. "malloc": from malloc, without NumPy's cache of small arrays, for AddressSanitizer.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

PLACES = {"malloc": 0, "start": 1, "end": 2}
#: The function PyDataMem_SetHandler in NumPy's table of its C API, of every version since 1.22.
SET_HANDLER = 304

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(a: np.ndarray, place: str = "end") -> np.ndarray:
    """Return a C-contiguous copy whose last, or first, byte is next to an unreadable page."""
    page = mmap.PAGESIZE
    pages = -(-max(a.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, pages + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in (start, start + page + pages):
        if libc.mprotect(at, page, 0):  # PROT_NONE
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = page + pages - a.nbytes if place == "end" else page
    # Of an array without numbers, the pointer is to the unreadable page itself.
    copy = np.frombuffer(memory, np.uint8, a.nbytes, offset).view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def install(place: str) -> None:
    """Place all arrays that NumPy allocates from now on, in this thread."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "guards.so"
        flags = ["-O2", "-shared", "-fPIC", "-pthread"]
        command = shlex.split(os.environ.get("CC", "cc")) + flags
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        source = str(Path(__file__).with_suffix(".c"))
        subprocess.run([*command, "-o", str(library), source], check=True, env=environment)
        loaded = ctypes.CDLL(str(library))
    loaded.guards_handler.restype = ctypes.c_void_p
    pythonapi = ctypes.pythonapi
    pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
    pythonapi.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pythonapi.PyCapsule_New.restype = ctypes.py_object
    pythonapi.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    api = pythonapi.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    table = ctypes.cast(api, ctypes.POINTER(ctypes.c_void_p))
    # Its name, too, must live as long as any array: ctypes never unloads a library.
    name = ctypes.addressof(ctypes.c_char.in_dll(loaded, "guards_name"))
    capsule = pythonapi.PyCapsule_New(loaded.guards_handler(PLACES[place]), name, None)
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])
    set_handler(capsule)
    assert np._core.multiarray.get_handler_name(np.empty(3)) == "guards"


# Only as a plugin, and once: not where a test loads this file.
if __name__ == "guards" and os.environ.get("FASTRNN_GUARDS"):
    install(os.environ["FASTRNN_GUARDS"])
