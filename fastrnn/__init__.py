"""RNN, LSTM and GRU for CPUs, forward and backpropagation through time.

Layers have the names, arguments, shapes and weights of ``torch.nn``, and work on NumPy arrays:

>>> import numpy as np
>>> import fastrnn
>>> lstm = fastrnn.LSTM(input_size=8, hidden_size=32, seed=0)
>>> x = np.random.default_rng(0).normal(size=(100, 4, 8))  # (time, batch, input)
>>> y, (h, c) = lstm(x)  # inference
>>> y.shape
(100, 4, 32)
>>> y, state, tape = lstm.forward(x)  # training: keep a tape ...
>>> dx, dstate, grads = lstm.backward(tape, dy=np.ones_like(y))  # ... and go back through time
>>> fastrnn.optim.Adam(lr=1e-3).step(lstm.parameters(), grads)

Whole models have the methods of Keras, with the batch first:

>>> X = np.random.default_rng(0).normal(size=(100, 20, 8))  # (batch, time, input)
>>> labels = (X[:, -1, 0] > 0).astype(int)
>>> model = fastrnn.Sequential(
...     [fastrnn.GRU(8, 16, return_sequences=False), fastrnn.Linear(16, 2)], seed=0
... )
>>> model.compile("adam", "cross_entropy", metrics=["accuracy"])
>>> history = model.fit(X, labels, epochs=2, validation_split=0.2, verbose=0)
>>> model.predict(X).shape
(100, 2)

Here are the layers, `Sequential`, `load`, `quantize`, and what chooses backends and threads. In
modules:

- `losses`, `optim`, `schedules`, `callbacks`: how to train;
- `text`, `forecast`, `sklearn`: models of texts and of time series, and scikit-learn estimators;
- `torch`, `onnx`, `keras`: the layers as PyTorch modules, ONNX models, and models of Keras;
- `dask`: predictions and forecasts of data that are in Dask;
- `functional`, `layouts`: forward and backward on one's own arrays, and weights of tutorials.
"""

import typing as _typing

try:
    import numpy as _numpy  # noqa: F401
except ImportError as _error:
    if "once per process" in str(_error) or "interpreter" in str(_error):
        raise ImportError(
            "fastrnn needs NumPy, which can be used by one interpreter of a process only, and this "
            "is another one: use threads or processes instead of subinterpreters; with mod_wsgi, "
            "WSGIApplicationGroup %{GLOBAL}"
        ) from _error
    raise

from fastrnn import losses as losses
from fastrnn import optim as optim
from fastrnn._core import threadpools as _threadpools
from fastrnn._core.config import get_num_threads as get_num_threads
from fastrnn._core.config import set_num_threads as set_num_threads
from fastrnn._core.config import show_config as show_config
from fastrnn._kernels.dispatch import backend as backend
from fastrnn._kernels.dispatch import backends as backends
from fastrnn._kernels.dispatch import use_backend as use_backend
from fastrnn._load import load as load
from fastrnn._quantize import quantize as quantize
from fastrnn._version import __version__ as __version__
from fastrnn.layers import *  # noqa: F403
from fastrnn.models.sequential import Sequential as Sequential

_threadpools.follow()

if _typing.TYPE_CHECKING:  # for editors
    from fastrnn import callbacks as callbacks
    from fastrnn import dask as dask
    from fastrnn import forecast as forecast
    from fastrnn import functional as functional
    from fastrnn import keras as keras
    from fastrnn import layouts as layouts
    from fastrnn import onnx as onnx
    from fastrnn import schedules as schedules
    from fastrnn import sklearn as sklearn
    from fastrnn import text as text
    from fastrnn import torch as torch

#: Modules that are imported when they are first asked for.
_LAZY = frozenset({"callbacks", "forecast", "functional", "layouts", "schedules", "text"})

#: Likewise, each with the name of a package: a star import must neither need nor hide that.
_EXTRAS = frozenset({"dask", "keras", "onnx", "sklearn", "torch"})

#: All public names, save `models`, which holds none of its own.
__all__ = sorted({*(n for n in globals() if n[0] != "_"), *_LAZY} - {"models"})


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_EXTRAS})


def __getattr__(name: str) -> _typing.Any:
    if name not in _LAZY and name not in _EXTRAS:
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    from importlib import import_module

    try:
        return import_module(f"fastrnn.{name}")
    except ImportError as error:
        # As for hasattr and help, which only look: `import fastrnn.sklearn` says the same.
        raise AttributeError(str(error)) from error
