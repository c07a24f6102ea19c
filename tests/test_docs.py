"""Every public object is documented: summary, parameters, returns, raises, an example.

``python tests/test_docs.py`` counts them. Their examples are run by test_docstrings.py.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import fastrnn
from fastrnn import _checks

MODULES = (
    "fastrnn",
    "fastrnn.losses",
    "fastrnn.optim",
    *(f"fastrnn.{name}" for name in sorted(fastrnn._LAZY | fastrnn._EXTRAS)),
)
#: Types for annotations.
ALIASES = ("Logs", "Schedule")
#: Made by functions, not by users: their attributes and methods are documented.
MADE = ("fastrnn.Stream", "fastrnn.onnx.Model")


def public(module_name: str) -> Iterator[tuple[str, Any]]:
    """Yield the names, and the classes, functions and instances that a module offers."""
    module = importlib.import_module(module_name)
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.ismodule(value) and name[0] != "_" and name not in ALIASES:
            is_instance = not (inspect.isclass(value) or hasattr(value, "__qualname__"))
            yield f"{module_name}.{name}", type(value) if is_instance else value


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class that this package defines."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.startswith("fastrnn"):
            for name, value in vars(base).items():
                value = getattr(value, "__func__", value)
                is_one = inspect.isfunction(value) or isinstance(value, property)
                if is_one and name[0] != "_" and name not in seen:
                    seen.add(name)
                    yield name, value


def sections(text: str | None) -> dict[str, str]:
    """Split a docstring in numpydoc's format; the first part has no name."""
    text = inspect.cleandoc(text or "")
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", text, flags=re.MULTILINE)
    return {"": parts[0].strip(), **dict(zip(parts[1::2], parts[2::2], strict=True))}


def named(section: str) -> set[str]:
    """Return the names that a section of parameters lists."""
    lines = re.findall(r"^([\w*].*?)(?: : .*)?$", section, flags=re.MULTILINE)
    return {name.strip(" *") for line in lines for name in line.split(",")}


def arguments(call: Any) -> set[str]:
    return {*inspect.signature(call).parameters} - {"self", "cls"}


def raises(call: Any) -> bool:
    """Return whether a function has a raise statement, or calls one of this package's checks."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(call)))
    except (OSError, TypeError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of, check = node.func.value, node.func.attr
            if isinstance(of, ast.Name) and of.id == "_checks" and check != "pinned":
                return hasattr(_checks, check)
    return False


def returns(call: Any) -> bool:
    result = inspect.signature(call).return_annotation
    return result not in (None, "None", inspect.Signature.empty) and "Iterator" not in str(result)


def lacks(name: str, value: Any) -> list[str]:
    """Return what the documentation of a public object lacks."""
    found = sections(inspect.getdoc(value))
    call = value.__init__ if inspect.isclass(value) else value
    listed = named(found.get("Parameters", "") + found.get("Attributes", ""))
    missing = [] if found[""] else ["a summary"]
    if name not in MADE and call is not object.__init__:
        missing += [f"the parameter {n}" for n in sorted(arguments(call) - listed)]
    if not inspect.isclass(value) and returns(call) and "Returns" not in found:
        missing.append("Returns")
    if raises(call) and "Raises" not in found:
        missing.append("Raises")
    if ">>> " not in found.get("Examples", ""):
        missing.append("an example")
    return missing


def lacks_of_method(kind: type, name: str, value: Any) -> list[str]:
    """Return what the documentation of a method or property lacks.

    Short ones are documented in prose, or by what they override, their class or its plain call.
    """
    if isinstance(value, property):
        return [] if value.__doc__ else ["a summary"]
    texts = [getattr(vars(base).get(name), "__doc__", None) or "" for base in kind.__mro__]
    if not any(texts):
        return ["a summary"]
    texts += [inspect.getdoc(base) or "" for base in (*kind.__mro__[:-1], kind.__call__)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    missing = [f"the parameter {n}" for n in sorted(arguments(value) - words - {"kwargs"})]
    if returns(value) and not {"Returns", "Return", "return", "Yields"} & words:
        missing.append("Returns")
    return missing


def imported(module_name: str) -> list[tuple[str, Any]]:
    for extra in fastrnn._EXTRAS - {"keras"}:  # which does without Keras
        if module_name == f"fastrnn.{extra}":
            pytest.importorskip(extra)
    return list(public(module_name))


@pytest.mark.parametrize("module_name", MODULES)
def test_every_public_object_is_documented(module_name: str) -> None:
    found = {name: lacks(name, value) for name, value in imported(module_name)}
    assert found
    assert {name: missing for name, missing in found.items() if missing} == {}


@pytest.mark.parametrize("module_name", MODULES)
def test_every_method_is_documented(module_name: str) -> None:
    found = {
        f"{name}.{method}": lacks_of_method(kind, method, value)
        for name, kind in imported(module_name)
        if inspect.isclass(kind)
        for method, value in methods(kind)
    }
    assert {name: missing for name, missing in found.items() if missing} == {}


def count() -> None:
    """Print how many public objects and methods there are, and how many lack something."""
    lacking: list[str] = []
    objects, members = 0, set()
    for module_name in MODULES:
        for name, value in public(module_name):
            objects += 1
            lacking += [f"{name}: {what}" for what in lacks(name, value)]
            for method, of in methods(value) if inspect.isclass(value) else ():
                members.add(f"{of.__module__}.{of.__qualname__}" if callable(of) else of)
                lacking += [f"{name}.{method}: {w}" for w in lacks_of_method(value, method, of)]
    print(f"{objects} public objects, {len(members)} methods and properties; lacking:", *lacking)


if __name__ == "__main__":
    count()
