"""RNN, LSTM and GRU with the names, arguments, shapes and weights of ``torch.nn``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastrnn import _checks, _scan
from fastrnn._cells import CELLS, WEIGHTS, Cell
from fastrnn._weights import Weights
from fastrnn.layers.base import Array, Layer, dtype_shown
from fastrnn.layers.stream import Stream


@dataclass(frozen=True, slots=True, repr=False)
class Tape:
    """What a layer's ``backward`` needs of its ``forward``. Opaque; belongs to the caller.

    It holds copies: changing x, y, the state or the weights later does not change the gradients.
    """

    scan: _scan.ScanTape
    x_shape: tuple[int, ...]


def not_yet(name: str, value: Any, only: Any) -> None:
    """Refuse an option that is still to come."""
    if value != only:
        raise NotImplementedError(f"{name}={value!r} is not supported yet, only {only!r}")


class Recurrent(Layer):
    """What RNN, LSTM and GRU have in common; not for direct use."""

    #: Options that ``repr`` shows when they differ from this, in torch's order.
    _shown: ClassVar[dict[str, Any]] = {
        "nonlinearity": "tanh",
        "bias": True,
        "batch_first": False,
        "reset_after": True,
        "return_sequences": True,
    }

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
    ) -> None:
        not_yet("num_layers", num_layers, 1)
        not_yet("dropout", dropout, 0)
        not_yet("bidirectional", bidirectional, False)
        I = _checks.size(input_size, "input_size")
        H = _checks.size(hidden_size, "hidden_size")
        rng = np.random.default_rng(_checks.seed(seed))
        self.num_layers = num_layers
        self.bias = bool(bias)
        self.batch_first = bool(batch_first)
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.return_sequences = bool(return_sequences)
        self._cell = cell
        # Uniform in +-1/sqrt(H), as in torch.
        initial = [
            rng.uniform(-(H**-0.5), H**-0.5, shape).astype(_checks.dtype(dtype))
            if bias or not name.startswith("bias")
            else None
            for name, shape in cell.weight_shapes(I, H).items()
        ]
        self._weights = Weights(cell, initial)

    # Read-only, for the kernels go by them.

    @property
    def input_size(self) -> int:
        """I."""
        shape = self._weights.shapes[0]
        assert shape is not None
        return int(shape[1])

    @property
    def hidden_size(self) -> int:
        """H."""
        shape = self._weights.shapes[1]
        assert shape is not None
        return int(shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the weights, and of all that is computed."""
        return self._weights.dtype

    def parameters(self) -> dict[str, Array]:
        """The weights themselves, in torch's names, layouts and gate order.

        Change them in place; the next call sees it.
        """
        return self._named(self._weights.share())

    @staticmethod
    def _named(arrays: Sequence[Array | None]) -> dict[str, Array]:
        return {f"{n}_l0": a for n, a in zip(WEIGHTS, arrays, strict=True) if a is not None}

    # The three ways to run: plain, for training, and step by step.

    def __call__(
        self, x: Any, state: Any = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Array, Any]:
        """Run the layer. Keeps nothing, and may be called from many threads at once.

        Parameters
        ----------
        x : (T, B, I) array-like
            (B, T, I) with `batch_first`; (T, I) unbatched.
        state : (1, B, H) array-like, or for LSTM a pair ``(h, c)`` of them, optional
            Default: zeros. (1, H) unbatched.
        lengths, reset
            Not supported yet.

        Returns
        -------
        y : (T, B, H) array
            In the layout of `x`. Without `return_sequences` the last step's output, (B, H).
        state : as `state`
            The state after the last step.
        """
        y, state_n, _ = self._run(x, state, lengths, reset, keep=False)
        return y, state_n

    def forward(
        self, x: Any, state: Any = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Array, Any, Tape]:
        """Run the layer as a plain call does, and keep what :meth:`backward` needs.

        Returns
        -------
        y, state
            As from a plain call.
        tape : Tape
            For :meth:`backward`, as often as wanted.
        """
        y, state_n, tape = self._run(x, state, lengths, reset, keep=True)
        assert tape is not None
        return y, state_n, tape

    def _run(
        self, x: Any, state: Any, lengths: Any, reset: Any, keep: bool
    ) -> tuple[Array, Any, Tape | None]:
        _checks.not_yet(lengths=lengths, reset=reset)
        x = _checks.array(x, "x", self.dtype)
        lead = ("T",) if x.ndim == 2 else ("B", "T") if self.batch_first else ("T", "B")
        _checks.expect_shape(x, "x", (*lead, self.input_size))
        y = np.empty((*x.shape[:-1], self.hidden_size), self.dtype)
        y_steps = self._steps(y)
        batch = y_steps[0].shape[:-1] if x.ndim == 3 else ()
        zeros = np.zeros(y_steps.shape[1:], self.dtype)
        states = [zeros if s is None else s for s in self._rows(state, "state", batch)]
        state_n, scan = _scan.forward(self._weights, self._steps(x), states, y_steps, keep)
        if not self.return_sequences:
            y = y_steps[-1].reshape(*batch, self.hidden_size).copy()
        return y, self._state(state_n, batch), None if scan is None else Tape(scan, x.shape)

    def backward(
        self, tape: Tape, dy: Any = None, dstate: Any = None
    ) -> tuple[Array, Any, dict[str, Array]]:
        """Backpropagation through time (Werbos 1990).

        Parameters
        ----------
        tape : Tape
            From :meth:`forward` of this layer.
        dy : array-like, optional
            Gradient of the loss with respect to y, in its shape. Default: zeros.
        dstate : as `state`, optional
            Gradient with respect to the final state; either of a pair may be None. Default: zeros.

        Returns
        -------
        dx : array
            Gradient with respect to x, in its shape.
        dstate : as `state`
            Gradient with respect to the initial state.
        grads : dict of str to array
            Gradients of the weights, by the names of :meth:`parameters`.
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        dx = np.empty(tape.x_shape, self.dtype)
        dx_steps = self._steps(dx)
        scan = tape.scan
        made = (scan.cell, scan.weights, scan.dtype, scan.shape)
        if made != (self._cell, self._weights.shapes, self.dtype, dx_steps.shape):
            raise ValueError("tape: is from the forward of another layer")
        batch = dx_steps[0].shape[:-1] if dx.ndim == 3 else ()
        dh, *rest = self._rows(dstate, "dstate", batch)
        if dy is not None:
            lead = dx.shape[:-1] if self.return_sequences else batch
            dy = _checks.shaped(dy, "dy", self.dtype, (*lead, self.hidden_size))
            if self.return_sequences:
                dy = self._steps(dy)
            else:
                last = dy.reshape(-1, self.hidden_size)
                dh, dy = last if dh is None else dh + last, None
        dstate_0, grads = _scan.backward(scan, dy, (dh, *rest), dx_steps)
        return dx, self._state(dstate_0, batch), self._named(grads)

    def _steps(self, a: Array) -> Array:
        """The (T, B, ...) view of a sequence in the caller's layout."""
        if a.ndim == 2:
            return a[:, None]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _rows(self, state: Any, name: str, batch: tuple[int, ...]) -> list[Array | None]:
        """The caller's state as one (B, H) each, None where None was given."""
        shape = (1, *batch, self.hidden_size)
        given = _checks.states(state, name, self._cell.states, self.dtype, shape)
        return [None if s is None else s.reshape(-1, self.hidden_size) for s in given]

    def _state(self, rows: tuple[Array, ...], batch: tuple[int, ...]) -> Any:
        """One (B, H) each as the caller's state."""
        found = tuple(s.reshape(1, *batch, self.hidden_size) for s in rows)
        return found[0] if len(found) == 1 else found

    def stream(self, batch_size: int = 1) -> Stream:
        """A state that is stepped one time step at a time; many can share this layer.

        Parameters
        ----------
        batch_size : int
            Rows stepped together.
        """
        rows = _checks.size(batch_size, "batch_size")
        return Stream(self._weights, self.input_size, self.hidden_size, rows)

    def __repr__(self) -> str:
        said = [str(self.input_size), str(self.hidden_size)]
        for name, usual in self._shown.items():
            value = getattr(self, name, usual)
            if value != usual:
                said.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(said)}{dtype_shown(self.dtype)})"


class RNN(Recurrent):
    """Elman network: h' = act(W_ih x + b_ih + W_hh h + b_hh) (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Only 1 so far.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    batch_first : bool
        Whether x and y are (B, T, ...) rather than (T, B, ...). States are not affected.
    dropout : float
        Only 0 so far.
    bidirectional : bool
        Only False so far.
    return_sequences : bool
        Whether y has every step's output, or only the last one's.
    dtype : float32 or float64
    seed : int, optional
        For the initial weights, which are uniform in +-1/sqrt(H). Default: fresh each time.
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
    ) -> None:
        self.nonlinearity = _checks.nonlinearity(nonlinearity)
        super().__init__(
            CELLS[f"rnn_{nonlinearity}"], input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, return_sequences, dtype, seed,
        )  # fmt: skip


class LSTM(Recurrent):
    """Long short-term memory with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh), g = tanh(...), c' = f c + i g,
    h' = o tanh(c').

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As in :class:`RNN`.
    proj_size : int
        Only 0 so far.
    peephole : bool
        Only False so far.
    return_sequences, dtype, seed
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
        proj_size: int = 0,
        *,
        peephole: bool = False,
        return_sequences: bool = True,
        dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        not_yet("proj_size", proj_size, 0)
        not_yet("peephole", peephole, False)
        super().__init__(
            CELLS["lstm"], input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, return_sequences, dtype, seed,
        )  # fmt: skip


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
    return_sequences, dtype, seed
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
        return_sequences: bool = True,
        dtype: Any = np.float32,
        seed: int | None = None,
    ) -> None:
        self.reset_after = bool(reset_after)
        super().__init__(
            CELLS["gru" if reset_after else "gru_reset_before"], input_size, hidden_size,
            num_layers, bias, batch_first, dropout, bidirectional, return_sequences, dtype, seed,
        )  # fmt: skip
