"""Models and layers as ONNX files."""

from fastrnn.onnx.writing.model import save as save
