"""Which calls of a module go to the kernels, and which to torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from fastrnn._kernels.weights import Copies
from fastrnn.torch.function import DTYPES

#: Other subclasses of tensors, such as fake ones, have a behaviour of their own.
_PLAIN = (torch.Tensor, torch.nn.Parameter)

#: The packed weights of modules, which are not copied or pickled with these.
_COPIES: WeakKeyDictionary[Any, Copies] = WeakKeyDictionary()


def is_traced() -> bool:
    """Return whether torch records operations, which then have to be its own."""
    traced: bool = torch.compiler.is_compiling() or torch.jit.is_tracing()
    # Modes see every operation: of make_fx, fake tensors, counters.
    return traced or torch._C._len_torch_dispatch_stack() > 0


def are_readable(tensors: Sequence[Any]) -> bool:
    """Return whether kernels can read these: in the CPU's memory, of one dtype, and not empty."""
    dtype = getattr(tensors[0], "dtype", None)
    if dtype not in DTYPES or torch.is_autocast_enabled("cpu"):
        return False
    for t in tensors:
        if type(t) not in _PLAIN or t.dtype is not dtype or not t.is_cpu:
            return False
        if t.layout is not torch.strided or not t.numel():
            return False
    return True


def weights_of(module: Any, names: Sequence[str]) -> list[Any]:
    """Return the weights that the module has now; those that are computed are attributes."""
    own = module._parameters
    return [own[n] if n in own else getattr(module, n) for n in names]


def copies_of(module: Any) -> Copies:
    """Return the module's packed weights."""
    copies = _COPIES.get(module)
    return _COPIES.setdefault(module, {}) if copies is None else copies


def graph_node(module: Any, *inputs: Any) -> Any:
    """Return the node of a call that ``torch.fx`` traces: a leaf, as torch's modules are; or None.

    Parameters
    ----------
    module : torch.nn.Module
    *inputs
        Of the call; None at the end for what was not given.
    """
    x = inputs[0]
    if not isinstance(x, torch.fx.Proxy):
        return None
    given = tuple(i for i in inputs if i is not None)
    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(module), given, {})


def without_kernels(module: Any, base: type) -> Any:
    """Return a module of torch's class that shares all with this one, for ``torch.jit.script``."""
    twin: Any = object.__new__(base)
    twin.__dict__.update(module.__dict__)
    return twin
