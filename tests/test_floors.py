"""Architecture: imports go down only, private names stay in their folder, no long functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastrnn
from fastrnn._kernels.cells import CELLS

PACKAGE = Path(fastrnn.__file__).parent
CHECKOUT = Path(__file__).parents[1]

#: The modules and folders of each layer of the package, the lowest first.
FLOORS = (
    "_checks _frames _types _version",
    "_kernels",
    "_core",
    "layers losses optim schedules functional layouts _files",
    "models",
    "callbacks text forecast sklearn torch onnx keras",
    "__init__ __main__ _load _quantize cli dask _bench",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}

#: Every module by its name; `fastrnn` itself is its `__init__`.
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}

LONGEST = 60


def room(module: str) -> str:
    """Return the module or folder of the package that contains it."""
    return module.split(".")[0]


def imported(module: str) -> Iterator[tuple[str, str]]:
    """Yield a module's imports from the package, local and type-only too: (module, name)."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names):
                if name.split(".")[0] == "fastrnn":
                    yield name.removeprefix("fastrnn").removeprefix(".") or "__init__", ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if (node.module or "").split(".")[0] != "fastrnn":
                continue
            source = (node.module or "").removeprefix("fastrnn").removeprefix(".")
            for name in (alias.name for alias in node.names):
                inner = f"{source}.{name}".removeprefix(".")
                yield (inner, "") if inner in FILES else (source or "__init__", name)


def test_contributing_shows_the_floors() -> None:
    if not (CHECKOUT / "CONTRIBUTING.md").exists():
        pytest.skip("not in a checkout")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.M)
    shown = {int(n): {p.rstrip("/").removesuffix(".py") for p in re.findall("`(.*?)`", names)}
             for n, names in rows}  # fmt: skip
    assert shown == {n: {*names.split()} for n, names in enumerate(FLOORS)}


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in FILES} == FLOOR.keys()


def test_imports_go_down() -> None:
    up = [
        f"{module} -> {source}"
        for module in FILES
        for source, _ in imported(module)
        if FLOOR[room(source)] > FLOOR[room(module)]
    ]
    assert not up


def test_no_circles() -> None:
    # A folder's __init__ re-exports names: importing them depends on the __init__ alone.
    graph = {module: {source for source, _ in imported(module)} - {module} for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_private_names_stay_in_their_room() -> None:
    def private(name: str) -> bool:
        return name.startswith("_") and not name.endswith("__")

    reached = []
    for module, tree in TREES.items():
        # Names of modules imported from another folder, whose attributes are read.
        others = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastrnn"):
                others |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        for source, name in imported(module):
            inner = source.split(".")[1:]
            if room(source) != room(module) and any(map(private, [*inner, name])):
                reached.append(f"{module}: {source}.{name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                source = others.get(node.value.id, "").removeprefix("fastrnn.")
                if private(node.attr) and source and room(source) != room(module):
                    reached.append(f"{module}: {source}.{node.attr}")
    assert not reached


@pytest.mark.parametrize("cell", CELLS)
def test_a_family_has_its_file_on_every_floor(cell: str) -> None:
    family = CELLS[cell].family
    wanted = [PACKAGE / f"layers/{family}.py", PACKAGE / f"_kernels/reference/{family}.py"]
    if (CHECKOUT / "src_pyx").exists():
        wanted.append(CHECKOUT / f"src_pyx/cells/{family}.pxd")
    assert not [str(path) for path in wanted if not path.exists()]


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    doc = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = (doc.end_lineno or 0) - doc.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_no_function_is_long() -> None:
    lengths = {
        f"{module}.{node.name}": lines(node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not {name: n for name, n in lengths.items() if n > LONGEST}
