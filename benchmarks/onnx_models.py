"""Whole recurrent models exported by torch, tf2onnx and skl2onnx, read by fastrnn.onnx.load.

python benchmarks/onnx_models.py [FOLDER] [--write] [--only NAME]

    pip install torch==2.13.0 onnxscript skl2onnx onnxruntime   for torch's two exporters, skl2onnx
    pip install tensorflow-cpu tf_keras tf2onnx                 elsewhere, for tf2onnx

``--write`` exports models with what is installed, and keeps them in FOLDER with inputs and what the
exporting framework computes for them; without it, those in FOLDER are read, or without FOLDER they
are first exported. A line for each: the largest difference of any output of fastrnn's from the
framework's and from ONNX Runtime's, with a larger batch than at export and, where their number may
vary, more steps; what it is here, a graph or, where it is a chain of layers, a Sequential, which is
compared too; and its operators.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Sizes at export, and in the comparison.
B, T = 2, 6
MORE_B, MORE_T = 3, 9
WORDS, E, F, H, CLASSES = 30, 5, 4, 7, 3
BOUND = 1e-5

Arrays = list[np.ndarray]
#: Exports to a path, and returns inputs by name, and the framework's outputs.
Export = Callable[[Path], tuple[dict[str, np.ndarray], Arrays]]


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def words(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, WORDS, shape)


def torch_models() -> Iterator[tuple[str, Export]]:
    """Yield models that torch exports, each by both exporters."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    class Tagger(nn.Module):
        """A label for each word."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, E, padding_idx=0)
            self.encoder = nn.LSTM(
                E, H, num_layers=2, batch_first=True, bidirectional=True, dropout=0.3
            )
            self.head = nn.Linear(2 * H, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(self.embedding(x))[0])

    class Sentiment(nn.Module):
        """A class for each text, from both final states."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, E)
            self.encoder = nn.GRU(E, H, batch_first=True, bidirectional=True)
            self.head = nn.Sequential(nn.Linear(2 * H, H), nn.ReLU(), nn.Linear(H, CLASSES))

        def forward(self, x: Any) -> Any:
            h = self.encoder(self.embedding(x))[1]
            return torch.softmax(self.head(torch.cat([h[0], h[1]], dim=1)), dim=-1)

    class Regressor(nn.Module):
        """A number for each series, from the last step."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(F)
            self.encoder = nn.GRU(F, H, num_layers=2, batch_first=True)
            self.head = nn.Sequential(nn.Linear(H, H), nn.LeakyReLU(0.1), nn.Linear(H, 1))

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(self.norm(x))[0][:, -1]).squeeze(-1)

    class Language(nn.Module):
        """A language model, which takes and gives its state."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, E)
            self.lstm = nn.LSTM(E, H, num_layers=2)
            self.head = nn.Linear(H, WORDS)

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            y, (h, c) = self.lstm(self.embedding(x), (h, c))
            return torch.log_softmax(self.head(y), dim=-1), h, c

    class Policy(nn.Module):
        """An actor and a critic on one trunk."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(F, H), nn.Tanh())
            self.core = nn.GRU(H, H)
            self.actor, self.critic = nn.Linear(H, CLASSES), nn.Linear(H, 1)

        def forward(self, x: Any, h: Any) -> Any:
            y, h = self.core(self.trunk(x), h)
            return torch.tanh(self.actor(y)), self.critic(y).squeeze(-1), h

    class Attention(nn.Module):
        """Outputs of a plain RNN, weighted over time."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(F, H, nonlinearity="relu", batch_first=True)
            self.score, self.head = nn.Linear(H, 1), nn.Linear(H, CLASSES)

        def forward(self, x: Any) -> Any:
            y, _ = self.rnn(x)
            weights = torch.softmax(self.score(y), dim=1)
            return torch.sigmoid(self.head((weights * y).sum(dim=1)))

    class Autoencoder(nn.Module):
        """A series, through one vector, and back."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.LSTM(F, H, batch_first=True)
            self.decoder = nn.LSTM(H, F, batch_first=True)

        def forward(self, x: Any) -> Any:
            h = self.encoder(x)[1][0][-1]
            repeated = h.unsqueeze(1).expand(-1, x.shape[1], -1)
            return self.decoder(repeated)[0]

    class Residual(nn.Module):
        """Elman networks with connections around them, and two clocks."""

        def __init__(self) -> None:
            super().__init__()
            self.fast, self.slow = nn.RNN(F, F), nn.RNN(F, F)
            self.mix = nn.Linear(2 * F, F)

        def forward(self, x: Any) -> Any:
            fast = x + self.fast(x)[0]
            slow = self.slow(fast[::2])[0]
            return self.mix(torch.cat([fast[-1], slow[-1]], dim=-1))

    class Packed(nn.Module):
        """A class for each padded text of differing length."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(WORDS, E)
            self.encoder = nn.LSTM(E, H, batch_first=True, bidirectional=True)
            self.head = nn.Linear(2 * H, CLASSES)

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = pack_padded_sequence(self.embedding(x), lengths, batch_first=True)
            y, (h, _) = self.encoder(packed)
            y, _ = pad_packed_sequence(y, batch_first=True)
            return self.head(y), torch.cat([h[0], h[1]], dim=-1)

    class Unrolled(nn.Module):
        """A highway over a cell that is unrolled by hand."""

        def __init__(self) -> None:
            super().__init__()
            self.cell, self.gate = nn.LSTMCell(F, H), nn.Linear(F, H)

        def forward(self, x: Any) -> Any:
            h = c = torch.zeros(x.shape[0], H)
            for t in range(3):
                h, c = self.cell(x[:, t], (h, c))
                h = h * nn.functional.hardsigmoid(self.gate(x[:, t]))
            return h

    batch_time, time_batch = {0: "batch", 1: "time"}, {0: "time", 1: "batch"}
    of_state = {1: "batch"}
    series = lambda B, T: {"x": floats(B, T, F)}  # noqa: E731
    texts = lambda B, T: {"x": words(B, T)}  # noqa: E731
    models: list[tuple[type, Callable[[int, int], dict[str, np.ndarray]], dict[str, Any]]] = [
        (Tagger, texts, {"x": batch_time}),
        (Sentiment, texts, {"x": batch_time}),
        (Regressor, series, {"x": batch_time}),
        (
            Language,
            lambda B, T: {"x": words(T, B), "h": floats(2, B, H), "c": floats(2, B, H, seed=1)},
            {"x": time_batch, "h": of_state, "c": of_state},
        ),
        (
            Policy,
            lambda B, T: {"x": floats(T, B, F), "h": floats(1, B, H)},
            {"x": time_batch, "h": of_state},
        ),
        (Attention, series, {"x": batch_time}),
        (Autoencoder, series, {"x": batch_time}),
        (Residual, lambda B, T: {"x": floats(T, B, F)}, {"x": time_batch}),
        (Unrolled, series, {"x": {0: "batch"}}),
        (
            Packed,
            lambda B, T: {"x": words(B, T), "lengths": np.array([T, 4, 1][:B])},
            {"x": batch_time, "lengths": {0: "batch"}},
        ),
    ]

    def export(kind: type, inputs: Any, axes: Any, dynamo: bool, path: Path) -> Any:
        torch.manual_seed(0)
        model = kind().eval()
        free = {n: {k: a for k, a in of.items() if a == "batch"} for n, of in axes.items()}
        dynamic = {n: dict.fromkeys(of, torch.export.Dim.DYNAMIC) for n, of in free.items()}
        torch.onnx.export(
            model,
            tuple(map(torch.from_numpy, inputs(B, T).values())),
            path,
            input_names=list(axes),
            dynamo=dynamo,
            **({"dynamic_shapes": dynamic, "verbose": False} if dynamo else {"dynamic_axes": axes}),
        )
        # The newer exporter fixes the number of steps of recurrent layers.
        given = inputs(MORE_B, T if dynamo or kind is Unrolled else MORE_T)
        with torch.no_grad():
            y = model(*map(torch.from_numpy, given.values()))
        return given, [a.numpy() for a in (y if isinstance(y, tuple) else (y,))]

    for kind, *given in models:
        for dynamo in (False, True):
            if kind is Packed and dynamo:
                continue  # which that exporter does not know
            name = f"torch-{'dynamo' if dynamo else 'script'}-{kind.__name__.lower()}"
            yield name, lambda p, k=kind, g=given, d=dynamo: export(k, *g, d, p)


def keras_models() -> Iterator[tuple[str, Export]]:
    """Yield models of Keras 3, and of Keras 2, that tf2onnx exports."""
    for version, package in ((3, "keras"), (2, "tf_keras")):
        if importlib.util.find_spec(package) is not None:
            for name, export in models_of(importlib.import_module(package)):
                yield f"tf2onnx-keras{version}-{name}", export


def models_of(keras: Any) -> Iterator[tuple[str, Export]]:
    """Yield models of a version of Keras."""
    import tensorflow
    import tf2onnx

    layers = keras.layers

    def sequence(*stack: Any) -> Any:
        return keras.Sequential([keras.Input((None, F)), *stack])

    def text(*stack: Any) -> Any:
        tokens = keras.Input((None,), dtype="int64")
        return keras.Sequential([tokens, layers.Embedding(WORDS, E), *stack])

    def encoder_decoder() -> Any:
        source, target = keras.Input((None, F)), keras.Input((None, E))
        _, h, c = layers.LSTM(H, return_state=True)(source)
        y = layers.LSTM(H, return_sequences=True)(target, initial_state=[h, c])
        return keras.Model([source, target], layers.Dense(CLASSES, activation="softmax")(y))

    def two_heads() -> Any:
        x = keras.Input((None, F))
        y = layers.Bidirectional(layers.GRU(H, return_sequences=True), merge_mode="sum")(x)
        last = layers.GRU(H, go_backwards=True)(y)
        return keras.Model(x, [layers.Dense(CLASSES)(last), layers.Dense(1, "tanh")(last)])

    series = lambda: [floats(MORE_B, MORE_T, F)]  # noqa: E731
    texts = lambda: [words(MORE_B, MORE_T)]  # noqa: E731
    models: dict[str, tuple[Callable[[], Any], Callable[[], Arrays]]] = {
        "lstm": (lambda: text(layers.LSTM(H), layers.Dense(CLASSES, "softmax")), texts),
        "gru": (lambda: sequence(layers.GRU(H), layers.Dense(H, "relu"), layers.Dense(1)), series),
        "gru-reset-before": (
            lambda: sequence(layers.GRU(H, return_sequences=True, reset_after=False)),
            series,
        ),
        "simple-rnn": (
            lambda: sequence(layers.SimpleRNN(H, return_sequences=True), layers.SimpleRNN(H)),
            series,
        ),
        "bidirectional": (
            lambda: text(
                layers.Bidirectional(layers.LSTM(H, return_sequences=True)),
                layers.Dropout(0.3),
                layers.Dense(CLASSES),
            ),
            texts,
        ),
        "hard-sigmoid": (
            lambda: sequence(
                layers.LSTM(H, recurrent_activation="hard_sigmoid", unit_forget_bias=False),
                layers.LayerNormalization(),
                layers.LeakyReLU(),
            ),
            series,
        ),
        "encoder-decoder": (
            encoder_decoder,
            lambda: [floats(MORE_B, MORE_T, F), floats(MORE_B, 5, E, seed=1)],
        ),
        "two-heads": (two_heads, series),
    }

    def export(build: Any, inputs: Any, path: Path) -> Any:
        keras.utils.set_random_seed(0)
        model = build()
        for weight in model.weights:  # biases are 0 at first
            weight.assign(weight + 0.1 * floats(*weight.shape, seed=len(weight.shape)))
        specs = [
            tensorflow.TensorSpec(x.shape, x.dtype, f"x{k}") for k, x in enumerate(model.inputs)
        ]
        function = tensorflow.function(lambda *x: model([*x] if len(x) > 1 else x[0]), specs)
        tf2onnx.convert.from_function(function, specs, opset=17, output_path=path)
        given = inputs()
        y = model(given if len(given) > 1 else given[0])
        y = y if isinstance(y, list) else [y]
        return {f"x{k}": x for k, x in enumerate(given)}, [a.numpy() for a in y]

    for name, given in models.items():
        yield name, lambda p, g=given: export(*g, p)


def sklearn_models() -> Iterator[tuple[str, Export]]:
    """Yield models of scikit-learn that skl2onnx exports: what stands around recurrent ones."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    X = floats(40, F)
    classes, values = (X.sum(axis=1) > 0).astype(int) + (X[:, 0] > 1), X @ floats(F)

    def export(model: Any, y: np.ndarray, path: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few iterations are enough here
            model.fit(X, y)
        zipped = {"zipmap": False} if hasattr(model, "predict_proba") else None
        options = None if zipped is None else {id(model): zipped}
        path.write_bytes(to_onnx(model, X[:1], options=options).SerializeToString())
        x = floats(MORE_B, F, seed=1)
        outputs = [model.predict(x).reshape(-1, *[1] * (zipped is None))]
        if zipped is not None:
            outputs.append(model.predict_proba(x).astype(np.float32))
        return {"X": x}, outputs

    perceptrons = {
        "classifier": (MLPClassifier, StandardScaler, classes),
        "regressor": (MLPRegressor, MinMaxScaler, values),
    }
    for name, (kind, scaler, y) in perceptrons.items():
        model = make_pipeline(scaler(), kind(hidden_layer_sizes=(H,), max_iter=20, random_state=0))
        yield f"skl2onnx-{name}", lambda p, m=model, y=y: export(m, y, p)


def main() -> None:
    """Export models, read them, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where models are kept")
    parser.add_argument("--write", action="store_true", help="only export models, into FOLDER")
    parser.add_argument("--only", default="", help="those whose names contain this")
    options = parser.parse_args()
    if options.write and options.folder is None:
        parser.error("--write needs a FOLDER")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.write or options.folder is None:
            write(folder, options.only)
        if not options.write and read(folder, options.only):
            sys.exit(1)


def write(folder: Path, only: str) -> None:
    """Export all models that can be exported here."""
    folder.mkdir(exist_ok=True)
    exporters = {"torch": torch_models, "tf2onnx": keras_models, "skl2onnx": sklearn_models}
    for package, models in exporters.items():
        if importlib.util.find_spec(package) is None:
            continue
        for name, export in models():
            if only in name:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    inputs, outputs = export(folder / f"{name}.onnx")
                arrays = {f"input {n}": a for n, a in inputs.items()}
                arrays |= {f"output {k}": a for k, a in enumerate(outputs)}
                np.savez(folder / f"{name}.npz", **arrays)


def read(folder: Path, only: str) -> int:
    """Compare all models; return how many failed."""
    paths = sorted(path for path in folder.glob("*.onnx") if only in path.name)
    failed = 0
    for path in paths:
        try:
            line, worst = compared(path)
        except Exception as error:
            line, worst = f"{type(error).__name__}: {error}", np.inf
        good = worst < BOUND
        failed += not good
        print(f"{path.stem:31} {line}{'' if good else '   FAILED'}", flush=True)
    print(f"{len(paths) - failed} passed, {failed} failed")
    return failed


def compared(path: Path) -> tuple[str, float]:
    """Return a line about a model, and the largest difference."""
    import onnx
    import onnxruntime

    import fastrnn.onnx

    with np.load(path.with_suffix(".npz")) as arrays:
        inputs = {n.removeprefix("input "): a for n, a in arrays.items() if n[:2] == "in"}
        expected = [a for n, a in arrays.items() if n[:3] == "out"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    runtime = session.run(None, inputs)
    found = fastrnn.onnx.load(path, as_graph=True).run(None, inputs)
    theirs, runtimes = (largest(found, other) for other in (expected, runtime))
    model = fastrnn.onnx.load(path)
    if not isinstance(model, fastrnn.onnx.Model):
        theirs = max(theirs, largest([model(*inputs.values())], expected))
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    kind = type(model).__name__
    return f"{theirs:.1e} {runtimes:.1e}  {kind:10}  {listed}", max(theirs, runtimes)


def largest(found: Arrays, expected: Arrays) -> float:
    """Return the largest difference."""
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"expected shape {b.shape}, got {a.shape}")
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
