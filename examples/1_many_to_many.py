"""Many to many: an output at every step
=====================================

A vanilla RNN, and a gradient that comes back from the following chunk::

    h_t = tanh(W_xh x_t + W_hh h_{t-1} + b_h)
    y_t = W_hy h_t + b_y
    loss = sum_t (y_t - target_t)^2 / 2

The network reads three sines and predicts the next value of each. The sequence comes in two chunks:
the backward pass of the second gives the gradient dh_next, an input to that of the first.
"""

import numpy as np
from side_by_side import agree, draw, times

from fastrnn import functional as F

T, I, H, O = 50, 3, 64, 3
rng = np.random.default_rng(0)
W_xh, W_hh, W_hy = (rng.normal(0, 0.01, shape) for shape in ((H, I), (H, H), (O, H)))
b_h, b_y = np.zeros((H, 1)), np.zeros((O, 1))

steps = np.arange(2 * T + 1)[:, None, None]
series = np.sin(steps * np.array([[0.1], [0.2], [0.3]]))  # column vectors
xs, targets = series[:-1], series[1:]


# By hand, one step after the other.


def forward(xs, h):
    hs, ys = [h], []
    for x in xs:
        h = np.tanh(W_xh @ x + W_hh @ h + b_h)
        hs.append(h)
        ys.append(W_hy @ h + b_y)
    return hs, ys


def backward(xs, hs, dys, dh_next):
    dW_xh, dW_hh, dW_hy = np.zeros_like(W_xh), np.zeros_like(W_hh), np.zeros_like(W_hy)
    db_h, db_y = np.zeros_like(b_h), np.zeros_like(b_y)
    for t in reversed(range(len(xs))):
        dW_hy += dys[t] @ hs[t + 1].T
        db_y += dys[t]
        dh = W_hy.T @ dys[t] + dh_next
        da = (1 - hs[t + 1] ** 2) * dh
        dW_xh += da @ xs[t].T
        dW_hh += da @ hs[t].T
        db_h += da
        dh_next = W_hh.T @ da
    return [dW_xh, dW_hh, dW_hy, db_h, db_y], dh_next


def by_hand():
    hs1, ys1 = forward(xs[:T], np.zeros((H, 1)))
    hs2, ys2 = forward(xs[T:], hs1[-1])
    ys = np.array(ys1 + ys2)
    dys = ys - targets
    grads2, dh_next = backward(xs[T:], hs2, dys[T:], np.zeros((H, 1)))
    grads1, _ = backward(xs[:T], hs1, dys[:T], dh_next)
    return ys, [a + b for a, b in zip(grads1, grads2, strict=True)]


# With fastrnn, on the same arrays: time, batch (of one), feature.


def ours():
    weights = F.pack_rnn(W_xh, W_hh, b_h)
    x = xs[:, None, :, 0]
    h1, h_n, tape1 = F.rnn(x[:T], None, **weights)
    h2, _, tape2 = F.rnn(x[T:], h_n, **weights)
    h = np.concatenate([h1, h2])
    y = h @ W_hy.T + b_y.T
    dy = y - targets[:, None, :, 0]
    dh = dy @ W_hy
    _, dh_next, grads2 = F.rnn_backward(tape2, dh[T:])
    _, _, grads1 = F.rnn_backward(tape1, dh[:T], dh_next)
    dW_xh, dW_hh, db_h = F.unpack_rnn({n: grads1[n] + grads2[n] for n in grads1}, keepdims=True)
    dW_hy, db_y = np.tensordot(dy, h, ((0, 1), (0, 1))), dy.sum(axis=(0, 1))[:, None]
    return y.reshape(targets.shape), [dW_xh, dW_hh, dW_hy, db_h, db_y]


(ys, grads), (our_ys, our_grads) = by_hand(), ours()
agree("outputs", [ys], [our_ys])
agree("gradients", grads, our_grads)
times(by_hand, ours)

# The tutorial's update code works unchanged.
for step in range(1001):
    ys, grads = ours()
    if step % 250 == 0:
        print(f"step {step}: loss {0.5 * np.sum((ys - targets) ** 2):.4f}")
    for w, dw in zip([W_xh, W_hh, W_hy, b_h, b_y], grads, strict=True):
        w -= 0.002 * dw
trained = ours()[0]
agree("trained outputs", [by_hand()[0]], [trained])


def plot(axes):
    axes.plot(targets[:, 2, 0], label="the next value of the fastest sine")
    axes.plot(trained[:, 2, 0], "--", label="predicted")
    axes.axvline(T, color="grey", lw=1, label="the second chunk begins")


draw("many_to_many", plot, xlabel="step")
print("Look at the second chunk's first steps: they continue the first's state, so nothing jumps.")
