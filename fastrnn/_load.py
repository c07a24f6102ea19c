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
    "SequenceClassifier": "fastrnn.sklearn",
    "SequenceRegressor": "fastrnn.sklearn",
}

#: What stands for an estimator where scikit-learn is not installed.
_FITTED = {"SequenceClassifier": "FittedClassifier", "SequenceRegressor": "FittedRegressor"}


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model of any kind from the file that its ``save`` wrote, or a ``Checkpoint``.

    The file holds no code, and none is run.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model : Sequential, CharLM, SequenceClassifier, ...
        A ``Sequential`` has to be compiled again before training or evaluation. A
        ``SequenceClassifier`` or ``SequenceRegressor`` comes back as such where scikit-learn is
        installed. Elsewhere, as in a service that has NumPy only, a ``FittedClassifier`` or
        ``FittedRegressor`` takes its place: it has ``predict``, ``predict_proba``, ``stream``,
        ``save``, ``classes_`` and all other attributes, checks and scales what comes in the same
        way, and gives the same bits; it can't be trained or scored.

    Raises
    ------
    ValueError
        If the file is damaged, is not a model, or has an unknown version.
    OSError
        If the file does not exist or can't be read.

    Examples
    --------
    >>> import os, tempfile
    >>> model = fastrnn.Sequential([fastrnn.GRU(2, 4), fastrnn.Linear(4, 1)], seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(os.path.join(folder, "model.safetensors"))
    ...     again = fastrnn.load(os.path.join(folder, "model.safetensors"))
    >>> x = np.ones((3, 5, 2))
    >>> np.array_equal(again.predict(x), model.predict(x))
    True
    """
    kind, model, tensors = model_file.read(path)
    if kind not in _KINDS:
        raise ValueError(f"{os.fspath(path)}: expected one of {', '.join(_KINDS)}, got a {kind!r}")
    return model_file.build(path, _class(kind), model, tensors)


def _class(kind: str) -> Any:
    """Return the class that reads files of a kind."""
    if kind in _FITTED:
        try:
            import sklearn  # noqa: F401
        except ImportError:
            return getattr(import_module("fastrnn.models.fitted"), _FITTED[kind])
    return getattr(import_module(_KINDS[kind]), kind)
