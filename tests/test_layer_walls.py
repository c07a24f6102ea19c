"""Invalid uses of a layer, its weights, its tapes and its streams are errors."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import _checks, layers
from fastrnn._kernels import dispatch
from fastrnn._kernels.stepping import converter

T, B, I, H, V = 5, 3, 4, 19, 11

#: Arguments of each layer that is not recurrent, and an input.
OTHERS: dict[str, tuple[Any, Any]] = {
    "linear": (lambda **of: fastrnn.Linear(I, H, **of), np.ones((T, B, I))),
    "no bias": (lambda **of: fastrnn.Linear(I, H, bias=False, **of), np.ones((T, B, I))),
    "embedding": (lambda **of: fastrnn.Embedding(V, H, **of), np.full((T, B), V - 1)),
    "masking": (lambda **of: fastrnn.Masking(), np.ones((T, B, I))),
    "dropout": (lambda **of: fastrnn.Dropout(0.5), np.ones((T, B, I))),
}


@pytest.fixture(params=["layer", "stack", "single", *OTHERS])
def made(request, cell, backend, make_layer, make_single) -> tuple[Any, np.ndarray]:
    """Return a layer of each kind, and an input for it."""
    if request.param in OTHERS:
        make, x = OTHERS[request.param]
        return make(), x
    if request.param == "single":
        return make_single(cell, I, H), np.ones((B, I))
    stack = {"num_layers": 2, "bidirectional": True} if request.param == "stack" else {}
    return make_layer(cell, I, H, **stack), np.ones((T, B, I))


def output(layer, x):
    if hasattr(layer, "hidden_size") and not layer.stackable:
        states = tuple(np.full((len(x), H), 0.5) for _ in layer.cell.states)
        outputs = layer(x, states if len(states) > 1 else states[0])
    else:
        outputs = layer(x)
    return outputs[0] if isinstance(outputs, tuple) else outputs


# -- attributes ----------------------------------------------------------------------------------

MAY_BE_SET = {
    "training", "trainable", "batch_first", "dropout", "weight_dropout", "matmul_precision", "p",
}  # fmt: skip


def test_sizes_and_options_are_fixed(made, same_bits):
    layer, x = made
    y = output(layer, x)
    kind = type(layer)
    fixed = {n for n in dir(kind) if isinstance(getattr(kind, n), property)} - MAY_BE_SET
    assert fixed >= {n for n in layer.get_config() if n not in MAY_BE_SET}
    assert "features_out" in fixed
    for name in fixed:
        before = getattr(layer, name)
        for value in (before, 1, None, "sideways"):
            with pytest.raises(AttributeError, match=rf"^{kind.__name__}\.{name}: is fixed"):
                setattr(layer, name, value)
        assert getattr(layer, name) == before
    assert same_bits(output(layer, x), y)


def test_what_would_have_no_effect_is_refused(made):
    layer, _ = made
    for name in ("momentum", "hiden_size", "lr", "input_sise", "Training"):
        with pytest.raises(AttributeError, match=rf"\.{name}: there is no such attribute"):
            setattr(layer, name, 1)
        assert not hasattr(layer, name)
    with pytest.raises(AttributeError, match="did you mean 'trainable'"):
        layer.trainabel = False


def test_subclasses_of_users_are_open(made):
    layer, x = made

    class Mine(type(layer)):
        note = "mine"

    mine = copy.copy(layer)
    mine.__class__ = Mine
    mine.note, mine.momentum = "yours", 0.9
    assert (mine.note, mine.momentum) == ("yours", 0.9)
    with pytest.raises(AttributeError, match=r"^Mine\.dtype: is fixed when the Mine is made"):
        mine.dtype = np.dtype("float64")
    assert np.isfinite(output(mine, x)).all()


@pytest.mark.parametrize("value", ["yes", 2, None, 0.5])
def test_batch_first_is_checked(cell, make_layer, value):
    layer = make_layer(cell, I, H)
    with pytest.raises(TypeError, match=r"^batch_first: expected True or False"):
        layer.batch_first = value


def test_a_model_sees_what_its_layers_are():
    model = fastrnn.Sequential([fastrnn.RNN(1, 1, return_sequences=False), fastrnn.Linear(1, 1)])
    with pytest.raises(AttributeError, match=r"^RNN\.return_sequences: is fixed"):
        model.layers[0].return_sequences = True
    model.layers[0].batch_first = True
    assert model(np.ones((4, 5, 1))).shape == (4, 1)


# -- weights -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
def test_weights_can_be_filled_but_not_reshaped(made, same_bits):
    made, x = made
    for name in made.parameters():
        layer = copy.deepcopy(made)
        w = layer.parameters()[name]
        before = output(layer, x)
        w.shape = (-1,)
        with pytest.raises(ValueError, match=r"resize|own"):
            w.resize((7,), refcheck=False)
        assert same_bits(output(layer, x), before)
        assert same_bits(layer.parameters()[name].reshape(-1), w)
        w += 0.5
        assert same_bits(layer.parameters()[name].reshape(-1), w)
        assert not same_bits(output(layer, x), before), name


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # that is what is tried
def test_the_base_of_a_weight(made):
    """Changing the layer's array through the base of a view is an error, or has no effect."""
    layer, x = made
    for name in layer.parameters():
        twin = copy.deepcopy(layer)
        base = twin.parameters()[name].base
        assert base is not None
        with pytest.raises(ValueError, match=r"resize|referenced"):
            base.resize((7,), refcheck=False)
        base.shape = (1, *base.shape)
        with pytest.raises(ValueError, match="expected"):
            output(twin, x)
        for clone in (copy.deepcopy, pickle.dumps):
            with pytest.raises(ValueError, match="expected the base of the layer's parameter"):
                clone(twin)


@pytest.mark.parametrize("clone", ["pickle", "buffers", "deepcopy", "memory map"])
def test_copies_own_their_weights(made, clone, tmp_path, same_bits):
    layer, x = made
    if clone == "pickle":
        twin = pickle.loads(pickle.dumps(layer, 5))
    elif clone == "buffers":
        kept: list[pickle.PickleBuffer] = []
        data = pickle.dumps(layer, 5, buffer_callback=kept.append)
        twin = pickle.loads(data, buffers=[bytes(b) for b in kept])  # read-only
    elif clone == "deepcopy":
        twin = copy.deepcopy(layer)
    else:
        joblib = pytest.importorskip("joblib")
        joblib.dump(layer, tmp_path / "layer")
        twin = joblib.load(tmp_path / "layer", mmap_mode="r")
    assert same_bits(output(twin, x), output(layer, x))
    for name, w in twin.parameters().items():
        assert w.flags.writeable, name
        assert w.flags.aligned, name
        assert not np.shares_memory(w, layer.parameters()[name])
        w *= 0.5
        np.testing.assert_array_equal(w, layer.parameters()[name] * np.float32(0.5))


# -- tapes ---------------------------------------------------------------------------------------


def relatives(cell, make_layer, make_single) -> list[Any]:
    """Return layers that can't use each other's tapes, and an input of each."""
    wide = {"dtype": "float64"}
    sequences = [
        make_layer(cell, I, H),
        make_layer(cell, I, H, return_sequences=False),
        make_layer(cell, I, H, batch_first=True),
        make_layer(cell, I, H, num_layers=2),
        make_layer(cell, I, H, bidirectional=True),
        make_layer(cell, I, H, num_layers=2, bidirectional=True),
        make_layer(cell, I, H, bias=False),
        make_layer(cell, I, H + 1),
        make_layer(cell, I + 1, H),
        make_layer(cell, I, H, **wide),
        *(make(I, H, bias=True, num_layers=3) for make in layers.RECURRENT.values()),
        fastrnn.Linear(I, H),
        fastrnn.Linear(I, H + 1),
        fastrnn.Linear(I + 1, H),
        fastrnn.Linear(I, H, bias=False),
        fastrnn.Linear(I, H, **wide),
    ]
    pairs = [(layer, np.ones((B, B, layer.features_in))) for layer in sequences]
    pairs += [
        (fastrnn.Embedding(v, d, dtype=dtype), np.zeros((B, B), int))
        for v, d, dtype in ((V, H, "float32"), (V + 1, H, "float32"), (V, H, "float64"))
    ]
    pairs += [
        (make_single(cell, i, h, **of), np.ones((B, i)))
        for i, h, of in ((I, H, {}), (I + 1, H, {}), (I, H + 1, {}), (I, H, wide))
    ]
    return pairs


def test_a_tape_is_taken_by_its_own_layer_and_its_twins(cell, backend, make_layer, make_single):
    """Every layer with every tape: the right error, from the check of the tape."""
    pairs = relatives(cell, make_layer, make_single)
    tapes = [layer.forward(x)[-1] for layer, x in pairs]
    for k, (layer, x) in enumerate(pairs):
        dy = [layer(x)] if isinstance(layer, fastrnn.Linear | fastrnn.Embedding) else []
        for other, tape in enumerate(tapes):
            if other == k:
                layer.backward(tape, *dy)
                copy.deepcopy(layer).backward(tape, *dy)
            else:
                with pytest.raises((ValueError, TypeError), match=r"^tape: (is from|expected)"):
                    layer.backward(tape, *dy)


def expect_fixed(tape: Any) -> None:
    names = [name for name in dir(tape) if not name.startswith("__")]
    assert names
    for name in names:
        with pytest.raises(AttributeError):
            setattr(tape, name, None)
        with pytest.raises(AttributeError):
            delattr(tape, name)


def test_fields_of_a_tape_are_fixed(made):
    layer, x = made
    expect_fixed(layer.forward(x)[-1])


def test_fields_of_the_tape_of_a_function_are_fixed(cell, functions):
    forward, _ = functions(cell)
    G, states = len(cell.gates), [np.zeros((B, H)) for _ in cell.states]
    weights = np.ones((G * H, I)), np.ones((G * H, H))
    expect_fixed(forward(np.ones((T, B, I)), states if states[1:] else states[0], *weights)[-1])


def test_the_tape_of_a_bigger_table(backend):
    big, small = fastrnn.Embedding(50_000, 1), fastrnn.Embedding(10, 1)
    _, tape = big.forward([49_999])
    for backward in (small.backward, small.apply_backward):
        with pytest.raises(ValueError, match=r"^tape: is from the forward of another layer"):
            backward(tape, np.ones((1, 1), np.float32))


@pytest.mark.parametrize("stray", [V, -1, 2**62, -(2**63)])
def test_tokens_are_checked_where_they_are_used(backend, dtype, stray):
    """Tokens changed after the check, as by another thread, raise the same error."""
    layer = fastrnn.Embedding(V, H, dtype=dtype)
    x = np.zeros((T, B), np.int64)
    _, tape = layer.forward(x)
    x[-1, -1] = tape.x[-1, -1] = stray
    error = rf"^x: expected whole numbers in (0\.\.{V - 1}|rows), got {stray}$"
    for call in (layer, layer.forward, layer.apply, layer.apply_forward):
        with pytest.raises(ValueError, match=error):
            call(x)
    stage = layer.stage(B, 1, dtype)
    with pytest.raises(ValueError, match=error):
        stage.step(x[-1], np.empty((B, H), dtype))
    dy = np.ones((T, B, H), dtype)
    with pytest.raises(ValueError, match=error):
        layer.backward(tape, dy)


def test_tokens_beyond_any_integer(backend):
    for x in (np.array([2**64 - 1], np.uint64), [2**63]):
        with pytest.raises(ValueError, match=rf"^x: expected whole numbers in 0\.\.{V - 1}, got"):
            fastrnn.Embedding(V, H)(x)


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(
    ("rows", "zeroed"),
    [
        (None, [1, 1, 1]),
        (0, [1, 0, 0]),
        (np.int8(2), [0, 0, 1]),
        (-1, [0, 0, 1]),
        ([], [0, 0, 0]),
        ((), [0, 0, 0]),
        ([0], [1, 0, 0]),
        ((0, 2), [1, 0, 1]),
        (np.array([2, 1], np.uint8), [0, 1, 1]),
        ([0, 1, 2], [1, 1, 1]),
        ([1, 1], [0, 1, 0]),
        ([True, False, False], [1, 0, 0]),
        ((True, False, True), [1, 0, 1]),
        (np.array([False, True, False]), [0, 1, 0]),
        (np.zeros(3, bool), [0, 0, 0]),
        ([np.bool_(True), np.bool_(False), np.bool_(False)], [1, 0, 0]),
    ],
    ids=repr,
)
def test_rows_to_reset(cell, backend, make_layer, num_layers, rows, zeroed):
    stream = make_layer(cell, I, H, num_layers=num_layers).stream(B)
    stream.step(np.ones((B, I)))
    stream.reset(rows)
    for s in stream.state if isinstance(stream.state, tuple) else (stream.state,):
        assert (~s.any(axis=-1) == np.array(zeroed, bool)).all()


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (np.array([1, 0, 0]), ValueError),
        ([0, 0, 0], ValueError),
        ((1, 1, 1), ValueError),
        (np.array([0, 1, 0], np.uint8), ValueError),
        (3, ValueError),
        (-4, ValueError),
        ([0, 3], ValueError),
        ([True, False], ValueError),
        (True, ValueError),
        (np.ones((B, 1), bool), ValueError),
        ([[0]], TypeError),
        (1.0, TypeError),
        ([0.0, 1.0, 0.0], TypeError),
        ("0", TypeError),
        (np.array([None]), TypeError),
    ],
    ids=repr,
)
def test_rows_that_are_unclear(cell, make_layer, rows, error):
    stream = make_layer(cell, I, H).stream(B)
    stream.step(np.ones((B, I)))
    with pytest.raises(error, match=f"^rows: expected row numbers under {B}, or {B} booleans"):
        stream.reset(rows)
    assert all(s.any(axis=-1).all() for s in np.atleast_3d(stream.state))


def test_rows_whose_dtype_another_thread_changes():
    """NumPy's repr reads the fields of an array anew: what is shown is a copy."""

    class Rows(np.ndarray):
        def __repr__(self) -> str:
            raise IndexError

    stream = fastrnn.GRU(I, H).stream(B)
    with pytest.raises(TypeError, match=r"^rows: expected row numbers .* got array\("):
        stream.reset(np.zeros(B, [("a", "f4"), ("b", "i8")]).view(Rows))


def test_flags_that_are_integers_say_what_to_pass(make_layer, cell):
    for size in (2, 3):
        stream = make_layer(cell, I, H).stream(size)
        with pytest.raises(ValueError, match="pass booleans as flags, None for all rows"):
            stream.reset(np.arange(size) % 2)


def test_rows_of_a_batch_of_one(make_layer, cell):
    """Only booleans are flags; 0 is the number of the only row, but [0] may be a flag."""
    for rows, zeroed in (
        (0, True), ([-1], True), (True, True), ([True], True), (np.bool_(False), False),
        ([False], False), (None, True), (-1, True),
    ):  # fmt: skip
        stream = make_layer(cell, I, H).stream()
        stream.step(np.ones(I))
        stream.reset(rows)
        assert all(s.any() != zeroed for s in np.atleast_3d(stream.state)), rows
    for rows in (1, [0], [1], [0, 1], np.array([0]), np.array([1])):
        with pytest.raises(ValueError, match=r"^rows: expected row numbers under 1"):
            stream.reset(rows)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_stream_in_two_threads(cell, backend, make_layer, num_layers, same_bits):
    """The second thread gets an error before anything is read; the stream stays usable."""
    layer = make_layer(cell, I, I, num_layers=num_layers)
    stream, want = layer.stream(), layer.stream()
    errors: list[BaseException] = []

    class Meddler:
        """An array-like whose conversion steps the stream from another thread."""

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            def meddle() -> None:
                try:
                    stream.step(np.ones(I))
                except RuntimeError as error:
                    errors.append(error)

            thread = threading.Thread(target=meddle)
            thread.start()
            thread.join()
            return np.full(I, 0.5)

    y = stream.step(Meddler())
    assert same_bits(y, want.step(np.full(I, 0.5, np.float32)))
    (error,) = errors
    assert "two threads" in str(error)
    assert same_bits(stream.state, want.state)
    assert same_bits(stream.step(y), want.step(y))


# -- arrays that another thread resizes -----------------------------------------------------------


class Resizing:
    """Kernels during whose calls the owners of the views that they are given are resized."""

    def __init__(self, kernels: Any, owners: dict[str, np.ndarray], viewed: set[str]) -> None:
        self._kernels, self._owners, self._viewed = kernels, owners, viewed

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._kernels, name)
        return self._resized(kernel) if name in KERNELS else kernel

    def _resized(self, kernel: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            given = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else [arg])]
            for name, owner in self._owners.items():
                if any(isinstance(a, np.ndarray) and a.base is owner for a in given):
                    self._viewed.add(name)
                    with pytest.raises(ValueError, match="resize"):
                        owner.resize(owner.size * 1000, refcheck=False)
            return kernel(*args, **options)

        return call


KERNELS = {"forward", "backward", "linear", "linear_backward", "take_rows", "add_rows"}


def resized_everywhere(monkeypatch: Any, **owners: np.ndarray) -> set[str]:
    """Let kernels try to resize these arrays; return names of those of which they got views."""
    viewed: set[str] = set()
    real = dispatch.kernels
    wrapped = {d: Resizing(real(d), owners, viewed) for d in _checks.DTYPES}
    monkeypatch.setattr(dispatch, "kernels", lambda dtype: wrapped[dtype])
    return viewed


def arguments(layer: Any, x: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return an input of the layer's dtype, and states if it has any."""
    integers = x.dtype.kind == "i"
    x = np.array(x, None if integers else layer.dtype or np.float32)
    if not layer.has_state:
        return x, ()
    lead = (*(() if not layer.stackable else (len(layer._weights),)), x.shape[-2])
    return x, tuple(np.zeros((*lead, H), x.dtype) for _ in layer.cell.states)


def first_of(y: Any) -> np.ndarray:
    return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("batch_first", [False, True])
def test_views_are_not_resized(made, batch_first, monkeypatch, same_bits):
    """Nor are the states, of which each scan reads a view."""
    layer, x = made
    layer.eval()
    if hasattr(layer, "batch_first"):
        layer.batch_first = batch_first
        x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    x, states = arguments(layer, x)
    if layer.has_state and layer.stackable and batch_first:
        states = tuple(np.zeros((len(layer._weights), len(x), H), x.dtype) for _ in states)
    options = [states if len(states) > 1 else states[0]] if states else []
    expected = layer.forward(x, *options)[0]
    owners = {"x": x} | {f"state {i}": s for i, s in enumerate(states)}
    viewed = resized_everywhere(monkeypatch, **owners)
    y, *_, tape = layer.forward(x, *options)
    assert same_bits(first_of(y), first_of(expected))
    # A single scan reads the caller's arrays themselves, and checks them where it does.
    itself = getattr(layer, "_direct", False) and not batch_first
    assert itself or viewed >= owners.keys() - {"x"}
    dy = first_of(y).copy()
    with monkeypatch.context() as patch:
        resized_everywhere(patch, dy=dy)
        layer.backward(tape, (dy, *y[1:]) if isinstance(y, tuple) else dy)
    for array in (*owners.values(), dy):  # the call is over, the tape is not
        array.resize(1, refcheck=False)
        assert array.shape == (1,)


def test_a_row_of_a_stream_is_not_resized():
    x, out = np.zeros(I, np.float32), np.zeros(H, np.float32)
    x_row, out_row, result, pins = converter(1, I, H, np.dtype(np.float32))(x, out)
    assert x_row.base is x
    assert out_row.base is out
    assert result is out
    for array in (x, out):
        with pytest.raises(ValueError, match="resize"):
            array.resize(10_000, refcheck=False)
    del pins
    for array in (x, out):
        array.resize(1, refcheck=False)


def test_a_subclass_that_owns_its_memory(made, same_bits):
    class Mine(np.ndarray):
        pass

    layer, x = made
    x, _ = arguments(layer, x)
    mine = np.ndarray.__new__(Mine, x.shape, x.dtype)
    mine[...] = x
    assert same_bits(output(layer, mine), output(layer, x))
    mine.resize(1, refcheck=False)
