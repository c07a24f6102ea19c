"""One answer: the same bits on every backend with fused multiply-add."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn._bench import bits
from fastrnn._kernels import dispatch
from fastrnn.callbacks import Callback
from fastrnn.cli import main
from fastrnn.text import CharLM

#: Written on the page of what users can rely on.
README = Path(__file__).parent.parent / "README.md"
FUSED = [name for name in dispatch.backends() if name in dispatch.FUSED]
needs_fused = pytest.mark.skipif(not FUSED, reason="no backend with fused multiply-add")


@needs_fused
@pytest.mark.parametrize("precision", bits.PRECISIONS)
def test_random_configurations(precision):
    """Some tens of those that ``fastrnn bench --bits`` runs by the thousand."""
    found = bits.compare(precision, range(60))
    assert len(found.hashes) == 60
    assert not found.different, str(found)


def test_every_kind_and_cell_is_drawn():
    told = [bits.run("float", number)[0] for number in range(150)]
    names = ("RNN", "LSTM", "GRU", "IndRNN", "Linear", "Embedding", "Adam", "mse", "Sequential")
    for name in names:
        assert any(f" {name}" in line for line in told), name


def test_hashes_tell_what_differs():
    numbers = np.array([1.0, -0.0, np.nan], np.float32)
    assert bits.digest(numbers) == bits.digest(np.copysign(numbers, [1, -1, -1], dtype=np.float32))
    for other in (numbers[:2], numbers.astype(float), numbers + np.float32(1e-7), abs(numbers)):
        assert bits.digest(numbers) != bits.digest(other)


@needs_fused
def test_a_file_of_hashes(tmp_path, capsys):
    path = str(tmp_path / "hashes.json")
    assert main(["bench", "--bits", "7", "--save", path]) == 0
    assert "float: 7 of 7 equal" in capsys.readouterr().out
    with fastrnn.use_backend(FUSED[-1]):
        assert main(["bench", "--check", path]) == 0
        assert f"float: 7 of 7 equal on {FUSED[-1]}, the file" in capsys.readouterr().out
        hashes = json.loads(Path(path).read_text())
        hashes["float"]["5"] = hashes["float"]["4"]
        Path(path).write_text(json.dumps(hashes))
        assert main(["bench", "--check", path]) == 2
    out, err = capsys.readouterr()
    assert "float: 6 of 7 equal" in out
    assert "the first that is not is 5: " in out
    assert "results differ" in err


class Watch(Callback):
    """Counts the steps of a training, and hashes the weights at its end."""

    steps, sha256 = 0, ""

    def on_train_batch_end(self, batch, logs):
        self.steps += 1

    def on_train_end(self, logs):
        arrays = self.model.parameters().values()
        self.sha256 = hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


@pytest.mark.skipif(not README.exists(), reason="the tests stand alone")
@pytest.mark.parametrize("name", FUSED)
def test_a_seeded_training(name):
    """README.md tells the hash of a character model's weights after 200 steps."""
    text = " ".join(str(n * n) for n in range(4000))[: 200 * 8 * 16 + 1]
    model = CharLM(
        embedding_dim=24, hidden_size=48, batch_size=8, seq_len=16, epochs=1,
        validation_fraction=0, seed=0,
    )  # fmt: skip
    watch = Watch()
    with fastrnn.use_backend(name):
        model.fit(text, callbacks=[watch], verbose=0)
    assert watch.steps == 200
    assert re.findall(r"`([0-9a-f]{64})`", README.read_text(encoding="utf-8")) == [watch.sha256]


def test_without_such_a_backend(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "FUSED", ())
    monkeypatch.setattr(bits, "PRECISIONS", {"float": bits.PRECISIONS["float"]})
    assert main(["bench", "--bits", "1"]) == 0
    assert capsys.readouterr().out == "float: no such backend here promises these bits\n"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"float": 1}', '{"double": {}}', '{"float": {"a": ""}}']
)
def test_another_file(tmp_path, capsys, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main(["bench", "--check", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
