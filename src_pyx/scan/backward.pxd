"""The scan back over time and the sums of weight gradients, one thread's share."""

from libc.string cimport memset
from norm cimport Norm, normalise_back
from packing cimport Gates, ScanSums, Weights, norm_at
from panels cimport (
    Panels, WeightProduct, accumulate, ceil_div, multiply, some_panels, split_blocks, split_point,
    vectors,
)
from projection cimport project_back
from schedule cimport (
    Resets, Schedule, block_rows, caller_row, is_reset, reset_rows, split_rows, step_offset,
    step_rows, unblock_row,
)
from step cimport (
    MAX_STATES, MAX_VECTORS, ChunkSums, StepBack, add_vector_to, barrier, barrier_wait, slot_lanes,
    sum_rows,
)
from vec cimport (
    REALS, VL, WIDEST, float_mode, flush_subnormals, gemm_args, narrow_row, real, restore_mode,
    vcopy, vf, vfirst, vfma, vload, vload_first, vset, vstore, vstore_first,
)


cdef enum:
    SUMS = 4    # products with weight gradients
    # What is done in a round: the steps, the operands of sums in a narrow format, the sums and dx.
    RUN_STEPS = 1
    RUN_PAIRS = 2
    RUN_SUMS = 4
    RUN_ALL = 7

cdef struct Backward:
    # A backward call, shared by its threads. Arrays of chunk * B rows start at a chunk's first row.
    const Weights *w
    ScanSums *sums          # or NULL
    Schedule schedule
    ptrdiff_t chunk         # steps whose weight gradients are summed together
    ptrdiff_t begin         # this round's steps,
    ptrdiff_t end
    int doing               # what of them,
    int part                # and which of the parts of the rows, or of the sums
    int parts
    bint by_blocks          # threads split each step's blocks; else the rows
    barrier others
    const real *tape_x
    const real *tape_h
    const real *tape_states[MAX_STATES]
    const real *tape_z
    const real *dy          # or NULL
    ptrdiff_t dy_t
    ptrdiff_t dy_b
    real *dx                # or NULL
    ptrdiff_t dx_t
    ptrdiff_t dx_b
    const real *dstate_n[MAX_STATES]    # (B, P) for h, (B, H) for others, or NULL for zeros
    real *dstate_0[MAX_STATES]
    Resets resets
    real *dz                # (blocks, chunk * B, size)
    real *dzh               # with layer normalisation: gradients of the products with h
    real *dzx               # and with x, laid out as dz
    real *dxs               # (I blocks, chunk * B, VL)
    real *dys               # (B, P)
    real *dh                # (P blocks, B, VL)
    real *dstates[MAX_STATES]           # from 1 on: (blocks, B, VL)
    real *operand           # operand of the late product (chunk * B, H)
    real *hs                # old h (chunk * B, P), or NULL if the tape has them
    real *dr                # with a projection: gradient of its output (P blocks, chunk * B, VL),
    real *d_out             # of its input (blocks, B, VL),
    real *out               # and its input, recomputed (chunk * B, H)
    real *scratch           # the cell's: (blocks, B, VL) each
    real *kept              # the cell's: (blocks, chunk * B, VL) each
    real *narrow            # rows of the products of a step in the weights' format, or NULL,
    ptrdiff_t narrow_row    # by blocks for each thread;
    real *narrow_x          # those of dzx (chunk * B, narrow_row of its K);
    WeightProduct narrow_sums[SUMS]     # and the operands of the sums, in pairs of rows
    Norm x_norm
    Norm h_norm

cdef struct BackwardShare:
    # The share of one of `count` threads: rows b0 to b1, blocks u0 to u1.
    Backward *f
    int index
    int count
    ptrdiff_t b0
    ptrdiff_t b1
    ptrdiff_t u0
    ptrdiff_t u1
    Panels w_h
    StepBack s


cdef inline void enter_backward(
    BackwardShare *mine, Backward *f, int index, int count
) noexcept nogil:
    """Determine the thread's share, and set up its pointers."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t B = f.schedule.B, N = f.schedule.N, most = f.chunk * B, u0 = 0, u1 = w.blocks, i
    cdef StepBack *s = &mine.s
    memset(mine, 0, sizeof(BackwardShare))
    mine.f, mine.index, mine.count, mine.b1 = f, index, count, B
    if f.by_blocks:
        u0, u1 = split_blocks(w.blocks, index, count), split_blocks(w.blocks, index + 1, count)
    else:
        mine.b0 = split_rows(&f.schedule, index, count)
        mine.b1 = split_rows(&f.schedule, index + 1, count)
    mine.u0, mine.u1 = u0, u1
    mine.w_h = some_panels(&w.h_back, u0, u1) if f.by_blocks else w.h_back
    s.H, s.blocks, s.slots, s.lanes = w.H - u0 * VL, u1 - u0, w.layout.slots, w.lanes
    s.z_panel, s.dz_panel = N * w.size, most * w.size
    s.state_panel, s.d_panel = N * VL, B * VL
    s.h_row = w.P
    s.dh = f.dh + (u0 * B + mine.b0) * VL
    s.dh_blocks = u1 - u0 if f.by_blocks else ceil_div(w.P, VL)
    s.d_out = f.d_out + (u0 * B + mine.b0) * VL
    s.w_hh, s.w_late, s.gating = &mine.w_h, &w.late_back, &w.gating
    if w.u is not NULL:
        s.u = w.u + u0 * w.size
    for i in range(MAX_VECTORS):
        if w.vectors[i] is not NULL:
            s.vectors[i] = w.vectors[i] + u0 * w.layout.vectors[i] * VL
    s.threads, s.others = count if f.by_blocks else 1, &f.others
    for i in range(1, w.layout.states):
        s.dstates[i] = f.dstates[i] + (u0 * B + mine.b0) * VL
    s.scratch_size = w.blocks * B * VL
    if f.scratch is not NULL:
        s.scratch = f.scratch + (u0 * B + mine.b0) * VL
    s.kept_size, s.kept_panel = w.blocks * most * VL, most * VL
    if f.narrow is not NULL:
        s.narrow = f.narrow + (index * B if f.by_blocks else mine.b0) * f.narrow_row


cdef inline void enter_step_back(
    BackwardShare *mine, ptrdiff_t t, ptrdiff_t at, ptrdiff_t rows
) noexcept nogil:
    """Set up step t for our first `rows` rows, in a chunk that begins at row `at` of the tape."""
    cdef Backward *f = mine.f
    cdef const Weights *w = f.w
    cdef StepBack *s = &mine.s
    cdef ptrdiff_t on_tape = step_offset(&f.schedule, t) + mine.b0, place = on_tape - at
    cdef ptrdiff_t first = mine.u0 * VL, i, b
    s.B = rows
    if f.hs is NULL:
        s.h_prev = f.tape_h + on_tape * w.P + first
    s.z = f.tape_z + mine.u0 * s.z_panel + on_tape * w.size
    for i in range(1, w.layout.states):
        s.states[i] = f.tape_states[i] + mine.u0 * s.state_panel + on_tape * VL
    if f.dy is not NULL:
        s.dy, s.dy_row = f.dy + t * f.dy_t + mine.b0 * f.dy_b + first, f.dy_b
        if f.schedule.order is not NULL:
            for b in range(mine.b0, mine.b0 + rows):
                vcopy(
                    f.dys + b * w.P, f.dy + t * f.dy_t + caller_row(&f.schedule, b) * f.dy_b, w.P
                )
            s.dy, s.dy_row = f.dys + mine.b0 * w.P, w.P
    s.dz = f.dz + mine.u0 * s.dz_panel + place * w.size
    s.dz_all = f.dz + place * w.size
    if w.gain_x is not NULL:
        s.dzh = f.dzh + place * w.size
        s.norm = norm_at(&f.h_norm, on_tape)
    if f.operand is not NULL:
        s.operand = f.operand + place * w.H
    if f.kept is not NULL:
        s.kept = f.kept + mine.u0 * s.kept_panel + place * VL
    if w.projects:
        project_back(
            w, s, f.dr + place * VL, f.chunk * f.schedule.B * VL, f.d_out + mine.b0 * VL
        )
        s.out = f.out + place * w.H


cdef inline void leave_step_back(
    BackwardShare *mine, ptrdiff_t t, ptrdiff_t at, ptrdiff_t rows
) noexcept nogil:
    """Store these rows' inputs of the sums, and zero gradients of states that were reset."""
    cdef Backward *f = mine.f
    cdef const Weights *w = f.w
    cdef ptrdiff_t b0 = mine.b0, place = step_offset(&f.schedule, t) + b0 - at, i, b
    cdef Norm x_norm
    if w.gain_x is not NULL:
        x_norm = norm_at(&f.x_norm, at + place)
        normalise_back(
            &x_norm, w.layout.x.first, w.layout.x.count, rows, w.blocks, w.H,
            mine.s.dz, f.dzx + place * w.size, mine.s.dz_panel,
        )
    if f.hs is not NULL:
        for b in range(b0, b0 + rows):
            take_old_state(mine, t, b, f.hs + (place - b0 + b) * w.P)
    if f.resets.at is not NULL:
        reset_rows(
            &f.resets, &f.schedule, t, b0, b0 + rows, f.dh, f.schedule.B * VL,
            ceil_div(w.P, VL), VL, VL,
        )
        for i in range(1, w.layout.states):
            reset_rows(
                &f.resets, &f.schedule, t, b0, b0 + rows, f.dstates[i], f.schedule.B * VL,
                w.blocks, VL, VL,
            )


cdef inline void take_old_state(
    const BackwardShare *mine, ptrdiff_t t, ptrdiff_t b, real *h
) noexcept nogil:
    """Copy this share's units of row b's old state (P,) before step t, from the tape's z."""
    cdef const Backward *f = mine.f
    cdef const Schedule *schedule = &f.schedule
    cdef ptrdiff_t first = mine.u0 * VL, n = min(mine.u1 * VL, f.w.P) - first
    cdef ptrdiff_t panel = schedule.N * VL
    if is_reset(&f.resets, schedule, t, b):
        memset(h + first, 0, n * sizeof(real))
    elif t == 0 or b >= step_rows(schedule, t - 1):
        vcopy(h + first, f.tape_h + b * f.w.P + first, n)
    else:
        unblock_row(
            h + first, f.tape_z + mine.u0 * panel + (step_offset(schedule, t - 1) + b) * VL, panel,
            n,
        )


cdef inline void leave_backward(BackwardShare *mine) noexcept nogil:
    """Write the gradients of the initial states."""
    cdef Backward *f = mine.f
    cdef const Weights *w = f.w
    cdef ptrdiff_t b, i, row, B = f.schedule.B, first = mine.u0 * VL
    for b in range(mine.b0, mine.b1):
        row = caller_row(&f.schedule, b)
        unblock_row(
            f.dstate_0[0] + row * w.P + first, f.dh + (mine.u0 * B + b) * VL, B * VL,
            min(w.P, mine.u1 * VL if f.by_blocks else w.P) - first,
        )
        for i in range(1, w.layout.states):
            unblock_row(
                f.dstate_0[i] + row * w.H + first, f.dstates[i] + (mine.u0 * B + b) * VL, B * VL,
                min(w.H, mine.u1 * VL) - first,
            )


cdef inline void backward_share(int index, int count, void *what) noexcept nogil:
    """Run the share of one of `count` threads."""
    cdef Backward *f = <Backward *>what
    cdef BackwardShare mine
    cdef ptrdiff_t i, t, t0, n, at, rows, steps = f.begin if f.doing & RUN_STEPS else f.end
    cdef float_mode mode = flush_subnormals()
    index, count = f.part * count + index, f.parts * count
    enter_backward(&mine, f, index, count)
    for i in range(ceil_div(f.end, f.chunk) - 1, f.begin // f.chunk - 1, -1):
        t0 = i * f.chunk
        n = min(f.chunk, f.schedule.T - t0)
        at = step_offset(&f.schedule, t0)
        for t in range(min(t0 + n, f.end) - 1, max(t0, steps) - 1, -1):
            rows = min(mine.b1, step_rows(&f.schedule, t)) - mine.b0
            if rows > 0:
                enter_step_back(&mine, t, at, rows)
                f.w.layout.run.backward(&mine.s)
                leave_step_back(&mine, t, at, rows)
        if f.doing == RUN_STEPS:
            continue
        if count > 1 and f.doing == RUN_ALL:
            barrier_wait(&f.others, count)
        if f.sums is not NULL:
            sum_chunk(f, at, step_offset(&f.schedule, t0 + n) - at, index, count)
        if f.dx is not NULL and f.doing & RUN_SUMS:
            input_gradients(f, t0, n, index, count)
        if count > 1 and f.doing == RUN_ALL and t0 > f.begin:
            barrier_wait(&f.others, count)
    if f.doing & RUN_STEPS and f.begin == 0:
        leave_backward(&mine)
    restore_mode(mode)


cdef inline void begin_backward(Backward *f) noexcept nogil:
    """Load the gradients of the final states."""
    cdef ptrdiff_t i
    block_rows(&f.schedule, f.dh, f.dstate_n[0], f.w.P)
    for i in range(1, f.w.layout.states):
        block_rows(&f.schedule, f.dstates[i], f.dstate_n[i], f.w.H)


cdef inline ptrdiff_t cut(const Panels *dw, ptrdiff_t work) noexcept nogil:
    """Return how many rows of dw, in whole tiles, make up `work`."""
    cdef ptrdiff_t k = work // vectors(dw), tile = REALS.max_rows[WIDEST]
    return max(0, k // tile * tile) if k < dw.K else dw.K


cdef inline void sum_chunk(
    Backward *f, ptrdiff_t at, ptrdiff_t rows, int index, int count
) noexcept nogil:
    """Add the weight gradients of the rows from `at` on, the share of thread `index`."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t u0 = split_point(w.blocks, index, count)
    cdef ptrdiff_t u1 = split_point(w.blocks, index + 1, count)
    cdef ptrdiff_t panel = f.chunk * f.schedule.B * w.size
    cdef const real *dz = f.dz + u0 * panel
    cdef const real *h = f.tape_h + at * w.P if f.hs is NULL else f.hs
    if rows == 0:
        return
    sum_products(f, at, rows, h, index, count)
    if f.doing == RUN_PAIRS:
        return
    sum_rows(f.sums.bias + u0 * w.size, u1 - u0, w.layout.slots, rows, dz, panel, NULL, 0)
    if w.u is not NULL:
        sum_elementwise(f, h, rows, u0, u1)
    if w.gain_x is not NULL:
        # Sums of slots without a product are ignored.
        sum_rows(
            f.sums.gain_x + u0 * w.size, u1 - u0, w.layout.slots, rows, dz, panel,
            f.x_norm.hat + u0 * f.x_norm.hat_panel + at * w.size, f.x_norm.hat_panel,
        )
        sum_rows(
            f.sums.gain_h + u0 * w.size, u1 - u0, w.layout.slots, rows, dz, panel,
            f.h_norm.hat + u0 * f.h_norm.hat_panel + at * w.size, f.h_norm.hat_panel,
        )
    if w.layout.run.sum_gradients is not NULL and u1 > u0:
        sum_vectors(f, at, rows, u0, u1)


cdef inline void sum_products(
    Backward *f, ptrdiff_t at, ptrdiff_t rows, const real *h, int index, int count
) noexcept nogil:
    """Sum the gradients of the matrices."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t most = f.chunk * f.schedule.B, panel = most * w.size, i, work = 0, before = 0
    cdef WeightProduct[SUMS] products
    cdef const WeightProduct *p = products
    cdef Gates output
    products[0] = WeightProduct(
        &REALS, &f.sums.x, f.tape_x + at * w.I, w.I, 0, f.dzx, w.size, panel
    )
    products[1] = WeightProduct(&REALS, &f.sums.h, h, w.P, 0, f.dzh, w.size, panel)
    products[2] = WeightProduct(&REALS, &f.sums.late, f.operand, w.H, 0, f.dzh, w.size, panel)
    products[3] = WeightProduct(&REALS, &f.sums.out, f.out, w.H, 0, f.dr, VL, most * VL)
    if f.sums.of_row:
        memset(&output, 0, sizeof(Gates))
        output.count = 1
        outer_product(&products[0], &w.layout.x, w.H, index, count)
        outer_product(&products[1], &w.layout.h, w.H, index, count)
        outer_product(&products[2], &w.layout.late, w.H, index, count)
        outer_product(&products[3], &output, w.P, index, count)
        return
    if f.narrow is not NULL:
        if f.doing & RUN_PAIRS:
            narrow_operands(products, f.narrow_sums, rows, index, count)
        if f.doing == RUN_PAIRS:
            return
        if count > 1 and f.doing == RUN_ALL:
            barrier_wait(&f.others, count)
        p, rows = f.narrow_sums, ceil_div(rows, 2)
    for i in range(SUMS):
        work += products[i].dw.K * vectors(products[i].dw)
    for i in range(SUMS):
        if p[i].dw.K == 0 or vectors(p[i].dw) == 0:
            continue
        accumulate(
            &p[i], cut(p[i].dw, split_point(work, index, count) - before),
            cut(p[i].dw, split_point(work, index + 1, count) - before), rows, f.w.zero,
        )
        before += p[i].dw.K * vectors(p[i].dw)


cdef inline void outer_product(
    const WeightProduct *p, const Gates *gates, ptrdiff_t H, int index, int count
) noexcept nogil:
    """Write the product of one row with its bits in a sum, thread `index`'s share of the blocks."""
    cdef ptrdiff_t K = p.dw.K, whole = K // VL * VL, u, gate, unit, k
    cdef const real *dz
    cdef real *to
    cdef vf d, rest = vload_first(p.a + whole, K - whole), zero = vset(0)
    cdef ptrdiff_t u0 = split_point(p.dw.blocks, index, count)
    cdef ptrdiff_t u1 = split_point(p.dw.blocks, index + 1, count)
    for u in range(u0, u1):
        for gate in range(gates.count if K > 0 else 0):
            dz = p.dz + u * p.dz_panel + (gates.first + gate) * slot_lanes(H - u * VL, p.dw.lanes)
            to = p.dw.w + (gates.index[gate] * H + u * VL) * K
            for unit in range(min(VL, H - u * VL)):
                d = vset(dz[unit])
                for k in range(K // VL):
                    vstore(to + k * VL, vfma(d, vload(p.a + k * VL), zero) + zero)
                if K > whole:
                    vstore_first(to + whole, vfma(d, rest, zero) + zero, K - whole)
                to += K


cdef inline void narrow_operands(
    const WeightProduct *products, const WeightProduct *narrow, ptrdiff_t rows, int index,
    int count,
) noexcept nogil:
    """Write the operands of products in a narrow format, thread `index`'s share of the pairs."""
    cdef ptrdiff_t pairs = ceil_div(rows, 2), i, j, u, last
    cdef const WeightProduct *p
    cdef const WeightProduct *to
    cdef const real *low
    for i in range(SUMS):
        p, to = &products[i], &narrow[i]
        if p.dw.K == 0 or vectors(p.dw) == 0:
            continue
        for j in range(split_point(pairs, index, count), split_point(pairs, index + 1, count)):
            last = 2 * j + 1 == rows
            low = p.a + 2 * j * p.a_row
            to.format.pair_left(
                low, NULL if last else low + p.a_row, p.dw.K, <real *>to.a + j * to.a_row
            )
            # The same gradients may be in several products.
            for u in range(0 if i > 0 and to.dz is narrow[i - 1].dz else p.dw.blocks):
                low = p.dz + u * p.dz_panel + 2 * j * p.dz_row
                to.format.pair_rows(
                    low, NULL if last else low + p.dz_row, p.dz_row,
                    <real *>to.dz + u * to.dz_panel + j * to.dz_row,
                )


cdef inline void sum_elementwise(
    Backward *f, const real *h, ptrdiff_t rows, ptrdiff_t u0, ptrdiff_t u1
) noexcept nogil:
    """Sum the gradients of an elementwise recurrence, dz h, for some blocks."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t size = w.size, panel = f.chunk * f.schedule.B * size, u, slot, b, n, v
    cdef const real *dz
    cdef vf total
    for u in range(u0, u1):
        n = w.H - u * VL
        v = slot_lanes(n, w.lanes)
        for slot in range(w.layout.h.first, w.layout.h.first + w.layout.h.count):
            dz = f.dzh + u * panel + slot * v
            total = vset(0)
            for b in range(rows):
                total = vfma(vload(dz + b * size), vload_first(h + b * w.P + u * VL, n), total)
            add_vector_to(f.sums.u + u * size + slot * v, vfirst(total, n))


cdef inline void sum_vectors(
    Backward *f, ptrdiff_t at, ptrdiff_t rows, ptrdiff_t u0, ptrdiff_t u1
) noexcept nogil:
    """Sum the gradients of the cell's own vectors, for some blocks."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t N = f.schedule.N, most = f.chunk * f.schedule.B, i
    cdef ChunkSums s
    memset(&s, 0, sizeof(ChunkSums))
    s.rows, s.blocks, s.gating = rows, u1 - u0, &w.gating
    s.lanes = w.lanes if u1 == w.blocks else VL
    s.dz_panel, s.z_panel = most * w.size, N * w.size
    s.dz = f.dz + u0 * s.dz_panel
    s.z = f.tape_z + u0 * s.z_panel + at * w.size
    s.state_panel = N * VL
    for i in range(1, w.layout.states):
        s.states[i] = f.tape_states[i] + (u0 * N + at) * VL
    s.kept_size, s.kept_panel = w.blocks * most * VL, most * VL
    if f.kept is not NULL:
        s.kept = f.kept + u0 * s.kept_panel
    for i in range(MAX_VECTORS):
        if w.vectors[i] is not NULL:
            s.sums[i] = f.sums.vectors[i] + u0 * w.layout.vectors[i] * VL
    w.layout.run.sum_gradients(&s)


cdef inline void input_gradients(
    Backward *f, ptrdiff_t t0, ptrdiff_t n, int index, int count
) noexcept nogil:
    """Compute dx of n steps from t0 on, thread `index`'s share of the rows."""
    cdef const Weights *w = f.w
    cdef const Schedule *schedule = &f.schedule
    cdef ptrdiff_t t, b, at = step_offset(schedule, t0)
    cdef ptrdiff_t total = step_offset(schedule, t0 + n) - at
    cdef ptrdiff_t begin = at + split_point(total, index, count)
    cdef ptrdiff_t end = at + split_point(total, index + 1, count), first, last
    cdef ptrdiff_t most = f.chunk * schedule.B, dx_panel = most * VL
    cdef gemm_args p
    if end > begin:
        p.a, p.a_row, p.a_k = f.dzx + (begin - at) * w.size, w.size, 1
        p.a_block = most * w.size
        if f.narrow is not NULL:
            p.narrow = f.narrow_x + (begin - at) * narrow_row(w.x_back.K)
        p.init, p.init_row = w.zero, 0
        p.c, p.c_row = f.dxs + (begin - at) * VL, VL
        multiply(&w.x_back, end - begin, &p, 0, dx_panel)
    for t in range(t0, t0 + n):
        first = max(begin - step_offset(schedule, t), 0)
        last = min(end - step_offset(schedule, t), step_rows(schedule, t))
        for b in range(first, last):
            unblock_row(
                f.dx + t * f.dx_t + caller_row(schedule, b) * f.dx_b,
                f.dxs + (step_offset(schedule, t) - at + b) * VL, dx_panel, w.I,
            )
        if index == 0:
            for b in range(step_rows(schedule, t), schedule.B):
                memset(f.dx + t * f.dx_t + caller_row(schedule, b) * f.dx_b, 0, w.I * sizeof(real))
