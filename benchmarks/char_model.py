"""The character model of ``fastrnn lm train`` against the same model in torch: whole training.

python benchmarks/char_model.py                  on ../shared/data/tinyshakespeare.txt
python benchmarks/char_model.py text.txt --steps 500 --picture losses.png

Same initial weights, chunks, Adam, clipping and learning rates, no dropout. Each library trains one
copy per number of threads, in turn, a block of steps at a time, each block from a zero state;
speeds are medians over the blocks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastrnn
from fastrnn._bench import report
from fastrnn._core.config import available_cpus
from fastrnn.callbacks import Callback
from fastrnn.layers import RECURRENT
from fastrnn.optim import Adam, CosineDecay
from fastrnn.text import CharLM, split

#: Trains on inputs and targets, (B, T * steps) each, and returns the loss of each step.
Block = Callable[[np.ndarray, np.ndarray], list[float]]

_TEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare.txt"


def network(model: CharLM, V: int) -> fastrnn.Sequential:
    """Return the network that ``CharLM.fit`` trains, without dropout."""
    D, H = model.embedding_dim, model.hidden_size
    recurrent = RECURRENT[model.cell](D, H)
    return fastrnn.Sequential(
        [fastrnn.Embedding(V, D), recurrent, fastrnn.Linear(H, V)], seed=model.seed
    )


class Losses(Callback):
    """Records the loss of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Recover the step's loss from the running mean."""
        self.steps.append(logs["loss"] * (batch + 1) - sum(self.steps))


def ours(model: CharLM, V: int, steps: int) -> Block:
    """Return the training steps of ``CharLM.fit``."""
    net = network(model, V)
    net.compile(Adam(CosineDecay(model.lr, steps), clip_norm=model.clip_norm), "cross_entropy")

    def block(x: np.ndarray, y: np.ndarray) -> list[float]:
        losses = Losses()
        net.fit(
            x, y, batch_size=len(x), bptt=model.seq_len, stateful=True, callbacks=[losses],
            verbose=0,
        )  # fmt: skip
        return losses.steps

    return block


class _TorchNet(torch.nn.Module):
    """Return the same model in torch, with the same weights."""

    def __init__(self, model: CharLM, V: int) -> None:
        super().__init__()
        net = network(model, V)
        D, H = model.embedding_dim, model.hidden_size
        recurrent = getattr(torch.nn, type(net.layers[1]).__name__)(D, H, batch_first=True)
        self.layers = torch.nn.ModuleList(
            [torch.nn.Embedding(V, D), recurrent, torch.nn.Linear(H, V)]
        )
        weights = {f"layers.{n}": torch.from_numpy(w) for n, w in net.state_dict().items()}
        self.load_state_dict(weights)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        embedding, recurrent, linear = self.layers
        y, state = recurrent(embedding(x), state)
        return linear(y), state


def torchs(model: CharLM, V: int, steps: int) -> Block:
    """Return the same steps in torch, with its fused Adam."""
    net = _TorchNet(model, V)
    adam = torch.optim.Adam(net.parameters(), lr=model.lr, fused=True)
    taken = 0

    def step(x: torch.Tensor, target: torch.Tensor, state: Any) -> tuple[float, Any]:
        nonlocal taken
        logits, state = net(x, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), model.clip_norm)
        adam.param_groups[0]["lr"] = model.lr * (1 + math.cos(math.pi * taken / steps)) / 2
        adam.step()
        taken += 1
        return loss.item(), state

    def block(x: np.ndarray, y: np.ndarray) -> list[float]:
        state, losses = None, []
        pairs = (torch.from_numpy(ids.copy()).split(model.seq_len, dim=1) for ids in (x, y))
        for chunk, target in zip(*pairs, strict=True):
            loss, state = step(chunk, target, state)
            losses.append(loss)
        return losses

    return block


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", nargs="?", type=Path, default=_TEXT, help="UTF-8")
    parser.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="lstm")
    parser.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--block", type=int, default=20, help="consecutive steps of one library")
    parser.add_argument("--picture", metavar="FILE", help="needs matplotlib")
    args = parser.parse_args()

    model = CharLM(args.cell, dropout=0.0, seed=0)
    text, _ = split(args.text.read_text(encoding="utf-8"), model.validation_fraction)
    alphabet, ids = np.unique(list(text), return_inverse=True)
    B, T = model.batch_size, model.seq_len
    L = (len(ids) - 1) // B
    x, y = (part[: B * L].reshape(B, L) for part in (ids[:-1], ids[1:]))
    size = args.block * T

    threads = sorted({1, min(2, available_cpus())})
    blocks = {
        (name, n): make(model, len(alphabet), args.steps)
        for name, make in (("fastrnn", ours), ("torch", torchs))
        for n in threads
    }
    losses: dict[tuple[str, int], list[float]] = {who: [] for who in blocks}
    speeds: dict[tuple[str, int], list[float]] = {who: [] for who in blocks}
    for i in range(args.steps // args.block):
        start = i % (L // size) * size
        part = x[:, start : start + size], y[:, start : start + size]
        for who, block in blocks.items():
            fastrnn.set_num_threads(who[1])
            torch.set_num_threads(who[1])
            begin = time.perf_counter()
            losses[who] += block(*part)
            speeds[who].append(part[0].size / (time.perf_counter() - begin))

    for name, value in {**report.machine(), "torch": torch.__version__}.items():
        print(f"{name + ':':14}{value}")
    print(f"\n{model}\n{len(losses['torch', 1])} steps of {B * T} characters\n")
    report_speeds(losses, speeds, args.block)
    mine, theirs = (np.array(losses[name, 1]) for name in ("fastrnn", "torch"))
    off = np.abs(mine - theirs)
    print(
        f"losses differ by {off[: args.block].max():.1e} at most in the first {args.block} steps, "
        f"by {off.max():.1e} in all"
    )
    if args.picture:
        draw(mine, theirs, args.picture)


def report_speeds(losses: Any, speeds: Any, block: int) -> None:
    """Print a line for each library and number of threads, and the ratio of the best."""
    for (name, n), rates in speeds.items():
        last = np.mean(losses[name, n][-block:])
        speed = statistics.median(rates)
        print(f"{name:8} {n} threads {speed:12,.0f} characters/s, loss at the end {last:.4f}")
    best = {
        name: max(statistics.median(rates) for (whose, _), rates in speeds.items() if whose == name)
        for name in ("fastrnn", "torch")
    }
    ratio = best["fastrnn"] / best["torch"]
    print(f"\nfastrnn / torch, each at its better number of threads: {ratio:.2f}")


def draw(mine: np.ndarray, theirs: np.ndarray, path: str) -> None:
    """Plot the loss curves together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss, nats per character")
    axes.plot(theirs, linewidth=4, alpha=0.4, label="torch")
    axes.plot(mine, linewidth=1, color="black", label="fastrnn")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
