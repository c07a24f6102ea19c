"""``fastrnn.keras`` beside Keras 3: layers there and back, and models from the files it writes.

benchmarks/keras_layers.py does so with more of them, and with Keras 2.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.keras import from_weights, load, to_weights

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("h5py")
keras: Any = pytest.importorskip("keras")

L = keras.layers
B, T, F, V = 4, 7, 5, 11
LENGTHS = np.array([7, 3, 1, 5])
#: Rounding in float32, in which Keras multiplies matrices of float64 too, on torch.
CLOSE = 2e-6

pytestmark = pytest.mark.filterwarnings(  # of Keras on torch
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def filled(layer: Any, rng: np.random.Generator) -> Any:
    layer.set_weights([rng.uniform(-0.6, 0.6, w.shape) for w in layer.get_weights()])
    return layer


def run(layer: Any, x: Any, **options: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(x, **options))


RECURRENT = {
    "SimpleRNN": (L.SimpleRNN, {}),
    "ReLU": (L.SimpleRNN, {"activation": "relu"}),
    "LSTM": (L.LSTM, {"dropout": 0.2, "recurrent_dropout": 0.1, "unit_forget_bias": False}),
    "LSTM hard": (L.LSTM, {"recurrent_activation": "hard_sigmoid", "activation": "softsign"}),
    "GRU": (L.GRU, {}),
    "GRU before": (L.GRU, {"reset_after": False}),
    "GRU hard": (L.GRU, {"recurrent_activation": "hard_sigmoid", "activation": "elu"}),
    "no bias": (L.LSTM, {"use_bias": False}),
    "GRU no bias": (L.GRU, {"use_bias": False, "reset_after": False}),
    "float64": (L.GRU, {"dtype": "float64"}),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("form", ["steps", "last", "backwards", "both", "cell"])
def test_recurrent_layers_there_and_back(name: str, form: str, rng: np.random.Generator) -> None:
    """With initial states, and with masks."""
    kind, options = RECURRENT[name]
    of_form = {"return_sequences": form in ("steps", "both"), "go_backwards": form == "backwards"}
    if form == "cell":
        layer = L.RNN(getattr(L, f"{kind.__name__}Cell")(6, **options), return_sequences=True)
    else:
        layer = kind(6, **options, **of_form)
    if form == "both":
        layer = L.Bidirectional(layer)
    dtype = options.get("dtype", "float32")
    layer.build((B, T, F))
    filled(layer, rng)
    ours = from_weights(type(layer).__name__, layer.get_weights(), **layer.get_config())
    again_name, weights, config = to_weights(ours)
    again = getattr(L, again_name).from_config(config)
    again.build((B, T, F))
    again.set_weights(weights)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    x = drawn(B, T, F)
    states = 1 + (kind is L.LSTM)
    start = [drawn(B, 6) for _ in range(states * (1 + (form == "both")))]
    mine: Any = tuple(np.stack(start[k::states]) for k in range(states))
    wanted = run(layer, x, initial_state=start)
    y, _ = ours(x, mine if states > 1 else mine[0])
    np.testing.assert_allclose(y, wanted, atol=CLOSE)
    np.testing.assert_allclose(run(again, x, initial_state=start), wanted, atol=CLOSE)

    mask = np.arange(T) < LENGTHS[:, None]
    wanted, (y, _) = run(layer, x, mask=mask), ours(x, lengths=LENGTHS)
    kept = mask if wanted.ndim == 3 else slice(None)
    np.testing.assert_allclose(y[kept], wanted[kept], atol=CLOSE)


def test_other_layers_there_and_back(rng: np.random.Generator) -> None:
    for layer, x in (
        (L.Dense(3), rng.normal(size=(B, T, F))),
        (L.Dense(3, use_bias=False, dtype="float64"), rng.normal(size=(B, T, F))),
        (L.Embedding(V, 3, mask_zero=True), rng.integers(0, V, (B, T))),
        (L.LayerNormalization(epsilon=0.01), rng.normal(size=(B, T, F))),
        (L.LayerNormalization(center=False), rng.normal(size=(B, T, F))),
        (L.Normalization(mean=[0.1] * F, variance=[4.0] * F), rng.normal(size=(B, T, F))),
        (L.Normalization(mean=[1.0] * F, variance=[0.1] * F, invert=True), np.ones((B, T, F))),
    ):
        layer.build(x.shape)
        filled(layer, rng)
        ours = from_weights(type(layer).__name__, layer.get_weights(), **layer.get_config())
        np.testing.assert_allclose(ours(x), run(layer, x), atol=CLOSE)
        name, weights, config = to_weights(ours)
        again = getattr(L, name).from_config(config)
        again.build(x.shape)
        again.set_weights(weights)
        np.testing.assert_allclose(run(again, x), run(layer, x), atol=CLOSE)


def classifier() -> Any:
    return keras.Sequential([
        L.Input((None,)), L.Embedding(V, 4, mask_zero=True), L.SpatialDropout1D(0.3),
        L.Bidirectional(L.LSTM(5)), L.Dense(6, activation="relu"), L.Dropout(0.5),
        L.Dense(3, activation="softmax", name="out"),
    ])  # fmt: skip


def tagger() -> Any:
    tokens = L.Input((T,))
    x = L.Embedding(V, 4, mask_zero=True)(tokens)
    x = L.Bidirectional(L.GRU(5, return_sequences=True), merge_mode="ave")(x)
    return keras.Model(tokens, L.TimeDistributed(L.Dense(3, activation="sigmoid"))(x))


def sensors() -> Any:
    return keras.Sequential([
        L.Input((T, F)), L.Masking(-1.0), L.Dense(6, activation="elu"), L.LayerNormalization(),
        L.LSTM(5, return_sequences=True), L.GRU(4, go_backwards=True), L.Flatten(), L.Dense(2),
        L.LeakyReLU(),
    ])  # fmt: skip


def stacked() -> Any:
    x = given = L.Input((T, F))
    for layer in (
        L.Normalization(mean=[0.1] * F, variance=[4.0] * F), L.GaussianNoise(0.1),
        L.SimpleRNN(6, activation="relu", return_sequences=True), L.BatchNormalization(),
        L.LSTM(4, go_backwards=True, return_sequences=True),
        L.RNN(L.GRUCell(5, recurrent_activation="hard_sigmoid")), L.ReLU(6.0), L.Dense(2),
        L.Activation("hard_sigmoid"),
    ):  # fmt: skip
        x = layer(x)
    return keras.Model(given, x)


@pytest.mark.parametrize("make", [classifier, tagger, sensors, stacked], ids=lambda f: f.__name__)
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_models(make: Any, ending: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """Padding, and its masks, included; and in files of our own."""
    model = make()
    rand = [abs(w) for w in filled(model, rng).get_weights()]  # variances are not negative
    model.set_weights(rand)
    kept = np.arange(T) < LENGTHS[:, None]
    if len(model.input_shape) == 2:
        x = np.where(kept, rng.integers(1, V, (B, T)), 0)
    else:
        x = rng.normal(size=(B, T, F)).astype("f")
        x = np.where(kept[:, :, None], x, np.float32(-1)) if make is sensors else x
    path = tmp_path / f"m.{ending}"
    model.save(path)
    found = load(path)
    wanted, y = model.predict(x, verbose=0), found.predict(x)
    at = kept if make is tagger else slice(None)
    np.testing.assert_allclose(y[at], wanted[at], atol=CLOSE)
    found.save(tmp_path / "own")
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "own").predict(x), y)
    with pytest.raises(ValueError, match=r"Keras.*fastrnn.keras.load\(path\)"):
        fastrnn.load(path)


def test_padding_before_sequences(rng: np.random.Generator, tmp_path: Path) -> None:
    """As ``pad_sequences`` puts it."""
    model = filled(classifier(), rng)
    x = np.where(np.arange(T) >= T - LENGTHS[:, None], rng.integers(1, V, (B, T)), 0)
    model.save(tmp_path / "m.keras")
    y = load(tmp_path / "m.keras").predict(x)
    np.testing.assert_allclose(y, model.predict(x, verbose=0), atol=CLOSE)


def test_models_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    sequences = L.Input((T, F))
    backwards = {"go_backwards": True, "return_sequences": True}
    two = keras.Model(sequences, L.Add()([L.GRU(3)(sequences), L.LSTM(3)(sequences)]))

    @keras.saving.register_keras_serializable()
    class Own(L.LSTM):
        pass

    for model, message in [
        (keras.Sequential([sequences, L.Lambda(lambda x: 2 * x)]), r"\(Lambda\): is Python code"),
        (
            keras.Sequential([sequences, Own(3)]),
            r"\(Custom>Own\): is of a class that is not Keras's",
        ),
        (keras.Sequential([sequences, L.Conv1D(3, 2)]), r"\(Conv1D\): is not supported"),
        (
            keras.Sequential([sequences, L.GRU(3, activation="gelu")]),
            r"\(GRU\): activation: expected",
        ),
        (
            keras.Sequential([sequences, L.Masking(), L.GRU(3, **backwards)]),
            r"\(GRU\): go_backwards: expected False or return_sequences=False in a model t",
        ),
        (two, r"layer 'add.*: expected one input, from before it in a chain, got gru.*, lstm"),
    ]:
        model.save(path)
        with pytest.raises(ValueError, match=message):
            load(path)
    keras.Sequential([sequences, L.LSTM(3)]).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="holds weights without the layers that they are for"):
        load(tmp_path / "m.weights.h5")
