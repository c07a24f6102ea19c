"""Estimators outside the notebook: files, prediction without scikit-learn, streams."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fastrnn
from fastrnn._files import model_file
from fastrnn._kernels import dispatch
from fastrnn.layers import RECURRENT
from fastrnn.models.fitted import FittedClassifier, FittedRegressor
from fastrnn.sklearn import SequenceClassifier, SequenceRegressor

pd = pytest.importorskip("pandas")

QUICK: dict[str, Any] = {"hidden_size": 7, "max_epochs": 2, "random_state": 0}
RNG = np.random.default_rng(15)
#: 13 sequences of 5 steps and 3 features of differing scales; ragged; with names.
X = RNG.normal([3, -40, 0], [1, 20, 1e-3], (13, 5, 3))
RAGGED = [x[: 2 + i % 4] for i, x in enumerate(X)]
NAMES = ["pressure", "flow", "level"]
FRAMES = [pd.DataFrame(x, columns=NAMES) for x in RAGGED]
ROWS = np.arange(13)


def classifier(x: Any, y: Any, **options: Any) -> Any:
    return SequenceClassifier(**QUICK | options).fit(x, y), x


def regressor(x: Any, y: Any, **options: Any) -> Any:
    return SequenceRegressor(**QUICK | options).fit(x, y), x


def quantized(x: Any, y: Any, **options: Any) -> Any:
    return fastrnn.quantize(SequenceClassifier(**QUICK).fit(x, y), **options), x


def each_step(of: Callable[[Any], Any]) -> list[Any]:
    return [of(x) for x in RAGGED]


#: Fitted estimators, and what they predict from.
CASES: dict[str, Callable[[], Any]] = {
    "strings": lambda: classifier(FRAMES, np.where(ROWS % 3, "up", "down")),
    "ints": lambda: classifier(X, (ROWS % 3 * 50 - 20).astype("int8"), num_layers=2, dropout=0.1),
    "bools": lambda: classifier(X.astype("f4"), ROWS % 2 == 0, early_stopping=True,
                                validation_fraction=0.3),
    "floats": lambda: classifier(X, (ROWS % 2 * 3.0).astype("f4"), class_weight={0.0: 1, 3.0: 2}),
    "objects": lambda: classifier(RAGGED, np.where(ROWS % 2, "a", "bb").astype(object),
                                  class_weight={"a": 1, "bb": 3}),
    "labels": lambda: classifier(RAGGED, np.stack([ROWS % 2, ROWS % 3 == 0, ROWS % 5 > 1], 1)),
    "steps": lambda: classifier(RAGGED, each_step(lambda x: np.where(x[:, 0] > 3, "hi", "lo")),
                                return_sequences=True),
    "table": lambda: classifier(pd.DataFrame(X[:, :, 0], columns=[f"t{i}" for i in range(5)]),
                                ROWS % 2),
    "both": lambda: classifier(X, ROWS % 2, bidirectional=True, standardize=False),
    "bfloat16": lambda: classifier(X.astype("f4"), ROWS % 2, matmul_precision="bfloat16"),
    "int8": lambda: quantized(RAGGED, ROWS % 4),
    "calibrated": lambda: quantized(FRAMES, ROWS % 4, calibration=FRAMES),
    "number": lambda: regressor(FRAMES, ROWS * 1e3),
    "numbers": lambda: regressor(X, np.stack([ROWS, -(ROWS**2)], 1)),
    "numbers_of_steps": lambda: regressor(RAGGED, each_step(lambda x: x[:, :2] * [1, 9]),
                                          return_sequences=True),
    "float32": lambda: regressor(X.astype("f4"), ROWS / 7, cell="lstm"),
    **{f"cell_{cell}": lambda cell=cell: regressor(RAGGED, ROWS, cell=cell) for cell in RECURRENT},
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    return {name: case() for name, case in CASES.items()}


def predicted(model: Any, x: Any) -> list[Any]:
    """Return all predictions, as a flat list of arrays."""
    several = [model.predict(x)]
    if hasattr(model, "predict_proba"):
        several.append(model.predict_proba(x))
    return [array for of in several for array in (of if isinstance(of, list) else [of])]


def expect_same(a: Any, b: Any, x: Any) -> None:
    for got, wanted in zip(predicted(a, x), predicted(b, x), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_an_estimator_comes_back(case: str, fitted: Any, tmp_path: Path) -> None:
    model, x = fitted[case]
    model.save(tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert type(loaded) is type(model)
    assert clone(loaded).get_params() == model.get_params()
    expect_same(loaded, model, x)
    assert loaded.net_.quantized == model.net_.quantized
    for name in {"_target_norm"} & set(vars(model)):
        np.testing.assert_equal(getattr(loaded, name).buffers(), getattr(model, name).buffers())
    for name in set(vars(model)) - {"net_", "_inputs", "_target_norm"}:
        np.testing.assert_equal(getattr(loaded, name), getattr(model, name))
    if isinstance(model, SequenceClassifier):
        assert loaded.classes_.dtype == model.classes_.dtype
    loaded.save(tmp_path / "again")
    np.testing.assert_equal(model_file.read(tmp_path / "again"), model_file.read(tmp_path / "m"))


def test_without_scikit_learn(fitted: Any, tmp_path: Path) -> None:
    """In a process that can't import it: the same bits, and the same file again."""
    for case, (model, x) in fitted.items():
        model.save(tmp_path / case)
        (tmp_path / f"{case}.x").write_bytes(pickle.dumps(x))
    code = """
import pickle, sys
from pathlib import Path
sys.modules["sklearn"] = None
import numpy as np
import fastrnn
from fastrnn._files import model_file
from fastrnn._kernels import dispatch
folder = Path(sys.argv[1])
for case in sys.argv[2:]:
    model = fastrnn.load(folder / case)
    x = pickle.loads((folder / f"{case}.x").read_bytes())
    names = ["predict", "predict_proba"][: 1 + hasattr(model, "classes_")]
    results = [getattr(model, name)(x) for name in names]
    seen = {n: getattr(model, n, None) for n in ("classes_", "n_features_in_", "feature_names_in_")}
    (folder / f"{case}.y").write_bytes(pickle.dumps((type(model).__name__, results, seen)))
    model.save(folder / "again")
    np.testing.assert_equal(model_file.read(folder / "again"), model_file.read(folder / case))
    small = model if model.net_.quantized else fastrnn.quantize(model, calibration=x)
    small.save(folder / "again")
    assert fastrnn.load(folder / "again").net_.quantized
assert not [name for name in sys.modules if name.startswith(("sklearn.", "scipy"))]
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, tmp_path, *fitted], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    for case, (model, x) in fitted.items():
        kind, results, seen = pickle.loads((tmp_path / f"{case}.y").read_bytes())
        assert kind == type(model).__name__.replace("Sequence", "Fitted")
        got = [a for of in results for a in (of if isinstance(of, list) else [of])]
        for array, wanted in zip(got, predicted(model, x), strict=True):
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted)
        for name, value in seen.items():
            wanted = getattr(model, name, None)
            np.testing.assert_array_equal(value, wanted)
            assert getattr(value, "dtype", None) == getattr(wanted, "dtype", None)


def test_both_check_what_comes(fitted: Any, tmp_path: Path) -> None:
    """Number and names of columns, and their values, with the same messages."""
    model, _ = fitted["strings"]
    model.save(tmp_path / "m")
    alone = FittedClassifier.load(tmp_path / "m")
    for wrong in (
        [x[NAMES[::-1]] for x in FRAMES],
        [x.rename(columns={"flow": "flood"}) for x in FRAMES],
        [x[NAMES[:2]] for x in FRAMES],
        X.swapaxes(1, 2)[:, :2],
        X[:, :, :0],
        X[:, :, 0],
        X[0, 0],
        X * np.nan,
        X * 1j,
        [x.T for x in RAGGED],
        [*RAGGED, RAGGED[0] * np.inf],
        [*FRAMES, RAGGED[0]],
        [],
        [["a", "b"]],
        None,
        FRAMES[0],
        iter(RAGGED),
    ):
        said = []
        for of in (model, alone):
            with pytest.raises((ValueError, TypeError)) as caught:
                of.predict(wrong)
            said.append((caught.type, str(caught.value).replace("Fitted", "Sequence")))
        assert said[0] == said[1]
    for of in (model, alone):
        with pytest.warns(UserWarning, match="does not have valid feature names, but .* fitted"):
            of.predict(RAGGED)
    with pytest.raises(ValueError, match="m: is not a SequenceRegressor but a SequenceCl"):
        FittedRegressor.load(tmp_path / "m")


def test_training_goes_on_after_loading(tmp_path: Path) -> None:
    y = np.where(ROWS % 2, "a", "b")
    model = SequenceClassifier(**QUICK, warm_start=True).fit(X, y)
    model.save(tmp_path / "m")
    loaded = fastrnn.load(tmp_path / "m")
    assert len(loaded.fit(X, y).loss_curve_) == 4
    loaded = SequenceClassifier.load(tmp_path / "m")
    assert len(loaded.partial_fit(X, y).loss_curve_) == 3
    np.testing.assert_array_equal(clone(loaded).fit(X, y).predict(X), model.predict(X))
    seeded = SequenceClassifier(**QUICK | {"random_state": np.random.RandomState(0)}).fit(X, y)
    seeded.save(tmp_path / "m")
    assert fastrnn.load(tmp_path / "m").random_state is None


def test_what_no_file_can_hold(fitted: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        SequenceClassifier().save(tmp_path / "m")

    class Special(SequenceClassifier):
        pass

    with pytest.raises(TypeError, match="save: expected SequenceClassifier, got Special, a class"):
        Special(**QUICK).fit(X, ROWS % 2).save(tmp_path / "m")
    model, _ = fitted["ints"]
    with pytest.raises(TypeError, match=r"lr: expected a number, a str or None, .* got complex"):
        clone(model).fit(X, ROWS % 2).set_params(lr=1j).save(tmp_path / "m")
    odd = clone(model).fit(X, ROWS % 2)
    odd.classes_ = np.array([(0,), (1,)], object)
    with pytest.raises(TypeError, match="classes_: expected str or numbers"):
        odd.save(tmp_path / "m")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["strings", "table", "numbers"])
def test_damaged_and_newer_files(
    case: str, fitted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    fitted[case][0].save(path)
    whole = path.read_bytes()
    for data in (whole[:-3], whole[: len(whole) // 2], whole.replace(b"targets", b"torgets"), b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m: is (damaged|not a safetensors file)"):
            fastrnn.load(path)
    path.write_bytes(whole)
    kind, header, tensors = model_file.read(path)
    for field in header:
        for value in (None, -1, "x", [], {}, [{}], 10**30, 1e300):
            model_file.write(path, kind, header | {field: value}, tensors)
            said = ""
            try:
                model = fastrnn.load(path)
            except ValueError as error:
                said = str(error)
            if said:
                assert said.startswith(f"{path}: is damaged: ")
                continue
            with warnings.catch_warnings(action="ignore"):  # names of columns may be gone
                model.predict(fitted[case][1])
    targets = header["targets"]
    wrong_targets = (
        *({"classes": value} for value in (["a"], ["a", "a"], ["a", 2], [2, 1], "ab", [0.5, 1])),
        *({"dtype": value} for value in ("i8", "V4", "O", "complex", "U1", None, "M8[D]")),
        {"several": 2},
        {"single": True},
    )
    for wrong in wrong_targets:
        if targets.keys() >= wrong.keys() and targets | wrong != targets:
            model_file.write(path, kind, header | {"targets": targets | wrong}, tensors)
            with pytest.raises(ValueError, match="m: is damaged: "):
                fastrnn.load(path)
    for name, array in tensors.items():
        for held in ({}, {name: array[..., None]}, {name: array.astype("f2")}, {"more": array}):
            rest = {n: a for n, a in tensors.items() if n != name or "more" in held}
            model_file.write(path, kind, header, rest | held)
            with pytest.raises(ValueError, match="m: is damaged: "):
                fastrnn.load(path)
    for name in {"mean", "deviation", "target.mean", "target.deviation"} & tensors.keys():
        model_file.write(path, kind, header, tensors | {name: tensors[name] * np.nan})
        with pytest.raises(ValueError, match=r"m: is damaged: .* expected finite numbers"):
            fastrnn.load(path)
    monkeypatch.setattr(model_file, "VERSION", "2")
    fitted[case][0].save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="m: expected format version 1, got '2'"):
        fastrnn.load(path)


FUSED = [name for name in fastrnn.backends() if name in dispatch.FUSED]


@pytest.mark.parametrize("name", FUSED[1:])
def test_one_answer(name: str, fitted: Any) -> None:
    for case in "ints", "labels", "number", "int8":
        model, x = fitted[case]
        with fastrnn.use_backend(FUSED[0]):
            expected = predicted(model, x)
        with fastrnn.use_backend(name):
            for got, wanted in zip(predicted(model, x), expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_loading_draws_no_random_numbers(fitted: Any, tmp_path: Path) -> None:
    """NumPy 2 imports them late, and a service is to start at once."""
    fitted["strings"][0].save(tmp_path / "m")
    code = """
import sys
sys.modules["sklearn"] = None
import numpy
of_numpy = set(sys.modules)
import fastrnn
fastrnn.load("m").stream().step([1.0, 2.0, 3.0])
assert "fastrnn.models.fitted" in sys.modules
seen = {"numpy.random", "numpy.ma", "fastrnn.models.trainer"} & (sys.modules.keys() - of_numpy)
assert not seen, seen
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=tmp_path)
    fastrnn.Sequential([fastrnn.Dropout(0.5), fastrnn.LSTM(2, 3)]).save(tmp_path / "m")
    drops, ones = [fastrnn.load(tmp_path / "m").layers[0] for _ in range(2)], np.ones((4, 50))
    more = pickle.loads(pickle.dumps(drops[0])), copy.deepcopy(drops[1])
    masks = [drop.forward(ones)[0] for drop in (*drops, *more)]
    assert (masks[0] != masks[1]).any()
    np.testing.assert_array_equal(masks[2:], masks[:2])
    again = [fastrnn.Sequential(fastrnn.load(tmp_path / "m").layers, seed=3) for _ in range(2)]
    a, b = (model.layers[0].forward(ones)[0] for model in again)
    np.testing.assert_array_equal(a, b)


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if case != "both"])
def test_a_stream_gives_what_the_sequence_so_far_gives(
    case: str, fitted: Any, tmp_path: Path, expect_equal: Any
) -> None:
    model, x = fitted[case]
    model.save(tmp_path / "m")
    stream = fastrnn.load(tmp_path / "m").stream()
    sequence = np.asarray(x, float)[:, :, None] if case == "table" else [np.asarray(i) for i in x]
    result = getattr(model, "predict_proba", model.predict)
    with warnings.catch_warnings(action="ignore"):  # names of columns
        for of in sequence[:3]:
            stream.reset()
            for t, x_t in enumerate(of):
                y = stream.step(x_t)
                wanted = result([of[: t + 1]])[0]
                expect_equal(np.asarray(y), np.asarray(wanted[-1] if model._per_step else wanted))


def test_rows_side_by_side(fitted: Any, expect_equal: Any) -> None:
    for case in "ints", "number", "numbers":
        model, _ = fitted[case]
        x = X[:4].astype(np.float32)
        one, four = model.stream(), model.stream(batch_size=4)
        alone = [[one.step(x_t) for x_t in of] for of in x if not one.reset()]
        together = [four.step(x_t) for x_t in x.swapaxes(0, 1)]
        expect_equal(np.stack(together, axis=1), np.array(alone))
        state = four.state
        following = four.step(x[:, 1])
        four.state = state
        expect_equal(four.step(x[:, 1]), following)
        four.reset([False, True, False, False])
        expect_equal(four.step(x[:, 0])[1], together[0][1])
        assert one.step(x[:1, 0]).shape == (1, *one.step(x[0, 0]).shape)
    assert repr(four) == "PredictionStream(batch_size=4)"
    with pytest.raises(TypeError, match="PredictionStream: can't be pickled or copied"):
        pickle.dumps(four)


def test_a_step_may_have_names(fitted: Any) -> None:
    model, x = fitted["strings"]
    stream = model.stream()
    wanted = stream.step(x[0].to_numpy()[0])
    row = dict(zip(NAMES, X[0, 0].tolist(), strict=True))
    several = {name: [value] * 2 for name, value in row.items()}
    for given in (
        row,
        dict(reversed(row.items())),
        x[0].iloc[0],
        x[0][NAMES[::-1]].iloc[0],
        X[0, 0].tolist(),
        tuple(X[0, 0]),
    ):
        stream.reset()
        np.testing.assert_array_equal(stream.step(given), wanted)
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0][:1]), wanted[None])
    np.testing.assert_array_equal(model.stream(2).step(several), [wanted] * 2)
    before = stream.state
    for wrong, error, said in (
        (row | {"more": 1}, ValueError, r"x_t: expected .*, missing \[\], unknown \['more'\]"),
        ({"flow": 1}, ValueError, r"x_t: expected .*, missing \['level', 'pressure'\], unknown"),
        (x[0][NAMES[::-1]].iloc[:1], ValueError, "must be in the same order"),
        (row | {"flow": "much"}, TypeError, r"x_t\['flow'\]: expected an array of real numbers"),
        (row | {"flow": None}, TypeError, r"x_t\['flow'\]: expected an array of real numbers"),
        (row | {"flow": 10**400}, TypeError, r"x_t\['flow'\]: expected an array of real numbers"),
        (row | {"flow": math.inf}, ValueError, "x_t: expected finite numbers"),
        (several, ValueError, r"x_t: expected shape \(1, 3\)"),
        (X[0, 0] * np.nan, ValueError, "x_t: expected finite numbers, got NaN or infinity"),
        (X[0, 0, :2], ValueError, r"x_t: expected shape \(3,\), got \(2,\)"),
        (X[0], ValueError, r"x_t: expected shape \(1, 3\), got \(5, 3\)"),
        (1.0, ValueError, r"x_t: expected shape \(1, 3\), got \(\)"),
        ("abc", TypeError, "x_t: expected an array of real numbers"),
        (X[0, 0] * 1j, TypeError, "x_t: expected an array of real numbers"),
    ):
        with pytest.raises(error, match=said):
            stream.step(wrong)
        np.testing.assert_equal(stream.state, before)
    for case in "ints", "table":
        with pytest.raises(TypeError, match="x_t: expected an array, as fit had no names"):
            fitted[case][0].stream().step(row)


def test_a_table_is_streamed_number_by_number(fitted: Any) -> None:
    model, x = fitted["table"]
    stream, two = model.stream(), model.stream(2)
    for i in range(x.shape[1]):
        y = stream.step(x.iat[0, i])
        pair = two.step(x.iloc[:2, i])
    np.testing.assert_array_equal(y, pair[0])
    np.testing.assert_array_equal(pair, model.predict_proba(x)[:2])


def test_what_has_no_stream(fitted: Any) -> None:
    with pytest.raises(ValueError, match="bidirectional"):
        fitted["both"][0].stream()
    with pytest.raises(ValueError, match="batch_size: expected"):
        fitted["ints"][0].stream(0)
    with pytest.raises(NotFittedError):
        SequenceRegressor().stream()
