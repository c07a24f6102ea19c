"""A stack of layers as one layer: inference, gradients, streams and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from fastrnn import _checks, _frames
from fastrnn._core import generators
from fastrnn._types import Array, ArrayLike, SequencesLike, States, StatesLike
from fastrnn.layers.base import Layer, LoadedKeys, expect_mapping, prefixes_of, with_prefix
from fastrnn.models.data import Data
from fastrnn.models.network import Network, SequentialTape

if TYPE_CHECKING:
    from fastrnn.models.stream import ModelStream


class Chain(Layer):
    """A ``Sequential`` without training: a batch-first stack of layers, seeded together."""

    stackable = False

    def __init__(self, layers: Iterable[Layer], seed: int | None) -> None:
        self._network = Network(layers)
        self._reset(seed, only_initial=True)

    def _reset(self, seed: int | None, *, only_initial: bool) -> None:
        """Draw the layers' weights, and seed the generator of :meth:`fit`.

        `only_initial` skips layers with a seed of their own and layers whose weights were changed.
        """
        seeds: list[Any] = [None] * (len(self.layers) + 1)
        seed = _checks.seed(seed)
        if seed is not None:
            sequence = generators.random().SeedSequence(seed)
            seeds = sequence.generate_state(len(seeds), np.uint64).tolist()
        for layer, own in zip(self.layers, seeds, strict=False):
            if not only_initial or (seed is not None and not layer.seeded and not layer.touched):
                layer.reset_parameters(own)
        self._rng: Any = generators.LazyGenerator()
        if seed is not None:
            self._rng = generators.random().default_rng(seeds[-1])

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        return self._network.layers

    def parameters(self) -> dict[str, Array]:
        """Return the weights themselves, as ``torch.nn.Sequential`` names them: ``1.weight_ih_l0``.

        Changes made in place take effect at the next call.
        """
        return self._network.parameters()

    def buffers(self) -> dict[str, Array]:
        """Return the layers' arrays that are not trained, named likewise."""
        return {
            f"{i}.{name}": array
            for i, layer in enumerate(self.layers)
            for name, array in layer.buffers().items()
        }

    def load_state_dict(
        self,
        mapping: Mapping[str, ArrayLike],
        strict: bool = True,
        prefix: str | Sequence[str] = "",
    ) -> LoadedKeys:
        """Copy weights into the layers: all of them, or none if there is an error.

        Parameters
        ----------
        mapping, strict
            As for a layer.
        prefix : str or sequence of str
            A str comes before names as in :meth:`parameters`. Several, one for each layer with
            weights, come in place of the layers' numbers: ``["embedding.", "encoder.", "head."]``
            reads the ``state_dict()`` of a torch net with these modules.

        Returns
        -------
        LoadedKeys
            As of a layer.

        Raises
        ------
        ValueError, TypeError
            As for a layer; and if the number of prefixes is not that of layers with weights.
        """
        if isinstance(prefix, str):
            return super().load_state_dict(mapping, strict, prefix)
        prefixes, holders = list(prefix), self._holders()
        if len(prefixes) != len(holders):
            raise ValueError(
                f"prefix: expected a str, or {len(holders)} of them, one for each layer with "
                f"weights, got {prefixes}"
            )
        given = expect_mapping(mapping)
        renamed = {
            f"{i}.{name}": value
            for i, own in zip(holders, prefixes, strict=True)
            for name, value in with_prefix(given, own).items()
        }
        return super().load_state_dict(renamed, strict)

    def _holders(self) -> list[int]:
        """Return the indices of layers that have weights."""
        return [i for i, layer in enumerate(self.layers) if layer.arrays()]

    def _prefix_hint(self, mapping: Mapping[str, Any]) -> str:
        """Return prefixes for a net whose modules have these layers' weights, in their order."""
        prefixes = prefixes_of(mapping)
        layers = [self.layers[i] for i in self._holders()]
        fits = len(prefixes) == len(layers) and all(
            p + name in mapping
            for p, layer in zip(prefixes, layers, strict=True)
            for name in layer.arrays()
        )
        if fits and not all(p.rstrip(".").isdecimal() for p in prefixes):
            return f"; they may be there with prefix={prefixes}"
        return super()._prefix_hint(mapping)

    def train(self, mode: bool = True) -> Self:
        """Switch all layers to training mode, or, with False, to evaluation; return the model."""
        if mode:
            self._network.expect_trainable()
        for layer in self.layers:
            layer.train(mode)
        return super().train(mode)

    @property
    def quantized(self) -> bool:
        """Whether layers have int8 weights, so that the model is for inference only."""
        return self._network.quantized

    def expect_trainable(self) -> None:
        """Raise if the model is quantized."""
        self._network.expect_trainable()

    @property
    def trainable(self) -> bool:
        """Whether :meth:`fit` updates any layer. Setting it applies to all layers."""
        return any(self._network.trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = _checks.flag(value, "trainable")
        for layer in self.layers:
            layer.trainable = value

    @property
    def matmul_precision(self) -> str | None:
        """Precision of the operands of matrix products, as in :class:`fastrnn.RNN`.

        None if it differs between layers. Setting it applies to all layers that have one.
        """
        found = {getattr(layer, "matmul_precision", None) for layer in self.layers} - {None}
        return found.pop() if len(found) == 1 else None

    @matmul_precision.setter
    def matmul_precision(self, value: str) -> None:
        _checks.matmul_precision(value, self.dtype)
        for layer in self.layers:
            if hasattr(layer, "matmul_precision"):
                layer.matmul_precision = value

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the initial weights of all layers again, and the generators of dropout and `fit`.

        Parameters
        ----------
        seed : int, optional
            Gives the weights of a model constructed with this seed from unseeded layers. Default:
            fresh.
        """
        self._reset(seed, only_initial=False)

    @property
    def features_in(self) -> int | None:
        """F, the number of input features; None if the first layer takes tokens."""
        return self._network.signature.features or None

    @property
    def features_out(self) -> int:
        """O, the number of outputs."""
        return self._network.signature.outputs

    @property
    def vocabulary(self) -> int | None:
        """V, the number of tokens; None if the first layer does not take tokens."""
        return self._network.signature.vocabulary

    @property
    def per_sequence(self) -> bool:
        """Whether there is one output per sequence rather than per step."""
        return not self._network.signature.per_step

    @property
    def has_state(self) -> bool:
        """Whether any layer is recurrent."""
        return self._network.states > 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights and of all computations."""
        return self._network.signature.dtype

    @overload
    def __call__(
        self,
        x: SequencesLike,
        state: None = ...,
        lengths: ArrayLike | None = ...,
        reset: ArrayLike | None = ...,
    ) -> Array: ...

    @overload
    def __call__(
        self,
        x: SequencesLike,
        state: StatesLike,
        lengths: ArrayLike | None = ...,
        reset: ArrayLike | None = ...,
    ) -> tuple[Array, States]: ...

    def __call__(
        self,
        x: SequencesLike,
        state: StatesLike | None = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> Array | tuple[Array, States]:
        """Run inference. Nothing of a call is kept; threads may call it concurrently.

        Parameters
        ----------
        x : (B, T, F) array-like, or (B, T) of int
        state : sequence, optional
            Initial state of each recurrent layer, None for zeros. Default: zeros.
        lengths : (B,) array-like of int, optional
            Number of valid steps in each row; outputs past it are 0.
        reset : (B, T) array-like of bool, optional
            True where the states are zeroed before the step.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        state : list
            The final state of each recurrent layer; only where `state` was given.
        """
        data, states, resets = self._one_batch(x, state, lengths, reset)
        y, ends = self._network.apply(
            data.x.swapaxes(0, 1), states, lengths=data.lengths, reset=resets
        )
        if self._network.signature.per_step:
            y = y.swapaxes(0, 1)
            if data.lengths is not None:
                y[np.arange(y.shape[1]) >= data.lengths[:, None]] = 0
        return y if state is None else (y, ends)

    def forward(
        self,
        x: SequencesLike,
        state: Sequence[Any] | None = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Array, SequentialTape]:
        """Run for training, and return a tape for :meth:`backward`.

        Parameters
        ----------
        x : (B, T, F) array-like, or (B, T) of int
        state : sequence, optional
            Initial state of each recurrent layer, such as ``tape.state`` of the previous call, for
            truncated backpropagation through time. Default: zeros.
        lengths : (B,) array-like of int, optional
            Number of valid steps in each row. Outputs past it are unspecified; give them weight 0
            in the loss.
        reset : (B, T) array-like of bool, optional
            True where the states are zeroed before the step, here and in :meth:`backward`.

        Returns
        -------
        y : (B, T, O) array, or (B, O)
        tape : SequentialTape
        """
        self._network.expect_trainable()
        data, states, resets = self._one_batch(x, state, lengths, reset)
        y, tape = self._network.apply_forward(
            data.x.swapaxes(0, 1), states, lengths=data.lengths, reset=resets
        )
        return y.swapaxes(0, 1) if self._network.signature.per_step else y, tape

    def backward(
        self, tape: SequentialTape, dy: ArrayLike
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of the inputs and weights, by backpropagation through time.

        Parameters
        ----------
        tape : SequentialTape
            From :meth:`forward` of this model.
        dy : array-like
            Gradient of the loss with respect to y, in the shape of y.

        Returns
        -------
        dx : (B, T, F) array, or None for tokens
        grads : dict of str to array
            By the names of :meth:`parameters`, for ``optimizer.step``.

        Raises
        ------
        ValueError
            If the tape is from a model of another structure, or `dy` has another shape.
        """
        self._network.expect_trainable()
        signature = self._network.signature
        dy = _checks.array(dy, "dy", signature.dtype)
        _pins = _checks.pinned(dy)
        per_step = signature.per_step and dy.ndim == 3
        dx, grads = self._network.apply_backward(tape, dy.swapaxes(0, 1) if per_step else dy)
        return None if dx is None else dx.swapaxes(0, 1), grads

    def _one_batch(
        self, x: Any, state: Any, lengths: Any, reset: Any
    ) -> tuple[Data, Sequence[Any] | None, Array | None]:
        """Return the arguments of a call, checked; `reset` time first."""
        signature, states = self._network.signature, self._network.states
        if isinstance(x, list | tuple):
            _frames.expect_alike(x, "x")
            x = _checks.asarray(x, "x") if lengths is not None or _even(x) else x
        pins = _checks.pinned(x)
        data = Data(signature, *signature.padded(x, "x", ("B", "T"), lengths), pins=pins)
        if state is not None and len(expect_sequence(state, "state")) != states:
            raise ValueError(
                f"state: expected {states} states, one for each recurrent layer, got {len(state)}"
            )
        B, T = data.x.shape[:2]
        reset = _checks.reset(reset, T, (B,), batch_first=True)
        return data, state, reset

    def stream(self, batch_size: int = 1) -> ModelStream:
        """Return a stream that runs the model one step at a time; many streams can share a model.

        Parameters
        ----------
        batch_size : int
            Sequences stepped together.

        Raises
        ------
        ValueError
            If a layer is bidirectional or goes backwards.
        """
        from fastrnn.models.stream import ModelStream

        return ModelStream(self._network, _checks.size(batch_size, "batch_size"))

    def summary(self) -> None:
        """Print a table of the layers, their output shapes and parameter counts."""
        lead = "(B, T, "
        rows = [("Layer", "Output", "Parameters")]
        size = self._network.signature.features
        for i, layer in enumerate(self.layers):
            size = layer.features_out or size
            if layer.per_sequence:
                lead = "(B, "
            count = sum(p.size for p in layer.arrays().values())
            rows.append((f"{i}  {layer!r}", f"{lead}{size})", f"{count:,}"))
        total = sum(p.size for p in self.arrays().values())
        rows.append(("", "", f"{total:,}"))
        first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
        for a, b, c in rows:
            print(f"{a:<{first}}  {b:<{second}}  {c:>{third}}".rstrip())


def _even(x: Sequence[Any]) -> bool:
    return len({np.shape(item) for item in x}) == 1


def expect_sequence(value: Any, name: str) -> Sequence[Any]:
    """Return `value` if it is a sequence other than a string; raise otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}: expected a list, got {type(value).__name__}")
    return value
