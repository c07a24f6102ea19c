"""pandas, polars and masked arrays, wherever arrays are taken."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import _checks, _frames, functional, losses, optim

pd: Any = pytest.importorskip("pandas")
pl: Any = pytest.importorskip("polars")

MASKED = np.ma.masked_equal(np.array([1.0, 2.0, 3.0]), 2.0)
NAN = float("nan")

#: Values with something missing in them: what it is, and what "nan" makes of it.
GONE = {
    "masked": (MASKED, [1, NAN, 3]),
    "masked in a list": ([1.0, np.ma.masked, 3], [1, NAN, 3]),
    "masked arrays in a list": ([MASKED, MASKED], [[1, NAN, 3]] * 2),
    "masked integers": (np.ma.array([1, 2], mask=[0, 1]), [1, NAN]),
    "Int64": (pd.Series([1, None], dtype="Int64"), [1, NAN]),
    "Float64": (pd.Series([1.5, None], dtype="Float64"), [1.5, NAN]),
    "boolean": (pd.Series([True, None], dtype="boolean"), [1, NAN]),
    "an extension array": (pd.array([1, None]), [1, NAN]),
    "series in a list": ([pd.Series([1, None], dtype="Int64")], [[1, NAN]]),
    "objects": (np.array([1, None, 2.5], object), [1, NAN, 2.5]),
    "NA in a list": ([1, pd.NA], [1, NAN]),
    "a frame": (pd.DataFrame({"a": pd.array([1, None]), "b": [0.5, 2]}), [[1, 0.5], [NAN, 2]]),
    "polars integers": (pl.Series([1, None]), [1, NAN]),
    "polars floats": (pl.Series([1.5, None]), [1.5, NAN]),
    "polars booleans": (pl.Series([True, None]), [1, NAN]),
    "a polars frame": (pl.DataFrame({"a": [1, None], "b": [0.5, 2]}), [[1, 0.5], [NAN, 2]]),
}

#: Complete values, and the array that they are.
WHOLE = {
    "nothing masked": (np.ma.array([1.0, 2], mask=[0, 0]), np.array([1.0, 2])),
    "Int64": (pd.Series([1, 2], dtype="Int64"), np.array([1, 2])),
    "boolean": (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
    "strings": (pd.Series(["a", "b"], dtype="string"), np.array(["a", "b"], object)),
    "categories": (pd.Series(["a", "b"], dtype="category"), np.array(["a", "b"], object)),
    "an index": (pd.Index([3, 4]), np.array([3, 4])),
    "a frame of two kinds": (
        pd.DataFrame({"a": pd.array([1, 2]), "b": np.float32([0.5, 1])}),
        np.array([[1, 0.5], [2, 1]]),
    ),
    "a frame of two names": (pd.DataFrame(np.eye(2), columns=["a", "a"]), np.eye(2)),
    "a frame of float32": (pd.DataFrame(np.eye(2, dtype="f")), np.eye(2, dtype="f")),
    "a frame of objects": (pd.DataFrame({"a": [1, 2]}, dtype=object), np.array([[1], [2]])),
    "a frame with labels": (
        pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        np.array([[1, "x"], [2, "y"]], object),
    ),
    "an empty frame": (pd.DataFrame(index=range(3)), np.empty((3, 0))),
    "polars": (pl.Series([1, 2]), np.array([1, 2])),
    "polars categories": (
        pl.Series(["a", "b"], dtype=pl.Categorical),
        np.array(["a", "b"], object),
    ),
    "a polars frame": (pl.DataFrame({"a": [1, 2], "b": [0.5, 1]}), np.array([[1, 0.5], [2, 1]])),
    "objects": (np.array([1, 2.5, True], object), np.array([1, 2.5, 1])),
    "decimals": ([Decimal("1.5"), 2], np.array([1.5, 2])),
    "objects that are not numbers": (np.array([1, "a"], object), np.array([1, "a"], object)),
}


@pytest.mark.parametrize("kind", GONE)
def test_what_is_missing_is_refused_or_nan(kind: str) -> None:
    value, expected = GONE[kind]
    with pytest.raises(ValueError, match=r"^x.*: expected no (missing|masked) values, got \d"):
        _frames.values(value, "x")
    array = _frames.values(value, "x", missing="nan")
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, expected)
    for check in (_checks.asarray, _checks.numeric, _checks.whole_numbers, _checks.floats):
        with pytest.raises(ValueError, match=r"^x.*: expected no (missing|masked) values"):
            check(value, "x")


@pytest.mark.parametrize("kind", WHOLE)
def test_values(kind: str) -> None:
    value, expected = WHOLE[kind]
    array = _frames.values(value, "x")
    assert type(array) is np.ndarray
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)
    nan = _frames.values(value, "x", missing="nan")
    assert nan.dtype == expected.dtype
    np.testing.assert_array_equal(nan, expected)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pd.Series([1, 2], dtype="category"), "got dtype category"),
        (pd.DataFrame({"a": pd.Categorical([1, 2])}), "got dtype category in column 'a'"),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), "got dtype (str|object) in column 'b'"),
        (pd.Series(pd.date_range("2020", periods=2)), "got dtype datetime64"),
        (pl.Series(["1", "2"], dtype=pl.Enum(["1", "2"])), "got dtype Enum"),
        (pl.DataFrame({"a": ["x"]}), "got dtype String in column 'a'"),
    ],
)
def test_labels_are_no_numbers(value: Any, said: str) -> None:
    for check, wanted in ((_checks.numeric, "real"), (_checks.whole_numbers, "whole")):
        with pytest.raises(TypeError, match=f"^x: expected an array of {wanted} numbers, {said}"):
            check(value, "x")


def test_sparse_matrices() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for kind in ("csr_array", "coo_matrix"):
        with pytest.raises(TypeError, match=rf"^x: .*got a sparse {kind}: pass its toarray\(\)"):
            _checks.numeric(getattr(sparse, kind)(np.eye(3)), "x")


def test_missing_labels_are_refused() -> None:
    for labels in (
        pd.Series(["a", None]),
        pl.Series(["a", None]),
        pd.Categorical(["a", None]),
        ["a", None],
        np.array(["a", NAN], object),
        ["a", pd.NA],
        ["a", NAN],  # NumPy makes "nan" of it
    ):
        for missing in ("raise", "nan"):
            with pytest.raises(ValueError, match=r"^y: expected no missing values, got 1"):
                _frames.values(labels, "y", missing=missing)


def test_column_names() -> None:
    assert _frames.column_names(pd.DataFrame({"b": [1], "a": [2]})) == ["b", "a"]
    assert _frames.column_names(pl.DataFrame({"b": [1], "a": [2]})) == ["b", "a"]
    for other in (pd.DataFrame(np.eye(2)), np.eye(2), [[1]], {"a": [1]}, pd.Series([1], name="a")):
        assert _frames.column_names(other) is None
    with pytest.raises(TypeError, match="columns: expected names that are all str, or none"):
        _frames.column_names(pd.DataFrame({"a": [1], 2: [2]}))


@pytest.mark.parametrize("of", [pd, pl])
def test_items(of: Any) -> None:
    for value in (["a", "b"], of.Series(["a", "b"]), of.DataFrame({"t": ["a", "b"]}), iter("ab")):
        assert _frames.items(value, "texts") == ["a", "b"]
    for keyed, said in (
        (of.DataFrame({"t": ["a"], "u": ["b"]}), "got a frame of 2 columns: pass one of 't', 'u'"),
        ({"a": 1}, "got a dict"),
        ({"a"}, "got a set"),
        ("ab", "got a str"),
        (3, "got int"),
        (np.array(3), "got ndarray"),
    ):
        with pytest.raises(TypeError, match=f"^texts: expected a sequence, {said}"):
            _frames.items(keyed, "texts")


def a_model() -> fastrnn.Sequential:
    layers = [fastrnn.GRU(2, 3, return_sequences=False, seed=0), fastrnn.Linear(3, 1, seed=0)]
    model = fastrnn.Sequential(layers, seed=0)
    model.compile("sgd", "mse")
    return model


X = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
Y = X[:, -1, 0]
W = np.ones(4, np.float32)
LENGTHS = np.array([3, 2, 3, 1])


def loaded(layer: Any, name: str, value: Any) -> None:
    layer.load_state_dict({**layer.state_dict(), name: value})


def updated(value: Any) -> None:
    optim.SGD(0.1).step({"w": np.ones(3, np.float32)}, {"w": value})


#: Calls that take an array, and one that they take.
DOORS: dict[str, tuple[Any, Any]] = {
    "layer": (lambda x: fastrnn.GRU(2, 3)(x), X),
    "layer, state": (lambda h: fastrnn.GRU(2, 3)(X, h), np.ones((1, 3, 3), np.float32)),
    "layer, lengths": (lambda n: fastrnn.GRU(2, 3)(X, lengths=n), np.array([4, 2, 3])),
    "layer, reset": (lambda r: fastrnn.GRU(2, 3)(X, reset=r), np.eye(4, 3) > 0),
    "embedding": (lambda x: fastrnn.Embedding(5, 2)(x), LENGTHS),
    "linear": (lambda x: fastrnn.Linear(2, 3)(x), X),
    "load_state_dict": (
        lambda b: loaded(fastrnn.Linear(2, 3), "bias", b),
        np.ones(3, np.float32),
    ),
    "stream": (lambda x: fastrnn.GRU(2, 3).stream().step(x), X[0, :1]),
    "functional": (
        lambda w: functional.rnn(X, np.zeros((3, 3), "f"), np.ones((3, 2), "f"), w),
        np.ones((3, 3), np.float32),
    ),
    "pack_rnn": (lambda w: fastrnn.layouts.pack_rnn(np.ones((3, 2)), w), np.ones((3, 3))),
    "loss": (lambda y: losses.mse(y, Y), Y),
    "loss, target": (lambda t: losses.mse(Y, t), Y),
    "loss, classes": (lambda t: losses.cross_entropy(X[:, 0], t), LENGTHS % 2),
    "loss, weight": (lambda w: losses.mse(Y, Y, w), W),
    "optimizer": (updated, np.ones(3, np.float32)),
    "parameter": (
        lambda w: optim.SGD(0.1).step({"w": w}, {"w": np.ones(3)}),
        np.ones(3, np.float32),
    ),
    "fit": (lambda x: a_model().fit(x, Y, verbose=0), X),
    "fit, y": (lambda y: a_model().fit(X, y, verbose=0), Y),
    "fit, weight": (lambda w: a_model().fit(X, Y, sample_weight=w, verbose=0), W),
    "fit, lengths": (lambda n: a_model().fit(X, Y, lengths=n, verbose=0), LENGTHS),
    "fit, list": (lambda x: a_model().fit([x, X[0]], Y[:2], verbose=0), X[1]),
    "predict": (lambda x: a_model().predict(x), X),
    "evaluate": (lambda y: a_model().evaluate(X, y), Y),
    "call": (lambda x: a_model()(x), X),
    "call, list": (lambda x: a_model()([x, X[0]]), X[1]),
    "stream, rows": (lambda r: fastrnn.GRU(2, 3).stream(4).reset(r), LENGTHS),
}


@pytest.mark.parametrize("door", DOORS)
def test_masked_arrays_are_refused_everywhere(door: str) -> None:
    call, array = DOORS[door]
    call(array)
    mask = np.zeros(array.shape, bool)
    call(np.ma.array(array, mask=mask))
    mask.flat[-1] = True
    before = array.copy()
    with pytest.raises(ValueError, match=r"expected no masked values, got 1|got MaskedArray"):
        call(np.ma.array(array, mask=mask))
    np.testing.assert_array_equal(array, before)


def test_rows_of_frames_are_taken_in_order() -> None:
    """By position, whatever the index says."""
    index = [7, 0, 3, 1]
    for y in (pd.Series(Y, index), pl.Series(Y), pd.DataFrame({"y": Y}, index), pl.DataFrame(Y)):
        model, other = a_model(), a_model()
        model.fit(X, y, verbose=0, batch_size=2, sample_weight=pd.Series(W, index))
        other.fit(X, Y, verbose=0, batch_size=2, sample_weight=W)
        np.testing.assert_array_equal(model.predict(X), other.predict(X))
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in X]
    np.testing.assert_array_equal(model.predict(frames), model.predict(X))


# -- estimators -----------------------------------------------------------------------------------


def estimators() -> tuple[Any, Any]:
    sklearn = pytest.importorskip("fastrnn.sklearn", exc_type=ImportError)
    quick = {"hidden_size": 8, "max_epochs": 3, "random_state": 0}
    return sklearn.SequenceClassifier(**quick), sklearn.SequenceRegressor(**quick)


def frames(of: Any, columns: list[str] = ["a", "b"], n: int = 12) -> list[Any]:  # noqa: B006
    rng = np.random.default_rng(0)
    return [of.DataFrame({c: rng.normal(size=3 + i % 3) for c in columns}) for i in range(n)]


@pytest.mark.parametrize("of", [pd, pl])
def test_models_take_lists_of_frames_that_are_alike(of: Any, expect_equal: Any) -> None:
    model = fastrnn.Sequential([fastrnn.GRU(2, 4)], seed=0)
    X = frames(of)
    for y, x in zip(model.predict(X), X, strict=True):
        expect_equal(y, model.predict(x.to_numpy()[None])[0])
    with pytest.raises(
        ValueError, match=r"^X\[2\]: expected the columns of X\[0\], in their order"
    ):
        model.predict([*X[:2], X[2][["b", "a"]]])
    swapped = [X[0], X[0][["b", "a"]]]  # columns count wherever frames are stacked
    for call in (model, model.layers[0]):
        with pytest.raises(ValueError, match=r"\[1\]: expected the columns of .*\[0\]"):
            call(swapped)
    if of is pd:
        x = X[0].set_index(pd.date_range("2020", periods=len(X[0])))
        with pytest.raises(ValueError, match=r"^X\[1\]: expected steps in order of time"):
            model.predict([x, x[::-1]])


def test_columns_of_sequences_are_lists() -> None:
    model = fastrnn.Sequential([fastrnn.Embedding(5, 3), fastrnn.GRU(3, 2)], seed=0)
    model.compile("sgd", "mse")
    tokens = [[1, 2, 4], [3, 0]]
    expected = model.predict(tokens)
    y = [np.ones((3, 2)), np.zeros((2, 2))]
    for X in (pd.Series(tokens), pl.Series(tokens), np.array(tokens, object)):
        for got, want in zip(model.predict(X), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        assert model.evaluate(X, pd.Series(y)) == model.evaluate(tokens, y)


@pytest.mark.parametrize("of", [pd, pl])
def test_names_of_columns_are_compared(of: Any) -> None:
    model, _ = estimators()
    X, y = frames(of), np.arange(12) % 2
    arrays = [x.to_numpy() for x in X]
    model.fit(X, y)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    assert model.n_features_in_ == 2
    expected = model.predict_proba(X)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        np.testing.assert_array_equal(model.predict_proba(arrays), expected)
    for reordered, said in (
        ([x[["b", "a"]] for x in X], "must be in the same order as they were in fit"),
        (frames(of, ["a", "c"]), "Feature names unseen at fit time:\n- c\n"),
        ([*X[:2], X[2][["b", "a"]]], r"X\[2\]: expected the columns of X\[0\], in their order"),
        ([*X[:2], arrays[2]], r"X\[2\]: expected the columns of X\[0\]"),
        (frames(of, ["a", "b", "c"]), "expected 2 features over time, as in fit, got 3"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(reordered)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.partial_fit([x[["b", "a"]] for x in X], y)
    model.fit(arrays, y)
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(model.predict_proba(arrays), expected)
    with pytest.warns(UserWarning, match="X has feature names"):
        model.predict(X)


@pytest.mark.parametrize("of", [pd, pl])
def test_a_frame_of_features_is_no_table_of_steps(of: Any) -> None:
    model, _ = estimators()
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    for names in (["pressure", "volume"], ["value"], ["x1", "y1"], ["x", "x2"]):
        X = of.DataFrame({name: rng.normal(size=20) for name in names})
        with pytest.raises(ValueError, match=r"fastrnn.sklearn.from_frame\(df, group="):
            model.fit(X, y)
        with pytest.raises(ValueError, match=r"pass its to_numpy\(\)"):
            model.fit(X.to_numpy(), y).predict(X)
    for names in (["t0", "t1", "t2"], ["2020-01-01", "2020-01-02"], ["7", "8", "10"]):
        X = of.DataFrame({name: rng.normal(size=20) for name in names})
        assert model.fit(X, y).feature_names_in_.tolist() == names
        np.testing.assert_array_equal(
            model.predict_proba(X), model.fit(X.to_numpy(), y).predict_proba(X.to_numpy())
        )
    for labels in (range(3), pd.date_range("2020", periods=3)):
        wide = pd.DataFrame(rng.normal(size=(20, 3)), columns=labels)
        assert model.fit(wide, y).n_features_in_ == 3
    nested = pd.MultiIndex.from_product([["a", "b"], [0, 1]])
    with pytest.raises(ValueError, match="from_frame"):
        model.fit(pd.DataFrame(rng.normal(size=(20, 4)), columns=nested), y)


def test_frames_of_features_by_steps_are_said() -> None:
    model, _ = estimators()
    X, y = frames(pd), np.arange(12) % 2
    for call in (model.fit, lambda X, y: model.fit(frames(pd), y).predict(X)):
        with pytest.raises(ValueError, match=r"X\[0\]: .* got a frame with the rows \['a', 'b'\]"):
            call([x.T for x in X], y)
    days = [x.set_axis([f"2020-01-{t:02}" for t in range(len(x))]) for x in X]
    np.testing.assert_array_equal(model.fit(days, y).predict(X), model.fit(X, y).predict(X))


def test_dates_and_labels_are_no_inputs() -> None:
    model, regressor = estimators()
    y = np.arange(12) % 2
    days = np.arange(24).astype("M8[D]").reshape(12, 2)
    for X, said in (
        (days, r"X: expected real numbers, got dtype datetime64\[D\]"),
        (days - days[0, 0], r"X: expected real numbers, got dtype timedelta64\[D\]"),
        (pd.DataFrame(days, columns=["t0", "t1"]), "got dtype datetime64.* in column 't0'"),
        (pd.DataFrame({"t0": pd.Categorical(y)}), "got dtype category in column 't0'"),
        (list(days[:, :, None]), r"X\[0\]: expected an array of real numbers, got dtype datetime"),
        ({"a": y}, "X: expected a sequence, got a dict"),
        (iter(days), r"X: expected an array, or a list of sequences, got iterator"),
        (pd.DataFrame({"a": y}).groupby(y), "or a list of sequences, got DataFrameGroupBy"),
    ):
        with pytest.raises(TypeError, match=said):
            model.fit(X, y)
    for dates in (days[:, 0], days, pd.Series(days[:, 0])):
        with pytest.raises(TypeError, match="y: expected real numbers, got dtype datetime64"):
            regressor.fit(np.eye(12), dates)
    for labels in (["up"] * 12, pd.Series(["up"] * 12), np.array(["up"] * 12, object)):
        with pytest.raises(ValueError, match=r"y: expected real numbers: could not .*'up'"):
            regressor.fit(np.eye(12), labels)


def test_steps_are_in_order_of_time() -> None:
    model, _ = estimators()
    y = np.arange(12) % 2
    X = [x.set_index(pd.date_range("2020", periods=len(x))) for x in frames(pd)]
    expected = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba([x.to_period() for x in X]), expected)
    newest_first = [*X[:3], X[3][::-1]]
    said = (
        r"X\[3\]: expected steps in order of time, got 2020-01-02 .* after 2020-01-03 .*sort_index"
    )
    for call in (model.predict, lambda X: model.fit(X, y[:4])):
        with pytest.raises(ValueError, match=said):
            call(newest_first)
    with pytest.raises(ValueError, match=r"X\[1\]: expected steps in order of time"):
        model.fit([X[0]["a"], X[1]["a"][::-1]], y[:2])
    days = pd.date_range("2020", periods=4)
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 4)), columns=days)
    model.fit(wide, y)
    with pytest.raises(ValueError, match=r"X: expected steps in order of time, got 2020-01-03"):
        model.fit(wide[days[::-1]], y)


def test_targets_and_weights_of_any_kind() -> None:
    classifier, regressor = estimators()
    X = np.random.default_rng(0).normal(size=(12, 4, 2))
    labels = ["a", "b", "a", "c"] * 3
    expected = classifier.fit(X, labels).predict(X)
    for y in (
        pd.Series(labels),
        pd.Series(labels, dtype="string"),
        pd.Categorical(labels),
        np.array(labels, object),
        pl.Series(labels),
        pl.Series(labels, dtype=pl.Categorical),
    ):
        np.testing.assert_array_equal(classifier.fit(X, y).predict(X), expected)
        assert classifier.classes_.tolist() == ["a", "b", "c"]
        assert classifier.score(X, y) == classifier.score(X, labels)
    numbers = np.arange(12.0)
    for y in (pd.Series(numbers, dtype="Float64"), pl.Series(numbers), numbers.astype(object)):
        for w in (pd.Series(numbers), pl.Series(numbers), list(numbers)):
            predicted = regressor.fit(X, y, w).predict(X)
            expected = regressor.fit(X, numbers, numbers).predict(X)
            np.testing.assert_array_equal(predicted, expected)
    np.testing.assert_array_equal(
        regressor.fit(X, pl.DataFrame({"u": numbers, "v": -numbers})).predict(X),
        regressor.fit(X, np.stack([numbers, -numbers], axis=1)).predict(X),
    )
    with pytest.raises(ValueError, match="y: expected no missing values, got 1"):
        classifier.fit(X, pd.Series([None, *labels[1:]], dtype="string"))
    with pytest.raises(TypeError, match=r"sample_weight: .* got dtype category"):
        classifier.fit(X, labels, pd.Categorical(numbers))


def test_missing_inputs_of_estimators() -> None:
    classifier, _ = estimators()
    X, y = frames(pd), np.arange(12) % 2
    classifier.fit(X, y)
    X[5] = X[5].convert_dtypes()
    X[5].iloc[1, 0] = pd.NA
    with pytest.raises(ValueError, match=r"X\[5\] column 'a': expected no missing values, got 1"):
        classifier.fit(X, y)
    wide = np.ma.masked_greater(np.random.default_rng(0).normal(size=(12, 4)), 1)
    for masked in (wide, wide[:, :, None], list(wide), list(wide[:, :, None])):
        with pytest.raises(ValueError, match=r"X.*: expected no masked values, got \d"):
            classifier.fit(masked, y)
    for part in ("y", "w"):
        masked = np.ma.array(np.arange(12) % 2, mask=np.eye(1, 12)[0])
        with pytest.raises(ValueError, match="expected no masked values, got 1"):
            classifier.fit(wide.data, *((masked,) if part == "y" else (y, masked)))


@pytest.mark.parametrize("of", [np.array, pd.Series, pl.Series])
def test_columns_of_equal_lengths_are_columns_of_any(of: Any) -> None:
    model, _ = estimators()
    x = np.random.default_rng(0).normal(size=(12, 6))
    model.fit([of(row) for row in x], np.arange(12) % 2)
    for n in (1, 4, 6, 7):
        several = model.predict_proba([of(np.resize(row, n)) for row in x[:3]])
        mixed = model.predict_proba([of(np.resize(x[0], n)), of(x[1, :2])])
        np.testing.assert_array_equal(several[0], mixed[0])
    for table in (x[:, :4], x[:, :4].tolist(), pd.DataFrame(x[:, :4])):
        with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 6 features"):
            model.predict(table)


@pytest.mark.parametrize("of", [pd, pl])
def test_from_frame(of: Any) -> None:
    classifier, regressor = estimators()
    from_frame = pytest.importorskip("fastrnn.sklearn").from_frame
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"s{i}", "t": t, "a": rng.normal(), "b": i + t / 10, "kind": "xy"[i % 2], "z": t * i}
        for i in (5, 3, 9, 4, 7, 8)
        for t in range(2 + i % 4)
    ]
    df = of.DataFrame(rows)
    X, y = from_frame(df, group="id", features=["b", "a"], target="kind")
    assert y.tolist() == ["y", "y", "y", "x", "y", "x"]
    assert [list(x.columns) for x in X] == [["b", "a"]] * 6
    assert [round(float(x["b"].to_list()[0])) for x in X] == [5, 3, 9, 4, 7, 8]
    assert classifier.fit(X, y).feature_names_in_.tolist() == ["b", "a"]

    # In any order of rows: groups in that of their first row, steps sorted by time.
    shuffled = of.DataFrame([rows[i] for i in rng.permutation(len(rows))])
    order = list(dict.fromkeys(shuffled["id"].to_list()))
    sorted_X, labels = from_frame(shuffled, group=["id"], target="kind", time="t")
    assert list(sorted_X[0].columns) == ["a", "b", "z"]
    by_id = dict(zip(["s5", "s3", "s9", "s4", "s7", "s8"], zip(X, y, strict=True), strict=True))
    for name, x, label in zip(order, sorted_X, labels, strict=True):
        np.testing.assert_array_equal(x[["b", "a"]].to_numpy(), by_id[name][0].to_numpy())
        assert label == by_id[name][1]
    unsorted, none = from_frame(shuffled, group="id", features=["t"])
    assert none is None
    for name, x in zip(order, unsorted, strict=True):
        expected = [t for g, t in zip(shuffled["id"], shuffled["t"], strict=True) if g == name]
        assert x["t"].to_list() == expected

    X, y = from_frame(df, group=["kind", "id"], features=["a"], target="z", per_step=True)
    assert [len(x) for x in X] == [len(of) for of in y]
    regressor.set_params(return_sequences=True).fit(X, y)
    X, y = from_frame(df, group="id", features=["a"], target=["z", "b"], per_step=True)
    assert y[0].shape == (len(X[0]), 2)
    with pytest.raises(ValueError, match=r"target: expected one for all rows .*where id='s5'"):
        from_frame(df, group="id", target="z")
    twice = of.DataFrame([*rows, rows[3]])
    with pytest.raises(ValueError, match=r"time: .* got t=0 twice where id='s3'; name all columns"):
        from_frame(twice, group="id", time="t")
    if of is pd:
        with pytest.raises(ValueError, match=r"got 'id'; it is in the index: .*reset_index"):
            from_frame(df.set_index(["id", "t"]), group="id")
        twice = df.set_axis(["id", "t", "a", "b", "kind", "b"], axis=1)
        for options in ({"group": "id"}, {"group": "id", "features": ["b"]}, {"group": "b"}):
            with pytest.raises(ValueError, match=r"df: expected .* distinct names, got 'b' twice"):
                from_frame(twice, **options)
        assert len(from_frame(twice, group="id", features=["a"])[0]) == 6
    for wrong, said in (
        ({"group": "ID"}, "group: expected columns among .* got 'ID'"),
        ({"group": "id", "features": ["c"]}, "features: expected columns among .* got 'c'"),
        ({"group": []}, "group: expected one column or more"),
    ):
        with pytest.raises(ValueError, match=said):
            from_frame(df, **wrong)
    with pytest.raises(ValueError, match="df: expected one row or more"):
        from_frame(df[:0], group="id")
    gone = of.DataFrame([*rows, {**rows[0], "id": None}])
    with pytest.raises(ValueError, match="column 'id': expected no missing values"):
        from_frame(gone, group="id")
    with pytest.raises(TypeError, match="df: expected a frame of pandas or polars, got list"):
        from_frame(rows, group="id")
