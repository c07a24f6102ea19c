# The scan of any cell over time, forward and backward. Included in kernels.pyx.

cimport cython
cimport numpy as cnp
from backward cimport (
    RUN_ALL, RUN_PAIRS, RUN_STEPS, RUN_SUMS, Backward, backward_share, begin_backward,
)
from forward cimport Forward, begin_forward, forward_share
from functions cimport SOFTMAX
from gating cimport MAX_ACTIVATIONS
from libc.string cimport memcmp, memset
from norm cimport Norm
from packing cimport (
    Gates, ScanSums, Weights, add_gates, add_vector, list_runs, norm_of, pack, pack_back,
    take_gates, take_vector, unpack,
)
from panels cimport Panels, WeightProduct, ceil_div, panels_for
from schedule cimport Schedule, set_bounds
from split cimport (
    HOLDS_GIL, MOST_PARTS, ROUND, ROW_COST, handle_signals, note_end, run_together, threads_for,
)
from step cimport MAX_VECTORS
from vec cimport BFLOAT16, FASTRNN_INT8, REALS, VL, gemm_run, narrow_row, real, tile_format

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.cells import CellConfig

cdef enum:
    # Bytes of gate values computed ahead of the recurrence: they fit into the L2 cache.
    CHUNK_BYTES = 131072
    # Rows of a chunk of BPTT: enough to amortise loading and storing the weight gradients.
    CHUNK_ROWS = 256
    # Elements in a cache line of 64 bytes.
    LINE = 64 // sizeof(real)

# A step later than any sequence's end, but small enough that differences cannot overflow.
FAR = 1 << 60


cdef class Packed:
    """An immutable copy of a layer's weights, in the layout of the kernels."""

    cdef readonly object cell, config
    cdef tuple names            # of all weights the cell can have
    cdef tuple vectors          # of the cell's own vectors
    cdef tuple copies
    cdef dict named             # the copies that are not None, by name
    cdef list memory
    cdef const tile_format *format      # of the matrices
    cdef Weights w

    # __cinit__ runs only once, so memory that kernels are reading is never replaced.
    def __cinit__(self, cell, config, weights, scales=None, limits=None):
        cdef Weights *w = &self.w
        if not isinstance(config, CellConfig):
            raise TypeError(f"config: expected a CellConfig, got {type(config).__name__}")
        if getattr(cell, "name", None) not in LAYOUTS:
            raise ValueError(f"cell: expected one of {', '.join(LAYOUTS)}, got {cell!r}")
        self.cell, self.config, self.memory = CELLS[cell.name], config, []
        self.names, self.vectors = self.cell.weights, VECTORS[self.cell.name]
        self.format = format_of(config.matmul_precision)
        shapes = self.cell.weight_shapes(config)
        if FASTRNN_INT8:
            weights, shapes = in_words(self.names, weights, scales, shapes)
        self.copies = copies_of(weights, self.names)
        self.named = {
            name: array for name, array in zip(self.names, self.copies, strict=False)
            if array is not None
        }
        check_shapes(shapes, self.named)
        w.layout = layouts[<int>LAYOUTS[self.cell.name]]
        if config.general:
            self._set_gating()
        w.I, w.H, w.P = config.input_size, config.hidden_size, config.output_size
        w.blocks, w.size = ceil_div(w.H, VL), w.layout.slots * VL
        # The last block is narrow if its gates are computed together and this saves a vector.
        w.lanes = w.H - (w.blocks - 1) * VL
        if w.layout.late.count or "gain_ih" in self.named or (
            1 < w.layout.x.count == ceil_div(w.layout.x.count * w.lanes, VL)
        ):
            w.lanes = VL
        self._pack_all()
        if FASTRNN_INT8:
            self._set_scales(limits)
        self._pack_vectors()
        w.splits = not w.projects and w.gain_x is NULL and w.late.w is NULL

    cdef int _set_gating(self) except -1:
        """Compute gates as the configuration says, not in the cell's own way."""
        cdef Weights *w = &self.w
        cdef ptrdiff_t i
        numbers = self.config.gating(self.cell, sizeof(real))
        cdef const real *of = matrix(numbers, "config", MAX_ACTIVATIONS, 4, IN)
        for i in range(MAX_ACTIVATIONS):
            if not 0 <= of[4 * i] < SOFTMAX:
                raise ValueError("config: expected activations of single numbers")
            w.gating.of[i].which, w.gating.of[i].clip = <int>of[4 * i], of[4 * i + 1]
            w.gating.of[i].a, w.gating.of[i].b = of[4 * i + 2], of[4 * i + 3]
        w.gating.given, w.gating.coupled = True, self.config.input_forget
        w.layout.run = GATED[<int>LAYOUTS[self.cell.name]]
        w.layout.out_is_z = False
        return 0

    cdef int _pack_all(self) except -1:
        """Pack the matrices."""
        cdef Weights *w = &self.w
        w.x = self._pack(&w.layout.x, "weight_ih", w.I)
        if w.layout.dense:
            w.h = self._pack(&w.layout.h, "weight_hh", w.P)
            if w.layout.late.count:
                w.late = self._pack(&w.layout.late, "weight_hh", w.P)
        else:
            w.h = panels_for(
                self.format, 0, w.blocks, w.layout.h.count, w.layout.h.first, w.lanes
            )
        w.projects = "weight_hr" in self.named
        if w.projects:
            w.out = self._panels(w.H, ceil_div(w.P, VL), 1, 0, VL)
            pack(&w.out, &OUTPUT, data(self.named["weight_hr"]), w.P)
        return 0

    cdef int _set_scales(self, limits) except -1:
        """Set what rows of x, h and the output are scaled by: see panels.pxd."""
        from fastrnn._kernels import quantized

        cdef Weights *w = &self.w
        w.x.limit, w.h.limit = limits
        w.h.least = quantized.least(self.cell, self.config)
        w.late.least, w.late.limit = w.h.least, w.h.limit
        w.out.least = 1
        return 0

    cdef int _pack_vectors(self) except -1:
        """Pack biases, gains, an elementwise recurrence, and the cell's own vectors."""
        cdef Weights *w = &self.w
        cdef ptrdiff_t i
        cdef bint[MAX_VECTORS] given
        w.zero, w.bias = self._zeros(w.layout.slots), self._zeros(w.layout.slots)
        self._add(w.bias, "bias_ih", "bias_hh")
        if w.layout.elementwise:
            w.u = self._zeros(w.layout.slots)
            self._add(w.u, None, "weight_hh")
        if "gain_ih" in self.named:
            w.gain_x, w.gain_h = self._zeros(w.layout.slots), self._zeros(w.layout.slots)
            self._add(w.gain_x, "gain_ih", None)
            self._add(w.gain_h, None, "gain_hh")
        memset(given, 0, sizeof(given))
        for i, names in enumerate(self.vectors):
            given[i] = not self.named.keys().isdisjoint(names)
            if given[i]:
                w.vectors[i] = self._zeros(len(names))
                for slot, name in enumerate(names):
                    if name in self.named:
                        add_vector(
                            w.vectors[i], len(names), slot, VL, data(self.named[name]), w.H
                        )
        if w.layout.run.workspace is not NULL:
            w.workspace = w.layout.run.workspace(given)
        return 0

    cdef real *_zeros(self, ptrdiff_t slots) except NULL:
        """Return zeros (blocks, slots * VL)."""
        cdef Buffer buffer = zeros(product_of(self.w.blocks, slots, VL))
        self.memory.append(buffer)
        return buffer.data

    cdef int _add(self, real *packed, str of_x, str of_h) except -1:
        """Add vectors (G*H,) that exist to the slots of their gates."""
        cdef Weights *w = &self.w
        cdef const real *vectors = data(self.named.get(of_h))
        add_gates(w, packed, &w.layout.x, data(self.named.get(of_x)))
        add_gates(w, packed, &w.layout.h, vectors)
        add_gates(w, packed, &w.layout.late, vectors)
        return 0

    cdef Panels _panels(
        self, ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first, ptrdiff_t lanes
    ):
        cdef Panels w = panels_for(self.format, K, blocks, gates, first, lanes)
        w.w = scratch(self.memory, product_of(w.depth, blocks, gates, VL))
        return w

    cdef Panels _pack(self, Gates *gates, str name, ptrdiff_t K):
        cdef Panels w = self._panels(K, self.w.blocks, gates.count, gates.first, self.w.lanes)
        pack(&w, gates, data(self.named[name]), self.w.H)
        return w

    cdef Panels _pack_back(self, Gates *gates, str name, ptrdiff_t H):
        """Pack a matrix for products with blocked gradients of H units."""
        cdef ptrdiff_t units = self.named[name].shape[1]
        cdef Panels w = self._panels(gates.count * H, ceil_div(units, VL), 1, 0, VL)
        cdef Buffer runs = room(product_of(gates.count, ceil_div(H, VL)), sizeof(gemm_run))
        self.memory.append(runs)
        w.runs = <gemm_run *>runs.data
        w.run_count = list_runs(<gemm_run *>runs.data, gates, H, self.w.lanes)
        pack_back(&w, gates, data(self.named[name]), H, units)
        return w

    cdef int need_back(self, bint of_x) except -1:
        """Pack the weights for BPTT when first needed; if `of_x`, also those for dx."""
        # Without a GIL, the first of several threads packs them.
        with cython.critical_section(self):
            self._pack_backs(of_x)
        return 0

    cdef int _pack_backs(self, bint of_x) except -1:
        cdef Weights *w = &self.w
        if of_x and w.x_back.w is NULL:
            w.x_back = self._pack_back(&w.layout.x, "weight_ih", w.H)
        if w.projects and w.out_back.w is NULL:
            w.out_back = self._pack_back(&OUTPUT, "weight_hr", w.P)
        if w.layout.dense and w.h_back.w is NULL:
            if w.layout.late.count:
                w.late_back = self._pack_back(&w.layout.late, "weight_hh", w.H)
            # Last, as it marks the others as present.
            w.h_back = self._pack_back(&w.layout.h, "weight_hh", w.H)
        return 0

    cdef dict results(self):
        """Return new arrays for gradients of the weights, by name."""
        return {name: new_like(array) for name, array in self.named.items()}

    def matches(self, weights):
        """Return whether the copy has the same bits as `weights`."""
        cdef cnp.ndarray mine
        for copy, theirs in zip(self.copies, weights, strict=True):
            if copy is None or theirs is None:
                if copy is not theirs:
                    return False
                continue
            mine = <cnp.ndarray>copy
            if (
                not is_flat(theirs, NPY_REAL, cnp.PyArray_SIZE(mine), IN)
                or not cnp.PyArray_SAMESHAPE(mine, <cnp.ndarray>theirs)
                or memcmp(data(mine), data(theirs), cnp.PyArray_NBYTES(mine)) != 0
            ):
                return False
        return True


cdef const tile_format *format_of(precision) except NULL:
    """Return the format of weights for products of this precision."""
    if precision == "float32":
        return &REALS
    _checks.matmul_precision(precision, np.dtype(f"f{sizeof(real)}"))
    return BFLOAT16


cdef tuple copies_of(weights, tuple names):
    """Return copies of weights, C-contiguous arrays of this module's dtype or None."""
    cdef list copies = []
    weights = tuple(weights)
    if len(weights) > len(names):
        raise ValueError(f"weights: expected at most {len(names)} arrays, got {len(weights)}")
    for name, array in zip(names, weights, strict=False):
        copy = array
        if array is not None:
            if cnp.PyArray_CheckExact(array):
                copy = cnp.PyArray_NewCopy(<cnp.ndarray>array, cnp.NPY_CORDER)
            else:
                copy = np.array(array, order="C") if cnp.PyArray_Check(array) else None
            if not is_plain(copy, NPY_REAL, IN):
                refuse(array, name, f"a {real_name()} array")
        copies.append(copy)
    return tuple(copies)


cdef int check_shapes(dict shapes, dict named) except -1:
    """Raise unless weights have these shapes; only biases may be missing."""
    for name, shape in shapes.items():
        if name not in named and not name.startswith("bias"):
            raise ValueError(f"{name}: expected shape {shape}, got None")
    for name, array in named.items():
        if array.shape != shapes.get(name):
            raise ValueError(f"{name}: expected shape {shapes.get(name)}, got {array.shape}")
    return 0


cdef class NormBuffers:
    """The buffers of layer normalisation of a product, for some rows."""

    cdef Buffer hat         # (blocks, rows, size)
    cdef Buffer rstd        # (rows, slots)
    cdef ptrdiff_t rows

    def __cinit__(self, Packed packed not None, ptrdiff_t rows):
        cdef Weights *w = &packed.w
        self.rows = rows
        self.hat = buffer_of(product_of(w.blocks, rows, w.size))
        self.rstd = buffer_of(product_of(rows, w.layout.slots))

    cdef Norm norm(self, const Weights *w, const real *gain) noexcept:
        """Return the layer normalisation of a product, with these buffers."""
        cdef Norm norm = norm_of(w, gain)
        norm.hat, norm.hat_panel = self.hat.data, self.rows * w.size
        norm.rstd = self.rstd.data
        return norm


cdef class Gradients:
    """Sums of weight gradients, to which each :func:`backward` adds.

    With ``of_row``, for one call, of a scan of only one row: it writes to the results.
    """

    cdef Packed packed
    cdef ScanSums sums
    cdef dict named         # the results by name, once there are any
    cdef list memory

    def __cinit__(self, Packed packed not None, bint of_row=False):
        cdef Weights *w = &packed.w
        cdef ScanSums *sums = &self.sums
        cdef ptrdiff_t i
        self.packed, self.memory = packed, []
        sums.of_row = of_row
        if of_row:
            self.named = packed.results()
            sums.x, sums.h = self._result(w.x, "weight_ih"), self._result(w.h, "weight_hh")
            sums.late, sums.out = (
                self._result(w.late, "weight_hh"), self._result(w.out, "weight_hr")
            )
        else:
            sums.x, sums.h = self._like(w.x), self._like(w.h)
            sums.late, sums.out = self._like(w.late), self._like(w.out)
        sums.bias = self._zeros(w.layout.slots)
        if w.u is not NULL:
            sums.u = self._zeros(w.layout.slots)
        if w.gain_x is not NULL:
            sums.gain_x = self._zeros(w.layout.slots)
            sums.gain_h = self._zeros(w.layout.slots)
        for i in range(MAX_VECTORS):
            if w.vectors[i] is not NULL:
                sums.vectors[i] = self._zeros(w.layout.vectors[i])

    cdef real *_zeros(self, ptrdiff_t slots) except NULL:
        cdef Buffer buffer = zeros(product_of(self.packed.w.blocks, slots, VL))
        self.memory.append(buffer)
        return buffer.data

    cdef Panels _like(self, Panels w):
        cdef Buffer buffer = zeros(product_of(w.K, w.blocks, w.gates, VL))
        self.memory.append(buffer)
        w.w, w.format, w.depth = buffer.data, &REALS, w.K
        return w

    cdef Panels _result(self, Panels w, str name):
        w.w = data(self.named[name]) if w.K else NULL
        return w

    def arrays(self):
        """Return the sums in new arrays, in the weights' order, shapes and layouts."""
        cdef Weights *w = &self.packed.w
        cdef ScanSums *sums = &self.sums
        cdef ptrdiff_t i
        cdef dict named = self.named
        if not sums.of_row:
            named = self.packed.results()
            unpack(&sums.x, &w.layout.x, data(named["weight_ih"]), w.H)
            if w.layout.dense:
                unpack(&sums.h, &w.layout.h, data(named["weight_hh"]), w.H)
                unpack(&sums.late, &w.layout.late, data(named["weight_hh"]), w.H)
            if w.projects:
                unpack(&sums.out, &OUTPUT, data(named["weight_hr"]), w.P)
        self._take(sums.bias, named.get("bias_ih"), named.get("bias_hh"))
        if w.u is not NULL:
            self._take(sums.u, None, named["weight_hh"])
        if w.gain_x is not NULL:
            self._take(sums.gain_x, named["gain_ih"], None)
            self._take(sums.gain_h, None, named["gain_hh"])
        for i, names in enumerate(self.packed.vectors):
            if sums.vectors[i] is NULL:
                continue
            for slot, name in enumerate(names):
                if named.get(name) is not None:
                    take_vector(sums.vectors[i], len(names), slot, VL, data(named[name]), w.H)
        return [named.get(name) for name in self.packed.names[: len(self.packed.copies)]]

    cdef int _take(self, const real *sums, of_x, of_h) except -1:
        """Read vectors (G*H,) that are not None from the slots of their gates."""
        cdef Weights *w = &self.packed.w
        take_gates(w, sums, &w.layout.x, data(of_x))
        take_gates(w, sums, &w.layout.h, data(of_h))
        take_gates(w, sums, &w.layout.late, data(of_h))
        return 0


cdef inline object new_like(cnp.ndarray array):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), NPY_REAL, 0)


cdef class Tape:
    """The tape of a :func:`forward` for :func:`backward`: inputs, and each step's values."""

    # The rows of all steps are consecutive, N in all.
    cdef readonly Packed packed     # None if not made by `forward`
    cdef Schedule schedule
    cdef list memory        # of the schedule
    cdef object reset       # (T, B) or None
    cdef Buffer x           # (N, I)
    cdef Buffer h           # (N, P); only those of the first step, (B, P), if z has the others
    cdef list states        # from 1 on: (blocks, N, VL) each
    cdef Buffer z           # (blocks, N, size)
    cdef NormBuffers x_norm, h_norm     # with layer normalisation

    cdef int allocate(self, Packed packed, Forward *f) except -1:
        cdef Weights *w = &packed.w
        cdef ptrdiff_t N = f.schedule.N, i
        self.schedule = f.schedule
        self.x = buffer_of(product_of(N, w.I))
        self.h = buffer_of(product_of(f.schedule.B if w.layout.out_is_z else N, w.P))
        self.z = buffer_of(product_of(w.blocks, N, w.size))
        self.states = []
        for i in range(1, w.layout.states):
            f.tape_states[i] = scratch(self.states, product_of(w.blocks, N, VL))
        if w.gain_x is not NULL:
            self.x_norm, self.h_norm = NormBuffers(packed, N), NormBuffers(packed, N)
        f.xs, f.z, f.z_rows, f.tape_h = self.x.data, self.z.data, N, self.h.data
        self.packed = packed
        return 0


cdef Schedule new_schedule(ptrdiff_t T, ptrdiff_t B, spans, list memory):
    """Return which rows run at which step; `memory` gets the buffers to keep alive."""
    cdef Schedule schedule = Schedule(
        T=T, B=B, N=product_of(T, B), offsets=NULL, order=NULL, bounds=NULL, shares=1
    )
    if spans is None:
        return schedule
    if not is_flat(spans, cnp.NPY_INT64, 2 * B, IN) or cnp.PyArray_NDIM(spans) != 2:
        refuse(spans, "spans", f"a C-contiguous int64 array (2, {B})")
    # Clipped so that no difference overflows, and copies, which no other thread can change.
    begin, end = np.clip(spans, -FAR, FAR)
    if not (
        (begin == begin[0]).all() and begin[0] <= 0 or (end == end[0]).all() and end[0] >= T
    ):
        raise ValueError(f"spans: expected that all start at 0 or all end at {T}, got {spans}")
    order = np.argsort(begin - end, kind="stable").astype(np.intp)
    begin, end = np.clip([begin, end], 0, T)
    starts = np.bincount(begin, minlength=T + 1)[: T + 1]
    ends = np.bincount(end, minlength=T + 1)[: T + 1]
    running = np.cumsum(starts - ends)[:T]
    offsets = np.concatenate([[0], np.cumsum(running)]).astype(np.intp)
    memory += [order, offsets]
    schedule.order = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>order)
    schedule.offsets = <ptrdiff_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets)
    schedule.N = schedule.offsets[T]
    return schedule


cdef tuple tuple_of(states, str name, ptrdiff_t count):
    """Return `count` states as a tuple, which cannot change during the call."""
    cdef tuple given = tuple(states)
    if len(given) != count:
        raise ValueError(f"{name}: expected {count} arrays, got {len(given)}")
    return given


cdef int take_states(
    const Weights *w, const real **to, tuple states, str name, ptrdiff_t B, int access, bint stacked
) except -1:
    """Check states or their gradients: (B, P) for h, (B, H) for others; inputs may be None.

    If `stacked`, they are those of the only layer of a stack: (1, B, P) and (1, B, H).
    """
    cdef ptrdiff_t i, n
    for i in range(w.layout.states):
        n = w.H if i else w.P
        if states[i] is None and access == IN:
            continue
        if not stacked:
            to[i] = matrix(states[i], name, B, n, access)
        elif is_stacked(states[i], B, n, access):
            to[i] = data(states[i])
        else:
            refuse(states[i], name, f"a C-contiguous {real_name()} array (1, {B}, {n})")
    return 0


cdef inline bint is_stacked(object array, ptrdiff_t B, ptrdiff_t n, int access) noexcept:
    """Return whether it is a C-contiguous array (1, B, n)."""
    return (
        is_plain(array, NPY_REAL, access | cnp.NPY_ARRAY_C_CONTIGUOUS)
        and cnp.PyArray_NDIM(<cnp.ndarray>array) == 3
        and cnp.PyArray_DIM(<cnp.ndarray>array, 0) == 1
        and cnp.PyArray_DIM(<cnp.ndarray>array, 1) == B
        and cnp.PyArray_DIM(<cnp.ndarray>array, 2) == n
    )


cdef ptrdiff_t multiply_adds(const Weights *w, ptrdiff_t rows) noexcept nogil:
    """Return the multiply-adds of one step of each of `rows` rows: of int8, a quarter of them."""
    cdef Py_ssize_t work = 0
    if multiply_overflows(rows, w.x.gates * w.blocks * VL * (w.I + w.P), &work):
        return PY_SSIZE_T_MAX
    # As they take a quarter of the time, which is what is asked for.
    return work // 4 if FASTRNN_INT8 else work


cdef ptrdiff_t step_work(const Weights *w, ptrdiff_t B) noexcept nogil:
    """Return the multiply-adds of a step, or as many as take as long as what else it does."""
    return min(multiply_adds(w, B), PY_SSIZE_T_MAX // 8) + B * ROW_COST


cdef int set_parts(
    Schedule *s, ptrdiff_t work, int threads, bint *by_blocks, list memory
) except -1:
    """Return in how many parts rows of a step of this work run; split the rows in such shares."""
    cdef int parts = min(1 + work // ROUND, s.B, MOST_PARTS)
    cdef Buffer bounds
    if parts > 1:
        by_blocks[0] = False
    if s.offsets is not NULL and parts * threads > 1:
        bounds = room(parts * threads + 1, sizeof(ptrdiff_t))
        memory.append(bounds)
        set_bounds(s, <ptrdiff_t *>bounds.data, parts * threads)
    return parts


def forward(
    Packed packed not None, x, state, y, state_n, *, bint keep=False, spans=None, reset=None
):
    """Run a layer over a sequence."""
    return run_scan(packed, x, state, y, state_n, keep, spans, reset, False)


cdef Tape run_scan(
    Packed packed, x, state, y, state_n, bint keep, spans, reset, bint stacked
):
    """Run a layer over a sequence; the states are `stacked` or not."""
    cdef const Weights *w = &packed.w
    cdef ptrdiff_t T, B
    cdef Forward f
    cdef Tape tape = Tape() if keep else None
    cdef list memory = []
    if keep and FASTRNN_INT8:
        raise ValueError("keep: expected False, as quantized weights are not trained")
    if not is_plain(x, NPY_REAL, IN) or cnp.PyArray_NDIM(x) != 3 or cnp.PyArray_DIM(x, 1) == 0:
        refuse(x, "x", f"a {real_name()} array (T, B, {w.I}), B at least 1,")
    T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    state = tuple_of(state, "state", w.layout.states)
    state_n = tuple_of(state_n, "state_n", w.layout.states)
    memset(&f, 0, sizeof(Forward))
    f.w, f.keep = w, keep
    f.chunk = CHUNK_BYTES // (product_of(B, w.size, w.blocks) * <ptrdiff_t>sizeof(real))
    f.chunk = max(1, min(f.chunk, T))
    if reset is not None:
        # A copy, which no other thread can change.
        booleans(reset, "reset", T, B)
        reset = reset.copy()
        memory.append(reset)
        f.resets.at = booleans(reset, "reset", T, B)
        f.resets.t_stride, f.resets.b_stride = reset.strides
    f.schedule = new_schedule(T, B, spans, memory)
    cdef ptrdiff_t work = multiply_adds(w, f.schedule.N)
    cdef int threads = threads_for(w, &f.schedule, work, reset is not None, &f.by_blocks)
    allocate_forward(packed, &f, tape, spans is not None, threads, memory)
    f.parts = set_parts(&f.schedule, step_work(w, B), threads, &f.by_blocks, memory)
    if tape is not None:
        tape.reset, tape.memory = reset, memory
    pins = None if work < HOLDS_GIL else pin_all((x, y, *state, *state_n))
    # No Python code runs after these checks, so nothing checked can change before its use.
    f.x, f.x_t, f.x_b = sequence(x, "x", T, B, w.I, IN), stride(x, 0), stride(x, 1)
    if y is not None:
        f.y, f.y_t, f.y_b = sequence(y, "y", T, B, w.P, OUT), stride(y, 0), stride(y, 1)
    take_states(w, <const real **>f.state_n, state_n, "state_n", B, OUT, stacked)
    take_states(w, f.state_0, state, "state", B, IN, stacked)
    if work < HOLDS_GIL:
        run_forward(&f, threads)
    else:
        with nogil:
            run_forward(&f, threads)
    return tape


cdef int run_forward(Forward *f, int threads) except -1 nogil:
    """Run a forward, in rounds."""
    cdef ptrdiff_t T = f.schedule.T
    cdef ptrdiff_t n = max(1, ROUND // (step_work(f.w, f.schedule.B) * f.chunk)) * f.chunk
    cdef long long last = 0
    begin_forward(f)
    while True:
        f.end = T if T - f.begin <= n else f.begin + n
        for f.part in range(f.parts):
            if f.begin > 0 or f.part > 0:
                handle_signals(&last)
            run_together(threads, forward_share, f)
        if f.end == T:
            break
        f.begin = f.end
    note_end(f.by_blocks, &f.others)
    return 0


cdef int allocate_forward(
    Packed packed, Forward *f, Tape tape, bint gathers, int threads, list memory
) except -1:
    """Allocate the memory of a forward, that of the tape included."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t B = f.schedule.B, shares, i
    cdef NormBuffers x_norm = None, h_norm = None
    if tape is not None:
        tape.allocate(packed, f)
        x_norm, h_norm = tape.x_norm, tape.h_norm
    else:
        f.z_rows = f.chunk * B
        f.z = scratch(memory, product_of(w.blocks, f.z_rows, w.size))
        if gathers:
            f.xs = scratch(memory, product_of(f.z_rows, w.I))
        if w.gain_x is not NULL:
            x_norm, h_norm = NormBuffers(packed, f.z_rows), NormBuffers(packed, B)
    if w.gain_x is not NULL:
        f.x_norm, f.h_norm = x_norm.norm(w, w.gain_x), h_norm.norm(w, w.gain_h)
        memory += [x_norm, h_norm]
    if w.x.format.narrow_rows is not NULL:
        f.narrow_row = narrow_row(max(w.H, w.P))
        shares = threads if f.by_blocks else 1
        f.narrow = scratch(memory, product_of(shares, B, f.narrow_row))
        f.narrow_x = scratch(memory, product_of(shares, B, f.chunk, narrow_row(w.I)))
    f.h_row = ceil_div(w.P, LINE) * LINE
    f.h[0] = f.h[1] = scratch(memory, product_of(B, f.h_row))
    if f.by_blocks:
        f.h[1] = scratch(memory, product_of(B, f.h_row))
    if w.projects:
        f.out = scratch(memory, product_of(B, w.H))
        f.projected = scratch(memory, product_of(w.out.blocks, B, VL))
    for i in range(1, w.layout.states):
        f.states[i] = scratch(memory, product_of(w.blocks, B, VL))
    if w.layout.late.count:
        f.operand = scratch(memory, product_of(B, w.H))
    if w.workspace.forward:
        f.scratch = scratch(memory, product_of(w.workspace.forward, w.blocks, B, VL))
    return 0


def segment_steps(B, least):
    """Return a segment length of at least `least` steps for B rows."""
    for value, name in ((B, "B"), (least, "least")):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an int of at least 1, got {value!r}")
    # Python integers: `least` may be larger than any C integer.
    chunk = max(1, CHUNK_ROWS // B)
    return -(-least // chunk) * chunk


def backward(Tape tape not None, dy, dstate_n, dx, dstate, Gradients gradients):
    """Backpropagate through time (Werbos 1990)."""
    run_scan_back(tape, dy, dstate_n, dx, dstate, gradients, False)


cdef int run_scan_back(
    Tape tape, dy, dstate_n, dx, dstate, Gradients gradients, bint stacked
) except -1:
    """Backpropagate through time; gradients of states are `stacked` or not."""
    if FASTRNN_INT8:
        raise ValueError("tape: expected one of floats, as quantized weights are not trained")
    cdef Packed packed = tape.packed
    if packed is None:
        raise ValueError("tape: expected one that `forward` made")
    if gradients is not None and gradients.packed is not packed:
        raise ValueError("gradients: expected those of the weights with which the tape was made")
    if gradients is not None and gradients.sums.of_row and (
        tape.schedule.N != 1 or packed.format is not &REALS
    ):
        raise ValueError("gradients: expected those of any rows, got those of one")
    cdef const Weights *w = &packed.w
    cdef ptrdiff_t T = tape.schedule.T, B = tape.schedule.B
    cdef Backward f
    cdef list memory = []
    dstate_n = tuple_of(dstate_n, "dstate_n", w.layout.states)
    dstate = tuple_of(dstate, "dstate", w.layout.states)
    packed.need_back(dx is not None)
    memset(&f, 0, sizeof(Backward))
    f.w, f.schedule = w, tape.schedule
    f.sums = NULL if gradients is None else &gradients.sums
    f.chunk = max(1, min(CHUNK_ROWS // B, T))
    if tape.reset is not None:
        f.resets.at = booleans(tape.reset, "reset", T, B)
        f.resets.t_stride, f.resets.b_stride = tape.reset.strides
    cdef ptrdiff_t work = multiply_adds(w, f.schedule.N)
    cdef int threads = threads_for(w, &f.schedule, work, tape.reset is not None, &f.by_blocks)
    cdef int parts = set_parts(&f.schedule, 3 * step_work(w, B), threads, &f.by_blocks, memory)
    allocate_backward(&f, tape, dx is not None, memory)
    if w.x.format.narrow_rows is not NULL:
        allocate_narrow(&f, threads, memory)
    pins = None if work < HOLDS_GIL else pin_all((dy, dx, *dstate_n, *dstate))
    # No Python code runs after these checks, so nothing checked can change before its use.
    if dy is not None:
        f.dy, f.dy_t, f.dy_b = sequence(dy, "dy", T, B, w.P, IN), stride(dy, 0), stride(dy, 1)
    if dx is not None:
        f.dx, f.dx_t, f.dx_b = sequence(dx, "dx", T, B, w.I, OUT), stride(dx, 0), stride(dx, 1)
    take_states(w, <const real **>f.dstate_0, dstate, "dstate", B, OUT, stacked)
    take_states(w, f.dstate_n, dstate_n, "dstate_n", B, IN, stacked)
    if work < HOLDS_GIL:
        run_backward(&f, threads, parts)
    else:
        with nogil:
            run_backward(&f, threads, parts)
    return 0


cdef int run_backward(Backward *f, int threads, int parts) except -1 nogil:
    """Run a backward, in rounds: of some chunks, or if they are large, of parts of one."""
    cdef ptrdiff_t work = 3 * step_work(f.w, f.schedule.B) * f.chunk
    cdef ptrdiff_t n = max(1, ROUND // work) * f.chunk
    cdef long long last = 0
    begin_backward(f)
    f.end, f.doing, f.parts = f.schedule.T, RUN_ALL, 1
    while True:
        # Chunks are counted from the first step.
        f.begin = max(0, ceil_div(f.end, f.chunk) * f.chunk - n)
        if work <= ROUND:
            run_together(threads, backward_share, f)
        else:
            run_chunk_back(f, threads, parts, work, &last)
        if f.begin == 0:
            break
        handle_signals(&last)
        f.end = f.begin
    note_end(f.by_blocks, &f.others)
    return 0


cdef int run_chunk_back(
    Backward *f, int threads, int parts, ptrdiff_t work, long long *last
) except -1 nogil:
    """Run a chunk: some steps at a time, each in `parts`, then the sums in parts."""
    cdef ptrdiff_t begin = f.begin, end = f.end, n = max(1, ROUND // (work // f.chunk)), t = f.end
    f.doing, f.parts = RUN_STEPS, parts
    while t > begin:
        f.begin, f.end = max(begin, t - n), t
        for f.part in range(f.parts):
            handle_signals(last)
            run_together(threads, backward_share, f)
        t = f.begin
    f.begin, f.end, f.part, f.parts = begin, end, 0, 1
    if f.narrow is not NULL:
        f.doing = RUN_PAIRS
        run_together(threads, backward_share, f)
    f.doing, f.parts = RUN_SUMS, min(1 + work // ROUND, MOST_PARTS)
    for f.part in range(f.parts):
        handle_signals(last)
        run_together(threads, backward_share, f)
    return 0


cdef int allocate_backward(Backward *f, Tape tape, bint has_dx, list memory) except -1:
    """Set up the pointers to the tape, and allocate memory."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t B = f.schedule.B, most = product_of(f.chunk, B), i
    f.tape_x, f.tape_h, f.tape_z = tape.x.data, tape.h.data, tape.z.data
    if has_dx:
        f.dxs = scratch(memory, product_of(ceil_div(w.I, VL), most, VL))
    f.dz = f.dzh = f.dzx = scratch(memory, product_of(w.blocks, most, w.size))
    f.dys = scratch(memory, product_of(B, w.P))
    f.dh = f.d_out = scratch(memory, product_of(ceil_div(w.P, VL), B, VL))
    if w.layout.out_is_z:
        f.hs = scratch(memory, product_of(most, w.P))
    for i in range(1, w.layout.states):
        f.tape_states[i] = (<Buffer>tape.states[i - 1]).data
        f.dstates[i] = scratch(memory, product_of(w.blocks, B, VL))
    if w.layout.late.count:
        f.operand = scratch(memory, product_of(most, w.H))
    if w.projects:
        f.dr = scratch(memory, product_of(ceil_div(w.P, VL), most, VL))
        f.d_out = scratch(memory, product_of(w.blocks, B, VL))
        f.out = scratch(memory, product_of(most, w.H))
    if w.gain_x is not NULL:
        f.dzh = scratch(memory, product_of(w.blocks, most, w.size))
        f.dzx = scratch(memory, product_of(w.blocks, most, w.size))
        f.x_norm, f.h_norm = tape.x_norm.norm(w, w.gain_x), tape.h_norm.norm(w, w.gain_h)
    if w.workspace.backward:
        f.scratch = scratch(memory, product_of(w.workspace.backward, w.blocks, B, VL))
    if w.workspace.chunk:
        f.kept = scratch(memory, product_of(w.workspace.chunk, w.blocks, most, VL))
    return 0


cdef int allocate_narrow(Backward *f, int threads, list memory) except -1:
    """Allocate memory for operands in the weights' format."""
    cdef const Weights *w = f.w
    cdef ptrdiff_t B = f.schedule.B, most = product_of(f.chunk, B)
    cdef real *of_x
    cdef real *of_h
    f.narrow_row = narrow_row(max(w.h_back.K, w.late_back.K, w.out_back.K))
    f.narrow = scratch(memory, product_of(threads if f.by_blocks else 1, B, f.narrow_row))
    f.narrow_x = scratch(memory, product_of(most, narrow_row(w.x_back.K)))
    if f.sums is NULL:
        return 0
    of_x = of_h = scratch(memory, product_of(w.blocks, ceil_div(most, 2), w.size))
    if f.dzh is not f.dzx:
        of_h = scratch(memory, product_of(w.blocks, ceil_div(most, 2), w.size))
    f.narrow_sums[0] = narrow_product(w.x.format, &f.sums.x, of_x, w.size, most, memory)
    f.narrow_sums[1] = narrow_product(w.x.format, &f.sums.h, of_h, w.size, most, memory)
    f.narrow_sums[2] = narrow_product(w.x.format, &f.sums.late, of_h, w.size, most, memory)
    f.narrow_sums[3] = narrow_product(
        w.x.format, &f.sums.out,
        scratch(memory, product_of(w.out.blocks, ceil_div(most, 2), VL)), VL, most, memory,
    )
    return 0


cdef WeightProduct narrow_product(
    const tile_format *format, const Panels *dw, real *dz, ptrdiff_t dz_row, ptrdiff_t most,
    list memory,
):
    """Return a product with a weight gradient, with memory for pairs of up to `most` rows."""
    cdef ptrdiff_t pairs = ceil_div(most, 2), a_row = product_of(dw.K, format.a_width)
    cdef real *a = scratch(memory, product_of(pairs, a_row))
    return WeightProduct(format, dw, a, a_row, dw.K, dz, dz_row, pairs * dz_row)
