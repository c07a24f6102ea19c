"""Several layers, two directions, dropout between layers, and initial weights."""

from __future__ import annotations

import contextvars
import copy
import itertools
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from fastrnn._core import stack as stacks
from fastrnn._kernels.cells import CellConfig

T, B, I, H = 7, 5, 4, 6
STACKS = {(1, 2): "float64", (2, 1): "float64", (3, 2): "float32"}


@pytest.fixture(params=STACKS, ids=lambda s: f"L{s[0]}D{s[1]}")
def sizes(request):
    """L and D."""
    return request.param


@pytest.fixture
def dtype(sizes):
    """One for each, to save time; ``test_torch`` has them all."""
    return np.dtype(STACKS[sizes])


@pytest.fixture
def make_stack(cell, dtype, make_layer, sizes):
    def make(**options):
        L, D = sizes
        return make_layer(
            cell, I, H, num_layers=L, bidirectional=D == 2, **{"dtype": dtype, **options}
        )

    return make


@pytest.fixture
def stack(backend, make_stack):
    return make_stack()


@pytest.fixture
def x(dtype, rng):
    return rng.normal(size=(T, B, I)).astype(dtype)


@pytest.fixture
def state(cell, dtype, make_state, sizes):
    L, D = sizes
    return make_state(cell, (L * D, B, H), dtype)


def pairwise(function, state):
    """Apply a function to every array of a state."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


# -- what a stack is -----------------------------------------------------------------------------


def test_made_of_single_layers(stack, cell, sizes, make_layer, x, state, same_bits):
    """Directions side by side and stacked layers equal separate layers."""
    L, D = sizes
    y, state_n = stack(x, state)
    weights = stack.state_dict()
    below, ends = x, []
    for layer in range(L):
        halves = []
        for d, direction in enumerate(("", "_reverse")[:D]):
            alone = make_layer(cell, below.shape[2], H, dtype=stack.dtype)
            suffix = f"_l{layer}{direction}"
            alone.load_state_dict(
                {n: weights[n.removesuffix("_l0") + suffix] for n in alone.parameters()}
            )
            order = slice(None, None, -1 if d else 1)
            k = len(ends)
            out, end = alone(below[order], pairwise(lambda s, k=k: s[k : k + 1], state))
            halves.append(out[order])
            ends.append(end)
        below = np.concatenate(halves, axis=-1)
    assert same_bits(y, below)
    if isinstance(state_n, tuple):
        assert same_bits(state_n, tuple(map(np.concatenate, zip(*ends, strict=True))))
    else:
        assert same_bits(state_n, np.concatenate(ends))


def test_names_and_shapes(stack, cell, sizes, same_bits):
    L, D = sizes
    assert (stack.num_layers, stack.bidirectional) == (L, D == 2)
    assert (stack.input_size, stack.hidden_size) == (I, H)
    shapes = {
        f"{n}_l{layer}{direction}": shape
        for layer in range(L)
        for direction in ("", "_reverse")[:D]
        for n, shape in cell.weight_shapes(
            CellConfig(input_size=D * H if layer else I, hidden_size=H)
        ).items()
    }
    assert {n: a.shape for n, a in stack.parameters().items()} == shapes
    assert list(stack.parameters()) == list(shapes)
    assert len({a.tobytes() for a in stack.parameters().values()}) == len(shapes)
    for name in ("num_layers", "bidirectional"):
        with pytest.raises(AttributeError):
            setattr(stack, name, 1)


def test_gradients_that_are_not_wanted(backend, cell, make_layer, make_state, rng, same_bits):
    """What is wanted has the same bits, and layers below it are not gone through."""
    L, D, dtype = 3, 2, np.dtype(np.float32)
    layer = make_layer(cell, I, H, num_layers=L, bidirectional=True, dtype=dtype)
    weights = layer._scan_weights
    kinds = [w.kind for w in weights]
    x, dy = rng.normal(size=(T, B, I)).astype(dtype), rng.normal(size=(T, B, D * H)).astype(dtype)
    made = (make_state(cell, (L * D, B, H), dtype) for _ in range(2))
    state, dstate_n = (s if isinstance(s, tuple) else (s,) for s in made)
    factors = [rng.normal(size=(T, B, D * H)).astype(dtype) for _ in range(L - 1)]

    def gradients(wanted, keep_from=0, has_dx=True):
        state_n, dstate = (tuple(np.empty_like(s) for s in state) for _ in range(2))
        dx = np.empty_like(x) if has_dx else None
        tape = stacks.forward(
            weights, x, state, np.empty_like(dy), state_n, factors=factors, keep=True,
            keep_from=keep_from,
        )  # fmt: skip
        grads = stacks.backward(tape, kinds, dy, dstate_n, dx, dstate, num_layers=L, wanted=wanted)
        return dx, dstate, [tuple(g for g in of_scan if g is not None) for of_scan in grads]

    dx, dstate, all_grads = gradients(None)
    for wanted in ([False] * 6, [k in (1, 4) for k in range(6)]):
        got = gradients(wanted)
        assert same_bits(got[:2], (dx, dstate))
        for of_scan, full, asked in zip(got[2], all_grads, wanted, strict=True):
            assert same_bits(of_scan, full) if asked else not of_scan
    _, upper, grads = gradients([k in (2, 5) for k in range(6)], keep_from=1, has_dx=False)
    assert same_bits(tuple(d[2:] for d in upper), tuple(d[2:] for d in dstate))
    assert same_bits((grads[2], grads[5]), (all_grads[2], all_grads[5]))
    assert not any(grads[k] for k in (0, 1, 3, 4))


def test_central_differences(cell, make_layer, make_state, rng):
    """Every entry of every input and weight, of two layers with dropout in both directions."""
    T, B, I, H, step = 4, 2, 2, 3, 1e-5
    layer = make_layer(
        cell, I, H, num_layers=2, bidirectional=True, dropout=0.3, dtype=float, seed=1
    )
    x, dy = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, 2 * H))
    state, dstate = (make_state(cell, (4, B, H), float) for _ in range(2))
    _, _, tape = layer.forward(x, state)
    dx, dstate_0, grads = layer.backward(tape, dy, dstate)
    states, dstates, dstates_0 = (
        s if isinstance(s, tuple) else (s,) for s in (state, dstate, dstate_0)
    )
    assert (tape.stack.factors[0] == 0).any()

    def loss():
        weights, y = list(layer._weights.values()), np.empty(dy.shape)
        state_n = [np.empty_like(s) for s in states]
        stacks.forward(weights, x, states, y, state_n, factors=tape.stack.factors)
        return np.vdot(dy, y) + sum(map(np.vdot, dstates, state_n))

    inputs = {"x": x, **dict(zip(cell.states, states, strict=True)), **layer.parameters()}
    got = {"x": dx, **dict(zip(cell.states, dstates_0, strict=True)), **grads}
    assert got.keys() == inputs.keys()
    for name, array in inputs.items():
        want = np.empty(array.shape)
        for k, value in enumerate(array.flat):
            ends = []
            for array.flat[k] in (value + step, value - step):
                ends.append(loss())
            array.flat[k] = value
            want.flat[k] = (ends[0] - ends[1]) / (2 * step)
        assert abs(got[name] - want).max() <= 1e-8 * max(1, abs(want).max()), name


def test_any_used_outputs(stack, x, state, rng, same_bits):
    """Gradients of outputs default to zeros."""
    y, _, tape = stack.forward(x, state)
    dy = rng.normal(size=y.shape).astype(stack.dtype)
    zeros = pairwise(np.zeros_like, state)
    assert same_bits(stack.backward(tape, dy), stack.backward(tape, dy, zeros))
    assert same_bits(stack.backward(tape, None, state), stack.backward(tape, 0 * dy, state))
    assert same_bits(stack.backward(tape, dy, state), stack.backward(tape, dy, state))


# -- layouts -------------------------------------------------------------------------------------


def test_batch_first(stack, x, state, rng, same_bits):
    y, state_n, tape = stack.forward(x, state)
    dy = rng.normal(size=y.shape)
    want = stack.backward(tape, dy, state)
    stack.batch_first = True
    y_b, state_b, tape = stack.forward(x.swapaxes(0, 1), state)
    assert y_b.flags.c_contiguous
    assert same_bits((y_b.swapaxes(0, 1), state_b), (y, state_n))
    dx, dstate, grads = stack.backward(tape, dy.swapaxes(0, 1), state)
    assert same_bits((dx.swapaxes(0, 1), dstate, grads), want)


def test_unbatched(stack, x, state, rng, same_bits, remade):
    x, state = x[:, :1], pairwise(lambda s: s[:, :1], state)
    alone = pairwise(lambda s: s[:, 0], state)
    for batch_first, return_sequences in itertools.product([False, True], repeat=2):
        stack = remade(stack, batch_first=False, return_sequences=return_sequences)
        y, state_n, tape = stack.forward(x, state)
        dy = rng.normal(size=y.shape)
        dx, dstate, grads = stack.backward(tape, dy, state)
        stack.batch_first = batch_first
        y_1, state_1, tape = stack.forward(x[:, 0], alone)
        want = y.squeeze(-2), pairwise(lambda s: s[:, 0], state_n)
        assert same_bits((y_1, state_1), want)
        got = stack.backward(tape, dy.squeeze(-2), alone)
        assert same_bits(got, (dx[:, 0], pairwise(lambda s: s[:, 0], dstate), grads))


@pytest.mark.parametrize("batch_first", [False, True])
def test_last_output_only(stack, x, state, rng, same_bits, remade, batch_first):
    """The backward direction ends at the first time step."""
    stack.batch_first = batch_first
    x = x.swapaxes(0, 1) if batch_first else x
    y, state_n, tape = stack.forward(x, state)
    d_last = rng.normal(size=(B, y.shape[2])).astype(stack.dtype)
    dy, last = np.zeros_like(y), np.empty_like(d_last)
    y_steps, dy_steps = (a.swapaxes(0, 1) if batch_first else a for a in (y, dy))
    for half, t in ((slice(0, H), -1), (slice(H, None), 0)):
        last[:, half] = y_steps[t, :, half]
        dy_steps[t, :, half] = d_last[:, half]
    want = stack.backward(tape, dy, state), stack.backward(tape, dy)
    stack = remade(stack, return_sequences=False)
    got, got_state, tape = stack.forward(x, state)
    assert same_bits((got, got_state), (last, state_n))
    assert same_bits((stack.backward(tape, d_last, state), stack.backward(tape, d_last)), want)
    with pytest.raises(ValueError, match=rf"^dy: expected shape \({B}, {y.shape[2]}\), got"):
        stack.backward(tape, dy)


# -- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_clones(backend, make_stack, x, same_bits, clone):
    stack = make_stack(dropout=0.5) if make_stack().num_layers > 1 else make_stack()
    twin = clone(stack)
    assert repr(twin) == repr(stack)
    assert same_bits(twin(x), stack(x))
    assert same_bits(twin.forward(x)[0], stack.forward(x)[0])  # the same elements dropped
    twin.parameters()["weight_ih_l0"][...] = 0
    assert not same_bits(twin(x), stack(x))


def test_changed_weights_are_seen(stack, x, same_bits, remade):
    stack = remade(stack, return_sequences=False)
    for name, array in stack.parameters().items():
        before = stack(x)
        array += 0.25
        after = stack(x)
        assert not same_bits(after, before), name
        assert same_bits(copy.deepcopy(stack)(x), after), name


def test_changed_weights_are_seen_by_streams(cell, backend, make_layer, same_bits):
    layer = make_layer(cell, I, H, num_layers=3)
    stream, x = layer.stream(B), np.ones((B, I))
    for array in layer.parameters().values():
        array += 0.25
        stream.reset()
        assert same_bits(stream.step(x), copy.deepcopy(layer).stream(B).step(x))


@pytest.mark.parametrize("every", [None, 2])
def test_without_the_gradient_of_x(stack, x, state, rng, same_bits, every):
    y, _, tape = stack.forward(x, state, checkpoint_every=every)
    dy = rng.normal(size=y.shape)
    results = stack.backward(tape, dy, state, input_gradient=False)
    want = stack.backward(tape, dy, state)
    assert results[0] is None
    assert same_bits(results[1:], want[1:])


def test_tape_belongs_to_the_caller(make_stack, backend, sizes, x, state, rng, same_bits):
    stack = make_stack(dropout=0.5 if sizes[0] > 1 else 0)
    x, state = x.copy(), pairwise(np.copy, state)
    y, state_n, tape = stack.forward(x, state)
    dy = rng.normal(size=y.shape)
    want = stack.backward(tape, dy, state)
    dstate = pairwise(np.copy, state)
    for array in (x, y, *stack.parameters().values()):
        array[...] = np.nan
    pairwise(lambda a: a.fill(np.nan), state)
    pairwise(lambda a: a.fill(np.nan), state_n)
    stack.forward(x, state)
    assert same_bits(stack.backward(tape, dy, dstate), want)


def test_tape_of_another(stack, sizes, x):
    _, _, tape = stack.forward(x)
    for L, D in {*STACKS, (1, 1), (2, 2)} - {sizes}:
        other = type(stack)(I, H, num_layers=L, bidirectional=D == 2, dtype=stack.dtype)
        with pytest.raises(ValueError, match="tape: is from the forward of another layer"):
            other.backward(tape)


def test_nan_stays_in_its_row(stack, x, same_bits):
    want, _, tape = stack.forward(x)
    dx = stack.backward(tape, np.ones_like(want))[0]
    x = x.copy()
    x[3, 1] = np.nan
    y, _, tape = stack.forward(x)
    others = [0, 2, 3, 4]
    assert np.isnan(y[3, 1]).all()
    np.testing.assert_array_equal(y[:, others], want[:, others])
    got = stack.backward(tape, np.ones_like(y))[0]
    np.testing.assert_array_equal(got[:, others], dx[:, others])


def test_threads_share_a_stack(stack, x, state, rng, same_bits):
    dy = rng.normal(size=(T, B, (1 + stack.bidirectional) * H))

    def work():
        y, state_n, tape = stack.forward(x, state)
        return stack(x, state), (y, state_n), stack.backward(tape, dy, state)

    want = work()
    with ThreadPoolExecutor(8) as pool:
        contexts = [contextvars.copy_context() for _ in range(16)]
        for got in [f.result() for f in [pool.submit(c.run, work) for c in contexts]]:
            assert same_bits(got, want)


# -- streams -------------------------------------------------------------------------------------


def test_streams(cell, dtype, backend, make_layer, make_state, x, same_bits):
    layer = make_layer(cell, I, H, num_layers=3, dropout=0.5, dtype=dtype)
    state = make_state(cell, (3, B, H), dtype)
    stream = layer.stream(B)
    stream.state = state
    assert same_bits(stream.state, state)
    y, state_n = layer(x, state)
    np.testing.assert_allclose([stream.step(x_t.tolist()) for x_t in x], y, rtol=1e-5, atol=1e-6)
    for got, want in zip(np.atleast_2d(stream.state), np.atleast_2d(state_n), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    stream.reset(rows=[0, 2])
    for s in stream.state if isinstance(state, tuple) else (stream.state,):
        assert not s[:, [0, 2]].any()
        assert s[:, 1].any(axis=-1).all()
    with pytest.raises(ValueError, match=rf"state.*: expected shape \(3, {B}, {H}\), got"):
        stream.state = pairwise(lambda s: s[:2], state)


def test_a_refused_step_is_no_step(cell, backend, make_layer, same_bits):
    stream = make_layer(cell, I, H, num_layers=2).stream(B)
    x = np.ones((B, I), np.float32)
    before = stream.state
    for out in (np.empty((B, H + 1), np.float32), np.empty((H, B), np.float32).T):
        with pytest.raises(ValueError, match=r"^out: expected"):
            stream.step(x, out=out)
    with pytest.raises(TypeError, match=r"^out: expected dtype float32, got float64"):
        stream.step(x, np.empty((B, H)))
    with pytest.raises(ValueError, match=rf"^x_t: expected shape \({B}, {I}\), got"):
        stream.step(x[:, 1:])
    assert same_bits(stream.state, before)


def test_no_stream_of_two_directions(cell, make_layer):
    with pytest.raises(ValueError, match=r"^stream: .*backward direction starts at the end"):
        make_layer(cell, I, H, bidirectional=True).stream()


# -- dropout -------------------------------------------------------------------------------------


def test_what_is_dropped(dtype):
    """relu(x) = 1 passes from layer to layer, so that only dropout changes a number."""
    L, p, n = 4, 0.3, 50
    layer = fastrnn.RNN(n, n, L, "relu", bias=False, dropout=p, dtype=dtype, seed=5)
    for name, array in layer.parameters().items():
        array[...] = np.eye(n) if name.startswith("weight_ih") else 0
    y, _, tape = layer.forward(np.ones((60, 20, n)))
    kept = y != 0
    np.testing.assert_allclose(y[kept], (1 - p) ** -(L - 1), rtol=1e-6)
    sigma = ((1 - p) ** (L - 1) / y.size) ** 0.5
    assert abs(kept.mean() - (1 - p) ** (L - 1)) < 5 * sigma
    assert abs(y.mean() - 1) < 5 * sigma / (1 - p) ** (L - 1)
    for axis in ((0, 1), (1, 2), (0, 2)):  # the same everywhere
        assert kept.mean(axis=axis).std() > 0
        assert abs(kept.mean(axis=axis) - kept.mean()).max() < 0.15
    dx, _, _ = layer.backward(tape, np.ones_like(y))
    np.testing.assert_array_equal(dx, y)
    again, _, _ = layer.forward(np.ones((60, 20, n)))
    assert 0.1 < ((again != 0) == kept).mean() < 0.9  # drawn again


def test_when_there_is_dropout(cell, make_layer, same_bits):
    x = np.ones((T, B, I))
    plain = make_layer(cell, I, H, num_layers=2)(x)
    layer = make_layer(cell, I, H, num_layers=2, dropout=0.5)
    assert same_bits(layer(x), plain)
    assert not same_bits(layer.forward(x)[:2], plain)
    assert same_bits(layer.eval().forward(x)[:2], plain)
    layer.train().dropout = 0
    assert same_bits(layer.forward(x)[:2], plain)


def test_dropout_follows_the_seed(cell, make_layer, same_bits):
    x = np.ones((T, B, I))

    def run(seed):
        layer = make_layer(cell, I, H, num_layers=3, dropout=0.5, seed=seed)
        layer(x)  # draws nothing
        return [layer.forward(x)[:2] for _ in range(3)]

    first, second = run(1), run(1)
    assert all(map(same_bits, first, second))
    assert not same_bits(first[0], first[1])
    assert not same_bits(first[0], run(2)[0])


def test_dropout_warns_of_a_single_layer(cell, make_layer):
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect.*num_layers=1"):
        layer = make_layer(cell, I, H, dropout=0.5)
    x = np.ones((T, B, I))
    np.testing.assert_array_equal(layer.forward(x)[0], layer(x)[0])


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"num_layers": 0}, ValueError, "num_layers: expected a whole number of at least 1, got 0"),
        ({"num_layers": 1.0}, TypeError, "num_layers: expected a whole number, got float"),
        ({"dropout": -0.1}, ValueError, r"dropout: expected a number in \[0, 1\], got -0.1"),
        ({"dropout": 1.5}, ValueError, r"dropout: expected a number in \[0, 1\], got 1.5"),
        ({"dropout": float("nan")}, ValueError, r"dropout: expected a number in \[0, 1\], got nan"),
        ({"dropout": True}, TypeError, r"dropout: expected a number in \[0, 1\], got bool"),
        ({"bidirectional": "no"}, TypeError, "bidirectional: expected True or False, got 'no'"),
        ({"bias": np.zeros(2)}, TypeError, "bias: expected True or False, got array"),
        (
            {"num_layers": 2**40},
            ValueError,
            "input_size=.*, num_layers=.*: expected sizes that fit",
        ),
        ({"init": "zeros"}, ValueError, "init: expected one of 'uniform', .*, got 'zeros'"),
        ({"init": None}, ValueError, "init: expected one of 'uniform', .*, got None"),
    ],
)
def test_bad_options(cell, make_layer, options, kind, told):
    with pytest.raises(kind, match=f"^{told}"):
        make_layer(cell, I, H, **options)


def test_bad_shapes(stack, sizes, x, state):
    L, D = sizes
    wrong = pairwise(lambda s: np.concatenate([s, s]), state)
    with pytest.raises(ValueError, match=rf"state.*: expected shape \({L * D}, {B}, {H}\), got"):
        stack(x, wrong)
    _, _, tape = stack.forward(x)
    with pytest.raises(ValueError, match=rf"dstate.*: expected shape \({L * D}, {B}, {H}\), got"):
        stack.backward(tape, None, wrong)
    with pytest.raises(ValueError, match=rf"^dy: expected shape \({T}, {B}, {D * H}\), got"):
        stack.backward(tape, np.ones((T, B, D * H + 1)))


# -- initial weights -----------------------------------------------------------------------------


def test_orthogonal(cell, make_layer, same_bits):
    layer = make_layer(cell, I, H, num_layers=2, bidirectional=True, init="orthogonal", dtype=float)
    seen = []
    for name, array in layer.parameters().items():
        if name.startswith("bias"):
            assert not array.any()
        elif name.startswith("weight_ih"):
            bound = (6 / (array.shape[1] + H)) ** 0.5
            assert 0.8 * bound < abs(array).max() <= bound
        elif cell.recurrence == "dense":
            for gate in array.reshape(-1, H, H):
                np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-14)
                assert not any(same_bits(gate, other) for other in seen)
                seen.append(gate)
    again = make_layer(cell, I, H, num_layers=2, bidirectional=True, init="orthogonal", dtype=float)
    assert same_bits(again.state_dict(), layer.state_dict())


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_identity(nonlinearity):
    weights = fastrnn.RNN(I, H, 2, nonlinearity, init="identity", seed=0).parameters()
    for name, array in weights.items():
        if name.startswith("bias"):
            assert not array.any()
        elif name.startswith("weight_hh"):
            np.testing.assert_array_equal(array, np.eye(H))
        else:
            assert 0 < abs(array).max() < 0.005


@pytest.mark.parametrize("layer", [fastrnn.LSTM, fastrnn.GRU])
def test_identity_is_for_rnn(layer):
    with pytest.raises(ValueError, match=f"^init: 'identity' is for RNN only.*{layer.__name__}"):
        layer(I, H, init="identity")


def test_forget_bias():
    plain = fastrnn.LSTM(I, H, 2, bidirectional=True, seed=0).state_dict()
    layer = fastrnn.LSTM(I, H, 2, bidirectional=True, seed=0, forget_bias=1)
    for name, array in layer.parameters().items():
        want = plain[name]
        if name.startswith("bias"):
            want[H : 2 * H] = name.startswith("bias_ih")
        np.testing.assert_array_equal(array, want)
    with pytest.raises(ValueError, match=r"^forget_bias: expected None without bias, got 1"):
        fastrnn.LSTM(I, H, bias=False, forget_bias=1.0)
    with pytest.raises(ValueError, match=r"^forget_bias: expected a finite number, got nan"):
        fastrnn.LSTM(I, H, forget_bias=float("nan"))
    with pytest.raises(TypeError, match=r"^forget_bias: expected a finite number, got str"):
        fastrnn.LSTM(I, H, forget_bias="1")


@pytest.mark.parametrize("options", [{}, {"return_sequences": False}])
def test_inference_runs_some_steps_of_all_layers(
    cell, backend, make_layer, make_state, monkeypatch, same_bits, rng, options
):
    layer = make_layer(cell, I, H, num_layers=3, **options)
    x = rng.normal(size=(T, B, I)).astype(layer.dtype)
    state = make_state(cell, (3, B, H), layer.dtype)
    lengths, reset = rng.integers(1, T + 1, B), rng.random((T, B)) < 0.3
    for rows in ({}, {"lengths": lengths}, {"reset": reset}):
        whole = layer(x, state, **rows)
        with monkeypatch.context() as patch:
            patch.setattr(stacks, "_SEGMENT_BYTES", 2 * B * H * layer.dtype.itemsize)
            assert same_bits(layer(x, state, **rows), whole)


def test_memory_of_inference_does_not_grow_with_time(backend, make_layer, cell):
    layer = make_layer(cell, I, 64, num_layers=2)
    peaks = []
    for steps in (2_000, 10_000):
        x = np.zeros((steps, 1, I), layer.dtype)
        layer(x[:9])  # packs the weights
        tracemalloc.start()
        y, _ = layer(x)
        peaks.append(tracemalloc.get_traced_memory()[1] - y.nbytes)
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
