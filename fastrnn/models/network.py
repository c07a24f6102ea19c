"""A stack of layers, run over checked arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn import layers as available
from fastrnn._kernels.row_gradient import RowGradient
from fastrnn._types import Array, States
from fastrnn.layers.base import Layer
from fastrnn.models.data import Signature

#: The layers that a model can hold, by their names in files.
KINDS: dict[str, type[Layer]] = {
    name: kind
    for name, kind in vars(available).items()
    if isinstance(kind, type) and issubclass(kind, Layer) and kind is not Layer and kind.stackable
}


@dataclass(slots=True, repr=False)
class SequentialTape:
    """What ``Sequential.forward`` keeps for ``Sequential.backward``.

    Attributes
    ----------
    state : list
        The final state of each recurrent layer, from which the next ``forward`` may continue.
    """

    state: States
    tapes: tuple[Any, ...]
    structure: tuple[Any, ...]


class Network:
    """A stack of layers that fit each other, run over checked arrays, time first.

    Attributes
    ----------
    layers : tuple of Layer
    signature : Signature
    states : int
        Number of recurrent layers.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = _checked_layers(layers)
        self.signature = _signature(self.layers)
        self._has_state = [layer.has_state for layer in self.layers]
        self.states = sum(self._has_state)
        #: A tape fits if its own is equal.
        self.structure = (
            self.signature,
            *((type(layer), layer.features_in, layer.features_out) for layer in self.layers),
        )

    @property
    def trainable(self) -> list[bool]:
        """Whether an optimizer may update each layer."""
        return [layer.trainable for layer in self.layers]

    @property
    def quantized(self) -> bool:
        """Whether a layer has int8 weights."""
        return any(layer.quantized for layer in self.layers)

    def expect_trainable(self) -> None:
        """Raise if it is for inference only."""
        if self.quantized:
            raise ValueError(
                "Sequential: is quantized, and so for inference only; train the float model, and "
                "quantize it again"
            )

    def parameters(self, *, trainable: bool = False) -> dict[str, Array]:
        """Return the weights themselves, as ``torch.nn.Sequential`` names them.

        Parameters
        ----------
        trainable : bool
            Whether to leave out those of frozen layers.
        """
        return {
            f"{i}.{name}": array
            for i, layer in enumerate(self.layers)
            if layer.trainable or not trainable
            for name, array in layer.parameters().items()
        }

    def arrays(self) -> dict[str, Array]:
        """Return all arrays of the layers, also those that are not trained."""
        return {
            f"{i}.{name}": array
            for i, layer in enumerate(self.layers)
            for name, array in layer.arrays().items()
        }

    def apply(
        self,
        x: Array,
        state: Sequence[Any] | None = None,
        *,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, list[Any]]:
        """Return the outputs for inference, and the final states."""
        ends: list[Any] = []
        for layer, has_state in zip(self.layers, self._has_state, strict=True):
            start = state[len(ends)] if has_state and state is not None else None
            x, end = layer.apply(x, start, lengths=lengths, reset=reset)
            if has_state:
                ends.append(end)
        return x, ends

    def apply_forward(
        self,
        x: Array,
        state: Sequence[Any] | None = None,
        *,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, SequentialTape]:
        """Return the outputs, and what :meth:`apply_backward` needs."""
        tapes: list[Any] = []
        ends: list[Any] = []
        for layer, has_state in zip(self.layers, self._has_state, strict=True):
            start = state[len(ends)] if has_state and state is not None else None
            x, end, tape = layer.apply_forward(x, start, lengths=lengths, reset=reset)
            tapes.append(tape)
            if has_state:
                ends.append(end)
        return x, SequentialTape(ends, tuple(tapes), self.structure)

    def apply_backward(
        self, tape: SequentialTape, dy: Array
    ) -> tuple[Array | None, dict[str, Array]]:
        """Return the gradients of x and of all weights."""
        return self._back(tape, dy, [True] * len(self.layers), for_update=False)

    def gradients(
        self, tape: SequentialTape, dy: Array, wanted: Sequence[bool]
    ) -> dict[str, Array | RowGradient]:
        """Return the gradients of the weights of the wanted layers, for an optimizer."""
        return self._back(tape, dy, wanted, for_update=True)[1]

    def _back(
        self, tape: SequentialTape, dy: Array, wanted: Sequence[bool], for_update: bool
    ) -> tuple[Array | None, dict[str, Any]]:
        if not isinstance(tape, SequentialTape):
            raise TypeError(f"tape: expected what forward returned, got {type(tape).__name__}")
        if tape.structure != self.structure or len(tape.tapes) != len(self.layers):
            raise ValueError("tape: is from the forward of another model")
        # Below the lowest trained layer no gradient is needed.
        lowest = wanted.index(True) if True in wanted else len(wanted)
        of_layers: list[tuple[int, dict[str, Any]]] = []
        d: Any = dy
        for i in range(len(wanted) - 1, lowest - 1, -1):
            asked = i > lowest or not for_update
            d, grads = self.layers[i].apply_backward(
                tape.tapes[i], d, for_update=for_update, input_gradient=asked
            )
            if wanted[i]:
                of_layers.append((i, grads))
        return d, {f"{i}.{n}": g for i, grads in reversed(of_layers) for n, g in grads.items()}


def _checked_layers(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Return the layers as a tuple; raise if they do not fit each other."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: expected a list, got {type(layers).__name__}")
    checked = tuple(layers)
    size: int | None = None
    per_sequence = False
    for i, layer in enumerate(checked):
        if not isinstance(layer, Layer) or not layer.stackable:
            raise TypeError(
                f"layers[{i}]: expected one of {', '.join(KINDS)}, got {_checks.kind_of(layer)}"
            )
        if any(layer is other for other in checked[:i]):
            raise ValueError(f"layers[{i}]: expected distinct layers, got one twice")
        if i and (layer.vocabulary is not None or layer.mask_value is not None):
            kind = type(layer).__name__
            raise ValueError(f"layers[{i}]: expected {kind} to be the first layer")
        if size is not None and layer.features_in not in (None, size):
            raise ValueError(f"layers[{i}]: expected an input size of {size}, got {layer!r}")
        if layer.has_state and per_sequence:
            raise ValueError(
                f"layers[{i}]: expected return_sequences=True in the recurrent layer before it"
            )
        per_sequence = per_sequence or layer.per_sequence
        size = layer.features_out or size
    if size is None:
        raise ValueError(f"layers: expected one or more with weights, got {list(checked)}")
    dtypes = {str(layer.dtype) for layer in checked if layer.dtype is not None}
    if len(dtypes) > 1:
        raise ValueError(f"layers: expected one dtype, got {' and '.join(sorted(dtypes))}")
    return checked


def _signature(layers: Sequence[Layer]) -> Signature:
    """Return the signature of the layers; those without weights keep the size of their input."""
    sized = [layer for layer in layers if layer.features_out]
    first, last = sized[0], sized[-1]
    return Signature(
        vocabulary=first.vocabulary,
        features=first.features_in or 0,
        outputs=last.features_out or 0,
        per_step=not any(layer.per_sequence for layer in layers),
        dtype=first.dtype or np.dtype(np.float32),
        mask_value=layers[0].mask_value,
    )
