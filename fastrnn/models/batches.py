"""Batches of an iterable, such as a generator, in place of data as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import count
from typing import Any

import numpy as np

from fastrnn.models.data import Batch, Data, Signature

_END = object()


def are_batches(value: Any) -> bool:
    """Return whether it gives batches: an iterable, or a function that returns one, but no data."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_batch, value))
    is_data = isinstance(value, str | Mapping | Set) or any(
        hasattr(value, name) for name in ("__array__", "__array_interface__", "__dlpack__")
    )
    if is_data or _is_buffer(value):
        return False
    return isinstance(value, Iterable) or callable(value) or _is_indexed(value)


def _is_batch(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, tuple) and len(value) in (2, 3))


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _is_indexed(value: Any) -> bool:
    """Return whether it is like Keras's ``PyDataset``."""
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


class Batches:
    """Batches of an iterable, checked as they come.

    Parameters
    ----------
    given : iterable, function that returns one, or object with ``__getitem__`` and ``__len__``
        Starts again with each pass, except an iterator, which goes on.
    name : str
        Of `given` in error messages.
    signature : Signature
    check : callable
        Returns the data of a batch, from what the iterable gives.
    steps : int, optional
        Batches of a pass. Default: all, which an iterator can give only once.
    continues : bool
        Whether a pass of `steps` batches begins where the one before ended.
    """

    #: Sequences of a pass, which are not known beforehand.
    samples = None
    lengths = None

    def __init__(
        self,
        given: Any,
        name: str,
        signature: Signature,
        check: Callable[[Any], Data],
        *,
        steps: int | None = None,
        continues: bool = False,
    ) -> None:
        self.signature = signature
        self._given, self.name, self._check = given, name, check
        self._steps, self._continues = steps, continues and steps is not None
        self._iterator: Iterator[Any] | None = None
        self._any = False
        #: Whether an iterator has ended before its time.
        self.exhausted = False

    @property
    def once(self) -> bool:
        """Whether it is an iterator, which can't be started again."""
        return isinstance(self._given, Iterator)

    @property
    def steps(self) -> int | None:
        """Batches of a pass; None if unknown."""
        if self._steps is not None:
            return self._steps
        try:
            return len(self._given)
        except TypeError:
            return None

    def batches(
        self, batch_size: int, rng: np.random.Generator | None, *, by_length: bool = False
    ) -> Iterator[Batch]:
        """Yield the batches of a pass as they come, whatever the arguments."""
        for data in self.data():
            yield data.batch(np.arange(len(data)))

    def data(self) -> Iterator[Data]:
        """Yield the data of each batch of a pass."""
        if self._iterator is None or not self._continues:
            self._iterator = self._begun()
        for i in count() if self._steps is None else range(self._steps):
            item = next(self._iterator, _END)
            if item is _END and self._continues and not self.once:
                self._iterator = self._begun()
                item = next(self._iterator, _END)
            if item is _END:
                self._end(i)
                return
            try:
                data = self._check(item)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{self.name}, batch {i + 1}: {error}") from None
            self._any = True
            yield data
        self._end(self._steps or 0)

    def _begun(self) -> Iterator[Any]:
        """Return an iterator over all batches."""
        given = self._given
        if not isinstance(given, Iterable) and _is_indexed(given):
            return (given[i] for i in range(len(given)))
        made = given if isinstance(given, Iterable) else given()
        if not isinstance(made, Iterable):
            raise TypeError(
                f"{self.name}: expected a function that returns an iterable of batches, got "
                f"{type(made).__name__} from it"
            )
        return iter(made)

    def _end(self, given: int) -> None:
        """End a pass after `given` batches."""
        if not self._any:
            raise ValueError(f"{self.name}: expected one batch or more, got none")
        if not given and self._steps is None:
            raise ValueError(
                f"{self.name}: expected one batch or more in each pass, got none in a later one; "
                "a function has to return a new iterable each time"
            )
        if self._steps is not None and given < self._steps:
            self.exhausted = True
            told = f"{self.name}: ended after {given} of {self._steps} batches"
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        ended = getattr(self._given, "on_epoch_end", None)  # Keras's, to shuffle
        if callable(ended):
            ended()
