"""GRU and GRUCell: the gated recurrent unit."""

from __future__ import annotations

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.cells import CellConfig, MatmulPrecision
from fastrnn._types import Array, ArrayLike, DTypeLike
from fastrnn.layers.recurrent import Recurrent
from fastrnn.layers.single_step import SingleStep

#: The arguments that select each cell of the family.
CELLS = {"gru": {"reset_after": True}, "gru_reset_before": {"reset_after": False}}


class GRU(Recurrent[Array, ArrayLike], cells=CELLS):
    """Gated recurrent unit (Cho et al. 2014).

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh); h' = (1 - z) n + z h; the candidate n is
    tanh(W_in x + b_in + r (W_hn h + b_hn)) with `reset_after` (torch, cuDNN, Keras), and
    tanh(W_in x + b_in + W_hn (r h) + b_hn) without (Cho et al. 2014, eq. 8; ONNX's default).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As in :class:`fastrnn.RNN`.
    reset_after : bool
        Whether the reset gate is applied after the recurrent product rather than before it.
    layer_norm : bool
        Whether to normalise both products (Ba et al. 2016, eq. 29 to 31), with LN as in
        :class:`fastrnn.LSTM` and gains `gain_ih` and `gain_hh`, (3*H,)::

            (r, z) = sigmoid(gain LN(W_ih x) + b_ih + gain LN(W_hh h) + b_hh), over both gates,
            n = tanh(gain LN(W_in x) + b_in + r (gain LN(W_hn h) + b_hn)), over n alone;

        without `reset_after`, gain LN(W_hn (r h)) + b_hn is added instead.
    activations : sequence of str or tuple, optional
        Two, of gates and of the candidate, those called f and g by ONNX's operator GRU: r and z
        have the first in place of sigmoid, n the second in place of tanh. For what each may be, and
        for four of a bidirectional layer, see :class:`fastrnn.RNN`.
    clip : float, optional
        As in :class:`fastrnn.RNN`, for r, z and n.
    return_sequences, go_backwards, weight_dropout, learn_initial_state
        As in :class:`fastrnn.RNN`.
    matmul_precision, dtype, seed, init
        Likewise.

    Raises
    ------
    ValueError, TypeError
        As :class:`fastrnn.RNN` does.

    Examples
    --------
    >>> gru = fastrnn.GRU(3, 5, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(7, 2, 3))  # (time, batch, input)
    >>> y, h = gru(x)
    >>> first, h = gru(x[:4])  # in pieces, with the same bits
    >>> rest, h = gru(x[4:], h)
    >>> np.array_equal(np.concatenate([first, rest]), y)
    True
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
            self._cell_of(reset_after=_checks.flag(reset_after, "reset_after")),
            CellConfig(
                input_size=input_size,
                hidden_size=hidden_size,
                bias=bias,
                layer_norm=layer_norm,
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
    def reset_after(self) -> bool:
        """Whether the reset gate is applied after the recurrent product."""
        return bool(self._choice["reset_after"])

    @property
    def layer_norm(self) -> bool:
        """Whether there is layer normalisation."""
        return self._config.layer_norm


class GRUCell(SingleStep[Array, ArrayLike], cells=CELLS):
    """One step of :class:`GRU`: ``h = cell(x, h)``.

    Parameters
    ----------
    input_size, hidden_size, bias, matmul_precision, dtype, seed
        As in :class:`fastrnn.RNNCell`.
    reset_after, activations, clip
        As in :class:`GRU`.

    Raises
    ------
    ValueError, TypeError
        As :class:`fastrnn.RNNCell` does.

    Examples
    --------
    >>> cell = fastrnn.GRUCell(3, 5, seed=0)
    >>> h, tape = cell.forward(np.ones((2, 3)))
    >>> dx, dh, grads = cell.backward(tape, dstate=np.ones_like(h))
    >>> dx.shape, dh.shape, grads["weight_ih"].shape
    ((2, 3), (2, 5), (15, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        activations: ActivationsLike | None = None,
        clip: float | None = None,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            self._cell_of(reset_after=_checks.flag(reset_after, "reset_after")),
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
    def reset_after(self) -> bool:
        """Whether the reset gate is applied after the recurrent product."""
        return bool(self._choice["reset_after"])
