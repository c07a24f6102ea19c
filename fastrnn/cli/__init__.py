"""The command line: ``fastrnn demo``, ``info``, ``bench``, ``lm``, ``classify``, ``forecast``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import fastrnn
from fastrnn.cli import bench, classify, demo, forecast, lm
from fastrnn.cli.parser import Parser, add_command, one_line
from fastrnn.models.progress import tell


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the program's arguments.

    Returns
    -------
    int
        The exit code: 0, 1 if the output's pipe was closed, 2 for bad input, 130 for Ctrl-C.
    """
    if sys.stdout is None:  # closed by the shell
        sys.stdout = io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal can't show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush what is left at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, ValueError, OverflowError, MemoryError) as error:
        tell(f"fastrnn: error: {one_line(error)}")
        return 2
    except KeyboardInterrupt:
        tell("fastrnn: interrupted")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fastrnn",
        description="RNN, LSTM and GRU for CPUs.",
        epilog="`fastrnn COMMAND --help` says more about a command.",
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    parser.set_defaults(run=lambda args: parser.print_help())  # without a command
    commands = parser.add_subparsers(metavar="command")
    demo.add(commands)
    add_command(commands, "info", _info, "print version, backends, CPU features and threads")
    for module in (bench, lm, classify, forecast):
        module.add(commands)
    return parser


def _info(args: argparse.Namespace) -> None:
    fastrnn.show_config()
