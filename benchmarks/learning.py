"""What models learn, and how long it takes, with three seeds each.

python benchmarks/learning.py reviews|digits|adding|copying|shakespeare ... [--seeds 0]
python benchmarks/learning.py reviews shakespeare --precision float32 bfloat16

With several precisions of matrix products, all tasks run with one, then with the next.

Reviews and digits use the estimators' defaults.
Reviews: rt-polarity (Pang and Lee 2005), a tenth held out; Kim (2014) has 76.1 % with CNN-rand.
Digits: scikit-learn's 8x8, read row by row, a quarter held out.
Adding: the sum of the two marked numbers of 200 random ones (Hochreiter and Schmidhuber 1997), by a
GRU; mean squared error on 1,000 new sequences. Always predicting 1 gives 1/6; solved is 0.01.
Copying: 10 symbols out of 8, to be repeated after 100 steps (ibid., in the form of Arjovsky et al.
2016), by an LSTM that starts with delays of 1 to 100; 1,000 new sequences. Without memory the loss
is 10 ln 8 / 120 nats per step; solved is a tenth of that.
Shakespeare: nats per character on the last tenth of tiny Shakespeare, which is used once, at the
end: with the model as trained, and with dynamic evaluation. Settings were chosen on a play held out
of the rest, The Winter's Tale, as the last tenth has most of one play of which the rest has only
the beginning, and part of another of which it has nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn.optim import Adam, CosineDecay
from fastrnn.text import CharLM, TextClassifier, split


def reviews(data: Path, seeds: list[int], precision: str) -> None:
    """Print the accuracy with each seed, which selects the tenth held out."""
    lines = [(data / f"rt-polarity.{kind}").read_text().splitlines() for kind in ("neg", "pos")]
    texts, labels = [*lines[0], *lines[1]], np.repeat([0, 1], [len(of) for of in lines])
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(texts))
        held, rest = np.split(order, [len(order) // 10])
        start = time.perf_counter()
        model = TextClassifier(matmul_precision=precision, seed=seed)
        model.fit([texts[i] for i in rest], labels[rest], verbose=0)
        seconds = time.perf_counter() - start
        accuracy = model.score([texts[i] for i in held], labels[held])
        print(f"reviews, seed {seed}: accuracy {accuracy:.1%}, {seconds:.0f} s", flush=True)


def digits(data: Path, seeds: list[int], precision: str) -> None:
    """Print the accuracy with each seed, which selects the quarter; bidirectional, dropout 0.2."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from fastrnn.sklearn import SequenceClassifier

    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8).astype(np.float64 if precision == "float32" else np.float32)
    for seed in seeds:
        train, test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        start = time.perf_counter()
        model = SequenceClassifier(
            bidirectional=True, dropout=0.2, matmul_precision=precision, random_state=seed
        )
        model.fit(train, y_train)
        seconds = time.perf_counter() - start
        accuracy = model.score(test, y_test)
        print(f"digits, seed {seed}: accuracy {accuracy:.1%}, {seconds:.0f} s", flush=True)


def adding(data: Path, seeds: list[int], precision: str) -> None:
    """Train on 10,000 sequences, six times."""
    N, T, H, batch, epochs = 10_000, 200, 64, 50, 6
    for seed in seeds:
        rng = np.random.default_rng(seed)
        x = np.zeros((N + 1000, T, 2), np.float32)
        x[..., 0] = rng.random((len(x), T))
        for half in (0, T // 2):  # a mark in each half
            x[np.arange(len(x)), half + rng.integers(T // 2, size=len(x)), 1] = 1
        y = (x[..., 0] * x[..., 1]).sum(axis=1)
        model = fastrnn.Sequential(
            [fastrnn.GRU(2, H, return_sequences=False), fastrnn.Linear(H, 1)], seed=seed
        )
        model.matmul_precision = precision
        model.compile(Adam(CosineDecay(5e-3, N // batch * epochs), clip_norm=1.0), "mse")
        start = time.perf_counter()
        model.fit(x[:N], y[:N], epochs, batch, verbose=0)
        seconds = time.perf_counter() - start
        error = model.evaluate(x[N:], y[N:])["loss"]
        print(f"adding, seed {seed}: error {error:.5f}, {seconds:.0f} s", flush=True)


def copying(data: Path, seeds: list[int], precision: str) -> None:
    """Train on all delays 4 times, on the longest 16; biases as in Tallec and Ollivier 2018."""
    N, delay, symbols, n, H, batch, epochs = 20_000, 100, 8, 10, 128, 16, (4, 16)
    blank, go = 0, symbols + 1

    def sequences(rng, delays):
        X, Y = [], []
        for steps in delays + 2 * n:
            copied = rng.integers(1, symbols + 1, n)
            x, y = np.full((2, steps), blank)
            x[:n], x[-n - 1], y[-n:] = copied, go, copied
            X.append(x)
            Y.append(y)
        return X, Y

    for seed in seeds:
        rng = np.random.default_rng(seed)
        all_lengths = sequences(rng, rng.integers(1, delay + 1, N))
        longest, test = (sequences(rng, np.full(count, delay)) for count in (N, 1000))
        layers = fastrnn.Embedding(go + 1, 16), fastrnn.LSTM(16, H), fastrnn.Linear(H, go + 1)
        model = fastrnn.Sequential(layers, seed=seed)
        weights = model.parameters()
        last = np.log(rng.uniform(1, delay + 2 * n - 1, H))
        weights["1.bias_hh_l0"][...] = 0
        weights["1.bias_ih_l0"][...] = np.concatenate([-last, last, np.zeros(2 * H)])
        rate = CosineDecay(3e-3, N // batch * sum(epochs))
        model.matmul_precision = precision
        model.compile(Adam(rate, clip_norm=1.0), "cross_entropy")
        start = time.perf_counter()
        for (X, Y), times in zip((all_lengths, longest), epochs, strict=True):
            model.fit(X, Y, times, batch, verbose=0)
        seconds = time.perf_counter() - start
        new, target = map(np.array, test)
        loss = model.evaluate(new, target)["loss"]
        right = (model.predict(new).argmax(axis=-1) == target)[:, -n:].mean()
        memoryless = n * np.log(symbols) / (delay + 2 * n)
        print(
            f"copying, seed {seed}: {right:.2%} of the symbols right, loss {loss:.5f} "
            f"({memoryless:.3f} without memory), {seconds:.0f} s",
            flush=True,
        )


def shakespeare(data: Path, seeds: list[int], precision: str) -> None:
    """Train a model larger than the default, with more regularisation and longer chunks."""
    train, held = split((data / "tinyshakespeare.txt").read_text(), 0.1)
    for seed in seeds:
        model = CharLM(
            hidden_size=512, dropout=0.5, input_dropout=0.1, weight_dropout=0.3, seq_len=128,
            batch_size=16, lr=4e-3, epochs=6, validation_fraction=0, matmul_precision=precision,
            seed=seed,
        )  # fmt: skip
        start = time.perf_counter()
        model.fit(train)
        seconds = time.perf_counter() - start
        nats = model.bits_per_char(held) * np.log(2)
        adapting = model.bits_per_char(held, adapt_lr=3e-4) * np.log(2)
        print(
            f"shakespeare, seed {seed}: {nats:.4f} nats per character, {adapting:.4f} adapting, "
            f"{seconds:.0f} s with {fastrnn.get_num_threads()} threads",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    of_all = (reviews, digits, adding, copying, shakespeare)
    tasks = {task.__name__: task for task in of_all}
    parser.add_argument("task", choices=tasks, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), nargs="+", default=["float32"]
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="FOLDER")
    options = parser.parse_args()
    for precision in options.precision:
        for task in options.task:
            print(f"{task} in {precision}:", flush=True)
            tasks[task](options.data, options.seeds, precision)


if __name__ == "__main__":
    main()
