"""A service that streams a saved classifier of sequences, beside the same in other libraries.

python benchmarks/service.py [--fastrnn PYTHON] [--torch PYTHON] [--onnxruntime PYTHON]
                             [--keras PYTHON] [--hidden H] [--quick]        needs scikit-learn

Each PYTHON is that of an environment in which the library is installed; those not given are left
out. fastrnn's is this one by default; its service runs as where scikit-learn is not installed. ONNX
Runtime's needs onnx too, to write its file with.

A GRU with a linear layer, softmax and the scaling of its features, of the same weights in all: ours
is saved by ``SequenceClassifier.save``, the others' by ``torch.save``, ``onnx.save`` and
``model.save`` of Keras; NumPy's is written by hand. Install size: what is installed by ``pip
install`` of the library and all that it requires, without Python, pip and bytecode. Cold start:
from the start of the process to the first prediction, the least of several. Memory: resident after
the first prediction, and at most. Time per step: from unscaled features in NumPy to probabilities
in NumPy, one row, one thread, the median of blocks that take turns with the others'; of several
ways to do it the fastest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn import layouts
from fastrnn._bench.report import Table
from fastrnn.sklearn import SequenceClassifier

#: What is installed for each: its distribution, and what the service needs besides.
DISTRIBUTIONS = {
    "fastrnn": ["fastrnn"],
    "numpy": ["numpy"],
    "onnxruntime": ["onnxruntime"],
    "torch": ["torch", "numpy"],
    "keras": ["keras", "tensorflow-cpu"],
}
SERVICES = Path(__file__).with_name("service_peers.py")
F, C = 8, 3

#: Prints the bytes of these distributions and all that they require.
SIZE = """
import os, sys
from importlib.metadata import PackageNotFoundError, distribution
from pip._vendor.packaging.requirements import Requirement
todo, seen, files = sys.argv[1:], set(), set()
while todo:
    name = todo.pop().lower().replace("_", "-")
    if name in seen or name in ("pip", "setuptools", "wheel"):
        continue
    seen.add(name)
    try:
        of = distribution(name)
    except PackageNotFoundError:
        continue
    files |= {os.path.realpath(of.locate_file(file)) for file in of.files or []}
    needs = map(Requirement, of.requires or [])
    todo += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
print(sum(os.path.getsize(f) for f in files if not f.endswith(".pyc") and os.path.exists(f)))
"""

#: One thread each, and nothing that they tell about themselves.
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow",
}  # fmt: skip


def environment_of(python: str) -> dict[str, str]:
    """Return the variables of a service: PYTHONPATH is for this Python alone."""
    own = python == sys.executable
    return {name: value for name, value in ENVIRONMENT.items() if own or name != "PYTHONPATH"}


def write_models(folder: str, hidden: int) -> None:
    """Train and save a classifier, and write its arrays for the others."""
    rng = np.random.default_rng(0)
    X = rng.normal(rng.normal(0, 5, F), rng.uniform(0.1, 10, F), (200, 20, F)).astype(np.float32)
    y = np.digitize(X[:, -5:, 0].mean(axis=1), np.quantile(X[:, -5:, 0].mean(axis=1), [0.3, 0.7]))
    model = SequenceClassifier("gru", hidden_size=hidden, max_epochs=3, random_state=0)
    model.fit(X, np.array(["low", "usual", "high"])[y])
    model.save(f"{folder}/model.safetensors")
    fastrnn.quantize(model).save(f"{folder}/int8.safetensors")
    np.save(f"{folder}/x.npy", X[:50].reshape(-1, F))
    rnn = {
        name.split(".", 1)[1].removesuffix("_l0"): array
        for name, array in model.net_.state_dict().items()
        if name.endswith("_l0")
    }
    head = model.net_.layers[-1].state_dict()
    W, R, B, _ = layouts.unpack_onnx("GRU", rnn)
    keras = layouts.unpack_keras("GRU", rnn)
    scale = X.reshape(-1, F).astype(np.float64)
    arrays = {
        "mean": scale.mean(axis=0).astype(np.float32),
        "deviation": scale.std(axis=0).astype(np.float32),
        "W": W, "R": R, "B": B, **{f"keras{i}": array for i, array in enumerate(keras)},
        **rnn, **head,
    }  # fmt: skip
    np.savez(f"{folder}/arrays.npz", **arrays)


class Service:
    """A running service."""

    def __init__(self, python: str, name: str, folder: str) -> None:
        environment = environment_of(python)
        start = time.perf_counter()
        said = Path(folder, "stderr")
        with said.open("w") as stderr:
            self.process = subprocess.Popen(
                [python, "-P", str(SERVICES), "serve", name, folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env=environment, cwd=folder,
            )  # fmt: skip
        if self._line() != "ready":
            raise SystemExit(f"{python}: {name} did not start:\n{said.read_text()}")
        self.seconds = time.perf_counter() - start
        self.ready = json.loads(self._line())
        self.ways = len(self.ready["first"])

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, way: int, count: int) -> dict[str, Any]:
        """Run steps, and return seconds, the last prediction and memory."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{way} {count}\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def prepare(pythons: dict[str, str], folder: str) -> None:
    """Let the others write their files."""
    for name, python in pythons.items():
        if name in ("fastrnn", "numpy"):
            continue
        done = subprocess.run(
            [python, "-P", str(SERVICES), "prepare", name, folder],
            stderr=subprocess.PIPE, text=True, env=environment_of(python), check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{python}: {name} could not write its file:\n{done.stderr}")


def cold_starts(names: dict[str, str], folder: str, times: int) -> dict[str, float]:
    """Return the least time from start to first prediction; the services take turns."""
    least = dict.fromkeys(names, float("inf"))
    for _ in range(times):
        for name, python in names.items():
            service = Service(python, name, folder)
            least[name] = min(least[name], service.seconds)
            service.close()
    return least


def expect_same(services: dict[str, Service]) -> None:
    """Raise if the predictions differ, after the first step and after 100 more."""
    ours = [services["fastrnn"].ready["first"][0], services["fastrnn"].run(0, 100)["p"]]
    for name, service in services.items():
        bound = 0.02 if name.endswith("int8") else 1e-5
        for way in range(service.ways):
            got = [service.ready["first"][way]]
            got.append(ours[1] if name == "fastrnn" else service.run(way, 100)["p"])
            apart = np.abs(np.subtract(got, ours)).max()
            if not apart < bound:
                raise SystemExit(f"{name}: predictions differ from fastrnn's by {apart:.1e}")


def step_times(services: dict[str, Service], blocks: int, steps: int) -> dict[str, float]:
    """Return the seconds of a step, the median over blocks in turns, the fastest way of each."""
    found: dict[str, list[list[float]]] = {n: [[] for _ in range(s.ways)] for n, s in
                                           services.items()}  # fmt: skip
    for _ in range(blocks):
        for name, service in services.items():
            for way, of_way in enumerate(found[name]):
                of_way.append(service.run(way, steps)["seconds"] / steps)
    return {name: min(map(statistics.median, ways)) for name, ways in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fastrnn", metavar="PYTHON", default=sys.executable)
    for name in ("onnxruntime", "torch", "keras"):
        parser.add_argument(f"--{name}", metavar="PYTHON")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="a check that it runs")
    args = parser.parse_args()
    args.numpy = args.fastrnn
    pythons = {name: getattr(args, name) for name in DISTRIBUTIONS if getattr(args, name)}
    times, blocks, steps = (1, 3, 50) if args.quick else (11, 21, 2000)
    with tempfile.TemporaryDirectory() as folder:
        write_models(folder, args.hidden)
        prepare(pythons, folder)
        names = {"fastrnn": args.fastrnn, "fastrnn_int8": args.fastrnn, **pythons}
        cold = cold_starts(names, folder, times)
        services = {name: Service(python, name, folder) for name, python in names.items()}
        expect_same(services)
        per_step = step_times(services, blocks, steps)
        memory = {name: service.run(0, 1) for name, service in services.items()}
        print(f"GRU({F}, {args.hidden}), Linear({args.hidden}, {C}), softmax; {C} classes")
        table = Table(
            ["", "installed, MB", "cold start, s", "resident, MB", "at most, MB", "step, us"], (14,)
        )
        for name, service in services.items():
            package = name.removesuffix("_int8")
            listed = subprocess.run(
                [names[name], "-c", SIZE, *DISTRIBUTIONS[package]],
                capture_output=True, text=True, check=True, env=environment_of(names[name]),
            )  # fmt: skip
            sizes = int(listed.stdout), service.ready["VmRSS"], memory[name]["VmHWM"]
            installed, resident, most = (f"{size / 1e6:.0f}" for size in sizes)
            table.print([
                name, installed, f"{cold[name]:.2f}", resident, most, f"{per_step[name] * 1e6:.1f}"
            ])  # fmt: skip
            service.close()


if __name__ == "__main__":
    main()
