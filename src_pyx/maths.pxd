"""Vectors of `real` in losses and optimizers, from maths.h."""

from vec cimport real, vf

cdef extern from "maths.h" nogil:
    vf at_least(vf x, real limit)
    vf at_most(vf x, real limit)
    vf vsqrt(vf x)
    vf vexp(vf x)
    vf larger(vf a, vf b)
