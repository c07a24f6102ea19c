"""The character model of ``fastrnn lm train`` beside the same model in torch: a whole training.

python benchmarks/char_model.py                  on ../shared/data/tinyshakespeare.txt
python benchmarks/char_model.py text.txt --steps 500 --picture losses.png

Same initial weights, chunks, Adam, clipping and learning rates, no dropout. Everybody trains a copy
per number of threads, in turn, a block of steps at a time; speeds are medians over the blocks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastrnn
from fastrnn._bench import report
from fastrnn._core.config import available_cpus
from fastrnn.text import CharLM, split
from fastrnn.text._net import Net
from fastrnn.text._training import Training

#: Inputs and targets, (T, B) each, and whether the state starts anew.
Chunk = tuple[np.ndarray, np.ndarray, bool]
Step = Callable[[Chunk], float]

_TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"


def ours(training: Training) -> Step:
    """A step of ``CharLM.fit``: its loss."""
    state: Any = None

    def step(chunk: Chunk) -> float:
        nonlocal state
        x, target, anew = chunk
        loss, grads, state = training.net.loss_and_grads(x, target, None if anew else state)
        training.adam.step(training.parameters, grads)
        return loss

    return step


class _TorchNet(torch.nn.Module):
    """The same model, with the same weights."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        weights = {n: torch.from_numpy(w.copy()) for n, w in net.parameters().items()}
        V, D = weights["embedding.weight"].shape
        H = net.recurrent.hidden_size
        self.embedding = torch.nn.Embedding(V, D)
        self.recurrent = getattr(torch.nn, type(net.recurrent).__name__)(D, H)
        self.linear = torch.nn.Linear(H, V)
        self.load_state_dict(weights)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = self.recurrent(self.embedding(x), state)
        return self.linear(y), state


def torchs(training: Training) -> Step:
    """The same step in torch, with its fused Adam."""
    net = _TorchNet(training.net)
    adam = torch.optim.Adam(net.parameters(), lr=training.lr, fused=True)
    steps, state = 0, None

    def step(chunk: Chunk) -> float:
        nonlocal steps, state
        x, target = (torch.from_numpy(ids) for ids in chunk[:2])
        logits, state = net(x, None if chunk[2] else state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), training.adam.clip_norm)
        adam.param_groups[0]["lr"] = (
            training.lr * (1 + math.cos(math.pi * steps / training.steps)) / 2
        )
        adam.step()
        steps += 1
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path, default=_TEXT, help="UTF-8")
    parser.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="lstm")
    parser.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--block", type=int, default=20, help="steps in a row of one")
    parser.add_argument("--picture", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args()

    model = CharLM(args.cell, dropout=0.0, validation_fraction=0.05, seed=0)
    text = args.text.read_text(encoding="utf-8")
    model.vocabulary = "".join(sorted(set(text)))
    train, validation = (model._ids(part) for part in split(text, model.validation_fraction))

    def training() -> Training:
        made = Training(model, model._new_net(), train, validation)
        made.steps = args.steps  # the learning rate falls to zero over these
        return made

    chunks = list(islice(training().chunks(), args.steps))
    threads = sorted({1, min(2, available_cpus())})
    steps = {
        (name, n): step(training())
        for name, step in (("fastrnn", ours), ("torch", torchs))
        for n in threads
    }
    losses: dict[tuple[str, int], list[float]] = {who: [] for who in steps}
    speeds: dict[tuple[str, int], list[float]] = {who: [] for who in steps}
    for first in range(0, args.steps, args.block):
        block = chunks[first : first + args.block]
        for who, step in steps.items():
            fastrnn.set_num_threads(who[1])
            torch.set_num_threads(who[1])
            start = time.perf_counter()
            losses[who] += [step(chunk) for chunk in block]
            characters = sum(x.size for x, _, _ in block)
            speeds[who].append(characters / (time.perf_counter() - start))

    for name, value in {**report.machine(), "torch": torch.__version__}.items():
        print(f"{name + ':':14}{value}")
    print(f"\n{model}\n{args.steps} steps of {chunks[0][0].size} characters\n")
    for (name, n), found in speeds.items():
        last = np.mean(losses[name, n][-args.block :])
        speed = statistics.median(found)
        print(f"{name:8} {n} threads {speed:12,.0f} characters/s, loss at the end {last:.4f}")
    best = {
        name: max(statistics.median(found) for (whose, _), found in speeds.items() if whose == name)
        for name in ("fastrnn", "torch")
    }
    ratio = best["fastrnn"] / best["torch"]
    print(f"\nfastrnn / torch, each at its better number of threads: {ratio:.2f}")
    mine, theirs = (np.array(losses[name, 1]) for name in best)
    off = np.abs(mine - theirs)
    print(
        f"losses differ by {off[: args.block].max():.1e} at most in the first {args.block} steps, "
        f"by {off.max():.1e} in all"
    )
    if args.picture:
        draw(mine, theirs, args.picture)


def draw(mine: np.ndarray, theirs: np.ndarray, path: str) -> None:
    """Draw the curves on top of each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss, nats per character")
    axes.plot(theirs, linewidth=4, alpha=0.4, label="torch")
    axes.plot(mine, linewidth=1, color="black", label="fastrnn")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
