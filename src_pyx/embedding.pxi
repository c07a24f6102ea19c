# Embedding lookup and its gradient. Included in kernels.pyx.

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy
from panels cimport split_point
from split cimport ROW_COST, most_threads, pool, run_parts, worth
from vec cimport VL, float_mode, flush_subnormals, real, restore_mode, vload, vstore


cdef ptrdiff_t first_from(
    const cnp.npy_intp *rows, ptrdiff_t count, ptrdiff_t least
) noexcept nogil:
    """Return the index of the first of the ascending `rows` that is at least `least`."""
    cdef ptrdiff_t begin = 0, end = count, middle
    while begin < end:
        middle = (begin + end) // 2
        if rows[middle] < least:
            begin = middle + 1
        else:
            end = middle
    return begin


cdef struct Lookup:
    # A lookup, shared by its threads.
    const real *table       # (V, D)
    const cnp.npy_intp *x   # (n,)
    real *y                 # (n, D)
    ptrdiff_t V, D, n
    int threads             # at most
    Stray *strays           # one per thread


cdef void look_up_share(int index, int count, void *what) noexcept nogil:
    cdef Lookup *s = <Lookup *>what
    cdef ptrdiff_t i
    cdef cnp.npy_intp row
    for i in range(split_point(s.n, index, count), split_point(s.n, index + 1, count)):
        row = read_once(s.x + i)
        if 0 <= row < s.V:
            memcpy(s.y + i * s.D, s.table + row * s.D, s.D * sizeof(real))
        else:
            note_stray(s.strays + index % s.threads, i, row)


def take_rows(table, x, y):
    """Write the rows of `table` with the indices `x` to `y`."""
    cdef Lookup s
    cdef int threads = 1
    cdef list held
    s.table = numbers(table, "table", IN)
    if cnp.PyArray_NDIM(<cnp.ndarray>table) != 2:
        refuse(table, "table", f"a C-contiguous {real_name()} array (V, D)")
    s.V, s.D = cnp.PyArray_DIM(<cnp.ndarray>table, 0), cnp.PyArray_DIM(<cnp.ndarray>table, 1)
    s.x, s.n = indices(x, "x"), cnp.PyArray_SIZE(<cnp.ndarray>x)
    s.y = matrix(y, "y", s.n, s.D, OUT)
    if worth(s.n * s.D):
        threads = most_threads()
    cdef Buffer strays = no_strays(threads)
    s.strays, s.threads = <Stray *>strays.data, threads
    if s.n * s.D < BRIEF:
        look_up_share(0, 1, &s)
    else:
        held = [pin(table), pin(x), pin(y)]
        with nogil:
            run_parts(threads, look_up_share, &s, s.n * s.D)
        held.clear()
    refuse_strays(strays, threads, "x", f"whole numbers in 0..{s.V - 1}")


@cython.final
cdef class TableStepper(Stage):
    """A lookup of one time step: the rows (B, D) of a table for tokens (B,)."""

    cdef object table
    cdef cnp.ndarray array
    cdef Lookup lookup

    def __cinit__(self, table, ptrdiff_t batch_size):
        self.table, self.array = table, table.array
        numbers(self.array, "table", IN)
        if cnp.PyArray_NDIM(self.array) != 2 or batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.V, self.P = cnp.PyArray_DIM(self.array, 0), cnp.PyArray_DIM(self.array, 1)
        self.B, self.work = batch_size, product_of(batch_size, self.P)
        self.lookup.V, self.lookup.D, self.lookup.n = self.V, self.P, self.B

    cdef bint is_ready(self) except -1:
        # Its shape can be changed by way of a view's base.
        if not (
            is_flat(self.array, NPY_REAL, self.V * self.P, IN)
            and cnp.PyArray_NDIM(self.array) == 2
            and cnp.PyArray_DIM(self.array, 1) == self.P
        ):
            return False
        self.lookup.table = data(self.array)
        return True

    cdef int refresh(self) except -1:
        self.table.array  # raises if it was reshaped
        refuse(self.array, "table", f"a C-contiguous {real_name()} array ({self.V}, {self.P})")

    cdef void run(self, const void *x, real *y) noexcept nogil:
        self.lookup.x, self.lookup.y = <const cnp.npy_intp *>x, y
        # Never a stray: the chain has checked its copy of the tokens.
        if worth(self.work):
            pool.run(most_threads(), look_up_share, &self.lookup, False)
        else:
            look_up_share(0, 1, &self.lookup)


cdef struct RowSums:
    # Rows of dy, added to sums by index.
    const cnp.npy_intp *x   # (n,)
    const real *dy          # (n, D)
    const cnp.npy_intp *rows    # (count,), or NULL
    real *sums              # (count, D)
    ptrdiff_t n, count, D
    Stray *stray


cdef void add_share(int index, int count, void *what) noexcept nogil:
    cdef const RowSums *s = <const RowSums *>what
    cdef ptrdiff_t i, j, place, full = s.D // VL * VL
    cdef cnp.npy_intp row
    cdef const real *given = s.dy
    cdef real *to
    cdef float_mode mode = flush_subnormals()
    for i in range(split_point(s.n, index, count), split_point(s.n, index + 1, count)):
        row = read_once(s.x + i)
        place = row if s.rows is NULL else first_from(s.rows, s.count, row)
        if not 0 <= place < s.count or (s.rows is not NULL and s.rows[place] != row):
            note_stray(s.stray, i, row)
            continue
        to, given = s.sums + place * s.D, s.dy + i * s.D
        j = 0
        while j < full:
            vstore(to + j, vload(to + j) + vload(given + j))
            j += VL
        while j < s.D:
            to[j] += given[j]
            j += 1
    restore_mode(mode)


def add_rows(x, dy, rows, sums):
    """Add each row of `dy` (n, D) to the row of `sums` for its index in `x`."""
    cdef RowSums s
    cdef list held
    s.sums = numbers(sums, "sums", OUT)
    if cnp.PyArray_NDIM(<cnp.ndarray>sums) != 2:
        refuse(sums, "sums", f"a C-contiguous {real_name()} array (k, D)")
    s.count, s.D = cnp.PyArray_DIM(<cnp.ndarray>sums, 0), cnp.PyArray_DIM(<cnp.ndarray>sums, 1)
    s.x, s.n = indices(x, "x"), cnp.PyArray_SIZE(<cnp.ndarray>x)
    s.dy = matrix(dy, "dy", s.n, s.D, IN)
    s.rows = NULL if rows is None else indices(rows, "rows")
    if rows is not None and cnp.PyArray_SIZE(<cnp.ndarray>rows) != s.count:
        refuse(rows, "rows", f"a C-contiguous intp array ({s.count},)")
    cdef Buffer strays = no_strays(1)
    s.stray = <Stray *>strays.data
    if s.n * s.D < BRIEF:
        add_share(0, 1, &s)
    else:
        held = [pin(x), pin(dy), pin(rows), pin(sums)]
        with nogil:
            run_parts(1, add_share, &s, s.n * (s.D + ROW_COST))
        held.clear()
    among = f"0..{s.count - 1}" if rows is None else "rows"
    refuse_strays(strays, 1, "x", f"whole numbers in {among}")
