"""Long short-term memory with forget gate: Hochreiter and Schmidhuber (1997); Gers et al. (2000).

i, f, o = sigmoid(W x + b + U h + v)        g = tanh(W_g x + b_g + U_g h + v_g)
c' = f c + i g                              h' = o tanh(c')
"""

from __future__ import annotations

import numpy as np

from fastrnn._reference.activations import Array, d_sigmoid, d_tanh, sigmoid
from fastrnn._reference.step import Backward, Forward, StepPair


def forward(zx: Array, state: tuple[Array, ...], w_hh: Array, b_hh: Array) -> Forward:
    h, c = state
    zi, zf, zg, zo = np.split(zx + h @ w_hh.T + b_hh, 4, axis=1)
    i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
    c_new = f * c + i * g
    tanh_c = np.tanh(c_new)
    return Forward(state=(o * tanh_c, c_new), saved=(h, c, i, f, g, o, tanh_c))


def backward(saved: tuple[Array, ...], dstate: tuple[Array, ...], w_hh: Array) -> Backward:
    h, c, i, f, g, o, tanh_c = saved
    dh_new, dc_new = dstate
    dc = dc_new + dh_new * o * d_tanh(tanh_c)
    di, df, dg, do = dc * g, dc * c, dc * i, dh_new * tanh_c
    dz = np.hstack([di * d_sigmoid(i), df * d_sigmoid(f), dg * d_tanh(g), do * d_sigmoid(o)])
    return Backward(dzx=dz, dstate=(dz @ w_hh, dc * f), dw_hh=dz.T @ h, db_hh=dz.sum(axis=0))


LSTM = StepPair(forward, backward)
