"""ONNX models, read and written. Requires onnx: ``pip install 'fastrnn[onnx]'``.

`load` reads a model: as layers, where it is a chain of them, or as a `Model`, which evaluates the
graph. `save` writes layers and models. `Backend` is ONNX's interface to libraries that run models.

Opsets from 7 to the newest are read. RNN, GRU and LSTM are run by our kernels, with all attributes
and inputs, and so are products with constant weights and the ``DynamicQuantizeLSTM`` of ONNX
Runtime. The other operators are those that exported recurrent models have: of arithmetic, shapes,
reductions and normalisation, Loop, Scan and If, and linear models of ``ai.onnx.ml``. What is not
supported is named in the error, with all that is.
"""

try:
    import onnx as _onnx  # noqa: F401
except ImportError:
    raise ImportError("fastrnn.onnx needs onnx: pip install 'fastrnn[onnx]'") from None

from fastrnn.onnx.backend import Backend as Backend
from fastrnn.onnx.loading import load as load
from fastrnn.onnx.model import Model as Model
from fastrnn.onnx.writing import save as save

__all__ = ["Backend", "Model", "load", "save"]
