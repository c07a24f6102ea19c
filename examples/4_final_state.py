"""One network for text, sentiment and forecasts
=============================================

Its output comes from the final state::

    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
    y = W h_T + b

- 12 characters: the next one, repeatedly, to generate text.
- A sentence of words: positive, negative or neutral.
- 24 months of a series with a trend and a season: the next month.

Each compares outputs and gradients of a hand-written loop and a `fastrnn.Sequential`.
"""

import numpy as np
from side_by_side import agree, draw, times

import fastrnn

H = 32
TEXT = (
    "the rain in the hills runs down to the river, the river runs down to the sea, "
    "and the sea gives the rain back to the hills. " * 3
)
SENTENCES = {
    "positive": (
        "a warm and clever film|i loved the film|what a good clever story|the actors are good"
        "|i loved the warm story|a good film and good actors"
    ),
    "negative": (
        "a cold and boring film|i hated the film|what a bad boring story|the actors are bad"
        "|i hated the cold story|a bad film and bad actors"
    ),
    "neutral": (
        "the film is about a town|the story is about a river|it is a film|the actors are in a town"
        "|what is the story about|it is about two actors"
    ),
}


# By hand: a class as in tutorials, for one sequence of vectors.


class FinalStateRNN:
    def __init__(self, weights):
        self.W_ih, self.W_hh, self.b_ih, self.b_hh, self.W, self.b = weights

    def forward(self, xs):
        self.xs, self.hs = xs, [np.zeros(len(self.W_hh))]
        for x in xs:
            a = self.W_ih @ x + self.b_ih + self.W_hh @ self.hs[-1] + self.b_hh
            self.hs.append(np.tanh(a))
        return self.W @ self.hs[-1] + self.b

    def backward(self, dy):
        dW, db = np.outer(dy, self.hs[-1]), dy
        dW_ih, dW_hh = np.zeros_like(self.W_ih), np.zeros_like(self.W_hh)
        db_h = np.zeros_like(self.b_ih)
        dh = self.W.T @ dy
        for t in reversed(range(len(self.xs))):
            da = dh * (1 - self.hs[t + 1] ** 2)
            dW_ih += np.outer(da, self.xs[t])
            dW_hh += np.outer(da, self.hs[t])
            db_h += da
            dh = self.W_hh.T @ da
        return [dW_ih, dW_hh, db_h, db_h, dW, db]


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def by_hand(weights, X, targets, loss):
    """Return outputs of all sequences, and the gradients of the mean loss."""
    net = FinalStateRNN(weights)
    ys, total = [], [np.zeros_like(w) for w in weights]
    for xs, target in zip(X, targets, strict=True):
        y = net.forward(xs)
        ys.append(y)
        if loss == "cross_entropy":
            dy = softmax(y)
            dy[target] -= 1
        else:
            dy = 2 * (y - target)
        for sum_, g in zip(total, net.backward(dy), strict=True):
            sum_ += g / len(X)
    return ys, total


# With fastrnn: all sequences at once; sentences of different lengths are padded, which costs
# nothing and changes nothing.


def new_model(inputs, outputs, loss):
    rnn = fastrnn.RNN(inputs, H, return_sequences=False, dtype=np.float64)
    model = fastrnn.Sequential([rnn, fastrnn.Linear(H, outputs, dtype=np.float64)], seed=0)
    model.compile(fastrnn.optim.Adam(0.01, clip_norm=1.0), loss)
    return model


def ours(model, X, targets):
    lengths = np.array([len(x) for x in X])
    padded = np.zeros((len(X), lengths.max(), X[0].shape[1]))
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    ys, tape = model.forward(padded, lengths=lengths)
    _, dy = model.loss.value_and_grad(ys, targets)
    return ys, list(model.backward(tape, dy)[1].values())


def compare(title, model, X, targets, loss):
    print(title)
    weights = list(model.parameters().values())
    (ys, grads), (our_ys, our_grads) = by_hand(weights, X, targets, loss), ours(model, X, targets)
    agree("outputs", [ys], [our_ys])
    agree("gradients", grads, our_grads)
    times(lambda: by_hand(weights, X, targets, loss), lambda: ours(model, X, targets), repeats=3)


# Text.

chars = sorted(set(TEXT))
ids = np.array([chars.index(c) for c in TEXT])
window = 12
X = [np.eye(len(chars))[ids[i : i + window]] for i in range(len(ids) - window)]
targets = ids[window:]
model = new_model(len(chars), len(chars), "cross_entropy")
compare("character-level text generation", model, X, targets, "cross_entropy")
model.fit(X, targets, epochs=15, batch_size=32, verbose=0)
written = list(ids[:window])
for _ in range(70):
    scores = model.predict([np.eye(len(chars))[written[-window:]]])[0]
    written.append(int(scores.argmax()))
print("  " + "".join(chars[i] for i in written) + "\n")

# Sentiment.

labels = list(SENTENCES)
texts = [(text.split(), i) for i, of in enumerate(SENTENCES.values()) for text in of.split("|")]
words = sorted({word for text, _ in texts for word in text})
X = [np.eye(len(words))[[words.index(word) for word in text]] for text, _ in texts]
targets = np.array([i for _, i in texts])
model = new_model(len(words), len(labels), "cross_entropy")
compare("sentiment", model, X, targets, "cross_entropy")
model.fit(X, targets, epochs=60, batch_size=6, verbose=0)
for text in ("a good story", "i hated the actors", "the river is in the town"):
    scores = model.predict([np.eye(len(words))[[words.index(word) for word in text.split()]]])[0]
    print(f"  {text}: {labels[scores.argmax()]} ({softmax(scores).max():.0%})")

# Forecast of the change from the last month to the next.

months = np.arange(240)
rng = np.random.default_rng(0)
series = 0.005 * months + np.sin(2 * np.pi * months / 12) + rng.normal(0, 0.05, len(months))
window = 24
X = [series[i : i + window, None] - series[i + window - 1] for i in range(len(series) - window)]
targets = np.diff(series)[window - 1 :, None]
model = new_model(1, 1, "mse")
compare("\ntime-series forecasting", model, X, targets, "mse")
train = len(X) - 48
model.fit(X[:train], targets[:train], epochs=40, batch_size=16, verbose=0)
changes = model.predict(X[train:])
error = np.abs(changes - targets[train:]).mean()
print(f"  mean error over the last 48 months: {error:.3f}")
print(f"  of the naive forecast, the last month: {np.abs(targets[train:]).mean():.3f}")


def plot(axes):
    last = months[window + train :]
    axes.plot(last, series[last], label="series")
    axes.plot(last, series[last - 1] + changes[:, 0], "--", label="forecast, one month ahead")


draw("final_state", plot, xlabel="month")
print("Look at the turning points: the naive forecast lags there by a month, the network does not.")
