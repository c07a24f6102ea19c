"""Recurrent network of Elman (1990), "Finding structure in time", with tanh or rectifier.

h' = act(W_ih x + b_ih + W_hh h + b_hh)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrnn._kernels.reference.activations import d_relu, d_tanh, relu
from fastrnn._kernels.reference.step import Backward, Forward, StepPair
from fastrnn._types import Array


def _rnn(act: Callable[[Array], Array], d_act: Callable[[Array], Array]) -> StepPair:
    def forward(zx: Array, state: tuple[Array, ...], w: Mapping[str, Array]) -> Forward:
        (h,) = state
        h_new = act(zx + h @ w["weight_hh"].T + w["bias_hh"])
        return Forward(state=(h_new,), saved=(h, h_new))

    def backward(
        saved: tuple[Any, ...], dstate: tuple[Array, ...], w: Mapping[str, Array]
    ) -> Backward:
        h, h_new = saved
        (dh_new,) = dstate
        dz = dh_new * d_act(h_new)
        grads = {"weight_hh": dz.T @ h, "bias_hh": dz.sum(axis=0)}
        return Backward(dzx=dz, dstate=(dz @ w["weight_hh"],), grads=grads)

    return StepPair(forward, backward)


RNN_TANH = _rnn(np.tanh, d_tanh)
RNN_RELU = _rnn(relu, d_relu)
