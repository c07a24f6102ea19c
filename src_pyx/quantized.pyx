"""The compiled twin of ``fastrnn._kernels.reference.int8``: see `QuantizedKernels`.

It is made of the sources of kernels.pyx, with all matrix products in int8.
"""

cimport cython
cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_Import
from libc.string cimport memcpy
from panels cimport Panels, ceil_div, panels_for
from split cimport thread_pool, use_pool
from vec cimport REALS, VL, real, use_dot

from fastrnn._kernels import extensions

cnp.import_array()
use_dot(
    "avx512vnni" in extensions.USED if VL == 16 else "avxvnni" in extensions.USED
)
use_pool(<thread_pool *>PyCapsule_Import("fastrnn._kernels._threads.pool", False))

include "lib/arrays.pxi"
include "lib/memory.pxi"
include "cells/table.pxi"
include "lib/words.pxi"
include "scan/scan.pxi"
include "scan/direct.pxi"
include "chain.pxi"
include "scan/stepper.pxi"


cdef class PackedLinear:
    """An immutable copy of the weights of an affine map, in the layout of the kernels."""

    cdef ptrdiff_t I, O
    cdef Panels w
    cdef Buffer w_memory, init

    def __cinit__(self, weights, scale, limit):
        weight, bias = weights
        if not cnp.PyArray_Check(weight) or weight.ndim != 2 or weight.size == 0:
            refuse(weight, "weight", "an int8 array (O, I)")
        words = words_of(weight, scale, "weight", weight.shape)
        self.O, self.I = cnp.PyArray_DIM(<cnp.ndarray>words, 0), weight.shape[1]
        if bias is not None:
            bias = copied(bias, "bias")
            vector(bias, "bias", self.O, IN)
        self.w = panels_for(&REALS, self.I, ceil_div(self.O, VL), 1, 0, VL)
        self.w.limit = limit
        self.w_memory = buffer_of(product_of(self.w.depth, self.w.blocks, VL))
        self.w.w = self.w_memory.data
        if cnp.PyArray_DIM(<cnp.ndarray>words, 1) != self.w.depth:
            raise ValueError("weight: its shape was changed meanwhile")
        pack(&self.w, &OUTPUT, data(words), self.O)
        self.init = zeros(self.w.blocks * VL)
        if bias is not None:
            memcpy(self.init.data, data(bias), self.O * sizeof(real))


include "affine.pxi"
include "rows.pxi"


cdef struct Table:
    # A table of int8 rows, and their scales.
    const signed char *rows     # (V, D)
    const real *scales          # (V,)
    ptrdiff_t V, D


cdef Table table_of(table, scale):
    """Return the data of a table and of its scales; raise if they are not such."""
    cdef Table found
    if (
        not is_plain(table, cnp.NPY_INT8, IN | cnp.NPY_ARRAY_C_CONTIGUOUS)
        or cnp.PyArray_NDIM(<cnp.ndarray>table) != 2
    ):
        refuse(table, "table", "a C-contiguous int8 array (V, D)")
    found.V = cnp.PyArray_DIM(<cnp.ndarray>table, 0)
    found.D = cnp.PyArray_DIM(<cnp.ndarray>table, 1)
    found.rows = <const signed char *>cnp.PyArray_DATA(<cnp.ndarray>table)
    found.scales = vector(scale, "scale", found.V, IN)
    return found


cdef inline void take_row(const Table *table, cnp.npy_intp row, real *to) noexcept nogil:
    cdef ptrdiff_t i
    cdef const signed char *numbers_ = table.rows + row * table.D
    for i in range(table.D):
        to[i] = numbers_[i] * table.scales[row]


def take_rows(table, scale, x, y):
    """Write the rows of `table` with the indices `x`, times their scales, to `y`."""
    cdef Table t = table_of(table, scale)
    cdef const cnp.npy_intp *rows = indices(x, "x")
    cdef ptrdiff_t n = cnp.PyArray_SIZE(<cnp.ndarray>x), i
    cdef real *to = matrix(y, "y", n, t.D, OUT)
    cdef cnp.npy_intp row
    cdef Buffer strays = no_strays(1)
    # With the GIL: a lookup takes no longer than a call.
    for i in range(n):
        row = read_once(rows + i)
        if 0 <= row < t.V:
            take_row(&t, row, to + i * t.D)
        else:
            note_stray(<Stray *>strays.data, i, row)
    refuse_strays(strays, 1, "x", f"whole numbers in 0..{t.V - 1}")


@cython.final
cdef class TableStepper(Stage):
    """A lookup of one time step: the rows (B, D) of a table for tokens (B,)."""

    cdef Table table
    cdef list held          # keeps the arrays from being freed or resized

    def __cinit__(self, table, ptrdiff_t batch_size):
        weight, scale = table.arrays["weight"], table.arrays["weight_scale"]
        self.held = [weight, scale, pin(weight), pin(scale)]
        self.table = table_of(weight, scale)
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.V, self.P, self.B = self.table.V, self.table.D, batch_size
        self.work = product_of(batch_size, self.P)

    cdef bint is_ready(self) except -1:
        return True

    cdef int refresh(self) except -1:
        return 0

    cdef void run(self, const void *x, real *y) noexcept nogil:
        cdef ptrdiff_t b
        # The chain has checked its copy of the tokens.
        for b in range(self.B):
            take_row(&self.table, (<const cnp.npy_intp *>x)[b], y + b * self.P)
