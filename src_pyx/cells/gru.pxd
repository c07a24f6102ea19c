"""Gated recurrent unit (Cho et al. 2014): h' = (1 - z) n + z h.

Reset after: n = tanh(xn + r hn); slots n, r, z, hn, so the products with x (n, r, z) and with h
(r, z, hn) each write adjacent slots. Reset before: n = tanh(xn + U (r h)); slots n, r, z.
"""

from gating cimport activated, activated_back, be_small
from step cimport (
    Step, StepBack, Workspace, load_gates, recur, recur_back, recur_late, recur_late_back,
    slot_lanes, store_gates,
)
from vec cimport (
    FASTRNN_INT8, VL, real, vf, vfirst, vfma, vfnma, vload, vload_first, vset, vsettled, vsigmoid,
    vstore, vstore_first, vtanh,
)

cdef enum:
    # Indices of activations: of gates, and of the candidate.
    GATE = 0
    CANDIDATE = 1


cdef inline void gru_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, v
    cdef real *gates
    cdef vf n, r, z, hn, h
    recur(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        v = slot_lanes(m, s.lanes)
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 4 * VL
            load_gates(gates, v, &n, &r, &z, &hn)
            r, z = vsigmoid(r), vsigmoid(z)
            n = vtanh(vfma(r, hn, n))
            h = vload_first(s.h_own + b * s.h_row + u * VL, m)
            if not FASTRNN_INT8:
                store_gates(gates, v, n, r, z, hn)
            h = vsettled(vfma(vset(1) - z, n, z * h))
            vstore_first(s.out + b * s.out_row + u * VL, h, m)


cdef inline void gru_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, v
    cdef const real *gates
    cdef real *dz
    cdef real *dh
    cdef vf n, r, z, hn, h, d, d_n
    cdef vf one = vset(1)
    for u in range(s.blocks):
        m = s.H - u * VL
        v = slot_lanes(m, s.lanes)
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 4 * VL
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            dh = s.dh + u * s.d_panel + b * VL
            load_gates(gates, v, &n, &r, &z, &hn)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d = vload(dh)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, m)
            d_n = d * (one - z) * vfnma(n, n, one)
            store_gates(
                dz, v, vfirst(d_n, m), vfirst(d_n * hn * r * (one - r), m),
                vfirst(d * (h - n) * z * (one - z), m), vfirst(d_n * r, m),
            )
            vstore(dh, d * z)
    recur_back(s, 1, 3)


cdef inline void gru_reset_before_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, m
    cdef real *gates
    cdef vf n, r, z, h
    recur(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 3 * VL
            r = vsigmoid(vload(gates + VL))
            h = vload_first(s.h_own + b * s.h_row + u * VL, m)
            vstore(gates + VL, r)
            vstore_first(s.operand + b * s.H + u * VL, r * h, m)
    recur_late(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 3 * VL
            n = vtanh(vload(gates))
            z = vsigmoid(vload(gates + 2 * VL))
            h = vload_first(s.h_own + b * s.h_row + u * VL, m)
            if not FASTRNN_INT8:
                vstore(gates, n)
                vstore(gates + 2 * VL, z)
            h = vsettled(vfma(vset(1) - z, n, z * h))
            vstore_first(s.out + b * s.out_row + u * VL, h, m)


cdef inline void gru_reset_before_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, at
    cdef const real *gates
    cdef real *dz
    cdef vf n, r, z, h, d, d_rh
    cdef vf one = vset(1)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 3 * VL
            dz = s.dz + u * s.dz_panel + b * 3 * VL
            at = u * s.d_panel + b * VL
            n, z = vload(gates), vload(gates + 2 * VL)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d = vload(s.dh + at)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, m)
            vstore(dz, vfirst(d * (one - z) * vfnma(n, n, one), m))
            vstore(dz + 2 * VL, vfirst(d * (h - n) * z * (one - z), m))
            vstore(s.dh + at, d * z)
            vstore(s.scratch + at, vset(0))
    recur_late_back(s, 0, 1, s.scratch)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            dz = s.dz + u * s.dz_panel + b * 3 * VL
            at = u * s.d_panel + b * VL
            r = vload(s.z + u * s.z_panel + b * 3 * VL + VL)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d_rh = vload(s.scratch + at)
            vstore(dz + VL, vfirst(d_rh * h * r * (one - r), m))
            vstore_first(s.operand + b * s.H + u * VL, h * r, m)
            vstore(s.dh + at, vfma(d_rh, r, vload(s.dh + at)))
    recur_back(s, 1, 2)


cdef inline Workspace gru_reset_before_workspace(bint *_given) noexcept nogil:
    """Return the scratch sizes: backward, the gradient of r h."""
    return Workspace(forward=0, backward=1, chunk=0)


cdef inline void gru_general_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, v
    cdef real *gates
    cdef vf zn, zr, zz, hn, z, h
    be_small()
    recur(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        v = slot_lanes(m, s.lanes)
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 4 * VL
            load_gates(gates, v, &zn, &zr, &zz, &hn)
            zn = vfma(activated(&s.gating.of[GATE], zr), hn, zn)
            store_gates(gates, v, zn, zr, zz, hn)
            z = activated(&s.gating.of[GATE], zz)
            h = z * vload_first(s.h_own + b * s.h_row + u * VL, m)
            h = vsettled(vfma(vset(1) - z, activated(&s.gating.of[CANDIDATE], zn), h))
            vstore_first(s.out + b * s.out_row + u * VL, h, m)


cdef inline void gru_general_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, v
    cdef real *dh
    cdef vf zn, zr, zz, hn, n, z, h, d, d_n, d_r, d_z
    be_small()
    for u in range(s.blocks):
        m = s.H - u * VL
        v = slot_lanes(m, s.lanes)
        for b in range(s.B):
            dh = s.dh + u * s.d_panel + b * VL
            load_gates(s.z + u * s.z_panel + b * 4 * VL, v, &zn, &zr, &zz, &hn)
            n, z = activated(&s.gating.of[CANDIDATE], zn), activated(&s.gating.of[GATE], zz)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d = vload(dh)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, m)
            vstore(dh, d * z)
            d_n = activated_back(&s.gating.of[CANDIDATE], zn, d * (vset(1) - z))
            d_r = activated_back(&s.gating.of[GATE], zr, d_n * hn)
            d_z = activated_back(&s.gating.of[GATE], zz, d * (h - n))
            d = d_n * activated(&s.gating.of[GATE], zr)
            store_gates(
                s.dz + u * s.dz_panel + b * 4 * VL, v, vfirst(d_n, m), vfirst(d_r, m),
                vfirst(d_z, m), vfirst(d, m),
            )
    recur_back(s, 1, 3)


cdef inline void gru_reset_before_general_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, m
    cdef real *gates
    cdef vf z, h
    be_small()
    recur(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            h = vload_first(s.h_own + b * s.h_row + u * VL, m)
            h = activated(&s.gating.of[GATE], vload(s.z + u * s.z_panel + b * 3 * VL + VL)) * h
            vstore_first(s.operand + b * s.H + u * VL, h, m)
    recur_late(s)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 3 * VL
            z = activated(&s.gating.of[GATE], vload(gates + 2 * VL))
            h = z * vload_first(s.h_own + b * s.h_row + u * VL, m)
            h = vsettled(vfma(vset(1) - z, activated(&s.gating.of[CANDIDATE], vload(gates)), h))
            vstore_first(s.out + b * s.out_row + u * VL, h, m)


cdef inline void gru_reset_before_general_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, m, at
    cdef const real *gates
    cdef real *dz
    cdef vf zn, zr, zz, n, r, z, h, d, d_n, d_r, d_z, d_rh
    be_small()
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            gates = s.z + u * s.z_panel + b * 3 * VL
            dz = s.dz + u * s.dz_panel + b * 3 * VL
            at = u * s.d_panel + b * VL
            zn, zz = vload(gates), vload(gates + 2 * VL)
            n, z = activated(&s.gating.of[CANDIDATE], zn), activated(&s.gating.of[GATE], zz)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d = vload(s.dh + at)
            if s.dy is not NULL:
                d = d + vload_first(s.dy + b * s.dy_row + u * VL, m)
            vstore(s.dh + at, d * z)
            vstore(s.scratch + at, vset(0))
            d_n = activated_back(&s.gating.of[CANDIDATE], zn, d * (vset(1) - z))
            d_z = activated_back(&s.gating.of[GATE], zz, d * (h - n))
            vstore(dz, vfirst(d_n, m))
            vstore(dz + 2 * VL, vfirst(d_z, m))
    recur_late_back(s, 0, 1, s.scratch)
    for u in range(s.blocks):
        m = s.H - u * VL
        for b in range(s.B):
            dz = s.dz + u * s.dz_panel + b * 3 * VL
            at = u * s.d_panel + b * VL
            zr = vload(s.z + u * s.z_panel + b * 3 * VL + VL)
            r = activated(&s.gating.of[GATE], zr)
            h = vload_first(s.h_prev + b * s.h_row + u * VL, m)
            d_rh = vload(s.scratch + at)
            d_r = activated_back(&s.gating.of[GATE], zr, d_rh * h)
            vstore(dz + VL, vfirst(d_r, m))
            vstore_first(s.operand + b * s.H + u * VL, h * r, m)
            vstore(s.dh + at, vfma(d_rh, r, vload(s.dh + at)))
    recur_back(s, 1, 2)
