"""Random configurations of everything that torch has too: outputs and gradients in float64.

python benchmarks/torch_witness.py [--count 2000] [--seed 0]      (pip install torch==2.13.0)

Every backend of the machine runs each configuration. A mismatch ends the run with its number and
configuration; ``--only NUMBER`` runs that one again. The largest errors are those of a single
saturated unit, where 1 - tanh^2 cancels, in torch too.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from tqdm import tqdm

import fastrnn
from fastrnn._bench.rows import DEFAULTS
from fastrnn.layers import RECURRENT

TOLERANCE = 1e-10
#: Layers and nonlinearities of all cells for which torch has a single-step function.
LAYERS = [
    (layer.__name__, options.get("nonlinearity"))
    for layer in RECURRENT.values()
    for cell, options in layer.cells.items()
    if hasattr(torch, f"{cell}_cell")
]
QUANTITIES = ("y", "states", "dx", "dstate", "weights")


@dataclass(frozen=True)
class Configuration:
    """A layer, and how it is called; `B` is None if the call is unbatched."""

    layer: str
    input_size: int
    hidden_size: int
    options: dict[str, Any]
    T: int
    B: int | None
    lengths: bool
    reset: bool
    state: bool
    training: bool
    used: tuple[str, ...]


def drawn(rng: np.random.Generator) -> Configuration:
    """Draw a configuration: each option independently, where torch has it."""
    layer, nonlinearity = LAYERS[rng.integers(len(LAYERS))]
    I, H, T = rng.integers(1, 41), rng.integers(1, 41), rng.integers(1, 31)
    B = rng.integers(1, 13) if rng.random() < 0.85 else None
    L, reset = rng.integers(1, 4), rng.random() < 0.15
    options = {
        "num_layers": int(L),
        "bias": rng.random() < 0.7,
        "batch_first": rng.random() < 0.5,
        # The loop that implements resets only runs forward.
        "bidirectional": not reset and rng.random() < 0.5,
    }
    if nonlinearity:
        options["nonlinearity"] = nonlinearity
    cell = DEFAULTS[layer]
    if "projection" in cell.options and H > 1 and rng.random() < 0.5:
        options["proj_size"] = int(rng.integers(1, H))
    training = rng.random() < 0.5
    if L > 1 and rng.random() < 0.4:
        # Training mode only without dropout, which is random.
        options["dropout"] = 1.0 if training else 0.5
    outputs = ("y", *cell.states)
    chosen = rng.integers(1, 2 ** len(outputs))
    return Configuration(
        layer=layer,
        input_size=int(I),
        hidden_size=int(H),
        options=options,
        T=int(T),
        B=B if B is None else int(B),
        lengths=B is not None and rng.random() < 0.5,
        reset=reset,
        state=rng.random() < 0.6,
        training=training,
        used=tuple(name for k, name in enumerate(outputs) if chosen >> k & 1),
    )


def tuples(nest: Any) -> tuple[Any, ...]:
    return nest if isinstance(nest, tuple) else (nest,)


def untupled(items: tuple[Any, ...]) -> Any:
    return items if len(items) > 1 else items[0]


class MissError(Exception):
    """fastrnn and torch disagree."""


def expect(holds: bool, says: str) -> None:
    if not holds:
        raise MissError(says)


class Case:
    """A configuration with its arrays, and torch's results for them."""

    def __init__(self, configuration: Configuration, rng: np.random.Generator) -> None:
        self.of = of = configuration
        I, H, T, B = of.input_size, of.hidden_size, of.T, of.B
        D, P = 1 + of.options["bidirectional"], of.options.get("proj_size", H)
        batch_first = of.options["batch_first"]
        batch = () if B is None else (B,)
        lead = (B, T) if B is not None and batch_first else (T, *batch)
        torch.manual_seed(int(rng.integers(2**31)))
        self.module = self.torch_module()
        self.x, self.dy = rng.normal(size=(*lead, I)), rng.normal(size=(*lead, D * P))
        sizes = (P, *[H] * (len(DEFAULTS[of.layer].states) - 1))
        shapes = [(of.options["num_layers"] * D, *batch, n) for n in sizes]
        self.state = tuple(rng.uniform(-1, 1, s) for s in shapes) if of.state else None
        self.dstate = tuple(rng.normal(size=s) for s in shapes)
        self.lengths = rng.integers(1, T + 1, batch) if of.lengths else None
        self.reset = rng.random((T, *batch)) < 0.2 if of.reset else None
        self.weights = {n: p.numpy().copy() for n, p in self.module.state_dict().items()}
        self.expected = dict(self.torch_results())

    def torch_module(self) -> torch.nn.RNNBase:
        """Make a module with new weights."""
        of = self.of
        make = getattr(torch.nn, of.layer)
        module = make(of.input_size, of.hidden_size, dtype=torch.float64, **of.options)
        return module.train(of.training)

    def torch_results(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield outputs and gradients, by name; zeros where torch gives None."""
        x = torch.from_numpy(self.x).requires_grad_()
        state = None
        if self.state is not None:
            state = tuple(torch.from_numpy(s).requires_grad_() for s in self.state)
        y, state_n = self.torch_forward(x, state)
        outputs = dict(zip("yhc", (y, *state_n), strict=False))
        d_outputs = dict(zip("yhc", map(torch.from_numpy, (self.dy, *self.dstate)), strict=False))
        torch.autograd.backward(
            [outputs[n] for n in self.of.used], [d_outputs[n] for n in self.of.used]
        )
        leaves = {"dx": x, **{f"d{n}_0": s for n, s in zip("hc", state or (), strict=False)}}
        leaves |= {f"d{n}": p for n, p in self.module.named_parameters()}
        yield "y", y.detach().numpy()
        for name, s in zip("hc", state_n, strict=False):
            yield f"{name}_n", s.detach().numpy()
        for name, leaf in leaves.items():
            yield name, (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).numpy()

    def torch_forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, ...] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return output and final states, using a packed sequence if there are lengths."""
        if self.reset is not None:
            return self.torch_step_by_step(x, state)
        given = None if state is None else untupled(state)
        if self.lengths is None:
            y, state_n = self.module(x, given)
            return y, tuples(state_n)
        batch_first = self.module.batch_first
        packed = pack_padded_sequence(
            x, torch.from_numpy(self.lengths), batch_first, enforce_sorted=False
        )
        y, state_n = self.module(packed, given)
        y, _ = pad_packed_sequence(y, batch_first, total_length=self.of.T)
        return y, tuples(state_n)

    def torch_step_by_step(
        self, x: torch.Tensor, state: tuple[torch.Tensor, ...] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Implement `reset` and `lengths` by torch's single steps, and choices between them."""
        assert self.reset is not None
        time_axis = 1 if self.module.batch_first and x.ndim == 3 else 0
        if state is None:
            state = tuple(torch.zeros(s.shape, dtype=x.dtype) for s in self.dstate)
        ends = self.of.T if self.lengths is None else torch.from_numpy(self.lengths)[:, None]
        ys = []
        for t, x_t in enumerate(x.split(1, time_axis)):
            kept = torch.from_numpy(~self.reset[t, ..., None])
            runs = torch.as_tensor(t < ends)
            y, new = self.module(x_t, untupled(tuple(s * kept for s in state)))
            state = tuple(n.where(runs, s) for n, s in zip(tuples(new), state, strict=True))
            ys.append(y.movedim(time_axis, 0) * runs)
        return torch.cat(ys).movedim(0, time_axis), state

    def check_weights_there_and_back(self) -> None:
        """Check that state dicts have the same names in the same order, and the same bits."""
        ours, theirs = self.our_layer(), self.torch_module()
        theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
        for copies in (ours.state_dict(), {n: p.numpy() for n, p in theirs.state_dict().items()}):
            expect(list(copies) == list(self.weights), f"state_dict: other names, {list(copies)}")
            for name, want in self.weights.items():
                expect(copies[name].shape == want.shape, f"state_dict {name}: another shape")
                expect(copies[name].tobytes() == want.tobytes(), f"state_dict {name}: other bits")

    def our_layer(self) -> Any:
        """Make a layer with torch's weights."""
        of = self.of
        layer = getattr(fastrnn, of.layer)(
            of.input_size, of.hidden_size, dtype=np.float64, **of.options
        )
        layer.load_state_dict(self.module.state_dict())
        return layer.train(of.training)

    def our_results(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the results of fastrnn, by the same names."""
        layer = self.our_layer()
        y, state_n, tape = layer.forward(
            self.x,
            None if self.state is None else untupled(self.state),
            lengths=self.lengths,
            reset=self.reset,
        )
        dy, *dstate = (
            d if n in self.of.used else None
            for n, d in zip("yhc", (self.dy, *self.dstate), strict=False)
        )
        dx, dstate_0, grads = layer.backward(tape, dy, untupled(tuple(dstate)))
        yield "y", y
        for name, s in zip("hc", tuples(state_n), strict=False):
            yield f"{name}_n", s
        yield "dx", dx
        if self.state is not None:
            for name, d in zip("hc", tuples(dstate_0), strict=False):
                yield f"d{name}_0", d
        for name, g in grads.items():
            yield f"d{name}", g


def quantity(name: str) -> str:
    """Return which of QUANTITIES a result belongs to."""
    if name in ("y", "dx"):
        return name
    return {"_n": "states", "_0": "dstate"}.get(name[-2:], "weights")


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference over the largest entry; if `want` is 0, `got` must be too."""
    expect(got.shape == want.shape, f"expected shape {want.shape}, got {got.shape}")
    difference = abs(got - want).max()
    if difference == 0:
        return 0.0
    error = float(difference / abs(want).max()) if want.any() else np.inf
    return np.inf if np.isnan(error) else error


def errors(case: Case) -> Iterator[tuple[float, str, str]]:
    """Yield the relative error of every result, its name, and the backend."""
    case.check_weights_there_and_back()
    for backend in fastrnn.backends():
        with fastrnn.use_backend(backend):
            results = dict(case.our_results())
        expect(results.keys() == case.expected.keys(), f"other results, {list(results)}")
        for name, want in case.expected.items():
            error = relative_error(results[name], want)
            expect(error < TOLERANCE, f"{name} on {backend}: relative error {error:.1e}")
            yield error, name, backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run only this configuration")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count: expected a whole number of at least 1, got {arguments.count}")
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    fastrnn.show_config()
    print(f"torch:        {torch.__version__}, one thread\n")
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    worst = dict.fromkeys(QUANTITIES, (-1.0, "", "", 0))
    seen: Counter[str] = Counter()
    start = time.perf_counter()
    for number in tqdm(numbers, unit=" configurations", disable=None):
        rng = np.random.default_rng([arguments.seed, number])
        configuration = drawn(rng)
        try:
            for error, name, backend in errors(Case(configuration, rng)):
                result = (error, name, backend, number)
                worst[quantity(name)] = max(worst[quantity(name)], result)
        except Exception as miss:
            miss.add_note(f"--seed {arguments.seed} --only {number}: {configuration}")
            raise
        seen.update(features(configuration))
    print(
        f"{len(numbers)} configurations on each of {', '.join(fastrnn.backends())}, none skipped, "
        f"all within {TOLERANCE:g}; {time.perf_counter() - start:.0f} s"
    )
    print("among them:", ", ".join(f"{name} {count}" for name, count in sorted(seen.items())))
    print(f"\n{'':8} {'worst error':>11}")
    for name, (error, of, backend, number) in worst.items():
        configuration = drawn(np.random.default_rng([arguments.seed, number]))
        if error >= 0:
            print(f"{name:8} {error:11.1e}  {of} on {backend}, number {number}: {configuration}")


def features(configuration: Configuration) -> list[str]:
    """Return the categories that a configuration counts for."""
    own, options = vars(configuration), configuration.options
    names = ("batch_first", "bidirectional", "proj_size", "dropout")
    return [
        configuration.layer,
        *(name for name in ("lengths", "reset", "state") if own[name]),
        *(name for name in names if options.get(name)),
        *(["no bias"] if not options["bias"] else []),
        *(["unbatched"] if configuration.B is None else []),
    ]


if __name__ == "__main__":
    main()
