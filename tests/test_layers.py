"""Layers as objects: changed weights take effect at once, copies are independent, layouts agree."""

from __future__ import annotations

import contextvars
import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CellConfig

T, B, I, H = 7, 3, 4, 19


@pytest.fixture
def layer(cell, dtype, backend, make_layer):
    return make_layer(cell, I, H, dtype=dtype)


@pytest.fixture
def x(dtype, rng):
    return rng.normal(size=(T, B, I)).astype(dtype)


@pytest.fixture
def state(cell, dtype, make_state):
    return make_state(cell, (1, B, H), dtype)


def pairwise(function, state):
    """Apply a function to every array of a state."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


def outputs(layer, x):
    """Return the result of a layer whose packed copy is new."""
    return copy.deepcopy(layer)(x)


# -- weights -------------------------------------------------------------------------------------


def test_names_shapes_and_copies(layer, cell):
    own, config = layer.parameters(), CellConfig(input_size=I, hidden_size=H)
    shapes = {f"{n}_l0": s for n, s in cell.weight_shapes(config).items()}
    assert {n: a.shape for n, a in own.items()} == shapes
    assert all(a.dtype == layer.dtype for a in own.values())
    for name, a in own.items():
        elementwise = name.startswith("weight_hh") and cell.recurrence == "elementwise"
        low, high = (0, 1) if elementwise else (-(H**-0.5), H**-0.5)
        assert low <= a.min() < a.max() <= high
    copies = layer.state_dict()
    assert not any(np.shares_memory(copies[n], a) for n, a in own.items())
    assert all(np.shares_memory(layer.parameters()[n], a) for n, a in own.items())


def changes(layer):
    """Return ways to change the weights."""
    weights = layer.parameters()
    view = weights["weight_hh_l0"]
    view = view[1:, 2:] if view.ndim == 2 else view[1:]
    flat = memoryview(weights["bias_ih_l0"])

    def by_array():
        weights["weight_ih_l0"][3, 2] += 0.5

    def by_view():
        view[(0,) * view.ndim] -= 0.5

    def by_memoryview():
        flat[1] = 0.75

    def by_temporary():
        layer.parameters()["weight_ih_l0"][0] *= 2
        gc.collect()

    def by_dropped_view():
        v = layer.parameters()["weight_hh_l0"].T[::-1]
        v += 0.125

    def by_load():
        layer.load_state_dict({n: a + 0.0625 for n, a in layer.state_dict().items()})

    held = [by_array, by_view, by_memoryview]
    return [*held, by_temporary, by_dropped_view, by_load, *held]


@pytest.mark.parametrize("pickled", [False, True])
def test_changed_weights_are_seen(layer, x, same_bits, pickled):
    """By the next call, forward or step of a live stream, whichever comes first."""
    if pickled:
        layer = pickle.loads(pickle.dumps(layer, pickle.HIGHEST_PROTOCOL))
    streams = [layer.stream(B), layer.stream(B)]
    seen = [layer(x)[0]]
    for i, change in enumerate(changes(layer)):
        change()
        want = outputs(layer, x)
        assert not any(same_bits(want[0], y) for y in seen), change.__name__
        seen.append(want[0])
        if i % 2:
            assert same_bits(layer(x), want), change.__name__
        for stream in streams:
            stream.reset()
            steps = np.array([stream.step(x_t) for x_t in x])
            np.testing.assert_allclose(steps, want[0], rtol=1e-5, atol=1e-6)
            if fastrnn.backend() != "reference":
                assert same_bits(steps, want[0]), change.__name__
        assert same_bits(layer(x), want), change.__name__
        assert same_bits(layer.forward(x)[:2], want), change.__name__


@pytest.mark.parametrize("pickled", [False, True])
def test_changed_after_all_references_are_gone(layer, x, same_bits, pickled):
    """A copy is exclusive while no array is held; returning arrays later ends that."""
    if pickled:
        layer = pickle.loads(pickle.dumps(layer, pickle.HIGHEST_PROTOCOL))
    stream = layer.stream(B)
    for _ in range(3):
        for _ in range(3):
            before = layer(x)
            stream.reset()
            stream.step(x[0])
        weights = layer.parameters()
        view = weights["weight_ih_l0"][:]
        del weights
        layer(x)
        view[...] *= -0.5
        del view
        changed = layer(x)  # the copy is exclusive again, before the stream uses it
        layer(x)
        assert not same_bits(changed, before)
        assert same_bits(changed, outputs(layer, x))
        stream.reset()
        fresh = layer.stream(B)
        assert same_bits(stream.step(x[0]), fresh.step(x[0]))


def test_shared_while_another_thread_compares(layer, x):
    """Weights returned during a comparison keep the copy from being exclusive after it."""
    layer(x)
    (weights,) = layer._weights.values()
    held = []

    class Meddler:
        def matches(self, arrays):
            held.append(layer.parameters())
            return True

    weights.copy.packed = Meddler()
    kernels = dispatch.kernels(layer.dtype)
    weights.packed(kernels)
    assert not weights.copy.exclusive
    held.clear()
    weights.copy.packed = None  # belongs to no kernels, so it is packed again
    weights.copy.kernels = None
    for _ in range(2):
        weights.packed(kernels)
    assert weights.copy.exclusive


def test_weights_are_seen_through_another_backend(layer, x, same_bits):
    stream = layer.stream(B)
    first = stream.step(x[0])
    for name in fastrnn.backends():
        with fastrnn.use_backend(name):
            layer(x)
    layer.parameters()["weight_ih_l0"][...] *= -1
    for name in fastrnn.backends():
        with fastrnn.use_backend(name):
            assert same_bits(layer(x), outputs(layer, x))
    stream.reset()
    assert not same_bits(stream.step(x[0]), first)


def test_load_state_dict_of_parts(layer, same_bits):
    before = layer.state_dict()
    name, *others = before
    keys = layer.load_state_dict({name: before[name] + 1, "more": 0}, strict=False)
    assert keys == (sorted(others), ["more"])
    assert same_bits(layer.state_dict(), before | {name: before[name] + 1})
    net = {"layer." + n: a for n, a in before.items()} | {"other.weight": 0}
    assert repr(layer.load_state_dict(net, prefix="layer.")) == "<All keys matched successfully>"
    assert same_bits(layer.state_dict(), before)
    with pytest.raises(ValueError, match=r"state_dict: missing .* with prefix='layer.'$"):
        layer.load_state_dict(net)
    with pytest.raises(ValueError, match=rf"state_dict: missing \['{others[0]}'"):
        layer.load_state_dict({n: a for n, a in before.items() if n != others[0]})
    with pytest.raises(TypeError, match=r"^prefix: expected a str, got int"):
        layer.load_state_dict(before, prefix=1)
    with pytest.raises(TypeError, match=r"^strict: expected True or False"):
        layer.load_state_dict(before, strict="no")
    assert same_bits(layer.state_dict(), before)


def test_load_state_dict_is_all_or_nothing(layer, same_bits):
    before = layer.state_dict()
    bad = {n: a + 1 for n, a in before.items()}
    bad["bias_hh_l0"] = bad["bias_hh_l0"][:-1]
    with pytest.raises(ValueError, match=r"bias_hh_l0: expected shape \(\d+,\), got \(\d+,\)"):
        layer.load_state_dict(bad)
    assert same_bits(layer.state_dict(), before)
    layer.load_state_dict({n: a.tolist() for n, a in before.items()})
    assert same_bits(layer.state_dict(), before)


def test_load_from_own_arrays(cell, make_layer, same_bits):
    layer = make_layer(cell, 5, 5)
    own, before = layer.parameters(), layer.state_dict()
    kind = "weight" if cell.recurrence == "dense" else "bias"  # two of one shape
    swap = {f"{kind}_ih_l0": f"{kind}_hh_l0", f"{kind}_hh_l0": f"{kind}_ih_l0"}
    layer.load_state_dict({n: own[swap.get(n, n)] for n in own})
    assert same_bits(layer.state_dict(), {n: before[swap.get(n, n)] for n in before})


def test_seeds(cell, make_layer, same_bits):
    def weights(seed):
        return make_layer(cell, 3, 4, seed=seed).state_dict()

    assert same_bits(weights(1), weights(1))
    assert not same_bits(weights(1), weights(2))
    assert not same_bits(weights(None), weights(None))


# -- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, *(lambda l, p=p: pickle.loads(pickle.dumps(l, p)) for p in range(2, 6))],
    ids=["deepcopy", *(f"pickle{p}" for p in range(2, 6))],
)
def test_clones(cell, dtype, backend, make_layer, x, same_bits, clone):
    layer = make_layer(cell, I, H, dtype=dtype, batch_first=True, return_sequences=False).eval()
    want = layer(x)
    twin = clone(layer)
    assert same_bits(twin(x), want)
    assert repr(twin) == repr(layer)
    assert twin.training is False
    twin.parameters()["weight_ih_l0"][...] = 0
    assert same_bits(layer(x), want)
    assert not same_bits(twin(x), want)
    _, _, tape = twin.forward(x)
    twin.backward(tape, np.ones((T, H)))


def test_what_belongs_to_the_kernels_is_not_cloned(layer, x):
    model = fastrnn.Sequential([fastrnn.RNN(I, H), fastrnn.Linear(H, 2)])
    whole = [model.stream(), model.forward(x)[1], fastrnn.Linear(I, 2).forward(x)[1]]
    for thing in (layer.stream(), layer.forward(x)[2], *whole):
        for clone in (copy.copy, copy.deepcopy, pickle.dumps):
            # Of the tape of a model, a shallow copy shares all that it holds.
            if clone is not copy.copy or thing is not whole[1]:
                with pytest.raises(TypeError, match="can't be pickled or copied, as it belongs"):
                    clone(thing)


def test_repr():
    assert repr(fastrnn.LSTM(3, 5)) == "LSTM(3, 5)"
    assert repr(fastrnn.RNN(3, 5, nonlinearity="relu")) == "RNN(3, 5, nonlinearity='relu')"
    layer = fastrnn.GRU(
        3, 5, bias=False, batch_first=True, reset_after=False, return_sequences=False, dtype=float
    )
    assert repr(layer) == (
        "GRU(3, 5, bias=False, batch_first=True, reset_after=False, return_sequences=False, "
        "dtype=float64)"
    )


def test_modes(layer, x, same_bits):
    assert layer.training
    want = layer(x)
    assert layer.eval() is layer
    assert not layer.training
    assert same_bits(layer(x), want)
    assert layer.train() is layer
    assert layer.training
    assert not layer.train(False).training


# -- layouts -------------------------------------------------------------------------------------


def test_batch_first(layer, x, state, rng, same_bits):
    y, state_n, tape = layer.forward(x, state)
    dy = rng.normal(size=y.shape)
    want = layer.backward(tape, dy, state)
    layer.batch_first = True
    y_b, state_b, tape = layer.forward(x.swapaxes(0, 1), state)
    assert same_bits((y_b.swapaxes(0, 1), state_b), (y, state_n))
    dx, dstate, grads = layer.backward(tape, dy.swapaxes(0, 1), state)
    assert same_bits((dx.swapaxes(0, 1), dstate, grads), want)


def test_unbatched(layer, x, state, rng, same_bits):
    x, state = x[:, :1], pairwise(lambda s: s[:, :1], state)
    y, state_n, tape = layer.forward(x, state)
    dy = rng.normal(size=y.shape)
    dx, dstate, grads = layer.backward(tape, dy, state)
    alone = pairwise(lambda s: s[:, 0], state)
    for batch_first in (False, True):
        layer.batch_first = batch_first
        y_1, state_1, tape = layer.forward(x[:, 0], alone)
        assert same_bits((y_1, state_1), (y[:, 0], pairwise(lambda s: s[:, 0], state_n)))
        got = layer.backward(tape, dy[:, 0], alone)
        assert same_bits(got, (dx[:, 0], pairwise(lambda s: s[:, 0], dstate), grads))


@pytest.mark.parametrize("batch_first", [False, True])
def test_last_output_only(layer, x, state, rng, same_bits, remade, batch_first):
    layer.batch_first = batch_first
    x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    last = (slice(None), -1) if batch_first else -1
    y, state_n, tape = layer.forward(x, state)
    d_last = rng.normal(size=(B, H)).astype(layer.dtype)
    dy = np.zeros_like(y)
    dy[last] = d_last
    want = layer.backward(tape, dy, state)
    want_zero_state = layer.backward(tape, dy)
    layer = remade(layer, return_sequences=False)
    got, got_state, tape = layer.forward(x, state)
    assert same_bits((got, got_state), (y[last].copy(), state_n))
    assert same_bits(layer.backward(tape, d_last, state), want)
    assert same_bits(layer.backward(tape, d_last), want_zero_state)
    y_1, _, tape = layer.forward(x[last[0], 0] if batch_first else x[:, 0])
    assert y_1.shape == (H,)
    dx, _, _ = layer.backward(tape, np.ones(H))
    assert dx.shape == tape.x_shape


def test_default_state_is_zeros(layer, x, state, same_bits):
    zeros = pairwise(np.zeros_like, state)
    assert same_bits(layer(x), layer(x, zeros))
    _, _, tape = layer.forward(x)
    dy = np.ones((T, B, H))
    assert same_bits(layer.backward(tape, dy), layer.backward(tape, dy, zeros))
    assert same_bits(layer.backward(tape), layer.backward(tape, 0 * dy, zeros))
    if isinstance(state, tuple):
        h, c = state
        assert same_bits(layer(x, (h, None)), layer(x, (h, 0 * c)))
        assert same_bits(layer(x, [None, c]), layer(x, (0 * h, c)))
        got, want = layer.backward(tape, dy, (None, c)), layer.backward(tape, dy, (0 * h, c))
        assert same_bits(got, want)


def test_stream_state(layer, x, state, same_bits):
    stream = layer.stream(B)
    stream.state = state
    assert same_bits(stream.state, state)
    seen = stream.state
    stream.step(x[0])
    assert same_bits(seen, state)  # a copy
    assert not same_bits(stream.state, state)
    stream.reset(rows=[0, 2])
    for s in stream.state if isinstance(state, tuple) else (stream.state,):
        assert not s[:, [0, 2]].any()
        assert s[:, 1].any()
    stream.reset(rows=1)
    assert same_bits(stream.state, pairwise(np.zeros_like, state))
    stream.state = state
    stream.reset(rows=np.array([True, False, True]))
    assert same_bits(pairwise(lambda s: s[:, 1], stream.state), pairwise(lambda s: s[:, 1], state))
    stream.state = None
    assert same_bits(stream.state, pairwise(np.zeros_like, state))
    y, _ = layer(x[:1])
    np.testing.assert_allclose(stream.step(x[0]), y[0], rtol=1e-6)


# -- tapes ---------------------------------------------------------------------------------------


def test_tape_belongs_to_the_caller(layer, x, state, rng, same_bits):
    """Two backwards give the same bits, even if x, y, the state or the weights were changed."""
    x, state = x.copy(), pairwise(np.copy, state)
    dy = rng.normal(size=(T, B, H))
    y, state_n, tape = layer.forward(x, state)
    want = layer.backward(tape, dy, state)
    d_state = pairwise(np.copy, state)
    x[...] = y[...] = np.nan
    for s in (state, state_n):
        pairwise(lambda a: a.fill(np.nan), s)
    for a in layer.parameters().values():
        a[...] = np.nan
    layer(x)
    dx, _, grads = layer.backward(tape, dy, d_state)
    assert same_bits(layer.backward(tape, dy, d_state), want)
    dx[...] = np.nan
    pairwise(lambda a: a.fill(np.nan), tuple(grads.values()))
    assert same_bits(layer.backward(tape, dy, d_state), want)


def test_tape_outlives_its_backend(layer, x, same_bits):
    _, _, tape = layer.forward(x)
    dy = np.ones((T, B, H))
    want = layer.backward(tape, dy)
    for name in fastrnn.backends():
        with fastrnn.use_backend(name):
            assert same_bits(layer.backward(tape, dy), want)


def test_tape_of_another(layer, cell, x, make_layer, recurrent_layers):
    _, _, tape = layer.forward(x)
    bad = "tape: is from the forward of another layer"
    others = [
        make_layer(cell, I, H + 1, dtype=layer.dtype),
        make_layer(cell, I + 1, H, dtype=layer.dtype),
        make_layer(cell, I, H, dtype=layer.dtype, bias=False),
        make_layer(cell, I, H, dtype=layer.dtype, batch_first=True),
        make_layer(cell, I, H, dtype="float32" if layer.dtype == "float64" else "float64"),
    ]
    others += [cls(I, H, dtype=layer.dtype) for cls in recurrent_layers]
    for other in others:
        if repr(other) != repr(layer):
            with pytest.raises(ValueError, match=bad):
                other.backward(tape)
    square = np.ones((B, B, I))  # where shapes are the same
    turned = layer.forward(square)[2]
    layer.batch_first = True
    with pytest.raises(ValueError, match=f"{bad}, with batch_first=False"):
        layer.backward(turned)
    for wrong in (None, x, "tape", tape.stack):
        with pytest.raises(TypeError, match="tape: expected what forward returned, got"):
            layer.backward(wrong)


# -- rows and threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_stays_in_its_row(layer, cell, x, state, rng, same_bits, poison):
    dy = rng.normal(size=(T, B, H)).astype(layer.dtype)
    y, state_n, tape = layer.forward(x, state)
    dx, dstate, _ = layer.backward(tape, dy, state)
    others = [0, 2]

    def check(x, state, dy):
        y_p, state_p, tape = layer.forward(x, state)
        dx_p, dstate_p, _ = layer.backward(tape, dy, state)
        for got, want in ((y_p, y), (dx_p, dx)):
            np.testing.assert_array_equal(got[:, others], want[:, others])
        for got, want in ((state_p, state_n), (dstate_p, dstate)):
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a[..., others, :], b[..., others, :])
        return y_p[:, 1], dx_p[:, 1]

    bad = x.copy()
    bad[2, 1, 0] = poison
    y_p, _ = check(bad, state, dy)
    if np.isnan(poison):
        assert np.isnan(y_p[2:]).all()
    assert np.isfinite(y_p[:2]).all()
    bad = dy.copy()
    bad[3, 1, 2] = poison
    y_p, dx_p = check(x, state, bad)
    assert np.isfinite(y_p).all()
    assert np.isfinite(dx_p[4:]).all()
    if not cell.name.endswith("_relu"):
        assert not np.isfinite(dx_p[:4]).any()
    bad = pairwise(np.copy, state)
    (bad[0] if isinstance(bad, tuple) else bad)[0, 1, 4] = poison
    y_p, _ = check(x, bad, dy)
    if np.isnan(poison):
        reached = slice(None) if cell.recurrence == "dense" else 4
        assert np.isnan(y_p[:, reached]).all()


def test_threads_share_a_layer(layer, x, state, rng, same_bits):
    x = np.repeat(x, 5, axis=0)
    dy = rng.normal(size=(len(x), B, H))

    def work():
        y, state_n, tape = layer.forward(x, state)
        stream = layer.stream(B)
        steps = np.array([stream.step(x_t) for x_t in x])
        return layer(x, state), (y, state_n), layer.backward(tape, dy, state), steps

    want = work()
    for _ in range(2):
        layer.parameters()  # the packed copy is compared again
        with ThreadPoolExecutor(8) as pool:
            contexts = [contextvars.copy_context() for _ in range(16)]
            for got in [f.result() for f in [pool.submit(c.run, work) for c in contexts]]:
                assert same_bits(got, want)


@pytest.mark.parametrize("bias", [True, False])
def test_optional_weights(bias):
    I, H, P = 3, 7, 5
    lstm = fastrnn.LSTM(I, H, 2, bias, proj_size=P, peephole=True, layer_norm=True, seed=0)
    shapes = {n.removesuffix("_l1"): a.shape for n, a in lstm.parameters().items() if "_l1" in n}
    biases = {"bias_ih": (28,), "bias_hh": (28,), "bias_c": (7,)} if bias else {}
    assert shapes == biases | {
        "weight_ih": (28, 5), "weight_hh": (28, 5), "weight_hr": (5, 7),
        "weight_ci": (7,), "weight_cf": (7,), "weight_co": (7,),
        "gain_ih": (28,), "gain_hh": (28,), "gain_c": (7,),
    }  # fmt: skip
    for name, array in lstm.parameters().items():
        if name.startswith(("gain", "bias_c")):
            assert (array == name.startswith("gain")).all()
    gru = fastrnn.GRU(I, H, layer_norm=True, bidirectional=True, bias=bias)
    assert gru.parameters()["gain_hh_l0_reverse"].shape == (21,)
    assert repr(lstm).endswith("peephole=True, layer_norm=True)")
    assert repr(gru).endswith("layer_norm=True)")


def test_layer_norm_does_what_it_says():
    """Scaling or shifting a whole product changes nothing; a state of any size stays finite."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4, 5))
    for layer in (fastrnn.LSTM, fastrnn.GRU):
        net = layer(5, 70, layer_norm=True, dtype=np.float64, seed=0)
        y, _ = net(x)
        weights = net.parameters()
        weights["weight_ih_l0"] *= 1e3
        weights["weight_hh_l0"] *= 1e3
        # Up to epsilon, which is negligible against the larger variance.
        assert abs(net(x)[0] - net(x * 7)[0]).max() < 1e-6
        assert abs(net(x)[0] - y).max() < 1e-2
