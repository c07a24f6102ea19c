"""Two bits: a toy classification
==============================

The four binary sequences of length 2, with two kinds of labels: the last bit (01 and 11 are 1, 10
and 00 are 0), as in the tutorial, for which no memory is needed; and whether the bits differ, for
which it is. Once with an RNN and once with an LSTM over the concatenation [h, x]::

    f, i, o = sigmoid(W_f [h, x] + b_f), sigmoid(W_i [h, x] + b_i), sigmoid(W_o [h, x] + b_o)
    C_t = f * C_{t-1} + i * tanh(W_C [h, x] + b_C)
    h_t = o * tanh(C_t)

both with p = sigmoid(W_y h_2 + b_y) and binary cross-entropy, summed over the sequences.
"""

import numpy as np
from side_by_side import agree, draw, times

from fastrnn import functional as F

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=float)
LABELS = {"the last bit": [0, 1, 0, 1], "whether the bits differ": [0, 1, 1, 0]}
H, STEPS, LR = 8, 500, 0.5
GATES = "fiCo"


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def initial(shapes):
    rng = np.random.default_rng(1)
    return {name: rng.normal(0, 0.5, shape) for name, shape in shapes.items()}


RNN = initial({"W_xh": (H, 1), "W_hh": (H, H), "b_h": (H, 1), "W_y": (1, H), "b_y": (1, 1)})
LSTM = initial(
    {f"W_{g}": (H, H + 1) for g in GATES}
    | {f"b_{g}": (H, 1) for g in GATES}
    | {"W_y": (1, H), "b_y": (1, 1)}
)


# By hand: sequence by sequence, step by step, in column vectors.


def rnn_by_hand(w, targets):
    grads = {name: np.zeros_like(array) for name, array in w.items()}
    ps = []
    for bits, target in zip(X, targets, strict=True):
        hs = [np.zeros((H, 1))]
        for bit in bits:
            hs.append(np.tanh(w["W_xh"] * bit + w["W_hh"] @ hs[-1] + w["b_h"]))
        p = sigmoid(w["W_y"] @ hs[-1] + w["b_y"])
        ps.append(p.item())

        dy = p - target
        grads["W_y"] += dy @ hs[-1].T
        grads["b_y"] += dy
        dh = w["W_y"].T @ dy
        for t in (1, 0):
            da = dh * (1 - hs[t + 1] ** 2)
            grads["W_xh"] += da * bits[t]
            grads["W_hh"] += da @ hs[t].T
            grads["b_h"] += da
            dh = w["W_hh"].T @ da
    return ps, grads


def lstm_by_hand(w, targets):
    grads = {name: np.zeros_like(array) for name, array in w.items()}
    ps = []
    for bits, target in zip(X, targets, strict=True):
        h, C = np.zeros((H, 1)), np.zeros((H, 1))
        memory = []
        for bit in bits:
            z = np.vstack([h, [[bit]]])
            f, i, o = (sigmoid(w[f"W_{g}"] @ z + w[f"b_{g}"]) for g in "fio")
            C_new = np.tanh(w["W_C"] @ z + w["b_C"])
            C_old, C = C, f * C + i * C_new
            h = o * np.tanh(C)
            memory.append((z, f, i, o, C_new, C_old, C))
        p = sigmoid(w["W_y"] @ h + w["b_y"])
        ps.append(p.item())

        dy = p - target
        grads["W_y"] += dy @ h.T
        grads["b_y"] += dy
        dh, dC = w["W_y"].T @ dy, np.zeros((H, 1))
        for z, f, i, o, C_new, C_old, C in reversed(memory):
            dC = dC + dh * o * (1 - np.tanh(C) ** 2)
            da = {
                "f": dC * C_old * f * (1 - f),
                "i": dC * C_new * i * (1 - i),
                "C": dC * i * (1 - C_new**2),
                "o": dh * np.tanh(C) * o * (1 - o),
            }
            for g in GATES:
                grads[f"W_{g}"] += da[g] @ z.T
                grads[f"b_{g}"] += da[g]
            dh = sum(w[f"W_{g}"].T @ da[g] for g in GATES)[:H]
            dC = dC * f
    return ps, grads


# With fastrnn: the four sequences form a batch.

x = X.T[:, :, None]


def our_rnn(w, targets):
    _, h_n, tape = F.rnn(x, None, **F.pack_rnn(w["W_xh"], w["W_hh"], w["b_h"]))
    p, dh_n, grads = our_output(w, h_n, targets)
    _, _, packed = F.rnn_backward(tape, dh_n=dh_n)
    names = ("W_xh", "W_hh", "b_h")
    return p, dict(zip(names, F.unpack_rnn(packed, keepdims=True), strict=True)) | grads


def our_lstm(w, targets):
    names = [f"W_{g}" for g in GATES] + [f"b_{g}" for g in GATES]
    _, (h_n, _), tape = F.lstm(x, None, **F.pack_lstm(*(w[name] for name in names)))
    p, dh_n, grads = our_output(w, h_n, targets)
    _, _, packed = F.lstm_backward(tape, dstate=(dh_n, None))
    return p, dict(zip(names, F.unpack_lstm(packed, keepdims=True), strict=True)) | grads


def our_output(w, h_n, targets):
    p = sigmoid(h_n @ w["W_y"].T + w["b_y"])[:, 0]
    dy = (p - targets)[:, None]
    return p, dy @ w["W_y"], {"W_y": dy.T @ h_n, "b_y": dy.sum(axis=0, keepdims=True)}


# The same training loop and update code for all.


def train(gradients, weights, targets):
    w, losses = {name: array.copy() for name, array in weights.items()}, []
    for _ in range(STEPS):
        p, grads = gradients(w, targets)
        losses.append(-np.log(np.where(targets, p, 1 - np.array(p))).sum())
        for name in w:
            w[name] -= LR * grads[name]
    return w, losses


NETWORKS = {"RNN": (RNN, rnn_by_hand, our_rnn), "LSTM": (LSTM, lstm_by_hand, our_lstm)}
curves = {}
for label, labels in LABELS.items():
    targets = np.array(labels, dtype=float)
    for network, (weights, by_hand, ours) in NETWORKS.items():
        title = f"{network}, {label}"
        print(title)
        (p, grads), (our_p, our_grads) = by_hand(weights, targets), ours(weights, targets)
        agree("outputs", [p], [our_p])
        agree("gradients", [grads[n] for n in weights], [our_grads[n] for n in weights])
        times(
            lambda f=by_hand, w=weights, t=targets: f(w, t),
            lambda f=ours, w=weights, t=targets: f(w, t),
            repeats=20,
        )
        trained, curves[title] = train(ours, weights, targets)
        hand_trained, _ = train(by_hand, weights, targets)
        agree(f"weights after {STEPS} steps", hand_trained.values(), trained.values())
        for bits, p, target in zip(X, ours(trained, targets)[0], labels, strict=True):
            print(f"  {bits[0]:.0f}{bits[1]:.0f}: p = {p:.3f} ({target})")


def plot(axes):
    for (title, losses), style in zip(curves.items(), ("C0", "C1", "C0--", "C1--"), strict=True):
        axes.plot(losses, style, label=title)


draw("toy_classification", plot, xlabel="step", ylabel="loss, nats", yscale="log")
print("Look at where curves of a colour fall: the last bit first, as it needs no memory.")
