"""Examples in docstrings run, and every public class has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import pydoc
import re
from typing import Any

import numpy as np
import pytest

import fastrnn

os.environ.setdefault("KERAS_BACKEND", "torch")  # as in test_keras.py

#: Modules for users.
PUBLIC = [
    "fastrnn",
    *(f"fastrnn.{n}" for n in sorted(fastrnn._LAZY | fastrnn._EXTRAS)),
    "fastrnn.losses",
    "fastrnn.optim",
]

MODULES = [
    m.name
    for m in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
    if not m.name.startswith(("fastrnn._", "fastrnn.__main__"))
]


def imported(name: str) -> Any:
    for extra in fastrnn._EXTRAS - {"keras"}:  # which does without Keras
        if name.startswith(f"fastrnn.{extra}"):
            pytest.importorskip(extra)
    return importlib.import_module(name)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras on torch
@pytest.mark.parametrize("name", ["fastrnn", *MODULES])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    module = imported(name)
    monkeypatch.chdir(tmp_path)
    names = {"np": np, "fastrnn": fastrnn}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        for package in re.findall(r"^import (\w+)", "".join(e.source for e in test.examples), re.M):
            pytest.importorskip(package)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", PUBLIC)
def test_modules_show_what_is_public(name: str) -> None:
    """In help, which leaves out what comes from another module unless ``__all__`` names it."""
    module = imported(name)
    assert module.__doc__
    assert set(module.__all__) <= set(dir(module))
    shown = pydoc.plaintext.document(module)
    for public in module.__all__:
        value = getattr(module, public)
        assert inspect.ismodule(value) or re.search(rf"\b{public}\b", shown)
        if inspect.isclass(value):
            assert ">>> " in (value.__doc__ or ""), f"{name}.{public} has no example"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public} is not documented"
