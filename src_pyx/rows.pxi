# Which rows run when, and the ways between the caller's order of rows and ours.
# Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memcpy, memset
from panels cimport parts
from vec cimport VL, real

import numpy as np


cdef class Rows:
    """Which rows of a batch run at which step.

    Rows are taken in `order`, those that run longest first, so that the rows of a step are always
    the first ones; step t has the places offset(t) to offset(t + 1) in all that is kept of it.

    Parameters
    ----------
    T, B : int
    spans : (2, B) array of int64 or None
        Row b runs from step spans[0, b] to before spans[1, b]. All start at one step, 0 or earlier,
        or all end at one, T or later.
    """

    cdef ptrdiff_t T, B, N          # N: rows of all steps together
    cdef ptrdiff_t *offsets         # (T + 1,), or NULL where every row runs at every step
    cdef ptrdiff_t *order           # (B,), or NULL for as they come
    cdef object memory

    def __init__(self, ptrdiff_t T, ptrdiff_t B, spans):
        self.T, self.B, self.N = T, B, T * B
        if spans is not None:
            begin, end = spans
            order = np.argsort(begin - end, kind="stable").astype(np.intp)
            begin, end = np.clip(spans, 0, T)
            starts = np.bincount(begin, minlength=T + 1)[: T + 1]
            ends = np.bincount(end, minlength=T + 1)[: T + 1]
            running = np.cumsum(starts - ends)[:T]
            offsets = np.concatenate([[0], np.cumsum(running)]).astype(np.intp)
            self.memory = order, offsets
            self.order = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>order)
            self.offsets = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets)
            self.N = self.offsets[T]

    cdef inline ptrdiff_t offset(self, ptrdiff_t t) noexcept nogil:
        return t * self.B if self.offsets is NULL else self.offsets[t]

    cdef inline ptrdiff_t count(self, ptrdiff_t t) noexcept nogil:
        return self.offset(t + 1) - self.offset(t)

    cdef inline ptrdiff_t row(self, ptrdiff_t b) noexcept nogil:
        """The caller's index of our row b."""
        return b if self.order is NULL else self.order[b]


cdef void gather(
    Rows rows, ptrdiff_t t, real *to, const real *of, ptrdiff_t of_b, ptrdiff_t n
) noexcept nogil:
    """The rows of step t, in our order, from the caller's: (count, n)."""
    cdef ptrdiff_t b
    for b in range(rows.count(t)):
        memcpy(to + b * n, of + rows.row(b) * of_b, n * sizeof(real))


cdef void scatter(
    Rows rows, ptrdiff_t t, real *to, ptrdiff_t to_b, const real *of, ptrdiff_t n
) noexcept nogil:
    """The rows of step t to the caller's places, and zeros to rows that do not run."""
    cdef ptrdiff_t b, count = rows.count(t)
    for b in range(rows.B):
        if b < count:
            memcpy(to + rows.row(b) * to_b, of + b * n, n * sizeof(real))
        else:
            memset(to + rows.row(b) * to_b, 0, n * sizeof(real))


cdef void block_rows(
    Rows rows, real *blocked, const real *of, ptrdiff_t n
) noexcept nogil:
    """The caller's rows (B, n) to blocks (blocks, B, VL) in our order; NULL stands for zeros."""
    cdef ptrdiff_t block, b
    memset(blocked, 0, parts(n, VL) * rows.B * VL * sizeof(real))
    if of is NULL:
        return
    for block in range(parts(n, VL)):
        for b in range(rows.B):
            memcpy(
                blocked + (block * rows.B + b) * VL, of + rows.row(b) * n + block * VL,
                min(VL, n - block * VL) * sizeof(real),
            )


cdef void unblock_row(
    real *to, const real *blocked, ptrdiff_t panel, ptrdiff_t n
) noexcept nogil:
    """One row of blocks to n numbers side by side."""
    cdef ptrdiff_t block
    for block in range(parts(n, VL)):
        memcpy(to + block * VL, blocked + block * panel, min(VL, n - block * VL) * sizeof(real))


cdef void reset_rows(
    Rows rows, ptrdiff_t t, const char *reset, ptrdiff_t reset_b, real *blocked, ptrdiff_t panel,
    ptrdiff_t blocks, ptrdiff_t row, ptrdiff_t n,
) noexcept nogil:
    """Zero the rows of step t whose `reset` is set: n numbers in each of `blocks`."""
    cdef ptrdiff_t b, block
    for b in range(rows.count(t)):
        if reset[rows.row(b) * reset_b]:
            for block in range(blocks):
                memset(blocked + block * panel + b * row, 0, n * sizeof(real))
