"""Layers: objects that hold weights."""

from fastrnn.layers.cells import GRUCell as GRUCell
from fastrnn.layers.cells import LSTMCell as LSTMCell
from fastrnn.layers.cells import RNNCell as RNNCell
from fastrnn.layers.dropout import Dropout as Dropout
from fastrnn.layers.embedding import Embedding as Embedding
from fastrnn.layers.linear import Linear as Linear
from fastrnn.layers.recurrent import GRU as GRU
from fastrnn.layers.recurrent import LSTM as LSTM
from fastrnn.layers.recurrent import RNN as RNN
from fastrnn.layers.stream import Stream as Stream
