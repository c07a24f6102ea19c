# BPTT of a single layer's call, into new arrays. Included in kernels.pyx.

cimport numpy as cnp


def run_back(Tape tape not None, dy, dstate_n, *, bint input_gradient=True):
    """Backpropagate, into new arrays; None if an array needs to be converted."""
    cdef Packed packed = tape.packed
    cdef ptrdiff_t T = tape.schedule.T, B = tape.schedule.B
    cdef tuple given, dstate
    cdef Gradients gradients
    if packed is None:
        raise ValueError("tape: expected one that `forward` made")
    if dy is not None and not (
        cnp.PyArray_CheckExact(dy) and is_sequence(dy, T, B, packed.w.P, IN)
    ):
        return None
    given = stacked_states(&packed.w, dstate_n, B)
    if given is None:
        return None
    dx = new_array(T, B, packed.w.I) if input_gradient else None
    dstate = new_states(&packed.w, B)
    gradients = Gradients(packed, tape.schedule.N == 1 and packed.format is &REALS)
    run_scan_back(tape, dy, given, dx, dstate, gradients, True)
    return dx, (dstate[0] if packed.w.layout.states == 1 else dstate), gradients.arrays()
