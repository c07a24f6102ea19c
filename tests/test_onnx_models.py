"""Whole models that others exported, read by ``fastrnn.onnx.load``: benchmarks/onnx_models.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import fastrnn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

COMMAND = Path(__file__).parents[1] / "benchmarks" / "onnx_models.py"
DATA = Path(__file__).parent / "data"


@pytest.fixture
def command() -> ModuleType:
    if not COMMAND.exists():
        pytest.skip("no benchmarks beside these tests")
    spec = importlib.util.spec_from_file_location("onnx_models", COMMAND)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["script-language", "script-packed", "script-residual"])
def test_models_of_torch(
    command: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    command.write(tmp_path, name)
    assert command.read(tmp_path, name) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_models_of_keras(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """As tf2onnx exported them, with what Keras computed for their inputs."""
    assert command.read(DATA, "tf2onnx") == 0
    assert "3 passed, 0 failed" in capsys.readouterr().out


def test_optional_inputs_before_required_ones() -> None:
    """As tf2onnx leaves out how often a loop runs at most."""
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
