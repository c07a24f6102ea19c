"""Long short-term memory with forget gate: Hochreiter and Schmidhuber (1997); Gers et al. (2000).

i, f, o = sigmoid(W x + b + U h + v)        g = tanh(W_g x + b_g + U_g h + v_g)
c' = f c + i g                              h' = o tanh(c')

With peepholes (Gers et al. 2002) each gate unit also sees its own cell state, i and f the old one,
o the new one. With layer normalisation (Ba et al. 2016, eq. 20 to 22) LN(W x) and LN(U h) replace
W x and U h, normalised over all four gates, and h' = o tanh(LN(c')). With `input_forget` (ONNX's
LSTM; CIFG in Greff et al. 2017) f = 1 - i, and nothing else is computed for f. All activations may
be others than sigmoid and tanh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._kernels.reference.arithmetic import FLOAT, Activated, Arithmetic
from fastrnn._kernels.reference.product import normalise_back, product_back
from fastrnn._kernels.reference.step import Backward, CellWeights, Forward, StepPair
from fastrnn._types import Array


def forward(zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT) -> Forward:
    h, c = state
    zh = by.product(h, w["weight_hh"], w.get("gain_hh"), zx.shape[1:], w.matmul_precision)
    zi, zf, zg, zo = np.split(zx + zh.value + w["bias_hh"], 4, axis=1)
    if "weight_ci" in w:
        zi, zf = zi + w["weight_ci"] * c, zf + w["weight_cf"] * c
    of_gate, of_cell, of_hidden = w.functions
    i, g = of_gate(zi), of_cell(zg)
    f = Activated(1 - i.value, np.zeros_like(zf)) if w.input_forget else of_gate(zf)
    c_new = by.settled(f.value * c + i.value * g.value)
    if "weight_co" in w:
        zo = zo + w["weight_co"] * c_new
    normed = by.normalise(c_new) if "gain_c" in w else None
    seen = c_new if normed is None else normed.hat * w["gain_c"] + w.get("bias_c", 0)
    o, hidden = of_gate(zo), of_hidden(seen)
    saved = (zh, c, i, f, g, o, c_new, hidden, normed)
    return Forward(state=(o.value * hidden.value, c_new), saved=saved)


def backward(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
    zh, c, i, f, g, o, c_new, hidden, normed = saved
    dh_new, dc = dstate
    grads = {}
    dzo = dh_new * hidden.value * o.slope
    dseen = dh_new * o.value * hidden.slope
    if normed is not None:
        grads["gain_c"], grads["bias_c"] = (dseen * normed.hat).sum(axis=0), dseen.sum(axis=0)
        dseen = normalise_back(normed, dseen * w["gain_c"])
    dc = dc + dseen
    if "weight_co" in w:
        dc = dc + dzo * w["weight_co"]
        grads["weight_co"] = (dzo * c_new).sum(axis=0)
    of_i = g.value - c if w.input_forget else g.value
    dzi, dzf, dzg = dc * of_i * i.slope, dc * c * f.slope, dc * i.value * g.slope
    dc = dc * f.value
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
