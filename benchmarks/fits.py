"""Whole training runs with `fit`, with a torch loop and with Keras's `fit`: times and final losses.

python benchmarks/fits.py [next_number ...] [--threads 2]      torch and Keras only if installed

The same data, order and initial weights for all, float32. Imports are not timed. "cold" is the
first run in a process, including making the model; "warm" the median of later ones, each from the
initial weights. Keras has one bias in RNN and LSTM where torch and fastrnn train two, so its losses
differ.

next_number, sum_of_ten: 100 windows of 5 consecutive integers and the next, and of 10 random
numbers and their sum; 32 ReLU units, one linear output, Adam, batches of 8.
toy_rnn, toy_lstm: the four binary sequences of length 2, classified by whether their bits differ;
8 units, SGD, 500 steps.
shakespeare: characters of tiny Shakespeare; LSTM of 256 units, Adam, 32 streams, 100 steps of
backpropagation truncated to 50 characters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench import report
from fastrnn.layers.recurrent import Recurrent

#: Trains from the initial weights, and returns the loss of each epoch.
Train = Callable[[], list[float]]


@dataclass(frozen=True)
class Task:
    """Data and training settings."""

    layers: Callable[[], Sequence[Any]]
    loss: str
    x: np.ndarray
    y: np.ndarray
    batch: int
    epochs: int
    sgd: bool = False
    lr: float = 1e-3
    stateful: bool = False


def relu_net() -> Sequence[Any]:
    """Return the model of the next number and the sum."""
    rnn = fastrnn.RNN(1, 32, nonlinearity="relu", return_sequences=False)
    return rnn, fastrnn.Linear(32, 1)


def next_number(data: Path) -> Task:
    """Return the task on windows of consecutive integers."""
    numbers = np.lib.stride_tricks.sliding_window_view(np.arange(105, dtype=np.float32) / 100, 6)
    return Task(relu_net, "mse", numbers[:, :5, None].copy(), numbers[:, 5:].copy(), 8, 10)


def sum_of_ten(data: Path) -> Task:
    """Return the task on windows of random numbers."""
    x = np.random.default_rng(0).random((100, 10, 1), np.float32)
    return Task(relu_net, "mse", x, x.sum(axis=1), 8, 10)


def toy(kind: type[Recurrent]) -> Task:
    """Return the task on four sequences; the rate equals 0.5 with a loss summed over them."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)[:, :, None]
    y = np.array([[0], [1], [1], [0]], np.float32)
    return Task(
        lambda: (kind(1, 8, return_sequences=False), fastrnn.Linear(8, 1)),
        "binary_cross_entropy", x, y, 4, 500, sgd=True, lr=2.0,
    )  # fmt: skip


def toy_rnn(data: Path) -> Task:
    """Return the task with an RNN."""
    return toy(fastrnn.RNN)


def toy_lstm(data: Path) -> Task:
    """Return the task with an LSTM."""
    return toy(fastrnn.LSTM)


def shakespeare(data: Path) -> Task:
    """Return the task whose batches continue, row by row, the previous ones."""
    streams, T, steps = 32, 50, 100
    text = (data / "tinyshakespeare.txt").read_text()
    characters, ids = np.unique(list(text), return_inverse=True)
    V = len(characters)
    cut = ids[: streams * (len(ids) // streams)].reshape(streams, -1)[:, : T * steps + 1]
    x, y = (
        part.reshape(streams, steps, T).swapaxes(0, 1).reshape(-1, T)
        for part in (cut[:, :-1], cut[:, 1:])
    )
    return Task(
        lambda: (fastrnn.Embedding(V, 64), fastrnn.LSTM(64, 256), fastrnn.Linear(256, V)),
        "cross_entropy", x, y, streams, 1, lr=3e-3, stateful=True,
    )  # fmt: skip


def ours(task: Task) -> Train:
    """Return a training with ``Sequential.fit``."""
    model = fastrnn.Sequential(task.layers(), seed=0)
    initial = model.state_dict()

    def train() -> list[float]:
        model.load_state_dict(initial)
        optim = fastrnn.optim
        model.compile(optim.SGD(task.lr) if task.sgd else optim.Adam(task.lr), task.loss)
        return model.fit(
            task.x, task.y, task.epochs, task.batch, shuffle=False, stateful=task.stateful,
            verbose=0,
        ).history["loss"]  # fmt: skip

    return train


def torchs(task: Task) -> Train:
    """Return a training with a plain torch loop."""
    import torch
    from torch.nn import functional as F

    model = fastrnn.Sequential(task.layers(), seed=0)
    initial = {name: torch.from_numpy(w) for name, w in model.state_dict().items()}
    net = torch.nn.ModuleList(_torch_layer(torch.nn, layer) for layer in model.layers)
    parameters = dict(net.named_parameters())
    x, y = torch.from_numpy(task.x), torch.from_numpy(task.y)
    losses = {
        "mse": F.mse_loss,
        "binary_cross_entropy": F.binary_cross_entropy_with_logits,
        "cross_entropy": lambda z, t: F.cross_entropy(z.flatten(0, 1), t.flatten()),
    }
    loss_of = losses[task.loss]

    def train() -> list[float]:
        with torch.no_grad():
            for name, weight in parameters.items():
                weight.copy_(initial[name])
        kind = torch.optim.SGD if task.sgd else torch.optim.Adam
        optimizer = kind(parameters.values(), lr=task.lr)
        losses = []
        for _ in range(task.epochs):
            total, state = 0.0, None
            for start in range(0, len(x), task.batch):
                z, target = x[start : start + task.batch], y[start : start + task.batch]
                for ours, layer in zip(model.layers, net, strict=True):
                    if isinstance(ours, Recurrent):
                        z, state = layer(z, state)
                        z = z if ours.return_sequences else z[:, -1]
                        # A single state is not in a tuple.
                        pair = isinstance(state, tuple)
                        state = tuple(s.detach() for s in state) if pair else state.detach()
                        state = state if task.stateful else None
                    else:
                        z = layer(z)
                loss = loss_of(z, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(target)
            losses.append(total / len(x))
        return losses

    return train


def _torch_layer(nn: Any, layer: Any) -> Any:
    if isinstance(layer, fastrnn.Embedding):
        return nn.Embedding(layer.num_embeddings, layer.embedding_dim)
    if isinstance(layer, fastrnn.Linear):
        return nn.Linear(layer.in_features, layer.out_features)
    more = {"nonlinearity": layer.nonlinearity} if isinstance(layer, fastrnn.RNN) else {}
    kind = getattr(nn, type(layer).__name__)
    return kind(layer.input_size, layer.hidden_size, batch_first=True, **more)


def keras(task: Task) -> Train:
    """Return a training with Keras's ``Model.fit``."""
    import keras

    model = fastrnn.Sequential(task.layers(), seed=0)
    layers = [_keras_layer(keras.layers, layer, task.stateful) for layer in model.layers]
    # A stateful layer needs the batch size.
    shape = (task.batch if task.stateful else None, *task.x.shape[1:])
    net = keras.Sequential([keras.Input(batch_shape=shape, dtype=task.x.dtype.name), *layers])
    losses = {
        "mse": "mse",
        "binary_cross_entropy": keras.losses.BinaryCrossentropy(from_logits=True),
        "cross_entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    }
    kind = keras.optimizers.SGD if task.sgd else keras.optimizers.Adam
    # Keras adds epsilon before the bias correction, the others after: too small to matter.
    net.compile(kind(task.lr, **({} if task.sgd else {"epsilon": 1e-9})), losses[task.loss])
    net.optimizer.build(net.trainable_variables)
    fresh = [v.numpy() for v in net.optimizer.variables]
    weights = [w for layer in model.layers for w in _keras_weights(layer)]

    def train() -> list[float]:
        net.set_weights(weights)
        for variable, value in zip(net.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        for layer in layers:
            if getattr(layer, "stateful", False):
                layer.reset_states()
        history = net.fit(task.x, task.y, task.batch, task.epochs, verbose=0, shuffle=False)
        return history.history["loss"]

    return train


def _keras_layer(layers: Any, layer: Any, stateful: bool) -> Any:
    if isinstance(layer, fastrnn.Embedding):
        return layers.Embedding(layer.num_embeddings, layer.embedding_dim)
    if isinstance(layer, fastrnn.Linear):
        return layers.Dense(layer.out_features)
    options = {"return_sequences": layer.return_sequences, "stateful": stateful}
    if isinstance(layer, fastrnn.RNN):
        return layers.SimpleRNN(layer.hidden_size, layer.nonlinearity, **options)
    return layers.LSTM(layer.hidden_size, **options)


def _keras_weights(layer: Any) -> list[np.ndarray]:
    w = layer.state_dict()
    if isinstance(layer, Recurrent):  # with the same gate order
        bias = w["bias_ih_l0"] + w["bias_hh_l0"]
        return [w["weight_ih_l0"].T, w["weight_hh_l0"].T, bias]
    return [w["weight"].T, w["bias"]] if isinstance(layer, fastrnn.Linear) else [w["weight"]]


TASKS = {task.__name__: task for task in (next_number, sum_of_ten, toy_rnn, toy_lstm, shakespeare)}


def contenders(threads: int) -> dict[str, Callable[[Task], Train]]:
    """Return the installed libraries, imported and set to `threads` threads."""
    fastrnn.set_num_threads(threads)
    makers = {"fastrnn": ours}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
        makers[f"torch {torch.__version__}"] = torchs
    if find_spec("keras") and find_spec("tensorflow"):
        os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        import keras as module
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
        makers[f"keras {module.__version__}"] = keras
    return makers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS, nargs="*")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="number of warm runs")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    options = parser.parse_args()
    makers = contenders(options.threads)
    for name, value in report.machine().items():
        print(f"{name + ':':14}{value}")
    print()
    table = report.Table(
        ("", "cold", "warm", "cold / ours", "warm / ours", "first loss", "last loss"), (26,)
    )
    for name in options.task or TASKS:
        task = TASKS[name](options.data)
        trains, losses, cold = {}, {}, {}
        for who, make in makers.items():
            start = time.perf_counter()
            trains[who] = make(task)
            losses[who] = trains[who]()
            cold[who] = time.perf_counter() - start
        warm: dict[str, list[float]] = {who: [] for who in trains}
        for _ in range(options.rounds):
            for who, train in trains.items():
                start = time.perf_counter()
                train()
                warm[who].append(time.perf_counter() - start)
        mine = statistics.median(warm["fastrnn"])
        for who, of in losses.items():
            median = statistics.median(warm[who])
            ratios = (cold[who] / cold["fastrnn"], median / mine)
            times = (report.duration(cold[who]), report.duration(median))
            shown = (f"{v:.6f}" for v in (of[0], of[-1]))
            table.print((f"{name}  {who}", *times, *(f"{r:.1f}" for r in ratios), *shown))


if __name__ == "__main__":
    main()
