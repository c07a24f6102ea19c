"""Callbacks of ``fit``: early stopping, learning rates, progress, checkpoints and pruning."""

from fastrnn.models.callback import Callback as Callback
from fastrnn.models.callback import Logs as Logs
from fastrnn.models.checkpoint import Checkpoint as Checkpoint
from fastrnn.models.history import History as History
from fastrnn.models.monitor import EarlyStopping as EarlyStopping
from fastrnn.models.monitor import ReduceLROnPlateau as ReduceLROnPlateau
from fastrnn.models.progress import ProgressBar as ProgressBar
from fastrnn.models.pruning import OptunaPruning as OptunaPruning

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Logs",
    "OptunaPruning",
    "ProgressBar",
    "ReduceLROnPlateau",
]
