"""Whole models that torch exports, read by ``fastrnn.onnx.load``: benchmarks/onnx_models.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

for package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(package)

COMMAND = Path(__file__).parents[1] / "benchmarks" / "onnx_models.py"

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="no benchmarks beside these tests")


@pytest.mark.parametrize("name", ["script-language", "script-packed", "script-residual"])
def test_models_of_torch(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("onnx_models", COMMAND)
    assert spec is not None
    assert spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    command.write(tmp_path, name)
    assert command.read(tmp_path, name) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_optional_inputs_before_required_ones() -> None:
    """As tf2onnx leaves out how often a loop runs at most."""
    import onnx

    import fastrnn

    doubled = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        doubled (float[n] x, bool go_on) => (float[n] y) {
            y = Loop <body = step (int64 k, bool before, float[n] a) => (bool after, float[n] b) {
                b = Add (a, a)
                most = Constant <value_int = 2> ()
                after = Less (k, most)
            }> ("", go_on, x)
        }""")
    model = fastrnn.onnx.load(doubled.SerializeToString())
    assert model([1, 3], True).tolist() == [8, 24]
    assert model([1, 3], False).tolist() == [1, 3]
