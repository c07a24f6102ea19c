"""``fastrnn demo``: train a character model, and show what it has learned."""

from __future__ import annotations

import argparse
import io
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastrnn
from fastrnn._files import atomic
from fastrnn.cli import signals
from fastrnn.cli.files import add_encoding, read_text, save, shown
from fastrnn.cli.parser import add_command
from fastrnn.cli.prose import standard_library
from fastrnn.models import pictures
from fastrnn.text import CharLM, Record, split, training_speed
from fastrnn.text.ngram import ngram_bits_per_char

#: N-gram models to compare with, by the characters that they see, and what they do.
_ORDERS = {
    0: "how often each character occurs",
    2: "how often each character follows the two before it",
}


def add(commands: Any) -> None:
    """Add the command to a parser."""
    demo = add_command(commands, "demo", _run, "train a character model and show what it learned")
    demo.add_argument(
        "--seconds", type=float, default=60.0, help="duration of the training (default: 60)"
    )
    demo.add_argument(
        "--out",
        default="fastrnn-demo",
        metavar="DIR",
        help="directory of the results (default: %(default)s)",
    )
    demo.add_argument(
        "--text",
        metavar="FILE",
        help="text to train on (default: the docstrings of Python's standard library)",
    )
    add_encoding(demo)
    demo.add_argument("--seed", type=int, default=0, help="for reproducible results (default: 0)")


def _run(args: argparse.Namespace) -> None:
    source, text = _text(args.text, args.encoding)
    model = CharLM(max_seconds=args.seconds, seed=args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model_file, picture = out / "charlm.safetensors", out / "learning_curve.png"
    for file in (model_file, picture):
        atomic.check_writable(file)

    train, validation = split(text, model.validation_fraction)
    print(f"{source}: {len(text):,} characters, {len(set(text))} distinct")
    print(
        f"training {model.cell.upper()} for {args.seconds:g} s on all but the last "
        f"{len(validation):,}, backend {fastrnn.backend()}",
        flush=True,
    )
    with signals.after_training():
        model.fit(text)
        save(str(model_file), model.save, "the model")
    signals.end_if_asked()
    if model.interrupted:
        print("interrupted; continuing with the model so far")

    bits = {f"order-{n}": ngram_bits_per_char(train, validation, n) for n in _ORDERS}
    print("\nvalidation, bits per character: fewer are better")
    for (name, value), says in zip(bits.items(), _ORDERS.values(), strict=True):
        print(f"  {name:12}{value:.3f}  {says}")
    print(f"  {'this model':12}{model.bits_per_char(validation):.3f}")

    print("\nsample")
    width = max(20, min(80, shutil.get_terminal_size().columns) - 1)
    for paragraph in _sentences(model.generate("", 500, temperature=0.5, seed=args.seed)):
        print(textwrap.fill(paragraph, width, initial_indent="  ", subsequent_indent="  "))

    print("\ntraining speed, characters per second on the same work")
    for name in dict.fromkeys((fastrnn.backend(), "reference")):
        with fastrnn.use_backend(name):
            print(f"  {name:12}{training_speed(model, text):,.0f}", flush=True)

    print(f"\nwrote {model_file}")
    if _draw(model.history, bits, picture):
        print(f"wrote {picture}")
    else:
        print("no learning curve: matplotlib is not installed")


def _text(path: str | None, encoding: str | None) -> tuple[str, str]:
    """Return the name of the text to train on, and the text."""
    if path is not None:
        return shown(path), read_text(path, encoding)
    return "docstrings of the standard library", standard_library()


def _sentences(sample: str) -> list[str]:
    """Return the paragraphs of a sample, up to the last end of a sentence that it has."""
    end = max(map(sample.rfind, (".", "!", "?")))
    return (sample[: end + 1] or sample).splitlines()


def _draw(history: Sequence[Record], baselines: dict[str, float], path: Path) -> bool:
    """Draw the learning curve; return False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="seconds of training", ylabel="validation, bits per character")
    axes.plot(
        [r.seconds for r in history],
        [r.validation_bits for r in history],
        marker="o",
        markersize=4,
        color=pictures.BLUE,
        label="this model",
    )
    for (name, bits), style in zip(baselines.items(), (":", "--"), strict=True):
        axes.axhline(bits, color=pictures.BLACK, linestyle=style, label=f"{name} n-grams")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    atomic.write(path, drawn.getvalue())
    return True
