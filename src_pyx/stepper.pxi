# One step at a time. Included in kernels.pyx.

cimport numpy as cnp
from libc.string cimport memcpy, memset
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
    cdef list memory
    cdef real *z
    cdef real *rh
    cdef real *out
    cdef real *projected
    cdef real *c_hat
    cdef Hats x_hats, h_hats
    cdef Step s
    cdef Projection x
    cdef ptrdiff_t B, I, P
    cdef bint busy

    def __init__(self, weights, kernels, ptrdiff_t batch_size, convert):
        cdef Packed packed = weights.packed(kernels)
        cdef const Weights *w = &packed.w
        cdef ptrdiff_t B = batch_size, padded = w.blocks * VL
        self.weights, self.kernels, self.convert = weights, kernels, convert
        self.B, self.I, self.P = B, w.I, w.P
        self.memory = []
        self.z = scratch(self.memory, w.blocks * B * w.size)
        self.rh, self.out = scratch(self.memory, B * w.H), scratch(self.memory, B * w.H)
        self.projected = scratch(self.memory, parts(w.P, VL) * B * VL)
        self.c_hat = scratch(self.memory, w.blocks * B * VL)
        self.x_hats, self.h_hats = Hats(packed, B), Hats(packed, B)
        memory = np.zeros((2, B, padded), np.dtype(f"f{sizeof(real)}"))
        self.state = (memory[0, :, :w.P], memory[1, :, :w.H])[: 1 + w.layout.has_c]
        self._refresh()

    cdef int _refresh(self) except -1:
        """Take the weights as they are now."""
        cdef Packed packed = self.weights.packed(self.kernels)
        cdef const Weights *w = &packed.w
        cdef ptrdiff_t padded = w.blocks * VL
        cdef Step *s = &self.s
        cdef Projection *x = &self.x
        copy = self.weights.copy
        self.copy = copy if copy.settled and copy.packed is packed else None
        self.packed = packed
        s[0] = new_step(w)
        s.B = self.B
        s.z, s.z_panel, s.rh = self.z, self.B * w.size, self.rh
        s.h = s.h_own = s.out = data(self.state[0])
        s.h_row = s.out_row = padded
        s.norm = self.h_hats.norm(w, w.gain_h)
        s.c_hat, s.hat_panel = self.c_hat, self.B * VL
        if w.projects:
            s.out, s.out_row = self.out, w.H
        if w.layout.has_c:
            s.c, s.c_row, s.c_panel = data(self.state[1]), padded, VL
        memset(x, 0, sizeof(Projection))
        x.w, x.bias, x.slots, x.H = &w.x, w.bias, w.layout.slots, w.H
        x.T, x.B, x.x_b = 1, self.B, w.I
        x.z, x.z_panel = self.z, s.z_panel
        x.norm = self.x_hats.norm(w, w.gain_x)
        return 0

    cdef void _step(self, const real *x, real *y) noexcept nogil:
        cdef ptrdiff_t b
        cdef const Weights *w = &self.packed.w
        cdef float_mode mode = flush_subnormals()
        self.x.x = x
        project(&self.x)
        w.layout.forward(&self.s)
        if w.projects:
            project_output(
                w, self.B, self.out, self.projected, <real *>self.s.h, self.s.h_row
            )
        for b in range(self.B):
            memcpy(y + b * self.P, self.s.h + b * self.s.h_row, self.P * sizeof(real))
        restore_mode(mode)

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
        if self.B * self.packed.w.H * (self.I + self.packed.w.H) < STEP_HOLDS_GIL:
            self._step(x_data, y_data)
        else:
            self.busy = True
            with nogil:
                self._step(x_data, y_data)
            self.busy = False
        return out
