"""A layer's arrays stay intact, whatever is done to those that `parameters` returns."""

from __future__ import annotations

import contextlib
import io
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn._core import scan
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CellConfig
from fastrnn._kernels.weights import LinearWeights, Weights

T, B, I, H = 3, 2, 3, 4


@pytest.fixture(params=["recurrent", "linear"])
def layer(request, cell, make_layer, backend):
    """Return a layer with weights, on every backend."""
    if request.param == "recurrent":
        return make_layer(cell, I, H)
    if cell.name != "lstm":
        pytest.skip("has no cell")
    return fastrnn.Linear(I, H, seed=0)


@pytest.fixture
def x(rng):
    return rng.normal(size=(T, B, I)).astype("f")


def output(layer, x):
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


def reshaped(w):
    w.shape = (-1,)


def retyped(w):
    w.dtype = np.int32


def strided(w):
    w.strides = (0,) * w.ndim


def protected(w):
    w.setflags(write=False)


CHANGES = (reshaped, retyped, strided, protected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_a_parameter_is_not_done_to_the_layer(layer, x, change, same_bits):
    before = output(layer, x)
    held = layer.parameters()
    for w in held.values():
        change(w)
    assert same_bits(output(layer, x), before)
    for name, w in layer.parameters().items():
        assert w.flags.writeable, name
        w *= 0.5
    assert not same_bits(output(layer, x), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("backward", [False, True])
def test_a_base_that_was_changed_ends_in_an_error(layer, x, change, backward, same_bits):
    """Or has no effect, if the base is read-only, or has the old numbers in another shape."""
    before = output(layer, x)
    held = layer.parameters()
    for w in held.values():
        if w.ndim > 1 or change is not reshaped:
            change(w.base)
    if change is protected:
        assert same_bits(output(layer, x), before)
        for w in layer.parameters().values():
            w[...] = 0
        assert not output(layer, x).any()
        return
    wrong = r"weight.*: expected the base of the layer's parameter"
    with pytest.raises(ValueError, match=wrong):
        layer.parameters()
    run = layer.forward if backward else layer
    with contextlib.suppress(ValueError):  # the numbers are still the same
        assert same_bits(run(x)[0] if isinstance(run(x), tuple) else run(x), before)
    for w in held.values():
        w += 1
    for _ in range(2):
        with pytest.raises(ValueError, match=wrong):
            run(x)


def test_a_base_is_not_resized(layer, x, same_bits):
    before = output(layer, x)
    for w in layer.parameters().values():
        with pytest.raises(ValueError, match="resize"):
            w.base.resize((1000, 1000), refcheck=False)
    assert same_bits(output(layer, x), before)


def unaligned(a):
    return np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)


def read_only(a):
    a = a.copy()
    a.setflags(write=False)
    return a


@pytest.mark.parametrize(
    "given",
    [
        read_only,
        unaligned,
        lambda a: np.frombuffer(bytearray(a.tobytes()), a.dtype).reshape(a.shape),
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: np.asfortranarray(a)[...],
        lambda a: np.repeat(a, 2, axis=0)[::2],
    ],
    ids=["read-only", "unaligned", "a buffer", "swapped", "Fortran", "gapped"],
)
def test_arrays_that_are_not_owned_are_copied(cell, backend, make_weights, given):
    arrays = [given(w) for w in make_weights(cell, I, H, np.dtype("f"))]
    config = CellConfig(input_size=I, hidden_size=H)
    for weights in (Weights(cell, config, arrays), LinearWeights([arrays[0], arrays[2]])):
        before = [None if a is None else a.copy() for a in arrays]
        weights.packed(dispatch.kernels(weights.dtype))
        for view in weights.share():
            if view is not None:
                assert view.dtype == np.float32
                view += 1
        for a, b in zip(arrays, before, strict=True):
            assert a is None or np.array_equal(a, b), "another's array was changed"


def test_unpickled_from_read_only_buffers(layer, x, same_bits):
    buffers = []
    data = pickle.dumps(layer, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[bytes(b.raw()) for b in buffers])
    assert same_bits(output(again, x), output(layer, x))
    for w in again.parameters().values():
        w[...] = 0
    assert not output(again, x).any()
    assert output(layer, x).any()


def test_pickling_hands_out_views(layer, x, same_bits):
    """Changes to the arrays during pickling take effect at the next call."""
    output(layer, x)
    output(layer, x)
    seen = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            seen.extend([obj] if isinstance(obj, np.ndarray) else [])

    Pickler(io.BytesIO(), protocol=5).dump(layer)
    for a in seen:
        a[...] = 0
    assert seen
    assert not output(layer, x).any()


@pytest.mark.parametrize("every", [None, 2])
def test_a_tape_is_checked_where_it_is_used(cell, backend, make_layer, every):
    layer, other = make_layer(cell, I, H), make_layer(cell, I, H + 1)
    (weights,), (others,) = layer._weights.values(), other._weights.values()
    x, sizes = np.zeros((T, B, I), "f"), cell.state_sizes(weights.config)
    state_n = [np.empty((B, n), "f") for n in sizes]
    none = [None] * len(sizes)
    tape = scan.forward(weights, x, none, None, state_n, keep=True, checkpoint_every=every)

    def backward(**changed):
        given = {"kind": weights.kind, "reverse": False, "dy": np.zeros((T, B, H), "f")}
        given |= {"dx": np.zeros_like(x), "dstate_n": none, "dstate": state_n} | changed
        return scan.backward(tape, **given)

    backward()
    for changed in ({"kind": others.kind}, {"reverse": True}):
        with pytest.raises(ValueError, match="tape: is from the forward of another layer"):
            backward(**changed)
    for name, shape in (("dy", (T + 1, B, H)), ("dy", (T, B, H + 1)), ("dx", (T, B + 1, I))):
        with pytest.raises(ValueError, match=f"{name}: expected shape"):
            backward(**{name: np.zeros(shape, "f")})


def test_a_stack_is_not_two_directions(cell, backend, make_layer):
    """All sizes agree, but the number of layers differs."""
    a, b = make_layer(cell, 2 * H, H, bidirectional=True), make_layer(cell, H, H, num_layers=2)
    c = make_layer(cell, H, H, num_layers=2, bidirectional=False)
    _, _, tape = b.forward(np.zeros((T, B, H), "f"))
    c.backward(tape)
    wide = make_layer(cell, H, H, bidirectional=True)
    for other in (a, wide):
        with pytest.raises(ValueError, match="tape: is from the forward of another layer"):
            other.backward(tape)
