"""Loading a model of any kind from its file."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from fastrnn._files import model_file

#: Where each kind of model is defined.
_KINDS = {
    "Sequential": "fastrnn.models.sequential",
    "Checkpoint": "fastrnn.models.checkpoint",
    "CharLM": "fastrnn.text",
    "TextClassifier": "fastrnn.text",
    "Forecaster": "fastrnn.forecast",
}


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model of any kind from the file that its ``save`` wrote, or a ``Checkpoint``.

    The file holds no code, and none is run.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model : Sequential, CharLM, ...
        A ``Sequential`` has to be compiled again before training or evaluation.

    Raises
    ------
    ValueError
        If the file is damaged, is not a model, or has an unknown version.
    OSError
        If the file does not exist or can't be read.
    """
    kind, model, tensors = model_file.read(path)
    if kind not in _KINDS:
        raise ValueError(f"{os.fspath(path)}: expected one of {', '.join(_KINDS)}, got a {kind!r}")
    return model_file.build(path, getattr(import_module(_KINDS[kind]), kind), model, tensors)
