"""Progress of a training, shown on stderr."""

from __future__ import annotations

import math
import sys
from typing import Any, Self

from fastrnn.models.progress import bar
from fastrnn.text._training import Record

#: Where stderr is no terminal, a line of progress is printed this often.
_SECONDS_PER_LINE = 5.0


class Progress:
    """Progress on stderr: a bar on a terminal, else lines."""

    def __init__(self, verbose: int) -> None:
        self.bar: Any = None
        self.lines = bool(verbose) and not sys.stderr.isatty()
        self.next_line = 0.0
        self.bits = ""
        self.line = ""
        if verbose and not self.lines:
            self.bar = bar("{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {desc}", total=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        self.print_line()

    def show(self, done: float, seconds: float, characters: int, loss: float) -> None:
        said = f"loss {loss:.3f}{self.bits}, {characters / seconds:,.0f} char/s"
        if self.bar is not None:
            self.bar.set_description_str(said, refresh=False)
            self.bar.update(done - self.bar.n)
        if self.lines:
            self.line = f"{done:4.0%} {seconds:6.1f} s  {said}"
            if seconds >= self.next_line:
                self.next_line = seconds + _SECONDS_PER_LINE
                self.print_line()

    def print_line(self) -> None:
        if self.line:
            print(self.line, file=sys.stderr, flush=True)
        self.line = ""

    def record(self, record: Record) -> None:
        if not math.isnan(record.validation_bits):
            self.bits = f", validation {record.validation_bits:.3f} bits/char"
