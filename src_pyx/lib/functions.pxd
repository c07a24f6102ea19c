"""Functions of each number, from functions.h."""

from vec cimport real, vf

cdef extern from "functions.h" nogil:
    const int SOFTMAX
    const int LOG_SOFTMAX
    const int LAYER_NORM
    const int STANDARDISE
    const int RESTORE
    const bint FASTRNN_INT8
    real standardised(real x, double mean, double deviation)
    real restored(real x, double mean, double deviation)
    vf function_of(int which, vf x, real a, real b)
    vf gradient_of(int which, vf x, vf d, real a, real b)
