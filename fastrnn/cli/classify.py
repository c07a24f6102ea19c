"""``fastrnn classify``: train and use text classifiers."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.cli import signals, tables
from fastrnn.cli.files import (
    STANDARD_INPUT,
    check_outputs,
    lines_of,
    read_lines,
    read_text,
    save,
    shown,
)
from fastrnn.cli.parser import CELL, add_command, add_options, given
from fastrnn.models import estimators
from fastrnn.models.progress import tell
from fastrnn.text import TextClassifier

#: What stands before a label in the files of fastText.
_FASTTEXT = "__label__"
_LABELS = re.compile(rf"^\s*({_FASTTEXT}\S*\s+)+")

#: Files that hold tables, compressed or not.
_TABLE = re.compile(r"\.(csv|tsv|tab)(\.\w+)?$", re.IGNORECASE)


def add(commands: Any) -> None:
    """Add the command to a parser."""
    classify = commands.add_parser("classify", help="text classification")
    classify_commands = classify.add_subparsers(required=True, metavar="command")
    train = add_command(classify_commands, "train", _train, "train a text classifier")
    train.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a CSV or TSV file with a header; or one of lines __label__LABEL TEXT; or LABEL=FILE "
        "for each class, a text per line; - is standard input",
    )
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    _add_text_column(train)
    train.add_argument(
        "--label",
        "--label-column",
        metavar="NAME",
        help="column of the labels in a table (default: label)",
    )
    tables.add_options(train)
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
        ("epochs", int, "passes through the texts (default: depends on their number)"),
        ("class_weight", str, "balanced: classes count alike, however many texts each has"),
        ("seed", int, "for reproducible results"),
    )
    train.add_argument(
        "--early-stopping",
        action="store_true",
        help="stop when a part of the texts that is kept back gets no better",
    )
    train.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    predict = add_command(classify_commands, "predict", _predict, "predict the classes of texts")
    predict.add_argument("model", metavar="MODEL", help="file written by classify train")
    predict.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="a text per line, or a CSV or TSV file with a header (default: standard input)",
    )
    _add_text_column(predict)
    tables.add_options(predict)


def _add_text_column(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text",
        "--text-column",
        metavar="NAME",
        help="column of the texts in a table (default: text)",
    )


def _train(args: argparse.Namespace) -> None:
    model = TextClassifier(**given(TextClassifier, args))
    if not 0 <= args.holdout < 1:
        raise ValueError(f"--holdout: expected a number in [0, 1), got {args.holdout}")
    check_outputs([args.output], (path for _, path in _files(args.files)))
    texts, of = _labelled(args)
    labels = np.array(of)
    if not args.quiet:
        counts = ", ".join(f"{label} {n:,}" for label, n in Counter(of).most_common(10))
        name = shown(args.files[0]) if len(args.files) == 1 else f"{len(args.files)} files"
        tell(f"{name}: {len(texts):,} texts, {len({*of})} labels: {counts}")
    rest, held = _split(labels, args.holdout, model.seed)
    with signals.after_training():
        model.fit([texts[i] for i in rest], labels[rest], verbose=not args.quiet)
        save(args.output, model.save, "the model")
    if model.history is not None and model.history.interrupted:
        print("interrupted; this is the model so far")
    if len(held):
        accuracy = model.score([texts[i] for i in held], labels[held])
        print(f"accuracy on {len(held):,} texts held out: {accuracy:.1%}")
    print(f"wrote {args.output}")


def _split(labels: Array, fraction: float, seed: int | None) -> tuple[Array, Array]:
    """Return the rows to train on, which have all classes, and those held out."""
    n, classes = len(labels), len(np.unique(labels))
    wanted = round(n * fraction)
    if wanted == n:
        expected = f"--holdout: expected to leave one of {n} texts or more to train on"
        raise ValueError(f"{expected}, got {fraction}")
    if not wanted or n == classes:
        return np.arange(n), np.arange(0)
    return estimators.holdout(labels, wanted / n, np.random.default_rng(seed))


def _files(arguments: Sequence[str]) -> list[tuple[str | None, str]]:
    """Return label and path of each argument; a table or a file with labels in it has no label."""
    if len(arguments) == 1 and ("=" not in arguments[0] or os.path.exists(arguments[0])):
        return [(None, arguments[0])]
    files: list[tuple[str | None, str]] = []
    for argument in arguments:
        # The label, the path and their parts may contain the character.
        cuts = [at for at, c in enumerate(argument[:-1]) if c == "=" and at > 0]
        if not cuts:
            expected = "FILE: expected one CSV file, or LABEL=FILE for each"
            raise ValueError(f"{expected}, got {argument!r}")
        cut = next((at for at in cuts if os.path.exists(argument[at + 1 :])), cuts[0])
        files.append((argument[:cut], argument[cut + 1 :]))
    return files


def _labelled(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return texts and labels of the files of ``classify train``."""
    texts: list[str] = []
    labels: list[str] = []
    for label, path in _files(args.files):
        if label is None:
            text = read_text(path, args.encoding)
            return (_fasttext if text.lstrip().startswith(_FASTTEXT) else _table)(text, path, args)
        lines = [line for line in read_lines(path, args.encoding) if line.strip()]
        if not lines:
            raise ValueError(f"{shown(path)}: expected a line of text or more")
        texts += lines
        labels += [label] * len(lines)
    return texts, labels


def _table(text: str, path: str, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    table = tables.parse(text, path, args)
    texts = _column(table, args.text, "text")
    labels = [cell.strip() for cell in _column(table, args.label, "label")]
    for i, label in enumerate(labels):
        if not label:
            table.refuse(i, args.label or "label", "a label")
    return texts, labels


def _column(table: tables.Table, name: str | None, usual: str) -> list[str]:
    """Return a column by its name, or the one with the usual name, in capitals or not."""
    named = [column for column in table.columns if column.casefold() == usual]
    return table.column(name or (named or [usual])[0], f"--{usual} names another one")


def _fasttext(text: str, path: str, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Return texts and labels of lines such as ``__label__good a fine film``."""
    pairs = []
    for row, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        label, _, rest = re.sub(r"\s", " ", line.strip(), count=1).partition(" ")
        if not label.startswith(_FASTTEXT) or rest.lstrip().startswith(_FASTTEXT):
            expected = f"expected one {_FASTTEXT}LABEL and a text"
            raise ValueError(f"{shown(path)}: row {row}: {expected}, got {line[:40]!r}")
        pairs.append((rest.strip(), label.removeprefix(_FASTTEXT)))
    return [text for text, _ in pairs], [label for _, label in pairs]


def _predict(args: argparse.Namespace) -> None:
    model = TextClassifier.load(args.model)
    if args.text or _TABLE.search(args.file or ""):
        texts = _column(tables.read(args.file or STANDARD_INPUT, args), args.text, "text")
    else:
        # Labels would be read as words.
        texts = [_LABELS.sub("", line) for line in read_lines(args.file, args.encoding)]
    probabilities = model.predict_proba(texts)
    for text, p in zip(texts, probabilities, strict=True):
        # A line for each text, whatever it contains.
        line = re.sub(r"[\r\n]+", " ", text)
        print(f"{model.classes[p.argmax()]}\t{p.max():.3f}\t{line}")
