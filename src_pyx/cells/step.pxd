"""What one step of a cell reads and writes, forward and back. B rows, H units in blocks of VL.

Where several threads share a step, each has some of its blocks: pointers are to the first of them,
H counts the units from there on, and only what a product goes over (h, dz_all) is whole.
"""

from norm cimport Norm, normalise, normalise_back
from panels cimport Panels, multiply
from vec cimport VL, product, real, vset, vstore

cdef extern from "pool.h" nogil:
    ctypedef struct meeting:
        int meetings
        int late
    void meet(meeting *m, int count)

cdef struct Step:
    ptrdiff_t B
    ptrdiff_t H
    ptrdiff_t blocks
    ptrdiff_t slots
    ptrdiff_t lanes         # numbers from slot to slot in the last block: see panels.pxd
    real *z                 # in: input projection with biases; out: gates. (blocks, B, slots * VL)
    ptrdiff_t z_panel
    const real *h           # old (B, P), where P is H unless there is a projection
    const real *h_own       # the same from the first unit of these blocks on
    ptrdiff_t h_row
    real *out               # out (B, H), may be h
    ptrdiff_t out_row
    real *c                 # in: c_prev; out: c. (blocks, B, VL)
    ptrdiff_t c_row
    ptrdiff_t c_panel
    real *rh                # scratch (B, H)
    const real *peephole    # (blocks, 3 * VL), or NULL
    Norm norm               # of the products with h
    const real *norm_c      # gain and bias of the cell state's (blocks, 2 * VL), or NULL
    real *c_hat             # scratch (blocks, B, VL)
    ptrdiff_t hat_panel
    const Panels *w_hh
    const Panels *w_hn      # the candidate's own, where its product is not with h
    int threads             # that share the step
    meeting *others         # where they wait for each other

cdef struct StepBack:
    ptrdiff_t B
    ptrdiff_t H
    ptrdiff_t blocks
    ptrdiff_t slots
    ptrdiff_t lanes         # as forward
    const real *z           # gates (blocks, B, slots * VL)
    ptrdiff_t z_panel
    const real *h_prev      # (B, P)
    ptrdiff_t h_row
    const real *c_prev      # (blocks, B, VL)
    ptrdiff_t c_panel
    const real *dy          # (B, H), or NULL for zeros
    ptrdiff_t dy_row
    real *dz                # out: gradient before the activations (blocks, B, slots * VL)
    const real *dz_all      # of all blocks
    ptrdiff_t dz_panel
    const real *d_out       # in: of the output, but for dy. (blocks, B, VL), may be dh
    real *dh                # out: of h_prev. (P blocks, B, VL)
    ptrdiff_t dh_blocks
    real *dc                # in: of c; out: of c_prev. (blocks, B, VL)
    real *drh               # scratch (blocks, B, VL)
    ptrdiff_t d_panel       # of d_out, dh, dc, drh and dc_hat
    real *out               # out: the output, anew (B, H), or NULL
    const real *peephole    # (blocks, 3 * VL), or NULL
    Norm norm               # of the products with h
    real *dzh               # out: gradient of those products, as dz
    const real *norm_c      # as forward
    real *c_hat             # out: LN(c) without gain and bias (blocks, B, VL)
    real *d_seen            # out: the gradient of LN(c), as c_hat
    ptrdiff_t hat_panel
    real *dc_hat            # scratch (blocks, B, VL)
    const Panels *w_hh      # transposed
    const Panels *w_hn      # transposed
    int threads             # as forward
    meeting *others


cdef inline void recur(
    const Step *s, const Panels *w, const real *h, ptrdiff_t h_row
) noexcept nogil:
    """z += h w, or LN(h w)."""
    cdef product p
    if s.threads > 1:
        # All of h is there, and nobody reads any more what this step overwrites.
        meet(s.others, s.threads)
    p.a, p.a_row, p.a_k = h, h_row, 1
    p.K = p.segment = w.K
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


cdef inline void clear_dh(const StepBack *s) noexcept nogil:
    """dh = 0, for cells in which the old h goes nowhere but into the product."""
    cdef ptrdiff_t u, b
    for u in range(s.dh_blocks):
        for b in range(s.B):
            vstore(s.dh + u * s.d_panel + b * VL, vset(0))


cdef inline void recur_back(
    const StepBack *s, const Panels *w, ptrdiff_t first, ptrdiff_t gates, real *d
) noexcept nogil:
    """d += dz w, for the dz of `gates` gates from slot `first` on; d is (blocks, B, VL)."""
    cdef product p
    cdef const real *dz = s.dz_all
    if s.threads > 1:
        meet(s.others, s.threads)
    if s.norm.gain is not NULL:
        normalise_back(
            &s.norm, first, gates, s.B, s.blocks, s.H, s.dz, s.dzh, s.dz_panel
        )
        dz = s.dzh
    p.a, p.a_row, p.a_k = dz + first * VL, s.slots * VL, 1
    p.a_segment, p.segment, p.K = s.dz_panel, gates * VL, w.K
    p.a_rest = first * (s.lanes - VL)
    p.init = d
    p.c = d
    p.init_row = p.c_row = VL
    multiply(w, s.B, &p, s.d_panel, s.d_panel)
