"""Compiled kernels over the NumPy reference, on the same work, one thread, LSTM float32.

OPENBLAS_NUM_THREADS=1 python benchmarks/against_reference.py
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from timing import paired

import fastrnn

ROWS = [(32, 32, 100, 1), (64, 128, 100, 1), (32, 32, 100, 32), (64, 128, 100, 32)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=("LSTM", "GRU", "RNN"), default="LSTM")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    fastrnn.show_config()
    titles = f"{'I,H,T,B':>14} {'compiled us':>12} {'reference us':>13} ratio"
    print(f"\n{options.cell + ' float32':14} {titles}")
    for I, H, T, B in ROWS:
        rng = np.random.default_rng(0)
        layer = getattr(fastrnn, options.cell)(I, H, seed=0)
        x = rng.normal(size=(T, B, I)).astype(np.float32)
        dy = rng.normal(size=(T, B, H)).astype(np.float32)

        def forward(layer=layer, x=x):
            return layer(x)

        def training(layer=layer, x=x, dy=dy):
            _, _, tape = layer.forward(x)
            return layer.backward(tape, dy)

        for name, work in (("forward", forward), ("training", training)):

            def on_reference(work=work):
                with fastrnn.use_backend("reference"):
                    return work()

            mine, reference = paired([work, on_reference], options.rounds, 0.1)
            shape = f"{I},{H},{T},{B}"
            print(
                f"{name:14} {shape:>14} {mine * 1e6:12.1f} {reference * 1e6:13.1f} "
                f"{reference / mine:5.1f}"
            )


if __name__ == "__main__":
    main()
