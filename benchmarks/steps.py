"""Times of single steps: of models and stacks, small calls of a layer, and characters written.

python benchmarks/steps.py                                times of this checkout
python benchmarks/steps.py --against ../fastrnn-before    and of another one, with its kernels built

Each time is the least of many short runs; those of two checkouts take turns, so that both see the
same machine. "own" is the sum of the times that the layers of a model take in streams of their own.
One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

#: Models by name: their layers, as (class, arguments).
MODELS: dict[str, list[tuple[str, tuple[int, ...]]]] = {
    "LSTM(8,16) + Linear(16,1)": [("LSTM", (8, 16)), ("Linear", (16, 1))],
    "LSTM(32,32), 2 layers, + Linear(32,1)": [("LSTM", (32, 32, 2)), ("Linear", (32, 1))],
    "LSTM(128,256), 2 layers, + Linear(256,100)": [
        ("LSTM", (128, 256, 2)), ("Linear", (256, 100)),
    ],
    "Embedding(67,64) + LSTM(64,256) + Linear(256,67)": [
        ("Embedding", (67, 64)), ("LSTM", (64, 256)), ("Linear", (256, 67)),
    ],
}  # fmt: skip
ROUNDS = 5
#: Runs of each call per round, and the microseconds that a run should take.
RUNS = 200
RUN_TIME = 200.0


def least(call: Callable[[], Any], runs: int) -> float:
    """Return the least time of a call, in microseconds."""
    best, often = float("inf"), 1
    for _ in range(runs):
        start = perf_counter()
        for _ in range(often):
            call()
        best = min(best, (perf_counter() - start) / often * 1e6)
        often = max(1, int(RUN_TIME / best))
    return best


def step_time(described: list[tuple[str, tuple[int, ...]]], runs: int) -> float:
    """Return the time of a step of a model of these layers."""
    import fastrnn

    layers = [getattr(fastrnn, kind)(*sizes, seed=0) for kind, sizes in described]
    stream = fastrnn.Sequential(layers).stream()
    (first, (features, *_)), (_, (_, outputs, *_)) = described[0], described[-1]
    x: Any = 3 if first == "Embedding" else np.zeros(features, np.float32)
    out = np.empty(outputs, np.float32)
    return least(lambda: stream.step(x, out=out), runs)


def onnx_time(described: list[tuple[str, tuple[int, ...]]], runs: int) -> float | None:
    """Return the time of a step in ONNX Runtime, of LSTMs and a linear layer; else None."""
    try:
        import onnxruntime as ort
        from onnx import helper
    except ImportError:
        return None
    if [kind for kind, _ in described] != ["LSTM", "Linear"]:
        return None
    (_, (I, H, *layers)), (_, (_, O)) = described
    rng, real = np.random.default_rng(0), 1  # onnx.TensorProto.FLOAT
    inputs: dict[str, np.ndarray] = {"x": np.zeros((1, 1, I), np.float32)}
    nodes, weights, source = [], {"linear": (H, O), "axes": None}, "x"
    for i in range(layers[0] if layers else 1):
        weights |= {f"w{i}": (1, 4 * H, H if i else I), f"r{i}": (1, 4 * H, H), f"b{i}": (1, 8 * H)}
        inputs |= {
            f"h{i}": np.zeros((1, 1, H), np.float32),
            f"c{i}": np.zeros((1, 1, H), np.float32),
        }
        ends = [f"y{i}", f"h{i}_n", f"c{i}_n"]
        names = [source, f"w{i}", f"r{i}", f"b{i}", "", f"h{i}", f"c{i}"]
        nodes.append(helper.make_node("LSTM", names, ends, hidden_size=H))
        nodes.append(helper.make_node("Squeeze", [f"y{i}", "axes"], [f"x{i}"]))
        source = f"x{i}"
    nodes.append(helper.make_node("MatMul", [source, "linear"], ["y"]))
    constants = [
        helper.make_tensor(name, 7, [1], [1]) if shape is None
        else helper.make_tensor(name, real, shape, rng.uniform(-0.1, 0.1, int(np.prod(shape))))
        for name, shape in weights.items()
    ]  # fmt: skip
    given = [helper.make_tensor_value_info(n, real, a.shape) for n, a in inputs.items()]
    ends = ["y", *(f"{name}_n" for name in inputs if name != "x")]
    results = [helper.make_tensor_value_info(n, real, None) for n in ends]
    graph = helper.make_graph(nodes, "steps", given, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)

    def step() -> None:
        _, *states = session.run(ends, inputs)
        inputs.update(zip([name for name in inputs if name != "x"], states, strict=True))

    return least(step, runs)


def measured(runs: int) -> dict[str, float]:
    """Return the time of each row, in microseconds, using public names only."""
    import fastrnn
    from fastrnn.text import CharLM

    fastrnn.set_num_threads(1)
    times = {}
    for name, described in MODELS.items():
        times[name] = step_time(described, runs)
        times[f"{name}: own"] = sum(step_time([layer], runs) for layer in described)
    layer, x = fastrnn.LSTM(32, 32, seed=0), np.zeros((1, 1, 32), np.float32)
    y, _, tape = layer.forward(x)
    times["LSTM(32,32)(x) of one step"] = least(lambda: layer(x), runs)
    times["... forward"] = least(lambda: layer.forward(x), runs)
    times["... backward"] = least(lambda: layer.backward(tape, y), runs)
    text = "the quick brown fox jumps over the lazy dog 0123456789 THE QUICK BROWN FOX!?" * 20
    writer = CharLM(hidden_size=256, epochs=1, seed=0).fit(text, verbose=0)
    often = max(1, runs // 10)
    whole = least(lambda: writer.generate("the", 1000, seed=0), often)
    times["CharLM.generate, 256 units, a character"] = whole / 1000
    return times


def of_checkout(checkout: Path, quick: bool) -> dict[str, float]:
    """Return the times of a checkout, measured in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(checkout.resolve()), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--run", *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--quick", action="store_true", help="a few runs, for a test")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(measured(2 if args.quick else RUNS)))
        return
    checkouts = [Path(__file__).parent.parent, *([args.against] if args.against else [])]
    best: list[dict[str, float]] = [{} for _ in checkouts]
    for _ in range(1 if args.quick else ROUNDS):
        for times, checkout in zip(best, checkouts, strict=True):
            for name, time in of_checkout(checkout, args.quick).items():
                times[name] = min(time, times.get(name, time))
    print(f"{'microseconds':55} {'here':>8}  (and how many times as long elsewhere)")
    for name, mine in best[0].items():
        line = f"{name:55} {mine:8.2f}"
        if len(best) > 1:
            line += f"   there {best[1][name]:8.2f} ({best[1][name] / mine:.2f})"
        onnx = onnx_time(MODELS[name], RUNS) if name in MODELS and not args.quick else None
        if onnx is not None:
            line += f"   ONNX Runtime {onnx:8.2f} ({onnx / mine:.2f})"
        print(line)


if __name__ == "__main__":
    main()
