"""``torch.nn.RNNCell``, ``LSTMCell`` and ``GRUCell``, run by these kernels."""

from __future__ import annotations

from typing import Any

import torch

from fastrnn._kernels.cells import CELLS, WEIGHTS
from fastrnn.torch import routing
from fastrnn.torch.function import Call, plan, run
from fastrnn.torch.shapes import OneStep


class SingleStep(torch.nn.RNNCellBase):
    """What is ours of a cell: its forward."""

    _family: str
    _states = 1

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 (torch's name)
        """Advance by one step.

        Parameters
        ----------
        input : (B, I) or (I,) tensor
        hx : (B, H) or (H,) tensor, or for LSTMCell a pair ``(h, c)`` of them, optional
            Default: zeros.

        Returns
        -------
        hx : as `hx`
            The new state.
        """
        if not routing.is_traced():
            outputs = self._run(input, hx)
            if outputs is not None:
                return outputs
        return super().forward(input, hx)

    def _run(self, x: Any, hx: Any) -> Any:
        """Return what the kernels return, or None if the call is not for them."""
        node = routing.graph_node(self, x, hx)
        if node is not None:
            return node
        state = [] if hx is None else list(hx) if self._states > 1 else [hx]
        names = WEIGHTS if self.bias else WEIGHTS[:2]
        tensors = [x, *state, *routing.weights_of(self, names)]
        cell = f"rnn_{self.nonlinearity}" if self._family == "rnn" else self._family
        if not routing.are_readable(tensors) or cell not in CELLS:
            return None
        I, H = self.input_size, self.hidden_size
        shapes = OneStep(tuple(x.shape[:-1]))
        wanted = shapes.state(1, H)
        if x.dim() not in (1, 2) or x.shape[-1] != I:
            return None
        if state and [s.shape for s in state] != [wanted] * self._states:
            return None
        its_plan = plan(cell, x.dtype, I, H, 0, self.bias, 1, 1)
        call = Call(its_plan, routing.copies_of(self), shapes, len(state), sequences=False)
        state_n = run(call, tensors)
        return state_n if self._states > 1 else state_n[0]


class RNNCell(SingleStep, torch.nn.RNNCell):
    """``torch.nn.RNNCell``, run by these kernels; arguments and parameters are the same.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As of ``torch.nn.RNNCell``.

    Examples
    --------
    >>> import torch
    >>> cell = fastrnn.torch.RNNCell(3, 5, nonlinearity="relu")
    >>> cell(torch.ones(2, 3)).shape
    torch.Size([2, 5])
    """

    _family = "rnn"

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own cell, with the same weights."""
        return routing.without_kernels(self, torch.nn.RNNCell)


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """``torch.nn.LSTMCell``, run by these kernels; arguments and parameters are the same.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.LSTMCell``.

    Examples
    --------
    >>> import torch
    >>> cell = fastrnn.torch.LSTMCell(3, 5)
    >>> h, c = cell(torch.ones(2, 3))
    >>> h, c = cell(torch.ones(2, 3), (h, c))
    >>> h.shape, c.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """

    _family = "lstm"
    _states = 2

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own cell, with the same weights."""
        return routing.without_kernels(self, torch.nn.LSTMCell)


class GRUCell(SingleStep, torch.nn.GRUCell):
    """``torch.nn.GRUCell``, run by these kernels; arguments and parameters are the same.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As of ``torch.nn.GRUCell``.

    Examples
    --------
    >>> import torch
    >>> cell = fastrnn.torch.GRUCell(3, 5, bias=False)
    >>> cell(torch.ones(2, 3), torch.zeros(2, 5)).shape
    torch.Size([2, 5])
    """

    _family = "gru"

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own cell, with the same weights."""
        return routing.without_kernels(self, torch.nn.GRUCell)
