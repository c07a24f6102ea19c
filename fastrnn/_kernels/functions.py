"""Functions of each number of an array, or of each row, as data: activations and normalisation."""

from __future__ import annotations

from typing import Any, NamedTuple

#: All functions; kernels know them by their places. Of numbers first, then of rows (..., F).
FUNCTIONS = (
    "affine",  # a x + b
    "relu",  # max(x, 0)
    "clip",  # x within a..b
    "leaky_relu",  # x, a x below 0
    "thresholded_relu",  # x above a, else 0
    "elu",  # b x, a b (exp(x) - 1) below 0
    "tanh",  # a tanh(b x)
    "sigmoid",  # 1 / (1 + exp(-x))
    "hard_sigmoid",  # a x + b, within 0..1
    "softplus",  # log(1 + exp(x))
    "softsign",  # x / (1 + |x|)
    "silu",  # x sigmoid(x)
    "gelu_tanh",  # x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    "softmax",  # exp(x_i) / sum_j exp(x_j)
    "log_softmax",  # x_i - log(sum_j exp(x_j))
    "layer_norm",  # (x - mean) / sqrt(var + a) table[0] + table[1]; without a table, neither
    "standardise",  # (x - table[0]) / table[1], computed in float64, the dtype of the table
    "restore",  # x table[1] + table[0], likewise
)


_PLACES = {name: i for i, name in enumerate(FUNCTIONS)}


class Function(NamedTuple):
    """One of `FUNCTIONS`, and its parameters."""

    name: str
    a: float = 1.0
    b: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """It as the arguments of a kernel."""
        return {"function": _PLACES[self.name], "a": self.a, "b": self.b}
