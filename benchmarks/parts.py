"""The parts of training other than recurrent layers: times of fastrnn, torch and NumPy.

python benchmarks/parts.py                                    needs nothing; torch if installed
python benchmarks/parts.py --rows 'Adam*,Linear*' --dtype float64 --json out.json

As in grid.py, each library runs in processes of its own, in turn, and its better number of threads
counts, by the median; a peer whose results disagree with the float64 reference is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from part_peers import ALL, LOSSES, OPTIMIZERS, Problem, Row
from workers import compared, options, started

from fastrnn._bench import report

#: (I, H) of LSTMs.
_MODELS = [(64, 128), (512, 512)]
#: (in, out, rows): characters of a batch of 32 sequences of 50, and a wide layer.
_LINEAR = [(128, 65, 1600), (512, 512, 32)]
#: Logits of the same characters, and of words.
_LOGITS = [(1600, 65), (256, 10_000)]
_ERRORS = [(32, 1), (1600, 65)]
_TABLE = (50_000, 64, 1600)
ROWS = [
    *(Row(n, mode, IH) for n in OPTIMIZERS for mode in ("step", "clipped") for IH in _MODELS),
    *(Row(n, "loss", s) for n in LOSSES for s in (_LOGITS if n == "cross_entropy" else _ERRORS)),
    *(Row("Linear", mode, size) for mode in ("forward", "training") for size in _LINEAR),
    *(Row("Embedding", mode, _TABLE) for mode in ("forward", "training")),
]


def chosen(patterns: str) -> list[Row]:
    """Return the rows whose names match any of the patterns."""
    matching = [row for row in ROWS if any(fnmatchcase(row.name, p) for p in patterns.split(","))]
    if not matching:
        names = dict.fromkeys(row.name for row in ROWS)
        raise argparse.ArgumentTypeError(f"{patterns!r} matches none of {', '.join(names)}")
    return matching


def cells(first: Sequence[str], threads: str) -> list[str]:
    """Return table cells: those of a line, and our threads."""
    return [*first[:3], threads, *first[3:]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=chosen, default=ROWS, help="patterns of names, such as 'Adam*,Linear*'"
    )
    args = options(parser, ALL)
    if args.quick:
        args.rows = list({row.name: row for row in reversed(args.rows)}.values())[::-1]
    with started("part_peers", args) as (workers, versions):
        peers = [name for name in args.peers if versions[name] != "not installed"]
        machine = report.machine() | {"threads": f"the better of {args.threads}"}
        for name, value in (machine | versions).items():
            print(f"{name + ':':14}{value}")
        print()
        table = report.Table(cells(report.heading(peers, "size"), "threads"), (26, 14, 11, 7))
        lines = []
        for row in args.rows:
            times = compared(Problem.of(replace(row, dtype=args.dtype)), workers, args)
            line = times.line("fastrnn", peers)
            lines.append(line)
            table.print(cells(line.cells(peers), str(line.details["threads"])))
    if args.json:
        report.write_json(args.json, {"machine": machine, "versions": versions}, lines)


if __name__ == "__main__":
    main()
