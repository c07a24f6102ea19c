"""What int8 weights cost: bits per character of a language model, accuracy of a classifier.

python benchmarks/quantized.py                  on ../shared/data: tiny Shakespeare, rt-polarity
python benchmarks/quantized.py --seconds 600    train the language model for longer

Each model is trained in float32 for a short time, quantized with and without calibration, and
measured on texts that it was not trained on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn.text import CharLM, TextClassifier, split

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def size(model: Any) -> int:
    """Return the size of a model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        return os.path.getsize(path)


def language_model(text: str, seconds: float, hidden_size: int) -> None:
    train, held_out = split(text, 0.1)
    model = CharLM(hidden_size=hidden_size, max_seconds=seconds, seed=0)
    model.fit(train, verbose=0)
    before = model.bits_per_char(held_out)
    print(f"tiny Shakespeare, {hidden_size} units, {seconds:g} s of training")
    print(f"  float32           {before:.4f} bits per character, {size(model):,} bytes")
    for how, calibration in (("rows", None), ("calibrated", train[:20_000])):
        small = fastrnn.quantize(model, calibration)
        after = small.bits_per_char(held_out)
        change = after / before - 1
        print(f"  int8, {how:11} {after:.4f} ({change:+.2%}), {size(small):,} bytes")


def classifier(folder: Path) -> None:
    kinds = [
        (folder / f"rt-polarity.{kind}").read_text(encoding="utf-8").splitlines()
        for kind in ("neg", "pos")
    ]
    texts = np.array([*kinds[0], *kinds[1]])
    labels = np.repeat([0, 1], [len(kind) for kind in kinds])
    order = np.random.default_rng(0).permutation(len(texts))
    train, test = order[:-2000], order[-2000:]
    model = TextClassifier(seed=0).fit(texts[train], labels[train], verbose=0)
    before = model.score(texts[test], labels[test])
    print("rt-polarity, 2,000 texts held out")
    print(f"  float32           accuracy {before:.2%}, {size(model):,} bytes")
    for how, calibration in (("rows", None), ("calibrated", texts[train[:500]])):
        small = fastrnn.quantize(model, calibration)
        after = small.score(texts[test], labels[test])
        points = 100 * (after - before)
        print(
            f"  int8, {how:11} accuracy {after:.2%} ({points:+.2f} points), {size(small):,} bytes"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the texts")
    parser.add_argument("--seconds", type=float, default=120, help="training of the language model")
    parser.add_argument("--hidden-size", type=int, default=256)
    args = parser.parse_args()
    text = (args.data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    language_model(text, args.seconds, args.hidden_size)
    classifier(args.data)


if __name__ == "__main__":
    main()
