"""RNN, LSTM and GRU for CPUs, forward and backpropagation through time."""

from fastrnn._config import get_num_threads as get_num_threads
from fastrnn._config import set_num_threads as set_num_threads
from fastrnn._config import show_config as show_config
from fastrnn._dispatch import backend as backend
from fastrnn._dispatch import backends as backends
from fastrnn._dispatch import use_backend as use_backend
from fastrnn._version import __version__ as __version__
from fastrnn.layers import GRU as GRU
from fastrnn.layers import LSTM as LSTM
from fastrnn.layers import RNN as RNN
from fastrnn.layers import Stream as Stream
