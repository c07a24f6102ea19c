"""Recurrent layers of torch, modules as they are there, run by these kernels on CPUs.

`RNN`, `LSTM`, `GRU` and their cells are subclasses of torch's own, with the same arguments,
parameters and initial weights; `accelerate` turns every such layer of a model into one, and
`restore` turns it back. Optimizers, hooks, ``state_dict``, pickling, parametrizations and pruning
work as they do there. Calls that the kernels don't cover (other devices, half precision,
``torch.compile``, export, tracing) are torch's own. There are no second derivatives, no forward
mode and no vmap. `torch.set_num_threads` sets the number of threads of this package too, and
``torch.backends.mkldnn.rnn.fp32_precision = "bf16"`` rounds operands of matrix products to
bfloat16, as `matmul_precision` does elsewhere in this package.

PyTorch is not installed along with this package, as everyone has a build of their own.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError(
        "fastrnn.torch needs PyTorch: https://pytorch.org/get-started/locally"
    ) from None

from fastrnn.torch.cells import GRUCell as GRUCell
from fastrnn.torch.cells import LSTMCell as LSTMCell
from fastrnn.torch.cells import RNNCell as RNNCell
from fastrnn.torch.layers import GRU as GRU
from fastrnn.torch.layers import LSTM as LSTM
from fastrnn.torch.layers import RNN as RNN
from fastrnn.torch.swap import accelerate as accelerate
from fastrnn.torch.swap import restore as restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "accelerate", "restore"]
