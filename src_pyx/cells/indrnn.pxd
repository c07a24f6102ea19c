"""Independently recurrent network (Li et al. 2018): h' = act(W x + b + u h), u a vector.

The step is that of Elman's network: `recur` handles the elementwise recurrence. One slot: h.
"""

from rnn cimport rnn_relu_backward, rnn_relu_forward, rnn_tanh_backward, rnn_tanh_forward
from step cimport Step, StepBack


cdef inline void indrnn_tanh_forward(const Step *s) noexcept nogil:
    rnn_tanh_forward(s)


cdef inline void indrnn_tanh_backward(const StepBack *s) noexcept nogil:
    rnn_tanh_backward(s)


cdef inline void indrnn_relu_forward(const Step *s) noexcept nogil:
    rnn_relu_forward(s)


cdef inline void indrnn_relu_backward(const StepBack *s) noexcept nogil:
    rnn_relu_backward(s)
