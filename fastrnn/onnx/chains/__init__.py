"""Graphs that are chains of layers, and the functions that recognise each operator in them."""

from fastrnn.onnx.chains import normalization as normalization
from fastrnn.onnx.chains import recurrent as recurrent
from fastrnn.onnx.chains import shapes as shapes
from fastrnn.onnx.chains import stateless as stateless
