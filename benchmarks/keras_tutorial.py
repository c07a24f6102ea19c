"""A tutorial's first recurrent network, in Keras, in torch and here: 10 epochs from start to end.

python benchmarks/keras_tutorial.py

100 windows of 5 numbers, 32 ReLU units, one linear output, mean squared error, Adam, batches of 8:
the same data, order and initial weights for all. Imports are not timed. "cold" is the first
training of a process, model and all; "warm" the median of later ones of the same model, reset.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import numpy as np

import fastrnn
from fastrnn._bench import report

N, T, H, BATCH, EPOCHS, LR = 100, 5, 32, 8, 10, 1e-3
#: Keras adds Adam's epsilon before its correction of bias, others after it: too small to matter.
EPS = 1e-12

#: Makes a model, and gives what trains it from the initial weights: the loss of each epoch.
Make = Callable[[np.ndarray, np.ndarray, Mapping[str, np.ndarray]], Callable[[], list[float]]]


def ours(x: np.ndarray, target: np.ndarray, initial: Mapping[str, np.ndarray]):
    """`RNN` and `Linear`, the gradient of the loss by hand."""
    rnn = fastrnn.RNN(1, H, nonlinearity="relu", batch_first=True, return_sequences=False, seed=0)
    linear = fastrnn.Linear(H, 1, seed=0)
    weights = {**rnn.parameters(), **linear.parameters()}
    del weights["bias_hh_l0"]  # as Keras, one bias

    def train() -> list[float]:
        rnn.parameters()["bias_hh_l0"][...] = 0
        for name, weight in weights.items():
            weight[...] = initial[name]
        adam = fastrnn.optim.Adam(LR, eps=EPS)
        losses = []
        for _ in range(EPOCHS):
            total = 0.0
            for start in range(0, N, BATCH):
                x_b, target_b = x[start : start + BATCH], target[start : start + BATCH]
                h, _, tape = rnn.forward(x_b)
                y, linear_tape = linear.forward(h)
                off = y - target_b
                dh, grads = linear.backward(linear_tape, off * (2 / len(off)))
                _, _, rnn_grads = rnn.backward(tape, dh)
                grads = {n: (grads | rnn_grads)[n] for n in weights}
                adam.step(weights, grads)
                total += float((off**2).sum())
            losses.append(total / N)
        return losses

    return train


def torchs(x: np.ndarray, target: np.ndarray, initial: Mapping[str, np.ndarray]):
    """A plain training loop in torch; on one thread, for two only slow it down at such sizes."""
    import torch

    torch.set_num_threads(1)
    rnn = torch.nn.RNN(1, H, nonlinearity="relu", batch_first=True)
    linear = torch.nn.Linear(H, 1)
    weights = {**dict(rnn.named_parameters()), **dict(linear.named_parameters())}
    torch.nn.init.zeros_(weights.pop("bias_hh_l0")).requires_grad_(False)
    x, target = torch.from_numpy(x), torch.from_numpy(target)

    def train() -> list[float]:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(torch.from_numpy(initial[name]))
        adam = torch.optim.Adam(weights.values(), LR, eps=EPS)
        losses = []
        for _ in range(EPOCHS):
            total = 0.0
            for start in range(0, N, BATCH):
                y = linear(rnn(x[start : start + BATCH])[0][:, -1])
                loss = torch.nn.functional.mse_loss(y, target[start : start + BATCH])
                adam.zero_grad()
                loss.backward()
                adam.step()
                total += loss.item() * len(y)
            losses.append(total / N)
        return losses

    return train


def keras(x: np.ndarray, target: np.ndarray, initial: Mapping[str, np.ndarray]):
    """``model.fit``."""
    import keras

    model = keras.Sequential(
        [keras.Input((T, 1)), keras.layers.SimpleRNN(H, activation="relu"), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(LR, epsilon=EPS), "mse")
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight", "bias")
    layouts = [initial[name].T for name in names]
    model.optimizer.build(model.trainable_variables)
    fresh = [np.array(v) for v in model.optimizer.variables]

    def train() -> list[float]:
        model.set_weights(layouts)
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        history = model.fit(x, target, BATCH, EPOCHS, verbose=0, shuffle=False)
        return history.history["loss"]

    return train


def main() -> None:
    makers: dict[str, Make] = {"fastrnn": ours}
    if find_spec("torch"):
        import torch

        makers[f"torch {torch.__version__}"] = torchs
    if find_spec("keras") and find_spec("tensorflow"):
        os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        import keras as module

        makers[f"keras {module.__version__}"] = keras
    series = np.sin(np.arange(N + T) / 5).astype(np.float32)
    x = np.lib.stride_tricks.sliding_window_view(series[:-1], T)[:, :, None].copy()
    target = series[T:, None]
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (H, 1), "weight_hh_l0": (H, H), "weight": (1, H)}
    initial = {n: rng.uniform(-1, 1, s).astype(np.float32) / H**0.5 for n, s in shapes.items()}
    initial |= {"bias_ih_l0": np.zeros(H, np.float32), "bias": np.zeros(1, np.float32)}

    trains, losses, cold = {}, {}, {}
    for name, make in makers.items():
        start = time.perf_counter()
        trains[name] = make(x, target, initial)
        losses[name] = trains[name]()
        cold[name] = time.perf_counter() - start
    warm: dict[str, list[float]] = {name: [] for name in trains}
    for _ in range(5):
        for name, train in trains.items():
            start = time.perf_counter()
            again = train()
            warm[name].append(time.perf_counter() - start)
            np.testing.assert_allclose(again, losses[name], rtol=1e-4)
            np.testing.assert_allclose(again, losses["fastrnn"], rtol=1e-3)

    for name, value in report.machine().items():
        print(f"{name + ':':14}{value}")
    print(f"\n{'':20} {'cold':>10} {'warm':>10} {'/ ours':>14}  loss: first epoch, last")
    mine = statistics.median(warm["fastrnn"])
    for name, of in losses.items():
        median = statistics.median(warm[name])
        ratios = f"{cold[name] / cold['fastrnn']:.1f}, {median / mine:.1f}"
        print(
            f"{name:20} {report.duration(cold[name]):>10} {report.duration(median):>10} "
            f"{ratios:>14}  {of[0]:.6f} {of[-1]:.6f}"
        )


if __name__ == "__main__":
    main()
