# Weights in panels, and back. Included in kernels.pyx.

from libc.string cimport memcmp, memcpy, memset
from norm cimport Norm
from panels cimport Panels, panels_for, parts, tail
from vec cimport VL, real, transpose_square, vset, vstore

import numpy as np

from fastrnn._kernels.cells import (
    CELLS, GAINS, PEEPHOLES, PROJECTION, STATE_NORM, WEIGHTS, CellConfig,
)

ALL_WEIGHTS = WEIGHTS + PROJECTION + PEEPHOLES + GAINS + STATE_NORM


cdef inline ptrdiff_t panel_offset(
    const Panels *w, ptrdiff_t block, ptrdiff_t gate, ptrdiff_t *row
) noexcept nogil:
    """Where gate `gate` of block `block` starts in the packed weights; `row` is the stride of k."""
    cdef ptrdiff_t n = w.width, run = w.groups * n, group
    if tail(w) and block == w.blocks - 1:
        row[0] = tail(w) * VL
        return block * w.K * w.gates * VL + gate * w.lanes
    if w.gates > 1:
        row[0] = n * VL
        return (block * w.gates // n + gate // n) * w.K * row[0] + gate % n * VL
    if block < run:
        run = 0
    else:
        n += 1
    group = (block - run) // n
    row[0] = n * VL
    return run * w.K * VL + group * w.K * row[0] + (block - run - group * n) * VL


cdef void pack(Panels *w, const Gates *gates, const real *weight, ptrdiff_t H) noexcept nogil:
    """Weights (G*H, K), for products with rows of K numbers."""
    cdef ptrdiff_t block, gate, square, k, row, lanes
    cdef const real *rows
    cdef real *panel
    if tail(w):
        panel = w.w + panel_offset(w, w.blocks - 1, 0, &row)
        memset(panel, 0, w.K * row * sizeof(real))
    for block in range(w.blocks):
        lanes = min(VL, H - block * VL)
        for gate in range(w.gates):
            panel = w.w + panel_offset(w, block, gate, &row)
            rows = weight + (gates.index[gate] * H + block * VL) * w.K
            for k in range(w.K if lanes < VL and not tail(w) else 0):
                vstore(panel + k * row, vset(0))
            for square in range(parts(w.K, VL)):
                k = square * VL
                transpose_square(
                    rows + k, w.K, lanes, min(VL, w.K - k), panel + k * row, row
                )


cdef void unpack(const Panels *w, const Gates *gates, real *weight, ptrdiff_t H) noexcept nogil:
    """The inverse of `pack`."""
    cdef ptrdiff_t block, gate, square, k, row, lanes
    cdef const real *panel
    cdef real *rows
    for block in range(w.blocks):
        lanes = min(VL, H - block * VL)
        for gate in range(w.gates):
            panel = w.w + panel_offset(w, block, gate, &row)
            rows = weight + (gates.index[gate] * H + block * VL) * w.K
            for square in range(parts(w.K, VL)):
                k = square * VL
                transpose_square(
                    panel + k * row, row, min(VL, w.K - k), lanes, rows + k, w.K
                )


cdef void pack_back(
    Panels *w, const Gates *gates, const real *weight, ptrdiff_t H, ptrdiff_t units
) noexcept nogil:
    """Weights (G*H, units), for products with blocked gate gradients."""
    cdef ptrdiff_t block = 0, segment = gates.count * VL, k, lanes, gate, unit, row, given
    cdef real *panel
    while block < w.blocks:
        panel = w.w + panel_offset(w, block, 0, &row)
        for k in range(w.K):
            lanes = min(VL, (w.K - k // segment * segment) // gates.count)
            gate, unit = k % segment // lanes, k // segment * VL + k % segment % lanes
            given = min(row, units - block * VL) if unit < H else 0
            memcpy(
                panel + k * row,
                weight + (gates.index[gate] * H + unit) * units + block * VL,
                given * sizeof(real),
            )
            memset(panel + k * row + given, 0, (row - given) * sizeof(real))
        block += row // VL


cdef inline ptrdiff_t place_in_slots(
    ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, ptrdiff_t unit, ptrdiff_t H
) noexcept nogil:
    """Where a unit of a slot stands in (blocks, slots * VL)."""
    return unit // VL * slots * VL + slot * (VL if unit < H // VL * VL else lanes) + unit % VL


cdef void add_vector(
    real *packed, ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, const real *vector, ptrdiff_t H
) noexcept nogil:
    """Add a vector (H,) to one slot of (blocks, slots * VL)."""
    cdef ptrdiff_t unit
    for unit in range(H):
        packed[place_in_slots(slots, slot, lanes, unit, H)] += vector[unit]


cdef void take_vector(
    const real *packed, ptrdiff_t slots, ptrdiff_t slot, ptrdiff_t lanes, real *vector, ptrdiff_t H
) noexcept nogil:
    """The inverse of `add_vector`."""
    cdef ptrdiff_t unit
    for unit in range(H):
        vector[unit] = packed[place_in_slots(slots, slot, lanes, unit, H)]


cdef struct Weights:
    # What the kernels read: weights in panels, vectors in slots.
    Layout layout
    ptrdiff_t I, H, P, blocks, size     # size: numbers of a row in a block, slots * VL
    ptrdiff_t lanes         # numbers from slot to slot in the last block
    bint projects
    Panels x, h, n, r
    Panels x_back, h_back, n_back, r_back
    real *bias              # (blocks, size)
    real *peephole          # (blocks, 3 * VL), or NULL
    real *gain_x            # (blocks, size), or NULL
    real *gain_h            # (blocks, size), or NULL
    real *norm_c            # (blocks, 2 * VL), or NULL
    real *zero              # size zeros


cdef inline Norm norm_of(const Weights *w, const real *gain) noexcept nogil:
    """Layer normalisation of a product; where its values go is left open."""
    cdef Norm norm
    memset(&norm, 0, sizeof(Norm))
    norm.gain, norm.zero = gain, w.zero
    norm.groups, norm.slots = &w.layout.groups[0], w.layout.slots
    return norm


cdef class Packed:
    """An immutable copy of a layer's weights, in panels.

    Parameters
    ----------
    cell : Cell
    config : CellConfig
    weights : sequence of array or None
        In the order of `cell.weights` and in torch's layouts. None, or missing at the end, for
        those that `config` leaves out; so may each bias be.
    """

    cdef readonly object cell, config
    cdef tuple copies
    cdef tuple names            # of all weights the cell can have
    cdef dict named             # the copies by all names there are
    cdef list buffers
    cdef Weights w

    # In __cinit__, which runs once: memory that kernels are reading is never replaced.
    def __cinit__(self, cell, config, weights):
        cdef Weights *w = &self.w
        if not isinstance(config, CellConfig):
            raise TypeError(f"config: expected a CellConfig, got {type(config).__name__}")
        self.cell, self.config = CELLS[cell.name], config
        self.names = self.cell.weights
        self.copies = copies_of(weights, self.names)
        self.named = named = dict.fromkeys(ALL_WEIGHTS)
        named.update(zip(self.names, self.copies, strict=False))
        self.buffers = []
        w.layout = layouts[<int>LAYOUTS[self.cell.name]]
        w.I, w.H, w.P = config.input_size, config.hidden_size, config.output_size
        check_shapes(self.cell.weight_shapes(config), self.names, named)
        w.blocks, w.size = parts(w.H, VL), w.layout.slots * VL
        # The last block is narrow where its gates go together, unless that saves no vector.
        w.lanes = w.H - (w.blocks - 1) * VL
        if not w.layout.narrows or named["gain_ih"] is not None or (
            1 < w.layout.x.count == parts(w.layout.x.count * w.lanes, VL)
        ):
            w.lanes = VL
        w.x = self._pack(&w.layout.x, named["weight_ih"])
        w.h = self._pack(&w.layout.h, named["weight_hh"])
        w.n = self._pack(&w.layout.n, named["weight_hh"])
        w.projects = named["weight_hr"] is not None
        if w.projects:
            w.r = self._panels(w.H, parts(w.P, VL), 1, 0, VL)
            pack(&w.r, &OUTPUT, data(named["weight_hr"]), w.P)
        w.zero = self._zeros(w.layout.slots)
        w.bias = self._zeros(w.layout.slots)
        self._add(w.bias, &w.layout.x, data(named["bias_ih"]))
        self._add(w.bias, &w.layout.h, data(named["bias_hh"]))
        self._add(w.bias, &w.layout.n, data(named["bias_hh"]))
        if named["weight_ci"] is not None:
            w.peephole = self._vectors(PEEPHOLES)
        if named["gain_ih"] is not None:
            w.gain_x, w.gain_h = self._zeros(w.layout.slots), self._zeros(w.layout.slots)
            self._add(w.gain_x, &w.layout.x, data(named["gain_ih"]))
            self._add(w.gain_h, &w.layout.h, data(named["gain_hh"]))
            self._add(w.gain_h, &w.layout.n, data(named["gain_hh"]))
        if named["gain_c"] is not None:
            w.norm_c = self._vectors(STATE_NORM)

    cdef real *_zeros(self, ptrdiff_t slots) except NULL:
        """Zeros (blocks, slots * VL)."""
        cdef Buffer buffer = zeros(product_of(self.w.blocks, slots, VL))
        self.buffers.append(buffer)
        return buffer.data

    cdef Panels _panels(
        self, ptrdiff_t K, ptrdiff_t blocks, ptrdiff_t gates, ptrdiff_t first, ptrdiff_t lanes
    ):
        cdef Panels w = panels_for(K, blocks, gates, first, lanes)
        cdef Buffer buffer = Buffer(product_of(K, blocks, gates, VL))
        self.buffers.append(buffer)
        w.w = buffer.data
        return w

    cdef Panels _pack(self, Gates *gates, weight):
        cdef Panels w = self._panels(
            weight.shape[1], self.w.blocks, gates.count, gates.first, self.w.lanes
        )
        pack(&w, gates, data(weight), self.w.H)
        return w

    cdef Panels _pack_back(self, Gates *gates, weight, ptrdiff_t H):
        """For products with gradients of H units in blocks."""
        cdef bint padded = gates.count > 1 and self.w.lanes == VL
        cdef ptrdiff_t K = gates.count * (parts(H, VL) * VL if padded else H)
        cdef ptrdiff_t units = weight.shape[1]
        cdef Panels w = self._panels(K, parts(units, VL), 1, 0, VL)
        pack_back(&w, gates, data(weight), H, units)
        return w

    cdef real *_vectors(self, names) except NULL:
        """Vectors (H,), or zeros where there is none, as slots."""
        cdef real *found = self._zeros(len(names))
        for slot, name in enumerate(names):
            if self.named[name] is not None:
                add_vector(found, len(names), slot, VL, data(self.named[name]), self.w.H)
        return found

    cdef void _add(self, real *packed, Gates *gates, const real *vectors) noexcept:
        """Add vectors (G*H,), or NULL for zeros, to the slots of their gates."""
        cdef ptrdiff_t gate
        if vectors is NULL:
            return
        for gate in range(gates.count):
            add_vector(
                packed, self.w.layout.slots, gates.first + gate, self.w.lanes,
                vectors + gates.index[gate] * self.w.H, self.w.H,
            )

    cdef int need_back(self, bint of_x) except -1:
        """Pack what BPTT reads, at first need; also what dx is a product with."""
        cdef Weights *w = &self.w
        if of_x and w.x_back.w is NULL:
            w.x_back = self._pack_back(&w.layout.x, self.named["weight_ih"], w.H)
        if w.h_back.w is NULL:
            w.n_back = self._pack_back(&w.layout.n, self.named["weight_hh"], w.H)
            if w.projects:
                w.r_back = self._pack_back(&OUTPUT, self.named["weight_hr"], w.P)
            # The last one: it says that all are there.
            w.h_back = self._pack_back(&w.layout.h, self.named["weight_hh"], w.H)
        return 0

    def matches(self, weights):
        """Whether these are still the same bits as `weights`."""
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


cdef check_shapes(dict shapes, tuple names, dict named):
    """Raise unless weights have these shapes; only biases may be missing."""
    for name in names:
        array, shape = named[name], shapes.get(name)
        if array is None:
            if shape is not None and not name.startswith("bias"):
                raise ValueError(f"{name}: expected shape {shape}, got None")
        elif array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


cdef tuple copies_of(weights, tuple names):
    """Copies of weights, C-contiguous arrays of this module's dtype; None stays."""
    cdef list copies = []
    weights = tuple(weights)
    if len(weights) > len(names):
        raise ValueError(f"weights: expected at most {len(names)} arrays, got {len(weights)}")
    for name, array in zip(names, weights, strict=False):
        copy = array
        if array is not None:
            copy = np.array(array, order="C") if cnp.PyArray_Check(array) else None
            if not is_plain(copy, NPY_REAL, IN):
                refuse(array, name, f"a {real_name()} array")
        copies.append(copy)
    return tuple(copies)
