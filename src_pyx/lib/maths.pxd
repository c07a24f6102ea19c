"""Vectors of `real` in losses and optimizers, from maths.h and vec.h."""

from vec cimport real, vf

cdef extern from "maths.h" nogil:
    ctypedef long vi
    vi less(vf a, vf b)
    vf choose(vi mask, vf a, vf b)
    vf absolute(vf x)
    vf at_least(vf x, real limit)
    vf at_most(vf x, real limit)
    vf larger(vf a, vf b)
    real vlargest(vf v)
    vf vsqrt(vf x)
    vf vexp(vf x)
    vf vlog1p(vf x)
    double log_of(double x)
    double power_of(double x, double n)
