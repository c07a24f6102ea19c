"""Training by several processes of MPI: equal bits, and no rank waits forever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=sysconfig.get_path("scripts")) or shutil.which("mpiexec")
if MPIEXEC is None:
    pytest.skip("there is no mpiexec", allow_module_level=True)

SCRIPT = """
import hashlib, os, signal, sys
from mpi4py import MPI
import numpy as np
import fastrnn

comm, fault, path = MPI.COMM_WORLD, sys.argv[1], sys.argv[2]
last = comm.rank == comm.size - 1

class Fault(fastrnn.callbacks.Callback):
    def on_train_batch_end(self, batch, logs):
        if batch == 2 and last and fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if batch == 2 and last and fault == "raise":
            raise OSError("no more disk")
        if batch == 2 and fault == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)

    def on_epoch_end(self, epoch, logs):
        if epoch == 1 and last and fault == "interrupt late":
            os.kill(os.getpid(), signal.SIGINT)

X = np.load(path + ".npy", mmap_mode="r")
lengths = np.random.default_rng(1).integers(1, X.shape[1] + 1, len(X))
model = fastrnn.Sequential(
    [fastrnn.LSTM(3, 5, num_layers=2, dropout=0.2), fastrnn.Linear(5, 2)], seed=0
)
model.compile("adam", "mse")
keep = fastrnn.callbacks.Checkpoint(path, every=1)
callbacks = [Fault()] if fault == "none" or "interrupt" in fault else [Fault(), keep]
try:
    history = model.fit(
        X, X[..., :2], epochs=2, batch_size=11, lengths=lengths, bptt=4, validation_split=0.2,
        callbacks=callbacks, verbose=0, comm=comm, shards=8,
    )
    weights = b"".join(a.tobytes() for a in model.parameters().values())
    said = f"{hashlib.sha256(weights).hexdigest()} {history.history.get('val_loss')}"
    said += f" {history.interrupted}"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
sys.stdout.write(said + "\\n")
"""


@pytest.fixture
def run(tmp_path, rng):
    """Return a function that trains on ranks, and returns the set of what they say."""
    import numpy as np

    path = tmp_path / "training"
    np.save(f"{path}.npy", rng.normal(size=(50, 7, 3)).astype(np.float32))

    def run(ranks, fault="none"):
        command = [MPIEXEC, "-n", str(ranks), sys.executable, "-P", "-c", SCRIPT, fault, str(path)]
        environment = {**os.environ, "FASTRNN_NUM_THREADS": "1"}
        ended = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        return [line for line in ended.stdout.splitlines() if "=" not in line], path

    return run


def test_same_bits_on_any_number_of_ranks(run):
    said = [run(ranks)[0] for ranks in (1, 2, 4)]
    assert [len(lines) for lines in said] == [1, 2, 4]
    assert len({line for lines in said for line in lines}) == 1


def test_a_killed_rank_and_another_number_of_ranks(run):
    lines, path = run(4, "kill")
    assert not [line for line in lines if "[" in line]
    assert Path(path).exists()
    resumed, _ = run(2, "go on")
    path.unlink()
    whole, _ = run(1, "go on")
    assert set(resumed) == set(whole)


def test_an_error_of_one_rank_ends_all(run):
    lines, _ = run(3, "raise")
    told = "RankError: fit: ended, as rank 2 of 3 failed with OSError: no more disk"
    assert sorted(lines) == ["OSError: no more disk", told, told]


@pytest.mark.parametrize("fault", ["interrupt", "interrupt late"])
def test_ctrl_c_ends_all_after_the_same_step(run, fault):
    lines, _ = run(2, fault)
    assert len(lines) == 2
    assert len(set(lines)) == 1
    assert lines[0].endswith("True")
