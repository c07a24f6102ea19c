"""The README's code runs, and does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastrnn

README = Path(__file__).parent.parent / "README.md"


pytestmark = pytest.mark.skipif(not README.exists(), reason="no README beside these tests")


def block(n):
    return README.read_text(encoding="utf-8").split("```python\n")[n].split("```")[0]


def test_the_model(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    names = {"fastrnn": fastrnn, "y": rng.integers(0, 3, 60)}
    names["X"] = rng.standard_normal((60, 7, 8)) + names["y"][:, None, None]
    exec(block(2), names)
    model = names["model"]
    assert model.history.history["val_accuracy"][-1] > 0.8
    loaded = fastrnn.load("m.safetensors")
    np.testing.assert_array_equal(loaded.predict(names["X"]), model.predict(names["X"]))


def test_the_ten_lines(backend):
    code = block(1)
    names: dict = {}
    exec(code, names)
    y, _ = names["lstm"](names["x"])
    assert np.array_equal(names["y0"], y[0])
    assert not np.array_equal(names["y"], y)  # a weight has changed since
    assert len([line for line in code.splitlines() if line]) == 10
