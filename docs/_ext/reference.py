"""A page for each public object, written into ``docs/api`` before Sphinx reads its sources."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, get_origin

from sphinx.ext.autodoc.mock import mock

import fastrnn

#: Modules in the order in which the reference shows them.
MODULES = (
    "fastrnn",
    "fastrnn.optim",
    "fastrnn.schedules",
    "fastrnn.losses",
    "fastrnn.callbacks",
    "fastrnn.functional",
    "fastrnn.layouts",
    "fastrnn.text",
    "fastrnn.forecast",
    "fastrnn.sklearn",
    "fastrnn.torch",
    "fastrnn.keras",
    "fastrnn.onnx",
    "fastrnn.dask",
)

#: What a `Sequential` asks of its layers: shown on the page of `Layer` alone.
OF_MODELS = {
    "apply", "apply_backward", "apply_forward", "arrays", "buffers", "cell", "expect_trainable",
    "features_in", "features_out", "generator", "has_state", "least_weights", "per_sequence",
    "quantized", "seeded", "stackable", "stage", "touched", "vocabulary", "with_layers",
}  # fmt: skip
#: The order of the methods that are met first.
FIRST = ("__call__", "forward", "backward", "stream", "compile", "fit", "predict", "evaluate")


def write(path: Path, text: str) -> None:
    """Write a page, if it is new: Sphinx reads changed files only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def heading(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the members of a class that this package documents: directives and names."""
    seen = set()
    is_layer = issubclass(kind, fastrnn.Layer)
    for base in kind.__mro__:
        if not base.__module__.startswith("fastrnn"):
            continue
        for name, value in vars(base).items():
            shared = name in OF_MODELS and kind is not fastrnn.Layer and is_layer
            hidden = (name[0] == "_" and name != "__call__") or name.endswith("_request")
            if hidden or name in seen or shared:
                continue
            seen.add(name)
            if isinstance(value, property | cached_property) and inspect.getdoc(value):
                yield "autoproperty", name
            elif inspect.ismemberdescriptor(value) and isinstance(vars(base)["__slots__"], dict):
                yield "autoattribute", name
            elif inspect.isroutine(getattr(kind, name)) and inspect.getdoc(getattr(kind, name)):
                yield "automethod", name


def page(module: str, name: str, value: Any) -> str:
    """Return the page of an object."""
    full = f"{module}.{name}"
    text = heading(full) + f".. currentmodule:: {module}\n\n"
    if not inspect.isclass(value):
        if is_alias(value):
            return text + f".. py:data:: {full}\n   :value: {value}\n"
        is_function = inspect.isroutine(value) or hasattr(value, "__wrapped__")
        return text + f".. {'autofunction' if is_function else 'autodata'}:: {full}\n"
    text += f".. autoclass:: {full}\n"
    order = {name: at for at, name in enumerate(FIRST)}
    found = sorted(members(value), key=lambda member: order.get(member[1], len(order)))
    for title, directives in (
        ("Methods", ("automethod",)),
        ("Attributes", ("autoproperty", "autoattribute")),
    ):
        shown = [(d, n) for d, n in found if d in directives]
        if shown:
            text += f"\n   .. rubric:: {title}\n\n"
        text += "".join(f"   .. {d}:: {full}.{n}\n" for d, n in shown)
    return text


def is_alias(value: Any) -> bool:
    """Return whether it is a type for annotations, such as ``Callable[[int], float]``."""
    return get_origin(value) is not None


def summary(value: Any) -> str:
    """Return the first paragraph of a docstring; of a type alias, the type."""
    if is_alias(value):
        return f"``{value}``"
    first = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    return first.strip()


def module_page(name: str, names: list[str]) -> str:
    """Return the page of a module: its docstring, a table, and the pages of its objects."""
    text = heading(name) + f".. automodule:: {name}\n\n"
    text += ".. list-table::\n   :class: api-table\n   :widths: 35 65\n\n"
    module = importlib.import_module(name)
    for public in names:
        value = getattr(module, public)
        text += f"   * - :doc:`{public} <{name}.{public}>`\n     - {summary(value)}\n"
    text += "\n.. toctree::\n   :hidden:\n\n"
    return text + "".join(f"   {public} <{name}.{public}>\n" for public in names)


def generate(app: Any) -> None:
    """Write all pages of the reference; remove those of objects that are gone."""
    with mock(app.config.autodoc_mock_imports):
        _generate(app)


def _generate(app: Any) -> None:
    folder = Path(app.srcdir) / "api"
    wanted = {"index.rst", "index.md"}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        names = [n for n in module.__all__ if not inspect.ismodule(getattr(module, n))]
        names = [n for n in names if n[0] != "_"]
        write(folder / f"{module_name}.rst", module_page(module_name, names))
        wanted.add(f"{module_name}.rst")
        for name in names:
            file = f"{module_name}.{name}.rst"
            write(folder / file, page(module_name, name, getattr(module, name)))
            wanted.add(file)
    for path in folder.glob("*.rst"):
        if path.name not in wanted:
            path.unlink()


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
