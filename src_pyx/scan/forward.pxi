# The scan over time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memcpy, memset
from norm cimport Norm, normalise
from panels cimport Panels, multiply, parts, share_blocks, some_panels
from step cimport Step, meet
from vec cimport (
    VL, float_mode, flush_subnormals, product, real, restore_mode, vcopy, vload, vstore,
)

cdef enum:
    # Bytes of gate values computed ahead of the recurrence: they are to stay in the L2 cache.
    CHUNK_BYTES = 131072
    # Numbers in a cache line of 64 bytes.
    LINE = 64 // sizeof(real)


cdef class Hats:
    """What layer normalisation of a product makes of some rows."""

    cdef Buffer hat         # (blocks, rows, size)
    cdef Buffer scale       # (rows, slots)
    cdef ptrdiff_t rows

    def __cinit__(self, Packed packed not None, ptrdiff_t rows):
        cdef Weights *w = &packed.w
        self.rows = rows
        self.hat = Buffer(product_of(w.blocks, rows, w.size))
        self.scale = Buffer(product_of(rows, w.layout.slots))

    cdef Norm norm(self, const Weights *w, const real *gain) noexcept:
        """Layer normalisation of a product, whose values go here."""
        cdef Norm norm = norm_of(w, gain)
        norm.hat, norm.hat_panel = self.hat.data, self.rows * w.size
        norm.scale = self.scale.data
        return norm


cdef inline Norm norm_at(const Norm *norm, ptrdiff_t row) noexcept nogil:
    """The same from a row on."""
    cdef Norm found = norm[0]
    found.hat += row * norm.slots * VL
    found.scale += row * norm.slots
    return found


cdef class Tape:
    """What a training forward keeps for `backward`: copies of x, the old states, the gates.

    Rows of all steps stand behind each other, N in all.
    """

    cdef Packed packed      # None in one that `forward` did not make
    cdef Rows rows
    cdef list memory        # of rows
    cdef object reset       # (T, B) or None
    cdef Buffer x           # (N, I)
    cdef Buffer h           # (N, P); only those of the first step, (B, P), if z has the others
    cdef Buffer c           # (blocks, N, VL)
    cdef Buffer z           # (blocks, N, size)
    cdef Hats x_hats, h_hats    # with layer normalisation

    cdef int allocate(self, Packed packed, Rows rows, list memory) except -1:
        cdef Weights *w = &packed.w
        cdef ptrdiff_t N = rows.N
        self.rows, self.memory = rows, memory
        self.x = Buffer(product_of(N, w.I))
        self.h = Buffer(product_of(rows.B if w.layout.z_is_h else N, w.P))
        if w.layout.has_c:
            self.c = Buffer(product_of(w.blocks, N, VL))
        self.z = Buffer(product_of(w.blocks, N, w.size))
        if w.gain_x is not NULL:
            self.x_hats, self.h_hats = Hats(packed, N), Hats(packed, N)
        self.packed = packed
        return 0


cdef struct Projection:
    # z = bias + x w, or bias + LN(x w), of T steps of B rows; strides in numbers.
    const Panels *w
    const real *bias
    ptrdiff_t slots         # of z; those that x does not reach get their bias
    ptrdiff_t H
    ptrdiff_t T
    ptrdiff_t B
    const real *x
    ptrdiff_t x_t
    ptrdiff_t x_b
    real *z                 # (blocks, rows, slots * VL)
    ptrdiff_t z_t
    ptrdiff_t z_panel
    Norm norm


cdef void project(const Projection *s) noexcept nogil:
    cdef ptrdiff_t t, b, block, slot, at, T = s.T, B = s.B, size = s.slots * VL
    cdef bint normed = s.norm.gain is not NULL
    cdef real *c = s.norm.hat if normed else s.z
    cdef ptrdiff_t c_panel = s.norm.hat_panel if normed else s.z_panel
    cdef ptrdiff_t init_panel = 0 if normed else size
    cdef product p
    cdef const real *init = s.norm.zero if normed else s.bias
    p.a_k, p.K, p.segment = 1, s.w.K, s.w.K
    p.init, p.init_row, p.c_row = init, 0, size
    if B == 1 or T == 1 or (s.x_t == B * s.x_b and s.z_t == B * size):
        p.a, p.a_row, p.c = s.x, s.x_t if B == 1 else s.x_b, c
        p.c_row = s.z_t if B == 1 else size
        multiply(s.w, T * B, &p, init_panel, c_panel)
    elif B < T:
        p.a_row, p.c_row = s.x_t, s.z_t
        for b in range(B):
            p.init, p.a, p.c = init, s.x + b * s.x_b, c + b * size
            multiply(s.w, T, &p, init_panel, c_panel)
    else:
        p.a_row = s.x_b
        for t in range(T):
            p.init, p.a, p.c = init, s.x + t * s.x_t, c + t * s.z_t
            multiply(s.w, B, &p, init_panel, c_panel)
    for slot in range(0 if normed else s.w.first + s.w.gates, s.slots):
        for block in range(s.w.blocks):
            at = slot * (VL if block < s.w.blocks - 1 else s.w.lanes)
            for t in range(T):
                for b in range(B):
                    vstore(
                        s.z + block * s.z_panel + t * s.z_t + b * size + at,
                        vload(s.bias + block * size + at),
                    )
    if normed:
        for t in range(T):
            normalise_step(s, t)


cdef inline void normalise_step(const Projection *s, ptrdiff_t t) noexcept nogil:
    cdef Norm norm = norm_at(&s.norm, t * s.z_t // (s.slots * VL))
    normalise(
        &norm, s.w.first, s.w.gates, s.B, s.w.blocks, s.H, s.z + t * s.z_t, s.z_panel
    )


cdef Step new_step(const Weights *w) noexcept nogil:
    cdef Step s
    memset(&s, 0, sizeof(Step))
    s.H, s.blocks, s.slots, s.lanes = w.H, w.blocks, w.layout.slots, w.lanes
    s.w_hh, s.w_hn = &w.h, &w.n
    s.peephole, s.norm_c = w.peephole, w.norm_c
    s.norm = norm_of(w, w.gain_h)
    s.threads = 1
    return s


cdef void project_output(
    const Weights *w, ptrdiff_t B, const real *out, real *blocked, real *h, ptrdiff_t h_row
) noexcept nogil:
    """h = W_hr out (Sak et al. 2014): (B, H) to (B, P), by way of blocks (P blocks, B, VL)."""
    cdef ptrdiff_t b, panel = B * VL
    cdef product p
    memset(blocked, 0, w.r.blocks * panel * sizeof(real))
    p.a, p.a_row, p.a_k = out, w.H, 1
    p.K = p.segment = w.H
    p.init, p.init_row = blocked, VL
    p.c, p.c_row = blocked, VL
    multiply(&w.r, B, &p, panel, panel)
    for b in range(B):
        unblock_row(h + b * h_row, blocked + b * VL, panel, w.P)


cdef struct Forward:
    # All that the threads of one forward share.
    const Weights *w
    Rows rows
    ptrdiff_t chunk         # steps whose inputs are projected at once
    bint keep
    bint by_blocks          # threads share each step's blocks; else each has rows of its own
    meeting others
    const real *x
    ptrdiff_t x_t
    ptrdiff_t x_b
    real *y                 # or NULL
    ptrdiff_t y_t
    ptrdiff_t y_b
    real *h_n
    real *c_n
    const char *reset       # or NULL
    ptrdiff_t reset_t
    ptrdiff_t reset_b
    real *xs                # rows that run, side by side: (chunk * B, I), or NULL for x as it is
    real *z                 # (blocks, chunk * B, size), or the tape's
    ptrdiff_t z_rows
    real *h[2]              # (B, P), old and new; one and the same unless by blocks
    ptrdiff_t h_row         # whole cache lines: no two threads write to one
    real *out               # (B, H)
    real *projected         # (P blocks, B, VL)
    real *c                 # (blocks, B, VL)
    real *rh                # (B, H)
    real *c_hat             # (blocks, B, VL)
    real *tape_h
    real *tape_c
    Norm x_norm
    Norm h_norm


cdef inline ptrdiff_t place_of(
    const Forward *f, ptrdiff_t t, ptrdiff_t t0, bint apart
) noexcept nogil:
    """Where the rows of step t stand in z, xs and the hats, for a chunk that begins at t0."""
    if f.keep:
        return offset(&f.rows, t)
    if apart:
        # Threads are in different chunks at times: rows must keep to their own places.
        return (t - t0) * f.rows.B
    return offset(&f.rows, t) - offset(&f.rows, t0)


cdef void forward_share(int index, int count, void *what) noexcept nogil:
    """What one of `count` threads does."""
    cdef Forward *f = <Forward *>what
    cdef const Weights *w = f.w
    cdef const Rows *rows = &f.rows
    cdef ptrdiff_t T = rows.T, B = rows.B, I = w.I, P = w.P, size = w.size, h_row = f.h_row
    cdef bint has_c = w.layout.has_c, normed = w.gain_x is not NULL
    cdef bint apart = count > 1 and not f.by_blocks
    # My rows, my blocks, and the units of the output in these.
    cdef ptrdiff_t b0 = 0, b1 = B, u0 = 0, u1 = w.blocks, n0 = 0, n1 = P
    if f.by_blocks:
        u0, u1 = share_blocks(w.blocks, index, count), share_blocks(w.blocks, index + 1, count)
        n0, n1 = u0 * VL, min(u1 * VL, P)
    else:
        b0, b1 = share_rows(rows, index, count), share_rows(rows, index + 1, count)
    cdef Panels w_x = some_panels(&w.x, u0, u1), w_h = some_panels(&w.h, u0, u1)
    cdef ptrdiff_t i, t, t0, n, mine, b, u, place
    cdef real *h
    cdef real *h_new
    cdef Projection x
    memset(&x, 0, sizeof(Projection))
    x.w, x.bias, x.slots, x.H = &w_x, w.bias + u0 * size, w.layout.slots, w.H
    x.z_panel, x.norm = f.z_rows * size, f.x_norm
    cdef float_mode mode = flush_subnormals()
    cdef Step s = new_step(w)
    s.H, s.blocks, s.w_hh = w.H - u0 * VL, u1 - u0, &w_h
    s.z_panel = f.z_rows * size
    s.h_row = h_row
    s.out_row = w.H if w.projects else h_row
    if has_c:
        s.c, s.c_row, s.c_panel = f.c + (u0 * B + b0) * VL, VL, B * VL
    if w.peephole is not NULL:
        s.peephole = w.peephole + u0 * 3 * VL
    if f.rh is not NULL:
        s.rh = f.rh + b0 * w.H
    if f.c_hat is not NULL:
        s.c_hat, s.hat_panel = f.c_hat + b0 * VL, B * VL
    if f.by_blocks:
        s.threads, s.others = count, &f.others
    for i in range(parts(T, f.chunk)):
        t0 = i * f.chunk
        n = min(f.chunk, T - t0)
        if f.xs is not NULL:
            # By rows, each thread goes on with its own; else all of them are needed first.
            for t in range(t0, t0 + n):
                if f.by_blocks and t % count != index:
                    continue
                mine = min(b1, count_rows(rows, t)) - b0
                place = place_of(f, t, t0, apart) + b0
                for b in range(mine):
                    vcopy(
                        f.xs + (place + b) * I, f.x + t * f.x_t + row(rows, b0 + b) * f.x_b, I
                    )
                if apart and mine > 0:
                    project_rows(&x, f, place, mine, u0)
            if f.by_blocks:
                meet(&f.others, count)
            mine = offset(rows, t0 + n) - offset(rows, t0)
            if not apart and mine > 0:
                project_rows(&x, f, place_of(f, t0, t0, apart), mine, u0)
        else:
            x.T, x.B, x.x_t, x.x_b, x.z_t = n, b1 - b0, f.x_t, f.x_b, B * size
            x.x = f.x + t0 * f.x_t + b0 * f.x_b
            x.z = f.z + u0 * x.z_panel + b0 * size
            x.norm = norm_at(&f.x_norm, b0)
            if x.B > 0:
                project(&x)
        for t in range(t0, t0 + n):
            mine = min(b1, count_rows(rows, t)) - b0
            place = place_of(f, t, t0, apart) + b0
            h, h_new = f.h[t & 1], f.h[(t + 1) & 1]
            if mine > 0:
                if f.reset is not NULL:
                    reset_rows(
                        rows, b0, b0 + mine, f.reset + t * f.reset_t, f.reset_b, h, 0, 1, h_row, P
                    )
                    if has_c:
                        reset_rows(
                            rows, b0, b0 + mine, f.reset + t * f.reset_t, f.reset_b, f.c, B * VL,
                            w.blocks, VL, VL,
                        )
                if f.keep:
                    for b in range(0 if w.layout.z_is_h else mine):
                        vcopy(
                            f.tape_h + (place + b) * P + n0, h + (b0 + b) * h_row + n0, n1 - n0
                        )
                    if has_c:
                        for u in range(u0, u1):
                            memcpy(
                                f.tape_c + (u * rows.N + place) * VL, f.c + (u * B + b0) * VL,
                                mine * VL * sizeof(real),
                            )
                s.B = mine
                s.z = f.z + u0 * s.z_panel + place * size
                s.h, s.h_own = h + b0 * h_row, h + b0 * h_row + n0
                s.out = f.out + b0 * w.H if w.projects else h_new + b0 * h_row + n0
                if normed:
                    s.norm = norm_at(&f.h_norm, place if f.keep else b0)
                w.layout.forward(&s)
                if w.projects:
                    project_output(
                        w, mine, s.out, f.projected + b0 * w.r.blocks * VL,
                        h_new + b0 * h_row, h_row,
                    )
            if f.y is not NULL:
                for b in range(b0, b1):
                    if b - b0 < mine:
                        vcopy(
                            f.y + t * f.y_t + row(rows, b) * f.y_b + n0, h_new + b * h_row + n0,
                            n1 - n0,
                        )
                    else:
                        memset(
                            f.y + t * f.y_t + row(rows, b) * f.y_b + n0, 0,
                            (n1 - n0) * sizeof(real),
                        )
    for b in range(b0, b1):
        vcopy(f.h_n + row(rows, b) * P + n0, f.h[T & 1] + b * h_row + n0, n1 - n0)
        if has_c:
            unblock_row(
                f.c_n + row(rows, b) * w.H + u0 * VL, f.c + (u0 * B + b) * VL, B * VL,
                min(u1 * VL, w.H) - u0 * VL,
            )
    restore_mode(mode)


cdef inline void project_rows(
    Projection *x, const Forward *f, ptrdiff_t place, ptrdiff_t count, ptrdiff_t u0
) noexcept nogil:
    """Project rows that stand side by side in xs."""
    x.T, x.B, x.x_b = 1, count, x.w.K
    x.x = f.xs + place * x.w.K
    x.z = f.z + u0 * x.z_panel + place * x.slots * VL
    x.norm = norm_at(&f.x_norm, place)
    project(x)


cdef tuple tuple_of(states, str name, ptrdiff_t count):
    """So many states in a tuple, which nobody changes during the call."""
    cdef tuple given = tuple(states)
    if len(given) != count:
        raise ValueError(f"{name}: expected {count} arrays, got {len(given)}")
    return given


cdef inline real *state_of(
    const Weights *w, tuple states, str name, ptrdiff_t i, ptrdiff_t B, int access, bint optional
) except? NULL:
    """State i, or a gradient of it: (B, P) for the first one, (B, H) for others; NULL for None."""
    if optional and states[i] is None:
        return NULL
    return matrix(states[i], name, B, w.H if i else w.P, access)


def forward(Packed packed not None, x, state, y, state_n, bint keep=False, spans=None, reset=None):
    """Run a layer over a sequence: see ``_reference.scan.forward``."""
    cdef const Weights *w = &packed.w
    cdef ptrdiff_t T, B, blocks = w.blocks
    cdef Forward f
    if not is_plain(x, NPY_REAL, IN) or cnp.PyArray_NDIM(x) != 3 or cnp.PyArray_DIM(x, 1) == 0:
        refuse(x, "x", f"a {real_name()} array (T, B, {w.I}), B at least 1,")
    T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    state = tuple_of(state, "state", 1 + w.layout.has_c)
    state_n = tuple_of(state_n, "state_n", 1 + w.layout.has_c)
    memset(&f, 0, sizeof(Forward))
    f.w, f.keep = w, keep
    f.chunk = CHUNK_BYTES // (product_of(B, w.size, blocks) * <ptrdiff_t>sizeof(real))
    f.chunk = max(1, min(f.chunk, T))

    cdef Tape tape = None
    cdef list memory = []
    if reset is not None:
        # A copy, which nobody changes during the call.
        f.reset = booleans(reset, "reset", T, B)
        reset = reset.copy()
        memory.append(reset)
        f.reset = booleans(reset, "reset", T, B)
        f.reset_t, f.reset_b = reset.strides
    f.rows = new_rows(T, B, spans, memory)
    cdef int threads = threads_for(w, &f.rows, reset is not None, &f.by_blocks)
    cdef Hats x_hats, h_hats
    if keep:
        tape = Tape()
        tape.reset = reset
        tape.allocate(packed, f.rows, memory)
        f.xs, f.z, f.z_rows, f.tape_h = tape.x.data, tape.z.data, f.rows.N, tape.h.data
        if w.layout.has_c:
            f.tape_c = tape.c.data
        x_hats, h_hats = tape.x_hats, tape.h_hats
    else:
        f.z_rows = f.chunk * B
        f.z = scratch(memory, product_of(blocks, f.z_rows, w.size))
        if spans is not None:
            f.xs = scratch(memory, product_of(f.z_rows, w.I))
        if w.gain_x is not NULL:
            x_hats, h_hats = Hats(packed, f.z_rows), Hats(packed, B)
    if w.gain_x is not NULL:
        f.x_norm, f.h_norm = x_hats.norm(w, w.gain_x), h_hats.norm(w, w.gain_h)
    f.h_row = parts(w.P, LINE) * LINE
    f.h[0] = f.h[1] = scratch(memory, product_of(B, f.h_row))
    if f.by_blocks:
        f.h[1] = scratch(memory, product_of(B, f.h_row))
    if w.projects:
        f.out = scratch(memory, product_of(B, w.H))
        f.projected = scratch(memory, product_of(w.r.blocks, B, VL))
    if w.layout.has_c:
        f.c = scratch(memory, product_of(blocks, B, VL))
    if w.layout.n.count:
        f.rh = scratch(memory, product_of(B, w.H))
    if w.norm_c is not NULL:
        f.c_hat = scratch(memory, product_of(blocks, B, VL))
    cdef bint short = multiply_adds(w, f.rows.N) < HOLDS_GIL
    pins = None if short else pin_all((x, y, *state, *state_n))
    # Nothing that runs Python comes after these: what is checked here is what is used.
    f.x, f.x_t, f.x_b = sequence(x, "x", T, B, w.I, IN), stride(x, 0), stride(x, 1)
    if y is not None:
        f.y, f.y_t, f.y_b = sequence(y, "y", T, B, w.P, OUT), stride(y, 0), stride(y, 1)
    f.h_n = state_of(w, state_n, "state_n", 0, B, OUT, False)
    cdef const real *h_0 = state_of(w, state, "state", 0, B, IN, True)
    cdef const real *c_0 = NULL
    if w.layout.has_c:
        f.c_n = state_of(w, state_n, "state_n", 1, B, OUT, False)
        c_0 = state_of(w, state, "state", 1, B, IN, True)
    if short:
        run_forward(&f, threads, h_0, c_0)
    else:
        with nogil:
            run_forward(&f, threads, h_0, c_0)
    return tape


cdef void run_forward(
    Forward *f, int threads, const real *h_0, const real *c_0
) noexcept nogil:
    cdef const Weights *w = f.w
    cdef ptrdiff_t b
    memset(f.h[0], 0, f.rows.B * f.h_row * sizeof(real))
    if h_0 is not NULL:
        for b in range(f.rows.B):
            vcopy(f.h[0] + b * f.h_row, h_0 + row(&f.rows, b) * w.P, w.P)
    if f.keep and w.layout.z_is_h:
        for b in range(f.rows.B):
            vcopy(f.tape_h + b * w.P, f.h[0] + b * f.h_row, w.P)
    if w.layout.has_c:
        block_rows(&f.rows, f.c, c_0, w.H)
    run(threads, forward_share, f, f.by_blocks, &f.others)
