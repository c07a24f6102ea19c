"""Many to one: an output after the last step
==========================================

A vanilla RNN, clipped gradients and plain SGD::

    h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)
    y = h_T W_hy + b_y
    loss = sum of (y - target)^2 / 2

With row vectors, in a batch. The network reads ten numbers and predicts their sum. Every entry of
the gradients is clipped to [-5, 5] before the step.
"""

import numpy as np
from side_by_side import agree, draw, times

from fastrnn import functional as F
from fastrnn import optim

T, B, H = 10, 32, 16
STEPS, LR, CLIP = 200, 0.0005, 5.0
rng = np.random.default_rng(0)
xs = rng.uniform(-1, 1, (STEPS, T, B, 1))
targets = xs.sum(axis=1)
initial = {
    "W_xh": rng.normal(0, 0.3, (1, H)),
    "W_hh": rng.normal(0, 0.3 / H**0.5, (H, H)),
    "W_hy": rng.normal(0, 0.3, (H, 1)),
    "b_h": np.zeros((1, H)),
    "b_y": np.zeros((1, 1)),
}


# By hand, one step after the other.


def gradients_by_hand(w, x, target):
    hs = [np.zeros((B, H))]
    for x_t in x:
        hs.append(np.tanh(x_t @ w["W_xh"] + hs[-1] @ w["W_hh"] + w["b_h"]))
    y = hs[-1] @ w["W_hy"] + w["b_y"]

    dy = y - target
    grads = {name: np.zeros_like(array) for name, array in w.items()}
    grads["W_hy"] += hs[-1].T @ dy
    grads["b_y"] += dy.sum(axis=0, keepdims=True)
    dh = dy @ w["W_hy"].T
    for t in reversed(range(T)):
        da = dh * (1 - hs[t + 1] ** 2)
        grads["W_xh"] += x[t].T @ da
        grads["W_hh"] += hs[t].T @ da
        grads["b_h"] += da.sum(axis=0, keepdims=True)
        dh = da @ w["W_hh"].T
    return y, grads


def train_by_hand():
    w = {name: array.copy() for name, array in initial.items()}
    for x, target in zip(xs, targets, strict=True):
        _, grads = gradients_by_hand(w, x, target)
        for name in w:
            np.clip(grads[name], -CLIP, CLIP, out=grads[name])
            w[name] -= LR * grads[name]
    return w


# With fastrnn, on the same arrays.


def our_gradients(w, x, target):
    weights = F.pack_rnn(w["W_xh"], w["W_hh"], w["b_h"], layout="rows")
    _, h_n, tape = F.rnn(x, None, **weights)
    y = h_n @ w["W_hy"] + w["b_y"]

    dy = y - target
    _, _, grads = F.rnn_backward(tape, dh_n=dy @ w["W_hy"].T)
    dW_xh, dW_hh, db_h = F.unpack_rnn(grads, layout="rows", keepdims=True)
    dW_hy, db_y = h_n.T @ dy, dy.sum(axis=0, keepdims=True)
    return y, {"W_xh": dW_xh, "W_hh": dW_hh, "W_hy": dW_hy, "b_h": db_h, "b_y": db_y}


def our_train():
    w = {name: array.copy() for name, array in initial.items()}
    sgd = optim.SGD(LR, clip_value=CLIP)
    for x, target in zip(xs, targets, strict=True):
        sgd.step(w, our_gradients(w, x, target)[1])
    return w


y, grads = gradients_by_hand(initial, xs[0], targets[0])
our_y, our_grads = our_gradients(initial, xs[0], targets[0])
agree("outputs", [y], [our_y])
agree("gradients", grads.values(), our_grads.values())
largest = max(np.abs(g).max() for g in grads.values())
print(f"largest entry of the first gradients: {largest:.1f}, clipped to {CLIP:g}")

trained = our_train()
agree(f"weights after {STEPS} steps", train_by_hand().values(), trained.values())
times(train_by_hand, our_train, repeats=3)
found = {
    name: our_gradients(w, xs[-1], targets[-1])[0]
    for name, w in (("before", initial), ("after", trained))
}
for name, y in found.items():
    print(f"mean error of the sum, {name}: {np.abs(y - targets[-1]).mean():.3f}")


def plot(axes):
    for name, y in found.items():
        axes.plot(targets[-1], y, "o", label=f"{name} training")
    ends = [targets[-1].min(), targets[-1].max()]
    axes.plot(ends, ends, color="grey", lw=1)


draw("many_to_one", plot, xlabel="sum of ten numbers", ylabel="predicted")
print("Look at the ends: large sums are rare in training, and so predicted too near to 0.")
