"""RNN and RNNCell: the Elman network."""

from __future__ import annotations

import numpy as np

from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.cells import CellConfig, MatmulPrecision
from fastrnn._types import Array, ArrayLike, DTypeLike
from fastrnn.layers.recurrent import Recurrent
from fastrnn.layers.single_step import SingleStep

#: The arguments that select each cell of the family.
CELLS = {"rnn_tanh": {"nonlinearity": "tanh"}, "rnn_relu": {"nonlinearity": "relu"}}


class RNN(Recurrent[Array, ArrayLike], cells=CELLS):
    """Elman network: h' = act(W_ih x + b_ih + W_hh h + b_hh) (Elman 1990).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L, the number of stacked layers.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    batch_first : bool
        Whether x and y are (B, T, ...) rather than (T, B, ...). States are not affected.
    dropout : float
        Probability, 0 to 1, that an element is zeroed between layers, the others being scaled by
        1/(1-dropout); only in :meth:`forward` in training mode.
    bidirectional : bool
        Whether each layer also runs from the last time step to the first, with weights of its own
        (Schuster and Paliwal 1997); y is the concatenation of both outputs.
    return_sequences : bool
        Whether y holds the output of every step rather than only the last.
    go_backwards : bool
        Whether each sequence is read from its last step to its first, as in Keras; y is then in
        that order too. Such a layer has no stream.
    weight_dropout : float
        Probability, 0 to 1, that an entry of the recurrent weights `weight_hh` is zeroed, the
        others being scaled by 1/(1-weight_dropout); drawn for each :meth:`forward` in training
        mode, and the same at all its steps (DropConnect: Merity et al. 2018).
    learn_initial_state : bool
        Whether the initial state is a weight: `h_0`, and `c_0` of an LSTM, (L*D, H), at first 0.
        Sequences start from it where no state is given, and after each `reset`, which then has to
        be None in a layer that is bidirectional or goes backwards.
    activations : str, tuple or sequence of them, optional
        An activation in place of `nonlinearity`, one of ONNX's operators RNN, GRU and LSTM: a name,
        or (name, alpha, beta), where missing or None stands for the default, that of ONNX:

            "relu": max(0, x), "tanh", "sigmoid": 1 / (1 + exp(-x)),
            "affine": alpha x + beta (1, 0),
            "leaky_relu": x, or alpha x below 0 (0.01),
            "thresholded_relu": x, or 0 up to alpha (1),
            "scaled_tanh": alpha tanh(beta x) (no defaults),
            "hard_sigmoid": min(max(alpha x + beta, 0), 1) (0.2, 0.5, as in Keras 2; 1/6, 0.5 in
            Keras 3 and torch),
            "elu": x, or alpha (exp(x) - 1) below 0 (1),
            "softsign": x / (1 + abs(x)), "softplus": log(1 + exp(x)).

        At kinks the gradients are those of torch's functions. Those of a bidirectional layer may
        be two, of its forward and of its backward direction. Default: that of `nonlinearity`.
    clip : float, optional
        Bound of what activations are applied to, which is clipped to -clip..clip first (ONNX's
        `clip`), with the gradient of torch.clamp. Default: none.
    matmul_precision : {"float32", "bfloat16"}
        "bfloat16", for float32 layers: both operands of each matrix product, here and in BPTT, are
        rounded to bfloat16, which keeps 8 of 24 bits, and products summed in float32; weights,
        states, gradients and all else stay in float32. About twice as fast for many units on CPUs
        with AVX512-BF16. Default: "float32", products in the layer's dtype.
    dtype : float32 or float64
    seed : int, optional
        For the initial weights and for dropout. Default: a fresh seed.
    init : {"uniform", "orthogonal", "identity"}
        Initial weights. "uniform": all in +-1/sqrt(H), as in torch. "orthogonal": recurrent weights
        orthogonal for each gate (Saxe et al. 2014), input weights uniform in +-sqrt(6/(I+H))
        (Glorot and Bengio 2010), biases 0. "identity", for RNN only: recurrent weights the
        identity, input weights N(0, 0.001^2), biases 0 (Le et al. 2015).

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If an argument has the wrong type.

    Warns
    -----
    UserWarning
        If there is dropout but only one layer.

    Examples
    --------
    >>> rnn = fastrnn.RNN(3, 5, nonlinearity="relu", seed=0)
    >>> x = np.random.default_rng(0).normal(size=(7, 2, 3))  # (time, batch, input)
    >>> y, h = rnn(x)
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    >>> y, h, tape = rnn.forward(x)
    >>> dx, dh, grads = rnn.backward(tape, dy=2 * y)  # of the loss sum(y**2)
    >>> list(grads)
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
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
        go_backwards: bool = False,
        weight_dropout: float = 0.0,
        learn_initial_state: bool = False,
        activations: ActivationsLike | None = None,
        clip: float | None = None,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        init: str = "uniform",
    ) -> None:
        super().__init__(
            self._elman(nonlinearity, activations, "tanh"),
            CellConfig(
                input_size=input_size,
                hidden_size=hidden_size,
                bias=bias,
                matmul_precision=matmul_precision,
                clip=clip,
            ),
            activations=activations,
            num_layers=num_layers,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            return_sequences=return_sequences,
            go_backwards=go_backwards,
            weight_dropout=weight_dropout,
            learn_initial_state=learn_initial_state,
            dtype=dtype,
            seed=seed,
            init=init,
        )

    @property
    def nonlinearity(self) -> str:
        """The activation, "tanh" or "relu"."""
        return str(self._choice["nonlinearity"])


class RNNCell(SingleStep[Array, ArrayLike], cells=CELLS):
    """One step of :class:`RNN`: ``h = cell(x, h)``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    nonlinearity : {"tanh", "relu"}
    activations, clip
        As in :class:`RNN`.
    matmul_precision : {"float32", "bfloat16"}
        As in :class:`RNN`.
    dtype : float32 or float64
    seed : int, optional
        For the initial weights, which are uniform in +-1/sqrt(H). Default: a fresh seed.

    Examples
    --------
    >>> cell = fastrnn.RNNCell(3, 5, seed=0)
    >>> h = np.zeros((2, 5))
    >>> for x in np.ones((7, 2, 3)):
    ...     h = cell(x, h)
    >>> h.shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        activations: ActivationsLike | None = None,
        clip: float | None = None,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            self._elman(nonlinearity, activations, "tanh"),
            CellConfig(
                input_size=input_size,
                hidden_size=hidden_size,
                bias=bias,
                matmul_precision=matmul_precision,
                clip=clip,
            ),
            activations=activations,
            dtype=dtype,
            seed=seed,
        )

    @property
    def nonlinearity(self) -> str:
        """The activation, "tanh" or "relu"."""
        return str(self._choice["nonlinearity"])
