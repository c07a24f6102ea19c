"""The record of a training."""

from __future__ import annotations

from typing import Any


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
        """Add an epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def plot(self, names: Any = None) -> Any:
        """Plot the curves; requires matplotlib.

        Parameters
        ----------
        names : str or sequence of str, optional
            Quantities to plot, each with its validation in axes of its own. Default: all.

        Returns
        -------
        figure : matplotlib.figure.Figure
            ``figure.savefig(path)`` writes it, ``matplotlib.pyplot.show()`` shows it.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise ImportError(
                "history.plot needs matplotlib: pip install 'fastrnn[plot]'"
            ) from None
        if names is None:
            names = [n for n in self.history if not n.startswith("val_")]
        shown = [names] if isinstance(names, str) else list(names)
        unknown = [n for n in shown if n not in self.history]
        if unknown or not shown:
            raise ValueError(f"names: expected some of {list(self.history)}, got {shown}")
        figure, grid = pyplot.subplots(
            1, len(shown), squeeze=False, figsize=(5 * len(shown), 4), layout="constrained"
        )
        for axes, name in zip(grid[0], shown, strict=True):
            for key, label in ((name, "training"), (f"val_{name}", "validation")):
                if key in self.history:
                    axes.plot([e + 1 for e in self.epoch], self.history[key], label=label)
            axes.set(xlabel="epoch", ylabel=name)
            axes.legend()
        return figure

    def __repr__(self) -> str:
        last = {name: round(value, 4) for name, value in self.last.items()}
        return f"History(epochs={len(self.epoch)}, last={last})"
