"""Long short-term memory with forget gate: Hochreiter and Schmidhuber (1997); Gers et al. (2000).

i, f, o = sigmoid(W x + b + U h + v)        g = tanh(W_g x + b_g + U_g h + v_g)
c' = f c + i g                              h' = o tanh(c')

With peepholes (Gers et al. 2002) each gate unit also sees its own cell state, i and f the old one,
o the new one. With layer normalisation (Ba et al. 2016, eq. 20 to 22) LN(W x) and LN(U h) replace
W x and U h, normalised over all four gates, and h' = o tanh(LN(c')).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._kernels.reference.activations import d_sigmoid, d_tanh
from fastrnn._kernels.reference.arithmetic import FLOAT, Arithmetic
from fastrnn._kernels.reference.product import normalise_back, product_back
from fastrnn._kernels.reference.step import Backward, CellWeights, Forward, StepPair
from fastrnn._types import Array


def forward(zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT) -> Forward:
    h, c = state
    zh = by.product(h, w["weight_hh"], w.get("gain_hh"), zx.shape[1:], w.matmul_precision)
    zi, zf, zg, zo = np.split(zx + zh.value + w["bias_hh"], 4, axis=1)
    if "weight_ci" in w:
        zi, zf = zi + w["weight_ci"] * c, zf + w["weight_cf"] * c
    i, f, g = by.sigmoid(zi), by.sigmoid(zf), by.tanh(zg)
    c_new = by.settled(f * c + i * g)
    if "weight_co" in w:
        zo = zo + w["weight_co"] * c_new
    normed = by.normalise(c_new) if "gain_c" in w else None
    seen = c_new if normed is None else normed.hat * w["gain_c"] + w.get("bias_c", 0)
    o, tanh_c = by.sigmoid(zo), by.tanh(seen)
    return Forward(state=(o * tanh_c, c_new), saved=(zh, c, i, f, g, o, c_new, tanh_c, normed))


def backward(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
    zh, c, i, f, g, o, c_new, tanh_c, normed = saved
    dh_new, dc = dstate
    grads = {}
    dzo = dh_new * tanh_c * d_sigmoid(o)
    dseen = dh_new * o * d_tanh(tanh_c)
    if normed is not None:
        grads["gain_c"], grads["bias_c"] = (dseen * normed.hat).sum(axis=0), dseen.sum(axis=0)
        dseen = normalise_back(normed, dseen * w["gain_c"])
    dc = dc + dseen
    if "weight_co" in w:
        dc = dc + dzo * w["weight_co"]
        grads["weight_co"] = (dzo * c_new).sum(axis=0)
    dzi, dzf, dzg = dc * g * d_sigmoid(i), dc * c * d_sigmoid(f), dc * i * d_tanh(g)
    dc = dc * f
    if "weight_ci" in w:
        dc = dc + dzi * w["weight_ci"] + dzf * w["weight_cf"]
        grads["weight_ci"], grads["weight_cf"] = (dzi * c).sum(axis=0), (dzf * c).sum(axis=0)
    dz = np.hstack([dzi, dzf, dzg, dzo])
    dh, grads["weight_hh"], grads["gain_hh"] = product_back(
        zh, dz, w["weight_hh"], w.get("gain_hh")
    )
    grads["bias_hh"] = dz.sum(axis=0)
    return Backward(dzx=dz, dstate=(dh, dc), grads=grads)


STEPS = {"lstm": StepPair(forward, backward)}
