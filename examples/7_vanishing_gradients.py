"""Vanishing gradients
===================

How the gradient of the last step's loss decays towards earlier inputs: the norm of d loss / d x_t
over t, for a vanilla RNN, a GRU and an LSTM with orthogonal weights. A bias of 3 on the LSTM's
forget gate and the GRU's update gate keeps the state at first, as is usual for long dependencies. A
plot if matplotlib is installed, else text.
"""

import numpy as np
from side_by_side import agree, draw, times

from fastrnn import functional as F

T, I, H = 100, 8, 32
rng = np.random.default_rng(0)
x = rng.normal(0, 0.5, (T, I))
dh_last = rng.normal(0, 1, H)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def weights(gates):
    """Draw W (gates*H, I), R (gates*H, H) and b: small inputs, orthogonal recurrences."""
    R = [np.linalg.qr(rng.normal(size=(H, H)))[0] for _ in range(gates)]
    return rng.normal(0, 0.3, (gates * H, I)), np.concatenate(R), np.zeros(gates * H)


RNN, GRU, LSTM = weights(1), weights(3), weights(4)
GRU[2][H : 2 * H] = 3  # r, z, n
LSTM[2][H : 2 * H] = 3  # i, f, g, o


# By hand, one step after the other.


def rnn_by_hand():
    W, R, b = RNN
    hs = [np.zeros(H)]
    for x_t in x:
        hs.append(np.tanh(W @ x_t + R @ hs[-1] + b))
    dx, dh = np.zeros_like(x), dh_last
    for t in reversed(range(T)):
        da = dh * (1 - hs[t + 1] ** 2)
        dx[t] = W.T @ da
        dh = R.T @ da
    return hs[-1], dx


def gru_by_hand():
    W, R, b = GRU
    h, memory = np.zeros(H), []
    for x_t in x:
        a, u = W @ x_t + b, R @ h
        r, z = sigmoid(a[:H] + u[:H]), sigmoid(a[H : 2 * H] + u[H : 2 * H])
        n = np.tanh(a[2 * H :] + r * u[2 * H :])
        memory.append((h, r, z, n, u[2 * H :]))
        h = (1 - z) * n + z * h
    dx, dh = np.zeros_like(x), dh_last
    for t in reversed(range(T)):
        h_old, r, z, n, u_n = memory[t]
        da_n = dh * (1 - z) * (1 - n**2)
        da_r = da_n * u_n * r * (1 - r)
        da_z = dh * (h_old - n) * z * (1 - z)
        dx[t] = W.T @ np.concatenate([da_r, da_z, da_n])
        dh = dh * z + R.T @ np.concatenate([da_r, da_z, da_n * r])
    return h, dx


def lstm_by_hand():
    W, R, b = LSTM
    h, c, memory = np.zeros(H), np.zeros(H), []
    for x_t in x:
        a = W @ x_t + R @ h + b
        i, f, o = sigmoid(a[:H]), sigmoid(a[H : 2 * H]), sigmoid(a[3 * H :])
        g = np.tanh(a[2 * H : 3 * H])
        c_old, c = c, f * c + i * g
        h = o * np.tanh(c)
        memory.append((c_old, c, i, f, g, o))
    dx, dh, dc = np.zeros_like(x), dh_last, np.zeros(H)
    for t in reversed(range(T)):
        c_old, c, i, f, g, o = memory[t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        da = np.concatenate(
            [
                dc * g * i * (1 - i),
                dc * c_old * f * (1 - f),
                dc * i * (1 - g**2),
                dh * np.tanh(c) * o * (1 - o),
            ]
        )
        dx[t] = W.T @ da
        dh = R.T @ da
        dc = dc * f
    return h, dx


# With fastrnn.


def our_rnn():
    _, h_n, tape = F.rnn(x[:, None], None, *RNN)
    return h_n[0], F.rnn_backward(tape, dh_n=dh_last[None])[0][:, 0]


def our_gru():
    _, h_n, tape = F.gru(x[:, None], None, *GRU)
    return h_n[0], F.gru_backward(tape, dh_n=dh_last[None])[0][:, 0]


def our_lstm():
    _, (h_n, _), tape = F.lstm(x[:, None], None, *LSTM)
    return h_n[0], F.lstm_backward(tape, dstate=(dh_last[None], None))[0][:, 0]


norms = {}
for name, by_hand, ours in (
    ("RNN", rnn_by_hand, our_rnn),
    ("GRU", gru_by_hand, our_gru),
    ("LSTM", lstm_by_hand, our_lstm),
):
    print(name)
    (h, dx), (our_h, our_dx) = by_hand(), ours()
    agree("outputs", [h], [our_h])
    agree("gradients", [dx], [our_dx])
    times(by_hand, ours)
    norms[name] = np.linalg.norm(our_dx, axis=1)


def plot(axes):
    for name, n in norms.items():
        axes.plot(n, label=name)


if not draw("vanishing_gradients", plot, xlabel="step t", ylabel="|d loss / d x_t|", yscale="log"):
    print("\n|d loss / d x_t|, one # for each factor of 10 above 1e-12")
    for t in range(0, T, 11):
        bars = (f"{name:5}{'#' * round(12 + np.log10(n[t])):14}" for name, n in norms.items())
        print(f"t = {t:2}  {' '.join(bars)}")
for name, n in norms.items():
    print(f"{name:5} first step / last step: {n[0] / n[-1]:.1e}")
print("Look at the first step: the RNN's gradient is gone, the gates keep those of the others.")
