"""Arguments of a cell's steps, forward and backward. B rows, H units in blocks of VL.

If threads share a step, each has some of the blocks: pointers are to the first of these, and H
counts the units from there on. Only operands of products (h, dz_all) are complete.
"""

from gating cimport gating
from norm cimport Norm, normalise, normalise_back
from panels cimport Panels, multiply
from vec cimport VL, gemm_args, real, vf, vfirst, vfma, vload, vload_first, vset, vstore

cdef extern from "pool.h" nogil:
    ctypedef struct barrier:
        int rounds
        int late
    void barrier_wait(barrier *b, int count)

cdef enum:
    MAX_GATES = 4       # slots of a cell
    MAX_STATES = 4
    MAX_VECTORS = 2     # groups of a cell's own weights (H,)

cdef struct Workspace:
    # Number of scratch arrays of each kind that a cell needs.
    ptrdiff_t forward       # (blocks, B, VL), for one step
    ptrdiff_t backward      # the same
    ptrdiff_t chunk         # (blocks, chunk * B, VL), written by steps for `sum_gradients`

cdef struct Step:
    ptrdiff_t B
    ptrdiff_t H
    ptrdiff_t blocks
    ptrdiff_t slots
    ptrdiff_t lanes         # distance of slots in the last block: see panels.pxd
    real *z                 # in: W x and biases; out: gates. (blocks, B, slots * VL)
    ptrdiff_t z_panel
    const real *h           # in: old h (B, P)
    const real *h_own       # h from the first unit of these blocks on
    ptrdiff_t h_row
    real *out               # out: new h, or input of the projection (B, H); may be h
    ptrdiff_t out_row
    real *states[MAX_STATES]    # from 1 on; in: old, out: new. (blocks, B, VL)
    ptrdiff_t state_row
    ptrdiff_t state_panel
    real *operand           # scratch: operand of the late product (B, H)
    real *narrow            # scratch: see `multiply` in panels.pxd
    real *scratch           # the first of the cell's own arrays (blocks, B, VL)
    ptrdiff_t scratch_size  # of one such array
    ptrdiff_t scratch_panel
    const real *vectors[MAX_VECTORS]    # (blocks, count * VL), or NULL
    Norm norm               # of the product with h
    const Panels *w_hh
    const Panels *w_late    # of the late product, which depends on gates
    const real *u           # of an elementwise recurrence (blocks, slots * VL), or NULL
    int threads             # sharing the step
    barrier *others         # between these
    const gating *gating    # of general steps

cdef struct StepBack:
    ptrdiff_t B
    ptrdiff_t H
    ptrdiff_t blocks
    ptrdiff_t slots
    ptrdiff_t lanes         # as in Step
    const real *z           # gates (blocks, B, slots * VL)
    ptrdiff_t z_panel
    const real *h_prev      # (B, P)
    ptrdiff_t h_row
    const real *states[MAX_STATES]      # old states, from 1 on (blocks, B, VL)
    ptrdiff_t state_panel
    const real *dy          # (B, H), or NULL for zeros
    ptrdiff_t dy_row
    real *dz                # out: gradient of the preactivations (blocks, B, slots * VL)
    const real *dz_all      # of all blocks
    ptrdiff_t dz_panel
    const real *d_out       # in: gradient of the output, without dy (blocks, B, VL); may be dh
    real *dh                # out: gradient of h_prev (P blocks, B, VL)
    ptrdiff_t dh_blocks
    real *dstates[MAX_STATES]   # from 1 on; in: of new states, out: of old (blocks, B, VL)
    ptrdiff_t d_panel       # of d_out, dh, dstates and scratch
    real *out               # out: the output, recomputed (B, H), or NULL
    real *operand           # out: operand of the late product, recomputed (B, H)
    real *narrow            # scratch: see `multiply` in panels.pxd
    real *scratch           # the first of the cell's own arrays (blocks, B, VL)
    ptrdiff_t scratch_size
    real *kept              # the first of the arrays for `sum_gradients` (blocks, B, VL)
    ptrdiff_t kept_size
    ptrdiff_t kept_panel
    const real *vectors[MAX_VECTORS]    # as in Step
    Norm norm               # of the product with h
    real *dzh               # out: gradient of that product, laid out as dz
    const Panels *w_hh      # transposed
    const Panels *w_late    # transposed
    const real *u           # as in Step
    int threads
    barrier *others
    const gating *gating

cdef struct ChunkSums:
    # Arguments of a sum of the gradients of a cell's vectors, over some rows, for some blocks.
    ptrdiff_t rows
    ptrdiff_t blocks
    ptrdiff_t lanes         # of the last of these blocks
    const real *dz          # (blocks, rows, slots * VL)
    ptrdiff_t dz_panel
    const real *z           # gates, laid out as dz
    ptrdiff_t z_panel
    const real *states[MAX_STATES]      # old states, from 1 on (blocks, rows, VL)
    ptrdiff_t state_panel
    const real *kept        # (blocks, rows, VL)
    ptrdiff_t kept_size
    ptrdiff_t kept_panel
    real *sums[MAX_VECTORS]     # to add to, laid out as the vectors, or NULL
    const gating *gating

cdef struct CellKernels:
    # The functions of a cell, called once per step, or per chunk of steps.
    void (*forward)(const Step *) noexcept nogil
    void (*backward)(const StepBack *) noexcept nogil
    void (*sum_gradients)(const ChunkSums *) noexcept nogil     # of its vectors; NULL for none
    Workspace (*workspace)(bint *given) noexcept nogil  # with these vectors; NULL for none


# A cell has its steps twice: with its own activations, and in general, with those of a gating. The
# latter leave in z, rather than gates, what activations are applied to, as gradients depend on it.

cdef inline ptrdiff_t slot_lanes(ptrdiff_t units, ptrdiff_t lanes) noexcept nogil:
    """Return the distance of slots in a block, with `units` units from its first one on."""
    return VL if units >= VL else lanes


# In a narrow block each vector extends into the next slots: all four are read before any is
# written, and they are written first to last.

cdef inline void load_gates(
    const real *z, ptrdiff_t v, vf *a, vf *b, vf *c, vf *d
) noexcept nogil:
    """Load the four slots of a row, `v` elements apart."""
    a[0], b[0], c[0], d[0] = vload(z), vload(z + v), vload(z + 2 * v), vload(z + 3 * v)


cdef inline void store_gates(real *z, ptrdiff_t v, vf a, vf b, vf c, vf d) noexcept nogil:
    """Store the four slots of a row, `v` elements apart."""
    vstore(z, a)
    vstore(z + v, b)
    vstore(z + 2 * v, c)
    vstore(z + 3 * v, d)


cdef inline void recur(const Step *s) noexcept nogil:
    """Add h w, LN(h w) or h u to z."""
    if s.u is not NULL:
        recur_elementwise(s)
    elif s.w_hh.w is not NULL:
        multiply_state(s, s.w_hh, s.h, s.h_row)


cdef inline void recur_late(const Step *s) noexcept nogil:
    """Add the late product, whose operand the cell has written."""
    multiply_state(s, s.w_late, s.operand, s.H)


cdef inline void multiply_state(
    const Step *s, const Panels *w, const real *h, ptrdiff_t h_row
) noexcept nogil:
    cdef gemm_args p
    if s.threads > 1:
        # The last step's h is complete, and nothing that this step overwrites is still being read.
        barrier_wait(s.others, s.threads)
    p.a, p.a_row, p.a_k = h, h_row, 1
    p.narrow = s.narrow
    p.init_row = p.c_row = s.slots * VL
    if s.norm.gain is NULL:
        p.init = s.z
        p.c = s.z
        multiply(w, s.B, &p, s.z_panel, s.z_panel)
    else:
        p.init, p.init_row = s.norm.zero, 0
        p.c = s.norm.hat
        multiply(w, s.B, &p, 0, s.norm.hat_panel)
        normalise(&s.norm, w.first, w.gates, s.B, s.blocks, s.H, s.z, s.z_panel)


cdef inline void recur_elementwise(const Step *s) noexcept nogil:
    cdef ptrdiff_t block, b, slot, n, v, size = s.slots * VL
    cdef real *z
    cdef const real *u
    cdef vf h
    for block in range(s.blocks):
        n = s.H - block * VL
        v = slot_lanes(n, s.lanes)
        u = s.u + block * size
        for b in range(s.B):
            z = s.z + block * s.z_panel + b * size
            h = vload_first(s.h_own + b * s.h_row + block * VL, n)
            for slot in range(s.w_hh.first, s.w_hh.first + s.w_hh.gates):
                vstore(
                    z + slot * v, vfma(vfirst(vload(u + slot * v), n), h, vload(z + slot * v))
                )


cdef inline void clear_dh(const StepBack *s) noexcept nogil:
    """Set dh to 0, for cells that use the old h only in the product."""
    cdef ptrdiff_t u, b
    for u in range(s.dh_blocks):
        for b in range(s.B):
            vstore(s.dh + u * s.d_panel + b * VL, vset(0))


cdef inline void recur_back(const StepBack *s, ptrdiff_t first, ptrdiff_t gates) noexcept nogil:
    """Add dz w or dz u to dh, for `gates` gates from slot `first` on."""
    if s.u is not NULL:
        recur_back_elementwise(s, first, gates)
    elif s.w_hh.w is not NULL:
        multiply_back(s, s.w_hh, first, gates, s.dh)


cdef inline void recur_late_back(
    const StepBack *s, ptrdiff_t first, ptrdiff_t gates, real *d
) noexcept nogil:
    """Add the gradient of the late product's operand to `d` (blocks, B, VL)."""
    multiply_back(s, s.w_late, first, gates, d)


cdef inline void multiply_back(
    const StepBack *s, const Panels *w, ptrdiff_t first, ptrdiff_t gates, real *d
) noexcept nogil:
    cdef gemm_args p
    cdef const real *dz = s.dz_all
    if s.threads > 1:
        barrier_wait(s.others, s.threads)
    if s.norm.gain is not NULL:
        normalise_back(
            &s.norm, first, gates, s.B, s.blocks, s.H, s.dz, s.dzh, s.dz_panel
        )
        dz = s.dzh
    p.a, p.a_row, p.a_k, p.a_block = dz, s.slots * VL, 1, s.dz_panel
    p.narrow = s.narrow
    p.init = d
    p.c = d
    p.init_row = p.c_row = VL
    multiply(w, s.B, &p, s.d_panel, s.d_panel)


cdef inline void recur_back_elementwise(
    const StepBack *s, ptrdiff_t first, ptrdiff_t gates
) noexcept nogil:
    cdef ptrdiff_t block, b, slot, n, v, size = s.slots * VL
    cdef const real *dz
    cdef const real *u
    cdef real *dh
    cdef vf d
    for block in range(s.blocks):
        n = s.H - block * VL
        v = slot_lanes(n, s.lanes)
        u = s.u + block * size
        for b in range(s.B):
            dz = s.dz + block * s.dz_panel + b * size
            dh = s.dh + block * s.d_panel + b * VL
            d = vload(dh)
            for slot in range(first, first + gates):
                d = vfma(vfirst(vload(dz + slot * v), n), vload(u + slot * v), d)
            vstore(dh, d)


cdef inline void add_vector_to(real *sum, vf v) noexcept nogil:
    vstore(sum, vload(sum) + v)


cdef inline void sum_rows(
    real *sums, ptrdiff_t blocks, ptrdiff_t vectors, ptrdiff_t rows,
    const real *a, ptrdiff_t a_panel, const real *b, ptrdiff_t b_panel,
) noexcept nogil:
    """Add to `sums` the sum over rows of a b, or of a if b is NULL."""
    cdef ptrdiff_t block, v, row, at
    cdef vf total
    for block in range(blocks):
        for v in range(vectors):
            total = vset(0)
            for row in range(rows):
                at = (row * vectors + v) * VL
                if b is NULL:
                    total = total + vload(a + block * a_panel + at)
                else:
                    total = vfma(
                        vload(a + block * a_panel + at), vload(b + block * b_panel + at), total
                    )
            add_vector_to(sums + (block * vectors + v) * VL, total)
