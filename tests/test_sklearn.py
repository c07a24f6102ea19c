"""scikit-learn estimators: its own checks, and common uses."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastrnn.models.estimators import CELLS, holdout
from fastrnn.optim import Adam
from fastrnn.sklearn import SequenceClassifier, SequenceRegressor

QUICK: dict[str, Any] = {"hidden_size": 16, "max_epochs": 30, "lr": 0.02, "random_state": 0}


@parametrize_with_checks(
    [SequenceClassifier(**QUICK), SequenceRegressor(**{**QUICK, "max_epochs": 60})]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def ragged(n: int = 120, F: int = 2, seed: int = 0) -> tuple[list[Any], Any]:
    """Return sequences of 3 to 9 steps, and whether the first feature goes up or down."""
    rng = np.random.default_rng(seed)
    slopes = rng.choice([-1, 1], n)
    X = [rng.normal(5, 0.1, (int(T), F)) for T in rng.integers(3, 10, n)]
    for x, slope in zip(X, slopes, strict=True):
        x[:, 0] += slope * np.arange(len(x))
    return X, np.where(slopes > 0, "up", "down")


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_ragged_sequences_and_string_labels(cell: str, bidirectional: bool) -> None:
    X, y = ragged()
    model = SequenceClassifier(cell, bidirectional=bidirectional, **QUICK).fit(X, y)
    more, labels = ragged(50, seed=1)
    assert model.score(more, labels) > 0.95
    assert model.classes_.tolist() == ["down", "up"]
    assert model.n_features_in_ == 2
    p = model.predict_proba(more)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (model.classes_[p.argmax(axis=1)] == model.predict(more)).all()
    alone = np.concatenate([model.predict_proba([x]) for x in more[:5]])
    np.testing.assert_allclose(alone, p[:5], atol=1e-12)


def test_digits_row_by_row() -> None:
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8)
    train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    model = SequenceClassifier(bidirectional=True, dropout=0.2, **QUICK | {"max_epochs": 12})
    assert model.fit(train.astype(np.float32), y_train).score(test, y_test) > 0.96


def test_a_table_is_one_feature_over_time() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 6))
    y = X[:, -1] - X[:, 0]
    models = [SequenceRegressor(**QUICK).fit(x, y) for x in (X, X[:, :, None], list(X[:, :, None]))]
    expected = models[0].predict(X)
    assert models[0].score(X, y) > 0.9
    for model in models[1:]:
        np.testing.assert_array_equal(model.predict(X[:, :, None]), expected)
        np.testing.assert_array_equal(model.predict(list(X)), expected)
    assert [model.n_features_in_ for model in models] == [6, 1, 1]
    shorter = models[1].predict([x[1:] for x in X])
    assert shorter.shape == (80,)


def test_several_targets() -> None:
    X, _ = ragged(150)
    y = np.array([[x[-1, 0], 1000 * x[0, 1]] for x in X])
    model = SequenceRegressor(**QUICK).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.5
    single = SequenceRegressor(**QUICK).fit(X, y[:, 0])
    assert single.predict(X).shape == (150,)


def test_pipeline_grid_search_and_cross_validation() -> None:
    X, y = ragged(90)
    scaled = Pipeline(
        [
            ("halve", FunctionTransformer(lambda X: [x / 2 for x in X])),
            ("net", SequenceClassifier(**QUICK)),
        ]
    )
    assert cross_val_score(scaled, X, y, cv=3).min() > 0.9
    grid = GridSearchCV(scaled, {"net__cell": ["gru", "rnn"], "net__hidden_size": [2, 8]}, cv=2)
    assert grid.fit(X, y).best_score_ > 0.8
    assert set(grid.cv_results_["param_net__cell"]) == {"gru", "rnn"}

    rng = np.random.default_rng(0)
    table = rng.normal(100, 5, (80, 4))
    flat = Pipeline([("scale", StandardScaler()), ("net", SequenceRegressor(**QUICK))])
    assert flat.fit(table, table[:, -1]).score(table, table[:, -1]) > 0.9


def test_clone_and_pickle() -> None:
    X, y = ragged()
    model = SequenceClassifier("lstm", **QUICK, class_weight="balanced")
    again = clone(model)
    assert again.get_params() == model.get_params()
    expected = model.fit(X, y).predict_proba(X)
    for other in (again.fit(X, y), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


def test_partial_fit() -> None:
    X, y = ragged()
    model = SequenceClassifier(**QUICK)
    with pytest.raises(ValueError, match="classes: expected all classes at the first call"):
        model.partial_fit(X, y)
    down = [i for i, label in enumerate(y) if label == "down"]
    model.partial_fit([X[i] for i in down], y[down], classes=["up", "down"])
    assert model.classes_.tolist() == ["down", "up"]
    for _ in range(20):
        model.partial_fit(X, y)
    assert len(model.loss_curve_) == 21
    assert model.score(X, y) > 0.95
    with pytest.raises(ValueError, match="y: expected classes among"):
        model.partial_fit(X, ["sideways"] * len(X))
    with pytest.raises(ValueError, match="classes: expected those of the first call"):
        model.partial_fit(X, y, classes=["a", "b"])

    # It still learns after fit, whose learning rate has decayed to 0; fit starts over.
    before = model.fit(X, y).predict_proba(X)
    assert len(model.loss_curve_) == 30
    assert (model.partial_fit(X, y).predict_proba(X) != before).any()
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), before)

    numbers = np.array([x[-1, 0] for x in X])
    regressor = SequenceRegressor(**QUICK)
    for _ in range(30):
        regressor.partial_fit(X, numbers)
    assert regressor.score(X, numbers) > 0.9


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_what_is_fitted_goes_by_nothing_that_can_be_set(kind: Any) -> None:
    X, y = ragged()
    y = y if kind is SequenceClassifier else np.array([x[-1, 0] for x in X])
    model = kind(**QUICK | {"max_epochs": 2}).fit(X, y)
    expected = model.predict(X)
    model.set_params(cell="lstm", hidden_size=3, standardize=False, bidirectional=True)
    model.set_params(num_layers=5, dropout=0.5, lr=-1)
    np.testing.assert_array_equal(model.predict(X), expected)
    with pytest.raises(ValueError, match="lr: expected"):
        model.partial_fit(X, y)
    model.set_params(lr=1e-12).partial_fit(X, y)
    np.testing.assert_allclose(model.predict(X), expected) if y.dtype.kind == "f" else None
    model.set_params(lr=0.1).partial_fit(X, y)
    assert kind is SequenceClassifier or (np.abs(model.predict(X) - expected) > 1e-3).any()


def test_a_fit_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = ragged()
    model = SequenceClassifier(**QUICK | {"max_epochs": 2}).fit(X, y)
    expected = model.predict_proba(X)
    other, numbers = [x * 100 for x in X], np.arange(len(X)) % 3
    with pytest.raises(ValueError, match="lr: expected"):
        clone(model).set_params(lr=-1).fit(other, numbers)
    model.set_params(lr=-1)
    with pytest.raises(ValueError, match="lr: expected"):
        model.fit(other, numbers)
    model.set_params(lr=0.02)
    with pytest.raises(ValueError, match="sample_weight: expected"):
        model.fit(other, numbers, sample_weight=-np.ones(len(X)))
    usual = Adam.apply

    def apply(self: Any, *args: Any) -> None:
        if self.steps == 5:
            raise KeyboardInterrupt
        usual(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Adam, "apply", apply)
        for fresh in (model, clone(model)):
            with pytest.raises(KeyboardInterrupt):
                fresh.fit(other, numbers)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert model.classes_.tolist() == ["down", "up"]


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("cell", list(CELLS))
def test_memory_mapped(kind: Any, cell: str, tmp_path: Any) -> None:
    """joblib passes read-only memory-mapped arrays to workers."""
    joblib = pytest.importorskip("joblib")
    X, y = ragged()
    y = y if kind is SequenceClassifier else np.array([x[-1] for x in X])
    model = kind(cell, **QUICK | {"max_epochs": 2}, num_layers=2, dropout=0.1).fit(X, y)
    model.partial_fit(X, y)
    joblib.dump(model, tmp_path / "m")
    mapped = joblib.load(tmp_path / "m", mmap_mode="r")
    for _ in range(2):
        np.testing.assert_array_equal(mapped.predict(X), model.predict(X))
        model.partial_fit(X, y)
        mapped.partial_fit(X, y)
    assert mapped.loss_curve_ == model.loss_curve_


def test_holdout_is_stratified_and_loses_no_class() -> None:
    for n in range(2, 40):
        for fraction in (0.01, 0.1, 0.5, 0.9):
            rng = np.random.default_rng(n)
            train, held = holdout(rng.normal(size=n), fraction, rng)
            assert len(held) == min(max(round(fraction * n), 1), n - 1)
            assert sorted([*train, *held]) == list(range(n))
            classes = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
            if len(set(classes)) == n:
                continue
            train, held = holdout(classes, fraction, rng)
            assert sorted([*train, *held]) == list(range(n))
            assert len(held) == min(max(round(fraction * n), 1), n - len(set(classes)))
            assert set(classes[train]) == set(classes)
            for c in set(classes):
                count = (classes == c).sum()
                share = min(count * len(held) / n, count - 1)
                of = (classes[held] == c).sum()
                assert np.floor(share) <= of <= count - 1
                assert fraction > 0.5 or abs(of - share) <= 1
    for only in ([1], [1, 2, 3], ["a", "b"]):
        with pytest.raises(ValueError, match="X: expected more than"):
            holdout(np.array(only), 0.5, rng)
    drawn = [holdout(np.zeros(20, int), 0.1, np.random.default_rng(seed))[1] for seed in range(30)]
    assert len({tuple(held) for held in drawn}) > 20


def test_pickles_are_small() -> None:
    X, y = ragged(500)
    model = SequenceClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    weights = sum(w.nbytes for w in model.net_.parameters().values())
    assert len(pickle.dumps(model)) < weights + 5000


def test_class_weights_and_sample_weights() -> None:
    """If the features say nothing about the classes, only weights decide."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3, 1)) * 1e-3
    y = np.array([0] * 80 + [1] * 20)
    usual = {**QUICK, "standardize": False, "max_epochs": 10}
    assert SequenceClassifier(**usual).fit(X, y).predict(X).mean() < 0.1
    for options, weight in (
        ({"class_weight": {0: 1, 1: 16}}, None),
        ({}, np.where(y == 1, 16.0, 1.0)),
        ({"class_weight": {0: 1, 1: 4}}, np.where(y == 1, 4.0, 1.0)),
    ):
        model = SequenceClassifier(**usual, **options).fit(X, y, sample_weight=weight)
        assert model.predict(X).mean() > 0.9
        np.testing.assert_allclose(model.predict_proba(X)[:, 1].mean(), 0.8, atol=0.1)
    balanced = SequenceClassifier(**usual, class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(balanced.predict_proba(X)[:, 1].mean(), 0.5, atol=0.1)


@pytest.mark.parametrize(
    ("X", "said"),
    [
        ([np.ones((3, 2)), np.ones((4, 3))], r"X\[1\]: expected shape \(T, 2\)"),
        ([np.ones((3, 2)), np.full((4, 2), np.nan)], r"X\[1\]: expected finite numbers"),
        ([np.ones((3, 2)), np.ones((0, 2))], r"X\[1\]: expected shape \(T, F\) with"),
        ([np.ones((3, 2))], "inconsistent numbers of samples"),
        (np.ones((2, 0, 2)), "X: expected shape"),
        (np.full((2, 3, 2), np.inf), "infinity"),
        (np.ones((2, 2, 2, 2)), r"X: expected shape \(n, T, F\)"),
    ],
)
def test_refused_inputs(X: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SequenceClassifier(**QUICK).fit(X, ["a", "b"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cell": "gpt"}, "cell: expected one of"),
        ({"hidden_size": 0}, "hidden_size: expected"),
        ({"max_epochs": 0}, "max_epochs: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"lr": -1}, "lr: expected"),
        ({"dropout": 2}, "dropout: expected"),
    ],
)
def test_refused_options(options: dict[str, Any], said: str) -> None:
    """In `fit`, as scikit-learn requires."""
    model = SequenceClassifier(**{**QUICK, **options})
    with pytest.raises(ValueError, match=said):
        model.fit(*ragged(10))


def test_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import fastrnn; fastrnn.sklearn"
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert process.stderr.endswith(
        "ImportError: fastrnn.sklearn needs scikit-learn: pip install 'fastrnn[sklearn]'\n"
    )


def test_other_features_than_fitted() -> None:
    model = SequenceClassifier(**{**QUICK, "max_epochs": 1}).fit(*ragged(20))
    with pytest.raises(ValueError, match="X: expected 2 features over time, as in fit, got 3"):
        model.predict(ragged(5, F=3)[0])
