"""Models that are no chain of layers: graphs, evaluated by name."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.onnx.graph import Graph, Value


class Model:
    """An ONNX model that is evaluated node by node, for inference.

    Made by :func:`load`. Recurrent operators, and products with constant weights, are run by our
    kernels, the rest by NumPy. Nothing of a call is kept; threads may call it concurrently.

    Attributes
    ----------
    inputs, outputs : tuple of Value
        Each has a `name`, a `dtype` and a `shape`, in which a str stands for any size; either is
        None if the file does not say it.
    opset : int
        The version of ONNX's operators.

    Examples
    --------
    >>> import onnx
    >>> double = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["" : 17]>
    ...     double (float[batch, 3] x) => (float[batch, 3] y) { y = Add(x, x) }
    ... ''')
    >>> model = fastrnn.onnx.load(double.SerializeToString())
    >>> model
    Model(inputs: x float32 (batch, 3); outputs: y float32 (batch, 3); opset 17: Add)
    >>> model([[1, 2, 3]])
    array([[2., 4., 6.]], dtype=float32)
    >>> model.run(["y"], {"x": [[4, 5, 6]]})
    [array([[ 8., 10., 12.]], dtype=float32)]
    """

    def __init__(self, graph: Graph, defaults: Mapping[str, Any], opset: int) -> None:
        self._graph, self._defaults = graph, dict(defaults)
        self._names = tuple(value.name for value in graph.inputs)
        self.inputs: tuple[Value, ...] = graph.inputs
        self.outputs: tuple[Value, ...] = graph.outputs
        self.opset: int = opset

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Evaluate the model.

        Parameters
        ----------
        *inputs : array-like
            In the order of :attr:`inputs`.
        **named : array-like
            By name.

        Returns
        -------
        array, or tuple of array
            The output; a tuple if there are several.

        Raises
        ------
        ValueError, TypeError
            If an input is missing, unknown, or does not fit.
        """
        if len(inputs) > len(self._names):
            raise TypeError(
                f"expected at most {len(self._names)} inputs, {', '.join(self._names)}, got "
                f"{len(inputs)}"
            )
        given = dict(zip(self._names, inputs, strict=False))
        for name in named:
            if name in given:
                raise TypeError(f"{name}: expected one value, got two")
        results = self._evaluated(given | named)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Evaluate the model, with the arguments of ``onnxruntime.InferenceSession.run``.

        Parameters
        ----------
        output_names : sequence of str or None
            None stands for all.
        input_feed : mapping of str to array-like

        Returns
        -------
        list of array
        """
        names = [value.name for value in self.outputs]
        wanted = names if output_names is None else [*output_names]
        for name in wanted:
            _checks.choice(name, "output_names", names)
        if not isinstance(input_feed, Mapping):
            raise TypeError(f"input_feed: expected a mapping, got {type(input_feed).__name__}")
        results = dict(zip(names, self._evaluated(input_feed), strict=True))
        return [results[name] for name in wanted]

    # Infinity and NaN propagate without a warning, as in the kernels.
    @np.errstate(all="ignore")
    def _evaluated(self, given: Mapping[str, Any]) -> list[Any]:
        unknown = [str(name) for name in given if name not in self._names]
        if unknown:
            raise ValueError(
                f"{unknown[0]}: expected one of the inputs {', '.join(self._names)}"
                f"{_checks.near(unknown[0], self._names)}"
            )
        pins = _checks.pinned(*given.values())
        values = []
        for value in self.inputs:
            if value.name in given:
                values.append(_checked(given[value.name], value))
            elif value.name in self._defaults:
                values.append(self._defaults[value.name])
            else:
                raise ValueError(f"{value.name}: is missing; expected {value}")
        results = self._graph.run(values)
        del pins
        # Views of what the caller or the model holds would show later changes of it.
        return [np.array(r) if isinstance(r, np.ndarray) else r for r in results]

    def __repr__(self) -> str:
        def joined(values: Sequence[Value]) -> str:
            return ", ".join(map(str, values))

        kinds = dict.fromkeys(step.node.operator.name for step in self._graph.steps)
        operators = textwrap.shorten(", ".join(kinds), 200, placeholder=" ...")
        return (
            f"Model(inputs: {joined(self.inputs)}; outputs: {joined(self.outputs)}; "
            f"opset {self.opset}: {operators})"
        )


def _checked(given: Any, value: Value) -> Any:
    """Return an input as an array of its dtype and shape."""
    if value.dtype is None:
        if isinstance(given, list):  # a sequence of tensors
            return given
        array = _checks.asarray(given, value.name)
    elif value.dtype == object:
        array = np.asarray(given, object)
    elif value.dtype == bool:
        array = _checks.asarray(given, value.name)
        if array.dtype != bool:
            raise TypeError(f"{value.name}: expected booleans, got dtype {array.dtype}")
    elif value.dtype.kind in "iu":
        bounds = np.iinfo(value.dtype)
        array = _checks.indices(given, value.name, int(bounds.max) + 1, int(bounds.min))
        array = array.astype(value.dtype)
    else:
        array = _checks.asarray(given, value.name)
        if array.dtype != value.dtype:
            array = _checks.numeric(array, value.name).astype(value.dtype)
    return array if value.shape is None else _expect_shape(array, value)


def _expect_shape(array: Array, value: Value) -> Array:
    shape = value.shape or ()
    fits = array.ndim == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{value.name}: expected shape {_checks.shape_text(shape)}, got "
            f"{_checks.shape_text(array.shape)}"
        )
    return array
