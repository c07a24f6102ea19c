"""The operators of ONNX that graphs can have, by NumPy and by our kernels."""

from fastrnn.onnx.operators import arithmetic as arithmetic
from fastrnn.onnx.operators import classical as classical
from fastrnn.onnx.operators import control as control
from fastrnn.onnx.operators import products as products
from fastrnn.onnx.operators import quantized as quantized
from fastrnn.onnx.operators import recurrent as recurrent
from fastrnn.onnx.operators import reductions as reductions
from fastrnn.onnx.operators import shapes as shapes
