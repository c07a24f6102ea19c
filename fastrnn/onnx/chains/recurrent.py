"""Recurrent layers, with their states."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn.onnx.chains.handlers import handles
from fastrnn.onnx.chains.values import (
    LEAD,
    LEAD_AXES,
    Axes,
    Finals,
    Initial,
    Learned,
    NoChain,
    Signal,
    Zeros,
    no_chain,
    signal_of,
)
from fastrnn.onnx.graph import Step
from fastrnn.onnx.links import Recurrent


@handles("RNN", "GRU", "LSTM")
def _recurrent(
    step: Step, x: Any, W: Any, R: Any, B: Any = None, lengths: Any = None, h: Any = None,
    c: Any = None, P: Any = None,
) -> Any:  # fmt: skip
    x = signal_of(x)
    weights = (W, R, B, P)
    if lengths is not None or any(not isinstance(a, np.ndarray | None) for a in weights):
        raise NoChain
    states = ("h", "c") if step.node.operator.name == "LSTM" else ("h",)
    initial = {name: _initial(s) for name, s in zip(states, (h, c), strict=False)}
    batch_first = bool(step.node.get("layout", 0))
    lead = x.axes[:2][::-1] if batch_first else x.axes[:2]
    if len(x.axes) != 3 or {*lead} != {*LEAD_AXES}:
        raise NoChain
    (time,), (batch,) = lead
    link = Recurrent.of_node(step.node, weights, x.features, time, initial)
    D, H = len(link.reverse), link.hidden_size
    links, index = (*x.links, link), len(x.links)
    sizes = {label: n for label, n in x.sizes.items() if label in LEAD} | {"H": H, "D": D}
    direction = ("D",) if D > 1 else ()
    axes: Axes = ((time,), direction, (batch,), ("H",))
    axes = tuple(axes[k] for k in (2, 0, 1, 3)) if batch_first else axes
    ends = [
        Finals(links, tuple((index, name, d) for d in range(D)), batch, sizes) for name in states
    ]
    if batch_first and any(step.node.outputs[1:]):
        raise NoChain
    return (Signal(links, axes, sizes), *ends)


def _initial(value: Any) -> Initial | Learned | None:
    """Return which input an initial state is, or which it always is; None for zeros."""
    if value is None or isinstance(value, Zeros):
        return None
    if isinstance(value, np.ndarray) and not value.any():
        return None
    return value if isinstance(value, Initial | Learned) else no_chain()
