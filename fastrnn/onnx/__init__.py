"""ONNX models, read and written. Requires onnx: ``pip install 'fastrnn[onnx]'``."""

try:
    import onnx as _onnx  # noqa: F401
except ImportError:
    raise ImportError("fastrnn.onnx needs onnx: pip install 'fastrnn[onnx]'") from None

from fastrnn.onnx.backend import Backend as Backend
from fastrnn.onnx.loading import load as load
from fastrnn.onnx.model import Model as Model
from fastrnn.onnx.writing import save as save

__all__ = ["Backend", "Model", "load", "save"]
