"""Every peer of the grid: those of the package, and OpenVINO, JAX and Keras.

Here the number of threads is set for a whole process, by `environment`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import cycle

import numpy as np

from fastrnn._bench.peers import ONNX_GATES, OURS, PEERS, Peer, onnx_model
from fastrnn._bench.rows import Problem
from fastrnn._bench.timing import Contender

#: Restrict torch to the instructions of the avx2 backend.
_AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def environment(peer: str, threads: int, backend: str | None) -> dict[str, str]:
    """Return the environment of a process for a peer, with a number of threads and a backend."""
    env = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")}
    env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "JAX_PLATFORMS": "cpu"}
    env |= _AVX2_ONLY if peer == "torch-avx2" else {}
    return env | ({"FASTRNN_BACKEND": backend} if backend and peer == "fastrnn" else {})


def openvino(problem: Problem, threads: int) -> Sequence[Contender]:
    """Make a compiled ONNX model on bound arrays; for a step, two requests that alternate."""
    import openvino as ov

    if problem.row.mode == "training" or problem.row.cell not in ONNX_GATES:
        return []
    core = ov.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
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


#: By name; the first is fastrnn.
ALL: dict[str, Peer] = {
    "fastrnn": OURS,
    **PEERS,
    "torch-avx2": Peer(PEERS["torch"].make, ("torch",), "held to AVX2"),
    "openvino": Peer(openvino, ("openvino", "onnx")),
    "jax": Peer(jax, ("jax",)),
    "keras": Peer(keras, ("keras", "tensorflow")),
}
