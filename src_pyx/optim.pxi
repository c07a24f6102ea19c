# Optimizer steps, each in one pass over its arrays. Included in kernels.pyx.

cimport numpy as cnp
from libc.math cimport INFINITY, sqrt
from libc.string cimport memcpy, memset
from maths cimport at_least, at_most, choose, less, power_of, vsqrt
from panels cimport ceil_div, split_point
from vec cimport (
    SUM_LANES, SUM_VECTORS, VL, float_mode, flush_subnormals, real, restore_mode, vf, vfma, vfnma,
    vload, vload_first, vset, vstore, vsum,
)

from fastrnn._kernels.row_gradient import RowGradient

cdef enum:
    MOST_STATES = 3
    # Squares summed in SUM_LANES chains: longer ones would lose digits.
    SQUARES = 4096
    # Cost of one element of an optimizer step, in multiply-adds.
    STEP_WORK = 20
    # Zeros that serve as the gradient of rows that a RowGradient lacks.
    NOTHING = 4096

cdef real[NOTHING] nothing

cdef struct Rule:
    # Hyperparameters; each optimizer uses some of them.
    real limit
    real factor
    real lr
    real weight_decay
    real b1                 # weight of the old moving average,
    real new1               # and of the new value: 1 - b1
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
    """Return the gradient with weight decay."""
    return vfma(vset(r.weight_decay), p, g) if r.weight_decay != 0 else g


# The rules work on whole vectors: `n` is a multiple of VL.

cdef void sgd_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, b
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        if r.momentum != 0:
            b = vfma(vload(of.s[0] + i), vset(r.momentum), g)
            vstore(of.s[0] + i, b)
            g = vfma(vset(r.momentum), b, g) if r.flag else b
        vstore(of.p + i, vfnma(vset(r.lr), g, p))


cdef void adam_rule(const Rule *r, const Parameter *of) noexcept nogil:
    """If decoupled, `weight_decay` holds the factor of p, 1 - lr * weight_decay."""
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
        m = vfma(vload(of.s[0] + i), vset(r.b1), vset(r.new1) * g)
        v = vfma(vload(of.s[1] + i), vset(r.b2), vset(r.new2) * (g * g))
        vstore(of.s[0] + i, m)
        vstore(of.s[1] + i, v)
        vstore(of.p + i, vfnma(vset(r.lr), m / (vsqrt(v) + vset(r.eps)), p))


cdef void rmsprop_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, v, a, b
    cdef real *averages = of.s[1]
    cdef real *moments = of.s[2] if r.flag else of.s[1]
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        v = vfma(vload(of.s[0] + i), vset(r.b2), vset(r.new2) * (g * g))
        vstore(of.s[0] + i, v)
        if r.flag:
            a = vfma(vload(averages + i), vset(r.b2), vset(r.new2) * g)
            vstore(averages + i, a)
            # Rounding may take it below 0, and a square overflow only if v did.
            v = choose(less(v, vset(INFINITY)), at_least(vfnma(a, a, v), 0), v)
        g = g / (vsqrt(v) + vset(r.eps))
        if r.momentum != 0:
            b = vfma(vload(moments + i), vset(r.momentum), g)
            vstore(moments + i, b)
            g = b
        vstore(of.p + i, vfnma(vset(r.lr), g, p))


cdef void adagrad_rule(const Rule *r, const Parameter *of) noexcept nogil:
    cdef ptrdiff_t vector, i
    cdef vf p, g, s
    for vector in range(of.n // VL):
        i = vector * VL
        p = vload(of.p + i)
        g = pulled(r, clipped(r, of.g + i), p)
        s = vfma(g, g, vload(of.s[0] + i))
        vstore(of.s[0] + i, s)
        vstore(of.p + i, vfnma(vset(r.lr), g / (vsqrt(s) + vset(r.eps)), p))


cdef struct Update:
    # The step of one parameter, shared by its threads.
    const Rule *rule
    rule_function step
    Parameter of
    int states
    # Of a RowGradient: its rows, their count, and the elements per row; else NULL.
    const cnp.npy_intp *rows
    ptrdiff_t count
    ptrdiff_t width
    bint skips              # where the gradient is 0, nothing changes
    ptrdiff_t work          # multiply-adds
    Stray *strays           # one per thread


cdef void update_part(const Update *u, ptrdiff_t begin, ptrdiff_t n, const real *g) noexcept nogil:
    """Update n elements from `begin` on, with gradient g."""
    cdef ptrdiff_t full = n // VL * VL, rest = n - full, k
    cdef Parameter of
    cdef real[MOST_STATES + 2][MOST_LANES] last
    of.p, of.g, of.n = u.of.p + begin, g, full
    for k in range(u.states):
        of.s[k] = u.of.s[k] + begin
    u.step(u.rule, &of)
    if rest > 0:
        # The rest, padded to a whole vector.
        begin += full
        of.p, of.g, of.n = last[0], last[1], VL
        vstore(last[0], vload_first(u.of.p + begin, rest))
        vstore(last[1], vload_first(g + full, rest))
        for k in range(u.states):
            of.s[k] = last[k + 2]
            vstore(last[k + 2], vload_first(u.of.s[k] + begin, rest))
        u.step(u.rule, &of)
        memcpy(u.of.p + begin, last[0], rest * sizeof(real))
        for k in range(u.states):
            memcpy(u.of.s[k] + begin, last[k + 2], rest * sizeof(real))


cdef void update_rows(
    const Update *u, ptrdiff_t row, ptrdiff_t end, Stray *stray
) noexcept nogil:
    """Update the rows from `row` to before `end`, some of which have a gradient."""
    cdef ptrdiff_t k = first_from(u.rows, u.count, row), at, stop
    cdef cnp.npy_intp used
    while row < end:
        used = end
        if k < u.count:
            used = read_once(u.rows + k)
            if used < row:
                note_stray(stray, k, used)
                return
            used = min(used, end)
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
        begin, end = split_point(vectors, index, count), split_point(vectors, index + 1, count)
        update_rows(u, begin, end, u.strays + index)
    else:
        begin = split_point(vectors, index, count) * VL
        end = split_point(vectors, index + 1, count) * VL
        if index == count - 1:
            end = u.of.n
        update_part(u, begin, end - begin, u.of.g + begin)
    restore_mode(mode)


cdef ptrdiff_t take_rows_of(
    grad, list held, const real **values, const cnp.npy_intp **rows, ptrdiff_t *width
) except -1:
    """Check a RowGradient and return its number of rows; each row is checked where it is used."""
    cdef object of = grad.rows, given = grad.values
    cdef object shape = grad.shape
    cdef ptrdiff_t V, D, count, k
    cdef cnp.npy_intp last = -1, row
    # Converting another type may run Python code.
    if type(shape) is not tuple or len(shape) != 2 or not all([type(n) is int for n in shape]):
        raise ValueError(f"grads.shape: expected two of int, got {shape!r}")
    V, D = shape
    product_of(V, D)
    rows[0], count = indices(of, "grads.rows"), cnp.PyArray_SIZE(<cnp.ndarray>of)
    values[0], width[0] = matrix(given, "grads.values", count, D, IN), D
    held += (of, given)
    # Checked here too, before anything is written: an error leaves all parameters unchanged.
    for k in range(count):
        row = read_once(rows[0] + k)
        if not last < row < V:
            raise ValueError(
                f"grads.rows: expected ascending whole numbers in 0..{V - 1}, got {row}"
            )
        last = row
    return count


cdef int take_update(Update *u, p, grad, state, list held) except -1:
    """Check a parameter, its gradient and its `u.states` state arrays."""
    cdef int k
    u.of.p, u.of.n = numbers(p, "params", OUT), cnp.PyArray_SIZE(<cnp.ndarray>p)
    held.append(p)
    u.work, u.rows = u.of.n, NULL
    if type(grad) is RowGradient:
        u.count = take_rows_of(grad, held, &u.of.g, &u.rows, &u.width)
        if p.shape != grad.shape:
            raise ValueError(f"grads: expected shape {p.shape}, got {grad.shape}")
        u.work = u.count * u.width if u.skips else u.work
    else:
        u.of.g = like(grad, "grads", p, IN)
        held.append(grad)
    if not isinstance(state, tuple) or len(state) != u.states:
        raise ValueError(f"states: expected a tuple of {u.states} arrays")
    for k in range(u.states):
        u.of.s[k] = like(state[k], "states", p, OUT)
        held.append(state[k])
    u.work *= STEP_WORK
    return 0


cdef int update(
    rule_function step, const Rule *rule, int states, bint skips, params, grads, all_states
) except -1:
    """Update all parameters, after checking all of them: an error leaves them unchanged."""
    # Copies, which no other thread can change.
    cdef list p = list(params), g = list(grads), s = list(all_states), held = []
    cdef ptrdiff_t i, count = len(p), work = 0
    cdef int most = most_threads(), threads
    cdef Buffer memory = room(count, sizeof(Update)), strays = None
    cdef Update *updates = <Update *>memory.data
    if not len(g) == len(s) == count:
        raise ValueError(
            f"grads, states: expected {count} of each as of params, got {len(g)} and {len(s)}"
        )
    for i in range(count):
        updates[i].rule, updates[i].step, updates[i].states = rule, step, states
        # A NaN factor (from the norm) must reach all elements.
        updates[i].skips = skips and rule.factor == rule.factor
        take_update(&updates[i], p[i], g[i], s[i], held)
        if updates[i].rows is not NULL:
            strays = no_strays(most) if strays is None else strays
            updates[i].strays = <Stray *>strays.data
        work = max(work, updates[i].work)
    if work >= BRIEF:
        held += [pin(a) for a in held]
    for i in range(count):
        if updates[i].of.n == 0:
            continue
        if updates[i].work < BRIEF:
            update_share(0, 1, &updates[i])
        else:
            threads = most if worth(updates[i].work) else 1
            with nogil:
                pool.run(threads, update_share, &updates[i], False)
    if strays is not None:
        refuse_strays(strays, most, "grads.rows", "ascending whole numbers")
    return 0


def sgd(
    params, grads, states, *, double limit, double factor, double lr, double weight_decay,
    double momentum, bint nesterov,
):
    """Take a step of gradient descent; with momentum, `states` are (b,)."""
    cdef Rule r = Rule(limit, factor, lr, weight_decay, 0, 0, 0, 0, 0, momentum, nesterov)
    cdef bint skips = momentum == 0 and weight_decay == 0
    update(sgd_rule, &r, 1 if momentum != 0 else 0, skips, params, grads, states)


def adam(
    params, grads, states, *, double limit, double factor, double lr, double weight_decay,
    double b1, double b2, double eps, bint decoupled, double t,
):
    """Take step t, counted from 1, of Adam, or of AdamW if `decoupled`; `states` are (m, v)."""
    cdef double unbias = sqrt(1 - power_of(b2, t)), left = 1 - lr * weight_decay
    cdef Rule r = Rule(
        limit, factor, lr * unbias / (1 - power_of(b1, t)), left if decoupled else weight_decay,
        b1, 1 - b1, b2, 1 - b2, eps * unbias, 0, decoupled,
    )
    update(adam_rule, &r, 2, False, params, grads, states)


def rmsprop(
    params, grads, states, *, double limit, double factor, double lr, double weight_decay,
    double alpha, double eps, double momentum, bint centered,
):
    """Take a step of RMSprop; `states` are (v,), then a if `centered`, then b with momentum."""
    cdef Rule r = Rule(
        limit, factor, lr, weight_decay, 0, 0, alpha, 1 - alpha, eps, momentum, centered
    )
    cdef int count = 1 + (1 if centered else 0) + (1 if momentum != 0 else 0)
    update(rmsprop_rule, &r, count, False, params, grads, states)


def adagrad(
    params, grads, states, *, double limit, double factor, double lr, double weight_decay,
    double eps,
):
    """Take a step of Adagrad; `states` are (s,)."""
    cdef Rule r = Rule(limit, factor, lr, weight_decay, 0, 0, 0, 0, eps, 0, False)
    update(adagrad_rule, &r, 1, weight_decay == 0 and eps > 0, params, grads, states)


cdef struct Squares:
    # A sum of squares, shared by its threads.
    const real *g
    ptrdiff_t n
    real limit
    double *sums            # one per block of SQUARES elements
    const cnp.npy_intp *rows    # as in Update
    ptrdiff_t count
    ptrdiff_t width
    ptrdiff_t V             # rows of the dense gradient
    int threads             # at most
    Stray *strays           # one per thread


cdef real sum_squares(const real *g, ptrdiff_t n, real limit) noexcept nogil:
    cdef ptrdiff_t part, i
    cdef real sum = 0
    cdef vf v, total
    for part in range(SUM_VECTORS):
        i, total = part * VL, vset(0)
        while i < n:
            v = at_most(at_least(vload_first(g + i, n - i), -limit), limit)
            total = vfma(v, v, total)
            i += SUM_LANES
        sum = vsum(sum, total)
    return sum


cdef void rows_among_zeros(
    const Squares *s, ptrdiff_t begin, ptrdiff_t end, real *dense, Stray *stray
) noexcept nogil:
    """Write elements `begin` to before `end` of the gradient to `dense`."""
    cdef ptrdiff_t k = first_from(s.rows, s.count, begin // s.width), at, size
    cdef cnp.npy_intp row
    memset(dense, 0, SQUARES * sizeof(real))
    while k < s.count:
        row = read_once(s.rows + k)
        if not 0 <= row < s.V or (row + 1) * s.width <= begin:
            note_stray(stray, k, row)
            return
        if row * s.width >= end:
            return
        at = max(begin, row * s.width)
        size = min(end, (row + 1) * s.width) - at
        memcpy(
            dense + at - begin, s.g + k * s.width + at - row * s.width, size * sizeof(real)
        )
        k += 1


cdef void squares_share(int index, int count, void *what) noexcept nogil:
    cdef Squares *s = <Squares *>what
    cdef ptrdiff_t blocks = ceil_div(s.n, SQUARES), block, begin, end
    cdef real[SQUARES] dense
    cdef float_mode mode = flush_subnormals()
    for block in range(split_point(blocks, index, count), split_point(blocks, index + 1, count)):
        begin, end = block * SQUARES, min((block + 1) * SQUARES, s.n)
        if s.rows is NULL:
            s.sums[block] = sum_squares(s.g + begin, end - begin, s.limit)
            continue
        # Summed as if dense, for the same bits.
        rows_among_zeros(s, begin, end, dense, s.strays + index % s.threads)
        s.sums[block] = sum_squares(dense, end - begin, s.limit)
    restore_mode(mode)


cdef double sum_of_squares(grad, double limit) except? -1:
    """Return the sum of squares of one gradient."""
    cdef Squares s
    cdef ptrdiff_t block
    cdef int threads = 1
    cdef double total = 0
    cdef list held = []
    s.limit, s.rows, s.V = limit, NULL, 0
    if type(grad) is RowGradient:
        s.count = take_rows_of(grad, held, &s.g, &s.rows, &s.width)
        s.V = grad.shape[0]
        s.n = s.V * s.width
    else:
        s.g, s.n = numbers(grad, "grads", IN), cnp.PyArray_SIZE(<cnp.ndarray>grad)
        held.append(grad)
    if worth(s.n):
        threads = most_threads()
    # Most gradients are dense and a single block: allocate only what is needed.
    cdef Buffer sums = None, strays = None
    if s.n > SQUARES:
        sums = room(ceil_div(s.n, SQUARES), sizeof(double))
    s.sums = &total if sums is None else <double *>sums.data
    if s.rows is not NULL:
        strays = no_strays(threads)
        s.strays, s.threads = <Stray *>strays.data, threads
    if s.n < BRIEF:
        squares_share(0, 1, &s)
    else:
        held += [pin(a) for a in held]
        with nogil:
            run_parts(threads, squares_share, &s, s.n)
    if strays is not None:
        refuse_strays(strays, threads, "grads.rows", "ascending whole numbers")
    if sums is not None:
        for block in range(ceil_div(s.n, SQUARES)):
            total += s.sums[block]
    return total


def squares(grads, *, double limit):
    """Return the sum of squares of each gradient, its entries clipped to +-`limit`."""
    return [sum_of_squares(grad, limit) for grad in grads]
