"""Pictures of forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array
from fastrnn.models import pictures

#: The parts of a name; times and values of the history; times and lines of the forecast: values
#: and, with an interval, lower and upper bounds.
Panel = tuple[list[Any], tuple[Any, Array], tuple[Any, list[Array]]]

#: Width of a panel, and its height alone and among others, in inches.
_WIDTH, _ALONE, _AMONG = 8.0, 4.0, 2.8


def figure(panels: Sequence[Panel], level: float | None) -> Any:
    """Return a figure with one panel per series and one legend; `level` is of the interval."""
    size = _WIDTH, _ALONE if len(panels) == 1 else _AMONG
    drawn, every = pictures.subplots("plot", len(panels), 1, size=size)
    for axes, (names, (past, values), (ahead, lines)) in zip(every, panels, strict=True):
        # The forecast starts at the last value known, so that there is no gap between them.
        times = np.concatenate([past[-1:], ahead])
        middle, *bounds = (np.concatenate([values[-1:], line]) for line in lines)
        axes.plot(past, values, color=pictures.BLACK, linewidth=1.2, label="history")
        if bounds:
            label = f"{100 * (level or 0):.4g} % interval"
            axes.fill_between(
                times, *bounds, color=pictures.BLUE, alpha=0.2, linewidth=0, label=label
            )
        axes.plot(times, middle, color=pictures.BLUE, linewidth=1.6, label="forecast")
        axes.set_ylabel(", ".join(map(str, names)))
        axes.margins(x=0.01)
        _label_dates(axes, past)
    handles, labels = every[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    return drawn


def _label_dates(axes: Any, times: Any) -> None:
    if np.asarray(times).dtype.kind == "M":
        from matplotlib import dates

        locator: Any = dates.AutoDateLocator()
        formatter: Any = dates.ConciseDateFormatter(locator)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(formatter)
