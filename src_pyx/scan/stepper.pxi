# Streams: one step of a cell at a time. Included in kernels.pyx.

cimport cython
from libc.string cimport memcpy, memset
from packing cimport Weights, new_step
from panels cimport Panels, ceil_div, panels_size, round_row, some_panels, split_blocks
from projection cimport InputProduct, multiply_inputs, project_output
from split cimport (
    LOST, clock_now, most_threads, poke_long, pool, threads_for_step, update_backoff,
)
from step cimport MAX_VECTORS, Step
from vec cimport (
    FASTRNN_INT8, MAX_GROUPS, VL, WIDEST, float_mode, flush_subnormals, narrow_row, real,
    restore_mode, vcopy,
)

from dataclasses import replace

import numpy as np


cdef enum:
    # Bytes of int8 weights from which on a step runs in parts: half of a common L2 cache.
    PARTS_FROM = 524288


cdef struct StepShare:
    # A step whose blocks are split among threads.
    Step s
    InputProduct x
    ptrdiff_t narrow        # size of a thread's scratch
    const Weights *w


cdef struct StepPart:
    # A step of some blocks.
    Step s
    InputProduct x
    Panels w_x
    Panels w_h


cdef void enter_part(
    StepPart *mine, const Step *s, const InputProduct *x, const Weights *w, ptrdiff_t u0,
    ptrdiff_t u1,
) noexcept nogil:
    """Make a step of blocks `u0` to before `u1` of one of all blocks."""
    cdef ptrdiff_t i
    mine.s, mine.x = s[0], x[0]
    mine.w_x, mine.w_h = some_panels(&w.x, u0, u1), some_panels(&w.h, u0, u1)
    mine.x.w, mine.x.bias = &mine.w_x, w.bias + u0 * w.size
    mine.x.z = mine.s.z = x.z + u0 * x.z_panel
    mine.s.H, mine.s.blocks, mine.s.w_hh = w.H - u0 * VL, u1 - u0, &mine.w_h
    mine.s.h_own = s.h + u0 * VL
    mine.s.out = s.out + u0 * VL
    for i in range(1, w.layout.states):
        mine.s.states[i] += u0 * s.state_panel
    if w.u is not NULL:
        mine.s.u += u0 * w.size
    for i in range(MAX_VECTORS):
        if s.vectors[i] is not NULL:
            mine.s.vectors[i] += u0 * w.layout.vectors[i] * VL
    if s.scratch is not NULL:
        mine.s.scratch += u0 * s.scratch_panel


cdef void step_share(int index, int count, void *what) noexcept nogil:
    """Run the share of one of `count` threads."""
    cdef StepShare *all = <StepShare *>what
    cdef const Weights *w = all.w
    cdef StepPart mine
    cdef float_mode mode = flush_subnormals()
    enter_part(
        &mine, &all.s, &all.x, w, split_blocks(w.blocks, index, count),
        split_blocks(w.blocks, index + 1, count),
    )
    if mine.s.narrow is not NULL:
        mine.s.narrow += index * all.narrow
        mine.x.narrow = mine.s.narrow
    multiply_inputs(&mine.x)
    w.layout.run.forward(&mine.s)
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
    cdef real *narrow_x         # and x, for parts
    cdef int narrow_threads
    cdef NormBuffers x_norm, h_norm
    cdef Step s
    cdef InputProduct x
    # A step of a single row with many int8 weights runs in parts, in turn from the first and from
    # the last, as the L2 cache still has the weights of the last ones.
    cdef StepPart *parts        # or NULL
    cdef ptrdiff_t part_count
    cdef bint from_last

    def __cinit__(self, weights, kernels, ptrdiff_t batch_size):
        cdef Packed packed = weights.packed(kernels)
        if packed is None or batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        cdef const Weights *w = &packed.w
        cdef ptrdiff_t B = batch_size, padded = w.blocks * VL
        self.weights, self.kernels, self.has_state = weights, kernels, True
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
        cdef const Weights *w
        cdef ptrdiff_t padded, i
        cdef Step *s = &self.s
        cdef InputProduct *x = &self.x
        if (
            packed is None or packed.cell is not self.packed.cell
            or not same_sizes(packed.config, self.packed.config)
        ):
            raise ValueError("weights: expected those with which the stream was made")
        w, padded = &packed.w, packed.w.blocks * VL
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
                self.narrow_threads = most_threads()
                self.narrow = scratch(
                    self.memory, product_of(self.narrow_threads, self.B, self._narrow_row())
                )
            s.narrow = x.narrow = self.narrow
        if (
            FASTRNN_INT8 and self.B == 1 and w.splits and w.layout.dense
            and panels_size(&w.x) + panels_size(&w.h) >= PARTS_FROM
        ):
            self._set_parts()
        return 0

    cdef int _set_parts(self) except -1:
        cdef const Weights *w = &self.packed.w
        cdef ptrdiff_t i, count
        cdef StepPart *part
        cdef Buffer buffer
        if self.parts is NULL:
            count = ceil_div(w.blocks, MAX_GROUPS * (WIDEST if w.h.gates == 1 else 1))
            buffer = room(count, sizeof(StepPart))
            self.memory.append(buffer)
            self.part_count, self.parts = count, <StepPart *>buffer.data
            self.narrow_x = scratch(self.memory, self._narrow_row())
        for i in range(self.part_count):
            part = self.parts + i
            enter_part(
                part, &self.s, &self.x, w, split_blocks(w.blocks, i, self.part_count),
                split_blocks(w.blocks, i + 1, self.part_count),
            )
            part.x.narrow = self.narrow_x
            part.w_x.rounded = part.w_h.rounded = True
        return 0

    cdef void _run_parts(self, const real *x) noexcept nogil:
        cdef const Weights *w = &self.packed.w
        cdef ptrdiff_t i, last = self.part_count - 1
        cdef StepPart *part
        round_row(&w.x, x, self.narrow_x)
        round_row(&w.h, self.s.h, self.narrow)
        for i in range(self.part_count):
            part = self.parts + (last - i if self.from_last else i)
            multiply_inputs(&part.x)
            w.layout.run.forward(&part.s)
        self.from_last = not self.from_last

    cdef ptrdiff_t _narrow_row(self) noexcept nogil:
        return narrow_row(max(self.I, self.packed.w.H, self.P))

    cdef void run(self, const void *x, real *y) noexcept nogil:
        cdef int threads
        cdef long long begun, ended
        if self.work < pool.least_awake:
            self._run(<const real *>x, y, 1)
            return
        threads = threads_for_step(&self.packed.w, self.work)
        begun = clock_now()
        self._run(<const real *>x, y, threads)
        ended = clock_now()
        poke_long(pool.ended, ended)
        if threads > 1 and self.work < pool.least_call:
            update_backoff(ended - begun > LOST)

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
            all.s, all.x, all.w = self.s, self.x, w
            all.s.out, all.s.out_row = self.out, w.P
            all.narrow = self.B * self._narrow_row()
            pool.run(threads, step_share, &all, False)
            for b in range(self.B):
                vcopy(<real *>self.s.h + b * self.s.h_row, self.out + b * self.P, self.P)
            memcpy(y, self.out, self.B * self.P * sizeof(real))
            return
        mode = flush_subnormals()
        if self.parts is not NULL:
            self._run_parts(x)
        else:
            multiply_inputs(&self.x)
            w.layout.run.forward(&self.s)
        if w.projects:
            project_output(
                w, self.B, self.out, self.projected, <real *>self.s.h, self.s.h_row, self.s.narrow,
            )
        for b in range(self.B):
            vcopy(y + b * self.P, self.s.h + b * self.s.h_row, self.P)
        restore_mode(mode)
