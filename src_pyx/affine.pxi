# An affine map of rows by a PackedLinear. Included in linear.pxi and quantized.pyx.

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy
from panels cimport Panels, ceil_div, multiply, some_panels, split_point
from split cimport most_threads, pool, run_parts, worth
from vec cimport VL, float_mode, flush_subnormals, gemm_args, narrow_row, real, restore_mode

cdef enum:
    # Rows multiplied with all panels before the next rows: they fit into the L2 cache.
    ROWS_AT_ONCE = 128


cdef struct RowMap:
    # y = init + x w for n rows; the last axes are contiguous.
    Panels w
    const real *init
    const real *x
    ptrdiff_t x_row
    ptrdiff_t n
    real *y
    ptrdiff_t units         # of y: O, or I for the gradient
    real *last              # scratch for the last group of panels: some rows per thread;
    real *narrow            # and for rows of x in the weights' format, or NULL
    int threads             # at most, which have scratch for
    ptrdiff_t scratch_rows  # each, ROWS_AT_ONCE at most


cdef inline ptrdiff_t last_width(const Panels *w) noexcept nogil:
    """Return the number of blocks in the last group."""
    return w.width + (w.wider > 0)


cdef void map_panels(
    const RowMap *m, const Panels *w, ptrdiff_t first, ptrdiff_t begin, ptrdiff_t rows, real *y,
    ptrdiff_t y_row, real *narrow,
) noexcept nogil:
    cdef gemm_args p
    p.a, p.a_row, p.a_k = m.x + begin * m.x_row, m.x_row, 1
    p.narrow = narrow
    p.init, p.init_row = m.init + first * VL, 0
    p.c, p.c_row = y, y_row
    multiply(w, rows, &p, VL, VL)


cdef void map_share(int index, int count, void *what) noexcept nogil:
    cdef RowMap *m = <RowMap *>what
    cdef ptrdiff_t begin = split_point(m.n, index, count), end = split_point(m.n, index + 1, count)
    # A partly filled last vector would overwrite the start of the next row: it goes via `last`.
    cdef ptrdiff_t full = m.w.blocks - (last_width(&m.w) if m.units % VL else 0)
    cdef Panels direct = some_panels(&m.w, 0, full)
    cdef Panels rest = some_panels(&m.w, full, m.w.blocks)
    cdef ptrdiff_t wide = rest.blocks * VL, b, rows
    cdef ptrdiff_t own = index % m.threads * m.scratch_rows
    cdef real *last = m.last + own * wide
    cdef real *narrow = m.narrow + own * narrow_row(m.w.K)
    cdef float_mode mode = flush_subnormals()
    while begin < end:
        rows = min(ROWS_AT_ONCE, end - begin)
        if full > 0:
            map_panels(m, &direct, 0, begin, rows, m.y + begin * m.units, m.units, narrow)
        if wide > 0:
            map_panels(m, &rest, full, begin, rows, last, wide, narrow)
            for b in range(rows):
                memcpy(
                    m.y + (begin + b) * m.units + full * VL, last + b * wide,
                    (m.units - full * VL) * sizeof(real),
                )
        begin += rows
    restore_mode(mode)


cdef int map_rows(
    const Panels *w, Buffer init, const real *x, ptrdiff_t x_row, real *y, ptrdiff_t n,
    ptrdiff_t units,
) except -1:
    """Compute y = init + x w; the caller has checked and, if work >= BRIEF, pinned the arrays."""
    cdef RowMap m
    cdef int threads = 1
    if worth(n * units * w.K):
        threads = min(<ptrdiff_t>most_threads(), n)
    cdef Buffer last, narrow
    m.w, m.init, m.x, m.x_row, m.n = w[0], init.data, x, x_row, n
    m.y, m.units, m.last, m.narrow, m.scratch_rows = y, units, NULL, NULL, ROWS_AT_ONCE
    m.threads = threads
    if units % VL:
        last = buffer_of(product_of(threads, ROWS_AT_ONCE, last_width(w), VL))
        m.last = last.data
    if w.format.narrow_rows is not NULL:
        narrow = buffer_of(product_of(threads, ROWS_AT_ONCE, narrow_row(w.K)))
        m.narrow = narrow.data
    if n * units * w.K < BRIEF:
        map_share(0, 1, &m)
        return 0
    with nogil:
        run_parts(threads, map_share, &m, n * units * w.K)
    return 0


def linear(PackedLinear packed not None, x, y):
    """Write x W^T + b to y, each row by a product of its own."""
    cdef const real *source = rows_of(x, "x", packed.I, IN)
    cdef ptrdiff_t n = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
    cdef real *target = matrix(y, "y", n, packed.O, OUT)
    cdef tuple held
    if n * packed.O * packed.I >= BRIEF:
        held = (pin(x), pin(y))
    map_rows(&packed.w, packed.init, source, stride(x, 0), target, n, packed.O)
    held = None


@cython.final
cdef class LinearStepper(Stage):
    """An affine map of one time step, with the parameters of `Stepper`."""

    cdef object weights, kernels
    cdef object copy            # the exclusive Copy of the weights, or None
    cdef PackedLinear packed
    cdef RowMap map
    cdef Buffer last, narrow

    def __cinit__(self, weights, kernels, ptrdiff_t batch_size):
        cdef PackedLinear packed = weights.packed(kernels)
        if packed is None or batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.weights, self.kernels, self.packed = weights, kernels, packed
        self.B, self.I, self.P = batch_size, packed.I, packed.O
        self.work = product_of(self.B, self.I, self.P)
        # Enough for any number of threads, with up to ceil(B / threads) rows each.
        self.last = buffer_of(product_of(2, self.B, last_width(&packed.w), VL))
        self.refresh()

    cdef bint is_ready(self) except -1:
        return self.weights.copy is self.copy

    cdef int refresh(self) except -1:
        cdef PackedLinear packed = self.weights.packed(self.kernels)
        cdef RowMap *m = &self.map
        if packed is None or packed.I != self.I or packed.O != self.P:
            raise ValueError("weights: expected those with which the stream was made")
        copy = self.weights.copy
        self.copy = copy if copy.exclusive and copy.packed is packed else None
        self.packed = packed
        m.w, m.init, m.x_row, m.n, m.units = packed.w, packed.init.data, self.I, self.B, self.P
        m.last, m.narrow = self.last.data, NULL
        if m.w.format.narrow_rows is not NULL:
            if self.narrow is None:
                self.narrow = buffer_of(product_of(2, self.B, narrow_row(self.I)))
            m.narrow = self.narrow.data
        return 0

    cdef void run(self, const void *x, real *y) noexcept nogil:
        cdef int threads = 1
        if worth(self.work):
            threads = min(<ptrdiff_t>most_threads(), self.B)
        self.map.x, self.map.y = <const real *>x, y
        self.map.scratch_rows = min(ROWS_AT_ONCE, ceil_div(self.B, threads))
        self.map.threads = threads
        if threads == 1:
            map_share(0, 1, &self.map)
        else:
            pool.run(threads, map_share, &self.map, False)
