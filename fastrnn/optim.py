"""Optimizers: they change dicts of arrays in place, with torch's formulas.

Each works alone: ``Adam().step(layer.parameters(), grads)``. Learning rates that change while
training, such as :class:`CosineDecay`, go in place of a number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks
from fastrnn.schedules import CosineDecay as CosineDecay
from fastrnn.schedules import ExponentialDecay as ExponentialDecay
from fastrnn.schedules import StepDecay as StepDecay
from fastrnn.schedules import WarmUp as WarmUp

Array = np.ndarray[Any, np.dtype[Any]]
Rate = float | Callable[[int], float]

#: Elements updated at a time: few enough that they and their temporaries stay in the L2 cache, so
#: that a step reads and writes memory once.
_BLOCK = 16384


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
        if factor is not None:
            for g in grads.values():
                g *= factor
    return norm


def _clip_factor(norm: float, limit: float) -> float | None:
    """What brings gradients of this norm to `limit`; None where they are under it."""
    # torch's 1e-6 keeps the quotient finite at norm 0.
    factor = limit / (norm + 1e-6)
    return None if factor >= 1 else factor  # NaN is to get through


class _Unit:
    """Parameters that are updated together: a large one, or small ones end to end.

    Parameters
    ----------
    params : dict of str to array
    states : list of tuple of array
        What is remembered of each; afterwards they are views of `state`.
    alone : bool
        Whether it is a large one, read and written where it is.

    Attributes
    ----------
    names : list of str
    state : tuple of (n,) array
        What is remembered of all of them.
    """

    __slots__ = ("_g", "_p", "_pieces", "names", "state")

    def __init__(
        self, params: Mapping[str, Array], states: Sequence[tuple[Array, ...]], alone: bool
    ) -> None:
        self.names = list(params)
        self.state = tuple(np.concatenate(slot, axis=None) for slot in zip(*states, strict=True))
        self._p = self._g = None
        if not alone:
            self._p = np.concatenate(list(params.values()), axis=None)
            self._g = np.empty_like(self._p)
            shapes = [p.shape for p in params.values()]
            self._pieces = _cut(self._p, shapes)

    def gradients(self, grads: Mapping[str, Array]) -> Array:
        """Of all of them, (n,)."""
        if self._g is None:
            return grads[self.names[0]].reshape(-1)
        return np.concatenate([grads[n] for n in self.names], axis=None, out=self._g)

    def parameters(self, params: Mapping[str, Array]) -> Array:
        """All of them, (n,): to change, and then to :meth:`write`."""
        if self._p is None:
            return params[self.names[0]].reshape(-1)
        return np.concatenate([params[n] for n in self.names], axis=None, out=self._p)

    def write(self, flat: Array, params: Mapping[str, Array]) -> None:
        """Write changed parameters back, unless they were changed where they are."""
        if self._p is not None:
            for name, piece in zip(self.names, self._pieces, strict=True):
                params[name][...] = piece
        else:
            p = params[self.names[0]]
            if not p.flags.c_contiguous:
                p[...] = flat.reshape(p.shape)


def _expect_arrays(value: Any, name: str) -> None:
    """Arrays by name that can be written to."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    for key, a in value.items():
        if not isinstance(a, np.ndarray) or not a.flags.writeable:
            raise TypeError(
                f"{name} {key}: expected a writeable NumPy array, got {type(a).__name__}"
            )


def _cut(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Views of what stands end to end."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return [a.reshape(s) for a, s in zip(np.split(flat, ends), shapes, strict=True)]


class Optimizer(ABC):
    """What all optimizers have in common; not for direct use.

    Attributes
    ----------
    steps : int
        Steps taken so far.
    """

    #: Names of what is remembered of each parameter, in the order of `_update`.
    _slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, lr: Rate, clip_norm: float | None, clip_value: float | None) -> None:
        self.lr = lr if callable(lr) else _rate(lr)
        self.clip_norm = None if clip_norm is None else _checks.positive(clip_norm, "clip_norm")
        self.clip_value = None if clip_value is None else _checks.positive(clip_value, "clip_value")
        self.steps = 0
        #: Of each parameter, by `_slots`; once there are units, views of their states.
        self._state: dict[str, tuple[Array, ...]] = {}
        self._units: list[_Unit] = []

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
        # What is not finite stays so, silently, as in torch.
        with np.errstate(over="ignore", invalid="ignore"):
            self.apply(params, checked)

    def apply(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Do what :meth:`step` does, of arrays that are known to be right; not for direct use."""
        lr = _rate(self.lr(self.steps)) if callable(self.lr) else self.lr
        if not self._units:
            self._units = self._arranged(params)
        self.steps += 1
        flat = [unit.gradients(grads) for unit in self._units]
        factor = None if self.clip_norm is None else self._factor(flat, self.clip_norm)
        for unit, g in zip(self._units, flat, strict=True):
            p = unit.parameters(params)
            if len(p) <= _BLOCK:
                self._update(p, self._clipped(g, factor), unit.state, lr)
            else:
                for start in range(0, len(p), _BLOCK):
                    at = slice(start, start + _BLOCK)
                    clipped = self._clipped(g[at], factor)
                    self._update(p[at], clipped, [s[at] for s in unit.state], lr)
            unit.write(p, params)

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
        given = {name: np.array(value, order="C") for name, value in mapping.items()}
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
            _checks.dtype(value.dtype)
            _checks.expect_shape(
                value, name, given[f"{self._slots[0]}.{name.partition('.')[2]}"].shape
            )
        self.steps = int(steps)
        self._state = {n: tuple(given[f"{slot}.{n}"] for slot in self._slots) for n in names}
        self._units = []

    def _initial(self, p: Array) -> tuple[Array, ...]:
        """What is remembered of one parameter, before the first step."""
        return tuple(np.zeros(p.shape, p.dtype) for _ in self._slots)

    @abstractmethod
    def _update(self, p: Array, g: Array, state: Sequence[Array], lr: float) -> None:
        """Change `p` and `state` in place: 1-D arrays."""

    def _arranged(self, params: Mapping[str, Array]) -> list[_Unit]:
        """Units for all of `params`, with the state there is or a fresh one."""
        if not self._state:
            self._state = {name: self._initial(p) for name, p in params.items()}
        alone: list[list[str]] = []
        packed: dict[np.dtype[Any], list[str]] = {}
        for name, p in params.items():
            if p.size > _BLOCK and p.flags.c_contiguous:
                alone.append([name])
            elif p.size:
                packed.setdefault(p.dtype, []).append(name)
        units = []
        for names in (*alone, *packed.values()):
            of_unit = {name: params[name] for name in names}
            unit = _Unit(of_unit, [self._state[name] for name in names], names in alone)
            shapes = [p.shape for p in of_unit.values()]
            views = zip(*(_cut(s, shapes) for s in unit.state), strict=True)
            self._state |= dict(zip(names, views, strict=False))
            units.append(unit)
        return units

    def _factor(self, flat: Sequence[Array], limit: float) -> float | None:
        """What the gradients, clipped by value, are multiplied with."""
        squares = 0.0
        for g in flat:
            for start in range(0, len(g), _BLOCK):
                block = self._clipped(g[start : start + _BLOCK], None)
                squares += float(np.vdot(block, block))
        return _clip_factor(math.sqrt(squares), limit)

    def _clipped(self, g: Array, factor: float | None) -> Array:
        if self.clip_value is not None:
            g = np.clip(g, -self.clip_value, self.clip_value)
        return g if factor is None else g * g.dtype.type(factor)

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
            _checks.dtype(p.dtype)
            for s in self._state.get(name, ()):
                _checks.expect_shape(p, f"params {name}", s.shape)
                _checks.expect_dtype(p, f"params {name}", s.dtype)
            found[name] = _checks.shaped(grads[name], f"grads {name}", p.dtype, p.shape)
        return found

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a view is no view: units are arranged anew from the state of each parameter.
        return vars(self) | {"_units": []}

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
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got 0")

    @property
    def _slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("momentum_buffer",) if self.momentum else ()

    def _update(self, p: Array, g: Array, state: Sequence[Array], lr: float) -> None:
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

    def _update(self, p: Array, g: Array, state: Sequence[Array], lr: float) -> None:
        b1, b2 = self.betas
        m, v = state
        g = self._decayed(p, g, lr)
        term = g * (1 - b1)
        m *= b1
        m += term
        np.multiply(g, g, out=term)
        term *= 1 - b2
        v *= b2
        v += term
        # In the order of their section 2, which takes one pass less.
        unbias = (1 - b2**self.steps) ** 0.5
        np.sqrt(v, out=term)
        term += self.eps * unbias
        np.divide(m, term, out=term)
        term *= lr * unbias / (1 - b1**self.steps)
        p -= term

    def _decayed(self, p: Array, g: Array, lr: float) -> Array:
        """The gradient with the pull to 0; may change `p` instead."""
        return g + self.weight_decay * p if self.weight_decay else g


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

    def _decayed(self, p: Array, g: Array, lr: float) -> Array:
        p *= 1 - lr * self.weight_decay
        return g


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
        self.centered = bool(centered)
        self.weight_decay = _checks.not_negative(weight_decay, "weight_decay")

    @property
    def _slots(self) -> tuple[str, ...]:  # type: ignore[override]
        more = {"grad_avg": self.centered, "momentum_buffer": self.momentum}
        return ("square_avg", *(name for name, used in more.items() if used))

    def _update(self, p: Array, g: Array, state: Sequence[Array], lr: float) -> None:
        v, *more = state
        if self.weight_decay:
            g = g + self.weight_decay * p
        v *= self.alpha
        d = g * g
        d *= 1 - self.alpha
        v += d
        if self.centered:
            a = more[0]
            a *= self.alpha
            a += (1 - self.alpha) * g
            np.multiply(a, a, out=d)
            np.subtract(v, d, out=d)
            np.sqrt(d, out=d)
        else:
            np.sqrt(v, out=d)
        d += self.eps
        np.divide(g, d, out=d)
        if self.momentum:
            b = more[-1]
            b *= self.momentum
            b += d
            d[...] = b
        d *= lr
        p -= d


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

    def _update(self, p: Array, g: Array, state: Sequence[Array], lr: float) -> None:
        (s,) = state
        if self.weight_decay:
            g = g + self.weight_decay * p
        d = g * g
        s += d
        np.sqrt(s, out=d)
        d += self.eps
        np.divide(g, d, out=d)
        d *= lr / (1 + (self.steps - 1) * self.lr_decay)
        p -= d


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


def _rate(value: Any) -> float:
    return _checks.not_negative(value, "lr")
