"""Optimizers: update dicts of arrays in place, with torch's formulas.

Each can be used on its own: ``Adam().step(layer.parameters(), grads)``. A learning rate can be a
schedule, such as :class:`CosineDecay`, in place of a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastrnn import _checks
from fastrnn.optim.adagrad import Adagrad as Adagrad
from fastrnn.optim.adam import Adam as Adam
from fastrnn.optim.adam import AdamW as AdamW
from fastrnn.optim.base import Optimizer as Optimizer
from fastrnn.optim.base import clip_norm as clip_norm
from fastrnn.optim.rmsprop import RMSprop as RMSprop
from fastrnn.optim.sgd import SGD as SGD

if TYPE_CHECKING:
    from fastrnn.schedules import CosineDecay as CosineDecay
    from fastrnn.schedules import ExponentialDecay as ExponentialDecay
    from fastrnn.schedules import StepDecay as StepDecay
    from fastrnn.schedules import WarmUp as WarmUp

#: Schedules, which are imported when one is first asked for.
_LAZY = frozenset({"CosineDecay", "ExponentialDecay", "StepDecay", "WarmUp"})

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineDecay",
    "ExponentialDecay",
    "Optimizer",
    "RMSprop",
    "StepDecay",
    "WarmUp",
    "clip_norm",
]

NAMES: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return a new optimizer of this name, with the defaults, or `optimizer` itself."""
    if isinstance(optimizer, str):
        make: Any = NAMES[_checks.choice(optimizer, "optimizer", NAMES)]
        default: Optimizer = make()
        return default
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer: expected a name or an Optimizer, got {_checks.kind_of(optimizer)}"
        )
    return optimizer


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastrnn.optim' has no attribute {name!r}")
    from fastrnn import schedules

    return getattr(schedules, name)
