"""Gated recurrent unit of Cho et al. (2014), with the reset gate after or before the product.

r, z = sigmoid(W x + b + U h + v)
n = tanh(W_n x + b_n + r (U_n h + v_n))     reset after: torch's, cuDNN's and Keras's default
n = tanh(W_n x + b_n + U_n (r h) + v_n)     reset before: Cho et al. (2014), eq. 8; ONNX's default
h' = (1 - z) n + z h
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastrnn._reference.activations import Array, d_sigmoid, d_tanh, sigmoid
from fastrnn._reference.step import Backward, Forward, StepPair


def forward_after(zx: Array, state: tuple[Array, ...], w: Mapping[str, Array]) -> Forward:
    (h,) = state
    xr, xz, xn = np.split(zx, 3, axis=1)
    hr, hz, hn = np.split(h @ w["weight_hh"].T + w["bias_hh"], 3, axis=1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return Forward(state=((1 - z) * n + z * h,), saved=(h, r, z, n, hn))


def backward_after(
    saved: tuple[Array, ...], dstate: tuple[Array, ...], w: Mapping[str, Array]
) -> Backward:
    h, r, z, n, hn = saved
    (dh_new,) = dstate
    dzn = dh_new * (1 - z) * d_tanh(n)
    dzr = dzn * hn * d_sigmoid(r)
    dzz = dh_new * (h - n) * d_sigmoid(z)
    dzh = np.hstack([dzr, dzz, dzn * r])
    return Backward(
        dzx=np.hstack([dzr, dzz, dzn]),
        dstate=(dh_new * z + dzh @ w["weight_hh"],),
        grads={"weight_hh": dzh.T @ h, "bias_hh": dzh.sum(axis=0)},
    )


def forward_before(zx: Array, state: tuple[Array, ...], w: Mapping[str, Array]) -> Forward:
    (h,) = state
    H, w_hh, b_hh = h.shape[1], w["weight_hh"], w["bias_hh"]
    rz = sigmoid(zx[:, : 2 * H] + h @ w_hh[: 2 * H].T + b_hh[: 2 * H])
    r, z = np.split(rz, 2, axis=1)
    n = np.tanh(zx[:, 2 * H :] + (r * h) @ w_hh[2 * H :].T + b_hh[2 * H :])
    return Forward(state=((1 - z) * n + z * h,), saved=(h, r, z, n))


def backward_before(
    saved: tuple[Array, ...], dstate: tuple[Array, ...], w: Mapping[str, Array]
) -> Backward:
    h, r, z, n = saved
    (dh_new,) = dstate
    H, w_hh = h.shape[1], w["weight_hh"]
    dzn = dh_new * (1 - z) * d_tanh(n)
    drh = dzn @ w_hh[2 * H :]
    dzr = drh * h * d_sigmoid(r)
    dzz = dh_new * (h - n) * d_sigmoid(z)
    dzrz = np.hstack([dzr, dzz])
    dz = np.hstack([dzrz, dzn])
    return Backward(
        dzx=dz,
        dstate=(dh_new * z + drh * r + dzrz @ w_hh[: 2 * H],),
        grads={"weight_hh": np.vstack([dzrz.T @ h, dzn.T @ (r * h)]), "bias_hh": dz.sum(axis=0)},
    )


GRU = StepPair(forward_after, backward_after)
GRU_RESET_BEFORE = StepPair(forward_before, backward_before)
