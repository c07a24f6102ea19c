"""Random combinations of all options: against the reference, equal bits, and NaN in a row.

`test_backends` draws arguments of kernels; here are layers, with everything built on the kernels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn

# Largest difference of outputs and of gradients, relative to the largest entry, or to 1.
TOLERANCE = {"float64": (1e-14, 1e-13), "float32": (2e-6, 2e-5)}


@dataclass(frozen=True)
class Case:
    """A stack of a cell, and the arguments of its call."""

    I: int
    H: int
    T: int
    B: int
    num_layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    return_sequences: bool
    dropout: float
    P: int
    peephole: bool
    layer_norm: bool
    general: str | None  # other activations, if not None
    dtype: str
    state: bool
    lengths: bool
    reset: bool
    used: tuple[bool, bool, bool]  # y, h_n, c_n
    seed: int


def cases(**fixed: Any) -> st.SearchStrategy[Case]:
    """Draw sizes around multiples of vectors; steps and batches of one and of several chunks.

    Layer normalisation amplifies small differences, so it is drawn only where bits are compared;
    test_backends checks its values.
    """
    size, flag = st.integers(1, 9) | st.sampled_from([15, 16, 17, 33]), st.booleans()
    options = {
        "I": size, "H": size, "T": st.integers(1, 9) | st.just(31),
        "B": st.integers(1, 9) | st.just(37), "num_layers": st.integers(1, 3),
        "bidirectional": flag, "bias": flag, "batch_first": flag, "return_sequences": flag,
        "dropout": st.sampled_from([0.0, 0.4, 1.0]), "P": st.just(0) | size, "peephole": flag,
        "layer_norm": flag, "general": st.sampled_from([None, "smooth", "kinked"]),
        "dtype": st.sampled_from(["float32", "float64"]),
        "state": flag, "lengths": flag, "reset": flag,
        "used": st.tuples(flag, flag, flag).filter(any), "seed": st.integers(0, 2**32 - 1),
    }  # fmt: skip
    return st.builds(Case, **options | {name: st.just(value) for name, value in fixed.items()})


@pytest.fixture
def build(cell, options_of, general, make_layer):
    """``build(case)``: a new layer, the same for each call."""

    def make(case):
        c = case
        drawn = {"proj_size": c.P if c.P < c.H else 0}
        drawn |= {"peephole": c.peephole, "layer_norm": c.layer_norm}
        options = {name: drawn[name] for name in options_of(cell, c.P)[-1]}  # all that it supports
        options |= {} if c.general is None else general(cell, c.general)
        return make_layer(
            cell, c.I, c.H, num_layers=c.num_layers, bidirectional=c.bidirectional, bias=c.bias,
            batch_first=c.batch_first, return_sequences=c.return_sequences, dtype=c.dtype,
            dropout=c.dropout if c.num_layers > 1 else 0, seed=c.seed,
            **options,
        )  # fmt: skip

    return make


@dataclass(frozen=True)
class Call:
    """Arguments of a layer, time first; B is the second to last axis, if there is one."""

    x: Any
    state: Any
    lengths: Any
    reset: Any
    dy: Any
    dstate: Any

    @property
    def idle(self):
        """(T, B): which steps are padding."""
        T, B = self.x.shape[:2]
        return np.arange(T)[:, None] >= (np.full(B, T) if self.lengths is None else self.lengths)

    def rows(self, chosen):
        """Return the arguments for some rows of the batch, or for one, unbatched."""
        taken = {name: take(getattr(self, name), chosen) for name in ("x", "state", "dy", "dstate")}
        taken |= {
            name: None if a is None else a[..., chosen]
            for name, a in (("lengths", self.lengths), ("reset", self.reset))
        }
        return replace(self, **taken)

    def steps(self, chosen):
        """Return the arguments for some steps; dy may be that of the last one only."""
        per_step = self.dy is not None and self.dy.ndim == self.x.ndim
        return replace(
            self,
            x=self.x[chosen],
            dy=self.dy[chosen] if per_step else self.dy,
            reset=None if self.reset is None else self.reset[chosen],
        )


def take(nest, chosen):
    """Return some rows of (..., B, n), or of each array of a tuple."""
    if isinstance(nest, tuple):
        return tuple(take(a, chosen) for a in nest)
    return None if nest is None else np.ascontiguousarray(nest[..., chosen, :])


def call(case, cell, layer):
    """Return random arguments for a layer; NaN where nothing may be read."""
    c, rng = case, np.random.default_rng(case.seed)
    D, P = 1 + c.bidirectional, getattr(layer, "proj_size", 0) or c.H

    def numbers(*shape):
        return rng.normal(size=shape).astype(c.dtype)

    def state(given):
        sizes = (P, c.H)[: len(cell.states)]
        states = tuple(
            numbers(c.num_layers * D, c.B, n) if g else None
            for n, g in zip(sizes, given, strict=False)
        )
        return states if len(states) > 1 else states[0]

    lead = (c.T, c.B) if c.return_sequences else (c.B,)
    made = Call(
        x=numbers(c.T, c.B, c.I),
        state=state((c.state, c.state)),
        lengths=rng.integers(1, c.T + 1, c.B) if c.lengths else None,
        reset=rng.random((c.T, c.B)) < 0.2 if c.reset else None,
        dy=numbers(*lead, D * P) if c.used[0] else None,
        dstate=state(c.used[1:]),
    )
    made.x[made.idle] = np.nan
    if made.dy is not None and c.return_sequences:
        made.dy[made.idle] = np.nan
    return made


def swapped(layer, a):
    """Convert from time first to the layer's layout, or back."""
    return a.swapaxes(0, 1) if layer.batch_first and a is not None and a.ndim == 3 else a


def outputs(layer, call, run):
    """Return the result of a plain call or forward: (y, state), and the tape if there is one."""
    x = swapped(layer, call.x)
    y, state_n, *tape = run(x, call.state, lengths=call.lengths, reset=call.reset)
    return (swapped(layer, y), state_n), *tape


def results(layer, call):
    """Return outputs (y, state), gradients (dx, dstate), and those of the weights."""
    outs, tape = outputs(layer, call, layer.forward)
    dx, dstate, grads = layer.backward(tape, swapped(layer, call.dy), call.dstate)
    return outs, (swapped(layer, dx), dstate), grads


def flat(nest):
    """Return the arrays in nested tuples and dicts."""
    if isinstance(nest, np.ndarray):
        return [nest]
    items = nest.values() if isinstance(nest, dict) else nest
    return [a for item in items for a in flat(item)]


def names(layer):
    """Return the names of the weights of a single layer, without suffix."""
    return [name.removesuffix("_l0") for name in layer.parameters()]


def stacked(states):
    """Stack the states of scans."""
    if isinstance(states[0], tuple):
        return tuple(map(np.concatenate, zip(*states, strict=True)))
    return np.concatenate(states)


def assert_close(got, want, tolerance):
    for a, b in zip(flat(got), flat(want), strict=True):
        assert a.shape == b.shape
        assert abs(a - b).max() <= tolerance * max(1, abs(b).max())


@settings(max_examples=25)
@given(case=cases(layer_norm=False))
def test_matches_the_reference(cell, compiled, build, case):
    # In float32, rounding errors cross kinks, and some activations amplify them.
    if cell.name.endswith("_relu") or case.general:
        case = replace(case, dtype="float64")
    layer = build(case)
    given_call = call(case, cell, layer)
    actual = results(layer, given_call)
    with fastrnn.use_backend("reference"):
        want = results(build(case), given_call)  # a new one draws the same dropout
    forward, gradient = TOLERANCE[case.dtype]
    assert_close(actual[0], want[0], forward)
    assert_close(actual[1:], want[1:], gradient)
    (y, _), (dx, _), _ = actual
    assert not dx[given_call.idle].any()
    assert not case.return_sequences or not y[given_call.idle].any()


def one(nest, k):
    """Return the state of one scan of a stack, (1, B, n) each."""
    if isinstance(nest, tuple):
        return tuple(one(s, k) for s in nest)
    return None if nest is None else nest[k : k + 1]


def turned(a, lengths):
    """Reverse the steps of each row within its length."""
    turned = a.copy()
    for b, n in enumerate(lengths):
        turned[:n, b] = a[:n, b][::-1]
    return turned


@settings(max_examples=25)
@given(case=cases(layer_norm=False, dtype="float64"))
def test_made_of_single_layers(cell, build, case):
    """Stacked layers of one direction, the backward ones over reversed sequences."""
    case = replace(case, dropout=float(round(case.dropout)))  # 0 or 1, which is not random
    stack = build(case)
    whole = call(case, cell, stack)
    actual, gradients, grads = results(stack, whole)
    L, D = stack.num_layers, 1 + stack.bidirectional
    suffixes = [f"_l{layer}{direction}" for layer in range(L) for direction in ("", "_reverse")[:D]]

    lengths = np.full(case.B, case.T) if whole.lengths is None else whole.lengths
    last = lengths - 1, np.arange(case.B)

    def turn(a, k):
        """Convert to the order of scan k, or back."""
        return a if a is None or k % D == 0 else turned(a, lengths)

    below, scans, outs, ends = whole.x, [], [], []
    for k, suffix in enumerate(suffixes):
        scan = build(
            replace(
                case, I=below.shape[2], num_layers=1, bidirectional=False, batch_first=False,
                return_sequences=True,
            )
        )  # fmt: skip
        weights = stack.state_dict()
        scan.load_state_dict({f"{n}_l0": weights[n + suffix] for n in names(scan)})
        out, end, tape = scan.forward(
            turn(below, k), one(whole.state, k), lengths=whole.lengths, reset=turn(whole.reset, k)
        )
        scans.append((scan, tape))
        top = k >= (L - 1) * D
        outs.append(turn(out, k) if case.return_sequences or not top else out[last])
        ends.append(end)
        if (k + 1) % D == 0:
            below = np.concatenate(outs[-D:], axis=-1) * (0 if case.dropout and not top else 1)
    assert_close(actual, (below, stacked(ends)), 1e-14)

    d_below, d_starts, sums = whole.dy, [], {}
    for k, (scan, tape) in reversed(list(enumerate(scans))):
        if (k + 1) % D == 0:
            dy, d_below = d_below, 0
        part = None if dy is None else np.split(dy, D, axis=-1)[k % D]
        if part is not None and part.ndim == 2:
            d_last, part = part, np.zeros((case.T, *part.shape))
            part[last] = d_last
        else:
            part = turn(part, k)
        dx, d_start, more = scan.backward(tape, part, one(whole.dstate, k))
        d_below = d_below + turn(dx, k) * (0 if case.dropout and k >= D else 1)
        d_starts.insert(0, d_start)
        sums |= {n + suffixes[k]: more[f"{n}_l0"] for n in names(scan)}
    assert_close(gradients, (d_below, stacked(d_starts)), 1e-13)
    assert_close({name: sums[name] for name in grads}, grads, 1e-13)


@settings(max_examples=20)
@given(case=cases(dropout=0.0))
def test_same_bits_in_any_batch_and_layout(cell, compiled, build, same_bits, case):
    layer = build(case)
    whole = call(case, cell, layer)
    outs, gradients, grads = results(layer, whole)
    assert same_bits(outputs(layer, whole, layer)[0], outs)

    chosen = np.random.default_rng(case.seed).permutation(case.B)[: 1 + case.seed % case.B]
    some = results(layer, whole.rows(chosen))[:2]
    assert same_bits(some, (take(outs, chosen), take(gradients, chosen)))

    layer.batch_first = not layer.batch_first
    assert same_bits(results(layer, whole), (outs, gradients, grads))

    b = chosen[0]
    n = case.T if whole.lengths is None else whole.lengths[b]
    alone = replace(whole.rows(b).steps(slice(0, n)), lengths=None)
    (y, state_n), (dx, dstate), _ = results(layer, alone)
    (want_y, want_state), (want_dx, want_dstate) = take(outs, b), take(gradients, b)
    assert same_bits(y, want_y[:n] if case.return_sequences else want_y)
    assert same_bits((state_n, dx, dstate), (want_state, want_dx[:n], want_dstate))


@settings(max_examples=20)
@given(
    case=cases(
        bidirectional=False, batch_first=False, return_sequences=True, lengths=False, dropout=0.0
    ),
    cuts=st.sets(st.integers(1, 30)),
)
def test_same_bits_step_by_step_and_in_chunks(cell, compiled, build, same_bits, case, cuts):
    layer = build(case)
    whole = call(case, cell, layer)
    (y, state_n), (dx, dstate), grads = results(layer, whole)

    stream, steps = layer.stream(case.B), []
    stream.state = whole.state
    for t, x_t in enumerate(whole.x):
        if whole.reset is not None:
            stream.reset(whole.reset[t])
        steps.append(stream.step(x_t, out=np.empty_like(y[t]) if t % 2 else None))
    assert same_bits((np.array(steps), stream.state), (y, state_n))

    bounds = [0, *sorted(t for t in cuts if t < case.T), case.T]
    pieces = [whole.steps(slice(*ends)) for ends in itertools.pairwise(bounds)]
    now, forwards = whole.state, []
    for piece in pieces:
        outs, tape = outputs(layer, replace(piece, state=now), layer.forward)
        forwards.append((outs[0], tape))
        now = outs[1]
    assert same_bits((np.concatenate([part for part, _ in forwards]), now), (y, state_n))

    # The chain rule over the chunks: each passes the gradient of its state to the one before.
    now, dxs, sums = whole.dstate, [], {name: np.zeros_like(g) for name, g in grads.items()}
    for piece, (_, tape) in reversed(list(zip(pieces, forwards, strict=True))):
        part, now, more = layer.backward(tape, piece.dy, now)
        dxs.insert(0, part)
        for name, g in more.items():
            sums[name] += g
    assert same_bits((np.concatenate(dxs), now), (dx, dstate))
    assert_close(sums, grads, TOLERANCE[case.dtype][1])


@settings(max_examples=20)
@given(case=cases(), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_nan_stays_in_its_row(cell, backend, build, same_bits, case, value):
    layer = build(case)
    clean = call(case, cell, layer)
    rng = np.random.default_rng(case.seed)
    b = rng.integers(case.B)
    t = rng.integers(case.T if clean.lengths is None else clean.lengths[b])
    stained = replace(clean, x=clean.x.copy())
    stained.x[t, b, rng.integers(case.I)] = value
    want = results(layer, clean)[:2]
    outs = results(build(case), stained)[:2]  # a new one draws the same dropout

    others = np.arange(case.B) != b
    assert same_bits(take(outs, others), take(want, others))
    ((y, state_n), (dx, _)), ((want_y, _), (want_dx, _)) = take(outs, b), take(want, b)
    if np.isnan(value) and case.return_sequences:
        assert np.isnan(y[t]).all()
    if np.isnan(value) and clean.reset is None:
        assert case.return_sequences or np.isnan(y).all()
        assert case.bidirectional or all(np.isnan(s).all() for s in flat((state_n,)))
    if not case.bidirectional and clean.reset is not None:  # resets bound its reach on both sides
        starts = np.flatnonzero(clean.reset[:, b])
        before = slice(0, max(starts[starts <= t], default=0))
        after = slice(min(starts[starts > t], default=case.T), None)
        for piece in (before, after):
            assert same_bits(dx[piece], want_dx[piece])
            assert not case.return_sequences or same_bits(y[piece], want_y[piece])
