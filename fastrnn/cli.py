"""The command line: ``fastrnn demo``, ``info``, ``bench``, ``lm train|generate``."""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import fastrnn
from fastrnn import _files
from fastrnn._ngram import ngram_bits_per_char
from fastrnn.text import CharLM, Record, split, training_speed

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(CharLM)}


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
    except (OSError, ValueError, OverflowError, MemoryError) as error:
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

    _command(commands, "info", _info, "print version, backends, CPU features and threads")

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

    lm = commands.add_parser("lm", help="character language models")
    lm_commands = lm.add_subparsers(required=True, metavar="command")
    train = _command(lm_commands, "train", _lm_train, "train a model on a text")
    train.add_argument("text", metavar="FILE", help="the text, UTF-8")
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    for flag, kind, default, text in (
        ("--cell", str, "cell", "lstm, gru or rnn"),
        ("--embedding-dim", int, "embedding_dim", "size of a character's vector"),
        ("--hidden-size", int, "hidden_size", "hidden units"),
        ("--dropout", float, "dropout", "probability"),
        ("--seq-len", int, "seq_len", "characters per chunk"),
        ("--batch-size", int, "batch_size", "streams side by side"),
        ("--lr", float, "lr", "learning rate at the start"),
        ("--clip-norm", float, "clip_norm", "largest joint norm of the gradients"),
        ("--epochs", float, "epochs", "times through the text; by the text's size"),
        ("--seconds", float, "max_seconds", "longest time of training"),
        ("--validation-fraction", float, "validation_fraction", "of the text, at its end"),
        ("--seed", int, "seed", "for equal results"),
    ):
        usual = _DEFAULTS[default]
        shown = text if usual is None else f"{text} (default: {usual})"
        train.add_argument(flag, type=kind, dest=default, default=usual, help=shown)
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
    return parser


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
    options = {name: value for name, value in vars(args).items() if name in _DEFAULTS}
    model = CharLM(**options)
    text = _read(args.text)
    _files.check_writable(args.output)
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


def _demo(args: argparse.Namespace) -> None:
    source, text = _demo_text(args.text)
    model = CharLM(max_seconds=args.seconds, seed=args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model_file, picture = out / "charlm.safetensors", out / "learning_curve.png"
    for file in (model_file, picture):
        _files.check_writable(file)

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


def _read(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text: {error.reason}") from None
    if "\0" in text:
        raise ValueError(f"{path}: is not text: it has NUL characters")
    if not text:
        raise ValueError(f"{path}: is empty")
    return text


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
