"""Layers: objects that hold weights."""

from fastrnn.layers.recurrent import GRU as GRU
from fastrnn.layers.recurrent import LSTM as LSTM
from fastrnn.layers.recurrent import RNN as RNN
from fastrnn.layers.stream import Stream as Stream
