"""The packed weights of a layer: matrices in panels, vectors in slots; packing and unpacking."""

from libc.string cimport memcpy, memset
from gating cimport gating
from norm cimport Norm
from panels cimport Panels, ceil_div, tail
from step cimport MAX_GATES, MAX_VECTORS, CellKernels, Step, Workspace
from vec cimport SUM_LANES, VL, gemm_run, real, transpose_square, vset, vstore


cdef enum:
    MOST_LANES = 16

cdef struct Gates:
    # Gates of one product: `count` slots from `first` on, and the index of each gate in the rows of
    # the weights.
    ptrdiff_t first
    ptrdiff_t count
    ptrdiff_t index[MAX_GATES]

cdef struct Layout:
    # The structure of a cell.
    ptrdiff_t slots
    ptrdiff_t states
    Gates x                 # product with the input
    Gates h                 # product with the hidden state
    Gates late              # product that depends on gates, or none
    bint dense              # recurrent weights are a matrix,
    bint elementwise        # or a vector; else there are none
    bint out_is_z           # the step leaves the output in z: a tape needs no copy
    ptrdiff_t groups[MAX_GATES]         # of each slot: slots of a group are normalised together
    ptrdiff_t vectors[MAX_VECTORS]      # number of vectors (H,) in each group
    CellKernels run

cdef struct Weights:
    # The weights as the kernels read them: matrices in panels, vectors in slots.
    Layout layout
    gating gating           # of cells with other gates than their own
    ptrdiff_t I, H, P, blocks, size     # size: slots * VL
    ptrdiff_t lanes         # distance of slots in the last block
    bint projects           # the output is projected from (H,) to (P,)
    bint splits             # threads can split the blocks of a step
    Panels x, h, late, out
    Panels x_back, h_back, late_back, out_back
    real *bias              # (blocks, size)
    real *u                 # of an elementwise recurrence (blocks, size), or NULL
    real *gain_x            # (blocks, size), or NULL
    real *gain_h            # (blocks, size), or NULL
    real *vectors[MAX_VECTORS]          # (blocks, count * VL), or NULL
    real *zero              # size zeros
    Workspace workspace

cdef struct ScanSums:
    # Sums of weight gradients, laid out as Weights.
    Panels x, h, late, out
    bint of_row             # a single row: the matrices are written, as the caller's are laid out
    real *bias
    real *u
    real *gain_x
    real *gain_h
    real *vectors[MAX_VECTORS]


cdef inline ptrdiff_t panel_offset(
    const Panels *w, ptrdiff_t block, ptrdiff_t gate, ptrdiff_t *row
) noexcept nogil:
    """Return where a gate of a block starts in the packed weights; `row`: stride of k."""
    cdef ptrdiff_t n = w.width, run = w.groups * n, group
    if tail(w) and block == w.blocks - 1:
        row[0] = tail(w) * VL
        return block * w.depth * w.gates * VL + gate * w.lanes
    if w.gates > 1:
        row[0] = n * VL
        return (block * w.gates // n + gate // n) * w.depth * row[0] + gate % n * VL
    if block < run:
        run = 0
    else:
        n += 1
    group = (block - run) // n
    row[0] = n * VL
    return run * w.depth * VL + group * w.depth * row[0] + (block - run - group * n) * VL


cdef inline void pack(
    Panels *w, const Gates *gates, const real *weight, ptrdiff_t H
) noexcept nogil:
    """Pack weights (G*H, K), or words (G*H, depth), for products with rows (K,)."""
    cdef ptrdiff_t block, gate, square, k, row, lanes, per_word = w.format.per_word, u
    cdef ptrdiff_t length = w.depth if w.format.make_words is NULL else w.K
    cdef const real *rows
    cdef real *panel
    cdef real[MOST_LANES * MOST_LANES] words
    if tail(w):
        panel = w.w + panel_offset(w, w.blocks - 1, 0, &row)
        memset(panel, 0, w.depth * row * sizeof(real))
    for block in range(w.blocks):
        lanes = min(VL, H - block * VL)
        for gate in range(w.gates):
            panel = w.w + panel_offset(w, block, gate, &row)
            rows = weight + (gates.index[gate] * H + block * VL) * length
            for k in range(w.depth if lanes < VL and not tail(w) else 0):
                vstore(panel + k * row, vset(0))
            for square in range(ceil_div(w.depth, VL)):
                k = square * VL
                if w.format.make_words is NULL:
                    transpose_square(
                        rows + k, length, lanes, min(VL, length - k), panel + k * row, row
                    )
                    continue
                for u in range(lanes):
                    w.format.make_words(
                        rows + u * w.K + k * per_word, min(VL * per_word, w.K - k * per_word),
                        words + u * VL,
                    )
                transpose_square(
                    words, VL, lanes, min(VL, w.depth - k), panel + k * row, row
                )


cdef inline void unpack(
    const Panels *w, const Gates *gates, real *weight, ptrdiff_t H
) noexcept nogil:
    """Unpack panels to weights (G*H, K), the inverse of `pack`."""
    cdef ptrdiff_t block, gate, square, k, row, lanes
    cdef const real *panel
    cdef real *rows
    for block in range(w.blocks):
        lanes = min(VL, H - block * VL)
        for gate in range(w.gates):
            panel = w.w + panel_offset(w, block, gate, &row)
            rows = weight + (gates.index[gate] * H + block * VL) * w.K
            for square in range(ceil_div(w.K, VL)):
                k = square * VL
                transpose_square(
                    panel + k * row, row, min(VL, w.K - k), lanes, rows + k, w.K
                )


# The sum over gates and units in dz W has one order, whatever VL is: blocks of SUM_LANES units, in
# each of these its gates, and of each gate its units.

cdef inline ptrdiff_t list_runs(
    gemm_run *runs, const Gates *gates, ptrdiff_t H, ptrdiff_t lanes
) noexcept nogil:
    """List the runs of some gates in blocked rows in that order, and return their number.

    There are at most as many as gates times blocks.
    """
    cdef ptrdiff_t block, gate, begin, unit, n, offset, count = 0
    for block in range(ceil_div(H, SUM_LANES)):
        begin = block * SUM_LANES
        for gate in range(gates.count):
            unit = begin
            while unit < min(begin + SUM_LANES, H):
                n = min(VL, H - unit)
                offset = (gates.first + gate) * (VL if n == VL else lanes)
                if (
                    count > 0 and runs[count - 1].block == unit // VL
                    and runs[count - 1].offset + runs[count - 1].length == offset
                ):
                    runs[count - 1].length += n
                else:
                    runs[count] = gemm_run(unit // VL, offset, n)
                    count += 1
                unit += n
    return count


cdef inline void pack_back(
    Panels *w, const Gates *gates, const real *weight, ptrdiff_t H, ptrdiff_t units
) noexcept nogil:
    """Pack weights (G*H, units) for products with gate gradients, K in the order of their runs."""
    cdef ptrdiff_t block = 0, begin, gate, unit, row, given
    cdef real *panel
    cdef const real *of_unit
    cdef const real *low
    while block < w.blocks:
        panel = w.w + panel_offset(w, block, 0, &row)
        given = min(row, units - block * VL)
        begin, low = 0, NULL
        while begin < H:
            for gate in range(gates.count):
                for unit in range(begin, min(begin + SUM_LANES, H)):
                    of_unit = weight + (gates.index[gate] * H + unit) * units + block * VL
                    if w.format.per_word == 1:
                        pack_row(w, of_unit, NULL, given, row, panel)
                    elif low is NULL:
                        low = of_unit
                        continue
                    else:
                        pack_row(w, low, of_unit, given, row, panel)
                        low = NULL
                    panel += row
            begin += SUM_LANES
        if low is not NULL:
            pack_row(w, low, NULL, given, row, panel)
        block += row // VL


cdef inline void pack_row(
    const Panels *w, const real *low, const real *high, ptrdiff_t given, ptrdiff_t row, real *to
) noexcept nogil:
    """Write a row of `given` reals, or of words made of two rows; the rest is 0."""
    if w.format.per_word == 1:
        memcpy(to, low, given * sizeof(real))
    else:
        w.format.pair_rows(low, high, given, to)
    memset(to + given, 0, (row - given) * sizeof(real))


cdef inline ptrdiff_t slot_offset(
    ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, ptrdiff_t block, ptrdiff_t H
) noexcept nogil:
    """Return the offset of a slot of a block in (blocks, slots * VL)."""
    return block * slots * VL + slot * (VL if (block + 1) * VL <= H else lanes)


cdef inline void add_vector(
    real *packed, ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, const real *vector, ptrdiff_t H
) noexcept nogil:
    """Add a vector (H,) to a slot of (blocks, slots * VL)."""
    cdef ptrdiff_t block, unit
    cdef real *to
    cdef const real *given
    for block in range(ceil_div(H, VL)):
        to, given = packed + slot_offset(slots, slot, lanes, block, H), vector + block * VL
        for unit in range(min(VL, H - block * VL)):
            to[unit] += given[unit]


cdef inline void take_vector(
    const real *packed, ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, real *vector, ptrdiff_t H
) noexcept nogil:
    """Read a vector (H,) from a slot of (blocks, slots * VL)."""
    cdef ptrdiff_t block
    for block in range(ceil_div(H, VL)):
        memcpy(
            vector + block * VL, packed + slot_offset(slots, slot, lanes, block, H),
            min(VL, H - block * VL) * sizeof(real),
        )


cdef inline void add_gates(
    const Weights *w, real *packed, const Gates *gates, const real *vectors
) noexcept nogil:
    """Add vectors (G*H,), NULL for zeros, to the slots of their gates."""
    cdef ptrdiff_t gate
    if vectors is NULL:
        return
    for gate in range(gates.count):
        add_vector(
            packed, w.layout.slots, gates.first + gate, w.lanes,
            vectors + gates.index[gate] * w.H, w.H,
        )


cdef inline void take_gates(
    const Weights *w, const real *packed, const Gates *gates, real *vectors
) noexcept nogil:
    """Read vectors (G*H,) from the slots of their gates, unless NULL."""
    cdef ptrdiff_t gate
    if vectors is NULL:
        return
    for gate in range(gates.count):
        take_vector(
            packed, w.layout.slots, gates.first + gate, w.lanes,
            vectors + gates.index[gate] * w.H, w.H,
        )


cdef inline Norm norm_of(const Weights *w, const real *gain) noexcept nogil:
    """Return the layer normalisation of a product, without buffers."""
    cdef Norm norm
    memset(&norm, 0, sizeof(Norm))
    norm.gain, norm.zero = gain, w.zero
    norm.groups, norm.slots = w.layout.groups, w.layout.slots
    return norm


cdef inline Norm norm_at(const Norm *norm, ptrdiff_t row) noexcept nogil:
    """Return the same from a row on."""
    cdef Norm found = norm[0]
    found.hat += row * norm.slots * VL
    found.rstd += row * norm.slots
    return found


cdef inline Step new_step(const Weights *w, ptrdiff_t block) noexcept nogil:
    """Return a step of the blocks from `block` on, without its arrays."""
    cdef Step s
    cdef ptrdiff_t i
    memset(&s, 0, sizeof(Step))
    s.H, s.blocks = w.H - block * VL, w.blocks - block
    s.slots, s.lanes = w.layout.slots, w.lanes
    s.w_hh, s.w_late = &w.h, &w.late
    s.gating = &w.gating
    if w.u is not NULL:
        s.u = w.u + block * w.size
    for i in range(MAX_VECTORS):
        if w.vectors[i] is not NULL:
            s.vectors[i] = w.vectors[i] + block * w.layout.vectors[i] * VL
    s.norm = norm_of(w, w.gain_h)
    s.threads = 1
    return s
