"""RNN, LSTM and GRU with the names, arguments, shapes and weights of ``torch.nn``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import numpy as np

from fastrnn import _checks
from fastrnn._core import initializers
from fastrnn._core import stack as stacks
from fastrnn._core.scan import ScanTape
from fastrnn._core.weights import Weights
from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._types import Array
from fastrnn.layers.base import Layer, dtype_shown
from fastrnn.layers.dropout import drawn_factors
from fastrnn.layers.stream import Stream


@dataclass(slots=True, repr=False)
class Tape:
    """What a layer's ``backward`` needs of its ``forward``. Opaque; belongs to the caller.

    It holds copies: changing x, y, the state or the weights later does not change the gradients.
    """

    stack: stacks.StackTape
    x_shape: tuple[int, ...]
    batch_first: bool


class CellLayer(Layer):
    """What layers and single steps of a recurrent cell have in common; not for direct use.

    Parameters
    ----------
    cell : Cell
    inputs : dict of str to int
        The input size of each scan, by what is appended to the names of its weights.
    """

    #: Options that ``repr`` shows when they differ from this.
    _shown: ClassVar[dict[str, Any]] = {
        "proj_size": 0,
        "num_layers": 1,
        "nonlinearity": "tanh",
        "bias": True,
        "batch_first": False,
        "dropout": 0,
        "bidirectional": False,
        "peephole": False,
        "layer_norm": False,
        "reset_after": True,
        "return_sequences": True,
    }

    def __init__(
        self,
        cell: Cell,
        inputs: dict[str, int],
        hidden_size: int,
        bias: bool,
        dtype: Any,
        rng: np.random.Generator,
        init: str = "uniform",
        proj_size: int = 0,
        peephole: bool = False,
        layer_norm: bool = False,
    ) -> None:
        if _checks.choice(init, "init", initializers.INITS) == "identity" and len(cell.gates) > 1:
            raise ValueError(f"init: 'identity' is for RNN only, got it for {type(self).__name__}")
        self.bias = _checks.flag(bias, "bias")
        self._cell, self._init, self._hidden_size = cell, init, hidden_size
        self._configs = {}
        for suffix, I in inputs.items():
            self._configs[suffix] = CellConfig(
                input_size=I,
                hidden_size=hidden_size,
                proj_size=proj_size,
                bias=self.bias,
                peephole=peephole,
                layer_norm=layer_norm,
            )
        drawn = self._draw_scans(rng, dtype)
        self._weights = {
            suffix: Weights(cell, config, arrays)
            for (suffix, config), arrays in zip(self._configs.items(), drawn, strict=True)
        }
        self._first = next(iter(self._weights.values()))
        #: Of all weights that are there, scan by scan.
        self._names = [
            name + suffix for suffix, weights in self._weights.items() for name in weights.names
        ]

    def _draw_scans(self, rng: np.random.Generator, dtype: Any) -> list[list[Array | None]]:
        """Fresh weights of each scan, in the order of `cell.weights`."""
        return [
            initializers.weights(rng, self._cell, config, self._init, dtype)
            for config in self._configs.values()
        ]

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        return self._named(self._draw_scans(rng, self.dtype))

    # Read-only, for the kernels go by them.

    @property
    def input_size(self) -> int:
        """I."""
        return self._first.config.input_size

    @property
    def hidden_size(self) -> int:
        """H."""
        return self._hidden_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the weights, and of all that is computed."""
        return self._first.dtype

    def parameters(self) -> dict[str, Array]:
        """The weights themselves, in torch's names, order, layouts and gate order.

        Change them in place; the next call sees it.
        """
        return self._named(weights.share() for weights in self._weights.values())

    def _named(self, of_scans: Iterable[Sequence[Array | None]]) -> dict[str, Array]:
        there = [array for arrays in of_scans for array in arrays if array is not None]
        return dict(zip(self._names, there, strict=True))

    def _expect_own(self, scans: Sequence[ScanTape]) -> None:
        """Refuse the tape of a layer that is unlike this one."""
        if [scan.kind for scan in scans] != [w.kind for w in self._weights.values()]:
            raise ValueError("tape: is from the forward of another layer")

    def __repr__(self) -> str:
        said = [str(self.input_size), str(self.hidden_size)]
        for name, usual in self._shown.items():
            value = getattr(self, name, usual)
            if value != usual:
                said.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(said)}{dtype_shown(self.dtype)})"


class Recurrent(CellLayer):
    """What RNN, LSTM and GRU have in common; not for direct use."""

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        return_sequences: bool,
        dtype: Any,
        seed: int | None,
        init: str,
        proj_size: int = 0,
        peephole: bool = False,
        layer_norm: bool = False,
    ) -> None:
        I = _checks.size(input_size, "input_size")
        H = _checks.size(hidden_size, "hidden_size")
        L = _checks.size(num_layers, "num_layers")
        dtype = _checks.dtype(dtype)
        least = len(cell.gates) * H * (I + L * (proj_size or H))
        _checks.memory(least, dtype, input_size=I, hidden_size=H, num_layers=L)
        directions = ("", "_reverse") if _checks.flag(bidirectional, "bidirectional") else ("",)
        inputs = {
            f"_l{layer}{direction}": len(directions) * (proj_size or H) if layer else I
            for layer in range(L)
            for direction in directions
        }
        self.batch_first = _checks.flag(batch_first, "batch_first")
        self.dropout = dropout
        self.return_sequences = _checks.flag(return_sequences, "return_sequences")
        self._rng = self._first_generator(seed)
        super().__init__(
            cell, inputs, H, bias, dtype, self._rng, init, proj_size, peephole, layer_norm
        )
        #: D, and the size of each state: P for h, H for c.
        self._directions = len(directions)
        self._sizes = cell.state_sizes(self._first.config)
        if self.dropout > 0 and L == 1:
            warnings.warn(
                f"dropout={self.dropout} has no effect: it stands between layers, and num_layers=1",
                stacklevel=3,
            )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self._weights) // self._directions

    @property
    def bidirectional(self) -> bool:
        """Whether each layer runs in both directions."""
        return "_l0_reverse" in self._weights

    @property
    def dropout(self) -> float:
        """Probability of an element to be zeroed between layers, in training."""
        return self._dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        self._dropout = _checks.probability(value, "dropout")

    @property
    def features_in(self) -> int:
        """I."""
        return self.input_size

    @property
    def features_out(self) -> int:
        """D*P."""
        return self._directions * self._sizes[0]

    @property
    def per_sequence(self) -> bool:
        """Whether y is the last step's output only."""
        return not self.return_sequences

    @property
    def has_state(self) -> bool:
        """True."""
        return True

    def _start(self, rng: np.random.Generator) -> None:
        self._rng = rng

    # The three ways to run: plain, for training, and step by step.

    def __call__(
        self, x: Any, state: Any = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Array, Any]:
        """Run the layer. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (T, B, I) array-like
            (B, T, I) with `batch_first`; (T, I) unbatched.
        state : (L*D, B, H) array-like, or for LSTM a pair ``(h, c)`` of them, optional
            Layer by layer, each layer's backward direction after its forward one. Default: zeros.
            (L*D, H) unbatched.
        lengths : (B,) array-like of int, optional
            How many of its steps each row has, 1 to T; the rest is padding, whose y is 0 and which
            costs no work. The final state is the one at a row's own end, where the backward
            direction starts. Default: T. A single number unbatched.
        reset : (T, B) array-like of bool, optional
            Where the state is zeroed before a step, in either direction's own order of steps.
            Default: nowhere. (T,) unbatched.

        Returns
        -------
        y : (T, B, D*H) array
            In the layout of `x`. Without `return_sequences` each row's last output, (B, D*H); that
            of the backward direction is the one for the first time step. With `proj_size`, P in
            place of H.
        state : as `state`
            The state after the last step.
        """
        y, state_n, _ = self._run(x, state, lengths, reset, False)
        return y, state_n

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        checkpoint_every: int | None = None,
    ) -> tuple[Array, Any, Tape]:
        """Run the layer as a plain call does, and keep what :meth:`backward` needs.

        In training mode with `dropout`: with elements dropped between layers.

        Parameters
        ----------
        x, state, lengths, reset
            As in a plain call.
        checkpoint_every : int, optional
            Keep, beside the layers' inputs, their states only every so many steps (or a few more,
            up to a multiple of 256 / B), and run the steps between again in :meth:`backward`, which
            gives the same bits. About a third more work for a sequence too long to keep all of; the
            square root of T is a good value (Chen et al. 2016). Default: keep all.

        Returns
        -------
        y, state
            As from a plain call.
        tape : Tape
            For :meth:`backward`, as often as wanted.
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
        batch_first = self.batch_first
        x = _checks.array(x, "x", self.dtype)
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.size:
            lead = ("T",) if x.ndim == 2 else ("B", "T") if batch_first else ("T", "B")
            _checks.expect_shape(x, "x", (*lead, self.input_size))
        T, B, _ = _time_first(x, batch_first).shape
        batch = (B,) if x.ndim == 3 else ()
        lengths = _checks.lengths(lengths, T, batch)
        reset = _checks.reset(reset, T, batch)
        return self._run_checked(x, batch_first, state, lengths, reset, keep, checkpoint_every)

    def _run_checked(
        self, x: Array, batch_first: bool, state: Any, lengths: Array | None, reset: Array | None,
        keep: bool, checkpoint_every: int | None = None,
    ) -> tuple[Array, Any, Tape | None]:  # fmt: skip
        steps = _time_first(x, batch_first)
        T, B, _ = steps.shape
        batch = (B,) if x.ndim == 3 else ()
        weights = list(self._weights.values())
        D, P = self._directions, self._sizes[0]
        y = np.empty((*x.shape[:-1], D * P), x.dtype) if self.return_sequences else None
        states, state_n = self._rows(state, "state", batch), self._new_rows(B)
        stack = stacks.forward(
            weights, steps, states, None if y is None else _time_first(y, batch_first), state_n,
            self._factors(T, B, drop=keep and self.training), keep, lengths, reset,
            checkpoint_every,
        )  # fmt: skip
        if y is None:
            # Each direction's last output is its final h.
            y = np.empty((*batch, D * P), self.dtype)
            for d in range(D):
                y[..., d * P : (d + 1) * P] = state_n[0][d - D]
        tape = None if stack is None else Tape(stack, x.shape, batch_first)
        return y, self._state(state_n, batch), tape

    def _factors(self, T: int, B: int, drop: bool) -> list[Array | None]:
        """What the output of each layer but the last is multiplied with; None for nothing."""
        factors: list[Array | None] = [None] * (self.num_layers - 1)
        if not drop or self.dropout == 0:
            return factors
        shape = T, B, self._directions * self._sizes[0]
        # A generator locks itself, so that threads may share the layer.
        return [drawn_factors(self._rng, self.dropout, shape, self.dtype) for _ in factors]

    @overload
    def backward(
        self, tape: Tape, dy: Any = ..., dstate: Any = ..., *, input_gradient: Literal[True] = ...
    ) -> tuple[Array, Any, dict[str, Array]]: ...

    @overload
    def backward(
        self, tape: Tape, dy: Any = ..., dstate: Any = ..., *, input_gradient: bool
    ) -> tuple[Array | None, Any, dict[str, Array]]: ...

    def backward(
        self, tape: Tape, dy: Any = None, dstate: Any = None, *, input_gradient: bool = True
    ) -> tuple[Array | None, Any, dict[str, Array]]:
        """Backpropagation through time (Werbos 1990).

        Parameters
        ----------
        tape : Tape
            From :meth:`forward` of this layer.
        dy : array-like, optional
            Gradient of the loss with respect to y, in its shape. Default: zeros.
        dstate : as `state`, optional
            Gradient with respect to the final state; either of a pair may be None. Default: zeros.
        input_gradient : bool
            Whether to compute dx, which a layer that stands first can do without. Default: True.

        Returns
        -------
        dx : array, or None without `input_gradient`
            Gradient with respect to x, in its shape.
        dstate : as `state`
            Gradient with respect to the initial state.
        grads : dict of str to array
            Gradients of the weights, by the names of :meth:`parameters`.
        """
        return self._backward(tape, dy, dstate, self.batch_first, input_gradient)

    def _backward(
        self, tape: Tape, dy: Any, dstate: Any, batch_first: bool, input_gradient: bool
    ) -> tuple[Array | None, Any, dict[str, Array]]:
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.batch_first != batch_first:
            raise ValueError(
                f"tape: is from the forward of another layer, with batch_first={tape.batch_first}"
            )
        self._expect_own(tape.stack.scans)
        _, B, _ = tape.stack.scans[0].shape
        batch = (B,) if len(tape.x_shape) == 3 else ()
        dh, *rest = self._rows(dstate, "dstate", batch)
        if dy is not None:
            D, P = self._directions, self._sizes[0]
            lead = tape.x_shape[:-1] if self.return_sequences else batch
            dy = _checks.shaped(dy, "dy", self.dtype, (*lead, D * P))
            if self.return_sequences:
                dy = _time_first(dy, batch_first)
            else:
                top = np.zeros((len(self._weights), B, P), self.dtype)
                for d in range(D):
                    top[d - D] = dy[..., d * P : (d + 1) * P]
                dh, dy = top if dh is None else dh + top, None
        wanted = _checks.flag(input_gradient, "input_gradient")
        dx = np.empty(tape.x_shape, self.dtype) if wanted else None
        dx_steps = None if dx is None else _time_first(dx, batch_first)
        dstate_0 = self._new_rows(B)
        grads = stacks.backward(tape.stack, dy, (dh, *rest), dx_steps, dstate_0)
        return dx, self._state(dstate_0, batch), self._named(grads)

    def _rows(self, state: Any, name: str, batch: tuple[int, ...]) -> Sequence[Array | None]:
        """The caller's state as one (L*D, B, P or H) each, None where None was given."""
        if state is None:
            return (None,) * len(self._cell.states)
        shapes = [(len(self._weights), *batch, n) for n in self._sizes]
        given = _checks.states(state, name, self._cell.states, self.dtype, shapes)
        return given if batch else [None if s is None else s[:, None] for s in given]

    def _new_rows(self, B: int) -> list[Array]:
        """Room for one state each."""
        scans, dtype = len(self._weights), self.dtype
        return [np.empty((scans, B, n), dtype) for n in self._sizes]

    def _state(self, rows: Sequence[Array], batch: tuple[int, ...]) -> Any:
        """One (L*D, B, H) each as the caller's state."""
        found = tuple(rows if batch else (s[:, 0] for s in rows))
        return found[0] if len(found) == 1 else found

    # As a part of a model: time-first.

    def apply(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any]:
        """Run for inference as a part of a model."""
        y, state_n, _ = self._run_checked(x, False, state, lengths, reset, keep=False)
        return y, state_n

    def apply_forward(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any, Tape]:
        """Run for training as a part of a model."""
        y, state_n, tape = self._run_checked(x, False, state, lengths, reset, keep=True)
        assert tape is not None
        return y, state_n, tape

    def apply_backward(
        self, tape: Any, dy: Array, *, for_update: bool = False, input_gradient: bool = True
    ) -> tuple[Array | None, dict[str, Any]]:
        """Backpropagate through an :meth:`apply_forward`."""
        dx, _, grads = self._backward(tape, dy, None, False, input_gradient)
        return dx, grads

    def stage(self, batch_size: int) -> Stream:
        """How the layer stands in a stream: as a stream of its own."""
        return self.stream(batch_size)

    def get_config(self) -> dict[str, Any]:
        """What to call the constructor with for such a layer, as JSON has it."""
        names = (
            "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
            "bidirectional", "return_sequences",
        )  # fmt: skip
        return {n: getattr(self, n) for n in names} | {"dtype": self.dtype.name}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """How many weights a file with a layer of this configuration holds at least."""
        I, H, L = (_checks.size(config[n], n) for n in ("input_size", "hidden_size", "num_layers"))
        P = _checks.size(config.get("proj_size", 0), "proj_size", 0) or H
        return H * (I + P) + (L - 1) * 2 * H * P

    def stream(self, batch_size: int = 1) -> Stream:
        """A state that is stepped one time step at a time; many can share this layer.

        Parameters
        ----------
        batch_size : int
            Rows stepped together.

        Raises
        ------
        ValueError
            If the layer is bidirectional.
        """
        rows = _checks.size(batch_size, "batch_size")
        _checks.memory(rows * self.hidden_size, self.dtype, batch_size=rows)
        if self.bidirectional:
            raise ValueError(
                "stream: expected a unidirectional layer, got a bidirectional one, whose backward "
                "direction starts at the end of the sequence"
            )
        return Stream(list(self._weights.values()), rows)


def _time_first(a: Array, batch_first: bool) -> Array:
    """The (T, B, ...) view of a sequence in the caller's layout."""
    if a.ndim == 2:
        return a[:, None]
    return a.swapaxes(0, 1) if batch_first else a


class RNN(Recurrent):
    """Elman network: h' = act(W_ih x + b_ih + W_hh h + b_hh) (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L, layers on top of each other.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    batch_first : bool
        Whether x and y are (B, T, ...) rather than (T, B, ...). States are not affected.
    dropout : float
        Probability, 0 to 1, of an element to be zeroed between one layer and the next, the others
        being scaled by 1/(1-dropout); only in :meth:`forward` of a layer in training mode.
    bidirectional : bool
        Whether each layer also runs from the last time step to the first, with weights of its own
        (Schuster and Paliwal 1997); the two outputs stand side by side in y.
    return_sequences : bool
        Whether y has every step's output, or only the last one's.
    dtype : float32 or float64
    seed : int, optional
        For the initial weights and for dropout. Default: fresh each time.
    init : {"uniform", "orthogonal", "identity"}
        Initial weights. "uniform": all in +-1/sqrt(H), as in torch. "orthogonal": recurrent weights
        orthogonal for each gate (Saxe et al. 2014), input weights uniform in +-sqrt(6/(I+H))
        (Glorot and Bengio 2010), biases 0. "identity", for RNN only: recurrent weights the
        identity, input weights N(0, 0.001^2), biases 0 (Le et al. 2015).

    Raises
    ------
    ValueError
        If a size, `nonlinearity`, `dropout`, `dtype`, `seed` or `init` is out of its range.
    TypeError
        If one is of another type.

    Warns
    -----
    UserWarning
        If there is dropout and no second layer.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        return_sequences: bool = True,
        dtype: Any = np.float32,
        seed: int | None = None,
        init: str = "uniform",
    ) -> None:
        self.nonlinearity = _checks.nonlinearity(nonlinearity)
        super().__init__(
            CELLS[f"rnn_{nonlinearity}"], input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, return_sequences, dtype, seed, init,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """What to call the constructor with for such a layer, as JSON has it."""
        return super().get_config() | {"nonlinearity": self.nonlinearity}


class LSTM(Recurrent):
    """Long short-term memory with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh), g = tanh(...), c' = f c + i g,
    h' = o tanh(c').

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As in :class:`RNN`.
    proj_size : int
        P: with it the output is projected to fewer units, h' = W_hr (o tanh(c')), `weight_hr` being
        (P, H), and h and y have P in place of H (Sak et al. 2014). Default: 0, none.
    peephole : bool
        Whether the gates see the cell state, each unit its own: i and f the old one by `weight_ci`
        and `weight_cf`, o the new one by `weight_co` (Gers et al. 2002).
    layer_norm : bool
        Whether to normalise both projections and the cell state (Ba et al. 2016, eq. 20 to 22):
        with LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5), mean and variance being over all units of
        one row at one step,

            (i, f, g, o) before sigmoid and tanh =
                gain_ih LN(W_ih x) + b_ih + gain_hh LN(W_hh h) + b_hh, over all four gates,
            c' = f c + i g, and h' = o tanh(gain_c LN(c') + bias_c).

        c' itself, the state, is not normalised. Gains are (4*H,), those of the cell state (H,);
        there is no `bias_c` without `bias`.
    return_sequences, dtype, seed, init
        As in :class:`RNN`.
    forget_bias : float, optional
        Initial bias of the forget gate, `bias_ih` and `bias_hh` together; 1 is recommended by
        Jozefowicz et al. (2015). Default: as `init` has it.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peephole: bool = False,
        layer_norm: bool = False,
        return_sequences: bool = True,
        dtype: Any = np.float32,
        seed: int | None = None,
        init: str = "uniform",
        forget_bias: float | None = None,
    ) -> None:
        if _checks.size(proj_size, "proj_size", 0) >= _checks.size(hidden_size, "hidden_size"):
            raise ValueError(
                f"proj_size: expected 0 or a size below hidden_size={hidden_size}, got {proj_size}"
            )
        self._forget_bias = None
        if forget_bias is not None:
            self._forget_bias = _checks.finite(forget_bias, "forget_bias")
            if not _checks.flag(bias, "bias"):
                raise ValueError(f"forget_bias: expected None without bias, got {forget_bias}")
        self.peephole = _checks.flag(peephole, "peephole")
        self.layer_norm = _checks.flag(layer_norm, "layer_norm")
        super().__init__(
            CELLS["lstm"], input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, return_sequences, dtype, seed, init, proj_size, self.peephole,
            self.layer_norm,
        )  # fmt: skip

    @property
    def proj_size(self) -> int:
        """P, or 0 where there is no projection."""
        return self._first.config.proj_size

    def _draw_scans(self, rng: np.random.Generator, dtype: Any) -> list[list[Array | None]]:
        scans = super()._draw_scans(rng, dtype)
        if self._forget_bias is not None:
            forget = slice(self._hidden_size, 2 * self._hidden_size)
            for drawn in scans:
                for name, value in (("bias_ih", self._forget_bias), ("bias_hh", 0)):
                    array = drawn[self._cell.weights.index(name)]
                    assert array is not None
                    array[forget] = value
        return scans

    def get_config(self) -> dict[str, Any]:
        """What to call the constructor with for such a layer, as JSON has it."""
        own = {n: getattr(self, n) for n in ("proj_size", "peephole", "layer_norm")}
        return super().get_config() | own


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al. 2014).

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); h' = (1 - z) n + z h; the candidate n is
    tanh(W_in x + b_in + r (W_hn h + b_hn)) with `reset_after` (torch, cuDNN, Keras), and
    tanh(W_in x + b_in + W_hn (r h) + b_hn) without (Cho et al. 2014, eq. 8; ONNX's default).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As in :class:`RNN`.
    reset_after : bool
        Whether the reset gate works on the recurrent product or on the state before it.
    layer_norm : bool
        Whether to normalise both projections (Ba et al. 2016, eq. 29 to 31), with LN as in
        :class:`LSTM`, and the gains `gain_ih` and `gain_hh`, (3*H,):

            (r, z) = sigmoid(gain LN(W_ih x) + b_ih + gain LN(W_hh h) + b_hh), over both gates,
            n = tanh(gain LN(W_in x) + b_in + r (gain LN(W_hn h) + b_hn)), over n alone;

        without `reset_after` gain LN(W_hn (r h)) + b_hn is added instead.
    return_sequences, dtype, seed, init
        As in :class:`RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reset_after: bool = True,
        layer_norm: bool = False,
        return_sequences: bool = True,
        dtype: Any = np.float32,
        seed: int | None = None,
        init: str = "uniform",
    ) -> None:
        self.reset_after = _checks.flag(reset_after, "reset_after")
        self.layer_norm = _checks.flag(layer_norm, "layer_norm")
        super().__init__(
            CELLS["gru" if reset_after else "gru_reset_before"], input_size, hidden_size,
            num_layers, bias, batch_first, dropout, bidirectional, return_sequences, dtype, seed,
            init, layer_norm=self.layer_norm,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """What to call the constructor with for such a layer, as JSON has it."""
        own = {"reset_after": self.reset_after, "layer_norm": self.layer_norm}
        return super().get_config() | own
