"""``torch.nn.RNN``, ``LSTM`` and ``GRU``, run by these kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn import _checks
from fastrnn._types import Array
from fastrnn.torch import routing
from fastrnn.torch.function import Call, plan, run
from fastrnn.torch.shapes import Dense, Packed, Shapes


class Layer(torch.nn.RNNBase):
    """What is ours of a layer: its forward."""

    def forward(
        self,
        input: Any,  # noqa: A002 (torch's name)
        hx: Any = None,
        *,
        lengths: Any = None,
        reset: Any = None,
    ) -> Any:
        """Run the layer.

        Parameters
        ----------
        input : (T, B, I) tensor or PackedSequence
            (B, T, I) with `batch_first`; (T, I) unbatched.
        hx : (L*D, B, H) tensor, or for LSTM a pair ``(h_0, c_0)`` of them, optional
            Default: zeros. (L*D, H) unbatched. With `proj_size`, h is (L*D, B, P).
        lengths : (B,) of int, optional
            Number of steps of each row, 1 to T, in any order; the rest is padding, for which the
            output is 0. The final state is the one at the end of the row, where the backward
            direction starts. Default: T.
        reset : (T, B) of bool, optional
            Where the state is zeroed before a step, forward and backward: the first steps of
            episodes. Time first, with `batch_first` too; of a PackedSequence, in the order of the
            batch that was packed. Default: nowhere.

        Returns
        -------
        output : (T, B, D*H) tensor or PackedSequence
            As `input`. With `proj_size`, P in place of H.
        h_n : as `hx`
            The state after the last step.

        Raises
        ------
        ValueError, RuntimeError
            As torch's own. If `lengths` or `reset` don't fit, or are given where torch's own layer
            has to run.
        """
        if not routing.is_traced():
            outputs = self._run(input, hx, lengths, reset)
            if outputs is not None:
                return outputs
        if lengths is not None or reset is not None:
            raise ValueError(
                f"{type(self).__name__}: lengths and reset require an input, states and weights on "
                "the CPU, of float32 or float64 and matching shapes, in a call that is neither "
                "traced nor compiled: torch's layers don't have them"
            )
        return super().forward(input, hx)

    def _run(self, inputs: Any, hx: Any, lengths: Any, reset: Any) -> Any:
        """Return what the kernels return, or None if the call is not for them."""
        node = routing.graph_node(self, inputs, hx)
        if node is not None:
            return node
        packed = isinstance(inputs, PackedSequence)
        x = inputs.data if packed else inputs
        state = [] if hx is None else list(hx) if self.mode == "LSTM" else [hx]
        tensors = [x, *state, *routing.weights_of(self, self._flat_weights_names)]
        shapes = self._shapes(inputs, x) if routing.are_readable(tensors) else None
        if shapes is None:
            return None
        its_plan = plan(
            self.mode.lower(), x.dtype, self.input_size, self.hidden_size, self.proj_size,
            self.bias, self.num_layers, 2 if self.bidirectional else 1,
        )  # fmt: skip
        wanted = [shapes.state(len(its_plan.kinds), n) for n in its_plan.state_sizes]
        if state and [s.shape for s in state] != wanted:
            return None
        if packed:
            _permute(tensors, len(state), inputs.sorted_indices)
        call = Call(its_plan, routing.copies_of(self), shapes, len(state))
        call.lengths, call.reset = _checked(shapes, inputs, lengths, reset)
        call.factors = (None,) * (self.num_layers - 1)
        if self.dropout and self.training:
            width = its_plan.directions * its_plan.state_sizes[0]
            call.factors = [_factors(self.dropout, shapes, width, x) for _ in call.factors]
        y, *state_n = run(call, tensors)
        if packed:
            _permute(state_n, len(state_n), inputs.unsorted_indices, first=0)
            y = PackedSequence(y, *inputs[1:])
        return y, tuple(state_n) if len(state_n) > 1 else state_n[0]

    def _shapes(self, inputs: Any, x: Any) -> Shapes | None:
        """Return the shapes of an input that is as it should be; None for torch to refuse it."""
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            return None
        if inputs is x:
            return Dense(tuple(x.shape[:-1]), self.batch_first)
        sizes = inputs.batch_sizes.numpy(force=True)
        fits = x.dim() == 2 and sizes[-1] > 0 and (np.diff(sizes) <= 0).all()
        return Packed(sizes) if fits and sizes.sum() == len(x) else None


def _permute(tensors: list[Any], count: int, order: Any, first: int = 1) -> None:
    """Reorder the rows of states, `count` of the tensors, as a PackedSequence says."""
    if order is not None:
        for i in range(first, first + count):
            tensors[i] = tensors[i].index_select(1, order)


def _checked(
    shapes: Shapes,
    inputs: Any,
    lengths: Any,
    reset: Any,
) -> tuple[Array | None, Array | None]:
    """Return lengths and resets as the kernels take them, in their order of rows."""
    packed = isinstance(inputs, PackedSequence)
    if packed and lengths is not None:
        raise ValueError("lengths: expected None, as a PackedSequence has its own")
    reset = _checks.reset(reset, shapes.T, shapes.batch)
    if packed and reset is not None and inputs.sorted_indices is not None:
        reset = reset[:, inputs.sorted_indices.numpy()]
    return _checks.lengths(lengths, shapes.T, shapes.batch), reset


def _factors(p: float, shapes: Shapes, width: int, x: Any) -> Array:
    """Draw factors of a layer's output, the ones that torch would draw: 0, or 1/(1-p)."""
    factors = torch.zeros((*shapes.rows, width), dtype=x.dtype)
    if p < 1:
        factors.bernoulli_(1 - p).div_(1 - p)
    drawn: Array = factors.numpy()
    return drawn if drawn.ndim == 3 else shapes.steps(drawn)


class RNN(Layer, torch.nn.RNN):
    """``torch.nn.RNN``, forward and backward through time by these kernels.

    Arguments, attributes, parameters and initial weights are those of ``torch.nn.RNN``, and calls
    that the kernels don't cover are made by it; :meth:`forward` also takes `lengths` and `reset`.

    Parameters
    ----------
    *args, **kwargs
        As of ``torch.nn.RNN``.

    Raises
    ------
    ValueError, TypeError
        As ``torch.nn.RNN`` does.

    Examples
    --------
    >>> import torch
    >>> rnn = fastrnn.torch.RNN(3, 5, nonlinearity="relu", bidirectional=True)
    >>> y, h_n = rnn(torch.ones(7, 2, 3), lengths=[7, 4])
    >>> y.shape, h_n.shape
    (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]))
    >>> y.sum().backward()
    >>> rnn.weight_hh_l0.grad.shape
    torch.Size([5, 5])
    """

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own layer, with the same weights."""
        return routing.without_kernels(self, torch.nn.RNN)


class LSTM(Layer, torch.nn.LSTM):
    """``torch.nn.LSTM``, forward and backward through time by these kernels.

    Arguments, attributes, parameters and initial weights are those of ``torch.nn.LSTM``, and calls
    that the kernels don't cover are made by it; :meth:`forward` also takes `lengths` and `reset`.

    Parameters
    ----------
    *args, **kwargs
        As of ``torch.nn.LSTM``.

    Raises
    ------
    ValueError, TypeError
        As ``torch.nn.LSTM`` does.

    Examples
    --------
    An actor-critic sees episodes that end within a sequence:

    >>> import torch
    >>> lstm = fastrnn.torch.LSTM(3, 5)
    >>> observations, starts = torch.ones(7, 2, 3), torch.zeros(7, 2, dtype=torch.bool)
    >>> starts[4, 1] = True  # an episode of row 1 starts at step 4
    >>> y, (h_n, c_n) = lstm(observations, reset=starts)
    >>> bool((y[4, 1] == y[0, 0]).all())
    True
    """

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own layer, with the same weights."""
        return routing.without_kernels(self, torch.nn.LSTM)


class GRU(Layer, torch.nn.GRU):
    """``torch.nn.GRU``, forward and backward through time by these kernels.

    Arguments, attributes, parameters and initial weights are those of ``torch.nn.GRU``, and calls
    that the kernels don't cover are made by it; :meth:`forward` also takes `lengths` and `reset`.

    Parameters
    ----------
    *args, **kwargs
        As of ``torch.nn.GRU``.

    Raises
    ------
    ValueError, TypeError
        As ``torch.nn.GRU`` does.

    Examples
    --------
    >>> import torch
    >>> from torch.nn.utils.rnn import pack_sequence
    >>> gru = fastrnn.torch.GRU(3, 5, num_layers=2, dropout=0.1)
    >>> ragged = pack_sequence([torch.ones(4, 3), torch.ones(7, 3)], enforce_sorted=False)
    >>> y, h_n = gru(ragged)
    >>> y.data.shape, h_n.shape
    (torch.Size([11, 5]), torch.Size([2, 2, 5]))
    """

    def __prepare_scriptable__(self) -> Any:
        """Return what ``torch.jit.script`` compiles: torch's own layer, with the same weights."""
        return routing.without_kernels(self, torch.nn.GRU)
