"""The next number, and the sum of ten
===================================

With the `Sequential` API: 100 windows of 5 consecutive integers, then 100 windows of 10 random
numbers; 32 ReLU units, one linear output from the last step, Adam, mean squared error, batches of
8. The hand-written loop has the same weights and batches, and reaches the same losses::

    h_t = relu(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
    y = W h_T + b
"""

import numpy as np
from side_by_side import agree, draw, times

import fastrnn

N, H, BATCH, EPOCHS = 100, 32, 8, 5
rng = np.random.default_rng(0)


# By hand.


def gradients_by_hand(w, x, target):
    W_ih, W_hh, b_ih, b_hh, W, b = w
    B, T, _ = x.shape
    hs = [np.zeros((B, H))]
    for t in range(T):
        hs.append(np.maximum(0, x[:, t] @ W_ih.T + b_ih + hs[-1] @ W_hh.T + b_hh))
    y = hs[-1] @ W.T + b
    loss = np.mean((y - target) ** 2)

    dy = 2 * (y - target) / B
    dW_ih, dW_hh, db_h = np.zeros_like(W_ih), np.zeros_like(W_hh), np.zeros_like(b_ih)
    dh = dy @ W
    for t in reversed(range(T)):
        da = dh * (hs[t + 1] > 0)
        dW_ih += da.T @ x[:, t]
        dW_hh += da.T @ hs[t]
        db_h += da.sum(axis=0)
        dh = da @ W_hh
    return loss, y, [dW_ih, dW_hh, db_h, db_h, dy.T @ hs[-1], dy.sum(axis=0)]


def train_by_hand(weights, X, Y, epochs):
    w = [a.copy() for a in weights]
    m, v = ([np.zeros_like(a) for a in w] for _ in range(2))
    step, losses = 0, []
    for _ in range(epochs):
        total = 0.0
        for i in range(0, N, BATCH):
            x, target = X[i : i + BATCH], Y[i : i + BATCH]
            loss, _, grads = gradients_by_hand(w, x, target)
            total += loss * len(x)
            step += 1
            for k, g in enumerate(grads):
                m[k] = 0.9 * m[k] + 0.1 * g
                v[k] = 0.999 * v[k] + 0.001 * g * g
                m_hat, v_hat = m[k] / (1 - 0.9**step), v[k] / (1 - 0.999**step)
                w[k] -= 0.001 * m_hat / (np.sqrt(v_hat) + 1e-8)
        losses.append(total / N)
    return losses


# With fastrnn.


def new_model():
    rnn = fastrnn.RNN(1, H, nonlinearity="relu", return_sequences=False, dtype=np.float64)
    model = fastrnn.Sequential([rnn, fastrnn.Linear(H, 1, dtype=np.float64)], seed=0)
    model.compile("adam", "mse")
    return model


def our_train(X, Y, epochs):
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    return new_model().fit(X, Y, epochs, **options).history["loss"]


starts = np.arange(N)[:, None]
curves = {}
random = rng.uniform(0, 1, (N, 10))
for title, X, Y in (
    ("next number", (starts + np.arange(5)) / N, (starts + 5) / N),
    ("sum of ten", random, random.sum(axis=1, keepdims=True)),
):
    print(title)
    X = X[:, :, None]
    model = new_model()
    weights = [a.copy() for a in model.parameters().values()]

    loss, y, grads = gradients_by_hand(weights, X, Y)
    our_y, tape = model.forward(X)
    our_loss, dy = fastrnn.losses.mse.value_and_grad(our_y, Y)
    _, our_grads = model.backward(tape, dy)
    agree("outputs", [y, loss], [our_y, our_loss])
    agree("gradients", grads, our_grads.values())
    losses = train_by_hand(weights, X, Y, EPOCHS)
    agree(f"losses of {EPOCHS} epochs", [losses], [our_train(X, Y, EPOCHS)])
    times(
        lambda w=weights, x=X, y=Y: train_by_hand(w, x, y, EPOCHS),
        lambda x=X, y=Y: our_train(x, y, EPOCHS),
    )

    history = model.fit(X, Y, epochs=200, batch_size=BATCH, verbose=0)
    curves[title] = history.history["loss"]
    print(f"  mean squared error after 200 epochs: {model.evaluate(X, Y)['loss']:.2e}")
    scale = N if title == "next number" else 1
    for x, target, guess in zip(X[::33], Y[::33], model.predict(X[::33]), strict=True):
        shown = " ".join(f"{v:.3g}" for v in x[:, 0] * scale)
        print(f"  {shown} -> {guess[0] * scale:.2f} ({target[0] * scale:.2f})")


def plot(axes):
    for title, losses in curves.items():
        axes.plot(losses, label=title)


draw("next_number", plot, xlabel="epoch", ylabel="mean squared error", yscale="log")
print(
    "Look at the two errors: counting on is linear and almost exact, adding is learnt more slowly."
)
