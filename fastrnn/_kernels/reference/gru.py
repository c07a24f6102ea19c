"""Gated recurrent unit of Cho et al. (2014), with the reset gate after or before the product.

r, z = sigmoid(W x + b + U h + v)
n = tanh(W_n x + b_n + r (U_n h + v_n))     reset after: torch's, cuDNN's and Keras's default
n = tanh(W_n x + b_n + U_n (r h) + v_n)     reset before: Cho et al. (2014), eq. 8; ONNX's default
h' = (1 - z) n + z h

With layer normalisation (Ba et al. 2016, eq. 29 to 31) LN(W x) and LN(U h) replace W x and U h,
normalised over r and z together, and over n alone. Activations may be others than sigmoid and tanh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn._kernels.reference.arithmetic import FLOAT, Arithmetic
from fastrnn._kernels.reference.product import product_back
from fastrnn._kernels.reference.step import Backward, CellWeights, Forward, StepPair
from fastrnn._types import Array


def forward_after(
    zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT
) -> Forward:
    (h,) = state
    H = zx.shape[1] // 3
    zh = by.product(h, w["weight_hh"], w.get("gain_hh"), (2 * H, H), w.matmul_precision)
    xr, xz, xn = np.split(zx, 3, axis=1)
    hr, hz, hn = np.split(zh.value + w["bias_hh"], 3, axis=1)
    of_gate, of_candidate = w.functions
    r, z = of_gate(xr + hr), of_gate(xz + hz)
    n = of_candidate(xn + r.value * hn)
    h_new = by.settled((1 - z.value) * n.value + z.value * h)
    return Forward(state=(h_new,), saved=(zh, h, r, z, n, hn))


def backward_after(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
    zh, h, r, z, n, hn = saved
    (dh_new,) = dstate
    dzn = dh_new * (1 - z.value) * n.slope
    dzr = dzn * hn * r.slope
    dzz = dh_new * (h - n.value) * z.slope
    dzh = np.hstack([dzr, dzz, dzn * r.value])
    dh, dweight, dgain = product_back(zh, dzh, w["weight_hh"], w.get("gain_hh"))
    return Backward(
        dzx=np.hstack([dzr, dzz, dzn]),
        dstate=(dh_new * z.value + dh,),
        grads={"weight_hh": dweight, "bias_hh": dzh.sum(axis=0), "gain_hh": dgain},
    )


def forward_before(
    zx: Array, state: tuple[Array, ...], w: CellWeights, by: Arithmetic = FLOAT
) -> Forward:
    (h,) = state
    (w_rz, gain_rz, b_rz), (w_n, gain_n, b_n) = _parts(w)
    H = len(w_n)
    zh = by.product(h, w_rz, gain_rz, (2 * H,), w.matmul_precision)
    of_gate, of_candidate = w.functions
    r, z = map(of_gate, np.split(zx[:, : 2 * H] + zh.value + b_rz, 2, axis=1))
    zn = by.product(r.value * h, w_n, gain_n, (H,), w.matmul_precision)
    n = of_candidate(zx[:, 2 * H :] + zn.value + b_n)
    h_new = by.settled((1 - z.value) * n.value + z.value * h)
    return Forward(state=(h_new,), saved=(zh, zn, h, r, z, n))


def backward_before(saved: tuple[Any, ...], dstate: tuple[Array, ...], w: CellWeights) -> Backward:
    zh, zn, h, r, z, n = saved
    (dh_new,) = dstate
    (w_rz, gain_rz, _), (w_n, gain_n, _) = _parts(w)
    dzn = dh_new * (1 - z.value) * n.slope
    drh, dw_n, dgain_n = product_back(zn, dzn, w_n, gain_n)
    dzr = drh * h * r.slope
    dzz = dh_new * (h - n.value) * z.slope
    dzrz = np.hstack([dzr, dzz])
    dh, dw_rz, dgain_rz = product_back(zh, dzrz, w_rz, gain_rz)
    dz = np.hstack([dzrz, dzn])
    return Backward(
        dzx=dz,
        dstate=(dh_new * z.value + drh * r.value + dh,),
        grads={
            "weight_hh": np.vstack([dw_rz, dw_n]),
            "bias_hh": dz.sum(axis=0),
            "gain_hh": _joined(dgain_rz, dgain_n),
        },
    )


def _parts(w: CellWeights) -> list[tuple[Array, Array | None, Array]]:
    """Return recurrent weights, gains and biases of r and z, and of n."""
    H = w["weight_hh"].shape[1]
    gain = w.get("gain_hh")
    return [
        (w["weight_hh"][rows], None if gain is None else gain[rows], w["bias_hh"][rows])
        for rows in (slice(0, 2 * H), slice(2 * H, None))
    ]


def _joined(of_rz: Array | None, of_n: Array | None) -> Array | None:
    return None if of_rz is None or of_n is None else np.hstack([of_rz, of_n])


STEPS = {
    "gru": StepPair(forward_after, backward_after, apart=("n",)),
    "gru_reset_before": StepPair(forward_before, backward_before),
}
