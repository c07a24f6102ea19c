"""Elman's recurrent network (Elman 1990): h' = act(z). One slot: h."""

from gating cimport activated, activated_back, be_small
from step cimport Step, StepBack, clear_dh, recur, recur_back
from vec cimport (
    VL, real, vf, vfirst, vfnma, vload, vload_first, vrelu, vrelu_grad, vset, vsettled, vstore,
    vstore_first, vtanh,
)


cdef inline void rnn_forward(const Step *s, bint relu) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef real *z
    cdef vf h
    recur(s)
    for u in range(s.blocks):
        z = s.z + u * s.z_panel
        n = s.H - u * VL
        for b in range(s.B):
            h = vload(z + b * VL)
            h = vsettled(vrelu(h) if relu else vtanh(h))
            vstore(z + b * VL, h)
            vstore_first(s.out + b * s.out_row + u * VL, h, n)


cdef inline void rnn_backward(const StepBack *s, bint relu) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef const real *z
    cdef const real *d_out
    cdef real *dz
    cdef vf d, h
    for u in range(s.blocks):
        z = s.z + u * s.z_panel
        dz = s.dz + u * s.dz_panel
        d_out = s.d_out + u * s.d_panel
        n = s.H - u * VL
        for b in range(s.B):
            d = vload(d_out + b * VL)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, n)
            h = vload(z + b * VL)
            d = vrelu_grad(h, d) if relu else d * vfnma(h, h, vset(1))
            vstore(dz + b * VL, vfirst(d, n))
    clear_dh(s)
    recur_back(s, 0, 1)


cdef inline void rnn_tanh_forward(const Step *s) noexcept nogil:
    rnn_forward(s, False)


cdef inline void rnn_tanh_backward(const StepBack *s) noexcept nogil:
    rnn_backward(s, False)


cdef inline void rnn_relu_forward(const Step *s) noexcept nogil:
    rnn_forward(s, True)


cdef inline void rnn_relu_backward(const StepBack *s) noexcept nogil:
    rnn_backward(s, True)


cdef inline void rnn_general_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b
    cdef vf h
    be_small()
    recur(s)
    for u in range(s.blocks):
        for b in range(s.B):
            h = activated(&s.gating.of[0], vload(s.z + u * s.z_panel + b * VL))
            vstore_first(s.out + b * s.out_row + u * VL, vsettled(h), s.H - u * VL)


cdef inline void rnn_general_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, n
    cdef vf d
    be_small()
    for u in range(s.blocks):
        n = s.H - u * VL
        for b in range(s.B):
            d = vload(s.d_out + u * s.d_panel + b * VL)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, n)
            d = activated_back(&s.gating.of[0], vload(s.z + u * s.z_panel + b * VL), d)
            vstore(s.dz + u * s.dz_panel + b * VL, vfirst(d, n))
    clear_dh(s)
    recur_back(s, 0, 1)
