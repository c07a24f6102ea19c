# Functions of each row: activations, normalisation. Included in kernels.pyx and quantized.pyx.

cimport cython
cimport numpy as cnp
from functions cimport (
    LAYER_NORM, LOG_SOFTMAX, RESTORE, SOFTMAX, STANDARDISE, function_of, restored, standardised,
)
from libc.math cimport INFINITY
from libc.string cimport memcpy, memset
from maths cimport larger, log_of, vexp, vlargest
from norm cimport normalise_with
from panels cimport ceil_div, split_point
from split cimport most_threads, pool, run_parts, worth
from vec cimport (
    SUM_VECTORS, VL, float_mode, flush_subnormals, real, restore_mode, vf, vfma, vload, vload_first,
    vset, vstore, vstore_first, vsum,
)

cdef enum:
    # Rows of a chunk, which one thread maps, and whose gradients of the table are summed first.
    CHUNK = 32
    # Cost of a number, in multiply-adds.
    NUMBER_WORK = 10


cdef struct RowFunction:
    # A function of each of n rows of F numbers, or its gradient.
    int which
    real a, b               # its parameters
    const real *table       # (2, F), or NULL
    const double *scale     # (2, F): the table of STANDARDISE and RESTORE, in float64
    const real *x           # (n, F)
    const real *dy          # (n, F); NULL: forward
    real *y                 # (n, F): the result, or the gradient of x
    real *sums              # (chunks, 2, F): of gradients of the table, or NULL
    real *rows              # scratch: two rows per thread
    int threads             # at most
    ptrdiff_t n, F


cdef real exponentials(const real *z, real *row, ptrdiff_t V, real *largest) noexcept nogil:
    """Write exp(z - max z) to `row`, in whole vectors; return the sum, and the maximum."""
    cdef ptrdiff_t part, i, vectors = ceil_div(V, VL)
    cdef vf e, most, total
    cdef real sum = 0
    vstore(row + (vectors - 1) * VL, vset(-INFINITY))
    memcpy(row, z, V * sizeof(real))
    most = vload(row)
    for i in range(1, vectors):
        most = larger(most, vload(row + i * VL))
    largest[0] = vlargest(most)
    for part in range(SUM_VECTORS):
        i, total = part, vset(0)
        while i < vectors:
            e = vexp(vload(row + i * VL) - vset(largest[0]))
            vstore(row + i * VL, e)
            total = total + e
            i += SUM_VECTORS
        sum = vsum(sum, total)
    return sum


cdef real normalise_into(const RowFunction *s, const real *x, real *row) noexcept nogil:
    """Write x, normalised, to `row`, with zeros up to a whole vector; return 1 / deviation."""
    cdef ptrdiff_t vectors = ceil_div(s.F, VL)
    vstore(row + (vectors - 1) * VL, vset(0))
    memcpy(row, x, s.F * sizeof(real))
    return normalise_with(row, VL, 1, vectors, s.F, s.a)


cdef void map_row(const RowFunction *s, const real *x, real *y, real *row) noexcept nogil:
    cdef ptrdiff_t u, i, left
    cdef real sum = 0, largest = 0, log_sum = 0
    cdef vf v
    if s.which == LAYER_NORM:
        normalise_into(s, x, row)
    else:
        sum = exponentials(x, row, s.F, &largest)
        log_sum = <real>log_of(sum)
    for u in range(ceil_div(s.F, VL)):
        i, left = u * VL, s.F - u * VL
        if s.which == SOFTMAX:
            v = vload(row + i) / vset(sum)
        elif s.which == LOG_SOFTMAX:
            v = vload_first(x + i, left) - vset(largest) - vset(log_sum)
        else:
            v = vload(row + i)
            if s.table is not NULL:
                v = vfma(
                    v, vload_first(s.table + i, left), vload_first(s.table + s.F + i, left)
                )
        vstore_first(y + i, v, left)


cdef void standardise(const RowFunction *s, const real *x, real *y) noexcept nogil:
    cdef const double *mean = s.scale
    cdef const double *deviation = s.scale + s.F
    cdef ptrdiff_t i
    if s.which == STANDARDISE:
        for i in range(s.F):
            y[i] = standardised(x[i], mean[i], deviation[i])
    else:
        for i in range(s.F):
            y[i] = restored(x[i], mean[i], deviation[i])


cdef void map_numbers(const RowFunction *s, ptrdiff_t i, ptrdiff_t end) noexcept nogil:
    while i < end:
        vstore_first(
            s.y + i, function_of(s.which, vload_first(s.x + i, end - i), s.a, s.b), end - i
        )
        i += VL


cdef void function_share(int index, int count, void *what) noexcept nogil:
    """Map one thread's share of the chunks."""
    cdef RowFunction *s = <RowFunction *>what
    cdef ptrdiff_t chunks = ceil_div(s.n, CHUNK), b
    cdef ptrdiff_t begin = split_point(chunks, index, count) * CHUNK
    cdef ptrdiff_t end = min(s.n, split_point(chunks, index + 1, count) * CHUNK)
    cdef real *row = s.rows + 2 * (index % s.threads) * ceil_div(s.F, VL) * VL
    cdef float_mode mode
    if s.which >= STANDARDISE:
        # As NumPy does, with the smallest numbers too.
        for b in range(begin, end):
            standardise(s, s.x + b * s.F, s.y + b * s.F)
        return
    mode = flush_subnormals()
    if s.which < SOFTMAX:
        map_numbers(s, begin * s.F, end * s.F)
    else:
        for b in range(begin, end):
            map_row(s, s.x + b * s.F, s.y + b * s.F, row)
    restore_mode(mode)


cdef int check_function(RowFunction *s, table, int which, double a, double b) except -1:
    """Check which function it is, and the table (2, F) that some have."""
    if not 0 <= which <= RESTORE:
        raise ValueError(f"function: expected 0..{RESTORE}, got {which}")
    s.which, s.a, s.b, s.table, s.dy, s.sums = which, <real>a, <real>b, NULL, NULL, NULL
    if s.F < 1 or (table is None) != (which < LAYER_NORM) and which != LAYER_NORM:
        raise ValueError(f"function, table, F: expected others, got {which}, {table}, {s.F}")
    if table is not None and not set_table(s, table):
        refuse(table, "table", f"a C-contiguous {table_type(which)} array (2, {s.F})")
    return 0


cdef inline str table_type(int which):
    return "float64" if which >= STANDARDISE else real_name()


cdef bint set_table(RowFunction *s, object table) noexcept:
    """Take the data of a table; return whether it is one that the function reads."""
    cdef bint wide = s.which >= STANDARDISE
    if not (
        is_flat(table, cnp.NPY_FLOAT64 if wide else NPY_REAL, 2 * s.F, IN)
        and cnp.PyArray_NDIM(<cnp.ndarray>table) == 2
        and cnp.PyArray_DIM(<cnp.ndarray>table, 1) == s.F
    ):
        return False
    s.table = <const real *>cnp.PyArray_DATA(<cnp.ndarray>table)
    s.scale = <const double *>cnp.PyArray_DATA(<cnp.ndarray>table)
    return True


cdef int check_rows(RowFunction *s, x) except -1:
    """Check x (n, F)."""
    s.x = numbers(x, "x", IN)
    if cnp.PyArray_NDIM(<cnp.ndarray>x) != 2:
        refuse(x, "x", f"a C-contiguous {real_name()} array (n, F)")
    s.n, s.F = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    return 0


def transform(x, table, y, *, int function, double a, double b):
    """Write a function of each row of x (n, F) to y."""
    cdef RowFunction s
    cdef int threads = 1
    cdef list held
    check_rows(&s, x)
    check_function(&s, table, function, a, b)
    s.y = matrix(y, "y", s.n, s.F, OUT)
    if worth(s.n * s.F * NUMBER_WORK):
        threads = most_threads()
    cdef Buffer rows = buffer_of(product_of(threads, 2, ceil_div(s.F, VL), VL))
    s.rows, s.threads = rows.data, threads
    if s.n * s.F < BRIEF // NUMBER_WORK:
        function_share(0, 1, &s)
        return
    held = [pin(x), pin(table), pin(y)]
    with nogil:
        run_parts(threads, function_share, &s, s.n * s.F * NUMBER_WORK)
    held.clear()


@cython.final
cdef class RowStepper(Stage):
    """A function of each row of one time step."""

    cdef object table
    cdef cnp.ndarray array      # (2, F), or None
    cdef RowFunction s
    cdef Buffer rows

    def __cinit__(self, table, x, *, int function, double a, double b):
        self.table, self.array = table, None if table is None else table.array
        check_rows(&self.s, x)
        check_function(&self.s, self.array, function, a, b)
        self.B, self.I, self.P = self.s.n, self.s.F, self.s.F
        if self.B < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.B}")
        self.work = product_of(self.B, self.P, NUMBER_WORK)
        # Enough for any number of threads, each of which has a chunk or more.
        self.rows = buffer_of(product_of(ceil_div(self.B, CHUNK), 2, ceil_div(self.P, VL), VL))
        self.s.rows, self.s.threads = self.rows.data, ceil_div(self.B, CHUNK)

    cdef bint is_ready(self) except -1:
        # Its shape can be changed by way of a view's base.
        return self.array is None or set_table(&self.s, self.array)

    cdef int refresh(self) except -1:
        self.table.array  # raises if it was reshaped
        return check_function(&self.s, self.array, self.s.which, self.s.a, self.s.b)

    cdef void run(self, const void *x, real *y) noexcept nogil:
        cdef int threads = 1
        self.s.x, self.s.y = <const real *>x, y
        if worth(self.work):
            threads = min(<ptrdiff_t>most_threads(), ceil_div(self.B, CHUNK))
        if threads == 1:
            function_share(0, 1, &self.s)
        else:
            pool.run(threads, function_share, &self.s, False)
