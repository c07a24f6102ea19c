"""Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

c' = f c + i g; h' = o tanh(c'). Slots: i, f, g, o.
"""

from step cimport Step, StepBack, recur, recur_back
from vec cimport (
    VL, real, settle, vf, vfirst, vload, vload_first, vset, vsigmoid, vstore, vstore_first, vtanh,
)


cdef inline void lstm_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef real *z
    cdef vf i, f, g, o, c
    recur(s, s.w_hh, s.h_prev, s.h_prev_row)
    for u in range(s.blocks):
        n = s.H - u * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            i = vsigmoid(vload(z))
            f = vsigmoid(vload(z + VL))
            g = vtanh(vload(z + 2 * VL))
            o = vsigmoid(vload(z + 3 * VL))
            c = f * settle(vload(s.c_prev + u * s.c_panel + b * s.c_row)) + i * g
            vstore(z, i)
            vstore(z + VL, f)
            vstore(z + 2 * VL, g)
            vstore(z + 3 * VL, o)
            vstore(s.c + u * s.c_panel + b * s.c_row, c)
            vstore_first(s.h + b * s.h_row + u * VL, o * vtanh(c), n)


cdef inline void lstm_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef const real *z
    cdef real *dz
    cdef real *dh
    cdef real *dc
    cdef vf i, f, g, o, c_prev, tanh_c, d_h, d_c
    cdef vf one = vset(1)
    for u in range(s.blocks):
        n = s.H - u * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            dh = s.dh + (u * s.B + b) * VL
            dc = s.dc + (u * s.B + b) * VL
            i, f, g, o = vload(z), vload(z + VL), vload(z + 2 * VL), vload(z + 3 * VL)
            c_prev = settle(vload(s.c_prev + u * s.c_panel + b * VL))
            tanh_c = vtanh(vload(s.c + u * s.c_panel + b * VL))
            d_h = vload(dh)
            if s.dy is not NULL:
                d_h = d_h + vload_first(s.dy + b * s.dy_row + u * VL, n)
            d_c = vload(dc) + d_h * o * (one - tanh_c * tanh_c)
            vstore(dz, vfirst(d_c * g * i * (one - i), n))
            vstore(dz + VL, vfirst(d_c * c_prev * f * (one - f), n))
            vstore(dz + 2 * VL, vfirst(d_c * i * (one - g * g), n))
            vstore(dz + 3 * VL, vfirst(d_h * tanh_c * o * (one - o), n))
            vstore(dc, settle(d_c * f))
            vstore(dh, vset(0))
    recur_back(s, s.w_hh, 0, 4, s.dh)
