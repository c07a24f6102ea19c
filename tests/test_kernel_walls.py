"""Both twins check the arrays that they read and write, at each call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastrnn
from fastrnn._kernels import dispatch
from fastrnn._kernels.cells import CELLS, CellConfig
from fastrnn._kernels.functions import FUNCTIONS
from fastrnn._kernels.quantized import INT8, QuantizedWeights
from fastrnn._kernels.row_gradient import RowGradient

Arrays = dict[str, Any]


class Call(NamedTuple):
    """A call of a kernel with arrays by name, valid ones, and the names of its outputs."""

    run: Callable[[Any, Arrays], Any]
    arrays: Callable[[np.random.Generator, Any], Arrays]
    out: tuple[str, ...]


def of_elements(rng: np.random.Generator, dtype: Any) -> Arrays:
    z, t = rng.uniform(0, 1, (2, 6, 5)).astype(dtype)
    return {"z": z, "t": t, "w": np.ones(6, dtype), "grad": np.zeros((6, 5), dtype)}


def of_classes(rng: np.random.Generator, dtype: Any) -> Arrays:
    return of_elements(rng, dtype) | {"t": rng.integers(0, 5, 6)}


def loss(name: str, **options: float) -> Call:
    make = of_classes if name == "cross_entropy" else of_elements
    return Call(
        lambda k, a: getattr(k, name)(a["z"], a["t"], a["w"], a["grad"], **options),
        make,
        ("grad",),
    )


def optimizer(name: str, slots: int, **options: Any) -> Call:
    def run(k: Any, a: Arrays) -> None:
        states = tuple(a[f"states {i}"] for i in range(slots))
        getattr(k, name)(
            [a["params"]], [a["grads"]], [states], limit=9.0, factor=1.0, lr=0.1, weight_decay=0.1,
            **options,
        )  # fmt: skip

    def arrays(rng: np.random.Generator, dtype: Any) -> Arrays:
        names = ["params", "grads", *(f"states {i}" for i in range(slots))]
        arrays = {n: rng.uniform(0, 1, (7, 3)).astype(dtype) for n in names}
        return arrays | {n: np.zeros_like(a) for n, a in arrays.items() if n[:6] == "states"}

    return Call(run, arrays, ("params", *(f"states {i}" for i in range(slots))))


def affine(rng: np.random.Generator, dtype: Any) -> Arrays:
    shapes = {
        "x": (4, 3), "dy": (4, 5), "y": (4, 5), "dx": (4, 3), "dweight": (5, 3), "dbias": (5,),
        "weight": (5, 3), "bias": (5,),
    }  # fmt: skip
    return {n: rng.uniform(0, 1, shape).astype(dtype) for n, shape in shapes.items()}


def some(make: Callable[..., Arrays], *names: str) -> Callable[..., Arrays]:
    return lambda rng, dtype: {n: a for n, a in make(rng, dtype).items() if n in names}


def packed(k: Any) -> Any:
    return k.PackedLinear((np.ones((5, 3), k.dtype), np.ones(5, k.dtype)))


def of_rows(rng: np.random.Generator, dtype: Any) -> Arrays:
    return {
        "table": rng.uniform(0, 1, (6, 4)).astype(dtype),
        "x": np.array([1, 5, 0, 1, 3]),
        "y": np.zeros((5, 4), dtype),
        "dy": rng.uniform(0, 1, (5, 4)).astype(dtype),
        "rows": np.array([0, 1, 3, 5]),
        "sums": np.zeros((4, 4), dtype),
    }


def of_functions(rng: np.random.Generator, dtype: Any) -> Arrays:
    shapes = dict.fromkeys(("x", "y", "dy", "dx"), (6, 5))
    shapes |= dict.fromkeys(("table", "dtable"), (2, 5))
    return {n: rng.uniform(0, 1, shape).astype(dtype) for n, shape in shapes.items()}


NORM = {"function": FUNCTIONS.index("layer_norm"), "a": 1e-5, "b": 0.0}
CALLS = {
    "mse": loss("mse"),
    "mae": loss("mae"),
    "huber": loss("huber", delta=1.0),
    "binary_cross_entropy": loss("binary_cross_entropy"),
    "cross_entropy": loss("cross_entropy"),
    "sgd": optimizer("sgd", 0, momentum=0.0, nesterov=False),
    "sgd-momentum": optimizer("sgd", 1, momentum=0.9, nesterov=False),
    "adam": optimizer("adam", 2, b1=0.9, b2=0.9, eps=1e-8, decoupled=False, t=1),
    "rmsprop": optimizer("rmsprop", 1, alpha=0.9, eps=1e-8, momentum=0.0, centered=False),
    "rmsprop-all": optimizer("rmsprop", 3, alpha=0.9, eps=1e-8, momentum=0.9, centered=True),
    "adagrad": optimizer("adagrad", 1, eps=1e-8),
    "squares": Call(
        lambda k, a: k.squares([a["grads"]], limit=9.0),
        some(optimizer("sgd", 0).arrays, "grads"),
        (),
    ),
    "PackedLinear": Call(
        lambda k, a: k.PackedLinear((a["weight"], a["bias"])), some(affine, "weight", "bias"), ()
    ),
    "linear": Call(
        lambda k, a: k.linear(packed(k), a["x"], a["y"]), some(affine, "x", "y"), ("y",)
    ),
    "linear_backward": Call(
        lambda k, a: k.linear_backward(
            packed(k), a["x"], a["dy"], a["dx"], a["dweight"], a["dbias"]
        ),
        some(affine, "x", "dy", "dx", "dweight", "dbias"),
        ("dx", "dweight", "dbias"),
    ),
    "take_rows": Call(
        lambda k, a: k.take_rows(a["table"], a["x"], a["y"]),
        some(of_rows, "table", "x", "y"),
        ("y",),
    ),
    "transform": Call(
        lambda k, a: k.transform(a["x"], a["table"], a["y"], **NORM),
        some(of_functions, "x", "table", "y"),
        ("y",),
    ),
    "transform_back": Call(
        lambda k, a: k.transform_back(a["x"], a["table"], a["dy"], a["dx"], a["dtable"], **NORM),
        some(of_functions, "x", "table", "dy", "dx", "dtable"),
        ("dx", "dtable"),
    ),
    "add_rows": Call(
        lambda k, a: k.add_rows(a["x"], a["dy"], a["rows"], a["sums"]),
        some(of_rows, "x", "dy", "rows", "sums"),
        ("sums",),
    ),
}


def misaligned(a: np.ndarray) -> np.ndarray:
    memory = np.zeros(a.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(a.tobytes(), np.uint8)
    return np.frombuffer(memory.data, a.dtype, a.size, 1).reshape(a.shape)


def read_only(a: np.ndarray) -> np.ndarray:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


SPOILERS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda a: a.tolist(),
    "dtype": lambda a: a.astype(np.int16),
    "byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "alignment": misaligned,
    "strides": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "shape": lambda a: a[None],
    "size": lambda a: np.concatenate([a, a]),
    "smaller": lambda a: a[:-1].copy(),
    "read-only": read_only,
}
#: Arguments that are copied first, so that strides and alignment do not matter.
COPIED = [("PackedLinear", n, how) for n in ("weight", "bias") for how in ("alignment", "strides")]


#: Arguments that may be None, and where one of them may not.
OPTIONAL = {"w", "dbias", "dx", "bias", "rows", "table", "dtable"}
REQUIRED = {"transform_back": {"dx"}, "take_rows": {"table"}}


class Twin:
    """Return the kernels of a backend, and their dtype."""

    def __init__(self, dtype: Any) -> None:
        self._kernels, self.dtype = dispatch.kernels(dtype), dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)


def said_by(call: Call, arrays: Arrays, dtype: Any) -> str:
    """Return the message of the error, which must be raised."""
    with pytest.raises((ValueError, TypeError)) as error:
        call.run(Twin(dtype), arrays)
    return str(error.value).replace("float32 or float64", str(dtype))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("how", SPOILERS)
def test_arrays_are_checked(
    name: str, how: str, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    call = CALLS[name]
    right = call.arrays(rng, dtype)
    call.run(Twin(dtype), right)
    for n in call.out if how == "read-only" else right:
        # These define the sizes: another size is another valid task.
        if (name, n, how) in COPIED or (name == "squares" and how in ("shape", "size", "smaller")):
            continue
        if (name, n) == ("take_rows", "table") and how in ("size", "smaller"):
            continue
        arrays = {m: a.copy() for m, a in right.items()}
        before = {m: a.copy() for m, a in arrays.items()}
        arrays[n] = SPOILERS[how](arrays[n])
        said = said_by(call, arrays, dtype)
        if how not in ("shape", "size", "smaller"):
            assert said.startswith(f"{n.partition(' ')[0]}: expected ")
        with fastrnn.use_backend("reference"):
            assert said == said_by(call, arrays, dtype)
        for m in call.out:
            if m != n:
                np.testing.assert_array_equal(arrays[m], before[m])


@pytest.mark.parametrize("name", CALLS)
def test_arrays_next_to_unreadable_memory(
    name: str, dtype: Any, compiled: str, rng: np.random.Generator, guarded: Any
) -> None:
    call = CALLS[name]
    right = call.arrays(rng, dtype)
    near = {n: guarded(a) for n, a in right.items()}
    for arrays in (right, near):
        call.run(Twin(dtype), arrays)
    for n in call.out:
        assert near[n].tobytes() == right[n].tobytes()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_int8_rows_without_whole_numbers(
    wrong: float, compiled: str, rng: np.random.Generator
) -> None:
    """For sanitizers: nothing is added up that stands for NaN."""
    for maker in (fastrnn.LSTM, fastrnn.Linear):
        layer = fastrnn.quantize(maker(67, 19, seed=0))
        x = rng.normal(size=(3, 5, 67)).astype(np.float32)
        x[1, 2, ::7] = wrong
        y = layer(x) if maker is fastrnn.Linear else layer(x)[0]
        assert np.isnan(y[1, 2]).all()
        assert np.isfinite(y[:, [0, 1, 3, 4]]).all()


def test_the_longest_int8_rows(compiled: str) -> None:
    """128 times their sums does not fit into int32."""
    longest = 133_144
    layer = fastrnn.Linear(longest, 1, bias=False)
    layer.load_state_dict({"weight": np.ones((1, longest), np.float32)})
    y = fastrnn.quantize(layer)(np.ones((1, longest), np.float32))
    np.testing.assert_allclose(y, longest, rtol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_none_is_an_error_and_no_crash(
    name: str, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    call = CALLS[name]
    right = call.arrays(rng, dtype)
    for n in right.keys() - (OPTIONAL - REQUIRED.get(name, set())):
        with pytest.raises(TypeError, match=f"^{n.partition(' ')[0]}: expected a NumPy array"):
            call.run(Twin(dtype), right | {n: None})


def of_int8(rng: np.random.Generator, _: Any) -> Arrays:
    weight, table = (rng.integers(-127, 128, n).astype(np.int8) for n in ((5, 3), (6, 4)))
    return of_rows(rng, "f4") | {
        "weight": weight,
        "weight_scale": rng.uniform(0, 1, 5).astype("f4"),
        "bias": rng.uniform(0, 1, 5).astype("f4"),
        "table": table,
        "scale": rng.uniform(0, 1, 6).astype("f4"),
    }


INT8_CALLS = {
    "PackedLinear": Call(
        lambda k, a: k.PackedLinear((a["weight"], a["bias"]), a["weight_scale"], 1.0),
        some(of_int8, "weight", "weight_scale", "bias"),
        (),
    ),
    "take_rows": Call(
        lambda k, a: k.take_rows(a["table"], a["scale"], a["x"], a["y"]),
        some(of_int8, "table", "scale", "x", "y"),
        ("y",),
    ),
}


@pytest.mark.parametrize("name", INT8_CALLS)
@pytest.mark.parametrize("how", [how for how in SPOILERS if how not in ("alignment", "byte order")])
def test_int8_arrays_are_checked(
    name: str, how: str, backend: str, rng: np.random.Generator
) -> None:
    call, kernels = INT8_CALLS[name], dispatch.kernels(INT8)
    right = call.arrays(rng, None)
    call.run(kernels, right)
    for n in call.out if how == "read-only" else right:
        if (name, how) != ("PackedLinear", "strides"):  # which are copied first
            arrays = right | {n: SPOILERS[how](right[n])}
            with pytest.raises((ValueError, TypeError), match=r"^\w+: expected "):
                call.run(kernels, arrays)


def test_an_int8_matrix_with_another_shape_each_time(compiled: str) -> None:
    """As if another thread changed it: what is read last differs from what was checked."""

    class Changing(np.ndarray):
        shapes = iter([(5, 3), (5, 3), (5, 9)])

        @property
        def shape(self) -> tuple[int, ...]:
            return next(self.shapes)

    weight, scale = np.ones((5, 3), np.int8).view(Changing), np.ones(5, "f4")
    with pytest.raises(ValueError, match=r"^weight: its shape was changed meanwhile$"):
        dispatch.kernels(INT8).PackedLinear((weight, None), scale, 1.0)


def test_int8_weights_are_checked(backend: str, rng: np.random.Generator) -> None:
    config, kernels, none = CellConfig(input_size=3, hidden_size=5), dispatch.kernels(INT8), None
    shapes = QuantizedWeights.shapes(CELLS["gru"], config)
    arrays: Arrays = {n: np.ones(shape, dtype) for n, (shape, dtype) in shapes.items()}

    def pack(**changed: Any) -> Any:
        a, names = arrays | changed, CELLS["gru"].weights
        scales = [a.get(f"{n}_scale") for n in names]
        return kernels.Packed(CELLS["gru"], config, [a.get(n) for n in names], scales, (1.0, 1.0))

    pack()
    for name in ("weight_ih", "weight_hh", "weight_ih_scale", "weight_hh_scale", "bias_hh"):
        a = arrays[name]
        for other in (a[:-1], a[None], a.astype("i2"), a.astype(">f8"), a.tolist()):
            with pytest.raises((ValueError, TypeError), match=f"^{name}: expected "):
                pack(**{name: other})
        if not name.startswith("bias"):
            with pytest.raises(
                (ValueError, TypeError), match=rf"^{name.removesuffix('_scale')}\w*: expected "
            ):
                pack(**{name: none})


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_cross_entropy", "cross_entropy"])
def test_losses_of_nothing(name: str, dtype: Any, backend: str, rng: np.random.Generator) -> None:
    call = CALLS[name]
    right = call.arrays(rng, dtype)
    said = r"^z: expected (one number or more|an array \(\.\.\., V\) of one number or more), got"
    with pytest.raises(ValueError, match=said):
        call.run(Twin(dtype), {n: a[:0] for n, a in right.items()})
    if name == "cross_entropy":
        nothing = {"z": right["z"][:, :0], "grad": right["grad"][:, :0]}
        for z in (nothing, {"z": np.ones((), dtype), "grad": np.ones((), dtype)}):
            with pytest.raises(ValueError, match=said):
                call.run(Twin(dtype), right | z)


@pytest.mark.parametrize("wrong", [-1, 5, 10**15, -(10**15)])
@pytest.mark.parametrize("N", [7, 30_000])
def test_targets_are_checked_where_they_are_used(
    wrong: int, N: int, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    z, t = rng.standard_normal((N, 5)).astype(dtype), rng.integers(0, 5, N)
    t[[N // 3, N // 2]] = wrong, 99
    grad = np.zeros((N + 2, 5), dtype)
    kernels = dispatch.kernels(dtype)
    with pytest.raises(
        ValueError, match=rf"^target: expected whole numbers in 0\.\.4, got {wrong}$"
    ):
        kernels.cross_entropy(z, t, None, grad[1:-1])
    assert not grad[[0, -1]].any()
    # Entries of weight 0 are ignored.
    w = np.ones(N, dtype)
    w[[N // 3, N // 2]] = 0
    loss = kernels.cross_entropy(z, t, w, grad[1:-1])
    kept = w > 0
    expected = kernels.cross_entropy(z[kept], t[kept], None, np.empty_like(z[kept]))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert not grad[1:-1][~kept].any()


@pytest.mark.parametrize("wrong", [-1, 50, 10**15, -(10**15)])
@pytest.mark.parametrize("n", [7, 30_000])
def test_rows_of_tables_are_checked_where_they_are_used(
    wrong: int, n: int, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    kernels = dispatch.kernels(dtype)
    x, dy = rng.integers(0, 50, n), rng.standard_normal((n, 4)).astype(dtype)
    table = rng.standard_normal((50, 4)).astype(dtype)
    y, sums = np.zeros((n + 2, 4), dtype), np.zeros((52, 4), dtype)
    kernels.take_rows(table, x, y[1:-1])
    np.testing.assert_array_equal(y[1:-1], table[x])
    rows = np.unique(x)
    kernels.add_rows(x, dy, rows, sums[1 : 1 + len(rows)])
    expected = np.zeros((50, 4))
    np.add.at(expected, x, dy)
    np.testing.assert_allclose(sums[1 : 1 + len(rows)], expected[rows], rtol=1e-3, atol=1e-4)
    sums[...] = 0
    x[[n // 3, n // 2]] = wrong, 99
    said = rf"^x: expected whole numbers in 0\.\.49, got {wrong}$"
    with pytest.raises(ValueError, match=said):
        kernels.take_rows(table, x, y[1:-1])
    with pytest.raises(ValueError, match=said):
        kernels.add_rows(x, dy, None, sums[1:-1])
    with pytest.raises(ValueError, match=f"^x: expected whole numbers in rows, got {wrong}$"):
        kernels.add_rows(x, dy, rows, sums[1 : 1 + len(rows)])
    assert not y[[0, -1]].any()
    assert not sums[[0, -1]].any()


def steps(kernels: Any, p: Any, g: Any) -> dict[str, Callable[[], Any]]:
    """Return each optimizer's step of one parameter, and the sum of squares."""
    given = {"limit": 9.0, "factor": 1.0, "lr": 0.1, "weight_decay": 0.0}

    def s(count: int) -> list[Any]:
        return [tuple(np.zeros_like(p) for _ in range(count))]

    means = {"alpha": 0.9, "eps": 1e-8}
    return {
        "sgd": lambda: kernels.sgd([p], [g], s(0), **given, momentum=0.0, nesterov=False),
        "sgd-momentum": lambda: kernels.sgd([p], [g], s(1), **given, momentum=0.9, nesterov=True),
        "adam": lambda: kernels.adam(
            [p], [g], s(2), **given, b1=0.9, b2=0.9, eps=1e-8, decoupled=False, t=1
        ),
        "rmsprop": lambda: kernels.rmsprop(
            [p], [g], s(3), **given, **means, momentum=0.9, centered=True
        ),
        "adagrad": lambda: kernels.adagrad([p], [g], s(1), **given, eps=1e-8),
        "squares": lambda: kernels.squares([g], limit=9.0),
    }


#: Ways to make rows 1, 4, 5 of 8 wrong.
WRONG_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"rows": np.array([-1, 4, 5])}, r"grads\.rows: expected .* in 0\.\.7, got -1"),
    "beyond": ({"rows": np.array([1, 4, 8])}, r"grads\.rows: expected .* in 0\.\.7, got 8"),
    "huge": ({"rows": np.array([1, 4, 2**60])}, r"grads\.rows: expected .* got 11529215046068469"),
    "twice": ({"rows": np.array([1, 4, 4])}, r"grads\.rows: expected ascending .* got 4"),
    "descending": ({"rows": np.array([5, 4, 1])}, r"grads\.rows: expected ascending .* got 4"),
    "dtype": ({"rows": np.array([1, 4, 5], np.int32)}, r"grads\.rows: expected .* got int32 "),
    "list": ({"rows": [1, 4, 5]}, r"grads\.rows: expected a NumPy array, got list"),
    "fewer": ({"rows": np.array([1, 4])}, r"grads\.values: expected .* \(2, 3\), got"),
    "strides": ({"rows": np.array([1, 0, 4, 0, 5, 0])[::2]}, r"grads\.rows: expected .* strides"),
    "values": ({"values": np.zeros((3, 3), np.int64)}, r"grads\.values: expected .* got int64"),
    "wider": ({"values": np.zeros((3, 4))}, r"grads\.values: expected .* \(3, 3\), got"),
    "shape": ({"shape": [8, 3]}, r"grads\.shape: expected two of int, got \[8, 3\]"),
    "sizes": ({"shape": (8.0, 3)}, r"grads\.shape: expected two of int, got \(8\.0, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_ROWS)
def test_gradients_by_rows_are_checked(
    what: str, dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    change, said = WRONG_ROWS[what]
    values = rng.standard_normal((3, 3)).astype(dtype)
    if what == "wider":
        change = {"values": change["values"].astype(dtype)}
    grad = replace(RowGradient(np.array([1, 4, 5]), values, (8, 3)), **change)
    p = rng.standard_normal((8, 3)).astype(dtype)
    before = p.copy()
    for step in steps(dispatch.kernels(dtype), p, grad).values():
        with pytest.raises((ValueError, TypeError), match=f"^{said}"):
            step()
        np.testing.assert_array_equal(p, before)


def test_a_gradient_by_rows_is_of_its_parameter(
    dtype: Any, backend: str, rng: np.random.Generator
) -> None:
    grad = RowGradient(np.array([1, 900]), np.ones((2, 3), dtype), (1000, 3))
    p = rng.standard_normal((8, 3)).astype(dtype)
    for name, step in steps(dispatch.kernels(dtype), p, grad).items():
        if name != "squares":
            with pytest.raises(
                ValueError, match=r"grads: expected shape \(8, 3\), got \(1000, 3\)"
            ):
                step()


def test_lists_of_other_lengths(dtype: Any, backend: str) -> None:
    p, given = np.zeros(3, dtype), {"limit": 9.0, "factor": 1.0, "lr": 0.1, "weight_decay": 0.0}
    kernels = dispatch.kernels(dtype)
    with pytest.raises(ValueError, match="grads, states: expected 1 of each as of params"):
        kernels.sgd([p], [], [()], **given, momentum=0.0, nesterov=False)
    with pytest.raises(ValueError, match="states: expected a tuple of 1 arrays"):
        kernels.sgd([p], [p], [()], **given, momentum=0.9, nesterov=False)
    with pytest.raises(ValueError, match="states: expected a tuple of 2 arrays"):
        kernels.adam(
            [p], [p], [(p,)], **given, b1=0.9, b2=0.9, eps=1e-8, decoupled=False, t=1
        )  # fmt: skip


def test_a_packed_map_sees_other_shapes(dtype: Any, backend: str) -> None:
    kernels = dispatch.kernels(dtype)
    weight, bias = np.ones((5, 3), dtype), np.ones(5, dtype)
    packed = kernels.PackedLinear((weight, bias))
    assert packed.matches((weight.copy(), bias.copy()))
    for other in (
        (weight.reshape(3, 5), bias),
        (weight.reshape(-1), bias),
        (weight[:1], bias),
        (weight, None),
        (weight, bias[:2]),
        (weight.astype(np.int32), bias),
        (weight + 1, bias),
    ):
        assert not packed.matches(other)
    for wrong in (None, object(), weight):
        with pytest.raises(TypeError, match="packed"):
            kernels.linear(wrong, np.ones((2, 3), dtype), np.ones((2, 5), dtype))


def meddle(change: Callable[[], None], call: Callable[[], Any], times: int = 60) -> None:
    """Call while another thread changes the input: errors are accepted, crashes are not."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with suppress(ValueError):
                change()

    other = threading.Thread(target=run)
    other.start()
    try:
        for _ in range(times):
            with suppress(ValueError):
                call()
    finally:
        stop.set()
        other.join()


def test_another_thread_changes_indices(compiled: str, rng: np.random.Generator) -> None:
    kernels = dispatch.kernels(np.dtype("f4"))
    n, V, D = 4000, 50, 16
    x, wild = rng.integers(0, V, n), rng.integers(-(2**62), 2**62, 64)
    z, grad = np.zeros((n, V), "f4"), np.zeros((n, V), "f4")
    table, y, sums = np.zeros((V, D), "f4"), np.zeros((n, D), "f4"), np.zeros((V, D), "f4")

    def change() -> None:
        at = int(rng.integers(0, n - 64))
        x[at : at + 64] = wild
        x[at : at + 64] = 3

    meddle(change, lambda: kernels.cross_entropy(z, x, None, grad))
    meddle(change, lambda: kernels.take_rows(table, x, y))
    meddle(change, lambda: kernels.add_rows(x, y, None, sums))


def test_another_thread_changes_rows(compiled: str, rng: np.random.Generator) -> None:
    V, D = 20_000, 16
    rows, p = np.arange(0, V, 2), np.zeros((V, D), "f4")
    right, wild = rows.copy(), rng.integers(-(2**62), 2**62, 64)
    grad = RowGradient(rows, np.ones((len(rows), D), "f4"), (V, D))

    def change() -> None:
        at = int(rng.integers(0, len(rows) - 64))
        rows[at : at + 64] = wild
        rows[...] = right

    for step in steps(dispatch.kernels(np.dtype("f4")), p, grad).values():
        meddle(change, step, 20)


def test_another_thread_resizes(compiled: str, rng: np.random.Generator) -> None:
    n = 300_000
    kernels = dispatch.kernels(np.dtype("f4"))
    for name in ("sgd", "adam", "squares"):
        p, g = np.zeros(n, "f4"), np.ones(n, "f4")

        def change(p: Any = p, g: Any = g) -> None:
            for a in (p, g):
                a.resize(7, refcheck=False)
            for a in (p, g):
                a.resize(n, refcheck=False)

        meddle(change, lambda name=name, p=p, g=g: steps(kernels, p, g)[name](), 30)
