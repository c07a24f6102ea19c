"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn._kernels.interface import Kernels
from fastrnn.optim.base import Arrays, Optimizer, Options, Rate, Scale


class SGD(Optimizer):
    """Stochastic gradient descent, as ``torch.optim.SGD`` without dampening.

    g = grad + weight_decay p; with momentum b = momentum b + g (b = g at first), and g = b, or with
    nesterov g = g + momentum b (Sutskever et al. 2013); p = p - lr g.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function of the number of steps taken so far.
    momentum, weight_decay : float
    nesterov : bool
        Needs momentum.
    clip_norm : float, optional
        Scale the gradients to at most this joint 2-norm, as :func:`clip_norm`.
    clip_value : float, optional
        Clip every entry of the gradients to +- this, before `clip_norm`.

    Examples
    --------
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> optimizer = fastrnn.optim.SGD(lr=0.1, momentum=0.9)
    >>> optimizer.step(weights, {"w": np.array([1.0, -1.0])})
    >>> weights["w"]
    array([0.9, 2.1])
    """

    __slots__ = ("momentum", "nesterov", "weight_decay")

    _options: ClassVar[Options] = Optimizer._options | {
        "momentum": _checks.not_negative,
        "weight_decay": _checks.not_negative,
        "nesterov": _checks.flag,
    }

    momentum: float
    weight_decay: float
    nesterov: bool

    def __init__(
        self,
        lr: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            lr=lr,
            clip_norm=clip_norm,
            clip_value=clip_value,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )

    def _expect_options(self, options: Mapping[str, Any]) -> None:
        if options["nesterov"] and not options["momentum"]:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")

    def _slots_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if options["momentum"] else ()

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale, t: int) -> None:
        (params, grads, states), (limit, factor, lr) = arrays, scale
        kernels.sgd(
            params,
            grads,
            states,
            limit=limit,
            factor=factor,
            lr=lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
