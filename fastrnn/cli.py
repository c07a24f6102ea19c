"""The command line: ``fastrnn demo``, ``info``, ``bench``, ``lm``, ``classify``, ``forecast``."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import fastrnn
from fastrnn._files import atomic
from fastrnn.forecast import Forecaster
from fastrnn.text import CharLM, Record, TextClassifier, split, training_speed
from fastrnn.text.ngram import ngram_bits_per_char


class _Parser(argparse.ArgumentParser):
    """Raises, where argparse would print its usage and exit: all errors are told in one place."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the program's arguments.

    Returns
    -------
    int
        The exit code: 0, 1 if nobody reads the output any more, 2 for bad input, 130 for Ctrl-C.
    """
    if sys.stdout is None:  # closed by the shell
        sys.stdout = io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal can't show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush what is left at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, ValueError, OverflowError, MemoryError) as error:
        print(f"fastrnn: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastrnn: interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastrnn", description=fastrnn.__doc__)
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_demo(commands)
    _command(commands, "info", _info, "print version, backends, CPU features and threads")
    _add_bench(commands)
    _add_lm(commands)
    _add_classify(commands)
    _add_forecast(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = _command(commands, "demo", _demo, "train a character model and show what it learned")
    demo.add_argument("--seconds", type=float, default=60.0, help="of training (default: 60)")
    demo.add_argument(
        "--out",
        default="fastrnn-demo",
        metavar="DIR",
        help="for the results (default: %(default)s)",
    )
    demo.add_argument(
        "--text", metavar="FILE", help="to train on (default: Python's own documentation)"
    )
    demo.add_argument("--seed", type=int, default=0, help="default: 0")


def _add_bench(commands: Any) -> None:
    bench = _command(commands, "bench", _bench, "measure speed beside NumPy and what is installed")
    bench.add_argument(
        "--peers",
        type=lambda names: names.split(","),
        metavar="NAME,...",
        help="some of reference, numpy, torch, onnxruntime (default: all that are installed)",
    )
    bench.add_argument(
        "--threads",
        type=int,
        default=fastrnn.get_num_threads(),
        help="all are at their better of 1 and so many (default: %(default)s)",
    )
    bench.add_argument("--quick", action="store_true", help="small sizes: does it work?")
    bench.add_argument("--json", metavar="FILE", help="to write what was measured to")


def _add_lm(commands: Any) -> None:
    lm = commands.add_parser("lm", help="character language models")
    lm_commands = lm.add_subparsers(required=True, metavar="command")
    train = _command(lm_commands, "train", _lm_train, "train a model on a text")
    train.add_argument("text", metavar="FILE", help="the text, UTF-8")
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    _options(
        train,
        CharLM,
        ("cell", str, "lstm, gru or rnn"),
        ("embedding_dim", int, "size of a character's vector"),
        ("hidden_size", int, "hidden units"),
        ("num_layers", int, "recurrent layers"),
        ("dropout", float, "probability"),
        ("input_dropout", float, "probability, of the characters' vectors"),
        ("weight_dropout", float, "probability, of recurrent weights"),
        ("seq_len", int, "characters per chunk"),
        ("batch_size", int, "streams side by side"),
        ("lr", float, "learning rate at the start"),
        ("clip_norm", float, "largest joint norm of the gradients"),
        ("epochs", float, "times through the text; by the text's size"),
        ("max_seconds", float, "longest time of training"),
        ("validation_fraction", float, "of the text, at its end"),
        ("seed", int, "for equal results"),
    )
    train.add_argument("-q", "--quiet", action="store_true", help="show no progress")

    generate = _command(lm_commands, "generate", _lm_generate, "write on from a prompt")
    generate.add_argument("model", metavar="MODEL", help="what lm train wrote")
    generate.add_argument("--prompt", default="", help="text to go on from (default: none)")
    generate.add_argument("--length", type=int, default=500, help="characters (default: 500)")
    generate.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more cautious (default: 1)"
    )
    generate.add_argument("--top-k", type=int, help="choose among the likeliest only")
    generate.add_argument("--seed", type=int, help="for equal results")


def _add_classify(commands: Any) -> None:
    classify = commands.add_parser("classify", help="classes of texts")
    classify_commands = classify.add_subparsers(required=True, metavar="command")
    train = _command(classify_commands, "train", _classify_train, "train a classifier of texts")
    train.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="one CSV or TSV file with a header; or for each class LABEL=FILE, a text per line",
    )
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    train.add_argument("--text-column", default="text", help="of a CSV file (default: text)")
    train.add_argument("--label-column", default="label", help="of a CSV file (default: label)")
    train.add_argument("--encoding", default="utf-8", help="of the files (default: utf-8)")
    train.add_argument(
        "--holdout", type=float, default=0.1, help="part to measure accuracy on (default: 0.1)"
    )
    _options(
        train,
        TextClassifier,
        ("unit", str, "words or characters"),
        ("cell", str, "gru, lstm or rnn"),
        ("embedding_dim", int, "size of a word's vector"),
        ("hidden_size", int, "hidden units"),
        ("num_layers", int, "recurrent layers"),
        ("dropout", float, "probability"),
        ("min_count", int, "words seen less often share a vector"),
        ("max_length", int, "words read of a text"),
        ("lr", float, "learning rate at the start"),
        ("batch_size", int, "texts side by side"),
        ("epochs", int, "times through the texts"),
        ("seed", int, "for equal results"),
    )
    train.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    predict = _command(classify_commands, "predict", _classify_predict, "tell texts' classes")
    predict.add_argument("model", metavar="MODEL", help="what classify train wrote")
    predict.add_argument(
        "file", nargs="?", metavar="FILE", help="a text per line (default: standard input)"
    )
    predict.add_argument("--encoding", default="utf-8", help="of the file (default: utf-8)")


def _add_forecast(commands: Any) -> None:
    forecast = _command(commands, "forecast", _forecast, "forecast time series")
    forecast.add_argument("file", metavar="FILE", help="CSV with a header, oldest row first")
    forecast.add_argument(
        "--column",
        action="append",
        metavar="NAME",
        help="may be repeated (default: all of numbers)",
    )
    forecast.add_argument("--horizon", type=int, default=12, help="steps ahead (default: 12)")
    forecast.add_argument(
        "--level", type=float, default=0.9, help="of the interval; 0 for none (default: 0.9)"
    )
    forecast.add_argument(
        "--backtest", action="store_true", help="also tell errors on the last fifth"
    )
    forecast.add_argument("--out", metavar="FILE", help="CSV file to write")
    forecast.add_argument("--plot", metavar="FILE", help="PNG picture to write")
    _options(
        forecast,
        Forecaster,
        ("season", int, "values per season"),
        ("window", int, "values that the net reads"),
        ("steps", int, "values that it says at once"),
        ("cell", str, "gru, lstm or rnn"),
        ("hidden_size", int, "hidden units"),
        ("lr", float, "learning rate at the start"),
        ("epochs", int, "times through the series; by its length"),
        ("seed", int, "for equal results"),
    )
    forecast.add_argument("--log", action="store_true", help="work with logarithms")


def _options(parser: argparse.ArgumentParser, of: Any, *rows: tuple[str, Any, str]) -> None:
    """Options for fields of a dataclass, with their defaults; `max_seconds` is ``--seconds``."""
    usual = {field.name: field.default for field in dataclasses.fields(of)}
    for name, kind, text in rows:
        flag = "--" + name.replace("max_seconds", "seconds").replace("_", "-")
        shown = text if usual[name] is None else f"{text} (default: {usual[name]})"
        parser.add_argument(flag, type=kind, dest=name, default=usual[name], help=shown)


def _made(of: Any, args: argparse.Namespace) -> Any:
    """The dataclass with what was passed on the command line."""
    names = {field.name for field in dataclasses.fields(of) if field.init}
    return of(**{name: value for name, value in vars(args).items() if name in names})


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _info(args: argparse.Namespace) -> None:
    fastrnn.show_config()


def _bench(args: argparse.Namespace) -> None:
    from fastrnn._bench import short

    short.run(args.peers, args.threads, args.quick, args.json)


def _lm_train(args: argparse.Namespace) -> None:
    model = _made(CharLM, args)
    text = _read(args.text)
    atomic.check_writable(args.output)
    model.fit(text, verbose=not args.quiet)
    model.save(args.output)
    if model.interrupted:
        print("interrupted; this is the model so far")
    if model.history and model.validation_fraction:
        best = min(record.validation_bits for record in model.history)
        print(f"validation: {best:.3f} bits per character")
    print(f"wrote {args.output}")


def _lm_generate(args: argparse.Namespace) -> None:
    model = CharLM.load(args.model)
    written = model.generate(args.prompt, args.length, args.temperature, args.top_k, args.seed)
    print(args.prompt + written)


def _classify_train(args: argparse.Namespace) -> None:
    model = _made(TextClassifier, args)
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
    """Texts and labels of the files of ``classify train``."""
    if len(args.files) == 1 and "=" not in args.files[0]:
        table = _table(args.files[0], args.encoding)
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
        lines = _lines(path, args.encoding)
        texts += lines
        labels += [label] * len(lines)
    return texts, np.array(labels)


def _classify_predict(args: argparse.Namespace) -> None:
    model = TextClassifier.load(args.model)
    lines = _lines(args.file, args.encoding)
    probabilities = model.predict_proba(lines)
    for line, p in zip(lines, probabilities, strict=True):
        print(f"{model.classes[p.argmax()]}\t{p.max():.3f}\t{line}")


#: Shorter series are forecast within seconds, and in more epochs than anyone wants to read of.
_LONG_SERIES = 20_000


def _forecast(args: argparse.Namespace) -> None:
    model = _made(Forecaster, args)
    series = _series(args.file, args.column)
    for file in filter(None, (args.out, args.plot)):
        atomic.check_writable(file)
    values = np.column_stack(list(series.values()))
    verbose = int(len(values) > _LONG_SERIES)
    if args.backtest:
        one = values[:, 0] if len(series) == 1 else values
        print(f"{model.backtest(one, args.horizon, verbose=verbose)}\n")
    columns = {"step": np.arange(1, args.horizon + 1)}
    model.fit(values, verbose=verbose)
    forecast = model.predict(args.horizon)
    bounds = model.predict_interval(args.horizon, level=args.level) if args.level else ()
    for k, name in enumerate(series):
        columns[name] = forecast[:, k]
        for side, bound in zip(("lower", "upper"), bounds, strict=False):
            columns[f"{name} {side}"] = bound[:, k]
    rows = [[f"{value:.6g}" for value in row] for row in zip(*columns.values(), strict=True)]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in ([*columns], *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if args.out:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([[*columns], *rows])
        atomic.write(args.out, text.getvalue().encode())
        print(f"\nwrote {args.out}")
    if args.plot:
        picture = io.BytesIO()
        model.plot(args.horizon, level=args.level or 0.9).savefig(picture, format="png")
        atomic.write(args.plot, picture.getvalue())
        print(f"\nwrote {args.plot}")


def _series(path: str, names: Sequence[str] | None) -> dict[str, Any]:
    """Columns of a CSV file as numbers: these, or all but those without a single one."""
    table = _table(path, "utf-8")
    found = {}
    for name in names or table:
        if name not in table:
            raise ValueError(f"{path}: expected a column {name!r}, got {', '.join(table)}")
        try:
            found[name] = np.array(table[name], dtype=np.float64)
        except ValueError as error:
            if names or any(map(_is_number, table[name])):
                raise ValueError(f"{path}: column {name!r}: {error}") from None
    if not found:
        raise ValueError(f"{path}: expected a column of numbers, got {', '.join(table)}")
    return found


def _table(path: str, encoding: str) -> dict[str, list[str]]:
    """Columns of a file of comma-separated values, or tab-separated ones if it ends so."""
    lines = io.StringIO(_read(path, encoding).rstrip("\r\n"), newline="")
    dialect = "excel-tab" if path.endswith(".tsv") else "excel"
    try:
        header, *rows = list(csv.reader(lines, dialect)) or [[]]
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from None
    if not rows or len(set(header)) < len(header) or all(map(_is_number, header)):
        raise ValueError(f"{path}: expected a header of distinct names, and a row or more")
    for i, row in enumerate(rows, 2):
        # A blank line is a missing value: to leave it out would move all that follow.
        if len(row) != len(header):
            raise ValueError(f"{path}: row {i}: expected {len(header)} columns, got {len(row)}")
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _demo(args: argparse.Namespace) -> None:
    source, text = _demo_text(args.text)
    model = CharLM(max_seconds=args.seconds, seed=args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model_file, picture = out / "charlm.safetensors", out / "learning_curve.png"
    for file in (model_file, picture):
        atomic.check_writable(file)

    train, validation = split(text, model.validation_fraction)
    print(
        f"{source}: {len(text):,} characters, {len(set(text))} distinct; "
        f"the last {len(validation):,} are for validation"
    )
    print(
        f"training {model.cell.upper()}, backend {fastrnn.backend()}, {args.seconds:g} s",
        flush=True,
    )
    model.fit(text)
    model.save(model_file)
    if model.interrupted:
        print("interrupted; going on with the model so far")

    bits = {f"order-{n}": ngram_bits_per_char(train, validation, n) for n in (0, 2)}
    print("\nvalidation, bits per character")
    for name, value in (bits | {"this model": model.bits_per_char(validation)}).items():
        print(f"  {name:12}{value:.3f}")

    print("\nsample")
    sample = model.generate("", 400, temperature=0.7, seed=args.seed)
    print("  " + sample.replace("\n", "\n  ").strip())

    print("\ntraining speed, characters per second on the same work")
    for name in dict.fromkeys((fastrnn.backend(), "reference")):
        with fastrnn.use_backend(name):
            print(f"  {name:12}{training_speed(model, text):,.0f}", flush=True)

    print(f"\nwrote {model_file}")
    if _draw(model.history, bits, picture):
        print(f"wrote {picture}")
    else:
        print("no learning curve: matplotlib is not installed")


def _demo_text(path: str | None) -> tuple[str, str]:
    """What to train on, by name and in full."""
    if path is not None:
        return path, _read(path)
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError(
            "this Python has no pydoc_data.topics to train on; give a text with --text FILE"
        ) from None
    return "pydoc_data.topics", "\n\n".join(topics[name] for name in sorted(topics))


_STANDARD_INPUT = "standard input"


def _lines(path: str | None, encoding: str) -> list[str]:
    """The lines of a file, or of standard input, that are not blank."""
    lines = [line for line in _read(path, encoding).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path or _STANDARD_INPUT}: expected a line of text or more")
    return lines


def _read(path: str | None, encoding: str = "utf-8") -> str:
    """The text of a file, or, with None, of standard input."""
    name = path or _STANDARD_INPUT
    try:
        text = _standard_input(encoding) if path is None else Path(path).read_text(encoding)
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else error
        raise ValueError(f"{name}: is not {encoding.upper()} text: {reason}") from None
    except LookupError:
        raise ValueError(f"--encoding: expected one that Python knows, got {encoding!r}") from None
    text = text.removeprefix("\ufeff")  # a byte-order mark is not text
    if "\0" in text:
        raise ValueError(f"{name}: is not text: it has NUL characters")
    if not text:
        raise ValueError(f"{name}: is empty")
    return text


def _standard_input(encoding: str) -> str:
    if sys.stdin is None:
        raise ValueError(f"{_STANDARD_INPUT}: is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=encoding, errors="strict")
    return sys.stdin.read()


def _draw(history: Sequence[Record], baselines: dict[str, float], path: Path) -> bool:
    """Draw the learning curve; False if matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="seconds of training", ylabel="validation, bits per character")
    axes.plot(
        [r.seconds for r in history], [r.validation_bits for r in history], "o-", label="CharLM"
    )
    for (name, bits), style in zip(baselines.items(), (":", "--"), strict=True):
        axes.axhline(bits, color="gray", linestyle=style, label=name)
    axes.legend()
    figure.savefig(path, format="png")
    return True
