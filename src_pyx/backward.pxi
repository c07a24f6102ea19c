# The scan back over time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memset
from norm cimport Norm, normalise_back
from panels cimport Panels, accumulate, multiply, parts
from step cimport StepBack
from vec cimport VL, product, real, vf, vfirst, vload, vload_first, vset, vstore

cdef enum:
    # Rows of a chunk of BPTT: enough to pay for loading and storing the weight gradients.
    CHUNK_ROWS = 256


cdef class Gradients:
    """Sums of weight gradients, to which each `backward` adds; in panels and slots."""

    cdef Packed packed
    cdef Panels x, h, n, r
    cdef list buffers
    cdef real *bias         # (blocks, slots * VL)
    cdef real *gain_x       # (blocks, slots * VL)
    cdef real *gain_h       # (blocks, slots * VL)
    cdef real *peephole     # (blocks, 3 * VL)
    cdef real *norm_c       # (blocks, 2 * VL)

    def __init__(self, Packed packed):
        cdef ptrdiff_t slots = packed.layout.slots
        self.packed, self.buffers = packed, []
        self.x = self._like(packed.x)
        self.h = self._like(packed.h)
        self.n = self._like(packed.n)
        self.r = self._like(packed.r)
        self.bias = self._zeros(packed.blocks * slots * VL)
        self.gain_x = self._zeros(packed.blocks * slots * VL)
        self.gain_h = self._zeros(packed.blocks * slots * VL)
        self.peephole = self._zeros(packed.blocks * 3 * VL)
        self.norm_c = self._zeros(packed.blocks * 2 * VL)

    cdef real *_zeros(self, ptrdiff_t count) except NULL:
        cdef Buffer buffer = zeros(count)
        self.buffers.append(buffer)
        return buffer.data

    cdef Panels _like(self, Panels w):
        w.w = self._zeros(w.K * w.blocks * w.gates * VL)
        return w

    def write(self, grads):
        """Write the sums to `grads`, in the weights' order and shapes."""
        cdef Layout layout = self.packed.layout
        cdef ptrdiff_t H = self.packed.H
        cdef dict named = dict.fromkeys(ALL_WEIGHTS)
        named.update(zip(self.packed.cell.weights, grads, strict=False))
        unpack(&self.x, &layout.x, data(named["weight_ih"]), H)
        unpack(&self.h, &layout.h, data(named["weight_hh"]), H)
        unpack(&self.n, &layout.n, data(named["weight_hh"]), H)
        if named["weight_hr"] is not None:
            unpack(&self.r, &OUTPUT, data(named["weight_hr"]), self.packed.P)
        self._write_slots(self.bias, named["bias_ih"], named["bias_hh"])
        self._write_slots(self.gain_x, named["gain_ih"], None)
        self._write_slots(self.gain_h, None, named["gain_hh"])
        take_vectors(self.peephole, PEEPHOLES, named, H)
        take_vectors(self.norm_c, STATE_NORM, named, H)

    cdef void _write_slots(self, const real *sums, of_x, of_h):
        """The slots of both products' gates, to vectors (G*H,) that may be None."""
        cdef Layout layout = self.packed.layout
        if of_x is not None:
            unpack_slots(sums, &layout.x, layout.slots, data(of_x), self.packed.H)
        if of_h is not None:
            unpack_slots(sums, &layout.h, layout.slots, data(of_h), self.packed.H)
            unpack_slots(sums, &layout.n, layout.slots, data(of_h), self.packed.H)


cdef void take_vectors(const real *sums, names, dict named, ptrdiff_t H):
    """The slots of vectors (H,), those that are there."""
    for slot, name in enumerate(names):
        if named[name] is not None:
            take_vector(sums, len(names), slot, data(named[name]), H)


def segment_steps(ptrdiff_t B, ptrdiff_t least):
    """Steps after which gradients may be summed apart: see ``_reference.scan.segment_steps``."""
    cdef ptrdiff_t chunk = chunk_steps(B)
    return parts(least, chunk) * chunk


cdef inline ptrdiff_t chunk_steps(ptrdiff_t B) noexcept:
    """Steps whose weight gradients are summed together, counted from the first step."""
    return max(1, CHUNK_ROWS // B)


cdef void sum_rows(
    real *sums, ptrdiff_t blocks, ptrdiff_t vectors, ptrdiff_t rows, const real *dz,
    ptrdiff_t dz_panel,
) noexcept nogil:
    """sums += the sum of dz over its rows."""
    cdef ptrdiff_t block, v, row
    cdef vf total
    for block in range(blocks):
        for v in range(vectors):
            total = vset(0)
            for row in range(rows):
                total = total + vload(dz + block * dz_panel + (row * vectors + v) * VL)
            vstore(
                sums + (block * vectors + v) * VL,
                vload(sums + (block * vectors + v) * VL) + total,
            )


cdef void sum_gains(
    real *sums, ptrdiff_t blocks, ptrdiff_t vectors, ptrdiff_t rows, const real *dz,
    ptrdiff_t dz_panel, const Norm *norm,
) noexcept nogil:
    """sums += the sum of dz hat over the rows; what comes of slots without a product is unused."""
    cdef ptrdiff_t block, v, row, at
    cdef vf total
    for block in range(blocks):
        for v in range(vectors):
            total = vset(0)
            for row in range(rows):
                at = (row * vectors + v) * VL
                total = total + (
                    vload(dz + block * dz_panel + at)
                    * vload(norm.hat + block * norm.hat_panel + at)
                )
            vstore(
                sums + (block * vectors + v) * VL,
                vload(sums + (block * vectors + v) * VL) + total,
            )


cdef void unpack_slots(
    const real *packed, const Gates *gates, ptrdiff_t slots, real *vectors, ptrdiff_t H
) noexcept nogil:
    """The slots of some gates to (G*H,)."""
    cdef ptrdiff_t gate
    for gate in range(gates.count):
        take_vector(packed, slots, gates.first + gate, vectors + gates.index[gate] * H, H)


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


def backward(Tape tape, dy, dstate_n, dx, dstate, Gradients gradients):
    """Backpropagation through time: see ``_reference.scan.backward``."""
    cdef Packed packed = tape.packed
    cdef Layout layout = packed.layout
    cdef Rows rows = tape.rows
    cdef ptrdiff_t T = rows.T, B = rows.B, I = packed.I, H = packed.H, P = packed.P
    cdef ptrdiff_t blocks = packed.blocks, P_blocks = parts(P, VL)
    cdef ptrdiff_t size = layout.slots * VL
    cdef bint has_c = layout.has_c
    cdef ptrdiff_t chunk = min(chunk_steps(B), T)
    cdef const real *dy_data = data(dy)
    cdef ptrdiff_t dy_t = 0 if dy is None else stride(dy, 0)
    cdef ptrdiff_t dy_b = 0 if dy is None else stride(dy, 1)
    cdef real *dx_data = data(dx)
    cdef ptrdiff_t dx_t = stride(dx, 0), dx_b = stride(dx, 1)
    cdef const real *dh_n = data(dstate_n[0])
    cdef const real *dc_n = data(dstate_n[1]) if has_c else NULL
    cdef real *dh_0 = data(dstate[0])
    cdef real *dc_0 = data(dstate[1]) if has_c else NULL
    cdef const char *reset_data = NULL
    cdef ptrdiff_t reset_t = 0, reset_b = 0
    if tape.reset is not None:
        reset_data = <const char *>cnp.PyArray_DATA(<cnp.ndarray>tape.reset)
        reset_t, reset_b = tape.reset.strides
    assert dx.shape == (T, B, I) and (dy is None or dy.shape == (T, B, P))

    packed.need_back()
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
    # With layer normalisation: gradients of the products, and the cell state's normalised values.
    cdef bint normed = packed.gain_x is not NULL
    cdef Buffer dzh = Buffer(blocks * chunk * B * size) if normed else dz
    cdef Buffer dzx = Buffer(blocks * chunk * B * size) if normed else dz
    cdef Buffer hats = Buffer(2 * blocks * B * VL) if packed.norm_c is not NULL else None
    cdef Norm x_norm = packed.norm(packed.gain_x), h_norm = packed.norm(packed.gain_h)
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
    s.peephole, s.dpeephole = packed.peephole, gradients.peephole
    s.norm_c, s.dnorm_c = packed.norm_c, gradients.norm_c
    s.norm = h_norm
    if packed.norm_c is not NULL:
        s.c_hat, s.dc_hat = hats.data, hats.data + blocks * B * VL
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
                if normed:
                    s.dzh = dzh.data + (rows.offset(t) - at) * size
                    s.norm = tape.h_hats.of(h_norm, rows.offset(t))
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
                if normed:
                    x_norm = tape.x_hats.of(x_norm, at)
                    normalise_back(
                        &x_norm, layout.x.first, layout.x.count, count, blocks, H,
                        dz.data, dzx.data, dz_panel,
                    )
                    sum_gains(
                        gradients.gain_x, blocks, layout.slots, count, dz.data, dz_panel, &x_norm
                    )
                    h_norm = tape.h_hats.of(h_norm, at)
                    sum_gains(
                        gradients.gain_h, blocks, layout.slots, count, dz.data, dz_panel, &h_norm
                    )
                p.a, p.a_row, p.a_k = dzx.data + layout.x.first * VL, size, 1
                p.a_segment, p.segments, p.K = dz_panel, blocks, layout.x.count * VL
                p.init, p.init_row = zero.data, 0
                p.c, p.c_row = dxs.data, VL
                multiply(&packed.x_back, count, p, 0, dx_panel)
                accumulate(
                    &gradients.x, count, tape.x.data + at * I, I, dzx.data, size, dz_panel,
                    zero.data,
                )
                accumulate(
                    &gradients.h, count, tape.h.data + at * P, P, dzh.data, size, dz_panel,
                    zero.data,
                )
                if packed.projects:
                    accumulate(
                        &gradients.r, count, out.data, H, dr.data, VL, chunk * B * VL, zero.data
                    )
                if layout.n.count:
                    reset_states(
                        rh.data, tape.h.data + at * H, tape.z.data + at * size, s.z_panel,
                        layout.slots, count, H,
                    )
                    accumulate(
                        &gradients.n, count, rh.data, H, dzh.data, size, dz_panel, zero.data
                    )
                sum_rows(gradients.bias, blocks, layout.slots, count, dz.data, dz_panel)
            for t in range(t0, t0 + n):
                for b in range(B):
                    if b < rows.count(t):
                        unblock_row(
                            dx_data + t * dx_t + rows.row(b) * dx_b,
                            dxs.data + (rows.offset(t) - at + b) * VL, dx_panel, I,
                        )
                    else:
                        memset(dx_data + t * dx_t + rows.row(b) * dx_b, 0, I * sizeof(real))
        for b in range(B):
            unblock_row(dh_0 + rows.row(b) * P, dh.data + b * VL, s.d_panel, P)
            if has_c:
                unblock_row(dc_0 + rows.row(b) * H, dc.data + b * VL, s.d_panel, H)
