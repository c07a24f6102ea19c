"""ONNX Runtime's DynamicQuantizeLSTM, whose weights are int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks, layouts
from fastrnn._kernels.cells import Cell, CellConfig
from fastrnn._kernels.quantized import BY_ROW, INT8, MOST, QuantizedWeights
from fastrnn._types import Array
from fastrnn.onnx.operators.recurrent import Options, Recurrence, options, weights_of
from fastrnn.onnx.registry import Node, operator

#: The inputs that are weights: W, R, B, P, and scales and zero points of W and R.
_WEIGHTS = (1, 2, 3, 7, 8, 9, 10, 11)


class QuantizedRecurrence(Recurrence):
    """A node whose products are of int8: of rows that are rounded at each step, as here.

    ONNX Runtime rounds them too, with one scale for all rows, and so to other numbers.
    """

    def _packed(self, cell: Cell, config: CellConfig, arrays: dict[str, Array]) -> Any:
        limits = np.full(2, BY_ROW, np.float32)
        return QuantizedWeights(cell, config, {**arrays, "limits": limits})


def _recurrence(node: Node, inputs: Sequence[Any]) -> Recurrence:
    """Return a node with its weights."""
    _, W, R, B, _, _, _, P, W_scale, W_zero, R_scale, R_zero = (*inputs, *[None] * 12)[:12]
    given = options(node, "LSTM")
    for scale, name in ((W_scale, "W_scale"), (R_scale, "R_scale")):
        if scale is None:
            raise ValueError(f"{name}: expected an input")
    # Here the weights are transposed: (D, I, 4*H) and (D, H, 4*H).
    W, R = (_checks.expect_shape(a, n, ("D", "n", "4*H")).swapaxes(1, 2)
            for a, n in ((W, "W"), (R, "R")))  # fmt: skip
    zeros = [zero for zero in (W_zero, R_zero) if zero is not None]
    if _is_ours(given, (W, R), zeros):
        return QuantizedRecurrence(given, _int8(W, R, B, P, W_scale, R_scale))
    wide = [
        (_widened(a, zero) * _of_rows(scale)).astype(np.float32)
        for a, scale, zero in ((W, W_scale, W_zero), (R, R_scale, R_zero))
    ]
    return Recurrence(given, weights_of(node, given, wide[0], wide[1], B, P))


def _is_ours(given: Options, matrices: Sequence[Array], zeros: Sequence[Array]) -> bool:
    """Return whether the int8 kernels can compute it: symmetric, and with the LSTM's own gates."""
    usual = all(one == (("sigmoid",), ("tanh",), ("tanh",)) for one in given.activations)
    symmetric = not any(zero.any() for zero in zeros)
    return (
        usual and given.clip is None and not given.input_forget and symmetric
        and all(a.dtype == INT8 and a.min(initial=0) >= -MOST for a in matrices)
    )  # fmt: skip


def _int8(
    W: Array, R: Array, B: Array | None, P: Array | None, W_scale: Array, R_scale: Array
) -> list[dict[str, Array]]:
    """Return the weights of each direction, with one scale for each row."""
    scales = [
        np.broadcast_to(_of_rows(scale)[..., 0], a.shape[:2]).astype(np.float32)
        for scale, a in ((W_scale, W), (R_scale, R))
    ]
    found = []
    for d in range(len(W)):
        b, p = (None if a is None else a[d] for a in (B, P))
        weights = layouts.pack_onnx("LSTM", W[d], R[d], b, p)
        # Ordered as biases are.
        ordered = layouts.pack_onnx("LSTM", W[d], R[d], np.concatenate([s[d] for s in scales]))
        weights["weight_ih_scale"] = ordered["bias_ih"]
        weights["weight_hh_scale"] = ordered["bias_hh"]
        found.append(weights)
    return found


def _widened(a: Array, zero: Any) -> Array:
    wide = a.astype(np.float32)
    return wide if zero is None else wide - _of_rows(zero.astype(np.float32))


def _of_rows(a: Array) -> Array:
    """Return one number, or (D,) or (D, 4*H) of them, to broadcast over (D, 4*H, n)."""
    return a[:, None, None] if a.ndim == 1 else a[:, :, None] if a.ndim == 2 else a


def _bind(node: Node, constants: Sequence[Any]) -> Any:
    """Pack weights once, if they are constant."""
    given = (*node.inputs, *[""] * 12)[:12]
    known = (*constants, *[None] * 12)[:12]
    if any(given[k] and known[k] is None for k in _WEIGHTS):
        return None
    made = _recurrence(node, constants)
    return (lambda *inputs: made(*inputs[:8])), _WEIGHTS


@operator(
    "DynamicQuantizeLSTM",
    1,
    bind=_bind,
    domain="com.microsoft",
    attributes={
        "direction": "forward", "hidden_size": None, "activations": None, "activation_alpha": None,
        "activation_beta": None, "clip": None, "input_forget": 0,
    },
)  # fmt: skip
def _dynamic_quantize_lstm(node: Node, *inputs: Any) -> Any:
    return _recurrence(node, inputs)(*inputs[:8])
