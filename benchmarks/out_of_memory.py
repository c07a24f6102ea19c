"""Every call when memory runs out: a MemoryError, after which the same call works.

python benchmarks/out_of_memory.py [--points 200] [--case NAME]     Linux, needs a C compiler

Each call is made again and again. Each time another of its allocations fails, alone or with all
that follow. The call has to succeed or to raise a MemoryError, and after that to give the same bits
as before. First calls, which import what they need, are made in new processes, and also with less
and less address space (RLIMIT_AS).

Allocations of less than 66,000 bytes do not fail here: they do only once nothing at all is left,
and then NumPy 2.4 raises a SystemError or crashes in any ufunc that broadcasts, as its iterator
reports the failure without the GIL. ``--least 0`` lets them fail too.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import gc
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).parent

#: What is called in a new process, where the first call imports and loads what it needs.
FIRST = {
    "import": "import fastrnn",
    "layer": "fastrnn.LSTM(300, 70, seed=0)(np.ones((3, 2, 300), np.float32))",
    "backward": "l = fastrnn.GRU(3, 7, seed=0); l.backward(l.forward(np.ones((5, 2, 3)))[2])",
    "stream": "fastrnn.Sequential([fastrnn.LSTM(3, 5)], seed=0).stream().step(np.ones(3))",
    "quantized": "fastrnn.quantize(fastrnn.LSTM(3, 5))(np.ones((5, 2, 3)))",
    "fit": (
        "m = fastrnn.Sequential([fastrnn.LSTM(3, 5)], seed=0); m.compile('adam', 'mse');"
        "m.fit(np.ones((5, 4, 3)), np.ones((5, 4, 5)), verbose=0)"
    ),
    "text": "fastrnn.text.CharLM(hidden_size=5).fit('abcabc' * 90, epochs=1)",
    "forecast": "fastrnn.forecast.Forecaster(seed=0)",
}


def cases(folder: str) -> dict[str, Callable[[], Any]]:
    """Return calls whose results do not change."""
    import numpy as np

    import fastrnn
    from fastrnn import functional

    rng = np.random.default_rng(0)
    T, B, I, H, V = 37, 36, 133, 70, 199
    x = rng.standard_normal((T, B, I), np.float32)
    X, y = x.swapaxes(0, 1).copy(), rng.standard_normal((B, T, H))
    tokens, lengths = rng.integers(0, V, (B, T)), rng.integers(1, T, B)
    lstm, gru = fastrnn.LSTM(I, H, num_layers=2, seed=0), fastrnn.GRU(I, H, bidirectional=True)
    linear, table = fastrnn.Linear(I, H, seed=0), fastrnn.Embedding(V, I, seed=0)
    model = fastrnn.Sequential(
        [fastrnn.Embedding(V, I), fastrnn.GRU(I, H), fastrnn.Linear(H, V)], seed=0
    )
    small = fastrnn.quantize(lstm)
    stream, path = model.stream(), os.path.join(folder, "model.safetensors")
    bfloat16 = fastrnn.LSTM(I, H, seed=0, matmul_precision="bfloat16")
    weights = [np.ones((4 * H, I)), np.ones((4 * H, H))]

    def trained() -> Any:
        layer = fastrnn.LSTM(I, H, seed=0)
        _, _, tape = layer.forward(x)
        grads = layer.backward(tape, np.ones((T, B, H), np.float32))[2]
        fastrnn.optim.Adam(clip_norm=1.0).step(layer.parameters(), grads)
        return layer.state_dict()

    def fitted() -> Any:
        net = fastrnn.Sequential([fastrnn.LSTM(I, H), fastrnn.Dropout(0.2)], seed=0)
        net.compile("adam", "mse", metrics=["mae"])
        net.fit(X, y, epochs=2, batch_size=8, validation_split=0.3, verbose=0)
        return net.state_dict()

    def stepped() -> Any:
        stream.reset()
        return [stream.step(3), stream.step(5), stream.state]

    def saved() -> Any:
        model.save(path)
        return fastrnn.load(path).state_dict()

    def losses() -> Any:
        loss = fastrnn.losses.cross_entropy
        return loss.value_and_grad(rng_logits, tokens)

    rng_logits = rng.standard_normal((B, T, V))
    functions = functional.lstm
    return {
        "construct": lambda: fastrnn.GRU(I, H, seed=0).state_dict(),
        "call": lambda: lstm(x),
        "call lengths": lambda: gru(x, lengths=lengths),
        "backward": lambda: lstm.backward(lstm.forward(x)[2], np.ones((T, B, H))),
        "bfloat16": lambda: bfloat16(x),
        "linear": lambda: linear.backward(linear.forward(x)[1], np.ones((T, B, H))),
        "embedding": lambda: table.backward(table.forward(tokens)[1], np.ones((B, T, I))),
        "losses": losses,
        "train a layer": trained,
        "fit": fitted,
        "predict": lambda: model.predict(tokens, batch_size=8),
        "evaluate": lambda: model(tokens),
        "stream": lambda: model.stream(B).step(tokens[:, 0]),
        "step": stepped,
        "quantize": lambda: fastrnn.quantize(linear)(x),
        "quantized": lambda: small(x),
        "functional": lambda: functions(x[..., :], (None, None), *weights)[0],
        "save and load": saved,
        "pickle": lambda: pickle.loads(pickle.dumps(lstm)).state_dict(),
    }


def same(a: Any, b: Any) -> bool:
    """Return whether results have the same bits."""
    return bool(pickle.dumps(a) == pickle.dumps(b))


def failures(
    call: Callable[[], Any], points: int, least: int
) -> tuple[int, collections.Counter[str], list[str]]:
    """Let allocations of a call fail; return their number, outcomes, and what is wrong."""
    tool = ctypes.PyDLL(os.environ["LD_PRELOAD"])
    tool.fail_calls.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_size_t]
    tool.stop_failing.restype = ctypes.c_long
    for _ in range(3):
        want = call()
    most = sys.maxsize
    tool.fail_calls(most, most, least)
    call()
    count = tool.stop_failing()
    outcomes: collections.Counter[str] = collections.Counter()
    wrong = []
    for point in range(0, count, max(1, count // points)):
        for last in (point + 1, most):
            gc.collect()
            error: BaseException | None = None
            tool.fail_calls(point, last, least)
            try:
                call()
            except BaseException as caught:
                error = caught
            tool.stop_failing()
            name = "success" if error is None else type(error).__name__
            outcomes[name] += 1
            if not isinstance(error, MemoryError | None):
                wrong.append(f"allocation {point}: {error!r}")
            del error
            if not same(call(), want):
                wrong.append(f"allocation {point}: other bits afterwards")
    return count, outcomes, wrong


FIRST_CALL = """
import ctypes, os, sys
tool = ctypes.PyDLL(os.environ["LD_PRELOAD"])
tool.fail_calls.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_size_t]
tool.stop_failing.restype = ctypes.c_long
import numpy as np
if sys.argv[2] != "import fastrnn":
    import fastrnn
code = compile(sys.argv[2], "call", "exec")
point, last = int(sys.argv[1]), sys.maxsize
if point < 0:
    point, last = -point, -point + 1
names = {"np": np} | ({"fastrnn": fastrnn} if "fastrnn" in sys.modules else {})
tool.fail_calls(point, last, 66000)
name = "success"
try:
    exec(code, names)
except BaseException as error:
    tool.stop_failing()
    name = type(error).__name__ + ("" if isinstance(error, MemoryError) else f": {error}")
    import traceback
    traceback.print_exc()
count = tool.stop_failing()
exec(code, names)  # works after that
print(count, name)
"""

LIMITED_CALL = """
import resource, sys
import numpy as np
if sys.argv[2] != "import fastrnn":
    import fastrnn
names = {"np": np} | ({"fastrnn": fastrnn} if "fastrnn" in sys.modules else {})
code = compile(sys.argv[2], "call", "exec")
pages = int(open("/proc/self/statm").read().split()[0])
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + int(sys.argv[1]), before[1]))
name = "success"
try:
    exec(code, names)
except BaseException as error:
    resource.setrlimit(resource.RLIMIT_AS, before)
    name = type(error).__name__ + ("" if isinstance(error, MemoryError) else f": {error}")
    import traceback
    traceback.print_exc()
resource.setrlimit(resource.RLIMIT_AS, before)
exec(code, names)
print(0, name)
"""


def in_new_process(program: str, number: int, code: str) -> tuple[int, str, str]:
    """Return the allocations and the outcome of a first call."""
    command = [sys.executable, "-c", program, str(number), code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        return 0, f"exit {done.returncode}", done.stderr
    count, _, name = done.stdout.strip().rpartition("\n")[2].partition(" ")
    return int(count), name, done.stderr


def first_calls(points: int, chosen: str | None) -> int:
    """Print a table of first calls; return how many outcomes are wrong."""
    bad = 0
    for name, code in FIRST.items():
        if chosen not in (None, f"first {name}"):
            continue
        count, outcome, _ = in_new_process(FIRST_CALL, sys.maxsize, code)
        at = sorted({max(1, count * i // points) for i in range(points)})
        trials = [(FIRST_CALL, p) for p in at] + [(FIRST_CALL, -p) for p in at]
        trials += [(LIMITED_CALL, 2**24 * i // points) for i in range(points)]
        outcomes: collections.Counter[str] = collections.Counter()
        for program, number in trials:
            _, outcome, told = in_new_process(program, number, code)
            outcomes[outcome.partition(":")[0]] += 1
            if outcome not in ("success", "MemoryError"):
                bad += 1
                kind = "RLIMIT_AS" if program is LIMITED_CALL else "allocation"
                print(f"  {kind} {number}: {outcome}\n{told[-1500:]}", flush=True)
        print(f"first {name:18} {count:7} allocations  {dict(outcomes)}", flush=True)
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200, help="failures of each call")
    parser.add_argument("--first", type=int, default=20, help="failures of each first call")
    parser.add_argument("--least", type=int, default=66000, help="bytes of what may fail")
    parser.add_argument("--case", help="a name of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "LD_PRELOAD" not in os.environ:
            library = os.path.join(folder, "failing_malloc.so")
            source = HERE / "failing_malloc.c"
            subprocess.run(["cc", "-O1", "-fPIC", "-shared", source, "-o", library], check=True)
            environment = {**os.environ, "LD_PRELOAD": library}
            environment["FASTRNN_NUM_THREADS"] = "1"
            sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
        bad = 0
        for name, call in cases(folder).items():
            if options.case not in (None, name):
                continue
            count, outcomes, wrong = failures(call, options.points, options.least)
            print(f"{name:24} {count:7} allocations  {dict(outcomes)}", flush=True)
            bad += len(wrong)
            for line, times in collections.Counter(wrong).most_common(8):
                print(f"  {times} x {line}", flush=True)
        bad += first_calls(options.first, options.case)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
