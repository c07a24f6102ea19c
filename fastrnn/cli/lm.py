"""``fastrnn lm``: character language models."""

from __future__ import annotations

import argparse
from typing import Any

from fastrnn._files import atomic
from fastrnn.cli.files import read_text
from fastrnn.cli.parser import CELL, add_command, add_options, made
from fastrnn.text import CharLM


def add(commands: Any) -> None:
    """Add the command to a parser."""
    lm = commands.add_parser("lm", help="character language models")
    lm_commands = lm.add_subparsers(required=True, metavar="command")
    train = add_command(lm_commands, "train", _train, "train a model on a text")
    train.add_argument("text", metavar="FILE", help="the text, UTF-8")
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    add_options(
        train,
        CharLM,
        CELL,
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

    generate = add_command(lm_commands, "generate", _generate, "continue a prompt")
    generate.add_argument("model", metavar="MODEL", help="what lm train wrote")
    generate.add_argument("--prompt", default="", help="text to continue (default: none)")
    generate.add_argument("--length", type=int, default=500, help="characters (default: 500)")
    generate.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more cautious (default: 1)"
    )
    generate.add_argument("--top-k", type=int, help="choose among the likeliest only")
    generate.add_argument("--seed", type=int, help="for equal results")


def _train(args: argparse.Namespace) -> None:
    model = made(CharLM, args)
    text = read_text(args.text)
    atomic.check_writable(args.output)
    model.fit(text, verbose=not args.quiet)
    model.save(args.output)
    if model.interrupted:
        print("interrupted; this is the model so far")
    if model.history and model.validation_fraction:
        best = min(record.validation_bits for record in model.history)
        print(f"validation: {best:.3f} bits per character")
    print(f"wrote {args.output}")


def _generate(args: argparse.Namespace) -> None:
    model = CharLM.load(args.model)
    written = model.generate(args.prompt, args.length, args.temperature, args.top_k, args.seed)
    print(args.prompt + written)
