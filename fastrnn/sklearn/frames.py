"""Sequences of frames in long form: one row for each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrnn import _frames
from fastrnn._types import Array


def from_frame(
    df: Any,
    *,
    group: str | Sequence[str],
    features: Sequence[str] | None = None,
    target: str | Sequence[str] | None = None,
    time: str | None = None,
    per_step: bool = False,
) -> tuple[list[Any], Any]:
    """Return sequences, and their targets, of a frame that has a row for each step.

    Parameters
    ----------
    df : pandas.DataFrame or polars.DataFrame
    group : str or list of str
        The columns that tell sequences apart.
    features : list of str, optional
        Columns. Default: all others.
    target : str or list of str, optional
        Column of the targets; a list of them for several.
    time : str, optional
        A column that steps are sorted by, text in alphabetical order; of each group, no two have
        the same time. Default: they are in the order of the frame.
    per_step : bool
        Whether there is a target for each step, for ``return_sequences=True``, rather than one for
        the sequence, which then has to be the same in all of its rows.

    Returns
    -------
    X : list of n frames (T_i, F)
        In the order in which the groups first occur.
    y : (n,) or (n, K) array, list of n arrays (T_i,) or (T_i, K), or None
        None without `target`.

    Raises
    ------
    ValueError, TypeError
        If a column does not exist or lacks values, or targets differ or times are equal within a
        group.

    Examples
    --------
    >>> import pandas as pd
    >>> from fastrnn.sklearn import from_frame
    >>> df = pd.DataFrame({"id": ["b", "b", "a", "a", "a"], "t": [2, 1, 1, 2, 3],
    ...                    "v": [0.2, 0.1, 1.0, 1.1, 1.2], "label": ["up", "up", "no", "no", "no"]})
    >>> X, y = from_frame(df, group="id", features=["v"], target="label", time="t")
    >>> [x["v"].tolist() for x in X], y.tolist()
    ([[0.1, 0.2], [1.0, 1.1, 1.2]], ['up', 'no'])
    """
    if not _frames.is_frame(df):
        raise TypeError(f"df: expected a frame of pandas or polars, got {type(df).__name__}")
    groups, targets = _names(df, group, "group"), _names(df, target, "target")
    times = _names(df, time, "time")
    if not groups:
        raise ValueError("group: expected one column or more, got none")
    if features is None:
        features = [c for c in df.columns if c not in {*groups, *targets, *times}]
    features = _names(df, features, "features")
    if not len(df):
        raise ValueError("df: expected one row or more, got none")
    of = _codes(df, groups)
    at = _codes(df, times)
    order = np.lexsort((at, of))
    if times:
        for i in np.flatnonzero((np.diff(of[order]) == 0) & (np.diff(at[order]) == 0))[:1]:
            raise ValueError(
                f"time: expected it to differ in all rows of a group, got "
                f"{_cells(df, times, order[i])} twice where {_cells(df, groups, order[i])}; name "
                "all columns of the group, or sort the frame and leave time out"
            )
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    first = np.minimum.reduceat(order, starts)
    bounds = list(zip(starts, [*starts[1:], len(order)], strict=True))
    bounds = [bounds[i] for i in np.argsort(first)]
    sorted_rows = _rows(df[features], order)
    X = [sorted_rows[a:b] for a, b in bounds]
    if target is None:
        return X, None
    y = np.stack([_frames.values(df[name], f"target {name!r}")[order] for name in targets], axis=1)
    y = y[:, 0] if isinstance(target, str) else y
    if per_step:
        return X, [y[a:b] for a, b in bounds]
    for a, b in bounds:
        if (y[a:b] != y[a]).any():
            found = np.unique(y[a:b].astype(str)).tolist()[:5]
            raise ValueError(
                f"target: expected one for all rows of a group, got {found} where "
                f"{_cells(df, groups, order[a])}; set per_step=True for targets of each step"
            )
    return X, y[[a for a, _ in bounds]]


def _names(df: Any, value: Any, name: str) -> list[str]:
    """Return the names of columns as a list; raise if one does not exist."""
    names = [] if value is None else [value] if isinstance(value, str) else list(value)
    known = list(df.columns)
    for column in names:
        if known.count(column) > 1:
            raise ValueError(f"df: expected columns of distinct names, got {column!r} twice")
        if column not in known:
            level = column in getattr(getattr(df, "index", None), "names", ())
            hint = "; it is in the index: pass df.reset_index()" * level
            raise ValueError(f"{name}: expected columns among {known}, got {column!r}{hint}")
    return names


def _cells(df: Any, names: Sequence[str], i: int) -> str:
    """Return what is in these columns of a row, for messages."""
    row = _rows(df[names], np.array([i]))
    return ", ".join(f"{name}={row[name].to_list()[0]!r}" for name in names)


def _codes(df: Any, names: Sequence[str]) -> Array:
    """Return numbers that tell the values in these columns apart, and sort as they do."""
    codes = np.zeros(len(df), int)
    for name in names:
        ranks = np.asarray(df[name].rank(method="dense"), np.float64)
        if np.isnan(ranks).any():
            missing = np.count_nonzero(np.isnan(ranks))
            raise ValueError(f"column {name!r}: expected no missing values, got {missing}")
        of = ranks.astype(int)
        codes = np.unique(codes * (of.max() + 1) + of, return_inverse=True)[1]
    return codes


def _rows(frame: Any, rows: Array) -> Any:
    """Return rows of a frame, by position."""
    return frame.iloc[rows] if hasattr(frame, "iloc") else frame[rows]
