"""RNN, LSTM and GRU for CPUs, forward and backpropagation through time."""

from typing import Any

from fastrnn import losses as losses
from fastrnn import optim as optim
from fastrnn._core.config import get_num_threads as get_num_threads
from fastrnn._core.config import set_num_threads as set_num_threads
from fastrnn._core.config import show_config as show_config
from fastrnn._kernels.dispatch import backend as backend
from fastrnn._kernels.dispatch import backends as backends
from fastrnn._kernels.dispatch import use_backend as use_backend
from fastrnn._load import load as load
from fastrnn._version import __version__ as __version__
from fastrnn.layers import *  # noqa: F403
from fastrnn.models.sequential import Sequential as Sequential

#: Modules that are imported when they are first asked for.
_LAZY = frozenset({"callbacks", "forecast", "functional", "sklearn", "text"})


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"fastrnn.{name}")
