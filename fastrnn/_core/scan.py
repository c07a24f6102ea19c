"""Forward and BPTT of one layer in one direction, on the current kernels.

Layers and ``fastrnn.functional`` are built on this. Arrays have been converted by the caller; the
kernels check what they read and write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import Cell
from fastrnn._kernels.interface import Kernels, KernelTape, PackedWeights, WeightGradients
from fastrnn._kernels.weights import Kind, ScanWeights
from fastrnn._types import Array, Fixed


class Bound:
    """An object that holds memory of the kernels, and so can't be pickled or copied."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{type(self).__name__}: can't be pickled or copied, as it belongs to the kernels of "
            "this process; keep the layer and its inputs or state instead"
        )


@dataclass(slots=True, repr=False)
class Checkpoints:
    """Points from which a scan can be rerun: its inputs, and the states every `steps` steps.

    All are in the scan's own order of steps.
    """

    x: Array
    spans: Array | None
    reset: Array | None
    steps: int
    states: list[Sequence[Array | None]]


class Nothing:
    """What is kept of a batch of no rows, which never reaches the kernels."""

    __slots__ = ()


class _NewTape:
    """The fields of a :class:`ScanTape`, which it becomes once they are filled."""

    __slots__ = ("kept", "kernels", "kind", "packed", "reverse", "shape")

    def __init__(
        self, kind: Kind, kernels: Kernels, packed: PackedWeights,
        kept: KernelTape | Checkpoints | Nothing, shape: tuple[int, int, int], reverse: bool,
    ) -> None:  # fmt: skip
        self.kind, self.kernels, self.packed = kind, kernels, packed
        self.kept, self.shape, self.reverse = kept, shape, reverse
        self.__class__ = ScanTape


class ScanTape(Fixed, Bound, _NewTape):
    """What `backward` needs from a `forward`: the kernels that ran, and what they kept.

    `kept` is the kernels' tape, or checkpoints, or nothing; `kind` is that of the weights, `shape`
    that of x.
    """

    __slots__ = ()

    @property
    def cell(self) -> Cell:
        """The cell that ran."""
        return self.kind[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the weights."""
        return self.kind[2]


def forward(
    weights: ScanWeights,
    x: Array,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
    *,
    keep: bool = False,
    reverse: bool = False,
    lengths: Array | None = None,
    reset: Array | None = None,
    checkpoint_every: int | None = None,
    owned: bool = False,
) -> ScanTape | None:
    """Run the current kernels over `x` (T, B, I) from `state` (B, H) each, into `y` (T, B, H).

    Parameters
    ----------
    state : sequence of array or None
        None stands for zeros.
    y : array or None, out
        None where only the final state is wanted.
    state_n : sequence of array, out
        The final state.
    keep : bool
        Whether to return a tape.
    reverse : bool
        Whether to run from the last time step to the first.
    lengths : (B,) array of int64, optional
        Where each row ends, and where it starts in reverse.
    reset : (T, B) array of bool, optional
        Where the state is zeroed before a step.
    checkpoint_every : int, optional
        Keep states only every `checkpoint_every` steps, or slightly less often.
    owned : bool
        Whether no one else holds `x`, so that a tape need not copy it.
    """
    kernels = dispatch.kernels(weights.kind[2])
    packed = weights.packed(kernels)
    spans = None
    if lengths is not None:
        T, zeros = len(x), np.zeros_like(lengths)
        spans = np.stack([T - lengths, zeros + T] if reverse else [zeros, lengths])
    if reverse:
        x, reset = x[::-1], None if reset is None else reset[::-1]
        y = None if y is None else y[::-1]
    kept: Checkpoints | KernelTape | Nothing | None
    if not x.size:  # a batch of no rows, whose outputs are empty
        kept = Nothing() if keep else None
    elif keep and checkpoint_every is not None:
        steps = kernels.segment_steps(x.shape[1], min(checkpoint_every, len(x)))
        x, reset = x if owned else _checks.copied(x), None if reset is None else reset.copy()
        kept = Checkpoints(x, spans, reset, steps, [])
        _forward_checkpointed(kernels, packed, kept, state, y, state_n)
    else:
        kept = kernels.forward(packed, x, state, y, state_n, keep=keep, spans=spans, reset=reset)
    if kept is None:
        return None
    return _NewTape(weights.kind, kernels, packed, kept, x.shape, reverse)  # type: ignore[return-value]


def run(
    weights: ScanWeights, x: Any, state: Any, *, keep: bool = False, outputs: bool = True
) -> tuple[Array | None, Any, ScanTape | None] | None:
    """Run the current kernels as a layer's only scan, into new arrays.

    Returns y, if its `outputs` are wanted, the final state and the tape; or None if an array needs
    to be converted first.
    """
    kernels = dispatch.kernels(weights.kind[2])
    packed = weights.packed(kernels)
    done = kernels.run(packed, x, state, keep=keep, outputs=outputs)
    if done is None or not keep:
        return done  # type: ignore[return-value]
    y, state_n, kept = done
    return y, state_n, _NewTape(weights.kind, kernels, packed, kept, x.shape, False)  # type: ignore[return-value, arg-type]


def run_back(
    tape: ScanTape, x_shape: tuple[int, ...], dy: Any, dstate_n: Any, input_gradient: bool
) -> tuple[Array | None, Any, list[Array | None]] | None:
    """Backpropagate through a layer's only scan, into new arrays.

    Returns dx, the gradient of the initial state and those of the weights; or None if an array
    needs to be converted first, or the scan was not kept as a whole, or of a batch.
    """
    if x_shape != tape.shape or isinstance(tape.kept, Checkpoints | Nothing):
        return None
    return tape.kernels.run_back(tape.kept, dy, dstate_n, input_gradient=input_gradient)


def backward(
    tape: ScanTape,
    kind: Kind,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    *,
    reverse: bool = False,
    weight_gradients: bool = True,
) -> list[Array | None]:
    """Backpropagate through a `forward`, into `dx` (T, B, I) and `dstate` (B, H) each.

    Parameters
    ----------
    kind : tuple
        Of the weights whose gradients are wanted.
    dx : array or None, out
        None where it is not wanted.
    reverse : bool
        As in the `forward`.
    weight_gradients : bool
        Whether those of the weights are wanted.

    Returns
    -------
    grads : list of array or None
        Gradients of the weights, in the order of `cell.weights`; empty where they are not wanted.

    Raises
    ------
    ValueError
        If the tape is from other weights or the other direction, or is of another shape.
    """
    if tape.kind != kind or tape.reverse != reverse:
        raise ValueError("tape: is from the forward of another layer")
    if reverse:
        dy, dx = None if dy is None else dy[::-1], None if dx is None else dx[::-1]
    gradients = tape.kernels.Gradients(tape.packed) if weight_gradients else None
    if isinstance(tape.kept, Checkpoints):
        _expect_shapes(tape, dy, dx)
        _backward_checkpointed(tape, tape.kept, dy, dstate_n, dx, dstate, gradients)
    elif isinstance(tape.kept, Nothing):
        _expect_shapes(tape, dy, dx)
    else:
        try:
            tape.kernels.backward(tape.kept, dy, dstate_n, dx, dstate, gradients)
        except ValueError:
            # The kernels check everything; where a shape is wrong, say only that.
            _expect_shapes(tape, dy, dx)
            raise
    return [] if gradients is None else gradients.arrays()


def _expect_shapes(tape: ScanTape, dy: Array | None, dx: Array | None) -> None:
    """Raise unless the gradients have the shapes of y and x."""
    T, B, _ = tape.shape
    if dy is not None and dy.shape != (shape := (T, B, tape.kind[1].output_size)):
        raise ValueError(f"dy: expected shape {shape}, got {dy.shape}")
    if dx is not None and dx.shape != tape.shape:
        raise ValueError(f"dx: expected shape {tape.shape}, got {dx.shape}")


def _segments(kept: Checkpoints) -> Iterator[tuple[slice, Array | None, Array | None]]:
    """Yield the steps of each segment, and its spans and resets."""
    for t in range(0, len(kept.x), kept.steps):
        steps = slice(t, t + kept.steps)
        spans = None if kept.spans is None else kept.spans - t
        yield steps, spans, None if kept.reset is None else kept.reset[steps]


def _forward_checkpointed(
    kernels: Kernels,
    packed: PackedWeights,
    kept: Checkpoints,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
) -> None:
    """Run segment by segment, keeping the states between them."""
    kept.states.append([None if s is None else s.copy() for s in state])
    for steps, spans, reset in _segments(kept):
        last = steps.stop >= len(kept.x)
        end = state_n if last else [np.empty_like(s) for s in state_n]
        y_part = None if y is None else y[steps]
        kernels.forward(
            packed, kept.x[steps], kept.states[-1], y_part, end, spans=spans, reset=reset
        )
        if not last:
            kept.states.append(end)


def _backward_checkpointed(
    tape: ScanTape,
    kept: Checkpoints,
    dy: Array | None,
    dstate_n: Sequence[Array | None],
    dx: Array | None,
    dstate: Sequence[Array],
    gradients: WeightGradients | None,
) -> None:
    """Rerun each segment, the last one first, and backpropagate through it."""
    _pins = _checks.pinned(dy, dstate_n)
    kernels = tape.kernels
    scratch = [np.empty_like(d) for d in dstate]
    for (steps, spans, reset), state in zip(
        reversed(list(_segments(kept))), reversed(kept.states), strict=True
    ):
        segment = kernels.forward(
            tape.packed, kept.x[steps], state, None, scratch, keep=True, spans=spans, reset=reset
        )
        assert segment is not None
        dy_part = None if dy is None else dy[steps]
        dx_part = None if dx is None else dx[steps]
        # `dstate_n` may be `dstate`: either twin reads the one before it writes the other.
        kernels.backward(segment, dy_part, dstate_n, dx_part, dstate, gradients)
        dstate_n = dstate
