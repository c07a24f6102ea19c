"""Pictures of forecasts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn._types import Array

#: Colours that differ for the colour-blind too (Okabe and Ito 2008).
_SERIES, _FORECAST = "#404040", "#0072B2"

#: Panels of several series are this wide and high, in inches.
_WIDTH, _HEIGHT = 8.0, 2.4


#: The parts of a name; times and values of the history; times and lines of the forecast: values
#: and, with an interval, lower and upper bounds.
Panel = tuple[list[Any], tuple[Any, Array], tuple[Any, list[Array]]]


def figure(panels: Sequence[Panel], level: float | None) -> Any:
    """Return a figure with one panel per series and one legend; `level` is of the interval."""
    count = len(panels)
    drawn = _figure_class()(figsize=(_WIDTH, 1.2 + _HEIGHT * count), layout="constrained")
    every = drawn.subplots(count, 1, squeeze=False)[:, 0]
    for axes, (names, (past, values), (ahead, lines)) in zip(every, panels, strict=True):
        # The forecast starts at the last value known, so that there is no gap between them.
        times = np.concatenate([past[-1:], ahead])
        middle, *bounds = (np.concatenate([values[-1:], line]) for line in lines)
        axes.plot(past, values, color=_SERIES, linewidth=1.2, label="history")
        if bounds:
            axes.fill_between(
                times, *bounds, color=_FORECAST, alpha=0.2, linewidth=0,
                label=f"{100 * (level or 0):.4g} % interval",
            )  # fmt: skip
        axes.plot(times, middle, color=_FORECAST, linewidth=1.6, label="forecast")
        axes.set_ylabel(", ".join(map(str, names)))
        axes.margins(x=0.01)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        _dates(axes, past)
    handles, labels = every[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    return drawn


def _figure_class() -> Any:
    """Return a class of figures that a notebook shows once, whether or not it uses pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot needs matplotlib: pip install 'fastrnn[plot]'") from None

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return ShownFigure


def _dates(axes: Any, times: Any) -> None:
    if np.asarray(times).dtype.kind == "M":
        from matplotlib import dates

        locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
        formatter: Any = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(formatter)
