"""Independently recurrent network of Li et al. (2018), eq. 1: each unit sees its own past only.

h' = act(W_ih x + b_ih + u * h + b_hh), u being `weight_hh`, a vector (H,).
"""

from __future__ import annotations

import numpy as np

from fastrnn._kernels.reference.activations import d_relu, d_tanh, relu
from fastrnn._kernels.reference.rnn import elman

# The scan's products know an elementwise recurrence by its vector; the rest is Elman's network.
STEPS = {"indrnn_tanh": elman(np.tanh, d_tanh), "indrnn_relu": elman(relu, d_relu)}
