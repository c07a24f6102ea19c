"""The services of ``service.py``: each loads a saved model and streams it, in a process of its own.

PYTHON service_peers.py prepare|serve PEER FOLDER

`prepare` writes the peer's own file from the arrays in FOLDER. `serve` prints a line of JSON with
the first prediction; then it reads numbers, runs that many steps for each, and prints a line.
Nothing is imported here but what a service needs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

#: Takes unscaled features (F,), and gives the probabilities (C,) of the sequence so far.
Step = Callable[[Any], Any]


def fastrnn(folder: str, file: str = "model.safetensors") -> list[Step]:
    """Return a step of a saved ``SequenceClassifier``."""
    import fastrnn

    hidden: Any = sys.modules
    hidden["sklearn"] = None  # as where scikit-learn is not installed
    fastrnn.set_num_threads(1)
    return [fastrnn.load(f"{folder}/{file}").stream().step]


def fastrnn_int8(folder: str) -> list[Step]:
    """Return a step of the same, quantized."""
    return fastrnn(folder, "int8.safetensors")


def numpy(folder: str) -> list[Step]:
    """Return a step as one writes it by hand."""
    import numpy as np

    with np.load(f"{folder}/arrays.npz") as file:
        of = {name: file[name] for name in file.files}
    W, U, b, c = (of[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    H = U.shape[1]
    h = np.zeros(H, np.float32)

    def step(x: Any) -> Any:
        nonlocal h
        a, d = W @ ((x - of["mean"]) / of["deviation"]) + b, U @ h + c
        gates = 1 / (1 + np.exp(-(a[: 2 * H] + d[: 2 * H])))
        r, z = gates[:H], gates[H:]
        h = (1 - z) * np.tanh(a[2 * H :] + r * d[2 * H :]) + z * h
        e = of["weight"] @ h + of["bias"]
        e = np.exp(e - e.max())
        return e / e.sum()

    return [step]


def prepare_torch(folder: str, arrays: dict[str, Any]) -> None:
    """Write a ``state_dict``."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, f"{folder}/torch.pt")


def torch(folder: str) -> list[Step]:
    """Return steps by a module, and by the function that is torch's single step of a GRU."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    saved = torch.load(f"{folder}/torch.pt", weights_only=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            H, F = saved["weight_ih"].shape[0] // 3, saved["weight_ih"].shape[1]
            self.register_buffer("mean", saved["mean"])
            self.register_buffer("deviation", saved["deviation"])
            self.rnn, self.head = nn.GRU(F, H), nn.Linear(H, len(saved["bias"]))

        def forward(self, x: torch.Tensor, h: Any) -> tuple[torch.Tensor, torch.Tensor]:
            y, h = self.rnn(((x - self.mean) / self.deviation)[None], h)
            return self.head(y[0]).softmax(-1), h

    model = Model().eval()
    renamed = {n: saved[n] for n in ("mean", "deviation")}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        renamed[f"rnn.{name}_l0"] = saved[name]
    model.load_state_dict(
        {**renamed, "head.weight": saved["weight"], "head.bias": saved["bias"]}, strict=True
    )
    state: list[Any] = [None, torch.zeros(1, model.rnn.hidden_size)]

    @torch.inference_mode()
    def by_module(x: Any) -> Any:
        y, state[0] = model(torch.from_numpy(x), state[0])
        return y.numpy()

    weights = [saved[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    @torch.inference_mode()
    def by_cell(x: Any) -> Any:
        scaled = ((torch.from_numpy(x) - model.mean) / model.deviation)[None]
        state[1] = h = torch.gru_cell(scaled, state[1], *weights)
        return model.head(h[0]).softmax(-1).numpy()

    return [by_module, by_cell]


def prepare_onnxruntime(folder: str, arrays: dict[str, Any]) -> None:
    """Write an ONNX model of one step, whose state is an input and an output."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    H, C = arrays["R"].shape[1], len(arrays["bias"])
    constants = {
        "mean": arrays["mean"], "deviation": arrays["deviation"], "axes": np.array([0, 1]),
        "W": arrays["W"][None], "R": arrays["R"][None], "B": arrays["B"][None],
        "weight": arrays["weight"], "bias": arrays["bias"], "first": np.array([0]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "axes"], ["sequence"]),
        helper.make_node("GRU", ["sequence", "W", "R", "B", "", "h"], ["", "h_n"],
                         hidden_size=H, linear_before_reset=1),
        helper.make_node("Squeeze", ["h_n", "first"], ["last"]),
        helper.make_node("Gemm", ["last", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["p"], axis=-1),
    ]  # fmt: skip
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {
            "x": [arrays["W"].shape[1]], "h": [1, 1, H], "p": [1, C], "h_n": [1, 1, H]
        }.items()
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "step", [infos["x"], infos["h"]], [infos["p"], infos["h_n"]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), f"{folder}/model.onnx")


def onnxruntime(folder: str) -> list[Step]:
    """Return steps by ``run``, and by a binding whose state stays where it is."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(f"{folder}/model.onnx", options, ["CPUExecutionProvider"])
    shape = session.get_inputs()[1].shape
    state = [np.zeros(shape, np.float32)]

    def by_run(x: Any) -> Any:
        p, state[0] = session.run(None, {"x": x, "h": state[0]})
        return p[0]

    features = np.empty(session.get_inputs()[0].shape, np.float32)
    x_value = ort.OrtValue.ortvalue_from_numpy(features)
    p = ort.OrtValue.ortvalue_from_numpy(np.empty(session.get_outputs()[0].shape, np.float32))
    states = [ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for _ in range(2)]
    bindings = []
    for h, h_n in (states, states[::-1]):
        binding = session.io_binding()
        for bind, values in (
            (binding.bind_ortvalue_input, {"x": x_value, "h": h}),
            (binding.bind_ortvalue_output, {"p": p, "h_n": h_n}),
        ):
            for name, value in values.items():
                bind(name, value)
        bindings.append(binding)

    def by_binding(x: Any) -> Any:
        x_value.update_inplace(x)
        session.run_with_iobinding(bindings[0])
        bindings.reverse()
        return p.numpy()[0]

    return [by_run, by_binding]


def prepare_keras(folder: str, arrays: dict[str, Any]) -> None:
    """Write a ``.keras`` file."""
    import keras

    H, F = arrays["R"].shape[1], len(arrays["mean"])
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(1, 1, F)),
            keras.layers.Normalization(mean=arrays["mean"], variance=arrays["deviation"] ** 2),
            keras.layers.GRU(H, stateful=True),
            keras.layers.Dense(len(arrays["bias"]), activation="softmax"),
        ]
    )
    model.layers[1].set_weights([arrays[f"keras{i}"] for i in range(3)])
    model.layers[2].set_weights([arrays["weight"].T, arrays["bias"]])
    model.save(f"{folder}/model.keras")


def keras(folder: str) -> list[Step]:
    """Return a step as a graph; calls without one take much longer."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(f"{folder}/model.keras", compile=False)
    graph = tf.function(lambda x: model(x, training=False), jit_compile=False)

    def step(x: Any) -> Any:
        return graph(tf.constant(x[None, None])).numpy()[0]

    return [step]


def _memory() -> dict[str, int]:
    """Return resident memory, now and at most, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        lines = [line.split() for line in file if line.startswith(("VmRSS", "VmHWM"))]
    return {name.removesuffix(":"): int(kib) * 1024 for name, kib, _ in lines}


def serve(name: str, folder: str) -> None:
    """Stream a model; commands come from standard input."""
    steps: list[Step] = globals()[name](folder)
    import numpy as np

    rows = np.load(f"{folder}/x.npy")
    first = [step(rows[0]).tolist() for step in steps]
    print("ready", flush=True)
    import json
    from time import perf_counter

    print(json.dumps({"first": first, **_memory()}), flush=True)
    for line in sys.stdin:
        which, count = map(int, line.split())
        step, xs = steps[which], [rows[i % len(rows)] for i in range(1, count + 1)]
        start = perf_counter()
        for x in xs:
            p = step(x)
        seconds = perf_counter() - start
        print(json.dumps({"seconds": seconds, "p": p.tolist(), **_memory()}), flush=True)


def main() -> None:
    """Prepare or serve."""
    _, what, name, folder = sys.argv
    if what == "serve":
        serve(name, folder)
        return
    import numpy as np

    with np.load(f"{folder}/arrays.npz") as arrays:
        globals()[f"prepare_{name}"](folder, dict(arrays))


if __name__ == "__main__":
    main()
