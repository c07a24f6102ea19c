"""Examples in docstrings run, and every public class has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import fastrnn

#: Modules whose classes are public, by ``__all__``.
PUBLIC = ["", ".callbacks", ".forecast", ".losses", ".optim", ".schedules", ".sklearn", ".text"]

#: Public classes that have no example yet.
MISSING = {
    "Backtest",
    "CharLM",
    "Forecaster",
    "Record",
    "Sequential",
    "SequenceClassifier",
    "SequenceRegressor",
    "TextClassifier",
}

MODULES = [
    m.name
    for m in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
    if not m.name.startswith(("fastrnn._", "fastrnn.__main__"))
]


def imported(name: str) -> Any:
    if name.startswith("fastrnn.sklearn"):
        pytest.importorskip("sklearn")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["fastrnn", *MODULES])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    module = imported(name)
    monkeypatch.chdir(tmp_path)
    names = {"np": np, "fastrnn": fastrnn}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_classes_have_examples(name: str) -> None:
    module = imported(f"fastrnn{name}")
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) and public not in MISSING:
            assert ">>> " in (value.__doc__ or ""), f"{name}.{public}"
