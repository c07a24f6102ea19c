"""A stack's and a whole model's step: one call through a chain of kernels."""

from __future__ import annotations

import signal
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import Dropout, Embedding, Layer, Linear, Sequential
from fastrnn._kernels import dispatch
from fastrnn._kernels.stepping import converter, drawn

T, B, V, D, H, O = 5, 3, 11, 4, 7, 6


class Doubled(Layer):
    """A layer of a user's own, which the kernels don't know."""

    def __call__(self, x: Any) -> np.ndarray:
        return 2 * np.asarray(x)


def one_by_one(layers: Sequence[Any], x: np.ndarray, B: int) -> np.ndarray:
    """Return the outputs of all steps, from streams and calls of the single layers."""
    for layer in layers:
        if layer.has_state:
            stream = layer.stream(B)
            x = np.stack([stream.step(x_t) for x_t in x])
        else:
            x = layer(x)
    return x


@pytest.fixture
def stack(make_layer, cell, dtype) -> list[Any]:
    """An embedding, two recurrent layers, and a linear one."""
    return [
        Embedding(V, D, seed=1, dtype=dtype),
        Dropout(0.3),
        make_layer(cell, D, H, num_layers=2, dropout=0.5, dtype=dtype),
        make_layer(cell, H, H, dtype=dtype, return_sequences=False),
        Linear(H, O, seed=2, dtype=dtype),
    ]


@pytest.mark.parametrize("first", [0, 1])
def test_a_step_has_the_bits_of_its_layers(backend, stack, rng, same_bits, first):
    for rows in (1, B, 40):
        x = (
            rng.integers(V, size=(T, rows))
            if first == 0
            else stack[0](rng.integers(V, size=(T, rows)))
        )
        stream, into = (Sequential(stack[first:]).stream(rows) for _ in range(2))
        want = one_by_one(stack[first:], x, rows)
        out = np.full((rows, O), np.nan, want.dtype)
        for x_t, y_t in zip(x, want, strict=True):
            assert same_bits(stream.step(x_t), y_t)
            assert into.step(x_t, out=out) is out
            assert same_bits(out, y_t)


def test_any_number_of_threads_gives_the_same_bits(compiled, rng, same_bits):
    """Of large layers, whose steps are split, and release the GIL."""
    layers = [fastrnn.LSTM(33, 270, 2, seed=0), Linear(270, 300, bias=False, seed=1)]
    x = rng.normal(size=(T, 7, 33)).astype(np.float32)
    results, before = [], fastrnn.get_num_threads()
    try:
        for threads in (1, 2, 3):
            fastrnn.set_num_threads(threads)
            stream = Sequential(layers).stream(7)
            results.append((np.stack([stream.step(x_t) for x_t in x]), *stream.state[0]))
            assert same_bits(results[-1][0], one_by_one(layers, x, 7))
    finally:
        fastrnn.set_num_threads(before)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


def test_a_precision_set_meanwhile(backend, rng, same_bits):
    layers = [fastrnn.GRU(33, 40, 2, seed=0), Linear(40, 19, seed=1)]
    model, x = Sequential(layers), rng.normal(size=(T, B, 33)).astype(np.float32)
    stream = model.stream(B)
    for precision in ("bfloat16", "float32", "bfloat16"):
        model.matmul_precision = precision
        stream.reset()
        assert same_bits(np.stack([stream.step(x_t) for x_t in x]), one_by_one(layers, x, B))


@pytest.mark.parametrize("rows", [1, B])
def test_nothing_is_allocated(compiled, stack, rows):
    token = np.zeros(rows, np.intp)
    out = np.empty((rows, O), stack[0].dtype)
    step = Sequential(stack).stream(rows).step
    for _ in range(3):
        step(token, out)
    # A number of Python's own; without a GIL, also what claims the stream and lets it go.
    most = 100 if getattr(sys, "_is_gil_enabled", lambda: True)() else 300
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        step(token, out)
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


TOKENS: dict[str, Callable[[int], Any]] = {
    "int": int,
    "numpy": np.intp,
    "short": np.int8,
    "0-d": np.asarray,
    "row": lambda i: np.array([i]),
    "list": lambda i: [i],
    "bytes swapped": lambda i: np.array([i], ">i8"),
    "unsigned": lambda i: np.array(i, np.uint64),
}


@pytest.mark.parametrize("given", TOKENS.values(), ids=list(TOKENS))
def test_a_token_in_any_guise(backend, stack, same_bits, given):
    stream, want = (Sequential(stack).stream() for _ in range(2))
    for i in (3, 0, V - 1):
        lead = np.shape(given(i))
        assert same_bits(stream.step(given(i)), want.step(np.array([i])).reshape(*lead, O))
        out = np.empty((*lead, O), stack[0].dtype)
        assert stream.step(given(i), out) is out
        assert same_bits(out, want.step(i).reshape(*lead, O))


@pytest.mark.parametrize(
    ("token", "error", "text"),
    [
        (V, ValueError, rf"^x_t: expected whole numbers in 0\.\.{V - 1}, got {V}$"),
        (np.intp(-1), ValueError, rf"^x_t: expected whole numbers in 0\.\.{V - 1}, got -1$"),
        (-(2**40), ValueError, r"^x_t: expected whole numbers"),
        (2**32, ValueError, r"^x_t: expected whole numbers"),
        (2**63, ValueError, r"^x_t: expected whole numbers"),
        (2**70, TypeError, r"^x_t: expected an array of whole numbers"),
        (True, TypeError, r"^x_t: expected an array of whole numbers"),
        (1.0, TypeError, r"^x_t: expected an array of whole numbers"),
        (np.timedelta64(1, "s"), TypeError, r"^x_t: expected an array of whole numbers"),
        (np.zeros((1, 1), int), ValueError, r"^x_t: expected shape \(1,\), got \(1, 1\)$"),
        ([0, 1], ValueError, r"^x_t: expected shape \(1,\), got \(2,\)$"),
    ],
)
def test_a_refused_step_changes_no_state(backend, make_layer, same_bits, token, error, text):
    layers = [Embedding(V, D, seed=0), fastrnn.GRU(D, H, 2, seed=0), Linear(H, O, seed=0)]
    stream = Sequential(layers).stream()
    stream.step(1)
    before = tuple(stream.state)
    for out in (None, np.empty(O, np.float32)):
        with pytest.raises(error, match=text):
            stream.step(token, out)
    wrong = [np.empty(O), np.empty((1, O), np.float32), np.empty((O, 2), np.float32)[:, 0], [0] * O]
    for out in wrong:
        with pytest.raises((ValueError, TypeError), match=r"^out: expected"):
            stream.step(1, out)
    frozen = np.empty(O, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match=r"^out: expected a writeable"):
        stream.step(1, frozen)
    assert same_bits(tuple(stream.state), before)


def test_changed_weights_are_seen(backend, stack, same_bits, rng):
    """A change to a weight of any layer is seen by the next step, whoever holds the array."""
    model = Sequential(stack)
    stream = model.stream()
    for name in model.parameters():
        stream.step(2)
        array = model.parameters()[name]
        for _ in range(2):
            array *= 1.25
            state = stream.state
            fresh = model.stream()
            fresh.state = state
            assert same_bits(stream.step(1), fresh.step(1)), name
        del array
    model.reset_parameters(seed=7)
    fresh = model.stream()
    fresh.state = stream.state
    assert same_bits(stream.step(1), fresh.step(1))


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
def test_a_table_that_was_reshaped(backend):
    model = Sequential([Embedding(V, D), fastrnn.GRU(D, H), Linear(H, O)])
    stream = model.stream()
    stream.step(0)
    base = model.parameters()["0.weight"].base
    before = stream.state[0]
    base.shape = (D, V)
    try:
        with pytest.raises(
            ValueError, match=r"^weight: expected the base of the layer's parameter"
        ):
            stream.step(0)
        assert (stream.state[0] == before).all()
    finally:
        base.shape = (V, D)
    stream.step(0)


def test_states(backend, stack, same_bits, rng):
    stream, other = (Sequential(stack).stream(B) for _ in range(2))
    tokens = rng.integers(V, size=(T, B))
    for x_t in tokens:
        stream.step(x_t)
    other.state = stream.state
    assert same_bits(other.step(tokens[0]), stream.step(tokens[0]))
    stream.reset([1, 2])
    fresh = Sequential(stack).stream(B)
    assert same_bits(stream.step(tokens[1])[1:], fresh.step(tokens[1])[1:])


def test_out_may_be_x(backend, dtype, rng, same_bits):
    linear = Linear(100, 100, seed=0, dtype=dtype)
    x = rng.normal(size=(B, 100)).astype(dtype)
    want = linear(x)
    assert Sequential([linear]).stream(B).step(x, out=x) is x
    assert same_bits(x, want)


def test_a_layer_of_ones_own(backend, dtype, rng, same_bits):
    """Steps by the layer's own call, between those of the kernels."""
    layers = [Embedding(V, D, seed=0), fastrnn.GRU(D, H, seed=1), Doubled(), Linear(H, O, seed=2)]
    stream = Sequential(layers).stream(B)
    tokens = rng.integers(V, size=(T, B))
    want = one_by_one(layers, tokens, B)
    for x_t, y_t in zip(tokens, want, strict=True):
        assert same_bits(stream.step(x_t), y_t)
    with pytest.raises(ValueError, match=r"^x_t: expected shape"):
        stream.step(tokens[0, 1:])


def test_stages_that_do_not_fit(backend, dtype):
    kernels, convert = dispatch.kernels(dtype), converter(B, D, O, dtype)
    linear, other = (
        Linear(*sizes, dtype=dtype).stage(rows, sizes[0], dtype).parts.stages[0]
        for sizes, rows in (((D, O), B), ((O, D), B + 1))
    )
    table = Embedding(V, O, dtype=dtype).stage(B, 1, dtype).parts.stages[0]
    kernels.Chain([linear], convert).step(np.zeros((B, D), dtype))
    for wrong in ([linear, linear], [linear, other], [linear, table]):
        with pytest.raises(ValueError, match=r"^stages\[1\]: expected one that reads"):
            kernels.Chain(wrong, convert)
    with pytest.raises(ValueError, match="at least one"):
        kernels.Chain([], convert)
    for nonsense in ([None], [linear, 3]):
        with pytest.raises(TypeError, match=r"^stages"):
            kernels.Chain(nonsense, convert)
    with pytest.raises(ValueError, match="batch_size"):
        Embedding(V, O, dtype=dtype).stage(0, 1, dtype)


# -- sampling ------------------------------------------------------------------------------------


def sampler(logits: Sequence[float], dtype: np.dtype) -> Any:
    """Return a stream whose logits are always the same, and the first of them."""
    n = len(logits)
    model = Sequential([Embedding(n, 2, dtype=dtype), Linear(2, n, dtype=dtype)])
    model.load_state_dict(
        {"0.weight": np.zeros((n, 2)), "1.weight": np.zeros((n, 2)), "1.bias": logits}
    )
    stream = model.stream()
    return stream, stream.step(0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.6, 0.3]),
        ({"top_k": 2}, [0, 2 / 3, 1 / 3]),
        ({"temperature": 0.5}, [0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46]),
        ({"temperature": 0.5, "never": 1, "top_k": 10**9}, [0.1, 0, 0.9]),
        ({"temperature": 0}, [0, 1, 0]),
        ({"temperature": 0, "never": 1}, [0, 0, 1]),
        ({"temperature": 1e-300}, [0, 1, 0]),
    ],
)
def test_samples_follow_the_probabilities(backend, dtype, rng, options, expected):
    stream, logits = sampler(np.log([0.1, 0.6, 0.3]), dtype)
    tokens = stream.sample(logits, rng.random(4000), **options)
    np.testing.assert_allclose(np.bincount(tokens, minlength=3) / 4000, expected, atol=0.03)


def test_samples_are_those_of_steps(backend, stack, rng, same_bits):
    layers = [*stack[:-1], Linear(H, V, seed=2, dtype=stack[0].dtype)]
    for options in ({}, {"temperature": 0.3}, {"temperature": 2.5, "top_k": 4, "never": 5}):
        stream, other = (Sequential(layers).stream() for _ in range(2))
        logits, y, draws = stream.step(1), other.step(1), rng.random(60)
        tokens = stream.sample(logits, draws, **options)
        for token, u in zip(tokens, draws, strict=True):
            if "never" in options:
                y[options["never"]] = -np.inf
            k = options.get("top_k", V)
            assert token == drawn(y, options.get("temperature", 1.0), k, u)
            y = other.step(token)
        assert same_bits(logits, y)
        assert same_bits(stream.step(0), other.step(0))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 300])
def test_ties_and_ends(backend, dtype, rng, size):
    """Every token has its part of [0, 1), in order; equals in the order of their numbers."""
    logits = rng.integers(3, size=size).astype(float)
    stream, first = sampler(logits, dtype)
    order = np.argsort(-logits, kind="stable")
    p = np.exp(logits[order]) / np.exp(logits).sum()
    for k in {1, (size + 1) // 2, size}:
        ends = (p[:k] / p[:k].sum()).cumsum()
        inside = ends - p[:k] / p[:k].sum() / 2
        np.testing.assert_array_equal(stream.sample(first, inside, top_k=k), order[:k])
        for u, token in ((0.0, order[0]), (np.nextafter(1, 0), order[k - 1])):
            assert stream.sample(first, [u], top_k=k) == token


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(backend, dtype, value):
    """A token comes out all the same, of those that are there."""
    stream, logits = sampler([0.0, value, 1.0], dtype)
    for options in ({}, {"top_k": 2}, {"temperature": 0}, {"never": 2}):
        assert set(stream.sample(logits, [0.0, 0.5, 0.999], **options)) <= {0, 1, 2}
    stream, logits = sampler([value] * 3, dtype)
    assert set(stream.sample(logits, [0.0, 0.5, 0.999])) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"logits": np.zeros(V + 1, np.float32)}, ValueError, "logits: expected shape"),
        ({"logits": np.zeros(V)}, TypeError, "logits: expected dtype float32"),
        ({"logits": [0.0] * V}, TypeError, "logits: expected a NumPy array"),
        ({"draws": 0.5}, ValueError, "draws: expected shape"),
        ({"draws": ["a"]}, TypeError, "draws: expected"),
        ({"temperature": -1}, ValueError, "temperature: expected"),
        ({"temperature": np.nan}, ValueError, "temperature: expected"),
        ({"top_k": 0}, ValueError, "top_k: expected"),
        ({"never": V}, ValueError, "never: expected"),
        ({"never": -1}, ValueError, "never: expected"),
    ],
)
def test_wrong_samplings(backend, arguments, error, text):
    stream, _ = sampler(np.zeros(V), np.float32)
    given = {"logits": np.zeros(V, np.float32), "draws": [0.5]} | arguments
    with pytest.raises(error, match=text):
        stream.sample(**given)


def test_streams_that_cannot_sample(backend):
    for layers, rows in (
        ([Embedding(V, D), Linear(D, V)], 2),
        ([Embedding(V, D), Linear(D, V + 1)], 1),
        ([Linear(D, V)], 1),
    ):
        with pytest.raises(ValueError, match=r"^sample: expected a stream of one row"):
            Sequential(layers).stream(rows).sample(np.zeros(V, np.float32), [0.5])


def test_no_draws(backend, same_bits):
    stream, logits = sampler(np.arange(V), np.float32)
    before = logits.copy()
    assert stream.sample(logits, []).shape == (0,)
    assert same_bits(logits, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer's signal")
def test_sampling_can_be_interrupted(compiled):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    stream, logits = sampler(np.zeros(V), np.float32)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            stream.sample(logits, np.zeros(2_000_000))
    finally:
        signal.signal(signal.SIGALRM, before)
    stream.sample(logits, [0.5])


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("kind", ["layer", "model", "map"])
def test_an_output_in_the_memory_of_the_input(
    recurrent: Any, kind: str, B: int, backend: str, rng: np.random.Generator
) -> None:
    """Wherever both overlap, the step is that of arrays of their own."""
    layer = recurrent(5, 7, seed=0)
    source = {
        "layer": layer,
        "model": fastrnn.Sequential([layer, fastrnn.Linear(7, 4), fastrnn.Softmax()], seed=0),
        "map": fastrnn.Sequential([fastrnn.Linear(5, 4), fastrnn.LayerNorm(4)], seed=0),
    }[kind]
    x = rng.standard_normal((B, 5)).astype("f4")
    expected = source.stream(B).step(x)
    memory = np.zeros(x.size + 2 * expected.size, "f4")
    place = memory[expected.size : expected.size + x.size].reshape(x.shape)
    for at in range(memory.size - expected.size + 1):
        place[...] = x
        out = memory[at : at + expected.size].reshape(expected.shape)
        assert source.stream(B).step(place, out) is out
        assert out.tobytes() == expected.tobytes(), at
