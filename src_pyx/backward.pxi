# The scan back over time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memset
from panels cimport Panels, accumulate, multiply, parts
from step cimport StepBack
from vec cimport VL, product, real, vf, vfirst, vload, vload_first, vset, vstore

cdef enum:
    # Rows of a chunk of BPTT: enough to pay for loading and storing the weight gradients.
    CHUNK_ROWS = 256


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
