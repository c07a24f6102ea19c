# A single layer's call, from the caller's arrays into new ones.

cimport numpy as cnp
from packing cimport Weights
from vec cimport real


cdef object new_array(ptrdiff_t a, ptrdiff_t b, ptrdiff_t c):
    cdef cnp.npy_intp[3] shape
    shape[0], shape[1], shape[2] = a, b, c
    return cnp.PyArray_EMPTY(3, shape, NPY_REAL, 0)


cdef tuple new_states(const Weights *w, ptrdiff_t B):
    h = new_array(1, B, w.P)
    if w.layout.states == 1:
        return (h,)
    if w.layout.states == 2:
        return h, new_array(1, B, w.H)
    return (h, *[new_array(1, B, w.H) for _ in range(w.layout.states - 1)])


cdef tuple stacked_states(const Weights *w, state, ptrdiff_t B):
    """Return the caller's states as a tuple; None if they need to be converted."""
    cdef tuple given
    cdef ptrdiff_t i
    if state is None:
        return (None,) * w.layout.states
    if w.layout.states == 1:
        given = (state,)
    elif type(state) is tuple and len(<tuple>state) == w.layout.states:
        given = state
    else:
        return None
    for i in range(w.layout.states):
        if given[i] is not None and not (
            cnp.PyArray_CheckExact(given[i])
            and is_stacked(given[i], B, w.H if i else w.P, IN)
        ):
            return None
    return given


def run(Packed packed not None, x, state, *, bint keep=False, bint outputs=True):
    """Run a layer over a sequence, into new arrays; None if an array needs to be converted."""
    cdef const Weights *w = &packed.w
    cdef ptrdiff_t T, B
    cdef tuple given, ends
    if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(<cnp.ndarray>x) != 3:
        return None
    T, B = cnp.PyArray_DIM(<cnp.ndarray>x, 0), cnp.PyArray_DIM(<cnp.ndarray>x, 1)
    if T == 0 or B == 0 or not is_sequence(x, T, B, w.I, IN):
        return None
    given = stacked_states(w, state, B)
    if given is None:
        return None
    y, ends = new_array(T, B, w.P) if outputs else None, new_states(w, B)
    tape = run_scan(packed, x, given, y, ends, keep, None, None, True)
    return y, (ends[0] if w.layout.states == 1 else ends), tape
