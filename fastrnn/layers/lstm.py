"""LSTM and LSTMCell: long short-term memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.cells import CellConfig, MatmulPrecision
from fastrnn._types import Array, DTypeLike, PairLike
from fastrnn.layers.recurrent import Recurrent
from fastrnn.layers.single_step import SingleStep

#: The family has a single cell, which needs no argument to select it.
CELLS: dict[str, dict[str, Any]] = {"lstm": {}}


class LSTM(Recurrent[tuple[Array, Array], PairLike], cells=CELLS):
    """Long short-term memory with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh), g = tanh(...), c' = f c + i g,
    h' = o tanh(c').

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As in :class:`fastrnn.RNN`.
    proj_size : int
        P, the size of a projection of the output, h' = W_hr (o tanh(c')) with `weight_hr` (P, H);
        h and y then have size P in place of H (Sak et al. 2014). Default: 0, none.
    peephole : bool
        Whether each gate unit also sees its own cell state: i and f the old one, weighted by
        `weight_ci` and `weight_cf`, o the new one, weighted by `weight_co` (Gers et al. 2002).
    layer_norm : bool
        Whether to normalise both products and the cell state (Ba et al. 2016, eq. 20 to 22): with
        LN(a) = (a - mean(a)) / sqrt(var(a) + 1e-5), mean and variance over all units of one row at
        one step::

            (i, f, g, o) before sigmoid and tanh =
                gain_ih LN(W_ih x) + b_ih + gain_hh LN(W_hh h) + b_hh, over all four gates,
            c' = f c + i g,  h' = o tanh(gain_c LN(c') + bias_c).

        The state c' itself is not normalised. Gains are (4*H,), that of the cell state (H,); there
        is no `bias_c` without `bias`.
    activations : sequence of str or tuple, optional
        Three, of gates, cell and hidden state, those called f, g and h by ONNX's operator LSTM:
        i, f and o have the first in place of sigmoid, g the second and c' in h' = o tanh(c') the
        third in place of tanh. For what each may be, and for six of a bidirectional layer, see
        :class:`fastrnn.RNN`.
    clip : float, optional
        As in :class:`fastrnn.RNN`, for i, f, g and o. As in ONNX Runtime, c' is not clipped.
    input_forget : bool
        Whether input and forget gate are coupled, f = 1 - i (ONNX's `input_forget`; CIFG of Greff
        et al. 2017). All weights of f stay in place, but do not count, and their gradients are 0;
        only with `layer_norm` they take part in mean and variance.
    return_sequences, go_backwards, weight_dropout, learn_initial_state
        As in :class:`fastrnn.RNN`.
    matmul_precision, dtype, seed, init
        Likewise.
    forget_bias : float, optional
        Initial bias of the forget gate, the sum of `bias_ih` and `bias_hh`; Jozefowicz et al.
        (2015) recommend 1. Default: as drawn by `init`.

    Raises
    ------
    ValueError, TypeError
        As :class:`fastrnn.RNN` does; and if there is `forget_bias` without `bias`.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 5, batch_first=True, bidirectional=True, seed=0)
    >>> x = np.random.default_rng(0).normal(size=(2, 7, 3))  # (batch, time, input)
    >>> y, (h, c) = lstm(x, lengths=[7, 4])
    >>> y.shape, h.shape, c.shape
    ((2, 7, 10), (2, 2, 5), (2, 2, 5))
    >>> bool((y[1, 4:] == 0).all())  # past the second sequence's end
    True
    >>> last = fastrnn.LSTM(3, 5, num_layers=2, return_sequences=False, seed=0)
    >>> last(np.ones((7, 2, 3)))[0].shape
    (2, 5)
    >>> fastrnn.LSTM(3, 5, activations=["hard_sigmoid", "tanh", "tanh"])  # Keras 2's hard_sigmoid
    LSTM(3, 5, activations=(('hard_sigmoid', 0.2, 0.5), 'tanh', 'tanh'))
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
        go_backwards: bool = False,
        weight_dropout: float = 0.0,
        learn_initial_state: bool = False,
        activations: ActivationsLike | None = None,
        clip: float | None = None,
        input_forget: bool = False,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        init: str = "uniform",
        forget_bias: float | None = None,
    ) -> None:
        self._forget_bias = forget_bias
        if forget_bias is not None:
            self._forget_bias = _checks.finite(forget_bias, "forget_bias")
            if not _checks.flag(bias, "bias"):
                raise ValueError(f"forget_bias: expected None without bias, got {forget_bias}")
        super().__init__(
            self._cell_of(),
            CellConfig(
                input_size=input_size,
                hidden_size=hidden_size,
                bias=bias,
                proj_size=proj_size,
                peephole=peephole,
                layer_norm=layer_norm,
                matmul_precision=matmul_precision,
                clip=clip,
                input_forget=input_forget,
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

    def _draw_scans(self, rng: np.random.Generator, dtype: Any) -> list[list[Array | None]]:
        scans = super()._draw_scans(rng, dtype)
        if self._forget_bias is not None:
            H = self.hidden_size
            for drawn in scans:
                for name, value in (("bias_ih", self._forget_bias), ("bias_hh", 0)):
                    array = drawn[self._cell.weights.index(name)]
                    assert array is not None
                    array[H : 2 * H] = value
        return scans

    @property
    def proj_size(self) -> int:
        """P, or 0 without a projection."""
        return self._config.proj_size

    @property
    def peephole(self) -> bool:
        """Whether the gates see the cell state."""
        return self._config.peephole

    @property
    def layer_norm(self) -> bool:
        """Whether there is layer normalisation."""
        return self._config.layer_norm

    @property
    def input_forget(self) -> bool:
        """Whether the forget gate is 1 - i."""
        return self._config.input_forget


class LSTMCell(SingleStep[tuple[Array, Array], PairLike], cells=CELLS):
    """One step of :class:`LSTM`: ``h, c = cell(x, (h, c))``.

    Parameters
    ----------
    input_size, hidden_size, bias, matmul_precision, dtype, seed
        As in :class:`fastrnn.RNNCell`.
    activations, clip, input_forget
        As in :class:`LSTM`.

    Examples
    --------
    >>> cell = fastrnn.LSTMCell(3, 5, seed=0)
    >>> x = np.ones((2, 3))
    >>> h, c = cell(x)
    >>> h, c = cell(x, (h, c))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        activations: ActivationsLike | None = None,
        clip: float | None = None,
        input_forget: bool = False,
        matmul_precision: MatmulPrecision = "float32",
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            self._cell_of(),
            CellConfig(
                input_size=input_size,
                hidden_size=hidden_size,
                bias=bias,
                matmul_precision=matmul_precision,
                clip=clip,
                input_forget=input_forget,
            ),
            activations=activations,
            dtype=dtype,
            seed=seed,
        )

    @property
    def input_forget(self) -> bool:
        """Whether the forget gate is 1 - i."""
        return self._config.input_forget

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a cell, ready for JSON."""
        return super().get_config() | {"input_forget": self.input_forget}
