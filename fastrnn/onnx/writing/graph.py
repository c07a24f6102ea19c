"""An ONNX graph that is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fastrnn._types import Array
from fastrnn._version import __version__

#: The version of the operators, the first with LayerNormalization, and of the format that came with
#: it: ONNX 1.12 and ONNX Runtime 1.12 (2022) and all later ones read them.
OPSET, IR_VERSION = 17, 8
#: ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"
#: Protocol buffers end at 2 GiB; this much is left for all but the weights.
MOST_BYTES = 2**31 - 2**20

#: The size of each axis: a number, or the name of one that differs from call to call.
Shape = Sequence[int | str]


class Graph:
    """Nodes, weights, inputs and outputs, by the names of the values that they pass on."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._names: dict[str, int] = {}

    def inner(self) -> Graph:
        """Return a graph inside this one, such as the body of a loop, which sees its values."""
        graph = Graph()
        graph._constants, graph._names = self._constants, self._names
        return graph

    def new_name(self, stem: str) -> str:
        """Return a name that no value has."""
        n = self._names[stem] = self._names.get(stem, -1) + 1
        return f"{stem}_{n}" if n else stem

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return that; an input "" is left out."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(
        self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node, and return its outputs."""
        names = [self.new_name(kind.lower()) for _ in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        node = helper.make_node(kind, inputs, names, name=f"/{names[0]}", domain=domain, **given)
        self._nodes.append(node)
        return names

    def weight(self, array: Array, name: str) -> str:
        """Add a weight, and return its name."""
        name = self.new_name(name)
        self._constants[name] = array
        return name

    def widened(self, values: str, scale: str) -> str:
        """Return int8 values as float32, times their scales."""
        return self.op("Mul", self.op("Cast", values, to=onnx.TensorProto.FLOAT), scale)

    def integers(self, *values: int) -> str:
        """Add a vector of int64, such as axes, once for all nodes, and return its name."""
        name = "int64_" + "_".join(map(str, values)).replace("-", "m")
        self._constants[name] = np.array(values, np.int64)
        return name

    def integer(self, value: int) -> str:
        """Add a scalar int64, once for all nodes, and return its name."""
        name = f"scalar_{value}"
        self._constants[name] = np.array(value, np.int64)
        return name

    def input(self, name: str, dtype: Any, shape: Shape) -> str:
        """Add an input, and return its name."""
        self._inputs.append(_declared(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: Shape) -> None:
        """Give out a value under this name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"/{name}"))
        self._outputs.append(_declared(name, dtype, shape))

    def proto(self, name: str, initializers: Sequence[Any] = ()) -> Any:
        """Return the graph as ONNX has it."""
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, initializers)

    def model(self, name: str, properties: Mapping[str, str] | None = None) -> Any:
        """Return the ModelProto, with these properties.

        Raises
        ------
        ValueError
            If it is too large for ONNX's format.
        """
        size = sum(array.nbytes for array in self._constants.values())
        if size > MOST_BYTES:
            raise ValueError(
                f"model: expected weights of at most {MOST_BYTES} bytes, which is what an ONNX "
                f"file can hold, got {size}"
            )
        initializers = [numpy_helper.from_array(a, n) for n, a in self._constants.items()]
        domains = {"": OPSET} | {node.domain: 1 for node in self._nodes if node.domain == MICROSOFT}
        model = helper.make_model(
            self.proto(name, initializers),
            opset_imports=[helper.make_opsetid(*domain) for domain in domains.items()],
            ir_version=IR_VERSION,
            producer_name="fastrnn",
            producer_version=__version__,
        )
        helper.set_model_props(model, dict(properties or {}))
        return model


def _declared(name: str, dtype: Any, shape: Shape) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
