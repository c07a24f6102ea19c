"""The same bits on different kernels: random configurations, whose results are compared by hash.

A configuration is a number: everything about it is drawn from a generator with that seed, by
operations whose results do not depend on the machine. So another machine can run the same ones, and
check the hashes that this one has written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastrnn
from fastrnn._core.initializers import uniform
from fastrnn._files import atomic, reading
from fastrnn._kernels import dispatch, extensions
from fastrnn._kernels.activations import ACTIVATIONS
from fastrnn._kernels.cells import CELLS, Cell
from fastrnn._kernels.quantized import least
from fastrnn._types import Array
from fastrnn.layers import RECURRENT
from fastrnn.models.progress import Display

#: How many configurations one process runs.
AT_ONCE = 250
#: How many of 1,000 recurrent layers are large enough to be split among threads.
LARGE = 20

#: Options that every layer gets, such as a precision.
Options = Mapping[str, Any]
#: Arrays and numbers by name, in the order in which they were computed.
Results = dict[str, Any]
#: A description of a configuration, and its results.
Told = tuple[tuple[Any, ...], Results]


class Draw:
    """A source of random values that are the same on every machine.

    Parameters
    ----------
    precision : str
        Key in :data:`PRECISIONS`.
    number : int
        The number of the configuration.
    """

    def __init__(self, precision: str, number: int) -> None:
        self.rng = np.random.default_rng([*precision.encode(), number])

    def number(self, least: int, most: int) -> int:
        """Return a whole number in least..most."""
        return int(self.rng.integers(least, most, endpoint=True))

    def chance(self, p: float) -> bool:
        """Return True with probability p."""
        return bool(self.rng.random() < p)

    def one_of(self, *values: Any) -> Any:
        """Return one of the values."""
        return values[self.number(0, len(values) - 1)]

    def size(self) -> int:
        """Return a size: small, or near a multiple of a vector."""
        near = self.number(1, 5) * 16 + self.number(-1, 1)
        return int(self.one_of(self.number(1, 9), self.number(1, 40), near))

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return numbers in -1..1."""
        found: Array = uniform(self.rng, 1, shape).astype(dtype)
        return found


def named(name: str, values: Any) -> Results:
    """Return the arrays of a nest by name."""
    if isinstance(values, Mapping):
        return {f"{name} {key}": value for key, value in values.items()}
    if isinstance(values, tuple):
        return {f"{name} {i}": value for i, value in enumerate(values)}
    return {name: values}


def filled(draw: Draw, layer: Any) -> Any:
    """Return the layer with other weights, whatever its initializer does."""
    for array in layer.parameters().values():
        array[...] = draw.array(array.shape, array.dtype) / (4 if array.ndim == 2 else 1)
    return layer


def drawn_layer(draw: Draw, cell: Cell, I: int, H: int, dtype: str, options: Options) -> Any:
    """Return a recurrent layer, each option drawn independently."""
    family: Any = RECURRENT[cell.family]
    L = draw.one_of(1, 1, 2, 3)
    chosen: dict[str, Any] = {
        "num_layers": L,
        "bias": draw.chance(0.8),
        "batch_first": draw.chance(0.3),
        "dropout": draw.one_of(0.0, 0.5) if L > 1 else 0.0,
        "bidirectional": draw.chance(0.3),
        "return_sequences": draw.chance(0.8),
        "weight_dropout": draw.one_of(0.0, 0.0, 0.25),
    }
    if "projection" in cell.options and H > 1 and draw.chance(0.3):
        chosen["proj_size"] = draw.number(1, H - 1)
    for option in ("peephole", "layer_norm", "input_forget"):
        if option in cell.options:
            chosen[option] = draw.chance(0.3)
    usual = dict(family.cells[cell.name])
    if draw.chance(0.3):
        usual.pop("nonlinearity", None)  # in the place of which activations are
        drawn = [draw.one_of(*ACTIVATIONS) for _ in cell.activations]
        chosen["activations"] = [
            (name, *(0.25 * draw.number(1, 5) for _ in ACTIVATIONS[name])) for name in drawn
        ]
    if draw.chance(0.2):
        chosen["clip"] = 0.25 * draw.number(1, 9)
    chosen |= {"dtype": dtype, "seed": draw.number(0, 99)}
    return filled(draw, family(I, H, **usual, **chosen, **options))


def recurrent(draw: Draw, dtype: str, options: Options) -> Told:
    """Run a recurrent layer of any cell, forward and back, for inference, and as a stream."""
    cell, large = draw.one_of(*CELLS.values()), draw.number(1, 1000) <= LARGE
    I, H = (draw.size() * (3 if large else 1) for _ in range(2))
    T, B = draw.one_of(1, draw.number(2, 9), draw.number(1, 30)), draw.one_of(1, draw.size())
    if large:
        T, B = draw.number(2, 6), B + 20
    layer = drawn_layer(draw, cell, I, H, dtype, options)
    rows = (layer.num_layers * (1 + layer.bidirectional), B)
    P = getattr(layer, "proj_size", 0) or H

    def states() -> Any:
        h, *rest = (draw.array((*rows, n), dtype) for n in (P, *[H] * (len(cell.states) - 1)))
        return (h, *rest) if rest else h

    x = draw.array((B, T, I) if layer.batch_first else (T, B, I), dtype)
    state = states() if draw.chance(0.7) else None
    calls: dict[str, Any] = {}
    if draw.chance(0.3):
        calls["lengths"] = draw.rng.integers(1, T, B, endpoint=True)
    if draw.chance(0.2):
        calls["reset"] = draw.rng.random((T, B)) < 0.2
    kept = {"checkpoint_every": draw.number(1, T)} if draw.chance(0.2) else {}
    y, state_n, tape = layer.forward(x, state, **calls, **kept)
    dy = draw.array(y.shape, dtype) if draw.chance(0.9) else None
    dx, dstate, grads = layer.backward(tape, dy, states() if draw.chance(0.5) else None)
    results = {"y": y, **named("state", state_n), "dx": dx, **named("dstate", dstate)}
    results |= named("gradient", grads)
    layer.eval()
    y, state_n = layer(x, state, **calls)
    results |= {"inference y": y, **named("inference state", state_n)}
    if not layer.bidirectional and draw.chance(0.3):
        stream = layer.stream(B)
        for t in range(min(T, 3)):
            results[f"step {t}"] = stream.step(x[:, t] if layer.batch_first else x[t])
    return (repr(layer), f"x {x.shape}", *calls, kept), results


def linear(draw: Draw, dtype: str, options: Options) -> Told:
    """Run a Linear layer and its gradients."""
    layer = fastrnn.Linear(draw.size(), draw.size(), bias=draw.chance(0.8), dtype=dtype, **options)
    x = draw.array((draw.one_of(1, draw.size(), 300), layer.in_features), dtype)
    y, tape = filled(draw, layer).forward(x)
    dx, grads = layer.backward(tape, draw.array(y.shape, dtype))
    return (layer, f"x {x.shape}"), {"y": y, "dx": dx, **named("gradient", grads)}


def embedding(draw: Draw, dtype: str, options: Options) -> Told:
    """Run an Embedding and its gradients."""
    layer = filled(draw, fastrnn.Embedding(draw.size(), draw.size(), dtype=dtype))
    y, tape = layer.forward(draw.rng.integers(0, layer.num_embeddings, draw.size()))
    _, grads = layer.backward(tape, draw.array(y.shape, dtype))
    return (layer,), {"y": y, **named("gradient", grads)}


def loss(draw: Draw, dtype: str, options: Options) -> Told:
    """Compute a loss and its gradient."""
    name = draw.one_of("mse", "mae", "huber", "binary_cross_entropy", "cross_entropy")
    shape = (draw.size(), draw.one_of(1, draw.size(), draw.number(1, 3000)))
    output = draw.array(shape, dtype) * np.dtype(dtype).type(draw.one_of(1, 8, 60))
    target = draw.array(shape, dtype)
    if name == "binary_cross_entropy":
        target = abs(target)
    elif name == "cross_entropy":
        target = draw.rng.integers(0, shape[1], shape[:1])
    weight = abs(draw.array(shape[:1], dtype)) if draw.chance(0.3) else None
    value, grad = getattr(fastrnn.losses, name).value_and_grad(output, target, weight)
    return (name, shape), {"loss": value, "gradient": grad}


def optimizer(draw: Draw, dtype: str, options: Options) -> Told:
    """Take some steps of an optimizer."""
    chosen: dict[str, Any] = {
        "lr": draw.one_of(0.1, 0.003),
        "weight_decay": draw.one_of(0.0, 0.01),
        "clip_norm": draw.one_of(None, 0.3, 3.0),
        "clip_value": draw.one_of(None, 0.7),
    }
    momentum = draw.one_of(0.0, 0.9)
    name, more = draw.one_of(
        ("SGD", {"momentum": momentum, "nesterov": momentum > 0 and draw.chance(0.5)}),
        ("Adam", {}),
        ("AdamW", {}),
        ("RMSprop", {"momentum": momentum, "centered": draw.chance(0.5)}),
        ("Adagrad", {}),
    )
    made = getattr(fastrnn.optim, name)(**chosen, **more)
    shapes = {"matrix": (draw.size(), draw.size()), "vector": (draw.number(1, 9000),)}
    params = {key: draw.array(shape, dtype) for key, shape in shapes.items()}
    for _ in range(3):
        made.step(params, {key: draw.array(shape, dtype) for key, shape in shapes.items()})
    return (made, shapes), {**params, **named("state", made.state_dict())}


def training(draw: Draw, dtype: str, options: Options) -> Told:
    """Train a small model from a seed."""
    V, D, H, N, T = (draw.size() + 1 for _ in range(5))
    layer = draw.one_of(fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU)
    model = fastrnn.Sequential(
        [
            fastrnn.Embedding(V, D, dtype=dtype),
            layer(D, H, dtype=dtype, init=draw.one_of("uniform", "orthogonal"), **options),
            fastrnn.Dropout(draw.one_of(0.0, 0.2)),
            fastrnn.Linear(H, V, dtype=dtype, **options),
        ],
        seed=draw.number(0, 999),
    )
    name = draw.one_of("sgd", "adam", "adamw", "rmsprop", "adagrad")
    model.compile(name, "cross_entropy")
    X = draw.rng.integers(0, V, (N, T))
    history = model.fit(X, X[:, ::-1].copy(), batch_size=draw.number(2, 9), verbose=0)
    results = {"losses": history.history["loss"], **named("weight", model.parameters())}
    return (model, f"X {X.shape}", name), results


def quantized_recurrent(draw: Draw, dtype: str, options: Options) -> Told:
    """Run a quantized recurrent layer of any cell, and as a stream, on numbers of any size."""
    cell, large = draw.one_of(*CELLS.values()), draw.number(1, 1000) <= LARGE
    I, H = (draw.size() * (3 if large else 1) for _ in range(2))
    T, B = draw.number(1, 9), draw.one_of(1, draw.size())
    layer = drawn_layer(draw, cell, I, H, dtype, options)
    layer.batch_first = False
    x = draw.array((T, B, I), dtype) * np.float32(draw.one_of(1e-3, 1, 1, 30))
    # Limits of other inputs than the first depend on what floats give.
    known = layer.num_layers == 1 and least(cell, layer._config) > 0
    small = fastrnn.quantize(layer, x / 2 if known and draw.chance(0.5) else None)
    h, *rest = (
        draw.array((layer.num_layers * (1 + layer.bidirectional), B, n), "float32") * np.float32(2)
        for n in (getattr(layer, "proj_size", 0) or H, *[H] * (len(cell.states) - 1))
    )
    calls: dict[str, Any] = {"state": (h, *rest) if rest else h} if draw.chance(0.5) else {}
    if draw.chance(0.3):
        calls["lengths"] = draw.rng.integers(1, T, B, endpoint=True)
    if draw.chance(0.2):
        calls["reset"] = draw.rng.random((T, B)) < 0.2
    y, state_n = small(x, **calls)
    results = {**named("weight", small.state_dict()), "y": y, **named("state", state_n)}
    if not layer.bidirectional:
        stream = small.stream(B)
        for t in range(min(T, 3)):
            results[f"step {t}"] = stream.step(x[t])
    return (repr(small), f"x {x.shape}", *calls), results


def quantized_model(draw: Draw, dtype: str, options: Options) -> Told:
    """Run a quantized model of tokens, and as a stream; and a quantized Linear on its own."""
    V, D, H, B, T = (draw.size() for _ in range(5))
    layers = [
        filled(draw, fastrnn.Embedding(V, D, dtype=dtype)),
        filled(draw, draw.one_of(fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU)(D, H, dtype=dtype)),
        filled(draw, fastrnn.Linear(H, V, bias=draw.chance(0.8), dtype=dtype)),
    ]
    small = fastrnn.quantize(fastrnn.Sequential(layers))
    tokens = draw.rng.integers(0, V, (B, T))
    stream = small.stream(B)
    results = {"y": small.predict(tokens), "step": stream.step(tokens[:, 0])}
    x = draw.array((draw.one_of(1, B, 300), H), dtype)
    calibrated = fastrnn.quantize(layers[2], x / 3)
    return (small, tokens.shape), {**results, "linear": calibrated(x)}


@dataclass(frozen=True)
class Precision:
    """A class of results that are the same bits, whichever kernels compute them.

    Attributes
    ----------
    dtypes : tuple of str
    options : mapping
        Options of every layer.
    kinds : dict of callable to int
        What to run, and how often relative to the others.
    runs : callable
        Returns the kernels of this machine to compare: names, and the environment that selects them
        at the start of a process.
    """

    dtypes: tuple[str, ...]
    options: Options
    kinds: Mapping[Callable[[Draw, str, Options], Told], int]
    runs: Callable[[], dict[str, dict[str, str]]]


def fused_backends() -> dict[str, dict[str, str]]:
    """Return the backends with fused multiply-add."""
    names = [name for name in dispatch.backends() if name in dispatch.FUSED]
    return {name: {"FASTRNN_BACKEND": name} for name in names}


def with_and_without() -> dict[str, dict[str, str]]:
    """Return the backends with fused multiply-add, with and without instructions for bfloat16."""
    found = fused_backends()
    if "avx512" in found and "avx512bf16" in extensions.USED:
        without = {"FASTRNN_WITHOUT": ",".join((*extensions.WITHOUT, "avx512bf16"))}
        found["avx512 without avx512bf16"] = found["avx512"] | without
    return found


def all_backends() -> dict[str, dict[str, str]]:
    """Return all backends, and those with instructions that not every such CPU has, without."""
    found = {name: {"FASTRNN_BACKEND": name} for name in dispatch.backends()}
    for name, instruction in (("avx512", "avx512vnni"), ("avx2", "avxvnni")):
        if name in found and instruction in extensions.USED:
            without = ",".join([*extensions.WITHOUT, instruction])
            found[f"{name} without {instruction}"] = found[name] | {"FASTRNN_WITHOUT": without}
    return found


PRECISIONS = {
    "float": Precision(
        dtypes=("float32", "float64"),
        options={},
        kinds={recurrent: 6, linear: 1, embedding: 1, loss: 1, optimizer: 1, training: 1},
        runs=fused_backends,
    ),
    "bfloat16": Precision(
        dtypes=("float32",),
        options={"matmul_precision": "bfloat16"},
        kinds={recurrent: 6, linear: 1, training: 1},
        runs=with_and_without,
    ),
    "int8": Precision(
        dtypes=("float32", "float64"),
        options={},
        kinds={quantized_recurrent: 3, quantized_model: 1},
        runs=all_backends,
    ),
}


def run(precision: str, number: int) -> tuple[str, Results]:
    """Run a configuration; return its description, and results by name."""
    of, draw = PRECISIONS[precision], Draw(precision, number)
    kind = draw.one_of(*(kind for kind, often in of.kinds.items() for _ in range(often)))
    dtype, before = draw.one_of(*of.dtypes), fastrnn.get_num_threads()
    fastrnn.set_num_threads(draw.number(1, 3))
    try:
        told, results = kind(draw, dtype, of.options)
    finally:
        fastrnn.set_num_threads(before)
    return " ".join([dtype, *map(str, told)]), results


def digest(value: Any) -> str:
    """Return the SHA-256 of dtype, shape and values; all NaN count as equal."""
    array = np.ascontiguousarray(value)
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    about = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(about + array.tobytes()).hexdigest()


def digests(precision: str, number: int) -> dict[str, str]:
    """Return the SHA-256 of each result of a configuration."""
    return {name: digest(value) for name, value in run(precision, number)[1].items()}


def summary(found: Mapping[str, str]) -> str:
    """Return the SHA-256 of all results of a configuration."""
    return hashlib.sha256("\n".join(f"{k} {v}" for k, v in found.items()).encode()).hexdigest()


def _computed(
    precision: str, numbers: Sequence[int], runs: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the digests of configurations, computed by all these kernels at the same time."""
    if [*runs] == [fastrnn.backend()]:  # no need for another process
        yield {str(number): digests(precision, number) for number in numbers}
        return
    asked = json.dumps([precision, [*numbers]])
    with contextlib.ExitStack() as stack:
        processes = []
        for environment in runs.values():
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __spec__.name, asked],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)  # where another one has failed
        for process in processes:
            out, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"a process that computes {precision} configurations failed")
            yield json.loads(out)


@dataclass
class Comparison:
    """Configurations of one class of precision, on the kernels of this machine and in a file.

    Attributes
    ----------
    precision : str
    names : list of str
        What is compared.
    hashes : dict of str to str
        The hash of each configuration, by number, on the first of the kernels.
    different : list of (str, list of str)
        The numbers of configurations that are not equal, with the names of results that differ.
    """

    precision: str
    names: list[str]
    hashes: dict[str, str]
    different: list[tuple[str, list[str]]]

    def __str__(self) -> str:
        count, equal = len(self.hashes), len(self.hashes) - len(self.different)
        text = f"{self.precision}: {equal:,} of {count:,} equal on {', '.join(self.names)}"
        if not self.different:
            return text
        number, names = self.different[0]
        told, _ = run(self.precision, int(number))
        return f"{text}; the first that is not is {number}: {told}\n{', '.join(names)} differ"


def _runs(precision: str, current: bool) -> dict[str, dict[str, str]]:
    """Return the kernels to compare, or the `current` backend if it is one of them."""
    found = PRECISIONS[precision].runs()
    return {name: e for name, e in found.items() if not current or name == fastrnn.backend()}


def compare(
    precision: str, numbers: Sequence[int], expected: Mapping[str, str] | None = None
) -> Comparison:
    """Run configurations on all kernels of a class of precision, or on the current ones.

    Parameters
    ----------
    precision : str
        Key in :data:`PRECISIONS`.
    numbers : sequence of int
        Which configurations.
    expected : mapping of str to str, optional
        Hashes from another machine, with which only the current backend is compared.
    """
    runs = _runs(precision, expected is not None)
    names = [*runs, *(["the file"] if expected is not None else [])]
    found = Comparison(precision, names, {}, [])
    display = Display("configuration")
    display.begin("")
    try:
        for start in range(0, len(numbers), AT_ONCE):
            part = numbers[start : start + AT_ONCE]
            first, *others = _computed(precision, part, runs)
            for number, mine in first.items():
                found.hashes[number] = summary(mine)
                differ = {n for o in others for n, v in mine.items() if o[number].get(n) != v}
                if expected is not None and found.hashes[number] != expected[number]:
                    differ.add("hash")
                if differ:
                    found.different.append((number, sorted(differ)))
            display.update(start + len(part), (start + len(part)) / len(numbers), {})
    finally:
        display.close()
    return found


def _written(path: str) -> dict[str, dict[str, str]]:
    """Return the hashes in a file."""
    try:
        found = reading.from_json(reading.whole(path))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and found) or not all(
        name in PRECISIONS
        and (isinstance(hashes, dict) and hashes)
        and all(map(str.isdecimal, hashes))
        for name, hashes in found.items()
    ):
        raise ValueError(f"{path}: expected a file of `fastrnn bench --bits --save`") from None
    return found


def report(count: int, save: str | None, check: str | None) -> bool:
    """Compare, print, and write or check a file of hashes; return whether all are equal."""
    expected = None if check is None else _written(check)
    written, equal = {}, True
    for precision in PRECISIONS if expected is None else expected:
        if not _runs(precision, expected is not None):
            print(f"{precision}: no such backend here promises these bits", flush=True)
            continue
        numbers = range(count) if expected is None else [*map(int, expected[precision])]
        found = compare(precision, numbers, None if expected is None else expected[precision])
        print(found, flush=True)
        written[precision], equal = found.hashes, equal and not found.different
    if save is not None:
        text = json.dumps(written, indent=0) + "\n"
        atomic.save(save, lambda path: atomic.write(path, text.encode()), "the hashes")
    return equal


if __name__ == "__main__":
    asked, numbers = json.loads(sys.argv[1])
    print(json.dumps({number: digests(asked, number) for number in numbers}))
