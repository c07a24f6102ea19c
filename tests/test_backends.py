"""Every compiled backend against the reference in float64: the same call, any memory layout.

Outputs are poisoned with NaN beforehand, and nothing around them may be written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fastrnn._kernels import dispatch, reference
from fastrnn._kernels.cells import CELLS, CellConfig

# Largest error of forward and of gradients, relative to the largest entry of the true array.
TOLERANCE = {"float64": (1e-12, 1e-12), "float32": (2e-6, 2e-5)}
LAYOUTS = ("plain", "batch_first", "reversed", "gapped")


@dataclass(frozen=True)
class Case:
    """One configuration: sizes, arguments, and the memory layout of the sequences."""

    I: int
    H: int
    T: int
    B: int
    bias: tuple[bool, bool] = (True, True)
    dy: bool = True
    dstate: tuple[bool, bool] = (True, True)
    x_in: str = "plain"
    y_out: str = "plain"
    dy_in: str = "plain"
    dx_out: str = "plain"
    rows: str = "all"
    reset: bool = False
    P: int = 0
    peephole: bool = False
    norm: bool = False
    seed: int = 0


small = st.integers(1, 17)
sizes = (
    small | st.sampled_from([31, 32, 33, 63, 64, 65]) | st.integers(0, 34).map(lambda n: 2 * n + 1)
)
pairs = st.tuples(st.booleans(), st.booleans())
ins, outs = st.sampled_from((*LAYOUTS, "broadcast")), st.sampled_from(LAYOUTS)
cases = st.builds(
    Case, I=sizes, H=sizes, T=small | sizes, B=small | sizes, bias=pairs, dy=st.booleans(),
    dstate=pairs, x_in=ins, y_out=outs, dy_in=ins, dx_out=outs,
    rows=st.sampled_from(["all", "from the start", "to the end"]), reset=st.booleans(),
    P=st.just(0) | sizes, peephole=st.booleans(), norm=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip


def place(shape, dtype, layout):
    """Return an array of NaN, and a view of it: (T, B, n), last axis contiguous."""
    T, B, n = shape
    if layout == "broadcast":
        base = np.full((1, 1, n), np.nan, dtype)
        return base, np.broadcast_to(base, shape)
    if layout == "batch_first":
        base = np.full((B, T, n), np.nan, dtype)
        return base, base.swapaxes(0, 1)
    if layout == "reversed":
        base = np.full(shape, np.nan, dtype)
        return base, base[::-1, ::-1]
    if layout == "gapped":
        base = np.full((2 * T, B + 1, n + 3), np.nan, dtype)
        return base, base[::2, 1:, 2 : n + 2]
    base = np.full(shape, np.nan, dtype)
    return base, base


def placed(rng, shape, dtype, layout):
    """Return random numbers in a layout."""
    base, view = place(shape, dtype, layout)
    base[...] = rng.uniform(-1, 1, base.shape)
    return view


def taken(base, view):
    """Return what was written to a view; fail if anything was written outside of it."""
    written = view.copy()
    view[...] = np.nan
    assert np.isnan(base).all(), "written outside of the output"
    return written


def run(
    kernels, cell, config, dtype, weights, x, state, dy, dstate_n, spans, reset, y_out="plain",
    dx_out="plain",
):  # fmt: skip
    """Run forward and backward; return every result by name."""
    weights = [None if w is None else w.astype(dtype) for w in weights]
    packed = kernels.Packed(cell, config, weights)

    def forward(keep):
        y_base, y = place((*x.shape[:2], state[0].shape[1]), dtype, y_out)
        state_n = [np.full_like(s, np.nan) for s in state]
        tape = kernels.forward(packed, x, state, y, state_n, keep=keep, spans=spans, reset=reset)
        return tape, [taken(y_base, y), *state_n]

    tape, outputs = forward(keep=True)
    _, inference = forward(keep=False)
    for a, b in zip(outputs, inference, strict=True):
        assert a.tobytes() == b.tobytes(), "training and inference differ"
    dx_base, dx = place(x.shape, dtype, dx_out)
    dstate = [np.full_like(s, np.nan) for s in state]
    gradients = kernels.Gradients(packed)
    kernels.backward(tape, dy, dstate_n, dx, dstate, gradients)
    grads = gradients.arrays()
    names = cell.states
    return dict(zip(("y", *(f"{s}_n" for s in names)), outputs, strict=True)), {
        "dx": taken(dx_base, dx),
        **{f"d{s}0": d for s, d in zip(names, dstate, strict=True)},
        **{n: g for n, g in zip(cell.weights, grads, strict=True) if g is not None},
    }


def nudge(rng, eps, a):
    """Change every number by a rounding, up or down."""
    return None if a is None else a * (1 + eps * rng.choice([-1, 1], a.shape))


def flip(array, axis):
    """Reverse an array along an axis; None stays None."""
    return None if array is None else np.ascontiguousarray(np.flip(array, axis))


def error(got, want, scale=None):
    """Return the largest error, relative to `scale`, by default the largest entry."""
    scale = abs(want).max() if scale is None else scale
    return abs(got - want).max() / (scale if scale else 1)


def near_kink(margin, cell, config, weights, x, state, spans, reset):
    """Return whether an error of `margin` could take the rectifier across its kink."""
    # The arguments of the rectifier, from the reference, step by step.
    packed = reference.Packed(cell, config, weights)
    smallest, largest = np.inf, 0.0
    h = state[0].copy()
    for t in range(len(x)):
        runs = np.ones(len(h), bool) if spans is None else (spans[0] <= t) & (t < spans[1])
        if reset is not None:
            h[reset[t] & runs] = 0
        z = x[t] @ packed.w["weight_ih"].T + packed.w["bias_ih"]
        w_hh = packed.w["weight_hh"]
        z = (z + (h @ w_hh.T if w_hh.ndim == 2 else h * w_hh) + packed.w["bias_hh"])[runs]
        h[runs] = np.maximum(z, 0)
        smallest = min(smallest, abs(z).min(initial=np.inf))
        largest = max(largest, abs(z).max(initial=0))
    return smallest < margin * largest


def every_last_block(test):
    """Add all numbers of units up to two vectors as examples, and some beyond."""
    for H in (*range(1, 34), 50, 69, 90):
        for B in (1, 7 + H % 3):
            test = example(case=Case(I=4, H=H, T=3, B=B, reset=True, peephole=H % 2 > 0))(test)
    return test


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
@settings(max_examples=20)
@given(case=cases)
@every_last_block
@example(case=Case(I=1, H=1, T=1, B=1))
@example(case=Case(I=13, H=1, T=65, B=65, dy=False, reset=True, rows="from the start", seed=123558))
@example(case=Case(I=67, H=131, T=9, B=37, x_in="batch_first", y_out="batch_first"))
@example(case=Case(I=130, H=257, T=5, B=7, dx_out="batch_first", dy_in="broadcast"))
@example(case=Case(I=5, H=35, T=301, B=3, dy=False, x_in="gapped"))
@example(case=Case(I=3, H=17, T=3, B=301, dstate=(False, False), y_out="gapped"))
@example(case=Case(I=9, H=6, T=701, B=1, x_in="reversed", dx_out="reversed"))
@example(case=Case(I=7, H=19, T=41, B=23, rows="from the start", reset=True, P=18, peephole=True))
@example(case=Case(I=7, H=19, T=41, B=23, rows="to the end", reset=True, P=18, norm=True))
@example(case=Case(I=6, H=35, T=301, B=3, x_in="batch_first", peephole=True, norm=True))
@example(case=Case(I=7, H=67, T=90, B=5, rows="to the end", P=35, x_in="batch_first"))
# Sums of thousands of equal numbers, which are all rounded in the same direction.
@example(
    case=Case(I=1, H=1, T=63, B=63, dstate=(False, False), x_in="broadcast", dy_in="broadcast")
)
@example(case=Case(I=16, H=32, T=200, B=64, x_in="broadcast", dy_in="broadcast", seed=1))
def test_matches_the_reference(compiled, cell, dtype, case):
    c, rng, dtype = case, np.random.default_rng(case.seed), np.dtype(dtype)
    given_bias = dict(zip(("bias_ih", "bias_hh"), c.bias, strict=True))
    P = c.P if "projection" in cell.options and c.P < c.H else 0
    # Two normalised units are always 1 and -1, and products with a single number are always
    # normalised to the same value: their gradients cancel to 0.
    peephole = c.peephole and "peephole" in cell.options
    norm = c.norm and "layer_norm" in cell.options and c.H > 4 and c.I > 1 and P != 1
    config = CellConfig(
        input_size=c.I, hidden_size=c.H, proj_size=P, peephole=peephole, layer_norm=norm
    )
    shapes = cell.weight_shapes(config)
    weights = [
        rng.uniform(-1, 1, shapes[name]).astype(dtype) / dtype.type(shapes[name][-1] ** 0.5)
        if name in shapes and given_bias.get(name, True)
        else None
        for name in cell.weights
    ]
    sizes = cell.state_sizes(config)
    x = placed(rng, (c.T, c.B, c.I), dtype, c.x_in)
    state = [rng.uniform(-1, 1, (c.B, n)).astype(dtype) for n in sizes]
    dy = placed(rng, (c.T, c.B, sizes[0]), dtype, c.dy_in) if c.dy else None
    dstate_n = [
        rng.uniform(-1, 1, (c.B, n)).astype(dtype) if g else None
        for g, n in zip(c.dstate, sizes, strict=False)
    ]
    lengths, spans = rng.integers(1, c.T + 1, c.B), None
    if c.rows == "from the start":
        spans = np.stack([0 * lengths, lengths])
    elif c.rows == "to the end":
        spans = np.stack([c.T - lengths, 0 * lengths + c.T])
    reset = rng.random((c.T, c.B)) < 0.1 if c.reset else None
    inputs = [a for a in (*weights, x, *state, dy, *dstate_n) if a is not None]
    before = [a.copy() for a in inputs]

    def exact(a):
        return None if a is None else np.ascontiguousarray(a, np.float64)

    truth = run(
        reference, cell, config, np.dtype(np.float64), list(map(exact, weights)), exact(x),
        list(map(exact, state)), exact(dy), list(map(exact, dstate_n)), spans, reset,
    )  # fmt: skip
    tolerances = TOLERANCE[dtype.name]
    if cell.name.endswith("_relu"):
        weights_64 = list(map(exact, weights))
        state_64 = list(map(exact, state))
        assume(
            not near_kink(
                2 * tolerances[0], cell, config, weights_64, exact(x), state_64, spans, reset
            )
        )
    if dtype == np.float32:
        # A result that NumPy's float32 loses to cancellation says nothing about a kernel.
        plain = run(reference, cell, config, dtype, weights, x, state, dy, dstate_n, spans, reset)
        for results, wants, tolerance in zip(plain, truth, tolerances, strict=True):
            for name, want in wants.items():
                assume(error(results[name], want) <= tolerance / 2)
        # It may survive by chance, so try again: from inputs that differ by a rounding,
        eps = np.finfo(dtype).eps / 2
        for _ in range(4):
            nudged = run(
                reference, cell, config, np.dtype(np.float64),
                [nudge(rng, eps, w) for w in map(exact, weights)], nudge(rng, eps, exact(x)),
                [nudge(rng, eps, s) for s in map(exact, state)], exact(dy),
                list(map(exact, dstate_n)), spans, reset,
            )  # fmt: skip
            for name, want in truth[0].items():
                assume(error(nudged[0][name], want) <= tolerances[0] / 2)
        # and with the rows summed in another order.
        _, grads = run(
            reference, cell, config, dtype, weights, flip(x, 1), [flip(s, 0) for s in state],
            flip(dy, 1), [flip(d, 0) for d in dstate_n], flip(spans, 1), flip(reset, 1),
        )  # fmt: skip
        for name in grads.keys() & set(cell.weights):
            assume(error(grads[name], truth[1][name]) <= tolerances[1] / 2)

    kernels = dispatch.kernels(dtype)
    outcomes = run(
        kernels,
        cell,
        config,
        dtype,
        weights,
        x,
        state,
        dy,
        dstate_n,
        spans,
        reset,
        c.y_out,
        c.dx_out,
    )
    for results, wants, tolerance in zip(outcomes, truth, tolerances, strict=True):
        assert results.keys() == wants.keys()
        for name, want in wants.items():
            # Kernels treat subnormal terms of a product as 0.
            floor = c.T * c.H * np.finfo(dtype).tiny / (abs(want).max() or 1)
            # The terms of a gradient that is one number may cancel: its size is not theirs.
            one = name in cell.weights and want.size == 1
            scale = max(abs(w).max() for w in wants.values()) if one else None
            assert error(results[name], want, scale) <= tolerance + floor, name
    for a, b in zip(inputs, before, strict=True):
        assert np.array_equal(a, b), "an input was changed"
