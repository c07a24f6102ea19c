"""Independently recurrent network of Li et al. (2018), eq. 1: each unit sees its own past only.

h' = act(W_ih x + b_ih + u * h + b_hh), u being `weight_hh`, a vector (H,).
"""

from __future__ import annotations

from fastrnn._kernels.reference import rnn

# The scan's products know an elementwise recurrence by its vector; the rest is Elman's network.
STEPS = {f"ind{name}": steps for name, steps in rnn.STEPS.items()}
