"""``fastrnn bench``: compare speed with other libraries."""

from __future__ import annotations

import argparse
from typing import Any

import fastrnn
from fastrnn.cli.parser import add_command


def add(commands: Any) -> None:
    """Add the command to a parser."""
    bench = add_command(commands, "bench", _run, "compare speed with NumPy and installed libraries")
    bench.add_argument(
        "--peers",
        type=lambda names: names.split(","),
        metavar="NAME,...",
        help="a subset of reference, numpy, torch, onnxruntime (default: all that are installed)",
    )
    bench.add_argument(
        "--threads",
        type=int,
        default=fastrnn.get_num_threads(),
        help="run each library on 1 and on this many; the faster counts (default: %(default)s)",
    )
    bench.add_argument("--quick", action="store_true", help="small sizes, to check that it works")
    bench.add_argument("--json", metavar="FILE", help="write the results to this file")


def _run(args: argparse.Namespace) -> None:
    from fastrnn._bench import short

    short.run(args.peers, args.threads, args.quick, args.json)
