"""Every peer of the grid: those of the package, and others, and all of them with fewer bits.

Here the number of threads is set for a whole process, by `environment`.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache, partial
from itertools import cycle
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn._bench.peers import (
    ONNX_GATES,
    OURS,
    PEERS,
    Peer,
    onnx_model,
    onnxruntime,
    ours,
    torch_contenders,
    torch_layer,
)
from fastrnn._bench.rows import Problem
from fastrnn._bench.timing import Contender

#: Restrict torch to the instructions of the avx2 backend.
_AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def environment(peer: str, threads: int, backend: str | None) -> dict[str, str]:
    """Return the environment of a process for a peer, with a number of threads and a backend."""
    env = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}
    env |= _AVX2_ONLY if peer == "torch-avx2" else {}
    return env | ({"FASTRNN_BACKEND": backend} if backend and peer.startswith("fastrnn") else {})


def ours_bfloat16(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a contender whose operands of products are rounded to bfloat16."""
    return ours(problem, threads, problem.layer(matmul_precision="bfloat16"))


def ours_int8(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a contender with int8 weights; inputs have scales of their own at each step."""
    if problem.row.mode == "training":
        return []
    return ours(problem, threads, fastrnn.quantize(problem.layer()))


def torch_int8(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make contenders of dynamic quantization, which torch has for LSTM and GRU."""
    import torch

    row = problem.row
    if row.mode == "training" or row.cell not in ("LSTM", "GRU"):
        return []
    layer = torch.nn.Sequential(torch_layer(problem))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        quantized = torch.ao.quantization.quantize_dynamic(layer, dtype=torch.qint8)
    return torch_contenders(problem, threads, quantized[0], row.dtype)


@cache
def _torch_cells():
    """Return cells as one writes them in torch: state, hoisted product, weights to state."""
    import torch

    def rnn(state, zx, w, b):
        return (torch.tanh(zx + torch.nn.functional.linear(state[0], w, b)),)

    def lstm(state, zx, w, b):
        i, f, g, o = (zx + torch.nn.functional.linear(state[0], w, b)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def gru(state, zx, w, b):
        xr, xz, xn = zx.chunk(3, dim=-1)
        hr, hz, hn = torch.nn.functional.linear(state[0], w, b).chunk(3, dim=-1)
        r, u = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        return ((1 - u) * torch.tanh(xn + r * hn) + u * state[0],)

    return {"RNN": rnn, "LSTM": lstm, "GRU": gru}


def torch_compile(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a layer whose cell is compiled: one step whole, or in a loop after one projection."""
    import torch

    torch._dynamo.reset()
    if problem.row.cell not in _torch_cells():
        return []
    cell = _torch_cells()[problem.row.cell]
    weights = list(torch_layer(problem).parameters())

    def step(x, state, w_ih, w_hh, b_ih, b_hh):
        return cell(state, torch.nn.functional.linear(x, w_ih, b_ih), w_hh, b_hh)

    compiled, compiled_step = torch.compile(cell), torch.compile(step)

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList(weights)

        def forward(self, x, state):
            states = tuple(s[0] for s in (state if isinstance(state, tuple) else (state,)))
            w_ih, w_hh, b_ih, b_hh = self.weights
            if len(x) == 1:
                states = compiled_step(x[0], states, w_ih, w_hh, b_ih, b_hh)
                y = states[0][None]
            else:
                outputs = []
                for zx in torch.nn.functional.linear(x, w_ih, b_ih):
                    states = compiled(states, zx, w_hh, b_hh)
                    outputs.append(states[0])
                y = torch.stack(outputs)
            states = tuple(s[None] for s in states)
            return y, states if len(states) > 1 else states[0]

    return torch_contenders(problem, threads, Layer(), problem.row.dtype)


@cache
def _numba_lstms():
    """Return compiled loops: one whose products are NumPy's, and one that has them written out."""
    from numba import njit

    @njit(fastmath=True)
    def activated(z, h, c, y, one):
        B, H = h.shape
        for b in range(B):
            for j in range(H):
                i = one / (one + np.exp(-z[b, j]))
                f = one / (one + np.exp(-z[b, H + j]))
                o = one / (one + np.exp(-z[b, 3 * H + j]))
                c[b, j] = f * c[b, j] + i * np.tanh(z[b, 2 * H + j])
                h[b, j] = y[b, j] = o * np.tanh(c[b, j])

    @njit(fastmath=True)
    def by_dot(x, h, c, w_ih, w_hh, bias, one, y):
        T, B, I = x.shape
        zx = np.dot(x.reshape(T * B, I), w_ih).reshape(T, B, w_ih.shape[1])
        for t in range(T):
            activated(zx[t] + np.dot(h, w_hh) + bias, h, c, y[t], one)

    @njit(fastmath=True)
    def by_loops(x, h, c, w_ih, w_hh, bias, one, y):
        T, B, I = x.shape
        z = np.empty((B, w_ih.shape[1]), x.dtype)
        for t in range(T):
            for b in range(B):
                z[b] = bias
                for k in range(I):
                    z[b] += x[t, b, k] * w_ih[k]
                for k in range(h.shape[1]):
                    z[b] += h[b, k] * w_hh[k]
            activated(z, h, c, y[t], one)

    return by_dot, by_loops


def numba(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make contenders of a hand-written LSTM: a loop over time in Numba."""
    row, weights = problem.row, problem.weights
    if row.cell != "LSTM" or row.mode == "training":
        return []
    w_ih, w_hh = (weights[name].T.copy() for name in ("weight_ih", "weight_hh"))
    bias, one = weights["bias_ih"] + weights["bias_hh"], np.array(1, row.dtype)[()]

    def contender(loop):
        (h, c), y = (s.copy() for s in problem.state), np.empty_like(problem.dy)

        def call():
            if row.mode == "forward":
                np.copyto(h, problem.state[0])
                np.copyto(c, problem.state[1])
            loop(problem.x, h, c, w_ih, w_hh, bias, one, y)
            return y

        return Contender(call, lambda y: {"y": y[0] if row.mode == "step" else y})

    return [contender(loop) for loop in _numba_lstms()]


def _quantized(model: bytes) -> bytes | None:
    """Return an ONNX model after dynamic quantization, None if nothing in it was quantized."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # it recommends steps that change nothing here
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            onnx.load_from_string(model), path, per_channel=True, weight_type=QuantType.QInt8
        )
        found = onnx.load(path)
    return found.SerializeToString() if found.graph.node[0].domain == "com.microsoft" else None


def openvino(problem: Problem, threads: int, precision: str | None = "f32") -> Sequence[Contender]:
    """Make a compiled ONNX model on bound arrays; for a step, two requests that alternate.

    With `precision` None, it is what OpenVINO chooses.
    """
    import openvino as ov

    if problem.row.mode == "training" or problem.row.cell not in ONNX_GATES:
        return []
    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        options["INFERENCE_PRECISION_HINT"] = precision
    names, step = problem.row.of.states, problem.row.mode == "step"
    compiled = core.compile_model(core.read_model(onnx_model(problem)), "CPU", options)
    ends = [{n: s[None].copy() for n, s in zip(names, problem.state, strict=True)} for _ in "ab"]
    y = np.empty_like(problem.dy[:, None])
    requests = []
    for source, target in (ends, ends[::-1]):
        request = compiled.create_infer_request()
        inputs, outputs = {"x": problem.x, **source}, {"y": y}
        if step:
            outputs |= {f"{n}_n": target[n] for n in names}
        tensors = {n: ov.Tensor(a, shared_memory=True) for n, a in (inputs | outputs).items()}
        for name, tensor in tensors.items():
            request.set_tensor(name, tensor)
        # The requests do not keep the arrays alive; these tensors do.
        requests.append((request, target["h"] if step else y, tensors))
    turns = cycle(requests if step else requests[:1])

    def infer():
        request, output, _ = next(turns)
        request.infer()
        return output

    return [Contender(infer, lambda y: {"y": y[0] if step else y[:, 0]})]


def _jax_products(weights, state):
    return state[0] @ weights["weight_hh"].T + weights["bias_hh"]


def _jax_rnn(weights, state, zx):
    import jax.numpy as jnp

    return (jnp.tanh(zx + _jax_products(weights, state)),)


def _jax_lstm(weights, state, zx):
    import jax
    import jax.numpy as jnp

    i, f, g, o = jnp.split(zx + _jax_products(weights, state), 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _jax_gru(weights, state, zx):
    import jax
    import jax.numpy as jnp

    z = _jax_products(weights, state)
    (xr, xz, xn), (hr, hz, hn) = jnp.split(zx, 3, axis=-1), jnp.split(z, 3, axis=-1)
    r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    return ((1 - u) * jnp.tanh(xn + r * hn) + u * state[0],)


def jax(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a compiled ``lax.scan``, with the input projected at once; gradients by ``jax.vjp``."""
    # XLA's thread pool has one thread for each CPU that the process may use at its start.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax
    import jax.numpy as jnp

    jax.clear_caches()
    jax.config.update("jax_enable_x64", problem.row.dtype == "float64")
    cell, names = problem.row.cell, problem.row.of.states

    one = {"RNN": _jax_rnn, "LSTM": _jax_lstm, "GRU": _jax_gru}.get(cell)
    if one is None:
        return []

    def project(weights, x):
        return x @ weights["weight_ih"].T + weights["bias_ih"]

    @jax.jit
    def step(weights, x, state):
        return one(weights, state, project(weights, x))

    def scan(weights, x, state):
        def body(state, zx):
            state = one(weights, state, zx)
            return state, state[0]

        return jax.lax.scan(body, state, project(weights, x))[1]

    @jax.jit
    def train(weights, x, state, dy):
        y, back = jax.vjp(scan, weights, x, state)
        return y, back(dy)

    x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)
    state = tuple(map(jnp.asarray, problem.state))
    weights = {n: jnp.asarray(w) for n, w in problem.weights.items()}
    forward = jax.jit(scan)
    x_t, state_t = x[0], state

    def stepped():
        nonlocal state_t
        state_t = step(weights, x_t, state_t)
        return state_t[0].block_until_ready()

    def trained(returned):
        y, (grads, dx, dstate) = returned
        dstate = {f"d{n}": d for n, d in zip(names, dstate, strict=True)}
        return {"y": y, "dx": dx} | dstate | grads

    match problem.row.mode:
        case "step":
            return [Contender(stepped, lambda h: {"y": h})]
        case "forward":
            return [
                Contender(
                    lambda: forward(weights, x, state).block_until_ready(), lambda y: {"y": y}
                )
            ]
        case _:
            return [Contender(lambda: jax.block_until_ready(train(weights, x, state, dy)), trained)]


#: Keras's gate order in terms of torch's: i, f, c, o and z, r, h.
_KERAS_GATES = {"RNN": (0,), "LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}


def keras(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a Keras layer in a ``tf.function``, plain and compiled by XLA; gradients by a tape.

    Keras's RNN and LSTM have one bias, which is the sum of our two and has the gradient of either.
    """
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    import keras

    keras.backend.clear_session()
    row, weights = problem.row, problem.weights
    if row.cell not in _KERAS_GATES:
        return []
    layer = getattr(keras.layers, "SimpleRNN" if row.cell == "RNN" else row.cell)(
        row.H, return_sequences=True, dtype=row.dtype
    )
    layer.build((row.B, row.T, row.I))

    def reordered(array):
        """Convert between torch's gate order and Keras's, along the first axis."""
        gates = np.split(array, len(row.of.gates))
        return np.concatenate([gates[g] for g in _KERAS_GATES[row.cell]])

    biases = [weights["bias_ih"], weights["bias_hh"]]
    bias = np.stack([reordered(b) for b in biases]) if row.cell == "GRU" else reordered(sum(biases))
    layer.set_weights([reordered(weights["weight_ih"]).T, reordered(weights["weight_hh"]).T, bias])
    x, dy = (tf.constant(a.swapaxes(0, 1)) for a in (problem.x, problem.dy))
    state = [tf.constant(s) for s in problem.state]

    def step(x, state):
        return layer.cell(x, state)[1]

    def forward(x, state):
        return layer(x, initial_state=state)

    def train(x, state, dy):
        with tf.GradientTape() as tape:
            tape.watch([x, *state])
            y = layer(x, initial_state=state)
        wanted = [x, *state, *(w.value for w in layer.trainable_weights)]
        return y, tape.gradient(y, wanted, dy)

    def trained(returned):
        y, (dx, *grads) = returned
        names = [f"d{n}" for n in row.of.states]
        dstate, (w_ih, w_hh, b) = grads[: len(names)], grads[len(names) :]
        weights = {"weight_ih": w_ih.numpy().T, "weight_hh": w_hh.numpy().T}
        b = b.numpy() if row.cell == "GRU" else [b.numpy()] * 2
        weights |= dict(zip(("bias_ih", "bias_hh"), b, strict=True))
        sequences = {"y": time_major(y), "dx": time_major(dx)}
        named = {n: reordered(g) for n, g in weights.items()}
        return sequences | dict(zip(names, dstate, strict=True)) | named

    def time_major(a):
        return a.numpy().swapaxes(0, 1)

    def stepping(run):
        states, x_t = state, x[:, 0]

        def stepped():
            nonlocal states
            states = run(x_t, states)
            return states[0].numpy()

        return stepped

    def contender(compiled):
        graph = partial(tf.function, jit_compile=compiled)
        match row.mode:
            case "step":
                return Contender(stepping(graph(step)), lambda h: {"y": h})
            case "forward":
                run = partial(graph(forward), x, state)
                return Contender(run, lambda y: {"y": time_major(y)})
            case _:
                return Contender(partial(graph(train), x, state, dy), trained)

    return [contender(compiled) for compiled in (False, True)]


_TORCH, _OPENVINO = PEERS["torch"].make, ("openvino", "onnx")
#: By name; ours come first. OpenVINO chooses bfloat16 where the CPU has instructions for it.
ALL: dict[str, Peer] = {
    "fastrnn": OURS,
    "fastrnn-bfloat16": Peer(ours_bfloat16, ("fastrnn",), precision="bfloat16"),
    "fastrnn-int8": Peer(ours_int8, ("fastrnn",), precision="int8"),
    **PEERS,
    "torch-avx2": Peer(_TORCH, ("torch",), "held to AVX2"),
    "torch-compile": Peer(torch_compile, ("torch",), "a compiled cell of one's own"),
    "openvino": Peer(openvino, _OPENVINO),
    "jax": Peer(jax, ("jax",)),
    "keras": Peer(keras, ("keras", "tensorflow")),
    "numba": Peer(numba, ("numba", "scipy"), "a loop of one's own"),
    "torch-bfloat16": Peer(partial(_TORCH, dtype="bfloat16"), ("torch",), precision="bfloat16"),
    "openvino-bfloat16": Peer(partial(openvino, precision="bf16"), _OPENVINO, precision="bfloat16"),
    "openvino-default": Peer(
        partial(openvino, precision=None),
        _OPENVINO,
        "at its default precision",
        precision="bfloat16",
    ),
    "torch-int8": Peer(torch_int8, ("torch",), "dynamic quantization", precision="int8"),
    "onnxruntime-int8": Peer(
        partial(onnxruntime, convert=_quantized),
        ("onnxruntime", "onnx"),
        "dynamic quantization",
        precision="int8",
    ),
}
