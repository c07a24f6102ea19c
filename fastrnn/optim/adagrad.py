"""Adagrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.interface import Kernels
from fastrnn._types import Array
from fastrnn.optim.base import Arrays, Optimizer, Options, Rate, Scale


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011), as ``torch.optim.Adagrad``.

    g = grad + weight_decay p; s = s + g^2; at step t
    p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function of the number of steps taken so far.
    lr_decay, weight_decay : float
    initial_accumulator_value : float
        s before the first step.
    eps : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.

    Examples
    --------
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> optimizer = fastrnn.optim.Adagrad(lr=0.1)
    >>> optimizer.step(weights, {"w": np.array([1.0, -1.0])})
    >>> weights["w"].round(6)
    array([0.9, 2.1])
    """

    __slots__ = ("eps", "initial_accumulator_value", "lr_decay", "weight_decay")

    _options: ClassVar[Options] = Optimizer._options | {
        "lr_decay": _checks.not_negative,
        "weight_decay": _checks.not_negative,
        "initial_accumulator_value": _checks.not_negative,
        "eps": _checks.not_negative,
    }
    _fixed = ("initial_accumulator_value",)

    lr_decay: float
    weight_decay: float
    initial_accumulator_value: float
    eps: float

    def __init__(
        self,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            lr=lr,
            clip_norm=clip_norm,
            clip_value=clip_value,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )

    def _slots_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def _initial(self, p: Array) -> tuple[Array, ...]:
        return (np.full(p.shape, self.initial_accumulator_value, p.dtype),)

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale, t: int) -> None:
        (params, grads, states), (limit, factor, lr) = arrays, scale
        kernels.adagrad(
            params,
            grads,
            states,
            limit=limit,
            factor=factor,
            lr=lr / (1 + (t - 1) * self.lr_decay),
            weight_decay=self.weight_decay,
            eps=self.eps,
        )
