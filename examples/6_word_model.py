"""A language model of words
=========================

After each word, the probability of every word to come next::

    s_t = tanh(U x_t + W s_{t-1})       x_t one-hot
    p_t = softmax(V s_t)
    loss = mean over the words of -log p_t[next word]

Weights are uniform in +-1/sqrt(n), with n the number of inputs. Backpropagation through time is
truncated as in the well-known word-RNN tutorials: the error of *each* output is propagated through
its own step and the 4 before it. (Deep-learning frameworks cut the text into chunks instead, and
propagate an error back to the start of its chunk.)

For fastrnn this is a batch: one row for each output, which holds its word and the 4 before it, and
starts from the state before those.
"""

import numpy as np
from side_by_side import agree, draw, times

from fastrnn import functional as F
from fastrnn.losses import cross_entropy

TEXT = """
START the cat sees the mouse and the mouse runs away END
START the dog sees the cat and the cat climbs the old tree END
START a bird sits in the old tree and sings a song END
START the cat hears the song and looks at the bird END
START the bird sees the cat and flies away END
"""
BACK, H, EPOCHS, LR = 4, 32, 300, 0.5
words = sorted(set(TEXT.split()))
index = {word: i for i, word in enumerate(words)}
sentences = [[index[word] for word in line.split()] for line in TEXT.strip().splitlines()]
N = len(words)
rng = np.random.default_rng(0)
initial = [rng.uniform(-(n**-0.5), n**-0.5, (m, n)) for m, n in ((H, N), (H, H), (N, H))]


# By hand.


def gradients_by_hand(weights, sentence):
    U, W, V = weights
    x, target = sentence[:-1], sentence[1:]
    T = len(x)
    s = np.zeros((T + 1, H))  # s[-1] is the initial state
    p = np.zeros((T, N))
    for t in range(T):
        s[t] = np.tanh(U[:, x[t]] + W @ s[t - 1])
        z = V @ s[t]
        e = np.exp(z - z.max())
        p[t] = e / e.sum()

    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), np.zeros_like(V)
    for t in range(T):
        dz = p[t].copy()
        dz[target[t]] -= 1
        dz /= T
        dV += np.outer(dz, s[t])
        da = (V.T @ dz) * (1 - s[t] ** 2)
        for k in range(t, max(0, t - BACK) - 1, -1):
            dU[:, x[k]] += da
            dW += np.outer(da, s[k - 1])
            da = (W.T @ da) * (1 - s[k - 1] ** 2)
    return p, [dU, dW, dV]


# With fastrnn.


def our_gradients(weights, sentence):
    U, W, V = weights
    packed = F.pack_rnn(U, W)
    x, target = np.eye(N)[sentence[:-1]], sentence[1:]
    T = len(x)
    s = F.rnn(x[:, None], None, **packed)[0][:, 0]
    z = s @ V.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    _, dz = cross_entropy.value_and_grad(z, target)
    ends = np.arange(T)
    starts = np.maximum(0, ends - BACK)
    windows = x[np.minimum(starts + np.arange(BACK + 1)[:, None], T - 1)]
    before = np.vstack([np.zeros(H), s])[starts]
    _, _, tape = F.rnn(windows, before, **packed, lengths=ends - starts + 1)
    _, _, grads = F.rnn_backward(tape, dh_n=dz @ V)
    return p, [*F.unpack_rnn(grads), dz.T @ s]


def train(gradients):
    weights = [w.copy() for w in initial]
    for _ in range(EPOCHS):
        for sentence in sentences:
            for w, dw in zip(weights, gradients(weights, sentence)[1], strict=True):
                w -= LR * dw
    return weights


sentence = sentences[1]
(p, grads), (our_p, our_grads) = (f(initial, sentence) for f in (gradients_by_hand, our_gradients))
agree("outputs", [p], [our_p])
agree("gradients", grads, our_grads)
times(lambda: gradients_by_hand(initial, sentence), lambda: our_gradients(initial, sentence), 20)

trained = train(our_gradients)
for name, weights in (("before", initial), ("after", trained)):
    outputs = [our_gradients(weights, sentence)[0] for sentence in sentences]
    losses = [
        -np.log(p[np.arange(len(p)), sentence[1:]]).mean()
        for p, sentence in zip(outputs, sentences, strict=True)
    ]
    print(f"loss {name} training: {np.mean(losses):.3f} nats per word")
print("\nthe likeliest word after each:")
p, _ = our_gradients(trained, sentence)
for i, j in zip(sentence, p.argmax(axis=1), strict=False):
    print(f"  {words[i]:8}-> {words[j]}")


def plot(axes):
    axes.imshow(p.T, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(p)), [words[i] for i in sentence[:-1]], rotation=60)
    axes.set_yticks(range(N), words, fontsize=7)


draw("word_model", plot, xlabel="word read", ylabel="next word")
print("Look at 'the': what follows it is open at its first place, and nearly certain at its last.")
