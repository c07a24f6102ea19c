"""RNN, GRU and LSTM, by our kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks, layouts
from fastrnn._core import scan
from fastrnn._kernels.cells import CELLS, Cell, CellConfig
from fastrnn._kernels.weights import Weights
from fastrnn._types import Array
from fastrnn.onnx.registry import Node, operator

#: Number of gates of each operator, and its activations, f, g and h.
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}

#: ONNX's activations: our names, and the defaults of alpha and beta, those of the operators of the
#: same names. ScaledTanh is no operator, and has none.
_ACTIVATIONS: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "Affine": ("affine", (1.0, 0.0)),
    "Elu": ("elu", (1.0,)),
    "HardSigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "LeakyRelu": ("leaky_relu", (0.01,)),
    "Relu": ("relu", ()),
    "ScaledTanh": ("scaled_tanh", (None, None)),
    "Sigmoid": ("sigmoid", ()),
    "Softplus": ("softplus", ()),
    "Softsign": ("softsign", ()),
    "Tanh": ("tanh", ()),
    "ThresholdedRelu": ("thresholded_relu", (1.0,)),
}
_LOWER = {name.lower(): name for name in _ACTIVATIONS}

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

#: An activation: its name here, then its alpha and beta.
Activation = tuple[str | float, ...]


class Options(NamedTuple):
    """What a node says beside its weights.

    Attributes
    ----------
    kind : {"RNN", "GRU", "LSTM"}
    reverse : tuple of bool
        Whether each direction runs from the end.
    activations : list
        Of each direction, those of the cell.
    """

    kind: str
    reverse: tuple[bool, ...]
    activations: list[tuple[Activation, ...]]
    clip: float | None
    input_forget: bool
    reset_after: bool
    batch_first: bool


def options(node: Node, kind: str) -> Options:
    """Return a node's options.

    Raises
    ------
    ValueError
        If an attribute has none of its values.
    """
    direction = _checks.choice(node["direction"], "direction", _DIRECTIONS)
    reverse = _DIRECTIONS[direction]
    clip = node.get("clip")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip: expected a number above 0, got {clip}")
    layout = node.get("layout", 0)
    if layout not in (0, 1):
        raise ValueError(f"layout: expected 0 or 1, got {layout}")
    return Options(
        kind,
        reverse,
        _activations(node, kind, len(reverse)),
        clip,
        bool(node.get("input_forget", 0)),
        bool(node.get("linear_before_reset", 0)),
        bool(layout),
    )


def _activations(node: Node, kind: str, directions: int) -> list[tuple[Activation, ...]]:
    """Return the activations of each direction.

    Each takes its alpha, and its beta, from the front of the lists, if it has any. As in ONNX
    Runtime, what is left over is ignored.
    """
    usual = _USUAL[kind]
    names = node.get("activations") or [*usual] * directions
    n = len(usual)
    if kind == "RNN" and names == ["Tanh", "Tanh"]:
        names = names[:directions]  # the default of the operator, also in one direction
    if len(names) != n * directions:
        raise ValueError(f"activations: expected {n * directions}, got {names}")
    lists = [list(node.get(f"activation_{which}", [])) for which in ("alpha", "beta")]
    found: list[Activation] = []
    for name in names:
        known = _LOWER.get(name.lower())
        if known is None:
            raise ValueError(
                f"activations: expected some of {', '.join(_ACTIVATIONS)}, got {name!r}"
            )
        ours, defaults = _ACTIVATIONS[known]
        given: list[Any] = [
            values.pop(0) if values else default
            for values, default in zip(lists, defaults, strict=False)
        ]
        if None in given:
            raise ValueError(
                f"expected activation_alpha and activation_beta for {known}, which has no defaults"
            )
        found.append((ours, *given))
    return [tuple(found[k : k + n]) for k in range(0, len(found), n)]


def cell_of(given: Options, d: int) -> tuple[Cell, dict[str, Any]]:
    """Return the cell of direction d, and its options beside sizes and peepholes."""
    activations = given.activations[d]
    usual = tuple((_ACTIVATIONS[name][0],) for name in _USUAL[given.kind])
    more: dict[str, Any] = {}
    if given.clip is not None:
        more["clip"] = given.clip
    if given.input_forget:
        more["input_forget"] = True
    if given.kind == "RNN":
        relu = activations == (("relu",),)
        if not relu and activations != usual:
            more["activations"] = activations
        return CELLS["rnn_relu" if relu else "rnn_tanh"], more
    if activations != usual:
        more["activations"] = activations
    if given.kind == "GRU":
        return CELLS["gru" if given.reset_after else "gru_reset_before"], more
    return CELLS["lstm"], more


def weights_of(
    node: Node, given: Options, W: Array, R: Array, B: Array | None, P: Array | None
) -> list[dict[str, Array]]:
    """Return the weights of each direction, in torch's layouts; float32 or float64.

    Raises
    ------
    ValueError
        If a shape does not fit the others, or a dtype is none of floats.
    """
    G, D = _GATES[given.kind], len(given.reverse)
    if R.ndim != 3 or node.get("hidden_size", R.shape[-1]) != R.shape[-1]:
        raise ValueError(
            f"R: expected shape ({D}, {G}*hidden_size, hidden_size) with hidden_size="
            f"{node.get('hidden_size', 'H')}, got {_checks.shape_text(R.shape)}"
        )
    H = R.shape[-1]
    shapes = {"W": (D, G * H, "I"), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
    arrays = {"W": W, "R": R, "B": B, "P": P}
    for name, array in arrays.items():
        if array is not None:
            _checks.expect_shape(array, name, shapes[name])
    dtype = real(W.dtype)
    of_scans: list[list[Any]] = [
        [None if a is None else a[d].astype(dtype) for a in arrays.values()] for d in range(D)
    ]
    return [layouts.pack_onnx(given.kind, *of_scan) for of_scan in of_scans]


def real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which we compute what ONNX has in `dtype`."""
    if dtype in _checks.DTYPES:
        return dtype
    if dtype.kind not in "fV":  # bfloat16 is of kind V
        raise ValueError(f"expected floats, got {dtype}")
    return np.dtype(np.float32)


class Recurrence:
    """A node with its weights, ready to run.

    Parameters
    ----------
    given : Options
    weights : list of dict
        As :func:`weights_of` returns them.
    """

    def __init__(self, given: Options, weights: Sequence[dict[str, Array]]) -> None:
        self._given = given
        self._scans: list[Weights] = []
        for d, arrays in enumerate(weights):
            cell, more = cell_of(given, d)
            config = CellConfig(
                input_size=arrays["weight_ih"].shape[1],
                hidden_size=arrays["weight_hh"].shape[1],
                bias="bias_ih" in arrays,
                peephole="weight_ci" in arrays,
                **more,
            )
            self._scans.append(self._packed(cell, config, arrays))

    def _packed(self, cell: Cell, config: CellConfig, arrays: dict[str, Array]) -> Weights:
        return Weights(cell, config, [arrays.get(name) for name in cell.weights])

    def __call__(
        self, X: Array, W: Any = None, R: Any = None, B: Any = None, sequence_lens: Any = None,
        initial_h: Any = None, initial_c: Any = None, P: Any = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        """Return Y, Y_h and, of an LSTM, Y_c."""
        batch_first, first = self._given.batch_first, self._scans[0]
        D, dtype, sizes = len(self._scans), first.real, first.config
        if X.ndim != 3 or X.shape[2] != sizes.input_size:
            lead = "batch, steps" if batch_first else "steps, batch"
            shape = _checks.shape_text(X.shape)
            raise ValueError(f"X: expected shape ({lead}, {sizes.input_size}), got {shape}")
        x = _checks.array(X.astype(dtype, copy=False), "X", dtype)
        x = x.swapaxes(0, 1) if batch_first else x
        T, B_, H = x.shape[0], x.shape[1], sizes.hidden_size
        lengths = None if sequence_lens is None else _lengths(sequence_lens, T, B_)
        states = [
            _state(s, name, (D, B_, H), dtype, batch_first)
            for s, name in ((initial_h, "initial_h"), (initial_c, "initial_c"))
        ][: len(first.cell.states)]
        ends = [np.zeros((D, B_, H), dtype) for _ in states]
        y = np.zeros((T, D, B_, H), dtype)
        self._run(x, states, lengths, y, ends)
        if batch_first:
            y, ends = y.transpose(2, 0, 1, 3), [end.swapaxes(0, 1) for end in ends]
        return tuple(a.astype(X.dtype, copy=False) for a in (y, *ends))

    def _run(
        self, x: Array, states: list[Array | None], lengths: Array | None, y: Array,
        ends: list[Array],
    ) -> None:  # fmt: skip
        """Run each direction. Rows of length 0 have outputs and final states of 0."""
        T, B, _ = x.shape
        if not T or not B:
            for end, state in zip(ends, states, strict=True):
                end[...] = 0 if state is None else state
            return
        for d, (weights, reverse) in enumerate(zip(self._scans, self._given.reverse, strict=True)):
            own = [None if s is None else np.ascontiguousarray(s[d]) for s in states]
            last = [end[d] for end in ends]
            scan.forward(weights, x, own, y[:, d], last, reverse=reverse, lengths=lengths)
            if lengths is not None:
                for end in last:
                    end[lengths == 0] = 0


def _lengths(given: Array, T: int, B: int) -> Array:
    steps = _checks.indices(given, "sequence_lens", T + 1)
    return _checks.expect_shape(steps, "sequence_lens", (B,)).astype(np.int64)


def _state(
    given: Any, name: str, shape: tuple[int, int, int], dtype: np.dtype[Any], batch_first: bool
) -> Array | None:
    if given is None:
        return None
    D, B, H = shape
    _checks.expect_shape(given, name, (B, D, H) if batch_first else shape)
    state: Array = given.swapaxes(0, 1) if batch_first else given
    return state.astype(dtype, copy=False)


def _bind(kind: str) -> Callable[..., Any]:
    """Return what packs weights once, if they are constant."""

    def bind(node: Node, constants: Sequence[Any]) -> Any:
        given = options(node, kind)
        for d in range(len(given.reverse)):
            cell_of(given, d)
        _, W, R, B, _, _, _, P = (*constants, *[None] * 8)[:8]
        names = (*node.inputs, *[""] * 8)[:8]
        if W is None or R is None or any(names[k] and constants[k] is None for k in _WEIGHTS[2:]):
            return None
        return Recurrence(given, weights_of(node, given, W, R, B, P)), _WEIGHTS

    return bind


#: The inputs that are weights: W, R, B and P.
_WEIGHTS = (1, 2, 3, 7)


def _run(kind: str) -> Callable[..., Any]:
    """Return what runs a node whose weights are computed."""

    def run(node: Node, X: Array, W: Array, R: Array, B: Any = None, *more: Any) -> Any:
        given = options(node, kind)
        P = more[3] if len(more) > 3 else None
        return Recurrence(given, weights_of(node, given, W, R, B, P))(X, W, R, B, *more)

    return run


for _kind in _GATES:
    operator(_kind, 22, bind=_bind(_kind))(_run(_kind))
