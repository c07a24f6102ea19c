"""Forward and backpropagation through time on plain arrays: one layer, one direction.

T time steps, B batch, I input size, H hidden size. The dtype is that of x and the weights: float32
or float64, and float64 if both occur. Other dtypes follow NumPy's promotion: float16 becomes
float32, int64 and longdouble become float64. States and gradients are converted to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._core import scan
from fastrnn._core.scan import ScanTape
from fastrnn._kernels.cells import CELLS, WEIGHTS, Cell, CellConfig
from fastrnn._kernels.weights import Weights
from fastrnn._types import Array, ArrayLike, PairLike
from fastrnn.layouts import pack_lstm as pack_lstm
from fastrnn.layouts import pack_rnn as pack_rnn
from fastrnn.layouts import unpack_lstm as unpack_lstm
from fastrnn.layouts import unpack_rnn as unpack_rnn

__all__ = [
    "gru",
    "gru_backward",
    "lstm",
    "lstm_backward",
    "pack_lstm",
    "pack_rnn",
    "rnn",
    "rnn_backward",
    "unpack_lstm",
    "unpack_rnn",
]


def rnn(
    x: ArrayLike,
    h0: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> tuple[Array, Array, ScanTape]:
    """Run an Elman network: h' = act(W_ih x + b_ih + W_hh h + b_hh) (Elman 1990).

    Parameters
    ----------
    x : (T, B, I) array-like
    h0 : (B, H) array-like or None
        The initial state; None stands for zeros.
    weight_ih : (H, I) array-like
    weight_hh : (H, H) array-like
    bias_ih, bias_hh : (H,) array-like, optional
        Default: none.
    nonlinearity : {"tanh", "relu"}
    lengths : (B,) array-like of int, optional
        Where each row ends, 1 to T; y is 0 from there on. Default: T.
    reset : (T, B) array-like of bool, optional
        Where the state is zeroed before a step. Default: nowhere.

    Returns
    -------
    y : (T, B, H) array
        Every step's output.
    h_n : (B, H) array
        The state after the last step.
    tape : ScanTape
        For :func:`rnn_backward`, any number of times. It holds copies: later changes to the
        arrays do not change the gradients.

    Raises
    ------
    ValueError
        If a shape does not fit the others, or there is no such nonlinearity.
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> rng = np.random.default_rng(0)
    >>> weights = {"weight_ih": rng.normal(size=(5, 3)), "weight_hh": rng.normal(size=(5, 5))}
    >>> x, h0 = rng.normal(size=(7, 2, 3)), np.zeros((2, 5))
    >>> y, h_n, tape = F.rnn(x, h0, **weights)
    >>> dx, dh0, grads = F.rnn_backward(tape, dy=2 * y)  # of the loss sum(y**2)
    >>> y.shape, h_n.shape, grads["weight_hh"].shape
    ((7, 2, 5), (2, 5), (5, 5))
    """
    cell = CELLS[f"rnn_{_checks.nonlinearity(nonlinearity)}"]
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    y, (h_n,), tape = _forward(cell, x, "h0", h0, weights, lengths, reset)
    return y, h_n, tape


def rnn_backward(
    tape: ScanTape, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> tuple[Array, Array, dict[str, Array]]:
    """Backpropagate through time (Werbos 1990) through :func:`rnn`.

    Parameters
    ----------
    tape : ScanTape
        From :func:`rnn`.
    dy : (T, B, H) array-like, optional
        Gradient of the loss with respect to y. Default: zeros.
    dh_n : (B, H) array-like, optional
        Gradient with respect to h_n. Default: zeros.

    Returns
    -------
    dx : (T, B, I) array
        Gradient with respect to x.
    dh0 : (B, H) array
        Gradient with respect to h0.
    grads : dict of str to array
        Gradients with respect to the weights that were passed, by argument name.

    Raises
    ------
    ValueError
        If the tape is from another function, or a shape does not fit.
    TypeError
        If an argument does not hold real numbers, or `tape` is not a tape.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> W, R = np.full((2, 1), 0.5), np.eye(2)
    >>> y, h_n, tape = F.rnn(np.ones((3, 1, 1)), None, W, R)
    >>> dx, dh0, grads = F.rnn_backward(tape, dh_n=np.ones((1, 2)))  # of the loss sum(h_n)
    >>> dh0.shape, sorted(grads)
    ((1, 2), ['weight_hh', 'weight_ih'])
    """
    dx, (dh0,), grads = _backward(("rnn_tanh", "rnn_relu"), tape, dy, "dh_n", dh_n)
    return dx, dh0, grads


def lstm(
    x: ArrayLike,
    state: PairLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> tuple[Array, tuple[Array, Array], ScanTape]:
    """Run an LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh), g = tanh(...), c' = f c + i g,
    h' = o tanh(c').

    Parameters
    ----------
    x : (T, B, I) array-like
    state : (h0, c0), each (B, H) array-like or None, or None
        The initial state; None stands for zeros.
    weight_ih : (4*H, I) array-like
        Gates in the order i, f, g, o.
    weight_hh : (4*H, H) array-like
    bias_ih, bias_hh : (4*H,) array-like, optional
    lengths, reset
        As in :func:`rnn`.

    Returns
    -------
    y : (T, B, H) array
        Every step's h.
    state : (h_n, c_n), each (B, H) array
        The state after the last step.
    tape : ScanTape
        For :func:`lstm_backward`.

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn` does.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(7, 2, 3))
    >>> y, (h_n, c_n), tape = F.lstm(x, None, rng.normal(size=(20, 3)), rng.normal(size=(20, 5)))
    >>> dx, (dh0, dc0), grads = F.lstm_backward(tape, dstate=(np.ones_like(h_n), None))
    >>> y.shape, grads["weight_ih"].shape
    ((7, 2, 5), (20, 3))
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _forward(CELLS["lstm"], x, "state", state, weights, lengths, reset)


def lstm_backward(
    tape: ScanTape, dy: ArrayLike | None = None, dstate: PairLike | None = None
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """Backpropagate through time through :func:`lstm`.

    Parameters
    ----------
    tape : ScanTape
        From :func:`lstm`.
    dy : (T, B, H) array-like, optional
        Gradient of the loss with respect to y. Default: zeros.
    dstate : (dh_n, dc_n), each (B, H) array-like or None, optional
        Gradient with respect to the final state. Default: zeros.

    Returns
    -------
    dx : (T, B, I) array
    dstate : (dh0, dc0), each (B, H) array
        Gradient with respect to the initial state.
    grads : dict of str to array
        Gradients with respect to the weights that were passed, by argument name.

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn_backward` does.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> W, R = np.full((8, 1), 0.5), np.zeros((8, 2))
    >>> y, (h_n, c_n), tape = F.lstm(np.ones((3, 1, 1)), None, W, R)
    >>> dx, (dh0, dc0), grads = F.lstm_backward(tape, dy=2 * y)  # of the loss sum(y**2)
    >>> dx.shape, dc0.shape, grads["weight_hh"].shape
    ((3, 1, 1), (1, 2), (8, 2))
    """
    return _backward(("lstm",), tape, dy, "dstate", dstate)


def gru(
    x: ArrayLike,
    h0: ArrayLike | None,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: ArrayLike | None = None,
    bias_hh: ArrayLike | None = None,
    *,
    reset_after: bool = True,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
) -> tuple[Array, Array, ScanTape]:
    """Run a gated recurrent unit (Cho et al. 2014).

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); h' = (1 - z) n + z h; the candidate n is
    tanh(W_in x + b_in + r (W_hn h + b_hn)) with `reset_after` (torch, cuDNN, Keras), and
    tanh(W_in x + b_in + W_hn (r h) + b_hn) without (Cho et al. 2014, eq. 8; ONNX's default).

    Parameters
    ----------
    x : (T, B, I) array-like
    h0 : (B, H) array-like or None
        The initial state; None stands for zeros.
    weight_ih : (3*H, I) array-like
        Gates in the order r, z, n.
    weight_hh : (3*H, H) array-like
    bias_ih, bias_hh : (3*H,) array-like, optional
    reset_after : bool
        Whether the reset gate is applied after the recurrent product rather than before it.
    lengths, reset
        As in :func:`rnn`.

    Returns
    -------
    y : (T, B, H) array
        Every step's output.
    h_n : (B, H) array
        The state after the last step.
    tape : ScanTape
        For :func:`gru_backward`.

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn` does.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(7, 2, 3))
    >>> y, h_n, tape = F.gru(x, None, rng.normal(size=(15, 3)), rng.normal(size=(15, 5)))
    >>> dx, dh0, grads = F.gru_backward(tape, dy=np.ones_like(y))
    >>> y.shape, grads["weight_ih"].shape
    ((7, 2, 5), (15, 3))
    """
    cell = CELLS["gru" if _checks.flag(reset_after, "reset_after") else "gru_reset_before"]
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    y, (h_n,), tape = _forward(cell, x, "h0", h0, weights, lengths, reset)
    return y, h_n, tape


def gru_backward(
    tape: ScanTape, dy: ArrayLike | None = None, dh_n: ArrayLike | None = None
) -> tuple[Array, Array, dict[str, Array]]:
    """Backpropagate through time through :func:`gru`.

    Parameters
    ----------
    tape : ScanTape
        From :func:`gru`.
    dy, dh_n : array-like, optional
        As in :func:`rnn_backward`.

    Returns
    -------
    dx, dh0, grads
        As of :func:`rnn_backward`.

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn_backward` does.

    Examples
    --------
    >>> from fastrnn import functional as F
    >>> W, R = np.full((6, 1), 0.5), np.zeros((6, 2))
    >>> y, h_n, tape = F.gru(np.ones((3, 1, 1)), None, W, R)
    >>> dx, dh0, grads = F.gru_backward(tape, dh_n=np.ones_like(h_n))
    >>> dx.shape, dh0.shape
    ((3, 1, 1), (1, 2))
    """
    dx, (dh0,), grads = _backward(("gru", "gru_reset_before"), tape, dy, "dh_n", dh_n)
    return dx, dh0, grads


def _forward(
    cell: Cell,
    x: Any,
    state_name: str,
    state: Any,
    weights: Sequence[Any],
    lengths: Any,
    reset: Any,
) -> tuple[Array, Any, ScanTape]:
    given = {"x": x, **dict(zip(WEIGHTS, weights, strict=True))}
    given = {n: a for n, a in given.items() if a is not None or not n.startswith("bias")}
    _pins = _checks.pinned(*given.values())
    promoted = np.result_type(np.float32, *(_checks.numeric(a, n) for n, a in given.items()))
    dtype = np.dtype(np.float32 if promoted == np.float32 else np.float64)
    x = _checks.shaped(x, "x", dtype, ("T", "B", "I"))
    T, B, I = x.shape
    H = int(_checks.shaped(given["weight_hh"], "weight_hh", dtype, ("G*H", "H")).shape[1])
    config = CellConfig(
        input_size=I, hidden_size=H, bias=any(name.startswith("bias") for name in given)
    )
    shapes = cell.weight_shapes(config)
    arrays = [
        np.ascontiguousarray(_checks.shaped(given[n], n, dtype, shapes[n])) if n in given else None
        for n in WEIGHTS
    ]
    states = _checks.states(state, state_name, cell.states, dtype, [(B, H)] * len(cell.states))
    y = np.empty((T, B, H), dtype)
    state_n = tuple(np.empty((B, H), dtype) for _ in cell.states)
    tape = scan.forward(
        Weights(cell, config, arrays),
        x,
        states,
        y,
        state_n,
        keep=True,
        lengths=_checks.lengths(lengths, T, (B,)),
        reset=_checks.reset(reset, T, (B,)),
    )
    assert tape is not None
    return y, state_n, tape


def _backward(
    cells: Sequence[str], tape: ScanTape, dy: Any, dstate_name: str, dstate: Any
) -> tuple[Array, Any, dict[str, Array]]:
    if not isinstance(tape, ScanTape):
        raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
    if tape.cell.name not in cells:
        raise ValueError(f"tape: expected one of {' or '.join(cells)}, got one of {tape.cell.name}")
    cell, config, dtype = tape.kind
    (T, B, _), H = tape.shape, config.hidden_size
    if dy is not None:
        dy = _checks.shaped(dy, "dy", dtype, (T, B, H))
    dstate_n = _checks.states(dstate, dstate_name, cell.states, dtype, [(B, H)] * len(cell.states))
    dx = np.empty(tape.shape, dtype)
    dstate_0 = tuple(np.empty((B, H), dtype) for _ in cell.states)
    grads = scan.backward(tape, kind=tape.kind, dy=dy, dstate_n=dstate_n, dx=dx, dstate=dstate_0)
    return dx, dstate_0, {n: g for n, g in zip(cell.weights, grads, strict=True) if g is not None}
