"""The base class of layers: named weights, modes, and the methods that a model calls."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

import numpy as np

from fastrnn import _checks
from fastrnn._core import generators
from fastrnn._kernels.interface import Kernels, StreamStage
from fastrnn._types import Array, ArrayLike


class Parts(NamedTuple):
    """A kernel set, and its stages for a chain."""

    kernels: Kernels
    stages: tuple[StreamStage, ...]


class Stage(Protocol):
    """A layer in a model's stream, on checked arrays of one time step."""

    @property
    def parts(self) -> Parts | None:
        """Stages of the kernels that do the same as `step`; None if there are none."""

    def step(self, x: Array, out: Array) -> Any:
        """Advance by one step, from `x` (B, F), or (B,) tokens, into `out` (B, features_out)."""

    @property
    def state(self) -> Any:
        """A copy of the state; None for a layer without state."""

    @state.setter
    def state(self, value: Any) -> None: ...

    def reset(self, rows: Any = None) -> None:
        """Zero the state of these rows of the batch; None selects all."""


class LoadedKeys(NamedTuple):
    """What ``load_state_dict`` found: names of weights it lacked, and of others; as in torch."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not any(self):
            return "<All keys matched successfully>"
        return f"LoadedKeys(missing_keys={self[0]}, unexpected_keys={self[1]})"


class Layer:
    """A layer: holds weights and modes, but nothing from any call. The base of layers of one's own.

    A subclass defines `forward` and `backward`, and `parameters` if it has weights. A
    :class:`Sequential` then trains it, predicts and streams with it; it pickles, and no file holds
    it, as files hold no code.

    - ``forward(x) -> (y, tape)``. Models pass x as (T, B, F), or (B, F) in a stream and after a
      layer with one output per sequence, in their dtype, and y has the same leading axes. `tape`
      is whatever `backward` needs. If `forward` has the keyword arguments `lengths` (B,) and
      `reset` (T, B), it gets those of the call, or None.
    - ``backward(tape, dy) -> (dx, grads)``, with the gradients of all `parameters` by name.
    - ``parameters() -> {name: array}``, the arrays themselves, which training changes in place.
    - ``__call__(x)``, if inference is to differ from `forward`.
    - `features_in` and `features_out`, if the last axes of x and y have a fixed size;
      `per_sequence`, if y is (B, F), one output per sequence; all as properties or attributes of
      the class.
    - `has_state`, if there is a state from step to step: an array (..., B, n), or a tuple of
      such. Then ``forward(x, state) -> (y, state, tape)``, in which None stands for the first
      state, ``backward(tape, dy) -> (dx, dstate, grads)``, and models take and return the state.

    Attributes
    ----------
    training : bool
        Whether dropout is on in `forward`. Default: True.
    trainable : bool
        Whether `fit` changes the weights. Default: True.

    Examples
    --------
    >>> lstm = fastrnn.LSTM(3, 5, dropout=0.1, num_layers=2, seed=0)
    >>> isinstance(lstm, fastrnn.Layer), lstm.training, lstm.eval().training
    (True, True, False)
    >>> lstm.trainable = False  # fit leaves it as it is
    >>> twin = fastrnn.LSTM(3, 5, num_layers=2)
    >>> twin.load_state_dict(lstm.state_dict())
    <All keys matched successfully>

    One's own: each feature times a weight.

    >>> class Scale(fastrnn.Layer):
    ...     def __init__(self, features):
    ...         self.weight = np.ones(features, np.float32)
    ...
    ...     def forward(self, x):
    ...         return x * self.weight, x
    ...
    ...     def backward(self, tape, dy):
    ...         of_rows = (dy * tape).reshape(-1, len(self.weight))
    ...         return dy * self.weight, {"weight": of_rows.sum(axis=0)}
    ...
    ...     def parameters(self):
    ...         return {"weight": self.weight}
    >>> model = fastrnn.Sequential([fastrnn.GRU(3, 5), Scale(5), fastrnn.Linear(5, 1)], seed=0)
    >>> model.compile("adam", "mse")
    >>> X = np.random.default_rng(0).normal(size=(64, 7, 3))
    >>> history = model.fit(X, X[..., :1], epochs=5, verbose=0)
    >>> bool((model.layers[1].weight != 1).all())
    True
    >>> model.stream().step(X[0, 0]).shape
    (1,)
    """

    #: Whether a model can hold the layer, which must then run over whole sequences.
    stackable: ClassVar[bool] = True
    #: Whether only attributes that the class defines may be set: on the library's own classes.
    _closed: ClassVar[bool] = False
    #: Which of `lengths` and `reset` the `forward` of one's own layer takes.
    _takes: ClassVar[tuple[str, ...]] = ()
    _training = True
    _trainable = True
    #: Whether the caller gave a seed for the initial weights.
    _seeded = False
    #: The seed of the initial weights, given or fresh.
    _drawn_by: Any = None

    def __init_subclass__(cls, **more: Any) -> None:
        """Mark the library's own classes as closed to unknown attributes."""
        super().__init_subclass__(**more)
        cls._closed = cls.__module__.startswith("fastrnn.")
        if not cls._closed and hasattr(cls, "forward"):
            named = inspect.signature(cls.forward).parameters
            cls._takes = tuple(name for name in ("lengths", "reset") if name in named)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise if an attribute is fixed or, on the library's own classes, unknown."""
        kind = type(self)
        known = getattr(kind, name, None)
        fixed = name[0] != "_" and isinstance(known, Mapping)  # data of the class
        if fixed or (isinstance(known, property) and known.fset is None):
            raise AttributeError(
                f"{kind.__name__}.{name}: is fixed when the {kind.__name__} is made; make a new "
                "one to change it"
            )
        if kind._closed and name[0] != "_" and not hasattr(kind, name):
            known_ones = (n for n in dir(kind) if isinstance(getattr(kind, n), property))
            hint = _checks.near(name, known_ones)
            raise AttributeError(
                f"{kind.__name__}.{name}: there is no such attribute, setting it would have no "
                f"effect{hint}"
            )
        super().__setattr__(name, value)

    # Modes.

    @property
    def training(self) -> bool:
        """Whether dropout is on in `forward`."""
        return self._training

    @training.setter
    def training(self, value: bool) -> None:
        self._training = _checks.flag(value, "training")

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the weights."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = _checks.flag(value, "trainable")

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation); return the layer."""
        self.training = _checks.flag(mode, "mode")
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; return the layer."""
        return self.train(False)

    # What a model needs: sizes, and how to run the layer.

    @property
    def features_in(self) -> int | None:
        """Size of the last axis of the input; None for any."""
        return None

    @property
    def features_out(self) -> int | None:
        """Size of the last axis of the output; None for that of the input."""
        return None

    @property
    def vocabulary(self) -> int | None:
        """Number of distinct tokens, if the layer takes tokens; None if it takes real numbers."""
        return None

    @property
    def mask_value(self) -> float | None:
        """What steps hold that a model beginning with the layer leaves out; None for none."""
        return None

    @property
    def per_sequence(self) -> bool:
        """Whether there is one output per sequence rather than per step."""
        return False

    @property
    def has_state(self) -> bool:
        """Whether the layer carries a state from step to step."""
        return False

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Dtype of weights and results; None for that of the input."""
        return None

    @property
    def quantized(self) -> bool:
        """Whether the layer has int8 weights, and so is for inference only."""
        return False

    @property
    def generator(self) -> np.random.Generator | None:
        """The random generator of dropout; None for a layer without."""
        return getattr(self, "_rng", None)

    def apply(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any]:
        """Run for inference as part of a model.

        Parameters
        ----------
        x : (T, B, F) array, or (T, B) of tokens, or (B, F) after a layer with `per_sequence`
            Time-first, whatever `batch_first` is, and checked.
        state : optional
            Initial state of a layer with `has_state`; checked here. Default: zeros.
        lengths : (B,) array of int64, optional
            Number of steps of each row. Default: T.
        reset : (T, B) array of bool, optional
            Where the state is zeroed before a step.

        Returns
        -------
        y : array
        state
            The state after the last step; None for a layer without state.
        """
        if self._closed:
            return self(x), None
        given = {n: v for n, v in (("lengths", lengths), ("reset", reset)) if n in self._takes}
        y, end = self(x, state, **given) if self.has_state else (self(x, **given), None)
        return self._own_output(y, x), end

    def apply_forward(
        self, x: Array, state: Any = None, *, lengths: Array | None = None, reset: Any = None
    ) -> tuple[Array, Any, Any]:
        """Run for training as part of a model.

        Parameters
        ----------
        x, state, lengths, reset
            As in :meth:`apply`.

        Returns
        -------
        y : array
        state
        tape
            For :meth:`apply_backward`.
        """
        layer: Any = self
        if self._closed:
            y, tape = layer.forward(x)
            return y, None, tape
        given = {n: v for n, v in (("lengths", lengths), ("reset", reset)) if n in self._takes}
        if self.has_state:
            y, end, tape = layer.forward(x, state, **given)
        else:
            (y, tape), end = layer.forward(x, **given), None
        return self._own_output(y, x), end, tape

    def apply_backward(
        self, tape: Any, dy: Array, *, for_update: bool = False, input_gradient: bool = True
    ) -> tuple[Array | None, dict[str, Any]]:
        """Backpropagate through an :meth:`apply_forward`.

        Parameters
        ----------
        tape
        dy : array
            In the shape of y.
        for_update : bool
            Whether only an optimizer reads the gradients; that of a table may then be a
            ``RowGradient``.
        input_gradient : bool
            Whether dx is wanted.

        Returns
        -------
        dx : array or None
        grads : dict
            By the names of :meth:`parameters`.
        """
        layer: Any = self
        dx, *_, grads = layer.backward(tape, dy)
        return dx, grads if self._closed else self._own_gradients(grads)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run `forward` of a layer of one's own, without its tape."""
        layer: Any = self
        y, *state, _ = layer.forward(*args, **options)
        return (y, *state) if state else y

    def _own_output(self, y: Any, x: Array) -> Array:
        """Return the output of a layer of one's own; raise if it is not what a model needs."""
        name = f"output of {type(self).__name__}"
        lead = x.shape if self.vocabulary else x.shape[:-1]
        lead = lead[1:] if self.per_sequence and len(lead) > 1 else lead
        size = self.features_out or (1 if self.vocabulary else x.shape[-1])
        dtype = x.dtype if x.dtype.kind == "f" else np.asarray(y).dtype
        return _checks.shaped(y, name, self.dtype or dtype, (*lead, size))

    def _own_gradients(self, grads: Any) -> dict[str, Any]:
        """Return the gradients of a layer of one's own; raise if they are not of its weights."""
        own, kind = self.parameters(), type(self).__name__
        if not isinstance(grads, Mapping) or grads.keys() != own.keys():
            got = sorted(grads) if isinstance(grads, Mapping) else _checks.kind_of(grads)
            raise ValueError(f"gradients of {kind}: expected those of {sorted(own)}, got {got}")
        return {
            name: _checks.shaped(grads[name], f"gradient of {kind}.{name}", w.dtype, w.shape)
            for name, w in own.items()
        }

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> Stage | None:
        """Return the layer's stage in a stream; None passes the input on.

        Parameters
        ----------
        batch_size : int
        features : int
            Size of the last axis of the input, for layers that take any.
        dtype : dtype
            Of the model.
        """
        if self.per_sequence:
            raise ValueError(
                f"stream: expected layers that give an output for each step, {self!r} needs whole "
                "sequences"
            )
        return StateStage(self) if self.has_state else CallStage(self)

    # Weights.

    @property
    def seeded(self) -> bool:
        """Whether the layer was constructed with a seed."""
        return self._seeded

    @property
    def touched(self) -> bool:
        """Whether the weights were trained, loaded or set since they were drawn."""
        if self._drawn_by is None:
            return bool(self.parameters())
        drawn = self._draw(generators.random().default_rng(self._drawn_by))
        own = self.parameters()
        return not all(np.array_equal(own[name], array) for name, array in drawn.items())

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the initial weights again, and restart the generator of dropout.

        Parameters
        ----------
        seed : int, optional
            Weights and dropout are then those of a layer constructed with this seed. Default: a
            fresh seed.
        """
        rng = self._generator(seed)
        own = self.parameters()
        for name, array in self._draw(rng).items():
            own[name][...] = array
        self._start(rng)

    def _first_generator(self, seed: int | None) -> np.random.Generator:
        """Return the generator of the first weights, and note whether a seed was given."""
        self._seeded = seed is not None
        if generators.is_undrawn():
            self._drawn_by = None
            return cast("np.random.Generator", generators.LazyGenerator())
        return self._generator(seed)

    def _generator(self, seed: int | None) -> np.random.Generator:
        """Return a generator of initial weights."""
        self._drawn_by = generators.random().SeedSequence(_checks.seed(seed)).entropy
        drawn: np.random.Generator = generators.random().default_rng(self._drawn_by)
        return drawn

    def _draw(self, rng: np.random.Generator) -> dict[str, Array]:
        """Draw initial weights, by the names of :meth:`parameters`."""
        return {}

    def _start(self, rng: np.random.Generator) -> None:
        """Continue with the generator that drew the initial weights."""

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, by name.

        Changes in place take effect at the next call. As long as one of them is held, each call
        compares all weights with the copy that the kernels read, which costs about as much as
        reading them once more.
        """
        return {}

    def buffers(self) -> dict[str, Array]:
        """Return arrays that belong to the layer as its weights do, but are not trained, by name.

        They are in ``state_dict`` and in files. Changes in place take effect at the next call.
        """
        return {}

    def arrays(self) -> dict[str, Array]:
        """Return :meth:`parameters` and :meth:`buffers`."""
        return {**self.parameters(), **self.buffers()}

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of the weights and buffers, by name."""
        return {name: array.copy() for name, array in self.arrays().items()}

    def load_state_dict(
        self, mapping: Mapping[str, ArrayLike], strict: bool = True, prefix: str = ""
    ) -> LoadedKeys:
        """Copy weights into the layer: all of them, or none if there is an error.

        Parameters
        ----------
        mapping : mapping of str to array-like
            Names and shapes as in :meth:`parameters`. torch's ``state_dict()`` fits, also that of
            a whole net, in any dtype of real numbers and on any device.
        strict : bool
            Whether a name that is missing or unexpected is an error; otherwise, weights that are
            missing stay as they are. Default: True.
        prefix : str
            What the layer's names begin with in a net: ``"encoder.lstm."``. Other names are not
            looked at. Default: nothing.

        Returns
        -------
        LoadedKeys
            ``(missing_keys, unexpected_keys)``, both empty if `strict`.

        Raises
        ------
        ValueError
            If a name is missing or unexpected, or a shape differs.
        TypeError
            If a value does not hold real numbers.
        """
        given = with_prefix(expect_mapping(mapping), prefix)
        own = self.arrays()
        keys = LoadedKeys(sorted(own.keys() - given.keys()), sorted(given.keys() - own))
        if _checks.flag(strict, "strict") and any(keys):
            raise ValueError(
                f"state_dict: missing {keys.missing_keys}, unexpected {keys.unexpected_keys}"
                f"{self._prefix_hint(mapping)}"
            )
        # Copied before any is written: the values may be this layer's own arrays.
        checked = {
            n: _checks.copied(_checks.shaped(_readable(given[n]), n, a.dtype, a.shape))
            for n, a in own.items()
            if n in given
        }
        for name, array in checked.items():
            own[name][...] = array
        return keys

    def _prefix_hint(self, mapping: Mapping[str, Any]) -> str:
        """Return which prefixes the names of the weights have, if all of them are there."""
        names = self.arrays().keys()
        found = [p for p in prefixes_of(mapping) if p and all(p + n in mapping for n in names)]
        return f"; they are there with prefix={' or '.join(map(repr, found))}" if found else ""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments for such a layer, ready for JSON."""
        return {}

    @classmethod
    def least_weights(cls, config: Mapping[str, Any]) -> int:
        """Return the least number of weights in a file with a layer of this `config`."""
        return 0


def expect_mapping(value: Any) -> Mapping[str, Any]:
    """Return the value, if it may be a state_dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"state_dict: expected a mapping, got {type(value).__name__}")
    return value


def with_prefix(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the entries whose names begin with a prefix, without it."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix: expected a str, got {type(prefix).__name__}")
    if not prefix:
        return dict(mapping)
    return {n.removeprefix(prefix): v for n, v in mapping.items() if str(n).startswith(prefix)}


def prefixes_of(mapping: Mapping[str, Any]) -> list[str]:
    """Return what comes before the last part of the names: a net's modules, in their order."""
    return list(dict.fromkeys(str(n)[: str(n).rfind(".") + 1] for n in mapping))


def _readable(value: Any) -> Any:
    """Return a tensor in the form in which NumPy reads it; anything else as it is.

    That is on the CPU, apart from any graph, and in a dtype that NumPy has.
    """
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    # float32 has all numbers of bfloat16, float16 and float8.
    short = tensor.is_floating_point() and tensor.element_size() < 4
    return tensor.float() if short else tensor


class Stateless:
    """A stage without state."""

    __slots__ = ()

    @property
    def state(self) -> None:
        """None."""
        return None

    @state.setter
    def state(self, value: Any) -> None:
        """Do nothing."""

    def reset(self, rows: Any = None) -> None:
        """Do nothing."""


class CallStage(Stateless):
    """The stage of a layer without one of its own: calls it."""

    __slots__ = ("_layer",)
    parts = None

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def step(self, x: Array, out: Array) -> None:
        """Write the layer's output for `x` to `out`."""
        out[...] = self._layer.apply(x)[0]


class StateStage:
    """The stage of a layer of one's own with a state."""

    __slots__ = ("_layer", "_state")
    parts = None

    def __init__(self, layer: Layer) -> None:
        self._layer, self._state = layer, None

    def step(self, x: Array, out: Array) -> None:
        """Write the layer's output for one step `x` to `out`."""
        y, self._state = self._layer.apply(x[None], self._state)
        out[...] = y[0]

    @property
    def state(self) -> Any:
        """A copy of the state; None for the first one."""
        return copy.deepcopy(self._state)

    @state.setter
    def state(self, value: Any) -> None:
        self._state = copy.deepcopy(value)

    def reset(self, rows: Any = None) -> None:
        """Zero these rows of the state; None selects all, which then have the first state."""
        if rows is None:
            self._state = None
        for array in self._state if isinstance(self._state, tuple) else (self._state,):
            if array is not None:
                array[..., _checks.rows(rows, array.shape[-2]), :] = 0


def dtype_shown(dtype: np.dtype[Any]) -> str:
    """Return the dtype for a layer's ``repr``: empty for the default."""
    return "" if dtype == np.float32 else f", dtype={dtype}"
