"""Errors of the activations in float32, over all numbers or a sample, on every backend.

python benchmarks/activation_errors.py                                  every 4099th number
python benchmarks/activation_errors.py --functions tanh,sigmoid --stride 1      all 2^32

The witness is computed in float64, in forms that keep their digits, and checked where errors are
largest against mpmath, if that is installed. Errors are in units in the last place of the exact
result, if that is 2e-38 or more (silu's: 2e-36; kernels take numbers below 1.2e-38 for 0, on the
way too); and absolute, of results below 2. NaN must stay NaN. One line for each function and
backend; exits with 1 if an error is above its bound, or a NaN became a number.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ["FASTRNN_NUM_THREADS"] = "1"

import numpy as np

import fastrnn

Array = np.ndarray

#: Units in the last place up to which every activation is promised; and absolute errors of those
#: whose formulas subtract numbers that may be nearly equal.
BOUND = 4.0
ABSOLUTE = {"gelu_tanh": 5e-7, "hard_sigmoid": 6e-8}
#: Numbers at a time: few enough for the caches.
PIECE = 1 << 13
#: Results below are compared absolutely: exp is 0 below -87, and the sigmoid below -87.3.
SMALL, SMALL_SILU = 2e-38, 2e-36
SMALLEST = float(np.finfo(np.float32).tiny)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def _tanh(x: Array) -> Array:
    """Return tanh x: that of NumPy only where it is neither x - x^3 / 3 nor 1, in float64."""
    size = np.abs(x)
    found = np.where(size > 20, np.sign(x), x - x * x * x / 3)
    middle = (size > 1e-4) & (size <= 20)
    found[middle] = np.tanh(x[middle])
    return found


#: Of each activation with an error: the function in float64.
WITNESSES: dict[str, Callable[[Array], Array]] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "silu": lambda x: x * _sigmoid(x),
    "gelu_tanh": lambda x: x * _sigmoid(2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)),
    "leaky_relu": lambda x: np.where(x < 0, float(np.float32(0.01)) * x, x),
    "hard_sigmoid": lambda x: np.clip(float(np.float32(1 / 6)) * x + 0.5, 0, 1),
}


@dataclass
class Worst:
    """The largest errors so far, and where they are."""

    ulp: float = 0.0
    at: float = 0.0
    absolute: float = 0.0
    at_absolute: float = 0.0
    lost: int = 0  # NaN that became numbers, or the other way round

    def take(self, x: Array, y: Array, exact: Array, small: float) -> None:
        """Compare float32 results with exact ones in float64."""
        error = np.abs(y - exact)
        normal = (np.abs(exact) >= small) & (np.abs(x) >= SMALLEST)
        wrong = np.isnan(y) != np.isnan(exact)
        # Where the exact result is infinite in float32, so is the computed one.
        large = np.abs(exact) > np.finfo(np.float32).max
        error[large | np.isnan(error)] = 0
        self.lost += int(wrong.sum()) + int((np.isfinite(y) & large).sum())
        near = np.where(np.abs(exact) < 2, error, 0)
        i = int(near.argmax())
        if near[i] > self.absolute:
            self.absolute, self.at_absolute = float(near[i]), float(x[i])
        scale = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        ulp = np.where(normal, error / scale, 0)
        ulp[~np.isfinite(ulp)] = 0
        i = int(ulp.argmax())
        if ulp[i] > self.ulp:
            self.ulp, self.at = float(ulp[i]), float(x[i])

    def join(self, other: Worst) -> None:
        """Take the errors of other numbers into account."""
        self.lost += other.lost
        if other.ulp > self.ulp:
            self.ulp, self.at = other.ulp, other.at
        if other.absolute > self.absolute:
            self.absolute, self.at_absolute = other.absolute, other.at_absolute


def compare(name: str, backends: list[str], stride: int, progress: bool) -> dict[str, Worst]:
    """Return the errors of an activation on some backends, over every `stride`-th number."""
    layer, found = fastrnn.Activation(name), {backend: Worst() for backend in backends}
    small = SMALL_SILU if name == "silu" else SMALL
    begun, total = time.monotonic(), 1 << 32
    for start in range(0, total, PIECE * stride):
        bits = np.arange(start, min(start + PIECE * stride, total), stride, dtype=np.uint64)
        x = bits.astype(np.uint32).view(np.float32)
        exact = WITNESSES[name](x.astype(np.float64))
        taken: dict[bytes, Worst] = {}  # most backends give the same bits
        for backend, worst in found.items():
            with fastrnn.use_backend(backend):
                y = layer(x[None])[0]
            key = y.tobytes()
            if key not in taken:
                taken[key] = Worst()
                taken[key].take(x, y.astype(np.float64), exact, small)
            worst.join(taken[key])
        if progress and start // (PIECE * stride) % 4096 == 0:
            part = (start + PIECE * stride) / total
            print(f"{name}: {part:.1%}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return found


def witness_error(name: str, at: float) -> float | None:
    """Return the error of the witness at a number, in units of float32's last place."""
    try:
        import mpmath
    except ImportError:
        return None
    mpmath.mp.prec = 200
    x = mpmath.mpf(at)
    s = 1 / (1 + mpmath.exp(-x))
    u = mpmath.mpf(0.7978845608028654) * (x + mpmath.mpf(0.044715) * x**3)
    exact = {
        "tanh": lambda: mpmath.tanh(x),
        "sigmoid": lambda: s,
        "softplus": lambda: mpmath.log1p(mpmath.exp(x)),
        "softsign": lambda: x / (1 + abs(x)),
        "elu": lambda: x if x > 0 else mpmath.expm1(x),
        "selu": lambda: (
            mpmath.mpf(1.0507009873554805)
            * (x if x > 0 else mpmath.mpf(1.6732632423543772) * mpmath.expm1(x))
        ),
        "silu": lambda: x * s,
        "gelu_tanh": lambda: x / (1 + mpmath.exp(-2 * u)),
    }
    if name not in exact:
        return None
    value = exact[name]()
    mine = float(WITNESSES[name](np.array([at]))[0])
    return float(abs(mine - value)) / float(np.spacing(np.float32(abs(mine))))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--functions", default=",".join(WITNESSES), help="default: all")
    parser.add_argument("--backends", default=",".join(fastrnn.backends()), help="default: all")
    parser.add_argument("--stride", type=int, default=4099, help="1: all numbers; default: 4099")
    parser.add_argument("--progress", action="store_true")
    given = parser.parse_args()
    failed = False
    print("| activation | backend | numbers | largest error, ulp | at | absolute |")
    print("| --- | --- | --- | --- | --- | --- |")
    with np.errstate(all="ignore"):
        for name in given.functions.split(","):
            found = compare(name, given.backends.split(","), given.stride, given.progress)
            for backend, worst in found.items():
                count = len(range(0, 1 << 32, given.stride))
                numbers = "all 2^32" if given.stride == 1 else f"{count:,}"
                print(
                    f"| {name} | {backend} | {numbers} | {worst.ulp:.3f} | {worst.at:.9g} "
                    f"| {worst.absolute:.2e} |",
                    flush=True,
                )
                of_witness = witness_error(name, worst.at)
                if of_witness is not None and of_witness > 1e-6:
                    print(f"  the witness itself is off by {of_witness:.1e} ulp there")
                    failed = True
                if worst.lost:
                    print(f"  {worst.lost} NaN or infinity lost or made")
                bound = ABSOLUTE.get(name)
                failed |= bool(worst.lost)
                failed |= worst.ulp > BOUND if bound is None else worst.absolute > bound
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
