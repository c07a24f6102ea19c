"""The parts of training other than recurrent layers: rows of work, and peers that do the same.

Results are compared with the reference in float64. Timings are of the calls that training makes:
with all checks, allocations and autograd and, where weights are trained, with changed weights each
time.
"""

from __future__ import annotations

import importlib
import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench.peers import Peer, our_threads
from fastrnn._bench.rows import STEPS
from fastrnn._bench.timing import Array, Contender
from fastrnn._kernels.cells import CELLS, CellConfig

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {}, "AdamW": {}, "SGD": {"lr": 0.01, "momentum": 0.9}, "RMSprop": {}, "Adagrad": {},
}  # fmt: skip
#: Names in fastrnn and in torch.
LOSSES = {
    "mse": "mse_loss",
    "mae": "l1_loss",
    "huber": "huber_loss",
    "binary_cross_entropy": "binary_cross_entropy_with_logits",
    "cross_entropy": "cross_entropy",
}
#: Gradients are clipped to this norm, a third of theirs or less.
CLIP_NORM = 100.0


def _lstm_shapes(I: int, H: int) -> dict[str, tuple[int, ...]]:
    return CELLS["lstm"].weight_shapes(CellConfig(input_size=I, hidden_size=H))


@dataclass(frozen=True)
class Row:
    """A piece of work.

    Attributes
    ----------
    part : str
        One of `OPTIMIZERS` or `LOSSES`, Linear or Embedding.
    mode : {"step", "clipped", "loss", "forward", "training"}
        A step of an optimizer, or one with ``clip_norm``; a loss and its gradient; a layer's
        forward, or that and its gradients. An Embedding's training ends with a step of SGD, as each
        library is free to choose how it stores the gradient.
    size : tuple of int
        (I, H) of the LSTM whose parameters are changed; the shape of a loss's input; (in, out,
        rows) of a Linear; (rows of the table, their length, tokens) of an Embedding.
    dtype : {"float32", "float64"}
    """

    part: str
    mode: str
    size: tuple[int, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """Part and mode."""
        return f"{self.part} {self.mode}"

    @property
    def shape(self) -> str:
        """The size, or the number of parameters that an optimizer updates."""
        if self.part not in OPTIMIZERS:
            return ",".join(map(str, self.size))
        return f"{sum(map(prod, _lstm_shapes(*self.size).values())):,}"

    @property
    def calls(self) -> int:
        """Calls after which results are compared: 1 if torch clips gradients in place."""
        return STEPS if self.mode == "step" else 1


@dataclass(frozen=True)
class Problem:
    """The arrays of a row, by name, always the same for a row."""

    row: Row
    arrays: dict[str, Array]

    @classmethod
    def of(cls, row: Row) -> Problem:
        """Make the arrays."""
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(row.dtype)

        if row.part in OPTIMIZERS:
            shapes = _lstm_shapes(*row.size)
            weights = {name: 0.1 * normal(*shape) for name, shape in shapes.items()}
            return cls(row, weights | {f"d{name}": normal(*s) for name, s in shapes.items()})
        if row.part == "cross_entropy":
            n, V = row.size
            return cls(row, {"z": normal(n, V), "t": rng.integers(V, size=n)})
        if row.part in LOSSES:
            return cls(row, {"z": normal(*row.size), "t": rng.random(row.size).astype(row.dtype)})
        I, O, n = row.size
        if row.part == "Linear":
            arrays = {"weight": I**-0.5 * normal(O, I), "bias": normal(O), "x": normal(n, I)}
            return cls(row, arrays | {"dy": normal(n, O)})
        return cls(row, {"weight": normal(I, O), "x": rng.integers(I, size=n), "dy": normal(n, O)})

    def truth(self) -> dict[str, Array]:
        """Return the expected results, from the NumPy reference in float64."""
        exact = {n: a.astype("f8") if a.dtype.kind == "f" else a for n, a in self.arrays.items()}
        row = replace(self.row, dtype="float64")
        with fastrnn.use_backend("reference"):
            return ours(Problem(row, exact), 1)[0].results(row.calls)

    def weights(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return copies of the parameters, and gradients."""
        names = [name for name in self.arrays if f"d{name}" in self.arrays]
        return tuple({n: self.arrays[d + n].copy() for n in names} for d in ("", "d"))

    def change(self, weights: dict[str, Array]) -> dict[str, Array]:
        """Return the changes made by an optimizer, which are small against the weights."""
        return {name: w - self.arrays[name] for name, w in weights.items()}


def ours(problem: Problem, threads: int) -> list[Contender]:
    """Make a contender on the current backend."""
    row, arrays = problem.row, problem.arrays
    scope = partial(our_threads, threads)
    if row.part in OPTIMIZERS:
        clip = {"clip_norm": CLIP_NORM} if row.mode == "clipped" else {}
        optimizer = getattr(fastrnn.optim, row.part)(**OPTIMIZERS[row.part], **clip)
        params, grads = problem.weights()
        step = partial(optimizer.step, params, grads)
        return [Contender(step, lambda _: problem.change(params), scope)]
    if row.part in LOSSES:
        loss = getattr(fastrnn.losses, row.part)
        call = partial(loss.value_and_grad, arrays["z"], arrays["t"])
        return [Contender(call, _loss_and_gradient, scope)]
    layer = getattr(fastrnn, row.part)(*row.size[:2], dtype=row.dtype, seed=0)
    layer.load_state_dict({n: arrays[n] for n in layer.parameters()})
    x, dy = arrays["x"], arrays.get("dy")
    if row.mode == "forward":
        return [Contender(partial(layer, x), lambda y: {"y": y}, scope)]
    params = layer.parameters()

    def linear() -> Any:
        _turn(params["weight"])
        y, tape = layer.forward(x)
        return y, *layer.backward(tape, dy)

    def trained(returned: Any) -> dict[str, Array]:
        y, dx, grads = returned
        return {"y": y, "dx": dx} | grads

    sgd = fastrnn.optim.SGD()

    def embedding() -> None:
        # As `Sequential.fit` does.
        _, tape = layer.forward(x)
        sgd.apply(params, layer.apply_backward(tape, dy, for_update=True)[1])

    if row.part == "Linear":
        return [Contender(linear, trained, scope)]
    return [Contender(embedding, lambda _: {"change": params["weight"] - arrays["weight"]}, scope)]


def _turn(weight: Array) -> None:
    """Change a weight, as between training steps."""
    weight[0, 0] = -weight[0, 0]


def _loss_and_gradient(returned: tuple[Any, Any]) -> dict[str, Array]:
    value, grad = returned
    return {"value": np.array(float(value)), "grad": np.asarray(grad)}


def torch(problem: Problem, threads: int) -> list[Contender]:
    """Make contenders: ``torch.optim``, fused, foreach and plain; autograd for all else."""
    torch: Any = importlib.import_module("torch")
    row, arrays = problem.row, {n: torch.from_numpy(a) for n, a in problem.arrays.items()}

    @contextmanager
    def scope(inference: bool = False) -> Any:
        torch.set_num_threads(threads)
        with torch.inference_mode(inference):
            yield

    def stepping(way: dict[str, bool]) -> Contender:
        # The arrays are NumPy's, as for fastrnn.
        weights, grads = problem.weights()
        params = [torch.nn.Parameter(torch.from_numpy(w)) for w in weights.values()]
        for p, g in zip(params, grads.values(), strict=True):
            p.grad = torch.from_numpy(g)
        optimizer = getattr(torch.optim, row.part)(params, **OPTIMIZERS[row.part], **way)

        def step() -> None:
            if row.mode == "clipped":
                torch.nn.utils.clip_grad_norm_(params, CLIP_NORM)
            optimizer.step()

        return Contender(step, lambda _: problem.change(weights), scope)

    if row.part in OPTIMIZERS:
        can_fuse = "fused" in inspect.signature(getattr(torch.optim, row.part)).parameters
        ways = [{"foreach": True}, {"foreach": False}, *([{"fused": True}] if can_fuse else [])]
        return [stepping(way) for way in ways]
    if row.part in LOSSES:
        loss = getattr(torch.nn.functional, LOSSES[row.part])
        z, t = arrays["z"].requires_grad_(), arrays["t"]

        def value_and_grad() -> Any:
            value = loss(z, t)
            return value.detach(), *torch.autograd.grad(value, z)

        return [Contender(value_and_grad, _loss_and_gradient, scope)]
    x, dy, weight = arrays["x"], arrays.get("dy"), problem.arrays["weight"].copy()
    function = getattr(torch.nn.functional, row.part.lower())
    w = torch.from_numpy(weight).requires_grad_()
    if row.part == "Linear":
        if row.mode == "forward":
            call = partial(function, x, w.detach(), arrays["bias"])
            return [Contender(call, lambda y: {"y": y.numpy()}, partial(scope, True))]
        wanted = [x.requires_grad_(), w, arrays["bias"].requires_grad_()]

        def training() -> Any:
            _turn(weight)
            y = function(*wanted)
            return y, *torch.autograd.grad(y, wanted, dy)

        def trained(returned: Any) -> dict[str, Array]:
            names = ("y", "dx", "weight", "bias")
            return {n: a.detach().numpy() for n, a in zip(names, returned, strict=True)}

        return [Contender(training, trained, scope)]
    if row.mode == "forward":
        call = partial(function, x, w.detach())
        return [Contender(call, lambda y: {"y": y.numpy()}, partial(scope, True))]

    def embedding(sparse: bool, way: dict[str, bool]) -> Contender:
        table = problem.arrays["weight"].copy()
        w = torch.nn.Parameter(torch.from_numpy(table))
        sgd = torch.optim.SGD([w], lr=fastrnn.optim.SGD().lr, **way)

        def step() -> None:
            w.grad = None
            function(x, w, sparse=sparse).backward(dy)
            sgd.step()

        return Contender(step, lambda _: {"change": table - problem.arrays["weight"]}, scope)

    return [embedding(True, {}), embedding(False, {"fused": True})]


def numpy(problem: Problem, threads: int) -> list[Contender]:
    """Make a contender as in a tutorial: matrix products, ``np.add.at``, and two losses."""
    row, arrays = problem.row, problem.arrays

    def linear() -> Any:
        _turn(arrays["weight"])
        W, x, dy = arrays["weight"], arrays["x"], arrays["dy"]
        return {"y": x @ W.T + arrays["bias"], "dx": dy @ W, "weight": dy.T @ x, "bias": dy.sum(0)}

    def embedding() -> Array:
        grad = np.zeros_like(arrays["weight"])
        np.add.at(grad, arrays["x"], arrays["dy"])
        change = np.multiply(grad, -fastrnn.optim.SGD().lr, out=grad)
        arrays["weight"] += change
        return change

    def mse() -> Any:
        d = arrays["z"] - arrays["t"]
        return np.mean(d * d), d * (2 / d.size)

    def cross_entropy() -> Any:
        z, t = arrays["z"], arrays["t"]
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        chosen = np.arange(len(t)), t
        value = -np.log(p[chosen]).mean()
        p[chosen] -= 1
        return value, p / len(t)

    match row.part, row.mode:
        case "mse", _:
            return [Contender(mse, _loss_and_gradient)]
        case "cross_entropy", _:
            return [Contender(cross_entropy, _loss_and_gradient)]
        case "Linear", "forward":
            call = lambda: arrays["x"] @ arrays["weight"].T + arrays["bias"]  # noqa: E731
            return [Contender(call, lambda y: {"y": y})]
        case "Linear", _:
            return [Contender(linear, lambda results: results)]
        case "Embedding", "forward":
            return [Contender(lambda: arrays["weight"][arrays["x"]], lambda y: {"y": y})]
        case "Embedding", _:
            return [Contender(embedding, lambda change: {"change": change})]
    return []


#: By name; the first is fastrnn.
ALL = {
    "fastrnn": Peer(ours, ("fastrnn",)),
    "torch": Peer(torch, ("torch",)),
    "numpy": Peer(numpy, ("numpy",), "as in a tutorial"),
}
