"""Products outside the recurrence: those of the inputs, and the projection of the output."""

from libc.string cimport memset
from norm cimport Norm, normalise
from packing cimport Weights, norm_at
from panels cimport Panels, multiply
from schedule cimport unblock_row
from step cimport StepBack
from vec cimport VL, gemm_args, real, vf, vfirst, vload, vload_first, vstore


cdef struct InputProduct:
    # z = bias + x w, or bias + LN(x w), of T steps of B rows; strides in elements.
    const Panels *w
    const real *bias
    ptrdiff_t slots         # of z; those without a product with x get the bias only
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
    real *narrow            # scratch: see `multiply` in panels.pxd


cdef inline void take_rows(gemm_args *p, const real *x, ptrdiff_t x_row) noexcept nogil:
    """Set the left operand: rows of x, `x_row` apart."""
    p.a, p.a_row, p.a_k = x, x_row, 1


cdef inline void multiply_inputs(const InputProduct *s) noexcept nogil:
    cdef ptrdiff_t t, b, T = s.T, B = s.B, size = s.slots * VL
    cdef bint normed = s.norm.gain is not NULL
    cdef real *c = s.norm.hat if normed else s.z
    cdef ptrdiff_t c_panel = s.norm.hat_panel if normed else s.z_panel
    cdef ptrdiff_t init_panel = 0 if normed else size
    cdef gemm_args p
    cdef const real *init = s.norm.zero if normed else s.bias
    p.narrow = s.narrow
    p.init, p.init_row, p.c_row = init, 0, size
    if B == 1 or T == 1 or (s.x_t == B * s.x_b and s.z_t == B * size):
        take_rows(&p, s.x, s.x_t if B == 1 else s.x_b)
        p.c, p.c_row = c, s.z_t if B == 1 else size
        multiply(s.w, T * B, &p, init_panel, c_panel)
    elif B < T:
        p.c_row = s.z_t
        for b in range(B):
            take_rows(&p, s.x + b * s.x_b, s.x_t)
            p.init, p.c = init, c + b * size
            multiply(s.w, T, &p, init_panel, c_panel)
    else:
        for t in range(T):
            take_rows(&p, s.x + t * s.x_t, s.x_b)
            p.init, p.c = init, c + t * s.z_t
            multiply(s.w, B, &p, init_panel, c_panel)
    fill_bias(s, 0 if normed else s.w.first + s.w.gates)
    if normed:
        for t in range(T):
            normalise_inputs(s, t)


cdef inline void fill_bias(const InputProduct *s, ptrdiff_t first) noexcept nogil:
    """Write the bias to the slots from `first` on, which the product does not write."""
    cdef ptrdiff_t slot, block, t, b, at, size = s.slots * VL
    for slot in range(first, s.slots):
        for block in range(s.w.blocks):
            at = slot * (VL if block < s.w.blocks - 1 else s.w.lanes)
            for t in range(s.T):
                for b in range(s.B):
                    vstore(
                        s.z + block * s.z_panel + t * s.z_t + b * size + at,
                        vload(s.bias + block * size + at),
                    )


cdef inline void normalise_inputs(const InputProduct *s, ptrdiff_t t) noexcept nogil:
    cdef Norm norm = norm_at(&s.norm, t * s.z_t // (s.slots * VL))
    normalise(
        &norm, s.w.first, s.w.gates, s.B, s.w.blocks, s.H, s.z + t * s.z_t, s.z_panel
    )


cdef inline void project_output(
    const Weights *w, ptrdiff_t B, const real *out, real *blocked, real *h, ptrdiff_t h_row,
    real *narrow,
) noexcept nogil:
    """Compute h = W out (Sak et al. 2014): (B, H) to (B, P), via blocks (P blocks, B, VL)."""
    cdef ptrdiff_t b, panel = B * VL
    cdef gemm_args p
    memset(blocked, 0, w.out.blocks * panel * sizeof(real))
    p.a, p.a_row, p.a_k = out, w.H, 1
    p.narrow = narrow
    p.init, p.init_row = blocked, VL
    p.c, p.c_row = blocked, VL
    multiply(&w.out, B, &p, panel, panel)
    for b in range(B):
        unblock_row(h + b * h_row, blocked + b * VL, panel, w.P)


cdef inline void project_back(
    const Weights *w, StepBack *s, real *dr, ptrdiff_t dr_panel, real *d_out
) noexcept nogil:
    """Compute dr = dh + dy, kept for the gradient of W, and d_out = dr W."""
    cdef ptrdiff_t u, b
    cdef vf d
    cdef gemm_args p
    for u in range(w.out.blocks):
        for b in range(s.B):
            d = vload(s.dh + u * s.d_panel + b * VL)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, w.P - u * VL)
            vstore(dr + u * dr_panel + b * VL, vfirst(d, w.P - u * VL))
    p.a, p.a_row, p.a_k, p.a_block = dr, VL, 1, dr_panel
    p.narrow = s.narrow
    p.init, p.init_row = w.zero, 0
    p.c, p.c_row = d_out, VL
    multiply(&w.out_back, s.B, &p, 0, s.d_panel)
    s.dy = NULL
