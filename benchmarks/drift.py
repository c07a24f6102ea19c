"""How far float32 drifts from float64 over a million steps, on every backend.

python benchmarks/drift.py
python benchmarks/drift.py --steps 100000 --backends avx2,reference

The same weights and inputs in both: the largest difference of an output over the first and over the
last hundredth of the steps, and over all. A recurrence that forgets does not add up its rounding
errors, so they should be alike. (Layer normalisation of a recurrence can be chaotic: it has no such
bound.) Exits with 1 if float32 is off by more than `BOUND`; bfloat16 and int8 round more, and are
printed beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator

os.environ["FASTRNN_NUM_THREADS"] = "1"

import numpy as np

import fastrnn

#: The largest difference of an output of float32: those of a step are about 1e-7.
BOUND = 1e-6
#: Steps at a time.
PIECE = 10_000
I, H, B = 3, 20, 2
LAYERS = {
    "RNN": {}, "IndRNN": {"nonlinearity": "tanh"}, "LSTM": {}, "GRU": {},
    "LSTM 2 layers": {"num_layers": 2},
}  # fmt: skip


def pieces(layer: Callable, steps: int) -> Iterator[np.ndarray]:
    """Yield outputs for random inputs, some steps at a time, from where the last ones ended."""
    rng, state, dtype = np.random.default_rng(0), None, np.float32
    for start in range(0, steps, PIECE):
        x = rng.normal(size=(min(PIECE, steps - start), B, I)).astype(dtype)
        y, state = layer(x, state)
        yield y


def drift(layer: Callable, steps: int, exact: list[np.ndarray]) -> list[float]:
    """Return the largest difference in each piece."""
    return [
        float(np.abs(y - wanted).max())
        for y, wanted in zip(pieces(layer, steps), exact, strict=True)
    ]


def twins(name: str) -> tuple[Callable, dict[str, Callable]]:
    """Return a layer in float64, and with the same weights in fewer bits."""
    kind, options = name.split()[0], LAYERS[name]
    layer = getattr(fastrnn, kind)(I, H, seed=0, **options)
    wide = getattr(fastrnn, kind)(I, H, dtype="float64", **options)
    wide.load_state_dict(layer.state_dict())
    fewer = {"float32": layer}
    if kind != "IndRNN":
        narrow = getattr(fastrnn, kind)(I, H, matmul_precision="bfloat16", **options)
        narrow.load_state_dict(layer.state_dict())
        fewer |= {"bfloat16": narrow, "int8": fastrnn.quantize(layer)}
    return wide, fewer


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--backends", default=",".join(fastrnn.backends()[:-1]))
    given = parser.parse_args()
    failed = False
    print(f"{given.steps:,} steps of {B} rows, {I} inputs, {H} units; differences from float64")
    print(f"{'layer':16} {'precision':9} {'backend':9} {'first':>8} {'last':>8} {'largest':>8}")
    for name in LAYERS:
        wide, fewer = twins(name)
        exact = list(pieces(lambda x, state, wide=wide: wide(x.astype(float), state), given.steps))
        part = max(1, len(exact) // 100)
        for precision, layer in fewer.items():
            for backend in given.backends.split(","):
                with fastrnn.use_backend(backend):
                    found = drift(layer, given.steps, exact)
                numbers = max(found[:part]), max(found[-part:]), max(found)
                shown = " ".join(f"{n:8.1e}" for n in numbers)
                print(f"{name:16} {precision:9} {backend:9} {shown}", flush=True)
                failed |= precision == "float32" and not numbers[-1] <= BOUND
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
