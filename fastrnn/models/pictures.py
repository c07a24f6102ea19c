"""Figures, drawn with matplotlib where it is installed."""

from __future__ import annotations

from functools import partial
from typing import Any

#: Colours that differ for the colour-blind, too (Okabe and Ito 2008).
BLUE, VERMILION, BLACK = "#0072B2", "#D55E00", "#404040"


def subplots(
    what: str, rows: int, columns: int, size: tuple[float, float]
) -> tuple[Any, list[Any]]:
    """Return a figure of pyplot, and its axes.

    Parameters
    ----------
    what : str
        What needs matplotlib, for the message where it is missing.
    rows, columns : int
    size : pair of float
        Width and height of each of the axes, in inches.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Scripts show it by ``matplotlib.pyplot.show()``; notebooks do so by themselves, and only
        once, also where it is the value of a cell.
    axes : list of matplotlib.axes.Axes
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(f"{what} needs matplotlib: pip install 'fastrnn[plot]'") from None
    figure: Any
    figure, grid = pyplot.subplots(
        rows,
        columns,
        squeeze=False,
        figsize=(size[0] * columns, size[1] * rows),
        layout="constrained",
    )
    figure._ipython_display_ = partial(_show_once, figure)
    for axes in grid.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(grid.flat)


def _show_once(figure: Any) -> None:
    """Show a figure by one of two ways: as a cell's value, or by pyplot at the end of the cell."""
    from IPython import get_ipython
    from matplotlib import pyplot

    cell = get_ipython().execution_count
    if pyplot.fignum_exists(figure.number) and getattr(figure, "_shown_in", None) == cell:
        return
    figure._shown_in = cell
    raise NotImplementedError  # IPython then shows it as it shows all figures.
