# Steps of the optimizers: each number is read once and written once. Included in kernels.pyx.

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.string cimport memcpy, memset
from maths cimport at_least, at_most, vsqrt
from panels cimport parts, share
from vec cimport (
    VL, float_mode, flush_subnormals, real, restore_mode, vf, vload, vload_first, vset, vstore,
    vsum,
)

from fastrnn._kernels.row_gradient import RowGradient

cdef enum:
    MOST_STATES = 3
    MOST_LANES = 16
    # Numbers whose squares are summed in one chain per lane: a longer one would lose digits.
    SQUARES = 4096
    # Multiply-adds that take as long as one number of an optimizer's step.
    STEP_WORK = 20
    # Zeros that stand for a gradient's rows that are not there.
    NOTHING = 4096

cdef real[NOTHING] nothing

cdef struct Rule:
    # What a step goes by; each function says what it reads.
    real limit
    real factor
    real lr
    real weight_decay
    real b1                 # what is kept of a mean,
    real new1               # and what is taken of a new number
    real b2
    real new2
    real eps
    real momentum
    bint flag               # nesterov, decoupled or centered

cdef struct Parameter:
    real *p
    const real *g
    real *s[MOST_STATES]
    ptrdiff_t n

ctypedef void (*rule_function)(const Rule *r, const Parameter *of) noexcept nogil


cdef inline vf clipped(const Rule *r, const real *g) noexcept nogil:
    return at_most(at_least(vload(g), -r.limit), r.limit) * vset(r.factor)


cdef inline vf pulled(const Rule *r, vf g, vf p) noexcept nogil:
    """The gradient with the pull to 0."""
    return g + vset(r.weight_decay) * p if r.weight_decay != 0 else g


# Functions of whole vectors: `n` is a multiple of VL.

cdef void sgd_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, b
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        if r.momentum != 0:
            b = vload(of.s[0] + i) * vset(r.momentum) + g
            vstore(of.s[0] + i, b)
            g = g + vset(r.momentum) * b if r.flag else b
        vstore(of.p + i, p - vset(r.lr) * g)


cdef void adam_rule(const Rule *r, const Parameter *of) noexcept nogil:
    """With a decoupled decay, what is left of p is in weight_decay."""
    cdef ptrdiff_t vector, i
    cdef vf p, g, m, v
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = clipped(r, of.g + i)
        if r.flag:
            p = p * vset(r.weight_decay)
        else:
            g = pulled(r, g, p)
        m = vload(of.s[0] + i) * vset(r.b1) + vset(r.new1) * g
        v = vload(of.s[1] + i) * vset(r.b2) + vset(r.new2) * (g * g)
        vstore(of.s[0] + i, m)
        vstore(of.s[1] + i, v)
        vstore(of.p + i, p - vset(r.lr) * (m / (vsqrt(v) + vset(r.eps))))


cdef void rmsprop_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, v, a, b
    cdef real *averages = of.s[1]
    cdef real *moments = of.s[2] if r.flag else of.s[1]
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        v = vload(of.s[0] + i) * vset(r.b2) + vset(r.new2) * (g * g)
        vstore(of.s[0] + i, v)
        if r.flag:
            a = vload(averages + i) * vset(r.b2) + vset(r.new2) * g
            vstore(averages + i, a)
            v = v - a * a
        g = g / (vsqrt(v) + vset(r.eps))
        if r.momentum != 0:
            b = vload(moments + i) * vset(r.momentum) + g
            vstore(moments + i, b)
            g = b
        vstore(of.p + i, p - vset(r.lr) * g)


cdef void adagrad_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, s
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        s = vload(of.s[0] + i) + g * g
        vstore(of.s[0] + i, s)
        vstore(of.p + i, p - vset(r.lr) * (g / (vsqrt(s) + vset(r.eps))))


cdef struct Update:
    # What the threads of one parameter's step share.
    Rule rule
    rule_function step
    Parameter of
    int states
    # Where the gradient is 0 but in some rows, these, and how many numbers a row has.
    const cnp.npy_intp *rows
    ptrdiff_t count
    ptrdiff_t width
    bint skips              # where it is 0, nothing changes


cdef void update_part(const Update *u, ptrdiff_t begin, ptrdiff_t n, const real *g) noexcept nogil:
    """n numbers from `begin` on, whose gradient is g."""
    cdef ptrdiff_t full = n // VL * VL, rest = n - full, k
    cdef Parameter of
    cdef real[MOST_STATES + 2][MOST_LANES] last
    of.p, of.g, of.n = u.of.p + begin, g, full
    for k in range(u.states):
        of.s[k] = u.of.s[k] + begin
    u.step(&u.rule, &of)
    if rest > 0:
        # The last numbers, in a vector of their own.
        begin += full
        of.p, of.g, of.n = last[0], last[1], VL
        vstore(last[0], vload_first(u.of.p + begin, rest))
        vstore(last[1], vload_first(g + full, rest))
        for k in range(u.states):
            of.s[k] = last[k + 2]
            vstore(last[k + 2], vload_first(u.of.s[k] + begin, rest))
        u.step(&u.rule, &of)
        memcpy(u.of.p + begin, last[0], rest * sizeof(real))
        for k in range(u.states):
            memcpy(u.of.s[k] + begin, last[k + 2], rest * sizeof(real))


cdef void update_rows(const Update *u, ptrdiff_t row, ptrdiff_t end) noexcept nogil:
    """Rows from `row` to before `end`, some of which have a gradient."""
    cdef ptrdiff_t k = first_from(u.rows, u.count, row), used, at, stop
    while row < end:
        used = u.rows[k] if k < u.count and u.rows[k] < end else end
        at, stop = row * u.width, used * u.width
        while at < stop and not u.skips:
            update_part(u, at, min(NOTHING, stop - at), nothing)
            at += NOTHING
        if used < end:
            update_part(u, stop, u.width, u.of.g + k * u.width)
            k += 1
        row = used + 1


cdef void update_share(int index, int count, void *what) noexcept nogil:
    cdef Update *u = <Update *>what
    cdef ptrdiff_t vectors = u.of.n // VL, begin, end
    cdef float_mode mode = flush_subnormals()
    if u.rows is not NULL:
        vectors = u.of.n // u.width
        update_rows(u, share(vectors, index, count), share(vectors, index + 1, count))
    else:
        begin, end = share(vectors, index, count) * VL, share(vectors, index + 1, count) * VL
        if index == count - 1:
            end = u.of.n
        update_part(u, begin, end - begin, u.of.g + begin)
    restore_mode(mode)


cdef int update(
    rule_function step, const Rule *rule, bint skips, list params, list grads, list states
) except -1:
    cdef Update u
    cdef ptrdiff_t i, work
    cdef int k
    cdef tuple state
    u.rule, u.step = rule[0], step
    # A NaN that comes from the norm is to get everywhere.
    u.skips = skips and rule.factor == rule.factor
    for i in range(len(params)):
        grad, state = grads[i], states[i]
        u.of.p, u.of.n = data(params[i]), cnp.PyArray_SIZE(params[i])
        work, u.rows = u.of.n, NULL
        if type(grad) is RowGradient:
            u.rows = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>grad.rows)
            grad = grad.values
            u.count, u.width = grad.shape
            work = u.count * u.width if u.skips else work
        else:
            assert cnp.PyArray_SIZE(grad) == u.of.n
        u.of.g = data(grad)
        u.states = len(state)
        assert u.states <= MOST_STATES
        for k in range(u.states):
            assert cnp.PyArray_SIZE(state[k]) == u.of.n
            u.of.s[k] = data(state[k])
        if not worth(work * STEP_WORK):
            update_share(0, 1, &u)
        else:
            with nogil:
                pool.run(pool.most, update_share, &u, False)
    return 0


def sgd(
    list params, list grads, list states, double limit, double factor, double lr,
    double weight_decay, double momentum, bint nesterov,
):
    """A step of gradient descent: see ``_reference.optim``."""
    cdef Rule r = Rule(limit, factor, lr, weight_decay, 0, 0, 0, 0, 0, momentum, nesterov)
    update(sgd_rule, &r, momentum == 0 and weight_decay == 0, params, grads, states)


def adam(
    list params, list grads, list states, double limit, double factor, double lr,
    double weight_decay, double b1, double b2, double eps, bint decoupled, double t,
):
    """A step of Adam or AdamW: see ``_reference.optim``."""
    cdef double unbias = (1 - b2**t) ** 0.5, left = 1 - lr * weight_decay
    cdef Rule r = Rule(
        limit, factor, lr * unbias / (1 - b1**t), left if decoupled else weight_decay, b1, 1 - b1,
        b2, 1 - b2, eps * unbias, 0, decoupled,
    )
    update(adam_rule, &r, False, params, grads, states)


def rmsprop(
    list params, list grads, list states, double limit, double factor, double lr,
    double weight_decay, double alpha, double eps, double momentum, bint centered,
):
    """A step of RMSprop: see ``_reference.optim``."""
    cdef Rule r = Rule(
        limit, factor, lr, weight_decay, 0, 0, alpha, 1 - alpha, eps, momentum, centered
    )
    update(rmsprop_rule, &r, False, params, grads, states)


def adagrad(
    list params, list grads, list states, double limit, double factor, double lr,
    double weight_decay, double eps,
):
    """A step of Adagrad: see ``_reference.optim``."""
    cdef Rule r = Rule(limit, factor, lr, weight_decay, 0, 0, 0, 0, eps, 0, False)
    update(adagrad_rule, &r, weight_decay == 0 and eps > 0, params, grads, states)


cdef struct Squares:
    # What the threads of one sum share.
    const real *g
    ptrdiff_t n
    real limit
    double *sums            # of so many numbers each
    const cnp.npy_intp *rows    # as in Update
    ptrdiff_t count
    ptrdiff_t width


cdef real sum_squares(const real *g, ptrdiff_t n, real limit) noexcept nogil:
    cdef ptrdiff_t i = 0
    cdef vf v, total = vset(0)
    while i < n:
        v = at_most(at_least(vload_first(g + i, n - i), -limit), limit)
        total = total + v * v
        i += VL
    return vsum(total)


cdef void squares_share(int index, int count, void *what) noexcept nogil:
    cdef Squares *s = <Squares *>what
    cdef ptrdiff_t blocks = parts(s.n, SQUARES), block, k, begin, end, at, size
    cdef real[SQUARES] dense
    cdef float_mode mode = flush_subnormals()
    for block in range(share(blocks, index, count), share(blocks, index + 1, count)):
        begin, end = block * SQUARES, min((block + 1) * SQUARES, s.n)
        if s.rows is NULL:
            s.sums[block] = sum_squares(s.g + begin, end - begin, s.limit)
            continue
        # The rows as they stand among zeros, for the same bits as of a dense gradient.
        memset(dense, 0, SQUARES * sizeof(real))
        k = first_from(s.rows, s.count, begin // s.width)
        while k < s.count and s.rows[k] * s.width < end:
            at = max(begin, s.rows[k] * s.width)
            size = min(end, (s.rows[k] + 1) * s.width) - at
            memcpy(
                dense + at - begin, s.g + k * s.width + at - s.rows[k] * s.width,
                size * sizeof(real),
            )
            k += 1
        s.sums[block] = sum_squares(dense, end - begin, s.limit)
    restore_mode(mode)


def squares(list grads, double limit):
    """The sum of squares of each gradient: see ``_reference.optim``."""
    cdef Squares s
    cdef ptrdiff_t i
    cdef double total
    cdef list found = []
    s.limit = limit
    for grad in grads:
        s.rows = NULL
        if type(grad) is RowGradient:
            s.rows = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>grad.rows)
            s.n, grad = grad.shape[0] * grad.shape[1], grad.values
            s.count, s.width = grad.shape
        else:
            s.n = cnp.PyArray_SIZE(grad)
        s.g, total = data(grad), 0
        s.sums = <double *>PyMem_RawMalloc(parts(s.n, SQUARES) * sizeof(double))
        if s.sums is NULL:
            raise MemoryError(f"can't allocate memory for {s.n} numbers")
        if not worth(s.n):
            squares_share(0, 1, &s)
        else:
            with nogil:
                pool.run(pool.most, squares_share, &s, False)
        for i in range(parts(s.n, SQUARES)):
            total += s.sums[i]
        PyMem_RawFree(s.sums)
        found.append(total)
    return found
