"""scikit-learn estimators: its own checks, and common uses."""

from __future__ import annotations

import math
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
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastrnn.callbacks import Callback, Checkpoint
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


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_callbacks(kind: Any, early_stopping: bool, tmp_path: Any) -> None:
    """A training that a checkpoint resumes ends as one that was not interrupted."""

    class Fails(Callback):
        def __init__(self, at: int) -> None:
            self.at = at

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            assert ("validation_score" in logs) is early_stopping
            if epoch == self.at:
                raise OSError("no more disk")

    X, y = ragged()
    y = y if kind is SequenceClassifier else np.array([x[-1] for x in X])
    options = QUICK | {"max_epochs": 6, "early_stopping": early_stopping, "tol": 0.0}
    whole = kind(dropout=0.1, validation_fraction=0.3, **options).fit(X, y)
    resumed = kind(dropout=0.1, validation_fraction=0.3, **options)
    keep = Checkpoint(tmp_path / "training")
    with pytest.raises(OSError, match="no more disk"):
        resumed.fit(X, y, callbacks=[Fails(3), keep])
    resumed.fit(X, y, callbacks=[Fails(9), keep])
    assert resumed.loss_curve_ == whole.loss_curve_
    assert resumed.validation_scores_ == whole.validation_scores_
    np.testing.assert_array_equal(resumed.predict(X), whole.predict(X))
    with pytest.raises(TypeError, match="callbacks: expected a list, got Callback"):
        resumed.fit(X, y, callbacks=Callback())


def test_holdout_is_stratified_and_loses_no_class() -> None:
    for n in range(2, 40):
        for fraction in (0.01, 0.1, 0.5, 0.9):
            rng = np.random.default_rng(n)
            train, held = holdout(rng.normal(size=n), fraction, rng)
            assert len(held) == min(math.ceil(fraction * n), n - 1)
            assert sorted([*train, *held]) == list(range(n))
            classes = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
            if len(set(classes)) == n:
                continue
            train, held = holdout(classes, fraction, rng)
            assert sorted([*train, *held]) == list(range(n))
            assert len(held) == min(math.ceil(fraction * n), n - len(set(classes)))
            assert set(classes[train]) == set(classes)
            for c in set(classes):
                count = (classes == c).sum()
                share = min(count * len(held) / n, count - 1)
                of = (classes[held] == c).sum()
                assert np.floor(share) <= of <= count - 1
                assert fraction > 0.5 or abs(of - share) <= 1
    for only in ([1], [1, 2, 3], ["a", "b"]):
        with pytest.raises(ValueError, match=r"X: expected \d sequences or more"):
            holdout(np.array(only), 0.5, rng)
    drawn = [holdout(np.zeros(20, int), 0.1, np.random.default_rng(seed))[1] for seed in range(30)]
    assert len({tuple(held) for held in drawn}) > 20


@pytest.mark.parametrize("early_stopping", [False, True])
def test_pickles_are_small(early_stopping: bool) -> None:
    X, y = ragged(500)
    options = QUICK | {"max_epochs": 1, "early_stopping": early_stopping}
    model = SequenceClassifier(**options).fit(X, y)
    weights = sum(w.nbytes for w in model.net_.parameters().values())
    assert len(pickle.dumps(model)) < weights + 5000


def test_pickles_from_before_a_parameter_was_added() -> None:
    X, y = ragged(30)
    model = SequenceClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    state = dict(model.__getstate__())
    for name in ("early_stopping", "warm_start", "return_sequences", "_per_step", "_several"):
        del state[name]
    old = object.__new__(SequenceClassifier)
    old.__setstate__(state)
    assert old.get_params() == model.get_params()
    np.testing.assert_array_equal(old.predict_proba(X), model.predict_proba(X))
    old.fit(X, y)


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
        ([np.ones((3, 4)), np.ones((3, 6))], r"features by steps: pass \[x.T for x in X\]"),
        ([np.ones((3, 2)), np.full((4, 2), np.nan)], r"X\[1\]: expected finite numbers"),
        ([np.ones((3, 2)), np.ones((0, 2))], r"X\[1\]: expected shape \(T, 2\) with"),
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


@pytest.mark.parametrize(
    ("use", "error"),
    [("import fastrnn.sklearn", "ImportError"), ("fastrnn.sklearn", "AttributeError")],
)
def test_says_what_to_install(use: str, error: str) -> None:
    code = f"import sys; sys.modules['sklearn'] = None; import fastrnn; {use}"
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert process.stderr.endswith(
        f"{error}: fastrnn.sklearn needs scikit-learn: pip install 'fastrnn[sklearn]'\n"
    )


def test_other_features_than_fitted() -> None:
    model = SequenceClassifier(**{**QUICK, "max_epochs": 1}).fit(*ragged(20))
    with pytest.raises(ValueError, match="X: expected 2 features over time, as in fit, got 3"):
        model.predict(ragged(5, F=3)[0])


# -- early stopping, warm starts ------------------------------------------------------------------

STOPPING = {**QUICK, "max_epochs": 60, "early_stopping": True, "n_iter_no_change": 3}


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_early_stopping_keeps_the_best_epoch(kind: Any) -> None:
    X, y = ragged()
    y = y if kind is SequenceClassifier else np.array([x[-1, 0] for x in X])
    model = kind(**STOPPING, tol=1e-9, validation_fraction=0.2).fit(X, y)
    scores = model.validation_scores_
    assert model.best_validation_score_ == max(scores) > 0.9
    assert model.n_iter_ == len(scores) == len(model.loss_curve_) < 60
    since = len(scores) - 1 - max(range(len(scores)), key=lambda i: (scores[i], -i))
    assert since >= 3
    assert model.score(X, y) > 0.9
    again = clone(model).fit(X, y)
    assert again.validation_scores_ == scores
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    usual = kind(**QUICK | {"max_epochs": 2}).fit(X, y)
    assert usual.validation_scores_ is None is usual.best_validation_score_
    assert usual.n_iter_ == 2
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        model.partial_fit(X, y)


def test_what_is_held_out_is_not_trained_on() -> None:
    """Labels at random can't be learned: the best epoch is an early one, and training ends."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 3, 2)), rng.integers(0, 2, 100)
    model = SequenceClassifier(**STOPPING | {"max_epochs": 200, "lr": 0.05}).fit(X, y)
    assert model.n_iter_ < 60
    assert 0.3 < model.best_validation_score_ < 0.95


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction: expected a number above 0 and under"),
        ({"validation_fraction": 0.01}, "validation_fraction: expected to hold out 2 sequences"),
        ({"n_iter_no_change": 0}, "n_iter_no_change: expected"),
        ({"tol": -1.0}, "tol: expected"),
    ],
)
def test_refused_options_of_early_stopping(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SequenceClassifier(**STOPPING | options).fit(*ragged(40))


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_warm_start(kind: Any, early_stopping: bool) -> None:
    X, y = ragged()
    y = y if kind is SequenceClassifier else np.array([x[-1, 0] for x in X])
    options = {**STOPPING, "early_stopping": early_stopping, "max_epochs": 6, "warm_start": True}
    model = kind(**options).fit(X, y)
    first, net = model.score(X, y), model.net_
    weights = net.state_dict()
    best = model.best_validation_score_
    more = [x + 1 for x in X] + [x - 1 for x in X]
    model.fit(more, [*y, *y])
    assert len(model.loss_curve_) == 6 + model.n_iter_
    assert model.n_features_in_ == 2
    np.testing.assert_equal(net.state_dict(), weights)
    model.fit(X, y)
    assert model.score(X, y) >= first - 0.02
    if early_stopping:
        assert model.best_validation_score_ >= best - 0.1
    with pytest.raises(ValueError, match="warm_start: expected the settings of the fit before"):
        model.set_params(hidden_size=8).fit(X, y)
    model.set_params(hidden_size=16)
    with pytest.raises(ValueError, match="X: expected 2 features over time"):
        model.fit([x[:, :1] for x in X], y)
    if kind is SequenceClassifier:
        with pytest.raises(ValueError, match="y: expected classes among"):
            model.fit(X, ["sideways", *y[1:]])


def test_a_warm_start_never_ends_worse_than_it_began() -> None:
    X, y = ragged()
    model = SequenceClassifier(**STOPPING, warm_start=True).fit(X, y)
    best = model.best_validation_score_
    weights = model.net_.state_dict()
    model.set_params(lr=1e-9, max_epochs=2).fit(X, y)
    assert model.best_validation_score_ >= best
    for name, w in model.net_.state_dict().items():
        np.testing.assert_allclose(w, weights[name], atol=1e-6)


# -- several labels, a target for each step -------------------------------------------------------


def labelled(n: int = 120, seed: int = 0) -> tuple[Any, Any]:
    X, _ = ragged(n, F=3, seed=seed)
    return X, np.array([[x[-1, 0] > x[0, 0], x[-1, 1] > 5, len(x) > 5] for x in X]).astype(int)


def test_several_labels() -> None:
    X, y = labelled()
    model = SequenceClassifier(**QUICK).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2]
    p, predicted = model.predict_proba(X), model.predict(X)
    assert predicted.dtype.kind == "i"
    np.testing.assert_array_equal(predicted, p > 0.5)
    assert (predicted == y).mean() > 0.9
    assert model.score(X, y) == (predicted == y).all(axis=1).mean()
    for same in (y.astype(bool), y.astype(float), y.tolist(), scipy_sparse().csr_array(y)):
        again = SequenceClassifier(**QUICK).fit(X, same)
        np.testing.assert_array_equal(again.predict_proba(X), p)
    stopping = SequenceClassifier(**STOPPING).fit(X, y)
    assert stopping.best_validation_score_ == max(stopping.validation_scores_)
    partly = SequenceClassifier(**QUICK).partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
    assert partly.predict(X).shape == y.shape
    for wrong, said in (
        (y * 2, r"y: expected 0 and 1 for each label, got \[0, 2\]"),
        (y + np.arange(3), "y: expected a class for each sequence, or 0 and 1 .* return_sequences"),
        (y[:, :2] * 0.5, "Unknown label type"),
    ):
        with pytest.raises(ValueError, match=said):
            SequenceClassifier(**QUICK).fit(X, wrong)
    with pytest.raises(ValueError, match="y: expected shape"):
        partly.partial_fit(X, y[:, :2])
    with pytest.raises(ValueError, match="y: expected classes or labels, as in the fit before"):
        partly.partial_fit(X, y[:, 0])
    with pytest.raises(ValueError, match="class_weight: expected None where y has several labels"):
        SequenceClassifier(**QUICK, class_weight="balanced").fit(X, y)
    assert cross_val_score(model, X, y, cv=2).min() >= 0


def scipy_sparse() -> Any:
    return pytest.importorskip("scipy.sparse")


def per_step(X: Any) -> tuple[list[Any], list[Any]]:
    """Return whether a feature has risen, and by how much, at each step."""
    rise = [x[:, 0] - x[0, 0] for x in X]
    return [np.where(r > 0.5, "up", np.where(r < -0.5, "down", "flat")) for r in rise], rise


def test_a_class_for_each_step() -> None:
    X, _ = ragged()
    y, _ = per_step(X)
    model = SequenceClassifier(**QUICK, return_sequences=True).fit(X, y)
    assert model.classes_.tolist() == ["down", "flat", "up"]
    predicted, p = model.predict(X), model.predict_proba(X)
    assert [len(of) for of in predicted] == [len(x) for x in X] == [len(of) for of in p]
    right = np.concatenate([a == b for a, b in zip(predicted, y, strict=True)])
    assert model.score(X, y) == right.mean() > 0.9
    weight = np.arange(len(X)) % 3
    by_step = np.repeat(weight, [len(x) for x in X])
    np.testing.assert_allclose(model.score(X, y, weight), np.average(right, weights=by_step))
    assert cross_val_score(model, X, y, cv=KFold(2)).min() > 0.8
    for options in (
        {"early_stopping": True},
        {"class_weight": "balanced"},
        {"bidirectional": True, "dropout": 0.1},
    ):
        other = SequenceClassifier(**QUICK, return_sequences=True, **options)
        assert other.fit(X, y, weight).score(X, y) > 0.8
    model.set_params(return_sequences=False)
    assert len(model.predict(X)[0]) == len(X[0])  # it was fitted so
    with pytest.raises(ValueError, match="return_sequences: expected as in the fit before"):
        model.partial_fit(X, y)
    partly = SequenceClassifier(**QUICK, return_sequences=True)
    for _ in range(20):
        partly.partial_fit(X, y, classes=["down", "flat", "up"])
    assert partly.score(X, y) > 0.9
    for wrong, said in (
        ([of[1:] for of in y], r"y\[0\]: expected \d targets, one for each step.* got \d"),
        ([of[0] for of in y], r"y\[0\]: expected \d targets, one for each step.* got one"),
        (y[1:], "inconsistent numbers of samples"),
    ):
        with pytest.raises(ValueError, match=said):
            clone(model).set_params(return_sequences=True).fit(X, wrong)
    with pytest.raises(ValueError, match="return_sequences=True for targets of each step"):
        SequenceClassifier(**QUICK).fit(X, y)


def test_a_number_for_each_step() -> None:
    X, _ = ragged()
    _, y = per_step(X)
    model = SequenceRegressor(**QUICK, return_sequences=True).fit(X, y)
    assert model.score(X, y) > 0.9
    two = [np.stack([of, of * 1000 + 5], axis=1) for of in y]
    double = SequenceRegressor(**QUICK, return_sequences=True).fit(X, two)
    assert [of.shape for of in double.predict(X)] == [of.shape for of in two]
    assert double.score(X, two) > 0.9
    with pytest.raises(ValueError, match="return_sequences=True for targets of each step"):
        SequenceRegressor(**QUICK).fit(X, y)

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5, 2))
    y = X[:, :, 0].cumsum(axis=1)
    model = SequenceRegressor(**STOPPING, return_sequences=True).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert model.score(X, y) > 0.8
    table = SequenceRegressor(**QUICK, return_sequences=True).fit(X[:, :, 0], y)
    assert table.predict(X[:, :, 0]).shape == y.shape
    assert table.score(X[:, :, 0], y) > 0.9
    np.testing.assert_allclose(
        clone(table).fit(list(X[:, :, :1]), list(y)).predict(X[:, :, :1]),
        table.predict(X[:, :, 0]),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match=r"got 5: X seems to be \(n, F, T\), pass X.swapaxes"):
        model.fit(X.swapaxes(1, 2), y)
    with pytest.raises(ValueError, match=r"y: expected shape \(n,\) or \(n, K\), got"):
        SequenceRegressor(**QUICK).fit(X, y[:, :, None])


# -- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("form", ["array", "list", "table", "steps"])
def test_rows_of_weight_0_do_not_matter(kind: Any, form: str, early_stopping: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4, 2))
    y: Any = X[:, :, 0].sum(axis=1)
    weight = np.where(np.arange(60) % 3, rng.uniform(0.5, 2, 60), 0)
    wrong = weight == 0
    X[wrong] *= 1000
    y[wrong] = 1e6
    if form == "steps":
        y = y[:, None] + X[:, :, 1]
    if kind is SequenceClassifier:
        y = np.where(wrong.reshape(-1, *[1] * (y.ndim - 1)), "wrong", np.where(y > 0, "a", "b"))
    x = {"list": [a[: 2 + i % 3] for i, a in enumerate(X)], "table": X[:, :, 0]}.get(form, X)
    right: Any = [x[i] for i in np.flatnonzero(~wrong)]
    options = {**STOPPING, "early_stopping": early_stopping, "max_epochs": 3}
    model = kind(**options, return_sequences=form == "steps")
    right = right if form == "list" else np.array(right)
    expected = clone(model).fit(right, y[~wrong], weight[~wrong])
    model.fit(x, y, weight)
    np.testing.assert_array_equal(model.predict(x), expected.predict(x))
    assert kind is SequenceRegressor or model.classes_.tolist() == ["a", "b"]
    assert model.loss_curve_ == expected.loss_curve_


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_weights_are_repetitions_in_one_batch(kind: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(2, 3, (30, 4, 2))
    y: Any = X[:, -1, 0] if kind is SequenceRegressor else rng.integers(0, 3, 30)
    times = rng.integers(0, 4, 30)
    options = {**QUICK, "batch_size": 1000}
    if kind is SequenceClassifier:
        options["class_weight"] = "balanced"
    a = kind(**options).fit(X, y, times * 0.1)
    b = kind(**options).fit(X.repeat(times, axis=0), y.repeat(times))
    method = "predict" if kind is SequenceRegressor else "predict_proba"
    np.testing.assert_allclose(getattr(a, method)(X), getattr(b, method)(X), rtol=1e-6)


# -- inputs ---------------------------------------------------------------------------------------


def test_padding_with_nan_is_said() -> None:
    X, y = ragged(20)
    longest = max(map(len, X))
    padded = np.full((20, longest, 2), np.nan)
    for i, x in enumerate(X):
        padded[i, : len(x)] = x
    hint = "pass a list of sequences of their own lengths"
    for wrong in (padded, padded[:, :, 0], list(padded), list(padded.astype("f"))):
        with pytest.raises(ValueError, match=rf"(?s)NaN.*{hint}"):
            SequenceClassifier(**QUICK).fit(wrong, y)
    padded[3, 0, 1] = np.nan  # in one place only: that is not padding
    for wrong in (padded, padded[3:4], np.where(np.isnan(padded), 0, padded) * [1, np.nan]):
        with pytest.raises(ValueError, match="NaN") as caught:
            SequenceClassifier(**QUICK).fit(wrong, y[: len(wrong)])
        assert hint not in str(caught.value)


def test_empty_inputs() -> None:
    X, y = ragged(20)
    model = SequenceClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    for empty in ([], (), np.empty((0, 3, 2)), np.empty((0, 3)), np.array([], object)):
        for call in (model.predict, model.predict_proba, lambda X: model.fit(X, [])):
            with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\) \(shape=\(0"):
                call(empty)


def test_swapped_axes_are_said() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 6, 2)), np.arange(20) % 2
    model = SequenceClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    with pytest.raises(ValueError, match=r"expected 2 .* got 6; .* pass X.swapaxes\(1, 2\)"):
        model.predict(X.swapaxes(1, 2))
    with pytest.raises(ValueError, match=r"expected 2 .* got \d; .* pass \[x.T for x in X\]"):
        model.predict([x.T for x in X])
    with pytest.raises(ValueError, match=r"expected 2 features .* got 6$"):
        model.predict(rng.normal(size=(20, 5, 6)))


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "int8", "uint64", "bool", "object"])
def test_dtypes(dtype: str) -> None:
    X = np.random.default_rng(0).integers(0, 2, (40, 4, 2))
    y = X[:, -1, 0]
    model = SequenceClassifier(**QUICK).fit(X.astype(float), y)
    for x in (X.astype(dtype), list(X.astype(dtype))):
        other = SequenceClassifier(**QUICK).fit(x, y)
        np.testing.assert_array_equal(other.predict_proba(x), model.predict_proba(X.astype(float)))
    regressor = SequenceRegressor(**QUICK).fit(X.astype(float), y)
    other = SequenceRegressor(**QUICK).fit(X.astype(dtype), y.astype(dtype))
    np.testing.assert_array_equal(other.predict(X), regressor.predict(X))


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_numbers_of_any_size(size: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4, 2)) * [size, 1]
    y = X[:, -1, 0]
    model = SequenceRegressor(**QUICK).fit(X, y)
    small = SequenceRegressor(**QUICK).fit(X / [size, 1], y / size)
    np.testing.assert_allclose(model.predict(X) / size, small.predict(X / [size, 1]), rtol=1e-3)


def test_a_constant_column_has_no_say() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4, 2))
    X[:, :, 1] = 14.62
    moved = X + np.array([0, 1e-6])
    y = X[:, :, 0].sum(axis=1)
    weight = rng.uniform(1, 2, 80)
    for dtype in (np.float64, np.float32):
        for w in (None, weight):
            model = SequenceRegressor(**QUICK | {"max_epochs": 5}).fit(X.astype(dtype), y, w)
            np.testing.assert_allclose(model.predict(moved), model.predict(X), atol=1e-4)
    same = SequenceRegressor(**QUICK).fit(X, np.full(80, 14.62))
    np.testing.assert_allclose(same.predict(X), 14.62, rtol=1e-2)


def test_attributes_are_as_before_a_fit_that_fails() -> None:
    X, y = ragged(30)
    model = SequenceClassifier(**QUICK | {"max_epochs": 1}).fit(X, y)
    before = dict(vars(model))
    for wrong, labels in (([x[:, :1] for x in X], y[1:]), (X, y[1:]), (np.ones((3, 2)), [0, 1])):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            model.fit(wrong, labels)
        assert vars(model) == before


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_counts_are_compared_before_targets_are_read(kind: Any) -> None:
    """An array of a number, repeated without memory: to read it all would take years."""
    y = np.lib.stride_tricks.as_strided(np.zeros(1), (2**58,), (0,))
    for fit in ("fit", "partial_fit"):
        options = {"classes": [0]} if (kind, fit) == (SequenceClassifier, "partial_fit") else {}
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            getattr(kind(max_epochs=1), fit)(np.ones((6, 3, 2)), y, **options)


@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
@pytest.mark.parametrize("name", ["classes", "sample_weight"])
def test_an_argument_that_resizes_the_others(kind: Any, name: str) -> None:
    if (kind, name) == (SequenceRegressor, "classes"):
        pytest.skip("of classifiers")
    X, y = np.ones((6, 3, 2), np.float32), np.arange(6) % 2

    class Resizes:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            for a in (X, y):
                a.resize(1, refcheck=False)
            return np.arange(6) % 2

    options = {"classes": [0, 1]} if kind is SequenceClassifier else {}
    with pytest.raises(ValueError, match=r"cannot resize|sample_weight: expected"):
        kind(max_epochs=1).partial_fit(X, y, **(options | {name: Resizes()}))
    assert X.size == 36
    assert y.size == 6
