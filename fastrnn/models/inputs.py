"""From the arguments of ``fit``, ``evaluate`` and ``predict`` to data, as a whole or in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.losses import Loss
from fastrnn.models.batches import Batches, are_batches
from fastrnn.models.data import Data, Signature

#: Arguments of ``evaluate`` that a pair or triple stands for.
_NAMES = ("X", "y", "sample_weight")
_EXPECTED = "expected (X, y), (X, y, sample_weight) or a dict of X, y, lengths, sample_weight"

#: Data, as a whole or in batches.
Source = Data | Batches

#: Sequences of an array that a prediction converts at a time, at least.
_PART = 2048


@dataclass(frozen=True)
class Parts:
    """Sequences of an array, of which a part at a time is converted: a file may be mapped to it.

    Attributes
    ----------
    signature : Signature
    X : (N, T, F) or (N, T) array
    lengths : (N,) array or None
    size : int
        Sequences of a part.
    pins : sequence of weak references
        As in :class:`Data`.
    """

    signature: Signature
    X: Array
    lengths: Array | None
    size: int
    pins: Sequence[Any]

    @classmethod
    def of(cls, signature: Signature, X: Any, lengths: Any, batch_size: int) -> Self | None:
        """Return the parts of an array; None of anything else, or of a single one."""
        size = batch_size * max(1, _PART // batch_size)
        if not isinstance(X, np.ndarray) or X.ndim < 2 or len(X) <= size:
            return None
        features = () if signature.vocabulary is not None else (signature.features,)
        _checks.expect_shape(X, "X", ("N", "T", *features))
        lengths = _checks.lengths(lengths, X.shape[1], X.shape[:1])
        return cls(signature, X, lengths, size, _checks.pinned(X))

    @property
    def samples(self) -> int:
        """N, the number of sequences."""
        return len(self.X)

    def __iter__(self) -> Iterator[tuple[slice, Data]]:
        for first in range(0, len(self.X), self.size):
            rows = slice(first, first + self.size)
            lengths = None if self.lengths is None else self.lengths[rows]
            yield rows, Data.of(self.signature, self.X[rows], lengths, first)


@dataclass(frozen=True)
class Inputs:
    """Checks the data of a model."""

    signature: Signature
    loss: Loss

    def whole(self, X: Any, y: Any, lengths: Any = None, sample_weight: Any = None) -> Data:
        """Return data as a whole."""
        data = Data.of(self.signature, X, lengths)
        return data.with_targets(self.loss, y, sample_weight)

    def batches(
        self, given: Any, name: str, steps: Any, steps_name: str, class_weight: Any = None
    ) -> Batches:
        """Return batches of this name; None of `steps` stands for all."""

        def check(item: Any) -> Data:
            of_batch = _arguments(item)
            if of_batch is None:
                raise ValueError(f"{_EXPECTED}, got {type(item).__name__}")
            return self._weighted(self.whole(**of_batch), class_weight)

        steps = None if steps is None else _checks.size(steps, steps_name)
        training = steps_name == "steps_per_epoch"
        return Batches(given, name, self.signature, check, steps=steps, continues=training)

    def evaluation(self, X: Any, y: Any, lengths: Any, sample_weight: Any, steps: Any) -> Source:
        """Return the data of an evaluation."""
        if _gives_batches(X, y):
            _expect_none("X gives batches", y=y, lengths=lengths, sample_weight=sample_weight)
            return self.batches(X, "X", steps, "steps")
        _expect_none("X does not give batches", steps=steps)
        return self.whole(X, y, lengths, sample_weight)

    def training(
        self, X: Any, y: Any, lengths: Any, sample_weight: Any, class_weight: Any, steps: Any
    ) -> Source:
        """Return the data of a training, without weights of classes if they are a whole."""
        if not _gives_batches(X, y):
            _expect_none("X does not give batches", steps_per_epoch=steps)
            return self.whole(X, y, lengths, sample_weight)
        _expect_none(
            "X gives batches",
            y=y,
            lengths=lengths,
            sample_weight=sample_weight,
            class_weight="balanced" if isinstance(class_weight, str) else None,
        )
        return self._repeated(self.batches(X, "X", steps, "steps_per_epoch", class_weight))

    def parts(
        self, data: Source, class_weight: Any, split: Any, validation: Any, steps: Any
    ) -> tuple[Source, Source | None]:
        """Return the data that are trained on, weighted by class, and those for validation."""
        split = _checks.fraction(split, "validation_split")
        if not split:
            held = self._validation(validation, steps)
        elif isinstance(data, Batches) or validation is not None:
            where = "with validation_data" if validation is not None else "where X gives batches"
            raise ValueError(f"validation_split: expected 0 {where}")
        else:
            _expect_none("validation_data does not give batches", validation_steps=steps)
            n = len(data) - round(len(data) * split)
            if not 0 < n < len(data):
                raise ValueError(
                    f"validation_split: expected some of {len(data)} sequences on both sides, "
                    f"got {split}"
                )
            data, held = data.part(slice(0, n)), data.part(slice(n, None))
        return self._weighted(data, class_weight) if isinstance(data, Data) else data, held

    def _weighted(self, data: Data, class_weight: Any) -> Data:
        return data if class_weight is None else data.with_class_weights(self.loss, class_weight)

    def _validation(self, given: Any, steps: Any) -> Source | None:
        """Return the data of validations."""
        name = "validation_data"
        batches = given is None or (isinstance(given, list) and are_batches(given))
        of_data = None if batches else _arguments(given)
        if given is not None and of_data is None:
            if not are_batches(given):
                raise ValueError(f"{name}: {_EXPECTED}, or what gives batches of these")
            return self._repeated(self.batches(given, name, steps, "validation_steps"))
        _expect_none("validation_data does not give batches", validation_steps=steps)
        if of_data is None:
            return None
        try:
            return self.whole(**of_data)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name} {error}") from None

    @staticmethod
    def _repeated(batches: Batches) -> Batches:
        """Return the batches; raise if they can't be given in each epoch."""
        if batches.once and batches.steps is None:
            steps = "steps_per_epoch" if batches.name == "X" else "validation_steps"
            raise ValueError(
                f"{steps}: expected the number of batches, as {batches.name} is an iterator, "
                "which can't be started again"
            )
        return batches


def inputs(signature: Signature, X: Any, lengths: Any, steps: Any) -> Source:
    """Return the data of a prediction."""
    if isinstance(X, list | tuple) or not are_batches(X):
        _expect_none("X does not give batches", steps=steps)
        return Data.of(signature, X, lengths)
    _expect_none("X gives batches", lengths=lengths)

    def check(item: Any) -> Data:
        """Return the inputs of a batch, which may come with targets."""
        if isinstance(item, Mapping):
            return Data.of(signature, item["X"], item.get("lengths"))
        axes = 3 if signature.vocabulary is None else 2
        if isinstance(item, tuple | list) and len(item) in (1, 2, 3):
            # A list of sequences looks the same but for their axes.
            first = item[0]
            item = first if isinstance(first, list) or np.ndim(first) == axes else item
        return Data.of(signature, item)

    steps = None if steps is None else _checks.size(steps, "steps")
    return Batches(X, "X", signature, check, steps=steps)


def _gives_batches(X: Any, y: Any) -> bool:
    """Return whether X gives batches with targets; a list does only where `y` is None."""
    return (y is None or not isinstance(X, list | tuple)) and are_batches(X)


def _arguments(value: Any) -> dict[str, Any] | None:
    """Return arguments of ``evaluate``, from a pair, a triple or a dict; None if it is neither."""
    if isinstance(value, tuple | list) and len(value) in (2, 3):
        return dict(zip(_NAMES, value, strict=False))
    if isinstance(value, Mapping) and {"X", "y"} <= value.keys() <= {*_NAMES, "lengths"}:
        return dict(value)
    return None


def _expect_none(where: str, **given: Any) -> None:
    """Raise if one of these is not None."""
    for name, value in given.items():
        if value is not None:
            shown = f", got {value!r}" if isinstance(value, int | str) else ""
            raise ValueError(f"{name}: expected None where {where}{shown}")
