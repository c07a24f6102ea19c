"""The compiled twin of ``fastrnn._reference``: the same names, the same arguments.

Arguments are checked by the floor above: arrays are aligned and of this module's dtype, their last
axis is contiguous, and their shapes fit. T steps, B rows, I inputs, H hidden units in blocks of VL,
P outputs: H, or fewer with a projection.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport NAN
from libc.stdint cimport uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from fastrnn._cells import PEEPHOLES, PROJECTION, WEIGHTS

from gru cimport (
    gru_backward, gru_forward, gru_reset_before_backward, gru_reset_before_forward,
)
from lstm cimport lstm_backward, lstm_forward
from panels cimport Panels, accumulate, group_blocks, multiply, parts
from rnn cimport rnn_relu_backward, rnn_relu_forward, rnn_tanh_backward, rnn_tanh_forward
from step cimport Step, StepBack
from vec cimport VL, product, real, vf, vfirst, vload, vload_first, vset, vstore

cnp.import_array()

cdef extern from "vec.h" nogil:
    const bint FASTRNN_DEBUG
    const int NPY_REAL

ALL_WEIGHTS = WEIGHTS + PROJECTION + PEEPHOLES

cdef enum:
    MAX_GATES = 4
    # Bytes of gate values computed ahead of the recurrence: they are to stay in the L2 cache.
    CHUNK_BYTES = 131072
    # Rows of a chunk of BPTT: enough to pay for loading and storing the weight gradients.
    CHUNK_ROWS = 256
    # Multiply-adds from which on a single step lets other Python threads run meanwhile.
    STEP_HOLDS_GIL = 200000


# -- cells ---------------------------------------------------------------------------------------

cdef struct Gates:
    # Gates that one product computes: `count` slots from `first` on, and torch's index of each.
    ptrdiff_t first
    ptrdiff_t count
    ptrdiff_t index[MAX_GATES]

cdef struct Layout:
    ptrdiff_t slots
    Gates x                 # product with the input
    Gates h                 # product with the hidden state
    Gates n                 # product with (r h), or none
    bint has_c
    void (*forward)(const Step *) noexcept nogil
    void (*backward)(const StepBack *) noexcept nogil


cdef dict LAYOUTS = {
    "rnn_tanh": 0, "rnn_relu": 1, "lstm": 2, "gru": 3, "gru_reset_before": 4,
}
cdef Layout[5] layouts
layouts[0] = Layout(
    1, Gates(0, 1, [0, 0, 0, 0]), Gates(0, 1, [0, 0, 0, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, rnn_tanh_forward, rnn_tanh_backward,
)
layouts[1] = layouts[0]
layouts[1].forward, layouts[1].backward = rnn_relu_forward, rnn_relu_backward
layouts[2] = Layout(
    4, Gates(0, 4, [0, 1, 2, 3]), Gates(0, 4, [0, 1, 2, 3]), Gates(0, 0, [0, 0, 0, 0]),
    True, lstm_forward, lstm_backward,
)
layouts[3] = Layout(
    4, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 3, [0, 1, 2, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, gru_forward, gru_backward,
)
layouts[4] = Layout(
    3, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 2, [0, 1, 0, 0]), Gates(0, 1, [2, 0, 0, 0]),
    False, gru_reset_before_forward, gru_reset_before_backward,
)


# The "gates" of a projection: its outputs.
cdef Gates OUTPUT = Gates(0, 1, [0, 0, 0, 0])


# -- memory --------------------------------------------------------------------------------------

cdef class Buffer:
    """Numbers on a 64-byte boundary. A debug build fills them with NaN and guards both ends."""

    cdef char *memory
    cdef real *data
    cdef Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        cdef Py_ssize_t i, guard = 64 if FASTRNN_DEBUG else 0
        self.memory = <char *>PyMem_RawMalloc(count * sizeof(real) + 64 + 2 * guard)
        if self.memory is NULL:
            raise MemoryError(f"can't allocate {count * sizeof(real)} bytes")
        self.data = <real *>((<uintptr_t>self.memory + guard + 63) & ~<uintptr_t>63)
        self.count = count
        if FASTRNN_DEBUG:
            for i in range(count):
                self.data[i] = NAN
            memset(<char *>self.data - guard, 0x5A, guard)
            memset(<char *>(self.data + count), 0x5A, guard)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if FASTRNN_DEBUG and self.memory is not NULL:
            for i in range(64):
                if (
                    (<char *>self.data)[i - 64] != 0x5A
                    or (<char *>(self.data + self.count))[i] != 0x5A
                ):
                    fprintf(stderr, "fastrnn: a kernel wrote outside of its workspace\n")
                    abort()
        PyMem_RawFree(self.memory)


cdef Buffer zeros(Py_ssize_t count):
    cdef Buffer buffer = Buffer(count)
    memset(buffer.data, 0, count * sizeof(real))
    return buffer


cdef inline real *data(object array) noexcept:
    return NULL if array is None else <real *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline ptrdiff_t stride(object array, int axis) noexcept:
    """Stride of an axis, in numbers."""
    return cnp.PyArray_STRIDE(<cnp.ndarray>array, axis) // <ptrdiff_t>sizeof(real)


# -- packing -------------------------------------------------------------------------------------

cdef inline ptrdiff_t panel_offset(
    const Panels *w, ptrdiff_t block, ptrdiff_t gate, ptrdiff_t *row
) noexcept nogil:
    """Where gate `gate` of block `block` starts in the packed weights; `row` is the stride of k."""
    cdef ptrdiff_t n, run, group
    if w.gates > 1:
        row[0] = w.gates * VL
        return block * w.K * row[0] + gate * VL
    n = group_blocks(w, &run)
    if block < run * (n + 1):
        group = block // (n + 1)
        row[0] = (n + 1) * VL
        return group * w.K * row[0] + (block - group * (n + 1)) * VL
    block -= run * (n + 1)
    group = block // n
    row[0] = n * VL
    return run * (n + 1) * w.K * VL + group * w.K * row[0] + (block - group * n) * VL


cdef void pack(Panels *w, const Gates *gates, const real *weight, ptrdiff_t H) noexcept nogil:
    """Weights (G*H, K), for products with rows of K numbers."""
    cdef ptrdiff_t block, gate, lane, k, row, at
    cdef const real *source
    for block in range(w.blocks):
        for gate in range(w.gates):
            at = panel_offset(w, block, gate, &row)
            for lane in range(min(VL, H - block * VL)):
                source = weight + (gates.index[gate] * H + block * VL + lane) * w.K
                for k in range(w.K):
                    w.w[at + k * row + lane] = source[k]


cdef void unpack(const Panels *w, const Gates *gates, real *weight, ptrdiff_t H) noexcept nogil:
    """The inverse of `pack`."""
    cdef ptrdiff_t block, gate, lane, k, row, at
    cdef real *target
    for block in range(w.blocks):
        for gate in range(w.gates):
            at = panel_offset(w, block, gate, &row)
            for lane in range(min(VL, H - block * VL)):
                target = weight + (gates.index[gate] * H + block * VL + lane) * w.K
                for k in range(w.K):
                    target[k] = w.w[at + k * row + lane]


cdef void pack_back(
    Panels *w, const Gates *gates, const real *weight, ptrdiff_t H, ptrdiff_t units
) noexcept nogil:
    """Weights (G*H, units), for products with blocked gate gradients."""
    cdef ptrdiff_t block, lane, k, gate, unit, row, at, to
    cdef const real *source
    for unit in range(H):
        for gate in range(gates.count):
            source = weight + (gates.index[gate] * H + unit) * units
            k = (unit // VL * gates.count + gate) * VL + unit % VL
            for block in range(w.blocks):
                at = panel_offset(w, block, 0, &row) + k * row
                to = block * VL
                for lane in range(min(VL, units - to)):
                    w.w[at + lane] = source[to + lane]


cdef void add_vector(
    real *packed, ptrdiff_t slots, ptrdiff_t slot, const real *vector, ptrdiff_t H
) noexcept nogil:
    """Add a vector (H,) to one slot of (blocks, slots * VL)."""
    cdef ptrdiff_t unit
    for unit in range(H):
        packed[(unit // VL * slots + slot) * VL + unit % VL] += vector[unit]


cdef void take_vector(
    const real *packed, ptrdiff_t slots, ptrdiff_t slot, real *vector, ptrdiff_t H
) noexcept nogil:
    """The inverse of `add_vector`."""
    cdef ptrdiff_t unit
    for unit in range(H):
        vector[unit] = packed[(unit // VL * slots + slot) * VL + unit % VL]


cdef class Packed:
    """An immutable copy of a layer's weights, in panels.

    Parameters
    ----------
    cell : Cell
    weights : sequence of array or None
        In the order of `cell.weights` and in torch's layouts. All but the first two may be None,
        or missing at the end.
    """

    cdef readonly object cell
    cdef tuple copies
    cdef dict named             # the same by their names
    cdef list buffers
    cdef Layout layout
    cdef ptrdiff_t I, H, P, blocks
    cdef Panels x, h, n, r
    cdef Panels x_back, h_back, n_back, r_back
    cdef bint has_back, projects
    cdef real *bias             # (blocks, slots * VL)
    cdef real *peephole         # (blocks, 3 * VL), or NULL

    def __init__(self, cell, weights):
        self.cell = cell
        self.copies = tuple([None if w is None else w.copy() for w in weights])
        self.named = named = dict.fromkeys(ALL_WEIGHTS)
        named.update(zip(cell.weights, self.copies, strict=False))
        self.layout = layouts[<int>LAYOUTS[cell.name]]
        self.buffers = []
        self.I = named["weight_ih"].shape[1]
        self.H = len(named["weight_ih"]) // len(cell.gates)
        self.P = named["weight_hh"].shape[1]
        self.blocks = parts(self.H, VL)
        self.x = self._pack(&self.layout.x, named["weight_ih"])
        self.h = self._pack(&self.layout.h, named["weight_hh"])
        self.n = self._pack(&self.layout.n, named["weight_hh"])
        self.projects = named["weight_hr"] is not None
        if self.projects:
            self.r = self._panels(self.H, parts(self.P, VL), 1, 0)
            pack(&self.r, &OUTPUT, data(named["weight_hr"]), self.P)
        self.bias = self._zeros(self.layout.slots)
        self._add_bias(&self.layout.x, data(named["bias_ih"]))
        self._add_bias(&self.layout.h, data(named["bias_hh"]))
        self._add_bias(&self.layout.n, data(named["bias_hh"]))
        if named["weight_ci"] is not None:
            self.peephole = self._zeros(3)
            for slot, name in enumerate(PEEPHOLES):
                add_vector(self.peephole, 3, slot, data(named[name]), self.H)

    cdef real *_zeros(self, ptrdiff_t slots) except NULL:
        """Zeros (blocks, slots * VL)."""
        cdef Buffer buffer = zeros(self.blocks * slots * VL)
        self.buffers.append(buffer)
        return buffer.data

    cdef Panels _panels(self, ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first):
        cdef Panels w = Panels(NULL, K, blocks, gates, first)
        cdef Buffer buffer = zeros(K * blocks * gates * VL)
        self.buffers.append(buffer)
        w.w = buffer.data
        return w

    cdef Panels _pack(self, Gates *gates, weight):
        cdef Panels w = self._panels(weight.shape[1], self.blocks, gates.count, gates.first)
        pack(&w, gates, data(weight), self.H)
        return w

    cdef Panels _pack_back(self, Gates *gates, weight, ptrdiff_t H):
        """For products with gradients of H units in blocks."""
        cdef ptrdiff_t units = weight.shape[1]
        cdef Panels w = self._panels(parts(H, VL) * gates.count * VL, parts(units, VL), 1, 0)
        pack_back(&w, gates, data(weight), H, units)
        return w

    cdef void _add_bias(self, Gates *gates, const real *bias) noexcept:
        cdef ptrdiff_t gate
        if bias is NULL:
            return
        for gate in range(gates.count):
            add_vector(
                self.bias, self.layout.slots, gates.first + gate,
                bias + gates.index[gate] * self.H, self.H,
            )

    cdef int need_back(self) except -1:
        """Pack what BPTT reads, at first need."""
        if not self.has_back:
            self.x_back = self._pack_back(&self.layout.x, self.named["weight_ih"], self.H)
            self.h_back = self._pack_back(&self.layout.h, self.named["weight_hh"], self.H)
            self.n_back = self._pack_back(&self.layout.n, self.named["weight_hh"], self.H)
            if self.projects:
                self.r_back = self._pack_back(&OUTPUT, self.named["weight_hr"], self.P)
            self.has_back = True
        return 0

    def matches(self, weights):
        """Whether these are still the same bits as `weights`."""
        for mine, theirs in zip(self.copies, weights, strict=True):
            if mine is not None and memcmp(data(mine), data(theirs), mine.nbytes) != 0:
                return False
        return True


# -- rows ----------------------------------------------------------------------------------------

cdef class Rows:
    """Which rows of a batch run at which step.

    Rows are taken in `order`, those that run longest first, so that the rows of a step are always
    the first ones; step t has the places offset(t) to offset(t + 1) in all that is kept of it.

    Parameters
    ----------
    T, B : int
    spans : (2, B) array of int64 or None
        Row b runs from step spans[0, b] to before spans[1, b]. All start at 0, or all end at T.
    """

    cdef ptrdiff_t T, B, N          # N: rows of all steps together
    cdef ptrdiff_t *offsets         # (T + 1,), or NULL where every row runs at every step
    cdef ptrdiff_t *order           # (B,), or NULL for as they come
    cdef object memory

    def __init__(self, ptrdiff_t T, ptrdiff_t B, spans):
        self.T, self.B, self.N = T, B, T * B
        if spans is not None:
            begin, end = spans
            order = np.argsort(begin - end, kind="stable").astype(np.intp)
            starts = np.bincount(begin, minlength=T + 1)[: T + 1]
            ends = np.bincount(end, minlength=T + 1)[: T + 1]
            running = np.cumsum(starts - ends)[:T]
            offsets = np.concatenate([[0], np.cumsum(running)]).astype(np.intp)
            self.memory = order, offsets
            self.order = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>order)
            self.offsets = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets)
            self.N = self.offsets[T]

    cdef inline ptrdiff_t offset(self, ptrdiff_t t) noexcept nogil:
        return t * self.B if self.offsets is NULL else self.offsets[t]

    cdef inline ptrdiff_t count(self, ptrdiff_t t) noexcept nogil:
        return self.offset(t + 1) - self.offset(t)

    cdef inline ptrdiff_t row(self, ptrdiff_t b) noexcept nogil:
        """The caller's index of our row b."""
        return b if self.order is NULL else self.order[b]


cdef void gather(
    Rows rows, ptrdiff_t t, real *to, const real *of, ptrdiff_t of_b, ptrdiff_t n
) noexcept nogil:
    """The rows of step t, in our order, from the caller's: (count, n)."""
    cdef ptrdiff_t b
    for b in range(rows.count(t)):
        memcpy(to + b * n, of + rows.row(b) * of_b, n * sizeof(real))


cdef void scatter(
    Rows rows, ptrdiff_t t, real *to, ptrdiff_t to_b, const real *of, ptrdiff_t n
) noexcept nogil:
    """The rows of step t to the caller's places, and zeros to rows that do not run."""
    cdef ptrdiff_t b, count = rows.count(t)
    for b in range(rows.B):
        if b < count:
            memcpy(to + rows.row(b) * to_b, of + b * n, n * sizeof(real))
        else:
            memset(to + rows.row(b) * to_b, 0, n * sizeof(real))


cdef void block_rows(
    Rows rows, real *blocked, const real *of, ptrdiff_t n
) noexcept nogil:
    """The caller's rows (B, n) to blocks (blocks, B, VL) in our order; NULL stands for zeros."""
    cdef ptrdiff_t block, b
    memset(blocked, 0, parts(n, VL) * rows.B * VL * sizeof(real))
    if of is NULL:
        return
    for block in range(parts(n, VL)):
        for b in range(rows.B):
            memcpy(
                blocked + (block * rows.B + b) * VL, of + rows.row(b) * n + block * VL,
                min(VL, n - block * VL) * sizeof(real),
            )


cdef void unblock_row(
    real *to, const real *blocked, ptrdiff_t panel, ptrdiff_t n
) noexcept nogil:
    """One row of blocks to n numbers side by side."""
    cdef ptrdiff_t block
    for block in range(parts(n, VL)):
        memcpy(to + block * VL, blocked + block * panel, min(VL, n - block * VL) * sizeof(real))


cdef void reset_rows(
    Rows rows, ptrdiff_t t, const char *reset, ptrdiff_t reset_b, real *blocked, ptrdiff_t panel,
    ptrdiff_t blocks, ptrdiff_t row, ptrdiff_t n,
) noexcept nogil:
    """Zero the rows of step t whose `reset` is set: n numbers in each of `blocks`."""
    cdef ptrdiff_t b, block
    for b in range(rows.count(t)):
        if reset[rows.row(b) * reset_b]:
            for block in range(blocks):
                memset(blocked + block * panel + b * row, 0, n * sizeof(real))


# -- forward -------------------------------------------------------------------------------------

cdef class Tape:
    """What a training forward keeps for `backward`: copies of x, the old states, the gates.

    Rows of all steps stand behind each other, N in all.
    """

    cdef Packed packed
    cdef Rows rows
    cdef object reset       # (T, B) or None
    cdef Buffer x           # (N, I)
    cdef Buffer h           # (N, P)
    cdef Buffer c           # (blocks, N, VL)
    cdef Buffer z           # (blocks, N, slots * VL)

    def __init__(self, Packed packed, Rows rows, reset):
        self.packed, self.rows = packed, rows
        self.reset = None if reset is None else reset.copy()
        self.x = Buffer(rows.N * packed.I)
        self.h = Buffer(rows.N * packed.P)
        if packed.layout.has_c:
            self.c = Buffer(packed.blocks * rows.N * VL)
        self.z = Buffer(packed.blocks * rows.N * packed.layout.slots * VL)


cdef void project(
    Packed packed, ptrdiff_t T, ptrdiff_t B, const real *x, ptrdiff_t x_t, ptrdiff_t x_b,
    real *z, ptrdiff_t z_panel,
) noexcept nogil:
    """z = bias + x w, for all rows of T steps: (blocks, T * B, slots * VL)."""
    cdef ptrdiff_t t, b, block, slot, size = packed.layout.slots * VL
    cdef product p
    p.a_k, p.a_segment, p.K, p.segments = 1, 0, packed.I, 1
    p.init, p.init_row, p.c_row = packed.bias, 0, size
    if B == 1 or T == 1 or x_t == B * x_b:
        p.a, p.a_row, p.c = x, x_t if B == 1 else x_b, z
        multiply(&packed.x, T * B, p, size, z_panel)
    elif B < T:
        p.a_row, p.c_row = x_t, B * size
        for b in range(B):
            p.a, p.c = x + b * x_b, z + b * size
            multiply(&packed.x, T, p, size, z_panel)
    else:
        p.a_row = x_b
        for t in range(T):
            p.a, p.c = x + t * x_t, z + t * B * size
            multiply(&packed.x, B, p, size, z_panel)
    for slot in range(packed.layout.x.first + packed.layout.x.count, packed.layout.slots):
        for block in range(packed.blocks):
            for t in range(T * B):
                vstore(
                    z + block * z_panel + t * size + slot * VL,
                    vload(packed.bias + block * size + slot * VL),
                )


cdef Step new_step(Packed packed, ptrdiff_t B) noexcept:
    cdef Step s
    memset(&s, 0, sizeof(Step))
    s.B, s.H, s.blocks, s.slots = B, packed.H, packed.blocks, packed.layout.slots
    s.w_hh = &packed.h
    s.w_hn = &packed.n
    s.peephole = packed.peephole
    return s


cdef void project_output(
    Packed packed, ptrdiff_t B, const real *out, real *blocked, real *h, ptrdiff_t h_row
) noexcept nogil:
    """h = W_hr out (Sak et al. 2014): (B, H) to (B, P), by way of blocks (P blocks, B, VL)."""
    cdef ptrdiff_t b, panel = B * VL
    cdef product p
    memset(blocked, 0, packed.r.blocks * panel * sizeof(real))
    p.a, p.a_row, p.a_k, p.a_segment = out, packed.H, 1, 0
    p.K, p.segments = packed.H, 1
    p.init, p.init_row = blocked, VL
    p.c, p.c_row = blocked, VL
    multiply(&packed.r, B, p, panel, panel)
    for b in range(B):
        unblock_row(h + b * h_row, blocked + b * VL, panel, packed.P)


def forward(Packed packed, x, state, y, state_n, bint keep=False, spans=None, reset=None):
    """Run a layer over a sequence: see ``_reference.scan.forward``."""
    cdef ptrdiff_t T = x.shape[0], B = x.shape[1], I = packed.I, H = packed.H, P = packed.P
    cdef ptrdiff_t blocks = packed.blocks, size = packed.layout.slots * VL
    cdef bint has_c = packed.layout.has_c
    cdef ptrdiff_t chunk = CHUNK_BYTES // (B * size * blocks * <ptrdiff_t>sizeof(real))
    chunk = max(1, min(chunk, T))
    cdef const real *x_data = data(x)
    cdef real *y_data = data(y)
    cdef ptrdiff_t x_t = stride(x, 0), x_b = stride(x, 1), y_t = stride(y, 0), y_b = stride(y, 1)
    cdef const real *h_0 = data(state[0])
    cdef const real *c_0 = data(state[1]) if has_c else NULL
    cdef real *h_n = data(state_n[0])
    cdef real *c_n = data(state_n[1]) if has_c else NULL
    cdef const char *reset_data = NULL
    cdef ptrdiff_t reset_t = 0, reset_b = 0
    if reset is not None:
        reset_data = <const char *>cnp.PyArray_DATA(<cnp.ndarray>reset)
        reset_t, reset_b = reset.strides
    assert x.shape[2] == I and y.shape == (T, B, P)

    cdef Rows rows = Rows(T, B, spans)
    cdef Tape tape = Tape(packed, rows, reset) if keep else None
    # Where x is not read as it stands: rows that run, side by side.
    cdef bint packs_x = keep or spans is not None
    cdef Buffer xs = (tape.x if keep else Buffer(chunk * B * I)) if packs_x else None
    cdef Buffer z = tape.z if keep else Buffer(blocks * chunk * B * size)
    cdef Buffer h = Buffer(B * P)
    cdef Buffer out = Buffer(B * H) if packed.projects else h
    cdef Buffer projected = Buffer(parts(P, VL) * B * VL) if packed.projects else None
    cdef Buffer c = Buffer(blocks * B * VL) if has_c else None
    cdef Buffer rh = Buffer(B * H) if packed.layout.n.count else None
    cdef real *z_data
    cdef real *xs_data
    cdef ptrdiff_t i, t, t0, n, at, count, b, block
    cdef Step s = new_step(packed, B)
    s.z_panel = (rows.N if keep else chunk * B) * size
    s.h, s.h_row = h.data, P
    s.out, s.out_row = out.data, H
    s.c_row, s.c_panel = VL, B * VL
    if packed.layout.n.count:
        s.rh = rh.data
    if has_c:
        s.c = c.data
    with nogil:
        for b in range(B):
            memcpy(h.data + b * P, h_0 + rows.row(b) * P, P * sizeof(real))
        if has_c:
            block_rows(rows, c.data, c_0, H)
        for i in range(parts(T, chunk)):
            t0 = i * chunk
            n = min(chunk, T - t0)
            at = rows.offset(t0)
            z_data = z.data + (at * size if keep else 0)
            if packs_x:
                xs_data = xs.data + (at * I if keep else 0)
                for t in range(t0, t0 + n):
                    gather(rows, t, xs_data + (rows.offset(t) - at) * I, x_data + t * x_t, x_b, I)
                count = rows.offset(t0 + n) - at
                if count:
                    project(packed, 1, count, xs_data, 0, I, z_data, s.z_panel)
            else:
                project(packed, n, B, x_data + t0 * x_t, x_t, x_b, z_data, s.z_panel)
            for t in range(t0, t0 + n):
                count = rows.count(t)
                if reset_data is not NULL:
                    reset_rows(
                        rows, t, reset_data + t * reset_t, reset_b, h.data, 0, 1, P, P
                    )
                    if has_c:
                        reset_rows(
                            rows, t, reset_data + t * reset_t, reset_b, c.data, s.c_panel,
                            blocks, VL, VL,
                        )
                if keep:
                    memcpy(tape.h.data + rows.offset(t) * P, h.data, count * P * sizeof(real))
                    if has_c:
                        for block in range(blocks):
                            memcpy(
                                tape.c.data + (block * rows.N + rows.offset(t)) * VL,
                                c.data + block * s.c_panel, count * VL * sizeof(real),
                            )
                s.B = count
                s.z = z_data + (rows.offset(t) - at) * size
                if count:
                    packed.layout.forward(&s)
                    if packed.projects:
                        project_output(packed, count, out.data, projected.data, h.data, P)
                scatter(rows, t, y_data + t * y_t, y_b, h.data, P)
        for b in range(B):
            memcpy(h_n + rows.row(b) * P, h.data + b * P, P * sizeof(real))
            if has_c:
                unblock_row(c_n + rows.row(b) * H, c.data + b * VL, s.c_panel, H)
    return tape


# -- backward ------------------------------------------------------------------------------------

cdef class Gradients:
    """Sums of weight gradients in panels, and of biases."""

    cdef Panels x, h, n, r
    cdef list buffers
    cdef real *bias         # (blocks, slots * VL)
    cdef real *peephole     # (blocks, 3 * VL)

    def __init__(self, Packed packed):
        self.buffers = []
        self.x = self._like(packed.x)
        self.h = self._like(packed.h)
        self.n = self._like(packed.n)
        self.r = self._like(packed.r)
        cdef Buffer bias = zeros(packed.blocks * packed.layout.slots * VL)
        cdef Buffer peephole = zeros(packed.blocks * 3 * VL)
        self.buffers += [bias, peephole]
        self.bias, self.peephole = bias.data, peephole.data

    cdef Panels _like(self, Panels w):
        cdef Buffer buffer = zeros(w.K * w.blocks * w.gates * VL)
        self.buffers.append(buffer)
        w.w = buffer.data
        return w


cdef void sum_biases(
    real *bias, ptrdiff_t blocks, ptrdiff_t vectors, ptrdiff_t rows, const real *dz,
    ptrdiff_t dz_panel,
) noexcept nogil:
    """bias += the sum of dz over its rows."""
    cdef ptrdiff_t block, v, row
    cdef vf total
    for block in range(blocks):
        for v in range(vectors):
            total = vset(0)
            for row in range(rows):
                total = total + vload(dz + block * dz_panel + (row * vectors + v) * VL)
            vstore(
                bias + (block * vectors + v) * VL,
                vload(bias + (block * vectors + v) * VL) + total,
            )


cdef void unpack_bias(
    const real *packed, const Gates *gates, ptrdiff_t slots, real *bias, ptrdiff_t H
) noexcept nogil:
    cdef ptrdiff_t gate
    for gate in range(gates.count):
        take_vector(packed, slots, gates.first + gate, bias + gates.index[gate] * H, H)


cdef void reset_states(
    real *rh, const real *h_prev, const real *gates, ptrdiff_t z_panel, ptrdiff_t slots,
    ptrdiff_t rows, ptrdiff_t H,
) noexcept nogil:
    """rh = r h_prev, (rows, H): what the candidate's product was with; r is in slot 1."""
    cdef ptrdiff_t row, unit
    for row in range(rows):
        for unit in range(H):
            rh[row * H + unit] = h_prev[row * H + unit] * gates[
                unit // VL * z_panel + (row * slots + 1) * VL + unit % VL
            ]


cdef void project_back(
    Packed packed, StepBack *s, real *dr, ptrdiff_t dr_panel, real *d_out, const real *zero
) noexcept nogil:
    """dr = dh + dy, kept for the projection's own gradient; d_out = dr W_hr."""
    cdef ptrdiff_t u, b
    cdef vf d
    cdef product p
    for u in range(packed.r.blocks):
        for b in range(s.B):
            d = vload(s.dh + u * s.d_panel + b * VL)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, packed.P - u * VL)
            vstore(dr + u * dr_panel + b * VL, vfirst(d, packed.P - u * VL))
    p.a, p.a_row, p.a_k, p.a_segment = dr, VL, 1, dr_panel
    p.K, p.segments = VL, packed.r.blocks
    p.init, p.init_row = zero, 0
    p.c, p.c_row = d_out, VL
    multiply(&packed.r_back, s.B, p, 0, s.d_panel)
    s.dy = NULL


def backward(Tape tape, dy, dstate_n, dx, dstate, grads):
    """Backpropagation through time: see ``_reference.scan.backward``."""
    cdef Packed packed = tape.packed
    cdef Layout layout = packed.layout
    cdef Rows rows = tape.rows
    cdef ptrdiff_t T = rows.T, B = rows.B, I = packed.I, H = packed.H, P = packed.P
    cdef ptrdiff_t blocks = packed.blocks, P_blocks = parts(P, VL)
    cdef ptrdiff_t size = layout.slots * VL
    cdef bint has_c = layout.has_c
    cdef ptrdiff_t chunk = max(1, min(CHUNK_ROWS // B, T))
    cdef const real *dy_data = data(dy)
    cdef ptrdiff_t dy_t = 0 if dy is None else stride(dy, 0)
    cdef ptrdiff_t dy_b = 0 if dy is None else stride(dy, 1)
    cdef real *dx_data = data(dx)
    cdef ptrdiff_t dx_t = stride(dx, 0), dx_b = stride(dx, 1)
    cdef const real *dh_n = data(dstate_n[0])
    cdef const real *dc_n = data(dstate_n[1]) if has_c else NULL
    cdef real *dh_0 = data(dstate[0])
    cdef real *dc_0 = data(dstate[1]) if has_c else NULL
    cdef dict named = dict.fromkeys(ALL_WEIGHTS)
    named.update(zip(packed.cell.weights, grads, strict=False))
    cdef real *dw_ih = data(named["weight_ih"])
    cdef real *dw_hh = data(named["weight_hh"])
    cdef real *db_ih = data(named["bias_ih"])
    cdef real *db_hh = data(named["bias_hh"])
    cdef real *dw_hr = data(named["weight_hr"])
    cdef const char *reset_data = NULL
    cdef ptrdiff_t reset_t = 0, reset_b = 0
    if tape.reset is not None:
        reset_data = <const char *>cnp.PyArray_DATA(<cnp.ndarray>tape.reset)
        reset_t, reset_b = tape.reset.strides
    assert dx.shape == (T, B, I) and (dy is None or dy.shape == (T, B, P))

    packed.need_back()
    cdef Gradients sums = Gradients(packed)
    cdef Buffer dz = Buffer(blocks * chunk * B * size)
    cdef Buffer dxs = Buffer(parts(I, VL) * chunk * B * VL)
    cdef Buffer dys = Buffer(B * P)
    cdef Buffer dh = Buffer(P_blocks * B * VL)
    # With a projection: gradients of its outputs and of its inputs, and its inputs anew.
    cdef Buffer dr = Buffer(P_blocks * chunk * B * VL) if packed.projects else None
    cdef Buffer d_out = Buffer(blocks * B * VL) if packed.projects else dh
    cdef Buffer out = Buffer(chunk * B * H) if packed.projects else None
    cdef Buffer dc = Buffer(blocks * B * VL) if has_c else None
    cdef Buffer drh = Buffer(blocks * B * VL) if layout.n.count else None
    cdef Buffer rh = Buffer(chunk * B * H) if layout.n.count else None
    cdef Buffer zero = zeros(VL)
    cdef ptrdiff_t dz_panel = chunk * B * size, dx_panel = chunk * B * VL
    cdef ptrdiff_t i, t, t0, n, b, at, count
    cdef product p
    cdef StepBack s
    memset(&s, 0, sizeof(StepBack))
    s.H, s.blocks, s.slots = H, blocks, layout.slots
    s.z_panel, s.dz_panel, s.c_panel, s.d_panel = rows.N * size, dz_panel, rows.N * VL, B * VL
    s.dh, s.dh_blocks, s.d_out = dh.data, P_blocks, d_out.data
    s.w_hh, s.w_hn = &packed.h_back, &packed.n_back
    s.peephole, s.dpeephole = packed.peephole, sums.peephole
    if has_c:
        s.dc = dc.data
    if layout.n.count:
        s.drh = drh.data
    with nogil:
        block_rows(rows, dh.data, dh_n, P)
        if has_c:
            block_rows(rows, dc.data, dc_n, H)
        for i in range(parts(T, chunk) - 1, -1, -1):
            t0 = i * chunk
            n = min(chunk, T - t0)
            at = rows.offset(t0)
            for t in range(t0 + n - 1, t0 - 1, -1):
                s.B = rows.count(t)
                if s.B == 0:
                    continue
                s.h_prev = tape.h.data + rows.offset(t) * P
                s.z = tape.z.data + rows.offset(t) * size
                if has_c:
                    s.c_prev = tape.c.data + rows.offset(t) * VL
                if dy_data is not NULL:
                    s.dy, s.dy_row = dy_data + t * dy_t, dy_b
                    if rows.order is not NULL:
                        gather(rows, t, dys.data, s.dy, dy_b, P)
                        s.dy, s.dy_row = dys.data, P
                s.dz = dz.data + (rows.offset(t) - at) * size
                if packed.projects:
                    project_back(
                        packed, &s, dr.data + (rows.offset(t) - at) * VL, chunk * B * VL,
                        d_out.data, zero.data,
                    )
                    s.out = out.data + (rows.offset(t) - at) * H
                layout.backward(&s)
                if reset_data is not NULL:
                    reset_rows(
                        rows, t, reset_data + t * reset_t, reset_b, dh.data, s.d_panel,
                        P_blocks, VL, VL,
                    )
                    if has_c:
                        reset_rows(
                            rows, t, reset_data + t * reset_t, reset_b, dc.data, s.d_panel,
                            blocks, VL, VL,
                        )
            count = rows.offset(t0 + n) - at
            if count:
                p.a, p.a_row, p.a_k = dz.data + layout.x.first * VL, size, 1
                p.a_segment, p.segments, p.K = dz_panel, blocks, layout.x.count * VL
                p.init, p.init_row = zero.data, 0
                p.c, p.c_row = dxs.data, VL
                multiply(&packed.x_back, count, p, 0, dx_panel)
                accumulate(
                    &sums.x, count, tape.x.data + at * I, I, dz.data, size, dz_panel, zero.data
                )
                accumulate(
                    &sums.h, count, tape.h.data + at * P, P, dz.data, size, dz_panel, zero.data
                )
                if packed.projects:
                    accumulate(
                        &sums.r, count, out.data, H, dr.data, VL, chunk * B * VL, zero.data
                    )
                if layout.n.count:
                    reset_states(
                        rh.data, tape.h.data + at * H, tape.z.data + at * size, s.z_panel,
                        layout.slots, count, H,
                    )
                    accumulate(&sums.n, count, rh.data, H, dz.data, size, dz_panel, zero.data)
                sum_biases(sums.bias, blocks, layout.slots, count, dz.data, dz_panel)
            for t in range(t0, t0 + n):
                for b in range(B):
                    if b < rows.count(t):
                        unblock_row(
                            dx_data + t * dx_t + rows.row(b) * dx_b,
                            dxs.data + (rows.offset(t) - at + b) * VL, dx_panel, I,
                        )
                    else:
                        memset(dx_data + t * dx_t + rows.row(b) * dx_b, 0, I * sizeof(real))
        unpack(&sums.x, &layout.x, dw_ih, H)
        unpack(&sums.h, &layout.h, dw_hh, H)
        unpack(&sums.n, &layout.n, dw_hh, H)
        if packed.projects:
            unpack(&sums.r, &OUTPUT, dw_hr, P)
        if db_ih is not NULL:
            unpack_bias(sums.bias, &layout.x, layout.slots, db_ih, H)
        if db_hh is not NULL:
            unpack_bias(sums.bias, &layout.h, layout.slots, db_hh, H)
            unpack_bias(sums.bias, &layout.n, layout.slots, db_hh, H)
        for b in range(B):
            unblock_row(dh_0 + rows.row(b) * P, dh.data + b * VL, s.d_panel, P)
            if has_c:
                unblock_row(dc_0 + rows.row(b) * H, dc.data + b * VL, s.d_panel, H)
    if packed.peephole is not NULL:
        for slot, name in enumerate(PEEPHOLES):
            take_vector(sums.peephole, 3, slot, data(named[name]), H)


# -- streaming -----------------------------------------------------------------------------------

cdef inline real *plain(object array, ptrdiff_t B, ptrdiff_t n, int flags) noexcept:
    """The numbers of an array that is (B, n), or (n,) for B = 1, as it is; else NULL."""
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


cdef class Stepper:
    """Steps a layer over states that it owns: see ``_reference.scan.Stepper``."""

    cdef object weights, kernels, convert
    cdef object copy            # the settled Copy of the weights that is in use, or None
    cdef readonly tuple state
    cdef Packed packed
    cdef Buffer z, rh, out, projected
    cdef Step s
    cdef ptrdiff_t B, I, H, P
    cdef bint busy

    def __init__(self, weights, kernels, ptrdiff_t batch_size, convert):
        cdef Packed packed = weights.packed(kernels)
        cdef ptrdiff_t B = batch_size, H = packed.H, P = packed.P, padded = packed.blocks * VL
        cdef ptrdiff_t size = packed.layout.slots * VL
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self.packed, self.B, self.I, self.H, self.P = packed, B, packed.I, H, P
        self.z = Buffer(packed.blocks * B * size)
        self.rh = Buffer(B * H)
        self.out = Buffer(B * H)
        self.projected = Buffer(parts(P, VL) * B * VL)
        memory = np.zeros((2, B, padded), np.dtype(f"f{sizeof(real)}"))
        self.state = (memory[0, :, :P], memory[1, :, :H])[: 1 + packed.layout.has_c]
        self._refresh()

    cdef int _refresh(self) except -1:
        """Take the weights as they are now."""
        cdef Packed packed = self.weights.packed(self.kernels)
        cdef ptrdiff_t padded = packed.blocks * VL
        copy = self.weights.copy
        self.copy = copy if copy.settled and copy.packed is packed else None
        self.packed = packed
        self.s = new_step(packed, self.B)
        self.s.z, self.s.z_panel = self.z.data, self.B * packed.layout.slots * VL
        self.s.rh = self.rh.data
        self.s.h = self.s.out = data(self.state[0])
        self.s.h_row = self.s.out_row = padded
        if packed.projects:
            self.s.out, self.s.out_row = self.out.data, self.H
        if packed.layout.has_c:
            self.s.c = data(self.state[1])
            self.s.c_row, self.s.c_panel = padded, VL
        return 0

    cdef void _step(self, const real *x, real *y) noexcept nogil:
        cdef ptrdiff_t b
        project(self.packed, 1, self.B, x, 0, self.I, self.s.z, self.s.z_panel)
        self.packed.layout.forward(&self.s)
        if self.packed.projects:
            project_output(
                self.packed, self.B, self.out.data, self.projected.data, <real *>self.s.h,
                self.s.h_row,
            )
        for b in range(self.B):
            memcpy(y + b * self.P, self.s.h + b * self.s.h_row, self.P * sizeof(real))

    def step(self, x, out=None):
        """Advance by one step, `x` (B, I) or (I,); returns the output, in `out` if given."""
        cdef real *x_data = plain(x, self.B, self.I, cnp.NPY_ARRAY_CARRAY_RO)
        cdef real *y_data = NULL
        cdef cnp.npy_intp[2] shape
        cdef int ndim
        y = out
        if x_data is not NULL:
            ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
            if out is None:
                shape[0], shape[ndim - 1] = self.B, self.P
                out = cnp.PyArray_EMPTY(ndim, shape, NPY_REAL, 0)
                y_data = data(out)
            else:
                y_data = plain(out, self.B, self.P, cnp.NPY_ARRAY_CARRAY)
                if y_data is not NULL and cnp.PyArray_NDIM(<cnp.ndarray>out) != ndim:
                    y_data = NULL
        if y_data is NULL:
            x, y, out = self.convert(x, out)
            x_data, y_data = data(x), data(y)
        if self.busy:
            raise RuntimeError("stream: two threads step it at once; give each a stream of its own")
        if self.weights.copy is not self.copy:
            self._refresh()
        if self.B * self.H * (self.I + self.H) < STEP_HOLDS_GIL:
            self._step(x_data, y_data)
        else:
            self.busy = True
            with nogil:
                self._step(x_data, y_data)
            self.busy = False
        return out
