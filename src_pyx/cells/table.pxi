# What a cell is to these kernels: where each gate stands, and which functions step it.
# Included in kernels.pyx.

from gru cimport (
    gru_backward, gru_forward, gru_reset_before_backward, gru_reset_before_forward,
)
from lstm cimport lstm_backward, lstm_forward
from rnn cimport rnn_relu_backward, rnn_relu_forward, rnn_tanh_backward, rnn_tanh_forward
from step cimport Step, StepBack

cdef enum:
    MAX_GATES = 4

cdef struct Gates:
    # Gates that one product computes: `count` slots from `first` on, and torch's index of each.
    ptrdiff_t first
    ptrdiff_t count
    ptrdiff_t index[MAX_GATES]

cdef struct Layout:
    ptrdiff_t slots
    Gates x                 # product with the input
    Gates h                 # product with the hidden state
    Gates n                 # product with (r h), or none
    bint has_c
    bint narrows            # whether the last block may be narrow: see panels.pxd
    bint z_is_h             # whether z ends as the new h, so that a tape needs no other
    ptrdiff_t groups[MAX_GATES]     # of slots that are normalised together
    void (*forward)(const Step *) noexcept nogil
    void (*backward)(const StepBack *) noexcept nogil


cdef dict LAYOUTS = {
    "rnn_tanh": 0, "rnn_relu": 1, "lstm": 2, "gru": 3, "gru_reset_before": 4,
}
cdef Layout[5] layouts
layouts[0] = Layout(
    1, Gates(0, 1, [0, 0, 0, 0]), Gates(0, 1, [0, 0, 0, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, True, True, [0, 0, 0, 0], rnn_tanh_forward, rnn_tanh_backward,
)
layouts[1] = layouts[0]
layouts[1].forward, layouts[1].backward = rnn_relu_forward, rnn_relu_backward
layouts[2] = Layout(
    4, Gates(0, 4, [0, 1, 2, 3]), Gates(0, 4, [0, 1, 2, 3]), Gates(0, 0, [0, 0, 0, 0]),
    True, True, False, [0, 0, 0, 0], lstm_forward, lstm_backward,
)
layouts[3] = Layout(
    4, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 3, [0, 1, 2, 0]), Gates(0, 0, [0, 0, 0, 0]),
    False, True, False, [0, 1, 1, 2], gru_forward, gru_backward,
)
layouts[4] = Layout(
    3, Gates(0, 3, [2, 0, 1, 0]), Gates(1, 2, [0, 1, 0, 0]), Gates(0, 1, [2, 0, 0, 0]),
    False, False, False, [0, 1, 1, 0], gru_reset_before_forward, gru_reset_before_backward,
)


# The "gates" of a projection: its outputs.
cdef Gates OUTPUT = Gates(0, 1, [0, 0, 0, 0])
