"""Both twins have the names, parameters and docstrings of ``fastrnn._kernels.interface``."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn
from fastrnn._kernels import dispatch
from fastrnn._kernels.interface import Kernels

NAMES = [name for name in vars(Kernels) if not name.startswith("_")]
CLASSES = [name for name in NAMES if name[0].isupper()]


def parameters(function):
    """Return name, kind and default of each parameter except self."""
    params = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in params if p.name != "self"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CLASSES])
def test_twins_have_the_parameters_of_the_seam(backend, dtype, name):
    function, said = getattr(dispatch.kernels(dtype), name), getattr(Kernels, name)
    assert parameters(function) == parameters(said)
    assert function.__doc__.splitlines()[0] == said.__doc__.splitlines()[0]


@pytest.mark.parametrize("name", CLASSES)
def test_twins_have_the_classes_of_the_seam(backend, dtype, name):
    made, said = getattr(dispatch.kernels(dtype), name), getattr(Kernels, name)
    assert made.__doc__.splitlines()[0] == said.__doc__.splitlines()[0]
    named = [parameter for parameter, _, _ in parameters(said)]
    # The error must not be about the names; a compiled class has no signature to inspect.
    with pytest.raises((TypeError, ValueError, AttributeError)) as error:
        made(**dict.fromkeys(named, object()))
    assert "unexpected keyword" not in str(error.value)
    with pytest.raises(TypeError):
        made(**dict.fromkeys(named, object()), nonsense=None)
    protocol = sys.modules[Kernels.__module__].__dict__[inspect.signature(said).return_annotation]
    for method in (m for m in vars(protocol) if not m.startswith("_")):
        if callable(getattr(protocol, method)):
            function, said = getattr(made, method), getattr(protocol, method)
            assert parameters(function) == parameters(said)
            assert function.__doc__.splitlines()[0] == said.__doc__.splitlines()[0]


WRONG = {
    'kernels.forwrd("nonsense")': "has no attribute",
    "kernels.forward(packed, x, [None], None, [x], True)": "Too many positional arguments",
    "kernels.linear(x, x, x)": "incompatible type",
    "kernels.sgd([x], [x], [()], lr=0.1)": "Missing named argument",
}


def test_mypy_sees_through_the_seam(tmp_path):
    pytest.importorskip("mypy")
    lines = [
        "import numpy as np",
        "from fastrnn._kernels import cells, dispatch",
        "x = np.zeros((1, 1, 1))",
        "kernels = dispatch.kernels(x.dtype)",
        "config = cells.CellConfig(input_size=1, hidden_size=1)",
        'packed = kernels.Packed(cells.CELLS["lstm"], config, [x])',
        "kernels.forward(packed, x, [None], None, [x], keep=True)",
        *WRONG,
    ]
    (tmp_path / "calls.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "mypy", "--strict", "calls.py", "--cache-dir", str(tmp_path)]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"MYPYPATH": str(Path(fastrnn.__file__).parents[1])},
    )  # fmt: skip
    # Of these calls: what the package imports may have no types, or may not be installed.
    errors = [
        e for e in process.stdout.splitlines() if e.startswith("calls.py:") and ": error:" in e
    ]
    first = len(lines) - len(WRONG) + 1
    for number, expected in enumerate(WRONG.values(), first):
        here = [e for e in errors if e.startswith(f"calls.py:{number}:")]
        assert any(expected in e for e in here), (lines[number - 1], process.stdout)
    assert all(int(e.split(":")[1]) >= first for e in errors), process.stdout
