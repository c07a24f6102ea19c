"""``fastrnn bench``: compare speed with other libraries, or bits between instruction sets."""

from __future__ import annotations

import argparse
from typing import Any

import fastrnn
from fastrnn import _checks
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
    bits = bench.add_argument_group(
        "the same bits",
        "random configurations on every backend that promises the same bits",
    )
    bits.add_argument(
        "--bits", type=int, metavar="COUNT", nargs="?", const=10_000,
        help="compare these many configurations instead of speed (without COUNT: %(const)s)",
    )  # fmt: skip
    bits.add_argument("--save", metavar="FILE", help="write the hashes of their results")
    bits.add_argument(
        "--check", metavar="FILE", help="compare this backend with hashes from another machine"
    )


def _run(args: argparse.Namespace) -> None:
    if args.bits is None and args.check is None and args.save is not None:
        raise ValueError("--save: expected with --bits, of which it writes the hashes")
    if args.bits is not None or args.check is not None:
        from fastrnn._bench import bits

        if args.json is not None:
            raise ValueError("--json: expected without --bits and --check, which are no timings")
        if args.bits is not None:
            _checks.size(args.bits, "--bits")
        if not bits.report(args.bits, args.save, args.check):
            raise ValueError("results differ: see above")
        return
    from fastrnn._bench import short

    short.run(args.peers, args.threads, args.quick, args.json)
