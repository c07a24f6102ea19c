"""The record of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn._types import Array
from fastrnn.models import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Axes in a row, at most.
_COLUMNS = 3

#: All epochs of a training of up to this many are marked by points.
_MARKED = 30

#: Curves that differ by more than this factor are drawn on a logarithmic axis.
_LOGARITHMIC = 100.0


class History:
    """Losses and metrics of each epoch.

    Attributes
    ----------
    history : dict of str to list of float
        ``"loss"``, ``"val_loss"``, and likewise each metric: one number per epoch.
    epoch : list of int
        The epochs, from 0.
    interrupted : bool
        Whether KeyboardInterrupt ended the training.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 6, 2))
    >>> y = X[:, -1, :1]
    >>> model = fastrnn.Sequential(
    ...     [fastrnn.GRU(2, 4, return_sequences=False), fastrnn.Linear(4, 1)], seed=0
    ... )
    >>> model.compile("adam", "mse")
    >>> history = model.fit(X, y, epochs=3, validation_split=0.2, verbose=0)
    >>> list(history.history), len(history.history["val_loss"])
    (['loss', 'val_loss'], 3)
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.interrupted = False

    @property
    def last(self) -> dict[str, float]:
        """The losses and metrics of the last epoch."""
        return {name: values[-1] for name, values in self.history.items()}

    def add(self, epoch: int, logs: dict[str, float]) -> None:
        """Add the `logs` of an epoch; a quantity is NaN in epochs that lack it."""
        for name in {**self.history, **logs}:
            values = self.history.setdefault(name, [math.nan] * len(self.epoch))
            values.append(logs.get(name, math.nan))
        self.epoch.append(epoch)

    def plot(self, names: str | Sequence[str] | None = None) -> Figure:
        """Plot the curves, on a logarithmic axis if they span two decades; requires matplotlib.

        Parameters
        ----------
        names : str or sequence of str, optional
            Quantities to plot, each with its validation in axes of its own. Default: all.

        Returns
        -------
        figure : matplotlib.figure.Figure
            A notebook shows it, ``matplotlib.pyplot.show()`` does so in a script, and
            ``figure.savefig(path)`` writes it.
        """
        known = [n for n, values in self.history.items() if _are_numbers(values)]
        shown = [names] if isinstance(names, str) else list(known if names is None else names)
        if not shown or any(n not in known for n in shown):
            raise ValueError(f"names: expected some of {known}, got {shown}")
        shown = [n for n in shown if n.removeprefix("val_") not in shown or n[:4] != "val_"]
        columns = min(len(shown), _COLUMNS)
        figure: Figure
        figure, grid = pictures.subplots(
            "history.plot", -(-len(shown) // columns), columns, size=(5, 3.5)
        )
        for axes, name in zip(grid, shown, strict=False):
            self._draw(axes, name)
        for axes in grid[len(shown) :]:
            axes.remove()
        return figure

    def _draw(self, axes: Any, name: str) -> None:
        from matplotlib.ticker import MaxNLocator

        epochs = np.add(self.epoch, 1)
        drawn = [n for n in (name, f"val_{name}") if n in self.history]
        curves = [np.array(self.history[n], float) for n in drawn]
        for of, values in zip(drawn, curves, strict=True):
            validation = of.startswith("val_")
            axes.plot(
                epochs,
                values,
                color=pictures.VERMILION if validation else pictures.BLUE,
                label="validation" if validation else "training",
                marker="o",
                markersize=4,
                markevery=_points(values),
            )
        if epochs.size == 1:
            axes.set_xlim(0.5, 1.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        values = np.concatenate(curves)
        values = values[np.isfinite(values)]
        if values.size and 0 < values.min() * _LOGARITHMIC < values.max():
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(frameon=False)

    def __repr__(self) -> str:
        last = {n: round(v, 4) if isinstance(v, Real) else v for n, v in self.last.items()}
        return f"History(epochs={len(self.epoch)}, last={last})"


def _are_numbers(values: list[Any]) -> bool:
    """Return whether these can be drawn: a callback may add anything."""
    return all(isinstance(v, Real) for v in values)


def _points(values: Array) -> list[int]:
    """Return which values to mark: those that no line would show, and all if they are few."""
    known = np.isfinite(values)
    beside = np.pad(known, 1)
    alone = known & ~beside[:-2] & ~beside[2:]
    return list(np.flatnonzero(known if len(values) <= _MARKED else alone))
