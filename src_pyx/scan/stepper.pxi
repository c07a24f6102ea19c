# Streams: one step of a cell at a time. Included in kernels.pyx.

cimport cython
from libc.string cimport memcpy, memset
from packing cimport Weights, new_step
from panels cimport Panels, ceil_div, some_panels, split_blocks
from projection cimport InputProduct, multiply_inputs, project_output
from split cimport LOST, clock_now, pool, threads_for_step, update_backoff
from step cimport MAX_VECTORS, Step
from vec cimport VL, float_mode, flush_subnormals, narrow_row, real, restore_mode, vcopy

from dataclasses import replace

import numpy as np


cdef struct StepShare:
    # A step whose blocks are split among threads.
    Step s
    InputProduct x
    real *y
    ptrdiff_t narrow        # size of a thread's scratch
    const Weights *w


cdef void step_share(int index, int count, void *what) noexcept nogil:
    """Run the share of one of `count` threads."""
    cdef StepShare *all = <StepShare *>what
    cdef const Weights *w = all.w
    cdef ptrdiff_t u0 = split_blocks(w.blocks, index, count)
    cdef ptrdiff_t u1 = split_blocks(w.blocks, index + 1, count), i
    cdef Panels w_x = some_panels(&w.x, u0, u1), w_h = some_panels(&w.h, u0, u1)
    cdef Step s = all.s
    cdef InputProduct x = all.x
    cdef float_mode mode = flush_subnormals()
    x.w, x.bias, x.z = &w_x, w.bias + u0 * w.size, all.x.z + u0 * x.z_panel
    if s.narrow is not NULL:
        s.narrow += index * all.narrow
        x.narrow = s.narrow
    multiply_inputs(&x)
    s.H, s.blocks, s.w_hh, s.z = w.H - u0 * VL, u1 - u0, &w_h, x.z
    s.h_own = all.s.h + u0 * VL
    s.out, s.out_row = all.y + u0 * VL, w.P
    for i in range(1, w.layout.states):
        s.states[i] += u0 * s.state_panel
    if w.u is not NULL:
        s.u += u0 * w.size
    for i in range(MAX_VECTORS):
        if s.vectors[i] is not NULL:
            s.vectors[i] += u0 * w.layout.vectors[i] * VL
    if s.scratch is not NULL:
        s.scratch += u0 * s.scratch_panel
    w.layout.run.forward(&s)
    restore_mode(mode)


cdef bint same_sizes(config, other) except -1:
    """Return whether configurations differ at most in their precision."""
    if config == other:
        return True
    return replace(config, matmul_precision=other.matmul_precision) == other


@cython.final
cdef class Stepper(Stage):
    """A layer's state, advanced one time step at a time."""

    cdef object weights, kernels
    cdef object copy            # the exclusive Copy of the weights, or None
    cdef readonly tuple state
    cdef Packed packed
    cdef list memory
    cdef object pinned          # keeps the states from being resized
    cdef real *states           # (count, B, padded)
    cdef real *z
    cdef real *operand
    cdef real *out
    cdef real *projected
    cdef real *scratch
    cdef real *narrow           # rows in the weights' format, for some threads; or NULL
    cdef int narrow_threads
    cdef NormBuffers x_norm, h_norm
    cdef Step s
    cdef InputProduct x

    def __cinit__(self, weights, kernels, ptrdiff_t batch_size):
        cdef Packed packed = weights.packed(kernels)
        if packed is None or batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        cdef const Weights *w = &packed.w
        cdef ptrdiff_t B = batch_size, padded = w.blocks * VL
        self.weights, self.kernels = weights, kernels
        self.B, self.I, self.P, self.work = B, w.I, w.P, multiply_adds(w, B)
        self.packed, self.memory = packed, []
        self.z = scratch(self.memory, product_of(w.blocks, B, w.size))
        self.operand = scratch(self.memory, product_of(B, w.H))
        self.out = scratch(self.memory, product_of(B, w.H))
        self.projected = scratch(self.memory, product_of(ceil_div(w.P, VL), B, VL))
        self.scratch = scratch(self.memory, product_of(w.workspace.forward, w.blocks, B, VL))
        self.x_norm, self.h_norm = NormBuffers(packed, B), NormBuffers(packed, B)
        states = np.zeros((w.layout.states, B, padded), np.dtype(f"f{sizeof(real)}"))
        self.pinned, self.states = pin(states), data(states)
        sizes = packed.cell.state_sizes(packed.config)
        self.state = tuple([states[i, :, :n] for i, n in enumerate(sizes)])
        self.refresh()

    cdef bint is_ready(self) except -1:
        return self.weights.copy is self.copy

    cdef int refresh(self) except -1:
        cdef Packed packed = self.weights.packed(self.kernels)
        cdef const Weights *w = &packed.w
        cdef ptrdiff_t padded = w.blocks * VL, i
        cdef Step *s = &self.s
        cdef InputProduct *x = &self.x
        if (
            packed is None or packed.cell is not self.packed.cell
            or not same_sizes(packed.config, self.packed.config)
        ):
            raise ValueError("weights: expected those with which the stream was made")
        copy = self.weights.copy
        self.copy = copy if copy.exclusive and copy.packed is packed else None
        self.packed = packed
        s[0] = new_step(w, 0)
        s.B = self.B
        s.z, s.z_panel, s.operand = self.z, self.B * w.size, self.operand
        s.h = s.h_own = s.out = self.states
        s.h_row = s.out_row = padded
        s.norm = self.h_norm.norm(w, w.gain_h)
        s.scratch, s.scratch_panel = self.scratch, self.B * VL
        s.scratch_size = w.blocks * s.scratch_panel
        if w.projects:
            s.out, s.out_row = self.out, w.H
        s.state_row, s.state_panel = padded, VL
        for i in range(1, w.layout.states):
            s.states[i] = self.states + i * self.B * padded
        memset(x, 0, sizeof(InputProduct))
        x.w, x.bias, x.slots, x.H = &w.x, w.bias, w.layout.slots, w.H
        x.T, x.B, x.x_b = 1, self.B, w.I
        x.z, x.z_panel = self.z, s.z_panel
        x.norm = self.x_norm.norm(w, w.gain_x)
        if w.x.format.narrow_rows is not NULL:
            if self.narrow is NULL:
                self.narrow_threads = pool.most
                self.narrow = scratch(
                    self.memory, product_of(self.narrow_threads, self.B, self._narrow_row())
                )
            s.narrow = x.narrow = self.narrow
        return 0

    cdef ptrdiff_t _narrow_row(self) noexcept nogil:
        return narrow_row(max(self.I, self.packed.w.H, self.P))

    cdef void run(self, const void *x, real *y) noexcept nogil:
        cdef int threads
        cdef long long begun
        if self.work < pool.least_awake:
            self._run(<const real *>x, y, 1)
            return
        threads = threads_for_step(&self.packed.w, self.work)
        begun = clock_now()
        self._run(<const real *>x, y, threads)
        pool.ended = clock_now()
        if threads > 1 and self.work < pool.least_call:
            update_backoff(pool.ended - begun > LOST)

    cdef void _run(self, const real *x, real *y, int threads) noexcept nogil:
        cdef ptrdiff_t b
        cdef const Weights *w = &self.packed.w
        cdef StepShare all
        cdef float_mode mode
        self.x.x = x
        if self.s.narrow is not NULL:
            threads = min(threads, self.narrow_threads)
        if threads > 1:
            # The old h, and x, which may overlap y, are read until the last thread is done.
            all.s, all.x, all.y, all.w = self.s, self.x, self.out, w
            all.narrow = self.B * self._narrow_row()
            pool.run(threads, step_share, &all, False)
            for b in range(self.B):
                vcopy(<real *>self.s.h + b * self.s.h_row, self.out + b * self.P, self.P)
            memcpy(y, self.out, self.B * self.P * sizeof(real))
            return
        mode = flush_subnormals()
        multiply_inputs(&self.x)
        w.layout.run.forward(&self.s)
        if w.projects:
            project_output(
                w, self.B, self.out, self.projected, <real *>self.s.h, self.s.h_row, self.s.narrow,
            )
        for b in range(self.B):
            vcopy(y + b * self.P, self.s.h + b * self.s.h_row, self.P)
        restore_mode(mode)
