"""A whole training, ours and torch's in turn, one thread: 100 windows of 5 numbers and the next.

python benchmarks/fit_against_torch.py      (torch's loop is left out where torch is not installed)
"""

from __future__ import annotations

import importlib.util

import numpy as np
from timing import paired

import fastrnn

EPOCHS, BATCH, HIDDEN = 10, 8, 32

start = np.arange(100, dtype=np.float32)
X = ((start[:, None] + np.arange(5, dtype=np.float32)) / 100)[..., None]
y = (start + 5) / 100


def ours():
    model = fastrnn.Sequential(
        [
            fastrnn.RNN(1, HIDDEN, nonlinearity="relu", return_sequences=False),
            fastrnn.Linear(HIDDEN, 1),
        ],
        seed=0,
    )
    model.compile("adam", "mse")
    return model.fit(X, y, epochs=EPOCHS, batch_size=BATCH, verbose=0).history["loss"][-1]


def by_torch():
    import torch

    torch.set_num_threads(1)
    rnn = torch.nn.RNN(1, HIDDEN, nonlinearity="relu", batch_first=True)
    linear = torch.nn.Linear(HIDDEN, 1)
    adam = torch.optim.Adam([*rnn.parameters(), *linear.parameters()])
    x, target = torch.from_numpy(X), torch.from_numpy(y[:, None])
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x)).split(BATCH):
            adam.zero_grad()
            output = linear(rnn(x[rows])[0][:, -1])
            loss = torch.nn.functional.mse_loss(output, target[rows])
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
    return total / len(x)


if __name__ == "__main__":
    runs = {"fastrnn": ours}
    if importlib.util.find_spec("torch"):
        runs["torch"] = by_torch
    losses = [run() for run in runs.values()]
    times = paired(list(runs.values()), rounds=7, seconds=0.2)
    for name, seconds, loss in zip(runs, times, losses, strict=True):
        ratio = f"{seconds / times[0]:5.1f}"
        print(f"{name:8}  {seconds * 1e3:7.1f} ms  {ratio}  final loss {loss:.2e}")
