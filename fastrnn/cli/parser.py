"""Parsers of the commands' options."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NoReturn

from fastrnn.models.estimators import CELLS

#: The option ``--cell``, for :func:`add_options`.
CELL = ("cell", str, f"one of {', '.join(CELLS)}")


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of exiting, so that errors are reported in one place."""

    _mixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options and files in any order, which argparse does not by itself."""
        # The method below calls this one, and loses what follows a "--".
        if self._subparsers is not None or self._mixed or "--" in args:
            return super().parse_known_args(args, namespace)
        self._mixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixed = False

    def error(self, message: str) -> NoReturn:
        """Raise ValueError."""
        raise ValueError(f"{message} (see {self.prog} --help)")


def add_command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a command that is run by `run`, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def one_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())


def number(text: str, expected: str = "a number") -> float:
    """Return an option's value as a float."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None


def add_options(parser: argparse.ArgumentParser, of: Any, *rows: tuple[str, Any, str]) -> None:
    """Add options for fields of a dataclass; `max_seconds` is ``--seconds``.

    Those that are not given are not among the parsed arguments.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(of)}
    for name, kind, text in rows:
        flag = "--" + name.replace("max_seconds", "seconds").replace("_", "-")
        shown = text if defaults[name] is None else f"{text} (default: {defaults[name]})"
        parser.add_argument(flag, type=kind, dest=name, default=argparse.SUPPRESS, help=shown)


def given(of: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return the values passed on the command line for fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(of) if field.init}
    return {name: value for name, value in vars(args).items() if name in names}
