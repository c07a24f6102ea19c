"""Random layers of Keras to ours and back, and whole models from their files: largest differences.

python benchmarks/keras_layers.py [--count 200] [--seed 0] [--module tf_keras]

Keras 3 runs on its torch backend unless KERAS_BACKEND says otherwise; ``--module tf_keras`` is
Keras 2. A layer of Keras gets random weights, becomes one of ours by `fastrnn.keras.from_weights`,
which `fastrnn.keras.to_weights` turns into a new one of Keras; all three run on the same inputs,
initial states and masks. A model is saved, as `.keras` and as `.h5`, and read.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastrnn

TOLERANCE = 1e-5
CELL_ACTIVATIONS = [
    "tanh", "sigmoid", "hard_sigmoid", "relu", "linear", "elu", "softsign", "softplus", "leaky_relu"
]  # fmt: skip
UNBOUNDED = ("relu", "linear", "elu", "softplus", "leaky_relu")
GATES = ["sigmoid", "sigmoid", "hard_sigmoid", "tanh", "softsign"]
RECURRENT = ("SimpleRNN", "LSTM", "GRU")
OTHERS = ("Embedding", "Dense")


class Draw:
    """Random choices, and layers of a Keras with random weights."""

    def __init__(self, keras: Any, seed: int) -> None:
        self.keras, self.rng = keras, np.random.default_rng(seed)

    def one_of(self, *values: Any) -> Any:
        """Return one of these."""
        return values[self.rng.integers(len(values))]

    def chance(self, p: float) -> bool:
        """Return True with probability `p`."""
        return bool(self.rng.random() < p)

    def numbers(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return random numbers."""
        return self.rng.normal(size=shape).astype(dtype)

    def filled(self, layer: Any) -> Any:
        """Give a layer or a model random weights, large enough for its gates to saturate.

        Smaller ones where an activation is not bounded, which amplifies rounding step by step.
        """
        told = str(layer.get_config())
        unbounded = any(f"'activation': {name!r}" in told for name in UNBOUNDED)
        for_units = {int(n) for n in re.findall(r"'units': (\d+)", told)} or {1}
        scale = min(0.7, 1 / max(for_units) ** 0.5) if unbounded else 0.7
        shapes = [np.shape(w) for w in layer.get_weights()]
        layer.set_weights([self.rng.uniform(-scale, scale, shape) for shape in shapes])
        return layer

    def recurrent(self, kind: str, units: int, dtype: str) -> dict[str, Any]:
        """Return options of a recurrent layer."""
        options: dict[str, Any] = {
            "units": units,
            "activation": "tanh" if self.chance(0.5) else self.one_of(*CELL_ACTIVATIONS),
            "use_bias": self.chance(0.8),
            "return_sequences": self.chance(0.5),
            "go_backwards": self.chance(0.25),
            "dropout": self.one_of(0.0, 0.3),
            "recurrent_dropout": self.one_of(0.0, 0.3),
            "unroll": self.chance(0.1),
            "dtype": dtype,
        }
        if kind != "SimpleRNN":
            # Beyond 0..1, the gates of a GRU amplify rounding.
            options["recurrent_activation"] = self.one_of(*(GATES[:3] if kind == "GRU" else GATES))
        if kind == "GRU":
            options["reset_after"] = self.chance(0.5)
        if kind == "LSTM":
            options["unit_forget_bias"] = self.chance(0.5)
        return options

    def layer(self, kind: str, features: int) -> Any:
        """Return a layer of a kind, not built."""
        layers, dtype = self.keras.layers, self.one_of("float32", "float32", "float64")
        units = int(self.rng.integers(1, 24))
        if kind == "Embedding":
            return layers.Embedding(features + 7, units, mask_zero=self.chance(0.5), dtype=dtype)
        if kind == "Dense":
            return layers.Dense(units, use_bias=self.chance(0.7), dtype=dtype)
        both, cell = kind.startswith("Bidirectional"), kind.startswith("RNN")
        inner = kind.split(" ")[-1]
        options = self.recurrent(inner, units, dtype)
        if cell:
            of_layer = {n: options.pop(n) for n in ("return_sequences", "go_backwards", "unroll")}
            made = getattr(layers, f"{inner}Cell")(**options)
            return layers.RNN(made, **of_layer, dtype=dtype)
        if both:
            options |= {"go_backwards": False, "unroll": False}
        made = getattr(layers, inner)(**options)
        return layers.Bidirectional(made, merge_mode="concat", dtype=dtype) if both else made


def numbers(keras: Any, value: Any) -> np.ndarray:
    """Return a tensor of any backend as an array."""
    convert = getattr(keras, "ops", None)
    return np.asarray(convert.convert_to_numpy(value) if convert else value)


def of_keras(keras: Any, layer: Any, x: Any, state: list[Any] | None, mask: Any) -> np.ndarray:
    """Call a layer of Keras."""
    if not hasattr(keras, "ops"):  # Keras 2
        state = None if state is None else [keras.backend.constant(s, s.dtype) for s in state]
        mask = None if mask is None else keras.backend.constant(mask, "bool")
    options = {"initial_state": state, "mask": mask}
    return numbers(keras, layer(x, **{n: v for n, v in options.items() if v is not None}))


def valid(y: np.ndarray, layer: Any, lengths: np.ndarray | None, ours: bool) -> np.ndarray:
    """Return the outputs of steps that are no padding, row by row.

    Where a layer goes backwards, Keras turns the padding too, to the start; ours stays at the end.
    """
    if lengths is None or not getattr(layer, "return_sequences", False):
        return y
    ended = ours or not getattr(layer, "go_backwards", False)
    return np.concatenate([
        row[:n] if ended else row[len(row) - n :] for row, n in zip(y, lengths, strict=True)
    ])  # fmt: skip


def there_and_back(keras: Any, draw: Draw, kind: str, version: int) -> float:
    """Return the largest difference of outputs for one random layer."""
    B, T, F = (int(draw.rng.integers(1, n)) for n in (6, 10, 12))
    layer = draw.layer(kind, F)
    dtype = np.dtype(layer.compute_dtype)
    x = draw.numbers((B, T, F), dtype)
    if kind == "Embedding":
        x = draw.rng.integers(0, F + 7, (B, T))
    layer.build(x.shape)
    draw.filled(layer)
    ours = fastrnn.keras.from_weights(
        type(layer).__name__, layer.get_weights(), keras_version=version, **layer.get_config()
    )
    recurrent = kind not in OTHERS
    # Keras 3 on torch has no masks where it unrolls.
    masked = recurrent and not getattr(layer, "unroll", False) and draw.chance(0.3)
    lengths = draw.rng.integers(1, T, B, endpoint=True) if masked else None
    mask = None if lengths is None else np.arange(T) < lengths[:, None]
    state = None
    if recurrent and draw.chance(0.4):
        count = (2 if "LSTM" in kind else 1) * (2 if kind.startswith("Bi") else 1)
        state = [draw.numbers((B, ours.hidden_size), dtype) for _ in range(count)]
    wanted = valid(of_keras(keras, layer, x, state, mask), layer, lengths, False)
    if recurrent:
        per_cell = 2 if "LSTM" in kind else 1
        mine = None
        if state is not None:
            mine = tuple(np.stack(state[i::per_cell]) for i in range(per_cell))
        y, _ = ours(x, mine[0] if mine is not None and per_cell == 1 else mine, lengths=lengths)
    else:
        y = ours(x)
    found = valid(y, layer, lengths, True)
    class_name, weights, config = fastrnn.keras.to_weights(ours, keras_version=version)
    again = getattr(keras.layers, class_name).from_config(config)
    again.build(x.shape)
    again.set_weights(weights)
    back = valid(of_keras(keras, again, x, state, mask), layer, lengths, False)
    return max(difference(found, wanted), difference(back, wanted))


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference, relative to numbers above 1: of unbounded activations."""
    return float((np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max())


def models(keras: Any) -> dict[str, Callable[[], Any]]:
    """Return functions that make whole models, by what they are."""
    layers, T, F, V = keras.layers, 9, 5, 17

    def sequential(*made: Any) -> Any:
        return keras.Sequential([*made])

    def functional(*made: Any) -> Any:
        x = first = made[0]
        for layer in made[1:]:
            x = layer(x)
        return keras.Model(first, x)

    def floats() -> Any:
        return layers.Input((T, F))

    def tokens() -> Any:
        return layers.Input((None,))

    made: dict[str, Callable[[], Any]] = {
        "LSTM, Dense": lambda: sequential(floats(), layers.LSTM(7), layers.Dense(1)),
        "text classifier, padded": lambda: sequential(
            tokens(), layers.Embedding(V, 6, mask_zero=True), layers.SpatialDropout1D(0.2),
            layers.Bidirectional(layers.LSTM(7, dropout=0.2, recurrent_dropout=0.1)),
            layers.Dense(8, activation="relu"), layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ),
        "tagger, functional": lambda: functional(
            tokens(), layers.Embedding(V, 6),
            layers.Bidirectional(layers.GRU(5, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4, activation="softmax")),
        ),
        "stack of GRUs, reset before": lambda: sequential(
            floats(), layers.GRU(6, reset_after=False, return_sequences=True),
            layers.GRU(7, reset_after=False, go_backwards=True, return_sequences=True),
            layers.GRU(4, go_backwards=True), layers.Flatten(), layers.Dense(2, use_bias=False),
        ),
        "hard_sigmoid, functional": lambda: functional(
            floats(), layers.LSTM(7, recurrent_activation="hard_sigmoid", return_sequences=True),
            layers.GRU(6, recurrent_activation="hard_sigmoid", activation="relu"),
            layers.Dense(2), layers.Activation("hard_sigmoid"),
        ),
        "masked sensors": lambda: sequential(
            floats(), layers.Masking(-1.0), layers.GaussianNoise(0.1), layers.LSTM(7),
            layers.Dense(2, activation="tanh"),
        ),
        "character model": lambda: sequential(
            tokens(), layers.Embedding(V, 6), layers.GRU(9, return_sequences=True),
            layers.GRU(8, return_sequences=True), layers.Dense(V),
        ),
        "RNN of a cell, sum and ave": lambda: sequential(
            floats(), layers.RNN(layers.LSTMCell(6), return_sequences=True),
            layers.Bidirectional(layers.SimpleRNN(5, return_sequences=True), merge_mode="sum"),
            layers.Bidirectional(layers.GRU(4), merge_mode="ave"), layers.Dense(2),
        ),
        "activations": lambda: sequential(
            floats(), layers.Dense(8), layers.LeakyReLU(), layers.SimpleRNN(7, activation="relu"),
            layers.Dense(8, activation="elu"), layers.ReLU(6.0), layers.Dense(8, activation="selu"),
            layers.ELU(0.7), layers.Dense(4, activation="swish"), layers.Softmax(),
        ),
        "normalised": lambda: normalised(keras, floats()),
        "a model in a model": lambda: sequential(
            floats(), sequential(floats(), layers.LSTM(6, return_sequences=True)),
            sequential(layers.Input((T, 6)), layers.GRU(5), layers.Dense(4)), layers.Dense(2),
        ),
    }  # fmt: skip
    return made


def normalised(keras: Any, given: Any) -> Any:
    layers = keras.layers
    scaling = layers.Normalization()
    scaling.adapt(np.random.default_rng(0).normal(3, 2, (20, 9, 5)).astype("float32"))
    return keras.Sequential([
        given, scaling, layers.LSTM(7, return_sequences=True), layers.LayerNormalization(),
        layers.GRU(6), layers.BatchNormalization(), layers.Dense(2),
    ])  # fmt: skip


def padded(draw: Draw, model: Any, name: str) -> np.ndarray:
    """Return inputs of a model; padding where it masks some."""
    B, T = 6, 9
    kept = np.arange(T) < draw.rng.integers(1, T, B, endpoint=True)[:, None]
    if len(model.input_shape) == 2:
        tokens = draw.rng.integers(1, 17, (B, T))
        return np.where(kept, tokens, 0) if "padded" in name else tokens
    x = draw.rng.normal(size=(B, T, 5)).astype("float32")
    return np.where(kept[:, :, None], x, np.float32(-1)) if "masked" in name else x


def of_files(keras: Any, draw: Draw, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield names of models, and the largest differences of their outputs."""
    for name, make in models(keras).items():
        model = make()
        if name != "normalised":
            draw.filled(model)
        x = padded(draw, model, name)
        wanted = model.predict(x, verbose=0)
        for ending in ("keras", "h5"):
            if ending == "h5" and name == "a model in a model":
                continue
            path = folder / f"m.{ending}"
            model.save(path)
            found = fastrnn.keras.load(path).predict(x)
            yield f"{name}, .{ending}", difference(found, wanted)


def main() -> None:
    """Print a line for each kind of layer and each model; exit with 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="layers (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", default="keras", choices=["keras", "tf_keras"])
    options = parser.parse_args()
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ.setdefault("KERAS_BACKEND", "torch")
    warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
    logging.getLogger("absl").setLevel(logging.ERROR)
    keras = import_module(options.module)
    version = int(keras.__version__.split(".")[0])
    print(f"{options.module} {keras.__version__}")
    draw = Draw(keras, options.seed)
    kinds = [
        *RECURRENT, *(f"Bidirectional {kind}" for kind in RECURRENT),
        *(f"RNN of {kind}" for kind in RECURRENT), *OTHERS,
    ]  # fmt: skip
    largest = {kind: [0, 0.0] for kind in kinds}
    for i in tqdm(range(options.count), disable=None, leave=False):
        kind = kinds[i % len(kinds)]
        found = there_and_back(keras, draw, kind, version)
        largest[kind] = [largest[kind][0] + 1, max(largest[kind][1], found)]
    differences = [value for _, value in largest.values()]
    for kind, (count, value) in largest.items():
        print(f"{count:>4} {kind:<28} {value:.1e}")
    with tempfile.TemporaryDirectory() as folder:
        for name, value in of_files(keras, draw, Path(folder)):
            differences.append(value)
            print(f"     {name:<40} {value:.1e}")
    print(f"largest difference: {max(differences):.1e}")
    sys.exit(max(differences) > TOLERANCE)


if __name__ == "__main__":
    main()
