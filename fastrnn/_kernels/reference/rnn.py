"""Recurrent network of Elman (1990), "Finding structure in time", with tanh or rectifier.

h' = act(W_ih x + b_ih + W_hh h + b_hh)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastrnn._kernels.reference.activations import d_relu, d_tanh, relu
from fastrnn._kernels.reference.arithmetic import FLOAT, Arithmetic
from fastrnn._kernels.reference.product import product_back
from fastrnn._kernels.reference.step import Backward, CellWeights, Forward, StepPair
from fastrnn._types import Array


def elman(
    act: Callable[[Arithmetic], Callable[[Array], Array]], d_act: Callable[[Array], Array]
) -> StepPair:
    """Return the steps with an activation, given its derivative in terms of its output."""

    def forward(
        zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT
    ) -> Forward:
        (h,) = state
        zh = by.product(h, w["weight_hh"], precision=w.matmul_precision)
        h_new = by.settled(act(by)(zx + zh.value + w["bias_hh"]))
        return Forward(state=(h_new,), saved=(zh, h_new))

    def backward(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
        zh, h_new = saved
        (dh_new,) = dstate
        dz = dh_new * d_act(h_new)
        dh, dweight, _ = product_back(zh, dz, w["weight_hh"])
        grads = {"weight_hh": dweight, "bias_hh": dz.sum(axis=0)}
        return Backward(dzx=dz, dstate=(dh,), grads=grads)

    return StepPair(forward, backward)


STEPS = {
    "rnn_tanh": elman(lambda by: by.tanh, d_tanh),
    "rnn_relu": elman(lambda by: relu, d_relu),
}
