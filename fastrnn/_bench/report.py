"""Measurements as tables and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fastrnn._bench.rows import Work
from fastrnn._core import config
from fastrnn._files import atomic


@dataclass(frozen=True)
class Line:
    """The measurements of a row.

    Attributes
    ----------
    row : Work
    ours : float
        Seconds per call of fastrnn.
    peers : dict of str to float
        Seconds per call of each peer.
    notes : dict of str to str
        Problems of a peer, as ``word: details``.
    errors : dict of str to float
        The largest difference of the results of each, and of ours, from float64.
    details : dict
        Anything else to be written.
    name : str
        Which of fastrnn's ways is ours.
    """

    row: Work
    ours: float
    peers: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    name: str = "fastrnn"

    def ratio(self, peer: str) -> float:
        """Return the peer's time over ours."""
        return self.peers[peer] / self.ours

    @property
    def best(self) -> str | None:
        """Name of the fastest peer."""
        return min(self.peers, key=self.peers.__getitem__, default=None)

    def cells(self, peers: Iterable[str]) -> list[str]:
        """Return table cells: row, our time, the ratio to the best peer, and each peer's time."""
        best = self.best
        return [
            self.row.name,
            self.row.shape,
            duration(self.ours),
            "" if best is None else f"{self.ratio(best):.2f}",
            *(
                duration(self.peers[name])
                if name in self.peers
                else self.notes.get(name, "-").partition(":")[0]
                for name in peers
            ),
        ]


def heading(peers: Iterable[str], shape: str = "I,H,T,B") -> list[str]:
    """Return the column headings of :meth:`Line.cells`."""
    return ["", shape, "fastrnn", "best peer / ours", *peers]


def duration(seconds: float) -> str:
    """Format with three digits, in microseconds or milliseconds."""
    scaled, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:,.{digits}f} {unit}"


class Table:
    """A table that is printed row by row.

    Parameters
    ----------
    heading : sequence of str
    widths : sequence of int, optional
        Least widths of the first columns.
    """

    def __init__(self, heading: Sequence[str], widths: Sequence[int] = ()) -> None:
        least = [*widths, *[11] * (len(heading) - len(widths))]
        self.widths = [max(len(h), w) for h, w in zip(heading, least, strict=True)]
        self.print(heading)

    def print(self, cells: Sequence[str]) -> None:
        """Print a row, the first column left-aligned."""
        padded = [
            c.rjust(w) if n else c.ljust(w)
            for n, (c, w) in enumerate(zip(cells, self.widths, strict=True))
        ]
        print("  ".join(padded).rstrip(), flush=True)


def machine() -> dict[str, str]:
    """Return CPU, Python and what :func:`fastrnn.show_config` prints."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            named = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        cpu = named[0] if named else cpu
    here = {"CPU": f"{cpu}, {config.available_cpus()} for us", "python": platform.python_version()}
    return here | config.config()


def write_json(path: str, about: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """Write the measurements; times are in seconds."""
    rows = [asdict(line) for line in lines]
    text = json.dumps({**about, "lines": rows}, indent=1)
    atomic.save(path, lambda path: atomic.write(path, text.encode() + b"\n"), "the report")
