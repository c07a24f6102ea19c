# The scan over time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memcpy, memset
from norm cimport Norm, normalise
from panels cimport multiply, parts
from step cimport Step
from vec cimport VL, product, real, vload, vstore

cdef enum:
    # Bytes of gate values computed ahead of the recurrence: they are to stay in the L2 cache.
    CHUNK_BYTES = 131072


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
    cdef Hats x_hats, h_hats    # with layer normalisation

    def __init__(self, Packed packed, Rows rows, reset):
        self.packed, self.rows = packed, rows
        self.reset = None if reset is None else reset.copy()
        self.x = Buffer(rows.N * packed.I)
        self.h = Buffer(rows.N * packed.P)
        if packed.layout.has_c:
            self.c = Buffer(packed.blocks * rows.N * VL)
        self.z = Buffer(packed.blocks * rows.N * packed.layout.slots * VL)
        if packed.gain_x is not NULL:
            self.x_hats, self.h_hats = Hats(packed, rows.N), Hats(packed, rows.N)


cdef class Hats:
    """What layer normalisation of a product makes of some rows."""

    cdef Buffer hat         # (blocks, rows, slots * VL)
    cdef Buffer scale       # (rows, slots)
    cdef ptrdiff_t size, slots, panel

    def __init__(self, Packed packed, ptrdiff_t rows):
        self.slots, self.size = packed.layout.slots, packed.layout.slots * VL
        self.panel = rows * self.size
        self.hat, self.scale = Buffer(packed.blocks * self.panel), Buffer(rows * self.slots)

    cdef inline Norm of(self, Norm norm, ptrdiff_t row) noexcept nogil:
        """`norm` with its values from `row` on here."""
        norm.hat, norm.hat_panel = self.hat.data + row * self.size, self.panel
        norm.scale = self.scale.data + row * self.slots
        return norm


cdef void project(
    Packed packed, ptrdiff_t T, ptrdiff_t B, const real *x, ptrdiff_t x_t, ptrdiff_t x_b,
    real *z, ptrdiff_t z_panel, const Norm *norm,
) noexcept nogil:
    """z = bias + x w, or bias + LN(x w), for all rows of T steps: (blocks, T * B, slots * VL)."""
    cdef ptrdiff_t t, b, block, slot, size = packed.layout.slots * VL
    cdef bint normed = norm.gain is not NULL
    cdef real *c = norm.hat if normed else z
    cdef ptrdiff_t c_panel = norm.hat_panel if normed else z_panel
    cdef ptrdiff_t init_panel = 0 if normed else size
    cdef product p
    p.a_k, p.a_segment, p.K, p.segments = 1, 0, packed.I, 1
    p.init, p.init_row, p.c_row = norm.zero if normed else packed.bias, 0, size
    if B == 1 or T == 1 or x_t == B * x_b:
        p.a, p.a_row, p.c = x, x_t if B == 1 else x_b, c
        multiply(&packed.x, T * B, p, init_panel, c_panel)
    elif B < T:
        p.a_row, p.c_row = x_t, B * size
        for b in range(B):
            p.a, p.c = x + b * x_b, c + b * size
            multiply(&packed.x, T, p, init_panel, c_panel)
    else:
        p.a_row = x_b
        for t in range(T):
            p.a, p.c = x + t * x_t, c + t * B * size
            multiply(&packed.x, B, p, init_panel, c_panel)
    slot = 0 if normed else packed.layout.x.first + packed.layout.x.count
    for slot in range(slot, packed.layout.slots):
        for block in range(packed.blocks):
            for t in range(T * B):
                vstore(
                    z + block * z_panel + t * size + slot * VL,
                    vload(packed.bias + block * size + slot * VL),
                )
    if normed:
        normalise(
            norm, packed.layout.x.first, packed.layout.x.count, T * B, packed.blocks, packed.H,
            z, z_panel,
        )


cdef Step new_step(Packed packed, ptrdiff_t B) noexcept:
    cdef Step s
    memset(&s, 0, sizeof(Step))
    s.B, s.H, s.blocks, s.slots = B, packed.H, packed.blocks, packed.layout.slots
    s.w_hh = &packed.h
    s.w_hn = &packed.n
    s.peephole, s.norm_c = packed.peephole, packed.norm_c
    s.norm = packed.norm(packed.gain_h)
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
    cdef ptrdiff_t x_t = stride(x, 0), x_b = stride(x, 1)
    cdef ptrdiff_t y_t = 0 if y is None else stride(y, 0), y_b = 0 if y is None else stride(y, 1)
    cdef const real *h_0 = data(state[0])
    cdef const real *c_0 = data(state[1]) if has_c else NULL
    cdef real *h_n = data(state_n[0])
    cdef real *c_n = data(state_n[1]) if has_c else NULL
    cdef const char *reset_data = NULL
    cdef ptrdiff_t reset_t = 0, reset_b = 0
    if reset is not None:
        reset_data = <const char *>cnp.PyArray_DATA(<cnp.ndarray>reset)
        reset_t, reset_b = reset.strides
    assert x.shape[2] == I and (y is None or y.shape == (T, B, P))

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
    cdef Hats x_hats = None, h_hats = None
    cdef Buffer c_hat = Buffer(blocks * B * VL) if packed.norm_c is not NULL else None
    cdef Norm x_norm = packed.norm(packed.gain_x), h_norm = packed.norm(packed.gain_h)
    cdef bint normed = packed.gain_x is not NULL
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
    if normed:
        x_hats = tape.x_hats if keep else Hats(packed, chunk * B)
        h_hats = tape.h_hats if keep else Hats(packed, B)
        s.norm = h_hats.of(h_norm, 0)
    if packed.norm_c is not NULL:
        s.c_hat = c_hat.data
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
            if normed:
                x_norm = x_hats.of(x_norm, at if keep else 0)
            if packs_x:
                xs_data = xs.data + (at * I if keep else 0)
                for t in range(t0, t0 + n):
                    gather(rows, t, xs_data + (rows.offset(t) - at) * I, x_data + t * x_t, x_b, I)
                count = rows.offset(t0 + n) - at
                if count:
                    project(packed, 1, count, xs_data, 0, I, z_data, s.z_panel, &x_norm)
            else:
                project(
                    packed, n, B, x_data + t0 * x_t, x_t, x_b, z_data, s.z_panel, &x_norm
                )
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
                if normed and keep:
                    s.norm = h_hats.of(h_norm, rows.offset(t))
                if count:
                    packed.layout.forward(&s)
                    if packed.projects:
                        project_output(packed, count, out.data, projected.data, h.data, P)
                if y_data is not NULL:
                    scatter(rows, t, y_data + t * y_t, y_b, h.data, P)
        for b in range(B):
            memcpy(h_n + rows.row(b) * P, h.data + b * P, P * sizeof(real))
            if has_c:
                unblock_row(c_n + rows.row(b) * H, c.data + b * VL, s.c_panel, H)
    return tape
