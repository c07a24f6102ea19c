"""The peers: fastrnn, NumPy, torch and ONNX Runtime.

A peer makes contenders for a problem and a number of threads: each way to do the work that may be
its fastest; none if it can't do it. All get the problem's arrays and weights beforehand.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench.plain import PLAIN
from fastrnn._bench.rows import BOUNDS, Problem, difference, gradients
from fastrnn._bench.timing import Contender
from fastrnn._types import Array

Make = Callable[[Problem, int], Sequence[Contender]]


@dataclass(frozen=True)
class Peer:
    """A library to be measured.

    Attributes
    ----------
    make : callable
        Makes contenders from a problem and a number of threads.
    modules : tuple of str
        Modules that it imports; the version of the first is reported.
    about : str
        A description, if the name does not suffice.
    sets_threads : bool
        Whether `make` can set the number of threads; if not, it is that of the process.
    precision : {"bfloat16", "int8"}, optional
        Of the operands of its matrix products. Default: the row's dtype.
    """

    make: Make
    modules: tuple[str, ...]
    about: str = ""
    sets_threads: bool = True
    precision: str | None = None

    def missing(self) -> list[str]:
        """Return the modules that are not installed."""
        return [name for name in self.modules if importlib.util.find_spec(name) is None]

    def version(self) -> str:
        """Return the description, and the version of the first module."""
        version = f"{self.modules[0]} {importlib.import_module(self.modules[0]).__version__}"
        return f"{self.about}, {version}" if self.about else version


def ours(problem: Problem, threads: int, layer: Any = None) -> list[Contender]:
    """Make a contender on the current backend, of another layer if one is given."""
    return _layer(problem, partial(our_threads, threads), layer or problem.layer())


def reference(problem: Problem, threads: int) -> list[Contender]:
    """Make a contender on the NumPy reference."""
    return _layer(problem, partial(fastrnn.use_backend, "reference"), problem.layer())


@contextmanager
def our_threads(threads: int) -> Iterator[None]:
    """Run the body of a ``with`` on `threads` threads."""
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        yield
    finally:
        fastrnn.set_num_threads(before)


def _layer(
    problem: Problem, scope: Callable[[], AbstractContextManager[Any]], layer: Any
) -> list[Contender]:
    state, x, dy = problem.layer_state(), problem.x, problem.dy

    def training() -> tuple[Array, dict[str, Array]]:
        y, _, tape = layer.forward(x, state)
        return y, layer.backward(tape, dy)

    match problem.row.mode:
        case "step":
            with scope():
                stream = layer.stream(problem.row.B)
            stream.state = state
            step = partial(stream.step, x[0], np.empty_like(dy[0]))
            return [Contender(step, lambda y: {"y": y}, scope)]
        case "forward":
            return [Contender(partial(layer, x, state), lambda r: {"y": r[0]}, scope)]
        case _:
            return [
                Contender(training, lambda r: {"y": r[0]} | gradients(problem.row.of, r[1]), scope)
            ]


def plain_numpy(problem: Problem, threads: int) -> list[Contender]:
    """Make a contender in NumPy as in a tutorial."""
    if problem.row.cell not in PLAIN:
        return []
    cell, x, dy, state = PLAIN[problem.row.cell](problem), problem.x, problem.dy, problem.state

    def step() -> Array:
        nonlocal state
        state, _ = cell.step(x[0], state)
        return state[0]

    def training() -> dict[str, Array]:
        y, saved = cell.forward(x, state)
        return {"y": y} | cell.backward(x, saved, dy)

    match problem.row.mode:
        case "step":
            return [Contender(step, lambda h: {"y": h})]
        case "forward":
            return [Contender(lambda: cell.forward(x, state)[0], lambda y: {"y": y})]
        case _:
            return [Contender(training, lambda results: results)]


def torch(problem: Problem, threads: int, dtype: str | None = None) -> list[Contender]:
    """Make contenders: ``torch.nn``'s layer and, for a step, torch's single-step function.

    Weights and inputs are in the row's dtype, or in another one.
    """
    module = torch_layer(problem)
    if module is None:
        return []
    dtype = dtype or problem.row.dtype
    return torch_contenders(problem, threads, module.to(getattr(_torch(), dtype)), dtype)


def _torch() -> Any:
    return importlib.import_module("torch")


def torch_layer(problem: Problem) -> Any:
    """Return the layer of ``torch.nn`` with the problem's weights, or None if it has none."""
    torch, row = _torch(), problem.row
    if not hasattr(torch.nn, row.cell):
        return None
    module = getattr(torch.nn, row.cell)(row.I, row.H, dtype=getattr(torch, row.dtype))
    module.load_state_dict({f"{n}_l0": torch.from_numpy(w) for n, w in problem.weights.items()})
    return module


def torch_contenders(problem: Problem, threads: int, module: Any, dtype: str) -> list[Contender]:
    """Make contenders of a module that is called as ``torch.nn``'s layers are."""
    torch, row = _torch(), problem.row

    def tensor(array: Array) -> Any:
        return torch.from_numpy(array).to(getattr(torch, dtype))

    x, states = tensor(problem.x), [tensor(s[None]) for s in problem.state]

    @contextmanager
    def scope(inference: bool) -> Iterator[None]:
        torch.set_num_threads(threads)
        with torch.inference_mode(inference):
            yield

    def output(y: Any) -> dict[str, Array]:
        return {"y": _array(y)}

    match row.mode:
        case "step":
            calls = _torch_steps(module, row.of.name, x, states)
            return [Contender(call, output, partial(scope, True)) for call in calls]
        case "forward":
            call = partial(_torch_sequence, module, x, states)
            return [Contender(call, output, partial(scope, True))]
        case _:
            training = _torch_training(problem, module, (x, *states), tensor(problem.dy))
            return [Contender(*training, partial(scope, False))]


def _array(tensor: Any) -> Array:
    """Return a tensor as an array, one of bfloat16 as float32."""
    tensor = tensor.detach()
    array: Array = (tensor.float() if tensor.dtype == _torch().bfloat16 else tensor).numpy()
    return array


def _torch_state(tensors: Any) -> Any:
    return tuple(tensors) if len(tensors) > 1 else tensors[0]


def _torch_sequence(module: Any, x: Any, states: Any) -> Any:
    return module(x, _torch_state(states))[0]


def _torch_steps(module: Any, cell: str, x: Any, states: Any) -> Iterator[Callable[[], Any]]:
    """Yield a step of the layer and, if it is one of ``torch.nn``, of torch's function."""
    state, state_t, x_t = _torch_state(states), _torch_state([s[0] for s in states]), x[0]

    def by_layer() -> Any:
        nonlocal state
        y, state = module(x, state)
        return y[0]

    def by_function() -> Any:
        nonlocal state_t
        state_t = function(x_t, state_t, *weights)
        return state_t[0] if len(states) > 1 else state_t

    yield by_layer
    if hasattr(module, "weight_ih_l0"):
        weights, function = list(module.parameters()), getattr(_torch(), f"{cell}_cell")
        yield by_function


def _torch_training(
    problem: Problem, module: Any, inputs: Any, dy: Any
) -> tuple[Callable[[], Any], Callable[[Any], dict[str, Array]]]:
    """Return a call of forward and BPTT, and a function that names its results."""
    torch, states, weights = _torch(), problem.row.of.states, list(module.parameters())
    wanted = [tensor.clone().requires_grad_() for tensor in inputs]

    def call() -> Any:
        y = _torch_sequence(module, wanted[0], wanted[1:])
        return y, torch.autograd.grad(y, [*wanted, *weights], dy)

    def named(returned: Any) -> dict[str, Array]:
        y, derivatives = returned
        dx, *grads = map(_array, derivatives)
        by_name = dict(zip(problem.weights, grads[len(states) :], strict=True))
        of_states = {f"d{n}": g[0] for n, g in zip(states, grads, strict=False)}
        return {"y": _array(y), "dx": dx} | of_states | by_name

    return call, named


def onnxruntime(
    problem: Problem, threads: int, convert: Callable[[bytes], bytes | None] = lambda model: model
) -> list[Contender]:
    """Make a session on NumPy arrays, and one on bound arrays; float32, no training.

    `convert` may return another model that does the same, or None.
    """
    row = problem.row
    if row.mode == "training" or row.dtype != "float32" or row.cell not in ONNX_GATES:
        return []
    model = convert(onnx_model(problem))
    if model is None:
        return []
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = row.of.states
    feed = {"x": problem.x} | {n: s[None] for n, s in zip(names, problem.state, strict=True)}
    step = row.mode == "step"
    results = [f"{n}_n" for n in names] if step else ["y"]

    def run() -> Any:
        outputs = session.run(results, feed)
        if step:
            feed.update(zip(names, outputs, strict=True))
        return outputs[0]

    # Two bindings alternate: each reads the state that the other wrote, without a copy.
    def value(array: Array) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(array)

    ends = [{n: value(feed[n].copy()) for n in names} for _ in range(2)]
    x, y = value(problem.x), value(np.empty_like(problem.dy[:, None]))
    bindings = []
    for source, target in (ends, ends[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        for n in names:
            binding.bind_ortvalue_input(n, source[n])
        for n, output in {f"{n}_n": target[n] for n in names}.items() if step else [("y", y)]:
            binding.bind_ortvalue_output(n, output)
        # The bindings do not keep the arrays alive; these values do.
        bindings.append((binding, target["h"] if step else y, (x, source, target)))
    turns = cycle(bindings if step else bindings[:1])

    def run_bound() -> Any:
        binding, output, _ = next(turns)
        session.run_with_iobinding(binding)
        return output

    def named(y: Array) -> dict[str, Array]:
        return {"y": y[0] if step else y[:, 0]}

    return [Contender(run, named), Contender(run_bound, lambda y: named(y.numpy()))]


#: ONNX's gate order in terms of torch's, for each layer that ONNX has.
ONNX_GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


def onnx_model(problem: Problem) -> bytes:
    """Make a model of one node: x, h (and c) to y, h_n (and c_n).

    ONNX orders the gates i, o, f, c and z, r, h; fastrnn i, f, g, o and r, z, n.
    """
    onnx: Any = importlib.import_module("onnx")
    helper, row, names = onnx.helper, problem.row, problem.row.of.states
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(row.dtype))

    def reordered(name: str) -> Array:
        gates = np.split(problem.weights[name], len(row.of.gates))
        return np.concatenate([gates[g] for g in ONNX_GATES[row.cell]])

    tensors = {
        "W": reordered("weight_ih")[None],
        "R": reordered("weight_hh")[None],
        "B": np.concatenate([reordered("bias_ih"), reordered("bias_hh")])[None],
    }
    options = {"linear_before_reset": 1} if row.cell == "GRU" else {}
    node = helper.make_node(
        row.cell,
        ["x", "W", "R", "B", "", *names],
        ["y", *(f"{n}_n" for n in names)],
        hidden_size=row.H,
        **options,
    )
    info, state = helper.make_tensor_value_info, [1, row.B, row.H]
    graph = helper.make_graph(
        [node],
        row.cell,
        [info("x", kind, list(problem.x.shape)), *(info(n, kind, state) for n in names)],
        [info("y", kind, [row.T, 1, row.B, row.H]), *(info(f"{n}_n", kind, state) for n in names)],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    # Versions that all recent runtimes can read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


OURS = Peer(ours, ("fastrnn",))
PEERS = {
    "reference": Peer(reference, ("numpy",), "fastrnn's own reference", sets_threads=False),
    "numpy": Peer(plain_numpy, ("numpy",), "a loop over time as in a tutorial", sets_threads=False),
    "torch": Peer(torch, ("torch",)),
    "onnxruntime": Peer(onnxruntime, ("onnxruntime", "onnx")),
}


def accepted(
    peer: Peer, problem: Problem, threads: int, truth: Mapping[str, Array]
) -> tuple[list[Contender], str]:
    """Return a peer's contenders that agree with `truth`, and what is wrong with the others."""
    bound = BOUNDS[peer.precision or problem.row.dtype]
    agreeing, note = [], ""
    # Any version of a peer may fail in any way; the table reports it.
    try:
        for contender in peer.make(problem, threads):
            off = difference(contender.results(problem.row.calls), truth)
            if off <= bound:
                agreeing.append(replace(contender, error=off))
            else:
                note = f"refused: off by {off:.0e}"
    except Exception as error:
        note = f"failed: {type(error).__name__}: {error}"
    return agreeing, note
