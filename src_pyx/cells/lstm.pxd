"""Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

c' = f c + i g; h' = o tanh(c'). Slots: i, f, g, o. With peepholes (Gers et al. 2002) i and f also
see w c, and o sees w c'. With layer normalisation (Ba et al. 2016) h' = o tanh(LN(c')).
"""

from norm cimport normalise_row, normalise_row_back
from step cimport Step, StepBack, clear_dh, recur, recur_back
from vec cimport (
    VL, real, vf, vfirst, vload, vload_first, vset, vsigmoid, vstore, vstore_first, vtanh,
)


cdef inline void forward(const Step *s, bint peephole, bint norm) noexcept nogil:
    cdef ptrdiff_t u, b, n, v
    cdef real *z
    cdef real *c_state
    cdef const real *w
    cdef vf zi, zf, zg, zo, i, f, g, o, c_prev, c
    recur(s, s.w_hh, s.h, s.h_row)
    for u in range(s.blocks):
        n = s.H - u * VL
        v = VL if n >= VL else s.lanes
        w = s.peephole + u * 3 * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            c_state = s.c + u * s.c_panel + b * s.c_row
            c_prev = vload(c_state)
            zi, zf, zg, zo = vload(z), vload(z + v), vload(z + 2 * v), vload(z + 3 * v)
            if peephole:
                zi = zi + vload(w) * c_prev
                zf = zf + vload(w + VL) * c_prev
            i = vsigmoid(zi)
            f = vsigmoid(zf)
            g = vtanh(zg)
            c = f * c_prev + i * g
            if peephole:
                zo = zo + vload(w + 2 * VL) * c
            o = vsigmoid(zo)
            # In this order: in a narrow block each reaches into the next one's place.
            vstore(z, i)
            vstore(z + v, f)
            vstore(z + 2 * v, g)
            vstore(z + 3 * v, o)
            vstore(c_state, c)
            if norm:
                vstore(s.c_hat + u * s.hat_panel + b * VL, vfirst(c, n))
            else:
                vstore_first(s.out + b * s.out_row + u * VL, o * vtanh(c), n)
    if norm:
        for b in range(s.B):
            normalise_row(s.c_hat + b * VL, s.hat_panel, 1, s.blocks, s.H)
        for u in range(s.blocks):
            w = s.norm_c + u * 2 * VL
            for b in range(s.B):
                o = vload(s.z + u * s.z_panel + b * 4 * VL + 3 * VL)
                c = vload(s.c_hat + u * s.hat_panel + b * VL) * vload(w) + vload(w + VL)
                vstore_first(s.out + b * s.out_row + u * VL, o * vtanh(c), s.H - u * VL)


cdef inline vf d_output(const StepBack *s, ptrdiff_t u, ptrdiff_t b) noexcept nogil:
    """Gradient of the output, block u of row b."""
    cdef vf d = vload(s.d_out + u * s.d_panel + b * VL)
    if s.dy is not NULL:
        d = d + vload_first(s.dy + b * s.dy_row + u * VL, s.H - u * VL)
    return d


cdef inline void normalise_cell(const StepBack *s) noexcept nogil:
    """c_hat anew, d_seen, the gradient of LN(c'), and dc_hat, what of it reaches c'."""
    cdef ptrdiff_t u, b, at, panel = s.hat_panel
    cdef const real *z
    cdef real scale
    cdef vf c, tanh_c, d, gain, one = vset(1)
    for b in range(s.B):
        for u in range(s.blocks):
            z = s.z + u * s.z_panel + b * 4 * VL
            c = vload(z + VL) * vload(s.c_prev + u * s.c_panel + b * VL)
            c = c + vload(z) * vload(z + 2 * VL)
            vstore(s.c_hat + u * panel + b * VL, vfirst(c, s.H - u * VL))
        scale = normalise_row(s.c_hat + b * VL, panel, 1, s.blocks, s.H)
        for u in range(s.blocks):
            at = u * panel + b * VL
            gain = vload(s.norm_c + u * 2 * VL)
            tanh_c = vtanh(vload(s.c_hat + at) * gain + vload(s.norm_c + u * 2 * VL + VL))
            d = d_output(s, u, b) * vload(s.z + u * s.z_panel + b * 4 * VL + 3 * VL)
            d = vfirst(d * (one - tanh_c * tanh_c), s.H - u * VL)
            vstore(s.d_seen + at, d)
            vstore(s.dc_hat + u * s.d_panel + b * VL, d * gain)
        normalise_row_back(
            s.dc_hat + b * VL, s.d_panel, s.c_hat + b * VL, panel, scale, 1, s.blocks, s.H
        )


cdef inline void backward(const StepBack *s, bint peephole, bint norm) noexcept nogil:
    cdef ptrdiff_t u, b, n, v
    cdef const real *z
    cdef const real *w
    cdef const real *w_c
    cdef real *dz
    cdef real *dc
    cdef vf i, f, g, o, c_prev, c, seen, tanh_c, d_h, d_c, dzi, dzf, dzo
    cdef vf one = vset(1)
    if norm:
        normalise_cell(s)
    for u in range(s.blocks):
        n = s.H - u * VL
        v = VL if n >= VL else s.lanes
        w = s.peephole + u * 3 * VL
        w_c = s.norm_c + u * 2 * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            dc = s.dc + u * s.d_panel + b * VL
            i, f, g, o = vload(z), vload(z + v), vload(z + 2 * v), vload(z + 3 * v)
            c_prev = vload(s.c_prev + u * s.c_panel + b * VL)
            c = f * c_prev + i * g
            seen = c
            if norm:
                seen = vload(s.c_hat + u * s.hat_panel + b * VL) * vload(w_c) + vload(w_c + VL)
            tanh_c = vtanh(seen)
            d_h = d_output(s, u, b)
            dzo = vfirst(d_h * tanh_c * o * (one - o), n)
            if norm:
                d_c = vload(dc) + vload(s.dc_hat + u * s.d_panel + b * VL)
            else:
                d_c = vload(dc) + d_h * o * (one - tanh_c * tanh_c)
            if peephole:
                d_c = d_c + dzo * vload(w + 2 * VL)
            dzi = vfirst(d_c * g * i * (one - i), n)
            dzf = vfirst(d_c * c_prev * f * (one - f), n)
            vstore(dz, dzi)
            vstore(dz + v, dzf)
            vstore(dz + 2 * v, vfirst(d_c * i * (one - g * g), n))
            vstore(dz + 3 * v, dzo)
            d_c = d_c * f
            if peephole:
                d_c = d_c + dzi * vload(w) + dzf * vload(w + VL)
            vstore(dc, d_c)
            if s.out is not NULL:
                vstore_first(s.out + b * s.H + u * VL, o * tanh_c, n)
    clear_dh(s)
    recur_back(s, s.w_hh, 0, 4, s.dh)


cdef inline void lstm_forward(const Step *s) noexcept nogil:
    # One plain function for each, as the plain one is what has to be fast.
    if s.norm_c is not NULL:
        forward(s, s.peephole is not NULL, True)
    elif s.peephole is not NULL:
        forward(s, True, False)
    else:
        forward(s, False, False)


cdef inline void lstm_backward(const StepBack *s) noexcept nogil:
    if s.norm_c is not NULL:
        backward(s, s.peephole is not NULL, True)
    elif s.peephole is not NULL:
        backward(s, True, False)
    else:
        backward(s, False, False)
