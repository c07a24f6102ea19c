"""An actor-critic with memory
===========================

A policy and a value head on one recurrent trunk, and episodes that end. The first observation of
an episode shows a cue, and its last one, 3 to 7 steps later, asks for it: the action that names the
cue earns 1, the other -1, and nothing but a state can remember it. Many environments run side by
side. The policy acts step by step in a stream; then the same steps, with `reset` where episodes
begin, run as one batch of sequences whose gradients are those of the actor's and the critic's
losses (Mnih et al. 2016, A2C, with an entropy bonus).
"""

import numpy as np
from side_by_side import draw

import fastrnn

B, T, HIDDEN, UPDATES = 32, 20, 24, 150
DISCOUNT, ENTROPY = 0.95, 0.01


class Policy(fastrnn.Layer):
    """Logits of two actions, and the value of a state, from a trunk with a state."""

    def __init__(self, features, seed):
        self.trunk = fastrnn.Sequential([fastrnn.LSTM(features, HIDDEN)], seed=seed)
        self.actor = fastrnn.Linear(HIDDEN, 2, seed=seed + 1)
        self.critic = fastrnn.Linear(HIDDEN, 1, seed=seed + 2)

    def forward(self, x, state=None, reset=None):
        y, trunk = self.trunk.forward(x, state, reset=reset)
        logits, actor = self.actor.forward(y)
        value, critic = self.critic.forward(y)
        return logits, value[..., 0], (trunk, actor, critic)

    def backward(self, tape, dlogits, dvalue):
        trunk, actor, critic = tape
        from_actor, of_actor = self.actor.backward(actor, dlogits)
        from_critic, of_critic = self.critic.backward(critic, dvalue[..., None])
        _, of_trunk = self.trunk.backward(trunk, from_actor + from_critic)
        return named(trunk=of_trunk, actor=of_actor, critic=of_critic)

    def parameters(self):
        parts = {name: getattr(self, name).parameters() for name in ("trunk", "actor", "critic")}
        return named(**parts)


def named(**parts):
    return {f"{part}.{n}": array for part, of_part in parts.items() for n, array in of_part.items()}


class Recall:
    """B environments, which start again by themselves."""

    def __init__(self, rng):
        self.rng, self.left, self.cue = rng, np.zeros(B, int), np.zeros(B, int)

    def observe(self):
        """Return observations (B, 3), and which episodes begin with them."""
        begin = self.left == 0
        self.left[begin] = self.rng.integers(3, 8, begin.sum())
        self.cue[begin] = self.rng.integers(0, 2, begin.sum())
        x = np.zeros((B, 3), np.float32)
        x[begin, self.cue[begin]] = 1
        x[:, 2] = self.left == 1
        return x, begin

    def act(self, action):
        """Return rewards (B,), and which episodes end."""
        self.left -= 1
        end = self.left == 0
        return np.where(end, np.where(action == self.cue, 1.0, -1.0), 0.0), end


def rollout(policy, stream, world, rng):
    """Act for T steps; return what happened, (B, T, ...)."""
    steps = []
    for _ in range(T):
        x, begin = world.observe()
        if begin.any():
            stream.reset(begin.tolist() if not begin.all() else None)
        logits = policy.actor(stream.step(x))
        action = (rng.random(B) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(int)
        steps.append((x, begin, logits, action, *world.act(action)))
    return [np.stack(part, axis=1) for part in zip(*steps, strict=True)]


def returns(rewards, ends, last_value):
    found, after = np.empty_like(rewards), last_value
    for t in reversed(range(T)):
        after = found[:, t] = rewards[:, t] + DISCOUNT * after * ~ends[:, t]
    return found


def gradients(logits, value, action, target):
    """Return the gradients of the mean over all steps of actor's and critic's losses."""
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    advantage = (target - value)[..., None]
    chosen = np.eye(2, dtype=np.float32)[action]
    log_p = np.log(p + 1e-12)
    entropy = -(p * log_p).sum(axis=-1, keepdims=True)
    dlogits = (p - chosen) * advantage + ENTROPY * p * (log_p + entropy)
    return dlogits / action.size, (value - target) / action.size


def main():
    rng = np.random.default_rng(0)
    policy, world = Policy(3, seed=0), Recall(rng)
    optimizer = fastrnn.optim.Adam(0.01, clip_norm=0.5)
    stream = policy.trunk.stream(B)
    earned = []
    for update in range(UPDATES):
        state = stream.state
        x, begin, acted_on, action, rewards, ends = rollout(policy, stream, world, rng)
        logits, value, tape = policy.forward(x, state, reset=begin)
        # Sequences and steps give the same bits: these are the logits that were acted on.
        assert np.array_equal(logits, acted_on) or fastrnn.backend() == "reference"
        ahead = policy.critic(stream.state[0][0][0])[:, 0]  # of the LSTM's h, the one layer's
        dlogits, dvalue = gradients(logits, value, action, returns(rewards, ends, ahead))
        optimizer.step(policy.parameters(), policy.backward(tape, dlogits, dvalue))
        earned.append(rewards.sum() / ends.sum())
        if update % 25 == 24:
            print(
                f"updates {update - 23:3}-{update + 1:3}: {np.mean(earned[-25:]):5.2f} an episode"
            )
    draw(
        "actor_critic",
        lambda axes: axes.plot(earned),
        xlabel="update",
        ylabel="reward of an episode",
    )
    print("Look at where it leaves 0, what guessing earns: the state has begun to hold the cue.")


if __name__ == "__main__":
    main()
