"""Times and errors of fastrnn and of every installed peer, over one grid of work.

python benchmarks/grid.py                                     all rows: hours
python benchmarks/grid.py --rows 'lstm-*' --peers torch,onnxruntime --json out.json
python benchmarks/grid.py --rows '*-batch,*-training' --backend avx2 --precisions float32

fastrnn and each peer run in processes of their own, one per number of threads. They are timed in
turn, one at a time, for several rounds; the median at each one's better number of threads counts.

Each row has a line for each precision of matrix products, with all that compute in it; where there
is no peer, with those of any precision. Last come the fastest of any precision whose errors are
under 1 %. Errors are beside the times: the largest difference of outputs, and in training of
gradients, from the float64 NumPy reference, as a part of the largest entry of the array. A peer
whose float32 results disagree with it is refused.

"of limit" is the fraction of the cores' float32 or float64 peak that fastrnn reaches, timed in the
same rounds: multiply-adds or, for inference of one sequence, loads of its weights from the cache
they fit in. "at the limit" is what the least ratio and the mean would be if fastrnn reached the
peak in all rows.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import limits
from peers import ALL
from workers import Worker, compared, options, started

import fastrnn
from fastrnn._bench import report
from fastrnn._bench.rows import DEFAULTS, Problem, Row

#: I, H, T, B.
SIZES = {
    "step": [(8, 16, 1, 1), (32, 32, 1, 1), (64, 128, 1, 1), (128, 256, 1, 1), (256, 512, 1, 1)],
    "sequence": [(8, 16, 100, 1), (32, 32, 100, 1), (64, 128, 100, 1), (256, 512, 50, 1)],
    "batch": [(32, 32, 100, 32), (64, 128, 100, 32), (256, 256, 50, 64), (512, 512, 35, 20)],
}
SIZES["training"] = SIZES["sequence"][:3] + SIZES["batch"]
_ODD = [((H + 1) // 2, H) for H in (20, 37, 50, 100, 200)]
_ODD_BATCH = [(*IH, 50, B) for IH in _ODD for B in (5, 7, 13, 100)]
SIZES |= {
    "odd-step": [(*IH, 1, 1) for IH in _ODD],
    "odd-sequence": [(*IH, 100, 1) for IH in _ODD],
    "odd-batch": _ODD_BATCH,
    "odd-training": [(*IH, 50, 1) for IH in _ODD] + _ODD_BATCH,
    # The batch is a multiple of all register tiles, to show how near they come to the limit.
    "tiles": [(256, 256, 50, 64), (512, 512, 35, 24)],
    "tiles-training": [(256, 256, 50, 64), (512, 512, 35, 24)],
}


def _mode(of: str) -> str:
    kind = of.rpartition("-")[2]
    return kind if kind in ("step", "training") else "forward"


CLASSES = {
    f"{cell.lower()}-{of}": [Row(cell, _mode(of), *size) for size in sizes]
    for cell in DEFAULTS
    for of, sizes in SIZES.items()
}


PRECISIONS = ("float32", "bfloat16", "int8")
#: Lines of "any" precision have what is off by less.
ERROR = 0.01


@dataclass(frozen=True)
class Goal:
    """Goals for the ratios of some classes: the least one and the geometric mean.

    They are those of layers with `units` or more, and of one precision, by default the rows' dtype.
    """

    name: str
    classes: str
    least: float
    mean: float
    peer: str | None = None
    precision: str | None = None
    units: int = 0


_INFERENCE = ("step", "sequence", "batch")
GOALS = [
    Goal("LSTM step", "lstm-step", 1.2, 7),
    Goal("LSTM one sequence", "lstm-sequence", 1.2, 2.2),
    Goal("LSTM batch", "lstm-batch", 1.05, 1.4),
    Goal("LSTM training", "lstm-training", 1.2, 3),
    Goal(
        "GRU and RNN inference",
        ",".join(f"{cell}-{of}" for cell in ("gru", "rnn") for of in _INFERENCE),
        1.05,
        2.5,
    ),
    Goal("GRU and RNN training", "gru-training,rnn-training", 2, 4),
]
GOALS += [
    replace(
        goal,
        name=f"{goal.name}, odd sizes",
        classes=",".join(name.replace("-", "-odd-") for name in goal.classes.split(",")),
        mean=0,
    )
    for goal in GOALS
]
GOALS += [
    Goal("everything over the plain loop", "*", 2.5, 20, "numpy"),
    Goal("batch and training over torch held to AVX2", "*-batch,*-training", 1, 0, "torch-avx2"),
    Goal(
        "bfloat16, batch and training, 256 units or more", "*-batch,*-training", 1.1, 0,
        precision="bfloat16", units=256,
    ),
    Goal("int8, step and one sequence", "*-step,*-sequence", 1, 0, precision="int8"),
    Goal("int8, batch", "*-batch", 1.15, 0, precision="int8"),
    Goal(f"any precision, errors under {ERROR:.0%}", "*", 1, 0, precision="any"),
]  # fmt: skip


def chosen(patterns: str) -> list[str]:
    """Return the names of classes that match any of the patterns."""
    names = [n for n in CLASSES if any(fnmatchcase(n, p) for p in patterns.split(","))]
    if not names:
        raise argparse.ArgumentTypeError(f"{patterns!r} matches none of {', '.join(CLASSES)}")
    return names


class Limits:
    """Timings of the cores' peak for a row; empty without a compiler."""

    def __init__(self, row: Row, threads: Sequence[int]) -> None:
        width = limits.WIDTHS.get(fastrnn.backend(), 16)
        self.row = row
        self.loads = row.B == 1 and row.mode != "training"
        if self.loads:
            measures = {n: limits.loads(width, row.step_bytes // n) for n in threads}
        else:
            measures = dict.fromkeys(threads, limits.multiply_adds(width, row.dtype))
        self.measures = {n: m for n, m in measures.items() if m is not None}
        self.rates: dict[int, list[float]] = {n: [] for n in self.measures}
        self.calls = {n: m[0].calls_for(0.02) for n, m in self.measures.items()}

    def time(self) -> None:
        """Time the peak once."""
        for n, (contender, amount) in self.measures.items():
            self.rates[n].append(limits.rate(contender, amount, self.calls[n], n))

    def seconds(self) -> dict[int, float]:
        """Return the least time of the row on this many cores, each with its part of the work."""
        amount = self.row.step_bytes * self.row.T if self.loads else self.row.flops
        return {n: amount / (n * max(rates)) for n, rates in self.rates.items()}


def _precisions(names: str) -> list[str]:
    if not {*names.split(",")} <= {*PRECISIONS}:
        raise argparse.ArgumentTypeError(f"{names!r}: expected some of {', '.join(PRECISIONS)}")
    return names.split(",")


def precision(name: str, dtype: str) -> str:
    """Return the precision in which a peer, or fastrnn, computes products of rows of a dtype."""
    return ALL[name].precision or dtype


def _ours_and_peers(names: Iterable[str]) -> tuple[list[str], list[str]]:
    both: tuple[list[str], list[str]] = ([], [])
    for name in names:
        both[not name.startswith("fastrnn")].append(name)
    return both


def measured(
    name: str, row: Row, workers: list[Worker], args: argparse.Namespace
) -> Iterator[report.Line]:
    """Time a row in all workers in turn, and the cores' peak; yield a line for each precision."""
    limit = Limits(row, sorted({worker.threads for worker in workers}))
    times = compared(Problem.of(row), workers, args, limit.time)
    right = [of for of, error in times.errors.items() if error < ERROR]
    kinds = {
        kind: [of for of in args.names if precision(of, row.dtype) == kind]
        for kind in args.precisions
    }
    if len(kinds) > 1:
        kinds["any"] = right
    for kind, names in kinds.items():
        ours, peers = _ours_and_peers(names)
        timed = [of for of in ours if of in times.medians]
        if not timed and kind != row.dtype:
            for of in ours:
                if of in times.notes:
                    print(f"{row.name} {row.shape}: {of} {times.notes[of]}")
            continue
        if kind != row.dtype and not any(of in times.medians for of in peers):
            _, peers = _ours_and_peers(right)
        line = times.line(min(timed, key=times.best, default="fastrnn"), peers)
        line.details.update({"class": name, "precision": kind})
        if kind == row.dtype:
            least, threads = limit.seconds(), line.details["threads"]
            line.details.update(
                {
                    "limit": "loads" if limit.loads else "multiply-adds",
                    "limit per second and core": {n: max(r) for n, r in limit.rates.items()},
                    "of limit": least[threads] / line.ours if threads in least else None,
                    "seconds at the limit": min(least.values(), default=None),
                }
            )
        yield line


#: Columns of the tables, and least widths of the first.
HEADING = [
    "", "I,H,T,B", "precision", "fastrnn", "error", "threads", "best peer / ours", "of limit",
    "peers, fastest first, and their errors",
]  # fmt: skip
_WIDTHS = (14, 14, 9, 11, 7, 7)


def cells(line: report.Line) -> list[str]:
    """Return the cells of a line."""
    fraction = line.details.get("of limit")
    what = "load" if line.details.get("limit") == "loads" else "fma"
    peers = [
        f"{name} {report.duration(line.peers[name])} ({line.errors[name]:.0e})"
        for name in sorted(line.peers, key=line.peers.__getitem__)
    ]
    peers += [
        f"{name} {note.partition(':')[0]}"
        for name, note in line.notes.items()
        if name not in line.peers
    ]
    return [
        line.row.name,
        line.row.shape,
        precision(line.name, line.row.dtype),
        report.duration(line.ours),
        f"{line.errors[line.name]:.0e}",
        str(line.details["threads"]),
        "" if line.best is None else f"{line.ratio(line.best):.2f}",
        "" if fraction is None else f"{fraction:.0%} {what}",
        ", ".join(peers),
    ]


def summary(lines: Sequence[report.Line]) -> Iterator[list[str]]:
    """Yield cells of the summary, a line for each goal with measurements."""
    yield [
        "peer / ours", "rows", "least", "goal", "geometric mean", "goal", "at the limit", "least at"
    ]  # fmt: skip
    for goal in GOALS:
        of = [
            line
            for line in lines
            if line.details["class"] in chosen(goal.classes)
            and line.details["precision"] == (goal.precision or line.row.dtype)
            and goal.units <= line.row.H
        ]
        ratios = [
            (line.ratio(peer), line)
            for line in of
            if (peer := goal.peer or line.best) is not None and peer in line.peers
        ]
        if ratios:
            least, line = min(ratios, key=lambda pair: pair[0])
            most = [
                line.ours / at_limit * ratio
                for ratio, line in ratios
                if (at_limit := line.details.get("seconds at the limit")) is not None
            ]
            yield [
                goal.name,
                str(len(ratios)),
                f"{least:.2f}",
                f"{goal.least:g}",
                f"{statistics.geometric_mean(ratio for ratio, _ in ratios):.2f}",
                f"{goal.mean:g}" if goal.mean else "",
                f"{min(most):.2f} {statistics.geometric_mean(most):.2f}" if most else "",
                f"{line.row.name} {line.row.shape}",
            ]


def beside(lines: Sequence[report.Line]) -> Iterator[list[str]]:
    """Yield cells of a table with a line for each row, the precisions beside each other."""
    kinds = list(dict.fromkeys(line.details["precision"] for line in lines))
    yield ["", "I,H,T,B", *(head for kind in kinds for head in (kind, "best peer"))]
    by_row: dict[tuple[str, str], dict[str, report.Line]] = {}
    for line in lines:
        of = by_row.setdefault((line.row.name, line.row.shape), {})
        of[line.details["precision"]] = line
    for row, of in by_row.items():
        pairs = [_pair(of[kind], kind) if kind in of else ("", "") for kind in kinds]
        yield [*row, *(cell for pair in pairs for cell in pair)]


def _pair(line: report.Line, kind: str) -> tuple[str, str]:
    """Return our time, and the best peer's with its ratio to ours."""
    ours = report.duration(line.ours)
    if kind == "any":
        ours += f", {precision(line.name, line.row.dtype)}"
    if line.best is None:
        return ours, ""
    time, ratio = report.duration(line.peers[line.best]), line.ratio(line.best)
    return ours, f"{line.best} {time} ({ratio:.{0 if ratio > 10 else 1 if ratio > 2 else 2}f})"


def markdown(rows: Iterable[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def draw(lines: Sequence[report.Line], peers: Sequence[str], path: str) -> None:
    """Plot each peer's time over ours, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.22 * len(lines)), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", xlabel="peer's time / ours (right of 1: ours is faster)"
    )
    for name, marker in zip(peers, "os^vD<>Px*" * len(peers), strict=False):
        points = [(line.ratio(name), n) for n, line in enumerate(lines) if name in line.peers]
        if points:
            axes.plot(*zip(*points, strict=True), marker, label=name)
    axes.axvline(1, color="black")
    labels = [f"{x.row.name} {x.row.shape} {x.details['precision']}" for x in lines]
    axes.set_yticks(range(len(lines)), labels)
    axes.grid(alpha=0.3)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=chosen, default=list(CLASSES), help=f"patterns of {', '.join(CLASSES)}"
    )
    parser.add_argument(
        "--precisions", type=_precisions, default=PRECISIONS, metavar="NAME,...",
        help=f"some of {', '.join(PRECISIONS)}, of rows of float32",
    )  # fmt: skip
    parser.add_argument("--markdown", metavar="FILE")
    parser.add_argument("--picture", metavar="FILE", help="needs matplotlib")
    args = options(parser, ALL)
    if args.dtype == "float64":
        args.precisions = ["float64"]
    args.names = [n for n in args.names if precision(n, args.dtype) in args.precisions]
    with started("peers", args) as (workers, versions):
        machine = report.machine() | {"threads": f"the better of {args.threads}"}
        about = machine | versions
        for name, value in about.items():
            print(f"{name + ':':20}{value}")
        print()
        table = report.Table(HEADING, _WIDTHS)
        lines: list[report.Line] = []
        for name in args.rows:
            for row in CLASSES[name][: 1 if args.quick else None]:
                for line in measured(name, replace(row, dtype=args.dtype), workers, args):
                    lines.append(line)
                    if line.details["precision"] != "any":
                        table.print(cells(line))
    tables = [
        [cells(line) for line in lines if (line.details["precision"] == "any") == fastest]
        for fastest in (False, True)
    ]
    if tables[1]:
        print(f"\nThe fastest of any precision with errors under {ERROR:.0%}:\n")
        table = report.Table(HEADING, _WIDTHS)
        for row_cells in tables[1]:
            table.print(row_cells)
    print()
    head, *body = summary(lines)
    table = report.Table(head, (44, 4, 7, 5, 14, 5, 30))
    for line in body:
        table.print(line)
    if args.json:
        report.write_json(args.json, {"machine": machine, "versions": versions}, lines)
    if args.markdown:
        with open(args.markdown, "w", encoding="utf-8") as file:
            file.write(markdown([("", ""), *about.items()]) + "\n")
            file.write(markdown(beside(lines)) + "\n")
            for rows in filter(None, tables):
                file.write(markdown([HEADING, *rows]) + "\n")
            file.write(markdown([head, *body]))
    if args.picture:
        draw(lines, args.peers, args.picture)


if __name__ == "__main__":
    main()
