"""The interface of ONNX for libraries that run its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend as Base
from onnx.backend.base import BackendRep, namedtupledict

from fastrnn.onnx.loading import model_of
from fastrnn.onnx.model import Model


class Prepared(BackendRep):
    """A model that :meth:`Backend.prepare` made ready to run."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return all outputs, in order and by name.

        Parameters
        ----------
        inputs : sequence of array, mapping of str to array, or array
            In the order of the model's inputs, or by name.
        """
        names = [value.name for value in self._model.inputs]
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) > len(names):
                raise ValueError(f"inputs: expected at most {len(names)}, got {len(inputs)}")
            inputs = dict(zip(names, inputs, strict=False))
        outputs = [value.name for value in self._model.outputs]
        made: tuple[Any, ...] = namedtupledict("Outputs", outputs)(*self._model.run(None, inputs))
        return made


class Backend(Base):
    """ONNX's interface to libraries that run models: ``onnx.backend.base.Backend``.

    Examples
    --------
    >>> import onnx
    >>> node = onnx.helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=2)
    >>> X, W, R = np.ones((4, 1, 3), "f"), np.ones((1, 8, 3), "f"), np.ones((1, 8, 2), "f")
    >>> outputs = fastrnn.onnx.Backend.run_node(node, [X, W, R])
    >>> outputs["Y"].shape
    (4, 1, 1, 2)
    """

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Return whether a model can be run.

        Parameters
        ----------
        model : ModelProto
        device : str
        """
        try:
            model_of(model)
        except ValueError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Return a model ready to run.

        Parameters
        ----------
        model : ModelProto
        device : str
            ``"CPU"``.

        Raises
        ------
        ValueError
            If the model is not valid, or has what is not supported.
        """
        cls._expect_cpu(device)
        return Prepared(model_of(model))

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one operator, and return its outputs, in order and by name.

        Parameters
        ----------
        node : NodeProto
        inputs : sequence of array
            Those that the node names.
        device : str
            ``"CPU"``.
        outputs_info
            Not needed.
        **kwargs
            `opset_version`; default: the newest.
        """
        cls._expect_cpu(device)
        newest = onnx.defs.onnx_opset_version()
        # Each is an input once, however often the node names it.
        names = [*dict.fromkeys(filter(None, node.input))]
        make = onnx.helper.make_empty_tensor_value_info
        graph = onnx.helper.make_graph(
            [node], "node", [make(name) for name in names], [make(n) for n in node.output if n]
        )
        opset = onnx.helper.make_opsetid(node.domain, kwargs.get("opset_version", newest))
        imports = [opset] if node.domain in ("", "ai.onnx") else [opset, _opset_of_onnx(newest)]
        return Prepared(model_of(onnx.helper.make_model(graph, opset_imports=imports))).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Return whether a device is a CPU."""
        return isinstance(device, str) and device.split(":")[0] == "CPU"

    @classmethod
    def _expect_cpu(cls, device: str) -> None:
        if not cls.supports_device(device):
            raise ValueError(f"device: expected 'CPU', got {device!r}")


def _opset_of_onnx(version: int) -> Any:
    return onnx.helper.make_opsetid("", version)


__all__: Sequence[str] = ["Backend", "Prepared"]
