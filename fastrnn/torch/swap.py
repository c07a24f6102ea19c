"""Turning torch's recurrent layers into ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fastrnn.torch import cells, layers

_OURS = {
    getattr(torch.nn, ours.__name__): ours
    for ours in (layers.RNN, layers.LSTM, layers.GRU, cells.RNNCell, cells.LSTMCell, cells.GRUCell)
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def accelerate(module: Any) -> Any:
    """Let the kernels run every ``torch.nn.RNN``, ``LSTM``, ``GRU`` and cell of a model.

    Each becomes the class of the same name in ``fastrnn.torch``, in place: it stays the same object
    with the same parameters and hooks, so optimizers and references to it remain valid. Subclasses
    of torch's layers with code of their own are left as they are. What looks for torch's layers by
    their exact type, as dynamic quantization does, comes before this or after :func:`restore`.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
        The same.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 5), "head": torch.nn.Linear(5, 2)})
    >>> optimizer = torch.optim.Adam(net.parameters())
    >>> net is fastrnn.torch.accelerate(net)
    True
    >>> isinstance(net["encoder"], fastrnn.torch.GRU)
    True
    """
    return _swapped(module, _OURS)


def restore(module: Any) -> Any:
    """Turn every recurrent layer of ``fastrnn.torch`` in a model into torch's: see `accelerate`.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    module : torch.nn.Module
        The same.

    Examples
    --------
    >>> import torch
    >>> type(fastrnn.torch.restore(fastrnn.torch.GRU(3, 5))) is torch.nn.GRU
    True
    """
    return _swapped(module, _THEIRS)


def _swapped(module: Any, classes: Mapping[Any, Any]) -> Any:
    """Replace the class of each module in place."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for inner in module.modules():
        kind = type(inner)
        if kind in classes:
            inner.__class__ = classes[kind]
        elif torch.nn.utils.parametrize.is_parametrized(inner) and kind.__base__ in classes:
            # A parametrization gave the module a class of its own, derived from its class.
            body = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
            inner.__class__ = type(kind.__name__, (classes[kind.__base__],), body)
    return module
