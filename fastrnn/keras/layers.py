"""Layers from the configurations and weights of Keras's layers, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks, layouts
from fastrnn._types import Array, ArrayLike
from fastrnn.keras import activations
from fastrnn.keras.configs import Config, major_version
from fastrnn.layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    Linear,
    Masking,
    Normalization,
)

#: Our recurrent layers by the names of Keras's, with Keras's option for each of their activations.
_RECURRENT: dict[str, tuple[Any, tuple[str, ...]]] = {
    "SimpleRNN": (RNN, ("activation",)),
    "LSTM": (LSTM, ("recurrent_activation", "activation", "activation")),
    "GRU": (GRU, ("recurrent_activation", "activation")),
}
_USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid"}


class KerasLayer(NamedTuple):
    """A layer as Keras has it, from :func:`to_weights`.

    Attributes
    ----------
    class_name : str
        In ``keras.layers``.
    weights : list of array
        For ``set_weights``, once the layer is built.
    config : dict
        For ``from_config``.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 5, batch_first=True, seed=0)
    >>> class_name, weights, config = fastrnn.keras.to_weights(lstm)
    >>> class_name, [w.shape for w in weights], config["units"]
    ('LSTM', [(3, 20), (5, 20), (20,)], 5)
    """

    class_name: str
    weights: list[Array]
    config: dict[str, Any]


def from_weights(
    layer_class_name: str,
    weights: Sequence[ArrayLike],
    *,
    keras_version: int | str | None = None,
    **keras_config: Any,
) -> Layer:
    """Return a layer with the weights of a Keras layer; Keras itself is not needed.

    ``from_weights(type(layer).__name__, layer.get_weights(), **layer.get_config())`` computes what
    ``layer`` does. Recurrent layers have ``batch_first=True`` then, and return ``(y, state)``.

    Parameters
    ----------
    layer_class_name : str
        SimpleRNN, LSTM, GRU, Bidirectional, RNN of one cell, Embedding, Dense, and all other
        layers that are one layer here.
    weights : list of array-like
        From ``get_weights()``.
    keras_version : int or str, optional
        2 or 3, or such as "2.15.0". It matters for "hard_sigmoid" alone, which is
        clip(0.2 x + 0.5, 0, 1) in Keras 2 and clip(x / 6 + 0.5, 0, 1) in Keras 3. Default: as the
        options tell, which are not the same in both; Keras 3 if they don't.
    **keras_config
        From ``get_config()``. Options that are not given have Keras's defaults, so that
        `return_sequences` is False; `use_bias` and `reset_after` are those of the weights. What has
        no effect on inference is not looked at: initializers, regularizers, constraints, `name`,
        `dropout` and `recurrent_dropout`, `unroll`, `implementation`; so are `stateful` and
        `return_state`, as states are passed to layers here, and returned. Half precision, also
        mixed, becomes float32.

    Returns
    -------
    Layer

    Raises
    ------
    ValueError
        If the class or an option is not supported, the weights don't fit each other or the options,
        or an option is unknown.
    TypeError
        If an argument has the wrong type.

    Examples
    --------
    >>> kernel, recurrent_kernel, bias = np.ones((3, 20)), np.ones((5, 20)), np.zeros(20)
    >>> weights = [kernel, recurrent_kernel, bias]
    >>> lstm = fastrnn.keras.from_weights("LSTM", weights, units=5, return_sequences=True)
    >>> y, (h, c) = lstm(np.ones((2, 7, 3)))  # batch first, as in Keras
    >>> y.shape
    (2, 7, 5)
    """
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights: expected a list of arrays, got {type(weights).__name__}")
    version = None if keras_version is None else major_version(keras_version)
    layers = read(layer_class_name, keras_config, weights, version)
    if len(layers) != 1:
        raise ValueError(
            f"{layer_class_name}: expected options that one layer has here, got those of "
            f"{len(layers)}: {layers}; fastrnn.keras.load reads them in a model"
        )
    return layers[0]


def read(
    class_name: Any,
    options: Mapping[str, Any],
    weights: Sequence[Any],
    version: int | None,
    axes: int = 3,
) -> list[Layer]:
    """Return the layers that do in inference what a layer of Keras does: none, one or more.

    `axes` is the number of axes of its input.
    """
    reader = READERS[_checks.choice(class_name, "layer_class_name", READERS)]
    config = Config(class_name, options, version, axes)
    arrays = [_checks.numeric(value, f"weights[{i}]") for i, value in enumerate(weights)]
    trainable = config.flag("trainable", True)
    layers = reader(config, arrays)
    config.expect_no_more()
    for layer in layers:
        layer.trainable = layer.trainable and trainable
    return layers


# Recurrent layers.


def _recurrent(config: Config, weights: Sequence[Array]) -> list[Layer]:
    kind, named = _RECURRENT[config.class_name]
    packed = layouts.pack_keras(config.class_name, weights)
    H = packed["weight_hh"].shape[1]
    config.size("units", H)
    given = {name: config.take(name, _USUAL[name]) for name in dict.fromkeys(named)}
    read_ones = {n: activations.read(value, n, config.version) for n, value in given.items()}
    chosen = [read_ones[name] for name in named]
    usual = [(_USUAL[name],) for name in named]
    options: dict[str, Any] = {}
    if chosen != usual:
        options["activations"] = [one[0] if len(one) == 1 else one for one in chosen]
    bias = "bias_ih" in packed
    config.only("use_bias", bias, bias)
    if kind is GRU:
        options["reset_after"] = config.flag("reset_after", "bias_hh" in packed or not bias)
        if bias and options["reset_after"] != ("bias_hh" in packed):
            raise ValueError(
                f"reset_after: expected {not options['reset_after']}, as the bias has the shape "
                f"{_checks.shape_text(weights[2].shape)}"
            )
    if config.flag("go_backwards", False):
        options["go_backwards"] = True
    layer = kind(
        packed["weight_ih"].shape[1],
        H,
        bias=bias,
        batch_first=not config.flag("time_major", False),
        return_sequences=config.flag("return_sequences", False),
        dtype=config.dtype(_dtype_of(weights)),
        **options,
    )
    if bias:
        packed.setdefault("bias_hh", np.zeros_like(packed["bias_ih"]))
    layer.load_state_dict({f"{name}_l0": array for name, array in packed.items()})
    return [layer]


def _rnn_of_a_cell(config: Config, weights: Sequence[Array]) -> list[Layer]:
    """Read an ``RNN`` layer of Keras around one cell, as the layer of this cell."""
    cell = config.take("cell")
    if not isinstance(cell, Mapping):
        raise ValueError("cell: expected SimpleRNNCell, LSTMCell or GRUCell, got several or none")
    cells = {f"{name}Cell": name for name in _RECURRENT}
    name = _checks.choice(cell.get("class_name"), "cell", cells)
    return read(cells[name], {**cell["config"], **config.rest()}, weights, config.given_version)


def _bidirectional(config: Config, weights: Sequence[Array]) -> list[Layer]:
    merge_mode = config.take("merge_mode", "concat")
    if merge_mode not in ("concat", "sum", "ave"):
        raise ValueError(
            f"merge_mode: expected 'concat', 'sum' or 'ave', got {merge_mode!r}, which is not "
            "supported"
        )
    config.take("dtype")  # that of both layers counts
    half = len(weights) // 2
    given = config.take("layer")
    forward = _direction(given, "layer", weights[:half], config.given_version)
    other = config.take("backward_layer") or _turned(given)
    backward = _direction(_turned(other), "backward_layer", weights[half:], config.given_version)
    options = forward.get_config()
    if type(forward) is not type(backward) or backward.get_config() != options:
        raise ValueError(
            f"backward_layer: expected the options of the forward one, {forward!r}, got "
            f"{backward!r}, which is not supported"
        )
    kind: Any = type(forward)
    both = kind(**options | {"bidirectional": True})
    reverse = {f"{name}_reverse": array for name, array in backward.state_dict().items()}
    both.load_state_dict(forward.state_dict() | reverse)
    if merge_mode == "concat":
        return [both]
    H = options["hidden_size"]
    merge = Linear(2 * H, H, bias=False, dtype=both.dtype)
    merge.load_state_dict({"weight": np.tile(np.eye(H), 2) / (2 if merge_mode == "ave" else 1)})
    merge.trainable = False
    return [both, merge]


def _direction(given: Any, name: str, weights: Sequence[Array], version: int | None) -> Layer:
    """Return the layer of one direction of a Bidirectional."""
    if not isinstance(given, Mapping) or not isinstance(given.get("config"), Mapping):
        raise ValueError(f"{name}: expected the configuration of a layer, got {given!r}")
    kinds = [*_RECURRENT, "RNN"]
    class_name = _checks.choice(given.get("class_name"), name, kinds)
    (layer,) = read(class_name, given["config"], weights, version)
    if getattr(layer, "go_backwards", False):
        raise ValueError(
            f"{name}: expected go_backwards={name == 'backward_layer'}, got the opposite, which is "
            "not supported"
        )
    return layer


def _turned(given: Any) -> Any:
    """Return the configuration of a layer that runs in the other direction."""
    if not isinstance(given, Mapping) or not isinstance(given.get("config"), Mapping):
        return given  # and an error
    config = given["config"]
    return {**given, "config": {**config, "go_backwards": not config.get("go_backwards", False)}}


def _dtype_of(weights: Sequence[Array]) -> Any:
    return np.float64 if any(w.dtype == np.float64 for w in weights) else np.float32


# Other layers with weights.


def _embedding(config: Config, weights: Sequence[Array]) -> list[Layer]:
    (table,) = _expect(weights, "embeddings")
    V, D = _checks.expect_shape(table, "weights[0]", ("V", "D")).shape
    config.size("input_dim", V)
    config.size("output_dim", D)
    embedding = Embedding(
        V,
        D,
        mask_zero=config.flag("mask_zero", False),
        dtype=config.dtype(_dtype_of(weights)),
    )
    embedding.load_state_dict({"weight": table})
    return [embedding]


def _dense(config: Config, weights: Sequence[Array]) -> list[Layer]:
    names = ("kernel", "bias")[: 1 + config.flag("use_bias", len(weights) > 1)]
    named = _expect(weights, *names)
    I, O = _checks.expect_shape(named[0], "weights[0]", ("I", "O")).shape
    config.size("units", O)
    config.size("input_dim", I)
    linear = Linear(I, O, bias=len(named) > 1, dtype=config.dtype(_dtype_of(weights)))
    arrays = {"weight": named[0].T, "bias": named[-1]}
    linear.load_state_dict({name: arrays[name] for name in linear.parameters()})
    return [linear, *_activation(config)]


def _layer_norm(config: Config, weights: Sequence[Array]) -> list[Layer]:
    config.last_axis("axis", -1)
    config.only("rms_scaling", False, False)
    given = {"gamma": config.flag("scale", True), "beta": config.flag("center", True)}
    names = [name for name, there in given.items() if there]
    if not names:
        raise ValueError(
            "scale, center: expected one of them True, got False, which is not supported"
        )
    named = dict(zip(names, _expect(weights, *names), strict=True))
    F = _checks.expect_shape(weights[0], "weights[0]", ("F",)).shape[0]
    norm = LayerNorm(
        F,
        config.take("epsilon", 1e-3),
        bias=given["beta"],
        dtype=config.dtype(_dtype_of(weights)),
    )
    arrays: dict[str, Any] = {"weight": named.get("gamma", np.ones(F)), "bias": named.get("beta")}
    norm.load_state_dict({name: arrays[name] for name in norm.parameters()})
    return [norm]


def _normalization(config: Config, weights: Sequence[Array]) -> list[Layer]:
    config.last_axis("axis", -1)
    mean, variance = config.take("mean"), config.take("variance")
    if weights:
        mean, variance, _ = _expect(weights, "mean", "variance", "count")
    if mean is None or np.size(mean) != np.size(variance):
        raise ValueError("mean, variance: expected numbers for each feature, or adapt() before")
    invert, dtype = config.flag("invert", False), config.dtype(_dtype_of(weights))
    return [
        Normalization(mean=np.ravel(mean), variance=np.ravel(variance), invert=invert, dtype=dtype)
    ]


def _batch_norm(config: Config, weights: Sequence[Array]) -> list[Layer]:
    """Read what is an affine map of each feature in inference, as a Linear of fixed weights."""
    config.last_axis("axis", -1)
    for name in (
        "momentum",
        "synchronized",
        "renorm_clipping",
        "renorm_momentum",
        "virtual_batch_size",
    ):
        config.take(name)
    config.only("renorm", False, False)
    epsilon = config.take("epsilon", 1e-3)
    given = {"gamma": config.flag("scale", True), "beta": config.flag("center", True)}
    names = [name for name, there in given.items() if there] + ["moving_mean", "moving_variance"]
    named = dict(zip(names, _expect(weights, *names), strict=True))
    mean, variance = (a.astype(np.float64) for a in weights[-2:])
    F = _checks.expect_shape(mean, "weights", ("F",)).shape[0]
    factor = named.get("gamma", np.ones(F)) / np.sqrt(variance + epsilon)
    affine = Linear(F, F, dtype=config.dtype(_dtype_of(weights)))
    bias = named.get("beta", np.zeros(F)) - mean * factor
    affine.load_state_dict({"weight": np.diag(factor), "bias": bias})
    affine.trainable = False
    return [affine]


def _expect(weights: Sequence[Array], *names: str) -> Sequence[Array]:
    """Return the weights, if there are as many as names."""
    if len(weights) != len(names):
        raise ValueError(f"weights: expected {len(names)}, {', '.join(names)}, got {len(weights)}")
    return weights


# Layers without weights.


def _activation(config: Config, weights: Sequence[Array] = ()) -> list[Layer]:
    _expect(weights)
    chosen = activations.read(config.take("activation"), "activation", config.version)
    config.take("dtype")
    return [] if chosen == activations.LINEAR else [Activation(*chosen)]


def _relu(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    slope, most = config.take("negative_slope", 0.0), config.take("max_value")
    config.only("threshold", 0.0, 0.0)
    if slope:
        if most is not None:
            raise ValueError("max_value: expected None with a negative_slope, which is supported")
        return [Activation("leaky_relu", slope)]
    return [Activation("relu") if most is None else Activation("hard_tanh", 0.0, most)]


def _leaky_relu(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    name = "alpha" if config.version == 2 else "negative_slope"
    return [Activation("leaky_relu", config.take(name, 0.3))]


def _elu(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    return [Activation("elu", config.take("alpha", 1.0))]


def _thresholded_relu(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    return [Activation("thresholded_relu", config.take("theta", 1.0))]


def _softmax(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    config.last_axis("axis", -1)
    return [Activation("softmax")]


def _dropout(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.only("noise_shape", None, None)
    config.take("dtype")
    return [Dropout(config.take("rate", 0.5))]


def _nothing(config: Config, weights: Sequence[Array]) -> list[Layer]:
    """Read a layer that returns its input in inference."""
    _expect(weights)
    for name in ("dtype", "rate", "stddev", "l1", "l2", "noise_shape"):
        config.take(name)
    return []


def _masking(config: Config, weights: Sequence[Array]) -> list[Layer]:
    _expect(weights)
    config.take("dtype")
    return [Masking(config.take("mask_value", 0.0))]


def _time_distributed(config: Config, weights: Sequence[Array]) -> list[Layer]:
    """Read a layer that is applied to each step, as all of ours are that it can wrap."""
    inner = config.take("layer")
    config.take("dtype")
    if not isinstance(inner, Mapping):
        raise ValueError(f"layer: expected the configuration of a layer, got {inner!r}")
    name = _checks.choice(inner.get("class_name"), "layer", _EACH_STEP)
    return read(name, inner["config"], weights, config.given_version, config.axes - 1)


#: What a TimeDistributed can wrap.
_EACH_STEP = (
    "Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Dropout", "LayerNormalization",
)  # fmt: skip

#: Readers of all classes of layers of Keras: (config, weights) -> our layers.
READERS: dict[str, Callable[[Config, Sequence[Array]], list[Layer]]] = {
    **dict.fromkeys(_RECURRENT, _recurrent),
    "RNN": _rnn_of_a_cell,
    "Bidirectional": _bidirectional,
    "Embedding": _embedding,
    "Dense": _dense,
    "LayerNormalization": _layer_norm,
    "Normalization": _normalization,
    "BatchNormalization": _batch_norm,
    "TimeDistributed": _time_distributed,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "ThresholdedReLU": _thresholded_relu,
    "Softmax": _softmax,
    "Masking": _masking,
    "Dropout": _dropout,
    **dict.fromkeys(
        ["SpatialDropout1D", "GaussianDropout", "GaussianNoise", "AlphaDropout",
         "ActivityRegularization", "Identity"], _nothing,
    ),
}  # fmt: skip


# And back.


def to_weights(layer: Layer, *, keras_version: int | str = 3) -> KerasLayer:
    """Return the weights and the configuration of the same layer in Keras.

    ::

        class_name, weights, config = fastrnn.keras.to_weights(lstm)
        layer = getattr(keras.layers, class_name).from_config(config)
        layer.build((None, None, lstm.input_size))
        layer.set_weights(weights)

    Parameters
    ----------
    layer : RNN, LSTM, GRU, Embedding, Linear, LayerNorm, Normalization
        One that :func:`from_weights` could have made: of one layer, and without what Keras does
        not have, such as projections, peepholes and layer normalisation.
    keras_version : int or str
        2 or 3: for which "hard_sigmoid" is another function.

    Returns
    -------
    KerasLayer
        ``(class_name, weights, config)``.

    Raises
    ------
    ValueError
        If Keras does not have such a layer.
    TypeError
        If it is not a layer, or one of another kind.

    Examples
    --------
    >>> class_name, weights, config = fastrnn.keras.to_weights(fastrnn.Linear(3, 2))
    >>> class_name, [w.shape for w in weights]
    ('Dense', [(3, 2), (2,)])
    """
    version = major_version(keras_version)
    if isinstance(layer, Layer):
        for kind, write in _WRITERS.items():
            if type(layer) is kind:
                return write(layer, version)
    expected = ", ".join(kind.__name__ for kind in _WRITERS)
    raise TypeError(f"layer: expected one of {expected}, got {_checks.kind_of(layer)}")


def _common(layer: Any) -> dict[str, Any]:
    return {"trainable": layer.trainable, "dtype": layer.dtype.name}


#: What Keras does not have: our option, and its value there.
NOT_IN_KERAS: dict[str, Any] = {
    "num_layers": 1, "proj_size": 0, "peephole": False, "layer_norm": False, "input_forget": False,
    "clip": None,
    "learn_initial_state": False,
}  # fmt: skip


def _activations_written(layer: Any, named: Sequence[str], version: int) -> dict[str, str]:
    """Return Keras's options for the activations of a recurrent layer."""
    usual = [getattr(layer, "nonlinearity", "tanh")] if len(named) == 1 else map(_USUAL.get, named)
    given = [activations.written(one, version) for one in layer.activations or usual]
    options = dict(zip(named, given, strict=False))
    if given != [options[name] for name in named]:
        raise ValueError(
            f"activations: expected the same for cell, hidden state and both directions, as "
            f"Keras's layers have, got {layer.activations}"
        )
    return options


def _recurrent_written(layer: Any, version: int) -> KerasLayer:
    for option, only in NOT_IN_KERAS.items():
        value = getattr(layer, option, only)
        if value != only:
            raise ValueError(f"{option}: expected {only!r}, as Keras's layers have, got {value!r}")
    class_name, named = next((n, a) for n, (k, a) in _RECURRENT.items() if k is type(layer))
    given = layer.state_dict()
    weights: list[Array] = []
    for suffix in ("_l0", "_l0_reverse")[: 1 + layer.bidirectional]:
        scan = {n.removesuffix(suffix): a for n, a in given.items() if n.endswith(suffix)}
        weights += layouts.unpack_keras(
            class_name, scan, reset_after=getattr(layer, "reset_after", True)
        )
    config = _common(layer) | {"units": layer.hidden_size, "use_bias": layer.bias}
    config |= _activations_written(layer, named, version)
    config |= {"return_sequences": layer.return_sequences, "go_backwards": layer.go_backwards}
    if class_name == "GRU":
        config["reset_after"] = layer.reset_after
    if not layer.bidirectional:
        return KerasLayer(class_name, weights, config)
    inner = {
        "module": "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }
    both = _common(layer) | {"merge_mode": "concat", "layer": inner}
    return KerasLayer("Bidirectional", weights, both)


def _embedding_written(layer: Embedding, version: int) -> KerasLayer:
    config = {"input_dim": layer.num_embeddings, "output_dim": layer.embedding_dim}
    config["mask_zero"] = layer.mask_zero
    return KerasLayer("Embedding", [layer.state_dict()["weight"]], _common(layer) | config)


def _linear_written(layer: Linear, version: int) -> KerasLayer:
    weight, *bias = layer.state_dict().values()
    config = {"units": layer.out_features, "use_bias": layer.bias}
    return KerasLayer("Dense", [weight.T.copy(), *bias], _common(layer) | config)


def _layer_norm_written(layer: LayerNorm, version: int) -> KerasLayer:
    if not layer.elementwise_affine:
        raise ValueError("elementwise_affine: expected True, got False")
    config = {"epsilon": layer.eps, "center": layer.bias}
    return KerasLayer("LayerNormalization", [*layer.state_dict().values()], _common(layer) | config)


def _normalization_written(layer: Normalization, version: int) -> KerasLayer:
    config = {"mean": layer.mean.tolist(), "variance": layer.variance.tolist()}
    return KerasLayer("Normalization", [], _common(layer) | config | {"invert": layer.invert})


_WRITERS: dict[type[Layer], Callable[[Any, int], KerasLayer]] = {
    RNN: _recurrent_written,
    LSTM: _recurrent_written,
    GRU: _recurrent_written,
    Embedding: _embedding_written,
    Linear: _linear_written,
    LayerNorm: _layer_norm_written,
    Normalization: _normalization_written,
}
