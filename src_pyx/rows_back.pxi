# Gradients of functions of each row. Included in kernels.pyx.

cimport numpy as cnp
from functions cimport LAYER_NORM, SOFTMAX, STANDARDISE, gradient_of
from libc.string cimport memset
from maths cimport absolute, larger, vlargest
from norm cimport normalise_row_back
from panels cimport ceil_div, split_point
from split cimport most_threads, pool, run_parts, worth
from vec cimport (
    GRADIENT_SCALE, LARGE_GRADIENT, REAL_MAX, SUM_VECTORS, VL, float_mode, flush_subnormals, real,
    restore_mode, vf, vfma, vload, vload_first, vset, vstore, vstore_first, vsum,
)


cdef void row_back_of_norm(
    const RowFunction *s, const real *x, const real *dy, real *dx, real *row, real *sums
) noexcept nogil:
    """Write dx of a row of a layer normalisation; add to the gradients of weight and bias."""
    cdef ptrdiff_t u, i, left, vectors = ceil_div(s.F, VL)
    cdef real *d = row + vectors * VL
    cdef real rstd = normalise_into(s, x, row)
    cdef vf v
    for u in range(ceil_div(s.F, VL)):
        i, left = u * VL, s.F - u * VL
        v = vload_first(dy + i, left)
        if s.table is NULL:
            vstore(d + i, v)
            continue
        vstore(d + i, v * vload_first(s.table + i, left))
        if sums is not NULL:
            vstore_first(
                sums + i, vfma(v, vload(row + i), vload_first(sums + i, left)), left
            )
            vstore_first(sums + s.F + i, vload_first(sums + s.F + i, left) + v, left)
    normalise_row_back(d, VL, row, VL, rstd, 1, vectors, s.F)
    memcpy(dx, d, s.F * sizeof(real))


cdef void row_back(
    const RowFunction *s, const real *x, const real *dy, real *dx, real *row
) noexcept nogil:
    """Write dx of a row of another function."""
    cdef ptrdiff_t u, i, left
    cdef real sum, largest, along = 0
    if s.which >= STANDARDISE:
        for i in range(s.F):
            along = <real>(1 / s.scale[s.F + i] if s.which == STANDARDISE else s.scale[s.F + i])
            dx[i] = dy[i] * along
        return
    sum = exponentials(x, row, s.F, &largest)
    for u in range(ceil_div(s.F, VL)):
        vstore(row + u * VL, vload(row + u * VL) / vset(sum))
    largest = softmax_back(s, dy, dx, row, 1)
    if LARGE_GRADIENT < largest <= REAL_MAX:
        softmax_back(s, dy, dx, row, GRADIENT_SCALE)


cdef real softmax_back(
    const RowFunction *s, const real *dy, real *dx, const real *row, real scale
) noexcept nogil:
    """Write dx of a (log-)softmax y, from dy times `scale`; return the largest of these."""
    cdef ptrdiff_t u, i, left, part
    cdef real along = 0
    cdef vf v, y, total, most = vset(0)
    for part in range(SUM_VECTORS):
        i, total = part * VL, vset(0)
        while i < s.F:
            y = vload(row + i)
            v = vload_first(dy + i, s.F - i) * vset(scale)
            most = larger(most, absolute(v))
            total = vfma(v, y, total) if s.which == SOFTMAX else total + v
            i += SUM_VECTORS * VL
        along = vsum(along, total)
    for u in range(ceil_div(s.F, VL)):
        i, left, y = u * VL, s.F - u * VL, vload(row + u * VL)
        v = vload_first(dy + i, left) * vset(scale)
        if s.which == SOFTMAX:
            v = y * (v - vset(along))
        else:
            v = v - y * vset(along)
        vstore_first(dx + i, v * vset(1 / scale), left)
    return vlargest(most)


cdef void function_back_share(int index, int count, void *what) noexcept nogil:
    """Write one thread's share of the gradient of x, and sums for the table, chunk by chunk."""
    cdef RowFunction *s = <RowFunction *>what
    cdef ptrdiff_t chunks = ceil_div(s.n, CHUNK), chunk, b, i
    cdef real *row = s.rows + 2 * (index % s.threads) * ceil_div(s.F, VL) * VL
    cdef real *sums = NULL
    cdef float_mode mode = flush_subnormals()
    for chunk in range(split_point(chunks, index, count), split_point(chunks, index + 1, count)):
        if s.sums is not NULL:
            sums = s.sums + chunk * 2 * s.F
            memset(sums, 0, 2 * s.F * sizeof(real))
        for b in range(chunk * CHUNK, min(s.n, (chunk + 1) * CHUNK)):
            i = b * s.F
            if s.which < SOFTMAX:
                numbers_back(s, i, i + s.F)
            elif s.which == LAYER_NORM:
                row_back_of_norm(s, s.x + i, s.dy + i, s.y + i, row, sums)
            else:
                row_back(s, s.x + i, s.dy + i, s.y + i, row)
    restore_mode(mode)


cdef void numbers_back(const RowFunction *s, ptrdiff_t i, ptrdiff_t end) noexcept nogil:
    cdef vf v
    while i < end:
        v = vload_first(s.dy + i, end - i)
        v = gradient_of(s.which, vload_first(s.x + i, end - i), v, s.a, s.b)
        vstore_first(s.y + i, v, end - i)
        i += VL


def transform_back(x, table, dy, dx, dtable, *, int function, double a, double b):
    """Write the gradients of a :func:`transform`."""
    cdef RowFunction s
    cdef int threads = 1
    cdef ptrdiff_t chunks, i, chunk
    cdef real *total = NULL
    cdef Buffer rows, sums
    cdef list held
    check_rows(&s, x)
    check_function(&s, table, function, a, b)
    s.dy = matrix(dy, "dy", s.n, s.F, IN)
    s.y = matrix(dx, "dx", s.n, s.F, OUT)
    chunks = ceil_div(s.n, CHUNK)
    if dtable is not None:
        total = matrix(dtable, "dtable", 2, s.F, OUT)
        sums = buffer_of(product_of(chunks, 2, s.F))
        s.sums = sums.data
    if worth(s.n * s.F * NUMBER_WORK):
        threads = min(<ptrdiff_t>most_threads(), chunks)
    rows = buffer_of(product_of(threads, 2, ceil_div(s.F, VL), VL))
    s.rows, s.threads = rows.data, threads
    held = [pin(x), pin(table), pin(dy), pin(dx), pin(dtable)]
    with nogil:
        run_parts(threads, function_back_share, &s, s.n * s.F * NUMBER_WORK)
        if total is not NULL:
            memset(total, 0, 2 * s.F * sizeof(real))
            # In the order of rows, whatever the number of threads.
            for chunk in range(chunks if s.which == LAYER_NORM else 0):
                for i in range(2 * s.F):
                    total[i] += s.sums[chunk * 2 * s.F + i]
    held.clear()
