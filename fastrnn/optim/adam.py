"""Adam, and AdamW with its decoupled weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fastrnn import _checks
from fastrnn._kernels.interface import Kernels
from fastrnn.optim.base import Arrays, Optimizer, Options, Rate, Scale, _betas


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), as ``torch.optim.Adam``.

    g = grad + weight_decay p; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; at step t
    p = p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function of the number of steps taken so far.
    betas : pair of float
        Decay rates of the running means of the gradient and of its square.
    eps : float
    weight_decay : float
    clip_norm : float, optional
        Scale the gradients to at most this joint 2-norm, as :func:`clip_norm`.
    clip_value : float, optional
        Clip every entry of the gradients to +- this, before `clip_norm`.

    Examples
    --------
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> optimizer = fastrnn.optim.Adam(lr=0.1)
    >>> optimizer.step(weights, {"w": np.array([1.0, -1.0])})
    >>> weights["w"].round(6)
    array([0.9, 2.1])
    """

    __slots__ = ("betas", "eps", "weight_decay")

    _options: ClassVar[Options] = Optimizer._options | {
        "betas": _betas,
        "eps": _checks.not_negative,
        "weight_decay": _checks.not_negative,
    }

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    #: Whether the decay is applied to the parameter rather than to the gradient.
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            lr=lr,
            clip_norm=clip_norm,
            clip_value=clip_value,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
        )

    def _slots_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale, t: int) -> None:
        b1, b2 = self.betas
        (params, grads, states), (limit, factor, lr) = arrays, scale
        kernels.adam(
            params,
            grads,
            states,
            limit=limit,
            factor=factor,
            lr=lr,
            weight_decay=self.weight_decay,
            b1=b1,
            b2=b2,
            eps=self.eps,
            decoupled=self._decoupled,
            t=t,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    As ``torch.optim.AdamW``: first p = p - lr weight_decay p, then a step of :class:`Adam`
    without decay in the gradient.

    Parameters
    ----------
    lr, betas, eps
        As in :class:`Adam`.
    weight_decay : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.

    Examples
    --------
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> optimizer = fastrnn.optim.AdamW(lr=0.1, weight_decay=0.5)
    >>> optimizer.step(weights, {"w": np.array([1.0, -1.0])})
    >>> weights["w"].round(6)
    array([0.85, 2.  ])
    """

    __slots__ = ()

    _decoupled = True

    def __init__(
        self,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, clip_norm=clip_norm, clip_value=clip_value)
