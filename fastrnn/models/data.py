"""Data of a model: checked, and returned in batches, time first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Self, TypeVar

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._types import Array
from fastrnn.losses import Loss, checked_weight

#: Shuffled sequences are grouped by length within windows of this many batches.
_WINDOW = 50

T_out = TypeVar("T_out")


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model.

    Attributes
    ----------
    vocabulary : int or None
        V, if the inputs are tokens in 0..V-1.
    features : int
        F, if they are not.
    outputs : int
        O, the size of the last layer.
    per_step : bool
        Whether there is one output per step rather than per sequence.
    dtype : dtype
    mask_value : float or None
        Padding: the token, or the value of all features, of steps that are left out.
    """

    vocabulary: int | None
    features: int
    outputs: int
    per_step: bool
    dtype: np.dtype[Any]
    mask_value: float | None = None

    def array(self, x: Any, name: str, lead: Sequence[int | str]) -> Array:
        """Return inputs as an array (*lead, F) of the dtype, or (*lead) of integers."""
        if self.vocabulary is None:
            return _checks.shaped(x, name, self.dtype, (*lead, self.features))
        tokens = _checks.indices(x, name, self.vocabulary)
        return _checks.expect_shape(tokens, name, lead)

    def padded(
        self, x: Any, name: str, lead: Sequence[int | str], lengths: Any, first: int = 0
    ) -> tuple[Array, Array | None]:
        """Return inputs as :meth:`array` does, and lengths; padding may hold any values.

        `first` is what errors count sequences from.
        """
        if self.mask_value is not None and lengths is None:
            return self._unmasked(self.array(x, name, lead), name, first)
        if self.vocabulary is None or lengths is None:
            array = self.array(x, name, lead)
            return array, _checks.lengths(lengths, array.shape[1], array.shape[:1])
        tokens = _checks.expect_shape(_checks.asarray(x, name), name, lead)
        N, T = tokens.shape
        sizes = _checks.lengths(lengths, T, (N,))
        assert sizes is not None
        return self.array(np.where(np.arange(T) < sizes[:, None], tokens, 0), name, lead), sizes

    def item(self, x: Any, name: str) -> Array:
        """Return one sequence (T, F) or (T,) of a list, without what is left out."""
        array = self.array(x, name, ("T",))
        if self.mask_value is None or (kept := self._kept(array)).all():
            return array
        if self.per_step or not kept.any():
            few = "no masked steps in a list" if self.per_step else "a step that is not masked"
            raise ValueError(f"{name}: expected {few}, got the mask {kept.tolist()}")
        return array[kept]

    def _kept(self, array: Array) -> Array:
        """Return where steps are not left out."""
        with np.errstate(all="ignore"):  # the value in float32 may be infinite, as it is in X
            kept: Array = array != self.mask_value
        return kept if self.vocabulary is not None else np.any(kept, axis=-1)

    def _unmasked(self, array: Array, name: str, first: int) -> tuple[Array, Array | None]:
        """Return inputs with all steps that are left out at their ends, and lengths."""
        array = _checks.copied(array)
        kept = self._kept(array)
        if kept.all():
            return array, None
        wrong, expected = ~kept.any(axis=1), "a step that is not masked"
        if self.per_step and not wrong.any():
            wrong = (kept[:, 1:] & ~kept[:, :-1]).any(axis=1)
            expected = "masked steps after all others, as there is an output for each step"
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"{name}[{first + i}]: expected {expected}, got the mask {kept[i].tolist()}"
            )
        order = np.argsort(~kept, axis=1, kind="stable")
        order = order if array.ndim == 2 else order[:, :, None]
        return np.take_along_axis(array, order, axis=1), kept.sum(axis=1, dtype=np.int64)


@dataclass(slots=True)
class Batch:
    """Sequences side by side.

    Attributes
    ----------
    x : (T, B, F) or (T, B) array
    lengths : (B,) array or None
    target : (T, B, ...) or (B, ...) array
    weight : (T, B) or (B,) array or None
        0 for padding.
    metric_weight : array or None
        Likewise, but without weights of classes: for metrics.
    """

    x: Array
    lengths: Array | None
    target: Array
    weight: Array | None
    metric_weight: Array | None


def _in_its_shape(method: Callable[[Data, Array], T_out]) -> Callable[[Data, Array], T_out]:
    """Raise a clear error if the caller's arrays have changed shape since they were checked."""

    @wraps(method)
    def checked(self: Data, rows: Array) -> T_out:
        try:
            return method(self, rows)
        except IndexError:
            raise ValueError("X, y or weights: their shapes were changed while in use") from None

    return checked


@dataclass(frozen=True)
class Data:
    """N sequences: an array, or, with `starts`, all concatenated and followed by a row of zeros.

    `x` and `y` are the caller's arrays where no conversion is needed; the kernels check their
    values again, since they may be changed meanwhile. The others are copies.

    Attributes
    ----------
    signature : Signature
    x : (N, T, ...) or (n, ...) array
    lengths : (N,) array or None
    starts : (N,) array or None
    y : array or None
        Per step like `x`, otherwise (N, ...).
    weight : array or None
        (N,), or per step like `x`.
    metric_weight : array or None
        Likewise, without weights of classes.
    was_list : bool
    pins : sequence of weak references
        Keep the caller's arrays from being resized.
    """

    signature: Signature
    x: Array
    lengths: Array | None = None
    starts: Array | None = None
    y: Array | None = None
    weight: Array | None = None
    metric_weight: Array | None = None
    was_list: bool = False
    pins: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.x if self.starts is None else self.starts)

    @property
    def steps(self) -> int:
        """The number of steps of the longest sequence."""
        return self.x.shape[1] if self.lengths is None else int(self.lengths.max())

    @classmethod
    def of(cls, signature: Signature, X: Any, lengths: Any = None, first: int = 0) -> Self:
        """Return inputs alone: of an array (N, T, F) or (N, T), or a list of (T_i, F) or (T_i,).

        `first` is what errors count the sequences of an array from.
        """
        X = _frames.listed(X)
        pins = _checks.pinned(X)
        if not isinstance(X, list | tuple):
            return cls(signature, *signature.padded(X, "X", ("N", "T"), lengths, first), pins=pins)
        if lengths is not None:
            raise ValueError("lengths: expected None with a list of arrays, which have their own")
        if not X:
            shape = (0, 1) if signature.features == 0 else (0, 1, signature.features)
            kind = signature.dtype if signature.features else np.intp
            return cls(signature, np.empty(shape, kind), was_list=True)
        _frames.expect_alike(X, "X")
        items = [signature.item(x, f"X[{i}]") for i, x in enumerate(X)]
        sizes = np.array([len(x) for x in items])
        if (sizes == sizes[0]).all():
            return cls(signature, np.stack(items), was_list=True)
        starts = np.cumsum(sizes) - sizes
        return cls(signature, _end_to_end(items), sizes, starts, was_list=True)

    def with_targets(self, loss: Loss, y: Any, sample_weight: Any) -> Self:
        """Return the same with targets, and with weights or None."""
        s, pins = self.signature, [*self.pins, *_checks.pinned(y)]
        _weight_pins = _checks.pinned(sample_weight)
        if not len(self):
            raise ValueError("X: expected one sequence or more, got none")
        if y is None:
            raise TypeError("y: expected an array of real numbers or a list, got None")
        given = y
        y = self._per_step(y, "y") if s.per_step else y
        shape = (*(y.shape[: self._lead] if s.per_step else (len(self),)), s.outputs)
        weight = None
        if sample_weight is not None:
            # A copy: kernels do not check again that weights are finite and not negative.
            weight = np.array(self._weights(sample_weight, loss.target_shape(shape)))
        weighted = replace(self, weight=weight, metric_weight=weight)
        try:
            target = loss.checked_target(y, shape, s.dtype, "y", weighted._weight_of_targets())
        except (ValueError, TypeError) as error:
            if s.per_step or not self._has_steps(given):
                raise
            raise type(error)(
                f"{error}; for targets of each step, give the recurrent layers "
                "return_sequences=True"
            ) from None
        return replace(weighted, y=target, pins=pins)

    def with_class_weights(self, loss: Loss, class_weight: Any) -> Self:
        """Return the same with the loss's weights multiplied by those of the targets' classes."""
        # Imported when it is first needed: inference starts faster without.
        from fastrnn.models import weighting

        assert self.y is not None
        s = self.signature
        counted = np.ones(self.y.shape[: self._lead if s.per_step else 1], np.bool_)
        given = self.weight
        if s.per_step and self.lengths is not None:
            if self.starts is None:
                counted = np.arange(self.y.shape[1]) < self.lengths[:, None]
            else:  # of a part, only its own steps
                own = slice(self.starts[0], self.starts[-1] + self.lengths[-1])
                counted[...] = False
                counted[own] = True
                if given is not None and self._weighs_rows:
                    of_rows, given = given, np.zeros(counted.shape, s.dtype)
                    given[own] = of_rows.repeat(self.lengths)
        if given is not None:
            given = given.reshape(*given.shape, *[1] * (counted.ndim - given.ndim))
            counted = counted & (given > 0)
        weight = weighting.of_targets(class_weight, loss, self.y, s.outputs, counted)
        weight = weight.astype(s.dtype)
        return replace(self, weight=weight if given is None else weight * given)

    def _weights(self, sample_weight: Any, shape: tuple[int, ...]) -> Array:
        """Return weights of sequences, or of steps where targets of `shape` are per step."""
        s, name = self.signature, "sample_weight"
        sample_weight = _rows(sample_weight, name)
        if s.per_step and len(sample_weight) and np.ndim(sample_weight[0]):
            return checked_weight(self._per_step(sample_weight, name), shape, s.dtype, name)
        return checked_weight(
            _checks.shaped(sample_weight, name, s.dtype, (len(self),)), (len(self),), s.dtype, name
        )

    def _weight_of_targets(self) -> Array | None:
        """Return the weights in the layout of `y`: concatenated where sequences are."""
        if self.starts is None or not self.signature.per_step or not self._weighs_rows:
            return self.weight
        assert self.weight is not None
        assert self.lengths is not None
        return np.append(self.weight.repeat(self.lengths), self.weight.dtype.type(1))

    def _hint(self, shape: tuple[int, ...]) -> str:
        """Return a hint for an error where `shape`, of a sequence's targets, has no steps."""
        if shape not in ((), (1,), (self.signature.outputs,)):
            return ""
        return (
            "; for one target for the sequence, give the last recurrent layer "
            "return_sequences=False"
        )

    def _has_steps(self, y: Any) -> bool:
        """Return whether these targets seem to be one for each step."""
        if self.starts is None:
            shape = np.shape(y)
            return len(shape) > 1 and shape[:2] == self.x.shape[:2]
        assert self.lengths is not None
        return [*map(np.size, y)] == self.lengths.tolist() if isinstance(y, list | tuple) else False

    @property
    def _lead(self) -> int:
        """The number of leading axes of data per step: sequences and steps."""
        return 2 if self.starts is None else 1

    def _per_step(self, value: Any, name: str) -> Array:
        """Return data per step like `x`; padding is 0."""
        N, value = len(self), _rows(value, name)
        if isinstance(value, list | tuple):
            _frames.expect_alike(value, name)
        if len(value) != N:
            raise ValueError(f"{name}: expected {N} sequences as in X, got {len(value)}")
        if self.starts is None:
            array = _checks.numeric(value, name)
            wanted = (*self.x.shape[:2], *array.shape[2:])
            _checks.expect_shape(array, name, wanted, self._hint(array.shape[1:]))
            if self.lengths is not None:
                array = np.array(array)
                array[np.arange(array.shape[1]) >= self.lengths[:, None]] = 0
            return array
        assert self.lengths is not None
        items = [_checks.numeric(v, f"{name}[{i}]") for i, v in enumerate(value)]
        if not isinstance(value, list | tuple):  # padded
            shape = items[0].shape
            _checks.expect_shape(items[0], f"{name}[0]", ("T", *shape[1:]), self._hint(shape))
            items = [v[:n] for v, n in zip(items, self.lengths, strict=True)]
        for i, (v, n) in enumerate(zip(items, self.lengths, strict=True)):
            wanted = (int(n), *items[0].shape[1:])
            _checks.expect_shape(v, f"{name}[{i}]", wanted, self._hint(v.shape))
        return _end_to_end(items)

    @property
    def _weighs_rows(self) -> bool:
        """Whether weights are per sequence rather than per step."""
        return self.weight is not None and self.weight.shape == (len(self),)

    def part(self, rows: slice) -> Self:
        """Return a slice of the sequences, before they are weighted by class."""
        assert self.metric_weight is self.weight
        fields = dict(vars(self))
        per_row = ["lengths", "starts"]
        if self.starts is None:
            per_row += ["x", "y", "weight"]
        else:
            per_row += [] if self.signature.per_step else ["y"]
            per_row += ["weight"] if self._weighs_rows else []
        for name in per_row:
            fields[name] = None if fields[name] is None else fields[name][rows]
        fields["metric_weight"] = fields["weight"]
        return type(self)(**fields)

    def rows(self, batch_size: int, rng: np.random.Generator | None) -> list[Array]:
        """Return the indices of the sequences of each batch: in order, or shuffled by `rng`.

        Shuffled sequences of differing lengths are grouped by length within a window of batches,
        which reduces padding; then the batches are shuffled.
        """
        N = len(self)
        order = np.arange(N) if rng is None else rng.permutation(N)
        window = batch_size * _WINDOW
        if rng is not None and self.lengths is not None:
            for start in range(0, N, window):
                part = order[start : start + window]
                part[...] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = [order[i : i + batch_size] for i in range(0, N, batch_size)]
        if rng is not None and self.lengths is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def batches(
        self, batch_size: int, rng: np.random.Generator | None, *, by_length: bool = False
    ) -> Iterator[Batch]:
        """Yield batches of :meth:`rows`, or of :meth:`by_length`."""
        chosen = self.by_length(batch_size) if by_length else self.rows(batch_size, rng)
        return (self.batch(rows) for rows in chosen)

    @property
    def samples(self) -> int:
        """N, the number of sequences."""
        return len(self)

    def by_length(self, batch_size: int) -> list[Array]:
        """Return the indices of the sequences of each batch, grouped by length."""
        N = len(self)
        order = np.arange(N) if self.lengths is None else np.argsort(self.lengths, kind="stable")
        return [order[i : i + batch_size] for i in range(0, N, batch_size)]

    @_in_its_shape
    def batch(self, rows: Array) -> Batch:
        """Return these sequences side by side, with their targets."""
        x, lengths, valid = self.inputs(rows)
        assert self.y is not None
        weight = metric_weight = self._gathered_weight(self.weight, rows, len(x), valid)
        if self.metric_weight is not self.weight:
            metric_weight = self._gathered_weight(self.metric_weight, rows, len(x), valid)
        per_step = self.signature.per_step
        target = self._gathered(self.y, rows, len(x), valid) if per_step else self.y[rows]
        return Batch(x, lengths, target, weight, metric_weight)

    def _gathered_weight(
        self, weight: Array | None, rows: Array, T: int, valid: Array | None
    ) -> Array | None:
        """Return weights of these sequences as (B,), or per step as (T, B), with 0 for padding."""
        if not self.signature.per_step:
            return None if weight is None else weight[rows]
        if weight is None:
            return None if valid is None else valid.astype(self.signature.dtype)
        if weight.shape == (len(self),):  # of sequences
            weight = np.broadcast_to(weight[rows], (T, len(rows)))
            return weight if valid is None else weight * valid
        return self._gathered(weight, rows, T, valid)

    @_in_its_shape
    def inputs(self, rows: Array) -> tuple[Array, Array | None, Array | None]:
        """Return the inputs of these sequences, their lengths, and a (T, B) mask of valid steps.

        Lengths and mask are None if all lengths are equal.
        """
        if self.lengths is None:
            return self._gathered(self.x, rows, self.steps, None), None, None
        lengths = self.lengths[rows]
        T = int(lengths.max())
        if lengths.min() == T:
            return self._gathered(self.x, rows, T, None), None, None
        valid = np.arange(T)[:, None] < lengths
        return self._gathered(self.x, rows, T, valid), lengths, valid

    def _gathered(self, a: Array, rows: Array, T: int, valid: Array | None) -> Array:
        """Return data per step as (T, B, ...), with 0 at invalid steps."""
        if self.starts is None:
            gathered = a.take(rows, axis=0).swapaxes(0, 1)[:T]
            if valid is not None:
                gathered[~valid] = 0
            return gathered
        index = self.starts[rows] + np.arange(T)[:, None]
        if valid is not None:
            index[~valid] = len(a) - 1
        return a.take(index, axis=0)


def pieces(batch: Batch, steps: int | None) -> Iterator[tuple[Batch, Array | None]]:
    """Yield a batch in pieces of `steps`, each with the rows of the previous piece that continue.

    None stands for all rows; sequences that have ended are left out.
    """
    if steps is None or len(batch.x) <= steps:
        yield batch, None
        return
    x, lengths, target = batch.x, batch.lengths, batch.target
    weights: Sequence[Array | None] = (batch.weight, batch.metric_weight)
    for start in range(0, len(x), steps):
        at = slice(start, start + steps)
        on = None
        if lengths is not None and (lengths <= start).any():
            on = np.flatnonzero(lengths > start)
            x, target, lengths = x[:, on], target[:, on], lengths[on]
            weights = [None if w is None else w[:, on] for w in weights]
        left = None if lengths is None else np.minimum(lengths - start, len(x[at]))
        yield Batch(x[at], left, target[at], *(None if w is None else w[at] for w in weights)), on


def _rows(value: Any, name: str) -> Any:
    """Return a list unchanged, anything else as an array: pandas indexes by label, not row."""
    value = _frames.listed(value)
    sequences = value if isinstance(value, list | tuple) else _checks.asarray(value, name)
    if isinstance(sequences, np.ndarray) and sequences.ndim == 0:
        raise TypeError(f"{name}: expected an array or a list, got {value!r}")
    return sequences


def _end_to_end(items: Sequence[Array]) -> Array:
    """Return the items concatenated, followed by a row of zeros that serves as padding."""
    zero = np.zeros((1, *items[0].shape[1:]), items[0].dtype)
    return np.concatenate([*items, zero])
