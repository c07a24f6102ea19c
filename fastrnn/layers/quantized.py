"""Inference-only layers with int8 weights, made by ``fastrnn.quantize``."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from fastrnn import _checks
from fastrnn._core import scan
from fastrnn._kernels import dispatch, quantized
from fastrnn._kernels.functions import Function
from fastrnn._kernels.quantized import BY_ROW, INT8, REAL, Frozen, FrozenRows, Limits
from fastrnn._types import Array, StateLikeT, StateT
from fastrnn.layers.base import Layer, Parts, Stateless
from fastrnn.layers.embedding import Embedding, Table
from fastrnn.layers.linear import Linear
from fastrnn.layers.recurrent import RECURRENT, Recurrent, backwards, in_order
from fastrnn.layers.row_map import RowMap

#: The dtype and shape of arrays, by name.
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Quantized(Layer):
    """An inference-only layer with int8 weights.

    Attributes
    ----------
    like : Layer
        The float layer that it was made from, without weights: class, sizes and options.
    """

    _like: Any
    #: The weights, by the ending of their names.
    _frozen: Mapping[str, Frozen]

    def _become(self, layer: Layer, frozen: Mapping[str, Frozen], **changed: Any) -> None:
        """Take over the attributes of a float layer, but for its weights."""
        self._like, self._frozen = copy.copy(layer), dict(frozen)
        vars(self._like).update(changed)
        vars(self).update(vars(layer) | changed | {"_drawn_by": None, "_seeded": False})

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            f"{self!r}: is for inference only; train or change the float "
            f"{type(self._like).__name__}, and quantize it again"
        )

    forward: Any = _refuse
    backward: Any = _refuse
    apply_forward: Any = _refuse
    apply_backward: Any = _refuse
    load_state_dict: Any = _refuse
    reset_parameters: Any = _refuse

    def train(self, mode: bool = True) -> Self:
        """Raise, unless `mode` is False."""
        if _checks.flag(mode, "mode"):
            self._refuse()
        return self

    @property
    def training(self) -> bool:
        """Whether dropout is on: False."""
        return False

    @training.setter
    def training(self, value: bool) -> None:
        self.train(_checks.flag(value, "training"))

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the weights: False."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.train(_checks.flag(value, "trainable"))

    @property
    def quantized(self) -> bool:
        """Whether the layer has int8 weights: True."""
        return True

    #: Of the operands of matrix products; can't be set.
    matmul_precision = property(lambda self: "int8")

    @property
    def like(self) -> Any:
        """The float layer that it was made from, without weights: class, sizes and options."""
        return self._like

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of inputs and results: float32."""
        return REAL

    def parameters(self) -> dict[str, Array]:
        """Return the int8 matrices, the scales of their rows, and all else in float32.

        The arrays can't be written to.
        """
        return {
            name + suffix: array.view()
            for suffix, weights in self._frozen.items()
            for name, array in weights.arrays.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the float layer's constructor, ready for JSON."""
        config: dict[str, Any] = self._like.get_config()
        return config

    def __repr__(self) -> str:
        return f"Quantized({self._like!r})"


class QuantizedRecurrent(Quantized, Recurrent[StateT, StateLikeT]):
    """A recurrent layer with int8 weights.

    Parameters
    ----------
    layer : Recurrent
        Gives class, sizes and options.
    weights : sequence of QuantizedWeights
        Those of each scan.
    """

    def __init__(
        self, layer: Recurrent[StateT, StateLikeT], weights: Sequence[quantized.QuantizedWeights]
    ) -> None:
        frozen: dict[str, Frozen] = dict(zip(layer._weights, weights, strict=True))
        began = {name: t.array.astype(REAL) for name, t in layer._first.items()}
        frozen |= {"": Frozen(began)} if began else {}
        without: dict[str, Any] = {"_weights": {}, "_scan_weights": [], "_names": []}
        configs = {suffix: w.config for suffix, w in zip(layer._weights, weights, strict=True)}
        first = next(iter(configs.values()))
        self._become(
            layer, frozen, **without, _configs=configs, _config=first, _rng=None, _dtype=REAL,
            _first={name: Table(array) for name, array in began.items()},
        )  # fmt: skip
        self._scan_weights: Any = list(weights)

    @classmethod
    def of(cls, layer: Recurrent[StateT, StateLikeT], largest_of: Array) -> Self:
        """Quantize a layer, given the largest inputs and states of each scan, (scans, 2)."""
        weights = []
        for w, (x, h) in zip(layer._scan_weights, largest_of.tolist(), strict=True):
            bounded = quantized.least(w.cell, w.config) > 0
            limits = Limits(x or BY_ROW, BY_ROW if bounded else h or BY_ROW)
            weights.append(quantized.QuantizedWeights.of(w.cell, w.config, w.share(), limits))
        return cls(layer, weights)

    @classmethod
    def restored(cls, layer: Recurrent[StateT, StateLikeT], tensors: Mapping[str, Array]) -> Self:
        """Return a layer with the weights of a file."""
        weights = []
        taken: set[str] = set()
        for suffix, w in layer._weights.items():
            shapes = quantized.QuantizedWeights.shapes(w.cell, w.config)
            arrays = _checked(tensors, shapes, suffix)
            taken |= {name + suffix for name in shapes}
            weights.append(quantized.QuantizedWeights(w.cell, w.config, arrays))
        shapes = {name: (t.shape, REAL) for name, t in layer._first.items()}
        for name, array in _checked(tensors, shapes).items():
            layer._first[name].array[...] = array
        _expect_no_more(tensors, taken | shapes.keys())
        return cls(layer, weights)

    def largest(self, x: Array, lengths: Array | None) -> Array:
        """Return the largest inputs and states of each scan over `x` (T, B, I), (scans, 2)."""
        found = []
        D = self._directions
        x = in_order(x, backwards(len(x), lengths)) if self.go_backwards else x
        for first in range(0, len(self._scan_weights), D):
            outputs = []
            for d, weights in enumerate(self._scan_weights[first : first + D]):
                y = np.empty((*x.shape[:2], weights.config.output_size), REAL)
                end = [np.empty((x.shape[1], n), REAL) for n in self._sizes]
                began = [t.array[first + d] for t in self._first.values()]
                start = [s[None].repeat(x.shape[1], axis=0) for s in began] or [None] * len(end)
                scan.forward(weights, x, start, y, end, reverse=d == 1, lengths=lengths)
                found.append((largest(x), max(map(largest, (y, *began[:1])))))
                outputs.append(y)
            x = outputs[0] if D == 1 else np.concatenate(outputs, axis=-1)
        return np.array(found)

    @property
    def batch_first(self) -> bool:
        """Whether x and y are (B, T, ...); may be set."""
        return self._batch_first

    @batch_first.setter
    def batch_first(self, value: bool) -> None:
        self._like.batch_first = value
        self._batch_first = self._like.batch_first

    #: Those of the float layer, without effect.
    dropout = property(lambda self: self._dropout)
    weight_dropout = property(lambda self: self._weight_dropout)


class QuantizedLinear(Quantized, Linear):
    """An affine map with int8 weights.

    Parameters
    ----------
    layer : Linear
        Gives sizes and options.
    weights : QuantizedAffine
    """

    def __init__(self, layer: Linear, weights: quantized.QuantizedAffine) -> None:
        self._become(layer, {"": weights}, _weights=weights, _kind=(*layer._kind[:3], REAL))

    @classmethod
    def of(cls, layer: Linear, limit: float) -> Self:
        """Quantize a layer."""
        weight, bias = layer._weights.share()
        assert weight is not None
        return cls(layer, quantized.QuantizedAffine.of(weight, bias, limit))

    @classmethod
    def restored(cls, layer: Linear, tensors: Mapping[str, Array]) -> Self:
        """Return a layer with the weights of a file."""
        O, I, bias, _ = layer._kind
        shapes: Shapes = {
            "weight": ((O, I), INT8),
            "weight_scale": ((O,), REAL),
            "limit": ((1,), REAL),
        }
        if bias:
            shapes = {**shapes, "bias": ((O,), REAL)}
        _expect_no_more(tensors, shapes)
        return cls(layer, quantized.QuantizedAffine(_checked(tensors, shapes)))


class TableStage(Stateless):
    """The stage of a :class:`QuantizedEmbedding`."""

    __slots__ = ("_look_up", "parts")

    def __init__(self, look_up: Any, table: Any, batch_size: int) -> None:
        self._look_up, kernels = look_up, dispatch.kernels(INT8)
        self.parts = Parts(kernels, (kernels.TableStepper(table, batch_size),))

    def step(self, x: Array, out: Array) -> None:
        """Write the rows of `x` (B,) to `out`."""
        self._look_up(_checks.whole_numbers(x, "x"), out)


class QuantizedEmbedding(Quantized, Embedding):
    """A table of vectors in int8, with a scale for each.

    Parameters
    ----------
    layer : Embedding
        Gives the sizes.
    weights : QuantizedTable
    """

    def __init__(self, layer: Embedding, weights: quantized.QuantizedTable) -> None:
        self._become(layer, {"": weights}, _table=weights)

    @classmethod
    def of(cls, layer: Embedding) -> Self:
        """Quantize a layer."""
        return cls(layer, quantized.QuantizedTable.of(layer._table.array))

    @classmethod
    def restored(cls, layer: Embedding, tensors: Mapping[str, Array]) -> Self:
        """Return a layer with the weights of a file."""
        V, D = layer._table.shape
        shapes: Shapes = {"weight": ((V, D), INT8), "weight_scale": ((V,), REAL)}
        _expect_no_more(tensors, shapes)
        return cls(layer, quantized.QuantizedTable(_checked(tensors, shapes)))

    def _rows(self, x: Array) -> Array:
        _pins = _checks.pinned(x)
        y = np.empty((*x.shape, self.embedding_dim), REAL)
        self._look_up(x.reshape(-1), y.reshape(-1, self.embedding_dim))
        return y

    def _look_up(self, x: Array, y: Array) -> None:
        kernels: Any = dispatch.kernels(INT8)
        weights = self._frozen[""].arrays
        kernels.take_rows(weights["weight"], weights["weight_scale"], x, y)

    def stage(self, batch_size: int, features: int, dtype: np.dtype[Any]) -> Any:
        """Return the layer's stage in a stream."""
        return TableStage(self._look_up, self._table, batch_size)


class QuantizedRowMap(Quantized, RowMap):
    """A function of each row in float32, as a part of models with int8 weights.

    Every backend gives the same bits.

    Parameters
    ----------
    layer : RowMap
        Gives function and options.
    """

    def __init__(self, layer: RowMap) -> None:
        frozen = {}
        if layer._table is not None:
            table = layer._table.array
            dtype = table.dtype if layer._wide else REAL
            arrays = {name: array.astype(dtype) for name, array in layer.arrays().items()}
            frozen = {"": FrozenRows(arrays, table.astype(dtype))}
        self._become(layer, frozen, _table=frozen.get(""))

    @classmethod
    def restored(cls, layer: RowMap, tensors: Mapping[str, Array]) -> Self:
        """Return a layer with the weights of a file."""
        layer.load_state_dict(tensors)
        return cls(layer)

    @property
    def _function(self) -> Function:
        function: Function = self._like._function
        return function

    @property
    def features_in(self) -> int | None:
        """Those of the float layer."""
        features: int | None = self._like.features_in
        return features

    @property
    def features_out(self) -> int | None:
        """Those of the float layer."""
        features: int | None = self._like.features_out
        return features

    def _checked(self, x: Any) -> Array:
        rows: Array = self._like._checked(_checks.array(x, "x", REAL))
        return rows

    def _kernels(self, dtype: Any) -> Any:
        return dispatch.kernels(INT8)


def largest(x: Array) -> float:
    """Return the largest absolute value of calibration data; raise if it is not finite."""
    found = float(np.abs(x).max(initial=0))
    if not math.isfinite(found):
        raise ValueError("calibration: expected finite numbers, here and in the layers")
    return found


def largest_of(layer: Layer, x: Array, lengths: Array | None = None) -> Array:
    """Return the largest numbers that a layer multiplies over `x`: (scans, 2), or one, or none."""
    if isinstance(layer, QuantizedRecurrent):
        return layer.largest(x, lengths)
    return np.array([largest(x)] if isinstance(layer, QuantizedLinear) else [])


def _checked(
    tensors: Mapping[str, Array],
    shapes: Shapes,
    suffix: str = "",
) -> dict[str, Array]:
    """Return arrays of these shapes and dtypes; raise if one is missing or another."""
    found = {}
    for name, (shape, dtype) in shapes.items():
        array = tensors.get(name + suffix)
        if array is None:
            raise ValueError(f"tensors: missing {name + suffix}")
        _checks.expect_dtype(array, name, dtype)
        found[name] = _checks.expect_shape(array, name, shape)
    return found


def _expect_no_more(tensors: Mapping[str, Array], names: Any) -> None:
    if unexpected := sorted(tensors.keys() - set(names)):
        raise ValueError(f"tensors: unexpected {unexpected}")


def quantize(layer: Layer, largest_of: Array | None = None) -> Layer | None:
    """Return a layer with int8 weights, or None if there is no such form of it.

    Parameters
    ----------
    largest_of : array, optional
        From `largest_of`. Default: rows are scaled by their own largest entries.
    """
    if type(layer) in RECURRENT.values():
        recurrent: Any = layer
        if largest_of is None:
            largest_of = np.zeros((len(recurrent._scan_weights), 2))
        return QuantizedRecurrent.of(recurrent, largest_of)
    if type(layer) is Linear:
        return QuantizedLinear.of(layer, BY_ROW if largest_of is None else largest_of[0] or BY_ROW)
    if type(layer) is Embedding:
        return QuantizedEmbedding.of(layer)
    if isinstance(layer, RowMap):
        return QuantizedRowMap(layer)
    return None


def restored(layer: Layer, tensors: Mapping[str, Array]) -> Layer:
    """Return the quantized layer of a file, given the float layer that it was made from."""
    kind: Any = {Linear: QuantizedLinear, Embedding: QuantizedEmbedding}.get(type(layer))
    if type(layer) in RECURRENT.values():
        kind = QuantizedRecurrent
    elif isinstance(layer, RowMap):
        kind = QuantizedRowMap
    if kind is None:
        raise ValueError(f"{layer!r}: has no quantized form")
    quantized_layer: Layer = kind.restored(layer, tensors)
    return quantized_layer
