"""The command line: ``fastrnn demo``, ``info``, ``bench``, ``lm``, ``classify``, ``forecast``."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TextIO

import fastrnn
from fastrnn.cli import bench, classify, demo, forecast, lm, signals
from fastrnn.cli.parser import Parser, add_command, one_line
from fastrnn.models.progress import tell

#: What a shell says of a program that SIGPIPE ended.
_SIGPIPE = 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the program's arguments.

    Returns
    -------
    int
        The exit code: 0; 2 for bad input; where a signal ends programs, 128 and its number: 130 for
        Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 141 if the pipe of the output was closed.
    """
    if sys.stdout is None:  # closed by the shell
        sys.stdout = io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal can't show is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals.like_ctrl_c():
            args = _parser().parse_args(argv)
            args.run(args)
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_unread(sys.stdout)
        return _SIGPIPE
    except (ImportError, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError):
            _drop_unread(sys.stdout)
        tell(f"fastrnn: error: {one_line(error)}")
        return 2
    except KeyboardInterrupt as error:
        tell("fastrnn: interrupted")
        return 128 + (error.number if isinstance(error, signals.Ended) else signal.SIGINT)
    finally:
        if isinstance(sys.stderr, io.TextIOWrapper) and not sys.stderr.closed:
            _drop_unread(sys.stderr)
    return 0


def _drop_unread(stream: TextIO) -> None:
    """Drop what a stream does not take: Python would flush it at exit, and fail again."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
