# Losses and their gradients in one pass. Included in kernels.pyx.

cimport numpy as cnp
from libc.float cimport DBL_MAX
from libc.math cimport fabs, fmax, fmin
from libc.string cimport memcpy, memset
from maths cimport absolute, at_least, at_most, choose, less, log_of, vexp, vlog1p
from panels cimport ceil_div, split_point
from split cimport handle_signals
from vec cimport (
    REAL_MAX, SUM_LANES, SUM_VECTORS, VL, float_mode, flush_subnormals, real, restore_mode, vf,
    vfirst, vfnma, vload, vload_first, vset, vstore, vstore_first, vsum,
)

cdef enum:
    # Terms summed in `real`, in SUM_LANES chains, before they are added to a sum of doubles.
    TERMS = 512
    # Elements between two looks for signals: a multiple of TERMS.
    PIECE = 4194304
    MOST_LANES = 16
    # Cost of one element of an elementwise loss, in multiply-adds,
    ELEMENT_WORK = 8
    # and of one logit of a cross-entropy.
    LOGIT_WORK = 20

cdef enum Kind:
    MSE
    MAE
    HUBER
    BINARY


cdef inline vf loss_term(Kind kind, vf z, vf t, real delta, vf *grad) noexcept nogil:
    """Return each element's loss and write its derivative: see the formulas of the functions."""
    cdef vf d = z - t, e
    if kind == MSE:
        grad[0] = d + d
        return d * d
    if kind == MAE:
        # The sign of d; NaN stays NaN.
        e = choose(less(d, vset(0)), vset(-1), d * vset(0))
        grad[0] = choose(less(vset(0), d), vset(1), e)
        return absolute(d)
    if kind == HUBER:
        grad[0] = at_most(at_least(d, -delta), delta)
        return vfnma(grad[0], vset(0.5), d) * grad[0]
    e = vexp(-absolute(z))
    grad[0] = choose(less(z, vset(0)), e, vset(1)) / (e + vset(1)) - t
    return vfnma(z, t, vlog1p(e) + at_least(z, 0))


cdef void sum_terms(
    double *found, Kind kind, const real *z, const real *t, real *grad, ptrdiff_t n, real factor,
    real delta,
) noexcept nogil:
    """Add n losses to `found`; write their derivatives times `factor` to `grad`."""
    cdef ptrdiff_t part, i, begin = 0, end
    cdef real sum
    cdef float_mode mode = flush_subnormals()
    cdef vf term, d, total
    while begin < n:
        sum, end = 0, min(begin + TERMS, n)
        for part in range(SUM_VECTORS):
            i, total = begin + part * VL, vset(0)
            while i + VL <= end:
                total = total + loss_term(kind, vload(z + i), vload(t + i), delta, &d)
                vstore(grad + i, d * vset(factor))
                i += SUM_LANES
            if i < end:
                term = loss_term(
                    kind, vload_first(z + i, end - i), vload_first(t + i, end - i), delta, &d
                )
                total = total + vfirst(term, end - i)
                vstore_first(grad + i, d * vset(factor), end - i)
            sum = vsum(sum, total)
        found[0] += sum
        begin = end
    restore_mode(mode)


cdef double sum_widely(
    Kind kind, const real *z, const real *t, real *grad, ptrdiff_t n, double factor, double delta
) noexcept nogil:
    """Return the sum of n losses times `factor`, also where that of `sum_terms` overflows."""
    cdef ptrdiff_t i
    cdef double found = 0, half, g
    cdef real[MOST_LANES] term
    cdef vf d
    for i in range(n):
        half = <double>z[i] * 0.5 - <double>t[i] * 0.5
        if kind == MSE:
            g = half * factor * 4
            found += g * half
        elif kind == MAE:
            g = factor if half > 0 else -factor if half < 0 else half * 0
            found += fabs(half) * (factor * 2)
        elif kind == HUBER:
            g = fmax(-delta, fmin(half * 2, delta)) if half == half else half
            found += (half - g * 0.25) * (g * factor * 2)
            g *= factor
        else:
            vstore(term, loss_term(kind, vset(z[i]), vset(t[i]), 0, &d))
            found += term[0] * factor
            vstore(term, d)
            g = term[0] * factor
        # Others keep their bits, whatever is beside them.
        if not -REAL_MAX <= grad[i] <= REAL_MAX:
            grad[i] = <real>g
    return found


cdef double share_of(const real *w, ptrdiff_t count, ptrdiff_t each) noexcept nogil:
    """Return 1 over the sum of the weights, each of `each` elements; 0 if all weights are 0."""
    cdef double total = 0
    cdef ptrdiff_t i
    if w is NULL:
        return 1. / (count * each)
    for i in range(count):
        total += w[i]
    return 1 / (total * each) if total > 0 else 0


cdef struct Elements:
    # Arguments of an elementwise loss.
    Kind kind
    const real *z           # (count, each)
    const real *t           # (count, each)
    const real *w           # (count,), or NULL
    real *grad              # (count, each)
    ptrdiff_t count, each
    real delta


cdef int sum_elements(const Elements *s, double *found) except -1 nogil:
    """Write the (weighted) mean of the losses."""
    cdef ptrdiff_t i, at, n, begin, since = 0
    cdef double unit = share_of(s.w, s.count, s.each), factor, terms
    cdef long long last = 0
    found[0] = 0
    for i in range(s.count):
        factor, at = unit if s.w is NULL else s.w[i] * unit, i * s.each
        if factor == 0:
            memset(s.grad + at, 0, s.each * sizeof(real))
            continue
        begin, terms = 0, 0
        while begin < s.each:
            n = min(PIECE, s.each - begin)
            since += n
            if since > PIECE:
                handle_signals(&last)
                since = n
            n += begin
            sum_terms(
                &terms, s.kind, s.z + at + begin, s.t + at + begin, s.grad + at + begin, n - begin,
                factor, s.delta,
            )
            begin = n
        terms *= factor
        if not -DBL_MAX <= terms <= DBL_MAX:
            terms = sum_widely(
                s.kind, s.z + at, s.t + at, s.grad + at, s.each, factor, s.delta
            )
        found[0] += terms
    return 0


cdef const real *weights_of(w, t, ptrdiff_t *count) except? NULL:
    """Check weights in the shape of leading axes of `t`, checked before; NULL, 1 for None."""
    cdef int axis
    cdef bint fits
    count[0] = 1
    if w is None:
        return NULL
    found = numbers(w, "w", IN)
    fits = cnp.PyArray_NDIM(<cnp.ndarray>w) <= cnp.PyArray_NDIM(<cnp.ndarray>t)
    for axis in range(cnp.PyArray_NDIM(<cnp.ndarray>w) if fits else 0):
        fits = fits and (
            cnp.PyArray_DIM(<cnp.ndarray>w, axis) == cnp.PyArray_DIM(<cnp.ndarray>t, axis)
        )
    if not fits:
        refuse(w, "w", f"the first axes of {t.shape}")
    count[0] = cnp.PyArray_SIZE(<cnp.ndarray>w)
    return found


cdef object elementwise(Kind kind, z, t, w, grad, real delta):
    cdef Elements s
    cdef list held
    cdef double found
    s.kind, s.delta = kind, delta
    s.z = numbers(z, "z", IN)
    if cnp.PyArray_SIZE(<cnp.ndarray>z) == 0:
        refuse(z, "z", "one number or more")
    s.t, s.grad = like(t, "t", z, IN), like(grad, "grad", z, OUT)
    s.w = weights_of(w, t, &s.count)
    s.each = cnp.PyArray_SIZE(<cnp.ndarray>z) // s.count
    if s.count * s.each < BRIEF // ELEMENT_WORK:
        sum_elements(&s, &found)
        return found
    held = [pin(z), pin(t), pin(w), pin(grad)]
    with nogil:
        sum_elements(&s, &found)
    held.clear()
    return found


def mse(z, t, w, grad):
    """(z - t)^2."""
    return elementwise(MSE, z, t, w, grad, 0)


def mae(z, t, w, grad):
    """|z - t|, whose derivative is 0 where both are equal."""
    return elementwise(MAE, z, t, w, grad, 0)


def huber(z, t, w, grad, *, double delta):
    """(z - t)^2 / 2 up to delta, delta (|z - t| - delta / 2) beyond."""
    return elementwise(HUBER, z, t, w, grad, delta)


def binary_cross_entropy(z, t, w, grad):
    """log(1 + exp z) - t z; the exponent is never above 0, so nothing overflows."""
    return elementwise(BINARY, z, t, w, grad, 0)


cdef struct Logits:
    # A cross-entropy, shared by its threads.
    const real *z           # (N, V)
    const cnp.npy_intp *t   # (N,)
    const real *w           # (N / each,), or NULL
    real *grad              # (N, V)
    ptrdiff_t N, V, each
    double unit             # 1 over the sum of weights
    double *terms           # (N,)
    int threads             # at most
    real *rows              # scratch: a row per thread
    Stray *strays           # one per thread


cdef double cross_entropy_row(
    const real *z, ptrdiff_t target, real *grad, ptrdiff_t V, real *row, double factor
) noexcept nogil:
    """Return the loss of a row of logits; write its gradient times `factor`.

    `row` is scratch for one row, in whole vectors.
    """
    cdef ptrdiff_t i, vectors = ceil_div(V, VL)
    cdef real largest, chosen, sum = exponentials(z, row, V, &largest)
    chosen = row[target] / sum
    for i in range(vectors):
        vstore(row + i * VL, vload(row + i * VL) * vset(1 / sum) * vset(factor))
    row[target] = (chosen - 1) * <real>factor
    memcpy(grad, row, V * sizeof(real))
    return log_of(sum) - (<double>z[target] - largest)


cdef void cross_entropy_share(int index, int count, void *what) noexcept nogil:
    cdef Logits *s = <Logits *>what
    cdef int own = index % s.threads
    cdef real *row = s.rows + own * ceil_div(s.V, VL) * VL
    cdef ptrdiff_t b
    cdef cnp.npy_intp target
    cdef double factor
    cdef float_mode mode = flush_subnormals()
    for b in range(split_point(s.N, index, count), split_point(s.N, index + 1, count)):
        factor = s.unit if s.w is NULL else s.w[b // s.each] * s.unit
        s.terms[b] = 0
        if factor == 0:
            memset(s.grad + b * s.V, 0, s.V * sizeof(real))
            continue
        target = read_once(s.t + b)
        if 0 <= target < s.V:
            s.terms[b] = factor * cross_entropy_row(
                s.z + b * s.V, target, s.grad + b * s.V, s.V, row, factor
            )
        else:
            note_stray(s.strays + own, b, target)
    restore_mode(mode)


cdef int take_logits(Logits *s, z, t, w, grad) except -1:
    """Check the arrays of a cross-entropy."""
    cdef int axes, axis
    cdef bint fits = are_integers(t)
    cdef ptrdiff_t count
    s.z = numbers(z, "z", IN)
    axes = cnp.PyArray_NDIM(<cnp.ndarray>z) - 1
    if axes < 0 or cnp.PyArray_SIZE(<cnp.ndarray>z) == 0:
        refuse(z, "z", "an array (..., V) of one number or more")
    s.V = cnp.PyArray_DIM(<cnp.ndarray>z, axes)
    s.N = cnp.PyArray_SIZE(<cnp.ndarray>z) // s.V
    fits = fits and cnp.PyArray_NDIM(<cnp.ndarray>t) == axes
    for axis in range(axes if fits else 0):
        fits = fits and (
            cnp.PyArray_DIM(<cnp.ndarray>t, axis) == cnp.PyArray_DIM(<cnp.ndarray>z, axis)
        )
    if not fits:
        refuse(t, "t", f"a C-contiguous intp array {z.shape[:axes]}")
    s.t = <const cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>t)
    s.grad = like(grad, "grad", z, OUT)
    s.w = weights_of(w, t, &count)
    s.each = s.N // count
    return 0


def cross_entropy(z, t, w, grad):
    """log(sum_v exp z_v) - z_t of each row z (..., V), with t (...) of intp."""
    cdef Logits s
    cdef ptrdiff_t b
    cdef int threads = 1
    cdef double found = 0
    cdef list held
    take_logits(&s, z, t, w, grad)
    s.unit = share_of(s.w, s.N // s.each, s.each)
    if worth(s.N * s.V * LOGIT_WORK):
        threads = most_threads()
    cdef Buffer rows = room(threads, ceil_div(s.V, VL) * VL * sizeof(real))
    cdef Buffer terms = room(s.N, sizeof(double)), strays = no_strays(threads)
    s.rows, s.terms, s.strays = rows.data, <double *>terms.data, <Stray *>strays.data
    s.threads = threads
    if s.N * s.V < BRIEF // LOGIT_WORK:
        cross_entropy_share(0, 1, &s)
    else:
        held = [pin(z), pin(t), pin(w), pin(grad)]
        with nogil:
            run_parts(threads, cross_entropy_share, &s, s.N * s.V * LOGIT_WORK)
        held.clear()
    # Summed in row order, so the result does not depend on the number of threads.
    for b in range(s.N):
        found += s.terms[b]
    refuse_strays(strays, threads, "target", f"whole numbers in 0..{s.V - 1}")
    return found
