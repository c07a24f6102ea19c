"""Torch models with their recurrent layers run by torch and by ``fastrnn.torch``.

python benchmarks/torch_modules.py [--threads N] [--steps N]        needs torch

Two models, as people write them, trained from the same weights on the same batches: a tagger
(embedding, two bidirectional layers with dropout, linear; packed sequences) with and without
`accelerate`, its dropout the same in both; and an actor-critic whose episodes end within a rollout,
with `reset=` and with a loop over time; it has the sizes of CleanRL's ppo_atari_lstm: 8
environments, 128 steps, 128 units. Steps of both take turns; times are medians of whole training
steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn
import fastrnn.torch

VOCABULARY, CLASSES = 2000, 17
OBSERVATION, ACTIONS = 24, 6


class Tagger(nn.Module):
    """A class for each token of a sentence."""

    def __init__(self, cell: str, hidden: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, hidden)
        self.rnn = getattr(nn, cell)(
            hidden, hidden, num_layers=2, bidirectional=True, dropout=dropout, batch_first=True
        )
        self.head = nn.Linear(2 * hidden, CLASSES)

    def loss(self, tokens: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """Return the cross-entropy over all tokens."""
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        mask = torch.arange(y.shape[1]) < lengths[:, None]
        return nn.functional.cross_entropy(self.head(y[mask]), tags[:, : y.shape[1]][mask])


class ActorCritic(nn.Module):
    """A policy and a value with memory, which ends with each episode."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(OBSERVATION, hidden), nn.Tanh())
        self.rnn = getattr(nn, cell)(hidden, hidden)
        self.actor, self.critic = nn.Linear(hidden, ACTIONS), nn.Linear(hidden, 1)

    def memory(self, x: Tensor, starts: Tensor) -> Tensor:
        """Run over a rollout: all steps at once, or one by one where a state can't be reset."""
        if isinstance(self.rnn, fastrnn.torch.LSTM | fastrnn.torch.GRU):
            return self.rnn(x, reset=starts)[0]
        h = x.new_zeros(1, x.shape[1], self.rnn.hidden_size)
        state = (h, h) if isinstance(self.rnn, nn.LSTM) else h
        keep = (~starts).to(x.dtype)[:, None, :, None]
        outputs = []
        for t in range(len(x)):
            state = tuple(keep[t] * s for s in state) if type(state) is tuple else keep[t] * state
            y, state = self.rnn(x[t : t + 1], state)
            outputs.append(y)
        return torch.cat(outputs)

    def loss(
        self, observations: Tensor, starts: Tensor, actions: Tensor, returns: Tensor
    ) -> Tensor:
        """Return the loss of advantage actor-critic (Mnih et al. 2016)."""
        y = self.memory(self.encoder(observations), starts)
        value = self.critic(y).squeeze(-1)
        policy = torch.distributions.Categorical(logits=self.actor(y))
        advantage = (returns - value).detach()
        return (
            0.5 * (returns - value).square() - policy.log_prob(actions) * advantage
            - 0.01 * policy.entropy()
        ).mean()  # fmt: skip


def sentences(count: int, longest: int) -> tuple[Tensor, ...]:
    """Return a batch for a Tagger."""
    lengths = torch.randint(max(1, longest // 8), longest + 1, (count,))
    shape = (count, longest)
    return torch.randint(VOCABULARY, shape), lengths, torch.randint(CLASSES, shape)


def rollouts(count: int, steps: int) -> tuple[Tensor, ...]:
    """Return a batch for an ActorCritic."""
    shape = (steps, count)
    starts = torch.rand(shape) < 1 / 20
    return (
        torch.randn(*shape, OBSERVATION),
        starts,
        torch.randint(ACTIONS, shape),
        torch.randn(shape),
    )


def train(net: nn.Module, batch: Callable[[], tuple[Tensor, ...]], steps: int) -> tuple[float, ...]:
    """Train with torch and accelerated, in turns.

    Returns
    -------
    tuple of float
        Seconds per step of both, and the largest difference of losses.
    """
    nets = (net, fastrnn.torch.accelerate(copy.deepcopy(net)))
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-3) for n in nets]
    times: tuple[list[float], list[float]] = ([], [])
    apart = 0.0
    for step in range(steps):
        data, losses = batch(), []
        for mine, optimizer, took in zip(nets, optimizers, times, strict=True):
            torch.manual_seed(step)
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = mine.loss(*data)
            loss.backward()
            optimizer.step()
            took.append(time.perf_counter() - start)
            losses.append(loss.item())
        torch.manual_seed(steps + step)
        apart = max(apart, abs(losses[0] - losses[1]))
    return (*(statistics.median(t[len(t) // 10 :]) for t in times), apart)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=fastrnn.get_num_threads())
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fastrnn.set_num_threads(options.threads)
    steps, hidden = (2, 8) if options.quick else (options.steps, 128)
    print(f"{options.threads} threads, {fastrnn.backend()}, torch {torch.__version__}")
    print(f"{'':34}{'torch':>10}{'fastrnn':>10}{'ratio':>7}  losses apart by")
    for cell in ("LSTM", "GRU"):
        for what, net, batch in (
            *(
                (f"tagger, dropout {p}", Tagger(cell, hidden, p), lambda: sentences(32, 48))
                for p in (0.0, 0.3)
            ),
            ("actor-critic", ActorCritic(cell, hidden), lambda: rollouts(8, 128)),
        ):
            theirs, ours, apart = train(net, batch, steps)
            row = f"{1e3 * theirs:7.2f} ms{1e3 * ours:7.2f} ms{theirs / ours:7.2f}  {apart:.1e}"
            print(f"{f'{cell} {what}':34}{row}", flush=True)


if __name__ == "__main__":
    main()
