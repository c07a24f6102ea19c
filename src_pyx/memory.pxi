# Memory for numbers, and the way into NumPy's. Included in kernels.pyx.

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport NAN
from libc.stdint cimport uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort
from libc.string cimport memset
from vec cimport real

cdef extern from "vec.h" nogil:
    const bint FASTRNN_DEBUG


cdef class Buffer:
    """Numbers on a 64-byte boundary. A debug build fills them with NaN and guards both ends."""

    cdef char *memory
    cdef real *data
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        cdef Py_ssize_t i, guard = 64 if FASTRNN_DEBUG else 0
        self.memory = <char *>PyMem_RawMalloc(count * sizeof(real) + 64 + 2 * guard)
        if self.memory is NULL:
            raise MemoryError(f"can't allocate {count * sizeof(real)} bytes")
        self.data = <real *>((<uintptr_t>self.memory + guard + 63) & ~<uintptr_t>63)
        self.count = count
        if FASTRNN_DEBUG:
            for i in range(count):
                self.data[i] = NAN
            memset(<char *>self.data - guard, 0x5A, guard)
            memset(<char *>(self.data + count), 0x5A, guard)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if FASTRNN_DEBUG and self.memory is not NULL:
            for i in range(64):
                if (
                    (<char *>self.data)[i - 64] != 0x5A
                    or (<char *>(self.data + self.count))[i] != 0x5A
                ):
                    fprintf(stderr, "fastrnn: a kernel wrote outside of its workspace\n")
                    abort()
        PyMem_RawFree(self.memory)


cdef Buffer zeros(Py_ssize_t count):
    cdef Buffer buffer = Buffer(count)
    memset(buffer.data, 0, count * sizeof(real))
    return buffer


cdef real *scratch(list memory, Py_ssize_t count) except NULL:
    """Numbers that live as long as `memory`."""
    cdef Buffer buffer = Buffer(count)
    memory.append(buffer)
    return buffer.data


cdef inline real *data(object array) noexcept:
    return NULL if array is None else <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline ptrdiff_t stride(object array, int axis) noexcept:
    """Stride of an axis, in numbers."""
    return cnp.PyArray_STRIDE(<cnp.ndarray>array, axis) // <ptrdiff_t>sizeof(real)
