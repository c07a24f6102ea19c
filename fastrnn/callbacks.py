"""Callbacks of ``Sequential.fit``: early stopping, learning rates, progress and checkpoints."""

from fastrnn.models.callback import Callback as Callback
from fastrnn.models.callback import Logs as Logs
from fastrnn.models.checkpoint import Checkpoint as Checkpoint
from fastrnn.models.history import History as History
from fastrnn.models.monitor import EarlyStopping as EarlyStopping
from fastrnn.models.monitor import ReduceLROnPlateau as ReduceLROnPlateau
from fastrnn.models.progress import ProgressBar as ProgressBar

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Logs",
    "ProgressBar",
    "ReduceLROnPlateau",
]
