"""Types of public signatures: no `Any` where a type says more, and a user's file under checkers."""

import importlib
import inspect
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastrnn

MODULES = ["losses", "optim", "callbacks", "forecast", "functional", "layouts", "schedules", "text"]

#: Signatures that say `Any`: of what is known when the program runs only.
UNKNOWN = {
    "load": "the kind of model is in the file",
    "Forecaster.predict": "as the series that were fitted: arrays, or frames of other libraries",
    "Forecaster.predict_interval": "likewise",
    "Layer.__call__": "as the forward of a layer of one's own",
    "Layer.apply": "for models: the state of any layer",
    "Layer.apply_forward": "likewise",
    "Layer.apply_backward": "for models: the tape of any layer",
    "Recurrent.apply": "for models",
    "Recurrent.apply_forward": "likewise",
    "Recurrent.apply_backward": "likewise",
    "Embedding.apply_backward": "likewise",
    "Normalization.stage": "likewise",
    "OptunaPruning.__init__": "a trial of Optuna, which may be missing",
    "quantize": "of the implementation; its overloads are exact",
}


def public() -> Iterator[tuple[str, types.FunctionType]]:
    """Yield the functions and methods of all public modules, by the class that defines them."""
    for module in [fastrnn, *(importlib.import_module(f"fastrnn.{name}") for name in MODULES)]:
        for name in getattr(module, "__all__", dir(module)):
            found = getattr(module, name)
            if isinstance(found, types.FunctionType):
                yield name, found
            for base in found.__mro__ if isinstance(found, type) else ():
                if base.__module__.startswith("fastrnn."):
                    for key, method in vars(base).items():
                        function = getattr(method, "fget", None) or inspect.unwrap(method)
                        if isinstance(function, types.FunctionType) and (
                            key[0] != "_" or key in ("__init__", "__call__")
                        ):
                            yield f"{base.__name__}.{key}", function


def test_no_signature_says_any_that_could_say_more() -> None:
    vague = {
        name
        for name, function in public()
        if name.partition(".")[0][0] != "_"
        and {"Any", "tuple[Array, Any]", "tuple[Any, Any]", "tuple[Array, Any, Any]"}
        & {str(hint) for key, hint in function.__annotations__.items() if key[0] != "*"}
        # Options by keyword may be anything; base classes of the library's own take what they get.
        and name not in ("Optimizer.__init__", "CellLayer.__init__", "Settings.set_params")
    }
    assert vague <= UNKNOWN.keys()


USER = Path(__file__).parent / "typing" / "user.py"


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_users_file_under_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    check(  # of a checkout, which it finds before what is installed, nothing is reported
        sys.executable, "-P", "-m", "mypy", "--strict", "--follow-imports", "silent",
        "--cache-dir", str(tmp_path), "--config-file", "", str(USER),
    )  # fmt: skip


def test_users_file_under_pyright() -> None:
    pytest.importorskip("basedpyright")  # pyright with its Node.js, by pip alone
    check(
        sys.executable, "-P", "-m", "basedpyright", "--level", "error",
        "--pythonpath", sys.executable, str(USER),
    )  # fmt: skip
