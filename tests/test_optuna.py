"""Pruning of Optuna's trials: what is reported, what ends, and what Ctrl-C does."""

from __future__ import annotations

import doctest
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback, EarlyStopping, OptunaPruning
from fastrnn.text import CharLM, TextClassifier

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)

N, T, F, H, EPOCHS = 31, 6, 2, 5, 7
PRUNED, COMPLETE = optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE


class After(optuna.pruners.BasePruner):
    """Prunes all trials but the first after the report of this step."""

    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.number > 0 and trial.last_step >= self.step


@pytest.fixture
def data(rng):
    x = rng.normal(size=(N, T, F)).astype(np.float32)
    return x, x[:, -1, :1]


def model(units=H):
    layers = [fastrnn.GRU(F, units, return_sequences=False), fastrnn.Linear(units, 1)]
    net = fastrnn.Sequential(layers, seed=0)
    net.compile("adam", "mse", ["mae"])
    return net


def study_of(objective, n_trials=2, step=2, **options):
    study = optuna.create_study(
        pruner=After(step), sampler=optuna.samplers.RandomSampler(seed=0), **options
    )
    study.optimize(objective, n_trials=n_trials)
    return study


def test_reports_and_prunes(data):
    histories = []

    def objective(trial):
        net = model()
        callbacks = [OptunaPruning(trial, "val_loss")]
        try:
            net.fit(*data, EPOCHS, validation_split=0.2, callbacks=callbacks, verbose=0)
        finally:
            histories.append(net.history)
        return net.history.history["val_loss"][-1]

    whole, pruned = study_of(objective).trials
    assert (whole.state, pruned.state) == (COMPLETE, PRUNED)
    losses = histories[0].history["val_loss"]
    assert whole.intermediate_values == dict(enumerate(losses))
    assert pruned.intermediate_values == dict(enumerate(losses[:3]))
    assert histories[1].history["val_loss"] == losses[:2]  # it ended within the third epoch


def test_intervals_and_other_callbacks(data):
    def objective(trial):
        net = model()
        stop = EarlyStopping("loss", restore_best_weights=True)
        callbacks = [OptunaPruning(trial, "mae", interval=3), stop]
        try:
            net.fit(*data, EPOCHS, callbacks=callbacks, verbose=0)
        finally:
            assert stop._weights == {}  # its end was called
        return net.history.history["mae"][-1]

    whole, pruned = study_of(objective).trials
    assert [*whole.intermediate_values] == [2, 5]
    assert [*pruned.intermediate_values] == [2]


def test_estimators(data):
    sklearn = pytest.importorskip("fastrnn.sklearn")
    x, y = data
    for kind, target in (
        (sklearn.SequenceClassifier, (y[:, 0] > 0).astype(int)),
        (sklearn.SequenceRegressor, y),
    ):
        scores = []

        def objective(trial, kind=kind, target=target, scores=scores):
            options = {"early_stopping": True, "max_epochs": EPOCHS, "random_state": 0}
            fitted = kind(hidden_size=H, n_iter_no_change=EPOCHS, **options)
            prune = OptunaPruning(trial, "validation_score")
            try:
                fitted.fit(x, target, callbacks=[prune])
            except optuna.TrialPruned:
                assert not hasattr(fitted, "net_")  # as before
                raise
            scores.append(fitted.validation_scores_)
            return fitted.best_validation_score_

        whole, pruned = study_of(objective, direction="maximize").trials
        assert whole.intermediate_values == dict(enumerate(scores[0]))
        assert pruned.intermediate_values == dict(enumerate(scores[0][:3]))
        assert pruned.state == PRUNED


def test_text_models():
    text = "to be or not to be, that is the question. " * 30
    labels = ["long" if i % 2 else "short" for i in range(20)]

    def of_characters(trial):
        lm = CharLM(embedding_dim=4, hidden_size=H, seq_len=9, batch_size=3, epochs=4, seed=0)
        lm.fit(text, callbacks=[OptunaPruning(trial)], verbose=0)
        return lm.history[-1].validation_bits

    def of_texts(trial):
        texts = ["a b c d e" if label == "long" else "a" for label in labels]
        classifier = TextClassifier(embedding_dim=3, hidden_size=H, epochs=4, seed=0)
        classifier.fit(texts, labels, callbacks=[OptunaPruning(trial, "loss")], verbose=0)
        return 0.0

    for objective in (of_characters, of_texts):
        whole, pruned = study_of(objective, step=1).trials
        assert (whole.state, pruned.state) == (COMPLETE, PRUNED)
        assert [*pruned.intermediate_values] == [0, 1]
        assert [*whole.intermediate_values] == [0, 1, 2, 3]


def test_ctrl_c_ends_the_study(data):
    class Interrupts(Callback):
        def on_train_batch_end(self, batch, logs):
            raise KeyboardInterrupt

    def objective(trial):
        model().fit(*data, EPOCHS, callbacks=[OptunaPruning(trial, "loss"), Interrupts()])

    study = optuna.create_study()
    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=3)
    (trial,) = study.trials
    assert trial.state is not COMPLETE


def test_trials_in_threads_have_the_bits_of_those_alone(data):
    def objective(trial):
        net = model(trial.suggest_int("units", 3, 6))
        prune = OptunaPruning(trial, "loss")
        return net.fit(*data, 3, callbacks=[prune], verbose=0).history["loss"][-1]

    grid = {"units": [3, 4, 5, 6]}
    found = []
    for jobs in (1, 2):
        sampler = optuna.samplers.GridSampler(grid, seed=0)
        study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner())
        study.optimize(objective, n_trials=4, n_jobs=jobs)
        found.append({t.params["units"]: t.intermediate_values for t in study.trials})
    assert found[0] == found[1]


def test_errors(data):
    def fit(study, *arguments):
        prune = OptunaPruning(study.ask(), *arguments)
        model().fit(*data, 2, validation_split=0.2, callbacks=[prune], verbose=0)

    study = optuna.create_study()
    with pytest.raises(TypeError, match="trial: expected a trial of Optuna, got Study"):
        OptunaPruning(study)
    for arguments, message in [
        (("val_los",), "monitor: expected one of .*, got 'val_los'; did you mean 'val_loss'"),
        (("val_accuracy",), "monitor: expected a study with direction 'maximize' for 'val_acc"),
        (("loss", 0), "interval: expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(study, *arguments)
    most = optuna.create_study(direction="maximize")
    with pytest.raises(ValueError, match="'minimize' for 'val_mae', got 'maximize'"):
        fit(most, "val_mae")
    fixed = optuna.trial.FixedTrial({})  # has no study, and prunes nothing
    model().fit(*data, callbacks=[OptunaPruning(fixed, "mae")], verbose=0)


def test_pickles_and_prints(data):
    study = optuna.create_study()
    prune = OptunaPruning(study.ask(), "loss")
    model().fit(*data, callbacks=[prune], verbose=0)
    assert not hasattr(pickle.loads(pickle.dumps(prune)), "model")
    assert repr(OptunaPruning(optuna.trial.FixedTrial({}), "mae")).endswith(
        "monitor='mae', interval=1)"
    )


def test_the_example_runs_with_optuna():
    text = (OptunaPruning.__doc__ or "").replace("# doctest: +SKIP", "")
    names = {"np": np, "fastrnn": fastrnn}
    runner, said = doctest.DocTestRunner(), []
    runner.run(
        doctest.DocTestParser().get_doctest(text, names, "example", None, 0), out=said.append
    )
    assert not runner.failures, "".join(said)
