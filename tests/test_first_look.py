"""What is met first: names, help and the command, also where no extra is installed."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import fastrnn
from fastrnn.cli import main

EXTRAS = ["IPython", "h5py", "matplotlib", "onnx", "pandas", "polars", "scipy", "sklearn", "torch"]

#: Before other code: hides what the extras install.
BARE = f"import sys; sys.modules |= dict.fromkeys({EXTRAS})"


def run(code: str, *options: str) -> str:
    command = [sys.executable, "-P", *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_public_names() -> None:
    names = fastrnn.__all__
    assert names == sorted(set(names))
    assert {"LSTM", "Sequential", "load", "use_backend", "optim", "text"} < {*names}
    assert {*fastrnn.layers.__all__} < {*names}
    for name in vars(fastrnn):
        assert name in names or name[0] == "_" or name in ("cli", "models", *fastrnn._EXTRAS)
    assert {*names, *fastrnn._EXTRAS} < {*dir(fastrnn)}


def test_editors_know_the_modules_that_are_imported_late() -> None:
    source = inspect.getsource(fastrnn)
    for name in fastrnn._LAZY | fastrnn._EXTRAS:
        assert f"    from fastrnn import {name} as {name}\n" in source


def test_a_star_import_hides_no_package() -> None:
    names: dict[str, object] = {}
    exec("from fastrnn import *", names)
    del names["__builtins__"]
    assert sorted(names) == fastrnn.__all__
    assert not {*names} & {"keras", "onnx", "sklearn", "torch", "Any", "np", "models"}


def test_looking_raises_nothing_in_a_bare_install() -> None:
    code = f"""{BARE}
import inspect, pydoc
import fastrnn

members = dict(inspect.getmembers(fastrnn))
assert members["LSTM"] is fastrnn.LSTM
assert not any(hasattr(fastrnn, extra) for extra in ("onnx", "sklearn", "torch"))
assert hasattr(fastrnn, "text")
shown = pydoc.plaintext.document(fastrnn)
for name in fastrnn.__all__:
    value = getattr(fastrnn, name)
    assert inspect.ismodule(value) or f" {{name}}(" in shown, name
    if inspect.ismodule(value):
        pydoc.plaintext.document(value), dir(value), inspect.getmembers(value)
from fastrnn import *
print(shown)
"""
    first = run(code).strip().splitlines()
    assert first[1].startswith("    fastrnn - RNN, LSTM and GRU")
    assert any(">>> y, (h, c) = lstm(x)" in line for line in first[:20])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import fastrnn.{0}", "ImportError"),
        ("from fastrnn import {0}", "ImportError"),
        ("from fastrnn.{0} import anything", "ImportError"),
        ("import fastrnn; fastrnn.{0}.anything", "AttributeError"),
    ],
)
@pytest.mark.parametrize(
    ("extra", "remedy"),
    [
        ("onnx", "onnx: pip install 'fastrnn[onnx]'"),
        ("sklearn", "scikit-learn: pip install 'fastrnn[sklearn]'"),
        ("torch", "PyTorch: https://pytorch.org/get-started/locally"),
    ],
)
def test_a_missing_extra_is_named(extra: str, remedy: str, code: str, error: str) -> None:
    said = run(f"{BARE}\ntry: {code.format(extra)}\nexcept {error} as e: print(e)")
    assert said == f"fastrnn.{extra} needs {remedy}\n"


def test_objects_say_what_they_are() -> None:
    made = [
        fastrnn.callbacks.EarlyStopping(patience=3),
        fastrnn.callbacks.ProgressBar(),
        fastrnn.callbacks.Callback(),
        fastrnn.GRU(2, 3).stream(4),
        fastrnn.Sequential([fastrnn.GRU(2, 3)]).stream(4),
    ]
    assert list(map(repr, made)) == [
        "EarlyStopping(monitor='val_loss', mode='auto', patience=3, min_delta=0.0, "
        "restore_best_weights=False)",
        "ProgressBar(batches=True)",
        "Callback()",
        "Stream(batch_size=4)",
        "ModelStream(batch_size=4)",
    ]


def test_without_docstrings() -> None:
    run("import fastrnn, fastrnn.cli; fastrnn.cli.main(['--version'])", "-OO")


def test_the_command_alone_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: fastrnn")
    assert "forecast" in out
    assert err == ""
