"""Kernels check the arrays that they read and write, at each call: a wrong one is a clear error.

The caller has checked them too, but a callback or another thread may have changed them since.
"""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CELLS, CellConfig
from fastrnn._kernels.functions import FUNCTIONS
from fastrnn._kernels.quantized import INT8, QuantizedWeights

T, B, I, H = 6, 3, 5, 7


class Call:
    """Valid arguments of `forward` and `backward`, by name, and the calls."""

    def __init__(self, cell, dtype, rng, packed=None, T=T, B=B, H=H, **options):
        self.kernels = dispatch.kernels(dtype)
        self.config = CellConfig(input_size=I, hidden_size=H, **options)
        shapes = cell.weight_shapes(self.config)
        self.weights = [rng.normal(size=s).astype(dtype) for s in shapes.values()]
        self.packed = packed or self.kernels.Packed(cell, self.config, self.weights)
        states = len(cell.states)

        def make(*shape):
            return rng.normal(size=shape).astype(dtype)

        self.of_forward = {
            "x": make(T, B, I),
            "y": make(T, B, H),
            "reset": rng.random((T, B)) < 0.2,
            "spans": np.stack([np.zeros(B, np.int64), rng.integers(1, T + 1, B)]),
        }
        self.of_backward = {"dy": make(T, B, H), "dx": make(T, B, I)}
        for name in ("state", "state_n"):
            self.of_forward |= {f"{name}.{i}": make(B, H) for i in range(states)}
        for name in ("dstate_n", "dstate"):
            self.of_backward |= {f"{name}.{i}": make(B, H) for i in range(states)}

    def forward(self, keep=False, **changed):
        a = self.of_forward | changed
        return self.kernels.forward(
            self.packed, a["x"], listed(a, "state"), a["y"], listed(a, "state_n"), keep=keep,
            spans=a["spans"], reset=a["reset"],
        )  # fmt: skip

    def backward(self, tape=None, gradients=None, **changed):
        a = self.of_backward | changed
        self.kernels.backward(
            tape or self.forward(keep=True), a["dy"], listed(a, "dstate_n"), a["dx"],
            listed(a, "dstate"), gradients or self.kernels.Gradients(self.packed),
        )  # fmt: skip


def listed(arrays, name):
    """Return the arrays of a state."""
    return [a for key, a in arrays.items() if key.partition(".")[0] == name]


def wrong(array, out):
    """Yield arrays that differ from a valid one in a single property."""
    dtype = np.dtype("uint8" if array.dtype.kind in "bi" else "int64")
    yield array.astype(dtype)
    yield array.astype(array.dtype.newbyteorder()) if array.dtype.itemsize > 1 else array[0]
    yield array[..., :-1].copy()
    yield array[:-1].copy()
    yield array[None]
    yield array.tolist()
    if array.dtype.itemsize > 1:
        odd = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        odd[...] = array
        yield odd
        yield np.repeat(array, 2, axis=-1)[..., ::2]
    if out:
        fixed = array.copy()
        fixed.flags.writeable = False
        yield fixed


OUTPUTS = ("y", "state_n", "dx", "dstate")


@pytest.fixture
def call(cell, dtype, backend, rng):
    return Call(cell, dtype, rng)


def test_every_array_is_checked(call):
    call.backward()
    for arguments, run in ((call.of_forward, call.forward), (call.of_backward, call.backward)):
        for key, array in arguments.items():
            name = key.partition(".")[0]
            for other in wrong(array, name in OUTPUTS):
                with pytest.raises((ValueError, TypeError), match=r"^(\w+|\w+\[\d\]): expected"):
                    run(**{key: other})


@pytest.mark.parametrize("sizes", [{"T": 1}, {"B": 1, "H": 2}], ids=str)
def test_gaps_between_numbers_in_small_arrays(sizes, cell, dtype, compiled, rng):
    call = Call(cell, dtype, rng, **sizes)
    for arguments, run in ((call.of_forward, call.forward), (call.of_backward, call.backward)):
        for key, array in arguments.items():
            if array.dtype == dtype:
                with pytest.raises(ValueError, match=f"^{key.partition('.')[0]}"):
                    run(**{key: np.repeat(array, 2, axis=-1)[..., ::2]})


@pytest.mark.parametrize("sizes", [{}, {"T": 3, "B": 9, "H": 33}], ids=["small", "wide"])
def test_arrays_next_to_unreadable_memory(sizes, precision, cell, compiled, rng, guarded):
    options = sizes | precision
    if "matmul_precision" in precision and cell.name.startswith("indrnn"):
        del options["matmul_precision"]
    dtype, seed = np.dtype(options.pop("dtype")), int(rng.integers(2**32))
    calls = [Call(cell, dtype, np.random.default_rng(seed), **options) for _ in range(2)]
    near = calls[1]
    for arrays in (near.of_forward, near.of_backward):
        arrays |= {name: guarded(a) for name, a in arrays.items()}
    near.weights = [guarded(w) for w in near.weights]
    near.packed = near.kernels.Packed(cell, near.config, near.weights)
    for call in calls:
        call.forward()
        call.backward()
    for name, a in (calls[0].of_forward | calls[0].of_backward).items():
        assert (near.of_forward | near.of_backward)[name].tobytes() == a.tobytes()


def test_what_is_no_array_in_a_long_call(cell, dtype, backend, rng):
    """Long enough for kernels to release the GIL, and to hold arrays meanwhile."""
    call = Call(cell, dtype, rng, T=200, B=64)
    for arguments, run in ((call.of_forward, call.forward), (call.of_backward, call.backward)):
        for key in arguments:
            for other in (object(), 2, "x", call, np.float32(1)):
                with pytest.raises(TypeError, match="expected a NumPy array, got"):
                    run(**{key: other})


def test_counts_of_states_are_checked(call):
    states = listed(call.of_forward, "state")
    for run, name in ((call.forward, "state"), (call.forward, "state_n")):
        with pytest.raises(ValueError, match=f"{name}: expected {len(states)} arrays"):
            run(**{f"{name}.more": states[0]})
    for name in ("dstate_n", "dstate"):
        with pytest.raises(ValueError, match=f"{name}: expected {len(states)} arrays"):
            call.backward(**{f"{name}.more": states[0]})


@pytest.mark.parametrize("spans", [
    [[0, 1, 2], [4, 4, 4]],
    [[1, 1, 1], [4, 5, 6]],
    [[0, -1, 0], [5, 5, 5]],
    [[5, 5, 5], [-1, -2, -3]],
    [[2**62, 0, 0], [-(2**62), 6, 6]],
])  # fmt: skip
def test_spans_are_of_one_start_or_end(call, spans):
    with pytest.raises(ValueError, match="spans: expected"):
        call.forward(spans=np.array(spans))


def test_spans_far_away(call):
    """They act as if they ended at the ends of the sequence."""
    want = [call.forward(spans=None), *map(np.copy, listed(call.of_forward, "state_n"))]
    far = np.full(B, 2**62)
    got = [call.forward(spans=np.stack([-far, far])), *listed(call.of_forward, "state_n")]
    for a, b in zip(want[1:], got[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_tapes_and_gradients_of_others(call, cell, dtype, backend, rng):
    other = Call(cell, dtype, rng)
    with pytest.raises(ValueError, match="gradients: expected those of the weights"):
        call.backward(gradients=other.kernels.Gradients(other.packed))
    if backend != "reference":
        tape = call.kernels.Tape()
        with pytest.raises(ValueError, match="tape: expected one that"):
            call.backward(tape=tape)
    with pytest.raises(TypeError):
        call.kernels.backward(None, None, [], None, [], None)
    with pytest.raises(TypeError):
        call.kernels.Gradients(None)


def test_weights_are_checked(cell, dtype, backend, rng):
    call = Call(cell, dtype, rng)
    names = cell.weights[: len(call.weights)]
    for i, name in enumerate(names):
        for other in (
            call.weights[i].astype("int64"),
            call.weights[i].astype(dtype.newbyteorder()),
            call.weights[i][:-1],
            call.weights[i][None],
            call.weights[i].tolist(),
        ):
            weights = [*call.weights[:i], other, *call.weights[i + 1 :]]
            with pytest.raises((ValueError, TypeError), match=r"weight|bias|gain"):
                call.kernels.Packed(cell, call.config, weights)
            assert not call.packed.matches(weights), name
    with pytest.raises(ValueError, match="weights: expected at most"):
        call.kernels.Packed(cell, call.config, [*call.weights] * 9)
    assert call.packed.matches(call.weights)


def test_sizes_that_overflow(call):
    kernels = call.kernels
    assert kernels.segment_steps(3, sys.maxsize) >= sys.maxsize
    assert kernels.segment_steps(sys.maxsize, 5) >= 5
    for wrong_size in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="expected an int"):
            kernels.segment_steps(wrong_size, 5)
        with pytest.raises(ValueError, match="expected an int"):
            kernels.segment_steps(5, wrong_size)
    x = call.of_forward["x"]
    huge = np.lib.stride_tricks.as_strided(x, (2**40, 2**14, I), (0, 0, x.itemsize))
    with pytest.raises((MemoryError, ValueError)):
        call.forward(keep=True, x=huge, y=None, spans=None, reset=None)


def test_empty_sequences(call, cell, dtype):
    """Zero steps leave the state unchanged; zero rows are an error."""
    empty = {"x": np.empty((0, B, I), dtype), "y": None, "spans": None, "reset": None}
    tape = call.forward(keep=True, **empty)
    for a, b in zip(
        listed(call.of_forward, "state"), listed(call.of_forward, "state_n"), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    call.backward(tape=tape, dy=None, dx=None)
    with pytest.raises(ValueError, match="B at least 1"):
        call.forward(x=np.empty((T, 0, I), dtype), y=None)


def test_resized_by_another_thread(compiled):
    """Memory that kernels use without the GIL is not moved."""
    rng = np.random.default_rng(0)
    layer = fastrnn.LSTM(64, 64, seed=0)
    x = rng.normal(size=(40, 40, 64)).astype(np.float32)
    want, stop, held = layer(x)[0], threading.Event(), [x.copy()]

    def resize():
        while not stop.is_set():
            for array in held:
                try:
                    array.resize((1, 1, 1), refcheck=False)
                    array.resize(x.shape, refcheck=False)
                except ValueError:
                    pass

    thread = threading.Thread(target=resize)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            held[0] = x.copy()
            try:
                y = layer(held[0])[0]
            except ValueError:
                continue  # resized before the call, so that the shape is wrong
            assert y.shape == want.shape
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    gc.collect()


def test_cells_without_kernels_are_refused(backend, dtype, rng):
    cell = next(iter(CELLS.values()))
    call = Call(cell, dtype, rng)
    for other in (type("Fake", (), {"name": "fake"}), None):
        with pytest.raises((AttributeError, KeyError, ValueError, TypeError)):
            call.kernels.Packed(other, call.config, call.weights)


class Gated(CellConfig):
    """A configuration whose answers to the kernels can be set."""

    general = True
    numbers: Any = None

    def gating(self, cell, itemsize):
        return self.numbers


def test_configurations_are_checked(compiled, rng):
    call = Call(CELLS["lstm"], np.dtype("f4"), rng)
    with pytest.raises(TypeError, match=r"^config: expected a CellConfig, got dict$"):
        call.kernels.Packed(CELLS["lstm"], {}, call.weights)
    config = Gated(input_size=I, hidden_size=H)
    activations = np.zeros((3, 4), "f4")
    Gated.numbers = activations
    call.kernels.Packed(CELLS["lstm"], config, call.weights)
    for kind in (-1, FUNCTIONS.index("softmax"), 99, np.nan, np.inf):
        activations[2, 0] = kind
        with pytest.raises(ValueError, match=r"^config: expected activations of single numbers$"):
            call.kernels.Packed(CELLS["lstm"], config, call.weights)
    for numbers in (activations[:2], activations.astype("f8"), None):
        Gated.numbers = numbers
        with pytest.raises((ValueError, TypeError), match=r"^config: expected"):
            call.kernels.Packed(CELLS["lstm"], config, call.weights)


def test_a_copy_sees_what_is_missing(cell, dtype, backend, rng):
    call = Call(cell, dtype, rng)
    for i, array in enumerate(call.weights):
        other = [*call.weights[:i], None, *call.weights[i + 1 :]]
        assert not call.packed.matches(other)
        assert call.packed.matches([*call.weights[:i], array.copy(), *call.weights[i + 1 :]])


def test_gradients_of_one_row_are_of_one_row(cell, dtype, compiled, rng):
    """What `run_back` writes at once, in a scan of a single row, is no sum of several."""
    call = Call(cell, dtype, rng)
    alone = call.kernels.Gradients(call.packed, True)
    with pytest.raises(ValueError, match=r"^gradients: expected those of any rows, got those of"):
        call.backward(gradients=alone)
    with pytest.raises(ValueError, match=r"^tape: expected one that `forward` made$"):
        call.kernels.run_back(call.kernels.Tape(), None, None)


def test_quantized_weights_are_not_trained(backend, rng):
    kernels = dispatch.kernels(INT8)
    config = CellConfig(input_size=I, hidden_size=H)
    shapes = QuantizedWeights.shapes(CELLS["gru"], config)
    arrays = {n: np.ones(shape, dtype) for n, (shape, dtype) in shapes.items()}
    names = CELLS["gru"].weights
    packed = kernels.Packed(
        CELLS["gru"], config, [arrays.get(n) for n in names],
        [arrays.get(f"{n}_scale") for n in names], (1.0, 1.0),
    )  # fmt: skip
    x, h, y = np.ones((T, B, I), "f4"), np.zeros((B, H), "f4"), np.zeros((T, B, H), "f4")
    kernels.forward(packed, x, [h], y, [h.copy()])
    for run in (
        lambda: kernels.forward(packed, x, [h], y, [h.copy()], keep=True),
        lambda: kernels.run(packed, x, None, keep=True),
    ):
        with pytest.raises(
            ValueError, match=r"^keep: expected False, as quantized weights are not"
        ):
            run()
    if backend != "reference":
        with pytest.raises(ValueError, match=r"^tape: expected one of floats, as quantized"):
            kernels.backward(kernels.Tape(), None, [None], None, [h.copy()], None)
