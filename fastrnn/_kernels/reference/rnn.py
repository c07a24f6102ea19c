"""Recurrent network of Elman (1990), "Finding structure in time".

h' = act(W_ih x + b_ih + W_hh h + b_hh)
"""

from __future__ import annotations

from typing import Any

from fastrnn._kernels.reference.arithmetic import FLOAT, Arithmetic
from fastrnn._kernels.reference.product import product_back
from fastrnn._kernels.reference.step import Backward, CellWeights, Forward, StepPair
from fastrnn._types import Array


def forward(zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT) -> Forward:
    (h,) = state
    zh = by.product(h, w["weight_hh"], precision=w.matmul_precision)
    act = w.functions[0](zx + zh.value + w["bias_hh"])
    return Forward(state=(by.settled(act.value),), saved=(zh, act.slope))


def backward(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
    zh, slope = saved
    (dh_new,) = dstate
    dz = dh_new * slope
    dh, dweight, _ = product_back(zh, dz, w["weight_hh"])
    grads = {"weight_hh": dweight, "bias_hh": dz.sum(axis=0)}
    return Backward(dzx=dz, dstate=(dh,), grads=grads)


STEPS = {name: StepPair(forward, backward) for name in ("rnn_tanh", "rnn_relu")}
