"""The compiled twin of ``fastrnn._reference``: the same names, the same arguments.

Arguments are checked by the floor above: arrays are aligned and of this module's dtype, their last
axis is contiguous, and their shapes fit. T steps, B rows, I inputs, H hidden units in blocks of VL.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport NAN
from libc.stdint cimport uintptr_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from gru cimport (
    gru_backward, gru_forward, gru_reset_before_backward, gru_reset_before_forward,
)
from lstm cimport lstm_backward, lstm_forward
from panels cimport Panels, accumulate, group_blocks, multiply, parts
from rnn cimport rnn_relu_backward, rnn_relu_forward, rnn_tanh_backward, rnn_tanh_forward
from step cimport Step, StepBack
from vec cimport VL, product, real, vf, vload, vset, vstore

cnp.import_array()

cdef extern from "vec.h" nogil:
    const bint FASTRNN_DEBUG
    const int NPY_REAL

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
    bint keeps_gates        # BPTT needs the gates, not only the states
    void (*forward)(const Step *) noexcept nogil
    void (*backward)(const StepBack *) noexcept nogil


cdef dict LAYOUTS = {
    "rnn_tanh": 0, "rnn_relu": 1, "lstm": 2, "gru": 3, "gru_reset_before": 4,
}
cdef Layout[5] layouts
layouts[0] = Layout(
    1, Gates(0, 1, [0, 0, 0, 0]), Gates(0, 1, [0, 0, 0, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, False, rnn_tanh_forward, rnn_tanh_backward,
)
layouts[1] = layouts[0]
layouts[1].forward, layouts[1].backward = rnn_relu_forward, rnn_relu_backward
layouts[2] = Layout(
    4, Gates(0, 4, [0, 1, 2, 3]), Gates(0, 4, [0, 1, 2, 3]), Gates(0, 0, [0, 0, 0, 0]),
    True, True, lstm_forward, lstm_backward,
)
layouts[3] = Layout(
    4, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 3, [0, 1, 2, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, True, gru_forward, gru_backward,
)
layouts[4] = Layout(
    3, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 2, [0, 1, 0, 0]), Gates(0, 1, [2, 0, 0, 0]),
    False, True, gru_reset_before_forward, gru_reset_before_backward,
)


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


cdef class Packed:
    """An immutable copy of a layer's weights, in panels.

    Parameters
    ----------
    cell : Cell
    weights : sequence of array or None
        In the order of ``_cells.WEIGHTS``: (G*H, I), (G*H, H), (G*H,) or None, (G*H,) or None.
    """

    cdef readonly object cell
    cdef tuple copies
    cdef list buffers
    cdef Layout layout
    cdef ptrdiff_t I, H, blocks
    cdef Panels x, h, n
    cdef Panels x_back, h_back, n_back
    cdef bint has_back
    cdef real *bias             # (blocks, slots * VL)

    def __init__(self, cell, weights):
        self.cell = cell
        self.copies = tuple([None if w is None else w.copy() for w in weights])
        self.layout = layouts[<int>LAYOUTS[cell.name]]
        self.buffers = []
        self.H = self.copies[1].shape[1]
        self.I = self.copies[0].shape[1]
        self.blocks = parts(self.H, VL)
        self.x = self._pack(&self.layout.x, 0, self.I)
        self.h = self._pack(&self.layout.h, 1, self.H)
        self.n = self._pack(&self.layout.n, 1, self.H)
        cdef Buffer bias = zeros(self.blocks * self.layout.slots * VL)
        self.buffers.append(bias)
        self.bias = bias.data
        self._add_bias(&self.layout.x, data(self.copies[2]))
        self._add_bias(&self.layout.h, data(self.copies[3]))
        self._add_bias(&self.layout.n, data(self.copies[3]))

    cdef Panels _panels(self, ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first):
        cdef Panels w = Panels(NULL, K, blocks, gates, first)
        cdef Buffer buffer = zeros(K * blocks * gates * VL)
        self.buffers.append(buffer)
        w.w = buffer.data
        return w

    cdef Panels _pack(self, Gates *gates, int weight, ptrdiff_t K):
        cdef Panels w = self._panels(K, self.blocks, gates.count, gates.first)
        pack(&w, gates, data(self.copies[weight]), self.H)
        return w

    cdef Panels _pack_back(self, Gates *gates, int weight, ptrdiff_t units):
        cdef Panels w = self._panels(self.blocks * gates.count * VL, parts(units, VL), 1, 0)
        pack_back(&w, gates, data(self.copies[weight]), self.H, units)
        return w

    cdef void _add_bias(self, Gates *gates, const real *bias) noexcept:
        cdef ptrdiff_t gate, unit, slots = self.layout.slots
        if bias is NULL:
            return
        for gate in range(gates.count):
            for unit in range(self.H):
                self.bias[
                    (unit // VL * slots + gates.first + gate) * VL + unit % VL
                ] += bias[gates.index[gate] * self.H + unit]

    cdef int need_back(self) except -1:
        """Pack what BPTT reads, at first need."""
        if not self.has_back:
            self.x_back = self._pack_back(&self.layout.x, 0, self.I)
            self.h_back = self._pack_back(&self.layout.h, 1, self.H)
            self.n_back = self._pack_back(&self.layout.n, 1, self.H)
            self.has_back = True
        return 0

    def matches(self, weights):
        """Whether these are still the same bits as `weights`."""
        for mine, theirs in zip(self.copies, weights, strict=True):
            if mine is not None and memcmp(data(mine), data(theirs), mine.nbytes) != 0:
                return False
        return True


# -- forward -------------------------------------------------------------------------------------

cdef class Tape:
    """What a training forward keeps for `backward`: copies of x and h, every c and every gate."""

    cdef Packed packed
    cdef ptrdiff_t T, B
    cdef Buffer x           # (T, B, I)
    cdef Buffer h           # (T + 1, B, H)
    cdef Buffer c           # (blocks, (T + 1) * B, VL)
    cdef Buffer z           # (blocks, T * B, slots * VL)

    def __init__(self, Packed packed, ptrdiff_t T, ptrdiff_t B):
        self.packed, self.T, self.B = packed, T, B
        self.x = Buffer(T * B * packed.I)
        self.h = Buffer((T + 1) * B * packed.H)
        if packed.layout.has_c:
            self.c = Buffer(packed.blocks * (T + 1) * B * VL)
        if packed.layout.keeps_gates:
            self.z = Buffer(packed.blocks * T * B * packed.layout.slots * VL)


cdef void copy_rows(
    real *to, ptrdiff_t to_t, ptrdiff_t to_b, const real *of, ptrdiff_t of_t, ptrdiff_t of_b,
    ptrdiff_t T, ptrdiff_t B, ptrdiff_t n,
) noexcept nogil:
    """Copy (T, B, n) numbers between any two layouts whose last axis is contiguous."""
    cdef ptrdiff_t t, b
    for t in range(T):
        for b in range(B):
            memcpy(to + t * to_t + b * to_b, of + t * of_t + b * of_b, n * sizeof(real))


cdef void block_rows(
    real *blocked, ptrdiff_t panel, const real *rows, ptrdiff_t B, ptrdiff_t n
) noexcept nogil:
    """Rows (B, n) to blocks (blocks, B, VL); NULL stands for zeros."""
    cdef ptrdiff_t block, b, count
    for block in range(parts(n, VL)):
        count = min(VL, n - block * VL)
        for b in range(B):
            memset(blocked + block * panel + b * VL, 0, VL * sizeof(real))
            if rows is not NULL:
                memcpy(
                    blocked + block * panel + b * VL, rows + b * n + block * VL,
                    count * sizeof(real),
                )


cdef void unblock_rows(
    real *rows, ptrdiff_t row, const real *blocked, ptrdiff_t panel, ptrdiff_t B, ptrdiff_t n
) noexcept nogil:
    """Blocks (blocks, B, VL) to rows (B, n)."""
    cdef ptrdiff_t block, b
    for block in range(parts(n, VL)):
        for b in range(B):
            memcpy(
                rows + b * row + block * VL, blocked + block * panel + b * VL,
                min(VL, n - block * VL) * sizeof(real),
            )


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
    s.c_row = VL
    return s


def forward(Packed packed, x, state, y, state_n, bint keep=False):
    """Run a layer over a sequence: see ``_reference.scan.forward``."""
    cdef ptrdiff_t T = x.shape[0], B = x.shape[1], H = packed.H
    cdef ptrdiff_t size = packed.layout.slots * VL
    cdef bint has_c = packed.layout.has_c, keeps_z = keep and packed.layout.keeps_gates
    cdef ptrdiff_t chunk = CHUNK_BYTES // (B * size * packed.blocks * <ptrdiff_t>sizeof(real))
    chunk = max(1, min(chunk, T))
    cdef const real *x_data = data(x)
    cdef real *y_data = data(y)
    cdef ptrdiff_t x_t = stride(x, 0), x_b = stride(x, 1), y_t = stride(y, 0), y_b = stride(y, 1)
    cdef const real *h0 = data(state[0])
    cdef const real *c0 = data(state[1]) if has_c else NULL
    cdef real *h_n = data(state_n[0])
    cdef real *c_n = data(state_n[1]) if has_c else NULL
    assert x.shape[2] == packed.I and y.shape == (T, B, H)

    cdef Tape tape = Tape(packed, T, B) if keep else None
    cdef Buffer z = tape.z if keeps_z else Buffer(packed.blocks * chunk * B * size)
    cdef Buffer c = (tape.c if keep else Buffer(packed.blocks * B * VL)) if has_c else None
    cdef Buffer rh = Buffer(B * H) if packed.layout.n.count else None
    # Where h goes: in training to the tape, whose first step is the initial state; else to y.
    cdef real *h = tape.h.data + B * H if keep else y_data
    cdef ptrdiff_t h_t = B * H if keep else y_t, h_b = H if keep else y_b
    cdef ptrdiff_t c_t = B * VL if keep else 0
    cdef real *z_data
    cdef ptrdiff_t i, t, t0, n
    cdef Step s = new_step(packed, B)
    s.z_panel = (T if keeps_z else chunk) * B * size
    s.c_panel = (T + 1 if keep else 1) * B * VL
    s.h_row = h_b
    s.h_prev, s.h_prev_row = h0, H
    if packed.layout.n.count:
        s.rh = rh.data
    if has_c:
        s.c_prev = c.data
    with nogil:
        if keep:
            copy_rows(tape.x.data, B * packed.I, packed.I, x_data, x_t, x_b, T, B, packed.I)
            x_data, x_t, x_b = tape.x.data, B * packed.I, packed.I
            memcpy(tape.h.data, h0, B * H * sizeof(real))
        if has_c:
            block_rows(c.data, s.c_panel, c0, B, H)
        for i in range(parts(T, chunk)):
            t0 = i * chunk
            n = min(chunk, T - t0)
            z_data = z.data + (t0 * B * size if keeps_z else 0)
            project(packed, n, B, x_data + t0 * x_t, x_t, x_b, z_data, s.z_panel)
            for t in range(t0, t0 + n):
                s.z = z_data + (t - t0) * B * size
                s.h = h + t * h_t
                if has_c:
                    s.c = <real *>s.c_prev + c_t
                packed.layout.forward(&s)
                s.h_prev, s.h_prev_row, s.c_prev = s.h, h_b, s.c
        if keep:
            copy_rows(y_data, y_t, y_b, h, h_t, h_b, T, B, H)
        copy_rows(h_n, 0, H, s.h_prev, 0, h_b, 1, B, H)
        if has_c:
            unblock_rows(c_n, H, s.c_prev, s.c_panel, B, H)
    return tape


# -- backward ------------------------------------------------------------------------------------

cdef class Gradients:
    """Sums of weight gradients in panels, and of biases."""

    cdef Panels x, h, n
    cdef list buffers
    cdef real *bias         # (blocks, slots * VL)

    def __init__(self, Packed packed):
        self.buffers = []
        self.x = self._like(packed.x)
        self.h = self._like(packed.h)
        self.n = self._like(packed.n)
        cdef Buffer bias = zeros(packed.blocks * packed.layout.slots * VL)
        self.buffers.append(bias)
        self.bias = bias.data

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
    cdef ptrdiff_t gate, unit
    for gate in range(gates.count):
        for unit in range(H):
            bias[gates.index[gate] * H + unit] = packed[
                (unit // VL * slots + gates.first + gate) * VL + unit % VL
            ]


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


def backward(Tape tape, dy, dstate_n, dx, dstate, grads):
    """Backpropagation through time: see ``_reference.scan.backward``."""
    cdef Packed packed = tape.packed
    cdef Layout layout = packed.layout
    cdef ptrdiff_t T = tape.T, B = tape.B, I = packed.I, H = packed.H, blocks = packed.blocks
    cdef ptrdiff_t size = layout.slots * VL
    cdef bint has_c = layout.has_c
    cdef ptrdiff_t chunk = max(1, min(CHUNK_ROWS // B, T))
    cdef ptrdiff_t dz_panel = chunk * B * size
    cdef const real *dy_data = data(dy)
    cdef ptrdiff_t dy_t = 0 if dy is None else stride(dy, 0)
    cdef real *dx_data = data(dx)
    cdef ptrdiff_t dx_t = stride(dx, 0), dx_b = stride(dx, 1), dx_panel = chunk * B * VL
    cdef const real *dh_n = data(dstate_n[0])
    cdef const real *dc_n = data(dstate_n[1]) if has_c else NULL
    cdef real *dh0 = data(dstate[0])
    cdef real *dc0 = data(dstate[1]) if has_c else NULL
    cdef real *dw_ih = data(grads[0])
    cdef real *dw_hh = data(grads[1])
    cdef real *db_ih = data(grads[2])
    cdef real *db_hh = data(grads[3])
    assert dx.shape == (T, B, I) and (dy is None or dy.shape == (T, B, H))

    packed.need_back()
    cdef Gradients sums = Gradients(packed)
    cdef Buffer dz = Buffer(blocks * dz_panel)
    cdef Buffer dxs = Buffer(parts(I, VL) * dx_panel)
    cdef Buffer dh = Buffer(blocks * B * VL)
    cdef Buffer dc = Buffer(blocks * B * VL) if has_c else None
    cdef Buffer drh = Buffer(blocks * B * VL) if layout.n.count else None
    cdef Buffer rh = Buffer(chunk * B * H) if layout.n.count else None
    cdef Buffer zero = zeros(VL)
    cdef ptrdiff_t i, t, t0, n, b
    cdef product p
    cdef StepBack s
    memset(&s, 0, sizeof(StepBack))
    s.B, s.H, s.blocks, s.slots = B, H, blocks, layout.slots
    s.z_panel, s.dz_panel = T * B * size, dz_panel
    s.c_panel = (T + 1) * B * VL
    s.dh = dh.data
    s.w_hh, s.w_hn = &packed.h_back, &packed.n_back
    s.dy_row = 0 if dy is None else stride(dy, 1)
    if has_c:
        s.dc = dc.data
    if layout.n.count:
        s.drh = drh.data
    with nogil:
        block_rows(dh.data, B * VL, dh_n, B, H)
        if has_c:
            block_rows(dc.data, B * VL, dc_n, B, H)
        for i in range(parts(T, chunk) - 1, -1, -1):
            t0 = i * chunk
            n = min(chunk, T - t0)
            for t in range(t0 + n - 1, t0 - 1, -1):
                s.h_prev = tape.h.data + t * B * H
                s.h = s.h_prev + B * H
                if layout.keeps_gates:
                    s.z = tape.z.data + t * B * size
                if has_c:
                    s.c_prev = tape.c.data + t * B * VL
                    s.c = s.c_prev + B * VL
                if dy_data is not NULL:
                    s.dy = dy_data + t * dy_t
                s.dz = dz.data + (t - t0) * B * size
                layout.backward(&s)
            p.a, p.a_row, p.a_k = dz.data + layout.x.first * VL, size, 1
            p.a_segment, p.segments, p.K = dz_panel, blocks, layout.x.count * VL
            p.init, p.init_row = zero.data, 0
            p.c, p.c_row = dxs.data, VL
            multiply(&packed.x_back, n * B, p, 0, dx_panel)
            for t in range(n):
                for b in range(B):
                    unblock_rows(
                        dx_data + (t0 + t) * dx_t + b * dx_b, 0,
                        dxs.data + (t * B + b) * VL, dx_panel, 1, I,
                    )
            accumulate(
                &sums.x, n * B, tape.x.data + t0 * B * I, I, dz.data, size, dz_panel, zero.data
            )
            accumulate(
                &sums.h, n * B, tape.h.data + t0 * B * H, H, dz.data, size, dz_panel, zero.data
            )
            if layout.n.count:
                reset_states(
                    rh.data, tape.h.data + t0 * B * H, tape.z.data + t0 * B * size, s.z_panel,
                    layout.slots, n * B, H,
                )
                accumulate(&sums.n, n * B, rh.data, H, dz.data, size, dz_panel, zero.data)
            sum_biases(sums.bias, blocks, layout.slots, n * B, dz.data, dz_panel)
        unpack(&sums.x, &layout.x, dw_ih, H)
        unpack(&sums.h, &layout.h, dw_hh, H)
        unpack(&sums.n, &layout.n, dw_hh, H)
        if db_ih is not NULL:
            unpack_bias(sums.bias, &layout.x, layout.slots, db_ih, H)
        if db_hh is not NULL:
            unpack_bias(sums.bias, &layout.h, layout.slots, db_hh, H)
            unpack_bias(sums.bias, &layout.n, layout.slots, db_hh, H)
        unblock_rows(dh0, H, dh.data, B * VL, B, H)
        if has_c:
            unblock_rows(dc0, H, dc.data, B * VL, B, H)


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
    cdef Buffer z, rh
    cdef Step s
    cdef ptrdiff_t B, I, H
    cdef bint busy

    def __init__(self, weights, kernels, ptrdiff_t batch_size, convert):
        cdef Packed packed = weights.packed(kernels)
        cdef ptrdiff_t B = batch_size, H = packed.H, padded = packed.blocks * VL
        cdef ptrdiff_t size = packed.layout.slots * VL
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self.packed, self.B, self.I, self.H = packed, B, packed.I, H
        self.z = Buffer(packed.blocks * B * size)
        self.rh = Buffer(B * H)
        memory = np.zeros((2, B, padded), np.dtype(f"f{sizeof(real)}"))
        self.state = (memory[0, :, :H], memory[1, :, :H])[: 1 + packed.layout.has_c]
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
        self.s.h = data(self.state[0])
        self.s.h_prev = self.s.h
        self.s.h_row = self.s.h_prev_row = padded
        if packed.layout.has_c:
            self.s.c = data(self.state[1])
            self.s.c_prev = self.s.c
            self.s.c_row, self.s.c_panel = padded, VL
        return 0

    cdef void _step(self, const real *x, real *y) noexcept nogil:
        project(self.packed, 1, self.B, x, 0, self.I, self.s.z, self.s.z_panel)
        self.packed.layout.forward(&self.s)
        copy_rows(y, 0, self.H, self.s.h, 0, self.s.h_row, 1, self.B, self.H)

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
                shape[0], shape[ndim - 1] = self.B, self.H
                out = cnp.PyArray_EMPTY(ndim, shape, NPY_REAL, 0)
                y_data = data(out)
            else:
                y_data = plain(out, self.B, self.H, cnp.NPY_ARRAY_CARRAY)
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
