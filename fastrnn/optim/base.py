"""What all optimizers have in common: options, states by name, clipping, and the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._kernels import dispatch
from fastrnn._kernels.interface import Gradient, Kernels
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array, ArrayLike

Rate = float | Callable[[int], float]
#: The check of each option when it is set, by name.
Options = dict[str, Callable[[Any, str], Any]]

#: Parameters, their gradients and their states, entry by entry.
Arrays = tuple[list[Array], list[Gradient], list[tuple[Array, ...]]]
#: Arguments of every kernel: the limit of each entry of the gradient, its factor, and the rate.
Scale = tuple[float, float, float]

#: Factors below it may be subnormal in float32, which kernels take for 0.
_SUBNORMAL = 1e-37


def clip_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale gradients down, in place, so that their joint 2-norm is at most `max_norm`.

    Pascanu et al. 2013, algorithm 1; as ``torch.nn.utils.clip_grad_norm_``. A norm that is not
    finite turns the gradients into NaN or 0, as in torch.

    Parameters
    ----------
    grads : mapping of str to array
    max_norm : float

    Returns
    -------
    norm : float
        The joint norm before clipping.

    Raises
    ------
    ValueError, TypeError
        If `max_norm` is not a number above 0, or `grads` not arrays that can be written to.

    Examples
    --------
    >>> grads = {"w": np.array([3.0, 4.0])}
    >>> fastrnn.optim.clip_norm(grads, 1.0)
    5.0
    >>> grads["w"].round(3)
    array([0.6, 0.8])
    """
    limit = _checks.real(max_norm, "max_norm", "a number above 0", lambda v: v > 0)
    _expect_arrays(grads, "grads")
    _pins = _checks.pinned(*grads.values())
    with np.errstate(all="ignore"):
        # Not a product of BLAS, whose order of terms depends on the CPU.
        norm = math.sqrt(sum(float(np.square(g, dtype=float).sum()) for g in grads.values()))
        if math.isinf(norm):
            norm = _large_norm(grads.values(), math.inf)
        factor = _clip_factor(norm, limit)
        if factor != 1:
            for g in grads.values():
                g *= factor
    return norm


@np.errstate(all="ignore")
def _large_norm(grads: Iterable[Gradient], limit: float) -> float:
    """Return the joint norm of gradients, clipped to `limit`, whose squares overflow."""
    entries = [g.values if isinstance(g, RowGradient) else g for g in grads]
    largest = max(min(float(np.abs(g).max(initial=0)), limit) for g in entries)
    if not math.isfinite(largest):
        return largest
    parts = [np.square(g.clip(-limit, limit) / largest, dtype=float).sum() for g in entries]
    return largest * math.sqrt(sum(map(float, parts)))


@np.errstate(all="ignore")
def _times(grad: Gradient, factor: float, limit: float) -> Gradient:
    """Return a gradient, clipped, times a factor that may be 0 in its dtype."""
    g = grad.values if isinstance(grad, RowGradient) else grad
    product = np.multiply(g.clip(-limit, limit), factor, dtype=float).astype(g.dtype)
    return RowGradient(grad.rows, product, grad.shape) if isinstance(grad, RowGradient) else product


def _clip_factor(norm: float, limit: float) -> float:
    """Return the factor that scales gradients of this norm down to `limit`; 1 if below it."""
    # torch's 1e-6 keeps the quotient finite at norm 0.
    factor = limit / (norm + 1e-6)
    return 1.0 if factor >= 1 else factor  # NaN propagates


def _rate(value: Any) -> float:
    return _checks.not_negative(value, "lr")


def _rate_or_schedule(value: Any, name: str) -> Rate:
    return value if callable(value) else _checks.not_negative(value, name)


def _positive_or_none(value: Any, name: str) -> float | None:
    return None if value is None else _checks.positive(value, name)


def _betas(value: Any, name: str) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name}: expected a pair of numbers, got {value!r}")
    b1, b2 = value
    return _checks.fraction(b1, f"{name}[0]"), _checks.fraction(b2, f"{name}[1]")


def _steps_of(value: Array | None, name: str) -> int:
    """Return a step count from a state dict."""
    if value is None or value.dtype.kind not in "iu" or value.shape != () or value < 0:
        raise ValueError(f"state_dict: expected {name}, a whole number of at least 0")
    return int(value)


class _Group:
    """Parameters of the same dtype and step count, and the state of each."""

    __slots__ = ("dtype", "names", "shapes", "states", "steps")

    def __init__(self, dtype: np.dtype[Any], steps: int) -> None:
        self.dtype, self.steps = dtype, steps
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.states: list[tuple[Array, ...]] = []

    def add(self, name: str, shape: tuple[int, ...], state: tuple[Array, ...]) -> None:
        """Add a parameter."""
        self.names.append(name)
        self.shapes.append(shape)
        self.states.append(state)

    def fits(self, params: Mapping[str, Array]) -> bool:
        """Return whether the parameters have the shapes and dtype that they had when added."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            p = params[name]
            if p.shape != shape or (p.dtype is not self.dtype and p.dtype != self.dtype):
                return False
        return True

    def expect_gradients(self, grads: Mapping[str, Gradient]) -> None:
        """Raise if a kernel would refuse one of the gradients."""
        for name, shape in zip(self.names, self.shapes, strict=True):
            g = grads[name]
            values = g.values if isinstance(g, RowGradient) else g
            _checks.expect_dtype(values, f"grads {name}", self.dtype)
            if g.shape != shape:
                raise ValueError(f"grads {name}: expected shape {shape}, got {g.shape}")


def _expect_arrays(value: Any, name: str) -> None:
    """Raise unless `value` maps names to writeable arrays."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    for key, a in value.items():
        if not isinstance(a, np.ndarray) or not a.flags.writeable:
            raise TypeError(
                f"{name} {key}: expected a writeable NumPy array, got {type(a).__name__}"
            )
        if _frames.is_masked_array(a):
            _checks.asarray(a, f"{name} {key}")  # raises where values are masked


class Optimizer(ABC):
    """Base class of the optimizers.

    Options that determine which state is kept for each parameter can't be changed; others are
    checked when they are set.

    Parameters
    ----------
    **options
        Those of the subclass, and these:
    lr : float or callable
        The learning rate, or a schedule: a function of the number of steps taken so far.
    clip_norm, clip_value : float or None
        Bounds of the joint norm of all gradients, and of the absolute value of each element.

    Examples
    --------
    >>> schedule = fastrnn.schedules.StepDecay(0.1, step_size=1)
    >>> optimizer = fastrnn.optim.SGD(lr=schedule, clip_norm=1.0)
    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> for _ in range(2):
    ...     optimizer.step(weights, {"w": np.array([3.0, 4.0])})
    >>> weights["w"].round(3), optimizer.steps
    (array([0.934, 1.912]), 2)
    """

    __slots__ = (
        "_counts",
        "_groups",
        "_loaded",
        "_names",
        "_slots",
        "_state",
        "_steps",
        "clip_norm",
        "clip_value",
        "lr",
    )

    #: The options in the order of ``repr``, and the check of each when it is set.
    _options: ClassVar[Options] = {
        "lr": _rate_or_schedule,
        "clip_norm": _positive_or_none,
        "clip_value": _positive_or_none,
    }
    #: Options that determine the initial state.
    _fixed: ClassVar[tuple[str, ...]] = ()

    lr: Rate
    clip_norm: float | None
    clip_value: float | None

    def __init__(self, **options: Any) -> None:
        self._set_up(options)

    def _set_up(self, options: Mapping[str, Any]) -> None:
        #: Names of the state arrays of each parameter, in the kernels' order.
        self._slots: tuple[str, ...] | None = None
        for name, value in options.items():
            setattr(self, name, value)
        self._expect_options(options)
        self._slots = self._slots_of(options)
        self._steps = 0
        #: State of each parameter, by `_slots`, and its steps when it last left `_groups`.
        self._state: dict[str, tuple[Array, ...]] = {}
        self._counts: dict[str, int] = {}
        self._groups: list[_Group] = []
        self._names: list[str] = []
        #: Whether the state was loaded and has not been used since.
        self._loaded = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._options:
            value = self._options[name](value, name)
            if self._slots is not None:
                self._expect_change(name, value)
        object.__setattr__(self, name, value)

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return self._steps

    @property
    def options(self) -> dict[str, Any]:
        """A copy of the options, by name."""
        own = getattr(self, "__dict__", {})
        return self._values() | {n: v for n, v in own.items() if n[0] != "_"}

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._options}

    def step(self, params: Mapping[str, Array], grads: Mapping[str, ArrayLike]) -> None:
        """Update `params` in place; `grads` are not changed.

        Parameters
        ----------
        params : mapping of str to array
            Float32 or float64; the same names and shapes at each step.
        grads : mapping of str to array-like
            One for each of `params`, in its shape.

        Raises
        ------
        ValueError
            If a gradient is missing, unexpected or of another shape. Nothing is changed then.
        """
        usual: Any = grads
        if self._are_usual(params, usual):
            self.apply(params, usual)
            return
        checked = self._checked(params, grads)
        own = {name: _contiguous(p) for name, p in params.items()}
        self.apply(own, checked)
        for name, p in params.items():
            if own[name] is not p:
                _pins = _checks.pinned(p)
                p[...] = own[name]

    def apply(self, params: Mapping[str, Array], grads: Mapping[str, Gradient]) -> None:
        """Update `params` as :meth:`step` does, without converting arrays.

        The set of parameters may differ from step to step, as when layers are frozen and thawed:
        the state of absent ones is kept, and a new one starts with a first step of its own.

        Parameters
        ----------
        params : mapping of str to array
            C-contiguous, float32 or float64.
        grads : mapping of str to array or RowGradient
            C-contiguous, of the shape and dtype of the parameter. One for each of `params`; others
            are ignored.

        Raises
        ------
        ValueError, TypeError
            If an array or the state of a parameter does not fit. Nothing is changed then.
        """
        lr = _rate(self.lr(self._steps)) if callable(self.lr) else self.lr
        if not params.keys() <= grads.keys():
            raise ValueError(f"grads: missing {sorted(params.keys() - grads)}")
        groups = self._groups
        if [*params] != self._names or len(groups) != 1:
            groups = self._arranged(params)
        try:
            self._run(groups, params, grads, lr)
        except (TypeError, ValueError):
            # Kernels check all arrays at each step, but only this names the one that changed.
            _expect_arrays(params, "params")
            again = self._arranged(params)
            if again is groups:
                raise
            self._run(again, params, grads, lr)
        for group in self._groups:
            group.steps += 1
        object.__setattr__(self, "_steps", self._steps + 1)  # not an option: nothing to check

    def _run(
        self,
        groups: Sequence[_Group],
        params: Mapping[str, Array],
        grads: Mapping[str, Gradient],
        lr: float,
    ) -> None:
        """Call the kernels."""
        limit = math.inf if self.clip_value is None else self.clip_value
        if len(groups) > 1:  # raise before any group is changed
            for group in groups:
                group.expect_gradients(grads)
        chosen = []
        for group in groups:
            p, g = map(params.__getitem__, group.names), map(grads.__getitem__, group.names)
            chosen.append((group, dispatch.kernels(group.dtype), [*p], [*g]))
        factor = 1.0
        if self.clip_norm is not None:
            squares: dict[str, float] = {}
            for group, kernels, _, of_group in chosen:
                sums = kernels.squares(of_group, limit=limit)
                squares.update(zip(group.names, sums, strict=True))
            # Summed in the order of `params`, so that grouping does not change the result.
            norm = math.sqrt(sum(map(squares.__getitem__, params)))
            if math.isinf(norm):
                norm = _large_norm([*map(grads.__getitem__, params)], limit)
            factor = _clip_factor(norm, self.clip_norm)
            if 0 < factor < _SUBNORMAL:
                chosen = [
                    (group, kernels, p, [_times(g, factor, limit) for g in of_group])
                    for group, kernels, p, of_group in chosen
                ]
                factor, limit = 1.0, math.inf
        scale = limit, factor, lr
        for group, kernels, of_params, of_group in chosen:
            self._update(kernels, (of_params, of_group, group.states), scale, group.steps + 1)

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of the state, on which the next steps depend besides the options.

        Returns
        -------
        dict of str to array
            ``steps``, and the state of each parameter under torch's names, such as
            ``exp_avg.weight_ih_l0``; and ``step.weight_ih_l0``, its own step count, for a parameter
            that was absent from some steps.
        """
        self._count()
        arrays: dict[str, Array] = {"steps": np.array(self._steps)}
        for name, state in self._state.items():
            for slot, s in zip(self._slots or (), state, strict=True):
                arrays[f"{slot}.{name}"] = s.copy()
            if self._slots and self._counts[name] != self._steps:
                arrays[f"step.{name}"] = np.array(self._counts[name])
        return arrays

    def load_state_dict(self, mapping: Mapping[str, ArrayLike]) -> None:
        """Restore the state that :meth:`state_dict` returned.

        Parameters
        ----------
        mapping : mapping of str to array-like

        Raises
        ------
        ValueError
            If a name is missing or unexpected. Nothing is changed then.
        """
        if not isinstance(mapping, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(mapping).__name__}")
        slots = self._slots or ()
        given = {
            n: _checks.copied(_checks.numeric(v, f"state_dict {n}")) for n, v in mapping.items()
        }
        steps = _steps_of(given.pop("steps", None), "steps")
        names = [n.partition(".")[2] for n in given if slots and n.partition(".")[0] == slots[0]]
        counts = {
            n: _steps_of(given.pop(f"step.{n}"), f"step.{n}") if f"step.{n}" in given else steps
            for n in names
        }
        expected = {f"{slot}.{name}" for name in names for slot in slots}
        if expected != given.keys() or (slots and steps and not names):
            raise ValueError(
                f"state_dict: expected {', '.join(slots) or 'nothing'} of each parameter "
                f"and steps, got {sorted(mapping)}"
            )
        for name, value in given.items():
            _checks.dtype(value.dtype, f"state_dict {name}")
            first = given[f"{slots[0]}.{name.partition('.')[2]}"]
            _checks.expect_shape(value, name, first.shape)
            _checks.expect_dtype(value, name, first.dtype)
        self._steps, self._counts, self._loaded = steps, counts, True
        self._state = {n: tuple(given[f"{slot}.{n}"] for slot in slots) for n in names}
        self._groups, self._names = [], []

    def _expect_change(self, name: str, value: Any) -> None:
        """Raise if the state does not fit a new value of an option."""
        before = self._values()
        changed = before | {name: value}
        if name in self._fixed or self._slots_of(changed) != self._slots:
            raise AttributeError(
                f"{name}: can't be changed from {before[name]!r} to {value!r}: it determines the "
                "state kept for each parameter; make a new optimizer"
            )
        self._expect_options(changed)

    def _expect_options(self, options: Mapping[str, Any]) -> None:  # noqa: B027 (there may be none)
        """Raise if options are incompatible."""

    @abstractmethod
    def _slots_of(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the state arrays kept for each parameter with these options."""

    def _initial(self, p: Array) -> tuple[Array, ...]:
        """Return the state of a parameter before its first step."""
        return tuple(np.zeros(p.shape, p.dtype) for _ in self._slots or ())

    @abstractmethod
    def _update(self, kernels: Kernels, arrays: Arrays, scale: Scale, t: int) -> None:
        """Call the kernel for step `t`, counted from 1, with this optimizer's options."""

    def _count(self) -> None:
        """Record the step count of each parameter."""
        for group in self._groups:
            self._counts.update(dict.fromkeys(group.names, group.steps))

    def _arranged(self, params: Mapping[str, Array]) -> list[_Group]:
        """Return the groups of `params`: those of the last step, if nothing has changed."""
        if [*params] == self._names and all(group.fits(params) for group in self._groups):
            return self._groups
        if self._loaded and self._slots and self._state:
            missing = sorted(params.keys() - self._state)
            if missing:
                raise ValueError(f"params: the loaded state of the optimizer has no {missing}")
        state = {}
        for name, p in params.items():
            _checks.dtype(p.dtype, f"params {name}")
            self._expect_state(name, p)
            state[name] = self._state[name] if name in self._state else self._initial(p)
        self._count()
        groups: dict[tuple[np.dtype[Any], int], _Group] = {}
        for name, p in params.items():
            key = p.dtype, self._counts.get(name, 0)
            groups.setdefault(key, _Group(*key)).add(name, p.shape, state[name])
        self._state = self._state | state
        self._groups, self._names, self._loaded = list(groups.values()), [*params], False
        return self._groups

    def _expect_state(self, name: str, p: Array) -> None:
        """Raise if a parameter differs in shape or dtype from its state."""
        for s in self._state.get(name, ()):
            _checks.expect_shape(p, f"params {name}", s.shape)
            _checks.expect_dtype(p, f"params {name}", s.dtype)

    def _are_usual(self, params: Mapping[str, Array], grads: Mapping[str, ArrayLike]) -> bool:
        """Return whether arrays are those of the step before, or like them: most are, quickly."""
        if len(self._groups) != 1 or type(params) is not dict or type(grads) is not dict:
            return False
        if [*params] != self._names or not (params.keys() == grads.keys() == self._state.keys()):
            return False
        (group,) = self._groups
        dtype = group.dtype
        for name, shape in zip(group.names, group.shapes, strict=True):
            p, g = params[name], grads[name]
            if not (
                type(p) is type(g) is np.ndarray
                and p.dtype is g.dtype is dtype
                and p.shape == g.shape == shape
                and p.flags.carray  # aligned, C-contiguous and writeable
                and g.flags.c_contiguous
                and g.flags.aligned
            ):
                return False
        return True

    def _checked(
        self, params: Mapping[str, Array], grads: Mapping[str, ArrayLike]
    ) -> dict[str, Array]:
        """Return the gradients as arrays for kernels; raise if names or shapes do not fit."""
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
        checked = {}
        for name, p in params.items():
            _checks.dtype(p.dtype, f"params {name}")
            self._expect_state(name, p)
            g = _checks.shaped(grads[name], f"grads {name}", p.dtype, p.shape)
            checked[name] = _contiguous(g)
        return checked

    def __getstate__(self) -> dict[str, Any]:
        self._count()
        own = getattr(self, "__dict__", {})
        kept = {"steps": self._steps, "_state": self._state, "_counts": self._counts}
        return self._values() | own | kept

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        given = dict(state)
        steps, arrays = given.pop("steps"), given.pop("_state")
        counts = given.pop("_counts", dict.fromkeys(arrays, steps))
        given.pop("_groups", None)  # of version 0.1.0
        self._set_up(given)
        self._steps, self._counts = steps, dict(counts)
        # Writeable copies: the arrays may be views of a file or of shared memory.
        self._state = {
            name: tuple(np.array(s, order="C") for s in of) for name, of in arrays.items()
        }

    def __repr__(self) -> str:
        options = ", ".join(f"{n}={v!r}" for n, v in self.options.items())
        return f"{type(self).__name__}({options})"


def _contiguous(a: Array) -> Array:
    """Return an aligned, C-contiguous array: `a` itself, or a copy."""
    return a if a.flags.c_contiguous and a.flags.aligned else _checks.copied(a)
