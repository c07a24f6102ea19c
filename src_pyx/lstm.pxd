"""Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

c' = f c + i g; h' = o tanh(c'). Slots: i, f, g, o. With peepholes (Gers et al. 2002) i and f also
see w c, and o sees w c'.
"""

from step cimport Step, StepBack, clear_dh, recur, recur_back
from vec cimport (
    VL, real, settle, vf, vfirst, vload, vload_first, vset, vsigmoid, vstore, vstore_first, vtanh,
)


cdef inline void forward(const Step *s, bint peephole) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef real *z
    cdef real *c_state
    cdef const real *w
    cdef vf zi, zf, zo, i, f, g, o, c_prev, c
    recur(s, s.w_hh, s.h, s.h_row)
    for u in range(s.blocks):
        n = s.H - u * VL
        w = s.peephole + u * 3 * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            c_state = s.c + u * s.c_panel + b * s.c_row
            c_prev = settle(vload(c_state))
            zi, zf, zo = vload(z), vload(z + VL), vload(z + 3 * VL)
            if peephole:
                zi = zi + vload(w) * c_prev
                zf = zf + vload(w + VL) * c_prev
            i = vsigmoid(zi)
            f = vsigmoid(zf)
            g = vtanh(vload(z + 2 * VL))
            c = f * c_prev + i * g
            if peephole:
                zo = zo + vload(w + 2 * VL) * c
            o = vsigmoid(zo)
            vstore(z, i)
            vstore(z + VL, f)
            vstore(z + 2 * VL, g)
            vstore(z + 3 * VL, o)
            vstore(c_state, c)
            vstore_first(s.out + b * s.out_row + u * VL, o * vtanh(c), n)


cdef inline void backward(const StepBack *s, bint peephole) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef const real *z
    cdef const real *w
    cdef real *dz
    cdef real *dc
    cdef real *dw
    cdef vf i, f, g, o, c_prev, c, tanh_c, d_h, d_c, dzi, dzf, dzo
    cdef vf one = vset(1), dwi = vset(0), dwf = vset(0), dwo = vset(0)
    for u in range(s.blocks):
        n = s.H - u * VL
        w = s.peephole + u * 3 * VL
        dwi = dwf = dwo = vset(0)
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            dc = s.dc + u * s.d_panel + b * VL
            i, f, g, o = vload(z), vload(z + VL), vload(z + 2 * VL), vload(z + 3 * VL)
            c_prev = settle(vload(s.c_prev + u * s.c_panel + b * VL))
            c = f * c_prev + i * g
            tanh_c = vtanh(c)
            d_h = vload(s.d_out + u * s.d_panel + b * VL)
            if s.dy is not NULL:
                d_h = d_h + vload_first(s.dy + b * s.dy_row + u * VL, n)
            dzo = vfirst(d_h * tanh_c * o * (one - o), n)
            d_c = vload(dc) + d_h * o * (one - tanh_c * tanh_c)
            if peephole:
                d_c = d_c + dzo * vload(w + 2 * VL)
            dzi = vfirst(d_c * g * i * (one - i), n)
            dzf = vfirst(d_c * c_prev * f * (one - f), n)
            vstore(dz, dzi)
            vstore(dz + VL, dzf)
            vstore(dz + 2 * VL, vfirst(d_c * i * (one - g * g), n))
            vstore(dz + 3 * VL, dzo)
            d_c = d_c * f
            if peephole:
                d_c = d_c + dzi * vload(w) + dzf * vload(w + VL)
                dwi = dwi + dzi * c_prev
                dwf = dwf + dzf * c_prev
                dwo = dwo + dzo * c
            vstore(dc, settle(d_c))
            if s.out is not NULL:
                vstore_first(s.out + b * s.H + u * VL, o * tanh_c, n)
        if peephole:
            dw = s.dpeephole + u * 3 * VL
            vstore(dw, vload(dw) + dwi)
            vstore(dw + VL, vload(dw + VL) + dwf)
            vstore(dw + 2 * VL, vload(dw + 2 * VL) + dwo)
    clear_dh(s)
    recur_back(s, s.w_hh, 0, 4, s.dh)


cdef inline void lstm_forward(const Step *s) noexcept nogil:
    if s.peephole is NULL:
        forward(s, False)
    else:
        forward(s, True)


cdef inline void lstm_backward(const StepBack *s) noexcept nogil:
    if s.peephole is NULL:
        backward(s, False)
    else:
        backward(s, True)
