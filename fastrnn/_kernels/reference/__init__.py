"""The pure-NumPy twin of the compiled kernels: ground truth in float64, and the fallback.

Both twins have the names and arguments of ``fastrnn._kernels.interface``.
"""

from fastrnn._kernels.reference.direct import run as run
from fastrnn._kernels.reference.direct import run_back as run_back
from fastrnn._kernels.reference.embedding import add_rows as add_rows
from fastrnn._kernels.reference.embedding import take_rows as take_rows
from fastrnn._kernels.reference.functions import transform as transform
from fastrnn._kernels.reference.functions import transform_back as transform_back
from fastrnn._kernels.reference.linear import PackedLinear as PackedLinear
from fastrnn._kernels.reference.linear import linear as linear
from fastrnn._kernels.reference.linear import linear_backward as linear_backward
from fastrnn._kernels.reference.losses import binary_cross_entropy as binary_cross_entropy
from fastrnn._kernels.reference.losses import cross_entropy as cross_entropy
from fastrnn._kernels.reference.losses import huber as huber
from fastrnn._kernels.reference.losses import mae as mae
from fastrnn._kernels.reference.losses import mse as mse
from fastrnn._kernels.reference.optim import adagrad as adagrad
from fastrnn._kernels.reference.optim import adam as adam
from fastrnn._kernels.reference.optim import rmsprop as rmsprop
from fastrnn._kernels.reference.optim import sgd as sgd
from fastrnn._kernels.reference.optim import squares as squares
from fastrnn._kernels.reference.scan import Gradients as Gradients
from fastrnn._kernels.reference.scan import Packed as Packed
from fastrnn._kernels.reference.scan import Tape as Tape
from fastrnn._kernels.reference.scan import backward as backward
from fastrnn._kernels.reference.scan import forward as forward
from fastrnn._kernels.reference.scan import segment_steps as segment_steps
from fastrnn._kernels.reference.stream import Chain as Chain
from fastrnn._kernels.reference.stream import LinearStepper as LinearStepper
from fastrnn._kernels.reference.stream import RowStepper as RowStepper
from fastrnn._kernels.reference.stream import Stepper as Stepper
from fastrnn._kernels.reference.stream import TableStepper as TableStepper
