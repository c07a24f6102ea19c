"""Gates of cells with other activations than their own, from gating.h."""

from vec cimport real, vf

cdef extern from "gating.h" nogil:
    const int MAX_ACTIVATIONS
    ctypedef struct activation:
        int which
        real a
        real b
        real clip
    ctypedef struct gating:
        bint given
        activation *of
        bint coupled
    void be_small()
    vf activated(const activation *f, vf z)
    vf activated_back(const activation *f, vf z, vf d)
