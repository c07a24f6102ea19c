"""Quantized inference: the exact operations of the compiled int8 kernels, one by one, in float32.

A row a of a product is q / inverse with int8 numbers q = round(a * inverse), where inverse = 127 /
max|a|; the product is the exact sum of integers, times the scales of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn._kernels import quantized
from fastrnn._kernels.cells import CELLS, NORM_EPS, Cell, CellConfig, MatmulPrecision
from fastrnn._kernels.quantized import INT8, MOST, REAL, TINY, Limits
from fastrnn._kernels.reference import arrays
from fastrnn._kernels.reference import functions as of_rows
from fastrnn._kernels.reference.arithmetic import Arithmetic, activations
from fastrnn._kernels.reference.direct import run_by
from fastrnn._kernels.reference.product import Normed, Product, product
from fastrnn._kernels.reference.rows import (
    checked_scan,
    put,
    zeroed,
)
from fastrnn._kernels.reference.scan import STEPS
from fastrnn._kernels.reference.step import CellWeights
from fastrnn._kernels.reference.stream import Chain as Chain
from fastrnn._kernels.reference.stream import LinearStepper as FloatLinearStepper
from fastrnn._kernels.reference.stream import RowStepper as FloatRowStepper
from fastrnn._kernels.reference.stream import Stage
from fastrnn._kernels.reference.stream import Stepper as FloatStepper
from fastrnn._types import Array

f32 = np.float32

#: As in vec.h: where an activation is clipped, and the coefficients of its ratio.
TANH = tuple(map(f32, (6.139402, 19480.05, 2210.1877, 27.915707, 19480.896, 8701.12, 333.3164)))
SIGMOID = tuple(
    map(f32, (12.278804, 311680.8, 8840.751, 27.915707, 1246777.4, 139217.92, 1333.2656))
)
#: As in maths.h: 1.5 * 2^23, which rounds to whole numbers; 2^f for |f| <= 1/2, to 1e-7.
ROUND = f32(12582912.0)
EXP2 = [f32(c) for c in (1, 0.693147004, 0.240222424, 0.0555073358, 0.00967151299, 0.00132647273)]
LOG2_E = f32(1.44269504088896340736)
#: The largest exponent.
FAR = f32(126)
#: Units of a block, which give the order of sums.
LANES = 16
#: As in maths.h: exp of less is 0; terms of the series of log(1 + x); log 2 in two parts.
SMALLEST_EXP = f32(-87)
ATANH_TERMS = 7
LN_2 = float.fromhex("0x1.62e42fee00000p-1"), float.fromhex("0x1.a39ef35793c76p-33")
#: As in vec.h: by which numbers are multiplied where their squares overflow.
SQUARE_SCALE = f32(2.0**-100)
#: States below become 0.
SETTLED = f32(2.0**-60)


def odd_ratio(x: Array, farthest: Any, p0: Any, p1: Any, p2: Any, *q: Any) -> Array:
    """Return x (p0 + p1 x^2 + p2 x^4) / (q0 + q1 x^2 + q2 x^4 + x^6), `x` clipped to +-farthest."""
    x = np.minimum(np.maximum(x, -farthest), farthest)
    square = x * x
    over = x * (p0 + square * (p1 + square * p2))
    result: Array = over / (q[0] + square * (q[1] + square * (q[2] + square)))
    return result


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), to 6e-6."""
    return f32(0.5) + odd_ratio(x, *SIGMOID)


def tanh(x: Array) -> Array:
    """Return tanh(x), to 1.2e-5."""
    return odd_ratio(x, *TANH)


def exp2(t: Array) -> Array:
    """Return 2^t, `t` clipped to +-126."""
    t = np.minimum(np.maximum(t, -FAR), FAR)
    shifted = t + ROUND
    f = t - (shifted - ROUND)
    power = ((shifted.view(np.int32) << 23) + (127 << 23)).view(REAL)
    square = f * f
    high = (EXP2[2] + EXP2[3] * f) + square * (EXP2[4] + EXP2[5] * f)
    result: Array = power * ((EXP2[0] + EXP2[1] * f) + square * high)
    return result


def exp(x: Array) -> Array:
    """Return exp(x) for x <= 0."""
    return np.where(x < SMALLEST_EXP, f32(0), exp2(x * LOG2_E))


def expm1(x: Array) -> Array:
    """Return exp(x) - 1 for x <= 0."""
    return exp2(x * LOG2_E) - f32(1)


def log1p(x: Array) -> Array:
    """Return log(1 + x) for 0 <= x <= 1: the series of maths.h."""
    twice = (x + x) / (x + f32(2))
    s = twice * f32(0.5)
    square = s * s
    p = np.full_like(x, 1 / (2 * ATANH_TERMS - 1))
    for k in range(ATANH_TERMS - 2, 0, -1):
        p = p * square + f32(1 / (2 * k + 1))
    return twice * (square * p) + twice


def log(x: Array) -> Array:
    """Return log x for x >= 1, rounded from float64: the series of maths.h."""
    m, n = np.frexp(x.astype(np.float64))
    low = m < 2 / 3
    m, n = np.where(low, m * 2, m), n - low
    s = (m - 1) / (m + 1)
    square = s * s
    p = np.full_like(m, 1 / 23)
    for k in range(21, 1, -2):
        p = p * square + 1 / k
    result = n * LN_2[0] + (2 * s + (2 * s * (square * p) + n * LN_2[1]))
    return np.where(x <= np.finfo(np.float64).max, result, x).astype(REAL)


def settled(state: Array) -> Array:
    """Return a state without tiny numbers, which would become subnormal, and slow."""
    return np.where(np.abs(state) < SETTLED, f32(0), state)


def normalise(a: Array, gates: int = 1, eps: float = NORM_EPS) -> Normed:
    """Return (a - mean) / sqrt(var + eps) of each row (..., gates * H), summed in a fixed order."""
    n = f32(a.shape[-1])
    d = a - (_sum(a, gates) / n)
    squares = _sum(d * d, gates)
    shrunk = ~(squares <= np.finfo(REAL).max)
    if shrunk.any():
        # As norm.pxd does: scaled, so that nothing overflows.
        a = np.where(shrunk, a * SQUARE_SCALE, a)
        d = a - (_sum(a, gates) / n)
        squares = _sum(d * d, gates)
        shrunk &= squares > 0
    variance = squares / n + np.where(shrunk, f32(0), f32(eps))
    rstd = (1 / np.sqrt(variance.astype(np.float64))).astype(REAL)
    return Normed(d * rstd, np.where(shrunk, rstd * SQUARE_SCALE, rstd))


def _sum(a: Array, gates: int) -> Array:
    """Return the sum of each row (..., gates * H): 16 partial sums, then those, first to last.

    Each is over every 16th unit, of all gates of the first 16 units, then of the next.
    """
    H = a.shape[-1] // gates
    blocks = -(-H // LANES)
    padded = np.zeros((*a.shape[:-1], gates, blocks * LANES), REAL)
    padded[..., :H] = a.reshape(*a.shape[:-1], gates, H)
    parts = np.zeros((*a.shape[:-1], LANES), REAL)
    for block in range(blocks):
        for gate in range(gates):
            parts += padded[..., gate, block * LANES : (block + 1) * LANES]
    total = np.zeros((*a.shape[:-1], 1), REAL)
    for lane in range(LANES):
        total += parts[..., lane : lane + 1]
    return total


@dataclass(frozen=True)
class Matrix:
    """A quantized matrix, and how the rows that it is multiplied with are rounded.

    `values` are the int8 numbers, as float64, whose sums of products are exact too. Rows are scaled
    by `limit`, or by their largest entry, but at least by `least`. `units` is H.
    """

    values: Array
    scale: Array
    limit: float
    least: float
    units: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> Matrix:
        return replace(self, values=self.values[rows], scale=self.scale[rows])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        N, K = self.values.shape
        return N, K

    def times(self, a: Array) -> Array:
        """Return the product with rows (..., K)."""
        q, scale = rounded(a, self.limit, self.least)
        sums = (q.astype(np.float64) @ self.values.T).astype(REAL)
        result: Array = sums * (self.scale * scale)
        return result


def rounded(a: Array, limit: float, least: float) -> tuple[Array, Array]:
    """Return rows (..., K) as whole numbers in -127..127, and their scales (..., 1)."""
    largest = np.abs(a).max(axis=-1, keepdims=True)
    most = np.maximum(largest, f32(least)) if math.isinf(limit) else np.full_like(largest, limit)
    usable = most >= f32(TINY)
    with np.errstate(divide="ignore"):
        inverse = np.where(usable, f32(MOST) / most, f32(0))
    q = np.rint(np.minimum(np.maximum(a * inverse, f32(-MOST)), f32(MOST)))
    scale = np.where(usable, most / f32(MOST), f32(0))
    whole = np.isfinite(largest)
    return np.where(whole, q, 0), np.where(whole, scale, f32(np.nan))


def int8_product(
    a: Array,
    weight: Any,
    gain: Array | None = None,
    widths: Sequence[int] = (),
    precision: MatmulPrecision = "float32",
) -> Product:
    """Return a product as ``product.product`` does."""
    if not isinstance(weight, Matrix):  # the vector of an elementwise recurrence
        return product(a, weight)
    z = weight.times(a)
    if gain is None:
        return Product(z, a, (), precision)
    groups = [
        normalise(part, part.shape[-1] // weight.units)
        for part in np.split(z, np.cumsum(widths)[:-1], axis=-1)
    ]
    return Product(np.concatenate([g.hat for g in groups], axis=-1) * gain, a, (), precision)


FUNCTIONS = of_rows.Operations(
    exp, expm1, log1p, log, tanh, sigmoid, lambda x: x * sigmoid(x), lambda x: _sum(x, 1),
    lambda x, eps: normalise(x, eps=eps),
)  # fmt: skip
INT8_ARITHMETIC = Arithmetic(FUNCTIONS, int8_product, normalise, settled)


class Packed:
    """An immutable copy of a layer's weights."""

    dtype = REAL

    def __init__(
        self,
        cell: Cell,
        config: CellConfig,
        weights: Sequence[Array | None],
        scales: Sequence[Array | None],
        limits: Limits,
    ) -> None:
        self.cell, self.config = CELLS[cell.name], arrays.own(config, CellConfig, "config")
        limits = Limits(*map(float, limits))
        shapes = quantized.QuantizedWeights.shapes(self.cell, config)
        given = dict(zip(self.cell.weights, weights, strict=True))
        given |= {n + quantized.SCALE: s for n, s in zip(given, scales, strict=True)}
        copies = {n: arrays.copied(a, n) for n, a in given.items() if a is not None}
        for name, (shape, dtype) in shapes.items():
            if name in copies:
                arrays.like(copies[name], name, shape, dtype)
            elif name != "limits" and not name.startswith("bias"):
                raise ValueError(f"{name}: expected shape {shape}, got None")
        for name in copies.keys() - shapes.keys():
            raise ValueError(f"{name}: expected None")
        self.w = self._named(copies, limits)

    def _named(self, copies: Mapping[str, Array], limits: Limits) -> CellWeights:
        """Return matrices with their scales, and biases as a step adds them."""
        within = quantized.least(self.cell, self.config)
        how = {"weight_ih": (limits.x, 0.0), "weight_hh": (limits.h, within)}
        how["weight_hr"] = (quantized.BY_ROW, 1.0)
        w: Any = CellWeights(copies)
        w.functions = activations(self.cell, self.config, INT8_ARITHMETIC)
        w.input_forget = self.config.input_forget
        for name in quantized.matrices(self.cell):
            if name in copies:
                scale = w.pop(name + quantized.SCALE)
                w[name] = Matrix(
                    copies[name].astype(np.float64), scale, *how[name], self.config.hidden_size
                )
        # All that a gate adds is in one sum, unless its products are taken apart.
        rows = len(copies["weight_ih"])
        zero = np.zeros(rows, REAL)
        of_x, of_h = zero + copies.get("bias_ih", zero), copies.get("bias_hh", zero)
        apart = np.repeat(
            [gate in STEPS[self.cell.name].apart for gate in self.cell.gates],
            self.config.hidden_size,
        )
        w["bias_ih"] = np.where(apart, of_x, of_x + of_h)
        w["bias_hh"] = np.where(apart, of_h, f32(0))
        named: CellWeights = w
        return named

    def state_shapes(self, B: int) -> list[tuple[int, int]]:
        """Return the shape of each state."""
        return [(B, n) for n in self.cell.state_sizes(self.config)]


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(over="ignore", invalid="ignore", under="ignore")
def forward(
    packed: Any,
    x: Array,
    state: Sequence[Array | None],
    y: Array | None,
    state_n: Sequence[Array],
    *,
    spans: Array | None = None,
    reset: Array | None = None,
    keep: bool = False,
) -> None:
    """Run a layer over a sequence."""
    packed = arrays.own(packed, Packed, "packed")
    if keep:
        raise ValueError("keep: expected False, as quantized weights are not trained")
    cell, w = packed.cell, packed.w
    x, now, state_n, running, reset = checked_scan(packed, x, state, y, state_n, spans, reset)
    widths = [len(group) * packed.config.hidden_size for group in cell.norm_groups]
    zx = w["bias_ih"] + int8_product(x, w["weight_ih"], w.get("gain_ih"), widths).value
    step = STEPS[cell.name].forward
    for t in range(len(x)):
        rows = slice(None) if running is None else np.flatnonzero(running[t])
        now = zeroed(now, None if reset is None else reset[t])
        old = tuple(s[rows] for s in now)
        new = step(zx[t, rows], old, w, INT8_ARITHMETIC).state
        if "weight_hr" in w:
            new = (int8_product(new[0], w["weight_hr"]).value, *new[1:])
        if y is not None:
            y[t] = put(np.zeros_like(y[t]), rows, new[0])
        now = tuple(put(s, rows, n) for s, n in zip(now, new, strict=True))
    for out, s in zip(state_n, now, strict=True):
        out[...] = s


def run(
    packed: Any, x: Any, state: Any, *, keep: bool = False, outputs: bool = True
) -> tuple[Array | None, Any, None] | None:
    """Run a layer over a sequence, into new arrays; None if an array needs to be converted."""
    return run_by(forward, arrays.own(packed, Packed, "packed"), x, state, keep, outputs)


class Stepper(FloatStepper):
    """A layer's state, advanced one time step at a time."""

    _kind = Packed
    _forward = staticmethod(forward)


class PackedLinear:
    """An immutable copy of the weights of an affine map."""

    dtype = REAL

    def __init__(self, weights: Sequence[Array | None], scale: Array, limit: float) -> None:
        weight, bias = weights
        values, scale = arrays.copied(weight, "weight"), arrays.copied(scale, "weight_scale")
        if not arrays.is_plain(values, INT8) or values.ndim != 2 or values.size == 0:
            arrays.refuse(values, "weight", "a C-contiguous int8 array (O, I)")
        arrays.like(scale, "weight_scale", values.shape[:1], REAL)
        bias = np.zeros_like(scale) if bias is None else arrays.copied(bias, "bias")
        arrays.like(bias, "bias", values.shape[:1], REAL)
        self.bias = f32(0) + bias
        self.weight = Matrix(values.astype(np.float64), scale, float(limit), 0.0)


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(over="ignore", invalid="ignore", under="ignore")
def linear(packed: Any, x: Array, y: Array) -> None:
    """Write x W^T + b to y, each row by a product of its own."""
    packed = arrays.own(packed, PackedLinear, "packed")
    O, I = packed.weight.shape
    n = arrays.rows_of(x, "x", I, REAL)
    arrays.like(y, "y", (n, O), REAL, out=True)
    y[...] = packed.bias + packed.weight.times(x)


class LinearStepper(FloatLinearStepper):
    """An affine map of one time step, with the parameters of `Stepper`."""

    _kind = PackedLinear
    _linear = staticmethod(linear)


# Infinity and NaN raise no warning, as in the compiled twin.
@arrays.pinning
@np.errstate(all="ignore")
def transform(
    x: Array, table: Array | None, y: Array, *, function: int, a: float, b: float
) -> None:
    """Write a function of each row of x (n, F) to y."""
    of_rows.run(FUNCTIONS, x, table, y, function, a, b)


class RowStepper(FloatRowStepper):
    """A function of each row of one time step."""

    _transform = staticmethod(transform)


class TableStepper(Stage):
    """A lookup of one time step: the rows (B, D) of a table for tokens (B,)."""

    def __init__(self, table: Any, batch_size: int) -> None:
        self._table, self._scale = table.arrays["weight"], table.arrays["weight_scale"]
        super().__init__(batch_size, self._table.shape[1:], REAL)

    def run(self, x: Array, y: Array) -> None:
        """Look up the rows of x (B,)."""
        take_rows(self._table, self._scale, x, y)


@arrays.pinning
def take_rows(table: Array, scale: Array, x: Array, y: Array) -> None:
    """Write the rows of `table` with the indices `x`, times their scales, to `y`."""
    if not arrays.is_plain(table, INT8) or not table.flags.c_contiguous or table.ndim != 2:
        arrays.refuse(table, "table", "a C-contiguous int8 array (V, D)")
    V, D = table.shape
    arrays.like(scale, "scale", (V,), REAL)
    arrays.integers(x, "x")
    arrays.like(y, "y", (x.size, D), REAL, out=True)
    x = x.copy()  # checked and used: no one else can change it
    arrays.refuse_strays((x < 0) | (x >= V), x, "x", f"whole numbers in 0..{V - 1}")
    y[...] = table[x].astype(REAL) * scale[x, None]
