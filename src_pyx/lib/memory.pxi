# Memory of the kernels' own, and access to that of NumPy arrays. Included in kernels.pyx.

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport NAN
from libc.stdint cimport uintptr_t
from libc.string cimport memset
from vec cimport real

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    static PyMutex fastrnn_spare;
    #define LOCK_SPARE() PyMutex_Lock(&fastrnn_spare)
    #define UNLOCK_SPARE() PyMutex_Unlock(&fastrnn_spare)
    #else
    #define LOCK_SPARE() ((void)0)
    #define UNLOCK_SPARE() ((void)0)
    #endif
    """
    void LOCK_SPARE() noexcept
    void UNLOCK_SPARE() noexcept

cdef extern from "vec.h" nogil:
    const bint FASTRNN_DEBUG

cdef extern from "guards.h" nogil:
    const bint GUARDED
    char *take_guarded(size_t size)
    void release_guarded(char *data, size_t size)


cdef enum:
    # Freed memory of at least a few pages is kept for reuse: page faults of fresh memory would take
    # a third to a half of a small layer's training (benchmarks/overheads.py). At most MOST_SPARE
    # pieces, 32 MiB in all, are kept. The GIL guards them, or where there is none a lock.
    PIECE_BYTES = 65536
    MOST_SPARE = 32
    SPARE_BYTES = 33554432

cdef struct Piece:
    char *memory
    size_t size

cdef Piece[MOST_SPARE] spare    # the oldest first
cdef int spare_count = 0
cdef size_t spare_size = 0


cdef Piece take_spare(int i) noexcept:
    """Remove and return a kept piece."""
    global spare_count, spare_size
    cdef Piece piece = spare[i]
    spare_count -= 1
    spare_size -= piece.size
    for i in range(i, spare_count):
        spare[i] = spare[i + 1]
    return piece


cdef Piece allocate(size_t size) noexcept:
    """Return memory of at least `size` bytes, at most a quarter more; NULL if there is none."""
    cdef int i
    cdef Piece found = Piece(NULL, size)
    if size >= PIECE_BYTES:
        LOCK_SPARE()
        for i in range(spare_count - 1, -1, -1):
            if size <= spare[i].size <= size + size // 4:
                found = take_spare(i)
                break
        UNLOCK_SPARE()
    if found.memory is NULL:
        found.memory = <char *>PyMem_RawMalloc(size)
    return found


cdef void release(Piece piece) noexcept:
    """Keep a piece for reuse, or free it."""
    global spare_count, spare_size
    if not PIECE_BYTES <= piece.size <= SPARE_BYTES:
        PyMem_RawFree(piece.memory)
        return
    LOCK_SPARE()
    while spare_count == MOST_SPARE or spare_size + piece.size > SPARE_BYTES:
        PyMem_RawFree(take_spare(0).memory)
    spare[spare_count] = piece
    spare_count += 1
    spare_size += piece.size
    UNLOCK_SPARE()


cdef class Buffer:
    """A 64-byte aligned array, made by `buffer_of`.

    A debug build fills it with NaN and puts it between guard pages: guards.h.
    """

    cdef Piece piece
    cdef real *data
    cdef Py_ssize_t count

    cdef int take(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t i
        if not 0 <= count <= PY_SSIZE_T_MAX // 16:
            raise MemoryError(f"can't allocate memory for {count} numbers")
        if GUARDED:
            self.data = <real *>take_guarded(count * sizeof(real))
        else:
            self.piece = allocate(count * sizeof(real) + 64)
            if self.piece.memory is not NULL:
                self.data = <real *>((<uintptr_t>self.piece.memory + 63) & ~<uintptr_t>63)
        if self.data is NULL:
            raise MemoryError(f"can't allocate memory for {count} numbers")
        self.count = count
        if FASTRNN_DEBUG:
            for i in range(count):
                self.data[i] = NAN
        return 0

    def __dealloc__(self):
        if self.data is NULL:
            return
        if GUARDED:
            release_guarded(<char *>self.data, self.count * sizeof(real))
        else:
            release(self.piece)


cdef Buffer buffer_of(Py_ssize_t count):
    """Return an uninitialised array. Not a constructor: its argument would be a Python object."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.take(count)
    return buffer


cdef Buffer zeros(Py_ssize_t count):
    cdef Buffer buffer = buffer_of(count)
    memset(buffer.data, 0, count * sizeof(real))
    return buffer


cdef real *scratch(list memory, Py_ssize_t count) except NULL:
    """Return an uninitialised array that lives as long as `memory`."""
    cdef Buffer buffer = buffer_of(count)
    memory.append(buffer)
    return buffer.data


cdef inline Buffer room(Py_ssize_t count, Py_ssize_t each):
    """Return memory for `count` items of `each` bytes."""
    return buffer_of(product_of(count, (each + <Py_ssize_t>sizeof(real) - 1) // sizeof(real)))


cdef inline real *data(object array) noexcept:
    return NULL if array is None else <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline ptrdiff_t stride(object array, int axis) noexcept:
    """Return the stride of an axis, in elements."""
    return cnp.PyArray_STRIDE(<cnp.ndarray>array, axis) // <ptrdiff_t>sizeof(real)
