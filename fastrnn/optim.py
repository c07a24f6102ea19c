"""Optimizers: they change dicts of arrays in place, with torch's formulas.

Each works alone: ``Adam().step(layer.parameters(), grads)``. Learning rates that change while
training, such as :class:`CosineDecay`, go in place of a number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.interface import Gradient, Kernels
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array
from fastrnn.schedules import CosineDecay as CosineDecay
from fastrnn.schedules import ExponentialDecay as ExponentialDecay
from fastrnn.schedules import StepDecay as StepDecay
from fastrnn.schedules import WarmUp as WarmUp

Rate = float | Callable[[int], float]


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
    _expect_arrays(grads, "grads")
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
        factor = _clip_factor(norm, limit)
        if factor != 1:
            for g in grads.values():
                g *= factor
    return norm


def _clip_factor(norm: float, limit: float) -> float:
    """What brings gradients of this norm to `limit`, and 1 for those under it."""
    # torch's 1e-6 keeps the quotient finite at norm 0.
    factor = limit / (norm + 1e-6)
    return 1.0 if factor >= 1 else factor  # NaN is to get through


#: Parameters, their gradients and their states, entry by entry.
Arrays = tuple[list[Array], list[Gradient], list[tuple[Array, ...]]]


class Scale(TypedDict):
    """What every optimizer's kernel takes."""

    limit: float
    factor: float
    lr: float


class _Group:
    """Parameters of one dtype, by name, and what is remembered of each."""

    __slots__ = ("dtype", "names", "states")

    def __init__(self, dtype: np.dtype[Any], states: Mapping[str, tuple[Array, ...]]) -> None:
        self.dtype, self.names, self.states = dtype, list(states), list(states.values())


def _expect_arrays(value: Any, name: str) -> None:
    """Arrays by name that can be written to."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    for key, a in value.items():
        if not isinstance(a, np.ndarray) or not a.flags.writeable:
            raise TypeError(
                f"{name} {key}: expected a writeable NumPy array, got {type(a).__name__}"
            )


class Optimizer(ABC):
    """What all optimizers have in common; not for direct use.

    Attributes
    ----------
    steps : int
        Steps taken so far.
    """

    #: Names of what is remembered of each parameter, in the kernels' order.
    _slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: Rate, clip_norm: float | None, clip_value: float | None) -> None:
        self.lr = lr if callable(lr) else _rate(lr)
        self.clip_norm = None if clip_norm is None else _checks.positive(clip_norm, "clip_norm")
        self.clip_value = None if clip_value is None else _checks.positive(clip_value, "clip_value")
        self.steps = 0
        #: Of each parameter, by `_slots`.
        self._state: dict[str, tuple[Array, ...]] = {}
        self._groups: list[_Group] = []

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
        own = {name: _contiguous(p) for name, p in params.items()}
        self.apply(own, checked)
        for name, p in params.items():
            if own[name] is not p:
                p[...] = own[name]

    def apply(self, params: Mapping[str, Array], grads: Mapping[str, Array | RowGradient]) -> None:
        """Do what :meth:`step` does, of arrays that are known to be right; not for direct use.

        All are C-contiguous.
        """
        lr = _rate(self.lr(self.steps)) if callable(self.lr) else self.lr
        groups = self._groups or self._arranged(params)
        self.steps += 1
        limit = math.inf if self.clip_value is None else self.clip_value
        of_groups = [[grads[name] for name in group.names] for group in groups]
        factor = 1.0
        if self.clip_norm is not None:
            squares: dict[str, float] = {}
            for group, g in zip(groups, of_groups, strict=True):
                found = dispatch.kernels(group.dtype).squares(g, limit=limit)
                squares.update(zip(group.names, found, strict=True))
            # In one order, however they are grouped.
            norm = math.sqrt(sum(squares[name] for name in params))
            factor = _clip_factor(norm, self.clip_norm)
        for group, g in zip(groups, of_groups, strict=True):
            p = [params[name] for name in group.names]
            kernels = dispatch.kernels(group.dtype)
            scale = Scale(limit=limit, factor=factor, lr=lr)
            self._update(kernels, (p, g, group.states), scale)

    def state_dict(self) -> dict[str, Array]:
        """What the next steps depend on besides the options: a copy.

        Returns
        -------
        dict of str to array
            ``steps``, and for each parameter what is remembered of it, such as
            ``exp_avg.weight_ih_l0``, under torch's names.
        """
        found: dict[str, Array] = {"steps": np.array(self.steps)}
        for name, state in self._state.items():
            for slot, s in zip(self._slots, state, strict=True):
                found[f"{slot}.{name}"] = s.copy()
        return found

    def load_state_dict(self, mapping: Mapping[str, Any]) -> None:
        """Go on where the optimizer was whose :meth:`state_dict` this is.

        Parameters
        ----------
        mapping : mapping of str to array-like

        Raises
        ------
        ValueError
            If a name is missing or unexpected; nothing has changed then.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(mapping).__name__}")
        given = {
            n: np.array(_checks.numeric(v, f"state_dict {n}"), order="C")
            for n, v in mapping.items()
        }
        steps = given.pop("steps", None)
        if steps is None or steps.dtype.kind not in "iu" or steps.shape != () or steps < 0:
            raise ValueError("state_dict: expected steps, a whole number of at least 0")
        names = (
            [n.partition(".")[2] for n in given if n.partition(".")[0] == self._slots[0]]
            if self._slots
            else []
        )
        expected = {f"{slot}.{name}" for name in names for slot in self._slots}
        if expected != given.keys() or (self._slots and steps and not names):
            raise ValueError(
                f"state_dict: expected {', '.join(self._slots) or 'nothing'} of each parameter "
                f"and steps, got {sorted(mapping)}"
            )
        for name, value in given.items():
            _checks.dtype(value.dtype, f"state_dict {name}")
            _checks.expect_shape(
                value, name, given[f"{self._slots[0]}.{name.partition('.')[2]}"].shape
            )
        self.steps = int(steps)
        self._state = {n: tuple(given[f"{slot}.{n}"] for slot in self._slots) for n in names}
        self._groups = []

    def _initial(self, p: Array) -> tuple[Array, ...]:
        """What is remembered of one parameter, before the first step."""
        return tuple(np.zeros(p.shape, p.dtype) for _ in self._slots)

    @abstractmethod
    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale) -> None:
        """Call the kernels with what they all take and with options of one's own."""

    def _arranged(self, params: Mapping[str, Array]) -> list[_Group]:
        """Groups of all of `params`, with the state there is or a fresh one."""
        if not self._state:
            self._state = {name: self._initial(p) for name, p in params.items()}
        by_dtype: dict[np.dtype[Any], dict[str, tuple[Array, ...]]] = {}
        for name, p in params.items():
            by_dtype.setdefault(p.dtype, {})[name] = self._state[name]
        self._groups = [_Group(dtype, states) for dtype, states in by_dtype.items()]
        return self._groups

    def _checked(self, params: Mapping[str, Array], grads: Mapping[str, Any]) -> dict[str, Array]:
        """The gradients, checked."""
        _expect_arrays(params, "params")
        if not isinstance(grads, Mapping):
            raise TypeError(f"grads: expected a mapping, got {type(grads).__name__}")
        if params.keys() != grads.keys():
            missing, unexpected = sorted(params.keys() - grads), sorted(grads.keys() - params)
            raise ValueError(f"grads: missing {missing}, unexpected {unexpected}")
        if self._state and self._state.keys() != params.keys():
            raise ValueError(
                f"params: expected those of the first step, {sorted(self._state)}, "
                f"got {sorted(params)}"
            )
        found = {}
        for name, p in params.items():
            _checks.dtype(p.dtype, f"params {name}")
            for s in self._state.get(name, ()):
                _checks.expect_shape(p, f"params {name}", s.shape)
                _checks.expect_dtype(p, f"params {name}", s.dtype)
            g = _checks.shaped(grads[name], f"grads {name}", p.dtype, p.shape)
            found[name] = _contiguous(g)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_groups": []}  # which would have copies of their own

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
        lr: Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(lr, clip_norm, clip_value)
        self.momentum = _checks.not_negative(momentum, "momentum")
        self.weight_decay = _checks.not_negative(weight_decay, "weight_decay")
        self.nesterov = _checks.flag(nesterov, "nesterov")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")

    @property
    def _slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("momentum_buffer",) if self.momentum else ()

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale) -> None:
        kernels.sgd(
            *arrays,
            **scale,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), as ``torch.optim.Adam``.

    g = grad + weight_decay p; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; at step t
    p = p - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function from the number of steps taken so far to it.
    betas : pair of float
        Decay of the means of the gradient and of its square.
    eps : float
    weight_decay : float
    clip_norm : float, optional
        Scale the gradients to at most this joint 2-norm, as :func:`clip_norm`.
    clip_value : float, optional
        Bring every entry of the gradients to within +- this, before `clip_norm`.
    """

    _slots = ("exp_avg", "exp_avg_sq")
    #: Whether the decay leaves the gradient alone.
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
        super().__init__(lr, clip_norm, clip_value)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ValueError(f"betas: expected a pair of numbers, got {betas!r}")
        b1, b2 = betas
        self.betas = (_checks.fraction(b1, "betas[0]"), _checks.fraction(b2, "betas[1]"))
        self.eps = _checks.not_negative(eps, "eps")
        self.weight_decay = _checks.not_negative(weight_decay, "weight_decay")

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale) -> None:
        b1, b2 = self.betas
        kernels.adam(
            *arrays,
            **scale,
            weight_decay=self.weight_decay,
            b1=b1,
            b2=b2,
            eps=self.eps,
            decoupled=self._decoupled,
            t=self.steps,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    As ``torch.optim.AdamW``: first p = p - lr weight_decay p, then a step of :class:`Adam` whose
    gradient knows of no decay.

    Parameters
    ----------
    lr, betas, eps
        As in :class:`Adam`.
    weight_decay : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.
    """

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


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012), as ``torch.optim.RMSprop``.

    g = grad + weight_decay p; v = alpha v + (1 - alpha) g^2; d = g / (sqrt(v) + eps), or, if
    centered, with the mean a = alpha a + (1 - alpha) g (Graves 2013, eq. 40) d = g / (sqrt(v - a^2)
    + eps); with momentum b = momentum b + d, and d = b; p = p - lr d.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function from the number of steps taken so far to it.
    alpha : float
        Decay of the mean of the squared gradient.
    eps, momentum : float
    centered : bool
    weight_decay : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.
    """

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
        super().__init__(lr, clip_norm, clip_value)
        self.alpha = _checks.fraction(alpha, "alpha")
        self.eps = _checks.not_negative(eps, "eps")
        self.momentum = _checks.not_negative(momentum, "momentum")
        self.centered = _checks.flag(centered, "centered")
        self.weight_decay = _checks.not_negative(weight_decay, "weight_decay")

    @property
    def _slots(self) -> tuple[str, ...]:  # type: ignore[override]
        more = {"grad_avg": self.centered, "momentum_buffer": self.momentum}
        return ("square_avg", *(name for name, used in more.items() if used))

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale) -> None:
        kernels.rmsprop(
            *arrays,
            **scale,
            weight_decay=self.weight_decay,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            centered=self.centered,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011), as ``torch.optim.Adagrad``.

    g = grad + weight_decay p; s = s + g^2; at step t
    p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a function from the number of steps taken so far to it.
    lr_decay, weight_decay : float
    initial_accumulator_value : float
        s before the first step.
    eps : float
    clip_norm, clip_value : float, optional
        As in :class:`Adam`.
    """

    _slots = ("sum",)

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
        super().__init__(lr, clip_norm, clip_value)
        self.lr_decay = _checks.not_negative(lr_decay, "lr_decay")
        self.weight_decay = _checks.not_negative(weight_decay, "weight_decay")
        self.initial_accumulator_value = _checks.not_negative(
            initial_accumulator_value, "initial_accumulator_value"
        )
        self.eps = _checks.not_negative(eps, "eps")

    def _initial(self, p: Array) -> tuple[Array, ...]:
        return (np.full(p.shape, self.initial_accumulator_value, p.dtype),)

    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale) -> None:
        scale["lr"] /= 1 + (self.steps - 1) * self.lr_decay
        kernels.adagrad(*arrays, **scale, weight_decay=self.weight_decay, eps=self.eps)


NAMES: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """A fresh optimizer by its name, with the defaults, or itself."""
    if isinstance(optimizer, str) and optimizer in NAMES:
        make: Any = NAMES[optimizer]
        found: Optimizer = make()
        return found
    if isinstance(optimizer, str):
        raise ValueError(
            f"optimizer: expected one of {', '.join(map(repr, NAMES))}, got {optimizer!r}"
        )
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}"
        )
    return optimizer


def _contiguous(a: Array) -> Array:
    """An array as kernels take it: itself, or a copy."""
    return a if a.flags.c_contiguous and a.flags.aligned else a.copy(order="C")


def _rate(value: Any) -> float:
    return _checks.not_negative(value, "lr")
