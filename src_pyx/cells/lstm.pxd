"""Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

c' = f c + i g; h' = o tanh(c'). Slots: i, f, g, o. With peepholes (Gers et al. 2002) i and f also
see w c, and o sees w c'. With layer normalisation (Ba et al. 2016) h' = o tanh(LN(c')).
"""

from gating cimport activated, activated_back, be_small, gating
from norm cimport normalise_row, normalise_row_back
from step cimport (
    ChunkSums, Step, StepBack, Workspace, add_vector_to, clear_dh, load_gates, recur, recur_back,
    slot_lanes, store_gates, sum_rows,
)
from vec cimport (
    FASTRNN_INT8, VL, real, vf, vfirst, vfma, vfnma, vload, vload_first, vset, vsettled, vsigmoid,
    vstore, vstore_first, vtanh,
)

cdef enum:
    C = 1           # index of the cell state
    # Indices of vectors: weight_ci, weight_cf and weight_co; gain_c and bias_c.
    PEEPHOLE = 0
    NORM = 1
    # Indices of activations: of gates, of g, and of the cell state.
    GATE = 0
    CELL = 1
    HIDDEN = 2


cdef inline void forward(const Step *s, bint peephole, bint norm) noexcept nogil:
    cdef ptrdiff_t u, b, n, v
    cdef real *z
    cdef real *c_state
    cdef const real *w
    cdef vf zi, zf, zg, zo, i, f, g, o, c_prev, c
    recur(s)
    for u in range(s.blocks):
        n = s.H - u * VL
        v = slot_lanes(n, s.lanes)
        w = s.vectors[PEEPHOLE] + u * 3 * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            c_state = s.states[C] + u * s.state_panel + b * s.state_row
            c_prev = vload(c_state)
            load_gates(z, v, &zi, &zf, &zg, &zo)
            if peephole:
                zi = vfma(vload(w), c_prev, zi)
                zf = vfma(vload(w + VL), c_prev, zf)
            i = vsigmoid(zi)
            f = vsigmoid(zf)
            g = vtanh(zg)
            c = vsettled(vfma(f, c_prev, i * g))
            if peephole:
                zo = vfma(vload(w + 2 * VL), c, zo)
            o = vsigmoid(zo)
            if norm or not FASTRNN_INT8:
                store_gates(z, v, i, f, g, o)
            vstore(c_state, c)
            if norm:
                vstore(s.scratch + u * s.scratch_panel + b * VL, vfirst(c, n))
            else:
                vstore_first(s.out + b * s.out_row + u * VL, o * vtanh(c), n)
    if norm:
        for b in range(s.B):
            normalise_row(s.scratch + b * VL, s.scratch_panel, 1, s.blocks, s.H)
        for u in range(s.blocks):
            w = s.vectors[NORM] + u * 2 * VL
            for b in range(s.B):
                o = vload(s.z + u * s.z_panel + b * 4 * VL + 3 * VL)
                c = vload(s.scratch + u * s.scratch_panel + b * VL)
                c = vfma(c, vload(w), vload(w + VL))
                vstore_first(s.out + b * s.out_row + u * VL, o * vtanh(c), s.H - u * VL)


cdef inline vf d_output(const StepBack *s, ptrdiff_t u, ptrdiff_t b) noexcept nogil:
    """Return the gradient of the output, block u of row b."""
    cdef vf d = vload(s.d_out + u * s.d_panel + b * VL)
    if s.dy is not NULL:
        d = d + vload_first(s.dy + b * s.dy_row + u * VL, s.H - u * VL)
    return d


cdef inline void normalise_cell(const StepBack *s) noexcept nogil:
    """Recompute c_hat; write d_seen, the gradient of LN(c'), and dc_hat, its part in that of c'."""
    cdef ptrdiff_t u, b, at, panel = s.kept_panel
    cdef real *c_hat = s.kept
    cdef real *d_seen = s.kept + s.kept_size
    cdef real *dc_hat = s.scratch
    cdef const real *norm_c = s.vectors[NORM]
    cdef const real *z
    cdef real rstd
    cdef vf c, tanh_c, d, gain, one = vset(1)
    for b in range(s.B):
        for u in range(s.blocks):
            z = s.z + u * s.z_panel + b * 4 * VL
            c = vload(s.states[C] + u * s.state_panel + b * VL)
            c = vfma(vload(z + VL), c, vload(z) * vload(z + 2 * VL))
            vstore(c_hat + u * panel + b * VL, vfirst(c, s.H - u * VL))
        rstd = normalise_row(c_hat + b * VL, panel, 1, s.blocks, s.H)
        for u in range(s.blocks):
            at = u * panel + b * VL
            gain = vload(norm_c + u * 2 * VL)
            tanh_c = vtanh(vfma(vload(c_hat + at), gain, vload(norm_c + u * 2 * VL + VL)))
            d = d_output(s, u, b) * vload(s.z + u * s.z_panel + b * 4 * VL + 3 * VL)
            d = vfirst(d * vfnma(tanh_c, tanh_c, one), s.H - u * VL)
            vstore(d_seen + at, d)
            vstore(dc_hat + u * s.d_panel + b * VL, d * gain)
        normalise_row_back(
            dc_hat + b * VL, s.d_panel, c_hat + b * VL, panel, rstd, 1, s.blocks, s.H
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
        v = slot_lanes(n, s.lanes)
        w = s.vectors[PEEPHOLE] + u * 3 * VL
        w_c = s.vectors[NORM] + u * 2 * VL
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            dc = s.dstates[C] + u * s.d_panel + b * VL
            load_gates(z, v, &i, &f, &g, &o)
            c_prev = vload(s.states[C] + u * s.state_panel + b * VL)
            c = vfma(f, c_prev, i * g)
            seen = c
            if norm:
                seen = vload(s.kept + u * s.kept_panel + b * VL)
                seen = vfma(seen, vload(w_c), vload(w_c + VL))
            tanh_c = vtanh(seen)
            d_h = d_output(s, u, b)
            dzo = vfirst(d_h * tanh_c * o * (one - o), n)
            if norm:
                d_c = vload(dc) + vload(s.scratch + u * s.d_panel + b * VL)
            else:
                d_c = vfma(d_h * o, vfnma(tanh_c, tanh_c, one), vload(dc))
            if peephole:
                d_c = vfma(dzo, vload(w + 2 * VL), d_c)
            dzi = vfirst(d_c * g * i * (one - i), n)
            dzf = vfirst(d_c * c_prev * f * (one - f), n)
            store_gates(dz, v, dzi, dzf, vfirst(d_c * i * vfnma(g, g, one), n), dzo)
            d_c = d_c * f
            if peephole:
                d_c = vfma(dzf, vload(w + VL), vfma(dzi, vload(w), d_c))
            vstore(dc, d_c)
            if s.out is not NULL:
                vstore_first(s.out + b * s.H + u * VL, o * tanh_c, n)
    clear_dh(s)
    recur_back(s, 0, 4)


cdef inline void lstm_forward(const Step *s) noexcept nogil:
    # Constant options, so that the plain variant pays nothing for them.
    if s.vectors[NORM] is not NULL:
        forward(s, s.vectors[PEEPHOLE] is not NULL, True)
    elif s.vectors[PEEPHOLE] is not NULL:
        forward(s, True, False)
    else:
        forward(s, False, False)


cdef inline void lstm_backward(const StepBack *s) noexcept nogil:
    if s.vectors[NORM] is not NULL:
        backward(s, s.vectors[PEEPHOLE] is not NULL, True)
    elif s.vectors[PEEPHOLE] is not NULL:
        backward(s, True, False)
    else:
        backward(s, False, False)


cdef inline Workspace lstm_workspace(bint *given) noexcept nogil:
    """Return the scratch sizes with LN(c'): c_hat; dc_hat; and c_hat and d_seen for the sums."""
    return Workspace(
        forward=given[NORM], backward=given[NORM], chunk=2 if given[NORM] else 0
    )


cdef inline void lstm_sum_gradients(const ChunkSums *s) noexcept nogil:
    cdef ptrdiff_t u
    cdef real *sums
    cdef const real *d_seen
    if s.sums[PEEPHOLE] is not NULL:
        sum_peepholes(s, s.sums[PEEPHOLE])
    if s.sums[NORM] is not NULL:
        for u in range(s.blocks):
            sums = s.sums[NORM] + u * 2 * VL
            d_seen = s.kept + s.kept_size + u * s.kept_panel
            sum_rows(sums, 1, 1, s.rows, d_seen, 0, s.kept + u * s.kept_panel, 0)
            sum_rows(sums + VL, 1, 1, s.rows, d_seen, 0, NULL, 0)


cdef inline void sum_peepholes(const ChunkSums *s, real *sums) noexcept nogil:
    """Sum the gradients of the peepholes: i and f see the old cell state, o the new one."""
    cdef ptrdiff_t u, b, v
    cdef const real *dz
    cdef const real *z
    cdef vf c, dwi, dwf, dwo
    for u in range(s.blocks):
        dwi = dwf = dwo = vset(0)
        v = VL if u < s.blocks - 1 else s.lanes
        for b in range(s.rows):
            dz = s.dz + u * s.dz_panel + b * 4 * VL
            z = s.z + u * s.z_panel + b * 4 * VL
            c = vload(s.states[C] + u * s.state_panel + b * VL)
            dwi = vfma(vload(dz), c, dwi)
            dwf = vfma(vload(dz + v), c, dwf)
            if s.gating.given:
                c = new_cell(s.gating, vload(z), vload(z + v), vload(z + 2 * v), c)
            else:
                c = vfma(vload(z + v), c, vload(z) * vload(z + 2 * v))
            dwo = vfma(vload(dz + 3 * v), c, dwo)
        add_vector_to(sums + u * 3 * VL, dwi)
        add_vector_to(sums + u * 3 * VL + VL, dwf)
        add_vector_to(sums + u * 3 * VL + 2 * VL, dwo)


# In general: with the activations of a gating, and gates that may be coupled.

cdef inline vf forget_gate(const gating *how, vf zf, vf i) noexcept nogil:
    return vset(1) - i if how.coupled else activated(&how.of[GATE], zf)


cdef inline vf new_cell(const gating *how, vf zi, vf zf, vf zg, vf c) noexcept nogil:
    """Return the new cell state, from what activations are applied to, and the old one."""
    cdef vf i = activated(&how.of[GATE], zi)
    return vsettled(vfma(forget_gate(how, zf, i), c, i * activated(&how.of[CELL], zg)))


cdef inline void write_output(const Step *s, ptrdiff_t u, ptrdiff_t b, vf zo, vf c) noexcept nogil:
    """Write the output, block u of row b, given the cell state or its normalisation."""
    cdef vf h = activated(&s.gating.of[GATE], zo) * activated(&s.gating.of[HIDDEN], c)
    vstore_first(s.out + b * s.out_row + u * VL, h, s.H - u * VL)


cdef inline void lstm_general_forward(const Step *s) noexcept nogil:
    cdef ptrdiff_t u, b, v
    cdef real *z
    cdef real *c_state
    cdef const real *w
    cdef vf zi, zf, zg, zo, c
    be_small()
    recur(s)
    for u in range(s.blocks):
        v = slot_lanes(s.H - u * VL, s.lanes)
        for b in range(s.B):
            z = s.z + u * s.z_panel + b * 4 * VL
            c_state = s.states[C] + u * s.state_panel + b * s.state_row
            c = vload(c_state)
            load_gates(z, v, &zi, &zf, &zg, &zo)
            if s.vectors[PEEPHOLE] is not NULL:
                w = s.vectors[PEEPHOLE] + u * 3 * VL
                zi, zf = vfma(vload(w), c, zi), vfma(vload(w + VL), c, zf)
                c = new_cell(s.gating, zi, zf, zg, c)
                zo = vfma(vload(w + 2 * VL), c, zo)
            else:
                c = new_cell(s.gating, zi, zf, zg, c)
            store_gates(z, v, zi, zf, zg, zo)
            vstore(c_state, c)
            if s.vectors[NORM] is not NULL:
                vstore(s.scratch + u * s.scratch_panel + b * VL, vfirst(c, s.H - u * VL))
            else:
                write_output(s, u, b, zo, c)
    if s.vectors[NORM] is NULL:
        return
    for b in range(s.B):
        normalise_row(s.scratch + b * VL, s.scratch_panel, 1, s.blocks, s.H)
    for u in range(s.blocks):
        w = s.vectors[NORM] + u * 2 * VL
        for b in range(s.B):
            c = vfma(vload(s.scratch + u * s.scratch_panel + b * VL), vload(w), vload(w + VL))
            write_output(s, u, b, vload(s.z + u * s.z_panel + b * 4 * VL + 3 * VL), c)


cdef inline void normalise_general_cell(const StepBack *s) noexcept nogil:
    """As `normalise_cell`."""
    cdef ptrdiff_t u, b, at, panel = s.kept_panel
    cdef real *c_hat = s.kept
    cdef real *dc_hat = s.scratch
    cdef const real *z
    cdef const real *w
    cdef real rstd
    cdef vf c, d
    be_small()
    for b in range(s.B):
        for u in range(s.blocks):
            z = s.z + u * s.z_panel + b * 4 * VL
            c = vload(s.states[C] + u * s.state_panel + b * VL)
            c = new_cell(s.gating, vload(z), vload(z + VL), vload(z + 2 * VL), c)
            vstore(c_hat + u * panel + b * VL, vfirst(c, s.H - u * VL))
        rstd = normalise_row(c_hat + b * VL, panel, 1, s.blocks, s.H)
        for u in range(s.blocks):
            at = u * panel + b * VL
            w = s.vectors[NORM] + u * 2 * VL
            c = vfma(vload(c_hat + at), vload(w), vload(w + VL))
            z = s.z + u * s.z_panel + b * 4 * VL
            d = d_output(s, u, b) * activated(&s.gating.of[GATE], vload(z + 3 * VL))
            d = vfirst(activated_back(&s.gating.of[HIDDEN], c, d), s.H - u * VL)
            vstore(s.kept + s.kept_size + at, d)
            vstore(dc_hat + u * s.d_panel + b * VL, d * vload(w))
        normalise_row_back(
            dc_hat + b * VL, s.d_panel, c_hat + b * VL, panel, rstd, 1, s.blocks, s.H
        )


cdef inline void lstm_general_backward(const StepBack *s) noexcept nogil:
    cdef ptrdiff_t u, b, n, v
    cdef real *dc
    cdef const real *w
    cdef vf zi, zf, zg, zo, i, f, g, c_prev, seen, h, d_h, d_c, dzi, dzf, dzg, dzo
    be_small()
    if s.vectors[NORM] is not NULL:
        normalise_general_cell(s)
    for u in range(s.blocks):
        n = s.H - u * VL
        v = slot_lanes(n, s.lanes)
        for b in range(s.B):
            dc = s.dstates[C] + u * s.d_panel + b * VL
            load_gates(s.z + u * s.z_panel + b * 4 * VL, v, &zi, &zf, &zg, &zo)
            c_prev = vload(s.states[C] + u * s.state_panel + b * VL)
            i, g = activated(&s.gating.of[GATE], zi), activated(&s.gating.of[CELL], zg)
            f = forget_gate(s.gating, zf, i)
            d_h, d_c = d_output(s, u, b), vload(dc)
            h = activated(&s.gating.of[GATE], zo)
            if s.vectors[NORM] is not NULL:
                w = s.vectors[NORM] + u * 2 * VL
                seen = vload(s.kept + u * s.kept_panel + b * VL)
                seen = vfma(seen, vload(w), vload(w + VL))
                d_c = d_c + vload(s.scratch + u * s.d_panel + b * VL)
            else:
                seen = vfma(f, c_prev, i * g)
                d_c = d_c + activated_back(&s.gating.of[HIDDEN], seen, d_h * h)
            seen = activated(&s.gating.of[HIDDEN], seen)
            dzo = vfirst(activated_back(&s.gating.of[GATE], zo, d_h * seen), n)
            if s.out is not NULL:
                vstore_first(s.out + b * s.H + u * VL, h * seen, n)
            if s.vectors[PEEPHOLE] is not NULL:
                d_c = vfma(dzo, vload(s.vectors[PEEPHOLE] + u * 3 * VL + 2 * VL), d_c)
            dzi, dzf = g, vset(0)
            if s.gating.coupled:
                dzi = g - c_prev
            else:
                dzf = vfirst(activated_back(&s.gating.of[GATE], zf, d_c * c_prev), n)
            dzi = vfirst(activated_back(&s.gating.of[GATE], zi, d_c * dzi), n)
            dzg = vfirst(activated_back(&s.gating.of[CELL], zg, d_c * i), n)
            store_gates(s.dz + u * s.dz_panel + b * 4 * VL, v, dzi, dzf, dzg, dzo)
            d_c = d_c * f
            if s.vectors[PEEPHOLE] is not NULL:
                w = s.vectors[PEEPHOLE] + u * 3 * VL
                d_c = vfma(dzf, vload(w + VL), vfma(dzi, vload(w), d_c))
            vstore(dc, d_c)
    clear_dh(s)
    recur_back(s, 0, 4)
