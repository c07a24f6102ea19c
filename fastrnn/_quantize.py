"""Models and layers with int8 weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastrnn._types import SequencesLike, StateLikeT, StateT

if TYPE_CHECKING:
    from fastrnn.layers.linear import Linear
    from fastrnn.layers.quantized import QuantizedLinear, QuantizedRecurrent
    from fastrnn.layers.recurrent import Recurrent

ModelT = TypeVar("ModelT")


@overload
def quantize(
    model: Recurrent[StateT, StateLikeT], calibration: SequencesLike | None = ...
) -> QuantizedRecurrent[StateT, StateLikeT]: ...


@overload
def quantize(model: Linear, calibration: SequencesLike | None = ...) -> QuantizedLinear: ...


@overload
def quantize(model: ModelT, calibration: SequencesLike | None = ...) -> ModelT: ...


def quantize(model: Any, calibration: SequencesLike | None = None) -> Any:
    """Return a copy of a model or layer with int8 weights, for inference: smaller and faster.

    Weight matrices become int8, with one scale for each row, max(abs(w)) / 127, and are a quarter
    as large, in memory and in files. Biases, peepholes, gains, recurrent vectors and states stay
    float32. Rows that are multiplied with a matrix are rounded to int8 too, with a scale of their
    own at each step: max(abs(x)) / 127. A hidden state that is in -1..1 by its definition, as in
    LSTM without projection, GRU, and RNN with tanh, always has the scale 1/127. tanh is computed to
    1.2e-5 and the sigmoid to 6e-6, a hundredth of what rounding to int8 costs. Sums are exact and
    all else is computed in one order: every backend, the reference included, gives the same bits.

    Parameters
    ----------
    model : Sequential, CharLM, TextClassifier, SequenceClassifier, ... or layer
        Trained. It is not changed. float64 is converted to float32. Within a model, layers that
        multiply with no weights, and layers of your own, are copied as they are.
    calibration : optional
        Typical inputs: what ``predict`` takes, (N, T, F), tokens, or a list of sequences; of a
        layer, what it takes; of text models, texts. They run through the model with int8 weights,
        and the largest input of each product becomes its fixed limit; larger ones are clipped
        later.
        Default: each row is scaled by its own largest entry.

    Returns
    -------
    model or layer
        With the methods for inference: calls, ``stream``, ``predict``, ``evaluate``, ``save``.
        `fit`, `forward`, `backward` and `train` raise.

    Raises
    ------
    TypeError
        If it is not a model or layer that can be quantized.
    ValueError
        If it is not fitted, or quantized already; or if weights or calibration data are not finite.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(8, 32, seed=0)
    >>> small = fastrnn.quantize(lstm)
    >>> small
    Quantized(LSTM(8, 32))
    >>> x = np.random.default_rng(0).normal(size=(20, 4, 8))
    >>> bool(np.abs(small(x)[0] - lstm(x)[0]).max() < 0.02)
    True
    """
    from fastrnn.layers.base import Layer
    from fastrnn.models import quantization
    from fastrnn.models.sequential import Sequential

    if isinstance(model, Sequential):
        return quantization.quantize_sequential(model, calibration)
    if isinstance(model, Layer):
        return quantization.quantize_layer(model, calibration)
    if hasattr(model, "_quantized"):
        return model._quantized(calibration)
    raise TypeError(f"model: expected a model or a layer, got {type(model).__name__}")
