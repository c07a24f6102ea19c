# Streams: a time step through a chain of layers, in one call. Included in kernels.pyx.

cimport cython
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, exp
from libc.string cimport memcpy
from split cimport HOLDS_GIL, own_process, pass_on, peek
from vec cimport real

import numpy as np

from fastrnn._kernels.exclusive import BUSY, FORKED

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) noexcept
    bint PyLong_CheckExact(object value) noexcept

cdef object INTP = np.intp


cdef inline real *plain(object array, ptrdiff_t B, ptrdiff_t n, int flags) noexcept:
    """Return the data of an array (B, n), or (n,) if B = 1, that needs no conversion; else NULL."""
    if not cnp.PyArray_CheckExact(array):
        return NULL
    cdef cnp.ndarray found = <cnp.ndarray>array
    cdef int ndim = cnp.PyArray_NDIM(found)
    if (
        cnp.PyArray_TYPE(found) != NPY_REAL
        or not cnp.PyArray_CHKFLAGS(found, flags)
        or not cnp.PyArray_ISNOTSWAPPED(found)
    ):
        return NULL
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(found)
    if ndim == 2 and shape[0] == B and shape[1] == n or ndim == 1 and B == 1 and shape[0] == n:
        return <real *>cnp.PyArray_DATA(found)
    return NULL


cdef inline bint overlap(const real *a, ptrdiff_t m, const real *b, ptrdiff_t n) noexcept nogil:
    """Return whether m numbers from `a` on and n from `b` on share memory."""
    return a < b + n and b < a + m


cdef void *in_room(list memory, Py_ssize_t count, Py_ssize_t each) except NULL:
    """Return memory for `count` items of `each` bytes, which lives as long as `memory`."""
    cdef Buffer buffer = room(count, each)
    memory.append(buffer)
    return buffer.data


cdef class Stage:
    """A layer in a :class:`Chain`: advances B rows by one time step."""

    cdef ptrdiff_t B, I, P      # rows, inputs, outputs
    cdef ptrdiff_t V            # if not 0, the inputs are tokens (B,) below V
    cdef ptrdiff_t work         # multiply-adds of a step
    cdef bint has_state

    cdef bint is_ready(self) except -1:
        """Return whether it has the current weights, without running any Python code."""
        raise NotImplementedError

    cdef int refresh(self) except -1:
        """Fetch the current weights."""
        raise NotImplementedError

    cdef void run(self, const void *x, real *y) noexcept nogil:
        """Advance from x (B, I), or tokens (B,), to y (B, P)."""


cdef inline bint before(const real *z, ptrdiff_t a, ptrdiff_t b) noexcept nogil:
    """Return whether token a is likelier than b; of equals, the first; NaN comes last."""
    if z[a] != z[b] and (z[a] == z[a] or z[b] == z[b]):
        return z[a] > z[b] or z[b] != z[b]
    return a < b


cdef void sift(const real *z, ptrdiff_t *heap, ptrdiff_t i, ptrdiff_t n) noexcept nogil:
    """Move token `heap[i]` down to its place in a heap of n, the likeliest first."""
    cdef ptrdiff_t child, moved = heap[i]
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and before(z, heap[child + 1], heap[child]):
            child += 1
        if not before(z, heap[child], moved):
            break
        heap[i] = heap[child]
        i = child
    heap[i] = moved


cdef ptrdiff_t draw(
    const real *z, ptrdiff_t V, double temperature, ptrdiff_t k, double u, ptrdiff_t *heap,
    double *weights,
) noexcept nogil:
    """Return the token at u, 0 to 1, of softmax(z / temperature), of the k likeliest in order."""
    cdef ptrdiff_t i, token, likeliest = 0
    cdef double total = 0, sum = 0
    for i in range(V):
        heap[i] = i
        if before(z, i, likeliest):
            likeliest = i
    if temperature == 0:
        return likeliest
    for i in range(V):
        weights[i] = exp((<double>z[i] - z[likeliest]) / temperature)
        total += weights[i]
    for i in range(V // 2 - 1, -1, -1):
        sift(z, heap, i, V)
    # The likeliest of what is left comes first: it is put behind the rest.
    for i in range(V - 1, V - 1 - k, -1):
        token = heap[0]
        heap[0], heap[i] = heap[i], token
        sum += weights[token]
        if k == V and sum > u * total:
            return token
        sift(z, heap, 0, i)
    total, sum = sum, 0
    for i in range(V - 1, V - 1 - k, -1):
        sum += weights[heap[i]]
        if sum > u * total:
            return heap[i]
    # Only if a number is NaN, or all round off.
    return likeliest


cdef struct Link:
    void *stage
    real *y                 # (B, P), for the next stage


@cython.final
cdef class Chain:
    """Layers that advance together, each of which reads what the one before it wrote."""

    cdef object convert
    cdef tuple stages
    cdef list memory
    cdef Link *links
    cdef cnp.npy_intp *tokens   # (B,): a checked copy
    cdef ptrdiff_t count, B, I, V, P, work
    cdef bint has_state
    cdef int owner              # the process of the thread that uses it, 0 for none

    def __cinit__(self, stages, convert):
        cdef Stage stage, last = None
        self.stages, self.memory, self.convert = tuple(stages), [], convert
        self.count = len(self.stages)
        self.links = <Link *>in_room(self.memory, self.count, sizeof(Link))
        for i, each in enumerate(self.stages):
            if not isinstance(each, Stage):
                raise TypeError(
                    f"stages: expected those of the same kernels, got {type(each).__name__}"
                )
            stage = each
            if last is not None and (stage.V or stage.I != last.P or stage.B != last.B):
                reads = (last.B, last.P)
                raise ValueError(f"stages[{i}]: expected one that reads (B, P) = {reads}")
            self.links[i].stage = <void *>stage
            self.links[i].y = scratch(self.memory, product_of(stage.B, stage.P))
            self.work += stage.work
            self.has_state |= stage.has_state
            last = stage
        if last is None:
            raise ValueError("stages: expected at least one")
        stage = self.stages[0]
        self.B, self.I, self.V, self.P = stage.B, stage.I, stage.V, last.P
        self.tokens = <cnp.npy_intp *>in_room(self.memory, self.B, sizeof(cnp.npy_intp))

    def __enter__(self):
        cdef int mine = own_process(), other = 0
        if not pass_on(&self.owner, other, mine):
            other = peek(self.owner)
            if other == 0 or other == mine:
                raise RuntimeError(BUSY)
            if self.has_state or not pass_on(&self.owner, other, mine):
                raise RuntimeError(FORKED)

    def __exit__(self, *_):
        # Of the process in which it was entered: the body may have been forked.
        pass_on(&self.owner, peek(self.owner), 0)

    def begin_anew(self):
        """Make it usable, if another thread used it when this process was forked."""
        cdef int other = peek(self.owner)
        return other != 0 and other != own_process() and pass_on(&self.owner, other, 0)

    def step(self, x_t, out=None):
        """Advance by one step, from `x_t`; return the output, in `out` if given."""
        cdef const void *x
        cdef real *to
        cdef int ndim = 0
        if self.work < HOLDS_GIL and not self.owner and self._are_ready():
            x = self._plain_input(x_t, &ndim)
            y = self._plain_output(x, ndim, out, &to)
            if to is not NULL:
                # The interpreter does not run meanwhile, and so no other thread.
                self._run(x, to)
                return y
        with self:
            return self._general_step(x_t, out)

    cdef bint _are_ready(self) except -1:
        cdef ptrdiff_t i
        for i in range(self.count):
            if not (<Stage>self.links[i].stage).is_ready():
                return False
        return True

    cdef void _run(self, const void *x, real *y) noexcept nogil:
        cdef ptrdiff_t i, last = self.count - 1
        cdef real *to = y
        if last == 0 and not self.V and overlap(<real *>x, self.B * self.I, y, self.B * self.P):
            to = self.links[0].y
        for i in range(last):
            (<Stage>self.links[i].stage).run(x, self.links[i].y)
            x = self.links[i].y
        (<Stage>self.links[last].stage).run(x, to)
        if to is not y:
            memcpy(y, to, self.B * self.P * sizeof(real))

    cdef inline const void *_plain_input(self, x_t, int *ndim) noexcept:
        """Return the data of an input, and the dimensions of its output; NULL: needs converting."""
        cdef const void *x
        if self.V:
            return self.tokens if self._takes(x_t, ndim) else NULL
        x = plain(x_t, self.B, self.I, cnp.NPY_ARRAY_CARRAY_RO)
        if x is not NULL:
            ndim[0] = cnp.PyArray_NDIM(<cnp.ndarray>x_t)
        return x

    cdef bint _takes(self, x_t, int *ndim) noexcept:
        """Copy tokens, if they need no conversion and are below V."""
        cdef cnp.npy_intp token = -1
        cdef long long number
        cdef int overflow = 0
        ndim[0] = 1
        if self.B == 1 and PyLong_CheckExact(x_t):
            number = PyLong_AsLongLongAndOverflow(x_t, &overflow)
            token = number if 0 <= number < self.V else -1
        elif self.B == 1 and type(x_t) is INTP:
            cnp.PyArray_ScalarAsCtype(x_t, &token)
        elif (
            cnp.PyArray_CheckExact(x_t) and are_integers(x_t)
            and cnp.PyArray_SIZE(<cnp.ndarray>x_t) == self.B
            and cnp.PyArray_NDIM(<cnp.ndarray>x_t) <= 1
        ):
            ndim[0] = 1 + cnp.PyArray_NDIM(<cnp.ndarray>x_t)
            return self._copy(<const cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>x_t)) < 0
        return 0 <= token and self._copy(&token) < 0

    cdef ptrdiff_t _copy(self, const cnp.npy_intp *tokens) noexcept:
        """Copy tokens; return the place of one that is out of range, or -1."""
        cdef ptrdiff_t i
        for i in range(self.B):
            self.tokens[i] = read_once(tokens + i)
            if not 0 <= self.tokens[i] < self.V:
                return i
        return -1

    cdef inline object _plain_output(self, const void *x, int ndim, out, real **to):
        """Return `out` or a new output, and its data: NULL if `x` or `out` need converting."""
        cdef cnp.npy_intp[2] shape
        to[0] = NULL
        if x is NULL:
            return None
        if out is None:
            shape[0], shape[ndim - 1] = self.B, self.P
            out = cnp.PyArray_EMPTY(ndim, shape, NPY_REAL, 0)
            to[0] = data(out)
        elif cnp.PyArray_CheckExact(out) and cnp.PyArray_NDIM(<cnp.ndarray>out) == ndim:
            to[0] = plain(out, self.B, self.P, cnp.NPY_ARRAY_CARRAY)
        return out

    cdef object _general_step(self, x_t, out):
        """Step with arguments to convert, changed weights, or without the GIL."""
        cdef const void *x
        cdef real *to
        cdef int ndim = 0
        cdef ptrdiff_t i
        source, pins = x_t, None
        x = self._plain_input(x_t, &ndim)
        target = result = self._plain_output(x, ndim, out, &to)
        if to is NULL:
            source, target, result, converted = self.convert(x_t, out)
            if self.V:
                i = self._copy(integers(source, "x_t", self.B))
                if i >= 0:
                    raise ValueError(
                        f"x_t: expected whole numbers in 0..{self.V - 1}, got {self.tokens[i]}"
                    )
        if self.work >= HOLDS_GIL:
            pins = pin(source), pin(target)
        self._refresh()
        # No Python code runs after these checks, so nothing checked can change before its use.
        x = self.tokens if self.V else flat(source, "x_t", self.B * self.I, IN)
        self._release_and_run(x, flat(target, "out", self.B * self.P, OUT))
        return result

    cdef int _refresh(self) except -1:
        """Fetch the current weights where they changed."""
        cdef ptrdiff_t i
        # A table last, as other stages run Python code, which might reshape it.
        for i in range(self.count - 1, -1, -1):
            if not (<Stage>self.links[i].stage).is_ready():
                (<Stage>self.links[i].stage).refresh()
        return 0

    cdef void _release_and_run(self, const void *x, real *y) noexcept:
        """Run without the GIL, if that takes long."""
        if self.work < HOLDS_GIL:
            self._run(x, y)
        else:
            with nogil:
                self._run(x, y)

    def sample(self, logits, draws, *, double temperature, ptrdiff_t top_k, ptrdiff_t never=-1):
        """Draw a token for each of `draws`, which the next step reads; return all."""
        cdef ptrdiff_t i, n, V = self.V
        cdef list memory = []
        cdef real *z = self.links[self.count - 1].y
        cdef ptrdiff_t *heap
        cdef double *weights
        cdef cnp.npy_intp *written
        if self.B != 1 or V == 0 or V != self.P:
            raise ValueError("stream: expected one row of tokens, and a logit for each token")
        if not (0 <= temperature < INFINITY and 1 <= top_k <= V and -1 <= never < V):
            raise ValueError(
                f"temperature, top_k, never: expected a finite number, 1..{V} and -1..{V - 1}, "
                f"got {temperature}, {top_k} and {never}"
            )
        # Copies, which no one can change in a signal's handler.
        draws = np.array(draws, np.float64)
        n = cnp.PyArray_SIZE(<cnp.ndarray>draws)
        tokens = np.zeros(n, np.intp)
        written = <cnp.npy_intp *>cnp.PyArray_DATA(<cnp.ndarray>tokens)
        heap = <ptrdiff_t *>in_room(memory, V, sizeof(ptrdiff_t))
        weights = <double *>in_room(memory, V, sizeof(double))
        with self:
            memcpy(z, vector(logits, "logits", V, OUT), V * sizeof(real))
            for i in range(n):
                if never >= 0:
                    z[never] = -INFINITY
                self.tokens[0] = written[i] = draw(
                    z, V, temperature, top_k,
                    (<double *>cnp.PyArray_DATA(<cnp.ndarray>draws))[i], heap, weights,
                )
                PyErr_CheckSignals()
                self._refresh()
                self._release_and_run(self.tokens, z)
            memcpy(vector(logits, "logits", V, OUT), z, V * sizeof(real))
        return tokens
