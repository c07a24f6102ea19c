# The scan back over time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memset
from norm cimport Norm, normalise_back
from panels cimport (
    Panels, accumulate, multiply, parts, share, share_blocks, some_panels, vectors,
)
from step cimport StepBack, meet
from vec cimport (
    MAX_ROWS, VL, WIDEST, float_mode, flush_subnormals, product, real, restore_mode, vcopy, vf,
    vfirst, vload, vload_first, vset, vstore,
)

cdef enum:
    # Rows of a chunk of BPTT: enough to pay for loading and storing the weight gradients.
    CHUNK_ROWS = 256


cdef struct Sums:
    # Sums of weight gradients, laid out as the weights.
    Panels x, h, n, r
    real *bias              # (blocks, size)
    real *gain_x            # (blocks, size)
    real *gain_h            # (blocks, size)
    real *peephole          # (blocks, 3 * VL)
    real *norm_c            # (blocks, 2 * VL)


cdef class Gradients:
    """Sums of weight gradients, to which each `backward` adds."""

    cdef Packed packed
    cdef Sums sums
    cdef list buffers

    def __cinit__(self, Packed packed not None):
        cdef Weights *w = &packed.w
        cdef Sums *sums = &self.sums
        self.packed, self.buffers = packed, []
        sums.x, sums.h = self._like(w.x), self._like(w.h)
        sums.n, sums.r = self._like(w.n), self._like(w.r)
        sums.bias = self._zeros(product_of(w.blocks, w.size))
        if w.gain_x is not NULL:
            sums.gain_x = self._zeros(product_of(w.blocks, w.size))
            sums.gain_h = self._zeros(product_of(w.blocks, w.size))
        if w.peephole is not NULL:
            sums.peephole = self._zeros(product_of(w.blocks, 3, VL))
        if w.norm_c is not NULL:
            sums.norm_c = self._zeros(product_of(w.blocks, 2, VL))

    cdef real *_zeros(self, ptrdiff_t count) except NULL:
        cdef Buffer buffer = zeros(count)
        self.buffers.append(buffer)
        return buffer.data

    cdef Panels _like(self, Panels w):
        w.w = self._zeros(product_of(w.K, w.blocks, w.gates, VL))
        return w

    def arrays(self):
        """The sums in new arrays, in the weights' order, shapes and layouts."""
        cdef Weights *w = &self.packed.w
        cdef Sums *sums = &self.sums
        cdef list grads = [None if a is None else new_like(a) for a in self.packed.copies]
        cdef dict named = dict(zip(self.packed.names, grads))
        unpack(&sums.x, &w.layout.x, data(named["weight_ih"]), w.H)
        unpack(&sums.h, &w.layout.h, data(named["weight_hh"]), w.H)
        unpack(&sums.n, &w.layout.n, data(named["weight_hh"]), w.H)
        if w.projects:
            unpack(&sums.r, &OUTPUT, data(named["weight_hr"]), w.P)
        unpack_slots(w, sums.bias, &w.layout.x, named.get("bias_ih"))
        unpack_slots(w, sums.bias, &w.layout.h, named.get("bias_hh"))
        unpack_slots(w, sums.bias, &w.layout.n, named.get("bias_hh"))
        if w.gain_x is not NULL:
            unpack_slots(w, sums.gain_x, &w.layout.x, named["gain_ih"])
            unpack_slots(w, sums.gain_h, &w.layout.h, named["gain_hh"])
            unpack_slots(w, sums.gain_h, &w.layout.n, named["gain_hh"])
        if w.peephole is not NULL:
            take_vectors(sums.peephole, PEEPHOLES, named, w.H)
        if w.norm_c is not NULL:
            take_vectors(sums.norm_c, STATE_NORM, named, w.H)
        return grads


cdef inline object new_like(cnp.ndarray array):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), NPY_REAL, 0)


cdef void unpack_slots(const Weights *w, const real *sums, const Gates *gates, vectors):
    """The slots of some gates to (G*H,), if that is not None."""
    cdef ptrdiff_t gate
    if vectors is None:
        return
    for gate in range(gates.count):
        take_vector(
            sums, w.layout.slots, gates.first + gate, w.lanes,
            data(vectors) + gates.index[gate] * w.H, w.H,
        )


cdef void take_vectors(const real *sums, names, dict named, ptrdiff_t H):
    """The slots of vectors (H,), those that are there."""
    for slot, name in enumerate(names):
        if named.get(name) is not None:
            take_vector(sums, len(names), slot, VL, data(named[name]), H)


def segment_steps(B, least):
    """Steps after which gradients may be summed apart: see ``_reference.scan.segment_steps``."""
    for value, name in ((B, "B"), (least, "least")):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
    # Python's integers: as large a number of steps as anybody likes.
    chunk = max(1, CHUNK_ROWS // B)
    return -(-least // chunk) * chunk


cdef inline ptrdiff_t chunk_steps(ptrdiff_t B) noexcept:
    """Steps whose weight gradients are summed together, counted from the first step."""
    return max(1, CHUNK_ROWS // B)


cdef inline void add_vector_to(real *sum, vf v) noexcept nogil:
    vstore(sum, vload(sum) + v)


cdef void sum_rows(
    real *sums, ptrdiff_t blocks, ptrdiff_t vectors, ptrdiff_t rows,
    const real *a, ptrdiff_t a_panel, const real *b, ptrdiff_t b_panel,
) noexcept nogil:
    """sums += the sum over rows of a, or of a b unless that is NULL."""
    cdef ptrdiff_t block, v, row, at
    cdef vf total, term
    for block in range(blocks):
        for v in range(vectors):
            total = vset(0)
            for row in range(rows):
                at = (row * vectors + v) * VL
                term = vload(a + block * a_panel + at)
                if b is not NULL:
                    term = term * vload(b + block * b_panel + at)
                total = total + term
            add_vector_to(sums + (block * vectors + v) * VL, total)


cdef void sum_peepholes(
    real *sums, ptrdiff_t blocks, ptrdiff_t rows, const real *dz, ptrdiff_t dz_panel,
    const real *z, ptrdiff_t z_panel, const real *c_prev, ptrdiff_t c_panel, ptrdiff_t lanes,
) noexcept nogil:
    """Gradients of an LSTM's peepholes: i and f saw the old cell state, o the new one."""
    cdef ptrdiff_t block, b, v
    cdef const real *d
    cdef const real *gates
    cdef vf c, dwi, dwf, dwo
    for block in range(blocks):
        dwi = dwf = dwo = vset(0)
        v = VL if block < blocks - 1 else lanes
        for b in range(rows):
            d = dz + block * dz_panel + b * 4 * VL
            gates = z + block * z_panel + b * 4 * VL
            c = vload(c_prev + block * c_panel + b * VL)
            dwi = dwi + vload(d) * c
            dwf = dwf + vload(d + v) * c
            c = vload(gates + v) * c + vload(gates) * vload(gates + 2 * v)
            dwo = dwo + vload(d + 3 * v) * c
        add_vector_to(sums + block * 3 * VL, dwi)
        add_vector_to(sums + block * 3 * VL + VL, dwf)
        add_vector_to(sums + block * 3 * VL + 2 * VL, dwo)


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
    const Weights *w, StepBack *s, real *dr, ptrdiff_t dr_panel, real *d_out, const real *zero
) noexcept nogil:
    """dr = dh + dy, kept for the projection's own gradient; d_out = dr W_hr."""
    cdef ptrdiff_t u, b
    cdef vf d
    cdef product p
    for u in range(w.r.blocks):
        for b in range(s.B):
            d = vload(s.dh + u * s.d_panel + b * VL)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, w.P - u * VL)
            vstore(dr + u * dr_panel + b * VL, vfirst(d, w.P - u * VL))
    p.a, p.a_row, p.a_k, p.a_segment, p.a_rest = dr, VL, 1, dr_panel, 0
    p.K, p.segment = w.P, VL
    p.init, p.init_row = zero, 0
    p.c, p.c_row = d_out, VL
    multiply(&w.r_back, s.B, &p, 0, s.d_panel)
    s.dy = NULL


cdef struct Backward:
    # All that the threads of one backward share. Panels count from the first row of a chunk.
    const Weights *w
    Sums *sums
    Rows rows
    ptrdiff_t chunk         # steps whose weight gradients are summed together
    bint by_blocks          # threads share each step's blocks; else each has rows of its own
    meeting others
    const real *tape_x
    const real *tape_h
    const real *tape_c
    const real *tape_z
    const real *dy          # or NULL
    ptrdiff_t dy_t
    ptrdiff_t dy_b
    real *dx                # or NULL
    ptrdiff_t dx_t
    ptrdiff_t dx_b
    real *dh_0
    real *dc_0
    const char *reset       # or NULL
    ptrdiff_t reset_t
    ptrdiff_t reset_b
    real *dz                # (blocks, chunk * B, size)
    real *dzh               # the same of the product with h, and with x: with layer normalisation
    real *dzx               # apart from dz
    real *dxs               # (I blocks, chunk * B, VL)
    real *dys               # (B, P)
    real *dh                # (P blocks, B, VL)
    real *dc                # (blocks, B, VL)
    real *drh               # (blocks, B, VL)
    real *rh                # (chunk * B, H)
    real *hs                # old states, (chunk * B, P), or NULL where the tape has them
    real *dr                # with a projection: gradient of its outputs (P blocks, chunk * B, VL),
    real *d_out             # of its inputs (blocks, B, VL),
    real *out               # and its inputs anew (chunk * B, H)
    real *c_hat             # (blocks, chunk * B, VL)
    real *d_seen            # (blocks, chunk * B, VL)
    real *dc_hat            # (blocks, B, VL)
    const real *zero        # VL zeros
    Norm x_norm
    Norm h_norm


cdef void old_state(
    const Backward *f, ptrdiff_t t, ptrdiff_t b, ptrdiff_t u0, ptrdiff_t u1, real *h
) noexcept nogil:
    """The state (P,) of our row b before step t, those units of some blocks, out of z."""
    cdef const Rows *rows = &f.rows
    cdef ptrdiff_t first = u0 * VL, n = min(u1 * VL, f.w.P) - first
    cdef ptrdiff_t panel = rows.N * VL
    if f.reset is not NULL and f.reset[t * f.reset_t + row(rows, b) * f.reset_b]:
        memset(h + first, 0, n * sizeof(real))
    elif t == 0 or b >= count_rows(rows, t - 1):
        vcopy(h + first, f.tape_h + b * f.w.P + first, n)
    else:
        unblock_row(
            h + first, f.tape_z + u0 * panel + (offset(rows, t - 1) + b) * VL, panel, n
        )


cdef void backward_share(int index, int count, void *what) noexcept nogil:
    """What one of `count` threads does."""
    cdef Backward *f = <Backward *>what
    cdef const Weights *w = f.w
    cdef const Rows *rows = &f.rows
    cdef ptrdiff_t T = rows.T, B = rows.B, H = w.H, P = w.P, size = w.size
    cdef ptrdiff_t P_blocks = parts(P, VL), most = f.chunk * B, N = rows.N
    cdef bint has_c = w.layout.has_c, normed = w.gain_x is not NULL
    # My rows, and my blocks.
    cdef ptrdiff_t b0 = 0, b1 = B, u0 = 0, u1 = w.blocks, u_first = 0
    if f.by_blocks:
        u0, u1 = share_blocks(w.blocks, index, count), share_blocks(w.blocks, index + 1, count)
        u_first = u0 * VL
    else:
        b0, b1 = share_rows(rows, index, count), share_rows(rows, index + 1, count)
    cdef Panels w_h = some_panels(&w.h_back, u0, u1) if f.by_blocks else w.h_back
    cdef ptrdiff_t i, t, t0, n, b, at, mine, place, u
    cdef Norm x_norm
    cdef float_mode mode = flush_subnormals()
    cdef StepBack s
    memset(&s, 0, sizeof(StepBack))
    s.H, s.blocks, s.slots, s.lanes = H - u_first, u1 - u0, w.layout.slots, w.lanes
    s.z_panel, s.dz_panel, s.c_panel, s.d_panel = N * size, most * size, N * VL, B * VL
    s.h_row = P
    s.dh, s.dh_blocks = f.dh + (u0 * B + b0) * VL, u1 - u0 if f.by_blocks else P_blocks
    s.d_out = f.d_out + (u0 * B + b0) * VL
    s.w_hh, s.w_hn = &w_h, &w.n_back
    if w.peephole is not NULL:
        s.peephole = w.peephole + u0 * 3 * VL
    s.norm_c = w.norm_c
    s.threads, s.others = count if f.by_blocks else 1, &f.others
    if has_c:
        s.dc = f.dc + (u0 * B + b0) * VL
    if w.layout.n.count:
        s.drh = f.drh + b0 * VL
    if w.norm_c is not NULL:
        s.dc_hat, s.hat_panel = f.dc_hat + b0 * VL, most * VL
    for i in range(parts(T, f.chunk) - 1, -1, -1):
        t0 = i * f.chunk
        n = min(f.chunk, T - t0)
        at = offset(rows, t0)
        for t in range(t0 + n - 1, t0 - 1, -1):
            mine = min(b1, count_rows(rows, t)) - b0
            if mine <= 0:
                continue
            place = offset(rows, t) + b0
            s.B = mine
            if f.hs is NULL:
                s.h_prev = f.tape_h + place * P + u_first
            s.z = f.tape_z + u0 * s.z_panel + place * size
            if has_c:
                s.c_prev = f.tape_c + u0 * s.c_panel + place * VL
            if f.dy is not NULL:
                s.dy, s.dy_row = f.dy + t * f.dy_t + b0 * f.dy_b + u_first, f.dy_b
                if rows.order is not NULL:
                    for b in range(b0, b0 + mine):
                        vcopy(f.dys + b * P, f.dy + t * f.dy_t + row(rows, b) * f.dy_b, P)
                    s.dy, s.dy_row = f.dys + b0 * P, P
            place -= at
            s.dz = f.dz + u0 * s.dz_panel + place * size
            s.dz_all = f.dz + place * size
            if normed:
                s.dzh = f.dzh + place * size
                s.norm = norm_at(&f.h_norm, at + place)
            if w.norm_c is not NULL:
                s.c_hat, s.d_seen = f.c_hat + place * VL, f.d_seen + place * VL
            if w.projects:
                project_back(w, &s, f.dr + place * VL, most * VL, f.d_out + b0 * VL, f.zero)
                s.out = f.out + place * H
            w.layout.backward(&s)
            if normed:
                x_norm = norm_at(&f.x_norm, at + place)
                normalise_back(
                    &x_norm, w.layout.x.first, w.layout.x.count, mine, w.blocks, H,
                    s.dz, f.dzx + place * size, s.dz_panel,
                )
            if w.layout.n.count:
                reset_states(f.rh + place * H, s.h_prev, s.z, s.z_panel, s.slots, mine, H)
            if f.hs is not NULL:
                for b in range(b0, b0 + mine):
                    old_state(f, t, b, u0, u1, f.hs + (place - b0 + b) * P)
            if f.reset is not NULL:
                reset_rows(
                    rows, b0, b0 + mine, f.reset + t * f.reset_t, f.reset_b, f.dh, B * VL,
                    P_blocks, VL, VL,
                )
                if has_c:
                    reset_rows(
                        rows, b0, b0 + mine, f.reset + t * f.reset_t, f.reset_b, f.dc, B * VL,
                        w.blocks, VL, VL,
                    )
        if count > 1:
            meet(&f.others, count)
        sum_chunk(f, at, offset(rows, t0 + n) - at, index, count)
        if f.dx is not NULL:
            input_gradients(f, t0, n, index, count)
        if count > 1 and i > 0:
            meet(&f.others, count)
    for b in range(b0, b1):
        unblock_row(
            f.dh_0 + row(rows, b) * P + u_first, f.dh + (u0 * B + b) * VL, B * VL,
            min(P, u1 * VL if f.by_blocks else P) - u_first,
        )
        if has_c:
            unblock_row(
                f.dc_0 + row(rows, b) * H + u_first, f.dc + (u0 * B + b) * VL, B * VL,
                min(H, u1 * VL) - u_first,
            )
    restore_mode(mode)


cdef struct Product:
    # One that has a weight gradient: dw += a^T dz.
    const Panels *dw
    const real *a
    ptrdiff_t a_row
    const real *dz
    ptrdiff_t dz_row
    ptrdiff_t dz_panel


cdef inline ptrdiff_t cut(const Panels *dw, ptrdiff_t work) noexcept nogil:
    """Rows of dw, whole tiles of them, that come to so much work."""
    cdef ptrdiff_t k = work // vectors(dw)
    return max(0, k // MAX_ROWS[WIDEST] * MAX_ROWS[WIDEST]) if k < dw.K else dw.K


cdef void sum_chunk(
    Backward *f, ptrdiff_t at, ptrdiff_t rows, int index, int count
) noexcept nogil:
    """Add the weight gradients of some rows from place `at` on: thread `index` has its share."""
    cdef const Weights *w = f.w
    cdef const Sums *sums = f.sums
    cdef ptrdiff_t size = w.size, N = f.rows.N, slots = w.layout.slots, u, i, work = 0, before = 0
    cdef ptrdiff_t u0 = share(w.blocks, index, count), u1 = share(w.blocks, index + 1, count)
    cdef ptrdiff_t most = f.chunk * f.rows.B, panel = most * size, blocks = u1 - u0
    cdef const real *dz = f.dz + u0 * panel
    cdef const real *h = f.tape_h + at * w.P if f.hs is NULL else f.hs
    cdef Product[4] products
    cdef const Panels *dw
    if rows == 0:
        return
    products[0] = Product(&sums.x, f.tape_x + at * w.I, w.I, f.dzx, size, panel)
    products[1] = Product(&sums.h, h, w.P, f.dzh, size, panel)
    products[2] = Product(&sums.n, f.rh, w.H, f.dzh, size, panel)
    products[3] = Product(&sums.r, f.out, w.H, f.dr, VL, most * VL)
    for i in range(4):
        work += products[i].dw.K * vectors(products[i].dw)
    for i in range(4):
        dw = products[i].dw
        if vectors(dw) == 0:
            continue
        accumulate(
            dw, cut(dw, share(work, index, count) - before),
            cut(dw, share(work, index + 1, count) - before), rows, products[i].a,
            products[i].a_row, products[i].dz, products[i].dz_row, products[i].dz_panel, f.zero,
        )
        before += dw.K * vectors(dw)
    sum_rows(sums.bias + u0 * size, blocks, slots, rows, dz, panel, NULL, 0)
    if w.gain_x is not NULL:
        # What comes of slots without a product is not used.
        sum_rows(
            sums.gain_x + u0 * size, blocks, slots, rows, dz, panel,
            f.x_norm.hat + u0 * f.x_norm.hat_panel + at * size, f.x_norm.hat_panel,
        )
        sum_rows(
            sums.gain_h + u0 * size, blocks, slots, rows, dz, panel,
            f.h_norm.hat + u0 * f.h_norm.hat_panel + at * size, f.h_norm.hat_panel,
        )
    if w.peephole is not NULL:
        sum_peepholes(
            sums.peephole + u0 * 3 * VL, blocks, rows, dz, panel,
            f.tape_z + u0 * N * size + at * size, N * size,
            f.tape_c + u0 * N * VL + at * VL, N * VL, w.lanes if u1 == w.blocks else VL,
        )
    if w.norm_c is not NULL:
        for u in range(u0, u1):
            sum_rows(
                sums.norm_c + u * 2 * VL, 1, 1, rows, f.d_seen + u * most * VL, 0,
                f.c_hat + u * most * VL, 0,
            )
            sum_rows(
                sums.norm_c + u * 2 * VL + VL, 1, 1, rows, f.d_seen + u * most * VL, 0, NULL, 0
            )


cdef void input_gradients(
    Backward *f, ptrdiff_t t0, ptrdiff_t n, int index, int count
) noexcept nogil:
    """dx of n steps from t0 on: thread `index` computes its share of their rows."""
    cdef const Weights *w = f.w
    cdef const Rows *rows = &f.rows
    cdef ptrdiff_t t, b, at = offset(rows, t0), total = offset(rows, t0 + n) - at
    cdef ptrdiff_t begin = at + share(total, index, count)
    cdef ptrdiff_t end = at + share(total, index + 1, count), first, last
    cdef ptrdiff_t panel = f.chunk * rows.B * w.size, dx_panel = f.chunk * rows.B * VL
    cdef product p
    if end > begin:
        p.a, p.a_row, p.a_k = f.dzx + (begin - at) * w.size + w.layout.x.first * VL, w.size, 1
        p.a_segment, p.segment, p.K = panel, w.layout.x.count * VL, w.x_back.K
        p.a_rest = w.layout.x.first * (w.lanes - VL)
        p.init, p.init_row = f.zero, 0
        p.c, p.c_row = f.dxs + (begin - at) * VL, VL
        multiply(&w.x_back, end - begin, &p, 0, dx_panel)
    for t in range(t0, t0 + n):
        first = max(begin - offset(rows, t), 0)
        last = min(end - offset(rows, t), count_rows(rows, t))
        for b in range(first, last):
            unblock_row(
                f.dx + t * f.dx_t + row(rows, b) * f.dx_b,
                f.dxs + (offset(rows, t) - at + b) * VL, dx_panel, w.I,
            )
        if index == 0:
            for b in range(count_rows(rows, t), rows.B):
                memset(f.dx + t * f.dx_t + row(rows, b) * f.dx_b, 0, w.I * sizeof(real))


def backward(Tape tape not None, dy, dstate_n, dx, dstate, Gradients gradients not None):
    """Backpropagation through time: see ``_reference.scan.backward``."""
    cdef Packed packed = tape.packed
    if packed is None:
        raise ValueError("tape: expected one that `forward` made")
    if gradients.packed is not packed:
        raise ValueError("gradients: expected those of the weights with which the tape was made")
    cdef const Weights *w = &packed.w
    cdef ptrdiff_t T = tape.rows.T, B = tape.rows.B, blocks = w.blocks, most
    cdef Backward f
    dstate_n = tuple_of(dstate_n, "dstate_n", 1 + w.layout.has_c)
    dstate = tuple_of(dstate, "dstate", 1 + w.layout.has_c)
    cdef list memory = []
    packed.need_back(dx is not None)
    memset(&f, 0, sizeof(Backward))
    f.w, f.sums, f.rows = w, &gradients.sums, tape.rows
    f.chunk = max(1, min(chunk_steps(B), T))
    most = f.chunk * B
    cdef int threads = threads_for(w, &f.rows, tape.reset is not None, &f.by_blocks)
    f.tape_x, f.tape_h, f.tape_z = tape.x.data, tape.h.data, tape.z.data
    if dx is not None:
        f.dxs = scratch(memory, product_of(parts(w.I, VL), most, VL))
    if tape.reset is not None:
        f.reset = <const char *>cnp.PyArray_DATA(<cnp.ndarray>tape.reset)
        f.reset_t, f.reset_b = tape.reset.strides
    f.dz = f.dzh = f.dzx = scratch(memory, product_of(blocks, most, w.size))
    f.dys = scratch(memory, product_of(B, w.P))
    f.dh = f.d_out = scratch(memory, product_of(parts(w.P, VL), B, VL))
    f.zero = w.zero
    if w.layout.z_is_h:
        f.hs = scratch(memory, product_of(most, w.P))
    if w.layout.has_c:
        f.tape_c = tape.c.data
        f.dc = scratch(memory, product_of(blocks, B, VL))
    if w.layout.n.count:
        f.drh = scratch(memory, product_of(blocks, B, VL))
        f.rh = scratch(memory, product_of(most, w.H))
    if w.projects:
        f.dr = scratch(memory, product_of(parts(w.P, VL), most, VL))
        f.d_out = scratch(memory, product_of(blocks, B, VL))
        f.out = scratch(memory, product_of(most, w.H))
    if w.gain_x is not NULL:
        f.dzh = scratch(memory, product_of(blocks, most, w.size))
        f.dzx = scratch(memory, product_of(blocks, most, w.size))
        f.x_norm, f.h_norm = tape.x_hats.norm(w, w.gain_x), tape.h_hats.norm(w, w.gain_h)
    if w.norm_c is not NULL:
        f.c_hat = scratch(memory, product_of(blocks, most, VL))
        f.d_seen = scratch(memory, product_of(blocks, most, VL))
        f.dc_hat = scratch(memory, product_of(blocks, B, VL))
    cdef bint short = multiply_adds(w, f.rows.N) < HOLDS_GIL
    pins = None if short else pin_all((dy, dx, *dstate_n, *dstate))
    # Nothing that runs Python comes after these: what is checked here is what is used.
    if dy is not None:
        f.dy, f.dy_t, f.dy_b = sequence(dy, "dy", T, B, w.P, IN), stride(dy, 0), stride(dy, 1)
    if dx is not None:
        f.dx, f.dx_t, f.dx_b = sequence(dx, "dx", T, B, w.I, OUT), stride(dx, 0), stride(dx, 1)
    f.dh_0 = state_of(w, dstate, "dstate", 0, B, OUT, False)
    cdef const real *dh_n = state_of(w, dstate_n, "dstate_n", 0, B, IN, True)
    cdef const real *dc_n = NULL
    if w.layout.has_c:
        f.dc_0 = state_of(w, dstate, "dstate", 1, B, OUT, False)
        dc_n = state_of(w, dstate_n, "dstate_n", 1, B, IN, True)
    if short:
        run_backward(&f, threads, dh_n, dc_n)
    else:
        with nogil:
            run_backward(&f, threads, dh_n, dc_n)


cdef void run_backward(
    Backward *f, int threads, const real *dh_n, const real *dc_n
) noexcept nogil:
    block_rows(&f.rows, f.dh, dh_n, f.w.P)
    if f.w.layout.has_c:
        block_rows(&f.rows, f.dc, dc_n, f.w.H)
    run(threads, backward_share, f, f.by_blocks, &f.others)
