"""Activations: functions of each number, and softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastrnn import _checks
from fastrnn._kernels.functions import Function
from fastrnn.layers.row_map import RowMap


class Named(NamedTuple):
    """A function by its name here, and which of its parameters, alpha and beta, may be set."""

    function: Function
    alpha: bool = False
    beta: bool = False


#: Activations by name. Defaults are torch's; LeakyRelu, Elu, ScaledTanh, ThresholdedRelu and Affine
#: take alpha and beta as ONNX's operators of recurrent layers.
ACTIVATIONS = {
    # -0.0 is what leaves every number as it is.
    "linear": Named(Function("affine", 1.0, -0.0)),
    "relu": Named(Function("relu")),
    "tanh": Named(Function("tanh", 1.0, 1.0)),
    "sigmoid": Named(Function("sigmoid")),
    "softmax": Named(Function("softmax")),
    "log_softmax": Named(Function("log_softmax")),
    "leaky_relu": Named(Function("leaky_relu", 0.01), alpha=True),
    "elu": Named(Function("elu", 1.0, 1.0), alpha=True),
    # Klambauer et al. 2017, equation 14.
    "selu": Named(Function("elu", 1.6732632423543772, 1.0507009873554805)),
    "gelu_tanh": Named(Function("gelu_tanh")),
    "silu": Named(Function("silu")),
    "softplus": Named(Function("softplus")),
    "softsign": Named(Function("softsign")),
    "hard_sigmoid": Named(Function("hard_sigmoid", 1 / 6, 0.5), alpha=True, beta=True),
    "hard_tanh": Named(Function("clip", -1.0, 1.0), alpha=True, beta=True),
    "relu6": Named(Function("clip", 0.0, 6.0)),
    "thresholded_relu": Named(Function("thresholded_relu", 1.0), alpha=True),
    "scaled_tanh": Named(Function("tanh", 1.0, 1.0), alpha=True, beta=True),
    "affine": Named(Function("affine", 1.0, 0.0), alpha=True, beta=True),
}


class Activation(RowMap):
    """A function of each number x; softmax and log_softmax are of the last axis.

    Parameters
    ----------
    function : str
        One of

        - ``"relu"``: max(x, 0); ``"relu6"``: min(max(x, 0), 6)
        - ``"tanh"``; ``"sigmoid"``: 1 / (1 + exp(-x))
        - ``"softmax"``: exp(x_i) / sum_j exp(x_j), over the last axis; ``"log_softmax"``: its log
        - ``"leaky_relu"``: x, and `alpha` x below 0 (Maas et al. 2013); alpha is 0.01
        - ``"elu"``: x, and `alpha` (exp(x) - 1) below 0 (Clevert et al. 2016); alpha is 1
        - ``"selu"``: 1.0507 elu(x) with alpha = 1.6733 (Klambauer et al. 2017)
        - ``"gelu_tanh"``: torch's ``GELU("tanh")`` (Hendrycks and Gimpel 2016)
        - ``"silu"``: x sigmoid(x), also called swish (Elfwing et al. 2017)
        - ``"softplus"``: log(1 + exp(x)); ``"softsign"``: x / (1 + abs(x))
        - ``"hard_sigmoid"``: min(max(`alpha` x + `beta`, 0), 1); 1/6 and 1/2, as in torch and Keras
          3 (Keras 2 and ONNX's operator have an alpha of 0.2)
        - ``"hard_tanh"``: min(max(x, `alpha`), `beta`); -1 and 1
        - ``"thresholded_relu"``: x above `alpha`, else 0; 1
        - ``"scaled_tanh"``: `alpha` tanh(`beta` x); 1 and 1
        - ``"affine"``: `alpha` x + `beta`; 1 and 0
        - ``"linear"``: x
    alpha, beta : float, optional
        Parameters of the functions that have them. Default: as above.

    Raises
    ------
    ValueError, TypeError
        If there is no such function, or it has no `alpha` or `beta`.

    Examples
    --------
    >>> fastrnn.Activation("leaky_relu", alpha=0.25)([-4.0, 2.0])
    array([-1.,  2.])
    >>> fastrnn.Sequential([fastrnn.Linear(3, 5), fastrnn.Activation("tanh"), fastrnn.Linear(5, 1)])
    Sequential(
      (0): Linear(3, 5)
      (1): Activation('tanh')
      (2): Linear(5, 1)
    )
    """

    def __init__(
        self, function: str, alpha: float | None = None, beta: float | None = None
    ) -> None:
        self._name = _checks.choice(function, "function", ACTIVATIONS)
        named = ACTIVATIONS[self._name]
        a = self._parameter("alpha", alpha, named.function.a, named.alpha)
        b = self._parameter("beta", beta, named.function.b, named.beta)
        if named.function.name == "clip" and not a <= b:
            raise ValueError(f"alpha, beta: expected alpha <= beta, got {a} and {b}")
        self._applied = Function(named.function.name, a, b)

    def _parameter(self, name: str, value: float | None, usual: float, settable: bool) -> float:
        if value is None:
            return usual
        if not settable:
            raise ValueError(f"{name}: expected None, as {self._name} has none, got {value!r}")
        return _checks.finite(value, name)

    @property
    def _function(self) -> Function:
        return self._applied

    @property
    def function(self) -> str:
        """The name of the function."""
        return self._name

    @property
    def alpha(self) -> float | None:
        """Its parameter alpha; None if it has none."""
        return self._applied.a if ACTIVATIONS[self._name].alpha else None

    @property
    def beta(self) -> float | None:
        """Its parameter beta; None if it has none."""
        return self._applied.b if ACTIVATIONS[self._name].beta else None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        config = {"function": self.function, "alpha": self.alpha, "beta": self.beta}
        return {name: value for name, value in config.items() if value is not None}

    def __repr__(self) -> str:
        shown = [repr(self._name)]
        for name, usual in zip(
            ("alpha", "beta"), ACTIVATIONS[self._name].function[1:], strict=True
        ):
            value = getattr(self, name)
            if value not in (None, usual):
                shown.append(f"{name}={value}")
        return f"Activation({', '.join(shown)})"


class _OneFunction(Activation):
    """An activation with a class of its own, without arguments."""

    _of: str

    def __init__(self) -> None:
        super().__init__(self._of)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON: none."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ReLU(_OneFunction):
    """max(x, 0), as ``torch.nn.ReLU``: ``Activation("relu")``.

    Examples
    --------
    >>> fastrnn.ReLU()([-4.0, 2.0])
    array([0., 2.])
    """

    _of = "relu"


class Tanh(_OneFunction):
    """The hyperbolic tangent, as ``torch.nn.Tanh``: ``Activation("tanh")``.

    Examples
    --------
    >>> fastrnn.Tanh()([-100.0, 100.0])
    array([-1.,  1.])
    """

    _of = "tanh"


class Sigmoid(_OneFunction):
    """1 / (1 + exp(-x)), as ``torch.nn.Sigmoid``: ``Activation("sigmoid")``.

    Examples
    --------
    >>> fastrnn.Sigmoid()([0.0, 100.0])
    array([0.5, 1. ])
    """

    _of = "sigmoid"


class Softmax(_OneFunction):
    """exp(x_i) / sum_j exp(x_j) over the last axis, as ``torch.nn.Softmax(-1)``.

    The largest number of a row is subtracted first, so nothing overflows. A model that is trained
    by ``cross_entropy``, which takes logits, needs none.

    Examples
    --------
    >>> fastrnn.Softmax()([[1.0, 1.0], [0.0, 1000.0]])
    array([[0.5, 0.5],
           [0. , 1. ]])
    """

    _of = "softmax"
