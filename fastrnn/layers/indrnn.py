"""IndRNN: the independently recurrent network."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastrnn._kernels.activations import ActivationsLike
from fastrnn._kernels.cells import CellConfig, MatmulPrecision
from fastrnn._types import Array, ArrayLike, DTypeLike
from fastrnn.layers.recurrent import Recurrent

#: The arguments that select each cell of the family.
CELLS = {"indrnn_tanh": {"nonlinearity": "tanh"}, "indrnn_relu": {"nonlinearity": "relu"}}


class IndRNN(Recurrent[Array, ArrayLike], cells=CELLS):
    """Independently recurrent network: h' = act(W_ih x + b_ih + u * h + b_hh) (Li et al. 2018).

    Each unit sees only its own past: u, called `weight_hh` as in :class:`RNN`, is a vector (H,).
    Units of one layer meet in the next one, so two layers or more are usual. With
    ReLU and u within +-2^(1/T) gradients neither vanish nor explode over T steps.

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        As in :class:`RNN`.
    nonlinearity : {"relu", "tanh"}
    activations, clip
        As in :class:`RNN`.
    bias, batch_first, dropout, bidirectional
        As in :class:`RNN`.
    return_sequences, go_backwards, weight_dropout, learn_initial_state
        As in :class:`fastrnn.RNN`.
    matmul_precision, dtype, seed
        Likewise.
    init : {"uniform", "orthogonal", "identity"}
        As in :class:`RNN` for `weight_ih` and the biases. `weight_hh` is uniform in [0, 1], so that
        units remember over times of different lengths, or with "identity" 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> rnn = fastrnn.IndRNN(3, 5, num_layers=2, seed=0)
    >>> y, h = rnn(np.ones((7, 2, 3)))
    >>> y.shape, h.shape, rnn.parameters()["weight_hh_l0"].shape
    ((7, 2, 5), (2, 2, 5), (5,))
    """

    _shown: ClassVar[dict[str, Any]] = {**Recurrent._shown, "nonlinearity": "relu"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "relu",
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
            self._elman(nonlinearity, activations, "relu"),
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
        """The activation, "relu" or "tanh"."""
        return str(self._choice["nonlinearity"])
