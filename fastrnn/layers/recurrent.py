"""Base classes of recurrent layers; names, arguments and layouts are those of ``torch.nn``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, NoReturn, overload

import numpy as np

from fastrnn import _checks
from fastrnn._core import scan
from fastrnn._core import stack as stacks
from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.activations import activations as activations_of
from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._kernels.weights import Weights
from fastrnn._types import Array, ArrayLike, DTypeLike, Fixed, StateLikeT, StateT
from fastrnn.layers.cell_layer import CellLayer
from fastrnn.layers.dropout import drawn_factors
from fastrnn.layers.embedding import Table
from fastrnn.layers.initial_state import Segments, StartedTape
from fastrnn.layers.stream import Stream

#: The constructor's argument for each option of a cell.
_OPTIONS = {
    "projection": "proj_size",
    "peephole": "peephole",
    "layer_norm": "layer_norm",
    "input_forget": "input_forget",
}


class _NewTape:
    """The fields of a :class:`Tape`, which it becomes once they are filled."""

    __slots__ = ("batch_first", "order", "return_sequences", "stack", "weight_factors", "x_shape")

    def __init__(
        self, stack: stacks.StackTape, x_shape: tuple[int, ...], batch_first: bool,
        return_sequences: bool, weight_factors: Sequence[Array | None], order: Array | None,
    ) -> None:  # fmt: skip
        self.stack, self.x_shape, self.batch_first = stack, x_shape, batch_first
        #: `weight_factors` are factors of the recurrent weights of each scan; None for ones.
        self.return_sequences, self.weight_factors = return_sequences, weight_factors
        #: Which step of x came at each step, (T, B) or (T, 1), with `go_backwards`; else None.
        self.order = order
        self.__class__ = Tape


class Tape(Fixed, scan.Bound, _NewTape):
    """What a layer's ``backward`` needs from its ``forward``. Opaque; belongs to the caller.

    It holds copies: later changes to x, y, the state or the weights do not change the gradients.
    """

    __slots__ = ()


#: The recurrent layers, by the name of the family.
RECURRENT: dict[str, type[Recurrent[Any, Any]]] = {}


class Recurrent(CellLayer, Generic[StateT, StateLikeT]):
    """Base class of the recurrent layers."""

    _registry = RECURRENT

    def __init__(
        self,
        cell: Cell,
        config: CellConfig,
        *,
        activations: ActivationsLike | None,
        num_layers: int,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        return_sequences: bool,
        go_backwards: bool,
        weight_dropout: float,
        learn_initial_state: bool,
        dtype: DTypeLike,
        seed: int | None,
        init: str,
    ) -> None:
        L = _checks.size(num_layers, "num_layers")
        D = 2 if _checks.flag(bidirectional, "bidirectional") else 1
        I, H, P = config.input_size, config.hidden_size, config.output_size
        dtype = _checks.dtype(dtype)
        least = len(cell.gates) * H * (I + L * (P if cell.recurrence == "dense" else 1))
        _checks.memory(least, dtype, input_size=I, hidden_size=H, num_layers=L)
        self._num_layers, self._directions = L, D
        self._sizes = cell.state_sizes(config)
        self.batch_first = batch_first
        self.dropout = dropout
        self.weight_dropout = weight_dropout
        self._return_sequences = _checks.flag(return_sequences, "return_sequences")
        self._go_backwards = _checks.flag(go_backwards, "go_backwards")
        each = activations_of(activations, cell.activations, D)
        configs = {
            f"_l{layer}{direction}": replace(
                config, input_size=D * P if layer else I, activations=chosen
            )
            for layer in range(L)
            for direction, chosen in zip(("", "_reverse")[:D], each, strict=True)
        }
        #: Factors without dropout: of each scan's weights, and of the output of each lower layer.
        self._whole: Sequence[Array | None] = (None,) * len(configs)
        #: Whether the kernels may read the caller's arrays and make the results.
        self._direct = len(configs) == 1 and not self._go_backwards
        #: The learned initial states (L*D, n), by name, if there are some.
        self._first: dict[str, Table] = {}
        if _checks.flag(learn_initial_state, "learn_initial_state"):
            self._direct = False
            self._first = {
                f"{name}_0": Table(np.zeros((L * D, n), dtype))
                for name, n in zip(cell.states, self._sizes, strict=True)
            }
        self._passed_on: Sequence[Array | None] = (None,) * (L - 1)
        super().__init__(cell, configs, dtype=dtype, seed=seed, init=init)
        if self.dropout > 0 and L == 1:
            warnings.warn(
                f"dropout={self.dropout} has no effect: it acts between layers, and num_layers=1",
                stacklevel=3,
            )

    def _start(self, rng: np.random.Generator) -> None:
        self._rng = rng

    # Sizes and options.

    @property
    def num_layers(self) -> int:
        """L, the number of stacked layers."""
        return self._num_layers

    @property
    def bidirectional(self) -> bool:
        """Whether each layer runs in both directions."""
        return self._directions == 2

    @property
    def return_sequences(self) -> bool:
        """Whether y holds the output of every step rather than only the last."""
        return self._return_sequences

    @property
    def go_backwards(self) -> bool:
        """Whether sequences are read from their last step to their first."""
        return self._go_backwards

    @property
    def batch_first(self) -> bool:
        """Whether x and y are (B, T, ...); may be set."""
        return self._batch_first

    @batch_first.setter
    def batch_first(self, value: bool) -> None:
        self._batch_first = _checks.flag(value, "batch_first")

    @property
    def dropout(self) -> float:
        """Probability that an element is zeroed between layers in training; may be set."""
        return self._dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        self._dropout = _checks.probability(value, "dropout")

    @property
    def weight_dropout(self) -> float:
        """Probability that a recurrent weight is zeroed in training; may be set."""
        return self._weight_dropout

    @weight_dropout.setter
    def weight_dropout(self, value: float) -> None:
        self._weight_dropout = _checks.probability(value, "weight_dropout")

    @property
    def features_out(self) -> int:
        """Size of the last axis of y, D*P."""
        return self._directions * self._config.output_size

    @property
    def per_sequence(self) -> bool:
        """Whether y is the last step's output only."""
        return not self.return_sequences

    @property
    def learn_initial_state(self) -> bool:
        """Whether the initial state is a weight."""
        return bool(self._first)

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, in torch's names, order, layouts and gate order.

        Changes in place take effect at the next call. The arrays can't be reshaped or resized. As
        long as one of them is held, each call, and each step of a stream, compares all weights
        with the copy that the kernels read, which costs about as much as reading them once more;
        so keep them no longer than needed.
        """
        return super().parameters() | {name: first.share() for name, first in self._first.items()}

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        first = {name: np.zeros(first.shape, self._dtype) for name, first in self._first.items()}
        return super()._draw(rng) | first

    # The three ways to run: plain, for training, and step by step. They read attributes and not
    # properties, which take time.

    def __call__(
        self,
        x: ArrayLike,
        state: StateLikeT | None = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Array, StateT]:
        """Run the layer. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (T, B, I) array-like
            (B, T, I) with `batch_first`; (T, I) unbatched.
        state : (L*D, B, H) array-like, or for LSTM a pair ``(h, c)`` of them, optional
            Layer by layer, each layer's backward direction after its forward one. Default: zeros.
            (L*D, H) unbatched.
        lengths : (B,) array-like of int, optional
            Number of steps of each row, 1 to T; the rest is padding, which costs no work and for
            which y is 0. The final state is the one at the end of the row, where the backward
            direction starts. Default: T. A single number unbatched.
        reset : (T, B) array-like of bool, optional
            Where the state is zeroed before a step, in either direction's own order of steps.
            Default: nowhere. (T,) unbatched.

        Returns
        -------
        y : (T, B, D*H) array
            In the layout of `x`. Without `return_sequences`, the last output of each row, (B, D*H);
            for the backward direction that is the one at the first time step. With `proj_size`, P
            in place of H.
        state : as `state`
            The state after the last step.
        """
        y, state_n, _ = self._run(x, state, lengths, reset, False)
        return y, state_n

    def forward(
        self,
        x: ArrayLike,
        state: StateLikeT | None = None,
        *,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
        checkpoint_every: int | None = None,
    ) -> tuple[Array, StateT, Tape]:
        """Run the layer as a plain call does, and keep what :meth:`backward` needs.

        In training mode, `dropout` drops elements between layers, and `weight_dropout` recurrent
        weights.

        Parameters
        ----------
        x, state, lengths, reset
            As in a plain call.
        checkpoint_every : int, optional
            Keep the layers' inputs, and their states only every `checkpoint_every` steps (rounded
            up to a multiple of 256 / B); :meth:`backward` recomputes the steps in between, with the
            same bits. Costs about a third more work, and saves memory for long sequences; the
            square root of T is a good value (Chen et al. 2016). Default: keep all.

        Returns
        -------
        y, state
            As from a plain call.
        tape : Tape
            For :meth:`backward`, any number of times.
        """
        if checkpoint_every is not None:
            checkpoint_every = _checks.size(checkpoint_every, "checkpoint_every")
        y, state_n, tape = self._run(x, state, lengths, reset, True, checkpoint_every)
        assert tape is not None
        return y, state_n, tape

    def _run(
        self, x: Any, state: Any, lengths: Any, reset: Any, keep: bool,
        checkpoint_every: int | None = None,
    ) -> tuple[Array, Any, Tape | None]:  # fmt: skip
        batch_first = self._batch_first
        if lengths is None and reset is None and checkpoint_every is None and not batch_first:
            done = self._run_directly(x, state, keep)
            if done is not None:
                return done
        x = _checks.array(x, "x", self._dtype)
        if x.ndim != 3 or x.shape[2] != self._config.input_size or not x.size:
            lead = ("T",) if x.ndim == 2 else ("B", "T") if batch_first else ("T", "B")
            _checks.expect_shape(x, "x", (*lead, self._config.input_size))
        if lengths is not None or reset is not None:
            T, B, _ = _time_first(x, batch_first).shape
            batch = (B,) if x.ndim == 3 else ()
            lengths = _checks.lengths(lengths, T, batch)
            reset = _checks.reset(reset, T, batch)
        run = self._run_from_learned if self._first else self._run_checked
        return run(x, batch_first, state, lengths, reset, keep, checkpoint_every)

    def _run_directly(
        self, x: Any, state: Any, keep: bool
    ) -> tuple[Array, Any, Tape | None] | None:
        """Run a layer of one scan on arrays that need no conversion; None for other calls."""
        if not self._direct or (keep and self._weight_dropout and self._training):
            return None
        sequences = self._return_sequences
        done: Any = scan.run(self._scan_weights[0], x, state, keep=keep, outputs=sequences)
        if done is None or (sequences and not keep):
            return done  # type: ignore[no-any-return]
        y, state_n, kept = done
        if not sequences:
            y = (state_n if len(self._sizes) == 1 else state_n[0])[0].copy()
            if not keep:
                return y, state_n, None
        stack: Any = stacks.StackTape([kept], self._passed_on)
        tape: Any = _NewTape(stack, x.shape, False, sequences, self._whole, None)
        return y, state_n, tape

    def _run_checked(
        self, x: Array, batch_first: bool, state: Any, lengths: Array | None, reset: Array | None,
        keep: bool, checkpoint_every: int | None = None,
    ) -> tuple[Array, Any, Tape | None]:  # fmt: skip
        # A single scan reads x itself, which the kernels pin; all else reads views of it.
        itself = len(self._scan_weights) == 1 and not batch_first and x.ndim == 3
        _pins = None if itself else _checks.pinned(x)
        steps = x if itself else _time_first(x, batch_first)
        T, B, _ = steps.shape
        order = backwards(T, lengths) if self._go_backwards else None
        if order is not None:
            steps = in_order(steps, order)
            reset = None if reset is None else in_order(reset, order)
        batch = (B,) if x.ndim == 3 else ()
        D, P = self._directions, self._sizes[0]
        y = np.empty((*x.shape[:-1], D * P), x.dtype) if self._return_sequences else None
        states, _state_pins = self._rows(state, "state", batch)
        state_n = self._new_rows(B)
        weights: Sequence[Weights] = self._scan_weights
        weight_factors, factors = self._whole, self._passed_on
        if keep and self._training:
            if self._weight_dropout:
                weights, weight_factors = self._dropped_weights()
            if self._dropout:
                factors = self._factors(T, B)
        stack = stacks.forward(
            weights,
            steps,
            states,
            None if y is None else _time_first(y, batch_first),
            state_n,
            factors=factors,
            keep=keep,
            lengths=lengths,
            reset=reset,
            checkpoint_every=checkpoint_every,
        )
        if y is None:
            # Each direction's last output is its final h.
            last = state_n[0][-D:]
            y = last[0].copy() if D == 1 else np.concatenate([*last], axis=-1)
            y = y if batch else y[0]
        tape: Any = None
        if stack is not None:
            tape = _NewTape(
                stack, x.shape, batch_first, self._return_sequences, weight_factors, order
            )
        return y, self._state(state_n, batch), tape

    def _dropped_weights(self) -> tuple[Sequence[Weights], Sequence[Array | None]]:
        """Draw factors of each `weight_hh`; return the weights of each scan, and the factors."""
        if "weight_hh" not in self._cell.weights:
            return self._scan_weights, self._whole
        p, weights, factors = self._weight_dropout, [], []
        for whole in self._scan_weights:
            shape = self._cell.weight_shapes(whole.config)["weight_hh"]
            factors.append(drawn_factors(self._rng, p, shape, whole.dtype))
            weights.append(whole.multiplied("weight_hh", factors[-1]))
        return weights, factors

    def _factors(self, T: int, B: int) -> Sequence[Array | None]:
        """Draw factors of the output of each layer but the last."""
        shape, p = (T, B, self.features_out), self._dropout
        # A generator locks itself, so that threads may share the layer.
        return [drawn_factors(self._rng, p, shape, self._dtype) for _ in self._passed_on]

    @overload
    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = ...,
        dstate: StateLikeT | None = ...,
        *,
        input_gradient: Literal[True] = ...,
    ) -> tuple[Array, StateT, dict[str, Array]]: ...

    @overload
    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = ...,
        dstate: StateLikeT | None = ...,
        *,
        input_gradient: bool,
    ) -> tuple[Array | None, StateT, dict[str, Array]]: ...

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dstate: StateLikeT | None = None,
        *,
        input_gradient: bool = True,
    ) -> tuple[Array | None, StateT, dict[str, Array]]:
        """Backpropagate through time (Werbos 1990).

        Parameters
        ----------
        tape : Tape
            From :meth:`forward` of this layer.
        dy : array-like, optional
            Gradient of the loss with respect to y, in its shape. Default: zeros.
        dstate : as `state`, optional
            Gradient with respect to the final state; either of a pair may be None. Default: zeros.
        input_gradient : bool
            Whether to compute dx, which the first layer of a model does not need. Default: True.

        Returns
        -------
        dx : array, or None without `input_gradient`
            Gradient with respect to x, in its shape.
        dstate : as `state`
            Gradient with respect to the initial state.
        grads : dict of str to array
            Gradients of the weights, by the names of :meth:`parameters`.
        """
        return self._backward(tape, dy, dstate, self._batch_first, input_gradient)

    def _backward(
        self, tape: Tape, dy: Any, dstate: Any, batch_first: bool, input_gradient: bool
    ) -> tuple[Array | None, Any, dict[str, Array]]:
        if not isinstance(tape, Tape):
            if isinstance(tape, StartedTape):
                return self._back_to_learned(tape, dy, dstate, batch_first, input_gradient)
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if (
            tape.batch_first != batch_first
            or tape.return_sequences != self._return_sequences
            or (tape.order is None) is self._go_backwards
        ):
            self._refuse_tape(tape, batch_first)
        self._expect_own(tape.stack.scans)
        if not batch_first:
            done = self._run_back_directly(tape, dy, dstate, input_gradient)
            if done is not None:
                return done[0], done[1], self._named([done[2]])
        _, B, _ = tape.stack.scans[0].shape
        batch = (B,) if len(tape.x_shape) == 3 else ()
        (dh, *rest), _dstate_pins = self._rows(dstate, "dstate", batch)
        itself = len(self._scan_weights) == 1 and not batch_first and bool(batch)
        _pins = None if itself and self._return_sequences else _checks.pinned(dy)
        if dy is not None:
            D, P = self._directions, self._sizes[0]
            lead = tape.x_shape[:-1] if self._return_sequences else batch
            dy = _checks.shaped(dy, "dy", self._dtype, (*lead, D * P))
            if self._return_sequences:
                dy = dy if itself else _time_first(dy, batch_first)
            else:
                top = np.zeros((len(self._scan_weights), B, P), self._dtype)
                for d in range(D):
                    top[d - D] = dy if D == 1 else dy[..., d * P : (d + 1) * P]
                dh, dy = top if dh is None else _sum(dh, top), None
        wanted = _checks.flag(input_gradient, "input_gradient")
        dx = np.empty(tape.x_shape, self._dtype) if wanted else None
        dx_steps = None if dx is None else _time_first(dx, batch_first)
        dstate_0 = self._new_rows(B)
        grads = stacks.backward(
            tape.stack,
            [weights.kind for weights in self._scan_weights],
            dy,
            (dh, *rest),
            dx_steps,
            dstate_0,
            num_layers=self._num_layers,
        )
        if tape.order is not None and dx_steps is not None:
            dx_steps[...] = in_order(dx_steps, tape.order)
        if tape.weight_factors is not self._whole:  # the usual case, quickly
            for of_scan, factors in zip(grads, tape.weight_factors, strict=True):
                if factors is not None:
                    k = self._cell.weights.index("weight_hh")
                    of_scan[k] = _times(of_scan[k], factors)
        return dx, self._state(dstate_0, batch), self._named(grads)

    def _run_back_directly(
        self, tape: Tape, dy: Any, dstate: Any, input_gradient: bool
    ) -> tuple[Array | None, Any, list[Array | None]] | None:
        """Backpropagate through what `_run_directly` ran; None for other calls."""
        if not self._direct or tape.weight_factors is not self._whole:
            return None
        if dy is not None and not self._return_sequences:
            # The gradient of the last output is that of the final h.
            if dstate is not None or type(dy) is not np.ndarray:
                return None
            rest = [None] * (len(self._sizes) - 1)
            dy, dstate = None, (dy[None], *rest) if rest else dy[None]
        wanted = _checks.flag(input_gradient, "input_gradient")
        return scan.run_back(tape.stack.scans[0], tape.x_shape, dy, dstate, wanted)

    def _refuse_tape(self, tape: Tape, batch_first: bool) -> NoReturn:
        """Raise for the tape of a layer with other options, and name one."""
        made = {"batch_first": tape.batch_first, "return_sequences": tape.return_sequences}
        own = {"batch_first": batch_first, "return_sequences": self._return_sequences}
        made["go_backwards"], own["go_backwards"] = tape.order is not None, self._go_backwards
        name = next(name for name, value in own.items() if made[name] != value)
        raise ValueError(f"tape: is from the forward of another layer, with {name}={made[name]}")

    def _run_from_learned(
        self, x: Array, batch_first: bool, state: Any, lengths: Array | None, reset: Array | None,
        keep: bool, checkpoint_every: int | None = None,
    ) -> tuple[Array, Any, Any]:  # fmt: skip
        """Run from the learned initial state, unless one is given, and from it after resets."""
        _pins = _checks.pinned(x)
        steps, given = _time_first(x, batch_first), state is not None
        T, B, _ = steps.shape
        batch = (B,) if x.ndim == 3 else ()
        learned = [first.array for first in self._first.values()]
        if not given:
            state = self._state([s[:, None].repeat(B, axis=1) for s in learned], batch)
        if reset is None:
            y, state_n, tape = self._run_checked(
                x, batch_first, state, lengths, None, keep, checkpoint_every
            )
            return y, state_n, tape and StartedTape(tape, given, None, x.shape, batch_first)
        if self.bidirectional or self.go_backwards:
            raise ValueError(
                "reset: expected None, as a layer with learn_initial_state does not restart "
                "within a sequence that it reads from the end"
            )
        parts = Segments.of(reset, lengths)
        rows, _state_pins = self._rows(state, "state", batch)
        begin = parts.starting(
            [
                np.zeros((len(first), B, first.shape[1]), self._dtype) if s is None else s
                for s, first in zip(rows, learned, strict=True)
            ],
            learned,
        )
        y, state_n, tape = self._run_checked(
            parts.taken(steps), False, self._state(begin, (B,)), parts.steps, None, keep,
            checkpoint_every,
        )  # fmt: skip
        if self._return_sequences:
            y = parts.put(y, T)
            y = y.swapaxes(0, 1) if batch_first and batch else y
        else:
            y = y[parts.last]
        ends = [s[:, parts.last] for s in (state_n if len(begin) > 1 else (state_n,))]
        y = y if batch else (y[:, 0] if self._return_sequences else y[0])
        started = tape and StartedTape(tape, given, parts, x.shape, batch_first)
        return y, self._state(ends, batch), started

    def _back_to_learned(
        self, tape: StartedTape, dy: Any, dstate: Any, batch_first: bool, input_gradient: bool
    ) -> tuple[Array | None, Any, dict[str, Array]]:
        """Backpropagate; the gradients of the learned state are sums over where it started."""
        parts = tape.segments
        if not self._first or tape.batch_first != batch_first:
            raise ValueError("tape: is from the forward of another layer")
        batched = len(tape.x_shape) == 3
        if parts is None:
            dx, dbegin, grads = self._backward(tape.tape, dy, dstate, batch_first, input_gradient)
            of_rows = [d if batched else d[:, None] for d in _each(dbegin)]
            sums = [d.sum(axis=1) * (not tape.given) for d in of_rows]
            return dx, dbegin, grads | dict(zip(self._first, sums, strict=True))
        batch = (len(parts.last),) if batched else ()
        given, _pins = self._rows(dstate, "dstate", batch)
        T = tape.x_shape[batch_first and batched]
        if dy is not None:
            size = self._directions * self._sizes[0]
            lead = tape.x_shape[:-1] if self._return_sequences else batch
            dy = _checks.shaped(dy, "dy", self._dtype, (*lead, size))
            if self._return_sequences:
                dy = parts.taken(_time_first(dy, batch_first))
            else:
                (dy,) = parts.ending([dy.reshape(1, -1, size)])
                dy = dy[0]
        dends = parts.ending(given)
        dx, dbegin, grads = self._backward(
            tape.tape, dy, tuple(dends) if len(dends) > 1 else dends[0], False, input_gradient
        )
        of_segments = _each(dbegin)
        own = ~parts.goes_on if tape.given else np.ones_like(parts.goes_on)
        sums = [d[:, own].sum(axis=1) for d in of_segments]
        if dx is not None:
            dx = parts.put(dx, T)
            dx = dx.swapaxes(0, 1) if batch_first and batched else dx if batched else dx[:, 0]
        dbegin = self._state(parts.began(of_segments), batch)
        return dx, dbegin, grads | dict(zip(self._first, sums, strict=True))

    def _rows(
        self, state: Any, name: str, batch: tuple[int, ...]
    ) -> tuple[Sequence[Array | None], Any]:
        """Return the caller's state as arrays (L*D, B, P or H), None where None was given.

        Also what pins them as long as views of them are in use.
        """
        if state is None:
            return (None,) * len(self._cell.states), None
        shapes = [(len(self._scan_weights), *batch, n) for n in self._sizes]
        given = _checks.states(state, name, self._cell.states, self._dtype, shapes)
        pins = _checks.pinned(given)
        return given if batch else [None if s is None else s[:, None] for s in given], pins

    def _new_rows(self, B: int) -> list[Array]:
        """Return empty arrays for the states."""
        scans, dtype = len(self._scan_weights), self._dtype
        return [np.empty((scans, B, n), dtype) for n in self._sizes]

    def _state(self, rows: Sequence[Array], batch: tuple[int, ...]) -> Any:
        """Return states (L*D, B, H) in the form of the caller's."""
        states = tuple(rows if batch else (s[:, 0] for s in rows))
        return states[0] if len(states) == 1 else states

    # As part of a model: time-first.

    def apply(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any]:
        """Run for inference as part of a model."""
        y, state_n, _ = self._apply(x, state, lengths, reset, False)
        return y, state_n

    def apply_forward(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any, Tape]:
        """Run for training as part of a model."""
        y, state_n, tape = self._apply(x, state, lengths, reset, True)
        assert tape is not None
        return y, state_n, tape

    def _apply(
        self, x: Array, state: Any, lengths: Array | None, reset: Any, keep: bool
    ) -> tuple[Array, Any, Tape | None]:
        if lengths is None and reset is None:
            done = self._run_directly(x, state, keep)
            if done is not None:
                return done
        run = self._run_from_learned if self._first else self._run_checked
        return run(x, False, state, lengths, reset, keep)

    def apply_backward(
        self, tape: Any, dy: Array, *, for_update: bool = False, input_gradient: bool = True
    ) -> tuple[Array | None, dict[str, Any]]:
        """Backpropagate through an :meth:`apply_forward`."""
        dx, _, grads = self._backward(tape, dy, None, False, input_gradient)
        return dx, grads

    def stage(
        self, batch_size: int, features: int, dtype: np.dtype[Any]
    ) -> Stream[StateT, StateLikeT]:
        """Return the layer's stage in a stream: a stream of its own."""
        return self.stream(batch_size)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        names = [
            "num_layers", "batch_first", "dropout", "bidirectional", "return_sequences",
            "go_backwards", "weight_dropout", "learn_initial_state",
            *(_OPTIONS[option] for option in self._cell.options),
        ]  # fmt: skip
        return super().get_config() | {name: getattr(self, name) for name in names}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the least number of weights in a file with a layer of this configuration."""
        I, H, L = (_checks.size(config[n], n) for n in ("input_size", "hidden_size", "num_layers"))
        P = _checks.size(config.get("proj_size", 0), "proj_size", 0) or H
        # One gate in one direction: a row of weight_ih and of weight_hh for each unit.
        recurrent = P if CELLS[next(iter(cls.cells))].recurrence == "dense" else 0
        return H * (I + recurrent) + (L - 1) * H * (P + recurrent)

    def stream(self, batch_size: int = 1) -> Stream[StateT, StateLikeT]:
        """Return a state to advance one time step at a time; many can share this layer.

        Parameters
        ----------
        batch_size : int
            B, the number of rows.

        Raises
        ------
        ValueError
            If the layer is bidirectional, or goes backwards.
        """
        rows = _checks.size(batch_size, "batch_size")
        _checks.memory(rows * self.hidden_size, self.dtype, batch_size=rows)
        if self.bidirectional:
            raise ValueError(
                "stream: expected a unidirectional layer, got a bidirectional one, whose backward "
                "direction starts at the end of the sequence"
            )
        if self.go_backwards:
            raise ValueError(
                "stream: expected go_backwards=False, got True, which starts at the end of the "
                "sequence"
            )
        return Stream(list(self._scan_weights), rows, list(self._first.values()))


# Infinity and NaN propagate without a warning, as in the kernels.
@np.errstate(all="ignore")
def _sum(a: Array, b: Array) -> Array:
    total: Array = a + b
    return total


@np.errstate(all="ignore")
def _times(a: Array | None, factors: Array) -> Array | None:
    return None if a is None else a * factors


def backwards(T: int, lengths: Array | None) -> Array:
    """Return the order of steps from the last to the first, (T, B) or (T, 1); padding stays."""
    steps = np.arange(T)[:, None]
    if lengths is None:
        return steps[::-1]
    return np.where(steps < lengths, lengths - 1 - steps, steps)


def in_order(a: Array, order: Array) -> Array:
    """Return the steps of `a` (T, B, ...) in an order from :func:`backwards`, its own inverse."""
    return np.take_along_axis(a, order.reshape(*order.shape, *[1] * (a.ndim - 2)), axis=0)


def _each(state: Any) -> tuple[Array, ...]:
    """Return the states of a layer as a tuple."""
    return state if isinstance(state, tuple) else (state,)


def _time_first(a: Array, batch_first: bool) -> Array:
    """Return the (T, B, ...) view of a sequence in the caller's layout."""
    if a.ndim == 2:
        return a[:, None]
    return a.swapaxes(0, 1) if batch_first else a
