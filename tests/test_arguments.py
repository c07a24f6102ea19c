"""Any argument gives the right result, or an error of the right type that names it."""

from __future__ import annotations

import numpy as np
import pytest

import fastrnn
from fastrnn import functional

T, B, I, H = 5, 3, 4, 6


@pytest.fixture
def layer(cell, dtype, backend, make_layer):
    return make_layer(cell, I, H, dtype=dtype)


def misaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    moved = memory[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    assert not moved.flags.aligned
    return moved


def odd_strides(a):
    """Return an unaligned copy, whose strides are not multiples of the item size."""
    record = np.zeros(a.shape, [("pad", "u1"), ("value", a.dtype)])
    record["value"] = a
    return record["value"]


def read_only(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


#: The same numbers in another form.
GUISES = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()),
    "fortran": np.asfortranarray,
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "gapped": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "gapped rows": lambda a: np.repeat(a, 3, axis=0)[::3],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "odd strides": odd_strides,
    "read-only": read_only,
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
}
#: What is not an array of numbers, and the error message for it.
NO_NUMBERS = {
    "object": (np.full((T, B, I), None), "got dtype object"),
    "strings": (np.full((T, B, I), "1.0"), "got dtype <U3"),
    "complex": (np.ones((T, B, I), complex), "got dtype complex128"),
    "dates": (np.zeros((T, B, I), "M8[s]"), r"got dtype datetime64\[s\]"),
    "None": (None, "got NoneType"),
    "text": ("abc", "got dtype <U3"),
    "dict": ({}, "got dict"),
    "generator": ((row for row in ()), "got generator"),
}
SHAPES = [
    (),
    (I,),
    (B, T, I, 1),
    (T, B, I + 1),
    (T, B, 0),
    (0, B, I),
    (0, I),
    (T, I - 1),
]


def guised(guise, nest):
    if isinstance(nest, tuple):
        return tuple(guised(guise, a) for a in nest)
    return guise(nest)


@pytest.mark.parametrize("guise", GUISES.values(), ids=list(GUISES))
def test_any_guise(layer, cell, make_state, rng, same_bits, guise):
    x = rng.normal(size=(T, B, I)).astype(layer.dtype)
    dy = rng.normal(size=(T, B, H)).astype(layer.dtype)
    state, dstate = (make_state(cell, (1, B, H), layer.dtype) for _ in range(2))
    given = guised(guise, (x, state, dy, dstate))
    before = np.array(given[0]), np.array(given[2])

    y, state_n, tape = layer.forward(x, state)
    want = layer.backward(tape, dy, dstate)
    assert same_bits(layer(given[0], given[1]), (y, state_n))
    *got, tape = layer.forward(given[0], given[1])
    assert same_bits(tuple(got), (y, state_n))
    assert same_bits(layer.backward(tape, given[2], given[3]), want)
    for batch_first in (False, True):
        layer.batch_first = batch_first
        assert same_bits(layer(given[0])[0], layer(x)[0])
    streams = layer.stream(B), layer.stream(B)
    streams[1].state, streams[0].state = given[1], state
    for x_t in x:
        want = streams[0].step(x_t)
        assert same_bits(streams[1].step(guise(x_t)), want)
    for a, b in zip((given[0], given[2]), before, strict=True):
        np.testing.assert_array_equal(np.array(a), b)  # not changed
    weights = {n: a + 1 for n, a in layer.state_dict().items()}
    layer.load_state_dict({n: guise(a) for n, a in weights.items()})
    assert same_bits(layer.state_dict(), weights)


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint64, int, np.float16])
def test_whole_numbers_and_halves(layer, rng, same_bits, kind):
    x = rng.integers(0, 2, (T, B, I)).astype(kind)
    assert same_bits(layer(x), layer(x.astype(layer.dtype)))
    assert same_bits(layer.stream(B).step(x[0]), layer.stream(B).step(x[0].astype(layer.dtype)))


def test_broadcast(layer, rng, same_bits):
    """Arrays whose strides are 0."""
    for shape in ((1, 1, 1), (1, 1, I), (1, B, I), (T, 1, 1), (T, 1, I)):
        x = np.broadcast_to(rng.normal(size=shape).astype(layer.dtype), (T, B, I))
        dy = np.broadcast_to(rng.normal(size=(*shape[:2], 1)).astype(layer.dtype), (T, B, H))
        y, _, tape = layer.forward(x)
        assert same_bits(y, layer(x.copy())[0])
        assert same_bits(layer.backward(tape, dy), layer.backward(tape, dy.copy()))


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_no_numbers(layer, cell, name):
    value, told = NO_NUMBERS[name]
    bad = f": expected an array of real numbers, {told}"
    x = np.ones((T, B, I))
    _, _, tape = layer.forward(x)
    stream = layer.stream(B)
    with pytest.raises(TypeError, match=f"^x{bad}"):
        layer(value)
    with pytest.raises(TypeError, match=f"^x{bad}"):
        layer.forward(value)
    with pytest.raises(TypeError, match=f"^x_t{bad}"):
        stream.step(value)
    weights = layer.state_dict()
    with pytest.raises(TypeError, match=f"^weight_hh_l0{bad}"):
        layer.load_state_dict(weights | {"weight_hh_l0": value})
    if value is not None:
        with pytest.raises(TypeError, match=f"^dy{bad}"):
            layer.backward(tape, value)
        nest = value if len(cell.states) == 1 else (None, value)
        for call, argument in (
            (lambda: layer(x, nest), "state"),
            (lambda: layer.backward(tape, dstate=nest), "dstate"),
            (lambda: setattr(stream, "state", nest), "state"),
        ):
            with pytest.raises(TypeError, match=rf"^{argument}.*{bad}"):
                call()


def test_ragged(layer):
    with pytest.raises(ValueError, match=r"^x: expected an array, got a ragged sequence"):
        layer([[[1.0] * I], [[1.0] * (I - 1)]])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_of_x(layer, shape, batch_first):
    layer.batch_first = batch_first
    if shape == (0, B, I) and batch_first:
        shape = (B, 0, I)
    lead = "T" if len(shape) == 2 else "B, T" if batch_first else "T, B"
    told = rf"^x: expected shape \({lead}, {I}\) with T >= 1, got \({', '.join(map(str, shape))}"
    with pytest.raises(ValueError, match=told):
        layer(np.ones(shape))
    with pytest.raises(ValueError, match=told):
        layer.forward(np.ones(shape))


@pytest.mark.parametrize("shape", [(), (B, H), (1, H), (2, B, H), (1, B, H + 1), (1, B + 1, H)])
def test_shape_of_states(layer, cell, shape):
    x, bad = np.ones((T, B, I)), np.ones(shape)
    nest = bad if len(cell.states) == 1 else (None, bad)
    _, _, tape = layer.forward(x)
    stream = layer.stream(B)
    told = rf"state.*: expected shape \(1, {B}, {H}\), got \({', '.join(map(str, shape))}"
    for call in (
        lambda: layer(x, nest),
        lambda: layer.forward(x, nest),
        lambda: layer.backward(tape, dstate=nest),
        lambda: setattr(stream, "state", nest),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    with pytest.raises(ValueError, match=rf"state.*: expected shape \(1, {H}\)"):
        layer(x[:, 0], np.ones((1, 1, H)) if len(cell.states) == 1 else (np.ones((1, 1, H)), None))


def test_pairs(backend):
    layer, x, s = fastrnn.LSTM(I, H), np.ones((T, B, I)), np.ones((1, B, H))
    _, _, tape = layer.forward(x)
    stream = layer.stream(B)
    for call, name in (
        (lambda v: layer(x, v), "state"),
        (lambda v: layer.backward(tape, dstate=v), "dstate"),
        (lambda v: setattr(stream, "state", v), "state"),
    ):
        for wrong in (s, np.stack([s, s]), "hc", {"h": s, "c": s}, 3):
            told = rf"^{name}: expected a tuple \(h, c\), got {type(wrong).__name__}"
            with pytest.raises(TypeError, match=told):
                call(wrong)
        for wrong in ((), (s,), (s, s, s)):
            told = rf"^{name}: expected a tuple \(h, c\), got {len(wrong)} items"
            with pytest.raises(ValueError, match=told):
                call(wrong)
    # No half of an invalid pair is taken over.
    stream.state = (s, s)
    with pytest.raises(ValueError, match="state c"):
        stream.state = (0 * s, s[..., 1:])
    assert stream.state[0].all()


@pytest.mark.parametrize("shape", [(), (T, B), (B, T, H), (T, B, 1), (T, B, H - 1), (T + 1, B, H)])
def test_shape_of_dy(layer, remade, shape):
    x = np.ones((T, B, I))
    _, _, tape = layer.forward(x)
    got = rf"got \({', '.join(map(str, shape))}"
    with pytest.raises(ValueError, match=rf"^dy: expected shape \({T}, {B}, {H}\), {got}"):
        layer.backward(tape, np.ones(shape))
    layer = remade(layer, return_sequences=False)
    with pytest.raises(ValueError, match=rf"^dy: expected shape \({B}, {H}\), {got}"):
        layer.backward(layer.forward(x)[2], np.ones(shape))


def test_load_state_dict(layer):
    weights = layer.state_dict()
    without = {n: a for n, a in weights.items() if n != "bias_hh_l0"}
    with pytest.raises(ValueError, match=r"missing \['bias_hh_l0'\], unexpected \[\]"):
        layer.load_state_dict(without)
    with pytest.raises(ValueError, match=r"missing \[\], unexpected \['extra'\]"):
        layer.load_state_dict(weights | {"extra": 1})
    for wrong in (None, 3, [1, 2], list(weights.items()), np.ones(3)):
        with pytest.raises(TypeError, match="state_dict: expected a mapping, got"):
            layer.load_state_dict(wrong)
    for wrong in (1.0, [], weights["weight_hh_l0"].T[1:], weights["weight_hh_l0"][None]):
        with pytest.raises(ValueError, match="weight_hh_l0: expected shape"):
            layer.load_state_dict(weights | {"weight_hh_l0": wrong})


# -- streams -------------------------------------------------------------------------------------


def test_stream_x(layer):
    stream = layer.stream(B)
    for shape in ((), (I,), (B, I + 1), (B + 1, I), (1, B, I), (0, I), (B, 0)):
        with pytest.raises(ValueError, match=rf"^x_t: expected shape \({B}, {I}\), got"):
            stream.step(np.ones(shape))
    single = layer.stream()
    for shape in ((), (I + 1,), (2, I), (1, 1, I), (0,)):
        with pytest.raises(ValueError, match=r"^x_t: expected shape"):
            single.step(np.ones(shape))
    assert single.step(np.ones(I)).shape == (H,)
    assert single.step(np.ones((1, I))).shape == (1, H)
    with pytest.raises(TypeError, match="argument"):
        stream.step()


def test_stream_out(layer, same_bits):
    stream, other = layer.stream(B), layer.stream(B)
    x = np.ones((B, I), layer.dtype)
    good = np.empty((B, H), layer.dtype)
    assert stream.step(x_t=x, out=good) is good
    assert same_bits(good, other.step(x))
    bad_types = [
        ([[0.0] * H] * B, "expected a NumPy array, got list"),
        (good.astype("float16"), "expected dtype float.., got float16"),
        (good.astype(good.dtype.newbyteorder()), "expected dtype float.., got"),
        (np.empty((B, H), object), "expected dtype float.., got object"),
    ]
    bad_values = [
        (np.empty((B, H + 1), layer.dtype), r"expected shape \(3, 6\), got \(3, 7\)"),
        (np.empty((B + 1, H), layer.dtype), r"expected shape \(3, 6\), got \(4, 6\)"),
        (np.empty(B * H, layer.dtype), r"expected shape \(3, 6\), got \(18,\)"),
        (np.empty((1, B, H), layer.dtype), r"expected shape \(3, 6\), got \(1, 3, 6\)"),
        (read_only(good), "expected a writeable, aligned, C-contiguous array"),
        (misaligned(good), "expected a writeable, aligned, C-contiguous array"),
        (good.T.copy().T, "expected a writeable, aligned, C-contiguous array"),
        (np.empty((B, 2 * H), layer.dtype)[:, ::2], "expected a writeable"),
        (good[::-1], "expected a writeable"),
    ]
    before = stream.state
    for kind, bad in ((TypeError, bad_types), (ValueError, bad_values)):
        for out, told in bad:
            for x_t in (x, x.tolist()):
                with pytest.raises(kind, match=rf"^out: {told}"):
                    stream.step(x_t, out=out)
    assert same_bits(stream.state, before)  # a refused step changes no state
    single = layer.stream()
    for x_t, shape in ((x[0], (1, H)), (x[:1], (H,))):
        with pytest.raises(ValueError, match=r"^out: expected shape"):
            single.step(x_t, out=np.empty(shape, layer.dtype))


def test_stream_out_is_x(cell, dtype, backend, make_layer, rng, same_bits):
    """Input and output may be the same memory."""
    for size in (1, 5, 16, 33, 70):
        layer = make_layer(cell, size, size, dtype=dtype)
        x = rng.normal(size=(B, size)).astype(dtype)
        want = layer.stream(B).step(x.copy())
        assert same_bits(layer.stream(B).step(x, out=x), want)


def test_stream_rows(layer):
    stream = layer.stream(B)
    stream.step(np.ones((B, I)))
    for wrong in (B, -B - 1, [0, B], [True] * (B + 1), "0", 0.5, [0.5], {}, [[0], [0, 1]]):
        with pytest.raises((ValueError, TypeError), match="rows: expected row numbers"):
            stream.reset(rows=wrong)
    assert all(s.any(axis=-1).all() for s in np.atleast_3d(stream.state))
    stream.reset(rows=[])
    stream.reset(rows=-1)


@pytest.mark.parametrize("size", [0, -1, True])
def test_sizes(layer, size):
    told = "expected a whole number of at least 1, got"
    with pytest.raises(ValueError, match=f"batch_size: {told}"):
        layer.stream(size)
    with pytest.raises(ValueError, match=f"input_size: {told}"):
        fastrnn.LSTM(size, 3)
    with pytest.raises(ValueError, match=f"hidden_size: {told}"):
        fastrnn.GRU(3, size)


@pytest.mark.parametrize("size", [2.0, "3", None, [3], np.ones(2)])
def test_sizes_of_another_type(layer, size):
    told = f"expected a whole number, got {type(size).__name__}"
    with pytest.raises(TypeError, match=f"batch_size: {told}"):
        layer.stream(size)
    with pytest.raises(TypeError, match=f"input_size: {told}"):
        fastrnn.RNN(size, 3)
    with pytest.raises(TypeError, match=f"hidden_size: {told}"):
        fastrnn.RNN(3, size)


def test_sizes_of_numpy(layer):
    assert repr(fastrnn.LSTM(np.int64(3), np.uint8(5))) == "LSTM(3, 5)"


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex64", "object", ">f4", None, "M8[s]"])
def test_dtype(dtype):
    with pytest.raises(ValueError, match="dtype: expected float32 or float64, got"):
        fastrnn.LSTM(2, 3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float33", 3, [1], np.zeros(3), "\ud800"])
def test_no_dtype(dtype):
    with pytest.raises(TypeError, match="dtype: expected float32 or float64, got"):
        fastrnn.LSTM(2, 3, dtype=dtype)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "TANH", None, 3, ["tanh"]])
def test_nonlinearity(nonlinearity):
    told = "nonlinearity: expected one of 'tanh', 'relu', got"
    with pytest.raises(ValueError, match=told):
        fastrnn.RNN(2, 3, nonlinearity=nonlinearity)
    with pytest.raises(ValueError, match=told):
        functional.rnn(
            np.ones((T, B, 2)), None, np.ones((3, 2)), np.ones((3, 3)), nonlinearity=nonlinearity
        )


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("adem", "adam"),
        ("RMSProp", "rmsprop"),
        ("CrossEntropyLoss", "cross_entropy"),
        ("sparse_categorical_crossentropy", "cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy"),
        ("mean_squared_error", "mse"),
        ("hubr", "huber"),
        ("acc", "accuracy"),
        ("bce", "binary_cross_entropy"),
        ("nothing like these", None),
        (3, None),
    ],
)
def test_names_that_are_near(given, near):
    names = ["accuracy", *fastrnn.losses.NAMES, *fastrnn.optim.NAMES]
    with pytest.raises(ValueError, match=r"^name: expected one of 'accuracy', .*, got ") as error:
        fastrnn._checks.choice(given, "name", names)
    hint = "" if near is None else f"; did you mean {near!r}?"
    assert str(error.value).endswith(f"got {given!r}{hint}")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: fastrnn.RNN(2, 3, nonlinearity="Tanh"), "'tanh'"),
        (lambda: setattr(fastrnn.LSTM(2, 3), "hiden_size", 0), "'hidden_size'"),
        (lambda: setattr(fastrnn.callbacks.EarlyStopping(), "patiance", 0), "'patience'"),
        (lambda: fastrnn.optim.get("adamx"), "'adam'"),
        (lambda: fastrnn.losses.get("MSELoss"), "'mse'"),
    ],
)
def test_near_names_are_told(call, told):
    with pytest.raises((ValueError, AttributeError), match=rf"did you mean {told}\?"):
        call()


@pytest.mark.parametrize("batch_first", [False, True])
def test_resets_say_what_they_take(layer, batch_first, same_bits):
    """Layers take (T, B), whatever the layout of x; models (B, T)."""
    layer.batch_first = batch_first
    x, reset = np.ones((T, B, I), layer.dtype), np.arange(T * B).reshape(T, B) % 4 == 0
    given = x.swapaxes(0, 1) if batch_first else x
    y, _ = layer(given, reset=reset)
    told = r"reset: expected an array of booleans \(T, B\) = \(5, 3\), True where .*, got dtype int"
    with pytest.raises(TypeError, match=told):
        layer(given, reset=reset.astype(int))
    told = r"reset: expected shape \(5, 3\), got \(3, 5\); it looks transposed: .* \(T, B\) here"
    with pytest.raises(ValueError, match=told):
        layer.forward(given, reset=reset.T)
    with pytest.raises(TypeError, match=r"booleans \(T,\) = \(5,\)"):
        layer(x[:, 0], reset=[0] * T)
    model = fastrnn.Sequential([layer])
    assert same_bits(model(x.swapaxes(0, 1), reset=reset.T).swapaxes(0, 1).copy(),
                     (y.swapaxes(0, 1) if batch_first else y).copy())  # fmt: skip
    with pytest.raises(
        ValueError, match=r"\(3, 5\), got \(5, 3\); it looks transposed: .*\(B, T\)"
    ):
        model(x.swapaxes(0, 1), reset=reset)
    with pytest.raises(TypeError, match=r"booleans \(B, T\) = \(3, 5\)"):
        model(x.swapaxes(0, 1), reset=reset.T.astype(np.uint8))


def test_huge(layer):
    """More than fits into memory: an error rather than a crash, and the layer still works."""
    few = np.ones(I, layer.dtype)
    for call in (
        lambda: fastrnn.GRU(10**30, 2),
        lambda: layer(np.broadcast_to(few, (2**30, 2**24, I))),
        lambda: layer.forward(np.broadcast_to(few, (2**24, 2**30, I))),
        lambda: layer(np.broadcast_to(few[:1], (2**50, 1, I))),
    ):
        with pytest.raises((MemoryError, ValueError)):
            call()
    assert np.isfinite(layer(np.ones((T, B, I)))[0]).all()


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "LSTMCell", "Embedding", "Linear"])
@pytest.mark.parametrize("sizes", [(2**40, 2**16), (2**16, 2**40), (2**62, 2**62)])
def test_huge_weights(name, sizes):
    first, second = sizes
    told = rf"^\w+={first}, \w+={second}.*: expected sizes that fit into memory"
    with pytest.raises(ValueError, match=told):
        getattr(fastrnn, name)(first, second)


@pytest.mark.parametrize("rows", [2**45, 2**62])
@pytest.mark.parametrize("whole", [True, False])
def test_huge_streams(layer, rows, whole):
    made = fastrnn.Sequential([layer]) if whole else layer
    with pytest.raises(ValueError, match=f"^batch_size={rows}: expected sizes that fit"):
        made.stream(rows)


# -- functions -----------------------------------------------------------------------------------


@pytest.fixture
def arrays(cell, make_weights, make_state, dtype, rng):
    """Return x, state and weights for ``fastrnn.functional``."""
    x = rng.normal(size=(T, B, I)).astype(dtype)
    return [x, make_state(cell, (B, H), dtype), *make_weights(cell, I, H, dtype)]


@pytest.mark.parametrize("guise", GUISES.values(), ids=list(GUISES))
def test_functions_take_any_guise(cell, backend, functions, arrays, rng, same_bits, guise):
    forward, backward = functions(cell)
    y, state_n, tape = forward(*arrays)
    assert y.dtype == arrays[0].dtype
    dy = rng.normal(size=y.shape).astype(y.dtype)
    want = backward(tape, dy, arrays[1])
    given = guised(guise, tuple(arrays))
    before = [np.array(a) for a in given[2:]]
    y_g, state_g, tape = forward(*given)
    got = backward(tape, guise(dy), given[1])
    if y_g.dtype == y.dtype:
        assert same_bits((y_g, state_g), (y, state_n))
        assert same_bits(got, want)
    else:
        assert y_g.dtype == np.float64
        np.testing.assert_allclose(y_g, y, rtol=1e-4, atol=1e-6)
    for a, b in zip(given[2:], before, strict=True):
        np.testing.assert_array_equal(np.array(a), b)


def test_functions_are_the_layers(cell, backend, dtype, functions, make_layer, arrays, same_bits):
    forward, backward = functions(cell)
    x, state, *weights = arrays
    layer = make_layer(cell, I, H, dtype=dtype)
    names = list(layer.parameters())
    layer.load_state_dict(dict(zip(names, weights, strict=True)))

    def lead(nest, add):
        if isinstance(nest, tuple):
            return tuple(lead(s, add) for s in nest)
        return nest[None] if add else nest[0]

    y, state_n, tape = layer.forward(x, lead(state, add=True))
    dx, dstate, grads = layer.backward(tape, y, lead(state, add=True))
    y_f, state_f, tape = forward(*arrays)
    assert same_bits((y_f, state_f), (y, lead(state_n, add=False)))
    dx_f, dstate_f, grads_f = backward(tape, y, state)
    assert same_bits((dx_f, dstate_f), (dx, lead(dstate, add=False)))
    assert same_bits({f"{n}_l0": g for n, g in grads_f.items()}, grads)
    assert same_bits(forward(x, None, *weights)[0], layer(x)[0])


@pytest.mark.parametrize(
    ("kinds", "want"),
    [
        (("f4", "f4", "f4"), "f4"),
        (("f8", "f8", "f8"), "f8"),
        (("f4", "f8", "f4"), "f8"),
        (("f8", "f4", "f4"), "f8"),
        (("f2", "f4", "f2"), "f4"),
        (("i8", "i8", "i8"), "f8"),
        (("i8", "f4", "f4"), "f8"),
        (("?", "f4", "f4"), "f4"),
        ((">f4", "f4", "f4"), "f4"),
        (("g", "f4", "f4"), "f8"),
    ],
)
def test_dtype_of_functions(cell, functions, arrays, kinds, want):
    forward, backward = functions(cell)
    x, state, *weights = arrays
    converted = [
        a.astype(k) for a, k in zip((x, *weights), (kinds[0], *kinds[1:], *kinds[1:]), strict=True)
    ]
    y, _, tape = forward(converted[0], state, *converted[1:])
    dx, _, grads = backward(tape, y)
    assert all(a.dtype == want for a in (y, dx, *grads.values()))


def test_shapes_of_functions(cell, functions, arrays):
    forward, backward = functions(cell)
    x, state, w_ih, w_hh, b_ih, b_hh = arrays
    rows = len(cell.gates) * H
    cases = [
        ((x[0], state, w_ih, w_hh), r"x: expected shape \(T, B, I\)"),
        ((x[:0], state, w_ih, w_hh), r"x: expected shape \(T, B, I\) with I, T >= 1"),
        ((x[..., 1:], state, w_ih, w_hh), rf"weight_ih: expected shape \({rows}, {I - 1}\)"),
        ((x, state, w_ih[1:], w_hh), rf"weight_ih: expected shape \({rows}, {I}\)"),
        ((x, state, w_ih, w_hh[1:]), rf"weight_hh: expected shape \({rows}, {H}\)"),
        ((x, state, w_ih, w_hh[0]), r"weight_hh: expected shape \(G\*H, H\)"),
        ((x, state, w_ih, w_hh, b_ih[:-1]), rf"bias_ih: expected shape \({rows},\)"),
        ((x, state, w_ih, w_hh, b_ih, b_hh[None]), rf"bias_hh: expected shape \({rows},\)"),
        ((x[:, 1:], state, w_ih, w_hh), rf"(h0|state h): expected shape \({B - 1}, {H}\)"),
    ]
    for given, told in cases:
        with pytest.raises(ValueError, match=f"^{told}.*, got"):
            forward(*given)
    for given, name in (
        ((None, state, w_ih, w_hh), "x"),
        ((x, state, None, w_hh), "weight_ih"),
        ((x, state, w_ih, None), "weight_hh"),
        ((x, state, w_ih, w_hh, "bias"), "bias_ih"),
        ((x, state, w_ih, w_hh, None, 1j), "bias_hh"),
        ((x.astype(complex), state, w_ih, w_hh), "x"),
    ):
        with pytest.raises(TypeError, match=rf"^{name}: expected an array of real numbers, got"):
            forward(*given)
    _, _, tape = forward(*arrays)
    with pytest.raises(ValueError, match=rf"^dy: expected shape \({T}, {B}, {H}\), got"):
        backward(tape, np.ones((B, T, H)))
    with pytest.raises(ValueError, match=rf"^d.*: expected shape \({B}, {H}\), got"):
        backward(tape, None, np.ones((H, B)) if len(cell.states) == 1 else (np.ones((H, B)), None))
    others = {functional.rnn_backward, functional.lstm_backward, functional.gru_backward} - {
        backward
    }
    for other in others:
        with pytest.raises(ValueError, match=f"tape: expected one of .*, got one of {cell.name}"):
            other(tape)
    with pytest.raises(TypeError, match="tape: expected what forward returned, got NoneType"):
        backward(None)
