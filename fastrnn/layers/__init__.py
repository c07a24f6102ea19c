"""Layers, recurrent and other: objects that hold weights."""

from fastrnn.layers.activation import Activation, ReLU, Sigmoid, Softmax, Tanh
from fastrnn.layers.base import Layer
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.layers.gru import GRU, GRUCell
from fastrnn.layers.indrnn import IndRNN
from fastrnn.layers.layer_norm import LayerNorm
from fastrnn.layers.linear import Linear
from fastrnn.layers.lstm import LSTM, LSTMCell
from fastrnn.layers.masking import Masking
from fastrnn.layers.normalization import Normalization
from fastrnn.layers.recurrent import RECURRENT as RECURRENT
from fastrnn.layers.rnn import RNN, RNNCell
from fastrnn.layers.single_step import SINGLE_STEPS as SINGLE_STEPS
from fastrnn.layers.stream import Stream

#: Names that ``fastrnn`` exports too.
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Dropout",
    "Embedding",
    "GRUCell",
    "IndRNN",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "Linear",
    "Masking",
    "Normalization",
    "RNNCell",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Stream",
    "Tanh",
]
