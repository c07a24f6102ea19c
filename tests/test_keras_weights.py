"""``fastrnn.keras.from_weights`` and ``to_weights``, without Keras: options, errors, round trips.

tests/test_keras.py compares numbers with Keras.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.keras import from_weights, to_weights
from fastrnn.keras.layers import NOT_IN_KERAS

T, B, I, H = 7, 2, 3, 5
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
KINDS = {"SimpleRNN": fastrnn.RNN, "LSTM": fastrnn.LSTM, "GRU": fastrnn.GRU}

#: Of ``keras.layers.LSTM(5).get_config()``, in Keras 3 and in Keras 2.
KERAS_3 = {
    "name": "lstm", "trainable": True,
    "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"},
              "registered_name": None},
    "return_sequences": False, "return_state": False, "go_backwards": False, "stateful": False,
    "unroll": False, "zero_output_for_mask": False, "units": 5, "activation": "tanh",
    "recurrent_activation": "sigmoid", "use_bias": True,
    "kernel_initializer": {"class_name": "GlorotUniform", "config": {}},
    "recurrent_initializer": {"class_name": "Orthogonal", "config": {}}, "unit_forget_bias": True,
    "kernel_regularizer": None, "bias_constraint": None, "dropout": 0.1, "recurrent_dropout": 0.2,
    "seed": None,
}  # fmt: skip
KERAS_2 = {
    **{n: v for n, v in KERAS_3.items() if n not in ("zero_output_for_mask", "seed")},
    "dtype": "float32", "time_major": False, "implementation": 2,
}  # fmt: skip


@pytest.fixture
def drawn(rng: np.random.Generator) -> Any:
    """``drawn(kind, bias=..., dtype=...)``: weights of a layer of Keras."""

    def draw(kind: str, *, bias: str = "one", dtype: str = "float32") -> list[Any]:
        G = GATES[kind]
        shapes: list[Any] = [(I, G * H), (H, G * H)]
        shapes += {"none": [], "one": [(G * H,)], "two": [(2, G * H)]}[bias]
        return [rng.normal(size=shape).astype(dtype) for shape in shapes]

    return draw


def bidirectional(kind: str, **options: Any) -> dict[str, Any]:
    inner = {"units": H, "return_sequences": True} | options
    return {"layer": {"class_name": kind, "config": inner}}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("bias", ["none", "one"])
@pytest.mark.parametrize("both", [False, True])
def test_there_and_back(kind: str, bias: str, both: bool, drawn: Any, dtype: np.dtype) -> None:
    weights = drawn(kind, bias=bias, dtype=dtype.name)
    options: dict[str, Any] = {"return_sequences": True, "units": H}
    name = kind
    if both:
        weights += drawn(kind, bias=bias, dtype=dtype.name)
        name, options = "Bidirectional", bidirectional(kind)
    if kind == "GRU" and bias == "none":
        (options["layer"]["config"] if both else options)["reset_after"] = False
    layer = from_weights(name, weights, **options)
    assert type(layer) is KINDS[kind]
    assert layer.dtype == dtype
    assert layer.batch_first
    assert layer.bidirectional == both
    assert layer(np.ones((B, T, I)))[0].shape == (B, T, H * (1 + both))
    back = to_weights(layer)
    assert back.class_name == name
    assert len(back.weights) == len(weights)
    for a, b in zip(back.weights, weights, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    again = from_weights(back.class_name, back.weights, **back.config)
    assert again.get_config() == layer.get_config()
    for a, b in zip(again.state_dict().values(), layer.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_reset_after_is_that_of_the_bias(drawn: Any) -> None:
    for bias, after in (("one", False), ("two", True), ("none", True)):
        layer = from_weights("GRU", drawn("GRU", bias=bias))
        assert layer.reset_after == after
        np.testing.assert_array_equal(to_weights(layer).weights[-1], to_weights(layer).weights[-1])
    assert not from_weights("GRU", drawn("GRU", bias="none"), reset_after=False).reset_after
    with pytest.raises(ValueError, match=r"reset_after: expected True, as the bias has the shape"):
        from_weights("GRU", drawn("GRU", bias="two"), reset_after=False)


def test_options_of_both_versions(drawn: Any) -> None:
    """What does not matter in inference is not looked at; defaults are Keras's."""
    weights = drawn("LSTM")
    first = from_weights("LSTM", weights)
    assert repr(first) == "LSTM(3, 5, batch_first=True, return_sequences=False)"
    for config in (KERAS_3, KERAS_2):
        layer = from_weights("LSTM", weights, **config)
        assert layer.get_config() == first.get_config()
    layer = from_weights("LSTM", weights, **KERAS_2 | {"time_major": True, "trainable": False})
    assert not layer.batch_first
    assert not layer.trainable
    assert to_weights(layer).config["trainable"] is False
    assert from_weights("LSTM", weights, go_backwards=True).go_backwards
    for policy in ("float16", "mixed_bfloat16", {"config": {"name": "mixed_float16"}}):
        assert from_weights("LSTM", weights, dtype=policy).dtype == np.float32
    assert from_weights("LSTM", weights, dtype="float64").dtype == np.float64


def test_hard_sigmoid_is_that_of_the_version(drawn: Any) -> None:
    weights = drawn("LSTM")
    older, newer = ("hard_sigmoid", 0.2, 0.5), ("hard_sigmoid", 1 / 6, 0.5)
    for config, more, expected in (
        ({}, {}, newer), (KERAS_3, {}, newer), (KERAS_2, {}, older),
        ({}, {"keras_version": 2}, older), ({}, {"keras_version": "2.15.0"}, older),
        (KERAS_2, {"keras_version": "3.4.1"}, newer),
    ):  # fmt: skip
        options = {**config, "recurrent_activation": "hard_sigmoid", **more}
        layer = from_weights("LSTM", weights, **options)
        assert layer.activations == (expected, "tanh", "tanh")
    options = bidirectional("GRU", recurrent_activation="hard_sigmoid", implementation=2)
    both = from_weights("Bidirectional", drawn("GRU") * 2, **options)
    assert both.activations == (older, "tanh")
    assert to_weights(both, keras_version=2).config["layer"]["config"]["activation"] == "tanh"
    with pytest.raises(ValueError, match=r"activations: expected those of Keras 3, got \('hard_si"):
        to_weights(both)
    with pytest.raises(ValueError, match=r"keras_version: expected 2 or 3, or such as '2\.15\.0'"):
        from_weights("LSTM", weights, keras_version=4)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(
    ("name", "ours"),
    [("relu", "relu"), ("linear", ("affine", 1.0, 0.0)), ("elu", ("elu", 1.0)),
     ("leaky_relu", ("leaky_relu", 0.2)), ("softsign", "softsign"), (None, ("affine", 1.0, 0.0))],
)  # fmt: skip
def test_activations(kind: str, name: Any, ours: Any, drawn: Any) -> None:
    layer = from_weights(kind, drawn(kind), activation=name)
    if (kind, name) == ("SimpleRNN", "relu"):
        assert layer.nonlinearity == "relu"
    else:
        assert layer.activations is not None
        assert layer.activations[-1] == ours
    assert to_weights(layer).config["activation"] == (name or "linear")


def test_rnn_of_a_cell(drawn: Any) -> None:
    cell = {"class_name": "GRUCell", "config": {"units": H, "reset_after": False, "name": "c"}}
    layer = from_weights("RNN", drawn("GRU"), cell=cell, return_sequences=True, name="rnn")
    assert repr(layer) == "GRU(3, 5, batch_first=True, reset_after=False)"


def test_layers_that_are_not_recurrent(rng: np.random.Generator) -> None:
    table, kernel, bias = (rng.normal(size=s).astype("f") for s in ((7, 4), (4, 6), (6,)))
    embedding = from_weights("Embedding", [table], input_dim=7, output_dim=4, mask_zero=True)
    np.testing.assert_array_equal(embedding([[3, 1]]), table[[[3, 1]]])
    assert embedding.mask_zero
    dense = from_weights("Dense", [kernel, bias], units=6, activation="linear")
    x = rng.normal(size=(3, 4)).astype("f")
    np.testing.assert_allclose(dense(x), x @ kernel + bias, atol=1e-5)
    for layer in (embedding, dense, from_weights("Dense", [kernel], use_bias=False)):
        name, weights, config = to_weights(layer)
        again = from_weights(name, weights, **config)
        assert again.get_config() == layer.get_config()
        assert all(map(np.array_equal, again.state_dict().values(), layer.state_dict().values()))
    assert repr(from_weights("Dropout", [], rate=0.25)) == "Dropout(p=0.25)"


def test_layers_that_become_others(rng: np.random.Generator) -> None:
    x = rng.normal(size=(B, T, 4)).astype("f")
    gamma, beta, mean, variance = rng.uniform(0.5, 2, (4, 4))
    norm = from_weights("BatchNormalization", [gamma, beta, mean, variance], epsilon=0.1)
    wanted = (x - mean) / np.sqrt(variance + 0.1) * gamma + beta
    np.testing.assert_allclose(norm(x), wanted, atol=1e-5)
    assert not norm.trainable
    scaling = from_weights("Normalization", [mean, variance, 3], axis=[2])
    np.testing.assert_allclose(scaling(x), (x - mean) / np.sqrt(variance), atol=1e-5)
    for name, options, wanted in [
        ("ReLU", {}, np.maximum(x, 0)),
        ("ReLU", {"max_value": 0.5}, np.clip(x, 0, 0.5)),
        ("ReLU", {"negative_slope": 0.1}, np.where(x > 0, x, 0.1 * x)),
        ("LeakyReLU", {}, np.where(x > 0, x, 0.3 * x)),
        ("LeakyReLU", {"alpha": 0.2, "keras_version": 2}, np.where(x > 0, x, 0.2 * x)),
        ("ELU", {"alpha": 0.5}, np.where(x > 0, x, 0.5 * np.expm1(x))),
        ("ThresholdedReLU", {"theta": 0.5}, np.where(x > 0.5, x, 0)),
        ("Softmax", {"axis": [-1]}, np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        ("Activation", {"activation": "hard_sigmoid"}, np.clip(x / 6 + 0.5, 0, 1)),
        ("TimeDistributed", {"layer": {"class_name": "ReLU", "config": {}}}, np.maximum(x, 0)),
        ("Masking", {"mask_value": 1.0}, x),
    ]:
        np.testing.assert_allclose(from_weights(name, [], **options)(x), wanted, atol=1e-6)


def test_what_is_refused(drawn: Any) -> None:
    lstm, table = drawn("LSTM"), np.ones((7, 4))
    own = {"class_name": "function", "config": "mine", "module": "builtins"}
    relu = {"go_backwards": True, "activation": "relu", "return_sequences": True}
    for name, weights, options, message in [
        ("Conv1D", [], {}, r"layer_class_name: expected one of 'SimpleRNN', .*got 'Conv1D'"),
        ("Lstm", lstm, {}, r"got 'Lstm'; did you mean 'LSTM'\?"),
        ("LSTM", lstm[:1], {}, "weights: expected a list of kernel, recurrent kernel and perhaps"),
        ("LSTM", lstm, {"units": 4}, "units: expected 5, the size of the weights, got 4"),
        ("LSTM", lstm, {"use_bias": False}, "use_bias: expected True, got False"),
        ("LSTM", lstm, {"activation": "mine"}, "activation: expected one of .*got 'mine'"),
        ("LSTM", lstm, {"activation": own}, "activation: expected one of .*got 'mine'"),
        ("LSTM", lstm, {"activation": "gelu"}, "activation: expected one of .*got 'gelu'"),
        ("LSTM", lstm, {"activation": "softmax"}, "activations: expected one of .*got 'softmax'"),
        ("LSTM", lstm, {"projection": 3}, "projection: unknown for LSTM, or not supported"),
        ("LSTM", lstm, {"dtype": "int8"}, "dtype: expected one of 'float32', .*got 'int8'"),
        ("LSTM", lstm, {"quantization_config": {}}, "quantization_config: expected None, got {}"),
        ("LSTM", lstm, {"return_sequences": "yes"}, "return_sequences: expected True or False"),
        ("LSTM", np.ones((3, 4)), {}, "weights: expected a list of arrays, got ndarray"),
        ("LSTM", [*lstm[:2], ["a"]], {}, r"weights\[2\]: expected an array of real numbers"),
        ("Bidirectional", lstm * 2, {}, "layer: expected the configuration of a layer, got None"),
        ("Bidirectional", lstm * 2, bidirectional("LSTM") | {"merge_mode": "mul"},
         "merge_mode: expected 'concat', 'sum' or 'ave', got 'mul'"),
        ("Bidirectional", lstm * 2, bidirectional("LSTM") | {"merge_mode": None},
         "merge_mode: expected 'concat', 'sum' or 'ave', got None"),
        ("Bidirectional", lstm * 2, bidirectional("LSTM") | {"merge_mode": "sum"},
         "Bidirectional: expected options that one layer has here, got those of 2"),
        ("Bidirectional", lstm * 2, bidirectional("LSTM", go_backwards=True),
         "layer: expected go_backwards=False, got the opposite"),
        ("Bidirectional", lstm * 2, bidirectional("LSTM") | {"backward_layer":
         {"class_name": "LSTM", "config": relu}},
         "backward_layer: expected the options of the forward one"),
        ("Bidirectional", lstm * 2, bidirectional("Conv1D"), "layer: expected one of 'SimpleRNN'"),
        ("RNN", lstm, {"cell": [{}]}, "cell: expected SimpleRNNCell, LSTMCell or GRUCell, got"),
        ("RNN", lstm, {"cell": {"class_name": "Mine"}}, "cell: expected one of .*got 'Mine'"),
        ("Embedding", [table, table], {}, "weights: expected 1, embeddings, got 2"),
        ("Embedding", [table], {"input_dim": 8}, "input_dim: expected 7, the size of the weights"),
        ("Dense", [table], {"use_bias": True}, "weights: expected 2, kernel, bias, got 1"),
        ("Dense", [table], {"activation": "relu"}, "Dense: expected options that one layer has"),
        ("Dropout", [], {"noise_shape": [1]}, r"noise_shape: expected None, got \[1\]"),
        ("Normalization", [], {}, r"mean, variance: expected numbers for each feature, or adapt"),
        ("LayerNormalization", [table[0]] * 2, {"axis": 1}, "axis: expected -1, the last axis, go"),
        ("LayerNormalization", [table[0]] * 2, {"rms_scaling": True}, "rms_scaling: expected F"),
        ("LayerNormalization", [], {"scale": False, "center": False}, "scale, center: expected"),
        ("BatchNormalization", [table[0]] * 4, {"renorm": True}, "renorm: expected False, got"),
        ("ReLU", [], {"threshold": 1.0}, "threshold: expected 0.0, got 1.0"),
        ("Softmax", [], {"axis": 1}, "axis: expected -1, the last axis, got 1"),
        ("GaussianNoise", [], {}, "GaussianNoise: expected options that one layer has here, got"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=message):
            from_weights(name, weights, **options)


def test_what_keras_does_not_have() -> None:
    for layer, message in [
        (fastrnn.LSTM(I, H, num_layers=2), "num_layers: expected 1, as Keras's layers have, got 2"),
        (fastrnn.LSTM(I, H, proj_size=2), "proj_size: expected 0"),
        (fastrnn.LSTM(I, H, peephole=True), "peephole: expected False"),
        (fastrnn.GRU(I, H, layer_norm=True), "layer_norm: expected False"),
        (fastrnn.GRU(I, H, clip=3.0), "clip: expected None"),
        (fastrnn.GRU(I, H, learn_initial_state=True), "learn_initial_state: expected False"),
        (fastrnn.LSTM(I, H, input_forget=True), "input_forget: expected False"),
        (
            fastrnn.LSTM(I, H, activations=["sigmoid", "relu", "tanh"]),
            "activations: expected the s",
        ),
        (fastrnn.RNN(I, H, activations=[("scaled_tanh", 2.0, 1.0)]), "activations: expected those"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            to_weights(layer)
    for other in (fastrnn.IndRNN(I, H), fastrnn.LSTM, None):
        with pytest.raises(
            TypeError, match="layer: expected one of RNN, LSTM, GRU, Embedding, Lin"
        ):
            to_weights(other)


#: Options of our layers that Keras has too, or that matter in training alone.
TOLD = {
    "input_size", "hidden_size", "bias", "activations", "dtype", "nonlinearity", "reset_after",
    "batch_first", "bidirectional", "return_sequences", "go_backwards",
    "dropout", "weight_dropout", "matmul_precision",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values())
def test_no_option_is_forgotten(kind: Any) -> None:
    assert {*kind(I, H).get_config()} - TOLD <= {*NOT_IN_KERAS}


def test_weights_of_torch_have_one_bias_in_keras() -> None:
    lstm = fastrnn.LSTM(I, H, seed=0)
    held = lstm.state_dict()
    np.testing.assert_array_equal(
        to_weights(lstm).weights[2], held["bias_ih_l0"] + held["bias_hh_l0"]
    )
