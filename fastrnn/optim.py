"""Optimizers: they change dicts of arrays in place, with torch's formulas.

Each works alone: ``Adam().step(layer.parameters(), grads)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrnn import _checks

Array = np.ndarray[Any, np.dtype[Any]]


def clip_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale gradients down, in place, so that their joint 2-norm is at most `max_norm`.

    Pascanu et al. 2013, algorithm 1; as ``torch.nn.utils.clip_grad_norm_``. A norm that is not
    finite makes NaN or 0 of the gradients, as there.

    Parameters
    ----------
    grads : mapping of str to array
    max_norm : float

    Returns
    -------
    norm : float
        The joint norm before.
    """
    limit = _checks.real(max_norm, "max_norm", "a number above 0", lambda v: v > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
        # torch's 1e-6 keeps the quotient finite at norm 0.
        factor = limit / (norm + 1e-6)
        if not factor >= 1:  # NaN is to get through
            for g in grads.values():
                g *= factor
    return norm


class Optimizer(ABC):
    """What all optimizers have in common; not for direct use.

    Attributes
    ----------
    steps : int
        Steps taken so far.
    """

    def __init__(
        self,
        lr: float | Callable[[int], float],
        clip_norm: float | None,
        clip_value: float | None,
    ) -> None:
        self.lr = lr if callable(lr) else _rate(lr)
        self.clip_norm = None if clip_norm is None else _checks.positive(clip_norm, "clip_norm")
        self.clip_value = None if clip_value is None else _checks.positive(clip_value, "clip_value")
        self.steps = 0
        self._state: dict[str, tuple[Array, ...]] = {}

    def step(self, params: Mapping[str, Array], grads: Mapping[str, Any]) -> None:
        """Change `params` in place, once; `grads` stay as they are.

        Parameters
        ----------
        params : mapping of str to array
            Float32 or float64; the same names and shapes at each step.
        grads : mapping of str to array-like
            One for each of `params`, in its shape.

        Raises
        ------
        ValueError
            If a gradient is missing, unexpected or of another shape; nothing has changed then.
        """
        checked = self._checked(params, grads)
        lr = _rate(self.lr(self.steps)) if callable(self.lr) else self.lr
        if not self._state:
            self._state = {name: self._initial(p) for name, p in params.items()}
        self.steps += 1
        # What is not finite stays so, silently, as in torch.
        with np.errstate(over="ignore", invalid="ignore"):
            for name, p in params.items():
                self._update(p, checked[name], self._state[name], lr)

    @abstractmethod
    def _initial(self, p: Array) -> tuple[Array, ...]:
        """What is remembered of one parameter, before the first step."""

    @abstractmethod
    def _update(self, p: Array, g: Array, state: tuple[Array, ...], lr: float) -> None:
        """Change `p` and `state` in place."""

    def _checked(self, params: Mapping[str, Array], grads: Mapping[str, Any]) -> dict[str, Array]:
        """The gradients, checked and clipped."""
        missing, unexpected = sorted(params.keys() - grads), sorted(grads.keys() - params)
        if missing or unexpected:
            raise ValueError(f"grads: missing {missing}, unexpected {unexpected}")
        if self._state and self._state.keys() != params.keys():
            raise ValueError(
                f"params: expected those of the first step, {sorted(self._state)}, "
                f"got {sorted(params)}"
            )
        found = {}
        for name, p in params.items():
            if not isinstance(p, np.ndarray) or not p.flags.writeable:
                raise TypeError(f"params {name}: expected a writeable NumPy array")
            if self._state:
                for s in self._state[name]:
                    _checks.expect_shape(p, f"params {name}", s.shape)
            found[name] = _checks.shaped(
                grads[name], f"grads {name}", _checks.dtype(p.dtype), p.shape
            )
        if self.clip_value is not None:
            found = {n: np.clip(g, -self.clip_value, self.clip_value) for n, g in found.items()}
        if self.clip_norm is not None:
            if self.clip_value is None:
                found = {n: g.copy() for n, g in found.items()}
            clip_norm(found, self.clip_norm)
        return found

    def __repr__(self) -> str:
        said = [f"{n}={v!r}" for n, v in vars(self).items() if n != "steps" and n[0] != "_"]
        return f"{type(self).__name__}({', '.join(said)})"


class SGD(Optimizer):
    """Stochastic gradient descent, as ``torch.optim.SGD`` without dampening.

    g = grad + weight_decay p; with momentum b = momentum b + g (b = g at first), and g = b, or with
    nesterov g = g + momentum b (Sutskever et al. 2013); p = p - lr g.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function from the number of steps taken so far to it.
    momentum, weight_decay : float
    nesterov : bool
        Needs momentum.
    clip_norm : float, optional
        Scale the gradients to at most this joint 2-norm, as :func:`clip_norm`.
    clip_value : float, optional
        Bring every entry of the gradients to within +- this, before `clip_norm`.
    """

    def __init__(
        self,
        lr: float | Callable[[int], float],
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm, clip_value)
        self.momentum = _not_negative(momentum, "momentum")
        self.weight_decay = _not_negative(weight_decay, "weight_decay")
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")

    def _initial(self, p: Array) -> tuple[Array, ...]:
        return (np.zeros_like(p),) if self.momentum else ()

    def _update(self, p: Array, g: Array, state: tuple[Array, ...], lr: float) -> None:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            (b,) = state
            b *= self.momentum
            b += g
            g = g + self.momentum * b if self.nesterov else b
        p -= lr * g


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), as ``torch.optim.Adam``.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; at step t
    p = p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function from the number of steps taken so far to it.
    betas : pair of float
        Decay of the means of the gradient and of its square.
    eps : float
    clip_norm : float, optional
        Scale the gradients to at most this joint 2-norm, as :func:`clip_norm`.
    clip_value : float, optional
        Bring every entry of the gradients to within +- this, before `clip_norm`.
    """

    def __init__(
        self,
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm, clip_value)
        b1, b2 = betas
        self.betas = (_checks.fraction(b1, "betas[0]"), _checks.fraction(b2, "betas[1]"))
        self.eps = _not_negative(eps, "eps")

    def _initial(self, p: Array) -> tuple[Array, ...]:
        return np.zeros_like(p), np.zeros_like(p)

    def _update(self, p: Array, g: Array, state: tuple[Array, ...], lr: float) -> None:
        b1, b2 = self.betas
        m, v = state
        term = np.multiply(g, 1 - b1, out=np.empty_like(p))
        m *= b1
        m += term
        np.multiply(g, g, out=term)
        term *= 1 - b2
        v *= b2
        v += term
        np.sqrt(v, out=term)
        term *= (1 - b2**self.steps) ** -0.5
        term += self.eps
        np.divide(m, term, out=term)
        term *= lr / (1 - b1**self.steps)
        p -= term


def _not_negative(value: Any, name: str) -> float:
    return _checks.real(value, name, "a finite number >= 0", lambda v: 0 <= v < math.inf)


def _rate(value: Any) -> float:
    return _not_negative(value, "lr")
