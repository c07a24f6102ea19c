"""Learning rate schedules, for the `lr` of an optimizer.

Each maps the number of optimizer steps taken so far to a learning rate; any function that does the
same can be used. They hold no state, so that resumed training continues where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastrnn import _checks

__all__ = ["CosineDecay", "ExponentialDecay", "Schedule", "StepDecay", "WarmUp"]

Schedule = Callable[[int], float]


def _decayed(lr: float, gamma: float, times: float) -> float:
    try:
        return float(lr * gamma**times)
    except OverflowError:
        raise ValueError(f"step: expected a finite rate, got {lr} * {gamma}**{times}") from None


@dataclass(frozen=True)
class StepDecay:
    """lr gamma^floor(step / step_size), as ``torch.optim.lr_scheduler.StepLR``.

    Parameters
    ----------
    lr : float
        Initial learning rate.
    step_size : int
        Optimizer steps between decays.
    gamma : float
        Factor of each decay, above 0.

    Examples
    --------
    >>> schedule = fastrnn.schedules.StepDecay(0.1, step_size=1000, gamma=0.5)
    >>> [schedule(step) for step in (0, 999, 1000, 2000)]
    [0.1, 0.1, 0.05, 0.025]
    >>> optimizer = fastrnn.optim.Adam(lr=schedule)
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _checks.not_negative(self.lr, "lr")
        _checks.size(self.step_size, "step_size")
        _checks.positive(self.gamma, "gamma")

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return _decayed(self.lr, self.gamma, step // self.step_size)


@dataclass(frozen=True)
class ExponentialDecay:
    """lr gamma^(step / steps), as ``torch.optim.lr_scheduler.ExponentialLR`` with `steps` 1.

    Parameters
    ----------
    lr : float
        Initial learning rate.
    gamma : float
        Factor over each `steps` optimizer steps, above 0.
    steps : int

    Examples
    --------
    >>> schedule = fastrnn.schedules.ExponentialDecay(0.1, gamma=0.25, steps=1000)
    >>> [schedule(step) for step in (0, 500, 1000)]
    [0.1, 0.05, 0.025]
    """

    lr: float
    gamma: float
    steps: int = 1

    def __post_init__(self) -> None:
        _checks.not_negative(self.lr, "lr")
        _checks.positive(self.gamma, "gamma")
        _checks.size(self.steps, "steps")

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        return _decayed(self.lr, self.gamma, step / self.steps)


@dataclass(frozen=True)
class CosineDecay:
    """Half a cosine from `lr` to `final`, then `final` (Loshchilov and Hutter 2017, eq. 5).

    As ``torch.optim.lr_scheduler.CosineAnnealingLR``, except that the latter rises again.

    Parameters
    ----------
    lr : float
        Initial learning rate.
    steps : int
        Optimizer steps until `final` is reached.
    final : float

    Examples
    --------
    >>> schedule = fastrnn.schedules.CosineDecay(0.1, steps=1000, final=0.01)
    >>> [round(schedule(step), 3) for step in (0, 500, 1000, 2000)]
    [0.1, 0.055, 0.01, 0.01]
    """

    lr: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _checks.not_negative(self.lr, "lr")
        _checks.size(self.steps, "steps")
        _checks.not_negative(self.final, "final")

    def __call__(self, step: float) -> float:
        """Return the learning rate after `step` steps."""
        done = min(step, self.steps) / self.steps
        return self.final + (self.lr - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmUp:
    """Linear warm-up from `start` times the rate to the rate, followed by `after`.

    As ``torch.optim.lr_scheduler.LinearLR`` followed by another schedule.

    Parameters
    ----------
    after : float or schedule
        The rate to reach, or a schedule that starts with it.
    steps : int
        Optimizer steps until it is reached.
    start : float
        Fraction of the rate at the start, 0 to 1.

    Examples
    --------
    >>> schedule = fastrnn.schedules.WarmUp(fastrnn.schedules.CosineDecay(0.1, 1000), steps=100)
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 600, 1100)]
    [0.0, 0.05, 0.1, 0.05, 0.0]
    """

    after: float | Schedule
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.after):
            _checks.not_negative(self.after, "after")
        _checks.size(self.steps, "steps")
        _checks.real(self.start, "start", "a number in [0, 1]", lambda v: 0 <= v <= 1)

    def __call__(self, step: int) -> float:
        """Return the learning rate after `step` steps."""
        rate = self.after(max(step - self.steps, 0)) if callable(self.after) else self.after
        return rate * (self.start + (1 - self.start) * min(step, self.steps) / self.steps)
