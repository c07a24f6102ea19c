"""``fastrnn classify``: train and use text classifiers."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from fastrnn._files import atomic
from fastrnn.cli.files import read_lines, read_table
from fastrnn.cli.parser import CELL, add_command, add_options, made
from fastrnn.text import TextClassifier


def add(commands: Any) -> None:
    """Add the command to a parser."""
    classify = commands.add_parser("classify", help="text classification")
    classify_commands = classify.add_subparsers(required=True, metavar="command")
    train = add_command(classify_commands, "train", _train, "train a text classifier")
    train.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="one CSV or TSV file with a header; or LABEL=FILE for each class, a text per line",
    )
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    train.add_argument(
        "--text-column", default="text", help="column of the texts in a CSV file (default: text)"
    )
    train.add_argument(
        "--label-column",
        default="label",
        help="column of the labels in a CSV file (default: label)",
    )
    train.add_argument("--encoding", default="utf-8", help="encoding of the files (default: utf-8)")
    train.add_argument(
        "--holdout",
        type=float,
        default=0.1,
        help="fraction held out to measure accuracy on (default: 0.1)",
    )
    add_options(
        train,
        TextClassifier,
        ("unit", str, "words or characters"),
        CELL,
        ("embedding_dim", int, "size of a word's embedding"),
        ("hidden_size", int, "hidden units"),
        ("num_layers", int, "recurrent layers"),
        ("dropout", float, "dropout probability"),
        ("min_count", int, "words seen fewer times share a vector"),
        ("max_length", int, "words to read of each text (default: all)"),
        ("lr", float, "initial learning rate"),
        ("batch_size", int, "texts per batch"),
        ("epochs", int, "passes through the texts"),
        ("seed", int, "for reproducible results"),
    )
    train.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    predict = add_command(classify_commands, "predict", _predict, "predict the classes of texts")
    predict.add_argument("model", metavar="MODEL", help="file written by classify train")
    predict.add_argument(
        "file", nargs="?", metavar="FILE", help="a text per line (default: standard input)"
    )
    predict.add_argument(
        "--encoding", default="utf-8", help="encoding of the file (default: utf-8)"
    )


def _train(args: argparse.Namespace) -> None:
    model = made(TextClassifier, args)
    if not 0 <= args.holdout < 1:
        raise ValueError(f"--holdout: expected a number in [0, 1), got {args.holdout}")
    texts, labels = _labelled(args)
    atomic.check_writable(args.output)
    order = np.random.default_rng(args.seed).permutation(len(texts))
    n = round(len(texts) * args.holdout)
    held, rest = order[:n], order[n:]
    if not len(rest):
        expected = f"--holdout: expected to leave one of {len(texts)} texts or more to train on"
        raise ValueError(f"{expected}, got {args.holdout}")
    model.fit([texts[i] for i in rest], labels[rest], verbose=not args.quiet)
    model.save(args.output)
    if model.history is not None and model.history.interrupted:
        print("interrupted; this is the model so far")
    if n:
        accuracy = model.score([texts[i] for i in held], labels[held])
        print(f"accuracy on {n:,} texts held out: {accuracy:.1%}")
    print(f"wrote {args.output}")


def _labelled(args: argparse.Namespace) -> tuple[list[str], Any]:
    """Return texts and labels of the files of ``classify train``."""
    if len(args.files) == 1 and "=" not in args.files[0]:
        table = read_table(args.files[0], args.encoding)
        for column in (args.text_column, args.label_column):
            if column not in table:
                raise ValueError(
                    f"{args.files[0]}: expected a column {column!r}, got {', '.join(table)}"
                )
        return table[args.text_column], np.array(table[args.label_column])
    texts: list[str] = []
    labels: list[str] = []
    for file in args.files:
        label, equals, path = file.partition("=")
        if not (label and equals and path):
            raise ValueError(f"FILE: expected one CSV file, or LABEL=FILE for each, got {file!r}")
        lines = read_lines(path, args.encoding)
        texts += lines
        labels += [label] * len(lines)
    return texts, np.array(labels)


def _predict(args: argparse.Namespace) -> None:
    model = TextClassifier.load(args.model)
    lines = read_lines(args.file, args.encoding)
    probabilities = model.predict_proba(lines)
    for line, p in zip(lines, probabilities, strict=True):
        print(f"{model.classes[p.argmax()]}\t{p.max():.3f}\t{line}")
