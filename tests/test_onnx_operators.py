"""ONNX's own node tests, through ``fastrnn.onnx.Backend``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import fastrnn

onnx = pytest.importorskip("onnx", "1.20")  # whose test cases come without files
#: Making all of ONNX's test cases overflows in casts, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "onnx_operators.py"

#: Operators that the recurrent models of all exporters have: each of their node tests passes.
LISTED = (
    "add argmax argmin and ceil clip concat constant constantofshape div dropout elu equal exp "
    "expand flatten gather gather_elements gathernd gemm greater gru_ hardsigmoid identity if "
    "layer_normalization leakyrelu less log logsoftmax loop lstm max matmul mean min mod mul neg "
    "not onehot or pad pow range reciprocal reduce_max reduce_mean reduce_min reduce_sum relu "
    "reshape reversesequence rnn round scan9 selu shape sigmoid sign simple_rnn size slice softmax "
    "softplus softsign split sqrt squeeze sub sum tanh tile topk transpose unsqueeze where xor"
)
#: Those that are refused, and why; no file of a recurrent model has them.
REFUSED = {
    "of opset 1": r"test_not_[234]d$",
    "a model in training": "training_dropout",
    "of optional values": "test_if_opt$",
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    from onnx.backend.test.loader import load_model_tests

    return {case.name: case for case in load_model_tests(kind="node")}


def check(case: Any) -> None:
    from onnx.backend.test.runner import Runner

    prepared = fastrnn.onnx.Backend.prepare(case.model)
    for inputs, wanted in case.data_sets:
        given = [onnx.numpy_helper.to_array(a) if hasattr(a, "dims") else a for a in inputs]
        outputs = prepared.run(given)
        Runner.assert_similar_outputs(wanted, outputs, case.rtol, case.atol)


def test_recurrent_node_tests(cases: dict[str, Any], backend: str) -> None:
    names = [n for n in cases if re.match("test_(lstm|gru|rnn|simple_rnn)_", n)]
    assert len(names) == 18
    for name in names:
        check(cases[name])


def test_node_tests_of_small_operators(cases: dict[str, Any]) -> None:
    starts = "|".join(LISTED.split())
    names = [n for n in cases if re.match(rf"test_({starts})(_|$)", n)]
    refused = [n for n in names if re.search("|".join(REFUSED.values()), n)]
    failed = {}
    for name in sorted({*names} - {*refused}):
        try:
            check(cases[name])
        except (AssertionError, ValueError) as error:
            failed[name] = str(error)[:200]
    assert not failed
    assert len(names) - len(refused) > 500


@pytest.mark.skipif(not BENCHMARK.exists(), reason="no benchmarks beside these tests")
def test_random_calls_beside_onnx_runtime(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few of ``benchmarks/onnx_operators.py``."""
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(BENCHMARK.parent)
    command = importlib.import_module(BENCHMARK.stem)
    assert command.main(["--count=80", "--seed=1", "--some"]) == 0
    assert f"{backend}: 80 calls, none skipped" in capsys.readouterr().out
