"""Random generators that are made when they are first used: NumPy imports its own as late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array

_UNDRAWN = ContextVar("undrawn", default=False)


def random() -> Any:
    """Return ``numpy.random``; raise a MemoryError if there is too little memory for it."""
    return _checks.imported("numpy.random")


class LazyGenerator:
    """A generator with a fresh seed. Within :func:`undrawn`, it gives zeros instead."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for some
            raise AttributeError(name)
        if _UNDRAWN.get():
            return _zeros
        return getattr(self._made(), name)

    def _made(self) -> np.random.Generator:
        made: np.random.Generator | None = self.__dict__.get("made")
        if made is None:
            made = self.__dict__["made"] = random().default_rng()
        return made

    def __reduce__(self) -> Any:
        """Let copies go on with the same numbers."""
        return _same, (self._made(),)


def _same(generator: np.random.Generator) -> np.random.Generator:
    return generator


def _zeros(*arguments: Any) -> Array:
    """Return zeros of the size that is the last argument, as of a generator's methods."""
    return np.zeros(arguments[-1])


@contextmanager
def undrawn() -> Iterator[None]:
    """Draw no initial weights for layers that are made within: others follow."""
    token = _UNDRAWN.set(True)
    try:
        yield
    finally:
        _UNDRAWN.reset(token)


def is_undrawn() -> bool:
    """Return whether this runs within :func:`undrawn`."""
    return _UNDRAWN.get()
