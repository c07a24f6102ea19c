"""Which rows run at which step, and conversion between the caller's order of rows and ours."""

from libc.string cimport memset
from panels cimport ceil_div, split_point
from vec cimport VL, real, vcopy


cdef struct Schedule:
    # Which rows of a batch run at which step. Rows are sorted, longest first, so the running rows
    # of a step are always the first ones; on a tape, step t has the rows step_offset(t) to
    # step_offset(t + 1).
    ptrdiff_t T
    ptrdiff_t B
    ptrdiff_t N                     # rows of all steps in total
    const ptrdiff_t *offsets        # (T + 1,), or NULL if all rows run at all steps
    const ptrdiff_t *order          # (B,), the caller's index of each row; NULL: the same
    const ptrdiff_t *bounds         # (shares + 1,): where shares of the rows begin; NULL: one share
    int shares

cdef struct Resets:
    # Where the state is zeroed before a step: (T, B) booleans; NULL: nowhere.
    const char *at
    ptrdiff_t t_stride
    ptrdiff_t b_stride


cdef inline ptrdiff_t step_offset(const Schedule *s, ptrdiff_t t) noexcept nogil:
    return t * s.B if s.offsets is NULL else s.offsets[t]


cdef inline ptrdiff_t step_rows(const Schedule *s, ptrdiff_t t) noexcept nogil:
    """Return the number of rows that run at step t."""
    return step_offset(s, t + 1) - step_offset(s, t)


cdef inline ptrdiff_t caller_row(const Schedule *s, ptrdiff_t b) noexcept nogil:
    """Return the caller's index of our row b."""
    return b if s.order is NULL else s.order[b]


cdef inline ptrdiff_t split_rows(const Schedule *s, int index, int count) noexcept nogil:
    """Return where share `index` of the rows begins; `count` is at most `s.shares`."""
    if s.offsets is NULL:
        return split_point(s.B, index, count)
    if s.bounds is NULL:
        return s.B if index == count else 0
    return s.bounds[<ptrdiff_t>index * s.shares // count]


cdef inline void set_bounds(Schedule *s, ptrdiff_t *bounds, int shares) noexcept nogil:
    """Split the rows of a schedule with offsets in shares of about equal numbers of steps."""
    cdef ptrdiff_t b = 0, t, sum = 0
    cdef int index
    for index in range(shares):
        # Row b runs at each step at which more than b rows run, as rows are sorted.
        while sum < split_point(s.N, index, shares) and b < s.B:
            for t in range(s.T):
                sum += step_rows(s, t) > b
            b += 1
        bounds[index] = b
    bounds[shares] = s.B
    s.bounds, s.shares = bounds, shares


cdef inline void block_rows(
    const Schedule *s, real *blocked, const real *of, ptrdiff_t n
) noexcept nogil:
    """Copy the caller's rows (B, n), NULL for zeros, to blocks (blocks, B, VL) in our order."""
    cdef ptrdiff_t block, b
    memset(blocked, 0, ceil_div(n, VL) * s.B * VL * sizeof(real))
    if of is NULL:
        return
    for block in range(ceil_div(n, VL)):
        for b in range(s.B):
            vcopy(
                blocked + (block * s.B + b) * VL, of + caller_row(s, b) * n + block * VL,
                min(VL, n - block * VL),
            )


cdef inline void unblock_row(
    real *to, const real *blocked, ptrdiff_t panel, ptrdiff_t n
) noexcept nogil:
    """Copy one row of blocks to n contiguous elements."""
    cdef ptrdiff_t block
    for block in range(ceil_div(n, VL)):
        vcopy(to + block * VL, blocked + block * panel, min(VL, n - block * VL))


cdef inline bint is_reset(
    const Resets *resets, const Schedule *s, ptrdiff_t t, ptrdiff_t b
) noexcept nogil:
    """Return whether our row b is reset before step t."""
    return (
        resets.at is not NULL
        and resets.at[t * resets.t_stride + caller_row(s, b) * resets.b_stride] != 0
    )


cdef inline void reset_rows(
    const Resets *resets, const Schedule *s, ptrdiff_t t, ptrdiff_t begin, ptrdiff_t end,
    real *states, ptrdiff_t panel, ptrdiff_t blocks, ptrdiff_t stride, ptrdiff_t n,
) noexcept nogil:
    """Zero our rows `begin` to `end` that are reset before step t: n elements of each block."""
    cdef ptrdiff_t b, block
    for b in range(begin, end):
        if is_reset(resets, s, t, b):
            for block in range(blocks):
                memset(states + block * panel + b * stride, 0, n * sizeof(real))
