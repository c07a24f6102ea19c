"""The scan over time, one thread's share."""

from libc.string cimport memcpy, memset
from norm cimport Norm
from packing cimport Weights, new_step, norm_at
from panels cimport Panels, ceil_div, some_panels, split_blocks
from projection cimport InputProduct, multiply_inputs, project_output
from schedule cimport (
    Resets, Schedule, block_rows, caller_row, reset_rows, split_rows, step_offset, step_rows,
    unblock_row,
)
from step cimport MAX_STATES, Step, barrier, barrier_wait
from vec cimport VL, float_mode, flush_subnormals, narrow_row, real, restore_mode, vcopy


cdef struct Forward:
    # A forward call, shared by its threads.
    const Weights *w
    Schedule schedule
    ptrdiff_t chunk         # steps whose input products are computed at once
    ptrdiff_t begin         # this round's steps, from whole chunks,
    ptrdiff_t end
    int part                # and which of the parts of the rows
    int parts
    bint keep
    bint by_blocks          # threads split each step's blocks; else the rows
    barrier others
    const real *x
    ptrdiff_t x_t
    ptrdiff_t x_b
    real *y                 # or NULL
    ptrdiff_t y_t
    ptrdiff_t y_b
    const real *state_0[MAX_STATES]     # (B, P) for h, (B, H) for others, or NULL for zeros
    real *state_n[MAX_STATES]
    Resets resets
    real *xs                # running rows, gathered: (chunk * B, I); NULL: read x itself
    real *z                 # (blocks, chunk * B, size), or the tape's
    ptrdiff_t z_rows
    real *h[2]              # (B, P), old and new; the same array unless by blocks
    ptrdiff_t h_row         # in whole cache lines: no false sharing
    real *out               # (B, H), of a cell whose output is projected
    real *projected         # (P blocks, B, VL)
    real *states[MAX_STATES]            # from 1 on: (blocks, B, VL)
    real *operand           # (B, H)
    real *narrow            # rows of the products of a step in the weights' format, or NULL;
    ptrdiff_t narrow_row
    real *narrow_x          # and those of x: (chunk * B, narrow_row(I)). By blocks for each thread
    real *scratch           # the cell's: (blocks, B, VL) each
    real *tape_h
    real *tape_states[MAX_STATES]       # (blocks, N, VL)
    Norm x_norm
    Norm h_norm

cdef struct ForwardShare:
    # The share of one of `count` threads: rows b0 to b1, blocks u0 to u1, output units n0 to n1.
    Forward *f
    int index
    int count
    bint apart              # threads split the rows, without barriers
    ptrdiff_t b0
    ptrdiff_t b1
    ptrdiff_t u0
    ptrdiff_t u1
    ptrdiff_t n0
    ptrdiff_t n1
    Panels w_x
    Panels w_h
    InputProduct x
    Step s


cdef inline void enter_forward(
    ForwardShare *mine, Forward *f, int index, int count
) noexcept nogil:
    """Determine the thread's share, and set up its pointers."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t B = f.schedule.B, u0 = 0, u1 = w.blocks, first_row, i
    cdef Step *s = &mine.s
    memset(mine, 0, sizeof(ForwardShare))
    mine.f, mine.index, mine.count = f, index, count
    mine.apart = count > 1 and not f.by_blocks
    mine.b1, mine.n1 = B, w.P
    if f.by_blocks:
        u0, u1 = split_blocks(w.blocks, index, count), split_blocks(w.blocks, index + 1, count)
        mine.n0, mine.n1 = u0 * VL, min(u1 * VL, w.P)
    else:
        mine.b0 = split_rows(&f.schedule, index, count)
        mine.b1 = split_rows(&f.schedule, index + 1, count)
    mine.u0, mine.u1 = u0, u1
    mine.w_x, mine.w_h = some_panels(&w.x, u0, u1), some_panels(&w.h, u0, u1)
    mine.x.w, mine.x.bias = &mine.w_x, w.bias + u0 * w.size
    mine.x.slots, mine.x.H = w.layout.slots, w.H
    mine.x.z_panel, mine.x.norm = f.z_rows * w.size, f.x_norm
    s[0] = new_step(w, u0)
    s.blocks, s.w_hh = u1 - u0, &mine.w_h
    s.z_panel = f.z_rows * w.size
    s.h_row = f.h_row
    s.out_row = w.H if w.projects else f.h_row
    s.state_row, s.state_panel = VL, B * VL
    if f.narrow is not NULL:
        first_row = index * B if f.by_blocks else mine.b0
        s.narrow = f.narrow + first_row * f.narrow_row
        mine.x.narrow = f.narrow_x + first_row * f.chunk * narrow_row(w.I)
    for i in range(1, w.layout.states):
        s.states[i] = f.states[i] + (u0 * B + mine.b0) * VL
    if f.operand is not NULL:
        s.operand = f.operand + mine.b0 * w.H
    if f.scratch is not NULL:
        s.scratch = f.scratch + (u0 * B + mine.b0) * VL
        s.scratch_size, s.scratch_panel = w.blocks * B * VL, B * VL
    if f.by_blocks:
        s.threads, s.others = count, &f.others


cdef inline ptrdiff_t row_offset(
    const ForwardShare *mine, ptrdiff_t t, ptrdiff_t t0
) noexcept nogil:
    """Return the first row of step t in z, xs and the norms, for a chunk that begins at t0."""
    cdef const Schedule *schedule = &mine.f.schedule
    if mine.f.keep:
        return step_offset(schedule, t)
    if mine.apart:
        # Threads may be in different chunks, so each row keeps a place of its own.
        return (t - t0) * schedule.B
    return step_offset(schedule, t) - step_offset(schedule, t0)


cdef inline void take_inputs(ForwardShare *mine, ptrdiff_t t0, ptrdiff_t n) noexcept nogil:
    """Compute z of n steps from t0 on, without the recurrence."""
    cdef Forward *f = mine.f
    cdef ptrdiff_t B = f.schedule.B, size = f.w.size, rows
    cdef InputProduct *x = &mine.x
    if f.xs is NULL:
        x.T, x.B, x.x_t, x.x_b, x.z_t = n, mine.b1 - mine.b0, f.x_t, f.x_b, B * size
        x.x = f.x + t0 * f.x_t + mine.b0 * f.x_b
        x.z = f.z + mine.u0 * x.z_panel + mine.b0 * size
        x.norm = norm_at(&f.x_norm, mine.b0)
        if x.B > 0:
            multiply_inputs(x)
        return
    gather_inputs(mine, t0, n)
    # By rows, each thread needs only its own rows of z; else all of them.
    if f.by_blocks:
        barrier_wait(&f.others, mine.count)
    rows = step_offset(&f.schedule, t0 + n) - step_offset(&f.schedule, t0)
    if not mine.apart and rows > 0:
        multiply_gathered(mine, row_offset(mine, t0, t0), rows)


cdef inline void gather_inputs(ForwardShare *mine, ptrdiff_t t0, ptrdiff_t n) noexcept nogil:
    """Gather the running rows of x in xs."""
    cdef Forward *f = mine.f
    cdef ptrdiff_t t, b, rows, at, I = f.w.I
    for t in range(t0, t0 + n):
        if f.by_blocks and t % mine.count != mine.index:
            continue
        rows = min(mine.b1, step_rows(&f.schedule, t)) - mine.b0
        at = row_offset(mine, t, t0) + mine.b0
        for b in range(rows):
            vcopy(
                f.xs + (at + b) * I,
                f.x + t * f.x_t + caller_row(&f.schedule, mine.b0 + b) * f.x_b, I,
            )
        if mine.apart and rows > 0:
            multiply_gathered(mine, at, rows)


cdef inline void multiply_gathered(
    ForwardShare *mine, ptrdiff_t at, ptrdiff_t rows
) noexcept nogil:
    """Multiply the gathered rows from `at` on."""
    cdef InputProduct *x = &mine.x
    x.T, x.B, x.x_b = 1, rows, x.w.K
    x.x = mine.f.xs + at * x.w.K
    x.z = mine.f.z + mine.u0 * x.z_panel + at * x.slots * VL
    x.norm = norm_at(&mine.f.x_norm, at)
    multiply_inputs(x)


cdef inline void enter_step(
    ForwardShare *mine, ptrdiff_t t, ptrdiff_t at, ptrdiff_t rows, real *h
) noexcept nogil:
    """Reset and record the old states of our first `rows` rows, which are at `at` in z."""
    cdef Forward *f = mine.f
    cdef const Weights *w = f.w
    cdef ptrdiff_t b0 = mine.b0, B = f.schedule.B, i, b, u
    if f.resets.at is not NULL:
        reset_rows(&f.resets, &f.schedule, t, b0, b0 + rows, h, 0, 1, f.h_row, w.P)
        for i in range(1, w.layout.states):
            reset_rows(
                &f.resets, &f.schedule, t, b0, b0 + rows, f.states[i], B * VL, w.blocks, VL, VL
            )
    if f.keep:
        for b in range(0 if w.layout.out_is_z else rows):
            vcopy(
                f.tape_h + (at + b) * w.P + mine.n0, h + (b0 + b) * f.h_row + mine.n0,
                mine.n1 - mine.n0,
            )
        for i in range(1, w.layout.states):
            for u in range(mine.u0, mine.u1):
                memcpy(
                    f.tape_states[i] + (u * f.schedule.N + at) * VL,
                    f.states[i] + (u * B + b0) * VL, rows * VL * sizeof(real),
                )


cdef inline void forward_step(
    ForwardShare *mine, ptrdiff_t at, ptrdiff_t rows, const real *h, real *h_new
) noexcept nogil:
    """Compute the new states of our first `rows` rows, which are at `at` in z."""
    cdef Forward *f = mine.f
    cdef const Weights *w = f.w
    cdef Step *s = &mine.s
    cdef ptrdiff_t b0 = mine.b0, h_row = f.h_row
    s.B = rows
    s.z = f.z + mine.u0 * s.z_panel + at * w.size
    s.h, s.h_own = h + b0 * h_row, h + b0 * h_row + mine.n0
    s.out = f.out + b0 * w.H if w.projects else h_new + b0 * h_row + mine.n0
    if w.gain_x is not NULL:
        s.norm = norm_at(&f.h_norm, at if f.keep else b0)
    w.layout.run.forward(s)
    if w.projects:
        project_output(
            w, rows, s.out, f.projected + b0 * w.out.blocks * VL, h_new + b0 * h_row, h_row,
            s.narrow,
        )


cdef inline void leave_step(
    ForwardShare *mine, ptrdiff_t t, ptrdiff_t rows, const real *h
) noexcept nogil:
    """Write y: the output of our first `rows` rows, zeros for those that do not run."""
    cdef Forward *f = mine.f
    cdef ptrdiff_t b, n = mine.n1 - mine.n0
    cdef real *y
    for b in range(mine.b0, mine.b1):
        y = f.y + t * f.y_t + caller_row(&f.schedule, b) * f.y_b + mine.n0
        if b - mine.b0 < rows:
            vcopy(y, h + b * f.h_row + mine.n0, n)
        else:
            memset(y, 0, n * sizeof(real))


cdef inline void leave_forward(ForwardShare *mine) noexcept nogil:
    """Write the final states."""
    cdef Forward *f = mine.f
    cdef const Weights *w = f.w
    cdef ptrdiff_t b, i, row, B = f.schedule.B, T = f.schedule.T, first = mine.u0 * VL
    for b in range(mine.b0, mine.b1):
        row = caller_row(&f.schedule, b)
        vcopy(
            f.state_n[0] + row * w.P + mine.n0, f.h[T & 1] + b * f.h_row + mine.n0,
            mine.n1 - mine.n0,
        )
        for i in range(1, w.layout.states):
            unblock_row(
                f.state_n[i] + row * w.H + first, f.states[i] + (mine.u0 * B + b) * VL, B * VL,
                min(mine.u1 * VL, w.H) - first,
            )


cdef inline void forward_share(int index, int count, void *what) noexcept nogil:
    """Run the share of one of `count` threads."""
    cdef Forward *f = <Forward *>what
    cdef ForwardShare mine
    cdef ptrdiff_t t, t0 = f.begin, n, rows, at
    cdef real *h
    cdef real *h_new
    cdef float_mode mode = flush_subnormals()
    enter_forward(&mine, f, f.part * count + index, f.parts * count)
    while t0 < f.end:
        n = min(f.chunk, f.end - t0)
        take_inputs(&mine, t0, n)
        for t in range(t0, t0 + n):
            rows = min(mine.b1, step_rows(&f.schedule, t)) - mine.b0
            at = row_offset(&mine, t, t0) + mine.b0
            h, h_new = f.h[t & 1], f.h[(t + 1) & 1]
            if rows > 0:
                enter_step(&mine, t, at, rows, h)
                forward_step(&mine, at, rows, h, h_new)
            if f.y is not NULL:
                leave_step(&mine, t, rows, h_new)
        t0 += n
    if f.end == f.schedule.T:
        leave_forward(&mine)
    restore_mode(mode)


cdef inline void begin_forward(Forward *f) noexcept nogil:
    """Load the initial states."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t b, i
    memset(f.h[0], 0, f.schedule.B * f.h_row * sizeof(real))
    if f.state_0[0] is not NULL:
        for b in range(f.schedule.B):
            vcopy(f.h[0] + b * f.h_row, f.state_0[0] + caller_row(&f.schedule, b) * w.P, w.P)
    if f.keep and w.layout.out_is_z:
        for b in range(f.schedule.B):
            vcopy(f.tape_h + b * w.P, f.h[0] + b * f.h_row, w.P)
    for i in range(1, w.layout.states):
        block_rows(&f.schedule, f.states[i], f.state_0[i], w.H)
