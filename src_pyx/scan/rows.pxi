# Which rows run when, and the ways between the caller's order of rows and ours.
# Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memset
from panels cimport parts, share
from vec cimport VL, real, vcopy

import numpy as np


# A step behind the end of anything, so near that differences don't overflow.
FAR = 1 << 60


cdef struct Rows:
    # Which rows of a batch run at which step. They are taken in `order`, those that run longest
    # first, so that the rows of a step are always the first ones; step t has the places offset(t)
    # to offset(t + 1) in all that is kept of it.
    ptrdiff_t T
    ptrdiff_t B
    ptrdiff_t N                     # rows of all steps together
    const ptrdiff_t *offsets        # (T + 1,), or NULL where every row runs at every step
    const ptrdiff_t *order          # (B,), or NULL for as they come


cdef inline ptrdiff_t offset(const Rows *rows, ptrdiff_t t) noexcept nogil:
    return t * rows.B if rows.offsets is NULL else rows.offsets[t]


cdef inline ptrdiff_t count_rows(const Rows *rows, ptrdiff_t t) noexcept nogil:
    return offset(rows, t + 1) - offset(rows, t)


cdef inline ptrdiff_t row(const Rows *rows, ptrdiff_t b) noexcept nogil:
    """The caller's index of our row b."""
    return b if rows.order is NULL else rows.order[b]


cdef Rows new_rows(ptrdiff_t T, ptrdiff_t B, spans, list memory):
    """Which rows run when.

    Parameters
    ----------
    spans : (2, B) array of int64 or None
        Row b runs from step spans[0, b] to before spans[1, b]. All start at one step, 0 or earlier,
        or all end at one, T or later.
    memory : list
        To which is added what must stay alive.
    """
    cdef Rows rows = Rows(T, B, product_of(T, B), NULL, NULL)
    if spans is not None:
        if not is_flat(spans, cnp.NPY_INT64, 2 * B, IN) or cnp.PyArray_NDIM(spans) != 2:
            refuse(spans, "spans", f"a C-contiguous int64 array (2, {B})")
        # Steps so far away that no difference overflows; and nobody else can change these.
        begin, end = np.clip(spans, -FAR, FAR)
        if not (
            (begin == begin[0]).all() and begin[0] <= 0 or (end == end[0]).all() and end[0] >= T
        ):
            raise ValueError(f"spans: expected that all start at 0 or all end at {T}, got {spans}")
        order = np.argsort(begin - end, kind="stable").astype(np.intp)
        begin, end = np.clip([begin, end], 0, T)
        starts = np.bincount(begin, minlength=T + 1)[: T + 1]
        ends = np.bincount(end, minlength=T + 1)[: T + 1]
        running = np.cumsum(starts - ends)[:T]
        offsets = np.concatenate([[0], np.cumsum(running)]).astype(np.intp)
        memory += [order, offsets]
        rows.order = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>order)
        rows.offsets = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets)
        rows.N = rows.offsets[T]
    return rows


cdef inline ptrdiff_t share_rows(const Rows *rows, int index, int count) noexcept nogil:
    """Where share `index` of the rows begins, each having about as many steps to run."""
    cdef ptrdiff_t b = 0, t, sum = 0, wanted = share(rows.N, index, count)
    if rows.offsets is NULL:
        return share(rows.B, index, count)
    if index == count:
        return rows.B
    # Rows are sorted by their steps, and row b runs wherever more than b rows run.
    while sum < wanted and b < rows.B:
        for t in range(rows.T):
            sum += count_rows(rows, t) > b
        b += 1
    return b


cdef void block_rows(
    const Rows *rows, real *blocked, const real *of, ptrdiff_t n
) noexcept nogil:
    """The caller's rows (B, n) to blocks (blocks, B, VL) in our order; NULL stands for zeros."""
    cdef ptrdiff_t block, b
    memset(blocked, 0, parts(n, VL) * rows.B * VL * sizeof(real))
    if of is NULL:
        return
    for block in range(parts(n, VL)):
        for b in range(rows.B):
            vcopy(
                blocked + (block * rows.B + b) * VL, of + row(rows, b) * n + block * VL,
                min(VL, n - block * VL),
            )


cdef void unblock_row(
    real *to, const real *blocked, ptrdiff_t panel, ptrdiff_t n
) noexcept nogil:
    """One row of blocks to n numbers side by side."""
    cdef ptrdiff_t block
    for block in range(parts(n, VL)):
        vcopy(to + block * VL, blocked + block * panel, min(VL, n - block * VL))


cdef void reset_rows(
    const Rows *rows, ptrdiff_t begin, ptrdiff_t end, const char *reset, ptrdiff_t reset_b,
    real *states, ptrdiff_t panel, ptrdiff_t blocks, ptrdiff_t stride, ptrdiff_t n,
) noexcept nogil:
    """Zero our rows `begin` to `end` where their `reset` is set: n numbers in each of `blocks`."""
    cdef ptrdiff_t b, block
    for b in range(begin, end):
        if reset[row(rows, b) * reset_b]:
            for block in range(blocks):
                memset(states + block * panel + b * stride, 0, n * sizeof(real))
