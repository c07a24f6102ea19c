"""ONNX models, read and written. Requires onnx: ``pip install 'fastrnn[onnx]'``."""

try:
    import onnx as _onnx  # noqa: F401
except ImportError:
    raise ImportError("fastrnn.onnx needs onnx: pip install 'fastrnn[onnx]'") from None

from fastrnn.onnx.writing import save as save

__all__ = ["save"]
