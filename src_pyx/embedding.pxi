# Gradients of the rows of a table. Included in kernels.pyx.

cimport numpy as cnp
from vec cimport VL, float_mode, flush_subnormals, real, restore_mode, vload, vstore


cdef ptrdiff_t first_from(
    const cnp.npy_intp *rows, ptrdiff_t count, ptrdiff_t least
) noexcept nogil:
    """The index of the first of ascending `rows` that is at least `least`."""
    cdef ptrdiff_t begin = 0, end = count, middle
    while begin < end:
        middle = (begin + end) // 2
        if rows[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin


def add_rows(x, dy, rows, sums):
    """Add rows to those of a table: see ``_reference.embedding``."""
    cdef const cnp.npy_intp *tokens = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>x)
    cdef const cnp.npy_intp *chosen = NULL
    cdef const real *source = data(dy)
    cdef real *target = data(sums)
    cdef real *to
    cdef ptrdiff_t n = cnp.PyArray_SIZE(x), count = 0, D = sums.shape[1], i, j, place
    cdef float_mode mode
    assert cnp.PyArray_SIZE(dy) == n * D
    if rows is not None:
        chosen = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>rows)
        count = len(rows)
    with nogil:
        mode = flush_subnormals()
        for i in range(n):
            place = tokens[i] if chosen is NULL else first_from(chosen, count, tokens[i])
            to = target + place * D
            for j in range(D // VL):
                vstore(to + j * VL, vload(to + j * VL) + vload(source + i * D + j * VL))
            for j in range(D // VL * VL, D):
                to[j] += source[i * D + j]
        restore_mode(mode)
