"""Settings of models for one purpose, as scikit-learn reads and changes them."""

from __future__ import annotations

from typing import Any

import pytest

from fastrnn.forecast import Forecaster
from fastrnn.text import CharLM, TextClassifier

KINDS = [CharLM, Forecaster, TextClassifier]


@pytest.mark.parametrize("kind", KINDS)
def test_get_params_and_set_params(kind: Any) -> None:
    model = kind(hidden_size=7, seed=3)
    params = model.get_params()
    assert params["hidden_size"] == 7
    assert kind(**params).get_params(deep=False) == params
    assert model.set_params(hidden_size=9, lr=0.5) is model
    assert model.get_params() == params | {"hidden_size": 9, "lr": 0.5}
    assert model.set_params() is model


@pytest.mark.parametrize("kind", KINDS)
def test_set_params_changes_all_or_nothing(kind: Any) -> None:
    model = kind(hidden_size=7)
    params = model.get_params()
    with pytest.raises(ValueError, match=f"{kind.__name__}.size: is not a setting, expected one o"):
        model.set_params(hidden_size=9, size=1)
    with pytest.raises(ValueError, match="lr: expected a finite number above 0, got -1"):
        model.set_params(hidden_size=9, lr=-1)
    assert model.get_params() == params


@pytest.mark.parametrize("kind", KINDS)
def test_clone(kind: Any) -> None:
    base = pytest.importorskip("sklearn.base")
    model = kind(hidden_size=7, seed=3)
    again = base.clone(model)
    assert type(again) is kind
    assert again is not model
    assert again.get_params() == model.get_params()
    assert base.is_classifier(model) == (kind is TextClassifier)
    assert not base.is_regressor(model)


def test_fitted_as_scikit_learn_asks() -> None:
    validation = pytest.importorskip("sklearn.utils.validation")
    base = pytest.importorskip("sklearn.base")
    model = TextClassifier(hidden_size=2, embedding_dim=2, epochs=1, min_count=1, seed=0)
    with pytest.raises(ValueError, match="not fitted yet"):
        validation.check_is_fitted(model)
    model.fit(["a b", "c d"] * 4, [0, 1] * 4, verbose=0)
    validation.check_is_fitted(model)
    assert not base.clone(model).__sklearn_is_fitted__()
