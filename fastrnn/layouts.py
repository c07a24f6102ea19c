"""Conversions between weights as tutorials write them and those of :mod:`fastrnn.functional`.

Two conventions are common: "columns", ``W @ x`` with column vectors and weights (H, I), and "rows",
``x @ W`` with row vectors and weights (I, H). One call converts either; its inverse gives gradients
the tutorial's shapes, so that its update code works unchanged::

    weights = pack_rnn(W_xh, W_hh, b_h)
    y, h_n, tape = rnn(x, h0, **weights)
    dx, dh0, grads = rnn_backward(tape, dy)
    dW_xh, dW_hh, db_h = unpack_rnn(grads)

`pack_onnx` and `unpack_onnx` do so for weights of ONNX's operators RNN, LSTM and GRU, `pack_keras`
and `unpack_keras` for those of Keras's layers SimpleRNN, LSTM and GRU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array, ArrayLike

__all__ = [
    "pack_keras",
    "pack_lstm",
    "pack_onnx",
    "pack_rnn",
    "unpack_keras",
    "unpack_lstm",
    "unpack_onnx",
    "unpack_rnn",
]

_LAYOUTS = ("columns", "rows")

#: Where the gates of each operator of ONNX stand among ours, which are torch's: ONNX has i, o, f, c
#: for i, f, g, o, and z, r, h for r, z, n.
_ONNX_GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
#: ONNX's P has the peepholes of i, o and f.
_ONNX_PEEPHOLES = ("weight_ci", "weight_co", "weight_cf")
#: Likewise of each layer of Keras, which has i, f, c, o and z, r, h. Each order is its own inverse.
_KERAS_GATES = {"SimpleRNN": (0,), "LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}


def pack_rnn(
    W_xh: ArrayLike, W_hh: ArrayLike, b_h: ArrayLike | None = None, *, layout: str = "columns"
) -> dict[str, Array]:
    """Convert weights of an Elman network for :func:`fastrnn.functional.rnn`.

    ``h' = tanh(W_xh @ x + W_hh @ h + b_h)``.

    Parameters
    ----------
    W_xh : (H, I) array-like, or (I, H) in rows
    W_hh : (H, H) array-like
    b_h : (H,) array-like, optional
        (H, 1) and (1, H) are accepted too. Default: none.
    layout : {"columns", "rows"}
        "rows" for ``h' = tanh(x @ W_xh + h @ W_hh + b_h)``.

    Returns
    -------
    dict of str to array
        Copies, by argument name: ``weight_ih``, ``weight_hh`` and, with a bias, ``bias_ih``. There
        is no ``bias_hh``, as the formula has only one bias.

    Raises
    ------
    ValueError
        If a shape does not fit the others, or `layout` is not one of these.
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    >>> from fastrnn.functional import rnn, rnn_backward
    >>> rng = np.random.default_rng(0)
    >>> W_xh, W_hh, b_h = rng.normal(size=(5, 3)), rng.normal(size=(5, 5)), np.zeros((5, 1))
    >>> y, h_n, tape = rnn(np.ones((7, 2, 3)), None, **fastrnn.layouts.pack_rnn(W_xh, W_hh, b_h))
    >>> dx, dh0, grads = rnn_backward(tape, dy=np.ones_like(y))
    >>> dW_xh, dW_hh, db_h = fastrnn.layouts.unpack_rnn(grads, keepdims=True)
    >>> dW_xh.shape, dW_hh.shape, db_h.shape
    ((5, 3), (5, 5), (5, 1))
    """
    weight_hh = _columns(W_hh, "W_hh", layout)
    H = len(weight_hh)
    _checks.expect_shape(weight_hh, "W_hh", (H, H))
    weight_ih = _columns(W_xh, "W_xh", layout)
    if len(weight_ih) != H:
        wanted = (H, "I") if layout == "columns" else ("I", H)
        _checks.expect_shape(np.asarray(W_xh), "W_xh", wanted)
    weights = {"weight_ih": weight_ih, "weight_hh": weight_hh}
    return weights if b_h is None else weights | {"bias_ih": _bias(b_h, "b_h", H)}


def unpack_rnn(
    grads: Mapping[str, ArrayLike], *, layout: str = "columns", keepdims: bool = False
) -> tuple[Array, ...]:
    """Undo :func:`pack_rnn`, for gradients or weights.

    Parameters
    ----------
    grads : mapping of str to array-like
        ``weight_ih``, ``weight_hh`` and, if there is a bias, ``bias_ih``.
    layout : {"columns", "rows"}
    keepdims : bool
        Whether a bias is a matrix: (H, 1) in columns, (1, H) in rows. Default: (H,).

    Returns
    -------
    W_xh : (H, I) array, or (I, H) in rows
    W_hh : (H, H) array
    b_h : (H,), (H, 1) or (1, H) array
        If there is a bias.

    Raises
    ------
    ValueError
        If a name is missing or unexpected, a shape does not fit the others, or `layout` is
        not one of these.
    TypeError
        If `grads` is not a mapping of arrays of real numbers.

    Examples
    --------
    >>> weights = fastrnn.layouts.pack_rnn(np.ones((2, 3)), np.eye(2), [5.0, 6.0])
    >>> W_xh, W_hh, b_h = fastrnn.layouts.unpack_rnn(weights, layout="rows", keepdims=True)
    >>> W_xh.shape, b_h
    ((3, 2), array([[5., 6.]]))
    """
    weight_ih, weight_hh, bias = _unpacked(grads, gates=1)
    matrices = [_laid_out(weight_ih, layout), _laid_out(weight_hh, layout)]
    return tuple(matrices if bias is None else [*matrices, _bias_laid_out(bias, layout, keepdims)])


def pack_lstm(
    W_f: ArrayLike,
    W_i: ArrayLike,
    W_C: ArrayLike,
    W_o: ArrayLike,
    b_f: ArrayLike | None = None,
    b_i: ArrayLike | None = None,
    b_C: ArrayLike | None = None,
    b_o: ArrayLike | None = None,
    *,
    layout: str = "columns",
) -> dict[str, Array]:
    """Convert weights of an LSTM over [h, x], a concatenation, for :func:`fastrnn.functional.lstm`.

    f, i, o = sigmoid(W_f @ [h, x] + b_f), ..., C' = f * C + i * tanh(W_C @ [h, x] + b_C),
    h' = o * tanh(C'), with h above x in the concatenation.

    Parameters
    ----------
    W_f, W_i, W_C, W_o : (H, H+I) array-like, or (H+I, H) in rows
    b_f, b_i, b_C, b_o : (H,) array-like, optional
        (H, 1) and (1, H) are accepted too. All four or none. Default: none.
    layout : {"columns", "rows"}
        "rows" for ``[h, x] @ W_f + b_f``, with h to the left of x.

    Returns
    -------
    dict of str to array
        ``weight_ih`` (4*H, I), ``weight_hh`` (4*H, H) and, with biases, ``bias_ih`` (4*H,): copies,
        with the gates in the order i, f, g, o.

    Raises
    ------
    ValueError, TypeError
        As :func:`pack_rnn` does.

    Examples
    --------
    >>> W_f, W_i, W_C, W_o = np.random.default_rng(0).normal(size=(4, 5, 8))  # over [h, x]
    >>> weights = fastrnn.layouts.pack_lstm(W_f, W_i, W_C, W_o)
    >>> {name: w.shape for name, w in weights.items()}
    {'weight_ih': (20, 3), 'weight_hh': (20, 5)}
    >>> np.array_equal(fastrnn.layouts.unpack_lstm(weights)[0], W_f)
    True
    """
    given = {"W_f": W_f, "W_i": W_i, "W_C": W_C, "W_o": W_o}
    gates = {name: _columns(value, name, layout) for name, value in given.items()}
    H, width = gates["W_f"].shape
    if width <= H:
        wanted = "(H, H+I)" if layout == "columns" else "(H+I, H)"
        raise ValueError(
            f"W_f: expected shape {wanted} with I >= 1, "
            f"got {_checks.shape_text(np.shape(W_f))} in {layout}"
        )
    for name, value in given.items():
        _checks.expect_shape(np.asarray(value), name, np.shape(W_f))
    stacked = np.concatenate([gates[f"W_{gate}"] for gate in "ifCo"])
    weights = {
        "weight_ih": np.ascontiguousarray(stacked[:, H:]),
        "weight_hh": np.ascontiguousarray(stacked[:, :H]),
    }
    biases = {"b_i": b_i, "b_f": b_f, "b_C": b_C, "b_o": b_o}
    missing = [name for name, value in biases.items() if value is None]
    if len(missing) == len(biases):
        return weights
    if missing:
        raise ValueError(f"{', '.join(missing)}: expected all four biases or none, got None")
    rows = [_bias(value, name, H) for name, value in biases.items()]
    return weights | {"bias_ih": np.concatenate(rows)}


def unpack_lstm(
    grads: Mapping[str, ArrayLike], *, layout: str = "columns", keepdims: bool = False
) -> tuple[Array, ...]:
    """Undo :func:`pack_lstm`, for gradients or weights.

    Parameters
    ----------
    grads : mapping of str to array-like
        ``weight_ih``, ``weight_hh`` and, if there are biases, ``bias_ih``.
    layout : {"columns", "rows"}
    keepdims : bool
        Whether a bias is a matrix: (H, 1) in columns, (1, H) in rows. Default: (H,).

    Returns
    -------
    W_f, W_i, W_C, W_o : (H, H+I) array, or (H+I, H) in rows
    b_f, b_i, b_C, b_o : (H,), (H, 1) or (1, H) array
        If there are biases.

    Raises
    ------
    ValueError, TypeError
        As :func:`unpack_rnn` does.

    Examples
    --------
    >>> weights = {"weight_ih": np.ones((8, 3)), "weight_hh": np.zeros((8, 2))}
    >>> W_f, W_i, W_C, W_o = fastrnn.layouts.unpack_lstm(weights)
    >>> W_f  # over [h, x]
    array([[0., 0., 1., 1., 1.],
           [0., 0., 1., 1., 1.]])
    """
    weight_ih, weight_hh, bias = _unpacked(grads, gates=4)
    i, f, C, o = np.split(np.concatenate([weight_hh, weight_ih], axis=1), 4)
    arrays = [_laid_out(gate, layout) for gate in (f, i, C, o)]
    if bias is not None:
        i, f, C, o = np.split(bias, 4)
        arrays += [_bias_laid_out(gate, layout, keepdims) for gate in (f, i, C, o)]
    return tuple(arrays)


def pack_onnx(
    operator: str,
    W: ArrayLike,
    R: ArrayLike,
    B: ArrayLike | None = None,
    P: ArrayLike | None = None,
) -> dict[str, Array]:
    """Convert weights of ONNX's RNN, LSTM or GRU, one direction, G gates.

    Parameters
    ----------
    operator : {"RNN", "LSTM", "GRU"}
    W : (G*H, I) array-like
        Gates in ONNX's order: i, o, f, c of an LSTM; z, r, h of a GRU.
    R : (G*H, H) array-like
    B : (2*G*H,) array-like, optional
        The biases of W, then those of R. Default: none.
    P : (3*H,) array-like, optional
        The peepholes of an LSTM, in the order i, o, f. Default: none.

    Returns
    -------
    dict of str to array
        Copies: `weight_ih`, `weight_hh` and, where they are given, `bias_ih`, `bias_hh`,
        `weight_ci`, `weight_cf`, `weight_co`, with the gates in torch's order.

    Raises
    ------
    ValueError
        If a shape does not fit the others, or there is no such operator.
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    >>> W, R = np.arange(6.0).reshape(6, 1), np.zeros((6, 2))  # z, r and h of a GRU of two units
    >>> fastrnn.layouts.pack_onnx("GRU", W, R)["weight_ih"].T
    array([[2., 3., 0., 1., 4., 5.]])
    """
    gates = _ONNX_GATES[_checks.choice(operator, "operator", _ONNX_GATES)]
    recurrent = _checks.expect_shape(_checks.numeric(R, "R"), "R", ("G*H", "H"))
    rows, H = len(gates) * recurrent.shape[1], recurrent.shape[1]
    _checks.expect_shape(recurrent, "R", (rows, H))
    weights = {
        "weight_ih": _checks.expect_shape(_checks.numeric(W, "W"), "W", (rows, "I")),
        "weight_hh": recurrent,
    }
    if B is not None:
        both = _checks.expect_shape(_checks.numeric(B, "B"), "B", (2 * rows,))
        weights |= {"bias_ih": both[:rows], "bias_hh": both[rows:]}
    order = [gates.index(k) for k in range(len(gates))]
    packed = {name: _reordered(array, order) for name, array in weights.items()}
    if P is None:
        return packed
    if operator != "LSTM":
        raise ValueError(f"P: expected None for {operator}, which has no peepholes")
    peepholes = _checks.expect_shape(_checks.numeric(P, "P"), "P", (3 * H,)).reshape(3, H)
    return packed | {n: p.copy() for n, p in zip(_ONNX_PEEPHOLES, peepholes, strict=True)}


def unpack_onnx(
    operator: str, weights: Mapping[str, ArrayLike]
) -> tuple[Array, Array, Array | None, Array | None]:
    """Undo :func:`pack_onnx`.

    Parameters
    ----------
    operator : {"RNN", "LSTM", "GRU"}
    weights : mapping of str to array-like
        As :func:`pack_onnx` returns them. One of two biases may be missing: it is 0.

    Returns
    -------
    W : (G*H, I) array
    R : (G*H, H) array
    B : (2*G*H,) array or None
    P : (3*H,) array or None

    Raises
    ------
    ValueError, TypeError
        As :func:`pack_onnx` does.

    Examples
    --------
    >>> gru = fastrnn.GRU(1, 2, seed=0)
    >>> weights = {name[:-3]: w for name, w in gru.state_dict().items()}  # without "_l0"
    >>> W, R, B, P = fastrnn.layouts.unpack_onnx("GRU", weights)
    >>> W.shape, R.shape, B.shape, P is None
    ((6, 1), (6, 2), (12,), True)
    """
    order = _ONNX_GATES[_checks.choice(operator, "operator", _ONNX_GATES)]
    G = len(order)
    given = _named(weights)
    recurrent = _checks.expect_shape(given["weight_hh"], "weight_hh", ("G*H", "H"))
    H = recurrent.shape[1]
    _checks.expect_shape(recurrent, "weight_hh", (G * H, H))
    _checks.expect_shape(given["weight_ih"], "weight_ih", (G * H, "I"))
    W, R = (_reordered(given[name], order) for name in ("weight_ih", "weight_hh"))
    B = P = None
    if given.keys() & {"bias_ih", "bias_hh"}:
        none = np.zeros(G * H, recurrent.dtype)
        biases = [given.get(name, none) for name in ("bias_ih", "bias_hh")]
        for bias, name in zip(biases, ("bias_ih", "bias_hh"), strict=True):
            _checks.expect_shape(bias, name, (G * H,))
        B = np.concatenate([_reordered(bias, order) for bias in biases])
    if given.keys() & set(_ONNX_PEEPHOLES):
        _expect_names(given, _ONNX_PEEPHOLES)
        P = np.concatenate([_checks.expect_shape(given[n], n, (H,)) for n in _ONNX_PEEPHOLES])
    return W, R, B, P


def pack_keras(layer: str, weights: Sequence[Any]) -> dict[str, Array]:
    """Convert the weights of a SimpleRNN, LSTM or GRU of Keras 2 or 3, of G gates.

    Parameters
    ----------
    layer : {"SimpleRNN", "LSTM", "GRU"}
    weights : sequence of array-like
        As ``get_weights()`` returns them, with gates in Keras's order, i, f, c, o of an LSTM and
        z, r, h of a GRU: kernel (I, G*H), recurrent kernel (H, G*H) and perhaps a bias, (G*H,), or
        (2, 3*H) of a GRU with `reset_after`.

    Returns
    -------
    dict of str to array
        Copies, by argument name, with the gates in torch's order: `weight_ih`, `weight_hh` and,
        with a bias, `bias_ih`; `bias_hh` only of a GRU with `reset_after`, as the others have one
        bias.

    Raises
    ------
    ValueError
        If there are not two or three weights, their shapes do not fit each other, or there is no
        such layer.
    TypeError
        If they do not hold real numbers.

    Examples
    --------
    >>> kernel, recurrent = [[0.0, 1.0, 2.0]], [[3.0, 4.0, 5.0]]  # z, r and h of a GRU of one unit
    >>> fastrnn.layouts.pack_keras("GRU", [kernel, recurrent])["weight_hh"].T
    array([[4., 3., 5.]])
    """
    order = _KERAS_GATES[_checks.choice(layer, "layer", _KERAS_GATES)]
    if not isinstance(weights, Sequence) or not 2 <= len(weights) <= 3:
        got = len(weights) if isinstance(weights, Sequence) else type(weights).__name__
        raise ValueError(
            f"weights: expected a list of kernel, recurrent kernel and perhaps bias, got {got}"
        )
    given = [_checks.numeric(value, f"weights[{i}]") for i, value in enumerate(weights)]
    H = _checks.expect_shape(given[1], "weights[1]", ("H", "G*H")).shape[0]
    rows = len(order) * H
    _checks.expect_shape(given[1], "weights[1]", (H, rows))
    _checks.expect_shape(given[0], "weights[0]", ("I", rows))
    packed = {
        "weight_ih": _reordered(given[0].T, order),
        "weight_hh": _reordered(given[1].T, order),
    }
    if len(given) == 2:
        return packed
    bias = given[2]
    if layer == "GRU" and bias.ndim == 2:  # reset_after
        _checks.expect_shape(bias, "weights[2]", (2, rows))
        pair = zip(("bias_ih", "bias_hh"), bias, strict=True)
        return packed | {name: _reordered(one, order) for name, one in pair}
    return packed | {
        "bias_ih": _reordered(_checks.expect_shape(bias, "weights[2]", (rows,)), order)
    }


def unpack_keras(
    layer: str, weights: Mapping[str, ArrayLike], *, reset_after: bool = True
) -> list[Array]:
    """Undo :func:`pack_keras`.

    Parameters
    ----------
    layer : {"SimpleRNN", "LSTM", "GRU"}
    weights : mapping of str to array-like
        `weight_ih`, `weight_hh` and perhaps `bias_ih` and `bias_hh`, which are added for layers
        with one bias; one of two may be missing: it is 0.
    reset_after : bool
        Whether a GRU has two biases.

    Returns
    -------
    list of array
        For ``set_weights()``.

    Raises
    ------
    ValueError, TypeError
        As :func:`pack_keras` does.

    Examples
    --------
    >>> gru = fastrnn.GRU(1, 2, seed=0)
    >>> weights = {name[:-3]: w for name, w in gru.state_dict().items()}  # without "_l0"
    >>> [w.shape for w in fastrnn.layouts.unpack_keras("GRU", weights)]
    [(1, 6), (2, 6), (2, 6)]
    """
    order = _KERAS_GATES[_checks.choice(layer, "layer", _KERAS_GATES)]
    given = _named(weights)
    H = _checks.expect_shape(given["weight_hh"], "weight_hh", ("G*H", "H")).shape[1]
    rows = len(order) * H
    _checks.expect_shape(given["weight_hh"], "weight_hh", (rows, H))
    _checks.expect_shape(given["weight_ih"], "weight_ih", (rows, "I"))
    matrices = (_reordered(given[name], order) for name in ("weight_ih", "weight_hh"))
    unpacked = [np.ascontiguousarray(matrix.T) for matrix in matrices]
    if not given.keys() & {"bias_ih", "bias_hh"}:
        return unpacked
    none = np.zeros(rows, given["weight_hh"].dtype)
    biases = [
        _reordered(_checks.expect_shape(given.get(name, none), name, (rows,)), order)
        for name in ("bias_ih", "bias_hh")
    ]
    both = layer == "GRU" and _checks.flag(reset_after, "reset_after")
    return [*unpacked, np.stack(biases) if both else biases[0] + biases[1]]


def _reordered(array: Array, order: Sequence[int]) -> Array:
    """Return a copy with the gates, blocks of rows, in another order."""
    gates = np.split(array, len(order))
    return np.concatenate([gates[k] for k in order])


def _columns(value: Any, name: str, layout: str) -> Array:
    """Return a copy of a matrix, in the layout that multiplies column vectors."""
    _checks.choice(layout, "layout", _LAYOUTS)
    matrix = _checks.expect_shape(_checks.numeric(value, name), name, ("H", "I"))
    return np.array(matrix if layout == "columns" else matrix.T, order="C")


def _laid_out(matrix: Array, layout: str) -> Array:
    return _columns(matrix, "grads", layout)


def _bias(value: Any, name: str, H: int) -> Array:
    bias = _checks.numeric(value, name)
    if bias.shape not in ((H,), (H, 1), (1, H)):
        shapes = f"({H},), ({H}, 1) or (1, {H})"
        raise ValueError(f"{name}: expected shape {shapes}, got {_checks.shape_text(bias.shape)}")
    return np.array(bias).reshape(H)


def _bias_laid_out(bias: Array, layout: str, keepdims: bool) -> Array:
    if not _checks.flag(keepdims, "keepdims"):
        return bias.copy()
    return bias.reshape((-1, 1) if layout == "columns" else (1, -1)).copy()


def _named(weights: Any) -> dict[str, Array]:
    """Return the arrays of a mapping, of which two must be there."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected a mapping, got {type(weights).__name__}")
    _expect_names(weights, ("weight_ih", "weight_hh"))
    return {name: _checks.numeric(value, name) for name, value in weights.items()}


def _expect_names(weights: Mapping[str, Any], names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in weights]:
        raise ValueError(
            f"weights: expected {', '.join(names)}, got none of the name {', '.join(missing)}"
        )


def _unpacked(grads: Any, gates: int) -> tuple[Array, Array, Array | None]:
    """Return weight_ih, weight_hh and bias_ih, with consistent shapes for `gates` gates."""
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a mapping, got {type(grads).__name__}")
    names = {"weight_ih", "weight_hh"}
    if grads.keys() - {"bias_ih"} != names:
        raise ValueError(
            f"grads: expected weight_ih, weight_hh and perhaps bias_ih, got {sorted(grads)}"
        )
    weights = {name: _checks.numeric(value, f"grads {name}") for name, value in grads.items()}
    weight_hh = _checks.expect_shape(weights["weight_hh"], "grads weight_hh", ("G*H", "H"))
    H = weight_hh.shape[1]
    _checks.expect_shape(weight_hh, "grads weight_hh", (gates * H, H))
    _checks.expect_shape(weights["weight_ih"], "grads weight_ih", (gates * H, "I"))
    bias = weights.get("bias_ih")
    if bias is not None:
        _checks.expect_shape(bias, "grads bias_ih", (gates * H,))
    return weights["weight_ih"], weight_hh, bias
