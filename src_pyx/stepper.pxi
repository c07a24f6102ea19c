# One step at a time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memcpy
from norm cimport Norm
from panels cimport parts
from step cimport Step
from vec cimport VL, real

import numpy as np

cdef extern from "vec.h" nogil:
    const int NPY_REAL

cdef enum:
    # Multiply-adds from which on a single step lets other Python threads run meanwhile.
    STEP_HOLDS_GIL = 200000


cdef inline real *plain(object array, ptrdiff_t B, ptrdiff_t n, int flags) noexcept:
    """The numbers of an array that is (B, n), or (n,) for B = 1, as it is; else NULL."""
    if not cnp.PyArray_CheckExact(array):
        return NULL
    cdef cnp.ndarray found = <cnp.ndarray>array
    cdef int ndim = cnp.PyArray_NDIM(found)
    if (
        cnp.PyArray_TYPE(found) != NPY_REAL
        or not cnp.PyArray_CHKFLAGS(found, flags)
        or not cnp.PyArray_ISNOTSWAPPED(found)
    ):
        return NULL
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(found)
    if ndim == 2 and shape[0] == B and shape[1] == n or ndim == 1 and B == 1 and shape[0] == n:
        return <real *>cnp.PyArray_DATA(found)
    return NULL


cdef class Stepper:
    """Steps a layer over states that it owns: see ``_reference.scan.Stepper``."""

    cdef object weights, kernels, convert
    cdef object copy            # the settled Copy of the weights that is in use, or None
    cdef readonly tuple state
    cdef Packed packed
    cdef Buffer z, rh, out, projected, c_hat
    cdef Hats x_hats, h_hats
    cdef Norm x_norm
    cdef Step s
    cdef ptrdiff_t B, I, H, P
    cdef bint busy

    def __init__(self, weights, kernels, ptrdiff_t batch_size, convert):
        cdef Packed packed = weights.packed(kernels)
        cdef ptrdiff_t B = batch_size, H = packed.H, P = packed.P, padded = packed.blocks * VL
        cdef ptrdiff_t size = packed.layout.slots * VL
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self.packed, self.B, self.I, self.H, self.P = packed, B, packed.I, H, P
        self.z = Buffer(packed.blocks * B * size)
        self.rh = Buffer(B * H)
        self.out = Buffer(B * H)
        self.projected = Buffer(parts(P, VL) * B * VL)
        self.c_hat = Buffer(packed.blocks * B * VL)
        self.x_hats, self.h_hats = Hats(packed, B), Hats(packed, B)
        memory = np.zeros((2, B, padded), np.dtype(f"f{sizeof(real)}"))
        self.state = (memory[0, :, :P], memory[1, :, :H])[: 1 + packed.layout.has_c]
        self._refresh()

    cdef int _refresh(self) except -1:
        """Take the weights as they are now."""
        cdef Packed packed = self.weights.packed(self.kernels)
        cdef ptrdiff_t padded = packed.blocks * VL
        copy = self.weights.copy
        self.copy = copy if copy.settled and copy.packed is packed else None
        self.packed = packed
        self.s = new_step(packed, self.B)
        self.s.z, self.s.z_panel = self.z.data, self.B * packed.layout.slots * VL
        self.s.rh = self.rh.data
        self.s.h = self.s.out = data(self.state[0])
        self.s.h_row = self.s.out_row = padded
        self.x_norm = self.x_hats.of(packed.norm(packed.gain_x), 0)
        self.s.norm = self.h_hats.of(packed.norm(packed.gain_h), 0)
        self.s.c_hat = self.c_hat.data
        if packed.projects:
            self.s.out, self.s.out_row = self.out.data, self.H
        if packed.layout.has_c:
            self.s.c = data(self.state[1])
            self.s.c_row, self.s.c_panel = padded, VL
        return 0

    cdef void _step(self, const real *x, real *y) noexcept nogil:
        cdef ptrdiff_t b
        project(self.packed, 1, self.B, x, 0, self.I, self.s.z, self.s.z_panel, &self.x_norm)
        self.packed.layout.forward(&self.s)
        if self.packed.projects:
            project_output(
                self.packed, self.B, self.out.data, self.projected.data, <real *>self.s.h,
                self.s.h_row,
            )
        for b in range(self.B):
            memcpy(y + b * self.P, self.s.h + b * self.s.h_row, self.P * sizeof(real))

    def step(self, x, out=None):
        """Advance by one step, `x` (B, I) or (I,); returns the output, in `out` if given."""
        cdef real *x_data = plain(x, self.B, self.I, cnp.NPY_ARRAY_CARRAY_RO)
        cdef real *y_data = NULL
        cdef cnp.npy_intp[2] shape
        cdef int ndim
        y = out
        if x_data is not NULL:
            ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
            if out is None:
                shape[0], shape[ndim - 1] = self.B, self.P
                out = cnp.PyArray_EMPTY(ndim, shape, NPY_REAL, 0)
                y_data = data(out)
            else:
                y_data = plain(out, self.B, self.P, cnp.NPY_ARRAY_CARRAY)
                if y_data is not NULL and cnp.PyArray_NDIM(<cnp.ndarray>out) != ndim:
                    y_data = NULL
        if y_data is NULL:
            x, y, out = self.convert(x, out)
            x_data, y_data = data(x), data(y)
        if self.busy:
            raise RuntimeError("stream: two threads step it at once; give each a stream of its own")
        if self.weights.copy is not self.copy:
            self._refresh()
        if self.B * self.H * (self.I + self.H) < STEP_HOLDS_GIL:
            self._step(x_data, y_data)
        else:
            self.busy = True
            with nogil:
                self._step(x_data, y_data)
            self.busy = False
        return out
