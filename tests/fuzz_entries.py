"""A fuzzer of every public function, class and method: right arguments, and ones that are not.

python tests/fuzz_entries.py --calls 100000 [--seed N] [--backend NAME] [--only PART_OF_NAME]

The list comes from ``fastrnn.__all__`` and the modules in it: an entry for which there are no
arguments here, or whose call never went through, is an error, so that new ones are covered too.
Arguments are drawn by the names of parameters; then some are exchanged for others of another type,
dtype, order, stride, alignment, size, memory or behaviour. Everything but a clear error is counted.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import faulthandler
import importlib
import importlib.util
import inspect
import io
import json
import os
import sys
import tempfile
import types
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import fastrnn
from fastrnn import callbacks, forecast, functional, layers, losses, optim, text
from fastrnn.models.stream import ModelStream

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fuzz_walls import HANGS, Numbers, arrays_in, begin, canary, shown, unclear_part

#: For layers of one's own and parts of models, which the caller must have checked: any exception
#: will do, but no crash. So too for the hooks that `fit` calls.
INNER = {"on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end",
         "on_train_begin", "on_train_end",
         "apply", "apply_forward", "apply_backward", "stage", "compute", "checked_target",
         "target_shape", "least_weights", "load_state_dict", "add"}  # fmt: skip
#: Parameters of which a huge number is honest work, but for hours.
LONG = {"length", "epochs"}
#: Entries that draw, and those for which there has to be a training.
LEFT_OUT = {
    "fastrnn.models.history.History.plot",
    "fastrnn.forecast.forecaster.Forecaster.plot",
    *(f"fastrnn.models.checkpoint.Checkpoint.on_{name}" for name in ("train_begin", "epoch_end")),
}
#: Classes whose objects come from methods.
UNMADE_NAMES = {"fastrnn.onnx.model.Model"}
UNMADE = (layers.Stream, ModelStream, layers.Layer, losses.Loss, optim.Optimizer)


class Entry(NamedTuple):
    """A public function or class, or a method of public classes."""

    name: str
    function: Callable[..., Any]
    owners: tuple[type, ...]


def modules() -> Iterator[types.ModuleType]:
    """Return the public modules whose packages are installed."""
    yield fastrnn
    for name in (*fastrnn.__all__, *fastrnn._EXTRAS):
        with contextlib.suppress(ImportError):
            yield importlib.import_module(f"fastrnn.{name}")


def of_package(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("fastrnn")


def entries() -> dict[str, Entry]:
    """Return all entry points by name; an inherited method once, by the class that defines it."""
    found: dict[str, Entry] = {}
    kinds: list[type] = [ModelStream]

    def add(function: Any, *owners: type) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        known = found[name].owners if name in found else ()
        found[name] = Entry(name, function, (*known, *owners))

    for module in modules():
        for name in getattr(module, "__all__", None) or dir(module):
            thing = getattr(module, name, None)
            if name[0] == "_" or not of_package(thing):
                continue
            if isinstance(thing, type):
                kinds.append(thing)
            elif isinstance(thing, losses.Loss):
                kinds.append(type(thing))
            elif callable(thing) and hasattr(thing, "__qualname__"):
                add(thing)
    for kind in dict.fromkeys(kinds):
        named = f"{kind.__module__}.{kind.__qualname__}"
        if not inspect.isabstract(kind) and kind not in UNMADE and named not in UNMADE_NAMES:
            add(kind)
        for name in dir(kind):
            if name[0] == "_" and name != "__call__":
                continue
            method = inspect.getattr_static(kind, name)
            method = getattr(method, "__func__", method)
            abstract = inspect.isabstract(kind) or getattr(method, "__isabstractmethod__", False)
            if inspect.isfunction(method) and of_package(method) and not abstract:
                add(method, kind)
    return found


class Liar:
    """Says that it is an array of a shape, and gives another, or changes others on the way."""

    def __init__(self, scene: Scene, a: Any) -> None:
        self._scene, self._a = scene, a

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        for other in self._scene.held[:3]:
            self._scene.hurt(other)
        return np.asarray(self._a, dtype)

    def __len__(self) -> int:
        return int(self._scene.pick([0, 1, 3, 2**40]))

    def __index__(self) -> int:
        return int(self._scene.pick([-1, 0, 3, 2**31, 2**62]))

    __int__ = __index__

    def __float__(self) -> float:
        return float(self._scene.pick([np.nan, np.inf, -1.0, 0.5]))

    def __iter__(self) -> Iterator[Any]:
        yield from self._a if np.ndim(self._a) else [self._a]


class Shape(np.ndarray):
    """A subclass of arrays."""


class Scene(Numbers):
    """Sizes and objects of one call, and right arguments for it, by name."""

    def __init__(self, rng: np.random.Generator, folder: str) -> None:
        super().__init__(rng, folder)
        self.T, self.B, self.I, self.H, self.V = (int(n) for n in rng.integers(2, 9, 5))
        self.dtype = self.pick(["f4", "f4", "f8"])
        self.held: list[np.ndarray] = []
        self.fixed: list[Any] = []  # NumPy does not resize arrays with weak references

    def numbers(self, *shape: int) -> np.ndarray:
        return self.normal(*shape, dtype=self.dtype)

    def path(self, name: str = "") -> str:
        return os.path.join(self.folder, name or f"{self.rng.integers(10**9)}.safetensors")

    # Objects, one of each class.

    def made(self, kind: type) -> Any:
        """Return an object of a public class, in the state that its methods need."""
        own = MADE.get(kind.__name__)
        if own:
            return own(self)
        if issubclass(kind, callbacks.Callback):
            return self.callback(kind)
        return kind(**self.options(kind))

    def options(self, kind: type) -> dict[str, Any]:
        """Return the arguments that a constructor needs, and some of the others."""
        chosen = {}
        if kind.__module__.startswith("fastrnn.torch."):  # with torch's own arguments
            return {"input_size": self.I, "hidden_size": self.H}
        for name, p in inspect.signature(kind).parameters.items():
            if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                continue
            if p.default is p.empty or (name in OPTIONS and self.chance(0.3)):
                chosen[name] = (GOOD.get(f"{kind.__name__}:{name}") or GOOD[name])(self, None)
            elif name in ("dtype", "seed"):
                chosen[name] = self.dtype if name == "dtype" else 0
        return chosen

    @cached_property
    def model(self) -> Any:
        """A compiled model, whose callbacks have been called."""
        chain = [fastrnn.GRU(self.I, self.H, return_sequences=False), fastrnn.Linear(self.H, 2)]
        model = fastrnn.Sequential(chain, seed=0)
        model.compile("adam", "mse")
        return model

    @cached_property
    def inputs(self) -> np.ndarray:
        return self.numbers(6, self.T, self.I)

    @cached_property
    def y(self) -> np.ndarray:
        return self.numbers(6, 2)

    @cached_property
    def labels(self) -> np.ndarray:
        return np.arange(6) % 2

    @cached_property
    def series(self) -> np.ndarray:
        return np.sin(np.arange(40.0)) + self.normal(40)

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        return {"a": self.numbers(self.H, self.I), "b": self.numbers(self.H)}

    @property
    def onnx(self) -> Any:
        return importlib.import_module("fastrnn.onnx")

    @cached_property
    def tokens(self) -> Any:
        """A model from tokens to a logit for each."""
        chain = [fastrnn.Embedding(7, 3), fastrnn.GRU(3, 5), fastrnn.Linear(5, 7)]
        return fastrnn.Sequential(chain, seed=0)

    def estimator(self, name: str, y: Any) -> Any:
        from fastrnn import sklearn

        return getattr(sklearn, name)(hidden_size=3, max_epochs=1).fit(self.inputs, y)

    def target(self, loss: Any) -> np.ndarray:
        labels = self.rng.integers(0, self.H, self.B)
        return (
            labels
            if isinstance(loss, losses.CrossEntropy)
            else self.rng.random((self.B, self.H)).astype(self.dtype)
        )

    def callback(self, kind: Any) -> Any:
        """Return a callback that a training has used."""
        given = kind(**self.options(kind))
        if hasattr(given, "monitor"):
            given.monitor = "loss"
        self.model.fit(self.inputs, self.y, epochs=1, callbacks=[given], verbose=0)
        return given

    # Arguments.

    def input_of(self, target: Any) -> Any:
        """Return what a layer or stream takes."""
        if isinstance(target, layers.Embedding):
            return self.rng.integers(0, target.num_embeddings, (self.T, self.B))
        size = getattr(target, "features_in", None) or getattr(target, "input_size", self.I)
        if isinstance(target, fastrnn.Sequential):
            return self.numbers(self.B, self.T, self.I)
        if isinstance(target, tuple(layers.SINGLE_STEPS.values())):
            return self.numbers(self.B, size)
        if getattr(target, "batch_first", False):
            return self.numbers(self.B, self.T, size)
        return self.numbers(self.T, self.B, size)

    def run(self, target: Any) -> tuple[Any, ...]:
        """Return output, perhaps states, and tape."""
        return tuple(target.forward(self.input_of(target)))

    def known(self, entry: Entry, name: str) -> Right | None:
        """Return what makes right arguments for a parameter: the entry's own, or the name's."""
        parts = entry.name.split(".")
        own = (GOOD.get(f"{'.'.join(parts[k:])}:{name}") for k in range(len(parts)))
        return next(filter(None, own), None) or GOOD.get(name)

    def argument(self, entry: Entry, name: str, target: Any) -> Any:
        found = self.known(entry, name)
        if found is None:
            raise LookupError(f"{entry.name}: no arguments for {name!r}: add them to GOOD")
        return found(self, target)

    def some_of(self, names: list[str]) -> list[str]:
        """Return one or two of them."""
        return [] if not names else [*{self.pick(names) for _ in range(self.rng.integers(1, 3))}]

    # Wrong arguments, or right ones in another form.

    def changed(self, value: Any) -> Any:
        """Return another argument instead of this one."""
        if isinstance(value, dict) and value and self.chance(0.5):
            key = self.pick(value)
            return value | {key: self.changed(value[key])}
        if isinstance(value, list | tuple) and value and self.chance(0.5):
            k = int(self.rng.integers(len(value)))
            return (
                type(value)([*value[:k], self.changed(value[k]), *value[k + 1 :]])
                if type(value) in (list, tuple)
                else [*value]
            )
        if isinstance(value, np.ndarray) and self.chance(0.8):
            found = self.twisted(value) if self.chance(0.4) else self.bent(value)
            if isinstance(found, np.ndarray | memoryview):  # perhaps a view: see hurt
                seen = np.asarray(found)
                self.fixed += [weakref.ref(a) for a in self.held if np.may_share_memory(a, seen)]
            return found
        return self.strange() if self.chance(0.8) else Liar(self, value)

    def bent(self, a: np.ndarray) -> Any:
        """Return an array in memory that few others have, or an object that becomes one."""
        huge = np.lib.stride_tricks.as_strided
        shape = self.pick([(2**20, 2**9, 5), (2**58,), (2**28, *a.shape), (*a.shape, 2**28)])
        match self.rng.integers(14):
            case 0:  # a huge array in little memory
                return huge(np.zeros(1, a.dtype), shape, (0,) * len(shape))
            case 1:
                return huge(np.zeros(1, a.dtype), a.shape, (0,) * a.ndim, writeable=True)
            case 2:
                return a[tuple(slice(None, None, -1) for _ in a.shape)]
            case 3:
                return a.view(Shape)
            case 4:
                return np.ma.masked_array(a, a == a.flat[:1]) if a.size else np.ma.array(a)
            case 5:  # with the memory of another argument
                others = [b for b in self.held if b.nbytes >= a.nbytes and b.flags.c_contiguous]
                if not others:
                    return a
                raw = self.pick(others).reshape(-1).view(np.uint8)
                return raw[: a.nbytes].view(a.dtype).reshape(a.shape)
            case 6:
                return memoryview(np.ascontiguousarray(a))
            case 7:
                return array.array("f", np.ravel(a).astype("f8").tolist()) if a.size < 99 else a
            case 8:
                return np.zeros(self.pick([(0,), (0, 0, 0), (0, *a.shape), (*a.shape, 0)]), a.dtype)
            case 9:
                return a[..., None][..., 0] if a.ndim else a
            case 10:
                return a.swapaxes(0, -1) if a.ndim else a
            case 11:
                return iter(a) if a.ndim else a
            case 12:
                return np.array([*a], dtype=object) if a.ndim == 1 else a.astype("O")
            case _:
                return Liar(self, a)


class Own(fastrnn.Layer):
    """A layer of one's own."""

    def forward(self, x: Any) -> Any:
        return x * 2, None

    def backward(self, tape: Any, dy: Any) -> Any:
        return dy * 2, {}


class Trial:
    """As of Optuna."""

    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False


def squares(y_true: Any, y_pred: Any) -> Any:
    return ((y_pred - y_true) ** 2).mean(), 2 * (y_pred - y_true) / y_true.size


def state_of(s: Scene, target: Any) -> Any:
    """Return a state that a layer or stream has, or None."""
    if isinstance(target, layers.Layer) and target.has_state and s.chance(0.5):
        _y, *state, tape = s.run(target)
        return state[0] if state else tape.state  # models give it with the tape
    return None


def tape_of(s: Scene, target: Any) -> Any:
    return s.run(target)[-1]


def like_output(s: Scene, target: Any) -> Any:
    return s.numbers(*np.shape(s.run(target)[0]))


def like_state(s: Scene, target: Any) -> Any:
    if not isinstance(target, tuple(layers.SINGLE_STEPS.values())):
        return None
    state = s.run(target)[0]
    return (
        tuple(s.numbers(*h.shape) for h in state)
        if type(state) is tuple
        else s.numbers(*state.shape)
    )


def weights_of(s: Scene, gates: int) -> dict[str, np.ndarray]:
    G = gates * s.H
    shapes = {"weight_ih": (G, s.I), "weight_hh": (G, s.H), "bias_ih": (G,), "bias_hh": (G,)}
    return {name: s.numbers(*shape) for name, shape in shapes.items()}


def functions() -> dict[str, Callable[[Scene, Any], Any]]:
    """Return right arguments of the functions of `functional`."""
    found: dict[str, Callable[[Scene, Any], Any]] = {}
    for name, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):

        def state(s: Scene, _: Any, several: bool = name == "lstm") -> Any:
            h = s.numbers(s.B, s.H)
            return (h, s.numbers(s.B, s.H)) if several else h

        def tape(s: Scene, _: Any, name: str = name, gates: int = gates, state: Any = state) -> Any:
            x = s.numbers(s.T, s.B, s.I)
            return getattr(functional, name)(x, state(s, _), *weights_of(s, gates).values())[-1]

        found |= {f"{name}:h0": state, f"{name}:state": state, f"{name}_backward:tape": tape}
        found |= {
            f"{name}:reset_after": lambda s, _: True,
            f"{name}:nonlinearity": OPTIONS["nonlinearity"],
        }
        for of in ("dh_n", "dstate"):
            found[f"{name}_backward:{of}"] = state
        found[f"{name}_backward:dy"] = lambda s, _: s.numbers(s.T, s.B, s.H)
        for weight in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            found[f"{name}:{weight}"] = lambda s, _, w=weight, g=gates: weights_of(s, g)[w]
    return found


def model_file(s: Scene, _: Any) -> str:
    s.model.save(s.path("saved"))
    return s.path("saved")


def saved(s: Scene, target: Any) -> str:
    target.save(s.path("saved"))
    return s.path("saved")


def keras_file(s: Scene, _: Any) -> str:
    import h5py

    layer = {"class_name": "Dense", "config": {"name": "d", "units": 3, "use_bias": False}}
    model = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
    with h5py.File(s.path("saved.h5"), "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(model), "2.15.0"
        group = file.create_group("model_weights/d")
        group.attrs["weight_names"], group["w"] = [b"w"], s.normal(s.I, 3)
    return s.path("saved.h5")


def frame(s: Scene, _: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"id": [1, 1, 2, 2], "v": s.numbers(4), "label": [0, 0, 1, 1]})


def tensor(s: Scene, target: Any) -> Any:
    import torch

    cell = "Cell" in type(target).__name__
    return torch.from_numpy(s.normal(*(() if cell else (s.T,)), s.B, target.input_size))


def torch_module(s: Scene, _: Any) -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.GRU(s.I, s.H))


def graph(s: Scene, _: Any = None) -> Any:
    """Return an ONNX model, and its bytes as `graph(s).SerializeToString()`."""
    import onnx

    s.onnx.save(fastrnn.LSTM(s.I, s.H), s.path("saved.onnx"))
    return onnx.load(s.path("saved.onnx"))


def node(s: Scene, _: Any) -> Any:
    import onnx

    return onnx.helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=s.H)


def dask_array(s: Scene, _: Any) -> Any:
    import dask.array as da

    return da.from_array(s.inputs, chunks=(4, *s.inputs.shape[1:]))


def lstm_of_tutorials(s: Scene, gates: int = 4) -> dict[str, np.ndarray]:
    weights = weights_of(s, gates)
    return {name: weights[name] for name in ("weight_ih", "weight_hh", "bias_ih")}


Right = Callable[["Scene", Any], Any]
#: Right values of parameters that have a default, by name.
OPTIONS: dict[str, Right] = {
    "num_layers": lambda s, _: s.pick([1, 2]), "bias": lambda s, _: s.chance(0.5),
    "batch_first": lambda s, _: s.chance(0.5), "dropout": lambda s, _: 0.0,
    "momentum": lambda s, _: 0.5, "weight_decay": lambda s, _: 0.1, "clip_norm": lambda s, _: 1.0,
    "clip_value": lambda s, _: 1.0, "delta": lambda s, _: 0.5, "patience": lambda s, _: 1,
    "p": lambda s, _: 0.5, "nonlinearity": lambda s, _: "relu", "clip": lambda s, _: 0.5,
    "state": state_of, "lengths": lambda s, _: None, "reset": lambda s, _: None,
    "dstate": like_state, "y": lambda s, _: s.y, "epochs": lambda s, _: 1,
    "verbose": lambda s, _: 0, "batch_size": lambda s, _: s.B, "train:mode": lambda s, _: True,
    "keepdims": lambda s, _: s.chance(0.5), "layout": lambda s, _: "columns",
    "temperature": lambda s, _: 0.5, "top_k": lambda s, _: 2, "never": lambda s, _: 1,
    "seed": lambda s, _: 0, "prefix": lambda s, _: "", "strict": lambda s, _: True,
    "for_update": lambda s, _: s.chance(0.5), "input_gradient": lambda s, _: s.chance(0.5),
    "checkpoint_every": lambda s, _: 2, "device": lambda s, _: "CPU",
}  # fmt: skip
#: Right values by the name of a parameter, or of a function or class and its parameter.
GOOD: dict[str, Right] = OPTIONS | functions() | {
    # Constructors.
    "input_size": lambda s, _: s.I, "hidden_size": lambda s, _: s.H,
    "in_features": lambda s, _: s.I, "out_features": lambda s, _: s.H,
    "num_embeddings": lambda s, _: s.V, "embedding_dim": lambda s, _: s.I,
    "normalized_shape": lambda s, _: s.I, "Activation:function": lambda s, _: "tanh",
    "FunctionLoss:function": lambda s, _: squares, "lr": lambda s, _: 0.1,
    "gamma": lambda s, _: 0.9, "step_size": lambda s, _: 3,
    "CosineDecay:steps": lambda s, _: 5, "WarmUp:steps": lambda s, _: 5,
    "after": lambda s, _: 0.1, "layers": lambda s, _: [fastrnn.GRU(s.I, s.H), Own()],
    "with_layers:layers": lambda s, t: [*t.layers], "origins": lambda s, _: np.arange(3),
    "actual": lambda s, _: s.normal(3, 2), "forecasts": lambda s, _: {"a": s.normal(3, 2)},
    "name": lambda s, _: "a", "values": lambda s, _: s.normal(3), "error": lambda s, _: None,
    "seconds": lambda s, _: 1.0, "characters": lambda s, _: 2, "loss": lambda s, _: 0.5,
    "validation_bits": lambda s, _: 1.0, "class_name": lambda s, _: "LSTM",
    "config": lambda s, t: t.get_config(), "KerasLayer:config": lambda s, _: {},
    "least_weights:config": lambda s, t: t.get_config(),
    # Layers.
    "x": lambda s, t: s.input_of(t), "tape": tape_of, "dy": like_output,
    "apply_backward:tape": lambda s, t: t.apply_forward(s.input_of(t))[-1],
    "apply_backward:dy": lambda s, t: s.numbers(*t.apply(s.input_of(t))[0].shape),
    "features": lambda s, t: getattr(t, "input_size", None) or getattr(t, "features_in", 0) or s.I,
    "dtype": lambda s, _: np.dtype(s.dtype), "mapping": lambda s, t: t.state_dict(),
    "adapt:X": lambda s, _: s.inputs, "inverse:y": lambda s, t: s.input_of(t),
    "rows": lambda s, _: 0,
    "x_t": lambda s, t: s.numbers(s.B, s.I), "out": lambda s, t: s.numbers(s.B, t.out_size),
    "logits": lambda s, _: s.numbers(7), "draws": lambda s, _: s.rng.random(4),
    # Functions, models, estimators.
    "n": lambda s, _: 1, "use_backend:name": lambda s, _: fastrnn.backend(),
    "model": lambda s, _: s.model, "calibration": lambda s, _: s.inputs,
    "path": lambda s, _: s.path(),
    "load:path": model_file, "keras.models.load:path": keras_file, "Model.load:path": saved,
    "X": lambda s, _: s.inputs,
    "optimizer": lambda s, _: "sgd", "compile:loss": lambda s, _: "mse",
    "SequenceClassifier.fit:y": lambda s, _: s.labels, "partial_fit:y": lambda s, _: s.labels,
    "SequenceClassifier.score:y": lambda s, _: s.labels, "deep": lambda s, _: True,
    "SequenceClassifier.partial_fit:classes": lambda s, _: [0, 1],
    "SequenceRegressor.fit:y": lambda s, _: s.y, "SequenceRegressor.score:y": lambda s, _: s.y,
    "SequenceRegressor.partial_fit:y": lambda s, _: s.y,
    "from_frame:features": lambda s, _: ["v"],
    "df": frame, "group": lambda s, _: "id", "target": lambda s, _: "label",
    "series": lambda s, _: s.series, "horizon": lambda s, _: 2, "level": lambda s, _: 0.8,
    "text": lambda s, _: "ab ba c" * 9, "prompt": lambda s, _: "ab", "length": lambda s, _: 4,
    "texts": lambda s, _: ["a b", "b", "c a", "b"], "labels": lambda s, _: list("xyxy"),
    "trial": lambda s, _: Trial(), "epoch": lambda s, _: 0, "batch": lambda s, _: 0,
    "logs": lambda s, _: {"loss": 1.0, "val_loss": 2.0}, "names": lambda s, _: None,
    "load_state_dict:state": lambda s, t: t.state_dict(),
    # Losses, optimizers, schedules, layouts.
    "output": lambda s, _: s.numbers(s.B, s.H), "weight": lambda s, _: s.rng.random(s.B),
    "Loss.__call__:target": lambda s, t: s.target(t),
    "value_and_grad:target": lambda s, t: s.target(t),
    "checked_target:target": lambda s, t: s.target(t), "checked_target:name": lambda s, _: "target",
    "checked_target:weight": lambda s, _: None,
    "FunctionLoss.value_and_grad:weight": lambda s, _: None,
    "compute:z": lambda s, _: s.numbers(s.B, s.H),
    "compute:t": lambda s, t: s.target(t), "compute:w": lambda s, _: None,
    "shape": lambda s, _: (s.B, s.H), "params": lambda s, _: s.params,
    "grads": lambda s, _: {name: p * 2 for name, p in s.params.items()},
    "max_norm": lambda s, _: 1.0, "step": lambda s, _: 3,
    "unpack_lstm:grads": lambda s, _: lstm_of_tutorials(s),
    "unpack_rnn:grads": lambda s, _: lstm_of_tutorials(s, 1),
    "W_xh": lambda s, _: s.numbers(s.H, s.I), "W_hh": lambda s, _: s.numbers(s.H, s.H),
    "operator": lambda s, _: "LSTM", "layer": lambda s, _: fastrnn.LSTM(s.I, s.H),
    "pack_keras:layer": lambda s, _: "LSTM", "unpack_keras:layer": lambda s, _: "LSTM",
    "W": lambda s, _: s.numbers(4 * s.H, s.I), "R": lambda s, _: s.numbers(4 * s.H, s.H),
    "B": lambda s, _: s.numbers(8 * s.H), "P": lambda s, _: s.numbers(3 * s.H),
    "weights": lambda s, _: [s.numbers(n, 4 * s.H) for n in (s.I, s.H)],
    "unpack_keras:weights": lambda s, _: weights_of(s, 4), "layer_class_name": lambda s, _: "LSTM",
    "unpack_onnx:weights": lambda s, _: weights_of(s, 4),
    "forecast:forecaster": lambda s, _: MADE["Forecaster"](s),
    "forecast:series": lambda s, _: {"a": s.series}, "dask.prediction.predict:X": dask_array,
    # With packages that may be missing.
    "input": tensor, "module": torch_module,
    "path_or_bytes": lambda s, _: graph(s).SerializeToString(),
    "Backend.is_compatible:model": graph, "Backend.prepare:model": graph, "node": node,
    "inputs": lambda s, _: [
        s.normal(*n) for n in ((s.T, s.B, s.I), (1, 4 * s.H, s.I), (1, 4 * s.H, s.H))
    ],
    "output_names": lambda s, _: None,
    "input_feed": lambda s, t: {t.inputs[0].name: s.normal(s.T, s.B, t.inputs[0].shape[-1])},
} | {f"W_{g}": lambda s, _: s.numbers(s.H, s.H + s.I) for g in "fiCo"} \
  | {"pack_rnn:b_h": lambda s, _: s.numbers(s.H)}  # fmt: skip
#: Further arguments by keyword.
MORE: dict[str, Right] = {
    "Model.__call__": lambda s, t: {t.inputs[0].name: s.normal(s.T, s.B, t.inputs[0].shape[-1])},
    "Layer.__call__": lambda s, t: {"x": s.input_of(t)},
    "from_weights": lambda s, _: {"units": s.H},
    "Sequential.evaluate": lambda s, _: {"y": s.y},  # optional only where X gives batches
    "Sequential.fit": lambda s, _: {"y": s.y},
    "Settings.set_params": lambda s, _: {"hidden_size": 3},
}
#: Objects with the state that their methods need, by the name of their class.
MADE: dict[str, Callable[[Scene], Any]] = {
    "Layer": lambda s: Own(),
    "Normalization": lambda s: fastrnn.Normalization(s.I, dtype=s.dtype),
    "Stream": lambda s: fastrnn.GRU(s.I, s.H, dtype=s.dtype).stream(s.B),
    "ModelStream": lambda s: s.tokens.stream(),
    "Sequential": lambda s: s.model,
    "History": lambda s: s.model.fit(s.inputs, s.y, verbose=0),
    "Forecaster": lambda s: forecast.Forecaster(
        hidden_size=3, epochs=1, window=4, steps=2, seed=0
    ).fit(s.series),
    "Backtest": lambda s: MADE["Forecaster"](s).backtest(horizon=2),
    "CharLM": lambda s: text.CharLM(
        hidden_size=3, epochs=1, embedding_dim=2, seq_len=5, batch_size=2
    ).fit("ab ba c" * 9, verbose=0),
    "TextClassifier": lambda s: text.TextClassifier(
        hidden_size=3, epochs=1, embedding_dim=2, min_count=1
    ).fit(["a b", "b", "c a", "b"], list("xyxy"), verbose=0),
    "SequenceClassifier": lambda s: s.estimator("SequenceClassifier", s.labels),
    "SequenceRegressor": lambda s: s.estimator("SequenceRegressor", s.y),
    "FunctionLoss": lambda s: losses.FunctionLoss(squares),
    "Optimizer": lambda s: optim.Adam(),
    "Model": lambda s: s.onnx.load(graph(s).SerializeToString(), as_graph=True),
}
#: Packages without which a function raises ImportError.
NEEDS = {
    "fastrnn.dask.": "dask",
    "fastrnn.keras.models.": "h5py",
    "fastrnn.sklearn.frames.": "pandas",
}


class Fuzz:
    """Calls of all entry points, and what came of them."""

    def __init__(self, seed: int, folder: str, note: Callable[[str], None]) -> None:
        self.seed, self.folder, self.note = seed, folder, note
        self.pools: dict[str, list[Any]] = defaultdict(list, {"any": [fastrnn.GRU(3, 8)]})
        self.through: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()
        self.bad: dict[str, str] = {}

    def call(self, entry: Entry, n: int) -> None:
        """Call once; the first calls of each entry have right arguments."""
        rng = np.random.default_rng([self.seed, n, *entry.name.encode()])
        scene, right = Scene(rng, self.folder), n < 3
        scene.pools = self.pools
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                function, args = self.prepared(scene, entry)
        except Exception as error:  # such as of sizes that do not fit together
            self.bad[entry.name] = f"{type(error).__name__}: {error}"
            return
        changed = [] if right or scene.chance(0.05) else scene.some_of([*args])
        scene.keep("any", scene.pick([function, *args.values()]))
        scene.held = arrays_in(args)
        for name in changed:
            args[name] = scene.changed(args[name])
            if name in LONG and not isinstance(args[name], str | float | None):
                args[name] = scene.pick([-1, 0, 1.5, "2", None, True])
        self.note(f"{entry.name} {n} {shown(args)}, changed: {changed}"[:600].replace("\n", " "))
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                result = function(**args)
                if isinstance(result, contextlib.AbstractContextManager):
                    with result:
                        pass
            self.through[entry.name] += 1
            self.outcomes["none"] += 1
        except Exception as error:
            self.failed(entry, error, right)

    def prepared(self, scene: Scene, entry: Entry) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return what to call, and right arguments by name."""
        function, target = entry.function, None
        if entry.owners:
            target = scene.made(scene.pick(entry.owners))
            function = getattr(target, entry.function.__name__)
        if isinstance(function, type):
            return function, scene.options(function)
        args = {}
        for name, p in inspect.signature(function).parameters.items():
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and (
                p.default is p.empty
                or (scene.known(entry, name) and scene.chance(0.5))
                or name == "verbose"
            ):
                args[name] = scene.argument(entry, name, target)
        more = MORE.get(entry.function.__qualname__)
        return function, args | (more(scene, target) if more else {})

    def failed(self, entry: Entry, error: Exception, right: bool) -> None:
        kind = type(error).__name__
        self.outcomes[kind] += 1
        self.note(f"    {kind}: {error}"[:300].replace("\n", " "))
        if right:
            self.bad[entry.name] = f"{kind}: {error}"
        where = unclear_part(error)
        if where and entry.name.rpartition(".")[2] not in INNER:
            self.unclear[f"{entry.name}: {where}"] += 1


def needed(name: str) -> str:
    return next((package for prefix, package in NEEDS.items() if name.startswith(prefix)), "")


def run(args: argparse.Namespace, note: Callable[[str], None]) -> Fuzz:
    """Call the entries in turn."""
    found = {n: e for n, e in entries().items() if n not in LEFT_OUT and args.only in n}
    for name in [*found]:
        package = needed(name)
        if package and importlib.util.find_spec(package) is None:
            del found[name]
    wanted, threads = canary(), fastrnn.get_num_threads()
    with (
        tempfile.TemporaryDirectory(prefix="entries", ignore_cleanup_errors=True) as folder,
        contextlib.ExitStack() as moved,
    ):
        moved.enter_context(contextlib.chdir(folder))  # strings are paths
        fuzz = Fuzz(args.seed, folder, note)
        for n in range(max(1, args.calls // len(found))):
            for entry in found.values():
                faulthandler.dump_traceback_later(HANGS, exit=True)
                fuzz.call(entry, n)
                fastrnn.set_num_threads(threads)
            if canary() != wanted:
                raise AssertionError("untouched layers gave other numbers")
    faulthandler.cancel_dump_traceback_later()
    fuzz.bad = {name: said for name, said in fuzz.bad.items() if not fuzz.through[name]}
    fuzz.bad |= {
        name: "never went through"
        for name in found
        if not fuzz.through[name] and name not in fuzz.bad
    }
    return fuzz


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=fastrnn.backends(), default=fastrnn.backend())
    parser.add_argument("--only", default="", help="entries with this in their name")
    parser.add_argument("--log", help="a file for each call, written before it is made")
    args = parser.parse_args()
    note = begin(args.log)
    with fastrnn.use_backend(args.backend):
        fuzz = run(args, note)
    through, total = fuzz.outcomes.pop("none", 0), sum(fuzz.outcomes.values())
    n = len(fuzz.through)
    print(f"{through + total:,} calls of {n} entries, seed {args.seed}, {args.backend}:")
    print(f"{through:9,} went through")
    for name, n in fuzz.outcomes.most_common():
        print(f"{n:9,} {name}")
    for name, said in fuzz.bad.items():
        print(f"not covered: {name}: {said}")
    for where, n in fuzz.unclear.most_common():
        print(f"not a clear error, {n} times: {where}")
    sys.exit(bool(fuzz.bad or fuzz.unclear))


if __name__ == "__main__":
    main()
