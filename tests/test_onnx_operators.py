"""ONNX's own node tests, through ``fastrnn.onnx.Backend``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
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
        given, expected = (
            [onnx.numpy_helper.to_array(a) if hasattr(a, "dims") else a for a in arrays]
            for arrays in (inputs, wanted)
        )
        Runner.assert_similar_outputs(expected, prepared.run(given), case.rtol, case.atol)


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


#: What is said of types of elements, operators and options that are not supported.
NOT_SUPPORTED = (
    "is not supported|expected elements of one of|block_size|evaluated for inference|opset"
)


def test_all_other_node_tests(cases: dict[str, Any]) -> None:
    """Each is refused, for what it is that is not supported, or its results are right."""
    starts = "|".join(LISTED.split())
    failed, right = {}, 0
    for name in cases:
        if re.match(rf"test_({starts})(_|$)", name):
            continue
        try:
            check(cases[name])
            right += 1
        except (AssertionError, ValueError) as error:
            if not re.search(NOT_SUPPORTED, str(error)):
                failed[name] = str(error)[:200]
    assert not failed
    assert right > 300


def _classifier(coefficients: str, how: str, more: str = "") -> str:
    return (
        f"y, z = ai.onnx.ml.LinearClassifier <coefficients = [{coefficients}], {more}"
        f'classlabels_ints = [4, 9], post_transform = "{how}"> (x)'
    )


X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
ONE, TWO = "0.5, -1.5, 2.0", "0.5, -1.5, 2.0, 0.25, 1.0, 3.0"
HOW = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")
#: Nodes, and their inputs, that ONNX has no node tests of.
NODES: list[tuple[str, Any]] = [
    ("y = ai.onnx.ml.Imputer <imputed_value_floats = [1.5], replaced_value_float = nan> (x)",
     np.where(X > 0.5, np.float32("nan"), X)),
    ("y = ai.onnx.ml.Imputer <imputed_value_floats = [1.5, 2.5, 0.5], replaced_value_float = 7.0>"
     " (x)", np.where(X > 0.5, np.float32(7), X)),
    ("y = ai.onnx.ml.Imputer <imputed_value_int64s = [5], replaced_value_int64 = 2> (x)",
     np.arange(12).reshape(4, 3) % 5),
    ("y = ai.onnx.ml.FeatureVectorizer <inputdimensions = [3, 3]> (x, x)", X),
    (f"y = ai.onnx.ml.LinearRegressor <coefficients = [{TWO}], intercepts = [0.5, -0.5], "
     "targets = 2> (x)", X),
    *((f'y = ai.onnx.ml.Normalizer <norm = "{norm}"> (x)', X) for norm in ("MAX", "L1", "L2")),
    *((_classifier(ONE, how, "intercepts = [0.5], "), X) for how in HOW),
    *((_classifier(TWO, how, "intercepts = [0.5, -0.5], "), X) for how in HOW),
    ("y = Not(x)", X > 0),
    ("y = Gelu(x)", X),
    ('y = Gelu <approximate = "tanh"> (x)', X),
    ("y = Gemm <transA = 1, alpha = 0.5> (x, x)", X),
    ("y = MatMul(x, x)", X[:3].astype(np.float16)),
]  # fmt: skip


@pytest.mark.parametrize(("node", "x"), NODES, ids=[node for node, _ in NODES])
def test_nodes_beside_the_reference_of_onnx(node: str, x: Any) -> None:
    from onnx.reference import ReferenceEvaluator

    given = {"float32": "float", "int64": "int64", "bool": "bool", "float16": "float16"}
    kind = given[str(x.dtype)]
    outputs = "int64[n] y, float[n, c] z" if node.startswith("y, z") else f"{kind}[a, b] y"
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 20, "ai.onnx.ml": 3]> '
        f"g ({kind}[n, k] x) => ({outputs}) {{ {node} }}"
    )
    wanted = ReferenceEvaluator(model).run(None, {"x": x})
    found = fastrnn.onnx.load(model.SerializeToString(), as_graph=True).run(None, {"x": x})
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-3 if x.dtype == np.float16 else 2e-6, atol=1e-6)


#: What nodes say of inputs and attributes that do not fit; x is (4, 3), k a whole number.
WRONG: dict[str, str] = {
    'y = Einsum <equation = "ij,jk->ik"> (x)': "equation: expected 1 terms, got",
    "s = SequenceConstruct(x, x) k = Constant <value_int = 2> () y = SequenceAt(s, k)":
        r"position: expected one in -2\.\.1, got 2",
    "s = SequenceConstruct(x, x) k = Constant <value_int = -4> () t = SequenceInsert(s, x, k) "
    "y = SequenceLength(t)": r"position: expected one in -3\.\.2, got -4",
    "k = Constant <value_ints = [1, 1]> () s = SplitToSequence(x, k) y = SequenceLength(s)":
        r"split: expected sizes that add up to 4, got \[1, 1\]",
    _classifier(TWO, "PROBIT"): "post_transform: expected NONE, LOGISTIC, SOFTMAX or SOFTMAX_ZERO",
    "y = ai.onnx.ml.LabelEncoder <keys_floats = [1.0]> (x)": "expected keys and values",
    "t = Constant <value = bool {1}> () r = Constant <value_float = 0.5> () "
    "y = Dropout(x, r, t)": "training_mode: expected false, as models are evaluated",
    'w = Constant <value_strings = ["a"]> () y = Cast <to = 1> (w)':
        "expected numbers cast to numbers",
    "k = Constant <value_ints = [-1, -2]> () y = ConstantOfShape(k)":
        "expected a shape of sizes of at least 0",
    "k = Constant <value_ints = [5]> () y = Squeeze(x, k)": r"axes: expected axes in -2\.\.1, got",
    "k = Constant <value_ints = [4, 3, 0]> () y = Reshape(x, k)":
        "shape: expected no 0 past the axes of the input",
    "k = Constant <value_ints = [0, 0, 0]> () y = Slice(x, k, k)":
        "expected starts, ends, axes and steps of one length of at most 2",
    "k = Constant <value_ints = [3, 2]> () y, z = Split(x, k)":
        r"split: expected 2 sizes that add up to 4, got \[3, 2\]",
    "y, z = Split <axis = 1, num_outputs = 3> (x)": "expected 3 equal parts of 3 for 2 outputs",
    "k = Constant <value_ints = [2]> () y = Tile(x, k)":
        "repeats: expected 2 numbers of at least 0",
    "k = Constant <value_ints = [1, 1]> () y = Pad(x, k)":
        r"pads: expected 4 numbers, got \[1, 1\]",
    "k = Constant <value_ints = [5]> () y, z = TopK(x, k)": "K: expected 0 to 3, got 5",
    "k = Constant <value_ints = [1, 2, 9, 1]> () "
    "y = ReverseSequence <time_axis = 1, batch_axis = 0> (x, k)": "sequence_lens: expected 0 to 3",
    "k = Constant <value_ints = [1, 2]> () y = ReverseSequence <time_axis = 2> (x, k)":
        "expected the axes 0 and 1 for time and batch",
    "k = Constant <value = int64[1, 1] {0}> () y = GatherND <batch_dims = 1> (x, k)":
        "expected the first 1 sizes to be the same",
    "w = Constant <value = float[1, 3, 2] {1, 2, 3, 4, 5, 6}> () "
    "r = Constant <value = float[1, 3, 1] {1, 2, 3}> () k = Constant <value_ints = [0]> () "
    "s = Unsqueeze(x, k) y = GRU <hidden_size = 2> (s, w, r)": "hidden_size",
    "y = RNN <clip = -1.0> (x, x, x)": "clip: expected a number above 0, got -1",
    "y = RNN <layout = 2> (x, x, x)": "layout: expected 0 or 1, got 2",
    'y = GRU <activations = ["Tanh"]> (x, x, x)': "activations: expected 2, got",
    "y = Constant <value_int = 1, value_float = 2.0> ()": "expected one attribute, got",
}  # fmt: skip


@pytest.mark.parametrize("body", WRONG)
def test_what_does_not_fit_is_named(body: str) -> None:
    outputs = "float y, float z" if "y, z" in body else "float y"
    model = (
        '<ir_version: 9, opset_import: ["": 20, "ai.onnx.ml": 3]> '
        f"g (float[n, k] x) => ({outputs}) {{ {body} }}"
    )
    data = onnx.parser.parse_model(model).SerializeToString()
    with pytest.raises(ValueError, match=WRONG[body]):
        fastrnn.onnx.load(data, as_graph=True).run(None, {"x": X})


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
