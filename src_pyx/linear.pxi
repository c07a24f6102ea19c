# The affine map y = W x + b of rows, and its gradients. Included in kernels.pyx.

cimport cython
cimport numpy as cnp
from libc.string cimport memcmp, memcpy, memset
from panels cimport Panels, ceil_div, multiply, panels_for, part, some_panels, split_point, sweep
from split cimport most_threads, pool, run_parts, worth
from vec cimport (
    VL, WIDEST, float_mode, flush_subnormals, gemm_args, narrow_row, real, restore_mode,
    set_contiguous, tile_format, vf, vload, vload_first, vset, vstore, vstore_first,
)

cdef class PackedLinear:
    """An immutable copy of the weights of an affine map, in the layout of the kernels.

    Parameters
    ----------
    weights : pair of array
        Weight (O, I), and bias (O,) or None.
    matmul_precision : {"float32", "bfloat16"}
    """

    cdef object weight, bias    # copies
    cdef ptrdiff_t I, O
    cdef const tile_format *format
    cdef Panels w, back         # back: packed when first needed
    cdef Buffer w_memory, back_memory, init, zero

    def __cinit__(self, weights, matmul_precision="float32"):
        weight, bias = weights
        # Check the copies: other threads may change the originals meanwhile.
        self.weight = weight = copied(weight, "weight")
        numbers(weight, "weight", IN)
        if cnp.PyArray_NDIM(<cnp.ndarray>weight) != 2 or cnp.PyArray_SIZE(<cnp.ndarray>weight) == 0:
            refuse(weight, "weight", f"a C-contiguous {real_name()} array (O, I)")
        self.O = cnp.PyArray_DIM(<cnp.ndarray>weight, 0)
        self.I = cnp.PyArray_DIM(<cnp.ndarray>weight, 1)
        if bias is not None:
            self.bias = bias = copied(bias, "bias")
            vector(bias, "bias", self.O, IN)
        self.format = format_of(matmul_precision)
        self.w = panels_for(self.format, self.I, ceil_div(self.O, VL), 1, 0, VL)
        self.w_memory = buffer_of(product_of(self.w.depth, self.w.blocks, VL))
        self.w.w = self.w_memory.data
        pack(&self.w, &OUTPUT, data(self.weight), self.O)
        self.init = zeros(self.w.blocks * VL)
        self.zero = zeros(ceil_div(self.I, VL) * VL)
        if bias is not None:
            memcpy(self.init.data, data(self.bias), self.O * sizeof(real))

    cdef int need_back(self) except -1:
        """Pack the weights for gradients of the input, when first needed."""
        cdef Panels back
        cdef Buffer memory
        if self.back_memory is not None:
            return 0
        back = panels_for(self.format, self.O, ceil_div(self.I, VL), 1, 0, VL)
        memory = buffer_of(product_of(back.depth, back.blocks, VL))
        back.w = memory.data
        pack_back(&back, &OUTPUT, data(self.weight), self.O, self.I)
        # The allocation may trigger a garbage collection, during which another thread packed them.
        if self.back_memory is None:
            self.back, self.back_memory = back, memory
        return 0

    def matches(self, weights):
        """Return whether the copy has the same bits as `weights`."""
        weight, bias = weights
        if (bias is None) != (self.bias is None):
            return False
        return same_bits(self.weight, weight) and (bias is None or same_bits(self.bias, bias))


cdef bint same_bits(object copy, object array) noexcept:
    """Return whether an array is unchanged since it was copied."""
    return (
        is_plain(array, NPY_REAL, IN | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray>copy, <cnp.ndarray>array)
        and memcmp(data(copy), data(array), cnp.PyArray_NBYTES(<cnp.ndarray>copy)) == 0
    )


include "affine.pxi"


cdef struct WeightSums:
    # dweight = dy^T x over n rows, dbias = sum of the rows of dy.
    const real *x           # (n, I)
    const real *dy          # (n, O)
    ptrdiff_t n, I, O
    real *dweight           # (O, I)
    real *dbias             # (O,), or NULL
    int threads             # at most
    real *xs                # scratch per thread: some vectors of ROWS_AT_ONCE rows of x,
    real *sums              # and a tile's part of dweight, (O, WIDEST * VL)
    const tile_format *format
    real *dys               # pairs of rows of dy in this format, if it is narrow
    const real *zero


cdef void sum_share(int index, int count, void *what) noexcept nogil:
    """Sum the share of one thread: some groups of vectors of x."""
    cdef WeightSums *s = <WeightSums *>what
    cdef ptrdiff_t blocks = ceil_div(s.I, VL), groups = ceil_div(blocks, WIDEST)
    cdef ptrdiff_t group, begin, rows, o, width, from_, units, first = 0
    cdef ptrdiff_t own = index % s.threads
    cdef real *xs = s.xs + own * ROWS_AT_ONCE * WIDEST * VL
    cdef real *sums = s.sums + own * s.O * WIDEST * VL
    cdef gemm_args p
    cdef float_mode mode = flush_subnormals()
    for group in range(split_point(groups, index, count)):
        first += part(blocks, groups, group)
    for group in range(split_point(groups, index, count), split_point(groups, index + 1, count)):
        width = part(blocks, groups, group)
        from_, units = first * VL, min(width * VL, s.I - first * VL)
        memset(sums, 0, s.O * width * VL * sizeof(real))
        begin = 0
        while begin < s.n:
            rows = min(ROWS_AT_ONCE, s.n - begin)
            # Sum these rows from 0, then add: see `accumulate` in panels.pxd.
            p.add, p.format = True, s.format
            p.a, p.a_row, p.a_k = s.dy + begin * s.O, 1, s.O
            if s.dys is not NULL:
                p.a_k, p.a_high = s.O * s.format.a_width, s.O
                p.a = s.dys + begin // 2 * p.a_k
            p.w, p.w_k, p.w_vec = xs, width * VL, VL
            set_contiguous(&p, take_columns(s, xs, begin, rows, from_, units, width * VL))
            p.init, p.init_row, p.init_vec = s.zero, 0, 0
            p.c, p.c_row, p.c_vec = sums, width * VL, VL
            sweep(width, 1, s.O, &p, 0, 0, 0)
            begin += rows
        for o in range(s.O):
            memcpy(s.dweight + o * s.I + from_, sums + o * width * VL, units * sizeof(real))
        first += width
    if index == 0 and s.dbias is not NULL:
        sum_columns(s.dy, s.n, s.O, s.dbias)
    restore_mode(mode)


cdef inline ptrdiff_t take_columns(
    const WeightSums *s, real *xs, ptrdiff_t begin, ptrdiff_t rows, ptrdiff_t first,
    ptrdiff_t units, ptrdiff_t wide,
) noexcept nogil:
    """Write columns of rows of x, or of pairs of them, and zeros; return the number of rows."""
    cdef ptrdiff_t i, each = s.format.per_word, count = ceil_div(rows, each)
    cdef const real *low
    for i in range(count):
        low = s.x + (begin + i * each) * s.I + first
        if each == 1:
            memcpy(xs, low, units * sizeof(real))
        else:
            s.format.pair_rows(low, low + s.I if 2 * i + 1 < rows else NULL, units, xs)
        memset(xs + units, 0, (wide - units) * sizeof(real))
        xs += wide
    return count


cdef void pair_share(int index, int count, void *what) noexcept nogil:
    """Write one thread's share of the pairs of rows of dy."""
    cdef WeightSums *s = <WeightSums *>what
    cdef ptrdiff_t pairs = ceil_div(s.n, 2), j
    cdef const real *low
    cdef float_mode mode = flush_subnormals()
    for j in range(split_point(pairs, index, count), split_point(pairs, index + 1, count)):
        low = s.dy + 2 * j * s.O
        s.format.pair_left(
            low, low + s.O if 2 * j + 1 < s.n else NULL, s.O,
            s.dys + j * s.O * s.format.a_width,
        )
    restore_mode(mode)


cdef void sum_columns(const real *a, ptrdiff_t n, ptrdiff_t O, real *sums) noexcept nogil:
    cdef ptrdiff_t begin, b, o = 0
    cdef vf total, of_rows
    while o < O:
        total = vset(0)
        begin = 0
        while begin < n:
            of_rows = vset(0)
            for b in range(begin, min(begin + ROWS_AT_ONCE, n)):
                of_rows = of_rows + vload_first(a + b * O + o, O - o)
            total = total + of_rows
            begin += ROWS_AT_ONCE
        vstore_first(sums + o, total, O - o)
        o += VL


def linear_backward(PackedLinear packed not None, x, dy, dx, dweight, dbias):
    """Write the gradients of a :func:`linear`."""
    cdef WeightSums s
    cdef ptrdiff_t groups = ceil_div(ceil_div(packed.I, VL), WIDEST)
    cdef int threads = 1
    cdef Buffer xs, sums, dys
    cdef real *to_x = NULL
    cdef tuple held
    s.I, s.O = packed.I, packed.O
    s.x = rows_of(x, "x", s.I, IN)
    s.n = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
    matrix(x, "x", s.n, s.I, IN)
    s.dy = matrix(dy, "dy", s.n, s.O, IN)
    if dx is not None:
        to_x = matrix(dx, "dx", s.n, s.I, OUT)
    s.dweight = matrix(dweight, "dweight", s.O, s.I, OUT)
    s.dbias = NULL if dbias is None else vector(dbias, "dbias", s.O, OUT)
    s.zero = packed.zero.data
    if worth(s.n * s.I * s.O):
        threads = min(<ptrdiff_t>most_threads(), groups)
    xs = buffer_of(product_of(threads, ROWS_AT_ONCE, WIDEST, VL))
    sums = buffer_of(product_of(threads, s.O, WIDEST, VL))
    s.xs, s.sums, s.format, s.dys = xs.data, sums.data, packed.format, NULL
    s.threads = threads
    if s.format.narrow_rows is not NULL:
        dys = buffer_of(product_of(ceil_div(s.n, 2), s.O, s.format.a_width))
        s.dys = dys.data
    held = (pin(x), pin(dy), pin(dx), pin(dweight), pin(dbias))
    if dx is not None:
        packed.need_back()
        map_rows(&packed.back, packed.zero, s.dy, s.O, to_x, s.n, s.I)
    with nogil:
        if s.dys is not NULL:
            pool.run(threads, pair_share, &s, False)
        run_parts(threads, sum_share, &s, s.n * s.I * s.O)
    held = None
