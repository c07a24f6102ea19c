"""A fuzzer of everything that can be called, set and changed: clear errors, but never a crash.

python tests/fuzz_walls.py --actions 100000 [--seed N] [--backend NAME]
python tests/fuzz_walls.py --actions 250 --seed N --episode E          repeat the one that crashed

An episode is a series of actions on objects of its own, drawn from the seed and its number. In one
of four, private attributes are set too, and the kernels' arguments are changed between Python's
checks and the call; any exception is accepted there. Elsewhere only those of CLEAR are or, if
another thread changes arrays during the call, an IndexError. Every few actions, layers that were
not touched must still give the same bits.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import inspect
import os
import pickle
import resource
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import fastrnn
from fastrnn import callbacks, forecast, functional, layers, losses, optim, text
from fastrnn._kernels import dispatch
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn.layers.activation import ACTIVATIONS

try:
    from fastrnn import sklearn
except ImportError:
    sklearn = None

#: Exceptions that count as clear errors; a MemoryError is for sizes that do not fit into memory.
CLEAR = (ValueError, TypeError, AttributeError, RuntimeError, MemoryError, OSError)
#: Actions per episode, and between checks of the untouched layers.
EPISODE, CANARY = 250, 25
#: Limit of the address space in bytes, so that huge allocations fail.
SPACE = 6 * 2**30
#: Seconds after which a call counts as hanging.
HANGS = 300
PACKAGE = os.path.dirname(fastrnn.__file__) + os.sep

#: Few sizes, so that arrays and states of one object often fit another.
SIZES = (1, 3, 8)
HUGE = (2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 10**30)
SCALARS = (
    None, True, False, "", "lstm", "float64", b"x", ..., -1, 0, 1, 2, 7, *HUGE, -(2**63), 0.0, -1.0,
    0.5, 1.5, np.nan, np.inf, -np.inf, 1e-320, 1e308, np.float32, int, np.dtype("O"), len,
)  # fmt: skip
CONTAINERS = ([], {}, (), [None], {"a": 1}, (1, 2), [1, [2]], set(), range(3), slice(2))


def subclasses(module: Any, base: type) -> list[Any]:
    """Return the concrete classes of a module."""
    classes = (v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base))
    return [kind for kind in classes if not inspect.isabstract(kind) and kind is not base]


LAYERS = subclasses(layers, layers.Layer)
OPTIMIZERS = subclasses(optim, optim.Optimizer)
CALLBACKS = (callbacks.EarlyStopping, callbacks.ReduceLROnPlateau)
LOSSES = ("mse", "mae", "huber", "cross_entropy", "binary_cross_entropy")
FUNCTIONS = [n.removesuffix("_backward") for n in dir(functional) if n[1:].endswith("_backward")]
TINY = {"hidden_size": 3, "seed": 0, "epochs": 1}
ESTIMATORS: list[tuple[Any, dict[str, Any]]] = [
    (text.CharLM, TINY | {"embedding_dim": 2, "seq_len": 5, "batch_size": 2}),
    (text.TextClassifier, TINY | {"embedding_dim": 2, "min_count": 1}),
    (forecast.Forecaster, TINY | {"window": 4, "steps": 2}),
]
if sklearn:
    kinds = (sklearn.SequenceClassifier, sklearn.SequenceRegressor)
    ESTIMATORS += [(kind, {"hidden_size": 3, "max_epochs": 1}) for kind in kinds]


def canary() -> bytes:
    """Return the results of untouched layers, on the current backend."""
    rng, results = np.random.default_rng(0), []
    for kind, dtype in ((fastrnn.LSTM, "float32"), (fastrnn.GRU, "float64")):
        layer = kind(5, 19, seed=1, dtype=dtype)
        x = rng.normal(size=(7, 6, 5)).astype(dtype)
        y, _, tape = layer.forward(x, lengths=[7, 3, 5, 1, 7, 2])
        dx, _, grads = layer.backward(tape, y)
        params = layer.parameters()
        optim.Adam(clip_norm=1.0).step(params, grads)
        results += [y, dx, *grads.values(), *params.values(), layer.stream(6).step(x[0])]
    z, target = rng.normal(size=(9, 4)), np.arange(9) % 4
    results.append(losses.cross_entropy.value_and_grad(z, target)[1])
    return b"".join(np.ascontiguousarray(a).tobytes() for a in results)


class Chaos(callbacks.Callback):
    """A callback that does random actions in the middle of a fit."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _meddle(self, *args: Any) -> None:
        if self._world.chance(0.3):
            self._world.act()

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _meddle
    on_train_batch_begin = on_train_batch_end = _meddle

    def __reduce__(self) -> tuple[Any, ...]:
        return callbacks.Callback, ()


def arrays_in(value: Any, depth: int = 0) -> list[np.ndarray]:
    """Return the arrays in nested containers."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, RowGradient):
        value = [value.rows, value.values]
    elif isinstance(value, dict):
        value = list(value.values())
    if depth > 3 or not isinstance(value, list | tuple):
        return []
    return [a for item in value[:20] for a in arrays_in(item, depth + 1)]


def shown(value: Any) -> str:
    """Return a short ``repr``; for an array, its dtype and shape."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    if type(value) in (tuple, list):
        return f"({', '.join(map(shown, value))})"
    if type(value) is dict:
        return f"{{{', '.join(f'{key}: {shown(v)}' for key, v in value.items())}}}"
    try:
        return repr(value)[:99]
    except Exception as error:  # of an object that was changed meanwhile
        return f"<{type(value).__name__}: {error}>"[:99]


def unclear_part(error: Exception) -> str:
    """Return the part of fastrnn that raised an error that is not clear; "" of a clear one."""
    frames = traceback.extract_tb(error.__traceback__)
    of = [f for f in frames if f.filename.startswith(PACKAGE)][-2:]
    # Without frames of fastrnn, the fuzzer's own use of NumPy raised it.
    if isinstance(error, CLEAR) or not of:
        return ""
    where = "".join(f"{f.filename.removeprefix(PACKAGE)}:{f.lineno}, " for f in of)
    return f"{where}{type(error).__name__}: {error}"[:200].replace("\n", " ")


class Numbers:
    """Random choices, and good and strange arguments."""

    def __init__(self, rng: np.random.Generator, folder: str) -> None:
        self.rng, self.folder = rng, folder
        self.pools: dict[str, list[Any]] = defaultdict(list)

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, options: Any) -> Any:
        options = list(options)
        return options[self.rng.integers(len(options))]

    def size(self) -> int:
        return int(self.pick(SIZES)) if self.chance(0.9) else int(self.rng.integers(1, 40))

    def rows(self) -> int:
        """Return a number of rows of a batch, which may be none."""
        return 0 if self.chance(0.05) else self.size()

    def keep(self, kind: str, value: Any) -> None:
        pool = self.pools[kind]
        if len(pool) >= 10:
            pool.pop(self.rng.integers(10))
        pool.append(value)

    def some(self, *kinds: str) -> Any:
        """Return an object of one of these kinds."""
        pools = [self.pools[kind] for kind in kinds or self.pools if self.pools[kind]]
        if not pools:
            raise LookupError
        return self.pick(self.pick(pools))

    def normal(self, *shape: int, dtype: Any = "f4") -> np.ndarray:
        return self.rng.normal(size=shape).astype(dtype)

    def twisted(self, a: Any) -> Any:
        """Return the same numbers in an unusual form, or nearly the same numbers."""
        if not isinstance(a, np.ndarray):
            return a
        match self.rng.integers(13):
            case 0:  # misaligned
                raw = np.empty(a.nbytes + 1, np.uint8)[1:]
                raw[...] = np.frombuffer(a.tobytes(), np.uint8)
                return raw.view(a.dtype).reshape(a.shape)
            case 1:
                return a.astype(a.dtype.newbyteorder())
            case 2 if a.ndim:  # backwards
                return np.ascontiguousarray(a[..., ::-1])[..., ::-1]
            case 3 if a.size:
                return np.broadcast_to(a.ravel()[:1].reshape((1,) * a.ndim), a.shape)
            case 4:  # read-only
                return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)
            case 5:
                return np.asfortranarray(a)
            case 6 if a.size:
                # A file of its own: truncating a mapped file would crash any program.
                path = tempfile.mkstemp(".npy", dir=self.folder)[1]
                np.save(path, a)
                return np.load(path, mmap_mode=self.pick("rc"))
            case 7:
                return a.tolist()
            case 8:
                return a.astype(self.pick(["f2", "f8", "f4", "i8", "u1", "?", "O", "c8", "g"]))
            case 9:
                bad = [np.nan, np.inf, -1.0] if a.dtype.kind == "f" else [-1, 2**31, 2**62]
                return np.full(a.shape, self.pick(bad), a.dtype)
            case 10 if a.ndim:
                return np.repeat(a, 2, axis=-1)[..., ::2]
            case 11 if a.ndim:
                return a[..., :-1]
            case _:
                return self.pick([a[None], a.reshape(-1)])

    def strange(self) -> Any:
        """Return an arbitrary object."""
        match self.rng.integers(8):
            case 0 | 1 | 2:
                return self.pick(SCALARS)
            case 3:
                return self.pick(CONTAINERS)
            case 4:
                return self.some()
            case 5:
                shape = tuple(self.size() for _ in range(self.rng.integers(4)))
                return self.twisted(self.normal(*shape).astype(self.pick(["f4", "f8", "i8"])))
            case 6:
                kinds = np.zeros((0, 3)), np.zeros(()), np.zeros(3, [("a", "f4"), ("b", "i8")])
                return self.pick([*kinds, (self.normal(1, 3, 3), self.normal(1, 3, 3))])
            case _:
                return self.row_gradient()

    def row_gradient(self) -> RowGradient:
        n, D, V = (self.size() for _ in range(3))
        rows = self.rng.integers(0, V, n) if self.chance(0.7) else self.rng.integers(-9, 10**9, n)
        return RowGradient(rows, self.normal(n, D, dtype=self.pick(["f4", "f8"])), (V, D))

    def hurt(self, a: Any, racing: bool = False) -> None:
        """Change an array in place, in any way that NumPy allows.

        Except for what breaks NumPy itself: resizing arrays of which the fuzzer has views, or whose
        objects NumPy may be reading.
        """
        resizable = not racing or a.dtype.kind != "O"
        if self.chance(0.2) and isinstance(a.base, np.ndarray):
            a, resizable = a.base, False
        try:
            match self.rng.integers(9):
                case 0:
                    a.shape = self.pick([(-1,), a.shape[::-1], (*a.shape, 1), (1, *a.shape)])
                case 1:
                    a.dtype = self.pick(["f4", "f8", "i4", "i8", "u1", ">f4", ">i8"])
                case 2:
                    a.strides = self.pick([(0,) * a.ndim, a.strides[::-1]])
                case 3 if resizable:
                    a.resize(self.pick([0, 1, a.size // 2, a.size * 2]), refcheck=False)
                case 4 | 5 as flag:
                    a.setflags(write=flag == 5)
                case 6:
                    a[...] = self.pick([-1, 2**31 - 1, 2**40, 2**62, -(2**63)])
                case 7:
                    a.flat[self.rng.integers(max(1, a.size))] = self.pick([-1, 10**9, 2**31])
                case _:
                    a[...] = self.pick([np.nan, np.inf, 1e30])
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError):
            pass

    def arguments(self, kind: Any) -> dict[str, Any]:
        """Return arguments of a constructor, occasionally a strange one."""
        chosen: dict[str, Sequence[Any]] = {
            "num_layers": (1, 2, 3), "proj_size": (0, 1, 2), "p": (0, 0.5, 1), "lr": (0.1, 1e-3),
            "dropout": (0, 0.5, 1), "weight_dropout": (0, 0.5), "dtype": ("f4", "f8"),
            "matmul_precision": ("float32", "bfloat16"),
            "nonlinearity": ("tanh", "relu"), "init": ("uniform", "orthogonal"), "seed": (0,),
            "forget_bias": (1.0,), "momentum": (0, 0.9), "weight_decay": (0, 0.1),
            "clip_norm": (1.0,), "clip_value": (1.0,), "monitor": ("loss",), "patience": (0,),
            "activations": (None, "elu", ["affine", "relu"], ["softplus", "tanh", ("elu", 2)]),
            "clip": (None, 0.5),
        }  # fmt: skip
        arguments: dict[str, Any] = {}
        for name, parameter in inspect.signature(kind).parameters.items():
            needed = parameter.default is parameter.empty
            if self.chance(0.02):
                arguments[name] = self.strange()
            elif needed or self.chance(0.3):
                if name in chosen:
                    arguments[name] = self.pick(chosen[name])
                elif isinstance(parameter.default, bool):
                    arguments[name] = self.chance(0.5)
                elif needed:
                    arguments[name] = self.size()
        return arguments


class World(Numbers):
    """The objects of an episode, and the actions."""

    def __init__(
        self, seed: int, episode: int, folder: str, backends: Any, note: Callable[[str], None]
    ) -> None:
        super().__init__(np.random.default_rng([seed, episode]), folder)
        self.backends, self.note, self.depth = backends, note, 0
        self.private = episode % 4 == 3
        self.raced = False
        self.outcomes: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()
        self.keep("layer", fastrnn.GRU(3, 8))
        self.keep("optimizer", optim.SGD(0.1, momentum=0.9))

    def act(self) -> None:
        """Do one action, and count what it raises."""
        if self.depth > 3:
            return
        name = str(self.rng.choice(list(ACTIONS), p=ODDS))
        self.raced = False
        self.note(f"{'  ' * self.depth}{name}")
        self.depth += 1
        try:
            getattr(self, name)()
            self.outcomes["none"] += 1
        except LookupError as error:
            if type(error) is LookupError:  # raised by `pick`: there is no such object yet
                self.act()
            else:
                self.failed(error)
        except Exception as error:
            self.failed(error)
        finally:
            self.depth -= 1

    def failed(self, error: Exception) -> None:
        kind = type(error).__name__
        self.note(f"    {kind}: {error}"[:300])
        self.outcomes[kind] += 1
        where = unclear_part(error)
        if where and not self.private and not (self.raced and isinstance(error, IndexError)):
            self.unclear[where] += 1

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call; occasionally another thread changes the arguments meanwhile."""
        owner = getattr(function, "__self__", None)
        self.note(f"    {owner!r} {shown(args)} {shown(options)}"[:400].replace("\n", " "))
        if self.depth > 1 or not self.chance(0.15):
            return function(*args, **options)
        weights = list(parameters(owner).values())
        self.raced = True
        arrays, done = arrays_in([*args, options, weights]), threading.Event()
        self.note("    while another thread changes the arrays")

        def change() -> None:
            for _ in range(200):
                if done.is_set() or not arrays:
                    return
                self.hurt(self.pick(arrays), racing=True)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            return function(*args, **options)
        finally:
            done.set()
            thread.join()

    def input_of(self, source: Any, T: int, B: int) -> Any:
        """Return an input of a layer or model, time first, or nearly one."""
        size = getattr(source, "features_in", None) or getattr(source, "input_size", None)
        if getattr(source, "vocabulary", None):
            x = self.rng.integers(0, 3, (T, B))
        else:
            x = self.normal(T, B, size if isinstance(size, int) and 0 < size < 99 else self.size())
            x = x.astype(self.pick(["f4", "f8"]))
        x = x[0] if isinstance(source, tuple(layers.SINGLE_STEPS.values())) else x
        return self.twisted(x) if self.chance(0.2) else x

    # Layers.

    def new_layer(self) -> None:
        kind = self.pick(LAYERS)
        self.keep("layer", self.call(kind, **self.arguments(kind)))

    def call_layer(self) -> None:
        layer = self.some("layer")
        T, B = (33, 40) if self.chance(0.1) else (self.size(), self.rows())
        args, options = [self.input_of(layer, T, B)], {}
        if self.chance(0.3):
            args.append(self.some("state"))
        good = {
            "lengths": self.rng.integers(1, T + 1, B), "reset": self.rng.random((T, B)) < 0.3,
            "checkpoint_every": self.pick([1, 2, 5, *HUGE]),
        }  # fmt: skip
        for name, value in good.items():
            if self.chance(0.15):
                options[name] = value if self.chance(0.7) else self.strange()
        if self.chance(0.3):
            self.keep("state", self.call(layer, *args, **options)[1])
            return
        y, *_, tape = self.call(layer.forward, *args, **options)
        self.keep("tape", (layer, tape, y))
        if _:
            self.keep("state", _[0])

    def backward(self) -> None:
        layer, tape, y = self.some("tape")
        layer = self.some("layer", "model") if self.chance(0.3) else layer
        tape = self.strange() if self.chance(0.1) else tape
        dy = self.pick([self.strange, partial(self.twisted, y)])() if self.chance(0.3) else y
        args = [dy] if self.chance(0.8) else [dy, self.some("state")]
        name = self.pick([n for n in dir(layer) if n.startswith("backward")])
        result = self.call(getattr(layer, name), tape, *args)
        self.keep("grads", (layer, result[-1] if isinstance(result, tuple) else result))

    def call_function(self) -> None:
        name = self.pick(FUNCTIONS)
        if self.chance(0.3) and self.pools["function tape"]:
            tape = self.strange() if self.chance(0.1) else self.some("function tape")
            dy = [self.strange()] if self.chance(0.3) else []
            self.call(getattr(functional, f"{name}_backward"), tape, *dy)
            return
        layer = self.some("layer")
        args = [self.input_of(layer, self.size(), self.size()), None, *parameters(layer).values()]
        args = [self.strange() if self.chance(0.05) else a for a in args[:6]]
        self.keep("function tape", self.call(getattr(functional, name), *args)[-1])

    def change_arrays(self) -> None:
        """Change weights that a layer returned, states, gradients, and data of a fit."""
        held = self.some("layer", "held", "state", "grads")
        weights = parameters(held)
        self.note(f"    {shown(held)}"[:300])
        for a in arrays_in(weights or held)[:3]:
            self.hurt(a)
        if self.chance(0.3):
            self.keep("held", weights)

    def set_attribute(self) -> None:
        target = self.some()
        target = target[0] if isinstance(target, tuple) and target else target
        names = [n for n in dir(target) if self.private or not n.startswith("_")]
        if not self.private and self.chance(0.8):  # methods rarely
            names = [n for n in names if not callable(getattr(type(target), n, None))] or names
        name = self.pick(names or ["nothing"])
        value = getattr(self.some(), name, None) if self.chance(0.3) else self.strange()
        self.note(f"    {type(target).__name__}.{name} = {shown(value)}"[:300])
        if self.chance(0.05):
            delattr(target, name)
        else:
            setattr(target, name, value)

    def change_inside(self) -> None:
        """Change arrays and containers of a private attribute, in such episodes only."""
        target = self.some()
        if not self.private or not getattr(target, "__dict__", None):
            return
        name = self.pick(vars(target))
        value = vars(target)[name]
        self.note(f"    {type(target).__name__}.{name}")
        for a in arrays_in(value):
            self.hurt(a)
        if isinstance(value, dict | list) and value:
            key = self.pick(value) if isinstance(value, dict) else self.rng.integers(len(value))
            value[key] = self.strange()

    def load_state(self) -> None:
        target = self.some("layer", "model", "optimizer", "callback")
        source = self.some("layer", "model", "optimizer") if self.chance(0.5) else target
        state = source.state_dict()
        if isinstance(state, dict) and state and self.chance(0.5):
            name = self.pick(state)
            state[name] = self.strange() if self.chance(0.5) else self.twisted(state[name])
        self.call(target.load_state_dict, state)

    def pickled(self) -> None:
        kind = self.pick(["layer", "model", "optimizer", "tape", "callback", "estimator"])
        target = self.some(kind)
        if self.chance(0.3):
            self.keep(kind, copy.deepcopy(target))
            return
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(target, protocol=5, buffer_callback=buffers.append)
        # Read-only, as from Ray, Dask and joblib's memory maps, or still written to by others.
        taken = [bytes(b) if self.chance(0.5) else bytearray(b) for b in buffers]
        self.keep(kind, pickle.loads(data, buffers=taken))
        for buffer in taken:
            if isinstance(buffer, bytearray):
                buffer[:] = b"\xff" * len(buffer)

    # Streams.

    def new_stream(self) -> None:
        source = self.some("layer", "model")
        B = self.strange() if self.chance(0.1) else self.size()
        self.keep("stream", (self.call(source.stream, B), source, B))

    def step_of(self, source: Any, B: Any) -> Any:
        x = self.input_of(source, 1, B if isinstance(B, int) and 0 < B < 99 else 1)
        return x[0] if isinstance(x, np.ndarray | list) and len(x) else x

    def step_stream(self) -> None:
        stream, source, B = self.some("stream")
        x, out = self.step_of(source, B), None
        if self.chance(0.4):
            out = self.pick([self.strange, partial(np.empty_like, stream.step(x))])()
            out = self.twisted(out) if self.chance(0.2) else out
            x, out = self.overlapping(x, out) if self.chance(0.3) else (x, out)
        for _ in range(self.rng.integers(1, 4)):
            self.call(stream.step, x, out)

    def overlapping(self, x: Any, out: Any) -> tuple[Any, Any]:
        """Return both in one memory, if they are arrays."""
        if not (isinstance(x, np.ndarray) and isinstance(out, np.ndarray) and x.dtype.kind in "fi"):
            return x, out
        memory = np.zeros(x.nbytes + out.nbytes, np.uint8)
        first = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
        first[...] = x
        at = int(self.rng.integers(x.size + 1)) * x.itemsize
        return first, memory[at : at + out.nbytes].view(out.dtype).reshape(out.shape)

    def step_in_two_threads(self) -> None:
        stream, source, B = self.some("stream")
        x, errors = self.step_of(source, B), []

        def run() -> None:
            try:
                for _ in range(5):
                    stream.step(x)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def use_stream(self) -> None:
        stream, _, _ = self.some("stream")
        match self.rng.integers(3):
            case 0:
                self.keep("state", stream.state)
            case 1:
                stream.state = self.strange() if self.chance(0.4) else self.some("state")
            case _:
                rows = self.pick([None, 0, [0], np.arange(2), np.ones(3, bool), (1, 0), [2**40]])
                self.call(stream.reset, rows if self.chance(0.7) else self.strange())

    # Training.

    def new_optimizer(self) -> None:
        kind = self.pick(OPTIMIZERS)
        self.keep("optimizer", self.call(kind, **self.arguments(kind)))

    def new_callback(self) -> None:
        kind = self.pick(CALLBACKS)
        self.keep("callback", self.call(kind, **self.arguments(kind)))

    def step_optimizer(self) -> None:
        layer, grads = self.some("grads") if self.chance(0.7) else (self.some("layer"), None)
        params = dict(parameters(layer))
        if not isinstance(grads, Mapping):
            grads = {n: self.normal(*p.shape).astype(p.dtype) for n, p in params.items()}
        grads = dict(grads)
        if grads and self.chance(0.3):
            grads[self.pick(grads)] = self.pick([self.row_gradient, self.strange])()
        if params and self.chance(0.1):
            params[self.pick(params)] = self.twisted(self.pick(params.values()))
        self.call(self.some("optimizer").step, params, grads)

    def call_loss(self) -> None:
        name, B, T, C = self.pick(LOSSES), self.rows(), self.size(), self.size()
        z = self.normal(B, T, C).astype(self.pick(["f4", "f8"]))
        labels, others = self.rng.integers(0, C, (B, T)), self.rng.random((B, T, C))
        args = [z, labels if name == "cross_entropy" else others]
        args += [self.rng.random((B, T))] if self.chance(0.3) else []
        args = [self.twisted(a) if self.chance(0.2) else a for a in args]
        args = [self.strange() if self.chance(0.05) else a for a in args]
        loss = getattr(losses, name)
        self.call(loss.value_and_grad if self.chance(0.7) else loss, *args)

    def new_model(self) -> None:
        """Make a model of new or existing layers."""
        I, H = self.size(), self.size()
        recurrent = self.pick(layers.RECURRENT.values())
        options = {"return_sequences": self.chance(0.5), "learn_initial_state": self.chance(0.2)}
        chosen = [recurrent(I, H, **options), fastrnn.Linear(H, 3)]
        if self.chance(0.4):
            others = [fastrnn.LayerNorm(H), fastrnn.Normalization(H), fastrnn.Softmax()]
            others.append(fastrnn.Activation(self.pick(list(ACTIVATIONS))))
            chosen.insert(1, self.pick(others))
        if self.chance(0.5):
            chosen = [fastrnn.Embedding(5, I), fastrnn.Dropout(0.3), *chosen]
        if self.chance(0.3):
            chosen = [self.some("layer", "model") for _ in range(self.rng.integers(1, 3))]
        self.keep("model", self.call(fastrnn.Sequential, chosen, seed=self.pick([None, 0])))

    def data_of(self, model: Any) -> tuple[Any, Any, str]:
        """Return X, y and a loss that usually fit."""
        X, loss = (
            self.input_of(model, self.pick([0, 1, 5, 8]), self.pick([1, 4])),
            self.pick(LOSSES),
        )
        try:
            shape = model.predict(X).shape
        except Exception:
            shape = (8, 3)
        labels = loss == "cross_entropy"
        y = self.rng.integers(0, max(1, shape[-1]), shape[:-1]) if labels else np.ones(shape)
        return X, self.twisted(y) if self.chance(0.1) else y, loss

    def fit(self) -> None:
        model = self.some("model")
        X, y, loss = self.data_of(model)
        model.compile(self.some("optimizer") if self.chance(0.7) else "adam", loss)
        options = {"epochs": 2, "batch_size": 4, "verbose": 0, "callbacks": [Chaos(self)]}
        if self.chance(0.2):
            options["callbacks"].append(self.some("callback"))
        if self.chance(0.1):
            name = self.pick([n for n in inspect.signature(model.fit).parameters if n > "a"])
            options[name] = self.strange() if name != "epochs" else 1.5
        self.keep("held", {"X": X, "y": y})
        data = (X, y) if self.chance(0.8) else (self.pick([[(X, y)], lambda: iter([(X, y)] * 3)]),)
        self.call(model.fit, *data, **options)

    def use_model(self) -> None:
        model = self.some("model")
        X, y, loss = self.data_of(model)
        match self.rng.integers(6):
            case 0:
                self.call(model.predict, X)
            case 1:
                model.compile("adam", loss)
                self.call(model.evaluate, X, y)
            case 2:
                z, *_, tape = self.call(model.forward, X)
                self.keep("tape", (model, tape, z))
            case 3:
                repr(model)
            case 4:
                path = os.path.join(self.folder, "m.safetensors")
                model.save(path)
                self.keep("model", fastrnn.load(path))
            case _:
                self.keep("layer", self.pick(model.layers))

    def estimate(self) -> None:
        """Use a small model for one purpose, with short training."""
        if self.chance(0.3) or not self.pools["estimator"]:
            kind, options = self.pick(ESTIMATORS)
            self.keep("estimator", kind(**options))
        target = self.some("estimator")
        X, y, series = self.normal(6, 3, 2), np.arange(6) % 2, self.normal(40)
        if self.chance(0.2):
            X, series = self.twisted(X), self.twisted(series)
        data: dict[str, list[tuple[Any, ...]]] = {
            "fit": [(X, y), (series,), ("ab ba c" * 9,), (["a b", "b"], ["x", "y"])],
            "predict": [(X,), (3,), (["a b"],)],
            "generate": [("a", 5)],
            "bits_per_char": [("ab ba" * 9,)],
            "predict_interval": [(2,)],
            "score": [(X, y)],
        }
        name = self.pick([n for n in data if hasattr(target, n)])
        self.call(getattr(target, name), *self.pick(data[name]))

    # Actions on any object.

    def change_options(self) -> None:
        if self.chance(0.3):
            self.some("layer").train(self.chance(0.5))
            return
        try:
            fastrnn.set_num_threads(self.strange() if self.chance(0.5) else 2)
        finally:
            fastrnn.set_num_threads(self.pick([1, 2]))

    def on_another_backend(self) -> None:
        name = self.pick(self.backends) if self.chance(0.9) else self.strange()
        with fastrnn.use_backend(name):
            self.act()


def parameters(source: Any) -> Mapping[str, np.ndarray]:
    """Return the weights themselves; none if that fails."""
    try:
        return source.parameters()
    except Exception:
        return {}


#: Relative frequencies of the actions.
ACTIONS = {
    "new_layer": 6, "call_layer": 20, "backward": 12, "call_function": 5, "change_arrays": 9,
    "set_attribute": 12, "change_inside": 3, "load_state": 6, "pickled": 5, "new_stream": 4,
    "step_stream": 8, "step_in_two_threads": 2, "use_stream": 4, "new_optimizer": 4,
    "new_callback": 1, "step_optimizer": 10, "call_loss": 6, "new_model": 4, "fit": 4,
    "use_model": 5, "estimate": 0.5, "change_options": 2, "on_another_backend": 4,
}  # fmt: skip
ODDS = [weight / sum(ACTIONS.values()) for weight in ACTIONS.values()]


class Meddled:
    """Kernels whose arguments are changed between the checks in Python and the call."""

    def __init__(self, kernels: Any, worlds: list[World]) -> None:
        self._kernels, self._worlds = kernels, worlds

    def __getattr__(self, name: str) -> Any:
        kernel = getattr(self._kernels, name)
        return partial(self._call, name, kernel) if callable(kernel) else kernel

    def _call(self, name: str, kernel: Any, *args: Any, **options: Any) -> Any:
        if self._worlds and args and self._worlds[0].chance(0.1):
            world, values = self._worlds[0], list(args)
            k = int(world.rng.integers(len(values)))
            values[k] = self._changed(values[k], world)
            world.note(f"        {name} with {shown(values)}, of which {k} was changed"[:500])
            args = tuple(values)
        return kernel(*args, **options)

    def _changed(self, value: Any, world: World) -> Any:
        arrays = arrays_in(value)
        if arrays and world.chance(0.4):
            world.hurt(world.pick(arrays))
            return value
        if isinstance(value, np.ndarray) and world.chance(0.8):
            return world.twisted(value)
        if isinstance(value, list | tuple) and value and world.chance(0.8):
            k = int(world.rng.integers(len(value)))
            return [*value[:k], self._changed(value[k], world), *value[k + 1 :]]
        return world.strange()


def walk(
    args: argparse.Namespace, backends: Sequence[str], note: Callable[[str], None]
) -> tuple[Counter[str], Counter[str]]:
    """Run episodes, each with objects of its own; return outcomes, and unclear errors."""
    wanted = {}
    for name in backends:
        with fastrnn.use_backend(name):
            wanted[name] = canary()
    now: list[World] = []
    real, meddled, threads = dispatch.kernels, {}, fastrnn.get_num_threads()

    def kernels(*args: Any) -> Any:
        returned = real(*args)
        if not now or not now[0].private:
            return returned
        return meddled.setdefault(id(returned), Meddled(returned, now))

    dispatch.kernels = kernels
    outcomes: Counter[str] = Counter()
    unclear: Counter[str] = Counter()
    for start in range(0, args.actions, EPISODE):
        episode = args.episode + start // EPISODE
        note(f"episode {episode}")
        with tempfile.TemporaryDirectory(prefix="walls", ignore_cleanup_errors=True) as folder:
            world = World(args.seed, episode, folder, backends, note)
            for n in range(min(EPISODE, args.actions - start)):
                faulthandler.dump_traceback_later(HANGS, exit=True)
                now[:] = [world]
                world.act()
                now.clear()
                if n % CANARY == 0 and canary() != wanted[fastrnn.backend()]:
                    raise AssertionError("untouched layers gave other numbers")
        fastrnn.set_num_threads(threads)
        outcomes += world.outcomes
        unclear += world.unclear
    faulthandler.cancel_dump_traceback_later()
    return outcomes, unclear


def begin(path: str | None) -> Callable[[str], None]:
    """Set up the process; return what writes lines to a file, if there is to be one."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    sys.setswitchinterval(1e-5)
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which needs more address space
        resource.setrlimit(resource.RLIMIT_AS, (SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if path else None

    def note(line: str) -> None:
        if log is not None:
            os.write(log, f"{line}\n".encode(errors="replace"))

    return note


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episode", type=int, default=0, help="the first one")
    parser.add_argument("--backend", choices=fastrnn.backends(), help="that alone")
    parser.add_argument("--log", help="a file for what is done, written before it is done")
    args = parser.parse_args()
    note = begin(args.log)
    backends = (args.backend,) if args.backend else fastrnn.backends()
    with fastrnn.use_backend(backends[0]):
        outcomes, unclear = walk(args, backends, note)
    through, total = outcomes.pop("none", 0), sum(outcomes.values())
    print(f"{through + total:,} actions, seed {args.seed}, {', '.join(backends)}:")
    print(f"{through:9,} went through\n{total:9,} ended in an error")
    for name, n in outcomes.most_common():
        print(f"{n:9,} {name}")
    for where, n in unclear.most_common():
        print(f"not a clear error, {n} times: {where}")
    sys.exit(bool(unclear))


if __name__ == "__main__":
    main()
