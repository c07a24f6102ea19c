"""``fastrnn bench``: a few rows in one process, against the peers that are installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastrnn import _checks
from fastrnn._bench import report
from fastrnn._bench.peers import OURS, PEERS, accepted
from fastrnn._bench.rows import Problem, Row
from fastrnn._bench.timing import paired
from fastrnn._files import atomic

#: Each class of work in realistic sizes.
ROWS = (
    Row("LSTM", "step", 32, 32, 1, 1),
    Row("LSTM", "step", 64, 128, 1, 1),
    Row("LSTM", "forward", 32, 32, 100, 1),
    Row("LSTM", "forward", 64, 128, 100, 32),
    Row("LSTM", "training", 32, 32, 100, 1),
    Row("LSTM", "training", 64, 128, 100, 32),
    Row("GRU", "forward", 64, 128, 100, 1),
    Row("GRU", "training", 32, 32, 100, 32),
    Row("RNN", "training", 32, 32, 100, 32),
)
#: The same in small sizes.
QUICK_ROWS = tuple(Row(r.cell, r.mode, 5, 9, min(r.T, 7), min(r.B, 3)) for r in ROWS)


def run(peers: Sequence[str] | None, threads: int, quick: bool, json: str | None) -> None:
    """Measure, print a table, and write it if asked.

    Parameters
    ----------
    peers : sequence of str, optional
        Names in `PEERS`. Default: all that are installed.
    threads : int
        Each library is timed with 1 and with this many threads; the better time counts.
    quick : bool
        Small sizes and short timings, as a smoke test.
    json : str, optional
        File to write.
    """
    _checks.size(threads, "threads")
    names = _chosen(peers)
    if json is not None:
        atomic.check_writable(json)
    about = {"machine": report.machine(), "peers": {n: PEERS[n].version() for n in names}}
    for name, value in {**about["machine"], "threads": f"the better of 1 and {threads}"}.items():
        print(f"{name + ':':14}{value}")
    for name, version in about["peers"].items():
        print(f"{name + ':':14}{version}")
    print()
    table = report.Table(report.heading(names), (14, 14))
    lines = []
    for line in _measured(names, threads, quick):
        lines.append(line)
        table.print(line.cells(names))
    if json is not None:
        report.write_json(json, about, lines)
        print(f"\nwrote {json}")


def _chosen(peers: Sequence[str] | None) -> list[str]:
    if peers is None:
        return [name for name, peer in PEERS.items() if not peer.missing()]
    for name in peers:
        if name not in PEERS:
            raise ValueError(f"peers: expected some of {', '.join(PEERS)}, got {name!r}")
        if missing := PEERS[name].missing():
            raise ValueError(f"peers: {name} is not installed: {', '.join(missing)} missing")
    return list(dict.fromkeys(peers))


def _measured(names: Sequence[str], threads: int, quick: bool) -> Iterator[report.Line]:
    rounds, seconds = (1, 1e-4) if quick else (5, 0.01)
    for row in QUICK_ROWS if quick else ROWS:
        problem = Problem.of(row)
        truth = problem.truth()
        of, contenders, notes = [], [], {}
        for name, peer in {"fastrnn": OURS, **{n: PEERS[n] for n in names}}.items():
            for n in sorted({1, threads}) if peer.sets_threads else (1,):
                agreeing, note = accepted(peer, problem, n, truth)
                of += [name] * len(agreeing)
                contenders += agreeing
                if note:
                    notes[name] = note
        best: dict[str, float] = {}
        for name, took in zip(of, paired(contenders, rounds, seconds), strict=True):
            best[name] = min(took, best.get(name, took))
        if "fastrnn" not in best:
            raise RuntimeError(f"{row}: our own result is refused: {notes['fastrnn']}")
        yield report.Line(row, best.pop("fastrnn"), best, notes)
