"""Layers that map each row alone: activations and LayerNorm."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch
from fastrnn._kernels.functions import FUNCTIONS
from fastrnn.layers.activation import ACTIVATIONS
from fastrnn.layers.embedding import Table

B, T, F, I, O = 3, 7, 19, 4, 5
#: Each activation with other parameters than the defaults, where it has some.
NAMED: dict[str, Any] = {
    name: fastrnn.Activation(
        name, **({"alpha": 0.3} if named.alpha else {}), **({"beta": 0.7} if named.beta else {})
    )
    for name, named in ACTIVATIONS.items()
}
CLASSES = {"relu": fastrnn.ReLU, "tanh": fastrnn.Tanh, "sigmoid": fastrnn.Sigmoid}
CLASSES["softmax"] = fastrnn.Softmax
KINDS = (*NAMED, "norm", "norm without bias", "norm without weight")


def made(kind: str, dtype: Any = "float32") -> Any:
    """Return a layer, of random weights if it has some."""
    if kind in NAMED:
        return copy.deepcopy(NAMED[kind])
    options = {"bias": "bias" not in kind, "elementwise_affine": "weight" not in kind}
    norm = fastrnn.LayerNorm(F, 1e-3, **options, dtype=dtype)
    rng = np.random.default_rng(1)
    norm.load_state_dict({name: rng.normal(size=F) for name in norm.parameters()})
    return norm


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def x(dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    return (2 * rng.normal(size=(T, B, F))).astype(dtype)


def test_every_function_is_tried():
    tried = {named.function.name for named in ACTIVATIONS.values()} | {"layer_norm"}
    assert tried == set(FUNCTIONS) - {"standardise", "restore"}


def differences(function: Any, at: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Return central differences of sum(along * function()), by the numbers of `at`."""
    found = np.empty_like(at)
    for i in np.ndindex(at.shape):
        value = at[i]
        step = 1e-6 * max(1.0, abs(value))
        sides = []
        for sign in (1, -1):
            at[i] = value + sign * step
            sides.append(np.sum(along * function()))
        at[i] = value
        found[i] = (sides[0] - sides[1]) / (2 * step)
    return found


def test_gradients_of_the_reference(kind, rng):
    layer, x = made(kind, "float64"), 2 * rng.normal(size=(2, 3, F))
    along = rng.normal(size=x.shape)
    with fastrnn.use_backend("reference"):
        _, tape = layer.forward(x)
        dx, grads = layer.backward(tape, along)
        expected = differences(lambda: layer(x), x, along)
        np.testing.assert_allclose(dx, expected, rtol=1e-7, atol=1e-7)
        assert grads.keys() == layer.parameters().keys()
        for name, weight in layer.parameters().items():
            expected = differences(lambda: layer(x), weight, along)
            np.testing.assert_allclose(grads[name], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shape", [(1,), (40, 1), (2, 3, 16), (70, 33), (1, 1000)])
def test_kernels_against_the_reference(kind, dtype, compiled, rng, shape):
    if "norm" in kind:
        shape = (*shape[:-1], F)
    layer, x = made(kind, dtype), (3 * rng.normal(size=shape)).astype(dtype)
    x.reshape(-1)[:1] = 0
    dy = rng.normal(size=shape).astype(dtype)

    def run() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        y, tape = layer.forward(x)
        return y, *layer.backward(tape, dy)

    y, dx, grads = run()
    with fastrnn.use_backend("reference"):
        y_0, dx_0, grads_0 = run()
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(y, y_0, rtol=8 * eps, atol=16 * eps)
    np.testing.assert_allclose(dx, dx_0, rtol=64 * eps, atol=256 * eps)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, grads_0[name], rtol=64 * eps, atol=256 * eps)


def test_alone_in_a_batch_by_any_threads_on_any_cpu(kind, dtype, compiled, rng, same_bits):
    layer, x = made(kind, dtype), rng.normal(size=(2000, F)).astype(dtype)
    dy = rng.normal(size=x.shape).astype(dtype)
    y, tape = layer.forward(x)
    back = layer.backward(tape, dy)
    assert same_bits(layer(x), y)
    for rows in (slice(0, 1), slice(31, 34), slice(1990, 2000)):
        assert same_bits(layer(x[rows]), y[rows])
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(3)
    try:
        assert same_bits(layer(x), y)
        assert same_bits(layer.backward(tape, dy), back)
    finally:
        fastrnn.set_num_threads(before)
    for name in set(dispatch.FUSED) & set(fastrnn.backends()):
        if compiled in dispatch.FUSED:
            with fastrnn.use_backend(name):
                y_other, tape_other = layer.forward(x)
                assert same_bits(y_other, y)
                assert same_bits(layer.backward(tape_other, dy), back)


def test_nan_and_infinity_stay_in_their_rows(kind, dtype, backend, x):
    layer = made(kind, dtype)
    y = layer(x)
    for wrong in (np.nan, np.inf, -np.inf):
        x[2, 1, 3] = wrong
        found = layer(x)
        with fastrnn.use_backend("reference"):
            expected = layer(x)[2, 1]
        np.testing.assert_array_equal(np.isnan(found[2, 1]), np.isnan(expected))
        np.testing.assert_allclose(found[2, 1], expected, rtol=1e-5, atol=1e-5)
        assert np.isnan(found[2, 1, 3]) or not np.isnan(wrong)
        x[2, 1] = 0
        found[2, 1] = y[2, 1]
        np.testing.assert_array_equal(found, y)
    y, tape = layer.forward(x)
    dy = np.ones_like(x)
    dy[2, 1, 3] = np.nan
    rest = np.delete(layer.backward(tape, dy)[0].reshape(-1, F), 2 * B + 1, axis=0)
    assert np.isfinite(rest).all()


def test_formulas(backend):
    def of(name: str, *values: float, **options: float) -> list[float]:
        return fastrnn.Activation(name, **options)(np.array(values)).tolist()

    assert of("linear", -0.0, 3, np.inf) == [0, 3, np.inf]
    assert np.signbit(fastrnn.Activation("linear")(np.array([-0.0])))
    assert of("relu6", -1, 2, 9) == [0, 2, 6]
    assert of("hard_sigmoid", -3, 0, 3) == [0, 0.5, 1]
    assert of("hard_sigmoid", 1, 9, alpha=0.25) == [0.75, 1]
    assert of("hard_tanh", -5, 0.5, 5, beta=0.75) == [-1, 0.5, 0.75]
    assert of("thresholded_relu", 1, 1.5) == [0, 1.5]
    assert of("affine", 2, alpha=3, beta=1) == [7]
    assert of("softsign", -3) == [-0.75]
    np.testing.assert_allclose(of("elu", -1, 2, alpha=2), [2 * np.expm1(-1), 2])
    np.testing.assert_allclose(
        of("scaled_tanh", 1, alpha=1.7159, beta=2 / 3), [1.7159 * np.tanh(2 / 3)]
    )
    np.testing.assert_allclose(of("softplus", -800, 0, 800), [0, np.log(2), 800], atol=1e-300)
    np.testing.assert_allclose(of("silu", 1), [1 / (1 + np.exp(-1))])
    np.testing.assert_allclose(np.exp(of("log_softmax", 1, 2, 1000)), [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(of("softmax", 1, 2, 3), np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())
    np.testing.assert_allclose(fastrnn.LayerNorm(3, eps=0)([1, 2, 3]), np.sqrt(1.5) * np.r_[-1:2])


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name, x, same_bits):
    layer = CLASSES[name]()
    assert same_bits(layer(x), fastrnn.Activation(name)(x))
    assert repr(layer) == f"{type(layer).__name__}()"
    assert layer.function == name
    assert isinstance(layer, fastrnn.Activation)


def model(dtype: Any) -> fastrnn.Sequential:
    """Return a model with all kinds of them."""
    return fastrnn.Sequential(
        [
            fastrnn.LayerNorm(I, dtype=dtype),
            fastrnn.Tanh(),
            fastrnn.LSTM(I, F, dtype=dtype),
            made("norm", dtype),
            fastrnn.Activation("leaky_relu", alpha=0.2),
            fastrnn.Linear(F, O, dtype=dtype),
            fastrnn.Softmax(),
        ],
        seed=0,
    )


def stepped(net: fastrnn.Sequential, X: np.ndarray) -> np.ndarray:
    stream = net.stream(len(X))
    return np.stack([stream.step(x_t) for x_t in X.swapaxes(0, 1)], axis=1)


def test_in_a_model(backend, dtype, rng, tmp_path, same_bits, capsys, expect_equal):
    net, X = model(dtype), rng.normal(size=(B, T, I)).astype(dtype)
    y = net(X)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)
    expect_equal(stepped(net, X), y)
    parts = net.stream(B)._busy
    assert type(parts) is dispatch.kernels(dtype).Chain  # one call a step
    ragged = [X[0], X[1, :2], X[2, :4]]
    padded = net(X, lengths=[T, 2, 4])
    for of_list, row in zip(net.predict(ragged), padded, strict=True):
        np.testing.assert_allclose(of_list, row[: len(of_list)], rtol=1e-5, atol=1e-6)
        assert not row[len(of_list) :].any()
    net.save(tmp_path / "m.safetensors")
    for twin in (
        fastrnn.load(tmp_path / "m.safetensors"),
        pickle.loads(pickle.dumps(net)),
        copy.deepcopy(net),
    ):
        assert same_bits(twin(X), y)
        assert repr(twin) == repr(net)
    net.summary()
    assert f"LayerNorm(({F},), eps=0.001, elementwise_affine=True" in capsys.readouterr().out
    y, tape = net.forward(X)
    _, grads = net.backward(tape, rng.normal(size=y.shape).astype(dtype))
    assert grads.keys() == net.parameters().keys()


def test_training(backend):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, T, I))
    target = (X.sum(axis=(1, 2)) > 0).astype(np.float32)
    net = fastrnn.Sequential(
        [
            fastrnn.GRU(I, F, return_sequences=False),
            fastrnn.LayerNorm(F),
            fastrnn.Linear(F, F),
            fastrnn.ReLU(),
            fastrnn.Linear(F, 1),
            fastrnn.Sigmoid(),
        ],
        seed=0,
    )
    net.compile(fastrnn.optim.Adam(0.01), "mse")
    net.layers[1].trainable = False
    losses = net.fit(X, target, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 3
    assert (net.layers[1].parameters()["weight"] == 1).all()
    net.layers[1].trainable = True
    net.fit(X, target, verbose=0)
    assert (net.layers[1].parameters()["weight"] != 1).any()


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
def test_changed_weights_are_seen(backend, rng):
    net, X = model("float32"), rng.normal(size=(B, T, I)).astype(np.float32)
    stream = net.stream(B)
    stream.step(X[:, 0])
    weight = net.layers[3].parameters()["weight"]
    weight *= 2
    fresh = net.stream(B)
    fresh.state = net(X[:, :1], [None])[1]
    np.testing.assert_allclose(stream.step(X[:, 1]), fresh.step(X[:, 1]), rtol=1e-5)
    base = weight.base
    base.shape = (F, 2)
    with pytest.raises(ValueError, match=r"^weight: expected the base of the layer's parameter"):
        net(X)
    with pytest.raises(ValueError, match=r"^weight: expected the base of the layer's parameter"):
        stream.step(X[:, 1])


def test_quantized_models_have_the_same_bits_everywhere(kind, backend, rng, tmp_path, same_bits):
    layers = [fastrnn.LSTM(I, F), made(kind), fastrnn.Linear(F, O), fastrnn.Softmax()]
    net, X = fastrnn.Sequential(layers, seed=0), rng.normal(size=(B, T, I)).astype(np.float32)
    small = fastrnn.quantize(net)
    y = small(X)
    np.testing.assert_allclose(y, net(X), atol=0.1)
    with fastrnn.use_backend("reference"):
        assert same_bits(small(X), y)
    assert same_bits(stepped(small, X), y)
    assert type(small.stream()._busy) is dispatch.kernels(np.dtype(np.int8)).Chain
    small.save(tmp_path / "q.safetensors")
    twin = fastrnn.load(tmp_path / "q.safetensors")
    assert same_bits(twin(X), y)
    assert repr(twin) == repr(small)
    assert same_bits(pickle.loads(pickle.dumps(small))(X), y)
    with pytest.raises(ValueError, match="is for inference only"):
        small.layers[1].forward(X)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30, -1e-30, -0.0])
def test_quantized_functions_of_any_number(wrong, kind, compiled, same_bits):
    layer = fastrnn.quantize(fastrnn.Sequential([made(kind), fastrnn.Linear(F, O)], seed=0)).layers[
        0
    ]
    x = np.linspace(-90, 90, 3 * F, dtype=np.float32).reshape(3, F)
    x[1, 2] = wrong
    y = layer(x)
    with fastrnn.use_backend("reference"):
        expected = layer(x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    assert same_bits(np.nan_to_num(y, nan=0), np.nan_to_num(expected, nan=0))


def test_layers_alone_have_no_quantized_form():
    for layer in (fastrnn.ReLU(), fastrnn.LayerNorm(3)):
        with pytest.raises(TypeError, match="expected a layer that multiplies with weights"):
            fastrnn.quantize(layer)
    net = fastrnn.Sequential([fastrnn.LayerNorm(3), fastrnn.ReLU()])
    with pytest.raises(TypeError, match="expected a layer that multiplies with weights"):
        fastrnn.quantize(net)


def test_options():
    assert repr(fastrnn.Activation("elu")) == "Activation('elu')"
    assert repr(fastrnn.Activation("elu", alpha=0.5)) == "Activation('elu', alpha=0.5)"
    for name, layer in NAMED.items():
        assert layer.function == name
        twin = fastrnn.Activation(**layer.get_config())
        assert twin._function == layer._function
    norm = fastrnn.LayerNorm((F,), eps=0.1, bias=False, dtype="float64")
    shown = "eps=0.1, elementwise_affine=True, bias=False, dtype=float64"
    assert repr(norm) == f"LayerNorm(({F},), {shown})"
    assert repr(fastrnn.LayerNorm(**norm.get_config())) == repr(norm)
    assert norm.normalized_shape == (F,)
    norm.parameters()["weight"][...] = 3
    norm.reset_parameters()
    assert (norm.parameters()["weight"] == 1).all()


WRONG = {
    "function: expected one of .* got 'rleu'; did you mean": lambda: fastrnn.Activation("rleu"),
    "alpha: expected None, as relu has none, got 0.1": lambda: fastrnn.Activation("relu", 0.1),
    "alpha: expected a finite number": lambda: fastrnn.Activation("elu", np.nan),
    "beta: expected None, as elu has none": lambda: fastrnn.Activation("elu", 1.0, 2.0),
    "alpha, beta: expected alpha <= beta": lambda: fastrnn.Activation("hard_tanh", 2.0, 1.0),
    "normalized_shape: expected the size of the last axis": lambda: fastrnn.LayerNorm((3, 4)),
    "normalized_shape: expected a whole number": lambda: fastrnn.LayerNorm(0),
    "eps: expected a finite number": lambda: fastrnn.LayerNorm(3, eps=-1.0),
    r"x: expected shape \(\.\.\., 3\), got \(2, 4\)": lambda: fastrnn.LayerNorm(3)(np.ones((2, 4))),
    "tape: expected what forward returned": lambda: fastrnn.ReLU().backward(None, [1.0]),
    "tape: is from the forward of another layer": lambda: fastrnn.Tanh().backward(
        fastrnn.ReLU().forward([1.0])[1], [1.0]
    ),
    r"dy: expected shape \(1,\)": lambda: fastrnn.Tanh().backward(
        fastrnn.Tanh().forward([1.0])[1], [1.0, 2.0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_errors(said):
    with pytest.raises((ValueError, TypeError), match=said):
        WRONG[said]()


def test_kernels_refuse_other_functions_and_tables(backend, dtype):
    kernels, x, table = dispatch.kernels(dtype), np.ones((2, 3), dtype), np.ones((2, 3), dtype)
    for function, given in (
        (-1, None),
        (len(FUNCTIONS), None),
        (0, table),
        (len(FUNCTIONS) - 1, None),
    ):
        with pytest.raises(ValueError, match=r"^function"):
            kernels.transform(x, given, x.copy(), function=function, a=1.0, b=0.0)
        holder = None if given is None else Table(given)
        with pytest.raises(ValueError, match=r"^function"):
            kernels.RowStepper(holder, x, function=function, a=1.0, b=0.0)
    with pytest.raises(ValueError, match="batch_size"):
        kernels.RowStepper(None, x[:0], function=1, a=1.0, b=0.0)


def test_empty_batches(kind, backend, dtype):
    layer = made(kind, dtype)
    y, tape = layer.forward(np.empty((0, F), dtype))
    assert y.shape == (0, F)
    dx, grads = layer.backward(tape, y)
    assert dx.shape == (0, F)
    assert not any(g.any() for g in grads.values())


def test_scalars_and_lists():
    assert fastrnn.ReLU()(-3).shape == ()
    assert [*map(float, fastrnn.ReLU()([-1, 2]))] == [0, 2]
    assert all(a <= b for a, b in pairwise(fastrnn.Tanh()(range(5))))


@pytest.mark.parametrize("kind", ["norm", "norm without weight", "softmax", "log_softmax"])
@pytest.mark.parametrize("F", [3, 19, 150])
def test_gradients_near_the_largest_number(kind, F, dtype, backend, rng, same_bits):
    """They are those of small ones, times a power of two: nothing overflows on the way."""
    layer = fastrnn.LayerNorm(F, dtype=dtype) if "norm" in kind else NAMED[kind]
    x, dy = rng.normal(size=(2, 4, F)).astype(dtype)
    _, tape = layer.forward(x)
    dx, grads = layer.backward(tape, dy)
    for power in (60, 75, 118) if dtype == np.float32 else (400, 540, 1010):
        large = dtype.type(2) ** power
        dx_large, grads_large = layer.backward(tape, dy * large)
        assert same_bits(dx_large, dx * large)
        for name, grad in grads.items():
            assert same_bits(grads_large[name], grad * large)
