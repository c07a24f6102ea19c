"""``fastrnn lm``: character language models."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fastrnn._quantize import quantize
from fastrnn.cli import signals
from fastrnn.cli.files import add_encoding, check_outputs, read_text, save
from fastrnn.cli.parser import CELL, add_command, add_options, given
from fastrnn.text import CharLM


def add(commands: Any) -> None:
    """Add the command to a parser."""
    lm = commands.add_parser("lm", help="character language models")
    lm_commands = lm.add_subparsers(required=True, metavar="command")
    train = add_command(lm_commands, "train", _train, "train a model on a text")
    train.add_argument("text", metavar="FILE", help="the text; - for standard input")
    train.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    train.add_argument(
        "--resume",
        metavar="MODEL",
        help="model to train further; its settings stay, but for those that are given",
    )
    add_encoding(train)
    add_options(
        train,
        CharLM,
        CELL,
        ("embedding_dim", int, "size of a character's embedding"),
        ("hidden_size", int, "hidden units"),
        ("num_layers", int, "recurrent layers"),
        ("dropout", float, "dropout probability"),
        ("input_dropout", float, "dropout probability of the embeddings"),
        ("weight_dropout", float, "dropout probability of recurrent weights"),
        ("seq_len", int, "characters per chunk"),
        ("batch_size", int, "parallel streams"),
        ("lr", float, "initial learning rate"),
        ("clip_norm", float, "maximum global norm of the gradients"),
        ("epochs", float, "passes through the text (default: depends on its length)"),
        ("max_seconds", float, "time limit of the training"),
        ("validation_fraction", float, "fraction of the text, at its end, to validate on"),
        ("normalization", str, "normal form of Unicode to bring the text into, such as NFC"),
        ("unknown", str, "what to do with other characters later: error, skip or replace"),
        ("seed", int, "for reproducible results"),
    )
    train.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    _add_generate(lm_commands)
    _add_quantize(lm_commands)


def _add_generate(lm_commands: Any) -> None:
    generate = add_command(lm_commands, "generate", _generate, "continue a prompt")
    generate.add_argument("model", metavar="MODEL", help="file written by lm train")
    generate.add_argument("--prompt", default="", help="text to continue (default: none)")
    generate.add_argument("--length", type=int, default=500, help="characters (default: 500)")
    generate.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="below 1 favours likely characters (default: 1)",
    )
    generate.add_argument(
        "--top-k", type=int, help="sample from this many most likely characters only"
    )
    generate.add_argument(
        "--unknown",
        help="what to do with characters of the prompt that the model does not know: error, skip "
        "or replace (default: as trained)",
    )
    generate.add_argument("--seed", type=int, help="for reproducible results")


def _add_quantize(lm_commands: Any) -> None:
    small = add_command(
        lm_commands, "quantize", _quantize, "write a model with int8 weights: a quarter as large"
    )
    small.add_argument("model", metavar="MODEL", help="file written by lm train")
    small.add_argument("-o", "--output", required=True, metavar="OUT", help="file to write")
    small.add_argument(
        "--text", metavar="FILE", help="text to compare both models on; - for standard input"
    )
    add_encoding(small)


def _quantize(args: argparse.Namespace) -> None:
    model = CharLM.load(args.model)
    check_outputs([args.output], [args.model, *([args.text] if args.text else [])])
    text = read_text(args.text, args.encoding) if args.text else None
    small = quantize(model)
    save(args.output, small.save, "the model")
    if text is not None:
        before, after = model.bits_per_char(text), small.bits_per_char(text)
        change = round(after / before - 1, 4) + 0.0  # -0.0 is shown as 0
        print(f"{before:.4f} bits per character before, {after:.4f} after ({change:+.2%})")
    sizes = [f"{os.path.getsize(path):,}" for path in (args.model, args.output)]
    print(f"wrote {args.output}: {sizes[1]} bytes, {sizes[0]} before")


def _train(args: argparse.Namespace) -> None:
    settings = given(CharLM, args)
    model = CharLM.load(args.resume) if args.resume else CharLM(**settings)
    for name, value in settings.items():
        setattr(model, name, value)
    check_outputs([args.output], [args.text])
    more: Any = {"resume": True} if args.resume else {}
    with signals.after_training():
        model.fit(read_text(args.text, args.encoding), verbose=not args.quiet, **more)
        save(args.output, model.save, "the model")
    if model.interrupted:
        print("interrupted; this is the model so far")
    if model.history and model.validation_fraction:
        best = min(record.validation_bits for record in model.history)
        print(f"validation: {best:.3f} bits per character")
    print(f"wrote {args.output}")


def _generate(args: argparse.Namespace) -> None:
    model = CharLM.load(args.model)
    more: Any = {"unknown": args.unknown} if args.unknown else {}
    how = args.temperature, args.top_k, args.seed
    written = model.generate(args.prompt, args.length, *how, **more)
    print(args.prompt + written)
