"""A stack of recurrent layers as an autograd function, on tensors that share memory with arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import torch
from torch.autograd import forward_ad

from fastrnn import _checks
from fastrnn._core import config
from fastrnn._core import stack as stacks
from fastrnn._kernels.cells import CELLS, Cell, CellConfig, MatmulPrecision
from fastrnn._kernels.weights import BorrowedWeights, Copies, Kind
from fastrnn._types import Array
from fastrnn.torch.shapes import Shapes

#: The dtypes that the kernels have.
DTYPES: dict[Any, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The scans of a module.

    Attributes
    ----------
    directions : int
        D.
    kinds : tuple
        The kind of each scan's weights.
    present : tuple of bool
        Which of the cell's weights a scan has, in the order of the cell, which is torch's.
    state_sizes : tuple of int
        P, and H of an LSTM.
    """

    cell: Cell
    directions: int
    kinds: tuple[Kind, ...]
    present: tuple[bool, ...]
    state_sizes: tuple[int, ...]

    def of_scan(self, all_weights: Sequence[Any], k: int) -> Sequence[Any]:
        """Return the part of scan k."""
        n = sum(self.present)
        return all_weights[k * n : (k + 1) * n]

    def wanted(self, needs: Sequence[bool]) -> list[bool]:
        """Return of which scans any weight needs a gradient."""
        return [any(self.of_scan(needs, k)) for k in range(len(self.kinds))]


# Asked for at each call, as attributes of torch's modules can be set at any time.
@lru_cache(maxsize=256)
def _plan(
    name: str, dtype: Any, I: int, H: int, P: int, bias: bool, num_layers: int, directions: int,
    precision: MatmulPrecision,
) -> Plan:  # fmt: skip
    """Return the plan of a module with these sizes and options."""
    cell = CELLS[name]
    first = CellConfig(
        input_size=I, hidden_size=H, proj_size=P, bias=bias, matmul_precision=precision
    )
    above = replace(first, input_size=directions * first.output_size)
    configs = [above if layer else first for layer in range(num_layers) for _ in range(directions)]
    there = cell.weight_shapes(first)
    return Plan(
        cell,
        directions,
        tuple((cell, of_scan, DTYPES[dtype]) for of_scan in configs),
        tuple(name in there for name in cell.weights),
        cell.state_sizes(first),
    )


def plan(name: str, dtype: Any, *sizes: int) -> Plan:
    """Return the plan of a module with these sizes and options.

    Products are in bfloat16 where torch was told that its own may be.

    Parameters
    ----------
    name : str
        Of the cell.
    dtype : torch.dtype
    *sizes
        I, H, P or 0, whether there are biases, L, D.
    """
    few_bits = (
        dtype is torch.float32 and torch._C._get_fp32_precision_getter("mkldnn", "rnn") == "bf16"
    )
    return _plan(name, dtype, *sizes, "bfloat16" if few_bits else "float32")


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One call of a module: its options, and its tape once it has run.

    The tensors are x, initial states if any are given, and all weights.

    Attributes
    ----------
    plan : Plan
    copies : dict
        The module's packed weights.
    shapes : Shapes
    given : int
        Number of initial states: that of the cell, or 0.
    sequences : bool
        Whether the output of each step is wanted, rather than the final state alone.
    lengths, reset, factors
        As in ``fastrnn._core.stack.forward``.
    needs : sequence of bool
        Which of the tensors need gradients.
    tape : StackTape or None
        None before the forward, and once its memory was freed.
    """

    plan: Plan
    copies: Copies
    shapes: Shapes
    given: int
    sequences: bool = True
    lengths: Array | None = None
    reset: Array | None = None
    factors: Sequence[Array | None] = ()
    needs: Sequence[bool] = ()
    tape: stacks.StackTape | None = None

    def forward(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """Return the output of each step, if wanted, and the final state."""
        plan, shapes, scans = self.plan, self.shapes, len(self.plan.kinds)
        x, *arrays = map(_array, tensors)
        dtype, keep = x.dtype, any(self.needs)
        steps = shapes.steps(_checks.array(x, "x", dtype))
        state: list[Array | None] = [None] * len(plan.state_sizes)
        if self.given:
            state = [_rows(a, scans) for a in arrays[: self.given]]
        state_n = [np.empty(shapes.state(scans, n), dtype) for n in plan.state_sizes]
        y = y_steps = None
        if self.sequences:
            y, y_steps = shapes.new(plan.directions * plan.state_sizes[0], dtype)
        self.tape = stacks.forward(
            self._weights(arrays[self.given :]),
            steps,
            state,
            y_steps,
            [_rows(s, scans) for s in state_n],
            factors=self.factors,
            keep=keep,
            keep_from=self._lowest() if keep else 0,
            lengths=shapes.lengths if self.lengths is None else self.lengths,
            reset=self.reset,
        )
        outputs = state_n if y is None else [shapes.given(y), *state_n]
        return tuple(map(torch.from_numpy, outputs))

    def backward(self, gradients: Sequence[Any]) -> list[Any]:
        """Return the gradients of the tensors, None where they are not needed."""
        tape, plan, shapes, scans = self.tape, self.plan, self.shapes, len(self.plan.kinds)
        assert tape is not None
        _, first, dtype = plan.kinds[0]
        arrays = [None if d is None else _array(d) for d in gradients]
        dy = arrays.pop(0) if self.sequences else None
        dx = dx_steps = None
        if self.needs[0]:
            dx, dx_steps = shapes.new(first.input_size, dtype)
        dstate = [np.empty(shapes.state(scans, n), dtype) for n in plan.state_sizes]
        of_scans = stacks.backward(
            tape,
            plan.kinds,
            None if dy is None else shapes.steps(_checks.array(dy, "dy", dtype)),
            [None if d is None else _rows(d, scans) for d in arrays],
            dx_steps,
            [_rows(d, scans) for d in dstate],
            num_layers=scans // plan.directions,
            wanted=plan.wanted(self.needs[1 + self.given :]),
        )
        found = [None if dx is None else shapes.given(dx), *dstate[: self.given]]
        for grads in of_scans:
            of_scan = grads or [None] * len(plan.present)
            found += [g for g, there in zip(of_scan, plan.present, strict=True) if there]
        return [
            torch.from_numpy(a) if a is not None and need else None
            for a, need in zip(found, self.needs, strict=True)
        ]

    def _weights(self, arrays: Sequence[Array]) -> list[BorrowedWeights]:
        """Return the weights of each scan."""
        plan, weights = self.plan, []
        for k, kind in enumerate(plan.kinds):
            own = map(np.ascontiguousarray, plan.of_scan(arrays, k))
            of_scan = [next(own) if there else None for there in plan.present]
            weights.append(BorrowedWeights(kind, of_scan, self.copies, k))
        return weights

    def _lowest(self) -> int:
        """Return the lowest layer that any gradient has to reach."""
        if any(self.needs[: 1 + self.given]):
            return 0
        return self.plan.wanted(self.needs[1 + self.given :]).index(True) // self.plan.directions


def _array(tensor: Any) -> Array:
    """Return the tensor's memory as an array."""
    try:
        array: Array = tensor.numpy(force=True)
    except RuntimeError:  # no memory of its own: a batch of several, as of gradients in a jacobian
        _refuse("vmap")
    return array


def _rows(state: Array, scans: int) -> Array:
    """Return the caller's state as (L*D, B, n): a view where it is contiguous."""
    return np.ascontiguousarray(state).reshape(scans, -1, state.shape[-1])


#: The number of torch's threads when it was last looked at.
_torch_threads = torch.get_num_threads()


def _follow_threads() -> None:
    """Take over the number of threads that torch was set to since the last call."""
    global _torch_threads
    number = torch.get_num_threads()
    if number != _torch_threads:
        _torch_threads = number
        config.set_num_threads(number)


def run(call: Call, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Run a call, recorded by autograd if any of its tensors needs a gradient."""
    _follow_threads()
    transforms = torch._C._are_functorch_transforms_active()
    grad = torch.is_grad_enabled() or transforms
    call.needs = [grad and t.requires_grad for t in tensors]
    outputs: tuple[Any, ...]
    if transforms:
        outputs = _TransformedScan.apply(call, *tensors)
    elif any(call.needs) or forward_ad._current_level >= 0:
        outputs = _Scan.apply(call, *tensors)
    else:
        outputs = call.forward(tensors)
    return outputs


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"fastrnn.torch: there is no {what} of recurrent layers here; torch's own may have it: "
        "fastrnn.torch.restore(module) puts them back"
    )


def _keep(ctx: Any, call: Call, tensors: Sequence[Any]) -> None:
    """Keep a call that has run for its backward.

    What that needs is on the tape. The tensors are for a gradient of the gradient, so that it is
    noticed, and for the case that something else, such as a checkpoint, cares for what is saved:
    then backward runs the call again.
    """
    ctx.call = call
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        call.tape = None


class _Differentiable(torch.autograd.Function):
    """The gradients of a call. Backward frees the tape when torch frees the graph."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        call = ctx.call
        if call.tape is None:
            call.forward(ctx.saved_tensors)  # raises torch's error if they were freed with the tape
        if torch.is_grad_enabled():
            found = _Gradient.apply(call, len(gradients), *gradients, *ctx.saved_tensors)
        else:
            found = call.backward(gradients)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            call.tape = None
        return None, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        _refuse("forward-mode gradient")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> NoReturn:
        _refuse("vmap")


class _Scan(_Differentiable):
    """A call that autograd records."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Any) -> tuple[Any, ...]:
        outputs = call.forward(tensors)
        _keep(ctx, call, tensors)
        return outputs


class _TransformedScan(_Differentiable):
    """The same in the form that ``torch.func`` requires, which takes longer to call."""

    @staticmethod
    def forward(call: Call, *tensors: Any) -> tuple[Any, ...]:
        return call.forward(tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        call, *tensors = inputs
        _keep(ctx, call, tensors)


class _Gradient(torch.autograd.Function):
    """The gradient of a call, which has none itself."""

    @staticmethod
    def forward(call: Call, count: int, *tensors: Any) -> tuple[Any, ...]:
        return tuple(call.backward(tensors[:count]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> NoReturn:
        _refuse("second derivative")
