"""Draws ``docs/results`` into ``docs/pictures`` before Sphinx reads its sources."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

#: Readable on a light and on a dark page.
OURS, PEER, LIMIT = "#2f7ed8", "#9aa5b1", "#c0392b"
GATES = 4  # of an LSTM


def rows_of(folder: Path, call: str) -> list[dict[str, Any]]:
    """Return the rows of the table for a kind of call."""
    with (folder / "lstm_float32.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["call"] == call]


def work(row: dict[str, Any], passes: int) -> float:
    """Return the floating-point operations of a row; backpropagation has two more products."""
    I, H, T, B = (int(row[n]) for n in "IHTB")
    return passes * 2 * T * B * GATES * H * (I + H)


def loaded(row: dict[str, Any], limits: dict[str, Any]) -> float:
    """Return the least time of a step in us: that of loading the weights, on all cores."""
    I, H = int(row["I"]), int(row["H"])
    size = 4 * GATES * H * (I + H)
    level = "L1" if size <= 32 * 1024 else "L2" if size <= 1024**2 else "L3"
    return size / limits["loads"][level] / 1e3 / (1 if level == "L1" else limits["cores"])


def bars(axes: Any, rows: list[dict[str, Any]], value: Any) -> None:
    """Draw two bars for each row: ours, and the best peer's with its name."""
    labels = []
    for at, row in enumerate(rows):
        ours, peer = value(row, float(row["fastrnn, us"])), value(row, float(row["its time, us"]))
        axes.barh(at - 0.2, ours, 0.38, color=OURS, label="fastrnn" if not at else None)
        axes.barh(at + 0.2, peer, 0.38, color=PEER, label="best peer" if not at else None)
        axes.text(peer, at + 0.2, f" {row['best peer']}", va="center", fontsize=8, color="#666")
        sizes = [row[n] for n in "IHTB"]
        labels.append(", ".join(sizes if row["call"] != "step" else sizes[:2]))
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def steps(axes: Any, folder: Path, limits: dict[str, Any]) -> None:
    """Draw the times of a step."""
    rows = rows_of(folder, "step")
    bars(axes, rows, lambda row, us: us)
    for at, row in enumerate(rows):
        least = loaded(row, limits)
        label = "limit: loading the weights" if not at else None
        axes.plot([least] * 2, [at - 0.42, at + 0.42], color=LIMIT, label=label)
    axes.set(xscale="log", xlim=(0.01, 300), ylabel="I, H")
    axes.set_xlabel("us a step, log scale: shorter is better")
    axes.xaxis.set_major_formatter("{x:g}")


def speeds(axes: Any, folder: Path, limits: dict[str, Any], call: str, passes: int) -> None:
    """Draw operations per second, and what the cores can do."""
    bars(axes, rows_of(folder, call), lambda row, us: work(row, passes) / us / 1e3)
    peak = limits["multiply_adds"]["value"] * limits["cores"]
    axes.axvline(peak, color=LIMIT, label=f"limit: {peak} GFLOP/s on {limits['cores']} cores")
    axes.set(xlabel="GFLOP/s: longer is better", ylabel="I, H, T, B", xlim=(0, peak * 1.12))


def draw(app: Any) -> None:
    """Draw all pictures."""
    from matplotlib.figure import Figure

    folder = Path(app.srcdir) / "results"
    limits = json.loads((folder / "limits.json").read_text(encoding="utf-8"))
    target = Path(app.srcdir) / "pictures"
    target.mkdir(exist_ok=True)
    for name, plot, options in (
        ("steps", steps, {}),
        ("forward", speeds, {"call": "forward", "passes": 1}),
        ("training", speeds, {"call": "training", "passes": 3}),
    ):
        figure = Figure(figsize=(7.2, 3.9), layout="constrained")
        axes = figure.add_subplot()
        plot(axes, folder, limits, **options)
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        figure.savefig(target / f"{name}.svg", metadata={"Date": None})


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True}
