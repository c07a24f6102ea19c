"""Training by several processes: time of a step, what the exchange of gradients costs, and a model.

python benchmarks/ranks.py                      with the mpiexec on PATH and this Python's mpi4py
python benchmarks/ranks.py --ranks 1,2,4 --shards 4
python benchmarks/ranks.py --network            as root: ranks in network namespaces of their own,
                                                joined by a bridge of 10 Gb/s and 50 us
python benchmarks/ranks.py --network --rate 1 --latency 500     ... of 1 Gb/s and 500 us

The network is emulated by netem. A kernel without it limits the rate (tbf), and each rank waits for
as long after each transfer, as no transfer here begins before the one before has ended.

A step is forward, BPTT and Adam for LSTM(I, H) with Linear(H, I), sequences of 20 steps, one thread
a rank. "alone" is `fit` without shards on one thread, as a yardstick. The exchange alone is timed
with buffers of the same size and nothing computed.

The model of a step with R = 2^k ranks adds up
- the time in which a rank does its part of the batch, while the others do theirs, on the same
  cores if there are more ranks than cores, and nothing is exchanged;
- the exchange by R ranks, as it is measured by as many; or else (Rabenseifner 2004) that of all
  bytes by two ranks, then of half of them, of a quarter, and so on.

The second form is printed beside the first: ranks that share a core also share its time for TCP.
For up to 1,024 ranks, each on a core of its own, the time of a part is u + v / R, fitted to the
parts of ranks that have one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from typing import Any

import numpy as np

import fastrnn
from fastrnn.callbacks import Callback
from fastrnn.models.ranks import MPIRanks, Ranks
from fastrnn.models.shards import Total

#: I, H and the batch.
WORK = [(64, 128, 64), (64, 128, 256), (512, 512, 64), (512, 512, 256)]
STEPS = 20
#: Bytes of the exchanges that are timed: from none to the largest model's gradients.
SIZES = [0, 1 << 12, 1 << 16, 1 << 17, 430_336, 1 << 20, 1 << 21, 1 << 22, 9_453_568]


class Clock(Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


class DelayedRanks(MPIRanks):
    """Ranks that make each transfer take `delay` seconds longer."""

    def __init__(self, comm: Any, delay: float) -> None:
        super().__init__(comm)
        self._delay = delay

    def transfer(self, sends: Any, receives: Any) -> None:
        """Send and receive arrays of bytes at once."""
        super().transfer(sends, receives)
        end = time.perf_counter() + self._delay
        while time.perf_counter() < end:
            os.sched_yield()


def step(I: int, H: int, B: int, ranks: Ranks | None, shards: int | None) -> float:
    """Return the median time of a training step, in seconds."""
    steps = max(5, min(40, 60_000_000 // (B * H * (I + H))))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(B * steps, STEPS, I)).astype(np.float32)
    model = fastrnn.Sequential([fastrnn.LSTM(I, H), fastrnn.Linear(H, I)], seed=0)
    model.compile("adam", "mse")
    clock = Clock()
    model.fit(X, X, 2, B, callbacks=[clock], verbose=0, comm=ranks, shards=shards)
    return statistics.median(np.diff(clock.times))


def exchange(size: int, ranks: Ranks) -> float:
    """Return the median time in which ranks add up `size` bytes each, in seconds."""
    total = Total(ranks, ranks.size, size // 4, 5, np.dtype(np.float32))
    times = []
    for _ in range(max(20, min(2000, (1 << 26) // (size + 1)))):
        start = time.perf_counter()
        total.sum(lambda shard, part: None)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def world(delay: float) -> DelayedRanks:
    """Return all processes that mpiexec has started, for one training."""
    from mpi4py import MPI

    return DelayedRanks(MPI.COMM_WORLD, delay)


def measure(task: dict[str, Any]) -> None:
    """Print what a task asks for, as rank 0 of the processes that mpiexec has started."""
    fastrnn.set_num_threads(task["threads"])
    ranks = world(task["delay"])
    if "bytes" in task:
        found = [exchange(size, ranks) for size in task["bytes"]]
    else:
        shards = task["shards"]
        found = []
        for of in task["work"]:
            own = None if shards is None else Ranks() if task["apart"] else world(task["delay"])
            found.append(step(*of, own, shards))
    if ranks.rank == 0:
        sys.stdout.write(json.dumps(found) + "\n")


class Launcher:
    """Starts ranks on this machine, or, with `network`, each in a network namespace of its own.

    `rate` is in Gb/s, `latency` in seconds.
    """

    def __init__(self, network: bool, rate: float, latency: float) -> None:
        self.mpiexec = shutil.which("mpiexec", path=sysconfig.get_path("scripts")) or "mpiexec"
        self.network, self.rate, self.latency = network, rate, latency
        self._spaces = 0
        self._delay = 0.0

    def run(self, ranks: int, **task: Any) -> Any:
        """Run a task on a number of ranks; return the result that rank 0 prints."""
        if self.network:
            self._prepare(ranks)
        task = {"threads": 1, "delay": self._delay, "apart": False, **task}
        child = [sys.executable, "-P", __file__, "--task", json.dumps(task)]
        command, environment = [self.mpiexec], dict(os.environ)
        if self.network:
            environment |= {"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self", "FI_PROVIDER": "tcp"}
            for rank in range(ranks):
                command += [":"] * (rank > 0) + ["-n", "1", "ip", "netns", "exec", _space(rank)]
                command += child
        else:
            command += ["-n", str(ranks), *child]
        ended = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return json.loads(ended.stdout)

    def _prepare(self, ranks: int) -> None:
        """Make the namespaces, and the bridge that joins them."""
        if not self._spaces:
            _ip("link add fastrnn0 type bridge", "link set fastrnn0 up")
        for i in range(self._spaces, ranks):
            space, inner, outer = _space(i), f"inner{i}", f"outer{i}"
            _ip(
                f"netns add {space}",
                f"link add {inner} type veth peer name {outer}",
                f"link set {inner} netns {space}",
                f"link set {outer} master fastrnn0",
                f"link set {outer} up",
                f"-n {space} addr add 10.77.0.{i + 1}/24 dev {inner}",
                f"-n {space} link set {inner} up",
                f"-n {space} link set lo up",
            )
            self._spaces += 1
            self._slow(space, inner)

    def _slow(self, space: str, device: str) -> None:
        """Make a device as slow as the emulated network."""
        add = f"tc -n {space} qdisc add dev {device} root"
        netem = f"{add} netem rate {self.rate}gbit delay {self.latency * 1e6:.0f}us".split()
        if subprocess.run(netem, check=False, stderr=subprocess.DEVNULL).returncode:
            self._delay = self.latency
            limit = f"{add} tbf rate {self.rate}gbit burst 256kb latency 200ms"
            subprocess.run(limit.split(), check=True)

    def close(self) -> None:
        """Remove what was made."""
        for i in range(self._spaces):
            _ip(f"netns del {_space(i)}")
        if self._spaces:
            _ip("link del fastrnn0")


def _space(rank: int) -> str:
    return f"fastrnn-rank-{rank}"


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def weights(I: int, H: int) -> int:
    """Return the bytes of the gradients of LSTM(I, H) and Linear(H, I)."""
    return 4 * (4 * H * (I + H + 2) + I * (H + 1))


def exchanged(times: list[float], size: int, ranks: int) -> float:
    """Return the seconds of an exchange by 2^k ranks, from those of SIZES by two."""
    parts = [size / 2**i for i in range(int(math.log2(ranks)))]
    return float(np.interp(parts, SIZES, times).sum())


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, powers of two")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of all runs; the least counts")
    parser.add_argument("--network", action="store_true", help="emulate one; needs root")
    parser.add_argument("--rate", type=float, default=10, help="of the network, in Gb/s")
    parser.add_argument("--latency", type=float, default=50, help="of the network, in us")
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task is not None:
        measure(given.task)
        return
    ranks = [int(text) for text in given.ranks.split(",")]
    launcher = Launcher(given.network, given.rate, given.latency * 1e-6)
    try:
        tables(launcher, ranks, given.shards, given.rounds)
    finally:
        launcher.close()


def tables(launcher: Launcher, ranks: list[int], shards: int, rounds: int) -> None:
    """Print the times of exchanges and of steps, and what the model makes of them."""
    cores = len(os.sched_getaffinity(0))
    runs: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {
        ("alone", 1): (1, {"work": WORK, "shards": None})
    }
    for n in sorted({2, *ranks}):
        part = [(I, H, B // n) for I, H, B in WORK]
        runs["exchange", n] = n, {"bytes": SIZES}
        runs["step", n] = n, {"work": WORK, "shards": shards}
        runs["part", n] = n, {"work": part, "shards": shards // n, "apart": True}
    # In turn: the two CPUs of a virtual machine are at times less than two.
    all_times = [
        {of: launcher.run(n, **task) for of, (n, task) in runs.items()} for _ in range(rounds)
    ]
    least = {of: np.min([times[of] for times in all_times], 0).tolist() for of in runs}
    exchanges = {n: least["exchange", n] for n in ranks if n > 1}
    pair = least["exchange", 2]
    alone = least["alone", 1]
    found = {n: least["step", n] for n in ranks}
    parts = {n: least["part", n] for n in ranks}
    print("exchanges: bytes, us" + "; ratio of what two ranks predict" * (max(ranks) > 2))
    for n, times in exchanges.items():
        for size, seconds in zip(SIZES, times, strict=True):
            more = f" {exchanged(pair, size, n) / seconds:>6.2f}" * (n > 2)
            print(f"  {n} ranks {size:>10,} {seconds * 1e6:>10.1f}{more}")
    print(f"ms per step: alone; {shards} shards by {', '.join(map(str, ranks))} ranks")
    one = ranks[0]
    for i, (I, H, B) in enumerate(WORK):
        steps = " ".join(f"{found[n][i] * 1e3:>8.2f}" for n in ranks)
        told = []
        for n in ranks[1:]:
            exchange = float(np.interp(weights(I, H), SIZES, exchanges[n]))
            model = parts[n][i] + exchange
            told.append(
                f"{n} ranks: speedup {found[one][i] / found[n][i]:.2f}, exchange "
                f"{exchange * 1e3:.2f} ms, model / measured {model / found[n][i]:.2f}"
            )
        print(f"  {I},{H} batch {B:>4} {alone[i] * 1e3:>8.2f} {steps}   {'; '.join(told)}")
    outlook({n: parts[n] for n in ranks if n <= cores}, pair)


def outlook(parts: dict[int, list[float]], pair: list[float]) -> None:
    """Print what more ranks would give, each on a core of its own, by the model."""
    many = (2, 4, 16, 128, 1024)
    shares = np.array([np.ones(len(parts)), [1 / n for n in parts]]).T
    fitted = np.linalg.lstsq(shares, np.array(list(parts.values())))[0]
    for grows in (True, False):
        batch = "a batch that grows with the ranks" if grows else "the same batch"
        print(f"model: speedup over one rank by {', '.join(map(str, many))} ranks, with {batch}")
        for (I, H, B), update, rest in zip(WORK, *fitted.tolist(), strict=True):
            if update < 0:  # noise
                update, rest = 0.0, update + rest
            ranks = [1 << k for k in range(21)]
            speedups = {}
            for n in ranks:
                exchange = exchanged(pair, weights(I, H), n)
                part = update + rest / (1 if grows else n)
                speedups[n] = (n if grows else 1) * (update + rest) / (part + exchange)
            text = " ".join(f"{speedups[n]:>7.1f}" for n in many)
            pays = max(n for n in ranks if speedups[n] >= n / 2)
            upto = "beyond" if pays == ranks[-1] else "up to"
            told = f"half of each core is used {upto} {pays:,} ranks"
            print(f"  {I},{H} batch {B:>4} {text}   {told}")


if __name__ == "__main__":
    main()
