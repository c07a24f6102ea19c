# Losses and their gradients in one pass. Included in kernels.pyx.

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport INFINITY, log
from libc.string cimport memcpy, memset
from maths cimport absolute, at_least, at_most, choose, larger, less, vexp, vlargest, vlog1p
from panels cimport parts, share
from vec cimport (
    VL, float_mode, flush_subnormals, real, restore_mode, vf, vfirst, vload, vload_first, vset,
    vstore, vstore_first, vsum,
)

cdef enum:
    # Terms that are summed in one chain per lane, before they go into a sum of doubles.
    TERMS = 512
    # Multiply-adds that take as long as one number of a cross-entropy.
    LOGIT_WORK = 20

cdef enum Kind:
    MSE
    MAE
    HUBER
    BINARY


cdef inline vf loss_term(Kind kind, vf z, vf t, real delta, vf *grad) noexcept nogil:
    """The loss of each element, and its derivative: the formulas are in ``_reference.losses``."""
    cdef vf d = z - t, e
    if kind == MSE:
        grad[0] = d + d
        return d * d
    if kind == MAE:
        # NaN stays, and 0 too.
        e = choose(less(d, vset(0)), vset(-1), d * vset(0))
        grad[0] = choose(less(vset(0), d), vset(1), e)
        return absolute(d)
    if kind == HUBER:
        grad[0] = at_most(at_least(d, -delta), delta)
        return (d - grad[0] * vset(0.5)) * grad[0]
    e = vexp(-absolute(z))
    grad[0] = choose(less(z, vset(0)), e, vset(1)) / (e + vset(1)) - t
    return vlog1p(e) + at_least(z, 0) - z * t


cdef double sum_terms(
    Kind kind, const real *z, const real *t, real *grad, ptrdiff_t n, real factor, real delta
) noexcept nogil:
    """The sum of the losses of n elements; `grad`, their derivatives, times `factor`."""
    cdef ptrdiff_t i, begin = 0, end
    cdef double found = 0
    cdef vf term, d, total
    while begin < n:
        i, end, total = begin, min(begin + TERMS, n), vset(0)
        while i + VL <= end:
            total = total + loss_term(kind, vload(z + i), vload(t + i), delta, &d)
            vstore(grad + i, d * vset(factor))
            i += VL
        if i < end:
            term = loss_term(
                kind, vload_first(z + i, end - i), vload_first(t + i, end - i), delta, &d
            )
            total = total + vfirst(term, end - i)
            vstore_first(grad + i, d * vset(factor), end - i)
        found += vsum(total)
        begin = end
    return found


cdef double share_of(const real *w, ptrdiff_t count, ptrdiff_t each) noexcept nogil:
    """1 over the sum of all weights, each being that of `each` elements; 0 if all are 0."""
    cdef double total = 0
    cdef ptrdiff_t i
    if w is NULL:
        return 1. / (count * each)
    for i in range(count):
        total += w[i]
    return 1 / (total * each) if total > 0 else 0


cdef double elementwise(Kind kind, z, t, w, grad, real delta):
    cdef const real *a = data(z)
    cdef const real *b = data(t)
    cdef const real *weights = data(w)
    cdef real *d = data(grad)
    cdef ptrdiff_t n = cnp.PyArray_SIZE(z), count = 1 if w is None else cnp.PyArray_SIZE(w)
    cdef ptrdiff_t each = n // count, i
    cdef double found = 0, unit, factor
    cdef float_mode mode
    assert cnp.PyArray_SIZE(t) == n and cnp.PyArray_SIZE(grad) == n
    with nogil:
        mode = flush_subnormals()
        unit = share_of(weights, count, each)
        for i in range(count):
            factor = unit if weights is NULL else weights[i] * unit
            if factor == 0:
                memset(d + i * each, 0, each * sizeof(real))
                continue
            found += factor * sum_terms(
                kind, a + i * each, b + i * each, d + i * each, each, factor, delta
            )
        restore_mode(mode)
    return found


def mse(z, t, w, grad):
    """Squared errors: see ``_reference.losses``."""
    return elementwise(MSE, z, t, w, grad, 0)


def mae(z, t, w, grad):
    """Absolute errors: see ``_reference.losses``."""
    return elementwise(MAE, z, t, w, grad, 0)


def huber(z, t, w, grad, double delta):
    """Huber's loss: see ``_reference.losses``."""
    return elementwise(HUBER, z, t, w, grad, delta)


def binary_cross_entropy(z, t, w, grad):
    """Cross-entropy of two classes: see ``_reference.losses``."""
    return elementwise(BINARY, z, t, w, grad, 0)


cdef struct Logits:
    # What the threads of one cross-entropy share.
    const real *z           # (N, V)
    const cnp.npy_intp *t   # (N,)
    const real *w           # (N / each,), or NULL
    real *grad              # (N, V)
    ptrdiff_t N, V, each
    double unit             # 1 over the sum of weights
    double *terms           # (N,)
    real *rows              # room for a row of each thread


cdef double cross_entropy_row(
    const real *z, ptrdiff_t target, real *grad, ptrdiff_t V, real *row, double factor
) noexcept nogil:
    """The loss of a row of logits, and its gradient times `factor`.

    `row` has room for it in whole vectors.
    """
    cdef ptrdiff_t i, vectors = parts(V, VL)
    cdef vf e, most, total = vset(0)
    cdef real largest, sum, chosen
    vstore(row + (vectors - 1) * VL, vset(-INFINITY))
    memcpy(row, z, V * sizeof(real))
    most = vload(row)
    for i in range(1, vectors):
        most = larger(most, vload(row + i * VL))
    largest = vlargest(most)
    for i in range(vectors):
        e = vexp(vload(row + i * VL) - vset(largest))
        vstore(row + i * VL, e)
        total = total + e
    sum = vsum(total)
    chosen = row[target] / sum
    for i in range(vectors):
        vstore(row + i * VL, vload(row + i * VL) * vset(1 / sum) * vset(factor))
    row[target] = (chosen - 1) * <real>factor
    memcpy(grad, row, V * sizeof(real))
    return log(sum) - (z[target] - largest)


cdef void cross_entropy_share(int index, int count, void *what) noexcept nogil:
    cdef Logits *s = <Logits *>what
    cdef real *row = s.rows + index * parts(s.V, VL) * VL
    cdef ptrdiff_t b
    cdef double factor
    cdef float_mode mode = flush_subnormals()
    for b in range(share(s.N, index, count), share(s.N, index + 1, count)):
        factor = s.unit if s.w is NULL else s.w[b // s.each] * s.unit
        s.terms[b] = 0
        if factor == 0:
            memset(s.grad + b * s.V, 0, s.V * sizeof(real))
        else:
            s.terms[b] = factor * cross_entropy_row(
                s.z + b * s.V, s.t[b], s.grad + b * s.V, s.V, row, factor
            )
    restore_mode(mode)


def cross_entropy(z, t, w, grad):
    """Cross-entropy of rows of logits: see ``_reference.losses``."""
    cdef Logits s
    cdef ptrdiff_t b
    cdef int threads = 1
    cdef double found = 0
    s.N, s.V = cnp.PyArray_SIZE(t), z.shape[z.ndim - 1]
    s.each = s.N if w is None else s.N // cnp.PyArray_SIZE(w)
    s.z, s.w, s.grad = data(z), data(w), data(grad)
    s.t = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>t)
    s.unit = share_of(s.w, s.N // s.each, s.each)
    assert cnp.PyArray_SIZE(z) == s.N * s.V and cnp.PyArray_SIZE(grad) == s.N * s.V
    if worth(s.N * s.V * LOGIT_WORK):
        threads = pool.most
    cdef Buffer rows = Buffer(threads * parts(s.V, VL) * VL)
    s.rows = rows.data
    s.terms = <double *>PyMem_RawMalloc(s.N * sizeof(double))
    if s.terms is NULL:
        raise MemoryError(f"can't allocate memory for {s.N} numbers")
    with nogil:
        pool.run(threads, cross_entropy_share, &s, False)
        # In order, whoever computed them.
        for b in range(s.N):
            found += s.terms[b]
        PyMem_RawFree(s.terms)
    return found
