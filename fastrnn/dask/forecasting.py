"""A forecaster for each of many series, fitted where the series are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrnn import _checks
from fastrnn._files import atomic
from fastrnn._files.reading import from_json, whole
from fastrnn._types import Array
from fastrnn._version import __version__
from fastrnn.dask.tasks import dask_module, one_thread
from fastrnn.forecast import Forecaster

#: Parts of a dict of series: enough for many workers, few enough for little overhead.
_PARTS = 256


class SeriesForecast(NamedTuple):
    """The forecast of one of many series.

    Examples
    --------
    >>> fastrnn.dask.SeriesForecast("shop 1", np.array([3.0, 4.0]), None).values
    array([3., 4.])
    """

    name: Any  #: Of the series.
    values: Array | None  #: (horizon,) or (horizon, K), or None if it failed.
    error: str | None  #: What failed, or None.


def forecast(
    forecaster: Forecaster,
    series: Any,
    horizon: int,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Any:
    """Fit a forecaster to each of many series, where they are, and return the forecasts.

    A series that fails, such as one that is too short, is reported with its name, and no other is
    lost. The results are those of ``Forecaster.fit(values).predict(horizon)``, the same bits on any
    worker for a forecaster with a `seed`; each task uses one thread. What a worker that dies had
    computed, Dask computes again on another, except for what is in a `folder`.

    Parameters
    ----------
    forecaster : Forecaster
        Its settings; it is not fitted itself.
    series : dict of name to values, or dask bag of (name, values)
        Values of one series, as :meth:`fastrnn.forecast.Forecaster.fit` takes them; in a dict also
        arrays and series of Dask.
    horizon : int
        Number of values to forecast.
    folder : str or path-like, optional
        Where each forecast is also written, as JSON, when it is done: a folder that all workers
        see. A second call with the same arguments reads what is there and computes the rest, so
        that a computation that was killed goes on. What can't be written counts as failed.

    Returns
    -------
    dask bag of SeriesForecast
        Lazy: ``compute()`` gives a list, in the order of the series.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind.

    Examples
    --------
    >>> many = {"a": values, "b": more_values}  # doctest: +SKIP
    >>> found = fastrnn.dask.forecast(Forecaster(seed=0), many, 12)  # doctest: +SKIP
    >>> {f.name: f.values for f in found.compute()}  # doctest: +SKIP
    """
    if not isinstance(forecaster, Forecaster):
        raise TypeError(f"forecaster: expected a Forecaster, got {_checks.kind_of(forecaster)}")
    horizon = _checks.size(horizon, "horizon")
    if folder is not None:
        folder = os.path.abspath(_checks.path(folder, "folder"))  # workers may be elsewhere
        os.makedirs(folder, exist_ok=True)
    bags = dask_module("dask.bag")
    if isinstance(series, Mapping):
        series = _bag_of(bags, list(series.items()))
    if not isinstance(series, bags.Bag):
        raise TypeError(
            "series: expected a dict of name to values, or a dask bag of (name, values), got "
            f"{_checks.kind_of(series)}"
        )
    unfitted = type(forecaster)(**forecaster.get_params())
    return series.map_partitions(_of_part, unfitted, horizon, folder)


def _bag_of(bags: Any, items: list[tuple[Any, Any]]) -> Any:
    """Return pairs of name and values as a bag; values may be in Dask too."""
    dask = dask_module("dask")
    if any(dask.is_dask_collection(values) for _, values in items):
        return bags.from_delayed([dask.delayed([item]) for item in items])
    return bags.from_sequence(items, npartitions=min(len(items), _PARTS) or 1)


def _of_part(
    part: Iterable[Any], forecaster: Forecaster, horizon: int, folder: str | None
) -> list[SeriesForecast]:
    """Return the forecasts of a part of the series."""
    forecasts = []
    for item in part:
        try:
            name, values = item
        except (TypeError, ValueError):
            raise TypeError(
                f"series: expected pairs of name and values, got {_checks.kind_of(item)}"
            ) from None
        try:
            found = SeriesForecast(name, _of(forecaster, name, values, horizon, folder), None)
        except Exception as error:
            found = SeriesForecast(name, None, f"{type(error).__name__}: {error}")
        forecasts.append(found)
    return forecasts


def _of(forecaster: Forecaster, name: Any, values: Any, horizon: int, folder: str | None) -> Array:
    """Return the forecast of a series, from the folder if it is there."""
    path = None if folder is None else _path(folder, forecaster, name, values, horizon)
    if path is not None and (known := _read(path, horizon)) is not None:
        return known
    model = type(forecaster)(**forecaster.get_params())
    with one_thread():
        said = model.fit(values, verbose=0).predict(horizon)
    if isinstance(said, dict | list):
        got = f"{len(said)} in a {type(said).__name__}"
        raise TypeError(f"series: expected one for each name, got {got}")
    found = np.asarray(said)
    if path is not None:
        text = json.dumps({"name": str(name), "values": found.tolist()})
        atomic.write(path, text.encode())
    return found


def _path(folder: str, forecaster: Forecaster, name: Any, values: Any, horizon: int) -> str:
    """Return the file of a forecast, named after all that it depends on."""
    kind = type(forecaster).__qualname__
    about = f"{__version__} {kind} {forecaster.get_params()} {name!r} {horizon} "
    # Not a pickle, of which an array that a worker was sent has another than the original.
    about += dask_module("dask.base").tokenize(values)
    return os.path.join(folder, f"{hashlib.sha256(about.encode()).hexdigest()}.json")


def _read(path: str, horizon: int) -> Array | None:
    """Return the forecast in a file; None if there is none that can be read."""
    try:
        values = np.array(from_json(whole(path))["values"], np.float64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return values if values.shape[:1] == (horizon,) else None
