"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn._kernels.interface import Kernels
from fastrnn.optim.base import Arrays, Optimizer, Options, Rate, Scale


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012), as ``torch.optim.RMSprop``.

    g = grad + weight_decay p; v = alpha v + (1 - alpha) g^2; d = g / (sqrt(v) + eps), or, if
    centered, with the mean a = alpha a + (1 - alpha) g (Graves 2013, eq. 40) d = g / (sqrt(v - a^2)
    + eps); with momentum b = momentum b + d, and d = b; p = p - lr d.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function of the number of steps taken so far.
    alpha : float
        Decay rate of the running mean of the squared gradient.
    eps, momentum : float
    centered : bool
    weight_decay : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.

    Examples
    --------
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> optimizer = fastrnn.optim.RMSprop(lr=0.01, alpha=0.99)
    >>> optimizer.step(weights, {"w": np.array([1.0, -1.0])})
    >>> weights["w"].round(6)
    array([0.9, 2.1])
    """

    __slots__ = ("alpha", "centered", "eps", "momentum", "weight_decay")

    _options: ClassVar[Options] = Optimizer._options | {
        "alpha": _checks.fraction,
        "eps": _checks.not_negative,
        "momentum": _checks.not_negative,
        "centered": _checks.flag,
        "weight_decay": _checks.not_negative,
    }

    alpha: float
    eps: float
    momentum: float
    centered: bool
    weight_decay: float

    def __init__(
        self,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            lr=lr,
            clip_norm=clip_norm,
            clip_value=clip_value,
            alpha=alpha,
            eps=eps,
            momentum=momentum,
            centered=centered,
            weight_decay=weight_decay,
        )

    def _slots_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        more = {"grad_avg": options["centered"], "momentum_buffer": options["momentum"]}
        return ("square_avg", *(name for name, used in more.items() if used))

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale, t: int) -> None:
        (params, grads, states), (limit, factor, lr) = arrays, scale
        kernels.rmsprop(
            params,
            grads,
            states,
            limit=limit,
            factor=factor,
            lr=lr,
            weight_decay=self.weight_decay,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            centered=self.centered,
        )
